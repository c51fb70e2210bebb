/* SPDX-License-Identifier: BSD-2-Clause */
/* super: the pool file: making a pool, and finding out whether a directory holds one. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>

#include "checksum.h"
#include "msg.h"
#include "pool_impl.h"

#define SUPER_CHUNK_BLOCKS 4u
#define SUPER_LOG_SEGMENT (16u << 20)
#define SUPER_LOG_SEGMENTS 64u

static int super_any_entry(void *ctx, const char *name)
{
	(void)ctx;
	return strcmp(name, "lost+found") == 0 ? 0 : 1;
}

static int super_check_empty(struct vc_io *io, const char *dir)
{
	int r = vc_io_list(io, dir, super_any_entry, NULL);

	if (r == 1) {
		vc_err("%s: not empty; a pool is made in an empty directory", dir);
		return -ENOTEMPTY;
	}
	return r;
}

static int super_fill(const struct vc_pool_geometry *g, struct vc_disk_pool *ret)
{
	uint32_t chunk_blocks = g->chunk_blocks ? g->chunk_blocks : SUPER_CHUNK_BLOCKS;
	uint64_t chunk_segment = g->chunk_segment_size ? g->chunk_segment_size : VC_CHUNK_SEGMENT_MAX;
	uint64_t log_segment = g->log_segment_size ? g->log_segment_size : SUPER_LOG_SEGMENT;
	uint32_t log_segments = g->log_segments ? g->log_segments : SUPER_LOG_SEGMENTS;
	int r;

	if (chunk_blocks > VC_CHUNK_BLOCKS_MAX || (chunk_blocks & (chunk_blocks - 1)) || chunk_segment % 4096 ||
	    chunk_segment < (1u << 18) || chunk_segment > VC_CHUNK_SEGMENT_MAX || log_segment % 4096 ||
	    log_segment < (1u << 17) || log_segment > VC_LOG_SEGMENT_MAX || log_segments < VC_LOG_SEGMENTS_MIN ||
	    log_segments > VC_LOG_SEGMENTS_MAX) {
		vc_err("pool geometry out of range: chunks of 1 to 16 blocks, chunk segments of 256 KiB to 64 MiB, 4 to 9999 log segments of 128 KiB to 64 MiB");
		return -EINVAL;
	}
	memset(ret, 0, sizeof(*ret));
	ret->magic = vc_le64_of(VC_MAGIC_POOL);
	ret->version = vc_le32_of(VC_FORMAT_VERSION);
	ret->created_ns = vc_le64_of(vc_now_ns());
	ret->chunk_blocks = vc_le32_of(chunk_blocks);
	ret->chunk_segment_size = vc_le64_of(chunk_segment);
	ret->log_segment_size = vc_le64_of(log_segment);
	ret->log_segments = vc_le32_of(log_segments);
	r = vc_random_bytes(ret->uuid, sizeof(ret->uuid));
	if (r == 0)
		r = vc_random_bytes(ret->log_uuid, sizeof(ret->log_uuid));
	ret->sum = vc_le64_of(vc_sum64(ret, offsetof(struct vc_disk_pool, sum), 0));
	return r;
}

int vc_super_first_state(struct vc_io *io, const char *dir, const char *file, const struct vc_disk_pool *pool, uint64_t now)
{
	char *meta_dir = vc_path_of(dir, "meta");
	struct vc_meta_params params = { .io = io, .dir = meta_dir, .file = file };
	struct vc_inode_fields root = { .mode = 040755, .nlink = 2, .generation = 1, .atime_ns = now, .mtime_ns = now,
					.ctime_ns = now, .btime_ns = now, .parent = VC_ROOT_INO, .next_cookie = 16 };
	struct vc_disk_state state = { .log_first_seq = vc_le64_of(1), .next_ino = vc_le64_of(16), .next_node = vc_le64_of(1),
				       .next_tag = vc_le64_of(1), .next_segno = vc_le64_of(1), .next_content = vc_le64_of(1) };
	struct vc_disk_inode row;
	struct vc_meta_txn *txn;
	struct vc_meta *meta = NULL;
	uint8_t key[9];
	int r = meta_dir ? vc_meta_create(&params) : -ENOMEM;

	memcpy(state.uuid, pool->uuid, sizeof(state.uuid));
	if (r == 0)
		r = vc_meta_open(&params, &meta);
	if (r == 0)
		r = vc_meta_write_begin(meta, &txn);
	if (r == 0) {
		vc_row_from_inode(&root, &row);
		r = vc_meta_put(txn, VC_DB_CAT, key, vc_row_key_ino(key, VC_ROW_INODE, VC_ROOT_INO), &row, sizeof(row));
		if (r == 0)
			r = vc_meta_put(txn, VC_DB_CAT, "GS", 2, &state, sizeof(state));
		if (r == 0)
			r = vc_meta_commit(txn);
		else
			vc_meta_end(txn);
	}
	vc_meta_close(meta);
	free(meta_dir);
	return r;
}

static int super_make_parts(struct vc_io *io, const char *dir, const struct vc_disk_pool *pool)
{
	char *log_dir = vc_path_of(dir, "log"), *chunk_dir = vc_path_of(dir, "chunk"), *meta_dir = vc_path_of(dir, "meta");
	char *journal_dir = vc_path_of(dir, "journal"), *backup_dir = vc_path_of(dir, "backup");
	struct vc_log_params log = { .io = io, .dir = log_dir, .segment_size = vc_le64_get(pool->log_segment_size),
				     .nsegments = vc_le32_get(pool->log_segments) };
	int r = log_dir && chunk_dir && meta_dir && journal_dir && backup_dir ? 0 : -ENOMEM;

	memcpy(log.uuid, pool->log_uuid, sizeof(log.uuid));
	if (r == 0)
		r = vc_log_create(&log);
	if (r == 0)
		r = vc_chunk_create(io, chunk_dir);
	if (r == 0)
		r = vc_io_mkdir(io, journal_dir);
	if (r == 0)
		r = vc_io_mkdir(io, backup_dir);
	if (r == 0)
		r = vc_io_mkdir(io, meta_dir);
	if (r == 0)
		r = vc_super_first_state(io, dir, NULL, pool, vc_now_ns());
	if (r == 0)
		r = vc_io_sync_dir(io, dir);
	free(log_dir);
	free(chunk_dir);
	free(meta_dir);
	free(journal_dir);
	free(backup_dir);
	return r;
}

/* The pool file comes last, by rename: while it is missing the directory is no pool. */
static int super_write(struct vc_io *io, const char *dir, const struct vc_disk_pool *pool)
{
	char *tmp = vc_path_of(dir, "pool.new"), *path = vc_path_of(dir, "pool");
	struct vc_file *file = NULL;
	int r = tmp && path ? 0 : -ENOMEM;

	if (r == 0)
		r = vc_io_open(io, tmp, VC_IO_WRITE | VC_IO_CREATE, &file);
	if (r == 0)
		r = vc_io_pwrite(file, pool, sizeof(*pool), 0);
	if (r == 0)
		r = vc_io_datasync(file);
	vc_io_close(file);
	if (r == 0)
		r = vc_io_rename(io, tmp, path);
	if (r == 0)
		r = vc_io_sync_dir(io, dir);
	free(tmp);
	free(path);
	return r;
}

/* The entry of a directory that was just made. */
static int super_sync_parent(struct vc_io *io, const char *dir)
{
	char *parent = strdup(dir);
	char *slash;
	int r = parent ? 0 : -ENOMEM;

	if (r == 0) {
		size_t len = strlen(parent);

		while (len > 1 && parent[len - 1] == '/')
			parent[--len] = '\0';
		slash = strrchr(parent, '/');
		if (slash)
			slash[slash == parent] = '\0';
		r = vc_io_sync_dir(io, slash ? parent : ".");
	}
	free(parent);
	return r;
}

/* Everything that is opened by name before anything else is known of the pool; the rest is in these directories. */
static int super_vet(struct vc_io *io, const char *dir)
{
	static const char *const parts[] = { "pool", "lock", "log", "chunk", "journal", "backup", "meta", "meta/data.mdb",
					     "meta/lock.mdb" };
	int r = vc_io_vet(io, dir, true);

	for (size_t i = 0; i < VC_ARRAY_LEN(parts) && r == 0; i++) {
		char *path = vc_path_of(dir, parts[i]);

		r = path ? vc_io_vet(io, path, false) : -ENOMEM;
		free(path);
	}
	return r;
}

int vc_pool_create(struct vc_io *io, const char *dir, const struct vc_pool_geometry *geometry)
{
	struct vc_disk_pool pool;
	int r = super_fill(geometry, &pool);

	if (r < 0)
		return r;
	r = vc_io_mkdir(io, dir);
	if (r == 0)
		r = super_sync_parent(io, dir);
	else if (r == -EEXIST)
		r = super_check_empty(io, dir);
	if (r == 0)
		r = vc_io_vet(io, dir, true);
	if (r == 0)
		r = super_make_parts(io, dir, &pool);
	if (r == 0)
		r = super_write(io, dir, &pool);
	return r;
}

int vc_super_read(struct vc_io *io, const char *dir, struct vc_disk_pool *ret)
{
	char *path = vc_path_of(dir, "pool");
	struct vc_file *file = NULL;
	const char *why = "";
	ssize_t n = 0;
	int r = path ? super_vet(io, dir) : -ENOMEM;

	if (r == 0)
		r = vc_io_open(io, path, VC_IO_READ, &file);
	if (r == -ENOENT) {
		vc_err("%s: no pool here (no file \"pool\"): wrong directory, or `vclone init` did not finish", dir);
		free(path);
		return r;
	}
	if (r == 0)
		n = vc_io_pread(file, ret, sizeof(*ret), 0);
	if (r == 0 && n < 0)
		r = (int)n;
	if (r == 0 && n != sizeof(*ret)) {
		vc_err("%s: only %zd of %zu bytes; restore it from a copy", path, n, sizeof(*ret));
		r = -EUCLEAN;
	} else if (r == 0) {
		r = vc_format_check_pool(ret, &why);
		if (r < 0)
			vc_err("%s: offset 0: %s", path, why);
	}
	vc_io_close(file);
	free(path);
	return r;
}

int vc_super_try_lock(struct vc_io *io, const char *dir, struct vc_file **ret)
{
	char *path = vc_path_of(dir, "lock");
	int r = path ? vc_io_open(io, path, VC_IO_WRITE | VC_IO_CREATE, ret) : -ENOMEM;

	if (r == 0) {
		r = vc_io_lock(*ret);
		if (r < 0) {
			vc_io_close(*ret);
			*ret = NULL;
		}
	}
	free(path);
	return r;
}

int vc_super_lock(struct vc_io *io, const char *dir, struct vc_file **ret)
{
	int r = vc_super_try_lock(io, dir, ret);

	if (r == -EBUSY)
		vc_err("%s: in use by another process; one daemon serves a pool", dir);
	return r;
}
