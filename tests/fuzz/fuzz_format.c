/* SPDX-License-Identifier: BSD-2-Clause */
/* Fuzz the parsers of the lowest layers: a pool file and a size from the command line. */
#include "config.h"

#include <stdlib.h>
#include "checksum.h"
#include "format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void fuzz_pool(const uint8_t *data, size_t len)
{
	struct vc_disk_pool pool = { .magic = vc_le64_of(VC_MAGIC_POOL) };
	const char *why = NULL;

	memcpy((uint8_t *)&pool + 8, data, VC_MIN(len, sizeof(pool) - 8));
	/* The fuzzer cannot guess the sum; odd inputs get it right so that what lies behind is reached. */
	if (len & 1)
		pool.sum = vc_le64_of(vc_sum64(&pool, offsetof(struct vc_disk_pool, sum), 0));
	if ((vc_format_check_pool(&pool, &why) != 0) != (why != NULL))
		abort();
}

static void fuzz_bytes(const uint8_t *data, size_t len)
{
	char text[64] = { 0 };
	uint64_t bytes;

	memcpy(text, data, VC_MIN(len, sizeof(text) - 1));
	if (vc_parse_bytes(text, &bytes) == 0 && strlen(text) == 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	fuzz_pool(data, len);
	fuzz_bytes(data, len);
	return 0;
}
