/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * map_impl: what map.c, map_node.c and map_fold.c share. Private to the map.
 *
 * Encoded nodes handed to the vc_node_* functions here were validated (vc_node_decode) before; they are trusted.
 */
#ifndef VC_MAP_IMPL_H
#define VC_MAP_IMPL_H

#include <stdatomic.h>

#include "map.h"

struct vc_map {
	struct vc_meta *meta;
	struct vc_cache *cache;         /* encoded, validated nodes by id */
	_Atomic uint64_t next_node;     /* raised only inside the write transaction */
};

/* ---- geometry ---- */

/** Blocks under one node of `level`. */
static inline uint64_t vc_map_span(uint32_t level)
{
	return UINT64_C(1) << (VC_LEAF_SHIFT + VC_FANOUT_SHIFT * level);
}

/** Blocks that a tree of `height` maps. */
static inline uint64_t vc_map_reach(uint32_t height)
{
	return height ? vc_map_span(height - 1) : 0;
}

/** Index of the child of a node of `level` (1 or more) that holds block lba. */
static inline uint32_t vc_map_slot(uint64_t lba, uint32_t level)
{
	return (uint32_t)(lba >> (VC_FANOUT_SHIFT * level)) & (VC_FANOUT - 1);
}

/* ---- reading encoded nodes without decoding them whole (map_node.c) ---- */

struct vc_node_figures {
	uint32_t level;
	uint64_t tag, mapped, own;
};

struct vc_node_figures vc_node_figures(const uint8_t *buf);
/** Child id of an inner node, 0 when there is none. */
uint64_t vc_node_child(const uint8_t *buf, uint32_t slot);
/** First slot >= `slot` of an inner node that has a child; VC_FANOUT when there is none. */
uint32_t vc_node_next_child(const uint8_t *buf, uint32_t slot);
/** Entries of blocks first .. first + n - 1 of a leaf. */
void vc_node_entries(const uint8_t *buf, uint32_t first, uint32_t n, uint64_t *entries);

/* ---- reading trees (map.c) ---- */

/**
 * A reader: one thread, one lookup. With `txn` given by the caller nodes are read through it and the cache is only
 * looked at; otherwise missing nodes enter the cache, through a read transaction begun at the first of them.
 */
struct vc_map_reader {
	struct vc_map *map;
	struct vc_meta_txn *txn;
	bool borrowed;       /* txn is the caller's */
	uint64_t forbid_tag; /* not 0: a node of this tag is refused with -EINVAL */
};

/** Hold the encoded node `id`, which must be of `level`. 0, -ESTALE (absent), -EBADMSG, -EUCLEAN, -EINVAL, ... */
int vc_map_reader_get(struct vc_map_reader *reader, uint64_t id, uint32_t level,
		      struct vc_cache_ref *ret) VC_MUST_CHECK;
void vc_map_reader_put(struct vc_map_reader *reader, struct vc_cache_ref *ref);
/** Id of the node of `level` that holds block lba, 0 when nothing is mapped there or the tree is lower. */
int vc_map_reader_find(struct vc_map_reader *reader, struct vc_root root, uint64_t lba, uint32_t level,
		       uint64_t *ret_id) VC_MUST_CHECK;
int vc_map_reader_lookup(struct vc_map_reader *reader, struct vc_root root, uint64_t lba, uint64_t n,
			 uint64_t *entries) VC_MUST_CHECK;
int vc_map_reader_seek(struct vc_map_reader *reader, struct vc_root root, uint64_t lba, uint64_t end, bool want_data,
		       uint64_t *ret_lba) VC_MUST_CHECK;

#endif
