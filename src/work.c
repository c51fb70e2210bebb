/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * work: jobs on the stacks of their callers, in a list; threads take the next piece of the first job that has any left.
 *
 * A job leaves the list with its last piece handed out, and its caller with the last piece done.
 */
#include "config.h"
#include "work.h"

#include <sched.h>
#include <stdlib.h>

#include "list.h"
#include "lock.h"

struct work_job {
	struct vc_list node; /* in workers->jobs, while pieces are left */
	void (*fn)(void *ctx, size_t i);
	void *ctx;
	size_t n, next, done;
	struct vc_cond finished;
};

struct vc_workers {
	struct vc_mutex lock; /* VC_LOCK_WORK: everything below, and the fields of jobs */
	struct vc_cond wanted;
	struct vc_list jobs;
	size_t idle;          /* threads that wait */
	bool stopping;
	unsigned int nthreads;
	pthread_t threads[VC_WORKERS_MAX];
};

/* Do one piece of the job, which has one left. The lock is given up meanwhile. */
static void work_piece_locked(struct vc_workers *workers, struct work_job *job) VC_REQUIRES(workers->lock);
static void work_piece_locked(struct vc_workers *workers, struct work_job *job)
{
	size_t i = job->next++;

	if (job->next == job->n)
		vc_list_del(&job->node);
	vc_mutex_unlock(&workers->lock);
	job->fn(job->ctx, i);
	vc_mutex_lock(&workers->lock);
	if (++job->done == job->n)
		vc_cond_signal(&job->finished);
}

static void *work_thread(void *arg)
{
	struct vc_workers *workers = arg;

	vc_mutex_lock(&workers->lock);
	while (!workers->stopping) {
		if (!vc_list_empty(&workers->jobs)) {
			work_piece_locked(workers, vc_list_entry(workers->jobs.next, struct work_job, node));
			continue;
		}
		workers->idle++;
		vc_cond_wait(&workers->wanted, &workers->lock);
		workers->idle--;
	}
	vc_mutex_unlock(&workers->lock);
	return NULL;
}

unsigned int vc_work_processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned int)CPU_COUNT(&set) : 1;
}

struct vc_workers *vc_workers_new(void)
{
	struct vc_workers *workers = calloc(1, sizeof(*workers));
	unsigned int want = VC_MIN(vc_work_processors() - 1, (unsigned int)VC_WORKERS_MAX);

	if (!workers)
		return NULL;
	vc_mutex_init(&workers->lock, VC_LOCK_WORK);
	vc_cond_init(&workers->wanted);
	vc_list_init(&workers->jobs);
	while (workers->nthreads < want &&
	       vc_thread_start(&workers->threads[workers->nthreads], "vc-work", work_thread, workers) == 0)
		workers->nthreads++;
	return workers;
}

void vc_workers_free(struct vc_workers *workers)
{
	if (!workers)
		return;
	vc_mutex_lock(&workers->lock);
	workers->stopping = true;
	vc_cond_broadcast(&workers->wanted);
	vc_mutex_unlock(&workers->lock);
	for (unsigned int i = 0; i < workers->nthreads; i++)
		pthread_join(workers->threads[i], NULL);
	vc_cond_fini(&workers->wanted);
	vc_mutex_fini(&workers->lock);
	free(workers);
}

unsigned int vc_workers_count(const struct vc_workers *workers)
{
	return workers ? workers->nthreads : 0;
}

void vc_work_run(struct vc_workers *workers, size_t n, void (*fn)(void *ctx, size_t i), void *ctx)
{
	struct work_job job = { .fn = fn, .ctx = ctx, .n = n };

	if (vc_workers_count(workers) == 0 || n < 2) {
		for (size_t i = 0; i < n; i++)
			fn(ctx, i);
		return;
	}
	vc_cond_init(&job.finished);
	vc_mutex_lock(&workers->lock);
	vc_list_add_tail(&workers->jobs, &job.node);
	for (size_t i = 0; i < VC_MIN(n - 1, workers->idle); i++)
		vc_cond_signal(&workers->wanted);
	while (job.next < n)
		work_piece_locked(workers, &job);
	while (job.done < n)
		vc_cond_wait(&job.finished, &workers->lock);
	vc_mutex_unlock(&workers->lock);
	vc_cond_fini(&job.finished);
}
