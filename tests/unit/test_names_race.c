/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What others change between the look at names and rights and the locks under which an operation counts. The operation is stopped there,
 * where it asks for space in the log (or, copying a range, gives back what it does not need); the other one runs to its end; then
 * it goes on.
 */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "place.h"
#include "pool_impl.h"
#include "volume_impl.h"

#define BLOCK VC_BLOCK_SIZE

struct race {
	struct place *place;
	struct vc_inode *dir, *a, *b; /* a, b: images of these names in the directory "dir" */
};

/* ---- between look and lock ---- */

int __real_vc_pool_admit_wait(struct vc_pool *pool, enum vc_log_class class, size_t len);
int __wrap_vc_pool_admit_wait(struct vc_pool *pool, enum vc_log_class class, size_t len);
int __real_vol_fit_admission(struct vc_pool *pool, struct vc_record *rec, size_t admitted);
int __wrap_vol_fit_admission(struct vc_pool *pool, struct vc_record *rec, size_t admitted);

static void (*in_admission)(struct race *p), (*in_fitting)(struct race *p); /* called once */
static struct race *race;

static void meanwhile(void (**fn)(struct race *p))
{
	void (*once)(struct race *p) = *fn;

	*fn = NULL;
	if (once)
		once(race);
}

int __wrap_vc_pool_admit_wait(struct vc_pool *pool, enum vc_log_class class, size_t len)
{
	meanwhile(&in_admission);
	return __real_vc_pool_admit_wait(pool, class, len);
}

int __wrap_vol_fit_admission(struct vc_pool *pool, struct vc_record *rec, size_t admitted)
{
	meanwhile(&in_fitting);
	return __real_vol_fit_admission(pool, rec, admitted);
}

/* ---- a pool ---- */

static struct vc_inode *make(struct vc_inode *dir, const char *name, uint32_t mode)
{
	struct vc_inode *inode;

	assert_int_equal(engine_create(dir, name, mode, NULL, &inode), 0);
	return inode;
}

static int setup(void **state)
{
	struct race *p = calloc(1, sizeof(*p));
	void *place;

	*state = p;
	assert_non_null(p);
	place_setup(&place);
	p->place = place;
	p->dir = make(p->place->root, "dir", S_IFDIR | 0777);
	p->a = make(p->dir, "a", S_IFREG | 0644);
	p->b = make(p->dir, "b", S_IFREG | 0644);
	race = p;
	return 0;
}

static int teardown(void **state)
{
	struct race *p = *state;
	void *place = p->place;

	vc_inode_put(p->a);
	vc_inode_put(p->b);
	vc_inode_put(p->dir);
	place_close(p->place, false);
	place_teardown(&place);
	free(p);
	return 0;
}

static uint32_t links(struct vc_inode *inode)
{
	struct vc_attr attr;

	vc_inode_attr(inode, &attr);
	return attr.nlink;
}

/* The inode that a name in dir has; 0: there is none. */
static uint64_t named(struct race *p, const char *name)
{
	struct vc_inode *inode = engine_lookup(p->dir, name);
	uint64_t ino = inode ? vc_inode_ino(inode) : 0;

	if (inode)
		vc_inode_put(inode);
	return ino;
}

static void change_mode(struct vc_inode *inode, uint32_t mode)
{
	assert_int_equal(vc_attr_set(inode, &(struct vc_attr){ .mode = mode }, VC_SET_MODE), 0);
}

/* ---- clones by somebody who may not any more ---- */

static void close_source(struct race *p) { change_mode(p->a, 0600); }
static void close_dir(struct race *p) { change_mode(p->dir, 0755); }

static int many_name(void *ctx, uint32_t i, char *buf)
{
	(void)ctx;
	snprintf(buf, VC_NAME_MAX, "clone%u", i);
	return 0;
}

/* Clones of a, made by somebody who is looked at under the locks only. */
static int stranger_clones(struct race *p, bool source_is_open, bool many)
{
	struct vc_caller caller = { .uid = 2001, .gid = 2001 };
	struct vc_owner owner = { .uid = 2001, .gid = 2001, .caller = &caller, .source_is_open = source_is_open };
	struct vc_wait w;

	vc_wait_init(&w);
	if (many)
		return vc_wait_result(&w, vc_volume_clone_many(p->a, p->dir, 2, many_name, NULL, 0600, owner, &w.done));
	return vc_wait_result(&w, vc_volume_clone(p->a, p->dir, "clone0", 0600, owner, NULL, &w.done));
}

static void expect_clones(struct race *p, bool many, void (*fn)(struct race *p), bool source_is_open, int want)
{
	in_admission = fn;
	assert_int_equal(stranger_clones(p, source_is_open, many), want);
	assert_null(in_admission);
	assert_true(!named(p, "clone0") == (want < 0));
	assert_true(!named(p, "clone1") == (want < 0 || !many));
}

static void test_clone_source_closed(void **state)
{
	for (unsigned many = 0; many < 2; many++) {
		expect_clones(*state, many, close_source, false, -EACCES);
		change_mode(((struct race *)*state)->a, 0644);
	}
	expect_clones(*state, false, close_source, true, 0); /* who has it open has been let in */
}

static void test_clone_dir_closed(void **state)
{
	for (unsigned many = 0; many < 2; many++) {
		expect_clones(*state, many, close_dir, true, -EACCES);
		change_mode(((struct race *)*state)->dir, 0777);
	}
	expect_clones(*state, true, NULL, false, 0);
}

/* ---- names that mean something else now ---- */

static void move_b_over_a(struct race *p) { assert_int_equal(engine_rename(p->dir, "b", p->dir, "a", 0), 0); }

/* What goes is what has the name when it goes. */
static void test_remove_replaced(void **state)
{
	struct race *p = *state;

	in_admission = move_b_over_a;
	assert_int_equal(engine_unlink(p->dir, "a"), 0);
	assert_null(in_admission);
	assert_int_equal(named(p, "a"), 0);
	assert_int_equal(links(p->a), 0);
	assert_int_equal(links(p->b), 0);
}

static void replace_a_by_dir(struct race *p)
{
	assert_int_equal(engine_unlink(p->dir, "a"), 0);
	vc_inode_put(make(p->dir, "a", S_IFDIR | 0700));
}

static void test_remove_became_directory(void **state)
{
	struct race *p = *state;

	in_admission = replace_a_by_dir;
	assert_int_equal(engine_unlink(p->dir, "a"), -EISDIR);
	assert_int_equal(engine_rmdir(p->dir, "a"), 0);
}

static void test_rename_target_replaced(void **state)
{
	struct race *p = *state;
	struct vc_inode *c = make(p->dir, "c", S_IFREG | 0600);

	in_admission = move_b_over_a;
	assert_int_equal(engine_rename(p->dir, "c", p->dir, "a", 0), 0);
	assert_int_equal(named(p, "a"), vc_inode_ino(c));
	assert_int_equal(named(p, "c"), 0);
	assert_int_equal(links(c), 1);
	assert_int_equal(links(p->a), 0);
	assert_int_equal(links(p->b), 0);
	vc_inode_put(c);
}

static void test_rename_source_replaced(void **state)
{
	struct race *p = *state;

	in_admission = move_b_over_a;
	assert_int_equal(engine_rename(p->dir, "a", p->dir, "c", 0), 0);
	assert_int_equal(named(p, "a"), 0);
	assert_int_equal(named(p, "c"), vc_inode_ino(p->b));
	assert_int_equal(links(p->a), 0);
	assert_int_equal(links(p->b), 1);
}

static void remove_a(struct race *p) { assert_int_equal(engine_unlink(p->dir, "a"), 0); }

/* A name for what has just lost its last one would bring back what is being deleted. */
static void test_link_of_removed(void **state)
{
	struct race *p = *state;

	in_admission = remove_a;
	assert_int_equal(engine_link(p->a, p->dir, "c"), -ENOENT);
	assert_int_equal(named(p, "c"), 0);
	assert_int_equal(links(p->a), 0);
}

static void remove_dir(struct race *p)
{
	assert_int_equal(engine_unlink(p->dir, "a"), 0);
	assert_int_equal(engine_unlink(p->dir, "b"), 0);
	assert_int_equal(engine_rmdir(p->place->root, "dir"), 0);
}

/* A name in a directory that is gone would be nowhere. */
static void test_directory_removed(void **state)
{
	struct race *p = *state;

	in_admission = remove_dir;
	assert_int_equal(stranger_clones(p, true, false), -ENOENT);
	assert_int_equal(engine_create(p->dir, "c", S_IFREG | 0600, NULL, NULL), -ENOENT);
	assert_int_equal(engine_link(p->dir, p->dir, "c"), -ENOENT);
}

static void make_c(struct race *p) { vc_inode_put(make(p->dir, "c", S_IFREG | 0600)); }

static void test_name_taken(void **state)
{
	struct race *p = *state;
	uint64_t ino;

	in_admission = make_c;
	assert_int_equal(engine_link(p->a, p->dir, "c"), -EEXIST);
	ino = named(p, "c");
	assert_true(ino);
	assert_int_equal(engine_create(p->dir, "c", S_IFREG | 0600, NULL, NULL), -EEXIST);
	assert_int_equal(engine_clone(p->a, p->dir, "c", NULL), -EEXIST);
	assert_int_equal(named(p, "c"), ino);
	assert_int_equal(links(p->a), 1);
}

/* ---- a copy of everything, while the source grows ---- */

static void write_block(struct vc_inode *inode, uint64_t lba, int byte)
{
	uint8_t buf[BLOCK];

	memset(buf, byte, sizeof(buf));
	assert_int_equal(engine_write(inode, buf, sizeof(buf), lba * BLOCK, 0), 0);
}

static void grow_a(struct race *p) { write_block(p->a, 1, 2); }

/* What was all of the source is a part of it now: more than was asked for must not arrive. */
static void test_copy_of_grown(void **state)
{
	struct race *p = *state;
	struct vc_attr attr;
	uint64_t copied;

	write_block(p->a, 0, 1);
	in_fitting = grow_a;
	assert_int_equal(engine_copy_range(p->a, 0, p->b, 0, BLOCK, false, &copied), 0);
	assert_null(in_fitting);
	assert_int_equal(copied, BLOCK);
	vc_inode_attr(p->b, &attr);
	assert_int_equal(attr.size, BLOCK);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_clone_source_closed),
		TEST(test_clone_dir_closed),
		TEST(test_remove_replaced),
		TEST(test_remove_became_directory),
		TEST(test_rename_target_replaced),
		TEST(test_rename_source_replaced),
		TEST(test_link_of_removed),
		TEST(test_directory_removed),
		TEST(test_name_taken),
		TEST(test_copy_of_grown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
