/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * destage: turns slices of the log into chunks and map nodes: allocate on log flush.
 *
 * The order of one checkpoint, each step only after the one before:
 *   1 the slice is cut, all its records are applied, its inodes settled      (memory)
 *   2 the log is durable up to the end of the slice
 *   3 its blocks are written as chunks, in image and block order             destage_stage.c
 *   4 chunk files and their directory entries are synced; room in LMDB's file is seen to
 *   5 the journal entry is written and synced                                destage_commit.c
 *   6 one LMDB transaction: nodes, images, rows, counters, checkpoint LSN     destage_commit.c
 *   7 bases and views are swapped; the slice is let go; when the last reader of its
 *     overlays is done, its log segments are free
 * A failure before 6 leaves everything as it was: lack of space is waited for, anything else fails the pool.
 */
#include "config.h"

#include <stdlib.h>

#include "destage_impl.h"
#include "msg.h"

#define DESTAGE_RETRY_NS UINT64_C(1000000000)

/* ---- cutting ---- */

int vc_destage_cut_locked(struct vc_pool *pool)
{
	struct vc_slice *slice = vc_slice_new(pool, vc_destage_slice_destroy);

	if (!slice)
		return -ENOMEM; /* the current slice just grows */
	if (!vc_log_cut(pool->log, &slice->section)) {
		vc_slice_free(slice);
		return 0;
	}
	vc_list_add_tail(&pool->slices, &slice->node);
	pool->current = slice;
	pool->cut_since_ns = 0;
	return 0;
}

/* The last overlay of a checkpointed slice is gone: nothing points into its log segments. */
void vc_destage_slice_destroy(struct vc_slice *slice)
{
	struct vc_pool *pool = slice->owner;

	if (pool->abandoned || !pool->log) {
		vc_slice_free(slice);
		return;
	}
	vc_log_release(pool->log, &slice->section, vc_slice_section_free);
}

/* ---- one slice ---- */

static void destage_settle(struct vc_slice *slice)
{
	for (size_t i = 0; i < slice->ndirty; i++) {
		struct vc_inode *inode = slice->dirty[i];

		vc_mutex_lock(&inode->lock);
		if (inode->dirty == slice)
			vc_inode_settle_locked(inode);
		vc_mutex_unlock(&inode->lock);
	}
}

static void destage_free(struct destage *d)
{
	for (size_t i = 0; i < d->nstaged; i++)
		free(d->staged[i].changes);
	for (size_t i = 0; i < d->npending; i++)
		vc_base_put(d->pending[i]);
	free(d->staged);
	free(d->pending);
	free(d->rows);
	free(d->buf);
}

static int destage_steps(struct destage *d)
{
	struct vc_pool *pool = d->pool;
	int r;

	vc_log_wait_applied(pool->log, &d->slice->section);
	destage_settle(d->slice);
	if (atomic_load(&pool->failed))
		return -EIO; /* the slice may lack what could not be applied or settled: its log must stay */
	r = vc_log_flush_wait(pool->log, d->slice->section.last_lsn);
	if (r == 0)
		r = vc_slice_sorted_rows(d->slice, &d->rows);
	if (r == 0)
		r = vc_destage_stage(d);
	if (r == 0)
		r = vc_chunk_sync(pool->chunks);
	if (r == 0)
		r = vc_destage_reserve(d);
	if (r == 0)
		r = vc_destage_journal(d);
	if (r < 0)
		return r;
	d->journalled = true;
	return vc_destage_commit(d);
}

/* The slice is in LMDB: let go of everything it kept in memory. */
static void destage_retire(struct vc_pool *pool, struct vc_slice *slice)
{
	vc_catalog_loads_changed(&pool->catalog);
	for (size_t i = 0; i < slice->ndirty; i++)
		vc_catalog_unpin(&pool->catalog, slice->dirty[i]);
	slice->ndirty = 0;
	for (size_t i = 0; i < slice->nimages; i++)
		vc_base_put(slice->images[i].base);
	slice->nimages = 0;
	atomic_fetch_sub(&pool->direct_bytes, atomic_load(&slice->direct_bytes));
	vc_mutex_lock(&pool->lock);
	vc_list_del(&slice->node);
	pool->checkpoint_lsn = slice->section.last_lsn;
	vc_mutex_unlock(&pool->lock);
	vc_slice_release(slice);
}

static bool destage_no_space(int r) { return r == -ENOSPC || r == -EDQUOT; }

/* What passes: the disk is full, or memory or descriptors are short. Nothing but garbage in chunk files has come of it. */
static bool destage_may_try_again(int r)
{
	return destage_no_space(r) || r == -ENOMEM || r == -EMFILE || r == -ENFILE;
}

int vc_destage_slice(struct vc_pool *pool, struct vc_slice *slice)
{
	struct destage d = { .pool = pool, .slice = slice };
	struct vc_chunk_mark mark;
	int r;

	vc_chunk_mark(pool->chunks, &mark);
	r = destage_steps(&d);
	destage_free(&d);
	if (destage_may_try_again(r) && !d.journalled) /* whoever restores from the journal may need what an entry names */
		vc_chunk_rewind(pool->chunks, &mark);
	if (r == 0) {
		destage_retire(pool, slice);
		vc_journal_trim(pool->journal, pool->checkpoint_lsn);
	}
	return r;
}

/* ---- the thread ---- */

static void destage_task_progress_locked(struct vc_pool *pool)
{
	struct vc_task *task = &pool->destage_task;

	if (!task->status.running)
		return;
	if (pool->checkpoint_lsn >= task->target_lsn || atomic_load(&pool->failed)) {
		task->status.running = 0;
		task->status.error = pool->checkpoint_lsn >= task->target_lsn ? 0 : -EIO;
		task->status.done = task->status.total;
		vc_cond_broadcast(&pool->task_cond);
		return;
	}
	task->status.done = task->status.total - VC_MIN(task->status.total, vc_pool_undestaged_locked(pool));
}

/* Has the current slice nothing that could be destaged? */
static bool destage_is_empty_locked(struct vc_pool *pool)
{
	struct vc_log_figures figures;

	vc_log_figures(pool->log, &figures);
	return figures.last_lsn < pool->current->section.first_lsn;
}

static bool destage_is_due_locked(const struct vc_pool *pool)
{
	if (pool->destage_now)
		return true;
	return pool->cut_since_ns && pool->options.destage_ms != UINT32_MAX &&
		vc_mono_ns() - pool->cut_since_ns >= (uint64_t)pool->options.destage_ms * 1000000;
}

static void destage_wait_locked(struct vc_pool *pool)
{
	if (pool->cut_since_ns && pool->options.destage_ms != UINT32_MAX)
		(void)vc_cond_wait_until(&pool->destage_cond, &pool->lock,
					 pool->cut_since_ns + (uint64_t)pool->options.destage_ms * 1000000);
	else
		vc_cond_wait(&pool->destage_cond, &pool->lock);
}

/* Lack of space is not a failure: the slice stays in the log, new data is refused, and it is tried again. */
static void destage_failed_locked(struct vc_pool *pool, int r) VC_REQUIRES(pool->lock);
static void destage_failed_locked(struct vc_pool *pool, int r)
{
	bool room;

	if (!destage_may_try_again(r)) {
		vc_mutex_unlock(&pool->lock);
		vc_pool_fail(pool, r);
		vc_mutex_lock(&pool->lock);
		destage_task_progress_locked(pool);
		vc_cond_signal(&pool->resume_cond);
		return;
	}
	vc_mutex_unlock(&pool->lock);
	room = destage_no_space(r) && vc_pool_make_room(pool);
	vc_mutex_lock(&pool->lock);
	if (room)
		return; /* at once */
	if (!destage_no_space(r))
		vc_warn("%s: cannot destage now (error %d); it is tried again", pool->dir, -r);
	else if (!(atomic_fetch_or(&pool->full, VC_FULL_DESTAGE) & VC_FULL_DESTAGE))
		vc_warn("%s: no space to destage; new data is refused (ENOSPC), nothing is lost; delete something or add space", pool->dir);
	vc_cond_signal(&pool->resume_cond);
	if (pool->destage_task.status.running) {
		pool->destage_task.status.running = 0;
		pool->destage_task.status.error = r == -EDQUOT ? -ENOSPC : r;
		vc_cond_broadcast(&pool->task_cond);
	}
	(void)vc_cond_wait_until(&pool->destage_cond, &pool->lock, vc_mono_ns() + DESTAGE_RETRY_NS);
}

static void destage_step_locked(struct vc_pool *pool) VC_REQUIRES(pool->lock);
static void destage_step_locked(struct vc_pool *pool)
{
	struct vc_slice *oldest = vc_list_entry(pool->slices.next, struct vc_slice, node);
	int r;

	if (oldest == pool->current) {
		if (!destage_is_due_locked(pool)) {
			destage_task_progress_locked(pool);
			destage_wait_locked(pool);
			return;
		}
		atomic_store(&pool->cut_wanted, true); /* before trying: who logs after a try in vain sees it */
		r = vc_destage_cut_locked(pool);
		if (r < 0) {
			destage_failed_locked(pool, r);
			return;
		}
		if (oldest == pool->current && !destage_is_empty_locked(pool)) {
			/* Admitted records need the rest of the segment: again when they are logged. */
			vc_cond_wait(&pool->destage_cond, &pool->lock);
			return;
		}
		pool->destage_now = false;
		atomic_store(&pool->cut_wanted, false);
		if (oldest == pool->current) {
			pool->cut_since_ns = 0;
			destage_task_progress_locked(pool);
		}
		return;
	}
	vc_mutex_unlock(&pool->lock);
	r = vc_destage_slice(pool, oldest);
	vc_mutex_lock(&pool->lock);
	if (r == 0 && atomic_fetch_and(&pool->full, ~(unsigned int)VC_FULL_DESTAGE) & VC_FULL_DESTAGE)
		vc_info("%s: destaging again", pool->dir);
	if (r < 0)
		destage_failed_locked(pool, r);
	destage_task_progress_locked(pool);
}

void *vc_destage_thread(void *arg)
{
	struct vc_pool *pool = arg;

	vc_mutex_lock(&pool->lock);
	while (!pool->stopping) {
		if (atomic_load(&pool->failed)) {
			destage_task_progress_locked(pool);
			vc_cond_wait(&pool->destage_cond, &pool->lock);
			continue;
		}
		destage_step_locked(pool);
	}
	vc_mutex_unlock(&pool->lock);
	return NULL;
}
