/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * destage_stage: blocks of the log become chunks, and the changes of each base a list in block order.
 *
 * A base that nobody but its one child holds is folded into that child and not staged. Nothing in memory or LMDB refers
 * to what is staged before the commit.
 */
#include "config.h"

#include <stdlib.h>

#include "checksum.h"
#include "destage_impl.h"
#include "msg.h"

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
	if (vc_array_room(&sb->changes, sb->nchanges, &sb->cap, sizeof(*sb->changes)) < 0)
		return -ENOMEM;
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

int vc_destage_stage(struct destage *d)
{
	int r = stage_collect(d);

	if (r < 0)
		return r;
	d->buf = malloc((size_t)d->pool->chunk_blocks * VC_BLOCK_SIZE);
	if (!d->buf)
		return -ENOMEM;
	stage_list(d);
	for (size_t i = 0; i < d->nstaged && r == 0; i++)
		r = stage_base(d, &d->staged[i]);
	return r;
}
