/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pool_impl: the inside of a pool, for the layers pool and volume.
 *
 * Life of a change: admitted (log space) -> reserved (LSN, slice) and applied to memory under the locks of what it changes -> written and
 * acknowledged -> its slice is cut, settled, staged (chunks), journalled, folded and committed -> its log segments are free.
 *
 * Threads: destage (cuts and checkpoints slices, oldest first), resume (runs parked requests), reap (deletes orphans), tidy (merges what
 * clones have frozen), clean (mark and sweep, while one runs), and the log's two.
 */
#ifndef VC_POOL_IMPL_H
#define VC_POOL_IMPL_H

#include "catalog.h"
#include "chunk.h"
#include "log.h"
#include "map.h"
#include "meta.h"
#include "pool.h"

/* A checkpoint writes at most about this many map nodes (I7). */
#define VC_SLICE_COST_MAX 40000u
/* Bytes written directly to chunks and not yet checkpointed, at most, in multiples of the log's size. */
#define VC_DIRECT_MAX_LOGS 4u

/* Why new data is refused; each is taken back by whoever found it. */
enum vc_pool_full {
	VC_FULL_RESERVE = 1 << 0, /* little is left of the file system below, or of the reserve */
	VC_FULL_DESTAGE = 1 << 1, /* a checkpoint found no space */
};

struct vc_ballast;
struct vc_journal;
struct vc_journal_last;
struct vc_clean;

/** A request that waits for log space. */
struct vc_parked {
	struct vc_parked *next;
	enum vc_log_class class;
	size_t len;
	/* error 0: admitted, go on; otherwise finish with it. Called on the resume thread, no locks held. */
	void (*fn)(struct vc_parked *parked, int error);
};

struct vc_task {
	struct vc_task_status status;
	uint64_t target_lsn; /* destage: of the running one */
};

struct vc_scrub;

struct vc_pool {
	struct vc_io *io;
	char *dir;
	uint64_t bad_chunks;            /* fixed after recovery */
	struct vc_disk_pool disk;
	struct vc_pool_options options;
	struct vc_file *lock_file;
	struct vc_meta *meta;
	struct vc_map *map;
	struct vc_chunk_store *chunks;
	struct vc_log *log;
	struct vc_journal *journal;
	struct vc_bases bases;
	struct vc_catalog catalog;
	struct vc_mutex names;      /* VC_LOCK_NS */
	struct vc_mutex fold;       /* VC_LOCK_FOLD: over commit and swap of views; a reader that met -ESTALE passes through it */
	atomic_int failed;          /* 0 or -errno: nothing is accepted any more (D4) */
	atomic_uint full;           /* enum vc_pool_full: new data is refused while not 0 */
	_Atomic uint64_t space_checked_ns;
	_Atomic uint64_t grown;     /* bytes of records that make names and the like, since there was room (vc_pool_may_grow) */
	uint64_t grow_max;          /* fixed after opening */
	struct vc_ballast *ballast; /* NULL: read-only, or recovering */
	struct vc_mutex space_lock; /* VC_LOCK_SPACE: the pieces of the ballast */
	_Atomic uint64_t direct_bytes; /* undestaged, in chunk files */
	_Atomic uint64_t next_content;
	uint32_t chunk_blocks;

	struct vc_mutex lock;       /* VC_LOCK_POOL: all below */
	struct vc_cond destage_cond, resume_cond, reap_cond, tidy_cond, task_cond;
	struct vc_list slices;      /* oldest first; the last is current */
	struct vc_slice *current;
	uint64_t cut_since_ns;      /* first record of the current slice, about; 0: it was empty */
	bool destage_now;
	atomic_bool cut_wanted;                /* the current slice could not be cut this moment: any progress of the log wakes destage */
	struct vc_parked *parked, **parked_tail;
	uint64_t log_waits;         /* how many were ever parked */
	atomic_bool queued;         /* parked is not empty; read without the lock */
	uint64_t *orphans;          /* inode numbers to delete */
	size_t norphans, orphans_cap;
	bool reaping;               /* the reap thread is deleting one */
	bool reap_stuck;            /* the last one could not be deleted; it is tried again from time to time */
	struct vc_task destage_task, clean_task;
	struct vc_clean *clean;     /* a mark that is running, NULL: none; changed under fold and lock */
	struct vc_base *tidy, **tidy_tail; /* to be tidied, each counted */
	bool stopping, abandoned;
	atomic_bool started;        /* read without the lock by the log, which starts first */
	pthread_t destage_thread, resume_thread, reap_thread, tidy_thread, clean_thread;
	bool clean_joinable;
	struct vc_scrub *scrub;     /* set once; NULL: read-only */

	/* destage thread, and recovery before it: */
	uint64_t checkpoint_lsn;
	_Atomic uint64_t mark_ns;
	uint64_t epoch;
	_Atomic uint64_t images;    /* rows of kind 'M' at the checkpoint */
};

/* pool.c */
char *vc_pool_path(const struct vc_pool *pool, const char *name);
/** The pool accepts nothing more; one message. Any thread, any lock up to VC_LOCK_POOL's rank excluded. */
void vc_pool_fail(struct vc_pool *pool, int error);
/** 0 or why nothing may change now: -EROFS. */
int vc_pool_writable(struct vc_pool *pool) VC_MUST_CHECK;
/** Request space in the log: 0 admitted, -EAGAIN (park with vc_pool_park), -ENOSPC (disk full, data only), -EROFS, -E2BIG. */
int vc_pool_admit(struct vc_pool *pool, enum vc_log_class class, size_t len) VC_MUST_CHECK;
void vc_pool_park(struct vc_pool *pool, struct vc_parked *parked);
/** Admission that sleeps: for threads of the engine itself and operations that may. */
int vc_pool_admit_wait(struct vc_pool *pool, enum vc_log_class class, size_t len) VC_MUST_CHECK;
/** Sleep until no deleted inode waits to be removed from the books, or that does not work at the moment. */
void vc_pool_wait_reaped(struct vc_pool *pool);
/** Delete this inode, which has neither names nor users, when the reap thread gets to it. For vc_catalog.orphaned. */
void vc_pool_orphaned(struct vc_pool *pool, uint64_t ino);
/** For vc_thread_start; argument: the pool. They end when pool->stopping is seen. */
void *vc_pool_resume_thread(void *pool);
void *vc_pool_reap_thread(void *pool);
/** Every thread looks at the pool again. Pool lock held. */
void vc_pool_wake_all_locked(struct vc_pool *pool);
/** Hooks of the log (struct vc_log_params). */
void vc_pool_space(void *pool);
int vc_pool_before_sync(void *pool);
bool vc_pool_log_room(void *pool);
/** Bytes of all slices that no checkpoint holds yet. Pool lock held. */
uint64_t vc_pool_undestaged_locked(const struct vc_pool *pool);
/** After a change: count it, and start destaging when it is time. */
void vc_pool_changed(struct vc_pool *pool, struct vc_slice *slice, uint64_t bytes);
static inline struct vc_slice *vc_pool_slice_of(struct vc_log_section *section)
{
	return vc_container_of(section, struct vc_slice, section);
}

/* ballast.c: space for what was accepted. */
/**
 * Make or find the ballast, after recovery. A full disk is no error. `next_segno`: lowest number of a chunk segment that the last
 * checkpoint had not given out. 0 or -errno.
 */
int vc_ballast_open(struct vc_pool *pool, uint64_t next_segno) VC_MUST_CHECK;
void vc_ballast_close(struct vc_pool *pool);
/**
 * For vc_chunk_params.take_reserved: a checkpoint found no room for a file at `path`; a piece of the ballast becomes that file.
 * Not durable there before its directory is synced. 0, -ENOSPC (none left, or recovering), -errno. Takes VC_LOCK_SPACE.
 */
int vc_ballast_take(void *pool, const char *path, uint64_t *ret_size) VC_MUST_CHECK;
/**
 * The engine met a full disk: give a piece of the ballast up. Whether that freed anything, so that trying again makes sense. No lock
 * from VC_LOCK_POOL on.
 */
bool vc_pool_make_room(struct vc_pool *pool);
/** See whether there is room for new data (pool->full): five times a second, or `now`. */
void vc_pool_check_space(struct vc_pool *pool, bool now);
/**
 * May a record of `len` bytes add names, inodes or attributes? Call vc_pool_check_space before. -ENOSPC: new data is refused, and what was added since has
 * used up half of what LMDB keeps for checkpoints, deletes and cleans, which then go on.
 */
int vc_pool_may_grow(struct vc_pool *pool, size_t len) VC_MUST_CHECK;
/** A record of `len` bytes did. */
void vc_pool_grew(struct vc_pool *pool, size_t len);
/** Of the free space below, what new data may have. */
uint64_t vc_pool_space_for_data(struct vc_pool *pool, const struct vc_io_space *space);
/**
 * Begin to write to LMDB with room in its file for `npages` more pages, about; pieces of the ballast are given up for that if need be. Where there
 * is no room at all it begins nevertheless: the commit may then lack space. As vc_meta_write_begin.
 */
int vc_pool_meta_begin(struct vc_pool *pool, uint64_t npages, struct vc_meta_txn **ret) VC_MUST_CHECK;
/** How many log segments there may be, so that the ballast holds what is in them: all but on small disks. */
uint32_t vc_space_log_segments(struct vc_pool *pool);
/** Bytes that LMDB's file keeps allocated beyond its end, for checkpoints on a full disk. */
uint64_t vc_space_meta_reserve(struct vc_pool *pool);
/** The same of the journal; 0 while there is no room for so much. */
uint64_t vc_space_journal_ahead(struct vc_pool *pool);

/* scrub.c */
/** Find out how far the last pass came, and go on with one that ran. Returns 0 or -errno. */
int vc_scrub_open(struct vc_pool *pool) VC_MUST_CHECK;
/** The pool is stopping: wait for the pass, which is gone on with at the next opening. */
void vc_scrub_close(struct vc_pool *pool);

/* super.c */
int vc_super_read(struct vc_io *io, const char *dir, struct vc_disk_pool *ret) VC_MUST_CHECK;
int vc_super_lock(struct vc_io *io, const char *dir, struct vc_file **ret) VC_MUST_CHECK;
/** The same without a message for -EBUSY. */
int vc_super_try_lock(struct vc_io *io, const char *dir, struct vc_file **ret) VC_MUST_CHECK;
/** A new LMDB in POOL/meta (`file`: see meta.h) with the first state of a pool: a root directory of time `now`, and nothing else. */
int vc_super_first_state(struct vc_io *io, const char *dir, const char *file, const struct vc_disk_pool *pool,
			 uint64_t now) VC_MUST_CHECK;

/* apply.c: the effect of ops on memory. Locks of everything named are held, or it is recovery. */
int vc_apply_op(struct vc_pool *pool, struct vc_slice *slice, const struct vc_op *op, uint64_t record_addr,
		uint64_t time_ns) VC_MUST_CHECK;
/** The same when the inodes are at hand: inode = op->ino, source = op->arg of clones (NULL otherwise). */
int vc_apply_data(struct vc_slice *slice, const struct vc_op *op, uint64_t record_addr, uint64_t time_ns,
		  struct vc_inode *inode, struct vc_inode *source) VC_MUST_CHECK;
/**
 * Log and apply a finished, admitted record. The caller holds the locks of all existing inodes it changes; data ops on `inode` (with `source`) go to these
 * objects, any other data op must be a clone to an inode made by the same record. On success the caller emits and submits the slot.
 */
int vc_apply_record(struct vc_pool *pool, struct vc_record *rec, struct vc_inode *inode, struct vc_inode *source,
		    struct vc_log_slot *slot) VC_MUST_CHECK;

/* tidy.c */
/** A live operation has frozen `base`: it is tidied soon. Takes its own reference; any locks below VC_LOCK_BASE may be held. */
void vc_pool_tidy(struct vc_pool *pool, struct vc_base *base);
/** For vc_thread_start; argument: the pool. */
void *vc_tidy_thread(void *pool);
/** The thread has ended: drop what was left to it. */
void vc_tidy_drop(struct vc_pool *pool);

/*
 * recover.c: replay of the log; fills pool->slices. `durable_lsn`: a checkpoint is written to the journal when all that it covers is durable. So when
 * LMDB does not know it, be it that the crash came before the commit or that LMDB's newest page was lost, what is missing in the log or
 * in its chunks up to there is damage, not an end.
 */
int vc_recover(struct vc_pool *pool, const struct vc_disk_state *state, uint64_t durable_lsn) VC_MUST_CHECK;

/* destage.c */
void *vc_destage_thread(void *arg);
int vc_destage_slice(struct vc_pool *pool, struct vc_slice *slice) VC_MUST_CHECK;
/** End the current slice, if it has anything. Pool lock held. */
/** 0: also when there is nothing to cut, or not yet; -ENOMEM: the slice just grows. */
int vc_destage_cut_locked(struct vc_pool *pool);
void vc_destage_slice_destroy(struct vc_slice *slice);

/* destage_commit.c */
/**
 * Put one catalog row (kinds I D L X O), or with value NULL delete it; with an inode's row go all that hang on it. Of one
 * checkpoint, deleted inodes come after everything else.
 */
int vc_commit_row(struct vc_meta_txn *txn, const uint8_t *key, size_t key_len, const void *value, size_t len) VC_MUST_CHECK;

/* journal.c: what checkpoints changed, kept until a verified backup of LMDB covers it. */
/** `last`: what vc_journal_last found; end 0: nothing to go on with. Afterwards no entry leads beyond the checkpoint that LMDB holds. */
int vc_journal_open(struct vc_pool *pool, const struct vc_journal_last *last, struct vc_journal **ret) VC_MUST_CHECK;
void vc_journal_close(struct vc_journal *journal);
void vc_journal_begin(struct vc_journal *journal);
int vc_journal_item(struct vc_journal *journal, enum vc_journal_kind kind, uint64_t lba, uint64_t nblocks, uint64_t value,
		    uint64_t ref) VC_MUST_CHECK;
int vc_journal_row(struct vc_journal *journal, const struct vc_slice_row *row) VC_MUST_CHECK;
/** Write and sync the entry begun: what leads from checkpoint prev_lsn to checkpoint lsn. */
int vc_journal_commit(struct vc_journal *journal, uint64_t prev_lsn, uint64_t lsn) VC_MUST_CHECK;
/** Make a backup of LMDB and drop what it covers, when the journal has grown enough. Failures are only reported. */
void vc_journal_trim(struct vc_journal *journal, uint64_t checkpoint_lsn);

/* clean.c */
int vc_clean_start(struct vc_pool *pool, uint64_t *ret_id) VC_MUST_CHECK;
/** A mark is running: nodes that checkpoints replace are handed to it. Fold lock held. */
bool vc_clean_running(struct vc_pool *pool);
/** For vc_fold.defer_delete. */
int vc_clean_defer(void *pool, uint64_t node_id);
/** How many were handed over, and taking back all after the first n: their transaction was given up. Fold lock held. */
size_t vc_clean_deferred(const struct vc_pool *pool);
void vc_clean_undefer(struct vc_pool *pool, size_t n);
void vc_clean_stop(struct vc_pool *pool);

#endif
