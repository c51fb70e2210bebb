/* SPDX-License-Identifier: BSD-2-Clause */
/* clean_sweep: deletes the nodes and the chunk segments that the mark did not reach. */
#include "config.h"

#include <stdlib.h>

#include "clean_impl.h"

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
	if (!vc_clean_set_has(&s->clean->visited, id))
		s->ids[s->n++] = id;
	return 0;
}

int vc_clean_delete(struct vc_clean *c, const uint64_t *ids, size_t n)
{
	struct vc_meta_txn *txn;
	int r;

	if (n == 0)
		return 0;
	r = vc_pool_meta_begin(c->pool, 2 * n, &txn);
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

		if (vc_clean_must_stop(c)) {
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
			r = vc_clean_delete(c, s.ids, s.n);
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
	if (vc_array_room(&s->dead, s->ndead, &s->cap, sizeof(*s->dead)) < 0)
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
	int r = vc_pool_meta_begin(c->pool, 2 * s->ndead, &txn);

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

int vc_clean_sweep(struct vc_clean *c)
{
	int r = sweep_nodes(c);

	return r < 0 ? r : sweep_chunk_segments(c);
}
