/* SPDX-License-Identifier: BSD-2-Clause */
/* destage_impl: what the files of the destage share: one slice on its way into LMDB. Used by the thread that destages alone. */
#ifndef VC_DESTAGE_IMPL_H
#define VC_DESTAGE_IMPL_H

#include "pool_impl.h"

/* A change whose source, for a share, becomes known only while folding. */
struct staged_change {
	struct vc_change change;
	struct vc_base *source;
};

struct staged_base {
	struct vc_base *base;     /* counted */
	struct vc_base *ancestor; /* content its changes apply to; kept by base's chain */
	uint64_t dead_tag;
	struct staged_change *changes;
	size_t nchanges, cap;
};

struct destage {
	struct vc_pool *pool;
	struct vc_slice *slice;
	struct vc_base **pending; /* counted; oldest first */
	size_t npending;
	struct staged_base *staged;
	size_t nstaged;
	struct vc_slice_row **rows;
	uint8_t *buf;             /* one chunk */
	uint64_t images;          /* how many there are after the commit */
	bool journalled;          /* its journal entry is written */
};

/*
 * Steps, in this order. All return 0 or -errno; a failure leaves LMDB and memory as they were, and vc_destage_slice frees
 * what *d holds in any case.
 */

/* destage_stage.c */
/** Fills d->pending and d->staged and appends chunks, which the caller then syncs. */
int vc_destage_stage(struct destage *d) VC_MUST_CHECK;

/* destage_commit.c */
/** Sees to room in LMDB's file for the transaction, while giving up is still easy. */
int vc_destage_reserve(struct destage *d) VC_MUST_CHECK;
/** Writes and syncs the entry of the journal. */
int vc_destage_journal(struct destage *d) VC_MUST_CHECK;
/** The transaction and the swap of views. Takes the fold lock. */
int vc_destage_commit(struct destage *d) VC_MUST_CHECK;

#endif
