/* SPDX-License-Identifier: BSD-2-Clause */
/* repair_inodes: the rows of one inode fit together: its own, its image's, its target; and the figures of map nodes. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "repair_impl.h"

#define ULL(x) ((unsigned long long)(x))
#define REPAIR_TARGET_LOST "target-lost"

static uint64_t blocks_size(uint64_t blocks) { return VC_MIN(blocks * VC_BLOCK_SIZE, VC_IMAGE_SIZE_MAX); }

static int put_image(struct repair *rp, uint64_t ino, struct vc_root root, uint64_t tag, uint64_t content)
{
	struct vc_disk_image row = { .root = vc_le64_of(root.id), .height = vc_le32_of(root.height), .tag = vc_le64_of(tag),
				     .content = vc_le64_of(content) };
	uint8_t key[9];

	return repair_put(rp, key, vc_row_key_ino(key, VC_ROW_IMAGE, ino), &row, sizeof(row));
}

int repair_empty_image(struct repair *rp, uint64_t ino) { return put_image(rp, ino, (struct vc_root){ 0, 0 }, rp->next_tag++, 0); }

int repair_make(struct repair *rp, uint64_t ino, uint32_t mode, uint64_t size)
{
	struct check_inode *i = repair_inode(rp, ino);

	if (!i)
		return -ENOMEM;
	i->f = (struct vc_inode_fields){ .mode = mode, .generation = 1, .size = size, .atime_ns = rp->now_ns, .mtime_ns = rp->now_ns,
					 .ctime_ns = rp->now_ns, .btime_ns = rp->now_ns };
	if (S_ISDIR(mode)) {
		i->f.nlink = 2;
		i->f.next_cookie = 16;
		i->f.parent = ino == VC_ROOT_INO ? ino : 0;
	}
	i->has_row = i->changed = true;
	return 0;
}

int repair_note(struct repair *rp, uint64_t ino, const char *name, const void *value, size_t len)
{
	uint8_t key[VC_ROW_KEY_MAX];
	const void *old;
	size_t key_len, old_len;
	int r = 0;

	for (unsigned int n = 1; r == 0; n++) {
		char text[64];
		int text_len = n == 1 ? snprintf(text, sizeof(text), "user.vclone.%s", name) :
			snprintf(text, sizeof(text), "user.vclone.%s.%u", name, n);

		key_len = vc_row_key_named(key, VC_ROW_XATTR, ino, text, (size_t)text_len);
		r = vc_meta_get(rp->txn, VC_DB_CAT, key, key_len, &old, &old_len);
	}
	return r == -ENOENT ? repair_put(rp, key, key_len, value, VC_MIN(len, (size_t)VC_XATTR_VALUE_MAX)) : r;
}

/* ---- inodes without a row ---- */

/* Nothing hangs on it that could be anything. */
static int drop_leftovers(struct repair *rp, uint64_t ino)
{
	static const enum vc_row_kind kinds[] = { VC_ROW_ORPHAN, VC_ROW_EXCLUSIVE };
	uint8_t key[9];
	int r = 0;

	for (size_t i = 0; i < VC_ARRAY_LEN(kinds) && r == 0; i++) {
		r = repair_del(rp, key, vc_row_key_ino(key, kinds[i], ino));
		r = r == -ENOENT ? 0 : r;
	}
	repair_fixed(rp, "inode %llu: figures of what does not exist are removed", ULL(ino));
	return r;
}

static int target_size(struct repair *rp, uint64_t ino, uint64_t *ret)
{
	uint8_t key[9];
	const void *value;
	size_t len;
	int r = vc_meta_get(rp->txn, VC_DB_CAT, key, vc_row_key_ino(key, VC_ROW_LINK, ino), &value, &len);

	*ret = r == 0 ? len : 0;
	return r;
}

/* What it was by what hangs on it. Names alone make nothing (see repair_names). */
static int make_again(struct repair *rp, uint64_t ino)
{
	struct check_inode *i = repair_inode(rp, ino);
	bool named = i->links || i->has_names;
	uint64_t size = 0;
	int r;

	if (ino == VC_ROOT_INO || i->has_names) {
		repair_fixed(rp, "directory %llu is made again around its entries", ULL(ino));
		return repair_make(rp, ino, S_IFDIR | (ino == VC_ROOT_INO ? 0755 : 0700), 0);
	}
	if (i->has_image || i->has_xattrs) {
		repair_fixed(rp, "image %llu is made again around its map; owner and size are not known", ULL(ino));
		r = i->has_image ? 0 : repair_empty_image(rp, ino);
		return r < 0 ? r : repair_make(rp, ino, S_IFREG | 0600, blocks_size(i->end));
	}
	if (i->has_target) {
		r = target_size(rp, ino, &size);
		repair_fixed(rp, "symbolic link %llu is made again around its target", ULL(ino));
		return r < 0 ? r : repair_make(rp, ino, S_IFLNK | 0777, size);
	}
	return named ? 0 : drop_leftovers(rp, ino);
}

/* ---- rows that do not fit the type ---- */

/* What a map holds that hangs on something else becomes a file of its own. */
static int move_image(struct repair *rp, uint64_t ino)
{
	struct check_inode old = *repair_inode(rp, ino);
	uint64_t made = rp->next_ino++;
	uint8_t key[9];
	int r = repair_del(rp, key, vc_row_key_ino(key, VC_ROW_IMAGE, ino));

	if (r < 0 || !old.root.id) {
		repair_fixed(rp, "inode %llu is no image: its empty map is removed", ULL(ino));
		return r;
	}
	repair_fixed(rp, "inode %llu is no image: its map goes to the new image %llu", ULL(ino), ULL(made));
	r = put_image(rp, made, old.root, rp->next_tag++, old.content);
	return r < 0 ? r : repair_make(rp, made, S_IFREG | 0600, blocks_size(old.end));
}

static int move_target(struct repair *rp, uint64_t ino)
{
	uint8_t key[9], copy[VC_XATTR_VALUE_MAX];
	const void *value;
	size_t len;
	int r = vc_meta_get(rp->txn, VC_DB_CAT, key, vc_row_key_ino(key, VC_ROW_LINK, ino), &value, &len);

	if (r < 0)
		return r;
	len = VC_MIN(len, sizeof(copy));
	memcpy(copy, value, len);
	r = repair_note(rp, ino, "target", copy, len);
	if (r == 0)
		r = repair_del(rp, key, vc_row_key_ino(key, VC_ROW_LINK, ino));
	repair_fixed(rp, "inode %llu is no link: its target is kept as attribute user.vclone.target", ULL(ino));
	return r;
}

static int lost_target(struct repair *rp, struct check_inode *i)
{
	uint8_t key[9];

	repair_fixed(rp, "symbolic link %llu: its target is lost; it leads to '%s' now", ULL(i->ino), REPAIR_TARGET_LOST);
	i->f.size = strlen(REPAIR_TARGET_LOST);
	i->changed = true;
	return repair_put(rp, key, vc_row_key_ino(key, VC_ROW_LINK, i->ino), REPAIR_TARGET_LOST, strlen(REPAIR_TARGET_LOST));
}

/* The root node knows how high the tree is. */
static int fix_height(struct repair *rp, uint64_t ino)
{
	struct check_inode *i = repair_inode(rp, ino);
	struct vc_root root = { i->root.id, 0 };
	struct vc_node *node;
	int r = 0;

	if (root.id) {
		node = malloc(sizeof(*node));
		r = node ? vc_map_node_read(rp->txn, root.id, node) : -ENOMEM;
		root.height = r == 0 ? node->level + 1 : 0;
		free(node);
	}
	if (r == -ENOMEM || (r == 0 && root.height == i->root.height))
		return r;
	if (r < 0) /* it stays as it is, and unreadable */
		return 0;
	repair_fixed(rp, "image %llu: the height of its map is %u, not %u", ULL(ino), root.height, i->root.height);
	return put_image(rp, ino, root, i->tag, i->content);
}

static int fix_rows(struct repair *rp, uint64_t ino)
{
	struct check_inode *i = repair_inode(rp, ino);
	bool is_image = S_ISREG(i->f.mode), is_link = S_ISLNK(i->f.mode);
	int r = 0;

	if (i->has_image && is_image)
		r = fix_height(rp, ino);
	else if (i->has_image)
		r = move_image(rp, ino);
	else if (is_image && i->f.size == 0) {
		repair_fixed(rp, "image %llu: is empty and gets a row that says so", ULL(ino));
		r = repair_empty_image(rp, ino);
	}
	i = repair_inode(rp, ino);
	if (r == 0 && i->has_target && !is_link)
		r = move_target(rp, ino);
	else if (r == 0 && !i->has_target && is_link)
		r = lost_target(rp, i);
	i = repair_inode(rp, ino);
	if (r == 0 && is_image && i->end > VC_DIV_UP(i->f.size, (uint64_t)VC_BLOCK_SIZE)) {
		repair_fixed(rp, "image %llu: its size becomes %llu bytes, where its map ends", ULL(ino), ULL(blocks_size(i->end)));
		i->f.size = blocks_size(i->end);
		i->changed = true;
	}
	return r;
}

/* Those that are made on the way are in order. */
int repair_inodes(struct repair *rp)
{
	size_t n = 0;
	uint64_t *inos;
	int r;

	for (size_t i = 0; i < rp->c.nnames; i++) {
		struct check_inode *target = rp->c.names[i].ino ? repair_inode(rp, rp->c.names[i].ino) : NULL;

		if (target && !target->has_row)
			target->links++;
	}
	inos = malloc((rp->c.ninodes + 1) * sizeof(*inos));
	r = inos ? 0 : -ENOMEM;
	for (size_t i = 0; i < rp->c.inodes_size && r == 0; i++)
		if (rp->c.inodes[i].ino)
			inos[n++] = rp->c.inodes[i].ino;
	for (size_t i = 0; i < n && r == 0; i++) {
		if (!repair_inode(rp, inos[i])->has_row)
			r = make_again(rp, inos[i]);
		else
			r = fix_rows(rp, inos[i]);
	}
	free(inos);
	return r;
}

/* ---- nodes ---- */

static int fix_node(struct repair *rp, const struct check_node *sum, struct vc_node *node)
{
	uint8_t buf[VC_NODE_VALUE_MAX];
	int r = vc_map_node_read(rp->txn, sum->id, node);

	if (r < 0 || node->level == 0 || (node->mapped == sum->mapped && node->own == sum->own))
		return r == -ESTALE || r == -EBADMSG || r == -EUCLEAN ? 0 : r;
	node->mapped = sum->mapped;
	node->own = sum->own;
	repair_fixed(rp, "map node %llu: figures are computed again", ULL(sum->id));
	rp->cost++;
	return vc_meta_node_put(rp->txn, sum->id, buf, vc_node_encode(node, buf));
}

int repair_nodes(struct repair *rp)
{
	struct vc_node *node = malloc(sizeof(*node));
	int r = node ? 0 : -ENOMEM;

	for (size_t i = 0; i < rp->c.nodes_size && r == 0; i++)
		if (rp->c.nodes[i].id && !rp->c.nodes[i].bad)
			r = fix_node(rp, &rp->c.nodes[i], node);
	free(node);
	return r;
}
