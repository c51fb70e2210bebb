/* SPDX-License-Identifier: BSD-2-Clause */
/* world_names: random operations on names, attributes and open files; clones. */
#include "config.h"
#include "unit.h"

#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "engine.h"
#include "world.h"

static uint64_t below(struct world *w, uint64_t n) { return vc_unit_below(&w->rng, n); }

struct place {
	unsigned dir;
	char name[MODEL_TEXT];
	struct model_name *is; /* NULL: free */
};

static struct place pick_place(struct world *w)
{
	struct place p = { .dir = (unsigned)below(w, MODEL_DIRS) };

	snprintf(p.name, sizeof(p.name), "f%02u", (unsigned)below(w, w->max_names));
	p.is = model_find(&w->model, p.dir, p.name);
	return p;
}

static bool has_room(const struct world *w, size_t n) { return w->model.n + n <= w->max_names; }

/* A name that may go or move: not the directory sub. */
static struct model_name *pick_name(struct world *w)
{
	struct model_name *e = w->model.n ? &w->model.names[below(w, w->model.n)] : NULL;

	return !e || (e->dir == 0 && strcmp(e->name, "sub") == 0) ? NULL : e;
}

/* ---- making ---- */

static void step_create(struct world *w)
{
	struct place p = pick_place(w);
	uint64_t kind = below(w, 12);
	uint32_t mode = kind == 0 ? S_IFDIR | 0750 : kind == 1 ? S_IFLNK | 0777 : S_IFREG | 0640;
	struct model_file *f;
	struct vc_inode *inode;
	int r;

	if (!has_room(w, 1))
		return;
	world_note("create %u/%s mode %o\n", p.dir, p.name, mode);
	world_before(w);
	r = engine_create(w->dirs[p.dir], p.name, mode, S_ISLNK(mode) ? p.name : NULL, &inode);
	if (p.is) {
		assert_int_equal(r, -EEXIST);
		return;
	}
	assert_int_equal(r, 0);
	vc_inode_put(inode);
	f = model_file_new(mode);
	if (S_ISLNK(mode))
		strcpy(f->target, p.name);
	model_add(&w->model, p.dir, p.name, f);
	world_after(w, true);
}

static struct model_file *clone_of(const struct model_file *src)
{
	struct model_file *f = model_file_new(S_IFREG | 0600);

	model_copy(&f->data, &src->data);
	return f;
}

static void step_clone(struct world *w)
{
	struct place p = pick_place(w);
	struct model_file *f;
	struct vc_inode *inode = has_room(w, 1) ? world_pick(w, &f) : NULL, *clone;
	int r;

	if (!inode)
		return;
	world_note("clone %s to %u/%s\n", world_name(w, f), p.dir, p.name);
	world_before(w);
	r = engine_clone(inode, w->dirs[p.dir], p.name, &clone);
	vc_inode_put(inode);
	if (p.is) {
		assert_int_equal(r, -EEXIST);
		return;
	}
	assert_int_equal(r, 0);
	vc_inode_put(clone);
	model_add(&w->model, p.dir, p.name, clone_of(f));
	world_after(w, true);
}

static void step_clone_many(struct world *w)
{
	unsigned dir = (unsigned)below(w, MODEL_DIRS);
	uint32_t count = 2 + (uint32_t)below(w, 3);
	struct model_file *f;
	struct vc_inode *inode = has_room(w, count) ? world_pick(w, &f) : NULL;
	bool taken = false;
	char name[MODEL_TEXT];
	int r;

	if (!inode)
		return;
	for (uint32_t i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "f0%u", i);
		taken = taken || model_find(&w->model, dir, name);
	}
	world_note("clone %s to %u/f0, %u times\n", world_name(w, f), dir, count);
	world_before(w);
	r = engine_clone_many(inode, w->dirs[dir], count, "f0");
	vc_inode_put(inode);
	assert_int_equal(r, taken ? -EEXIST : 0);
	if (taken)
		return;
	for (uint32_t i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "f0%u", i);
		model_add(&w->model, dir, name, clone_of(f));
	}
	world_after(w, true);
}

/* ---- names ---- */

static void step_unlink(struct world *w)
{
	struct model_name *e = pick_name(w);
	bool is_dir = e && S_ISDIR(e->file->mode);

	if (!e)
		return;
	world_note("remove %u/%s\n", e->dir, e->name);
	world_before(w);
	assert_int_equal(is_dir ? engine_rmdir(w->dirs[e->dir], e->name) : engine_unlink(w->dirs[e->dir], e->name), 0);
	model_remove(&w->model, e);
	world_after(w, true);
}

static void step_link(struct world *w)
{
	struct place p = pick_place(w);
	struct model_file *f;
	struct vc_inode *inode = has_room(w, 1) ? world_pick(w, &f) : NULL;
	int r;

	if (!inode)
		return;
	world_note("link %s to %u/%s\n", world_name(w, f), p.dir, p.name);
	world_before(w);
	r = engine_link(inode, w->dirs[p.dir], p.name);
	vc_inode_put(inode);
	assert_int_equal(r, f->nlink == 0 ? -ENOENT : p.is ? -EEXIST : 0);
	if (r < 0)
		return;
	model_add(&w->model, p.dir, p.name, model_file_get(f));
	world_after(w, true);
}

static void model_rename(struct world *w, const struct model_name *from, const struct place *to)
{
	struct model_file *f = model_file_get(from->file);
	struct place source = { .dir = from->dir };

	strcpy(source.name, from->name);
	if (to->is)
		model_remove(&w->model, to->is);
	model_remove(&w->model, model_find(&w->model, source.dir, source.name));
	model_add(&w->model, to->dir, to->name, f);
}

static int rename_expected(const struct model_name *e, const struct place *p, unsigned int flags)
{
	if (flags & RENAME_EXCHANGE)
		return p->is ? 0 : -ENOENT;
	if (!p->is)
		return 0;
	if (flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (p->is->file == e->file)
		return 0;
	if (S_ISDIR(e->file->mode) != S_ISDIR(p->is->file->mode))
		return S_ISDIR(e->file->mode) ? -ENOTDIR : -EISDIR;
	return 0;
}

static void step_rename(struct world *w)
{
	struct place p = pick_place(w);
	struct model_name *e = pick_name(w);
	unsigned int flags = below(w, 4) == 0 ? RENAME_EXCHANGE : below(w, 4) == 0 ? RENAME_NOREPLACE : 0;
	int want, r;

	if (!e)
		return;
	want = rename_expected(e, &p, flags);
	world_note("rename %u/%s to %u/%s flags %u, expect %d\n", e->dir, e->name, p.dir, p.name, flags, want);
	world_before(w);
	r = engine_rename(w->dirs[e->dir], e->name, w->dirs[p.dir], p.name, flags);
	assert_int_equal(r, want);
	if (want < 0 || (p.is && p.is->file == e->file))
		return;
	if (flags & RENAME_EXCHANGE) {
		struct model_file *f = e->file;

		e->file = p.is->file;
		p.is->file = f;
	} else {
		model_rename(w, e, &p);
	}
	world_after(w, true);
}

/* ---- attributes ---- */

static void step_attr(struct world *w)
{
	struct model_file *f;
	struct vc_inode *inode = world_pick(w, &f);
	struct vc_attr attr = { .mode = S_IFREG | (0400 + (uint32_t)below(w, 0200)), .uid = (uint32_t)below(w, 1000) };

	if (!inode)
		return;
	world_note("attr %s mode %o uid %u\n", world_name(w, f), attr.mode, attr.uid);
	world_before(w);
	assert_int_equal(vc_attr_set(inode, &attr, VC_SET_MODE | VC_SET_UID), 0);
	vc_inode_put(inode);
	f->mode = attr.mode;
	f->uid = attr.uid;
	model_touch(f);
	world_after(w, false);
}

static void step_xattr(struct world *w)
{
	struct model_file *f;
	struct vc_inode *inode = world_pick(w, &f);
	uint64_t i = below(w, MODEL_XATTRS);
	char name[16], value[MODEL_TEXT] = "";

	if (!inode)
		return;
	snprintf(name, sizeof(name), "user.%u", (unsigned)i);
	if (below(w, 3))
		snprintf(value, sizeof(value), "%llx", (unsigned long long)vc_unit_random(&w->rng));
	world_note("xattr %s %s=%s\n", world_name(w, f), name, value);
	world_before(w);
	if (value[0])
		assert_int_equal(vc_xattr_set(inode, name, value, strlen(value), 0), 0);
	else
		assert_int_equal(vc_xattr_remove(inode, name), f->xattrs[i][0] ? 0 : -ENODATA);
	vc_inode_put(inode);
	if (!value[0] && !f->xattrs[i][0])
		return;
	memcpy(f->xattrs[i], value, sizeof(value));
	model_touch(f);
	world_after(w, false);
}

/* ---- open files ---- */

static void hold(struct world *w, struct model_file *f, struct vc_inode *inode)
{
	f->held = inode;
	w->open[w->nopen++] = f;
}

static void step_open(struct world *w)
{
	struct model_file *f;
	struct vc_inode *inode = w->nopen < WORLD_OPEN_MAX ? world_pick(w, &f) : NULL;

	if (inode)
		world_note("open %s\n", world_name(w, f));
	if (inode && !f->held)
		hold(w, model_file_get(f), inode);
	else if (inode)
		vc_inode_put(inode);
}

static void step_pin(struct world *w)
{
	struct model_file *f;
	struct vc_inode *inode = w->nopen < WORLD_OPEN_MAX ? world_pick(w, &f) : NULL, *pin;

	if (!inode)
		return;
	world_note("pin %s\n", world_name(w, f));
	world_before(w);
	assert_int_equal(vc_volume_pin(inode, &pin), 0);
	vc_inode_put(inode);
	hold(w, clone_of(f), pin);
	world_after(w, true);
}

static void step_release(struct world *w)
{
	size_t at = w->nopen ? below(w, w->nopen) : 0;
	struct model_file *f;

	if (w->nopen == 0)
		return;
	f = w->open[at];
	world_note("release %s\n", world_name(w, f));
	w->open[at] = w->open[--w->nopen];
	vc_inode_put(f->held);
	f->held = NULL;
	model_file_put(f);
}

void world_names_step(struct world *w, uint64_t roll)
{
	if (roll < 20)
		step_create(w);
	else if (roll < 38)
		step_clone(w);
	else if (roll < 42)
		step_clone_many(w);
	else if (roll < 56)
		step_unlink(w);
	else if (roll < 62)
		step_link(w);
	else if (roll < 72)
		step_rename(w);
	else if (roll < 78)
		step_attr(w);
	else if (roll < 86)
		step_xattr(w);
	else if (roll < 91)
		step_open(w);
	else if (roll < 94)
		step_pin(w);
	else
		step_release(w);
}
