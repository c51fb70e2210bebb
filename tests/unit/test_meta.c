/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of meta: pairs, scans, commits and aborts, checksums on damaged files, truncated files, backups, threads. */
#include "config.h"
#include "unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io.h"
#include "meta.h"
#include "meta_check.h"
#include "meta_impl.h"
#include "util.h"

#define MAP_SIZE (UINT64_C(1) << 30)
#define PAGE 4096

struct place {
	char *dir;
	char file[4200];
	struct vc_meta *meta;
};

static uint64_t seed;

/* An io that counts commits told to it. */
static struct vc_io_ops counting_ops;
static struct vc_io counting_io = { &counting_ops };
static unsigned ncommits;

static void count_commit(struct vc_io *io VC_UNUSED, const char *path VC_UNUSED)
{
	ncommits++;
}

static struct vc_meta_params params_of(const struct place *place, bool read_only)
{
	return (struct vc_meta_params){ .io = &counting_io, .dir = place->dir, .map_size = MAP_SIZE, .read_only = read_only };
}

static int try_open(struct place *place, bool read_only)
{
	struct vc_meta_params params = params_of(place, read_only);

	return vc_meta_open(&params, &place->meta);
}

/* Damage in rows is refused, unless somebody wants to look at it. */
static void open_damaged(struct place *place)
{
	struct vc_meta_params params = params_of(place, false);

	vc_unit_catch_messages(true);
	assert_int_equal(vc_meta_open(&params, &place->meta), -EBADMSG);
	assert_int_equal(vc_unit_messages(), 1);
	params.examine = true;
	assert_int_equal(vc_meta_open(&params, &place->meta), 0);
	assert_true(vc_meta_doubtful(place->meta));
	vc_unit_catch_messages(false);
}

static void close_place(struct place *place)
{
	vc_meta_close(place->meta);
	place->meta = NULL;
}

static void reopen(struct place *place)
{
	close_place(place);
	assert_int_equal(try_open(place, false), 0);
}

static int setup(void **ret)
{
	struct place *place = calloc(1, sizeof(*place));
	struct vc_meta_params params;

	assert_non_null(place);
	counting_ops = *vc_io_posix()->ops;
	counting_ops.meta_committed = count_commit;
	place->dir = vc_unit_tmpdir();
	snprintf(place->file, sizeof(place->file), "%s/data.mdb", place->dir);
	params = params_of(place, false);
	assert_int_equal(vc_meta_create(&params), 0);
	assert_int_equal(try_open(place, false), 0);
	ncommits = 0;
	*ret = place;
	return 0;
}

static int teardown(void **state)
{
	struct place *place = *state;

	close_place(place);
	vc_unit_rmdir(place->dir);
	free(place);
	return 0;
}

static struct vc_meta_txn *begin(struct place *place, bool write)
{
	struct vc_meta_txn *txn;

	assert_int_equal(write ? vc_meta_write_begin(place->meta, &txn) : vc_meta_read_begin(place->meta, &txn), 0);
	return txn;
}

static void put(struct vc_meta_txn *txn, const char *key, const char *value)
{
	assert_int_equal(vc_meta_put(txn, VC_DB_CAT, key, strlen(key), value, strlen(value)), 0);
}

static void put_one(struct place *place, const char *key, const char *value)
{
	struct vc_meta_txn *txn = begin(place, true);

	put(txn, key, value);
	assert_int_equal(vc_meta_commit(txn), 0);
}

static void expect(struct vc_meta_txn *txn, const char *key, const char *want)
{
	const void *value;
	size_t len;
	int r = vc_meta_get(txn, VC_DB_CAT, key, strlen(key), &value, &len);

	if (!want) {
		assert_int_equal(r, -ENOENT);
		return;
	}
	assert_int_equal(r, 0);
	assert_int_equal(len, strlen(want));
	assert_memory_equal(value, want, len);
}

/* Nodes first .. end - 1 with a value of `len` bytes made from the id. */
static void put_nodes(struct vc_meta_txn *txn, uint64_t first, uint64_t end, size_t len)
{
	uint8_t buf[VC_NODE_VALUE_MAX];

	for (uint64_t id = first; id < end; id++) {
		memset(buf, (int)(id * 7), len);
		assert_int_equal(vc_meta_node_put(txn, id, buf, len), 0);
	}
}

static void test_pairs(void **state)
{
	struct place *place = *state;
	struct vc_meta_txn *txn = begin(place, true);
	const void *value;
	size_t len;

	put(txn, "Ia", "one");
	put(txn, "Ib", "");
	put(txn, "Ia", "two");
	expect(txn, "Ia", "two");
	expect(txn, "Ib", "");
	assert_int_equal(vc_meta_del(txn, VC_DB_CAT, "Ix", 2), -ENOENT);
	assert_int_equal(vc_meta_get(txn, VC_DB_NODE, "Ia", 2, &value, &len), -ENOENT);
	assert_int_equal(vc_meta_commit(txn), 0);
	assert_int_equal(ncommits, 1);
	reopen(place);
	txn = begin(place, true);
	expect(txn, "Ia", "two");
	assert_int_equal(vc_meta_del(txn, VC_DB_CAT, "Ia", 2), 0);
	put(txn, "Ic", "three");
	vc_meta_end(txn); /* aborted */
	assert_int_equal(ncommits, 1);
	txn = begin(place, false);
	expect(txn, "Ia", "two");
	expect(txn, "Ic", NULL);
	assert_int_equal(vc_meta_put(txn, VC_DB_CAT, "x", 1, "x", 1), -EINVAL);
	assert_int_equal(vc_meta_del(txn, VC_DB_CAT, "Ia", 2), -EINVAL);
	vc_meta_end(txn);
	vc_meta_end(NULL);
}

static void test_limits(void **state)
{
	struct place *place = *state;
	static char big[4073], key[265];
	struct vc_meta_txn *txn = begin(place, true);
	const void *value;
	size_t len;

	memset(big, 'v', sizeof(big));
	memset(key, 'k', sizeof(key));
	assert_int_equal(vc_meta_put(txn, VC_DB_CAT, key, 264, big, 4072), 0);
	assert_int_equal(vc_meta_put(txn, VC_DB_CAT, key, 264, big, 4073), -EINVAL);
	assert_int_equal(vc_meta_put(txn, VC_DB_CAT, key, 265, big, 1), -EINVAL);
	assert_int_equal(vc_meta_put(txn, VC_DB_CAT, key, 0, big, 1), -EINVAL);
	assert_int_equal(vc_meta_get(txn, VC_DB_CAT, key, 264, &value, &len), 0);
	assert_int_equal(len, 4072);
	assert_memory_equal(value, big, len);
	assert_int_equal(vc_meta_commit(txn), 0);
}

/* A reader sees the commit before it began, and a pooled one the newest. */
static void test_snapshots(void **state)
{
	struct place *place = *state;
	struct vc_meta_txn *old, *now;

	put_one(place, "K", "1");
	old = begin(place, false);
	put_one(place, "K", "2");
	expect(old, "K", "1");
	now = begin(place, false);
	expect(now, "K", "2");
	vc_meta_end(old);
	vc_meta_end(now);
	put_one(place, "K", "3");
	old = begin(place, false);
	expect(old, "K", "3");
	vc_meta_end(old);
}

struct seen {
	char text[200];
	int stop_at, n;
};

static int see(void *ctx, const void *key, size_t key_len, const void *value, size_t len)
{
	struct seen *seen = ctx;

	snprintf(seen->text + strlen(seen->text), sizeof(seen->text) - strlen(seen->text), "%.*s=%.*s ", (int)key_len,
		 (const char *)key, (int)len, (const char *)value);
	return ++seen->n == seen->stop_at ? 77 : 0;
}

static void scan(struct vc_meta_txn *txn, const char *prefix, const char *from, int stop_at, int want, const char *text)
{
	struct seen seen = { .stop_at = stop_at };

	assert_int_equal(vc_meta_scan(txn, VC_DB_CAT, prefix, strlen(prefix), from, from ? strlen(from) : 0, see, &seen), want);
	assert_string_equal(seen.text, text);
}

static void test_scan(void **state)
{
	struct place *place = *state;
	struct vc_meta_txn *txn = begin(place, true);

	scan(txn, "", NULL, 0, 0, "");
	put(txn, "Db", "2");
	put(txn, "D", "0");
	put(txn, "Da", "1");
	put(txn, "Daa", "x");
	put(txn, "C\xff", "c");
	put(txn, "E", "e");
	scan(txn, "D", NULL, 0, 0, "D=0 Da=1 Daa=x Db=2 ");
	scan(txn, "Da", NULL, 0, 0, "Da=1 Daa=x ");
	scan(txn, "D", "Da\x01", 0, 0, "Daa=x Db=2 ");
	scan(txn, "D", "Daa", 2, 77, "Daa=x Db=2 ");
	scan(txn, "D", "Dz", 0, 0, "");
	scan(txn, "Z", NULL, 0, 0, "");
	scan(txn, "", NULL, 0, 0, "C\xff=c D=0 Da=1 Daa=x Db=2 E=e ");
	assert_int_equal(vc_meta_commit(txn), 0);
	txn = begin(place, false);
	scan(txn, "D", NULL, 1, 77, "D=0 ");
	vc_meta_end(txn);
}

static void test_nodes_and_figures(void **state)
{
	struct place *place = *state;
	struct vc_meta_txn *txn = begin(place, true);
	struct vc_meta_stats stats;
	struct stat st;
	const void *value;
	size_t len;

	put_nodes(txn, 100, 1100, 2014);
	put_nodes(txn, 5, 6, 10); /* below the last: not appended */
	put_nodes(txn, 600, 601, 2014);
	assert_int_equal(vc_meta_commit(txn), 0);
	assert_int_equal(vc_meta_stats(place->meta, &stats), 0);
	assert_int_equal(stats.nodes, 1001);
	assert_int_equal(stats.rows, 0);
	assert_int_equal(stat(place->file, &st), 0);
	assert_int_equal(stats.file_bytes, st.st_size);
	assert_in_range(stats.file_bytes, 500 * PAGE, 540 * PAGE); /* two in a page, pages full */
	txn = begin(place, true);
	for (uint64_t id = 100; id < 1100; id++) {
		assert_int_equal(vc_meta_node_get(txn, id, &value, &len), 0);
		assert_int_equal(len, 2014);
		assert_int_equal(((const uint8_t *)value)[len - 1], (uint8_t)(id * 7));
		assert_int_equal(vc_meta_node_del(txn, id), 0);
		assert_int_equal(vc_meta_node_get(txn, id, &value, &len), -ENOENT);
	}
	assert_int_equal(vc_meta_node_del(txn, 100), -ENOENT);
	assert_int_equal(vc_meta_commit(txn), 0);
	put_one(place, "a", "b");
	assert_int_equal(vc_meta_stats(place->meta, &stats), 0);
	assert_int_equal(stats.nodes, 1);
	assert_int_equal(stats.rows, 1);
	assert_in_range(stats.free_bytes, 450 * PAGE, stats.file_bytes);
}

static void test_read_only_and_missing(void **state)
{
	struct place *place = *state;
	struct vc_meta_params params = params_of(place, false);
	struct vc_meta_txn *txn;

	put_one(place, "K", "1");
	vc_unit_catch_messages(true);
	assert_int_equal(vc_meta_create(&params), -EEXIST);
	close_place(place);
	assert_int_equal(try_open(place, true), 0);
	assert_int_equal(vc_meta_write_begin(place->meta, &txn), -EROFS);
	txn = begin(place, false);
	expect(txn, "K", "1");
	vc_meta_end(txn);
	close_place(place);
	assert_int_equal(unlink(place->file), 0);
	assert_int_equal(try_open(place, false), -ENOENT);
	vc_unit_catch_messages(false);
}

/* The map is too small: -ENOSPC, the transaction can be given up, and the store goes on. */
static void test_full(void **state)
{
	struct place *place = *state;
	struct vc_meta_params params = params_of(place, false);
	uint8_t buf[2000] = { 1 };
	struct vc_meta_txn *txn;
	uint64_t id = 1;
	int r;

	close_place(place);
	params.map_size = 1 << 20;
	assert_int_equal(vc_meta_open(&params, &place->meta), 0);
	txn = begin(place, true);
	vc_unit_catch_messages(true);
	do
		r = vc_meta_node_put(txn, id, buf, sizeof(buf));
	while (r == 0 && ++id < 10000);
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(vc_unit_messages(), 1);
	vc_unit_catch_messages(false);
	vc_meta_end(txn);
	put_one(place, "K", "1");
}

/* A commit that cannot be written: that transaction and all later ones fail, reads go on. */
/* A process that may not have the usual terabyte of address space. */
static void test_little_space(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	(void)state;
	skip(); /* sanitizers have more than that themselves */
#else
	struct place *place = *state;
	struct vc_meta_params params = params_of(place, false);
	struct rlimit before, little;

	close_place(place);
	params.map_size = 0;
	assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
	little = (struct rlimit){ .rlim_cur = UINT64_C(1) << 37, .rlim_max = before.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_AS, &little), 0);
	assert_int_equal(vc_meta_open(&params, &place->meta), 0);
	assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
#endif
}

static void test_failed_commit(void **state)
{
	struct place *place = *state;
	struct rlimit limit, saved;
	struct vc_meta_txn *txn;
	struct stat st;

	put_one(place, "K", "1");
	assert_int_equal(stat(place->file, &st), 0);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &saved), 0);
	signal(SIGXFSZ, SIG_IGN);
	limit = saved;
	limit.rlim_cur = (rlim_t)st.st_size;
	txn = begin(place, true);
	put(txn, "K", "2");
	put_nodes(txn, 1, 100, 2014);
	vc_unit_catch_messages(true);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_int_equal(vc_meta_commit(txn), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &saved), 0);
	assert_int_equal(vc_unit_messages(), 1);
	assert_int_equal(ncommits, 1);
	assert_int_equal(vc_meta_write_begin(place->meta, &txn), -EROFS);
	assert_int_equal(vc_meta_write_begin(place->meta, &txn), -EROFS); /* and nothing stays locked */
	vc_unit_catch_messages(false);
	txn = begin(place, false);
	expect(txn, "K", "1");
	vc_meta_end(txn);
	reopen(place);
	put_one(place, "K", "3");
}

/* ---- damage ---- */

static void file_patch(const char *path, off_t at, const void *bytes, size_t len)
{
	int fd = open(path, O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, at), len);
	close(fd);
}

/* Offset of `bytes` in the file, -1 when absent. */
static off_t file_find(const char *path, const void *bytes, size_t len)
{
	struct stat st;
	uint8_t *all, *hit;
	off_t at = -1;
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	all = malloc((size_t)st.st_size);
	assert_int_equal(pread(fd, all, (size_t)st.st_size, 0), st.st_size);
	hit = memmem(all, (size_t)st.st_size, bytes, len);
	if (hit)
		at = hit - all;
	free(all);
	close(fd);
	return at;
}

static void test_damaged_value(void **state)
{
	struct place *place = *state;
	static const char text[] = "a value that is easy to find";
	struct seen seen = { .stop_at = 0 };
	struct vc_meta_txn *txn;
	const void *value;
	size_t len;
	off_t at;

	put_one(place, "Ka", "fine");
	put_one(place, "Kb", text);
	close_place(place);
	at = file_find(place->file, text, strlen(text));
	assert_true(at > 0);
	file_patch(place->file, at + 3, "V", 1);
	open_damaged(place);
	txn = begin(place, false);
	vc_unit_catch_messages(true);
	assert_int_equal(vc_meta_get(txn, VC_DB_CAT, "Kb", 2, &value, &len), -EBADMSG);
	assert_int_equal(vc_unit_messages(), 1);
	assert_non_null(strstr(vc_unit_last_message(), "data.mdb: row K 62"));
	assert_int_equal(vc_meta_scan(txn, VC_DB_CAT, "K", 1, NULL, 0, see, &seen), -EBADMSG);
	assert_string_equal(seen.text, "Ka=fine ");
	vc_unit_catch_messages(false);
	expect(txn, "Ka", "fine");
	vc_meta_end(txn);
}

/* The checksum covers the key and the database: a value found under another key is refused. */
static void test_damaged_key(void **state)
{
	struct place *place = *state;
	struct vc_meta_txn *txn;
	const void *value;
	size_t len;
	off_t at;

	put_one(place, "Key-number-one", "fine");
	close_place(place);
	at = file_find(place->file, "Key-number-one", 14);
	assert_true(at > 0);
	file_patch(place->file, at, "Key-number-two", 14);
	open_damaged(place);
	txn = begin(place, false);
	vc_unit_catch_messages(true);
	assert_int_equal(vc_meta_get(txn, VC_DB_CAT, "Key-number-two", 14, &value, &len), -EBADMSG);
	vc_unit_catch_messages(false);
	vc_meta_end(txn);
}

static void expect_refused(struct place *place)
{
	vc_unit_catch_messages(true);
	assert_int_equal(try_open(place, false), -EUCLEAN);
	assert_int_equal(vc_unit_messages(), 1);
	vc_unit_catch_messages(false);
}

/* Every length shorter than the file is refused, without a signal. */
static void test_truncated(void **state)
{
	struct place *place = *state;
	struct vc_meta_txn *txn = begin(place, true);
	struct stat st;

	put_nodes(txn, 1, 100, 2014);
	assert_int_equal(vc_meta_commit(txn), 0);
	close_place(place);
	assert_int_equal(stat(place->file, &st), 0);
	file_patch(place->file, st.st_size, "rest of a write", 15); /* beyond the last page: harmless */
	assert_int_equal(try_open(place, false), 0);
	close_place(place);
	for (off_t size = st.st_size - 1; size >= 0; size -= size > 3 * PAGE ? PAGE - 1 : 100) {
		assert_int_equal(truncate(place->file, size), 0);
		expect_refused(place);
	}
}

static void test_damaged_meta_pages(void **state)
{
	struct place *place = *state;
	static const struct { int at; uint64_t value; int len; bool in_use; } bad[] = {
		{ 10, 0x02, 2, false },          /* page flags */
		{ 16, 0xdeadc0de, 4, false },    /* magic */
		{ 20, 999, 4, false },           /* version */
		{ 40, 4097, 4, false },          /* page size */
		{ 40, 1, 4, false },
		{ 136, 0, 8, true },             /* last page */
		{ 80, UINT64_C(1) << 40, 8, true },  /* root of the free list */
		{ 128, UINT64_C(1) << 40, 8, true }, /* root of the main tree */
	};
	uint8_t saved[PAGE];
	uint64_t txn[2];

	put_one(place, "K", "1");
	put_one(place, "K", "2");
	close_place(place);
	for (int page = 0; page < 2; page++) {
		int fd = open(place->file, O_RDONLY);

		assert_int_equal(pread(fd, saved, PAGE, page * PAGE), PAGE);
		assert_int_equal(pread(fd, &txn[0], 8, 144), 8);
		assert_int_equal(pread(fd, &txn[1], 8, PAGE + 144), 8);
		close(fd);
		for (size_t i = 0; i < VC_ARRAY_LEN(bad); i++) {
			file_patch(place->file, page * PAGE + bad[i].at, &bad[i].value, (size_t)bad[i].len);
			if (!bad[i].in_use || txn[page] > txn[!page]) {
				expect_refused(place);
			} else { /* as LMDB leaves it when it could not write it */
				assert_int_equal(try_open(place, false), 0);
				close_place(place);
			}
			file_patch(place->file, page * PAGE, saved, PAGE);
		}
	}
	assert_int_equal(try_open(place, false), 0);
}

/*
 * LMDB leaves pages unwritten that one transaction took and gave up: the file is then shorter than its last page says.
 * Such a file opens; one page less does not, unless that page is free too.
 */
static void test_short_but_whole(void **state)
{
	struct place *place = *state;
	uint64_t random = seed;
	int nshort = 0;

	for (int i = 0; i < 60; i++) {
		struct vc_meta_txn *txn = begin(place, true);
		uint64_t first = vc_unit_below(&random, 500), end = first + 1 + vc_unit_below(&random, 150);
		struct vc_meta_stats stats;
		struct stat st;

		put_nodes(txn, first, end, 2000);
		for (uint64_t id = end; id-- > first + vc_unit_below(&random, 50);)
			assert_int_equal(vc_meta_node_del(txn, id), 0);
		assert_int_equal(vc_meta_commit(txn), 0);
		assert_int_equal(vc_meta_stats(place->meta, &stats), 0);
		assert_int_equal(stat(place->file, &st), 0);
		nshort += (uint64_t)st.st_size < stats.file_bytes;
		reopen(place);
	}
	assert_true(nshort > 0);
}

/* Flip a bit behind every occurrence of `key`: LMDB keeps older pages. */
static void flip_behind(const char *path, const char *key, size_t at)
{
	size_t len = strlen(key);
	uint8_t *bytes, *hit;
	struct stat st;
	int fd = open(path, O_RDWR);

	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	bytes = malloc((size_t)st.st_size);
	assert_int_equal(pread(fd, bytes, (size_t)st.st_size, 0), st.st_size);
	hit = memmem(bytes, (size_t)st.st_size, key, len);
	assert_non_null(hit);
	for (; hit; hit = memmem(hit + 1, (size_t)(bytes + st.st_size - hit - 1), key, len))
		hit[len + at] ^= 1;
	assert_int_equal(pwrite(fd, bytes, (size_t)st.st_size, 0), st.st_size);
	free(bytes);
	close(fd);
}

/* What the store says of its own rows is not believed when a bit of it is wrong, be it of the transaction that said so. */
static void test_damaged_sum_of_rows(void **state)
{
	struct place *place = *state;

	put_one(place, "K", "a value");
	close_place(place);
	for (size_t at = 0; at < sizeof(struct meta_disk_rows); at += 4) {
		flip_behind(place->file, META_ROWS_KEY, at);
		vc_unit_catch_messages(true);
		assert_int_equal(try_open(place, false), -EUCLEAN);
		vc_unit_catch_messages(false);
		flip_behind(place->file, META_ROWS_KEY, at);
	}
	assert_int_equal(try_open(place, false), 0);
}

/* ---- backup ---- */

static void test_backup(void **state)
{
	struct place *place = *state, copy = { 0 };
	struct vc_meta_txn *txn = begin(place, true);
	struct vc_meta_stats a, b;
	char path[4300];
	struct stat st;

	put_nodes(txn, 1, 400, 2014);
	put(txn, "K", "1");
	assert_int_equal(vc_meta_commit(txn), 0);
	txn = begin(place, true);
	for (uint64_t id = 1; id < 300; id++)
		assert_int_equal(vc_meta_node_del(txn, id), 0);
	assert_int_equal(vc_meta_commit(txn), 0);
	copy.dir = vc_unit_tmpdir();
	snprintf(copy.file, sizeof(copy.file), "%s/data.mdb", copy.dir);
	assert_int_equal(vc_meta_backup(place->meta, copy.file), 0);
	vc_unit_catch_messages(true);
	assert_int_equal(vc_meta_backup(place->meta, copy.file), -EEXIST);
	snprintf(path, sizeof(path), "%s/no/such", copy.dir);
	assert_int_equal(vc_meta_backup(place->meta, path), -ENOENT);
	vc_unit_catch_messages(false);
	assert_int_equal(vc_meta_stats(place->meta, &a), 0);
	assert_int_equal(try_open(&copy, false), 0);
	assert_int_equal(vc_meta_stats(copy.meta, &b), 0);
	assert_true(b.nodes == 100 && a.nodes == b.nodes && a.rows == b.rows);
	assert_int_equal(stat(copy.file, &st), 0);
	assert_true((uint64_t)st.st_size < a.file_bytes / 2);
	txn = begin(&copy, false);
	expect(txn, "K", "1");
	vc_meta_end(txn);
	close_place(&copy);
	vc_unit_rmdir(copy.dir);
}

/* A bad value in the store is a bad value in the copy: the copy must not be believed, nor left behind. */
static void test_backup_of_damage(void **state)
{
	struct place *place = *state;
	char path[4300];
	off_t at;

	put_one(place, "K", "some text to be damaged");
	close_place(place);
	at = file_find(place->file, "some text", 9);
	assert_true(at > 0);
	file_patch(place->file, at, "S", 1);
	open_damaged(place);
	snprintf(path, sizeof(path), "%s/backup", place->dir);
	vc_unit_catch_messages(true);
	assert_int_equal(vc_meta_backup(place->meta, path), -EBADMSG);
	vc_unit_catch_messages(false);
	assert_int_not_equal(access(path, F_OK), 0);
}

/* Done when the last sync of a backup has returned, before it is read back. */
static void (*after_sync)(const char *backup);
static char backup_path[4280];

int __real_fsync(int fd);
int __wrap_fsync(int fd);

int __wrap_fsync(int fd)
{
	void (*once)(const char *backup) = after_sync;
	int r = __real_fsync(fd);

	after_sync = NULL;
	if (once)
		once(backup_path);
	return r;
}

static void damage_value(const char *backup)
{
	off_t at = file_find(backup, "value to be damaged", 19);

	assert_true(at > 0);
	file_patch(backup, at, "V", 1);
}

static void put_older_one(const char *backup)
{
	char older[4300];

	snprintf(older, sizeof(older), "%s.older", backup);
	assert_int_equal(rename(older, backup), 0);
}

static void expect_not_believed(struct place *place, void (*fn)(const char *backup), int want)
{
	vc_unit_catch_messages(true);
	after_sync = fn;
	assert_int_equal(vc_meta_backup(place->meta, backup_path), want);
	assert_null(after_sync);
	assert_true(vc_unit_messages() > 0);
	vc_unit_catch_messages(false);
	assert_int_not_equal(access(backup_path, F_OK), 0);
}

/* What the disk gives back is not what was written: the backup is not believed, and not left behind. */
static void test_backup_read_back(void **state)
{
	struct place *place = *state;
	char older[4300];

	snprintf(backup_path, sizeof(backup_path), "%s/backup", place->dir);
	snprintf(older, sizeof(older), "%s.older", backup_path);
	put_one(place, "Ka", "a first value");
	assert_int_equal(vc_meta_backup(place->meta, older), 0);
	put_one(place, "Kb", "a value to be damaged");
	expect_not_believed(place, damage_value, -EBADMSG);
	expect_not_believed(place, put_older_one, -EUCLEAN); /* whole, but of another time */
	assert_int_equal(vc_meta_backup(place->meta, backup_path), 0);
}

/* ---- threads ---- */

#define THREADS 4

struct race {
	struct place *place;
	atomic_bool stop;
	atomic_uint errors, reads;
};

/* A writer keeps two keys equal; no reader ever sees them differ. */
static void *race_reader(void *arg)
{
	struct race *race = arg;

	while (!atomic_load(&race->stop)) {
		struct vc_meta_txn *txn;
		uint8_t first[64];
		const void *a, *b;
		size_t a_len, b_len;

		if (vc_meta_read_begin(race->place->meta, &txn) < 0) {
			atomic_fetch_add(&race->errors, 1);
			return NULL;
		}
		if (vc_meta_get(txn, VC_DB_CAT, "A", 1, &a, &a_len) < 0 || a_len > sizeof(first)) {
			atomic_fetch_add(&race->errors, 1);
			a_len = 0;
		}
		memcpy(first, a_len ? a : first, a_len);
		if (vc_meta_get(txn, VC_DB_CAT, "B", 1, &b, &b_len) < 0 || a_len != b_len || memcmp(first, b, a_len) != 0)
			atomic_fetch_add(&race->errors, 1);
		atomic_fetch_add(&race->reads, 1);
		vc_meta_end(txn);
	}
	return NULL;
}

static void *race_writer(void *arg)
{
	struct race *race = arg;

	for (int i = 0; i < 50; i++) {
		struct vc_meta_txn *txn;
		char text[30];

		if (vc_meta_write_begin(race->place->meta, &txn) < 0) {
			atomic_fetch_add(&race->errors, 1);
			return NULL;
		}
		snprintf(text, sizeof(text), "%d", i);
		if (vc_meta_put(txn, VC_DB_CAT, "A", 1, text, strlen(text)) < 0 ||
		    vc_meta_put(txn, VC_DB_CAT, "B", 1, text, strlen(text)) < 0 || vc_meta_commit(txn) < 0)
			atomic_fetch_add(&race->errors, 1);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct race race = { .place = *state };
	pthread_t readers[THREADS], writers[THREADS];

	put_one(race.place, "A", "x");
	put_one(race.place, "B", "x");
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, race_reader, &race), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&writers[i], NULL, race_writer, &race), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(writers[i], NULL);
	atomic_store(&race.stop, true);
	for (int i = 0; i < THREADS; i++)
		pthread_join(readers[i], NULL);
	assert_int_equal(atomic_load(&race.errors), 0);
	assert_true(atomic_load(&race.reads) > 0);
	assert_int_equal(ncommits, 2 + THREADS * 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_pairs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_snapshots, setup, teardown),
		cmocka_unit_test_setup_teardown(test_scan, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nodes_and_figures, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_only_and_missing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_little_space, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failed_commit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_value, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_key, setup, teardown),
		cmocka_unit_test_setup_teardown(test_truncated, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_meta_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_short_but_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_sum_of_rows, setup, teardown),
		cmocka_unit_test_setup_teardown(test_backup, setup, teardown),
		cmocka_unit_test_setup_teardown(test_backup_of_damage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_backup_read_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
	};

	seed = vc_unit_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
