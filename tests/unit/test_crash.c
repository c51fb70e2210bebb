/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Crashes of the whole engine on a simulated disk: random work, then many states that a power cut may have left of it are
 * opened and compared (D1, D2, D3, D7); some of them live on, and crash again; some crash within recovery, a
 * checkpoint or a clean. See crash_drive.h for the environment.
 */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include "crash_count.h"
#include "crash_drive.h"
#include "crash_look.h"
#include "engine.h"

#define STATES_DEFAULT 3000
#define STATES_PER_WORLD 120
#define STEPS 60
#define STEPS_LATER 12
#define LIVES 3
#define NEST 12

static void live_on(struct crash_look *look, struct crash_run *run, unsigned life);

static void crash_once(struct crash_look *look, struct crash_run *run, unsigned life)
{
	size_t span = vc_sim_events(run->sim) - run->first_event, at = run->first_event + vc_unit_below(&look->rng, span + 1);
	struct vc_sim_policy policy = crash_policy(run, &look->rng, at);
	struct crash_run *next;

	if (life >= LIVES || vc_unit_below(&look->rng, 8)) {
		crash_look_state(look, run, at, &policy);
		return;
	}
	crash_count(CRASH_STATES);
	next = crash_run_crash(run, at, &policy);
	live_on(look, next, life + 1);
	crash_run_free(next);
}

/* The pool goes on after its crash, as if nothing had been. */
static void live_on(struct crash_look *look, struct crash_run *run, unsigned life)
{
	for (unsigned i = 0; i < STEPS_LATER; i++)
		crash_run_step(run);
	assert_true(world_verify(&run->w));
	if (vc_unit_below(&look->rng, 3) == 0)
		crash_run_reopen(run);
	for (unsigned i = 0; i < 3; i++)
		crash_once(look, run, life);
}

static void world(uint64_t i VC_UNUSED, uint64_t seed, size_t want)
{
	struct crash_run *run = crash_run_new_small(seed, seed % 2 ? ENGINE_DESTAGE_NEVER : 3);
	struct crash_look look;

	crash_look_init(&look, seed, NEST);
	for (unsigned k = 0; k < STEPS; k++)
		crash_run_step(run);
	assert_true(world_verify(&run->w));
	for (unsigned k = 0; k < STATES_PER_WORLD && crash_counted(CRASH_STATES) < want; k++)
		crash_once(&look, run, 0);
	crash_look_fini(&look);
	crash_run_free(run);
}

static void test_random(void **state VC_UNUSED)
{
	crash_drive(&(struct crash_drive){ .states_default = STATES_DEFAULT, .world = world });
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_random, engine_setup, engine_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
