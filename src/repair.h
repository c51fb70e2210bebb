/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * repair: sets right what a check finds and what can be set right without giving anything up.
 *
 *   counters, link counts, figures, parents      computed again
 *   images, files, directories without a name    get one in lost+found
 *   names of what does not exist                 move to lost+found as an empty file that says where it was
 *   rows of inodes that do not exist             the inode is made again around them
 *   unreadable rows and map nodes, lost chunks   stay as they are, and read as EIO: a rebuild may have them
 *
 * Everything is done on a copy of LMDB, which takes the place of the first at the end, in one rename; a copy of what was before is kept in
 * POOL/backup. A crash leaves the pool as it was or repaired. A second run finds nothing to do.
 */
#ifndef VC_REPAIR_H
#define VC_REPAIR_H

#include "check.h"

struct vc_repair_options {
	struct vc_check_options check; /* found: told of everything found before */
	/* What is done, one line each. */
	void (*say)(void *ctx, const char *text);
	/* What is still wrong at the end. */
	void (*left)(void *ctx, const char *text);
};

struct vc_repair_result {
	struct vc_check_result before, after; /* after: equal to before when nothing was to be done */
	uint64_t fixed;
	bool replaced;  /* LMDB was changed */
	char kept[64];  /* in POOL/backup: the LMDB file before; "": none was made */
};

/** Returns 0 (look at after.findings), -EBUSY (the pool is in use), -errno: with a message. */
int vc_repair_pool(struct vc_io *io, const char *dir, const struct vc_repair_options *options,
		   struct vc_repair_result *ret) VC_MUST_CHECK;

/** The same for POOL/meta/new.mdb, which nobody uses yet: repaired where it lies, not checked in the end. The pool is locked. */
int vc_repair_new(struct vc_io *io, const char *dir, void (*say)(void *ctx, const char *text), void *ctx) VC_MUST_CHECK;

/** vc_repair_pool for a pool that the caller has locked, after what is in its log was put into LMDB, as a mount does. */
int vc_repair_drained(struct vc_io *io, const char *dir, const struct vc_repair_options *options,
		      struct vc_repair_result *ret) VC_MUST_CHECK;

#endif
