/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * io_posix: the io table on the operating system.
 *
 * A file is a descriptor and the path it was opened by, for messages. No locks: the kernel's calls are
 * thread-safe and but for past_* a struct posix_file does not change after open. A failed sync is never tried again
 * (D4); interrupted and short transfers are.
 */
#include "config.h"
#include "io.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "io_ring.h"
#include "io_vet.h"
#include "msg.h"

struct posix_file {
	struct vc_file file;
	int fd;
	_Atomic int past_fd;    /* the same file with O_DIRECT, made by its first pread_past; -1: not yet */
	_Atomic bool past_fails; /* the file, its system or its device cannot do that */
	char path[];
};

static struct posix_file *to_posix(const struct vc_file *file)
{
	return vc_container_of(file, struct posix_file, file);
}

/* One message for a failed call on a path; returns -error. */
static int path_failed(const char *path, const char *what, int error)
{
	vc_err("%s: cannot %s: %s", path, what, strerror(error));
	return -error;
}

static int range_failed(const struct vc_file *file, const char *what, uint64_t offset, int error)
{
	vc_err("%s: cannot %s at offset %llu: %s", to_posix(file)->path, what, (unsigned long long)offset,
	       strerror(error));
	return -error;
}

static bool is_expected(int error)
{
	return error == ENOENT || error == EEXIST;
}

/* ---- files ---- */

static int open_flags(int flags)
{
	int os = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (flags & VC_IO_WRITE ? O_RDWR : O_RDONLY);

	if (flags & VC_IO_CREATE)
		os |= O_CREAT;
	if (flags & VC_IO_EXCL)
		os |= O_EXCL;
	if (flags & VC_IO_DIRECT)
		os |= O_DIRECT;
	return os;
}

/* O_NONBLOCK is for opening only, in case a FIFO lies there. Left in, io_uring gives up on what is not in memory (Linux before 6.4). */
static int open_retry(const char *path, int os_flags)
{
	int fd, flags;

	do {
		fd = open(path, os_flags, 0600);
	} while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return -errno;
	flags = fcntl(fd, F_GETFL);
	if (flags >= 0)
		(void)fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
	return fd;
}

/* The descriptor if what it leads to is a file that nobody else could have put there. */
static int open_vetted(const char *path, int fd)
{
	struct stat st;
	int r = fstat(fd, &st) < 0 ? path_failed(path, "stat", errno) : vc_io_vet_stat(path, &st);

	if (r == 0 && !S_ISREG(st.st_mode))
		r = path_failed(path, "open", EISDIR);
	if (r < 0)
		close(fd);
	return r < 0 ? r : fd;
}

static int posix_open(struct vc_io *io, const char *path, int flags, struct vc_file **ret_file)
{
	size_t len = strlen(path) + 1;
	struct posix_file *pf = malloc(sizeof(*pf) + len);
	int os = open_flags(flags), fd;

	if (!pf)
		return path_failed(path, "open", ENOMEM);
	fd = open_retry(path, os);
	if (fd == -EINVAL && os & O_DIRECT)
		/* Some file systems create the file before they refuse. */
		fd = open_retry(path, os & ~(O_DIRECT | O_EXCL));
	if (fd < 0) {
		free(pf);
		return is_expected(-fd) ? fd : path_failed(path, "open", -fd);
	}
	fd = open_vetted(path, fd);
	if (fd < 0) {
		free(pf);
		return fd;
	}
	pf->file.io = io;
	pf->fd = fd;
	atomic_init(&pf->past_fd, -1);
	atomic_init(&pf->past_fails, false);
	memcpy(pf->path, path, len);
	*ret_file = &pf->file;
	return 0;
}

static void posix_close(struct vc_file *file)
{
	struct posix_file *pf = to_posix(file);

	if (pf->past_fd >= 0)
		close(pf->past_fd);
	close(pf->fd);
	free(pf);
}

/* A position in an iovec array that is not the caller's to change. */
struct cursor {
	const struct iovec *iov;
	int iovcnt;
	size_t skip; /* bytes of iov[0] that are done */
};

static void cursor_advance(struct cursor *c, size_t n)
{
	c->skip += n;
	while (c->iovcnt > 0 && c->skip >= c->iov->iov_len) {
		c->skip -= c->iov->iov_len;
		c->iov++;
		c->iovcnt--;
	}
}

static ssize_t cursor_write(const struct cursor *c, int fd, off_t offset)
{
	if (c->skip)
		return pwrite(fd, (char *)c->iov->iov_base + c->skip, c->iov->iov_len - c->skip, offset);
	return pwritev(fd, c->iov, VC_MIN(c->iovcnt, IOV_MAX), offset);
}

static ssize_t cursor_read(const struct cursor *c, int fd, off_t offset)
{
	if (c->skip)
		return pread(fd, (char *)c->iov->iov_base + c->skip, c->iov->iov_len - c->skip, offset);
	return preadv(fd, c->iov, VC_MIN(c->iovcnt, IOV_MAX), offset);
}

static ssize_t posix_preadv(struct vc_file *file, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	struct cursor c = { iov, iovcnt, 0 };
	ssize_t total = 0;

	cursor_advance(&c, 0);
	while (c.iovcnt > 0) {
		ssize_t n = cursor_read(&c, to_posix(file)->fd, (off_t)(offset + (uint64_t)total));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return range_failed(file, "read", offset + (uint64_t)total, errno);
		if (n == 0)
			break;
		total += n;
		cursor_advance(&c, (size_t)n);
	}
	return total;
}

static int posix_pwritev(struct vc_file *file, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	struct cursor c = { iov, iovcnt, 0 };

	cursor_advance(&c, 0);
	while (c.iovcnt > 0) {
		ssize_t n = cursor_write(&c, to_posix(file)->fd, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return range_failed(file, "write", offset, n < 0 ? errno : EIO);
		offset += (uint64_t)n;
		cursor_advance(&c, (size_t)n);
	}
	return 0;
}

static int posix_datasync(struct vc_file *file)
{
	if (fdatasync(to_posix(file)->fd) < 0)
		return path_failed(to_posix(file)->path, "sync", errno);
	return 0;
}

static int posix_truncate(struct vc_file *file, uint64_t size)
{
	int r;

	do {
		r = ftruncate(to_posix(file)->fd, (off_t)size);
	} while (r < 0 && errno == EINTR);
	return r < 0 ? range_failed(file, "truncate", size, errno) : 0;
}

static int posix_allocate(struct vc_file *file, uint64_t offset, uint64_t len)
{
	int r;

	do {
		r = fallocate(to_posix(file)->fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len);
	} while (r < 0 && errno == EINTR);
	if (r < 0 && errno == EOPNOTSUPP)
		return -EOPNOTSUPP;
	return r < 0 ? range_failed(file, "reserve space", offset, errno) : 0;
}

static int posix_size(struct vc_file *file, uint64_t *ret_size)
{
	struct stat st;

	if (fstat(to_posix(file)->fd, &st) < 0)
		return path_failed(to_posix(file)->path, "stat", errno);
	*ret_size = (uint64_t)st.st_size;
	return 0;
}

static void posix_start_writeback(struct vc_file *file, uint64_t offset, uint64_t len)
{
	/* A hint: an error shows again, and counts, at the next sync. */
	(void)sync_file_range(to_posix(file)->fd, (off_t)offset, (off_t)len, SYNC_FILE_RANGE_WRITE);
}

static void posix_read_ahead(struct vc_file *file, uint64_t offset, uint64_t len)
{
	(void)posix_fadvise(to_posix(file)->fd, (off_t)offset, (off_t)len, POSIX_FADV_WILLNEED);
}

/* ---- past the page cache ---- */

/* cachestat(2) of Linux 6.5, which the C library does not know yet; its number is the same everywhere. */
struct past_range {
	uint64_t offset, len;
};
struct past_pages {
	uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

#define PAST_CACHESTAT 451

/* Kernels that do not tell say "perhaps", and all is read through the page cache. */
static bool past_may_be_cached(int fd, uint64_t offset, uint64_t len)
{
	struct past_range range = { offset, len };
	struct past_pages pages;

	return syscall(PAST_CACHESTAT, fd, &range, &pages, 0) < 0 || pages.cached > 0;
}

/* The path may be another file's by now. */
static bool past_same_file(int a, int b)
{
	struct stat sa, sb;

	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

static int past_open(struct posix_file *pf)
{
	int fd = open_retry(pf->path, O_RDONLY | O_DIRECT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), was = -1;

	if (fd >= 0 && !past_same_file(fd, pf->fd)) {
		close(fd);
		fd = -1;
	}
	if (fd < 0)
		atomic_store(&pf->past_fails, true);
	else if (!atomic_compare_exchange_strong(&pf->past_fd, &was, fd)) {
		close(fd); /* another thread was first */
		fd = was;
	}
	return fd;
}

/* The descriptor to read this range through, or -1. */
static int past_fd(struct posix_file *pf, size_t len, uint64_t offset)
{
	int fd = atomic_load_explicit(&pf->past_fd, memory_order_acquire);

	if (atomic_load_explicit(&pf->past_fails, memory_order_relaxed) || past_may_be_cached(pf->fd, offset, len))
		return -1;
	return fd < 0 ? past_open(pf) : fd;
}

/* n bytes, or -errno. */
static ssize_t past_result(struct posix_file *pf, ssize_t n)
{
	if (n == -EINVAL)
		atomic_store(&pf->past_fails, true);
	return n < 0 ? -EAGAIN : n;
}

static ssize_t posix_pread_past(struct vc_file *file, void *buf, size_t len, uint64_t offset)
{
	int fd = past_fd(to_posix(file), len, offset);
	ssize_t n;

	if (fd < 0)
		return -EAGAIN;
	n = pread(fd, buf, len, (off_t)offset);
	return past_result(to_posix(file), n < 0 ? -errno : n);
}

static void read_arrived(struct vc_io_read *read, ssize_t n)
{
	read->done(read, read->past ? past_result(to_posix(read->file), n) : n < 0 ? -EAGAIN : n);
}

static int posix_start_read(struct vc_file *file, struct vc_io_ring *ring, struct vc_io_read *read)
{
	read->file = file;
	read->arrived = read_arrived;
	read->fd = read->past ? past_fd(to_posix(file), read->len, read->offset) : to_posix(file)->fd;
	return read->fd < 0 ? -EAGAIN : vc_io_ring_add(ring, read);
}

static int posix_lock(struct vc_file *file)
{
	int r;

	do {
		r = flock(to_posix(file)->fd, LOCK_EX | LOCK_NB);
	} while (r < 0 && errno == EINTR);
	if (r == 0)
		return 0;
	return errno == EWOULDBLOCK ? -EBUSY : path_failed(to_posix(file)->path, "lock", errno);
}

/* ---- names ---- */

static int posix_unlink(struct vc_io *io VC_UNUSED, const char *path)
{
	if (unlink(path) == 0)
		return 0;
	return is_expected(errno) ? -errno : path_failed(path, "remove", errno);
}

static int posix_rename(struct vc_io *io VC_UNUSED, const char *from, const char *to)
{
	int error;

	if (rename(from, to) == 0)
		return 0;
	error = errno;
	vc_err("%s: cannot rename to %s: %s", from, to, strerror(error));
	return -error;
}

static int posix_mkdir(struct vc_io *io VC_UNUSED, const char *path)
{
	if (mkdir(path, 0700) == 0)
		return 0;
	return is_expected(errno) ? -errno : path_failed(path, "make directory", errno);
}

static int posix_sync_dir(struct vc_io *io VC_UNUSED, const char *path)
{
	int fd = open_retry(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = 0;

	if (fd < 0)
		return path_failed(path, "open directory", -fd);
	if (fsync(fd) < 0)
		r = path_failed(path, "sync directory", errno);
	close(fd);
	return r;
}

static int list_each(DIR *dir, const char *path, int (*fn)(void *ctx, const char *name), void *ctx)
{
	for (;;) {
		struct dirent *de;
		int r;

		errno = 0;
		de = readdir(dir);
		if (!de)
			return errno ? path_failed(path, "list", errno) : 0;
		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
			continue;
		r = fn(ctx, de->d_name);
		if (r != 0)
			return r;
	}
}

static int posix_list(struct vc_io *io VC_UNUSED, const char *path, int (*fn)(void *ctx, const char *name), void *ctx)
{
	DIR *dir = opendir(path);
	int r;

	if (!dir)
		return is_expected(errno) ? -errno : path_failed(path, "list", errno);
	r = list_each(dir, path, fn, ctx);
	closedir(dir);
	return r;
}

static int posix_space(struct vc_io *io VC_UNUSED, const char *path, struct vc_io_space *ret)
{
	struct statvfs st;

	if (statvfs(path, &st) < 0)
		return path_failed(path, "ask for free space", errno);
	ret->total = (uint64_t)st.f_blocks * st.f_frsize;
	ret->free = (uint64_t)st.f_bavail * st.f_frsize;
	return 0;
}

static int posix_vet(struct vc_io *io VC_UNUSED, const char *path, bool follow)
{
	return vc_io_vet_path(path, follow);
}

static const struct vc_io_ops posix_ops = {
	.open = posix_open,
	.close = posix_close,
	.preadv = posix_preadv,
	.pwritev = posix_pwritev,
	.datasync = posix_datasync,
	.truncate = posix_truncate,
	.allocate = posix_allocate,
	.size = posix_size,
	.start_writeback = posix_start_writeback,
	.read_ahead = posix_read_ahead,
	.pread_past = posix_pread_past,
	.start_read = posix_start_read,
	.unlink = posix_unlink,
	.rename = posix_rename,
	.mkdir = posix_mkdir,
	.sync_dir = posix_sync_dir,
	.list = posix_list,
	.lock = posix_lock,
	.space = posix_space,
	.vet = posix_vet,
};

struct vc_io *vc_io_posix(void)
{
	static struct vc_io io = { &posix_ops };

	return &io;
}

int vc_io_posix_fd(const struct vc_file *file)
{
	return file->io->ops == &posix_ops ? to_posix(file)->fd : -1;
}
