/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_data: read, write, flush, fallocate, lseek.
 *
 * Writes and flushes are answered by the completion itself: nothing else is to be done then, and the handle, which
 * holds the inode, cannot go before the answer.
 *
 * Durability is asked for by each WRITE (its flags carry the file's and those of pwritev2): for direct handles the
 * kernel sends no FSYNC after it.
 *
 * Appends go where the kernel says. It holds the inode lock and knows the size; it may send the parts of a large
 * append at the same time, and they may arrive in any order, so "at the end, wherever that is" would mix them up.
 */
#include "config.h"
#include "fs_impl.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

/* With so many workers one of them may sync for a flush, which saves waking the log's thread; the others go on serving. */
#define DATA_SYNC_WORKERS 4u

/* ---- read ---- */

/* A read that is answered later. */
struct data_later {
	struct vc_read_later later;
	struct fs_job job;
	fuse_req_t req;
	struct vc_inode *inode; /* the handle holds it until the answer */
	size_t size;
	uint64_t offset;
};

static void data_read_answer(fuse_req_t req, const char *buf, ssize_t n)
{
	atomic_fetch_sub_explicit(&fs_of(req)->nreads, 1, memory_order_relaxed);
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

/* It was not to be had without waiting, or is damaged. On the reread queue: it waits for the device. */
static void data_read_again(struct fs_job *job)
{
	struct data_later *l = vc_container_of(job, struct data_later, job);
	char *buf = malloc(l->size);

	data_read_answer(l->req, buf, buf ? vc_volume_read(l->inode, buf, l->size, l->offset) : -ENOMEM);
	free(buf);
	free(l);
}

/* struct vc_read_later.done */
static void data_read_arrived(struct vc_read_later *later, const void *data, size_t len)
{
	struct data_later *l = vc_container_of(later, struct data_later, later);

	if (data) {
		data_read_answer(l->req, data, (ssize_t)len);
		free(l);
	} else {
		l->job.fn = data_read_again;
		fs_queue_add(&fs_of(l->req)->reread, &l->job);
	}
}

/* A read that is the only one is waited for: handing it over would cost two changes of thread, and there is nothing to be done meanwhile. */
static void data_read_small(fuse_req_t req, struct vc_inode *inode, size_t size, uint64_t offset)
{
	bool alone = atomic_fetch_add_explicit(&fs_of(req)->nreads, 1, memory_order_relaxed) == 0;
	struct data_later *l = alone ? NULL : malloc(sizeof(*l));
	char *buf = fs_worker_self()->buffer;
	ssize_t n;

	if (l) {
		*l = (struct data_later){ .later.done = data_read_arrived, .req = req, .inode = inode, .size = size, .offset = offset };
		n = vc_volume_read_later(inode, buf, size, offset, &l->later);
		if (n == -EINPROGRESS)
			return;
		free(l);
	} else {
		n = vc_volume_read(inode, buf, size, offset);
	}
	data_read_answer(req, buf, n);
}

/* What the cache holds goes to the kernel from there. */
static void data_read_large(fuse_req_t req, struct vc_inode *inode, size_t size, uint64_t offset)
{
	struct vc_pieces pieces;
	ssize_t n = vc_volume_read_pieces(inode, fs_worker_self()->buffer, size, offset, &pieces);

	vc_inode_hold(inode); /* the handle may be gone once the answer is there */
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		fuse_reply_iov(req, pieces.iov, (int)pieces.n);
	vc_pieces_put(inode, &pieces);
	if (n >= (ssize_t)VC_READ_AHEAD_MIN)
		vc_volume_read_ahead(inode, offset, (size_t)n);
	vc_inode_put(inode);
}

void fs_read(fuse_req_t req, fuse_ino_t ino VC_UNUSED, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct fs_handle *h = fs_handle_of(fi);

	size = VC_MIN(size, FS_REQUEST_MAX);
	if (h->magic)
		fs_magic_read(req, size, off);
	else if (off < 0)
		fuse_reply_err(req, EINVAL);
	else if (size < VC_PIECES_BYTES_MIN)
		data_read_small(req, h->inode, size, (uint64_t)off);
	else
		data_read_large(req, h->inode, size, (uint64_t)off);
}

/* ---- write ---- */

static void data_write_answer(struct fs_op *op)
{
	fuse_reply_write(op->req, op->len);
	fs_op_free(op);
}

static void data_write_notify_pages(struct fs_job *job)
{
	struct fs_op *op = vc_container_of(job, struct fs_op, job);

	fs_notify_range(op->fs, op->ino, op->offset, op->len);
	data_write_answer(op);
}

static void data_write_notify_attr(struct fs_job *job)
{
	struct fs_op *op = vc_container_of(job, struct fs_op, job);

	fs_notify_attr(op->fs, op->ino);
	data_write_answer(op);
}

/**
 * Pages are dropped for direct handles only: while a cached one writes, the kernel holds the pages until the answer. Pages
 * of a mapping are written back through any handle, so that a direct handle does not tell: the request does. For the same reason the
 * answer of a cached write may not wait in the notify queue, behind a range that waits for the page.
 */
static void data_write_queue(struct fs_op *op)
{
	bool pages = op->handle->direct && !op->from_cache;

	op->job.fn = pages ? data_write_notify_pages : data_write_notify_attr;
	fs_queue_add(pages ? &op->fs->notify : &op->fs->finish, &op->job);
}

static void data_written(struct fs_op *op, int error)
{
	bool cached = !op->from_cache && fs_handle_changed(op->handle);

	if (error < 0) {
		fs_op_reply_err(op, error);
	} else if (cached || op->wide) {
		data_write_queue(op);
	} else {
		data_write_answer(op);
	}
}

/** The kernel does not know that a write drops these bits, and would go on showing them. */
static bool data_drops_mode_bits(const struct fs_handle *h, unsigned int flags)
{
	struct vc_attr attr;

	if (!(flags & VC_WRITE_KILL_PRIV))
		return false;
	vc_inode_attr(h->inode, &attr);
	return attr.mode & (S_ISUID | S_ISGID);
}

static unsigned int data_write_flags(const struct fuse_file_info *fi)
{
	unsigned int flags = 0;

	if (fi->flags & O_DSYNC) /* O_SYNC contains it */
		flags |= VC_WRITE_DSYNC;
	if ((unsigned int)fi->flags & FS_MARK)
		flags |= VC_WRITE_KILL_PRIV;
	return flags;
}

void fs_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	unsigned int flags = data_write_flags(fi);
	struct fs_handle *h = fs_handle_of(fi);
	struct fs_op *op;

	if (h->magic) {
		fs_magic_write(req, h, buf, size);
		return;
	}
	op = fs_op_new(req, data_written);
	if (!op)
		return;
	op->light = true;
	op->handle = h;
	op->ino = ino;
	op->offset = (uint64_t)off;
	op->len = size;
	op->from_cache = fi->writepage;
	op->wide = data_drops_mode_bits(h, flags);
	fs_op_started_light(op, off < 0 ? -EINVAL :
					  vc_volume_write(h->inode, buf, size, (uint64_t)off, flags, &op->done));
}

/* ---- flush, allocate, seek ---- */

void fs_fsync(fuse_req_t req, fuse_ino_t ino VC_UNUSED, int datasync VC_UNUSED, struct fuse_file_info *fi)
{
	struct fs_handle *h = fs_handle_of(fi);
	struct fs_op *op;

	if (h->magic) {
		fuse_reply_err(req, 0);
		return;
	}
	op = fs_op_new(req, fs_op_reply_err);
	if (!op)
		return;
	op->light = true;
	fs_op_started_light(op, vc_volume_flush(h->inode, op->fs->nworkers >= DATA_SYNC_WORKERS, &op->done));
}

int fs_drop_mode_bits(fuse_req_t req, struct vc_inode *inode)
{
	struct vc_attr attr;
	int r;

	if (fuse_req_ctx(req)->uid == 0)
		return 0;
	vc_inode_attr(inode, &attr);
	if (!(attr.mode & (S_ISUID | S_ISGID)))
		return 0;
	r = vc_attr_set(inode, &attr, VC_SET_KILL_PRIV);
	return r < 0 ? r : 1;
}

static void data_allocated_notify(struct fs_job *job)
{
	struct fs_op *op = vc_container_of(job, struct fs_op, job);

	fs_notify_attr(op->fs, op->ino);
	fs_op_reply_err(op, 0);
}

static void data_allocated(struct fs_op *op, int error)
{
	if (error < 0 || !op->wide) {
		fs_op_reply_err(op, error);
		return;
	}
	op->job.fn = data_allocated_notify;
	fs_queue_add(&op->fs->notify, &op->job);
}

/** The kernel drops what it caches of the range itself, after the answer. */
void fs_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t len, struct fuse_file_info *fi)
{
	struct fs_handle *h = fs_handle_of(fi);
	struct fs_op *op;
	int r;

	if (h->magic || offset < 0 || len <= 0) {
		fuse_reply_err(req, h->magic ? EOPNOTSUPP : EINVAL);
		return;
	}
	op = fs_op_new(req, data_allocated);
	if (!op)
		return;
	op->light = true;
	op->ino = ino;
	r = fs_drop_mode_bits(req, h->inode);
	op->wide = r > 0;
	fs_op_started_light(op, r < 0 ? r : vc_volume_allocate(h->inode, mode, (uint64_t)offset, (uint64_t)len, &op->done));
}

void fs_lseek(fuse_req_t req, fuse_ino_t ino VC_UNUSED, off_t off, int whence, struct fuse_file_info *fi)
{
	struct fs_handle *h = fs_handle_of(fi);
	uint64_t found;
	int r;

	if (h->magic || off < 0) {
		fuse_reply_err(req, h->magic ? EINVAL : ENXIO);
		return;
	}
	r = vc_volume_seek(h->inode, (uint64_t)off, whence, &found);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_lseek(req, (off_t)found);
}
