/* SPDX-License-Identifier: BSD-2-Clause */
/* world_data: random operations on the bytes of images. */
#include "config.h"
#include "unit.h"

#include <linux/falloc.h>
#include <stdlib.h>
#include <unistd.h>
#include "engine.h"
#include "format.h"
#include "world.h"

#define BLOCK UINT64_C(4096)
#define HUGE_SIZE (UINT64_C(16) << 20) /* larger ones are the sparse ones */

static uint64_t below(struct world *w, uint64_t n) { return vc_unit_below(&w->rng, n); }

/* Somewhere in the image or a little beyond; huge ones have a few places. */
static uint64_t pick_offset(struct world *w, const struct model_file *f, uint64_t len)
{
	static const uint64_t places[] = { 0, UINT64_C(1) << 30, (UINT64_C(1) << 30) + (UINT64_C(1) << 20), UINT64_C(1) << 38,
					   VC_IMAGE_SIZE_MAX - (UINT64_C(4) << 20) };
	uint64_t limit = w->max_size, offset;

	if (f->data.size > HUGE_SIZE) {
		offset = places[below(w, VC_ARRAY_LEN(places))] + below(w, UINT64_C(3) << 20);
		return VC_MIN(offset, VC_IMAGE_SIZE_MAX - len);
	}
	if (below(w, 2))
		limit = VC_MIN(limit, UINT64_C(256) << 10);
	offset = below(w, limit);
	return offset + len > w->max_size ? w->max_size - VC_MIN(len, w->max_size) : offset;
}

static size_t pick_len(struct world *w, bool *ret_aligned)
{
	*ret_aligned = false;
	switch (below(w, 8)) {
	case 0: return 1 + below(w, 64);
	case 1: return 1 + below(w, 20000);
	case 2: return 1 + below(w, w->atomic ? w->max_log_write : WORLD_WRITE_MAX);
	case 3:
	case 4:
		*ret_aligned = true;
		return VC_ROUND_UP(65536 + below(w, VC_MIN(w->max_size / 2, (uint64_t)WORLD_WRITE_MAX) - 65536), BLOCK);
	default:
		*ret_aligned = true;
		return BLOCK * (1 + below(w, VC_MIN(UINT64_C(8), w->max_log_write / BLOCK)));
	}
}

static void fill(struct world *w, size_t len)
{
	uint64_t kind = below(w, 8), seed = vc_unit_random(&w->rng);

	if (kind == 0) {
		memset(w->buf, 0, len);
		return;
	}
	for (size_t i = 0; i < len; i += sizeof(seed)) {
		memcpy(w->buf + i, &seed, VC_MIN(sizeof(seed), len - i));
		seed = kind < 4 ? seed * UINT64_C(6364136223846793005) + 1 : i % 512 == 0 ? seed + 1 : seed;
	}
}

size_t world_compose(struct world *w, const struct model_file *f, uint64_t *ret_offset)
{
	bool aligned;
	size_t len = pick_len(w, &aligned);

	*ret_offset = pick_offset(w, f, len);
	if (aligned)
		*ret_offset &= ~(BLOCK - 1);
	fill(w, len);
	return len;
}

static void step_write(struct world *w, struct vc_inode *inode, struct model_file *f)
{
	unsigned int flags = below(w, 6) == 0 ? VC_WRITE_DSYNC : 0;
	uint64_t offset;
	size_t len = world_compose(w, f, &offset);

	if (below(w, 10) == 0 && f->data.size + len <= w->max_size && len <= w->max_log_write) {
		flags |= VC_WRITE_APPEND;
		offset = f->data.size;
	}
	world_note("write %s offset %llu len %zu flags %u\n", world_name(w, f), (unsigned long long)offset, len, flags);
	world_before(w);
	assert_int_equal(engine_write(inode, w->buf, len, offset, flags), 0);
	model_write(&f->data, w->buf, len, offset);
	model_touch(f);
	world_after(w, flags & VC_WRITE_DSYNC);
}

static void step_read(struct world *w, struct vc_inode *inode, const struct model_file *f)
{
	uint64_t len = 1 + below(w, below(w, 2) ? 300 * 1024 : 9000), offset = pick_offset(w, f, len);
	uint64_t want = offset >= f->data.size ? 0 : VC_MIN(len, f->data.size - offset);
	ssize_t n;

	if (len > WORLD_WRITE_MAX - BLOCK)
		return;
	world_note("read %s offset %llu len %llu\n", world_name(w, f), (unsigned long long)offset, (unsigned long long)len);
	if (below(w, 3) == 0) { /* as guests do: whole blocks */
		offset = VC_ROUND_DOWN(offset, BLOCK);
		len = VC_ROUND_UP(len, BLOCK);
		want = offset >= f->data.size ? 0 : VC_MIN(len, f->data.size - offset);
		n = engine_read_later(inode, w->buf, len, offset);
	} else {
		n = len & 1 ? engine_read_pieces(inode, w->buf, len, offset) : vc_volume_read(inode, w->buf, len, offset);
	}
	assert_int_equal(n, (ssize_t)want);
	model_read(&f->data, w->buf2, want, offset);
	assert_memory_equal(w->buf, w->buf2, want);
}

static void step_resize(struct world *w, struct vc_inode *inode, struct model_file *f)
{
	uint64_t size = below(w, 3) ? below(w, w->max_size) : f->data.size / 2;

	if (below(w, 8) == 0)
		size = VC_IMAGE_SIZE_MAX - below(w, 3) * 1000;
	if (below(w, 4) == 0)
		size &= ~(BLOCK - 1);
	world_note("resize %s to %llu\n", world_name(w, f), (unsigned long long)size);
	world_before(w);
	assert_int_equal(engine_resize(inode, size), 0);
	model_resize(&f->data, size);
	model_touch(f);
	world_after(w, true);
}

static void step_allocate(struct world *w, struct vc_inode *inode, struct model_file *f)
{
	static const int modes[] = { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
				     FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, FALLOC_FL_KEEP_SIZE };
	int mode = modes[below(w, VC_ARRAY_LEN(modes))];
	uint64_t len = 1 + below(w, below(w, 2) ? 10000 : w->max_size / 2), offset = pick_offset(w, f, len);

	world_note("allocate %s mode %d offset %llu len %llu\n", world_name(w, f), mode, (unsigned long long)offset, (unsigned long long)len);
	world_before(w);
	assert_int_equal(engine_allocate(inode, mode, offset, len), 0);
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		model_zero(&f->data, offset, len);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && offset + len > f->data.size)
		model_resize(&f->data, offset + len);
	model_touch(f);
	world_after(w, true);
}

/* What is said to be a hole reads as zeros; places come in order. */
static void step_seek(struct world *w, struct vc_inode *inode, const struct model_file *f)
{
	uint64_t at = pick_offset(w, f, 1), data, hole;
	int r = vc_volume_seek(inode, at, SEEK_DATA, &data);

	if (at >= f->data.size) {
		assert_int_equal(r, -ENXIO);
		return;
	}
	if (r == -ENXIO)
		data = f->data.size;
	else
		assert_int_equal(r, 0);
	assert_true(data >= at && data <= f->data.size);
	for (uint64_t o = at; o < data && o - at < 4 * WORLD_WRITE_MAX; o += WORLD_WRITE_MAX) {
		size_t n = (size_t)VC_MIN(data - o, (uint64_t)WORLD_WRITE_MAX);

		model_read(&f->data, w->buf2, n, o);
		assert_true(vc_is_zero(w->buf2, n));
	}
	if (r == 0) {
		assert_int_equal(vc_volume_seek(inode, data, SEEK_HOLE, &hole), 0);
		assert_true(hole >= data && hole <= f->data.size);
		if (hole == data) { /* a checkpoint in between made a hole of logged zeros, of nothing else */
			size_t n = (size_t)VC_MIN(f->data.size - data, VC_BLOCK_SIZE - data % VC_BLOCK_SIZE);

			model_read(&f->data, w->buf2, n, data);
			assert_true(vc_is_zero(w->buf2, n));
		}
	}
}

static void model_copy_range(struct world *w, const struct model_file *src, uint64_t from, struct model_file *dst, uint64_t to,
			     uint64_t len)
{
	uint64_t end = to + len;

	for (uint64_t done = 0; done < len;) {
		size_t n = (size_t)VC_MIN(len - done, (uint64_t)WORLD_WRITE_MAX);

		model_read(&src->data, w->buf2, n, from + done);
		model_write(&dst->data, w->buf2, n, to + done);
		done += n;
	}
	assert(dst->data.size >= end);
}

struct range {
	uint64_t from, to, len;
	bool sharing; /* whole blocks on both sides */
};

static struct range pick_range(struct world *w, const struct model_file *src, const struct model_file *dst)
{
	struct range r = { .len = 1 + below(w, 512 * 1024) };

	r.from = pick_offset(w, src, r.len);
	r.to = pick_offset(w, dst, r.len);
	r.sharing = w->atomic || below(w, 3);
	if (r.sharing) {
		r.from &= ~(BLOCK - 1);
		r.to &= ~(BLOCK - 1);
		r.len = VC_ROUND_UP(r.len, BLOCK);
		if (w->atomic && r.from + r.len > src->data.size)
			r.len = r.from > src->data.size ? 0 : (src->data.size - r.from) & ~(BLOCK - 1);
	} else if (below(w, 2)) {
		r.to = (r.to & ~(BLOCK - 1)) + r.from % BLOCK;
	}
	return r;
}

static void step_copy(struct world *w, struct vc_inode *inode, struct model_file *f)
{
	struct model_file *dst;
	struct vc_inode *to = world_pick(w, &dst);
	bool durable = below(w, 2);
	uint64_t copied, want;
	struct range c;
	int r;

	if (!to)
		return;
	c = pick_range(w, f, dst);
	if (below(w, 4) == 0 && dst->data.size <= f->data.size && dst != f)
		c = (struct range){ .from = 0, .to = 0, .len = f->data.size + below(w, 2) };
	want = c.from >= f->data.size ? 0 : VC_MIN(c.len, f->data.size - c.from);
	if (want == 0) {
		vc_inode_put(to);
		return;
	}
	world_note("copy %s offset %llu len %llu to ", world_name(w, f), (unsigned long long)c.from, (unsigned long long)c.len);
	world_note("%s offset %llu, %s\n", world_name(w, dst), (unsigned long long)c.to, durable ? "durable" : "not durable");
	world_before(w);
	r = engine_copy_range(inode, c.from, to, c.to, c.len, durable, &copied);
	vc_inode_put(to);
	if (dst == f && c.from < c.to + want && c.to < c.from + want) {
		assert_int_equal(r, -EINVAL);
		return;
	}
	assert_int_equal(r, 0);
	assert_int_equal(copied, want);
	if (c.from == 0 && c.to == 0 && want == f->data.size && dst->data.size <= want)
		model_copy(&dst->data, &f->data);
	else
		model_copy_range(w, f, c.from, dst, c.to, want);
	model_touch(dst);
	world_after(w, durable);
}

static void step_flush(struct world *w, struct vc_inode *inode)
{
	world_note("flush\n");
	world_before(w);
	assert_int_equal(engine_flush(inode), 0);
	world_after(w, true);
}

void world_data_step(struct world *w, uint64_t roll)
{
	struct model_file *f;
	struct vc_inode *inode = world_pick(w, &f);

	if (!inode)
		return;
	if (roll < 45)
		step_write(w, inode, f);
	else if (roll < 60)
		step_read(w, inode, f);
	else if (roll < 66)
		step_resize(w, inode, f);
	else if (roll < 74)
		step_allocate(w, inode, f);
	else if (roll < 79)
		step_seek(w, inode, f);
	else if (roll < 92)
		step_copy(w, inode, f);
	else
		step_flush(w, inode);
	vc_inode_put(inode);
}
