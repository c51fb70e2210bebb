/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "base.h"

#include <stdlib.h>

/* Overlays with more leaves than this together are not merged. */
#define BASE_MERGE_LEAVES 512

static void owner_base_get(struct vc_base *base) { vc_base_get(base); }

void vc_bases_init(struct vc_bases *bases, void (*slice_hold)(void *slice), void (*slice_release)(void *slice))
{
	memset(bases, 0, sizeof(*bases));
	vc_mutex_init(&bases->lock, VC_LOCK_BASE);
	bases->owner.slice_hold = slice_hold;
	bases->owner.release = slice_release;
	vc_list_init(&bases->views);
	bases->owner.base_get = owner_base_get;
	bases->owner.base_put = vc_base_put;
}

void vc_bases_fini(struct vc_bases *bases) { vc_mutex_fini(&bases->lock); }

static struct vc_view *view_new(struct vc_bases *bases, struct vc_root root, unsigned int room)
{
	struct vc_view *view = calloc(1, sizeof(*view) + room * sizeof(struct vc_overlay *));

	if (view) {
		atomic_init(&view->refs, 1);
		view->root = root;
		view->bases = bases;
		vc_mutex_lock(&bases->lock);
		vc_list_add_tail(&bases->views, &view->node);
		vc_mutex_unlock(&bases->lock);
	}
	return view;
}

void vc_view_put(struct vc_view *view)
{
	if (!view || atomic_fetch_sub(&view->refs, 1) != 1)
		return;
	vc_mutex_lock(&view->bases->lock);
	vc_list_del(&view->node);
	vc_mutex_unlock(&view->bases->lock);
	for (unsigned int i = 0; i < view->n; i++)
		vc_overlay_put(view->overlays[i]);
	free(view);
}

struct vc_view *vc_base_view(struct vc_base *base)
{
	struct vc_view *view;

	vc_mutex_lock(&base->bases->lock);
	view = base->view;
	atomic_fetch_add(&view->refs, 1);
	vc_mutex_unlock(&base->bases->lock);
	return view;
}

uint32_t vc_view_ref_depth(const struct vc_view *view)
{
	uint32_t depth = 0;

	for (unsigned int i = 0; i < view->n; i++)
		depth = VC_MAX(depth, vc_overlay_ref_depth(view->overlays[i]));
	return depth;
}

static bool view_should_merge(const struct vc_overlay *newer, const struct vc_overlay *older)
{
	uint64_t n = vc_overlay_leaves(newer), o = vc_overlay_leaves(older);

	return vc_overlay_slice(newer) == vc_overlay_slice(older) && o < 2 * n && n + o <= BASE_MERGE_LEAVES;
}

/* Newest first: merge the first two while the second is not much larger. Without memory the view just stays longer. */
static void view_merge(struct vc_view *view, const struct vc_overlay_owner *owner)
{
	while (view->n > 2 && view_should_merge(view->overlays[0], view->overlays[1])) {
		struct vc_overlay *merged = vc_overlay_new(owner, vc_overlay_slice(view->overlays[1]));

		if (!merged)
			return;
		if (vc_overlay_merge(merged, view->overlays[1]) < 0 || vc_overlay_merge(merged, view->overlays[0]) < 0) {
			vc_overlay_put(merged);
			return;
		}
		vc_overlay_put(view->overlays[0]);
		vc_overlay_put(view->overlays[1]);
		view->n--;
		memmove(&view->overlays[1], &view->overlays[2], (view->n - 1) * sizeof(view->overlays[0]));
		view->overlays[0] = merged;
	}
}

static struct vc_view *view_stack(struct vc_bases *bases, const struct vc_view *below, struct vc_overlay *top, bool merge)
{
	struct vc_view *view = view_new(bases, below->root, below->n + 1);

	if (!view)
		return NULL;
	view->overlays[view->n++] = vc_overlay_get(top);
	for (unsigned int i = 0; i < below->n; i++)
		view->overlays[view->n++] = vc_overlay_get(below->overlays[i]);
	if (merge)
		view_merge(view, &bases->owner);
	return view;
}

struct vc_base *vc_base_new(struct vc_bases *bases, struct vc_root root)
{
	struct vc_base *base = calloc(1, sizeof(*base));

	if (!base)
		return NULL;
	base->bases = bases;
	atomic_init(&base->refs, 1);
	vc_list_init(&base->node);
	base->view = view_new(bases, root, 0);
	if (!base->view) {
		free(base);
		return NULL;
	}
	return base;
}

/* Of a view that was made from the parent's present one; bases' lock held. */
static uint64_t base_generation_locked(const struct vc_base *parent)
{
	return parent->delta ? parent->generation : parent->bases->generation;
}

/* A checkpoint may swap the parent's view meanwhile: then the view was built on the old one, and is built again. */
static bool base_link(struct vc_base *base, const struct vc_view *below, struct vc_list *list)
{
	struct vc_bases *bases = base->bases;
	struct vc_base *parent = base->parent;
	bool current;

	vc_mutex_lock(&bases->lock);
	current = parent->view == below;
	if (current) {
		base->generation = base_generation_locked(parent);
		parent->nchildren++;
		vc_list_add_tail(list, &base->node);
	}
	vc_mutex_unlock(&bases->lock);
	return current;
}

struct vc_base *vc_base_freeze(struct vc_base *parent, struct vc_overlay *delta, struct vc_list *list, uint64_t ino,
			       uint64_t dead_tag, uint64_t new_tag, bool merge)
{
	struct vc_base *base = calloc(1, sizeof(*base));
	bool linked = false;

	if (!base)
		return NULL;
	base->bases = parent->bases;
	atomic_init(&base->refs, 1);
	base->parent = parent;
	base->delta = delta;
	base->dead_tag = dead_tag;
	base->new_tag = new_tag;
	base->ino = ino;
	vc_list_init(&base->node);
	while (!linked) {
		struct vc_view *below = vc_base_view(parent), *view = view_stack(parent->bases, below, delta, merge);

		vc_view_put(base->view);
		base->view = view;
		linked = view && base_link(base, below, list); /* from then on a checkpoint may swap the view */
		vc_view_put(below);
		if (!view) {
			free(base);
			return NULL;
		}
	}
	vc_base_get(parent);
	return base;
}

bool vc_base_is_long(struct vc_base *base)
{
	bool is;

	vc_mutex_lock(&base->bases->lock);
	is = base->parent && base->view->n > 2;
	vc_mutex_unlock(&base->bases->lock);
	return is;
}

/* What a merged view of a pending base is made from. */
struct base_tidy {
	struct vc_view *old, *below;
	struct vc_overlay *delta;
	uint64_t generation;
};

static bool base_tidy_begin(struct vc_base *base, struct base_tidy *t)
{
	bool pending;

	vc_mutex_lock(&base->bases->lock);
	pending = base->parent;
	if (pending) {
		*t = (struct base_tidy){ base->view, base->parent->view, vc_overlay_get(base->delta), base_generation_locked(base->parent) };
		atomic_fetch_add(&t->old->refs, 1);
		atomic_fetch_add(&t->below->refs, 1);
	}
	vc_mutex_unlock(&base->bases->lock);
	return pending;
}

/* The generation is that of the view below it when it was read: should a checkpoint raise it meanwhile, it refreshes this base as well. */
void vc_base_tidy(struct vc_base *base)
{
	struct base_tidy t;
	struct vc_view *view;

	if (!base_tidy_begin(base, &t))
		return;
	view = view_stack(base->bases, t.below, t.delta, true);
	vc_mutex_lock(&base->bases->lock);
	if (view && base->view == t.old) { /* else a checkpoint has made a newer one */
		base->view = view;
		base->generation = t.generation;
		view = t.old; /* the base's reference on it */
	}
	vc_mutex_unlock(&base->bases->lock);
	vc_view_put(view);
	vc_view_put(t.old);
	vc_view_put(t.below);
	vc_overlay_put(t.delta);
}

struct vc_base *vc_base_get(struct vc_base *base)
{
	atomic_fetch_add(&base->refs, 1);
	return base;
}

/* A loop, not a recursion: chains of pending bases may be thousands long. */
void vc_base_put(struct vc_base *base)
{
	while (base && atomic_fetch_sub(&base->refs, 1) == 1) {
		struct vc_bases *bases = base->bases;
		struct vc_base *parent = base->parent;

		vc_mutex_lock(&bases->lock);
		vc_list_del(&base->node);
		if (parent)
			parent->nchildren--;
		vc_mutex_unlock(&bases->lock);
		vc_view_put(base->view);
		vc_overlay_put(base->delta);
		free(base);
		base = parent;
	}
}

int vc_base_folded(struct vc_base *base, struct vc_root root)
{
	struct vc_view *view = view_new(base->bases, root, 0), *old_view;
	struct vc_overlay *delta;
	struct vc_base *parent;

	if (!view)
		return -ENOMEM;
	vc_mutex_lock(&base->bases->lock);
	old_view = base->view;
	delta = base->delta;
	parent = base->parent;
	base->view = view;
	base->delta = NULL;
	base->parent = NULL;
	vc_list_del(&base->node);
	if (parent)
		parent->nchildren--;
	vc_mutex_unlock(&base->bases->lock);
	vc_view_put(old_view);
	vc_overlay_put(delta);
	vc_base_put(parent);
	return 0;
}

void vc_bases_new_generation(struct vc_bases *bases)
{
	vc_mutex_lock(&bases->lock);
	bases->generation++;
	vc_mutex_unlock(&bases->lock);
}

bool vc_base_try_get(struct vc_base *base)
{
	unsigned int refs = atomic_load(&base->refs);

	while (refs > 0)
		if (atomic_compare_exchange_weak(&base->refs, &refs, refs + 1))
			return true;
	return false;
}

static int base_refresh(struct vc_base *base)
{
	struct vc_view *below = vc_base_view(base->parent), *view, *old;

	view = view_stack(base->bases, below, base->delta, true);
	vc_view_put(below);
	if (!view)
		return -ENOMEM;
	vc_mutex_lock(&base->bases->lock);
	old = base->view;
	base->view = view;
	base->generation = base->bases->generation;
	vc_mutex_unlock(&base->bases->lock);
	vc_view_put(old);
	return 0;
}

/* The first base behind `at` (an element of `list`, or its head) whose view is of an earlier generation; counted. */
static struct vc_base *bases_next_old(struct vc_bases *bases, struct vc_list *list, struct vc_list *at)
{
	struct vc_base *found = NULL;

	vc_mutex_lock(&bases->lock);
	for (struct vc_list *node = at->next; node != list && !found; node = node->next) {
		struct vc_base *base = vc_list_entry(node, struct vc_base, node);

		if (base->generation != bases->generation && vc_base_try_get(base))
			found = base;
	}
	vc_mutex_unlock(&bases->lock);
	return found;
}

/* A base that is held stays in its place in the list: only the checkpoint, which calls this, takes bases out. */
int vc_bases_refresh(struct vc_bases *bases, struct vc_list *list)
{
	struct vc_base *base = bases_next_old(bases, list, list);
	int n = 0;

	while (base) {
		int r = base_refresh(base);
		struct vc_base *next = r < 0 ? NULL : bases_next_old(bases, list, &base->node);

		vc_base_put(base);
		if (r < 0)
			return r;
		base = next;
		n++;
	}
	return n;
}

int vc_bases_each_root(struct vc_bases *bases, int (*fn)(void *ctx, struct vc_root root), void *ctx)
{
	int r = 0;

	vc_mutex_lock(&bases->lock);
	vc_list_for_each(node, &bases->views) {
		r = fn(ctx, vc_list_entry(node, struct vc_view, node)->root);
		if (r)
			break;
	}
	vc_mutex_unlock(&bases->lock);
	return r;
}
