/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a salvage takes of the chunks there are, and what it leaves: each test loses backup, journal or log up to a point that it knows.
 */
#include "config.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include "place.h"
#include "pool_impl.h"
#include "rebuild_impl.h"
#include "sim_damage.h"

#define BLOCK PLACE_BLOCK
#define LEN (4 * BLOCK)
#define LOG_DIR PLACE_POOL "/log"

/* ---- a file that is made while a destage runs ---- */

void __real_vc_log_wait_applied(struct vc_log *log, struct vc_log_section *section);
void __wrap_vc_log_wait_applied(struct vc_log *log, struct vc_log_section *section);

static struct place *making; /* where a destage is to make one, NULL: nowhere */
static struct vc_inode *late;

/* The first thing that a destage does with a slice that takes no more records. There may be another one with the file: it is not to commit. */
void __wrap_vc_log_wait_applied(struct vc_log *log, struct vc_log_section *section)
{
	if (making && late) {
		vc_pool_fail(making->pool, -EIO);
	} else if (making) {
		late = place_file(making, "late");
		assert_int_equal(engine_flush(late), 0);
	}
	__real_vc_log_wait_applied(log, section);
}

/* ---- what is lost ---- */

struct loss {
	struct vc_io *io;
	const char *dir, *keep; /* keep: a file that stays */
	uint64_t lsn;           /* of log segments that begin up to there */
};

static int lose_file(void *ctx, const char *name)
{
	struct loss *loss = ctx;

	if (!loss->keep || strcmp(name, loss->keep) != 0)
		assert_int_equal(vc_io_unlink(loss->io, books_path(loss->dir, name)), 0);
	return 0;
}

static void lose_all_but(struct vc_io *io, const char *dir, const char *keep)
{
	struct loss loss = { .io = io, .dir = dir, .keep = keep };

	assert_int_equal(vc_io_list(io, dir, lose_file, &loss), 0);
}

static int lose_header(void *ctx, const char *name)
{
	static const struct vc_disk_log_segment none;
	struct vc_disk_log_segment header;
	struct loss *loss = ctx;
	struct vc_file *file;

	assert_int_equal(vc_io_open(loss->io, books_path(LOG_DIR, name), VC_IO_WRITE, &file), 0);
	assert_int_equal(vc_io_pread(file, &header, sizeof(header), 0), sizeof(header));
	if (vc_le64_get(header.first_lsn) <= loss->lsn)
		assert_int_equal(vc_io_pwrite(file, &none, sizeof(none), 0), 0);
	vc_io_close(file);
	return 0;
}

/* Segments of the log that begin with a record up to `lsn` lose their headers; what follows these is still there. */
static void lose_log(struct vc_io *io, uint64_t lsn)
{
	struct loss loss = { .io = io, .lsn = lsn };

	assert_int_equal(vc_io_list(io, LOG_DIR, lose_header, &loss), 0);
}

static void found(void *ctx VC_UNUSED, const char *text) { fprintf(stderr, "finding: %s\n", text); }

static void say(void *ctx VC_UNUSED, const char *text)
{
	if (getenv("VC_TEST_MESSAGES"))
		fprintf(stderr, "%s\n", text);
}

static void salvage(struct place *p)
{
	struct vc_rebuild_options o = { .check = { .data = true, .found = found }, .salvage = true, .say = say };
	struct vc_rebuild_result result;

	assert_int_equal(vc_rebuild_pool(vc_sim_io(p->sim), PLACE_POOL, &o, &result), 0);
	assert_true(result.replaced && result.salvaged);
	assert_int_equal(result.check.findings, 0);
}

/* ---- */

/* Records that are durable, and of which later ones know that: without them a log is not whole. */
static void fill_durably(struct vc_inode *inode, uint64_t seed)
{
	for (unsigned i = 0; i < 2; i++) {
		place_fill(inode, 0, LEN, seed);
		assert_int_equal(engine_flush(inode), 0);
	}
}

/* The pool is closed. */
static void back_up(struct place *p, uint64_t lsn)
{
	assert_int_equal(vc_replace_backup(vc_sim_io(p->sim), PLACE_POOL, NULL, lsn), 0);
}

/* Only the backup of checkpoint `lsn` is left, and the chunks. */
static void salvage_from(struct place *p, uint64_t lsn)
{
	struct vc_io *io = vc_sim_io(p->sim);
	char name[32];

	snprintf(name, sizeof(name), "%016llx.mdb", (unsigned long long)lsn);
	place_close(p, true);
	sim_damage_lmdb(p->sim, PLACE_POOL);
	lose_all_but(io, PLACE_POOL "/journal", NULL);
	lose_all_but(io, PLACE_POOL "/backup", name);
	lose_log(io, UINT64_MAX);
	salvage(p);
	place_open(p);
}

/* An image that was deleted before the checkpoint stays so, though the checkpoint wrote chunks for it, which its clone holds. */
static void test_deleted_stays(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a"), *b;
	uint64_t ino = vc_inode_ino(a), lsn;

	place_fill(a, 0, LEN, 1);
	assert_int_equal(engine_clone(a, p->root, "b", &b), 0);
	vc_inode_put(b);
	vc_inode_put(a);
	assert_int_equal(engine_unlink(p->root, "a"), 0);
	vc_pool_wait_reaped(p->pool);
	place_destage(p);
	lsn = p->pool->checkpoint_lsn;
	place_close(p, true);
	back_up(p, lsn);
	place_open(p);
	b = place_file(p, "c");
	fill_durably(b, 2);
	vc_inode_put(b);
	place_destage(p);
	salvage_from(p, lsn);
	assert_int_equal(vc_inode_get(p->pool, ino, &a), -ENOENT);
	b = engine_lookup(p->root, "b");
	assert_true(b && place_holds(b, 0, LEN, 1));
	vc_inode_put(b);
}

/* An image that was made while a checkpoint was written, which does not have it but has counted its number, is not lost. */
static void test_made_in_destage(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");
	uint64_t ino, lsn;

	place_fill(a, 0, LEN, 1);
	vc_inode_put(a);
	making = p;
	place_destage(p);
	assert_non_null(late);
	ino = vc_inode_ino(late);
	vc_inode_put(late);
	lsn = p->pool->checkpoint_lsn;
	place_close(p, true);
	making = NULL;
	back_up(p, lsn);
	place_open(p);
	assert_int_equal(vc_inode_get(p->pool, ino, &a), 0);
	fill_durably(a, 2);
	vc_inode_put(a);
	place_destage(p);
	salvage_from(p, lsn);
	assert_int_equal(vc_inode_get(p->pool, ino, &a), 0);
	assert_true(place_holds(a, 0, LEN, 2));
	vc_inode_put(a);
}

/* Where the log can be read it is what happened: chunks of its later records are not there yet when it clones. */
static void test_log_is_spared(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a"), *b;
	uint64_t ino = vc_inode_ino(a), lsn;

	place_fill(a, 0, LEN, 1);
	place_destage(p);
	lsn = p->pool->checkpoint_lsn;
	assert_int_equal(engine_clone(a, p->root, "b", &b), 0);
	vc_inode_put(b);
	fill_durably(a, 2);
	vc_inode_put(a);
	place_destage(p);
	place_close(p, true);
	sim_damage_all(p->sim, PLACE_POOL);
	lose_log(vc_sim_io(p->sim), lsn);
	salvage(p);
	place_open(p);
	assert_int_equal(vc_inode_get(p->pool, ino, &a), 0);
	assert_true(place_holds(a, 0, LEN, 2));
	vc_inode_put(a);
	b = engine_lookup(p->root, "b");
	assert_true(b && place_holds(b, 0, LEN, 1));
	vc_inode_put(b);
}

/* A log that cannot be read is given up: what is left of it is behind the pool, which opens, and goes on after a kill. */
static void test_log_given_up(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");
	uint64_t ino = vc_inode_ino(a);

	place_fill(a, 0, LEN, 1);
	place_destage(p);
	fill_durably(a, 2);
	vc_inode_put(a);
	place_close(p, true);
	sim_damage_all(p->sim, PLACE_POOL);
	lose_log(vc_sim_io(p->sim), UINT64_MAX);
	salvage(p);
	for (unsigned i = 0; i < 2; i++) {
		place_open(p);
		assert_int_equal(vc_inode_get(p->pool, ino, &a), 0);
		assert_true(place_holds(a, 0, LEN, 1 + 2 * i));
		fill_durably(a, 3);
		vc_inode_put(a);
		place_close(p, true);
	}
}

#define on_a_pool(f) cmocka_unit_test_setup_teardown(f, place_setup, place_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		on_a_pool(test_deleted_stays), on_a_pool(test_made_in_destage), on_a_pool(test_log_is_spared), on_a_pool(test_log_given_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
