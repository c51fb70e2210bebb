/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chunk_impl: what chunk.c (life, appending), chunk_direct.c (large writes), chunk_segment.c (segments and their files), chunk_sync.c,
 * chunk_read.c, chunk_read_many.c and chunk_later.c (reading and verifying) share. Nobody else includes it, but the store's unit test.
 *
 *   store -> segs[]    every segment, ascending; open and sealed
 *         -> streams[] -> seg (one user), position, pending buffer
 *         -> unsynced[stream] <-> seg <-> ...    written since their last sync, or being synced
 *         -> idle <-> seg <-> ...                file open, nobody uses it: oldest closed first
 *
 * Locks
 *   stream->lock (VC_LOCK_CHUNK_IO), one a stream: position, segment and buffer of the stream. Held over writes.
 *   store->lock (VC_LOCK_CHUNK): the table, every field of a segment that is not fixed, lists, counters. Never held over
 *   I/O. A segment's file may be used without a lock by whoever counts in `users`.
 */
#ifndef VC_CHUNK_IMPL_H
#define VC_CHUNK_IMPL_H

#include <stdatomic.h>

#include "chunk.h"
#include "list.h"
#include "lock.h"
#include "work.h"

/* One write of a gathering stream: large enough for a disk, small enough to hold per stream. */
#define VC_CHUNK_GATHER (1u << 20)
#define VC_CHUNK_SIZE_MAX (sizeof(struct vc_disk_chunk) + VC_CHUNK_BLOCKS_MAX * VC_BLOCK_SIZE)
/* Chunks that were missed are remembered, a place for each 512 bytes of cache: 32 times as many chunks of 16 KiB as it holds, 16 at 256 MiB. */
#define VC_CHUNK_MISSED_BITS_MIN 10
#define VC_CHUNK_MISSED_BITS_MAX 18 /* 1 MiB */
#define VC_CHUNK_MISSED_PLACE 512u
/* Half of the usual limit of 1,024 descriptors of a process. */
#define VC_CHUNK_OPEN_MAX 512u
#define VC_CHUNK_DIR_MAX 4000u
#define VC_CHUNK_PATH_MAX (VC_CHUNK_DIR_MAX + 32)

/*
 * Something that is synced for many at once. A sync that has begun covers what was dirty by then; whoever needs it
 * waits until `done` reaches the number of that sync.
 */
struct chunk_barrier {
	bool dirty;           /* changed since the last sync began */
	uint64_t begun, done; /* syncs; they differ while one runs */
};

struct chunk_segment {
	uint64_t segno;               /* fixed */
	enum vc_chunk_stream stream;  /* fixed; of those found at open without meaning */
	struct vc_file *file;         /* set once by the first user, taken away when users is 0 */
	uint64_t used, max_lsn;
	uint32_t limit;               /* fixed; of those made here: no byte is written from here on */
	uint32_t users;               /* readers, syncs and the stream: the file stays open */
	uint32_t pins;                /* direct chunks whose log record has no LSN yet */
	bool listed;                  /* in the table; when not, the last user frees it */
	bool sealed;
	bool measured;                /* `used` is known */
	bool known;                   /* to the last checkpoint */
	bool adopted;                 /* named by the log that was replayed */
	bool removing;                /* its file is being unlinked */
	struct chunk_barrier barrier; /* of the file's data */
	struct vc_list idle;          /* store->idle */
	struct vc_list unsynced;      /* store->unsynced[stream] */
};

/* Needs store->lock. */
static inline bool vc_chunk_segment_is_clean(const struct chunk_segment *seg)
{
	return !seg->barrier.dirty && seg->barrier.begun == seg->barrier.done;
}

struct chunk_stream {
	struct vc_mutex lock;
	struct chunk_segment *seg; /* NULL: the next append opens one */
	uint32_t pos;              /* next address in seg to be handed out */
	uint32_t pushed;           /* writing back has begun up to here */
	uint8_t *pending;          /* gathering streams: the bytes from pos - npending to pos */
	uint32_t npending;
};

struct vc_chunk_store {
	struct vc_io *io;
	char *dir;
	uint8_t uuid[16];
	uint32_t segment_size, chunk_blocks;
	bool read_only;
	int (*take_reserved)(void *ctx, const char *path, uint64_t *ret_size); /* fixed, as ctx */
	void *ctx;
	_Atomic bool failed; /* a write or a sync failed: nothing is written any more (D4) */
	struct vc_cache *cache;
	struct vc_workers *workers; /* for compression; may be NULL */
	_Atomic uint32_t *missed;   /* fingerprints of chunks that were looked for in the cache in vain; a hint */
	unsigned int missed_bits;   /* fixed: how many places it has, as a power of two */
	struct vc_io_ring *ring;
	struct chunk_fetch *fetches; /* lock; free ones */
	struct chunk_stream streams[VC_STREAM_COUNT];

	struct vc_mutex lock;
	struct vc_cond synced;         /* some barrier has moved */
	struct chunk_segment **segs;   /* lock; ascending */
	size_t nsegs, segs_room;       /* lock */
	uint64_t next_segno;           /* lock */
	struct vc_list idle;           /* lock; least recently used first */
	uint32_t open_files, open_max; /* lock */
	struct vc_list unsynced[VC_STREAM_COUNT]; /* lock */
	struct chunk_barrier dir_barrier;         /* lock; entries of new files */
	uint64_t bytes, appended_blocks, stored_bytes; /* lock */
};

/* ---- chunk.c ---- */

/* Is this the full disk, which passes, and not a failure of the device? */
static inline bool vc_chunk_no_space(int r) { return r == -ENOSPC || r == -EDQUOT; }
/* A write or sync failed with r: stop the store unless the disk is only full. Returns r, or -ENOSPC. */
int vc_chunk_write_failed(struct vc_chunk_store *store, int r) VC_MUST_CHECK;
void vc_chunk_stop(struct vc_chunk_store *store);

bool vc_chunk_is_read_only(const struct vc_chunk_store *store);

/*
 * Compress blocks into a chunk at dst, which has room for a header and the blocks as they are; complete but for its address. Returns
 * the size, padding included. No lock.
 */
uint32_t vc_chunk_pack(const struct vc_chunk_store *store, uint8_t *dst, uint64_t ino, uint64_t lba, uint64_t lsn,
		       const void *data, uint32_t nblocks) VC_MUST_CHECK;
uint32_t vc_chunk_pack_size(const struct vc_disk_chunk *head);
/* Bind a packed chunk to its address; returns the entry of its first block. */
uint64_t vc_chunk_pack_bind(uint8_t *chunk, uint64_t segno, uint32_t offset);

/* See to a segment in which `size` bytes fit at the stream's position. The stream's lock is held. */
int vc_chunk_stream_ready(struct vc_chunk_store *store, struct chunk_stream *st, uint32_t size) VC_MUST_CHECK;
/* Write to the stream's segment, and begin writing back what has come together. The stream's lock is held. */
int vc_chunk_stream_write(struct vc_chunk_store *store, struct chunk_stream *st, const void *bytes, uint32_t len,
			  uint32_t offset) VC_MUST_CHECK;
void vc_chunk_count_appended(struct vc_chunk_store *store, uint64_t nblocks, uint64_t bytes);
/* Write what the stream has gathered. */
int vc_chunk_stream_flush(struct vc_chunk_store *store, enum vc_chunk_stream stream) VC_MUST_CHECK;

/* ---- chunk_segment.c ---- */

/* Learn the segments in the directory. */
int vc_chunk_segment_list(struct vc_chunk_store *store) VC_MUST_CHECK;
/* Free the table; no segment has users. */
void vc_chunk_segment_free_all(struct vc_chunk_store *store);
/* A new segment, smaller than usual on a disk that is nearly full, with its header written, and one user, the caller. -ENOSPC leaves nothing behind. */
int vc_chunk_segment_create(struct vc_chunk_store *store, enum vc_chunk_stream stream,
			    struct chunk_segment **ret) VC_MUST_CHECK;
/* No more chunks after `used`; gives up the caller's use. */
void vc_chunk_segment_seal(struct vc_chunk_store *store, struct chunk_segment *seg, uint32_t used);
/*
 * Undo a DESTAGE stream's segments: remove those numbered `segno` and above, which nothing names, and cut the one below, if sealed, back to
 * `used`. What cannot be removed stays as garbage.
 */
void vc_chunk_segment_undo(struct vc_chunk_store *store, uint64_t segno, uint64_t keep_segno, uint32_t used);
/* Use the file of a segment, opened if need be. 0, -ESTALE (no such segment), -errno. */
int vc_chunk_segment_get(struct vc_chunk_store *store, uint64_t segno, struct chunk_segment **ret) VC_MUST_CHECK;
void vc_chunk_segment_put(struct vc_chunk_store *store, struct chunk_segment *seg);
/* Addresses up to `used` have been handed out, to chunks of `lsn`; `pins` of them wait for their LSN. */
void vc_chunk_segment_grow(struct vc_chunk_store *store, struct chunk_segment *seg, uint32_t used, uint64_t lsn,
			   uint32_t pins);

/* ---- chunk_sync.c ---- */

/* Bytes have been written to its file: the next sync covers them. */
void vc_chunk_segment_wrote(struct vc_chunk_store *store, struct chunk_segment *seg);

/* ---- chunk_read.c ---- */

/* What is wrong with a map entry, or with a want; NULL: nothing. */
const char *vc_chunk_entry_wrong(uint64_t entry);
const char *vc_chunk_want_wrong(const struct vc_chunk_want *want);
/*
 * Verify and expand the chunk of `entry`, of which `len` bytes are there: *ret_buf from malloc. 0, -ENOMEM, or another -errno with what is wrong in
 * *ret_why, which is NULL otherwise. Sends no message.
 */
int vc_chunk_unpack(const struct vc_chunk_store *store, uint64_t entry, const uint8_t *bytes, size_t len, void **ret_buf, size_t *ret_len,
		    const char **ret_why) VC_MUST_CHECK;
/* Says so. -EBADMSG. */
int vc_chunk_corrupt(const struct vc_chunk_store *store, uint64_t entry, const char *why);
/* Hand over what is wanted of the expanded chunk; takes *ref, which the caller held. 0 or -EBADMSG. */
int vc_chunk_deliver(struct vc_chunk_store *store, const struct vc_chunk_want *want, struct vc_cache_ref *ref) VC_MUST_CHECK;

/* Was this chunk missed a while ago? Remembers that it was now. */
bool vc_chunk_missed_before(struct vc_chunk_store *store, uint64_t entry);
/* vc_cache_load_fn; ctx is the store. */
int vc_chunk_load(void *ctx, uint64_t key, void **ret_buf, size_t *ret_len) VC_MUST_CHECK;

/* What is read past the page cache for an entry, whole sectors: [from, to). At most VC_CHUNK_PAST_MAX bytes. */
#define VC_CHUNK_PAST_MAX (VC_ROUND_UP(VC_CHUNK_SIZE_MAX, (size_t)VC_IO_PAST_ALIGN) + VC_IO_PAST_ALIGN)
static inline uint64_t vc_chunk_past_from(uint64_t entry) { return VC_ROUND_DOWN((uint64_t)vc_entry_offset(entry), (uint64_t)VC_IO_PAST_ALIGN); }
static inline uint64_t vc_chunk_past_to(uint64_t entry)
{
	return VC_ROUND_UP((uint64_t)vc_entry_offset(entry) + vc_entry_read_len(entry), (uint64_t)VC_IO_PAST_ALIGN);
}

/* Are codec, blocks and stored length of a header possible together? */
bool vc_chunk_lengths_ok(const struct vc_disk_chunk *head);
/* The header's own checksum, bound to the address that the chunk lies at. */
uint32_t vc_chunk_header_sum(const struct vc_disk_chunk *head, uint64_t segno, uint32_t offset);

/* ---- chunk_later.c ---- */

/* Ends the threads of the ring and frees what they used. */
void vc_chunk_later_fini(struct vc_chunk_store *store);

#endif
