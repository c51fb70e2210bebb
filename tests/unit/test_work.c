/* SPDX-License-Identifier: BSD-2-Clause */
/* Pieces of work for several threads: each is done once, all are done at the return, and one at a time may wait for another. */
#include "config.h"
#include "unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "work.h"

#define PIECES 200
#define CALLERS 4
#define ROUNDS 300

struct job {
	atomic_uint times[PIECES];
	atomic_uint running, most;
};

static void job_piece(void *ctx, size_t i)
{
	struct job *job = ctx;
	unsigned running = atomic_fetch_add(&job->running, 1) + 1, most = atomic_load(&job->most);

	while (most < running && !atomic_compare_exchange_weak(&job->most, &most, running))
		;
	atomic_fetch_add(&job->times[i], 1);
	atomic_fetch_sub(&job->running, 1);
}

static void run(struct vc_workers *workers, size_t n)
{
	struct job job = { .running = 0 };

	vc_work_run(workers, n, job_piece, &job);
	assert_int_equal(atomic_load(&job.running), 0);
	for (size_t i = 0; i < PIECES; i++)
		assert_int_equal(atomic_load(&job.times[i]), i < n);
}

static void test_each_once(void **state VC_UNUSED)
{
	struct vc_workers *workers = vc_workers_new();

	assert_non_null(workers);
	for (size_t n = 0; n <= PIECES; n++)
		run(workers, n);
	vc_workers_free(workers);
}

static void test_without_threads(void **state VC_UNUSED)
{
	run(NULL, PIECES);
	vc_workers_free(NULL);
}

/* A piece that cannot end before another one has begun: they do run at once. */
struct pair {
	pthread_barrier_t both;
};

static void pair_piece(void *ctx, size_t i VC_UNUSED)
{
	struct pair *pair = ctx;

	pthread_barrier_wait(&pair->both);
}

static void test_at_once(void **state VC_UNUSED)
{
	struct vc_workers *workers = vc_workers_new();
	struct pair pair;

	if (vc_workers_count(workers) == 0) {
		vc_workers_free(workers);
		skip();
	}
	pthread_barrier_init(&pair.both, NULL, 2);
	for (int i = 0; i < 50; i++)
		vc_work_run(workers, 2, pair_piece, &pair);
	pthread_barrier_destroy(&pair.both);
	vc_workers_free(workers);
}

static void *caller(void *arg)
{
	uint64_t rng = (uint64_t)(uintptr_t)&arg;

	for (int i = 0; i < ROUNDS; i++)
		run(arg, vc_unit_below(&rng, PIECES));
	return NULL;
}

static void test_many_callers(void **state VC_UNUSED)
{
	struct vc_workers *workers = vc_workers_new();
	pthread_t threads[CALLERS];

	for (int i = 0; i < CALLERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, caller, workers), 0);
	for (int i = 0; i < CALLERS; i++)
		pthread_join(threads[i], NULL);
	vc_workers_free(workers);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_once),
		cmocka_unit_test(test_without_threads),
		cmocka_unit_test(test_at_once),
		cmocka_unit_test(test_many_callers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
