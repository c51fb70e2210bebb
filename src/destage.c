/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * destage: turns slices of the log into chunks and map nodes: allocate on log flush.
 *
 * The order of one checkpoint, each step only after the one before:
 *   1 the slice is cut, all its records are applied, its inodes settled      (memory)
 *   2 the log is durable up to the end of the slice
 *   3 its blocks are written as chunks, in image and block order             stage_*
 *   4 chunk files and their directory entries are synced
 *   5 the journal entry is written and synced
 *   6 one LMDB transaction: nodes, images, rows, counters, checkpoint LSN     commit_*
 *   7 bases and views are swapped; the slice is let go; when the last reader of its
 *     overlays is done, its log segments are free
 * A failure before 6 leaves everything as it was: lack of space is waited for, anything else fails the pool.
 */
#include "config.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "checksum.h"
#include "msg.h"
#include "pool_impl.h"

#define DESTAGE_RETRY_NS UINT64_C(1000000000)

/* A change whose source, for a share, becomes known only while folding. */
struct staged_change {
	struct vc_change change;
	struct vc_base *source;
};

struct staged_base {
	struct vc_base *base;     /* counted */
	struct vc_base *ancestor; /* content its changes apply to; kept by base's chain */
	uint64_t dead_tag;
	struct staged_change *changes;
	size_t nchanges, cap;
};

struct destage {
	struct vc_pool *pool;
	struct vc_slice *slice;
	struct vc_base **pending; /* counted; oldest first */
	size_t npending;
	struct staged_base *staged;
	size_t nstaged;
	struct vc_slice_row **rows;
	uint8_t *buf;             /* one chunk */
	uint64_t images;          /* how many there are after the commit */
};

/* ---- cutting ---- */

void vc_destage_cut_locked(struct vc_pool *pool)
{
	struct vc_slice *slice = vc_slice_new(pool, vc_destage_slice_destroy);

	if (!slice)
		return; /* the current slice just grows */
	if (!vc_log_cut(pool->log, &slice->section)) {
		vc_slice_free(slice);
		return;
	}
	vc_list_add_tail(&pool->slices, &slice->node);
	pool->current = slice;
	pool->cut_since_ns = 0;
	pool->slice_bytes = 0;
}

/* The last overlay of a checkpointed slice is gone: nothing points into its log segments. */
void vc_destage_slice_destroy(struct vc_slice *slice)
{
	struct vc_pool *pool = slice->owner;

	if (pool->abandoned || !pool->log) {
		vc_slice_free(slice);
		return;
	}
	vc_log_release(pool->log, &slice->section, vc_slice_section_free);
}

/* ---- staging: blocks of the log become chunks ---- */

static int stage_add(struct staged_base *sb, enum vc_change_kind kind, uint64_t lba, uint64_t nblocks, uint64_t value,
		     struct vc_base *source)
{
	struct staged_change *last = sb->nchanges ? &sb->changes[sb->nchanges - 1] : NULL;

	if (last && kind == VC_CHANGE_SET && last->change.kind == kind && last->change.lba + last->change.nblocks == lba &&
	    last->change.entry + last->change.nblocks == value &&
	    vc_entry_chunk(last->change.entry) == vc_entry_chunk(value)) {
		last->change.nblocks += nblocks;
		return 0;
	}
	if (last && kind == VC_CHANGE_ZERO && last->change.kind == kind && last->change.lba + last->change.nblocks == lba) {
		last->change.nblocks += nblocks;
		return 0;
	}
	if (sb->nchanges == sb->cap) {
		size_t cap = sb->cap ? sb->cap * 2 : 64;
		struct staged_change *changes = realloc(sb->changes, cap * sizeof(*changes));

		if (!changes)
			return -ENOMEM;
		sb->changes = changes;
		sb->cap = cap;
	}
	sb->changes[sb->nchanges++] = (struct staged_change){
		.change = { .lba = lba, .nblocks = nblocks, .kind = kind,
			    .entry = kind == VC_CHANGE_SET ? value : 0, .src_lba = kind == VC_CHANGE_SHARE ? value : 0 },
		.source = source,
	};
	return 0;
}

static int stage_read_block(struct destage *d, const struct vc_overlay_run *run, uint64_t ino, uint8_t *buf)
{
	int r = vc_log_read(d->pool->log, run->slot.addr, buf, VC_BLOCK_SIZE);

	if (r == 0 && vc_sum32(buf, VC_BLOCK_SIZE) != run->slot.sum) {
		vc_err("log segment %llu, offset %llu: block %llu of image %llu is damaged; the pool must be mounted again",
		       (unsigned long long)(run->slot.addr >> VC_LOG_ADDR_SHIFT),
		       (unsigned long long)(run->slot.addr & ((UINT64_C(1) << VC_LOG_ADDR_SHIFT) - 1)),
		       (unsigned long long)run->lba, (unsigned long long)ino);
		r = -EBADMSG;
	}
	return r;
}

/* One chunk from consecutive logged blocks, not crossing a multiple of the chunk size. *at moves past them. */
static int stage_chunk(struct destage *d, struct staged_base *sb, const struct vc_overlay_run *runs, size_t n, size_t *at)
{
	uint64_t lba = runs[*at].lba, limit = VC_ROUND_DOWN(lba, (uint64_t)d->pool->chunk_blocks) + d->pool->chunk_blocks;
	uint64_t entry;
	uint32_t count = 0;
	int r = 0;

	while (r == 0 && *at < n && runs[*at].slot.kind == VC_SLOT_LOG && runs[*at].lba == lba + count && lba + count < limit) {
		r = stage_read_block(d, &runs[*at], sb->base->ino, d->buf + (size_t)count * VC_BLOCK_SIZE);
		count++;
		(*at)++;
	}
	if (r < 0)
		return r;
	if (vc_is_zero(d->buf, (size_t)count * VC_BLOCK_SIZE))
		return stage_add(sb, VC_CHANGE_ZERO, lba, count, 0, NULL);
	r = vc_chunk_append(d->pool->chunks, VC_STREAM_DESTAGE, sb->base->ino, lba, d->slice->section.last_lsn, d->buf, count,
			    &entry, NULL);
	return r < 0 ? r : stage_add(sb, VC_CHANGE_SET, lba, count, entry, NULL);
}

static int stage_runs(struct destage *d, struct staged_base *sb, const struct vc_overlay_run *runs, size_t n)
{
	size_t i = 0;
	int r = 0;

	while (i < n && r == 0) {
		const struct vc_overlay_run *run = &runs[i];

		switch (run->slot.kind) {
		case VC_SLOT_LOG:
			r = stage_chunk(d, sb, runs, n, &i);
			continue;
		case VC_SLOT_ZERO:
			r = stage_add(sb, VC_CHANGE_ZERO, run->lba, run->nblocks, 0, NULL);
			break;
		case VC_SLOT_CHUNK:
			r = stage_add(sb, VC_CHANGE_SET, run->lba, run->nblocks, run->slot.addr, NULL);
			break;
		case VC_SLOT_BASE:
			r = stage_add(sb, VC_CHANGE_SHARE, run->lba, run->nblocks, run->slot.addr, run->slot.base);
			break;
		case VC_SLOT_NONE:
			break;
		}
		i++;
	}
	return r;
}

/*
 * Bases between the nearest one that matters and this one (nobody else holds them: clones that are gone) are folded
 * together with it, so that what was overwritten among them is never written.
 */
static struct vc_overlay *stage_merge_chain(struct destage *d, struct staged_base *sb)
{
	struct vc_overlay *merged = vc_overlay_new(&d->pool->bases.owner, NULL);
	struct vc_base *chain_top = sb->base;
	size_t length = 0;
	int r = merged ? 0 : -ENOMEM;

	for (struct vc_base *b = chain_top; b != sb->ancestor; b = b->parent) {
		length++;
		if (b->dead_tag != chain_top->dead_tag)
			sb->dead_tag = 0;
	}
	for (size_t i = length; i > 0 && r == 0; i--) {
		struct vc_base *b = chain_top;

		for (size_t k = 1; k < i; k++)
			b = b->parent;
		r = vc_overlay_merge(merged, b->delta);
	}
	if (r == 0)
		return merged;
	vc_overlay_put(merged);
	return NULL;
}

static int stage_base(struct destage *d, struct staged_base *sb)
{
	struct vc_overlay *changes = sb->base->parent == sb->ancestor ? vc_overlay_get(sb->base->delta) : stage_merge_chain(d, sb);
	struct vc_overlay_run *runs;
	size_t n;
	int r = changes ? vc_overlay_runs(changes, &runs, &n) : -ENOMEM;

	sb->nchanges = 0;
	if (r == 0) {
		r = stage_runs(d, sb, runs, n);
		free(runs);
	}
	vc_overlay_put(changes);
	return r;
}

/* Who holds a base besides its children? Looked at before this thread takes its own references. */
static int stage_collect(struct destage *d)
{
	struct vc_bases *bases = &d->pool->bases;
	size_t n = 0;

	vc_mutex_lock(&bases->lock);
	vc_list_for_each(node, &d->slice->bases)
		n++;
	d->pending = calloc(n + 1, sizeof(struct vc_base *));
	d->staged = calloc(n + 1, sizeof(*d->staged));
	if (d->pending && d->staged) {
		vc_list_for_each(node, &d->slice->bases) {
			struct vc_base *b = vc_list_entry(node, struct vc_base, node);

			b->needed = b->nchildren != 1 || atomic_load(&b->refs) > b->nchildren;
			if (vc_base_try_get(b))
				d->pending[d->npending++] = b;
		}
	}
	vc_mutex_unlock(&bases->lock);
	return d->pending && d->staged ? 0 : -ENOMEM;
}

static bool base_is_folded_away(const struct vc_base *b) { return b->delta && !b->needed; }

static void stage_list(struct destage *d)
{
	for (size_t i = 0; i < d->npending; i++) {
		struct vc_base *b = d->pending[i], *ancestor = b->parent;

		if (!b->needed)
			continue;
		while (base_is_folded_away(ancestor))
			ancestor = ancestor->parent;
		if (!b->content)
			b->content = atomic_fetch_add(&d->pool->next_content, 1);
		d->staged[d->nstaged++] = (struct staged_base){ .base = b, .ancestor = ancestor, .dead_tag = b->dead_tag };
	}
}

/* ---- the journal ---- */

static int journal_base(struct vc_journal *j, const struct staged_base *sb)
{
	int r = vc_journal_item(j, VC_JOURNAL_BASE, 0, 0, sb->ancestor->content, sb->base->content);

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

static int journal_slice(struct destage *d)
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

static int commit_row(struct vc_meta_txn *txn, const struct vc_slice_row *row)
{
	int r;

	if (!row->deleted)
		return vc_meta_put(txn, VC_DB_CAT, row->bytes, row->key_len, row->bytes + row->key_len, row->value_len);
	r = vc_meta_del(txn, VC_DB_CAT, row->bytes, row->key_len);
	if ((r == 0 || r == -ENOENT) && row->bytes[0] == VC_ROW_INODE)
		return commit_inode_gone(txn, vc_be64_at(row->bytes + 1));
	return r == -ENOENT ? 0 : r;
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

/* Step 7, under the fold lock: a reader that missed a node waits there and then sees the new views. */
static int commit_swap(struct destage *d)
{
	int r = 0;

	vc_bases_new_generation(&d->pool->bases);
	for (size_t i = 0; i < d->nstaged && r == 0; i++)
		r = vc_base_folded(d->staged[i].base, d->staged[i].base->root);
	if (r < 0)
		return r;
	do
		r = commit_refresh_later(d);
	while (r > 0);
	return r;
}

static int commit(struct destage *d)
{
	struct vc_pool *pool = d->pool;
	struct vc_meta_txn *txn;
	size_t deferred;
	int r;

	d->images = atomic_load(&pool->images);
	vc_mutex_lock(&pool->fold);
	deferred = vc_clean_deferred(pool);
	r = vc_meta_write_begin(pool->meta, &txn);
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

/* ---- one slice ---- */

static void destage_settle(struct vc_slice *slice)
{
	for (size_t i = 0; i < slice->ndirty; i++) {
		struct vc_inode *inode = slice->dirty[i];

		vc_mutex_lock(&inode->lock);
		if (inode->dirty == slice)
			vc_inode_settle_locked(inode);
		vc_mutex_unlock(&inode->lock);
	}
}

static void destage_free(struct destage *d)
{
	for (size_t i = 0; i < d->nstaged; i++)
		free(d->staged[i].changes);
	for (size_t i = 0; i < d->npending; i++)
		vc_base_put(d->pending[i]);
	free(d->staged);
	free(d->pending);
	free(d->rows);
	free(d->buf);
}

static int destage_steps(struct destage *d)
{
	struct vc_pool *pool = d->pool;
	int r;

	vc_log_wait_applied(pool->log, &d->slice->section);
	destage_settle(d->slice);
	if (atomic_load(&pool->failed))
		return -EIO; /* the slice may lack what could not be applied or settled: its log must stay */
	r = vc_log_flush_wait(pool->log, d->slice->section.last_lsn);
	if (r == 0)
		r = vc_slice_sorted_rows(d->slice, &d->rows);
	if (r == 0)
		r = stage_collect(d);
	if (r < 0)
		return r;
	d->buf = malloc((size_t)pool->chunk_blocks * VC_BLOCK_SIZE);
	if (!d->buf)
		return -ENOMEM;
	stage_list(d);
	for (size_t i = 0; i < d->nstaged && r == 0; i++)
		r = stage_base(d, &d->staged[i]);
	if (r == 0)
		r = vc_chunk_sync(pool->chunks);
	if (r == 0)
		r = journal_slice(d);
	return r == 0 ? commit(d) : r;
}

/* The slice is in LMDB: let go of everything it kept in memory. */
static void destage_retire(struct vc_pool *pool, struct vc_slice *slice)
{
	vc_catalog_loads_changed(&pool->catalog);
	for (size_t i = 0; i < slice->ndirty; i++)
		vc_catalog_unpin(&pool->catalog, slice->dirty[i]);
	slice->ndirty = 0;
	for (size_t i = 0; i < slice->nimages; i++)
		vc_base_put(slice->images[i].base);
	slice->nimages = 0;
	atomic_fetch_sub(&pool->direct_bytes, atomic_load(&slice->direct_bytes));
	vc_mutex_lock(&pool->lock);
	vc_list_del(&slice->node);
	pool->checkpoint_lsn = slice->section.last_lsn;
	vc_mutex_unlock(&pool->lock);
	vc_slice_release(slice);
}

int vc_destage_slice(struct vc_pool *pool, struct vc_slice *slice)
{
	struct destage d = { .pool = pool, .slice = slice };
	int r = destage_steps(&d);

	destage_free(&d);
	if (r == 0) {
		destage_retire(pool, slice);
		vc_journal_trim(pool->journal, pool->checkpoint_lsn);
	}
	return r;
}

/* ---- the thread ---- */

static void destage_task_progress_locked(struct vc_pool *pool)
{
	struct vc_task *task = &pool->destage_task;

	if (!task->status.running)
		return;
	if (pool->checkpoint_lsn >= task->target_lsn || atomic_load(&pool->failed)) {
		task->status.running = 0;
		task->status.error = pool->checkpoint_lsn >= task->target_lsn ? 0 : -EIO;
		task->status.done = task->status.total;
		vc_cond_broadcast(&pool->task_cond);
	}
}

/* Has the current slice nothing that could be destaged? */
static bool destage_is_empty_locked(struct vc_pool *pool)
{
	struct vc_log_figures figures;

	vc_log_figures(pool->log, &figures);
	return figures.last_lsn < pool->current->section.first_lsn;
}

static bool destage_is_due_locked(const struct vc_pool *pool)
{
	if (pool->destage_now)
		return true;
	return pool->cut_since_ns && pool->options.destage_ms != UINT32_MAX &&
		vc_mono_ns() - pool->cut_since_ns >= (uint64_t)pool->options.destage_ms * 1000000;
}

static void destage_wait_locked(struct vc_pool *pool)
{
	if (pool->cut_since_ns && pool->options.destage_ms != UINT32_MAX)
		(void)vc_cond_wait_until(&pool->destage_cond, &pool->lock,
					 pool->cut_since_ns + (uint64_t)pool->options.destage_ms * 1000000);
	else
		vc_cond_wait(&pool->destage_cond, &pool->lock);
}

/* Lack of space is not a failure: the slice stays in the log, new data is refused, and it is tried again. */
static void destage_failed_locked(struct vc_pool *pool, int r)
{
	if (r != -ENOSPC && r != -EDQUOT) {
		vc_mutex_unlock(&pool->lock);
		vc_pool_fail(pool, r);
		vc_mutex_lock(&pool->lock);
		destage_task_progress_locked(pool);
		vc_cond_signal(&pool->resume_cond);
		return;
	}
	if (!(atomic_fetch_or(&pool->full, VC_FULL_DESTAGE) & VC_FULL_DESTAGE))
		vc_warn("%s: no space to destage; new data is refused (ENOSPC), nothing is lost; delete something or add space", pool->dir);
	vc_cond_signal(&pool->resume_cond);
	if (pool->destage_task.status.running) {
		pool->destage_task.status.running = 0;
		pool->destage_task.status.error = -ENOSPC;
		vc_cond_broadcast(&pool->task_cond);
	}
	(void)vc_cond_wait_until(&pool->destage_cond, &pool->lock, vc_mono_ns() + DESTAGE_RETRY_NS);
}

static void destage_step_locked(struct vc_pool *pool) VC_REQUIRES(pool->lock);
static void destage_step_locked(struct vc_pool *pool)
{
	struct vc_slice *oldest = vc_list_entry(pool->slices.next, struct vc_slice, node);
	int r;

	if (oldest == pool->current) {
		if (!destage_is_due_locked(pool)) {
			destage_task_progress_locked(pool);
			destage_wait_locked(pool);
			return;
		}
		vc_destage_cut_locked(pool);
		if (oldest == pool->current && !destage_is_empty_locked(pool)) {
			pool->cut_wanted = true; /* admitted records need the rest of the segment: when they are logged */
			vc_cond_wait(&pool->destage_cond, &pool->lock);
			return;
		}
		pool->destage_now = pool->cut_wanted = false;
		if (oldest == pool->current) {
			pool->cut_since_ns = 0;
			destage_task_progress_locked(pool);
		}
		return;
	}
	vc_mutex_unlock(&pool->lock);
	r = vc_destage_slice(pool, oldest);
	vc_mutex_lock(&pool->lock);
	if (r == 0)
		atomic_fetch_and(&pool->full, ~(unsigned int)VC_FULL_DESTAGE);
	if (r < 0)
		destage_failed_locked(pool, r);
	destage_task_progress_locked(pool);
}

void *vc_destage_thread(void *arg)
{
	struct vc_pool *pool = arg;

	vc_mutex_lock(&pool->lock);
	while (!pool->stopping) {
		if (atomic_load(&pool->failed)) {
			destage_task_progress_locked(pool);
			vc_cond_wait(&pool->destage_cond, &pool->lock);
			continue;
		}
		destage_step_locked(pool);
	}
	vc_mutex_unlock(&pool->lock);
	return NULL;
}
