/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_op: requests that are answered later, and queues of jobs with a thread each.
 *
 * Phases of an op that is not light; the second to arrive finishes it, the starter at once, the completion through the
 * finish queue because a completion may not take the locks that answering needs:
 *
 *   NEW --start returned--> STARTED --completed--> queued --> finish()
 *   NEW --completed--> COMPLETED --start returned--> finish()
 */
#include "config.h"
#include "fs_impl.h"

#include <stdlib.h>

enum { OP_NEW, OP_STARTED, OP_COMPLETED };

static void op_job(struct fs_job *job)
{
	struct fs_op *op = vc_container_of(job, struct fs_op, job);

	op->finish(op, op->error);
}

static void op_done(struct vc_done *done, int error)
{
	struct fs_op *op = vc_container_of(done, struct fs_op, done);

	if (op->light) {
		op->finish(op, error);
		return;
	}
	op->error = error;
	if (atomic_exchange(&op->phase, OP_COMPLETED) == OP_STARTED)
		fs_queue_add(&op->fs->finish, &op->job);
}

struct fs_op *fs_op_new(fuse_req_t req, void (*finish)(struct fs_op *op, int error))
{
	struct vc_fs *fs = fs_of(req);
	struct fs_op *op = calloc(1, sizeof(*op));

	if (!op) {
		fuse_reply_err(req, ENOMEM);
		return NULL;
	}
	op->done.fn = op_done;
	op->job.fn = op_job;
	op->fs = fs;
	op->req = req;
	op->finish = finish;
	vc_mutex_lock(&fs->op_lock);
	fs->nops++;
	vc_mutex_unlock(&fs->op_lock);
	return op;
}

void fs_op_free(struct fs_op *op)
{
	struct vc_fs *fs = op->fs;

	if (op->inode)
		vc_inode_put(op->inode);
	if (op->other)
		vc_inode_put(op->other);
	free(op);
	vc_mutex_lock(&fs->op_lock);
	if (--fs->nops == 0)
		vc_cond_broadcast(&fs->op_idle);
	vc_mutex_unlock(&fs->op_lock);
}

void fs_op_started(struct fs_op *op, int r)
{
	if (r < 0)
		op->finish(op, r);
	else if (atomic_exchange(&op->phase, OP_STARTED) == OP_COMPLETED)
		op->finish(op, op->error);
}

void fs_op_reply_err(struct fs_op *op, int error)
{
	fuse_reply_err(op->req, -error);
	fs_op_free(op);
}

/* ---- queues ---- */

static struct fs_job *queue_take_locked(struct fs_queue *q)
{
	struct fs_job *job = q->head;

	q->head = NULL;
	q->tail = &q->head;
	return job;
}

static void queue_run(struct fs_job *job)
{
	while (job) {
		struct fs_job *next = job->next;

		job->fn(job);
		job = next;
	}
}

static void *queue_main(void *arg)
{
	struct fs_queue *q = arg;
	struct fs_job *job;
	uint64_t until;

	for (;;) {
		until = q->idle ? q->idle(q->fs) : UINT64_MAX;
		vc_mutex_lock(&q->lock);
		if (!q->head && !q->stop && !q->woken) {
			if (until == UINT64_MAX)
				vc_cond_wait(&q->cond, &q->lock);
			else
				(void)vc_cond_wait_until(&q->cond, &q->lock, until);
		}
		q->woken = false;
		job = queue_take_locked(q);
		if (!job && q->stop) {
			vc_mutex_unlock(&q->lock);
			return NULL;
		}
		vc_mutex_unlock(&q->lock);
		queue_run(job);
	}
}

int fs_queue_start(struct fs_queue *q, struct vc_fs *fs, const char *name, uint64_t (*idle)(struct vc_fs *fs))
{
	int r;

	vc_mutex_init(&q->lock, VC_LOCK_DONE);
	vc_cond_init(&q->cond);
	q->tail = &q->head;
	q->fs = fs;
	q->idle = idle;
	r = vc_thread_start(&q->thread, name, queue_main, q);
	if (r < 0) {
		vc_cond_fini(&q->cond);
		vc_mutex_fini(&q->lock);
		return r;
	}
	q->started = true;
	return 0;
}

void fs_queue_stop(struct fs_queue *q)
{
	if (!q->started)
		return;
	vc_mutex_lock(&q->lock);
	q->stop = true;
	vc_cond_signal(&q->cond);
	vc_mutex_unlock(&q->lock);
	pthread_join(q->thread, NULL);
	vc_cond_fini(&q->cond);
	vc_mutex_fini(&q->lock);
	q->started = false;
}

void fs_queue_add(struct fs_queue *q, struct fs_job *job)
{
	job->next = NULL;
	vc_mutex_lock(&q->lock);
	*q->tail = job;
	q->tail = &job->next;
	vc_cond_signal(&q->cond);
	vc_mutex_unlock(&q->lock);
}

void fs_queue_wake(struct fs_queue *q)
{
	vc_mutex_lock(&q->lock);
	q->woken = true;
	vc_cond_signal(&q->cond);
	vc_mutex_unlock(&q->lock);
}
