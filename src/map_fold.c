/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * map_fold: apply a sorted batch of changes to a tree by writing new nodes from the leaves up to a new root.
 *
 *   fold_subtree: one old node (or none) and the changes that touch its range  ->  one new node (or none, or the old one)
 *     whole range covered by one ZERO, or by a SHARE of an aligned subtree   its header is read, its children are not
 *     leaf                                                                   decoded, changed, written
 *     inner                                                                  the same for each child that is touched
 *
 * A tree that must grow is folded from its new top: above the old root lie nodes that exist only here ("virtual", range
 * starts at 0, level at or above the old height). Their only old child is the old root, carried down under its own id until
 * the level where it lies. Growth is decided beforehand and exactly, so a virtual node always gets written.
 *
 * Invariants
 *   F1  mapped of a new node = sum over its children; own = the same over children made under the new tag (a
 *       leaf: its own bits). Both are kept by differences, so only touched children are read. This asks of
 *       the caller what I2 promises: below a node of another tag no node carries the new one.
 *   F2  A node is written only if it differs from the old one, and only if it maps something.
 *   F3  A replaced node is deleted (or deferred) if and only if its tag is dead_tag. A subtree that goes whole loses its top
 *       node this way; what is below it waits for a mark.
 *   F4  Ids ascend in the order of writing: LMDB appends.
 *   F5  A source node of dead_tag is refused, and so is sharing one of new_tag: it would be freed, or counted, as ours alone.
 *
 * Memory: one decoded node for each level (about 2 KiB each). No locks; the caller's write transaction.
 */
#include "config.h"
#include "map.h"

#include <inttypes.h>

#include "map_impl.h"
#include "msg.h"

struct fold_state {
	struct vc_map *map;
	struct vc_meta_txn *txn;
	const struct vc_fold *fold;
	struct vc_map_reader source; /* reads through txn */
};

/** The range of one node and the changes lo .. hi - 1, all of which touch it; the first and last may reach beyond. */
struct fold_range {
	uint64_t base;
	uint32_t level;
	size_t lo, hi;
};

/** What a subtree adds to its parent. */
struct fold_part {
	uint64_t id;     /* 0: nothing mapped */
	uint64_t mapped;
	uint64_t own;    /* blocks owned under the new tag */
};

struct fold_result {
	struct fold_part was, now;
};

/* ---- checking the caller ---- */

static bool change_ok(const struct vc_change *c)
{
	if (c->nblocks == 0 || c->lba >= VC_IMAGE_BLOCKS_MAX || c->nblocks > VC_IMAGE_BLOCKS_MAX - c->lba)
		return false;
	switch (c->kind) {
	case VC_CHANGE_SET:
		return vc_entry_segno(c->entry) != 0 && !(c->entry >> (VC_ENTRY_BITS - 1)) &&
		       vc_entry_block(c->entry) + c->nblocks <= VC_CHUNK_BLOCKS_MAX;
	case VC_CHANGE_ZERO:
		return true;
	case VC_CHANGE_SHARE:
		return c->src_lba < VC_IMAGE_BLOCKS_MAX && c->nblocks <= VC_IMAGE_BLOCKS_MAX - c->src_lba &&
		       c->src.height <= VC_HEIGHT_MAX && (c->src.id == 0) == (c->src.height == 0);
	}
	return false;
}

static int fold_check(const struct vc_fold *fold)
{
	uint64_t end = 0;

	for (size_t i = 0; i < fold->nchanges; i++) {
		const struct vc_change *c = &fold->changes[i];

		if (!change_ok(c) || c->lba < end) {
			vc_err("fold: change %zu of %zu is not valid: kind %d, block %" PRIu64 ", %" PRIu64 " blocks", i,
			       fold->nchanges, (int)c->kind, c->lba, c->nblocks);
			return -EINVAL;
		}
		end = c->lba + c->nblocks;
	}
	return 0;
}

/* ---- nodes ---- */

static bool fold_virtual(const struct fold_state *s, const struct fold_range *at)
{
	return s->fold->root.id && at->base == 0 && at->level >= s->fold->root.height;
}

/** Level at which the old node of this range lies: that of the old root when the range is virtual. */
static uint32_t fold_old_level(const struct fold_state *s, const struct fold_range *at)
{
	return fold_virtual(s, at) ? s->fold->root.height - 1 : at->level;
}

static struct fold_part fold_part_of(const struct fold_state *s, uint64_t id, const struct vc_node *node)
{
	bool ours = s->fold->new_tag && node->tag == s->fold->new_tag;

	return (struct fold_part){ .id = id, .mapped = node->mapped, .own = ours ? node->own : 0 };
}

/** A node of the tree being folded. That it is missing is damage: the caller holds the write transaction. */
static int fold_read(const struct fold_state *s, uint64_t id, uint32_t level, struct vc_node *ret)
{
	int r;

	r = vc_map_node_read(s->txn, id, ret);
	if (r == 0 && ret->level == level)
		return 0;
	if (r < 0 && r != -ESTALE)
		return r;
	vc_err("map node %" PRIu64 ": %s; run a check of the pool", id, r < 0 ? "missing" : "of the wrong level");
	return -EUCLEAN;
}

static int fold_write(struct fold_state *s, const struct vc_node *node, uint64_t *ret_id)
{
	uint8_t buf[VC_NODE_VALUE_MAX];
	uint64_t id = atomic_fetch_add(&s->map->next_node, 1);

	if (id > VC_NODE_ID_MAX) {
		vc_err("map: no node ids are left");
		return -ENOSPC;
	}
	*ret_id = id;
	return vc_meta_node_put(s->txn, id, buf, vc_node_encode(node, buf));
}

/** Node `id` is in the tree no more (F3). */
static int fold_replaced(struct fold_state *s, uint64_t id, uint64_t tag)
{
	const struct vc_fold *fold = s->fold;

	if (!tag || tag != fold->dead_tag)
		return 0;
	if (fold->defer_delete)
		return fold->defer_delete(fold->defer_ctx, id);
	vc_cache_drop(s->map->cache, id);
	return vc_meta_node_del(s->txn, id);
}

/** Finish a changed node: write it if it maps anything; the old one, if there was one, is replaced. */
static int fold_finish(struct fold_state *s, const struct vc_node *node, uint64_t old_id, uint64_t old_tag,
		       struct fold_part *ret_now)
{
	uint64_t id = 0;
	int r = 0;

	if (node->mapped)
		r = fold_write(s, node, &id);
	if (r == 0 && old_id)
		r = fold_replaced(s, old_id, old_tag);
	if (r == 0)
		*ret_now = id ? fold_part_of(s, id, node) : (struct fold_part){ 0 };
	return r;
}

/* ---- a whole subtree at once ---- */

/** Put `now` in the place of the old node, reading no more of it than its header. */
static int fold_replace_whole(struct fold_state *s, uint64_t old_id, const struct fold_range *at, struct fold_part now,
			      struct fold_result *ret)
{
	struct vc_node old;
	int r;

	ret->was = (struct fold_part){ 0 };
	ret->now = now;
	if (!old_id)
		return 0;
	r = fold_read(s, old_id, fold_old_level(s, at), &old);
	if (r < 0)
		return r;
	ret->was = fold_part_of(s, old_id, &old);
	return fold_replaced(s, old_id, old.tag);
}

/** A missing source node is damage too, or the caller's mistake; there is no newer root to start from. */
static int fold_source_errno(const struct fold_state *s, int r)
{
	if (r != -ESTALE)
		return r;
	vc_err("fold: a node of a tree to be shared is missing (folding onto root %" PRIu64 ")", s->fold->root.id);
	return -EUCLEAN;
}

static int fold_source_part(struct fold_state *s, uint64_t id, uint32_t level, struct fold_part *ret)
{
	struct vc_node_figures figures;
	struct vc_cache_ref ref;
	int r;

	r = vc_map_reader_get(&s->source, id, level, &ref);
	if (r < 0)
		return fold_source_errno(s, r);
	figures = vc_node_figures(ref.data);
	vc_map_reader_put(&s->source, &ref);
	if (s->fold->new_tag && figures.tag == s->fold->new_tag) {
		vc_err("fold: node %" PRIu64 " of a source carries the new tag", id);
		return -EINVAL;
	}
	*ret = (struct fold_part){ .id = id, .mapped = figures.mapped };
	return 0;
}

static int fold_source_empty(struct fold_state *s, struct vc_root src, uint64_t lba, uint64_t nblocks, bool *ret)
{
	uint64_t at;
	int r;

	r = vc_map_reader_seek(&s->source, src, lba, lba + nblocks, true, &at);
	if (r < 0)
		return fold_source_errno(s, r);
	*ret = at == lba + nblocks;
	return 0;
}

/** SHARE over the whole range. Returns 1 when done, 0 when it has to be done piece by piece. */
static int fold_share_whole(struct fold_state *s, uint64_t old_id, const struct fold_range *at,
			    const struct vc_change *c, struct fold_result *ret)
{
	uint64_t span = vc_map_span(at->level), src_lba = c->src_lba + (at->base - c->lba), id;
	struct fold_part now = { 0 };
	bool empty = false;
	int r = 0;

	if (src_lba % span == 0 && at->level < c->src.height) {
		r = vc_map_reader_find(&s->source, c->src, src_lba, at->level, &id);
		if (r < 0)
			return fold_source_errno(s, r);
		if (id)
			r = fold_source_part(s, id, at->level, &now);
	} else if (at->level > 0 || !c->src.id) {
		r = fold_source_empty(s, c->src, src_lba, span, &empty);
		if (r == 0 && !empty)
			return 0;
	} else {
		return 0;
	}
	if (r == 0)
		r = fold_replace_whole(s, old_id, at, now, ret);
	return r < 0 ? r : 1;
}

/** Is the range covered by one change that replaces it without looking at its children? 1: done, 0: no. */
static int fold_whole(struct fold_state *s, uint64_t old_id, const struct fold_range *at, struct fold_result *ret)
{
	const struct vc_change *c = &s->fold->changes[at->lo];
	uint64_t end = at->base + vc_map_span(at->level);
	int r;

	if (at->hi - at->lo != 1)
		return 0;
	if (!old_id && c->kind == VC_CHANGE_ZERO) {
		*ret = (struct fold_result){ 0 };
		return 1;
	}
	if (c->lba > at->base || c->lba + c->nblocks < end)
		return 0;
	switch (c->kind) {
	case VC_CHANGE_SET:
		return 0;
	case VC_CHANGE_SHARE:
		return fold_share_whole(s, old_id, at, c, ret);
	case VC_CHANGE_ZERO:
		break;
	}
	r = fold_replace_whole(s, old_id, at, (struct fold_part){ 0 }, ret);
	return r < 0 ? r : 1;
}

/* ---- leaves ---- */

/** A leaf being changed. */
struct fold_leaf {
	struct vc_node node;
	bool changed;
};

static void leaf_put(struct fold_leaf *leaf, uint32_t block, uint64_t entry, bool own)
{
	uint8_t *bits = &leaf->node.own_bits[block / 8], bit = (uint8_t)(1u << (block % 8));
	bool was_own = *bits & bit;

	if (leaf->node.slots[block] == entry && was_own == own)
		return;
	leaf->changed = true;
	leaf->node.mapped += (entry != VC_ENTRY_HOLE) - (uint64_t)(leaf->node.slots[block] != VC_ENTRY_HOLE);
	leaf->node.own += own - (uint64_t)was_own;
	leaf->node.slots[block] = entry;
	*bits = (uint8_t)(own ? *bits | bit : *bits & ~bit);
}

/** Blocks first .. first + n - 1 of the leaf at `base` become what change c says. */
static int leaf_apply(struct fold_state *s, struct fold_leaf *leaf, uint64_t base, const struct vc_change *c,
		      uint32_t first, uint32_t n)
{
	uint64_t entries[VC_LEAF_BLOCKS] = { 0 };
	uint64_t skip = base + first - c->lba;
	bool own = c->kind == VC_CHANGE_SET && s->fold->new_tag;
	int r = 0;

	if (c->kind == VC_CHANGE_SHARE)
		r = vc_map_reader_lookup(&s->source, c->src, c->src_lba + skip, n, entries);
	if (r < 0)
		return fold_source_errno(s, r);
	for (uint32_t i = 0; i < n; i++)
		leaf_put(leaf, first + i, c->kind == VC_CHANGE_SET ? c->entry + skip + i : entries[i], own);
	return 0;
}

/** Read the old leaf, or begin an empty one, and make it ours. */
static int leaf_begin(struct fold_state *s, uint64_t old_id, struct fold_leaf *leaf, uint64_t *ret_old_tag,
		      struct fold_part *ret_was)
{
	struct vc_node *node = &leaf->node;
	int r;

	leaf->changed = false;
	if (old_id) {
		r = fold_read(s, old_id, 0, node);
		if (r < 0)
			return r;
	} else {
		memset(node, 0, sizeof(*node));
	}
	*ret_was = fold_part_of(s, old_id, node);
	*ret_old_tag = node->tag;
	if (!s->fold->new_tag || node->tag != s->fold->new_tag) {
		memset(node->own_bits, 0, sizeof(node->own_bits));
		node->own = 0;
	}
	node->tag = s->fold->new_tag;
	return 0;
}

static int fold_leaf(struct fold_state *s, uint64_t old_id, const struct fold_range *at, struct fold_result *ret)
{
	struct fold_leaf leaf;
	uint64_t old_tag;
	int r;

	r = leaf_begin(s, old_id, &leaf, &old_tag, &ret->was);
	if (r < 0)
		return r;
	for (size_t i = at->lo; i < at->hi; i++) {
		const struct vc_change *c = &s->fold->changes[i];
		uint64_t start = VC_MAX(c->lba, at->base);
		uint64_t end = VC_MIN(c->lba + c->nblocks, at->base + VC_LEAF_BLOCKS);

		r = leaf_apply(s, &leaf, at->base, c, (uint32_t)(start - at->base), (uint32_t)(end - start));
		if (r < 0)
			return r;
	}
	if (leaf.changed)
		return fold_finish(s, &leaf.node, old_id, old_tag, &ret->now);
	ret->now = ret->was;
	return 0;
}

/* ---- inner nodes ---- */

static int fold_subtree(struct fold_state *s, uint64_t old_id, const struct fold_range *at, struct fold_result *ret);

/** An inner node being changed. */
struct fold_inner {
	struct vc_node node;
	bool changed;
};

/** Begin with the old node, with an empty one, or, in a virtual range, with one above the old root. */
static int inner_begin(struct fold_state *s, uint64_t old_id, const struct fold_range *at, struct fold_inner *inner,
		       uint64_t *ret_old_tag, struct fold_part *ret_was)
{
	struct vc_node *node = &inner->node;
	int r;

	inner->changed = fold_virtual(s, at);
	if (old_id) {
		r = fold_read(s, old_id, fold_old_level(s, at), node);
		if (r < 0)
			return r;
	} else {
		memset(node, 0, sizeof(*node));
	}
	*ret_was = fold_part_of(s, old_id, node);
	*ret_old_tag = node->tag;
	if (inner->changed) {
		memset(node->slots, 0, sizeof(node->slots));
		node->slots[0] = old_id;
	}
	node->level = at->level;
	node->own = ret_was->own;
	node->tag = s->fold->new_tag;
	return 0;
}

static int inner_child(struct fold_state *s, struct fold_inner *inner, uint32_t slot, const struct fold_range *child)
{
	struct vc_node *node = &inner->node;
	struct fold_result result;
	int r;

	r = fold_subtree(s, node->slots[slot], child, &result);
	if (r < 0)
		return r;
	if (result.now.id == node->slots[slot])
		return 0;
	inner->changed = true;
	node->slots[slot] = result.now.id;
	node->mapped += result.now.mapped - result.was.mapped;
	node->own += result.now.own - result.was.own;
	return 0;
}

/** First change at or after `i` that begins at or beyond block `end`. */
static size_t changes_before(const struct fold_state *s, size_t i, size_t hi, uint64_t end)
{
	while (i < hi && s->fold->changes[i].lba < end)
		i++;
	return i;
}

/** Fold every child that a change touches, and child 0 of a virtual node in any case: the old root is in it. */
static int inner_children(struct fold_state *s, struct fold_inner *inner, const struct fold_range *at)
{
	const struct vc_change *changes = s->fold->changes;
	uint64_t pos = at->base, span = vc_map_span(at->level - 1);
	bool first = fold_virtual(s, at);
	size_t i = at->lo;
	int r;

	while (first || (i < at->hi && pos < at->base + vc_map_span(at->level))) {
		uint64_t start = first ? pos : VC_MAX(pos, changes[i].lba);
		struct fold_range child = {
			.base = VC_ROUND_DOWN(start, span),
			.level = at->level - 1,
			.lo = i,
		};

		pos = child.base + span;
		child.hi = changes_before(s, i, at->hi, pos);
		r = inner_child(s, inner, vc_map_slot(child.base, at->level), &child);
		if (r < 0)
			return r;
		i = child.hi;
		if (i > child.lo && changes[i - 1].lba + changes[i - 1].nblocks > pos)
			i--; /* goes on in the next child */
		first = false;
	}
	return 0;
}

static int fold_inner(struct fold_state *s, uint64_t old_id, const struct fold_range *at, struct fold_result *ret)
{
	struct fold_inner inner;
	uint64_t old_tag;
	int r;

	r = inner_begin(s, old_id, at, &inner, &old_tag, &ret->was);
	if (r == 0)
		r = inner_children(s, &inner, at);
	if (r < 0)
		return r;
	if (inner.changed) /* the node under a virtual one is not replaced here */
		return fold_finish(s, &inner.node, fold_virtual(s, at) ? 0 : old_id, old_tag, &ret->now);
	ret->now = ret->was;
	return 0;
}

/* ---- the tree ---- */

static int fold_subtree(struct fold_state *s, uint64_t old_id, const struct fold_range *at, struct fold_result *ret)
{
	struct vc_node old;
	int r;

	if (at->lo < at->hi) {
		r = fold_whole(s, old_id, at, ret);
		if (r)
			return r < 0 ? r : 0;
	} else if (!fold_virtual(s, at)) {
		r = fold_read(s, old_id, at->level, &old);
		if (r < 0)
			return r;
		ret->was = ret->now = fold_part_of(s, old_id, &old);
		return 0;
	}
	return at->level == 0 ? fold_leaf(s, old_id, at, ret) : fold_inner(s, old_id, at, ret);
}

/** Does change c map any block at or beyond `lba`? */
static int change_reaches(struct fold_state *s, const struct vc_change *c, uint64_t lba, bool *ret)
{
	uint64_t start = VC_MAX(lba, c->lba), end = c->lba + c->nblocks;
	bool empty = true;
	int r = 0;

	if (c->kind == VC_CHANGE_SHARE && start < end)
		r = fold_source_empty(s, c->src, c->src_lba + (start - c->lba), end - start, &empty);
	*ret = c->kind == VC_CHANGE_SET ? start < end : !empty;
	return r;
}

/** The lowest height, not below that of the old tree, that holds every block to be mapped. */
static int fold_height(struct fold_state *s, uint32_t *ret)
{
	uint32_t height = s->fold->root.height;
	bool reaches;
	int r;

	for (size_t i = s->fold->nchanges; i-- > 0;) {
		const struct vc_change *c = &s->fold->changes[i];

		if (c->lba + c->nblocks <= vc_map_reach(height))
			break;
		for (;; height++) {
			r = change_reaches(s, c, vc_map_reach(height), &reaches);
			if (r < 0)
				return r;
			if (!reaches)
				break;
		}
	}
	*ret = height;
	return 0;
}

int vc_map_fold(struct vc_map *map, struct vc_meta_txn *txn, const struct vc_fold *fold, struct vc_root *ret_root)
{
	struct fold_state s = {
		.map = map,
		.txn = txn,
		.fold = fold,
		.source = { .map = map, .txn = txn, .borrowed = true, .forbid_tag = fold->dead_tag },
	};
	struct fold_range at = { 0 };
	struct fold_result result;
	uint32_t height;
	int r;

	r = fold_check(fold);
	if (r == 0)
		r = fold_height(&s, &height);
	if (r < 0)
		return r;
	at.hi = changes_before(&s, 0, fold->nchanges, vc_map_reach(height));
	if (at.hi == 0) {
		*ret_root = fold->root;
		return 0;
	}
	at.level = height - 1;
	r = fold_subtree(&s, fold->root.id, &at, &result);
	if (r < 0)
		return r;
	*ret_root = (struct vc_root){ .id = result.now.id, .height = result.now.id ? height : 0 };
	return 0;
}
