/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rebuild_log: where in the log replay begins after a checkpoint, found from the headers of its segments.
 *
 * A checkpoint ends with a whole segment, so the next record is the first of a segment, if there is one. Of several segments that
 * begin with it the newest counts: the ones before hold nothing that does.
 */
#include "config.h"

#include <stdlib.h>

#include "rebuild_impl.h"

struct find_log {
	uint64_t first_lsn;  /* wanted */
	uint64_t seq;        /* of the segment that begins with it; 0: none */
	uint64_t last_seq, last_first_lsn; /* of the newest segment */
	uint64_t beyond_seq; /* the oldest segment that begins later than wanted; 0: none */
};

static int find_segment(void *ctx, const struct vc_disk_log_segment *header)
{
	struct find_log *f = ctx;
	uint64_t seq = vc_le64_get(header->seq), first = vc_le64_get(header->first_lsn);

	if (first == f->first_lsn)
		f->seq = VC_MAX(f->seq, seq);
	if (first > f->first_lsn && (!f->beyond_seq || seq < f->beyond_seq))
		f->beyond_seq = seq;
	if (seq > f->last_seq) {
		f->last_seq = seq;
		f->last_first_lsn = first;
	}
	return 0;
}

static struct vc_log_section *no_section(void *ctx VC_UNUSED, uint64_t seq VC_UNUSED) { return NULL; }

static int no_record(void *ctx VC_UNUSED, uint64_t lsn VC_UNUSED, uint64_t addr VC_UNUSED, const uint8_t *bytes VC_UNUSED, bool durable VC_UNUSED)
{
	return 1;
}

/*
 * No segment begins where the journal ends, but one begins later: was the first one torn by a crash, so that nothing behind it counts,
 * or does the journal end too early? 0: the former; 1: records in between were durable.
 */
static int log_ends_before(struct rebuild *rb, uint64_t seq)
{
	struct vc_log_replay replay = { .checkpoint_lsn = vc_le64_get(rb->state.checkpoint_lsn), .first_seq = seq - 1, .read_only = true,
					.segment = no_section, .record = no_record };
	struct vc_log_section current = { .next = NULL };
	struct vc_log *log;
	int r = vc_log_open(&rb->log, &replay, &current, &log);

	if (r == -EBADMSG || r == -EUCLEAN)
		return 1;
	if (r < 0)
		return r;
	vc_log_close(log);
	rb->state.log_first_seq = vc_le64_of(seq - 1);
	return 0;
}

int rebuild_find_log(struct rebuild *rb, uint64_t *ret_first_lsn)
{
	struct find_log f = { .first_lsn = vc_le64_get(rb->state.checkpoint_lsn) + 1 };
	int r = vc_log_each_segment(&rb->log, find_segment, &f);

	if (r < 0)
		return r;
	*ret_first_lsn = f.last_first_lsn;
	if (!f.seq && f.beyond_seq)
		return log_ends_before(rb, f.beyond_seq);
	rb->state.log_first_seq = vc_le64_of(f.seq ? f.seq : f.last_seq + 1);
	return 0;
}

/* ---- what the log names ---- */

struct scan_log {
	struct vc_log_section section;
	uint64_t highest_ino;
};

static struct vc_log_section *scan_segment(void *ctx, uint64_t seq VC_UNUSED) { return &((struct scan_log *)ctx)->section; }

static int scan_record(void *ctx, uint64_t lsn VC_UNUSED, uint64_t addr VC_UNUSED, const uint8_t *bytes, bool durable VC_UNUSED)
{
	struct scan_log *s = ctx;
	struct vc_record_iter it;
	struct vc_op op;

	vc_record_iter_init(&it, bytes);
	while (vc_record_iter_next(&it, &op)) {
		const uint8_t *key, *value;
		size_t key_len, value_len;

		s->highest_ino = VC_MAX(s->highest_ino, op.ino);
		if (op.payload && (op.type == VC_OP_ROW_PUT || op.type == VC_OP_ROW_DEL) &&
		    vc_row_decode(op.payload, op.payload_len, &key, &key_len, &value, &value_len) == 0 && key_len >= 9)
			s->highest_ino = VC_MAX(s->highest_ino, vc_be64_at(key + 1));
	}
	return 0;
}

static int read_state(struct vc_io *io, const char *dir, struct vc_disk_state *ret)
{
	char *meta_dir = vc_replace_path(dir, "meta", NULL);
	struct vc_meta_params params = { .io = io, .dir = meta_dir, .read_only = true };
	struct vc_meta *meta = NULL;
	struct vc_meta_txn *txn;
	const void *value;
	size_t len;
	int r = meta_dir ? vc_meta_open(&params, &meta) : -ENOMEM;

	if (r == 0)
		r = vc_meta_read_begin(meta, &txn);
	if (r == 0) {
		r = vc_meta_get(txn, VC_DB_CAT, "GS", 2, &value, &len);
		if (r == 0)
			memcpy(ret, value, VC_MIN(len, sizeof(*ret)));
		vc_meta_end(txn);
	}
	vc_meta_close(meta);
	free(meta_dir);
	return r;
}

int rebuild_log_highest_ino(struct vc_io *io, const char *dir, const char *log_dir, uint64_t *ret)
{
	char *path = log_dir ? strdup(log_dir) : vc_replace_path(dir, "log", NULL);
	struct vc_log_params params = { .io = io, .dir = path };
	struct vc_log_section current = { .first_lsn = 0 };
	struct scan_log scan = { .highest_ino = 0 };
	struct vc_log_replay replay = { .read_only = true, .segment = scan_segment, .record = scan_record };
	struct vc_disk_state state;
	struct vc_disk_pool pool;
	struct vc_log *log = NULL;
	int r = path ? vc_super_read(io, dir, &pool) : -ENOMEM;

	if (r == 0)
		r = read_state(io, dir, &state);
	if (r == 0) {
		params.segment_size = vc_le64_get(pool.log_segment_size);
		params.nsegments = vc_le32_get(pool.log_segments);
		params.ctx = &scan;
		memcpy(params.uuid, pool.log_uuid, sizeof(params.uuid));
		replay.checkpoint_lsn = vc_le64_get(state.checkpoint_lsn);
		replay.first_seq = vc_le64_get(state.log_first_seq);
		replay.epoch = vc_le64_get(state.epoch);
		r = vc_log_open(&params, &replay, &current, &log);
	}
	vc_log_close(log);
	free(path);
	*ret = scan.highest_ino;
	return r;
}
