/* SPDX-License-Identifier: BSD-2-Clause */
/* model_load: reads a whole pool into a model. */
#include "config.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "engine.h"
#include "model.h"

/* Larger images are only read where they have data. */
#define LOAD_WHOLE (UINT64_C(32) << 20)
#define LOAD_STEP (1u << 20)

static int load_range(struct vc_inode *inode, uint64_t from, uint64_t to, struct model_data *ret)
{
	uint8_t *buf = malloc(LOAD_STEP);
	int r = 0;

	assert(buf);
	while (from < to && r == 0) {
		size_t step = (size_t)VC_MIN(to - from, (uint64_t)LOAD_STEP);
		ssize_t n = vc_volume_read(inode, buf, step, from);

		r = n < 0 ? (int)n : (size_t)n != step ? -ERANGE : 0;
		for (size_t at = 0; r == 0 && at < step;) { /* keeps zeros out of the model */
			size_t piece = VC_MIN(step - at, MODEL_PAGE - (from + at) % MODEL_PAGE);

			if (!vc_is_zero(buf + at, piece))
				model_write(ret, buf + at, piece, from + at);
			at += piece;
		}
		from += step;
	}
	free(buf);
	return r;
}

int model_load_data(struct vc_inode *inode, struct model_data *ret)
{
	struct vc_attr attr;
	uint64_t from = 0, to;
	int r = 0;

	vc_inode_attr(inode, &attr);
	model_resize(ret, attr.size);
	if (attr.size <= LOAD_WHOLE)
		return load_range(inode, 0, attr.size, ret);
	while (r == 0) {
		r = vc_volume_seek(inode, from, SEEK_DATA, &from);
		if (r == -ENXIO)
			return 0;
		if (r == 0)
			r = vc_volume_seek(inode, from, SEEK_HOLE, &to);
		if (r == 0)
			r = load_range(inode, from, to, ret);
		from = to;
	}
	return r;
}

static int load_texts(struct vc_inode *inode, struct model_file *f)
{
	for (int i = 0; i < MODEL_XATTRS; i++) {
		char name[24];
		ssize_t n;

		snprintf(name, sizeof(name), "user.%d", i);
		n = vc_xattr_get(inode, name, f->xattrs[i], MODEL_TEXT);
		if (n < 0 && n != -ENODATA)
			return (int)n;
	}
	return S_ISLNK(f->mode) ? vc_names_readlink(inode, f->target, MODEL_TEXT) : 0;
}

struct load_entry {
	char name[MODEL_TEXT];
	uint64_t ino;
	uint32_t type;
};

struct load {
	struct load_entry v[MODEL_NAMES * 2];
	size_t n;
};

static int load_entry(void *ctx, const struct vc_dirent *entry)
{
	struct load *l = ctx;

	if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
		return 0;
	assert(l->n < VC_ARRAY_LEN(l->v));
	snprintf(l->v[l->n].name, MODEL_TEXT, "%s", entry->name);
	l->v[l->n].ino = entry->ino;
	l->v[l->n++].type = entry->type;
	return 0;
}

/* Another name of a file that is loaded already. */
static struct model_file *load_known(struct model *m, uint64_t ino)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->names[i].file->ino == ino)
			return model_file_get(m->names[i].file);
	return NULL;
}

/* The link count is the pool's own, not that of the names found. */
static int load_file(struct vc_inode *dir, unsigned dirno, const struct load_entry *e, struct model *ret)
{
	struct model_file *f = load_known(ret, e->ino);
	struct vc_inode *inode;
	struct vc_attr attr;
	int r = vc_names_lookup(dir, e->name, &inode);

	if (r < 0)
		return r;
	vc_inode_attr(inode, &attr);
	assert_int_equal(attr.ino, e->ino);
	assert_int_equal(attr.mode & S_IFMT, e->type);
	if (!f) {
		f = model_file_new(attr.mode);
		f->ino = e->ino;
		f->uid = attr.uid;
		f->gid = attr.gid;
		r = load_texts(inode, f);
		if (r >= 0 && S_ISREG(attr.mode))
			r = model_load_data(inode, &f->data);
	}
	vc_inode_put(inode);
	model_add(ret, dirno, e->name, f);
	f->nlink = S_ISDIR(attr.mode) ? 1 : attr.nlink;
	return r < 0 ? r : 0;
}

static int load_dir(struct vc_inode *dir, unsigned dirno, struct model *ret)
{
	struct load l = { .n = 0 };
	int r = vc_names_readdir(dir, 0, load_entry, &l);

	for (size_t i = 0; i < l.n && r == 0; i++)
		r = load_file(dir, dirno, &l.v[i], ret);
	return r;
}

int model_load(struct vc_pool *pool, struct model *ret)
{
	struct vc_inode *root = engine_root(pool), *sub = engine_lookup(root, "sub");
	int r = load_dir(root, 0, ret);

	if (r == 0 && sub)
		r = load_dir(sub, 1, ret);
	if (sub)
		vc_inode_put(sub);
	vc_inode_put(root);
	return r;
}
