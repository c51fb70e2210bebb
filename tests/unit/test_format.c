/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of format: the check of a pool file, and the bits of map entries. Sizes and offsets are asserted at compile time. */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include "checksum.h"
#include "format.h"

static void pool_sum(struct vc_disk_pool *pool)
{
	pool->sum = vc_le64_of(vc_sum64(pool, offsetof(struct vc_disk_pool, sum), 0));
}

static struct vc_disk_pool *pool_good(void)
{
	static struct vc_disk_pool pool;

	memset(&pool, 0, sizeof(pool));
	pool.magic = vc_le64_of(VC_MAGIC_POOL);
	pool.version = vc_le32_of(VC_FORMAT_VERSION);
	memset(pool.uuid, 0x5a, sizeof(pool.uuid));
	pool.chunk_blocks = vc_le32_of(4);
	pool.chunk_segment_size = vc_le64_of(VC_CHUNK_SEGMENT_MAX);
	pool.log_segment_size = vc_le64_of(16 << 20);
	pool.log_segments = vc_le32_of(64);
	pool_sum(&pool);
	return &pool;
}

static int check(const struct vc_disk_pool *pool)
{
	const char *why = NULL;
	int r = vc_format_check_pool(pool, &why);

	/* A reason exactly when there is an error. */
	assert_int_equal(why != NULL, r != 0);
	return r;
}

#define CHECK_WITH(field, value, result) do { \
		struct vc_disk_pool *p_ = pool_good(); \
		p_->field = value; \
		pool_sum(p_); \
		assert_int_equal(check(p_), result); \
	} while (0)

static void test_pool_fields(void **state VC_UNUSED)
{
	assert_int_equal(check(pool_good()), 0);
	CHECK_WITH(magic, vc_le64_of(VC_MAGIC_LOG), -EUCLEAN);
	CHECK_WITH(version, vc_le32_of(VC_FORMAT_VERSION + 1), -ENOTSUP);
	CHECK_WITH(version, vc_le32_of(0), -EUCLEAN);
	CHECK_WITH(features_incompat, vc_le64_of(1), -ENOTSUP);
	CHECK_WITH(features_incompat, vc_le64_of(UINT64_C(1) << 63), -ENOTSUP);
	CHECK_WITH(features_compat, vc_le64_of(UINT64_MAX), 0);
	CHECK_WITH(features_ro_compat, vc_le64_of(UINT64_MAX), 0); /* whoever writes must look at it */
	CHECK_WITH(reserved0, vc_le32_of(1), -EUCLEAN);
	CHECK_WITH(reserved1, vc_le32_of(1), -EUCLEAN);
	CHECK_WITH(reserved[sizeof(pool_good()->reserved) - 1], 1, -EUCLEAN);
	CHECK_WITH(reserved[0], 1, -EUCLEAN);
}

static void test_pool_geometry(void **state VC_UNUSED)
{
	for (uint32_t n = 0; n <= 40; n++)
		CHECK_WITH(chunk_blocks, vc_le32_of(n),
			   n == 1 || n == 2 || n == 4 || n == 8 || n == 16 ? 0 : -EUCLEAN);
	CHECK_WITH(chunk_segment_size, vc_le64_of(VC_CHUNK_SEGMENT_MAX + 4096), -EUCLEAN);
	CHECK_WITH(chunk_segment_size, vc_le64_of(VC_CHUNK_SEGMENT_MAX - 64), -EUCLEAN);
	CHECK_WITH(chunk_segment_size, vc_le64_of(0), -EUCLEAN);
	CHECK_WITH(chunk_segment_size, vc_le64_of(4096 * 5), -EUCLEAN); /* 4 blocks and no room for the header */
	CHECK_WITH(chunk_segment_size, vc_le64_of(4096 * 6), 0);
	CHECK_WITH(log_segment_size, vc_le64_of(4096), -EUCLEAN);
	CHECK_WITH(log_segment_size, vc_le64_of(8192 + 64), -EUCLEAN);
	CHECK_WITH(log_segment_size, vc_le64_of(UINT64_C(1) << 40), -EUCLEAN);
	CHECK_WITH(log_segments, vc_le32_of(0), -EUCLEAN);
}

static void test_pool_every_bit(void **state VC_UNUSED)
{
	struct vc_disk_pool pool = *pool_good();
	uint8_t *bytes = (uint8_t *)&pool;

	for (size_t bit = 0; bit < sizeof(pool) * 8; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(check(&pool), bit < 64 ? -EUCLEAN : -EBADMSG);
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_int_equal(check(&pool), 0);
}

static void test_entry_bits(void **state VC_UNUSED)
{
	uint64_t seed = vc_unit_seed();

	for (int i = 0; i < 100000; i++) {
		uint64_t segno = 1 + vc_unit_below(&seed, VC_SEGNO_MAX);
		uint32_t offset = (uint32_t)vc_unit_below(&seed, VC_CHUNK_SEGMENT_MAX / VC_CHUNK_ALIGN) * VC_CHUNK_ALIGN;
		uint32_t stored = 1 + (uint32_t)vc_unit_below(&seed, 65536);
		uint32_t block = (uint32_t)vc_unit_below(&seed, 16);
		uint64_t e = vc_entry_make(segno, offset, stored, block);

		assert_true(e >> 59 == 0 && e != VC_ENTRY_HOLE);
		assert_true(vc_entry_segno(e) == segno);
		assert_int_equal(vc_entry_offset(e), offset);
		assert_int_equal(vc_entry_block(e), block);
		/* The hint covers the chunk and wastes less than 1 KiB. */
		assert_true(vc_entry_read_len(e) >= 64 + stored && vc_entry_read_len(e) < 64 + stored + 1024);
		assert_true(vc_entry_chunk(e) == vc_entry_make(segno, offset, stored, 0));
		if (block < 15)
			assert_true(e + 1 == vc_entry_make(segno, offset, stored, block + 1));
	}
}

/* The bytes of the format as they are, not as the machine has them. */
static void test_magics(void **state VC_UNUSED)
{
	vc_le64 pool = vc_le64_of(VC_MAGIC_POOL);
	vc_le32 chunk = vc_le32_of(VC_MAGIC_CHUNK), batch = vc_le32_of(VC_MAGIC_BATCH);

	assert_memory_equal(&pool, "VFSPOOL1", 8);
	assert_memory_equal(&chunk, "CHK1", 4);
	assert_memory_equal(&batch, "BAT1", 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pool_fields),
		cmocka_unit_test(test_pool_geometry),
		cmocka_unit_test(test_pool_every_bit),
		cmocka_unit_test(test_entry_bits),
		cmocka_unit_test(test_magics),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
