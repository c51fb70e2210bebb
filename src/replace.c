/* SPDX-License-Identifier: BSD-2-Clause */
/* replace: LMDB files as files: copies, names for those that are kept, and the change from one to another. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>

#include "msg.h"
#include "rebuild_impl.h"

#define REPLACE_STEP (1u << 20)
#define REPLACE_KEPT_MAX 10000

char *vc_replace_path(const char *pool_dir, const char *dir, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s%s%s", pool_dir, dir, name ? "/" : "", name ? name : "") < 0 ? NULL : path;
}

static int replace_unlink(struct vc_io *io, const char *pool_dir, const char *dir, const char *name)
{
	char *path = vc_replace_path(pool_dir, dir, name);
	int r = path ? vc_io_unlink(io, path) : -ENOMEM;

	free(path);
	return r == -ENOENT ? 0 : r;
}

static int replace_mkdir(struct vc_io *io, const char *pool_dir, const char *name)
{
	char *path = vc_replace_path(pool_dir, name, NULL);
	int r;

	if (!path)
		return -ENOMEM;
	r = vc_io_mkdir(io, path);
	if (r == 0)
		r = vc_io_sync_dir(io, pool_dir);
	free(path);
	return r == -EEXIST ? 0 : r;
}

int vc_replace_begin(struct vc_io *io, const char *pool_dir)
{
	int r = replace_mkdir(io, pool_dir, "meta");

	if (r == 0)
		r = replace_mkdir(io, pool_dir, "backup");
	return r < 0 ? r : replace_unlink(io, pool_dir, "meta", VC_META_NEW);
}

static int copy_bytes(struct vc_file *from, struct vc_file *to)
{
	uint8_t *buf = malloc(REPLACE_STEP);
	uint64_t at = 0;
	ssize_t n = buf ? vc_io_pread(from, buf, REPLACE_STEP, 0) : -ENOMEM;
	int r = 0;

	while (n > 0 && r == 0) {
		r = vc_io_pwrite(to, buf, (size_t)n, at);
		at += (uint64_t)n;
		if (r == 0)
			n = vc_io_pread(from, buf, REPLACE_STEP, at);
	}
	free(buf);
	if (r == 0 && n < 0)
		r = (int)n;
	return r < 0 ? r : vc_io_datasync(to);
}

int vc_replace_copy(struct vc_io *io, const char *from, const char *to)
{
	struct vc_file *in, *out;
	int r = vc_io_open(io, from, VC_IO_READ, &in);

	if (r < 0)
		return r;
	r = vc_io_unlink(io, to);
	if (r == 0 || r == -ENOENT)
		r = vc_io_open(io, to, VC_IO_WRITE | VC_IO_CREATE, &out);
	if (r == 0) {
		r = copy_bytes(in, out);
		vc_io_close(out);
	}
	vc_io_close(in);
	return r;
}

static int kept_number(void *ctx, const char *name)
{
	unsigned long *next = ctx;
	char *end;
	unsigned long n;

	if (strncmp(name, "data.mdb.", 9) != 0)
		return 0;
	n = strtoul(name + 9, &end, 10);
	if (!*end && end != name + 9 && n < REPLACE_KEPT_MAX && n >= *next)
		*next = n + 1;
	return 0;
}

int vc_replace_kept_name(struct vc_io *io, const char *pool_dir, char *buf)
{
	unsigned long next = 1;
	char *path = vc_replace_path(pool_dir, "backup", NULL);
	int r;

	if (!path)
		return -ENOMEM;
	r = vc_io_list(io, path, kept_number, &next);
	free(path);
	snprintf(buf, 64, "data.mdb.%lu", next);
	return r;
}

static int replace_sync(struct vc_io *io, const char *pool_dir, const char *name)
{
	char *path = vc_replace_path(pool_dir, name, NULL);
	int r;

	if (!path)
		return -ENOMEM;
	r = vc_io_sync_dir(io, path);
	free(path);
	return r;
}

int vc_replace_switch(struct vc_io *io, const char *pool_dir)
{
	char *from = vc_replace_path(pool_dir, "meta", VC_META_NEW), *to = vc_replace_path(pool_dir, "meta", "data.mdb");
	int r = from && to ? replace_sync(io, pool_dir, "meta") : -ENOMEM;

	if (r == 0)
		r = replace_sync(io, pool_dir, "backup");
	if (r == 0)
		r = vc_io_rename(io, from, to);
	if (r == 0)
		r = replace_sync(io, pool_dir, "meta");
	free(from);
	free(to);
	return r;
}

int vc_replace_backup(struct vc_io *io, const char *pool_dir, const char *file, uint64_t lsn)
{
	char name[32];
	char *meta_dir = vc_replace_path(pool_dir, "meta", NULL), *tmp = vc_replace_path(pool_dir, "backup", "new.tmp"), *path;
	struct vc_meta_params params = { .io = io, .dir = meta_dir, .file = file, .read_only = true };
	struct vc_meta *meta;
	int r;

	snprintf(name, sizeof(name), "%016llx.mdb", (unsigned long long)lsn);
	path = vc_replace_path(pool_dir, "backup", name);
	r = meta_dir && tmp && path ? replace_unlink(io, pool_dir, "backup", "new.tmp") : -ENOMEM;
	if (r == 0)
		r = vc_meta_open(&params, &meta);
	if (r == 0) {
		r = vc_meta_backup(meta, tmp);
		vc_meta_close(meta);
	}
	if (r == 0)
		r = vc_io_rename(io, tmp, path);
	if (r == 0)
		r = replace_sync(io, pool_dir, "backup");
	free(meta_dir);
	free(tmp);
	free(path);
	return r;
}
