/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * work: a few threads that take over pieces of a computation from whoever is at it.
 *
 * For work that keeps a processor busy (compression), split so finely that a piece costs more than waking a thread. The
 * caller works on its own pieces meanwhile, so nothing waits for a thread that is busy elsewhere, and with no threads at all
 * everything is done by the caller.
 */
#ifndef VC_WORK_H
#define VC_WORK_H

#include "util.h"

struct vc_workers;

/**
 * One thread less than there are processors for this process, at most VC_WORKERS_MAX. Threads that cannot be made are done
 * without. NULL: no memory; vc_work_run takes that too.
 */
struct vc_workers *vc_workers_new(void);
/** No vc_work_run may be in progress. NULL is ignored. */
void vc_workers_free(struct vc_workers *workers);

#define VC_WORKERS_MAX 15

/** Processors that this process may use. */
unsigned int vc_work_processors(void);

/** How many threads there are besides the callers. */
unsigned int vc_workers_count(const struct vc_workers *workers);

/**
 * Call fn(ctx, i) once for each i below n, in any order, several at a time; returns when all have returned. Thread-safe. fn may
 * take locks and do I/O; the caller holds no lock that fn takes.
 */
void vc_work_run(struct vc_workers *workers, size_t n, void (*fn)(void *ctx, size_t i), void *ctx);

#endif
