/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rebuild_apply: checkpoint after checkpoint from the journal into an LMDB, as the checkpoints themselves did it.
 *
 * A content that the journal names is a tree here. The trees of all contents ever made are remembered, not only those that images hold:
 * nobody but the journal knows when one is used for the last time. Nodes that a checkpoint freed are freed again, by the tags that
 * the journal repeats.
 */
#include "config.h"

#include <stdlib.h>

#include "msg.h"
#include "rebuild_impl.h"

#define REBUILD_CACHE (UINT64_C(16) << 20)
#define REBUILD_TXN_COST 20000u /* entries share a transaction up to this many items and rows */

#define ULL(x) ((unsigned long long)(x))

/* ---- contents ---- */

static struct rebuild_content *content_place(struct rebuild_content *table, size_t size, uint64_t name)
{
	size_t i = (size_t)(name * UINT64_C(0x9e3779b97f4a7c15) >> 24) & (size - 1);

	while (table[i].name && table[i].name != name)
		i = (i + 1) & (size - 1);
	return &table[i];
}

static int content_set(struct rebuild *rb, uint64_t name, struct vc_root root)
{
	struct rebuild_content *place;

	if (name == 0)
		return root.id ? -EUCLEAN : 0;
	if ((rb->ncontents + 1) * 4 > rb->contents_size * 3) {
		size_t size = rb->contents_size ? rb->contents_size * 2 : 1024;
		struct rebuild_content *table = calloc(size, sizeof(*table));

		if (!table)
			return -ENOMEM;
		for (size_t i = 0; i < rb->contents_size; i++)
			if (rb->contents[i].name)
				*content_place(table, size, rb->contents[i].name) = rb->contents[i];
		free(rb->contents);
		rb->contents = table;
		rb->contents_size = size;
	}
	place = content_place(rb->contents, rb->contents_size, name);
	rb->ncontents += place->name == 0;
	*place = (struct rebuild_content){ name, root };
	rb->next_content = VC_MAX(rb->next_content, name + 1);
	return 0;
}

static int content_get(const struct rebuild *rb, uint64_t name, struct vc_root *ret)
{
	const struct rebuild_content *place = rb->contents_size ? content_place(rb->contents, rb->contents_size, name) : NULL;

	*ret = (struct vc_root){ 0, 0 };
	if (name == 0)
		return 0;
	if (!place || !place->name) {
		vc_err("the journal speaks of content %llu, which neither it nor the backup has made", ULL(name));
		return -EUCLEAN;
	}
	*ret = place->root;
	return 0;
}

/* ---- transactions ---- */

int rebuild_txn(struct rebuild *rb)
{
	return rb->txn ? 0 : vc_meta_write_begin(rb->meta, &rb->txn);
}

int rebuild_commit(struct rebuild *rb)
{
	struct vc_meta_txn *txn = rb->txn;

	rb->txn = NULL;
	rb->cost = 0;
	return txn ? vc_meta_commit(txn) : 0;
}

/* ---- what is there at the beginning ---- */

static int load_row(void *ctx, const void *key, size_t key_len, const void *value, size_t len)
{
	struct rebuild *rb = ctx;
	const uint8_t *k = key;
	struct vc_disk_image image;

	if (k[0] == VC_ROW_STATE && key_len == 2 && len == sizeof(rb->state)) {
		memcpy(&rb->state, value, len);
	} else if (k[0] == VC_ROW_INODE && key_len == 9) {
		rb->next_ino = VC_MAX(rb->next_ino, vc_be64_at(k + 1) + 1);
	} else if (k[0] == VC_ROW_IMAGE && key_len == 9 && len == sizeof(image)) {
		memcpy(&image, value, len);
		rb->next_tag = VC_MAX(rb->next_tag, vc_le64_get(image.tag) + 1);
		return content_set(rb, vc_le64_get(image.content), (struct vc_root){ vc_le64_get(image.root), vc_le32_get(image.height) });
	}
	return 0;
}

int rebuild_load(struct rebuild *rb)
{
	struct vc_map_params map = { .meta = rb->meta, .cache_bytes = REBUILD_CACHE };
	struct vc_meta_txn *txn;
	int r = vc_meta_read_begin(rb->meta, &txn);

	if (r < 0)
		return r;
	r = vc_meta_scan(txn, VC_DB_CAT, NULL, 0, NULL, 0, load_row, rb);
	vc_meta_end(txn);
	if (r < 0)
		return r;
	if (memcmp(rb->state.uuid, rb->pool.uuid, sizeof(rb->pool.uuid)) != 0) {
		vc_err("%s: the backup belongs to another pool", rb->dir);
		return -EUCLEAN;
	}
	rb->next_tag = VC_MAX(rb->next_tag, vc_le64_get(rb->state.next_tag));
	rb->next_content = VC_MAX(rb->next_content, vc_le64_get(rb->state.next_content));
	map.next_node = vc_le64_get(rb->state.next_node);
	return vc_map_open(&map, &rb->map);
}

/* ---- items ---- */

/* The items of a BASE are complete: make its content. */
static int apply_base(struct rebuild *rb)
{
	struct vc_fold fold = { .changes = rb->changes, .nchanges = rb->nchanges, .new_tag = vc_le64_get(rb->base.lba),
				.dead_tag = vc_le64_get(rb->base.nblocks) };
	struct vc_root root;
	int r;

	if (!vc_le32_get(rb->base.kind))
		return 0;
	rb->base.kind = vc_le32_of(0);
	rb->next_tag = VC_MAX(rb->next_tag, VC_MAX(fold.new_tag, fold.dead_tag) + 1);
	r = content_get(rb, vc_le64_get(rb->base.value), &fold.root);
	if (r == 0)
		r = rebuild_txn(rb);
	if (r == 0)
		r = vc_map_fold(rb->map, rb->txn, &fold, &root);
	return r < 0 ? r : content_set(rb, vc_le64_get(rb->base.ref), root);
}

static int apply_change(struct rebuild *rb, const struct vc_disk_journal_item *item)
{
	uint32_t kind = vc_le32_get(item->kind);
	struct vc_change c = { .lba = vc_le64_get(item->lba), .nblocks = vc_le64_get(item->nblocks),
			       .kind = kind == VC_JOURNAL_SET ? VC_CHANGE_SET : kind == VC_JOURNAL_ZERO ? VC_CHANGE_ZERO : VC_CHANGE_SHARE };
	int r = 0;

	if (!vc_le32_get(rb->base.kind))
		return -EUCLEAN;
	if (kind == VC_JOURNAL_SET) {
		c.entry = vc_le64_get(item->value);
		rb->next_segno = VC_MAX(rb->next_segno, vc_entry_segno(c.entry) + 1);
	} else if (kind == VC_JOURNAL_SHARE) {
		c.src_lba = vc_le64_get(item->value);
		r = content_get(rb, vc_le64_get(item->ref), &c.src);
	}
	if (r == 0)
		r = vc_array_room(&rb->changes, rb->nchanges, &rb->changes_cap, sizeof(*rb->changes));
	if (r == 0)
		rb->changes[rb->nchanges++] = c;
	return r;
}

static int apply_image(struct rebuild *rb, const struct vc_disk_journal_item *item)
{
	uint64_t ino = vc_le64_get(item->ref);
	struct vc_disk_image row = { .tag = item->value, .content = item->lba };
	struct vc_root root;
	uint8_t key[9];
	size_t key_len = vc_row_key_ino(key, VC_ROW_IMAGE, ino);
	int r = rebuild_txn(rb);

	if (r == 0 && vc_le32_get(item->kind) == VC_JOURNAL_GONE) {
		r = vc_meta_del(rb->txn, VC_DB_CAT, key, key_len);
		return r == -ENOENT ? 0 : r;
	}
	rb->next_tag = VC_MAX(rb->next_tag, vc_le64_get(item->value) + 1);
	if (r == 0)
		r = content_get(rb, vc_le64_get(item->lba), &root);
	if (r < 0)
		return r;
	row.root = vc_le64_of(root.id);
	row.height = vc_le32_of(root.height);
	return vc_meta_put(rb->txn, VC_DB_CAT, key, key_len, &row, sizeof(row));
}

static int apply_item(void *ctx, const struct vc_disk_journal_item *item)
{
	struct rebuild *rb = ctx;
	uint32_t kind = vc_le32_get(item->kind);
	int r = 0;

	rb->cost++;
	if (kind == VC_JOURNAL_SET || kind == VC_JOURNAL_ZERO || kind == VC_JOURNAL_SHARE)
		return apply_change(rb, item);
	r = apply_base(rb);
	if (r < 0 || kind != VC_JOURNAL_BASE)
		return r < 0 ? r : apply_image(rb, item);
	rb->base = *item;
	rb->nchanges = 0;
	return 0;
}

/* ---- rows ---- */

static int apply_row(void *ctx, const uint8_t *key, size_t key_len, const uint8_t *value, size_t len)
{
	struct rebuild *rb = ctx;
	int r = apply_base(rb);

	rb->cost++;
	if (r == 0)
		r = rebuild_txn(rb);
	if (r < 0)
		return r;
	if (key[0] == VC_ROW_INODE)
		rb->next_ino = VC_MAX(rb->next_ino, vc_be64_at(key + 1) + 1);
	if (value || key[0] != VC_ROW_INODE || key_len != 9)
		return vc_commit_row(rb->txn, key, key_len, value, len);
	r = vc_array_room(&rb->doomed, rb->ndoomed, &rb->doomed_cap, sizeof(*rb->doomed));
	if (r == 0)
		memcpy(rb->doomed[rb->ndoomed++], key, key_len);
	return r;
}

static int apply_entry(struct rebuild *rb, const struct vc_journal_entry *entry)
{
	struct vc_journal_visit visit = { .item = apply_item, .row = apply_row, .ctx = rb };
	int r;

	rb->base.kind = vc_le32_of(0);
	rb->ndoomed = 0;
	r = vc_journal_visit(&rb->journal, entry, &visit);
	if (r == 0)
		r = apply_base(rb);
	for (size_t i = 0; i < rb->ndoomed && r == 0; i++)
		r = vc_commit_row(rb->txn, rb->doomed[i], sizeof(rb->doomed[i]), NULL, 0);
	if (r == 0 && rb->cost > REBUILD_TXN_COST)
		r = rebuild_commit(rb);
	if (r < 0)
		vc_err("%s: the journal's entry that leads from checkpoint %llu to %llu cannot be applied", rb->dir, ULL(entry->prev_lsn),
		       ULL(entry->checkpoint_lsn));
	return r;
}

int rebuild_journal(struct rebuild *rb)
{
	const struct vc_journal_entry *entry;
	int r = 0;

	while (r == 0 && (entry = vc_journal_after(&rb->journal, vc_le64_get(rb->state.checkpoint_lsn)))) {
		r = apply_entry(rb, entry);
		rb->state.checkpoint_lsn = vc_le64_of(entry->checkpoint_lsn);
		rb->ret->entries++;
	}
	return r < 0 ? r : rebuild_commit(rb);
}

/* ---- the state row ---- */

static int count_row(void *ctx, const void *key VC_UNUSED, size_t key_len VC_UNUSED, const void *value VC_UNUSED, size_t len VC_UNUSED)
{
	++*(uint64_t *)ctx;
	return 0;
}

static vc_le64 raised(vc_le64 counter, uint64_t at_least) { return vc_le64_of(VC_MAX(vc_le64_get(counter), at_least)); }

int rebuild_state(struct rebuild *rb)
{
	uint8_t prefix = VC_ROW_IMAGE;
	uint64_t images = 0;
	int r = rebuild_txn(rb);

	if (r == 0)
		r = vc_meta_scan(rb->txn, VC_DB_CAT, &prefix, 1, NULL, 0, count_row, &images);
	if (r < 0)
		return r;
	memcpy(rb->state.uuid, rb->pool.uuid, sizeof(rb->state.uuid));
	rb->state.images = vc_le64_of(images);
	rb->state.next_node = vc_le64_of(vc_map_next_node(rb->map));
	rb->state.next_ino = raised(rb->state.next_ino, rb->next_ino);
	rb->state.next_tag = raised(rb->state.next_tag, rb->next_tag);
	rb->state.next_segno = raised(rb->state.next_segno, rb->next_segno);
	rb->state.next_content = raised(rb->state.next_content, rb->next_content);
	r = vc_meta_put(rb->txn, VC_DB_CAT, "GS", 2, &rb->state, sizeof(rb->state));
	return r < 0 ? r : rebuild_commit(rb);
}
