/* SPDX-License-Identifier: BSD-2-Clause */
/* names_walk: finding names: lookup, readdir, and path walks with the caller's permissions. */
#include "config.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "names_impl.h"

#define WALK_LINKS_MAX 40
#define WALK_PATH_MAX 4096

static int lookup_ino(struct vc_inode *dir, const char *name, uint64_t *ret_ino)
{
	struct vc_pool *pool = vol_pool(dir);
	const struct vc_dir_entry *e;
	int r;

	vc_mutex_lock(&pool->names);
	/* "." of any inode: how an NFS handle finds its file again. */
	r = S_ISDIR(dir->f.mode) || strcmp(name, ".") == 0 ? 0 : -ENOTDIR;
	if (r == 0 && strcmp(name, ".") == 0) {
		*ret_ino = dir->ino;
	} else if (r == 0 && strcmp(name, "..") == 0) {
		*ret_ino = dir->f.parent;
	} else if (r == 0) {
		r = vc_dir_load(dir->cat, dir);
		e = r == 0 ? vc_dir_find(dir, name, strlen(name)) : NULL;
		if (r == 0 && !e)
			r = -ENOENT;
		if (e)
			*ret_ino = e->ino;
	}
	vc_mutex_unlock(&pool->names);
	return r;
}

int vc_names_lookup(struct vc_inode *dir, const char *name, struct vc_inode **ret)
{
	uint64_t ino = 0;
	int r;

	if (strlen(name) > VC_NAME_MAX)
		return -ENAMETOOLONG;
	r = lookup_ino(dir, name, &ino);
	return r < 0 ? r : vc_catalog_get(dir->cat, ino, ret);
}

/* A copy of the entry after `cookie`, so that fn runs without locks. */
static int readdir_next(struct vc_inode *dir, uint64_t cookie, struct vc_dirent *ret, char *name)
{
	struct vc_pool *pool = vol_pool(dir);
	const struct vc_dir_entry *e;
	int r;

	if (cookie < 2) {
		ret->ino = cookie == 0 ? dir->ino : dir->f.parent;
		ret->type = S_IFDIR;
		ret->cookie = cookie + 1;
		strcpy(name, cookie == 0 ? "." : "..");
		return 1;
	}
	vc_mutex_lock(&pool->names);
	r = S_ISDIR(dir->f.mode) ? vc_dir_load(dir->cat, dir) : -ENOTDIR;
	e = r == 0 ? vc_dir_after(dir, cookie) : NULL;
	if (e) {
		ret->ino = e->ino;
		ret->type = e->type;
		ret->cookie = e->cookie;
		memcpy(name, e->name, (size_t)e->name_len + 1);
		r = 1;
	}
	vc_mutex_unlock(&pool->names);
	return r;
}

int vc_names_readdir(struct vc_inode *dir, uint64_t cookie, int (*fn)(void *ctx, const struct vc_dirent *entry), void *ctx)
{
	char name[VC_NAME_MAX + 1];
	struct vc_dirent entry = { .name = name };
	int r;

	if (!S_ISDIR(dir->f.mode))
		return -ENOTDIR;
	while ((r = readdir_next(dir, cookie, &entry, name)) > 0) {
		if (fn(ctx, &entry))
			return 0;
		cookie = entry.cookie;
	}
	return r;
}

/* ---- permission ---- */

static bool caller_in_group(const struct vc_caller *caller, uint32_t gid)
{
	if (caller->gid == gid)
		return true;
	for (size_t i = 0; i < caller->ngroups; i++)
		if (caller->groups[i] == gid)
			return true;
	return false;
}

int names_may_locked(const struct vc_inode *inode, const struct vc_caller *caller, int may)
{
	uint32_t mode = inode->f.mode, bits;

	if (caller->uid == 0)
		return (may & 1) && !S_ISDIR(mode) && !(mode & 0111) ? -EACCES : 0;
	if (caller->uid == inode->f.uid)
		bits = mode >> 6;
	else if (caller_in_group(caller, inode->f.gid))
		bits = mode >> 3;
	else
		bits = mode;
	return ((uint32_t)may & ~bits & 7) ? -EACCES : 0;
}

int vc_names_may(struct vc_inode *inode, const struct vc_caller *caller, int may)
{
	int r;

	vc_mutex_lock(&inode->lock);
	r = names_may_locked(inode, caller, may);
	vc_mutex_unlock(&inode->lock);
	return r;
}

/* ---- walking ---- */

struct walk {
	const struct vc_caller *caller;
	struct vc_inode *at;         /* counted */
	char path[WALK_PATH_MAX];    /* what is left */
	unsigned int links;
};

static void walk_to(struct walk *w, struct vc_inode *next)
{
	vc_inode_put(w->at);
	w->at = next;
}

/* Put the link's target before what is left of the path. */
static int walk_follow(struct walk *w, struct vc_inode *link, const char *rest)
{
	char target[VC_SYMLINK_MAX + 1];
	char left[WALK_PATH_MAX];
	struct vc_inode *root;
	int n = vc_names_readlink(link, target, sizeof(target)), r;

	if (n < 0)
		return n;
	if (++w->links > WALK_LINKS_MAX)
		return -ELOOP;
	if ((size_t)n + 1 + strlen(rest) >= sizeof(w->path))
		return -ENAMETOOLONG;
	strcpy(left, rest);
	strcpy(w->path, target);
	if (*left) {
		strcat(w->path, "/");
		strcat(w->path, left);
	}
	if (target[0] != '/')
		return 0;
	r = vc_inode_get(vol_pool(w->at), VC_ROOT_INO, &root);
	if (r == 0)
		walk_to(w, root);
	return r;
}

/* Cut the first component off w->path; *ret_rest is what follows it. */
static int walk_component(struct walk *w, char *name, const char **ret_rest)
{
	const char *p = w->path;
	size_t len;

	while (*p == '/')
		p++;
	len = strcspn(p, "/");
	if (len > VC_NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(name, p, len);
	name[len] = '\0';
	p += len;
	*ret_rest = p + strspn(p, "/");
	return 0;
}

/*
 * A link in a directory like /tmp may have been put there to lead others astray: it is followed if it is the caller's own, or of the
 * directory's owner (the kernel's rule with fs.protected_symlinks, here always).
 */
static int walk_may_follow(const struct walk *w, struct vc_inode *link)
{
	struct vc_attr dir, attr;

	vc_inode_attr(w->at, &dir);
	vc_inode_attr(link, &attr);
	if ((dir.mode & (S_ISVTX | S_IWOTH)) != (S_ISVTX | S_IWOTH) || attr.uid == w->caller->uid || attr.uid == dir.uid)
		return 0;
	return -EACCES;
}

static int walk_step(struct walk *w, const char *name, const char *rest)
{
	struct vc_inode *next;
	int r = vc_names_lookup(w->at, name, &next);

	if (r < 0)
		return r;
	if (S_ISLNK(next->f.mode)) {
		r = walk_may_follow(w, next);
		if (r == 0)
			r = walk_follow(w, next, rest);
		vc_inode_put(next);
		return r;
	}
	memmove(w->path, rest, strlen(rest) + 1);
	walk_to(w, next);
	return 0;
}

static int walk_run(struct walk *w, char *ret_last)
{
	char name[VC_NAME_MAX + 1];
	const char *rest;
	int r = 0;

	for (;;) {
		r = walk_component(w, name, &rest);
		if (r < 0)
			return r;
		if (!*name)
			return ret_last ? -EINVAL : 0;
		if (!S_ISDIR(w->at->f.mode))
			return -ENOTDIR;
		r = vc_names_may(w->at, w->caller, 1);
		if (r < 0)
			return r;
		if (ret_last && !*rest) {
			if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
				return -EINVAL;
			strcpy(ret_last, name);
			return 0;
		}
		r = walk_step(w, name, rest);
		if (r < 0)
			return r;
	}
}

int vc_names_walk(struct vc_inode *dir, const char *path, const struct vc_caller *caller, struct vc_inode **ret, char *ret_last)
{
	struct walk w = { .caller = caller, .at = dir };
	int r = 0;

	if (!*path)
		return -ENOENT;
	if (strlen(path) >= sizeof(w.path))
		return -ENAMETOOLONG;
	strcpy(w.path, path);
	if (*path == '/')
		r = vc_inode_get(vol_pool(dir), VC_ROOT_INO, &w.at);
	else
		vc_inode_hold(dir);
	if (r == 0) {
		r = walk_run(&w, ret_last);
		if (r == 0)
			*ret = w.at;
		else
			vc_inode_put(w.at);
	}
	return r;
}
