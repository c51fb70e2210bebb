/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vol_read: resolve (memory and map nodes: where is each block?), then fetch (log, chunks: its bytes).
 *
 * resolve asks, newest first: the active overlay under the inode's lock, the overlays of the base's view, the map. What it
 * found stays readable while `struct hold` is held: the overlays keep their log segments. A map node or chunk segment that is gone
 * meanwhile (-ESTALE) means that a checkpoint or a sweep overtook us: pass through the fold lock and resolve again.
 */
#include "config.h"

#include <stdlib.h>
#include <unistd.h>

#include "checksum.h"
#include "msg.h"
#include "volume_impl.h"

#define HOLD_INLINE 4

struct hold {
	struct vc_overlay *active;
	struct vc_base **bases; /* that slots of the active overlay name: it may drop them any moment */
	size_t nbases;
	struct vc_view *inline_views[HOLD_INLINE];
	struct vc_view **views;
	size_t n, cap;
};

static void hold_init(struct hold *h)
{
	h->active = NULL;
	h->bases = NULL;
	h->nbases = 0;
	h->views = h->inline_views;
	h->n = 0;
	h->cap = HOLD_INLINE;
}

static void hold_put(struct hold *h)
{
	for (size_t i = 0; i < h->n; i++)
		vc_view_put(h->views[i]);
	if (h->views != h->inline_views)
		free(h->views);
	for (size_t i = 0; i < h->nbases; i++)
		vc_base_put(h->bases[i]);
	free(h->bases);
	vc_overlay_put(h->active);
	hold_init(h);
}

static int hold_view(struct hold *h, struct vc_view *view)
{
	if (h->n == h->cap) {
		struct vc_view **views = malloc(2 * h->cap * sizeof(struct vc_view *));

		if (!views) {
			vc_view_put(view);
			return -ENOMEM;
		}
		memcpy(views, h->views, h->n * sizeof(struct vc_view *));
		if (h->views != h->inline_views)
			free(h->views);
		h->views = views;
		h->cap *= 2;
	}
	h->views[h->n++] = view;
	return 0;
}

static int resolve_map(struct vc_pool *pool, struct vc_root root, uint64_t lba, uint64_t n, struct vc_slot *slots)
{
	uint64_t entries[VOL_WINDOW + 1];
	uint64_t i = 0;

	while (i < n) {
		uint64_t run = 0;
		int r;

		if (slots[i].kind != VC_SLOT_NONE) {
			i++;
			continue;
		}
		while (i + run < n && slots[i + run].kind == VC_SLOT_NONE)
			run++;
		r = vc_map_lookup(pool->map, root, lba + i, run, entries);
		if (r < 0)
			return r;
		for (uint64_t k = 0; k < run; k++)
			slots[i + k] = (struct vc_slot){ .kind = entries[k] ? VC_SLOT_CHUNK : VC_SLOT_ZERO, .addr = entries[k] };
		i += run;
	}
	return 0;
}

static int resolve_view(struct vc_pool *pool, struct hold *h, const struct vc_view *view, uint64_t lba, uint64_t n,
			struct vc_slot *slots);

/* Blocks that a range shares with another base. Depth is bounded by VOL_REF_DEPTH_MAX. */
static int resolve_bases(struct vc_pool *pool, struct hold *h, uint64_t n, struct vc_slot *slots)
{
	for (uint64_t i = 0; i < n;) {
		struct vc_base *base = slots[i].base;
		uint64_t from = slots[i].addr, run = 1;
		struct vc_view *view;
		int r;

		if (slots[i].kind != VC_SLOT_BASE) {
			i++;
			continue;
		}
		while (i + run < n && slots[i + run].kind == VC_SLOT_BASE && slots[i + run].base == base &&
		       slots[i + run].addr == from + run)
			run++;
		view = vc_base_view(base);
		r = hold_view(h, view);
		memset(&slots[i], 0, run * sizeof(*slots));
		if (r == 0)
			r = resolve_view(pool, h, view, from, run, &slots[i]);
		if (r < 0)
			return r;
		i += run;
	}
	return 0;
}

static int resolve_view(struct vc_pool *pool, struct hold *h, const struct vc_view *view, uint64_t lba, uint64_t n,
			struct vc_slot *slots)
{
	uint64_t left = n;
	int r = 0;

	for (unsigned int i = 0; i < view->n && left > 0; i++)
		left = vc_overlay_lookup(view->overlays[i], lba, n, slots);
	if (left > 0)
		r = resolve_map(pool, view->root, lba, n, slots);
	return r < 0 ? r : resolve_bases(pool, h, n, slots);
}

/* The active overlay changes as soon as the inode is unlocked: keep the bases that slots got from it. */
static int hold_bases(struct hold *h, uint64_t n, const struct vc_slot *slots)
{
	for (uint64_t i = 0; i < n; i++) {
		struct vc_base **bases;

		if (slots[i].kind != VC_SLOT_BASE || (h->nbases && h->bases[h->nbases - 1] == slots[i].base))
			continue;
		bases = realloc(h->bases, (h->nbases + 1) * sizeof(struct vc_base *));
		if (!bases)
			return -ENOMEM;
		h->bases = bases;
		h->bases[h->nbases++] = vc_base_get(slots[i].base);
	}
	return 0;
}

static int resolve(struct vc_inode *inode, struct hold *h, uint64_t lba, uint64_t n, struct vc_slot *slots)
{
	struct vc_view *view;
	uint64_t left = n;
	int r = 0;

	memset(slots, 0, n * sizeof(*slots));
	vc_mutex_lock(&inode->lock);
	if (inode->active) {
		left = vc_overlay_lookup(inode->active, lba, n, slots);
		if (left < n)
			h->active = vc_overlay_get(inode->active);
		if (vc_overlay_ref_depth(inode->active))
			r = hold_bases(h, n, slots);
	}
	view = vc_base_view(inode->base);
	vc_mutex_unlock(&inode->lock);
	if (hold_view(h, view) < 0 || r < 0)
		return -ENOMEM;
	r = left ? resolve_view(vol_pool(inode), h, view, lba, n, slots) : resolve_bases(vol_pool(inode), h, n, slots);
	if (r < 0 && r != -ESTALE && r != -ENOMEM)
		vc_err("image %llu, offset %llu: its map cannot be read", (unsigned long long)inode->ino,
		       (unsigned long long)(lba * VC_BLOCK_SIZE));
	return r;
}

/* ---- fetch ---- */

static int fetch_log(struct vc_pool *pool, const struct vc_slot *slots, uint64_t n, uint8_t *buf)
{
	int r = vc_log_read(pool->log, slots[0].addr, buf, n * VC_BLOCK_SIZE);

	for (uint64_t i = 0; i < n && r == 0; i++)
		if (vc_sum32(buf + i * VC_BLOCK_SIZE, VC_BLOCK_SIZE) != slots[i].sum) {
			vc_err("%s: log segment %llu, offset %llu: checksum of a block is wrong", pool->options.log_dir,
			       (unsigned long long)(slots[i].addr >> VC_LOG_ADDR_SHIFT),
			       (unsigned long long)(slots[i].addr & ((UINT64_C(1) << VC_LOG_ADDR_SHIFT) - 1)));
			r = -EBADMSG;
		}
	return r;
}

/* Length of the run from slots[0] that one read gets. */
static uint64_t fetch_run(const struct vc_slot *slots, uint64_t n)
{
	uint64_t step = slots[0].kind == VC_SLOT_LOG ? VC_BLOCK_SIZE : 1, run = 1;

	if (slots[0].kind == VC_SLOT_ZERO) {
		while (run < n && slots[run].kind == VC_SLOT_ZERO)
			run++;
		return run;
	}
	while (run < n && slots[run].kind == slots[0].kind && slots[run].addr == slots[0].addr + run * step &&
	       (slots[0].kind == VC_SLOT_LOG || vc_entry_chunk(slots[run].addr) == vc_entry_chunk(slots[0].addr)))
		run++;
	return run;
}

/* Which image it is; the layer below has named the file. */
static void fetch_failed(const struct vc_inode *inode, uint64_t lba, int error)
{
	bool damaged = error == -EBADMSG || error == -EUCLEAN;

	if (damaged || error == -EIO)
		vc_err("image %llu, offset %llu: %s", (unsigned long long)inode->ino, (unsigned long long)(lba * VC_BLOCK_SIZE),
		       damaged ? "damaged data, not returned" : "cannot be read (EIO)");
}

/* The chunks of a window, all at once. */
struct fetch_chunks {
	struct vc_chunk_want wants[VOL_WINDOW + 1];
	uint64_t lbas[VOL_WINDOW + 1];
	struct iovec *pieces[VOL_WINDOW + 1]; /* that begin in the cache, NULL: copied */
	size_t n;
};

/* A run of fewer blocks is copied: a piece of its own costs as much. */
#define FETCH_PIECE_BLOCKS 2

static void piece_add(struct vc_pieces *p, void *base, size_t len)
{
	struct iovec *last = p->n ? &p->iov[p->n - 1] : NULL;

	if (last && last->iov_base && (uint8_t *)last->iov_base + last->iov_len == base)
		last->iov_len += len;
	else
		p->iov[p->n++] = (struct iovec){ base, len };
}

/* Let go of all after the first n pieces, of which the first nrefs references are. */
static void pieces_cut(struct vc_inode *inode, struct vc_pieces *p, unsigned int n, unsigned int nrefs)
{
	while (p->nrefs > nrefs)
		if (p->refs[--p->nrefs].data)
			vc_chunk_put(vol_pool(inode)->chunks, &p->refs[p->nrefs]);
	p->n = n;
}

void vc_pieces_put(struct vc_inode *inode, struct vc_pieces *pieces) { pieces_cut(inode, pieces, 0, 0); }

/* struct vc_chunk_later.done */
static void later_arrived(struct vc_chunk_later *chunk, int error, struct vc_cache_ref *ref)
{
	struct vc_read_later *later = vc_container_of(chunk, struct vc_read_later, chunk);
	struct vc_pool *pool = later->pool;

	if (error < 0) {
		later->done(later, NULL, later->len);
		return;
	}
	later->done(later, (const uint8_t *)ref->data + later->skip, later->len);
	vc_chunk_put(pool->chunks, ref);
}

/* The one piece that a whole request is of. */
static int fetch_later(struct vc_pool *pool, const struct vc_chunk_want *want, struct vc_read_later *later)
{
	later->chunk.done = later_arrived;
	later->pool = pool;
	later->skip = vc_entry_block(want->entry) * (size_t)VC_BLOCK_SIZE;
	later->len = want->nblocks * (size_t)VC_BLOCK_SIZE;
	return vc_chunk_read_later(pool->chunks, want, &later->chunk);
}

/* `later`: when all is of one chunk, it need not be waited for (-EINPROGRESS). */
static int fetch_chunks(struct vc_inode *inode, const struct fetch_chunks *c, struct vc_read_later *later)
{
	struct vc_chunk_store *chunks = vol_pool(inode)->chunks;
	size_t failed = 0;
	int r = 0;

	if (c->n == 1 && later)
		r = fetch_later(vol_pool(inode), &c->wants[0], later);
	else if (c->n == 1)
		r = vc_chunk_read_want(chunks, &c->wants[0]);
	else if (c->n > 1)
		r = vc_chunk_read_many(chunks, c->wants, c->n, &failed);
	if (r < 0 && r != -EINPROGRESS)
		fetch_failed(inode, c->lbas[failed], r);
	for (size_t i = 0; i < c->n && r == 0; i++)
		if (c->pieces[i])
			c->pieces[i]->iov_base = (uint8_t *)(uintptr_t)c->wants[i].ref->data +
				vc_entry_block(c->wants[i].entry) * (size_t)VC_BLOCK_SIZE;
	return r;
}

/* A run of one chunk: to be copied to `to`, or a piece in the cache. */
static void fetch_chunk(struct fetch_chunks *c, uint64_t lba, uint64_t entry, uint64_t nblocks, uint8_t *to, struct vc_pieces *p)
{
	struct vc_cache_ref *ref = NULL;
	struct iovec *piece = NULL;

	if (p && nblocks >= FETCH_PIECE_BLOCKS) {
		ref = &p->refs[p->nrefs++];
		*ref = (struct vc_cache_ref){ .data = NULL };
		piece = &p->iov[p->n++];
		*piece = (struct iovec){ NULL, nblocks * VC_BLOCK_SIZE };
	} else if (p) {
		piece_add(p, to, nblocks * VC_BLOCK_SIZE);
	}
	c->wants[c->n] = (struct vc_chunk_want){ .entry = entry, .nblocks = (uint32_t)nblocks, .buf = to, .ref = ref };
	c->pieces[c->n] = piece;
	c->lbas[c->n++] = lba;
}

static int fetch(struct vc_inode *inode, const struct vc_slot *slots, uint64_t lba, uint64_t n, uint8_t *buf, struct vc_pieces *p,
		 struct vc_read_later *later)
{
	struct vc_pool *pool = vol_pool(inode);
	struct fetch_chunks chunks;
	int r = 0;

	chunks.n = 0;
	for (uint64_t i = 0; i < n && r == 0;) {
		uint64_t run = fetch_run(&slots[i], n - i);
		uint8_t *to = buf + i * VC_BLOCK_SIZE;

		if (run < n)
			later = NULL;
		if (p && slots[i].kind != VC_SLOT_CHUNK)
			piece_add(p, to, run * VC_BLOCK_SIZE);
		if (slots[i].kind == VC_SLOT_CHUNK) {
			fetch_chunk(&chunks, lba + i, slots[i].addr, run, to, p);
		} else if (slots[i].kind == VC_SLOT_LOG) {
			r = fetch_log(pool, &slots[i], run, to);
			if (r < 0)
				fetch_failed(inode, lba + i, r);
		} else {
			memset(to, 0, run * VC_BLOCK_SIZE);
		}
		i += run;
	}
	return r < 0 ? r : fetch_chunks(inode, &chunks, later);
}

/* What overtook us is done when the fold lock is free. */
int vol_wait_for_checkpoint(struct vc_pool *pool)
{
	vc_mutex_lock(&pool->fold);
	vc_mutex_unlock(&pool->fold);
	return atomic_load(&pool->failed) ? -EIO : 0;
}

static int read_blocks(struct vc_inode *inode, uint64_t lba, uint64_t nblocks, uint8_t *buf, struct vc_pieces *p,
		       struct vc_read_later *later)
{
	struct vc_slot slots[VOL_WINDOW + 1];
	struct hold hold;
	unsigned int stale = 0; /* times that these blocks had to be looked up again */
	int r = 0;

	hold_init(&hold);
	while (nblocks > 0 && r == 0) {
		uint64_t n = VC_MIN(nblocks, (uint64_t)VOL_WINDOW + 1), root;
		unsigned int npieces = p ? p->n : 0, nrefs = p ? p->nrefs : 0;

		r = resolve(inode, &hold, lba, n, slots);
		if (r == 0)
			r = fetch(inode, slots, lba, n, buf, p, n == nblocks ? later : NULL);
		if (r < 0 && p)
			pieces_cut(inode, p, npieces, nrefs);
		root = hold.n ? hold.views[0]->root.id : 0;
		hold_put(&hold);
		if (r == -ESTALE && ++stale > VOL_STALE_TRIES) {
			vc_err("image %llu, offset %llu: map node or chunk segment missing below node %llu; run vclone check",
			       (unsigned long long)inode->ino, (unsigned long long)(lba * VC_BLOCK_SIZE), (unsigned long long)root);
			r = -EIO;
		} else if (r == -ESTALE) {
			r = vol_wait_for_checkpoint(vol_pool(inode));
			fetch_failed(inode, lba, r);
			continue;
		}
		stale = 0;
		if (r < 0)
			break;
		lba += n;
		buf += n * VC_BLOCK_SIZE;
		nblocks -= n;
	}
	return r == -EBADMSG || r == -EUCLEAN ? -EIO : r;
}

int vol_read_blocks(struct vc_inode *inode, uint64_t lba, uint64_t nblocks, uint8_t *buf)
{
	return read_blocks(inode, lba, nblocks, buf, NULL, NULL);
}

static int read_partial(struct vc_inode *inode, uint8_t *buf, size_t len, uint64_t offset, struct vc_pieces *p)
{
	uint8_t block[VC_BLOCK_SIZE];
	int r = vol_read_blocks(inode, offset >> VC_BLOCK_SHIFT, 1, block);

	if (r < 0)
		return r;
	memcpy(buf, block + offset % VC_BLOCK_SIZE, len);
	if (p)
		piece_add(p, buf, len);
	return 0;
}

static int read_range(struct vc_inode *inode, uint8_t *buf, size_t len, uint64_t offset, struct vc_pieces *p, struct vc_read_later *later)
{
	size_t head = offset % VC_BLOCK_SIZE ? VC_MIN(len, VC_BLOCK_SIZE - (size_t)(offset % VC_BLOCK_SIZE)) : 0;
	size_t middle = VC_ROUND_DOWN(len - head, (size_t)VC_BLOCK_SIZE), tail = len - head - middle;
	int r = head ? read_partial(inode, buf, head, offset, p) : 0;

	if (r == 0 && middle)
		r = read_blocks(inode, (offset + head) >> VC_BLOCK_SHIFT, middle >> VC_BLOCK_SHIFT, buf + head, p,
				middle == len ? later : NULL);
	if (r == 0 && tail)
		r = read_partial(inode, buf + head + middle, tail, offset + head + middle, p);
	return r;
}

static ssize_t read_bytes(struct vc_inode *inode, void *buf, size_t len, uint64_t offset, struct vc_pieces *p, struct vc_read_later *later)
{
	uint64_t size;
	int r = vol_check_image(inode);

	if (r < 0)
		return r;
	vc_mutex_lock(&inode->lock);
	size = inode->f.size;
	vc_mutex_unlock(&inode->lock);
	if (offset >= size || len == 0)
		return 0;
	len = (size_t)VC_MIN((uint64_t)len, size - offset);
	r = read_range(inode, buf, len, offset, p, later);
	return r < 0 ? r : (ssize_t)len;
}

ssize_t vc_volume_read(struct vc_inode *inode, void *buf, size_t len, uint64_t offset)
{
	return read_bytes(inode, buf, len, offset, NULL, NULL);
}

ssize_t vc_volume_read_later(struct vc_inode *inode, void *buf, size_t len, uint64_t offset, struct vc_read_later *later)
{
	return read_bytes(inode, buf, len, offset, NULL, later);
}

void vc_volume_drain_reads(struct vc_pool *pool) { vc_chunk_drain_reads(pool->chunks); }

ssize_t vc_volume_read_pieces(struct vc_inode *inode, void *buf, size_t len, uint64_t offset, struct vc_pieces *ret)
{
	ret->n = ret->nrefs = 0;
	return len > VC_PIECES_BYTES_MAX ? -EINVAL : read_bytes(inode, buf, len, offset, ret, NULL);
}

/* ---- reading ahead ---- */

#define AHEAD_BYTES (UINT64_C(2) << 20)

/* What to fetch now that [offset, offset + len) was read. Half a window at least, so that not every read looks at the map. */
static bool ahead_window(struct vc_inode *inode, uint64_t offset, size_t len, uint64_t *ret_from, uint64_t *ret_to)
{
	uint64_t from, to;
	bool wanted;

	vc_mutex_lock(&inode->lock);
	if (offset != inode->read_end)
		inode->ahead_end = 0;
	wanted = offset == inode->read_end;
	inode->read_end = offset + len;
	from = VC_MAX(inode->read_end, inode->ahead_end);
	to = VC_MIN(inode->read_end + AHEAD_BYTES, inode->f.size);
	wanted = wanted && from < to && (to - from >= AHEAD_BYTES / 2 || to == inode->f.size);
	if (wanted)
		inode->ahead_end = to;
	vc_mutex_unlock(&inode->lock);
	*ret_from = from;
	*ret_to = to;
	return wanted;
}

void vc_volume_read_ahead(struct vc_inode *inode, uint64_t offset, size_t len)
{
	struct vc_chunk_want wants[VOL_WINDOW + 1];
	struct vc_slot slots[VOL_WINDOW + 1];
	struct hold hold;
	uint64_t from, to, lba, end;
	int r = 0;

	if (!ahead_window(inode, offset, len, &from, &to))
		return;
	lba = from >> VC_BLOCK_SHIFT;
	end = VC_DIV_UP(to, (uint64_t)VC_BLOCK_SIZE);
	hold_init(&hold);
	for (; lba < end && r == 0; lba += VOL_WINDOW) {
		uint64_t n = VC_MIN(end - lba, (uint64_t)VOL_WINDOW);
		size_t nwants = 0;

		r = resolve(inode, &hold, lba, n, slots);
		for (uint64_t i = 0; i < n && r == 0; i += fetch_run(&slots[i], n - i))
			if (slots[i].kind == VC_SLOT_CHUNK)
				wants[nwants++] = (struct vc_chunk_want){ .entry = slots[i].addr };
		vc_chunk_read_ahead(vol_pool(inode)->chunks, wants, nwants);
		hold_put(&hold);
	}
}

/* ---- seek ---- */

/* A stretch from lba on, below end, that is all data or all hole. */
struct stretch {
	uint64_t lba, end;
	bool data;
	struct vc_view *from; /* counted: not known here, but what this view holds from from_lba on */
	uint64_t from_lba;
};

/* Returns true when the overlay knows block s->lba; otherwise s->end is lowered to where it begins to know. */
static bool stretch_overlay(const struct vc_overlay *o, struct stretch *s)
{
	struct vc_slot slot = { .kind = VC_SLOT_NONE };
	bool known = vc_overlay_lookup(o, s->lba, 1, &slot) == 0;
	uint64_t next, next_end;

	if (vc_overlay_next(o, s->lba, s->end, &next, &next_end))
		s->end = known ? next_end : next;
	if (!known)
		return false;
	s->data = slot.kind != VC_SLOT_ZERO;
	if (slot.kind == VC_SLOT_BASE) {
		s->from = vc_base_view(slot.base);
		s->from_lba = slot.addr;
	}
	return true;
}

static int stretch_view(struct vc_pool *pool, const struct vc_view *view, struct stretch *s)
{
	uint64_t entry, next;
	int r;

	for (unsigned int i = 0; i < view->n; i++)
		if (stretch_overlay(view->overlays[i], s))
			return 0;
	r = vc_map_lookup(pool->map, view->root, s->lba, 1, &entry);
	if (r < 0)
		return r;
	s->data = entry != VC_ENTRY_HOLE;
	r = vc_map_seek(pool->map, view->root, s->lba, s->end, !s->data, &next);
	if (r == 0)
		s->end = VC_MAX(VC_MIN(s->end, next), s->lba + 1);
	return r;
}

/* Follows what is shared from other bases; the depth is bounded by VOL_REF_DEPTH_MAX. */
static int seek_step(struct vc_pool *pool, struct vc_inode *inode, uint64_t lba, uint64_t end, bool *ret_data, uint64_t *ret_end)
{
	struct stretch s = { .lba = lba, .end = end };
	struct vc_view *view;
	bool known;
	int r = 0;

	vc_mutex_lock(&inode->lock);
	known = inode->active && stretch_overlay(inode->active, &s);
	view = vc_base_view(inode->base);
	vc_mutex_unlock(&inode->lock);
	if (!known)
		r = stretch_view(pool, view, &s);
	vc_view_put(view);
	*ret_end = s.end;
	while (s.from && r == 0) {
		struct stretch deeper = { .lba = s.from_lba, .end = s.from_lba + (s.end - s.lba) };

		r = stretch_view(pool, s.from, &deeper);
		*ret_end = lba + (deeper.end - deeper.lba);
		vc_view_put(s.from);
		s = deeper;
	}
	if (s.from)
		vc_view_put(s.from);
	*ret_data = s.data;
	return r;
}

int vc_volume_seek(struct vc_inode *inode, uint64_t offset, int whence, uint64_t *ret_offset)
{
	uint64_t lba = offset >> VC_BLOCK_SHIFT, end, size;
	bool want_data = whence == SEEK_DATA;
	unsigned int stale = 0;
	int r = vol_check_image(inode);

	if (r < 0)
		return r;
	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	vc_mutex_lock(&inode->lock);
	size = inode->f.size;
	vc_mutex_unlock(&inode->lock);
	if (offset >= size)
		return -ENXIO;
	end = VC_DIV_UP(size, (uint64_t)VC_BLOCK_SIZE);
	while (lba < end) {
		bool data;
		uint64_t next;

		r = seek_step(vol_pool(inode), inode, lba, end, &data, &next);
		if (r == -ESTALE)
			r = ++stale > VOL_STALE_TRIES ? -EIO : vol_wait_for_checkpoint(vol_pool(inode));
		else if (r == 0 && data == want_data)
			break;
		else if (r == 0) {
			lba = next;
			stale = 0;
		}
		if (r < 0)
			return r;
	}
	if (lba >= end && want_data)
		return -ENXIO;
	*ret_offset = VC_MIN(size, VC_MAX(offset, lba << VC_BLOCK_SHIFT));
	return 0;
}
