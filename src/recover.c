/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * recover: opens the log and applies what came after the last checkpoint.
 *
 * Nothing is destaged here: replay fills memory just as the live operations did, cut into slices that are checkpointed by the destage
 * thread afterwards. A crash during recovery finds the same LMDB and the same log.
 */
#include "config.h"

#include <stdlib.h>

#include "msg.h"
#include "pool_impl.h"

static struct vc_slice *recover_new_slice(struct vc_pool *pool)
{
	struct vc_slice *slice = vc_slice_new(pool, vc_destage_slice_destroy);

	if (slice)
		vc_list_add_tail(&pool->slices, &slice->node);
	return slice;
}

/* A section is whole segments: begin a new slice at a segment once the last has become long. */
static struct vc_log_section *recover_segment(void *ctx, uint64_t seq)
{
	struct vc_pool *pool = ctx;
	struct vc_slice *last = pool->slices.prev == &pool->slices ? NULL :
		vc_list_entry(pool->slices.prev, struct vc_slice, node);

	(void)seq;
	if (last && atomic_load(&last->cost) < VC_SLICE_COST_MAX)
		return &last->section;
	last = recover_new_slice(pool);
	return last ? &last->section : NULL;
}

/*
 * The chunks that a record names. Where the record was not durable for certain, do they lie on disk? 1: no. All of them are synced
 * before anything new is acknowledged: the process that wrote them may have died in between.
 */
static int recover_chunk(struct vc_pool *pool, const struct vc_disk_direct *item, bool durable)
{
	int r = 0;

	if (!vc_le64_get(item->entry))
		return 0;
	if (!durable || pool->options.verify)
		r = vc_chunk_vouch(pool->chunks, item);
	if (r == -EBADMSG && durable) {
		vc_err("%s/chunk/%08llx.seg, offset %u: damaged, and named by the log", pool->dir,
		       (unsigned long long)vc_entry_segno(vc_le64_get(item->entry)), vc_entry_offset(vc_le64_get(item->entry)));
		pool->bad_chunks++;
		r = 0;
	}
	if (r == 0 && !pool->options.read_only)
		r = vc_chunk_adopt(pool->chunks, vc_le64_get(item->entry));
	return !durable && (r == -EBADMSG || r == -ESTALE || r == -ENOENT) ? 1 : r;
}

static int recover_chunks(struct vc_pool *pool, const uint8_t *bytes, bool durable)
{
	struct vc_record_iter it;
	struct vc_op op;

	vc_record_iter_init(&it, bytes);
	while (vc_record_iter_next(&it, &op)) {
		for (size_t at = 0; op.type == VC_OP_DIRECT && at < op.payload_len; at += sizeof(struct vc_disk_direct)) {
			struct vc_disk_direct item;
			int r;

			memcpy(&item, op.payload + at, sizeof(item));
			r = recover_chunk(pool, &item, durable);
			if (r != 0)
				return r;
		}
	}
	return 0;
}

static int recover_record(void *ctx, uint64_t lsn, uint64_t addr, const uint8_t *bytes, bool durable)
{
	struct vc_pool *pool = ctx;
	struct vc_slice *slice = vc_list_entry(pool->slices.prev, struct vc_slice, node);
	struct vc_disk_record hdr;
	struct vc_record_iter it;
	struct vc_op op;
	int r = recover_chunks(pool, bytes, durable);

	if (r != 0)
		return r;
	memcpy(&hdr, bytes, sizeof(hdr));
	vc_record_iter_init(&it, bytes);
	while (r == 0 && vc_record_iter_next(&it, &op))
		r = vc_apply_op(pool, slice, &op, addr, vc_le64_get(hdr.time_ns));
	if (r == -EUCLEAN)
		vc_err("log record %llu: names what does not exist; the pool is not opened, run vclone check", (unsigned long long)lsn);
	return r;
}

int vc_recover(struct vc_pool *pool, const struct vc_disk_state *state, uint64_t durable_lsn)
{
	struct vc_log_params params = {
		.io = pool->io, .dir = pool->options.log_dir, .segment_size = vc_le64_get(pool->disk.log_segment_size),
		.nsegments = vc_le32_get(pool->disk.log_segments),
		.use_segments = vc_space_log_segments(pool),
		.before_sync = vc_pool_before_sync, .space = vc_pool_space, .make_room = vc_pool_log_room, .ctx = pool,
	};
	struct vc_log_replay replay = {
		.checkpoint_lsn = vc_le64_get(state->checkpoint_lsn), .first_seq = vc_le64_get(state->log_first_seq),
		.epoch = vc_le64_get(state->epoch), .durable_lsn = durable_lsn, .read_only = pool->options.read_only,
		.segment = recover_segment, .record = recover_record,
	};
	struct vc_slice *current = vc_slice_new(pool, vc_destage_slice_destroy);
	int r;

	if (!current)
		return -ENOMEM;
	memcpy(params.uuid, pool->disk.log_uuid, sizeof(params.uuid));
	pool->catalog.replaying = true;
	r = vc_log_open(&params, &replay, &current->section, &pool->log);
	pool->catalog.replaying = false;
	vc_list_add_tail(&pool->slices, &current->node);
	pool->current = current;
	if (r == 0 && atomic_load(&pool->failed)) /* memory ran out while applying */
		r = -ENOMEM;
	if (r == 0 && !pool->options.read_only)
		r = vc_chunk_sync(pool->chunks);
	if (r == 0) {
		struct vc_log_figures figures;

		vc_log_figures(pool->log, &figures);
		pool->epoch = figures.epoch;
		vc_chunk_settle(pool->chunks, figures.last_lsn);
	}
	return r;
}
