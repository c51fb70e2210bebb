/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * repair_names: the names form a tree again: each directory has one name, each name means something, and nothing is without.
 *
 *   1 names that cannot stay are taken away and noted in an attribute of what they meant
 *   2 directories say where they are; rings of directories are cut
 *   3 what has no name goes to lost+found
 *   4 links are counted
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "repair_impl.h"

#define ULL(x) ((unsigned long long)(x))
#define REPAIR_LOST "lost+found"

static int put_dirent(struct repair *rp, uint64_t parent, const char *name, size_t name_len, uint64_t ino, uint64_t cookie, uint32_t type)
{
	struct vc_disk_dirent d = { .ino = vc_le64_of(ino), .cookie = vc_le64_of(cookie), .type = vc_le32_of(type & S_IFMT) };
	uint8_t key[VC_ROW_KEY_MAX];

	return repair_put(rp, key, vc_row_key_named(key, VC_ROW_DIRENT, parent, name, name_len), &d, sizeof(d));
}

static int put_name(struct repair *rp, const struct check_name *n, uint32_t type)
{
	return put_dirent(rp, n->parent, n->name, n->name_len, n->ino, n->cookie, type);
}

/* The attribute says where it was: number of the directory, name. */
static int remove_name(struct repair *rp, struct check_name *n)
{
	char text[32 + VC_NAME_MAX];
	uint8_t key[VC_ROW_KEY_MAX];
	int len = snprintf(text, sizeof(text), "%llu/%.*s", ULL(n->parent), n->name_len, n->name);
	int r = repair_del(rp, key, vc_row_key_named(key, VC_ROW_DIRENT, n->parent, n->name, n->name_len));

	if (r == 0)
		r = repair_note(rp, n->ino, "was", text, (size_t)len);
	n->ino = 0;
	return r;
}

/* ---- 1: each name by itself ---- */

static int begin_names(struct repair *rp)
{
	for (size_t i = 0; i < rp->c.inodes_size; i++)
		rp->c.inodes[i].links = rp->c.inodes[i].subdirs = 0;
	for (size_t i = 0; i < rp->c.nnames; i++) {
		struct check_name *n = &rp->c.names[i];
		struct check_inode *dir = repair_inode(rp, n->parent), *target;

		if (!dir)
			return -ENOMEM;
		if (!n->ino)
			n->ino = rp->next_ino++;
		if (dir->f.next_cookie <= n->cookie && S_ISDIR(dir->f.mode)) {
			if (!dir->changed)
				repair_fixed(rp, "directory %llu: the next offset becomes higher than all in use", ULL(n->parent));
			dir->f.next_cookie = n->cookie + 1;
			dir->changed = true;
		}
		target = repair_inode(rp, n->ino);
		if (!target)
			return -ENOMEM;
		target->right_names += target->f.parent == n->parent;
	}
	return 0;
}

static int make_dangling(struct repair *rp, struct check_name *n)
{
	uint64_t ino = n->ino;
	struct check_inode *target = repair_inode(rp, ino);
	int r = 0;

	repair_fixed(rp, "directory %llu: '%.*s' means inode %llu, which does not exist; an empty file in its place says so",
		     ULL(n->parent), n->name_len, n->name, ULL(ino));
	if (!target->has_row) {
		r = repair_make(rp, ino, S_IFREG | 0600, 0);
		if (r == 0)
			r = repair_empty_image(rp, ino);
		repair_inode(rp, ino)->dangling = true;
	}
	return r < 0 ? r : remove_name(rp, n);
}

/* A directory keeps one name, the root has none. */
static bool is_second_name(const struct check_inode *target, const struct check_name *n)
{
	if (!S_ISDIR(target->f.mode))
		return false;
	return target->ino == VC_ROOT_INO || target->links > 0 || (target->right_names > 0 && target->f.parent != n->parent);
}

static int keep_name(struct repair *rp, struct check_name *n, bool same_cookie)
{
	struct check_inode *dir = repair_inode(rp, n->parent), *target = repair_inode(rp, n->ino);
	bool put = same_cookie || (target->f.mode & S_IFMT) != n->type;

	if (same_cookie) {
		n->cookie = dir->f.next_cookie++;
		dir->changed = true;
		repair_fixed(rp, "directory %llu: '%.*s' gets an offset of its own", ULL(n->parent), n->name_len, n->name);
	} else if (put) {
		repair_fixed(rp, "directory %llu: '%.*s' gets the type of what it means", ULL(n->parent), n->name_len, n->name);
	}
	target->links++;
	if (S_ISDIR(target->f.mode)) {
		dir->subdirs++;
		if (target->f.parent != n->parent) {
			repair_fixed(rp, "directory %llu: its parent is %llu, not %llu", ULL(n->ino), ULL(n->parent), ULL(target->f.parent));
			target->f.parent = n->parent;
			target->changed = true;
		}
	}
	return put ? put_name(rp, n, target->f.mode) : 0;
}

static int each_name(struct repair *rp)
{
	const struct check_name *last = NULL;
	int r = 0;

	for (size_t i = 0; i < rp->c.nnames && r == 0; i++) {
		struct check_name *n = &rp->c.names[i];
		struct check_inode *dir = repair_inode(rp, n->parent), *target = repair_inode(rp, n->ino);

		if (!dir || !target)
			return -ENOMEM;
		target = repair_inode(rp, n->ino);
		dir = repair_inode(rp, n->parent);
		if (!target->has_row || target->dangling) {
			r = make_dangling(rp, n);
		} else if (!S_ISDIR(dir->f.mode) || is_second_name(target, n)) {
			repair_fixed(rp, "inode %llu: the name '%.*s' in %llu is taken away", ULL(n->ino), n->name_len, n->name, ULL(n->parent));
			r = remove_name(rp, n);
		} else {
			r = keep_name(rp, n, last && last->parent == n->parent && last->cookie == n->cookie);
			last = n;
		}
	}
	return r;
}

/* ---- 2: rings ---- */

/* Is this directory the lowest number in a ring of parents? */
static bool is_ring_head(struct repair *rp, uint64_t ino)
{
	uint64_t at = ino;

	for (size_t steps = 0; steps <= rp->c.ninodes; steps++) {
		const struct check_inode *i = repair_inode(rp, at);

		if (!i || !i->has_row || !i->links)
			return false;
		at = i->f.parent;
		if (at == ino)
			return true;
		if (at < ino)
			return false;
	}
	return false;
}

static int cut_ring(struct repair *rp, uint64_t ino)
{
	int r = 0;

	for (size_t i = 0; i < rp->c.nnames && r == 0; i++) {
		struct check_name *n = &rp->c.names[i];

		if (n->ino != ino)
			continue;
		repair_fixed(rp, "directory %llu lies within itself: the name '%.*s' in %llu is taken away", ULL(ino), n->name_len, n->name,
			     ULL(n->parent));
		repair_inode(rp, n->parent)->subdirs--;
		repair_inode(rp, ino)->links = 0;
		r = remove_name(rp, n);
	}
	return r;
}

/* ---- 3: lost+found ---- */

static bool name_is_taken(struct repair *rp, uint64_t dir, const char *name)
{
	uint8_t key[VC_ROW_KEY_MAX];
	const void *value;
	size_t len;

	return vc_meta_get(rp->txn, VC_DB_CAT, key, vc_row_key_named(key, VC_ROW_DIRENT, dir, name, strlen(name)), &value, &len) != -ENOENT;
}

/* A name that `dir` does not have yet. */
static void free_name(struct repair *rp, uint64_t dir, const char *base, char *buf, size_t size)
{
	snprintf(buf, size, "%s", base);
	for (unsigned int n = 1; name_is_taken(rp, dir, buf); n++)
		snprintf(buf, size, "%s.%u", base, n);
}

static int add_name(struct repair *rp, uint64_t parent, const char *name, uint64_t ino)
{
	struct check_inode *dir = repair_inode(rp, parent), *target = repair_inode(rp, ino);
	uint64_t cookie;

	if (!dir || !target)
		return -ENOMEM;
	dir = repair_inode(rp, parent);
	cookie = dir->f.next_cookie++;
	dir->changed = target->changed = true;
	target->links++;
	if (S_ISDIR(target->f.mode)) {
		target->f.parent = parent;
		dir->subdirs++;
	}
	return put_dirent(rp, parent, name, strlen(name), ino, cookie, target->f.mode);
}

static int find_lost(struct repair *rp)
{
	char name[64];
	int r;

	for (size_t i = 0; i < rp->c.nnames && !rp->lost; i++) {
		const struct check_name *n = &rp->c.names[i];

		if (n->ino && n->parent == VC_ROOT_INO && n->name_len == strlen(REPAIR_LOST) && memcmp(n->name, REPAIR_LOST, n->name_len) == 0 &&
		    S_ISDIR(repair_inode(rp, n->ino)->f.mode))
			rp->lost = n->ino;
	}
	if (rp->lost)
		return 0;
	rp->lost = rp->next_ino++;
	free_name(rp, VC_ROOT_INO, REPAIR_LOST, name, sizeof(name));
	repair_say(rp, "directory '%s' is made", name);
	r = repair_make(rp, rp->lost, S_IFDIR | 0700, 0);
	return r < 0 ? r : add_name(rp, VC_ROOT_INO, name, rp->lost);
}

static int link_lost(struct repair *rp, uint64_t ino)
{
	char base[32], name[64];
	int r = find_lost(rp);

	if (r < 0)
		return r;
	snprintf(base, sizeof(base), "#%llu", ULL(ino));
	free_name(rp, rp->lost, base, name, sizeof(name));
	repair_fixed(rp, "inode %llu has no name: it is '%s' in %s now", ULL(ino), name, REPAIR_LOST);
	return add_name(rp, rp->lost, name, ino);
}

static bool is_lost(const struct check_inode *i)
{
	return i->has_row && i->links == 0 && i->ino != VC_ROOT_INO && !(i->f.nlink == 0 && i->has_orphan);
}

/* ---- 4: counting ---- */

static int count_links(struct repair *rp, uint64_t ino)
{
	struct check_inode *i = repair_inode(rp, ino);
	uint32_t want = S_ISDIR(i->f.mode) ? i->subdirs + 2 : i->links;
	uint8_t key[9];

	if (!i->has_row || (i->links == 0 && ino != VC_ROOT_INO))
		return 0;
	if (i->f.nlink != want) {
		if (i->f.nlink > 0 || !i->changed) /* otherwise said already */
			repair_fixed(rp, "inode %llu: link count %u becomes %u", ULL(ino), i->f.nlink, want);
		i->f.nlink = want;
		i->changed = true;
	}
	if (!i->has_orphan)
		return 0;
	repair_fixed(rp, "inode %llu has a name and is not to be deleted", ULL(ino));
	return repair_del(rp, key, vc_row_key_ino(key, VC_ROW_ORPHAN, ino));
}

/* Over those that exist now: the table may grow on the way. */
static int each_inode(struct repair *rp, int (*fn)(struct repair *rp, uint64_t ino), bool (*wanted)(const struct check_inode *i))
{
	uint64_t *inos = malloc((rp->c.ninodes + 1) * sizeof(*inos));
	size_t n = 0;
	int r = inos ? 0 : -ENOMEM;

	for (size_t i = 0; i < rp->c.inodes_size && r == 0; i++)
		if (rp->c.inodes[i].ino && (!wanted || wanted(&rp->c.inodes[i])))
			inos[n++] = rp->c.inodes[i].ino;
	for (size_t i = 0; i < n && r == 0; i++)
		r = fn(rp, inos[i]);
	free(inos);
	return r;
}

static bool is_directory(const struct check_inode *i) { return i->has_row && S_ISDIR(i->f.mode) && i->ino != VC_ROOT_INO && i->links; }

static int cut_if_ring(struct repair *rp, uint64_t ino)
{
	return !check_is_rooted(&rp->c, repair_inode(rp, ino)) && is_ring_head(rp, ino) ? cut_ring(rp, ino) : 0;
}

int repair_names(struct repair *rp)
{
	int r = begin_names(rp);

	if (r == 0)
		r = each_name(rp);
	if (r == 0)
		r = each_inode(rp, cut_if_ring, is_directory);
	if (r == 0 && !repair_inode(rp, VC_ROOT_INO)->has_row) {
		repair_fixed(rp, "the root directory is made again");
		r = repair_make(rp, VC_ROOT_INO, S_IFDIR | 0755, 0);
	}
	if (r == 0)
		r = each_inode(rp, link_lost, is_lost);
	return r < 0 ? r : each_inode(rp, count_links, NULL);
}
