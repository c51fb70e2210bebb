/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of codec: what compresses, what does not, and that no input makes the expansion leave its bounds. */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include "codec.h"

#define LEN_MAX 65536u

static void fill_random(uint64_t *rnd, uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)vc_unit_random(rnd);
}

/* The first `noise` bytes of each block are random, the rest a constant. */
static void fill_mixed(uint64_t *rnd, uint8_t *p, size_t len, size_t noise)
{
	memset(p, 0x33, len);
	for (size_t at = 0; at < len; at += VC_BLOCK_SIZE)
		fill_random(rnd, p + at, noise);
}

/* Exact heap buffers, so that the address sanitizer sees one byte too many. */
static void round_trip(const uint8_t *src, size_t len, enum vc_codec want)
{
	uint8_t *stored = malloc(len), *back = malloc(len), *exact;
	enum vc_codec codec = VC_CODEC_END;
	size_t n = vc_codec_compress(src, len, stored, &codec);

	assert_int_equal(codec, want);
	assert_true(codec == VC_CODEC_RAW ? n == len : n > 0 && n <= len - 512);
	exact = malloc(n);
	memcpy(exact, stored, n);
	memset(back, 0xee, len);
	assert_int_equal(vc_codec_expand(codec, exact, n, back, len), 0);
	assert_memory_equal(src, back, len);
	free(exact);
	free(back);
	free(stored);
}

static void test_round_trip(void **state VC_UNUSED)
{
	uint64_t rnd = vc_unit_seed();
	uint8_t *src = malloc(LEN_MAX);

	for (size_t len = VC_BLOCK_SIZE; len <= LEN_MAX; len += VC_BLOCK_SIZE) {
		fill_random(&rnd, src, len);
		round_trip(src, len, VC_CODEC_RAW);
		fill_mixed(&rnd, src, len, 1000);
		round_trip(src, len, VC_CODEC_LZ4);
		memset(src, 0, len);
		round_trip(src, len, VC_CODEC_LZ4);
	}
	free(src);
}

/* Saving less than 512 bytes is not worth a decompression. */
static void test_must_save_a_unit(void **state VC_UNUSED)
{
	uint64_t rnd = vc_unit_seed();
	uint8_t *src = malloc(VC_BLOCK_SIZE);

	fill_mixed(&rnd, src, VC_BLOCK_SIZE, VC_BLOCK_SIZE - 400);
	round_trip(src, VC_BLOCK_SIZE, VC_CODEC_RAW);
	fill_mixed(&rnd, src, VC_BLOCK_SIZE, VC_BLOCK_SIZE - 700);
	round_trip(src, VC_BLOCK_SIZE, VC_CODEC_LZ4);
	free(src);
}

static void test_wrong_lengths(void **state VC_UNUSED)
{
	uint64_t rnd = 7;
	uint8_t *src = malloc(LEN_MAX), *stored = malloc(LEN_MAX), *dst = malloc(LEN_MAX);
	enum vc_codec codec;
	size_t n;

	fill_mixed(&rnd, src, 16384, 500);
	n = vc_codec_compress(src, 16384, stored, &codec);
	assert_int_equal(vc_codec_expand(codec, stored, n, dst, 16384 - VC_BLOCK_SIZE), -EBADMSG);
	assert_int_equal(vc_codec_expand(codec, stored, n, dst, 16384 + VC_BLOCK_SIZE), -EBADMSG);
	assert_int_equal(vc_codec_expand(codec, stored, n - 1, dst, 16384), -EBADMSG);
	assert_int_equal(vc_codec_expand(codec, stored, 0, dst, 16384), -EBADMSG);
	assert_int_equal(vc_codec_expand(VC_CODEC_RAW, stored, 8192, dst, 16384), -EBADMSG);
	assert_int_equal(vc_codec_expand(VC_CODEC_END, stored, n, dst, 16384), -ENOTSUP);
	assert_int_equal(vc_codec_expand((enum vc_codec)77, stored, n, dst, 16384), -ENOTSUP);
	free(dst);
	free(stored);
	free(src);
}

/* Damaged and invented input: any answer, but in bounds. */
static void test_hostile_input(void **state VC_UNUSED)
{
	uint64_t rnd = vc_unit_seed();
	uint8_t *src = malloc(LEN_MAX), *stored = malloc(LEN_MAX);
	enum vc_codec codec;

	for (int round = 0; round < 2000; round++) {
		size_t len = VC_BLOCK_SIZE * (1 + vc_unit_below(&rnd, 16)), n;
		uint8_t *exact, *dst = malloc(len);
		int r;

		fill_mixed(&rnd, src, len, vc_unit_below(&rnd, 3000));
		n = vc_codec_compress(src, len, stored, &codec);
		if (round % 4 == 0)
			fill_random(&rnd, stored, n);
		for (uint64_t flips = 1 + vc_unit_below(&rnd, 4); flips > 0; flips--)
			stored[vc_unit_below(&rnd, n)] ^= (uint8_t)(1 + vc_unit_below(&rnd, 255));
		n -= vc_unit_below(&rnd, VC_MIN(n, 64));
		exact = malloc(n);
		memcpy(exact, stored, n);
		r = vc_codec_expand(VC_CODEC_LZ4, exact, n, dst, len);
		assert_true(r == 0 || r == -EBADMSG);
		free(exact);
		free(dst);
	}
	free(stored);
	free(src);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_must_save_a_unit),
		cmocka_unit_test(test_wrong_lengths),
		cmocka_unit_test(test_hostile_input),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
