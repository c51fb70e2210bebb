/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of overlay against a plain array of what each block holds, with counted bases and slices. */
#include "config.h"
#include "unit.h"

#include <stdlib.h>

#include "overlay.h"

#define BLOCKS 3000u
#define NBASES 4u

/* Bases are only counted here; their addresses are all the overlay knows of them. */
static int base_refs[NBASES];
static int slice_refs;

static unsigned base_index(const struct vc_base *base) { return (unsigned)((const int *)(const void *)base - base_refs); }
static struct vc_base *base_at(unsigned i) { return (struct vc_base *)(void *)&base_refs[i]; }
static void hold(void *slice) { ++*(int *)slice; }
static void release(void *slice) { --*(int *)slice; }
static void get(struct vc_base *base) { base_refs[base_index(base)]++; }
static void put(struct vc_base *base) { base_refs[base_index(base)]--; }

static const struct vc_overlay_owner owner = { .slice_hold = hold, .release = release, .base_get = get, .base_put = put };

struct model {
	struct vc_overlay *o;
	struct vc_slot slots[BLOCKS];
};

static struct model *model_new(void)
{
	struct model *m = calloc(1, sizeof(*m));

	assert_non_null(m);
	m->o = vc_overlay_new(&owner, &slice_refs);
	assert_non_null(m->o);
	assert_true(vc_overlay_empty(m->o));
	assert_ptr_equal(vc_overlay_slice(m->o), &slice_refs);
	return m;
}

static void model_free(struct model *m)
{
	vc_overlay_put(m->o);
	free(m);
}

static void expect_no_references(void)
{
	assert_int_equal(slice_refs, 0);
	for (unsigned i = 0; i < NBASES; i++)
		assert_int_equal(base_refs[i], 0);
}

static bool slot_same(const struct vc_slot *a, const struct vc_slot *b)
{
	return a->kind == b->kind && a->addr == b->addr && a->sum == b->sum && a->base == b->base;
}

static void set_log(struct model *m, uint64_t lba, uint64_t n, uint64_t addr)
{
	uint32_t sums[BLOCKS];

	for (uint64_t i = 0; i < n; i++) {
		sums[i] = (uint32_t)(addr * 31 + i);
		m->slots[lba + i] = (struct vc_slot){ .kind = VC_SLOT_LOG, .sum = sums[i], .addr = addr + i * VC_BLOCK_SIZE };
	}
	assert_int_equal(vc_overlay_prepare(m->o, lba, n), 0);
	vc_overlay_set_log(m->o, lba, n, addr, sums);
}

static void set_chunk(struct model *m, uint64_t lba, uint64_t n, uint64_t entry)
{
	for (uint64_t i = 0; i < n; i++)
		m->slots[lba + i] = (struct vc_slot){ .kind = VC_SLOT_CHUNK, .addr = entry + i };
	assert_int_equal(vc_overlay_prepare(m->o, lba, n), 0);
	vc_overlay_set_chunk(m->o, lba, n, entry);
}

static void set_range(struct model *m, uint64_t lba, uint64_t n, struct vc_base *base, uint64_t base_lba)
{
	for (uint64_t i = 0; i < n; i++)
		m->slots[lba + i] = base ? (struct vc_slot){ .kind = VC_SLOT_BASE, .addr = base_lba + i, .base = base } :
			(struct vc_slot){ .kind = VC_SLOT_ZERO };
	assert_int_equal(vc_overlay_prepare_range(m->o, lba, n), 0);
	vc_overlay_set_range(m->o, lba, n, base, base_lba);
}

static void model_step(struct model *m, uint64_t *seed)
{
	static const uint64_t longest[] = { 1, 8, 200, 255, 256, 257, 1200 };
	uint64_t n = 1 + vc_unit_below(seed, longest[vc_unit_below(seed, VC_ARRAY_LEN(longest))]);
	uint64_t lba = vc_unit_below(seed, BLOCKS - n + 1);

	switch (vc_unit_below(seed, 8)) {
	case 0:
		set_range(m, lba, n, NULL, 0);
		break;
	case 1:
		set_range(m, lba, n, base_at((unsigned)vc_unit_below(seed, NBASES)), vc_unit_below(seed, 1000));
		break;
	case 2:
		set_chunk(m, lba, VC_MIN(n, (uint64_t)16), 1 + vc_unit_below(seed, UINT64_C(1) << 50) * 16);
		break;
	default:
		set_log(m, lba, vc_unit_below(seed, 4) ? 1 : n, vc_unit_below(seed, UINT64_C(1) << 58) * 8);
	}
}

/* ---- comparing ---- */

static void expect_lookup(const struct model *m, uint64_t *seed)
{
	uint64_t lba = vc_unit_below(seed, BLOCKS), n = 1 + vc_unit_below(seed, BLOCKS - lba), none = 0;
	struct vc_slot *slots = calloc(n, sizeof(*slots));
	static const struct vc_slot taken = { .kind = VC_SLOT_CHUNK, .addr = 77 };

	assert_non_null(slots);
	for (uint64_t i = 0; i < n; i++)
		if (vc_unit_below(seed, 8) == 0)
			slots[i] = taken;
	for (uint64_t i = 0; i < n; i++)
		none += slots[i].kind == VC_SLOT_NONE && m->slots[lba + i].kind == VC_SLOT_NONE;
	{
		struct vc_slot *before = calloc(n, sizeof(*before));

		assert_non_null(before);
		memcpy(before, slots, n * sizeof(*slots));
		assert_int_equal(vc_overlay_lookup(m->o, lba, n, slots), none);
		for (uint64_t i = 0; i < n; i++)
			assert_true(slot_same(&slots[i], before[i].kind == VC_SLOT_NONE ? &m->slots[lba + i] : &before[i]));
		free(before);
	}
	free(slots);
}

static void expect_next(const struct model *m, uint64_t *seed)
{
	uint64_t lba = vc_unit_below(seed, BLOCKS), end = lba + 1 + vc_unit_below(seed, BLOCKS - lba), at = lba, got, got_end;

	while (at < end && m->slots[at].kind == VC_SLOT_NONE)
		at++;
	if (at == end) {
		assert_false(vc_overlay_next(m->o, lba, end, &got, &got_end));
		return;
	}
	assert_true(vc_overlay_next(m->o, lba, end, &got, &got_end));
	assert_int_equal(got, at);
	assert_true(got_end > got && got_end <= end);
	for (uint64_t i = got; i < got_end; i++) {
		assert_int_not_equal(m->slots[i].kind, VC_SLOT_NONE);
		assert_int_equal(m->slots[i].kind == VC_SLOT_ZERO, m->slots[got].kind == VC_SLOT_ZERO);
	}
}

static void expect_runs(const struct model *m)
{
	struct vc_overlay_run *runs = NULL;
	uint64_t at = 0, entries = 0;
	size_t n;

	assert_int_equal(vc_overlay_runs(m->o, &runs, &n), 0);
	for (size_t i = 0; i < n; i++) {
		assert_true(runs[i].lba >= at && runs[i].nblocks > 0);
		for (; at < runs[i].lba; at++)
			assert_int_equal(m->slots[at].kind, VC_SLOT_NONE);
		for (uint64_t k = 0; k < runs[i].nblocks; k++, at++) {
			struct vc_slot want = runs[i].slot;

			if (want.kind == VC_SLOT_BASE)
				want.addr += k;
			assert_true(want.kind == VC_SLOT_BASE || want.kind == VC_SLOT_ZERO || k == 0);
			assert_true(slot_same(&m->slots[at], &want));
		}
		entries += runs[i].nblocks == 1 && (runs[i].slot.kind == VC_SLOT_LOG || runs[i].slot.kind == VC_SLOT_CHUNK);
	}
	for (; at < BLOCKS; at++)
		assert_int_equal(m->slots[at].kind, VC_SLOT_NONE);
	assert_true(vc_overlay_blocks(m->o) >= entries);
	assert_int_equal(vc_overlay_empty(m->o), n == 0);
	free(runs);
}

/* ---- tests ---- */

static void test_random(void **state VC_UNUSED)
{
	uint64_t seed = vc_unit_seed();

	for (unsigned round = 0; round < 30; round++) {
		struct model *m = model_new();
		uint64_t steps = 1 + vc_unit_below(&seed, 120);

		assert_int_equal(slice_refs, 1);
		for (uint64_t i = 0; i < steps; i++) {
			model_step(m, &seed);
			expect_lookup(m, &seed);
			expect_next(m, &seed);
			if (i % 8 == 0)
				expect_runs(m);
		}
		expect_runs(m);
		model_free(m);
		expect_no_references();
	}
}

static void test_merge(void **state VC_UNUSED)
{
	uint64_t seed = vc_unit_seed();

	for (unsigned round = 0; round < 60; round++) {
		struct model *older = model_new(), *newer = model_new();

		for (uint64_t i = vc_unit_below(&seed, 40); i > 0; i--)
			model_step(older, &seed);
		for (uint64_t i = vc_unit_below(&seed, 40); i > 0; i--)
			model_step(newer, &seed);
		vc_overlay_set_ref_depth(older->o, 2);
		vc_overlay_set_ref_depth(newer->o, 1 + round % 3);
		for (unsigned i = 0; i < BLOCKS; i++)
			if (newer->slots[i].kind != VC_SLOT_NONE)
				older->slots[i] = newer->slots[i];
		assert_int_equal(vc_overlay_merge(older->o, newer->o), 0);
		assert_int_equal(vc_overlay_ref_depth(older->o), round % 3 == 2 ? 3 : 2);
		expect_runs(newer);
		model_free(newer);
		expect_runs(older);
		for (unsigned i = 0; i < 20; i++)
			expect_lookup(older, &seed);
		model_free(older);
		expect_no_references();
	}
}

/* One reference for each range that names a base, whatever cuts, covers and joins them. */
static void test_base_references(void **state VC_UNUSED)
{
	struct model *m = model_new();

	set_range(m, 0, 1000, base_at(0), 5);
	assert_int_equal(base_refs[0], 1);
	set_range(m, 1000, 500, base_at(0), 1005);
	assert_int_equal(base_refs[0], 1); /* joined */
	set_range(m, 400, 300, base_at(1), 0);
	assert_int_equal(base_refs[0], 2); /* cut in two */
	set_log(m, 500, 10, 4096);
	assert_int_equal(base_refs[1], 1); /* entries lie over a range */
	set_range(m, 300, 500, NULL, 0);
	assert_int_equal(base_refs[0], 2);
	assert_int_equal(base_refs[1], 0);
	set_range(m, 0, 2000, base_at(2), 0);
	assert_int_equal(base_refs[0], 0);
	assert_int_equal(base_refs[2], 1);
	assert_int_equal(vc_overlay_blocks(m->o), 0);
	assert_ptr_equal(vc_overlay_get(m->o), m->o);
	vc_overlay_put(m->o);
	assert_int_equal(base_refs[2], 1);
	expect_runs(m);
	model_free(m);
	expect_no_references();
}

/* Short zeros are entries, long ones ranges; the rule decides memory, not content. */
static void test_zeros(void **state VC_UNUSED)
{
	struct model *m = model_new();

	set_range(m, 10, 255, NULL, 0);
	assert_int_equal(vc_overlay_blocks(m->o), 255);
	set_range(m, 10, 256, NULL, 0);
	assert_int_equal(vc_overlay_blocks(m->o), 0);
	expect_runs(m);
	model_free(m);
	expect_no_references();
}

/* The far end of the largest image, and ranges of the whole of it, cost no more than others. */
static void test_huge(void **state VC_UNUSED)
{
	struct vc_overlay *o = vc_overlay_new(&owner, &slice_refs);
	struct vc_slot slot = { .kind = VC_SLOT_NONE };
	uint64_t lba, end;
	uint32_t sum = 9;

	assert_int_equal(vc_overlay_prepare_range(o, 0, VC_IMAGE_BLOCKS_MAX), 0);
	vc_overlay_set_range(o, 0, VC_IMAGE_BLOCKS_MAX, NULL, 0);
	assert_int_equal(vc_overlay_prepare(o, VC_IMAGE_BLOCKS_MAX - 1, 1), 0);
	vc_overlay_set_log(o, VC_IMAGE_BLOCKS_MAX - 1, 1, 4096, &sum);
	assert_true(vc_overlay_next(o, 5, VC_IMAGE_BLOCKS_MAX, &lba, &end));
	assert_int_equal(lba, 5);
	assert_int_equal(end, VC_IMAGE_BLOCKS_MAX - 1);
	assert_int_equal(vc_overlay_lookup(o, VC_IMAGE_BLOCKS_MAX - 1, 1, &slot), 0);
	assert_int_equal(slot.kind, VC_SLOT_LOG);
	assert_int_equal(vc_overlay_prepare_range(o, 1, VC_IMAGE_BLOCKS_MAX - 1), 0);
	vc_overlay_set_range(o, 1, VC_IMAGE_BLOCKS_MAX - 1, base_at(3), 0);
	slot.kind = VC_SLOT_NONE;
	assert_int_equal(vc_overlay_lookup(o, VC_IMAGE_BLOCKS_MAX - 1, 1, &slot), 0);
	assert_int_equal(slot.kind, VC_SLOT_BASE);
	assert_int_equal(slot.addr, VC_IMAGE_BLOCKS_MAX - 2);
	vc_overlay_put(o);
	expect_no_references();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_base_references),
		cmocka_unit_test(test_zeros),
		cmocka_unit_test(test_huge),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
