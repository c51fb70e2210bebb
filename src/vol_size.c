/* SPDX-License-Identifier: BSD-2-Clause */
/* vol_size: resize, discard, zero, reserve. Edges within a block are read, zeroed and logged whole, in the same record. */
#include "config.h"

#include <linux/falloc.h>
#include <stdlib.h>

#include "volume_impl.h"

/* Two edges, what lies between them, and the size. */
#define EDIT_RECORD_MAX (sizeof(struct vc_disk_record) + 4 * sizeof(struct vc_disk_op) + 2 * (8 + (size_t)VC_BLOCK_SIZE))

/* A change whose record needs the old content of up to two blocks. */
struct edit {
	struct vc_inode *inode;
	uint64_t busy_lba, busy_nblocks; /* excluded meanwhile */
	uint64_t from, to;               /* bytes that become zero */
	uint64_t new_size;               /* with resize, or grow */
	bool resize, grow;
	uint8_t edge[2][VC_BLOCK_SIZE];
	uint32_t sum[2];
};

/* Log block `lba` with bytes first .. last - 1 of it zeroed. */
static int edit_edge(struct edit *e, int which, uint64_t lba, size_t first, size_t last, struct vc_record *rec)
{
	int r = vol_read_blocks(e->inode, lba, 1, e->edge[which]);

	if (r < 0)
		return r;
	memset(e->edge[which] + first, 0, last - first);
	vol_sums(e->edge[which], 1, &e->sum[which]);
	vc_record_write(rec, e->inode->ino, lba, 1, e->edge[which], &e->sum[which]);
	return 0;
}

static int edit_zero(struct edit *e, struct vc_record *rec)
{
	uint64_t first = VC_DIV_UP(e->from, (uint64_t)VC_BLOCK_SIZE), last = e->to >> VC_BLOCK_SHIFT;
	size_t in_first = e->from % VC_BLOCK_SIZE, in_last = e->to % VC_BLOCK_SIZE;
	int r = 0;

	if (e->from >= e->to)
		return 0;
	if (first > last) /* within one block */
		return edit_edge(e, 0, last, in_first, in_last, rec);
	if (in_first)
		r = edit_edge(e, 0, first - 1, in_first, VC_BLOCK_SIZE, rec);
	if (r == 0 && first < last)
		vc_record_op(rec, VC_OP_ZERO, e->inode->ino, first, last - first, 0, 0);
	if (r == 0 && in_last)
		r = edit_edge(e, 1, last, 0, in_last, rec);
	return r;
}

static int edit_record(struct edit *e, struct vc_record *rec)
{
	int r = edit_zero(e, rec);

	if (r == 0 && e->resize)
		vc_record_op(rec, VC_OP_SIZE, e->inode->ino, 0, 0, e->new_size, 0);
	else if (r == 0 && e->grow)
		vc_record_op(rec, VC_OP_GROW, e->inode->ino, 0, 0, e->new_size, 0);
	return r;
}

/* `prepare` looks at the size under the lock and fills in the rest; the range stays excluded until the record is applied. */
static int edit_run(struct edit *e, void (*prepare)(struct edit *e), enum vc_log_class class, struct vc_done *done)
{
	struct vc_pool *pool = vol_pool(e->inode);
	struct vc_busy_range busy;
	struct vc_record rec;
	struct vc_log_slot slot;
	int r = vc_pool_admit_wait(pool, class, EDIT_RECORD_MAX);

	if (r < 0)
		return r;
	vc_record_init(&rec);
	vol_lock_range(e->inode, e->busy_lba, e->busy_nblocks);
	vol_busy_locked(e->inode, &busy, e->busy_lba, e->busy_nblocks);
	prepare(e);
	vc_mutex_unlock(&e->inode->lock);
	r = edit_record(e, &rec);
	if (r == 0)
		r = vol_fit_admission(pool, &rec, EDIT_RECORD_MAX);
	else
		vc_log_unadmit(pool->log, EDIT_RECORD_MAX);
	if (r == 0) {
		vc_mutex_lock(&e->inode->lock);
		r = vc_apply_record(pool, &rec, e->inode, NULL, &slot);
		vc_mutex_unlock(&e->inode->lock);
	}
	vol_idle(e->inode, &busy);
	if (r == 0)
		vol_submit(pool, &rec, &slot, true, done);
	vc_record_fini(&rec);
	return r;
}

static int edit_new(struct vc_inode *inode, struct edit **ret)
{
	int r = vol_check_image(inode);

	if (r == 0)
		r = vc_pool_writable(vol_pool(inode));
	if (r < 0)
		return r;
	*ret = calloc(1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	(*ret)->inode = inode;
	return 0;
}

static void prepare_resize(struct edit *e)
{
	uint64_t size = e->inode->f.size;

	e->from = e->new_size;
	e->to = e->new_size < size ? VC_MIN(size, VC_ROUND_UP(e->new_size, (uint64_t)VC_BLOCK_SIZE)) : e->new_size;
	if (e->to % VC_BLOCK_SIZE) /* what lies beyond the end within a block is zero already: take the whole rest */
		e->to = VC_ROUND_UP(e->to, (uint64_t)VC_BLOCK_SIZE);
	if (e->new_size >= size)
		e->to = e->from;
}

int vc_volume_resize(struct vc_inode *inode, uint64_t size, struct vc_done *done)
{
	struct edit *e;
	int r = size > VC_IMAGE_SIZE_MAX ? -EFBIG : edit_new(inode, &e);

	if (r < 0)
		return r;
	e->resize = true;
	e->new_size = size;
	e->busy_lba = size >> VC_BLOCK_SHIFT;
	e->busy_nblocks = VC_IMAGE_BLOCKS_MAX - e->busy_lba + 1;
	r = edit_run(e, prepare_resize, VC_LOG_META, done);
	free(e);
	return r;
}

/* Nothing beyond the end of the image needs to be zeroed. */
static void prepare_zero(struct edit *e)
{
	uint64_t end = VC_ROUND_UP(e->inode->f.size, (uint64_t)VC_BLOCK_SIZE);

	e->to = VC_MIN(e->to, end);
	e->from = VC_MIN(e->from, e->to);
	e->grow = e->grow && e->new_size > e->inode->f.size;
}

static void prepare_reserve(struct edit *e)
{
	e->from = e->to = 0;
	e->grow = e->grow && e->new_size > e->inode->f.size;
}

/* fallocate(2) mode 0 promises room: refuse when the disk cannot hold it. */
static int reserve_check(struct vc_pool *pool, uint64_t len)
{
	struct vc_io_space space;
	int r = vc_io_space(pool->io, pool->dir, &space);

	if (r < 0)
		return r;
	return len > space.free || atomic_load(&pool->full) ? -ENOSPC : 0;
}

int vc_volume_allocate(struct vc_inode *inode, int mode, uint64_t offset, uint64_t len, struct vc_done *done)
{
	bool keep = mode & FALLOC_FL_KEEP_SIZE, zero = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
	struct edit *e;
	int r;

	if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) ||
	    ((mode & FALLOC_FL_PUNCH_HOLE) && (!keep || (mode & FALLOC_FL_ZERO_RANGE))))
		return -EOPNOTSUPP;
	if (len == 0)
		return -EINVAL;
	if (offset > VC_IMAGE_SIZE_MAX || len > VC_IMAGE_SIZE_MAX - offset)
		return -EFBIG;
	r = edit_new(inode, &e);
	if (r == 0 && !zero)
		r = reserve_check(vol_pool(inode), len);
	if (r < 0)
		return r;
	e->from = offset;
	e->to = offset + len;
	e->new_size = offset + len;
	e->grow = !keep;
	e->busy_lba = offset >> VC_BLOCK_SHIFT;
	e->busy_nblocks = VC_DIV_UP(offset + len, (uint64_t)VC_BLOCK_SIZE) - e->busy_lba;
	r = edit_run(e, zero ? prepare_zero : prepare_reserve, zero ? VC_LOG_META : VC_LOG_DATA, done);
	free(e);
	return r;
}
