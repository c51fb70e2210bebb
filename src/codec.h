/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * codec: compression of chunk payloads. Only codec.c includes lz4.h.
 *
 * Pure functions; thread-safe (each thread keeps its own compressor state).
 */
#ifndef VC_CODEC_H
#define VC_CODEC_H

#include "format.h"

/**
 * Compress `len` bytes (a multiple of 4 KiB, at most 64 KiB) into dst, which holds at least `len` bytes.
 * Returns the stored length with *ret_codec = LZ4 when it saves at least one 512-byte unit, otherwise copies
 * the bytes and returns `len` with *ret_codec = RAW.
 */
size_t vc_codec_compress(const void *src, size_t len, void *dst, enum vc_codec *ret_codec);

/**
 * Expand `stored` bytes into exactly `len` bytes. The caller has verified the checksum already; this never
 * reads or writes out of bounds whatever the input. Returns 0, -EBADMSG (does not expand to len), -ENOTSUP (codec).
 */
int vc_codec_expand(enum vc_codec codec, const void *src, size_t stored, void *dst, size_t len) VC_MUST_CHECK;

#endif
