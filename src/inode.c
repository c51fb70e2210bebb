/* SPDX-License-Identifier: BSD-2-Clause */
/* inode: one inode through the slices: touch, settle, freeze. The rules are at the top of slice.h. */
#include "config.h"

#include <sys/stat.h>

#include "catalog.h"

static void inode_assert_locked(const struct vc_inode *inode)
{
	if (!inode->cat->replaying)
		vc_mutex_assert_held(&inode->lock);
}

static bool inode_is_image(const struct vc_inode *inode) { return S_ISREG(inode->f.mode); }

int vc_inode_freeze_locked(struct vc_inode *inode, uint64_t dead_tag, uint64_t new_tag)
{
	struct vc_slice *slice = inode->dirty;
	struct vc_base *base;

	inode_assert_locked(inode);
	if (!inode->active || vc_overlay_empty(inode->active)) {
		vc_overlay_put(inode->active);
		inode->active = NULL;
		return 0;
	}
	base = vc_base_freeze(inode->base, inode->active, &slice->bases, inode->ino, dead_tag, new_tag, inode->cat->replaying);
	if (!base)
		return -ENOMEM;
	atomic_fetch_add(&slice->cost, 3);
	vc_base_put(inode->base);
	inode->base = base;
	inode->active = NULL;
	return 0;
}

static int inode_settle(struct vc_inode *inode)
{
	struct vc_slice *slice = inode->dirty;
	struct vc_disk_inode row;
	uint8_t key[9];
	size_t key_len = vc_row_key_ino(key, VC_ROW_INODE, inode->ino);
	int r;

	if (inode->gone) {
		vc_overlay_put(inode->active);
		inode->active = NULL;
		r = vc_slice_put_row(slice, key, key_len, NULL, 0);
		if (r == 0 && inode_is_image(inode))
			r = vc_slice_add_image(slice, inode->ino, 0, NULL);
		return r;
	}
	vc_row_from_inode(&inode->f, &row);
	r = vc_slice_put_row(slice, key, key_len, &row, sizeof(row));
	if (r == 0 && inode_is_image(inode)) {
		r = vc_inode_freeze_locked(inode, inode->tag, inode->tag);
		if (r == 0)
			r = vc_slice_add_image(slice, inode->ino, inode->tag, vc_base_get(inode->base));
	}
	return r;
}

void vc_inode_settle_locked(struct vc_inode *inode)
{
	int r;

	inode_assert_locked(inode);
	if (!inode->dirty)
		return;
	r = inode_settle(inode);
	if (r < 0)
		inode->cat->broken(inode->cat->pool, r);
	inode->dirty = NULL;
}

void vc_inode_touch_locked(struct vc_inode *inode, struct vc_slice *slice)
{
	struct vc_catalog *cat = inode->cat;
	int r;

	if (inode->dirty == slice)
		return; /* also: an inode that this very record made, which nobody else knows yet */
	inode_assert_locked(inode);
	vc_inode_settle_locked(inode);
	vc_catalog_pin(cat, inode);
	r = vc_slice_add_dirty(slice, inode);
	if (r < 0) {
		cat->broken(cat->pool, r);
		vc_catalog_unpin(cat, inode);
	}
	atomic_fetch_add(&slice->cost, 1);
	inode->dirty = slice;
}

struct vc_overlay *vc_inode_active_locked(struct vc_inode *inode, struct vc_slice *slice)
{
	if (!inode->active)
		inode->active = vc_overlay_new(&inode->cat->bases->owner, slice);
	return inode->active;
}
