/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * names: files, directories, links and their attributes: what a file system front end needs besides data.
 *
 * An inode is known by its number, which is stable for ever and never reused (generation is therefore always 1 and NFS
 * handles stay valid). Permission is NOT checked here (the kernel does it with default_permissions; see vc_names_may for
 * calls that by-pass the kernel's checks).
 *
 * References: functions that return a struct vc_inode give one reference, ended with vc_inode_put. The kernel's knowledge
 * of an inode is counted separately with vc_inode_known / vc_inode_forget: an inode without names lives as long as it is
 * known or referenced. Creating, deleting, renaming, linking are durable when `done` is called (D1); attributes and xattrs
 * with the next flush.
 *
 * Names: 1 to 255 bytes without '/' or NUL, not "." or "..", not ".clone" (-EINVAL... -ENAMETOOLONG as the system calls do).
 * Errors are those of the system calls of the same name. -EROFS: pool failed or read-only.
 */
#ifndef VC_NAMES_H
#define VC_NAMES_H

#include "done.h"
#include "pool.h"

struct vc_inode;

/** Magic file name that no real entry may have; provided by the front end in every directory. */
#define VC_MAGIC_NAME ".clone"

struct vc_attr {
	uint64_t ino, generation;
	uint32_t mode, nlink, uid, gid, rdev;
	uint64_t size, blocks; /* blocks of 512 bytes, by the option real_blocks */
	uint64_t atime_ns, mtime_ns, ctime_ns, btime_ns;
};

enum vc_attr_mask {
	VC_SET_MODE = 1 << 0, VC_SET_UID = 1 << 1, VC_SET_GID = 1 << 2, VC_SET_ATIME = 1 << 3, VC_SET_MTIME = 1 << 4,
	VC_SET_CTIME = 1 << 5,
	VC_SET_KILL_PRIV = 1 << 6, /* drop set-user-id, and set-group-id when group-executable */
};

/** Who makes a new inode. */
struct vc_owner {
	uint32_t uid, gid;
	/* Clones only, and NULL when the kernel has checked: who must be allowed, under the locks that order it with chmod and chown, */
	const struct vc_caller *caller; /* to write into the directory and, unless he has the source open, to read that: -EACCES */
	bool source_is_open;
};

/** 0, -ENOENT (or -ESTALE: a number that was used and is gone), -errno. */
int vc_inode_get(struct vc_pool *pool, uint64_t ino, struct vc_inode **ret) VC_MUST_CHECK;
void vc_inode_hold(struct vc_inode *inode);
void vc_inode_put(struct vc_inode *inode);
/** The kernel learned of it once more (a reply with an entry); forgot it n times. */
void vc_inode_known(struct vc_inode *inode);
void vc_inode_forget(struct vc_pool *pool, uint64_t ino, uint64_t n);
uint64_t vc_inode_ino(const struct vc_inode *inode);
void vc_inode_attr(struct vc_inode *inode, struct vc_attr *ret);

/** "." and ".." work too. */
int vc_names_lookup(struct vc_inode *dir, const char *name, struct vc_inode **ret) VC_MUST_CHECK;

/** What to make: type by mode's S_IFMT; rdev for devices; target for symbolic links (1 to VC_SYMLINK_MAX bytes, otherwise NULL). */
struct vc_new {
	uint32_t mode, rdev;
	struct vc_owner owner; /* gid is replaced by the directory's when that has the set-group-id bit */
	const char *target;
};
/** *ret is set before done is called. On error of done *ret is put already by the implementation and must not be used. */
int vc_names_create(struct vc_inode *dir, const char *name, const struct vc_new *what, struct vc_inode **ret,
		    struct vc_done *done) VC_MUST_CHECK;
int vc_names_link(struct vc_inode *inode, struct vc_inode *dir, const char *name, struct vc_done *done) VC_MUST_CHECK;
int vc_names_unlink(struct vc_inode *dir, const char *name, struct vc_done *done) VC_MUST_CHECK;
int vc_names_rmdir(struct vc_inode *dir, const char *name, struct vc_done *done) VC_MUST_CHECK;
/** flags: RENAME_NOREPLACE, RENAME_EXCHANGE of linux/fs.h; others -EINVAL. */
int vc_names_rename(struct vc_inode *dir, const char *name, struct vc_inode *newdir, const char *newname,
		    unsigned int flags, struct vc_done *done) VC_MUST_CHECK;

struct vc_dirent {
	const char *name;
	uint64_t ino;
	uint32_t type;   /* S_IFMT bits */
	uint64_t cookie; /* pass it to continue after this entry */
};
/** Entries after `cookie` (0: from the start, "." and ".." included, with cookies 1 and 2) until fn returns non-zero; returns 0 or -errno. */
int vc_names_readdir(struct vc_inode *dir, uint64_t cookie, int (*fn)(void *ctx, const struct vc_dirent *entry),
		     void *ctx) VC_MUST_CHECK;

/** Target with NUL into buf; returns its length, -EINVAL, -ERANGE. */
int vc_names_readlink(struct vc_inode *inode, char *buf, size_t len) VC_MUST_CHECK;

/** Sets the fields named in mask (enum vc_attr_mask) from attr; ctime becomes now unless VC_SET_CTIME. */
int vc_attr_set(struct vc_inode *inode, const struct vc_attr *attr, unsigned int mask) VC_MUST_CHECK;

/** As getxattr(2)/listxattr(2): len 0 asks for the size. Returns bytes, -ENODATA, -ERANGE. */
ssize_t vc_xattr_get(struct vc_inode *inode, const char *name, void *buf, size_t len) VC_MUST_CHECK;
ssize_t vc_xattr_list(struct vc_inode *inode, char *buf, size_t len) VC_MUST_CHECK;
/** flags XATTR_CREATE, XATTR_REPLACE. -E2BIG above VC_XATTR_VALUE_MAX. */
int vc_xattr_set(struct vc_inode *inode, const char *name, const void *value, size_t len, int flags) VC_MUST_CHECK;
int vc_xattr_remove(struct vc_inode *inode, const char *name) VC_MUST_CHECK;

/** Who asks, for calls that the kernel does not check. */
struct vc_caller {
	uint32_t uid, gid;
	const uint32_t *groups; /* supplementary */
	size_t ngroups;
};
/** May the caller access the inode with mode bits `may` (4 read, 2 write, 1 execute/search)? 0 or -EACCES. uid 0 may (execute: only if any x bit or a directory). */
int vc_names_may(struct vc_inode *inode, const struct vc_caller *caller, int may) VC_MUST_CHECK;
/**
 * Walk `path` from `dir` (from the root of the mount when it begins with '/'), asking for search permission in each directory,
 * following symbolic links that stay relative or absolute within the mount (at most 40). With `ret_last` NULL the whole
 * path is resolved into *ret; otherwise all but the last component is, *ret is the directory, and ret_last (256
 * bytes) receives that component (which may not exist; not "." or ".."). 0, -ENOENT, -ENOTDIR, -EACCES, -ELOOP, -ENAMETOOLONG, -EINVAL.
 */
int vc_names_walk(struct vc_inode *dir, const char *path, const struct vc_caller *caller, struct vc_inode **ret,
		  char *ret_last) VC_MUST_CHECK;

#endif
