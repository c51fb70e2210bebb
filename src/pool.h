/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pool: one directory with its log, chunk store and maps, opened as a whole. What the front ends see.
 *
 * Life cycle: vc_pool_create once; vc_pool_open (recovers, starts the threads) ... vc_pool_close (flushes, stops them).
 * vc_pool_close after a failure is safe and loses nothing acknowledged.
 */
#ifndef VC_POOL_H
#define VC_POOL_H

#include "done.h"
#include "io.h"

struct vc_pool;

/** Parameters fixed when the pool is made. Zero fields take the default. */
struct vc_pool_geometry {
	uint32_t chunk_blocks;       /* blocks in a chunk, power of two up to 16; default 4 (16 KiB) */
	uint64_t chunk_segment_size; /* default 64 MiB */
	uint64_t log_segment_size;   /* default 16 MiB */
	uint32_t log_segments;       /* default 64 (1 GiB of log) */
};

/** Options of one opening. Zero fields take the default. */
struct vc_pool_options {
	uint64_t cache_bytes;      /* decompressed chunks; default 256 MiB */
	uint64_t node_cache_bytes; /* map nodes; default 64 MiB */
	const char *log_dir;       /* where the log lives; default POOL/log */
	uint32_t destage_ms;       /* a change is destaged at the latest after this time; default 5000; ~0: only on demand or for space */
	bool read_only;            /* nothing on disk is changed; what the log holds is replayed in memory */
	bool verify;               /* also read the chunks that the log names, see vc_pool_bad_chunks */
	bool real_blocks;          /* st_blocks tells what the image references instead of its size */
	uint64_t journal_bytes;    /* the destage journal is this large before a backup of LMDB covers it; default 64 MiB */
	const char *meta_file;     /* another file in POOL/meta than data.mdb (see meta.h); with read_only */
	bool keep_orphans;         /* what is to be deleted stays: a repair may find that it has a name */
	uint64_t meta_map_size;    /* most that LMDB's file may grow to; default: see meta.h */
	bool locked;               /* the caller has locked the pool, and keeps it locked */
};

/** What `vclone df` prints. */
struct vc_pool_figures {
	uint8_t uuid[16];
	uint64_t fs_total, fs_free;        /* bytes of the file system the pool lives on; free for new data, what the pool keeps apart */
	uint64_t chunk_bytes;              /* bytes in chunk segments */
	uint64_t chunk_segments;
	uint64_t log_bytes, log_used;      /* of the log: all, and not yet destaged */
	uint64_t meta_bytes;               /* LMDB file */
	uint64_t images;                   /* regular files at the last checkpoint */
	uint64_t undestaged_bytes;         /* of log records in the current slice; earlier slices and direct chunks not counted */
	uint64_t checkpoint_lsn, durable_lsn, last_lsn;
	uint64_t cache_hits, cache_misses, cache_bytes;
	uint64_t log_waits;                /* requests that had to wait for room in the log, since the pool was opened */
	uint64_t failed;                   /* 1: a sync failed, writes are refused (D4) */
};

/** A long task of the pool and how far it is. */
enum vc_task_kind { VC_TASK_DESTAGE, VC_TASK_CLEAN };
struct vc_task_status {
	uint64_t id;        /* of the last started task of that kind, 0: none yet */
	uint64_t done, total; /* in bytes (destage) or nodes (clean); total may grow */
	int32_t running;
	int32_t error;      /* of the last finished one, 0 or -errno */
	uint64_t freed_nodes, freed_segments, freed_bytes; /* clean */
};

/**
 * Make a pool in `dir`: an existing empty directory, or one that is created. Durable on return. Returns 0, -ENOTEMPTY,
 * -EEXIST (a pool already), -EINVAL (geometry), -errno. A half-made pool is recognised as such by open.
 */
int vc_pool_create(struct vc_io *io, const char *dir, const struct vc_pool_geometry *geometry) VC_MUST_CHECK;

/** Returns 0; -EBUSY (another process has it), -EUCLEAN/-EBADMSG/-ENOTSUP (damaged, foreign, newer), -errno; with a message. */
int vc_pool_open(struct vc_io *io, const char *dir, const struct vc_pool_options *options,
		 struct vc_pool **ret) VC_MUST_CHECK;

/** With `verify`: chunks named by durable records of the log that were found damaged; each was said. */
uint64_t vc_pool_bad_chunks(const struct vc_pool *pool);

/** Stop the threads, make everything acknowledged durable, close. No operation may be in progress. 0 or the first error. */
int vc_pool_close(struct vc_pool *pool) VC_MUST_CHECK;
/** For tests and after a crash of the layers above: stop without syncing or destaging anything. */
void vc_pool_abandon(struct vc_pool *pool);

/** Start (or join a running) destage of everything acknowledged now, resp. a mark and sweep. ret_id: see vc_task_status. */
int vc_pool_task_start(struct vc_pool *pool, enum vc_task_kind kind, uint64_t *ret_id) VC_MUST_CHECK;
void vc_pool_task_status(struct vc_pool *pool, enum vc_task_kind kind, struct vc_task_status *ret);
/** Sleep until the task `id` of that kind has ended; returns its error. */
int vc_pool_task_wait(struct vc_pool *pool, enum vc_task_kind kind, uint64_t id) VC_MUST_CHECK;

/** Make all that returned before this call durable. */
int vc_pool_sync(struct vc_pool *pool, struct vc_done *done) VC_MUST_CHECK;

int vc_pool_figures(struct vc_pool *pool, struct vc_pool_figures *ret) VC_MUST_CHECK;

#endif
