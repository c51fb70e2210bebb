/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_notify: tell the kernel to drop what it caches, because it changed behind its back.
 *
 * What changes so: the directory in which an ioctl or the magic file made a name (attributes); the destination of
 * VCLONEFS_IOC_CLONE_RANGE (pages, size); an image written through a direct handle while other handles use the page
 * cache (pages). Names need nothing: there are no negative entries, and nothing is removed without the kernel.
 *
 * A size that grew so has to be told: where the kernel trusts its copy (copy_file_range, O_APPEND) it does not ask for invalid
 * attributes. It takes the size from data stored into its pages, so the last byte is stored, after the old pages were dropped:
 * those which are dirty are written up to the size that it knows, and must not be written with zeros up to the new one.
 *
 * The kernel locks the pages while it drops them, so that a request which holds one of them (a cached read) must be
 * answered by another thread meanwhile. Hence only the notify queue calls these functions, but for fs_notify_attr, which touches no page, and
 * only requests for which the kernel holds no page are answered there.
 */
#include "config.h"
#include "fs_impl.h"

#include "msg.h"

static void notify_report(int r, uint64_t ino)
{
	if (r < 0 && r != -ENOENT && r != -ENODEV && r != -EBADF)
		vc_warn("inode %llu: the kernel refused to renew its cache: %s", (unsigned long long)ino, strerror(-r));
}

void fs_notify_range(struct vc_fs *fs, uint64_t ino, uint64_t offset, uint64_t len)
{
	notify_report(fuse_lowlevel_notify_inval_inode(fs->se, ino, (off_t)offset, (off_t)len), ino);
}

void fs_notify_grown(struct vc_fs *fs, uint64_t ino, struct vc_inode *inode, uint64_t end)
{
	struct fuse_bufvec data = FUSE_BUFVEC_INIT(1);
	char last;

	if (end == 0 || vc_volume_read(inode, &last, 1, end - 1) != 1) /* cut off again, or damaged, which is said */
		return;
	data.buf[0].mem = &last;
	notify_report(fuse_lowlevel_notify_store(fs->se, ino, (off_t)end - 1, &data, FUSE_BUF_NO_SPLICE), ino);
	fs_notify_range(fs, ino, end - 1, 1);
}

void fs_notify_attr(struct vc_fs *fs, uint64_t ino)
{
	notify_report(fuse_lowlevel_notify_inval_inode(fs->se, ino, -1, 0), ino);
}
