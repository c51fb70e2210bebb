/* SPDX-License-Identifier: BSD-2-Clause */
/* Chunks read past the page cache: when, how, and that nothing depends on it going well. */
#include "config.h"
#include "unit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "chunk_fixture.h"

#define CHUNKS 40

/* What pread_past does. */
enum past { PAST_RIGHT, PAST_REFUSED, PAST_SHORT, PAST_EMPTY, PAST_BAD_HEAD, PAST_BAD_PAYLOAD, PAST_STALE, PAST_END };

static struct {
	struct chunk_fixture fix;
	struct vc_io_ops ops;
	struct vc_io io;
	enum past mode;
	unsigned past, usual; /* calls */
	uint32_t wrong_at;    /* offset in the file where a byte is flipped */
	uint64_t entries[CHUNKS];
} t;

static ssize_t count_preadv(struct vc_file *file, const struct iovec *iov, int n, uint64_t offset)
{
	t.usual++;
	return vc_io_posix()->ops->preadv(file, iov, n, offset);
}

static ssize_t fake_past(struct vc_file *file, void *buf, size_t len, uint64_t offset)
{
	struct iovec iov = { buf, len };
	ssize_t n;

	t.past++;
	assert_int_equal((uintptr_t)buf % VC_IO_PAST_ALIGN, 0);
	assert_int_equal(len % VC_IO_PAST_ALIGN, 0);
	assert_int_equal(offset % VC_IO_PAST_ALIGN, 0);
	if (t.mode == PAST_REFUSED)
		return -EAGAIN;
	if (t.mode == PAST_EMPTY)
		return 0;
	n = vc_io_posix()->ops->preadv(file, &iov, 1, offset);
	assert_true(n > 0 && t.wrong_at >= offset);
	if (t.mode == PAST_SHORT)
		return (ssize_t)(t.wrong_at - offset);
	if (t.mode == PAST_BAD_HEAD || t.mode == PAST_BAD_PAYLOAD)
		((uint8_t *)buf)[t.wrong_at - offset] ^= 1;
	if (t.mode == PAST_STALE)
		memset(buf, 0, len);
	return n;
}

static int setup(void **state VC_UNUSED)
{
	t.ops = *vc_io_posix()->ops;
	t.ops.preadv = count_preadv;
	t.ops.pread_past = fake_past;
	t.io.ops = &t.ops;
	t.mode = PAST_RIGHT;
	fix_open(&t.fix);
	fix_append_many(&t.fix, t.entries, CHUNKS);
	t.fix.params.cache_bytes = 0; /* every read is a miss */
	t.fix.params.io = &t.io;
	fix_reopen(&t.fix);
	return 0;
}

static int teardown(void **state VC_UNUSED)
{
	t.fix.params.io = &t.fix.fault.io;
	fix_close(&t.fix);
	return 0;
}

static void expect(size_t i)
{
	t.past = t.usual = 0;
	t.wrong_at = vc_entry_offset(t.entries[i]) + (t.mode == PAST_BAD_HEAD ? 8 : 100);
	fix_expect(&t.fix, t.entries[i], 0, fix_blocks_of(i), fix_blocks_of(i), i + 1, fix_soft_of(i));
}

/* The first miss goes past the page cache and needs nothing else; the second does not go past it. */
static void test_once(void **state VC_UNUSED)
{
	for (size_t i = 0; i < CHUNKS; i++) {
		expect(i);
		assert_int_equal(t.past, 1);
		assert_int_equal(t.usual, 0);
	}
	for (size_t i = 0; i < CHUNKS; i++) {
		expect(i);
		assert_int_equal(t.past, 0);
		assert_int_equal(t.usual, 1);
	}
}

/* Whatever comes of it, the chunk is read again, is right, and nobody is told of damage that there is not. */
static void test_falls_back(void **state VC_UNUSED)
{
	size_t i = 0;

	for (t.mode = PAST_REFUSED; t.mode < PAST_END; t.mode++) {
		for (int n = 0; n < 4; n++, i++) {
			vc_unit_catch_messages(true);
			expect(i);
			assert_int_equal(vc_unit_messages(), 0);
			vc_unit_catch_messages(false);
			assert_int_equal(t.past, 1);
			assert_int_equal(t.usual, 1);
		}
	}
	assert_true(i <= CHUNKS);
}

/* What is wrong on the disk is an error, and one message. */
static void test_damage(void **state VC_UNUSED)
{
	uint8_t buf[FIX_BLOCKS * FIX_BLOCK], byte;
	uint32_t at = vc_entry_offset(t.entries[5]) + 200;
	int fd = open(fix_path(&t.fix, vc_entry_segno(t.entries[5])), O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
	t.wrong_at = at;
	vc_unit_catch_messages(true);
	assert_int_equal(vc_chunk_read(t.fix.store, t.entries[5], fix_blocks_of(5), buf), -EBADMSG);
	assert_int_equal(vc_unit_messages(), 1);
	vc_unit_catch_messages(false);
	expect(4);
	expect(6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_falls_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
