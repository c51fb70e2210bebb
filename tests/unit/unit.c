/* SPDX-License-Identifier: BSD-2-Clause */
/* unit: helpers of the unit tests. The caught message is global, as the message sink is. */
#include "config.h"
#include "unit.h"

#include <errno.h>
#include <ftw.h>
#include <stdlib.h>
#include <unistd.h>
#include "lock.h"
#include "msg.h"
#include "util.h"

static struct {
	_Atomic unsigned count; /* a test may wait for one of another thread */
	char last[1024];
} caught;

uint64_t vc_unit_seed(void)
{
	const char *given = getenv("VC_TEST_SEED");
	uint64_t seed;

	if (given && *given)
		seed = strtoull(given, NULL, 0);
	else
		assert(vc_random_bytes(&seed, sizeof(seed)) == 0);
	printf("VC_TEST_SEED=%llu\n", (unsigned long long)seed);
	fflush(stdout);
	return seed;
}

uint64_t vc_unit_thin(void)
{
	const char *given = getenv("VC_TEST_THIN");
	uint64_t thin = given && *given ? strtoull(given, NULL, 0) : 1;

	assert(thin > 0);
	return thin;
}

static struct {
	const uint8_t *bytes;
	size_t left;
} script;

void vc_unit_script(const uint8_t *bytes, size_t len)
{
	script.bytes = bytes;
	script.left = len;
}

size_t vc_unit_script_left(void)
{
	return script.left;
}

/* A number from as many bytes as reach n needs. */
static uint64_t script_number(uint64_t n)
{
	uint64_t x = 0;

	for (uint64_t reach = 1; reach < n && script.left; reach = reach > UINT64_MAX >> 8 ? UINT64_MAX : reach << 8) {
		x = x << 8 | *script.bytes++;
		script.left--;
	}
	return x;
}

uint64_t vc_unit_random(uint64_t *state)
{
	uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);

	if (script.left) /* seeds: different for different bytes, and no more of them than that */
		x ^= script_number(1 << 16) * UINT64_C(0x2545f4914f6cdd1d);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

uint64_t vc_unit_below(uint64_t *state, uint64_t n)
{
	return (script.left ? script_number(n) : vc_unit_random(state)) % n;
}

char *vc_unit_tmpdir(void)
{
	const char *base = getenv("TMPDIR");
	char *path;

	if (asprintf(&path, "%s/vclonefs-test.XXXXXX", base && *base ? base : "/tmp") < 0)
		return NULL;
	if (mkdtemp(path))
		return path;
	perror(path);
	free(path);
	return NULL;
}

static int remove_one(const char *path, const struct stat *st VC_UNUSED, int flag VC_UNUSED, struct FTW *ftw VC_UNUSED)
{
	return remove(path);
}

void vc_unit_rmdir(char *dir)
{
	if (dir)
		nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(dir);
}

static void catch_message(void *ctx VC_UNUSED, enum vc_msg_level level VC_UNUSED, const char *line)
{
	caught.count++;
	snprintf(caught.last, sizeof(caught.last), "%s", line);
	errno = EDOM; /* as a sink that does I/O may */
}

void vc_unit_catch_messages(bool on)
{
	vc_msg_set_sink(on ? catch_message : NULL, NULL);
	if (on) {
		caught.count = 0;
		caught.last[0] = '\0';
	}
}

unsigned vc_unit_messages(void)
{
	return caught.count;
}

const char *vc_unit_last_message(void)
{
	return caught.last;
}
