/* SPDX-License-Identifier: BSD-2-Clause */
/* crash_drive: processes that take worlds from a common counter. */
#include "config.h"
#include "unit.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "crash_count.h"
#include "crash_drive.h"
#include "io_sim.h"

#define JOBS_MAX 64
#define ALL_COUNTED_FROM 5000 /* so few states need not meet everything */

struct shared {
	_Atomic uint64_t next;
	_Atomic uint64_t world[JOBS_MAX]; /* which one each process is at */
	bool pinned; /* one process alone may run beside other tests, pinned to the same processor */
};

static size_t states_wanted(const struct crash_drive *drive)
{
	const char *given = getenv("VC_TEST_STATES");

	if (!given || !*given)
		return drive->states_default;
	return strcmp(given, "all") == 0 ? SIZE_MAX : strtoull(given, NULL, 0);
}

static unsigned jobs_wanted(void)
{
	const char *given = getenv("VC_TEST_JOBS");
	long n = given && *given ? strtol(given, NULL, 0) : sysconf(_SC_NPROCESSORS_ONLN);

	return (unsigned)VC_MIN(VC_MAX(n, 1L), (long)JOBS_MAX);
}

/* Worlds are met in an order of the seed's: a run that ends early has seen some of everything. */
static uint64_t world_number(const struct crash_drive *drive, uint64_t seed, uint64_t n)
{
	uint64_t step = UINT64_C(1000003); /* prime, and larger than any number of worlds: visits each once */

	return drive->nworlds ? (seed % drive->nworlds + n % drive->nworlds * (step % drive->nworlds)) % drive->nworlds : n;
}

static void work(const struct crash_drive *drive, struct shared *shared, unsigned me, uint64_t seed, size_t want)
{
	while (crash_counted(CRASH_STATES) < want) {
		uint64_t n = atomic_fetch_add(&shared->next, 1), i = world_number(drive, seed, n);

		if (drive->nworlds && n >= drive->nworlds)
			return;
		atomic_store(&shared->world[me], i);
		drive->world(i, seed + i * UINT64_C(0x9e3779b97f4a7c15), want);
	}
}

/* Starting and waking threads of the engine, most of what a small world does, costs twice as much across processors. */
static void stay_on_one_processor(unsigned me)
{
	cpu_set_t all, one;
	int n;

	if (sched_getaffinity(0, sizeof(all), &all) < 0)
		return;
	n = (int)me % CPU_COUNT(&all);
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &all) || n-- > 0)
			continue;
		CPU_ZERO(&one);
		CPU_SET(i, &one);
		(void)sched_setaffinity(0, sizeof(one), &one);
		return;
	}
}

static void start(const struct crash_drive *drive, struct shared *shared, unsigned me, uint64_t seed, size_t want, pid_t *ret)
{
	fflush(NULL);
	*ret = fork();
	assert(*ret >= 0);
	if (*ret)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody is left behind when the test is killed */
	if (shared->pinned)
		stay_on_one_processor(me);
	work(drive, shared, me, seed, want); /* a failure ends in cmocka's report and our exit status */
	_exit(0);
}

static unsigned index_of(const pid_t *pids, unsigned n, pid_t pid)
{
	unsigned i = 0;

	while (i < n && pids[i] != pid)
		i++;
	return i;
}

/* The first failure ends all. */
static bool wait_all(const struct shared *shared, const pid_t *pids, unsigned n)
{
	bool ok = true;

	for (unsigned left = n; left; left--) {
		int status;
		pid_t pid = wait(&status);
		unsigned i = index_of(pids, n, pid);

		assert(pid > 0 && i < n);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
			continue;
		if (ok)
			printf("failed in world %llu; repeat with VC_TEST_WORLD=%llu and the same VC_TEST_SEED, VC_TEST_PART and VC_TEST_STATES (status %#x)\n",
			       (unsigned long long)shared->world[i], (unsigned long long)shared->world[i], (unsigned)status);
		for (unsigned k = 0; ok && k < n; k++)
			if (k != i)
				kill(pids[k], SIGTERM);
		ok = false;
	}
	return ok;
}

void crash_drive(const struct crash_drive *drive)
{
	uint64_t seed = vc_unit_seed(), began = vc_mono_ns();
	const char *world = getenv("VC_TEST_WORLD");
	size_t want = states_wanted(drive);
	unsigned n = jobs_wanted();
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *memory = vc_sim_tmpdir();
	pid_t pids[JOBS_MAX];
	bool ok = true, met;

	assert(shared != MAP_FAILED && memory);
	setenv("VC_TEST_MEMORY", memory, 1); /* a process that fails leaves its simulated disk there */
	shared->pinned = drive->pinned && n > 1;
	crash_count_share();
	if (world && *world) {
		uint64_t i = strtoull(world, NULL, 0);

		drive->world(i, seed + i * UINT64_C(0x9e3779b97f4a7c15), SIZE_MAX);
		n = 0;
	}
	for (unsigned i = 0; i < n; i++)
		start(drive, shared, i, seed, want, &pids[i]);
	if (n)
		ok = wait_all(shared, pids, n);
	if (drive->nworlds)
		printf("%llu of %zu worlds\n", (unsigned long long)VC_MIN(shared->next, (uint64_t)drive->nworlds), drive->nworlds);
	munmap(shared, sizeof(*shared));
	vc_unit_rmdir(memory);
	assert_true(ok);
	met = crash_count_print((double)(vc_mono_ns() - began) / 1e9);
	if (n && crash_counted(CRASH_STATES) >= ALL_COUNTED_FROM)
		assert_true(met);
}
