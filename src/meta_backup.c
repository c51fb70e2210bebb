/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta_backup: a compact copy of the store in one file, believed only after every value of it was read back.
 *
 * The pairs of one snapshot are read in order, each verified, and appended to a new file, which fills its pages. (LMDB's own copy reads
 * the mapping without our guard, and has a thread that cannot be left behind when a page turns out to be gone.) The snapshot is a
 * read transaction: pages freed meanwhile are reused only afterwards. The new file is used without LMDB's lock file, which is
 * safe because nobody else knows it yet.
 */
#include "config.h"
#include "meta.h"

#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <lmdb.h>
#include <stdio.h>
#include <unistd.h>

#include "meta_check.h"
#include "meta_impl.h"
#include "msg.h"

#define BACKUP_MAP_SIZE (UINT64_C(1) << 20) /* for reading: LMDB raises it to what the file holds */
#define BACKUP_BATCH 10000u                 /* pairs in a transaction of the copy */
#define BACKUP_FLAGS (MDB_NOSUBDIR | MDB_NOLOCK)

struct backup {
	struct vc_meta *meta;
	const char *name, *path;          /* of the new file: for the engine, for LMDB */
	struct vc_meta *copy;
	struct vc_meta_txn *from, *to;
	enum vc_meta_db db;
	unsigned n;                       /* pairs in `to` */
	uint64_t count[VC_DB_COUNT];      /* pairs copied */
	uint64_t snapshot[VC_DB_COUNT];   /* pairs there are */
};

/* ---- reading it back ---- */

static int backup_count(void *ctx, const void *key VC_UNUSED, size_t key_len VC_UNUSED, const void *value VC_UNUSED,
			size_t len VC_UNUSED)
{
	uint64_t *n = ctx;

	++*n;
	return 0;
}

/** Read every value (vc_meta_scan checks the sums) and compare their number with what the snapshot had. */
static int backup_read_all(const struct backup *b, struct vc_meta *copy)
{
	struct vc_meta_txn *txn;
	uint64_t found[VC_DB_COUNT] = { 0 };
	int r = vc_meta_read_begin(copy, &txn);

	if (r < 0)
		return r;
	for (int db = 0; db < VC_DB_COUNT && r == 0; db++)
		r = vc_meta_scan(txn, (enum vc_meta_db)db, NULL, 0, NULL, 0, backup_count, &found[db]);
	vc_meta_end(txn);
	for (int db = 0; db < VC_DB_COUNT && r == 0; db++) {
		if (found[db] == b->snapshot[db])
			continue;
		vc_err("%s: the backup has %" PRIu64 " values instead of %" PRIu64, copy->path, found[db],
		       b->snapshot[db]);
		r = -EUCLEAN;
	}
	return r;
}

static int backup_open(const struct backup *b, bool create, struct vc_meta **ret)
{
	struct vc_meta *copy;
	int r = vc_meta_new(b->meta->io, b->name, b->path, &copy);

	if (r < 0)
		return r;
	copy->read_only = !create;
	r = vc_meta_env_open(copy, b->path, create ? BACKUP_FLAGS : BACKUP_FLAGS | MDB_RDONLY, create ? 0 : BACKUP_MAP_SIZE);
	if (r == 0)
		r = vc_meta_env_databases(copy, create);
	if (r < 0) {
		vc_meta_close(copy);
		return r;
	}
	*ret = copy;
	return 0;
}

static int backup_verify(const struct backup *b)
{
	struct vc_meta *copy;
	int r = vc_meta_check_file(b->path);

	if (r == 0)
		r = backup_open(b, false, &copy);
	if (r < 0)
		return r;
	r = backup_read_all(b, copy);
	vc_meta_close(copy);
	return r;
}

/* ---- writing it ---- */

static int backup_commit(struct backup *b)
{
	int r = b->to ? vc_meta_commit(b->to) : 0;

	b->to = NULL;
	b->n = 0;
	return r;
}

static int backup_pair(void *ctx, const void *key, size_t key_len, const void *value, size_t len)
{
	struct backup *b = ctx;
	int r = b->to ? 0 : vc_meta_write_begin(b->copy, &b->to);

	if (r == 0)
		r = vc_meta_append(b->to, b->db, key, key_len, value, len);
	b->count[b->db]++;
	return r == 0 && ++b->n == BACKUP_BATCH ? backup_commit(b) : r;
}

static int call_entries(void *ctx)
{
	struct backup *b = ctx;
	MDB_stat stat;
	int rc = 0;

	for (int db = 0; db < VC_DB_COUNT && !rc; db++) {
		rc = mdb_stat(b->from->txn, b->meta->dbi[db], &stat);
		b->snapshot[db] = rc ? 0 : stat.ms_entries;
	}
	return rc;
}

static int backup_copy(struct backup *b)
{
	int r = vc_meta_guard(b->meta, "figures", call_entries, b);

	if (r)
		return vc_meta_failed(b->meta->path, "figures", r);
	for (int db = 0; db < VC_DB_COUNT && r == 0; db++) {
		b->db = (enum vc_meta_db)db;
		r = vc_meta_scan(b->from, b->db, NULL, 0, NULL, 0, backup_pair, b);
		if (r == 0)
			r = backup_commit(b);
		if (r == 0 && b->count[db] != b->snapshot[db]) {
			vc_err("%s: has %" PRIu64 " values instead of %" PRIu64, b->meta->path, b->count[db], b->snapshot[db]);
			r = -EUCLEAN;
		}
	}
	vc_meta_end(b->to);
	return r;
}

static int backup_write(struct backup *b)
{
	int r = vc_meta_read_begin(b->meta, &b->from);

	if (r < 0)
		return r;
	r = backup_open(b, true, &b->copy);
	if (r == 0)
		r = backup_copy(b);
	vc_meta_close(b->copy);
	vc_meta_end(b->from);
	return r;
}

static int backup_sync_entry(const char *path)
{
	char buf[PATH_MAX];
	int fd, r = 0;

	snprintf(buf, sizeof(buf), "%s", path);
	fd = open(dirname(buf), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return vc_meta_failed(path, "open the directory of the backup", errno);
	if (fsync(fd) < 0)
		r = vc_meta_failed(path, "sync the directory of the backup", errno);
	close(fd);
	return r;
}

int vc_meta_backup(struct vc_meta *meta, const char *path)
{
	char buf[PATH_MAX];
	const char *real = vc_io_real_path(meta->io, path, buf, sizeof(buf));
	struct backup b = { .meta = meta, .name = path, .path = real };
	int fd, r;

	fd = open(real, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return vc_meta_failed(real, "create the backup", errno);
	close(fd);
	r = backup_write(&b);
	if (r == 0)
		r = backup_sync_entry(real);
	if (r == 0)
		r = backup_verify(&b);
	if (r < 0)
		unlink(real);
	return r;
}
