/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Exhaustive small workloads: every sequence of up to three operations after each of several beginnings; the crash comes after
 * every event of the last one, with every policy of crash_look_range.
 *
 * A world is one sequence. Those whose operations do not apply, or whose last one changes nothing on disk, end early: a
 * shorter or an equal one covers them, and what a crash before the first event of the last one leaves (in a log of other sizes, and perhaps in
 * another part). See crash_drive.h for the environment; VC_TEST_LENGTH: no longer sequences; VC_TEST_PART: K/N, the K-th of N parts of them, each a
 * mixture. With VC_TEST_STATES=all fewer states are struck again.
 */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>
#include "crash_count.h"
#include "crash_drive.h"
#include "crash_look.h"
#include "crash_ops.h"
#include "engine.h"

#define KIB UINT64_C(1024)
#define LENGTH_MAX 3
#define STATES_DEFAULT 3000
#define NEST 40
/* When all there is will be looked at, of the greatest length, there are millions of states to choose those from that more is asked of. */
#define ALL_NEST 500
#define ALL_REBUILD 80

static bool has(struct crash_run *run, const char *name)
{
	return model_find(&run->w.model, 0, name) != NULL;
}

static bool has_both(struct crash_run *run, const char *is, const char *is_not)
{
	return has(run, is) && !has(run, is_not);
}

/* ---- operations; false: it cannot be done here ---- */

static bool op_create(struct crash_run *run)
{
	const char *name = has(run, "a") ? "e" : "a";

	if (has(run, name))
		return false;
	crash_do_create(run, name);
	return true;
}

static bool op_write(struct crash_run *run)
{
	if (!has(run, "a"))
		return false;
	crash_do_write(run, "a", 4 * KIB, 8 * KIB, 0);
	return true;
}

static bool op_overlapping(struct crash_run *run)
{
	if (!has(run, "a"))
		return false;
	crash_do_write(run, "a", 6000, 5000, 0);
	return true;
}

/* Long enough to go straight to a chunk file. */
static bool op_large(struct crash_run *run)
{
	if (!has(run, "a"))
		return false;
	crash_do_write(run, "a", 0, 64 * KIB, 0);
	return true;
}

static bool op_write_clone(struct crash_run *run)
{
	if (!has(run, "b"))
		return false;
	crash_do_write(run, "b", 8 * KIB, 4 * KIB, 0);
	return true;
}

static bool op_flush(struct crash_run *run)
{
	crash_do_flush(run);
	return true;
}

static bool op_clone(struct crash_run *run)
{
	if (!has_both(run, "a", "b"))
		return false;
	crash_do_clone(run, "a", "b");
	return true;
}

static bool op_clone_of_clone(struct crash_run *run)
{
	if (!has_both(run, "b", "c"))
		return false;
	crash_do_clone(run, "b", "c");
	return true;
}

static bool op_discard(struct crash_run *run)
{
	if (!has(run, "a"))
		return false;
	crash_do_punch(run, "a", 4 * KIB, 8 * KIB);
	return true;
}

static bool op_truncate(struct crash_run *run)
{
	if (!has(run, "a"))
		return false;
	crash_do_resize(run, "a", 5000);
	return true;
}

static bool op_rename(struct crash_run *run)
{
	if (!has(run, "a"))
		return false;
	crash_do_rename(run, "a", has(run, "b") ? "b" : "d");
	return true;
}

static bool op_delete(struct crash_run *run)
{
	if (!has(run, "a"))
		return false;
	crash_do_unlink(run, "a");
	return true;
}

static bool op_destage(struct crash_run *run)
{
	crash_do_task(run, VC_TASK_DESTAGE);
	return true;
}

/* The same while other things go on. */
static bool op_checkpoint(struct crash_run *run)
{
	crash_do_start(run, VC_TASK_DESTAGE);
	return true;
}

static bool op_clean(struct crash_run *run)
{
	crash_do_task(run, VC_TASK_CLEAN);
	return true;
}

/* A checkpoint comes in between, which hands the clean its deletions. */
static bool clean_held(struct crash_run *run, enum crash_hold where)
{
	uint64_t id;

	if (!has(run, "a"))
		return false;
	crash_hold(where);
	assert_int_equal(vc_pool_task_start(run->w.pool, VC_TASK_CLEAN, &id), 0);
	crash_wait_held();
	crash_do_write(run, "a", 10 * KIB, 4 * KIB, 0);
	crash_do_task(run, VC_TASK_DESTAGE);
	crash_hold(CRASH_HOLD_NOT);
	assert_int_equal(vc_pool_task_wait(run->w.pool, VC_TASK_CLEAN, id), 0);
	return true;
}

static bool op_during_mark(struct crash_run *run) { return clean_held(run, CRASH_HOLD_MARK); }
static bool op_before_sweep(struct crash_run *run) { return clean_held(run, CRASH_HOLD_SWEEP); }

static bool op_reopen(struct crash_run *run)
{
	crash_run_reopen(run);
	return true;
}

static bool op_kill(struct crash_run *run)
{
	crash_run_kill(run);
	return true;
}

static const struct {
	const char *name;
	bool (*run)(struct crash_run *run);
} ops[] = {
	{ "create", op_create }, { "write", op_write }, { "overlapping write", op_overlapping }, { "large write", op_large },
	{ "write to clone", op_write_clone }, { "flush", op_flush }, { "clone", op_clone }, { "clone of clone", op_clone_of_clone },
	{ "discard", op_discard }, { "truncate", op_truncate }, { "rename", op_rename }, { "delete", op_delete },
	{ "destage", op_destage }, { "checkpoint", op_checkpoint }, { "clean", op_clean },
	{ "checkpoint during mark", op_during_mark },
	{ "checkpoint before sweep", op_before_sweep }, { "reopen", op_reopen }, { "kill", op_kill },
};

#define NOPS VC_ARRAY_LEN(ops)

/* ---- beginnings ---- */

static void begin_empty(struct crash_run *run VC_UNUSED) {}

/* An image in the maps and a clone that shares its nodes. */
static void begin_destaged(struct crash_run *run)
{
	crash_do_create(run, "a");
	crash_do_write(run, "a", 0, 20 * KIB, 0);
	crash_do_write(run, "a", 64 * KIB, 64 * KIB, 0);
	crash_do_clone(run, "a", "b");
	crash_do_task(run, VC_TASK_DESTAGE);
}

/* The same with a frozen overlay that both hold, one of each, and a hole in the log: something deleted. */
static void begin_frozen(struct crash_run *run)
{
	begin_destaged(run);
	crash_do_write(run, "a", 2 * KIB, 6 * KIB, 0);
	crash_do_rename(run, "b", "d");
	crash_do_clone(run, "a", "b");
	crash_do_write(run, "a", 12 * KIB, 4 * KIB, 0);
	crash_do_write(run, "b", 0, 64 * KIB, 0);
	crash_do_unlink(run, "d");
}

/* A log that has gone round, little room left in its last segment, dead chunk segments to sweep. */
static void begin_old(struct crash_run *run)
{
	uint64_t log_bytes = run->geometry.log_segment_size * run->geometry.log_segments;

	crash_do_create(run, "a");
	for (uint64_t done = 0; done < log_bytes + log_bytes / 2; done += 12 * KIB) {
		crash_do_write(run, "a", done % (120 * KIB), 12 * KIB - 100, 0);
		if (done % (20 * 12 * KIB) == 0)
			crash_do_task(run, VC_TASK_DESTAGE);
	}
	crash_do_clone(run, "a", "b");
	for (unsigned i = 0; i < 8; i++)
		crash_do_write(run, "a", 0, 128 * KIB, 0);
	crash_do_task(run, VC_TASK_DESTAGE);
	crash_do_write(run, "a", 0, 100, 0);
}

static void (*const beginnings[])(struct crash_run *run) = { begin_empty, begin_destaged, begin_frozen, begin_old };

#define NBEGINNINGS VC_ARRAY_LEN(beginnings)

/* ---- one sequence ---- */

struct sequence {
	size_t beginning, length, op[LENGTH_MAX];
};

static size_t sequences_of(size_t length)
{
	size_t n = 1;

	while (length--)
		n *= NOPS;
	return n;
}

static size_t length_wanted(void)
{
	const char *given = getenv("VC_TEST_LENGTH");

	return given && *given ? VC_MIN(VC_MAX((size_t)strtoul(given, NULL, 0), (size_t)1), (size_t)LENGTH_MAX) : LENGTH_MAX;
}

static size_t sequences_all(void)
{
	size_t n = 0;

	for (size_t length = 1; length <= length_wanted(); length++)
		n += sequences_of(length);
	return n * NBEGINNINGS;
}

/* Each sequence meets each beginning, in an order of its own, so that every n-th number is a mixture of both. */
static struct sequence sequence_of(uint64_t i)
{
	uint64_t turn = i / NBEGINNINGS * UINT64_C(0x9e3779b97f4a7c15) >> 32;
	struct sequence s = { .beginning = (i + turn) % NBEGINNINGS, .length = 1 };

	i /= NBEGINNINGS;
	while (i >= sequences_of(s.length))
		i -= sequences_of(s.length++);
	for (size_t k = 0; k < s.length; k++) {
		s.op[k] = i % NOPS;
		i /= NOPS;
	}
	return s;
}

static void note_sequence(const struct sequence *s)
{
	world_note("beginning %zu", s->beginning);
	for (size_t k = 0; k < s->length; k++)
		world_note(", %s", ops[s->op[k]].name);
	world_note("\n");
}

static size_t part = 1, nparts = 1; /* VC_TEST_PART */

static bool all_wanted(void)
{
	const char *given = getenv("VC_TEST_STATES");

	return given && strcmp(given, "all") == 0 && length_wanted() == LENGTH_MAX;
}

static void world(uint64_t i, uint64_t seed, size_t want)
{
	struct sequence s = sequence_of(i);
	struct crash_run *run = crash_run_new_small(seed, ENGINE_DESTAGE_NEVER);
	size_t from = 0;
	bool applies = true;
	struct crash_look look;

	note_sequence(&s);
	crash_look_init(&look, seed, NEST);
	if (all_wanted()) {
		look.nest = (unsigned)VC_MAX(ALL_NEST / nparts, look.nest);
		look.rebuild = (unsigned)VC_MAX(ALL_REBUILD / nparts, look.rebuild);
	}
	beginnings[s.beginning](run);
	for (size_t k = 0; k < s.length && applies; k++) {
		from = vc_sim_events(run->sim);
		applies = ops[s.op[k]].run(run);
	}
	if (applies && vc_sim_events(run->sim) > from) {
		vc_sim_settle(run->sim, from);
		crash_look_range(&look, run, s.length > 1 ? from + 1 : from, vc_sim_events(run->sim), want);
	}
	crash_look_fini(&look);
	crash_run_free(run);
}

static void world_of_part(uint64_t i, uint64_t seed, size_t want) { world(i * nparts + part - 1, seed, want); }

static void test_sequences(void **state VC_UNUSED)
{
	const char *given = getenv("VC_TEST_PART");
	struct crash_drive drive = { .states_default = STATES_DEFAULT, .pinned = true, .world = world_of_part };

	if (given && *given && (sscanf(given, "%zu/%zu", &part, &nparts) != 2 || part < 1 || part > nparts || part > sequences_all()))
		fail_msg("VC_TEST_PART: '%s' is not K/N", given);
	drive.nworlds = (sequences_all() - part) / nparts + 1;
	crash_drive(&drive);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sequences, engine_setup, engine_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
