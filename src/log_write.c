/* SPDX-License-Identifier: BSD-2-Clause */
/* log_write: admission, reservation, batches, the writer's role, and the sync thread. */
#include "config.h"

#include "log_impl.h"

#include <stdlib.h>

#include "checksum.h"
#include "msg.h"

size_t vc_log_record_max(const struct vc_log *log)
{
	return log->p.segment_size - VC_LOG_HEADER_SIZE - sizeof(struct vc_disk_batch) - VC_LOG_ALIGN;
}

/* Records that do not fit the rest of a segment leave it unused: count only what is sure. */
static int64_t log_segment_usable(const struct vc_log *log)
{
	int64_t usable = (int64_t)vc_log_record_max(log);
	int64_t waste = VC_MIN(usable / 4, (int64_t)(LOG_BATCH_BYTES + LOG_BATCH_BYTES / 8));

	return usable - waste;
}

/* What a record costs at most: itself, a batch header of its own, alignment; a long one may leave a segment half used. */
static int64_t log_cost(const struct vc_log *log, size_t len)
{
	int64_t cost = (int64_t)(len + sizeof(struct vc_disk_batch) + VC_LOG_ALIGN);
	int64_t usable = log_segment_usable(log);

	return cost > (int64_t)vc_log_record_max(log) - usable ? cost + usable : cost;
}

/** Bytes that may still be admitted, metadata's part included; negative when over-committed. */
int64_t log_free_locked(const struct vc_log *log)
{
	int64_t segments = (int64_t)log->nfree - (int64_t)LOG_HIDDEN_SEGMENTS;
	int64_t waste = (int64_t)vc_log_record_max(log) - log_segment_usable(log);
	int64_t rest = log->tail ? (int64_t)(log->p.segment_size - log->tail_offset) - waste : 0;

	if (log->open)
		rest -= (int64_t)log->open->len;
	return segments * log_segment_usable(log) + VC_MAX(rest, (int64_t)0) - log->admitted;
}

/** Without the rest of the tail segment, would records that are admitted find no place? */
bool log_needs_tail_locked(const struct vc_log *log)
{
	return log->admitted > (int64_t)log->nfree * log_segment_usable(log);
}

/** Nothing is in the log, or on its way there, that could be released: waiting frees no space. */
bool log_is_idle_locked(const struct vc_log *log)
{
	return log->oldest == log->current && log->current->last_lsn < log->current->first_lsn && log->admitted == 0;
}

int vc_log_admit(struct vc_log *log, enum vc_log_class class, size_t len)
{
	int64_t floor = class == VC_LOG_DATA ? (int64_t)LOG_META_SEGMENTS * log_segment_usable(log) : 0;
	int64_t cost = log_cost(log, len);
	int r = 0;

	if (len > vc_log_record_max(log) || cost > log_segment_usable(log) * (int64_t)(log->p.use_segments - 2))
		return -E2BIG;
	vc_mutex_lock(&log->lock);
	if (log->failed || log->read_only)
		r = -EROFS;
	else if (log_free_locked(log) - floor < cost)
		r = -EAGAIN;
	else
		log->admitted += cost;
	if (r == -EAGAIN && !log->starved) {
		log->starved = true;
		vc_cond_signal(&log->prep_cond);
	}
	if (r == -EAGAIN && log->prep_error && log_is_idle_locked(log))
		r = log->prep_error; /* waiting would be for ever; the next one may find that a segment could be made */
	vc_mutex_unlock(&log->lock);
	return r;
}

void vc_log_unadmit(struct vc_log *log, size_t len)
{
	vc_mutex_lock(&log->lock);
	log->admitted -= log_cost(log, len);
	vc_mutex_unlock(&log->lock);
	if (log->p.space)
		log->p.space(log->p.ctx);
}

void vc_log_shrink_admission(struct vc_log *log, size_t from, size_t to)
{
	vc_mutex_lock(&log->lock);
	log->admitted -= log_cost(log, from) - log_cost(log, to);
	vc_mutex_unlock(&log->lock);
	if (log->p.space)
		log->p.space(log->p.ctx);
}

/* ---- batches ---- */

static void log_batch_free(struct vc_log_batch *batch)
{
	if (batch)
		free(batch->buf);
	free(batch);
}

static struct vc_log_batch *log_batch_new(struct vc_log *log, size_t need)
{
	struct vc_log_batch *batch = log->spare;

	log->spare = NULL;
	if (!batch)
		batch = calloc(1, sizeof(*batch));
	if (batch && batch->cap < need) {
		size_t cap = VC_MAX(need, (size_t)LOG_BATCH_BYTES);

		free(batch->buf);
		batch->buf = malloc(cap);
		batch->cap = batch->buf ? cap : 0;
	}
	if (!batch || !batch->buf) {
		log_batch_free(batch);
		return NULL;
	}
	*batch = (struct vc_log_batch){ .buf = batch->buf, .cap = batch->cap, .len = sizeof(struct vc_disk_batch) };
	batch->done_tail = &batch->done_head;
	return batch;
}

static uint64_t log_batch_end(const struct vc_log_batch *batch)
{
	return VC_ROUND_UP(batch->offset + batch->len, (uint64_t)VC_LOG_ALIGN);
}

static void log_seal_locked(struct vc_log *log)
{
	if (!log->open)
		return;
	log->open->sealed = true;
	log->tail_offset = log_batch_end(log->open);
	log->open = NULL;
}

static int log_next_segment_locked(struct vc_log *log)
{
	struct log_segment *segment = log->free_list;

	if (!segment)
		return -ENOSPC;
	if (vc_random_bytes(&segment->salt, sizeof(segment->salt)) < 0)
		return -EIO;
	log->free_list = segment->next_free;
	log->nfree--;
	segment->seq = log->next_seq++;
	log->ring[segment->seq % log->p.nsegments] = segment;
	log->tail = segment;
	log->tail_offset = VC_LOG_HEADER_SIZE;
	log->current->last_seq = segment->seq;
	vc_cond_signal(&log->prep_cond);
	return 0;
}

static int log_open_batch_locked(struct vc_log *log, size_t len)
{
	size_t need = sizeof(struct vc_disk_batch) + len;
	struct vc_log_batch *batch = log_batch_new(log, need); /* first, since a segment that was taken must be written to */
	bool opens = !log->tail || log->tail_offset + need > log->p.segment_size;
	int r = !batch ? -ENOMEM : opens ? log_next_segment_locked(log) : 0;

	if (r < 0) {
		log_batch_free(batch);
		return r;
	}
	batch->segment = log->tail;
	batch->offset = log->tail_offset;
	batch->opens_segment = opens;
	batch->epoch = log->epoch;
	batch->first_lsn = log->last_lsn + 1;
	if (!log->head) {
		log->head = batch;
	} else {
		struct vc_log_batch *last = log->head;

		while (last->next)
			last = last->next;
		last->next = batch;
	}
	log->open = batch;
	return 0;
}

static bool log_fits(const struct vc_log *log, const struct vc_log_batch *batch, size_t len)
{
	return batch->len + len <= batch->cap && batch->offset + batch->len + len <= log->p.segment_size;
}

int vc_log_reserve(struct vc_log *log, size_t len, struct vc_log_slot *ret)
{
	int r = 0;

	vc_mutex_lock(&log->lock);
	log->admitted -= log_cost(log, len);
	if (log->failed)
		r = -EROFS;
	if (r == 0 && log->open && !log_fits(log, log->open, len))
		log_seal_locked(log);
	if (r == 0 && !log->open) {
		r = log_open_batch_locked(log, len);
		if (r < 0 && r != -ENOMEM) {
			vc_err("%s: no log space for an admitted record of %zu bytes (error %d)", log->dir, len, r);
			log_fail_locked(log, r);
			r = -EROFS;
		}
	}
	if (r == 0) {
		struct vc_log_batch *batch = log->open;

		*ret = (struct vc_log_slot){
			.lsn = ++log->last_lsn,
			.addr = vc_log_addr(batch->segment->seq, batch->offset + batch->len),
			.buf = batch->buf + batch->len,
			.section = log->current,
			.batch = batch,
		};
		batch->len += len;
		batch->nrecords++;
		batch->nfilling++;
		log->current->last_lsn = ret->lsn;
		atomic_fetch_add(&log->current->inflight, 1);
	}
	vc_mutex_unlock(&log->lock);
	return r;
}

void vc_log_applied(struct vc_log *log, struct vc_log_section *section)
{
	if (atomic_fetch_sub(&section->inflight, 1) != 1)
		return;
	vc_mutex_lock(&log->lock);
	if (section != log->current)
		vc_cond_broadcast(&log->applied_cond);
	vc_mutex_unlock(&log->lock);
}

void vc_log_wait_applied(struct vc_log *log, struct vc_log_section *section)
{
	vc_mutex_lock(&log->lock);
	while (atomic_load(&section->inflight) > 0)
		vc_cond_wait(&log->applied_cond, &log->lock);
	vc_mutex_unlock(&log->lock);
}

/* ---- writing ---- */

static void log_call_all(struct vc_done *done, int error)
{
	while (done) {
		struct vc_done *next = done->next;

		done->next = NULL;
		vc_done_call(done, error);
		done = next;
	}
}

static uint64_t log_records_hash(const struct vc_log_batch *batch)
{
	const uint8_t *at = batch->buf + sizeof(struct vc_disk_batch);
	uint64_t hash = 0;

	for (uint32_t i = 0; i < batch->nrecords; i++) {
		struct vc_disk_record rec;

		memcpy(&rec, at, sizeof(rec));
		hash = vc_sum64(&rec.sum, sizeof(rec.sum), hash);
		at += vc_le32_get(rec.len);
	}
	return hash;
}

/*
 * Start writing out what has gathered in the page cache, in whole pages: a flush, or a clone, of one image then does not have to
 * wait for all that other images wrote since the last one.
 */
static void log_push(struct vc_log *log, const struct vc_log_batch *batch)
{
	uint64_t end = VC_ROUND_DOWN(batch->offset + batch->len, (uint64_t)LOG_PAGE);

	if (batch->opens_segment)
		log->pushed = 0;
	if (end < log->pushed + LOG_PUSH_BYTES)
		return;
	vc_io_start_writeback(batch->segment->file, log->pushed, end - log->pushed);
	log->pushed = end;
}

/*
 * Zeros follow to the end of the page: writing a part of a page that is not in memory would read it from the device first. The next batch,
 * which begins in that page, finds it there.
 *
 * A write that found no space has written nothing that counts: it may be made again, to the same place.
 */
static int log_write_at(struct vc_log *log, const struct vc_log_batch *batch, void *bytes, size_t len, uint64_t offset)
{
	static uint8_t zeros[LOG_PAGE];
	uint64_t end = VC_ROUND_UP(offset + len, (uint64_t)LOG_PAGE);
	struct iovec iov[] = { { bytes, len }, { zeros, (size_t)(end - offset - len) } };
	int n = end > offset + len && end <= log->p.segment_size ? 2 : 1;
	int r = vc_io_pwritev(batch->segment->file, iov, n, offset);

	while ((r == -ENOSPC || r == -EDQUOT) && log->p.make_room && log->p.make_room(log->p.ctx))
		r = vc_io_pwritev(batch->segment->file, iov, n, offset);
	return r;
}

/* Only the thread in the writer's role is here; durable_lsn was read under the lock. */
static int log_write_batch(struct vc_log *log, struct vc_log_batch *batch, uint64_t durable_lsn)
{
	struct vc_disk_log_segment header;
	struct vc_disk_batch h = {
		.magic = vc_le32_of(VC_MAGIC_BATCH),
		.nrecords = vc_le32_of(batch->nrecords),
		.epoch = vc_le64_of(batch->epoch),
		.salt = vc_le64_of(batch->segment->salt),
		.first_lsn = vc_le64_of(batch->first_lsn),
		.durable_lsn = vc_le64_of(durable_lsn),
		.prev_hash = vc_le64_of(log->chain),
		.len = vc_le32_of((uint32_t)(batch->len - sizeof(h))),
		.records_hash = vc_le64_of(log_records_hash(batch)),
	};
	int r = 0;

	if (batch->opens_segment) {
		log_segment_header(log, batch->segment, batch->first_lsn, log->chain, &header);
		r = log_write_at(log, batch, &header, sizeof(header), 0);
	}
	h.sum = vc_le64_of(vc_sum64(&h, offsetof(struct vc_disk_batch, sum), 0));
	memcpy(batch->buf, &h, sizeof(h));
	if (r == 0)
		r = log_write_at(log, batch, batch->buf, batch->len, batch->offset);
	if (r == 0)
		log->chain = vc_le64_get(h.sum);
	if (r == 0)
		log_push(log, batch);
	return r;
}

void log_fail_locked(struct vc_log *log, int error)
{
	if (!log->failed) {
		vc_err("%s: the log failed (error %d): the pool accepts no more writes until it is mounted again", log->dir, -error);
		log->failed = -EIO;
	}
	vc_cond_broadcast(&log->written_cond);
	vc_cond_signal(&log->sync_cond);
	vc_cond_signal(&log->prep_cond);
}

static void log_batch_written_locked(struct vc_log *log, struct vc_log_batch *batch, int r)
{
	if (r < 0) {
		log_fail_locked(log, r);
		return;
	}
	batch->segment->dirty = true;
	log->written_lsn = batch->first_lsn + batch->nrecords - 1;
	atomic_store(&log->written_addr, vc_log_addr(batch->segment->seq, log_batch_end(batch)));
	vc_cond_broadcast(&log->written_cond);
}

/* Write what can be written. The lock is held on entry and exit, not while writing or completing. */
static void log_write_locked(struct vc_log *log) VC_REQUIRES(log->lock);
static void log_write_locked(struct vc_log *log)
{
	if (log->writing)
		return;
	log->writing = true;
	while (log->head && log->head->nfilling == 0) {
		struct vc_log_batch *batch = log->head;
		uint64_t durable = log->durable_lsn;
		struct vc_done *done;
		int r = log->failed;

		if (batch == log->open)
			log_seal_locked(log);
		vc_mutex_unlock(&log->lock);
		if (r == 0)
			r = log_write_batch(log, batch, durable);
		vc_mutex_lock(&log->lock);
		log_batch_written_locked(log, batch, r);
		log->head = batch->next;
		done = batch->done_head;
		if (!log->spare && batch->cap == LOG_BATCH_BYTES) {
			log->spare = batch;
			batch = NULL;
		}
		vc_mutex_unlock(&log->lock);
		log_call_all(done, r < 0 ? -EIO : 0);
		log_batch_free(batch);
		vc_mutex_lock(&log->lock);
	}
	log->writing = false;
}

static void log_add_flush_locked(struct vc_log *log, uint64_t lsn, struct vc_done *done)
{
	done->at = lsn;
	done->next = NULL;
	*log->flush_tail = done;
	log->flush_tail = &done->next;
}

void vc_log_submit(struct vc_log *log, const struct vc_log_slot *slot, bool durable, struct vc_done *done)
{
	struct vc_log_batch *batch = slot->batch;
	int failed;

	vc_mutex_lock(&log->lock);
	if (done && durable) {
		log_add_flush_locked(log, slot->lsn, done);
		if (!log->syncing)
			vc_cond_signal(&log->sync_cond);
	} else if (done) {
		done->next = NULL;
		*batch->done_tail = done;
		batch->done_tail = &done->next;
	}
	batch->nfilling--;
	if (!log->writing && batch == log->open)
		log_seal_locked(log);
	log_write_locked(log);
	failed = log->failed;
	vc_mutex_unlock(&log->lock);
	if (failed && log->p.space) /* those who wait for space wait in vain */
		log->p.space(log->p.ctx);
}

static void log_sync_rounds_locked(struct vc_log *log) VC_REQUIRES(log->lock);

void vc_log_flush(struct vc_log *log, uint64_t lsn, bool may_sync, struct vc_done *done)
{
	int r = 0;
	bool now;

	vc_mutex_lock(&log->lock);
	if (lsn == 0)
		lsn = log->last_lsn;
	else if (lsn == VC_LOG_COMPLETED)
		lsn = log->failed ? log->last_lsn : log->written_lsn; /* what could not be written counts as well */
	now = lsn <= log->durable_lsn || log->failed;
	if (lsn > log->durable_lsn && log->failed)
		r = -EIO;
	if (!now)
		log_add_flush_locked(log, lsn, done);
	if (!now && may_sync && !log->syncing && lsn <= log->written_lsn)
		log_sync_rounds_locked(log);
	else if (!now && !log->syncing)
		vc_cond_signal(&log->sync_cond);
	vc_mutex_unlock(&log->lock);
	if (now)
		vc_done_call(done, r);
}

int vc_log_flush_wait(struct vc_log *log, uint64_t lsn)
{
	struct vc_wait wait;

	vc_wait_init(&wait);
	vc_log_flush(log, lsn, false, &wait.done);
	return vc_wait_for(&wait);
}

/* ---- the sync thread ---- */

/* Sync every segment written since the last time; only who has the role does. Files stay: a segment is not released unsynced. */
static int log_sync_segments(struct vc_log *log, const bool *dirty)
{
	int r = 0;

	for (uint32_t i = 0; i < log->p.nsegments && r == 0; i++)
		if (dirty[i])
			r = vc_io_datasync(log->segments[i].file);
	return r;
}

static void log_take_dirty_locked(struct vc_log *log, bool *dirty)
{
	for (uint32_t i = 0; i < log->p.nsegments; i++) {
		dirty[i] = log->segments[i].dirty;
		log->segments[i].dirty = false;
	}
}

/* Flushes of what is durable leave the queue (all of them once the log failed), in order. */
static struct vc_done *log_take_flushes_locked(struct vc_log *log)
{
	struct vc_done **at = &log->flushes, *taken = NULL, **tail = &taken;

	while (*at) {
		struct vc_done *f = *at;

		if (f->at <= log->durable_lsn || log->failed) {
			*at = f->next;
			f->next = NULL;
			*tail = f;
			tail = &f->next;
		} else {
			at = &f->next;
		}
	}
	log->flush_tail = at;
	return taken;
}

static void log_finish_flushes(struct vc_done *flush, uint64_t durable)
{
	while (flush) {
		struct vc_done *next = flush->next;

		vc_done_call(flush, flush->at <= durable ? 0 : -EIO);
		flush = next;
	}
}

/* One sync of what is written. Whoever is here has the role: log->syncing. */
static void log_sync_once_locked(struct vc_log *log) VC_REQUIRES(log->lock);
static void log_sync_once_locked(struct vc_log *log)
{
	uint64_t target = log->written_lsn;
	int r;

	log_take_dirty_locked(log, log->syncs);
	vc_mutex_unlock(&log->lock);
	r = log->p.before_sync ? log->p.before_sync(log->p.ctx) : 0;
	if (r == 0)
		r = log_sync_segments(log, log->syncs);
	vc_mutex_lock(&log->lock);
	if (r < 0)
		log_fail_locked(log, r);
	else
		log->durable_lsn = VC_MAX(log->durable_lsn, target);
}

/*
 * Sync, and complete the flushes that this satisfies. Nobody is in the role; the lock is held on entry and exit. Who comes meanwhile is not told:
 * that is the caller's.
 */
static void log_sync_round_locked(struct vc_log *log) VC_REQUIRES(log->lock);
static void log_sync_round_locked(struct vc_log *log)
{
	struct vc_done *done;
	uint64_t durable;
	int failed;

	log->syncing = true;
	if (!log->failed && log->written_lsn > log->durable_lsn)
		log_sync_once_locked(log);
	log->syncing = false;
	done = log_take_flushes_locked(log);
	durable = log->durable_lsn;
	failed = log->failed;
	vc_mutex_unlock(&log->lock);
	log_finish_flushes(done, durable);
	if (failed && log->p.space)
		log->p.space(log->p.ctx);
	vc_mutex_lock(&log->lock);
}

/* Rounds that a thread makes which has other things to do: waking the sync thread for each would cost as much as the sync. */
#define LOG_ROUNDS_MAX 4

/* The flushes of this thread, and what comes meanwhile for a while; the rest is the sync thread's. */
static void log_sync_rounds_locked(struct vc_log *log)
{
	unsigned int n = 0;

	do
		log_sync_round_locked(log);
	while (++n < LOG_ROUNDS_MAX && log->flushes && !log->syncing && !log->failed && log->flushes->at <= log->written_lsn);
	if ((log->flushes || log->stopping) && !log->syncing)
		vc_cond_signal(&log->sync_cond);
}

/*
 * Waits for flushes; those whose record is written already are satisfied by one sync, the others (their batch is
 * being written this moment) by the next.
 */
void *log_sync_thread(void *arg)
{
	struct vc_log *log = arg;

	vc_mutex_lock(&log->lock);
	while (log->flushes || log->syncing || !log->stopping) {
		if (!log->flushes || log->syncing)
			vc_cond_wait(&log->sync_cond, &log->lock);
		else if (!log->failed && log->written_lsn <= log->durable_lsn && log->flushes->at > log->durable_lsn)
			vc_cond_wait(&log->written_cond, &log->lock);
		else
			log_sync_round_locked(log);
	}
	vc_mutex_unlock(&log->lock);
	return NULL;
}
