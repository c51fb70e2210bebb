/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random operations on a pool against a model in memory, with destage, clean, closing and sudden ends in between.
 *
 * VC_TEST_STEPS: how many steps in each of the runs; VC_TEST_THIN; VC_TEST_SEED.
 */
#include "config.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "engine.h"
#include "meta.h"
#include "msg.h"
#include "world.h"

#define STEPS_DEFAULT 4000
#define RUNS 4
#define VERIFY_EVERY 500

struct run {
	struct world w;
	struct vc_pool_geometry geometry;
	char *dir, *pool_dir;
	uint32_t destage_ms;
};

static void run_start(struct run *run, uint64_t seed)
{
	*run = (struct run){ .destage_ms = seed % 2 ? ENGINE_DESTAGE_NEVER : 20 };
	engine_geometry(&seed, &run->geometry);
	run->dir = vc_unit_tmpdir();
	assert_non_null(run->dir);
	assert_true(asprintf(&run->pool_dir, "%s/pool", run->dir) > 0);
	assert_int_equal(vc_pool_create(vc_io_posix(), run->pool_dir, &run->geometry), 0);
	world_init(&run->w, seed, &run->geometry);
	world_attach(&run->w, engine_open(vc_io_posix(), run->pool_dir, run->destage_ms));
}

/* Close it, or let it go without a word: the page cache survives, so everything acknowledged must be there (D7). */
static void run_remount(struct run *run, bool sudden)
{
	world_stop(&run->w, sudden);
	world_attach(&run->w, engine_open(vc_io_posix(), run->pool_dir, run->destage_ms));
	assert_true(world_verify(&run->w));
}

static void run_clean(struct run *run)
{
	assert_int_equal(engine_task(run->w.pool, VC_TASK_CLEAN), 0);
	assert_true(world_verify(&run->w));
}

static void run_step(struct run *run)
{
	uint64_t roll = vc_unit_below(&run->w.rng, 1000), id;

	if (roll < 8)
		assert_int_equal(engine_task(run->w.pool, VC_TASK_DESTAGE), 0);
	else if (roll < 16)
		assert_int_equal(vc_pool_task_start(run->w.pool, VC_TASK_DESTAGE, &id), 0);
	else if (roll < 20)
		assert_int_equal(vc_pool_task_start(run->w.pool, VC_TASK_CLEAN, &id), 0);
	else if (roll < 23)
		run_clean(run);
	else if (roll < 26)
		run_remount(run, roll == 23);
	else
		world_step(&run->w);
}

/* Figures of the closed pool. */
static void run_meta_stats(struct run *run, struct vc_meta_stats *ret)
{
	struct vc_meta_params params = { .io = vc_io_posix(), .read_only = true };
	struct vc_meta *meta;
	char *path;

	assert_true(asprintf(&path, "%s/meta", run->pool_dir) > 0);
	params.dir = path;
	assert_int_equal(vc_meta_open(&params, &meta), 0);
	assert_int_equal(vc_meta_stats(meta, ret), 0);
	vc_meta_close(meta);
	free(path);
}

/* D6: what is deleted comes back. Reopening seals the chunk segments that were being filled. */
static void run_delete_all(struct run *run)
{
	struct vc_pool_figures figures;
	struct vc_meta_stats stats;
	struct vc_pool *pool;

	world_remove_all(&run->w);
	run_remount(run, false);
	pool = run->w.pool;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(engine_task(run->w.pool, VC_TASK_DESTAGE), 0);
		assert_int_equal(engine_task(run->w.pool, VC_TASK_CLEAN), 0);
	}
	assert_true(world_verify(&run->w));
	assert_int_equal(vc_pool_figures(run->w.pool, &figures), 0);
	assert_int_equal(figures.chunk_segments, 0);
	world_detach(&run->w);
	engine_close(pool);
	run_meta_stats(run, &stats);
	assert_int_equal(stats.nodes, 0);
}

static void run_end(struct run *run)
{
	struct vc_pool *pool = run->w.pool;

	if (pool) {
		world_detach(&run->w);
		engine_close(pool);
	}
	world_fini(&run->w);
	free(run->pool_dir);
	vc_unit_rmdir(run->dir);
}

static void test_random(void **state VC_UNUSED)
{
	const char *given = getenv("VC_TEST_STEPS");
	unsigned long steps = given ? strtoul(given, NULL, 0) : STEPS_DEFAULT / vc_unit_thin();
	uint64_t rng = vc_unit_seed();

	for (unsigned i = 0; i < RUNS; i++) {
		struct run run;

		run_start(&run, vc_unit_random(&rng));
		for (unsigned long n = 1; n <= steps; n++) {
			run_step(&run);
			if (n % VERIFY_EVERY == 0)
				assert_true(world_verify(&run.w));
		}
		run_remount(&run, true);
		run_delete_all(&run);
		run_end(&run);
	}
}

/* ---- the model itself ---- */

static uint64_t state_of(const unsigned *dirs, const unsigned *files, size_t n)
{
	struct model m = { .n = 0 };
	struct model_file *f[4] = { NULL };
	uint64_t state;

	for (size_t i = 0; i < n; i++) {
		char name[MODEL_TEXT];

		snprintf(name, sizeof(name), "f%02zu", i);
		f[files[i]] = f[files[i]] ? model_file_get(f[files[i]]) : model_file_new(S_IFREG | 0640);
		model_add(&m, dirs[i], name, f[files[i]]);
	}
	state = model_state(&m);
	model_clear(&m);
	return state;
}

/* The crash test finds out by this hash what a crash left: where a name lies, and which names are links of one file, counts. */
static void test_state(void **state VC_UNUSED)
{
	static const unsigned here[4] = { 0, 0, 0, 0 }, pairs[4] = { 0, 0, 1, 1 }, crossed[4] = { 0, 1, 0, 1 };
	uint64_t seen[MODEL_DIRS * 100];
	size_t n = 0;

	for (unsigned dir = 0; dir < MODEL_DIRS; dir++)
		for (unsigned i = 0; i < 100; i++) {
			struct model m = { .n = 0 };
			char name[MODEL_TEXT];

			snprintf(name, sizeof(name), "f%02u", i);
			model_add(&m, dir, name, model_file_new(S_IFREG | 0640));
			seen[n++] = model_state(&m);
			model_clear(&m);
		}
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < i; k++)
			assert_true(seen[i] != seen[k]);
	assert_true(state_of(here, pairs, 4) != state_of(here, crossed, 4));
	assert_true(state_of(here, pairs, 4) == state_of(here, pairs, 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_state),
		cmocka_unit_test_setup_teardown(test_random, engine_setup, engine_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
