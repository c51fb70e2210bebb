/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chunk_sync: making chunks durable (C3).
 *
 * Every file, and the directory, is a barrier: changes make it dirty, a sync clears that when it begins and covers
 * what came before. A caller needs the sync that began after its chunks were written: it waits for that one if it
 * runs, or runs it. So no sync returns while the data it vouches for is still under way in another thread, callers share syncs,
 * and a sync of the DIRECT stream does not wait for a long one of DESTAGE.
 *
 * Segments on an unsynced list are dirty or being synced. Order: gathered bytes, files, directory.
 * A failed sync stops the store and is never tried again; all who waited for it get -EROFS.
 *
 * Locks: a stream's only while its gathered bytes are written; store->lock between the I/O.
 */
#include "config.h"
#include "chunk_impl.h"

void vc_chunk_segment_wrote(struct vc_chunk_store *store, struct chunk_segment *seg)
{
	vc_mutex_lock(&store->lock);
	seg->barrier.dirty = true;
	if (vc_list_empty(&seg->unsynced))
		vc_list_add_tail(&store->unsynced[seg->stream], &seg->unsynced);
	vc_mutex_unlock(&store->lock);
}

/*
 * Return when a sync that began after the last change before this call has ended: wait for the one that runs, or
 * run it. At most two are waited for, whatever others go on to write.
 */
static int sync_barrier(struct vc_chunk_store *store, struct chunk_barrier *b, int (*sync)(void *ctx), void *ctx)
{
	uint64_t need;
	int r = 0;

	vc_mutex_lock(&store->lock);
	need = b->begun + (b->dirty ? 1 : 0);
	while (b->done < need && !atomic_load(&store->failed)) {
		if (b->begun != b->done) {
			vc_cond_wait(&store->synced, &store->lock);
			continue;
		}
		b->dirty = false;
		b->begun++;
		vc_mutex_unlock(&store->lock);
		r = sync(ctx);
		if (r < 0)
			vc_chunk_stop(store);
		vc_mutex_lock(&store->lock);
		b->done++;
		vc_cond_broadcast(&store->synced);
	}
	vc_mutex_unlock(&store->lock);
	return r == 0 && atomic_load(&store->failed) ? -EROFS : r;
}

static int sync_file(void *ctx)
{
	struct chunk_segment *seg = ctx;

	return vc_io_datasync(seg->file);
}

/* The unsynced segment of the stream with the lowest number from `segno` on and below `end`, used by the caller. */
static struct chunk_segment *sync_next(struct vc_chunk_store *store, enum vc_chunk_stream stream, uint64_t segno,
				       uint64_t *end)
{
	struct chunk_segment *found = NULL;

	vc_mutex_lock(&store->lock);
	if (*end == 0)
		*end = store->next_segno;
	vc_list_for_each(it, &store->unsynced[stream]) {
		struct chunk_segment *seg = vc_list_entry(it, struct chunk_segment, unsynced);

		if (seg->segno >= segno && seg->segno < *end && (!found || seg->segno < found->segno))
			found = seg;
	}
	if (found)
		found->users++;
	vc_mutex_unlock(&store->lock);
	return found;
}

static void sync_forget_clean(struct vc_chunk_store *store, struct chunk_segment *seg)
{
	vc_mutex_lock(&store->lock);
	if (vc_chunk_segment_is_clean(seg))
		vc_list_del(&seg->unsynced);
	vc_mutex_unlock(&store->lock);
	vc_chunk_segment_put(store, seg);
}

static int sync_stream(struct vc_chunk_store *store, enum vc_chunk_stream stream)
{
	struct chunk_segment *seg;
	uint64_t segno = 0, end = 0;
	int r = 0;

	while (r == 0 && (seg = sync_next(store, stream, segno, &end)) != NULL) {
		segno = seg->segno + 1;
		r = sync_barrier(store, &seg->barrier, sync_file, seg);
		sync_forget_clean(store, seg);
	}
	return r;
}

static int sync_dir(void *ctx)
{
	struct vc_chunk_store *store = ctx;

	return vc_io_sync_dir(store->io, store->dir);
}

static int sync_new_names(struct vc_chunk_store *store)
{
	return sync_barrier(store, &store->dir_barrier, sync_dir, store);
}

int vc_chunk_sync(struct vc_chunk_store *store)
{
	int r = atomic_load(&store->failed) ? -EROFS : 0;

	for (int i = 0; r == 0 && i < VC_STREAM_COUNT; i++)
		r = vc_chunk_stream_flush(store, (enum vc_chunk_stream)i);
	for (int i = 0; r == 0 && i < VC_STREAM_COUNT; i++)
		r = sync_stream(store, (enum vc_chunk_stream)i);
	return r < 0 ? r : sync_new_names(store);
}

int vc_chunk_sync_direct(struct vc_chunk_store *store)
{
	int r;

	if (atomic_load(&store->failed))
		return -EROFS;
	r = sync_stream(store, VC_STREAM_DIRECT);
	return r < 0 ? r : sync_new_names(store);
}

int vc_chunk_adopt(struct vc_chunk_store *store, uint64_t entry)
{
	struct chunk_segment *seg;
	int r = vc_chunk_segment_get(store, vc_entry_segno(entry), &seg);

	if (r < 0)
		return r;
	vc_chunk_segment_wrote(store, seg);
	vc_mutex_lock(&store->lock);
	store->dir_barrier.dirty = true;
	seg->adopted = true;
	vc_mutex_unlock(&store->lock);
	vc_chunk_segment_put(store, seg);
	return 0;
}
