/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta_impl: what meta.c and meta_backup.c share. Private to the meta store.
 */
#ifndef VC_META_IMPL_H
#define VC_META_IMPL_H

#include <lmdb.h>
#include <stdatomic.h>

#include "lock.h"
#include "meta.h"

struct vc_meta {
	struct vc_io *io;
	char *dir;                  /* as the caller names it */
	char *path;                 /* of the data file, for messages */
	MDB_env *env;
	MDB_dbi dbi[VC_DB_COUNT];
	bool read_only;
	atomic_bool failed;
	struct vc_mutex write_lock;
	struct vc_mutex pool_lock;
	struct vc_meta_txn *idle;   /* pool_lock: reset read transactions */
};

/** Say that `what` failed on `path`; LMDB's codes of either kind become -errno here. */
int vc_meta_failed(const char *path, const char *what, int rc) VC_MUST_CHECK;

/** A store with nothing open yet. Returns 0 or -ENOMEM. */
int vc_meta_new(struct vc_io *io, const char *dir, const char *path, struct vc_meta **ret) VC_MUST_CHECK;
/** Map a file that vc_meta_check_file accepted. Returns 0 or -errno. */
int vc_meta_env_open(const char *path, unsigned flags, uint64_t map_size, MDB_env **ret) VC_MUST_CHECK;
/** Open or make the databases; the handles stay when the transaction commits, also a read-only one. */
int vc_meta_env_databases(const char *path, MDB_env *env, bool create, MDB_dbi *dbi) VC_MUST_CHECK;

#endif
