/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * D8: a small simulated disk is filled again and again, by writing and by somebody else. Every refusal is -ENOSPC, destage and
 * delete work with not a byte free, everything accepted is there, also after a kill, and there is room again after a clean.
 *
 * In the second test somebody else takes every byte that gets free, at once and for good, while the daemon is killed within checkpoints,
 * deletes and cleans: all that is left to the pool is what it has held back.
 *
 * In the third there are names without end, in the fourth LMDB's map is full.
 *
 * VC_TEST_ROUNDS: cycles of the first test; the second makes a third of them. (tests/mount/full-disk.sh does it on ext4 and xfs.)
 */
#include "config.h"
#include "unit.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "engine.h"
#include "io_sim.h"
#include "lock.h"
#include "model.h"

#define CAPACITY (UINT64_C(64) << 20)
#define DIRECT 131072u
#define LOGGED 8192u
#define FILE_MAX (CAPACITY / 2)
#define PIECE (UINT64_C(1) << 16)

struct full {
	struct vc_sim *sim;
	struct vc_pool *pool;
	struct vc_file *foreign;
	struct model model;
	uint64_t rng;
	uint8_t *buf;
	pthread_t hungry;
	atomic_bool sated;
};

static void full_open(struct full *f)
{
	f->pool = engine_open(vc_sim_io(f->sim), "/pool", ENGINE_DESTAGE_NEVER);
}

static void full_init(struct full *f, uint64_t seed)
{
	struct vc_pool_geometry geometry = { .chunk_blocks = 4, .chunk_segment_size = 1u << 20, .log_segment_size = 1u << 18,
					     .log_segments = 16 };

	*f = (struct full){ .sim = vc_sim_new(), .rng = seed, .buf = malloc(DIRECT) };
	assert(f->buf);
	vc_sim_set_capacity(f->sim, CAPACITY);
	assert_int_equal(vc_pool_create(vc_sim_io(f->sim), "/pool", &geometry), 0);
	assert_int_equal(vc_io_open(vc_sim_io(f->sim), "/foreign", VC_IO_WRITE | VC_IO_CREATE, &f->foreign), 0);
	full_open(f);
}

static void full_fini(struct full *f)
{
	engine_close(f->pool);
	vc_io_close(f->foreign);
	model_clear(&f->model);
	vc_sim_free(f->sim);
	free(f->buf);
}

/* Append until `max` bytes are there or the disk is full; returns what was accepted. */
static uint64_t full_fill(struct full *f, const char *name, size_t len, uint64_t max)
{
	struct vc_inode *root = engine_root(f->pool), *inode = engine_lookup(root, name);
	struct model_name *known = model_find(&f->model, 0, name);
	uint64_t accepted = 0;
	int r = 0;

	if (!inode)
		assert_int_equal(engine_create(root, name, S_IFREG | 0600, NULL, &inode), 0);
	if (!known) {
		model_add(&f->model, 0, name, model_file_new(S_IFREG | 0600));
		known = model_find(&f->model, 0, name);
	}
	while (r == 0 && accepted < max) {
		for (size_t i = 0; i < len; i += 8) {
			uint64_t x = vc_unit_random(&f->rng);

			memcpy(f->buf + i, &x, 8);
		}
		r = engine_write(inode, f->buf, len, known->file->data.size, 0);
		if (r == 0) {
			model_write(&known->file->data, f->buf, len, known->file->data.size);
			accepted += len;
		}
	}
	model_touch(known->file);
	assert_true(r == 0 || r == -ENOSPC);
	if (r < 0) /* of a write in several pieces the first may be there */
		assert_int_equal(engine_resize(inode, known->file->data.size), 0);
	assert_int_equal(engine_flush(inode), 0);
	vc_inode_put(inode);
	vc_inode_put(root);
	return accepted;
}

/* Somebody else has all that is free. */
static void full_foreign(struct full *f)
{
	uint64_t size = 0;

	while (vc_io_allocate(f->foreign, 0, size + PIECE) == 0)
		size += PIECE;
}

/* Somebody who takes what gets free the moment it does. */
static void *full_hungry_thread(void *arg)
{
	struct full *f = arg;

	while (!atomic_load(&f->sated)) {
		full_foreign(f);
		sched_yield();
	}
	return NULL;
}

static void full_hungry(struct full *f)
{
	full_foreign(f);
	atomic_store(&f->sated, false);
	assert_int_equal(vc_thread_start(&f->hungry, "hungry", full_hungry_thread, f), 0);
}

static void full_sated(struct full *f)
{
	atomic_store(&f->sated, true);
	pthread_join(f->hungry, NULL);
}

static void full_delete(struct full *f, const char *name)
{
	struct vc_inode *root = engine_root(f->pool);

	assert_int_equal(engine_unlink(root, name), 0);
	model_remove(&f->model, model_find(&f->model, 0, name));
	vc_inode_put(root);
}

static void full_verify(struct full *f)
{
	struct model found = { .n = 0 };
	struct vc_pool_figures figures;

	assert_int_equal(model_load(f->pool, &found), 0);
	assert_true(model_same(&f->model, &found));
	model_clear(&found);
	assert_int_equal(vc_pool_figures(f->pool, &figures), 0);
	assert_int_equal(figures.failed, 0);
}

static void full_cycle(struct full *f, bool kill)
{
	full_fill(f, "kept", LOGGED, 30 * LOGGED); /* in the log when the disk goes to somebody else */
	full_foreign(f);
	assert_int_equal(engine_task(f->pool, VC_TASK_DESTAGE), 0);
	full_verify(f);
	assert_int_equal(vc_io_truncate(f->foreign, 0), 0);
	assert_int_equal(engine_task(f->pool, VC_TASK_CLEAN), 0);
	assert_true(full_fill(f, "large", DIRECT, FILE_MAX * 2) < FILE_MAX * 2);
	full_fill(f, "small", LOGGED, FILE_MAX);
	assert_int_equal(engine_task(f->pool, VC_TASK_DESTAGE), 0);
	full_foreign(f);
	if (kill) {
		vc_pool_abandon(f->pool);
		full_open(f);
	}
	full_verify(f);
	assert_int_equal(engine_task(f->pool, VC_TASK_DESTAGE), 0);
	full_delete(f, "large");
	full_delete(f, "small");
	full_delete(f, "kept");
	assert_int_equal(engine_task(f->pool, VC_TASK_CLEAN), 0);
	assert_int_equal(vc_io_truncate(f->foreign, 0), 0);
	assert_int_equal(engine_task(f->pool, VC_TASK_CLEAN), 0);
	assert_int_equal(full_fill(f, "again", LOGGED, 100 * LOGGED), 100 * LOGGED);
	full_verify(f);
	full_delete(f, "again");
	assert_int_equal(engine_task(f->pool, VC_TASK_CLEAN), 0);
}

/* What a process that is killed at its n-th call leaves: from there on nothing it asks for happens. */
static void full_kill_at(struct full *f, unsigned nth)
{
	struct vc_sim_fault dead = { .ops = VC_SIM_ANY | VC_SIM_META_ANY, .path = "/pool", .nth = nth, .error = EIO, .sticky = true };

	vc_sim_fail(f->sim, &dead);
}

/* Kills within `kind`, each at another call of it, until one comes too late: then it has done its work. */
static void full_strike(struct full *f, enum vc_task_kind kind, unsigned *kills)
{
	bool killed = true;

	full_hungry(f);
	for (unsigned nth = 1 + (unsigned)vc_unit_below(&f->rng, 4); killed; nth += 1 + (unsigned)vc_unit_below(&f->rng, 10)) {
		int r;

		full_kill_at(f, nth);
		r = engine_task(f->pool, kind);
		killed = vc_sim_faults(f->sim) > 0;
		assert_true(killed || r == 0);
		vc_pool_abandon(f->pool);
		vc_sim_fail(f->sim, NULL);
		full_open(f);
		full_verify(f);
		*kills += killed;
	}
	full_sated(f);
}

static void full_round(struct full *f, bool strike_clean, unsigned *kills)
{
	full_fill(f, "large", DIRECT, FILE_MAX * 2);
	full_fill(f, "small", LOGGED, FILE_MAX);
	full_strike(f, VC_TASK_DESTAGE, kills);
	full_delete(f, "large");
	if (strike_clean) { /* somebody else gets what is given back by cleans that are struck */
		full_strike(f, VC_TASK_CLEAN, kills);
		assert_int_equal(vc_io_truncate(f->foreign, 0), 0);
	}
	assert_int_equal(engine_task(f->pool, VC_TASK_CLEAN), 0);
	assert_int_equal(full_fill(f, "again", LOGGED, 100 * LOGGED), 100 * LOGGED);
	full_foreign(f);
	full_delete(f, "small");
	full_delete(f, "again");
	assert_int_equal(engine_task(f->pool, VC_TASK_CLEAN), 0);
	full_verify(f);
	assert_int_equal(vc_io_truncate(f->foreign, 0), 0);
	assert_int_equal(engine_task(f->pool, VC_TASK_CLEAN), 0);
}

/* The history of the simulated disk keeps all that was written: a new disk now and then. */
#define CYCLES_A_DISK 5

static unsigned full_rounds(void)
{
	const char *given = getenv("VC_TEST_ROUNDS");

	return given ? (unsigned)strtoul(given, NULL, 0) : 30 / (unsigned)vc_unit_thin();
}

static void test_full(void **state VC_UNUSED)
{
	uint64_t rng = vc_unit_seed(), began = vc_mono_ns();
	unsigned cycles = full_rounds();

	for (unsigned i = 0; i < cycles;) {
		struct full f;

		full_init(&f, vc_unit_random(&rng));
		for (unsigned k = 0; k < CYCLES_A_DISK && i < cycles; k++, i++)
			full_cycle(&f, k % 2);
		full_fini(&f);
	}
	printf("%u cycles in %.1f s\n", cycles, (double)(vc_mono_ns() - began) / 1e9);
}

static void test_nothing_left(void **state VC_UNUSED)
{
	uint64_t rng = vc_unit_seed(), began = vc_mono_ns();
	unsigned rounds = (full_rounds() + 2) / 3, kills = 0;

	for (unsigned i = 0; i < rounds; i++) {
		struct full f;

		full_init(&f, vc_unit_random(&rng));
		for (unsigned k = 0; k < 2; k++)
			full_round(&f, k, &kills);
		full_fini(&f);
	}
	printf("%u cycles, %u kills in %.1f s\n", 2 * rounds, kills, (double)(vc_mono_ns() - began) / 1e9);
	assert_true(kills >= rounds);
}

#define NAMES_MAX 20000u

/* One more of something that makes LMDB grow, another kind each time. */
static int names_more(struct vc_inode *root, struct vc_inode *kept, unsigned i)
{
	struct vc_inode *made = NULL;
	char name[32], value[400];
	int r;

	snprintf(name, sizeof(name), "name-%u", i);
	memset(value, 'v', sizeof(value));
	switch (i % 4) {
	case 0:
		r = engine_create(root, name, S_IFDIR | 0700, NULL, &made);
		break;
	case 1:
		r = engine_clone(kept, root, name, &made);
		break;
	case 2:
		r = engine_link(kept, root, name);
		break;
	default:
		r = engine_create(root, name, S_IFREG | 0600, NULL, &made);
		if (r == 0 && vc_xattr_set(made, "user.x", value, sizeof(value), 0) < 0) {
			vc_inode_put(made);
			made = NULL;
			assert_int_equal(engine_unlink(root, name), 0);
			r = -ENOSPC;
		}
	}
	if (made)
		vc_inode_put(made);
	return r;
}

/* Names without end where nobody has room: they are refused while checkpoints and deletes still have theirs. */
static void names_until_refused(struct full *f, bool checkpoints)
{
	struct vc_inode *root = engine_root(f->pool), *kept = engine_lookup(root, "kept"), *made;
	char name[32];
	unsigned n = 0;
	int r = 0;

	full_foreign(f);
	while (n < NAMES_MAX && (r = names_more(root, kept, n)) == 0)
		if (++n % 100 == 0 && checkpoints)
			assert_int_equal(engine_task(f->pool, VC_TASK_DESTAGE), 0);
	assert_int_equal(r, -ENOSPC);
	assert_true(n >= 5);
	assert_int_equal(engine_create(root, "more", S_IFREG | 0600, NULL, &made), -ENOSPC);
	assert_int_equal(engine_rename(root, "name-0", root, "a-longer-name", 0), -ENOSPC);
	assert_int_equal(engine_rename(root, "name-0", root, "short", 0), 0);
	assert_int_equal(engine_rmdir(root, "short"), 0);
	assert_int_equal(engine_task(f->pool, VC_TASK_DESTAGE), 0);
	for (unsigned i = 1; i < n; i++) {
		snprintf(name, sizeof(name), "name-%u", i);
		assert_int_equal(i % 4 ? engine_unlink(root, name) : engine_rmdir(root, name), 0);
	}
	assert_int_equal(engine_task(f->pool, VC_TASK_DESTAGE), 0);
	assert_int_equal(vc_io_truncate(f->foreign, 0), 0);
	assert_int_equal(engine_task(f->pool, VC_TASK_CLEAN), 0);
	assert_int_equal(names_more(root, kept, 1), 0);
	assert_int_equal(engine_unlink(root, "name-1"), 0);
	vc_inode_put(kept);
	vc_inode_put(root);
	full_verify(f);
}

static void test_names(void **state VC_UNUSED)
{
	struct full f;

	full_init(&f, vc_unit_seed());
	full_fill(&f, "kept", LOGGED, 30 * LOGGED);
	names_until_refused(&f, true);
	names_until_refused(&f, false);
	full_fini(&f);
}

#define MAP_FULL_CALLS 10u
#define MAP_FULL_CLONES 200u

/* LMDB's file may grow no further: the same as a full disk, until a mount gives it more address space. */
static void test_map_full(void **state VC_UNUSED)
{
	struct vc_pool_options small = { .destage_ms = ENGINE_DESTAGE_NEVER, .meta_map_size = UINT64_C(64) * 4096 };
	struct vc_inode *root, *kept;
	unsigned made = 0;
	char name[32];
	struct full f;
	int r = 0;

	full_init(&f, vc_unit_seed());
	full_fill(&f, "kept", LOGGED, 30 * LOGGED);
	assert_int_equal(engine_task(f.pool, VC_TASK_DESTAGE), 0);
	vc_pool_abandon(f.pool);
	assert_int_equal(vc_pool_open(vc_sim_io(f.sim), "/pool", &small, &f.pool), 0);
	root = engine_root(f.pool);
	kept = engine_lookup(root, "kept");
	for (; made < MAP_FULL_CALLS && r == 0; made += r == 0) {
		snprintf(name, sizeof(name), "clone-%u-", made);
		r = engine_clone_many(kept, root, MAP_FULL_CLONES, name);
	}
	if (r < 0) /* a checkpoint by itself has met the end of the map: names are refused in time */
		assert_int_equal(r, -ENOSPC);
	assert_true(made > 0);
	assert_int_equal(engine_task(f.pool, VC_TASK_DESTAGE), -ENOSPC);
	assert_int_equal(engine_unlink(root, "clone-0-0"), 0);
	assert_int_equal(engine_write(kept, "x", 1, 0, 0), -ENOSPC);
	vc_inode_put(kept);
	vc_inode_put(root);
	vc_pool_abandon(f.pool);
	full_open(&f);
	assert_int_equal(engine_task(f.pool, VC_TASK_DESTAGE), 0);
	root = engine_root(f.pool);
	for (unsigned i = 1; i < made * MAP_FULL_CLONES; i++) {
		snprintf(name, sizeof(name), "clone-%u-%u", i / MAP_FULL_CLONES, i % MAP_FULL_CLONES);
		assert_int_equal(engine_unlink(root, name), 0);
	}
	vc_inode_put(root);
	assert_int_equal(engine_task(f.pool, VC_TASK_CLEAN), 0);
	full_verify(&f);
	assert_int_equal(full_fill(&f, "again", LOGGED, 100 * LOGGED), 100 * LOGGED);
	full_verify(&f);
	full_fini(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_full, engine_setup, engine_teardown),
		cmocka_unit_test_setup_teardown(test_nothing_left, engine_setup, engine_teardown),
		cmocka_unit_test_setup_teardown(test_names, engine_setup, engine_teardown),
		cmocka_unit_test_setup_teardown(test_map_full, engine_setup, engine_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
