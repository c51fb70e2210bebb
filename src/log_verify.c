/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * log_verify: does the log on the disk still hold what was written? A segment is read up to what had been written when the look began; one
 * that is given back meanwhile is not judged.
 */
#include "config.h"

#include <fcntl.h>
#include <stdlib.h>

#include "checksum.h"
#include "log_impl.h"

struct verify {
	struct vc_log_damage damage[64]; /* told when the segment is still the same */
	size_t n;
	const uint8_t *buf;
	uint64_t size, salt;
	uint64_t last;         /* sum of the last batch of the segment, when has_last */
	bool has_last, tail;   /* tail: it is being written, and all up to size is batches */
	uint32_t slot;
};

static void verify_found(struct verify *v, uint64_t at, const struct vc_op *op, uint64_t lba)
{
	if (v->n == VC_ARRAY_LEN(v->damage))
		return;
	v->damage[v->n++] = (struct vc_log_damage){ .slot = v->slot, .offset = at, .ino = op ? op->ino : 0, .lba = lba, .nblocks = op ? 1 : 0 };
}

/* A record whose structure is right: which of its blocks are not? */
static void verify_blocks(struct verify *v, const uint8_t *bytes)
{
	struct vc_record_iter it;
	struct vc_op op;

	vc_record_iter_init(&it, bytes);
	while (vc_record_iter_next(&it, &op)) {
		for (uint64_t i = 0; op.type == VC_OP_WRITE && i < op.nblocks; i++) {
			const uint8_t *block = bytes + op.data_offset + i * VC_BLOCK_SIZE;
			vc_le32 sum;

			memcpy(&sum, &op.sums[i], sizeof(sum));
			if (vc_sum32(block, VC_BLOCK_SIZE) != vc_le32_get(sum))
				verify_found(v, (uint64_t)(block - v->buf), &op, op.lba + i);
		}
	}
}

static void verify_records(struct verify *v, uint64_t at, const struct vc_disk_batch *h)
{
	uint64_t left = vc_le32_get(h->len), lsn = vc_le64_get(h->first_lsn);
	const uint8_t *bytes = v->buf + at + sizeof(*h);

	for (uint32_t i = 0; i < vc_le32_get(h->nrecords); i++, lsn++) {
		size_t len;

		if (vc_record_check(bytes, left, lsn, false, &len) < 0) { /* where the next one begins is not known */
			verify_found(v, (uint64_t)(bytes - v->buf), NULL, 0);
			return;
		}
		verify_blocks(v, bytes);
		bytes += len;
		left -= len;
	}
}

static bool verify_batch_ok(const struct verify *v, uint64_t at, struct vc_disk_batch *ret)
{
	if (at + sizeof(*ret) > v->size)
		return false;
	memcpy(ret, v->buf + at, sizeof(*ret));
	return vc_le32_get(ret->magic) == VC_MAGIC_BATCH && vc_le64_get(ret->salt) == v->salt &&
		vc_le64_get(ret->sum) == vc_sum64(ret, offsetof(struct vc_disk_batch, sum), 0) &&
		vc_le32_get(ret->len) <= v->size - at - sizeof(*ret);
}

/*
 * Where the batches of a segment end is known of the one being written, by its position, and of the others by the header of the next one, which
 * names the last batch (v->last). What lies behind that is left from an earlier use.
 */
static void verify_segment(struct verify *v, const struct vc_log *log)
{
	struct vc_disk_log_segment header;
	uint64_t hole = 0; /* where batches stopped, not told yet */
	struct vc_disk_batch h;
	bool ended;

	memcpy(&header, v->buf, sizeof(header));
	if (log_segment_check(log, &header) < 0 || vc_le64_get(header.salt) != v->salt)
		verify_found(v, 0, NULL, 0);
	ended = v->has_last && vc_le64_get(header.prev_hash) == v->last;
	for (uint64_t at = VC_LOG_HEADER_SIZE; at < v->size && !ended;) {
		if (!verify_batch_ok(v, at, &h)) {
			hole = hole ? hole : at;
			at += VC_LOG_ALIGN;
			continue;
		}
		if (hole)
			verify_found(v, hole, NULL, 0);
		hole = 0;
		verify_records(v, at, &h);
		ended = v->has_last && vc_le64_get(h.sum) == v->last;
		at = VC_ROUND_UP(at + sizeof(h) + vc_le32_get(h.len), (uint64_t)VC_LOG_ALIGN);
	}
	if (hole && (v->tail || (v->has_last && !ended)))
		verify_found(v, hole, NULL, 0);
}

/* The segment to look at, and how far it is written. NULL: none. */
static struct log_segment *verify_choose_locked(struct vc_log *log, uint64_t seq, struct verify *v)
{
	uint64_t written = atomic_load(&log->written_addr);
	struct log_segment *best = NULL;

	for (uint32_t i = 0; i < log->nmade; i++)
		if (log->segments[i].seq >= seq && log->segments[i].seq && vc_log_addr(log->segments[i].seq, VC_LOG_HEADER_SIZE) < written &&
		    (!best || log->segments[i].seq < best->seq))
			best = &log->segments[i];
	if (!best)
		return NULL;
	v->tail = best->seq == written >> VC_LOG_ADDR_SHIFT;
	v->size = v->tail ? written & ((UINT64_C(1) << VC_LOG_ADDR_SHIFT) - 1) : log->p.segment_size;
	v->salt = best->salt;
	v->slot = (uint32_t)(best - log->segments);
	return best;
}

/* What the next segment says about the end of this one. */
static void verify_find_last(struct verify *v, struct vc_log *log, uint64_t next)
{
	struct vc_disk_log_segment header;
	struct vc_file *file = NULL;

	vc_mutex_lock(&log->lock);
	for (uint32_t i = 0; i < log->nmade; i++)
		if (log->segments[i].seq == next)
			file = log->segments[i].file;
	vc_mutex_unlock(&log->lock);
	v->has_last = file && vc_io_pread(file, &header, sizeof(header), 0) == sizeof(header) && log_segment_check(log, &header) == 0 &&
		      vc_le64_get(header.seq) == next;
	v->last = v->has_last ? vc_le64_get(header.prev_hash) : 0;
}

/* From the disk: what the page cache has of the file and is clean is dropped before. */
static int verify_read(struct verify *v, struct vc_log *log, struct log_segment *segment, uint64_t found)
{
	uint8_t *buf = malloc(v->size);
	ssize_t n;

	if (!buf)
		return -ENOMEM;
	if (!v->tail)
		verify_find_last(v, log, found + 1);
	if (vc_io_posix_fd(segment->file) >= 0)
		(void)posix_fadvise(vc_io_posix_fd(segment->file), 0, 0, POSIX_FADV_DONTNEED);
	n = vc_io_pread(segment->file, buf, v->size, 0);
	v->buf = buf;
	if (n != (ssize_t)v->size)
		verify_found(v, n < 0 ? 0 : (uint64_t)n, NULL, 0);
	else
		verify_segment(v, log);
	free(buf);
	return 0;
}

int64_t vc_log_verify(struct vc_log *log, uint64_t seq, void (*bad)(void *ctx, const struct vc_log_damage *damage), void *ctx,
		      uint64_t *ret_bytes)
{
	struct verify v = { .n = 0 };
	struct log_segment *segment;
	uint64_t found = 0;
	int r;

	vc_mutex_lock(&log->lock);
	segment = verify_choose_locked(log, seq, &v);
	if (segment)
		found = segment->seq;
	vc_mutex_unlock(&log->lock);
	*ret_bytes = v.size;
	if (!found)
		return 0;
	r = verify_read(&v, log, segment, found);
	vc_mutex_lock(&log->lock);
	if (segment->seq != found)
		v.n = 0;
	vc_mutex_unlock(&log->lock);
	for (size_t i = 0; i < v.n; i++)
		bad(ctx, &v.damage[i]);
	return r < 0 ? r : (int64_t)found;
}
