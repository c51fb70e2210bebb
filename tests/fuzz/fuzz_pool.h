/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_pool: pools for targets that need a whole one: made once, with images, clones, links and attributes, on a simulated
 * disk; each input gets a copy of its own.
 */
#ifndef VC_FUZZ_POOL_H
#define VC_FUZZ_POOL_H

#include "../unit/crash_run.h"
#include "fuzz.h"

#define FUZZ_POOL "/pool"

enum fuzz_base_kind {
	FUZZ_BASE_LOG,       /* all of it in the log */
	FUZZ_BASE_DESTAGED,  /* most of it in LMDB and chunks, the last changes in the log */
	FUZZ_BASE_KINDS
};

struct fuzz_base {
	struct vc_sim *sim;
	uint64_t *states;    /* model_state() after each record of the log, oldest first: what a log cut short may hold */
	size_t nstates;
	uint64_t max_ino;
	uint64_t look;       /* fuzz_look() of it */
};

/** Made at the first call. */
const struct fuzz_base *fuzz_base_get(enum fuzz_base_kind kind);
/** A copy of its disk: vc_sim_free when the pool is closed. */
struct vc_sim *fuzz_base_copy(enum fuzz_base_kind kind);

/**
 * Look at everything there is in a pool, which may be damaged: names, attributes, bytes. 0 and a hash of it all, or the first
 * error met; what must hold whatever the damage is checked.
 */
int fuzz_look(struct vc_pool *pool, uint64_t *ret_hash) VC_MUST_CHECK;
/** Use a pool that may be damaged: change every image, clone one, destage, clean. 0, or the first error. */
int fuzz_use(struct vc_pool *pool) VC_MUST_CHECK;

#endif
