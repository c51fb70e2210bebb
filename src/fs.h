/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs: a pool mounted with FUSE. The interface of the front end to the mount program.
 *
 * Life cycle: vc_fs_mount (threads serve from then on), vc_fs_serve (sleeps until the mount is gone or a stop is asked
 * for), vc_fs_close. The pool is opened before and closed after by the caller; once vc_fs_close has returned no
 * operation is in progress in it.
 */
#ifndef VC_FS_H
#define VC_FS_H

#include "pool.h"

struct vc_fs;

#define VC_FS_THREADS_MAX 128u

struct vc_fs_options {
	const char *pool_path;     /* shown as the source of the mount */
	const char *mountpoint;
	const char *mount_options; /* further options for mount(2) and libfuse, comma-separated, or NULL */
	unsigned int threads;      /* 0: a default */
	bool debug;                /* libfuse prints every request */
	bool pieces;               /* do as on kernels that send a large copy_file_range in pieces; for tests */
	void (*ready)(void *ctx);  /* called once, from another thread, when the kernel has accepted the mount */
	void (*detach)(void *ctx); /* not NULL: device_fd is mounted already, and this lets its owner unmount it (lazily) */
	int device_fd;
	void *ctx;
};

/** A mount without anybody who serves it: what device_fd and detach above are for. */
struct vc_fs_device;
/** Mount as the options say. 0 or -errno, with a message. */
int vc_fs_device_mount(const struct vc_fs_options *options, struct vc_fs_device **ret) VC_MUST_CHECK;
/** Until it is unmounted. */
int vc_fs_device_fd(const struct vc_fs_device *dev);
/** Lazily; nothing when somebody else has done it. */
void vc_fs_device_unmount(struct vc_fs_device *dev);
/** Unmount and free. NULL is ignored. */
void vc_fs_device_close(struct vc_fs_device *dev);

/** Mount and begin to serve. 0 or -errno, with a message. */
int vc_fs_mount(struct vc_pool *pool, const struct vc_fs_options *options, struct vc_fs **ret) VC_MUST_CHECK;

/**
 * Sleep until someone has unmounted, or until stop_fd is readable; then detach the mount, and wait `grace_ms` for those
 * who still have files open before their connection is cut. Returns 0 or -errno (the connection failed).
 */
int vc_fs_serve(struct vc_fs *fs, int stop_fd, unsigned int grace_ms) VC_MUST_CHECK;

/** Unmount if that has not happened, stop the threads, wait for what is in flight. NULL is ignored. */
void vc_fs_close(struct vc_fs *fs);

#endif
