/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of lock: mutual exclusion, conditions, threads; in debug builds also that misuse aborts. */
#include "config.h"
#include "unit.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "lock.h"

#ifdef __clang__
#pragma clang diagnostic ignored "-Wthread-safety-analysis" /* misuse is what is tested */
#endif

#define NTHREADS 4
#define NROUNDS 20000

struct shared {
	struct vc_mutex low, high;
	struct vc_cond cond;
	uint64_t count;
	bool go;
};

static void shared_init(struct shared *s)
{
	*s = (struct shared){ .count = 0 };
	vc_mutex_init(&s->low, VC_LOCK_VOLUME);
	vc_mutex_init(&s->high, VC_LOCK_LOG);
	vc_cond_init(&s->cond);
}

static void shared_fini(struct shared *s)
{
	vc_cond_fini(&s->cond);
	vc_mutex_fini(&s->low);
	vc_mutex_fini(&s->high);
}

static void *count_up(void *arg)
{
	struct shared *s = arg;

	vc_mutex_lock(&s->low);
	while (!s->go)
		vc_cond_wait(&s->cond, &s->low);
	vc_mutex_unlock(&s->low);
	for (int i = 0; i < NROUNDS; i++) {
		vc_mutex_lock(&s->low);
		vc_mutex_lock(&s->high);
		s->count++;
		vc_mutex_unlock(&s->low); /* in another order than taken */
		vc_mutex_unlock(&s->high);
	}
	return NULL;
}

static void test_exclusion(void **state VC_UNUSED)
{
	pthread_t threads[NTHREADS];
	struct shared s;

	shared_init(&s);
	for (int i = 0; i < NTHREADS; i++)
		assert_int_equal(vc_thread_start(&threads[i], "counter", count_up, &s), 0);
	vc_mutex_lock(&s.low);
	s.go = true;
	vc_cond_broadcast(&s.cond);
	vc_mutex_unlock(&s.low);
	for (int i = 0; i < NTHREADS; i++)
		pthread_join(threads[i], NULL);
	assert_true(s.count == (uint64_t)NTHREADS * NROUNDS);
	shared_fini(&s);
}

static void test_wait_until(void **state VC_UNUSED)
{
	struct shared s;
	uint64_t start = vc_mono_ns(), deadline = start + 30 * 1000000;

	shared_init(&s);
	vc_mutex_lock(&s.low);
	while (vc_cond_wait_until(&s.cond, &s.low, deadline) == 0)
		assert_true(vc_mono_ns() < deadline + UINT64_C(10000000000));
	assert_true(vc_mono_ns() >= deadline);
	vc_mutex_assert_held(&s.low);
	assert_int_equal(vc_cond_wait_until(&s.cond, &s.low, 0), -ETIMEDOUT);
	vc_mutex_unlock(&s.low);
	shared_fini(&s);
}

struct seen {
	sigset_t mask;
	char name[16];
	void *arg;
};

static void *look_around(void *arg)
{
	struct seen *seen = arg;

	pthread_sigmask(SIG_SETMASK, NULL, &seen->mask);
	pthread_getname_np(pthread_self(), seen->name, sizeof(seen->name));
	seen->arg = arg;
	return seen;
}

static void test_thread(void **state VC_UNUSED)
{
	struct seen seen = { .arg = NULL };
	sigset_t none, after;
	pthread_t thread;
	void *result;

	sigemptyset(&none);
	pthread_sigmask(SIG_SETMASK, &none, NULL);
	assert_int_equal(vc_thread_start(&thread, "a-name-too-long-for-it", look_around, &seen), 0);
	assert_int_equal(pthread_join(thread, &result), 0);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	assert_ptr_equal(result, &seen);
	assert_ptr_equal(seen.arg, &seen);
	assert_string_equal(seen.name, "a-name-too-long");
	assert_int_equal(sigismember(&seen.mask, SIGTERM), 1);
	assert_int_equal(sigismember(&seen.mask, SIGUSR1), 1);
	assert_int_equal(sigismember(&seen.mask, SIGCHLD), 1);
	assert_int_equal(sigismember(&seen.mask, SIGBUS), 0);
	assert_int_equal(sigismember(&after, SIGTERM), 0); /* the caller's mask is as it was */
}

#ifdef VC_DEBUG

static void lower_after_higher(struct shared *s)
{
	vc_mutex_lock(&s->high);
	vc_mutex_lock(&s->low);
}

static void same_rank(struct shared *s)
{
	struct vc_mutex other;

	vc_mutex_init(&other, VC_LOCK_VOLUME);
	vc_mutex_lock(&s->low);
	vc_mutex_lock(&other);
}

static void also_below(struct shared *s)
{
	vc_mutex_lock(&s->high);
	vc_mutex_lock_also(&s->low);
}

static void twice(struct shared *s)
{
	vc_mutex_lock(&s->low);
	vc_mutex_lock_also(&s->low);
}

static void unlock_foreign(struct shared *s)
{
	vc_mutex_unlock(&s->low);
}

static void assert_not_held(struct shared *s)
{
	vc_mutex_lock(&s->high);
	vc_mutex_assert_held(&s->low);
}

static void wait_not_held(struct shared *s)
{
	vc_cond_wait(&s->cond, &s->low);
}

static void lower_after_out_of_order_unlock(struct shared *s)
{
	vc_mutex_lock(&s->low);
	vc_mutex_lock(&s->high);
	vc_mutex_unlock(&s->low);
	vc_mutex_lock(&s->low);
}

/* How a child that runs `fn` ends: 0 or the signal. */
static int signal_of(void (*fn)(struct shared *s))
{
	struct rlimit no_core = { 0, 0 };
	struct shared s;
	int status;
	pid_t pid;

	shared_init(&s);
	pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		setrlimit(RLIMIT_CORE, &no_core);
		signal(SIGABRT, SIG_DFL);
		dup2(null, STDERR_FILENO);
		alarm(20); /* a deadlock is not an abort */
		fn(&s);
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	shared_fini(&s);
	return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

static void allowed(struct shared *s)
{
	struct vc_mutex other;

	vc_mutex_init(&other, VC_LOCK_VOLUME);
	vc_mutex_lock(&s->low);
	vc_mutex_lock_also(&other);
	vc_mutex_lock(&s->high);
	vc_mutex_assert_held(&other);
	vc_mutex_unlock(&s->low);
	vc_mutex_unlock(&s->high);
	vc_mutex_unlock(&other);
	vc_mutex_lock(&s->low);
	vc_mutex_unlock(&s->low);
	vc_mutex_fini(&other);
}

static void test_misuse_aborts(void **state VC_UNUSED)
{
	assert_int_equal(signal_of(allowed), 0);
	assert_int_equal(signal_of(lower_after_higher), SIGABRT);
	assert_int_equal(signal_of(same_rank), SIGABRT);
	assert_int_equal(signal_of(also_below), SIGABRT);
	assert_int_equal(signal_of(twice), SIGABRT);
	assert_int_equal(signal_of(unlock_foreign), SIGABRT);
	assert_int_equal(signal_of(assert_not_held), SIGABRT);
	assert_int_equal(signal_of(wait_not_held), SIGABRT);
	assert_int_equal(signal_of(lower_after_out_of_order_unlock), SIGABRT);
}

#else

static void test_misuse_aborts(void **state VC_UNUSED)
{
	print_message("needs configure --enable-debug\n");
	skip();
}

#endif

/* Ranks are per thread: what another one holds is no concern. */
static void *lock_low(void *arg)
{
	struct shared *s = arg;

	vc_mutex_lock(&s->low);
	vc_mutex_unlock(&s->low);
	return NULL;
}

static void test_ranks_per_thread(void **state VC_UNUSED)
{
	struct shared s;
	pthread_t thread;

	shared_init(&s);
	vc_mutex_lock(&s.high);
	assert_int_equal(vc_thread_start(&thread, "low", lock_low, &s), 0);
	pthread_join(thread, NULL);
	vc_mutex_unlock(&s.high);
	shared_fini(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exclusion),
		cmocka_unit_test(test_wait_until),
		cmocka_unit_test(test_thread),
		cmocka_unit_test(test_misuse_aborts),
		cmocka_unit_test(test_ranks_per_thread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
