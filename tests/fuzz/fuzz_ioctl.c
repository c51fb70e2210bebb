/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz what users send to the front end outside of what the kernel checks: ioctls, and lines written to the magic file. The
 * handlers run over a pool; libfuse's replies are replaced by functions that look at them.
 *
 * Every request is answered once, in the sizes the kernel expects. One that is refused has changed nothing; a clone that was
 * made is one that its caller may make, and equal to its source.
 */
#include "config.h"
#include "../unit/unit.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "../unit/engine.h"
#include "fs_impl.h"
#include "fuzz_pool.h"
#include "vclonefs.h"

#define CALLS_MAX 6
#define NAMES_MAX 64
#define OTHER_UID 65534

/* ---- requests ---- */

struct fuse_req {
	struct vc_fs *fs;
	struct fuse_ctx ctx;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned int replies; /* lock */
	int error;
	size_t len;           /* bytes of the answer, or bytes written */
	uint64_t fh;          /* of an open */
};

static int req_reply(fuse_req_t req, int error, size_t len)
{
	pthread_mutex_lock(&req->lock);
	fuzz_check(req->replies == 0 && error >= 0 && error < 4096);
	req->replies++;
	req->error = error;
	req->len = len;
	pthread_cond_signal(&req->cond);
	pthread_mutex_unlock(&req->lock);
	return 0;
}

static void req_wait(fuse_req_t req)
{
	pthread_mutex_lock(&req->lock);
	while (req->replies == 0)
		pthread_cond_wait(&req->cond, &req->lock);
	pthread_mutex_unlock(&req->lock);
}

/* In place of libfuse's. */
int fuse_reply_err(fuse_req_t req, int err) { return req_reply(req, err, 0); }
int fuse_reply_write(fuse_req_t req, size_t count) { return req_reply(req, 0, count); }
int fuse_reply_ioctl(fuse_req_t req, int result, const void *buf, size_t size)
{
	fuzz_check(result == 0 && (size == 0 || buf));
	return req_reply(req, 0, size);
}
int fuse_reply_buf(fuse_req_t req, const char *buf, size_t size)
{
	struct fuse_open_out out;

	fuzz_check(size == sizeof(out));
	memcpy(&out, buf, sizeof(out));
	req->fh = out.fh;
	return req_reply(req, 0, size);
}
int fuse_reply_open(fuse_req_t req, const struct fuse_file_info *fi)
{
	req->fh = fi->fh;
	return req_reply(req, 0, 0);
}
const struct fuse_ctx *fuse_req_ctx(fuse_req_t req) { return &req->ctx; }
void *fuse_req_userdata(fuse_req_t req) { return req->fs; }
int fuse_req_getgroups(fuse_req_t req VC_UNUSED, int size VC_UNUSED, gid_t list[] VC_UNUSED) { return 0; }
int fuse_lowlevel_notify_inval_inode(struct fuse_session *se VC_UNUSED, fuse_ino_t ino VC_UNUSED, off_t off VC_UNUSED, off_t len VC_UNUSED)
{
	return 0;
}
int fuse_lowlevel_notify_store(struct fuse_session *se VC_UNUSED, fuse_ino_t ino VC_UNUSED, off_t off, struct fuse_bufvec *bufv,
			       enum fuse_buf_copy_flags flags VC_UNUSED)
{
	fuzz_check(off >= 0 && bufv->count == 1 && bufv->buf[0].size == 1);
	return 0;
}

/* ---- a front end without a kernel ---- */

struct front {
	struct vc_sim *sim;
	struct vc_fs fs;
	struct fuzz_in *in;
	char names[NAMES_MAX][VC_NAME_MAX + 1]; /* of the root */
	size_t nnames;
	uint64_t listing;   /* hash of what front_list saw */
	struct fuse_req req;
};

static void front_open(struct front *f, struct fuzz_in *in)
{
	struct vc_fs *fs = &f->fs;

	memset(f, 0, sizeof(*f));
	f->in = in;
	f->sim = fuzz_base_copy(FUZZ_BASE_DESTAGED);
	fs->pool = engine_open(vc_sim_io(f->sim), FUZZ_POOL, ENGINE_DESTAGE_NEVER);
	vc_mutex_init(&fs->op_lock, VC_LOCK_DONE);
	vc_cond_init(&fs->op_idle);
	vc_mutex_init(&fs->table_lock, VC_LOCK_DONE);
	vc_list_init(&fs->remembered);
	vc_list_init(&fs->handles);
	vc_list_init(&fs->pins);
	fuzz_check(fs_table_init(fs) == 0);
	fuzz_check(fs_queue_start(&fs->finish, fs, "finish", NULL) == 0);
	fuzz_check(fs_queue_start(&fs->notify, fs, "notify", NULL) == 0);
}

static void front_close(struct front *f)
{
	struct vc_fs *fs = &f->fs;

	fs_queue_stop(&fs->finish);
	fs_queue_stop(&fs->notify);
	fuzz_check(fs->nops == 0);
	fs_table_fini(fs);
	vc_mutex_fini(&fs->table_lock);
	vc_cond_fini(&fs->op_idle);
	vc_mutex_fini(&fs->op_lock);
	engine_close(fs->pool);
	vc_sim_free(f->sim);
}

static int list_entry(void *ctx, const struct vc_dirent *entry)
{
	struct front *f = ctx;

	if (f->nnames < NAMES_MAX)
		snprintf(f->names[f->nnames++], sizeof(f->names[0]), "%s", entry->name);
	f->listing = f->listing * 31 + entry->ino;
	for (const char *p = entry->name; *p; p++)
		f->listing = f->listing * 31 + (unsigned char)*p;
	return 0;
}

/* Names of the root and its sizes, and those of sub. */
static void front_list(struct front *f)
{
	struct vc_inode *root = engine_root(f->fs.pool), *sub = engine_lookup(root, "sub"), *inode;
	struct vc_attr attr;

	f->nnames = 0;
	f->listing = 1;
	if (sub)
		fuzz_check(vc_names_readdir(sub, 0, list_entry, f) == 0);
	f->nnames = 0;
	fuzz_check(vc_names_readdir(root, 0, list_entry, f) == 0);
	for (size_t i = 0; i < f->nnames; i++) {
		inode = engine_lookup(root, f->names[i]);
		fuzz_check(inode);
		vc_inode_attr(inode, &attr);
		f->listing = f->listing * 31 + attr.size + attr.mtime_ns;
		vc_inode_put(inode);
	}
	if (sub)
		vc_inode_put(sub);
	vc_inode_put(root);
}

static struct fuse_req *front_request(struct front *f, uid_t uid)
{
	f->req = (struct fuse_req){ .fs = &f->fs, .ctx = { .uid = uid, .gid = uid, .pid = 1 },
				    .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
	return &f->req;
}

static uid_t front_user(struct front *f)
{
	static const uid_t uids[] = { 0, 7, OTHER_UID };

	return uids[fuzz_below(f->in, VC_ARRAY_LEN(uids))];
}

/* As the kernel opens it, which has looked at permissions. */
static struct fs_handle *front_open_file(struct front *f, uint64_t ino, bool dir, int flags, uid_t uid)
{
	struct fuse_req *req = front_request(f, uid);
	struct fuse_file_info fi = { .flags = flags };

	if (dir)
		fs_opendir(req, ino, &fi);
	else
		fs_open(req, ino, &fi);
	req_wait(req);
	fuzz_check(req->error == 0 && req->fh);
	return (struct fs_handle *)(uintptr_t)req->fh;
}

/* A path as a user might send it, into buf of VCLONEFS_PATH_MAX. */
static void front_path(struct front *f, char *buf, bool exists)
{
	static const char *const forms[] = { "%s", "/%s", "sub/%s", "sub/../%s", "./%s", "//%s", "%s/", "../%s" };
	uint8_t form = fuzz_u8(f->in);
	const char *name = f->nnames ? f->names[fuzz_below(f->in, f->nnames)] : "x";
	char made[24];
	size_t len;
	const uint8_t *some;

	if (form >= 240) {
		some = fuzz_some(f->in, fuzz_u8(f->in), &len);
		for (size_t i = 0; i < len; i++)
			buf[i] = (char)some[i];
		buf[len] = '\0';
		return;
	}
	snprintf(made, sizeof(made), form & 64 ? "n%u-%%d" : "n%u", fuzz_u8(f->in));
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(buf, VCLONEFS_PATH_MAX, forms[form % VC_ARRAY_LEN(forms)], exists || form >= 224 ? name : made);
#pragma GCC diagnostic pop
}

/* A descriptor of a directory, an image or a magic file that this user can have. */
static struct fs_handle *front_handle(struct front *f, uid_t uid, uint64_t *ret_ino)
{
	static const int modes[] = { O_RDONLY, O_RDWR, O_WRONLY, O_RDWR | O_APPEND }, needs[] = { 4, 6, 2, 6 };
	struct vc_inode *root = engine_root(f->fs.pool), *inode = NULL;
	struct vc_caller caller = { .uid = uid, .gid = uid };
	uint8_t what = fuzz_u8(f->in), mode = what / 16 % VC_ARRAY_LEN(modes);
	struct vc_attr attr = { .mode = S_IFDIR };

	*ret_ino = VC_ROOT_INO;
	if (what % 4 && f->nnames)
		inode = engine_lookup(root, f->names[fuzz_below(f->in, f->nnames)]);
	if (inode) {
		vc_inode_attr(inode, &attr);
		if (S_ISREG(attr.mode) && vc_names_may(inode, &caller, needs[mode]) == 0)
			*ret_ino = attr.ino;
		vc_inode_put(inode);
	}
	vc_inode_put(root);
	if (what % 16 == 4) {
		*ret_ino |= FS_MAGIC_BIT;
		return front_open_file(f, *ret_ino, false, O_WRONLY, uid);
	}
	return front_open_file(f, *ret_ino, *ret_ino == VC_ROOT_INO, modes[mode], uid);
}

/* ---- ioctls ---- */

static size_t ioctl_build(struct front *f, unsigned int cmd, uint8_t *bytes)
{
	struct vclonefs_clone *c = (void *)bytes;
	struct vclonefs_clone_many *m = (void *)bytes;
	struct vclonefs_clone_range *r = (void *)bytes;
	struct vclonefs_task_status *t = (void *)bytes;
	uint32_t size = _IOC_SIZE(cmd);
	bool own = fuzz_below(f->in, 4) == 0;

	memset(bytes, 0, size);
	memcpy(bytes, &size, sizeof(size));
	if (cmd == VCLONEFS_IOC_CLONE) {
		if (!own)
			front_path(f, c->src, true);
		front_path(f, c->dst, false);
	} else if (cmd == VCLONEFS_IOC_CLONE_MANY) {
		if (!own)
			front_path(f, m->src, true);
		front_path(f, m->dst, false);
		m->count = fuzz_u8(f->in);
		m->first = fuzz_u8(f->in);
	} else if (cmd == VCLONEFS_IOC_CLONE_RANGE) {
		r->src_ino = fuzz_below(f->in, 256);
		r->src_offset = fuzz_below(f->in, 100) * 4096;
		r->src_len = fuzz_below(f->in, 256) * 2048;
		r->dst_offset = fuzz_below(f->in, 256) * 4096;
	} else if (cmd == VCLONEFS_IOC_TASK_START || cmd == VCLONEFS_IOC_TASK_STATUS) {
		t->task = fuzz_u8(f->in) % 3;
	}
	for (uint8_t n = fuzz_u8(f->in) % 8; n > 4; n--)
		bytes[fuzz_below(f->in, size)] ^= fuzz_u8(f->in);
	return size;
}

static bool same_content(struct vc_inode *a, struct vc_inode *b)
{
	struct model_data x = { .size = 0 }, y = { .size = 0 };
	bool same;

	fuzz_check(model_load_data(a, &x) == 0 && model_load_data(b, &y) == 0);
	same = x.size == y.size && model_difference(&x, &y) == UINT64_MAX;
	model_free(&x);
	model_free(&y);
	return same;
}

/* The clone that was made of `src`: there, equal, and the caller's right. */
static void cloned(struct front *f, struct vc_inode *base, const char *src, struct vc_inode *own, const char *dst, uid_t uid)
{
	struct vc_caller root = { 0 }, caller = { .uid = uid, .gid = uid };
	struct vc_inode *from = own, *to, *dir;
	char name[VC_NAME_MAX + 1];

	if (*src)
		fuzz_check(vc_names_walk(base, src, &root, &from, NULL) == 0);
	fuzz_check(vc_names_walk(base, dst, &root, &dir, name) == 0);
	to = engine_lookup(dir, name);
	fuzz_check(to && same_content(from, to));
	if (*src)
		fuzz_check(vc_names_may(from, &caller, 4) == 0);
	fuzz_check(vc_names_may(dir, &caller, 3) == 0);
	vc_inode_put(to);
	vc_inode_put(dir);
	if (*src)
		vc_inode_put(from);
	fuzz_check(f->nnames > 0);
}

static void ioctl_cloned(struct front *f, struct fs_handle *h, const struct vclonefs_clone *c)
{
	struct vc_inode *base = h->inode;
	struct vc_attr attr;

	vc_inode_attr(h->inode, &attr);
	if (!S_ISDIR(attr.mode))
		base = engine_root(f->fs.pool);
	cloned(f, base, c->src, h->inode, c->dst, f->req.ctx.uid);
	if (base != h->inode)
		vc_inode_put(base);
}

static void ioctl_once(struct front *f)
{
	static const unsigned int cmds[] = { VCLONEFS_IOC_CLONE, VCLONEFS_IOC_CLONE_MANY, VCLONEFS_IOC_CLONE_RANGE, VCLONEFS_IOC_INFO,
					     VCLONEFS_IOC_DF, VCLONEFS_IOC_TASK_START, VCLONEFS_IOC_TASK_STATUS };
	static uint8_t bytes[16384];
	struct fuse_file_info fi = { 0 };
	struct fuse_req *req;
	struct fs_handle *h;
	uint64_t ino, before;
	uid_t uid = front_user(f);
	unsigned int cmd = cmds[fuzz_below(f->in, VC_ARRAY_LEN(cmds))];
	size_t in_len, out_len = _IOC_DIR(cmd) & _IOC_READ ? _IOC_SIZE(cmd) : 0;
	uint8_t odd;

	front_list(f);
	before = f->listing;
	h = front_handle(f, uid, &ino);
	req = front_request(f, uid);
	fi.fh = (uintptr_t)h;
	in_len = ioctl_build(f, cmd, bytes);
	odd = fuzz_u8(f->in);
	if (odd > 250) /* the kernel never sends this, others may */
		in_len = fuzz_below(f->in, sizeof(bytes)), out_len = fuzz_u8(f->in);
	else if (odd > 245)
		cmd ^= 1u << fuzz_below(f->in, 32);
	fs_ioctl(req, ino, cmd, NULL, &fi, 0, bytes, in_len, out_len);
	req_wait(req);
	front_list(f);
	fuzz_check(req->len == 0 || req->len == out_len);
	if (req->error)
		fuzz_check(f->listing == before);
	else if (cmd == VCLONEFS_IOC_CLONE)
		ioctl_cloned(f, h, (void *)bytes);
	fs_handle_free(&f->fs, h);
}

void fuzz_ioctl(const uint8_t *data, size_t len)
{
	static struct front f;
	struct fuzz_in in = { data, len };

	front_open(&f, &in);
	for (int i = 0; i < CALLS_MAX && in.left; i++)
		ioctl_once(&f);
	front_close(&f);
}

/* ---- the magic file ---- */

static char *magic_quote(struct front *f, char *at, const char *word)
{
	static const char *const quotes[] = { "", "'", "\"" };
	const char *q = quotes[fuzz_below(f->in, 3)];

	return at + sprintf(at, "%s%s%s", q, word, q);
}

/* Lines with words, some broken; returns the length. */
static size_t magic_build(struct front *f, char *text, size_t max)
{
	char *at = text, src[VCLONEFS_PATH_MAX], dst[VCLONEFS_PATH_MAX];
	uint8_t lines = 1 + fuzz_u8(f->in) % 4;

	for (; lines && (size_t)(at - text) + 2 * VCLONEFS_PATH_MAX + 16 < max; lines--) {
		front_path(f, src, true);
		front_path(f, dst, false);
		at = magic_quote(f, at, src);
		*at++ = ' ';
		at = magic_quote(f, at, dst);
		*at++ = '\n';
	}
	for (uint8_t n = fuzz_u8(f->in) % 8; n > 4; n--)
		text[fuzz_below(f->in, (uint64_t)(at - text))] = (char)fuzz_u8(f->in);
	return (size_t)(at - text) - (fuzz_u8(f->in) % 4 == 0);
}

static void magic_once(struct front *f)
{
	static char text[4 * VCLONEFS_PATH_MAX];
	struct fuse_req *req;
	struct fs_handle *h;
	uint64_t before;
	size_t len, lines = 1, names;
	uid_t uid = front_user(f);

	front_list(f);
	before = f->listing;
	names = f->nnames;
	h = front_open_file(f, VC_ROOT_INO | FS_MAGIC_BIT, false, O_WRONLY, uid);
	req = front_request(f, fuzz_below(f->in, 8) ? uid : 0);
	len = magic_build(f, text, sizeof(text));
	for (size_t i = 0; i < len; i++)
		lines += text[i] == '\n';
	fs_magic_write(req, h, text, len);
	req_wait(req);
	front_list(f);
	fuzz_check(req->len <= len);
	fuzz_check(uid == req->ctx.uid || req->error == EPERM);
	if (req->error)
		fuzz_check(f->listing == before);
	else /* a prefix of whole lines */
		fuzz_check(req->len == len || text[req->len - 1] == '\n');
	fuzz_check(f->nnames <= names + lines);
	fs_handle_free(&f->fs, h);
}

void fuzz_magic(const uint8_t *data, size_t len)
{
	static struct front f;
	struct fuzz_in in = { data, len };

	front_open(&f, &in);
	for (int i = 0; i < CALLS_MAX && in.left; i++)
		magic_once(&f);
	front_close(&f);
}
