/* SPDX-License-Identifier: BSD-2-Clause */
/* vol_clone: clones by name, many at once, and of ranges (copy_file_range). */
#include "config.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "names_impl.h"

/* Bytes that one call copies where sharing is not possible. */
#define COPY_BYTES_MAX (16u << 20)
#define COPY_STEP (1u << 20)
/* Bytes shared by one call where the leaves of source and destination do not match, so that each is made anew. */
#define COPY_SKEWED_MAX (UINT64_C(8) << 30)

/* ---- clones with a name ---- */

struct clone_op {
	struct names_op op;
	struct vc_inode *src, *dir;
	uint32_t count, mode;
	struct vc_owner owner;
	uint64_t first_ino;
	char (*names)[VC_NAME_MAX + 1];
};

static int clone_check_caller(const struct clone_op *op)
{
	const struct vc_caller *caller = op->owner.caller;
	int r = 0;

	if (caller && !op->owner.source_is_open)
		r = names_may_locked(op->src, caller, 4);
	return r == 0 && caller ? names_may_locked(op->dir, caller, 2 | 1) : r;
}

static int clone_check(struct clone_op *op)
{
	int r = names_check_dir(op->dir);

	if (r == 0)
		r = clone_check_caller(op);

	if (r == 0)
		r = vc_dir_load(op->dir->cat, op->dir);
	if (r == 0 && atomic_load(&op->src->gone))
		r = -ENOENT;
	for (uint32_t i = 0; i < op->count && r == 0; i++)
		if (vc_dir_find(op->dir, op->names[i], strlen(op->names[i])))
			r = -EEXIST;
	return r;
}

static int clone_build(struct names_op *base, struct vc_record *rec)
{
	struct clone_op *op = vc_container_of(base, struct clone_op, op);
	struct vc_inode_fields f, d;
	int r = clone_check(op);

	if (r < 0)
		return r;
	f = names_new_fields(op->dir, S_IFREG | (op->mode & 07777), op->owner, rec->time_ns);
	for (uint32_t i = 0; i < op->count; i++) {
		uint64_t ino = op->first_ino + i;

		names_row_inode(rec, ino, &f);
		names_row_dirent(rec, op->dir->ino, op->names[i], ino, op->dir->f.next_cookie + i, S_IFREG);
		vc_record_op(rec, VC_OP_CLONE, ino, 0, 0, op->src->ino, 0);
	}
	d = names_dir_changed(op->dir, rec, 0, false);
	d.next_cookie += op->count;
	names_row_inode(rec, op->dir->ino, &d);
	return 0;
}

static int clone_init(struct clone_op *op, struct vc_inode *src, struct vc_inode *dir, uint32_t count, uint32_t mode,
		      struct vc_owner owner)
{
	int r = vol_check_image(src);

	if (r < 0)
		return r;
	*op = (struct clone_op){ .op = { .pool = dir->cat->pool, .locked = { src, dir }, .build = clone_build, .class = VC_LOG_META, .grows = true },
				 .src = src, .dir = dir, .count = count, .mode = mode, .owner = owner };
	op->names = calloc(count, sizeof(*op->names));
	if (!op->names)
		return -ENOMEM;
	op->first_ino = atomic_fetch_add(&dir->cat->next_ino, count);
	return 0;
}

/* Rows of the inode and the name, and the clone itself, for each; the directory's row. */
static size_t clone_record_max(const struct clone_op *op)
{
	size_t row = sizeof(struct vc_disk_op) + sizeof(struct vc_disk_row) + 9 + 8;
	size_t most = sizeof(struct vc_disk_record) + row + sizeof(struct vc_disk_inode);

	for (uint32_t i = 0; i < op->count; i++)
		most += row + sizeof(struct vc_disk_inode) + row + strlen(op->names[i]) + sizeof(struct vc_disk_dirent) +
			sizeof(struct vc_disk_op);
	return most;
}

int vc_volume_clone(struct vc_inode *src, struct vc_inode *dir, const char *name, uint32_t mode, struct vc_owner owner,
		    struct vc_inode **ret, struct vc_done *done)
{
	struct clone_op op;
	int r = names_check(name);

	if (r == 0)
		r = clone_init(&op, src, dir, 1, mode, owner);
	if (r < 0)
		return r;
	strcpy(op.names[0], name);
	op.op.most = clone_record_max(&op);
	r = names_run_new(&op.op, op.first_ino, ret, done);
	free(op.names);
	return r;
}

static int name_compare(const void *a, const void *b) { return strcmp(a, b); }

/* Two equal names in one batch are refused like a name that exists. */
static int clone_check_distinct(const struct clone_op *op)
{
	size_t size = sizeof(op->names[0]);
	char (*sorted)[VC_NAME_MAX + 1] = malloc(op->count * size);
	int r = 0;

	if (!sorted)
		return -ENOMEM;
	memcpy(sorted, op->names, op->count * size);
	qsort(sorted, op->count, size, name_compare);
	for (uint32_t i = 1; i < op->count && r == 0; i++)
		if (strcmp(sorted[i - 1], sorted[i]) == 0)
			r = -EEXIST;
	free(sorted);
	return r;
}

int vc_volume_clone_many(struct vc_inode *src, struct vc_inode *dir, uint32_t count,
			 int (*fn)(void *ctx, uint32_t i, char *buf), void *ctx, uint32_t mode, struct vc_owner owner,
			 struct vc_done *done)
{
	struct clone_op op;
	int r = count == 0 || count > VC_CLONE_MANY_MAX ? -EINVAL : clone_init(&op, src, dir, count, mode, owner);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < count && r == 0; i++) {
		r = fn(ctx, i, op.names[i]);
		if (r == 0)
			r = names_check(op.names[i]);
	}
	if (r == 0)
		r = clone_check_distinct(&op);
	op.op.most = clone_record_max(&op);
	if (r == 0)
		r = names_run(&op.op, done);
	free(op.names);
	return r;
}

/* ---- the hidden clone ---- */

static int pin_build(struct names_op *base, struct vc_record *rec)
{
	struct clone_op *op = vc_container_of(base, struct clone_op, op);
	struct vc_inode_fields f = { .mode = S_IFREG | 0600, .generation = 1 };
	uint8_t key[9];

	if (atomic_load(&op->src->gone))
		return -ENOENT;
	names_row_inode(rec, op->first_ino, &f);
	vc_record_row_put(rec, key, vc_row_key_ino(key, VC_ROW_ORPHAN, op->first_ino), NULL, 0);
	vc_record_op(rec, VC_OP_CLONE, op->first_ino, 0, 0, op->src->ino, 0);
	return 0;
}

int vc_volume_pin(struct vc_inode *src, struct vc_inode **ret)
{
	struct clone_op op = { .op = { .pool = src->cat->pool, .locked = { src }, .build = pin_build, .class = VC_LOG_META }, .src = src };
	struct vc_wait wait;
	int r = vol_check_image(src);

	if (r < 0)
		return r;
	op.first_ino = vc_catalog_new_ino(src->cat);
	vc_wait_init(&wait);
	r = names_run_new(&op.op, op.first_ino, ret, &wait.done);
	return vc_wait_result(&wait, r);
}

/* ---- ranges ---- */

/* A share and a growth. */
#define COPY_RECORD_MAX (sizeof(struct vc_disk_record) + 2 * sizeof(struct vc_disk_op))

struct copy {
	struct vc_inode *src, *dst;
	uint64_t src_offset, dst_offset, len;
	bool durable;
};

/* Share whole blocks, or everything. Both inodes are locked. *ret_whole: dst has become a clone of src. */
static void copy_build(const struct copy *c, bool whole, struct vc_record *rec)
{
	uint64_t nblocks = VC_DIV_UP(c->len, (uint64_t)VC_BLOCK_SIZE);

	if (whole) {
		vc_record_op(rec, VC_OP_CLONE, c->dst->ino, 0, 0, c->src->ino, 0);
		return;
	}
	vc_record_op(rec, VC_OP_CLONE_RANGE, c->dst->ino, c->dst_offset >> VC_BLOCK_SHIFT, nblocks, c->src->ino,
		     c->src_offset >> VC_BLOCK_SHIFT);
	vc_record_op(rec, VC_OP_GROW, c->dst->ino, 0, 0, c->dst_offset + c->len, 0);
}

static bool copy_is_whole_locked(const struct copy *c)
{
	return c->src != c->dst && c->src_offset == 0 && c->dst_offset == 0 && c->len >= c->src->f.size && c->dst->f.size <= c->src->f.size;
}

/* A last block that is only partly asked for may be shared when the rest of it is beyond the end on both sides. */
static bool copy_tail_fits_locked(const struct copy *c)
{
	return c->len % VC_BLOCK_SIZE == 0 ||
		(c->src_offset + c->len >= c->src->f.size && c->dst_offset + c->len >= c->dst->f.size);
}

static uint32_t copy_depth_locked(const struct vc_inode *src)
{
	struct vc_view *view = vc_base_view(src->base);
	uint32_t depth = vc_view_ref_depth(view);

	vc_view_put(view);
	return src->active ? VC_MAX(depth, vc_overlay_ref_depth(src->active)) : depth;
}

static void copy_lock(const struct copy *c) VC_NO_ANALYSIS;
static void copy_lock(const struct copy *c)
{
	struct vc_inode *const both[] = { c->src, c->dst };

	vol_lock_inodes(both, 2);
}

static void copy_unlock(const struct copy *c) VC_NO_ANALYSIS;
static void copy_unlock(const struct copy *c)
{
	struct vc_inode *const both[] = { c->src, c->dst };

	vol_unlock_inodes(both, 2);
}

/* Chains of images that share through one another are flattened by a checkpoint. */
static int copy_flatten(struct vc_pool *pool)
{
	uint64_t id;
	int r = vc_pool_task_start(pool, VC_TASK_DESTAGE, &id);

	return r < 0 ? r : vc_pool_task_wait(pool, VC_TASK_DESTAGE, id);
}

/* -EAGAIN: the shape of the copy changed between measuring and doing. */
static int copy_share_once(const struct copy *c, struct vc_done *done)
{
	struct vc_pool *pool = vol_pool(c->dst);
	struct vc_busy_range busy;
	struct vc_record rec;
	struct vc_log_slot slot;
	bool whole;
	int r = vc_pool_admit_wait(pool, VC_LOG_META, COPY_RECORD_MAX);

	if (r < 0)
		return r;
	vol_lock_range(c->dst, c->dst_offset >> VC_BLOCK_SHIFT, VC_DIV_UP(c->len, (uint64_t)VC_BLOCK_SIZE));
	vol_busy_locked(c->dst, &busy, 0, VC_IMAGE_BLOCKS_MAX + 1);
	vc_mutex_unlock(&c->dst->lock);
	vc_record_init(&rec);
	copy_lock(c);
	whole = copy_is_whole_locked(c);
	r = copy_depth_locked(c->src) >= VOL_REF_DEPTH_MAX ? -EMLINK : copy_tail_fits_locked(c) || whole ? 0 : -EINVAL;
	copy_unlock(c);
	copy_build(c, whole, &rec);
	if (r == 0)
		r = vol_fit_admission(pool, &rec, COPY_RECORD_MAX);
	else
		vc_log_unadmit(pool->log, COPY_RECORD_MAX);
	if (r == 0) {
		copy_lock(c);
		if (copy_is_whole_locked(c) == whole && (whole || copy_tail_fits_locked(c))) {
			r = vc_apply_record(pool, &rec, c->dst, c->src, &slot);
		} else {
			vc_log_unadmit(pool->log, (size_t)vc_record_len(&rec));
			r = -EAGAIN;
		}
		copy_unlock(c);
	}
	vol_idle(c->dst, &busy);
	if (r == 0)
		vol_submit(pool, &rec, &slot, c->durable, done);
	vc_record_fini(&rec);
	return r;
}

static int copy_share(const struct copy *c, struct vc_done *done)
{
	int r;

	for (;;) {
		r = copy_share_once(c, done);
		if (r == -EMLINK)
			r = copy_flatten(vol_pool(c->dst));
		else if (r != -EAGAIN)
			return r;
		if (r < 0 && r != -EAGAIN)
			return r;
	}
}

static int copy_write(struct vc_inode *dst, const void *buf, size_t len, uint64_t offset)
{
	struct vc_wait wait;

	vc_wait_init(&wait);
	return vc_wait_result(&wait, vc_volume_write(dst, buf, len, offset, 0, &wait.done));
}

/* Byte by byte: edges, and ranges that lie differently within their blocks. Sleeps. */
static int copy_bytes(const struct copy *c, uint64_t from, uint64_t len)
{
	uint8_t *buf = malloc(COPY_STEP);
	int r = buf ? 0 : -ENOMEM;

	while (len > 0 && r == 0) {
		size_t step = (size_t)VC_MIN(len, (uint64_t)COPY_STEP);
		ssize_t n = vc_volume_read(c->src, buf, step, c->src_offset + from);

		r = n < 0 ? (int)n : n == 0 ? -EAGAIN : copy_write(c->dst, buf, (size_t)n, c->dst_offset + from);
		if (r == 0) {
			from += (uint64_t)n;
			len -= (uint64_t)n;
		}
	}
	free(buf);
	return r == -EAGAIN ? 0 : r;
}

static int copy_finish(const struct copy *c, struct vc_done *done)
{
	if (c->durable)
		vc_log_flush(vol_pool(c->dst)->log, 0, false, done);
	else
		vc_done_call(done, 0);
	return 0;
}

/* An unaligned head, then shared blocks, then an unaligned tail. */
static int copy_pieces(struct copy *c, struct vc_done *done)
{
	uint64_t skew = (c->src_offset - c->dst_offset) % VC_BLOCK_SIZE;
	uint64_t head = (VC_BLOCK_SIZE - c->src_offset % VC_BLOCK_SIZE) % VC_BLOCK_SIZE, middle;
	struct copy m = *c;
	struct vc_wait wait;
	int r;

	if (skew || c->len < head + VC_BLOCK_SIZE) {
		r = copy_bytes(c, 0, c->len);
		return r < 0 ? r : copy_finish(c, done);
	}
	middle = VC_ROUND_DOWN(c->len - head, (uint64_t)VC_BLOCK_SIZE);
	r = copy_bytes(c, 0, head);
	m.src_offset += head;
	m.dst_offset += head;
	m.len = middle;
	m.durable = false;
	if (r == 0) {
		vc_wait_init(&wait);
		r = vc_wait_result(&wait, copy_share(&m, &wait.done));
	}
	if (r == 0)
		r = copy_bytes(c, head + middle, c->len - head - middle);
	return r < 0 ? r : copy_finish(c, done);
}

static int copy_check(struct copy *c)
{
	uint64_t size;
	int r = vol_check_image(c->src);

	if (r == 0)
		r = vol_check_image(c->dst);
	if (r == 0)
		r = vc_pool_writable(vol_pool(c->dst));
	if (r < 0)
		return r;
	vc_mutex_lock(&c->src->lock);
	size = c->src->f.size;
	vc_mutex_unlock(&c->src->lock);
	c->len = c->src_offset >= size ? 0 : VC_MIN(c->len, size - c->src_offset);
	if (c->dst_offset > VC_IMAGE_SIZE_MAX || c->len > VC_IMAGE_SIZE_MAX - c->dst_offset)
		return -EFBIG;
	if (c->src == c->dst && c->src_offset < c->dst_offset + c->len && c->dst_offset < c->src_offset + c->len && c->len)
		return -EINVAL;
	if ((c->src_offset - c->dst_offset) % VC_BLOCK_SIZE)
		c->len = VC_MIN(c->len, (uint64_t)COPY_BYTES_MAX);
	else if ((c->src_offset - c->dst_offset) % (VC_LEAF_BLOCKS * VC_BLOCK_SIZE))
		c->len = VC_MIN(c->len, COPY_SKEWED_MAX);
	return 0;
}

int vc_volume_copy_range(struct vc_inode *src, uint64_t src_offset, struct vc_inode *dst, uint64_t dst_offset, uint64_t len,
			 bool durable, uint64_t *ret_copied, struct vc_done *done)
{
	struct copy c = { .src = src, .dst = dst, .src_offset = src_offset, .dst_offset = dst_offset, .len = len, .durable = durable };
	int r = copy_check(&c);

	if (r < 0)
		return r;
	*ret_copied = c.len;
	if (c.len == 0)
		return copy_finish(&c, done);
	if (src_offset % VC_BLOCK_SIZE == 0 && dst_offset % VC_BLOCK_SIZE == 0) {
		r = copy_share(&c, done);
		if (r != -EINVAL)
			return r;
	}
	return copy_pieces(&c, done);
}
