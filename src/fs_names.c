/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_names: names and attributes.
 *
 * The node id is the inode number, so every request finds its inode without a table of ours. The kernel has checked
 * permissions (default_permissions). Requests that make, remove or rename names are answered when that is durable.
 */
#include "config.h"
#include "fs_impl.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#define NS_PER_S UINT64_C(1000000000)

static struct timespec names_timespec(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S) };
}

static uint64_t names_ns(const struct timespec *ts)
{
	return ts->tv_sec < 0 ? 0 : (uint64_t)ts->tv_sec * NS_PER_S + (uint64_t)ts->tv_nsec;
}

void fs_fill_stat(struct vc_inode *inode, struct stat *ret)
{
	struct vc_attr a;

	vc_inode_attr(inode, &a);
	/* cp, cat, install and the like transfer this much at once: fewer requests, each of which several processors compress. */
	bool large = S_ISREG(a.mode);

	*ret = (struct stat){
		.st_ino = a.ino, .st_mode = a.mode, .st_nlink = a.nlink, .st_uid = a.uid, .st_gid = a.gid,
		.st_rdev = a.rdev, .st_size = (off_t)a.size, .st_blocks = (blkcnt_t)a.blocks, .st_blksize = large ? 1 << 20 : 4096,
		.st_atim = names_timespec(a.atime_ns), .st_mtim = names_timespec(a.mtime_ns),
		.st_ctim = names_timespec(a.ctime_ns),
	};
}

void fs_fill_entry(struct vc_inode *inode, struct fuse_entry_param *ret)
{
	*ret = (struct fuse_entry_param){
		.ino = vc_inode_ino(inode), .generation = 1, .attr_timeout = FS_TIMEOUT, .entry_timeout = FS_TIMEOUT,
	};
	fs_fill_stat(inode, &ret->attr);
	vc_inode_known(inode);
}

void fs_reply_entry(fuse_req_t req, struct vc_inode *inode)
{
	struct vc_pool *pool = fs_of(req)->pool;
	struct fuse_entry_param entry;

	fs_fill_entry(inode, &entry);
	if (fuse_reply_entry(req, &entry) < 0)
		vc_inode_forget(pool, entry.ino, 1);
}

void fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct vc_inode *dir, *inode;
	int r;

	if (fs_is_magic(parent)) {
		fs_magic_lookup(req, parent, name);
		return;
	}
	dir = fs_inode_or_reply(req, parent);
	if (!dir)
		return;
	if (strcmp(name, VC_MAGIC_NAME) == 0) {
		fs_magic_reply_entry(req, dir);
		vc_inode_put(dir);
		return;
	}
	r = vc_names_lookup(dir, name, &inode);
	if (r < 0) {
		fuse_reply_err(req, -r);
	} else {
		fs_reply_entry(req, inode);
		vc_inode_put(inode);
	}
	vc_inode_put(dir);
}

static void names_forget(struct vc_pool *pool, fuse_ino_t ino, uint64_t n)
{
	if (!fs_is_magic(ino))
		vc_inode_forget(pool, ino, n);
}

void fs_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	names_forget(fs_of(req)->pool, ino, n);
	fuse_reply_none(req);
}

void fs_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		names_forget(fs_of(req)->pool, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

/* ---- attributes ---- */

static void names_reply_attr(fuse_req_t req, struct vc_inode *inode)
{
	struct stat st;

	fs_fill_stat(inode, &st);
	fuse_reply_attr(req, &st, FS_TIMEOUT);
}

void fs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi VC_UNUSED)
{
	struct vc_inode *inode = fs_inode_or_reply(req, ino & ~(fuse_ino_t)FS_MAGIC_BIT);
	struct stat st;

	if (!inode)
		return;
	if (fs_is_magic(ino)) {
		fs_magic_stat(inode, &st);
		fuse_reply_attr(req, &st, FS_TIMEOUT);
	} else {
		names_reply_attr(req, inode);
	}
	vc_inode_put(inode);
}

static unsigned int names_attr_of(const struct stat *st, int to_set, struct vc_attr *a)
{
	unsigned int mask = 0;

	*a = (struct vc_attr){ .mode = st->st_mode & 07777, .uid = st->st_uid, .gid = st->st_gid };
	if (to_set & FUSE_SET_ATTR_MODE)
		mask |= VC_SET_MODE;
	else if (st->st_mode & FS_MARK)
		mask |= VC_SET_KILL_PRIV;
	if (to_set & FUSE_SET_ATTR_UID)
		mask |= VC_SET_UID;
	if (to_set & FUSE_SET_ATTR_GID)
		mask |= VC_SET_GID;
	if (to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW))
		mask |= VC_SET_ATIME;
	if (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
		mask |= VC_SET_MTIME;
	if (to_set & FUSE_SET_ATTR_CTIME)
		mask |= VC_SET_CTIME;
	a->atime_ns = to_set & FUSE_SET_ATTR_ATIME_NOW ? vc_now_ns() : names_ns(&st->st_atim);
	a->mtime_ns = to_set & FUSE_SET_ATTR_MTIME_NOW ? vc_now_ns() : names_ns(&st->st_mtim);
	a->ctime_ns = names_ns(&st->st_ctim);
	return mask;
}

static void names_resized(struct fs_op *op, int error)
{
	if (error < 0)
		fuse_reply_err(op->req, -error);
	else
		names_reply_attr(op->req, op->inode);
	fs_op_free(op);
}

static void names_resize(fuse_req_t req, struct vc_inode *inode, off_t size)
{
	struct fs_op *op = fs_op_new(req, names_resized);

	if (!op)
		return;
	vc_inode_hold(inode);
	op->inode = inode;
	fs_op_started(op, size < 0 ? -EINVAL : vc_volume_resize(inode, (uint64_t)size, &op->done));
}

void fs_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi VC_UNUSED)
{
	struct vc_inode *inode;
	struct vc_attr a;
	unsigned int mask;
	int r = 0;

	if (fs_is_magic(ino)) {
		fs_magic_setattr(req, ino, to_set);
		return;
	}
	inode = fs_inode_or_reply(req, ino);
	if (!inode)
		return;
	mask = names_attr_of(st, to_set, &a);
	if (mask)
		r = vc_attr_set(inode, &a, mask);
	if (r < 0)
		fuse_reply_err(req, -r);
	else if (to_set & FUSE_SET_ATTR_SIZE)
		names_resize(req, inode, st->st_size);
	else
		names_reply_attr(req, inode);
	vc_inode_put(inode);
}

void fs_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	struct vc_inode *inode;
	struct fs_caller who;
	int r;

	if (fs_is_magic(ino)) {
		fuse_reply_err(req, mask & 1 ? EACCES : 0);
		return;
	}
	inode = fs_inode_or_reply(req, ino);
	if (!inode)
		return;
	fs_caller_init(req, &who);
	r = vc_names_may(inode, &who.caller, mask & 7);
	fs_caller_fini(&who);
	vc_inode_put(inode);
	fuse_reply_err(req, -r);
}

void fs_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[VC_SYMLINK_MAX + 1];
	struct vc_inode *inode;
	int r;

	if (fs_is_magic(ino)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	inode = fs_inode_or_reply(req, ino);
	if (!inode)
		return;
	r = vc_names_readlink(inode, target, sizeof(target));
	vc_inode_put(inode);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_readlink(req, target);
}

void fs_statfs(fuse_req_t req, fuse_ino_t ino VC_UNUSED)
{
	struct vc_fs *fs = fs_of(req);
	struct vc_pool_figures f;
	uint64_t now = vc_mono_ns();
	bool fresh;
	int r;

	vc_mutex_lock(&fs->table_lock);
	f = fs->figures;
	fresh = fs->figures_ns != 0 && now - fs->figures_ns < NS_PER_S;
	vc_mutex_unlock(&fs->table_lock);
	if (!fresh) {
		r = vc_pool_figures(fs->pool, &f);
		if (r < 0) {
			fuse_reply_err(req, -r);
			return;
		}
		vc_mutex_lock(&fs->table_lock);
		fs->figures = f;
		fs->figures_ns = now;
		vc_mutex_unlock(&fs->table_lock);
	}
	fuse_reply_statfs(req, &(struct statvfs){
		.f_bsize = 4096, .f_frsize = 4096, .f_blocks = f.fs_total / 4096, .f_bfree = f.fs_free / 4096,
		.f_bavail = f.fs_free / 4096, .f_namemax = VC_NAME_MAX,
	});
}

/* ---- making names ---- */

static void names_made(struct fs_op *op, int error)
{
	if (error < 0) {
		fuse_reply_err(op->req, -error);
	} else {
		fs_reply_entry(op->req, op->made);
		vc_inode_put(op->made);
	}
	fs_op_free(op);
}

bool fs_refuse_magic(fuse_req_t req, fuse_ino_t parent, const char *name, int error)
{
	if (fs_is_magic(parent))
		error = ENOTDIR;
	else if (strcmp(name, VC_MAGIC_NAME) != 0)
		return false;
	fuse_reply_err(req, error);
	return true;
}

void fs_make(fuse_req_t req, fuse_ino_t parent, const char *name, struct vc_new *what, int flags,
	     void (*finish)(struct fs_op *op, int error))
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct vc_inode *dir;
	struct fs_op *op;

	dir = fs_inode_or_reply(req, parent);
	if (!dir)
		return;
	op = fs_op_new(req, finish);
	if (!op) {
		vc_inode_put(dir);
		return;
	}
	op->inode = dir;
	op->flags = flags;
	what->owner = (struct vc_owner){ .uid = ctx->uid, .gid = ctx->gid };
	fs_op_started(op, vc_names_create(dir, name, what, &op->made, &op->done));
}

void fs_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct vc_new what = { .mode = mode, .rdev = (uint32_t)rdev };

	if (!fs_refuse_magic(req, parent, name, EEXIST))
		fs_make(req, parent, name, &what, 0, names_made);
}

void fs_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct vc_new what = { .mode = (mode & 07777) | S_IFDIR };

	if (!fs_refuse_magic(req, parent, name, EEXIST))
		fs_make(req, parent, name, &what, 0, names_made);
}

void fs_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct vc_new what = { .mode = S_IFLNK | 0777, .target = target };

	if (fs_refuse_magic(req, parent, name, EEXIST))
		return;
	if (strlen(target) > VC_SYMLINK_MAX)
		fuse_reply_err(req, ENAMETOOLONG);
	else
		fs_make(req, parent, name, &what, 0, names_made);
}

static void names_linked(struct fs_op *op, int error)
{
	if (error < 0)
		fuse_reply_err(op->req, -error);
	else
		fs_reply_entry(op->req, op->inode);
	fs_op_free(op);
}

void fs_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	struct vc_inode *inode, *dir;
	struct fs_op *op;

	if (fs_refuse_magic(req, newparent, newname, EEXIST))
		return;
	if (fs_is_magic(ino)) {
		fuse_reply_err(req, EPERM);
		return;
	}
	inode = fs_inode_or_reply(req, ino);
	if (!inode)
		return;
	dir = fs_inode_or_reply(req, newparent);
	op = dir ? fs_op_new(req, names_linked) : NULL;
	if (!op) {
		vc_inode_put(inode);
		if (dir)
			vc_inode_put(dir);
		return;
	}
	op->inode = inode;
	op->other = dir;
	fs_op_started(op, vc_names_link(inode, dir, newname, &op->done));
}

/* ---- removing and moving ---- */

static void names_remove(fuse_req_t req, fuse_ino_t parent, const char *name,
			 int (*remove)(struct vc_inode *dir, const char *name, struct vc_done *done))
{
	struct vc_inode *dir;
	struct fs_op *op;

	if (fs_refuse_magic(req, parent, name, EPERM))
		return;
	dir = fs_inode_or_reply(req, parent);
	if (!dir)
		return;
	op = fs_op_new(req, fs_op_reply_err);
	if (!op) {
		vc_inode_put(dir);
		return;
	}
	op->inode = dir;
	fs_op_started(op, remove(dir, name, &op->done));
}

void fs_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	names_remove(req, parent, name, vc_names_unlink);
}

void fs_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	names_remove(req, parent, name, vc_names_rmdir);
}

void fs_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
	       unsigned int flags)
{
	struct vc_inode *dir, *newdir;
	struct fs_op *op;

	if (fs_refuse_magic(req, parent, name, EPERM) || fs_refuse_magic(req, newparent, newname, EPERM))
		return;
	dir = fs_inode_or_reply(req, parent);
	if (!dir)
		return;
	newdir = fs_inode_or_reply(req, newparent);
	op = newdir ? fs_op_new(req, fs_op_reply_err) : NULL;
	if (!op) {
		vc_inode_put(dir);
		if (newdir)
			vc_inode_put(newdir);
		return;
	}
	op->inode = dir;
	op->other = newdir;
	fs_op_started(op, vc_names_rename(dir, name, newdir, newname, flags, &op->done));
}
