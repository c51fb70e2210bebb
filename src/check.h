/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * check: do the books of a pool agree with themselves? Reads one LMDB snapshot; works on a mounted pool too, changes nothing.
 *
 * Checked: every row and node decodes and has its checksum; names, link counts, parents, orphans; every image's tree is complete, its levels and its
 * mapped and own figures are exact, nothing is mapped beyond its end; every entry lies in a segment that exists, below its end; counters are
 * above all they were given out to. With data: every chunk in use is read and its checksums verified.
 */
#ifndef VC_CHECK_H
#define VC_CHECK_H

#include "io.h"

struct vc_check_options {
	bool data;              /* read every chunk */
	bool log;               /* also replay the log in memory; only while no daemon has the pool (-EBUSY) */
	bool log_if_free;       /* the same, but that the pool is in use is only told in the result, and that the log is missing is a finding */
	const char *log_dir;    /* NULL: POOL/log */
	const char *meta_file;  /* NULL: data.mdb; see meta.h */
	bool locked;            /* the caller has locked the pool */
	/* One finding, a line of text. */
	void (*found)(void *ctx, const char *text);
	/* How far: `what` is "images" or "chunks". May be NULL. */
	void (*progress)(void *ctx, const char *what, uint64_t done, uint64_t total);
	void *ctx;
};

struct vc_check_result {
	uint64_t findings;      /* things that are wrong */
	uint64_t inodes, directories, images, names, orphans;
	uint64_t nodes, unreachable_nodes; /* the latter wait for `vclone clean`; not wrong */
	uint64_t mapped_blocks;            /* sum over images of what they reference */
	uint64_t chunks, chunk_bytes;      /* in use, each once; stored bytes by the entries' hints */
	uint64_t segments, dead_segments;
	uint64_t checkpoint_lsn;
	int log;                           /* 1: replayed; 0: was not to be; -EBUSY, -ENOENT, other -errno: why it was not */
};

/** Returns 0 when it could look at everything (findings or not), or -errno when it could not. */
int vc_check_pool(struct vc_io *io, const char *dir, const struct vc_check_options *options,
		  struct vc_check_result *ret) VC_MUST_CHECK;

#endif
