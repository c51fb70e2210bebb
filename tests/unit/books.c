/* SPDX-License-Identifier: BSD-2-Clause */
/* books: see books.h. */
#include "config.h"
#include "unit.h"

#include <dirent.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "books.h"
#include "map.h"

struct books_reader {
	struct vc_meta_txn *txn;
	struct books *books;
};

static uint8_t *copy_of(const void *bytes, size_t len)
{
	uint8_t *copy = malloc(len + 1);

	assert(copy);
	if (len)
		memcpy(copy, bytes, len);
	return copy;
}

/* Its root is another node after a rebuild, with the same in it. */
static void figures_for_root(struct books_reader *b, struct books_row *row)
{
	struct vc_disk_image image;
	struct vc_node node;

	memcpy(&image, row->value, sizeof(image));
	if (!vc_le64_get(image.root))
		return;
	assert_int_equal(vc_map_node_read(b->txn, vc_le64_get(image.root), &node), 0);
	image.root = vc_le64_of(node.mapped << 32 | (node.tag == vc_le64_get(image.tag) ? node.own : 0));
	memcpy(row->value, &image, sizeof(image));
}

static int add_row(void *ctx, const void *key, size_t key_len, const void *value, size_t len)
{
	struct books_reader *b = ctx;
	struct books_row row = { key_len, len, NULL, NULL };
	uint8_t kind = *(const uint8_t *)key;

	if (kind == VC_ROW_STATE || kind == VC_ROW_SEGMENT || kind == VC_ROW_EXCLUSIVE)
		return 0;
	row.key = copy_of(key, key_len);
	row.value = copy_of(value, len);
	if (kind == VC_ROW_IMAGE)
		figures_for_root(b, &row);
	assert(vc_array_room(&b->books->rows, b->books->n, &b->books->cap, sizeof(row)) == 0);
	b->books->rows[b->books->n++] = row;
	return 0;
}

void books_load(struct vc_io *io, const char *pool_dir, struct books *ret)
{
	struct vc_meta_params params = { .io = io, .dir = books_path(pool_dir, "meta"), .read_only = true };
	struct books_reader b = { .books = ret };
	struct vc_meta *meta;

	*ret = (struct books){ .n = 0 };
	assert_int_equal(vc_meta_open(&params, &meta), 0);
	assert_int_equal(vc_meta_read_begin(meta, &b.txn), 0);
	assert_int_equal(vc_meta_scan(b.txn, VC_DB_CAT, NULL, 0, NULL, 0, add_row, &b), 0);
	vc_meta_end(b.txn);
	vc_meta_close(meta);
}

void books_free(struct books *b)
{
	for (size_t i = 0; i < b->n; i++) {
		free(b->rows[i].key);
		free(b->rows[i].value);
	}
	free(b->rows);
	*b = (struct books){ .n = 0 };
}

static bool same(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
	return a_len == b_len && memcmp(a, b, a_len) == 0;
}

static void print_row(const char *what, const struct books *b, size_t i)
{
	fprintf(stderr, "%s row %zu of %zu:", what, i, b->n);
	for (size_t k = 0; i < b->n && k < b->rows[i].key_len; k++)
		fprintf(stderr, k ? "%02x" : " %c ", b->rows[i].key[k]);
	fprintf(stderr, " =");
	for (size_t k = 0; i < b->n && k < b->rows[i].len; k++)
		fprintf(stderr, " %02x", b->rows[i].value[k]);
	fprintf(stderr, "\n");
}

bool books_same(const struct books *a, const struct books *b)
{
	for (size_t i = 0; i < VC_MAX(a->n, b->n); i++)
		if (i >= a->n || i >= b->n || !same(a->rows[i].key, a->rows[i].key_len, b->rows[i].key, b->rows[i].key_len) ||
		    !same(a->rows[i].value, a->rows[i].len, b->rows[i].value, b->rows[i].len)) {
			print_row("before", a, i);
			print_row("after", b, i);
			return false;
		}
	return true;
}

static void found(void *ctx, const char *text)
{
	if (*(bool *)ctx)
		fprintf(stderr, "finding: %s\n", text);
}

uint64_t books_check(struct vc_io *io, const char *pool_dir, bool loud, struct vc_check_result *ret)
{
	struct vc_check_options o = { .data = true, .log = true, .found = found, .ctx = &loud };
	struct vc_check_result mine;

	ret = ret ? ret : &mine;
	assert_int_equal(vc_check_pool(io, pool_dir, &o, ret), 0);
	return ret->findings;
}

char *books_tmpdir(void)
{
	static const char memory[] = "/dev/shm";
	struct statfs fs;

	if (!getenv("VC_TEST_MEMORY") && statfs(memory, &fs) == 0 && fs.f_type == TMPFS_MAGIC && access(memory, W_OK) == 0)
		assert(setenv("TMPDIR", memory, 1) == 0);
	return vc_unit_tmpdir();
}

uint8_t *books_read_file(const char *path, size_t *ret_len)
{
	FILE *f = fopen(path, "rb");
	uint8_t *bytes;
	long len;

	assert(f && fseek(f, 0, SEEK_END) == 0);
	len = ftell(f);
	assert(len >= 0 && fseek(f, 0, SEEK_SET) == 0);
	bytes = malloc((size_t)len + 1);
	assert(bytes && fread(bytes, 1, (size_t)len, f) == (size_t)len);
	fclose(f);
	*ret_len = (size_t)len;
	return bytes;
}

void books_write_file(const char *path, const void *bytes, size_t len)
{
	FILE *f = fopen(path, "wb");

	assert(f && fwrite(bytes, 1, len, f) == len);
	assert(fclose(f) == 0);
}

void books_copy_file(const char *from, const char *to)
{
	size_t len;
	uint8_t *bytes = books_read_file(from, &len);

	books_write_file(to, bytes, len);
	free(bytes);
}

const char *books_path(const char *dir, const char *name)
{
	static char paths[4][4096];
	static unsigned next;
	char *path = paths[next++ % 4];

	assert((size_t)snprintf(path, sizeof(paths[0]), "%s/%s", dir, name) < sizeof(paths[0]));
	return path;
}

size_t books_list(const char *dir, const char *suffix, uint64_t *rng, char *ret_path, size_t len)
{
	DIR *d = opendir(dir);
	struct dirent *de;
	size_t n = 0;

	while (d && (de = readdir(d))) {
		size_t name_len = strlen(de->d_name);

		if (name_len < strlen(suffix) || strcmp(de->d_name + name_len - strlen(suffix), suffix) != 0 || de->d_name[0] == '.')
			continue;
		if (vc_unit_below(rng, ++n) == 0) /* each with the same chance */
			assert((size_t)snprintf(ret_path, len, "%s/%s", dir, de->d_name) < len);
	}
	if (d)
		closedir(d);
	return n;
}
