/* SPDX-License-Identifier: BSD-2-Clause */
/* fsx_ops: operations on images as a whole: making, cloning, removing, renaming, publishing; and which operation comes next. */
#include "config.h"
#include "fsx.h"

#include <stdlib.h>

static uint64_t pick_base(struct fsx_thread *t)
{
	/* Where a map gets higher: 256 MiB of three levels, 64 GiB of four. */
	static const uint64_t bases[] = { 0, 0, 0, 0, 0, (UINT64_C(1) << 28) - (UINT64_C(1) << 17), (UINT64_C(1) << 36) - (UINT64_C(1) << 17) };

	return bases[fsx_below(t, VC_ARRAY_LEN(bases))];
}

static struct fsx_image *pick_own(struct fsx_thread *t)
{
	return &t->images[fsx_below(t, t->x->o.images)];
}

/* ---- shared images ---- */

/* One that stays as long as it is not given back; NULL: there is none at that place. */
static struct fsx_image *shared_get(struct fsx_thread *t)
{
	struct fsx_image *img = &t->x->shared[fsx_below(t, FSX_SHARED_MAX)];

	pthread_mutex_lock(&t->x->lock);
	if (!*img->name || img->dying)
		img = NULL;
	else
		img->users++;
	pthread_mutex_unlock(&t->x->lock);
	return img;
}

static void shared_put(struct fsx_thread *t, struct fsx_image *img)
{
	pthread_mutex_lock(&t->x->lock);
	if (img >= t->x->shared && img < t->x->shared + FSX_SHARED_MAX)
		img->users--;
	pthread_mutex_unlock(&t->x->lock);
}

/* What a clone or copy comes from: an own image or a shared one. End with shared_put. */
static struct fsx_image *pick_source(struct fsx_thread *t, struct fsx_image *otherwise)
{
	struct fsx_image *img = fsx_below(t, 2) ? shared_get(t) : NULL;

	if (!img)
		img = pick_own(t);
	return *img->name ? img : otherwise;
}

/* The image of this thread becomes one that all may clone, and nobody changes. */
static void step_publish(struct fsx_thread *t, struct fsx_image *img)
{
	unsigned place = FSX_GOLDEN + (unsigned)fsx_below(t, FSX_SHARED_MAX - FSX_GOLDEN);
	struct fsx_image *shared = &t->x->shared[place], spare;
	char name[FSX_NAME];

	pthread_mutex_lock(&t->x->lock);
	if (*shared->name || shared->dying) {
		pthread_mutex_unlock(&t->x->lock);
		return;
	}
	shared->dying = true; /* reserved */
	pthread_mutex_unlock(&t->x->lock);
	snprintf(name, sizeof(name), "shared-%u", place);
	fsx_settle(t, img);
	fsx_note(t, "publish %s as %s", img->name, name);
	fsx_want(t, t->x->b->rename(t->x, img->name, name), "rename");
	pthread_mutex_lock(&t->x->lock);
	spare = *shared;
	*shared = *img;
	*img = spare;
	snprintf(shared->name, sizeof(shared->name), "%s", name);
	shared->dying = false;
	img->dying = false;
	pthread_mutex_unlock(&t->x->lock);
}

static void step_unpublish(struct fsx_thread *t)
{
	struct fsx_image *img = &t->x->shared[FSX_GOLDEN + fsx_below(t, FSX_SHARED_MAX - FSX_GOLDEN)];
	bool mine;

	pthread_mutex_lock(&t->x->lock);
	mine = *img->name && !img->dying && img->users == 0;
	if (mine)
		img->dying = true;
	pthread_mutex_unlock(&t->x->lock);
	if (!mine)
		return;
	fsx_note(t, "remove %s", img->name);
	fsx_data_verify(t, img);
	t->x->b->close(t->x, img);
	fsx_want(t, t->x->b->remove(t->x, img->name), "remove");
	memset(img->bytes, 0, t->x->o.window);
	pthread_mutex_lock(&t->x->lock);
	*img->name = '\0';
	img->dying = false;
	pthread_mutex_unlock(&t->x->lock);
}

/* ---- making and removing ---- */

static void image_name(const struct fsx_thread *t, const struct fsx_image *img, char *buf)
{
	snprintf(buf, FSX_NAME, "t%u-%u", t->index, (unsigned)(img - t->images));
}

static void image_forget(struct fsx_thread *t, struct fsx_image *img)
{
	memset(img->bytes, 0, t->x->o.window);
	*img->name = '\0';
	img->dirty = false;
}

static void step_create(struct fsx_thread *t, struct fsx_image *img)
{
	image_name(t, img, img->name);
	img->base = pick_base(t);
	fsx_note(t, "create %s base %#llx", img->name, (unsigned long long)img->base);
	fsx_want(t, t->x->b->open(t->x, img, true), "create");
	img->size = 0;
	if (img->base)
		fsx_want(t, t->x->b->resize(img, img->base), "resize");
	img->size = img->base;
}

static void step_remove(struct fsx_thread *t, struct fsx_image *img)
{
	char name[FSX_NAME];

	fsx_note(t, "remove %s", img->name);
	snprintf(name, sizeof(name), "%s", img->name);
	if (fsx_below(t, 2)) { /* open when its name goes: it stays what it is */
		fsx_want(t, t->x->b->remove(t->x, name), "remove");
		fsx_data_verify(t, img);
		t->x->b->close(t->x, img);
	} else {
		t->x->b->close(t->x, img);
		fsx_want(t, t->x->b->remove(t->x, name), "remove");
	}
	image_forget(t, img);
}

/* `img` is open no more, or never was; its name now belongs to a clone of src. */
static void become_clone(struct fsx_thread *t, struct fsx_image *img, const struct fsx_image *src)
{
	image_name(t, img, img->name);
	img->base = src->base;
	img->size = src->size;
	img->dirty = false;
	memcpy(img->bytes, src->bytes, t->x->o.window);
	fsx_want(t, t->x->b->open(t->x, img, false), "open");
	atomic_fetch_add(&t->x->nclones, 1);
}

static void clone_to(struct fsx_thread *t, struct fsx_image *src, const char *name)
{
	const struct fsx_backend *b = t->x->b;
	unsigned way = (unsigned)fsx_below(t, fsx_below(t, 40) ? b->nfast : b->nways);

	if (src->dirty && !(b->syncs_source && b->syncs_source(way)))
		fsx_settle(t, src);
	fsx_note(t, "clone %s to %s, way %u", src->name, name, way);
	fsx_want(t, b->clone(t->x, src, name, way), "clone");
}

/* A clone under a name of its own, or over what the name was. */
static void step_clone(struct fsx_thread *t, struct fsx_image *img)
{
	struct fsx_image *src = pick_source(t, NULL);
	char name[FSX_NAME], tmp[FSX_NAME + 8];

	if (!src)
		return;
	if (src == img) {
		shared_put(t, src);
		return;
	}
	image_name(t, img, name);
	if (!*img->name) {
		clone_to(t, src, name);
	} else {
		snprintf(tmp, sizeof(tmp), "%s.new", name);
		clone_to(t, src, tmp);
		fsx_note(t, "rename %s over %s", tmp, name);
		fsx_want(t, t->x->b->rename(t->x, tmp, name), "rename");
		t->x->b->close(t->x, img);
		image_forget(t, img);
	}
	become_clone(t, img, src);
	shared_put(t, src);
	if (fsx_below(t, 4) == 0)
		fsx_data_verify(t, img);
}

/* One image takes the name of another, which is gone then. */
static void step_rename(struct fsx_thread *t, struct fsx_image *img)
{
	struct fsx_image *to = pick_own(t), spare;
	char name[FSX_NAME];

	if (to == img)
		return;
	image_name(t, to, name);
	fsx_note(t, "rename %s to %s%s", img->name, name, *to->name ? " over it" : "");
	fsx_want(t, t->x->b->rename(t->x, img->name, name), "rename");
	if (*to->name) {
		t->x->b->close(t->x, to);
		image_forget(t, to);
	}
	spare = *to;
	*to = *img;
	*img = spare;
	snprintf(to->name, sizeof(to->name), "%s", name);
}

static void step_reopen(struct fsx_thread *t, struct fsx_image *img)
{
	fsx_note(t, "close and open %s", img->name);
	t->x->b->close(t->x, img); /* mapped pages stay dirty, and are the file's */
	fsx_want(t, t->x->b->open(t->x, img, false), "open");
}

static void step_flush(struct fsx_thread *t, struct fsx_image *img)
{
	fsx_note(t, "flush %s", img->name);
	fsx_want(t, t->x->b->flush(img), "flush");
	img->dirty = false;
}

static void step_drop(struct fsx_thread *t, struct fsx_image *img)
{
	fsx_settle(t, img);
	fsx_note(t, "drop what is cached of %s", img->name);
	fsx_want(t, t->x->b->drop(img), "drop");
}

static void step_background(struct fsx_thread *t)
{
	unsigned what = (unsigned)fsx_below(t, 16);

	fsx_note(t, "background %u", what);
	fsx_want(t, t->x->b->background(t->x, what), "background");
}

static void step_image(struct fsx_thread *t, struct fsx_image *img, uint64_t roll)
{
	if (roll < 40)
		step_flush(t, img);
	else if (roll < 60)
		step_reopen(t, img);
	else if (roll < 80)
		step_drop(t, img);
	else if (roll < 100)
		step_remove(t, img);
	else if (roll < 120)
		step_rename(t, img);
	else if (roll < 135)
		step_publish(t, img);
	else if (roll < 145)
		step_unpublish(t);
	else if (roll < 152)
		step_background(t);
	else
		fsx_verify(t, img);
}

void fsx_verify(struct fsx_thread *t, struct fsx_image *img)
{
	if (!*img->name)
		return;
	fsx_note(t, "verify %s", img->name);
	fsx_data_verify(t, img);
}

void fsx_step(struct fsx_thread *t)
{
	struct fsx_image *img = pick_own(t), *src;
	uint64_t roll = fsx_below(t, 1000);

	__atomic_fetch_add(&t->nops, 1, __ATOMIC_RELAXED);
	if (roll < 80 || (!*img->name && roll < 800)) {
		step_clone(t, img);
	} else if (!*img->name) {
		step_create(t, img);
	} else if (roll < 820) {
		src = pick_source(t, img);
		fsx_data_step(t, img, src);
		shared_put(t, src);
	} else {
		step_image(t, img, roll - 820);
	}
}

void fsx_make_golden(struct fsx_thread *t)
{
	for (unsigned i = 0; i < FSX_GOLDEN; i++) {
		struct fsx_image *img = &t->x->shared[i];

		snprintf(img->name, sizeof(img->name), "golden-%u", i);
		img->base = i ? UINT64_C(1) << 30 : 0;
		img->size = img->base;
		fsx_want(t, t->x->b->open(t->x, img, true), "create");
		fsx_data_fill(t, img);
	}
}
