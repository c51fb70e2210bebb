/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of record: every op through emit, check and iteration; every damaged byte, every length that lies. */
#include "config.h"
#include "unit.h"

#include <stdlib.h>

#include "checksum.h"
#include "record.h"

#define LSN 1234567

static uint8_t blocks[3 * VC_BLOCK_SIZE];
static uint32_t sums[3];

static int setup(void **state VC_UNUSED)
{
	for (size_t i = 0; i < sizeof(blocks); i++)
		blocks[i] = (uint8_t)(i * 131 ^ i >> 8);
	for (unsigned i = 0; i < 3; i++)
		sums[i] = vc_sum32(blocks + i * VC_BLOCK_SIZE, VC_BLOCK_SIZE);
	return 0;
}

/* One record with every type of op; blocks twice, with an odd and an even number of sums. */
static void build_all(struct vc_record *rec)
{
	struct vc_disk_direct items[2] = {
		{ .entry = vc_le64_of(vc_entry_make(7, 4096, 5000, 0)), .payload_sum = vc_le64_of(99), .nblocks = vc_le32_of(16) },
		{ .nblocks = vc_le32_of(300) },
	};

	vc_record_init(rec);
	rec->time_ns = 42;
	vc_record_write(rec, 10, 5, 1, blocks, sums);
	vc_record_op(rec, VC_OP_ZERO, 10, 7, 1000, 0, 0);
	vc_record_direct(rec, 11, 32, 316, items, 2);
	vc_record_op(rec, VC_OP_SIZE, 10, 0, 0, 4097, 0);
	vc_record_op(rec, VC_OP_GROW, 10, 0, 0, VC_IMAGE_SIZE_MAX, 0);
	vc_record_op(rec, VC_OP_CLONE, 12, 0, 0, 10, 0);
	vc_record_write(rec, 12, VC_IMAGE_BLOCKS_MAX - 2, 2, blocks + VC_BLOCK_SIZE, sums + 1);
	vc_record_op(rec, VC_OP_CLONE_RANGE, 12, 1, 8, 10, 2);
	vc_record_row_put(rec, "Dkey", 4, "value", 5);
	vc_record_row_put(rec, "E", 1, NULL, 0);
	vc_record_row_del(rec, "Dother", 6);
}

static uint8_t *emit(struct vc_record *rec, size_t *ret_len)
{
	int64_t len = vc_record_len(rec);
	uint8_t *bytes;

	assert_true(len > 0);
	bytes = malloc((size_t)len);
	assert_non_null(bytes);
	vc_record_emit(rec, LSN, bytes);
	*ret_len = (size_t)len;
	return bytes;
}

static int check(const uint8_t *bytes, size_t avail)
{
	size_t len = 0;

	return vc_record_check(bytes, avail, LSN, true, &len);
}

static void expect_row(const struct vc_op *op, const char *key, const char *value)
{
	const uint8_t *k, *v;
	size_t k_len, v_len;

	assert_int_equal(vc_row_decode(op->payload, op->payload_len, &k, &k_len, &v, &v_len), 0);
	assert_int_equal(k_len, strlen(key));
	assert_memory_equal(k, key, k_len);
	assert_int_equal(v_len, strlen(value));
	assert_memory_equal(v, value, v_len);
}

static void expect_all(const struct vc_op *ops, const uint8_t *bytes)
{
	static const enum vc_op_type types[] = {
		VC_OP_WRITE, VC_OP_ZERO, VC_OP_DIRECT, VC_OP_SIZE, VC_OP_GROW, VC_OP_CLONE, VC_OP_WRITE, VC_OP_CLONE_RANGE,
		VC_OP_ROW_PUT, VC_OP_ROW_PUT, VC_OP_ROW_DEL,
	};

	for (size_t i = 0; i < VC_ARRAY_LEN(types); i++)
		assert_int_equal(ops[i].type, types[i]);
	assert_int_equal(ops[0].ino, 10);
	assert_int_equal(ops[0].lba, 5);
	assert_int_equal(ops[0].sums[0], sums[0]);
	assert_memory_equal(bytes + ops[0].data_offset, blocks, VC_BLOCK_SIZE);
	assert_int_equal(ops[1].nblocks, 1000);
	assert_int_equal(ops[2].payload_len, 2 * sizeof(struct vc_disk_direct));
	assert_int_equal(ops[3].arg, 4097);
	assert_int_equal(ops[5].arg, 10);
	assert_int_equal(ops[6].nblocks, 2);
	assert_int_equal(ops[6].sums[1], sums[2]);
	assert_memory_equal(bytes + ops[6].data_offset, blocks + VC_BLOCK_SIZE, 2 * VC_BLOCK_SIZE);
	assert_int_equal(ops[7].arg2, 2);
	expect_row(&ops[8], "Dkey", "value");
	expect_row(&ops[9], "E", "");
	expect_row(&ops[10], "Dother", "");
}

/* What is applied live, from the record under construction, is what replay decodes. */
static void test_round_trip(void **state VC_UNUSED)
{
	struct vc_record rec;
	struct vc_record_iter it;
	struct vc_op ops[16];
	size_t len, checked, n = 0;
	uint8_t *bytes;

	build_all(&rec);
	bytes = emit(&rec, &len);
	assert_int_equal(len % 8, 0);
	assert_int_equal(rec.nops, 11);
	expect_all(rec.ops, bytes);
	assert_int_equal(vc_record_check(bytes, len + 100, LSN, true, &checked), 0);
	assert_int_equal(checked, len);
	assert_int_equal(vc_record_check(bytes, len, LSN, false, &checked), 0);
	assert_int_equal(vc_record_check(bytes, len, LSN + 1, true, &checked), -EBADMSG);
	vc_record_iter_init(&it, bytes);
	while (vc_record_iter_next(&it, &ops[n]))
		n++;
	assert_int_equal(n, 11);
	expect_all(ops, bytes);
	free(bytes);
	vc_record_fini(&rec);
}

static void test_every_byte(void **state VC_UNUSED)
{
	uint64_t seed = vc_unit_seed();
	struct vc_record rec;
	uint8_t *bytes;
	size_t len;

	build_all(&rec);
	bytes = emit(&rec, &len);
	for (size_t i = 0; i < len; i++) {
		uint8_t mask = (uint8_t)(1u << vc_unit_below(&seed, 8));

		bytes[i] ^= mask;
		assert_int_not_equal(check(bytes, len), 0);
		bytes[i] ^= mask;
	}
	assert_int_equal(check(bytes, len), 0);
	free(bytes);
	vc_record_fini(&rec);
}

/* Each prefix in memory of exactly its size, so that a sanitizer sees a step beyond. */
static void test_every_length(void **state VC_UNUSED)
{
	struct vc_record rec;
	uint8_t *bytes;
	size_t len;

	build_all(&rec);
	bytes = emit(&rec, &len);
	for (size_t n = 0; n < len; n += n < 1000 || n > len - 600 ? 1 : 37) {
		uint8_t *part = malloc(n + !n);

		assert_non_null(part);
		memcpy(part, bytes, n);
		assert_int_equal(check(part, n), -EUCLEAN);
		if (n >= sizeof(struct vc_disk_record)) {
			vc_le32 lie = vc_le32_of((uint32_t)n);

			memcpy(part, &lie, sizeof(lie));
			assert_int_not_equal(check(part, n), 0);
		}
		free(part);
	}
	free(bytes);
	vc_record_fini(&rec);
}

/* ---- lies with a correct sum ---- */

struct lie {
	struct vc_disk_record hdr;
	struct vc_disk_op op;
	uint8_t payload[4 * VC_BLOCK_SIZE];
};

static int check_lie(struct lie *lie, size_t payload, size_t covered)
{
	size_t len = sizeof(lie->hdr) + sizeof(lie->op) + VC_ROUND_UP(payload, (size_t)8), ret;
	uint8_t *exact = malloc(len);
	uint64_t sum;
	int r;

	lie->hdr.len = vc_le32_of((uint32_t)len);
	lie->hdr.nops = vc_le16_of(1);
	lie->hdr.sum = vc_le64_of(0);
	sum = vc_sum64(&lie->hdr, sizeof(lie->hdr), LSN);
	lie->hdr.sum = vc_le64_of(vc_sum64(&lie->op, sizeof(lie->op) + covered, sum));
	assert_non_null(exact);
	memcpy(exact, lie, len);
	r = vc_record_check(exact, len, LSN, true, &ret);
	free(exact);
	return r;
}

static struct lie lie_of(enum vc_op_type type, uint64_t lba, uint64_t nblocks, uint64_t arg, uint64_t arg2, size_t payload)
{
	return (struct lie){ .op = { .type = (uint8_t)type, .payload_len = vc_le32_of((uint32_t)payload), .ino = vc_le64_of(2),
				     .lba = vc_le64_of(lba), .nblocks = vc_le64_of(nblocks), .arg = vc_le64_of(arg),
				     .arg2 = vc_le64_of(arg2) } };
}

static int check_op(enum vc_op_type type, uint64_t lba, uint64_t nblocks, uint64_t arg, uint64_t arg2, size_t payload)
{
	struct lie lie = lie_of(type, lba, nblocks, arg, arg2, payload);

	return check_lie(&lie, payload, type == VC_OP_WRITE ? 0 : VC_ROUND_UP(payload, (size_t)8));
}

static void test_lies(void **state VC_UNUSED)
{
	const uint64_t max = VC_IMAGE_BLOCKS_MAX;
	struct lie lie;

	assert_int_equal(check_op(VC_OP_ZERO, max - 1, 1, 0, 0, 0), 0);
	assert_int_equal(check_op(VC_OP_ZERO, max, 1, 0, 0, 0), -EUCLEAN);
	assert_int_equal(check_op(VC_OP_ZERO, 1, max, 0, 0, 0), -EUCLEAN);
	assert_int_equal(check_op(VC_OP_ZERO, 1, UINT64_MAX, 0, 0, 0), -EUCLEAN);
	assert_int_equal(check_op(VC_OP_ZERO, 1, 0, 0, 0, 0), -EUCLEAN);
	assert_int_equal(check_op(VC_OP_ZERO, 1, 1, 0, 0, 8), -EUCLEAN);
	assert_int_equal(check_op(VC_OP_CLONE_RANGE, 1, 5, 3, max - 4, 0), -EUCLEAN);
	assert_int_equal(check_op(VC_OP_CLONE_RANGE, 1, 5, 3, max - 5, 0), 0);
	assert_int_equal(check_op(VC_OP_CLONE, 0, 0, 3, 0, 0), 0);
	assert_int_equal(check_op(VC_OP_CLONE, 0, 0, 3, 0, 8), -EUCLEAN);
	assert_int_equal(check_op(VC_OP_CLONE, 0, 0, 2, 0, 0), -EUCLEAN); /* itself */
	assert_int_equal(check_op(VC_OP_SIZE, 0, 0, VC_IMAGE_SIZE_MAX + 1, 0, 0), -EUCLEAN);
	assert_int_equal(check_op(VC_OP_GROW, 0, 0, UINT64_MAX, 0, 0), -EUCLEAN);
	assert_int_equal(check_op(VC_OP_DIRECT, 0, 1, 0, 0, 0), -EUCLEAN);
	assert_int_equal(check_op(VC_OP_DIRECT, 0, 1, 0, 0, 23), -EUCLEAN);
	assert_int_equal(check_op(VC_OP_DIRECT, 0, 1, 0, 0, 24), -EUCLEAN);
	assert_int_equal(check_op(0, 0, 1, 0, 0, 0), -EUCLEAN);
	assert_int_equal(check_op(VC_OP_TYPE_END, 0, 1, 0, 0, 0), -EUCLEAN);
	assert_int_equal(check_op(255, 0, 1, 0, 0, 0), -EUCLEAN);
	assert_int_equal(check_op(VC_OP_ROW_PUT, 0, 0, 0, 0, 7), -EUCLEAN);
	assert_int_equal(check_op(VC_OP_ROW_PUT, 0, 0, 0, 0, 8), -EUCLEAN);
	/* A count of blocks that would overflow, with a payload that is too short for it. */
	assert_int_equal(check_op(VC_OP_WRITE, 0, 65537, 0, 0, 16), -EUCLEAN);
	assert_int_equal(check_op(VC_OP_WRITE, 0, UINT64_C(1) << 33, 0, 0, 0), -EUCLEAN);
	assert_int_equal(check_op(VC_OP_WRITE, 0, 2, 0, 0, 8 + VC_BLOCK_SIZE), -EUCLEAN);
	lie = lie_of(VC_OP_ZERO, 1, 1, 0, 0, 0);
	lie.op.flags = 1;
	assert_int_equal(check_lie(&lie, 0, 0), -EUCLEAN);
	lie = lie_of(VC_OP_ZERO, 1, 1, 0, 0, 0);
	lie.op.reserved = vc_le16_of(1);
	assert_int_equal(check_lie(&lie, 0, 0), -EUCLEAN);
	lie = lie_of(VC_OP_ZERO, 1, 1, 0, 0, 0);
	lie.hdr.reserved = vc_le16_of(1);
	assert_int_equal(check_lie(&lie, 0, 0), -EUCLEAN);
	lie = lie_of(VC_OP_ZERO, 1, 1, 0, 0, 0);
	lie.op.payload_len = vc_le32_of(UINT32_MAX);
	assert_int_equal(check_lie(&lie, 0, 0), -EUCLEAN);
}

static void test_direct_items(void **state VC_UNUSED)
{
	static const struct { uint64_t entry; uint32_t nblocks, reserved; int r; } cases[] = {
		{ UINT64_C(1) << 30, 16, 0, 0 },
		{ UINT64_C(1) << 30, 17, 0, -EUCLEAN },      /* longer than a chunk */
		{ UINT64_C(1) << 30, 0, 0, -EUCLEAN },
		{ UINT64_C(1) << 30 | 1, 16, 0, -EUCLEAN },  /* does not begin at its first block */
		{ UINT64_C(1) << 60, 16, 0, -EUCLEAN },
		{ 1024, 16, 0, -EUCLEAN },                   /* segment 0 */
		{ UINT64_C(1) << 30, 16, 1, -EUCLEAN },
		{ 0, 1000, 0, 0 },
	};

	for (size_t i = 0; i < VC_ARRAY_LEN(cases); i++) {
		struct vc_disk_direct item = { .entry = vc_le64_of(cases[i].entry), .nblocks = vc_le32_of(cases[i].nblocks),
					       .reserved = vc_le32_of(cases[i].reserved) };
		struct lie lie = lie_of(VC_OP_DIRECT, 0, cases[i].nblocks, 0, 0, sizeof(item));

		memcpy(lie.payload, &item, sizeof(item));
		assert_int_equal(check_lie(&lie, sizeof(item), sizeof(item)), cases[i].r);
		lie.op.nblocks = vc_le64_of(cases[i].nblocks + 1);
		assert_int_equal(check_lie(&lie, sizeof(item), sizeof(item)), -EUCLEAN);
	}
}

static void test_rows(void **state VC_UNUSED)
{
	uint8_t key[VC_ROW_KEY_MAX + 1] = { 'X' }, value[VC_ROW_VALUE_MAX + 1] = { 1 }, row[VC_ROW_ENCODED_MAX + 16];
	const uint8_t *k, *v;
	size_t k_len, v_len, len;

	len = vc_row_encode(key, VC_ROW_KEY_MAX, value, VC_ROW_VALUE_MAX, row);
	assert_int_equal(len, VC_ROW_ENCODED_MAX);
	assert_int_equal(vc_row_decode(row, len, &k, &k_len, &v, &v_len), 0);
	assert_int_equal(k_len, VC_ROW_KEY_MAX);
	assert_int_equal(v_len, VC_ROW_VALUE_MAX);
	assert_int_equal(vc_row_decode(row, len - 1, &k, &k_len, &v, &v_len), -EUCLEAN);
	assert_int_equal(vc_row_decode(row, len + 1, &k, &k_len, &v, &v_len), -EUCLEAN);
	for (size_t n = 0; n < sizeof(struct vc_disk_row); n++)
		assert_int_equal(vc_row_decode(row, n, &k, &k_len, &v, &v_len), -EUCLEAN);
	len = vc_row_encode(key, VC_ROW_KEY_MAX + 1, value, 5, row);
	assert_int_equal(vc_row_decode(row, len, &k, &k_len, &v, &v_len), -EUCLEAN);
	len = vc_row_encode(key, 5, value, VC_ROW_VALUE_MAX + 1, row);
	assert_int_equal(vc_row_decode(row, len, &k, &k_len, &v, &v_len), -EUCLEAN);
	len = vc_row_encode(key, 0, value, 5, row);
	assert_int_equal(vc_row_decode(row, len, &k, &k_len, &v, &v_len), -EUCLEAN);
	len = vc_row_encode(key, 5, value, 5, row);
	row[4] = 1;
	assert_int_equal(vc_row_decode(row, len, &k, &k_len, &v, &v_len), -EUCLEAN);
}

/* ---- building ---- */

static void test_many_ops(void **state VC_UNUSED)
{
	struct vc_record rec;
	struct vc_record_iter it;
	struct vc_op op;
	uint8_t *bytes;
	size_t len, n = 0;

	vc_record_init(&rec);
	for (unsigned i = 0; i < UINT16_MAX; i++) {
		if (i % 100 == 0)
			vc_record_row_put(&rec, &i, sizeof(i), blocks, i % 4000);
		else
			vc_record_op(&rec, VC_OP_SIZE, i, 0, 0, i, 0);
	}
	bytes = emit(&rec, &len);
	assert_int_equal(check(bytes, len), 0);
	vc_record_iter_init(&it, bytes);
	for (; vc_record_iter_next(&it, &op); n++) {
		assert_int_equal(op.type, rec.ops[n].type);
		assert_int_equal(op.ino, rec.ops[n].ino);
		assert_int_equal(op.payload_len, rec.ops[n].payload_len);
		if (op.payload_len)
			assert_memory_equal(op.payload, rec.ops[n].payload, op.payload_len);
	}
	assert_int_equal(n, UINT16_MAX);
	free(bytes);
	vc_record_op(&rec, VC_OP_SIZE, 1, 0, 0, 1, 0);
	assert_int_equal(vc_record_len(&rec), -E2BIG);
	vc_record_fini(&rec);
}

static void test_too_many_writes(void **state VC_UNUSED)
{
	struct vc_record rec;

	vc_record_init(&rec);
	for (unsigned i = 0; i < VC_RECORD_EXTS; i++)
		vc_record_write(&rec, 1, i, 1, blocks, sums);
	assert_true(vc_record_len(&rec) > 0);
	vc_record_write(&rec, 1, 9, 1, blocks, sums);
	assert_int_equal(vc_record_len(&rec), -E2BIG);
	vc_record_fini(&rec);
}

static void test_empty(void **state VC_UNUSED)
{
	struct vc_record rec;
	struct vc_record_iter it;
	struct vc_op op;
	uint8_t *bytes;
	size_t len;

	vc_record_init(&rec);
	bytes = emit(&rec, &len);
	assert_int_equal(len, sizeof(struct vc_disk_record));
	assert_int_equal(check(bytes, len), 0);
	vc_record_iter_init(&it, bytes);
	assert_false(vc_record_iter_next(&it, &op));
	free(bytes);
	vc_record_fini(&rec);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_every_byte),
		cmocka_unit_test(test_every_length),
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_direct_items),
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_many_ops),
		cmocka_unit_test(test_too_many_writes),
		cmocka_unit_test(test_empty),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
