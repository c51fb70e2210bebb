/* SPDX-License-Identifier: BSD-2-Clause */
/* util: the parts of util.h that are not inline. No state. */
#include "config.h"
#include "util.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#define ARRAY_ROOM_FIRST 16u

static const char units[] = "KMGTPE";

bool vc_is_zero(const void *p, size_t len)
{
	static const uint8_t zeros[64];
	const uint8_t *bytes = p;

	if (len <= sizeof(zeros))
		return len == 0 || memcmp(bytes, zeros, len) == 0;
	/* The head is zero and every byte equals the one 64 before it. */
	return memcmp(bytes, zeros, sizeof(zeros)) == 0 &&
	       memcmp(bytes, bytes + sizeof(zeros), len - sizeof(zeros)) == 0;
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

uint64_t vc_now_ns(void)
{
	return clock_ns(CLOCK_REALTIME_COARSE);
}

uint64_t vc_mono_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

const char *vc_human_bytes(uint64_t bytes, char *buf, size_t len)
{
	size_t unit = 0;

	if (bytes < 1024) {
		snprintf(buf, len, "%u B", (unsigned)bytes);
		return buf;
	}
	/* The next unit from 1023.95 on, so that "1024.0 KiB" is never printed. */
	while (unit + 1 < sizeof(units) - 1 && (double)(bytes >> (10 * unit)) / 1024 >= 1023.95)
		unit++;
	snprintf(buf, len, "%.1f %ciB", (double)(bytes >> (10 * unit)) / 1024, units[unit]);
	return buf;
}

int vc_utf8_printable(const char *s)
{
	const unsigned char *u = (const unsigned char *)s;
	uint32_t c = u[0];
	int n;

	if (c < 0x80)
		return c >= 0x20 && c != 0x7f;
	n = c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
	if (n == 0)
		return 0;
	c &= 0x7fu >> n;
	for (int i = 1; i < n; i++) {
		if ((u[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (u[i] & 0x3f);
	}
	if (c < 0xa0 || (n == 3 && c < 0x800) || (n == 4 && c < 0x10000) || c > 0x10ffff)
		return 0;
	/* Surrogates, line separators and the characters that turn the direction of text. */
	if ((c >= 0xd800 && c < 0xe000) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069))
		return 0;
	return n;
}

static int unit_shift(char c)
{
	switch (c) {
	case 'k': case 'K': return 10;
	case 'm': case 'M': return 20;
	case 'g': case 'G': return 30;
	case 't': case 'T': return 40;
	default: return -1;
	}
}

int vc_parse_bytes(const char *text, uint64_t *ret_bytes)
{
	const char *p = text;
	uint64_t n = 0;
	bool overflow = false;
	int shift = 0;

	for (; *p >= '0' && *p <= '9'; p++)
		overflow = overflow || __builtin_mul_overflow(n, 10, &n) ||
			   __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n);
	if (p == text)
		return -EINVAL;
	if (*p)
		shift = unit_shift(*p++);
	if (shift < 0 || *p)
		return -EINVAL;
	if (overflow || n > UINT64_MAX >> shift)
		return -ERANGE;
	*ret_bytes = n << shift;
	return 0;
}

/* The caller's pointer may point to any type, so its bytes are copied instead of reading it as a void *. */
int vc_array_room(void *array_ptr, size_t n, size_t *cap, size_t size)
{
	size_t want = *cap ? *cap * 2 : ARRAY_ROOM_FIRST;
	void *array;

	if (n < *cap)
		return 0;
	memcpy(&array, array_ptr, sizeof(array));
	array = realloc(array, want * size);
	if (!array)
		return -ENOMEM;
	memcpy(array_ptr, &array, sizeof(array));
	*cap = want;
	return 0;
}

char *vc_path_of(const char *dir, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

int vc_random_bytes(void *buf, size_t len)
{
	uint8_t *p = buf;

	while (len > 0) {
		ssize_t n = getrandom(p, len, 0);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			p += n;
			len -= (size_t)n;
		}
	}
	return 0;
}
