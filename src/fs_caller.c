/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_caller: who sent a request, and what they may clone where.
 *
 * The kernel checks permissions of everything that goes by names and descriptors, but nothing of what an ioctl or a
 * line in the magic file names. What is found here by its path is checked once more under the locks of the clone, so that a
 * chmod which has returned holds. Supplementary groups come from /proc; when they cannot be read (a caller in another
 * pid namespace) the caller has none.
 */
#include "config.h"
#include "fs_impl.h"

#include <stdlib.h>
#include <sys/stat.h>

#define CALLER_GROUPS_MAX 65536

void fs_caller_init(fuse_req_t req, struct fs_caller *ret)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	int n, have;

	memset(ret, 0, sizeof(*ret));
	ret->caller.uid = ctx->uid;
	ret->caller.gid = ctx->gid;
	n = ctx->uid == 0 || ctx->pid == 0 ? 0 : fuse_req_getgroups(req, 0, NULL);
	if (n <= 0 || n > CALLER_GROUPS_MAX)
		return;
	ret->groups = calloc((size_t)n, sizeof(*ret->groups));
	if (!ret->groups)
		return;
	have = fuse_req_getgroups(req, n, ret->groups);
	ret->caller.groups = ret->groups;
	ret->caller.ngroups = have <= 0 ? 0 : (size_t)VC_MIN(have, n);
}

void fs_caller_fini(struct fs_caller *c)
{
	free(c->groups);
}

int fs_clone_source(struct vc_inode *src, const struct vc_caller *caller)
{
	struct vc_attr attr;

	vc_inode_attr(src, &attr);
	if (!S_ISREG(attr.mode))
		return S_ISDIR(attr.mode) ? -EISDIR : -EINVAL;
	return vc_names_may(src, caller, 4);
}

int fs_clone_target(struct vc_inode *dir, const char *dst, const struct vc_caller *caller, struct vc_inode **ret_dir,
		    char *ret_name)
{
	int r;

	if (!*dst)
		return -ENOENT;
	r = vc_names_walk(dir, dst, caller, ret_dir, ret_name);
	if (r < 0)
		return r;
	r = vc_names_may(*ret_dir, caller, 2 | 1);
	if (r < 0) {
		vc_inode_put(*ret_dir);
		*ret_dir = NULL;
	}
	return r;
}

int fs_clone_paths(struct vc_inode *dir, const char *src, const char *dst, const struct vc_caller *caller,
		   struct vc_inode **ret_src, struct vc_inode **ret_dir, char *ret_name)
{
	struct vc_inode *source;
	int r;

	r = vc_names_walk(dir, src, caller, &source, NULL);
	if (r < 0)
		return r;
	r = fs_clone_source(source, caller);
	if (r == 0)
		r = fs_clone_target(dir, dst, caller, ret_dir, ret_name);
	if (r < 0)
		vc_inode_put(source);
	else
		*ret_src = source;
	return r;
}

uint32_t fs_clone_mode(struct vc_inode *src)
{
	struct vc_attr attr;

	vc_inode_attr(src, &attr);
	return attr.mode & 0777;
}

struct vc_owner fs_clone_owner(struct vc_inode *dir, const struct vc_caller *caller)
{
	struct vc_attr attr;

	vc_inode_attr(dir, &attr);
	return (struct vc_owner){ .uid = caller->uid, .gid = attr.mode & S_ISGID ? attr.gid : caller->gid, .caller = caller };
}
