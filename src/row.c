/* SPDX-License-Identifier: BSD-2-Clause */
/* row: keys and values of catalog rows, and extended attributes, which are nothing but rows. */
#include "config.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "catalog.h"

size_t vc_row_key_ino(uint8_t *key, enum vc_row_kind kind, uint64_t ino)
{
	key[0] = (uint8_t)kind;
	vc_be64_put(key + 1, ino);
	return 9;
}

size_t vc_row_key_named(uint8_t *key, enum vc_row_kind kind, uint64_t ino, const char *name, size_t name_len)
{
	size_t len = vc_row_key_ino(key, kind, ino);

	memcpy(key + len, name, name_len);
	return len + name_len;
}

void vc_row_from_inode(const struct vc_inode_fields *f, struct vc_disk_inode *ret)
{
	*ret = (struct vc_disk_inode){
		.mode = vc_le32_of(f->mode), .nlink = vc_le32_of(f->nlink), .uid = vc_le32_of(f->uid),
		.gid = vc_le32_of(f->gid), .rdev = vc_le32_of(f->rdev), .depth = vc_le32_of(f->depth),
		.generation = vc_le64_of(f->generation), .size = vc_le64_of(f->size), .atime_ns = vc_le64_of(f->atime_ns),
		.mtime_ns = vc_le64_of(f->mtime_ns), .ctime_ns = vc_le64_of(f->ctime_ns), .btime_ns = vc_le64_of(f->btime_ns),
		.parent = vc_le64_of(f->parent), .next_cookie = vc_le64_of(f->next_cookie), .origin = vc_le64_of(f->origin),
	};
}

int vc_row_to_inode(const void *value, size_t len, struct vc_inode_fields *ret)
{
	struct vc_disk_inode d;
	uint32_t type;

	if (len != sizeof(d))
		return -EUCLEAN;
	memcpy(&d, value, sizeof(d));
	*ret = (struct vc_inode_fields){
		.mode = vc_le32_get(d.mode), .nlink = vc_le32_get(d.nlink), .uid = vc_le32_get(d.uid),
		.gid = vc_le32_get(d.gid), .rdev = vc_le32_get(d.rdev), .depth = vc_le32_get(d.depth),
		.generation = vc_le64_get(d.generation), .size = vc_le64_get(d.size), .atime_ns = vc_le64_get(d.atime_ns),
		.mtime_ns = vc_le64_get(d.mtime_ns), .ctime_ns = vc_le64_get(d.ctime_ns), .btime_ns = vc_le64_get(d.btime_ns),
		.parent = vc_le64_get(d.parent), .next_cookie = vc_le64_get(d.next_cookie), .origin = vc_le64_get(d.origin),
	};
	type = ret->mode & S_IFMT;
	if (type != S_IFREG && type != S_IFDIR && type != S_IFLNK && type != S_IFCHR && type != S_IFBLK &&
	    type != S_IFIFO && type != S_IFSOCK)
		return -EUCLEAN;
	if (ret->mode & ~(uint32_t)(S_IFMT | 07777) || ret->size > VC_IMAGE_SIZE_MAX || vc_le64_get(d.flags) ||
	    !vc_reserved_ok(d.reserved, sizeof(d.reserved)))
		return -EUCLEAN;
	return 0;
}

/* ---- extended attributes ---- */

static int xattr_load_row(void *ctx, const void *key, size_t key_len, const void *value, size_t len)
{
	if (key_len <= 9 || key_len > 9 + VC_XATTR_NAME_MAX)
		return -EUCLEAN;
	return vc_xattrs_apply(ctx, (const char *)key + 9, key_len - 9, value, len);
}

int vc_xattrs_load(struct vc_catalog *cat, struct vc_inode *inode)
{
	uint8_t prefix[9];
	size_t prefix_len = vc_row_key_ino(prefix, VC_ROW_XATTR, inode->ino);
	struct vc_meta_txn *txn;
	int r;

	if (inode->xattrs)
		return 0;
	inode->xattrs = calloc(1, sizeof(*inode->xattrs));
	if (!inode->xattrs)
		return -ENOMEM;
	r = vc_meta_read_begin(cat->meta, &txn);
	if (r == 0) {
		r = vc_meta_scan(txn, VC_DB_CAT, prefix, prefix_len, NULL, 0, xattr_load_row, inode);
		vc_meta_end(txn);
	}
	if (r < 0) {
		vc_xattrs_free(inode->xattrs);
		inode->xattrs = NULL;
	}
	return r;
}

struct vc_xattr *vc_xattrs_find(const struct vc_inode *inode, const char *name, size_t len)
{
	for (struct vc_xattr *x = inode->xattrs->first; x; x = x->next)
		if (strlen(x->name) == len && memcmp(x->name, name, len) == 0)
			return x;
	return NULL;
}

static void xattr_free(struct vc_xattr *x)
{
	if (x) {
		free(x->name);
		free(x->value);
	}
	free(x);
}

int vc_xattrs_apply(struct vc_inode *inode, const char *name, size_t name_len, const void *value, size_t len)
{
	struct vc_xattr **at = &inode->xattrs->first, *x = NULL, *old;

	if (value) {
		x = calloc(1, sizeof(*x));
		if (x) {
			x->name = strndup(name, name_len);
			x->value = malloc(len + 1);
		}
		if (!x || !x->name || !x->value) {
			xattr_free(x);
			return -ENOMEM;
		}
		memcpy(x->value, value, len);
		x->len = len;
	}
	old = vc_xattrs_find(inode, name, name_len);
	while (*at && *at != old)
		at = &(*at)->next;
	if (old)
		*at = old->next;
	xattr_free(old);
	if (x) {
		x->next = *at;
		*at = x;
	}
	return 0;
}

void vc_xattrs_free(struct vc_xattrs *xattrs)
{
	if (!xattrs)
		return;
	while (xattrs->first) {
		struct vc_xattr *x = xattrs->first;

		xattrs->first = x->next;
		xattr_free(x);
	}
	free(xattrs);
}
