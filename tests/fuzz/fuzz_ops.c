/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz the engine as a whole: the input decides every choice of the random world (tests/unit/world.h): operations on files,
 * names and clones, several at once, destage, clean, closing; and crashes of its simulated disk, after which the pool must
 * hold a state it may hold (D1, D2, D3, D7). Where the input ends the choices are those of a fixed seed.
 */
#include "config.h"
#include "../unit/unit.h"

#include "../unit/engine.h"
#include "fuzz_pool.h"

#define STEPS_MAX 80
#define CRASHES_MAX 3

/* What the crash point's policy is; from the input, as everything. */
static struct crash_run *ops_crash(struct crash_run *run, uint64_t *rng)
{
	size_t at = run->first_event + vc_unit_below(rng, vc_sim_events(run->sim) - run->first_event + 1);
	struct vc_sim_policy policy = crash_policy(run, rng, at);
	struct crash_run *next = crash_run_crash(run, at, &policy);

	crash_run_free(run);
	return next;
}

void fuzz_ops(const uint8_t *data, size_t len)
{
	struct crash_run *run = crash_run_new(4, len && data[0] % 2 ? 3 : ENGINE_DESTAGE_NEVER);
	uint64_t rng = 1;
	unsigned int crashes = 0;

	vc_unit_script(len ? data + 1 : NULL, len ? len - 1 : 0);
	for (unsigned int i = 0; i < STEPS_MAX && vc_unit_script_left(); i++) {
		uint64_t roll = vc_unit_below(&rng, 64);

		if (roll == 0 && crashes++ < CRASHES_MAX)
			run = ops_crash(run, &rng);
		else if (roll == 1)
			fuzz_check(engine_task(run->w.pool, VC_TASK_CLEAN) == 0);
		else if (roll == 2)
			crash_run_reopen(run);
		else if (roll == 3)
			fuzz_check(world_verify(&run->w));
		else
			crash_run_step(run);
	}
	fuzz_check(world_verify(&run->w));
	run = ops_crash(run, &rng);
	vc_unit_script(NULL, 0);
	crash_run_free(run);
}
