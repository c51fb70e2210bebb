/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz: the table of targets, and taking inputs apart. */
#include "config.h"
#include "fuzz.h"

#include <fcntl.h>
#include <unistd.h>

#include "msg.h"

const struct fuzz_target fuzz_targets[] = {
	{ "format", fuzz_format, 4200 },
	{ "text", fuzz_text_line, 512 },
	{ "pattern", fuzz_pattern, 300 },
	{ "mount_options", fuzz_mount_options, 5000 },
	{ "vclone_options", fuzz_vclone_options, 512 },
	{ "record", fuzz_record, 16384 },
	{ "node", fuzz_node, 2100 },
	{ "row", fuzz_row, 1024 },
	{ "chunk", fuzz_chunk, 8192 },
	{ "log", fuzz_log, 512 },
	{ "forge", fuzz_forge, 1024 },
	{ "journal", fuzz_journal, 2048 },
	{ "meta", fuzz_meta, 1024 },
	{ "ioctl", fuzz_ioctl, 2048 },
	{ "magic", fuzz_magic, 1024 },
	{ "ops", fuzz_ops, 1024 },
	{ NULL, NULL, 0 },
};

const struct fuzz_target *fuzz_find(const char *name)
{
	for (const struct fuzz_target *t = fuzz_targets; t->name; t++)
		if (strcmp(t->name, name) == 0)
			return t;
	return NULL;
}

static void swallow(void *ctx VC_UNUSED, enum vc_msg_level level VC_UNUSED, const char *line VC_UNUSED)
{
}

void fuzz_setup(void)
{
	setenv("CMOCKA_TEST_ABORT", "1", 1); /* assertions of what is shared with the unit tests */
	if (!getenv("VC_TEST_MESSAGES"))
		vc_msg_set_sink(swallow, NULL);
}

void fuzz_failed(const char *cond, const char *file, int line)
{
	fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, cond);
	fflush(NULL);
	abort();
}

void fuzz_quiet(bool quiet)
{
	static int saved[2] = { -1, -1 }, nowhere = -1;

	fflush(NULL);
	if (nowhere < 0)
		nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
	fuzz_check(nowhere >= 0);
	for (int fd = 0; fd < 2; fd++) {
		if (saved[fd] < 0)
			saved[fd] = fcntl(fd + 1, F_DUPFD_CLOEXEC, 3);
		fuzz_check(dup2(quiet ? nowhere : saved[fd], fd + 1) == fd + 1);
	}
}

uint8_t fuzz_u8(struct fuzz_in *in)
{
	if (in->left == 0)
		return 0;
	in->left--;
	return *in->p++;
}

uint64_t fuzz_u64(struct fuzz_in *in)
{
	uint64_t x = 0;

	for (int i = 0; i < 8; i++)
		x = x << 8 | fuzz_u8(in);
	return x;
}

uint64_t fuzz_below(struct fuzz_in *in, uint64_t n)
{
	uint64_t x = 0, reach = 1;

	while (reach < n && reach < UINT64_C(1) << 56) {
		x = x << 8 | fuzz_u8(in);
		reach <<= 8;
	}
	return x % n;
}

const uint8_t *fuzz_some(struct fuzz_in *in, size_t max, size_t *ret_len)
{
	const uint8_t *p = in->p;

	*ret_len = VC_MIN(max, in->left);
	in->p += *ret_len;
	in->left -= *ret_len;
	return p;
}

void fuzz_text(struct fuzz_in *in, char *buf, size_t len)
{
	size_t used = 0;

	while (in->left && used + 1 < len) {
		buf[used] = (char)fuzz_u8(in);
		used += buf[used] != '\0';
	}
	buf[used] = '\0';
}
