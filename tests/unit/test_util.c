/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of util, list, done, msg and checksum. */
#include "config.h"
#include "unit.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "checksum.h"
#include "done.h"
#include "list.h"
#include "lock.h"
#include "msg.h"
#include "util.h"

static void test_is_zero(void **state VC_UNUSED)
{
	static uint8_t buf[4096 + 64];

	for (size_t len = 0; len <= 200; len++) {
		assert_true(vc_is_zero(buf + 3, len));
		for (size_t at = 0; at < len + 6; at++) {
			buf[at] = 1;
			/* Only bytes 3 .. 3 + len - 1 count. */
			assert_int_equal(vc_is_zero(buf + 3, len), at < 3 || at >= 3 + len);
			buf[at] = 0;
		}
	}
	assert_true(vc_is_zero(buf, 4096));
	for (size_t at = 0; at < 4096; at++) {
		buf[at] = 0x80;
		assert_false(vc_is_zero(buf, 4096));
		buf[at] = 0;
	}
	assert_true(vc_is_zero(NULL, 0));
	memset(buf, 7, sizeof(buf)); /* all alike, but not zero */
	assert_false(vc_is_zero(buf, 4096));
}

static void test_array_room(void **state VC_UNUSED)
{
	uint32_t *array = NULL;
	size_t n = 0, cap = 0;

	while (n < 1000) {
		size_t before = cap;

		assert_int_equal(vc_array_room(&array, n, &cap, sizeof(*array)), 0);
		assert_true(cap > n);
		assert_true(cap == before || before == n);
		array[n] = (uint32_t)n;
		n++;
	}
	for (size_t i = 0; i < n; i++)
		assert_int_equal(array[i], i);
	free(array);
}

static void test_endian(void **state VC_UNUSED)
{
	struct { vc_le16 a; vc_le32 b; vc_le64 c; } le = {
		vc_le16_of(0x0102), vc_le32_of(0x03040506), vc_le64_of(UINT64_C(0x0708090a0b0c0d0e)),
	};
	static const uint8_t want[] = { 2, 1, 6, 5, 4, 3, 14, 13, 12, 11, 10, 9, 8, 7 };
	uint8_t be[8];

	assert_int_equal(sizeof(le), sizeof(want));
	assert_memory_equal(&le, want, sizeof(want));
	assert_int_equal(vc_le16_get(le.a), 0x0102);
	assert_int_equal(vc_le32_get(le.b), 0x03040506);
	assert_true(vc_le64_get(le.c) == UINT64_C(0x0708090a0b0c0d0e));
	vc_be64_put(be, UINT64_C(0x0102030405060708));
	assert_memory_equal(be, "\1\2\3\4\5\6\7\10", 8);
	assert_true(vc_be64_at(be) == UINT64_C(0x0102030405060708));
}

static void test_arithmetic(void **state VC_UNUSED)
{
	assert_int_equal(VC_ROUND_UP(0u, 64u), 0);
	assert_int_equal(VC_ROUND_UP(1u, 64u), 64);
	assert_int_equal(VC_ROUND_UP(64u, 64u), 64);
	assert_int_equal(VC_ROUND_DOWN(127u, 64u), 64);
	assert_int_equal(VC_DIV_UP(0u, 3u), 0);
	assert_int_equal(VC_DIV_UP(7u, 3u), 3);
}

static void test_parse_bytes(void **state VC_UNUSED)
{
	static const struct { const char *text; int r; uint64_t bytes; } cases[] = {
		{ "0", 0, 0 }, { "4096", 0, 4096 }, { "1K", 0, 1024 }, { "64M", 0, 64u << 20 }, { "2g", 0, 2ull << 30 },
		{ "16T", 0, 16ull << 40 }, { "18446744073709551615", 0, UINT64_MAX }, { "007", 0, 7 },
		{ "16777215T", 0, 16777215ull << 40 },
		{ "16777216T", -ERANGE, 0 }, { "18446744073709551616", -ERANGE, 0 },
		{ "99999999999999999999999", -ERANGE, 0 },
		{ "", -EINVAL, 0 }, { "M", -EINVAL, 0 }, { "-1", -EINVAL, 0 }, { "+1", -EINVAL, 0 }, { " 1", -EINVAL, 0 },
		{ "1 ", -EINVAL, 0 }, { "1.5G", -EINVAL, 0 }, { "1X", -EINVAL, 0 }, { "1MB", -EINVAL, 0 },
		{ "0x10", -EINVAL, 0 }, { "99999999999999999999999x", -EINVAL, 0 },
	};

	for (size_t i = 0; i < VC_ARRAY_LEN(cases); i++) {
		uint64_t bytes = 12345;

		assert_int_equal(vc_parse_bytes(cases[i].text, &bytes), cases[i].r);
		assert_true(bytes == (cases[i].r ? 12345 : cases[i].bytes)); /* written only on success */
	}
}

static void test_human_bytes(void **state VC_UNUSED)
{
	static const struct { uint64_t bytes; const char *text; } cases[] = {
		{ 0, "0 B" }, { 1023, "1023 B" }, { 1024, "1.0 KiB" }, { 1536, "1.5 KiB" }, { 1 << 20, "1.0 MiB" },
		{ (1 << 20) - 1, "1.0 MiB" }, { 3ull << 30, "3.0 GiB" }, { 16ull << 40, "16.0 TiB" },
		{ 1ull << 50, "1.0 PiB" }, { UINT64_MAX, "16.0 EiB" },
	};
	char buf[16];

	for (size_t i = 0; i < VC_ARRAY_LEN(cases); i++)
		assert_string_equal(vc_human_bytes(cases[i].bytes, buf, sizeof(buf)), cases[i].text);
}

static void test_time_and_random(void **state VC_UNUSED)
{
	uint64_t a = vc_mono_ns(), b = vc_mono_ns();
	uint8_t x[300] = { 0 }, y[300] = { 0 };

	assert_true(b >= a);
	/* 2020 to 2200: nanoseconds and not another unit. */
	assert_true(vc_now_ns() > UINT64_C(1577836800000000000) && vc_now_ns() < UINT64_C(7258118400000000000));
	assert_int_equal(vc_random_bytes(x, sizeof(x)), 0);
	assert_int_equal(vc_random_bytes(y, sizeof(y)), 0);
	assert_memory_not_equal(x, y, sizeof(x));
	assert_false(vc_is_zero(x + 270, 30));
}

static void test_list(void **state VC_UNUSED)
{
	struct item { int n; struct vc_list link; } items[3] = { { .n = 0 }, { .n = 1 }, { .n = 2 } };
	struct vc_list head;
	int seen = 0;

	vc_list_init(&head);
	assert_true(vc_list_empty(&head));
	for (int i = 0; i < 3; i++)
		vc_list_add_tail(&head, &items[i].link);
	vc_list_del(&items[1].link);
	vc_list_del(&items[1].link);
	vc_list_for_each(it, &head)
		seen = seen * 10 + vc_list_entry(it, struct item, link)->n + 1;
	assert_int_equal(seen, 13);
	vc_list_for_each_safe(it, tmp, &head)
		vc_list_del(it);
	assert_true(vc_list_empty(&head));
}

static void test_checksum(void **state VC_UNUSED)
{
	static const uint8_t zeros[4096];

	/* Published values of XXH3 with 64 bits: the format depends on exactly this function. */
	assert_true(vc_sum64("", 0, 0) == UINT64_C(0x2d06800538d394c2));
	assert_true(vc_sum64("a", 1, 0) != vc_sum64("a", 1, 1));
	assert_true(vc_sum32(zeros, sizeof(zeros)) == (uint32_t)vc_sum64(zeros, sizeof(zeros), 0));
	assert_true(vc_sum64(zeros, 4096, 0) != vc_sum64(zeros, 4095, 0));
}

/* ---- messages ---- */

static void test_msg(void **state VC_UNUSED)
{
	char big[3000];

	vc_unit_catch_messages(true);
	vc_err("disk %d", 7);
	assert_string_equal(vc_unit_last_message(), "disk 7");
	vc_info("two\nlines\x1b[2J\x7f");
	assert_string_equal(vc_unit_last_message(), "two?lines?[2J?");
	vc_warn("\xc3\xa9");
	assert_string_equal(vc_unit_last_message(), "\xc3\xa9");
	assert_int_equal(vc_unit_messages(), 3);
	vc_debug("below the level");
	assert_int_equal(vc_unit_messages(), 3);
	vc_msg_set_level(VC_MSG_DEBUG);
	vc_debug("now");
	assert_int_equal(vc_unit_messages(), 4);
	vc_msg_set_level(VC_MSG_ERR);
	vc_warn("dropped");
	assert_int_equal(vc_unit_messages(), 4);
	vc_msg_set_level(VC_MSG_INFO);

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	errno = ENOTTY;
	vc_err("%s", big);
	assert_int_equal(errno, ENOTTY);
	assert_int_equal(strlen(vc_unit_last_message()), 1000);
	vc_unit_catch_messages(false);
}

/* What standard error gets, with it being a pipe. */
static void stderr_of_message(bool journal, char *buf, size_t len)
{
	int fds[2], saved = dup(STDERR_FILENO);
	char stream[64];
	struct stat st;
	ssize_t n;

	assert_int_equal(pipe(fds), 0);
	assert_int_equal(fstat(fds[1], &st), 0);
	snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino + !journal);
	setenv("JOURNAL_STREAM", stream, 1);
	dup2(fds[1], STDERR_FILENO);
	vc_msg_set_sink(NULL, NULL);
	vc_warn("careful");
	dup2(saved, STDERR_FILENO);
	n = read(fds[0], buf, len - 1);
	assert_true(n > 0);
	buf[n] = '\0';
	close(saved);
	close(fds[0]);
	close(fds[1]);
	unsetenv("JOURNAL_STREAM");
	vc_msg_set_sink(NULL, NULL);
}

static void test_msg_stderr(void **state VC_UNUSED)
{
	char buf[200];

	stderr_of_message(true, buf, sizeof(buf));
	assert_string_equal(buf, "<4>careful\n");
	stderr_of_message(false, buf, sizeof(buf));
	assert_non_null(strstr(buf, ": warning: careful\n"));
	assert_null(strchr(buf, '<'));
}

/* ---- completions ---- */

static void *complete_later(void *arg)
{
	vc_done_call(arg, -ENOSPC);
	return NULL;
}

static void test_wait(void **state VC_UNUSED)
{
	struct vc_wait w;
	pthread_t thread;

	vc_done_call(NULL, 0);
	vc_wait_init(&w);
	vc_done_call(&w.done, 0);
	assert_int_equal(vc_wait_for(&w), 0);
	vc_wait_init(&w);
	assert_int_equal(vc_wait_result(&w, -EROFS), -EROFS);
	for (int i = 0; i < 200; i++) {
		vc_wait_init(&w);
		assert_int_equal(vc_thread_start(&thread, "completer", complete_later, &w.done), 0);
		assert_int_equal(vc_wait_result(&w, 0), -ENOSPC);
		pthread_join(thread, NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_is_zero),
		cmocka_unit_test(test_array_room),
		cmocka_unit_test(test_endian),
		cmocka_unit_test(test_arithmetic),
		cmocka_unit_test(test_parse_bytes),
		cmocka_unit_test(test_human_bytes),
		cmocka_unit_test(test_time_and_random),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_checksum),
		cmocka_unit_test(test_msg),
		cmocka_unit_test(test_msg_stderr),
		cmocka_unit_test(test_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
