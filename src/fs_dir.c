/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_dir: reading directories. Offsets are the cookies of vc_names_readdir, which stay valid while names come and go.
 *
 * Entries are gathered first and looked at afterwards, because vc_names_readdir may hold locks while it calls back.
 */
#include "config.h"
#include "fs_impl.h"

#include <stdlib.h>
#include <sys/stat.h>

void fs_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct vc_fs *fs = fs_of(req);
	struct vc_inode *inode;
	struct fs_handle *h;

	if (fs_is_magic(ino)) {
		fuse_reply_err(req, ENOTDIR);
		return;
	}
	inode = fs_inode_or_reply(req, ino);
	if (!inode)
		return;
	h = fs_handle_new(req, inode, fi->flags);
	if (!h) {
		vc_inode_put(inode);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	fi->fh = (uintptr_t)h;
	if (fuse_reply_open(req, fi) < 0)
		fs_handle_free(fs, h);
}

void fs_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fs_release(req, ino, fi);
}

void fs_fsyncdir(fuse_req_t req, fuse_ino_t ino VC_UNUSED, int datasync VC_UNUSED, struct fuse_file_info *fi VC_UNUSED)
{
	struct fs_op *op = fs_op_new(req, fs_op_reply_err);

	if (!op)
		return;
	op->light = true;
	fs_op_started_light(op, vc_pool_sync(op->fs->pool, &op->done));
}

/* ---- gathering ---- */

struct dir_entry {
	uint64_t ino, cookie;
	uint32_t type;
	char name[VC_NAME_MAX + 1];
	bool known; /* its inode was counted */
};

struct dir_list {
	fuse_req_t req;
	size_t room;              /* bytes of the answer */
	bool plus;
	struct dir_entry *entries;
	size_t count, allocated;
};

static size_t dir_entry_size(const struct dir_list *list, const char *name)
{
	return list->plus ? fuse_add_direntry_plus(list->req, NULL, 0, name, NULL, 0) :
			    fuse_add_direntry(list->req, NULL, 0, name, NULL, 0);
}

static int dir_gather(void *ctx, const struct vc_dirent *entry)
{
	struct dir_list *list = ctx;
	size_t need = dir_entry_size(list, entry->name);
	struct dir_entry *e;

	if (need > list->room || list->count == list->allocated || strlen(entry->name) > VC_NAME_MAX)
		return 1;
	list->room -= need;
	e = &list->entries[list->count++];
	e->ino = entry->ino;
	e->cookie = entry->cookie;
	e->type = entry->type;
	e->known = false;
	strcpy(e->name, entry->name);
	return 0;
}

static int dir_list_init(struct dir_list *list, fuse_req_t req, size_t size, bool plus)
{
	size_t least;

	*list = (struct dir_list){ .req = req, .room = size, .plus = plus };
	least = dir_entry_size(list, "a");
	list->allocated = size / least + 1;
	list->entries = malloc(list->allocated * sizeof(*list->entries));
	return list->entries ? 0 : -ENOMEM;
}

/* ---- answering ---- */

static bool dir_is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/** Attributes of an entry too, unless it vanished meanwhile: then the kernel is given the name alone. */
static void dir_fill_plus(struct vc_pool *pool, struct dir_entry *e, struct fuse_entry_param *ret)
{
	struct vc_inode *inode;

	*ret = (struct fuse_entry_param){ .attr = { .st_ino = e->ino, .st_mode = e->type } };
	if (dir_is_dots(e->name) || vc_inode_get(pool, e->ino, &inode) < 0)
		return;
	fs_fill_entry(inode, ret);
	vc_inode_put(inode);
	e->known = true;
}

static size_t dir_put(struct dir_list *list, struct dir_entry *e, char *buf, size_t room)
{
	struct fuse_entry_param param;
	struct stat st = { .st_ino = e->ino, .st_mode = e->type };

	if (!list->plus)
		return fuse_add_direntry(list->req, buf, room, e->name, &st, (off_t)e->cookie);
	dir_fill_plus(fs_of(list->req)->pool, e, &param);
	return fuse_add_direntry_plus(list->req, buf, room, e->name, &param, (off_t)e->cookie);
}

static void dir_answer(struct dir_list *list, char *buf, size_t size)
{
	struct vc_pool *pool = fs_of(list->req)->pool;
	size_t used = 0;

	for (size_t i = 0; i < list->count; i++)
		used += dir_put(list, &list->entries[i], buf + used, size - used);
	if (fuse_reply_buf(list->req, buf, used) == 0)
		return;
	for (size_t i = 0; i < list->count; i++)
		if (list->entries[i].known)
			vc_inode_forget(pool, list->entries[i].ino, 1);
}

static void dir_read(fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi, bool plus)
{
	struct fs_handle *h = fs_handle_of(fi);
	struct dir_list list;
	int r;

	size = VC_MIN(size, FS_REQUEST_MAX);
	r = dir_list_init(&list, req, size, plus);
	if (r == 0)
		r = vc_names_readdir(h->inode, (uint64_t)off, dir_gather, &list);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		dir_answer(&list, fs_worker_self()->buffer, size);
	free(list.entries);
}

void fs_readdir(fuse_req_t req, fuse_ino_t ino VC_UNUSED, size_t size, off_t off, struct fuse_file_info *fi)
{
	dir_read(req, size, off, fi, false);
}

void fs_readdirplus(fuse_req_t req, fuse_ino_t ino VC_UNUSED, size_t size, off_t off, struct fuse_file_info *fi)
{
	dir_read(req, size, off, fi, true);
}
