/* SPDX-License-Identifier: BSD-2-Clause */
/* names_attr: inodes as such: references, attributes, extended attributes, link targets. */
#include "config.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "names_impl.h"

int vc_inode_get(struct vc_pool *pool, uint64_t ino, struct vc_inode **ret) { return vc_catalog_get(&pool->catalog, ino, ret); }
void vc_inode_hold(struct vc_inode *inode) { vc_catalog_hold(inode->cat, inode); }
void vc_inode_put(struct vc_inode *inode) { vc_catalog_put(inode->cat, inode); }
void vc_inode_known(struct vc_inode *inode) { vc_catalog_known(inode->cat, inode, 1); }
uint64_t vc_inode_ino(const struct vc_inode *inode) { return inode->ino; }

void vc_inode_forget(struct vc_pool *pool, uint64_t ino, uint64_t n)
{
	struct vc_inode *inode;

	if (vc_catalog_get(&pool->catalog, ino, &inode) < 0)
		return;
	vc_catalog_known(&pool->catalog, inode, -(int64_t)n);
	vc_catalog_put(&pool->catalog, inode);
}

static uint64_t attr_blocks(struct vc_inode *inode, uint64_t size)
{
	struct vc_volume_info info;

	if (!S_ISREG(inode->f.mode))
		return 0;
	if (vol_pool(inode)->options.real_blocks && vc_volume_info(inode, &info) == 0)
		return (info.referenced + info.pending) * (VC_BLOCK_SIZE / 512);
	return VC_DIV_UP(size, UINT64_C(512));
}

void vc_inode_attr(struct vc_inode *inode, struct vc_attr *ret)
{
	const struct vc_inode_fields *f = &inode->f;

	vc_mutex_lock(&inode->lock);
	*ret = (struct vc_attr){
		.ino = inode->ino, .generation = f->generation, .mode = f->mode, .nlink = f->nlink, .uid = f->uid, .gid = f->gid,
		.rdev = f->rdev, .size = f->size, .atime_ns = f->atime_ns, .mtime_ns = f->mtime_ns, .ctime_ns = f->ctime_ns,
		.btime_ns = f->btime_ns,
	};
	vc_mutex_unlock(&inode->lock);
	ret->blocks = attr_blocks(inode, ret->size);
}

int vc_names_readlink(struct vc_inode *inode, char *buf, size_t len)
{
	size_t n;
	int r = 0;

	vc_mutex_lock(&inode->lock);
	n = inode->target ? strlen(inode->target) : 0;
	if (!inode->target)
		r = -EINVAL;
	else if (n + 1 > len)
		r = -ERANGE;
	else
		memcpy(buf, inode->target, n + 1);
	vc_mutex_unlock(&inode->lock);
	return r < 0 ? r : (int)n;
}

/* ---- changing one inode: one record, not urgent ---- */

/* A record whose rows were built for the inode's present state; admitted. The inode lock is held on entry and released. */
static int attr_log(struct vc_inode *inode, struct vc_record *rec) VC_RELEASES(inode->lock);
static int attr_log(struct vc_inode *inode, struct vc_record *rec)
{
	struct vc_pool *pool = vol_pool(inode);
	struct vc_log_slot slot;
	struct vc_wait wait;
	int r = vc_apply_record(pool, rec, inode, NULL, &slot);

	vc_mutex_unlock(&inode->lock);
	if (r < 0)
		return r;
	vc_wait_init(&wait);
	vol_submit(pool, rec, &slot, false, &wait.done);
	return vc_wait_for(&wait);
}

static void attr_change(struct vc_inode_fields *f, const struct vc_attr *attr, unsigned int mask, uint64_t now)
{
	if (mask & VC_SET_MODE)
		f->mode = (f->mode & S_IFMT) | (attr->mode & 07777);
	if (mask & VC_SET_UID)
		f->uid = attr->uid;
	if (mask & VC_SET_GID)
		f->gid = attr->gid;
	if (mask & VC_SET_ATIME)
		f->atime_ns = attr->atime_ns;
	if (mask & VC_SET_MTIME)
		f->mtime_ns = attr->mtime_ns;
	if (mask & VC_SET_KILL_PRIV) {
		f->mode &= ~(uint32_t)S_ISUID;
		if (f->mode & S_IXGRP)
			f->mode &= ~(uint32_t)S_ISGID;
	}
	f->ctime_ns = mask & VC_SET_CTIME ? attr->ctime_ns : now;
}

static bool attr_kill_priv_is_noop(struct vc_inode *inode, unsigned int mask)
{
	bool noop;

	if (mask != VC_SET_KILL_PRIV)
		return false;
	vc_mutex_lock(&inode->lock);
	noop = !(inode->f.mode & (S_ISUID | S_ISGID));
	vc_mutex_unlock(&inode->lock);
	return noop;
}

int vc_attr_set(struct vc_inode *inode, const struct vc_attr *attr, unsigned int mask)
{
	struct vc_pool *pool = vol_pool(inode);
	struct vc_inode_fields f;
	struct vc_record rec;
	int r = vc_pool_writable(pool);

	if (r < 0 || attr_kill_priv_is_noop(inode, mask))
		return r;
	vc_record_init(&rec);
	memset(&f, 0, sizeof(f));
	names_row_inode(&rec, inode->ino, &f); /* for the length */
	r = vol_admit_record(pool, &rec, VC_LOG_META);
	vc_record_fini(&rec);
	if (r < 0)
		return r;
	vc_record_init(&rec);
	vc_mutex_lock(&inode->lock);
	f = inode->f;
	attr_change(&f, attr, mask, rec.time_ns);
	names_row_inode(&rec, inode->ino, &f);
	if (vc_record_len(&rec) < 0) {
		vc_mutex_unlock(&inode->lock);
		r = -ENOMEM;
	} else {
		r = attr_log(inode, &rec);
	}
	vc_record_fini(&rec);
	return r;
}

/* ---- extended attributes ---- */

static int xattr_check_name(const char *name)
{
	size_t len = strlen(name);

	return len == 0 || len > VC_XATTR_NAME_MAX ? -ERANGE : 0;
}

ssize_t vc_xattr_get(struct vc_inode *inode, const char *name, void *buf, size_t len)
{
	const struct vc_xattr *x;
	ssize_t r = xattr_check_name(name);

	if (r < 0)
		return r;
	vc_mutex_lock(&inode->lock);
	r = vc_xattrs_load(inode->cat, inode);
	if (r == 0) {
		x = vc_xattrs_find(inode, name, strlen(name));
		if (!x)
			r = -ENODATA;
		else if (len && len < x->len)
			r = -ERANGE;
		else
			r = (ssize_t)x->len;
		if (r > 0 && len)
			memcpy(buf, x->value, x->len);
	}
	vc_mutex_unlock(&inode->lock);
	return r;
}

ssize_t vc_xattr_list(struct vc_inode *inode, char *buf, size_t len)
{
	size_t total = 0;
	ssize_t r;

	vc_mutex_lock(&inode->lock);
	r = vc_xattrs_load(inode->cat, inode);
	for (struct vc_xattr *x = r == 0 ? inode->xattrs->first : NULL; x; x = x->next) {
		size_t n = strlen(x->name) + 1;

		if (len && total + n <= len)
			memcpy(buf + total, x->name, n);
		total += n;
	}
	vc_mutex_unlock(&inode->lock);
	if (r < 0)
		return r;
	return len && total > len ? -ERANGE : (ssize_t)total;
}

/* value NULL: remove. */
static int xattr_change(struct vc_inode *inode, const char *name, const void *value, size_t len, int flags)
{
	struct vc_pool *pool = vol_pool(inode);
	uint8_t key[VC_ROW_KEY_MAX];
	size_t key_len = vc_row_key_named(key, VC_ROW_XATTR, inode->ino, name, strlen(name));
	struct vc_record rec;
	int64_t rec_len;
	bool exists;
	int r;

	vc_record_init(&rec);
	if (value)
		vc_record_row_put(&rec, key, key_len, value, len);
	else
		vc_record_row_del(&rec, key, key_len);
	rec_len = vc_record_len(&rec);
	vc_pool_check_space(pool, false);
	r = rec_len < 0 ? (int)rec_len : value ? vc_pool_may_grow(pool, (size_t)rec_len) : 0;
	if (r == 0)
		r = vol_admit_record(pool, &rec, VC_LOG_META);
	if (r < 0) {
		vc_record_fini(&rec);
		return r;
	}
	vc_mutex_lock(&inode->lock);
	r = vc_xattrs_load(inode->cat, inode);
	exists = r == 0 && vc_xattrs_find(inode, name, strlen(name));
	if (r == 0 && exists && (flags & XATTR_CREATE))
		r = -EEXIST;
	if (r == 0 && !exists && (!value || (flags & XATTR_REPLACE)))
		r = -ENODATA;
	if (r == 0) {
		if (value)
			vc_pool_grew(pool, (size_t)rec_len);
		r = attr_log(inode, &rec);
	} else {
		vc_mutex_unlock(&inode->lock);
		vc_log_unadmit(pool->log, (size_t)rec_len);
	}
	vc_record_fini(&rec);
	return r;
}

int vc_xattr_set(struct vc_inode *inode, const char *name, const void *value, size_t len, int flags)
{
	int r = xattr_check_name(name);

	if (r == 0 && len > VC_XATTR_VALUE_MAX)
		r = -E2BIG;
	if (r == 0)
		r = vc_pool_writable(vol_pool(inode));
	return r < 0 ? r : xattr_change(inode, name, value ? value : "", len, flags);
}

int vc_xattr_remove(struct vc_inode *inode, const char *name)
{
	int r = xattr_check_name(name);

	if (r == 0)
		r = vc_pool_writable(vol_pool(inode));
	return r < 0 ? r : xattr_change(inode, name, NULL, 0, 0);
}
