/* SPDX-License-Identifier: BSD-2-Clause */
/* apply: what an op of a log record does to memory: the same code for live operations and for replay. */
#include "config.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "msg.h"
#include "pool_impl.h"

static void apply_times(struct vc_inode *inode, uint64_t time_ns)
{
	inode->f.mtime_ns = inode->f.ctime_ns = time_ns;
}

/* The overlay that takes changes of `slice`, with room for `nblocks` blocks and a range. NULL: no memory. */
static struct vc_overlay *apply_overlay(struct vc_inode *inode, struct vc_slice *slice, uint64_t lba, uint64_t nblocks, bool range)
{
	struct vc_overlay *o = vc_inode_active_locked(inode, slice);
	uint64_t before = o ? vc_overlay_leaves(o) : 0;
	int r = o ? range ? vc_overlay_prepare_range(o, lba, nblocks) : vc_overlay_prepare(o, lba, nblocks) : -ENOMEM;

	if (r < 0)
		return NULL;
	atomic_fetch_add(&slice->cost, vc_overlay_leaves(o) - before);
	return o;
}

static int apply_write(struct vc_inode *inode, struct vc_slice *slice, const struct vc_op *op, uint64_t addr)
{
	struct vc_overlay *o = apply_overlay(inode, slice, op->lba, op->nblocks, false);

	if (!o)
		return -ENOMEM;
	vc_overlay_set_log(o, op->lba, op->nblocks, addr + op->data_offset, op->sums);
	return 0;
}

static int apply_zero(struct vc_inode *inode, struct vc_slice *slice, uint64_t lba, uint64_t nblocks)
{
	struct vc_overlay *o = apply_overlay(inode, slice, lba, nblocks, true);

	if (!o)
		return -ENOMEM;
	vc_overlay_set_range(o, lba, nblocks, NULL, 0);
	return 0;
}

static int apply_direct(struct vc_inode *inode, struct vc_slice *slice, const struct vc_op *op)
{
	uint64_t lba = op->lba;

	for (size_t at = 0; at < op->payload_len; at += sizeof(struct vc_disk_direct)) {
		struct vc_disk_direct item;
		struct vc_overlay *o;
		uint32_t n;

		memcpy(&item, op->payload + at, sizeof(item));
		n = vc_le32_get(item.nblocks);
		if (vc_le64_get(item.entry)) {
			o = apply_overlay(inode, slice, lba, n, false);
			if (!o)
				return -ENOMEM;
			vc_overlay_set_chunk(o, lba, n, vc_le64_get(item.entry));
		} else if (apply_zero(inode, slice, lba, n) < 0) {
			return -ENOMEM;
		}
		lba += n;
	}
	return 0;
}

static int apply_size(struct vc_inode *inode, struct vc_slice *slice, uint64_t size)
{
	uint64_t keep = VC_DIV_UP(size, (uint64_t)VC_BLOCK_SIZE), had = VC_DIV_UP(inode->f.size, (uint64_t)VC_BLOCK_SIZE);

	inode->f.size = size;
	return keep < had ? apply_zero(inode, slice, keep, had - keep) : 0;
}

/*
 * Both sides get a fresh open tag and share what was written so far: the source's changes become a base that nobody owns alone.
 */
static int apply_share(struct vc_inode *source, struct vc_slice *slice)
{
	uint64_t old_tag = source->tag;
	int r;

	vc_inode_touch_locked(source, slice);
	r = vc_inode_freeze_locked(source, old_tag, 0);
	if (r < 0)
		return r;
	source->tag = vc_catalog_new_tag(source->cat);
	if (!source->cat->replaying)
		vc_pool_tidy(source->cat->pool, source->base);
	return 0;
}

static int apply_clone(struct vc_inode *inode, struct vc_inode *source, struct vc_slice *slice)
{
	int r = apply_share(source, slice);

	if (r < 0)
		return r;
	vc_overlay_put(inode->active);
	inode->active = NULL;
	vc_base_put(inode->base);
	inode->base = vc_base_get(source->base);
	inode->tag = vc_catalog_new_tag(inode->cat);
	inode->f.origin = source->ino;
	inode->f.depth = source->f.depth + 1;
	inode->f.size = source->f.size;
	return 0;
}

static int apply_clone_range(struct vc_inode *inode, struct vc_inode *source, struct vc_slice *slice, const struct vc_op *op)
{
	struct vc_overlay *o;
	struct vc_view *view;
	uint32_t depth;
	int r = apply_share(source, slice);

	if (r < 0)
		return r;
	inode->tag = vc_catalog_new_tag(inode->cat);
	view = vc_base_view(source->base);
	depth = vc_view_ref_depth(view);
	vc_view_put(view);
	o = apply_overlay(inode, slice, op->lba, op->nblocks, true);
	if (!o)
		return -ENOMEM;
	vc_overlay_set_range(o, op->lba, op->nblocks, source->base, op->arg2);
	vc_overlay_set_ref_depth(o, depth + 1);
	if ((op->lba ^ op->arg2) & (VC_LEAF_BLOCKS - 1)) /* no leaf can be shared: every one is made anew */
		atomic_fetch_add(&slice->cost, op->nblocks / VC_LEAF_BLOCKS);
	return 0;
}

int vc_apply_data(struct vc_slice *slice, const struct vc_op *op, uint64_t addr, uint64_t time_ns, struct vc_inode *inode,
		  struct vc_inode *source)
{
	int r = -EUCLEAN;

	if (!S_ISREG(inode->f.mode) || (source && !S_ISREG(source->f.mode)))
		return -EUCLEAN;
	vc_inode_touch_locked(inode, slice);
	switch (op->type) {
	case VC_OP_WRITE:
		r = apply_write(inode, slice, op, addr);
		break;
	case VC_OP_ZERO:
		r = apply_zero(inode, slice, op->lba, op->nblocks);
		break;
	case VC_OP_DIRECT:
		r = apply_direct(inode, slice, op);
		break;
	case VC_OP_SIZE:
		r = apply_size(inode, slice, op->arg);
		break;
	case VC_OP_GROW:
		inode->f.size = VC_MAX(inode->f.size, op->arg);
		r = 0;
		break;
	case VC_OP_CLONE:
		r = apply_clone(inode, source, slice);
		break;
	case VC_OP_CLONE_RANGE:
		r = apply_clone_range(inode, source, slice, op);
		break;
	case VC_OP_ROW_PUT:
	case VC_OP_ROW_DEL:
	case VC_OP_TYPE_END:
		break;
	}
	if (r == 0)
		apply_times(inode, time_ns);
	return r;
}

static int apply_row(struct vc_pool *pool, struct vc_slice *slice, const struct vc_op *op)
{
	const uint8_t *key, *value;
	size_t key_len, value_len;
	int r = vc_row_decode(op->payload, op->payload_len, &key, &key_len, &value, &value_len);

	if (r < 0)
		return r;
	return vc_catalog_apply_row(&pool->catalog, slice, key, key_len, op->type == VC_OP_ROW_PUT ? value : NULL, value_len);
}

int vc_apply_op(struct vc_pool *pool, struct vc_slice *slice, const struct vc_op *op, uint64_t addr, uint64_t time_ns)
{
	struct vc_catalog *cat = &pool->catalog;
	struct vc_inode *inode = NULL, *source = NULL;
	int r;

	if (op->type == VC_OP_ROW_PUT || op->type == VC_OP_ROW_DEL)
		return apply_row(pool, slice, op);
	r = vc_catalog_get(cat, op->ino, &inode);
	if (r == 0 && (op->type == VC_OP_CLONE || op->type == VC_OP_CLONE_RANGE))
		r = vc_catalog_get(cat, op->arg, &source);
	if (r == 0) {
		vc_mutex_lock_also(&inode->lock);
		r = vc_apply_data(slice, op, addr, time_ns, inode, source);
		vc_mutex_unlock(&inode->lock);
	}
	if (inode)
		vc_catalog_put(cat, inode);
	if (source)
		vc_catalog_put(cat, source);
	return r == -ENOENT ? -EUCLEAN : r;
}

/*
 * The short critical section of I6: LSN and effect under the locks of what changes. After the LSN is assigned nothing
 * may fail but for memory; then memory and log are out of step and the pool fails (nothing is lost: the log has it all).
 */
int vc_apply_record(struct vc_pool *pool, struct vc_record *rec, struct vc_inode *inode, struct vc_inode *source,
		    struct vc_log_slot *slot)
{
	int64_t len = vc_record_len(rec);
	int r;
	struct vc_slice *slice;

	if (inode && atomic_load(&inode->gone)) { /* nothing may be logged of an inode that the log says is deleted */
		vc_log_unadmit(pool->log, (size_t)len);
		return -ESTALE;
	}
	r = vc_log_reserve(pool->log, (size_t)len, slot);
	if (r < 0)
		return r;
	slice = vc_pool_slice_of(slot->section);
	for (size_t i = 0; i < rec->nops && r == 0; i++) {
		const struct vc_op *op = &rec->ops[i];

		if (inode && op->ino == inode->ino)
			r = vc_apply_data(slice, op, slot->addr, rec->time_ns, inode, source);
		else
			r = vc_apply_op(pool, slice, op, slot->addr, rec->time_ns);
	}
	if (r < 0)
		vc_pool_fail(pool, r);
	vc_pool_changed(pool, slice, (uint64_t)len);
	vc_log_applied(pool->log, slot->section);
	return 0;
}
