/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * scrub: read everything a pool holds from the disk, in the background, and say what is damaged.
 *
 *   LMDB       every page and value of the last commit
 *   log        every segment not yet destaged
 *   chunks     every segment file from end to end; what is not a chunk with right checksums is remembered as a stretch
 *   report     only if something was found: the maps are walked, and each image that names something damaged is listed
 *
 * One pass at a time, by a thread of its own, paced to `rate`. The position in the chunk files and the stretches found are kept in POOL/scrub,
 * so that a pass goes on after the pool was closed or killed; LMDB and the log are looked at again then. All functions are thread-safe.
 */
#ifndef VC_SCRUB_H
#define VC_SCRUB_H

#include "pool.h"

enum vc_scrub_kind {
	VC_SCRUB_CHUNK = 1, /* file: number of the segment, at: offset in it */
	VC_SCRUB_LOG,       /* file: slot, at: offset */
	VC_SCRUB_NODE,      /* file: id of the map node; offset and len: all that it maps */
	VC_SCRUB_ROW,       /* file: the kind of row, a letter; ino: whose */
	VC_SCRUB_META,      /* a page of LMDB's file; see the messages */
};

struct vc_scrub_found {
	uint64_t ino;          /* 0: cannot be told */
	uint64_t offset, len;  /* bytes of the image */
	enum vc_scrub_kind kind;
	uint64_t file, at;
};

struct vc_scrub_status {
	uint64_t id;           /* of the last pass since the pool was opened; 0: none */
	bool running;
	int error;             /* of the last pass, once it has ended: 0, -EINTR (stopped), -errno */
	uint64_t rate, done, total; /* bytes */
	uint64_t found;        /* things listed */
	uint64_t started_ns, finished_ns; /* since the epoch; finished: of the last complete pass, 0: never */
};

/** Go on where the last pass was stopped, or begin one; `again`: from the beginning. rate: bytes a second, 0: no limit. One that runs gets the new rate. Once this
 * has returned, a daemon that is killed goes on with it. */
int vc_scrub_start(struct vc_pool *pool, uint64_t rate, bool again) VC_MUST_CHECK;
/** Ask it to stop, which takes a moment. */
void vc_scrub_stop(struct vc_pool *pool);
void vc_scrub_status(struct vc_pool *pool, struct vc_scrub_status *ret);
/** Things found, from number `from` on; returns how many were put into ret (at most max). */
size_t vc_scrub_list(struct vc_pool *pool, uint64_t from, struct vc_scrub_found *ret, size_t max);

#endif
