/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of map: growth, sharing, what is refused, missing and damaged nodes, readers beside a folder. */
#include "config.h"
#include "unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include "map_impl.h"
#include "map_world.h"

static void set_one(struct world *w, struct image *image, uint64_t lba)
{
	w->changes[0] = (struct vc_change){ .lba = lba, .nblocks = 1, .kind = VC_CHANGE_SET };
	w->changes[0].entry = vc_entry_make(w->next_segno++, 4096, 100, 0);
	w->nchanges = 1;
	world_fold(w, image, NULL, image->tag, image->tag);
}

static void zero_range(struct world *w, struct image *image, uint64_t lba, uint64_t nblocks)
{
	w->changes[0] = (struct vc_change){ .lba = lba, .nblocks = nblocks, .kind = VC_CHANGE_ZERO };
	w->nchanges = 1;
	world_fold(w, image, NULL, image->tag, image->tag);
}

static void share_range(struct world *w, struct image *image, uint64_t lba, uint64_t nblocks, struct image *src, uint64_t src_lba)
{
	w->changes[0] = (struct vc_change){
		.lba = lba, .nblocks = nblocks, .kind = VC_CHANGE_SHARE, .src = src->root, .src_lba = src_lba,
	};
	w->nchanges = 1;
	world_fold(w, image, src, image->tag, image->tag);
	src->tag = w->next_tag++;
}

static uint64_t nodes_made(struct world *w, uint64_t *since)
{
	uint64_t n = vc_map_next_node(w->map) - *since;

	*since += n;
	return n;
}

static void test_growth(void **state)
{
	struct world *w = *state;
	struct image *image = &w->images[0];
	static const uint64_t at[] = { 255, 256, 65535, 65536, (1 << 24) - 1, 1 << 24, (UINT64_C(1) << 32) - 1,
				       UINT64_C(1) << 32, VC_IMAGE_BLOCKS_MAX - 1 };
	static const uint32_t height[] = { 1, 2, 2, 3, 3, 4, 4, 5, 5 };

	w->sites_below = UINT64_MAX;
	for (size_t i = 0; i < VC_ARRAY_LEN(at); i++) {
		uint32_t before = image->root.height;

		zero_range(w, image, at[i], VC_IMAGE_BLOCKS_MAX - at[i]);
		assert_int_equal(image->root.height, before);
		set_one(w, image, at[i]);
		assert_int_equal(image->root.height, height[i]);
		world_check_reads(w, image);
	}
	zero_range(w, image, 0, VC_IMAGE_BLOCKS_MAX);
	assert_int_equal(image->root.id, 0);
	set_one(w, image, VC_IMAGE_BLOCKS_MAX - 1);
	assert_int_equal(image->root.height, VC_HEIGHT_MAX);
	zero_range(w, image, VC_IMAGE_BLOCKS_MAX - 1, 1);
	assert_int_equal(image->root.id, 0);
}

/* Old content stays below when one fold adds the levels and empties, keeps or changes what was there. */
static void test_growth_with_changes_below(void **state)
{
	struct world *w = *state;
	struct image *image = &w->images[0];

	for (int kind = 0; kind < 3; kind++) {
		set_one(w, image, 5);
		w->changes[0] = (struct vc_change){ .nblocks = kind == 1 ? 3 : 300, .kind = VC_CHANGE_ZERO };
		w->changes[1] = (struct vc_change){ .lba = UINT64_C(3) << 32, .nblocks = 2, .kind = VC_CHANGE_SET };
		w->changes[1].entry = vc_entry_make(w->next_segno++, 4096, 100, 3);
		w->nchanges = 2;
		if (kind == 2)
			w->changes[0] = w->changes[--w->nchanges];
		world_fold(w, image, NULL, image->tag, image->tag);
		assert_int_equal(image->n, kind == 0 ? 2 : 3);
		zero_range(w, image, 0, VC_IMAGE_BLOCKS_MAX);
	}
}

static void test_share_whole_subtrees(void **state)
{
	struct world *w = *state;
	struct image *src = &w->images[0], *image = &w->images[1], *low = &w->images[2];
	uint64_t since, id, shared;
	struct vc_map_reader reader = { .map = w->map };

	for (int i = 0; i < 40; i++)
		set_one(w, src, (uint64_t)i * 300);
	set_one(w, src, (1 << 24) - 1);
	since = vc_map_next_node(w->map);
	share_range(w, image, 0, VC_IMAGE_BLOCKS_MAX, src, 0);
	assert_int_equal(image->root.id, src->root.id);
	assert_int_equal(nodes_made(w, &since), 0);
	/* The first 256 MiB to another place of a tree that grows: one node for each level above them. */
	share_range(w, low, UINT64_C(3) << 32, 65536, src, 0);
	assert_int_equal(low->root.height, 5);
	assert_int_equal(nodes_made(w, &since), 3);
	assert_int_equal(vc_map_reader_find(&reader, low->root, UINT64_C(3) << 32, 1, &id), 0);
	assert_int_equal(vc_map_reader_find(&reader, src->root, 0, 1, &shared), 0);
	vc_meta_end(reader.txn);
	assert_true(id && id == shared);
	/* The same onto itself changes nothing. */
	share_range(w, low, UINT64_C(3) << 32, 65536, src, 0);
	assert_int_equal(nodes_made(w, &since), 0);
	/* From a high tree into a low one and back, where the levels do not meet. */
	share_range(w, image, 0, VC_IMAGE_BLOCKS_MAX, low, 0);
	share_range(w, image, 0, UINT64_C(1) << 32, src, 0);
	share_range(w, low, 0, VC_IMAGE_BLOCKS_MAX, src, 0);
	assert_int_equal(low->root.height, 5); /* trees do not shrink */
	share_range(w, src, 0, VC_IMAGE_BLOCKS_MAX, image, 0);
	share_range(w, low, 77, VC_IMAGE_BLOCKS_MAX - 77, src, 0);
	share_range(w, low, 77, 100, src, 10000000);
}

static void test_unchanged(void **state)
{
	struct world *w = *state;
	struct image *image = &w->images[0];
	struct vc_root before;
	uint64_t since;

	set_one(w, image, 70000);
	since = vc_map_next_node(w->map);
	before = image->root;
	world_fold(w, image, NULL, image->tag, image->tag); /* the same again */
	zero_range(w, image, 0, 70000);
	zero_range(w, image, 70001, VC_IMAGE_BLOCKS_MAX - 70001);
	w->nchanges = 0;
	world_fold(w, image, NULL, image->tag, image->tag);
	assert_int_equal(image->root.id, before.id);
	assert_int_equal(nodes_made(w, &since), 0);
	image->tag = w->next_tag++;
	zero_range(w, image, 0, 70000);
	assert_int_equal(image->root.id, before.id);
}

static int try_fold(struct world *w, const struct vc_fold *fold)
{
	struct vc_meta_txn *txn;
	struct vc_root root;
	int r;

	assert_int_equal(vc_meta_write_begin(w->meta, &txn), 0);
	r = vc_map_fold(w->map, txn, fold, &root);
	vc_meta_end(txn);
	return r;
}

static int try_change(struct world *w, struct vc_root root, struct vc_change a, struct vc_change b)
{
	struct vc_change changes[] = { a, b };
	struct vc_fold fold = { .root = root, .changes = changes, .nchanges = b.nblocks ? 2 : 1, .new_tag = 9, .dead_tag = 9 };

	return try_fold(w, &fold);
}

static void test_refuses(void **state)
{
	struct world *w = *state;
	struct image *image = &w->images[0];
	struct vc_change none = { 0 }, ok = { .lba = 10, .nblocks = 2, .kind = VC_CHANGE_ZERO }, c;

	vc_unit_catch_messages(true);
	assert_int_equal(try_change(w, image->root, ok, none), 0);
	assert_int_equal(try_change(w, image->root, none, none), -EINVAL);
	assert_int_equal(try_change(w, image->root, ok, ok), -EINVAL);
	c = (struct vc_change){ .lba = 11, .nblocks = 1, .kind = VC_CHANGE_ZERO };
	assert_int_equal(try_change(w, image->root, ok, c), -EINVAL);
	c = (struct vc_change){ .lba = VC_IMAGE_BLOCKS_MAX - 1, .nblocks = 2, .kind = VC_CHANGE_ZERO };
	assert_int_equal(try_change(w, image->root, c, none), -EINVAL);
	c = (struct vc_change){ .lba = 3, .nblocks = UINT64_MAX, .kind = VC_CHANGE_ZERO };
	assert_int_equal(try_change(w, image->root, c, none), -EINVAL);
	c = (struct vc_change){ .nblocks = 1, .kind = VC_CHANGE_SET };
	assert_int_equal(try_change(w, image->root, c, none), -EINVAL);
	c.entry = vc_entry_make(1, 4096, 10, 15);
	assert_int_equal(try_change(w, image->root, c, none), 0);
	c.nblocks = 2;
	assert_int_equal(try_change(w, image->root, c, none), -EINVAL);
	c = (struct vc_change){ .nblocks = 5, .kind = VC_CHANGE_SHARE, .src_lba = VC_IMAGE_BLOCKS_MAX - 2 };
	assert_int_equal(try_change(w, image->root, c, none), -EINVAL);
	assert_int_equal(vc_unit_messages(), 8);
	vc_unit_catch_messages(false);
}

/* A source whose nodes the fold might free, or would count as its own, is refused. */
static void test_refuses_own_source(void **state)
{
	struct world *w = *state;
	struct image *image = &w->images[0];
	struct vc_change c = { .lba = 65536, .nblocks = 65536, .kind = VC_CHANGE_SHARE };
	struct vc_fold fold = { .changes = &c, .nchanges = 1 };

	set_one(w, image, 5);
	set_one(w, image, 65530);
	fold.root = c.src = image->root;
	fold.new_tag = w->next_tag;
	assert_int_equal(try_fold(w, &fold), 0);
	vc_unit_catch_messages(true);
	fold.dead_tag = image->tag;
	assert_int_equal(try_fold(w, &fold), -EINVAL);
	fold.dead_tag = 0;
	fold.new_tag = image->tag;
	assert_int_equal(try_fold(w, &fold), -EINVAL);
	c.src_lba = 3; /* copied by entry: harmless under the same tag, not when freed */
	assert_int_equal(try_fold(w, &fold), 0);
	fold.dead_tag = image->tag;
	assert_int_equal(try_fold(w, &fold), -EINVAL);
	vc_unit_catch_messages(false);
}

static void test_missing_and_misplaced(void **state)
{
	struct world *w = *state;
	struct image *image = &w->images[0];
	struct vc_root root = { 1000000, 2 };
	struct vc_change c = { .nblocks = 5, .kind = VC_CHANGE_ZERO };
	uint64_t entries[3], mapped, own, at;

	set_one(w, image, 5);
	vc_unit_catch_messages(true);
	assert_int_equal(vc_map_lookup(w->map, root, 0, 3, entries), -ESTALE);
	assert_int_equal(vc_map_seek(w->map, root, 0, 300, true, &at), -ESTALE);
	assert_int_equal(vc_map_figures(w->map, root, 1, &mapped, &own), -ESTALE);
	assert_int_equal(vc_unit_messages(), 0);
	assert_int_equal(try_change(w, root, c, (struct vc_change){ 0 }), -EUCLEAN);
	root = (struct vc_root){ image->root.id, 2 }; /* a leaf */
	assert_int_equal(vc_map_lookup(w->map, root, 0, 3, entries), -EUCLEAN);
	assert_int_equal(vc_map_figures(w->map, root, 1, &mapped, &own), -EUCLEAN);
	assert_int_equal(try_change(w, root, c, (struct vc_change){ 0 }), -EUCLEAN);
	root.height = VC_HEIGHT_MAX + 1;
	assert_int_equal(vc_map_lookup(w->map, root, 0, 3, entries), -EUCLEAN);
	assert_int_equal(vc_map_seek(w->map, root, 0, 3, false, &at), -EUCLEAN);
	vc_unit_catch_messages(false);
}

/* A value with a right checksum that is no valid node must not enter the cache. */
static void test_invalid_node(void **state)
{
	struct world *w = *state;
	struct vc_root root = { 500, 1 };
	struct vc_meta_txn *txn;
	uint8_t junk[100] = { VC_NODE_LEAF_EXTENT };
	uint64_t entries[1];

	assert_int_equal(vc_meta_write_begin(w->meta, &txn), 0);
	assert_int_equal(vc_meta_node_put(txn, 500, junk, sizeof(junk)), 0);
	assert_int_equal(vc_meta_commit(txn), 0);
	vc_unit_catch_messages(true);
	for (int i = 0; i < 2; i++)
		assert_int_equal(vc_map_lookup(w->map, root, 0, 1, entries), -EUCLEAN);
	assert_int_equal(vc_unit_messages(), 2);
	vc_unit_catch_messages(false);
}

/* ---- readers beside a folder ---- */

#define READERS 3
#define VERSIONS 150
#define PLACES 3

static const uint64_t places[PLACES] = { 7, 70000, 17 << 20 };

struct race {
	struct world *w;
	pthread_mutex_t lock;
	struct vc_root root; /* lock */
	atomic_bool stop;
	atomic_uint wrong, good, stale;
};

static struct vc_root race_root(struct race *race)
{
	struct vc_root root;

	pthread_mutex_lock(&race->lock);
	root = race->root;
	pthread_mutex_unlock(&race->lock);
	return root;
}

/* Under one root all places hold one version; a root that is gone says so. */
static void *race_reader(void *arg)
{
	struct race *race = arg;

	while (!atomic_load(&race->stop)) {
		struct vc_root root = race_root(race);
		uint64_t entries[PLACES];
		int r = 0;

		for (int i = 0; r == 0 && i < PLACES; i++)
			r = vc_map_lookup(race->w->map, root, places[i], 1, &entries[i]);
		if (r == -ESTALE)
			atomic_fetch_add(&race->stale, 1);
		else if (r < 0 || entries[0] == VC_ENTRY_HOLE || entries[0] != entries[1] || entries[0] != entries[2])
			atomic_fetch_add(&race->wrong, 1);
		else
			atomic_fetch_add(&race->good, 1);
	}
	return NULL;
}

static void race_fold(struct race *race, uint64_t version)
{
	struct vc_change changes[PLACES] = { 0 };
	struct vc_fold fold = { .root = race_root(race), .changes = changes, .nchanges = PLACES, .new_tag = 1, .dead_tag = 1 };
	struct vc_meta_txn *txn;
	struct vc_root root;

	for (int i = 0; i < PLACES; i++)
		changes[i] = (struct vc_change){ .lba = places[i], .nblocks = 1, .kind = VC_CHANGE_SET,
						 .entry = vc_entry_make(version, 4096, 100, 0) };
	assert_int_equal(vc_meta_write_begin(race->w->meta, &txn), 0);
	assert_int_equal(vc_map_fold(race->w->map, txn, &fold, &root), 0);
	assert_int_equal(vc_meta_commit(txn), 0);
	pthread_mutex_lock(&race->lock);
	race->root = root;
	pthread_mutex_unlock(&race->lock);
}

static void test_readers_beside_folds(void **state)
{
	struct race race = { .w = *state, .lock = PTHREAD_MUTEX_INITIALIZER };
	pthread_t readers[READERS];

	race_fold(&race, 1);
	for (int i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, race_reader, &race), 0);
	for (uint64_t version = 2; version < VERSIONS; version++)
		race_fold(&race, version);
	atomic_store(&race.stop, true);
	for (int i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	assert_int_equal(atomic_load(&race.wrong), 0);
	assert_true(atomic_load(&race.good) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_growth, world_setup, world_teardown),
		cmocka_unit_test_setup_teardown(test_growth_with_changes_below, world_setup, world_teardown),
		cmocka_unit_test_setup_teardown(test_share_whole_subtrees, world_setup, world_teardown),
		cmocka_unit_test_setup_teardown(test_unchanged, world_setup, world_teardown),
		cmocka_unit_test_setup_teardown(test_refuses, world_setup, world_teardown),
		cmocka_unit_test_setup_teardown(test_refuses_own_source, world_setup, world_teardown),
		cmocka_unit_test_setup_teardown(test_missing_and_misplaced, world_setup, world_teardown),
		cmocka_unit_test_setup_teardown(test_invalid_node, world_setup, world_teardown),
		cmocka_unit_test_setup_teardown(test_readers_beside_folds, world_setup, world_teardown),
	};

	world_seed(vc_unit_seed());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
