/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chunk_fixture: what the tests of the chunk store share: a store in a private directory over an io table that can fail
 * on order and that keeps book of what has been synced.
 */
#ifndef VC_CHUNK_FIXTURE_H
#define VC_CHUNK_FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>

#include "chunk.h"

#define FIX_BLOCK ((size_t)VC_BLOCK_SIZE)
#define FIX_SEGMENT (256u << 10)
#define FIX_BLOCKS 16u

/** What the io table is to do wrong, and what it has seen. Errors are positive errno values, 0: work. */
struct fault_io {
	struct vc_io io;
	_Atomic int write_error;     /* of pwritev, after writing half of the bytes */
	_Atomic int writes_left;     /* this many succeed first */
	_Atomic int sync_error, dir_error, allocate_error, read_error, open_error;
	_Atomic bool slow_sync;      /* a sync takes many turns of the scheduler */
	_Atomic unsigned syncs, dir_syncs, reads, writes, open_files;
	pthread_mutex_t lock;
	uint64_t next_write;         /* lock; number of the next write */
	uint64_t created, dir_synced;/* lock; numbers of the last creation, and up to which the directory is synced */
	struct fault_file *files;    /* lock; open ones */
};

struct chunk_fixture {
	char *top;
	char *dir;
	struct fault_io fault;
	struct vc_chunk_params params;
	struct vc_chunk_store *store;
};

/** A created and opened store: segments of FIX_SEGMENT, chunks of FIX_BLOCKS, a cache of 4 MiB. */
void fix_open(struct chunk_fixture *fix);
/** Close and open again with the present params. */
void fix_reopen(struct chunk_fixture *fix);
void fix_close(struct chunk_fixture *fix);
/** Path of a segment file; static storage, for one use. */
const char *fix_path(const struct chunk_fixture *fix, uint64_t segno);

/** Fill blocks with content that depends on `seed`; compressible to about a third when `soft`. */
void fix_fill(uint8_t *data, uint32_t nblocks, uint64_t seed, bool soft);
/** Assert that `entry`, which is block `first` of what fix_fill made, reads as it was filled. */
void fix_expect(struct chunk_fixture *fix, uint64_t entry, uint32_t first, uint32_t nblocks, uint32_t total,
		uint64_t seed, bool soft);
/** Append what fix_fill makes to a stream, which must work. Returns the entry. */
uint64_t fix_append(struct chunk_fixture *fix, enum vc_chunk_stream stream, uint64_t lsn, uint32_t nblocks,
		    uint64_t seed, bool soft);

/** Chunk i of many: of 1 + i % FIX_BLOCKS blocks, filled with seed i + 1, every third as noise. */
uint32_t fix_blocks_of(size_t i);
bool fix_soft_of(size_t i);
/** Append that many to the DESTAGE stream, and sync. */
void fix_append_many(struct chunk_fixture *fix, uint64_t *entries, size_t n);

/** Number of the last write that has ended. */
uint64_t fault_written(struct fault_io *fault);
/** Are all writes up to number `upto` to the file at `path`, and its directory entry, synced? */
bool fault_is_durable(struct fault_io *fault, const char *path, uint64_t upto);

#endif
