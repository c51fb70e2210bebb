/* SPDX-License-Identifier: BSD-2-Clause */
/* scrub: one pass at a time: its thread, its pace, its position in POOL/scrub, and the list of what it found. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>

#include "checksum.h"
#include "msg.h"
#include "scrub_impl.h"

#define SCRUB_FOUND_MAX 100000u
#define SCRUB_SAVE_NS UINT64_C(5000000000)
#define SCRUB_BEHIND_NS UINT64_C(200000000) /* time not used that may be made up for */
#define SCRUB_RANGES_MAX 1000000u
#define NS_PER_S UINT64_C(1000000000)

/* ---- pace ---- */

int vc_scrub_pace(struct vc_scrub *s, uint64_t bytes)
{
	struct vc_pool *pool = s->pool;
	bool stop;

	vc_mutex_lock(&pool->lock);
	s->status.done += bytes;
	s->due_ns = VC_MAX(s->due_ns, vc_mono_ns() - SCRUB_BEHIND_NS);
	if (s->status.rate)
		s->due_ns += bytes * NS_PER_S / VC_MAX(s->status.rate, s->rate_min);
	while (!s->stop && !pool->stopping && s->status.rate && vc_mono_ns() < s->due_ns) /* a new rate begins anew */
		(void)!vc_cond_wait_until(&pool->task_cond, &pool->lock, s->due_ns);
	stop = s->stop || pool->stopping;
	vc_mutex_unlock(&pool->lock);
	return stop ? -EINTR : 0;
}

/* ---- what was found ---- */

static bool found_continues(const struct vc_scrub_found *a, const struct vc_scrub_found *b)
{
	return a->ino && a->ino == b->ino && a->kind == b->kind && a->file == b->file && a->offset + a->len == b->offset;
}

void vc_scrub_add(struct vc_scrub *s, const struct vc_scrub_found *found)
{
	vc_mutex_lock(&s->pool->lock);
	if (s->nfound && found_continues(&s->found[s->nfound - 1], found)) {
		s->found[s->nfound - 1].len += found->len;
	} else {
		s->status.found++;
		if (s->nfound < SCRUB_FOUND_MAX && vc_array_room(&s->found, s->nfound, &s->found_cap, sizeof(*s->found)) == 0)
			s->found[s->nfound++] = *found;
	}
	vc_mutex_unlock(&s->pool->lock);
}

size_t vc_scrub_list(struct vc_pool *pool, uint64_t from, struct vc_scrub_found *ret, size_t max)
{
	struct vc_scrub *s = pool->scrub;
	size_t n = 0;

	vc_mutex_lock(&pool->lock);
	for (; s && n < max && from + n < s->nfound; n++)
		ret[n] = s->found[from + n];
	vc_mutex_unlock(&pool->lock);
	return n;
}

/* ---- position ---- */

static uint64_t state_sum(const struct vc_disk_scrub *d, const struct vc_disk_scrub_range *ranges, size_t n)
{
	return vc_sum64(ranges, n * sizeof(*ranges), vc_sum64(d, offsetof(struct vc_disk_scrub, sum), 0));
}

static int state_write(struct vc_pool *pool, const void *bytes, size_t len)
{
	char *tmp = vc_pool_path(pool, "scrub.new"), *path = vc_pool_path(pool, "scrub");
	struct vc_file *file = NULL;
	int r = tmp && path ? vc_io_open(pool->io, tmp, VC_IO_WRITE | VC_IO_CREATE, &file) : -ENOMEM;

	if (r == 0)
		r = vc_io_truncate(file, 0);
	if (r == 0)
		r = vc_io_pwrite(file, bytes, len, 0);
	if (r == 0)
		r = vc_io_datasync(file);
	vc_io_close(file);
	if (r == 0)
		r = vc_io_rename(pool->io, tmp, path);
	free(tmp);
	free(path);
	return r;
}

/* Losing it costs only the position: failures are said and no more. What waits for the start goes on then. */
void vc_scrub_save(struct vc_scrub *s, bool running, bool now)
{
	size_t n = VC_MIN(s->nranges, (size_t)SCRUB_RANGES_MAX), len = sizeof(struct vc_disk_scrub) + n * sizeof(struct vc_disk_scrub_range);
	struct vc_disk_scrub_range *ranges;
	struct vc_disk_scrub *d;

	if (!now && vc_mono_ns() - s->saved_ns < SCRUB_SAVE_NS)
		return;
	s->saved_ns = vc_mono_ns();
	d = calloc(1, len);
	if (!d)
		return;
	ranges = (struct vc_disk_scrub_range *)(d + 1);
	for (size_t i = 0; i < n; i++)
		ranges[i] = (struct vc_disk_scrub_range){ vc_le64_of(s->ranges[i].segno), vc_le64_of(s->ranges[i].from), vc_le64_of(s->ranges[i].to) };
	memcpy(d->uuid, s->pool->disk.uuid, sizeof(d->uuid));
	d->magic = vc_le64_of(VC_MAGIC_SCRUB);
	d->running = vc_le32_of(running);
	d->next_segno = vc_le64_of(s->next_segno);
	d->end_segno = vc_le64_of(s->end_segno);
	d->nranges = vc_le64_of(n);
	vc_mutex_lock(&s->pool->lock);
	d->rate = vc_le64_of(s->status.rate);
	d->done = vc_le64_of(s->status.done);
	d->started_ns = vc_le64_of(s->status.started_ns);
	d->finished_ns = vc_le64_of(s->status.finished_ns);
	vc_mutex_unlock(&s->pool->lock);
	d->sum = vc_le64_of(state_sum(d, ranges, n));
	if (state_write(s->pool, d, len) < 0)
		vc_warn("%s: the position of the scrub was not stored", s->pool->dir);
	free(d);
	vc_mutex_lock(&s->pool->lock);
	s->begun = true;
	vc_cond_broadcast(&s->pool->task_cond);
	vc_mutex_unlock(&s->pool->lock);
}

static bool state_ok(const struct vc_pool *pool, const struct vc_disk_scrub *d, uint64_t size)
{
	uint64_t n = vc_le64_get(d->nranges);

	return size >= sizeof(*d) && vc_le64_get(d->magic) == VC_MAGIC_SCRUB && memcmp(d->uuid, pool->disk.uuid, sizeof(d->uuid)) == 0 &&
	       n <= SCRUB_RANGES_MAX && size == sizeof(*d) + n * sizeof(struct vc_disk_scrub_range) &&
	       vc_le64_get(d->sum) == state_sum(d, (const struct vc_disk_scrub_range *)(d + 1), n);
}

static void state_take(struct vc_scrub *s, const struct vc_disk_scrub *d)
{
	const struct vc_disk_scrub_range *ranges = (const struct vc_disk_scrub_range *)(d + 1);

	s->next_segno = vc_le64_get(d->next_segno);
	s->end_segno = vc_le64_get(d->end_segno);
	s->status.rate = vc_le64_get(d->rate);
	s->status.done = vc_le64_get(d->done);
	s->status.started_ns = vc_le64_get(d->started_ns);
	s->status.finished_ns = vc_le64_get(d->finished_ns);
	for (size_t i = 0; i < vc_le64_get(d->nranges) && vc_array_room(&s->ranges, s->nranges, &s->ranges_cap, sizeof(*s->ranges)) == 0; i++)
		s->ranges[s->nranges++] = (struct scrub_range){ vc_le64_get(ranges[i].segno), vc_le64_get(ranges[i].from),
								vc_le64_get(ranges[i].to) };
}

/* Returns true when a pass was running when the pool was last in use. */
static bool state_read(struct vc_scrub *s)
{
	char *path = vc_pool_path(s->pool, "scrub");
	struct vc_file *file = NULL;
	struct vc_disk_scrub *d = NULL;
	uint64_t size = 0;
	bool running = false;

	if (path && vc_io_open(s->pool->io, path, VC_IO_READ, &file) == 0 && vc_io_size(file, &size) == 0 &&
	    size <= sizeof(*d) + SCRUB_RANGES_MAX * sizeof(struct vc_disk_scrub_range))
		d = calloc(1, VC_MAX((size_t)size, sizeof(*d)));
	if (d && vc_io_pread(file, d, size, 0) == (ssize_t)size && state_ok(s->pool, d, size)) {
		state_take(s, d);
		running = vc_le32_get(d->running) == 1;
	} else if (d) {
		vc_warn("%s: not a position of a scrub: the next one begins anew", path);
	}
	vc_io_close(file);
	free(d);
	free(path);
	return running;
}

/* ---- life ---- */

static void *scrub_thread(void *arg)
{
	struct vc_scrub *s = arg;
	struct vc_pool *pool = s->pool;
	uint64_t found;
	bool closing;
	int r = vc_scrub_run(s);

	vc_mutex_lock(&pool->lock);
	if (r == 0)
		s->status.finished_ns = vc_now_ns();
	closing = pool->stopping && !s->stop;
	found = s->status.found;
	vc_mutex_unlock(&pool->lock);
	if (r == 0) {
		s->next_segno = s->end_segno = 0;
		s->nranges = 0;
	}
	vc_scrub_save(s, r == -EINTR && closing, true);
	if (r == 0)
		vc_msg(found ? VC_MSG_ERR : VC_MSG_INFO, "%s: scrub: all read, %llu things damaged", pool->dir, (unsigned long long)found);
	vc_mutex_lock(&pool->lock);
	s->status.running = false;
	s->status.error = r;
	vc_cond_broadcast(&pool->task_cond);
	vc_mutex_unlock(&pool->lock);
	return NULL;
}

/* Pool lock held; nothing runs. */
static int scrub_launch(struct vc_scrub *s, bool again)
{
	int r;

	if (s->joinable)
		pthread_join(s->thread, NULL);
	if (again || !s->end_segno) {
		s->next_segno = s->end_segno = 0;
		s->nranges = 0;
		s->status.done = 0;
		s->status.started_ns = vc_now_ns();
	}
	s->nfound = 0;
	s->nnodes = 0;
	s->stop = s->begun = false;
	s->status.found = 0;
	s->status.error = 0;
	s->status.id++;
	s->status.running = true;
	r = vc_thread_start(&s->thread, "vc-scrub", scrub_thread, s);
	s->joinable = r == 0;
	s->status.running = r == 0;
	return r;
}

int vc_scrub_start(struct vc_pool *pool, uint64_t rate, bool again)
{
	struct vc_scrub *s = pool->scrub;
	int r = 0;

	if (!s)
		return -EROFS;
	vc_mutex_lock(&pool->lock);
	s->status.rate = rate;
	s->due_ns = 0;
	if (!s->status.running && !pool->stopping)
		r = scrub_launch(s, again);
	vc_cond_broadcast(&pool->task_cond);
	while (r == 0 && s->status.running && !s->begun)
		vc_cond_wait(&pool->task_cond, &pool->lock);
	vc_mutex_unlock(&pool->lock);
	return r;
}

void vc_scrub_stop(struct vc_pool *pool)
{
	struct vc_scrub *s = pool->scrub;

	if (!s)
		return;
	vc_mutex_lock(&pool->lock);
	s->stop = true;
	vc_cond_broadcast(&pool->task_cond);
	vc_mutex_unlock(&pool->lock);
}

void vc_scrub_status(struct vc_pool *pool, struct vc_scrub_status *ret)
{
	*ret = (struct vc_scrub_status){ .id = 0 };
	if (!pool->scrub)
		return;
	vc_mutex_lock(&pool->lock);
	*ret = pool->scrub->status;
	vc_mutex_unlock(&pool->lock);
}

int vc_scrub_open(struct vc_pool *pool)
{
	struct vc_scrub *s = calloc(1, sizeof(*s));
	bool running;

	if (!s)
		return -ENOMEM;
	s->pool = pool;
	running = state_read(s);
	pool->scrub = s;
	return running ? vc_scrub_start(pool, s->status.rate, false) : 0;
}

/* The pool is stopping: what runs is kept to be gone on with. */
void vc_scrub_close(struct vc_pool *pool)
{
	struct vc_scrub *s = pool->scrub;

	if (!s)
		return;
	if (s->joinable)
		pthread_join(s->thread, NULL);
	pool->scrub = NULL;
	free(s->found);
	free(s->ranges);
	free(s->nodes);
	free(s);
}
