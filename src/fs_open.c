/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_open: handles of regular files, and how each uses the kernel's page cache.
 *
 * A handle is direct (past the page cache) when it was opened with O_DIRECT, or while another direct handle of the
 * image is open; otherwise cached. A cached handle may be there first and a direct one come later: both work at the
 * same time then.
 *
 * Invariants, for pages that the kernel caches:
 *   1. A page that differs from the image exists only while the change that made it so is not yet answered, or the
 *      image is stale.
 *   2. A stale image has no cached handle that was opened after the change: the first such open drops all pages (no
 *      FOPEN_KEEP_CACHE), for the price of reading them again.
 *   3. A change past the cache first marks the image stale, then looks for cached handles; an open first counts itself
 *      as cached, then takes the mark. So one of them sees the other.
 * The kernel itself drops what is cached of a range before a direct write to it; what a cached reader brings in again
 * during the write is dropped by fs_notify before the write is answered.
 *
 * Images without handles are remembered while their pages are known to be good, the oldest is forgotten first. An
 * image not found in the table counts as stale.
 */
#include "config.h"
#include "fs_impl.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#define OPEN_BUCKETS 1024u

int fs_table_init(struct vc_fs *fs)
{
	fs->images = malloc(OPEN_BUCKETS * sizeof(*fs->images));
	if (!fs->images)
		return -ENOMEM;
	for (unsigned int i = 0; i < OPEN_BUCKETS; i++)
		vc_list_init(&fs->images[i]);
	return 0;
}

/* ---- images ---- */

static struct vc_list *open_bucket(struct vc_fs *fs, uint64_t ino)
{
	return &fs->images[(ino * UINT64_C(0x9e3779b97f4a7c15)) >> 54];
}

static struct fs_image *open_find_locked(struct vc_fs *fs, uint64_t ino)
{
	struct vc_list *bucket = open_bucket(fs, ino);

	vc_list_for_each(it, bucket) {
		struct fs_image *image = vc_list_entry(it, struct fs_image, link);

		if (image->ino == ino)
			return image;
	}
	return NULL;
}

/** The image with one more handle. */
static struct fs_image *open_image_locked(struct vc_fs *fs, uint64_t ino)
{
	struct fs_image *image = open_find_locked(fs, ino);

	if (!image) {
		image = calloc(1, sizeof(*image));
		if (!image)
			return NULL;
		image->ino = ino;
		atomic_init(&image->stale, true);
		vc_list_init(&image->remembered);
		vc_list_init(&image->handles);
		vc_list_add_tail(open_bucket(fs, ino), &image->link);
	} else if (image->nhandles == 0) {
		vc_list_del(&image->remembered);
		fs->nremembered--;
	}
	image->nhandles++;
	return image;
}

static void open_image_free_locked(struct fs_image *image)
{
	vc_list_del(&image->link);
	free(image);
}

static void open_remember_locked(struct vc_fs *fs, struct fs_image *image)
{
	if (atomic_load(&image->stale)) {
		open_image_free_locked(image);
		return;
	}
	vc_list_add_tail(&fs->remembered, &image->remembered);
	if (fs->nremembered < FS_REMEMBERED_MAX) {
		fs->nremembered++;
		return;
	}
	image = vc_list_entry(fs->remembered.next, struct fs_image, remembered);
	vc_list_del(&image->remembered);
	open_image_free_locked(image);
}

/* ---- handles ---- */

struct fs_handle *fs_handle_new(fuse_req_t req, struct vc_inode *inode, int flags)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct fs_handle *h = calloc(1, sizeof(*h));
	struct vc_fs *fs = fs_of(req);

	if (!h)
		return NULL;
	h->inode = inode;
	h->flags = flags;
	h->uid = ctx->uid;
	h->gid = ctx->gid;
	vc_mutex_lock(&fs->table_lock);
	vc_list_add_tail(&fs->handles, &h->link);
	vc_mutex_unlock(&fs->table_lock);
	return h;
}

static void open_detach_locked(struct vc_fs *fs, struct fs_handle *h)
{
	struct fs_image *image = h->image;

	vc_list_del(&h->link);
	if (!image)
		return;
	vc_list_del(&h->of_image);
	if (h->direct)
		image->ndirect--;
	else
		atomic_fetch_sub(&image->ncached, 1);
	if (--image->nhandles == 0)
		open_remember_locked(fs, image);
}

void fs_handle_free(struct vc_fs *fs, struct fs_handle *h)
{
	fs_copy_release(fs, h);
	vc_mutex_lock(&fs->table_lock);
	open_detach_locked(fs, h);
	vc_mutex_unlock(&fs->table_lock);
	vc_inode_put(h->inode);
	free(h);
}

void fs_table_fini(struct vc_fs *fs)
{
	if (!fs->images)
		return;
	while (!vc_list_empty(&fs->handles))
		fs_handle_free(fs, vc_list_entry(fs->handles.next, struct fs_handle, link));
	while (!vc_list_empty(&fs->remembered)) {
		struct fs_image *image = vc_list_entry(fs->remembered.next, struct fs_image, remembered);

		vc_list_del(&image->remembered);
		open_image_free_locked(image);
	}
	free(fs->images);
}

/** Decide how a handle uses the page cache; the flags of struct fuse_open_out into *ret_flags. 0 or -ENOMEM. */
static int open_attach(struct vc_fs *fs, struct fs_handle *h, uint32_t *ret_flags)
{
	struct fs_image *image;
	uint32_t flags = 0;

	vc_mutex_lock(&fs->table_lock);
	image = open_image_locked(fs, vc_inode_ino(h->inode));
	if (!image) {
		vc_mutex_unlock(&fs->table_lock);
		return -ENOMEM;
	}
	h->image = image;
	vc_list_add_tail(&image->handles, &h->of_image);
	h->direct = h->flags & O_DIRECT || image->ndirect > 0;
	if (h->direct) {
		image->ndirect++;
		flags = FOPEN_DIRECT_IO | FS_FOPEN_PARALLEL_DIRECT_WRITES;
		if (!atomic_load(&image->stale))
			flags |= FOPEN_KEEP_CACHE;
	} else {
		atomic_fetch_add(&image->ncached, 1);
		if (!atomic_exchange(&image->stale, false))
			flags = FOPEN_KEEP_CACHE;
	}
	vc_mutex_unlock(&fs->table_lock);
	*ret_flags = flags | FS_FOPEN_NOFLUSH;
	return 0;
}

bool fs_handle_changed(struct fs_handle *h)
{
	if (!h->direct)
		return false;
	if (!atomic_load(&h->image->stale))
		atomic_store(&h->image->stale, true);
	return atomic_load(&h->image->ncached) > 0;
}

bool fs_is_open_by(struct vc_fs *fs, uint64_t ino, const struct vc_caller *caller)
{
	struct fs_image *image;
	bool found = false;

	vc_mutex_lock(&fs->table_lock);
	image = open_find_locked(fs, ino);
	if (image) {
		vc_list_for_each(it, &image->handles) {
			const struct fs_handle *h = vc_list_entry(it, struct fs_handle, of_image);
			int mode = h->flags & O_ACCMODE;

			found = found || (h->uid == caller->uid && h->gid == caller->gid && (mode == O_RDONLY || mode == O_RDWR));
		}
	}
	vc_mutex_unlock(&fs->table_lock);
	return found;
}

/** Takes over the reference to inode. On failure answers and returns NULL. */
static struct fs_handle *open_handle(fuse_req_t req, struct vc_inode *inode, int flags, struct fuse_open_out *ret)
{
	struct vc_fs *fs = fs_of(req);
	struct fs_handle *h = fs_handle_new(req, inode, flags);

	*ret = (struct fuse_open_out){ .fh = (uintptr_t)h };
	if (h && open_attach(fs, h, &ret->open_flags) == 0)
		return h;
	if (h)
		fs_handle_free(fs, h);
	else
		vc_inode_put(inode);
	fuse_reply_err(req, ENOMEM);
	return NULL;
}

static void open_magic(fuse_req_t req, struct vc_inode *dir, int flags)
{
	struct vc_fs *fs = fs_of(req);
	struct fs_handle *h = fs_handle_new(req, dir, flags);
	struct fuse_open_out out = { .fh = (uintptr_t)h, .open_flags = FOPEN_DIRECT_IO | FS_FOPEN_NOFLUSH };

	if (!h) {
		vc_inode_put(dir);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	h->magic = true;
	if (fuse_reply_buf(req, (char *)&out, sizeof(out)) < 0)
		fs_handle_free(fs, h);
}

void fs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct vc_inode *inode = fs_inode_or_reply(req, ino & ~(fuse_ino_t)FS_MAGIC_BIT);
	struct vc_fs *fs = fs_of(req);
	struct fuse_open_out out;
	struct fs_handle *h;

	if (!inode)
		return;
	if (fs_is_magic(ino)) {
		open_magic(req, inode, fi->flags);
		return;
	}
	h = open_handle(req, inode, fi->flags, &out);
	if (h && fuse_reply_buf(req, (char *)&out, sizeof(out)) < 0)
		fs_handle_free(fs, h);
}

void fs_release(fuse_req_t req, fuse_ino_t ino VC_UNUSED, struct fuse_file_info *fi)
{
	fs_handle_free(fs_of(req), fs_handle_of(fi));
	fuse_reply_err(req, 0);
}

/* ---- create ---- */

struct open_created {
	struct fuse_entry_out entry;
	struct fuse_open_out open;
};

static void open_entry_out(struct vc_inode *inode, struct fuse_entry_out *out)
{
	struct fuse_entry_param e;

	fs_fill_entry(inode, &e);
	*out = (struct fuse_entry_out){
		.nodeid = e.ino, .generation = e.generation,
		.entry_valid = (uint64_t)FS_TIMEOUT, .attr_valid = (uint64_t)FS_TIMEOUT,
		.attr = {
			.ino = e.attr.st_ino, .size = (uint64_t)e.attr.st_size, .blocks = (uint64_t)e.attr.st_blocks,
			.atime = (uint64_t)e.attr.st_atim.tv_sec, .atimensec = (uint32_t)e.attr.st_atim.tv_nsec,
			.mtime = (uint64_t)e.attr.st_mtim.tv_sec, .mtimensec = (uint32_t)e.attr.st_mtim.tv_nsec,
			.ctime = (uint64_t)e.attr.st_ctim.tv_sec, .ctimensec = (uint32_t)e.attr.st_ctim.tv_nsec,
			.mode = e.attr.st_mode, .nlink = (uint32_t)e.attr.st_nlink, .uid = e.attr.st_uid,
			.gid = e.attr.st_gid, .rdev = (uint32_t)e.attr.st_rdev, .blksize = (uint32_t)e.attr.st_blksize,
		},
	};
}

static void open_created(struct fs_op *op, int error)
{
	struct open_created out;
	struct fs_handle *h;

	/* Someone else made the name since the kernel looked; ESTALE makes it look again and check permissions. */
	if (error == -EEXIST && !(op->flags & O_EXCL))
		error = -ESTALE;
	if (error < 0) {
		fs_op_reply_err(op, error);
		return;
	}
	h = open_handle(op->req, op->made, op->flags, &out.open);
	if (h) {
		open_entry_out(h->inode, &out.entry);
		if (fuse_reply_buf(op->req, (char *)&out, sizeof(out)) < 0) {
			vc_inode_forget(op->fs->pool, out.entry.nodeid, 1);
			fs_handle_free(op->fs, h);
		}
	}
	fs_op_free(op);
}

void fs_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct vc_new what = { .mode = (mode & 07777) | S_IFREG };

	if (!fs_refuse_magic(req, parent, name, EEXIST))
		fs_make(req, parent, name, &what, fi->flags, open_created);
}
