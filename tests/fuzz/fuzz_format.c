/* SPDX-License-Identifier: BSD-2-Clause */
/* Fuzz the parsers of the lowest layers: a pool file, a size from the command line. */
#include "config.h"
#include "fuzz.h"

#include <inttypes.h>

#include "checksum.h"
#include "format.h"

static void format_pool(const uint8_t *data, size_t len)
{
	struct vc_disk_pool pool = { .magic = vc_le64_of(VC_MAGIC_POOL) };
	const char *why = NULL;

	if (len)
		memcpy((uint8_t *)&pool + 8, data, VC_MIN(len, sizeof(pool) - 8));
	/* The fuzzer cannot guess the sum; odd inputs get it right so that what lies behind is reached. */
	if (len & 1)
		pool.sum = vc_le64_of(vc_sum64(&pool, offsetof(struct vc_disk_pool, sum), 0));
	if (vc_format_check_pool(&pool, &why) != 0) {
		fuzz_check(why != NULL);
		return;
	}
	fuzz_check(why == NULL);
	fuzz_check(vc_le32_get(pool.chunk_blocks) >= 1 && vc_le32_get(pool.chunk_blocks) <= VC_CHUNK_BLOCKS_MAX);
	fuzz_check(vc_le64_get(pool.chunk_segment_size) <= VC_CHUNK_SEGMENT_MAX);
	fuzz_check(vc_le64_get(pool.log_segment_size) <= VC_LOG_SEGMENT_MAX);
	fuzz_check(vc_le32_get(pool.log_segments) >= VC_LOG_SEGMENTS_MIN && vc_le32_get(pool.log_segments) <= VC_LOG_SEGMENTS_MAX);
}

/* A size that was understood, written out in bytes, is understood as the same. */
static void format_bytes(const uint8_t *data, size_t len)
{
	struct fuzz_in in = { data, len };
	uint64_t bytes, again;
	char text[64], plain[32];

	fuzz_text(&in, text, sizeof(text));
	if (vc_parse_bytes(text, &bytes) < 0)
		return;
	fuzz_check(*text);
	snprintf(plain, sizeof(plain), "%" PRIu64, bytes);
	fuzz_check(vc_parse_bytes(plain, &again) == 0 && again == bytes);
	fuzz_check(strlen(vc_human_bytes(bytes, plain, sizeof(plain))) > 0);
}

void fuzz_format(const uint8_t *data, size_t len)
{
	format_pool(data, len);
	format_bytes(data, len);
}
