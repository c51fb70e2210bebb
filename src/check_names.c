/* SPDX-License-Identifier: BSD-2-Clause */
/* check_names: catalog rows by themselves, and the tree of names they form. */
#include "config.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "check_impl.h"

#define ULL(x) ((unsigned long long)(x))

static int row_dirent(struct check *c, uint64_t parent, const uint8_t *name, size_t name_len, const void *value, size_t len)
{
	struct check_inode *dir;
	struct vc_disk_dirent d;
	char *copy;

	if (name_len == 0 || name_len > VC_NAME_MAX || len != sizeof(d)) {
		check_found(c, "directory %llu: an entry of a wrong size", ULL(parent));
		return 0;
	}
	memcpy(&d, value, sizeof(d));
	dir = check_inode_get(c, parent);
	copy = malloc(name_len);
	if (!dir || !copy || vc_array_room(&c->names, c->nnames, &c->names_cap, sizeof(*c->names)) < 0) {
		free(copy);
		return -ENOMEM;
	}
	dir->has_names = true;
	memcpy(copy, name, name_len);
	c->names[c->nnames++] = (struct check_name){ .parent = parent, .ino = vc_le64_get(d.ino), .cookie = vc_le64_get(d.cookie),
						     .type = vc_le32_get(d.type), .name_len = (uint8_t)name_len, .name = copy };
	return 0;
}

static void row_inode(struct check *c, struct check_inode *i, const void *value, size_t len)
{
	i->has_row = vc_row_to_inode(value, len, &i->f) == 0;
	if (!i->has_row)
		check_found(c, "inode %llu: its row makes no sense", ULL(i->ino));
	c->highest_ino = VC_MAX(c->highest_ino, i->ino);
	if (i->ino >= vc_le64_get(c->state.next_ino))
		check_found(c, "inode %llu is not below the next number, %llu", ULL(i->ino), ULL(vc_le64_get(c->state.next_ino)));
}

static void row_image(struct check *c, struct check_inode *i, const void *value, size_t len)
{
	struct vc_disk_image d;

	if (len != sizeof(d)) {
		check_found(c, "image %llu: its row has a wrong size", ULL(i->ino));
		return;
	}
	memcpy(&d, value, sizeof(d));
	i->has_image = true;
	i->root = (struct vc_root){ vc_le64_get(d.root), vc_le32_get(d.height) };
	i->tag = vc_le64_get(d.tag);
	i->content = vc_le64_get(d.content);
	c->highest_content = VC_MAX(c->highest_content, i->content);
	c->highest_tag = VC_MAX(c->highest_tag, i->tag);
	c->image_rows++;
	if ((i->root.id == 0) != (i->root.height == 0) || i->root.height > VC_HEIGHT_MAX)
		check_found(c, "image %llu: root %llu with height %u", ULL(i->ino), ULL(i->root.id), i->root.height);
}

static int check_row(void *ctx, const void *key, size_t key_len, const void *value, size_t len)
{
	struct check *c = ctx;
	const uint8_t *k = key;
	struct check_inode *i;

	if (k[0] == VC_ROW_STATE || k[0] == VC_ROW_SEGMENT)
		return 0;
	if (key_len < 9) {
		check_found(c, "a row with a key of %zu bytes", key_len);
		return 0;
	}
	if (vc_be64_at(k + 1) == 0) {
		check_found(c, "a row of inode 0");
		return 0;
	}
	if (k[0] == VC_ROW_DIRENT)
		return row_dirent(c, vc_be64_at(k + 1), k + 9, key_len - 9, value, len);
	i = check_inode_get(c, vc_be64_at(k + 1));
	if (!i)
		return -ENOMEM;
	if (k[0] == VC_ROW_INODE)
		row_inode(c, i, value, len);
	else if (k[0] == VC_ROW_IMAGE)
		row_image(c, i, value, len);
	else if (k[0] == VC_ROW_LINK)
		i->has_target = true;
	else if (k[0] == VC_ROW_ORPHAN)
		i->has_orphan = true;
	else if (k[0] == VC_ROW_XATTR)
		i->has_xattrs = true;
	else if (k[0] != VC_ROW_EXCLUSIVE)
		check_found(c, "a row of unknown kind %u", k[0]);
	return 0;
}

int check_rows(struct check *c)
{
	int r = vc_meta_scan(c->txn, VC_DB_CAT, NULL, 0, NULL, 0, check_row, c);

	if (r == -EBADMSG) {
		check_found(c, "a catalog row is damaged (see the message before)");
		c->incomplete = true;
		r = 0;
	}
	return r;
}

static int name_compare(const void *a, const void *b)
{
	const struct check_name *x = a, *y = b;

	if (x->parent != y->parent)
		return x->parent < y->parent ? -1 : 1;
	return x->cookie < y->cookie ? -1 : x->cookie > y->cookie;
}

static int check_one_name(struct check *c, const struct check_name *n)
{
	struct check_inode *target, *dir;

	if (n->ino == 0) {
		check_found(c, "directory %llu: an entry for inode 0", ULL(n->parent));
		return 0;
	}
	target = check_inode_get(c, n->ino);
	if (!target || !check_inode_get(c, n->parent))
		return -ENOMEM;
	target = check_inode_get(c, n->ino); /* the table may have moved */
	dir = check_inode_get(c, n->parent);
	if (!dir->has_row || !S_ISDIR(dir->f.mode)) {
		check_found(c, "an entry for inode %llu in %llu, which is no directory", ULL(n->ino), ULL(n->parent));
		return 0;
	}
	if (n->cookie >= dir->f.next_cookie)
		check_found(c, "directory %llu: offset %llu was never given out", ULL(n->parent), ULL(n->cookie));
	if (!target->has_row) {
		check_found(c, "directory %llu: an entry for inode %llu, which does not exist", ULL(n->parent), ULL(n->ino));
		return 0;
	}
	if ((target->f.mode & S_IFMT) != n->type)
		check_found(c, "directory %llu: the entry for inode %llu has another type", ULL(n->parent), ULL(n->ino));
	target->links++;
	if (S_ISDIR(target->f.mode)) {
		dir->subdirs++;
		if (target->f.parent != n->parent)
			check_found(c, "directory %llu says its parent is %llu, it is in %llu", ULL(n->ino), ULL(target->f.parent), ULL(n->parent));
	}
	return 0;
}

bool check_is_rooted(struct check *c, const struct check_inode *dir)
{
	uint64_t at = dir->ino;

	for (size_t steps = 0; steps <= c->ninodes; steps++) {
		const struct check_inode *p;

		if (at == VC_ROOT_INO)
			return true;
		p = check_inode_get(c, at);
		if (!p || !p->has_row)
			return false;
		at = p->f.parent;
	}
	return false;
}

static void check_one_inode(struct check *c, const struct check_inode *i)
{
	uint32_t type = i->f.mode & S_IFMT, want = S_ISDIR(type) ? i->subdirs + 2 : i->links;

	if (!i->has_row) {
		check_found(c, "rows of inode %llu, which does not exist", ULL(i->ino));
		return;
	}
	c->ret->inodes++;
	c->ret->directories += S_ISDIR(type);
	c->ret->images += S_ISREG(type);
	c->ret->orphans += i->has_orphan;
	if (i->has_orphan != (i->f.nlink == 0))
		check_found(c, "inode %llu: %u links, and it is %s orphan", ULL(i->ino), i->f.nlink, i->has_orphan ? "an" : "no");
	if (i->f.nlink == 0 && i->links)
		check_found(c, "inode %llu: is to be deleted, and has %u names", ULL(i->ino), i->links);
	if (i->f.nlink && i->f.nlink != want)
		check_found(c, "inode %llu: link count %u should be %u", ULL(i->ino), i->f.nlink, want);
	if (S_ISDIR(type) && i->f.nlink && i->ino != VC_ROOT_INO && (i->links != 1 || !check_is_rooted(c, i)))
		check_found(c, "directory %llu: %u entries lead to it", ULL(i->ino), i->links);
	if (i->has_image != S_ISREG(type))
		check_found(c, "inode %llu: %s image row", ULL(i->ino), i->has_image ? "is no image but has an" : "has no");
	if (i->has_target != S_ISLNK(type))
		check_found(c, "inode %llu: %s link target", ULL(i->ino), i->has_target ? "is no link but has a" : "has no");
}

int check_names(struct check *c)
{
	int r = 0;

	c->ret->names = c->nnames;
	if (c->nnames)
		qsort(c->names, c->nnames, sizeof(*c->names), name_compare);
	for (size_t i = 0; i < c->nnames && r == 0; i++) {
		if (i && c->names[i].parent == c->names[i - 1].parent && c->names[i].cookie == c->names[i - 1].cookie)
			check_found(c, "directory %llu: offset %llu twice", ULL(c->names[i].parent), ULL(c->names[i].cookie));
		r = check_one_name(c, &c->names[i]);
	}
	for (size_t i = 0; i < c->inodes_size && r == 0; i++)
		if (c->inodes[i].ino)
			check_one_inode(c, &c->inodes[i]);
	if (r == 0 && !check_inode_get(c, VC_ROOT_INO)->has_row)
		check_found(c, "there is no root directory");
	return r;
}
