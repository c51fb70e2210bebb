/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_copy: copy_file_range, by which plain `cp` clones.
 *
 * New kernels send the whole copy in one request (fs_wire makes the two kinds look alike). Older ones send pieces of
 * at most FS_COPY_PIECE; so that a copy of a running image is still of one point in time, the first such piece, when
 * it looks like the begin of a whole copy (offset 0 to offset 0 of an empty file), pins the source: a hidden clone
 * from which the contiguous next pieces of the same two handles are served. The pin goes with the last piece, with a
 * piece that does not continue, when either handle is closed, or when no piece came for FS_PIN_NS.
 *
 * The kernel drops what it caches of the destination itself, after the answer.
 */
#include "config.h"
#include "fs_impl.h"

#include <stdlib.h>

/** A copy in pieces under way. */
struct copy_pin {
	struct vc_list link;                /* in fs->pins until dropped */
	unsigned int refs;                  /* table_lock: one for the list, one for each piece in progress */
	struct vc_inode *inode;             /* the source as it was at the first piece */
	const struct fs_handle *in, *out;   /* compared only */
	uint64_t next;                      /* table_lock: offset of the next piece, in both */
	uint64_t until;                     /* table_lock: vc_mono_ns when it is dropped */
};

/* vc_inode_put takes locks that rank before table_lock: what has lost its last reference is freed after it. */
static void copy_unref_locked(struct copy_pin *pin, struct vc_list *dead)
{
	if (--pin->refs == 0)
		vc_list_add_tail(dead, &pin->link);
}

static void copy_drop_locked(struct copy_pin *pin, struct vc_list *dead)
{
	vc_list_del(&pin->link);
	copy_unref_locked(pin, dead);
}

static void copy_free(struct vc_list *dead)
{
	vc_list_for_each_safe(it, tmp, dead) {
		struct copy_pin *pin = vc_list_entry(it, struct copy_pin, link);

		vc_inode_put(pin->inode);
		free(pin);
	}
}

static struct copy_pin *copy_find_locked(struct vc_fs *fs, const struct fs_handle *out)
{
	vc_list_for_each(it, &fs->pins) {
		struct copy_pin *pin = vc_list_entry(it, struct copy_pin, link);

		if (pin->out == out)
			return pin;
	}
	return NULL;
}

void fs_copy_release(struct vc_fs *fs, struct fs_handle *h)
{
	struct vc_list dead;

	vc_list_init(&dead);
	vc_mutex_lock(&fs->table_lock);
	vc_list_for_each_safe(it, tmp, &fs->pins) {
		struct copy_pin *pin = vc_list_entry(it, struct copy_pin, link);

		if (pin->out == h || pin->in == h)
			copy_drop_locked(pin, &dead);
	}
	vc_mutex_unlock(&fs->table_lock);
	copy_free(&dead);
}

uint64_t fs_copy_expire(struct vc_fs *fs)
{
	uint64_t now = vc_mono_ns(), first = UINT64_MAX;
	struct vc_list dead;

	vc_list_init(&dead);
	vc_mutex_lock(&fs->table_lock);
	vc_list_for_each_safe(it, tmp, &fs->pins) {
		struct copy_pin *pin = vc_list_entry(it, struct copy_pin, link);

		if (pin->refs > 1)
			pin->until = now + FS_PIN_NS;
		if (pin->until <= now)
			copy_drop_locked(pin, &dead);
		else
			first = VC_MIN(first, pin->until);
	}
	vc_mutex_unlock(&fs->table_lock);
	copy_free(&dead);
	return first;
}

/* ---- one piece ---- */

struct copy_piece {
	struct fs_handle *in, *out;
	uint64_t off_in, off_out, len;
};

/** A new pin when this piece looks like the first of a whole copy, otherwise (or if pinning fails) NULL. */
static struct copy_pin *copy_begin(struct vc_fs *fs, const struct copy_piece *piece)
{
	struct vc_attr src, dst;
	struct copy_pin *pin;

	if (piece->len != FS_COPY_PIECE || piece->off_in != 0 || piece->off_out != 0)
		return NULL;
	vc_inode_attr(piece->in->inode, &src);
	vc_inode_attr(piece->out->inode, &dst);
	if (dst.size != 0 || src.size <= FS_COPY_PIECE)
		return NULL;
	pin = calloc(1, sizeof(*pin));
	if (!pin)
		return NULL;
	if (vc_volume_pin(piece->in->inode, &pin->inode) < 0) {
		free(pin);
		return NULL;
	}
	pin->refs = 2;
	pin->in = piece->in;
	pin->out = piece->out;
	pin->until = vc_mono_ns() + FS_PIN_NS;
	vc_mutex_lock(&fs->table_lock);
	vc_list_add_tail(&fs->pins, &pin->link);
	vc_mutex_unlock(&fs->table_lock);
	fs_queue_wake(&fs->finish);
	return pin;
}

/** The pin of the copy that this piece continues or begins, with a reference; NULL: the source as it is now. */
static struct copy_pin *copy_pin_of(struct vc_fs *fs, const struct copy_piece *piece)
{
	struct copy_pin *pin;
	struct vc_list dead;

	vc_list_init(&dead);
	vc_mutex_lock(&fs->table_lock);
	pin = copy_find_locked(fs, piece->out);
	if (pin && (pin->in != piece->in || pin->next != piece->off_in || pin->next != piece->off_out)) {
		copy_drop_locked(pin, &dead);
		pin = NULL;
	}
	if (pin)
		pin->refs++;
	vc_mutex_unlock(&fs->table_lock);
	copy_free(&dead);
	return pin ? pin : copy_begin(fs, piece);
}

/** The piece is done: move on, or drop the pin after the last one. */
static void copy_advance(struct vc_fs *fs, struct copy_pin *pin, uint64_t copied, bool failed)
{
	struct vc_list dead;

	vc_list_init(&dead);
	vc_mutex_lock(&fs->table_lock);
	pin->next += copied;
	pin->until = vc_mono_ns() + FS_PIN_NS;
	if ((failed || copied < FS_COPY_PIECE) && !vc_list_empty(&pin->link))
		copy_drop_locked(pin, &dead);
	copy_unref_locked(pin, &dead);
	vc_mutex_unlock(&fs->table_lock);
	copy_free(&dead);
}

static void copy_answer(struct fs_op *op)
{
	struct { uint64_t bytes_copied; } wide = { op->len };

	if (op->wide)
		fuse_reply_buf(op->req, (char *)&wide, sizeof(wide));
	else
		fuse_reply_write(op->req, op->len);
	fs_op_free(op);
}

static void copy_notify(struct fs_job *job)
{
	struct fs_op *op = vc_container_of(job, struct fs_op, job);

	fs_notify_attr(op->fs, op->ino);
	copy_answer(op);
}

static void copy_done(struct fs_op *op, int error)
{
	if (op->data)
		copy_advance(op->fs, op->data, error < 0 ? 0 : op->len, error < 0);
	if (error < 0) {
		fs_op_reply_err(op, error);
	} else if (op->ino) {
		op->job.fn = copy_notify;
		fs_queue_add(&op->fs->notify, &op->job);
	} else {
		copy_answer(op);
	}
}

void fs_copy_file_range(fuse_req_t req, fuse_ino_t ino_in VC_UNUSED, off_t off_in, struct fuse_file_info *fi_in,
			fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
	struct copy_piece piece = { fs_handle_of(fi_in), fs_handle_of(fi_out), (uint64_t)off_in, (uint64_t)off_out, len };
	bool wide = (unsigned int)flags & FS_MARK;
	struct copy_pin *pin;
	struct fs_op *op;
	int r;

	if (piece.in->magic || piece.out->magic || off_in < 0 || off_out < 0 || ((unsigned int)flags & ~FS_MARK)) {
		fuse_reply_err(req, piece.in->magic || piece.out->magic ? EXDEV : EINVAL);
		return;
	}
	op = fs_op_new(req, copy_done);
	if (!op)
		return;
	pin = wide ? NULL : copy_pin_of(op->fs, &piece);
	op->data = pin;
	op->wide = wide;
	r = fs_drop_mode_bits(req, piece.out->inode);
	op->ino = r > 0 ? ino_out : 0;
	if (r >= 0)
		r = vc_volume_copy_range(pin ? pin->inode : piece.in->inode, piece.off_in, piece.out->inode, piece.off_out, len, false,
					 &op->len, &op->done);
	fs_op_started(op, r);
}
