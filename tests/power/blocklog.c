/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * blocklog: a pool on a real file system of the kernel, whose disk writes down what happens to it; then power cuts at any place
 * of that history: the kernel mounts what is left, the pool recovers, and must hold what it promised (crash_run.h says
 * how that is known). blocklog.sh makes the disk and calls this.
 *
 *   blocklog DIR FSTYPE LOOP PID
 *
 *   DIR/mnt     the file system on the recorded disk: device LOOP, served by process PID, which is ended to complete the log
 *   DIR/before  the disk as it was before it was mounted
 *   DIR/log     the log of blklogwrites
 *   DIR/state   where disks are mounted after the cut
 *
 *   VC_TEST_SEED, VC_BLOCKLOG_STEPS (operations), VC_BLOCKLOG_STATES (cuts), VC_BLOCKLOG_ONLY (number of the one cut to make)
 */
#include "config.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/loop.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "check.h"
#include "crash_run.h"
#include "engine.h"
#include "powerstate.h"

#define STEPS 350
#define STATES 100
#define FINDINGS_MAX 3
#define REFUSED_PART 50 /* more than one state in so many: something else is wrong */
#define END_TIMEOUT_MS 30000
#define DESTAGE_MS 100

struct blocklog {
	const char *dir, *type, *loop;
	pid_t server;
	char mnt[PATH_MAX], state[PATH_MAX], log_path[PATH_MAX];
	int log_fd;
	struct crash_run *run;
	struct blklog log;
	struct memdisk base;    /* at the last flush before the cut */
	size_t done;            /* entries in it */
	unsigned refused;       /* states that the file system itself could not mount */
};

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "blocklog: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- the history ---- */

static size_t log_length(void *ctx)
{
	struct blocklog *b = ctx;
	struct stat st;

	must(fstat(b->log_fd, &st) == 0, "the log");
	return (size_t)st.st_size;
}

/* Now and then the kernel writes back in its own order. */
static void sync_kernel(struct blocklog *b)
{
	int fd = open(b->mnt, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	must(fd >= 0 && syncfs(fd) == 0, "syncfs");
	close(fd);
}

static void record(struct blocklog *b, uint64_t seed)
{
	char pool[PATH_MAX + 8];
	struct crash_disk disk = { .io = vc_io_posix(), .dir = pool, .now = log_length, .ctx = b };
	uint64_t rng = seed, steps = number("VC_BLOCKLOG_STEPS", STEPS);

	snprintf(pool, sizeof(pool), "%s/pool", b->mnt);
	b->log_fd = open(b->log_path, O_RDONLY | O_CLOEXEC);
	must(b->log_fd >= 0, b->log_path);
	b->run = crash_run_new_on(&disk, seed, DESTAGE_MS);
	for (uint64_t i = 0; i < steps; i++) {
		crash_run_step(b->run);
		if (vc_unit_below(&rng, 50) == 0)
			sync_kernel(b);
	}
	crash_run_stop(b->run);
}

/* Unmount, let go of the disk, and wait until its server has completed the log. */
static void finish_recording(struct blocklog *b)
{
	int pidfd = (int)syscall(SYS_pidfd_open, b->server, 0), loop = open(b->loop, O_RDWR | O_CLOEXEC);
	struct pollfd poll_end = { .fd = pidfd, .events = POLLIN };

	must(pidfd >= 0 && loop >= 0, "the recorded disk");
	must(umount2(b->mnt, 0) == 0, b->mnt);
	must(ioctl(loop, LOOP_CLR_FD) == 0, b->loop);
	close(loop);
	must(kill(b->server, SIGTERM) == 0, "the server of the disk");
	must(poll(&poll_end, 1, END_TIMEOUT_MS) == 1, "the server of the disk does not end");
	close(pidfd);
	blklog_open(&b->log, b->log_path);
}

/* ---- cuts ---- */

/* The number of the first entry that begins at or after place `at` of the log. */
static size_t entry_at(const struct blklog *log, size_t at)
{
	size_t i = 0;

	while (i < log->n && log->entries[i].end <= at)
		i++;
	return i;
}

static int by_place(const void *a, const void *b)
{
	const struct power_cut *x = a, *y = b;

	return (x->at > y->at) - (x->at < y->at);
}

/* One in three exactly at a FLUSH. In order of place. */
static struct power_cut *choose_cuts(struct blocklog *b, uint64_t *rng, size_t n)
{
	struct power_cut *cuts = calloc(n, sizeof(*cuts));
	size_t first = entry_at(&b->log, b->run->first_event);

	must(cuts && first < b->log.n, "an empty log");
	for (size_t i = 0; i < n; i++) {
		cuts[i] = (struct power_cut){ .at = first + 1 + vc_unit_below(rng, b->log.n - first), .seed = vc_unit_random(rng) };
		cuts[i].keep = (enum power_keep)vc_unit_below(rng, POWER_POLICIES);
		if (vc_unit_below(rng, 3))
			continue;
		cuts[i].at = VC_MAX(first, blklog_last_flush(&b->log, cuts[i].at)) + 1;
		cuts[i].keep = POWER_KEEP_ALL;
	}
	qsort(cuts, n, sizeof(*cuts), by_place);
	return cuts;
}

static void found(void *ctx, const char *text)
{
	(void)ctx;
	fprintf(stderr, "check: %s\n", text);
}

static bool check_books(const char *pool)
{
	struct vc_check_options options = { .data = true, .log = true, .found = found };
	struct vc_check_result result;
	int r = vc_check_pool(vc_io_posix(), pool, &options, &result);

	if (r < 0)
		fprintf(stderr, "check: error %d\n", -r);
	return r == 0 && result.findings == 0;
}

/* What was recovered must also go through a destage and a clean, and be the same after it. */
static bool survives_destage(struct blocklog *b, size_t place, struct vc_pool *pool)
{
	size_t state;

	if (engine_task(pool, VC_TASK_DESTAGE) == 0 && engine_task(pool, VC_TASK_CLEAN) == 0)
		return crash_run_allows(b->run, place, pool, &state);
	fprintf(stderr, "destage or clean after the recovery failed\n");
	return false;
}

static bool recovers(struct blocklog *b, const struct power_cut *cut)
{
	size_t place = b->log.entries[cut->at - 1].end, state = 0;
	char dir[PATH_MAX + 8];
	struct vc_pool *pool;
	bool ok;
	int r;

	snprintf(dir, sizeof(dir), "%s/pool", b->state);
	r = engine_try_open(vc_io_posix(), dir, ENGINE_DESTAGE_NEVER, &pool);
	if (r < 0) {
		fprintf(stderr, "the pool does not open: error %d: %s\n", -r, vc_unit_last_message());
		return false;
	}
	ok = crash_run_allows(b->run, place, pool, &state);
	if (ok && cut->seed % 4 == 0)
		ok = survives_destage(b, place, pool);
	r = vc_pool_close(pool);
	if (r < 0)
		fprintf(stderr, "closing the pool: error %d\n", -r);
	return check_books(dir) && r == 0 && ok;
}

/*
 * A file system that keeps checksums over more than a sector cannot mount when its own superblock was torn (ext4: seen once in some
 * thousand states, at the write of an unmount). That is not for the pool to survive.
 */
static bool refused_torn(const struct power_cut *cut, int error)
{
	return (cut->keep == POWER_TEAR_ONE || cut->keep == POWER_TEAR_ALL) && (error == -EBADMSG || error == -EUCLEAN);
}

static bool survives(struct blocklog *b, const struct power_cut *cut)
{
	struct memdisk disk;
	bool ok = false;
	int r;

	power_make(&disk, &b->base, &b->log, b->done, cut);
	r = memdisk_mount(&disk, b->type, b->state, strcmp(b->type, "xfs") == 0 ? "nouuid" : "");
	if (r < 0 && refused_torn(cut, r)) {
		b->refused++;
		ok = true;
	} else if (r < 0) {
		fprintf(stderr, "%s does not mount: error %d\n", b->type, -r);
	} else {
		ok = recovers(b, cut);
		must(umount2(b->state, 0) == 0, b->state);
	}
	memdisk_free(&disk);
	return ok;
}

/* All entries on the disk as it was before must make the disk as it is: then nothing is missing in the log. */
static void check_history(struct blocklog *b, const char *before)
{
	struct memdisk now, then;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/image", b->dir);
	memdisk_load(&now, path);
	memdisk_load(&then, before);
	for (size_t i = 0; i < b->log.n; i++)
		memdisk_apply(&then, &b->log, &b->log.entries[i], 0, b->log.entries[i].len);
	for (uint64_t at = 0; at < now.size; at += 4096)
		if (memcmp(now.bytes + at, then.bytes + at, 4096) != 0) {
			fprintf(stderr, "blocklog: the log does not tell all: the disks differ at byte %llu\n", (unsigned long long)at);
			exit(1);
		}
	memdisk_free(&now);
	memdisk_free(&then);
}

static unsigned cut_all(struct blocklog *b, uint64_t *rng)
{
	size_t n = number("VC_BLOCKLOG_STATES", STATES), i;
	uint64_t only = number("VC_BLOCKLOG_ONLY", UINT64_MAX);
	struct power_cut *cuts = choose_cuts(b, rng, n);
	unsigned findings = 0;

	for (i = 0; i < n && findings < FINDINGS_MAX; i++) {
		if (only != UINT64_MAX && only != i)
			continue;
		power_advance(&b->base, &b->log, &b->done, cuts[i].at);
		if (survives(b, &cuts[i]))
			continue;
		findings++;
		fprintf(stderr, "cut number %zu, behind entry %zu of %zu, %zu after the flush, %s, seed %llu\n", i, cuts[i].at, b->log.n,
			cuts[i].at - b->done, power_keep_name(cuts[i].keep), (unsigned long long)cuts[i].seed);
	}
	free(cuts);
	printf("%zu states of %s, from %zu operations in %zu entries of the block log: %u wrong, %u torn so that it does not mount\n", i, b->type,
	       b->run->nstates, b->log.n, findings, b->refused);
	return findings + (b->refused > 1 + i / REFUSED_PART);
}

int main(int argc, char **argv)
{
	uint64_t seed = vc_unit_seed(), rng = ~seed;
	struct blocklog b = { .done = 0 };
	char before[PATH_MAX];
	unsigned findings;

	if (argc != 5) {
		fprintf(stderr, "usage: blocklog DIR FSTYPE LOOP PID\n");
		return 2;
	}
	b.dir = argv[1];
	b.type = argv[2];
	b.loop = argv[3];
	b.server = (pid_t)atoi(argv[4]);
	snprintf(b.mnt, sizeof(b.mnt), "%s/mnt", b.dir);
	snprintf(b.state, sizeof(b.state), "%s/state", b.dir);
	snprintf(b.log_path, sizeof(b.log_path), "%s/log", b.dir);
	snprintf(before, sizeof(before), "%s/before", b.dir);
	record(&b, seed);
	finish_recording(&b);
	check_history(&b, before);
	memdisk_load(&b.base, before);
	vc_unit_catch_messages(true);
	findings = cut_all(&b, &rng);
	memdisk_free(&b.base);
	blklog_close(&b.log);
	crash_run_free(b.run);
	return findings ? 1 : 0;
}
