/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chunk_direct: large writes straight into segment files.
 *
 * A write is cut into pieces, which several threads pack (see work.h). Each is placed behind the one before it, so that the
 * blocks lie in order: who has packed a piece places it, and those that became ready meanwhile, unless somebody is placing already;
 * then that one will get to it. So one thread writes while others compress, and none waits.
 */
#include "config.h"

#include <stdlib.h>

#include "chunk_impl.h"

/* Of a piece: compressing it takes several times as long as waking a thread. */
#define DIRECT_PIECE_BLOCKS 32u
/* Entry of an item that has no address yet; no real entry has these bits. */
#define DIRECT_NO_ADDRESS UINT64_MAX

/* What is packed of one piece, and the items that name it. */
struct direct_piece {
	uint64_t lba;
	const uint8_t *data;
	uint64_t nblocks;
	bool ready;                   /* packed, or failed; job->lock */
	int error;
	uint8_t *bytes;
	size_t len, placed;           /* bytes packed, and of those written */
	struct vc_disk_direct *items;
	uint32_t n, nplaced;          /* items made; those before nplaced have their address */
	uint64_t nstored;             /* blocks packed, so without zeros */
};

struct direct_job {
	struct vc_chunk_store *store;
	uint64_t ino, lsn;
	struct direct_piece *pieces;
	size_t npieces;
	struct vc_mutex lock;         /* VC_LOCK_WORK */
	size_t next;                  /* lock; to be placed next */
	bool placing;                 /* lock; somebody is at it */
	int error;                    /* of the first piece that was not placed; whoever places, and the end */
};

/* Add an item behind `n` others; zeros join zeros. Returns how many there are then. */
static uint32_t direct_add(struct vc_disk_direct *items, uint32_t n, const struct vc_disk_direct *item)
{
	struct vc_disk_direct *last = n ? &items[n - 1] : NULL;
	uint32_t more = vc_le32_get(item->nblocks);

	if (last && vc_le64_get(item->entry) == VC_ENTRY_HOLE && vc_le64_get(last->entry) == VC_ENTRY_HOLE &&
	    vc_le32_get(last->nblocks) <= UINT32_MAX - more) {
		last->nblocks = vc_le32_of(vc_le32_get(last->nblocks) + more);
		return n;
	}
	items[n] = *item;
	return n + 1;
}

static void direct_pack(const struct direct_job *job, struct direct_piece *p)
{
	uint32_t chunk_blocks = job->store->chunk_blocks;
	uint64_t done = 0;

	while (done < p->nblocks) {
		const uint8_t *at = p->data + done * VC_BLOCK_SIZE;
		uint32_t to_border = chunk_blocks - (uint32_t)((p->lba + done) & (chunk_blocks - 1));
		uint32_t n = (uint32_t)VC_MIN(to_border, p->nblocks - done);
		struct vc_disk_direct item = { .nblocks = vc_le32_of(n) };

		if (!vc_is_zero(at, n * (size_t)VC_BLOCK_SIZE)) {
			struct vc_disk_chunk *head = (struct vc_disk_chunk *)(p->bytes + p->len);

			p->len += vc_chunk_pack(job->store, p->bytes + p->len, job->ino, p->lba + done, job->lsn, at, n);
			item.entry = vc_le64_of(DIRECT_NO_ADDRESS);
			item.payload_sum = head->payload_sum;
			p->nstored += n;
		}
		p->n = direct_add(p->items, p->n, &item);
		done += n;
	}
}

/* Bind the chunks left that fit from the position on, at least one. Returns their bytes, number, and the item after. */
static uint32_t direct_bind(const struct chunk_stream *st, struct direct_piece *p,
			    uint32_t *ret_nchunks, uint32_t *ret_item)
{
	uint32_t room = st->seg->limit - st->pos, run = 0, nchunks = 0, item = p->nplaced;

	for (; item < p->n; item++) {
		uint8_t *chunk = p->bytes + p->placed + run;

		if (vc_le64_get(p->items[item].entry) == VC_ENTRY_HOLE)
			continue;
		if (vc_chunk_pack_size((struct vc_disk_chunk *)chunk) > room - run)
			break;
		p->items[item].entry = vc_le64_of(vc_chunk_pack_bind(chunk, st->seg->segno, st->pos + run));
		run += vc_chunk_pack_size((struct vc_disk_chunk *)chunk);
		nchunks++;
	}
	*ret_nchunks = nchunks;
	*ret_item = item;
	return run;
}

/* Write the next run of chunks: all that is left, or what the segment still takes. */
static int direct_place_run(const struct direct_job *job, struct chunk_stream *st, struct direct_piece *p)
{
	struct vc_chunk_store *store = job->store;
	uint32_t run, nchunks, item;
	int r = vc_chunk_stream_ready(store, st, vc_chunk_pack_size((struct vc_disk_chunk *)(p->bytes + p->placed)));

	if (r < 0)
		return r;
	run = direct_bind(st, p, &nchunks, &item);
	r = vc_chunk_stream_write(store, st, p->bytes + p->placed, run, st->pos);
	if (r < 0)
		return r;
	st->pos += run;
	vc_chunk_segment_grow(store, st->seg, st->pos, job->lsn, nchunks);
	p->placed += run;
	p->nplaced = item;
	return 0;
}

static int direct_place(const struct direct_job *job, struct direct_piece *p)
{
	struct chunk_stream *st = &job->store->streams[VC_STREAM_DIRECT];
	int r = p->error;

	if (r < 0 || p->len == 0)
		return r;
	vc_mutex_lock(&st->lock);
	while (r == 0 && p->placed < p->len)
		r = direct_place_run(job, st, p);
	vc_mutex_unlock(&st->lock);
	return r;
}

/* Piece p is ready: place what is, in order. */
static void direct_place_ready(struct direct_job *job, struct direct_piece *p)
{
	vc_mutex_lock(&job->lock);
	p->ready = true;
	if (!job->placing) {
		job->placing = true;
		while (job->next < job->npieces && job->pieces[job->next].ready) {
			struct direct_piece *next = &job->pieces[job->next++];

			vc_mutex_unlock(&job->lock);
			if (job->error == 0)
				job->error = direct_place(job, next);
			free(next->bytes);
			vc_mutex_lock(&job->lock);
		}
		job->placing = false;
	}
	vc_mutex_unlock(&job->lock);
}

static void direct_run_piece(void *ctx, size_t i)
{
	struct direct_job *job = ctx;
	struct direct_piece *p = &job->pieces[i];

	p->bytes = malloc(p->nblocks * (VC_BLOCK_SIZE + sizeof(struct vc_disk_chunk)));
	if (p->bytes)
		direct_pack(job, p);
	else
		p->error = -ENOMEM;
	direct_place_ready(job, p);
}

/* Pieces end where chunks do. Their items follow one another in `items`, with room between. */
static void direct_cut(struct direct_job *job, uint64_t lba, const uint8_t *data, uint64_t nblocks, struct vc_disk_direct *items)
{
	uint64_t size = VC_MAX(DIRECT_PIECE_BLOCKS, job->store->chunk_blocks);

	while (nblocks) {
		struct direct_piece *p = &job->pieces[job->npieces++];
		uint64_t n = VC_MIN(nblocks, size - (lba & (size - 1)));

		*p = (struct direct_piece){ .lba = lba, .data = data, .nblocks = n, .items = items };
		items += n / job->store->chunk_blocks + 2;
		data += n * VC_BLOCK_SIZE;
		lba += n;
		nblocks -= n;
	}
}

/* The items of all pieces, in order, or none when the job failed. */
static uint32_t direct_gather(const struct direct_job *job, struct vc_disk_direct *ret)
{
	uint64_t nstored = 0, bytes = 0;
	uint32_t n = 0;

	for (size_t i = 0; i < job->npieces; i++) {
		const struct direct_piece *p = &job->pieces[i];

		if (job->error < 0) {
			vc_chunk_direct_done(job->store, p->items, p->nplaced, 0);
			continue;
		}
		for (uint32_t k = 0; k < p->n; k++)
			n = direct_add(ret, n, &p->items[k]);
		nstored += p->nstored;
		bytes += p->len;
	}
	if (job->error == 0)
		vc_chunk_count_appended(job->store, nstored, bytes);
	return n;
}

int vc_chunk_append_direct(struct vc_chunk_store *store, uint64_t ino, uint64_t lba, uint64_t lsn, const void *data,
			   uint64_t nblocks, struct vc_disk_direct *ret, uint32_t *ret_n)
{
	struct direct_job job = { .store = store, .ino = ino, .lsn = lsn };
	size_t pieces = nblocks / DIRECT_PIECE_BLOCKS + 2;
	struct vc_disk_direct *items;

	if (vc_chunk_is_read_only(store))
		return -EROFS;
	job.pieces = calloc(pieces, sizeof(*job.pieces));
	items = calloc(nblocks / store->chunk_blocks + 2 * pieces, sizeof(*items));
	if (job.pieces && items) {
		vc_mutex_init(&job.lock, VC_LOCK_WORK);
		direct_cut(&job, lba, data, nblocks, items);
		vc_work_run(store->workers, job.npieces, direct_run_piece, &job);
		*ret_n = direct_gather(&job, ret);
		vc_mutex_fini(&job.lock);
	} else {
		job.error = -ENOMEM;
	}
	free(items);
	free(job.pieces);
	return job.error;
}
