/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Crashes of the whole engine on a simulated disk: random work, then many states that a power cut may have left of it are
 * opened and compared (D1, D2, D3, D7); some of them live on, and crash again.
 *
 * VC_TEST_STATES: how many states to look at; VC_TEST_SEED.
 */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include <sys/stat.h>
#include "crash_run.h"
#include "engine.h"

#define STATES_DEFAULT 3000
#define STATES_PER_RUN 60
#define STEPS 60
#define STEPS_LATER 12
#define LIVES 3

static size_t checked;

static size_t pick_point(struct crash_run *run, uint64_t *rng)
{
	size_t end = vc_sim_events(run->sim), span = end - run->first_event;

	return run->first_event + vc_unit_below(rng, span + 1);
}

static void live_on(struct crash_run *run, uint64_t *rng, unsigned life);

static void crash_once(struct crash_run *run, uint64_t *rng, unsigned life)
{
	size_t at = pick_point(run, rng);
	struct vc_sim_policy policy = crash_policy(run, rng, at);
	struct crash_run *next = crash_run_crash(run, at, &policy);

	checked++;
	if (life < LIVES && vc_unit_below(rng, 6) == 0)
		live_on(next, rng, life + 1);
	crash_run_free(next);
}

/* The pool goes on after its crash, as if nothing had been. */
static void live_on(struct crash_run *run, uint64_t *rng, unsigned life)
{
	for (unsigned i = 0; i < STEPS_LATER; i++)
		crash_run_step(run);
	assert_true(world_verify(&run->w));
	if (vc_unit_below(rng, 3) == 0)
		crash_run_reopen(run);
	for (unsigned i = 0; i < 3; i++)
		crash_once(run, rng, life);
}

static void test_random(void **state VC_UNUSED)
{
	const char *given = getenv("VC_TEST_STATES");
	size_t want = given ? strtoull(given, NULL, 0) : STATES_DEFAULT;
	uint64_t rng = vc_unit_seed(), began = vc_mono_ns();
	double seconds;

	checked = 0;
	while (checked < want) {
		uint64_t seed = vc_unit_random(&rng);
		size_t end = checked + STATES_PER_RUN;
		struct crash_run *run = crash_run_new(seed, seed % 2 ? ENGINE_DESTAGE_NEVER : 3);

		for (unsigned i = 0; i < STEPS; i++)
			crash_run_step(run);
		assert_true(world_verify(&run->w));
		while (checked < end)
			crash_once(run, &rng, 0);
		crash_run_free(run);
	}
	seconds = (double)(vc_mono_ns() - began) / 1e9;
	printf("%zu crash states in %.1f s, %.0f a second\n", checked, seconds, (double)checked / seconds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_random, engine_setup, engine_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
