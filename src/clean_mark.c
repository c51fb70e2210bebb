/* SPDX-License-Identifier: BSD-2-Clause */
/* clean_mark: what can be reached from the captured roots: a set of nodes, and of each chunk which image uses it. */
#include "config.h"

#include <stdlib.h>

#include "clean_impl.h"
#include "msg.h"

#define CLEAN_BATCH 256u           /* nodes per read transaction */
#define CLEAN_PAGE_BITS 32768u

/* ---- sets of nodes and chunks ---- */

int vc_clean_set_init(struct id_set *set, uint64_t end)
{
	set->npages = end / CLEAN_PAGE_BITS + 1;
	set->pages = calloc(set->npages, sizeof(uint64_t *));
	return set->pages ? 0 : -ENOMEM;
}

void vc_clean_set_fini(struct id_set *set)
{
	for (size_t i = 0; i < set->npages && set->pages; i++)
		free(set->pages[i]);
	free(set->pages);
}

bool vc_clean_set_has(const struct id_set *set, uint64_t id)
{
	const uint64_t *page = id / CLEAN_PAGE_BITS < set->npages ? set->pages[id / CLEAN_PAGE_BITS] : NULL;

	return page && (page[id % CLEAN_PAGE_BITS / 64] >> (id % 64) & 1);
}

static int set_add(struct id_set *set, uint64_t id)
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
	return id < c->next_node && (!vc_clean_set_has(&c->visited, id) || (shared && !vc_clean_set_has(&c->shared, id)));
}

static int mark_push(struct vc_clean *c, uint64_t id, bool shared)
{
	if (!mark_is_new(c, id, shared))
		return 0;
	if (vc_array_room(&c->todo, c->ntodo, &c->todo_cap, sizeof(*c->todo)) < 0)
		return -ENOMEM;
	c->todo[c->ntodo++] = (struct clean_todo){ id, shared };
	return 0;
}

static int mark_node(struct vc_clean *c, struct vc_meta_txn *txn, const struct clean_todo *t, bool tolerant)
{
	bool again = vc_clean_set_has(&c->visited, t->id);
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
		r = set_add(&c->visited, t->id);
	if (r == 0 && t->shared)
		r = set_add(&c->shared, t->id);
	c->marked += !again;
	for (unsigned int i = 0; i < VC_FANOUT && r == 0; i++) {
		uint64_t slot = node.slots[i];

		if (!slot)
			continue;
		if (node.kind == VC_NODE_INNER) /* a child that another image has reached already is shared */
			r = mark_push(c, slot, t->shared || (!again && vc_clean_set_has(&c->visited, slot)));
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

static int mark_all(struct vc_clean *c, bool tolerant)
{
	int r = 0;

	while (c->ntodo > 0 && r == 0) {
		struct vc_meta_txn *txn;

		if (vc_clean_must_stop(c))
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

int vc_clean_mark(struct vc_clean *c)
{
	uint64_t ahead = 0;
	int r = 0;

	while (vc_meta_read_ahead(c->pool->meta, &ahead) && !vc_clean_must_stop(c))
		;
	for (size_t i = 0; i < c->nimages && r == 0; i++) {
		uint64_t root = c->images[i].root.id;

		c->owner = (uint32_t)i;
		if (root)
			r = mark_push(c, root, vc_clean_set_has(&c->visited, root));
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
