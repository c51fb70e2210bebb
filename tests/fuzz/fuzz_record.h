/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz_record: a log record made of an input's bytes: every op, with sensible and with impossible arguments, its sums right. */
#ifndef VC_FUZZ_RECORD_H
#define VC_FUZZ_RECORD_H

#include "fuzz.h"
#include "record.h"

/** What the record may name. */
struct fuzz_world {
	uint64_t max_ino;           /* inode numbers up to a little above this */
	const uint64_t *entries;    /* map entries of chunks that exist; may be NULL */
	const uint64_t *sums;       /* and the checksums in their headers */
	size_t nentries;
};

/** Builds into a record that was initialised; `blocks` of VC_RECORD_EXTS * 8 blocks stay in use until it was emitted. */
void fuzz_record_build(struct fuzz_in *in, const struct fuzz_world *world, uint8_t *blocks, struct vc_record *rec);

#endif
