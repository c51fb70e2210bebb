/* SPDX-License-Identifier: BSD-2-Clause */
/* volume: what all operations on an image share: range exclusion, locking of several inodes, flush, information. */
#include "config.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "checksum.h"
#include "volume_impl.h"

struct vc_pool *vol_pool(const struct vc_inode *inode) { return inode->cat->pool; }

int vol_check_image(const struct vc_inode *inode)
{
	if (S_ISREG(inode->f.mode))
		return 0;
	return S_ISDIR(inode->f.mode) ? -EISDIR : -EINVAL;
}

void vol_sums(const void *data, uint64_t nblocks, uint32_t *sums)
{
	for (uint64_t i = 0; i < nblocks; i++)
		sums[i] = vc_sum32((const uint8_t *)data + i * VC_BLOCK_SIZE, VC_BLOCK_SIZE);
}

/* ---- ranges that a partial write has read and not yet written back ---- */

static bool busy_overlaps(const struct vc_inode *inode, uint64_t lba, uint64_t nblocks)
{
	vc_list_for_each(node, &inode->busy) {
		const struct vc_busy_range *b = vc_list_entry(node, struct vc_busy_range, node);

		if (lba < b->lba + b->nblocks && b->lba < lba + nblocks)
			return true;
	}
	return false;
}

void vol_lock_range(struct vc_inode *inode, uint64_t lba, uint64_t nblocks)
{
	vc_mutex_lock(&inode->lock);
	while (busy_overlaps(inode, lba, nblocks))
		vc_cond_wait(&inode->busy_cond, &inode->lock);
}

void vol_busy_locked(struct vc_inode *inode, struct vc_busy_range *range, uint64_t lba, uint64_t nblocks)
{
	range->lba = lba;
	range->nblocks = nblocks;
	vc_list_add_tail(&inode->busy, &range->node);
}

void vol_idle(struct vc_inode *inode, struct vc_busy_range *range)
{
	vc_mutex_lock(&inode->lock);
	vc_list_del(&range->node);
	vc_cond_broadcast(&inode->busy_cond);
	vc_mutex_unlock(&inode->lock);
}

/* ---- several inodes ---- */

/* The inode with the lowest number above `above`. */
static struct vc_inode *next_inode(struct vc_inode *const *inodes, size_t n, uint64_t above)
{
	struct vc_inode *best = NULL;

	for (size_t i = 0; i < n; i++)
		if (inodes[i] && inodes[i]->ino > above && (!best || inodes[i]->ino < best->ino))
			best = inodes[i];
	return best;
}

void vol_lock_inodes(struct vc_inode *const *inodes, size_t n)
{
	struct vc_inode *inode = next_inode(inodes, n, 0);
	bool first = true;

	while (inode) {
		if (first)
			vc_mutex_lock(&inode->lock);
		else
			vc_mutex_lock_also(&inode->lock);
		first = false;
		inode = next_inode(inodes, n, inode->ino);
	}
}

void vol_unlock_inodes(struct vc_inode *const *inodes, size_t n)
{
	struct vc_inode *inode = next_inode(inodes, n, 0);

	while (inode) {
		struct vc_inode *next = next_inode(inodes, n, inode->ino);

		vc_mutex_unlock(&inode->lock);
		inode = next;
	}
}

int vol_admit_record(struct vc_pool *pool, struct vc_record *rec, enum vc_log_class class)
{
	int64_t len = vc_record_len(rec);

	return len < 0 ? (int)len : vc_pool_admit_wait(pool, class, (size_t)len);
}

int vol_fit_admission(struct vc_pool *pool, struct vc_record *rec, size_t admitted)
{
	int64_t len = vc_record_len(rec);

	if (len < 0)
		vc_log_unadmit(pool->log, admitted);
	else if ((size_t)len < admitted)
		vc_log_shrink_admission(pool->log, admitted, (size_t)len);
	return len < 0 ? (int)len : 0;
}

/* ---- flush and information ---- */

int vc_volume_flush(struct vc_inode *inode, bool may_sync, struct vc_done *done)
{
	struct vc_pool *pool = vol_pool(inode);

	vc_log_flush(pool->log, VC_LOG_COMPLETED, may_sync, done);
	return 0;
}

static void info_exclusive(struct vc_pool *pool, struct vc_volume_info *info)
{
	struct vc_disk_exclusive d;
	struct vc_meta_txn *txn;
	const void *value;
	uint8_t key[9];
	size_t len;

	if (vc_meta_read_begin(pool->meta, &txn) < 0)
		return;
	if (vc_meta_get(txn, VC_DB_CAT, key, vc_row_key_ino(key, VC_ROW_EXCLUSIVE, info->ino), &value, &len) == 0 &&
	    len == sizeof(d)) {
		memcpy(&d, value, sizeof(d));
		info->exclusive_bytes = vc_le64_get(d.bytes);
		info->exclusive_ns = vc_le64_get(d.time_ns);
	}
	vc_meta_end(txn);
}

static int info_once(struct vc_inode *inode, struct vc_volume_info *ret)
{
	struct vc_pool *pool = vol_pool(inode);
	struct vc_view *view;
	uint64_t tag;
	int r;

	vc_mutex_lock(&inode->lock);
	*ret = (struct vc_volume_info){ .ino = inode->ino, .size = inode->f.size, .origin = inode->f.origin, .depth = inode->f.depth };
	ret->pending = inode->active ? vc_overlay_blocks(inode->active) : 0;
	tag = inode->tag;
	view = vc_base_view(inode->base);
	vc_mutex_unlock(&inode->lock);
	for (unsigned int i = 0; i < view->n; i++)
		ret->pending += vc_overlay_blocks(view->overlays[i]);
	r = vc_map_figures(pool->map, view->root, tag, &ret->referenced, &ret->own);
	vc_view_put(view);
	return r;
}

int vc_volume_info(struct vc_inode *inode, struct vc_volume_info *ret)
{
	int r = vol_check_image(inode);

	if (r < 0)
		return r;
	r = info_once(inode, ret);
	for (int tries = 0; r == -ESTALE && tries < VOL_STALE_TRIES; tries++) {
		r = vol_wait_for_checkpoint(vol_pool(inode));
		if (r == 0)
			r = info_once(inode, ret);
	}
	if (r == 0)
		info_exclusive(vol_pool(inode), ret);
	return r == -ESTALE ? -EIO : r;
}
