/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclone_report: ls, info and df.
 */
#include "config.h"
#include "vclone_impl.h"

#include <dirent.h>
#include <fcntl.h>
#include <fts.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

int vc_cli_image_info(int fd, const char *path, struct vclonefs_info *ret)
{
	*ret = (struct vclonefs_info){ .size = sizeof(*ret) };
	if (ioctl(fd, VCLONEFS_IOC_INFO, ret) < 0) {
		int error = errno;

		vc_cli_error("%s: asking about it: %s", path, strerror(error));
		return -error;
	}
	return 0;
}

/** The fields that ls and info have in common. */
static void info_json(struct vc_json *j, const struct vclonefs_info *info)
{
	vc_json_u64(j, "inode", info->ino);
	if (info->origin)
		vc_json_u64(j, "origin_inode", info->origin);
	else
		vc_json_null(j, "origin_inode");
	vc_json_u64(j, "depth", info->depth);
	vc_json_u64(j, "logical_bytes", info->logical);
	vc_json_u64(j, "referenced_bytes", info->referenced);
	vc_json_u64(j, "own_bytes", info->own);
	vc_json_u64(j, "pending_bytes", info->pending);
	if (info->exclusive_ns) {
		vc_json_u64(j, "exclusive_bytes", info->exclusive);
		vc_json_u64(j, "exclusive_time", info->exclusive_ns / 1000000000);
	} else {
		vc_json_null(j, "exclusive_bytes");
		vc_json_null(j, "exclusive_time");
	}
}

/* ---- ls ---- */

struct ls_job {
	struct vc_json json;
	bool as_json;
	bool header_done;
	int status;
};

static void ls_print(struct ls_job *job, const char *name, const struct vclonefs_info *info)
{
	if (job->as_json) {
		vc_json_open(&job->json, NULL, '{');
		vc_json_string(&job->json, "name", name);
		info_json(&job->json, info);
		vc_json_close(&job->json, '{');
		return;
	}
	if (!job->header_done)
		printf("%10s %10s %10s %10s %10s %6s  %s\n", "SIZE", "REFERENCED", "OWN", "PENDING", "EXCLUSIVE", "DEPTH",
		       "NAME");
	job->header_done = true;
	printf("%10s %10s %10s %10s %10s %6u  ", vc_cli_size(info->logical, 0), vc_cli_size(info->referenced, 1),
	       vc_cli_size(info->own, 2), vc_cli_size(info->pending, 3),
	       info->exclusive_ns ? vc_cli_size(info->exclusive, 4) : "-", info->depth);
	vc_cli_put_name(stdout, name);
	putchar('\n');
}

static void ls_image(struct ls_job *job, int dir, const char *entry, const char *name)
{
	int fd = openat(dir, entry, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	struct vclonefs_info info;

	if (fd < 0) {
		vc_cli_error("%s: %s", name, strerror(errno));
		job->status = VC_EXIT_FAILED;
		return;
	}
	if (vc_cli_image_info(fd, name, &info) < 0)
		job->status = VC_EXIT_FAILED;
	else
		ls_print(job, name, &info);
	close(fd);
}

static int entry_is_image(const struct dirent *entry)
{
	return entry->d_type == DT_REG;
}

static void ls_directory(struct ls_job *job, int dir, const char *path, bool prefix)
{
	char name[VCLONEFS_PATH_MAX + NAME_MAX + 2];
	struct dirent **entries;
	int n = scandirat(dir, ".", &entries, entry_is_image, alphasort);

	if (n < 0) {
		vc_cli_error("%s: %s", path, strerror(errno));
		job->status = VC_EXIT_FAILED;
		return;
	}
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s%s%s", prefix ? path : "", prefix ? "/" : "", entries[i]->d_name);
		ls_image(job, dir, entries[i]->d_name, name);
		free(entries[i]);
	}
	free(entries);
}

static void ls_path(struct ls_job *job, const char *path, bool prefix)
{
	struct vclonefs_info info;
	struct stat st;
	int fd;

	if (vc_cli_open(path, 0, &fd) < 0) {
		job->status = VC_EXIT_FAILED;
		return;
	}
	if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
		ls_directory(job, fd, path, prefix);
	else if (vc_cli_image_info(fd, path, &info) < 0)
		job->status = VC_EXIT_FAILED;
	else
		ls_print(job, path, &info);
	close(fd);
}

static int command_ls(const struct vc_command *cmd, int argc, char **argv)
{
	struct ls_job job = { .status = VC_EXIT_OK };
	int status = vc_cli_options(cmd, argc, argv, 0, INT32_MAX, &job.as_json);

	if (status >= 0)
		return status;
	vc_json_begin(&job.json, stdout);
	if (job.as_json)
		vc_json_open(&job.json, NULL, '[');
	if (optind == argc)
		ls_path(&job, ".", false);
	for (int i = optind; i < argc; i++)
		ls_path(&job, argv[i], argc - optind > 1);
	if (job.as_json)
		vc_json_close(&job.json, '[');
	return vc_cli_finish(job.status);
}

const struct vc_command vc_command_ls = {
	.name = "ls",
	.args = "[--json] [DIRECTORY | IMAGE]...",
	.summary = "list images and the space they take",
	.help =
	"SIZE        what programs see\n"
	"REFERENCED  mapped to stored data, shared or not, as of the last checkpoint\n"
	"OWN         of that, written since the image was last cloned or made by cloning: private for certain\n"
	"PENDING     still in the log\n"
	"EXCLUSIVE   stored bytes that deleting only this image would free, as of the last 'vclone clean'; - unknown\n"
	"DEPTH       clones between it and its first ancestor\n\n"
	"Names are printed with control characters, backslashes and bytes that are not UTF-8 as \\ooo.\n",
	.run = command_ls,
};

/* ---- info ---- */

/** First name on the mount at `root` with this inode number, relative to root, into buf. Returns whether found. */
static bool find_name(char *root, uint64_t ino, char *buf, size_t len)
{
	char *paths[] = { root, NULL };
	size_t skip = strlen(root);
	bool found = false;
	FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
	FTSENT *entry;

	if (!fts)
		return false;
	while (!found && (entry = fts_read(fts)) != NULL) {
		if (entry->fts_info != FTS_F || entry->fts_statp->st_ino != ino)
			continue;
		snprintf(buf, len, "%s", entry->fts_path + skip + (skip > 1));
		found = true;
	}
	fts_close(fts);
	return found;
}

static void print_bytes(const char *what, uint64_t bytes)
{
	printf("%-12s %s (%" PRIu64 " bytes)\n", what, vc_cli_size(bytes, 0), bytes);
}

static void info_print(const char *path, const struct vclonefs_info *info, const char *origin)
{
	char when[64] = "";
	time_t seconds = (time_t)(info->exclusive_ns / 1000000000);
	struct tm tm;

	printf("%-12s ", "image");
	vc_cli_put_name(stdout, path);
	printf("\n%-12s %" PRIu64 "\n%-12s ", "inode", info->ino, "origin");
	if (!info->origin)
		printf("none");
	else if (origin)
		vc_cli_put_name(stdout, origin);
	else
		printf("deleted, or not visible from here");
	if (info->origin)
		printf(" (inode %" PRIu64 ")", info->origin);
	printf("\n%-12s %u\n", "depth", info->depth);
	print_bytes("size", info->logical);
	print_bytes("referenced", info->referenced);
	print_bytes("own", info->own);
	print_bytes("pending", info->pending);
	if (info->exclusive_ns == 0 || !localtime_r(&seconds, &tm)) {
		printf("%-12s unknown until 'vclone clean' has run\n", "exclusive");
		return;
	}
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	printf("%-12s %s (%" PRIu64 " bytes) at %s\n", "exclusive", vc_cli_size(info->exclusive, 0), info->exclusive,
	       when);
}

static int info_of(const char *path, bool as_json)
{
	char origin[VCLONEFS_PATH_MAX];
	struct vc_cli_mount mount;
	struct vclonefs_info info;
	struct vc_json json;
	bool named;
	int fd, r;

	r = vc_cli_open_image(path, &fd);
	if (r < 0)
		return VC_EXIT_FAILED;
	r = vc_cli_image_info(fd, path, &info);
	if (r == 0 && info.origin)
		r = vc_cli_mount_of(fd, path, &mount);
	close(fd);
	if (r < 0)
		return VC_EXIT_FAILED;
	named = info.origin && find_name(mount.point, info.origin, origin, sizeof(origin));
	if (!as_json) {
		info_print(path, &info, named ? origin : NULL);
		return VC_EXIT_OK;
	}
	vc_json_begin(&json, stdout);
	vc_json_open(&json, NULL, '{');
	vc_json_string(&json, "name", path);
	if (named)
		vc_json_string(&json, "origin_name", origin);
	else
		vc_json_null(&json, "origin_name");
	info_json(&json, &info);
	vc_json_close(&json, '{');
	return VC_EXIT_OK;
}

static int command_info(const struct vc_command *cmd, int argc, char **argv)
{
	bool as_json;
	int status = vc_cli_options(cmd, argc, argv, 1, 1, &as_json);

	return status >= 0 ? status : vc_cli_finish(info_of(argv[optind], as_json));
}

const struct vc_command vc_command_info = {
	.name = "info",
	.args = "[--json] IMAGE",
	.summary = "show one image: origin, depth, space",
	.help = "The figures are those of 'vclone ls'. The origin is the image it was cloned from.\n",
	.run = command_info,
};

/* ---- df ---- */

static const char *uuid_text(const uint8_t *uuid, char *buf)
{
	char *p = buf;

	for (int i = 0; i < 16; i++)
		p += sprintf(p, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
	return buf;
}

static void df_json(const struct vclonefs_df *df, const char *mount_point)
{
	char uuid[40];
	struct vc_json j;

	vc_json_begin(&j, stdout);
	vc_json_open(&j, NULL, '{');
	vc_json_string(&j, "mount", mount_point);
	vc_json_string(&j, "pool", uuid_text(df->uuid, uuid));
	vc_json_string(&j, "daemon_version", df->version);
	vc_json_bool(&j, "failed", df->failed != 0);
	vc_json_u64(&j, "images", df->images);
	vc_json_u64(&j, "filesystem_bytes", df->fs_total);
	vc_json_u64(&j, "filesystem_free_bytes", df->fs_free);
	vc_json_u64(&j, "chunk_bytes", df->chunk_bytes);
	vc_json_u64(&j, "chunk_segments", df->chunk_segments);
	vc_json_u64(&j, "log_bytes", df->log_bytes);
	vc_json_u64(&j, "log_used_bytes", df->log_used);
	vc_json_u64(&j, "map_bytes", df->meta_bytes);
	vc_json_u64(&j, "undestaged_bytes", df->undestaged);
	vc_json_u64(&j, "checkpoint_lsn", df->checkpoint_lsn);
	vc_json_u64(&j, "durable_lsn", df->durable_lsn);
	vc_json_u64(&j, "last_lsn", df->last_lsn);
	vc_json_u64(&j, "cache_bytes", df->cache_bytes);
	vc_json_u64(&j, "cache_hits", df->cache_hits);
	vc_json_u64(&j, "cache_misses", df->cache_misses);
	vc_json_close(&j, '{');
}

static void df_print(const struct vclonefs_df *df, const char *mount_point)
{
	uint64_t lookups = df->cache_hits + df->cache_misses;
	char uuid[40];

	printf("%-12s ", "mount");
	vc_cli_put_name(stdout, mount_point);
	printf("\n%-12s %s\n%-12s %s\n", "pool", uuid_text(df->uuid, uuid), "daemon", df->version);
	printf("%-12s %s\n", "state", df->failed ? "FAILED: a sync failed, writes are refused until the next mount" : "good");
	printf("%-12s %" PRIu64 "\n", "images", df->images);
	printf("%-12s %s free of %s\n", "file system", vc_cli_size(df->fs_free, 0), vc_cli_size(df->fs_total, 1));
	printf("%-12s %s in %" PRIu64 " segments\n", "chunks", vc_cli_size(df->chunk_bytes, 0), df->chunk_segments);
	printf("%-12s %s used of %s\n", "log", vc_cli_size(df->log_used, 0), vc_cli_size(df->log_bytes, 1));
	printf("%-12s %s\n", "maps", vc_cli_size(df->meta_bytes, 0));
	printf("%-12s %s to destage\n", "pending", vc_cli_size(df->undestaged, 0));
	printf("%-12s %s, %" PRIu64 " %% of %" PRIu64 " look-ups found in it\n", "cache", vc_cli_size(df->cache_bytes, 0),
	       lookups ? (uint64_t)((double)df->cache_hits * 100 / (double)lookups) : 0, lookups);
	printf("%-12s checkpoint %" PRIu64 ", durable %" PRIu64 ", last %" PRIu64 "\n", "log records", df->checkpoint_lsn,
	       df->durable_lsn, df->last_lsn);
}

static int command_df(const struct vc_command *cmd, int argc, char **argv)
{
	struct vclonefs_df df = { .size = sizeof(df) };
	struct vc_cli_mount mount;
	const char *path;
	bool as_json;
	int fd, r, status = vc_cli_options(cmd, argc, argv, 0, 1, &as_json);

	if (status >= 0)
		return status;
	path = optind < argc ? argv[optind] : ".";
	if (vc_cli_open(path, 0, &fd) < 0)
		return VC_EXIT_FAILED;
	r = vc_cli_mount_of(fd, path, &mount);
	if (r == 0 && ioctl(fd, VCLONEFS_IOC_DF, &df) < 0) {
		r = -errno;
		vc_cli_error("%s: asking the daemon: %s", path, strerror(-r));
	}
	close(fd);
	if (r < 0)
		return VC_EXIT_FAILED;
	df.version[sizeof(df.version) - 1] = '\0';
	if (as_json)
		df_json(&df, mount.point);
	else
		df_print(&df, mount.point);
	return vc_cli_finish(VC_EXIT_OK);
}

const struct vc_command vc_command_df = {
	.name = "df",
	.args = "[--json] [PATH]",
	.summary = "show the pool behind a mount: space, log, cache, health",
	.help = "PATH is anything on the mount; the current directory when left out.\n",
	.run = command_df,
};
