/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * journal: what each checkpoint changed, in small append-only files, and the LMDB backups that make old ones superfluous.
 *
 *   POOL/journal/%016llx.jnl   named by the checkpoint LSN its first entry follows
 *   POOL/backup/%016llx.mdb    a verified compact copy of LMDB, named by the checkpoint LSN it holds
 *
 * backup + the journal entries after it = LMDB. An entry is on stable storage before the LMDB commit it describes; a commit that did not happen
 * leaves an entry that the next one (same prev_lsn) replaces: of several with one prev_lsn the last counts.
 *
 * Blocks beyond the end of the file that is written are reserved (vc_space_journal_ahead), and the next mount goes on with that file, so
 * that a checkpoint can be made on a full disk. What stands there behind the last entry that was committed is erased first: it may be in the
 * page cache alone, and nothing that counts may stand behind it; nor does it name chunks that anybody needs then.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>

#include "checksum.h"
#include "journal_read.h"
#include "msg.h"
#include "pool_impl.h"

#define JOURNAL_FILE_MAX (UINT64_C(16) << 20)

struct vc_journal {
	struct vc_pool *pool;
	char *dir, *backup_dir;
	struct vc_file *file;      /* NULL: the next entry starts one */
	uint64_t file_bytes;
	uint64_t file_room;        /* blocks of the file up to here are allocated */
	uint64_t bytes;            /* of all journal files */
	uint8_t *buf;              /* entry being built */
	size_t len, cap;
	uint64_t nitems, nrows;
};

static int journal_add_size(void *ctx, const char *name)
{
	struct vc_journal *j = ctx;
	struct vc_file *file;
	uint64_t size = 0;
	char *path = vc_path_of(j->dir, name);
	int r;

	if (!path)
		return -ENOMEM;
	r = vc_io_open(j->pool->io, path, VC_IO_READ, &file);
	free(path);
	if (r < 0)
		return r;
	r = vc_io_size(file, &size);
	vc_io_close(file);
	j->bytes += size;
	return r;
}

/* Zeros instead of what no commit came of: cutting it off would give the blocks away. */
static int journal_erase(struct vc_file *file, uint64_t from, uint64_t to)
{
	uint8_t *zeros = from < to ? calloc(1, to - from) : NULL;
	int r = zeros ? vc_io_pwrite(file, zeros, to - from, from) : from < to ? -ENOMEM : 0;

	free(zeros);
	if (r == -ENOSPC || r == -EDQUOT) /* where even that takes space */
		r = vc_io_truncate(file, from);
	return r == 0 && from < to ? vc_io_datasync(file) : r;
}

/* Go on with the newest file, if it is one to go on with. */
static int journal_resume(struct vc_journal *j, const struct vc_journal_last *last)
{
	char *path;
	int r;

	if (!last->end)
		return 0;
	if (asprintf(&path, "%s/%016llx.jnl", j->dir, (unsigned long long)last->name) < 0)
		return -ENOMEM;
	r = vc_io_open(j->pool->io, path, VC_IO_WRITE, &j->file);
	free(path);
	if (r == 0)
		r = journal_erase(j->file, last->end, last->bytes);
	j->file_bytes = last->end;
	j->file_room = last->bytes;
	return r;
}

int vc_journal_open(struct vc_pool *pool, const struct vc_journal_last *last, struct vc_journal **ret)
{
	struct vc_journal *j = calloc(1, sizeof(*j));
	int r;

	if (!j)
		return -ENOMEM;
	j->pool = pool;
	j->dir = vc_pool_path(pool, "journal");
	j->backup_dir = vc_pool_path(pool, "backup");
	r = j->dir && j->backup_dir ? vc_io_list(pool->io, j->dir, journal_add_size, j) : -ENOMEM;
	if (r == -ENOENT)
		vc_err("%s: the destage journal of this pool is missing", j->dir);
	if (r == 0)
		r = journal_resume(j, last);
	if (r < 0) {
		vc_journal_close(j);
		return r;
	}
	*ret = j;
	return 0;
}

void vc_journal_close(struct vc_journal *j)
{
	if (!j)
		return;
	vc_io_close(j->file);
	free(j->dir);
	free(j->backup_dir);
	free(j->buf);
	free(j);
}

static int journal_append(struct vc_journal *j, const void *data, size_t len)
{
	if (j->len + len > j->cap) {
		size_t cap = j->cap ? j->cap : 65536;
		uint8_t *buf;

		while (cap < j->len + len)
			cap *= 2;
		buf = realloc(j->buf, cap);
		if (!buf)
			return -ENOMEM;
		j->buf = buf;
		j->cap = cap;
	}
	memcpy(j->buf + j->len, data, len);
	j->len += len;
	return 0;
}

void vc_journal_begin(struct vc_journal *j)
{
	j->len = sizeof(struct vc_disk_journal_entry);
	j->nitems = j->nrows = 0;
	if (j->cap < j->len) {
		struct vc_disk_journal_entry none;

		memset(&none, 0, sizeof(none));
		j->len = 0;
		if (journal_append(j, &none, sizeof(none)) < 0)
			j->len = sizeof(none); /* the first item then reports the lack of memory */
	}
}

int vc_journal_item(struct vc_journal *j, enum vc_journal_kind kind, uint64_t lba, uint64_t nblocks, uint64_t value, uint64_t ref)
{
	struct vc_disk_journal_item item = { .kind = vc_le32_of(kind), .lba = vc_le64_of(lba), .nblocks = vc_le64_of(nblocks),
					     .value = vc_le64_of(value), .ref = vc_le64_of(ref) };

	j->nitems++;
	return journal_append(j, &item, sizeof(item));
}

int vc_journal_row(struct vc_journal *j, const struct vc_slice_row *row)
{
	static const uint8_t zeros[8];
	uint8_t encoded[VC_ROW_ENCODED_MAX];
	size_t len = vc_row_encode(row->bytes, row->key_len, row->bytes + row->key_len, row->value_len, encoded);
	vc_le32 head[2] = { vc_le32_of((uint32_t)len), vc_le32_of(row->deleted ? 0 : 1) };
	int r = journal_append(j, head, sizeof(head));

	if (r == 0)
		r = journal_append(j, encoded, len);
	if (r == 0)
		r = journal_append(j, zeros, VC_ROUND_UP(len, (size_t)8) - len);
	j->nrows++;
	return r;
}

/* A file of that name holds only entries that never became a commit. */
static int journal_new_file(struct vc_journal *j, uint64_t prev_lsn)
{
	struct vc_disk_journal_segment head = { .magic = vc_le64_of(VC_MAGIC_JOURNAL), .seq = vc_le64_of(prev_lsn),
						.first_checkpoint = vc_le64_of(prev_lsn) };
	char *path;
	int r;

	memcpy(head.uuid, j->pool->disk.uuid, sizeof(head.uuid));
	head.sum = vc_le64_of(vc_sum64(&head, offsetof(struct vc_disk_journal_segment, sum), 0));
	if (asprintf(&path, "%s/%016llx.jnl", j->dir, (unsigned long long)prev_lsn) < 0)
		return -ENOMEM;
	r = vc_io_open(j->pool->io, path, VC_IO_WRITE | VC_IO_CREATE, &j->file);
	free(path);
	if (r == 0)
		r = vc_io_truncate(j->file, 0);
	if (r == 0)
		r = vc_io_pwrite(j->file, &head, sizeof(head), 0);
	j->file_bytes = sizeof(head);
	j->file_room = 0;
	j->bytes += sizeof(head);
	if (r == 0)
		r = vc_io_sync_dir(j->pool->io, j->dir);
	if (r < 0) { /* without its header it is no file to append to */
		vc_io_close(j->file);
		j->file = NULL;
	}
	return r;
}

/* Blocks for the entry and, while there is room, for those of later. */
static int journal_room(struct vc_journal *j)
{
	uint64_t need = j->file_bytes + j->len, ahead = vc_space_journal_ahead(j->pool), room = need + ahead;
	int r = -ENOSPC;

	if (need + ahead / 2 <= j->file_room)
		return 0;
	if (ahead)
		r = vc_io_allocate(j->file, 0, room);
	if (need <= j->file_room)
		return 0;
	if (r == -ENOSPC || r == -EDQUOT) {
		room = need;
		r = vc_io_allocate(j->file, 0, room);
	}
	if (r == 0)
		j->file_room = room;
	return r == -EOPNOTSUPP ? 0 : r;
}

int vc_journal_commit(struct vc_journal *j, uint64_t prev_lsn, uint64_t lsn)
{
	struct vc_disk_journal_entry e = {
		.magic = vc_le64_of(VC_MAGIC_JOURNAL), .len = vc_le64_of(j->len), .checkpoint_lsn = vc_le64_of(lsn),
		.prev_lsn = vc_le64_of(prev_lsn), .nitems = vc_le64_of(j->nitems), .nrows = vc_le64_of(j->nrows),
	};
	int r = j->buf ? 0 : -ENOMEM;

	if (j->file && j->file_bytes > JOURNAL_FILE_MAX && vc_space_journal_ahead(j->pool)) {
		vc_io_close(j->file);
		j->file = NULL;
	}
	if (r == 0 && !j->file)
		r = journal_new_file(j, prev_lsn);
	if (r == 0)
		r = journal_room(j);
	if (r < 0)
		return r;
	memcpy(j->buf, &e, sizeof(e));
	e.sum = vc_le64_of(vc_sum64(j->buf, j->len, 0));
	memcpy(j->buf, &e, sizeof(e));
	r = vc_io_pwrite(j->file, j->buf, j->len, j->file_bytes);
	if (r == 0)
		r = vc_io_datasync(j->file);
	if (r < 0)
		return r;
	j->file_bytes += j->len;
	j->bytes += j->len;
	return 0;
}

/* ---- backups ---- */

struct journal_sweep {
	struct vc_journal *journal;
	const char *dir;
	const char *suffix;
	uint64_t below; /* files named lower than this go */
};

static int journal_sweep_file(void *ctx, const char *name)
{
	struct journal_sweep *s = ctx;
	char *end, *path;
	unsigned long long lsn = strtoull(name, &end, 16);
	int r;

	if (end != name + 16 || strcmp(end, s->suffix) != 0 || lsn >= s->below)
		return 0;
	path = vc_path_of(s->dir, name);
	if (!path)
		return -ENOMEM;
	r = vc_io_unlink(s->journal->pool->io, path);
	free(path);
	return r;
}

static int journal_sweep(struct vc_journal *j, uint64_t lsn)
{
	struct journal_sweep files = { j, j->dir, ".jnl", lsn }, backups = { j, j->backup_dir, ".mdb", lsn };
	int r = vc_io_list(j->pool->io, j->dir, journal_sweep_file, &files);

	if (r == 0)
		r = vc_io_list(j->pool->io, j->backup_dir, journal_sweep_file, &backups);
	j->bytes = 0;
	if (r == 0)
		r = vc_io_list(j->pool->io, j->dir, journal_add_size, j);
	return r;
}

/* Called between checkpoints by the only thread that makes them, so LMDB is exactly at `lsn`. */
static int journal_backup(struct vc_journal *j, uint64_t lsn)
{
	char name[32], *tmp, *path;
	int r;

	snprintf(name, sizeof(name), "%016llx.mdb", (unsigned long long)lsn);
	tmp = vc_path_of(j->backup_dir, "new.tmp");
	path = vc_path_of(j->backup_dir, name);
	r = tmp && path ? 0 : -ENOMEM;
	if (r == 0) {
		r = vc_io_unlink(j->pool->io, tmp);
		r = r == -ENOENT ? 0 : r;
	}
	if (r == 0)
		r = vc_meta_backup(j->pool->meta, tmp);
	if (r == 0)
		r = vc_io_rename(j->pool->io, tmp, path);
	if (r == 0)
		r = vc_io_sync_dir(j->pool->io, j->backup_dir);
	free(tmp);
	free(path);
	if (r < 0)
		return r;
	vc_io_close(j->file);
	j->file = NULL;
	j->len = 0;
	r = journal_new_file(j, lsn); /* with its reserve, before somebody else has the room */
	if (r == 0)
		r = journal_room(j);
	return r < 0 ? r : journal_sweep(j, lsn);
}

void vc_journal_trim(struct vc_journal *j, uint64_t checkpoint_lsn)
{
	struct vc_meta_stats stats;
	int r;

	if (j->bytes < j->pool->options.journal_bytes || atomic_load(&j->pool->full) || !vc_space_journal_ahead(j->pool))
		return; /* on a full disk the file that has its reserve is kept */
	r = vc_meta_stats(j->pool->meta, &stats);
	if (r == 0 && j->bytes < stats.file_bytes)
		return;
	if (r == 0)
		r = journal_backup(j, checkpoint_lsn);
	if (r < 0)
		vc_warn("%s: no backup of LMDB could be made (error %d); the journal is kept", j->backup_dir, -r);
}
