/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_impl: what the files of the front end share. Nobody else includes it.
 *
 *   fs_wire    raw requests and replies: what libfuse does not know is translated here
 *   fs         session, worker threads, end of the mount
 *   fs_device  a mount that another process serves
 *   fs_op      requests that are answered later; the queues with a thread each
 *   fs_notify  invalidation of what the kernel caches
 *   fs_names   namespace and attributes     fs_dir   reading directories     fs_xattr  extended attributes
 *   fs_open    handles, and which of them may use the page cache
 *   fs_data    read, write, flush           fs_copy  copy_file_range
 *   fs_ioctl   vclonefs.h                   fs_magic the file .clone
 *   fs_caller  who asks, and what it may clone where
 *   fs_text    words and patterns of the two above, without FUSE
 *
 * Threads: N workers receive requests and run the handlers. A handler that calls an operation with a completion does
 * not wait for it: the struct fs_op it made is answered by the completion ("light"), or by the finish queue when
 * answering takes locks, or by the notify queue when the kernel's caches have to be invalidated first. The notify
 * queue may sleep in the kernel on a page that some other request holds, therefore it serves nobody else.
 *
 * Locks: op_lock, table_lock and the queues' locks all have rank VC_LOCK_DONE and are never nested.
 */
#ifndef VC_FS_IMPL_H
#define VC_FS_IMPL_H

#define FUSE_USE_VERSION 314

#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdatomic.h>

#include "format.h"
#include "fs.h"
#include "list.h"
#include "lock.h"
#include "names.h"
#include "volume.h"

/* What newer kernels know and the installed headers may not. */
#define FS_FUSE_COPY_FILE_RANGE_64 53
#define FS_INIT_DIRECT_IO_ALLOW_MMAP (UINT64_C(1) << 36)
#define FS_FOPEN_NOFLUSH (1u << 5)
#define FS_FOPEN_PARALLEL_DIRECT_WRITES (1u << 6)
#define FS_FATTR_KILL_SUIDGID (1u << 11)

/*
 * Private marks that fs_wire puts into fields libfuse hands on, for what it would drop: into the flags of WRITE
 * (FUSE_WRITE_KILL_SUIDGID), the flags of COPY_FILE_RANGE (the caller expects a 64-bit answer), the mode of
 * SETATTR when no mode is set (FATTR_KILL_SUIDGID).
 */
#define FS_MARK (1u << 30)

#define FS_TIMEOUT 86400.0                  /* seconds the kernel may trust names and attributes: it is told of changes */
#define FS_REQUEST_MAX (1u << 20)           /* bytes in one READ or WRITE */
#define FS_MAGIC_BIT (UINT64_C(1) << 63)    /* node id of a directory's magic file: this and the inode number */
#define FS_REMEMBERED_MAX 1024              /* images without handles whose page cache is known to be good */
#define FS_COPY_PIECE UINT64_C(0xfffff000)  /* length of the first piece of a large copy on kernels without the 64-bit request */
#define FS_PIN_NS (UINT64_C(5) * 1000000000)

struct fs_job {
	struct fs_job *next;
	void (*fn)(struct fs_job *job);
};

/** A thread that runs jobs in order. */
struct fs_queue {
	struct vc_mutex lock;
	struct vc_cond cond;
	struct fs_job *head, **tail; /* lock */
	bool stop, woken;            /* lock */
	bool started;
	pthread_t thread;
	struct vc_fs *fs;
	uint64_t (*idle)(struct vc_fs *fs); /* optional: called between jobs; returns when (vc_mono_ns) it wants to be called again, or ~0 */
};

struct fs_worker {
	struct vc_fs *fs;
	pthread_t thread;
	unsigned int index;
	int fd;             /* its own clone of the device */
	bool started;
	char *buffer;       /* FS_REQUEST_MAX, page-aligned: for replies made by this thread */
	struct fuse_buf in;
};

struct vc_fs {
	struct vc_pool *pool;
	struct vc_fs_options options;
	struct fuse_session *se;
	bool mounted;           /* main thread only */
	atomic_bool ready;
	_Atomic uint64_t init_unique; /* of the INIT request, whose reply is patched */
	_Atomic uint64_t init_flags;  /* what the kernel offered there */

	struct fs_worker *workers;
	unsigned int nworkers;
	atomic_uint live_workers;
	int ended_fd;           /* eventfd: written when a worker ends */

	struct fs_queue finish, notify, reread;
	atomic_uint nreads;     /* small reads that are not answered yet */

	struct vc_mutex op_lock;
	struct vc_cond op_idle;
	unsigned int nops;      /* op_lock: struct fs_op that exist */

	struct vc_mutex table_lock;
	struct vc_list *images; /* table_lock: hash table of struct fs_image by inode number */
	struct vc_list remembered; /* table_lock: images without handles, oldest first */
	unsigned int nremembered;  /* table_lock */
	struct vc_list handles; /* table_lock: all open ones */
	struct vc_list pins;    /* table_lock: copies in pieces that are under way (fs_copy) */
	struct vc_pool_figures figures; /* table_lock: for statfs */
	uint64_t figures_ns;            /* table_lock: when they were taken */
};

/**
 * What the kernel may have of one image in its page cache. Exists while the image is open, and some time longer when
 * the pages are known to be good. `stale`: the image was changed past the page cache since; the next open drops the
 * pages. As long as `ncached` handles use the cache, each such change is invalidated before it is answered.
 */
struct fs_image {
	struct vc_list link;       /* in images */
	struct vc_list remembered; /* in remembered, when nhandles is 0 */
	uint64_t ino;
	struct vc_list handles;    /* table_lock: struct fs_handle.of_image */
	unsigned int nhandles;     /* table_lock */
	unsigned int ndirect;      /* table_lock: handles past the page cache */
	atomic_uint ncached;       /* handles that use it; changed under table_lock, read without */
	atomic_bool stale;
};

/** What fuse_file_info.fh points to, for files, directories and magic files. */
struct fs_handle {
	struct vc_list link;        /* in handles */
	struct vc_inode *inode;     /* holds a reference; of a magic file: its directory */
	struct fs_image *image;     /* regular files only */
	int flags;                  /* of open(2) */
	bool direct;                /* answered with FOPEN_DIRECT_IO */
	bool magic;
	struct vc_list of_image;    /* in image->handles */
	uint32_t uid, gid;          /* of who opened it */
};

static inline struct fs_handle *fs_handle_of(const struct fuse_file_info *fi)
{
	return (struct fs_handle *)(uintptr_t)fi->fh;
}

/** One request that is answered later. Made with fs_op_new, ended with fs_op_free by its finish function. */
struct fs_op {
	struct vc_done done;
	struct fs_job job;
	struct vc_fs *fs;
	fuse_req_t req;
	/* Answers the request and frees the op. On a worker or the finish queue; a light one wherever the completion runs. */
	void (*finish)(struct fs_op *op, int error);
	bool light;
	bool from_cache;                /* write: of pages that the kernel holds until the answer, whatever the handle */
	int error;
	atomic_int phase;
	struct vc_inode *inode, *other; /* references, put by fs_op_free */
	struct vc_inode *made;          /* result of a creation */
	struct fs_handle *handle;
	uint64_t count;                 /* bytes done */
	uint64_t ino, offset, len;      /* what to invalidate before answering; len also: bytes to answer */
	int flags;                      /* of open(2) */
	void *data;                     /* of the finish function */
	bool grown;                     /* ioctl: the file ends behind the pages that changed, and did not before */
	bool wide;                      /* copy_file_range: answer in 64 bits; write: attributes changed; ioctl: pages changed */
};

/** An op for `req`, not light; NULL when there is no memory (answered then). */
struct fs_op *fs_op_new(fuse_req_t req, void (*finish)(struct fs_op *op, int error));
void fs_op_free(struct fs_op *op);
/** Call after the operation with &op->done was started; `r` is what it returned. The op belongs to others then. */
void fs_op_started(struct fs_op *op, int r);
/** The same for a light op, which may be gone by now unless r is negative. */
static inline void fs_op_started_light(struct fs_op *op, int r)
{
	if (r < 0)
		op->finish(op, r);
}
/** Finish function of operations that answer with an error number only; may be light. */
void fs_op_reply_err(struct fs_op *op, int error);

int fs_queue_start(struct fs_queue *q, struct vc_fs *fs, const char *name, uint64_t (*idle)(struct vc_fs *fs)) VC_MUST_CHECK;
/** Runs what is queued and ends the thread. */
void fs_queue_stop(struct fs_queue *q);
void fs_queue_add(struct fs_queue *q, struct fs_job *job);
/** Let it call idle() again. */
void fs_queue_wake(struct fs_queue *q);

/** The calling thread, if it is a worker: its buffer may be used until the handler returns. */
struct fs_worker *fs_worker_self(void);

static inline struct vc_fs *fs_of(fuse_req_t req) { return fuse_req_userdata(req); }
static inline bool fs_is_magic(fuse_ino_t ino) { return (uint64_t)ino & FS_MAGIC_BIT; }
/** Inode of a request; answers the request with an error and returns NULL when there is none. */
struct vc_inode *fs_inode_or_reply(fuse_req_t req, fuse_ino_t ino);

/* fs */
/** A session for mounting with these options; `fs` is what its requests are handed (NULL: it will not serve any). */
int fs_session_new(const struct vc_fs_options *options, struct vc_fs *fs, struct fuse_session **ret) VC_MUST_CHECK;

/* fs_wire */
extern const struct fuse_custom_io fs_wire_io;

/* fs_notify: on the notify queue only. What the kernel does not have is ignored. */
void fs_notify_range(struct vc_fs *fs, uint64_t ino, uint64_t offset, uint64_t len); /* pages (len 0: to the end) and attributes */
void fs_notify_attr(struct vc_fs *fs, uint64_t ino);                                 /* attributes */
/** The file has grown to `end` behind the kernel's back, which was told of the range before: make it know the size at once. */
void fs_notify_grown(struct vc_fs *fs, uint64_t ino, struct vc_inode *inode, uint64_t end);

/* fs_names */
void fs_fill_stat(struct vc_inode *inode, struct stat *ret);
/** Fill an entry reply and count it as known; undo with vc_inode_forget when the reply does not arrive. */
void fs_fill_entry(struct vc_inode *inode, struct fuse_entry_param *ret);
/** Answer with an entry. Keeps the caller's reference. */
void fs_reply_entry(fuse_req_t req, struct vc_inode *inode);
void fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void fs_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n);
void fs_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void fs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi);
void fs_readlink(fuse_req_t req, fuse_ino_t ino);
void fs_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void fs_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void fs_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
/** Make an inode; owner and request are filled in. `finish` finds it in op->made and the open flags in op->flags. */
void fs_make(fuse_req_t req, fuse_ino_t parent, const char *name, struct vc_new *what, int flags,
	     void (*finish)(struct fs_op *op, int error));
/** Answers with `error` and returns true when a name is the magic one, or the parent is a magic file (ENOTDIR). */
bool fs_refuse_magic(fuse_req_t req, fuse_ino_t parent, const char *name, int error);
void fs_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void fs_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void fs_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
	       unsigned int flags);
void fs_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);
void fs_access(fuse_req_t req, fuse_ino_t ino, int mask);
void fs_statfs(fuse_req_t req, fuse_ino_t ino);

/* fs_dir */
void fs_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void fs_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void fs_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);

/* fs_xattr */
void fs_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void fs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void fs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void fs_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* fs_open */
int fs_table_init(struct vc_fs *fs) VC_MUST_CHECK;
void fs_table_fini(struct vc_fs *fs);
/** A handle for who asks that takes over the reference to inode; NULL: no memory (the reference stays with the caller). */
struct fs_handle *fs_handle_new(fuse_req_t req, struct vc_inode *inode, int flags);
void fs_handle_free(struct vc_fs *fs, struct fs_handle *h);
/** The image was changed through h past the page cache. True: someone else uses the cache, invalidate before answering. */
bool fs_handle_changed(struct fs_handle *h);
/** Does this user, in this group, have the image open for reading? Then the kernel has let him through the directories to it. */
bool fs_is_open_by(struct vc_fs *fs, uint64_t ino, const struct vc_caller *caller);
void fs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void fs_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

/* fs_data */
/**
 * The image is about to be changed by a request that says nothing of set-user-id bits: drop them unless it is root's. 1: they were
 * there, and the kernel's copy of the attributes is wrong; 0; -errno.
 */
int fs_drop_mode_bits(fuse_req_t req, struct vc_inode *inode) VC_MUST_CHECK;
void fs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void fs_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi);
void fs_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void fs_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t len, struct fuse_file_info *fi);
void fs_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);

/* fs_copy */
void fs_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in, fuse_ino_t ino_out,
			off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags);
/** The handle is being closed: forget the copies in pieces from and to it. */
void fs_copy_release(struct vc_fs *fs, struct fs_handle *h);
/** Drop the pins whose time is over; returns when to come again (struct fs_queue). */
uint64_t fs_copy_expire(struct vc_fs *fs);

/* fs_ioctl */
void fs_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, void *arg, struct fuse_file_info *fi, unsigned int flags,
	      const void *in, size_t in_len, size_t out_len);

/* fs_caller */
/** Who sent a request. End with fs_caller_fini. */
struct fs_caller {
	struct vc_caller caller;
	uint32_t *groups; /* allocated, or NULL */
};
void fs_caller_init(fuse_req_t req, struct fs_caller *ret);
void fs_caller_fini(struct fs_caller *c);
/** Find what a clone needs: the source (readable, a regular file) and the directory (writable) with the new name. 0 or -errno. */
int fs_clone_paths(struct vc_inode *dir, const char *src, const char *dst, const struct vc_caller *caller,
		   struct vc_inode **ret_src, struct vc_inode **ret_dir, char *ret_name) VC_MUST_CHECK;
/** The directory part of the above alone. */
int fs_clone_target(struct vc_inode *dir, const char *dst, const struct vc_caller *caller, struct vc_inode **ret_dir,
		    char *ret_name) VC_MUST_CHECK;
/** May it be read, and is it an image? 0, -EISDIR, -EINVAL, -EACCES. */
int fs_clone_source(struct vc_inode *src, const struct vc_caller *caller) VC_MUST_CHECK;
/** Mode and owner of a clone that `caller` makes in `dir`. */
uint32_t fs_clone_mode(struct vc_inode *src);
struct vc_owner fs_clone_owner(struct vc_inode *dir, const struct vc_caller *caller);

/* fs_magic */
void fs_magic_stat(struct vc_inode *dir, struct stat *ret);
void fs_magic_reply_entry(fuse_req_t req, struct vc_inode *dir);
void fs_magic_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void fs_magic_setattr(fuse_req_t req, fuse_ino_t ino, int to_set);
void fs_magic_read(fuse_req_t req, size_t size, off_t off);
void fs_magic_write(fuse_req_t req, struct fs_handle *h, const char *buf, size_t len);

#endif
