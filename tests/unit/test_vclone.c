/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the parts of the administration program that need no mount: paths, patterns, names, JSON, progress text. */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>
#include "vclone_impl.h"

static void test_pattern(void **state VC_UNUSED)
{
	static const char *const good[] = {
		"vm%d", "vm%05d.img", "%9d", "%5dx", "%01d", "a/b/vm%d", "100%%-%d", "%d%%", "%%%d%%%%", "dir%d%d/vm%d",
		"dir%/vm%d",
	};
	static const char *const bad[] = {
		"", "vm", "vm%", "%%", "%s", "%i", "%u", "%d%d", "%05d-%d", "%10d", "%010d", "%0d", "%-5d", "%+d", "% d", "%ld",
		"%*d", "%1$d", "%%d", "vm%d/", "vm%d/x", "%5", "%05", "%d%", "%#d", "%00d", "%5.3d", "%n",
	};

	for (size_t i = 0; i < VC_ARRAY_LEN(good); i++)
		if (vc_cli_pattern_error(good[i]))
			fail_msg("'%s' refused: %s", good[i], vc_cli_pattern_error(good[i]));
	for (size_t i = 0; i < VC_ARRAY_LEN(bad); i++)
		if (!vc_cli_pattern_error(bad[i]))
			fail_msg("'%s' accepted", bad[i]);
}

static void test_split(void **state VC_UNUSED)
{
	static const struct {
		const char *path, *parent, *name;
	} cases[] = {
		{ "a", ".", "a" }, { "/a", "/", "a" }, { "b/a", "b", "a" }, { "/x/y/a b", "/x/y", "a b" }, { "./a", ".", "a" },
		{ "b//a", "b/", "a" }, { "...", ".", "..." }, { "../a", "..", "a" }, { ".a", ".", ".a" },
	};
	static const char *const directories[] = { "/", "a/", "a/.", "..", ".", "/a/b/.." };
	char parent[VCLONEFS_PATH_MAX], *long_path;
	const char *name;

	for (size_t i = 0; i < VC_ARRAY_LEN(cases); i++) {
		assert_int_equal(vc_cli_split(cases[i].path, parent, &name), 0);
		assert_string_equal(parent, cases[i].parent);
		assert_string_equal(name, cases[i].name);
	}
	for (size_t i = 0; i < VC_ARRAY_LEN(directories); i++)
		assert_int_equal(vc_cli_split(directories[i], parent, &name), -EISDIR);
	assert_int_equal(vc_cli_split("", parent, &name), -ENOENT);

	long_path = calloc(1, VCLONEFS_PATH_MAX + 8);
	assert_non_null(long_path);
	memset(long_path, 'd', VCLONEFS_PATH_MAX - 1);
	strcpy(long_path + VCLONEFS_PATH_MAX - 1, "/f");
	assert_int_equal(vc_cli_split(long_path, parent, &name), 0);
	assert_int_equal(strlen(parent), VCLONEFS_PATH_MAX - 1);
	strcpy(long_path + VCLONEFS_PATH_MAX - 1, "d/f");
	assert_int_equal(vc_cli_split(long_path, parent, &name), -ENAMETOOLONG);
	free(long_path);
}

static void test_mountinfo(void **state VC_UNUSED)
{
	static struct vc_cli_mount m;
	char *line;

	assert_int_equal(vc_cli_parse_mount("36 35 98:0 / /vm rw,noatime master:1 - fuse.vclonefs p rw\n", &m), 0);
	assert_int_equal(m.id, 36);
	assert_string_equal(m.root, "/");
	assert_string_equal(m.point, "/vm");

	assert_int_equal(vc_cli_parse_mount("7 1 0:5 /sub\\040dir /mnt/a\\134b\\011c\\012 rw - fuse x rw", &m), 0);
	assert_string_equal(m.root, "/sub dir");
	assert_string_equal(m.point, "/mnt/a\\b\tc\n");
	/* What only looks like an escape is kept. */
	assert_int_equal(vc_cli_parse_mount("7 1 0:5 / /a\\9\\04 rw - fuse x rw", &m), 0);
	assert_string_equal(m.point, "/a\\9\\04");

	assert_int_equal(vc_cli_parse_mount("", &m), -EINVAL);
	assert_int_equal(vc_cli_parse_mount("36 35 98:0 /", &m), -EINVAL);
	assert_int_equal(vc_cli_parse_mount("x 35 98:0 / /vm rw", &m), -EINVAL);
	assert_int_equal(vc_cli_parse_mount("36 35 98:0 / vm rw", &m), -EINVAL);
	assert_int_equal(vc_cli_parse_mount("99999999999 35 98:0 / /vm rw", &m), -EINVAL);

	line = calloc(1, VCLONEFS_PATH_MAX + 64);
	assert_non_null(line);
	strcpy(line, "36 35 98:0 / /");
	memset(line + strlen(line), 'p', VCLONEFS_PATH_MAX);
	assert_int_equal(vc_cli_parse_mount(line, &m), -ENAMETOOLONG);
	free(line);
}

static void check_translate(const char *root, const char *point, const char *dir, const char *want)
{
	static struct vc_cli_mount m;
	char buf[VCLONEFS_PATH_MAX];

	snprintf(m.root, sizeof(m.root), "%s", root);
	snprintf(m.point, sizeof(m.point), "%s", point);
	if (!want) {
		assert_int_equal(vc_cli_translate(&m, dir, "f", buf), -EXDEV);
		return;
	}
	assert_int_equal(vc_cli_translate(&m, dir, "f", buf), 0);
	assert_string_equal(buf, want);
}

static void test_translate(void **state VC_UNUSED)
{
	static struct vc_cli_mount m = { .root = "/", .point = "/vm" };
	char dir[VCLONEFS_PATH_MAX], buf[VCLONEFS_PATH_MAX];

	check_translate("/", "/vm", "/vm", "/f");
	check_translate("/", "/vm", "/vm/a/b", "/a/b/f");
	check_translate("/lab", "/srv/lab", "/srv/lab", "/lab/f");
	check_translate("/lab", "/srv/lab", "/srv/lab/x", "/lab/x/f");
	check_translate("/", "/", "/", "/f");
	check_translate("/", "/", "/a", "/a/f");
	check_translate("/lab", "/", "/a", "/lab/a/f");
	check_translate("/", "/vm", "/vmx", NULL);
	check_translate("/", "/vm", "/v", NULL);
	check_translate("/", "/vm", "/", NULL);

	/* The longest that fits, and one more. */
	memset(dir, 'd', sizeof(dir));
	memcpy(dir, "/vm/", 4);
	dir[VCLONEFS_PATH_MAX - 2] = '\0';
	assert_int_equal(vc_cli_translate(&m, dir, "ff", buf), 0);
	assert_int_equal(strlen(buf), VCLONEFS_PATH_MAX - 2);
	assert_int_equal(vc_cli_translate(&m, dir, "fff", buf), 0);
	assert_int_equal(vc_cli_translate(&m, dir, "ffff", buf), -ENAMETOOLONG);
}

/** What `print` writes; free it. */
static char *printed(void (*print)(FILE *out, const char *text), const char *text)
{
	char *buf = NULL;
	size_t len;
	FILE *out = open_memstream(&buf, &len);

	assert_non_null(out);
	print(out, text);
	assert_int_equal(fclose(out), 0);
	return buf;
}

static void check_printed(void (*print)(FILE *out, const char *text), const char *text, const char *want)
{
	char *got = printed(print, text);

	assert_string_equal(got, want);
	free(got);
}

static void test_names(void **state VC_UNUSED)
{
	check_printed(vc_cli_put_name, "golden image.img", "golden image.img");
	check_printed(vc_cli_put_name, "a\nb\tc\033[2Jd\177", "a\\012b\\011c\\033[2Jd\\177");
	check_printed(vc_cli_put_name, "back\\slash", "back\\134slash");
	check_printed(vc_cli_put_name, "J\303\274rgen \342\202\254 \360\237\222\276", "J\303\274rgen \342\202\254 \360\237\222\276");
	check_printed(vc_cli_put_name, "\200x\377", "\\200x\\377");
	check_printed(vc_cli_put_name, "\303", "\\303");                     /* cut short */
	check_printed(vc_cli_put_name, "\342\202", "\\342\\202");
	check_printed(vc_cli_put_name, "\300\257", "\\300\\257");            /* '/' in too many bytes */
	check_printed(vc_cli_put_name, "\340\200\257", "\\340\\200\\257");
	check_printed(vc_cli_put_name, "\340\202\251", "\\340\\202\\251"); /* what needs two bytes, in three */
	check_printed(vc_cli_put_name, "\360\202\202\254", "\\360\\202\\202\\254");
	check_printed(vc_cli_put_name, "\302\233" "2J", "\\302\\2332J");     /* a C1 control character */
	check_printed(vc_cli_put_name, "\355\240\200", "\\355\\240\\200");   /* a surrogate */
	check_printed(vc_cli_put_name, "\342\200\256gpj", "\\342\\200\\256gpj"); /* right-to-left override */
	check_printed(vc_cli_put_name, "\364\220\200\200", "\\364\\220\\200\\200"); /* above U+10FFFF */
}

static void print_json_string(FILE *out, const char *text)
{
	struct vc_json j;

	vc_json_begin(&j, out);
	vc_json_string(&j, NULL, text);
}

static void print_json_object(FILE *out, const char *text)
{
	struct vc_json j;

	vc_json_begin(&j, out);
	vc_json_open(&j, NULL, '[');
	vc_json_open(&j, NULL, '{');
	vc_json_string(&j, "name", text);
	vc_json_u64(&j, "big", UINT64_MAX);
	vc_json_bool(&j, "yes", true);
	vc_json_null(&j, "none");
	vc_json_close(&j, '{');
	vc_json_open(&j, NULL, '[');
	vc_json_close(&j, '[');
	vc_json_close(&j, '[');
}

static void test_json(void **state VC_UNUSED)
{
	check_printed(print_json_string, "a\"b\\c/d", "\"a\\\"b\\\\c/d\"");
	check_printed(print_json_string, "\001\n\037", "\"\\u0001\\u000a\\u001f\"");
	check_printed(print_json_string, "J\303\274", "\"J\303\274\"");
	check_printed(print_json_string, "\377x\303", "\"\\udcffx\\udcc3\"");
	check_printed(print_json_object, "n",
		      "[\n  {\n    \"name\": \"n\",\n    \"big\": 18446744073709551615,\n    \"yes\": true,\n"
		      "    \"none\": null\n  },\n  []\n]\n");
}

static void test_progress(void **state VC_UNUSED)
{
	struct vc_progress bytes = { .what = "import", .bytes = true }, nodes = { .what = "clean" };
	const uint64_t second = 1000000000;
	char buf[256], small[16];

	assert_string_equal(vc_progress_text(&bytes, UINT64_C(1) << 30, UINT64_C(4) << 30, 2 * second, buf, sizeof(buf)),
			    "import:  25 %  1.0 GiB of 4.0 GiB  512.0 MiB/s  6.0 s left");
	assert_string_equal(vc_progress_text(&nodes, 300, 200, 10 * second, buf, sizeof(buf)),
			    "clean: 100 %  200 of 200  30/s  0.0 s left");
	assert_string_equal(vc_progress_text(&nodes, 7, 0, second, buf, sizeof(buf)), "clean: 7");
	assert_string_equal(vc_progress_text(&bytes, 0, 4096, 0, buf, sizeof(buf)), "import:   0 %  0 B of 4.0 KiB");
	/* Near the largest number the percentage does not overflow, and a short buffer is not overrun. */
	vc_progress_text(&bytes, UINT64_MAX / 2, UINT64_MAX, second, buf, sizeof(buf));
	assert_non_null(strstr(buf, " 50 %"));
	vc_progress_text(&bytes, UINT64_MAX / 2, UINT64_MAX, second, small, sizeof(small));
	assert_int_equal(strlen(small), sizeof(small) - 1);

	assert_string_equal(vc_progress_duration(1500000000, buf, sizeof(buf)), "1.5 s");
	assert_string_equal(vc_progress_duration(119 * second, buf, sizeof(buf)), "119 s");
	assert_string_equal(vc_progress_duration(250 * second, buf, sizeof(buf)), "4 min 10 s");
	assert_string_equal(vc_progress_duration(7500 * second, buf, sizeof(buf)), "2 h 5 min");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pattern),
		cmocka_unit_test(test_split),
		cmocka_unit_test(test_mountinfo),
		cmocka_unit_test(test_translate),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_progress),
	};

	return cmocka_run_group_tests_name("vclone", tests, NULL, NULL);
}
