/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading ahead: asked for are what comes next of a read in sequence, once, and nothing else; what is read stays right. */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include <sys/stat.h>
#include "engine.h"

#define MIB (1u << 20)
#define IMAGE (8 * MIB)
#define CACHE (64u << 20)

static struct {
	struct vc_io io;
	struct vc_io_ops ops;
	uint64_t asked; /* bytes of read_ahead calls */
	char *dir, *pool_dir;
	struct vc_pool *pool;
	struct vc_inode *root, *inode;
	uint8_t *content, *buf;
} t;

static void count_ahead(struct vc_file *file VC_UNUSED, uint64_t offset VC_UNUSED, uint64_t len) { t.asked += len; }

static void pool_open(void)
{
	struct vc_pool_options options = { .cache_bytes = CACHE, .destage_ms = ENGINE_DESTAGE_NEVER };

	assert_int_equal(vc_pool_open(&t.io, t.pool_dir, &options, &t.pool), 0);
	t.root = engine_root(t.pool);
}

static void pool_close(void)
{
	if (t.inode)
		vc_inode_put(t.inode);
	t.inode = NULL;
	vc_inode_put(t.root);
	engine_close(t.pool);
}

/* An image of noise, destaged, in a pool just opened: nothing of it is cached. */
static int setup(void **state VC_UNUSED)
{
	struct vc_pool_geometry geometry = { 0 };
	uint64_t rng = vc_unit_seed();

	t.ops = *vc_io_posix()->ops;
	t.ops.read_ahead = count_ahead;
	t.io.ops = &t.ops;
	t.dir = vc_unit_tmpdir();
	assert_true(asprintf(&t.pool_dir, "%s/pool", t.dir) > 0);
	assert_int_equal(vc_pool_create(&t.io, t.pool_dir, &geometry), 0);
	t.content = malloc(IMAGE);
	t.buf = malloc(MIB);
	for (size_t i = 0; i < IMAGE; i += sizeof(uint64_t)) {
		uint64_t v = vc_unit_random(&rng);

		memcpy(t.content + i, &v, sizeof(v));
	}
	pool_open();
	assert_int_equal(engine_create(t.root, "image", S_IFREG | 0600, NULL, &t.inode), 0);
	for (uint32_t at = 0; at < IMAGE; at += 64 << 10)
		assert_int_equal(engine_write(t.inode, t.content + at, 64 << 10, at, 0), 0);
	pool_close();
	pool_open();
	t.inode = engine_lookup(t.root, "image");
	assert_non_null(t.inode);
	return 0;
}

static int teardown(void **state VC_UNUSED)
{
	pool_close();
	free(t.content);
	free(t.buf);
	free(t.pool_dir);
	vc_unit_rmdir(t.dir);
	return 0;
}

/* Read as the file system does; how many bytes were asked for after the read. */
static uint64_t asked_after(uint64_t offset, size_t len)
{
	assert_int_equal(vc_volume_read(t.inode, t.buf, len, offset), len);
	assert_memory_equal(t.buf, t.content + offset, len);
	t.asked = 0;
	vc_volume_read_ahead(t.inode, offset, len);
	return t.asked;
}

/* Noise is stored as it is, and chunks have headers. */
static void expect_about(uint64_t asked, uint64_t want)
{
	assert_in_range(asked, want, want + want / 16 + 4096);
}

static void test_in_sequence(void **state VC_UNUSED)
{
	expect_about(asked_after(0, MIB), 2 * MIB);
	for (uint64_t at = MIB; at < 5 * MIB; at += MIB)
		expect_about(asked_after(at, MIB), MIB);
	expect_about(asked_after(5 * MIB, MIB), MIB); /* to the end */
	assert_int_equal(asked_after(6 * MIB, MIB), 0);
	assert_int_equal(asked_after(7 * MIB, MIB), 0);
}

/* Half a window at least, or to the end. */
static void test_short_reads(void **state VC_UNUSED)
{
	uint64_t step = VC_READ_AHEAD_MIN, sum = 0;
	unsigned int calls = 0;

	for (uint64_t at = 0; at < IMAGE; at += step) {
		uint64_t asked = asked_after(at, step);

		sum += asked;
		calls += asked > 0;
	}
	expect_about(sum, IMAGE - step);
	assert_in_range(calls, IMAGE / (2 * MIB), 24);
}

static void test_out_of_sequence(void **state VC_UNUSED)
{
	assert_int_equal(asked_after(3 * MIB, MIB), 0);
	assert_int_equal(asked_after(MIB, MIB), 0);
	assert_int_equal(asked_after(MIB, MIB), 0); /* the same again */
	expect_about(asked_after(2 * MIB, MIB / 2), MIB); /* up to 4.5 MiB, but for the MiB that was read first */
}

/* What is in the cache is not asked for. */
static void test_hot(void **state VC_UNUSED)
{
	for (uint64_t at = 0; at < IMAGE; at += MIB)
		(void)asked_after(at, MIB);
	for (uint64_t at = 0; at < IMAGE; at += MIB)
		assert_int_equal(asked_after(at, MIB), 0);
}

/* Nothing lies behind the end, and holes are nowhere. */
static void test_holes(void **state VC_UNUSED)
{
	assert_int_equal(engine_allocate(t.inode, 3 /* punch, keep size */, MIB, 7 * MIB), 0);
	memset(t.content + MIB, 0, 7 * MIB);
	assert_int_equal(asked_after(0, MIB), 0);
	assert_int_equal(engine_resize(t.inode, MIB / 2), 0);
	assert_int_equal(vc_volume_read(t.inode, t.buf, MIB, 0), MIB / 2);
	vc_volume_read_ahead(t.inode, 0, MIB / 2);
	vc_volume_read_ahead(t.inode, MIB / 2, MIB);
	assert_int_equal(t.asked, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_in_sequence, setup, teardown),
		cmocka_unit_test_setup_teardown(test_short_reads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_out_of_sequence, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_holes, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
