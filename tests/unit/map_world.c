/* SPDX-License-Identifier: BSD-2-Clause */
/* map_world: see the header. */
#include "config.h"
#include "unit.h"
#include "map_world.h"

#include <stdlib.h>
#include <string.h>
#include "io.h"
#include "map_impl.h"

/* Where interesting things happen: edges of leaves, of subtrees of every level, and the very end. */
static const uint64_t sites[] = {
	0, 250, 65536 - 600, 65536, 3 * 65536 + 256, (1 << 24) - 700, 1 << 24, (5 << 24) + 65536,
	(UINT64_C(1) << 32) - 900, UINT64_C(1) << 32, (UINT64_C(3) << 32) + 77, VC_IMAGE_BLOCKS_MAX - 1300,
};

static uint64_t seed;

void world_seed(uint64_t value)
{
	seed = value;
}

/* ---- the store ---- */

void world_reopen(struct world *w)
{
	struct vc_meta_params meta = { .io = vc_io_posix(), .dir = w->dir, .map_size = UINT64_C(1) << 32 };
	struct vc_map_params map = { .cache_bytes = 4 << 20, .next_node = 1 };

	if (w->map) {
		map.next_node = vc_map_next_node(w->map);
		vc_map_close(w->map);
		vc_meta_close(w->meta);
	}
	assert_int_equal(vc_meta_open(&meta, &w->meta), 0);
	map.meta = w->meta;
	assert_int_equal(vc_map_open(&map, &w->map), 0);
}

int world_setup(void **ret)
{
	struct world *w = calloc(1, sizeof(*w));
	struct vc_meta_params params = { .io = vc_io_posix(), .map_size = UINT64_C(1) << 32 };

	assert_non_null(w);
	w->random = seed;
	w->next_tag = 1;
	w->next_segno = 1;
	w->dir = vc_unit_tmpdir();
	w->scratch = malloc(MODEL_MAX * sizeof(*w->scratch));
	params.dir = w->dir;
	assert_int_equal(vc_meta_create(&params), 0);
	world_reopen(w);
	for (int i = 0; i < IMAGES; i++) {
		w->images[i].tag = w->next_tag++;
		w->images[i].blocks = malloc(MODEL_MAX * sizeof(struct block));
		assert_non_null(w->images[i].blocks);
	}
	*ret = w;
	return 0;
}

int world_teardown(void **state)
{
	struct world *w = *state;

	vc_map_close(w->map);
	vc_meta_close(w->meta);
	for (int i = 0; i < IMAGES; i++)
		free(w->images[i].blocks);
	free(w->scratch);
	vc_unit_rmdir(w->dir);
	free(w);
	return 0;
}

/* ---- random places ---- */

uint64_t world_below(struct world *w, uint64_t n)
{
	return vc_unit_below(&w->random, n);
}

uint64_t world_random_lba(struct world *w)
{
	uint64_t site;

	do
		site = sites[world_below(w, VC_ARRAY_LEN(sites))];
	while (site >= w->sites_below);
	return site + world_below(w, world_below(w, 3) ? 1300 : 300);
}

uint64_t world_random_length(struct world *w, uint64_t lba)
{
	uint64_t max = VC_IMAGE_BLOCKS_MAX - lba, span = vc_map_span((uint32_t)world_below(w, 4)), n;

	switch (world_below(w, 6)) {
	case 0: n = 1 + world_below(w, 20); break;
	case 1: n = 1 + world_below(w, 1000); break;
	case 2: n = span; break;
	case 3: n = max; break;
	case 4: n = VC_ROUND_UP(lba + 1, span) - lba; break;
	default: n = 1 + world_below(w, UINT64_C(1) << world_below(w, 35)); break;
	}
	return VC_MIN(n, max);
}

/* ---- the model ---- */

static size_t model_find(const struct image *image, uint64_t lba)
{
	size_t lo = 0, hi = image->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (image->blocks[mid].lba < lba)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Blocks lba .. lba + nblocks - 1 become the n blocks at `with`. */
static void model_replace(struct image *image, uint64_t lba, uint64_t nblocks, const struct block *with, size_t n)
{
	size_t a = model_find(image, lba), b = model_find(image, lba + nblocks);

	assert_true(image->n - (b - a) + n <= MODEL_MAX);
	memmove(image->blocks + a + n, image->blocks + b, (image->n - b) * sizeof(*with));
	memcpy(image->blocks + a, with, n * sizeof(*with));
	image->n = image->n - (b - a) + n;
}

static void model_apply(struct world *w, struct image *image, const struct vc_change *c, const struct image *src,
			uint64_t new_tag)
{
	size_t n = 0;

	if (c->kind == VC_CHANGE_SET)
		for (; n < c->nblocks; n++)
			w->scratch[n] = (struct block){ c->lba + n, c->entry + n, new_tag };
	if (c->kind == VC_CHANGE_SHARE) {
		size_t end = model_find(src, c->src_lba + c->nblocks);

		for (size_t i = model_find(src, c->src_lba); i < end; i++)
			w->scratch[n++] = (struct block){ src->blocks[i].lba - c->src_lba + c->lba, src->blocks[i].entry, 0 };
	}
	model_replace(image, c->lba, c->nblocks, w->scratch, n);
}

static uint64_t model_own(const struct image *image, uint64_t tag)
{
	uint64_t n = 0;

	for (size_t i = 0; i < image->n; i++)
		n += tag && image->blocks[i].own_tag == tag;
	return n;
}

static uint64_t model_seek(const struct image *image, uint64_t lba, uint64_t end, bool want_data)
{
	size_t i = model_find(image, lba);

	if (want_data)
		return i < image->n ? VC_MIN(end, image->blocks[i].lba) : end;
	while (lba < end && i < image->n && image->blocks[i].lba == lba) {
		lba++;
		i++;
	}
	return lba;
}

/* ---- walking ---- */

struct walk {
	struct vc_meta_txn *txn;
	struct id_list *ids;        /* every node, once for each place */
	const struct image *image;  /* compared with, unless NULL */
	size_t next;                /* its next block */
};

static int compare_ids(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void ids_sort(struct id_list *list)
{
	qsort(list->ids, list->n, sizeof(list->ids[0]), compare_ids);
}

static bool ids_have(const struct id_list *list, uint64_t id)
{
	return bsearch(&id, list->ids, list->n, sizeof(id), compare_ids) != NULL;
}

static void ids_add(struct id_list *list, uint64_t id)
{
	assert_true(list->n < IDS_MAX);
	list->ids[list->n++] = id;
}

static void walk_leaf(struct walk *walk, const struct vc_node *node, uint64_t base, uint64_t *ret_mapped, uint64_t *ret_own)
{
	for (uint32_t b = 0; b < VC_LEAF_BLOCKS; b++) {
		if (!node->slots[b])
			continue;
		++*ret_mapped;
		*ret_own += node->own_bits[b / 8] >> (b % 8) & 1;
		if (!walk->image)
			continue;
		assert_true(walk->next < walk->image->n);
		assert_int_equal(walk->image->blocks[walk->next].lba, base + b);
		assert_int_equal(walk->image->blocks[walk->next].entry, node->slots[b]);
		walk->next++;
	}
}

/* Returns the tag; verifies the header against a full count. */
static uint64_t walk_node(struct walk *walk, uint64_t id, uint32_t level, uint64_t base, uint64_t *ret_mapped,
			  uint64_t *ret_own)
{
	struct vc_node node;
	uint64_t mapped = 0, own = 0;

	assert_int_equal(vc_map_node_read(walk->txn, id, &node), 0);
	assert_int_equal(node.level, level);
	ids_add(walk->ids, id);
	if (level == 0)
		walk_leaf(walk, &node, base, &mapped, &own);
	for (uint32_t i = 0; level && i < VC_FANOUT; i++) {
		uint64_t child_mapped, child_own;

		if (!node.slots[i])
			continue;
		if (walk_node(walk, node.slots[i], level - 1, base + i * vc_map_span(level - 1), &child_mapped,
			      &child_own) == node.tag)
			own += child_own;
		mapped += child_mapped;
	}
	assert_true(mapped > 0);
	assert_int_equal(node.mapped, mapped);
	assert_int_equal(node.own, node.tag ? own : 0);
	*ret_mapped = mapped;
	*ret_own = own;
	return node.tag;
}

static void walk_tree(struct vc_meta_txn *txn, const struct image *image, bool compare, struct id_list *ids)
{
	struct walk walk = { .txn = txn, .ids = ids, .image = compare ? image : NULL };
	uint64_t mapped, own;

	if (image->root.id)
		walk_node(&walk, image->root.id, image->root.height - 1, 0, &mapped, &own);
	else
		assert_int_equal(image->root.height, 0);
	if (compare)
		assert_int_equal(walk.next, image->n);
}

/* ---- what must be gone ---- */

struct old_node {
	uint64_t id, tag, base, parent_span;
	uint32_t level;
};

struct old_nodes {
	struct old_node nodes[IDS_MAX];
	size_t n;
};

static void old_collect(struct vc_meta_txn *txn, uint64_t id, uint32_t level, uint64_t base, uint64_t parent_span,
			struct old_nodes *old)
{
	struct vc_node node;

	assert_int_equal(vc_map_node_read(txn, id, &node), 0);
	assert_true(old->n < IDS_MAX);
	old->nodes[old->n++] = (struct old_node){ id, node.tag, base, parent_span, level };
	for (uint32_t i = 0; level && i < VC_FANOUT; i++)
		if (node.slots[i])
			old_collect(txn, node.slots[i], level - 1, base + i * vc_map_span(level - 1), vc_map_span(level), old);
}

/* Its parent was dropped whole by one change, so nobody looked at it. */
static bool dropped_unseen(const struct world *w, const struct old_node *node)
{
	uint64_t base = VC_ROUND_DOWN(node->base, node->parent_span);

	for (size_t i = 0; node->parent_span && i < w->nchanges; i++) {
		const struct vc_change *c = &w->changes[i];

		if (c->kind != VC_CHANGE_SET && c->lba <= base && c->lba + c->nblocks >= base + node->parent_span)
			return true;
	}
	return false;
}

static void check_deletions(struct world *w, struct vc_meta_txn *txn, const struct old_nodes *old, uint64_t dead_tag,
			    const struct id_list *live)
{
	const void *value;
	size_t len;

	for (size_t i = 0; i < old->n; i++) {
		const struct old_node *node = &old->nodes[i];
		bool present = vc_meta_node_get(txn, node->id, &value, &len) == 0;
		bool deferred = ids_have(&w->deferred, node->id);

		assert_true(present || !w->defer);
		if (ids_have(live, node->id) || node->tag != dead_tag) {
			assert_true(present);
			assert_false(deferred);
		} else if (!dropped_unseen(w, node)) {
			assert_int_equal(present, w->defer);
			assert_int_equal(deferred, w->defer);
		}
	}
}

static int defer(void *ctx, uint64_t id)
{
	ids_add(ctx, id);
	return 0;
}

/* ---- one fold ---- */

void world_check_reads(struct world *w, const struct image *image)
{
	uint64_t entries[700], mapped, own, at;

	assert_int_equal(vc_map_figures(w->map, image->root, image->tag, &mapped, &own), 0);
	assert_int_equal(mapped, image->n);
	assert_int_equal(own, model_own(image, image->tag));
	for (int i = 0; i < 8; i++) {
		uint64_t lba = world_random_lba(w), n = 1 + world_below(w, VC_ARRAY_LEN(entries));
		uint64_t end = lba + world_random_length(w, lba);
		size_t m = model_find(image, lba);

		assert_int_equal(vc_map_lookup(w->map, image->root, lba, n, entries), 0);
		for (uint64_t b = 0; b < n; b++) {
			bool mapped_here = m < image->n && image->blocks[m].lba == lba + b;

			assert_int_equal(entries[b], mapped_here ? image->blocks[m].entry : VC_ENTRY_HOLE);
			m += mapped_here;
		}
		assert_int_equal(vc_map_seek(w->map, image->root, lba, end, true, &at), 0);
		assert_int_equal(at, model_seek(image, lba, end, true));
		assert_int_equal(vc_map_seek(w->map, image->root, lba, end, false, &at), 0);
		assert_int_equal(at, model_seek(image, lba, end, false));
	}
}

static struct old_nodes old_nodes;
static struct id_list live, others;

static void check_new_nodes(uint64_t first, uint64_t end)
{
	for (uint64_t id = first; id < end; id++)
		assert_true(ids_have(&live, id));
}

/* The lowest tree that holds the last block, or an equally high one as before. */
static void check_height(const struct image *image, uint32_t old_height)
{
	uint64_t last = image->n ? image->blocks[image->n - 1].lba : 0;

	if (image->n)
		assert_true(last < vc_map_reach(image->root.height));
	if (image->root.height > old_height)
		assert_true(last >= vc_map_reach(image->root.height - 1));
}

static void check_after(struct world *w, const struct image *image, uint64_t dead_tag, uint64_t first_new)
{
	struct vc_meta_txn *txn;

	assert_int_equal(vc_meta_read_begin(w->meta, &txn), 0);
	live.n = others.n = 0;
	walk_tree(txn, image, true, &live);
	for (int i = 0; i < IMAGES; i++)
		if (&w->images[i] != image)
			walk_tree(txn, &w->images[i], world_below(w, 8) == 0, &others);
	ids_sort(&live);
	ids_sort(&w->deferred);
	if (dead_tag)
		check_deletions(w, txn, &old_nodes, dead_tag, &live);
	else
		assert_int_equal(w->deferred.n, 0);
	check_new_nodes(first_new, vc_map_next_node(w->map));
	vc_meta_end(txn);
}

void world_fold(struct world *w, struct image *image, const struct image *src, uint64_t new_tag, uint64_t dead_tag)
{
	struct vc_fold fold = {
		.root = image->root, .changes = w->changes, .nchanges = w->nchanges,
		.new_tag = new_tag, .dead_tag = dead_tag,
		.defer_delete = w->defer ? defer : NULL, .defer_ctx = &w->deferred,
	};
	uint64_t first_new = vc_map_next_node(w->map);
	struct vc_meta_txn *txn;

	assert_int_equal(vc_meta_write_begin(w->meta, &txn), 0);
	old_nodes.n = w->deferred.n = 0;
	if (image->root.id)
		old_collect(txn, image->root.id, image->root.height - 1, 0, 0, &old_nodes);
	assert_int_equal(vc_map_fold(w->map, txn, &fold, &image->root), 0);
	assert_int_equal(vc_meta_commit(txn), 0);
	for (size_t i = 0; i < w->nchanges; i++)
		model_apply(w, image, &w->changes[i], src, new_tag);
	check_height(image, fold.root.height);
	check_after(w, image, dead_tag, first_new);
	if (image->root.id == fold.root.id)
		assert_int_equal(vc_map_next_node(w->map), first_new);
}

static int sweep_collect(void *ctx, const void *key, size_t key_len VC_UNUSED, const void *value VC_UNUSED, size_t len VC_UNUSED)
{
	ids_add(ctx, vc_be64_at(key));
	return 0;
}

void world_sweep(struct world *w)
{
	struct vc_meta_txn *txn;

	live.n = others.n = 0;
	assert_int_equal(vc_meta_write_begin(w->meta, &txn), 0);
	for (int i = 0; i < IMAGES; i++)
		walk_tree(txn, &w->images[i], true, &live);
	ids_sort(&live);
	assert_int_equal(vc_meta_scan(txn, VC_DB_NODE, NULL, 0, NULL, 0, sweep_collect, &others), 0);
	for (size_t i = 0; i < others.n; i++)
		if (!ids_have(&live, others.ids[i]))
			assert_int_equal(vc_meta_node_del(txn, others.ids[i]), 0);
	assert_int_equal(vc_meta_commit(txn), 0);
}
