/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * util: little-endian wrapper types, attributes and small arithmetic shared by every layer.
 *
 * Nothing here allocates, locks or performs I/O, except where a function says so.
 */
#ifndef VC_UTIL_H
#define VC_UTIL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

/** The caller must look at the result: it is 0 (or a count) or -errno. */
#define VC_MUST_CHECK __attribute__((warn_unused_result))
#define VC_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define VC_UNUSED __attribute__((unused))

#define VC_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define VC_MIN(a, b) ((a) < (b) ? (a) : (b))
#define VC_MAX(a, b) ((a) > (b) ? (a) : (b))
/** Round up to a multiple of `to`, a power of two. The caller guarantees no overflow. */
#define VC_ROUND_UP(n, to) (((n) + ((to) - 1)) & ~((to) - 1))
#define VC_ROUND_DOWN(n, to) ((n) & ~((to) - 1))
#define VC_DIV_UP(n, by) (((n) + ((by) - 1)) / (by))

#define vc_container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

/*
 * Little-endian integers as they lie on disk. They are structs so that reading one
 * without a conversion does not compile.
 */
typedef struct { uint16_t v; } __attribute__((packed)) vc_le16;
typedef struct { uint32_t v; } __attribute__((packed)) vc_le32;
typedef struct { uint64_t v; } __attribute__((packed)) vc_le64;


#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define VC_SWAP16(x) (x)
#define VC_SWAP32(x) (x)
#define VC_SWAP64(x) (x)
#else
#define VC_SWAP16(x) __builtin_bswap16(x)
#define VC_SWAP32(x) __builtin_bswap32(x)
#define VC_SWAP64(x) __builtin_bswap64(x)
#endif

static inline uint16_t vc_le16_get(vc_le16 le) { return VC_SWAP16(le.v); }
static inline uint32_t vc_le32_get(vc_le32 le) { return VC_SWAP32(le.v); }
static inline uint64_t vc_le64_get(vc_le64 le) { return VC_SWAP64(le.v); }
static inline vc_le16 vc_le16_of(uint16_t x) { return (vc_le16){ VC_SWAP16(x) }; }
static inline vc_le32 vc_le32_of(uint32_t x) { return (vc_le32){ VC_SWAP32(x) }; }
static inline vc_le64 vc_le64_of(uint64_t x) { return (vc_le64){ VC_SWAP64(x) }; }

/** Big-endian 64-bit integers: LMDB keys, so that byte order is number order. */
static inline void vc_be64_put(uint8_t *p, uint64_t x)
{
	for (int i = 7; i >= 0; i--, x >>= 8)
		p[i] = (uint8_t)x;
}

static inline uint64_t vc_be64_at(const uint8_t *p)
{
	uint64_t x = 0;

	for (int i = 0; i < 8; i++)
		x = x << 8 | p[i];
	return x;
}

/** True when all `len` bytes at `p` are zero. Fast on whole blocks. */
bool vc_is_zero(const void *p, size_t len);

/** Nanoseconds since the epoch (CLOCK_REALTIME_COARSE): what timestamps are made of. */
uint64_t vc_now_ns(void);
/** Nanoseconds of CLOCK_MONOTONIC, for deadlines and rates. */
uint64_t vc_mono_ns(void);

/** Write "1.5 GiB"-like text for `bytes` into `buf` (at least 16 bytes); returns buf. */
const char *vc_human_bytes(uint64_t bytes, char *buf, size_t len);

/** Bytes of the printable character at s: 1 to 4; 0: a control character (C0, DEL, C1, text direction) or not UTF-8. */
int vc_utf8_printable(const char *s);

/**
 * Parse "64M", "1G", "4096" (suffix K M G T, powers of 1024) into *ret_bytes.
 * Returns 0, or -EINVAL (not a size), or -ERANGE (does not fit).
 */
int vc_parse_bytes(const char *text, uint64_t *ret_bytes) VC_MUST_CHECK;

/**
 * Make room for one more element in an array that grows: `array_ptr` is the address of the pointer to its elements (NULL
 * at first), of which `n` are in use, *cap have room, and each has `size` bytes. A full array is doubled with realloc:
 * its elements move. Returns 0, or -ENOMEM, and everything is as it was.
 */
int vc_array_room(void *array_ptr, size_t n, size_t *cap, size_t size) VC_MUST_CHECK;

/** "DIR/NAME", for the caller to free; NULL: no memory. */
char *vc_path_of(const char *dir, const char *name) VC_MUST_CHECK;

/** Fill `buf` with random bytes from the kernel. Returns 0 or -errno. */
int vc_random_bytes(void *buf, size_t len) VC_MUST_CHECK;

#endif
