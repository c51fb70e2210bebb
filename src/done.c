/* SPDX-License-Identifier: BSD-2-Clause */
/* done: a completion to sleep on. The lock is a leaf: nothing is taken below it. */
#include "config.h"
#include "done.h"

static void wait_complete(struct vc_done *done, int error)
{
	struct vc_wait *w = vc_container_of(done, struct vc_wait, done);

	/* Signalled under the lock: the sleeper may free `w` as soon as it is released. */
	pthread_mutex_lock(&w->lock);
	w->finished = true;
	w->error = error;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

static void wait_fini(struct vc_wait *w)
{
	pthread_cond_destroy(&w->cond);
	pthread_mutex_destroy(&w->lock);
}

void vc_wait_init(struct vc_wait *w)
{
	*w = (struct vc_wait){ .done = { .fn = wait_complete } };
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->cond, NULL);
}

int vc_wait_for(struct vc_wait *w)
{
	pthread_mutex_lock(&w->lock);
	while (!w->finished)
		pthread_cond_wait(&w->cond, &w->lock);
	pthread_mutex_unlock(&w->lock);
	wait_fini(w);
	return w->error;
}

int vc_wait_result(struct vc_wait *w, int started)
{
	if (started < 0) {
		wait_fini(w);
		return started;
	}
	return vc_wait_for(w);
}
