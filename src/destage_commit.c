/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * destage_commit: a staged slice becomes the checkpoint: its journal entry, one LMDB transaction, the swap in memory.
 *
 * The fold lock is held over transaction and swap. A transaction that fails leaves LMDB and memory as they were; when the
 * swap fails, LMDB is right and memory is not, and the pool fails.
 */
#include "config.h"

#include <stdlib.h>

#include "destage_impl.h"

#define COMMIT_RETRY_NS UINT64_C(20000000)
#define COMMIT_PATIENCE_NS UINT64_C(1000000000)
#define COMMIT_PAGES_MAX 4096u

/* ---- the journal ---- */

static int journal_base(struct vc_journal *j, const struct staged_base *sb)
{
	int r = vc_journal_item(j, VC_JOURNAL_BASE, sb->base->new_tag, sb->dead_tag, sb->ancestor->content, sb->base->content);

	for (size_t i = 0; i < sb->nchanges && r == 0; i++) {
		const struct vc_change *c = &sb->changes[i].change;

		if (c->kind == VC_CHANGE_SET)
			r = vc_journal_item(j, VC_JOURNAL_SET, c->lba, c->nblocks, c->entry, 0);
		else if (c->kind == VC_CHANGE_ZERO)
			r = vc_journal_item(j, VC_JOURNAL_ZERO, c->lba, c->nblocks, 0, 0);
		else
			r = vc_journal_item(j, VC_JOURNAL_SHARE, c->lba, c->nblocks, c->src_lba, sb->changes[i].source->content);
	}
	return r;
}

int vc_destage_journal(struct destage *d)
{
	struct vc_journal *j = d->pool->journal;
	int r = 0;

	vc_journal_begin(j);
	for (size_t i = 0; i < d->nstaged && r == 0; i++)
		r = journal_base(j, &d->staged[i]);
	for (size_t i = 0; i < d->slice->nimages && r == 0; i++) {
		const struct vc_slice_image *m = &d->slice->images[i];

		r = m->base ? vc_journal_item(j, VC_JOURNAL_IMAGE, m->base->content, 0, m->tag, m->ino) :
			      vc_journal_item(j, VC_JOURNAL_GONE, 0, 0, 0, m->ino);
	}
	for (size_t i = 0; i < d->slice->nrows && r == 0; i++)
		r = vc_journal_row(j, d->rows[i]);
	return r < 0 ? r : vc_journal_commit(j, d->pool->checkpoint_lsn, d->slice->section.last_lsn);
}

/* ---- the commit ---- */

static struct vc_root base_root(struct vc_base *base)
{
	struct vc_view *view;
	struct vc_root root;

	if (base->delta)
		return base->root;
	view = vc_base_view(base);
	root = view->root;
	vc_view_put(view);
	return root;
}

static int commit_fold(struct destage *d, struct vc_meta_txn *txn, struct staged_base *sb)
{
	struct vc_change *changes = malloc((sb->nchanges + 1) * sizeof(*changes));
	struct vc_fold fold = {
		.root = base_root(sb->ancestor), .changes = changes, .nchanges = sb->nchanges,
		.new_tag = sb->base->new_tag, .dead_tag = sb->dead_tag,
		.defer_delete = vc_clean_running(d->pool) ? vc_clean_defer : NULL, .defer_ctx = d->pool,
	};
	int r;

	if (!changes)
		return -ENOMEM;
	for (size_t i = 0; i < sb->nchanges; i++) {
		changes[i] = sb->changes[i].change;
		if (changes[i].kind == VC_CHANGE_SHARE)
			changes[i].src = base_root(sb->changes[i].source);
	}
	r = vc_map_fold(d->pool->map, txn, &fold, &sb->base->root);
	free(changes);
	return r;
}

static int commit_image(struct destage *d, struct vc_meta_txn *txn, const struct vc_slice_image *m)
{
	struct vc_disk_image row;
	struct vc_root root;
	const void *old;
	uint8_t key[9];
	size_t key_len = vc_row_key_ino(key, VC_ROW_IMAGE, m->ino), old_len;
	int r = vc_meta_get(txn, VC_DB_CAT, key, key_len, &old, &old_len);
	bool existed = r == 0;

	if (r < 0 && r != -ENOENT)
		return r;
	d->images += (uint64_t)(m->base != NULL) - existed;
	if (!m->base)
		return existed ? vc_meta_del(txn, VC_DB_CAT, key, key_len) : 0;
	root = base_root(m->base);
	row = (struct vc_disk_image){ .root = vc_le64_of(root.id), .tag = vc_le64_of(m->tag),
				      .content = vc_le64_of(m->base->content), .height = vc_le32_of(root.height) };
	return vc_meta_put(txn, VC_DB_CAT, key, key_len, &row, sizeof(row));
}

struct doomed_keys {
	uint8_t (*keys)[VC_ROW_KEY_MAX];
	size_t *lens;
	size_t n, cap;
};

static int commit_collect_key(void *ctx, const void *key, size_t key_len, const void *value, size_t len)
{
	struct doomed_keys *k = ctx;

	(void)value;
	(void)len;
	if (k->n == k->cap) {
		size_t cap = k->cap ? k->cap * 2 : 8;
		void *keys = realloc(k->keys, cap * sizeof(*k->keys));
		size_t *lens = realloc(k->lens, cap * sizeof(*lens));

		k->keys = keys ? keys : k->keys;
		k->lens = lens ? lens : k->lens;
		if (!keys || !lens)
			return -ENOMEM;
		k->cap = cap;
	}
	memcpy(k->keys[k->n], key, key_len);
	k->lens[k->n++] = key_len;
	return 0;
}

/* What hangs on a deleted inode goes with it. */
static int commit_inode_gone(struct vc_meta_txn *txn, uint64_t ino)
{
	static const enum vc_row_kind single[] = { VC_ROW_LINK, VC_ROW_ORPHAN, VC_ROW_EXCLUSIVE };
	struct doomed_keys doomed = { .n = 0 };
	uint8_t key[9];
	int r = 0;

	for (size_t i = 0; i < VC_ARRAY_LEN(single) && r == 0; i++) {
		r = vc_meta_del(txn, VC_DB_CAT, key, vc_row_key_ino(key, single[i], ino));
		r = r == -ENOENT ? 0 : r;
	}
	if (r == 0)
		r = vc_meta_scan(txn, VC_DB_CAT, key, vc_row_key_ino(key, VC_ROW_XATTR, ino), NULL, 0, commit_collect_key, &doomed);
	for (size_t i = 0; i < doomed.n && r == 0; i++)
		r = vc_meta_del(txn, VC_DB_CAT, doomed.keys[i], doomed.lens[i]);
	free(doomed.keys);
	free(doomed.lens);
	return r;
}

int vc_commit_row(struct vc_meta_txn *txn, const uint8_t *key, size_t key_len, const void *value, size_t len)
{
	int r;

	if (value)
		return vc_meta_put(txn, VC_DB_CAT, key, key_len, value, len);
	r = vc_meta_del(txn, VC_DB_CAT, key, key_len);
	if ((r == 0 || r == -ENOENT) && key[0] == VC_ROW_INODE)
		return commit_inode_gone(txn, vc_be64_at(key + 1));
	return r == -ENOENT ? 0 : r;
}

static int commit_row(struct vc_meta_txn *txn, const struct vc_slice_row *row)
{
	return vc_commit_row(txn, row->bytes, row->key_len, row->deleted ? NULL : row->bytes + row->key_len, row->value_len);
}

static bool row_is_inode_gone(const struct vc_slice_row *row) { return row->deleted && row->bytes[0] == VC_ROW_INODE; }

/* Deletions of inodes last, so that they find what this slice added to an inode that it also deletes. */
static int commit_rows(struct destage *d, struct vc_meta_txn *txn)
{
	int r = 0;

	for (size_t i = 0; i < d->slice->nrows && r == 0; i++)
		if (!row_is_inode_gone(d->rows[i]))
			r = commit_row(txn, d->rows[i]);
	for (size_t i = 0; i < d->slice->nrows && r == 0; i++)
		if (row_is_inode_gone(d->rows[i]))
			r = commit_row(txn, d->rows[i]);
	return r;
}

struct commit_segments {
	struct vc_meta_txn *txn;
	uint64_t checkpoint_lsn; /* of the state before: older segments have their row */
};

static int commit_segment(void *ctx, const struct vc_chunk_segment_info *info)
{
	struct commit_segments *c = ctx;
	struct vc_disk_segment row = { .used = vc_le64_of(info->used), .max_lsn = vc_le64_of(info->max_lsn),
				       .live = vc_le64_of(UINT64_MAX), .sealed = vc_le32_of(info->sealed) };
	uint8_t key[9];

	if (info->sealed && info->max_lsn <= c->checkpoint_lsn)
		return 0;
	return vc_meta_put(c->txn, VC_DB_CAT, key, vc_row_key_ino(key, VC_ROW_SEGMENT, info->segno), &row, sizeof(row));
}

static int commit_state(struct destage *d, struct vc_meta_txn *txn)
{
	struct vc_pool *pool = d->pool;
	struct vc_disk_state state = {
		.checkpoint_lsn = vc_le64_of(d->slice->section.last_lsn),
		.log_first_seq = vc_le64_of(d->slice->section.next->first_seq),
		.epoch = vc_le64_of(pool->epoch),
		.next_ino = vc_le64_of(atomic_load(&pool->catalog.next_ino)),
		.next_node = vc_le64_of(vc_map_next_node(pool->map)),
		.next_tag = vc_le64_of(atomic_load(&pool->catalog.next_tag)),
		.next_segno = vc_le64_of(vc_chunk_next_segno(pool->chunks)),
		.next_content = vc_le64_of(atomic_load(&pool->next_content)),
		.mark_ns = vc_le64_of(pool->mark_ns),
		.images = vc_le64_of(d->images),
	};

	memcpy(state.uuid, pool->disk.uuid, sizeof(state.uuid));
	return vc_meta_put(txn, VC_DB_CAT, "GS", 2, &state, sizeof(state));
}

static int commit_all(struct destage *d, struct vc_meta_txn *txn)
{
	struct commit_segments segments = { txn, d->pool->checkpoint_lsn };
	int r = 0;

	for (size_t i = 0; i < d->nstaged && r == 0; i++)
		r = commit_fold(d, txn, &d->staged[i]);
	if (r == 0)
		r = commit_rows(d, txn);
	for (size_t i = 0; i < d->slice->nimages && r == 0; i++)
		r = commit_image(d, txn, &d->slice->images[i]);
	if (r == 0)
		r = vc_chunk_each_segment(d->pool->chunks, commit_segment, &segments);
	return r < 0 ? r : commit_state(d, txn);
}

/* One pass over the slices after this one. Bases that are frozen meanwhile on an old view are seen by the next pass. */
static int commit_refresh_later(struct destage *d)
{
	struct vc_pool *pool = d->pool;
	struct vc_list *at = &d->slice->node;
	int n = 0, r = 0;

	for (;;) {
		vc_mutex_lock(&pool->lock);
		at = at->next;
		vc_mutex_unlock(&pool->lock);
		if (at == &pool->slices || r < 0)
			return r < 0 ? r : n;
		r = vc_bases_refresh(&pool->bases, &vc_list_entry(at, struct vc_slice, node)->bases);
		n += VC_MAX(r, 0);
	}
}

/* LMDB has no longer what the old views name, so there is no way back: memory is waited for, a while. */
static bool commit_may_retry(struct vc_pool *pool, int r, uint64_t deadline)
{
	bool again;

	if (r != -ENOMEM)
		return false;
	vc_mutex_lock(&pool->lock);
	again = !pool->stopping && vc_mono_ns() < deadline;
	if (again)
		(void)vc_cond_wait_until(&pool->destage_cond, &pool->lock, vc_mono_ns() + COMMIT_RETRY_NS);
	vc_mutex_unlock(&pool->lock);
	return again;
}

/* Step 7, under the fold lock: a reader that missed a node waits there and then sees the new views. */
static int commit_swap(struct destage *d)
{
	uint64_t deadline = vc_mono_ns() + COMMIT_PATIENCE_NS;
	int r = 0;

	vc_bases_new_generation(&d->pool->bases);
	for (size_t i = 0; i < d->nstaged && r == 0; i++) {
		do
			r = vc_base_folded(d->staged[i].base, d->staged[i].base->root);
		while (commit_may_retry(d->pool, r, deadline));
	}
	if (r < 0)
		return r;
	do
		r = commit_refresh_later(d);
	while (r > 0 || commit_may_retry(d->pool, r, deadline));
	return r;
}

/* What the transaction may add to LMDB's file, about; too little only means that a full disk is met later. */
static uint64_t commit_pages(const struct destage *d)
{
	return VC_MIN(2 * (atomic_load(&d->slice->cost) + d->slice->nrows + d->slice->nimages), (uint64_t)COMMIT_PAGES_MAX);
}

int vc_destage_reserve(struct destage *d)
{
	struct vc_meta_txn *txn;
	int r = vc_pool_meta_begin(d->pool, commit_pages(d), &txn);

	if (r == 0)
		vc_meta_end(txn);
	return r;
}

int vc_destage_commit(struct destage *d)
{
	struct vc_pool *pool = d->pool;
	struct vc_meta_txn *txn;
	size_t deferred;
	int r;

	d->images = atomic_load(&pool->images);
	vc_mutex_lock(&pool->fold);
	deferred = vc_clean_deferred(pool);
	r = vc_pool_meta_begin(pool, commit_pages(d), &txn);
	if (r == 0) {
		r = commit_all(d, txn);
		if (r == 0)
			r = vc_meta_commit(txn);
		else
			vc_meta_end(txn);
	}
	if (r < 0)
		vc_clean_undefer(pool, deferred);
	if (r == 0) {
		atomic_store(&pool->images, d->images);
		r = commit_swap(d);
		if (r < 0)
			vc_pool_fail(pool, r);
		r = 0;
	}
	vc_mutex_unlock(&pool->fold);
	return r;
}
