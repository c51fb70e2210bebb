/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ballast: space the pool holds back for itself, so that what was accepted can be destaged when the disk is full (D8).
 *
 * What statfs calls free may be gone before it is needed, and so may be what is freed to be used a moment later. So the pool holds, and
 * uses, files of its own:
 *
 *   POOL/reserve/%02u   pieces: reserved blocks of no content, about as much as the log. A checkpoint that finds no room for a
 *                       segment of chunks renames a piece into its place (vc_ballast_take): its blocks are never free in between.
 *   meta/data.mdb       blocks beyond its end, which the commits of checkpoints, deletes and cleans need (vc_meta_params.reserve)
 *   journal/%016llx.jnl blocks beyond the end of the file that is being written (vc_space_journal_ahead)
 *
 * Writes of guests get none of these; names and what else makes LMDB grow get half of its part (vc_pool_may_grow). What else meets a full disk (a log write where the file system copies on write, maps or a journal
 * that outgrow theirs) makes a piece go, and takes what that frees if nobody else does (vc_pool_make_room).
 *
 *   WHOLE    all pieces are there; new data is accepted while there is other free space besides
 *   DRAWN    pieces were used: new data is refused. Every look at the disk makes those again that there is room for
 *
 * Nothing depends on the content of a piece or on its being there: a crash may leave any of them, of any length.
 * Where the file system cannot reserve, there are none, and a twentieth of the disk is kept free instead, at most 1 GiB.
 *
 * Locks: VC_LOCK_SPACE over making, renaming and removing pieces; `held` is read without it.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>

#include "msg.h"
#include "pool_impl.h"

#define SPACE_CHECK_NS UINT64_C(200000000)
/* While new data is refused: who has made room writes again at once. */
#define SPACE_CHECK_FULL_NS UINT64_C(10000000)
#define SPACE_RESERVE_MAX (UINT64_C(1) << 30)
#define SPACE_MARGIN_MAX (UINT64_C(128) << 20)
#define SPACE_META (UINT64_C(4) << 20)         /* LMDB, beside a 32nd of the log */
#define SPACE_GROW_PART 128u                   /* half of it, in bytes of records: a row of 128 may cost two pages */
#define SPACE_JOURNAL (UINT64_C(1) << 20)      /* and the journal, beside a 64th: 40 bytes for a block of 4,096 */
#define BALLAST_SPARE_PIECES 2u                /* one that is begun and not filled, one that a kill left half used */
#define BALLAST_PIECES_MAX 64u
#define BALLAST_PIECE_MIN (2 * (VC_CHUNK_SEGMENT_HEADER + (uint64_t)VC_CHUNK_BLOCKS_MAX * VC_BLOCK_SIZE))

struct vc_ballast {
	char *dir;
	uint64_t piece;            /* bytes of each; 0: the file system cannot reserve */
	uint32_t want;             /* pieces */
	bool have[BALLAST_PIECES_MAX];
	_Atomic uint32_t held;     /* how many of them */
	unsigned warned;           /* per cent that was warned of */
};

/* Free space that is left for others to use; below it new data is refused. */
static uint64_t space_margin(const struct vc_io_space *space) { return VC_MIN(space->total / 64, SPACE_MARGIN_MAX); }

static uint64_t space_log_bytes(const struct vc_pool *pool)
{
	return vc_le64_get(pool->disk.log_segment_size) * vc_le32_get(pool->disk.log_segments);
}

/* What the log may turn into, in chunks. */
static uint64_t space_wanted(const struct vc_pool *pool, const struct vc_io_space *space)
{
	uint64_t log = space_log_bytes(pool);
	uint64_t spare = BALLAST_SPARE_PIECES * vc_le64_get(pool->disk.chunk_segment_size);

	return VC_MIN(log + log / 16 + spare, space->total / 8);
}

uint32_t vc_space_log_segments(struct vc_pool *pool)
{
	uint64_t size = vc_le64_get(pool->disk.log_segment_size);
	uint32_t all = vc_le32_get(pool->disk.log_segments);
	struct vc_io_space space;

	if (pool->options.read_only || vc_io_space(pool->io, pool->dir, &space) < 0)
		return all;
	return (uint32_t)VC_MIN((uint64_t)all, VC_MAX(space_wanted(pool, &space) / size, (uint64_t)VC_LOG_SEGMENTS_MIN));
}

uint64_t vc_space_meta_reserve(struct vc_pool *pool)
{
	struct vc_io_space space;

	if (pool->options.read_only || vc_io_space(pool->io, pool->dir, &space) < 0)
		return 0;
	return VC_MIN(space_log_bytes(pool) / 32 + SPACE_META, space.total / 64);
}

uint64_t vc_space_journal_ahead(struct vc_pool *pool)
{
	struct vc_io_space space;
	uint64_t ahead;

	if (vc_io_space(pool->io, pool->dir, &space) < 0)
		return 0;
	ahead = VC_MIN(space_log_bytes(pool) / 64 + SPACE_JOURNAL, space.total / 128);
	return space.free >= ahead ? ahead : 0;
}

/* ---- the pieces ---- */

static char *piece_path(const struct vc_ballast *b, uint32_t i)
{
	char *path;

	return asprintf(&path, "%s/%02u", b->dir, i) < 0 ? NULL : path;
}

/* Blocks for piece i, whatever there is of it. Of one that cannot be had whole nothing is left. */
static int piece_make_locked(struct vc_pool *pool, uint32_t i)
{
	struct vc_ballast *b = pool->ballast;
	char *path = piece_path(b, i);
	struct vc_file *file = NULL;
	uint64_t size = 0;
	int r = path ? vc_io_open(pool->io, path, VC_IO_WRITE | VC_IO_CREATE, &file) : -ENOMEM;

	if (r == 0)
		r = vc_io_size(file, &size);
	if (r == 0 && size) /* a power cut undid its renaming */
		r = vc_io_truncate(file, 0);
	if (r == 0)
		r = vc_io_allocate(file, 0, b->piece);
	vc_io_close(file);
	if (file && r < 0 && vc_io_unlink(pool->io, path) < 0)
		vc_warn("%s: a part of the pool's reserve that cannot be removed", path);
	free(path);
	if (r < 0)
		return r;
	b->have[i] = true;
	atomic_fetch_add(&b->held, 1);
	return 0;
}

/* As many pieces as there is room for. 0 or -errno; -ENOSPC, -EDQUOT: not all. */
static int ballast_fill_locked(struct vc_pool *pool)
{
	struct vc_ballast *b = pool->ballast;
	int r = 0;

	for (uint32_t i = 0; i < b->want && r == 0; i++)
		if (!b->have[i])
			r = piece_make_locked(pool, i);
	return r;
}

/* A piece leaves the reserve: renamed to `path`, or removed. 0, -ENOSPC (there is none), -errno. */
static int piece_give_locked(struct vc_pool *pool, const char *path)
{
	struct vc_ballast *b = pool->ballast;
	uint32_t i = b->want;
	char *from;
	int r;

	while (i > 0 && !b->have[i - 1])
		i--;
	if (i == 0)
		return -ENOSPC;
	from = piece_path(b, i - 1);
	r = !from ? -ENOMEM : path ? vc_io_rename(pool->io, from, path) : vc_io_unlink(pool->io, from);
	free(from);
	if (r < 0)
		return r;
	b->have[i - 1] = false;
	atomic_fetch_sub(&b->held, 1);
	return path ? vc_io_sync_dir(pool->io, b->dir) : 0;
}

/* What an earlier geometry, or an earlier program in one file, has left. */
static int ballast_forget_piece(void *ctx, const char *name)
{
	struct vc_pool *pool = ctx;
	char *end, *path;
	unsigned long i = strtoul(name, &end, 10);
	int r;

	if (*end || end == name || i < pool->ballast->want)
		return 0;
	path = piece_path(pool->ballast, (uint32_t)i);
	r = path ? vc_io_unlink(pool->io, path) : -ENOMEM;
	free(path);
	return r;
}

static int ballast_make_dir(struct vc_pool *pool)
{
	char *old = vc_pool_path(pool, "ballast");
	int r = old ? vc_io_unlink(pool->io, old) : -ENOMEM;

	free(old);
	if (r < 0 && r != -ENOENT)
		return r;
	r = vc_io_mkdir(pool->io, pool->ballast->dir);
	if (r == 0)
		return vc_io_sync_dir(pool->io, pool->dir);
	return r == -EEXIST ? vc_io_list(pool->io, pool->ballast->dir, ballast_forget_piece, pool) : r;
}

static void ballast_geometry(struct vc_pool *pool, const struct vc_io_space *space)
{
	struct vc_ballast *b = pool->ballast;
	uint64_t all = space_wanted(pool, space), most = vc_le64_get(pool->disk.chunk_segment_size);

	b->piece = VC_MIN(VC_MAX(all / 8, VC_MIN(BALLAST_PIECE_MIN, most)), most) & ~UINT64_C(4095);
	b->want = (uint32_t)VC_MIN(VC_MAX(all / b->piece, UINT64_C(1)), (uint64_t)BALLAST_PIECES_MAX);
}

static bool ballast_no_space(int r) { return r == -ENOSPC || r == -EDQUOT; }

/* LMDB's share of the reserve, if there is room for it. */
static int ballast_reserve_meta(struct vc_pool *pool)
{
	struct vc_meta_txn *txn = NULL;
	int r = vc_meta_write_begin_room(pool->meta, 0, &txn);

	vc_meta_end(txn);
	return ballast_no_space(r) ? 0 : r;
}

/*
 * All of it. On a full disk the chunks of checkpoints that a kill ended are in its place: the slices are still in the log and need
 * the room again.
 */
static int ballast_fill(struct vc_pool *pool, uint64_t next_segno)
{
	int r;

	vc_mutex_lock(&pool->space_lock);
	r = ballast_fill_locked(pool);
	vc_mutex_unlock(&pool->space_lock);
	if (!ballast_no_space(r))
		return r;
	vc_chunk_drop_unnamed(pool->chunks, next_segno);
	vc_mutex_lock(&pool->space_lock);
	r = ballast_fill_locked(pool);
	vc_mutex_unlock(&pool->space_lock);
	return r;
}

int vc_ballast_open(struct vc_pool *pool, uint64_t next_segno)
{
	struct vc_ballast *b = calloc(1, sizeof(*b));
	struct vc_io_space space;
	int r;

	pool->ballast = b;
	if (!b)
		return -ENOMEM;
	b->dir = vc_pool_path(pool, "reserve");
	r = b->dir ? vc_io_space(pool->io, pool->dir, &space) : -ENOMEM;
	if (r == 0) {
		ballast_geometry(pool, &space);
		pool->grow_max = vc_space_meta_reserve(pool) / SPACE_GROW_PART;
		r = ballast_reserve_meta(pool);
	}
	if (r == 0)
		r = ballast_make_dir(pool);
	if (r == 0)
		r = ballast_fill(pool, next_segno);
	if (r == -EOPNOTSUPP) {
		b->piece = b->want = 0;
		r = 0;
	}
	if (!ballast_no_space(r))
		return r;
	atomic_fetch_or(&pool->full, VC_FULL_RESERVE);
	vc_warn("%s: no room for what the pool keeps for itself: new data is refused (ENOSPC) until there is", pool->dir);
	return 0;
}

void vc_ballast_close(struct vc_pool *pool)
{
	if (pool->ballast)
		free(pool->ballast->dir);
	free(pool->ballast);
	pool->ballast = NULL;
}

static int ballast_give(struct vc_pool *pool, const char *path, uint64_t *ret_size)
{
	unsigned before;
	int r;

	if (!pool->ballast)
		return -ENOSPC;
	vc_mutex_lock(&pool->space_lock);
	r = piece_give_locked(pool, path);
	before = r == 0 ? atomic_fetch_or(&pool->full, VC_FULL_RESERVE) : VC_FULL_RESERVE;
	vc_mutex_unlock(&pool->space_lock);
	if (r == 0 && ret_size)
		*ret_size = pool->ballast->piece;
	if (!(before & VC_FULL_RESERVE))
		vc_warn("%s: the file system below is full: the pool's reserve is used for what was accepted; new data is refused (ENOSPC)",
			pool->dir);
	return r;
}

int vc_ballast_take(void *pool, const char *path, uint64_t *ret_size) { return ballast_give(pool, path, ret_size); }

bool vc_pool_make_room(struct vc_pool *pool)
{
	if (ballast_give(pool, NULL, NULL) < 0)
		return false;
	vc_mutex_lock(&pool->lock);
	pool->destage_now = true; /* all of it, before somebody else takes the room */
	vc_cond_signal(&pool->destage_cond);
	vc_mutex_unlock(&pool->lock);
	return true;
}

bool vc_pool_log_room(void *pool) { return vc_pool_make_room(pool); }

int vc_pool_meta_begin(struct vc_pool *pool, uint64_t npages, struct vc_meta_txn **ret)
{
	int r = vc_meta_write_begin_room(pool->meta, npages, ret);

	while (r == -ENOSPC && vc_pool_make_room(pool))
		r = vc_meta_write_begin_room(pool->meta, npages, ret);
	if (r == -ENOSPC) /* pages that LMDB has freed may do; if not, the commit says so, and can be made again */
		r = vc_meta_write_begin(pool->meta, ret);
	return r;
}

/* ---- looking at the disk ---- */

static void space_warn_locked(struct vc_pool *pool, const struct vc_io_space *space, uint64_t free)
{
	uint64_t used = space->total ? 100 - free * 100 / space->total : 0;
	unsigned level = used >= 90 ? 90 : used >= 80 ? 80 : 0;

	if (level > pool->ballast->warned)
		vc_warn("%s: the file system below is %llu %% full", pool->dir, (unsigned long long)used);
	if (level > pool->ballast->warned || used + 2 < pool->ballast->warned)
		pool->ballast->warned = level;
}

/* Make again what there is room for. Is there room for new data? */
static bool space_is_there_locked(struct vc_pool *pool, const struct vc_io_space *space)
{
	struct vc_ballast *b = pool->ballast;
	uint64_t free = space->free;
	int r = 0;

	if (!b->piece)
		return free >= VC_MIN(space->total / 20, SPACE_RESERVE_MAX);
	for (uint32_t i = 0; i < b->want && free >= b->piece && r == 0; i++)
		if (!b->have[i]) {
			r = piece_make_locked(pool, i);
			free -= b->piece;
		}
	return atomic_load(&b->held) == b->want && free >= space_margin(space);
}

static void space_look(struct vc_pool *pool)
{
	struct vc_io_space space;
	unsigned before;
	bool there;

	if (vc_io_space(pool->io, pool->dir, &space) < 0)
		return;
	vc_mutex_lock(&pool->space_lock);
	space_warn_locked(pool, &space, space.free + atomic_load(&pool->ballast->held) * pool->ballast->piece);
	there = space_is_there_locked(pool, &space);
	before = there ? atomic_fetch_and(&pool->full, ~(unsigned)VC_FULL_RESERVE) : atomic_fetch_or(&pool->full, VC_FULL_RESERVE);
	vc_mutex_unlock(&pool->space_lock);
	if (there && before & VC_FULL_RESERVE)
		vc_info("%s: there is room again: new data is accepted", pool->dir);
	else if (!there && !(before & VC_FULL_RESERVE))
		vc_warn("%s: the file system below is full: new data is refused (ENOSPC) until something is deleted", pool->dir);
}

void vc_pool_check_space(struct vc_pool *pool, bool now)
{
	uint64_t time = vc_mono_ns(), last = atomic_load(&pool->space_checked_ns);
	uint64_t often = atomic_load(&pool->full) ? SPACE_CHECK_FULL_NS : SPACE_CHECK_NS;

	if (!pool->ballast || (!now && time - last < often))
		return;
	if (atomic_compare_exchange_strong(&pool->space_checked_ns, &last, time))
		space_look(pool);
}

int vc_pool_may_grow(struct vc_pool *pool, size_t len)
{
	if (!atomic_load(&pool->full)) {
		atomic_store(&pool->grown, 0);
		return 0;
	}
	return atomic_load(&pool->grown) + len > pool->grow_max ? -ENOSPC : 0;
}

void vc_pool_grew(struct vc_pool *pool, size_t len) { atomic_fetch_add(&pool->grown, len); }

uint64_t vc_pool_space_for_data(struct vc_pool *pool, const struct vc_io_space *space)
{
	uint64_t margin = space_margin(space);

	if (pool->options.read_only || !pool->ballast)
		return space->free;
	return atomic_load(&pool->full) || space->free < margin ? 0 : space->free - margin;
}
