/* SPDX-License-Identifier: BSD-2-Clause */
/* salvage: see salvage.h. The newest chunk of a block counts even when its payload is damaged: what it replaced is not what was there. */
#include "config.h"

#include "salvage.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "check_impl.h"

#define ULL(x) ((unsigned long long)(x))
#define SALVAGE_FOLD 8192u                 /* changes folded at once */
#define SALVAGE_LSN_GAP (UINT64_C(1) << 32) /* above every LSN of a log that is given up */
#define SALVAGE_WINDOW VC_CHUNK_BLOCKS_MAX  /* a chunk lies within one */

struct salvage_chunk {
	uint64_t ino, lba, lsn, entry;
	uint32_t nblocks;
};

struct salvage {
	struct rebuild *rb;
	uint64_t from, to; /* chunks from this LSN on and below that one are wanted */
	struct salvage_chunk *chunks;
	size_t nchunks, chunks_cap;
	struct check seen; /* only its table of inodes: which exist at some point of the log */
};

/* ---- where the log begins ---- */

struct salvage_segment {
	uint64_t seq, first_lsn;
};

struct salvage_log {
	struct salvage_segment *v;
	size_t n, cap;
};

static int log_add(void *ctx, const struct vc_disk_log_segment *header)
{
	struct salvage_log *l = ctx;

	if (vc_array_room(&l->v, l->n, &l->cap, sizeof(*l->v)) < 0)
		return -ENOMEM;
	l->v[l->n++] = (struct salvage_segment){ vc_le64_get(header->seq), vc_le64_get(header->first_lsn) };
	return 0;
}

static int log_compare(const void *a, const void *b)
{
	const struct salvage_segment *x = a, *y = b;

	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static struct vc_log_section *log_section(void *ctx, uint64_t seq VC_UNUSED)
{
	static struct vc_log_section section;

	(void)ctx;
	return &section;
}

static int log_read(struct rebuild *rb, const struct salvage_segment *from,
		    int (*record)(void *ctx, uint64_t lsn, uint64_t addr, const uint8_t *bytes, bool durable), void *ctx)
{
	struct vc_log_replay replay = { .checkpoint_lsn = from->first_lsn - 1, .first_seq = from->seq, .read_only = true,
					.segment = log_section, .record = record };
	struct vc_log_params params = rb->log;
	struct vc_log_section current = { .next = NULL };
	struct vc_log *log;
	int r;

	params.ctx = ctx;
	r = vc_log_open(&params, &replay, &current, &log);
	if (r == 0)
		vc_log_close(log);
	return r;
}

static int no_record(void *ctx VC_UNUSED, uint64_t lsn VC_UNUSED, uint64_t addr VC_UNUSED, const uint8_t *bytes VC_UNUSED, bool durable VC_UNUSED)
{
	return 0;
}

/* The oldest segment from which the log can be read to its end, of those behind the checkpoint. seq 0: none. */
static int log_find(struct rebuild *rb, struct salvage_segment *ret, uint64_t *ret_last_seq, uint64_t *ret_last_lsn)
{
	struct salvage_log l = { .n = 0 };
	uint64_t next = vc_le64_get(rb->state.checkpoint_lsn) + 1;
	int r = vc_log_each_segment(&rb->log, log_add, &l);

	*ret = (struct salvage_segment){ 0, 0 };
	*ret_last_seq = 0;
	*ret_last_lsn = next;
	if (l.n)
		qsort(l.v, l.n, sizeof(*l.v), log_compare);
	for (size_t i = 0; i < l.n && r == 0; i++) {
		*ret_last_seq = l.v[i].seq;
		*ret_last_lsn = VC_MAX(*ret_last_lsn, l.v[i].first_lsn);
		if (ret->seq || l.v[i].first_lsn < next)
			continue;
		r = log_read(rb, &l.v[i], no_record, NULL);
		if (r == 0)
			*ret = l.v[i];
		r = rebuild_is_damage(r) ? 0 : r;
	}
	free(l.v);
	return r;
}

/* ---- chunks ---- */

static int chunk_found(void *ctx, uint64_t entry, const struct vc_disk_chunk *head)
{
	struct salvage *s = ctx;
	struct salvage_chunk c = { vc_le64_get(head->ino), vc_le64_get(head->lba), vc_le64_get(head->lsn), entry, head->nblocks };

	s->rb->next_segno = VC_MAX(s->rb->next_segno, vc_entry_segno(entry) + 1);
	if (c.lsn < s->from || c.lsn >= s->to || c.ino < 16 || c.lba >= VC_IMAGE_BLOCKS_MAX)
		return 0;
	if (vc_array_room(&s->chunks, s->nchunks, &s->chunks_cap, sizeof(*s->chunks)) < 0)
		return -ENOMEM;
	s->chunks[s->nchunks++] = c;
	return 0;
}

static int chunks_scan(struct salvage *s)
{
	char *dir = vc_replace_path(s->rb->dir, "chunk", NULL);
	struct vc_chunk_params params = { .io = s->rb->io, .dir = dir, .cache_bytes = 1u << 20, .read_only = true,
					  .segment_size = vc_le64_get(s->rb->pool.chunk_segment_size),
					  .chunk_blocks = vc_le32_get(s->rb->pool.chunk_blocks) };
	struct vc_chunk_store *store;
	int r = dir ? 0 : -ENOMEM;

	memcpy(params.uuid, s->rb->pool.uuid, sizeof(params.uuid));
	if (r == 0)
		r = vc_chunk_open(&params, &store);
	if (r == 0) {
		r = vc_chunk_scan(store, chunk_found, s);
		vc_chunk_close(store);
	}
	free(dir);
	return r;
}

static int chunk_compare(const void *a, const void *b)
{
	const struct salvage_chunk *x = a, *y = b;
	uint64_t xw = x->lba / SALVAGE_WINDOW, yw = y->lba / SALVAGE_WINDOW;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	if (xw != yw)
		return xw < yw ? -1 : 1;
	if (x->lsn != y->lsn)
		return x->lsn < y->lsn ? -1 : 1;
	return x->entry < y->entry ? -1 : x->entry > y->entry;
}

/* ---- images ---- */

static int has_row(struct rebuild *rb, enum vc_row_kind kind, uint64_t ino, void *ret, size_t size)
{
	uint8_t key[9];
	const void *value;
	size_t len;
	int r = rebuild_txn(rb);

	if (r == 0)
		r = vc_meta_get(rb->txn, VC_DB_CAT, key, vc_row_key_ino(key, kind, ino), &value, &len);
	if (r == 0 && ret)
		memcpy(ret, value, VC_MIN(len, size));
	return r;
}

static int put_image(struct rebuild *rb, uint64_t ino, const struct vc_disk_image *image)
{
	uint8_t key[9];
	int r = rebuild_txn(rb);

	rb->next_ino = VC_MAX(rb->next_ino, ino + 1);
	return r < 0 ? r : vc_meta_put(rb->txn, VC_DB_CAT, key, vc_row_key_ino(key, VC_ROW_IMAGE, ino), image, sizeof(*image));
}

static int image_fold(struct rebuild *rb, struct vc_root *root)
{
	struct vc_fold fold = { .root = *root, .changes = rb->changes, .nchanges = rb->nchanges };
	int r = rb->nchanges ? rebuild_txn(rb) : 0;

	if (r == 0 && rb->nchanges)
		r = vc_map_fold(rb->map, rb->txn, &fold, root);
	rb->cost += rb->nchanges;
	rb->nchanges = 0;
	return r == 0 && rb->cost > SALVAGE_FOLD ? rebuild_commit(rb) : r;
}

/* One window: of each block the newest; runs within one chunk are one change. */
static int window_changes(struct salvage *s, const struct salvage_chunk *c, size_t n)
{
	uint64_t base = c->lba / SALVAGE_WINDOW * SALVAGE_WINDOW, slots[SALVAGE_WINDOW] = { 0 };
	struct rebuild *rb = s->rb;

	for (size_t i = 0; i < n; i++)
		for (uint32_t b = 0; b < c[i].nblocks && c[i].lba + b < base + SALVAGE_WINDOW; b++)
			slots[c[i].lba + b - base] = c[i].entry + b;
	for (uint32_t i = 0; i < SALVAGE_WINDOW; i++) {
		struct vc_change *last = rb->nchanges ? &rb->changes[rb->nchanges - 1] : NULL;

		if (!slots[i])
			continue;
		rb->ret->salvaged_blocks++;
		if (i && slots[i - 1] && slots[i] == slots[i - 1] + 1 && vc_entry_chunk(slots[i]) == vc_entry_chunk(slots[i - 1])) {
			last->nblocks++;
			continue;
		}
		if (vc_array_room(&rb->changes, rb->nchanges, &rb->changes_cap, sizeof(*rb->changes)) < 0)
			return -ENOMEM;
		rb->changes[rb->nchanges++] = (struct vc_change){ .lba = base + i, .nblocks = 1, .kind = VC_CHANGE_SET, .entry = slots[i] };
	}
	return 0;
}

/*
 * An image that the checkpoint does not have was deleted before it or made after it, and only its chunks know: a slice may have written for what
 * its last records deleted (a clone needs it), with its own last LSN, never a later one. Inode numbers say nothing: the counter runs ahead
 * of the slice that a checkpoint holds. How many are left.
 */
static size_t chunks_after(struct salvage_chunk *c, size_t n, uint64_t lsn)
{
	size_t left = 0;

	for (size_t i = 0; i < n; i++)
		if (c[i].lsn > lsn)
			c[left++] = c[i];
	return left;
}

static int image_salvage(struct salvage *s, struct salvage_chunk *c, size_t n)
{
	struct rebuild *rb = s->rb;
	struct vc_disk_image image = { .root = vc_le64_of(0) };
	struct vc_root root;
	int r = has_row(rb, VC_ROW_IMAGE, c->ino, &image, sizeof(image));

	if (r == -ENOENT)
		n = chunks_after(c, n, s->from);
	if (n == 0)
		return 0;
	root = (struct vc_root){ vc_le64_get(image.root), vc_le32_get(image.height) };
	r = r == -ENOENT ? 0 : r;
	rb->nchanges = 0;
	for (size_t i = 0, end; i < n && r == 0; i = end) {
		for (end = i + 1; end < n && c[end].lba / SALVAGE_WINDOW == c[i].lba / SALVAGE_WINDOW; end++)
			;
		r = window_changes(s, c + i, end - i);
		if (r == 0 && rb->nchanges >= SALVAGE_FOLD)
			r = image_fold(rb, &root);
	}
	if (r == 0)
		r = image_fold(rb, &root);
	image = (struct vc_disk_image){ .root = vc_le64_of(root.id), .height = vc_le32_of(root.height),
					.tag = vc_le64_of(rb->next_tag++), .content = vc_le64_of(rb->next_content++) };
	rb->ret->salvaged_images++;
	return r < 0 ? r : put_image(rb, c->ino, &image);
}

static int images_salvage(struct salvage *s)
{
	int r = 0;

	if (s->nchunks)
		qsort(s->chunks, s->nchunks, sizeof(*s->chunks), chunk_compare);
	for (size_t i = 0, end; i < s->nchunks && r == 0; i = end) {
		for (end = i + 1; end < s->nchunks && s->chunks[end].ino == s->chunks[i].ino; end++)
			;
		r = image_salvage(s, s->chunks + i, end - i);
	}
	return r;
}

/* ---- what the log takes for granted ---- */

static int stub_file(struct rebuild *rb, uint64_t ino)
{
	struct vc_disk_image none = { .tag = vc_le64_of(rb->next_tag++) };

	return put_image(rb, ino, &none);
}

static int stub_directory(struct rebuild *rb, uint64_t ino)
{
	uint64_t now = vc_now_ns();
	struct vc_inode_fields f = { .mode = S_IFDIR | 0700, .nlink = 2, .generation = 1, .atime_ns = now, .mtime_ns = now, .ctime_ns = now,
				     .btime_ns = now, .next_cookie = 16 };
	struct vc_disk_inode row;
	uint8_t key[9];
	int r = rebuild_txn(rb);

	rb->next_ino = VC_MAX(rb->next_ino, ino + 1);
	vc_row_from_inode(&f, &row);
	return r < 0 ? r : vc_meta_put(rb->txn, VC_DB_CAT, key, vc_row_key_ino(key, VC_ROW_INODE, ino), &row, sizeof(row));
}

/* A record names this inode: make it, unless it is there or the log has made it. */
static int log_needs(struct salvage *s, uint64_t ino, bool directory)
{
	struct check_inode *seen = ino ? check_inode_get(&s->seen, ino) : NULL;
	int r;

	if (!seen)
		return ino ? -ENOMEM : 0;
	if (seen->has_row)
		return 0;
	seen->has_row = true;
	r = has_row(s->rb, VC_ROW_INODE, ino, NULL, 0);
	if (r == -ENOENT && !directory)
		r = has_row(s->rb, VC_ROW_IMAGE, ino, NULL, 0); /* salvaged */
	if (r != -ENOENT)
		return r;
	return directory ? stub_directory(s->rb, ino) : stub_file(s->rb, ino);
}

static int log_row(struct salvage *s, const struct vc_op *op)
{
	const uint8_t *key, *value;
	size_t key_len, value_len;
	struct check_inode *seen;

	if (vc_row_decode(op->payload, op->payload_len, &key, &key_len, &value, &value_len) < 0 || key_len < 9)
		return -EUCLEAN;
	if (key[0] != VC_ROW_INODE || op->type != VC_OP_ROW_PUT)
		return log_needs(s, vc_be64_at(key + 1), key[0] == VC_ROW_DIRENT);
	seen = check_inode_get(&s->seen, vc_be64_at(key + 1));
	if (!seen)
		return -ENOMEM;
	seen->has_row = true;
	s->rb->next_ino = VC_MAX(s->rb->next_ino, seen->ino + 1);
	return 0;
}

static int log_record(void *ctx, uint64_t lsn VC_UNUSED, uint64_t addr VC_UNUSED, const uint8_t *bytes, bool durable VC_UNUSED)
{
	struct salvage *s = ctx;
	struct vc_record_iter it;
	struct vc_op op;
	int r = 0;

	vc_record_iter_init(&it, bytes);
	while (r == 0 && vc_record_iter_next(&it, &op)) {
		if (op.type == VC_OP_ROW_PUT || op.type == VC_OP_ROW_DEL) {
			r = log_row(s, &op);
			continue;
		}
		r = log_needs(s, op.ino, false);
		if (r == 0 && (op.type == VC_OP_CLONE || op.type == VC_OP_CLONE_RANGE))
			r = log_needs(s, op.arg, false);
	}
	return r;
}

/* ---- all of it ---- */

int vc_salvage(struct rebuild *rb, bool with_log)
{
	struct salvage s = { .rb = rb, .from = vc_le64_get(rb->state.checkpoint_lsn), .to = UINT64_MAX };
	struct salvage_segment log;
	uint64_t last_seq, last_lsn;
	int r = log_find(rb, &log, &last_seq, &last_lsn);

	if (r == 0 && with_log && log.seq) {
		s.to = log.first_lsn;
		rebuild_say(rb, "the log counts from record %llu on", ULL(log.first_lsn));
	} else if (r == 0) {
		log = (struct salvage_segment){ last_seq + 1, last_lsn + SALVAGE_LSN_GAP + 1 };
		rebuild_say(rb, "the log is given up");
		with_log = false;
	}
	if (r == 0)
		r = chunks_scan(&s);
	if (r == 0)
		r = images_salvage(&s);
	if (r == 0 && with_log)
		r = log_read(rb, &log, log_record, &s);
	free(s.chunks);
	free(s.seen.inodes);
	if (r < 0)
		return r;
	rb->state.checkpoint_lsn = vc_le64_of(log.first_lsn - 1);
	rb->state.log_first_seq = vc_le64_of(log.seq);
	return rebuild_commit(rb);
}
