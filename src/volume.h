/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * volume: the data of one image: read, write, discard, resize, flush, clone.
 *
 * All functions take a regular file's inode (otherwise -EISDIR for directories, -EINVAL). Any number of threads. Reads
 * may sleep on chunk or log I/O. Writes never sleep for the log: when it is full or the disk slow the request is parked
 * with a copy of its data, and `done` comes from another thread. Offsets and lengths in bytes, any alignment.
 * Beyond VC_IMAGE_SIZE_MAX: -EFBIG. Failed pool: -EROFS, and -EIO for what was in flight.
 */
#ifndef VC_VOLUME_H
#define VC_VOLUME_H

#include <sys/uio.h>
#include "cache.h"
#include "chunk.h"
#include "format.h"
#include "names.h"

/** Bytes read (short only at the end of the image), or -EIO (device or damaged data; message sent), ... */
ssize_t vc_volume_read(struct vc_inode *inode, void *buf, size_t len, uint64_t offset) VC_MUST_CHECK;

/** What is told of a read that was not waited for. */
struct vc_read_later {
	/*
	 * The `len` bytes that vc_volume_read_later was asked for are at `data` until this returns; NULL: read again with vc_volume_read. From
	 * another thread, or the caller's; all other such reads wait meanwhile, so it waits for nothing.
	 */
	void (*done)(struct vc_read_later *later, const void *data, size_t len);
	/* Private. */
	struct vc_chunk_later chunk;
	struct vc_pool *pool;
	size_t skip, len;
};
/**
 * vc_volume_read that does not wait for the device if it can be helped: as that, or -EINPROGRESS: later->done is called, or was, and nothing is put into
 * buf. The inode stays until then.
 */
ssize_t vc_volume_read_later(struct vc_inode *inode, void *buf, size_t len, uint64_t offset, struct vc_read_later *later) VC_MUST_CHECK;
/** Until the reads begun by vc_volume_read_later have been told. */
void vc_volume_drain_reads(struct vc_pool *pool);

/** Requests of at least this many bytes are worth vc_volume_read_pieces. At most VC_PIECES_BYTES_MAX. */
#define VC_PIECES_BYTES_MIN (32u << 10)
#define VC_PIECES_BYTES_MAX (1u << 20)
/* A piece a block, and the ends of one that is cut by the request. */
#define VC_PIECES_MAX (VC_PIECES_BYTES_MAX / VC_BLOCK_SIZE + 2)

/** An answer in pieces: of the cache of chunks where they are long, of the caller's buffer for the rest. */
struct vc_pieces {
	struct iovec iov[VC_PIECES_MAX]; /* in order; to be read only */
	struct vc_cache_ref refs[VC_PIECES_MAX];
	unsigned int n, nrefs;
};
/**
 * vc_volume_read without copying what the cache holds. `buf` has room for len bytes. The pieces stay valid, and the inode must stay,
 * until vc_pieces_put, which is called whatever this returns.
 */
ssize_t vc_volume_read_pieces(struct vc_inode *inode, void *buf, size_t len, uint64_t offset, struct vc_pieces *ret) VC_MUST_CHECK;
void vc_pieces_put(struct vc_inode *inode, struct vc_pieces *pieces);

/** A read was answered, of at least this many bytes: */
#define VC_READ_AHEAD_MIN (64u << 10)
/** if it went on where the last one ended, what comes next is asked of the device. A hint: nothing is waited for. */
void vc_volume_read_ahead(struct vc_inode *inode, uint64_t offset, size_t len);

enum vc_write_flags {
	VC_WRITE_DSYNC = 1 << 0,     /* done only when durable */
	VC_WRITE_APPEND = 1 << 1,    /* offset is ignored: at the end of file, atomically */
	VC_WRITE_KILL_PRIV = 1 << 2, /* as VC_SET_KILL_PRIV */
};
/** `buf` is not used after the return. Complete when done(0): all `len` bytes, in the log's page cache (D7). At most 1 MiB + 4 KiB a call. */
int vc_volume_write(struct vc_inode *inode, const void *buf, size_t len, uint64_t offset, unsigned int flags,
		    struct vc_done *done) VC_MUST_CHECK;

/** ftruncate; durable when done. */
int vc_volume_resize(struct vc_inode *inode, uint64_t size, struct vc_done *done) VC_MUST_CHECK;

/** fallocate(2) modes: 0 and KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE [|KEEP_SIZE]. Others -EOPNOTSUPP. Mode 0 grows the file. */
int vc_volume_allocate(struct vc_inode *inode, int mode, uint64_t offset, uint64_t len, struct vc_done *done) VC_MUST_CHECK;

/** SEEK_DATA / SEEK_HOLE of lseek(2): exact to the block, sees the log. -ENXIO as lseek. */
int vc_volume_seek(struct vc_inode *inode, uint64_t offset, int whence, uint64_t *ret_offset) VC_MUST_CHECK;

/** Everything that returned before is durable when done(0) (D1). may_sync: see vc_log_flush; the caller holds no lock then. */
int vc_volume_flush(struct vc_inode *inode, bool may_sync, struct vc_done *done) VC_MUST_CHECK;

/* ---- cloning: one log record, durable when done; see D3 ---- */

/** Clone `src` to a new name. Mode, owner and times as given (mode without S_IFMT). -EEXIST when the name exists. *ret as vc_names_create (may be NULL). */
int vc_volume_clone(struct vc_inode *src, struct vc_inode *dir, const char *name, uint32_t mode, struct vc_owner owner,
		    struct vc_inode **ret, struct vc_done *done) VC_MUST_CHECK;

/** `count` clones at once, all or nothing, one record: name of number i is made by fn(ctx, i, buf of 256 bytes), 0 or -errno. */
int vc_volume_clone_many(struct vc_inode *src, struct vc_inode *dir, uint32_t count,
			 int (*fn)(void *ctx, uint32_t i, char *buf), void *ctx, uint32_t mode, struct vc_owner owner,
			 struct vc_done *done) VC_MUST_CHECK;
#define VC_CLONE_MANY_MAX 10000u

/**
 * copy_file_range(2) by sharing: whole blocks share, unaligned edges (also a different alignment of source and destination)
 * copy bytes. src and dst may be the same image if the ranges do not overlap (-EINVAL). Copies less than asked at the end of src;
 * *ret_copied is set before done. Whole image to offset 0 of an empty file makes it a clone (origin, depth). `durable`: done only when on disk,
 * otherwise as a write.
 */
int vc_volume_copy_range(struct vc_inode *src, uint64_t src_offset, struct vc_inode *dst, uint64_t dst_offset,
			 uint64_t len, bool durable, uint64_t *ret_copied, struct vc_done *done) VC_MUST_CHECK;

/**
 * A hidden point-in-time clone of src, for a copy that arrives in pieces: pass *ret as src of the pieces; vc_inode_put drops it
 * (it has no name, so it goes with its last reference). 0 or -errno; sleeps for the log only.
 */
int vc_volume_pin(struct vc_inode *src, struct vc_inode **ret) VC_MUST_CHECK;

struct vc_volume_info {
	uint64_t ino, size, origin;
	uint32_t depth;
	uint64_t referenced;     /* mapped blocks of 4 KiB at the last checkpoint */
	uint64_t own;            /* of those, written since the last clone of or to it */
	uint64_t pending;        /* blocks in the log, not destaged yet */
	uint64_t exclusive_bytes;/* what deleting it alone would free, from the last mark */
	uint64_t exclusive_ns;   /* time of that mark, 0: never */
};
int vc_volume_info(struct vc_inode *inode, struct vc_volume_info *ret) VC_MUST_CHECK;

#endif
