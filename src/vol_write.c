/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vol_write: a write, on one of three ways.
 *
 *   whole blocks      admit, lock, log and apply, unlock, submit: nothing is read, nothing waits
 *   partial blocks    the edge blocks are read, completed and logged whole; meanwhile they are busy, so that no other write to them
 *                     gets between
 *   large and aligned straight to chunk files; the log gets the addresses
 *
 * A write that the log has no room for is copied and parked; it goes on from here on another thread.
 */
#include "config.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "volume_impl.h"

#define WRITE_MAX ((1u << 20) + VC_BLOCK_SIZE)

struct write {
	struct vc_parked parked;
	struct vc_inode *inode; /* counted when parked */
	const uint8_t *buf;
	size_t len;
	uint64_t offset;
	unsigned int flags;
	struct vc_done *done;
	bool direct;
	struct vc_disk_direct *items; /* direct, once admitted: chunks written */
	uint32_t nitems;
};

static uint64_t write_lba(const struct write *w) { return w->offset >> VC_BLOCK_SHIFT; }
static uint64_t write_nblocks(const struct write *w)
{
	return VC_DIV_UP(w->offset + w->len, (uint64_t)VC_BLOCK_SIZE) - write_lba(w);
}
static bool write_has_head(const struct write *w) { return w->offset % VC_BLOCK_SIZE || w->len < VC_BLOCK_SIZE; }
static bool write_has_tail(const struct write *w)
{
	return (w->offset + w->len) % VC_BLOCK_SIZE && (write_nblocks(w) > 1 || !write_has_head(w));
}

/* Items that a direct write needs at most. */
static uint64_t write_items_max(const struct write *w)
{
	return write_nblocks(w) / vol_pool(w->inode)->chunk_blocks + 2;
}

/* Size of the record `w` will make, of a direct write before its chunks are written: at most; the same computation as write_build. */
static size_t write_record_len(const struct write *w)
{
	uint64_t n = write_nblocks(w), head = write_has_head(w), tail = write_has_tail(w), middle = n - head - tail;
	size_t len = sizeof(struct vc_disk_record) + sizeof(struct vc_disk_op); /* GROW */

	if (w->direct)
		return len + sizeof(struct vc_disk_op) + (w->items ? w->nitems : write_items_max(w)) * sizeof(struct vc_disk_direct);
	len += (head + tail) * (sizeof(struct vc_disk_op) + 8 + VC_BLOCK_SIZE);
	if (middle)
		len += sizeof(struct vc_disk_op) + VC_ROUND_UP(middle * 4, UINT64_C(8)) + middle * VC_BLOCK_SIZE;
	return len;
}

struct write_edges {
	uint8_t head[VC_BLOCK_SIZE], tail[VC_BLOCK_SIZE];
};

static int write_read_edges(const struct write *w, struct write_edges *e)
{
	uint64_t end = w->offset + w->len;
	size_t in_head = w->offset % VC_BLOCK_SIZE, in_tail = end % VC_BLOCK_SIZE;
	int r = 0;

	if (write_has_head(w)) {
		r = vol_read_blocks(w->inode, write_lba(w), 1, e->head);
		memcpy(e->head + in_head, w->buf, VC_MIN(w->len, VC_BLOCK_SIZE - in_head));
	}
	if (r == 0 && write_has_tail(w)) {
		r = vol_read_blocks(w->inode, end >> VC_BLOCK_SHIFT, 1, e->tail);
		memcpy(e->tail, w->buf + w->len - in_tail, in_tail);
	}
	return r;
}

static void write_build(const struct write *w, const struct write_edges *e, struct vc_record *rec)
{
	uint32_t sums[VOL_WINDOW + 2];
	uint64_t ino = w->inode->ino, lba = write_lba(w), n = write_nblocks(w);
	uint64_t head = write_has_head(w), tail = write_has_tail(w);

	if (w->items) {
		vc_record_direct(rec, ino, lba, n, w->items, w->nitems);
		vc_record_op(rec, VC_OP_GROW, ino, 0, 0, w->offset + w->len, 0);
		return;
	}
	if (head) {
		vol_sums(e->head, 1, sums);
		vc_record_write(rec, ino, lba, 1, e->head, sums);
	}
	if (n > head + tail) {
		const uint8_t *middle = w->buf + (head ? VC_BLOCK_SIZE - w->offset % VC_BLOCK_SIZE : 0);

		vol_sums(middle, n - head - tail, sums);
		vc_record_write(rec, ino, lba + head, n - head - tail, middle, sums);
	}
	if (tail) {
		vol_sums(e->tail, 1, sums);
		vc_record_write(rec, ino, lba + n - 1, 1, e->tail, sums);
	}
	vc_record_op(rec, VC_OP_GROW, ino, 0, 0, w->offset + w->len, 0);
}

/* No record will name the chunks of a direct write. */
static void write_drop_chunks(const struct write *w)
{
	struct vc_pool *pool = vol_pool(w->inode);

	if (!w->items)
		return;
	vc_chunk_direct_done(pool->chunks, w->items, w->nitems, 0);
	atomic_fetch_sub(&pool->direct_bytes, w->len);
}

/* Admitted: make the record, log it, apply it, hand it in. */
static int write_log(struct write *w, const struct write_edges *e, struct vc_busy_range *busy)
{
	struct vc_pool *pool = vol_pool(w->inode);
	struct vc_record rec;
	struct vc_log_slot slot;
	int64_t len;
	int r;

	vc_record_init(&rec);
	write_build(w, e, &rec);
	len = vc_record_len(&rec);
	if (len < 0) {
		vc_log_unadmit(pool->log, write_record_len(w));
		r = (int)len;
	} else {
		if (busy)
			vc_mutex_lock(&w->inode->lock);
		else
			vol_lock_range(w->inode, write_lba(w), write_nblocks(w));
		r = vc_apply_record(pool, &rec, w->inode, NULL, &slot);
		if (r == 0 && w->items)
			atomic_fetch_add(&vc_pool_slice_of(slot.section)->direct_bytes, w->len);
		vc_mutex_unlock(&w->inode->lock);
	}
	if (r == 0 && w->items)
		vc_chunk_direct_done(pool->chunks, w->items, w->nitems, slot.lsn);
	else if (r < 0)
		write_drop_chunks(w);
	if (r == 0)
		vol_submit(pool, &rec, &slot, w->flags & VC_WRITE_DSYNC, w->done);
	vc_record_fini(&rec);
	return r;
}

static int write_partial(struct write *w)
{
	struct write_edges *e = malloc(sizeof(*e));
	struct vc_busy_range busy;
	int r = e ? 0 : -ENOMEM;

	if (r == 0) {
		vol_lock_range(w->inode, write_lba(w), write_nblocks(w));
		vol_busy_locked(w->inode, &busy, write_lba(w), write_nblocks(w));
		vc_mutex_unlock(&w->inode->lock);
		r = write_read_edges(w, e);
		if (r == 0) {
			r = write_log(w, e, &busy);
			vol_idle(w->inode, &busy);
			free(e);
			return r;
		}
		vol_idle(w->inode, &busy);
	}
	free(e);
	vc_log_unadmit(vol_pool(w->inode)->log, write_record_len(w));
	return r;
}

/* Straight to chunk files: the log has room for what will name them. */
static int write_direct(struct write *w)
{
	struct vc_pool *pool = vol_pool(w->inode);
	size_t most = write_record_len(w);
	struct vc_disk_direct *items = calloc(write_items_max(w), sizeof(*items));
	struct vc_log_figures figures;
	int r = items ? 0 : -ENOMEM;

	vc_log_figures(pool->log, &figures);
	atomic_fetch_add(&pool->direct_bytes, w->len);
	if (r == 0)
		r = vc_chunk_append_direct(pool->chunks, w->inode->ino, write_lba(w), figures.last_lsn, w->buf, write_nblocks(w),
					   items, &w->nitems);
	if (r == 0) {
		w->items = items;
		vc_log_shrink_admission(pool->log, most, write_record_len(w));
		r = write_log(w, NULL, NULL);
		w->items = NULL;
	} else {
		vc_log_unadmit(pool->log, most);
		atomic_fetch_sub(&pool->direct_bytes, w->len);
		if (r == -EROFS || r == -EIO)
			vc_pool_fail(pool, r);
	}
	free(items);
	return r;
}

static int write_admitted(struct write *w)
{
	if (w->direct)
		return write_direct(w);
	if ((write_has_head(w) || write_has_tail(w)))
		return write_partial(w);
	return write_log(w, NULL, NULL);
}

/* ---- parking ---- */

static void write_free(struct write *w)
{
	vc_inode_put(w->inode);
	free((void *)(uintptr_t)w->buf);
	free(w);
}

static void write_resume(struct vc_parked *parked, int error)
{
	struct write *w = vc_container_of(parked, struct write, parked);

	if (!error)
		error = write_admitted(w);
	if (error)
		vc_done_call(w->done, error);
	write_free(w);
}

static int write_park(const struct write *w)
{
	struct write *copy = malloc(sizeof(*copy));
	uint8_t *buf = malloc(w->len);

	if (!copy || !buf) {
		free(copy);
		free(buf);
		return -ENOMEM;
	}
	*copy = *w;
	memcpy(buf, w->buf, w->len);
	copy->buf = buf;
	copy->parked = (struct vc_parked){ .class = VC_LOG_DATA, .len = write_record_len(w), .fn = write_resume };
	vc_inode_hold(copy->inode);
	vc_pool_park(vol_pool(w->inode), &copy->parked);
	return 0;
}

static int write_start(struct write *w)
{
	int r = vc_pool_admit(vol_pool(w->inode), VC_LOG_DATA, write_record_len(w));

	return r == -EAGAIN ? write_park(w) : r < 0 ? r : write_admitted(w);
}

static bool write_is_direct(const struct write *w)
{
	struct vc_pool *pool = vol_pool(w->inode);
	uint64_t log_bytes = vc_le64_get(pool->disk.log_segment_size) * vc_le32_get(pool->disk.log_segments);

	return w->len >= VOL_DIRECT_MIN && w->offset % VC_BLOCK_SIZE == 0 && w->len % VC_BLOCK_SIZE == 0 &&
		atomic_load(&pool->direct_bytes) < VC_DIRECT_MAX_LOGS * log_bytes;
}

/* ---- entry ---- */

static int write_kill_priv(struct vc_inode *inode)
{
	struct vc_attr none = { .ino = 0 };

	return vc_attr_set(inode, &none, VC_SET_KILL_PRIV);
}

/* The end of the file is only known under the lock, and must stay the end until we have written there. */
static int write_append(struct write *w)
{
	struct vc_pool *pool = vol_pool(w->inode);
	struct vc_busy_range busy;
	struct vc_wait wait;
	struct write inner = *w;
	size_t most = sizeof(struct vc_disk_record) + 4 * sizeof(struct vc_disk_op) + 2 * (8 + (size_t)VC_BLOCK_SIZE) +
		VC_ROUND_UP(w->len / VC_BLOCK_SIZE * 4, (size_t)8) + w->len;
	int r = vc_pool_admit_wait(pool, VC_LOG_DATA, most); /* see vol_fit_admission */

	if (r < 0)
		return r;
	vol_lock_range(w->inode, 0, VC_IMAGE_BLOCKS_MAX);
	inner.offset = w->inode->f.size;
	vol_busy_locked(w->inode, &busy, inner.offset >> VC_BLOCK_SHIFT, VC_IMAGE_BLOCKS_MAX);
	vc_mutex_unlock(&w->inode->lock);
	if (inner.offset + w->len > VC_IMAGE_SIZE_MAX) {
		vc_log_unadmit(pool->log, most);
		r = -EFBIG;
	}
	if (r == 0) {
		struct write_edges *e = malloc(sizeof(*e));

		vc_log_shrink_admission(pool->log, most, write_record_len(&inner));
		vc_wait_init(&wait);
		inner.done = &wait.done;
		r = e ? write_read_edges(&inner, e) : -ENOMEM;
		if (r == 0)
			r = write_log(&inner, e, &busy);
		else
			vc_log_unadmit(pool->log, write_record_len(&inner));
		r = vc_wait_result(&wait, r);
		free(e);
	}
	vol_idle(w->inode, &busy);
	if (r == 0)
		vc_done_call(w->done, 0);
	return r;
}

/* A pool with a small log: one record cannot hold the data, so it is made of several, each a prefix of it. */
static int write_in_pieces(const struct write *w)
{
	size_t piece = VC_ROUND_DOWN(vc_log_record_max(vol_pool(w->inode)->log) / 4, (size_t)VC_BLOCK_SIZE);
	unsigned int flags = w->flags & ~(unsigned int)VC_WRITE_KILL_PRIV;
	int r = 0;

	for (size_t at = 0; at < w->len && r == 0; at += piece) {
		struct vc_wait wait;

		vc_wait_init(&wait);
		r = vc_volume_write(w->inode, w->buf + at, VC_MIN(piece, w->len - at), w->offset + at, flags, &wait.done);
		r = vc_wait_result(&wait, r);
	}
	if (r == 0)
		vc_done_call(w->done, 0);
	return r;
}

int vc_volume_write(struct vc_inode *inode, const void *buf, size_t len, uint64_t offset, unsigned int flags, struct vc_done *done)
{
	struct write w = { .inode = inode, .buf = buf, .len = len, .offset = offset, .flags = flags, .done = done };
	int r = vol_check_image(inode);

	if (r == 0)
		r = vc_pool_writable(vol_pool(inode));
	if (r == 0 && (len > WRITE_MAX))
		r = -EINVAL;
	if (r == 0 && !(flags & VC_WRITE_APPEND) && (offset > VC_IMAGE_SIZE_MAX || len > VC_IMAGE_SIZE_MAX - offset))
		r = -EFBIG;
	if (r == 0 && (flags & VC_WRITE_KILL_PRIV))
		r = write_kill_priv(inode);
	if (r < 0)
		return r;
	if (len == 0) {
		vc_done_call(done, 0);
		return 0;
	}
	w.direct = !(flags & VC_WRITE_APPEND) && write_is_direct(&w);
	if (!w.direct && len > vc_log_record_max(vol_pool(inode)->log) / 4)
		return write_in_pieces(&w);
	if (flags & VC_WRITE_APPEND)
		return write_append(&w);
	return write_start(&w);
}
