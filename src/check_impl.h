/* SPDX-License-Identifier: BSD-2-Clause */
/* check_impl: what the files of the check share. */
#ifndef VC_CHECK_IMPL_H
#define VC_CHECK_IMPL_H

#include "check.h"
#include "pool_impl.h"

struct check_inode {
	uint64_t ino;
	struct vc_inode_fields f;
	struct vc_root root;
	uint64_t tag;
	uint32_t links, subdirs;     /* found */
	bool has_row, has_image, has_target, has_orphan;
};

struct check_name {
	uint64_t parent, ino, cookie;
	uint32_t type;
};

/* What is known of a subtree, once its node was looked at. */
struct check_node {
	uint64_t id;                 /* 0: free place */
	uint64_t mapped, own, tag, end; /* end: one above its highest mapped block, relative to its first */
	uint32_t level;
	bool bad;
};

struct check_chunk {
	uint64_t entry;              /* of block 0; 0: free place */
	uint64_t ino, lba;           /* an image that uses it */
	uint32_t last;               /* highest block of it in use */
};

struct check {
	struct vc_io *io;
	const char *dir;
	const struct vc_check_options *o;
	struct vc_check_result *ret;
	struct vc_disk_pool pool;
	struct vc_disk_state state;
	struct vc_meta *meta;
	struct vc_chunk_store *chunks;
	struct vc_meta_txn *txn;
	struct check_inode *inodes;  /* open addressing by ino */
	size_t inodes_size, ninodes;
	struct check_name *names;
	size_t nnames, names_cap;
	struct check_node *nodes;    /* open addressing by id */
	size_t nodes_size, nnodes;
	struct check_chunk *chunk_set;
	size_t chunk_set_size, nchunk_set;
	struct vc_chunk_segment_info *segments;
	size_t nsegments, segments_cap;
	uint64_t highest_node, highest_tag, image_rows;
};

/** Report something wrong; counts it. */
void check_found(struct check *c, const char *fmt, ...) VC_PRINTF(2, 3);
/** Find or make. NULL: no memory. */
struct check_inode *check_inode_get(struct check *c, uint64_t ino);

/* check_names.c */
int check_rows(struct check *c) VC_MUST_CHECK;
int check_names(struct check *c) VC_MUST_CHECK;
/* check_maps.c */
int check_maps(struct check *c) VC_MUST_CHECK;
int check_data(struct check *c) VC_MUST_CHECK;

#endif
