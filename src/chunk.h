/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chunk: the store of write-once, compressed, checksummed chunks in append-only segment files.
 *
 *   POOL/chunk/%08x.seg, each: 4 KiB header, then chunks at 64-byte steps, up to segment_size bytes
 *
 * Invariants
 *   C1  A segment number is never used twice; a file once written at an offset is never written there again.
 *   C2  Bytes handed back as data carried a matching header checksum (seeded with the address, so a block
 *       that a disk returned from elsewhere is noticed) and payload checksum.
 *   C3  vc_chunk_sync returns 0 only when every chunk whose append returned before the call, and the directory entry
 *       of its file, are on stable storage, through the descriptor that wrote them. After one failed sync
 *       every later append and sync fails with -EROFS (D4).
 *   C4  A segment is sealed when full or when the store closes; only sealed segments may be removed, and the file of a
 *       removed one stays readable for those who already hold it.
 *
 * A stream is one open segment with one position: destage uses one, each direct writer another, so that
 * one image's blocks lie together. Streams are independent; one stream is used by one thread at a time
 * (the store locks it). Appends to a DESTAGE stream are gathered into large writes and reach the file at the
 * latest in vc_chunk_sync; they are readable (by vc_chunk_read) only after that. Appends to a DIRECT
 * stream have been written to the file when append returns.
 */
#ifndef VC_CHUNK_H
#define VC_CHUNK_H

#include "cache.h"
#include "format.h"
#include "io.h"

struct vc_chunk_store;

enum vc_chunk_stream { VC_STREAM_DESTAGE, VC_STREAM_DIRECT, VC_STREAM_CLEAN, VC_STREAM_COUNT };

struct vc_chunk_params {
	struct vc_io *io;
	const char *dir;            /* POOL/chunk; copied */
	uint8_t uuid[16];           /* of the pool */
	uint64_t segment_size;      /* bytes, header included; at most VC_CHUNK_SEGMENT_MAX */
	uint32_t chunk_blocks;      /* longest chunk in blocks */
	uint64_t next_segno;        /* lowest number never used, as the last checkpoint knew it */
	uint64_t cache_bytes;       /* decompressed chunk cache */
	bool read_only;
	/*
	 * No room for the file of a DESTAGE segment: make a file of reserved blocks, of *ret_size bytes and no content, be at `path`.
	 * 0, -ENOSPC, -errno. Called with a stream's lock. May be NULL.
	 */
	int (*take_reserved)(void *ctx, const char *path, uint64_t *ret_size);
	void *ctx;
};

/** What is known of one segment. */
struct vc_chunk_segment_info {
	uint64_t segno;
	uint64_t used;    /* bytes, header included */
	uint64_t max_lsn; /* no chunk in it belongs to a later log record */
	bool sealed;
};

/** Create the (empty) directory and make it durable together with its parent's entry. Returns 0 or -errno. */
int vc_chunk_create(struct vc_io *io, const char *dir) VC_MUST_CHECK;

/**
 * Open: lists the directory; existing segments are taken as sealed with the size they have (their max_lsn is set
 * by vc_chunk_set_segment, until then ~0). next_segno becomes the larger of the parameter and one above the highest
 * file. Opens no segment file yet. Returns 0, -ENOENT, -EUCLEAN (foreign name is ignored with a warning), -errno.
 */
int vc_chunk_open(const struct vc_chunk_params *params, struct vc_chunk_store **ret) VC_MUST_CHECK;
/**
 * After recovery, while nothing is appended: segments numbered `segno` and above that were neither made known (vc_chunk_set_segment) nor
 * adopted are named by nobody; their space is given back. Their names stay, so that no number is used again.
 */
void vc_chunk_drop_unnamed(struct vc_chunk_store *store, uint64_t segno);
/** Seals open segments (no sync: the caller has synced what matters) and frees everything. NULL is ignored. */
void vc_chunk_close(struct vc_chunk_store *store);

/**
 * Append `nblocks` blocks (1 to chunk_blocks, contiguous in `data`) as one chunk: compressed if that pays. `lsn`: see
 * struct vc_disk_chunk; raises the segment's max_lsn. On success *ret_entry is the map entry of the first
 * block and *ret_payload_sum (may be NULL) the checksum in its header.
 * Returns 0, -ENOSPC, -EROFS (store failed), -EIO, -ENOMEM.
 */
int vc_chunk_append(struct vc_chunk_store *store, enum vc_chunk_stream stream, uint64_t ino, uint64_t lba,
		    uint64_t lsn, const void *data, uint32_t nblocks, uint64_t *ret_entry,
		    uint64_t *ret_payload_sum) VC_MUST_CHECK;

/** A place in the DESTAGE stream. */
struct vc_chunk_mark {
	uint64_t segno; /* 0: between segments */
	uint32_t pos;
	uint64_t next;  /* lowest number never used */
};
/** Where the DESTAGE stream is. Its only user asks before a checkpoint, all appended before being synced. */
void vc_chunk_mark(struct vc_chunk_store *store, struct vc_chunk_mark *ret);
/**
 * Take everything back that was appended to the DESTAGE stream since the mark: the disk is full, the checkpoint will be made again, and
 * nothing names these chunks. Without that, each try would leave garbage on the full disk.
 */
void vc_chunk_rewind(struct vc_chunk_store *store, const struct vc_chunk_mark *mark);

/**
 * A direct writer appends `n` chunks worth of `nblocks` blocks at once: splits at multiples of chunk_blocks of the lba,
 * leaves out all-zero chunks (entry 0), compresses outside any lock, writes all with one pwritev. `ret` has room for
 * nblocks / chunk_blocks + 2 items; *ret_n tells how many. The segments touched are pinned
 * (not sealed for removal, see vc_chunk_direct_done) until the log record naming them has an LSN.
 */
int vc_chunk_append_direct(struct vc_chunk_store *store, uint64_t ino, uint64_t lba, uint64_t lsn, const void *data,
			   uint64_t nblocks, struct vc_disk_direct *ret, uint32_t *ret_n) VC_MUST_CHECK;
/** The record naming these chunks got `lsn` (0: it was given up): raise max_lsn of their segments, unpin. */
void vc_chunk_direct_done(struct vc_chunk_store *store, const struct vc_disk_direct *items, uint32_t n, uint64_t lsn);

/**
 * Read `nblocks` blocks of one chunk, the first being `entry` (its block number within the chunk included), into
 * `buf` through the cache. Returns 0; -EBADMSG when a checksum, a header field or the expansion is wrong (one message
 * naming file, offset and what is wrong); -ESTALE when the segment no longer exists (look the block
 * up again); -EIO.
 */
int vc_chunk_read(struct vc_chunk_store *store, uint64_t entry, uint32_t nblocks, void *buf) VC_MUST_CHECK;

/**
 * A piece of one chunk that is wanted: as the parameters of vc_chunk_read. With `ref` nothing is copied: the whole chunk is held there, the
 * piece begins at block vc_entry_block(entry) of it, and the caller gives it back with vc_chunk_put. A want that fails leaves *ref as it was.
 */
struct vc_chunk_want {
	uint64_t entry;
	uint32_t nblocks;
	void *buf;
	struct vc_cache_ref *ref; /* may be NULL */
};
/** vc_chunk_read of one piece. */
int vc_chunk_read_want(struct vc_chunk_store *store, const struct vc_chunk_want *want) VC_MUST_CHECK;
/** What is told of a read that was not waited for. */
struct vc_chunk_later {
	/*
	 * 0 with the whole chunk in *ref, which is given back with vc_chunk_put; or -EAGAIN: read it with vc_chunk_read_want, which says what is
	 * wrong. On another thread, or the caller's; every other such read waits meanwhile, so it waits for nothing (but locks below
	 * VC_LOCK_CHUNK).
	 */
	void (*done)(struct vc_chunk_later *later, int error, struct vc_cache_ref *ref);
};
/**
 * vc_chunk_read_want that does not wait for the device if it can be helped: as that, or -EINPROGRESS: later->done is called, or was, and nothing is
 * put where `want` says.
 */
int vc_chunk_read_later(struct vc_chunk_store *store, const struct vc_chunk_want *want, struct vc_chunk_later *later) VC_MUST_CHECK;
/** Until the reads begun by vc_chunk_read_later have been told. */
void vc_chunk_drain_reads(struct vc_chunk_store *store);
/**
 * vc_chunk_read of `n` pieces at once: chunks that are not in the cache and lie one behind another in a file are read with one
 * call and expanded by several threads. 0, or the error of the first piece that failed, with its number in *ret_failed; others may
 * have been held then.
 */
int vc_chunk_read_many(struct vc_chunk_store *store, const struct vc_chunk_want *wants, size_t n, size_t *ret_failed) VC_MUST_CHECK;
/** Let go of what a want held. */
void vc_chunk_put(struct vc_chunk_store *store, struct vc_cache_ref *ref);
/**
 * What vc_chunk_read_many would have to read for these pieces (buf is not looked at) is asked of the device; a hint. Nothing when the first
 * and the last of them are cached: then somebody else goes through the same chunks before us.
 */
void vc_chunk_read_ahead(struct vc_chunk_store *store, const struct vc_chunk_want *wants, size_t n);

/**
 * Does a chunk with exactly this entry and payload checksum lie on disk, whole? For replay of direct records;
 * reads the file, not the cache, and sends no message when the answer is no. Returns 0 (yes), -EBADMSG (no), or another
 * -errno.
 */
int vc_chunk_vouch(struct vc_chunk_store *store, const struct vc_disk_direct *item) VC_MUST_CHECK;

/**
 * Look for chunks by their headers: fn for every valid header in every segment, in the order they lie; payloads are not looked at. `entry` is that
 * of block 0. Non-zero stops, and is returned. A segment that cannot be read is passed over (the message is sent).
 */
int vc_chunk_scan(struct vc_chunk_store *store, int (*fn)(void *ctx, uint64_t entry, const struct vc_disk_chunk *head),
		  void *ctx) VC_MUST_CHECK;

/** Stored size (header, payload, padding) of the chunk `entry` belongs to, from its header on disk. 0 or -errno. */
int vc_chunk_stored_size(struct vc_chunk_store *store, uint64_t entry, uint32_t *ret_bytes) VC_MUST_CHECK;

/** Make all appended chunks durable (C3). Safe to call from several threads. Returns 0 or -errno. */
int vc_chunk_sync(struct vc_chunk_store *store) VC_MUST_CHECK;
/**
 * The chunk was written before this store was opened, by a process that may have died before syncing it: the next vc_chunk_sync covers its
 * segment and the directory. Returns 0, -ESTALE (no such segment), -errno.
 */
int vc_chunk_adopt(struct vc_chunk_store *store, uint64_t entry) VC_MUST_CHECK;
/** Only the DIRECT stream: what the log must have before it syncs addresses. Cheap when nothing was written. */
int vc_chunk_sync_direct(struct vc_chunk_store *store) VC_MUST_CHECK;

/** Restore max_lsn and used of a segment found at open, from its catalog row. Unknown numbers are ignored. */
void vc_chunk_set_segment(struct vc_chunk_store *store, const struct vc_chunk_segment_info *info);
/** Segments whose max_lsn was not set by now get `lsn` (after recovery: nothing in them is newer). */
void vc_chunk_settle(struct vc_chunk_store *store, uint64_t lsn);
/** Call fn for each segment, ascending; non-zero stops and is returned. fn must not call the store. */
int vc_chunk_each_segment(struct vc_chunk_store *store, int (*fn)(void *ctx, const struct vc_chunk_segment_info *info),
			  void *ctx) VC_MUST_CHECK;
/** Unlink a sealed, unpinned segment file; held readers go on. Returns 0, -EBUSY (not sealed or pinned), -ENOENT, -errno. */
int vc_chunk_remove_segment(struct vc_chunk_store *store, uint64_t segno) VC_MUST_CHECK;

/**
 * Look at what lies on the disk, past the page cache where the file system can: all chunks of segment `segno` that begin from `from` (a multiple
 * of 64, at least the size of the segment's header) to `to`. bad() is told stretches in which no chunk with right checksums begins: all that is
 * named by a map there is damaged (a stretch that nothing names is none). step() is called after each read; a non-zero result of either ends
 * the scan and is returned. 0, -ESTALE (no such segment), -ENOMEM, -EIO (cannot be read; bad() was told).
 */
struct vc_chunk_verify {
	int (*bad)(void *ctx, uint64_t segno, uint64_t from, uint64_t to);
	int (*step)(void *ctx, size_t bytes); /* may be NULL */
	void *ctx;
};
int vc_chunk_verify(struct vc_chunk_store *store, uint64_t segno, uint64_t from, uint64_t to,
		  const struct vc_chunk_verify *how) VC_MUST_CHECK;

/** Lowest segment number never used (goes into every checkpoint). */
uint64_t vc_chunk_next_segno(struct vc_chunk_store *store);

struct vc_chunk_stats {
	uint64_t segments, bytes;             /* files, bytes used in them */
	uint64_t appended_blocks, stored_bytes; /* since open: in, and what they took */
	struct vc_cache_stats cache;
};
void vc_chunk_stats(struct vc_chunk_store *store, struct vc_chunk_stats *ret);

#endif
