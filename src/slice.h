/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * slice: everything that one section of the log changed, until a checkpoint has put it into LMDB.
 *
 * The pool's state at the end of a slice is exactly: LMDB after the checkpoint of the slice before it, then this slice's
 *   rows     catalog rows, last value of each key (or "deleted")
 *   images   for each image touched: the base and open tag it had at the end of the slice
 *   bases    pending bases, oldest first, whose deltas hold writes of this slice
 *
 * An inode touched in a slice is dirty in it until it is settled: at its first change in a later slice, or when the slice is
 * destaged, its row and base of that moment are stored here. `dirty` pins each, so that an inode whose state is
 * not in LMDB yet is never evicted (and a deleted one never read back).
 *
 * Locks: `lock` for rows, images and dirty; bases by the lock of struct vc_bases; references are atomic.
 */
#ifndef VC_SLICE_H
#define VC_SLICE_H

#include <stdatomic.h>
#include "base.h"
#include "lock.h"
#include "log.h"

struct vc_inode;

struct vc_slice_row {
	struct vc_slice_row *next;
	uint16_t key_len;
	uint16_t value_len;
	bool deleted;
	uint8_t bytes[]; /* key, value */
};

struct vc_slice_image {
	uint64_t ino, tag;
	struct vc_base *base; /* counted; NULL: the image is gone */
};

struct vc_slice {
	struct vc_log_section section;
	atomic_uint refs;          /* overlays, and 1 for the pool until the slice is checkpointed */
	void (*destroy)(struct vc_slice *slice);
	void *owner;               /* the pool */
	struct vc_mutex lock;
	struct vc_slice_row **table;
	size_t table_size, nrows;
	struct vc_slice_image *images;
	size_t nimages, images_cap;
	struct vc_inode **dirty;
	size_t ndirty, dirty_cap;
	struct vc_list bases;      /* by the bases' lock */
	atomic_ulong direct_bytes; /* written straight to chunk files */
	atomic_ulong bytes;        /* of records, about */
	atomic_ulong cost;         /* estimate of map nodes a checkpoint will write */
	struct vc_list node;       /* the pool's list of slices, oldest first; pool lock */
};

struct vc_slice *vc_slice_new(void *owner, void (*destroy)(struct vc_slice *slice));
void vc_slice_hold(void *slice);
/** The last release calls destroy (which calls vc_slice_free when it is done with it). */
void vc_slice_release(void *slice);
/** For vc_log_release: the log does not know the slice's section any more. */
void vc_slice_section_free(struct vc_log_section *section);
/** Frees rows, images (putting bases) and the slice. The dirty list must be empty. */
void vc_slice_free(struct vc_slice *slice);

/** Store a row, replacing an earlier value; value NULL: deleted. 0 or -ENOMEM. */
int vc_slice_put_row(struct vc_slice *slice, const void *key, size_t key_len, const void *value,
		     size_t value_len) VC_MUST_CHECK;
/** Remember an image's state at the end of the slice; takes over the reference on base. 0 or -ENOMEM (reference put). */
int vc_slice_add_image(struct vc_slice *slice, uint64_t ino, uint64_t tag, struct vc_base *base) VC_MUST_CHECK;
/** Remember a dirty inode, which the caller has pinned. 0 or -ENOMEM (it unpins). */
int vc_slice_add_dirty(struct vc_slice *slice, struct vc_inode *inode) VC_MUST_CHECK;

/** All rows in key order: *ret is malloc'ed, of slice->nrows pointers. Nobody changes the slice any more. 0 or -ENOMEM. */
int vc_slice_sorted_rows(struct vc_slice *slice, struct vc_slice_row ***ret) VC_MUST_CHECK;

#endif
