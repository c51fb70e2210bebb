/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tidy: the thread that merges small overlays in the views of bases.
 *
 * A clone freezes what its source has changed. Merging that with its neighbours keeps reading fast, but takes longer than all the rest of
 * a clone of a busy image; so it is done behind the clone, base by base in the order of their freezing.
 */
#include "config.h"
#include "pool_impl.h"

#include <sched.h>

void vc_pool_tidy(struct vc_pool *pool, struct vc_base *base)
{
	if (!vc_base_is_long(base))
		return;
	vc_mutex_lock(&pool->lock);
	if (!base->tidy_queued) {
		base->tidy_queued = true;
		base->tidy_next = NULL;
		*pool->tidy_tail = vc_base_get(base);
		pool->tidy_tail = &base->tidy_next;
		vc_cond_signal(&pool->tidy_cond);
	}
	vc_mutex_unlock(&pool->lock);
}

static struct vc_base *tidy_take_locked(struct vc_pool *pool)
{
	struct vc_base *base = pool->tidy;

	if (base) {
		pool->tidy = base->tidy_next;
		if (!pool->tidy)
			pool->tidy_tail = &pool->tidy;
		base->tidy_queued = false;
	}
	return base;
}

void *vc_tidy_thread(void *arg)
{
	struct vc_pool *pool = arg;
	struct vc_base *base;
	bool stopping = false;

	(void)pthread_setschedparam(pthread_self(), SCHED_BATCH, &(struct sched_param){ 0 }); /* not at once, at the clone's expense */
	while (!stopping) {
		vc_mutex_lock(&pool->lock);
		while (!pool->tidy && !pool->stopping)
			vc_cond_wait(&pool->tidy_cond, &pool->lock);
		stopping = pool->stopping;
		base = tidy_take_locked(pool);
		vc_mutex_unlock(&pool->lock);
		if (base && !stopping)
			vc_base_tidy(base);
		vc_base_put(base);
	}
	return NULL;
}

void vc_tidy_drop(struct vc_pool *pool)
{
	struct vc_base *base;

	do {
		vc_mutex_lock(&pool->lock);
		base = tidy_take_locked(pool);
		vc_mutex_unlock(&pool->lock);
		vc_base_put(base);
	} while (base);
}
