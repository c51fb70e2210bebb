/* SPDX-License-Identifier: BSD-2-Clause */
/* clean_impl: what the files of the mark and sweep share. Used by the clean thread alone, except where it says otherwise. */
#ifndef VC_CLEAN_IMPL_H
#define VC_CLEAN_IMPL_H

#include "pool_impl.h"

#define CLEAN_SWEEP_BATCH 10000u   /* deletions per write transaction */

#define OWNER_SHARED UINT32_MAX

/* A sparse set of node ids. */
struct id_set {
	uint64_t **pages;
	size_t npages;
};

struct clean_image {
	uint64_t ino;
	struct vc_root root;
	uint64_t blocks, bytes; /* exclusive */
};

struct clean_chunk {
	uint64_t entry; /* of block 0; 0: free place */
	uint32_t owner; /* index of the image, or OWNER_SHARED */
	uint32_t blocks;
};

struct clean_todo {
	uint64_t id;
	bool shared;
};

struct vc_clean {
	struct vc_pool *pool;
	uint64_t next_node, checkpoint_lsn, now_ns;
	struct clean_image *images;
	size_t nimages, images_cap;
	uint64_t *roots; /* of views in memory */
	size_t nroots, roots_cap;
	struct id_set visited, shared;
	struct clean_chunk *chunks;
	size_t chunks_size, nchunks;
	struct clean_todo *todo;
	size_t ntodo, todo_cap;
	uint32_t owner;
	uint64_t *deferred; /* by the fold lock */
	size_t ndeferred, deferred_cap;
	uint64_t freed_nodes, freed_segments, freed_bytes, marked;
};

/* clean.c */
/** The pool is being closed or has failed. Takes the pool lock. */
bool vc_clean_must_stop(struct vc_clean *c);

/* clean_mark.c */
/** A set for ids up to `end`. */
int vc_clean_set_init(struct id_set *set, uint64_t end) VC_MUST_CHECK;
void vc_clean_set_fini(struct id_set *set);
bool vc_clean_set_has(const struct id_set *set, uint64_t id);
/** Walk from everything captured; fills visited, shared and chunks. 0, -EINTR (must stop), -ESTALE (a node is missing), -errno. */
int vc_clean_mark(struct vc_clean *c) VC_MUST_CHECK;

/* clean_sweep.c */
/** Delete what a complete mark has not reached; counts it. 0, -EINTR (must stop), -errno. */
int vc_clean_sweep(struct vc_clean *c) VC_MUST_CHECK;
/** Delete these nodes in one transaction. One that is gone already is no error. */
int vc_clean_delete(struct vc_clean *c, const uint64_t *ids, size_t n) VC_MUST_CHECK;

#endif
