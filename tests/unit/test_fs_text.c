/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of fs_text: lines of the magic file, name patterns. */
#include "config.h"
#include "unit.h"

#include <string.h>
#include "fs_text.h"

static int line(const char *text, char *src, char *dst)
{
	return fs_text_line(text, text + strlen(text), src, dst, 64);
}

static void test_lines(void **state VC_UNUSED)
{
	static const struct {
		const char *text, *src, *dst;
	} good[] = {
		{ "a b", "a", "b" },
		{ " \ta\t \tb  ", "a", "b" },
		{ "'a b' \"c d\"", "a b", "c d" },
		{ "a\\ b c\\\\d", "a b", "c\\d" },
		{ "'a\\b' \"a\\b\"", "a\\b", "a\\b" },
		{ "\"a\\\"b\\\\c\" '\"'", "a\"b\\c", "\"" },
		{ "a'b'\"c\"d e''", "abcd", "e" },
		{ "'' b", "", "b" },
		{ "\\#a #b", "#a", "#b" },
		{ "\\'a\\\" b", "'a\"", "b" },
		{ "\xff\xfe \x01", "\xff\xfe", "\x01" },
	};
	char src[64], dst[64];

	for (size_t i = 0; i < VC_ARRAY_LEN(good); i++) {
		assert_int_equal(line(good[i].text, src, dst), 1);
		assert_string_equal(src, good[i].src);
		assert_string_equal(dst, good[i].dst);
	}
}

static void test_lines_without_clone(void **state VC_UNUSED)
{
	static const char *const empty[] = { "", " ", "\t \t", "#", "  # a b", "#a b" };
	static const char *const bad[] = { "a",	   "a ",    "a b c", "'a b",	"a 'b", "a \"b", "a \"b\\\"",
					   "a b\\", "\\",   "a '",   "a b 'c'", "\"",	"a b\\ c d" };
	char src[64], dst[64];

	for (size_t i = 0; i < VC_ARRAY_LEN(empty); i++)
		assert_int_equal(line(empty[i], src, dst), 0);
	for (size_t i = 0; i < VC_ARRAY_LEN(bad); i++)
		assert_int_equal(line(bad[i], src, dst), -EINVAL);
}

static void test_limits(void **state VC_UNUSED)
{
	static const char nul[] = { 'a', ' ', 'b', '\0', 'c' };
	char text[200], src[64], dst[64];

	assert_int_equal(fs_text_line(nul, nul + sizeof(nul), src, dst, 64), -EINVAL);
	assert_int_equal(fs_text_line(nul, nul + 3, src, dst, 64), 1);
	memset(text, 'x', sizeof(text));
	memcpy(text, "a ", 2);
	assert_int_equal(fs_text_line(text, text + 2 + 63, src, dst, 64), 1);
	assert_int_equal(strlen(dst), 63);
	assert_int_equal(fs_text_line(text, text + 2 + 64, src, dst, 64), -ENAMETOOLONG);
}

/** Quote any word in one of several ways and read it back. */
static void test_random_words(void **state VC_UNUSED)
{
	uint64_t random = vc_unit_seed();
	char word[33], text[200], back[64];
	const char *p;

	for (int round = 0; round < 20000; round++) {
		size_t len = 1 + vc_unit_below(&random, 32), used = 0;
		bool quoted = vc_unit_below(&random, 2);

		for (size_t i = 0; i < len; i++)
			word[i] = (char)(1 + vc_unit_below(&random, 255));
		word[len] = '\0';
		if (quoted)
			text[used++] = '"';
		for (size_t i = 0; i < len; i++) {
			if (!quoted || word[i] == '"' || word[i] == '\\')
				text[used++] = '\\';
			text[used++] = word[i];
		}
		if (quoted)
			text[used++] = '"';
		p = text;
		assert_int_equal(fs_text_word(&p, text + used, back, sizeof(back)), 1);
		assert_string_equal(back, word);
		assert_ptr_equal(p, text + used);
		assert_int_equal(fs_text_word(&p, text + used, back, sizeof(back)), 0);
	}
}

static void test_patterns(void **state VC_UNUSED)
{
	static const struct {
		const char *pattern;
		uint64_t number;
		const char *name;
	} good[] = {
		{ "vm%d.img", 7, "vm7.img" },	 { "%03d", 7, "007" },	       { "%3d", 7, "  7" },
		{ "%09d", 7, "000000007" },	 { "%01d", 42, "42" },	       { "%%%d%%", 5, "%5%" },
		{ "%d", UINT64_C(4294977295), "4294977295" }, { "a%%b%02dc%%", 12, "a%b12c%" },
	};
	static const char *const bad[] = { "",	  "vm",	  "%",	   "%s",  "%%",	 "%%d", "%d%d", "%d%",	"%d%s", "%0d", "%10d",
					   "%-3d", "%00d", "%003d", "%ld", "%5", "%n",	"%D",	"%5$d", "x%%%" };
	char name[64];

	for (size_t i = 0; i < VC_ARRAY_LEN(good); i++) {
		assert_int_equal(fs_text_pattern_check(good[i].pattern), 0);
		assert_int_equal(fs_text_pattern_name(good[i].pattern, good[i].number, name, sizeof(name)), 0);
		assert_string_equal(name, good[i].name);
	}
	for (size_t i = 0; i < VC_ARRAY_LEN(bad); i++)
		assert_int_equal(fs_text_pattern_check(bad[i]), -EINVAL);
	assert_int_equal(fs_text_pattern_name("1234567%d", 1, name, 9), 0);
	assert_int_equal(fs_text_pattern_name("1234567%d", 10, name, 9), -ENAMETOOLONG);
	assert_int_equal(fs_text_pattern_name("%9d", 1, name, 9), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_lines_without_clone),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_random_words),
		cmocka_unit_test(test_patterns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
