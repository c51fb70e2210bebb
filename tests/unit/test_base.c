/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of base and slice: chains of frozen bases, views, merging, folding and refreshing beside running clones. */
#include "config.h"
#include "unit.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "base.h"
#include "slice.h"

#define BLOCKS 64u

static struct vc_bases bases;
static atomic_uint slices_alive;

static void slice_destroy(struct vc_slice *slice)
{
	atomic_fetch_sub(&slices_alive, 1);
	vc_slice_free(slice);
}

static struct vc_slice *slice_new(void)
{
	struct vc_slice *slice = vc_slice_new(NULL, slice_destroy);

	assert_non_null(slice);
	atomic_fetch_add(&slices_alive, 1);
	return slice;
}

static int setup(void **state VC_UNUSED)
{
	vc_bases_init(&bases, vc_slice_hold, vc_slice_release);
	atomic_store(&slices_alive, 0);
	return 0;
}

/* Nothing may be left: no view, no slice. The sanitizers see the rest. */
static int teardown(void **state VC_UNUSED)
{
	assert_true(vc_list_empty(&bases.views));
	assert_int_equal(atomic_load(&slices_alive), 0);
	vc_bases_fini(&bases);
	return 0;
}

static struct vc_root root_of(uint64_t id) { return (struct vc_root){ .id = id }; }

/* An overlay with one write at each of n places from lba on, `step` blocks apart; block lba holds address. */
static struct vc_overlay *overlay_of(struct vc_slice *slice, uint64_t lba, uint64_t addr)
{
	struct vc_overlay *o = vc_overlay_new(&bases.owner, slice);
	uint32_t sum = (uint32_t)addr;

	assert_non_null(o);
	assert_int_equal(vc_overlay_prepare(o, lba, 1), 0);
	vc_overlay_set_log(o, lba, 1, addr, &sum);
	return o;
}

/* Address of what the base holds at lba, 0: not in an overlay. */
static uint64_t view_at(const struct vc_view *view, uint64_t lba)
{
	struct vc_slot slot = { .kind = VC_SLOT_NONE };

	for (unsigned i = 0; i < view->n && slot.kind == VC_SLOT_NONE; i++)
		(void)vc_overlay_lookup(view->overlays[i], lba, 1, &slot);
	return slot.kind == VC_SLOT_LOG ? slot.addr : 0;
}

static uint64_t base_at(struct vc_base *base, uint64_t lba)
{
	struct vc_view *view = vc_base_view(base);
	uint64_t addr = view_at(view, lba);

	vc_view_put(view);
	return addr;
}

/* Every third as replay does it, the others as a clone does. */
static struct vc_base *freeze(struct vc_base *parent, struct vc_slice *slice, uint64_t lba, uint64_t addr)
{
	bool at_once = (addr >> 12) % 3 == 0;
	struct vc_base *base = vc_base_freeze(parent, overlay_of(slice, lba, addr), &slice->bases, 7, 1, 0, at_once);

	assert(base);
	if (!at_once)
		vc_base_tidy(base);
	return base;
}

static unsigned log2_of(unsigned n)
{
	unsigned r = 0;

	while (n >>= 1)
		r++;
	return r;
}

/* ---- chains ---- */

static void test_chain(void **state VC_UNUSED)
{
	struct vc_slice *slice = slice_new();
	struct vc_base *b0 = vc_base_new(&bases, root_of(5)), *b1 = freeze(b0, slice, 1, 100), *b2 = freeze(b1, slice, 1, 200),
		*b3 = freeze(b1, slice, 2, 300);
	struct vc_view *view;

	assert_int_equal(base_at(b0, 1), 0);
	assert_int_equal(base_at(b1, 1), 100);
	assert_int_equal(base_at(b2, 1), 200);
	assert_int_equal(base_at(b2, 2), 0);
	assert_int_equal(base_at(b3, 1), 100);
	assert_int_equal(base_at(b3, 2), 300);
	assert_int_equal(b1->nchildren, 2);
	view = vc_base_view(b3);
	assert_int_equal(view->root.id, 5);
	vc_base_put(b3);
	assert_int_equal(b1->nchildren, 1);
	assert_int_equal(view_at(view, 2), 300); /* a reader is not disturbed */
	vc_view_put(view);
	vc_base_put(b0);
	vc_base_put(b1);
	assert_int_equal(base_at(b2, 1), 200);
	vc_slice_release(slice);
	assert_int_equal(atomic_load(&slices_alive), 1);
	vc_base_put(b2);
}

/* ---- a checkpoint in the midst of making a view ---- */

struct vc_overlay *__real_vc_overlay_get(struct vc_overlay *o);
struct vc_overlay *__wrap_vc_overlay_get(struct vc_overlay *o);

static struct vc_base *fold_base; /* NULL, or to be folded into a new root when */
static struct vc_overlay *fold_at; /* this overlay is taken for a view */
static unsigned fold_after;        /* for so many other times before */

struct vc_overlay *__wrap_vc_overlay_get(struct vc_overlay *o)
{
	struct vc_base *base = fold_base;

	if (base && o == fold_at && fold_after-- == 0) {
		fold_base = NULL;
		assert_int_equal(vc_base_folded(base, root_of(9)), 0);
	}
	return __real_vc_overlay_get(o);
}

static void expect_root(struct vc_base *base, uint64_t root, unsigned noverlays)
{
	struct vc_view *view = vc_base_view(base);

	assert_int_equal(view->root.id, root);
	assert_int_equal(view->n, noverlays);
	vc_view_put(view);
}

/* A clone's view is made anew on what a checkpoint has made of its parent meanwhile. */
static void test_folded_under_freeze(void **state VC_UNUSED)
{
	struct vc_slice *slice = slice_new();
	struct vc_base *b0 = vc_base_new(&bases, root_of(1)), *b1 = freeze(b0, slice, 1, 100), *b2;

	fold_at = overlay_of(slice, 2, 200);
	fold_after = 0;
	fold_base = b1;
	b2 = vc_base_freeze(b1, fold_at, &slice->bases, 7, 1, 0, false);
	assert_non_null(b2);
	assert_null(fold_base);
	expect_root(b1, 9, 0);
	expect_root(b2, 9, 1);
	assert_int_equal(base_at(b2, 2), 200);
	vc_base_put(b2);
	vc_base_put(b1);
	vc_base_put(b0);
	vc_slice_release(slice);
}

/* A merged view of what there was before does not replace that which a checkpoint has made meanwhile. */
static void test_folded_under_tidy(void **state VC_UNUSED)
{
	struct vc_slice *slice = slice_new();
	struct vc_base *b0 = vc_base_new(&bases, root_of(1)), *b1 = freeze(b0, slice, 1, 100), *b2;

	fold_at = overlay_of(slice, 2, 200);
	b2 = vc_base_freeze(b1, fold_at, &slice->bases, 7, 1, 0, false);
	assert_non_null(b2);
	fold_after = 1; /* not when it is held for the time of merging */
	fold_base = b2;
	vc_base_tidy(b2);
	assert_null(fold_base);
	expect_root(b2, 9, 0);
	vc_base_put(b2);
	vc_base_put(b1);
	vc_base_put(b0);
	vc_slice_release(slice);
}

/* Views that are merged just before a checkpoint folds what they show, or while it does, are brought up to date by it like all others. */
static void test_tidied_before_fold(void **state VC_UNUSED)
{
	struct vc_slice *s1 = slice_new(), *s2 = slice_new();
	struct vc_base *b0 = vc_base_new(&bases, root_of(1)), *b1 = freeze(b0, s1, 1, 100), *b2, *b3;

	fold_at = overlay_of(s2, 2, 200);
	b2 = vc_base_freeze(b1, fold_at, &s2->bases, 7, 1, 0, false);
	assert_non_null(b2);
	b3 = freeze(b2, s2, 3, 300);
	vc_bases_new_generation(&bases);
	vc_base_tidy(b3);
	expect_root(b3, 1, 2);
	fold_after = 1;
	fold_base = b1;
	vc_base_tidy(b2);
	assert_null(fold_base);
	expect_root(b2, 1, 2);
	assert_int_equal(vc_bases_refresh(&bases, &s2->bases), 2);
	expect_root(b2, 9, 1);
	expect_root(b3, 9, 2);
	assert_int_equal(base_at(b3, 1), 0);
	assert_int_equal(base_at(b3, 2), 200);
	assert_int_equal(base_at(b3, 3), 300);
	vc_base_put(b3);
	vc_base_put(b2);
	vc_base_put(b1);
	vc_base_put(b0);
	vc_slice_release(s2);
	vc_slice_release(s1);
}

/* 10,000 clones of clones with one write each, to one place, to few, and to as many places as there are clones. */
static void deep_family(unsigned depth, uint64_t places, unsigned most)
{
	struct vc_slice *slice = slice_new();
	struct vc_base *base = vc_base_new(&bases, root_of(1));
	uint64_t *model = calloc(places, sizeof(*model));
	unsigned longest = 0;

	assert_non_null(model);
	for (unsigned i = 1; i <= depth; i++) {
		uint64_t place = i * UINT64_C(2654435761) % places;
		struct vc_base *next = freeze(base, slice, place * VC_LEAF_BLOCKS, i * UINT64_C(4096));
		struct vc_view *view = vc_base_view(next);

		model[place] = i * UINT64_C(4096);
		longest = VC_MAX(longest, view->n);
		if (i % 997 == 0)
			for (uint64_t k = 0; k < places; k += 1 + places / 50)
				assert_int_equal(view_at(view, k * VC_LEAF_BLOCKS), model[k]);
		vc_view_put(view);
		vc_base_put(base);
		base = next;
	}
	for (uint64_t k = 0; k < places; k++)
		assert_int_equal(base_at(base, k * VC_LEAF_BLOCKS), model[k]);
	assert_true(longest <= most);
	free(model);
	vc_base_put(base);
	vc_slice_release(slice);
}

static void test_deep_family(void **state VC_UNUSED)
{
	enum { DEPTH = 10000 };

	deep_family(DEPTH, 1, 2 * log2_of(DEPTH) + 4);
	deep_family(DEPTH, 100, 2 * log2_of(DEPTH) + 4);
	/* Overlays of more than 512 leaves together are not merged: a clone must stay short. */
	deep_family(DEPTH, DEPTH, 2 * log2_of(DEPTH) + 4 + DEPTH / 256);
}

/* Overlays of two slices stay apart: each is given back to the log on its own. */
static void test_slices_stay_apart(void **state VC_UNUSED)
{
	struct vc_slice *s1 = slice_new(), *s2 = slice_new();
	struct vc_base *base = vc_base_new(&bases, root_of(1));

	for (unsigned i = 0; i < 200; i++) {
		struct vc_base *next = freeze(base, i < 100 ? s1 : s2, i % 3, 4096 + i);
		struct vc_view *view = vc_base_view(next);
		bool older = false;

		for (unsigned k = 0; k < view->n; k++) {
			bool first = vc_overlay_slice(view->overlays[k]) == s1;

			assert_true(first || vc_overlay_slice(view->overlays[k]) == s2);
			assert_true(first || !older);
			older = first;
		}
		assert_ptr_equal(vc_overlay_slice(view->overlays[0]), i < 100 ? s1 : s2);
		vc_view_put(view);
		vc_base_put(base);
		base = next;
	}
	vc_base_put(base);
	vc_slice_release(s2);
	vc_slice_release(s1);
}

/* ---- checkpoints ---- */

/* Nothing that is pending in `later` reads through what is folded. */
static void expect_no_overlay_of(const struct vc_slice *done, struct vc_slice *later)
{
	unsigned found = 0;

	vc_mutex_lock(&bases.lock);
	vc_list_for_each(node, &later->bases) {
		const struct vc_base *base = vc_list_entry(node, struct vc_base, node);

		for (unsigned i = 0; i < base->view->n && atomic_load(&base->refs) > 0; i++) /* 0: it is being freed */
			found += vc_overlay_slice(base->view->overlays[i]) == done;
	}
	vc_mutex_unlock(&bases.lock);
	assert(found == 0);
}

/* Fold all bases of the oldest slice, oldest first, then refresh the others: what a checkpoint does after its commit. */
static void checkpoint(struct vc_slice *done, struct vc_slice *const *later, unsigned nlater, uint64_t *root)
{
	vc_bases_new_generation(&bases);
	for (;;) {
		struct vc_base *base = NULL;

		vc_mutex_lock(&bases.lock);
		vc_list_for_each(node, &done->bases) {
			struct vc_base *b = vc_list_entry(node, struct vc_base, node);

			if (vc_base_try_get(b)) {
				base = b;
				break;
			}
		}
		vc_mutex_unlock(&bases.lock);
		if (!base)
			break;
		assert(vc_base_folded(base, root_of(++*root)) == 0);
		vc_base_put(base);
	}
	for (unsigned i = 0; i < nlater; i++) {
		assert(vc_bases_refresh(&bases, &later[i]->bases) >= 0);
		expect_no_overlay_of(done, later[i]);
	}
	vc_slice_release(done);
}

static int collect_root(void *ctx, struct vc_root root)
{
	uint64_t *most = ctx;

	*most = VC_MAX(*most, root.id);
	return root.id == 99;
}

static void test_folded(void **state VC_UNUSED)
{
	struct vc_slice *s1 = slice_new(), *s2 = slice_new();
	struct vc_base *b0 = vc_base_new(&bases, root_of(5)), *b1 = freeze(b0, s1, 1, 100), *b2 = freeze(b1, s2, 2, 200),
		*b3 = freeze(b2, s2, 1, 300);
	struct vc_view *before = vc_base_view(b3), *view;
	uint64_t root = 10, most = 0;

	assert_int_equal(vc_bases_each_root(&bases, collect_root, &most), 0);
	assert_int_equal(most, 5);
	checkpoint(s1, &s2, 1, &root);
	assert_int_equal(root, 11);
	assert_null(b1->parent);
	assert_null(b1->delta);
	view = vc_base_view(b1);
	assert_int_equal(view->n, 0);
	assert_int_equal(view->root.id, 11);
	vc_view_put(view);
	view = vc_base_view(b3);
	assert_int_equal(view->root.id, 11);
	assert_int_equal(view_at(view, 1), 300);
	assert_int_equal(view_at(view, 2), 200);
	assert_int_equal(view->n, 2);
	vc_view_put(view);
	assert_int_equal(vc_bases_refresh(&bases, &s2->bases), 0);
	assert_int_equal(before->root.id, 5); /* the old view reads as before, and keeps slice and root */
	assert_int_equal(view_at(before, 1), 300);
	assert_int_equal(atomic_load(&slices_alive), 2);
	vc_view_put(before);
	assert_int_equal(atomic_load(&slices_alive), 1);
	vc_base_put(b1);
	checkpoint(s2, NULL, 0, &root);
	assert_int_equal(root, 13);
	assert_int_equal(base_at(b3, 1), 0);
	assert_int_equal(atomic_load(&slices_alive), 0);
	vc_base_put(b0);
	vc_base_put(b2);
	vc_base_put(b3);
}

/* ---- clones beside checkpoints: threads use assert, as cmocka's can only leave the first one ---- */

/* Content: block k of generation g of a worker's chain holds the address of its last write, or is folded away. */
struct cloner {
	pthread_t thread;
	uint64_t seed, id;
	struct vc_base *origin;
	unsigned rounds;
};

static pthread_mutex_t current_lock = PTHREAD_MUTEX_INITIALIZER;
static struct vc_slice *current;
static atomic_bool cloners_done;

static struct vc_slice *current_get(void)
{
	struct vc_slice *slice;

	pthread_mutex_lock(&current_lock);
	slice = current;
	vc_slice_hold(slice);
	atomic_fetch_add(&slice->section.inflight, 1);
	pthread_mutex_unlock(&current_lock);
	return slice;
}

static void *cloner_main(void *arg)
{
	struct cloner *c = arg;
	struct vc_base *base = vc_base_get(c->origin);
	uint64_t model[BLOCKS] = { 0 };

	for (unsigned i = 1; i <= c->rounds; i++) {
		struct vc_slice *slice = current_get();
		uint64_t lba = vc_unit_below(&c->seed, BLOCKS), addr = c->id << 40 | (uint64_t)i << 12;
		struct vc_base *next = freeze(base, slice, lba, addr);
		struct vc_view *view = vc_base_view(next);

		model[lba] = addr;
		for (unsigned k = 0; k < BLOCKS; k++) {
			uint64_t got = view_at(view, k);

			assert(got == model[k] || got == 0);
		}
		assert(view->root.id != 0);
		assert(view_at(view, lba) == addr); /* its slice is not checkpointed before it is applied */
		vc_view_put(view);
		vc_base_put(base);
		base = next;
		atomic_fetch_sub(&slice->section.inflight, 1);
		vc_slice_release(slice);
	}
	vc_base_put(base);
	return NULL;
}

static void *checkpointer_main(void *arg)
{
	uint64_t *root = arg;

	while (!atomic_load(&cloners_done)) {
		struct vc_slice *next = slice_new(), *old;

		pthread_mutex_lock(&current_lock);
		old = current;
		current = next;
		pthread_mutex_unlock(&current_lock);
		while (atomic_load(&old->section.inflight) > 0)
			sched_yield();
		checkpoint(old, &next, 1, root);
	}
	return NULL;
}

static void test_clones_and_checkpoints(void **state VC_UNUSED)
{
	enum { N = 3 };
	uint64_t seed = vc_unit_seed(), root = 10;
	struct vc_base *origin = vc_base_new(&bases, root_of(5));
	struct cloner cloners[N];
	pthread_t checkpointer;

	current = slice_new();
	atomic_store(&cloners_done, false);
	assert_int_equal(pthread_create(&checkpointer, NULL, checkpointer_main, &root), 0);
	for (unsigned i = 0; i < N; i++) {
		cloners[i] = (struct cloner){ .seed = seed + i * 77, .id = i + 1, .origin = origin, .rounds = 3000 };
		assert_int_equal(pthread_create(&cloners[i].thread, NULL, cloner_main, &cloners[i]), 0);
	}
	for (unsigned i = 0; i < N; i++)
		pthread_join(cloners[i].thread, NULL);
	atomic_store(&cloners_done, true);
	pthread_join(checkpointer, NULL);
	checkpoint(current, NULL, 0, &root);
	vc_base_put(origin);
}

/* ---- rows of a slice ---- */

static void test_slice_rows(void **state VC_UNUSED)
{
	enum { KEYS = 500 };
	uint64_t seed = vc_unit_seed(), values[KEYS] = { 0 };
	bool known[KEYS] = { false }, deleted[KEYS] = { false };
	struct vc_slice *slice = slice_new();
	struct vc_slice_row **rows;
	size_t n = 0, at = 0;

	for (unsigned i = 0; i < 5000; i++) {
		unsigned k = (unsigned)vc_unit_below(&seed, KEYS);
		uint8_t key[8];

		vc_be64_put(key, k);
		n += !known[k];
		known[k] = true;
		values[k] = vc_unit_random(&seed);
		deleted[k] = vc_unit_below(&seed, 3) == 0;
		assert_int_equal(vc_slice_put_row(slice, key, sizeof(key), deleted[k] ? NULL : &values[k], deleted[k] ? 0 : 8), 0);
	}
	assert_int_equal(vc_slice_put_row(slice, "\0", 1, "v", 1), 0); /* a prefix of the others comes first */
	assert_int_equal(slice->nrows, n + 1);
	assert_int_equal(vc_slice_sorted_rows(slice, &rows), 0);
	assert_int_equal(rows[at++]->key_len, 1);
	for (unsigned k = 0; k < KEYS; k++) {
		if (!known[k])
			continue;
		assert_int_equal(vc_be64_at(rows[at]->bytes), k);
		assert_int_equal(rows[at]->deleted, deleted[k]);
		if (!deleted[k])
			assert_memory_equal(rows[at]->bytes + 8, &values[k], 8);
		at++;
	}
	assert_int_equal(at, n + 1);
	free(rows);
	vc_slice_release(slice);
}

/* A slice's images hold their bases, and let them go with it. */
static void test_slice_images(void **state VC_UNUSED)
{
	struct vc_slice *slice = slice_new();
	struct vc_base *base = vc_base_new(&bases, root_of(5));

	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(vc_slice_add_image(slice, i, 1, i % 10 ? vc_base_get(base) : NULL), 0);
	assert_int_equal(atomic_load(&base->refs), 91);
	vc_slice_release(slice);
	assert_int_equal(atomic_load(&base->refs), 1);
	vc_base_put(base);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_chain),
		TEST(test_folded_under_freeze),
		TEST(test_folded_under_tidy),
		TEST(test_tidied_before_fold),
		TEST(test_deep_family),
		TEST(test_slices_stay_apart),
		TEST(test_folded),
		TEST(test_clones_and_checkpoints),
		TEST(test_slice_rows),
		TEST(test_slice_images),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
