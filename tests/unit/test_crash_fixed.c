/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Small scenarios whose every crash point is looked at, under many policies; and syncs that fail (D4).
 *
 * VC_TEST_THIN: only each so many-th point, beginning at a random one, and the last. VC_TEST_SEED: of that choice.
 */
#include "config.h"
#include "unit.h"

#include <linux/falloc.h>
#include <sys/stat.h>
#include "crash_count.h"
#include "crash_look.h"
#include "crash_ops.h"
#include "engine.h"

#define KIB UINT64_C(1024)
#define DROPS_MAX 12

static size_t checked;
static uint64_t stride, stride_rng;

/* The first crash point to look at, and the next one. */
static size_t point_first(size_t from, size_t end) { return VC_MIN(from + vc_unit_below(&stride_rng, stride), end); }
static size_t point_next(size_t at, size_t end) { return at < end ? VC_MIN(at + stride, end) : end + 1; }

/* ---- every crash point ---- */

static void crash_with(struct crash_run *run, size_t at, struct vc_sim_policy policy)
{
	crash_run_free(crash_run_crash(run, at, &policy));
	checked++;
}

static void crash_everywhere(struct crash_run *run, size_t from)
{
	static const enum vc_sim_keep kinds[] = { VC_SIM_KEEP_ALL, VC_SIM_KEEP_NONE, VC_SIM_KEEP_DATA, VC_SIM_KEEP_NAMES,
						  VC_SIM_KEEP_RANDOM, VC_SIM_KEEP_RANDOM };
	size_t end = vc_sim_events(run->sim);

	for (size_t at = point_first(from, end); at <= end; at = point_next(at, end)) {
		size_t n = vc_sim_uncertain(run->sim, at);

		for (size_t i = 0; i < VC_ARRAY_LEN(kinds); i++)
			crash_with(run, at, (struct vc_sim_policy){ .keep = kinds[i], .seed = vc_unit_random(&run->w.rng) });
		for (size_t i = n > DROPS_MAX ? n - DROPS_MAX : 0; i < n && at % 3 == 0; i++) {
			crash_with(run, at, (struct vc_sim_policy){ .keep = VC_SIM_DROP_ONE, .which = i });
			crash_with(run, at, (struct vc_sim_policy){ .keep = VC_SIM_TEAR_ONE, .which = i, .seed = at });
		}
	}
}

static struct crash_run *start(uint64_t seed)
{
	return crash_run_new(seed, ENGINE_DESTAGE_NEVER);
}

static void test_flush(void **state VC_UNUSED)
{
	struct crash_run *run = start(1);

	crash_do_create(run, "a");
	crash_do_write(run, "a", 0, 3000, 0);
	crash_do_write(run, "a", 8192, 8192, 0);
	crash_do_flush(run);
	crash_do_write(run, "a", 1000, 9000, 0);
	crash_do_write(run, "a", 4096, 4096, VC_WRITE_DSYNC);
	crash_do_write(run, "a", 0, 4096, 0);
	crash_everywhere(run, run->first_event);
	crash_run_free(run);
}

static void test_clone_of_changed(void **state VC_UNUSED)
{
	struct crash_run *run = start(2);

	crash_do_create(run, "a");
	crash_do_write(run, "a", 0, 20000, 0);
	crash_do_clone(run, "a", "b");
	crash_do_write(run, "a", 4096, 4096, 0);
	crash_do_write(run, "b", 8192, 4096, 0);
	crash_do_clone(run, "b", "c");
	crash_do_write(run, "c", 0, 100, 0);
	crash_everywhere(run, run->first_event);
	crash_run_free(run);
}

/* The log's record of a large write counts only when its chunks are there. */
static void test_direct(void **state VC_UNUSED)
{
	struct crash_run *run = start(3);

	crash_do_create(run, "a");
	crash_do_write(run, "a", 0, 128 * KIB, 0);
	crash_do_write(run, "a", 64 * KIB, 4096, 0);
	crash_do_write(run, "a", 32 * KIB, 128 * KIB, 0);
	crash_do_flush(run);
	crash_do_write(run, "a", 96 * KIB, 64 * KIB, 0);
	crash_do_clone(run, "a", "b");
	crash_do_write(run, "b", 0, 96 * KIB, 0);
	crash_everywhere(run, run->first_event);
	crash_run_free(run);
}

static void test_rename_over(void **state VC_UNUSED)
{
	struct crash_run *run = start(4);

	crash_do_create(run, "a");
	crash_do_write(run, "a", 0, 5000, 0);
	crash_do_create(run, "b");
	crash_do_write(run, "b", 0, 70 * KIB, 0);
	crash_do_rename(run, "a", "b");
	crash_do_write(run, "b", 100, 100, 0);
	crash_do_unlink(run, "b");
	crash_do_create(run, "a");
	crash_everywhere(run, run->first_event);
	crash_run_free(run);
}

static void test_destage(void **state VC_UNUSED)
{
	struct crash_run *run = start(5);

	crash_do_create(run, "a");
	crash_do_create(run, "b");
	crash_do_write(run, "a", 0, 60000, 0);
	crash_do_write(run, "a", 128 * KIB, 64 * KIB, 0);
	crash_do_copy(run, "a", 4096, "b", 16384, 32 * KIB);
	crash_do_clone(run, "a", "c");
	crash_do_write(run, "a", 0, 5000, 0);
	crash_do_task(run, VC_TASK_DESTAGE);
	crash_do_write(run, "c", 4096, 4096, 0);
	crash_do_copy(run, "c", 0, "a", 300 * KIB, 64 * KIB);
	crash_do_task(run, VC_TASK_DESTAGE);
	crash_everywhere(run, run->first_event);
	crash_run_free(run);
}

static void test_clean(void **state VC_UNUSED)
{
	struct crash_run *run = start(6);
	size_t from;

	crash_do_create(run, "a");
	for (unsigned i = 0; i < 6; i++)
		crash_do_write(run, "a", i * 64 * KIB, 64 * KIB, 0);
	crash_do_clone(run, "a", "b");
	crash_do_task(run, VC_TASK_DESTAGE);
	crash_do_unlink(run, "a");
	crash_do_write(run, "b", 0, 320 * KIB, 0);
	crash_do_task(run, VC_TASK_DESTAGE);
	from = vc_sim_events(run->sim);
	crash_do_task(run, VC_TASK_CLEAN);
	crash_do_write(run, "b", 64 * KIB, 64 * KIB, VC_WRITE_DSYNC);
	crash_do_task(run, VC_TASK_DESTAGE);
	crash_do_task(run, VC_TASK_CLEAN);
	crash_everywhere(run, from);
	crash_run_free(run);
}

/* The log goes round several times: what lies in its segments from an earlier round must not be taken for new. */
static void test_log_round(void **state VC_UNUSED)
{
	struct crash_run *run = start(7);
	uint64_t log_bytes = run->geometry.log_segment_size * run->geometry.log_segments;
	size_t from;

	crash_do_create(run, "a");
	for (uint64_t done = 0; done < 3 * log_bytes; done += 60 * KIB) {
		crash_do_write(run, "a", done % (360 * KIB), 60 * KIB - 100, 0);
		if (done % (7 * 60 * KIB) == 0)
			crash_do_task(run, VC_TASK_DESTAGE);
	}
	from = vc_sim_events(run->sim);
	for (unsigned i = 0; i < 8; i++)
		crash_do_write(run, "a", i * 1000, i % 2 ? 60 * KIB - 100 : 100, i % 4 == 0 ? VC_WRITE_DSYNC : 0);
	crash_everywhere(run, from);
	crash_run_free(run);
}

/* Recovery dies, again and again: what it has shown once stays. */
static void test_recovery_dies(void **state VC_UNUSED)
{
	struct crash_run *run = start(8);

	crash_do_create(run, "a");
	for (unsigned i = 0; i < 8; i++) {
		crash_do_write(run, "a", i * 5000, 9000, 0);
		crash_do_write(run, "a", i * 32 * KIB, 64 * KIB, 0);
		for (unsigned k = 0; k < 4; k++) {
			struct vc_sim_policy policy = { .keep = VC_SIM_KEEP_RANDOM, .seed = i * 10 + k };
			struct crash_run *next = crash_run_crash(run, vc_sim_events(run->sim), &policy);

			crash_everywhere(next, 0);
			crash_run_free(run);
			run = next;
		}
	}
	crash_run_free(run);
}

/*
 * A process is killed with chunks of a large write that were never synced. The next one reads them, and what it shows and what it flushes
 * counts on them: it must have synced them, and their names, before it makes the checkpoint that would.
 */
static void test_direct_after_kill(void **state VC_UNUSED)
{
	const struct vc_sim_policy nothing = { .keep = VC_SIM_KEEP_NONE };
	struct crash_run *run = start(15);
	size_t opened, flushed;

	crash_do_create(run, "a");
	crash_do_write(run, "a", 0, 512 * KIB, 0);
	crash_hold(CRASH_HOLD_STAGE);
	crash_run_kill(run);
	crash_wait_held();
	opened = vc_sim_events(run->sim);
	crash_do_flush(run);
	flushed = vc_sim_events(run->sim);
	crash_hold(CRASH_HOLD_NOT);
	crash_with(run, opened, nothing);
	crash_with(run, flushed, nothing);
	crash_do_task(run, VC_TASK_DESTAGE);
	crash_with(run, vc_sim_events(run->sim), nothing);
	crash_run_free(run);
}

static int count_backup(void *ctx, const char *name)
{
	size_t len = strlen(name);

	*(unsigned *)ctx += len > 4 && strcmp(name + len - 4, ".mdb") == 0;
	return 0;
}

static unsigned backups(struct crash_run *run)
{
	unsigned n = 0;

	assert_int_equal(vc_io_list(vc_sim_io(run->sim), CRASH_POOL "/backup", count_backup, &n), 0);
	return n;
}

/* Single blocks with gaps between: each is an item of the journal. Returns where the checkpoint began. */
static size_t checkpoint_much(struct crash_run *run)
{
	size_t from;

	for (unsigned i = 0; i < 24; i++)
		crash_do_write(run, "a", i * 8 * KIB, 4 * KIB, 0);
	from = vc_sim_events(run->sim);
	crash_do_task(run, VC_TASK_DESTAGE);
	return from;
}

/*
 * The journal grows until a backup of LMDB takes its place, and its old files go. At each moment the pool can lose its LMDB: backup, journal
 * and log make it again.
 */
static void test_backup(void **state VC_UNUSED)
{
	struct crash_run *run = start(13);
	struct crash_look look;
	size_t from = 0;

	crash_look_init(&look, 13, 0);
	look.rebuild = 2;
	crash_do_create(run, "a");
	crash_run_reopen(run);
	for (unsigned i = 0; i < 200 && !backups(run); i++)
		from = checkpoint_much(run);
	assert_int_equal(backups(run), 1);
	for (size_t at = from, end = vc_sim_events(run->sim); at <= end; at++)
		if (at % 8 == 0 || end - at < 20) /* LMDB's pages are many and alike; the names and removals come last */
			crash_look_range(&look, run, at, at, SIZE_MAX);
	checked += crash_counted(CRASH_STATES);
	crash_look_fini(&look);
	crash_run_free(run);
}

static void rebuild_everywhere(struct crash_run *run, size_t from)
{
	struct crash_look look;

	crash_look_init(&look, 14, 0);
	look.rebuild = 1;
	crash_look_range(&look, run, from, vc_sim_events(run->sim), SIZE_MAX);
	crash_look_fini(&look);
}

/* After recovery a checkpoint may find nothing to do: its journal entry leads from an LSN to the same one, and others follow. */
static void test_empty_checkpoint(void **state VC_UNUSED)
{
	struct crash_run *run = start(14), *next;
	size_t at;

	crash_do_create(run, "a");
	crash_do_write(run, "a", 0, 5000, 0);
	crash_do_task(run, VC_TASK_DESTAGE);
	at = vc_sim_events(run->sim) + 1; /* the header of a log segment, no record in it */
	crash_do_write(run, "a", 0, 5000, 0);
	next = crash_run_crash(run, at, &(struct vc_sim_policy){ .keep = VC_SIM_KEEP_ALL });
	crash_do_write(next, "a", 1000, 5000, 0);
	crash_do_task(next, VC_TASK_DESTAGE);
	crash_do_write(next, "a", 2000, 5000, 0);
	crash_do_task(next, VC_TASK_DESTAGE);
	rebuild_everywhere(next, 0);
	crash_run_free(run);
	crash_run_free(next);
}

/* The header of the first log segment after a checkpoint is lost, that of the second is not: nothing durable is missing. */
static void test_torn_first_segment(void **state VC_UNUSED)
{
	struct crash_run *run = crash_run_new_small(15, ENGINE_DESTAGE_NEVER);
	size_t from;

	crash_do_create(run, "a");
	crash_do_task(run, VC_TASK_DESTAGE);
	from = vc_sim_events(run->sim);
	for (uint64_t done = 0; done < run->geometry.log_segment_size; done += 24 * KIB)
		crash_do_write(run, "a", 0, 24 * KIB, 0);
	rebuild_everywhere(run, from);
	crash_run_free(run);
}

/* ---- failed syncs ---- */

/* D4: after one the pool takes nothing more, goes on reading, does not try again; what was flushed before is there later. */
static void sync_fails(const char *where, uint64_t seed)
{
	struct crash_run *run = start(seed);
	struct vc_inode *inode;
	uint8_t buf[4096];
	uint64_t calls;
	int r;

	crash_do_create(run, "a");
	crash_do_write(run, "a", 0, 128 * KIB, 0);
	crash_do_write(run, "a", 500, 5000, 0);
	crash_do_flush(run);
	crash_do_write(run, "a", 1000, 5000, 0);
	crash_do_write(run, "a", 0, 64 * KIB, 0);
	vc_sim_fail(run->sim, &(struct vc_sim_fault){ .ops = VC_SIM_SYNC, .path = where, .nth = 1, .error = 5 });
	inode = crash_inode(run, "a");
	r = engine_flush(inode);
	if (r == 0)
		r = engine_task(run->w.pool, VC_TASK_DESTAGE);
	assert_int_equal(vc_sim_faults(run->sim), 1);
	assert_true(r == -EIO || r == -EROFS);
	assert_int_equal(engine_write(inode, run->w.buf, 100, 0, 0), -EROFS);
	calls = vc_sim_calls(run->sim, VC_SIM_SYNC);
	(void)!engine_flush(inode); /* 0 when all was durable before */
	assert_int_equal(vc_sim_calls(run->sim, VC_SIM_SYNC), calls);
	assert_int_equal(vc_volume_read(inode, buf, sizeof(buf), 0), sizeof(buf));
	vc_inode_put(inode);
	assert_true(world_verify(&run->w));
	crash_with(run, vc_sim_events(run->sim), (struct vc_sim_policy){ .keep = VC_SIM_KEEP_ALL });
	crash_with(run, vc_sim_events(run->sim), (struct vc_sim_policy){ .keep = VC_SIM_KEEP_NONE });
	for (unsigned i = 0; i < 20; i++)
		crash_with(run, vc_sim_events(run->sim), (struct vc_sim_policy){ .keep = VC_SIM_KEEP_RANDOM, .seed = i });
	crash_run_free(run);
}

static void test_log_sync_fails(void **state VC_UNUSED) { sync_fails("/log/", 9); }
static void test_chunk_sync_fails(void **state VC_UNUSED) { sync_fails("/chunk/", 10); }
static void test_journal_sync_fails(void **state VC_UNUSED) { sync_fails("/journal/", 11); }

static bool is_pool(struct vc_sim *sim)
{
	struct vc_file *file;
	int r = vc_io_open(vc_sim_io(sim), CRASH_POOL "/pool", VC_IO_READ, &file);

	if (r == 0)
		vc_io_close(file);
	return r == 0;
}

static void create_struck(struct vc_sim *sim, size_t at, struct vc_sim_policy policy)
{
	struct vc_sim *after = vc_sim_crash(sim, at, &policy);
	bool made = is_pool(after);
	struct vc_pool *pool;
	int r = engine_try_open(vc_sim_io(after), CRASH_POOL, ENGINE_DESTAGE_NEVER, &pool);

	assert_int_equal(r, made ? 0 : -ENOENT);
	assert_true(made || at < vc_sim_events(sim));
	if (r == 0)
		engine_close(pool);
	vc_sim_free(after);
	checked++;
}

/* A pool that is half made is not taken for one; one that has its file "pool" has all the rest; one that is made stays. */
static void test_create(void **state VC_UNUSED)
{
	static const enum vc_sim_keep kinds[] = { VC_SIM_KEEP_ALL, VC_SIM_KEEP_NONE, VC_SIM_KEEP_DATA, VC_SIM_KEEP_NAMES };
	static const enum vc_sim_keep ones[] = { VC_SIM_DROP_ONE, VC_SIM_KEEP_ONE, VC_SIM_TEAR_ONE };
	struct vc_sim *sim = vc_sim_new();
	struct vc_pool_geometry geometry;
	uint64_t rng = 12;
	size_t end;

	engine_geometry(&rng, &geometry);
	assert_int_equal(vc_pool_create(vc_sim_io(sim), CRASH_POOL, &geometry), 0);
	end = vc_sim_events(sim);
	for (size_t at = point_first(0, end); at <= end; at = point_next(at, end)) {
		size_t n = vc_sim_uncertain(sim, at);

		for (size_t i = 0; i < VC_ARRAY_LEN(kinds); i++)
			create_struck(sim, at, (struct vc_sim_policy){ .keep = kinds[i] });
		for (size_t i = 0; i < n * VC_ARRAY_LEN(ones); i++)
			create_struck(sim, at, (struct vc_sim_policy){ .keep = ones[i % VC_ARRAY_LEN(ones)], .which = i / VC_ARRAY_LEN(ones), .seed = at });
		for (uint64_t seed = 0; seed < 4; seed++)
			create_struck(sim, at, (struct vc_sim_policy){ .keep = VC_SIM_KEEP_RANDOM, .seed = at * 8 + seed });
	}
	vc_sim_free(sim);
}

static int teardown(void **state)
{
	printf("%zu crash states so far\n", checked);
	return engine_teardown(state);
}

#define scenario(name) cmocka_unit_test_setup_teardown(name, engine_setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		scenario(test_create),
		scenario(test_flush),
		scenario(test_clone_of_changed),
		scenario(test_direct),
		scenario(test_rename_over),
		scenario(test_destage),
		scenario(test_clean),
		scenario(test_log_round),
		scenario(test_direct_after_kill),
		scenario(test_recovery_dies),
		scenario(test_backup),
		scenario(test_empty_checkpoint),
		scenario(test_torn_first_segment),
		scenario(test_log_sync_fails),
		scenario(test_chunk_sync_fails),
		scenario(test_journal_sync_fails),
	};

	stride = vc_unit_thin();
	stride_rng = vc_unit_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
