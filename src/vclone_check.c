/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclone_check: vclone check, which reads the files of a pool itself, mounted or not; and with --repair or --rebuild, of a pool that is
 * not mounted, sets right what it can.
 */
#include "config.h"
#include "vclone_impl.h"

#include <getopt.h>
#include <stdlib.h>
#include "rebuild.h"
#include "repair.h"

/* As fsck(8); bits. */
enum check_exit { CHECK_CLEAN = 0, CHECK_CORRECTED = 1, CHECK_ERRORS = 4, CHECK_FAILED = 8, CHECK_USAGE = 16 };

enum check_mode { MODE_CHECK, MODE_REPAIR, MODE_REBUILD };

struct check_lines {
	char **v;
	size_t n, cap;
};

struct check_cli {
	enum check_mode mode;
	bool data, log, salvage, json;
	const char *log_dir;
	struct vc_json out;
	struct check_lines did, left; /* printed after the findings, which are printed as they come */
	struct vc_progress progress;
	const char *doing;
};

static void check_cli_found(void *ctx, const char *text)
{
	struct check_cli *c = ctx;

	vc_progress_end(&c->progress);
	if (c->json)
		vc_json_string(&c->out, NULL, text);
	else
		printf("%s\n", text);
}

static void check_cli_progress(void *ctx, const char *what, uint64_t done, uint64_t total)
{
	struct check_cli *c = ctx;

	if (what != c->doing) {
		vc_progress_end(&c->progress);
		vc_progress_begin(&c->progress, what, false);
		c->doing = what;
	}
	vc_progress_show(&c->progress, done, total);
}

static void lines_add(struct check_lines *l, const char *text)
{
	char *copy = strdup(text);

	if (copy && vc_array_room(&l->v, l->n, &l->cap, sizeof(char *)) == 0)
		l->v[l->n++] = copy;
	else
		free(copy);
}

static void lines_free(struct check_lines *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
}

static void lines_json(struct vc_json *out, const char *key, const struct check_lines *l)
{
	vc_json_open(out, key, '[');
	for (size_t i = 0; i < l->n; i++)
		vc_json_string(out, NULL, l->v[i]);
	vc_json_close(out, '[');
}

static void check_cli_say(void *ctx, const char *text)
{
	struct check_cli *c = ctx;

	vc_progress_end(&c->progress);
	if (c->json)
		lines_add(&c->did, text);
	else
		printf("* %s\n", text);
}

static void check_cli_left(void *ctx, const char *text)
{
	struct check_cli *c = ctx;

	vc_progress_end(&c->progress);
	if (c->json)
		lines_add(&c->left, text);
	else
		printf("left: %s\n", text);
}

static void check_cli_json_result(struct check_cli *c, const struct vc_check_result *r)
{
	vc_json_u64(&c->out, "errors", r->findings);
	vc_json_u64(&c->out, "inodes", r->inodes);
	vc_json_u64(&c->out, "directories", r->directories);
	vc_json_u64(&c->out, "images", r->images);
	vc_json_u64(&c->out, "names", r->names);
	vc_json_u64(&c->out, "orphans", r->orphans);
	vc_json_u64(&c->out, "nodes", r->nodes);
	vc_json_u64(&c->out, "unreachable_nodes", r->unreachable_nodes);
	vc_json_u64(&c->out, "mapped_bytes", r->mapped_blocks * 4096);
	vc_json_u64(&c->out, "chunks", r->chunks);
	vc_json_u64(&c->out, "chunk_bytes", r->chunk_bytes);
	vc_json_u64(&c->out, "segments", r->segments);
	vc_json_u64(&c->out, "dead_segments", r->dead_segments);
	vc_json_u64(&c->out, "checkpoint", r->checkpoint_lsn);
	vc_json_bool(&c->out, "log_checked", r->log == 1);
}

static void check_cli_text_result(const struct vc_check_result *r)
{
	printf("%llu images, %llu directories, %llu names, %llu orphans\n", (unsigned long long)r->images,
	       (unsigned long long)r->directories, (unsigned long long)r->names, (unsigned long long)r->orphans);
	printf("%llu map nodes (%llu wait for 'vclone clean'), %s mapped in all\n", (unsigned long long)r->nodes,
	       (unsigned long long)r->unreachable_nodes, vc_cli_size(r->mapped_blocks * 4096, 0));
	printf("%llu chunks in use, %s; %llu segments (%llu hold nothing in use)\n", (unsigned long long)r->chunks,
	       vc_cli_size(r->chunk_bytes, 1), (unsigned long long)r->segments, (unsigned long long)r->dead_segments);
	if (r->log < 0)
		printf("the log was not looked at: %s\n", r->log == -EBUSY ? "the pool is in use" :
		       r->log == -ENOENT ? "it is not there (--log-dir)" : strerror(-r->log));
	printf("%s\n", r->findings ? "the pool is DAMAGED" : r->log < 0 ? "all else is clean" : "the pool is clean");
}

static void check_cli_result(struct check_cli *c, const struct vc_check_result *r)
{
	if (c->json)
		check_cli_json_result(c, r);
	else
		check_cli_text_result(r);
}

/* ---- the three of them; an exit status, or -errno ---- */

static int check_only(struct check_cli *c, const struct vc_check_options *options, const char *dir)
{
	struct vc_check_result result;
	int r = vc_check_pool(vc_io_posix(), dir, options, &result);

	if (c->json)
		vc_json_close(&c->out, '[');
	if (r == 0 || c->json)
		check_cli_result(c, &result);
	return r < 0 ? r : result.findings ? CHECK_ERRORS : CHECK_CLEAN;
}

static int check_repair(struct check_cli *c, const struct vc_check_options *options, const char *dir)
{
	struct vc_repair_options repair = { .check = *options, .say = check_cli_say, .left = check_cli_left };
	struct vc_repair_result result;
	int r = vc_repair_pool(vc_io_posix(), dir, &repair, &result);

	if (c->json) {
		vc_json_close(&c->out, '[');
		lines_json(&c->out, "actions", &c->did);
		lines_json(&c->out, "left", &c->left);
		vc_json_u64(&c->out, "repaired", result.fixed);
		vc_json_string(&c->out, "kept", result.kept);
	}
	if (r == 0 || c->json)
		check_cli_result(c, &result.after);
	if (r < 0)
		return r;
	return (result.replaced ? CHECK_CORRECTED : 0) | (result.after.findings ? CHECK_ERRORS : 0);
}

static int check_rebuild(struct check_cli *c, const struct vc_check_options *options, const char *dir)
{
	struct vc_rebuild_options rebuild = { .check = *options, .salvage = c->salvage, .say = check_cli_say };
	struct vc_rebuild_result result;
	int r = vc_rebuild_pool(vc_io_posix(), dir, &rebuild, &result);

	if (c->json) {
		vc_json_close(&c->out, '[');
		lines_json(&c->out, "actions", &c->did);
		vc_json_u64(&c->out, "backup", result.backup_lsn);
		vc_json_u64(&c->out, "entries", result.entries);
		vc_json_bool(&c->out, "rebuilt", result.replaced);
		vc_json_bool(&c->out, "salvaged", result.salvaged);
		vc_json_u64(&c->out, "salvaged_images", result.salvaged_images);
		vc_json_u64(&c->out, "salvaged_bytes", result.salvaged_blocks * 4096);
		vc_json_string(&c->out, "kept", result.kept);
		check_cli_json_result(c, &result.check);
	} else if (result.replaced) {
		check_cli_text_result(&result.check);
	} else if (r == 0) {
		printf("nothing was changed\n");
	}
	if (r < 0)
		return r;
	return (result.replaced ? CHECK_CORRECTED : 0) | (result.check.findings || result.salvaged ? CHECK_ERRORS : 0);
}

static int check_cli_run(struct check_cli *c, const char *dir)
{
	static int (*const modes[])(struct check_cli *c, const struct vc_check_options *options, const char *dir) = {
		[MODE_CHECK] = check_only, [MODE_REPAIR] = check_repair, [MODE_REBUILD] = check_rebuild,
	};
	struct vc_check_options options = { .data = c->data, .log = c->log, .log_dir = c->log_dir, .found = check_cli_found,
					    .progress = check_cli_progress, .ctx = c };
	int r;

	options.log_if_free = c->mode == MODE_CHECK;
	if (c->json) {
		vc_json_begin(&c->out, stdout);
		vc_json_open(&c->out, NULL, '{');
		vc_json_open(&c->out, "findings", '[');
	}
	r = modes[c->mode](c, &options, dir);
	vc_progress_end(&c->progress);
	if (c->json) {
		vc_json_close(&c->out, '{');
		printf("\n");
	}
	lines_free(&c->did);
	lines_free(&c->left);
	if (r < 0) {
		static const char *const what[] = { "checked", "repaired", "rebuilt" };

		vc_cli_error("%s: could not be %s: %s", dir, what[c->mode], strerror(-r));
		if (c->mode != MODE_REBUILD && (r == -EUCLEAN || r == -EBADMSG || r == -ENOENT))
			vc_cli_error("if it is LMDB that is lost or damaged, 'vclone check --rebuild' makes it again");
		return CHECK_FAILED;
	}
	return vc_cli_finish(r);
}

static int check_usage(const struct vc_command *cmd, const char *what)
{
	vc_cli_usage(cmd, "%s", what);
	return CHECK_USAGE;
}

static int command_check(const struct vc_command *cmd, int argc, char **argv)
{
	enum { CHECK_DATA = VC_OPTION_OTHER, CHECK_LOG, CHECK_LOG_DIR, CHECK_REPAIR, CHECK_REBUILD, CHECK_SALVAGE };
	static const struct option options[] = {
		{ "data", no_argument, NULL, CHECK_DATA },
		{ "log", no_argument, NULL, CHECK_LOG },
		{ "log-dir", required_argument, NULL, CHECK_LOG_DIR },
		{ "repair", no_argument, NULL, CHECK_REPAIR },
		{ "rebuild", no_argument, NULL, CHECK_REBUILD },
		{ "salvage", no_argument, NULL, CHECK_SALVAGE },
		{ "json", no_argument, NULL, VC_OPTION_JSON },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct check_cli c = { .data = false };
	bool repair = false, rebuild = false;
	int o;

	while ((o = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
		if (o == 'h')
			return vc_cli_help(cmd);
		c.data |= o == CHECK_DATA;
		c.log |= o == CHECK_LOG || o == CHECK_LOG_DIR;
		c.json |= o == VC_OPTION_JSON;
		c.salvage |= o == CHECK_SALVAGE;
		repair |= o == CHECK_REPAIR;
		rebuild |= o == CHECK_REBUILD;
		if (o == CHECK_LOG_DIR)
			c.log_dir = optarg;
		if (o == '?') {
			vc_cli_usage(cmd, "unknown option '%s'", argv[optind - 1]);
			return CHECK_USAGE;
		}
	}
	if (repair && rebuild)
		return check_usage(cmd, "either --repair or --rebuild");
	if (c.salvage && !rebuild)
		return check_usage(cmd, "--salvage goes with --rebuild");
	if (argc - optind != 1)
		return check_usage(cmd, "the directory of one pool is needed");
	c.mode = repair ? MODE_REPAIR : rebuild ? MODE_REBUILD : MODE_CHECK;
	return check_cli_run(&c, argv[optind]);
}

const struct vc_command vc_command_check = {
	.name = "check",
	.args = "[--data] [--log] [--log-dir DIR] [--repair | --rebuild [--salvage]] [--json] POOL",
	.summary = "verify the books of a pool, mounted or not; repair or rebuild them",
	.help = "Reads the pool's directory itself. The log is replayed, in memory. Of a mounted pool only the last checkpoint is checked.\n"
		"  --data         read every chunk in use and verify its checksums\n"
		"  --log          fail if the log cannot be looked at; otherwise that is only said\n"
		"  --log-dir DIR  where the log lies, if not in POOL/log\n"
		"  --repair       set right what can be without giving anything up; what has no name goes to lost+found\n"
		"  --rebuild      LMDB is lost or damaged: make it again from its backup, the destage journal and the log\n"
		"  --salvage      with --rebuild: take what can be had, also when it is not all\n"
		"  --json         print the result as JSON\n"
		"Repair and rebuild want a pool that is not mounted, and keep the LMDB they replace in POOL/backup.\n"
		"Exit status, added up: 0 clean, 1 corrected, 4 errors left, 8 it could not be done, 16 the command line was wrong.\n",
	.run = command_check,
};
