/* SPDX-License-Identifier: BSD-2-Clause */
/* pool: failure, admission and parking, orphans, tasks and figures. Opening and closing: pool_open. */
#include "config.h"

#include "msg.h"
#include "pool_impl.h"

#define POOL_REAP_RETRY_NS UINT64_C(1000000000)

char *vc_pool_path(const struct vc_pool *pool, const char *name) { return vc_path_of(pool->dir, name); }

/* ---- failure, admission, parking ---- */

void vc_pool_wake_all_locked(struct vc_pool *pool)
{
	vc_cond_signal(&pool->destage_cond);
	vc_cond_signal(&pool->resume_cond);
	vc_cond_signal(&pool->reap_cond);
	vc_cond_signal(&pool->tidy_cond);
	vc_cond_broadcast(&pool->task_cond);
}

void vc_pool_fail(struct vc_pool *pool, int error)
{
	int none = 0;

	if (!atomic_compare_exchange_strong(&pool->failed, &none, error ? error : -EIO))
		return;
	vc_err("%s: failed (error %d): no more writes are accepted until the next mount; reading goes on", pool->dir, -error);
	if (pool->log)
		vc_log_fail(pool->log, error);
	vc_mutex_lock(&pool->lock);
	vc_pool_wake_all_locked(pool);
	vc_mutex_unlock(&pool->lock);
}

uint64_t vc_pool_bad_chunks(const struct vc_pool *pool) { return pool->bad_chunks; }

int vc_pool_writable(struct vc_pool *pool)
{
	return pool->options.read_only || atomic_load(&pool->failed) ? -EROFS : 0;
}

int vc_pool_admit(struct vc_pool *pool, enum vc_log_class class, size_t len)
{
	int r;

	if (vc_meta_broken(pool->meta))
		vc_pool_fail(pool, -EIO);
	r = vc_pool_writable(pool);
	if (r < 0)
		return r;
	if (class == VC_LOG_DATA) {
		vc_pool_check_space(pool, false);
		if (atomic_load(&pool->full))
			return -ENOSPC;
	}
	if (class == VC_LOG_DATA && atomic_load(&pool->queued)) /* not before those who wait already */
		return -EAGAIN;
	return vc_log_admit(pool->log, class, len);
}

void vc_pool_park(struct vc_pool *pool, struct vc_parked *parked)
{
	vc_mutex_lock(&pool->lock);
	if (pool->stopping) {
		vc_mutex_unlock(&pool->lock);
		parked->fn(parked, -EIO);
		return;
	}
	parked->next = NULL;
	*pool->parked_tail = parked;
	pool->parked_tail = &parked->next;
	pool->log_waits++;
	atomic_store(&pool->queued, true);
	pool->destage_now = true;
	vc_cond_signal(&pool->destage_cond);
	vc_cond_signal(&pool->resume_cond);
	vc_mutex_unlock(&pool->lock);
}

struct pool_sleeper {
	struct vc_parked parked;
	struct vc_wait wait;
};

static void pool_sleeper_wake(struct vc_parked *parked, int error)
{
	struct pool_sleeper *s = vc_container_of(parked, struct pool_sleeper, parked);

	vc_done_call(&s->wait.done, error);
}

int vc_pool_admit_wait(struct vc_pool *pool, enum vc_log_class class, size_t len)
{
	struct pool_sleeper s = { .parked = { .class = class, .len = len, .fn = pool_sleeper_wake } };
	int r = vc_pool_admit(pool, class, len);

	if (r != -EAGAIN)
		return r;
	vc_wait_init(&s.wait);
	vc_pool_park(pool, &s.parked);
	return vc_wait_for(&s.wait);
}

static struct vc_parked *pool_unpark_locked(struct vc_pool *pool)
{
	struct vc_parked *p = pool->parked;

	pool->parked = p->next;
	if (!pool->parked) {
		pool->parked_tail = &pool->parked;
		atomic_store(&pool->queued, false);
	}
	return p;
}

/* Can the first parked request go on? */
static int pool_try_parked(struct vc_pool *pool, const struct vc_parked *p)
{
	if (pool->stopping)
		return -EIO;
	if (vc_pool_writable(pool) < 0)
		return -EROFS;
	if (p->class == VC_LOG_DATA && atomic_load(&pool->full))
		return -ENOSPC;
	return vc_log_admit(pool->log, p->class, p->len);
}

void *vc_pool_resume_thread(void *arg)
{
	struct vc_pool *pool = arg;

	vc_mutex_lock(&pool->lock);
	while (!pool->stopping || pool->parked) {
		struct vc_parked *p = pool->parked;
		int r = p ? pool_try_parked(pool, p) : -EAGAIN;

		if (r == -EAGAIN) {
			vc_cond_wait(&pool->resume_cond, &pool->lock);
			continue;
		}
		pool_unpark_locked(pool);
		vc_mutex_unlock(&pool->lock);
		p->fn(p, r);
		vc_mutex_lock(&pool->lock);
	}
	vc_mutex_unlock(&pool->lock);
	return NULL;
}

void vc_pool_space(void *ctx)
{
	struct vc_pool *pool = ctx;

	if (vc_log_failed(pool->log))
		vc_pool_fail(pool, -EIO);
	if (!atomic_load(&pool->started))
		return;
	vc_mutex_lock(&pool->lock);
	vc_cond_signal(&pool->resume_cond);
	if (atomic_load(&pool->cut_wanted))
		vc_cond_signal(&pool->destage_cond);
	vc_mutex_unlock(&pool->lock);
}

int vc_pool_before_sync(void *ctx)
{
	struct vc_pool *pool = ctx;

	return pool->chunks ? vc_chunk_sync_direct(pool->chunks) : 0;
}

/* A third of the log in one slice leaves room to go on writing while it is destaged. */
void vc_pool_changed(struct vc_pool *pool, struct vc_slice *slice, uint64_t bytes)
{
	uint64_t log_bytes = vc_le64_get(pool->disk.log_segment_size) * vc_le32_get(pool->disk.log_segments);
	uint64_t before = atomic_fetch_add(&slice->bytes, bytes);
	bool full = before + bytes > log_bytes / 3 || atomic_load(&slice->cost) >= VC_SLICE_COST_MAX;

	if (before && !full && !atomic_load(&pool->cut_wanted))
		return; /* the usual case: one more of many */
	vc_mutex_lock(&pool->lock);
	if (!pool->cut_since_ns && slice == pool->current)
		pool->cut_since_ns = vc_mono_ns();
	if (full && slice == pool->current)
		(void)vc_destage_cut_locked(pool);
	vc_cond_signal(&pool->destage_cond);
	vc_mutex_unlock(&pool->lock);
}

/* ---- orphans ---- */

void vc_pool_orphaned(struct vc_pool *pool, uint64_t ino)
{
	vc_mutex_lock(&pool->lock);
	if (vc_array_room(&pool->orphans, pool->norphans, &pool->orphans_cap, sizeof(*pool->orphans)) == 0)
		pool->orphans[pool->norphans++] = ino; /* otherwise the next mount deletes it */
	vc_cond_signal(&pool->reap_cond);
	vc_mutex_unlock(&pool->lock);
}

/*
 * Delete one inode that has neither names nor users; not urgent, so not durable before the next flush. When that fails, giving it
 * back puts it on the list again.
 */
static int pool_reap(struct vc_pool *pool, uint64_t ino)
{
	struct vc_catalog *cat = &pool->catalog;
	struct vc_record rec;
	struct vc_log_slot slot;
	struct vc_inode *inode;
	uint8_t key[9];
	int64_t len;
	int r;

	r = vc_catalog_get(cat, ino, &inode);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	vc_record_init(&rec);
	vc_record_row_del(&rec, key, vc_row_key_ino(key, VC_ROW_ORPHAN, ino));
	vc_record_row_del(&rec, key, vc_row_key_ino(key, VC_ROW_INODE, ino));
	len = vc_record_len(&rec);
	r = len < 0 ? (int)len : vc_pool_admit_wait(pool, VC_LOG_META, (size_t)len);
	if (r == 0) {
		vc_mutex_lock(&pool->names);
		vc_mutex_lock(&inode->lock);
		if (!vc_catalog_in_use(cat, inode, 1) && atomic_load(&inode->orphan) && !atomic_load(&inode->gone)) {
			r = vc_apply_record(pool, &rec, NULL, NULL, &slot);
		} else {
			vc_log_unadmit(pool->log, (size_t)len);
			r = -EBUSY;
		}
		vc_mutex_unlock(&inode->lock);
		vc_mutex_unlock(&pool->names);
		if (r == 0) {
			vc_record_emit(&rec, slot.lsn, slot.buf);
			vc_log_submit(pool->log, &slot, false, NULL);
		}
	}
	vc_record_fini(&rec);
	vc_catalog_put(cat, inode);
	return r == -EBUSY ? 0 : r;
}

void *vc_pool_reap_thread(void *arg)
{
	struct vc_pool *pool = arg;
	int r;

	vc_mutex_lock(&pool->lock);
	while (!pool->stopping) {
		uint64_t ino;

		if (pool->norphans == 0 || atomic_load(&pool->failed)) {
			vc_cond_wait(&pool->reap_cond, &pool->lock);
			continue;
		}
		ino = pool->orphans[--pool->norphans];
		pool->reaping = true;
		vc_mutex_unlock(&pool->lock);
		r = pool_reap(pool, ino);
		vc_mutex_lock(&pool->lock);
		pool->reaping = false;
		pool->reap_stuck = r < 0;
		if (pool->norphans == 0 || pool->reap_stuck)
			vc_cond_broadcast(&pool->task_cond);
		if (pool->reap_stuck && !pool->stopping)
			(void)vc_cond_wait_until(&pool->reap_cond, &pool->lock, vc_mono_ns() + POOL_REAP_RETRY_NS);
	}
	vc_mutex_unlock(&pool->lock);
	return NULL;
}

void vc_pool_wait_reaped(struct vc_pool *pool)
{
	vc_mutex_lock(&pool->lock);
	while ((pool->norphans || pool->reaping) && !pool->reap_stuck && !pool->stopping && !atomic_load(&pool->failed))
		vc_cond_wait(&pool->task_cond, &pool->lock);
	vc_mutex_unlock(&pool->lock);
}

/* ---- tasks and figures ---- */

static struct vc_task *pool_task(struct vc_pool *pool, enum vc_task_kind kind)
{
	return kind == VC_TASK_DESTAGE ? &pool->destage_task : &pool->clean_task;
}

uint64_t vc_pool_undestaged_locked(const struct vc_pool *pool)
{
	uint64_t bytes = 0;

	vc_list_for_each(node, &pool->slices) {
		struct vc_slice *slice = vc_list_entry(node, struct vc_slice, node);

		bytes += atomic_load(&slice->bytes) + atomic_load(&slice->direct_bytes);
	}
	return bytes;
}

static int pool_start_destage(struct vc_pool *pool, uint64_t *ret_id)
{
	struct vc_task *task = &pool->destage_task;
	struct vc_log_figures figures;
	uint64_t undestaged;

	vc_mutex_lock(&pool->lock);
	vc_log_figures(pool->log, &figures);
	undestaged = vc_pool_undestaged_locked(pool);
	(void)vc_destage_cut_locked(pool); /* the thread tries again */
	task->status.id++;
	task->status.running = 1;
	task->status.done = 0;
	task->status.total = undestaged;
	task->target_lsn = figures.last_lsn;
	*ret_id = task->status.id;
	pool->destage_now = true;
	vc_cond_signal(&pool->destage_cond);
	vc_mutex_unlock(&pool->lock);
	return 0;
}

int vc_pool_task_start(struct vc_pool *pool, enum vc_task_kind kind, uint64_t *ret_id)
{
	int r = vc_pool_writable(pool);

	if (r < 0)
		return r;
	vc_pool_check_space(pool, true); /* who asks for this may have made room */
	return kind == VC_TASK_DESTAGE ? pool_start_destage(pool, ret_id) : vc_clean_start(pool, ret_id);
}

void vc_pool_task_status(struct vc_pool *pool, enum vc_task_kind kind, struct vc_task_status *ret)
{
	vc_mutex_lock(&pool->lock);
	*ret = pool_task(pool, kind)->status;
	vc_mutex_unlock(&pool->lock);
}

int vc_pool_task_wait(struct vc_pool *pool, enum vc_task_kind kind, uint64_t id)
{
	struct vc_task *task = pool_task(pool, kind);
	int r;

	vc_mutex_lock(&pool->lock);
	while (task->status.running && task->status.id >= id && !pool->stopping && !atomic_load(&pool->failed)) /* a later one covers it */
		vc_cond_wait(&pool->task_cond, &pool->lock);
	r = task->status.running ? -EIO : task->status.error;
	vc_mutex_unlock(&pool->lock);
	return r;
}

int vc_pool_sync(struct vc_pool *pool, struct vc_done *done)
{
	vc_log_flush(pool->log, 0, false, done);
	return 0;
}

int vc_pool_figures(struct vc_pool *pool, struct vc_pool_figures *ret)
{
	struct vc_chunk_stats chunks;
	struct vc_meta_stats meta;
	struct vc_log_figures log;
	struct vc_io_space space;
	int r = vc_io_space(pool->io, pool->dir, &space);

	if (r == 0)
		r = vc_meta_stats(pool->meta, &meta);
	if (r < 0)
		return r;
	vc_chunk_stats(pool->chunks, &chunks);
	vc_log_figures(pool->log, &log);
	*ret = (struct vc_pool_figures){
		.fs_total = space.total, .fs_free = vc_pool_space_for_data(pool, &space),
		.chunk_bytes = chunks.bytes, .chunk_segments = chunks.segments,
		.log_bytes = log.bytes, .log_used = log.used, .meta_bytes = meta.file_bytes, .images = atomic_load(&pool->images),
		.durable_lsn = log.durable_lsn, .last_lsn = log.last_lsn,
		.cache_hits = chunks.cache.hits, .cache_misses = chunks.cache.misses, .cache_bytes = chunks.cache.bytes,
		.failed = log.failed || atomic_load(&pool->failed),
	};
	memcpy(ret->uuid, pool->disk.uuid, sizeof(ret->uuid));
	vc_mutex_lock(&pool->lock);
	ret->log_waits = pool->log_waits;
	ret->checkpoint_lsn = pool->checkpoint_lsn;
	ret->undestaged_bytes = vc_pool_undestaged_locked(pool);
	vc_mutex_unlock(&pool->lock);
	return 0;
}
