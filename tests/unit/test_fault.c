/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every call the engine makes on its files fails once, and for good, with every error that it may meet: nothing crashes or
 * hangs, nothing that was promised is lost, a failed sync stops the pool and a full disk does not.
 *
 * VC_TEST_STRIDE: only each so many-th call, beginning at a random one; 1, all of them, by `make faults`; VC_TEST_THIN. VC_TEST_SEED.
 */
#include "config.h"
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include "engine.h"
#include "fault_script.h"

#define SITES_MAX 5000
#define STRIDE 3
#define OPS_NAMED (VC_SIM_OPEN | VC_SIM_UNLINK | VC_SIM_RENAME | VC_SIM_MKDIR | VC_SIM_LIST)
#define OPS_SYNC (VC_SIM_SYNC | VC_SIM_SYNC_DIR)
#define OPS_SPACE (VC_SIM_OPEN | VC_SIM_WRITE | VC_SIM_ALLOCATE | VC_SIM_TRUNCATE | VC_SIM_RENAME | VC_SIM_MKDIR)

static const int space_only[] = { ENOSPC, EDQUOT, 0 };
static const int clean_errors[] = { EIO, EROFS, 0 };
static const int files_errors[] = { EMFILE, 0 };

struct kind {
	const char *name;
	unsigned ops;
	int error;
	bool partial, sticky;
	const int *allowed; /* what steps may return; NULL: anything */
	bool survives;      /* the pool does not fail (D8) */
};

static const struct kind kinds[] = {
	{ "EIO", VC_SIM_ANY & ~VC_SIM_WRITEBACK, EIO, false, false, clean_errors, false },
	{ "EIO for good", VC_SIM_ANY & ~VC_SIM_WRITEBACK, EIO, false, true, clean_errors, false },
	{ "short write, EIO", VC_SIM_WRITE, EIO, true, false, clean_errors, false },
	{ "ENOSPC", OPS_SPACE, ENOSPC, false, false, space_only, true },
	{ "EDQUOT", OPS_SPACE, EDQUOT, false, false, space_only, true },
	{ "short write, ENOSPC", VC_SIM_WRITE, ENOSPC, true, false, space_only, true },
	{ "ENOSPC of a sync", OPS_SYNC, ENOSPC, false, false, clean_errors, false },
	{ "EMFILE", VC_SIM_OPEN | VC_SIM_LIST, EMFILE, false, false, files_errors, true },
	{ "LMDB: EIO", VC_SIM_META_ANY, EIO, false, false, clean_errors, false },
	{ "LMDB: EIO for good", VC_SIM_META_ANY, EIO, false, true, clean_errors, false },
	{ "LMDB: short write", VC_SIM_META_WRITE, EIO, true, false, clean_errors, false },
	{ "LMDB: ENOSPC", VC_SIM_META_WRITE | VC_SIM_META_ALLOCATE, ENOSPC, false, false, NULL, false },
	{ "LMDB: EDQUOT", VC_SIM_META_WRITE | VC_SIM_META_ALLOCATE, EDQUOT, false, false, NULL, false },
	{ "LMDB: no room", VC_SIM_META_ALLOCATE, ENOSPC, false, false, space_only, true },
	{ "LMDB: ENOSPC of a sync", VC_SIM_META_SYNC, ENOSPC, false, false, space_only, true },
	{ "LMDB: ENOMEM", VC_SIM_META_OPEN | VC_SIM_META_MAP, ENOMEM, false, false, NULL, false },
	{ "EMFILE of a sync", VC_SIM_SYNC_DIR, EMFILE, false, false, NULL, false },
};

static uint64_t base_seed, stride;
static size_t nruns;

/* One run with the n-th call failing. Returns whether there was such a call. */
static bool run_once(const struct kind *k, unsigned nth)
{
	struct vc_sim_fault fault = { .ops = k->ops, .nth = nth, .error = k->error, .partial = k->partial, .sticky = k->sticky };
	struct fault_script s;
	bool struck;

	fault_script_init(&s, base_seed + nth);
	s.allowed = k->allowed;
	world_note("%s, call %u\n", k->name, nth);
	vc_sim_fail(s.run->sim, &fault);
	fault_script_run(&s);
	struck = vc_sim_faults(s.run->sim) > 0;
	vc_sim_fail(s.run->sim, NULL);
	if (k->survives && fault_script_failed(&s))
		fail_msg("the pool failed");
	if (!struck)
		assert_int_equal(s.refused, 0);
	fault_script_check(&s);
	fault_script_fini(&s);
	return struck;
}

static const struct kind *now_kind;
static unsigned now_nth;

static void say_where(void)
{
	if (now_kind)
		fprintf(stderr, "at: %s, call %u; last message: %s\n", now_kind->name, now_nth, vc_unit_last_message());
}

static void run_kind(const struct kind *k, uint64_t *rng)
{
	unsigned nth = 1 + (unsigned)vc_unit_below(rng, stride), n = 0;
	uint64_t began = vc_mono_ns();

	now_kind = k;
	for (now_nth = nth; now_nth < SITES_MAX && run_once(k, now_nth); now_nth += (unsigned)stride)
		n++;
	assert_true(now_nth < SITES_MAX);
	now_kind = NULL;
	nruns += n;
	printf("%-24s %u calls failed, %.1f s\n", k->name, n, (double)(vc_mono_ns() - began) / 1e9);
	fflush(stdout);
}

static void test_every_call(void **state VC_UNUSED)
{
	const char *given = getenv("VC_TEST_STRIDE");
	uint64_t rng = vc_unit_seed(), began = vc_mono_ns();

	base_seed = vc_unit_random(&rng);
	stride = given ? strtoull(given, NULL, 0) : STRIDE * vc_unit_thin();
	assert_true(stride > 0);
	nruns = 0;
	for (size_t i = 0; i < VC_ARRAY_LEN(kinds); i++)
		run_kind(&kinds[i], &rng);
	printf("%zu faults, %zu kinds, in %.1f s\n", nruns, VC_ARRAY_LEN(kinds), (double)(vc_mono_ns() - began) / 1e9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_every_call, engine_setup, engine_teardown),
	};

	atexit(say_where);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
