/* SPDX-License-Identifier: BSD-2-Clause */
/* names: the operations that make, remove and move names. */
#include "config.h"

#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "names_impl.h"

#define NAMES_LINK_MAX 65000u

int names_check(const char *name)
{
	size_t len = strlen(name);

	if (len > VC_NAME_MAX)
		return -ENAMETOOLONG;
	if (len == 0 || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, VC_MAGIC_NAME) == 0)
		return -EINVAL;
	return 0;
}

int names_check_dir(struct vc_inode *dir)
{
	if (!S_ISDIR(dir->f.mode))
		return -ENOTDIR;
	return atomic_load(&dir->gone) || dir->f.nlink == 0 ? -ENOENT : 0;
}

void names_row_inode(struct vc_record *rec, uint64_t ino, const struct vc_inode_fields *f)
{
	struct vc_disk_inode row;
	uint8_t key[9];

	vc_row_from_inode(f, &row);
	vc_record_row_put(rec, key, vc_row_key_ino(key, VC_ROW_INODE, ino), &row, sizeof(row));
}

void names_row_dirent(struct vc_record *rec, uint64_t parent, const char *name, uint64_t ino, uint64_t cookie, uint32_t mode)
{
	struct vc_disk_dirent row = { .ino = vc_le64_of(ino), .cookie = vc_le64_of(cookie), .type = vc_le32_of(mode & S_IFMT) };
	uint8_t key[VC_ROW_KEY_MAX];

	vc_record_row_put(rec, key, vc_row_key_named(key, VC_ROW_DIRENT, parent, name, strlen(name)), &row, sizeof(row));
}

void names_row_dirent_del(struct vc_record *rec, uint64_t parent, const char *name)
{
	uint8_t key[VC_ROW_KEY_MAX];

	vc_record_row_del(rec, key, vc_row_key_named(key, VC_ROW_DIRENT, parent, name, strlen(name)));
}

static void names_row_orphan(struct vc_record *rec, uint64_t ino)
{
	uint8_t key[9];

	vc_record_row_put(rec, key, vc_row_key_ino(key, VC_ROW_ORPHAN, ino), NULL, 0);
}

struct vc_inode_fields names_dir_changed(const struct vc_inode *dir, const struct vc_record *rec, int links, bool new_entry)
{
	struct vc_inode_fields f = dir->f;

	f.mtime_ns = f.ctime_ns = rec->time_ns;
	f.nlink += (uint32_t)links;
	f.next_cookie += new_entry;
	return f;
}

struct vc_inode_fields names_new_fields(const struct vc_inode *dir, uint32_t mode, struct vc_owner owner, uint64_t now)
{
	struct vc_inode_fields f = {
		.mode = mode, .nlink = S_ISDIR(mode) ? 2 : 1, .uid = owner.uid, .gid = owner.gid, .generation = 1,
		.atime_ns = now, .mtime_ns = now, .ctime_ns = now, .btime_ns = now,
		.parent = S_ISDIR(mode) ? dir->ino : 0, .next_cookie = S_ISDIR(mode) ? 16 : 0,
	};

	if (dir->f.mode & S_ISGID) {
		f.gid = dir->f.gid;
		if (S_ISDIR(mode))
			f.mode |= S_ISGID;
	}
	return f;
}

/* ---- running an operation ---- */

/* Still under the names lock, so that a nameless one is in use before anybody can think of deleting it. */
static void names_hand_out(struct names_op *op)
{
	struct vc_inode *inode = NULL;
	int r = vc_catalog_get(op->locked[0]->cat, op->new_ino, &inode);

	if (r < 0)
		vc_pool_fail(op->pool, r);
	*op->ret_new = inode;
	if (op->ret_inode)
		*op->ret_inode = inode;
}

/* Build, log and apply, admitted for op->most bytes. */
static int names_try(struct names_op *op, struct vc_record *rec, struct vc_log_slot *slot)
{
	int64_t len;
	int r;

	vc_mutex_lock(&op->pool->names);
	vol_lock_inodes(op->locked, NAMES_LOCKED);
	r = op->build(op, rec);
	len = r < 0 ? r : vc_record_len(rec);
	if (len > (int64_t)op->most)
		len = -E2BIG;
	if (len >= 0 && op->grows && vc_pool_may_grow(op->pool, (size_t)len) < 0)
		len = -ENOSPC;
	if (len < 0) {
		vc_log_unadmit(op->pool->log, op->most);
		r = (int)len;
	} else {
		vc_log_shrink_admission(op->pool->log, op->most, (size_t)len);
		r = vc_apply_record(op->pool, rec, NULL, NULL, slot);
	}
	if (r == 0 && op->grows)
		vc_pool_grew(op->pool, (size_t)len);
	if (r == 0 && op->new_ino)
		names_hand_out(op);
	vol_unlock_inodes(op->locked, NAMES_LOCKED);
	vc_mutex_unlock(&op->pool->names);
	return r;
}

int names_run(struct names_op *op, struct vc_done *done)
{
	struct vc_log_slot slot;
	struct vc_record rec;
	int r = vc_pool_writable(op->pool);

	if (!op->most)
		op->most = NAMES_RECORD_MAX;
	if (r == 0 && op->grows)
		vc_pool_check_space(op->pool, false);
	if (r == 0)
		r = vc_pool_admit_wait(op->pool, op->class, op->most);
	if (r < 0)
		return r;
	vc_record_init(&rec);
	r = names_try(op, &rec, &slot);
	if (r == 0)
		vol_submit(op->pool, &rec, &slot, true, done);
	vc_record_fini(&rec);
	return r;
}

/* ---- create ---- */

struct create_op {
	struct names_op op;
	struct vc_inode *dir;
	const char *name;
	const struct vc_new *what;
	uint64_t ino;
};

static int create_build(struct names_op *base, struct vc_record *rec)
{
	struct create_op *op = vc_container_of(base, struct create_op, op);
	bool is_dir = S_ISDIR(op->what->mode);
	struct vc_inode_fields f, d;
	uint8_t key[9];
	int r = names_check_dir(op->dir);

	if (r == 0)
		r = vc_dir_load(op->dir->cat, op->dir);
	if (r < 0)
		return r;
	if (vc_dir_find(op->dir, op->name, strlen(op->name)))
		return -EEXIST;
	if (is_dir && op->dir->f.nlink >= NAMES_LINK_MAX)
		return -EMLINK;
	f = names_new_fields(op->dir, op->what->mode, op->what->owner, rec->time_ns);
	f.rdev = op->what->rdev;
	f.size = op->what->target ? strlen(op->what->target) : 0;
	d = names_dir_changed(op->dir, rec, is_dir, true);
	names_row_inode(rec, op->ino, &f);
	if (op->what->target)
		vc_record_row_put(rec, key, vc_row_key_ino(key, VC_ROW_LINK, op->ino), op->what->target, f.size);
	names_row_dirent(rec, op->dir->ino, op->name, op->ino, op->dir->f.next_cookie, f.mode);
	names_row_inode(rec, op->dir->ino, &d);
	return 0;
}

/* A completion that gives the new inode back to the caller, or drops it. */
struct create_done {
	struct vc_done done, *outer;
	struct vc_inode *inode;
	bool wanted;
};

static void create_finished(struct vc_done *done, int error)
{
	struct create_done *c = vc_container_of(done, struct create_done, done);
	struct vc_done *outer = c->outer;

	if (c->inode && (error || !c->wanted))
		vc_inode_put(c->inode);
	if (!c->inode && !error)
		error = -EIO;
	free(c);
	vc_done_call(outer, error);
}

int vc_names_create(struct vc_inode *dir, const char *name, const struct vc_new *what, struct vc_inode **ret, struct vc_done *done)
{
	struct vc_catalog *cat = dir->cat;
	struct create_op op = { .op = { .pool = cat->pool, .locked = { dir }, .build = create_build, .class = VC_LOG_META, .grows = true },
				.dir = dir, .name = name, .what = what };
	int r = names_check(name);

	if (r == 0 && what->target && (strlen(what->target) == 0 || strlen(what->target) > VC_SYMLINK_MAX))
		r = *what->target ? -ENAMETOOLONG : -ENOENT;
	if (r == 0 && S_ISLNK(what->mode) != (what->target != NULL))
		r = -EINVAL;
	if (r < 0)
		return r;
	op.ino = vc_catalog_new_ino(cat);
	return names_run_new(&op.op, op.ino, ret, done);
}

/* As names_run; hands out the inode that the operation made. */
int names_run_new(struct names_op *op, uint64_t ino, struct vc_inode **ret, struct vc_done *done)
{
	struct create_done *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->done.fn = create_finished;
	c->outer = done;
	c->wanted = ret != NULL;
	op->new_ino = ino;
	op->ret_new = &c->inode;
	op->ret_inode = ret;
	r = names_run(op, &c->done);
	if (r < 0)
		free(c);
	return r;
}

/* ---- link ---- */

struct link_op {
	struct names_op op;
	struct vc_inode *inode, *dir;
	const char *name;
};

static int link_build(struct names_op *base, struct vc_record *rec)
{
	struct link_op *op = vc_container_of(base, struct link_op, op);
	struct vc_inode_fields f = op->inode->f, d;
	int r = names_check_dir(op->dir);

	if (r == 0)
		r = vc_dir_load(op->dir->cat, op->dir);
	if (r < 0)
		return r;
	if (S_ISDIR(f.mode))
		return -EPERM;
	if (f.nlink == 0 || atomic_load(&op->inode->gone))
		return -ENOENT;
	if (f.nlink >= NAMES_LINK_MAX)
		return -EMLINK;
	if (vc_dir_find(op->dir, op->name, strlen(op->name)))
		return -EEXIST;
	f.nlink++;
	f.ctime_ns = rec->time_ns;
	d = names_dir_changed(op->dir, rec, 0, true);
	names_row_inode(rec, op->inode->ino, &f);
	names_row_dirent(rec, op->dir->ino, op->name, op->inode->ino, op->dir->f.next_cookie, f.mode);
	names_row_inode(rec, op->dir->ino, &d);
	return 0;
}

int vc_names_link(struct vc_inode *inode, struct vc_inode *dir, const char *name, struct vc_done *done)
{
	struct link_op op = { .op = { .pool = dir->cat->pool, .locked = { inode, dir }, .build = link_build, .class = VC_LOG_META, .grows = true },
			      .inode = inode, .dir = dir, .name = name };
	int r = names_check(name);

	return r < 0 ? r : names_run(&op.op, done);
}

/* ---- unlink, rmdir ---- */

struct remove_op {
	struct names_op op;
	struct vc_inode *dir, *victim; /* victim: counted by the caller */
	const char *name;
	bool is_rmdir;
};

/* A name of `victim` goes away. With the last one it becomes an orphan, deleted when nobody uses it any more. */
static void names_drop_link(struct vc_record *rec, const struct vc_inode *victim)
{
	struct vc_inode_fields f = victim->f;

	f.nlink = S_ISDIR(f.mode) ? 0 : f.nlink - 1;
	f.ctime_ns = rec->time_ns;
	names_row_inode(rec, victim->ino, &f);
	if (f.nlink == 0)
		names_row_orphan(rec, victim->ino);
}

static int remove_build(struct names_op *base, struct vc_record *rec)
{
	struct remove_op *op = vc_container_of(base, struct remove_op, op);
	const struct vc_dir_entry *e;
	struct vc_inode_fields d;
	int r = names_check_dir(op->dir);

	if (r == 0)
		r = vc_dir_load(op->dir->cat, op->dir);
	if (r < 0)
		return r;
	e = vc_dir_find(op->dir, op->name, strlen(op->name));
	if (!e)
		return -ENOENT;
	if (e->ino != op->victim->ino)
		return -ESTALE; /* replaced since the caller looked */
	if (op->is_rmdir != S_ISDIR(op->victim->f.mode))
		return op->is_rmdir ? -ENOTDIR : -EISDIR;
	if (op->is_rmdir) {
		r = vc_dir_load(op->dir->cat, op->victim);
		if (r < 0)
			return r;
		if (vc_dir_count(op->victim) > 0)
			return -ENOTEMPTY;
	}
	d = names_dir_changed(op->dir, rec, op->is_rmdir ? -1 : 0, false);
	names_row_dirent_del(rec, op->dir->ino, op->name);
	names_drop_link(rec, op->victim);
	names_row_inode(rec, op->dir->ino, &d);
	return 0;
}

static int names_remove(struct vc_inode *dir, const char *name, bool is_rmdir, struct vc_done *done)
{
	struct remove_op op = { .op = { .pool = dir->cat->pool, .build = remove_build, .class = VC_LOG_META },
				.dir = dir, .name = name, .is_rmdir = is_rmdir };
	int r;

	do {
		r = strlen(name) > VC_NAME_MAX ? -ENAMETOOLONG : vc_names_lookup(dir, name, &op.victim);
		if (r < 0)
			return r;
		if (op.victim == dir || strcmp(name, "..") == 0) {
			vc_inode_put(op.victim);
			return is_rmdir ? -EINVAL : -EISDIR;
		}
		op.op.locked[0] = dir;
		op.op.locked[1] = op.victim;
		r = names_run(&op.op, done);
		vc_inode_put(op.victim);
	} while (r == -ESTALE);
	return r;
}

int vc_names_unlink(struct vc_inode *dir, const char *name, struct vc_done *done) { return names_remove(dir, name, false, done); }
int vc_names_rmdir(struct vc_inode *dir, const char *name, struct vc_done *done) { return names_remove(dir, name, true, done); }

/* ---- rename ---- */

struct rename_op {
	struct names_op op;
	struct vc_inode *dir, *newdir, *inode, *target; /* inode, target: counted by the caller; target may be NULL */
	const char *name, *newname;
	unsigned int flags;
};

/* Would the directory become its own ancestor? */
static int rename_check_loop(struct vc_inode *inode, struct vc_inode *newdir)
{
	struct vc_catalog *cat = inode->cat;
	uint64_t at = newdir->ino;

	while (at != VC_ROOT_INO) {
		struct vc_inode *dir;
		int r;

		if (at == inode->ino)
			return -EINVAL;
		r = vc_catalog_get(cat, at, &dir);
		if (r < 0)
			return r;
		at = dir->f.parent;
		vc_catalog_put(cat, dir);
	}
	return 0;
}

static int rename_check_target(struct rename_op *op)
{
	bool is_dir = S_ISDIR(op->inode->f.mode);
	int r;

	if (op->flags & RENAME_NOREPLACE)
		return op->target ? -EEXIST : 0;
	if (op->flags & RENAME_EXCHANGE)
		return op->target ? 0 : -ENOENT;
	if (!op->target)
		return 0;
	if (S_ISDIR(op->target->f.mode) != is_dir)
		return is_dir ? -ENOTDIR : -EISDIR;
	if (!is_dir)
		return 0;
	r = vc_dir_load(op->dir->cat, op->target);
	return r < 0 ? r : vc_dir_count(op->target) ? -ENOTEMPTY : 0;
}

static int rename_check(struct rename_op *op)
{
	const struct vc_dir_entry *from, *to;
	int r = names_check_dir(op->dir);

	if (r == 0)
		r = names_check_dir(op->newdir);
	if (r == 0)
		r = vc_dir_load(op->dir->cat, op->dir);
	if (r == 0)
		r = vc_dir_load(op->dir->cat, op->newdir);
	if (r < 0)
		return r;
	from = vc_dir_find(op->dir, op->name, strlen(op->name));
	to = vc_dir_find(op->newdir, op->newname, strlen(op->newname));
	if (!from)
		return -ENOENT;
	if (from->ino != op->inode->ino || (to ? to->ino : 0) != (op->target ? op->target->ino : 0))
		return -ESTALE;
	r = rename_check_target(op);
	if (r == 0 && S_ISDIR(op->inode->f.mode))
		r = rename_check_loop(op->inode, op->newdir);
	if (r == 0 && op->target && (op->flags & RENAME_EXCHANGE) && S_ISDIR(op->target->f.mode))
		r = rename_check_loop(op->target, op->dir);
	return r;
}

static void rename_row_moved(struct vc_record *rec, const struct vc_inode *inode, const struct vc_inode *to_dir)
{
	struct vc_inode_fields f = inode->f;

	f.ctime_ns = rec->time_ns;
	if (S_ISDIR(f.mode))
		f.parent = to_dir->ino;
	names_row_inode(rec, inode->ino, &f);
}

static int rename_build(struct names_op *base, struct vc_record *rec)
{
	struct rename_op *op = vc_container_of(base, struct rename_op, op);
	bool exchange = op->flags & RENAME_EXCHANGE, same_dir = op->dir == op->newdir;
	const struct vc_dir_entry *from, *to;
	struct vc_inode_fields d, n;
	int links = 0, newlinks = 0, r = rename_check(op);

	if (r < 0)
		return r;
	if (op->target == op->inode)
		return 0; /* two names of one file: nothing happens */
	from = vc_dir_find(op->dir, op->name, strlen(op->name));
	to = vc_dir_find(op->newdir, op->newname, strlen(op->newname));
	if (S_ISDIR(op->inode->f.mode)) {
		links--;
		newlinks++;
	}
	if (op->target && S_ISDIR(op->target->f.mode)) {
		newlinks--;
		links += exchange;
	}
	names_row_dirent(rec, op->newdir->ino, op->newname, op->inode->ino, to ? to->cookie : op->newdir->f.next_cookie, op->inode->f.mode);
	rename_row_moved(rec, op->inode, op->newdir);
	if (exchange) {
		names_row_dirent(rec, op->dir->ino, op->name, op->target->ino, from->cookie, op->target->f.mode);
		rename_row_moved(rec, op->target, op->dir);
	} else {
		names_row_dirent_del(rec, op->dir->ino, op->name);
		if (op->target)
			names_drop_link(rec, op->target);
	}
	n = names_dir_changed(op->newdir, rec, newlinks + (same_dir ? links : 0), !to);
	names_row_inode(rec, op->newdir->ino, &n);
	if (!same_dir) {
		d = names_dir_changed(op->dir, rec, links, false);
		names_row_inode(rec, op->dir->ino, &d);
	}
	return 0;
}

static int rename_lookup(struct rename_op *op)
{
	int r = vc_names_lookup(op->dir, op->name, &op->inode);

	op->target = NULL;
	if (r < 0)
		return r;
	r = vc_names_lookup(op->newdir, op->newname, &op->target);
	if (r == -ENOENT)
		r = 0;
	if (r < 0)
		vc_inode_put(op->inode);
	return r;
}

int vc_names_rename(struct vc_inode *dir, const char *name, struct vc_inode *newdir, const char *newname, unsigned int flags,
		    struct vc_done *done)
{
	struct rename_op op = { .op = { .pool = dir->cat->pool, .build = rename_build, .class = VC_LOG_META, .grows = strlen(newname) > strlen(name) },
				.dir = dir, .newdir = newdir, .name = name, .newname = newname, .flags = flags };
	int r = names_check(name);

	if (r == 0)
		r = names_check(newname);
	if (r == 0 && ((flags & ~(unsigned int)(RENAME_NOREPLACE | RENAME_EXCHANGE)) || flags == (RENAME_NOREPLACE | RENAME_EXCHANGE)))
		r = -EINVAL;
	if (r < 0)
		return r;
	do {
		r = rename_lookup(&op);
		if (r < 0)
			return r;
		op.op.locked[0] = dir;
		op.op.locked[1] = newdir;
		op.op.locked[2] = op.inode;
		op.op.locked[3] = op.target;
		r = names_run(&op.op, done);
		vc_inode_put(op.inode);
		if (op.target)
			vc_inode_put(op.target);
	} while (r == -ESTALE);
	return r;
}
