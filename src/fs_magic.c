/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_magic: the file `.clone` in every directory, by which a shell clones: echo golden.img vm7.img >.clone
 *
 * It is found by name and not listed. Reading it explains its use. A write holds complete lines (the last may lack its
 * newline), see fs_text.h; each makes one clone, with the rights of who writes. All of one write are started in order
 * and become durable together; the write is answered then. When a line fails, the lines before it are done: the answer
 * is the bytes of those, or the error if it was the first.
 *
 * Only the user who opened the file, in the same group, may write: a program of more rights (set-user-id, set-group-id)
 * must not be lured into writing to somebody's descriptor.
 */
#include "config.h"
#include "fs_impl.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "fs_text.h"
#include <vclonefs.h>

static const char magic_usage[] =
	"This file makes clones. Write lines to it, each with the name of an image and a name for its clone:\n"
	"\n"
	"    echo golden.img vm7.img >.clone\n"
	"\n"
	"Names are relative to this directory; with a leading / to the root of the mount. Names with blanks\n"
	"are written 'like this', \"like this\" or like\\ this. A clone is complete and on disk when the write\n"
	"returns. The error, if any, is that of the write (ENOENT, EEXIST, EACCES ...).\n";

/* ---- the file ---- */

void fs_magic_stat(struct vc_inode *dir, struct stat *ret)
{
	struct stat st;

	fs_fill_stat(dir, &st);
	*ret = (struct stat){
		.st_ino = st.st_ino | FS_MAGIC_BIT, .st_mode = S_IFREG | 0666, .st_nlink = 1, .st_blksize = 4096,
		.st_size = sizeof(magic_usage) - 1, .st_atim = st.st_ctim, .st_mtim = st.st_ctim, .st_ctim = st.st_ctim,
	};
}

void fs_magic_reply_entry(fuse_req_t req, struct vc_inode *dir)
{
	struct fuse_entry_param entry = { .generation = 1, .attr_timeout = FS_TIMEOUT, .entry_timeout = FS_TIMEOUT };
	struct vc_attr attr;

	vc_inode_attr(dir, &attr);
	if (!S_ISDIR(attr.mode)) {
		fuse_reply_err(req, ENOTDIR);
		return;
	}
	fs_magic_stat(dir, &entry.attr);
	entry.ino = entry.attr.st_ino;
	fuse_reply_entry(req, &entry);
}

/** The kernel asks so for a file handle that NFS kept. */
void fs_magic_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct vc_inode *dir = fs_inode_or_reply(req, parent & ~(fuse_ino_t)FS_MAGIC_BIT);

	if (!dir)
		return;
	if (strcmp(name, ".") == 0)
		fs_magic_reply_entry(req, dir);
	else if (strcmp(name, "..") == 0)
		fs_reply_entry(req, dir);
	else
		fuse_reply_err(req, ENOTDIR);
	vc_inode_put(dir);
}

/** Truncation and touching do nothing (the shell's > does both), the rest is refused. */
void fs_magic_setattr(fuse_req_t req, fuse_ino_t ino, int to_set)
{
	struct vc_inode *dir;
	struct stat st;

	if (to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) {
		fuse_reply_err(req, EPERM);
		return;
	}
	dir = fs_inode_or_reply(req, ino & ~(fuse_ino_t)FS_MAGIC_BIT);
	if (!dir)
		return;
	fs_magic_stat(dir, &st);
	vc_inode_put(dir);
	fuse_reply_attr(req, &st, FS_TIMEOUT);
}

void fs_magic_read(fuse_req_t req, size_t size, off_t off)
{
	size_t len = sizeof(magic_usage) - 1;

	if (off < 0 || (uint64_t)off >= len)
		fuse_reply_buf(req, NULL, 0);
	else
		fuse_reply_buf(req, magic_usage + off, VC_MIN(size, len - (size_t)off));
}

/* ---- writing ---- */

/** One clone of a write. */
struct magic_line {
	struct vc_done done;
	struct magic_write *write;
	struct magic_line *next;
	size_t end;       /* offset behind the line */
	uint64_t dir_ino;
	int error;
};

struct magic_write {
	struct fs_op *op;
	struct magic_line *lines, **tail;
	_Atomic size_t pending; /* lines in progress, and one for the starter */
	size_t parsed;          /* offset behind the last line that was started or needs nothing */
	int error;              /* of the line that could not be started */
};

static void magic_pending_put(struct magic_write *w)
{
	if (atomic_fetch_sub(&w->pending, 1) == 1)
		vc_done_call(&w->op->done, 0);
}

static void magic_line_done(struct vc_done *done, int error)
{
	struct magic_line *line = vc_container_of(done, struct magic_line, done);

	line->error = error;
	magic_pending_put(line->write);
}

/** Bytes of the lines that succeeded before the first that failed, or its error. */
static ssize_t magic_result(const struct magic_write *w)
{
	size_t good = 0;

	for (const struct magic_line *l = w->lines; l; l = l->next) {
		if (l->error < 0)
			return good ? (ssize_t)good : l->error;
		good = l->end;
	}
	return w->error < 0 && w->parsed == 0 ? w->error : (ssize_t)w->parsed;
}

static void magic_answer(struct fs_job *job)
{
	struct fs_op *op = vc_container_of(job, struct fs_op, job);
	struct magic_write *w = op->data;
	struct magic_line *next;
	uint64_t last = 0;
	ssize_t n = magic_result(w);

	for (struct magic_line *l = w->lines; l; l = next) {
		next = l->next;
		if (l->dir_ino != last)
			fs_notify_attr(op->fs, l->dir_ino);
		last = l->dir_ino;
		free(l);
	}
	free(w);
	if (n < 0)
		fuse_reply_err(op->req, (int)-n);
	else
		fuse_reply_write(op->req, (size_t)n);
	fs_op_free(op);
}

static void magic_done(struct fs_op *op, int error VC_UNUSED)
{
	op->job.fn = magic_answer;
	fs_queue_add(&op->fs->notify, &op->job);
}

static int magic_start(struct magic_write *w, struct magic_line *line, const struct vc_caller *caller, const char *src,
		       const char *dst)
{
	struct vc_inode *source, *dir;
	char name[VC_NAME_MAX + 1];
	int r;

	r = fs_clone_paths(w->op->inode, src, dst, caller, &source, &dir, name);
	if (r < 0)
		return r;
	line->dir_ino = vc_inode_ino(dir);
	atomic_fetch_add(&w->pending, 1);
	r = vc_volume_clone(source, dir, name, fs_clone_mode(source), fs_clone_owner(dir, caller), NULL, &line->done);
	if (r < 0)
		atomic_fetch_sub(&w->pending, 1);
	vc_inode_put(dir);
	vc_inode_put(source);
	return r;
}

/** The line [text, end) of which the write's offset `end_offset` is behind the newline. */
static int magic_add_line(struct magic_write *w, const struct vc_caller *caller, const char *text, const char *end,
		      size_t end_offset)
{
	char src[VCLONEFS_PATH_MAX], dst[VCLONEFS_PATH_MAX];
	struct magic_line *line;
	int r;

	r = fs_text_line(text, end, src, dst, sizeof(src));
	if (r <= 0)
		return r;
	line = calloc(1, sizeof(*line));
	if (!line)
		return -ENOMEM;
	line->done.fn = magic_line_done;
	line->write = w;
	line->end = end_offset;
	*w->tail = line;
	r = magic_start(w, line, caller, src, dst);
	if (r < 0) {
		*w->tail = NULL;
		free(line);
		return r;
	}
	w->tail = &line->next;
	return 0;
}

static void magic_lines(struct magic_write *w, const struct vc_caller *caller, const char *buf, size_t len)
{
	const char *newline;
	size_t end;

	while (w->parsed < len && w->error == 0) {
		newline = memchr(buf + w->parsed, '\n', len - w->parsed);
		end = newline ? (size_t)(newline - buf) : len;
		w->error = magic_add_line(w, caller, buf + w->parsed, buf + end, VC_MIN(end + 1, len));
		if (w->error == 0)
			w->parsed = VC_MIN(end + 1, len);
	}
}

void fs_magic_write(fuse_req_t req, struct fs_handle *h, const char *buf, size_t len)
{
	struct fs_caller who;
	struct magic_write *w;
	struct fs_op *op;

	if (fuse_req_ctx(req)->uid != h->uid || fuse_req_ctx(req)->gid != h->gid) {
		fuse_reply_err(req, EPERM);
		return;
	}
	op = fs_op_new(req, magic_done);
	if (!op)
		return;
	w = calloc(1, sizeof(*w));
	if (!w) {
		fs_op_reply_err(op, -ENOMEM);
		return;
	}
	w->op = op;
	w->tail = &w->lines;
	atomic_init(&w->pending, 1);
	op->data = w;
	op->inode = h->inode;
	vc_inode_hold(h->inode);
	fs_caller_init(req, &who);
	magic_lines(w, &who.caller, buf, len);
	fs_caller_fini(&who);
	magic_pending_put(w);
	fs_op_started(op, 0);
}
