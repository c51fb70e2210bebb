/* SPDX-License-Identifier: BSD-2-Clause */
/* scrub_run: the pass: LMDB, log, chunk segments; then, for what is damaged, the images that name it. */
#include "config.h"

#include <stdlib.h>

#include "msg.h"
#include "scrub_impl.h"

#define SCRUB_TRIES 5
#define SCRUB_META_S 60u /* LMDB is read in that time, however low the rate */
#define SCRUB_SAID_MAX 100u

#define ULL(x) ((unsigned long long)(x))

/* ---- LMDB ---- */

static int meta_bad(void *ctx, enum vc_meta_db db, const void *key, size_t key_len)
{
	struct vc_scrub *s = ctx;
	const uint8_t *k = key;
	uint64_t id = key_len >= 8 ? vc_be64_at(k + (db == VC_DB_CAT && key_len >= 9)) : 0;

	if (db == VC_DB_NODE) {
		if (vc_array_room(&s->nodes, s->nnodes, &s->nodes_cap, sizeof(*s->nodes)) < 0)
			return -ENOMEM;
		s->nodes[s->nnodes++] = id;
		return 0;
	}
	vc_scrub_add(s, &(struct vc_scrub_found){ .ino = key_len >= 9 && k[0] != VC_ROW_SEGMENT ? id : 0, .kind = VC_SCRUB_ROW,
						  .file = key_len ? k[0] : 0 });
	return 0;
}

static int meta_step(void *ctx, size_t bytes) { return vc_scrub_pace(ctx, bytes); }

/* A read transaction is open all the while, and keeps LMDB from using free pages again: it is not to last for hours, whatever the rate. */
static int run_meta(struct vc_scrub *s)
{
	struct vc_meta_scrub scrub = { .bad = meta_bad, .step = meta_step, .ctx = s };
	struct vc_meta_stats stats;
	int r = vc_meta_stats(s->pool->meta, &stats);

	if (r < 0)
		return r;
	s->rate_min = stats.file_bytes / SCRUB_META_S;
	r = vc_meta_scrub(s->pool->meta, &scrub);
	s->rate_min = 0;
	if (r == -EUCLEAN || r == -EIO || r == -EBADMSG) {
		vc_scrub_add(s, &(struct vc_scrub_found){ .kind = VC_SCRUB_META });
		r = 0;
	}
	return r;
}

/* ---- log ---- */

static void log_bad(void *ctx, const struct vc_log_damage *d)
{
	vc_scrub_add(ctx, &(struct vc_scrub_found){ .ino = d->ino, .offset = d->lba * VC_BLOCK_SIZE, .len = d->nblocks * VC_BLOCK_SIZE,
						    .kind = VC_SCRUB_LOG, .file = d->slot, .at = d->offset });
}

static int run_log(struct vc_scrub *s)
{
	uint64_t bytes;
	int64_t seq = 0;
	int r = 0;

	do {
		seq = vc_log_verify(s->pool->log, (uint64_t)seq + 1, log_bad, s, &bytes);
		if (seq > 0)
			r = vc_scrub_pace(s, bytes);
	} while (seq > 0 && r == 0);
	return seq < 0 ? (int)seq : r;
}

/* ---- chunk segments ---- */

struct next_segment {
	uint64_t from;
	struct vc_chunk_segment_info info;
};

static int next_segment_is(void *ctx, const struct vc_chunk_segment_info *info)
{
	struct next_segment *n = ctx;

	if (info->segno < n->from)
		return 0;
	n->info = *info;
	return 1;
}

static int chunk_bad(void *ctx, uint64_t segno, uint64_t from, uint64_t to)
{
	struct vc_scrub *s = ctx;

	if (vc_array_room(&s->ranges, s->nranges, &s->ranges_cap, sizeof(*s->ranges)) < 0)
		return -ENOMEM;
	s->ranges[s->nranges++] = (struct scrub_range){ segno, from, to };
	return 0;
}

static int chunk_step(void *ctx, size_t bytes) { return vc_scrub_pace(ctx, bytes); }

/* A segment that is stopped in is read again from its beginning. */
static int run_segment(struct vc_scrub *s, const struct vc_chunk_segment_info *info)
{
	struct vc_chunk_verify scan = { .bad = chunk_bad, .step = chunk_step, .ctx = s };
	size_t before = s->nranges;
	int r = vc_chunk_verify(s->pool->chunks, info->segno, VC_CHUNK_SEGMENT_HEADER, info->used, &scan);

	if (r == -EINTR)
		s->nranges = before;
	return r == -EIO || r == -ESTALE ? 0 : r;
}

static int run_segments(struct vc_scrub *s)
{
	int r = 0;

	while (r == 0) {
		struct next_segment next = { .from = s->next_segno };

		r = vc_chunk_each_segment(s->pool->chunks, next_segment_is, &next);
		if (r != 1 || next.info.segno >= s->end_segno)
			return VC_MIN(r, 0);
		r = run_segment(s, &next.info);
		if (r == 0) {
			s->next_segno = next.info.segno + 1;
			vc_scrub_save(s, true, false);
		}
	}
	return r;
}

/* ---- who names it? ---- */

/* One image being walked. */
struct walk {
	struct vc_scrub *s;
	uint64_t ino;
	uint64_t chunk;        /* the chunk that was looked at last */
	bool chunk_bad;
};

static int range_compare(const void *a, const void *b)
{
	const struct scrub_range *x = a, *y = b;

	if (x->segno != y->segno)
		return x->segno < y->segno ? -1 : 1;
	return x->from < y->from ? -1 : x->from > y->from;
}

static bool range_has(const struct vc_scrub *s, uint64_t segno, uint64_t at)
{
	size_t low = 0, high = s->nranges;

	while (low < high) { /* the last range that begins at or before */
		size_t mid = (low + high) / 2;

		if (s->ranges[mid].segno < segno || (s->ranges[mid].segno == segno && s->ranges[mid].from <= at))
			low = mid + 1;
		else
			high = mid;
	}
	return low > 0 && s->ranges[low - 1].segno == segno && at < s->ranges[low - 1].to;
}

static int confirm_bad(void *ctx, uint64_t segno, uint64_t from, uint64_t to)
{
	(void)segno;
	(void)from;
	(void)to;
	*(bool *)ctx = true;
	return 0;
}

/* It may have been written after its place was read: only now it is known that the map names it. */
static int entry_is_bad(struct walk *w, uint64_t entry, bool *ret)
{
	struct vc_chunk_verify scan = { .bad = confirm_bad, .ctx = &w->chunk_bad };
	uint64_t segno = vc_entry_segno(entry);
	uint32_t at = vc_entry_offset(entry);
	int r = 0;

	if (vc_entry_chunk(entry) != w->chunk) {
		w->chunk = vc_entry_chunk(entry);
		w->chunk_bad = false;
		if (range_has(w->s, segno, at))
			r = vc_chunk_verify(w->s->pool->chunks, segno, at, at + 1, &scan);
	}
	*ret = w->chunk_bad;
	return r == -EIO ? 0 : r;
}

static int walk_leaf(struct walk *w, const struct vc_node *node, uint64_t lba)
{
	int r = 0;

	for (uint32_t i = 0; i < VC_LEAF_BLOCKS && r == 0; i++) {
		uint64_t entry = node->slots[i];
		bool bad = false;

		if (entry)
			r = entry_is_bad(w, entry, &bad);
		if (bad)
			vc_scrub_add(w->s, &(struct vc_scrub_found){ .ino = w->ino, .offset = (lba + i) * VC_BLOCK_SIZE, .len = VC_BLOCK_SIZE,
								     .kind = VC_SCRUB_CHUNK, .file = vc_entry_segno(entry),
								     .at = vc_entry_offset(entry) });
	}
	return r;
}

static bool node_is_bad(const struct vc_scrub *s, uint64_t id)
{
	for (size_t i = 0; i < s->nnodes; i++)
		if (s->nodes[i] == id)
			return true;
	return false;
}

/* One short read transaction a node. */
static int walk_read(struct walk *w, uint64_t id, struct vc_node *node)
{
	struct vc_meta_txn *txn;
	int r = vc_meta_read_begin(w->s->pool->meta, &txn);

	if (r < 0)
		return r;
	r = vc_map_node_read(txn, id, node);
	vc_meta_end(txn);
	return r;
}

/* Depth is that of a tree. */
static int walk_node(struct walk *w, uint64_t id, uint32_t level, uint64_t lba)
{
	uint64_t span = UINT64_C(1) << (VC_LEAF_SHIFT + VC_FANOUT_SHIFT * level);
	struct vc_node *node = malloc(sizeof(*node));
	int r = node ? vc_scrub_pace(w->s, 0) : -ENOMEM;

	if (r == 0)
		r = node_is_bad(w->s, id) ? -EBADMSG : walk_read(w, id, node);
	if (r == 0 && node->level != level)
		r = -EUCLEAN;
	if (r == -EBADMSG || r == -EUCLEAN) {
		vc_scrub_add(w->s, &(struct vc_scrub_found){ .ino = w->ino, .offset = lba * VC_BLOCK_SIZE, .len = span * VC_BLOCK_SIZE,
							     .kind = VC_SCRUB_NODE, .file = id });
		r = 0;
	} else if (r == 0 && level == 0) {
		r = walk_leaf(w, node, lba);
	} else if (r == 0) {
		for (uint32_t i = 0; i < VC_FANOUT && r == 0; i++)
			if (node->slots[i])
				r = walk_node(w, node->slots[i], level - 1, lba + i * (span >> VC_FANOUT_SHIFT));
	}
	free(node);
	return r;
}

struct images {
	uint64_t *inos;
	size_t n, cap;
};

static int images_row(void *ctx, const void *key, size_t key_len, const void *value, size_t len)
{
	struct images *m = ctx;

	(void)value;
	(void)len;
	if (key_len != 9 || vc_array_room(&m->inos, m->n, &m->cap, sizeof(*m->inos)) < 0)
		return key_len != 9 ? -EUCLEAN : -ENOMEM;
	m->inos[m->n++] = vc_be64_at((const uint8_t *)key + 1);
	return 0;
}

static int images_list(struct vc_scrub *s, struct images *m)
{
	uint8_t prefix = VC_ROW_IMAGE;
	struct vc_meta_txn *txn;
	int r = vc_meta_read_begin(s->pool->meta, &txn);

	if (r < 0)
		return r;
	r = vc_meta_scan(txn, VC_DB_CAT, &prefix, 1, NULL, 0, images_row, m);
	vc_meta_end(txn);
	return r;
}

static int image_root(struct vc_scrub *s, uint64_t ino, struct vc_root *ret)
{
	struct vc_disk_image d;
	struct vc_meta_txn *txn;
	const void *value;
	uint8_t key[9];
	size_t len;
	int r = vc_meta_read_begin(s->pool->meta, &txn);

	if (r < 0)
		return r;
	r = vc_meta_get(txn, VC_DB_CAT, key, vc_row_key_ino(key, VC_ROW_IMAGE, ino), &value, &len);
	if (r == 0 && len == sizeof(d)) {
		memcpy(&d, value, sizeof(d));
		*ret = (struct vc_root){ vc_le64_get(d.root), vc_le32_get(d.height) };
	}
	vc_meta_end(txn);
	return r;
}

/* A checkpoint may replace nodes under us: then again from the new root. */
static int run_image(struct vc_scrub *s, uint64_t ino)
{
	struct walk w = { .s = s, .ino = ino };
	struct vc_root root = { 0, 0 };
	size_t before;
	int r = -ESTALE;

	vc_mutex_lock(&s->pool->lock);
	before = s->nfound;
	vc_mutex_unlock(&s->pool->lock);
	for (unsigned int i = 0; i < SCRUB_TRIES && r == -ESTALE; i++) {
		vc_mutex_lock(&s->pool->lock);
		s->status.found -= s->nfound - VC_MIN(before, s->nfound);
		s->nfound = VC_MIN(before, s->nfound);
		vc_mutex_unlock(&s->pool->lock);
		r = image_root(s, ino, &root);
		if (r == 0 && root.id && root.height >= 1 && root.height <= VC_HEIGHT_MAX)
			r = walk_node(&w, root.id, root.height - 1, 0);
	}
	if (r == -ESTALE) {
		vc_scrub_add(s, &(struct vc_scrub_found){ .ino = ino, .kind = VC_SCRUB_NODE, .file = root.id });
		r = 0;
	}
	return r == -ENOENT ? 0 : r;
}

/* Chunks that only the log names are named by maps afterwards. A pool that cannot destage is looked at as it is. */
static void run_destage(struct vc_scrub *s)
{
	uint64_t id;

	if (vc_pool_task_start(s->pool, VC_TASK_DESTAGE, &id) < 0 || vc_pool_task_wait(s->pool, VC_TASK_DESTAGE, id) < 0)
		vc_warn("%s: scrub: what is not destaged is not looked up", s->pool->dir);
}

static int run_report(struct vc_scrub *s)
{
	struct images images = { .n = 0 };
	int r = 0;

	if (s->nranges == 0 && s->nnodes == 0)
		return 0;
	if (s->nranges)
		qsort(s->ranges, s->nranges, sizeof(*s->ranges), range_compare);
	run_destage(s);
	r = images_list(s, &images);
	for (size_t i = 0; i < images.n && r == 0; i++)
		r = run_image(s, images.inos[i]);
	free(images.inos);
	return r;
}

static void run_say(struct vc_scrub *s)
{
	struct vc_scrub_found f;

	for (uint64_t i = 0; i < SCRUB_SAID_MAX && vc_scrub_list(s->pool, i, &f, 1); i++) {
		if (f.kind == VC_SCRUB_CHUNK)
			vc_err("%s: scrub: image %llu, offset %llu, %llu bytes: damaged in chunk/%08llx.seg at %llu", s->pool->dir, ULL(f.ino),
			       ULL(f.offset), ULL(f.len), ULL(f.file), ULL(f.at));
		else if (f.kind == VC_SCRUB_LOG)
			vc_err("%s: scrub: image %llu, offset %llu, %llu bytes: damaged in log/%04llu.log at %llu", s->pool->dir, ULL(f.ino),
			       ULL(f.offset), ULL(f.len), ULL(f.file), ULL(f.at));
		else if (f.kind == VC_SCRUB_NODE)
			vc_err("%s: scrub: image %llu, offset %llu, %llu bytes: map node %llu is damaged in meta/data.mdb", s->pool->dir,
			       ULL(f.ino), ULL(f.offset), ULL(f.len), ULL(f.file));
		else if (f.kind == VC_SCRUB_ROW)
			vc_err("%s: scrub: inode %llu: row %c is damaged in meta/data.mdb", s->pool->dir, ULL(f.ino), (char)f.file);
		else
			vc_err("%s: scrub: meta/data.mdb is damaged (see the message before)", s->pool->dir);
	}
}

static int sum_used(void *ctx, const struct vc_chunk_segment_info *info)
{
	struct vc_scrub *s = ctx;

	if (info->segno >= s->next_segno && info->segno < s->end_segno)
		s->status.total += info->used;
	return 0;
}

/* How much there is to do, about. */
static int run_begin(struct vc_scrub *s)
{
	struct vc_meta_stats stats;
	struct vc_log_figures log;
	uint64_t total;
	int r = vc_meta_stats(s->pool->meta, &stats);

	if (r < 0)
		return r;
	vc_log_figures(s->pool->log, &log);
	if (!s->end_segno)
		s->end_segno = vc_chunk_next_segno(s->pool->chunks);
	vc_mutex_lock(&s->pool->lock);
	s->status.total = s->status.done + stats.file_bytes - stats.free_bytes + log.used;
	r = vc_chunk_each_segment(s->pool->chunks, sum_used, s);
	total = s->status.total;
	vc_mutex_unlock(&s->pool->lock);
	vc_info("%s: scrub: reading about %llu MiB", s->pool->dir, ULL(total >> 20));
	return r;
}

int vc_scrub_run(struct vc_scrub *s)
{
	int r = run_begin(s);

	if (r == 0) {
		vc_scrub_save(s, true, true);
		r = run_meta(s);
	}
	if (r == 0)
		r = run_log(s);
	if (r == 0)
		r = run_segments(s);
	if (r == 0)
		r = run_report(s);
	if (r == 0)
		run_say(s);
	return r;
}
