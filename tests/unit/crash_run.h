/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * crash_run: a world on a simulated disk, with the model's state after each operation and where in the disk's history
 * that operation lies; and what may be found after a crash.
 *
 * State k is that after the k-th log record. At crash point `at`:
 *   D1  no state before the last one that was promised to be durable at or before `at`
 *   D2  a state, that of all images and names together, not a mixture of several; none that began after `at`
 *   D7  if nothing issued was lost: none before the last one acknowledged
 *
 * The disk is a simulated one, or one of the kernel's whose history somebody else writes down (struct crash_disk).
 */
#ifndef VC_CRASH_RUN_H
#define VC_CRASH_RUN_H

#include "io_sim.h"
#include "world.h"

#define CRASH_POOL "/pool"

/** Where a pool lies, and how far the history of its disk has come: a number that never falls. */
struct crash_disk {
	struct vc_io *io;
	const char *dir;
	size_t (*now)(void *ctx);
	void *ctx;
};

struct crash_state {
	size_t started, acked, durable; /* events of the disk; SIZE_MAX: not yet */
	uint64_t hash;
	struct model model;
};

struct crash_run {
	struct vc_sim *sim;   /* NULL: the disk is not simulated */
	struct crash_disk disk;
	struct world w;
	struct vc_pool_geometry geometry;
	struct crash_state *states;
	size_t nstates, cap;
	size_t started;      /* of the operation that runs */
	size_t first_event;  /* no crash before this */
};

/** A new disk with an empty pool, open. */
struct crash_run *crash_run_new(uint64_t seed, uint32_t destage_ms);
/** The same with a log as small as may be, which goes round within a few operations; one record holds up to w.max_log_write bytes. */
struct crash_run *crash_run_new_small(uint64_t seed, uint32_t destage_ms);
/** The same on another disk; what `disk` points to must stay. */
struct crash_run *crash_run_new_on(const struct crash_disk *disk, uint64_t seed, uint32_t destage_ms);
/** Stop as a crash would: no more operations, but the states stay. */
void crash_run_stop(struct crash_run *run);
/** Stop as a crash would; frees everything. */
void crash_run_free(struct crash_run *run);

/** One random operation, or several at once, or a destage or clean that goes on in the background. */
void crash_run_step(struct crash_run *run);
/** For operations made by a test: put them between these, after changing run->w.model. */
void crash_run_begin(struct crash_run *run);
void crash_run_end(struct crash_run *run, bool durable);
/** Instead of crash_run_end: it failed, and the pool with it, so its state may be found or not. */
void crash_run_doubt(struct crash_run *run);

/**
 * Crash `run` at `at`, open what is left and compare. Returns the new run, which begins with the state found and is open,
 * or fails the test after printing what was found.
 */
struct crash_run *crash_run_crash(struct crash_run *run, size_t at, const struct vc_sim_policy *policy);
/**
 * Does `pool`, on a disk not simulated, hold a state that `run` allows after a crash at `at` which may have lost anything not synced? *ret_state:
 * which. Otherwise false, after printing what differs; also when it cannot be read.
 */
bool crash_run_allows(struct crash_run *run, size_t at, struct vc_pool *pool, size_t *ret_state);
/** Close the pool as at the end of a day, open it again, compare; fails the test. */
void crash_run_reopen(struct crash_run *run);
/**
 * The process dies and starts again, the machine goes on: nothing acknowledged is lost (D7), and what was not synced before is as
 * uncertain as it was; but what recovery shows is durable. Compares; fails the test.
 */
void crash_run_kill(struct crash_run *run);
/** The newest state allowed at `at` whose hash this is; SIZE_MAX: none. */
size_t crash_run_match(const struct crash_run *run, size_t at, const struct vc_sim_policy *policy, uint64_t hash);
/** Print what was allowed and what was found instead. */
void crash_run_explain(struct crash_run *run, size_t at, const struct vc_sim_policy *policy, struct model *found);
/** Open what a crash left (recovery) and read all of it. 0, or -errno of open or read. */
int crash_load(struct vc_sim *sim, struct vc_pool **ret_pool, struct model *ret);
const char *crash_policy_name(const struct vc_sim_policy *policy);
/** A random policy. */
struct vc_sim_policy crash_policy(struct crash_run *run, uint64_t *rng, size_t at);

#endif
