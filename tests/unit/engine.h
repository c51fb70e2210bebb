/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * engine: a small pool on any struct vc_io for tests of the whole engine, and its asynchronous calls made to sleep.
 *
 * engine_* functions that return int give what the call gave: a negative result of its start, or that of its
 * completion. Those that cannot fail in a sane engine abort the test.
 */
#ifndef VC_ENGINE_H
#define VC_ENGINE_H

#include "volume.h"

/** Only on demand, or for space. */
#define ENGINE_DESTAGE_NEVER UINT32_MAX

/** For cmocka: messages are caught, unless VC_TEST_MESSAGES is in the environment; and printed again. */
int engine_setup(void **state);
int engine_teardown(void **state);

/** Small segments, so that all that happens to large pools happens soon; chunks of 1, 4 or 16 blocks. */
void engine_geometry(uint64_t *rng, struct vc_pool_geometry *ret);
/** 0 or -errno, as vc_pool_open. */
int engine_try_open(struct vc_io *io, const char *dir, uint32_t destage_ms, struct vc_pool **ret);
struct vc_pool *engine_open(struct vc_io *io, const char *dir, uint32_t destage_ms);
void engine_close(struct vc_pool *pool);
/** Close it, or, `sudden`, let go of it as when the process is killed. */
void engine_stop(struct vc_pool *pool, bool sudden);

struct vc_inode *engine_root(struct vc_pool *pool);
/** NULL when there is none. */
struct vc_inode *engine_lookup(struct vc_inode *dir, const char *name);

/** mode with type; target for symbolic links. */
int engine_create(struct vc_inode *dir, const char *name, uint32_t mode, const char *target, struct vc_inode **ret);
int engine_link(struct vc_inode *inode, struct vc_inode *dir, const char *name);
int engine_unlink(struct vc_inode *dir, const char *name);
int engine_rmdir(struct vc_inode *dir, const char *name);
int engine_rename(struct vc_inode *dir, const char *name, struct vc_inode *newdir, const char *newname, unsigned int flags);

/** vc_volume_read by vc_volume_read_later. */
ssize_t engine_read_later(struct vc_inode *inode, void *buf, size_t len, uint64_t offset);
/** The same as guests do, block by block. */
ssize_t engine_read_by_blocks(struct vc_inode *inode, void *buf, size_t len, uint64_t offset);
/** vc_volume_read by vc_volume_read_pieces. */
ssize_t engine_read_pieces(struct vc_inode *inode, void *buf, size_t len, uint64_t offset);
int engine_write(struct vc_inode *inode, const void *buf, size_t len, uint64_t offset, unsigned int flags);
int engine_resize(struct vc_inode *inode, uint64_t size);
int engine_allocate(struct vc_inode *inode, int mode, uint64_t offset, uint64_t len);
int engine_flush(struct vc_inode *inode);
int engine_clone(struct vc_inode *src, struct vc_inode *dir, const char *name, struct vc_inode **ret);
/** Names are prefix followed by the number. */
int engine_clone_many(struct vc_inode *src, struct vc_inode *dir, uint32_t count, const char *prefix);
int engine_copy_range(struct vc_inode *src, uint64_t src_offset, struct vc_inode *dst, uint64_t dst_offset, uint64_t len,
		      bool durable, uint64_t *ret_copied);
/** Run a task to its end; its error. */
int engine_task(struct vc_pool *pool, enum vc_task_kind kind);

#endif
