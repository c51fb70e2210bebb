/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chunk_verify: reads a segment file from end to end without its maps.
 *
 *   window   | carry | 1 MiB just read |      buf[0] is at file offset `base`, both aligned, so that reads may go past the cache
 *
 * Chunks lie behind one another at multiples of 64. Where none begins, the next one is looked for at every such place.
 */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "checksum.h"
#include "chunk_impl.h"
#include "msg.h"

#define SCAN_ALIGN 4096u
#define SCAN_READ (1u << 20)
#define SCAN_WINDOW (SCAN_READ + 2 * (1u << 17)) /* and the longest chunk, twice */

struct scan {
	struct vc_chunk_store *store;
	const struct vc_chunk_verify *o;
	struct vc_file *file;
	uint64_t segno;
	uint8_t *buf;
	uint64_t base, have;   /* window: file offset, bytes */
	bool ended;            /* the file ends where the window does */
	uint64_t pos, bad_from;/* bad_from: 0, or where what is not a chunk began */
};

/* One read at an aligned place. Not through vc_io_preadv, which goes on after a short read, unaligned. */
static ssize_t scan_pread(const struct scan *s, void *buf, size_t len, uint64_t offset)
{
	int fd = vc_io_posix_fd(s->file);
	ssize_t n;

	if (fd < 0)
		return vc_io_pread(s->file, buf, len, offset);
	do {
		n = pread(fd, buf, len, (off_t)offset);
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		n = -errno;
		vc_err("%s/%08" PRIx64 ".seg: cannot read at offset %" PRIu64 ": %s", s->store->dir, s->segno, offset, strerror((int)-n));
	}
	return n;
}

/* Make the window hold `len` bytes at pos, if the file has them. 1: it does; 0: the file ends before. */
static int scan_fill(struct scan *s, size_t len)
{
	while (s->pos + len > s->base + s->have && !s->ended) {
		uint64_t keep = VC_MIN(s->pos & ~(uint64_t)(SCAN_ALIGN - 1), s->base + s->have);
		ssize_t n;
		int r;

		memmove(s->buf, s->buf + (keep - s->base), s->base + s->have - keep);
		s->have -= keep - s->base;
		s->base = keep;
		n = scan_pread(s, s->buf + s->have, SCAN_READ, s->base + s->have);
		if (n < 0)
			return (int)n;
		s->have += (uint64_t)n;
		s->ended = n < SCAN_READ;
		r = s->o->step ? s->o->step(s->o->ctx, (size_t)n) : 0;
		if (r != 0)
			return r < 0 ? r : -EINTR;
	}
	return s->pos + len <= s->base + s->have;
}

static int scan_flush_bad(struct scan *s, uint64_t to)
{
	uint64_t from = s->bad_from;

	s->bad_from = 0;
	return from ? s->o->bad(s->o->ctx, s->segno, from, to) : 0;
}

/* Size of the chunk at pos when its header is right; 0 when it is not. */
static size_t scan_head(const struct scan *s, struct vc_disk_chunk *ret)
{
	memcpy(ret, s->buf + (s->pos - s->base), sizeof(*ret));
	if (vc_le32_get(ret->magic) != VC_MAGIC_CHUNK || vc_le32_get(ret->header_sum) != vc_chunk_header_sum(ret, s->segno, (uint32_t)s->pos) ||
	    memcmp(ret->uuid, s->store->uuid, sizeof(ret->uuid)) != 0 || !vc_chunk_lengths_ok(ret))
		return 0;
	return sizeof(*ret) + vc_le32_get(ret->stored_len);
}

/* What begins at pos; moves on behind it. */
static int scan_one(struct scan *s)
{
	struct vc_disk_chunk head;
	size_t size = scan_head(s, &head);
	int r = size ? scan_fill(s, size) : 0;

	if (r < 0)
		return r;
	if (size && r && vc_sum64(s->buf + (s->pos - s->base) + sizeof(head), size - sizeof(head), 0) == vc_le64_get(head.payload_sum)) {
		r = scan_flush_bad(s, s->pos);
		s->pos += VC_ROUND_UP(size, (size_t)VC_CHUNK_ALIGN);
		return r;
	}
	if (!s->bad_from)
		s->bad_from = s->pos;
	s->pos += size && r ? VC_ROUND_UP(size, (size_t)VC_CHUNK_ALIGN) : VC_CHUNK_ALIGN;
	return 0;
}

static int scan_run(struct scan *s, uint64_t to)
{
	int r = 1;

	while (s->pos < to && r > 0) {
		r = scan_fill(s, sizeof(struct vc_disk_chunk));
		if (r > 0) {
			r = scan_one(s);
			r = r == 0 ? 1 : r;
		}
	}
	if (r == 0 && !s->bad_from) /* what should begin here lies behind the end of the file */
		s->bad_from = s->pos;
	if (r == -EIO) {
		if (!s->bad_from)
			s->bad_from = s->pos;
		s->pos = VC_MAX(to, s->pos + 1);
	}
	if (r >= 0 || r == -EIO) {
		int told = scan_flush_bad(s, VC_MAX(s->pos, to));

		r = told != 0 ? told : VC_MIN(r, 0);
	}
	return r;
}

int vc_chunk_verify(struct vc_chunk_store *store, uint64_t segno, uint64_t from, uint64_t to, const struct vc_chunk_verify *scan)
{
	struct scan s = { .store = store, .o = scan, .segno = segno, .pos = from, .base = from & ~(uint64_t)(SCAN_ALIGN - 1) };
	char path[VC_CHUNK_PATH_MAX];
	int r;

	snprintf(path, sizeof(path), "%s/%08" PRIx64 ".seg", store->dir, segno);
	r = vc_io_open(store->io, path, VC_IO_READ | VC_IO_DIRECT, &s.file);
	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	s.buf = aligned_alloc(SCAN_ALIGN, SCAN_WINDOW);
	r = s.buf ? scan_run(&s, to) : -ENOMEM;
	free(s.buf);
	vc_io_close(s.file);
	return r;
}
