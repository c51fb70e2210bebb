/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * overlay: what one image changed within one slice of the log, in memory.
 *
 *   hash: leaf index -> leaf { bitmap of 256 blocks, packed entries }      changes of single blocks
 *   ranges, sorted, not overlapping: zero, or "what base B holds at lba x"  changes of long ranges
 *
 * Rule: a block's entry in a leaf is always newer than a range over it (setting a range removes the entries below it).
 * Memory: about 80 bytes for a lone 4 KiB write, 12 bytes a block when dense.
 *
 * An overlay is active (its image's volume lock guards it) until it is frozen into a base; then it never changes and needs no
 * lock. It holds its slice, so that the log segments its entries point into stay.
 */
#ifndef VC_OVERLAY_H
#define VC_OVERLAY_H

#include <stdatomic.h>
#include "format.h"
#include "map.h"

struct vc_overlay;
struct vc_base;

enum vc_slot_kind {
	VC_SLOT_NONE,  /* this overlay does not know */
	VC_SLOT_ZERO,
	VC_SLOT_LOG,   /* addr: log address, sum: of the block */
	VC_SLOT_CHUNK, /* addr: map entry */
	VC_SLOT_BASE,  /* base, addr: lba there */
};

/** What one block holds. */
struct vc_slot {
	enum vc_slot_kind kind;
	uint32_t sum;
	uint64_t addr;
	struct vc_base *base; /* borrowed from the overlay */
};

/** How an overlay holds its slice and the bases its ranges name. */
struct vc_overlay_owner {
	void (*slice_hold)(void *slice);
	void (*release)(void *slice);
	void (*base_get)(struct vc_base *base);
	void (*base_put)(struct vc_base *base);
};

/** New empty overlay with one reference; holds `slice` (may be NULL). NULL: no memory. */
struct vc_overlay *vc_overlay_new(const struct vc_overlay_owner *owner, void *slice);
struct vc_overlay *vc_overlay_get(struct vc_overlay *o);
void vc_overlay_put(struct vc_overlay *o);

/**
 * Make room for changing blocks lba .. lba + nblocks - 1 (and for one more range), so that the setters below, which run after
 * an LSN was assigned, cannot fail. Returns 0 or -ENOMEM.
 */
int vc_overlay_prepare(struct vc_overlay *o, uint64_t lba, uint64_t nblocks) VC_MUST_CHECK;
/** The same for vc_overlay_set_range. */
int vc_overlay_prepare_range(struct vc_overlay *o, uint64_t lba, uint64_t nblocks) VC_MUST_CHECK;

/** Consecutive blocks in the log: block i at addr + i * 4096 with sum sums[i]. Prepared before. */
void vc_overlay_set_log(struct vc_overlay *o, uint64_t lba, uint64_t nblocks, uint64_t addr, const uint32_t *sums);
/** Consecutive blocks of one chunk: entry, entry + 1, ... Prepared before. */
void vc_overlay_set_chunk(struct vc_overlay *o, uint64_t lba, uint64_t nblocks, uint64_t entry);
/** Zeros, or (base != NULL, taken a reference on) what base holds from base_lba. Prepared before. */
void vc_overlay_set_range(struct vc_overlay *o, uint64_t lba, uint64_t nblocks, struct vc_base *base, uint64_t base_lba);

/** Fill those of slots[n] that are VC_SLOT_NONE and that this overlay knows. Returns how many are still NONE. */
uint64_t vc_overlay_lookup(const struct vc_overlay *o, uint64_t lba, uint64_t n, struct vc_slot *slots);

/**
 * The nearest block at or after lba, below end, that this overlay knows (*ret_end: up to where it knows without a gap, all of
 * one sort: data or zero). Returns false when it knows none.
 */
bool vc_overlay_next(const struct vc_overlay *o, uint64_t lba, uint64_t end, uint64_t *ret_lba, uint64_t *ret_end);

/** Lay a newer overlay over this one (not frozen yet). 0 or -ENOMEM. */
int vc_overlay_merge(struct vc_overlay *o, const struct vc_overlay *newer) VC_MUST_CHECK;

/** The slice it was made with. */
void *vc_overlay_slice(const struct vc_overlay *o);
bool vc_overlay_empty(const struct vc_overlay *o);
/** Blocks set one by one (ranges not counted). */
uint64_t vc_overlay_blocks(const struct vc_overlay *o);
/** Leaves: what one of these costs a checkpoint, roughly, in map nodes. */
uint64_t vc_overlay_leaves(const struct vc_overlay *o);
/** Deepest chain of VC_SLOT_BASE references through it: 0 none. */
uint32_t vc_overlay_ref_depth(const struct vc_overlay *o);
void vc_overlay_set_ref_depth(struct vc_overlay *o, uint32_t depth);

/** A run of equal sort in ascending order, for destage: ranges cut around entries, entries one block each. */
struct vc_overlay_run {
	uint64_t lba, nblocks;
	struct vc_slot slot; /* of the first block */
};
/** All runs, ascending: *ret_runs is malloc'ed. 0 or -ENOMEM. */
int vc_overlay_runs(const struct vc_overlay *o, struct vc_overlay_run **ret_runs, size_t *ret_n) VC_MUST_CHECK;

#endif
