/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pool_open: a pool from its directory, its threads, and their end.
 *
 * vc_pool_abandon frees a pool that was opened partly as well as one that is complete.
 */
#include "config.h"

#include <stdlib.h>

#include "journal_read.h"
#include "msg.h"
#include "pool_impl.h"

#define POOL_CACHE_BYTES (UINT64_C(256) << 20)
#define POOL_NODE_CACHE_BYTES (UINT64_C(64) << 20)
#define POOL_DESTAGE_MS 5000u
#define POOL_JOURNAL_BYTES (UINT64_C(64) << 20)

static void pool_broken(struct vc_pool *pool, int error) { vc_pool_fail(pool, error); }

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
	struct vc_meta_params params = { .io = pool->io, .dir = path, .file = pool->options.meta_file,
					 .map_size = pool->options.meta_map_size, .reserve = vc_space_meta_reserve(pool),
					 .read_only = pool->options.read_only };
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
		.take_reserved = vc_ballast_take, .ctx = pool,
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
	if (r == 0)
		r = vc_thread_start(&pool->resume_thread, "vc-resume", vc_pool_resume_thread, pool);
	if (r == 0)
		r = vc_thread_start(&pool->reap_thread, "vc-reap", vc_pool_reap_thread, pool);
	if (r == 0)
		r = vc_thread_start(&pool->tidy_thread, "vc-tidy", vc_tidy_thread, pool);
	if (r < 0)
		vc_err("%s: cannot start a thread (error %d)", pool->dir, -r);
	atomic_store(&pool->started, r == 0);
	return r < 0 ? r : vc_scrub_open(pool);
}

static int pool_orphan_row(void *ctx, const void *key, size_t key_len, const void *value, size_t len)
{
	(void)value;
	(void)len;
	if (key_len != 9)
		return -EUCLEAN;
	vc_pool_orphaned(ctx, vc_be64_at((const uint8_t *)key + 1));
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
				vc_pool_orphaned(pool, inode->ino);
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

/* The newest file of the journal: read once, for recovery and for the journal that goes on with it. *ret stays as it is when there is none. */
static int pool_last_of_journal(const struct vc_pool *pool, struct vc_journal_last *ret)
{
	int r = vc_journal_last(pool->io, pool->dir, pool->disk.uuid, pool->checkpoint_lsn, ret);

	return r == -ENOENT ? 0 : r;
}

static int pool_open(struct vc_pool *pool)
{
	struct vc_journal_last journal = { .end = 0 };
	struct vc_disk_state state;
	int r = vc_super_read(pool->io, pool->dir, &pool->disk);

	if (r == 0)
		r = pool_check_features(pool);
	if (r == 0)
		r = vc_io_vet(pool->io, pool->options.log_dir, true);
	if (r == 0 && !pool->options.locked)
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
		r = pool_last_of_journal(pool, &journal);
	if (r == 0)
		r = vc_recover(pool, &state, journal.reaches);
	if (r == 0 && !pool->options.read_only)
		r = vc_journal_open(pool, &journal, &pool->journal);
	if (r == 0 && !pool->options.read_only)
		r = vc_ballast_open(pool, vc_le64_get(state.next_segno));
	if (r < 0)
		return r;
	if (!pool->options.keep_orphans) {
		r = pool_find_orphans(pool);
		pool->catalog.orphaned = pool->options.read_only ? NULL : vc_pool_orphaned;
	}
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
	if (!pool->options.journal_bytes)
		pool->options.journal_bytes = POOL_JOURNAL_BYTES;
	if (!pool->options.destage_ms)
		pool->options.destage_ms = POOL_DESTAGE_MS;
	vc_mutex_init(&pool->names, VC_LOCK_NS);
	vc_mutex_init(&pool->fold, VC_LOCK_FOLD);
	vc_mutex_init(&pool->lock, VC_LOCK_POOL);
	vc_mutex_init(&pool->space_lock, VC_LOCK_SPACE);
	vc_cond_init(&pool->destage_cond);
	vc_cond_init(&pool->resume_cond);
	vc_cond_init(&pool->reap_cond);
	vc_cond_init(&pool->tidy_cond);
	vc_cond_init(&pool->task_cond);
	vc_list_init(&pool->slices);
	vc_bases_init(&pool->bases, vc_slice_hold, vc_slice_release);
	pool->parked_tail = &pool->parked;
	pool->tidy_tail = &pool->tidy;
	pool->dir = strdup(dir);
	pool->options.log_dir = options->log_dir ? strdup(options->log_dir) : vc_pool_path(pool, "log");
	return pool;
}

static void pool_stop_threads(struct vc_pool *pool)
{
	vc_mutex_lock(&pool->lock);
	pool->stopping = true;
	vc_pool_wake_all_locked(pool);
	vc_mutex_unlock(&pool->lock);
	vc_scrub_close(pool);
	vc_clean_stop(pool);
	if (pool->destage_thread)
		pthread_join(pool->destage_thread, NULL);
	if (pool->resume_thread)
		pthread_join(pool->resume_thread, NULL);
	if (pool->reap_thread)
		pthread_join(pool->reap_thread, NULL);
	if (pool->tidy_thread)
		pthread_join(pool->tidy_thread, NULL);
	vc_tidy_drop(pool);
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
	vc_ballast_close(pool);
	vc_io_close(pool->lock_file);
	vc_bases_fini(&pool->bases);
	vc_cond_fini(&pool->destage_cond);
	vc_cond_fini(&pool->resume_cond);
	vc_cond_fini(&pool->reap_cond);
	vc_cond_fini(&pool->tidy_cond);
	vc_cond_fini(&pool->task_cond);
	vc_mutex_fini(&pool->names);
	vc_mutex_fini(&pool->fold);
	vc_mutex_fini(&pool->lock);
	vc_mutex_fini(&pool->space_lock);
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
	if (atomic_load(&pool->failed))
		r = atomic_load(&pool->failed);
	if (pool->log) {
		int stopped = vc_log_stop(pool->log, true);

		r = r < 0 ? r : stopped;
	}
	pool_free(pool);
	return r;
}
