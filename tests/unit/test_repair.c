/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows of a pool that is not open are made wrong by hand, one kind of damage after the other and then at random. The repair
 * leaves a pool that checks clean (or says what is left), in which every image that there was is found by a name, with
 * its content; a second repair finds nothing to do.
 */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "books.h"
#include "engine.h"
#include "map.h"
#include "model.h"
#include "repair.h"

#define IMAGES 5
#define SIZE (600u << 10)

/* ---- a pool with some of everything ---- */

struct fixture {
	char *dir, *pool_dir;
	struct vc_meta *meta;
	struct vc_meta_txn *txn;
	uint64_t images[IMAGES];  /* a, b (a clone of a), c, d/e, d/s/f */
	uint64_t hashes[IMAGES];
	uint64_t d, s, link;      /* directories d and d/s, symbolic link */
	uint64_t rng;
	unsigned found, left;
	char said[8192];
};

enum { A, B, C, E, F };

static void told_found(void *ctx, const char *text)
{
	struct fixture *f = ctx;

	f->found++;
	if (getenv("VC_TEST_MESSAGES"))
		fprintf(stderr, "found: %s\n", text);
}

static void told_left(void *ctx, const char *text)
{
	struct fixture *f = ctx;

	f->left++;
	if (getenv("VC_TEST_MESSAGES"))
		fprintf(stderr, "left: %s\n", text);
}

static void told(void *ctx, const char *text)
{
	struct fixture *f = ctx;
	size_t len = strlen(f->said);

	snprintf(f->said + len, sizeof(f->said) - len, "%s\n", text);
	if (getenv("VC_TEST_MESSAGES"))
		fprintf(stderr, "repair: %s\n", text);
}

static uint64_t hash_of(struct vc_inode *inode)
{
	struct model_data data = { .n = 0 };
	uint64_t hash;

	assert_int_equal(model_load_data(inode, &data), 0);
	hash = model_hash(&data);
	model_free(&data);
	return hash;
}

static struct vc_inode *make(struct vc_inode *dir, const char *name, uint32_t mode, uint64_t *ret_ino)
{
	struct vc_inode *inode;

	assert_int_equal(engine_create(dir, name, mode, S_ISLNK(mode) ? "somewhere" : NULL, &inode), 0);
	*ret_ino = vc_inode_ino(inode);
	return inode;
}

static void fill(struct fixture *f, struct vc_inode *inode)
{
	uint64_t *buf = malloc(SIZE);

	assert_non_null(buf);
	for (size_t i = 0; i < SIZE / 8; i++)
		buf[i] = vc_unit_random(&f->rng);
	for (size_t at = 0; at < SIZE; at += 32768)
		assert_int_equal(engine_write(inode, (uint8_t *)buf + at, VC_MIN((size_t)32768, SIZE - at), at, 0), 0);
	free(buf);
}

static void make_content(struct fixture *f, struct vc_pool *pool)
{
	struct vc_inode *root = engine_root(pool), *in[IMAGES], *d, *s, *link;

	d = make(root, "d", S_IFDIR | 0755, &f->d);
	s = make(d, "s", S_IFDIR | 0755, &f->s);
	link = make(root, "link", S_IFLNK | 0777, &f->link);
	in[A] = make(root, "a", S_IFREG | 0640, &f->images[A]);
	fill(f, in[A]);
	assert_int_equal(engine_clone(in[A], root, "b", &in[B]), 0);
	f->images[B] = vc_inode_ino(in[B]);
	assert_int_equal(engine_write(in[B], "other", 5, 70000, 0), 0);
	in[C] = make(root, "c", S_IFREG | 0640, &f->images[C]);
	in[E] = make(d, "e", S_IFREG | 0640, &f->images[E]);
	in[F] = make(s, "f", S_IFREG | 0640, &f->images[F]);
	fill(f, in[E]);
	fill(f, in[F]);
	assert_int_equal(engine_link(in[A], d, "hard"), 0);
	for (unsigned i = 0; i < IMAGES; i++) {
		f->hashes[i] = hash_of(in[i]);
		vc_inode_put(in[i]);
	}
	vc_inode_put(link);
	vc_inode_put(s);
	vc_inode_put(d);
	vc_inode_put(root);
}

static void start(struct fixture *f, uint64_t seed)
{
	struct vc_pool_geometry geometry;
	struct vc_pool *pool;

	*f = (struct fixture){ .rng = seed };
	engine_geometry(&seed, &geometry);
	f->dir = books_tmpdir();
	assert_true(f->dir && asprintf(&f->pool_dir, "%s/pool", f->dir) > 0);
	assert_int_equal(vc_pool_create(vc_io_posix(), f->pool_dir, &geometry), 0);
	pool = engine_open(vc_io_posix(), f->pool_dir, ENGINE_DESTAGE_NEVER);
	make_content(f, pool);
	engine_close(pool);
}

static void end(struct fixture *f)
{
	free(f->pool_dir);
	vc_unit_rmdir(f->dir);
}

/* ---- changing rows ---- */

static void begin(struct fixture *f)
{
	struct vc_meta_params params = { .io = vc_io_posix(), .dir = books_path(f->pool_dir, "meta") };

	assert_int_equal(vc_meta_open(&params, &f->meta), 0);
	assert_int_equal(vc_meta_write_begin(f->meta, &f->txn), 0);
}

static void commit(struct fixture *f)
{
	assert_int_equal(vc_meta_commit(f->txn), 0);
	vc_meta_close(f->meta);
}

static size_t key_of(uint8_t *key, char kind, uint64_t ino, const char *name)
{
	key[0] = (uint8_t)kind;
	vc_be64_put(key + 1, ino);
	memcpy(key + 9, name, strlen(name));
	return 9 + strlen(name);
}

static void get_row(struct fixture *f, char kind, uint64_t ino, const char *name, void *ret, size_t len)
{
	uint8_t key[VC_ROW_KEY_MAX];
	const void *value;
	size_t value_len;

	assert_int_equal(vc_meta_get(f->txn, VC_DB_CAT, key, key_of(key, kind, ino, name), &value, &value_len), 0);
	assert_int_equal(value_len, len);
	memcpy(ret, value, len);
}

static void put_row(struct fixture *f, char kind, uint64_t ino, const char *name, const void *value, size_t len)
{
	uint8_t key[VC_ROW_KEY_MAX];

	assert_int_equal(vc_meta_put(f->txn, VC_DB_CAT, key, key_of(key, kind, ino, name), value, len), 0);
}

static void del_row(struct fixture *f, char kind, uint64_t ino, const char *name)
{
	uint8_t key[VC_ROW_KEY_MAX];

	assert_int_equal(vc_meta_del(f->txn, VC_DB_CAT, key, key_of(key, kind, ino, name)), 0);
}

static void set_inode(struct fixture *f, uint64_t ino, void (*change)(struct vc_disk_inode *i))
{
	struct vc_disk_inode i;

	get_row(f, 'I', ino, "", &i, sizeof(i));
	change(&i);
	put_row(f, 'I', ino, "", &i, sizeof(i));
}

static void set_state(struct fixture *f, void (*change)(struct vc_disk_state *s))
{
	struct vc_disk_state s;
	const void *value;
	size_t len;

	assert_int_equal(vc_meta_get(f->txn, VC_DB_CAT, "GS", 2, &value, &len), 0);
	memcpy(&s, value, sizeof(s));
	change(&s);
	assert_int_equal(vc_meta_put(f->txn, VC_DB_CAT, "GS", 2, &s, sizeof(s)), 0);
}

static void add_dirent(struct fixture *f, uint64_t dir, const char *name, uint64_t ino, uint64_t cookie, uint32_t type)
{
	struct vc_disk_dirent d = { .ino = vc_le64_of(ino), .cookie = vc_le64_of(cookie), .type = vc_le32_of(type) };

	put_row(f, 'D', dir, name, &d, sizeof(d));
}

/* ---- kinds of damage ---- */

static void change_nlink(struct vc_disk_inode *i) { i->nlink = vc_le32_of(7); }
static void change_zero_links(struct vc_disk_inode *i) { i->nlink = vc_le32_of(0); }
static void change_size(struct vc_disk_inode *i) { i->size = vc_le64_of(5000); }
static void change_cookie(struct vc_disk_inode *i) { i->next_cookie = vc_le64_of(16); }
static void change_parent(struct vc_disk_inode *i) { i->parent = vc_le64_of(12345); }
static void change_to_fifo(struct vc_disk_inode *i) { i->mode = vc_le32_of(S_IFIFO | 0600); }
static void change_counters(struct vc_disk_state *s)
{
	s->next_ino = s->next_node = s->next_tag = s->next_segno = s->next_content = vc_le64_of(1);
}
static void change_images(struct vc_disk_state *s) { s->images = vc_le64_of(77); }

static void links_wrong(struct fixture *f)
{
	set_inode(f, f->images[A], change_nlink);
	set_inode(f, f->d, change_nlink);
	set_inode(f, VC_ROOT_INO, change_nlink);
}

static void links_zero(struct fixture *f) { set_inode(f, f->images[A], change_zero_links); }
static void orphan_with_name(struct fixture *f) { put_row(f, 'O', f->images[A], "", "", 0); }

static void deleted_with_name(struct fixture *f)
{
	orphan_with_name(f);
	set_inode(f, f->images[A], change_zero_links);
}

static void names_lost(struct fixture *f)
{
	del_row(f, 'D', VC_ROOT_INO, "c");
	del_row(f, 'D', VC_ROOT_INO, "d");
}

static void lost_and_zero(struct fixture *f)
{
	del_row(f, 'D', VC_ROOT_INO, "c");
	set_inode(f, f->images[C], change_zero_links);
}

static void counters_low(struct fixture *f) { set_state(f, change_counters); }
static void images_miscounted(struct fixture *f) { set_state(f, change_images); }
static void size_small(struct fixture *f) { set_inode(f, f->images[E], change_size); }
static void offsets_low(struct fixture *f) { set_inode(f, f->d, change_cookie); }
static void parent_wrong(struct fixture *f) { set_inode(f, f->s, change_parent); }
static void inode_gone(struct fixture *f) { del_row(f, 'I', f->images[E], ""); }
static void dir_inode_gone(struct fixture *f) { del_row(f, 'I', f->d, ""); }
static void root_gone(struct fixture *f) { del_row(f, 'I', VC_ROOT_INO, ""); }
static void link_inode_gone(struct fixture *f) { del_row(f, 'I', f->link, ""); }
static void target_gone(struct fixture *f) { del_row(f, 'L', f->link, ""); }
static void target_of_file(struct fixture *f) { put_row(f, 'L', f->images[C], "", "nowhere", 7); }
static void image_is_fifo(struct fixture *f) { set_inode(f, f->images[E], change_to_fifo); }
static void empty_image_gone(struct fixture *f) { del_row(f, 'M', f->images[C], ""); }

static void dangling(struct fixture *f)
{
	add_dirent(f, f->d, "ghost", 5000, 900, S_IFREG);
	add_dirent(f, VC_ROOT_INO, "ghost2", 5000, 901, S_IFREG);
}

static void dirent_of_file(struct fixture *f) { add_dirent(f, f->images[C], "inside", f->images[A], 20, S_IFREG); }

static void type_wrong(struct fixture *f)
{
	add_dirent(f, f->d, "e", f->images[E], 50, S_IFIFO);
	add_dirent(f, f->d, "s", f->s, 51, S_IFREG);
}

static void offsets_equal(struct fixture *f)
{
	add_dirent(f, f->d, "e", f->images[E], 30, S_IFREG);
	add_dirent(f, f->d, "s", f->s, 30, S_IFDIR);
}

static void two_parents(struct fixture *f) { add_dirent(f, VC_ROOT_INO, "s2", f->s, 500, S_IFDIR); }
static void root_named(struct fixture *f) { add_dirent(f, f->s, "top", VC_ROOT_INO, 500, S_IFDIR); }

static void in_a_ring(struct vc_disk_inode *i, uint64_t parent) { i->parent = vc_le64_of(parent); }

static void ring(struct fixture *f)
{
	struct vc_disk_inode i;

	del_row(f, 'D', VC_ROOT_INO, "d");
	add_dirent(f, f->s, "d", f->d, 40, S_IFDIR);
	get_row(f, 'I', f->d, "", &i, sizeof(i));
	in_a_ring(&i, f->s);
	put_row(f, 'I', f->d, "", &i, sizeof(i));
}

static void height_wrong(struct fixture *f)
{
	struct vc_disk_image m;

	get_row(f, 'M', f->images[A], "", &m, sizeof(m));
	m.height = vc_le32_of(4);
	put_row(f, 'M', f->images[A], "", &m, sizeof(m));
	get_row(f, 'M', f->images[C], "", &m, sizeof(m));
	m.height = vc_le32_of(3);
	put_row(f, 'M', f->images[C], "", &m, sizeof(m));
}

/* b has more than a leaf, so its root is an inner node. */
static void figures_wrong(struct fixture *f)
{
	struct vc_disk_image m;
	struct vc_node node;
	uint8_t buf[VC_NODE_VALUE_MAX];
	uint64_t id;

	get_row(f, 'M', f->images[A], "", &m, sizeof(m));
	id = vc_le64_get(m.root);
	assert_int_equal(vc_map_node_read(f->txn, id, &node), 0);
	if (node.level == 0) { /* give it one */
		struct vc_node inner = { .kind = VC_NODE_INNER, .level = 1, .tag = node.tag, .mapped = node.mapped + 3, .slots = { id } };

		assert_int_equal(vc_meta_node_put(f->txn, 4000, buf, vc_node_encode(&inner, buf)), 0);
		m.root = vc_le64_of(4000);
		m.height = vc_le32_of(2);
		put_row(f, 'M', f->images[A], "", &m, sizeof(m));
		return;
	}
	node.mapped += 3;
	assert_int_equal(vc_meta_node_put(f->txn, id, buf, vc_node_encode(&node, buf)), 0);
}

static void leftovers(struct fixture *f)
{
	static const struct vc_disk_exclusive none;

	put_row(f, 'O', 7000, "", "", 0);
	put_row(f, 'E', 7001, "", &none, sizeof(none));
	put_row(f, 'X', 7002, "user.x", "kept", 4);
}

/* What nobody can make good: it stays, and is told. */
static void image_row_gone(struct fixture *f) { del_row(f, 'M', f->images[E], ""); }

static void node_gone(struct fixture *f)
{
	struct vc_disk_image m;

	get_row(f, 'M', f->images[E], "", &m, sizeof(m));
	assert_int_equal(vc_meta_node_del(f->txn, vc_le64_get(m.root)), 0);
}

struct damage {
	const char *name;
	void (*make)(struct fixture *f);
	const char *says;      /* what a repair must say; NULL: nothing is repaired */
	int lost;              /* image whose content cannot be read any more, -1: none */
};

static const struct damage damages[] = {
	{ "links wrong", links_wrong, "link count 7 becomes 2", -1 },
	{ "no links", links_zero, "", -1 },
	{ "orphan with a name", orphan_with_name, "is not to be deleted", -1 },
	{ "to be deleted, with a name", deleted_with_name, "is not to be deleted", -1 },
	{ "names lost", names_lost, "lost+found", -1 },
	{ "name lost, no links", lost_and_zero, "lost+found", -1 },
	{ "counters low", counters_low, "the next content name", -1 },
	{ "images miscounted", images_miscounted, "images are counted now", -1 },
	{ "size small", size_small, "where its map ends", -1 },
	{ "offsets low", offsets_low, "next offset", -1 },
	{ "parent wrong", parent_wrong, "its parent is", -1 },
	{ "inode gone", inode_gone, "made again around its map", -1 },
	{ "directory's inode gone", dir_inode_gone, "made again around its entries", -1 },
	{ "root gone", root_gone, "directory 1 is made again", -1 },
	{ "link's inode gone", link_inode_gone, "made again around its target", -1 },
	{ "target gone", target_gone, "its target is lost", -1 },
	{ "target of a file", target_of_file, "user.vclone.target", -1 },
	{ "image is a fifo", image_is_fifo, "its map goes to the new image", -1 },
	{ "empty image's row gone", empty_image_gone, "is empty", -1 },
	{ "dangling names", dangling, "does not exist", -1 },
	{ "entry in a file", dirent_of_file, "is taken away", -1 },
	{ "types wrong", type_wrong, "gets the type", -1 },
	{ "offsets equal", offsets_equal, "an offset of its own", -1 },
	{ "two parents", two_parents, "is taken away", -1 },
	{ "the root has a name", root_named, "is taken away", -1 },
	{ "ring of directories", ring, "lies within itself", -1 },
	{ "height wrong", height_wrong, "the height of its map", -1 },
	{ "figures wrong", figures_wrong, "figures are computed again", -1 },
	{ "leftovers", leftovers, "are removed", -1 },
	{ "image's row gone", image_row_gone, NULL, E },
	{ "node gone", node_gone, NULL, E },
};

/* ---- repair and look ---- */

static void repair(struct fixture *f, struct vc_repair_result *ret)
{
	struct vc_repair_options o = { .check = { .found = told_found, .ctx = f }, .say = told, .left = told_left };

	f->found = f->left = 0;
	f->said[0] = '\0';
	assert_int_equal(vc_repair_pool(vc_io_posix(), f->pool_dir, &o, ret), 0);
	assert_int_equal(f->found, ret->before.findings);
}

struct reachable {
	uint64_t inos[100];
	size_t n;
	uint64_t hashes[100];
};

static int walk_one(void *ctx, const struct vc_dirent *entry)
{
	struct reachable *ret = ctx;

	assert_true(ret->n < VC_ARRAY_LEN(ret->inos));
	if (strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0)
		ret->inos[ret->n++] = entry->ino;
	return 0;
}

static void walk(struct vc_pool *pool, struct vc_inode *dir, struct reachable *ret)
{
	size_t from = ret->n, end;

	assert_int_equal(vc_names_readdir(dir, 0, walk_one, ret), 0);
	end = ret->n;
	for (size_t i = from; i < end; i++) {
		struct vc_inode *inode;
		struct vc_attr attr;

		assert_int_equal(vc_inode_get(pool, ret->inos[i], &inode), 0);
		vc_inode_attr(inode, &attr);
		ret->hashes[i] = S_ISREG(attr.mode) ? hash_of(inode) : 0;
		if (S_ISDIR(attr.mode))
			walk(pool, inode, ret);
		vc_inode_put(inode);
	}
}

/* Every image's content is found by some name. */
static void all_is_there(struct fixture *f, int lost)
{
	struct vc_pool *pool = engine_open(vc_io_posix(), f->pool_dir, ENGINE_DESTAGE_NEVER);
	struct vc_inode *root = engine_root(pool);
	struct reachable *all = calloc(1, sizeof(*all));

	assert_non_null(all);
	walk(pool, root, all);
	for (int i = 0; i < IMAGES; i++) {
		bool found = i == lost || i == C; /* c is empty */

		for (size_t k = 0; k < all->n && !found; k++)
			found = all->hashes[k] == f->hashes[i];
		if (!found)
			fail_msg("the content of image %d is not there any more", i);
	}
	free(all);
	vc_inode_put(root);
	engine_close(pool);
}

static void one_damage(const struct damage *d, uint64_t seed)
{
	struct vc_repair_result result;
	struct fixture f;
	size_t len_before, len_kept;
	uint8_t *before, *kept;
	char *path;

	start(&f, seed);
	begin(&f);
	d->make(&f);
	commit(&f);
	before = books_read_file(books_path(f.pool_dir, "meta/data.mdb"), &len_before);
	repair(&f, &result);
	if (result.before.findings == 0)
		fail_msg("%s: nothing is found", d->name);
	if (d->says && (result.fixed == 0 || !strstr(f.said, d->says)))
		fail_msg("%s: does not say '%s' but: %s", d->name, d->says, f.said);
	if ((result.after.findings != 0) != (d->says == NULL) || f.left != result.after.findings)
		fail_msg("%s: %llu findings are left", d->name, (unsigned long long)result.after.findings);
	assert_int_equal(result.replaced, result.fixed > 0);
	/* what was there before is kept, byte by byte */
	assert_true(asprintf(&path, "%s/backup/%s", f.pool_dir, result.kept) > 0);
	kept = books_read_file(path, &len_kept);
	assert_int_equal(len_before, len_kept);
	assert_memory_equal(before, kept, len_kept);
	repair(&f, &result);
	if (result.fixed || (d->says && result.before.findings))
		fail_msg("%s: the second repair: %llu repaired, %llu findings", d->name, (unsigned long long)result.fixed,
			 (unsigned long long)result.before.findings);
	if (d->lost < 0)
		all_is_there(&f, d->lost);
	free(path);
	free(before);
	free(kept);
	end(&f);
}

static void test_damages(void **state VC_UNUSED)
{
	for (size_t i = 0; i < VC_ARRAY_LEN(damages); i++)
		one_damage(&damages[i], i);
}

/* An image whose map is lost does not read as zeros. */
static void test_not_zeros(void **state VC_UNUSED)
{
	struct vc_inode *inode, *dir;
	struct vc_pool *pool;
	uint8_t buf[4096];
	struct fixture f;
	ssize_t r;

	start(&f, 3);
	begin(&f);
	node_gone(&f);
	image_row_gone(&f);
	commit(&f);
	pool = engine_open(vc_io_posix(), f.pool_dir, ENGINE_DESTAGE_NEVER);
	dir = engine_root(pool);
	r = vc_inode_get(pool, f.images[E], &inode);
	if (r == 0) {
		r = vc_volume_read(inode, buf, sizeof(buf), 0);
		vc_inode_put(inode);
	}
	assert_true(r < 0);
	vc_inode_put(dir);
	engine_close(pool);
	end(&f);
}

/* What is in the log when the repair begins is there after it, and the new numbers do not meet those of the log. */
static void test_with_log(void **state VC_UNUSED)
{
	struct vc_repair_result result;
	struct vc_inode *root, *inode;
	struct vc_pool *pool;
	struct fixture f;
	uint64_t ino;

	start(&f, 4);
	begin(&f);
	names_lost(&f);
	commit(&f);
	pool = engine_open(vc_io_posix(), f.pool_dir, ENGINE_DESTAGE_NEVER);
	root = engine_root(pool);
	inode = make(root, "new", S_IFREG | 0600, &ino);
	assert_int_equal(engine_write(inode, "hello", 5, 0, 0), 0);
	vc_inode_put(inode);
	vc_inode_put(root);
	vc_pool_abandon(pool);
	repair(&f, &result);
	assert_int_equal(result.after.findings, 0);
	all_is_there(&f, -1);
	pool = engine_open(vc_io_posix(), f.pool_dir, ENGINE_DESTAGE_NEVER);
	root = engine_root(pool);
	inode = engine_lookup(root, "new");
	assert_non_null(inode);
	assert_int_equal(vc_inode_ino(inode), ino);
	vc_inode_put(inode);
	vc_inode_put(root);
	engine_close(pool);
	end(&f);
}

static void random_damage(struct fixture *f, struct books *b)
{
	size_t n = 1 + vc_unit_below(&f->rng, 4);

	while (n--) {
		struct books_row *row = &b->rows[vc_unit_below(&f->rng, b->n)];
		uint8_t value[4096];
		const void *now;
		size_t len;

		if (row->key[0] == VC_ROW_IMAGE || vc_meta_get(f->txn, VC_DB_CAT, row->key, row->key_len, &now, &len) < 0)
			continue;
		memcpy(value, now, len);
		if (row->key[0] == VC_ROW_INODE && vc_unit_below(&f->rng, 2)) {
			struct vc_disk_inode *i = (struct vc_disk_inode *)(void *)value;

			i->nlink = vc_le32_of((uint32_t)vc_unit_below(&f->rng, 3));
			i->parent = vc_le64_of(vc_unit_below(&f->rng, 25));
			i->next_cookie = vc_le64_of(16 + vc_unit_below(&f->rng, 5));
			assert_int_equal(vc_meta_put(f->txn, VC_DB_CAT, row->key, row->key_len, value, len), 0);
		} else if (row->key[0] == VC_ROW_DIRENT && vc_unit_below(&f->rng, 2)) {
			struct vc_disk_dirent *d = (struct vc_disk_dirent *)(void *)value;

			d->ino = vc_le64_of(vc_unit_below(&f->rng, 26));
			assert_int_equal(vc_meta_put(f->txn, VC_DB_CAT, row->key, row->key_len, value, len), 0);
		} else {
			assert_int_equal(vc_meta_del(f->txn, VC_DB_CAT, row->key, row->key_len), 0);
		}
	}
}

static void test_random(void **state VC_UNUSED)
{
	uint64_t rng = vc_unit_seed();

	for (unsigned i = 0; i < 40; i++) {
		struct vc_repair_result result;
		struct books b;
		struct fixture f;

		start(&f, vc_unit_random(&rng));
		books_load(vc_io_posix(), f.pool_dir, &b);
		begin(&f);
		random_damage(&f, &b);
		commit(&f);
		repair(&f, &result);
		if (result.after.findings)
			fail_msg("%llu findings are left after: %s", (unsigned long long)result.after.findings, f.said);
		repair(&f, &result);
		assert_int_equal(result.fixed + result.before.findings, 0);
		all_is_there(&f, -1);
		books_free(&b);
		end(&f);
	}
}

#define with_messages(f) cmocka_unit_test_setup_teardown(f, engine_setup, engine_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_messages(test_damages), with_messages(test_not_zeros), with_messages(test_with_log), with_messages(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
