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
	uint64_t tag, content;
	uint64_t end;                /* one above the highest mapped block */
	uint32_t links, subdirs;     /* found */
	bool has_row, has_image, has_target, has_orphan;
	bool has_names, has_xattrs;  /* entries with it as the directory; attributes */
	/* repair: */
	bool changed;                /* f is to be written */
	bool dangling;               /* there were only names of it */
	uint32_t right_names;        /* directories: in the one that they say is their parent */
};

struct check_name {
	uint64_t parent, ino, cookie; /* repair: ino 0: removed */
	uint32_t type;
	uint8_t name_len;
	char *name;                  /* without NUL */
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
	uint64_t highest_ino, highest_node, highest_tag, highest_content, highest_segno, image_rows;
	bool incomplete;             /* the scan of the rows met one that is damaged: what follows it is not known */
};

/*
 * A check in steps: open, look (rows, names, maps, counters), close the files, free what was found out. A failed open is closed and freed as well.
 */
int check_open(struct check *c) VC_MUST_CHECK;
int check_look(struct check *c) VC_MUST_CHECK;
void check_close(struct check *c);
void check_free(struct check *c);

/** Report something wrong; counts it. */
void check_found(struct check *c, const char *fmt, ...) VC_PRINTF(2, 3);
/** Find or make. NULL: no memory. */
struct check_inode *check_inode_get(struct check *c, uint64_t ino);
/** Do the parents of this directory lead to the root? */
bool check_is_rooted(struct check *c, const struct check_inode *dir);

/* check_names.c */
int check_rows(struct check *c) VC_MUST_CHECK;
int check_names(struct check *c) VC_MUST_CHECK;
/* check_maps.c */
int check_maps(struct check *c) VC_MUST_CHECK;
int check_data(struct check *c) VC_MUST_CHECK;

#endif
