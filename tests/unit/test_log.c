/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of a log that is open: appending, completions, admission, sections, reading back, failures. Replay: test_log_replay. */
#include "config.h"
#include "unit.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log_fixture.h"
#include "log_impl.h"

static struct log_fixture fix;
static struct vc_sim *sim;
static char *top, dir[4096];

static int setup_posix(void **state VC_UNUSED)
{
	top = vc_unit_tmpdir();
	assert_non_null(top);
	snprintf(dir, sizeof(dir), "%s/log", top);
	fix_log_init(&fix, vc_io_posix(), dir);
	assert_int_equal(vc_log_create(&fix.params), 0);
	vc_unit_catch_messages(true);
	return 0;
}

static int setup_sim(void **state VC_UNUSED)
{
	sim = fix_log_setup_sim(&fix);
	return 0;
}

static int teardown(void **state VC_UNUSED)
{
	fix_log_teardown(&fix, sim);
	sim = NULL;
	vc_unit_rmdir(top);
	top = NULL;
	return 0;
}

/* A completion that remembers. */
struct noted {
	struct vc_done done;
	uint64_t lsn;
	atomic_int calls;
	int error;
	unsigned order;
	size_t events;     /* of the simulated file system, when it was called */
	uint64_t durable;  /* durable LSN then */
};

static atomic_uint noted_order;

static void on_noted(struct vc_done *done, int error)
{
	struct noted *n = vc_container_of(done, struct noted, done);

	n->error = error;
	n->order = atomic_fetch_add(&noted_order, 1);
	n->events = sim ? vc_sim_events(sim) : 0;
	atomic_fetch_add(&n->calls, 1);
}

static struct vc_done *note(struct noted *n, uint64_t lsn)
{
	*n = (struct noted){ .done = { .fn = on_noted }, .lsn = lsn };
	return &n->done;
}

static int append_durable(size_t len)
{
	struct vc_log_slot slot;
	struct vc_wait wait;
	int r = vc_log_admit(fix.log, VC_LOG_META, len); /* waits for no segment: making it may have been made to fail */

	if (r == 0)
		r = fix_log_reserve(&fix, len, &slot);
	if (r < 0)
		return r;
	vc_wait_init(&wait);
	vc_log_submit(fix.log, &slot, true, &wait.done);
	return vc_wait_for(&wait);
}

static struct vc_log_figures figures(void)
{
	struct vc_log_figures f;

	vc_log_figures(fix.log, &f);
	return f;
}

/* Let the preparing thread make all segments, by asking for more than there is, and giving it back. */
static void make_all_segments(void)
{
	size_t len = 4096;
	unsigned n = 0;

	while (fix_log_admit(&fix, VC_LOG_META, len) == 0)
		n++;
	while (n-- > 0)
		vc_log_unadmit(fix.log, len);
}

/* ---- appending ---- */

static void test_append_and_read(void **state VC_UNUSED)
{
	uint64_t seed = vc_unit_seed(), last_addr = 0;

	assert_int_equal(fix_log_open(&fix), 0);
	for (uint64_t i = 1; i <= 60; i++) {
		uint64_t lsn = fix_log_append(&fix, VC_ROUND_UP(FIX_LOG_RECORD_MIN + vc_unit_below(&seed, 9000), (size_t)8));

		assert_int_equal(lsn, i);
		assert_true(fix.recs[lsn].addr > last_addr);
		last_addr = fix.recs[lsn].addr;
		assert_true(fix_log_reads(&fix, 1 + vc_unit_below(&seed, lsn)));
	}
	for (uint64_t i = 1; i <= 60; i++)
		assert_true(fix_log_reads(&fix, i));
	assert_int_equal(figures().last_lsn, 60);
	assert_int_equal(figures().written_lsn, 60);
}

static void test_longest_record(void **state VC_UNUSED)
{
	struct vc_log_slot slot;
	size_t most;

	assert_int_equal(fix_log_open(&fix), 0);
	most = VC_ROUND_DOWN(vc_log_record_max(fix.log), (size_t)8);
	assert_int_equal(vc_log_admit(fix.log, VC_LOG_META, vc_log_record_max(fix.log) + 1), -E2BIG);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(fix_log_admit(&fix, VC_LOG_DATA, most), 0);
		assert_int_equal(fix_log_reserve(&fix, most, &slot), 0);
		vc_log_submit(fix.log, &slot, false, NULL);
		assert_true(fix_log_reads(&fix, slot.lsn));
		fix_log_append(&fix, FIX_LOG_RECORD_MIN);
	}
	fix_log_close(&fix, true);
	assert_int_equal(fix_log_open(&fix), 0);
	assert_int_equal(fix.replayed, 4);
	assert_int_equal(fix.mismatches, 0);
}

/* Filled and submitted in any order: nothing completes before all below it are submitted, batches in order. */
static void test_completions(void **state VC_UNUSED)
{
	enum { N = 40 };
	uint64_t seed = vc_unit_seed();
	struct vc_log_slot slots[N];
	struct noted noted[N];
	unsigned order[N];

	assert_int_equal(fix_log_open(&fix), 0);
	for (unsigned round = 0; round < 20; round++) {
		bool submitted[N] = { false };

		for (unsigned i = 0; i < N; i++) {
			order[i] = i;
			assert_int_equal(fix_log_admit(&fix, VC_LOG_META, 96), 0);
			assert_int_equal(fix_log_reserve(&fix, 96, &slots[i]), 0);
			note(&noted[i], slots[i].lsn);
		}
		for (unsigned i = N - 1; i > 0; i--) {
			unsigned k = (unsigned)vc_unit_below(&seed, i + 1), t = order[i];

			order[i] = order[k];
			order[k] = t;
		}
		for (unsigned i = 0; i < N; i++) {
			unsigned first = 0;

			vc_log_submit(fix.log, &slots[order[i]], false, &noted[order[i]].done);
			submitted[order[i]] = true;
			while (first < N && submitted[first])
				first++;
			for (unsigned k = first; k < N; k++)
				assert_int_equal(atomic_load(&noted[k].calls), 0);
		}
		for (unsigned i = 0; i < N; i++) {
			assert_int_equal(atomic_load(&noted[i].calls), 1);
			assert_int_equal(noted[i].error, 0);
			if (i > 0 && slots[i].batch != slots[i - 1].batch)
				assert_true(noted[i].order > noted[i - 1].order);
		}
		if (fix_log_cut(&fix))
			fix_log_release(&fix, &fix.current->next->s);
	}
}

struct reader {
	uint64_t lsn;
	atomic_bool started;
	bool ok;
};

static void *reader_main(void *arg)
{
	struct reader *reader = arg;

	atomic_store(&reader->started, true);
	reader->ok = fix_log_reads(&fix, reader->lsn);
	return NULL;
}

static void test_read_waits(void **state VC_UNUSED)
{
	struct vc_log_slot first, second;
	struct reader reader;
	pthread_t thread;

	assert_int_equal(fix_log_open(&fix), 0);
	fix_log_append(&fix, 96);
	assert_int_equal(fix_log_admit(&fix, VC_LOG_META, 4000), 0);
	assert_int_equal(fix_log_admit(&fix, VC_LOG_META, 4000), 0);
	assert_int_equal(fix_log_reserve(&fix, 4000, &first), 0);
	assert_int_equal(fix_log_reserve(&fix, 4000, &second), 0);
	reader = (struct reader){ .lsn = second.lsn };
	assert_int_equal(pthread_create(&thread, NULL, reader_main, &reader), 0);
	/* Time for a read that does not wait to find nothing; without any the test proves less, but does not fail. */
	for (unsigned turns = 0; turns < 20000 || !atomic_load(&reader.started); turns++)
		sched_yield();
	vc_log_submit(fix.log, &second, false, NULL);
	assert_int_equal(figures().written_lsn, 1);
	vc_log_submit(fix.log, &first, false, NULL);
	pthread_join(thread, NULL);
	assert_true(reader.ok);
}

/* ---- many threads ---- */

struct worker {
	pthread_t thread;
	uint64_t seed;
	unsigned nappends;
	uint64_t highest_acked;
};

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	for (unsigned i = 0; i < w->nappends; i++) {
		size_t len = VC_ROUND_UP(FIX_LOG_RECORD_MIN + vc_unit_below(&w->seed, 1500), (size_t)8);
		struct vc_log_slot slot;
		struct vc_wait wait;
		bool durable = vc_unit_below(&w->seed, 3) != 0;

		assert(fix_log_admit(&fix, VC_LOG_META, len) == 0);
		assert(fix_log_reserve(&fix, len, &slot) == 0);
		vc_wait_init(&wait);
		vc_log_submit(fix.log, &slot, durable, &wait.done);
		assert(vc_wait_for(&wait) == 0);
		assert(figures().written_lsn >= slot.lsn);
		if (durable || vc_unit_below(&w->seed, 4) == 0) {
			assert(vc_log_flush_wait(fix.log, slot.lsn) == 0);
			assert(figures().durable_lsn >= slot.lsn);
			w->highest_acked = slot.lsn;
		}
		if (vc_unit_below(&w->seed, 4) == 0)
			assert(fix_log_reads(&fix, slot.lsn));
	}
	return NULL;
}

static void run_workers(unsigned n, unsigned nappends, uint64_t *ret_acked)
{
	struct worker workers[8];
	uint64_t seed = vc_unit_seed();

	*ret_acked = 0;
	for (unsigned i = 0; i < n; i++) {
		workers[i] = (struct worker){ .seed = seed + i * 1000003, .nappends = nappends };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]), 0);
	}
	for (unsigned i = 0; i < n; i++) {
		pthread_join(workers[i].thread, NULL);
		*ret_acked = VC_MAX(*ret_acked, workers[i].highest_acked);
	}
}

static void test_threads(void **state VC_UNUSED)
{
	uint64_t acked;

	assert_int_equal(fix_log_open(&fix), 0);
	run_workers(8, 60, &acked);
	assert_int_equal(figures().last_lsn, 480);
	fix_log_close(&fix, true);
	assert_int_equal(fix_log_open(&fix), 0);
	assert_int_equal(fix.replayed, 480);
	assert_int_equal(fix.mismatches, 0);
}

/* Group commit: flushes that come together share a sync. */
static void test_group_commit(void **state VC_UNUSED)
{
	enum { N = 64 };
	struct noted noted[N];
	uint64_t before;

	assert_int_equal(fix_log_open(&fix), 0);
	for (unsigned i = 0; i < N; i++)
		fix_log_append(&fix, 96);
	before = vc_sim_calls(sim, VC_SIM_SYNC);
	for (unsigned i = 0; i < N; i++)
		vc_log_flush(fix.log, i + 1, false, note(&noted[i], i + 1));
	assert_int_equal(vc_log_flush_wait(fix.log, 0), 0);
	fix_log_close(&fix, false);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(atomic_load(&noted[i].calls), 1);
	/* What was written when the first sync began needs no second one; a segment may be made meanwhile. */
	assert_true(vc_sim_calls(sim, VC_SIM_SYNC) - before <= FIX_LOG_SEGMENTS);
}

/* ---- durability ---- */

/* The power goes at this event: all that had been acknowledged as durable must be replayed. */
static void expect_after_crash(size_t event, uint64_t acked)
{
	struct vc_sim *crashed = vc_sim_crash(sim, event, &(struct vc_sim_policy){ .keep = VC_SIM_KEEP_NONE });
	struct log_fixture after;

	fix_log_init(&after, vc_sim_io(crashed), "/log");
	after.recs = fix.recs;
	after.nrecs = fix.nrecs;
	assert_int_equal(fix_log_open(&after), 0);
	assert_int_equal(after.mismatches, 0);
	assert_true(after.replayed >= acked);
	after.recs = NULL;
	fix_log_fini(&after);
	vc_sim_free(crashed);
	fix_log_init(&after, NULL, NULL); /* the fixture in use is the other again */
}

static void test_acknowledged_is_durable(void **state VC_UNUSED)
{
	enum { N = 60 };
	uint64_t seed = vc_unit_seed();
	struct noted noted[N];
	unsigned n = 0;

	assert_int_equal(fix_log_open(&fix), 0);
	for (unsigned i = 0; i < N; i++) {
		size_t len = VC_ROUND_UP(FIX_LOG_RECORD_MIN + vc_unit_below(&seed, 9000), (size_t)8);
		struct vc_log_slot slot;

		assert_int_equal(fix_log_admit(&fix, VC_LOG_META, len), 0);
		assert_int_equal(fix_log_reserve(&fix, len, &slot), 0);
		vc_log_submit(fix.log, &slot, true, note(&noted[n++], slot.lsn));
		if (vc_unit_below(&seed, 4) == 0)
			assert_int_equal(vc_log_flush_wait(fix.log, slot.lsn), 0);
		if (i % 25 == 24)
			fix_log_cut(&fix);
	}
	fix_log_close(&fix, true);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(atomic_load(&noted[i].calls), 1);
		assert_int_equal(noted[i].error, 0);
		expect_after_crash(noted[i].events, noted[i].lsn);
	}
}

static void test_threads_durable(void **state VC_UNUSED)
{
	uint64_t acked;

	assert_int_equal(fix_log_open(&fix), 0);
	run_workers(4, 40, &acked);
	expect_after_crash(vc_sim_events(sim), acked);
}

static atomic_int hook_calls, hook_error;

static int hook_before_sync(void *ctx VC_UNUSED)
{
	atomic_fetch_add(&hook_calls, 1);
	return atomic_load(&hook_error);
}

static void test_before_sync(void **state VC_UNUSED)
{
	atomic_store(&hook_error, 0);
	atomic_store(&hook_calls, 0);
	fix.params.before_sync = hook_before_sync;
	assert_int_equal(fix_log_open(&fix), 0);
	assert_int_equal(append_durable(96), 0);
	assert_true(atomic_load(&hook_calls) >= 1);
	atomic_store(&hook_error, -EIO);
	fix_log_append(&fix, 96);
	assert_int_equal(vc_log_flush_wait(fix.log, 0), -EIO);
	assert_int_equal(figures().durable_lsn, 1);
	assert_true(figures().failed);
	assert_int_equal(vc_log_flush_wait(fix.log, 1), 0);
}

/* ---- failures ---- */

static void expect_failed(void)
{
	assert_true(figures().failed);
	assert_int_equal(vc_log_admit(fix.log, VC_LOG_META, 96), -EROFS);
	assert_int_equal(vc_log_admit(fix.log, VC_LOG_DATA, 96), -EROFS);
	assert_true(vc_unit_messages() > 0);
}

static void test_write_fails(void **state VC_UNUSED)
{
	struct vc_log_slot slots[4];
	struct noted noted[4];
	struct vc_log_slot late;

	assert_int_equal(fix_log_open(&fix), 0);
	assert_int_equal(append_durable(96), 0);
	make_all_segments();
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(fix_log_admit(&fix, VC_LOG_META, 96), 0);
		assert_int_equal(fix_log_reserve(&fix, 96, &slots[i]), 0);
	}
	assert_int_equal(fix_log_admit(&fix, VC_LOG_META, 96), 0);
	vc_sim_fail(sim, &(struct vc_sim_fault){ .ops = VC_SIM_WRITE, .path = "/log", .nth = 1, .error = EIO, .partial = true });
	for (unsigned i = 0; i < 4; i++)
		vc_log_submit(fix.log, &slots[i], i % 2, note(&noted[i], slots[i].lsn));
	vc_sim_fail(sim, NULL);
	expect_failed();
	assert_int_equal(vc_log_reserve(fix.log, 96, &late), -EROFS);
	assert_int_equal(vc_log_flush_wait(fix.log, 0), -EIO);
	assert_int_equal(vc_log_flush_wait(fix.log, 1), 0);
	assert_false(fix_log_reads(&fix, slots[0].lsn));
	assert_true(fix_log_reads(&fix, 1));
	fix_log_close(&fix, false);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(atomic_load(&noted[i].calls), 1);
		assert_int_equal(noted[i].error, -EIO);
	}
	assert_int_equal(fix_log_open(&fix), 0);
	assert_true(fix.replayed >= 1);
	assert_int_equal(fix.mismatches, 0);
	assert_int_equal(append_durable(96), 0);
}

/* Every write of a run fails once: never is anything acknowledged that is not there afterwards. */
static void test_each_write_fails(void **state VC_UNUSED)
{
	for (unsigned nth = 1; nth <= 24; nth++) {
		uint64_t acked = 0, lsn;

		assert_int_equal(fix_log_open(&fix), 0);
		lsn = fix.replayed;
		vc_sim_fail(sim, &(struct vc_sim_fault){ .ops = VC_SIM_WRITE | VC_SIM_SYNC, .path = "/log", .nth = nth,
							 .error = EIO, .partial = nth % 2, .sticky = nth % 3 == 0 });
		for (unsigned i = 0; i < 12; i++)
			if (append_durable(96 + 800 * (nth % 5)) == 0)
				acked = ++lsn;
			else
				break;
		vc_sim_fail(sim, NULL);
		expect_after_crash(vc_sim_events(sim), acked);
		/* The process ends, the kernel goes on: what was in doubt is counted on from now, and must be made certain. */
		fix_log_close(&fix, false);
		assert_int_equal(fix_log_open(&fix), 0);
		assert_true(fix.replayed >= acked);
		expect_after_crash(vc_sim_events(sim), fix.replayed);
		teardown(NULL);
		setup_sim(NULL);
	}
}

static void test_sync_fails_for_good(void **state VC_UNUSED)
{
	uint64_t syncs;

	assert_int_equal(fix_log_open(&fix), 0);
	make_all_segments();
	assert_int_equal(append_durable(96), 0);
	fix_log_append(&fix, 96);
	vc_sim_fail(sim, &(struct vc_sim_fault){ .ops = VC_SIM_SYNC, .path = "/log", .nth = 1, .error = EIO });
	assert_int_equal(vc_log_flush_wait(fix.log, 2), -EIO);
	expect_failed();
	syncs = vc_sim_calls(sim, VC_SIM_SYNC);
	assert_int_equal(vc_log_flush_wait(fix.log, 2), -EIO);
	assert_int_equal(vc_log_flush_wait(fix.log, 0), -EIO);
	assert_int_equal(vc_log_flush_wait(fix.log, 1), 0);
	assert_int_equal(vc_sim_calls(sim, VC_SIM_SYNC), syncs);
	assert_int_equal(figures().durable_lsn, 1);
	assert_true(fix_log_reads(&fix, 2));
}

/* Failed from outside, with a record in flight and a flush that waits for it. */
static void test_fail_from_outside(void **state VC_UNUSED)
{
	struct vc_log_slot slot;
	struct noted written, flushed;

	assert_int_equal(fix_log_open(&fix), 0);
	assert_int_equal(fix_log_admit(&fix, VC_LOG_META, 96), 0);
	assert_int_equal(fix_log_reserve(&fix, 96, &slot), 0);
	vc_log_flush(fix.log, 0, false, note(&flushed, slot.lsn));
	vc_log_fail(fix.log, -EIO);
	expect_failed();
	assert_int_equal(vc_log_flush_wait(fix.log, 0), -EIO);
	vc_log_submit(fix.log, &slot, false, note(&written, slot.lsn));
	fix_log_close(&fix, false);
	assert_int_equal(atomic_load(&written.calls), 1);
	assert_int_equal(written.error, -EIO);
	assert_int_equal(atomic_load(&flushed.calls), 1);
	assert_int_equal(flushed.error, -EIO);
}

static int is_finished(void *ctx VC_UNUSED, const char *name) { return strstr(name, ".new") != NULL; }

/* The disk is full while a segment is being made: the log stays as it is and goes on. */
static void test_no_space_for_segments(void **state VC_UNUSED)
{
	vc_sim_set_capacity(sim, 2 * FIX_LOG_SEGMENT + 64 * 1024);
	vc_unit_catch_messages(true);
	assert_int_equal(fix_log_open(&fix), 0);
	while (vc_log_admit(fix.log, VC_LOG_META, 1000) == 0) {
		struct vc_log_slot slot;

		assert_int_equal(fix_log_reserve(&fix, 1000, &slot), 0);
		vc_log_submit(fix.log, &slot, false, NULL);
	}
	while (vc_unit_messages() == 0)
		sched_yield(); /* until somebody says that no segment could be added */
	vc_unit_catch_messages(false);
	assert_int_equal(vc_log_flush_wait(fix.log, 0), 0);
	assert_false(figures().failed);
	fix_log_close(&fix, true);
	assert_int_equal(vc_io_list(fix.params.io, fix.params.dir, is_finished, NULL), 0);
	vc_sim_set_capacity(sim, UINT64_C(1) << 40);
	assert_int_equal(fix_log_open(&fix), 0);
	assert_int_equal(fix.mismatches, 0);
	assert_true(fix.replayed > 60);
}

/* A segment that a crash left unfinished is made again before it is used. */
static void test_unfinished_segment(void **state VC_UNUSED)
{
	char path[5000];
	struct stat st;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%04u.log.new", dir, VC_LOG_SEGMENTS_MIN);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs("the beginning", f);
	fclose(f);
	assert_int_equal(fix_log_open(&fix), 0);
	make_all_segments();
	assert_int_equal(access(path, F_OK), -1);
	for (uint32_t slot = 0; slot < FIX_LOG_SEGMENTS; slot++) {
		snprintf(path, sizeof(path), "%s/%04u.log", dir, slot);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_size, FIX_LOG_SEGMENT);
	}
}

/* None is ever shorter by itself, not even one that was never used: what was in it may be what is missing. */
static void test_short_segment(void **state VC_UNUSED)
{
	char path[5000];

	assert_int_equal(fix_log_open(&fix), 0);
	fix_log_close(&fix, true);
	for (uint32_t slot = 0; slot < VC_LOG_SEGMENTS_MIN; slot++) {
		snprintf(path, sizeof(path), "%s/%04u.log", dir, slot);
		assert_int_equal(truncate(path, slot ? 0 : FIX_LOG_SEGMENT - 1), 0);
		assert_int_equal(fix_log_open(&fix), -EUCLEAN);
		assert_int_equal(truncate(path, FIX_LOG_SEGMENT), 0);
	}
}

/* ---- space ---- */

/* Append until the log is full for this class; returns how many. */
static unsigned fill(enum vc_log_class class, size_t len)
{
	struct vc_log_slot slot;
	unsigned n = 0;
	int r;

	while ((r = fix_log_admit(&fix, class, len)) == 0) {
		assert_int_equal(fix_log_reserve(&fix, len, &slot), 0);
		vc_log_submit(fix.log, &slot, false, NULL);
		n++;
	}
	assert_int_equal(r, -EAGAIN);
	return n;
}

static void test_full_log(void **state VC_UNUSED)
{
	struct fix_section *first;
	unsigned data, meta, spaces;

	assert_int_equal(fix_log_open(&fix), 0);
	first = fix.current;
	data = fill(VC_LOG_DATA, 8192) * 8192;
	assert_true(data > FIX_LOG_SEGMENT * (FIX_LOG_SEGMENTS - 4));
	fill(VC_LOG_DATA, 96);
	meta = fill(VC_LOG_META, 96) * 96;
	assert_true(meta > FIX_LOG_SEGMENT / 4);
	assert_int_equal(vc_log_admit(fix.log, VC_LOG_META, 96), -EAGAIN);
	assert_false(figures().failed);
	assert_int_equal(vc_log_flush_wait(fix.log, 0), 0);
	assert_true(fix_log_cut(&fix));
	spaces = fix.spaces;
	fix_log_release(&fix, &first->s);
	assert_true(fix.spaces > spaces);
	assert_int_equal(figures().used, 0);
	assert_int_equal(vc_log_admit(fix.log, VC_LOG_DATA, 8192), 0);
	vc_log_unadmit(fix.log, 8192);
}

/* Whatever a new log refuses because segments have not been made yet is admitted once they are. */
static void test_long_record_on_new_log(void **state VC_UNUSED)
{
	size_t len;

	assert_int_equal(fix_log_open(&fix), 0);
	len = VC_ROUND_DOWN(vc_log_record_max(fix.log), (size_t)8);
	assert_int_equal(fix_log_admit(&fix, VC_LOG_DATA, len), 0);
	vc_log_unadmit(fix.log, len);
}

static void test_sections(void **state VC_UNUSED)
{
	struct fix_section *s[4];
	uint64_t next_seq;

	assert_int_equal(fix_log_open(&fix), 0);
	assert_false(fix_log_cut(&fix));
	for (unsigned i = 0; i < 4; i++) {
		s[i] = fix.current;
		next_seq = vc_log_next_seq(fix.log);
		for (unsigned k = 0; k <= i; k++)
			fix_log_append(&fix, 1000);
		assert_true(fix_log_cut(&fix));
		assert_int_equal(s[i]->s.last_lsn - s[i]->s.first_lsn, i);
		assert_int_equal(s[i]->s.first_seq, next_seq);
		assert_int_equal(s[i]->s.last_seq, next_seq);
		vc_log_wait_applied(fix.log, &s[i]->s);
	}
	assert_false(fix_log_cut(&fix));
	assert_int_equal(figures().used, 4 * FIX_LOG_SEGMENT);
	fix_log_release(&fix, &s[2]->s);
	fix_log_release(&fix, &s[1]->s);
	assert_int_equal(fix.ngone, 0);
	assert_int_equal(figures().used, 4 * FIX_LOG_SEGMENT);
	assert_true(fix_log_reads(&fix, s[1]->s.first_lsn));
	fix_log_release(&fix, &s[0]->s);
	assert_int_equal(fix.ngone, 3);
	assert_int_equal(s[0]->order, 1);
	assert_int_equal(s[1]->order, 2);
	assert_int_equal(s[2]->order, 3);
	assert_int_equal(figures().used, FIX_LOG_SEGMENT);
	assert_true(fix_log_reads(&fix, s[3]->s.first_lsn));
	fix_log_release(&fix, &s[3]->s);
	assert_int_equal(figures().used, 0);
}

static void *applied_main(void *arg)
{
	struct vc_log_section *section = arg;

	vc_log_wait_applied(fix.log, section);
	return (void *)(uintptr_t)(atomic_load(&section->inflight) == 0);
}

static void test_wait_applied(void **state VC_UNUSED)
{
	struct vc_log_section *section;
	struct vc_log_slot slots[3];
	pthread_t thread;
	void *zero;

	assert_int_equal(fix_log_open(&fix), 0);
	section = &fix.current->s;
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(fix_log_admit(&fix, VC_LOG_META, 96), 0);
		assert_int_equal(vc_log_reserve(fix.log, 96, &slots[i]), 0);
		fix_log_bytes(1, 96, slots[i].lsn, slots[i].buf);
		vc_log_submit(fix.log, &slots[i], false, NULL);
	}
	vc_log_applied(fix.log, slots[1].section);
	assert_true(fix_log_cut(&fix));
	assert_int_equal(pthread_create(&thread, NULL, applied_main, section), 0);
	vc_log_applied(fix.log, slots[2].section);
	vc_log_applied(fix.log, slots[0].section);
	pthread_join(thread, &zero);
	assert_non_null(zero);
}

/* What is admitted can be reserved, however often and however badly the log is cut and released in between. */
struct hoard {
	size_t lens[4096];
	unsigned n;
};

static void hoard_reserve(struct hoard *h, unsigned at)
{
	struct vc_log_slot slot;

	assert_int_equal(fix_log_reserve(&fix, h->lens[at], &slot), 0);
	vc_log_submit(fix.log, &slot, false, NULL);
	h->lens[at] = h->lens[--h->n];
}

static void hoard_step(struct hoard *h, uint64_t *seed, struct fix_section **oldest)
{
	size_t len = fix_log_len(seed);

	switch (vc_unit_below(seed, 12)) {
	case 0: case 1: case 2: case 3: case 4:
		if (h->n < VC_ARRAY_LEN(h->lens) && vc_log_admit(fix.log, vc_unit_below(seed, 2), len) == 0)
			h->lens[h->n++] = len;
		break;
	case 5: case 6: case 7:
		if (h->n)
			hoard_reserve(h, (unsigned)vc_unit_below(seed, h->n));
		break;
	case 8:
		while (h->n)
			hoard_reserve(h, (unsigned)vc_unit_below(seed, h->n));
		break;
	case 9: case 10:
		fix_log_cut(&fix);
		break;
	default:
		if (*oldest == fix.current || vc_unit_below(seed, 3))
			break;
		assert_int_equal(vc_log_flush_wait(fix.log, (*oldest)->s.last_lsn), 0);
		fix_log_release(&fix, &(*oldest)->s);
		*oldest = vc_container_of((*oldest)->s.next, struct fix_section, s);
	}
}

static void test_admitted_fits(void **state VC_UNUSED)
{
	uint64_t seed = vc_unit_seed();
	struct hoard *h = calloc(1, sizeof(*h));
	struct fix_section *oldest;

	assert_non_null(h);
	assert_int_equal(fix_log_open(&fix), 0);
	make_all_segments();
	oldest = fix.current;
	for (unsigned i = 0; i < 20000; i++)
		hoard_step(h, &seed, &oldest);
	while (h->n)
		hoard_reserve(h, 0);
	free(h);
	assert_false(figures().failed);
	assert_int_equal(fix.log->admitted, 0);
}

int main(void)
{
#define POSIX(name) cmocka_unit_test_setup_teardown(name, setup_posix, teardown)
#define SIM(name) cmocka_unit_test_setup_teardown(name, setup_sim, teardown)
	const struct CMUnitTest tests[] = {
		POSIX(test_append_and_read),
		POSIX(test_longest_record),
		POSIX(test_completions),
		POSIX(test_read_waits),
		POSIX(test_threads),
		SIM(test_group_commit),
		SIM(test_acknowledged_is_durable),
		SIM(test_threads_durable),
		SIM(test_before_sync),
		SIM(test_write_fails),
		SIM(test_each_write_fails),
		SIM(test_sync_fails_for_good),
		POSIX(test_fail_from_outside),
		SIM(test_no_space_for_segments),
		POSIX(test_unfinished_segment),
		POSIX(test_short_segment),
		POSIX(test_full_log),
		POSIX(test_long_record_on_new_log),
		POSIX(test_sections),
		POSIX(test_wait_applied),
		POSIX(test_admitted_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
