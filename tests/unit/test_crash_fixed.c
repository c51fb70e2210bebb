/* SPDX-License-Identifier: BSD-2-Clause */
/* Small scenarios whose every crash point is looked at, under many policies; and syncs that fail (D4). */
#include "config.h"
#include "unit.h"

#include <linux/falloc.h>
#include <sys/stat.h>
#include "crash_run.h"
#include "engine.h"

#define KIB UINT64_C(1024)
#define DROPS_MAX 12
#define POOL "/pool"

static size_t checked;

/* ---- operations, on the pool and on the model ---- */

static struct model_file *file_of(struct crash_run *run, const char *name)
{
	struct model_name *e = model_find(&run->w.model, 0, name);

	assert_non_null(e);
	return e->file;
}

static struct vc_inode *inode_of(struct crash_run *run, const char *name)
{
	struct vc_inode *inode = engine_lookup(run->w.dirs[0], name);

	assert_non_null(inode);
	return inode;
}

static void do_create(struct crash_run *run, const char *name)
{
	struct vc_inode *inode;

	crash_run_begin(run);
	assert_int_equal(engine_create(run->w.dirs[0], name, S_IFREG | 0640, NULL, &inode), 0);
	vc_inode_put(inode);
	model_add(&run->w.model, 0, name, model_file_new(S_IFREG | 0640));
	crash_run_end(run, true);
}

/* Bytes that do not compress. */
static void do_write(struct crash_run *run, const char *name, uint64_t offset, size_t len, unsigned int flags)
{
	struct vc_inode *inode = inode_of(run, name);
	struct model_file *f = file_of(run, name);

	for (size_t i = 0; i < len; i += 8) {
		uint64_t x = vc_unit_random(&run->w.rng);

		memcpy(run->w.buf + i, &x, VC_MIN(len - i, sizeof(x)));
	}
	crash_run_begin(run);
	assert_int_equal(engine_write(inode, run->w.buf, len, offset, flags), 0);
	model_write(&f->data, run->w.buf, len, offset);
	model_touch(f);
	crash_run_end(run, flags & VC_WRITE_DSYNC);
	vc_inode_put(inode);
}

static void do_flush(struct crash_run *run)
{
	crash_run_begin(run);
	assert_int_equal(engine_flush(run->w.dirs[0]), 0);
	crash_run_end(run, true);
}

static void do_clone(struct crash_run *run, const char *name, const char *clone)
{
	struct vc_inode *inode = inode_of(run, name);
	struct model_file *f = model_file_new(S_IFREG | 0600);

	crash_run_begin(run);
	assert_int_equal(engine_clone(inode, run->w.dirs[0], clone, NULL), 0);
	model_copy(&f->data, &file_of(run, name)->data);
	model_add(&run->w.model, 0, clone, f);
	crash_run_end(run, true);
	vc_inode_put(inode);
}

static void do_copy(struct crash_run *run, const char *name, uint64_t from, const char *other, uint64_t to, uint64_t len)
{
	struct vc_inode *src = inode_of(run, name), *dst = inode_of(run, other);
	struct model_file *f = file_of(run, other);
	uint64_t copied;

	assert(len <= WORLD_WRITE_MAX);
	crash_run_begin(run);
	assert_int_equal(engine_copy_range(src, from, dst, to, len, true, &copied), 0);
	model_read(&file_of(run, name)->data, run->w.buf, len, from);
	model_write(&f->data, run->w.buf, len, to);
	model_touch(f);
	crash_run_end(run, true);
	vc_inode_put(src);
	vc_inode_put(dst);
}

static void do_unlink(struct crash_run *run, const char *name)
{
	crash_run_begin(run);
	assert_int_equal(engine_unlink(run->w.dirs[0], name), 0);
	model_remove(&run->w.model, model_find(&run->w.model, 0, name));
	crash_run_end(run, true);
}

static void do_rename(struct crash_run *run, const char *name, const char *over)
{
	struct model_file *f = model_file_get(file_of(run, name));

	crash_run_begin(run);
	assert_int_equal(engine_rename(run->w.dirs[0], name, run->w.dirs[0], over, 0), 0);
	if (model_find(&run->w.model, 0, over))
		model_remove(&run->w.model, model_find(&run->w.model, 0, over));
	model_remove(&run->w.model, model_find(&run->w.model, 0, name));
	model_add(&run->w.model, 0, over, f);
	crash_run_end(run, true);
}

static void do_task(struct crash_run *run, enum vc_task_kind kind)
{
	crash_run_begin(run);
	assert_int_equal(engine_task(run->w.pool, kind), 0);
	crash_run_end(run, kind == VC_TASK_DESTAGE);
}

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

	for (size_t at = from; at <= end; at++) {
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

	do_create(run, "a");
	do_write(run, "a", 0, 3000, 0);
	do_write(run, "a", 8192, 8192, 0);
	do_flush(run);
	do_write(run, "a", 1000, 9000, 0);
	do_write(run, "a", 4096, 4096, VC_WRITE_DSYNC);
	do_write(run, "a", 0, 4096, 0);
	crash_everywhere(run, run->first_event);
	crash_run_free(run);
}

static void test_clone_of_changed(void **state VC_UNUSED)
{
	struct crash_run *run = start(2);

	do_create(run, "a");
	do_write(run, "a", 0, 20000, 0);
	do_clone(run, "a", "b");
	do_write(run, "a", 4096, 4096, 0);
	do_write(run, "b", 8192, 4096, 0);
	do_clone(run, "b", "c");
	do_write(run, "c", 0, 100, 0);
	crash_everywhere(run, run->first_event);
	crash_run_free(run);
}

/* The log's record of a large write counts only when its chunks are there. */
static void test_direct(void **state VC_UNUSED)
{
	struct crash_run *run = start(3);

	do_create(run, "a");
	do_write(run, "a", 0, 128 * KIB, 0);
	do_write(run, "a", 64 * KIB, 4096, 0);
	do_write(run, "a", 32 * KIB, 128 * KIB, 0);
	do_flush(run);
	do_write(run, "a", 96 * KIB, 64 * KIB, 0);
	do_clone(run, "a", "b");
	do_write(run, "b", 0, 96 * KIB, 0);
	crash_everywhere(run, run->first_event);
	crash_run_free(run);
}

static void test_rename_over(void **state VC_UNUSED)
{
	struct crash_run *run = start(4);

	do_create(run, "a");
	do_write(run, "a", 0, 5000, 0);
	do_create(run, "b");
	do_write(run, "b", 0, 70 * KIB, 0);
	do_rename(run, "a", "b");
	do_write(run, "b", 100, 100, 0);
	do_unlink(run, "b");
	do_create(run, "a");
	crash_everywhere(run, run->first_event);
	crash_run_free(run);
}

static void test_destage(void **state VC_UNUSED)
{
	struct crash_run *run = start(5);

	do_create(run, "a");
	do_create(run, "b");
	do_write(run, "a", 0, 60000, 0);
	do_write(run, "a", 128 * KIB, 64 * KIB, 0);
	do_copy(run, "a", 4096, "b", 16384, 32 * KIB);
	do_clone(run, "a", "c");
	do_write(run, "a", 0, 5000, 0);
	do_task(run, VC_TASK_DESTAGE);
	do_write(run, "c", 4096, 4096, 0);
	do_copy(run, "c", 0, "a", 300 * KIB, 64 * KIB);
	do_task(run, VC_TASK_DESTAGE);
	crash_everywhere(run, run->first_event);
	crash_run_free(run);
}

static void test_clean(void **state VC_UNUSED)
{
	struct crash_run *run = start(6);
	size_t from;

	do_create(run, "a");
	for (unsigned i = 0; i < 6; i++)
		do_write(run, "a", i * 64 * KIB, 64 * KIB, 0);
	do_clone(run, "a", "b");
	do_task(run, VC_TASK_DESTAGE);
	do_unlink(run, "a");
	do_write(run, "b", 0, 320 * KIB, 0);
	do_task(run, VC_TASK_DESTAGE);
	from = vc_sim_events(run->sim);
	do_task(run, VC_TASK_CLEAN);
	do_write(run, "b", 64 * KIB, 64 * KIB, VC_WRITE_DSYNC);
	do_task(run, VC_TASK_DESTAGE);
	do_task(run, VC_TASK_CLEAN);
	crash_everywhere(run, from);
	crash_run_free(run);
}

/* The log goes round several times: what lies in its segments from an earlier round must not be taken for new. */
static void test_log_round(void **state VC_UNUSED)
{
	struct crash_run *run = start(7);
	uint64_t log_bytes = run->geometry.log_segment_size * run->geometry.log_segments;
	size_t from;

	do_create(run, "a");
	for (uint64_t done = 0; done < 3 * log_bytes; done += 60 * KIB) {
		do_write(run, "a", done % (360 * KIB), 60 * KIB - 100, 0);
		if (done % (7 * 60 * KIB) == 0)
			do_task(run, VC_TASK_DESTAGE);
	}
	from = vc_sim_events(run->sim);
	for (unsigned i = 0; i < 8; i++)
		do_write(run, "a", i * 1000, i % 2 ? 60 * KIB - 100 : 100, i % 4 == 0 ? VC_WRITE_DSYNC : 0);
	crash_everywhere(run, from);
	crash_run_free(run);
}

/* Recovery dies, again and again: what it has shown once stays. */
static void test_recovery_dies(void **state VC_UNUSED)
{
	struct crash_run *run = start(8);

	do_create(run, "a");
	for (unsigned i = 0; i < 8; i++) {
		do_write(run, "a", i * 5000, 9000, 0);
		do_write(run, "a", i * 32 * KIB, 64 * KIB, 0);
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

/* ---- failed syncs ---- */

/* D4: after one the pool takes nothing more, goes on reading, does not try again; what was flushed before is there later. */
static void sync_fails(const char *where, uint64_t seed)
{
	struct crash_run *run = start(seed);
	struct vc_inode *inode;
	uint8_t buf[4096];
	uint64_t calls;
	int r;

	do_create(run, "a");
	do_write(run, "a", 0, 128 * KIB, 0);
	do_write(run, "a", 500, 5000, 0);
	do_flush(run);
	do_write(run, "a", 1000, 5000, 0);
	do_write(run, "a", 0, 64 * KIB, 0);
	vc_sim_fail(run->sim, &(struct vc_sim_fault){ .ops = VC_SIM_SYNC, .path = where, .nth = 1, .error = 5 });
	inode = inode_of(run, "a");
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

/* A pool that is half made is not taken for one; a pool that is made stays. */
static void test_create(void **state VC_UNUSED)
{
	struct vc_sim *sim = vc_sim_new();
	struct vc_pool_geometry geometry;
	uint64_t rng = 12;
	size_t end;

	engine_geometry(&rng, &geometry);
	assert_int_equal(vc_pool_create(vc_sim_io(sim), POOL, &geometry), 0);
	end = vc_sim_events(sim);
	for (size_t at = 0; at <= end; at++)
		for (unsigned i = 0; i < 6; i++) {
			struct vc_sim_policy policy = { .keep = i < 2 ? i == 0 ? VC_SIM_KEEP_ALL : VC_SIM_KEEP_NONE : VC_SIM_KEEP_RANDOM,
							.seed = at * 8 + i };
			struct vc_sim *after = vc_sim_crash(sim, at, &policy);
			struct vc_pool *pool;
			int r = engine_try_open(vc_sim_io(after), POOL, ENGINE_DESTAGE_NEVER, &pool);

			assert_true(r == 0 || (r == -ENOENT && at < end));
			if (r == 0)
				engine_close(pool);
			vc_sim_free(after);
			checked++;
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
		scenario(test_recovery_dies),
		scenario(test_log_sync_fails),
		scenario(test_chunk_sync_fails),
		scenario(test_journal_sync_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
