/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * LMDB is lost in a crash, at any moment of random work: a rebuild finds a state that the crash could have left. And power
 * cuts within rebuild, salvage and repair: they are run again and come to their end.
 *
 * VC_TEST_STATES: crash states to look at in all (at least 300); VC_TEST_SEED.
 */
#include "config.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include "books.h"
#include "crash_run.h"
#include "engine.h"
#include "meta.h"
#include "rebuild_impl.h"
#include "repair.h"
#include "sim_damage.h"

#define POOL "/pool"
#define DATA POOL "/meta/data.mdb"
#define STATES_DEFAULT 2000
#define STEPS 60
#define STATES_PER_RUN 40

static size_t states_wanted(void)
{
	const char *given = getenv("VC_TEST_STATES");

	return VC_MAX(given ? strtoul(given, NULL, 0) / 5 : STATES_DEFAULT, 300UL);
}

static void note(void *ctx VC_UNUSED, const char *text)
{
	if (getenv("VC_TEST_MESSAGES"))
		fprintf(stderr, "%s\n", text);
}

static struct crash_run *some_work(uint64_t *rng)
{
	struct crash_run *run = crash_run_new_small(vc_unit_random(rng), vc_unit_below(rng, 2) ? 1 : ENGINE_DESTAGE_NEVER);

	for (unsigned i = 0; i < STEPS; i++)
		crash_run_step(run);
	return run;
}

static bool rebuild(struct vc_sim *sim)
{
	struct vc_rebuild_options o = { .check = { .found = note }, .say = note };
	struct vc_rebuild_result result;

	assert_int_equal(vc_rebuild_pool(vc_sim_io(sim), POOL, &o, &result), 0);
	return result.replaced;
}

/* Is what the pool on `sim` holds what a crash of `run` at `at` may have left? Frees sim. */
static void is_allowed(struct crash_run *run, size_t at, const struct vc_sim_policy *policy, struct vc_sim *sim)
{
	struct model found = { .n = 0 };
	struct vc_pool *pool = NULL;
	int r = crash_load(sim, &pool, &found);

	if (r < 0 || crash_run_match(run, at, policy, model_state(&found)) == SIZE_MAX) {
		crash_run_explain(run, at, policy, &found);
		fail_msg("after the rebuild the pool %s", r < 0 ? "does not open" : "holds what it should not");
	}
	model_clear(&found);
	vc_pool_abandon(pool);
	vc_sim_free(sim);
}

static size_t random_point(struct crash_run *run, uint64_t *rng)
{
	return run->first_event + vc_unit_below(rng, vc_sim_events(run->sim) + 1 - run->first_event);
}

static void test_lost_in_crash(void **state VC_UNUSED)
{
	uint64_t rng = vc_unit_seed();
	size_t left = states_wanted() / 2;

	while (left) {
		struct crash_run *run = some_work(&rng);

		crash_run_stop(run);
		for (unsigned i = 0; i < STATES_PER_RUN && left; i++, left--) {
			size_t at = random_point(run, &rng);
			struct vc_sim_policy policy = crash_policy(run, &rng, at);
			struct vc_sim *sim = vc_sim_crash(run->sim, at, &policy);

			sim_damage_lmdb(sim, POOL);
			if (!rebuild(sim)) {
				struct model none = { .n = 0 };

				crash_run_explain(run, at, &policy, &none);
				fail_msg("the pool is not rebuilt");
			}
			is_allowed(run, at, &policy, sim);
		}
		crash_run_free(run);
	}
}

static struct vc_sim_policy some_policy(uint64_t *rng)
{
	static const enum vc_sim_keep kinds[] = { VC_SIM_KEEP_ALL, VC_SIM_KEEP_NONE, VC_SIM_KEEP_DATA, VC_SIM_KEEP_NAMES, VC_SIM_KEEP_RANDOM,
						  VC_SIM_KEEP_RANDOM };

	return (struct vc_sim_policy){ .keep = kinds[vc_unit_below(rng, VC_ARRAY_LEN(kinds))], .seed = vc_unit_random(rng) };
}

/* Each event of the rebuild is the last one at least once. */
static void test_crash_in_rebuild(void **state VC_UNUSED)
{
	struct vc_sim_policy all = { .keep = VC_SIM_KEEP_ALL };
	uint64_t rng = vc_unit_seed();
	struct crash_run *run = some_work(&rng);
	size_t at = vc_sim_events(run->sim), end;
	struct vc_sim *first;

	crash_run_stop(run);
	first = vc_sim_crash(run->sim, at, &all);
	sim_damage_lmdb(first, POOL);
	assert_true(rebuild(first));
	end = vc_sim_events(first);
	for (size_t i = 0; i <= end; i++) {
		struct vc_sim_policy policy = some_policy(&rng);
		struct vc_sim *sim = vc_sim_crash(first, i, &policy);

		assert_true(rebuild(sim));
		is_allowed(run, at, &all, sim);
	}
	print_message("%zu crashes within a rebuild\n", end + 1);
	vc_sim_free(first);
	crash_run_free(run);
}

/* ---- salvage ---- */

static void salvage(struct vc_sim *sim, struct vc_rebuild_result *ret)
{
	struct vc_rebuild_options o = { .check = { .found = note }, .salvage = true, .say = note };

	assert_int_equal(vc_rebuild_pool(vc_sim_io(sim), POOL, &o, ret), 0);
	assert_true(ret->replaced);
	assert_int_equal(ret->check.findings, 0);
	assert_int_equal(books_check(vc_sim_io(sim), POOL, true, NULL), 0);
}

/* What a mount finds, which then leaves the pool in order. */
static uint64_t mounted(struct vc_sim *sim)
{
	struct model found = { .n = 0 };
	struct vc_pool *pool = NULL;
	uint64_t state;

	assert_int_equal(crash_load(sim, &pool, &found), 0);
	state = model_state(&found);
	model_clear(&found);
	engine_close(pool);
	assert_int_equal(books_check(vc_sim_io(sim), POOL, true, NULL), 0);
	return state;
}

/* Wherever a salvage is interrupted, the next one has the same in the end. */
static void test_crash_in_salvage(void **state VC_UNUSED)
{
	struct vc_sim_policy all = { .keep = VC_SIM_KEEP_ALL };
	uint64_t rng = vc_unit_seed(), want;
	struct crash_run *run = some_work(&rng);
	struct vc_rebuild_result result;
	struct vc_sim *first, *sim;
	size_t from, end, step;

	crash_run_stop(run);
	first = vc_sim_crash(run->sim, vc_sim_events(run->sim), &all);
	sim_damage_all(first, POOL);
	from = vc_sim_events(first);
	salvage(first, &result); /* all is in the log when nothing was destaged yet */
	print_message("%s\n", result.salvaged ? "salvaged" : "rebuilt whole");
	end = vc_sim_events(first);
	sim = vc_sim_crash(first, end, &all);
	want = mounted(sim);
	vc_sim_free(sim);
	step = 1 + (end - from) / (states_wanted() / 8);
	for (size_t i = from + vc_unit_below(&rng, step); i <= end; i += step) {
		struct vc_sim_policy policy = some_policy(&rng);

		sim = vc_sim_crash(first, i, &policy);
		salvage(sim, &result);
		assert_int_equal(mounted(sim), want);
		vc_sim_free(sim);
	}
	print_message("%zu crashes within a salvage of %zu events\n", (end - from) / step + 1, end - from);
	vc_sim_free(first);
	crash_run_free(run);
}

/* ---- what is kept, and lasts ---- */

/* Is the file that LMDB was kept in there, with these bytes? */
static bool is_kept(struct vc_sim *sim, const char *name, const uint8_t *want, size_t len)
{
	struct vc_file *file;
	uint8_t *got = malloc(len + 1);
	char path[128];
	ssize_t n = -1;

	assert_non_null(got);
	snprintf(path, sizeof(path), POOL "/backup/%s", name);
	if (vc_io_open(vc_sim_io(sim), path, VC_IO_READ, &file) == 0) {
		n = vc_io_pread(file, got, len + 1, 0);
		vc_io_close(file);
	}
	n = n == (ssize_t)len && memcmp(got, want, len) == 0 ? 0 : -1;
	free(got);
	return n == 0;
}

static uint8_t *read_lmdb(struct vc_sim *sim, size_t *ret_len)
{
	struct vc_file *file;
	uint64_t size;
	uint8_t *bytes;

	assert_int_equal(vc_io_open(vc_sim_io(sim), DATA, VC_IO_READ, &file), 0);
	assert_int_equal(vc_io_size(file, &size), 0);
	bytes = malloc(size);
	assert_non_null(bytes);
	assert_int_equal(vc_io_pread(file, bytes, size, 0), size);
	vc_io_close(file);
	*ret_len = size;
	return bytes;
}

static int no_name(void *ctx VC_UNUSED, const char *name VC_UNUSED) { return 0; }

/* POOL/meta may have been lost with all that was in it: what is put there later would be lost with it again. */
static void test_places_are_durable(void **state VC_UNUSED)
{
	struct vc_sim_policy none = { .keep = VC_SIM_KEEP_NONE };
	struct vc_sim *sim = vc_sim_new(), *after;
	struct vc_io *io = vc_sim_io(sim);

	assert_int_equal(vc_io_mkdir(io, POOL), 0);
	assert_int_equal(vc_io_sync_dir(io, "/"), 0);
	assert_int_equal(vc_replace_begin(io, POOL), 0);
	after = vc_sim_crash(sim, vc_sim_events(sim), &none);
	assert_int_equal(vc_io_list(vc_sim_io(after), POOL "/meta", no_name, NULL), 0);
	assert_int_equal(vc_io_list(vc_sim_io(after), POOL "/backup", no_name, NULL), 0);
	vc_sim_free(after);
	vc_sim_free(sim);
}

/* What a rebuild has said to be done survives a power cut: the new LMDB in its place, and the old one where it was put. */
static void test_rebuilt_is_durable(void **state VC_UNUSED)
{
	struct vc_sim_policy all = { .keep = VC_SIM_KEEP_ALL }, none = { .keep = VC_SIM_KEEP_NONE };
	struct vc_rebuild_options o = { .check = { .found = note }, .say = note };
	struct vc_rebuild_result result;
	uint64_t rng = vc_unit_seed();
	struct crash_run *run = some_work(&rng);
	size_t at = vc_sim_events(run->sim), len;
	struct vc_sim *first, *after;
	uint8_t *old;

	crash_run_stop(run);
	first = vc_sim_crash(run->sim, at, &all);
	old = read_lmdb(first, &len);
	assert_int_equal(vc_rebuild_pool(vc_sim_io(first), POOL, &o, &result), 0);
	assert_true(result.replaced);
	after = vc_sim_crash(first, vc_sim_events(first), &none);
	assert_true(is_kept(after, result.kept, old, len));
	is_allowed(run, at, &all, after);
	free(old);
	vc_sim_free(first);
	crash_run_free(run);
}

/* ---- repair ---- */

static void repair(struct vc_sim *sim, struct vc_repair_result *ret)
{
	struct vc_repair_options o = { .check = { .found = note }, .say = note, .left = note };

	assert_int_equal(vc_repair_pool(vc_sim_io(sim), POOL, &o, ret), 0);
}

/*
 * What is in the log goes into the maps: a repair would do that too, but only where it finds something. Else what the log says (of a deleted
 * image, that it is gone) would come into the books together with the repair.
 */
static void drain(struct vc_sim *sim)
{
	struct vc_repair_options o = { .check = { .found = note }, .say = note, .left = note };
	struct vc_repair_result result;

	assert_int_equal(vc_repair_drained(vc_sim_io(sim), POOL, &o, &result), 0);
	assert_int_equal(result.before.findings, 0);
}

static void images_only(struct books *b)
{
	size_t kept = 0;

	for (size_t i = 0; i < b->n; i++) {
		if (b->rows[i].key[0] == VC_ROW_IMAGE) {
			b->rows[kept++] = b->rows[i];
		} else {
			free(b->rows[i].key);
			free(b->rows[i].value);
		}
	}
	b->n = kept;
}

static void repaired_again(struct vc_sim *sim, const struct books *images)
{
	struct vc_repair_result result;
	struct books after, repaired;

	repair(sim, &result);
	assert_int_equal(result.after.findings, 0);
	repair(sim, &result);
	assert_int_equal(result.before.findings + result.fixed, 0);
	assert_int_equal(books_check(vc_sim_io(sim), POOL, true, NULL), 0);
	books_load(vc_sim_io(sim), POOL, &after);
	images_only(&after);
	assert_true(books_same(images, &after));
	books_free(&after);
	/* and what the repair did is in the backup: a rebuild does not undo it */
	books_load(vc_sim_io(sim), POOL, &repaired);
	sim_damage_lmdb(sim, POOL);
	assert_true(rebuild(sim));
	assert_int_equal(books_check(vc_sim_io(sim), POOL, true, NULL), 0);
	books_load(vc_sim_io(sim), POOL, &after);
	assert_true(books_same(&repaired, &after));
	books_free(&repaired);
	books_free(&after);
}

static void test_crash_in_repair(void **state VC_UNUSED)
{
	struct vc_sim_policy all = { .keep = VC_SIM_KEEP_ALL };
	uint64_t rng = vc_unit_seed();
	struct crash_run *run = some_work(&rng);
	struct vc_repair_result result;
	struct books images;
	struct vc_sim *first;
	size_t end, from;

	crash_run_reopen(run);
	crash_run_stop(run);
	first = vc_sim_crash(run->sim, vc_sim_events(run->sim), &all);
	drain(first);
	books_load(vc_sim_io(first), POOL, &images);
	sim_damage_rows(first, POOL, &images);
	images_only(&images);
	from = vc_sim_events(first);
	repair(first, &result);
	assert_true(result.before.findings > 0 && result.after.findings == 0 && result.fixed > 0);
	end = vc_sim_events(first);
	for (size_t i = from; i <= end; i++) {
		struct vc_sim_policy policies[] = { { .keep = VC_SIM_KEEP_NONE }, { .keep = VC_SIM_KEEP_NAMES }, some_policy(&rng) };

		for (size_t k = 0; k < VC_ARRAY_LEN(policies); k++) {
			struct vc_sim *sim = vc_sim_crash(first, i, &policies[k]);

			repaired_again(sim, &images);
			vc_sim_free(sim);
		}
	}
	print_message("%zu crashes within a repair\n", end + 1 - from);
	books_free(&images);
	vc_sim_free(first);
	crash_run_free(run);
}

/* What a repair has said to be done survives a power cut: nothing is left to repair, and LMDB as it was is kept. */
static void test_repaired_is_durable(void **state VC_UNUSED)
{
	struct vc_sim_policy all = { .keep = VC_SIM_KEEP_ALL }, none = { .keep = VC_SIM_KEEP_NONE };
	uint64_t rng = vc_unit_seed();
	struct crash_run *run = some_work(&rng);
	struct vc_repair_result result;
	struct vc_sim *first, *after;
	struct books books;
	uint8_t *old;
	size_t len;

	crash_run_reopen(run);
	crash_run_stop(run);
	first = vc_sim_crash(run->sim, vc_sim_events(run->sim), &all);
	drain(first);
	books_load(vc_sim_io(first), POOL, &books);
	sim_damage_rows(first, POOL, &books);
	old = read_lmdb(first, &len);
	repair(first, &result);
	assert_true(result.replaced);
	after = vc_sim_crash(first, vc_sim_events(first), &none);
	assert_true(is_kept(after, result.kept, old, len));
	repair(after, &result);
	assert_int_equal(result.before.findings, 0);
	free(old);
	books_free(&books);
	vc_sim_free(after);
	vc_sim_free(first);
	crash_run_free(run);
}

#define with_messages(f) cmocka_unit_test_setup_teardown(f, engine_setup, engine_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_messages(test_lost_in_crash), with_messages(test_crash_in_rebuild), with_messages(test_crash_in_salvage),
		with_messages(test_crash_in_repair), with_messages(test_places_are_durable), with_messages(test_rebuilt_is_durable),
		with_messages(test_repaired_is_durable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
