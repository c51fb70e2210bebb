/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclone_scrub: have the daemon read everything from the disk, watch it, and say which images are damaged where.
 *
 * The daemon names images by inode number; their paths are looked for below the mount when there is something to say.
 */
#include "config.h"
#include "vclone_impl.h"

#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define SCRUB_POLL_NS 200000000L
#define SCRUB_EXIT_DAMAGED 4 /* as fsck: errors are left */
#define MIB (UINT64_C(1) << 20)

enum scrub_do { DO_RUN, DO_START, DO_STATUS, DO_STOP };

struct scrub_cli {
	enum scrub_do what;
	bool again, json;
	uint64_t rate;
	const char *path;
	int fd;
	struct vclonefs_scrub status;
};

/* An image that something is said of. */
struct scrub_name {
	uint64_t ino;
	char *path;
};

static struct {
	struct scrub_name *v;
	size_t n, cap;
} names; /* nftw passes no argument */

static int name_compare(const void *a, const void *b)
{
	uint64_t x = ((const struct scrub_name *)a)->ino, y = ((const struct scrub_name *)b)->ino;

	return x < y ? -1 : x > y;
}

static struct scrub_name *name_find(uint64_t ino)
{
	struct scrub_name key = { .ino = ino };

	return names.n ? bsearch(&key, names.v, names.n, sizeof(key), name_compare) : NULL;
}

static int name_visit(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	struct scrub_name *name = name_find(st->st_ino);

	(void)flag;
	(void)ftw;
	if (name && !name->path)
		name->path = strdup(path);
	return 0;
}

/* ---- talking to the daemon ---- */

static int scrub_failed(const struct scrub_cli *c, int error)
{
	vc_cli_error("%s: scrub: %s%s", c->path, strerror(error),
		     error == EACCES ? " (only root and the owner of the mount's top directory may)" :
		     error == ENOTCONN ? " (the daemon of this mount is gone)" : "");
	return -error;
}

static int scrub_call(struct scrub_cli *c, enum vclonefs_scrub_command command)
{
	bool start = command == VCLONEFS_SCRUB_START;

	c->status = (struct vclonefs_scrub){ .size = sizeof(c->status), .command = (uint32_t)command, .rate = start ? c->rate : 0,
					     .flags = start && c->again ? VCLONEFS_SCRUB_AGAIN : 0 };
	return ioctl(c->fd, VCLONEFS_IOC_SCRUB, &c->status) < 0 ? scrub_failed(c, errno) : 0;
}

static int scrub_watch(struct scrub_cli *c, const char *what)
{
	const struct timespec pause = { .tv_nsec = SCRUB_POLL_NS };
	struct vc_progress progress;
	int r = 0;

	vc_progress_begin(&progress, what, true);
	while (r == 0 && c->status.running) {
		nanosleep(&pause, NULL);
		r = scrub_call(c, VCLONEFS_SCRUB_STATUS);
		vc_progress_show(&progress, c->status.done, c->status.total);
	}
	vc_progress_end(&progress);
	return r;
}

/* All items, from the daemon in pieces; the caller frees *ret. */
static int scrub_items(struct scrub_cli *c, struct vclonefs_scrub_item **ret, size_t *ret_n)
{
	struct vclonefs_scrub_list *list = calloc(1, sizeof(*list));
	struct vclonefs_scrub_item *items = NULL;
	size_t n = 0, cap = 0;
	int r = list ? 0 : -ENOMEM;

	while (r == 0) {
		*list = (struct vclonefs_scrub_list){ .size = sizeof(*list), .from = n };
		if (ioctl(c->fd, VCLONEFS_IOC_SCRUB_LIST, list) < 0)
			r = scrub_failed(c, errno);
		if (r < 0 || list->count == 0)
			break;
		for (uint32_t i = 0; i < VC_MIN(list->count, (uint32_t)VCLONEFS_SCRUB_LIST) && r == 0; i++) {
			r = vc_array_room(&items, n, &cap, sizeof(*items));
			if (r == 0)
				items[n++] = list->items[i];
		}
	}
	free(list);
	*ret = items;
	*ret_n = n;
	return r;
}

static int scrub_find_names(const struct scrub_cli *c, const struct vclonefs_scrub_item *items, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		if (vc_array_room(&names.v, names.n, &names.cap, sizeof(*names.v)) < 0)
			return -ENOMEM;
		names.v[names.n++] = (struct scrub_name){ .ino = items[i].ino };
	}
	if (names.n)
		qsort(names.v, names.n, sizeof(*names.v), name_compare);
	for (size_t i = 0; i < names.n; i++)
		if (i == 0 || names.v[i].ino != names.v[kept - 1].ino)
			names.v[kept++] = names.v[i];
	names.n = kept;
	return names.n && nftw(c->path, name_visit, 16, FTW_PHYS | FTW_MOUNT) < 0 ? -errno : 0;
}

/* ---- saying it ---- */

static const char *item_file(const struct vclonefs_scrub_item *item, char *buf, size_t len)
{
	if (item->kind == VCLONEFS_SCRUB_CHUNK)
		snprintf(buf, len, "chunk/%08" PRIx64 ".seg", item->file);
	else if (item->kind == VCLONEFS_SCRUB_LOG)
		snprintf(buf, len, "log/%04" PRIu64 ".log", item->file);
	else
		snprintf(buf, len, "meta/data.mdb");
	return buf;
}

static const char *item_kind(const struct vclonefs_scrub_item *item)
{
	static const char *const kinds[] = { "unknown", "chunk", "log", "node", "row", "page" };

	return kinds[item->kind < VC_ARRAY_LEN(kinds) ? item->kind : 0];
}

static void item_text(const struct vclonefs_scrub_item *item)
{
	const struct scrub_name *name = name_find(item->ino);
	char file[40];

	if (name && name->path)
		vc_cli_put_name(stdout, name->path);
	else if (item->ino)
		printf("inode %" PRIu64 " (without a name)", item->ino);
	else
		printf("(image unknown)");
	if (item->len)
		printf(": offset %" PRIu64 ", %" PRIu64 " bytes", item->offset, item->len);
	printf(": %s damaged in %s", item_kind(item), item_file(item, file, sizeof(file)));
	if (item->kind == VCLONEFS_SCRUB_CHUNK || item->kind == VCLONEFS_SCRUB_LOG)
		printf(" at %" PRIu64, item->at);
	putchar('\n');
}

static void item_json(struct vc_json *j, const struct vclonefs_scrub_item *item)
{
	const struct scrub_name *name = name_find(item->ino);
	char file[40];

	vc_json_open(j, NULL, '{');
	if (name && name->path)
		vc_json_string(j, "image", name->path);
	else
		vc_json_null(j, "image");
	vc_json_u64(j, "inode", item->ino);
	vc_json_u64(j, "offset", item->offset);
	vc_json_u64(j, "length", item->len);
	vc_json_string(j, "kind", item_kind(item));
	vc_json_string(j, "file", item_file(item, file, sizeof(file)));
	vc_json_u64(j, "at", item->at);
	vc_json_close(j, '{');
}

static void scrub_json(const struct scrub_cli *c, const struct vclonefs_scrub_item *items, size_t n)
{
	const struct vclonefs_scrub *s = &c->status;
	struct vc_json j;

	vc_json_begin(&j, stdout);
	vc_json_open(&j, NULL, '{');
	vc_json_bool(&j, "running", s->running != 0);
	vc_json_bool(&j, "stopped", !s->running && s->error == EINTR);
	vc_json_u64(&j, "done", s->done);
	vc_json_u64(&j, "total", s->total);
	vc_json_u64(&j, "rate", s->rate);
	vc_json_u64(&j, "started_ns", s->started_ns);
	vc_json_u64(&j, "finished_ns", s->finished_ns);
	vc_json_u64(&j, "found", s->found);
	vc_json_open(&j, "damaged", '[');
	for (size_t i = 0; i < n; i++)
		item_json(&j, &items[i]);
	vc_json_close(&j, '[');
	vc_json_close(&j, '{');
	putchar('\n');
}

static void scrub_text(const struct scrub_cli *c, const struct vclonefs_scrub_item *items, size_t n)
{
	const struct vclonefs_scrub *s = &c->status;

	for (size_t i = 0; i < n; i++)
		item_text(&items[i]);
	if (s->running)
		printf("running: %s of %s read\n", vc_cli_size(s->done, 0), vc_cli_size(s->total, 1));
	else if (s->error == EINTR)
		printf("stopped: %s of %s read; the next scrub goes on there\n", vc_cli_size(s->done, 0), vc_cli_size(s->total, 1));
	else if (!s->started_ns)
		printf("never run\n");
	else if (!s->id)
		printf("not run since the mount\n");
	else
		printf("%s read, %" PRIu64 " things damaged\n", vc_cli_size(s->done, 0), s->found);
}

static int scrub_report(struct scrub_cli *c)
{
	struct vclonefs_scrub_item *items = NULL;
	size_t n = 0;
	int r = scrub_items(c, &items, &n);

	if (r == 0 && scrub_find_names(c, items, n) < 0)
		vc_cli_error("%s: names could not be looked up", c->path);
	if (r == 0 && c->json)
		scrub_json(c, items, n);
	else if (r == 0)
		scrub_text(c, items, n);
	for (size_t i = 0; i < names.n; i++)
		free(names.v[i].path);
	free(names.v);
	free(items);
	return r;
}

/* ---- the command ---- */

static int scrub_run(struct scrub_cli *c)
{
	int r = scrub_call(c, c->what == DO_STATUS ? VCLONEFS_SCRUB_STATUS : c->what == DO_STOP ? VCLONEFS_SCRUB_STOP : VCLONEFS_SCRUB_START);

	if (r == 0 && (c->what == DO_RUN || c->what == DO_STOP))
		r = scrub_watch(c, "scrub");
	if (r == 0)
		r = scrub_report(c);
	if (r < 0)
		return VC_EXIT_FAILED;
	if (c->status.found)
		return SCRUB_EXIT_DAMAGED;
	if (c->what == DO_RUN && c->status.error) {
		if (c->status.error != EINTR)
			scrub_failed(c, c->status.error);
		return VC_EXIT_FAILED;
	}
	return VC_EXIT_OK;
}

static bool scrub_parse_rate(const char *text, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || *ret > UINT64_MAX / MIB)
		return false;
	*ret *= MIB;
	return true;
}

static int command_scrub(const struct vc_command *cmd, int argc, char **argv)
{
	enum { OPT_STATUS = VC_OPTION_OTHER, OPT_STOP, OPT_RATE, OPT_RESTART, OPT_BACKGROUND };
	static const struct option options[] = {
		{ "help", no_argument, NULL, VC_OPTION_HELP }, { "json", no_argument, NULL, VC_OPTION_JSON },
		{ "status", no_argument, NULL, OPT_STATUS }, { "stop", no_argument, NULL, OPT_STOP },
		{ "rate", required_argument, NULL, OPT_RATE }, { "restart", no_argument, NULL, OPT_RESTART },
		{ "background", no_argument, NULL, OPT_BACKGROUND }, { NULL, 0, NULL, 0 }
	};
	struct scrub_cli c = { .what = DO_RUN };
	bool starts = false;
	int opt, status;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == VC_OPTION_HELP)
			return vc_cli_help(cmd);
		if (opt == VC_OPTION_JSON)
			c.json = true;
		else if (opt == OPT_STATUS || opt == OPT_STOP || opt == OPT_BACKGROUND)
			c.what = opt == OPT_STATUS ? DO_STATUS : opt == OPT_STOP ? DO_STOP : DO_START;
		else if (opt == OPT_RESTART)
			starts = c.again = true;
		else if (opt == OPT_RATE && scrub_parse_rate(optarg, &c.rate))
			starts = true;
		else
			return vc_cli_usage(cmd, "unknown option, or not a rate in MiB a second");
	}
	if (argc - optind != 1 || (starts && (c.what == DO_STATUS || c.what == DO_STOP)))
		return vc_cli_usage(cmd, "one mount, and --rate and --restart only to start");
	c.path = argv[optind];
	if (vc_cli_open(c.path, 0, &c.fd) < 0)
		return VC_EXIT_FAILED;
	status = scrub_run(&c);
	close(c.fd);
	return vc_cli_finish(status);
}

const struct vc_command vc_command_scrub = {
	.name = "scrub",
	.args = "[--rate MIB] [--restart] [--background | --status | --stop] [--json] MOUNT",
	.summary = "read everything from the disk and say which images are damaged",
	.help =
	"The daemon reads LMDB, the log and all chunks past the page cache and verifies every checksum; images may be in use.\n"
	"  --rate MIB     at most so many MiB a second (0: no limit); changes the rate of a scrub that runs\n"
	"  --restart      from the beginning, not from where the last one was stopped\n"
	"  --background   do not wait for the end\n"
	"  --status       how far it is and what it has found\n"
	"  --stop         stop it; the next scrub goes on there\n"
	"  --json         the report as JSON\n"
	"A scrub goes on after the pool was unmounted or the daemon killed. Interrupting this command does not stop it.\n"
	"Exit status: 0 nothing is damaged, 1 it could not be done or was stopped, 2 usage, 4 something is damaged.\n",
	.run = command_scrub,
};
