/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta_page: how pages of an LMDB file look: LMDB 0.9 on a 64-bit machine, with the byte order of this one. Private to
 * meta_check and meta_walk, which read them with plain reads.
 */
#ifndef VC_META_PAGE_H
#define VC_META_PAGE_H

#include <stddef.h>

#include "util.h"

#define LMDB_MAGIC 0xbeefc0deu
#define LMDB_VERSION 1u
#define LMDB_PAGE_MIN 512u
#define LMDB_PAGE_MAX 65536u
#define LMDB_NO_PAGE UINT64_MAX
#define LMDB_DEPTH_MAX 32u
#define LMDB_INTEGER_KEY 0x08
#define LMDB_MADE_AS_FILE 0x4000 /* in the flags of the free list: how LMDB was opened when it made the file */
#define LMDB_FREE_BEGINS 2u /* first page that is not a meta page */

enum lmdb_page_flags { LMDB_BRANCH = 0x01, LMDB_LEAF = 0x02, LMDB_OVERFLOW = 0x04, LMDB_META = 0x08 };

enum lmdb_node_flags {
	LMDB_NODE_BIG = 0x01,  /* the value is the number of its first overflow page */
	LMDB_NODE_TREE = 0x02, /* the value is a struct lmdb_tree */
};

struct lmdb_page {
	uint64_t number;
	uint16_t pad;
	uint16_t flags;
	uint16_t lower; /* end of the table of node offsets; for overflow pages the low half of their count */
	uint16_t upper;
};

struct lmdb_tree {
	uint32_t pad;   /* of the free list: the page size */
	uint16_t flags; /* of the free list: LMDB_INTEGER_KEY */
	uint16_t depth;
	uint64_t branch_pages, leaf_pages, overflow_pages, entries, root;
};

struct lmdb_meta {
	struct lmdb_page page;
	uint32_t magic, version;
	uint64_t address, map_size;
	struct lmdb_tree free_list, main;
	uint64_t last_page, txn;
};

struct lmdb_node {
	uint16_t lo, hi; /* leaf: low and high half of the value's length; branch: low 32 bits of the child */
	uint16_t flags;  /* branch: high 16 bits of the child */
	uint16_t key_len;
};

_Static_assert(sizeof(size_t) == 8, "the LMDB file format is that of a 64-bit machine");
_Static_assert(sizeof(struct lmdb_page) == 16 && sizeof(struct lmdb_node) == 8, "LMDB headers");
_Static_assert(offsetof(struct lmdb_meta, free_list) == 40, "LMDB meta page");
_Static_assert(offsetof(struct lmdb_meta, last_page) == 136 && sizeof(struct lmdb_meta) == 152, "LMDB meta page");
_Static_assert(sizeof(struct lmdb_tree) == 48, "LMDB tree record");

static inline uint64_t lmdb_value_len(const struct lmdb_node *node) { return node->lo | (uint64_t)node->hi << 16; }
static inline uint64_t lmdb_child(const struct lmdb_node *node)
{
	return node->lo | (uint64_t)node->hi << 16 | (uint64_t)node->flags << 32;
}

#endif
