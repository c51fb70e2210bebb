/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Damaged pools (D5): random pools, closed or killed; a bit, a sector, a block, the end or the whole of some file is not what it was; then
 * everything is read, and in a third of the cases written. Each case is a process of its own, so that a signal is a finding like others.
 *
 * VC_TEST_CASES: how many; VC_TEST_THIN; VC_TEST_SEED; VC_TEST_KEEP=DIR: leave damaged pools that were judged wrong there; VC_TEST_MESSAGES: what
 * the engine says.
 */
#include "config.h"
#include "unit.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include "corrupt.h"
#include "engine.h"

#define CASES_DEFAULT 1250
#define CASES_PER_BASE 125
#define CASE_SECONDS 60
#define SHM_MIN (UINT64_C(256) << 20)

static const char *const outcomes[] = { "exact", "refused", "errors", "without what was not flushed", "older log" };

/* Where syncs cost nothing, if there is such a place. */
static char *fast_dir(void)
{
	struct statvfs st;

	if (statvfs("/dev/shm", &st) == 0 && (uint64_t)st.f_bavail * st.f_frsize >= SHM_MIN && access("/dev/shm", W_OK) == 0)
		setenv("TMPDIR", "/dev/shm", 1);
	return vc_unit_tmpdir();
}

static void keep(const struct corrupt_base *base, unsigned long n)
{
	const char *to = getenv("VC_TEST_KEEP");
	char command[1024];

	if (!to)
		return;
	snprintf(command, sizeof(command), "cp -a '%s' '%s/case-%lu'", base->dir, to, n);
	if (system(command) != 0)
		fprintf(stderr, "cannot keep case %lu\n", n);
}

/* In a process of its own. */
static int run_case(const struct corrupt_base *base, const struct corrupt_case *c, bool change, uint64_t seed)
{
	pid_t pid;
	int status;

	fflush(NULL);
	pid = fork();
	assert(pid >= 0);
	if (pid == 0) {
		static const int signals[] = { SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE, SIGALRM };

		for (size_t i = 0; i < VC_ARRAY_LEN(signals); i++)
			signal(signals[i], SIG_DFL);
		alarm(CASE_SECONDS);
		_exit((int)corrupt_judge(base, c, change, seed));
	}
	assert(waitpid(pid, &status, 0) == pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) < CORRUPT_OUTCOMES)
		return WEXITSTATUS(status);
	if (WIFSIGNALED(status))
		fprintf(stderr, "%s: signal %d%s\n", c->text, WTERMSIG(status), WTERMSIG(status) == SIGALRM ? ": does not end" : "");
	else if (WEXITSTATUS(status) != CORRUPT_WRONG)
		fprintf(stderr, "%s: exit status %d\n", c->text, WEXITSTATUS(status));
	return CORRUPT_WRONG;
}

static void run_base(uint64_t *rng, unsigned long first, unsigned long n, unsigned long *counts)
{
	char *dir = fast_dir(), *pool_dir;
	struct corrupt_base base;

	assert_non_null(dir);
	assert_true(asprintf(&pool_dir, "%s/pool", dir) > 0);
	corrupt_base_make(&base, pool_dir, vc_unit_random(rng));
	assert_int_equal(run_case(&base, &(struct corrupt_case){ .text = "nothing damaged" }, false, 0), CORRUPT_EXACT);
	for (unsigned long i = first; i < first + n; i++) {
		uint64_t seed = vc_unit_random(rng), damage = seed;
		struct corrupt_case c;
		bool change = vc_unit_below(rng, 3) == 0;
		int outcome;

		corrupt_damage(&base, &damage, &c);
		outcome = run_case(&base, &c, change, seed);
		counts[outcome]++;
		if (outcome == CORRUPT_WRONG) {
			fprintf(stderr, "^ case %lu, %s, %s\n", i, base.abandoned ? "killed" : "closed", change ? "written to" : "read only");
			corrupt_tree_store(&base.final, pool_dir);
			corrupt_damage(&base, &seed, &c);
			keep(&base, i);
		}
		if (change || outcome == CORRUPT_WRONG)
			corrupt_tree_store(&base.final, pool_dir);
		else
			corrupt_heal(&base, &c);
	}
	corrupt_base_free(&base);
	free(pool_dir);
	vc_unit_rmdir(dir);
}

static void test_random(void **state VC_UNUSED)
{
	const char *given = getenv("VC_TEST_CASES");
	unsigned long cases = given ? strtoul(given, NULL, 0) : CASES_DEFAULT / vc_unit_thin(), counts[CORRUPT_OUTCOMES + 1] = { 0 };
	uint64_t rng = vc_unit_seed();

	for (unsigned long done = 0; done < cases; done += CASES_PER_BASE)
		run_base(&rng, done, VC_MIN(cases - done, (unsigned long)CASES_PER_BASE), counts);
	printf("%lu cases:", cases);
	for (unsigned i = 0; i < CORRUPT_OUTCOMES; i++)
		printf(" %s %lu,", outcomes[i], counts[i]);
	printf(" wrong %lu\n", counts[CORRUPT_WRONG]);
	assert_int_equal(counts[CORRUPT_WRONG], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_random, engine_setup, engine_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
