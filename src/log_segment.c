/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * log_segment: the files of the log. Files are slots `%04u.log`, made once (as `%04u.log.new`, zero-filled, synced, renamed), reused for ever; a segment is one use
 * of a slot, known by the sequence number and salt in its header.
 */
#include "config.h"

#include "log_impl.h"

#include <stdio.h>
#include <stdlib.h>

#include "checksum.h"
#include "msg.h"

#define LOG_ZERO_STEP (1u << 20)
#define LOG_READY_SEGMENTS 3u

static bool log_is_idle(struct vc_log *log)
{
	bool idle;

	vc_mutex_lock(&log->lock);
	idle = log_is_idle_locked(log);
	vc_mutex_unlock(&log->lock);
	return idle;
}

char *log_segment_path(const struct vc_log *log, uint32_t slot)
{
	char *path;

	return asprintf(&path, "%s/%04u.log", log->dir, slot) < 0 ? NULL : path;
}

static int log_segment_fill(struct vc_log *log, struct vc_file *file)
{
	uint8_t *zeros = calloc(1, LOG_ZERO_STEP);
	uint64_t size = log->p.segment_size;
	int r = zeros ? 0 : -ENOMEM;

	for (uint64_t at = 0; r == 0 && at < size; at += LOG_ZERO_STEP)
		r = vc_io_pwrite(file, zeros, VC_MIN(size - at, (uint64_t)LOG_ZERO_STEP), at);
	if (r == 0)
		r = vc_io_datasync(file);
	free(zeros);
	return r;
}

/* Under a name that replay does not look at, until every byte of it is on the disk. */
static int log_segment_make_file(struct vc_log *log, const char *path, const char *unfinished)
{
	struct vc_file *file = NULL;
	int r = vc_io_open(log->p.io, unfinished, VC_IO_WRITE | VC_IO_CREATE, &file);

	if (r < 0)
		return r;
	r = log_segment_fill(log, file);
	vc_io_close(file);
	if (r == 0)
		r = vc_io_rename(log->p.io, unfinished, path);
	/* It takes space, and after a failed sync nothing of it is certain. */
	if (r < 0 && vc_io_unlink(log->p.io, unfinished) < 0)
		vc_warn("%s: an unfinished log segment that cannot be removed", unfinished);
	return r;
}

static int log_segment_make_named(struct vc_log *log, const char *path, struct vc_file **ret_file)
{
	char *unfinished;
	int r = asprintf(&unfinished, "%s.new", path) < 0 ? -ENOMEM : 0;

	if (r == 0) {
		r = log_segment_make_file(log, path, unfinished);
		free(unfinished);
	}
	if (r < 0)
		return r;
	r = vc_io_sync_dir(log->p.io, log->dir);
	if (r == 0)
		r = vc_io_open(log->p.io, path, VC_IO_WRITE, ret_file);
	if (r < 0 && vc_io_unlink(log->p.io, path) < 0)
		vc_warn("%s: a log segment that is not used cannot be removed", path);
	return r;
}

int log_segment_make(struct vc_log *log, uint32_t slot)
{
	struct log_segment *segment = &log->segments[slot];
	char *path = log_segment_path(log, slot);
	struct vc_file *file = NULL;
	int r = path ? log_segment_make_named(log, path, &file) : -ENOMEM;

	free(path);
	if (r < 0)
		return r;
	vc_mutex_lock(&log->lock);
	segment->file = file;
	segment->seq = 0;
	segment->next_free = log->free_list;
	log->free_list = segment;
	log->nfree++;
	log->nmade = VC_MAX(log->nmade, slot + 1);
	log->starved = false;
	log->prep_error = 0;
	vc_mutex_unlock(&log->lock);
	return 0;
}

void log_segment_header(const struct vc_log *log, const struct log_segment *segment, uint64_t first_lsn,
			uint64_t prev_hash, struct vc_disk_log_segment *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->magic = vc_le64_of(VC_MAGIC_LOG);
	memcpy(ret->uuid, log->p.uuid, sizeof(ret->uuid));
	ret->seq = vc_le64_of(segment->seq);
	ret->epoch = vc_le64_of(log->epoch);
	ret->salt = vc_le64_of(segment->salt);
	ret->first_lsn = vc_le64_of(first_lsn);
	ret->prev_hash = vc_le64_of(prev_hash);
	ret->size = vc_le64_of(log->p.segment_size);
	ret->created_ns = vc_le64_of(vc_now_ns());
	ret->sum = vc_le64_of(vc_sum64(ret, offsetof(struct vc_disk_log_segment, sum), 0));
}

/** 0: a segment header of this log. -ENOENT: never used, or torn. -EUCLEAN: whole, but of another log. */
int log_segment_check(const struct vc_log *log, const struct vc_disk_log_segment *h)
{
	if (vc_le64_get(h->magic) != VC_MAGIC_LOG ||
	    vc_le64_get(h->sum) != vc_sum64(h, offsetof(struct vc_disk_log_segment, sum), 0))
		return -ENOENT;
	if (memcmp(h->uuid, log->p.uuid, sizeof(h->uuid)) != 0 || vc_le64_get(h->size) != log->p.segment_size ||
	    vc_le64_get(h->seq) == 0 || !vc_reserved_ok(h->reserved, sizeof(h->reserved)))
		return -EUCLEAN;
	return 0;
}

/* The log stays as it is until somebody wants more of it again. Said once. */
static void log_prepare_failed(struct vc_log *log, uint32_t slot, int r)
{
	bool first;

	vc_mutex_lock(&log->lock);
	first = log->prep_error == 0;
	log->prep_error = r == -ENOSPC || r == -EDQUOT ? -ENOSPC : -EIO;
	log->starved = false;
	vc_mutex_unlock(&log->lock);
	if (first)
		vc_warn("%s: cannot add a log segment; going on with %u", log->dir, slot);
}

/* Makes segments ahead of use and for requests that wait, until the log has all it may have. A failure (disk full) leaves the log smaller. */
void *log_prepare_thread(void *arg)
{
	struct vc_log *log = arg;
	bool gave_up = false;
	int r;

	vc_mutex_lock(&log->lock);
	while (!log->stopping) {
		uint32_t slot = log->nmade;

		if (gave_up || slot >= log->p.use_segments || (log->nfree >= LOG_READY_SEGMENTS && !log->starved) || log->failed) {
			vc_cond_wait(&log->prep_cond, &log->lock);
			gave_up = false;
			continue;
		}
		vc_mutex_unlock(&log->lock);
		r = log_segment_make(log, slot);
		gave_up = r < 0;
		if (gave_up)
			log_prepare_failed(log, slot, r);
		if (log->p.space && (!gave_up || log_is_idle(log)))
			log->p.space(log->p.ctx);
		vc_mutex_lock(&log->lock);
	}
	vc_mutex_unlock(&log->lock);
	return NULL;
}

/* ---- looking at a log that is not open ---- */

struct log_each {
	struct vc_log *log; /* only its parameters */
	int (*fn)(void *ctx, const struct vc_disk_log_segment *header);
	void *ctx;
};

static int log_each_slot(void *ctx, const char *name)
{
	struct log_each *e = ctx;
	struct vc_disk_log_segment header;
	struct vc_file *file;
	ssize_t n;
	char *end, *path;
	int r;

	(void)strtoul(name, &end, 10);
	if (end != name + 4 || strcmp(end, ".log") != 0)
		return 0;
	path = vc_path_of(e->log->p.dir, name);
	if (!path)
		return -ENOMEM;
	r = vc_io_open(e->log->p.io, path, VC_IO_READ, &file);
	if (r == 0) {
		n = vc_io_pread(file, &header, sizeof(header), 0);
		vc_io_close(file);
		r = n < 0 ? (int)n : n < (ssize_t)sizeof(header) ? -ENOENT : log_segment_check(e->log, &header);
		if (r == -EUCLEAN)
			vc_err("%s: a log segment of another pool, or of another size", path);
	}
	free(path);
	return r == -ENOENT ? 0 : r < 0 ? r : e->fn(e->ctx, &header);
}

int vc_log_each_segment(const struct vc_log_params *params, int (*fn)(void *ctx, const struct vc_disk_log_segment *header), void *ctx)
{
	struct vc_log *log = calloc(1, sizeof(*log));
	struct log_each each = { .log = log, .fn = fn, .ctx = ctx };
	int r;

	if (!log)
		return -ENOMEM;
	log->p = *params;
	r = vc_io_list(params->io, params->dir, log_each_slot, &each);
	if (r == -ENOENT)
		vc_err("%s: the log of this pool is missing", params->dir);
	free(log);
	return r;
}
