/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_notify: tell the kernel to drop what it caches, because it changed behind its back.
 *
 * What changes so: the directory in which an ioctl or the magic file made a name (attributes); the destination of
 * VCLONEFS_IOC_CLONE_RANGE (pages, size); an image written through a direct handle while other handles use the page
 * cache (pages). Names need nothing: there are no negative entries, and nothing is removed without the kernel.
 *
 * The kernel locks the pages while it drops them, so that a request which holds one of them (a cached read) must be
 * answered by another thread meanwhile. Hence only the notify queue calls these functions, and only requests for which
 * the kernel holds no page are answered there.
 */
#include "config.h"
#include "fs_impl.h"

#include "msg.h"

static void notify_report(int r, uint64_t ino)
{
	if (r < 0 && r != -ENOENT && r != -ENODEV && r != -EBADF)
		vc_warn("inode %llu: the kernel refused to drop its cache: %s", (unsigned long long)ino, strerror(-r));
}

void fs_notify_range(struct vc_fs *fs, uint64_t ino, uint64_t offset, uint64_t len)
{
	notify_report(fuse_lowlevel_notify_inval_inode(fs->se, ino, (off_t)offset, (off_t)len), ino);
}

void fs_notify_attr(struct vc_fs *fs, uint64_t ino)
{
	notify_report(fuse_lowlevel_notify_inval_inode(fs->se, ino, -1, 0), ino);
}
