/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cache: immutable buffers by key, in shards with their own lock, hash table and CLOCK ring.
 *
 *   shard:  buckets -> entry -> entry ...        every entry that a get can find
 *           ring    <-> entry <-> entry ...      of those, the loaded ones; `hand` sweeps it
 *
 * States of an entry, and who makes the step:
 *   LOADING   hashed, not in the ring, not counted   vc_cache_get on a miss
 *   RETAINED  hashed, in the ring, counted           the loader, when there is room; vc_cache_insert
 *   DETACHED  not hashed, only holders know it       the loader (no room, error), eviction, vc_cache_drop
 *   freed                                            whoever lets the last reference go
 *
 * Invariants
 *   1. refs = holders + 1 while hashed. It is raised only under the shard lock, so refs == 1 seen under that
 *      lock means that nobody holds the entry and nobody can come to hold it. It falls without a lock.
 *   2. Eviction takes only entries with refs == 1: bytes counted are bytes that eviction can win back. When the
 *      sweep finds no room the new entry is not retained: it lives as long as its holders.
 *   3. data, len and error are written before `loading` falls, under the lock, and never change after that.
 *   4. The bytes counted never exceed the capacity.
 *
 * Locks: VC_LOCK_CACHE, one a shard; never held while loading, copying or freeing. The condition variable of the
 * shard tells waiters that some load of this shard has ended.
 */
#include "config.h"
#include "cache.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "list.h"
#include "lock.h"

#define CACHE_SHARDS_MAX 16u
/* Below this a shard would hold too few 64 KiB chunks to choose a victim among. */
#define CACHE_SHARD_BYTES_MIN (4u << 20)
#define CACHE_BUCKETS_MIN 64u
/* Bucket pointer and the allocator's own headers of entry and data. */
#define CACHE_HIDDEN_OVERHEAD 48u

struct cache_entry {
	struct cache_entry *next; /* hash chain, shard lock; a chain of the dead after that */
	struct vc_list ring;      /* shard lock */
	uint64_t key;
	void *data;
	size_t len;
	_Atomic uint32_t refs;
	int error;                /* of the load; shard lock */
	bool loading;             /* shard lock */
	bool hashed;              /* shard lock */
	bool recent;              /* used since the hand last passed; shard lock */
};

struct cache_shard {
	_Alignas(64) struct vc_mutex lock;
	struct vc_cond loaded;
	struct cache_entry **buckets; /* lock */
	size_t nbuckets, nhashed;     /* lock; nbuckets is a power of two */
	struct vc_list ring;          /* lock */
	struct vc_list *hand;         /* lock; next to be looked at */
	uint64_t capacity;
	/* Written under the lock, read without. */
	_Atomic uint64_t hits, misses, evictions, bytes, entries;
};

struct vc_cache {
	struct cache_shard *shards;
	uint32_t nshards; /* a power of two */
};

static void count_add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static uint64_t count_get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static uint64_t cache_hash(uint64_t key)
{
	key ^= key >> 32;
	key *= UINT64_C(0xd6e8feb86659fd93);
	key ^= key >> 32;
	key *= UINT64_C(0xd6e8feb86659fd93);
	return key ^ key >> 32;
}

static struct cache_shard *cache_shard_of(struct vc_cache *cache, uint64_t hash)
{
	return &cache->shards[hash >> 60 & (cache->nshards - 1)];
}

/* ---- entries ---- */

static struct cache_entry *entry_new(uint64_t key, uint32_t refs)
{
	struct cache_entry *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->key = key;
	atomic_init(&e->refs, refs);
	vc_list_init(&e->ring);
	return e;
}

static void entry_hold(struct cache_entry *e)
{
	atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
}

/* True when that was the last reference: the caller frees. */
static bool entry_release(struct cache_entry *e)
{
	return atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) == 1;
}

static void entry_free(struct cache_entry *e)
{
	free(e->data);
	free(e);
}

static void entry_put(struct cache_entry *e)
{
	if (entry_release(e))
		entry_free(e);
}

static void entry_free_chain(struct cache_entry *dead)
{
	while (dead) {
		struct cache_entry *next = dead->next;

		entry_free(dead);
		dead = next;
	}
}

static uint64_t entry_cost(size_t len)
{
	return len + sizeof(struct cache_entry) + CACHE_HIDDEN_OVERHEAD;
}

static void entry_to_ref(struct cache_entry *e, struct vc_cache_ref *ret)
{
	ret->data = e->data;
	ret->len = e->len;
	ret->entry = e;
}

/* ---- one shard; the caller holds its lock ---- */

static struct cache_entry *shard_find_locked(struct cache_shard *shard, uint64_t hash, uint64_t key)
{
	struct cache_entry *e = shard->buckets[hash & (shard->nbuckets - 1)];

	while (e && e->key != key)
		e = e->next;
	return e;
}

/* Without memory the chains only get longer. */
static void shard_grow_locked(struct cache_shard *shard)
{
	size_t nbuckets = shard->nbuckets * 2;
	struct cache_entry **buckets = calloc(nbuckets, sizeof(struct cache_entry *));

	if (!buckets)
		return;
	for (size_t i = 0; i < shard->nbuckets; i++) {
		for (struct cache_entry *e = shard->buckets[i], *next; e; e = next) {
			size_t slot = cache_hash(e->key) & (nbuckets - 1);

			next = e->next;
			e->next = buckets[slot];
			buckets[slot] = e;
		}
	}
	free(shard->buckets);
	shard->buckets = buckets;
	shard->nbuckets = nbuckets;
}

static void shard_hash_locked(struct cache_shard *shard, uint64_t hash, struct cache_entry *e)
{
	struct cache_entry **slot;

	if (shard->nhashed >= shard->nbuckets)
		shard_grow_locked(shard);
	slot = &shard->buckets[hash & (shard->nbuckets - 1)];
	e->next = *slot;
	*slot = e;
	e->hashed = true;
	shard->nhashed++;
}

/* RETAINED or LOADING -> DETACHED; what nobody holds joins the chain *dead, to be freed after the lock. */
static void shard_detach_locked(struct cache_shard *shard, struct cache_entry *e, struct cache_entry **dead)
{
	struct cache_entry **slot = &shard->buckets[cache_hash(e->key) & (shard->nbuckets - 1)];

	while (*slot != e)
		slot = &(*slot)->next;
	*slot = e->next;
	e->hashed = false;
	shard->nhashed--;
	if (!vc_list_empty(&e->ring)) {
		if (shard->hand == &e->ring)
			shard->hand = e->ring.next;
		vc_list_del(&e->ring);
		count_add(&shard->bytes, -entry_cost(e->len));
		count_add(&shard->entries, UINT64_MAX);
	}
	if (entry_release(e)) {
		e->next = *dead;
		*dead = e;
	}
}

/* Evict until `need` bytes fit. Two rounds of the hand reach every entry that can go. */
static bool shard_make_room_locked(struct cache_shard *shard, uint64_t need, struct cache_entry **dead)
{
	uint64_t steps = 2 * (count_get(&shard->entries) + 1);

	if (need > shard->capacity)
		return false;
	while (count_get(&shard->bytes) + need > shard->capacity) {
		struct vc_list *at = shard->hand;
		struct cache_entry *e;

		if (steps-- == 0)
			return false;
		shard->hand = at->next;
		if (at == &shard->ring)
			continue;
		e = vc_list_entry(at, struct cache_entry, ring);
		if (e->recent) {
			e->recent = false;
		} else if (atomic_load_explicit(&e->refs, memory_order_acquire) == 1) {
			shard_detach_locked(shard, e, dead);
			count_add(&shard->evictions, 1);
		}
	}
	return true;
}

/* The hand comes to a new entry last. */
static void shard_retain_locked(struct cache_shard *shard, struct cache_entry *e)
{
	vc_list_add_tail(shard->hand, &e->ring);
	count_add(&shard->bytes, entry_cost(e->len));
	count_add(&shard->entries, 1);
}

/* A load has ended with `error`, or with data in the entry: LOADING -> RETAINED or DETACHED. */
static void shard_loaded_locked(struct cache_shard *shard, struct cache_entry *e, int error, struct cache_entry **dead)
{
	e->error = error;
	e->loading = false;
	if (e->hashed) {
		if (error == 0 && shard_make_room_locked(shard, entry_cost(e->len), dead))
			shard_retain_locked(shard, e);
		else
			shard_detach_locked(shard, e, dead);
	}
	vc_cond_broadcast(&shard->loaded);
}

static struct cache_entry *shard_begin_load_locked(struct cache_shard *shard, uint64_t hash, uint64_t key)
{
	struct cache_entry *e = entry_new(key, 2);

	if (!e)
		return NULL;
	e->loading = true;
	shard_hash_locked(shard, hash, e);
	count_add(&shard->misses, 1);
	return e;
}

static void shard_use_locked(struct cache_shard *shard, struct cache_entry *e)
{
	entry_hold(e);
	e->recent = true;
	count_add(&shard->hits, 1);
}

/* ---- the cache ---- */

static int shard_init(struct cache_shard *shard, uint64_t capacity)
{
	vc_mutex_init(&shard->lock, VC_LOCK_CACHE);
	vc_cond_init(&shard->loaded);
	vc_list_init(&shard->ring);
	shard->hand = &shard->ring;
	shard->capacity = capacity;
	shard->nbuckets = CACHE_BUCKETS_MIN;
	shard->buckets = calloc(shard->nbuckets, sizeof(struct cache_entry *));
	return shard->buckets ? 0 : -ENOMEM;
}

static void shard_fini(struct cache_shard *shard)
{
	for (size_t i = 0; shard->buckets && i < shard->nbuckets; i++)
		entry_free_chain(shard->buckets[i]);
	free(shard->buckets);
	vc_cond_fini(&shard->loaded);
	vc_mutex_fini(&shard->lock);
}

static uint32_t cache_choose_shards(uint64_t capacity)
{
	uint32_t n = 1;

	while (n < CACHE_SHARDS_MAX && capacity / (2 * n) >= CACHE_SHARD_BYTES_MIN)
		n *= 2;
	return n;
}

int vc_cache_open(uint64_t capacity, struct vc_cache **ret)
{
	struct vc_cache *cache = calloc(1, sizeof(*cache));
	uint32_t nshards = cache_choose_shards(capacity);
	int r = 0;

	if (!cache)
		return -ENOMEM;
	cache->shards = aligned_alloc(_Alignof(struct cache_shard), nshards * sizeof(struct cache_shard));
	if (!cache->shards) {
		free(cache);
		return -ENOMEM;
	}
	memset(cache->shards, 0, nshards * sizeof(struct cache_shard));
	for (; cache->nshards < nshards && r == 0; cache->nshards++)
		r = shard_init(&cache->shards[cache->nshards], capacity / nshards);
	if (r < 0) {
		vc_cache_close(cache);
		return r;
	}
	*ret = cache;
	return 0;
}

void vc_cache_close(struct vc_cache *cache)
{
	if (!cache)
		return;
	for (uint32_t i = 0; i < cache->nshards; i++)
		shard_fini(&cache->shards[i]);
	free(cache->shards);
	free(cache);
}

int vc_cache_begin(struct vc_cache *cache, uint64_t key, struct vc_cache_ref *ret)
{
	uint64_t hash = cache_hash(key);
	struct cache_shard *shard = cache_shard_of(cache, hash);
	struct cache_entry *e;
	int r = VC_CACHE_HIT;

	vc_mutex_lock(&shard->lock);
	e = shard_find_locked(shard, hash, key);
	if (!e) {
		e = shard_begin_load_locked(shard, hash, key);
		r = e ? VC_CACHE_LOAD : -ENOMEM;
	} else if (e->loading) {
		r = VC_CACHE_BUSY;
	} else {
		shard_use_locked(shard, e);
	}
	vc_mutex_unlock(&shard->lock);
	if (r == VC_CACHE_HIT || r == VC_CACHE_LOAD)
		entry_to_ref(e, ret);
	return r;
}

int vc_cache_finish(struct vc_cache *cache, struct vc_cache_ref *ref, int error, void *buf, size_t len)
{
	struct cache_entry *e = ref->entry, *dead = NULL;
	struct cache_shard *shard = cache_shard_of(cache, cache_hash(e->key));

	vc_mutex_lock(&shard->lock);
	if (error == 0) {
		e->data = buf;
		e->len = len;
	}
	shard_loaded_locked(shard, e, error, &dead);
	vc_mutex_unlock(&shard->lock);
	entry_free_chain(dead);
	if (error == 0)
		entry_to_ref(e, ref);
	else
		vc_cache_put(cache, ref);
	return error;
}

/* Wait for another thread's load. -EAGAIN: it is not there any more. */
static int cache_wait(struct vc_cache *cache, uint64_t key, struct vc_cache_ref *ret)
{
	uint64_t hash = cache_hash(key);
	struct cache_shard *shard = cache_shard_of(cache, hash);
	struct cache_entry *e;
	int r = -EAGAIN;

	vc_mutex_lock(&shard->lock);
	e = shard_find_locked(shard, hash, key);
	if (e) {
		shard_use_locked(shard, e);
		while (e->loading)
			vc_cond_wait(&shard->loaded, &shard->lock);
		r = e->error;
	}
	vc_mutex_unlock(&shard->lock);
	if (r == 0)
		entry_to_ref(e, ret);
	else if (e)
		entry_put(e);
	return r;
}

int vc_cache_get(struct vc_cache *cache, uint64_t key, vc_cache_load_fn *load, void *ctx, struct vc_cache_ref *ret)
{
	for (;;) {
		int r = vc_cache_begin(cache, key, ret);

		if (r == VC_CACHE_LOAD) {
			void *data = NULL;
			size_t len = 0;

			r = load(ctx, key, &data, &len);
			return vc_cache_finish(cache, ret, r, data, len);
		}
		if (r != VC_CACHE_BUSY)
			return r;
		r = cache_wait(cache, key, ret);
		if (r != -EAGAIN)
			return r;
	}
}

bool vc_cache_peek(struct vc_cache *cache, uint64_t key, struct vc_cache_ref *ret)
{
	uint64_t hash = cache_hash(key);
	struct cache_shard *shard = cache_shard_of(cache, hash);
	struct cache_entry *e;

	vc_mutex_lock(&shard->lock);
	e = shard_find_locked(shard, hash, key);
	if (e && e->loading)
		e = NULL;
	if (e)
		shard_use_locked(shard, e);
	vc_mutex_unlock(&shard->lock);
	if (!e)
		return false;
	entry_to_ref(e, ret);
	return true;
}

/* Hash and retain a finished entry with one reference, the table's; otherwise it joins *dead. */
static void shard_insert_locked(struct cache_shard *shard, uint64_t hash, struct cache_entry *e,
				struct cache_entry **dead)
{
	if (!shard_find_locked(shard, hash, e->key) && shard_make_room_locked(shard, entry_cost(e->len), dead)) {
		shard_hash_locked(shard, hash, e);
		shard_retain_locked(shard, e);
		return;
	}
	e->next = *dead;
	*dead = e;
}

void vc_cache_insert(struct vc_cache *cache, uint64_t key, const void *data, size_t len)
{
	uint64_t hash = cache_hash(key);
	struct cache_shard *shard = cache_shard_of(cache, hash);
	struct cache_entry *e, *dead = NULL;

	if (entry_cost(len) > shard->capacity)
		return;
	e = entry_new(key, 1);
	if (!e)
		return;
	e->data = malloc(len ? len : 1);
	if (!e->data) {
		free(e);
		return;
	}
	memcpy(e->data, data, len);
	e->len = len;
	vc_mutex_lock(&shard->lock);
	shard_insert_locked(shard, hash, e, &dead);
	vc_mutex_unlock(&shard->lock);
	entry_free_chain(dead);
}

void vc_cache_drop(struct vc_cache *cache, uint64_t key)
{
	uint64_t hash = cache_hash(key);
	struct cache_shard *shard = cache_shard_of(cache, hash);
	struct cache_entry *e, *dead = NULL;

	vc_mutex_lock(&shard->lock);
	e = shard_find_locked(shard, hash, key);
	if (e)
		shard_detach_locked(shard, e, &dead);
	vc_mutex_unlock(&shard->lock);
	entry_free_chain(dead);
}

void vc_cache_put(struct vc_cache *cache, struct vc_cache_ref *ref)
{
	(void)cache;
	entry_put(ref->entry);
	memset(ref, 0, sizeof(*ref));
}

void vc_cache_stats(const struct vc_cache *cache, struct vc_cache_stats *ret)
{
	memset(ret, 0, sizeof(*ret));
	for (uint32_t i = 0; i < cache->nshards; i++) {
		const struct cache_shard *shard = &cache->shards[i];

		ret->hits += count_get(&shard->hits);
		ret->misses += count_get(&shard->misses);
		ret->evictions += count_get(&shard->evictions);
		ret->bytes += count_get(&shard->bytes);
		ret->entries += count_get(&shard->entries);
	}
}
