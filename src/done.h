/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * done: completion of an operation that may finish later, on another thread.
 *
 * Rule for every function that takes a struct vc_done: when it returns a negative errno the
 * completion is NOT called; when it returns 0 the completion is called exactly once, possibly
 * before the function returns, possibly from another thread, with 0 or -errno. A completion must
 * not sleep and must not take a lock that ranks before VC_LOCK_DONE (see lock.h).
 */
#ifndef VC_DONE_H
#define VC_DONE_H

#include <pthread.h>
#include "util.h"

struct vc_done {
	void (*fn)(struct vc_done *done, int error);
	struct vc_done *next; /* this and at: owned by whoever holds the pending completion */
	uint64_t at;
};

static inline void vc_done_call(struct vc_done *done, int error)
{
	if (done)
		done->fn(done, error);
}

/** A completion that a thread can sleep on: init, start the operation with &w->done, wait. */
struct vc_wait {
	struct vc_done done;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool finished;
	int error;
};

void vc_wait_init(struct vc_wait *w);
/** Sleep until the completion was called; returns its error and releases what _init took. */
int vc_wait_for(struct vc_wait *w) VC_MUST_CHECK;
/**
 * `started` is what the starting call returned: when negative nothing is waited for and it is
 * returned; otherwise as vc_wait_for.
 */
int vc_wait_result(struct vc_wait *w, int started) VC_MUST_CHECK;

#endif
