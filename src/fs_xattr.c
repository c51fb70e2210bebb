/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_xattr: extended attributes: user., trusted. and security. are stored.
 *
 * system. (POSIX ACLs) is refused, and security.capability too: a write would have to remove it, and disk images are
 * not executed.
 */
#include "config.h"
#include "fs_impl.h"

#include <stdlib.h>

#define XATTR_LIST_MAX 65536u

static bool xattr_begins(const char *name, const char *prefix)
{
	return strncmp(name, prefix, strlen(prefix)) == 0;
}

static bool xattr_is_stored(const char *name)
{
	if (strcmp(name, "security.capability") == 0)
		return false;
	return xattr_begins(name, "user.") || xattr_begins(name, "trusted.") || xattr_begins(name, "security.");
}

/** The inode of a request about attribute `name` (NULL: any), or NULL: answered with `error`. */
static struct vc_inode *xattr_inode(fuse_req_t req, fuse_ino_t ino, const char *name, int error)
{
	if (fs_is_magic(ino) || (name && !xattr_is_stored(name))) {
		fuse_reply_err(req, error);
		return NULL;
	}
	return fs_inode_or_reply(req, ino);
}

/** The caller has room for `size` bytes; 0: asks for the length only. */
static void xattr_reply(fuse_req_t req, const char *data, size_t len, size_t size)
{
	if (size == 0)
		fuse_reply_xattr(req, len);
	else if (len > size)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, data, len);
}

void fs_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	struct vc_inode *inode = xattr_inode(req, ino, name, EOPNOTSUPP);
	int r;

	if (!inode)
		return;
	r = vc_xattr_set(inode, name, value, size, flags);
	vc_inode_put(inode);
	fuse_reply_err(req, -r);
}

void fs_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct vc_inode *inode = xattr_inode(req, ino, name, EOPNOTSUPP);
	int r;

	if (!inode)
		return;
	r = vc_xattr_remove(inode, name);
	vc_inode_put(inode);
	fuse_reply_err(req, -r);
}

void fs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	char value[VC_XATTR_VALUE_MAX];
	struct vc_inode *inode;
	ssize_t n;

	inode = xattr_inode(req, ino, name, xattr_begins(name, "system.") ? EOPNOTSUPP : ENODATA);
	if (!inode)
		return;
	n = vc_xattr_get(inode, name, value, VC_MIN(size, sizeof(value)));
	vc_inode_put(inode);
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		xattr_reply(req, value, (size_t)n, size);
}

/** Remove the trusted. names, which only root may see; returns the new length. */
static size_t xattr_hide_trusted(char *names, size_t len)
{
	size_t kept = 0, one;

	for (size_t at = 0; at < len; at += one) {
		one = strlen(names + at) + 1;
		if (xattr_begins(names + at, "trusted."))
			continue;
		memmove(names + kept, names + at, one);
		kept += one;
	}
	return kept;
}

void fs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct vc_inode *inode;
	char *names;
	ssize_t n;

	if (fs_is_magic(ino)) {
		xattr_reply(req, "", 0, size);
		return;
	}
	inode = xattr_inode(req, ino, NULL, 0);
	if (!inode)
		return;
	names = malloc(XATTR_LIST_MAX);
	n = names ? vc_xattr_list(inode, names, XATTR_LIST_MAX) : -ENOMEM;
	vc_inode_put(inode);
	if (n > 0 && fuse_req_ctx(req)->uid != 0)
		n = (ssize_t)xattr_hide_trusted(names, (size_t)n);
	if (n < 0)
		fuse_reply_err(req, n == -ERANGE ? E2BIG : (int)-n);
	else
		xattr_reply(req, names, (size_t)n, size);
	free(names);
}
