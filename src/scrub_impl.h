/* SPDX-License-Identifier: BSD-2-Clause */
/* scrub_impl: what the files of the scrub share. */
#ifndef VC_SCRUB_IMPL_H
#define VC_SCRUB_IMPL_H

#include "pool_impl.h"
#include "scrub.h"

struct scrub_range {
	uint64_t segno, from, to;
};

struct vc_scrub {
	struct vc_pool *pool;
	struct vc_scrub_status status;  /* pool lock */
	struct vc_scrub_found *found;   /* pool lock */
	size_t nfound, found_cap;       /* pool lock; status.found may be higher */
	bool stop, joinable;            /* pool lock */
	bool begun;                     /* pool lock: that it runs is in POOL/scrub */
	pthread_t thread;

	uint64_t due_ns;                /* pool lock; pacing: not to read on before */

	/* Of the thread: */
	struct scrub_range *ranges;
	size_t nranges, ranges_cap;
	uint64_t *nodes;                /* damaged map nodes */
	size_t nnodes, nodes_cap;
	uint64_t rate_min;              /* bytes/s below which a set rate does not count */
	uint64_t next_segno, end_segno;
	uint64_t saved_ns;              /* when the position was last stored */
};

/* scrub.c */
/** Account for `bytes` that were read and wait as the rate demands. 0, or -EINTR when it has to stop. */
int vc_scrub_pace(struct vc_scrub *s, uint64_t bytes) VC_MUST_CHECK;
/** List something found; what continues the last entry is joined to it. */
void vc_scrub_add(struct vc_scrub *s, const struct vc_scrub_found *found);

/* scrub_run.c */
/** The pass. 0, -EINTR (stopped), -errno. */
int vc_scrub_run(struct vc_scrub *s) VC_MUST_CHECK;
/** After each segment: the position may be stored (scrub.c). */
void vc_scrub_save(struct vc_scrub *s, bool running, bool now);

#endif
