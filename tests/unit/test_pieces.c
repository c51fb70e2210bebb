/* SPDX-License-Identifier: BSD-2-Clause */
/* Answers in pieces, and ones that are not waited for: the same bytes as a read, from the cache where that pays, for as long as they are held. */
#include "config.h"
#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "engine.h"

#define MIB (1u << 20)
#define IMAGE (4 * MIB)
#define BLOCK ((size_t)VC_BLOCK_SIZE)

static struct {
	char *dir, *pool_dir;
	struct vc_pool *pool;
	struct vc_inode *root, *inode;
	uint8_t *content, *buf, *got;
	uint64_t cache, rng;
} t;

static void place_up(void)
{
	struct vc_pool_options options = { .cache_bytes = t.cache, .destage_ms = ENGINE_DESTAGE_NEVER };

	assert_int_equal(vc_pool_open(vc_io_posix(), t.pool_dir, &options, &t.pool), 0);
	t.root = engine_root(t.pool);
	t.inode = engine_lookup(t.root, "image");
}

static void place_down(void)
{
	if (t.inode)
		vc_inode_put(t.inode);
	vc_inode_put(t.root);
	engine_close(t.pool);
}

static void put_content(uint64_t at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		t.content[at + i] = (uint8_t)(i % 5 ? at >> 12 : vc_unit_random(&t.rng));
	assert_int_equal(engine_write(t.inode, t.content + at, len, at, 0), 0);
}

/* Long chunks, short ones, holes, and blocks that only the log has. */
static int setup_cache(uint64_t cache)
{
	struct vc_pool_geometry geometry = { 0 };

	t.cache = cache;
	t.rng = vc_unit_seed();
	t.dir = vc_unit_tmpdir();
	assert_true(asprintf(&t.pool_dir, "%s/pool", t.dir) > 0);
	t.content = calloc(1, IMAGE);
	t.buf = malloc(MIB);
	t.got = malloc(MIB);
	assert_int_equal(vc_pool_create(vc_io_posix(), t.pool_dir, &geometry), 0);
	place_up();
	assert_int_equal(engine_create(t.root, "image", S_IFREG | 0600, NULL, &t.inode), 0);
	for (uint32_t at = 0; at < IMAGE; at += MIB)
		put_content(at, MIB - MIB / 8);
	assert_int_equal(engine_task(t.pool, VC_TASK_DESTAGE), 0);
	for (int i = 0; i < 60; i++)
		put_content(vc_unit_below(&t.rng, IMAGE / 2 / BLOCK) * BLOCK, BLOCK);
	place_down(); /* destages */
	place_up();
	for (int i = 0; i < 60; i++)
		put_content((IMAGE / 4 + vc_unit_below(&t.rng, IMAGE / 2)) / BLOCK * BLOCK, BLOCK);
	return 0;
}

static int setup(void **state VC_UNUSED) { return setup_cache(64 * MIB); }
static int setup_small(void **state VC_UNUSED) { return setup_cache(1); }

static int teardown(void **state VC_UNUSED)
{
	place_down();
	free(t.content);
	free(t.buf);
	free(t.got);
	free(t.pool_dir);
	vc_unit_rmdir(t.dir);
	return 0;
}

/* The same, whatever the range; also when nothing stays in the cache. */
static void test_equal(void **state VC_UNUSED)
{
	for (int i = 0; i < 400; i++) {
		size_t len = 1 + vc_unit_below(&t.rng, MIB);
		uint64_t at = vc_unit_below(&t.rng, IMAGE), left = IMAGE - MIB / 8 - VC_MIN(at, (uint64_t)IMAGE - MIB / 8);

		if (i % 2)
			at &= ~(uint64_t)(BLOCK - 1);
		left = IMAGE - MIB / 8 > at ? IMAGE - MIB / 8 - at : 0; /* the last hole was never written: beyond the end */
		memset(t.got, 0xee, len);
		assert_int_equal(engine_read_pieces(t.inode, t.got, len, at), VC_MIN((uint64_t)len, left));
		assert_memory_equal(t.got, t.content + at, VC_MIN((uint64_t)len, left));
	}
	assert_int_equal(vc_volume_read_pieces(t.inode, t.buf, MIB + 1, 0, &(struct vc_pieces){ .n = 0 }), -EINVAL);
}

/* The same when it is not waited for, from any block of a chunk on, over the borders of chunks, holes and blocks of the log. */
static void test_equal_later(void **state VC_UNUSED)
{
	const uint64_t end = IMAGE - MIB / 8;

	for (int i = 0; i < 2000; i++) {
		size_t len = (1 + vc_unit_below(&t.rng, 4)) * BLOCK;
		uint64_t at = vc_unit_below(&t.rng, IMAGE / BLOCK) * BLOCK, left = end > at ? end - at : 0;

		memset(t.got, 0xee, len);
		assert_int_equal(engine_read_later(t.inode, t.got, len, at), VC_MIN((uint64_t)len, left));
		assert_memory_equal(t.got, t.content + at, VC_MIN((uint64_t)len, left));
	}
}

/* What lies in long chunks is not copied: the buffer stays as it was there. */
static void test_not_copied(void **state VC_UNUSED)
{
	struct vc_pieces pieces;
	size_t at = 0, copied = 0;
	const uint64_t from = 3 * MIB; /* where neither the log nor short chunks have anything */

	memset(t.buf, 0xee, MIB);
	assert_int_equal(vc_volume_read_pieces(t.inode, t.buf, MIB / 2, from, &pieces), MIB / 2);
	assert_in_range(pieces.nrefs, 1, pieces.n);
	for (unsigned int i = 0; i < pieces.n; i++) {
		assert_memory_equal(pieces.iov[i].iov_base, t.content + from + at, pieces.iov[i].iov_len);
		at += pieces.iov[i].iov_len;
	}
	for (size_t i = 0; i < MIB / 2; i++)
		copied += t.buf[i] != 0xee;
	assert_int_equal(copied, 0);
	vc_pieces_put(t.inode, &pieces);
}

/* Overwritten, destaged, swept and pushed out of the cache meanwhile: what is held is what was read. */
static void test_held(void **state VC_UNUSED)
{
	static uint8_t before[MIB];
	struct vc_pieces pieces;
	size_t at = 0;

	memcpy(before, t.content + MIB, sizeof(before));
	assert_int_equal(vc_volume_read_pieces(t.inode, t.buf, MIB, MIB, &pieces), MIB);
	put_content(MIB, MIB);
	assert_int_equal(engine_task(t.pool, VC_TASK_DESTAGE), 0);
	assert_int_equal(engine_task(t.pool, VC_TASK_CLEAN), 0);
	for (uint32_t from = 0; from < 3 * MIB; from += MIB)
		assert_int_equal(vc_volume_read(t.inode, t.got, MIB, from), MIB);
	for (unsigned int i = 0; i < pieces.n; i++) {
		assert_memory_equal(pieces.iov[i].iov_base, before + at, pieces.iov[i].iov_len);
		at += pieces.iov[i].iov_len;
	}
	assert_int_equal(at, MIB);
	vc_pieces_put(t.inode, &pieces);
}

/* One byte of each file, somewhere in the middle. */
static void damage_chunks(void)
{
	char path[5000];
	DIR *dir;
	struct dirent *de;

	snprintf(path, sizeof(path), "%s/chunk", t.pool_dir);
	dir = opendir(path);
	assert_non_null(dir);
	while ((de = readdir(dir))) {
		struct stat st;
		uint8_t byte;
		int fd = openat(dirfd(dir), de->d_name, O_RDWR);

		if (fd < 0)
			continue;
		assert_int_equal(fstat(fd, &st), 0);
		for (off_t at = st.st_size / 4; at < st.st_size; at += 64 << 10) {
			assert_int_equal(pread(fd, &byte, 1, at), 1);
			byte ^= 1;
			assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		}
		close(fd);
	}
	closedir(dir);
}

static void test_damage(void **state VC_UNUSED)
{
	unsigned failed = 0;

	damage_chunks();
	vc_unit_catch_messages(true);
	for (uint32_t at = 0; at < IMAGE - MIB / 8; at += 128 << 10) {
		ssize_t n = engine_read_pieces(t.inode, t.got, 128 << 10, at);

		assert_true(n == 128 << 10 || n == -EIO);
		failed += n < 0;
		if (n > 0)
			assert_memory_equal(t.got, t.content + at, n);
	}
	vc_unit_catch_messages(false);
	assert_true(failed > 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_equal, setup, teardown),
		cmocka_unit_test_setup_teardown(test_equal, setup_small, teardown),
		cmocka_unit_test_setup_teardown(test_equal_later, setup, teardown),
		cmocka_unit_test_setup_teardown(test_equal_later, setup_small, teardown),
		cmocka_unit_test_setup_teardown(test_not_copied, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_copied, setup_small, teardown),
		cmocka_unit_test_setup_teardown(test_held, setup, teardown),
		cmocka_unit_test_setup_teardown(test_held, setup_small, teardown),
		cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damage, setup_small, teardown),
	};

	return cmocka_run_group_tests(tests, engine_setup, engine_teardown);
}
