/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * base: the immutable content of an image at one moment, shared by clones (I5).
 *
 *      pending base B2 --parent--> pending base B1 --parent--> folded base B0
 *        delta d2                    delta d1                    root r0
 *      view of B2: r0 + overlays [ d2 d1 ] (small neighbours of one slice merged)
 *
 * What a base reads as never changes; how it is represented does: a checkpoint turns a pending base into a folded one, and swaps
 * its view. A reader takes the view once and is not disturbed by the swap.
 *
 * States: pending (parent and delta set, on its slice's list) -> folded (root only), by vc_base_folded after the commit.
 * Locks: the lock of struct vc_bases guards view pointers, parent, delta, children counts and the slices' lists.
 */
#ifndef VC_BASE_H
#define VC_BASE_H

#include "list.h"
#include "lock.h"
#include "map.h"
#include "overlay.h"

/** What all bases of a pool share. */
struct vc_bases {
	struct vc_mutex lock;
	struct vc_overlay_owner owner; /* of overlays */
	struct vc_list views;          /* all that exist */
	uint64_t generation;           /* of views: raised by each checkpoint before it swaps views */
};

struct vc_view {
	atomic_uint refs;
	struct vc_bases *bases;
	struct vc_list node;           /* in bases->views: a mark must know every root in use; bases' lock */
	struct vc_root root;
	unsigned int n;
	struct vc_overlay *overlays[]; /* newest first, frozen */
};

struct vc_base {
	struct vc_bases *bases;
	atomic_uint refs;
	struct vc_view *view;
	uint64_t generation;        /* of the view; pending bases are brought up to date by the checkpoint */
	uint64_t content;           /* its name in the destage journal; set when staged, 0: empty */
	/* pending only: */
	struct vc_base *parent;
	struct vc_overlay *delta;
	uint64_t dead_tag, new_tag; /* see struct vc_fold */
	uint64_t ino;               /* image whose writes delta holds */
	struct vc_base *tidy_next;  /* pool lock: bases whose view is to be merged */
	bool tidy_queued;
	struct vc_list node;        /* in its slice's list, oldest first */
	unsigned int nchildren;     /* pending bases whose parent this is */
	/* destage only (its thread): */
	bool needed;
	uint32_t number;
	struct vc_root root;
};

void vc_bases_init(struct vc_bases *bases, void (*slice_hold)(void *slice), void (*slice_release)(void *slice));
void vc_bases_fini(struct vc_bases *bases);

/** A folded base. NULL: no memory. */
struct vc_base *vc_base_new(struct vc_bases *bases, struct vc_root root);
/**
 * A pending base: parent's content with `delta` over it. Takes over the reference on delta; takes its own on parent. `list`: pending bases of
 * delta's slice. `merge`: small neighbours of its view are merged at once; else, because that may take longer than all of a clone, by
 * vc_base_tidy. NULL: no memory (nothing taken).
 */
struct vc_base *vc_base_freeze(struct vc_base *parent, struct vc_overlay *delta, struct vc_list *list, uint64_t ino,
			       uint64_t dead_tag, uint64_t new_tag, bool merge);
/** It may have something for vc_base_tidy to do. */
bool vc_base_is_long(struct vc_base *base) VC_MUST_CHECK;
/** Merge small neighbours in the view of a pending base, so that reading stays fast; does nothing to others, or without memory. */
void vc_base_tidy(struct vc_base *base);
struct vc_base *vc_base_get(struct vc_base *base);
/** NULL is ignored. */
void vc_base_put(struct vc_base *base);

/** Call fn with the root of every view that exists, until it returns non-zero; returns that. fn takes no locks. */
int vc_bases_each_root(struct vc_bases *bases, int (*fn)(void *ctx, struct vc_root root), void *ctx) VC_MUST_CHECK;
struct vc_view *vc_base_view(struct vc_base *base);
void vc_view_put(struct vc_view *view);
/** Deepest chain of references to other bases in a view. */
uint32_t vc_view_ref_depth(const struct vc_view *view);

/** A checkpoint is about to swap views. */
void vc_bases_new_generation(struct vc_bases *bases);
/** After the commit: the base reads as `root`; parent and delta are dropped, it leaves its slice's list. 0 or -ENOMEM (nothing changed). */
int vc_base_folded(struct vc_base *base, struct vc_root root) VC_MUST_CHECK;
/** Pending bases of `list` whose ancestors were folded get a new view, without what is folded. Returns how many needed it, or -ENOMEM. */
int vc_bases_refresh(struct vc_bases *bases, struct vc_list *list) VC_MUST_CHECK;
/** One reference if any is left: for walkers of a slice's list, who hold the bases' lock. */
bool vc_base_try_get(struct vc_base *base) VC_MUST_CHECK;

#endif
