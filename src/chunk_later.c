/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chunk_later: a chunk that is not in the cache is asked of the device, and whoever wanted it goes on.
 *
 *   begin --not cached, ours to load--> under way --thread of the ring--> in the cache --> done(0)
 *                                                                     --> given up   --> done(-EAGAIN)
 *
 * The load is announced in the cache from the first moment, so that others who want the chunk wait for this read and do not make one of their own.
 * They can rely on its end: the ring's thread waits for nobody. Therefore whatever goes wrong there (the device, a
 * checksum, memory) is not looked into: the load is given up, and who still wants the chunk reads it the usual way, which names what is wrong.
 * So no message comes from here.
 */
#include "config.h"
#include "chunk_impl.h"

#include <stdlib.h>

#include "io_ring.h"

/* A read under way, or one that can be used again. */
struct chunk_fetch {
	struct vc_io_read io;
	struct vc_chunk_store *store;
	struct chunk_segment *seg;    /* in use */
	struct vc_chunk_later *later;
	struct vc_cache_ref ref;      /* being loaded */
	uint64_t entry;               /* as wanted, as nblocks */
	uint32_t nblocks;
	struct chunk_fetch *next;     /* store->fetches */
	_Alignas(VC_IO_PAST_ALIGN) uint8_t bytes[VC_CHUNK_PAST_MAX];
};

/* ---- reads to be used again: touched pages are worth keeping ---- */

static struct chunk_fetch *fetch_get(struct vc_chunk_store *store)
{
	struct chunk_fetch *f;

	vc_mutex_lock(&store->lock);
	f = store->fetches;
	if (f)
		store->fetches = f->next;
	vc_mutex_unlock(&store->lock);
	return f ? f : aligned_alloc(_Alignof(struct chunk_fetch), sizeof(*f));
}

static void fetch_put(struct vc_chunk_store *store, struct chunk_fetch *f)
{
	vc_mutex_lock(&store->lock);
	f->next = store->fetches;
	store->fetches = f;
	vc_mutex_unlock(&store->lock);
}

/* ---- the end of a read: on the ring's thread ---- */

/* Of the n bytes that came: 0 and the chunk, expanded, or -EAGAIN. */
static int fetch_expand(const struct chunk_fetch *f, ssize_t n, void **ret_buf, size_t *ret_len)
{
	uint64_t chunk = vc_entry_chunk(f->entry);
	size_t skip = vc_entry_offset(chunk) - f->io.offset, len;
	const char *why;

	if (n < (ssize_t)skip)
		return -EAGAIN;
	len = VC_MIN((size_t)n - skip, (size_t)vc_entry_read_len(chunk));
	if (vc_chunk_unpack(f->store, chunk, f->bytes + skip, len, ret_buf, ret_len, &why) < 0)
		return -EAGAIN;
	if ((vc_entry_block(f->entry) + f->nblocks) * (size_t)VC_BLOCK_SIZE <= *ret_len)
		return 0;
	free(*ret_buf);
	return -EAGAIN;
}

/* struct vc_io_read.done */
static void fetch_arrived(struct vc_io_read *io, ssize_t n)
{
	struct chunk_fetch *f = vc_container_of(io, struct chunk_fetch, io);
	struct vc_chunk_store *store = f->store;
	struct vc_chunk_later *later = f->later;
	struct vc_cache_ref ref = f->ref;
	void *buf = NULL;
	size_t len = 0;
	int r = fetch_expand(f, n, &buf, &len);

	r = vc_cache_finish(store->cache, &ref, r, buf, len);
	vc_chunk_segment_put(store, f->seg);
	fetch_put(store, f);
	later->done(later, r, &ref);
}

/* ---- its beginning ---- */

/* Which bytes: those of the chunk, or the sectors that they lie in. */
static void fetch_range(struct chunk_fetch *f, uint64_t entry, bool past)
{
	uint64_t from = past ? vc_chunk_past_from(entry) : vc_entry_offset(entry);
	uint64_t to = past ? vc_chunk_past_to(entry) : (uint64_t)vc_entry_offset(entry) + vc_entry_read_len(entry);

	f->io = (struct vc_io_read){ .buf = f->bytes, .len = to - from, .offset = from, .past = past, .done = fetch_arrived };
}

/* The chunk, whose load is ours, is asked of the device. 0, or -errno: load it the usual way. */
static int fetch_start(struct vc_chunk_store *store, const struct vc_chunk_want *want, const struct vc_cache_ref *ref,
		       struct vc_chunk_later *later)
{
	uint64_t entry = want->entry;
	struct chunk_fetch *f;
	int r;

	if (!vc_io_ring_is_of_use(store->ring))
		return -EAGAIN;
	f = fetch_get(store);
	if (!f)
		return -ENOMEM;
	r = vc_chunk_segment_get(store, vc_entry_segno(entry), &f->seg);
	if (r == 0) {
		fetch_range(f, entry, !vc_chunk_missed_before(store, vc_entry_chunk(entry)));
		f->store = store;
		f->later = later;
		f->ref = *ref;
		f->entry = entry;
		f->nblocks = want->nblocks;
		r = vc_io_start_read(f->seg->file, store->ring, &f->io);
		if (r == 0)
			return 0;
		vc_chunk_segment_put(store, f->seg);
	}
	fetch_put(store, f);
	return r;
}

int vc_chunk_read_later(struct vc_chunk_store *store, const struct vc_chunk_want *want, struct vc_chunk_later *later)
{
	uint64_t key = vc_entry_chunk(want->entry);
	struct vc_cache_ref ref;
	void *buf = NULL;
	size_t len = 0;
	int r;

	if (vc_chunk_want_wrong(want))
		return vc_chunk_read_want(store, want);
	r = vc_cache_begin(store->cache, key, &ref);
	if (r == VC_CACHE_BUSY)
		return vc_chunk_read_want(store, want);
	if (r == VC_CACHE_LOAD) {
		if (fetch_start(store, want, &ref, later) == 0)
			return -EINPROGRESS;
		r = vc_chunk_load(store, key, &buf, &len);
		r = vc_cache_finish(store->cache, &ref, r, buf, len);
	}
	return r < 0 ? r : vc_chunk_deliver(store, want, &ref);
}

void vc_chunk_drain_reads(struct vc_chunk_store *store) { vc_io_ring_drain(store->ring); }

void vc_chunk_later_fini(struct vc_chunk_store *store)
{
	vc_io_ring_free(store->ring);
	while (store->fetches) {
		struct chunk_fetch *f = store->fetches;

		store->fetches = f->next;
		free(f);
	}
}
