/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * log: the write-ahead log all changes go through: append, group commit, read back, replay, release.
 *
 *      oldest section           current section
 *   | seg 7 | seg 8 | seg 9 |  | seg 10 | seg 11 ... free segments ...
 *                                        ^ open batch, filled by many, written by one
 *
 * A record is reserved (gets its LSN, its address and its section), filled by the caller without any lock, and submitted. The
 * last one to submit into the batch at the head writes it, in order, into the page cache and calls the completions: no
 * thread is woken for a plain write. A flush is synced by who asks, or by the sync thread, once for all that wait.
 *
 * A section is a run of whole segments whose records are destaged together. vc_log_cut ends the current one at once;
 * released sections give their segments back in order.
 *
 * Invariants
 *   L1  LSNs rise by one per record, across crashes; an LSN is never used twice in one chain of batches.
 *   L2  Batches are written in LSN order; a completion is called only when its record and all before it are written
 *       (write) or on stable storage (flush). Batches complete in LSN order, records of one batch in any.
 *   L3  durable_lsn rises only after a successful sync of every segment holding records up to it, made after the
 *       before_sync hook (chunk data that records name) has succeeded.
 *   L4  After one failed write or sync nothing is accepted any more, and what is in flight fails with -EIO (D4).
 *   L5  A segment is reused only after its section was released, oldest first.
 *
 * Space: a caller is admitted (vc_log_admit) before it reserves; reserving then cannot fail for lack of space and never
 * sleeps. Data is admitted only while a part of the log stays free for metadata (VC_LOG_META).
 */
#ifndef VC_LOG_H
#define VC_LOG_H

#include <stdatomic.h>
#include "done.h"
#include "io.h"
#include "record.h"

struct vc_log;
struct vc_log_batch;

/** Address of a byte in the log: segment sequence number and offset; ordered as the log is. */
#define VC_LOG_ADDR_SHIFT 27
static inline uint64_t vc_log_addr(uint64_t seq, uint64_t offset) { return seq << VC_LOG_ADDR_SHIFT | offset; }

struct vc_log_section {
	uint64_t first_lsn, last_lsn; /* last_lsn: valid once cut; first_lsn - 1 when empty */
	uint64_t first_seq, last_seq; /* last_seq < first_seq: no segment */
	atomic_long inflight;         /* reserved records not yet applied to memory: vc_log_applied */
	bool released;                /* under the log lock */
	struct vc_log_section *next;  /* newer; under the log lock */
};

struct vc_log_params {
	struct vc_io *io;
	const char *dir;
	uint8_t uuid[16];
	uint64_t segment_size;
	uint32_t nsegments;
	uint32_t use_segments; /* so many are made at most; 0: nsegments. Those that are there already are used in any case */
	/* Makes durable what records name outside the log; called by whoever syncs the log, before that. May be NULL. */
	int (*before_sync)(void *ctx);
	/* Log space became free: parked requests may be admitted. Called without locks held, from any thread. */
	void (*space)(void *ctx);
	/*
	 * A write into the log met a full disk, as it may where the file system copies on write: free something. Whether to write
	 * again. Called without locks held. May be NULL.
	 */
	bool (*make_room)(void *ctx);
	void *ctx;
};

/** Where replay starts, from the last checkpoint, and what it does. */
struct vc_log_replay {
	uint64_t checkpoint_lsn;
	uint64_t first_seq;
	uint64_t epoch;  /* the pool's last epoch; the log raises it */
	uint64_t durable_lsn; /* records up to here are known to have been durable, whatever the log itself says; 0: nothing is known */
	bool read_only;  /* replay only; append nothing */
	/* Called before the records of each segment; returns the section they belong to: the one returned before, or a new one (its fields are set here). */
	struct vc_log_section *(*segment)(void *ctx, uint64_t seq);
	/*
	 * One record, in order, all above checkpoint_lsn. `addr` is the address of its first byte. `durable`: it was on stable storage.
	 * Returns 0, 1 (this record does not count: the log ends before it; only if not durable), or -errno (replay fails).
	 */
	int (*record)(void *ctx, uint64_t lsn, uint64_t addr, const uint8_t *bytes, bool durable);
};

/** Make the directory and as many empty segments as a log needs to take data, durable. */
int vc_log_create(const struct vc_log_params *params) VC_MUST_CHECK;
/**
 * Open and replay. All of the log that counts is made durable before this returns, and a new epoch begins in a new segment.
 * `current` is the section of new records (its lsn and seq fields are set here). Returns 0; -EBADMSG: a hole below what is known to be
 * durable; -EUCLEAN: not this log, or a segment is missing; -errno. With a message.
 */
int vc_log_open(const struct vc_log_params *params, const struct vc_log_replay *replay, struct vc_log_section *current,
		struct vc_log **ret) VC_MUST_CHECK;
/** Start the sync and the preparing thread. Without them (before this call) nothing may be appended. */
int vc_log_start(struct vc_log *log) VC_MUST_CHECK;
/** Stop the threads; with `sync`, make everything durable first. Pending flushes are completed. NULL is ignored. */
int vc_log_stop(struct vc_log *log, bool sync) VC_MUST_CHECK;
void vc_log_close(struct vc_log *log);

enum vc_log_class { VC_LOG_DATA, VC_LOG_META };
/**
 * Reserve space for a record of `len` bytes. 0; -EAGAIN (full now: try again after space()); -E2BIG (never fits); -EROFS;
 * -ENOSPC or -EIO: the log is empty, could not be made larger, and is too small for this as it is.
 */
int vc_log_admit(struct vc_log *log, enum vc_log_class class, size_t len) VC_MUST_CHECK;
/** Give an admission back unused. */
void vc_log_unadmit(struct vc_log *log, size_t len);
/** An admission of `from` bytes becomes one of `to` bytes, which are not more. */
void vc_log_shrink_admission(struct vc_log *log, size_t from, size_t to);
/** Longest record the log takes. */
size_t vc_log_record_max(const struct vc_log *log);

struct vc_log_slot {
	uint64_t lsn, addr;
	uint8_t *buf; /* fill `len` bytes, then submit */
	struct vc_log_section *section;
	struct vc_log_batch *batch;
};
/** LSN, address, section for an admitted record; uses up the admission. Never sleeps. -EROFS: the log failed; -ENOMEM (admission gone too). */
int vc_log_reserve(struct vc_log *log, size_t len, struct vc_log_slot *ret) VC_MUST_CHECK;
/** The record's effect is in memory (overlay, rows): its section may be closed. Once per reserved record. */
void vc_log_applied(struct vc_log *log, struct vc_log_section *section);
/**
 * The record is filled. `done` (may be NULL) is called when it is written, or, with `durable`, on stable storage. May write the batch
 * and call other requests' completions.
 */
void vc_log_submit(struct vc_log *log, const struct vc_log_slot *slot, bool durable, struct vc_done *done);

/**
 * For vc_log_flush: all records whose submitter has been told, or is being told, that they are written. Not those that somebody may have
 * seen in memory and that are still to be written.
 */
#define VC_LOG_COMPLETED UINT64_MAX
/**
 * `done` when all records up to lsn are on stable storage. lsn 0: all that are assigned now. may_sync: the calling thread may sync, when nobody
 * does, for itself and a few times for those that come meanwhile, and call other requests' completions; otherwise the sync thread does.
 */
void vc_log_flush(struct vc_log *log, uint64_t lsn, bool may_sync, struct vc_done *done);
/** The same, sleeping. */
int vc_log_flush_wait(struct vc_log *log, uint64_t lsn) VC_MUST_CHECK;

/** Read `len` bytes at addr into buf; sleeps until they are written. The caller holds the section (it is not released). */
int vc_log_read(struct vc_log *log, uint64_t addr, void *buf, size_t len) VC_MUST_CHECK;

/**
 * End the current section; later records go to `next`. Returns false (nothing done) when the current one is empty, or when records that
 * are admitted need the rest of its last segment: then try again when they are reserved.
 */
bool vc_log_cut(struct vc_log *log, struct vc_log_section *next);
/** Sleep until every record of a cut section has been applied to memory. */
void vc_log_wait_applied(struct vc_log *log, struct vc_log_section *section);
/**
 * A cut section is checkpointed and nobody reads it: give its segments back, when it is the oldest. Calls gone() for it and for those that were
 * waiting behind it, once the log does not know them any more; until then they must stay.
 */
void vc_log_release(struct vc_log *log, struct vc_log_section *section, void (*gone)(struct vc_log_section *section));

/** Damage found by vc_log_verify. ino 0: which image it belongs to cannot be told. */
struct vc_log_damage {
	uint32_t slot;
	uint64_t offset;          /* in the file */
	uint64_t ino, lba, nblocks;
};
/**
 * Verify the lowest segment in use with a number of at least `seq`, as it lies on the disk (what the page cache has of it is dropped first, as
 * far as it is clean). bad() is called for every block, record or batch that is not as it was written. Returns the segment's number, 0 when
 * there is none, or -errno; *ret_bytes were read. The caller holds no lock.
 */
int64_t vc_log_verify(struct vc_log *log, uint64_t seq, void (*bad)(void *ctx, const struct vc_log_damage *damage), void *ctx,
		      uint64_t *ret_bytes) VC_MUST_CHECK;

struct vc_log_figures {
	uint64_t last_lsn, written_lsn, durable_lsn, epoch;
	uint64_t bytes, used; /* capacity; in segments not free */
	uint64_t free_for_data;
	bool failed;
};
void vc_log_figures(struct vc_log *log, struct vc_log_figures *ret);
/** Segment number that the next segment put to use will have at least (a checkpoint of all before starts replay there). */
uint64_t vc_log_next_seq(struct vc_log *log);
/**
 * Without opening the log: call fn for every segment with a valid header, in no order. Changes nothing. 0, what fn returned, -ENOENT (no such
 * directory), -EUCLEAN (a segment of another log), -errno.
 */
int vc_log_each_segment(const struct vc_log_params *params, int (*fn)(void *ctx, const struct vc_disk_log_segment *header),
			void *ctx) VC_MUST_CHECK;
/** Does it accept nothing more? space() is called after this has become true. */
bool vc_log_failed(struct vc_log *log);
/** Fail from outside: another store failed (D4). */
void vc_log_fail(struct vc_log *log, int error);

#endif
