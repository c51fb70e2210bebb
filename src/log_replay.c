/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * log_replay: find where the log ends, and hand every record before that to the pool.
 *
 * Pass 1 walks the chain of batches from the checkpoint and verifies all of it. Where the chain breaks the log ends -
 * unless any whole batch header of the log says that records beyond the break had been durable: then bytes are missing that
 * were promised, and the pool is not opened. Pass 2 hands out the records. A segment that a later recovery continued says
 * in its header where the log before it ended, so stale batches behind that point never count again.
 */
#include "config.h"

#include "log_impl.h"

#include <stdlib.h>

#include "checksum.h"
#include "msg.h"

/* A segment found on disk, and the part of it that counts. */
struct replay_segment {
	uint32_t slot;
	struct vc_disk_log_segment header;
	uint64_t end;      /* offset where its valid batches end */
};

struct replay {
	struct vc_log *log;
	const struct vc_log_replay *how;
	struct replay_segment *found; /* ascending by seq */
	uint32_t nfound;
	uint32_t nchain;              /* of those, in the chain */
	uint8_t *buf;
	uint64_t lsn;                 /* next expected */
	uint64_t hash;                /* chain hash so far */
	uint64_t durable;             /* highest durable LSN told by any valid batch, or known from elsewhere */
	uint64_t last_epoch;
	struct vc_log_section *section; /* of the segment being replayed */
	bool *headless;               /* per slot: no valid segment header, or not that of the batches behind it */
};

static uint64_t segment_seq(const struct replay_segment *s) { return vc_le64_get(s->header.seq); }

static int segment_compare(const void *a, const void *b)
{
	uint64_t x = segment_seq(a), y = segment_seq(b);

	return x < y ? -1 : x > y;
}

static int replay_list_slot(void *ctx, const char *name)
{
	struct vc_log *log = ctx;
	char *end;
	unsigned long slot = strtoul(name, &end, 10);

	if (end != name + 4 || strcmp(end, ".log") != 0)
		return 0;
	if (slot >= log->p.nsegments) {
		vc_err("%s/%s: the pool has no such log segment (it has %u)", log->dir, name, log->p.nsegments);
		return -EUCLEAN;
	}
	log->nmade = VC_MAX(log->nmade, (uint32_t)slot + 1);
	return 0;
}

/*
 * Is the segment's header of another use than its first batch? Then a header that was to be written did not arrive, and what is behind it may
 * belong to the end of the log. (When a crash lost the first batch instead, looking at older ones does no harm.)
 */
static int replay_foreign_header(const struct vc_log *log, const struct replay_segment *s, bool *ret)
{
	struct vc_disk_batch h;
	ssize_t n = vc_io_pread(log->segments[s->slot].file, &h, sizeof(h), VC_LOG_HEADER_SIZE);

	if (n < 0)
		return (int)n;
	*ret = n == sizeof(h) && vc_le32_get(h.magic) == VC_MAGIC_BATCH && vc_le64_get(h.salt) != vc_le64_get(s->header.salt);
	return 0;
}

static int replay_open_slot(struct replay *rp, uint32_t slot)
{
	struct vc_log *log = rp->log;
	struct replay_segment *s = &rp->found[rp->nfound];
	char *path = log_segment_path(log, slot);
	uint64_t size = 0;
	int r = path ? 0 : -ENOMEM;

	if (r == 0)
		r = vc_io_open(log->p.io, path, log->read_only ? VC_IO_READ : VC_IO_WRITE, &log->segments[slot].file);
	if (r == -ENOENT) {
		vc_err("%s: missing; a log segment must not be removed", path);
		r = -EUCLEAN;
	}
	if (r == 0)
		r = vc_io_size(log->segments[slot].file, &size);
	if (r == 0 && size >= sizeof(s->header)) {
		ssize_t n = vc_io_pread(log->segments[slot].file, &s->header, sizeof(s->header), 0);

		r = n < 0 ? (int)n : 0;
		if (r == 0 && log_segment_check(log, &s->header) == -EUCLEAN) {
			vc_err("%s: a log segment of another pool, or of another size", path);
			r = -EUCLEAN;
		} else if (r == 0 && log_segment_check(log, &s->header) == 0) {
			s->slot = slot;
			rp->last_epoch = VC_MAX(rp->last_epoch, vc_le64_get(s->header.epoch));
			rp->nfound += segment_seq(s) >= rp->how->first_seq;
			r = replay_foreign_header(log, s, &rp->headless[slot]);
		} else {
			rp->headless[slot] = true;
		}
	}
	if (r == 0 && size < log->p.segment_size) { /* a file gets its name when it is filled and synced */
		vc_err("%s: truncated: %llu of %llu bytes", path, (unsigned long long)size, (unsigned long long)log->p.segment_size);
		r = -EUCLEAN;
	}
	free(path);
	return r;
}

static int replay_find(struct replay *rp)
{
	struct vc_log *log = rp->log;
	int r = vc_io_list(log->p.io, log->dir, replay_list_slot, log);

	if (r == -ENOENT)
		vc_err("%s: the log of this pool is missing", log->dir);
	for (uint32_t slot = 0; r == 0 && slot < log->nmade; slot++)
		r = replay_open_slot(rp, slot);
	if (r < 0)
		return r;
	qsort(rp->found, rp->nfound, sizeof(*rp->found), segment_compare);
	for (uint32_t i = 1; i < rp->nfound; i++)
		if (segment_seq(&rp->found[i]) == segment_seq(&rp->found[i - 1])) {
			vc_err("%s: two log segments with number %llu", log->dir,
			       (unsigned long long)segment_seq(&rp->found[i]));
			return -EUCLEAN;
		}
	return 0;
}

/* Reads a whole segment into rp->buf; what is missing at the end reads as zeros. */
static int replay_load(struct replay *rp, const struct replay_segment *s)
{
	struct vc_log *log = rp->log;
	ssize_t n = vc_io_pread(log->segments[s->slot].file, rp->buf, log->p.segment_size, 0);

	if (n < 0)
		return (int)n;
	memset(rp->buf + n, 0, log->p.segment_size - (size_t)n);
	return 0;
}

/* A batch header that was written for this use of this segment, wherever it lies. */
static bool replay_header_at(const struct replay *rp, const struct replay_segment *s, uint64_t at,
			     struct vc_disk_batch *ret)
{
	uint64_t size = rp->log->p.segment_size;

	if (at + sizeof(*ret) > size)
		return false;
	memcpy(ret, rp->buf + at, sizeof(*ret));
	return vc_le32_get(ret->magic) == VC_MAGIC_BATCH && vc_le64_get(ret->salt) == vc_le64_get(s->header.salt) &&
		vc_le64_get(ret->epoch) == vc_le64_get(s->header.epoch) &&
		vc_le64_get(ret->sum) == vc_sum64(ret, offsetof(struct vc_disk_batch, sum), 0);
}

static bool replay_records_ok(const struct replay *rp, uint64_t at, const struct vc_disk_batch *h)
{
	const uint8_t *bytes = rp->buf + at + sizeof(*h);
	size_t left = vc_le32_get(h->len);
	uint64_t lsn = vc_le64_get(h->first_lsn), hash = 0;

	for (uint32_t i = 0; i < vc_le32_get(h->nrecords); i++, lsn++) {
		struct vc_disk_record rec;
		size_t len;

		if (vc_record_check(bytes, left, lsn, true, &len) < 0)
			return false;
		memcpy(&rec, bytes, sizeof(rec));
		hash = vc_sum64(&rec.sum, sizeof(rec.sum), hash);
		bytes += len;
		left -= len;
	}
	return left == 0 && hash == vc_le64_get(h->records_hash);
}

/* Walks the valid batches of one loaded segment that lie below `limit` (first LSN of what continues it). */
static void replay_walk(struct replay *rp, struct replay_segment *s, uint64_t limit)
{
	uint64_t at = VC_LOG_HEADER_SIZE;
	struct vc_disk_batch h;

	while (replay_header_at(rp, s, at, &h)) {
		uint64_t len = vc_le32_get(h.len);

		if (vc_le64_get(h.prev_hash) != rp->hash || vc_le64_get(h.first_lsn) != rp->lsn || rp->lsn >= limit ||
		    vc_le32_get(h.nrecords) == 0 || len > rp->log->p.segment_size - at - sizeof(h) ||
		    !replay_records_ok(rp, at, &h))
			break;
		rp->hash = vc_le64_get(h.sum);
		rp->lsn += vc_le32_get(h.nrecords);
		rp->durable = VC_MAX(rp->durable, vc_le64_get(h.durable_lsn));
		at = VC_ROUND_UP(at + sizeof(h) + len, (uint64_t)VC_LOG_ALIGN);
	}
	s->end = at;
}

/* What do batches behind the break know? Only whole headers of this use of the segment are believed. */
static void replay_look_beyond(struct replay *rp, const struct replay_segment *s, uint64_t from, uint64_t limit)
{
	struct vc_disk_batch h;

	for (uint64_t at = from; at + sizeof(h) <= rp->log->p.segment_size; at += VC_LOG_ALIGN)
		if (replay_header_at(rp, s, at, &h) && vc_le64_get(h.first_lsn) < limit)
			rp->durable = VC_MAX(rp->durable, vc_le64_get(h.durable_lsn));
}

/* A slot whose segment header is torn or damaged may still hold batches of its last use. */
static int replay_look_headless(struct replay *rp)
{
	uint64_t size = rp->log->p.segment_size;
	struct vc_disk_batch h;
	int r = 0;

	for (uint32_t slot = 0; slot < rp->log->nmade && r == 0; slot++) {
		struct replay_segment s = { .slot = slot };

		if (!rp->headless[slot])
			continue;
		r = replay_load(rp, &s);
		for (uint64_t at = VC_LOG_HEADER_SIZE; r == 0 && at + sizeof(h) <= size; at += VC_LOG_ALIGN) {
			memcpy(&h, rp->buf + at, sizeof(h));
			if (vc_le32_get(h.magic) == VC_MAGIC_BATCH && vc_le64_get(h.first_lsn) >= rp->lsn &&
			    vc_le64_get(h.sum) == vc_sum64(&h, offsetof(struct vc_disk_batch, sum), 0))
				rp->durable = VC_MAX(rp->durable, vc_le64_get(h.durable_lsn));
		}
	}
	return r;
}

/* Does found[i + 1] continue found[i] where the walk has come to? A recovery may have cut records off the last batch. */
static bool replay_continues(const struct replay *rp, const struct replay_segment *next, uint64_t seq)
{
	return segment_seq(next) == seq + 1 && vc_le64_get(next->header.prev_hash) == rp->hash &&
		vc_le64_get(next->header.first_lsn) <= rp->lsn;
}

static int replay_broken(struct replay *rp, uint32_t i)
{
	struct vc_log *log = rp->log;
	const struct replay_segment *s = i < rp->nfound ? &rp->found[i] : NULL;
	int r = 0;

	for (uint32_t k = i; k < rp->nfound && r == 0; k++) {
		r = replay_load(rp, &rp->found[k]);
		if (r == 0)
			replay_look_beyond(rp, &rp->found[k], k == i && i < rp->nchain ? s->end : VC_LOG_HEADER_SIZE, UINT64_MAX);
	}
	if (r == 0)
		r = replay_look_headless(rp);
	if (r < 0 || rp->durable < rp->lsn)
		return r;
	vc_err("%s: record %llu is damaged or missing (%s %04u.log, offset %llu) but records up to %llu were durable; the pool is not opened. Restore the log, or run vclone check",
	       log->dir, (unsigned long long)rp->lsn, s ? "segment" : "after segment", s ? s->slot : 0,
	       (unsigned long long)(s ? s->end : 0), (unsigned long long)rp->durable);
	return -EBADMSG;
}

/* Pass 1. Sets nchain, the end of each segment, lsn and hash. */
static int replay_verify(struct replay *rp)
{
	uint32_t i = 0;
	int r = 0;

	if (rp->nfound == 0)
		return replay_broken(rp, 0);
	if (segment_seq(&rp->found[0]) != rp->how->first_seq)
		return replay_broken(rp, 0);
	rp->hash = vc_le64_get(rp->found[0].header.prev_hash);
	if (vc_le64_get(rp->found[0].header.first_lsn) != rp->lsn) {
		vc_err("%s/%04u.log: begins with record %llu instead of %llu: not the log of this checkpoint", rp->log->dir,
		       rp->found[0].slot, (unsigned long long)vc_le64_get(rp->found[0].header.first_lsn),
		       (unsigned long long)rp->lsn);
		return -EUCLEAN;
	}
	for (;;) {
		struct replay_segment *s = &rp->found[i], *next = i + 1 < rp->nfound ? s + 1 : NULL;
		bool chained = next && segment_seq(next) == segment_seq(s) + 1;
		uint64_t limit = chained ? vc_le64_get(next->header.first_lsn) : UINT64_MAX;

		r = replay_load(rp, s);
		if (r < 0)
			return r;
		replay_walk(rp, s, limit);
		rp->nchain = i + 1;
		if (!chained || !replay_continues(rp, next, segment_seq(s)))
			return replay_broken(rp, i);
		rp->lsn = limit;
		i++;
	}
}

static int replay_batch_records(struct replay *rp, uint64_t seq, uint64_t at, const struct vc_disk_batch *h, uint64_t limit,
				bool *ret_ended)
{
	uint64_t lsn = vc_le64_get(h->first_lsn), pos = at + sizeof(*h);

	for (uint32_t i = 0; i < vc_le32_get(h->nrecords) && lsn < limit; i++, lsn++) {
		struct vc_disk_record rec;
		int r = rp->how->record(rp->log->p.ctx, lsn, vc_log_addr(seq, pos), rp->buf + pos, lsn <= rp->durable);

		if (r < 0)
			return r;
		if (r > 0) {
			*ret_ended = true;
			return 0;
		}
		rp->log->last_lsn = rp->section->last_lsn = lsn;
		memcpy(&rec, rp->buf + pos, sizeof(rec));
		pos += vc_le32_get(rec.len);
	}
	return 0;
}

static int replay_claim_segment(struct replay *rp, const struct replay_segment *s)
{
	struct vc_log *log = rp->log;
	struct log_segment *segment = &log->segments[s->slot];
	uint64_t seq = segment_seq(s);
	struct vc_log_section *section = rp->how->segment(log->p.ctx, seq);

	if (!section)
		return -ENOMEM;
	segment->seq = seq;
	segment->salt = vc_le64_get(s->header.salt);
	segment->dirty = true;
	log->ring[seq % log->p.nsegments] = segment;
	atomic_store(&log->written_addr, vc_log_addr(seq + 1, 0));
	if (section != rp->section) {
		*section = (struct vc_log_section){ .first_seq = seq, .first_lsn = log->last_lsn + 1, .next = log->current };
		if (rp->section)
			rp->section->next = section;
		else
			log->oldest = section;
		rp->section = section;
	}
	section->last_seq = seq;
	section->last_lsn = log->last_lsn;
	return 0;
}

/*
 * What is not known to be durable may be in the page cache only, and clean there: the kernel forgets a page that it failed to
 * write. So it is written once more before it is synced and counted on. `end_lsn`: first LSN behind the segment.
 */
static int replay_rewrite(struct replay *rp, const struct replay_segment *s, uint64_t end_lsn, bool last)
{
	if (rp->log->read_only || (end_lsn <= rp->durable + 1 && !last))
		return 0;
	return vc_io_pwrite(rp->log->segments[s->slot].file, rp->buf, s->end, 0);
}

/* Pass 2. Stops early when the pool says that a record does not count. */
static int replay_apply(struct replay *rp)
{
	bool ended = false;
	int r = 0;

	rp->hash = 0;
	for (uint32_t i = 0; i < rp->nchain && r == 0 && !ended; i++) {
		struct replay_segment *s = &rp->found[i];
		uint64_t limit = i + 1 < rp->nchain ? vc_le64_get(s[1].header.first_lsn) : UINT64_MAX;
		struct vc_disk_batch h;

		r = replay_load(rp, s);
		if (r < 0)
			break;
		r = replay_claim_segment(rp, s);
		if (r == 0)
			r = replay_rewrite(rp, s, VC_MIN(limit, rp->lsn), i + 1 == rp->nchain);
		rp->log->next_seq = segment_seq(s) + 1;
		rp->hash = vc_le64_get(s->header.prev_hash);
		for (uint64_t at = VC_LOG_HEADER_SIZE; at < s->end && r == 0 && !ended;
		     at = VC_ROUND_UP(at + sizeof(h) + vc_le32_get(h.len), (uint64_t)VC_LOG_ALIGN)) {
			memcpy(&h, rp->buf + at, sizeof(h));
			r = replay_batch_records(rp, segment_seq(s), at, &h, limit, &ended);
			/* A batch of which not one record counts is not part of the chain. */
			if (rp->log->last_lsn >= vc_le64_get(h.first_lsn))
				rp->hash = vc_le64_get(h.sum);
		}
	}
	rp->log->chain = rp->hash;
	return r;
}

/* A whole segment behind the end of the log must not be taken for the one that will carry its number. */
static int replay_erase_stale(struct replay *rp)
{
	static const struct vc_disk_log_segment none;
	struct vc_log *log = rp->log;
	int r = 0;

	for (uint32_t i = 0; i < rp->nfound && r == 0 && !log->read_only; i++) {
		struct log_segment *segment = &log->segments[rp->found[i].slot];

		if (segment->seq)
			continue;
		r = vc_io_pwrite(segment->file, &none, sizeof(none), 0);
		if (r == 0)
			r = vc_io_datasync(segment->file);
	}
	return r;
}

/* Segments outside the chain become free; those of the chain are synced, so that nothing replayed can be lost again. */
static int replay_settle(struct replay *rp)
{
	struct vc_log *log = rp->log;
	int r = log->read_only ? 0 : vc_io_sync_dir(log->p.io, log->dir); /* a name may be as new as what it names */

	for (uint32_t slot = 0; slot < log->nmade && r == 0; slot++) {
		struct log_segment *segment = &log->segments[slot];

		if (segment->seq) {
			segment->dirty = false;
			r = log->read_only ? 0 : vc_io_datasync(segment->file);
			continue;
		}
		segment->next_free = log->free_list;
		log->free_list = segment;
		log->nfree++;
	}
	return r;
}

int log_replay(struct vc_log *log, const struct vc_log_replay *how)
{
	struct replay rp = { .log = log, .how = how, .lsn = how->checkpoint_lsn + 1, .last_epoch = how->epoch,
			     .durable = how->durable_lsn };
	int r;

	rp.found = calloc(log->p.nsegments, sizeof(*rp.found));
	rp.buf = malloc(log->p.segment_size);
	rp.headless = calloc(log->p.nsegments, sizeof(*rp.headless));
	r = rp.found && rp.buf && rp.headless ? replay_find(&rp) : -ENOMEM;
	if (r == 0)
		r = replay_verify(&rp);
	if (r == 0)
		r = replay_apply(&rp);
	if (r == 0)
		r = replay_erase_stale(&rp);
	if (r == 0)
		r = replay_settle(&rp);
	log->epoch = rp.last_epoch + 1;
	free(rp.found);
	free(rp.headless);
	free(rp.buf);
	return r;
}
