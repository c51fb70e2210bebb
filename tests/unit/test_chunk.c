/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of chunk: what is stored comes back or is refused, and the life of segments. Faults: test_chunk_fault.c. */
#include "config.h"
#include "unit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "checksum.h"
#include "chunk_fixture.h"
#include "chunk_impl.h"
#include "io_sim.h"

static struct chunk_fixture fix;

static int setup(void **state VC_UNUSED)
{
	fix_open(&fix);
	return 0;
}

static int teardown(void **state VC_UNUSED)
{
	vc_unit_catch_messages(false);
	fix_close(&fix);
	return 0;
}

static void sync_store(void)
{
	assert_int_equal(vc_chunk_sync(fix.store), 0);
}

/* What vc_chunk_read answers for the first block of a chunk. */
static int try_read(uint64_t entry)
{
	uint8_t block[VC_BLOCK_SIZE];

	return vc_chunk_read(fix.store, entry, 1, block);
}

static off_t file_size(uint64_t segno)
{
	struct stat st;

	return stat(fix_path(&fix, segno), &st) == 0 ? st.st_size : -1;
}

/* ---- round trips ---- */

static void test_round_trip(void **state VC_UNUSED)
{
	uint64_t entries[2][FIX_BLOCKS + 1];

	for (uint32_t n = 1; n <= FIX_BLOCKS; n++) {
		entries[0][n] = fix_append(&fix, VC_STREAM_DESTAGE, 5, n, n, false);
		entries[1][n] = fix_append(&fix, VC_STREAM_CLEAN, 5, n, 100 + n, true);
	}
	sync_store();
	for (int pass = 0; pass < 3; pass++) {
		for (uint32_t n = 1; n <= FIX_BLOCKS; n++) {
			fix_expect(&fix, entries[0][n], 0, n, n, n, false);
			fix_expect(&fix, entries[1][n] + n / 2, n / 2, n - n / 2, n, 100 + n, true);
		}
		if (pass == 1)
			fix.params.cache_bytes = 0;
		fix_reopen(&fix);
	}
}

struct stored {
	uint64_t entry, seed;
	uint32_t nblocks;
	bool soft;
};

static void test_random(void **state VC_UNUSED)
{
	uint64_t rnd = vc_unit_seed();
	static struct stored made[600];

	for (int i = 0; i < 600; i++) {
		struct stored *s = &made[i];

		s->seed = vc_unit_below(&rnd, 1 << 20);
		s->nblocks = 1 + (uint32_t)vc_unit_below(&rnd, FIX_BLOCKS);
		s->soft = vc_unit_below(&rnd, 2);
		s->entry = fix_append(&fix, (enum vc_chunk_stream)vc_unit_below(&rnd, VC_STREAM_COUNT), i, s->nblocks,
				      s->seed, s->soft);
		if (vc_unit_below(&rnd, 50) == 0)
			sync_store();
	}
	sync_store();
	for (int i = 0; i < 4000; i++) {
		struct stored *s = &made[vc_unit_below(&rnd, 600)];
		uint32_t first = (uint32_t)vc_unit_below(&rnd, s->nblocks);
		uint32_t n = 1 + (uint32_t)vc_unit_below(&rnd, s->nblocks - first);

		fix_expect(&fix, s->entry + first, first, n, s->nblocks, s->seed, s->soft);
		if (i % 1000 == 999)
			fix_reopen(&fix);
	}
}

/* Nothing overlaps and no chunk crosses its segment's end. */
static void test_addresses(void **state VC_UNUSED)
{
	uint64_t before = 0;

	for (uint32_t i = 0; i < 200; i++) {
		uint64_t entry = fix_append(&fix, VC_STREAM_DESTAGE, 1, 1 + i % FIX_BLOCKS, i, i & 1);
		uint64_t at = vc_entry_segno(entry) << 32 | vc_entry_offset(entry);
		uint32_t size;

		sync_store();
		assert_int_equal(vc_chunk_stored_size(fix.store, entry, &size), 0);
		assert_true(at >= before);
		assert_true(vc_entry_offset(entry) >= VC_CHUNK_SEGMENT_HEADER);
		assert_true(vc_entry_offset(entry) + size <= FIX_SEGMENT);
		assert_int_equal(size % VC_CHUNK_ALIGN, 0);
		before = at + size;
	}
	assert_true(before >> 32 > 5);
}

/* A gathering stream makes few large writes. */
static void test_gathers(void **state VC_UNUSED)
{
	vc_chunk_close(fix.store);
	fix.params.segment_size = VC_CHUNK_SEGMENT_MAX;
	assert_int_equal(vc_chunk_open(&fix.params, &fix.store), 0);
	fix.fault.writes = 0;
	for (uint32_t i = 0; i < 8 * 256; i++)
		fix_append(&fix, VC_STREAM_DESTAGE, 1, 1, i, false);
	sync_store();
	/* 8 MiB and a little, the header of the segment. */
	assert_true(fix.fault.writes <= 1 + 9);
}

/* Padding and header are accounted, so is what compression saves. */
static void test_stats(void **state VC_UNUSED)
{
	struct vc_chunk_stats stats;

	fix_append(&fix, VC_STREAM_DESTAGE, 1, 16, 1, false);
	vc_chunk_stats(fix.store, &stats);
	assert_int_equal(stats.segments, 1);
	assert_int_equal(stats.appended_blocks, 16);
	assert_int_equal(stats.stored_bytes, 64 + 65536);
	assert_int_equal(stats.bytes, 4096 + 64 + 65536);
	fix_append(&fix, VC_STREAM_CLEAN, 1, 16, 1, true);
	vc_chunk_stats(fix.store, &stats);
	assert_int_equal(stats.segments, 2);
	assert_true(stats.stored_bytes < 65600 + 30000);
}

/* ---- direct ---- */

#define DIRECT_MAX 300

struct direct {
	struct vc_disk_direct items[DIRECT_MAX];
	uint32_t n;
};

static void append_direct(struct direct *d, uint64_t lba, const uint8_t *data, uint64_t nblocks)
{
	memset(d, 0xff, sizeof(*d));
	assert_int_equal(vc_chunk_append_direct(fix.store, 3, lba, 10, data, nblocks, d->items, &d->n), 0);
	assert_true(d->n <= nblocks / FIX_BLOCKS + 2);
}

/* The items cover the data exactly, split at chunk borders, and read as it. */
static void expect_direct(const struct direct *d, uint64_t lba, const uint8_t *data, uint64_t nblocks)
{
	uint8_t *got = malloc(FIX_BLOCKS * FIX_BLOCK);
	uint64_t done = 0;

	for (uint32_t i = 0; i < d->n; i++) {
		uint64_t entry = vc_le64_get(d->items[i].entry);
		uint32_t n = vc_le32_get(d->items[i].nblocks);

		assert_int_equal(vc_le32_get(d->items[i].reserved), 0);
		assert_int_equal(vc_chunk_vouch(fix.store, &d->items[i]), 0);
		if (entry == 0) {
			assert_true(vc_is_zero(data + done * FIX_BLOCK, n * FIX_BLOCK));
		} else {
			assert_int_equal((lba + done) / FIX_BLOCKS, (lba + done + n - 1) / FIX_BLOCKS);
			assert_int_equal(vc_chunk_read(fix.store, entry, n, got), 0);
			assert_memory_equal(got, data + done * FIX_BLOCK, n * FIX_BLOCK);
		}
		done += n;
	}
	assert_int_equal(done, nblocks);
	free(got);
}

static void test_direct(void **state VC_UNUSED)
{
	uint64_t rnd = vc_unit_seed();
	uint8_t *data = malloc(DIRECT_MAX * FIX_BLOCK);
	struct direct d;

	for (int round = 0; round < 60; round++) {
		uint64_t lba = vc_unit_below(&rnd, 1000), n = 1 + vc_unit_below(&rnd, DIRECT_MAX);

		fix_fill(data, (uint32_t)n, vc_unit_random(&rnd) >> 32, round & 1);
		for (int hole = 0; hole < 3; hole++) {
			uint64_t at = vc_unit_below(&rnd, n), len = vc_unit_below(&rnd, VC_MIN(n - at, 60) + 1);

			memset(data + at * FIX_BLOCK, 0, len * FIX_BLOCK);
		}
		append_direct(&d, lba, data, n);
		expect_direct(&d, lba, data, n);
		vc_chunk_direct_done(fix.store, d.items, d.n, 20);
	}
	free(data);
}

static void test_direct_zeros(void **state VC_UNUSED)
{
	uint8_t *data = calloc(100, FIX_BLOCK);
	struct vc_chunk_stats stats;
	struct direct d;

	append_direct(&d, 5, data, 100);
	assert_int_equal(d.n, 1);
	assert_int_equal(vc_le64_get(d.items[0].entry), 0);
	assert_int_equal(vc_le64_get(d.items[0].payload_sum), 0);
	assert_int_equal(vc_le32_get(d.items[0].nblocks), 100);
	vc_chunk_stats(fix.store, &stats);
	assert_int_equal(stats.segments, 0);
	/* One non-zero block: its chunk is stored whole, the runs of zeros around it are one item each. */
	data[50 * FIX_BLOCK] = 1;
	append_direct(&d, 0, data, 100);
	assert_int_equal(d.n, 3);
	assert_int_equal(vc_le32_get(d.items[0].nblocks), 48);
	assert_int_equal(vc_le32_get(d.items[1].nblocks), 16);
	assert_int_equal(vc_le32_get(d.items[2].nblocks), 36);
	expect_direct(&d, 0, data, 100);
	free(data);
}

struct seen {
	struct vc_chunk_segment_info info[100];
	size_t n;
};

static int see(void *ctx, const struct vc_chunk_segment_info *info)
{
	struct seen *seen = ctx;

	assert_true(seen->n == 0 || seen->info[seen->n - 1].segno < info->segno);
	seen->info[seen->n++] = *info;
	return 0;
}

static struct seen see_all(void)
{
	struct seen seen = { .n = 0 };

	assert_int_equal(vc_chunk_each_segment(fix.store, see, &seen), 0);
	return seen;
}

static void test_direct_pins(void **state VC_UNUSED)
{
	uint8_t *data = malloc(128 * FIX_BLOCK);
	struct seen seen;
	struct direct d;

	fix_fill(data, 128, 1, false);
	append_direct(&d, 0, data, 128);
	seen = see_all();
	assert_int_equal(seen.n, 3);
	/* The first is full, but what names it has no LSN: nobody may judge it yet. */
	assert_false(seen.info[0].sealed);
	assert_int_equal(vc_chunk_remove_segment(fix.store, 1), -EBUSY);
	vc_chunk_direct_done(fix.store, d.items, d.n, 99);
	seen = see_all();
	assert_true(seen.info[0].sealed);
	assert_int_equal(seen.info[0].max_lsn, 99);
	assert_false(seen.info[2].sealed);
	assert_int_equal(seen.info[2].max_lsn, 99);
	/* A record that was given up changes no LSN. */
	append_direct(&d, 0, data, 16);
	vc_chunk_direct_done(fix.store, d.items, d.n, 0);
	assert_int_equal(see_all().info[2].max_lsn, 99);
	assert_int_equal(vc_chunk_remove_segment(fix.store, 3), -EBUSY);
	assert_int_equal(vc_chunk_remove_segment(fix.store, 1), 0);
	free(data);
}

static void test_vouch(void **state VC_UNUSED)
{
	uint8_t *data = malloc(16 * FIX_BLOCK);
	struct vc_disk_direct item;
	struct direct d;

	fix_fill(data, 16, 1, true);
	append_direct(&d, 0, data, 16);
	vc_unit_catch_messages(true);
	item = d.items[0];
	assert_int_equal(vc_chunk_vouch(fix.store, &item), 0);
	item.payload_sum = vc_le64_of(vc_le64_get(item.payload_sum) ^ 1);
	assert_int_equal(vc_chunk_vouch(fix.store, &item), -EBADMSG);
	item = d.items[0];
	item.nblocks = vc_le32_of(15);
	assert_int_equal(vc_chunk_vouch(fix.store, &item), -EBADMSG);
	item = d.items[0];
	item.entry = vc_le64_of(vc_le64_get(item.entry) + 1);
	assert_int_equal(vc_chunk_vouch(fix.store, &item), -EBADMSG);
	item.entry = vc_le64_of(vc_le64_get(d.items[0].entry) + (1 << 10));
	assert_int_equal(vc_chunk_vouch(fix.store, &item), -EBADMSG);
	item.entry = vc_le64_of(vc_le64_get(d.items[0].entry) + (UINT64_C(1) << 30));
	assert_int_equal(vc_chunk_vouch(fix.store, &item), -EBADMSG);
	/* It asks the disk, not the cache. */
	assert_int_equal(try_read(vc_le64_get(d.items[0].entry)), 0);
	assert_int_equal(truncate(fix_path(&fix, 1), 4096 + 300), 0);
	assert_int_equal(vc_chunk_vouch(fix.store, &d.items[0]), -EBADMSG);
	assert_int_equal(vc_unit_messages(), 0);
	free(data);
}

/* ---- corruption ---- */

/* Read and change a segment file behind the store's back. */
static void peek(uint64_t segno, uint32_t offset, void *bytes, size_t len)
{
	int fd = open(fix_path(&fix, segno), O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, bytes, len, offset), (ssize_t)len);
	close(fd);
}

static void poke(uint64_t segno, uint32_t offset, const void *bytes, size_t len)
{
	int fd = open(fix_path(&fix, segno), O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, offset), (ssize_t)len);
	close(fd);
}

static void swap_files(uint64_t one, uint64_t other)
{
	char *path = strdup(fix_path(&fix, one)), *temp;

	assert_true(asprintf(&temp, "%s/temp", fix.top) > 0);
	assert_int_equal(rename(path, temp), 0);
	assert_int_equal(rename(fix_path(&fix, other), path), 0);
	assert_int_equal(rename(temp, fix_path(&fix, other)), 0);
	free(temp);
	free(path);
}

static void flip(uint64_t segno, uint32_t offset, uint8_t mask)
{
	uint8_t byte;

	peek(segno, offset, &byte, 1);
	byte ^= mask;
	poke(segno, offset, &byte, 1);
}

/* The chunk is refused, with one message that names its file and says `why`. */
static void expect_corrupt_because(uint64_t entry, const char *why)
{
	vc_unit_catch_messages(true);
	assert_int_equal(try_read(entry), -EBADMSG);
	assert_int_equal(vc_unit_messages(), 1);
	assert_non_null(strstr(vc_unit_last_message(), ".seg"));
	assert_non_null(strstr(vc_unit_last_message(), why));
	vc_unit_catch_messages(false);
}

static void expect_corrupt(uint64_t entry)
{
	expect_corrupt_because(entry, "corrupt");
}

static void open_without_cache(void)
{
	fix.params.cache_bytes = 0;
	fix_reopen(&fix);
}

static void test_flipped_bits(void **state VC_UNUSED)
{
	uint64_t soft = fix_append(&fix, VC_STREAM_DESTAGE, 1, 4, 1, true);
	uint64_t hard = fix_append(&fix, VC_STREAM_DESTAGE, 1, 1, 2, false);
	uint64_t entries[] = { soft, hard };
	uint32_t size;

	sync_store();
	open_without_cache();
	for (size_t i = 0; i < 2; i++) {
		uint32_t at = vc_entry_offset(entries[i]);
		struct vc_disk_chunk head;

		peek(1, at, &head, sizeof(head));
		assert_int_equal(vc_chunk_stored_size(fix.store, entries[i], &size), 0);
		for (uint32_t byte = 0; byte < size; byte++) {
			flip(1, at + byte, (uint8_t)(1 << byte % 8));
			if (byte < sizeof(head) + vc_le32_get(head.stored_len))
				expect_corrupt(entries[i]);
			else
				fix_expect(&fix, entries[i], 0, 1, i ? 1 : 4, i + 1, i == 0);
			flip(1, at + byte, (uint8_t)(1 << byte % 8));
		}
	}
	fix_expect(&fix, soft, 0, 4, 4, 1, true);
	fix_expect(&fix, hard, 0, 1, 1, 2, false);
}

static void test_truncated(void **state VC_UNUSED)
{
	uint64_t first = fix_append(&fix, VC_STREAM_DESTAGE, 1, 4, 1, true);
	uint64_t last = fix_append(&fix, VC_STREAM_DESTAGE, 1, 4, 2, true);
	uint32_t at = vc_entry_offset(last), size;

	sync_store();
	open_without_cache();
	assert_int_equal(vc_chunk_stored_size(fix.store, last, &size), 0);
	for (uint32_t keep = size - VC_CHUNK_ALIGN; keep > 0; keep -= VC_MIN(keep, 61)) {
		assert_int_equal(truncate(fix_path(&fix, 1), at + keep), 0);
		expect_corrupt_because(last, "the file ends");
	}
	assert_int_equal(truncate(fix_path(&fix, 1), 0), 0);
	expect_corrupt(last);
	expect_corrupt(first);
	vc_unit_catch_messages(true);
	assert_int_equal(vc_chunk_stored_size(fix.store, last, &size), -EBADMSG);
}

/* Files that have changed places, and a chunk copied to another offset: the checksum knows its address. */
static void test_misplaced(void **state VC_UNUSED)
{
	uint64_t a = fix_append(&fix, VC_STREAM_DESTAGE, 1, 2, 1, false);
	uint64_t b = fix_append(&fix, VC_STREAM_CLEAN, 1, 2, 2, false);
	uint64_t a2 = fix_append(&fix, VC_STREAM_DESTAGE, 1, 2, 3, false);
	uint8_t chunk[64 + 8192];

	sync_store();
	open_without_cache();
	assert_int_equal(vc_entry_offset(a), vc_entry_offset(b));
	swap_files(1, 2);
	expect_corrupt(a);
	expect_corrupt(b);
	swap_files(1, 2);
	fix_reopen(&fix);
	fix_expect(&fix, a, 0, 2, 2, 1, false);
	peek(1, vc_entry_offset(a), chunk, sizeof(chunk));
	poke(1, vc_entry_offset(a2), chunk, sizeof(chunk));
	expect_corrupt(a2);
}

static void test_other_pool(void **state VC_UNUSED)
{
	uint64_t entry = fix_append(&fix, VC_STREAM_DESTAGE, 1, 2, 1, false);

	sync_store();
	fix.params.uuid[15] ^= 1;
	fix_reopen(&fix);
	expect_corrupt(entry);
}

/* Entries that no honest map holds. */
static void test_wrong_entries(void **state VC_UNUSED)
{
	uint64_t entry = fix_append(&fix, VC_STREAM_DESTAGE, 1, 4, 1, false);

	sync_store();
	expect_corrupt(entry - (1 << 4));
	expect_corrupt(entry + (1 << 4));
	expect_corrupt(entry + (1 << 10));
	expect_corrupt(entry + 4);
	expect_corrupt(entry | UINT64_C(1) << 59);
	expect_corrupt(entry | UINT64_C(1) << 63);
	expect_corrupt(VC_ENTRY_HOLE);
	assert_int_equal(try_read(entry + (UINT64_C(1) << 30)), -ESTALE);
	fix_expect(&fix, entry, 0, 4, 4, 1, false);
}

/* Write a chunk whose checksums are right into the place of another. */
static void forge(uint64_t entry, struct vc_disk_chunk *head, const uint8_t *payload)
{
	uint8_t bytes[sizeof(*head) + 4096];

	head->magic = vc_le32_of(VC_MAGIC_CHUNK);
	memset(head->uuid, 0x77, sizeof(head->uuid));
	head->payload_sum = vc_le64_of(vc_sum64(payload, VC_MIN(vc_le32_get(head->stored_len), 4096u), 0));
	head->header_sum = vc_le32_of(vc_chunk_header_sum(head, vc_entry_segno(entry), vc_entry_offset(entry)));
	memcpy(bytes, head, sizeof(*head));
	memcpy(bytes + sizeof(*head), payload, 4096);
	poke(vc_entry_segno(entry), vc_entry_offset(entry), bytes, sizeof(bytes));
}

/* Right checksums do not make a header possible. */
static void test_forged(void **state VC_UNUSED)
{
	const struct vc_disk_chunk good = { .codec = VC_CODEC_RAW, .nblocks = 1, .stored_len = vc_le32_of(4096) };
	uint64_t entry = fix_append(&fix, VC_STREAM_DESTAGE, 1, 1, 1, false);
	uint64_t rnd = vc_unit_seed();
	struct vc_disk_chunk head;
	uint8_t payload[4096], got[4096];

	sync_store();
	open_without_cache();
	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)vc_unit_random(&rnd);
	head = good;
	forge(entry, &head, payload);
	assert_int_equal(vc_chunk_read(fix.store, entry, 1, got), 0);
	assert_memory_equal(got, payload, sizeof(got));
	head = good;
	head.codec = VC_CODEC_END;
	forge(entry, &head, payload);
	expect_corrupt(entry);
	head = good;
	head.nblocks = 0;
	forge(entry, &head, payload);
	expect_corrupt(entry);
	head.nblocks = 2;
	forge(entry, &head, payload);
	expect_corrupt(entry);
	head = good;
	head.reserved = vc_le16_of(1);
	forge(entry, &head, payload);
	expect_corrupt(entry);
	head = good;
	head.codec = VC_CODEC_LZ4;
	forge(entry, &head, payload);
	expect_corrupt(entry);
	for (uint32_t len = 3073; len < 4096; len += 32) {
		head = good;
		head.codec = VC_CODEC_LZ4;
		head.stored_len = vc_le32_of(len);
		forge(entry, &head, payload);
		expect_corrupt(entry);
	}
	head = good;
	head.codec = VC_CODEC_LZ4;
	head.nblocks = 16;
	forge(entry, &head, payload);
	expect_corrupt(entry);
}

/* ---- segments ---- */

/* Fill `n` segments of the DESTAGE stream and begin another. Returns the entry of the first chunk. */
static uint64_t fill_segments(uint64_t n, uint64_t lsn)
{
	uint64_t first = 0, entry;

	do {
		entry = fix_append(&fix, VC_STREAM_DESTAGE, lsn, 16, 1, false);
		if (!first)
			first = entry;
	} while (vc_entry_segno(entry) < vc_entry_segno(first) + n);
	sync_store();
	return first;
}

static void test_segment_life(void **state VC_UNUSED)
{
	uint64_t first = fill_segments(2, 50);
	struct seen seen = see_all();

	assert_int_equal(seen.n, 3);
	assert_true(seen.info[0].sealed);
	assert_true(seen.info[1].sealed);
	assert_false(seen.info[2].sealed);
	assert_int_equal(seen.info[0].max_lsn, 50);
	assert_int_equal(seen.info[0].used, 4096 + 3 * 65600);
	assert_int_equal(file_size(1), (off_t)seen.info[0].used);
	assert_int_equal(vc_chunk_remove_segment(fix.store, 3), -EBUSY);
	assert_int_equal(vc_chunk_remove_segment(fix.store, 4), -ENOENT);
	assert_int_equal(vc_chunk_remove_segment(fix.store, 1), 0);
	assert_int_equal(file_size(1), -1);
	assert_int_equal(vc_chunk_remove_segment(fix.store, 1), -ENOENT);
	assert_int_equal(try_read(first), -ESTALE);
	assert_int_equal(see_all().n, 2);
}

/* Who uses the file of a removed segment reads on. */
static void test_remove_under_reader(void **state VC_UNUSED)
{
	struct vc_disk_chunk head;
	struct chunk_segment *seg;

	fill_segments(1, 50);
	assert_int_equal(vc_chunk_segment_get(fix.store, 1, &seg), 0);
	assert_int_equal(vc_chunk_remove_segment(fix.store, 1), 0);
	assert_int_equal(vc_io_pread(seg->file, &head, sizeof(head), 4096), (ssize_t)sizeof(head));
	assert_int_equal(vc_le32_get(head.magic), VC_MAGIC_CHUNK);
	vc_chunk_segment_put(fix.store, seg);
	/* The one that is open for appending. */
	assert_int_equal(fix.fault.open_files, 1);
}

static void test_segment_header(void **state VC_UNUSED)
{
	struct vc_disk_chunk_segment head;
	int fd;

	fix_append(&fix, VC_STREAM_DESTAGE, 1, 1, 1, false);
	fd = open(fix_path(&fix, 1), O_RDONLY);
	assert_int_equal(pread(fd, &head, sizeof(head), 0), (ssize_t)sizeof(head));
	close(fd);
	assert_true(vc_le64_get(head.magic) == VC_MAGIC_CHUNK_SEGMENT);
	assert_int_equal(vc_le64_get(head.segno), 1);
	assert_memory_equal(head.uuid, fix.params.uuid, 16);
	assert_true(vc_is_zero(head.reserved, sizeof(head.reserved)));
	assert_true(vc_le64_get(head.sum) == vc_sum64(&head, offsetof(struct vc_disk_chunk_segment, sum), 0));
}

/* Sealing returns what was reserved beyond the end. */
static void test_preallocation(void **state VC_UNUSED)
{
	struct stat st;

	vc_chunk_close(fix.store);
	fix.params.segment_size = 8 << 20;
	assert_int_equal(vc_chunk_open(&fix.params, &fix.store), 0);
	fix_append(&fix, VC_STREAM_DESTAGE, 1, 16, 1, false);
	sync_store();
	assert_int_equal(stat(fix_path(&fix, 1), &st), 0);
	assert_int_equal(st.st_size, 4096 + 65600);
	if (st.st_blocks * 512 < 8 << 20)
		skip();
	fix_reopen(&fix);
	assert_int_equal(stat(fix_path(&fix, 1), &st), 0);
	assert_true(st.st_blocks * 512 < 1 << 20);
}

static void test_open_files_bounded(void **state VC_UNUSED)
{
	uint64_t first;

	/* Unsynced files stay open: the sync must go through the descriptor that wrote. */
	fix.store->open_max = 2;
	for (uint64_t i = 0; i < 40; i++)
		fix_append(&fix, VC_STREAM_DESTAGE, 1, 16, i, false);
	assert_true(fix.fault.open_files > 10);
	fix.fault.syncs = 0;
	sync_store();
	assert_int_equal(fix.fault.syncs, 14);
	assert_true(fix.fault.open_files <= 2);
	fix.params.cache_bytes = 0;
	fix_reopen(&fix);
	fix.store->open_max = 3;
	first = vc_entry_make(1, 4096, 65536, 0);
	for (int round = 0; round < 2; round++) {
		for (uint64_t i = 0; i < 14; i++) {
			fix_expect(&fix, first + (i << 30), 0, 16, 16, i * 3, false);
			assert_true(fix.fault.open_files <= 3);
		}
	}
	/* The last three are still open. */
	fix.fault.open_error = EMFILE;
	fix_expect(&fix, first + (UINT64_C(13) << 30), 0, 16, 16, 39, false);
	fix_expect(&fix, first + (UINT64_C(11) << 30), 0, 16, 16, 33, false);
	assert_int_equal(try_read(first), -EMFILE);
	fix.fault.open_error = 0;
	fix_expect(&fix, first, 0, 16, 16, 0, false);
}

static void touch(const char *name)
{
	char *path;
	int fd;

	assert_true(asprintf(&path, "%s/%s", fix.dir, name) > 0);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	free(path);
}

static void test_foreign_names(void **state VC_UNUSED)
{
	static const char *const names[] = {
		"lost+found", "00000001.SEG", "0000000A.seg", "000000001.seg", "00000000.seg", "20000000.seg", "1.seg",
		"0000000g.seg",
	};

	for (size_t i = 0; i < VC_ARRAY_LEN(names); i++)
		touch(names[i]);
	touch("1fffffff.seg");
	vc_unit_catch_messages(true);
	fix_reopen(&fix);
	assert_int_equal(vc_unit_messages(), VC_ARRAY_LEN(names));
	assert_int_equal(vc_chunk_next_segno(fix.store), 0x20000000);
	assert_int_equal(see_all().n, 1);
}

/* A number is not used again after its file is gone, nor after a restart; the last one is an end. */
static void test_numbers(void **state VC_UNUSED)
{
	uint8_t block[VC_BLOCK_SIZE] = { 1 };
	uint64_t entry;

	assert_int_equal(vc_chunk_next_segno(fix.store), 1);
	fill_segments(1, 5);
	fix_reopen(&fix);
	assert_int_equal(vc_chunk_next_segno(fix.store), 3);
	assert_int_equal(vc_chunk_remove_segment(fix.store, 1), 0);
	assert_int_equal(vc_chunk_remove_segment(fix.store, 2), 0);
	fix.params.next_segno = vc_chunk_next_segno(fix.store);
	fix_reopen(&fix);
	assert_int_equal(vc_entry_segno(fix_append(&fix, VC_STREAM_DIRECT, 1, 1, 1, false)), 3);
	fix.params.next_segno = VC_SEGNO_MAX;
	fix_reopen(&fix);
	assert_int_equal(vc_entry_segno(fix_append(&fix, VC_STREAM_DIRECT, 1, 1, 1, false)), VC_SEGNO_MAX);
	vc_unit_catch_messages(true);
	assert_int_equal(vc_chunk_append(fix.store, VC_STREAM_DESTAGE, 1, 1, 1, block, 1, &entry, NULL), -ENOSPC);
}

/* A file under a number that is thought new is left alone. */
static void test_number_taken(void **state VC_UNUSED)
{
	touch("00000001.seg");
	vc_unit_catch_messages(true);
	assert_int_equal(vc_entry_segno(fix_append(&fix, VC_STREAM_DESTAGE, 1, 1, 1, false)), 2);
	assert_int_equal(file_size(1), 0);
}

static void test_set_and_settle(void **state VC_UNUSED)
{
	struct vc_chunk_segment_info info = { .segno = 1, .used = 5000, .max_lsn = 33, .sealed = true };
	struct seen seen;

	fill_segments(2, 50);
	fix_reopen(&fix);
	seen = see_all();
	assert_int_equal(seen.n, 3);
	assert_true(seen.info[0].max_lsn == UINT64_MAX);
	assert_true(seen.info[0].sealed);
	assert_int_equal(seen.info[2].used, 4096 + 65600);
	fix_reopen(&fix);
	vc_chunk_set_segment(fix.store, &info);
	/* Was open at the checkpoint: it may have grown since. */
	info = (struct vc_chunk_segment_info){ .segno = 3, .used = 4096, .max_lsn = 34, .sealed = false };
	vc_chunk_set_segment(fix.store, &info);
	info.segno = 77;
	vc_chunk_set_segment(fix.store, &info);
	vc_chunk_settle(fix.store, 60);
	seen = see_all();
	assert_int_equal(seen.info[0].used, 5000);
	assert_int_equal(seen.info[0].max_lsn, 33);
	assert_int_equal(seen.info[1].max_lsn, 60);
	assert_int_equal(seen.info[2].used, 4096 + 65600);
	assert_int_equal(seen.info[2].max_lsn, 60);
}

static int stop_at_two(void *ctx, const struct vc_chunk_segment_info *info)
{
	++*(int *)ctx;
	return info->segno == 2 ? 123 : 0;
}

static void test_each_stops(void **state VC_UNUSED)
{
	int calls = 0;

	fill_segments(3, 1);
	assert_int_equal(vc_chunk_each_segment(fix.store, stop_at_two, &calls), 123);
	assert_int_equal(calls, 2);
}

static void test_read_only(void **state VC_UNUSED)
{
	uint64_t entry = fill_segments(1, 1), got;
	struct direct d;
	uint8_t block[VC_BLOCK_SIZE] = { 1 };

	fix.params.read_only = true;
	fix_reopen(&fix);
	fix_expect(&fix, entry, 0, 16, 16, 1, false);
	assert_int_equal(vc_chunk_append(fix.store, VC_STREAM_DESTAGE, 1, 1, 1, block, 1, &got, NULL), -EROFS);
	assert_int_equal(vc_chunk_append_direct(fix.store, 1, 1, 1, block, 1, d.items, &d.n), -EROFS);
	assert_int_equal(vc_chunk_remove_segment(fix.store, 1), -EROFS);
	sync_store();
	assert_int_equal(see_all().n, 2);
}

static void test_bad_params(void **state VC_UNUSED)
{
	struct vc_chunk_params params = fix.params;
	struct vc_chunk_store *store;

	params.segment_size = VC_CHUNK_SEGMENT_MAX + 64u;
	assert_int_equal(vc_chunk_open(&params, &store), -EINVAL);
	params.segment_size = 65536;
	assert_int_equal(vc_chunk_open(&params, &store), -EINVAL);
	params = fix.params;
	params.chunk_blocks = 12;
	assert_int_equal(vc_chunk_open(&params, &store), -EINVAL);
	params = fix.params;
	params.dir = "/nonexistent/chunk";
	assert_int_equal(vc_chunk_open(&params, &store), -ENOENT);
	assert_int_equal(vc_chunk_create(params.io, fix.dir), -EEXIST);
}

static void test_missing_file(void **state VC_UNUSED)
{
	uint64_t entry = fill_segments(1, 1);

	open_without_cache();
	assert_int_equal(unlink(fix_path(&fix, 1)), 0);
	vc_unit_catch_messages(true);
	assert_int_equal(try_read(entry), -EIO);
	assert_int_equal(vc_unit_messages(), 1);
}

/* The directory itself survives a power cut when it has been made. */
static void test_create_is_durable(void **state VC_UNUSED)
{
	struct vc_sim_policy none = { .keep = VC_SIM_KEEP_NONE };
	struct vc_chunk_params params = fix.params;
	struct vc_sim *sim = vc_sim_new(), *after;
	struct vc_chunk_store *store;

	assert_int_equal(vc_chunk_create(vc_sim_io(sim), "/chunks"), 0);
	after = vc_sim_crash(sim, vc_sim_events(sim), &none);
	params.io = vc_sim_io(after);
	params.dir = "/chunks";
	assert_int_equal(vc_chunk_open(&params, &store), 0);
	vc_chunk_close(store);
	vc_sim_free(after);
	vc_sim_free(sim);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_round_trip),
		TEST(test_random),
		TEST(test_addresses),
		TEST(test_gathers),
		TEST(test_stats),
		TEST(test_direct),
		TEST(test_direct_zeros),
		TEST(test_direct_pins),
		TEST(test_vouch),
		TEST(test_flipped_bits),
		TEST(test_truncated),
		TEST(test_misplaced),
		TEST(test_other_pool),
		TEST(test_wrong_entries),
		TEST(test_forged),
		TEST(test_segment_life),
		TEST(test_remove_under_reader),
		TEST(test_segment_header),
		TEST(test_preallocation),
		TEST(test_open_files_bounded),
		TEST(test_foreign_names),
		TEST(test_numbers),
		TEST(test_number_taken),
		TEST(test_set_and_settle),
		TEST(test_each_stops),
		TEST(test_read_only),
		TEST(test_bad_params),
		TEST(test_missing_file),
		TEST(test_create_is_durable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
