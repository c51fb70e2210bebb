/* SPDX-License-Identifier: BSD-2-Clause */
/* model: contents and names in memory. */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include "checksum.h"
#include "model.h"

static void *model_alloc(size_t len)
{
	void *p = calloc(1, len ? len : 1);

	assert(p);
	return p;
}

/* ---- contents ---- */

static void page_put(struct model_page *page)
{
	if (--page->refs == 0)
		free(page);
}

/* First part whose index is at least `index`. */
static size_t data_find(const struct model_data *d, uint64_t index)
{
	size_t low = 0, high = d->n;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (d->parts[mid].index < index)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static const uint8_t *data_peek(const struct model_data *d, uint64_t index)
{
	size_t at = data_find(d, index);

	return at < d->n && d->parts[at].index == index ? d->parts[at].page->bytes : NULL;
}

/* The page, ours alone. */
static uint8_t *data_page(struct model_data *d, uint64_t index)
{
	size_t at = data_find(d, index);
	struct model_part *part;

	if (at == d->n || d->parts[at].index != index) {
		if (d->n == d->cap) {
			d->cap = d->cap ? d->cap * 2 : 8;
			d->parts = realloc(d->parts, d->cap * sizeof(*d->parts));
			assert(d->parts);
		}
		memmove(&d->parts[at + 1], &d->parts[at], (d->n - at) * sizeof(*d->parts));
		d->n++;
		d->parts[at] = (struct model_part){ index, model_alloc(sizeof(struct model_page)) };
		d->parts[at].page->refs = 1;
	}
	part = &d->parts[at];
	if (part->page->refs > 1) {
		struct model_page *own = model_alloc(sizeof(*own));

		memcpy(own->bytes, part->page->bytes, MODEL_PAGE);
		own->refs = 1;
		part->page->refs--;
		part->page = own;
	}
	return part->page->bytes;
}

void model_read(const struct model_data *d, void *buf, size_t len, uint64_t offset)
{
	uint8_t *to = buf;

	while (len) {
		size_t in = offset % MODEL_PAGE, step = VC_MIN(len, MODEL_PAGE - in);
		const uint8_t *page = data_peek(d, offset / MODEL_PAGE);

		if (page)
			memcpy(to, page + in, step);
		else
			memset(to, 0, step);
		to += step;
		offset += step;
		len -= step;
	}
}

void model_write(struct model_data *d, const void *buf, size_t len, uint64_t offset)
{
	const uint8_t *from = buf;

	if (len)
		d->size = VC_MAX(d->size, offset + len);
	while (len) {
		size_t in = offset % MODEL_PAGE, step = VC_MIN(len, MODEL_PAGE - in);

		memcpy(data_page(d, offset / MODEL_PAGE) + in, from, step);
		from += step;
		offset += step;
		len -= step;
	}
}

/* Whole pages are dropped, others zeroed. */
static void data_zero(struct model_data *d, uint64_t from, uint64_t to)
{
	size_t kept = 0;

	for (size_t i = 0; i < d->n; i++) {
		uint64_t start = d->parts[i].index * MODEL_PAGE, end = start + MODEL_PAGE;

		if (from <= start && end <= to) {
			page_put(d->parts[i].page);
			continue;
		}
		d->parts[kept++] = d->parts[i];
	}
	d->n = kept;
	for (size_t i = 0; i < d->n; i++) {
		uint64_t start = d->parts[i].index * MODEL_PAGE, first = VC_MAX(from, start), last = VC_MIN(to, start + MODEL_PAGE);

		if (first < last)
			memset(data_page(d, d->parts[i].index) + (first - start), 0, last - first);
	}
}

void model_zero(struct model_data *d, uint64_t offset, uint64_t len)
{
	if (offset < d->size)
		data_zero(d, offset, VC_MIN(offset + len, d->size));
}

void model_resize(struct model_data *d, uint64_t size)
{
	if (size < d->size)
		data_zero(d, size, VC_ROUND_UP(d->size, (uint64_t)MODEL_PAGE));
	d->size = size;
}

void model_free(struct model_data *d)
{
	for (size_t i = 0; i < d->n; i++)
		page_put(d->parts[i].page);
	free(d->parts);
	*d = (struct model_data){ .size = 0 };
}

void model_copy(struct model_data *dst, const struct model_data *src)
{
	struct model_data copy = { .n = src->n, .cap = src->n, .size = src->size };

	copy.parts = model_alloc(src->n * sizeof(*copy.parts));
	if (src->n)
		memcpy(copy.parts, src->parts, src->n * sizeof(*copy.parts));
	for (size_t i = 0; i < copy.n; i++)
		copy.parts[i].page->refs++;
	model_free(dst);
	*dst = copy;
}

uint64_t model_hash(const struct model_data *d)
{
	uint64_t hash = vc_sum64(&d->size, sizeof(d->size), 1);

	for (size_t i = 0; i < d->n; i++)
		if (!vc_is_zero(d->parts[i].page->bytes, MODEL_PAGE)) {
			hash = vc_sum64(&d->parts[i].index, sizeof(uint64_t), hash);
			hash = vc_sum64(d->parts[i].page->bytes, MODEL_PAGE, hash);
		}
	return hash;
}

static uint64_t difference_in(const struct model_data *a, const struct model_data *b, uint64_t index)
{
	static const uint8_t zeros[MODEL_PAGE];
	const uint8_t *x = data_peek(a, index), *y = data_peek(b, index);

	x = x ? x : zeros;
	y = y ? y : zeros;
	for (size_t i = 0; i < MODEL_PAGE && memcmp(x, y, MODEL_PAGE) != 0; i++)
		if (x[i] != y[i])
			return index * MODEL_PAGE + i;
	return UINT64_MAX;
}

uint64_t model_difference(const struct model_data *a, const struct model_data *b)
{
	uint64_t first = a->size == b->size ? UINT64_MAX : VC_MIN(a->size, b->size);

	for (size_t i = 0; i < a->n; i++)
		first = VC_MIN(first, difference_in(a, b, a->parts[i].index));
	for (size_t i = 0; i < b->n; i++)
		first = VC_MIN(first, difference_in(a, b, b->parts[i].index));
	return first;
}

/* ---- files and names ---- */

struct model_file *model_file_new(uint32_t mode)
{
	struct model_file *f = model_alloc(sizeof(*f));

	f->mode = mode;
	f->uid = 7;
	f->gid = 8;
	f->refs = 1;
	return f;
}

struct model_file *model_file_get(struct model_file *f)
{
	f->refs++;
	return f;
}

void model_file_put(struct model_file *f)
{
	if (--f->refs)
		return;
	assert(!f->held);
	model_free(&f->data);
	free(f);
}

struct model_name *model_find(struct model *m, unsigned dir, const char *name)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->names[i].dir == dir && strcmp(m->names[i].name, name) == 0)
			return &m->names[i];
	return NULL;
}

void model_add(struct model *m, unsigned dir, const char *name, struct model_file *f)
{
	struct model_name *e = &m->names[m->n++];

	assert(m->n <= MODEL_NAMES && strlen(name) < MODEL_TEXT);
	e->dir = dir;
	e->file = f;
	strcpy(e->name, name);
	f->nlink++;
	model_touch(f);
}

void model_remove(struct model *m, struct model_name *name)
{
	struct model_file *f = name->file;

	*name = m->names[--m->n];
	f->nlink--;
	model_touch(f);
	model_file_put(f);
}

void model_clear(struct model *m)
{
	while (m->n)
		model_remove(m, &m->names[0]);
}

static struct model_file *file_copy(const struct model_file *f)
{
	struct model_file *copy = model_alloc(sizeof(*copy));

	*copy = *f;
	copy->held = NULL;
	copy->refs = 1;
	copy->nlink = 0;
	copy->data = (struct model_data){ .size = 0 };
	model_copy(&copy->data, &f->data);
	return copy;
}

void model_snapshot(const struct model *m, struct model *ret)
{
	for (size_t i = 0; i < m->n; i++) {
		struct model_file *copy = NULL;

		for (size_t k = 0; k < i && !copy; k++)
			if (m->names[k].file == m->names[i].file)
				copy = model_file_get(ret->names[k].file);
		model_add(ret, m->names[i].dir, m->names[i].name, copy ? copy : file_copy(m->names[i].file));
	}
}

static uint64_t file_hash(struct model_file *f)
{
	uint32_t numbers[4] = { f->mode, f->nlink, f->uid, f->gid };

	if (!f->hashed) {
		f->hash = vc_sum64(numbers, sizeof(numbers), model_hash(&f->data));
		f->hash = vc_sum64(f->target, sizeof(f->target), f->hash);
		f->hash = vc_sum64(f->xattrs, sizeof(f->xattrs), f->hash);
		f->hashed = true;
	}
	return f->hash;
}

static int name_compare(const struct model_name *a, const struct model_name *b)
{
	return a->dir != b->dir ? (a->dir < b->dir ? -1 : 1) : strcmp(a->name, b->name);
}

/* The first of all names of e's file: equal for two names exactly if they are links of one another. */
static const struct model_name *first_name(const struct model *m, const struct model_name *e)
{
	const struct model_name *first = e;

	for (size_t i = 0; i < m->n; i++)
		if (m->names[i].file == e->file && name_compare(&m->names[i], first) < 0)
			first = &m->names[i];
	return first;
}

/* Names are hashed with their directory in one piece: as a seed it would cancel out against differences of short names. */
uint64_t model_state(struct model *m)
{
	uint64_t state = m->n;

	for (size_t i = 0; i < m->n; i++) {
		const struct model_name *e = &m->names[i], *first = first_name(m, e);
		struct {
			uint64_t file, dir, first_dir;
			char name[MODEL_TEXT], first_name[MODEL_TEXT];
		} bytes;

		memset(&bytes, 0, sizeof(bytes));
		bytes.file = file_hash(e->file);
		bytes.dir = e->dir;
		bytes.first_dir = first->dir;
		strcpy(bytes.name, e->name);
		strcpy(bytes.first_name, first->name);
		state += vc_sum64(&bytes, sizeof(bytes), 0);
	}
	return state;
}

static bool same_file(const struct model_name *want, const struct model_file *found)
{
	const struct model_file *f = want->file;
	uint64_t at = model_difference(&f->data, &found->data);

	if (f->mode != found->mode || f->nlink != found->nlink || f->uid != found->uid || f->gid != found->gid)
		fprintf(stderr, "%u/%s: mode %o links %u owner %u:%u, found %o %u %u:%u\n", want->dir, want->name, f->mode, f->nlink,
			f->uid, f->gid, found->mode, found->nlink, found->uid, found->gid);
	else if (strcmp(f->target, found->target) != 0)
		fprintf(stderr, "%u/%s: target %s, found %s\n", want->dir, want->name, f->target, found->target);
	else if (memcmp(f->xattrs, found->xattrs, sizeof(f->xattrs)) != 0)
		fprintf(stderr, "%u/%s: other xattrs\n", want->dir, want->name);
	else if (at != UINT64_MAX)
		fprintf(stderr, "%u/%s: inode %llu differs from offset %llu (block %llu), size %llu, found size %llu\n", want->dir,
			want->name, (unsigned long long)found->ino, (unsigned long long)at, (unsigned long long)(at >> 12),
			(unsigned long long)f->data.size, (unsigned long long)found->data.size);
	else
		return true;
	return false;
}

bool model_same(struct model *expected, struct model *found)
{
	bool same = true;

	for (size_t i = 0; i < expected->n; i++) {
		const struct model_name *want = &expected->names[i], *is = model_find(found, want->dir, want->name);

		if (!is)
			fprintf(stderr, "%u/%s: missing\n", want->dir, want->name);
		same = is && same_file(want, is->file) && same;
	}
	for (size_t i = 0; i < found->n; i++)
		if (!model_find(expected, found->names[i].dir, found->names[i].name)) {
			fprintf(stderr, "%u/%s: should not be there\n", found->names[i].dir, found->names[i].name);
			same = false;
		}
	return same;
}
