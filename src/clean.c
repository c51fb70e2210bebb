/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * clean: mark and sweep, the only thing that frees what images share (I3, I4).
 *
 *   capture G   under the fold lock: next node id, checkpoint LSN, the root of every image, of every view in memory
 *   mark        walk from the roots in short read transactions; nothing reachable at G can change or go meanwhile,
 *               because nodes are immutable and checkpoints hand their deletions to us
 *   sweep       nodes below G's next id that were not visited; segments that were sealed, hold nothing above G's
 *               checkpoint, and in which no chunk was visited
 *   finish      deletions that checkpoints handed over; figures of each image
 *
 * On the way the mark learns which chunks only one image uses. A node is descended into once for the first image that has it, and once
 * more when a second image turns out to have it too; from then on everything below is shared.
 */
#include "config.h"

#include <stdlib.h>

#include "msg.h"
#include "pool_impl.h"

#define CLEAN_BATCH 256u           /* nodes per read transaction */
#define CLEAN_SWEEP_BATCH 10000u   /* deletions per write transaction */
#define CLEAN_PAGE_BITS 32768u

#define OWNER_SHARED UINT32_MAX

/* A sparse set of node ids. */
struct id_set {
	uint64_t **pages;
	size_t npages;
};

struct clean_image {
	uint64_t ino;
	struct vc_root root;
	uint64_t blocks, bytes; /* exclusive */
};

struct clean_chunk {
	uint64_t entry; /* of block 0; 0: free place */
	uint32_t owner; /* index of the image, or OWNER_SHARED */
	uint32_t blocks;
};

struct clean_todo {
	uint64_t id;
	bool shared;
};

struct vc_clean {
	struct vc_pool *pool;
	uint64_t next_node, checkpoint_lsn, now_ns;
	struct clean_image *images;
	size_t nimages, images_cap;
	uint64_t *roots; /* of views in memory */
	size_t nroots, roots_cap;
	struct id_set visited, shared;
	struct clean_chunk *chunks;
	size_t chunks_size, nchunks;
	struct clean_todo *todo;
	size_t ntodo, todo_cap;
	uint32_t owner;
	uint64_t *deferred; /* by the fold lock */
	size_t ndeferred, deferred_cap;
	uint64_t freed_nodes, freed_segments, freed_bytes, marked;
};

/* ---- small containers ---- */

static int array_room(void *array_ptr, size_t n, size_t *cap, size_t size)
{
	void **array = array_ptr;
	size_t want = *cap ? *cap * 2 : 64;
	void *grown;

	if (n < *cap)
		return 0;
	grown = realloc(*array, want * size);
	if (!grown)
		return -ENOMEM;
	*array = grown;
	*cap = want;
	return 0;
}

static int id_set_init(struct id_set *set, uint64_t end)
{
	set->npages = end / CLEAN_PAGE_BITS + 1;
	set->pages = calloc(set->npages, sizeof(uint64_t *));
	return set->pages ? 0 : -ENOMEM;
}

static void id_set_fini(struct id_set *set)
{
	for (size_t i = 0; i < set->npages && set->pages; i++)
		free(set->pages[i]);
	free(set->pages);
}

static bool id_set_has(const struct id_set *set, uint64_t id)
{
	const uint64_t *page = id / CLEAN_PAGE_BITS < set->npages ? set->pages[id / CLEAN_PAGE_BITS] : NULL;

	return page && (page[id % CLEAN_PAGE_BITS / 64] >> (id % 64) & 1);
}

static int id_set_add(struct id_set *set, uint64_t id)
{
	uint64_t **page = &set->pages[id / CLEAN_PAGE_BITS];

	if (!*page)
		*page = calloc(CLEAN_PAGE_BITS / 64, sizeof(uint64_t));
	if (!*page)
		return -ENOMEM;
	(*page)[id % CLEAN_PAGE_BITS / 64] |= UINT64_C(1) << (id % 64);
	return 0;
}

static struct clean_chunk *chunk_place(struct clean_chunk *table, size_t size, uint64_t entry)
{
	size_t i = (size_t)(entry * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (size - 1);

	while (table[i].entry && table[i].entry != entry)
		i = (i + 1) & (size - 1);
	return &table[i];
}

static int chunk_grow(struct vc_clean *c)
{
	size_t size = c->chunks_size ? c->chunks_size * 2 : 4096;
	struct clean_chunk *table;

	if ((c->nchunks + 1) * 4 <= c->chunks_size * 3)
		return 0;
	table = calloc(size, sizeof(*table));
	if (!table)
		return -ENOMEM;
	for (size_t i = 0; i < c->chunks_size; i++)
		if (c->chunks[i].entry)
			*chunk_place(table, size, c->chunks[i].entry) = c->chunks[i];
	free(c->chunks);
	c->chunks = table;
	c->chunks_size = size;
	return 0;
}

/* ---- capture ---- */

static int capture_image(void *ctx, const void *key, size_t key_len, const void *value, size_t len)
{
	struct vc_clean *c = ctx;
	struct vc_disk_image d;

	if (key_len != 9 || len != sizeof(d) || array_room(&c->images, c->nimages, &c->images_cap, sizeof(*c->images)) < 0)
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
	if (array_room(&c->roots, c->nroots, &c->roots_cap, sizeof(*c->roots)) < 0)
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
	r = id_set_init(&c->visited, c->next_node);
	if (r == 0)
		r = id_set_init(&c->shared, c->next_node);
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

/* ---- mark ---- */

static int mark_chunk(struct vc_clean *c, uint64_t entry, bool shared)
{
	struct clean_chunk *chunk;

	if (chunk_grow(c) < 0)
		return -ENOMEM;
	chunk = chunk_place(c->chunks, c->chunks_size, vc_entry_chunk(entry));
	if (!chunk->entry) {
		chunk->entry = vc_entry_chunk(entry);
		chunk->owner = shared ? OWNER_SHARED : c->owner;
		c->nchunks++;
	} else if (shared || chunk->owner != c->owner) {
		chunk->owner = OWNER_SHARED;
	}
	chunk->blocks++;
	return 0;
}

/* Does this node still have to be descended into? */
static bool mark_is_new(const struct vc_clean *c, uint64_t id, bool shared)
{
	return id < c->next_node && (!id_set_has(&c->visited, id) || (shared && !id_set_has(&c->shared, id)));
}

static int mark_push(struct vc_clean *c, uint64_t id, bool shared)
{
	if (!mark_is_new(c, id, shared))
		return 0;
	if (array_room(&c->todo, c->ntodo, &c->todo_cap, sizeof(*c->todo)) < 0)
		return -ENOMEM;
	c->todo[c->ntodo++] = (struct clean_todo){ id, shared };
	return 0;
}

static int mark_node(struct vc_clean *c, struct vc_meta_txn *txn, const struct clean_todo *t, bool tolerant)
{
	bool again = id_set_has(&c->visited, t->id);
	struct vc_node node;
	int r;

	if (!mark_is_new(c, t->id, t->shared))
		return 0;
	r = vc_map_node_read(txn, t->id, &node);
	if (r == -ESTALE && tolerant)
		return 0;
	if (r == -ESTALE)
		vc_err("map node %llu is missing: nothing is cleaned; run vclone check", (unsigned long long)t->id);
	if (r == 0)
		r = id_set_add(&c->visited, t->id);
	if (r == 0 && t->shared)
		r = id_set_add(&c->shared, t->id);
	c->marked += !again;
	for (unsigned int i = 0; i < VC_FANOUT && r == 0; i++) {
		uint64_t slot = node.slots[i];

		if (!slot)
			continue;
		if (node.kind == VC_NODE_INNER) /* a child that another image has reached already is shared */
			r = mark_push(c, slot, t->shared || (!again && id_set_has(&c->visited, slot)));
		else
			r = mark_chunk(c, slot, t->shared);
	}
	return r;
}

static void mark_progress(struct vc_clean *c)
{
	vc_mutex_lock(&c->pool->lock);
	c->pool->clean_task.status.done = c->marked;
	vc_mutex_unlock(&c->pool->lock);
}

static bool clean_must_stop(struct vc_clean *c)
{
	bool stop;

	vc_mutex_lock(&c->pool->lock);
	stop = c->pool->stopping;
	vc_mutex_unlock(&c->pool->lock);
	return stop || atomic_load(&c->pool->failed);
}

static int mark_all(struct vc_clean *c, bool tolerant)
{
	int r = 0;

	while (c->ntodo > 0 && r == 0) {
		struct vc_meta_txn *txn;

		if (clean_must_stop(c))
			return -EINTR;
		r = vc_meta_read_begin(c->pool->meta, &txn);
		if (r < 0)
			return r;
		for (unsigned int i = 0; i < CLEAN_BATCH && c->ntodo > 0 && r == 0; i++) {
			struct clean_todo t = c->todo[--c->ntodo];

			r = mark_node(c, txn, &t, tolerant);
		}
		vc_meta_end(txn);
		mark_progress(c);
	}
	return r;
}

static int clean_mark(struct vc_clean *c)
{
	int r = 0;

	for (size_t i = 0; i < c->nimages && r == 0; i++) {
		uint64_t root = c->images[i].root.id;

		c->owner = (uint32_t)i;
		if (root)
			r = mark_push(c, root, id_set_has(&c->visited, root));
		if (r == 0)
			r = mark_all(c, false);
	}
	c->owner = OWNER_SHARED - 1; /* views: in use by somebody, for a moment */
	for (size_t i = 0; i < c->nroots && r == 0; i++) {
		r = mark_push(c, c->roots[i], false);
		if (r == 0)
			r = mark_all(c, true);
	}
	return r;
}

/* ---- sweep ---- */

struct sweep_ids {
	struct vc_clean *clean;
	uint64_t *ids;
	size_t n;
	uint64_t from;
};

static int sweep_collect(void *ctx, const void *key, size_t key_len, const void *value, size_t len)
{
	struct sweep_ids *s = ctx;
	uint64_t id = vc_be64_at(key);

	(void)value;
	(void)len;
	if (key_len != 8)
		return -EUCLEAN;
	if (id >= s->clean->next_node || s->n == CLEAN_SWEEP_BATCH)
		return 1;
	s->from = id + 1;
	if (!id_set_has(&s->clean->visited, id))
		s->ids[s->n++] = id;
	return 0;
}

static int clean_delete(struct vc_clean *c, const uint64_t *ids, size_t n)
{
	struct vc_meta_txn *txn;
	int r;

	if (n == 0)
		return 0;
	r = vc_meta_write_begin(c->pool->meta, &txn);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n && r == 0; i++) {
		r = vc_meta_node_del(txn, ids[i]);
		if (r == -ENOENT)
			r = 0;
		else
			c->freed_nodes++;
	}
	if (r == 0)
		return vc_meta_commit(txn);
	vc_meta_end(txn);
	return r;
}

static int sweep_nodes(struct vc_clean *c)
{
	struct sweep_ids s = { .clean = c, .ids = malloc(CLEAN_SWEEP_BATCH * sizeof(uint64_t)) };
	bool more = true;
	int r = s.ids ? 0 : -ENOMEM;

	while (more && r == 0) {
		struct vc_meta_txn *txn;
		uint8_t from[8];

		if (clean_must_stop(c)) {
			r = -EINTR;
			break;
		}
		s.n = 0;
		vc_be64_put(from, s.from);
		r = vc_meta_read_begin(c->pool->meta, &txn);
		if (r < 0)
			break;
		r = vc_meta_scan(txn, VC_DB_NODE, NULL, 0, from, sizeof(from), sweep_collect, &s);
		vc_meta_end(txn);
		more = r == 1 && s.n == CLEAN_SWEEP_BATCH;
		if (r >= 0)
			r = clean_delete(c, s.ids, s.n);
	}
	free(s.ids);
	return r;
}

struct sweep_segments {
	struct vc_clean *clean;
	struct vc_chunk_segment_info *dead;
	size_t ndead, cap;
	const uint64_t *live; /* sorted numbers of segments with a visited chunk */
	size_t nlive;
};

static int u64_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int sweep_segment(void *ctx, const struct vc_chunk_segment_info *info)
{
	struct sweep_segments *s = ctx;

	if (!info->sealed || info->max_lsn > s->clean->checkpoint_lsn ||
	    (s->nlive && bsearch(&info->segno, s->live, s->nlive, sizeof(uint64_t), u64_compare)))
		return 0;
	if (array_room(&s->dead, s->ndead, &s->cap, sizeof(*s->dead)) < 0)
		return -ENOMEM;
	s->dead[s->ndead++] = *info;
	return 0;
}

static int clean_live_segments(const struct vc_clean *c, uint64_t **ret, size_t *ret_n)
{
	uint64_t *live = malloc((c->nchunks + 1) * sizeof(*live));
	size_t n = 0, kept = 0;

	if (!live)
		return -ENOMEM;
	for (size_t i = 0; i < c->chunks_size; i++)
		if (c->chunks[i].entry)
			live[n++] = vc_entry_segno(c->chunks[i].entry);
	if (n)
		qsort(live, n, sizeof(*live), u64_compare);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || live[i] != live[i - 1])
			live[kept++] = live[i];
	*ret = live;
	*ret_n = kept;
	return 0;
}

/* Rows first, files after the commit: a crash between leaves files that the next clean finds again. */
static int sweep_forget_rows(struct vc_clean *c, const struct sweep_segments *s)
{
	struct vc_meta_txn *txn;
	uint8_t key[9];
	int r = vc_meta_write_begin(c->pool->meta, &txn);

	if (r < 0)
		return r;
	for (size_t i = 0; i < s->ndead && r == 0; i++) {
		r = vc_meta_del(txn, VC_DB_CAT, key, vc_row_key_ino(key, VC_ROW_SEGMENT, s->dead[i].segno));
		r = r == -ENOENT ? 0 : r;
	}
	if (r == 0)
		return vc_meta_commit(txn);
	vc_meta_end(txn);
	return r;
}

static int sweep_chunk_segments(struct vc_clean *c)
{
	struct sweep_segments s = { .clean = c };
	uint64_t *live = NULL;
	int r = clean_live_segments(c, &live, &s.nlive);

	s.live = live;
	if (r == 0)
		r = vc_chunk_each_segment(c->pool->chunks, sweep_segment, &s);
	if (r == 0 && s.ndead)
		r = sweep_forget_rows(c, &s);
	for (size_t i = 0; i < s.ndead && r == 0; i++) {
		r = vc_chunk_remove_segment(c->pool->chunks, s.dead[i].segno);
		if (r == 0) {
			c->freed_segments++;
			c->freed_bytes += s.dead[i].used;
		}
		r = r == -EBUSY || r == -ENOENT ? 0 : r;
	}
	free(s.dead);
	free(live);
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

		r = vc_meta_write_begin(c->pool->meta, &txn);
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
			r = clean_delete(c, ids + i, VC_MIN(n - i, (size_t)CLEAN_SWEEP_BATCH));
		free(ids);
	}
	return r;
}

static void clean_free(struct vc_clean *c)
{
	id_set_fini(&c->visited);
	id_set_fini(&c->shared);
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
	r = clean_mark(c);
	if (r == 0)
		r = sweep_nodes(c);
	if (r == 0)
		r = sweep_chunk_segments(c);
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

	if (array_room(&c->deferred, c->ndeferred, &c->deferred_cap, sizeof(*c->deferred)) < 0)
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
