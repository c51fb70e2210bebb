/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta: the key-value store over LMDB: values, transactions, pairs. Opening and closing: meta_open.c.
 *
 *   DIR/data.mdb   two named databases, "node" and "cat"; every value is   sum (8 bytes)  value
 *                  sum = vc_sum64(value, seed = vc_sum64(key, seed = number of the database))
 *                  and beside them "rows", struct meta_disk_rows
 *   DIR/lock.mdb   LMDB's table of readers
 *
 * Invariants
 *   M1  No byte of a value leaves this file before its checksum matched; what leaves is a copy, and the copy is what was verified.
 *   M2  LMDB never maps a file that vc_meta_check_file refused, and never follows pages of one that vc_meta_walk refused.
 *   M3  A read transaction is either with one caller or, reset, in the pool; a reset one pins no snapshot.
 *   M4  After a failed commit (`failed`) no write transaction begins again. Lack of space is no such failure, nor lack of memory before it began: the pages that were
 *       written, and perhaps not synced, belong to a transaction that never was, and the next one writes all of its own.
 *   M5  LMDB is called in guarded functions only (meta_guard.c); once the store is `broken` it is not called at all.
 *   M6  When the meta page itself could not be written, LMDB refuses its environment from then on, readers included. A read
 *       transaction begun before every commit (`anchor`) survives that, and all reads go through it (`lost`). That is sound because
 *       looking things up in a read transaction changes nothing in it, once the roots of all databases are known to it.
 *
 * Locks: write_lock is held from vc_meta_write_begin to the end of that transaction and orders writers before LMDB's own
 * mutex does. pool_lock protects the list of idle read transactions; it has the rank of a cache shard, because
 * that is what the pool is, and nothing is locked or read while it is held.
 */
#include "config.h"
#include "meta.h"

#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "checksum.h"
#include "meta_impl.h"
#include "msg.h"

#define META_ROOM_PAGES 64u /* the least kept allocated beyond the last page */

/** A guarded call and what it works on. */
struct call {
	struct vc_meta *meta;
	MDB_txn *txn;
	MDB_dbi dbi;
	MDB_val key, value;
	MDB_cursor *cursor;
	MDB_cursor_op op;
	unsigned flags;
	uint8_t *key_copy, *value_copy; /* where GET and CURSOR put what they find */
};

/* ---- errors ---- */

int vc_meta_errno(int rc)
{
	switch (rc) {
	case MDB_NOTFOUND: return -ENOENT;
	case MDB_KEYEXIST: return -EEXIST;
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_INVALID: return -EUCLEAN;
	case MDB_MAP_FULL:
	case EDQUOT: return -ENOSPC;
	case MDB_VERSION_MISMATCH: return -ENOTSUP;
	case MDB_READERS_FULL: return -EAGAIN;
	case MDB_TXN_FULL: return -E2BIG;
	case META_GONE:
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
	if (rc != META_GONE)
		vc_err("%s: %s: %s", path, what, mdb_strerror(rc));
	return vc_meta_errno(rc);
}

const char *vc_meta_key_text(enum vc_meta_db db, const void *key, size_t len, char *buf, size_t size)
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

	if (rc != META_GONE)
		vc_err("%s: %s %s: %s", meta->path, what, vc_meta_key_text(db, key->mv_data, key->mv_size, text, sizeof(text)),
		       mdb_strerror(rc));
	return vc_meta_errno(rc);
}

bool vc_meta_broken(const struct vc_meta *meta) { return atomic_load(&meta->broken); }

/* ---- values ---- */

static uint64_t value_sum(enum vc_meta_db db, const void *key, size_t key_len, const void *value, size_t len)
{
	return vc_sum64(value, len, vc_sum64(key, key_len, (uint64_t)db + 1));
}

bool vc_meta_value_ok(enum vc_meta_db db, const void *key, size_t key_len, const void *value, size_t len)
{
	vc_le64 sum;

	if (len < META_SUM_SIZE || len > META_SUM_SIZE + META_VALUE_MAX)
		return false;
	memcpy(&sum, value, sizeof(sum));
	return vc_le64_get(sum) == value_sum(db, key, key_len, (const uint8_t *)value + META_SUM_SIZE, len - META_SUM_SIZE);
}

/** Check the pair and cut the checksum off its value. */
static int value_open(const struct vc_meta *meta, enum vc_meta_db db, const MDB_val *key, MDB_val *value)
{
	char text[80];

	if (vc_meta_value_ok(db, key->mv_data, key->mv_size, value->mv_data, value->mv_size)) {
		value->mv_data = (uint8_t *)value->mv_data + META_SUM_SIZE;
		value->mv_size -= META_SUM_SIZE;
		return 0;
	}
	vc_err("%s: %s: checksum does not match; run a check of the pool, restore from the backup and the journal", meta->path,
	       vc_meta_key_text(db, key->mv_data, key->mv_size, text, sizeof(text)));
	return -EBADMSG;
}

/* ---- guarded calls ---- */

static int call_begin(void *ctx)
{
	struct call *c = ctx;

	return mdb_txn_begin(c->meta->env, NULL, c->flags, &c->txn);
}

static int call_renew(void *ctx) { return mdb_txn_renew(((struct call *)ctx)->txn); }

static int call_reset(void *ctx)
{
	mdb_txn_reset(((struct call *)ctx)->txn);
	return 0;
}

static int call_abort(void *ctx)
{
	mdb_txn_abort(((struct call *)ctx)->txn);
	return 0;
}

static int call_commit(void *ctx) { return mdb_txn_commit(((struct call *)ctx)->txn); }

/* A value too long to be ours is left to value_open, which refuses it by its length. */
static void call_keep(struct call *c, const MDB_val *value)
{
	if (value->mv_size)
		memcpy(c->value_copy, value->mv_data, VC_MIN(value->mv_size, (size_t)META_SUM_SIZE + META_VALUE_MAX));
	c->value = (MDB_val){ value->mv_size, c->value_copy };
}

static int call_get(void *ctx)
{
	struct call *c = ctx;
	MDB_val value = { 0, NULL }; /* not set by LMDB for a node with flags that are not ours */
	int rc = mdb_get(c->txn, c->dbi, &c->key, &value);

	if (rc == 0)
		call_keep(c, &value);
	return rc;
}

static int call_put(void *ctx)
{
	struct call *c = ctx;

	return mdb_put(c->txn, c->dbi, &c->key, &c->value, c->flags);
}

static int call_del(void *ctx)
{
	struct call *c = ctx;

	return mdb_del(c->txn, c->dbi, &c->key, NULL);
}

static int call_cursor_open(void *ctx)
{
	struct call *c = ctx;

	return mdb_cursor_open(c->txn, c->dbi, &c->cursor);
}

static int call_cursor_get(void *ctx)
{
	struct call *c = ctx;
	MDB_val key = c->key, value = { 0, NULL };
	int rc = mdb_cursor_get(c->cursor, &key, &value, c->op);

	if (rc)
		return rc;
	if (key.mv_size > META_KEY_MAX)
		return MDB_CORRUPTED;
	memcpy(c->key_copy, key.mv_data, key.mv_size);
	c->key = (MDB_val){ key.mv_size, c->key_copy };
	call_keep(c, &value);
	return 0;
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

/* A transaction that LMDB cannot end stays as it is: nothing of it is in the file. */
static void txn_drop(struct vc_meta_txn *txn)
{
	struct call c = { .txn = txn->txn };

	(void)!vc_meta_guard(txn->meta, "end a transaction", call_abort, &c);
	free(txn);
}

static int read_begin_lost(struct vc_meta *meta, struct vc_meta_txn **ret)
{
	struct vc_meta_txn *txn = calloc(1, sizeof(*txn));

	if (!txn)
		return -ENOMEM;
	txn->meta = meta;
	txn->txn = meta->anchor;
	txn->shared = true;
	*ret = txn;
	return 0;
}

int vc_meta_read_begin(struct vc_meta *meta, struct vc_meta_txn **ret)
{
	struct call c = { .meta = meta, .flags = MDB_RDONLY };
	struct vc_meta_txn *txn;
	int rc;

	if (atomic_load(&meta->lost))
		return read_begin_lost(meta, ret);
	txn = pool_take(meta);
	if (txn) {
		c.txn = txn->txn;
		rc = vc_meta_guard(meta, "begin to read", call_renew, &c);
	} else {
		txn = calloc(1, sizeof(*txn));
		if (!txn)
			return -ENOMEM;
		txn->meta = meta;
		rc = vc_meta_guard(meta, "begin to read", call_begin, &c);
		txn->txn = c.txn;
	}
	if (rc) {
		if (rc == META_GONE && txn->txn)
			pool_give(txn);
		else if (txn->txn)
			txn_drop(txn);
		else
			free(txn);
		if (rc == MDB_PANIC) {
			while (!atomic_load(&meta->lost)) /* the thread whose commit failed is about to say so */
				sched_yield();
			return read_begin_lost(meta, ret);
		}
		return vc_meta_failed(meta->path, "begin to read", rc);
	}
	*ret = txn;
	return 0;
}

/* LMDB would go on with zeros where a truncated file is extended again. */
static bool write_file_is_whole(struct vc_meta *meta)
{
	mdb_filehandle_t fd;
	struct stat st;

	if (mdb_env_get_fd(meta->env, &fd) || fstat(fd, &st) < 0)
		return true;
	if ((uint64_t)st.st_size < meta->file_size) {
		vc_meta_break(meta, "the file became shorter");
		return false;
	}
	meta->file_size = (uint64_t)st.st_size;
	return true;
}

static int write_begin_locked(struct vc_meta *meta, struct vc_meta_txn **ret)
{
	struct call c = { .meta = meta };
	struct vc_meta_txn *txn;
	int rc;

	if (meta->read_only || atomic_load(&meta->failed))
		return -EROFS;
	if (!write_file_is_whole(meta))
		return -EIO;
	txn = calloc(1, sizeof(*txn));
	if (!txn)
		return -ENOMEM;
	txn->meta = meta;
	txn->write = true;
	txn->rows_known = meta->rows_known;
	txn->rows_count = meta->rows_count;
	txn->rows_sum = meta->rows_sum;
	rc = vc_meta_guard(meta, "begin to write", call_begin, &c);
	if (rc) {
		free(txn);
		return vc_meta_failed(meta->path, "begin to write", rc);
	}
	txn->txn = c.txn;
	*ret = txn;
	return 0;
}

/* Blocks for all of the file up to `end`, holes that LMDB left included. 0 or an errno. */
static int room_allocate(struct vc_meta *meta, int fd, uint64_t end)
{
	if (end <= meta->room)
		return 0;
	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)meta->room, (off_t)(end - meta->room)) < 0 && errno != EOPNOTSUPP && errno != EINTR)
		return errno;
	meta->room = end;
	return 0;
}

/* What a try in vain has allocated stays, and is a part of the reserve: a later try for less finds it. */
static int write_room_locked(struct vc_meta *meta, uint64_t npages)
{
	MDB_envinfo info;
	MDB_stat stat;
	uint64_t end;
	int fd, rc = mdb_env_info(meta->env, &info);

	if (!rc)
		rc = mdb_env_stat(meta->env, &stat);
	if (!rc)
		rc = mdb_env_get_fd(meta->env, &fd);
	if (rc)
		return vc_meta_failed(meta->path, "figures", rc);
	end = VC_MIN((info.me_last_pgno + 1 + npages) * stat.ms_psize, (uint64_t)info.me_mapsize);
	rc = room_allocate(meta, fd, VC_MIN(end + META_ROOM_PAGES * stat.ms_psize + meta->reserve, (uint64_t)info.me_mapsize));
	if (rc == ENOSPC || rc == EDQUOT)
		rc = room_allocate(meta, fd, end);
	return rc ? vc_meta_failed(meta->path, "reserve space", rc) : 0;
}

static VC_NO_ANALYSIS int write_begin(struct vc_meta *meta, bool room, uint64_t npages, struct vc_meta_txn **ret)
{
	int r = 0;

	vc_mutex_lock(&meta->write_lock);
	if (room && !meta->read_only && !atomic_load(&meta->failed) && !atomic_load(&meta->broken))
		r = write_room_locked(meta, npages);
	if (r == 0)
		r = write_begin_locked(meta, ret);
	if (r < 0)
		vc_mutex_unlock(&meta->write_lock);
	return r;
}

int vc_meta_write_begin(struct vc_meta *meta, struct vc_meta_txn **ret) { return write_begin(meta, false, 0, ret); }

int vc_meta_write_begin_room(struct vc_meta *meta, uint64_t npages, struct vc_meta_txn **ret)
{
	return write_begin(meta, true, npages, ret);
}

VC_NO_ANALYSIS void vc_meta_end(struct vc_meta_txn *txn)
{
	struct vc_meta *meta;
	struct call c;

	if (!txn)
		return;
	meta = txn->meta;
	if (txn->shared) {
		free(txn);
		return;
	}
	if (txn->write) {
		txn_drop(txn);
		vc_mutex_unlock(&meta->write_lock);
		return;
	}
	c = (struct call){ .txn = txn->txn };
	(void)!vc_meta_guard(meta, "end a transaction", call_reset, &c);
	pool_give(txn);
}

/* What the catalog holds after this transaction, in the same transaction. */
static int commit_rows(struct vc_meta_txn *txn)
{
	struct meta_disk_rows rows = { .count = vc_le64_of(txn->rows_count), .sum = vc_le64_of(txn->rows_sum) };
	struct call c = { .txn = txn->txn, .dbi = txn->meta->main, .key = { strlen(META_ROWS_KEY), (void *)(uintptr_t)META_ROWS_KEY },
			  .value = { sizeof(rows), &rows } };

	if (!txn->rows_known)
		return 0;
	rows.txn = vc_le64_of(mdb_txn_id(txn->txn));
	rows.check = vc_le64_of(vc_sum64(&rows, offsetof(struct meta_disk_rows, check), 0));
	return vc_meta_guard(txn->meta, "write the sum of rows", call_put, &c);
}

/* A read transaction on what the last commit left, which knows the roots of all databases. */
static int call_anchor(void *ctx)
{
	struct vc_meta *meta = ctx;
	MDB_stat stat;
	int rc = meta->anchor ? mdb_txn_renew(meta->anchor) : mdb_txn_begin(meta->env, NULL, MDB_RDONLY, &meta->anchor);

	for (int i = 0; !rc && i < VC_DB_COUNT; i++)
		rc = mdb_stat(meta->anchor, meta->dbi[i], &stat);
	return rc ? rc : mdb_stat(meta->anchor, meta->main, &stat);
}

/* Did LMDB give its environment up? It tells whoever begins. */
static bool env_is_lost(struct vc_meta *meta)
{
	struct call c = { .meta = meta, .flags = MDB_RDONLY };
	int rc = vc_meta_guard(meta, "look at the environment", call_begin, &c);

	if (rc)
		return rc == MDB_PANIC;
	c = (struct call){ .txn = c.txn };
	return vc_meta_guard(meta, "look at the environment", call_abort, &c) == MDB_PANIC;
}

/* The transaction is gone, and the anchor holds the state before it. Returns why, as -errno. */
static int commit_failed(struct vc_meta *meta, int rc)
{
	bool lost = env_is_lost(meta);
	int r = vc_meta_failed(meta->path, "commit", rc);

	if (lost || r != -ENOSPC)
		atomic_store(&meta->failed, true);
	if (lost)
		atomic_store(&meta->lost, true);
	return lost && r == -ENOSPC ? -EIO : r;
}

/* Everything but the commit itself: what it writes at the end, and what readers need should it fail. */
static int commit_prepare(struct vc_meta_txn *txn)
{
	struct vc_meta *meta = txn->meta;
	int rc = write_file_is_whole(meta) ? commit_rows(txn) : META_GONE, r;

	if (!rc)
		rc = vc_meta_guard(meta, "begin to commit", call_anchor, meta);
	if (!rc)
		return 0;
	r = vc_meta_failed(meta->path, "commit", rc);
	if (r != -ENOSPC && r != -ENOMEM)
		atomic_store(&meta->failed, true);
	return r;
}

VC_NO_ANALYSIS int vc_meta_commit(struct vc_meta_txn *txn)
{
	struct vc_meta *meta = txn->meta;
	struct call c = { .txn = txn->txn };
	int rc, r;

	if (!txn->write) {
		vc_meta_end(txn);
		return -EINVAL;
	}
	r = commit_prepare(txn);
	if (r < 0) {
		vc_meta_end(txn);
		return r;
	}
	rc = vc_meta_guard(meta, "commit", call_commit, &c);
	if (rc) {
		r = commit_failed(meta, rc);
	} else {
		meta->rows_known = txn->rows_known;
		meta->rows_count = txn->rows_count;
		meta->rows_sum = txn->rows_sum;
		vc_io_meta_committed(meta->io, meta->dir);
	}
	if (!atomic_load(&meta->lost)) {
		struct call end = { .txn = meta->anchor };
		int ended VC_UNUSED = vc_meta_guard(meta, "end a transaction", call_reset, &end); /* a broken store has said so */
	}
	vc_mutex_unlock(&meta->write_lock);
	free(txn);
	return r;
}

/* ---- pairs ---- */

int vc_meta_get(struct vc_meta_txn *txn, enum vc_meta_db db, const void *key, size_t key_len, const void **ret_value,
		size_t *ret_len)
{
	struct call c = { .txn = txn->txn, .dbi = txn->meta->dbi[db], .key = { key_len, (void *)(uintptr_t)key }, .value_copy = txn->value };
	int r = vc_meta_guard(txn->meta, "read", call_get, &c);

	if (r == MDB_NOTFOUND)
		return -ENOENT;
	if (r)
		return key_failed(txn->meta, "read", db, &c.key, r);
	r = value_open(txn->meta, db, &c.key, &c.value);
	if (r < 0)
		return r;
	*ret_value = c.value.mv_data;
	*ret_len = c.value.mv_size;
	return 0;
}

/* The row under `key` is about to go. One whose checksum is wrong leaves us without knowledge of what the others make together. */
static int rows_remove(struct vc_meta_txn *txn, const MDB_val *key)
{
	struct call c = { .txn = txn->txn, .dbi = txn->meta->dbi[VC_DB_CAT], .key = *key, .value_copy = txn->value };
	int rc = txn->rows_known ? vc_meta_guard(txn->meta, "read", call_get, &c) : MDB_NOTFOUND;
	vc_le64 sum;

	if (rc)
		return rc == MDB_NOTFOUND ? 0 : rc;
	txn->rows_known = vc_meta_value_ok(VC_DB_CAT, key->mv_data, key->mv_size, c.value.mv_data, c.value.mv_size);
	memcpy(&sum, c.value.mv_data, sizeof(sum));
	txn->rows_count--;
	txn->rows_sum -= vc_le64_get(sum);
	return 0;
}

static int meta_put(struct vc_meta_txn *txn, enum vc_meta_db db, const void *key, size_t key_len, const void *value,
		    size_t len, unsigned flags)
{
	uint8_t buf[META_SUM_SIZE + META_VALUE_MAX];
	struct call c = { .txn = txn->txn, .dbi = txn->meta->dbi[db], .key = { key_len, (void *)(uintptr_t)key },
			  .value = { META_SUM_SIZE + len, buf }, .flags = flags };
	uint64_t number;
	vc_le64 sum;
	int rc = 0;

	if (!txn->write || len > META_VALUE_MAX || key_len == 0 || key_len > META_KEY_MAX)
		return -EINVAL;
	number = value_sum(db, key, key_len, value, len);
	sum = vc_le64_of(number);
	memcpy(buf, &sum, sizeof(sum));
	if (len)
		memcpy(buf + META_SUM_SIZE, value, len);
	if (db == VC_DB_CAT) {
		rc = rows_remove(txn, &c.key);
		txn->rows_count++;
		txn->rows_sum += number;
	}
	if (rc == 0)
		rc = vc_meta_guard(txn->meta, "write", call_put, &c);
	if (rc == MDB_KEYEXIST && flags & MDB_APPEND) {
		c.flags = 0;
		rc = vc_meta_guard(txn->meta, "write", call_put, &c);
	}
	return rc ? key_failed(txn->meta, "write", db, &c.key, rc) : 0;
}

int vc_meta_put(struct vc_meta_txn *txn, enum vc_meta_db db, const void *key, size_t key_len, const void *value, size_t len)
{
	return meta_put(txn, db, key, key_len, value, len, 0);
}

int vc_meta_append(struct vc_meta_txn *txn, enum vc_meta_db db, const void *key, size_t key_len, const void *value, size_t len)
{
	return meta_put(txn, db, key, key_len, value, len, MDB_APPEND);
}

int vc_meta_del(struct vc_meta_txn *txn, enum vc_meta_db db, const void *key, size_t key_len)
{
	struct call c = { .txn = txn->txn, .dbi = txn->meta->dbi[db], .key = { key_len, (void *)(uintptr_t)key } };
	int rc = 0;

	if (!txn->write)
		return -EINVAL;
	if (db == VC_DB_CAT)
		rc = rows_remove(txn, &c.key);
	if (rc == 0)
		rc = vc_meta_guard(txn->meta, "delete", call_del, &c);
	if (rc == MDB_NOTFOUND)
		return -ENOENT;
	return rc ? key_failed(txn->meta, "delete", db, &c.key, rc) : 0;
}

static int scan_cursor(struct vc_meta *meta, MDB_cursor *cursor, enum vc_meta_db db, const MDB_val *prefix,
		       const MDB_val *from,
		       int (*fn)(void *ctx, const void *key, size_t key_len, const void *value, size_t len), void *ctx)
{
	uint8_t key[META_KEY_MAX], value[META_SUM_SIZE + META_VALUE_MAX];
	struct call c = { .cursor = cursor, .key = *from, .op = from->mv_size ? MDB_SET_RANGE : MDB_FIRST,
			  .key_copy = key, .value_copy = value };
	int r;

	for (r = vc_meta_guard(meta, "scan", call_cursor_get, &c); r == 0; r = vc_meta_guard(meta, "scan", call_cursor_get, &c)) {
		if (c.key.mv_size < prefix->mv_size || memcmp(c.key.mv_data, prefix->mv_data, prefix->mv_size) != 0)
			return 0;
		r = value_open(meta, db, &c.key, &c.value);
		if (r < 0)
			return r;
		r = fn(ctx, c.key.mv_data, c.key.mv_size, c.value.mv_data, c.value.mv_size);
		if (r)
			return r;
		c.op = MDB_NEXT;
	}
	return r == MDB_NOTFOUND ? 0 : key_failed(meta, "scan from", db, from, r);
}

int vc_meta_scan(struct vc_meta_txn *txn, enum vc_meta_db db, const void *prefix, size_t prefix_len, const void *from,
		 size_t from_len, int (*fn)(void *ctx, const void *key, size_t key_len, const void *value, size_t len),
		 void *ctx)
{
	MDB_val first = { prefix_len, (void *)(uintptr_t)(prefix_len ? prefix : "") }, start = first;
	struct call c = { .txn = txn->txn, .dbi = txn->meta->dbi[db] };
	int r;

	if (from_len) {
		start.mv_size = from_len;
		start.mv_data = (void *)(uintptr_t)from;
	}
	r = vc_meta_guard(txn->meta, "scan", call_cursor_open, &c);
	if (r)
		return vc_meta_failed(txn->meta->path, "scan", r);
	r = scan_cursor(txn->meta, c.cursor, db, &first, &start, fn, ctx);
	mdb_cursor_close(c.cursor);
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
