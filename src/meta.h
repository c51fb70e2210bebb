/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta: ordered key-value store with atomic commits, over LMDB. Only the files of this store (meta*.c) know lmdb.h.
 *
 * Two databases, "node" (map nodes) and "cat" (catalog rows and pool state). Every value is stored with an
 * 8-byte checksum over database, key and value, verified on every read (I8): LMDB checks nothing itself.
 * LMDB's positive errno and negative MDB codes become -errno here and nowhere else; each failure sends one message
 * naming the file and the key. Bad checksum: -EBADMSG. MDB_CORRUPTED, MDB_PAGE_NOTFOUND, MDB_INVALID: -EUCLEAN. MAP_FULL: -ENOSPC.
 *
 * Threads: any number of read transactions, each used by one thread at a time; one write transaction at a time
 * (begin takes VC_LOCK_META_WRITE, held to the end of the transaction). Short read transactions only: one
 * left open makes the file grow. Read transactions are pooled (renew/reset). Never hold a transaction over other I/O.
 */
#ifndef VC_META_H
#define VC_META_H

#include "format.h"
#include "io.h"

struct vc_meta;
struct vc_meta_txn;

enum vc_meta_db { VC_DB_NODE, VC_DB_CAT, VC_DB_COUNT };

struct vc_meta_params {
	struct vc_io *io;     /* told about commits (vc_io_meta_committed) */
	const char *dir;      /* POOL/meta, exists */
	/*
	 * A file in dir other than data.mdb, for one user at a time: LMDB's lock file is not used, and no read transaction may
	 * be open while one that writes is committed. NULL: data.mdb.
	 */
	const char *file;
	uint64_t map_size;    /* address space; 0: 1 TiB, or less where there is less */
	uint64_t reserve;     /* bytes that vc_meta_write_begin_room keeps allocated beyond the end while there is room for them */
	bool read_only;
	bool examine;         /* for check and repair: open although rows fail their checksums, which is said */
};

struct vc_meta_stats {
	uint64_t file_bytes;  /* size of data.mdb in use (last page number + 1) * page size */
	uint64_t free_bytes;  /* of those, on the free list, 0 if unknown */
	uint64_t nodes, rows; /* entries in each database */
};

/** Make an empty LMDB in `dir` (which exists and is empty) and sync it and the directory. Returns 0 or -errno. */
int vc_meta_create(const struct vc_meta_params *params) VC_MUST_CHECK;
/**
 * Open. Before LMDB follows any page, all of them are looked at (meta_check.h, meta_walk.h) and every row's checksum is verified, so that
 * no name, attribute or image is missing without a word: otherwise -EUCLEAN or -EBADMSG and a message. Returns 0, -ENOENT, -EUCLEAN,
 * -EBADMSG, -errno.
 */
int vc_meta_open(const struct vc_meta_params *params, struct vc_meta **ret) VC_MUST_CHECK;
void vc_meta_close(struct vc_meta *meta);
/** Opened with `examine`, and a row's checksum was wrong or the rows were not those written last. */
bool vc_meta_doubtful(const struct vc_meta *meta);

/**
 * True once LMDB's file failed under us: a page of it is gone (truncated), cannot be read, or broke LMDB's own rules. Said once. Every call
 * but vc_meta_end and vc_meta_close fails with -EIO from then on, -EROFS for writers; the process goes on. Cheap.
 */
bool vc_meta_broken(const struct vc_meta *meta);

/** Begin a short read-only view of the last commit. Returns 0 or -errno. End with vc_meta_end. */
int vc_meta_read_begin(struct vc_meta *meta, struct vc_meta_txn **ret) VC_MUST_CHECK;
/** Begin THE write transaction; sleeps while another is open. End with vc_meta_commit or vc_meta_end (abort). */
int vc_meta_write_begin(struct vc_meta *meta, struct vc_meta_txn **ret) VC_MUST_CHECK;
/**
 * The same, after blocks for `npages` pages beyond the end of the file were allocated, where the file system can: so a commit that
 * needs no more cannot meet a full disk. Beyond them the reserve is allocated, or what there is of it, for a time when no other room is
 * left. -ENOSPC: there is no room, the reserve is used up as well; nothing has happened.
 */
int vc_meta_write_begin_room(struct vc_meta *meta, uint64_t npages, struct vc_meta_txn **ret) VC_MUST_CHECK;
/** End a read transaction, or abort a write transaction. NULL is ignored. */
void vc_meta_end(struct vc_meta_txn *txn);
/**
 * Commit with LMDB's own sync. The transaction is gone whatever the result. -ENOSPC (also for a quota and a full map), -ENOMEM: nothing has
 * happened, the same may be tried again; when memory ran out within the commit, the next writer is told -EROFS. After any other failure: -EROFS
 * for every later write; reads go on.
 */
int vc_meta_commit(struct vc_meta_txn *txn) VC_MUST_CHECK;

/** *ret_value is a verified copy, valid until the next call on the transaction. 0, -ENOENT, -EBADMSG, ... */
int vc_meta_get(struct vc_meta_txn *txn, enum vc_meta_db db, const void *key, size_t key_len, const void **ret_value,
		size_t *ret_len) VC_MUST_CHECK;
/** Put or replace. Values up to 4,072 bytes; keys 1 to 264. */
int vc_meta_put(struct vc_meta_txn *txn, enum vc_meta_db db, const void *key, size_t key_len, const void *value,
		size_t len) VC_MUST_CHECK;
/** Delete; an absent key is -ENOENT (no message). */
int vc_meta_del(struct vc_meta_txn *txn, enum vc_meta_db db, const void *key, size_t key_len) VC_MUST_CHECK;

/**
 * Call fn for every pair whose key starts with `prefix`, from the first key >= `from` (NULL: the prefix), in key order,
 * until it returns non-zero, which is returned. fn must not change the transaction; key and value are copies, valid while it runs. Bad values: fn is not called, -EBADMSG.
 */
int vc_meta_scan(struct vc_meta_txn *txn, enum vc_meta_db db, const void *prefix, size_t prefix_len, const void *from,
		 size_t from_len, int (*fn)(void *ctx, const void *key, size_t key_len, const void *value, size_t len),
		 void *ctx) VC_MUST_CHECK;

/** Nodes by 48-bit id: conveniences over the big-endian key. */
int vc_meta_node_get(struct vc_meta_txn *txn, uint64_t id, const void **ret_value, size_t *ret_len) VC_MUST_CHECK;
int vc_meta_node_put(struct vc_meta_txn *txn, uint64_t id, const void *value, size_t len) VC_MUST_CHECK;
int vc_meta_node_del(struct vc_meta_txn *txn, uint64_t id) VC_MUST_CHECK;

/**
 * Compact backup of the last commit into the new file `path`, synced and then verified: opened, every value's checksum read. Other threads
 * go on. Returns 0 or -errno (the file is removed).
 */
int vc_meta_backup(struct vc_meta *meta, const char *path) VC_MUST_CHECK;

/**
 * Look at every page and value of the last commit as they lie on the disk, in one read transaction. bad() is told each value with a wrong
 * checksum, step() each read; a non-zero result of either ends it and is returned. 0, -EUCLEAN (a page is damaged; said), -errno.
 */
struct vc_meta_scrub {
	int (*bad)(void *ctx, enum vc_meta_db db, const void *key, size_t key_len);
	int (*step)(void *ctx, size_t bytes);
	void *ctx;
};
int vc_meta_scrub(struct vc_meta *meta, const struct vc_meta_scrub *scrub) VC_MUST_CHECK;

int vc_meta_stats(struct vc_meta *meta, struct vc_meta_stats *ret) VC_MUST_CHECK;
/**
 * Most of the store will be read soon, in whatever order: asks the device for the piece of the file at *at (0 to begin with) and moves it on. False:
 * there is no more, or the file is too large for that. A hint; may wait for the device's queue. Any thread.
 */
bool vc_meta_read_ahead(struct vc_meta *meta, uint64_t *at);

#endif
