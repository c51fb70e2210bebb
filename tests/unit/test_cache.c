/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of cache: single flight, CLOCK, the books, and that what is held is neither freed nor changed. */
#include "config.h"
#include "unit.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "cache.h"
#include "lock.h"

/* The smallest cache with all 16 shards. */
#define BIG (64u << 20)

/* A loader that counts, and can fail. */
struct source {
	_Atomic unsigned loads;
	size_t len;
	int error;
};

static void fill(uint8_t *p, uint64_t key, size_t len)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(key * 31 + i);
}

static void assert_content(const struct vc_cache_ref *ref, uint64_t key)
{
	const uint8_t *p = ref->data;

	for (size_t i = 0; i < ref->len; i++)
		assert(p[i] == (uint8_t)(key * 31 + i));
}

static int source_load(void *ctx, uint64_t key, void **ret_buf, size_t *ret_len)
{
	struct source *s = ctx;

	atomic_fetch_add(&s->loads, 1);
	if (s->error)
		return s->error;
	*ret_buf = malloc(s->len);
	*ret_len = s->len;
	fill(*ret_buf, key, s->len);
	return 0;
}

static struct vc_cache *open_cache(uint64_t capacity)
{
	struct vc_cache *cache;

	assert_int_equal(vc_cache_open(capacity, &cache), 0);
	return cache;
}

/* Get, verify and put. */
static void visit(struct vc_cache *cache, struct source *s, uint64_t key)
{
	struct vc_cache_ref ref;

	assert_int_equal(vc_cache_get(cache, key, source_load, s, &ref), 0);
	assert_int_equal(ref.len, s->len);
	assert_content(&ref, key);
	vc_cache_put(cache, &ref);
}

static void test_hit_and_miss(void **state VC_UNUSED)
{
	struct vc_cache *cache = open_cache(BIG);
	struct source s = { .len = 1000 };
	struct vc_cache_stats stats;
	struct vc_cache_ref ref;

	assert_false(vc_cache_peek(cache, 5, &ref));
	for (uint64_t key = 1; key <= 3000; key++)
		visit(cache, &s, key << 10);
	for (uint64_t key = 1; key <= 3000; key++)
		visit(cache, &s, key << 10);
	assert_int_equal(s.loads, 3000);
	vc_cache_stats(cache, &stats);
	assert_int_equal(stats.misses, 3000);
	assert_int_equal(stats.hits, 3000);
	assert_int_equal(stats.entries, 3000);
	assert_int_equal(stats.evictions, 0);
	/* Overhead is counted. */
	assert_true(stats.bytes > 3000 * 1050);
	for (uint64_t key = 1; key <= 3000; key++)
		vc_cache_drop(cache, key << 10);
	vc_cache_stats(cache, &stats);
	assert_int_equal(stats.entries, 0);
	assert_int_equal(stats.bytes, 0);
	vc_cache_close(cache);
}

static void test_no_capacity(void **state VC_UNUSED)
{
	struct vc_cache *cache = open_cache(0);
	struct source s = { .len = 4096 };
	struct vc_cache_stats stats;
	struct vc_cache_ref a, b;

	assert_int_equal(vc_cache_get(cache, 1, source_load, &s, &a), 0);
	assert_int_equal(vc_cache_get(cache, 1, source_load, &s, &b), 0);
	assert_int_equal(s.loads, 2);
	assert_content(&a, 1);
	assert_content(&b, 1);
	vc_cache_put(cache, &a);
	vc_cache_put(cache, &b);
	vc_cache_insert(cache, 2, "x", 1);
	assert_false(vc_cache_peek(cache, 2, &a));
	vc_cache_stats(cache, &stats);
	assert_int_equal(stats.bytes, 0);
	vc_cache_close(cache);
}

static void test_bounded(void **state VC_UNUSED)
{
	uint64_t rnd = vc_unit_seed();
	struct vc_cache *cache = open_cache(1 << 20);
	struct source s = { .len = 0 };
	struct vc_cache_stats stats;

	for (uint64_t key = 1; key <= 5000; key++) {
		s.len = 1 + vc_unit_below(&rnd, 70000);
		visit(cache, &s, key);
		vc_cache_stats(cache, &stats);
		assert_true(stats.bytes <= 1 << 20);
	}
	assert_true(stats.evictions > 1000);
	/* It is used, too. */
	assert_true(stats.bytes > (1 << 20) * 3 / 4);
	vc_cache_close(cache);
}

/* What is used again stays while a long scan passes. */
static void test_second_chance(void **state VC_UNUSED)
{
	struct vc_cache *cache = open_cache(1 << 20);
	struct source s = { .len = 10000 }, hot = { .len = 10000 };

	visit(cache, &hot, 1);
	for (uint64_t key = 100; key < 2000; key++) {
		visit(cache, &s, key);
		visit(cache, &hot, 1);
	}
	assert_int_equal(hot.loads, 1);
	assert_int_equal(s.loads, 1900);
	vc_cache_close(cache);
}

static void test_held_stays(void **state VC_UNUSED)
{
	struct vc_cache *cache = open_cache(1 << 20);
	struct source s = { .len = 60000 };
	struct vc_cache_ref held[40], again;
	struct vc_cache_stats stats;

	/* More than fits: the later ones are not retained, and all stay whole. */
	for (uint64_t key = 0; key < 40; key++)
		assert_int_equal(vc_cache_get(cache, key + 1, source_load, &s, &held[key]), 0);
	vc_cache_stats(cache, &stats);
	assert_true(stats.bytes <= 1 << 20);
	assert_int_equal(stats.evictions, 0);
	vc_cache_drop(cache, 1);
	assert_int_equal(vc_cache_get(cache, 1, source_load, &s, &again), 0);
	assert_ptr_not_equal(again.data, held[0].data);
	vc_cache_put(cache, &again);
	for (uint64_t key = 0; key < 40; key++) {
		assert_content(&held[key], key + 1);
		vc_cache_put(cache, &held[key]);
	}
	vc_cache_close(cache);
}

static void test_insert(void **state VC_UNUSED)
{
	struct vc_cache *cache = open_cache(1 << 20);
	struct source s = { .len = 100 };
	struct vc_cache_ref ref;
	uint8_t data[100];

	fill(data, 9, sizeof(data));
	vc_cache_insert(cache, 9, data, sizeof(data));
	memset(data, 0, sizeof(data));
	/* The one that is there stays. */
	vc_cache_insert(cache, 9, data, sizeof(data));
	assert_true(vc_cache_peek(cache, 9, &ref));
	assert_content(&ref, 9);
	vc_cache_put(cache, &ref);
	visit(cache, &s, 9);
	assert_int_equal(s.loads, 0);
	vc_cache_drop(cache, 9);
	vc_cache_drop(cache, 9);
	assert_false(vc_cache_peek(cache, 9, &ref));
	vc_cache_close(cache);
}

/* ---- while a load runs ---- */

#define WAITERS 7

struct flight {
	struct vc_cache *cache;
	_Atomic unsigned loads, errors;
	int error;
};

/* Ends only when all others wait for it: a second load of the key would hang here or be counted. */
static int flight_load(void *ctx, uint64_t key, void **ret_buf, size_t *ret_len)
{
	struct flight *f = ctx;
	struct vc_cache_stats stats;
	struct vc_cache_ref ref;

	atomic_fetch_add(&f->loads, 1);
	assert(!vc_cache_peek(f->cache, key, &ref));
	do {
		sched_yield();
		vc_cache_stats(f->cache, &stats);
	} while (stats.hits < WAITERS);
	if (f->error)
		return f->error;
	*ret_buf = malloc(500);
	*ret_len = 500;
	fill(*ret_buf, key, 500);
	return 0;
}

static void *flight_thread(void *arg)
{
	struct flight *f = arg;
	struct vc_cache_ref ref;
	int r = vc_cache_get(f->cache, 42, flight_load, f, &ref);

	assert(r == f->error);
	if (r < 0) {
		atomic_fetch_add(&f->errors, 1);
		return NULL;
	}
	assert_content(&ref, 42);
	vc_cache_put(f->cache, &ref);
	return NULL;
}

static void flight_run(struct flight *f)
{
	pthread_t threads[WAITERS + 1];

	for (int i = 0; i <= WAITERS; i++)
		assert_int_equal(vc_thread_start(&threads[i], "flight", flight_thread, f), 0);
	for (int i = 0; i <= WAITERS; i++)
		pthread_join(threads[i], NULL);
}

static void single_flight(uint64_t capacity)
{
	struct flight f = { .cache = open_cache(capacity) };

	flight_run(&f);
	assert_int_equal(f.loads, 1);
	vc_cache_close(f.cache);
}

static void test_single_flight(void **state VC_UNUSED)
{
	single_flight(BIG);
	single_flight(0);
}

static void test_error_reaches_all(void **state VC_UNUSED)
{
	struct flight f = { .cache = open_cache(BIG), .error = -EIO };
	struct source s = { .len = 10 };
	struct vc_cache_stats stats;

	flight_run(&f);
	assert_int_equal(f.loads, 1);
	assert_int_equal(f.errors, WAITERS + 1);
	vc_cache_stats(f.cache, &stats);
	assert_int_equal(stats.entries, 0);
	assert_int_equal(stats.bytes, 0);
	/* An error is not remembered. */
	visit(f.cache, &s, 42);
	assert_int_equal(s.loads, 1);
	vc_cache_close(f.cache);
}

static struct vc_cache *drop_cache;

static int drop_load(void *ctx, uint64_t key, void **ret_buf, size_t *ret_len)
{
	vc_cache_drop(drop_cache, key);
	return source_load(ctx, key, ret_buf, ret_len);
}

static void test_drop_while_loading(void **state VC_UNUSED)
{
	struct source s = { .len = 3000 };
	struct vc_cache_stats stats;
	struct vc_cache_ref ref;

	drop_cache = open_cache(BIG);
	assert_int_equal(vc_cache_get(drop_cache, 3, drop_load, &s, &ref), 0);
	assert_content(&ref, 3);
	vc_cache_put(drop_cache, &ref);
	assert_false(vc_cache_peek(drop_cache, 3, &ref));
	vc_cache_stats(drop_cache, &stats);
	assert_int_equal(stats.bytes, 0);
	vc_cache_close(drop_cache);
}

/* ---- all at once ---- */

#define STRESS_KEYS 400
#define STRESS_HOLD 8
#define STRESS_STEPS 20000 /* VC_TEST_THIN */

struct stress {
	struct vc_cache *cache;
	struct source source;
	_Atomic uint64_t seed;
	uint64_t steps; /* of each thread */
};

static void stress_step(struct stress *st, uint64_t *rnd, struct vc_cache_ref *slot)
{
	uint64_t key = 1 + vc_unit_below(rnd, STRESS_KEYS);
	uint8_t data[2000];

	switch (vc_unit_below(rnd, 10)) {
	case 0:
		vc_cache_drop(st->cache, key);
		return;
	case 1:
		fill(data, key, sizeof(data));
		vc_cache_insert(st->cache, key, data, sizeof(data));
		return;
	default:
		break;
	}
	if (slot->entry) {
		/* 31 * 223 = 1 modulo 256: the first byte gives the key as far as the pattern knows it. */
		assert_content(slot, (uint64_t)((const uint8_t *)slot->data)[0] * 223);
		vc_cache_put(st->cache, slot);
	}
	assert(vc_cache_get(st->cache, key, source_load, &st->source, slot) == 0);
	assert_content(slot, key);
}

static void *stress_thread(void *arg)
{
	struct stress *st = arg;
	uint64_t rnd = atomic_fetch_add(&st->seed, UINT64_C(0x1234567));
	struct vc_cache_ref held[STRESS_HOLD] = { { NULL, 0, NULL } };

	for (uint64_t i = 0; i < st->steps; i++)
		stress_step(st, &rnd, &held[i % STRESS_HOLD]);
	for (int i = 0; i < STRESS_HOLD; i++)
		if (held[i].entry)
			vc_cache_put(st->cache, &held[i]);
	return NULL;
}

static void stress(uint64_t capacity, uint64_t seed)
{
	struct stress st = {
		.cache = open_cache(capacity), .source = { .len = 2000 }, .seed = seed, .steps = STRESS_STEPS / vc_unit_thin(),
	};
	struct vc_cache_stats stats;
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		assert_int_equal(vc_thread_start(&threads[i], "stress", stress_thread, &st), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	vc_cache_stats(st.cache, &stats);
	assert_true(stats.bytes <= capacity);
	for (uint64_t key = 1; key <= STRESS_KEYS; key++)
		vc_cache_drop(st.cache, key);
	vc_cache_stats(st.cache, &stats);
	assert_int_equal(stats.bytes, 0);
	assert_int_equal(stats.entries, 0);
	vc_cache_close(st.cache);
}

static void test_stress(void **state VC_UNUSED)
{
	uint64_t seed = vc_unit_seed();

	stress(BIG, seed);
	stress(STRESS_KEYS * 1000, seed);
	stress(4000, seed);
	stress(0, seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hit_and_miss),
		cmocka_unit_test(test_no_capacity),
		cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_second_chance),
		cmocka_unit_test(test_held_stays),
		cmocka_unit_test(test_insert),
		cmocka_unit_test(test_single_flight),
		cmocka_unit_test(test_error_reaches_all),
		cmocka_unit_test(test_drop_while_loading),
		cmocka_unit_test(test_stress),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
