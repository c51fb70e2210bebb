/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * crash_look: looks at crash states of a run: recovers, compares, and checks the books; each distinct disk only once.
 *
 * A state whose disk is, byte for byte and name for name, one that was looked at before is only compared with what is
 * allowed where it stands now. Of some distinct states more is asked: that an operation on them may be struck by
 * a crash itself, wherever it is. Failures end the test after printing the state.
 */
#ifndef VC_CRASH_LOOK_H
#define VC_CRASH_LOOK_H

#include "crash_run.h"

struct crash_seen {
	uint64_t disk, found; /* 0: free */
};

struct crash_seen_set {
	struct crash_seen *v;
	size_t n, size;
};

struct crash_look {
	struct crash_seen_set disks, keys; /* by vc_sim_hash, by vc_sim_crash_key */
	unsigned nest;    /* of so many distinct states one is given to an operation; 0: none */
	unsigned rebuild; /* and one also loses its LMDB, which is rebuilt; 6 at first */
	uint64_t rng;
};

void crash_look_init(struct crash_look *look, uint64_t seed, unsigned nest);
void crash_look_fini(struct crash_look *look);

/** One state. Was its disk new? */
bool crash_look_state(struct crash_look *look, struct crash_run *run, size_t at, const struct vc_sim_policy *policy);
/**
 * All points from `from` to `to`, both included, each with: all, nothing, data only, names only, and of the last uncertain operations
 * each dropped, kept alone, torn; and some at random. Stops early when `want` states were looked at in all.
 */
void crash_look_range(struct crash_look *look, struct crash_run *run, size_t from, size_t to, size_t want);

/**
 * Something that is done with a pool that crashed, and may be struck itself. It opens what it needs and leaves nothing open; what the
 * pool holds must be the same afterwards, and at every moment in between.
 */
struct crash_operation {
	const char *name;
	int (*run)(struct vc_io *io, const char *dir);
	bool again; /* after a crash within it, it is run again to its end before the pool is looked at */
	bool wrong_books; /* until it has ended, a check may find something */
};

extern const struct crash_operation crash_operations[];
extern const size_t crash_noperations;

/**
 * Do `op` on `sim`, whose contents have hash `want`, crash at some points of it, and look; at one of them do it again, crash within that,
 * and so on to `depth` crashes. Frees sim.
 */
void crash_look_operation(struct crash_look *look, struct vc_sim *sim, uint64_t want, const struct crash_operation *op, unsigned depth);

#endif
