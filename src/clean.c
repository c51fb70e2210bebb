/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * clean: mark and sweep, the only thing that frees what images share (I3, I4).
 *
 *   capture G   under the fold lock: next node id, checkpoint LSN, the root of every image, of every view in memory
 *   mark        walk from the roots in short read transactions; nothing reachable at G can change or go meanwhile,
 *               because nodes are immutable and checkpoints hand their deletions to us            clean_mark.c
 *   sweep       nodes below G's next id that were not visited; segments that were sealed, hold nothing above G's
 *               checkpoint, and in which no chunk was visited                                    clean_sweep.c
 *   finish      deletions that checkpoints handed over; figures of each image
 *
 * On the way the mark learns which chunks only one image uses. A node is descended into once for the first image that has it, and once
 * more when a second image turns out to have it too; from then on everything below is shared.
 */
#include "config.h"

#include <stdlib.h>

#include "clean_impl.h"

bool vc_clean_must_stop(struct vc_clean *c)
{
	bool stop;

	vc_mutex_lock(&c->pool->lock);
	stop = c->pool->stopping;
	vc_mutex_unlock(&c->pool->lock);
	return stop || atomic_load(&c->pool->failed);
}

/* ---- capture ---- */

static int capture_image(void *ctx, const void *key, size_t key_len, const void *value, size_t len)
{
	struct vc_clean *c = ctx;
	struct vc_disk_image d;

	if (key_len != 9 || len != sizeof(d) || vc_array_room(&c->images, c->nimages, &c->images_cap, sizeof(*c->images)) < 0)
		return key_len != 9 || len != sizeof(d) ? -EUCLEAN : -ENOMEM;
	memcpy(&d, value, sizeof(d));
	c->images[c->nimages++] = (struct clean_image){ .ino = vc_be64_at((const uint8_t *)key + 1),
							.root = { vc_le64_get(d.root), vc_le32_get(d.height) } };
	return 0;
}

static int capture_root(void *ctx, struct vc_root root)
{
	struct vc_clean *c = ctx;

	if (!root.id)
		return 0;
	if (vc_array_room(&c->roots, c->nroots, &c->roots_cap, sizeof(*c->roots)) < 0)
		return -ENOMEM;
	c->roots[c->nroots++] = root.id;
	return 0;
}

/* From here on checkpoints hand us their deletions. */
static int clean_capture(struct vc_clean *c)
{
	struct vc_pool *pool = c->pool;
	uint8_t prefix = VC_ROW_IMAGE;
	struct vc_meta_txn *txn;
	int r;

	vc_mutex_lock(&pool->fold);
	c->next_node = vc_map_next_node(pool->map);
	r = vc_clean_set_init(&c->visited, c->next_node);
	if (r == 0)
		r = vc_clean_set_init(&c->shared, c->next_node);
	if (r == 0)
		r = vc_meta_read_begin(pool->meta, &txn);
	if (r == 0) {
		r = vc_meta_scan(txn, VC_DB_CAT, &prefix, 1, NULL, 0, capture_image, c);
		vc_meta_end(txn);
	}
	if (r == 0)
		r = vc_bases_each_root(&pool->bases, capture_root, c);
	vc_mutex_lock(&pool->lock);
	c->checkpoint_lsn = pool->checkpoint_lsn;
	if (r == 0)
		pool->clean = c;
	vc_mutex_unlock(&pool->lock);
	vc_mutex_unlock(&pool->fold);
	return r;
}

/* ---- figures and end ---- */

static int clean_put_exclusive(struct vc_clean *c, struct vc_meta_txn *txn, const struct clean_image *m)
{
	struct vc_disk_exclusive row = { .blocks = vc_le64_of(m->blocks), .bytes = vc_le64_of(m->bytes), .time_ns = vc_le64_of(c->now_ns) };
	const void *value;
	uint8_t key[9];
	size_t len;
	int r = vc_meta_get(txn, VC_DB_CAT, key, vc_row_key_ino(key, VC_ROW_IMAGE, m->ino), &value, &len);

	if (r == -ENOENT)
		return 0; /* deleted meanwhile */
	return r < 0 ? r : vc_meta_put(txn, VC_DB_CAT, key, vc_row_key_ino(key, VC_ROW_EXCLUSIVE, m->ino), &row, sizeof(row));
}

static int clean_figures(struct vc_clean *c)
{
	int r = 0;

	for (size_t i = 0; i < c->chunks_size; i++) {
		const struct clean_chunk *chunk = &c->chunks[i];

		if (chunk->entry && chunk->owner < c->nimages) {
			c->images[chunk->owner].blocks += chunk->blocks;
			c->images[chunk->owner].bytes += vc_entry_stored_guess(chunk->entry);
		}
	}
	for (size_t i = 0; i < c->nimages && r == 0;) {
		struct vc_meta_txn *txn = NULL;

		r = vc_pool_meta_begin(c->pool, 2 * VC_MIN(c->nimages - i, (size_t)CLEAN_SWEEP_BATCH), &txn);
		for (size_t k = 0; k < CLEAN_SWEEP_BATCH && i < c->nimages && r == 0; k++, i++)
			r = clean_put_exclusive(c, txn, &c->images[i]);
		if (r == 0)
			r = vc_meta_commit(txn);
		else if (txn)
			vc_meta_end(txn);
	}
	return r;
}

/* Deletions go on as usual after this. */
static int clean_finish(struct vc_clean *c)
{
	struct vc_pool *pool = c->pool;
	bool more = true;
	int r = 0;

	while (more) {
		uint64_t *ids;
		size_t n;

		vc_mutex_lock(&pool->fold);
		ids = c->deferred;
		n = c->ndeferred;
		c->deferred = NULL;
		c->ndeferred = c->deferred_cap = 0;
		more = n > 0 && r == 0;
		if (!more) {
			vc_mutex_lock(&pool->lock);
			pool->clean = NULL;
			vc_mutex_unlock(&pool->lock);
		}
		vc_mutex_unlock(&pool->fold);
		for (size_t i = 0; i < n && r == 0; i += CLEAN_SWEEP_BATCH)
			r = vc_clean_delete(c, ids + i, VC_MIN(n - i, (size_t)CLEAN_SWEEP_BATCH));
		free(ids);
	}
	return r;
}

static void clean_free(struct vc_clean *c)
{
	vc_clean_set_fini(&c->visited);
	vc_clean_set_fini(&c->shared);
	free(c->images);
	free(c->roots);
	free(c->chunks);
	free(c->todo);
	free(c->deferred);
	free(c);
}

static int clean_run(struct vc_clean *c)
{
	int r = clean_capture(c), finished;

	if (r < 0)
		return r;
	r = vc_clean_mark(c);
	if (r == 0)
		r = vc_clean_sweep(c);
	if (r == 0)
		r = clean_figures(c);
	finished = clean_finish(c);
	return r < 0 ? r : finished;
}

/* What was deleted and overwritten until now shall be free afterwards: it must have been checkpointed. */
static int clean_destage(struct vc_pool *pool)
{
	uint64_t id;
	int r;

	vc_pool_wait_reaped(pool);
	r = vc_pool_task_start(pool, VC_TASK_DESTAGE, &id);
	return r < 0 ? r : vc_pool_task_wait(pool, VC_TASK_DESTAGE, id);
}

static void *clean_thread(void *arg)
{
	struct vc_clean *c = arg;
	struct vc_pool *pool = c->pool;
	int r = clean_destage(pool);

	if (r == 0 || r == -ENOSPC) /* for want of space: what is checkpointed can be cleaned all the more */
		r = clean_run(c);
	vc_pool_check_space(pool, true); /* before who waits for this writes again */
	vc_mutex_lock(&pool->lock);
	pool->clean_task.status.running = 0;
	pool->clean_task.status.error = r;
	pool->clean_task.status.done = c->marked;
	pool->clean_task.status.total = c->marked;
	pool->clean_task.status.freed_nodes = c->freed_nodes;
	pool->clean_task.status.freed_segments = c->freed_segments;
	pool->clean_task.status.freed_bytes = c->freed_bytes;
	if (r == 0)
		pool->mark_ns = c->now_ns;
	vc_cond_broadcast(&pool->task_cond);
	vc_mutex_unlock(&pool->lock);
	clean_free(c);
	return NULL;
}

static int clean_launch(struct vc_pool *pool, struct vc_meta_stats *stats)
{
	struct vc_clean *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->pool = pool;
	c->now_ns = vc_now_ns();
	pool->clean_task.status = (struct vc_task_status){ .id = pool->clean_task.status.id + 1, .running = 1, .total = stats->nodes };
	if (pool->clean_joinable)
		pthread_join(pool->clean_thread, NULL);
	r = vc_thread_start(&pool->clean_thread, "vc-clean", clean_thread, c);
	pool->clean_joinable = r == 0;
	if (r < 0) {
		pool->clean_task.status.running = 0;
		free(c);
	}
	return r;
}

int vc_clean_start(struct vc_pool *pool, uint64_t *ret_id)
{
	struct vc_meta_stats stats;
	int r = vc_meta_stats(pool->meta, &stats);

	if (r < 0)
		return r;
	vc_mutex_lock(&pool->lock);
	if (!pool->clean_task.status.running && !pool->stopping)
		r = clean_launch(pool, &stats);
	*ret_id = pool->clean_task.status.id;
	vc_mutex_unlock(&pool->lock);
	return r;
}

bool vc_clean_running(struct vc_pool *pool) { return pool->clean != NULL; }

int vc_clean_defer(void *arg, uint64_t node_id)
{
	struct vc_pool *pool = arg;
	struct vc_clean *c = pool->clean;

	if (vc_array_room(&c->deferred, c->ndeferred, &c->deferred_cap, sizeof(*c->deferred)) < 0)
		return -ENOMEM;
	c->deferred[c->ndeferred++] = node_id;
	return 0;
}

size_t vc_clean_deferred(const struct vc_pool *pool) { return pool->clean ? pool->clean->ndeferred : 0; }

void vc_clean_undefer(struct vc_pool *pool, size_t n)
{
	if (pool->clean)
		pool->clean->ndeferred = n;
}

void vc_clean_stop(struct vc_pool *pool)
{
	bool join;

	vc_mutex_lock(&pool->lock);
	join = pool->clean_joinable;
	pool->clean_joinable = false;
	vc_mutex_unlock(&pool->lock);
	if (join)
		pthread_join(pool->clean_thread, NULL);
}
