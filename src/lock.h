/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lock: mutexes with a rank, and the one table that says in which order they are taken.
 *
 * Never take a lock whose rank is lower than or equal to one already held, except where the table
 * says "several". Debug builds (configure --enable-debug) assert this on every lock call.
 *
 *   rank                protects                                              held over I/O?
 *   VC_LOCK_FOLD        a checkpoint's commit and the swap of views after it   LMDB commit
 *   VC_LOCK_META_WRITE  the single LMDB writer                                 LMDB commit
 *   VC_LOCK_NS          names: dirents, link counts, inode creation            LMDB reads only
 *   VC_LOCK_VOLUME      one image: its base, active overlay, size, times,      LMDB reads only
 *                       and the order "assign LSN, insert into overlay" (I6);
 *                       several: lower inode number first
 *   VC_LOCK_CATALOG     inode hash table and its reference counts             never
 *   VC_LOCK_SLICE       rows and dirty lists of one slice                     never
 *   VC_LOCK_BASE        views of bases, children lists                        never
 *   VC_LOCK_POOL        pool state: parked requests, destage requests          never
 *   VC_LOCK_CHUNK_IO    one chunk stream: position, write buffer               chunk writes
 *   VC_LOCK_SPACE       the pieces of the pool's reserve                       making, renaming them
 *   VC_LOCK_LOG         log position, LSN, batches, flush queue                never
 *   VC_LOCK_CHUNK       chunk store: segment table                             never
 *   VC_LOCK_CACHE       one shard of a cache                                   never
 *   VC_LOCK_WORK        pieces of work for several threads; reads of a ring   never
 *   VC_LOCK_DONE        what a completion may take                             never
 *   VC_LOCK_MSG         the message sink                                       the message
 */
#ifndef VC_LOCK_H
#define VC_LOCK_H

#include <pthread.h>
#include "util.h"

enum vc_lock_rank {
	VC_LOCK_FOLD = 1,
	VC_LOCK_META_WRITE,
	VC_LOCK_NS,
	VC_LOCK_VOLUME,
	VC_LOCK_CATALOG,
	VC_LOCK_SLICE,
	VC_LOCK_BASE,
	VC_LOCK_POOL,
	VC_LOCK_CHUNK_IO,
	VC_LOCK_SPACE,
	VC_LOCK_LOG,
	VC_LOCK_CHUNK,
	VC_LOCK_CACHE,
	VC_LOCK_WORK,
	VC_LOCK_DONE,
	VC_LOCK_MSG,
};

#if defined(__clang__)
#define VC_CAPABILITY(x) __attribute__((capability(x)))
#define VC_ACQUIRES(...) __attribute__((acquire_capability(__VA_ARGS__)))
#define VC_RELEASES(...) __attribute__((release_capability(__VA_ARGS__)))
#define VC_REQUIRES(...) __attribute__((requires_capability(__VA_ARGS__)))
#define VC_NO_ANALYSIS __attribute__((no_thread_safety_analysis))
#else
#define VC_CAPABILITY(x)
#define VC_ACQUIRES(...)
#define VC_RELEASES(...)
#define VC_REQUIRES(...)
#define VC_NO_ANALYSIS
#endif

struct VC_CAPABILITY("mutex") vc_mutex {
	pthread_mutex_t mutex;
	enum vc_lock_rank rank;
};

struct vc_cond {
	pthread_cond_t cond; /* on CLOCK_MONOTONIC */
};

void vc_mutex_init(struct vc_mutex *m, enum vc_lock_rank rank);
void vc_mutex_fini(struct vc_mutex *m);
void vc_mutex_lock(struct vc_mutex *m) VC_ACQUIRES(*m);
void vc_mutex_unlock(struct vc_mutex *m) VC_RELEASES(*m);
/** Lock a second mutex of the same rank; the caller keeps the order the table asks for. */
void vc_mutex_lock_also(struct vc_mutex *m) VC_ACQUIRES(*m);
/** Debug builds abort unless the calling thread holds `m`; others do nothing. */
void vc_mutex_assert_held(const struct vc_mutex *m);

void vc_cond_init(struct vc_cond *c);
void vc_cond_fini(struct vc_cond *c);
/** As pthread_cond_wait: the caller holds `m`, loops over its predicate. */
void vc_cond_wait(struct vc_cond *c, struct vc_mutex *m);
/** Returns 0, or -ETIMEDOUT once CLOCK_MONOTONIC passed `deadline_ns`. */
int vc_cond_wait_until(struct vc_cond *c, struct vc_mutex *m, uint64_t deadline_ns);
void vc_cond_signal(struct vc_cond *c);
void vc_cond_broadcast(struct vc_cond *c);

/**
 * Start a thread with all signals blocked (but those of a fault, such as SIGBUS, which must find their handler) and a
 * name, cut at 15 characters. Returns 0 or -errno.
 */
int vc_thread_start(pthread_t *ret, const char *name, void *(*fn)(void *), void *arg) VC_MUST_CHECK;

#endif
