/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dir: the entries of one directory in memory.
 *
 *   table: open hash of entries by name        order: (cookie, entry) ascending; a removed entry leaves a NULL
 *
 * Cookies only grow, so a new entry goes to the end of `order`, and readdir from a cookie is a binary search.
 */
#include "config.h"

#include <stdlib.h>

#include "catalog.h"
#include "checksum.h"
#include "msg.h"

struct dir_place {
	uint64_t cookie;
	struct vc_dir_entry *entry; /* NULL: removed */
};

struct vc_dir {
	struct vc_dir_entry **table; /* open addressing with linear probing; size a power of two */
	size_t table_size, count;
	struct dir_place *order;
	size_t norder, order_cap;
};

static size_t dir_hash(const struct vc_dir *d, const char *name, size_t len)
{
	return vc_sum64(name, len, 0) & (d->table_size - 1);
}

static bool dir_entry_is(const struct vc_dir_entry *e, const char *name, size_t len)
{
	return e->name_len == len && memcmp(e->name, name, len) == 0;
}

/* Where the name is, or the free place where it belongs. */
static size_t dir_slot(const struct vc_dir *d, const char *name, size_t len)
{
	size_t i = dir_hash(d, name, len);

	while (d->table[i] && !dir_entry_is(d->table[i], name, len))
		i = (i + 1) & (d->table_size - 1);
	return i;
}

static int dir_grow(struct vc_dir *d)
{
	struct vc_dir_entry **old = d->table;
	size_t old_size = d->table_size;

	if ((d->count + 1) * 4 <= d->table_size * 3)
		return 0;
	d->table_size = old_size ? old_size * 2 : 8;
	d->table = calloc(d->table_size, sizeof(struct vc_dir_entry *));
	if (!d->table) {
		d->table = old;
		d->table_size = old_size;
		return -ENOMEM;
	}
	for (size_t i = 0; i < old_size; i++)
		if (old[i])
			d->table[dir_slot(d, old[i]->name, old[i]->name_len)] = old[i];
	free(old);
	return 0;
}

static size_t dir_order_find(const struct vc_dir *d, uint64_t cookie)
{
	size_t low = 0, high = d->norder;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (d->order[mid].cookie < cookie)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void dir_compact(struct vc_dir *d)
{
	size_t kept = 0;

	for (size_t i = 0; i < d->norder; i++)
		if (d->order[i].entry)
			d->order[kept++] = d->order[i];
	d->norder = kept;
}

static int dir_order_add(struct vc_dir *d, struct vc_dir_entry *entry)
{
	size_t at;

	if (d->norder == d->order_cap && d->count < d->norder / 2)
		dir_compact(d);
	if (vc_array_room(&d->order, d->norder, &d->order_cap, sizeof(*d->order)) < 0)
		return -ENOMEM;
	at = dir_order_find(d, entry->cookie);
	if (at < d->norder && d->order[at].cookie == entry->cookie) {
		if (d->order[at].entry)
			return -EUCLEAN;
		d->order[at].entry = entry;
		return 0;
	}
	memmove(&d->order[at + 1], &d->order[at], (d->norder - at) * sizeof(*d->order));
	d->order[at] = (struct dir_place){ entry->cookie, entry };
	d->norder++;
	return 0;
}

static void dir_order_del(struct vc_dir *d, const struct vc_dir_entry *entry)
{
	size_t at = dir_order_find(d, entry->cookie);

	if (at < d->norder && d->order[at].entry == entry)
		d->order[at].entry = NULL;
}

const struct vc_dir_entry *vc_dir_find(const struct vc_inode *dir, const char *name, size_t len)
{
	const struct vc_dir *d = dir->dir;

	return d && d->table_size ? d->table[dir_slot(d, name, len)] : NULL;
}

const struct vc_dir_entry *vc_dir_after(const struct vc_inode *dir, uint64_t cookie)
{
	const struct vc_dir *d = dir->dir;

	for (size_t i = dir_order_find(d, cookie + 1); i < d->norder; i++)
		if (d->order[i].entry)
			return d->order[i].entry;
	return NULL;
}

size_t vc_dir_count(const struct vc_inode *dir) { return dir->dir ? dir->dir->count : 0; }

/* Linear probing: close the gap by moving later entries of the same run back. */
static void dir_table_del(struct vc_dir *d, size_t i)
{
	size_t mask = d->table_size - 1, j = i;

	d->table[i] = NULL;
	for (;;) {
		size_t home;

		j = (j + 1) & mask;
		if (!d->table[j])
			return;
		home = dir_hash(d, d->table[j]->name, d->table[j]->name_len);
		if (((j - home) & mask) >= ((j - i) & mask)) {
			d->table[i] = d->table[j];
			d->table[j] = NULL;
			i = j;
		}
	}
}

void vc_dir_del(struct vc_inode *dir, const char *name, size_t len)
{
	struct vc_dir *d = dir->dir;
	size_t i;

	if (!d || !d->table_size)
		return;
	i = dir_slot(d, name, len);
	if (!d->table[i])
		return;
	dir_order_del(d, d->table[i]);
	free(d->table[i]);
	dir_table_del(d, i);
	d->count--;
}

int vc_dir_put(struct vc_inode *dir, const char *name, size_t len, const struct vc_disk_dirent *value)
{
	struct vc_dir *d = dir->dir;
	struct vc_dir_entry *e;
	int r;

	vc_dir_del(dir, name, len);
	if (dir_grow(d) < 0)
		return -ENOMEM;
	e = malloc(sizeof(*e) + len + 1);
	if (!e)
		return -ENOMEM;
	e->ino = vc_le64_get(value->ino);
	e->cookie = vc_le64_get(value->cookie);
	e->type = vc_le32_get(value->type);
	e->name_len = (uint16_t)len;
	memcpy(e->name, name, len);
	e->name[len] = '\0';
	r = dir_order_add(d, e);
	if (r < 0) {
		free(e);
		return r;
	}
	d->table[dir_slot(d, name, len)] = e;
	d->count++;
	return 0;
}

struct dir_loading {
	struct vc_inode *dir;
	struct vc_dir_row {
		struct vc_disk_dirent value;
		uint16_t len;
		char name[VC_NAME_MAX];
	} *rows;
	size_t n, cap;
};

static int dir_load_row(void *ctx, const void *key, size_t key_len, const void *value, size_t len)
{
	struct dir_loading *l = ctx;
	struct vc_dir_row *row;

	if (key_len <= 9 || key_len > 9 + VC_NAME_MAX || len != sizeof(struct vc_disk_dirent))
		return -EUCLEAN;
	if (vc_array_room(&l->rows, l->n, &l->cap, sizeof(*l->rows)) < 0)
		return -ENOMEM;
	row = &l->rows[l->n++];
	memcpy(&row->value, value, len);
	row->len = (uint16_t)(key_len - 9);
	memcpy(row->name, (const uint8_t *)key + 9, row->len);
	return 0;
}

static int dir_row_compare(const void *a, const void *b)
{
	uint64_t x = vc_le64_get(((const struct vc_dir_row *)a)->value.cookie);
	uint64_t y = vc_le64_get(((const struct vc_dir_row *)b)->value.cookie);

	return x < y ? -1 : x > y;
}

/* Entries come in name order and are wanted in cookie order. */
static int dir_fill(struct vc_catalog *cat, struct dir_loading *l)
{
	uint8_t prefix[9];
	size_t prefix_len = vc_row_key_ino(prefix, VC_ROW_DIRENT, l->dir->ino);
	struct vc_meta_txn *txn;
	int r = vc_meta_read_begin(cat->meta, &txn);

	if (r < 0)
		return r;
	r = vc_meta_scan(txn, VC_DB_CAT, prefix, prefix_len, NULL, 0, dir_load_row, l);
	vc_meta_end(txn);
	if (r == 0 && l->n)
		qsort(l->rows, l->n, sizeof(*l->rows), dir_row_compare);
	for (size_t i = 0; r == 0 && i < l->n; i++)
		r = vc_dir_put(l->dir, l->rows[i].name, l->rows[i].len, &l->rows[i].value);
	if (r == -EUCLEAN)
		vc_err("directory inode %llu: an entry in LMDB makes no sense; run vclone check", (unsigned long long)l->dir->ino);
	return r;
}

int vc_dir_load(struct vc_catalog *cat, struct vc_inode *dir)
{
	struct dir_loading l = { .dir = dir };
	int r;

	if (dir->dir)
		return 0;
	dir->dir = calloc(1, sizeof(*dir->dir));
	if (!dir->dir)
		return -ENOMEM;
	r = dir_fill(cat, &l);
	free(l.rows);
	if (r < 0) {
		vc_dir_free(dir->dir);
		dir->dir = NULL;
	}
	return r;
}

void vc_dir_free(struct vc_dir *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < d->table_size; i++)
		free(d->table[i]);
	free(d->table);
	free(d->order);
	free(d);
}
