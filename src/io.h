/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * io: all file I/O of the engine goes through this table, so that faults and crashes can be injected.
 *
 * Two implementations: vc_io_posix() (io_posix.c) and the simulated file system of the tests
 * (tests/unit/io_sim.c), which records, tears, drops and fails. LMDB does its own I/O; the table
 * is told about its commits (meta_committed) so that a recorder can keep a copy.
 *
 * Paths are as given (absolute, or relative to the working directory). All functions are
 * thread-safe. Every failure returns -errno; the implementation sends ONE message naming path and
 * offset, except for -ENOENT and -EEXIST of open/unlink/mkdir/list and -EOPNOTSUPP of allocate and -EBUSY of lock, which callers
 * often expect.
 * Interrupted and short transfers are continued inside.
 */
#ifndef VC_IO_H
#define VC_IO_H

#include <sys/uio.h>
#include "util.h"

struct vc_io;
struct vc_file;
struct vc_io_ring;
struct vc_io_read;

enum vc_io_open_flags {
	VC_IO_READ = 0,       /* read only */
	VC_IO_WRITE = 1 << 0, /* read and write */
	VC_IO_CREATE = 1 << 1,/* create if missing (mode 0600) */
	VC_IO_EXCL = 1 << 2,  /* with CREATE: -EEXIST if present */
	VC_IO_DIRECT = 1 << 3,/* O_DIRECT where the file system can; ignored where it cannot */
};

/* A sector. Devices with larger ones are not read past the page cache: most have these, and reading little matters there. */
#define VC_IO_PAST_ALIGN 512u

struct vc_io_space {
	uint64_t total, free; /* bytes of the file system; free to us */
};

struct vc_io_ops {
	int (*open)(struct vc_io *io, const char *path, int flags, struct vc_file **ret_file);
	void (*close)(struct vc_file *file);
	/* Returns bytes read, less than len only at end of file. */
	ssize_t (*preadv)(struct vc_file *file, const struct iovec *iov, int iovcnt, uint64_t offset);
	/* All or error: 0 or -errno. */
	int (*pwritev)(struct vc_file *file, const struct iovec *iov, int iovcnt, uint64_t offset);
	int (*datasync)(struct vc_file *file); /* data, and the metadata needed to read it */
	int (*truncate)(struct vc_file *file, uint64_t size);
	int (*allocate)(struct vc_file *file, uint64_t offset, uint64_t len); /* reserve, keep size; -EOPNOTSUPP allowed */
	int (*size)(struct vc_file *file, uint64_t *ret_size);
	void (*start_writeback)(struct vc_file *file, uint64_t offset, uint64_t len); /* a hint; no durability */
	void (*read_ahead)(struct vc_file *file, uint64_t offset, uint64_t len); /* a hint: will be read soon. Optional */
	/*
	 * preadv of one buffer for a caller that keeps what it reads: past the page cache. buf, len and offset are multiples of VC_IO_PAST_ALIGN.
	 * -EAGAIN, without a message: preadv shall be used, because what is wanted lies in the page cache (or may), because this file
	 * cannot be read so, or because of an error, which preadv then names. Optional.
	 */
	ssize_t (*pread_past)(struct vc_file *file, void *buf, size_t len, uint64_t offset);
	/*
	 * Read without waiting for it, as `read` says (io_ring.h): 0, and its `done` is called, or was, on a thread of the ring or the caller's;
	 * the file stays open until then. -EAGAIN: preadv shall be used. No message is sent. Optional.
	 */
	int (*start_read)(struct vc_file *file, struct vc_io_ring *ring, struct vc_io_read *read);
	int (*unlink)(struct vc_io *io, const char *path);
	int (*rename)(struct vc_io *io, const char *from, const char *to);
	int (*mkdir)(struct vc_io *io, const char *path); /* mode 0700 */
	int (*sync_dir)(struct vc_io *io, const char *path); /* entries made, renamed or removed are durable */
	/* Calls fn for every entry but "." and ".."; stops when it returns non-zero, and returns that. */
	int (*list)(struct vc_io *io, const char *path, int (*fn)(void *ctx, const char *name), void *ctx);
	int (*lock)(struct vc_file *file); /* exclusive, for the life of the open file; -EBUSY if another has it */
	int (*space)(struct vc_io *io, const char *path, struct vc_io_space *ret);
	/* LMDB has committed the file at path. Optional. */
	void (*meta_committed)(struct vc_io *io, const char *path);
	/*
	 * The path by which the operating system knows `path`, for LMDB, which does its own I/O: written to buf (of
	 * len bytes, PATH_MAX will do) and returned, or a string that lives as long as the table. Optional: without it
	 * the path itself.
	 */
	const char *(*real_path)(struct vc_io *io, const char *path, char *buf, size_t len);
	/*
	 * May what is at `path` be trusted (io_vet.h)? What does not exist is fine. `follow`: a symbolic link at its end is. 0 or -errno.
	 * Optional: without it everything may.
	 */
	int (*vet)(struct vc_io *io, const char *path, bool follow);
};

struct vc_io {
	const struct vc_io_ops *ops;
};

struct vc_file {
	struct vc_io *io;
};

/** The real thing; a constant object, never freed. */
struct vc_io *vc_io_posix(void);

/** The descriptor below a posix file, -1 for any other implementation (for asynchronous I/O and fstat). */
int vc_io_posix_fd(const struct vc_file *file);

static inline VC_MUST_CHECK int vc_io_open(struct vc_io *io, const char *path, int flags, struct vc_file **ret)
{
	return io->ops->open(io, path, flags, ret);
}
/** Close; NULL is ignored. */
static inline void vc_io_close(struct vc_file *f)
{
	if (f)
		f->io->ops->close(f);
}
static inline VC_MUST_CHECK ssize_t vc_io_preadv(struct vc_file *f, const struct iovec *iov, int n, uint64_t off)
{
	return f->io->ops->preadv(f, iov, n, off);
}
static inline VC_MUST_CHECK int vc_io_pwritev(struct vc_file *f, const struct iovec *iov, int n, uint64_t off)
{
	return f->io->ops->pwritev(f, iov, n, off);
}
static inline VC_MUST_CHECK ssize_t vc_io_pread(struct vc_file *f, void *buf, size_t len, uint64_t off)
{
	struct iovec iov = { buf, len };

	return f->io->ops->preadv(f, &iov, 1, off);
}
static inline VC_MUST_CHECK int vc_io_pwrite(struct vc_file *f, const void *buf, size_t len, uint64_t off)
{
	struct iovec iov = { (void *)(uintptr_t)buf, len };

	return f->io->ops->pwritev(f, &iov, 1, off);
}
/**
 * Of a sync that failed for want of space it is as uncertain what it did as of any other: -EIO then, so that nobody takes it for
 * something that passes (D4).
 */
static inline int vc_io_sync_result(int r) { return r == -ENOSPC || r == -EDQUOT ? -EIO : r; }
static inline VC_MUST_CHECK int vc_io_datasync(struct vc_file *f) { return vc_io_sync_result(f->io->ops->datasync(f)); }
static inline VC_MUST_CHECK int vc_io_truncate(struct vc_file *f, uint64_t n) { return f->io->ops->truncate(f, n); }
static inline VC_MUST_CHECK int vc_io_allocate(struct vc_file *f, uint64_t off, uint64_t len)
{
	return f->io->ops->allocate(f, off, len);
}
static inline VC_MUST_CHECK int vc_io_size(struct vc_file *f, uint64_t *ret) { return f->io->ops->size(f, ret); }
static inline void vc_io_start_writeback(struct vc_file *f, uint64_t off, uint64_t len)
{
	f->io->ops->start_writeback(f, off, len);
}
static inline void vc_io_read_ahead(struct vc_file *f, uint64_t off, uint64_t len)
{
	if (f->io->ops->read_ahead)
		f->io->ops->read_ahead(f, off, len);
}
static inline VC_MUST_CHECK ssize_t vc_io_pread_past(struct vc_file *f, void *buf, size_t len, uint64_t off)
{
	return f->io->ops->pread_past ? f->io->ops->pread_past(f, buf, len, off) : -EAGAIN;
}
static inline VC_MUST_CHECK int vc_io_start_read(struct vc_file *f, struct vc_io_ring *ring, struct vc_io_read *read)
{
	return f->io->ops->start_read ? f->io->ops->start_read(f, ring, read) : -EAGAIN;
}
static inline VC_MUST_CHECK int vc_io_unlink(struct vc_io *io, const char *path) { return io->ops->unlink(io, path); }
static inline VC_MUST_CHECK int vc_io_rename(struct vc_io *io, const char *from, const char *to)
{
	return io->ops->rename(io, from, to);
}
static inline VC_MUST_CHECK int vc_io_mkdir(struct vc_io *io, const char *path) { return io->ops->mkdir(io, path); }
static inline VC_MUST_CHECK int vc_io_sync_dir(struct vc_io *io, const char *path)
{
	return vc_io_sync_result(io->ops->sync_dir(io, path));
}
static inline VC_MUST_CHECK int vc_io_list(struct vc_io *io, const char *path,
					   int (*fn)(void *ctx, const char *name), void *ctx)
{
	return io->ops->list(io, path, fn, ctx);
}
static inline VC_MUST_CHECK int vc_io_lock(struct vc_file *f) { return f->io->ops->lock(f); }
static inline VC_MUST_CHECK int vc_io_space(struct vc_io *io, const char *path, struct vc_io_space *ret)
{
	return io->ops->space(io, path, ret);
}
static inline void vc_io_meta_committed(struct vc_io *io, const char *path)
{
	if (io->ops->meta_committed)
		io->ops->meta_committed(io, path);
}
static inline VC_MUST_CHECK int vc_io_vet(struct vc_io *io, const char *path, bool follow)
{
	return io->ops->vet ? io->ops->vet(io, path, follow) : 0;
}
/** Where LMDB finds what the engine calls `path` (POOL/meta or below, made with vc_io_mkdir). */
static inline const char *vc_io_real_path(struct vc_io *io, const char *path, char *buf, size_t len)
{
	return io->ops->real_path ? io->ops->real_path(io, path, buf, len) : path;
}

#endif
