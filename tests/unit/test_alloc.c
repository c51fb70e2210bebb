/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every allocation of the engine, and of LMDB in its name, fails once, and with all that come after it: nothing crashes or hangs, no false
 * success, nothing that was promised is lost, nothing leaks. When there is memory again the pool works, or has failed, as it may when a
 * record was logged and cannot be applied: then it refuses every change, reads on (but when memory stayed away: EIO at worst), and has all when
 * it is opened again.
 *
 * VC_TEST_STRIDE: only each so many-th call, beginning at a random one, and the first call of each place in the code; 1, all of them, by `make
 * faults`. VC_TEST_SEED. VC_TEST_CALL: only that call.
 */
#include "config.h"
#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include "alloc_fault.h"
#include "engine.h"
#include "fault_script.h"

#define STRIDE 97

/* EIO, EROFS: of a pool that failed. */
static const int memory_errors[] = { ENOMEM, EAGAIN, EIO, EROFS, 0 };

static uint64_t base_seed, stride, now_nth;
static uint64_t nfailed, nworks;
static bool now_sticky;
static const void *now_site;
static struct alloc_places struck_places;

static void say_where(void)
{
	if (now_nth)
		fprintf(stderr, "at: call %llu%s, %s; last message: %s\n", (unsigned long long)now_nth, now_sticky ? " and all after it" : "",
			alloc_fault_site_name(now_site), vc_unit_last_message());
}

/* One run with the n-th call failing; 0: none. Returns how many calls there were. */
static uint64_t run_once(uint64_t nth, bool sticky)
{
	int64_t live = alloc_fault_live();
	struct fault_script s;
	uint64_t calls;
	bool failed;

	now_nth = nth;
	now_sticky = sticky;
	fault_script_init(&s, base_seed);
	s.allowed = memory_errors;
	s.unreadable = sticky;
	world_note("allocation %llu\n", (unsigned long long)nth);
	alloc_fault_arm(nth, sticky);
	fault_script_run(&s);
	calls = alloc_fault_disarm();
	now_site = alloc_fault_site(nth);
	if (nth == 0)
		assert_int_equal(s.refused, 0);
	else if (now_site)
		alloc_places_add(&struck_places, now_site);
	failed = fault_script_failed(&s);
	fault_script_check(&s);
	fault_script_fini(&s);
	if (failed)
		nfailed++;
	if (nth && !failed && now_site && calls >= nth)
		nworks++;
	assert_int_equal(alloc_fault_live(), live);
	now_nth = 0;
	return calls;
}

static void test_every_allocation(void **state VC_UNUSED)
{
	const char *given = getenv("VC_TEST_STRIDE"), *only = getenv("VC_TEST_CALL");
	uint64_t rng = vc_unit_seed(), began = vc_mono_ns(), calls, nruns = 0;
	static struct alloc_places places;
	static bool wanted[1 << 16];

	base_seed = vc_unit_random(&rng);
	stride = given ? strtoull(given, NULL, 0) : STRIDE;
	assert_true(stride > 0);
	calls = run_once(0, false);
	assert_true(calls < VC_ARRAY_LEN(wanted));
	alloc_fault_choose(calls, stride, &rng, &places, wanted);
	for (int sticky = 0; sticky <= 1; sticky++) {
		for (uint64_t i = 1; i <= calls; i++) {
			if (only ? i != strtoull(only, NULL, 0) : !wanted[i])
				continue;
			run_once(i, sticky);
			nruns++;
		}
	}
	printf("%llu allocations from %zu places%s; %llu runs with one or all that follow failing, %zu places hit; %llu pools worked on, %llu failed; in %.1f s\n",
	       (unsigned long long)calls, places.n, alloc_fault_has_libraries() ? ", LMDB's among them" : ", without LMDB's",
	       (unsigned long long)nruns, struck_places.n, (unsigned long long)nworks, (unsigned long long)nfailed, (double)(vc_mono_ns() - began) / 1e9);
	assert_true(calls > 500 && places.n > 50);
	assert_true(only || (nworks > nruns / 4 && struck_places.n > places.n / 2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_every_allocation, engine_setup, engine_teardown),
	};

	atexit(say_where);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
