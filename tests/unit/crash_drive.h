/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * crash_drive: explores crash states with several processes, which count together.
 *
 *   VC_TEST_STATES  stop after so many states; "all": when there is no more work
 *   VC_TEST_SEED    of the whole run; each piece of work ("world") gets its own number from it
 *   VC_TEST_WORLD   only the world of that number, in this process
 *   VC_TEST_JOBS    processes; default: as many as there are processors
 */
#ifndef VC_CRASH_DRIVE_H
#define VC_CRASH_DRIVE_H

#include "util.h"

struct crash_drive {
	size_t states_default;
	size_t nworlds; /* 0: no end */
	bool pinned;    /* several processes stay on one processor each: twice as fast, and less happens at once */
	/* Explore world `i` with what random numbers it likes of `seed`, until `want` states are counted in all; fails the test. */
	void (*world)(uint64_t i, uint64_t seed, size_t want);
};

/** Run all; print counters; fail the test if a world failed, or if something that should happen never did. */
void crash_drive(const struct crash_drive *drive);

#endif
