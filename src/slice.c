/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "slice.h"

#include <stdlib.h>

#include "checksum.h"

struct vc_slice *vc_slice_new(void *owner, void (*destroy)(struct vc_slice *slice))
{
	struct vc_slice *slice = calloc(1, sizeof(*slice));

	if (!slice)
		return NULL;
	slice->owner = owner;
	slice->destroy = destroy;
	atomic_init(&slice->refs, 1);
	vc_mutex_init(&slice->lock, VC_LOCK_SLICE);
	vc_list_init(&slice->bases);
	vc_list_init(&slice->node);
	return slice;
}

void vc_slice_hold(void *slice) { atomic_fetch_add(&((struct vc_slice *)slice)->refs, 1); }

void vc_slice_release(void *arg)
{
	struct vc_slice *slice = arg;

	if (atomic_fetch_sub(&slice->refs, 1) == 1)
		slice->destroy(slice);
}

void vc_slice_section_free(struct vc_log_section *section)
{
	vc_slice_free(vc_container_of(section, struct vc_slice, section));
}

void vc_slice_free(struct vc_slice *slice)
{
	for (size_t i = 0; i < slice->table_size; i++) {
		struct vc_slice_row *row = slice->table[i];

		while (row) {
			struct vc_slice_row *next = row->next;

			free(row);
			row = next;
		}
	}
	for (size_t i = 0; i < slice->nimages; i++)
		vc_base_put(slice->images[i].base);
	free(slice->table);
	free(slice->images);
	free(slice->dirty);
	vc_mutex_fini(&slice->lock);
	free(slice);
}

static int table_grow(struct vc_slice *slice)
{
	size_t size = slice->table_size ? slice->table_size * 2 : 64;
	struct vc_slice_row **table;

	if (slice->nrows < slice->table_size)
		return 0;
	table = calloc(size, sizeof(struct vc_slice_row *));
	if (!table)
		return -ENOMEM;
	for (size_t i = 0; i < slice->table_size; i++) {
		struct vc_slice_row *row = slice->table[i];

		while (row) {
			struct vc_slice_row *next = row->next;
			size_t to = vc_sum64(row->bytes, row->key_len, 0) & (size - 1);

			row->next = table[to];
			table[to] = row;
			row = next;
		}
	}
	free(slice->table);
	slice->table = table;
	slice->table_size = size;
	return 0;
}

static int put_row_locked(struct vc_slice *slice, struct vc_slice_row *row)
{
	struct vc_slice_row **at;

	if (table_grow(slice) < 0)
		return -ENOMEM;
	at = &slice->table[vc_sum64(row->bytes, row->key_len, 0) & (slice->table_size - 1)];
	while (*at) {
		struct vc_slice_row *old = *at;

		if (old->key_len == row->key_len && memcmp(old->bytes, row->bytes, row->key_len) == 0) {
			*at = old->next;
			free(old);
			slice->nrows--;
			break;
		}
		at = &old->next;
	}
	row->next = *at;
	*at = row;
	slice->nrows++;
	return 0;
}

int vc_slice_put_row(struct vc_slice *slice, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct vc_slice_row *row = malloc(sizeof(*row) + key_len + value_len);
	int r;

	if (!row)
		return -ENOMEM;
	row->key_len = (uint16_t)key_len;
	row->value_len = (uint16_t)value_len;
	row->deleted = !value;
	memcpy(row->bytes, key, key_len);
	if (value_len)
		memcpy(row->bytes + key_len, value, value_len);
	vc_mutex_lock(&slice->lock);
	r = put_row_locked(slice, row);
	vc_mutex_unlock(&slice->lock);
	if (r < 0)
		free(row);
	return r;
}

int vc_slice_add_image(struct vc_slice *slice, uint64_t ino, uint64_t tag, struct vc_base *base)
{
	int r;

	vc_mutex_lock(&slice->lock);
	r = vc_array_room(&slice->images, slice->nimages, &slice->images_cap, sizeof(*slice->images));
	if (r == 0)
		slice->images[slice->nimages++] = (struct vc_slice_image){ ino, tag, base };
	vc_mutex_unlock(&slice->lock);
	if (r < 0)
		vc_base_put(base);
	return r;
}

int vc_slice_add_dirty(struct vc_slice *slice, struct vc_inode *inode)
{
	int r;

	vc_mutex_lock(&slice->lock);
	r = vc_array_room(&slice->dirty, slice->ndirty, &slice->dirty_cap, sizeof(*slice->dirty));
	if (r == 0)
		slice->dirty[slice->ndirty++] = inode;
	vc_mutex_unlock(&slice->lock);
	return r;
}

static int row_compare(const void *a, const void *b)
{
	const struct vc_slice_row *x = *(struct vc_slice_row *const *)a, *y = *(struct vc_slice_row *const *)b;
	int c = memcmp(x->bytes, y->bytes, VC_MIN(x->key_len, y->key_len));

	return c ? c : (int)x->key_len - (int)y->key_len;
}

int vc_slice_sorted_rows(struct vc_slice *slice, struct vc_slice_row ***ret)
{
	struct vc_slice_row **rows = malloc((slice->nrows + 1) * sizeof(struct vc_slice_row *));
	size_t n = 0;

	if (!rows)
		return -ENOMEM;
	for (size_t i = 0; i < slice->table_size; i++)
		for (struct vc_slice_row *row = slice->table[i]; row; row = row->next)
			rows[n++] = row;
	if (n)
		qsort(rows, n, sizeof(*rows), row_compare);
	*ret = rows;
	return 0;
}
