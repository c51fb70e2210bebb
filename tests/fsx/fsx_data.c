/* SPDX-License-Identifier: BSD-2-Clause */
/* fsx_data: operations on the bytes of one image. Offsets are those of the file; the model's begin at img->base. */
#include "config.h"
#include "fsx.h"

#include <linux/falloc.h>
#include <unistd.h>

struct range {
	uint64_t offset;
	size_t len;
};

static uint64_t window_end(const struct fsx_thread *t, const struct fsx_image *img) { return img->base + t->x->o.window; }

static uint8_t *model(struct fsx_image *img, uint64_t offset) { return img->bytes + (offset - img->base); }

/* Somewhere in the window: near the end of the file, at block limits, or anywhere. */
static struct range pick(struct fsx_thread *t, const struct fsx_image *img, size_t max)
{
	uint64_t end = window_end(t, img), offset;
	size_t len = 1 + fsx_below(t, fsx_below(t, 3) ? 3 * FSX_BLOCK : max);

	switch (fsx_below(t, 6)) {
	case 0: offset = VC_MAX(img->size, img->base + 5000) - fsx_below(t, 5000); break;
	case 1: offset = img->base + fsx_below(t, 64) * 4; break;
	default: offset = img->base + fsx_below(t, t->x->o.window); break;
	}
	if (fsx_below(t, 2)) {
		uint64_t unit = fsx_below(t, 4) ? FSX_BLOCK : 512;

		offset = VC_ROUND_DOWN(offset, unit);
		len = VC_ROUND_UP(len, unit);
	}
	offset = VC_MIN(offset, end - 1);
	return (struct range){ offset, (size_t)VC_MIN((uint64_t)len, end - offset) };
}

static enum fsx_how pick_how(struct fsx_thread *t)
{
	uint64_t roll = fsx_below(t, 8);

	if (!t->x->b->mapped || roll < 4)
		return FSX_BUFFERED;
	return roll < 6 ? FSX_DIRECT : FSX_MAPPED;
}

static void fill(struct fsx_thread *t, size_t len)
{
	uint64_t kind = fsx_below(t, 8), seed = fsx_random(&t->rng);

	if (kind == 0) {
		memset(t->buf, 0, len);
		return;
	}
	for (size_t i = 0; i < len; i += sizeof(seed)) {
		memcpy(t->buf + i, &seed, VC_MIN(sizeof(seed), len - i));
		if (kind < 4 || i % 1024 == 0)
			seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	}
}

void fsx_settle(struct fsx_thread *t, struct fsx_image *img)
{
	if (img->dirty)
		fsx_want(t, t->x->b->settle(img), "writing out mapped pages");
	img->dirty = false;
}

/* The file has this size now; what was cut off is gone. */
static void model_resize(struct fsx_thread *t, struct fsx_image *img, uint64_t size)
{
	if (size < img->size)
		memset(model(img, size), 0, img->size - size);
	img->size = size;
	if (size > window_end(t, img))
		fsx_fail(t, "fsx: size beyond the window");
}

/* ---- writing ---- */

static void step_write(struct fsx_thread *t, struct fsx_image *img)
{
	static const char *const hows[] = { "", " direct", " mapped" };
	enum fsx_how how = pick_how(t);
	struct range r = pick(t, img, FSX_IO_MAX - 4096);
	bool durable = fsx_below(t, 12) == 0;
	ssize_t n;

	if (how == FSX_MAPPED && r.offset >= img->size)
		how = FSX_BUFFERED;
	if (how == FSX_MAPPED)
		r.len = (size_t)VC_MIN((uint64_t)r.len, img->size - r.offset);
	if (how == FSX_DIRECT)
		fsx_settle(t, img);
	fill(t, r.len);
	fsx_note(t, "write %s %#llx+%#zx%s%s", img->name, (unsigned long long)r.offset, r.len, hows[how], durable ? " durable" : "");
	n = t->x->b->write(img, how, t->buf, r.len, r.offset, durable);
	if (n != (ssize_t)r.len)
		fsx_fail(t, "write returned %zd", n);
	memcpy(model(img, r.offset), t->buf, r.len);
	img->size = VC_MAX(img->size, r.offset + r.len);
	img->dirty |= how == FSX_MAPPED && !durable;
}

static void step_append(struct fsx_thread *t, struct fsx_image *img)
{
	size_t len = 1 + fsx_below(t, 9000);
	ssize_t n;

	if (img->size + len > window_end(t, img))
		return;
	fill(t, len);
	fsx_note(t, "append %s +%#zx at %#llx", img->name, len, (unsigned long long)img->size);
	n = t->x->b->append(t->x, img, t->buf, len);
	if (n != (ssize_t)len)
		fsx_fail(t, "append returned %zd", n);
	memcpy(model(img, img->size), t->buf, len);
	img->size += len;
}

static void step_resize(struct fsx_thread *t, struct fsx_image *img)
{
	uint64_t size = img->base + fsx_below(t, t->x->o.window + 1);

	if (fsx_below(t, 3) == 0)
		size = VC_ROUND_DOWN(size, (uint64_t)FSX_BLOCK);
	if (fsx_below(t, 4) == 0 && img->size > img->base) /* a little shorter: the rest of a block must go */
		size = img->size - 1 - fsx_below(t, VC_MIN(img->size - img->base, (uint64_t)3000));
	fsx_settle(t, img);
	fsx_note(t, "resize %s %#llx -> %#llx", img->name, (unsigned long long)img->size, (unsigned long long)size);
	fsx_want(t, t->x->b->resize(img, VC_MAX(size, img->base)), "resize");
	model_resize(t, img, VC_MAX(size, img->base));
}

static void step_allocate(struct fsx_thread *t, struct fsx_image *img)
{
	static const int modes[] = { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, FALLOC_FL_KEEP_SIZE };
	int mode = modes[fsx_below(t, VC_ARRAY_LEN(modes))];
	struct range r = pick(t, img, FSX_IO_MAX);
	uint64_t end = r.offset + r.len;

	fsx_settle(t, img);
	fsx_note(t, "allocate %s mode %d %#llx+%#zx", img->name, mode, (unsigned long long)r.offset, r.len);
	fsx_want(t, t->x->b->allocate(img, mode, r.offset, r.len), "allocate");
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		memset(model(img, r.offset), 0, r.len);
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		img->size = VC_MAX(img->size, end);
}

/* ---- reading ---- */

static void compare(struct fsx_thread *t, struct fsx_image *img, const uint8_t *found, uint64_t offset, size_t len, const char *what)
{
	const uint8_t *want = model(img, offset);
	size_t at = 0, bad = 0;

	if (memcmp(found, want, len) == 0)
		return;
	while (found[at] == want[at])
		at++;
	for (size_t i = at; i < len; i++)
		bad += found[i] != want[i];
	fsx_fail(t, "%s: %s of %s, size %#llx: %zu bytes differ, the first at %#llx: is %02x %02x %02x %02x, must be %02x %02x %02x %02x",
		 what, t->x->b->name, img->name, (unsigned long long)img->size, bad, (unsigned long long)(offset + at), found[at],
		 found[VC_MIN(at + 1, len - 1)], found[VC_MIN(at + 2, len - 1)], found[VC_MIN(at + 3, len - 1)], want[at],
		 want[VC_MIN(at + 1, len - 1)], want[VC_MIN(at + 2, len - 1)], want[VC_MIN(at + 3, len - 1)]);
}

static void read_range(struct fsx_thread *t, struct fsx_image *img, enum fsx_how how, uint64_t offset, size_t len)
{
	size_t want = offset >= img->size ? 0 : (size_t)VC_MIN((uint64_t)len, img->size - offset);
	ssize_t n;

	if (how == FSX_MAPPED)
		len = want;
	if (len == 0)
		return;
	memset(t->buf2, 0xa5, VC_MIN(len, (size_t)64));
	n = t->x->b->read(img, how, t->buf2, len, offset);
	if (n != (ssize_t)want)
		fsx_fail(t, "read of %#zx bytes at %#llx of %s, size %#llx, returned %zd", len, (unsigned long long)offset, img->name,
			 (unsigned long long)img->size, n);
	compare(t, img, t->buf2, offset, want, "read");
}

static void step_read(struct fsx_thread *t, struct fsx_image *img)
{
	static const char *const hows[] = { "", " direct", " mapped" };
	enum fsx_how how = pick_how(t);
	struct range r = pick(t, img, FSX_IO_MAX - 4096);

	if (how == FSX_DIRECT)
		fsx_settle(t, img);
	fsx_note(t, "read %s %#llx+%#zx%s", img->name, (unsigned long long)r.offset, r.len, hows[how]);
	read_range(t, img, how, r.offset, r.len);
}

/* A hole holds zeros only; places come in order. Returns where to go on. */
static uint64_t seek_once(struct fsx_thread *t, struct fsx_image *img, uint64_t at)
{
	uint64_t data, hole;
	int r = t->x->b->seek(img, at, SEEK_DATA, &data);

	if (r == -ENXIO)
		data = img->size;
	else
		fsx_want(t, r, "SEEK_DATA");
	if (data < at || data > img->size)
		fsx_fail(t, "SEEK_DATA from %#llx of %s gave %#llx, size %#llx", (unsigned long long)at, img->name,
			 (unsigned long long)data, (unsigned long long)img->size);
	if (data > img->base) {
		uint64_t from = VC_MAX(at, img->base);

		if (data > from && !vc_is_zero(model(img, from), data - from))
			fsx_fail(t, "%s: %#llx to %#llx is said to be a hole and holds data", img->name, (unsigned long long)at,
				 (unsigned long long)data);
	}
	if (data == img->size)
		return data;
	fsx_want(t, t->x->b->seek(img, data, SEEK_HOLE, &hole), "SEEK_HOLE");
	if (hole < data || hole > img->size)
		fsx_fail(t, "SEEK_HOLE from %#llx of %s gave %#llx, size %#llx", (unsigned long long)data, img->name,
			 (unsigned long long)hole, (unsigned long long)img->size);
	/* A checkpoint between the two calls may make a hole of logged zeros: then the hole is where the data was. */
	return VC_MAX(hole, data + 1);
}

static void step_seek(struct fsx_thread *t, struct fsx_image *img)
{
	struct range r = pick(t, img, FSX_BLOCK);

	fsx_settle(t, img);
	fsx_note(t, "seek %s from %#llx", img->name, (unsigned long long)r.offset);
	if (r.offset < img->size)
		seek_once(t, img, fsx_below(t, 8) ? r.offset : 0);
}

void fsx_data_verify(struct fsx_thread *t, struct fsx_image *img)
{
	enum fsx_how how = pick_how(t);
	uint64_t size, at = 0;
	size_t step = FSX_IO_MAX - 4096;

	fsx_settle(t, img);
	fsx_want(t, t->x->b->size(img, &size), "size");
	if (size != img->size)
		fsx_fail(t, "%s has size %#llx, must be %#llx", img->name, (unsigned long long)size, (unsigned long long)img->size);
	for (uint64_t o = img->base; o < img->size; o += step)
		read_range(t, img, how, o, step);
	while (at < img->size)
		at = seek_once(t, img, at);
}

/* ---- copying ---- */

static void step_copy(struct fsx_thread *t, struct fsx_image *img, struct fsx_image *src)
{
	struct range to = pick(t, img, FSX_IO_MAX), from = pick(t, src, FSX_IO_MAX);
	uint64_t len = to.len, want;
	ssize_t n;

	if (fsx_below(t, 3)) { /* whole blocks are shared */
		from.offset = VC_ROUND_DOWN(from.offset, (uint64_t)FSX_BLOCK);
		to.offset = VC_ROUND_DOWN(to.offset, (uint64_t)FSX_BLOCK);
		len = VC_ROUND_UP(len, (uint64_t)FSX_BLOCK);
	}
	len = VC_MIN(len, VC_MIN(window_end(t, img) - to.offset, window_end(t, src) - from.offset));
	want = from.offset >= src->size ? 0 : VC_MIN(len, src->size - from.offset);
	if (want == 0 || (src == img && from.offset < to.offset + len && to.offset < from.offset + len))
		return;
	if (src != img && src->users == 0) /* nobody else may touch shared ones, and they are clean */
		fsx_settle(t, src);
	fsx_settle(t, img);
	fsx_note(t, "copy %s %#llx+%#llx to %s %#llx", src->name, (unsigned long long)from.offset, (unsigned long long)len, img->name,
		 (unsigned long long)to.offset);
	n = t->x->b->copy(src, from.offset, img, to.offset, len);
	if (n <= 0 || (uint64_t)n > want)
		fsx_fail(t, "copy returned %zd instead of %llu", n, (unsigned long long)want);
	memmove(model(img, to.offset), model(src, from.offset), (size_t)n);
	img->size = VC_MAX(img->size, to.offset + (uint64_t)n);
}

void fsx_data_step(struct fsx_thread *t, struct fsx_image *img, struct fsx_image *src)
{
	uint64_t roll = fsx_below(t, 100);

	if (roll < 36)
		step_write(t, img);
	else if (roll < 60)
		step_read(t, img);
	else if (roll < 68)
		step_resize(t, img);
	else if (roll < 78)
		step_allocate(t, img);
	else if (roll < 83)
		step_seek(t, img);
	else if (roll < 86)
		step_append(t, img);
	else
		step_copy(t, img, src);
}

void fsx_data_fill(struct fsx_thread *t, struct fsx_image *img)
{
	for (uint64_t at = img->base; at + FSX_IO_MAX / 2 < window_end(t, img); at += FSX_IO_MAX / 2) {
		size_t len = 1 + fsx_below(t, FSX_IO_MAX / 2);

		fill(t, len);
		fsx_want(t, t->x->b->write(img, FSX_BUFFERED, t->buf, len, at, false), "write");
		memcpy(model(img, at), t->buf, len);
		img->size = at + len;
	}
}
