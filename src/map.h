/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * map: block maps as radix trees of immutable nodes in the meta store (I1, I2).
 *
 *   root id, height h        level h-1 (inner) ... level 1 (inner), level 0 (leaf: 256 entries)
 *   child index at level l of block lba:  (lba >> (8 * l)) & 255;   block in leaf: lba & 255
 *
 * A tree of height h maps blocks 0 .. 256^h - 1. root 0 (height 0) maps nothing. Trees grow in height by
 * putting the old root under new inner nodes as child 0; they never shrink except to nothing.
 *
 * Reading: any thread, short read transactions inside, nodes cached encoded by id. Since nodes are immutable a cached
 * node is never stale; a node that is gone (-ESTALE) means the caller's root is outdated: it starts again from the image's
 * current base. Folding: one thread, inside the caller's write transaction.
 */
#ifndef VC_MAP_H
#define VC_MAP_H

#include "cache.h"
#include "format.h"
#include "meta.h"

struct vc_map;

struct vc_root {
	uint64_t id;     /* 0: nothing mapped */
	uint32_t height; /* levels including the leaf, 0 when id is 0 */
};

struct vc_map_params {
	struct vc_meta *meta; /* borrowed */
	uint64_t cache_bytes; /* encoded node cache */
	uint64_t next_node;   /* lowest id never used */
};

int vc_map_open(const struct vc_map_params *params, struct vc_map **ret) VC_MUST_CHECK;
void vc_map_close(struct vc_map *map);

/** Entries of blocks lba .. lba + n - 1 into entries[n] (VC_ENTRY_HOLE where nothing is mapped). 0, -ESTALE, -EBADMSG, ... */
int vc_map_lookup(struct vc_map *map, struct vc_root root, uint64_t lba, uint64_t n, uint64_t *entries) VC_MUST_CHECK;

/**
 * Smallest lba' >= lba, below `end`, that is mapped (want_data) or a hole (!want_data); `end` when there is none.
 * Skips empty subtrees without visiting them.
 */
int vc_map_seek(struct vc_map *map, struct vc_root root, uint64_t lba, uint64_t end, bool want_data,
		uint64_t *ret_lba) VC_MUST_CHECK;

/** mapped and own of a whole tree, from the root node's header; own is 0 unless the node's tag is `tag`. */
int vc_map_figures(struct vc_map *map, struct vc_root root, uint64_t tag, uint64_t *ret_mapped,
		   uint64_t *ret_own) VC_MUST_CHECK;

/* ---- folding ---- */

enum vc_change_kind {
	VC_CHANGE_SET,   /* nblocks blocks of one chunk (<= 16, not crossing the chunk): entry, entry + 1, ... */
	VC_CHANGE_ZERO,  /* become holes */
	VC_CHANGE_SHARE, /* become what src holds at src_lba ..: whole aligned subtrees are shared by id, the rest by entry */
};

struct vc_change {
	uint64_t lba;
	uint64_t nblocks;
	enum vc_change_kind kind;
	uint64_t entry;      /* SET */
	struct vc_root src;  /* SHARE */
	uint64_t src_lba;    /* SHARE */
};

struct vc_fold {
	struct vc_root root;       /* before */
	const struct vc_change *changes; /* ascending, not overlapping, below VC_IMAGE_BLOCKS_MAX */
	size_t nchanges;
	uint64_t new_tag;          /* tag of nodes made: the image's open tag, or 0 when several will share them */
	uint64_t dead_tag;         /* replaced nodes with this tag (non-zero) can be reached by nobody else: freed */
	/* When not NULL, called with the id of each node of dead_tag that was replaced, instead of deleting it in this
	 * transaction (a mark is running). Returns 0 or -errno. */
	int (*defer_delete)(void *ctx, uint64_t id);
	void *defer_ctx;
};

/**
 * Apply changes to a tree inside write transaction `txn`; *ret_root is the new root (the old one when nothing changed;
 * id 0 when nothing is mapped any more: empty nodes are not kept). mapped and own of every new node are exact. New
 * nodes enter the cache when they are first looked up, after the commit. Blocks SET are own when new_tag is not 0; SHAREd
 * blocks are not own. A leaf node whose tag is new_tag keeps its own bits; any other starts with none.
 * A source tree must hold no node of dead_tag, and no node to be shared whole may carry new_tag: -EINVAL, as for
 * changes that are not valid. A missing node is -EUCLEAN here. On error the caller aborts the transaction.
 * Returns 0 or -errno.
 */
int vc_map_fold(struct vc_map *map, struct vc_meta_txn *txn, const struct vc_fold *fold,
		struct vc_root *ret_root) VC_MUST_CHECK;

/** Lowest node id never used (goes into the state row of the same transaction as the nodes). */
uint64_t vc_map_next_node(struct vc_map *map);

/* ---- walking, for mark and check ---- */

/** A decoded node; own storage, about 2 KiB. */
struct vc_node {
	enum vc_node_kind kind;
	uint32_t level;
	uint64_t tag, mapped, own;
	uint64_t slots[VC_FANOUT];      /* inner: child ids, 0 none; leaf: entries, 0 hole */
	uint8_t own_bits[VC_FANOUT / 8];/* leaf: blocks written under `tag` */
};

/** Read and decode node `id`, by-passing the cache, in transaction `txn`. 0, -ESTALE (absent), -EBADMSG, -EUCLEAN. */
int vc_map_node_read(struct vc_meta_txn *txn, uint64_t id, struct vc_node *ret) VC_MUST_CHECK;

/** Encode into `buf` (VC_NODE_VALUE_MAX bytes); returns the length. The smaller leaf form is chosen. count/kind are derived. */
size_t vc_node_encode(const struct vc_node *node, uint8_t *buf);
/** Decode and validate untrusted bytes (every field, bit range and count): 0 or -EUCLEAN (no message). */
int vc_node_decode(const uint8_t *buf, size_t len, struct vc_node *ret) VC_MUST_CHECK;

#endif
