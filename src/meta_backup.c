/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta_backup: a compact copy of the store in one file, believed only after every value of it was read back.
 *
 * The copy is one snapshot: LMDB holds a read transaction while it writes, so pages freed meanwhile are reused only afterwards.
 * It is opened without LMDB's lock file, which is safe because nobody else knows the file yet.
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

#define BACKUP_MAP_SIZE (UINT64_C(1) << 20) /* LMDB raises it to what the file holds */

static int backup_count(void *ctx, const void *key VC_UNUSED, size_t key_len VC_UNUSED, const void *value VC_UNUSED,
			size_t len VC_UNUSED)
{
	uint64_t *n = ctx;

	++*n;
	return 0;
}

/** Read every value (vc_meta_scan checks the sums) and compare their number with what the file claims. */
static int backup_read_all(struct vc_meta *copy)
{
	struct vc_meta_stats stats;
	struct vc_meta_txn *txn;
	uint64_t nodes = 0, rows = 0;
	int r;

	r = vc_meta_stats(copy, &stats);
	if (r < 0)
		return r;
	r = vc_meta_read_begin(copy, &txn);
	if (r < 0)
		return r;
	r = vc_meta_scan(txn, VC_DB_NODE, NULL, 0, NULL, 0, backup_count, &nodes);
	if (r == 0)
		r = vc_meta_scan(txn, VC_DB_CAT, NULL, 0, NULL, 0, backup_count, &rows);
	vc_meta_end(txn);
	if (r == 0 && (nodes != stats.nodes || rows != stats.rows)) {
		vc_err("%s: the backup lacks %" PRIu64 " of its values", copy->path,
		       stats.nodes + stats.rows - nodes - rows);
		r = -EUCLEAN;
	}
	return r;
}

static int backup_verify(const struct vc_meta *meta, const char *path)
{
	struct vc_meta *copy;
	int r;

	r = vc_meta_check_file(path);
	if (r == 0)
		r = vc_meta_new(meta->io, path, path, &copy);
	if (r < 0)
		return r;
	copy->read_only = true;
	r = vc_meta_env_open(path, MDB_NOSUBDIR | MDB_RDONLY | MDB_NOLOCK, BACKUP_MAP_SIZE, &copy->env);
	if (r == 0)
		r = vc_meta_env_databases(path, copy->env, false, copy->dbi);
	if (r == 0)
		r = backup_read_all(copy);
	vc_meta_close(copy);
	return r;
}

static int backup_write(const struct vc_meta *meta, const char *path, int fd)
{
	int rc;

	rc = mdb_env_copyfd2(meta->env, fd, MDB_CP_COMPACT);
	if (rc)
		return vc_meta_failed(path, "write the backup", rc);
	if (fsync(fd) < 0)
		return vc_meta_failed(path, "sync the backup", errno);
	return 0;
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
	int fd, r;

	fd = open(real, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return vc_meta_failed(real, "create the backup", errno);
	r = backup_write(meta, real, fd);
	close(fd);
	if (r == 0)
		r = backup_sync_entry(real);
	if (r == 0)
		r = backup_verify(meta, real);
	if (r < 0)
		unlink(real);
	return r;
}
