/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * codec: LZ4, or the bytes as they are when LZ4 does not pay.
 *
 * The compressor state (16 KiB) is thread-local: nothing is allocated, nothing is shared. Giving LZ4 a
 * destination that is already one unit short makes it stop early on incompressible data.
 */
#include "config.h"
#include "codec.h"

#include <limits.h>
#include <lz4.h>

/* Reading one chunk costs whole device sectors: saving less than one saves nothing. */
#define CODEC_UNIT 512u
#define CODEC_ACCELERATION 1

static _Thread_local LZ4_stream_t codec_state;

size_t vc_codec_compress(const void *src, size_t len, void *dst, enum vc_codec *ret_codec)
{
	int stored = 0;

	if (len > CODEC_UNIT && len <= LZ4_MAX_INPUT_SIZE)
		stored = LZ4_compress_fast_extState(&codec_state, src, dst, (int)len, (int)(len - CODEC_UNIT),
						    CODEC_ACCELERATION);
	if (stored > 0) {
		*ret_codec = VC_CODEC_LZ4;
		return (size_t)stored;
	}
	memcpy(dst, src, len);
	*ret_codec = VC_CODEC_RAW;
	return len;
}

static int codec_expand_lz4(const void *src, size_t stored, void *dst, size_t len)
{
	int n;

	if (stored == 0 || stored > INT_MAX || len > INT_MAX)
		return -EBADMSG;
	n = LZ4_decompress_safe(src, dst, (int)stored, (int)len);
	return n >= 0 && (size_t)n == len ? 0 : -EBADMSG;
}

int vc_codec_expand(enum vc_codec codec, const void *src, size_t stored, void *dst, size_t len)
{
	switch (codec) {
	case VC_CODEC_RAW:
		if (stored != len)
			return -EBADMSG;
		memcpy(dst, src, len);
		return 0;
	case VC_CODEC_LZ4:
		return codec_expand_lz4(src, stored, dst, len);
	case VC_CODEC_END:
		break;
	}
	return -ENOTSUP;
}
