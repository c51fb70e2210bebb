/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * blklog: what happened to a block device, as QEMU's driver blklogwrites and the kernel's dm-log-writes write it down.
 *
 * The format, all little-endian, in sectors of the size that the superblock tells (512 unless configured):
 *
 *   sector 0    superblock: u64 magic 0x6a736677736872, u64 version 1, u64 number of entries, u32 sector size
 *   sector 1..  entries, each a sector of its own with   u64 first sector on the device, u64 sectors, u64 flags, u64 length of data
 *               in this sector; the rest of it is that data (the text of a mark); then, unless discarded, as many sectors of what
 *               was written
 *
 *   flags       1 FLUSH: everything completed before is on the medium from here on; 2 FUA: this write is on the medium when
 *               complete; 4 DISCARD: no data follows; 8 MARK: a note of the user; 16 METADATA: a hint
 *
 * blklogwrites gives a write its place when it is issued, so what stands before a FLUSH was issued before it: a device that
 * has all of that on the medium behaves as devices may. It writes the number of entries only now and then; here the
 * length of the file decides. The place of an entry in the file is the time for everything: it only grows, and an entry
 * that was complete at some moment ends within the length that the file had at that moment.
 */
#ifndef VC_BLKLOG_H
#define VC_BLKLOG_H

#include <stddef.h>
#include <stdint.h>

enum blklog_flags {
	BLKLOG_FLUSH = 1 << 0,
	BLKLOG_FUA = 1 << 1,
	BLKLOG_DISCARD = 1 << 2,
	BLKLOG_MARK = 1 << 3,
	BLKLOG_METADATA = 1 << 4,
};

struct blklog_entry {
	uint64_t offset, len; /* on the device, bytes; FLUSH: len may be 0 */
	uint64_t data;        /* where in the log its bytes are */
	uint64_t end;         /* the place in the log behind it */
	uint64_t flags;
};

struct blklog {
	int fd;
	struct blklog_entry *entries;
	size_t n;
};

/** Read the entries of the log at `path`, which nobody writes any more. Aborts, saying why, when it is not such a log. */
void blklog_open(struct blklog *log, const char *path);
void blklog_close(struct blklog *log);
/** Bytes [from, from + len) of the data of an entry to buf. */
void blklog_read(const struct blklog *log, const struct blklog_entry *e, uint64_t from, void *buf, size_t len);
/** The number of the last FLUSH among the entries before number n, SIZE_MAX if there is none. */
size_t blklog_last_flush(const struct blklog *log, size_t n);

#endif
