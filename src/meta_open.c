/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta_open: making, opening and closing a store, and the look at all of its pages before any is followed.
 *
 *   vc_meta_check_file   the file is long enough to be mapped
 *   vc_meta_check_lock   LMDB's table of readers can be read
 *   LMDB maps it         reads its meta pages only
 *   vc_meta_walk         every page of every tree, and the checksum of every row
 *   "rows"               the rows are those that the last transaction left
 */
#include "config.h"
#include "meta.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checksum.h"
#include "meta_check.h"
#include "meta_impl.h"
#include "meta_walk.h"
#include "msg.h"

#define META_MAP_SIZE (UINT64_C(1) << 40)
#define META_MAP_SIZE_MIN (UINT64_C(1) << 32)
#define META_READERS_MAX 1024
#define META_WALK_TRIES 20

static const char *const db_names[VC_DB_COUNT] = { "node", "cat" };

/* 0, or as LMDB says. What is left behind by a fault within it is found through `ret`. */
static int env_try_open(const char *path, unsigned flags, uint64_t map_size, MDB_env **ret)
{
	int rc = mdb_env_create(ret);

	if (rc)
		return rc;
	vc_meta_guard_install(*ret);
	rc = mdb_env_set_maxdbs(*ret, VC_DB_COUNT);
	if (!rc)
		rc = mdb_env_set_maxreaders(*ret, META_READERS_MAX);
	if (!rc)
		rc = mdb_env_set_mapsize(*ret, map_size);
	if (!rc)
		rc = mdb_env_open(*ret, path, flags | MDB_NOTLS | MDB_NORDAHEAD, 0600);
	if (rc) {
		mdb_env_close(*ret);
		*ret = NULL;
	}
	return rc;
}

/*
 * What LMDB does while it opens: guarded as all the rest. That vc_meta_walk could read a page says little about a load from the mapping, for which
 * the kernel wants all of a large folio, with what the device cannot give of the pages beside it, and nothing about the table of readers.
 */
struct opening {
	struct vc_meta *meta;
	const char *path;      /* for LMDB: file or directory */
	unsigned flags;
	uint64_t map_size;     /* 0: as much as there is */
	bool create;
	struct vc_meta_txn *txn;
	struct meta_disk_rows rows;
};

/* Not every machine has so much address space to give: then as much as there is. */
static int open_env(void *ctx)
{
	struct opening *o = ctx;
	uint64_t size = o->map_size ? o->map_size : META_MAP_SIZE;
	int rc;

	while ((rc = env_try_open(o->path, o->flags, size, &o->meta->env)) == ENOMEM && !o->map_size && size > META_MAP_SIZE_MIN)
		size /= 2;
	return rc;
}

int vc_meta_env_open(struct vc_meta *meta, const char *path, unsigned flags, uint64_t map_size)
{
	struct opening o = { .meta = meta, .path = path, .flags = flags, .map_size = map_size };
	int rc = vc_meta_guard(meta, "open", open_env, &o);

	return rc ? vc_meta_failed(meta->path, "open", rc) : 0;
}

static int open_databases(void *ctx)
{
	struct opening *o = ctx;
	struct vc_meta *meta = o->meta;
	int rc = mdb_txn_begin(meta->env, NULL, o->create ? 0 : MDB_RDONLY, &meta->opening);

	if (rc)
		return rc;
	for (int i = 0; !rc && i < VC_DB_COUNT; i++)
		rc = mdb_dbi_open(meta->opening, db_names[i], o->create ? MDB_CREATE : 0, &meta->dbi[i]);
	if (!rc)
		return mdb_txn_commit(meta->opening);
	mdb_txn_abort(meta->opening);
	return rc;
}

int vc_meta_env_databases(struct vc_meta *meta, bool create)
{
	struct opening o = { .meta = meta, .create = create };
	int rc = vc_meta_guard(meta, "open", open_databases, &o);
	int r = rc ? vc_meta_failed(meta->path, "open the databases of a pool", rc) : 0;

	return rc == MDB_NOTFOUND ? -EUCLEAN : r;
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
	struct vc_meta *meta;
	int r;

	r = meta_find(params, &at);
	if (r < 0)
		return r;
	if (access(at.path, F_OK) == 0) {
		vc_err("%s: exists already", at.path);
		return -EEXIST;
	}
	r = vc_meta_new(params->io, at.commits, at.path, &meta);
	if (r < 0)
		return r;
	r = vc_meta_env_open(meta, at.open, at.flags, params->map_size);
	if (r == 0)
		r = vc_meta_env_databases(meta, true);
	vc_meta_close(meta);
	if (r < 0)
		return r;
	vc_io_meta_committed(params->io, at.commits);
	return vc_io_sync_dir(params->io, params->dir);
}

/* ---- the look at all pages ---- */

struct verify {
	struct vc_meta *meta;
	uint64_t bad;          /* rows with a wrong checksum */
};

static int verify_bad(void *ctx, enum vc_meta_db db, const void *key, size_t key_len)
{
	struct verify *v = ctx;
	char text[80];

	v->bad++;
	vc_err("%s: %s: checksum does not match; run a check of the pool, restore from the backup and the journal", v->meta->path,
	       vc_meta_key_text(db, key, key_len, text, sizeof(text)));
	return 0;
}

static int open_rows(void *ctx)
{
	struct opening *o = ctx;
	MDB_val key = { strlen(META_ROWS_KEY), (void *)(uintptr_t)META_ROWS_KEY }, value;
	int rc = mdb_dbi_open(o->txn->txn, NULL, 0, &o->meta->main);

	if (!rc)
		rc = mdb_get(o->txn->txn, o->meta->main, &key, &value);
	if (rc)
		return rc;
	if (value.mv_size != sizeof(o->rows))
		return MDB_CORRUPTED;
	memcpy(&o->rows, value.mv_data, sizeof(o->rows));
	return 0;
}

/* What the last writer says the rows are. 0: not said for this snapshot. */
static int verify_rows_said(struct vc_meta *meta, struct vc_meta_txn *txn, struct meta_disk_rows *ret)
{
	struct opening o = { .meta = meta, .txn = txn };
	int rc = vc_meta_guard(meta, "read the sum of rows", open_rows, &o);

	if (rc == MDB_NOTFOUND)
		return 0;
	if (rc == MDB_CORRUPTED)
		return -EUCLEAN;
	if (rc)
		return vc_meta_failed(meta->path, "read the sum of rows", rc);
	*ret = o.rows;
	if (vc_le64_get(ret->check) != vc_sum64(ret, offsetof(struct meta_disk_rows, check), 0))
		return -EUCLEAN;
	return vc_le64_get(ret->txn) == mdb_txn_id(txn->txn);
}

static int verify_rows(struct vc_meta *meta, struct vc_meta_txn *txn, const struct vc_meta_walk *walk)
{
	struct meta_disk_rows said;
	int r = verify_rows_said(meta, txn, &said);

	if (r == 1 && (vc_le64_get(said.count) != walk->count[VC_DB_CAT] || vc_le64_get(said.sum) != walk->rows_sum)) {
		vc_err("%s: not the %" PRIu64 " rows that were written last: a page is an older one; restore it from the backup and the journal",
		       meta->path, vc_le64_get(said.count));
		return -EUCLEAN;
	}
	if (r == -EUCLEAN)
		vc_err("%s: the sum of rows is damaged; restore it from the backup and the journal", meta->path);
	return VC_MIN(r, 0);
}

static int verify_snapshot(struct vc_meta *meta, struct vc_meta_txn *txn, bool examine)
{
	struct verify v = { .meta = meta };
	struct vc_meta_walk walk = { .path = meta->path, .txn = mdb_txn_id(txn->txn), .bad = verify_bad, .ctx = &v };
	int r = vc_meta_walk(&walk), doubt;

	if (r < 0)
		return r;
	doubt = v.bad ? -EBADMSG : verify_rows(meta, txn, &walk);
	meta->doubtful = doubt < 0;
	meta->rows_known = doubt == 0;
	meta->rows_count = walk.count[VC_DB_CAT];
	meta->rows_sum = walk.rows_sum;
	return examine ? 0 : doubt;
}

/* A snapshot that other processes overtake is tried again. */
static int meta_verify(struct vc_meta *meta, bool examine)
{
	struct vc_meta_txn *txn;
	int r = -EAGAIN;

	for (unsigned int i = 0; i < META_WALK_TRIES && r == -EAGAIN; i++) {
		r = vc_meta_read_begin(meta, &txn);
		if (r < 0)
			return r;
		r = verify_snapshot(meta, txn, examine);
		vc_meta_end(txn);
	}
	if (r == -EAGAIN)
		vc_err("%s: changes too fast to be looked at", meta->path);
	return r;
}

int vc_meta_scrub(struct vc_meta *meta, const struct vc_meta_scrub *scrub)
{
	struct vc_meta_walk walk = { .path = meta->path, .nodes = true, .direct = true, .bad = scrub->bad, .step = scrub->step,
				     .ctx = scrub->ctx };
	int r = -EAGAIN;

	for (unsigned int i = 0; i < META_WALK_TRIES && r == -EAGAIN; i++) {
		struct vc_meta_txn *txn;

		r = vc_meta_read_begin(meta, &txn);
		if (r < 0)
			return r;
		walk.txn = mdb_txn_id(txn->txn);
		r = vc_meta_walk(&walk);
		vc_meta_end(txn);
	}
	return r;
}

/* ---- life ---- */

static int open_readers(void *ctx)
{
	struct vc_meta *meta = ctx;
	int dead;

	return mdb_reader_check(meta->env, &dead);
}

/* Slots of processes that died would pin old pages. */
static int free_readers(struct vc_meta *meta)
{
	int rc = vc_meta_guard(meta, "check readers", open_readers, meta);

	return rc ? vc_meta_failed(meta->path, "check readers", rc) : 0;
}

static int meta_open(struct vc_meta *meta, const struct vc_meta_params *params, const struct meta_place *at)
{
	struct stat st;
	int r = params->file ? 0 : vc_meta_check_lock(at->dir);

	if (r == 0)
		r = vc_meta_env_open(meta, at->open, at->flags, params->map_size);
	if (r == 0)
		r = meta_verify(meta, params->examine);
	if (r == 0)
		r = vc_meta_env_databases(meta, false);
	if (r < 0)
		return r;
	if (stat(meta->path, &st) == 0)
		meta->file_size = (uint64_t)st.st_size;
	return params->file ? 0 : free_readers(meta);
}

bool vc_meta_doubtful(const struct vc_meta *meta) { return meta->doubtful; }

int vc_meta_open(const struct vc_meta_params *params, struct vc_meta **ret)
{
	struct meta_place at;
	struct vc_meta *meta;
	int r;

	r = meta_find(params, &at);
	if (r == 0)
		r = vc_meta_check_file(at.path);
	if (r == 0)
		r = vc_meta_new(params->io, at.commits, at.path, &meta);
	if (r < 0)
		return r;
	meta->read_only = params->read_only;
	meta->reserve = params->reserve;
	r = meta_open(meta, params, &at);
	if (r < 0) {
		vc_meta_close(meta);
		return r;
	}
	*ret = meta;
	return 0;
}

static int close_env(void *ctx)
{
	struct vc_meta *meta = ctx;
	struct vc_meta_txn *txn;

	while ((txn = meta->idle)) {
		meta->idle = txn->next;
		mdb_txn_abort(txn->txn);
		free(txn);
	}
	if (meta->anchor)
		mdb_txn_abort(meta->anchor);
	if (meta->env)
		mdb_env_close(meta->env);
	return 0;
}

/* Closing the environment of a broken store would touch what is gone. */
void vc_meta_close(struct vc_meta *meta)
{
	int rc;

	if (!meta)
		return;
	rc = vc_meta_guard(meta, "close", close_env, meta);
	vc_mutex_fini(&meta->pool_lock);
	vc_mutex_fini(&meta->write_lock);
	if (rc == META_GONE) {
		vc_meta_lose(meta);
		return;
	}
	free(meta->path);
	free(meta->dir);
	free(meta);
}
