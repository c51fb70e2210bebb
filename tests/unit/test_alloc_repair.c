/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every allocation of a repair, a rebuild and a salvage, and of LMDB in their name, fails once, or with all that come after it. It says that
 * memory is short or is not impressed; nothing crashes or leaks, lack of memory is not taken for damage, and the next one has the same as
 * if there had always been enough: of nothing that could be had is less there.
 *
 * VC_TEST_STRIDE: as in test_alloc. VC_TEST_SEED. VC_TEST_CALL: only that call.
 */
#include "config.h"
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include "alloc_fault.h"
#include "crash_run.h"
#include "engine.h"
#include "rebuild.h"
#include "repair.h"
#include "sim_damage.h"

#define STRIDE 211
#define STEPS 40
#define CALLS_MAX (1u << 20)

/* What such a run has said. */
struct outcome {
	int r;
	bool replaced, salvaged;
	uint64_t findings, fixed;
};

/* What the pool is afterwards. */
struct result {
	struct books books;
	struct model model; /* by a mount */
};

struct scene {
	const char *name;
	struct vc_sim *sim; /* the damaged pool */
	void (*run)(struct vc_sim *sim, struct outcome *ret);
	bool same_rows;     /* down to times and the like */
};

static const char *now_scene;
static uint64_t now_nth;
static bool now_sticky;

static void note(void *ctx VC_UNUSED, const char *text)
{
	if (getenv("VC_TEST_MESSAGES"))
		fprintf(stderr, "%s\n", text);
}

static void run_repair(struct vc_sim *sim, struct outcome *ret)
{
	struct vc_repair_options o = { .check = { .data = true, .found = note }, .say = note, .left = note };
	struct vc_repair_result result;
	int r = vc_repair_pool(vc_sim_io(sim), CRASH_POOL, &o, &result);

	*ret = (struct outcome){ .r = r };
	if (r == 0)
		*ret = (struct outcome){ .replaced = result.replaced, .findings = result.after.findings, .fixed = result.fixed };
}

static void rebuild(struct vc_sim *sim, bool salvage, struct outcome *ret)
{
	struct vc_rebuild_options o = { .check = { .data = true, .found = note }, .salvage = salvage, .say = note };
	struct vc_rebuild_result result;
	int r = vc_rebuild_pool(vc_sim_io(sim), CRASH_POOL, &o, &result);

	*ret = (struct outcome){ .r = r };
	if (r == 0)
		*ret = (struct outcome){ .replaced = result.replaced, .salvaged = result.salvaged, .findings = result.check.findings };
}

static void run_rebuild(struct vc_sim *sim, struct outcome *ret) { rebuild(sim, false, ret); }
static void run_salvage(struct vc_sim *sim, struct outcome *ret) { rebuild(sim, true, ret); }

static struct vc_sim *copy_of(struct vc_sim *sim)
{
	struct vc_sim_policy all = { .keep = VC_SIM_KEEP_ALL };

	return vc_sim_crash(sim, vc_sim_events(sim), &all);
}

/* Frees sim. */
static void look(struct vc_sim *sim, struct result *ret)
{
	struct vc_pool *pool;

	*ret = (struct result){ .model = { .n = 0 } };
	books_load(vc_sim_io(sim), CRASH_POOL, &ret->books);
	assert_int_equal(crash_load(sim, &pool, &ret->model), 0);
	vc_pool_abandon(pool);
	vc_sim_free(sim);
}

static void result_free(struct result *result)
{
	books_free(&result->books);
	model_clear(&result->model);
}

static bool same(const struct scene *scene, struct result *a, struct result *b)
{
	return model_same(&a->model, &b->model) && (!scene->same_rows || books_same(&a->books, &b->books));
}

/* EROFS: of a pool that failed for it when the log was put into LMDB. */
static bool is_lack_of_memory(int r) { return r == -ENOMEM || r == -EAGAIN || r == -EROFS; }

/* Returns whether the first one was done in spite of it. */
static bool one_fault(const struct scene *scene, uint64_t nth, bool sticky, const struct outcome *want, struct result *wanted)
{
	struct vc_sim *sim = copy_of(scene->sim);
	int64_t live = alloc_fault_live();
	struct outcome got;
	struct result found;
	bool done;

	now_nth = nth;
	now_sticky = sticky;
	alloc_fault_arm(nth, sticky);
	scene->run(sim, &got);
	alloc_fault_disarm();
	assert_int_equal(alloc_fault_live(), live);
	done = got.r == 0;
	if (!done && !is_lack_of_memory(got.r))
		fail_msg("it returned %d", got.r);
	if (done) {
		assert_int_equal(got.replaced, want->replaced);
		assert_int_equal(got.salvaged, want->salvaged);
		assert_int_equal(got.findings, want->findings);
		assert_int_equal(got.fixed, want->fixed);
	} else {
		scene->run(sim, &got);
		assert_int_equal(got.r, 0);
		assert_int_equal(got.findings, want->findings);
	}
	look(sim, &found);
	if (!same(scene, wanted, &found))
		fail_msg("the pool is another one than without the failure");
	result_free(&found);
	now_nth = 0;
	return done;
}

static uint64_t count_calls(const struct scene *scene, struct outcome *ret, struct result *ret_result)
{
	struct vc_sim *sim = copy_of(scene->sim);
	uint64_t calls;

	alloc_fault_arm(0, false);
	scene->run(sim, ret);
	calls = alloc_fault_disarm();
	assert_int_equal(ret->r, 0);
	assert_true(ret->replaced);
	look(sim, ret_result);
	return calls;
}

static void every_allocation(const struct scene *scene, uint64_t *rng)
{
	const char *given = getenv("VC_TEST_STRIDE"), *only = getenv("VC_TEST_CALL");
	uint64_t stride = given ? strtoull(given, NULL, 0) : STRIDE, began = vc_mono_ns(), calls, nruns = 0, ndone = 0;
	struct alloc_places *places = calloc(1, sizeof(*places));
	bool *wanted = calloc(CALLS_MAX, sizeof(*wanted));
	struct outcome want;
	struct result result;

	assert_true(places && wanted && stride > 0);
	now_scene = scene->name;
	calls = count_calls(scene, &want, &result);
	assert_true(calls > 100 && calls < CALLS_MAX);
	alloc_fault_choose(calls, stride, rng, places, wanted);
	for (uint64_t i = 1; i <= calls; i++) {
		if (only ? i != strtoull(only, NULL, 0) : !wanted[i])
			continue;
		ndone += one_fault(scene, i, false, &want, &result);
		ndone += one_fault(scene, i, true, &want, &result);
		nruns += 2;
	}
	printf("%s: %llu allocations from %zu places%s; %llu runs with one or all that follow failing, %llu done all the same; in %.1f s\n",
	       scene->name, (unsigned long long)calls, places->n, alloc_fault_has_libraries() ? ", LMDB's among them" : ", without LMDB's",
	       (unsigned long long)nruns, (unsigned long long)ndone, (double)(vc_mono_ns() - began) / 1e9);
	assert_true(only || ndone < nruns);
	result_free(&result);
	free(wanted);
	free(places);
}

/* Random work, part of it destaged, the rest in the log. */
static struct vc_sim *some_pool(uint64_t *rng)
{
	struct crash_run *run = crash_run_new_small(vc_unit_random(rng), ENGINE_DESTAGE_NEVER);
	struct vc_sim *sim;

	for (unsigned i = 0; i < STEPS; i++) {
		if (i == STEPS / 2)
			assert_int_equal(engine_task(run->w.pool, VC_TASK_DESTAGE), 0);
		crash_run_step(run);
	}
	crash_run_stop(run);
	sim = copy_of(run->sim);
	crash_run_free(run);
	return sim;
}

static void test_repair(void **state VC_UNUSED)
{
	uint64_t rng = vc_unit_seed();
	struct scene scene = { .name = "repair", .sim = some_pool(&rng), .run = run_repair };
	struct books books;

	books_load(vc_sim_io(scene.sim), CRASH_POOL, &books);
	sim_damage_rows(scene.sim, CRASH_POOL, &books);
	books_free(&books);
	every_allocation(&scene, &rng);
	vc_sim_free(scene.sim);
}

static void test_rebuild(void **state VC_UNUSED)
{
	uint64_t rng = vc_unit_seed();
	struct scene scene = { .name = "rebuild", .sim = some_pool(&rng), .run = run_rebuild, .same_rows = true };

	sim_damage_lmdb(scene.sim, CRASH_POOL);
	every_allocation(&scene, &rng);
	vc_sim_free(scene.sim);
}

static void test_salvage(void **state VC_UNUSED)
{
	uint64_t rng = vc_unit_seed();
	struct scene scene = { .name = "salvage", .sim = some_pool(&rng), .run = run_salvage };

	sim_damage_all(scene.sim, CRASH_POOL);
	every_allocation(&scene, &rng);
	vc_sim_free(scene.sim);
}

static void say_where(void)
{
	if (now_nth)
		fprintf(stderr, "at: %s, call %llu%s, %s; last message: %s\n", now_scene, (unsigned long long)now_nth,
			now_sticky ? " and all after it" : "", alloc_fault_site_name(alloc_fault_site(now_nth)), vc_unit_last_message());
}

#define with_messages(f) cmocka_unit_test_setup_teardown(f, engine_setup, engine_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = { with_messages(test_repair), with_messages(test_rebuild), with_messages(test_salvage) };

	atexit(say_where);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
