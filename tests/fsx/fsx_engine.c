/* SPDX-License-Identifier: BSD-2-Clause */
/* fsx_engine: the engine in this process. One thread without time-driven checkpoints gives the same run for the same seed. */
#include "config.h"
#include "../unit/unit.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "../unit/engine.h"
#include "format.h"
#include "fsx.h"

/* Small segments and short times: what happens to large pools in days happens here in seconds. */
static int engine_backend_create(struct fsx *x)
{
	static const uint32_t chunks[] = { 1, 4, 16 };
	struct vc_pool_geometry g = { .chunk_blocks = chunks[x->o.seed % 3], .chunk_segment_size = 1 << 20, .log_segment_size = 1 << 20,
				      .log_segments = 16 };

	return vc_pool_create(vc_io_posix(), x->pool, &g);
}

static int engine_backend_start(struct fsx *x)
{
	struct vc_inode *root;
	int r = engine_try_open(vc_io_posix(), x->pool, x->o.threads > 1 ? 50 : ENGINE_DESTAGE_NEVER, &x->engine);

	if (r < 0)
		return r;
	r = vc_inode_get(x->engine, VC_ROOT_INO, &root);
	x->root = root;
	return r;
}

static void engine_backend_stop(struct fsx *x, bool sudden)
{
	vc_inode_put(x->root);
	x->root = NULL;
	if (sudden)
		vc_pool_abandon(x->engine);
	else
		engine_close(x->engine);
	x->engine = NULL;
}

static int engine_backend_open(struct fsx *x, struct fsx_image *img, bool create)
{
	struct vc_inode *inode;
	int r = create ? engine_create(x->root, img->name, S_IFREG | 0644, NULL, &inode) : vc_names_lookup(x->root, img->name, &inode);

	if (r == 0)
		img->inode = inode;
	return r;
}

static void engine_backend_close(struct fsx *x VC_UNUSED, struct fsx_image *img)
{
	vc_inode_put(img->inode);
	img->inode = NULL;
}

static ssize_t engine_backend_read(struct fsx_image *img, enum fsx_how how VC_UNUSED, void *buf, size_t len, uint64_t offset)
{
	if (len & 1 && len <= VC_PIECES_BYTES_MAX)
		return engine_read_pieces(img->inode, buf, len, offset);
	return vc_volume_read(img->inode, buf, len, offset);
}

static ssize_t engine_backend_write(struct fsx_image *img, enum fsx_how how VC_UNUSED, const void *buf, size_t len, uint64_t offset,
				    bool durable)
{
	int r = engine_write(img->inode, buf, len, offset, durable ? VC_WRITE_DSYNC : 0);

	return r < 0 ? r : (ssize_t)len;
}

static ssize_t engine_backend_append(struct fsx *x VC_UNUSED, struct fsx_image *img, const void *buf, size_t len)
{
	int r = engine_write(img->inode, buf, len, 0, VC_WRITE_APPEND);

	return r < 0 ? r : (ssize_t)len;
}

static int engine_backend_resize(struct fsx_image *img, uint64_t size) { return engine_resize(img->inode, size); }

static int engine_backend_allocate(struct fsx_image *img, int mode, uint64_t offset, uint64_t len)
{
	return engine_allocate(img->inode, mode, offset, len);
}

static int engine_backend_seek(struct fsx_image *img, uint64_t offset, int whence, uint64_t *ret)
{
	return vc_volume_seek(img->inode, offset, whence, ret);
}

static int engine_backend_flush(struct fsx_image *img) { return engine_flush(img->inode); }

static int engine_backend_size(struct fsx_image *img, uint64_t *ret)
{
	struct vc_attr attr;

	vc_inode_attr(img->inode, &attr);
	*ret = attr.size;
	return 0;
}

static ssize_t engine_backend_copy(struct fsx_image *src, uint64_t from, struct fsx_image *dst, uint64_t to, uint64_t len)
{
	uint64_t copied = 0;
	int r = engine_copy_range(src->inode, from, dst->inode, to, len, false, &copied);

	return r < 0 ? r : (ssize_t)copied;
}

/* As cp does it: a new file, and one copy of everything. */
static int engine_copy_whole(struct fsx *x, struct fsx_image *src, const char *name)
{
	struct vc_inode *inode;
	uint64_t copied = 0;
	int r = engine_create(x->root, name, S_IFREG | 0644, NULL, &inode);

	if (r < 0)
		return r;
	if (src->size)
		r = engine_copy_range(src->inode, 0, inode, 0, src->size, false, &copied);
	vc_inode_put(inode);
	return r == 0 && copied != src->size ? -ERANGE : r;
}

static int engine_name_one(void *ctx, uint32_t i VC_UNUSED, char *buf)
{
	snprintf(buf, VC_NAME_MAX + 1, "%s", (const char *)ctx);
	return 0;
}

static int engine_clone_batch(struct fsx *x, struct fsx_image *src, const char *name)
{
	struct vc_wait w;

	vc_wait_init(&w);
	return vc_wait_result(&w, vc_volume_clone_many(src->inode, x->root, 1, engine_name_one, (void *)(uintptr_t)name, 0600,
						       (struct vc_owner){ .uid = 7, .gid = 8 }, &w.done));
}

static int engine_backend_clone(struct fsx *x, struct fsx_image *src, const char *name, unsigned way)
{
	switch (way) {
	case 0: return engine_clone(src->inode, x->root, name, NULL);
	case 1: return engine_copy_whole(x, src, name);
	default: return engine_clone_batch(x, src, name);
	}
}

static int engine_backend_remove(struct fsx *x, const char *name) { return engine_unlink(x->root, name); }

static int engine_backend_rename(struct fsx *x, const char *from, const char *to)
{
	return engine_rename(x->root, from, x->root, to, 0);
}

static int engine_backend_drop(struct fsx_image *img VC_UNUSED) { return 0; }

static int engine_backend_background(struct fsx *x, unsigned what)
{
	uint64_t id;
	int r;

	if (what < 4)
		return engine_task(x->engine, VC_TASK_DESTAGE);
	if (what < 6)
		return engine_task(x->engine, VC_TASK_CLEAN);
	if (x->o.threads == 1) /* what goes on beside makes no run like another */
		return engine_task(x->engine, VC_TASK_DESTAGE);
	r = vc_pool_task_start(x->engine, what < 12 ? VC_TASK_DESTAGE : VC_TASK_CLEAN, &id);
	return r == -EBUSY ? 0 : r;
}

const struct fsx_backend fsx_engine = {
	.name = "engine", .create = engine_backend_create, .start = engine_backend_start, .stop = engine_backend_stop,
	.open = engine_backend_open, .close = engine_backend_close, .read = engine_backend_read, .write = engine_backend_write,
	.append = engine_backend_append, .resize = engine_backend_resize, .allocate = engine_backend_allocate,
	.seek = engine_backend_seek, .flush = engine_backend_flush, .size = engine_backend_size, .copy = engine_backend_copy,
	.clone = engine_backend_clone, .nways = 3, .nfast = 3, .remove = engine_backend_remove, .rename = engine_backend_rename,
	.drop = engine_backend_drop, .background = engine_backend_background,
};
