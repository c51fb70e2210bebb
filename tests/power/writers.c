/* SPDX-License-Identifier: BSD-2-Clause */
/* writers: operations from a seed, and their effect on plain memory. */
#include "config.h"
#include "unit.h"

#include <inttypes.h>
#include <string.h>
#include "checksum.h"
#include "util.h"
#include "writers.h"

#define SMALL_WRITE 16u
#define BIG_WRITE 160u /* long enough to go straight into chunks */
#define TOKEN_LIFE_SHIFT 40
#define TOKEN_WRITER_SHIFT 32
#define EXPLAIN_MAX 3

static uint32_t below(struct writer *w, uint64_t n) { return (uint32_t)vc_unit_below(&w->rng, n); }

void writer_init(struct writer *w, uint32_t number)
{
	memset(w, 0, sizeof(*w));
	w->number = number;
	snprintf(w->image.name, sizeof(w->image.name), "w%u", number);
}

void writer_begin(struct writer *w, uint64_t seed, uint64_t life)
{
	w->rng = seed ^ life << TOKEN_LIFE_SHIFT ^ (uint64_t)w->number << TOKEN_WRITER_SHIFT;
	w->life = life;
	w->done = 0;
}

static void next_range(struct writer *w, uint32_t max, struct op *ret)
{
	ret->n = 1 + below(w, max);
	ret->start = below(w, WRITER_UNITS - ret->n + 1);
}

static void next_clone(struct writer *w, struct op *ret)
{
	if (w->nclones == WRITER_CLONES || (w->nclones && below(w, 4) == 0)) {
		ret->kind = OP_DELETE;
		memcpy(ret->name, w->clones[0].name, sizeof(ret->name));
		return;
	}
	ret->kind = OP_CLONE;
	snprintf(ret->name, sizeof(ret->name), "w%u.%" PRIu64 ".%" PRIu64, w->number, w->life, w->done);
}

void writer_next(struct writer *w, struct op *ret)
{
	uint32_t roll = below(w, 100);

	memset(ret, 0, sizeof(*ret));
	ret->token = w->life << TOKEN_LIFE_SHIFT | (uint64_t)w->number << TOKEN_WRITER_SHIFT | (w->done + 1);
	if (roll < 66) {
		ret->kind = roll < 60 ? OP_WRITE : OP_WRITE_DURABLE;
		next_range(w, roll % 12 ? SMALL_WRITE : BIG_WRITE, ret);
	} else if (roll < 80) {
		ret->kind = OP_FLUSH;
	} else if (roll < 88) {
		ret->kind = OP_PUNCH;
		next_range(w, SMALL_WRITE, ret);
	} else if (roll < 90) {
		ret->kind = OP_RESIZE;
		ret->n = below(w, WRITER_UNITS + 1);
	} else {
		next_clone(w, ret);
	}
}

static void apply_range(struct image *image, const struct op *op, uint64_t token)
{
	for (uint32_t i = op->start; i < op->start + op->n && i < image->units; i++)
		image->tokens[i] = token;
}

static void apply_resize(struct image *image, uint32_t units)
{
	for (uint32_t i = units; i < image->units; i++)
		image->tokens[i] = 0;
	image->units = units;
}

static void apply_clone(struct writer *w, const char *name)
{
	struct image *clone = &w->clones[w->nclones++];

	*clone = w->image;
	memcpy(clone->name, name, sizeof(clone->name));
}

void writer_apply(struct writer *w, const struct op *op)
{
	switch (op->kind) {
	case OP_WRITE:
	case OP_WRITE_DURABLE:
		w->image.units = VC_MAX(w->image.units, op->start + op->n);
		apply_range(&w->image, op, op->token);
		break;
	case OP_PUNCH: apply_range(&w->image, op, 0); break;
	case OP_RESIZE: apply_resize(&w->image, op->n); break;
	case OP_CLONE: apply_clone(w, op->name); break;
	case OP_DELETE: memmove(&w->clones[0], &w->clones[1], --w->nclones * sizeof(w->clones[0])); break;
	case OP_FLUSH: break;
	}
	w->done++;
}

bool op_is_durable(const struct op *op)
{
	return op->kind != OP_WRITE && op->kind != OP_PUNCH;
}

/* Half of the tokens make bytes that compress. */
void unit_fill(uint8_t *unit, uint64_t token, uint32_t index)
{
	uint64_t state = token ^ (uint64_t)index << 24, value = state;

	memset(unit, 0, UNIT_SIZE);
	if (token == 0)
		return;
	for (size_t at = 0; at < UNIT_SIZE; at += sizeof(value)) {
		value = at && (token & 1) ? value + index : vc_unit_random(&state);
		memcpy(unit + at, at ? &value : &token, sizeof(value));
	}
}

bool unit_token(const uint8_t *unit, uint32_t index, uint64_t *ret)
{
	uint8_t expected[UNIT_SIZE];

	memcpy(ret, unit, sizeof(*ret));
	unit_fill(expected, *ret, index);
	return memcmp(unit, expected, UNIT_SIZE) == 0;
}

static bool image_same(const struct image *a, const struct image *b)
{
	return a->units == b->units && memcmp(a->tokens, b->tokens, a->units * sizeof(a->tokens[0])) == 0;
}

static const struct image *find_clone(const struct writer *w, const char *name)
{
	for (uint32_t i = 0; i < w->nclones; i++)
		if (strcmp(w->clones[i].name, name) == 0)
			return &w->clones[i];
	return NULL;
}

bool writer_same(const struct writer *a, const struct writer *b)
{
	if (a->nclones != b->nclones || !image_same(&a->image, &b->image))
		return false;
	for (uint32_t i = 0; i < a->nclones; i++) {
		const struct image *other = find_clone(b, a->clones[i].name);

		if (!other || !image_same(&a->clones[i], other))
			return false;
	}
	return true;
}

static void explain_token(char *buf, size_t len, uint64_t token)
{
	snprintf(buf, len, "life %" PRIu64 " writer %" PRIu64 " operation %" PRId64, token >> TOKEN_LIFE_SHIFT,
		 token >> TOKEN_WRITER_SHIFT & 0xff, (int64_t)(token & UINT32_MAX) - 1);
}

static void explain_image(const struct image *a, const struct image *b)
{
	char want[80], got[80];
	unsigned shown = 0;

	if (a->units != b->units)
		printf("  %s: size %u units, found %u\n", a->name, a->units, b->units);
	for (uint32_t i = 0; i < VC_MIN(a->units, b->units); i++) {
		if (a->tokens[i] == b->tokens[i] || shown++ >= EXPLAIN_MAX)
			continue;
		explain_token(want, sizeof(want), a->tokens[i]);
		explain_token(got, sizeof(got), b->tokens[i]);
		printf("  %s: unit %u of %s, found %s\n", a->name, i, want, got);
	}
	if (shown)
		printf("  %s: %u units differ\n", a->name, shown);
}

void writer_explain(const struct writer *expected, const struct writer *found)
{
	explain_image(&expected->image, &found->image);
	for (uint32_t i = 0; i < expected->nclones; i++) {
		const struct image *other = find_clone(found, expected->clones[i].name);

		if (other)
			explain_image(&expected->clones[i], other);
		else
			printf("  %s: missing\n", expected->clones[i].name);
	}
	for (uint32_t i = 0; i < found->nclones; i++)
		if (!find_clone(expected, found->clones[i].name))
			printf("  %s: should not be there\n", found->clones[i].name);
}
