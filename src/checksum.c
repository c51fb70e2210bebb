/* SPDX-License-Identifier: BSD-2-Clause */
/* checksum: XXH3 with 64 bits. No state. */
#include "config.h"
#include "checksum.h"

#include <xxhash.h>

uint64_t vc_sum64(const void *data, size_t len, uint64_t seed)
{
	return XXH3_64bits_withSeed(data, len, seed);
}
