/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading many chunks at once: the bytes, the calls it takes, several readers, and what is damaged or gone. VC_TEST_THIN. */
#include "config.h"
#include "unit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "chunk_fixture.h"

#define CHUNKS 200
#define WANTS 120
#define THREADS 4
#define ROUNDS 60

static struct chunk_fixture fix;
static uint64_t entries[CHUNKS];

static int setup_cache(uint64_t cache_bytes)
{
	fix_open(&fix);
	fix_append_many(&fix, entries, CHUNKS);
	fix.params.cache_bytes = cache_bytes;
	fix_reopen(&fix);
	return 0;
}

static int setup(void **state VC_UNUSED) { return setup_cache(UINT64_C(32) << 20); }
static int setup_small(void **state VC_UNUSED) { return setup_cache(0); }

static int teardown(void **state VC_UNUSED)
{
	fix_close(&fix);
	return 0;
}

/* What is wanted, and where it is checked. */
struct many {
	struct vc_chunk_want wants[WANTS];
	size_t chunk[WANTS];
	uint32_t first[WANTS];
	size_t n;
	uint8_t *buf;
};

static void want(struct many *m, size_t chunk, uint32_t first, uint32_t n)
{
	size_t at = m->n++;

	m->chunk[at] = chunk;
	m->first[at] = first;
	m->wants[at] = (struct vc_chunk_want){ .entry = entries[chunk] + first, .nblocks = n, .buf = m->buf + at * FIX_BLOCKS * FIX_BLOCK };
}

static void expect(const struct many *m, size_t i)
{
	uint8_t *content = malloc(FIX_BLOCKS * FIX_BLOCK);

	fix_fill(content, fix_blocks_of(m->chunk[i]), m->chunk[i] + 1, fix_soft_of(m->chunk[i]));
	assert_memory_equal(m->wants[i].buf, content + m->first[i] * FIX_BLOCK, m->wants[i].nblocks * FIX_BLOCK);
	free(content);
}

static struct many *many_new(void)
{
	struct many *m = calloc(1, sizeof(*m));

	assert_non_null(m);
	m->buf = malloc(WANTS * FIX_BLOCKS * FIX_BLOCK);
	assert_non_null(m->buf);
	return m;
}

static void many_free(struct many *m)
{
	free(m->buf);
	free(m);
}

/* Ascending with leaps, some chunks wanted twice, some backwards. */
static void compose(struct many *m, uint64_t *rng)
{
	size_t chunk = vc_unit_below(rng, CHUNKS), count = 1 + vc_unit_below(rng, WANTS);

	m->n = 0;
	while (m->n < count) {
		uint32_t blocks = fix_blocks_of(chunk), first = (uint32_t)vc_unit_below(rng, blocks);

		want(m, chunk, first, 1 + (uint32_t)vc_unit_below(rng, blocks - first));
		chunk = vc_unit_below(rng, 8) ? (chunk + vc_unit_below(rng, 3)) % CHUNKS : vc_unit_below(rng, CHUNKS);
	}
}

static void read_random(uint64_t *rng)
{
	struct many *m = many_new();
	uint64_t rounds = ROUNDS / vc_unit_thin();

	for (uint64_t i = 0; i < rounds; i++) {
		size_t failed;

		compose(m, rng);
		assert_int_equal(vc_chunk_read_many(fix.store, m->wants, m->n, &failed), 0);
		for (size_t k = 0; k < m->n; k++)
			expect(m, k);
	}
	many_free(m);
}

static void test_random(void **state VC_UNUSED)
{
	uint64_t rng = vc_unit_seed();

	read_random(&rng);
	read_random(&rng);
}

static void *reader(void *arg)
{
	uint64_t rng = (uintptr_t)arg;

	read_random(&rng);
	return NULL;
}

/* They load what the others wait for; nobody may wait in a circle. */
static void test_threads(void **state VC_UNUSED)
{
	pthread_t threads[THREADS];
	uint64_t rng = vc_unit_seed();

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, reader, (void *)(uintptr_t)vc_unit_random(&rng)), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

/* Chunks in the order of the file come with far fewer calls than there are, and a second time with none. */
static void test_calls(void **state VC_UNUSED)
{
	struct many *m = many_new();
	size_t failed;
	unsigned reads;

	for (size_t i = 0; i < WANTS; i++)
		want(m, i, 0, fix_blocks_of(i));
	fix.fault.reads = 0;
	assert_int_equal(vc_chunk_read_many(fix.store, m->wants, m->n, &failed), 0);
	reads = fix.fault.reads;
	assert_true(reads > 0 && reads < WANTS / 3);
	assert_int_equal(vc_chunk_read_many(fix.store, m->wants, m->n, &failed), 0);
	assert_int_equal(fix.fault.reads, reads);
	for (size_t i = 0; i < m->n; i++)
		expect(m, i);
	many_free(m);
}

static void flip_payload(size_t chunk)
{
	int fd = open(fix_path(&fix, vc_entry_segno(entries[chunk])), O_RDWR);
	off_t at = vc_entry_offset(entries[chunk]) + (off_t)sizeof(struct vc_disk_chunk) + 5;
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 4;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

/* The first damaged piece is named; what is whole is cached, and the damage found again. */
static void test_damage(void **state VC_UNUSED)
{
	struct many *m = many_new();
	size_t failed;

	vc_unit_catch_messages(true);
	flip_payload(7);
	flip_payload(12);
	for (size_t i = 0; i < 20; i++)
		want(m, i, 0, fix_blocks_of(i));
	for (int round = 0; round < 2; round++) {
		memset(m->buf, 0, WANTS * FIX_BLOCKS * FIX_BLOCK);
		assert_int_equal(vc_chunk_read_many(fix.store, m->wants, m->n, &failed), -EBADMSG);
		assert_int_equal(failed, 7);
		for (size_t i = 0; i < m->n; i++)
			if (i == 7 || i == 12)
				assert_true(vc_is_zero(m->wants[i].buf, m->wants[i].nblocks * FIX_BLOCK));
			else
				expect(m, i);
	}
	vc_unit_catch_messages(false);
	many_free(m);
}

static void test_errors(void **state VC_UNUSED)
{
	struct many *m = many_new();
	size_t failed;

	for (size_t i = 0; i < 20; i++)
		want(m, i, 0, fix_blocks_of(i));
	vc_unit_catch_messages(true);
	fix.fault.read_error = EIO;
	assert_int_equal(vc_chunk_read_many(fix.store, m->wants, m->n, &failed), -EIO);
	assert_int_equal(failed, 0);
	fix.fault.read_error = 0;
	assert_int_equal(vc_chunk_read_many(fix.store, m->wants, m->n, &failed), 0);
	m->wants[4].entry = 1;
	m->wants[9].nblocks = 0;
	assert_int_equal(vc_chunk_read_many(fix.store, m->wants, m->n, &failed), -EBADMSG);
	assert_int_equal(failed, 4);
	vc_unit_catch_messages(false);
	many_free(m);
}

/* More blocks than the chunk has. */
static void test_too_long(void **state VC_UNUSED)
{
	struct many *m = many_new();
	size_t failed;

	want(m, 3, 0, fix_blocks_of(3));
	want(m, 4, 0, fix_blocks_of(4) + 1);
	vc_unit_catch_messages(true);
	assert_int_equal(vc_chunk_read_many(fix.store, m->wants, m->n, &failed), -EBADMSG);
	vc_unit_catch_messages(false);
	assert_int_equal(failed, 1);
	many_free(m);
}

static void test_gone(void **state VC_UNUSED)
{
	struct many *m = many_new();
	uint64_t segno = vc_entry_segno(entries[0]);
	size_t failed;

	for (size_t i = 0; i < 3; i++)
		want(m, i, 0, fix_blocks_of(i));
	assert_int_equal(vc_chunk_remove_segment(fix.store, segno), 0);
	assert_int_equal(vc_chunk_read_many(fix.store, m->wants, m->n, &failed), -ESTALE);
	assert_int_equal(failed, 0);
	many_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_random, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random, setup_small, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup_small, teardown),
		cmocka_unit_test_setup_teardown(test_calls, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_long, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gone, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
