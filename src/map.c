/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * map: reading block maps.
 *
 *   lookup -> root -> inner -> ... -> leaf        each step: the cache, or LMDB through one read transaction
 *
 * Invariants
 *   A1  Every node in the cache has passed vc_node_decode; readers take single fields out of it as it lies.
 *   A2  A reader begins at most one transaction, when the first node is missing, and ends it before it returns.
 *   A3  A node is used only at the level at which it was made; otherwise -EUCLEAN.
 *
 * No locks but those of the cache and of meta; a node being loaded is waited for by all who want it.
 */
#include "config.h"
#include "map.h"

#include <inttypes.h>
#include <stdlib.h>

#include "map_impl.h"
#include "msg.h"

int vc_map_open(const struct vc_map_params *params, struct vc_map **ret)
{
	struct vc_map *map = calloc(1, sizeof(*map));
	int r;

	if (!map)
		return -ENOMEM;
	map->meta = params->meta;
	atomic_init(&map->next_node, VC_MAX(params->next_node, UINT64_C(1)));
	r = vc_cache_open(params->cache_bytes, &map->cache);
	if (r < 0) {
		vc_map_close(map);
		return r;
	}
	*ret = map;
	return 0;
}

void vc_map_close(struct vc_map *map)
{
	if (!map)
		return;
	vc_cache_close(map->cache);
	free(map);
}

uint64_t vc_map_next_node(struct vc_map *map)
{
	return atomic_load(&map->next_node);
}

/* ---- nodes ---- */

static int node_fetch(struct vc_meta_txn *txn, uint64_t id, const void **ret_value, size_t *ret_len,
		      struct vc_node *node)
{
	int r;

	r = vc_meta_node_get(txn, id, ret_value, ret_len);
	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	r = vc_node_decode(*ret_value, *ret_len, node);
	if (r < 0)
		vc_err("map node %" PRIu64 ": not valid; run a check of the pool", id);
	return r;
}

int vc_map_node_read(struct vc_meta_txn *txn, uint64_t id, struct vc_node *ret)
{
	const void *value;
	size_t len;

	return node_fetch(txn, id, &value, &len, ret);
}

/** vc_cache_load_fn: runs without a lock. */
static int reader_load(void *ctx, uint64_t id, void **ret_buf, size_t *ret_len)
{
	struct vc_map_reader *reader = ctx;
	struct vc_node node;
	const void *value;
	size_t len;
	int r;

	if (!reader->txn) {
		r = vc_meta_read_begin(reader->map->meta, &reader->txn);
		if (r < 0)
			return r;
	}
	r = node_fetch(reader->txn, id, &value, &len, &node);
	if (r < 0)
		return r;
	*ret_buf = malloc(len);
	if (!*ret_buf)
		return -ENOMEM;
	memcpy(*ret_buf, value, len);
	*ret_len = len;
	return 0;
}

static int reader_fetch(struct vc_map_reader *reader, uint64_t id, struct vc_cache_ref *ret)
{
	void *copy;
	int r;

	if (!reader->borrowed)
		return vc_cache_get(reader->map->cache, id, reader_load, reader, ret);
	if (vc_cache_peek(reader->map->cache, id, ret))
		return 0;
	ret->entry = NULL;
	r = reader_load(reader, id, &copy, &ret->len);
	if (r == 0)
		ret->data = copy;
	return r;
}

int vc_map_reader_get(struct vc_map_reader *reader, uint64_t id, uint32_t level, struct vc_cache_ref *ret)
{
	struct vc_node_figures figures;
	int r;

	r = reader_fetch(reader, id, ret);
	if (r < 0)
		return r;
	figures = vc_node_figures(ret->data);
	if (figures.level != level) {
		vc_err("map node %" PRIu64 ": of level %" PRIu32 " where one of level %" PRIu32 " belongs", id, figures.level,
		       level);
		r = -EUCLEAN;
	} else if (reader->forbid_tag && figures.tag == reader->forbid_tag) {
		vc_err("map node %" PRIu64 ": is to be shared and freed at once", id);
		r = -EINVAL;
	}
	if (r < 0)
		vc_map_reader_put(reader, ret);
	return r;
}

void vc_map_reader_put(struct vc_map_reader *reader, struct vc_cache_ref *ref)
{
	if (ref->entry)
		vc_cache_put(reader->map->cache, ref);
	else
		free((void *)(uintptr_t)ref->data); /* a copy of our own: reader_fetch */
}

static void reader_end(struct vc_map_reader *reader)
{
	if (!reader->borrowed)
		vc_meta_end(reader->txn);
}

/* ---- lookup ---- */

/** Roots come from catalog rows: nothing is computed from an impossible height. */
static int root_check(struct vc_root root)
{
	if (root.height <= VC_HEIGHT_MAX && (root.id == 0) == (root.height == 0))
		return 0;
	vc_err("map root %" PRIu64 ": impossible height %" PRIu32, root.id, root.height);
	return -EUCLEAN;
}

int vc_map_reader_find(struct vc_map_reader *reader, struct vc_root root, uint64_t lba, uint32_t level, uint64_t *ret_id)
{
	struct vc_cache_ref ref;
	uint64_t id = root.id;
	int r;

	r = root_check(root);
	if (r < 0)
		return r;
	if (root.height <= level || lba >= vc_map_reach(root.height))
		id = 0;
	for (uint32_t l = root.height; id && --l > level;) {
		r = vc_map_reader_get(reader, id, l, &ref);
		if (r < 0)
			return r;
		id = vc_node_child(ref.data, vc_map_slot(lba, l));
		vc_map_reader_put(reader, &ref);
	}
	*ret_id = id;
	return 0;
}

/** Entries of n blocks inside one leaf. */
static int lookup_leaf(struct vc_map_reader *reader, struct vc_root root, uint64_t lba, uint64_t n, uint64_t *entries)
{
	struct vc_cache_ref ref;
	uint64_t id;
	int r;

	r = vc_map_reader_find(reader, root, lba, 0, &id);
	if (r < 0)
		return r;
	if (!id) {
		memset(entries, 0, n * sizeof(*entries));
		return 0;
	}
	r = vc_map_reader_get(reader, id, 0, &ref);
	if (r < 0)
		return r;
	vc_node_entries(ref.data, (uint32_t)(lba % VC_LEAF_BLOCKS), (uint32_t)n, entries);
	vc_map_reader_put(reader, &ref);
	return 0;
}

int vc_map_reader_lookup(struct vc_map_reader *reader, struct vc_root root, uint64_t lba, uint64_t n, uint64_t *entries)
{
	uint64_t part;
	int r;

	for (; n; n -= part, lba += part, entries += part) {
		part = VC_MIN(n, VC_LEAF_BLOCKS - lba % VC_LEAF_BLOCKS);
		r = lookup_leaf(reader, root, lba, part, entries);
		if (r < 0)
			return r;
	}
	return 0;
}

int vc_map_lookup(struct vc_map *map, struct vc_root root, uint64_t lba, uint64_t n, uint64_t *entries)
{
	struct vc_map_reader reader = { .map = map };
	int r;

	r = vc_map_reader_lookup(&reader, root, lba, n, entries);
	reader_end(&reader);
	return r;
}

/* ---- seek ---- */

/** What one descent looks for; pos moves up as parts are passed. */
struct map_seek {
	uint64_t pos, end;
	bool want_data;
};

static bool seek_leaf(const uint8_t *leaf, uint64_t base, struct map_seek *seek)
{
	uint64_t entries[VC_LEAF_BLOCKS];
	uint32_t first = (uint32_t)(seek->pos - base);
	uint64_t n = VC_MIN(VC_LEAF_BLOCKS - first, seek->end - seek->pos);

	vc_node_entries(leaf, first, (uint32_t)n, entries);
	for (uint32_t i = 0; i < n; i++) {
		if ((entries[i] != VC_ENTRY_HOLE) == seek->want_data) {
			seek->pos += i;
			return true;
		}
	}
	return false;
}

static int seek_node(struct vc_map_reader *reader, uint64_t id, uint32_t level, uint64_t base, struct map_seek *seek);

/** Children of an inner node from the one that holds seek->pos on. 1: found at seek->pos, 0: not in this node. */
static int seek_children(struct vc_map_reader *reader, const uint8_t *node, uint32_t level, uint64_t base,
			 struct map_seek *seek)
{
	uint64_t span = vc_map_span(level - 1), at, child;
	int r;

	for (uint32_t slot = vc_map_slot(seek->pos, level); slot < VC_FANOUT; slot++) {
		if (seek->want_data)
			slot = vc_node_next_child(node, slot);
		at = base + slot * span;
		if (slot == VC_FANOUT || at >= seek->end)
			return 0;
		seek->pos = VC_MAX(seek->pos, at);
		child = vc_node_child(node, slot);
		if (!child)
			return 1;
		r = seek_node(reader, child, level - 1, at, seek);
		if (r)
			return r;
	}
	return 0;
}

static int seek_node(struct vc_map_reader *reader, uint64_t id, uint32_t level, uint64_t base, struct map_seek *seek)
{
	struct vc_cache_ref ref;
	int r;

	r = vc_map_reader_get(reader, id, level, &ref);
	if (r < 0)
		return r;
	if (!seek->want_data && vc_node_figures(ref.data).mapped == vc_map_span(level))
		r = 0;
	else if (level == 0)
		r = seek_leaf(ref.data, base, seek);
	else
		r = seek_children(reader, ref.data, level, base, seek);
	vc_map_reader_put(reader, &ref);
	return r;
}

int vc_map_reader_seek(struct vc_map_reader *reader, struct vc_root root, uint64_t lba, uint64_t end, bool want_data,
		       uint64_t *ret_lba)
{
	struct map_seek seek = { .pos = lba, .want_data = want_data };
	uint64_t reach;
	int r;

	r = root_check(root);
	if (r < 0)
		return r;
	reach = vc_map_reach(root.height);
	seek.end = VC_MIN(end, reach);
	if (lba < seek.end) {
		r = seek_node(reader, root.id, root.height - 1, 0, &seek);
		if (r < 0)
			return r;
	}
	if (r)
		*ret_lba = seek.pos;
	else
		*ret_lba = want_data ? end : VC_MIN(end, VC_MAX(lba, reach));
	return 0;
}

int vc_map_seek(struct vc_map *map, struct vc_root root, uint64_t lba, uint64_t end, bool want_data, uint64_t *ret_lba)
{
	struct vc_map_reader reader = { .map = map };
	int r;

	r = vc_map_reader_seek(&reader, root, lba, end, want_data, ret_lba);
	reader_end(&reader);
	return r;
}

/* ---- figures ---- */

int vc_map_figures(struct vc_map *map, struct vc_root root, uint64_t tag, uint64_t *ret_mapped, uint64_t *ret_own)
{
	struct vc_map_reader reader = { .map = map };
	struct vc_node_figures figures = { 0 };
	struct vc_cache_ref ref;
	int r;

	r = root_check(root);
	if (r == 0 && root.id) {
		r = vc_map_reader_get(&reader, root.id, root.height - 1, &ref);
		if (r == 0) {
			figures = vc_node_figures(ref.data);
			vc_map_reader_put(&reader, &ref);
		}
		reader_end(&reader);
	}
	if (r < 0)
		return r;
	*ret_mapped = figures.mapped;
	*ret_own = figures.tag == tag ? figures.own : 0;
	return 0;
}
