/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * crash_count: what crash tests have made happen in the engine, counted by functions laid around those of the engine
 * (the linker's --wrap; see CRASH_WRAPS in Makefile.am). An exploration that never met one of the things it is
 * for has shown nothing about it: crash_count_print says so and the test fails.
 *
 * Counters lie in memory that processes share when crash_drive started them. Thread-safe.
 */
#ifndef VC_CRASH_COUNT_H
#define VC_CRASH_COUNT_H

#include "util.h"

enum crash_counter {
	CRASH_STATES, CRASH_DISTINCT, CRASH_NESTED, CRASH_BOOKS, CRASH_REBUILDS, CRASH_REPAIRS, CRASH_KILLS,
	CRASH_LOG_REUSED,   /* a log segment was used again: the log went round */
	CRASH_CUTS,         /* slices cut off the log */
	CRASH_DESTAGES,     /* checkpoints committed */
	CRASH_CLEANS,       /* sweeps completed */
	CRASH_UNLINKED,     /* chunk segments removed */
	CRASH_DIRECT,       /* writes past the log */
	CRASH_VOUCHED,      /* direct chunks that replay found whole above the durable LSN */
	CRASH_REFUSED,      /* and those it did not: the log ends there */
	CRASH_FROZEN,       /* overlays frozen by a clone */
	CRASH_PARKED,       /* requests that waited for log space */
	CRASH_DEFERRED,     /* nodes whose deletion waited for the end of a mark */
	CRASH_COUNTERS
};

void crash_count(enum crash_counter which);
size_t crash_counted(enum crash_counter which);
/** Let processes forked from now on count together. */
void crash_count_share(void);
void crash_count_reset(void);
/** Print all; false when something never happened. `seconds` for the rate. */
bool crash_count_print(double seconds);

/** Places where the engine can be held while the test does something else. */
enum crash_hold {
	CRASH_HOLD_NOT,
	CRASH_HOLD_STAGE, /* a slice is about to be written as chunks; nothing was synced for it but the log */
	CRASH_HOLD_MARK,  /* the mark has captured its roots and begins to walk */
	CRASH_HOLD_SWEEP, /* it has walked; nothing is deleted yet */
};
/** Hold the thread that comes there next; NOT: let it go on. */
void crash_hold(enum crash_hold where);
/** Sleep until a thread is held. */
void crash_wait_held(void);

#endif
