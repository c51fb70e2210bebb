/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cache: a bounded, sharded cache of immutable buffers under a non-zero 64-bit key.
 *
 * Used twice: decompressed chunks by address, encoded map nodes by id. A buffer that is held is
 * never freed or changed; one key is loaded by one thread while others that want it wait for that load (so 1,000
 * booting clones read a golden chunk once). Eviction is CLOCK within a shard. Loads happen without a lock held.
 * Cost of a hit: one shard lock and a hash lookup.
 */
#ifndef VC_CACHE_H
#define VC_CACHE_H

#include "util.h"

struct vc_cache;

/** A held buffer. `data` and `len` may be read until vc_cache_put. */
struct vc_cache_ref {
	const void *data;
	size_t len;
	void *entry; /* private */
};

/** Counters since the start; read without a lock, so each is exact but they are not of one instant. */
struct vc_cache_stats {
	uint64_t hits, misses, evictions, bytes, entries;
};

/**
 * Loads the buffer for `key`: *ret_buf from malloc (the cache takes it) and *ret_len. Returns 0 or -errno; an
 * error is handed to all who wait for this load and is not cached.
 */
typedef int vc_cache_load_fn(void *ctx, uint64_t key, void **ret_buf, size_t *ret_len);

/** capacity in bytes, entry overhead included. Returns 0 or -ENOMEM. */
int vc_cache_open(uint64_t capacity, struct vc_cache **ret) VC_MUST_CHECK;
/** All refs must have been put. NULL is ignored. */
void vc_cache_close(struct vc_cache *cache);

/** Get `key`, loading it with `load` on a miss. Returns 0 or -errno. */
int vc_cache_get(struct vc_cache *cache, uint64_t key, vc_cache_load_fn *load, void *ctx,
		 struct vc_cache_ref *ret) VC_MUST_CHECK;
/**
 * vc_cache_get in two steps, for a caller that loads several keys at once. Returns
 *   VC_CACHE_HIT   *ret is held
 *   VC_CACHE_LOAD  the caller loads it, and says so with vc_cache_finish. Others wait until then: in between it waits for nobody's load.
 *   VC_CACHE_BUSY  another thread does (or the caller, for the same key): nothing is held. vc_cache_get waits for it.
 * or -ENOMEM.
 */
enum vc_cache_step { VC_CACHE_HIT, VC_CACHE_LOAD, VC_CACHE_BUSY };
int vc_cache_begin(struct vc_cache *cache, uint64_t key, struct vc_cache_ref *ret) VC_MUST_CHECK;
/** Ends a load: with `error`, or with `buf` (from malloc, taken) which *ref then holds. Returns error. */
int vc_cache_finish(struct vc_cache *cache, struct vc_cache_ref *ref, int error, void *buf, size_t len);
/** Get `key` only if present. Returns true and a ref, or false. */
bool vc_cache_peek(struct vc_cache *cache, uint64_t key, struct vc_cache_ref *ret) VC_MUST_CHECK;
/** Put a copy of `data` under `key` if it is not there (a writer that just made it). May silently not. */
void vc_cache_insert(struct vc_cache *cache, uint64_t key, const void *data, size_t len);
/** Forget `key`: later gets load again; holders are not disturbed. */
void vc_cache_drop(struct vc_cache *cache, uint64_t key);
void vc_cache_put(struct vc_cache *cache, struct vc_cache_ref *ref);
void vc_cache_stats(const struct vc_cache *cache, struct vc_cache_stats *ret);

#endif
