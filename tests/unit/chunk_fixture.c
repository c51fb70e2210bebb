/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chunk_fixture: see the header. The io table passes everything to the posix one and lists the open files, so that
 * the book of a file can be asked for by path: the first write that no successful sync begun after it has covered.
 */
#include "config.h"
#include "unit.h"

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>
#include "chunk_fixture.h"

struct fault_file {
	struct vc_file file;
	struct vc_file *real;
	struct fault_file *next;
	uint64_t unsynced; /* number of the first write not covered, 0: none */
	uint64_t late;     /* the first one since the sync that runs began */
	uint64_t created;  /* number of its creation, 0: was there */
	bool syncing;
	char path[];
};

static struct fault_io *to_fault(struct vc_io *io)
{
	return vc_container_of(io, struct fault_io, io);
}

static struct fault_file *to_file(struct vc_file *file)
{
	return vc_container_of(file, struct fault_file, file);
}

static int fault_open(struct vc_io *io, const char *path, int flags, struct vc_file **ret_file)
{
	struct fault_io *fault = to_fault(io);
	struct fault_file *ff = calloc(1, sizeof(*ff) + strlen(path) + 1);
	int r = -fault->open_error;

	assert(ff);
	if (r == 0)
		r = vc_io_open(vc_io_posix(), path, flags, &ff->real);
	if (r < 0) {
		free(ff);
		return r;
	}
	ff->file.io = io;
	strcpy(ff->path, path);
	pthread_mutex_lock(&fault->lock);
	if (flags & VC_IO_CREATE)
		ff->created = ++fault->created;
	ff->next = fault->files;
	fault->files = ff;
	pthread_mutex_unlock(&fault->lock);
	fault->open_files++;
	*ret_file = &ff->file;
	return 0;
}

static void fault_close(struct vc_file *file)
{
	struct fault_io *fault = to_fault(file->io);
	struct fault_file *ff = to_file(file), **at = &fault->files;

	pthread_mutex_lock(&fault->lock);
	while (*at != ff)
		at = &(*at)->next;
	*at = ff->next;
	pthread_mutex_unlock(&fault->lock);
	fault->open_files--;
	vc_io_close(ff->real);
	free(ff);
}

static ssize_t fault_preadv(struct vc_file *file, const struct iovec *iov, int n, uint64_t offset)
{
	struct fault_io *fault = to_fault(file->io);

	fault->reads++;
	if (fault->read_error)
		return -fault->read_error;
	return vc_io_preadv(to_file(file)->real, iov, n, offset);
}

static int fault_pwritev(struct vc_file *file, const struct iovec *iov, int n, uint64_t offset)
{
	struct fault_io *fault = to_fault(file->io);
	struct fault_file *ff = to_file(file);
	int r;

	if (fault->write_error && atomic_fetch_sub(&fault->writes_left, 1) <= 0) {
		r = vc_io_pwrite(ff->real, iov[0].iov_base, iov[0].iov_len / 2, offset);
		assert(r == 0);
		return -fault->write_error;
	}
	fault->writes++;
	r = vc_io_pwritev(ff->real, iov, n, offset);
	pthread_mutex_lock(&fault->lock);
	fault->next_write++;
	if (!ff->unsynced)
		ff->unsynced = fault->next_write;
	if (!ff->late)
		ff->late = fault->next_write;
	pthread_mutex_unlock(&fault->lock);
	return r;
}

static void fault_linger(struct fault_io *fault)
{
	for (int i = 0; fault->slow_sync && i < 50; i++)
		sched_yield();
}

static int fault_datasync(struct vc_file *file)
{
	struct fault_io *fault = to_fault(file->io);
	struct fault_file *ff = to_file(file);

	pthread_mutex_lock(&fault->lock);
	assert(!ff->syncing);
	ff->syncing = true;
	ff->late = 0;
	pthread_mutex_unlock(&fault->lock);
	fault_linger(fault);
	fault->syncs++;
	pthread_mutex_lock(&fault->lock);
	ff->syncing = false;
	if (!fault->sync_error)
		ff->unsynced = ff->late;
	pthread_mutex_unlock(&fault->lock);
	return -fault->sync_error;
}

static int fault_sync_dir(struct vc_io *io, const char *path VC_UNUSED)
{
	struct fault_io *fault = to_fault(io);
	uint64_t covered;

	pthread_mutex_lock(&fault->lock);
	covered = fault->created;
	pthread_mutex_unlock(&fault->lock);
	fault_linger(fault);
	fault->dir_syncs++;
	if (fault->dir_error)
		return -fault->dir_error;
	pthread_mutex_lock(&fault->lock);
	fault->dir_synced = VC_MAX(fault->dir_synced, covered);
	pthread_mutex_unlock(&fault->lock);
	return 0;
}

static int fault_allocate(struct vc_file *file, uint64_t offset, uint64_t len)
{
	struct fault_io *fault = to_fault(file->io);

	if (fault->allocate_error)
		return -fault->allocate_error;
	return vc_io_allocate(to_file(file)->real, offset, len);
}

static int fault_truncate(struct vc_file *file, uint64_t size)
{
	return vc_io_truncate(to_file(file)->real, size);
}

static int fault_size(struct vc_file *file, uint64_t *ret_size)
{
	return vc_io_size(to_file(file)->real, ret_size);
}

static void fault_start_writeback(struct vc_file *file, uint64_t offset, uint64_t len)
{
	vc_io_start_writeback(to_file(file)->real, offset, len);
}

static int fault_unlink(struct vc_io *io VC_UNUSED, const char *path)
{
	return vc_io_unlink(vc_io_posix(), path);
}

static int fault_mkdir(struct vc_io *io VC_UNUSED, const char *path)
{
	return vc_io_mkdir(vc_io_posix(), path);
}

static int fault_list(struct vc_io *io VC_UNUSED, const char *path, int (*fn)(void *ctx, const char *name), void *ctx)
{
	return vc_io_list(vc_io_posix(), path, fn, ctx);
}

/* The store does not rename, lock or ask for space. */
static const struct vc_io_ops fault_ops = {
	.open = fault_open,
	.close = fault_close,
	.preadv = fault_preadv,
	.pwritev = fault_pwritev,
	.datasync = fault_datasync,
	.truncate = fault_truncate,
	.allocate = fault_allocate,
	.size = fault_size,
	.start_writeback = fault_start_writeback,
	.unlink = fault_unlink,
	.mkdir = fault_mkdir,
	.sync_dir = fault_sync_dir,
	.list = fault_list,
};

uint64_t fault_written(struct fault_io *fault)
{
	uint64_t n;

	pthread_mutex_lock(&fault->lock);
	n = fault->next_write;
	pthread_mutex_unlock(&fault->lock);
	return n;
}

bool fault_is_durable(struct fault_io *fault, const char *path, uint64_t upto)
{
	bool durable = true;

	pthread_mutex_lock(&fault->lock);
	for (struct fault_file *ff = fault->files; ff; ff = ff->next) {
		if (strcmp(ff->path, path) != 0)
			continue;
		if ((ff->unsynced && ff->unsynced <= upto) || ff->created > fault->dir_synced)
			durable = false;
	}
	pthread_mutex_unlock(&fault->lock);
	return durable;
}

/* ---- the store ---- */

void fix_open(struct chunk_fixture *fix)
{
	memset(fix, 0, sizeof(*fix));
	fix->fault.io.ops = &fault_ops;
	pthread_mutex_init(&fix->fault.lock, NULL);
	fix->top = vc_unit_tmpdir();
	assert_non_null(fix->top);
	assert_true(asprintf(&fix->dir, "%s/chunk", fix->top) > 0);
	fix->params = (struct vc_chunk_params){
		.io = &fix->fault.io,
		.dir = fix->dir,
		.segment_size = FIX_SEGMENT,
		.chunk_blocks = FIX_BLOCKS,
		.next_segno = 1,
		.cache_bytes = 4 << 20,
	};
	memset(fix->params.uuid, 0x77, sizeof(fix->params.uuid));
	assert_int_equal(vc_chunk_create(fix->params.io, fix->dir), 0);
	assert_int_equal(fix->fault.dir_syncs, 2);
	fix->fault.dir_syncs = 0;
	assert_int_equal(vc_chunk_open(&fix->params, &fix->store), 0);
}

void fix_reopen(struct chunk_fixture *fix)
{
	vc_chunk_close(fix->store);
	fix->store = NULL;
	assert_int_equal(fix->fault.open_files, 0);
	assert_int_equal(vc_chunk_open(&fix->params, &fix->store), 0);
}

void fix_close(struct chunk_fixture *fix)
{
	vc_chunk_close(fix->store);
	assert_int_equal(fix->fault.open_files, 0);
	pthread_mutex_destroy(&fix->fault.lock);
	free(fix->dir);
	vc_unit_rmdir(fix->top);
}

const char *fix_path(const struct chunk_fixture *fix, uint64_t segno)
{
	static _Thread_local char path[512];

	snprintf(path, sizeof(path), "%s/%08llx.seg", fix->dir, (unsigned long long)segno);
	return path;
}

void fix_fill(uint8_t *data, uint32_t nblocks, uint64_t seed, bool soft)
{
	for (uint32_t i = 0; i < nblocks; i++) {
		uint8_t *block = data + i * FIX_BLOCK;
		uint64_t rnd = seed * 1000 + i, word;
		size_t noise = soft ? FIX_BLOCK / 4 : FIX_BLOCK;

		memset(block, (int)(seed | 1), FIX_BLOCK);
		for (size_t at = 0; at < noise; at += sizeof(word)) {
			word = vc_unit_random(&rnd);
			memcpy(block + at, &word, sizeof(word));
		}
	}
}

void fix_expect(struct chunk_fixture *fix, uint64_t entry, uint32_t first, uint32_t nblocks, uint32_t total,
		uint64_t seed, bool soft)
{
	uint8_t *want = malloc(total * FIX_BLOCK), *got = malloc(nblocks * FIX_BLOCK);

	fix_fill(want, total, seed, soft);
	memset(got, 0xa5, nblocks * FIX_BLOCK);
	assert_int_equal(vc_chunk_read(fix->store, entry, nblocks, got), 0);
	assert_memory_equal(got, want + first * FIX_BLOCK, nblocks * FIX_BLOCK);
	free(got);
	free(want);
}

uint64_t fix_append(struct chunk_fixture *fix, enum vc_chunk_stream stream, uint64_t lsn, uint32_t nblocks,
		    uint64_t seed, bool soft)
{
	uint8_t *data = malloc(nblocks * FIX_BLOCK);
	uint64_t entry = 0;

	fix_fill(data, nblocks, seed, soft);
	assert_int_equal(vc_chunk_append(fix->store, stream, 7, seed * 16, lsn, data, nblocks, &entry, NULL), 0);
	assert_int_equal(vc_entry_block(entry), 0);
	free(data);
	return entry;
}

uint32_t fix_blocks_of(size_t i) { return 1 + (uint32_t)(i % FIX_BLOCKS); }
bool fix_soft_of(size_t i) { return i % 3 != 0; }

void fix_append_many(struct chunk_fixture *fix, uint64_t *entries, size_t n)
{
	for (size_t i = 0; i < n; i++)
		entries[i] = fix_append(fix, VC_STREAM_DESTAGE, 1, fix_blocks_of(i), i + 1, fix_soft_of(i));
	assert_int_equal(vc_chunk_sync(fix->store), 0);
}
