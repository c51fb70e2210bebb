/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * repair_impl: what the files of the repair share. One pass: a check fills `c` from the copy, the steps below change the copy and `c` with
 * it, and changed inodes are written at the end. Passes follow each other until a check finds nothing more that can be repaired.
 */
#ifndef VC_REPAIR_IMPL_H
#define VC_REPAIR_IMPL_H

#include "check_impl.h"
#include "rebuild_impl.h"
#include "repair.h"

struct repair {
	struct vc_io *io;
	const char *dir;
	const struct vc_repair_options *o;
	struct vc_repair_result *ret;
	uint64_t highest_ino;        /* that the log names */
	/* of one pass: */
	struct check c;
	struct vc_meta *meta;
	struct vc_meta_txn *txn;
	uint64_t cost;               /* changes in txn */
	uint64_t next_ino, next_tag;
	uint64_t lost;               /* inode of lost+found, 0: not looked for yet */
	uint64_t now_ns;
};

void repair_say(struct repair *rp, const char *fmt, ...) VC_PRINTF(2, 3);
/** One thing is set right. */
void repair_fixed(struct repair *rp, const char *fmt, ...) VC_PRINTF(2, 3);

/** Rows of the copy. */
int repair_put(struct repair *rp, const void *key, size_t key_len, const void *value, size_t len) VC_MUST_CHECK;
int repair_del(struct repair *rp, const void *key, size_t key_len) VC_MUST_CHECK;
static inline struct check_inode *repair_inode(struct repair *rp, uint64_t ino) { return check_inode_get(&rp->c, ino); }

/* repair_inodes.c: rows that belong together */
int repair_inodes(struct repair *rp) VC_MUST_CHECK;
/** Make the inode's row; its fields are filled in but for times. */
int repair_make(struct repair *rp, uint64_t ino, uint32_t mode, uint64_t size) VC_MUST_CHECK;
int repair_empty_image(struct repair *rp, uint64_t ino) VC_MUST_CHECK;
/** Attribute user.vclone.NAME, or with a number behind it when that exists. */
int repair_note(struct repair *rp, uint64_t ino, const char *name, const void *value, size_t len) VC_MUST_CHECK;
/** Figures of inner nodes. */
int repair_nodes(struct repair *rp) VC_MUST_CHECK;

/* repair_names.c: the tree of names */
int repair_names(struct repair *rp) VC_MUST_CHECK;

#endif
