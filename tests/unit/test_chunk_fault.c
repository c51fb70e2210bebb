/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of chunk when the disk is full or broken, and of what a sync vouches for while others write. */
#include "config.h"
#include "unit.h"

#include <dirent.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>
#include "chunk_fixture.h"
#include "chunk_impl.h"

static struct chunk_fixture fix;

static int setup(void **state VC_UNUSED)
{
	fix_open(&fix);
	vc_unit_catch_messages(true);
	return 0;
}

static int teardown(void **state VC_UNUSED)
{
	vc_unit_catch_messages(false);
	fix_close(&fix);
	return 0;
}

static int try_append(enum vc_chunk_stream stream, uint64_t seed, uint32_t nblocks, uint64_t *ret_entry)
{
	uint8_t *data = malloc(nblocks * FIX_BLOCK);
	int r;

	fix_fill(data, nblocks, seed, false);
	r = vc_chunk_append(fix.store, stream, 1, 0, 1, data, nblocks, ret_entry, NULL);
	free(data);
	return r;
}

static int try_direct(uint64_t seed, uint32_t nblocks, struct vc_disk_direct *items, uint32_t *ret_n)
{
	uint8_t *data = malloc(nblocks * FIX_BLOCK);
	int r;

	fix_fill(data, nblocks, seed, false);
	r = vc_chunk_append_direct(fix.store, 1, 0, 1, data, nblocks, items, ret_n);
	free(data);
	return r;
}

static void write_fails(int error, int after)
{
	fix.fault.writes_left = after;
	fix.fault.write_error = error;
}

static unsigned count_files(void)
{
	DIR *dir = opendir(fix.dir);
	unsigned n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2;
}

/* ---- the full disk ---- */

/* What was gathered stays, and goes to the addresses that were handed out. */
static void test_full_while_gathered(void **state VC_UNUSED)
{
	uint64_t a = fix_append(&fix, VC_STREAM_DESTAGE, 1, 4, 1, false), b, c;

	assert_int_equal(vc_chunk_sync(fix.store), 0);
	b = fix_append(&fix, VC_STREAM_DESTAGE, 1, 4, 2, false);
	write_fails(ENOSPC, 0);
	assert_int_equal(vc_chunk_sync(fix.store), -ENOSPC);
	assert_int_equal(vc_chunk_sync(fix.store), -ENOSPC);
	c = fix_append(&fix, VC_STREAM_DESTAGE, 1, 4, 3, false);
	assert_int_equal(vc_chunk_sync(fix.store), -ENOSPC);
	write_fails(EDQUOT, 0);
	assert_int_equal(vc_chunk_sync(fix.store), -ENOSPC);
	write_fails(0, 0);
	assert_int_equal(vc_chunk_sync(fix.store), 0);
	fix_reopen(&fix);
	fix_expect(&fix, a, 0, 4, 4, 1, false);
	fix_expect(&fix, b, 0, 4, 4, 2, false);
	fix_expect(&fix, c, 0, 4, 4, 3, false);
}

/* A full buffer or a full segment refuses the next append and keeps all before it. */
static void test_full_while_appending(void **state VC_UNUSED)
{
	uint64_t entries[100], unused = 0;
	int n = 0, r;

	write_fails(ENOSPC, 1);
	while ((r = try_append(VC_STREAM_DESTAGE, n, 16, &entries[n])) == 0)
		n++;
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(n, 3);
	assert_int_equal(try_append(VC_STREAM_DESTAGE, 50, 1, &unused), 0);
	assert_int_equal(try_append(VC_STREAM_DESTAGE, 51, 16, &unused), -ENOSPC);
	write_fails(0, 0);
	assert_int_equal(try_append(VC_STREAM_DESTAGE, n, 16, &entries[n]), 0);
	assert_int_equal(vc_chunk_sync(fix.store), 0);
	for (int i = 0; i <= n; i++)
		fix_expect(&fix, entries[i], 0, 16, 16, i, false);
	fix_expect(&fix, unused, 0, 1, 1, 50, false);
}

static void test_full_buffer(void **state VC_UNUSED)
{
	uint64_t entries[100];
	int n = 0, r;

	vc_chunk_close(fix.store);
	fix.params.segment_size = 8 << 20;
	assert_int_equal(vc_chunk_open(&fix.params, &fix.store), 0);
	write_fails(ENOSPC, 1);
	while ((r = try_append(VC_STREAM_DESTAGE, n, 16, &entries[n])) == 0)
		n++;
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(n, 16);
	write_fails(0, 0);
	for (; n < 40; n++)
		assert_int_equal(try_append(VC_STREAM_DESTAGE, n, 16, &entries[n]), 0);
	assert_int_equal(vc_chunk_sync(fix.store), 0);
	for (int i = 0; i < n; i++)
		fix_expect(&fix, entries[i], 0, 16, 16, i, false);
}

/* Half a write that was told to nobody is overwritten; what was told before stays. */
static void test_full_direct(void **state VC_UNUSED)
{
	struct vc_disk_direct items[20], again[20];
	uint32_t n, m;

	assert_int_equal(try_direct(1, 16, items, &n), 0);
	write_fails(ENOSPC, 0);
	assert_int_equal(try_direct(2, 16, again, &m), -ENOSPC);
	write_fails(0, 0);
	assert_int_equal(try_direct(3, 16, again, &m), 0);
	assert_int_equal(vc_le64_get(again[0].entry), vc_le64_get(items[0].entry) + ((65536 + 64) / 64 << 10));
	assert_int_equal(vc_chunk_sync_direct(fix.store), 0);
	fix_expect(&fix, vc_le64_get(items[0].entry), 0, 16, 16, 1, false);
	fix_expect(&fix, vc_le64_get(again[0].entry), 0, 16, 16, 3, false);
}

/* The second of two runs fails: nothing stays pinned, no address is used twice. */
static void test_full_direct_half(void **state VC_UNUSED)
{
	struct vc_disk_direct items[20];
	uint32_t n;

	/* Header, first run, header of the next segment: then it is full. */
	write_fails(ENOSPC, 3);
	assert_int_equal(try_direct(1, 16 * 5, items, &n), -ENOSPC);
	write_fails(0, 0);
	assert_int_equal(vc_chunk_remove_segment(fix.store, 1), 0);
	assert_int_equal(try_direct(2, 16, items, &n), 0);
	assert_int_equal(vc_entry_segno(vc_le64_get(items[0].entry)), 2);
	fix_expect(&fix, vc_le64_get(items[0].entry), 0, 16, 16, 2, false);
}

/* A segment that cannot be made leaves neither file nor a hole in the numbers. */
static void test_full_segment(void **state VC_UNUSED)
{
	uint64_t entry;

	fix.fault.allocate_error = ENOSPC;
	for (int i = 0; i < 5; i++)
		assert_int_equal(try_append(VC_STREAM_DESTAGE, 1, 1, &entry), -ENOSPC);
	fix.fault.allocate_error = 0;
	write_fails(ENOSPC, 0);
	assert_int_equal(try_append(VC_STREAM_DIRECT, 1, 1, &entry), -ENOSPC);
	fix.fault.open_error = ENOSPC;
	assert_int_equal(try_append(VC_STREAM_DIRECT, 1, 1, &entry), -ENOSPC);
	fix.fault.open_error = 0;
	assert_int_equal(count_files(), 0);
	assert_int_equal(vc_chunk_next_segno(fix.store), 1);
	write_fails(0, 0);
	assert_int_equal(try_append(VC_STREAM_DESTAGE, 1, 1, &entry), 0);
	assert_int_equal(vc_entry_segno(entry), 1);
}

static void test_no_fallocate(void **state VC_UNUSED)
{
	uint64_t entry;

	fix.fault.allocate_error = EOPNOTSUPP;
	assert_int_equal(try_append(VC_STREAM_DIRECT, 1, 1, &entry), 0);
	fix_expect(&fix, entry, 0, 1, 1, 1, false);
}

/* ---- the broken disk ---- */

static void expect_stopped(uint64_t entry)
{
	struct vc_disk_direct items[4];
	uint64_t unused;
	uint32_t n;

	fix.fault.sync_error = fix.fault.dir_error = fix.fault.write_error = 0;
	assert_int_equal(vc_chunk_sync(fix.store), -EROFS);
	assert_int_equal(vc_chunk_sync_direct(fix.store), -EROFS);
	for (int i = 0; i < VC_STREAM_COUNT; i++)
		assert_int_equal(try_append((enum vc_chunk_stream)i, 9, 1, &unused), -EROFS);
	assert_int_equal(try_direct(9, 3, items, &n), -EROFS);
	fix_expect(&fix, entry, 0, 4, 4, 1, false);
	/* A new store may try again. */
	fix_reopen(&fix);
	fix_expect(&fix, entry, 0, 4, 4, 1, false);
	assert_int_equal(try_append(VC_STREAM_DIRECT, 9, 1, &unused), 0);
	assert_int_equal(vc_chunk_sync(fix.store), 0);
}

static uint64_t store_one(void)
{
	uint64_t entry = fix_append(&fix, VC_STREAM_DESTAGE, 1, 4, 1, false);

	assert_int_equal(vc_chunk_sync(fix.store), 0);
	return entry;
}

static void test_write_fails(void **state VC_UNUSED)
{
	uint64_t entry = store_one(), unused;

	write_fails(EIO, 0);
	assert_int_equal(try_append(VC_STREAM_DIRECT, 2, 1, &unused), -EIO);
	expect_stopped(entry);
}

static void test_gathered_write_fails(void **state VC_UNUSED)
{
	uint64_t entry = store_one();

	fix_append(&fix, VC_STREAM_CLEAN, 1, 1, 2, false);
	write_fails(EIO, 0);
	assert_int_equal(vc_chunk_sync(fix.store), -EIO);
	expect_stopped(entry);
}

/* ENOSPC from a sync is not a full disk that passes: pages may have been dropped. */
static void test_sync_fails(void **state VC_UNUSED)
{
	const int errors[] = { EIO, ENOSPC };

	for (size_t i = 0; i < VC_ARRAY_LEN(errors); i++) {
		uint64_t entry = store_one();

		fix_append(&fix, VC_STREAM_DESTAGE, 1, 1, 2, false);
		fix.fault.sync_error = errors[i];
		assert_int_equal(vc_chunk_sync(fix.store), -EIO);
		expect_stopped(entry);
	}
}

static void test_direct_sync_fails(void **state VC_UNUSED)
{
	uint64_t entry = store_one(), unused;

	assert_int_equal(try_append(VC_STREAM_DIRECT, 2, 1, &unused), 0);
	fix.fault.sync_error = EIO;
	assert_int_equal(vc_chunk_sync_direct(fix.store), -EIO);
	expect_stopped(entry);
}

static void test_dir_sync_fails(void **state VC_UNUSED)
{
	uint64_t entry = store_one(), unused;

	assert_int_equal(try_append(VC_STREAM_DIRECT, 2, 1, &unused), 0);
	fix.fault.dir_error = EIO;
	assert_int_equal(vc_chunk_sync_direct(fix.store), -EIO);
	expect_stopped(entry);
}

/* A read that fails is neither corruption nor remembered. */
static void test_read_fails(void **state VC_UNUSED)
{
	uint64_t entry = store_one();
	uint8_t block[VC_BLOCK_SIZE];
	uint32_t size;

	fix_reopen(&fix);
	fix.fault.read_error = EIO;
	assert_int_equal(vc_chunk_read(fix.store, entry, 1, block), -EIO);
	assert_int_equal(vc_chunk_stored_size(fix.store, entry, &size), -EIO);
	fix.fault.read_error = 0;
	fix_expect(&fix, entry, 0, 4, 4, 1, false);
}

/* ---- syncing ---- */

static void test_sync_does_what_is_needed(void **state VC_UNUSED)
{
	uint64_t entry;

	assert_int_equal(vc_chunk_sync(fix.store), 0);
	assert_int_equal(fix.fault.syncs + fix.fault.dir_syncs, 0);
	fix_append(&fix, VC_STREAM_DESTAGE, 1, 1, 1, false);
	assert_int_equal(try_append(VC_STREAM_DIRECT, 2, 1, &entry), 0);
	assert_int_equal(vc_chunk_sync_direct(fix.store), 0);
	assert_int_equal(fix.fault.syncs, 1);
	assert_int_equal(fix.fault.dir_syncs, 1);
	assert_int_equal(vc_chunk_sync(fix.store), 0);
	assert_int_equal(fix.fault.syncs, 2);
	assert_int_equal(fix.fault.dir_syncs, 1);
	assert_int_equal(vc_chunk_sync(fix.store), 0);
	assert_int_equal(vc_chunk_sync_direct(fix.store), 0);
	assert_int_equal(fix.fault.syncs, 2);
	assert_int_equal(fix.fault.dir_syncs, 1);
}

/* A segment that was written, sealed and removed before the sync asks for nothing. */
static void test_sync_after_remove(void **state VC_UNUSED)
{
	uint64_t entry;

	do {
		assert_int_equal(try_append(VC_STREAM_DIRECT, 1, 16, &entry), 0);
	} while (vc_entry_segno(entry) == 1);
	assert_int_equal(vc_chunk_remove_segment(fix.store, 1), 0);
	assert_int_equal(vc_chunk_sync(fix.store), 0);
	assert_int_equal(fix.fault.syncs, 1);
}

#define WRITERS 3
#define WRITES 150

struct writer {
	uint64_t seed;
	enum vc_chunk_stream stream;
};

/* What was appended before a sync is durable after it, whoever else is syncing. */
static void writer_check(const uint64_t *entries, uint32_t n, uint64_t upto)
{
	for (uint32_t i = 0; i < n; i++)
		if (entries[i])
			assert(fault_is_durable(&fix.fault, fix_path(&fix, vc_entry_segno(entries[i])), upto));
}

static void *direct_thread(void *arg)
{
	struct writer *w = arg;
	struct vc_disk_direct items[8];
	uint64_t entries[8];
	uint32_t n;

	for (int i = 0; i < WRITES; i++) {
		uint64_t upto;

		assert(try_direct(w->seed + i, 1 + i % 40, items, &n) == 0);
		upto = fault_written(&fix.fault);
		assert((i & 1 ? vc_chunk_sync(fix.store) : vc_chunk_sync_direct(fix.store)) == 0);
		for (uint32_t k = 0; k < n; k++)
			entries[k] = vc_le64_get(items[k].entry);
		writer_check(entries, n, upto);
		vc_chunk_direct_done(fix.store, items, n, i);
	}
	return NULL;
}

static void *gather_thread(void *arg)
{
	struct writer *w = arg;
	uint8_t *data = malloc(FIX_BLOCKS * FIX_BLOCK), *got = malloc(FIX_BLOCKS * FIX_BLOCK);
	uint64_t entries[8];

	for (int i = 0; i < WRITES; i++) {
		for (uint64_t k = 0; k < 8; k++)
			assert(try_append(w->stream, w->seed + i * 8 + k, 3, &entries[k]) == 0);
		assert(vc_chunk_sync(fix.store) == 0);
		/* Nobody else appends to this stream, so all of its files must be. */
		writer_check(entries, 8, UINT64_MAX);
		for (uint64_t k = 0; k < 8; k++) {
			fix_fill(data, 3, w->seed + i * 8 + k, false);
			assert(vc_chunk_read(fix.store, entries[k], 3, got) == 0);
			assert(memcmp(data, got, 3 * FIX_BLOCK) == 0);
		}
	}
	free(got);
	free(data);
	return NULL;
}

static void test_concurrent_syncs(void **state VC_UNUSED)
{
	struct writer writers[] = {
		{ 1000000, VC_STREAM_DIRECT }, { 2000000, VC_STREAM_DIRECT }, { 3000000, VC_STREAM_DESTAGE },
		{ 4000000, VC_STREAM_CLEAN },
	};
	pthread_t threads[VC_ARRAY_LEN(writers)];

	fix.fault.slow_sync = true;
	for (size_t i = 0; i < VC_ARRAY_LEN(writers); i++)
		assert_int_equal(vc_thread_start(&threads[i], "writer",
						 writers[i].stream == VC_STREAM_DIRECT ? direct_thread : gather_thread,
						 &writers[i]), 0);
	for (size_t i = 0; i < VC_ARRAY_LEN(writers); i++)
		pthread_join(threads[i], NULL);
}

/* One sync that fails is told to all who relied on it. */
static void *failing_thread(void *arg)
{
	struct vc_disk_direct items[8];
	uint32_t n;

	for (uint64_t i = 0;; i++) {
		int r = try_direct(*(uint64_t *)arg + i, 1, items, &n);

		if (r == -EROFS)
			return NULL;
		assert(r == 0);
		r = vc_chunk_sync_direct(fix.store);
		if (fix.fault.sync_error)
			assert(r == -EIO || r == -EROFS);
		if (i == 20)
			fix.fault.sync_error = EIO;
	}
}

static void test_concurrent_failure(void **state VC_UNUSED)
{
	uint64_t seeds[WRITERS] = { 1, 100000, 200000 };
	pthread_t threads[WRITERS];

	for (int i = 0; i < WRITERS; i++)
		assert_int_equal(vc_thread_start(&threads[i], "failing", failing_thread, &seeds[i]), 0);
	for (int i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(vc_chunk_sync_direct(fix.store), -EROFS);
}

/* ---- removing under readers ---- */

#define VICTIMS 30

struct removal {
	uint64_t entries[VICTIMS * 3];
	_Atomic bool stop;
	_Atomic uint64_t reads;
};

/* Right data or -ESTALE, never anything else. */
static void *reader_thread(void *arg)
{
	struct removal *rm = arg;
	uint8_t *data = malloc(FIX_BLOCKS * FIX_BLOCK), *got = malloc(FIX_BLOCKS * FIX_BLOCK);
	uint64_t rnd = (uintptr_t)data;

	while (!rm->stop) {
		uint64_t i = vc_unit_below(&rnd, VICTIMS * 3);
		int r = vc_chunk_read(fix.store, rm->entries[i], 16, got);

		assert(r == 0 || r == -ESTALE);
		if (r == 0) {
			fix_fill(data, 16, i, false);
			assert(memcmp(data, got, 16 * FIX_BLOCK) == 0);
		}
		rm->reads++;
	}
	free(got);
	free(data);
	return NULL;
}

static void test_remove_under_readers(void **state VC_UNUSED)
{
	static struct removal rm;
	pthread_t threads[3];

	memset(&rm, 0, sizeof(rm));
	fix.params.cache_bytes = 100000;
	fix_reopen(&fix);
	fix.store->open_max = 4;
	for (uint64_t i = 0; i < VICTIMS * 3; i++)
		rm.entries[i] = fix_append(&fix, VC_STREAM_DESTAGE, 1, 16, i, false);
	fix_append(&fix, VC_STREAM_DESTAGE, 1, 16, 1, false);
	assert_int_equal(vc_chunk_sync(fix.store), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(vc_thread_start(&threads[i], "reader", reader_thread, &rm), 0);
	for (uint64_t segno = 1; segno <= VICTIMS; segno++) {
		uint64_t until = rm.reads + 50;

		while (rm.reads < until)
			sched_yield();
		assert_int_equal(vc_chunk_remove_segment(fix.store, segno), 0);
	}
	rm.stop = true;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(vc_chunk_next_segno(fix.store), VICTIMS + 2);
	assert_int_equal(fix.fault.open_files, 1);
	assert_int_equal(count_files(), 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_full_while_gathered),
		TEST(test_full_while_appending),
		TEST(test_full_buffer),
		TEST(test_full_direct),
		TEST(test_full_direct_half),
		TEST(test_full_segment),
		TEST(test_no_fallocate),
		TEST(test_write_fails),
		TEST(test_gathered_write_fails),
		TEST(test_sync_fails),
		TEST(test_direct_sync_fails),
		TEST(test_dir_sync_fails),
		TEST(test_read_fails),
		TEST(test_sync_does_what_is_needed),
		TEST(test_sync_after_remove),
		TEST(test_concurrent_syncs),
		TEST(test_concurrent_failure),
		TEST(test_remove_under_readers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
