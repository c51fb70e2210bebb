/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of dir, row and slice rows: names and cookie order against a plain model, encoded inodes, attributes. */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "catalog.h"

#define NAMES 100000u

static struct vc_catalog catalog;

/* An empty directory: loading one finds no rows. */
static void dir_new(struct vc_inode *dir, char **ret_top)
{
	struct vc_meta *meta;
	char *top = vc_unit_tmpdir();
	struct vc_meta_params params = { .io = vc_io_posix(), .dir = top };

	assert_non_null(top);
	assert_int_equal(vc_meta_create(&params), 0);
	assert_int_equal(vc_meta_open(&params, &meta), 0);
	catalog = (struct vc_catalog){ .meta = meta };
	*dir = (struct vc_inode){ .cat = &catalog, .ino = 1 };
	assert_int_equal(vc_dir_load(&catalog, dir), 0);
	assert_non_null(dir->dir);
	*ret_top = top;
}

static void dir_end(struct vc_inode *dir, char *top)
{
	vc_dir_free(dir->dir);
	vc_meta_close(catalog.meta);
	vc_unit_rmdir(top);
}

/* Names of very different lengths, by number. */
static size_t name_of(unsigned i, char *buf)
{
	return (size_t)snprintf(buf, VC_NAME_MAX + 1, "%.*s%u", (int)(i % 7 == 0 ? 200 : i % 5),
				"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
				"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn", i);
}

static void put(struct vc_inode *dir, unsigned i, uint64_t cookie)
{
	struct vc_disk_dirent value = { .ino = vc_le64_of(1000 + i), .cookie = vc_le64_of(cookie), .type = vc_le32_of(S_IFREG) };
	char name[VC_NAME_MAX + 1];

	assert_int_equal(vc_dir_put(dir, name, name_of(i, name), &value), 0);
}

static void del(struct vc_inode *dir, unsigned i)
{
	char name[VC_NAME_MAX + 1];

	vc_dir_del(dir, name, name_of(i, name));
}

/* cookies[i] of each name, 0: not there. by_cookie: the name made under a cookie. */
struct model {
	uint64_t cookies[NAMES];
	unsigned *by_cookie;
	uint64_t next_cookie, cap;
	size_t count;
};

static uint64_t model_cookie(struct model *m, unsigned i)
{
	if (m->next_cookie >= m->cap) {
		m->cap = m->cap ? m->cap * 2 : 1024;
		m->by_cookie = realloc(m->by_cookie, m->cap * sizeof(*m->by_cookie));
		assert_non_null(m->by_cookie);
	}
	m->by_cookie[m->next_cookie] = i;
	return m->next_cookie++;
}

static void expect_entry(const struct vc_inode *dir, const struct model *m, unsigned i)
{
	char name[VC_NAME_MAX + 1];
	size_t len = name_of(i, name);
	const struct vc_dir_entry *e = vc_dir_find(dir, name, len);

	if (m->cookies[i] == 0) {
		assert_null(e);
		return;
	}
	assert_non_null(e);
	assert_int_equal(e->ino, 1000 + i);
	assert_int_equal(e->cookie, m->cookies[i]);
	assert_string_equal(e->name, name);
	assert_int_equal(e->name_len, len);
}

/* Walk all of it from the start: each name once, cookies rising. */
static void expect_order(const struct vc_inode *dir, const struct model *m)
{
	uint64_t cookie = 0;
	size_t n = 0;

	for (const struct vc_dir_entry *e; (e = vc_dir_after(dir, cookie)); n++) {
		assert_true(e->cookie > cookie);
		cookie = e->cookie;
		assert_int_equal(m->cookies[m->by_cookie[cookie]], cookie);
		assert_int_equal(e->ino, 1000 + m->by_cookie[cookie]);
	}
	assert_int_equal(n, m->count);
	assert_int_equal(vc_dir_count(dir), m->count);
}

static void step(struct vc_inode *dir, struct model *m, uint64_t *seed, unsigned range, unsigned deletes)
{
	unsigned i = (unsigned)vc_unit_below(seed, range);

	if (vc_unit_below(seed, 100) < deletes) {
		del(dir, i);
		m->count -= m->cookies[i] != 0;
		m->cookies[i] = 0;
	} else {
		m->count += m->cookies[i] == 0;
		m->cookies[i] = model_cookie(m, i);
		put(dir, i, m->cookies[i]);
	}
}

static void test_random(void **state VC_UNUSED)
{
	uint64_t seed = vc_unit_seed();
	struct model *m = calloc(1, sizeof(*m));
	struct vc_inode dir;
	char *top;

	assert_non_null(m);
	m->next_cookie = 1;


	model_cookie(m, 0);
	dir_new(&dir, &top);
	assert_null(vc_dir_after(&dir, 0));
	assert_null(vc_dir_find(&dir, "x", 1));
	del(&dir, 1);
	for (unsigned round = 0; round < 200; round++) {
		unsigned deletes = (unsigned)vc_unit_below(&seed, 100);

		for (unsigned i = 0; i < 300; i++)
			step(&dir, m, &seed, 500, deletes);
		for (unsigned i = 0; i < 500; i += 1 + (unsigned)vc_unit_below(&seed, 20))
			expect_entry(&dir, m, i);
		expect_order(&dir, m);
	}
	free(m->by_cookie);
	free(m);
	dir_end(&dir, top);
}

static void test_100000_entries(void **state VC_UNUSED)
{
	uint64_t seed = vc_unit_seed();
	struct model *m = calloc(1, sizeof(*m));
	struct vc_inode dir;
	char *top;

	assert_non_null(m);
	m->next_cookie = 1;
	model_cookie(m, 0);
	dir_new(&dir, &top);
	for (unsigned i = 0; i < NAMES; i++) {
		m->cookies[i] = model_cookie(m, i);
		put(&dir, i, m->cookies[i]);
	}
	m->count = NAMES;
	expect_order(&dir, m);
	for (unsigned i = 0; i < NAMES; i++)
		expect_entry(&dir, m, i);
	for (unsigned i = 0; i < 2 * NAMES; i++)
		step(&dir, m, &seed, NAMES, 60);
	expect_order(&dir, m);
	for (unsigned i = 0; i < NAMES; i++)
		expect_entry(&dir, m, i);
	for (unsigned i = 0; i < NAMES; i++)
		del(&dir, i);
	assert_int_equal(vc_dir_count(&dir), 0);
	assert_null(vc_dir_after(&dir, 0));
	put(&dir, 3, m->next_cookie);
	assert_int_equal(vc_dir_after(&dir, 0)->ino, 1003);
	free(m->by_cookie);
	free(m);
	dir_end(&dir, top);
}

/* Two names under one cookie make no sense; a name that takes its own cookie again does. */
static void test_cookie_twice(void **state VC_UNUSED)
{
	struct vc_disk_dirent value = { .ino = vc_le64_of(9), .cookie = vc_le64_of(5), .type = vc_le32_of(S_IFREG) };
	struct vc_inode dir;
	char *top;

	dir_new(&dir, &top);
	assert_int_equal(vc_dir_put(&dir, "a", 1, &value), 0);
	assert_int_equal(vc_dir_put(&dir, "b", 1, &value), -EUCLEAN);
	assert_null(vc_dir_find(&dir, "b", 1));
	assert_int_equal(vc_dir_put(&dir, "a", 1, &value), 0);
	value.cookie = vc_le64_of(3); /* lower than the last: goes to its place */
	assert_int_equal(vc_dir_put(&dir, "c", 1, &value), 0);
	assert_string_equal(vc_dir_after(&dir, 0)->name, "c");
	assert_string_equal(vc_dir_after(&dir, 3)->name, "a");
	assert_null(vc_dir_after(&dir, 5));
	dir_end(&dir, top);
}

/* ---- rows ---- */

static void test_inode_row(void **state VC_UNUSED)
{
	const struct vc_inode_fields f = {
		.mode = S_IFREG | 0640, .nlink = 2, .uid = 3, .gid = 4, .rdev = 5, .depth = 6, .generation = 7, .size = VC_IMAGE_SIZE_MAX,
		.atime_ns = 9, .mtime_ns = 10, .ctime_ns = 11, .btime_ns = 12, .parent = 13, .next_cookie = 14, .origin = 15,
	};
	struct vc_inode_fields got;
	struct vc_disk_inode row, bad;

	vc_row_from_inode(&f, &row);
	assert_int_equal(vc_row_to_inode(&row, sizeof(row), &got), 0);
	assert_memory_equal(&f, &got, sizeof(f));
	assert_int_equal(vc_row_to_inode(&row, sizeof(row) - 1, &got), -EUCLEAN);
	bad = row;
	bad.size = vc_le64_of(VC_IMAGE_SIZE_MAX + 1);
	assert_int_equal(vc_row_to_inode(&bad, sizeof(bad), &got), -EUCLEAN);
	bad = row;
	bad.mode = vc_le32_of(0644);
	assert_int_equal(vc_row_to_inode(&bad, sizeof(bad), &got), -EUCLEAN);
	bad = row;
	bad.mode = vc_le32_of(S_IFREG | 0644 | 1u << 20);
	assert_int_equal(vc_row_to_inode(&bad, sizeof(bad), &got), -EUCLEAN);
	bad = row;
	bad.flags = vc_le64_of(1);
	assert_int_equal(vc_row_to_inode(&bad, sizeof(bad), &got), -EUCLEAN);
	bad = row;
	bad.reserved[15] = 1;
	assert_int_equal(vc_row_to_inode(&bad, sizeof(bad), &got), -EUCLEAN);
}

static void test_xattrs(void **state VC_UNUSED)
{
	struct vc_inode inode = { .xattrs = calloc(1, sizeof(struct vc_xattrs)) };
	struct vc_xattr *x;

	assert_non_null(inode.xattrs);
	assert_int_equal(vc_xattrs_apply(&inode, "user.a", 6, "1", 1), 0);
	assert_int_equal(vc_xattrs_apply(&inode, "user.ab", 7, "", 0), 0);
	assert_int_equal(vc_xattrs_apply(&inode, "user.a", 6, "22", 2), 0);
	x = vc_xattrs_find(&inode, "user.a", 6);
	assert_non_null(x);
	assert_int_equal(x->len, 2);
	assert_memory_equal(x->value, "22", 2);
	assert_int_equal(vc_xattrs_find(&inode, "user.ab", 7)->len, 0);
	assert_null(vc_xattrs_find(&inode, "user.", 5));
	assert_int_equal(vc_xattrs_apply(&inode, "user.a", 6, NULL, 0), 0);
	assert_int_equal(vc_xattrs_apply(&inode, "user.none", 9, NULL, 0), 0);
	assert_null(vc_xattrs_find(&inode, "user.a", 6));
	assert_non_null(vc_xattrs_find(&inode, "user.ab", 7));
	vc_xattrs_free(inode.xattrs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_100000_entries),
		cmocka_unit_test(test_cookie_twice),
		cmocka_unit_test(test_inode_row),
		cmocka_unit_test(test_xattrs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
