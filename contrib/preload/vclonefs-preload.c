/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclonefs-preload: FICLONE and FICLONERANGE inside a vclonefs mount, for programs that know nothing of it.
 *
 *	LD_PRELOAD=vclonefs-preload.so cp --reflink=always golden.img vm7.img
 *
 * The kernel answers these two requests itself for every FUSE mount (EOPNOTSUPP). This library replaces ioctl(2): when
 * both descriptors are on the same file system, and that is a vclonefs, it asks with VCLONEFS_IOC_CLONE_RANGE;
 * everything else goes to the kernel as it is. Result and errno are those of the request that was made.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <vclonefs.h>

#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546
#endif

int ioctl(int fd, unsigned long request, ...);

static int preload_real(int fd, unsigned long request, void *arg)
{
	return (int)syscall(SYS_ioctl, fd, request, arg);
}

static bool preload_is_vclonefs(int fd)
{
	struct vclonefs_df df = { .size = sizeof(df) };
	struct statfs st;

	return fstatfs(fd, &st) == 0 && (unsigned long)st.f_type == FUSE_SUPER_MAGIC &&
	       preload_real(fd, VCLONEFS_IOC_DF, &df) == 0;
}

/** Fills ino with the source's when both are images of one vclonefs. */
static bool preload_is_ours(int fd, int src_fd, uint64_t *ino)
{
	struct stat src, dst;

	if (fstat(src_fd, &src) < 0 || fstat(fd, &dst) < 0 || src.st_dev != dst.st_dev || !preload_is_vclonefs(fd))
		return false;
	*ino = src.st_ino;
	return S_ISREG(src.st_mode) && S_ISREG(dst.st_mode);
}

/** What a mapping has changed is in the page cache only; the kernel's own clone writes it out too. */
static void preload_write_out(int fd)
{
	(void)sync_file_range(fd, 0, 0,
			      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
}

static bool preload_may_read(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && (flags & O_ACCMODE) != O_WRONLY && !(flags & O_PATH);
}

/** Returns 1 when the request is not ours. */
static int preload_clone(int fd, const struct file_clone_range *range)
{
	struct vclonefs_clone_range a = { .size = sizeof(a) };
	int src_fd = (int)range->src_fd;
	struct stat st;
	int r;

	if (!preload_is_ours(fd, src_fd, &a.src_ino))
		return 1;
	if (!preload_may_read(src_fd)) {
		errno = EBADF;
		return -1;
	}
	a.src_offset = range->src_offset;
	a.src_len = range->src_length;
	a.dst_offset = range->dest_offset;
	preload_write_out(src_fd);
	preload_write_out(fd);
	r = preload_real(fd, VCLONEFS_IOC_CLONE_RANGE, &a);
	if (r == 0)
		(void)fstat(fd, &st); /* so that the kernel knows the new size before an append */
	return r;
}

int ioctl(int fd, unsigned long request, ...)
{
	struct file_clone_range whole = { 0 };
	const struct file_clone_range *range = &whole;
	int saved = errno, r = 1;
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if ((unsigned int)request == FICLONERANGE)
		range = arg;
	whole.src_fd = (int)(intptr_t)arg;
	if (((unsigned int)request == FICLONE || (unsigned int)request == FICLONERANGE) && range)
		r = preload_clone(fd, range);
	if (r == 1) {
		errno = saved;
		r = preload_real(fd, request, arg);
	} else if (r == 0) {
		errno = saved;
	}
	return r;
}
