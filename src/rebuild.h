/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rebuild: a new LMDB for a pool whose own is lost or damaged, from the newest backup that verifies and the destage journal
 * after it; the log is replayed on it by the next mount.
 *
 * It is made beside the old one, checked (the log replayed in memory too), and put in its place by renames at the end: until
 * then nothing of the pool has changed. The old one is kept. A crash leaves a pool that can be rebuilt again.
 *
 * The result is equal to what was lost (but for node ids and figures of the last mark), or nothing is changed. With `salvage` it
 * is what can be had: whatever of backup and journal is whole, then images by the headers of chunks (see salvage.h).
 */
#ifndef VC_REBUILD_H
#define VC_REBUILD_H

#include "check.h"

struct vc_rebuild_options {
	struct vc_check_options check; /* how the result is checked; found() is also told why a rebuild is refused */
	bool salvage;
	/* What is done, one line each. */
	void (*say)(void *ctx, const char *text);
};

struct vc_rebuild_result {
	uint64_t backup_lsn;       /* checkpoint of the backup it began with; 0: none, from the beginning */
	uint64_t entries;          /* of the journal, applied */
	uint64_t checkpoint_lsn;
	bool replaced;             /* the pool has the new LMDB */
	bool salvaged;             /* not all that was there could be had */
	uint64_t salvaged_images, salvaged_blocks;
	char kept[64];             /* where the old one is, within the pool; "": there was none */
	struct vc_check_result check;
};

/** Returns 0 (look at `replaced` and at the findings), -EBUSY (the pool is in use), -errno: with a message. */
int vc_rebuild_pool(struct vc_io *io, const char *dir, const struct vc_rebuild_options *options,
		    struct vc_rebuild_result *ret) VC_MUST_CHECK;

#endif
