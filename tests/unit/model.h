/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * model: what a pool ought to hold, in plain memory: files by name, and the bytes of each.
 *
 * Contents are pages of 64 KiB, shared between files until written, so that copies of copies cost nothing and a file of
 * 64 TiB may have bytes anywhere. Running out of memory aborts. One thread.
 */
#ifndef VC_MODEL_H
#define VC_MODEL_H

#include "volume.h"

#define MODEL_PAGE 65536u
#define MODEL_NAMES 40
#define MODEL_DIRS 2     /* the root, and a directory "sub" in it */
#define MODEL_XATTRS 3   /* user.0, user.1 ... */
#define MODEL_TEXT 40

struct model_page {
	unsigned refs;
	uint8_t bytes[MODEL_PAGE];
};

struct model_part {
	uint64_t index;
	struct model_page *page;
};

/** Contents: pages sorted by index; what is missing is zero. Nothing lies beyond size. */
struct model_data {
	struct model_part *parts;
	size_t n, cap;
	uint64_t size;
};

void model_read(const struct model_data *d, void *buf, size_t len, uint64_t offset);
/** Grows the file. */
void model_write(struct model_data *d, const void *buf, size_t len, uint64_t offset);
void model_zero(struct model_data *d, uint64_t offset, uint64_t len);
void model_resize(struct model_data *d, uint64_t size);
/** dst becomes equal to src. */
void model_copy(struct model_data *dst, const struct model_data *src);
void model_free(struct model_data *d);
/** Of size and contents. */
uint64_t model_hash(const struct model_data *d);
/** First offset at which they differ, UINT64_MAX if none. */
uint64_t model_difference(const struct model_data *a, const struct model_data *b);

struct model_file {
	struct model_data data;
	uint32_t mode, nlink, uid, gid;
	uint64_t ino;
	unsigned refs;                /* names, and holders */
	struct vc_inode *held;        /* the test's own reference on the inode, if any */
	char target[MODEL_TEXT];      /* symbolic links */
	char xattrs[MODEL_XATTRS][MODEL_TEXT];
	bool hashed;
	uint64_t hash;
};

struct model_name {
	unsigned dir;                 /* 0: the root, 1: sub */
	char name[MODEL_TEXT];
	struct model_file *file;      /* counted */
};

struct model {
	struct model_name names[MODEL_NAMES];
	size_t n;
};

struct model_file *model_file_new(uint32_t mode);
struct model_file *model_file_get(struct model_file *f);
/** A held inode must have been put before the last reference goes. */
void model_file_put(struct model_file *f);
/** The file changed. */
static inline void model_touch(struct model_file *f) { f->hashed = false; }

/** NULL: no such name. */
struct model_name *model_find(struct model *m, unsigned dir, const char *name);
/** Takes over the reference; nlink is counted. */
void model_add(struct model *m, unsigned dir, const char *name, struct model_file *f);
void model_remove(struct model *m, struct model_name *name);
void model_clear(struct model *m);
/** A copy, which shares pages. ret is empty before. */
void model_snapshot(const struct model *m, struct model *ret);
/** Of all names and all that the files are; equal models have equal hashes. */
uint64_t model_state(struct model *m);
/** Print how two models differ to standard error; true when they do not. */
bool model_same(struct model *expected, struct model *found);

/** Read everything from a pool through its public calls. 0, or -errno of the read that failed. */
int model_load(struct vc_pool *pool, struct model *ret);
/** Read one image: whole, or only where it says it has data. */
int model_load_data(struct vc_inode *inode, struct model_data *ret);

#endif
