/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs tests/fsx/fsx on the engine in this process: one thread, several, and clones of what is being written. The mount has
 * its turn in tests/mount/fsx.sh.
 *
 * VC_TEST_SEED: of all runs. VC_TEST_FSX_SECONDS: of each.
 */
#include "config.h"
#include "unit.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SECONDS_DEFAULT "4"
#else
#define SECONDS_DEFAULT "7"
#endif

/* The program lies beside this one's directory. */
static void fsx_path(char *buf, size_t len)
{
	ssize_t n = readlink("/proc/self/exe", buf, len - 1);

	assert_true(n > 0);
	buf[n] = '\0';
	for (int i = 0; i < 2; i++)
		*strrchr(buf, '/') = '\0';
	assert_true(strlen(buf) + 9 < len);
	strcat(buf, "/fsx/fsx");
}

static void fsx_run(const char *threads, const char *mode)
{
	const char *seconds = getenv("VC_TEST_FSX_SECONDS");
	char path[PATH_MAX], seed[24];
	uint64_t n = vc_unit_seed();
	int status;
	pid_t pid;

	fsx_path(path, sizeof(path));
	snprintf(seed, sizeof(seed), "%llu", (unsigned long long)(n & 0xffffffff));
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		execl(path, "fsx", "-T", seconds ? seconds : SECONDS_DEFAULT, "-S", seed, "-t", threads, mode, (char *)NULL);
		perror(path);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_one_thread(void **state)
{
	(void)state;
	fsx_run("1", NULL);
}

static void test_threads(void **state)
{
	(void)state;
	fsx_run("4", NULL);
}

static void test_clones_of_written(void **state)
{
	(void)state;
	fsx_run("3", "-c");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_thread),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_clones_of_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
