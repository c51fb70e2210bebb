/* SPDX-License-Identifier: BSD-2-Clause */
/* pool: opening and closing, admission and parking, failure, tasks and figures. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>

#include "msg.h"
#include "pool_impl.h"

#define POOL_CACHE_BYTES (UINT64_C(256) << 20)
#define POOL_NODE_CACHE_BYTES (UINT64_C(64) << 20)
#define POOL_DESTAGE_MS 5000u
#define POOL_SPACE_CHECK_NS UINT64_C(200000000)
#define POOL_SPACE_RESERVE_MAX (UINT64_C(1) << 30)

char *vc_pool_path(const struct vc_pool *pool, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", pool->dir, name) < 0 ? NULL : path;
}

/* ---- failure, admission, parking ---- */

static void pool_wake_all_locked(struct vc_pool *pool)
{
	vc_cond_signal(&pool->destage_cond);
	vc_cond_signal(&pool->resume_cond);
	vc_cond_signal(&pool->reap_cond);
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
	pool_wake_all_locked(pool);
	vc_mutex_unlock(&pool->lock);
}

static void pool_broken(struct vc_pool *pool, int error) { vc_pool_fail(pool, error); }

int vc_pool_writable(struct vc_pool *pool)
{
	return pool->options.read_only || atomic_load(&pool->failed) ? -EROFS : 0;
}

/* The disk below is nearly full: what is in the log must still find room in chunk files. Looked at five times a second. */
static void pool_check_space(struct vc_pool *pool)
{
	uint64_t now = vc_mono_ns(), last = atomic_load(&pool->space_checked_ns);
	struct vc_io_space space;
	uint64_t reserve;

	if (now - last < POOL_SPACE_CHECK_NS || !atomic_compare_exchange_strong(&pool->space_checked_ns, &last, now))
		return;
	if (vc_io_space(pool->io, pool->dir, &space) < 0)
		return;
	reserve = VC_MIN(space.total / 20, POOL_SPACE_RESERVE_MAX);
	if (space.free < reserve) {
		if (!(atomic_fetch_or(&pool->full, VC_FULL_RESERVE) & VC_FULL_RESERVE))
			vc_warn("%s: the file system below is full: new data is refused (ENOSPC) until something is deleted", pool->dir);
	} else if (atomic_fetch_and(&pool->full, ~(unsigned int)VC_FULL_RESERVE) & VC_FULL_RESERVE) {
		vc_info("%s: there is room again: new data is accepted", pool->dir);
	}
}

int vc_pool_admit(struct vc_pool *pool, enum vc_log_class class, size_t len)
{
	bool queued;
	int r = vc_pool_writable(pool);

	if (r < 0)
		return r;
	if (class == VC_LOG_DATA) {
		pool_check_space(pool);
		if (atomic_load(&pool->full))
			return -ENOSPC;
	}
	vc_mutex_lock(&pool->lock);
	queued = pool->parked && class == VC_LOG_DATA;
	vc_mutex_unlock(&pool->lock);
	return queued ? -EAGAIN : vc_log_admit(pool->log, class, len);
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
	if (!pool->parked)
		pool->parked_tail = &pool->parked;
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

static void *pool_resume_thread(void *arg)
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

	if (!atomic_load(&pool->started))
		return;
	vc_mutex_lock(&pool->lock);
	vc_cond_signal(&pool->resume_cond);
	if (pool->cut_wanted)
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
	bool heavy = atomic_load(&slice->cost) >= VC_SLICE_COST_MAX;

	vc_mutex_lock(&pool->lock);
	if (!pool->cut_since_ns) {
		pool->cut_since_ns = vc_mono_ns();
		vc_cond_signal(&pool->destage_cond);
	}
	if (pool->cut_wanted)
		vc_cond_signal(&pool->destage_cond);
	if (slice == pool->current) {
		pool->slice_bytes += bytes;
		if (heavy || pool->slice_bytes > log_bytes / 3) {
			vc_destage_cut_locked(pool);
			vc_cond_signal(&pool->destage_cond);
		}
	}
	vc_mutex_unlock(&pool->lock);
}

/* ---- orphans ---- */

static void pool_orphaned(struct vc_pool *pool, uint64_t ino)
{
	vc_mutex_lock(&pool->lock);
	if (pool->norphans == pool->orphans_cap) {
		size_t cap = pool->orphans_cap ? pool->orphans_cap * 2 : 16;
		uint64_t *orphans = realloc(pool->orphans, cap * sizeof(*orphans));

		if (orphans) {
			pool->orphans = orphans;
			pool->orphans_cap = cap;
		}
	}
	if (pool->norphans < pool->orphans_cap)
		pool->orphans[pool->norphans++] = ino; /* otherwise the next mount deletes it */
	vc_cond_signal(&pool->reap_cond);
	vc_mutex_unlock(&pool->lock);
}

/* Delete one inode that has neither names nor users; not urgent, so not durable before the next flush. */
static void pool_reap(struct vc_pool *pool, uint64_t ino)
{
	struct vc_catalog *cat = &pool->catalog;
	struct vc_record rec;
	struct vc_log_slot slot;
	struct vc_inode *inode;
	uint8_t key[9];
	int64_t len;
	int r;

	if (vc_catalog_get(cat, ino, &inode) < 0)
		return;
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
}

static void *pool_reap_thread(void *arg)
{
	struct vc_pool *pool = arg;

	vc_mutex_lock(&pool->lock);
	while (!pool->stopping) {
		uint64_t ino;

		if (pool->norphans == 0) {
			vc_cond_wait(&pool->reap_cond, &pool->lock);
			continue;
		}
		ino = pool->orphans[--pool->norphans];
		pool->reaping = true;
		vc_mutex_unlock(&pool->lock);
		pool_reap(pool, ino);
		vc_mutex_lock(&pool->lock);
		pool->reaping = false;
		if (pool->norphans == 0)
			vc_cond_broadcast(&pool->task_cond);
	}
	vc_mutex_unlock(&pool->lock);
	return NULL;
}

void vc_pool_wait_reaped(struct vc_pool *pool)
{
	vc_mutex_lock(&pool->lock);
	while ((pool->norphans || pool->reaping) && !pool->stopping && !atomic_load(&pool->failed))
		vc_cond_wait(&pool->task_cond, &pool->lock);
	vc_mutex_unlock(&pool->lock);
}

/* ---- open and close ---- */

static int pool_read_state(struct vc_pool *pool, struct vc_disk_state *ret)
{
	struct vc_meta_txn *txn;
	const void *value;
	size_t len;
	int r = vc_meta_read_begin(pool->meta, &txn);

	if (r < 0)
		return r;
	r = vc_meta_get(txn, VC_DB_CAT, "GS", 2, &value, &len);
	if (r == 0 && len != sizeof(*ret))
		r = -EUCLEAN;
	if (r == 0)
		memcpy(ret, value, sizeof(*ret));
	vc_meta_end(txn);
	if (r == -ENOENT)
		vc_err("%s/meta: holds no pool state: not the LMDB of a pool", pool->dir);
	if (r == 0 && memcmp(ret->uuid, pool->disk.uuid, sizeof(ret->uuid)) != 0) {
		vc_err("%s/meta: belongs to another pool", pool->dir);
		r = -EUCLEAN;
	}
	return r == -ENOENT ? -EUCLEAN : r;
}

static int pool_open_meta(struct vc_pool *pool, struct vc_disk_state *ret_state)
{
	char *path = vc_pool_path(pool, "meta");
	struct vc_meta_params params = { .io = pool->io, .dir = path, .read_only = pool->options.read_only };
	struct vc_map_params map = { .cache_bytes = pool->options.node_cache_bytes };
	int r = path ? vc_meta_open(&params, &pool->meta) : -ENOMEM;

	if (r == -ENOENT)
		vc_err("%s/data.mdb: the maps of this pool are missing", path);
	if (r == 0)
		r = pool_read_state(pool, ret_state);
	if (r == 0) {
		map.meta = pool->meta;
		map.next_node = vc_le64_get(ret_state->next_node);
		r = vc_map_open(&map, &pool->map);
	}
	free(path);
	return r;
}

static int pool_set_segment(void *ctx, const void *key, size_t key_len, const void *value, size_t len)
{
	struct vc_pool *pool = ctx;
	struct vc_disk_segment d;
	struct vc_chunk_segment_info info;

	if (key_len != 9 || len != sizeof(d))
		return -EUCLEAN;
	memcpy(&d, value, sizeof(d));
	info = (struct vc_chunk_segment_info){ .segno = vc_be64_at((const uint8_t *)key + 1), .used = vc_le64_get(d.used),
					       .max_lsn = vc_le64_get(d.max_lsn), .sealed = vc_le32_get(d.sealed) != 0 };
	vc_chunk_set_segment(pool->chunks, &info);
	return 0;
}

static int pool_open_chunks(struct vc_pool *pool, const struct vc_disk_state *state)
{
	char *path = vc_pool_path(pool, "chunk");
	struct vc_chunk_params params = {
		.io = pool->io, .dir = path, .segment_size = vc_le64_get(pool->disk.chunk_segment_size),
		.chunk_blocks = pool->chunk_blocks, .next_segno = vc_le64_get(state->next_segno),
		.cache_bytes = pool->options.cache_bytes, .read_only = pool->options.read_only,
	};
	struct vc_meta_txn *txn;
	uint8_t prefix = VC_ROW_SEGMENT;
	int r = path ? 0 : -ENOMEM;

	memcpy(params.uuid, pool->disk.uuid, sizeof(params.uuid));
	if (r == 0)
		r = vc_chunk_open(&params, &pool->chunks);
	if (r == 0)
		r = vc_meta_read_begin(pool->meta, &txn);
	if (r == 0) {
		r = vc_meta_scan(txn, VC_DB_CAT, &prefix, 1, NULL, 0, pool_set_segment, pool);
		vc_meta_end(txn);
	}
	free(path);
	return r;
}

static int pool_start(struct vc_pool *pool)
{
	int r;

	if (pool->options.read_only)
		return 0;
	r = vc_log_start(pool->log);
	if (r < 0)
		return r;
	r = vc_thread_start(&pool->destage_thread, "vc-destage", vc_destage_thread, pool);
	if (r == 0) {
		r = vc_thread_start(&pool->resume_thread, "vc-resume", pool_resume_thread, pool);
		if (r == 0)
			r = vc_thread_start(&pool->reap_thread, "vc-reap", pool_reap_thread, pool);
	}
	if (r < 0)
		vc_err("%s: cannot start a thread (error %d)", pool->dir, -r);
	atomic_store(&pool->started, r == 0);
	return r;
}

static int pool_orphan_row(void *ctx, const void *key, size_t key_len, const void *value, size_t len)
{
	(void)value;
	(void)len;
	if (key_len != 9)
		return -EUCLEAN;
	pool_orphaned(ctx, vc_be64_at((const uint8_t *)key + 1));
	return 0;
}

/* Files that were unlinked and open when the pool was last in use, checkpointed or replayed. */
static int pool_find_orphans(struct vc_pool *pool)
{
	uint8_t prefix = VC_ROW_ORPHAN;
	struct vc_meta_txn *txn;
	int r = vc_meta_read_begin(pool->meta, &txn);

	if (r < 0)
		return r;
	r = vc_meta_scan(txn, VC_DB_CAT, &prefix, 1, NULL, 0, pool_orphan_row, pool);
	vc_meta_end(txn);
	for (size_t i = 0; i < pool->catalog.table_size; i++)
		for (struct vc_inode *inode = pool->catalog.table[i]; inode; inode = inode->hash_next)
			if (atomic_load(&inode->orphan) && !atomic_load(&inode->gone))
				pool_orphaned(pool, inode->ino);
	return r;
}

/* A read-only feature is one that a program which does not know it may read, but not change. */
static int pool_check_features(const struct vc_pool *pool)
{
	if (pool->options.read_only || !(vc_le64_get(pool->disk.features_ro_compat) & ~VC_FEATURES_RO_COMPAT_KNOWN))
		return 0;
	vc_err("%s: the pool uses a feature this program can only read; mount it read-only", pool->dir);
	return -ENOTSUP;
}

static int pool_open(struct vc_pool *pool)
{
	struct vc_disk_state state;
	int r = vc_super_read(pool->io, pool->dir, &pool->disk);

	if (r == 0)
		r = pool_check_features(pool);
	if (r == 0)
		r = vc_super_lock(pool->io, pool->dir, &pool->lock_file);
	if (r < 0)
		return r;
	pool->chunk_blocks = vc_le32_get(pool->disk.chunk_blocks);
	r = pool_open_meta(pool, &state);
	if (r == 0)
		r = vc_catalog_init(&pool->catalog, pool, pool->meta, &pool->bases);
	if (r < 0)
		return r;
	atomic_store(&pool->catalog.next_ino, vc_le64_get(state.next_ino));
	atomic_store(&pool->catalog.next_tag, vc_le64_get(state.next_tag));
	atomic_store(&pool->next_content, vc_le64_get(state.next_content));
	pool->catalog.broken = pool_broken;
	pool->checkpoint_lsn = vc_le64_get(state.checkpoint_lsn);
	pool->mark_ns = vc_le64_get(state.mark_ns);
	atomic_store(&pool->images, vc_le64_get(state.images));
	r = pool_open_chunks(pool, &state);
	if (r == 0)
		r = vc_recover(pool, &state);
	if (r == 0 && !pool->options.read_only)
		r = vc_journal_open(pool, &pool->journal);
	if (r == 0)
		r = pool_find_orphans(pool);
	pool->catalog.orphaned = pool->options.read_only ? NULL : pool_orphaned;
	return r == 0 ? pool_start(pool) : r;
}

static struct vc_pool *pool_alloc(struct vc_io *io, const char *dir, const struct vc_pool_options *options)
{
	struct vc_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return NULL;
	pool->io = io;
	pool->options = *options;
	pool->options.log_dir = NULL;
	if (!pool->options.cache_bytes)
		pool->options.cache_bytes = POOL_CACHE_BYTES;
	if (!pool->options.node_cache_bytes)
		pool->options.node_cache_bytes = POOL_NODE_CACHE_BYTES;
	if (!pool->options.destage_ms)
		pool->options.destage_ms = POOL_DESTAGE_MS;
	vc_mutex_init(&pool->names, VC_LOCK_NS);
	vc_mutex_init(&pool->fold, VC_LOCK_FOLD);
	vc_mutex_init(&pool->lock, VC_LOCK_POOL);
	vc_cond_init(&pool->destage_cond);
	vc_cond_init(&pool->resume_cond);
	vc_cond_init(&pool->reap_cond);
	vc_cond_init(&pool->task_cond);
	vc_list_init(&pool->slices);
	vc_bases_init(&pool->bases, vc_slice_hold, vc_slice_release);
	pool->parked_tail = &pool->parked;
	pool->dir = strdup(dir);
	pool->options.log_dir = options->log_dir ? strdup(options->log_dir) : vc_pool_path(pool, "log");
	return pool;
}

static void pool_stop_threads(struct vc_pool *pool)
{
	vc_mutex_lock(&pool->lock);
	pool->stopping = true;
	pool_wake_all_locked(pool);
	vc_mutex_unlock(&pool->lock);
	vc_clean_stop(pool);
	if (pool->destage_thread)
		pthread_join(pool->destage_thread, NULL);
	if (pool->resume_thread)
		pthread_join(pool->resume_thread, NULL);
	if (pool->reap_thread)
		pthread_join(pool->reap_thread, NULL);
}

/* What the slices hold, without checkpointing it: it is in the log. */
static void pool_drop_slices(struct vc_pool *pool)
{
	while (!vc_list_empty(&pool->slices)) {
		struct vc_slice *slice = vc_list_entry(pool->slices.next, struct vc_slice, node);

		vc_list_del(&slice->node);
		for (size_t i = 0; i < slice->ndirty; i++) {
			struct vc_inode *inode = slice->dirty[i];

			if (inode->dirty == slice) {
				vc_overlay_put(inode->active);
				inode->active = NULL;
				inode->dirty = NULL;
			}
			vc_catalog_unpin(&pool->catalog, inode);
		}
		slice->ndirty = 0;
		for (size_t i = 0; i < slice->nimages; i++)
			vc_base_put(slice->images[i].base);
		slice->nimages = 0;
		vc_slice_release(slice);
	}
}

static void pool_free(struct vc_pool *pool)
{
	pool->catalog.orphaned = NULL;
	pool->abandoned = true;
	if (pool->catalog.table) {
		pool_drop_slices(pool);
		vc_catalog_fini(&pool->catalog);
	}
	vc_journal_close(pool->journal);
	vc_log_close(pool->log);
	vc_chunk_close(pool->chunks);
	vc_map_close(pool->map);
	vc_meta_close(pool->meta);
	vc_io_close(pool->lock_file);
	vc_bases_fini(&pool->bases);
	vc_cond_fini(&pool->destage_cond);
	vc_cond_fini(&pool->resume_cond);
	vc_cond_fini(&pool->reap_cond);
	vc_cond_fini(&pool->task_cond);
	vc_mutex_fini(&pool->names);
	vc_mutex_fini(&pool->fold);
	vc_mutex_fini(&pool->lock);
	free(pool->orphans);
	free((void *)(uintptr_t)pool->options.log_dir);
	free(pool->dir);
	free(pool);
}

int vc_pool_open(struct vc_io *io, const char *dir, const struct vc_pool_options *options, struct vc_pool **ret)
{
	struct vc_pool *pool = pool_alloc(io, dir, options);
	int r;

	if (!pool)
		return -ENOMEM;
	r = pool->dir && pool->options.log_dir ? pool_open(pool) : -ENOMEM;
	if (r < 0) {
		vc_pool_abandon(pool);
		return r;
	}
	*ret = pool;
	return 0;
}

void vc_pool_abandon(struct vc_pool *pool)
{
	pool_stop_threads(pool);
	if (pool->log && vc_log_stop(pool->log, false) < 0)
		vc_warn("%s: the log failed before", pool->dir);
	pool_free(pool);
}

int vc_pool_close(struct vc_pool *pool)
{
	uint64_t id;
	int r = 0;

	if (!pool->options.read_only && !atomic_load(&pool->failed)) {
		r = vc_log_flush_wait(pool->log, 0);
		if (r == 0)
			r = vc_pool_task_start(pool, VC_TASK_DESTAGE, &id);
		if (r == 0)
			r = vc_pool_task_wait(pool, VC_TASK_DESTAGE, id);
	}
	pool_stop_threads(pool);
	if (pool->log) {
		int stopped = vc_log_stop(pool->log, true);

		r = r < 0 ? r : stopped;
	}
	pool_free(pool);
	return r;
}

/* ---- tasks and figures ---- */

static struct vc_task *pool_task(struct vc_pool *pool, enum vc_task_kind kind)
{
	return kind == VC_TASK_DESTAGE ? &pool->destage_task : &pool->clean_task;
}

static int pool_start_destage(struct vc_pool *pool, uint64_t *ret_id)
{
	struct vc_task *task = &pool->destage_task;
	struct vc_log_figures figures;

	vc_mutex_lock(&pool->lock);
	vc_log_figures(pool->log, &figures);
	vc_destage_cut_locked(pool);
	task->status.id++;
	task->status.running = 1;
	task->status.done = 0;
	task->status.total = pool->slice_bytes;
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
	vc_log_flush(pool->log, 0, done);
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
		.fs_total = space.total, .fs_free = space.free,
		.chunk_bytes = chunks.bytes, .chunk_segments = chunks.segments,
		.log_bytes = log.bytes, .log_used = log.used, .meta_bytes = meta.file_bytes, .images = atomic_load(&pool->images),
		.durable_lsn = log.durable_lsn, .last_lsn = log.last_lsn,
		.cache_hits = chunks.cache.hits, .cache_misses = chunks.cache.misses, .cache_bytes = chunks.cache.bytes,
		.failed = log.failed || atomic_load(&pool->failed),
	};
	memcpy(ret->uuid, pool->disk.uuid, sizeof(ret->uuid));
	vc_mutex_lock(&pool->lock);
	ret->checkpoint_lsn = pool->checkpoint_lsn;
	ret->undestaged_bytes = pool->slice_bytes;
	vc_mutex_unlock(&pool->lock);
	return 0;
}
