/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * names_impl: building blocks for operations that change names.
 *
 * Every such operation is admitted to the log for the longest record it could make, before it takes any lock; then, under the names
 * lock and the locks of the inodes it changes, it checks, builds the record, gives back what it does not need, logs and applies.
 */
#ifndef VC_NAMES_IMPL_H
#define VC_NAMES_IMPL_H

#include "names.h"
#include "volume_impl.h"

#define NAMES_LOCKED 4
/* A symbolic link's target, three names, four inodes, and the headers of ten ops: well below this. */
#define NAMES_RECORD_MAX 8192u

/** One operation on names. */
struct names_op {
	struct vc_pool *pool;
	struct vc_inode *locked[NAMES_LOCKED]; /* existing inodes it changes; set before */
	/* Checks and builds; names lock and inode locks are held. */
	int (*build)(struct names_op *op, struct vc_record *rec);
	enum vc_log_class class;
	bool grows;                  /* makes names or inodes: refused where metadata has no room to grow */
	size_t most;                 /* bytes of the longest record it can make; 0: NAMES_RECORD_MAX */
	uint64_t new_ino;            /* 0, or the inode it makes: see names_run_new */
	struct vc_inode **ret_new, **ret_inode;
};

/** Run `op`; `rec` is initialised and finished by the callee. On 0 the completion is on its way (durable). */
int names_run(struct names_op *op, struct vc_done *done) VC_MUST_CHECK;

/** As names_run; hands out the inode `ino` that the operation makes (ret may be NULL), as vc_names_create says. */
int names_run_new(struct names_op *op, uint64_t ino, struct vc_inode **ret, struct vc_done *done) VC_MUST_CHECK;

/** vc_names_may with the inode's lock held. */
int names_may_locked(const struct vc_inode *inode, const struct vc_caller *caller, int may) VC_MUST_CHECK;

/** 0, -EINVAL, -ENAMETOOLONG. */
int names_check(const char *name) VC_MUST_CHECK;
/** -ENOTDIR, or -ENOENT when the directory was removed. */
int names_check_dir(struct vc_inode *dir) VC_MUST_CHECK;

/** Rows. `f` is the inode's new state. */
void names_row_inode(struct vc_record *rec, uint64_t ino, const struct vc_inode_fields *f);
void names_row_dirent(struct vc_record *rec, uint64_t parent, const char *name, uint64_t ino, uint64_t cookie, uint32_t mode);
void names_row_dirent_del(struct vc_record *rec, uint64_t parent, const char *name);
/** Directory row with fresh times, `links` added to its link count, and, with new_entry, the next cookie used up. */
struct vc_inode_fields names_dir_changed(const struct vc_inode *dir, const struct vc_record *rec, int links, bool new_entry);
/** Fields of a new inode in `dir` (set-group-id rule included). */
struct vc_inode_fields names_new_fields(const struct vc_inode *dir, uint32_t mode, struct vc_owner owner, uint64_t now);

#endif
