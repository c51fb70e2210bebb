/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lock: mutexes with a rank.
 *
 * Debug builds keep, per thread, the mutexes it holds; a lock call whose rank is not above all of them
 * aborts with a line that names both ranks. A mutex stays in that list while its holder sleeps on a
 * condition: the thread holds it again before it runs. Any failure of a pthread call here is a bug of
 * the caller, so it aborts in every build: going on would mean data raced.
 */
#include "config.h"
#include "lock.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define NSEC_PER_SEC UINT64_C(1000000000)

static _Noreturn void lock_die(const char *what, int rank, int other)
{
	dprintf(STDERR_FILENO, "lock: %s (rank %d, other %d)\n", what, rank, other);
	abort();
}

static void lock_must(int error, const char *what, const struct vc_mutex *m)
{
	if (error != 0)
		lock_die(what, m ? (int)m->rank : 0, error);
}

#ifdef VC_DEBUG

#define HELD_MAX 64

static _Thread_local struct {
	const struct vc_mutex *mutex[HELD_MAX];
	unsigned n;
} held;

static int held_top_rank(void)
{
	int top = 0;

	for (unsigned i = 0; i < held.n; i++)
		top = VC_MAX(top, (int)held.mutex[i]->rank);
	return top;
}

static unsigned held_find(const struct vc_mutex *m)
{
	unsigned i = held.n;

	while (i > 0 && held.mutex[i - 1] != m)
		i--;
	return i; /* position + 1, 0: not held */
}

static void held_check(const struct vc_mutex *m, bool same_rank_ok)
{
	int top = held_top_rank();

	if (held_find(m))
		lock_die("mutex is held by this thread already", (int)m->rank, top);
	if ((int)m->rank < top || ((int)m->rank == top && !same_rank_ok))
		lock_die("rank is not above that of a mutex held", (int)m->rank, top);
}

static void held_push(const struct vc_mutex *m)
{
	if (held.n == HELD_MAX)
		lock_die("too many mutexes held", (int)m->rank, HELD_MAX);
	held.mutex[held.n++] = m;
}

static void held_pop(const struct vc_mutex *m)
{
	unsigned at = held_find(m);

	if (!at)
		lock_die("mutex is not held by this thread", (int)m->rank, 0);
	for (held.n--; at <= held.n; at++)
		held.mutex[at - 1] = held.mutex[at];
}

void vc_mutex_assert_held(const struct vc_mutex *m)
{
	if (!held_find(m))
		lock_die("mutex should be held here", (int)m->rank, 0);
}

static void mutex_attr(pthread_mutexattr_t *attr)
{
	pthread_mutexattr_settype(attr, PTHREAD_MUTEX_ERRORCHECK);
}

#else

static inline void held_check(const struct vc_mutex *m VC_UNUSED, bool same_rank_ok VC_UNUSED) {}
static inline void held_push(const struct vc_mutex *m VC_UNUSED) {}
static inline void held_pop(const struct vc_mutex *m VC_UNUSED) {}
static inline void mutex_attr(pthread_mutexattr_t *attr VC_UNUSED) {}

void vc_mutex_assert_held(const struct vc_mutex *m VC_UNUSED)
{
}

#endif

void vc_mutex_init(struct vc_mutex *m, enum vc_lock_rank rank)
{
	pthread_mutexattr_t attr;

	m->rank = rank;
	pthread_mutexattr_init(&attr);
	mutex_attr(&attr);
	lock_must(pthread_mutex_init(&m->mutex, &attr), "cannot make a mutex", m);
	pthread_mutexattr_destroy(&attr);
}

void vc_mutex_fini(struct vc_mutex *m)
{
	lock_must(pthread_mutex_destroy(&m->mutex), "mutex destroyed while in use", m);
}

static VC_NO_ANALYSIS void mutex_take(struct vc_mutex *m, bool same_rank_ok)
{
	held_check(m, same_rank_ok);
	lock_must(pthread_mutex_lock(&m->mutex), "cannot lock", m);
	held_push(m);
}

VC_NO_ANALYSIS void vc_mutex_lock(struct vc_mutex *m)
{
	mutex_take(m, false);
}

VC_NO_ANALYSIS void vc_mutex_lock_also(struct vc_mutex *m)
{
	mutex_take(m, true);
}

VC_NO_ANALYSIS void vc_mutex_unlock(struct vc_mutex *m)
{
	held_pop(m);
	lock_must(pthread_mutex_unlock(&m->mutex), "cannot unlock", m);
}

void vc_cond_init(struct vc_cond *c)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	lock_must(pthread_cond_init(&c->cond, &attr), "cannot make a condition", NULL);
	pthread_condattr_destroy(&attr);
}

void vc_cond_fini(struct vc_cond *c)
{
	lock_must(pthread_cond_destroy(&c->cond), "condition destroyed while in use", NULL);
}

void vc_cond_wait(struct vc_cond *c, struct vc_mutex *m)
{
	vc_mutex_assert_held(m);
	lock_must(pthread_cond_wait(&c->cond, &m->mutex), "cannot wait", m);
}

int vc_cond_wait_until(struct vc_cond *c, struct vc_mutex *m, uint64_t deadline_ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(deadline_ns / NSEC_PER_SEC),
		.tv_nsec = (long)(deadline_ns % NSEC_PER_SEC),
	};
	int error;

	vc_mutex_assert_held(m);
	error = pthread_cond_timedwait(&c->cond, &m->mutex, &ts);
	if (error == ETIMEDOUT)
		return -ETIMEDOUT;
	lock_must(error, "cannot wait", m);
	return 0;
}

void vc_cond_signal(struct vc_cond *c)
{
	pthread_cond_signal(&c->cond);
}

void vc_cond_broadcast(struct vc_cond *c)
{
	pthread_cond_broadcast(&c->cond);
}

/* ---- threads ---- */

struct thread_start {
	void *(*fn)(void *);
	void *arg;
	char name[16];
};

static void *thread_main(void *arg)
{
	struct thread_start start = *(struct thread_start *)arg;

	free(arg);
	pthread_setname_np(pthread_self(), start.name);
	return start.fn(start.arg);
}

/* A fault's signal must find its handler, and the kernel kills a process that blocks it. */
static void thread_signals(sigset_t *ret)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT };

	sigfillset(ret);
	for (size_t i = 0; i < VC_ARRAY_LEN(faults); i++)
		sigdelset(ret, faults[i]);
}

int vc_thread_start(pthread_t *ret, const char *name, void *(*fn)(void *), void *arg)
{
	struct thread_start *start = calloc(1, sizeof(*start));
	sigset_t blocked, before;
	int error;

	if (!start)
		return -ENOMEM;
	start->fn = fn;
	start->arg = arg;
	strncpy(start->name, name, sizeof(start->name) - 1);

	thread_signals(&blocked);
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	error = pthread_create(ret, NULL, thread_main, start);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error)
		free(start);
	return -error;
}
