/* SPDX-License-Identifier: BSD-2-Clause */
/* engine: small pools and sleeping calls for tests. */
#include "config.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include "engine.h"

#define ENGINE_CACHE (UINT64_C(4) << 20)

int engine_setup(void **state VC_UNUSED)
{
	vc_unit_catch_messages(!getenv("VC_TEST_MESSAGES"));
	return 0;
}

int engine_teardown(void **state VC_UNUSED)
{
	vc_unit_catch_messages(false);
	return 0;
}

void engine_geometry(uint64_t *rng, struct vc_pool_geometry *ret)
{
	static const uint32_t chunk_blocks[] = { 1, 4, 16 };

	*ret = (struct vc_pool_geometry){
		.chunk_blocks = chunk_blocks[vc_unit_below(rng, VC_ARRAY_LEN(chunk_blocks))],
		.chunk_segment_size = UINT64_C(256) << 10 << vc_unit_below(rng, 3),
		.log_segment_size = UINT64_C(256) << 10 << vc_unit_below(rng, 2),
		.log_segments = 8,
	};
}

int engine_try_open(struct vc_io *io, const char *dir, uint32_t destage_ms, struct vc_pool **ret)
{
	struct vc_pool_options options = { .cache_bytes = ENGINE_CACHE, .node_cache_bytes = ENGINE_CACHE, .destage_ms = destage_ms,
					   .journal_bytes = 1 /* backups as often as can be */ };

	return vc_pool_open(io, dir, &options, ret);
}

struct vc_pool *engine_open(struct vc_io *io, const char *dir, uint32_t destage_ms)
{
	struct vc_pool *pool;

	assert_int_equal(engine_try_open(io, dir, destage_ms, &pool), 0);
	return pool;
}

void engine_close(struct vc_pool *pool)
{
	assert_int_equal(vc_pool_close(pool), 0);
}

void engine_stop(struct vc_pool *pool, bool sudden)
{
	if (sudden)
		vc_pool_abandon(pool);
	else
		engine_close(pool);
}

struct vc_inode *engine_root(struct vc_pool *pool)
{
	struct vc_inode *root;

	assert_int_equal(vc_inode_get(pool, 1, &root), 0);
	return root;
}

struct vc_inode *engine_lookup(struct vc_inode *dir, const char *name)
{
	struct vc_inode *inode;
	int r = vc_names_lookup(dir, name, &inode);

	assert(r == 0 || r == -ENOENT);
	return r == 0 ? inode : NULL;
}

int engine_create(struct vc_inode *dir, const char *name, uint32_t mode, const char *target, struct vc_inode **ret)
{
	struct vc_new what = { .mode = mode, .owner = { .uid = 7, .gid = 8 }, .target = target };
	struct vc_wait w;

	vc_wait_init(&w);
	return vc_wait_result(&w, vc_names_create(dir, name, &what, ret, &w.done));
}

int engine_link(struct vc_inode *inode, struct vc_inode *dir, const char *name)
{
	struct vc_wait w;

	vc_wait_init(&w);
	return vc_wait_result(&w, vc_names_link(inode, dir, name, &w.done));
}

int engine_unlink(struct vc_inode *dir, const char *name)
{
	struct vc_wait w;

	vc_wait_init(&w);
	return vc_wait_result(&w, vc_names_unlink(dir, name, &w.done));
}

int engine_rmdir(struct vc_inode *dir, const char *name)
{
	struct vc_wait w;

	vc_wait_init(&w);
	return vc_wait_result(&w, vc_names_rmdir(dir, name, &w.done));
}

int engine_rename(struct vc_inode *dir, const char *name, struct vc_inode *newdir, const char *newname, unsigned int flags)
{
	struct vc_wait w;

	vc_wait_init(&w);
	return vc_wait_result(&w, vc_names_rename(dir, name, newdir, newname, flags, &w.done));
}

struct late_read {
	struct vc_read_later later;
	struct vc_wait wait;
	void *buf;
	ssize_t n; /* -EAGAIN: to be read again */
};

static void late_done(struct vc_read_later *later, const void *data, size_t len)
{
	struct late_read *late = vc_container_of(later, struct late_read, later);

	late->n = data ? (ssize_t)len : -EAGAIN;
	if (data)
		memcpy(late->buf, data, len);
	vc_done_call(&late->wait.done, 0);
}

ssize_t engine_read_later(struct vc_inode *inode, void *buf, size_t len, uint64_t offset)
{
	struct late_read late = { .later.done = late_done, .buf = buf };
	uint8_t *own = malloc(len + 1);
	ssize_t n;

	assert(own);
	vc_wait_init(&late.wait);
	n = vc_volume_read_later(inode, own, len, offset, &late.later);
	if (n == -EINPROGRESS) {
		assert_int_equal(vc_wait_result(&late.wait, 0), 0);
		n = late.n;
		if (n == -EAGAIN)
			n = vc_volume_read(inode, buf, len, offset);
	} else {
		assert_int_equal(vc_wait_result(&late.wait, -ECANCELED), -ECANCELED);
		if (n > 0)
			memcpy(buf, own, (size_t)n);
	}
	free(own);
	return n;
}

ssize_t engine_read_by_blocks(struct vc_inode *inode, void *buf, size_t len, uint64_t offset)
{
	for (size_t at = 0; at < len; at += VC_BLOCK_SIZE) {
		size_t step = VC_MIN(len - at, (size_t)VC_BLOCK_SIZE);
		ssize_t n = engine_read_later(inode, (uint8_t *)buf + at, step, offset + at);

		if (n != (ssize_t)step)
			return n < 0 ? n : (ssize_t)at + n;
	}
	return (ssize_t)len;
}

ssize_t engine_read_pieces(struct vc_inode *inode, void *buf, size_t len, uint64_t offset)
{
	struct vc_pieces pieces;
	uint8_t *own = malloc(len + 1);
	size_t at = 0;
	ssize_t n;

	assert(own);
	n = vc_volume_read_pieces(inode, own, len, offset, &pieces);
	for (unsigned int i = 0; n > 0 && i < pieces.n; i++) {
		assert(at + pieces.iov[i].iov_len <= (size_t)n);
		memcpy((uint8_t *)buf + at, pieces.iov[i].iov_base, pieces.iov[i].iov_len);
		at += pieces.iov[i].iov_len;
	}
	assert(n < 0 || at == (size_t)n);
	vc_pieces_put(inode, &pieces);
	free(own);
	return n;
}

int engine_write(struct vc_inode *inode, const void *buf, size_t len, uint64_t offset, unsigned int flags)
{
	struct vc_wait w;

	vc_wait_init(&w);
	return vc_wait_result(&w, vc_volume_write(inode, buf, len, offset, flags, &w.done));
}

int engine_resize(struct vc_inode *inode, uint64_t size)
{
	struct vc_wait w;

	vc_wait_init(&w);
	return vc_wait_result(&w, vc_volume_resize(inode, size, &w.done));
}

int engine_allocate(struct vc_inode *inode, int mode, uint64_t offset, uint64_t len)
{
	struct vc_wait w;

	vc_wait_init(&w);
	return vc_wait_result(&w, vc_volume_allocate(inode, mode, offset, len, &w.done));
}

int engine_flush(struct vc_inode *inode)
{
	struct vc_wait w;

	vc_wait_init(&w);
	return vc_wait_result(&w, vc_volume_flush(inode, true, &w.done));
}

int engine_clone(struct vc_inode *src, struct vc_inode *dir, const char *name, struct vc_inode **ret)
{
	struct vc_wait w;

	vc_wait_init(&w);
	return vc_wait_result(&w, vc_volume_clone(src, dir, name, 0600, (struct vc_owner){ .uid = 7, .gid = 8 }, ret, &w.done));
}

static int many_name(void *ctx, uint32_t i, char *buf)
{
	snprintf(buf, 256, "%s%u", (const char *)ctx, i);
	return 0;
}

int engine_clone_many(struct vc_inode *src, struct vc_inode *dir, uint32_t count, const char *prefix)
{
	struct vc_wait w;

	vc_wait_init(&w);
	return vc_wait_result(&w, vc_volume_clone_many(src, dir, count, many_name, (void *)(uintptr_t)prefix, 0600,
						       (struct vc_owner){ .uid = 7, .gid = 8 }, &w.done));
}

int engine_copy_range(struct vc_inode *src, uint64_t src_offset, struct vc_inode *dst, uint64_t dst_offset, uint64_t len,
		      bool durable, uint64_t *ret_copied)
{
	struct vc_wait w;

	vc_wait_init(&w);
	return vc_wait_result(&w, vc_volume_copy_range(src, src_offset, dst, dst_offset, len, durable, ret_copied, &w.done));
}

int engine_task(struct vc_pool *pool, enum vc_task_kind kind)
{
	uint64_t id;
	int r = vc_pool_task_start(pool, kind, &id);

	return r < 0 ? r : vc_pool_task_wait(pool, kind, id);
}
