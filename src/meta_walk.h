/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta_walk: every page of every tree of one snapshot of an LMDB file, read and compared with what LMDB relies on.
 *
 * LMDB trusts its pages: one wrong number in them makes it miss keys without a word, stop in an assertion, or overwrite what is in use. So
 * the store is walked once before LMDB may follow its pages, and by every scrub. Plain reads only; nothing is mapped, locked or changed. The
 * caller holds the snapshot with a read transaction. Costs one read of 4 KiB a page in use.
 */
#ifndef VC_META_WALK_H
#define VC_META_WALK_H

#include "meta.h"

struct vc_meta_walk {
	const char *path;      /* of the data file */
	uint64_t txn;          /* the snapshot's transaction */
	bool nodes;            /* verify the checksums of map nodes, too; those of rows always are */
	bool direct;           /* past the page cache, where the file system can: what lies on the disk is looked at */
	/* A value with a wrong checksum. Non-zero ends the walk and is returned. */
	int (*bad)(void *ctx, enum vc_meta_db db, const void *key, size_t key_len);
	/* After each page; non-zero ends the walk and is returned. May be NULL. */
	int (*step)(void *ctx, size_t bytes);
	void *ctx;

	/* Results. */
	uint64_t pages;
	uint64_t count[VC_DB_COUNT];
	uint64_t rows_sum;     /* of the checksums of all rows, modulo 2^64 */
};

/**
 * Returns 0; -EUCLEAN (a page is not as it must be; with a message naming file, page and offset); -EAGAIN: the file does not hold this
 * snapshot any more; -errno.
 */
int vc_meta_walk(struct vc_meta_walk *walk) VC_MUST_CHECK;

#endif
