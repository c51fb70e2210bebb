/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta: the key-value store over LMDB.
 *
 *   DIR/data.mdb   two named databases, "node" and "cat"; every value is   sum (8 bytes)  value
 *                  sum = vc_sum64(value, seed = vc_sum64(key, seed = number of the database))
 *   DIR/lock.mdb   LMDB's table of readers
 *
 * Invariants
 *   M1  No byte of a value leaves this file before its checksum matched.
 *   M2  LMDB never maps a file that vc_meta_check_file refused.
 *   M3  A read transaction is either with one caller or, reset, in the pool; a reset one pins no snapshot.
 *   M4  After a failed commit (`failed`) no write transaction begins again.
 *
 * Locks: write_lock is held from vc_meta_write_begin to the end of that transaction and orders writers before LMDB's own
 * mutex does. pool_lock protects the list of idle read transactions; it has the rank of a cache shard, because
 * that is what the pool is, and nothing is locked or read while it is held.
 */
#include "config.h"
#include "meta.h"

#include <inttypes.h>
#include <limits.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "checksum.h"
#include "lock.h"
#include "meta_check.h"
#include "meta_impl.h"
#include "msg.h"

#define META_MAP_SIZE (UINT64_C(1) << 40)
#define META_READERS_MAX 1024
#define META_SUM_SIZE 8u
#define META_VALUE_MAX 4072u /* with the sum 4,080: what fits one overflow page beside its header */
#define META_KEY_MAX 264u
#define META_FREE_LIST_DBI 0 /* LMDB's own list of free pages: transaction -> count, page numbers */

static const char *const db_names[VC_DB_COUNT] = { "node", "cat" };

struct vc_meta_txn {
	struct vc_meta *meta;
	MDB_txn *txn;
	bool write;
	struct vc_meta_txn *next;   /* in the pool */
};

/* ---- errors ---- */

/** The one place where LMDB's two kinds of codes become -errno. */
static int meta_errno(int rc)
{
	switch (rc) {
	case MDB_NOTFOUND: return -ENOENT;
	case MDB_KEYEXIST: return -EEXIST;
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_INVALID: return -EUCLEAN;
	case MDB_MAP_FULL: return -ENOSPC;
	case MDB_VERSION_MISMATCH: return -ENOTSUP;
	case MDB_READERS_FULL: return -EAGAIN;
	case MDB_TXN_FULL: return -E2BIG;
	case MDB_PANIC: return -EIO;
	case MDB_MAP_RESIZED:
	case MDB_CURSOR_FULL:
	case MDB_PAGE_FULL:
	case MDB_INCOMPATIBLE: return -EUCLEAN;
	}
	return rc > 0 ? -rc : -EINVAL;
}

int vc_meta_failed(const char *path, const char *what, int rc)
{
	vc_err("%s: %s: %s", path, what, mdb_strerror(rc));
	return meta_errno(rc);
}

/** "node 17", or "row D 0000000000000001 6162": a letter, then hexadecimal digits, cut when long. */
static const char *key_text(enum vc_meta_db db, const void *key, size_t len, char *buf, size_t size)
{
	const uint8_t *p = key;
	size_t n;

	if (db == VC_DB_NODE && len == 8) {
		snprintf(buf, size, "node %" PRIu64, vc_be64_at(p));
		return buf;
	}
	n = (size_t)snprintf(buf, size, "row %c ", len && p[0] > ' ' && p[0] < 127 ? p[0] : '?');
	for (size_t i = 1; i < len && n + 3 < size; i++)
		n += (size_t)snprintf(buf + n, size - n, "%02x", p[i]);
	return buf;
}

static int key_failed(const struct vc_meta *meta, const char *what, enum vc_meta_db db, const MDB_val *key, int rc)
{
	char text[80];

	vc_err("%s: %s %s: %s", meta->path, what, key_text(db, key->mv_data, key->mv_size, text, sizeof(text)),
	       mdb_strerror(rc));
	return meta_errno(rc);
}

/* ---- values ---- */

static uint64_t value_sum(enum vc_meta_db db, const void *key, size_t key_len, const void *value, size_t len)
{
	return vc_sum64(value, len, vc_sum64(key, key_len, (uint64_t)db + 1));
}

/** Check the pair and cut the checksum off its value. */
static int value_open(const struct vc_meta *meta, enum vc_meta_db db, const MDB_val *key, MDB_val *value)
{
	char text[80];
	vc_le64 sum;

	if (value->mv_size >= META_SUM_SIZE) {
		memcpy(&sum, value->mv_data, sizeof(sum));
		value->mv_data = (uint8_t *)value->mv_data + META_SUM_SIZE;
		value->mv_size -= META_SUM_SIZE;
		if (vc_le64_get(sum) == value_sum(db, key->mv_data, key->mv_size, value->mv_data, value->mv_size))
			return 0;
	}
	vc_err("%s: %s: checksum does not match; run a check of the pool, restore from the backup and the journal", meta->path,
	       key_text(db, key->mv_data, key->mv_size, text, sizeof(text)));
	return -EBADMSG;
}

/* ---- opening ---- */

int vc_meta_env_open(const char *path, unsigned flags, uint64_t map_size, MDB_env **ret)
{
	MDB_env *env;
	int rc;

	rc = mdb_env_create(&env);
	if (rc)
		return vc_meta_failed(path, "open", rc);
	rc = mdb_env_set_maxdbs(env, VC_DB_COUNT);
	if (!rc)
		rc = mdb_env_set_maxreaders(env, META_READERS_MAX);
	if (!rc)
		rc = mdb_env_set_mapsize(env, map_size ? map_size : META_MAP_SIZE);
	if (!rc)
		rc = mdb_env_open(env, path, flags | MDB_NOTLS | MDB_NORDAHEAD, 0600);
	if (rc) {
		mdb_env_close(env);
		return vc_meta_failed(path, "open", rc);
	}
	*ret = env;
	return 0;
}

int vc_meta_env_databases(const char *path, MDB_env *env, bool create, MDB_dbi *dbi)
{
	MDB_txn *txn;
	int rc;

	rc = mdb_txn_begin(env, NULL, create ? 0 : MDB_RDONLY, &txn);
	if (rc)
		return vc_meta_failed(path, "open", rc);
	for (int i = 0; !rc && i < VC_DB_COUNT; i++)
		rc = mdb_dbi_open(txn, db_names[i], create ? MDB_CREATE : 0, &dbi[i]);
	if (rc) {
		mdb_txn_abort(txn);
		vc_err("%s: the databases of a pool: %s", path, mdb_strerror(rc));
		return rc == MDB_NOTFOUND ? -EUCLEAN : meta_errno(rc);
	}
	rc = mdb_txn_commit(txn);
	return rc ? vc_meta_failed(path, "open", rc) : 0;
}

int vc_meta_new(struct vc_io *io, const char *dir, const char *path, struct vc_meta **ret)
{
	struct vc_meta *meta = calloc(1, sizeof(*meta));

	if (!meta)
		return -ENOMEM;
	vc_mutex_init(&meta->write_lock, VC_LOCK_META_WRITE);
	vc_mutex_init(&meta->pool_lock, VC_LOCK_CACHE);
	meta->io = io;
	meta->dir = strdup(dir);
	meta->path = strdup(path);
	if (!meta->dir || !meta->path) {
		vc_meta_close(meta);
		return -ENOMEM;
	}
	*ret = meta;
	return 0;
}

/* Where the store lies, for code that does its own I/O, and how LMDB is to open it. */
struct meta_place {
	char dir[PATH_MAX], path[PATH_MAX];
	char commits[PATH_MAX];  /* what vc_io_meta_committed is told */
	const char *open;        /* dir or path */
	unsigned flags;
};

static int meta_find(const struct vc_meta_params *params, struct meta_place *ret)
{
	const char *file = params->file ? params->file : "data.mdb";
	char buf[PATH_MAX];
	const char *dir = vc_io_real_path(params->io, params->dir, buf, sizeof(buf));

	*ret = (struct meta_place){ .flags = params->read_only ? MDB_RDONLY : 0 };
	if ((size_t)snprintf(ret->dir, sizeof(ret->dir), "%s", dir) >= sizeof(ret->dir) ||
	    (size_t)snprintf(ret->path, sizeof(ret->path), "%s/%s", dir, file) >= sizeof(ret->path) ||
	    (size_t)snprintf(ret->commits, sizeof(ret->commits), "%s%s%s", params->dir, params->file ? "/" : "",
			     params->file ? file : "") >= sizeof(ret->commits))
		return -ENAMETOOLONG;
	ret->open = params->file ? ret->path : ret->dir;
	if (params->file)
		ret->flags |= MDB_NOSUBDIR | MDB_NOLOCK;
	return 0;
}

int vc_meta_create(const struct vc_meta_params *params)
{
	struct meta_place at;
	MDB_dbi dbi[VC_DB_COUNT];
	MDB_env *env;
	int r;

	r = meta_find(params, &at);
	if (r < 0)
		return r;
	if (access(at.path, F_OK) == 0) {
		vc_err("%s: exists already", at.path);
		return -EEXIST;
	}
	r = vc_meta_env_open(at.open, at.flags, params->map_size, &env);
	if (r < 0)
		return r;
	r = vc_meta_env_databases(at.path, env, true, dbi);
	mdb_env_close(env);
	if (r < 0)
		return r;
	vc_io_meta_committed(params->io, at.commits);
	return vc_io_sync_dir(params->io, params->dir);
}

int vc_meta_open(const struct vc_meta_params *params, struct vc_meta **ret)
{
	struct meta_place at;
	struct vc_meta *meta;
	int r, dead;

	r = meta_find(params, &at);
	if (r == 0)
		r = vc_meta_check_file(at.path);
	if (r == 0)
		r = vc_meta_new(params->io, at.commits, at.path, &meta);
	if (r < 0)
		return r;
	meta->read_only = params->read_only;
	r = vc_meta_env_open(at.open, at.flags, params->map_size, &meta->env);
	if (r == 0)
		r = vc_meta_env_databases(at.path, meta->env, false, meta->dbi);
	if (r == 0 && !params->file) {
		r = mdb_reader_check(meta->env, &dead); /* slots of processes that died would pin old pages */
		if (r)
			r = vc_meta_failed(at.path, "check readers", r);
	}
	if (r < 0) {
		vc_meta_close(meta);
		return r;
	}
	*ret = meta;
	return 0;
}

void vc_meta_close(struct vc_meta *meta)
{
	struct vc_meta_txn *txn;

	if (!meta)
		return;
	while ((txn = meta->idle)) {
		meta->idle = txn->next;
		mdb_txn_abort(txn->txn);
		free(txn);
	}
	if (meta->env)
		mdb_env_close(meta->env);
	vc_mutex_fini(&meta->pool_lock);
	vc_mutex_fini(&meta->write_lock);
	free(meta->path);
	free(meta->dir);
	free(meta);
}

/* ---- transactions ---- */

static struct vc_meta_txn *pool_take(struct vc_meta *meta)
{
	struct vc_meta_txn *txn;

	vc_mutex_lock(&meta->pool_lock);
	txn = meta->idle;
	if (txn)
		meta->idle = txn->next;
	vc_mutex_unlock(&meta->pool_lock);
	return txn;
}

static void pool_give(struct vc_meta_txn *txn)
{
	struct vc_meta *meta = txn->meta;

	vc_mutex_lock(&meta->pool_lock);
	txn->next = meta->idle;
	meta->idle = txn;
	vc_mutex_unlock(&meta->pool_lock);
}

int vc_meta_read_begin(struct vc_meta *meta, struct vc_meta_txn **ret)
{
	struct vc_meta_txn *txn = pool_take(meta);
	int rc;

	if (txn) {
		rc = mdb_txn_renew(txn->txn);
	} else {
		txn = calloc(1, sizeof(*txn));
		if (!txn)
			return -ENOMEM;
		txn->meta = meta;
		rc = mdb_txn_begin(meta->env, NULL, MDB_RDONLY, &txn->txn);
	}
	if (rc) {
		if (txn->txn)
			mdb_txn_abort(txn->txn);
		free(txn);
		return vc_meta_failed(meta->path, "begin to read", rc);
	}
	*ret = txn;
	return 0;
}

static int write_begin_locked(struct vc_meta *meta, struct vc_meta_txn **ret)
{
	struct vc_meta_txn *txn;
	int rc;

	if (meta->read_only || atomic_load(&meta->failed))
		return -EROFS;
	txn = calloc(1, sizeof(*txn));
	if (!txn)
		return -ENOMEM;
	txn->meta = meta;
	txn->write = true;
	rc = mdb_txn_begin(meta->env, NULL, 0, &txn->txn);
	if (rc) {
		free(txn);
		return vc_meta_failed(meta->path, "begin to write", rc);
	}
	*ret = txn;
	return 0;
}

VC_NO_ANALYSIS int vc_meta_write_begin(struct vc_meta *meta, struct vc_meta_txn **ret)
{
	int r;

	vc_mutex_lock(&meta->write_lock);
	r = write_begin_locked(meta, ret);
	if (r < 0)
		vc_mutex_unlock(&meta->write_lock);
	return r;
}

VC_NO_ANALYSIS void vc_meta_end(struct vc_meta_txn *txn)
{
	if (!txn)
		return;
	if (!txn->write) {
		mdb_txn_reset(txn->txn);
		pool_give(txn);
		return;
	}
	mdb_txn_abort(txn->txn);
	vc_mutex_unlock(&txn->meta->write_lock);
	free(txn);
}

VC_NO_ANALYSIS int vc_meta_commit(struct vc_meta_txn *txn)
{
	struct vc_meta *meta = txn->meta;
	int rc;

	if (!txn->write) {
		vc_meta_end(txn);
		return -EINVAL;
	}
	rc = mdb_txn_commit(txn->txn);
	if (rc)
		atomic_store(&meta->failed, true);
	else
		vc_io_meta_committed(meta->io, meta->dir);
	vc_mutex_unlock(&meta->write_lock);
	free(txn);
	return rc ? vc_meta_failed(meta->path, "commit", rc) : 0;
}

/* ---- pairs ---- */

int vc_meta_get(struct vc_meta_txn *txn, enum vc_meta_db db, const void *key, size_t key_len, const void **ret_value,
		size_t *ret_len)
{
	MDB_val k = { key_len, (void *)(uintptr_t)key }, v;
	int r;

	r = mdb_get(txn->txn, txn->meta->dbi[db], &k, &v);
	if (r == MDB_NOTFOUND)
		return -ENOENT;
	if (r)
		return key_failed(txn->meta, "read", db, &k, r);
	r = value_open(txn->meta, db, &k, &v);
	if (r < 0)
		return r;
	*ret_value = v.mv_data;
	*ret_len = v.mv_size;
	return 0;
}

static int meta_put(struct vc_meta_txn *txn, enum vc_meta_db db, const void *key, size_t key_len, const void *value,
		    size_t len, unsigned flags)
{
	uint8_t buf[META_SUM_SIZE + META_VALUE_MAX];
	MDB_val k = { key_len, (void *)(uintptr_t)key }, v = { META_SUM_SIZE + len, buf };
	vc_le64 sum;
	int rc;

	if (!txn->write || len > META_VALUE_MAX || key_len == 0 || key_len > META_KEY_MAX)
		return -EINVAL;
	sum = vc_le64_of(value_sum(db, key, key_len, value, len));
	memcpy(buf, &sum, sizeof(sum));
	if (len)
		memcpy(buf + META_SUM_SIZE, value, len);
	rc = mdb_put(txn->txn, txn->meta->dbi[db], &k, &v, flags);
	if (rc == MDB_KEYEXIST && flags & MDB_APPEND)
		rc = mdb_put(txn->txn, txn->meta->dbi[db], &k, &v, 0);
	return rc ? key_failed(txn->meta, "write", db, &k, rc) : 0;
}

int vc_meta_put(struct vc_meta_txn *txn, enum vc_meta_db db, const void *key, size_t key_len, const void *value, size_t len)
{
	return meta_put(txn, db, key, key_len, value, len, 0);
}

int vc_meta_del(struct vc_meta_txn *txn, enum vc_meta_db db, const void *key, size_t key_len)
{
	MDB_val k = { key_len, (void *)(uintptr_t)key };
	int rc;

	if (!txn->write)
		return -EINVAL;
	rc = mdb_del(txn->txn, txn->meta->dbi[db], &k, NULL);
	if (rc == MDB_NOTFOUND)
		return -ENOENT;
	return rc ? key_failed(txn->meta, "delete", db, &k, rc) : 0;
}

static int scan_cursor(struct vc_meta *meta, MDB_cursor *cursor, enum vc_meta_db db, const MDB_val *prefix,
		       const MDB_val *from,
		       int (*fn)(void *ctx, const void *key, size_t key_len, const void *value, size_t len), void *ctx)
{
	MDB_val k = *from, v;
	int r;

	for (r = mdb_cursor_get(cursor, &k, &v, k.mv_size ? MDB_SET_RANGE : MDB_FIRST); r == 0;
	     r = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
		if (k.mv_size < prefix->mv_size || memcmp(k.mv_data, prefix->mv_data, prefix->mv_size) != 0)
			return 0;
		r = value_open(meta, db, &k, &v);
		if (r < 0)
			return r;
		r = fn(ctx, k.mv_data, k.mv_size, v.mv_data, v.mv_size);
		if (r)
			return r;
	}
	return r == MDB_NOTFOUND ? 0 : key_failed(meta, "scan from", db, from, r);
}

int vc_meta_scan(struct vc_meta_txn *txn, enum vc_meta_db db, const void *prefix, size_t prefix_len, const void *from,
		 size_t from_len, int (*fn)(void *ctx, const void *key, size_t key_len, const void *value, size_t len),
		 void *ctx)
{
	MDB_val first = { prefix_len, (void *)(uintptr_t)(prefix_len ? prefix : "") }, start = first;
	MDB_cursor *cursor;
	int r;

	if (from_len) {
		start.mv_size = from_len;
		start.mv_data = (void *)(uintptr_t)from;
	}
	r = mdb_cursor_open(txn->txn, txn->meta->dbi[db], &cursor);
	if (r)
		return vc_meta_failed(txn->meta->path, "scan", r);
	r = scan_cursor(txn->meta, cursor, db, &first, &start, fn, ctx);
	mdb_cursor_close(cursor);
	return r;
}

int vc_meta_node_get(struct vc_meta_txn *txn, uint64_t id, const void **ret_value, size_t *ret_len)
{
	uint8_t key[8];

	vc_be64_put(key, id);
	return vc_meta_get(txn, VC_DB_NODE, key, sizeof(key), ret_value, ret_len);
}

int vc_meta_node_put(struct vc_meta_txn *txn, uint64_t id, const void *value, size_t len)
{
	uint8_t key[8];

	vc_be64_put(key, id);
	return meta_put(txn, VC_DB_NODE, key, sizeof(key), value, len, MDB_APPEND); /* new ids ascend: pages fill up */
}

int vc_meta_node_del(struct vc_meta_txn *txn, uint64_t id)
{
	uint8_t key[8];

	vc_be64_put(key, id);
	return vc_meta_del(txn, VC_DB_NODE, key, sizeof(key));
}

/* ---- figures ---- */

static int free_pages(MDB_txn *txn, uint64_t *ret)
{
	MDB_cursor *cursor;
	MDB_val k, v;
	uint64_t n = 0;
	size_t count;
	int rc;

	rc = mdb_cursor_open(txn, META_FREE_LIST_DBI, &cursor);
	if (rc)
		return rc;
	while (!(rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT))) {
		if (v.mv_size < sizeof(count))
			continue;
		memcpy(&count, v.mv_data, sizeof(count));
		n += count;
	}
	mdb_cursor_close(cursor);
	*ret = n;
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static int txn_stats(struct vc_meta_txn *txn, struct vc_meta_stats *ret)
{
	struct vc_meta *meta = txn->meta;
	MDB_stat node, cat;
	MDB_envinfo info;
	uint64_t nfree = 0;
	int rc;

	rc = mdb_env_info(meta->env, &info);
	if (!rc)
		rc = mdb_stat(txn->txn, meta->dbi[VC_DB_NODE], &node);
	if (!rc)
		rc = mdb_stat(txn->txn, meta->dbi[VC_DB_CAT], &cat);
	if (!rc)
		rc = free_pages(txn->txn, &nfree);
	if (rc)
		return vc_meta_failed(meta->path, "figures", rc);
	*ret = (struct vc_meta_stats){
		.file_bytes = ((uint64_t)info.me_last_pgno + 1) * node.ms_psize,
		.free_bytes = nfree * node.ms_psize,
		.nodes = node.ms_entries,
		.rows = cat.ms_entries,
	};
	return 0;
}

int vc_meta_stats(struct vc_meta *meta, struct vc_meta_stats *ret)
{
	struct vc_meta_txn *txn;
	int r;

	r = vc_meta_read_begin(meta, &txn);
	if (r < 0)
		return r;
	r = txn_stats(txn, ret);
	vc_meta_end(txn);
	return r;
}
