/* SPDX-License-Identifier: BSD-2-Clause */
/* crash_ops: operations for crash tests, on the pool and on the model. */
#include "config.h"
#include "unit.h"

#include <linux/falloc.h>
#include <sys/stat.h>
#include "crash_ops.h"
#include "engine.h"

static struct model_file *file_of(struct crash_run *run, const char *name)
{
	struct model_name *e = model_find(&run->w.model, 0, name);

	assert_non_null(e);
	return e->file;
}

struct vc_inode *crash_inode(struct crash_run *run, const char *name)
{
	struct vc_inode *inode = engine_lookup(run->w.dirs[0], name);

	assert_non_null(inode);
	return inode;
}

void crash_do_create(struct crash_run *run, const char *name)
{
	struct vc_inode *inode;

	crash_run_begin(run);
	assert_int_equal(engine_create(run->w.dirs[0], name, S_IFREG | 0640, NULL, &inode), 0);
	vc_inode_put(inode);
	model_add(&run->w.model, 0, name, model_file_new(S_IFREG | 0640));
	crash_run_end(run, true);
}

/* Bytes that do not compress. */
void crash_do_write(struct crash_run *run, const char *name, uint64_t offset, size_t len, unsigned int flags)
{
	struct vc_inode *inode = crash_inode(run, name);
	struct model_file *f = file_of(run, name);

	for (size_t i = 0; i < len; i += 8) {
		uint64_t x = vc_unit_random(&run->w.rng);

		memcpy(run->w.buf + i, &x, VC_MIN(len - i, sizeof(x)));
	}
	crash_run_begin(run);
	assert_int_equal(engine_write(inode, run->w.buf, len, offset, flags), 0);
	model_write(&f->data, run->w.buf, len, offset);
	model_touch(f);
	crash_run_end(run, flags & VC_WRITE_DSYNC);
	vc_inode_put(inode);
}

void crash_do_flush(struct crash_run *run)
{
	crash_run_begin(run);
	assert_int_equal(engine_flush(run->w.dirs[0]), 0);
	crash_run_end(run, true);
}

void crash_do_clone(struct crash_run *run, const char *name, const char *clone)
{
	struct vc_inode *inode = crash_inode(run, name);
	struct model_file *f = model_file_new(S_IFREG | 0600);

	crash_run_begin(run);
	assert_int_equal(engine_clone(inode, run->w.dirs[0], clone, NULL), 0);
	model_copy(&f->data, &file_of(run, name)->data);
	model_add(&run->w.model, 0, clone, f);
	crash_run_end(run, true);
	vc_inode_put(inode);
}

void crash_do_copy(struct crash_run *run, const char *name, uint64_t from, const char *other, uint64_t to, uint64_t len)
{
	struct vc_inode *src = crash_inode(run, name), *dst = crash_inode(run, other);
	struct model_file *f = file_of(run, other);
	uint64_t copied;

	assert(len <= WORLD_WRITE_MAX);
	crash_run_begin(run);
	assert_int_equal(engine_copy_range(src, from, dst, to, len, true, &copied), 0);
	model_read(&file_of(run, name)->data, run->w.buf, len, from);
	model_write(&f->data, run->w.buf, len, to);
	model_touch(f);
	crash_run_end(run, true);
	vc_inode_put(src);
	vc_inode_put(dst);
}

void crash_do_unlink(struct crash_run *run, const char *name)
{
	crash_run_begin(run);
	assert_int_equal(engine_unlink(run->w.dirs[0], name), 0);
	model_remove(&run->w.model, model_find(&run->w.model, 0, name));
	crash_run_end(run, true);
}

void crash_do_rename(struct crash_run *run, const char *name, const char *over)
{
	struct model_file *f = model_file_get(file_of(run, name));

	crash_run_begin(run);
	assert_int_equal(engine_rename(run->w.dirs[0], name, run->w.dirs[0], over, 0), 0);
	if (model_find(&run->w.model, 0, over))
		model_remove(&run->w.model, model_find(&run->w.model, 0, over));
	model_remove(&run->w.model, model_find(&run->w.model, 0, name));
	model_add(&run->w.model, 0, over, f);
	crash_run_end(run, true);
}

void crash_do_task(struct crash_run *run, enum vc_task_kind kind)
{
	crash_run_begin(run);
	assert_int_equal(engine_task(run->w.pool, kind), 0);
	crash_run_end(run, kind == VC_TASK_DESTAGE);
}

void crash_do_punch(struct crash_run *run, const char *name, uint64_t offset, uint64_t len)
{
	struct vc_inode *inode = crash_inode(run, name);
	struct model_file *f = file_of(run, name);

	crash_run_begin(run);
	assert_int_equal(engine_allocate(inode, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len), 0);
	model_zero(&f->data, offset, len);
	model_touch(f);
	crash_run_end(run, true);
	vc_inode_put(inode);
}

void crash_do_resize(struct crash_run *run, const char *name, uint64_t size)
{
	struct vc_inode *inode = crash_inode(run, name);
	struct model_file *f = file_of(run, name);

	crash_run_begin(run);
	assert_int_equal(engine_resize(inode, size), 0);
	model_resize(&f->data, size);
	model_touch(f);
	crash_run_end(run, true);
	vc_inode_put(inode);
}

void crash_do_start(struct crash_run *run, enum vc_task_kind kind)
{
	uint64_t id;

	assert_int_equal(vc_pool_task_start(run->w.pool, kind, &id), 0);
}
