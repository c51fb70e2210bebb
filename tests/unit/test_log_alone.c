/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the log for which one check or one sync alone stands: each thing that makes a batch or a segment valid, broken
 * with all the others (its checksum, too) right; and crashes that only one sync or one comparison survives.
 */
#include "config.h"
#include "unit.h"

#include <sched.h>
#include <stdlib.h>

#include "checksum.h"
#include "log_fixture.h"

static struct log_fixture fix;
static struct vc_sim *sim;

static int setup(void **state VC_UNUSED)
{
	sim = fix_log_setup_sim(&fix);
	return 0;
}

static int teardown(void **state VC_UNUSED)
{
	fix_log_teardown(&fix, sim);
	return 0;
}

static void expect_open(uint64_t replayed)
{
	assert_int_equal(fix_log_open(&fix), 0);
	assert_int_equal(fix.mismatches, 0);
	assert_int_equal(fix.replayed, replayed);
}

static void flush(void) { assert_int_equal(vc_log_flush_wait(fix.log, 0), 0); }

/* Append a record; the number of the segment that it is in. */
static uint64_t append_to(void)
{
	uint64_t lsn = fix_log_append(&fix, 96);

	return fix_log_addr_seq(fix.recs[lsn].addr);
}

/* The log is closed; the machine loses what is not certain, and the log is opened again. */
static void expect_after_power_cut(uint64_t replayed)
{
	struct vc_sim *after = vc_sim_crash(sim, vc_sim_events(sim), &(struct vc_sim_policy){ .keep = VC_SIM_KEEP_NONE });

	vc_sim_free(sim);
	sim = after;
	fix.params.io = vc_sim_io(sim);
	expect_open(replayed);
}

static void pread_all(struct vc_io *io, uint32_t slot, void *buf, size_t len, uint64_t offset)
{
	struct vc_file *file;

	assert_int_equal(vc_io_open(io, fix_log_segment_path(slot), VC_IO_READ, &file), 0);
	assert_int_equal(vc_io_pread(file, buf, len, offset), len);
	vc_io_close(file);
}

static void pwrite_all(struct vc_io *io, uint32_t slot, const void *buf, size_t len, uint64_t offset)
{
	struct vc_file *file;

	assert_int_equal(vc_io_open(io, fix_log_segment_path(slot), VC_IO_WRITE, &file), 0);
	assert_int_equal(vc_io_pwrite(file, buf, len, offset), 0);
	vc_io_close(file);
}

/* ---- each condition of a batch ---- */

struct forgery {
	uint64_t lsn;   /* of the only record in the batch to be forged */
	void (*forge)(struct vc_disk_batch *h, struct vc_disk_record *rec);
	size_t flip;    /* forge NULL: this byte of the header, and the checksum stays */
};

static void forge_epoch(struct vc_disk_batch *h, struct vc_disk_record *rec VC_UNUSED) { h->epoch = vc_le64_of(vc_le64_get(h->epoch) + 1); }
static void forge_salt(struct vc_disk_batch *h, struct vc_disk_record *rec VC_UNUSED) { h->salt = vc_le64_of(vc_le64_get(h->salt) ^ 1); }
static void forge_prev_hash(struct vc_disk_batch *h, struct vc_disk_record *rec VC_UNUSED)
{
	h->prev_hash = vc_le64_of(vc_le64_get(h->prev_hash) ^ 1);
}
static void forge_records_hash(struct vc_disk_batch *h, struct vc_disk_record *rec VC_UNUSED)
{
	h->records_hash = vc_le64_of(vc_le64_get(h->records_hash) ^ 1);
}
static void forge_nrecords(struct vc_disk_batch *h, struct vc_disk_record *rec VC_UNUSED) { h->nrecords = vc_le32_of(0); }
static void forge_len(struct vc_disk_batch *h, struct vc_disk_record *rec VC_UNUSED) { h->len = vc_le32_of(FIX_LOG_SEGMENT); }

/* A record's checksum covers its LSN: so the record is that of the next one, too. */
static void forge_first_lsn(struct vc_disk_batch *h, struct vc_disk_record *rec)
{
	uint64_t lsn = vc_le64_get(h->first_lsn);

	fix_log_bytes(fix.recs[lsn].id, fix.recs[lsn].len, lsn + 1, (uint8_t *)rec);
	h->first_lsn = vc_le64_of(lsn + 1);
	h->records_hash = vc_le64_of(vc_sum64(&rec->sum, sizeof(rec->sum), 0));
}

static void spoil_batch(struct vc_io *io, void *ctx)
{
	const struct forgery *f = ctx;
	uint64_t addr = fix.recs[f->lsn].addr, start = fix_log_addr_offset(addr) - sizeof(struct vc_disk_batch);
	uint32_t slot = fix_log_slot_of(io, fix_log_addr_seq(addr));
	struct {
		struct vc_disk_batch head;
		union {
			struct vc_disk_record rec;
			uint8_t bytes[96];
		};
	} batch;

	pread_all(io, slot, &batch, sizeof(batch), start);
	assert_int_equal(vc_le32_get(batch.head.magic), VC_MAGIC_BATCH);
	assert_int_equal(vc_le32_get(batch.head.len), sizeof(batch.bytes));
	if (f->forge) {
		f->forge(&batch.head, &batch.rec);
		batch.head.sum = vc_le64_of(vc_sum64(&batch.head, offsetof(struct vc_disk_batch, sum), 0));
	} else {
		((uint8_t *)&batch.head)[f->flip] ^= 0x10;
	}
	pwrite_all(io, slot, &batch, sizeof(batch), start);
}

static void test_batch_conditions(void **state VC_UNUSED)
{
	static void (*const forges[])(struct vc_disk_batch *h, struct vc_disk_record *rec) = {
		forge_epoch, forge_salt, forge_prev_hash, forge_records_hash, forge_nrecords, forge_len, forge_first_lsn,
	};
	struct forgery f = { .lsn = 2 };

	expect_open(0);
	for (unsigned i = 0; i < 3; i++)
		fix_log_append(&fix, 96);
	fix_log_close(&fix, false);
	assert_int_equal(fix_log_open_copy(&fix, sim, NULL, NULL), 0);
	assert_int_equal(fix.replayed, 3);
	for (size_t i = 0; i < VC_ARRAY_LEN(forges); i++) {
		f.forge = forges[i];
		assert_int_equal(fix_log_open_copy(&fix, sim, spoil_batch, &f), 0);
		assert_int_equal(fix.replayed, 1);
	}
	f.forge = NULL;
	for (f.flip = 0; f.flip < sizeof(struct vc_disk_batch); f.flip++) {
		assert_int_equal(fix_log_open_copy(&fix, sim, spoil_batch, &f), 0);
		assert_int_equal(fix.replayed, 1);
	}
}

/* ---- each condition of a segment ---- */

struct head_forgery {
	uint64_t seq;
	void (*forge)(struct vc_disk_log_segment *h);
};

static void forge_head_epoch(struct vc_disk_log_segment *h) { h->epoch = vc_le64_of(vc_le64_get(h->epoch) + 1); }
static void forge_head_salt(struct vc_disk_log_segment *h) { h->salt = vc_le64_of(vc_le64_get(h->salt) ^ 1); }
static void forge_head_prev_hash(struct vc_disk_log_segment *h) { h->prev_hash = vc_le64_of(vc_le64_get(h->prev_hash) ^ 1); }
static void forge_head_first_lsn(struct vc_disk_log_segment *h) { h->first_lsn = vc_le64_of(vc_le64_get(h->first_lsn) + 1); }

/* As an earlier use of the slot had left it. */
static void forge_head_old(struct vc_disk_log_segment *h)
{
	forge_head_salt(h);
	h->seq = vc_le64_of(1);
}

static void spoil_head(struct vc_io *io, void *ctx)
{
	const struct head_forgery *f = ctx;
	uint32_t slot = fix_log_slot_of(io, f->seq);
	struct vc_disk_log_segment h;

	pread_all(io, slot, &h, sizeof(h), 0);
	f->forge(&h);
	h.sum = vc_le64_of(vc_sum64(&h, offsetof(struct vc_disk_log_segment, sum), 0));
	pwrite_all(io, slot, &h, sizeof(h), 0);
}

static void test_segment_conditions(void **state VC_UNUSED)
{
	static void (*const forges[])(struct vc_disk_log_segment *h) = {
		forge_head_epoch, forge_head_salt, forge_head_prev_hash, forge_head_first_lsn,
	};
	struct head_forgery f;

	expect_open(0);
	fix_log_append(&fix, 96);
	assert_true(fix_log_cut(&fix));
	f.seq = append_to();
	fix_log_close(&fix, false);
	for (size_t i = 0; i < VC_ARRAY_LEN(forges); i++) {
		f.forge = forges[i];
		assert_int_equal(fix_log_open_copy(&fix, sim, spoil_head, &f), 0);
		assert_int_equal(fix.replayed, 1);
	}
}

/* The header of a segment is older than what was made durable behind it: it was lost, and with it records that were promised. */
static void test_header_of_earlier_use(void **state VC_UNUSED)
{
	struct head_forgery f = { .forge = forge_head_old };

	expect_open(0);
	fix_log_append(&fix, 96);
	for (unsigned i = 0; i < 2; i++) {
		assert_true(fix_log_cut(&fix));
		fix_log_append(&fix, 96);
	}
	flush();
	f.seq = append_to();
	fix_log_close(&fix, false);
	assert_int_equal(f.seq, 3);
	fix.how.checkpoint_lsn = 1;
	fix.how.first_seq = 2;
	assert_int_equal(fix_log_open_copy(&fix, sim, NULL, NULL), 0);
	assert_int_equal(fix.replayed, 3);
	assert_int_equal(fix_log_open_copy(&fix, sim, spoil_head, &f), -EBADMSG);
}

static void spoil_length(struct vc_io *io, void *ctx)
{
	const uint64_t *seq = ctx;
	struct vc_file *file;

	assert_int_equal(vc_io_open(io, fix_log_segment_path(fix_log_slot_of(io, *seq)), VC_IO_WRITE, &file), 0);
	assert_int_equal(vc_io_truncate(file, FIX_LOG_SEGMENT / 2), 0);
	vc_io_close(file);
}

static void test_shortened(void **state VC_UNUSED)
{
	uint64_t seq;

	expect_open(0);
	seq = append_to();
	fix_log_close(&fix, false);
	assert_int_equal(fix_log_open_copy(&fix, sim, spoil_length, &seq), -EUCLEAN);
}

/* So that lives use slots in the same order. */
static void make_all_segments(void)
{
	unsigned n = 0;

	while (fix_log_admit(&fix, VC_LOG_META, 4096) == 0)
		n++;
	while (n-- > 0)
		vc_log_unadmit(fix.log, 4096);
}

/*
 * A power cut loses the header of a new segment and keeps its first batch. The next life then has the same epoch, begins at the same
 * place with the same hash before it, and is cut off the other way round: its header is there, and behind it
 * the batch of the life before. Only the salt tells that the two do not belong together.
 */
static void test_same_place_twice(void **state VC_UNUSED)
{
	static const struct vc_disk_log_segment none;
	uint8_t batch[sizeof(struct vc_disk_batch) + 96];
	struct vc_log_figures before, after;
	uint32_t slot;

	expect_open(0);
	make_all_segments();
	fix_log_append(&fix, 96);
	flush();
	fix_log_close(&fix, false);
	expect_open(1);
	vc_log_figures(fix.log, &before);
	fix_log_append(&fix, 96);
	fix_log_close(&fix, false);
	slot = fix_log_slot_of(vc_sim_io(sim), fix_log_addr_seq(fix.recs[2].addr));
	pread_all(vc_sim_io(sim), slot, batch, sizeof(batch), VC_LOG_HEADER_SIZE);
	pwrite_all(vc_sim_io(sim), slot, &none, sizeof(none), 0);

	expect_open(1);
	vc_log_figures(fix.log, &after);
	assert_int_equal(after.epoch, before.epoch);
	fix_log_append(&fix, 96);
	fix_log_close(&fix, false);
	assert_int_equal(fix_log_slot_of(vc_sim_io(sim), fix_log_addr_seq(fix.recs[2].addr)), slot);
	pwrite_all(vc_sim_io(sim), slot, batch, sizeof(batch), VC_LOG_HEADER_SIZE);
	expect_open(1);
}

/* ---- each sync ---- */

static struct vc_io_ops sim_ops;
static const struct vc_io_ops *real_ops;
static atomic_bool append_armed;

/* Until vc_sim_io(sim)->ops is real_ops again. */
static void hook_datasync(int (*fn)(struct vc_file *file))
{
	real_ops = vc_sim_io(sim)->ops;
	sim_ops = *real_ops;
	sim_ops.datasync = fn;
	vc_sim_io(sim)->ops = &sim_ops;
}

static int datasync_then_append(struct vc_file *file)
{
	int r = real_ops->datasync(file);

	if (atomic_exchange(&append_armed, false))
		fix_log_append(&fix, 96);
	return r;
}

/* A record is written after the segment was synced, before the sync is accounted for: it needs a sync of its own. */
static void test_write_behind_sync(void **state VC_UNUSED)
{
	struct vc_log_figures f;

	hook_datasync(datasync_then_append);
	expect_open(0);
	fix_log_append(&fix, 96);
	atomic_store(&append_armed, true);
	assert_int_equal(vc_log_flush_wait(fix.log, 1), 0);
	assert_false(atomic_load(&append_armed));
	vc_log_figures(fix.log, &f);
	assert_int_equal(f.durable_lsn, 1);
	assert_int_equal(f.last_lsn, 2);
	flush();
	fix_log_close(&fix, false);
	vc_sim_io(sim)->ops = real_ops;
	expect_after_power_cut(2);
}

static struct vc_wait second;
static bool second_finished;

static int flush_then_datasync(struct vc_file *file)
{
	if (atomic_exchange(&append_armed, false)) {
		vc_wait_init(&second);
		vc_log_flush(fix.log, 0, true, &second.done);
		pthread_mutex_lock(&second.lock);
		second_finished = second.finished;
		pthread_mutex_unlock(&second.lock);
	}
	return real_ops->datasync(file);
}

/* Whoever could sync himself comes while a sync is under way, which has taken what is dirty: he waits for it. */
static void test_one_sync_at_a_time(void **state VC_UNUSED)
{
	hook_datasync(flush_then_datasync);
	expect_open(0);
	fix_log_append(&fix, 96);
	second_finished = true;
	atomic_store(&append_armed, true);
	assert_int_equal(vc_log_flush_wait(fix.log, 0), 0);
	assert_false(second_finished);
	assert_int_equal(vc_wait_for(&second), 0);
	fix_log_close(&fix, false);
	vc_sim_io(sim)->ops = real_ops;
	expect_after_power_cut(1);
}

#define LATE 100u
static struct vc_wait late[LATE];
static unsigned nlate;
static _Thread_local bool syncs_himself;

/* Each sync of his is overtaken by a record and a flush of it. */
static int datasync_then_flush_more(struct vc_file *file)
{
	int r = real_ops->datasync(file);

	if (syncs_himself && nlate < LATE) {
		uint64_t lsn = fix_log_append(&fix, 96);

		vc_wait_init(&late[nlate]);
		vc_log_flush(fix.log, lsn, false, &late[nlate++].done);
	}
	return r;
}

/* Who syncs for himself goes on for those who come meanwhile, not for ever, and leaves nobody behind. */
static void test_flushes_without_end(void **state VC_UNUSED)
{
	struct vc_wait own;

	hook_datasync(datasync_then_flush_more);
	expect_open(0);
	fix_log_append(&fix, 96);
	nlate = 0;
	vc_wait_init(&own);
	syncs_himself = true;
	vc_log_flush(fix.log, VC_LOG_COMPLETED, true, &own.done);
	syncs_himself = false;
	assert_int_equal(vc_wait_for(&own), 0);
	assert_in_range(nlate, 2, LATE - 1);
	for (unsigned i = 0; i < nlate; i++)
		assert_int_equal(vc_wait_for(&late[i]), 0);
	fix_log_close(&fix, false);
	vc_sim_io(sim)->ops = real_ops;
	expect_after_power_cut(1 + nlate);
}

static int refuse_sync(void *ctx VC_UNUSED) { return -EIO; }

/* What must be on the disk before the log could not be brought there: the log is not synced either. */
static void test_nothing_before_before_sync(void **state VC_UNUSED)
{
	uint64_t syncs;

	fix.params.before_sync = refuse_sync;
	expect_open(0);
	fix_log_append(&fix, 96);
	syncs = vc_sim_calls(sim, VC_SIM_SYNC);
	assert_int_equal(vc_log_flush_wait(fix.log, 0), -EIO);
	assert_int_equal(vc_sim_calls(sim, VC_SIM_SYNC), syncs);
	fix_log_close(&fix, false);
}

/* A process was killed when it had made a segment and not yet synced its name; the next one uses it. */
static void test_killed_before_name_is_synced(void **state VC_UNUSED)
{
	struct vc_io *io = vc_sim_io(sim);
	uint8_t *zeros = calloc(1, FIX_LOG_SEGMENT);
	struct vc_file *file;

	assert_non_null(zeros);
	assert_int_equal(vc_io_open(io, fix_log_segment_path(VC_LOG_SEGMENTS_MIN), VC_IO_WRITE | VC_IO_CREATE, &file), 0);
	assert_int_equal(vc_io_pwrite(file, zeros, FIX_LOG_SEGMENT, 0), 0);
	assert_int_equal(vc_io_datasync(file), 0);
	vc_io_close(file);
	free(zeros);
	expect_open(0);
	fix_log_append(&fix, 96);
	flush();
	assert_int_equal(fix_log_slot_of(io, fix_log_addr_seq(fix.recs[1].addr)), VC_LOG_SEGMENTS_MIN);
	fix_log_close(&fix, false);
	expect_after_power_cut(1);
}

/* The zeros of a new segment could not be synced: its file must not look finished to the next recovery. */
static void test_unsynced_segment_goes(void **state VC_UNUSED)
{
	struct vc_file *file;
	unsigned n = 0;

	expect_open(0);
	vc_sim_fail(sim, &(struct vc_sim_fault){ .ops = VC_SIM_SYNC, .path = fix_log_segment_path(VC_LOG_SEGMENTS_MIN), .nth = 1,
						 .error = EIO });
	while (vc_log_admit(fix.log, VC_LOG_META, 4096) == 0)
		n++;
	while (vc_sim_faults(sim) == 0)
		sched_yield();
	while (n-- > 0)
		vc_log_unadmit(fix.log, 4096);
	fix_log_close(&fix, false);
	assert_int_equal(vc_io_open(vc_sim_io(sim), fix_log_segment_path(VC_LOG_SEGMENTS_MIN), VC_IO_READ, &file), -ENOENT);
}

/* ---- space ---- */

static unsigned rooms;

static bool make_room(void *ctx VC_UNUSED) { return ++rooms == 1; }

/* On a file system where overwriting needs space the log asks for room, and tries again. */
static void test_room_is_made(void **state VC_UNUSED)
{
	rooms = 0;
	fix.params.make_room = make_room;
	expect_open(0);
	vc_sim_fail(sim, &(struct vc_sim_fault){ .ops = VC_SIM_WRITE, .path = "/log/", .nth = 1, .error = ENOSPC });
	fix_log_append(&fix, 96);
	assert_int_equal(vc_sim_faults(sim), 1);
	assert_int_equal(rooms, 1);
	flush();
	fix_log_close(&fix, false);
	expect_after_power_cut(1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_batch_conditions),
		TEST(test_segment_conditions),
		TEST(test_header_of_earlier_use),
		TEST(test_shortened),
		TEST(test_same_place_twice),
		TEST(test_write_behind_sync),
		TEST(test_one_sync_at_a_time),
		TEST(test_flushes_without_end),
		TEST(test_nothing_before_before_sync),
		TEST(test_killed_before_name_is_synced),
		TEST(test_unsynced_segment_goes),
		TEST(test_room_is_made),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
