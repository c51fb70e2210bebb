/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * catalog: inodes and directories in memory, read from LMDB on demand, changed only by applying rows of log records.
 *
 * An inode object is THE state of that file now; LMDB holds the state of the last checkpoint. Objects that differ from LMDB are held by
 * a slice (see slice.h). A directory, once looked into, is kept in memory whole: a hash of names, and the entries in readdir
 * order.
 *
 * Invariants
 *   K1  Live operations build the new rows, log them and apply them through vc_catalog_apply_row; replay applies the same rows: there is
 *       one path that changes inodes and directories.
 *   K2  An inode object is freed only when nobody references it, the kernel does not know it, and no slice holds it.
 *   K3  A number of a deleted inode is never used again; its object stays, marked gone, until LMDB has forgotten it.
 *
 * Locks: names (VC_LOCK_NS) guards directories' entries; each inode's lock its own fields; the catalog lock the hash table, reference
 * counts and the list of idle objects.
 */
#ifndef VC_CATALOG_H
#define VC_CATALOG_H

#include "base.h"
#include "lock.h"
#include "meta.h"
#include "slice.h"

struct vc_pool;
struct vc_dir;
struct vc_xattrs;

/** Fields of an inode row, in host form. */
struct vc_inode_fields {
	uint32_t mode, nlink, uid, gid, rdev, depth;
	uint64_t generation, size, atime_ns, mtime_ns, ctime_ns, btime_ns, parent, next_cookie, origin;
};

/** A partial write of these blocks is reading what it will write back: others wait. */
struct vc_busy_range {
	uint64_t lba, nblocks;
	struct vc_list node;
};

struct vc_inode {
	struct vc_catalog *cat;
	uint64_t ino;
	/* catalog lock: */
	uint64_t refs;             /* users in this process */
	uint64_t known;            /* how often the kernel was told of it */
	uint64_t pins;             /* slices that hold its state until LMDB has it */
	struct vc_inode *hash_next;
	struct vc_list idle;       /* in the list of unreferenced objects */
	/* inode lock: */
	struct vc_mutex lock;
	struct vc_inode_fields f;
	atomic_bool gone;          /* deleted for good; read without the lock */
	atomic_bool orphan;        /* no names left; deleted with the last reference; read without the lock */
	struct vc_slice *dirty;    /* slice it was last changed in and not settled yet */
	struct vc_base *base;      /* regular files */
	struct vc_overlay *active; /* changes of slice `dirty`; NULL: none */
	uint64_t tag;              /* open tag (I2) */
	struct vc_list busy;       /* struct vc_busy_range */
	struct vc_cond busy_cond;
	uint64_t read_end;         /* where the last read ended */
	uint64_t ahead_end;        /* up to where was read ahead of it */
	struct vc_xattrs *xattrs;  /* NULL: not loaded */
	char *target;              /* symbolic links */
	/* names lock: */
	struct vc_dir *dir;        /* directories; NULL: not loaded */
};

struct vc_catalog {
	struct vc_pool *pool;
	struct vc_meta *meta;
	struct vc_bases *bases;
	struct vc_mutex lock;      /* VC_LOCK_CATALOG */
	struct vc_inode **table;
	size_t table_size, ninodes;
	struct vc_list idle;       /* least recently put first */
	size_t nidle, idle_max;
	uint64_t loads;            /* raised when LMDB has changed and objects may go: see catalog_get */
	atomic_ulong next_ino;
	atomic_ulong next_tag;
	bool replaying;            /* one thread, no locks held: set during recovery */
	/* An orphan lost its last reference: to be deleted. Called without locks. */
	void (*orphaned)(struct vc_pool *pool, uint64_t ino);
	/* The engine cannot keep memory and log in step any more: the pool must fail. */
	void (*broken)(struct vc_pool *pool, int error);
};

int vc_catalog_init(struct vc_catalog *cat, struct vc_pool *pool, struct vc_meta *meta, struct vc_bases *bases) VC_MUST_CHECK;
/** Frees every object; nobody may hold any. */
void vc_catalog_fini(struct vc_catalog *cat);

/** Find or load; one reference. 0, -ENOENT (never existed or gone), -errno. */
int vc_catalog_get(struct vc_catalog *cat, uint64_t ino, struct vc_inode **ret) VC_MUST_CHECK;
void vc_catalog_hold(struct vc_catalog *cat, struct vc_inode *inode);
void vc_catalog_put(struct vc_catalog *cat, struct vc_inode *inode);
/** A slice holds its state; that is no use of the inode: an orphan is deleted in spite of it. */
void vc_catalog_pin(struct vc_catalog *cat, struct vc_inode *inode);
void vc_catalog_unpin(struct vc_catalog *cat, struct vc_inode *inode);
void vc_catalog_known(struct vc_catalog *cat, struct vc_inode *inode, int64_t change);
/** A checkpoint was made and inodes are about to be unpinned: what was loaded before is looked at again. */
void vc_catalog_loads_changed(struct vc_catalog *cat);
/** References of others than the caller (who holds `mine`), knowledge of the kernel included. */
bool vc_catalog_in_use(struct vc_catalog *cat, struct vc_inode *inode, uint64_t mine);

/** Fresh number / owner tag; unique for ever once a checkpoint stored the counters (replay advances them past what it sees). */
uint64_t vc_catalog_new_ino(struct vc_catalog *cat);
uint64_t vc_catalog_new_tag(struct vc_catalog *cat);

/**
 * The inode is about to change in `slice`: settles it in the slice it was dirty in before, and makes it dirty here. Inode lock held.
 * Cannot fail for the caller: without memory the pool is failed (`broken`).
 */
void vc_inode_touch_locked(struct vc_inode *inode, struct vc_slice *slice);
/** Store row and base of this moment in the slice it is dirty in; it is clean then. Inode lock held. */
void vc_inode_settle_locked(struct vc_inode *inode);
/** Freeze the active overlay into a new base (tags: see struct vc_fold). No-op without changes. Inode lock held. 0 or -ENOMEM. */
int vc_inode_freeze_locked(struct vc_inode *inode, uint64_t dead_tag, uint64_t new_tag) VC_MUST_CHECK;
/** The active overlay, made if there is none. Touched before. Inode lock held. NULL: no memory. */
struct vc_overlay *vc_inode_active_locked(struct vc_inode *inode, struct vc_slice *slice);

/** Apply one catalog row (value NULL: delete) of kinds I D L X O, made in `slice`. Names lock and locks of inodes named are held (or replay). 0 or -errno. */
int vc_catalog_apply_row(struct vc_catalog *cat, struct vc_slice *slice, const uint8_t *key, size_t key_len,
			 const uint8_t *value, size_t value_len) VC_MUST_CHECK;

/* ---- rows (row.c) ---- */
size_t vc_row_key_ino(uint8_t *key, enum vc_row_kind kind, uint64_t ino);
size_t vc_row_key_named(uint8_t *key, enum vc_row_kind kind, uint64_t ino, const char *name, size_t name_len);
void vc_row_from_inode(const struct vc_inode_fields *f, struct vc_disk_inode *ret);
/** Validates. 0 or -EUCLEAN. */
int vc_row_to_inode(const void *value, size_t len, struct vc_inode_fields *ret) VC_MUST_CHECK;

/* ---- directories (dir.c); names lock held ---- */
struct vc_dir_entry {
	uint64_t ino, cookie;
	uint32_t type;
	uint16_t name_len;
	char name[]; /* with NUL */
};
/** Load the directory's entries if they are not in memory. 0 or -errno. */
int vc_dir_load(struct vc_catalog *cat, struct vc_inode *dir) VC_MUST_CHECK;
const struct vc_dir_entry *vc_dir_find(const struct vc_inode *dir, const char *name, size_t len);
/** First entry whose cookie is above `cookie`, NULL at the end. */
const struct vc_dir_entry *vc_dir_after(const struct vc_inode *dir, uint64_t cookie);
size_t vc_dir_count(const struct vc_inode *dir);
int vc_dir_put(struct vc_inode *dir, const char *name, size_t len, const struct vc_disk_dirent *value) VC_MUST_CHECK;
void vc_dir_del(struct vc_inode *dir, const char *name, size_t len);
void vc_dir_free(struct vc_dir *dir);

/* ---- extended attributes (row.c); inode lock held ---- */
struct vc_xattr {
	struct vc_xattr *next;
	char *name;
	uint8_t *value;
	size_t len;
};
struct vc_xattrs {
	struct vc_xattr *first;
};
int vc_xattrs_load(struct vc_catalog *cat, struct vc_inode *inode) VC_MUST_CHECK;
struct vc_xattr *vc_xattrs_find(const struct vc_inode *inode, const char *name, size_t len);
/** value NULL: remove. */
int vc_xattrs_apply(struct vc_inode *inode, const char *name, size_t name_len, const void *value, size_t len) VC_MUST_CHECK;
void vc_xattrs_free(struct vc_xattrs *xattrs);

#endif
