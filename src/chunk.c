/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chunk: the chunk store's life, and appending to its streams.
 *
 *   pack (no lock)                  place (stream lock)
 *   compress, checksum, header  ->  address, header checksum, entry  ->  gather, or write
 *
 * A packed chunk is complete but for its header's checksum, which depends on the address. Chunks packed one after
 * another stay so in the file, because each is padded to VC_CHUNK_ALIGN.
 *
 * Streams
 *   DESTAGE, CLEAN  gather: an address is handed out when the bytes are in `pending`. A flush that fails for want of
 *                   space changes nothing, so the next one writes the same bytes to the same place.
 *   DIRECT          writes through: addresses are handed out after their bytes were written. A write that failed for
 *                   want of space moves nothing; its place is used again, which nobody has been told of. Large
 *                   writes: chunk_direct.c.
 *
 * States of the store: running -> stopped (vc_chunk_stop: a write or a sync failed, D4). Stopped: reads go on,
 * appends and syncs return -EROFS, files keep their length. There is no way back but opening the store again.
 *
 * Locks: see chunk_impl.h.
 */
#include "config.h"
#include "chunk.h"

#include <stdlib.h>
#include <sys/resource.h>

#include "checksum.h"
#include "chunk_impl.h"
#include "codec.h"
#include "io_ring.h"
#include "msg.h"

/* Room for what is gathered, and for the chunk that completes it. */
#define CHUNK_PENDING_MAX (VC_CHUNK_GATHER + VC_CHUNK_SIZE_MAX)

/* ---- life ---- */

static int chunk_sync_parent(struct vc_io *io, const char *dir)
{
	size_t len = strlen(dir);
	char *parent;
	int r;

	while (len > 1 && dir[len - 1] == '/')
		len--;
	while (len > 0 && dir[len - 1] != '/')
		len--;
	while (len > 1 && dir[len - 1] == '/')
		len--;
	parent = len ? strndup(dir, len) : strdup(".");
	if (!parent)
		return -ENOMEM;
	r = vc_io_sync_dir(io, parent);
	free(parent);
	return r;
}

int vc_chunk_create(struct vc_io *io, const char *dir)
{
	int r = vc_io_mkdir(io, dir);

	if (r < 0)
		return r;
	r = vc_io_sync_dir(io, dir);
	if (r < 0)
		return r;
	return chunk_sync_parent(io, dir);
}

static bool chunk_params_ok(const struct vc_chunk_params *params)
{
	uint32_t blocks = params->chunk_blocks;

	return blocks >= 1 && blocks <= VC_CHUNK_BLOCKS_MAX && (blocks & (blocks - 1)) == 0 &&
	       params->segment_size <= VC_CHUNK_SEGMENT_MAX && params->segment_size % VC_CHUNK_ALIGN == 0 &&
	       params->segment_size >= VC_CHUNK_SEGMENT_HEADER + VC_CHUNK_SIZE_MAX &&
	       strlen(params->dir) <= VC_CHUNK_DIR_MAX;
}

/*
 * Half of what the process may have, the rest is for the log, the maps and whoever asks; at most VC_CHUNK_OPEN_MAX descriptors. A file
 * that is also read past the page cache has two.
 */
static uint32_t chunk_open_max(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return VC_CHUNK_OPEN_MAX / 2;
	return (uint32_t)VC_MIN((uint64_t)limit.rlim_cur / 2, (uint64_t)VC_CHUNK_OPEN_MAX) / 2;
}

static void chunk_init(struct vc_chunk_store *store, const struct vc_chunk_params *params)
{
	store->io = params->io;
	memcpy(store->uuid, params->uuid, sizeof(store->uuid));
	store->segment_size = (uint32_t)params->segment_size;
	store->chunk_blocks = params->chunk_blocks;
	store->next_segno = VC_MAX(params->next_segno, 1);
	store->read_only = params->read_only;
	store->take_reserved = params->take_reserved;
	store->ctx = params->ctx;
	store->open_max = chunk_open_max();
	vc_mutex_init(&store->lock, VC_LOCK_CHUNK);
	vc_cond_init(&store->synced);
	vc_list_init(&store->idle);
	for (int i = 0; i < VC_STREAM_COUNT; i++) {
		vc_mutex_init(&store->streams[i].lock, VC_LOCK_CHUNK_IO);
		vc_list_init(&store->unsynced[i]);
	}
}

int vc_chunk_open(const struct vc_chunk_params *params, struct vc_chunk_store **ret)
{
	struct vc_chunk_store *store;
	int r;

	if (!chunk_params_ok(params))
		return -EINVAL;
	store = calloc(1, sizeof(*store));
	if (!store)
		return -ENOMEM;
	chunk_init(store, params);
	store->dir = strdup(params->dir);
	store->missed_bits = VC_CHUNK_MISSED_BITS_MIN;
	while (store->missed_bits < VC_CHUNK_MISSED_BITS_MAX && (VC_CHUNK_MISSED_PLACE << store->missed_bits) < params->cache_bytes)
		store->missed_bits++;
	store->missed = calloc(UINT32_C(1) << store->missed_bits, sizeof(*store->missed));
	store->ring = vc_io_ring_new();
	r = store->dir && store->missed && store->ring ? vc_cache_open(params->cache_bytes, &store->cache) : -ENOMEM;
	if (r == 0 && !params->read_only)
		store->workers = vc_workers_new();
	if (r == 0)
		r = vc_chunk_segment_list(store);
	if (r < 0) {
		vc_chunk_close(store);
		return r;
	}
	*ret = store;
	return 0;
}

/* What is pending was promised to nobody: its appender has not synced. */
static void stream_fini(struct vc_chunk_store *store, struct chunk_stream *st)
{
	if (st->seg)
		vc_chunk_segment_seal(store, st->seg, st->pos - st->npending);
	free(st->pending);
	vc_mutex_fini(&st->lock);
}

void vc_chunk_close(struct vc_chunk_store *store)
{
	if (!store)
		return;
	vc_chunk_later_fini(store);
	for (int i = 0; i < VC_STREAM_COUNT; i++)
		stream_fini(store, &store->streams[i]);
	vc_workers_free(store->workers);
	vc_chunk_segment_free_all(store);
	vc_cache_close(store->cache);
	vc_cond_fini(&store->synced);
	vc_mutex_fini(&store->lock);
	free(store->missed);
	free(store->dir);
	free(store);
}

void vc_chunk_stop(struct vc_chunk_store *store)
{
	if (!atomic_exchange(&store->failed, true))
		vc_err("%s: nothing more is written here after this failure, what is stored stays readable; "
		       "check the device, then mount again", store->dir);
}

int vc_chunk_write_failed(struct vc_chunk_store *store, int r)
{
	if (vc_chunk_no_space(r))
		return -ENOSPC;
	vc_chunk_stop(store);
	return r;
}

bool vc_chunk_is_read_only(const struct vc_chunk_store *store)
{
	return store->read_only || atomic_load(&store->failed);
}

/* ---- packing: no lock ---- */

uint32_t vc_chunk_pack_size(const struct vc_disk_chunk *head)
{
	return VC_ROUND_UP((uint32_t)sizeof(*head) + vc_le32_get(head->stored_len), VC_CHUNK_ALIGN);
}

uint32_t vc_chunk_pack(const struct vc_chunk_store *store, uint8_t *dst, uint64_t ino, uint64_t lba, uint64_t lsn,
		       const void *data, uint32_t nblocks)
{
	struct vc_disk_chunk *head = (struct vc_disk_chunk *)dst;
	uint8_t *payload = dst + sizeof(*head);
	enum vc_codec codec;
	size_t stored = vc_codec_compress(data, nblocks * (size_t)VC_BLOCK_SIZE, payload, &codec);

	*head = (struct vc_disk_chunk){
		.magic = vc_le32_of(VC_MAGIC_CHUNK),
		.codec = (uint8_t)codec,
		.nblocks = (uint8_t)nblocks,
		.ino = vc_le64_of(ino),
		.lba = vc_le64_of(lba),
		.lsn = vc_le64_of(lsn),
		.stored_len = vc_le32_of((uint32_t)stored),
		.payload_sum = vc_le64_of(vc_sum64(payload, stored, 0)),
	};
	memcpy(head->uuid, store->uuid, sizeof(head->uuid));
	memset(payload + stored, 0, vc_chunk_pack_size(head) - sizeof(*head) - stored);
	return vc_chunk_pack_size(head);
}

uint64_t vc_chunk_pack_bind(uint8_t *chunk, uint64_t segno, uint32_t offset)
{
	struct vc_disk_chunk *head = (struct vc_disk_chunk *)chunk;

	head->header_sum = vc_le32_of(vc_chunk_header_sum(head, segno, offset));
	return vc_entry_make(segno, offset, vc_le32_get(head->stored_len), 0);
}

/* ---- streams; the caller holds the stream's lock ---- */

int vc_chunk_stream_write(struct vc_chunk_store *store, struct chunk_stream *st, const void *bytes, uint32_t len,
			  uint32_t offset)
{
	int r = vc_io_pwrite(st->seg->file, bytes, len, offset);

	if (r < 0)
		return vc_chunk_write_failed(store, r);
	vc_chunk_segment_wrote(store, st->seg);
	if (offset + len - st->pushed >= VC_CHUNK_GATHER) { /* whole pages: the last one will be written to again */
		uint32_t end = VC_ROUND_DOWN(offset + len, VC_BLOCK_SIZE);

		vc_io_start_writeback(st->seg->file, st->pushed, end - st->pushed);
		st->pushed = end;
	}
	return 0;
}

static int stream_flush(struct vc_chunk_store *store, struct chunk_stream *st)
{
	int r;

	if (st->npending == 0)
		return 0;
	if (vc_chunk_is_read_only(store))
		return -EROFS;
	r = vc_chunk_stream_write(store, st, st->pending, st->npending, st->pos - st->npending);
	if (r == 0)
		st->npending = 0;
	return r;
}

static int stream_seal(struct vc_chunk_store *store, struct chunk_stream *st)
{
	int r;

	if (!st->seg)
		return 0;
	r = stream_flush(store, st);
	if (r < 0)
		return r;
	vc_chunk_segment_seal(store, st->seg, st->pos);
	st->seg = NULL;
	return 0;
}

int vc_chunk_stream_ready(struct vc_chunk_store *store, struct chunk_stream *st, uint32_t size)
{
	int r;

	if (vc_chunk_is_read_only(store))
		return -EROFS;
	if (st->seg && st->seg->limit - st->pos >= size)
		return 0;
	r = stream_seal(store, st);
	if (r < 0)
		return r;
	r = vc_chunk_segment_create(store, (enum vc_chunk_stream)(st - store->streams), &st->seg);
	if (r == 0)
		st->pos = st->pushed = VC_CHUNK_SEGMENT_HEADER;
	return r;
}

/* One packed chunk joins what is gathered. */
static int stream_gather(struct vc_chunk_store *store, struct chunk_stream *st, const uint8_t *chunk, uint32_t size,
			 uint64_t lsn, uint64_t *ret_entry)
{
	uint8_t *at;
	int r;

	if (!st->pending)
		st->pending = malloc(CHUNK_PENDING_MAX);
	if (!st->pending)
		return -ENOMEM;
	r = st->npending >= VC_CHUNK_GATHER ? stream_flush(store, st) : 0;
	if (r == 0)
		r = vc_chunk_stream_ready(store, st, size);
	if (r < 0)
		return r;
	at = memcpy(st->pending + st->npending, chunk, size);
	*ret_entry = vc_chunk_pack_bind(at, st->seg->segno, st->pos);
	st->npending += size;
	st->pos += size;
	vc_chunk_segment_grow(store, st->seg, st->pos, lsn, 0);
	return 0;
}

/* One packed chunk is written at once. */
static int stream_write_through(struct vc_chunk_store *store, struct chunk_stream *st, uint8_t *chunk, uint32_t size,
				uint64_t lsn, uint64_t *ret_entry)
{
	uint64_t entry;
	int r = vc_chunk_stream_ready(store, st, size);

	if (r < 0)
		return r;
	entry = vc_chunk_pack_bind(chunk, st->seg->segno, st->pos);
	r = vc_chunk_stream_write(store, st, chunk, size, st->pos);
	if (r < 0)
		return r;
	st->pos += size;
	vc_chunk_segment_grow(store, st->seg, st->pos, lsn, 0);
	*ret_entry = entry;
	return 0;
}

/* ---- appending ---- */

void vc_chunk_count_appended(struct vc_chunk_store *store, uint64_t nblocks, uint64_t bytes)
{
	vc_mutex_lock(&store->lock);
	store->appended_blocks += nblocks;
	store->stored_bytes += bytes;
	vc_mutex_unlock(&store->lock);
}

static int chunk_append_packed(struct vc_chunk_store *store, enum vc_chunk_stream stream, uint8_t *chunk, uint32_t size,
			       uint64_t lsn, uint64_t *ret_entry)
{
	struct chunk_stream *st = &store->streams[stream];
	int r;

	vc_mutex_lock(&st->lock);
	if (stream == VC_STREAM_DIRECT)
		r = stream_write_through(store, st, chunk, size, lsn, ret_entry);
	else
		r = stream_gather(store, st, chunk, size, lsn, ret_entry);
	vc_mutex_unlock(&st->lock);
	return r;
}

int vc_chunk_append(struct vc_chunk_store *store, enum vc_chunk_stream stream, uint64_t ino, uint64_t lba,
		    uint64_t lsn, const void *data, uint32_t nblocks, uint64_t *ret_entry, uint64_t *ret_payload_sum)
{
	uint8_t *chunk;
	uint32_t size;
	int r;

	if (nblocks < 1 || nblocks > store->chunk_blocks)
		return -EINVAL;
	if (vc_chunk_is_read_only(store))
		return -EROFS;
	chunk = malloc(sizeof(struct vc_disk_chunk) + nblocks * (size_t)VC_BLOCK_SIZE);
	if (!chunk)
		return -ENOMEM;
	size = vc_chunk_pack(store, chunk, ino, lba, lsn, data, nblocks);
	r = chunk_append_packed(store, stream, chunk, size, lsn, ret_entry);
	if (r == 0) {
		if (ret_payload_sum)
			*ret_payload_sum = vc_le64_get(((const struct vc_disk_chunk *)chunk)->payload_sum);
		vc_chunk_count_appended(store, nblocks, size);
	}
	free(chunk);
	return r;
}

int vc_chunk_stream_flush(struct vc_chunk_store *store, enum vc_chunk_stream stream)
{
	struct chunk_stream *st = &store->streams[stream];
	int r;

	vc_mutex_lock(&st->lock);
	r = stream_flush(store, st);
	vc_mutex_unlock(&st->lock);
	return r;
}

/* ---- taking back ---- */

void vc_chunk_mark(struct vc_chunk_store *store, struct vc_chunk_mark *ret)
{
	struct chunk_stream *st = &store->streams[VC_STREAM_DESTAGE];

	vc_mutex_lock(&st->lock);
	*ret = (struct vc_chunk_mark){ .segno = st->seg ? st->seg->segno : 0, .pos = st->pos };
	vc_mutex_unlock(&st->lock);
	ret->next = vc_chunk_next_segno(store);
}

void vc_chunk_rewind(struct vc_chunk_store *store, const struct vc_chunk_mark *mark)
{
	struct chunk_stream *st = &store->streams[VC_STREAM_DESTAGE];

	if (vc_chunk_is_read_only(store))
		return;
	vc_mutex_lock(&st->lock);
	st->npending = 0;
	if (st->seg && st->seg->segno == mark->segno) {
		st->pos = mark->pos;
		vc_chunk_segment_grow(store, st->seg, st->pos, 0, 0);
	} else if (st->seg) {
		vc_chunk_segment_seal(store, st->seg, VC_CHUNK_SEGMENT_HEADER);
		st->seg = NULL;
	}
	vc_mutex_unlock(&st->lock);
	vc_chunk_segment_undo(store, mark->next, mark->segno, mark->pos);
}

/* ---- figures ---- */

uint64_t vc_chunk_next_segno(struct vc_chunk_store *store)
{
	uint64_t next;

	vc_mutex_lock(&store->lock);
	next = store->next_segno;
	vc_mutex_unlock(&store->lock);
	return next;
}

void vc_chunk_stats(struct vc_chunk_store *store, struct vc_chunk_stats *ret)
{
	vc_mutex_lock(&store->lock);
	ret->segments = store->nsegs;
	ret->bytes = store->bytes;
	ret->appended_blocks = store->appended_blocks;
	ret->stored_bytes = store->stored_bytes;
	vc_mutex_unlock(&store->lock);
	vc_cache_stats(store->cache, &ret->cache);
}
