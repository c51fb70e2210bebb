/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * LMDB's file is cut, or its pages change, while it is mapped: the process survives, nothing wrong is read, and what does not need the
 * file goes on.
 */
#include "config.h"
#include "unit.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "engine.h"
#include "meta.h"

#define PAGE 4096u
#define NODES 400u
#define NODE_BYTES 1500u
#define CUT (2 * PAGE)    /* only the meta pages stay */
#define IMAGE (1u << 20)
#define ROUNDS 300

struct place {
	char *dir, *pool_dir;
	char file[512];
	struct vc_meta *meta;
	uint8_t *whole;      /* the file as it was */
	size_t len;
};

/* What LMDB had begun when it was left: a cursor whose first look at a page failed. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:mdb_cursor_open\n"; }

static void node_fill(uint8_t *buf, uint64_t id)
{
	for (size_t i = 0; i < NODE_BYTES; i++)
		buf[i] = (uint8_t)(id * 7 + i * 3 + (id >> 8));
}

static void file_keep(struct place *p)
{
	struct stat st;
	int fd = open(p->file, O_RDONLY);

	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	free(p->whole);
	p->len = (size_t)st.st_size;
	p->whole = malloc(p->len);
	assert_true(p->whole && read(fd, p->whole, p->len) == (ssize_t)p->len);
	close(fd);
}

static void file_put(const struct place *p, const void *buf, size_t len, uint64_t at)
{
	int fd = open(p->file, O_WRONLY);

	assert_true(fd >= 0 && pwrite(fd, buf, len, (off_t)at) == (ssize_t)len);
	close(fd);
}

static void meta_reopen(struct place *p)
{
	struct vc_meta_params params = { .io = vc_io_posix(), .dir = p->dir };

	assert_int_equal(vc_meta_open(&params, &p->meta), 0);
}

static void add_nodes(struct place *p)
{
	uint8_t buf[NODE_BYTES];
	struct vc_meta_txn *txn;

	assert_int_equal(vc_meta_write_begin(p->meta, &txn), 0);
	for (uint64_t id = 1; id <= NODES; id++) {
		node_fill(buf, id);
		assert_int_equal(vc_meta_node_put(txn, id, buf, sizeof(buf)), 0);
		snprintf((char *)buf, sizeof(buf), "row %llu", (unsigned long long)id);
		assert_int_equal(vc_meta_put(txn, VC_DB_CAT, buf, strlen((char *)buf), buf, 100), 0);
	}
	assert_int_equal(vc_meta_commit(txn), 0);
}

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));
	struct vc_meta_params params = { .io = vc_io_posix() };

	*state = p;
	p->dir = vc_unit_tmpdir();
	params.dir = p->dir;
	snprintf(p->file, sizeof(p->file), "%s/data.mdb", p->dir);
	assert_int_equal(vc_meta_create(&params), 0);
	meta_reopen(p);
	add_nodes(p);
	vc_meta_close(p->meta);
	p->meta = NULL;
	file_keep(p);
	vc_unit_catch_messages(!getenv("VC_TEST_MESSAGES"));
	return 0;
}

/* cmocka sets its own handlers of faults before each test; opening a store sets ours. */
static struct place *start(void **state)
{
	struct place *p = *state;

	meta_reopen(p);
	return p;
}

static int teardown(void **state)
{
	struct place *p = *state;

	vc_unit_catch_messages(false);
	vc_meta_close(p->meta);
	vc_unit_rmdir(p->dir);
	free(p->pool_dir);
	free(p->whole);
	free(p);
	return 0;
}

/* 0 when the node is right; an error otherwise. */
static int read_node(struct place *p, uint64_t id)
{
	uint8_t want[NODE_BYTES];
	struct vc_meta_txn *txn;
	const void *value;
	size_t len;
	int r = vc_meta_read_begin(p->meta, &txn);

	if (r < 0)
		return r;
	r = vc_meta_node_get(txn, id, &value, &len);
	if (r == 0) {
		node_fill(want, id);
		assert_int_equal(len, sizeof(want));
		assert_memory_equal(value, want, len);
	}
	vc_meta_end(txn);
	return r;
}

static int count(void *ctx, const void *key VC_UNUSED, size_t key_len VC_UNUSED, const void *value VC_UNUSED, size_t len VC_UNUSED)
{
	++*(unsigned *)ctx;
	return 0;
}

static int scan(struct place *p, unsigned *ret)
{
	struct vc_meta_txn *txn;
	int r = vc_meta_read_begin(p->meta, &txn);

	*ret = 0;
	if (r < 0)
		return r;
	r = vc_meta_scan(txn, VC_DB_NODE, NULL, 0, NULL, 0, count, ret);
	vc_meta_end(txn);
	return r;
}

static void test_cut_under_reader(void **state)
{
	struct place *p = start(state);
	struct vc_meta_stats stats;
	unsigned n;

	assert_int_equal(read_node(p, 1), 0);
	assert_int_equal(truncate(p->file, CUT), 0);
	vc_unit_catch_messages(true);
	assert_int_equal(read_node(p, NODES / 2), -EIO);
	assert_int_equal(vc_unit_messages(), 1);
	assert_non_null(strstr(vc_unit_last_message(), "data.mdb"));
	assert_true(vc_meta_broken(p->meta));
	assert_int_equal(read_node(p, 1), -EIO);
	assert_int_equal(scan(p, &n), -EIO);
	assert_int_equal(vc_meta_stats(p->meta, &stats), -EIO);
	assert_int_equal(vc_unit_messages(), 1);
}

static void test_cut_under_scan(void **state)
{
	struct place *p = start(state);
	unsigned n;

	assert_int_equal(truncate(p->file, CUT), 0);
	assert_int_equal(scan(p, &n), -EIO);
	assert_true(vc_meta_broken(p->meta));
}

static void test_cut_under_writer(void **state)
{
	struct place *p = start(state);
	struct vc_meta_txn *txn;
	uint8_t buf[NODE_BYTES];

	assert_int_equal(vc_meta_write_begin(p->meta, &txn), 0);
	assert_int_equal(truncate(p->file, CUT), 0);
	node_fill(buf, 3);
	assert_int_equal(vc_meta_node_put(txn, 3, buf, sizeof(buf)), -EIO);
	assert_int_equal(vc_meta_commit(txn), -EIO);
	assert_int_equal(vc_meta_write_begin(p->meta, &txn), -EROFS);
	assert_int_equal(read_node(p, 1), -EIO);
}

/* Nothing faults, because LMDB does not look at the pages that are gone: it would write behind a hole. */
static void test_cut_between_writers(void **state)
{
	struct place *p = start(state);
	struct vc_meta_txn *txn;
	struct stat st;

	assert_int_equal(truncate(p->file, (off_t)(p->len - PAGE)), 0);
	assert_true(vc_meta_write_begin(p->meta, &txn) < 0);
	assert_int_equal(stat(p->file, &st), 0);
	assert_int_equal(st.st_size, p->len - PAGE);
	assert_true(vc_meta_broken(p->meta));
}

/* The backup reads all pages, and takes its time. */
static void test_cut_under_backup(void **state)
{
	struct place *p = start(state);
	char path[600];

	snprintf(path, sizeof(path), "%s/backup.mdb", p->dir);
	assert_int_equal(vc_meta_backup(p->meta, path), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(truncate(p->file, CUT), 0);
	vc_unit_catch_messages(true);
	assert_int_equal(vc_meta_backup(p->meta, path), -EIO);
	assert_int_equal(vc_unit_messages(), 1);
	assert_int_not_equal(access(path, F_OK), 0);
	assert_true(vc_meta_broken(p->meta));
}

/* LMDB's own, which cuts the file before its Nth call. */
static struct {
	const char *file;
	unsigned calls_left;
} cut;

int mdb_dbi_open(MDB_txn *txn, const char *name, unsigned int flags, MDB_dbi *dbi)
{
	int (*real)(MDB_txn *, const char *, unsigned int, MDB_dbi *);

	*(void **)&real = dlsym(RTLD_NEXT, "mdb_dbi_open");
	if (cut.calls_left && --cut.calls_left == 0)
		assert_int_equal(truncate(cut.file, CUT), 0);
	return real(txn, name, flags, dbi);
}

/* All pages could be read, and then not any more: found by the sum of rows, or by the databases. */
static void test_cut_while_opening(void **state)
{
	struct place *p = *state;
	struct vc_meta_params params = { .io = vc_io_posix(), .dir = p->dir };

	for (unsigned n = 1; n <= 2; n++) {
		cut.file = p->file;
		cut.calls_left = n;
		vc_unit_catch_messages(true);
		assert_int_equal(vc_meta_open(&params, &p->meta), -EIO);
		assert_int_equal(cut.calls_left, 0);
		assert_int_equal(vc_unit_messages(), 1);
		assert_non_null(strstr(vc_unit_last_message(), "data.mdb"));
		file_put(p, p->whole, p->len, 0);
	}
	meta_reopen(p);
	assert_int_equal(read_node(p, 1), 0);
}

/* Any page becomes anything while LMDB uses it: each node is right or an error. */
static void test_pages_change(void **state)
{
	struct place *p = start(state);
	uint64_t rng = vc_unit_seed();
	unsigned right = 0, wrong = 0, broken = 0;
	char backup[600];

	snprintf(backup, sizeof(backup), "%s/backup.mdb", p->dir);
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t page = 2 + vc_unit_below(&rng, p->len / PAGE - 2);
		uint8_t bytes[PAGE];
		unsigned n;

		memcpy(bytes, p->whole + page * PAGE, PAGE);
		for (unsigned k = 1 + (unsigned)vc_unit_below(&rng, 6); k; k--) /* mostly what LMDB follows: headers and offsets */
			bytes[vc_unit_below(&rng, vc_unit_below(&rng, 4) ? 64 : PAGE)] = (uint8_t)vc_unit_random(&rng);
		file_put(p, bytes, PAGE, page * PAGE);
		for (uint64_t id = 1; id <= NODES; id += 1 + vc_unit_below(&rng, 3)) {
			int r = read_node(p, id);

			right += r == 0;
			wrong += r < 0;
		}
		(void)!scan(p, &n);
		if (i % 8 == 0 && vc_meta_backup(p->meta, backup) == 0)
			assert_int_equal(unlink(backup), 0);
		file_put(p, p->whole, p->len, 0);
		if (vc_meta_broken(p->meta)) {
			broken++;
			vc_meta_close(p->meta);
			meta_reopen(p);
		}
	}
	printf("%u nodes right, %u errors, %u times the store broke\n", right, wrong, broken);
	assert_true(right > 0 && wrong > 0);
}

/* ---- a whole pool ---- */

static uint8_t image_byte(unsigned image, uint64_t at) { return (uint8_t)(at / 512 * 31 + at + image); }

static struct vc_inode *image_make(struct vc_pool *pool, const char *name, unsigned image)
{
	struct vc_inode *root = engine_root(pool), *inode;
	uint8_t *buf = malloc(IMAGE);

	assert_non_null(buf);
	for (size_t i = 0; i < IMAGE; i++)
		buf[i] = image_byte(image, i);
	assert_int_equal(engine_create(root, name, S_IFREG | 0600, NULL, &inode), 0);
	assert_int_equal(engine_write(inode, buf, IMAGE, 0, 0), 0);
	free(buf);
	vc_inode_put(root);
	return inode;
}

static int image_read(struct vc_inode *inode, unsigned image, uint64_t at)
{
	uint8_t buf[PAGE];
	ssize_t n = vc_volume_read(inode, buf, sizeof(buf), at);

	for (size_t i = 0; n > 0 && i < (size_t)n; i++)
		assert_int_equal(buf[i], image_byte(image, at + i));
	return n < 0 ? (int)n : 0;
}

static struct vc_pool *pool_with_images(struct place *p)
{
	struct vc_pool_geometry geometry = { .chunk_segment_size = 1 << 20, .log_segment_size = 1 << 20, .log_segments = 8 };
	struct vc_pool *pool;

	assert_true(asprintf(&p->pool_dir, "%s/pool", p->dir) > 0);
	snprintf(p->file, sizeof(p->file), "%s/meta/data.mdb", p->pool_dir);
	assert_int_equal(vc_pool_create(vc_io_posix(), p->pool_dir, &geometry), 0);
	pool = engine_open(vc_io_posix(), p->pool_dir, ENGINE_DESTAGE_NEVER);
	vc_inode_put(image_make(pool, "a", 1));
	vc_inode_put(image_make(pool, "b", 2));
	engine_close(pool);
	file_keep(p);
	return engine_open(vc_io_posix(), p->pool_dir, ENGINE_DESTAGE_NEVER);
}

static void test_pool_goes_on(void **state)
{
	struct place *p = *state;
	struct vc_pool *pool = pool_with_images(p);
	struct vc_inode *root = engine_root(pool), *a = engine_lookup(root, "a"), *b = engine_lookup(root, "b");
	struct vc_pool_figures figures;
	uint8_t block[PAGE];

	assert_int_equal(image_read(a, 1, 0), 0);
	for (size_t i = 0; i < PAGE; i++)
		block[i] = image_byte(2, 8 * PAGE + i);
	assert_int_equal(engine_write(b, block, PAGE, 8 * PAGE, VC_WRITE_DSYNC), 0);
	assert_int_equal(truncate(p->file, CUT), 0);
	assert_int_equal(image_read(a, 1, 0), 0);            /* from the caches */
	assert_int_equal(image_read(b, 2, 8 * PAGE), 0);     /* from the log */
	assert_int_equal(image_read(b, 2, 0), -EIO);         /* needs its map */
	assert_int_equal(engine_write(b, block, PAGE, 8 * PAGE, 0), -EROFS);
	assert_int_equal(image_read(b, 2, 8 * PAGE), 0);
	assert_true(vc_pool_figures(pool, &figures) < 0);
	assert_true(engine_task(pool, VC_TASK_DESTAGE) < 0);
	vc_inode_put(a);
	vc_inode_put(b);
	vc_inode_put(root);
	(void)!vc_pool_close(pool);
	assert_int_equal(engine_try_open(vc_io_posix(), p->pool_dir, ENGINE_DESTAGE_NEVER, &pool), -EUCLEAN);
	file_put(p, p->whole, p->len, 0); /* as from a backup */
	pool = engine_open(vc_io_posix(), p->pool_dir, ENGINE_DESTAGE_NEVER);
	root = engine_root(pool);
	b = engine_lookup(root, "b");
	for (uint64_t at = 0; at < IMAGE; at += PAGE)
		assert_int_equal(image_read(b, 2, at), 0);
	vc_inode_put(b);
	vc_inode_put(root);
	engine_close(pool);
}

/* The destage thread meets the fault, with the writer's lock in its hands. */
static void test_pool_destages(void **state)
{
	struct place *p = *state;
	struct vc_pool *pool = pool_with_images(p);
	struct vc_inode *root = engine_root(pool), *b = engine_lookup(root, "b"), *c = image_make(pool, "c", 3);

	assert_int_equal(truncate(p->file, CUT), 0);
	assert_true(engine_task(pool, VC_TASK_DESTAGE) < 0);
	assert_int_equal(image_read(c, 3, 0), 0);
	assert_int_equal(engine_resize(b, 5), -EROFS);
	vc_inode_put(b);
	vc_inode_put(c);
	vc_inode_put(root);
	(void)!vc_pool_close(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_cut_under_reader, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cut_under_scan, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cut_under_writer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cut_between_writers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cut_under_backup, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cut_while_opening, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pages_change, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pool_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pool_destages, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
