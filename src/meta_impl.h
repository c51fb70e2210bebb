/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta_impl: what the files of the meta store share. Private to it.
 */
#ifndef VC_META_IMPL_H
#define VC_META_IMPL_H

#include <lmdb.h>
#include <stdatomic.h>

#include "lock.h"
#include "meta.h"

#define META_SUM_SIZE 8u
#define META_VALUE_MAX 4072u /* with the sum 4,080: what fits one overflow page beside its header */
#define META_KEY_MAX 264u

/** What a guarded call returns when LMDB cannot be asked any more; said once already. No code of LMDB or errno. */
#define META_GONE (-29000)

/**
 * In LMDB's main tree under "rows": which rows the last transaction left, so that an older page of the catalog under newer ones is
 * noticed. Counts only while `txn` is the transaction of the snapshot: programs that do not know it leave it behind.
 */
#define META_ROWS_KEY "rows"
struct meta_disk_rows {
	vc_le64 txn;
	vc_le64 count;  /* rows in "cat" */
	vc_le64 sum;    /* of the checksums of all of them, modulo 2^64 */
	vc_le64 check;  /* vc_sum64 of the 24 bytes before */
};

struct vc_meta {
	struct vc_io *io;
	char *dir;                  /* as the caller names it */
	char *path;                 /* of the data file, for messages */
	MDB_env *env;
	MDB_dbi dbi[VC_DB_COUNT], main;
	MDB_txn *opening;           /* of vc_meta_env_databases; not ended when that broke the store */
	bool read_only;
	atomic_bool failed;
	atomic_bool broken;         /* a page could not be read, or LMDB met its own assertion: it is not asked again */
	struct vc_meta *next_lost;  /* in the list of those that were broken when they were closed */
	uint64_t file_size;         /* write_lock: bytes the file has at least */
	struct vc_mutex write_lock;
	struct vc_mutex pool_lock;
	struct vc_meta_txn *idle;   /* pool_lock: reset read transactions */
	uint64_t room;              /* write_lock: blocks of the file up to here are allocated */
	uint64_t reserve;           /* fixed */
	MDB_txn *anchor;            /* write_lock: read transaction on the state before a commit; fixed once `lost` */
	atomic_bool lost;           /* LMDB gave the environment up (MDB_PANIC): everybody reads through the anchor */
	bool doubtful;              /* fixed */
	bool rows_known;            /* write_lock: rows_* are those of the last commit */
	uint64_t rows_count, rows_sum;
};

struct vc_meta_txn {
	struct vc_meta *meta;
	MDB_txn *txn;
	bool write;
	bool shared;                /* txn is the anchor's */
	struct vc_meta_txn *next;   /* in the pool */
	bool rows_known;            /* writers: as in struct vc_meta, with what this transaction changed */
	uint64_t rows_count, rows_sum;
	uint8_t value[META_SUM_SIZE + META_VALUE_MAX]; /* what the last get found */
};

/** Say that `what` failed on `path`; LMDB's codes of either kind become -errno here. */
int vc_meta_failed(const char *path, const char *what, int rc) VC_MUST_CHECK;
/** The one place where LMDB's two kinds of codes become -errno. */
int vc_meta_errno(int rc) VC_MUST_CHECK;
/** Does a stored value, checksum first, fit database and key? */
bool vc_meta_value_ok(enum vc_meta_db db, const void *key, size_t key_len, const void *value, size_t len);
/** "node 17", or "row D 0000000000000001 6162": a letter, then hexadecimal digits, cut when long. */
const char *vc_meta_key_text(enum vc_meta_db db, const void *key, size_t len, char *buf, size_t size);

/** vc_meta_put of a key behind all there are: pages fill up. */
int vc_meta_append(struct vc_meta_txn *txn, enum vc_meta_db db, const void *key, size_t key_len, const void *value, size_t len) VC_MUST_CHECK;

/* ---- meta_open.c ---- */

/** A store with nothing open yet. Returns 0 or -ENOMEM. */
int vc_meta_new(struct vc_io *io, const char *dir, const char *path, struct vc_meta **ret) VC_MUST_CHECK;
/** Map a file that vc_meta_check_file accepted; `path` is what LMDB is to open, file or directory. Returns 0 or -errno. */
int vc_meta_env_open(struct vc_meta *meta, const char *path, unsigned flags, uint64_t map_size) VC_MUST_CHECK;
/** Open or make the databases; the handles stay when the transaction commits, also a read-only one. */
int vc_meta_env_databases(struct vc_meta *meta, bool create) VC_MUST_CHECK;

/* ---- meta_ahead.c ---- */

/** As vc_meta_read_ahead, of the first `bytes` of a file. */
bool vc_meta_ask_ahead(int fd, uint64_t bytes, uint64_t *at);

/* ---- meta_guard.c ---- */

/** Make faults find their way to vc_meta_guard. Called for every store that opens; cheap. */
void vc_meta_guard_install(MDB_env *env);
/**
 * fn(ctx), which calls LMDB and nothing else. A fault (SIGBUS, SIGSEGV) or failed assertion of LMDB on the way ends it: the store is broken
 * from then on, one message is sent, and META_GONE returned, as it is at once for a broken store.
 */
int vc_meta_guard(struct vc_meta *meta, const char *what, int (*fn)(void *ctx), void *ctx) VC_MUST_CHECK;
/** A broken store is closed: LMDB's part of it stays until the process ends. */
void vc_meta_lose(struct vc_meta *meta);
/** The store is broken for another reason, which is said. */
void vc_meta_break(struct vc_meta *meta, const char *why);

#endif
