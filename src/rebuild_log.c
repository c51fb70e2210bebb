/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rebuild_log: where in the log replay begins after a checkpoint, found from the headers of its segments.
 *
 * A checkpoint ends with a whole segment, so the next record is the first of a segment, if there is one. Of several segments that
 * begin with it the newest counts: the ones before hold nothing that does.
 */
#include "config.h"

#include "rebuild_impl.h"

struct find_log {
	uint64_t first_lsn;  /* wanted */
	uint64_t seq;        /* of the segment that begins with it; 0: none */
	uint64_t last_seq, last_first_lsn; /* of the newest segment */
};

static int find_segment(void *ctx, const struct vc_disk_log_segment *header)
{
	struct find_log *f = ctx;
	uint64_t seq = vc_le64_get(header->seq), first = vc_le64_get(header->first_lsn);

	if (first == f->first_lsn)
		f->seq = VC_MAX(f->seq, seq);
	if (seq > f->last_seq) {
		f->last_seq = seq;
		f->last_first_lsn = first;
	}
	return 0;
}

int rebuild_find_log(struct rebuild *rb, uint64_t *ret_first_lsn)
{
	struct find_log f = { .first_lsn = vc_le64_get(rb->state.checkpoint_lsn) + 1 };
	int r = vc_log_each_segment(&rb->log, find_segment, &f);

	if (r < 0)
		return r;
	*ret_first_lsn = f.last_first_lsn;
	if (!f.seq && f.last_first_lsn > f.first_lsn)
		return 1;
	rb->state.log_first_seq = vc_le64_of(f.seq ? f.seq : f.last_seq + 1);
	return 0;
}
