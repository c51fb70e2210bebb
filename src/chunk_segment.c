/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chunk_segment: the segments of the chunk store and their files.
 *
 * States of a segment, and who makes the step:
 *   OPEN      a stream writes it            vc_chunk_segment_create
 *   SEALED    nothing is added any more     vc_chunk_segment_seal; those found at open are born here
 *   UNLISTED  unlinked, known to its users  vc_chunk_remove_segment; freed by the last user
 *
 * Invariants
 *   1. The file of a segment that is open, dirty or being synced stays open: a sync goes through the descriptor
 *      that wrote. So only sealed and clean segments without users are on the idle list and may lose their file.
 *   2. A segment reported as sealed (vc_chunk_each_segment) has its final max_lsn: pinned ones are not reported so.
 *   3. A segment that the last checkpoint did not know as sealed may be longer and newer than it knew. Its length
 *      comes from its file, its max_lsn from vc_chunk_settle.
 *   4. A number is taken back only when its file is gone and no later number was given out: nothing was handed out
 *      in it. Without that, a full disk would eat numbers.
 *
 * The header of a segment file is written for those who look at a pool without its maps. Reading a chunk does not need
 * it: every chunk carries the pool's UUID and a checksum bound to its address.
 */
#include "config.h"
#include "chunk_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "checksum.h"
#include "msg.h"

#define SEGMENT_NAME_LEN 12 /* %08x.seg */
/* Takes any chunk, and a few of the usual ones. */
#define SEGMENT_SMALLEST (2 * (VC_CHUNK_SEGMENT_HEADER + (uint32_t)VC_CHUNK_SIZE_MAX))

static void segment_path(const struct vc_chunk_store *store, uint64_t segno, char path[VC_CHUNK_PATH_MAX])
{
	snprintf(path, VC_CHUNK_PATH_MAX, "%s/%08" PRIx64 ".seg", store->dir, segno);
}

/* ---- the table; the caller holds store->lock ---- */

/* Index of the first segment numbered segno or above. */
static size_t table_find_locked(const struct vc_chunk_store *store, uint64_t segno)
{
	size_t low = 0, high = store->nsegs;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (store->segs[mid]->segno < segno)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static struct chunk_segment *table_get_locked(const struct vc_chunk_store *store, uint64_t segno)
{
	size_t i = table_find_locked(store, segno);

	return i < store->nsegs && store->segs[i]->segno == segno ? store->segs[i] : NULL;
}

static int table_add_locked(struct vc_chunk_store *store, struct chunk_segment *seg)
{
	size_t i = table_find_locked(store, seg->segno);

	if (store->nsegs == store->segs_room) {
		size_t room = store->segs_room ? store->segs_room * 2 : 64;
		struct chunk_segment **segs = realloc(store->segs, room * sizeof(struct chunk_segment *));

		if (!segs)
			return -ENOMEM;
		store->segs = segs;
		store->segs_room = room;
	}
	memmove(&store->segs[i + 1], &store->segs[i], (store->nsegs - i) * sizeof(struct chunk_segment *));
	store->segs[i] = seg;
	store->nsegs++;
	store->bytes += seg->used;
	seg->listed = true;
	return 0;
}

static void table_del_locked(struct vc_chunk_store *store, struct chunk_segment *seg)
{
	size_t i = table_find_locked(store, seg->segno);

	store->nsegs--;
	memmove(&store->segs[i], &store->segs[i + 1], (store->nsegs - i) * sizeof(struct chunk_segment *));
	store->bytes -= seg->used;
	vc_list_del(&seg->unsynced);
	seg->listed = false;
}

static void segment_set_used_locked(struct vc_chunk_store *store, struct chunk_segment *seg, uint64_t used)
{
	if (seg->listed)
		store->bytes += used - seg->used;
	seg->used = used;
}

static struct chunk_segment *segment_new(uint64_t segno)
{
	struct chunk_segment *seg = calloc(1, sizeof(*seg));

	if (!seg)
		return NULL;
	seg->segno = segno;
	vc_list_init(&seg->idle);
	vc_list_init(&seg->unsynced);
	return seg;
}

/* ---- segments found at open ---- */

/* 0 when `name` is not that of a segment file. */
static uint64_t segment_parse_name(const char *name)
{
	uint64_t segno = 0;

	if (strlen(name) != SEGMENT_NAME_LEN || strcmp(name + 8, ".seg") != 0)
		return 0;
	for (int i = 0; i < 8; i++) {
		const char *digits = "0123456789abcdef", *at = strchr(digits, name[i]);

		if (!at)
			return 0;
		segno = segno << 4 | (uint64_t)(at - digits);
	}
	return segno <= VC_SEGNO_MAX ? segno : 0;
}

static int segment_found(void *ctx, const char *name)
{
	struct vc_chunk_store *store = ctx;
	uint64_t segno = segment_parse_name(name);
	struct chunk_segment *seg;
	int r;

	if (segno == 0) {
		vc_warn("%s/%s: not a chunk segment, ignored", store->dir, name);
		return 0;
	}
	seg = segment_new(segno);
	if (!seg)
		return -ENOMEM;
	seg->sealed = true;
	seg->max_lsn = UINT64_MAX;
	r = table_add_locked(store, seg);
	if (r < 0) {
		free(seg);
		return r;
	}
	store->next_segno = VC_MAX(store->next_segno, segno + 1);
	return 0;
}

int vc_chunk_segment_list(struct vc_chunk_store *store)
{
	int r = vc_io_list(store->io, store->dir, segment_found, store);

	if (r == -ENOENT)
		vc_err("%s: the chunk files of this pool are missing", store->dir);
	return r;
}

void vc_chunk_segment_free_all(struct vc_chunk_store *store)
{
	for (size_t i = 0; i < store->nsegs; i++) {
		vc_io_close(store->segs[i]->file);
		free(store->segs[i]);
	}
	free(store->segs);
}

/* Length of a file, which is also relieved of what was reserved beyond it: a crash has kept it from being sealed. */
static int segment_measure(struct vc_chunk_store *store, uint64_t segno, uint64_t *ret_size)
{
	char path[VC_CHUNK_PATH_MAX];
	struct vc_file *file;
	int r;

	segment_path(store, segno, path);
	r = vc_io_open(store->io, path, store->read_only ? VC_IO_READ : VC_IO_WRITE, &file);
	if (r == -ENOENT) {
		vc_err("%s: has disappeared since the pool was opened", path);
		return -EUCLEAN;
	}
	if (r < 0)
		return r;
	r = vc_io_size(file, ret_size);
	if (r == 0 && !store->read_only)
		r = vc_io_truncate(file, *ret_size);
	vc_io_close(file);
	return r;
}

/* Number of the first segment from `segno` on whose length is not known, 0: none. */
static uint64_t segment_next_unmeasured(struct vc_chunk_store *store, uint64_t segno)
{
	uint64_t found = 0;

	vc_mutex_lock(&store->lock);
	for (size_t i = table_find_locked(store, segno); i < store->nsegs && !found; i++) {
		if (!store->segs[i]->measured)
			found = store->segs[i]->segno;
	}
	vc_mutex_unlock(&store->lock);
	return found;
}

static int segment_measure_all(struct vc_chunk_store *store)
{
	uint64_t segno = 0;

	while ((segno = segment_next_unmeasured(store, segno)) != 0) {
		struct chunk_segment *seg;
		uint64_t size;
		int r = segment_measure(store, segno, &size);

		if (r < 0)
			return r;
		vc_mutex_lock(&store->lock);
		seg = table_get_locked(store, segno);
		if (seg && !seg->measured) {
			segment_set_used_locked(store, seg, size);
			seg->measured = true;
		}
		vc_mutex_unlock(&store->lock);
	}
	return 0;
}

void vc_chunk_set_segment(struct vc_chunk_store *store, const struct vc_chunk_segment_info *info)
{
	struct chunk_segment *seg;

	vc_mutex_lock(&store->lock);
	seg = table_get_locked(store, info->segno);
	if (seg)
		seg->known = true;
	if (seg && !seg->measured && info->sealed) {
		segment_set_used_locked(store, seg, info->used);
		seg->max_lsn = info->max_lsn;
		seg->measured = true;
	}
	vc_mutex_unlock(&store->lock);
}

void vc_chunk_settle(struct vc_chunk_store *store, uint64_t lsn)
{
	/* The io layer has said what failed; vc_chunk_each_segment tries again and returns it. */
	int r VC_UNUSED = segment_measure_all(store);

	vc_mutex_lock(&store->lock);
	for (size_t i = 0; i < store->nsegs; i++) {
		if (store->segs[i]->max_lsn == UINT64_MAX)
			store->segs[i]->max_lsn = lsn;
	}
	vc_mutex_unlock(&store->lock);
}

/* ---- use of files ---- */

static struct vc_file *segment_take_file_locked(struct vc_chunk_store *store, struct chunk_segment *seg)
{
	struct vc_file *file = seg->file;

	if (file)
		store->open_files--;
	seg->file = NULL;
	vc_list_del(&seg->idle);
	return file;
}

/* The caller closes what this returns, outside the lock. */
static struct vc_file *segment_close_oldest_locked(struct vc_chunk_store *store)
{
	if (store->open_files <= store->open_max || vc_list_empty(&store->idle))
		return NULL;
	return segment_take_file_locked(store, vc_list_entry(store->idle.next, struct chunk_segment, idle));
}

void vc_chunk_segment_put(struct vc_chunk_store *store, struct chunk_segment *seg)
{
	struct vc_file *file;
	bool dead;

	vc_mutex_lock(&store->lock);
	seg->users--;
	dead = seg->users == 0 && !seg->listed;
	if (dead) {
		file = segment_take_file_locked(store, seg);
	} else {
		if (seg->users == 0 && seg->file && seg->sealed && vc_chunk_segment_is_clean(seg))
			vc_list_add_tail(&store->idle, &seg->idle);
		file = segment_close_oldest_locked(store);
	}
	vc_mutex_unlock(&store->lock);
	vc_io_close(file);
	if (dead)
		free(seg);
}

/* A file that is missing under a listed segment is damage; under one that was removed meanwhile it is not. */
static int segment_missing(struct vc_chunk_store *store, struct chunk_segment *seg, const char *path)
{
	bool removed;

	vc_mutex_lock(&store->lock);
	removed = !seg->listed || seg->removing;
	vc_mutex_unlock(&store->lock);
	if (removed)
		return -ESTALE;
	vc_err("%s: has disappeared; restore it if you have a copy", path);
	return -EIO;
}

/* Descriptors are short: a part of those nobody uses is given back, and fewer are kept from now on. Whether there were any. */
static bool segment_spare_files(struct vc_chunk_store *store)
{
	struct vc_file *file;
	bool any = false;

	do {
		vc_mutex_lock(&store->lock);
		if (!any)
			store->open_max = store->open_files - store->open_files / 4 - (store->open_files > 0);
		file = segment_close_oldest_locked(store);
		vc_mutex_unlock(&store->lock);
		vc_io_close(file);
		any |= file != NULL;
	} while (file);
	return any;
}

static int segment_open_path(struct vc_chunk_store *store, const char *path, int flags, struct vc_file **ret)
{
	int r = vc_io_open(store->io, path, flags, ret);

	while ((r == -EMFILE || r == -ENFILE) && segment_spare_files(store))
		r = vc_io_open(store->io, path, flags, ret);
	return r;
}

/* Two users may open at once; the first to come back with a file wins. */
static int segment_open_file(struct vc_chunk_store *store, struct chunk_segment *seg)
{
	char path[VC_CHUNK_PATH_MAX];
	struct vc_file *file;
	int r;

	segment_path(store, seg->segno, path);
	r = segment_open_path(store, path, VC_IO_READ, &file);
	if (r == -ENOENT)
		return segment_missing(store, seg, path);
	if (r < 0)
		return r;
	vc_mutex_lock(&store->lock);
	if (!seg->file) {
		seg->file = file;
		store->open_files++;
		file = NULL;
	}
	vc_mutex_unlock(&store->lock);
	vc_io_close(file);
	return 0;
}

int vc_chunk_segment_get(struct vc_chunk_store *store, uint64_t segno, struct chunk_segment **ret)
{
	struct chunk_segment *seg;
	bool is_open = false;
	int r;

	vc_mutex_lock(&store->lock);
	seg = table_get_locked(store, segno);
	if (seg) {
		seg->users++;
		vc_list_del(&seg->idle);
		is_open = seg->file != NULL;
	}
	vc_mutex_unlock(&store->lock);
	if (!seg)
		return -ESTALE;
	r = is_open ? 0 : segment_open_file(store, seg);
	if (r < 0) {
		vc_chunk_segment_put(store, seg);
		return r;
	}
	*ret = seg;
	return 0;
}

/* ---- making and sealing ---- */

static int segment_write_header(struct vc_chunk_store *store, struct vc_file *file, uint64_t segno)
{
	struct vc_disk_chunk_segment head = {
		.magic = vc_le64_of(VC_MAGIC_CHUNK_SEGMENT),
		.segno = vc_le64_of(segno),
		.created_ns = vc_le64_of(vc_now_ns()),
	};

	memcpy(head.uuid, store->uuid, sizeof(head.uuid));
	head.sum = vc_le64_of(vc_sum64(&head, offsetof(struct vc_disk_chunk_segment, sum), 0));
	return vc_io_pwrite(file, &head, sizeof(head), 0);
}

/* Reserve the space of a segment; on a disk that is nearly full a quarter, or a quarter of that, is better than none. */
static int segment_reserve(struct vc_chunk_store *store, struct vc_file *file, uint32_t *ret_limit)
{
	uint32_t size = store->segment_size;
	int r = vc_io_allocate(file, 0, size);

	while (vc_chunk_no_space(r) && size / 4 >= SEGMENT_SMALLEST) {
		size = size / 4 / VC_CHUNK_ALIGN * VC_CHUNK_ALIGN;
		r = vc_io_allocate(file, 0, size);
	}
	*ret_limit = size;
	return r == -EOPNOTSUPP ? 0 : r;
}

static int segment_fill_file(struct vc_chunk_store *store, struct vc_file *file, uint64_t segno, uint32_t *ret_limit)
{
	int r = segment_reserve(store, file, ret_limit);

	if (r == 0)
		r = segment_write_header(store, file, segno);
	return r < 0 ? vc_chunk_write_failed(store, r) : 0;
}

static int segment_take_number(struct vc_chunk_store *store, uint64_t *ret_segno)
{
	bool left;

	vc_mutex_lock(&store->lock);
	left = store->next_segno <= VC_SEGNO_MAX;
	if (left)
		*ret_segno = store->next_segno++;
	vc_mutex_unlock(&store->lock);
	if (left)
		return 0;
	vc_err("%s: all segment numbers have been used; copy the images into a new pool", store->dir);
	return -ENOSPC;
}

static void segment_give_back_number(struct vc_chunk_store *store, uint64_t segno)
{
	vc_mutex_lock(&store->lock);
	if (store->next_segno == segno + 1)
		store->next_segno = segno;
	vc_mutex_unlock(&store->lock);
}

static int segment_make_file(struct vc_chunk_store *store, uint64_t segno, const char *path, struct vc_file **ret, uint32_t *ret_limit)
{
	int r = segment_open_path(store, path, VC_IO_WRITE | VC_IO_CREATE | VC_IO_EXCL, ret);

	if (r < 0)
		return vc_chunk_no_space(r) ? -ENOSPC : r;
	r = segment_fill_file(store, *ret, segno, ret_limit);
	if (r < 0) {
		vc_io_close(*ret);
		if (vc_io_unlink(store->io, path) < 0)
			return r == -ENOSPC ? -EIO : r; /* its number is used up */
	}
	return r;
}

/* The same of blocks that were held back. Should the header fail the number is used up. */
static int segment_take_file(struct vc_chunk_store *store, uint64_t segno, const char *path, struct vc_file **ret, uint32_t *ret_limit)
{
	uint64_t size = 0;
	int r = store->take_reserved(store->ctx, path, &size);

	if (r == 0)
		r = segment_open_path(store, path, VC_IO_WRITE, ret);
	if (r < 0)
		return r;
	*ret_limit = (uint32_t)VC_MIN(size, (uint64_t)store->segment_size);
	r = segment_write_header(store, *ret, segno);
	if (r < 0) {
		vc_io_close(*ret);
		r = vc_chunk_write_failed(store, r);
	}
	return r;
}

static int segment_create_file(struct vc_chunk_store *store, uint64_t segno, enum vc_chunk_stream stream, struct vc_file **ret,
			       uint32_t *ret_limit)
{
	char path[VC_CHUNK_PATH_MAX];
	int r;

	segment_path(store, segno, path);
	r = segment_make_file(store, segno, path, ret, ret_limit);
	if (r == -EEXIST)
		vc_warn("%s: is there although its number is new, left alone", path);
	else if (r == -ENOSPC && stream == VC_STREAM_DESTAGE && store->take_reserved)
		r = segment_take_file(store, segno, path, ret, ret_limit);
	if (r == -ENOSPC)
		segment_give_back_number(store, segno);
	return r;
}

static int segment_list_new(struct vc_chunk_store *store, struct chunk_segment *seg)
{
	int r;

	vc_mutex_lock(&store->lock);
	r = table_add_locked(store, seg);
	if (r == 0) {
		store->open_files++;
		store->dir_barrier.dirty = true;
	}
	vc_mutex_unlock(&store->lock);
	return r;
}

int vc_chunk_segment_create(struct vc_chunk_store *store, enum vc_chunk_stream stream, struct chunk_segment **ret)
{
	struct chunk_segment *seg = segment_new(0);
	int r;

	if (!seg)
		return -ENOMEM;
	do {
		r = segment_take_number(store, &seg->segno);
		if (r == 0)
			r = segment_create_file(store, seg->segno, stream, &seg->file, &seg->limit);
	} while (r == -EEXIST);
	if (r < 0) {
		free(seg);
		return r;
	}
	seg->stream = stream;
	seg->used = VC_CHUNK_SEGMENT_HEADER;
	seg->measured = true;
	seg->users = 1;
	r = segment_list_new(store, seg);
	if (r < 0) {
		vc_io_close(seg->file);
		free(seg);
		return r;
	}
	*ret = seg;
	return 0;
}

void vc_chunk_segment_seal(struct vc_chunk_store *store, struct chunk_segment *seg, uint32_t used)
{
	/* Only returns reserved space. Should it fail the io layer says so, and the file is merely larger. */
	int r VC_UNUSED = atomic_load(&store->failed) ? 0 : vc_io_truncate(seg->file, used);

	vc_mutex_lock(&store->lock);
	segment_set_used_locked(store, seg, used);
	seg->sealed = true;
	vc_mutex_unlock(&store->lock);
	vc_chunk_segment_put(store, seg);
}

void vc_chunk_segment_grow(struct vc_chunk_store *store, struct chunk_segment *seg, uint32_t used, uint64_t lsn,
			   uint32_t pins)
{
	vc_mutex_lock(&store->lock);
	segment_set_used_locked(store, seg, used);
	seg->max_lsn = VC_MAX(seg->max_lsn, lsn);
	seg->pins += pins;
	vc_mutex_unlock(&store->lock);
}

void vc_chunk_direct_done(struct vc_chunk_store *store, const struct vc_disk_direct *items, uint32_t n, uint64_t lsn)
{
	vc_mutex_lock(&store->lock);
	for (uint32_t i = 0; i < n; i++) {
		struct chunk_segment *seg = table_get_locked(store, vc_entry_segno(vc_le64_get(items[i].entry)));

		if (!seg || seg->pins == 0)
			continue;
		seg->max_lsn = VC_MAX(seg->max_lsn, lsn);
		seg->pins--;
	}
	vc_mutex_unlock(&store->lock);
}

/* ---- what the pool asks and removes ---- */

/* A copy, so that the callback runs without the lock. */
static int segment_snapshot(struct vc_chunk_store *store, struct vc_chunk_segment_info **ret, size_t *ret_n)
{
	struct vc_chunk_segment_info *infos;

	vc_mutex_lock(&store->lock);
	infos = calloc(store->nsegs + 1, sizeof(*infos));
	for (size_t i = 0; infos && i < store->nsegs; i++) {
		const struct chunk_segment *seg = store->segs[i];

		infos[i] = (struct vc_chunk_segment_info){
			.segno = seg->segno,
			.used = seg->used,
			.max_lsn = seg->max_lsn,
			.sealed = seg->sealed && seg->pins == 0,
		};
	}
	*ret_n = store->nsegs;
	vc_mutex_unlock(&store->lock);
	*ret = infos;
	return infos ? 0 : -ENOMEM;
}

int vc_chunk_each_segment(struct vc_chunk_store *store, int (*fn)(void *ctx, const struct vc_chunk_segment_info *info),
			  void *ctx)
{
	struct vc_chunk_segment_info *infos;
	size_t n;
	int r = segment_measure_all(store);

	if (r < 0)
		return r;
	r = segment_snapshot(store, &infos, &n);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = fn(ctx, &infos[i]);
	free(infos);
	return r;
}

static int segment_begin_remove(struct vc_chunk_store *store, uint64_t segno, struct chunk_segment **ret)
{
	struct chunk_segment *seg;
	int r = 0;

	vc_mutex_lock(&store->lock);
	seg = table_get_locked(store, segno);
	if (!seg) {
		r = -ENOENT;
	} else if (!seg->sealed || seg->pins > 0 || seg->removing) {
		r = -EBUSY;
	} else {
		seg->removing = true;
		seg->users++;
		vc_list_del(&seg->idle);
	}
	vc_mutex_unlock(&store->lock);
	*ret = seg;
	return r;
}

int vc_chunk_remove_segment(struct vc_chunk_store *store, uint64_t segno)
{
	char path[VC_CHUNK_PATH_MAX];
	struct chunk_segment *seg;
	int r;

	if (store->read_only)
		return -EROFS;
	r = segment_begin_remove(store, segno, &seg);
	if (r < 0)
		return r;
	segment_path(store, segno, path);
	r = vc_io_unlink(store->io, path);
	if (r == -ENOENT)
		r = 0;
	vc_mutex_lock(&store->lock);
	seg->removing = false;
	if (r == 0)
		table_del_locked(store, seg);
	vc_mutex_unlock(&store->lock);
	vc_chunk_segment_put(store, seg);
	return r;
}

/* A sealed segment loses what lies behind `used`. */
static void segment_cut(struct vc_chunk_store *store, uint64_t segno, uint32_t used)
{
	char path[VC_CHUNK_PATH_MAX];
	struct chunk_segment *seg;
	struct vc_file *file;
	int r;

	segment_path(store, segno, path);
	r = vc_io_open(store->io, path, VC_IO_WRITE, &file);
	if (r < 0)
		return;
	r = vc_io_truncate(file, used);
	vc_io_close(file);
	vc_mutex_lock(&store->lock);
	seg = table_get_locked(store, segno);
	if (r == 0 && seg)
		segment_set_used_locked(store, seg, used);
	vc_mutex_unlock(&store->lock);
}

/* The first segment of the DESTAGE stream numbered `segno` or above, 0: none. */
static uint64_t segment_next_destaged(struct vc_chunk_store *store, uint64_t segno, bool *ret_sealed)
{
	uint64_t found = 0;

	vc_mutex_lock(&store->lock);
	for (size_t i = table_find_locked(store, segno); i < store->nsegs && !found; i++)
		if (store->segs[i]->stream == VC_STREAM_DESTAGE && store->segs[i]->limit) {
			found = store->segs[i]->segno;
			*ret_sealed = store->segs[i]->sealed;
		}
	vc_mutex_unlock(&store->lock);
	return found;
}

void vc_chunk_segment_undo(struct vc_chunk_store *store, uint64_t segno, uint64_t keep_segno, uint32_t used)
{
	bool sealed;

	if (keep_segno && segment_next_destaged(store, keep_segno, &sealed) == keep_segno && sealed)
		segment_cut(store, keep_segno, used);
	while ((segno = segment_next_destaged(store, segno, &sealed)) != 0) {
		int r VC_UNUSED = sealed ? vc_chunk_remove_segment(store, segno) : 0; /* at worst it stays */

		segno++;
	}
}

void vc_chunk_drop_unnamed(struct vc_chunk_store *store, uint64_t segno)
{
	for (bool more = true; more;) {
		uint64_t found = 0;

		vc_mutex_lock(&store->lock);
		for (size_t i = table_find_locked(store, segno); i < store->nsegs && !found; i++)
			if (!store->segs[i]->adopted && !store->segs[i]->known && store->segs[i]->used > VC_CHUNK_SEGMENT_HEADER)
				found = store->segs[i]->segno;
		vc_mutex_unlock(&store->lock);
		more = found != 0;
		if (more)
			segment_cut(store, found, VC_CHUNK_SEGMENT_HEADER);
		segno = found + 1;
	}
}
