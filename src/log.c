/* SPDX-License-Identifier: BSD-2-Clause */
/* log: life cycle, reading back, sections and figures. The invariants are in log.h. */
#include "config.h"

#include "log_impl.h"

#include <stdio.h>
#include <stdlib.h>

#include "msg.h"

static struct vc_log *log_alloc(const struct vc_log_params *params)
{
	struct vc_log *log = calloc(1, sizeof(*log));

	if (!log)
		return NULL;
	log->p = *params;
	if (!log->p.use_segments)
		log->p.use_segments = params->nsegments;
	vc_mutex_init(&log->lock, VC_LOCK_LOG);
	vc_cond_init(&log->written_cond);
	vc_cond_init(&log->sync_cond);
	vc_cond_init(&log->prep_cond);
	vc_cond_init(&log->applied_cond);
	log->flush_tail = &log->flushes;
	log->next_seq = 1;
	log->dir = strdup(params->dir);
	log->segments = calloc(params->nsegments, sizeof(*log->segments));
	log->ring = calloc(params->nsegments, sizeof(struct log_segment *));
	log->syncs = calloc(params->nsegments, sizeof(*log->syncs));
	if (!log->dir || !log->segments || !log->ring || !log->syncs) {
		vc_log_close(log);
		return NULL;
	}
	return log;
}

int vc_log_create(const struct vc_log_params *params)
{
	struct vc_log *log = log_alloc(params);
	int r = log ? vc_io_mkdir(params->io, params->dir) : -ENOMEM;

	for (uint32_t slot = 0; r == 0 && slot < VC_MIN(params->nsegments, VC_LOG_SEGMENTS_MIN); slot++)
		r = log_segment_make(log, slot);
	vc_log_close(log);
	return r;
}

int vc_log_open(const struct vc_log_params *params, const struct vc_log_replay *replay, struct vc_log_section *current,
		struct vc_log **ret)
{
	struct vc_log *log = log_alloc(params);
	int r;

	if (!log)
		return -ENOMEM;
	log->read_only = replay->read_only;
	log->current = log->oldest = current;
	log->last_lsn = replay->checkpoint_lsn;
	log->next_seq = replay->first_seq;
	r = log_replay(log, replay);
	if (r < 0) {
		vc_log_close(log);
		return r;
	}
	log->current->first_lsn = log->last_lsn + 1;
	log->current->last_lsn = log->last_lsn;
	log->current->first_seq = log->next_seq;
	log->current->last_seq = log->next_seq - 1;
	log->written_lsn = log->last_lsn;
	log->durable_lsn = log->last_lsn;
	atomic_store(&log->written_addr, vc_log_addr(log->next_seq, 0));
	*ret = log;
	return 0;
}

int vc_log_start(struct vc_log *log)
{
	int r;

	if (log->read_only)
		return 0;
	r = vc_thread_start(&log->sync_thread, "vc-log-sync", log_sync_thread, log);
	if (r < 0)
		return r;
	r = vc_thread_start(&log->prep_thread, "vc-log-prep", log_prepare_thread, log);
	if (r < 0) {
		vc_mutex_lock(&log->lock);
		log->stopping = true;
		vc_cond_signal(&log->sync_cond);
		vc_mutex_unlock(&log->lock);
		pthread_join(log->sync_thread, NULL);
		return r;
	}
	log->started = true;
	return 0;
}

int vc_log_stop(struct vc_log *log, bool sync)
{
	int r = 0;

	if (!log || !log->started)
		return 0;
	if (sync)
		r = vc_log_flush_wait(log, 0);
	vc_mutex_lock(&log->lock);
	log->stopping = true;
	vc_cond_signal(&log->sync_cond);
	vc_cond_signal(&log->prep_cond);
	vc_mutex_unlock(&log->lock);
	pthread_join(log->sync_thread, NULL);
	pthread_join(log->prep_thread, NULL);
	log->started = false;
	return r;
}

void vc_log_close(struct vc_log *log)
{
	if (!log)
		return;
	for (uint32_t i = 0; log->segments && i < log->p.nsegments; i++)
		vc_io_close(log->segments[i].file);
	if (log->spare)
		free(log->spare->buf);
	free(log->spare);
	free(log->segments);
	free(log->ring);
	free(log->syncs);
	free(log->dir);
	vc_cond_fini(&log->written_cond);
	vc_cond_fini(&log->sync_cond);
	vc_cond_fini(&log->prep_cond);
	vc_cond_fini(&log->applied_cond);
	vc_mutex_fini(&log->lock);
	free(log);
}

static int log_wait_written(struct vc_log *log, uint64_t addr_end)
{
	int r;

	vc_mutex_lock(&log->lock);
	while (atomic_load(&log->written_addr) < addr_end && !log->failed)
		vc_cond_wait(&log->written_cond, &log->lock);
	r = atomic_load(&log->written_addr) < addr_end ? -EIO : 0;
	vc_mutex_unlock(&log->lock);
	return r;
}

int vc_log_read(struct vc_log *log, uint64_t addr, void *buf, size_t len)
{
	uint64_t seq = addr >> VC_LOG_ADDR_SHIFT, offset = addr & ((UINT64_C(1) << VC_LOG_ADDR_SHIFT) - 1);
	struct log_segment *segment = log->ring[seq % log->p.nsegments];
	ssize_t n;
	int r = 0;

	if (atomic_load(&log->written_addr) < addr + len)
		r = log_wait_written(log, addr + len);
	if (r < 0)
		return r;
	n = vc_io_pread(segment->file, buf, len, offset);
	if (n < 0)
		return (int)n;
	if ((size_t)n < len) {
		vc_err("%s: log segment %llu ends before offset %llu", log->dir, (unsigned long long)seq,
		       (unsigned long long)(offset + len));
		return -EIO;
	}
	return 0;
}

/* ---- sections ---- */

bool vc_log_cut(struct vc_log *log, struct vc_log_section *next)
{
	struct vc_log_section *old;

	vc_mutex_lock(&log->lock);
	old = log->current;
	if (old->last_lsn < old->first_lsn || (log->tail && log_needs_tail_locked(log))) {
		vc_mutex_unlock(&log->lock);
		return false;
	}
	if (log->open)
		log->open->sealed = true;
	log->open = NULL;
	log->tail = NULL;
	next->first_lsn = log->last_lsn + 1;
	next->last_lsn = log->last_lsn;
	next->first_seq = log->next_seq;
	next->last_seq = log->next_seq - 1;
	next->released = false;
	next->next = NULL;
	atomic_store(&next->inflight, 0);
	old->next = next;
	log->current = next;
	vc_mutex_unlock(&log->lock);
	return true;
}

static void log_free_segment_locked(struct vc_log *log, uint64_t seq)
{
	struct log_segment *segment = log->ring[seq % log->p.nsegments];

	log->ring[seq % log->p.nsegments] = NULL;
	segment->seq = 0;
	segment->next_free = log->free_list;
	log->free_list = segment;
	log->nfree++;
}

void vc_log_release(struct vc_log *log, struct vc_log_section *section, void (*gone)(struct vc_log_section *section))
{
	struct vc_log_section *first, *end;

	vc_mutex_lock(&log->lock);
	section->released = true;
	first = log->oldest;
	while (log->oldest->released && log->oldest != log->current) {
		struct vc_log_section *old = log->oldest;

		for (uint64_t seq = old->first_seq; seq <= old->last_seq; seq++)
			log_free_segment_locked(log, seq);
		log->oldest = old->next;
	}
	end = log->oldest;
	vc_mutex_unlock(&log->lock);
	while (first != end) {
		struct vc_log_section *next = first->next;

		gone(first);
		first = next;
	}
	if (log->p.space)
		log->p.space(log->p.ctx);
}

void vc_log_figures(struct vc_log *log, struct vc_log_figures *ret)
{
	vc_mutex_lock(&log->lock);
	*ret = (struct vc_log_figures){
		.last_lsn = log->last_lsn,
		.written_lsn = log->written_lsn,
		.durable_lsn = log->durable_lsn,
		.epoch = log->epoch,
		.bytes = log->p.nsegments * log->p.segment_size,
		.used = (log->nmade - log->nfree) * log->p.segment_size,
		.failed = log->failed != 0,
	};
	int64_t room = log_free_locked(log);
	ret->free_for_data = room > 0 ? (uint64_t)room : 0;
	vc_mutex_unlock(&log->lock);
}

uint64_t vc_log_next_seq(struct vc_log *log)
{
	uint64_t seq;

	vc_mutex_lock(&log->lock);
	seq = log->next_seq;
	vc_mutex_unlock(&log->lock);
	return seq;
}

bool vc_log_failed(struct vc_log *log)
{
	bool failed;

	vc_mutex_lock(&log->lock);
	failed = log->failed != 0;
	vc_mutex_unlock(&log->lock);
	return failed;
}

void vc_log_fail(struct vc_log *log, int error)
{
	vc_mutex_lock(&log->lock);
	log_fail_locked(log, error);
	vc_mutex_unlock(&log->lock);
}
