/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * checksum: the one checksum of the format, XXH3 with 64 bits, and its low 32 bits where space is short.
 *
 * Pure functions. Only this module includes xxhash.h.
 */
#ifndef VC_CHECKSUM_H
#define VC_CHECKSUM_H

#include "util.h"

uint64_t vc_sum64(const void *data, size_t len, uint64_t seed);

/** Checksum of one 4 KiB block as kept by overlays and log records (low half of vc_sum64, seed 0). */
static inline uint32_t vc_sum32(const void *data, size_t len)
{
	return (uint32_t)vc_sum64(data, len, 0);
}

#endif
