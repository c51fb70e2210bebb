/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fsx_stamp: clones of an image while others write it.
 *
 * Each writer has a part of the image. Its n-th write fills one to three blocks of that part with the number n. A clone
 * taken meanwhile must be a moment (D3):
 *   1. for each writer there is an n such that every block of its part holds what its writes 1..n left there;
 *   2. n is at least the number of its writes that had returned when the clone was asked for, and at most of those that had
 *      begun when it returned;
 *   3. across writers: when a write is in the clone, every write that had returned before that one began is in it too.
 * Some clones are kept and must not have changed when the round is over, and after the pool was opened again.
 */
#include "config.h"
#include "fsx.h"

#include <stdlib.h>
#include <sys/uio.h>

#define STAMP_PART_BLOCKS 48u
#define STAMP_WRITES 4000u     /* of a writer, in a round */
#define STAMP_WRITE_BLOCKS 3u
#define STAMP_KEPT 6u

struct stamp_write {
	uint32_t block, nblocks; /* within the part */
	uint64_t began, ended;   /* ticks; ended 0: not yet */
};

struct stamp_writer {
	struct fsx_thread *t;
	struct stamp *s;
	struct fsx_image file;   /* its own descriptors of the one image */
	struct stamp_write *writes; /* [1 .. STAMP_WRITES] */
	_Atomic uint64_t begun, done;
	pthread_t thread;
};

struct stamp_kept {
	char name[FSX_NAME];
	uint8_t *bytes;
};

struct stamp {
	struct fsx *x;
	unsigned nwriters;
	uint64_t size;
	_Atomic uint64_t ticks;
	struct stamp_writer writers[FSX_THREADS_MAX];
	struct stamp_kept kept[STAMP_KEPT];
	unsigned nkept;
	uint64_t round;
};

static uint64_t tick(struct stamp *s) { return atomic_fetch_add(&s->ticks, 1) + 1; }

/* ---- writing ---- */

static void stamp_fill(uint8_t *buf, uint32_t nblocks, uint64_t n)
{
	for (size_t i = 0; i < nblocks * (size_t)FSX_BLOCK; i += sizeof(n))
		memcpy(buf + i, &n, sizeof(n));
}

static void *writer_main(void *arg)
{
	struct stamp_writer *w = arg;
	struct fsx_thread *t = w->t;
	uint64_t part = (uint64_t)t->index * STAMP_PART_BLOCKS;

	for (uint64_t n = 1; n <= STAMP_WRITES; n++) {
		struct stamp_write *e = &w->writes[n];
		enum fsx_how how = t->x->b->mapped && t->index % 2 ? FSX_DIRECT : FSX_BUFFERED;
		uint64_t offset;
		ssize_t r;

		e->nblocks = 1 + (uint32_t)fsx_below(t, STAMP_WRITE_BLOCKS);
		e->block = (uint32_t)fsx_below(t, STAMP_PART_BLOCKS - e->nblocks + 1);
		stamp_fill(t->buf, e->nblocks, n);
		offset = (part + e->block) * FSX_BLOCK;
		fsx_note(t, "stamp %llu at %#llx", (unsigned long long)n, (unsigned long long)offset);
		e->began = tick(w->s);
		atomic_store(&w->begun, n);
		r = t->x->b->write(&w->file, how, t->buf, e->nblocks * (size_t)FSX_BLOCK, offset, fsx_below(t, 64) == 0);
		if (r != (ssize_t)(e->nblocks * FSX_BLOCK))
			fsx_fail(t, "write returned %zd", r);
		e->ended = tick(w->s);
		atomic_store(&w->done, n);
		__atomic_fetch_add(&t->nops, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* ---- checking ---- */

/* The writer's last write that is in the clone, after comparing its whole part. */
static uint64_t check_part(struct stamp_writer *w, const uint8_t *bytes, struct fsx_thread *t, const char *name)
{
	const uint8_t *part = bytes + (uint64_t)w->t->index * STAMP_PART_BLOCKS * FSX_BLOCK;
	uint64_t expected[STAMP_PART_BLOCKS] = { 0 }, found, n = 0;

	for (uint32_t b = 0; b < STAMP_PART_BLOCKS; b++) {
		memcpy(&found, part + b * FSX_BLOCK, sizeof(found));
		n = VC_MAX(n, found);
	}
	if (n > atomic_load(&w->begun))
		fsx_fail(t, "%s holds stamp %llu of writer %u, which was never written", name, (unsigned long long)n, w->t->index);
	for (uint64_t i = 1; i <= n; i++)
		for (uint32_t b = 0; b < w->writes[i].nblocks; b++)
			expected[w->writes[i].block + b] = i;
	for (uint32_t b = 0; b < STAMP_PART_BLOCKS; b++)
		for (size_t i = 0; i < FSX_BLOCK; i += sizeof(found)) {
			memcpy(&found, part + b * FSX_BLOCK + i, sizeof(found));
			if (found != expected[b])
				fsx_fail(t, "%s is no moment: writer %u's last write in it is %llu, yet block %u at byte %zu holds stamp %llu instead of %llu",
					 name, w->t->index, (unsigned long long)n, b, i, (unsigned long long)found,
					 (unsigned long long)expected[b]);
		}
	return n;
}

/* Rule 3, when the writers' last writes are in n. */
static void check_order(struct stamp *s, const uint64_t *n, struct fsx_thread *t, const char *name)
{
	for (unsigned i = 0; i < s->nwriters; i++)
		for (unsigned k = 0; k < s->nwriters; k++) {
			const struct stamp_write *in = &s->writers[i].writes[n[i]], *out;

			if (n[i] == 0 || n[k] >= atomic_load(&s->writers[k].done))
				continue;
			out = &s->writers[k].writes[n[k] + 1];
			if (out->ended < in->began)
				fsx_fail(t, "%s holds write %llu of writer %u, and lacks write %llu of writer %u, which was over before that began",
					 name, (unsigned long long)n[i], i, (unsigned long long)n[k] + 1, k);
		}
}

static void clone_read(struct fsx_thread *t, struct stamp *s, struct fsx_image *img, uint8_t *bytes)
{
	size_t step = FSX_IO_MAX - 4096;

	for (uint64_t at = 0; at < s->size; at += step) {
		size_t len = (size_t)VC_MIN((uint64_t)step, s->size - at);
		ssize_t r = t->x->b->read(img, FSX_BUFFERED, bytes + at, len, at);

		if (r != (ssize_t)len)
			fsx_fail(t, "read of %s returned %zd", img->name, r);
	}
}

static void clone_check(struct fsx_thread *t, struct stamp *s, struct fsx_image *img, const uint64_t *low, uint8_t *bytes)
{
	uint64_t n[FSX_THREADS_MAX];

	clone_read(t, s, img, bytes);
	for (unsigned i = 0; i < s->nwriters; i++) {
		n[i] = check_part(&s->writers[i], bytes, t, img->name);
		if (n[i] < low[i])
			fsx_fail(t, "%s ends at write %llu of writer %u; %llu had returned before the clone was asked for", img->name,
				 (unsigned long long)n[i], i, (unsigned long long)low[i]);
	}
	check_order(s, n, t, img->name);
}

static void stamp_clone(struct fsx_thread *t, struct stamp *s, struct fsx_image *src, uint8_t *bytes)
{
	const struct fsx_backend *b = t->x->b;
	unsigned way = (unsigned)fsx_below(t, b->nfast);
	bool keep = s->nkept < STAMP_KEPT && fsx_below(t, 8) == 0;
	struct fsx_image img = *src;
	uint64_t low[FSX_THREADS_MAX];

	__atomic_fetch_add(&t->nops, 1, __ATOMIC_RELAXED);
	snprintf(img.name, sizeof(img.name), "clone-%llu-%llu", (unsigned long long)s->round, (unsigned long long)t->nops);
	for (unsigned i = 0; i < s->nwriters; i++)
		low[i] = atomic_load(&s->writers[i].done);
	fsx_note(t, "clone %s, way %u", img.name, way);
	fsx_want(t, b->clone(t->x, src, img.name, way), "clone");
	atomic_fetch_add(&t->x->nclones, 1);
	img.fd = img.direct_fd = -1;
	fsx_want(t, b->open(t->x, &img, false), "open");
	clone_check(t, s, &img, low, bytes);
	b->close(t->x, &img);
	if (!keep) {
		fsx_want(t, b->remove(t->x, img.name), "remove");
		return;
	}
	s->kept[s->nkept].bytes = malloc(s->size);
	if (!s->kept[s->nkept].bytes)
		fsx_fail(t, "no memory");
	memcpy(s->kept[s->nkept].bytes, bytes, s->size);
	snprintf(s->kept[s->nkept++].name, FSX_NAME, "%s", img.name);
}

static void kept_check(struct fsx_thread *t, struct stamp *s, uint8_t *bytes, bool last)
{
	struct fsx_image img = { .fd = -1, .direct_fd = -1, .size = s->size };

	for (unsigned i = 0; i < s->nkept; i++) {
		memcpy(img.name, s->kept[i].name, sizeof(img.name));
		fsx_want(t, t->x->b->open(t->x, &img, false), "open");
		clone_read(t, s, &img, bytes);
		if (memcmp(bytes, s->kept[i].bytes, s->size) != 0)
			fsx_fail(t, "clone %s has changed since it was made", img.name);
		t->x->b->close(t->x, &img);
		if (!last)
			continue;
		fsx_want(t, t->x->b->remove(t->x, img.name), "remove");
		free(s->kept[i].bytes);
	}
	s->nkept = last ? 0 : s->nkept;
}

/* ---- rounds ---- */

static bool writers_done(struct stamp *s)
{
	for (unsigned i = 0; i < s->nwriters; i++)
		if (atomic_load(&s->writers[i].done) < STAMP_WRITES)
			return false;
	return true;
}

static void writer_start(struct stamp *s, unsigned i, const char *name)
{
	struct stamp_writer *w = &s->writers[i];
	struct fsx_thread *t = &s->x->threads[i];

	w->t = t;
	w->s = s;
	w->file = (struct fsx_image){ .fd = -1, .direct_fd = -1, .size = s->size };
	snprintf(w->file.name, sizeof(w->file.name), "%s", name);
	memset(w->writes, 0, (STAMP_WRITES + 1) * sizeof(*w->writes));
	atomic_store(&w->begun, 0);
	atomic_store(&w->done, 0);
	fsx_want(t, t->x->b->open(t->x, &w->file, false), "open");
}

static void stamp_round(struct fsx_thread *t, struct stamp *s, uint8_t *bytes)
{
	const struct fsx_backend *b = t->x->b;
	struct fsx_image src = { .fd = -1, .direct_fd = -1, .size = s->size };

	snprintf(src.name, sizeof(src.name), "written-%llu", (unsigned long long)s->round);
	fsx_want(t, b->open(t->x, &src, true), "create");
	fsx_want(t, b->resize(&src, s->size), "resize");
	for (unsigned i = 0; i < s->nwriters; i++)
		writer_start(s, i, src.name);
	for (unsigned i = 0; i < s->nwriters; i++)
		if (pthread_create(&s->writers[i].thread, NULL, writer_main, &s->writers[i]) != 0)
			fsx_fail(t, "no thread");
	do {
		stamp_clone(t, s, &src, bytes);
		if (fsx_below(t, 16) == 0)
			fsx_want(t, b->background(t->x, (unsigned)fsx_below(t, 16)), "background");
	} while (!writers_done(s));
	for (unsigned i = 0; i < s->nwriters; i++) {
		pthread_join(s->writers[i].thread, NULL);
		b->close(t->x, &s->writers[i].file);
	}
	stamp_clone(t, s, &src, bytes);
	kept_check(t, s, bytes, false);
	b->close(t->x, &src);
	fsx_want(t, b->remove(t->x, src.name), "remove");
}

void fsx_stamp_run(struct fsx *x)
{
	struct stamp *s = calloc(1, sizeof(*s));
	/* The last thread clones, the others write. */
	struct fsx_thread *t = &x->threads[x->o.threads - 1];
	uint64_t began = vc_mono_ns();
	uint8_t *bytes;
	bool sudden;

	if (x->o.threads < 2)
		fsx_fail(t, "clones of what is written need at least two threads");
	if (!s)
		fsx_fail(t, "no memory");
	s->x = x;
	s->nwriters = x->o.threads - 1;
	s->size = (uint64_t)s->nwriters * STAMP_PART_BLOCKS * FSX_BLOCK;
	bytes = malloc(s->size);
	for (unsigned i = 0; i < s->nwriters; i++)
		s->writers[i].writes = calloc(STAMP_WRITES + 1, sizeof(struct stamp_write));
	do {
		stamp_round(t, s, bytes);
		sudden = fsx_below(t, 2);
		x->b->stop(x, sudden);
		fsx_want(t, x->b->start(x), "opening the pool again");
		x->remounts++;
		x->kills += sudden;
		kept_check(t, s, bytes, true);
		s->round++;
	} while (x->o.ops ? t->nops < x->o.ops : vc_mono_ns() - began < x->o.seconds * UINT64_C(1000000000));
	for (unsigned i = 0; i < s->nwriters; i++)
		free(s->writers[i].writes);
	free(bytes);
	free(s);
}
