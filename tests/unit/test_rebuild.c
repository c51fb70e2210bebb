/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pool whose LMDB is lost in one way or another is rebuilt from backup, journal and log, and is what it was: by the model
 * and row by row. Where the journal is damaged too it is rebuilt whole or left alone.
 *
 * VC_TEST_STEPS: random operations in each generation; VC_TEST_SEED.
 */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "books.h"
#include "engine.h"
#include "rebuild.h"
#include "world.h"

#define STEPS_DEFAULT 250
#define RUNS 1
#define GENERATIONS 7

struct run {
	struct world w;
	struct vc_pool_geometry geometry;
	char *dir, *pool_dir, *data, *older;
	uint64_t journal_bytes;
	uint32_t destage_ms;
	uint64_t rng;
};

static void run_open(struct run *run)
{
	struct vc_pool_options options = { .cache_bytes = 4 << 20, .node_cache_bytes = 4 << 20, .destage_ms = run->destage_ms,
					   .journal_bytes = run->journal_bytes };
	struct vc_pool *pool;

	assert_int_equal(vc_pool_open(vc_io_posix(), run->pool_dir, &options, &pool), 0);
	world_attach(&run->w, pool);
}

/* journal_bytes: 1 makes a backup as often as it can. */
static void run_start(struct run *run, uint64_t seed, uint64_t journal_bytes)
{
	*run = (struct run){ .journal_bytes = journal_bytes, .destage_ms = seed % 2 ? ENGINE_DESTAGE_NEVER : 20, .rng = seed };
	engine_geometry(&seed, &run->geometry);
	run->dir = books_tmpdir();
	assert_non_null(run->dir);
	assert_true(asprintf(&run->pool_dir, "%s/pool", run->dir) > 0);
	assert_true(asprintf(&run->data, "%s/meta/data.mdb", run->pool_dir) > 0);
	assert_true(asprintf(&run->older, "%s/older.mdb", run->dir) > 0);
	assert_int_equal(vc_pool_create(vc_io_posix(), run->pool_dir, &run->geometry), 0);
	books_copy_file(run->data, run->older);
	world_init(&run->w, seed, &run->geometry);
	run_open(run);
}

static void run_end(struct run *run)
{
	if (run->w.pool)
		world_stop(&run->w, true);
	world_fini(&run->w);
	free(run->pool_dir);
	free(run->data);
	free(run->older);
	vc_unit_rmdir(run->dir);
}

static void run_steps(struct run *run)
{
	const char *given = getenv("VC_TEST_STEPS");
	unsigned long steps = given ? strtoul(given, NULL, 0) : STEPS_DEFAULT;

	for (unsigned long n = 0; n < steps; n++) {
		uint64_t roll = vc_unit_below(&run->rng, 100);

		if (roll < 5)
			assert_int_equal(engine_task(run->w.pool, VC_TASK_DESTAGE), 0);
		else if (roll < 6)
			assert_int_equal(engine_task(run->w.pool, VC_TASK_CLEAN), 0);
		else
			world_step(&run->w);
	}
}

static unsigned refusals;

static void found(void *ctx VC_UNUSED, const char *text)
{
	refusals++;
	if (getenv("VC_TEST_MESSAGES"))
		fprintf(stderr, "finding: %s\n", text);
}

static void say(void *ctx VC_UNUSED, const char *text)
{
	if (getenv("VC_TEST_MESSAGES"))
		fprintf(stderr, "rebuild: %s\n", text);
}

static bool rebuild(struct run *run, struct vc_rebuild_result *ret)
{
	struct vc_rebuild_options o = { .check = { .data = true, .found = found }, .say = say };

	assert_int_equal(vc_rebuild_pool(vc_io_posix(), run->pool_dir, &o, ret), 0);
	return ret->replaced;
}

/* ---- ways to lose it ---- */

static void overwrite(struct run *run, size_t from, size_t len, uint8_t mask, bool zero)
{
	size_t size;
	uint8_t *bytes = books_read_file(run->data, &size);

	for (size_t i = from; i < from + len && i < size; i++)
		bytes[i] = zero ? 0 : bytes[i] ^ mask;
	books_write_file(run->data, bytes, size);
	free(bytes);
}

static void lose(struct run *run, unsigned how)
{
	struct stat st;

	assert_int_equal(stat(run->data, &st), 0);
	switch (how % 7) {
	case 0:
		assert_int_equal(unlink(run->data), 0);
		break;
	case 1:
		assert_int_equal(truncate(run->data, (off_t)vc_unit_below(&run->rng, (uint64_t)st.st_size)), 0);
		break;
	case 2: /* both meta pages */
		overwrite(run, 0, 8192, 0, true);
		break;
	case 3:
		overwrite(run, vc_unit_below(&run->rng, (uint64_t)st.st_size / 4096) * 4096, 4096, 0, true);
		break;
	case 4:
		for (int i = 0; i < 20; i++)
			overwrite(run, vc_unit_below(&run->rng, (uint64_t)st.st_size), 1, (uint8_t)(1 << vc_unit_below(&run->rng, 8)), false);
		break;
	case 5:
		books_copy_file(run->older, run->data);
		break;
	case 6: /* with its directory */
		assert_int_equal(unlink(run->data), 0);
		(void)unlink(books_path(run->pool_dir, "meta/lock.mdb"));
		assert_int_equal(rmdir(books_path(run->pool_dir, "meta")), 0);
		break;
	}
}

static void rebuilt_is_equal(struct run *run, const struct books *before)
{
	struct vc_check_result check;
	struct books after;

	books_load(vc_io_posix(), run->pool_dir, &after);
	assert_true(books_same(before, &after));
	books_free(&after);
	assert_int_equal(books_check(vc_io_posix(), run->pool_dir, true, &check), 0);
}

/* Lost and rebuilt, again and again, each time with more work on what was rebuilt. */
static void generations(uint64_t seed, uint64_t journal_bytes)
{
	uint64_t with_backup = 0, entries = 0;
	struct run run;

	run_start(&run, seed, journal_bytes);
	for (unsigned g = 0; g < GENERATIONS; g++) {
		struct vc_rebuild_result result;
		struct books before;

		run_steps(&run);
		world_stop(&run.w, vc_unit_below(&run.rng, 2));
		books_load(vc_io_posix(), run.pool_dir, &before);
		if (vc_unit_below(&run.rng, 3) == 0)
			books_copy_file(run.data, run.older);
		lose(&run, g + (unsigned)seed);
		assert_true(rebuild(&run, &result));
		assert_int_equal(result.check.findings, 0);
		with_backup += result.backup_lsn != 0;
		entries += result.entries;
		rebuilt_is_equal(&run, &before);
		books_free(&before);
		run_open(&run);
		assert_true(world_verify(&run.w));
		run.destage_ms = vc_unit_below(&run.rng, 2) ? ENGINE_DESTAGE_NEVER : 20;
	}
	assert_true(entries > 0);
	assert_int_equal(with_backup > 0, journal_bytes == 1);
	run_end(&run);
}

static void test_lost(void **state VC_UNUSED)
{
	uint64_t rng = vc_unit_seed();

	for (unsigned i = 0; i < RUNS; i++) {
		generations(vc_unit_random(&rng), 1);
		generations(vc_unit_random(&rng), 0);
	}
}

/* A pool that was never destaged: only the log has anything. */
static void test_only_log(void **state VC_UNUSED)
{
	struct vc_rebuild_result result;
	struct run run;

	run_start(&run, 2, 0);
	world_stop(&run.w, true);
	run.destage_ms = ENGINE_DESTAGE_NEVER;
	run_open(&run);
	for (int i = 0; i < 100; i++)
		world_step(&run.w);
	world_stop(&run.w, true);
	lose(&run, 0);
	assert_true(rebuild(&run, &result));
	run_open(&run);
	assert_true(world_verify(&run.w));
	run_end(&run);
}

/* ---- with a damaged journal or backup ---- */

static void damage_file(struct run *run, const char *dir, const char *suffix)
{
	char path[4096];
	size_t len, at;
	uint8_t *bytes;

	if (books_list(books_path(run->pool_dir, dir), suffix, &run->rng, path, sizeof(path)) == 0)
		return;
	bytes = books_read_file(path, &len);
	at = vc_unit_below(&run->rng, len);
	if (vc_unit_below(&run->rng, 2))
		bytes[at] ^= (uint8_t)(1 << vc_unit_below(&run->rng, 8));
	else
		len = at;
	books_write_file(path, bytes, len);
	free(bytes);
}

/* What a crash leaves behind the last entry of a file is no damage. */
static void torn_tail(struct run *run)
{
	static const uint8_t rest[100] = { 'V', 'F', 'C', 'S', 'J', 'N', 'L', '1', 99 };
	char path[4096];
	FILE *f;

	if (books_list(books_path(run->pool_dir, "journal"), ".jnl", &run->rng, path, sizeof(path)) == 0)
		return;
	f = fopen(path, "ab");
	assert(f && fwrite(rest, 1, sizeof(rest), f) == sizeof(rest) && fclose(f) == 0);
}

static void test_torn_tail(void **state VC_UNUSED)
{
	struct vc_rebuild_result result;
	struct books before;
	struct run run;

	run_start(&run, vc_unit_seed(), 0);
	run_steps(&run);
	world_stop(&run.w, false);
	run_open(&run);
	run_steps(&run);
	world_stop(&run.w, false);
	torn_tail(&run);
	torn_tail(&run);
	books_load(vc_io_posix(), run.pool_dir, &before);
	lose(&run, 0);
	assert_true(rebuild(&run, &result));
	rebuilt_is_equal(&run, &before);
	books_free(&before);
	run_end(&run);
}

static void whole_or_nothing(uint64_t seed, unsigned *ret_whole, unsigned *ret_refused)
{
	struct vc_rebuild_result result;
	size_t len_before, len_after;
	uint8_t *before, *after;
	struct run run;

	run_start(&run, seed, seed % 3 == 0);
	for (unsigned i = 0; i < 3; i++) {
		run_steps(&run);
		world_stop(&run.w, i == 2);
		if (i < 2)
			run_open(&run);
	}
	damage_file(&run, "journal", ".jnl");
	if (vc_unit_below(&run.rng, 2))
		damage_file(&run, "backup", ".mdb");
	before = books_read_file(run.data, &len_before);
	refusals = 0;
	if (rebuild(&run, &result)) {
		++*ret_whole;
	} else {
		++*ret_refused;
		assert_true(refusals > 0);
		after = books_read_file(run.data, &len_after);
		assert_int_equal(len_before, len_after);
		assert_memory_equal(before, after, len_before);
		free(after);
	}
	free(before);
	run_open(&run);
	assert_true(world_verify(&run.w));
	run_end(&run);
}

static void test_journal_damaged(void **state VC_UNUSED)
{
	unsigned whole = 0, refused = 0;
	uint64_t rng = vc_unit_seed();

	for (unsigned i = 0; i < 8; i++)
		whole_or_nothing(vc_unit_random(&rng), &whole, &refused);
	print_message("%u rebuilt whole, %u refused\n", whole, refused);
	assert_true(refused > 0);
}

static void test_in_use(void **state VC_UNUSED)
{
	struct vc_rebuild_options o = { .check = { .found = found } };
	struct vc_rebuild_result result;
	struct run run;

	run_start(&run, 5, 0);
	assert_int_equal(vc_rebuild_pool(vc_io_posix(), run.pool_dir, &o, &result), -EBUSY);
	run_end(&run);
}

/* ---- what is wrong is not taken ---- */

static void write_pattern(struct vc_inode *inode, uint64_t seed, size_t len, uint64_t offset)
{
	uint64_t *buf = malloc(len);

	assert_non_null(buf);
	for (size_t i = 0; i < len / 8; i++)
		buf[i] = vc_unit_random(&seed);
	for (size_t at = 0; at < len; at += 16384)
		assert_int_equal(engine_write(inode, (uint8_t *)buf + at, 16384, offset + at, 0), 0);
	free(buf);
}

static bool has_pattern(struct vc_inode *inode, uint64_t seed, size_t len, uint64_t offset)
{
	uint64_t *buf = malloc(len);
	bool same = true;

	assert_non_null(buf);
	assert_int_equal(vc_volume_read(inode, buf, len, offset), len);
	for (size_t i = 0; i < len / 8; i++)
		same &= buf[i] == vc_unit_random(&seed);
	free(buf);
	return same;
}

/* Flips a bit in the first 8 bytes of a pattern in the only chunk segment, which is found by the 8 bytes behind them. */
static void flip_in_chunk(struct run *run, uint64_t seed)
{
	uint64_t second;
	char path[4096];
	uint8_t *bytes, *at;
	size_t len;

	(void)vc_unit_random(&seed);
	second = vc_unit_random(&seed);
	assert_int_equal(books_list(books_path(run->pool_dir, "chunk"), "", &run->rng, path, sizeof(path)), 1);
	bytes = books_read_file(path, &len);
	at = memmem(bytes, len, &second, sizeof(second));
	assert_non_null(at);
	at[-3] ^= 4;
	books_write_file(path, bytes, len);
	free(bytes);
}

static bool is_older(struct run *run)
{
	size_t len, len_older;
	uint8_t *bytes = books_read_file(run->data, &len), *older = books_read_file(run->older, &len_older);
	bool same = len == len_older && memcmp(bytes, older, len) == 0;

	free(bytes);
	free(older);
	return same;
}

/* Journal and log are whole, but an image's data has rotted: the check of what was rebuilt finds that, and the pool stays as it is. */
static void test_not_in_order(void **state VC_UNUSED)
{
	struct vc_rebuild_result result;
	struct vc_inode *root, *inode;
	struct run run;

	run_start(&run, 5, 0);
	root = engine_root(run.w.pool);
	assert_int_equal(engine_create(root, "image", S_IFREG | 0600, NULL, &inode), 0);
	write_pattern(inode, 30, 16384, 0);
	assert_int_equal(engine_task(run.w.pool, VC_TASK_DESTAGE), 0);
	vc_inode_put(inode);
	vc_inode_put(root);
	world_stop(&run.w, true);
	books_copy_file(run.older, run.data);
	flip_in_chunk(&run, 30);
	refusals = 0;
	assert_false(rebuild(&run, &result));
	assert_true(result.check.findings > 0);
	assert_int_equal(refusals, result.check.findings);
	assert_true(is_older(&run));
	assert_string_equal(result.kept, "");
	flip_in_chunk(&run, 30); /* back */
	assert_true(rebuild(&run, &result));
	assert_int_equal(result.check.findings, 0);
	assert_false(is_older(&run));
	run_open(&run);
	root = engine_root(run.w.pool);
	inode = engine_lookup(root, "image");
	assert_non_null(inode);
	assert_true(has_pattern(inode, 30, 16384, 0));
	vc_inode_put(inode);
	vc_inode_put(root);
	run_end(&run);
}

/* ---- the last resort ---- */

static bool rebuild_salvage(struct run *run, struct vc_rebuild_result *ret)
{
	struct vc_rebuild_options o = { .check = { .data = true, .found = found }, .salvage = true, .say = say };

	assert_int_equal(vc_rebuild_pool(vc_io_posix(), run->pool_dir, &o, ret), 0);
	return ret->replaced;
}

#define PART (256u << 10)

/* Two images in the chunks, the first half of one written twice; a third, and a write to the second, in the log only. */
static void make_three(struct run *run, uint64_t *inos)
{
	static const char *const names[] = { "one", "two", "three" };
	struct vc_pool *pool = run->w.pool;
	struct vc_inode *root = engine_root(pool), *in[3];

	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(engine_create(root, names[i], S_IFREG | 0600, NULL, &in[i]), 0);
		inos[i] = vc_inode_ino(in[i]);
		write_pattern(in[i], 10 + i, 2 * PART, 0);
		assert_int_equal(engine_task(pool, VC_TASK_DESTAGE), 0);
	}
	write_pattern(in[0], 20, PART, 0);
	assert_int_equal(engine_task(pool, VC_TASK_DESTAGE), 0);
	write_pattern(in[1], 21, 32768, 65536);
	assert_int_equal(engine_create(root, names[2], S_IFREG | 0600, NULL, &in[2]), 0);
	inos[2] = vc_inode_ino(in[2]);
	write_pattern(in[2], 12, 65536, 0);
	for (unsigned i = 0; i < 3; i++)
		vc_inode_put(in[i]);
	vc_inode_put(root);
}

static void remove_all(struct run *run, const char *dir, const char *suffix)
{
	char path[4096];

	while (books_list(books_path(run->pool_dir, dir), suffix, &run->rng, path, sizeof(path)))
		assert_int_equal(unlink(path), 0);
}

/* Neither LMDB nor journal: what chunks and log say is there, by the numbers of the images; names are where the log has them. */
static void test_salvage(void **state VC_UNUSED)
{
	struct vc_rebuild_result result;
	struct vc_inode *inode, *lost, *root;
	struct run run;
	uint64_t inos[3];
	char name[32];

	run_start(&run, 6, 0);
	world_stop(&run.w, false);
	run.destage_ms = ENGINE_DESTAGE_NEVER;
	run_open(&run);
	make_three(&run, inos);
	world_stop(&run.w, true);
	lose(&run, 0);
	remove_all(&run, "journal", ".jnl");
	remove_all(&run, "backup", ".mdb");
	assert_true(rebuild_salvage(&run, &result));
	assert_true(result.salvaged);
	if (result.check.findings)
		fail_msg("%llu findings in what was salvaged", (unsigned long long)result.check.findings);
	run_open(&run);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(vc_inode_get(run.w.pool, inos[i], &inode), 0);
		if (i == 0)
			assert_true(has_pattern(inode, 20, PART, 0));
		else if (i == 1)
			assert_true(has_pattern(inode, 21, 32768, 65536) && has_pattern(inode, 11, 65536, 0));
		else
			assert_true(has_pattern(inode, 12, 65536, 0));
		vc_inode_put(inode);
	}
	root = engine_root(run.w.pool);
	lost = engine_lookup(root, "lost+found");
	assert_non_null(lost);
	snprintf(name, sizeof(name), "#%llu", (unsigned long long)inos[0]);
	inode = engine_lookup(lost, name);
	assert_non_null(inode);
	vc_inode_put(inode);
	vc_inode_put(lost);
	inode = engine_lookup(root, "three");
	assert_non_null(inode);
	vc_inode_put(inode);
	vc_inode_put(root);
	world_stop(&run.w, false);
	/* The new state has a backup: from now on it can be rebuilt whole. */
	lose(&run, 0);
	assert_true(rebuild(&run, &result) && !result.salvaged);
	run_open(&run);
	run_end(&run);
}

/* An older state names chunks that were cleaned since: they are lost, which has to be said. Nothing else may be wrong. */
static void found_but_lost(void *ctx, const char *text)
{
	if (strstr(text, "which does not exist") || strstr(text, "its data in segment"))
		return;
	++*(unsigned *)ctx;
	print_message("%s\n", text);
}

/* After random work with a damaged journal there is always something to be had, which is in order, opens, reads and goes on. */
static void test_salvage_random(void **state VC_UNUSED)
{
	uint64_t rng = vc_unit_seed();

	unsigned salvaged = 0, wrong = 0;
	struct vc_check_options o = { .data = true, .log = true, .found = found_but_lost, .ctx = &wrong };

	for (unsigned i = 0; i < 6; i++) {
		struct vc_rebuild_result result;
		struct vc_check_result check;
		struct vc_pool *pool;
		struct run run;

		run_start(&run, vc_unit_random(&rng), i % 2);
		for (unsigned k = 0; k < 2; k++) {
			run_steps(&run);
			world_stop(&run.w, k == 1);
			if (k == 0)
				run_open(&run);
		}
		damage_file(&run, "journal", ".jnl");
		damage_file(&run, "backup", ".mdb");
		lose(&run, i);
		assert_true(rebuild_salvage(&run, &result));
		salvaged += result.salvaged;
		for (unsigned k = 0; k < 2; k++) {
			assert_int_equal(vc_check_pool(vc_io_posix(), run.pool_dir, &o, &check), 0);
			if (wrong)
				fail_msg("%u findings %s", wrong, k ? "after a mount" : "at once");
			pool = engine_open(vc_io_posix(), run.pool_dir, ENGINE_DESTAGE_NEVER);
			engine_close(pool);
		}
		run_end(&run);
	}
	print_message("%u of 6 salvaged\n", salvaged);
}

#define with_messages(f) cmocka_unit_test_setup_teardown(f, engine_setup, engine_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_messages(test_only_log), with_messages(test_in_use), with_messages(test_torn_tail),
		with_messages(test_journal_damaged), with_messages(test_not_in_order), with_messages(test_lost), with_messages(test_salvage),
		with_messages(test_salvage_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
