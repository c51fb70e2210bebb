/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_ioctl: vclonefs.h, and the question of QEMU for the granularity of direct I/O.
 *
 * Nothing has been checked by the kernel: anybody who can open anything for reading gets here with any bytes. Each
 * request is checked in this order: is the number known (ENOTTY), do the kernel's and the struct's sizes fit, are
 * reserved fields zero and strings terminated (EINVAL), what kind of descriptor is it, may the caller.
 *
 * A request that changes something is answered when that is durable and the kernel's caches have been told.
 */
#include "config.h"
#include "fs_impl.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fs_text.h"
#include "scrub.h"
#include <vclonefs.h>

/** As xfs/xfs_fs.h has it, for XFS_IOC_DIOINFO. */
struct ioctl_dioattr {
	uint32_t mem, min_io, max_io;
};
#define IOCTL_DIOINFO _IOR('X', 30, struct ioctl_dioattr)

/** One request being looked at. */
struct ioctl_call {
	fuse_req_t req;
	struct vc_fs *fs;
	struct fs_handle *h;
	uint64_t ino;
	const void *in; /* bytes of the struct; not aligned */
};

static bool ioctl_is_zero(const uint64_t *words, size_t count)
{
	return vc_is_zero(words, count * sizeof(*words));
}

static bool ioctl_is_terminated(const char *text, size_t len)
{
	return memchr(text, '\0', len) != NULL;
}

/* ---- answers of requests that change something ---- */

static void ioctl_notified(struct fs_job *job)
{
	struct fs_op *op = vc_container_of(job, struct fs_op, job);

	if (op->wide)
		fs_notify_range(op->fs, op->ino, op->offset, op->len);
	else
		fs_notify_attr(op->fs, op->ino);
	if (op->grown)
		fs_notify_grown(op->fs, op->ino, op->handle->inode, op->offset + op->count);
	fuse_reply_ioctl(op->req, 0, NULL, 0);
	fs_op_free(op);
}

/** op->ino has changed: its attributes, or (op->wide) pages as well. */
static void ioctl_changed(struct fs_op *op, int error)
{
	free(op->data);
	if (error < 0) {
		fs_op_reply_err(op, error);
		return;
	}
	op->job.fn = ioctl_notified;
	fs_queue_add(&op->fs->notify, &op->job);
}

/* ---- clones ---- */

/** Directory that relative paths of a request begin at: with a reference. */
static int ioctl_base(const struct ioctl_call *c, struct vc_inode **ret)
{
	struct vc_attr attr;

	vc_inode_attr(c->h->inode, &attr);
	if (!S_ISDIR(attr.mode))
		return vc_inode_get(c->fs->pool, VC_ROOT_INO, ret);
	vc_inode_hold(c->h->inode);
	*ret = c->h->inode;
	return 0;
}

/**
 * The image of the descriptor itself as a source. It may be read by whoever could open it so; for others the clone looks at their
 * right to, under its locks (ioctl_owner).
 */
static int ioctl_own_image(const struct ioctl_call *c, struct vc_inode **ret)
{
	struct vc_attr attr;

	vc_inode_attr(c->h->inode, &attr);
	if (!S_ISREG(attr.mode) || c->h->magic)
		return S_ISDIR(attr.mode) && !c->h->magic ? -EISDIR : -EINVAL;
	vc_inode_hold(c->h->inode);
	*ret = c->h->inode;
	return 0;
}

/* A request that was looked at: its operation, started with `start`, answers it. */
static void ioctl_start(const struct ioctl_call *c,
			int (*start)(const struct ioctl_call *c, const struct vc_caller *caller, struct fs_op *op))
{
	struct fs_op *op = fs_op_new(c->req, ioctl_changed);
	struct fs_caller who;
	int r;

	if (!op)
		return;
	fs_caller_init(c->req, &who);
	r = start(c, &who.caller, op);
	fs_caller_fini(&who);
	fs_op_started(op, r);
}

/** What a clone request names, as references in op->inode (source) and op->other (directory). */
static int ioctl_find(const struct ioctl_call *c, const struct vc_caller *caller, const char *src, const char *dst,
		      struct fs_op *op, char *ret_name)
{
	struct vc_inode *base;
	int r;

	r = ioctl_base(c, &base);
	if (r < 0)
		return r;
	if (*src) {
		r = fs_clone_paths(base, src, dst, caller, &op->inode, &op->other, ret_name);
	} else {
		r = ioctl_own_image(c, &op->inode);
		if (r == 0)
			r = fs_clone_target(base, dst, caller, &op->other, ret_name);
	}
	vc_inode_put(base);
	if (r == 0)
		op->ino = vc_inode_ino(op->other);
	return r;
}

/** The owner of a clone; whether the source was named or is the descriptor's own decides what is left to check. */
static struct vc_owner ioctl_owner(const struct ioctl_call *c, const struct fs_op *op, const struct vc_caller *caller,
				   const char *src)
{
	struct vc_owner owner = fs_clone_owner(op->other, caller);

	owner.source_is_open = !*src && (c->h->flags & O_ACCMODE) != O_WRONLY;
	return owner;
}

static int ioctl_clone_start(const struct ioctl_call *c, const struct vc_caller *caller, struct fs_op *op)
{
	const struct vclonefs_clone *a = c->in;
	char name[VC_NAME_MAX + 1];
	int r = ioctl_find(c, caller, a->src, a->dst, op, name);

	if (r < 0)
		return r;
	return vc_volume_clone(op->inode, op->other, name, fs_clone_mode(op->inode), ioctl_owner(c, op, caller, a->src), NULL,
			       &op->done);
}

static void ioctl_clone(const struct ioctl_call *c)
{
	const struct vclonefs_clone *a = c->in;

	if (a->flags || !ioctl_is_zero(a->reserved, 3) || !ioctl_is_terminated(a->src, sizeof(a->src)) ||
	    !ioctl_is_terminated(a->dst, sizeof(a->dst))) {
		fuse_reply_err(c->req, EINVAL);
		return;
	}
	ioctl_start(c, ioctl_clone_start);
}

struct ioctl_many {
	char pattern[VC_NAME_MAX + 1];
	uint32_t first;
};

static int ioctl_many_name(void *ctx, uint32_t i, char *buf)
{
	const struct ioctl_many *many = ctx;

	return fs_text_pattern_name(many->pattern, (uint64_t)many->first + i, buf, VC_NAME_MAX + 1);
}

static int ioctl_many_start(const struct ioctl_call *c, const struct vc_caller *caller, struct fs_op *op)
{
	const struct vclonefs_clone_many *a = c->in;
	struct ioctl_many *many = calloc(1, sizeof(*many));
	int r;

	if (!many)
		return -ENOMEM;
	op->data = many;
	many->first = a->first;
	r = ioctl_find(c, caller, a->src, a->dst, op, many->pattern);
	if (r < 0)
		return r;
	if (fs_text_pattern_check(many->pattern) < 0)
		return -EINVAL;
	return vc_volume_clone_many(op->inode, op->other, a->count, ioctl_many_name, many, fs_clone_mode(op->inode),
				    ioctl_owner(c, op, caller, a->src), &op->done);
}

static void ioctl_clone_many(const struct ioctl_call *c)
{
	const struct vclonefs_clone_many *a = c->in;

	if (a->flags || !ioctl_is_zero(a->reserved, 2) || a->count == 0 || a->count > VC_CLONE_MANY_MAX ||
	    !ioctl_is_terminated(a->src, sizeof(a->src)) || !ioctl_is_terminated(a->dst, sizeof(a->dst))) {
		fuse_reply_err(c->req, EINVAL);
		return;
	}
	ioctl_start(c, ioctl_many_start);
}

/**
 * A number is easily guessed, and no directory stands before it: the caller must have been let through to the image by the kernel. Root
 * is let through everywhere.
 */
static int ioctl_range_source(const struct ioctl_call *c, struct vc_inode *src, const struct vc_caller *caller)
{
	int r = fs_clone_source(src, caller);

	if (r < 0 || caller->uid == 0)
		return r;
	return fs_is_open_by(c->fs, vc_inode_ino(src), caller) ? 0 : -EACCES;
}

/** The answer of a range clone: everything from dst_offset on may have changed, the size too. */
static int ioctl_range_start(const struct ioctl_call *c, const struct vc_caller *caller, struct fs_op *op)
{
	const struct vclonefs_clone_range *a = c->in;
	struct vc_attr attr, dst;
	uint64_t len = a->src_len;
	int r;

	r = vc_inode_get(c->fs->pool, a->src_ino, &op->inode);
	if (r < 0)
		return r;
	r = ioctl_range_source(c, op->inode, caller);
	if (r < 0)
		return r;
	vc_inode_attr(op->inode, &attr);
	if (a->src_offset > attr.size)
		return -EINVAL;
	if (len == 0)
		len = attr.size - a->src_offset;
	if (len > attr.size - a->src_offset)
		return -EINVAL;
	vc_inode_attr(c->h->inode, &dst);
	op->ino = c->ino;
	op->handle = c->h;
	op->wide = true;
	op->grown = len > 0 && dst.size < a->dst_offset + len;
	op->offset = a->dst_offset;
	r = fs_drop_mode_bits(c->req, c->h->inode);
	if (r < 0)
		return r;
	if (len == 0) /* nothing to share */
		return vc_volume_flush(c->h->inode, false, &op->done);
	return vc_volume_copy_range(op->inode, a->src_offset, c->h->inode, a->dst_offset, len, true, &op->count, &op->done);
}

static void ioctl_clone_range(const struct ioctl_call *c)
{
	const struct vclonefs_clone_range *a = c->in;
	int r = 0;

	if (a->flags || !ioctl_is_zero(a->reserved, 2) || a->src_ino & FS_MAGIC_BIT ||
	    a->dst_offset > VC_IMAGE_SIZE_MAX)
		r = EINVAL;
	else if (!c->h->image)
		r = c->h->magic ? EINVAL : EISDIR;
	else if ((c->h->flags & O_ACCMODE) == O_RDONLY || c->h->flags & O_APPEND)
		r = EBADF;
	if (r) {
		fuse_reply_err(c->req, r);
		return;
	}
	ioctl_start(c, ioctl_range_start);
}

/* ---- figures ---- */

static void ioctl_info(const struct ioctl_call *c)
{
	const struct vclonefs_info *a = c->in;
	struct vclonefs_info out = { .size = sizeof(out) };
	struct vc_volume_info info;
	int r;

	if (!ioctl_is_zero(a->reserved, 4)) {
		fuse_reply_err(c->req, EINVAL);
		return;
	}
	r = c->h->image ? vc_volume_info(c->h->inode, &info) : c->h->magic ? -EINVAL : -EISDIR;
	if (r < 0) {
		fuse_reply_err(c->req, -r);
		return;
	}
	out.depth = info.depth;
	out.ino = info.ino;
	out.origin = info.origin;
	out.logical = info.size;
	out.referenced = info.referenced * VC_BLOCK_SIZE;
	out.own = info.own * VC_BLOCK_SIZE;
	out.pending = info.pending * VC_BLOCK_SIZE;
	out.exclusive = info.exclusive_bytes;
	out.exclusive_ns = info.exclusive_ns;
	fuse_reply_ioctl(c->req, 0, &out, sizeof(out));
}

static void ioctl_df(const struct ioctl_call *c)
{
	const struct vclonefs_df *a = c->in;
	struct vclonefs_df out = { .size = sizeof(out) };
	struct vc_pool_figures f;
	int r = ioctl_is_zero(a->reserved, 8) ? vc_pool_figures(c->fs->pool, &f) : -EINVAL;

	if (r < 0) {
		fuse_reply_err(c->req, -r);
		return;
	}
	out.failed = (uint32_t)f.failed;
	memcpy(out.uuid, f.uuid, sizeof(out.uuid));
	out.fs_total = f.fs_total;
	out.fs_free = f.fs_free;
	out.chunk_bytes = f.chunk_bytes;
	out.chunk_segments = f.chunk_segments;
	out.log_bytes = f.log_bytes;
	out.log_used = f.log_used;
	out.meta_bytes = f.meta_bytes;
	out.images = f.images;
	out.undestaged = f.undestaged_bytes;
	out.checkpoint_lsn = f.checkpoint_lsn;
	out.durable_lsn = f.durable_lsn;
	out.last_lsn = f.last_lsn;
	out.cache_hits = f.cache_hits;
	out.cache_misses = f.cache_misses;
	out.cache_bytes = f.cache_bytes;
	snprintf(out.version, sizeof(out.version), "%s", PACKAGE_VERSION);
	fuse_reply_ioctl(c->req, 0, &out, sizeof(out));
}

/* ---- tasks ---- */

static int ioctl_may_administer(const struct ioctl_call *c)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(c->req);
	struct vc_inode *root;
	struct vc_attr attr;
	int r;

	if (ctx->uid == 0)
		return 0;
	r = vc_inode_get(c->fs->pool, VC_ROOT_INO, &root);
	if (r < 0)
		return r;
	vc_inode_attr(root, &attr);
	vc_inode_put(root);
	return attr.uid == ctx->uid ? 0 : -EACCES;
}

static void ioctl_task(const struct ioctl_call *c, bool start)
{
	const struct vclonefs_task_status *a = c->in;
	struct vclonefs_task_status out = { .size = sizeof(out), .task = a->task };
	enum vc_task_kind kind = a->task == VCLONEFS_TASK_DESTAGE ? VC_TASK_DESTAGE : VC_TASK_CLEAN;
	struct vc_task_status s;
	uint64_t id = 0;
	int r = 0;

	if (a->task > VCLONEFS_TASK_CLEAN || !ioctl_is_zero(a->reserved, 4))
		r = -EINVAL;
	if (r == 0)
		r = ioctl_may_administer(c);
	if (r == 0 && start)
		r = vc_pool_task_start(c->fs->pool, kind, &id);
	if (r < 0) {
		fuse_reply_err(c->req, -r);
		return;
	}
	vc_pool_task_status(c->fs->pool, kind, &s);
	out.id = start ? id : s.id;
	out.done = s.done;
	out.total = s.total;
	out.running = s.running;
	out.error = s.error < 0 ? -s.error : s.error;
	out.freed_nodes = s.freed_nodes;
	out.freed_segments = s.freed_segments;
	out.freed_bytes = s.freed_bytes;
	fuse_reply_ioctl(c->req, 0, &out, sizeof(out));
}

static void ioctl_task_start(const struct ioctl_call *c) { ioctl_task(c, true); }
static void ioctl_task_status(const struct ioctl_call *c) { ioctl_task(c, false); }

/* ---- scrub ---- */

static void ioctl_scrub(const struct ioctl_call *c)
{
	const struct vclonefs_scrub *a = c->in;
	struct vclonefs_scrub out = { .size = sizeof(out), .command = a->command };
	struct vc_scrub_status s;
	int r = 0;

	if (a->command > VCLONEFS_SCRUB_STOP || (a->flags & ~VCLONEFS_SCRUB_AGAIN) || a->reserved0 || !ioctl_is_zero(a->reserved, 4) ||
	    (a->command != VCLONEFS_SCRUB_START && (a->flags || a->rate)))
		r = -EINVAL;
	if (r == 0)
		r = ioctl_may_administer(c);
	if (r == 0 && a->command == VCLONEFS_SCRUB_START)
		r = vc_scrub_start(c->fs->pool, a->rate, a->flags & VCLONEFS_SCRUB_AGAIN);
	else if (r == 0 && a->command == VCLONEFS_SCRUB_STOP)
		vc_scrub_stop(c->fs->pool);
	if (r < 0) {
		fuse_reply_err(c->req, -r);
		return;
	}
	vc_scrub_status(c->fs->pool, &s);
	out.running = s.running;
	out.error = -s.error;
	out.rate = s.rate;
	out.id = s.id;
	out.done = s.done;
	out.total = s.total;
	out.found = s.found;
	out.started_ns = s.started_ns;
	out.finished_ns = s.finished_ns;
	fuse_reply_ioctl(c->req, 0, &out, sizeof(out));
}

static void ioctl_scrub_list(const struct ioctl_call *c)
{
	const struct vclonefs_scrub_list *a = c->in;
	struct vclonefs_scrub_list *out = calloc(1, sizeof(*out));
	struct vc_scrub_found f;
	int r = out ? 0 : -ENOMEM;

	if (r == 0 && !ioctl_is_zero(a->reserved, 2))
		r = -EINVAL;
	if (r == 0)
		r = ioctl_may_administer(c);
	if (r < 0) {
		fuse_reply_err(c->req, -r);
		free(out);
		return;
	}
	out->size = sizeof(*out);
	out->from = a->from;
	while (out->count < VCLONEFS_SCRUB_LIST && vc_scrub_list(c->fs->pool, a->from + out->count, &f, 1))
		out->items[out->count++] = (struct vclonefs_scrub_item){ .ino = f.ino, .offset = f.offset, .len = f.len, .file = f.file,
									.at = f.at, .kind = (uint32_t)f.kind };
	fuse_reply_ioctl(c->req, 0, out, sizeof(*out));
	free(out);
}

/* ---- all ---- */

static const struct ioctl_kind {
	unsigned int cmd;
	void (*fn)(const struct ioctl_call *c);
} ioctl_kinds[] = {
	{ VCLONEFS_IOC_CLONE, ioctl_clone },
	{ VCLONEFS_IOC_CLONE_MANY, ioctl_clone_many },
	{ VCLONEFS_IOC_CLONE_RANGE, ioctl_clone_range },
	{ VCLONEFS_IOC_INFO, ioctl_info },
	{ VCLONEFS_IOC_DF, ioctl_df },
	{ VCLONEFS_IOC_TASK_START, ioctl_task_start },
	{ VCLONEFS_IOC_TASK_STATUS, ioctl_task_status },
	{ VCLONEFS_IOC_SCRUB, ioctl_scrub },
	{ VCLONEFS_IOC_SCRUB_LIST, ioctl_scrub_list },
};

static void ioctl_dioinfo(fuse_req_t req, const struct fs_handle *h, size_t out_len)
{
	struct ioctl_dioattr out = { .mem = 512, .min_io = 512, .max_io = FS_REQUEST_MAX };

	if (out_len != sizeof(out) || !h->image)
		fuse_reply_err(req, h->image ? EINVAL : ENOTTY);
	else
		fuse_reply_ioctl(req, 0, &out, sizeof(out));
}

/** The struct, copied to where it is aligned, if its sizes fit; -EINVAL if not. */
static int ioctl_copy_in(unsigned int cmd, const void *in, size_t in_len, size_t out_len, void **ret)
{
	size_t want_out = _IOC_DIR(cmd) & _IOC_READ ? _IOC_SIZE(cmd) : 0;
	uint32_t size;
	void *copy;

	if (in_len != _IOC_SIZE(cmd) || out_len != want_out)
		return -EINVAL;
	memcpy(&size, in, sizeof(size));
	if (size != in_len)
		return -EINVAL;
	copy = malloc(in_len);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, in, in_len);
	*ret = copy;
	return 0;
}

void fs_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, void *arg VC_UNUSED, struct fuse_file_info *fi,
	      unsigned int flags VC_UNUSED, const void *in, size_t in_len, size_t out_len)
{
	struct ioctl_call c = { .req = req, .fs = fs_of(req), .h = fs_handle_of(fi), .ino = ino };
	void *copy = NULL;
	int r;

	if (cmd == IOCTL_DIOINFO) {
		ioctl_dioinfo(req, c.h, out_len);
		return;
	}
	for (size_t i = 0; i < VC_ARRAY_LEN(ioctl_kinds); i++) {
		if (ioctl_kinds[i].cmd != cmd)
			continue;
		r = ioctl_copy_in(cmd, in, in_len, out_len, &copy);
		c.in = copy;
		if (r == 0)
			ioctl_kinds[i].fn(&c);
		else
			fuse_reply_err(req, -r);
		free(copy);
		return;
	}
	fuse_reply_err(req, ENOTTY);
}
