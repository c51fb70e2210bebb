/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ballast: space the pool holds back for itself, so that what was accepted can be destaged when the disk is full (D8).
 *
 * POOL/ballast is a file of reserved, never written blocks, about as large as the log plus what a checkpoint writes
 * beside chunks. What statfs calls free may be gone before it is needed; these blocks are not.
 *
 *   WHOLE     new data is accepted while there is other free space besides
 *   GIVEN UP  a write of the engine met a full disk: the blocks were freed for it, new data is refused. WHOLE again when
 *             there is room for all of it and some more.
 *
 * Nothing depends on its contents or on its being there: a crash may leave any of it, and an older program ignores it.
 * Where the file system cannot reserve, there is none, and a twentieth of the disk is kept free instead, at most 1 GiB.
 *
 * Locks: VC_LOCK_SPACE over truncating and reserving; `held` is read without it.
 */
#include "config.h"

#include <stdlib.h>

#include "msg.h"
#include "pool_impl.h"

#define SPACE_CHECK_NS UINT64_C(200000000)
#define SPACE_RESERVE_MAX (UINT64_C(1) << 30)
#define SPACE_META (UINT64_C(8) << 20) /* journal and LMDB, beside the log's bytes and a sixteenth of them */
#define SPACE_MARGIN_MAX (UINT64_C(128) << 20)

struct vc_ballast {
	struct vc_file *file;      /* NULL: none */
	uint64_t want;
	_Atomic uint64_t held;     /* want, or 0 */
	unsigned warned;           /* per cent that was warned of */
};

/* Free space that is left for others to use; below it new data is refused. */
static uint64_t space_margin(const struct vc_io_space *space) { return VC_MIN(space->total / 64, SPACE_MARGIN_MAX); }

static uint64_t space_wanted(const struct vc_pool *pool, const struct vc_io_space *space)
{
	uint64_t log = vc_le64_get(pool->disk.log_segment_size) * vc_le32_get(pool->disk.log_segments);

	return VC_MIN(log + log / 16 + SPACE_META, space->total / 8) & ~UINT64_C(4095);
}

uint32_t vc_space_log_segments(struct vc_pool *pool)
{
	uint64_t size = vc_le64_get(pool->disk.log_segment_size);
	uint32_t all = vc_le32_get(pool->disk.log_segments);
	struct vc_io_space space;

	if (pool->options.read_only || vc_io_space(pool->io, pool->dir, &space) < 0)
		return all;
	return (uint32_t)VC_MIN((uint64_t)all, VC_MAX(space_wanted(pool, &space) / size, (uint64_t)VC_LOG_SEGMENTS_MIN));
}

/* ---- the file ---- */

static int ballast_fill_locked(struct vc_ballast *b)
{
	int r = vc_io_allocate(b->file, 0, b->want);

	if (r == 0)
		r = vc_io_truncate(b->file, b->want); /* so that its size shows, and cutting it frees it on any file system */
	if (r == 0)
		atomic_store(&b->held, b->want);
	return r;
}

int vc_ballast_open(struct vc_pool *pool)
{
	struct vc_ballast *b = calloc(1, sizeof(*b));
	char *path = vc_pool_path(pool, "ballast");
	struct vc_io_space space;
	int r = b && path ? vc_io_space(pool->io, pool->dir, &space) : -ENOMEM;

	pool->ballast = b;
	if (r == 0) {
		b->want = space_wanted(pool, &space);
		r = vc_io_open(pool->io, path, VC_IO_WRITE | VC_IO_CREATE, &b->file);
	}
	if (r == 0) {
		vc_mutex_lock(&pool->space_lock);
		r = ballast_fill_locked(b);
		vc_mutex_unlock(&pool->space_lock);
	}
	if (r == -EOPNOTSUPP) {
		vc_io_close(b->file);
		b->file = NULL;
		r = vc_io_unlink(pool->io, path);
	}
	free(path);
	if (r != -ENOSPC && r != -EDQUOT)
		return r;
	atomic_fetch_or(&pool->full, VC_FULL_RESERVE);
	vc_warn("%s: no room for what the pool keeps for itself: new data is refused (ENOSPC) until there is", pool->dir);
	return 0;
}

void vc_ballast_close(struct vc_pool *pool)
{
	if (pool->ballast)
		vc_io_close(pool->ballast->file);
	free(pool->ballast);
	pool->ballast = NULL;
}

bool vc_pool_make_room(struct vc_pool *pool)
{
	struct vc_ballast *b = pool->ballast;
	bool freed;

	if (!b)
		return false;
	vc_mutex_lock(&pool->space_lock);
	freed = atomic_load(&b->held) > 0 && vc_io_truncate(b->file, 0) == 0;
	if (freed) {
		atomic_store(&b->held, 0);
		atomic_fetch_or(&pool->full, VC_FULL_RESERVE);
	}
	vc_mutex_unlock(&pool->space_lock);
	if (!freed)
		return false;
	vc_warn("%s: the file system below is full: the pool's reserve is used for what was accepted; new data is refused (ENOSPC)",
		pool->dir);
	vc_mutex_lock(&pool->lock);
	pool->destage_now = true; /* all of it, before somebody else takes the room */
	vc_cond_signal(&pool->destage_cond);
	vc_mutex_unlock(&pool->lock);
	return true;
}

bool vc_pool_log_room(void *pool) { return vc_pool_make_room(pool); }

int vc_pool_meta_begin(struct vc_pool *pool, uint64_t npages, struct vc_meta_txn **ret)
{
	int r = vc_meta_write_begin_room(pool->meta, npages, ret);

	if (r == -ENOSPC && vc_pool_make_room(pool))
		r = vc_meta_write_begin_room(pool->meta, npages, ret);
	if (r == -ENOSPC) /* pages that LMDB has freed may do; if not, the commit says so, and can be made again */
		r = vc_meta_write_begin(pool->meta, ret);
	return r;
}

/* ---- looking at the disk ---- */

static void space_warn_locked(struct vc_pool *pool, const struct vc_io_space *space, uint64_t free)
{
	uint64_t used = space->total ? 100 - free * 100 / space->total : 0;
	unsigned level = used >= 90 ? 90 : used >= 80 ? 80 : 0;

	if (level > pool->ballast->warned)
		vc_warn("%s: the file system below is %llu %% full", pool->dir, (unsigned long long)used);
	if (level > pool->ballast->warned || used + 2 < pool->ballast->warned)
		pool->ballast->warned = level;
}

/* Is there room for new data? */
static bool space_is_there_locked(struct vc_pool *pool, const struct vc_io_space *space)
{
	struct vc_ballast *b = pool->ballast;
	uint64_t margin = space_margin(space);

	if (!b->file)
		return space->free >= VC_MIN(space->total / 20, SPACE_RESERVE_MAX);
	if (atomic_load(&b->held) == 0)
		return space->free >= b->want + margin && ballast_fill_locked(b) == 0;
	return space->free >= margin;
}

static void space_look(struct vc_pool *pool)
{
	struct vc_io_space space;
	unsigned before;
	bool there;

	if (vc_io_space(pool->io, pool->dir, &space) < 0)
		return;
	vc_mutex_lock(&pool->space_lock);
	space_warn_locked(pool, &space, space.free + atomic_load(&pool->ballast->held));
	there = space_is_there_locked(pool, &space);
	before = there ? atomic_fetch_and(&pool->full, ~(unsigned)VC_FULL_RESERVE) : atomic_fetch_or(&pool->full, VC_FULL_RESERVE);
	vc_mutex_unlock(&pool->space_lock);
	if (there && before & VC_FULL_RESERVE)
		vc_info("%s: there is room again: new data is accepted", pool->dir);
	else if (!there && !(before & VC_FULL_RESERVE))
		vc_warn("%s: the file system below is full: new data is refused (ENOSPC) until something is deleted", pool->dir);
}

void vc_pool_check_space(struct vc_pool *pool, bool now)
{
	uint64_t time = vc_mono_ns(), last = atomic_load(&pool->space_checked_ns);

	if (!pool->ballast || (!now && time - last < SPACE_CHECK_NS))
		return;
	if (atomic_compare_exchange_strong(&pool->space_checked_ns, &last, time))
		space_look(pool);
}

uint64_t vc_pool_space_for_data(struct vc_pool *pool, const struct vc_io_space *space)
{
	uint64_t margin = space_margin(space);

	if (pool->options.read_only || !pool->ballast)
		return space->free;
	return atomic_load(&pool->full) || space->free < margin ? 0 : space->free - margin;
}
