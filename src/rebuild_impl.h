/* SPDX-License-Identifier: BSD-2-Clause */
/* rebuild_impl: what the files of rebuild and repair share. One thread; the pool is locked throughout. */
#ifndef VC_REBUILD_IMPL_H
#define VC_REBUILD_IMPL_H

#include "journal_read.h"
#include "pool_impl.h"
#include "rebuild.h"

/* Files beside POOL/meta/data.mdb; what is left of them by a crash is removed by the next who wants to make one. */
#define VC_META_NEW "new.mdb"

/* ---- replace.c: LMDB files as files ---- */

/** PATH/DIR/NAME, without NAME PATH/DIR; NULL: no memory. */
char *vc_replace_path(const char *pool_dir, const char *dir, const char *name);
/** Remove POOL/meta/new.mdb, if any. Makes POOL/meta, if it is missing. */
int vc_replace_begin(struct vc_io *io, const char *pool_dir) VC_MUST_CHECK;
/** Copy a file byte by byte, synced; the copy is made anew. -ENOENT: there is no such file (no message). */
int vc_replace_copy(struct vc_io *io, const char *from, const char *to) VC_MUST_CHECK;
/** A name in POOL/backup for a kept data.mdb that is not taken yet, into buf (64 bytes). */
int vc_replace_kept_name(struct vc_io *io, const char *pool_dir, char *buf) VC_MUST_CHECK;
/** POOL/meta/new.mdb becomes data.mdb, durably. */
int vc_replace_switch(struct vc_io *io, const char *pool_dir) VC_MUST_CHECK;
/**
 * A verified backup of POOL/meta/FILE (NULL: data.mdb), which holds checkpoint `lsn`: now what was changed behind the journal's back
 * is in a backup too, and earlier entries do not count any more.
 */
int vc_replace_backup(struct vc_io *io, const char *pool_dir, const char *file, uint64_t lsn) VC_MUST_CHECK;

/* ---- rebuild_apply.c: LMDB that grows by what the journal says ---- */

struct rebuild_content {
	uint64_t name; /* 0: free place */
	struct vc_root root;
};

struct rebuild {
	struct vc_io *io;
	const char *dir;
	const struct vc_rebuild_options *o;
	struct vc_rebuild_result *ret;
	struct vc_disk_pool pool;
	struct vc_log_params log;
	struct vc_journal_scan journal;
	struct vc_meta *meta;
	struct vc_map *map;
	struct vc_meta_txn *txn;         /* NULL: none begun */
	uint64_t cost;                   /* changes in txn */
	struct vc_disk_state state;      /* as it will be written */
	uint64_t next_ino, next_tag, next_segno, next_content;
	struct rebuild_content *contents; /* open addressing by name */
	size_t contents_size, ncontents;
	/* of the item being read: */
	struct vc_disk_journal_item base; /* kind 0: none */
	struct vc_change *changes;
	size_t nchanges, changes_cap;
	uint8_t (*doomed)[9];             /* rows of inodes deleted by the entry: they go last */
	size_t ndoomed, doomed_cap;
};

/** The write transaction, begun if there is none. */
int rebuild_txn(struct rebuild *rb) VC_MUST_CHECK;
/** Commit what there is. */
int rebuild_commit(struct rebuild *rb) VC_MUST_CHECK;
/** Take over what rb->meta holds: counters, and the contents of its images. */
int rebuild_load(struct rebuild *rb) VC_MUST_CHECK;
/** Apply entries of the journal from rb->state's checkpoint on, as far as they lead. */
int rebuild_journal(struct rebuild *rb) VC_MUST_CHECK;
/** Write the state row, its counters above all that was seen, and commit. */
int rebuild_state(struct rebuild *rb) VC_MUST_CHECK;

/* ---- rebuild_log.c ---- */

/**
 * Where in the log does replay begin after rb->state's checkpoint? Sets the state's log_first_seq. 0; 1: the log begins later than that, at
 * *ret_first_lsn: what lies between is gone; -errno.
 */
int rebuild_find_log(struct rebuild *rb, uint64_t *ret_first_lsn) VC_MUST_CHECK;

/** The highest inode number that the log after the checkpoint of data.mdb names. 0, or -errno when the log cannot be read. */
int rebuild_log_highest_ino(struct vc_io *io, const char *dir, const char *log_dir, uint64_t *ret) VC_MUST_CHECK;

/** Of opening or reading something: is it broken, and would be the next time? */
static inline bool rebuild_is_damage(int r)
{
	return r == -EUCLEAN || r == -EBADMSG || r == -EINVAL || r == -ENOENT || r == -EIO || r == -ESTALE;
}

void rebuild_say(struct rebuild *rb, const char *fmt, ...) VC_PRINTF(2, 3);
/** A finding: counted in ret->check. */
void rebuild_found(struct rebuild *rb, const char *fmt, ...) VC_PRINTF(2, 3);

#endif
