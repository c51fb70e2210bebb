/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of opening a log: replay, damage, the end of the log, recovery that crashes, and random crashes over generations. */
#include "config.h"
#include "unit.h"

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

/* Go on in the file system after a crash; the model stays. The log is closed. */
static void crash(size_t event, const struct vc_sim_policy *policy)
{
	struct vc_sim *after = vc_sim_crash(sim, event, policy);

	vc_sim_free(sim);
	sim = after;
	fix.params.io = vc_sim_io(sim);
}

static int open_copy(void (*spoil)(struct vc_io *io, void *ctx), void *ctx) { return fix_log_open_copy(&fix, sim, spoil, ctx); }

struct flip {
	uint64_t seq, offset;
	uint8_t mask;
};

static void spoil_flip(struct vc_io *io, void *ctx)
{
	struct flip *flip = ctx;
	struct vc_file *file;
	uint8_t byte;

	assert_int_equal(vc_io_open(io, fix_log_segment_path(fix_log_slot_of(io, flip->seq)), VC_IO_WRITE, &file), 0);
	assert_int_equal(vc_io_pread(file, &byte, 1, flip->offset), 1);
	byte ^= flip->mask;
	assert_int_equal(vc_io_pwrite(file, &byte, 1, flip->offset), 0);
	vc_io_close(file);
}

static void expect_open(uint64_t replayed)
{
	assert_int_equal(fix_log_open(&fix), 0);
	assert_int_equal(fix.mismatches, 0);
	assert_int_equal(fix.replayed, replayed);
}

static void flush(void) { assert_int_equal(vc_log_flush_wait(fix.log, 0), 0); }

/* ---- what was written comes back ---- */

static void test_generations(void **state VC_UNUSED)
{
	uint64_t seed = vc_unit_seed(), n = 0, epoch = 0;

	for (unsigned generation = 0; generation < 6; generation++) {
		struct vc_log_figures f;

		expect_open(n);
		vc_log_figures(fix.log, &f);
		assert_true(f.epoch > epoch);
		assert_int_equal(f.last_lsn, n);
		assert_int_equal(f.durable_lsn, n);
		epoch = f.epoch;
		for (uint64_t k = 1; k <= n; k++)
			assert_true(fix_log_reads(&fix, k));
		for (uint64_t k = 1 + vc_unit_below(&seed, 30); k > 0; k--)
			n = fix_log_append(&fix, VC_ROUND_UP(96 + vc_unit_below(&seed, 3000), (size_t)8));
		fix_log_close(&fix, generation % 2);
	}
	expect_open(n);
}

/* From a checkpoint in the middle; then the log goes round many times, so that segments hold old content. */
static void test_checkpoints(void **state VC_UNUSED)
{
	uint64_t seed = vc_unit_seed(), last = 0;

	expect_open(0);
	for (unsigned round = 0; round < 40; round++) {
		struct fix_section *old = fix.current;

		for (uint64_t k = 1 + vc_unit_below(&seed, 5); k > 0; k--)
			last = fix_log_append(&fix, VC_ROUND_UP(96 + vc_unit_below(&seed, 30000), (size_t)8));
		if (vc_unit_below(&seed, 2))
			flush();
		assert_true(fix_log_cut(&fix));
		if (vc_unit_below(&seed, 4) == 0) {
			assert_int_equal(vc_log_flush_wait(fix.log, old->s.last_lsn), 0);
			fix.how.checkpoint_lsn = old->s.last_lsn;
			fix.how.first_seq = old->s.last_seq + 1;
			fix_log_close(&fix, false);
			expect_open(0);
			continue;
		}
		last = fix_log_append(&fix, 96);
		assert_int_equal(vc_log_flush_wait(fix.log, old->s.last_lsn), 0);
		fix_log_release(&fix, &old->s);
		fix.how.checkpoint_lsn = old->s.last_lsn;
		fix.how.first_seq = old->s.last_seq + 1;
		if (vc_unit_below(&seed, 3) == 0) {
			fix_log_close(&fix, false);
			expect_open(last - fix.how.checkpoint_lsn);
			if (fix.current != fix.sections) {
				struct fix_section *replayed = fix.sections;

				fix.how.checkpoint_lsn = replayed->s.last_lsn;
				fix.how.first_seq = replayed->s.last_seq + 1;
				fix_log_release(&fix, &replayed->s);
			}
		}
	}
}

/* Replay cuts the log into sections; their bounds fit together and they can be released in order. */
static void test_replayed_sections(void **state VC_UNUSED)
{
	uint64_t next = 1, seq = 1;
	struct vc_log_figures f;
	struct vc_log_section *s;

	expect_open(0);
	for (unsigned i = 0; i < 20; i++)
		fix_log_append(&fix, 30000);
	fix_log_close(&fix, true);
	fix.section_segments = 2;
	expect_open(20);
	for (s = NULL; seq < fix.current->s.first_seq; seq = s->last_seq + 1) {
		struct fix_section *it = fix.sections;

		while (it && it->s.first_seq != seq)
			it = it->next;
		assert_non_null(it);
		s = &it->s;
		assert_int_equal(s->first_lsn, next);
		next = s->last_lsn + 1;
		fix_log_release(&fix, s);
	}
	assert_int_equal(next, 21);
	vc_log_figures(fix.log, &f);
	assert_int_equal(f.used, 0);
	fix_log_append(&fix, 96);
}

static void test_read_only(void **state VC_UNUSED)
{
	size_t events;

	expect_open(0);
	for (unsigned i = 0; i < 5; i++)
		fix_log_append(&fix, 9000);
	fix_log_close(&fix, false);
	fix.how.read_only = true;
	events = vc_sim_events(sim);
	expect_open(5);
	assert_int_equal(vc_log_admit(fix.log, VC_LOG_META, 96), -EROFS);
	for (uint64_t i = 1; i <= 5; i++)
		assert_true(fix_log_reads(&fix, i));
	fix_log_close(&fix, false);
	assert_int_equal(vc_sim_events(sim), events);
}

/* ---- the end of the log ---- */

static void spoil_tail(struct vc_io *io, void *ctx)
{
	static const uint8_t junk[64] = { 0x55, 0xaa };
	struct flip *flip = ctx;
	struct vc_file *file;

	assert_int_equal(vc_io_open(io, fix_log_segment_path(fix_log_slot_of(io, flip->seq)), VC_IO_WRITE, &file), 0);
	for (uint64_t at = flip->offset; at < flip->offset + 6000; at += sizeof(junk))
		assert_int_equal(vc_io_pwrite(file, junk, sizeof(junk), at), 0);
	vc_io_close(file);
}

static void test_torn_tail(void **state VC_UNUSED)
{
	struct flip flip;
	uint64_t last, start;
	size_t len = 5000;

	expect_open(0);
	for (unsigned i = 0; i < 4; i++)
		fix_log_append(&fix, 96);
	flush();
	last = fix_log_append(&fix, len);
	fix_log_close(&fix, false);
	start = fix_log_addr_offset(fix.recs[last].addr) - sizeof(struct vc_disk_batch);
	flip = (struct flip){ .seq = fix_log_addr_seq(fix.recs[last].addr) };
	for (flip.offset = start; flip.offset < start + sizeof(struct vc_disk_batch) + len; flip.offset += 64) {
		assert_int_equal(open_copy(spoil_tail, &flip), 0);
		assert_int_equal(fix.mismatches, 0);
		assert_int_equal(fix.replayed, last - 1);
	}
	flip.offset = VC_ROUND_UP(start + sizeof(struct vc_disk_batch) + len, (uint64_t)64);
	assert_int_equal(open_copy(spoil_tail, &flip), 0);
	assert_int_equal(fix.replayed, last);
}

/* Damage below what is known to be durable is corruption, wherever it is; above, the log ends there. */
static void test_damage(void **state VC_UNUSED)
{
	uint64_t seed = vc_unit_seed();

	expect_open(0);
	for (unsigned i = 1; i <= 40; i++) {
		fix_log_append(&fix, VC_ROUND_UP(96 + vc_unit_below(&seed, 9000), (size_t)8));
		if (i == 20)
			flush();
	}
	fix_log_close(&fix, false);
	for (uint64_t lsn = 1; lsn <= 40; lsn++) {
		uint64_t start = fix_log_addr_offset(fix.recs[lsn].addr) - sizeof(struct vc_disk_batch);
		uint64_t len = sizeof(struct vc_disk_batch) + fix.recs[lsn].len;
		struct flip flip = { .seq = fix_log_addr_seq(fix.recs[lsn].addr), .mask = 1 << vc_unit_below(&seed, 8) };
		char offset[32];
		int r;

		for (unsigned i = 0; i < 6; i++) {
			flip.offset = start + (i == 0 ? 0 : i == 1 ? len - 1 : vc_unit_below(&seed, len));
			vc_unit_catch_messages(true);
			r = open_copy(spoil_flip, &flip);
			if (lsn > 20) {
				assert_int_equal(r, 0);
				assert_int_equal(fix.replayed, lsn - 1);
				assert_int_equal(fix.mismatches, 0);
				continue;
			}
			assert_int_equal(r, -EBADMSG);
			assert_int_equal(fix.replayed, 0);
			snprintf(offset, sizeof(offset), "offset %u", (unsigned)start);
			assert_non_null(strstr(vc_unit_last_message(), offset));
			snprintf(offset, sizeof(offset), "%04u.log", fix_log_slot_of(vc_sim_io(sim), flip.seq));
			assert_non_null(strstr(vc_unit_last_message(), offset));
		}
	}
}

/* The header of a segment is damaged: first, middle, last; with durable records in it or not. */
static void test_damaged_header(void **state VC_UNUSED)
{
	struct flip flip = { .offset = 50, .mask = 4 };
	uint64_t nsegments;

	expect_open(0);
	for (unsigned i = 0; i < 12; i++)
		fix_log_append(&fix, 30000);
	nsegments = fix_log_addr_seq(fix.recs[12].addr);
	assert_true(nsegments >= 3);
	fix_log_close(&fix, false);
	for (flip.seq = 1; flip.seq <= nsegments; flip.seq++) {
		uint64_t before = 0;

		while (before < 12 && fix_log_addr_seq(fix.recs[before + 1].addr) < flip.seq)
			before++;
		assert_int_equal(open_copy(spoil_flip, &flip), 0);
		assert_int_equal(fix.replayed, before);
	}
	expect_open(12);
	fix_log_append(&fix, 96);
	flush();
	fix_log_append(&fix, 96);
	nsegments = fix_log_addr_seq(fix.recs[14].addr);
	fix_log_close(&fix, false);
	for (flip.seq = 1; flip.seq <= nsegments; flip.seq++)
		assert_int_equal(open_copy(spoil_flip, &flip), -EBADMSG);
}

static void spoil_missing(struct vc_io *io, void *ctx)
{
	const uint64_t *seq = ctx;

	assert_int_equal(vc_io_unlink(io, fix_log_segment_path(fix_log_slot_of(io, *seq))), 0);
}

static void spoil_uuid(struct vc_io *io, void *ctx)
{
	const uint64_t *seq = ctx;
	struct vc_disk_log_segment h;
	struct vc_file *file;

	assert_int_equal(vc_io_open(io, fix_log_segment_path(fix_log_slot_of(io, *seq)), VC_IO_WRITE, &file), 0);
	assert_int_equal(vc_io_pread(file, &h, sizeof(h), 0), sizeof(h));
	h.uuid[3] ^= 1;
	h.sum = vc_le64_of(vc_sum64(&h, offsetof(struct vc_disk_log_segment, sum), 0));
	assert_int_equal(vc_io_pwrite(file, &h, sizeof(h), 0), 0);
	vc_io_close(file);
}

static void spoil_twice(struct vc_io *io, void *ctx)
{
	const uint64_t *seq = ctx;
	struct vc_disk_log_segment h;
	struct vc_file *file;
	uint32_t slot = fix_log_slot_of(io, *seq);

	assert_int_equal(vc_io_open(io, fix_log_segment_path(slot), VC_IO_READ, &file), 0);
	assert_int_equal(vc_io_pread(file, &h, sizeof(h), 0), sizeof(h));
	vc_io_close(file);
	assert_int_equal(vc_io_open(io, fix_log_segment_path(slot ? 0 : 1), VC_IO_WRITE, &file), 0);
	assert_int_equal(vc_io_pwrite(file, &h, sizeof(h), 0), 0);
	vc_io_close(file);
}

static void test_wrong_files(void **state VC_UNUSED)
{
	uint64_t seq = 1;

	expect_open(0);
	for (unsigned i = 0; i < 12; i++)
		fix_log_append(&fix, 30000);
	flush();
	fix_log_append(&fix, 96);
	fix_log_close(&fix, false);
	for (; seq <= 2; seq++) {
		vc_unit_catch_messages(true);
		assert_int_equal(open_copy(spoil_missing, &seq), fix_log_slot_of(vc_sim_io(sim), seq) == FIX_LOG_SEGMENTS - 1 ? -EBADMSG : -EUCLEAN);
		assert_int_equal(open_copy(spoil_uuid, &seq), -EUCLEAN);
		assert_int_equal(open_copy(spoil_twice, &seq), -EUCLEAN);
		assert_true(vc_unit_messages() >= 3);
	}
	fix.params.uuid[0] ^= 1;
	assert_int_equal(fix_log_open(&fix), -EUCLEAN);
	fix.params.uuid[0] ^= 1;
	fix.params.segment_size *= 2;
	assert_int_equal(fix_log_open(&fix), -EUCLEAN);
	fix.params.segment_size /= 2;
	fix.how.checkpoint_lsn = 3;
	assert_int_equal(fix_log_open(&fix), -EUCLEAN);
	fix.how.checkpoint_lsn = 0;
	fix.params.dir = "/nothing";
	assert_int_equal(fix_log_open(&fix), -ENOENT);
	fix.params.dir = "/log";
	expect_open(13);
}

/* A whole batch with the right numbers that does not follow from the one before it is not part of the log. */
static void spoil_chain(struct vc_io *io, void *ctx)
{
	const uint64_t *addr = ctx;
	uint64_t offset = fix_log_addr_offset(*addr) - sizeof(struct vc_disk_batch);
	struct vc_disk_batch h;
	struct vc_file *file;

	assert_int_equal(vc_io_open(io, fix_log_segment_path(fix_log_slot_of(io, fix_log_addr_seq(*addr))), VC_IO_WRITE, &file), 0);
	assert_int_equal(vc_io_pread(file, &h, sizeof(h), offset), sizeof(h));
	assert_int_equal(vc_le32_get(h.magic), VC_MAGIC_BATCH);
	h.prev_hash = vc_le64_of(vc_le64_get(h.prev_hash) ^ 1);
	h.sum = vc_le64_of(vc_sum64(&h, offsetof(struct vc_disk_batch, sum), 0));
	assert_int_equal(vc_io_pwrite(file, &h, sizeof(h), offset), 0);
	vc_io_close(file);
}

static void test_chain(void **state VC_UNUSED)
{
	expect_open(0);
	for (unsigned i = 0; i < 3; i++)
		fix_log_append(&fix, 96);
	assert_true(fix_log_cut(&fix));
	fix_log_append(&fix, 96);
	fix_log_close(&fix, false);
	for (uint64_t lsn = 1; lsn <= 4; lsn++) {
		assert_int_equal(open_copy(spoil_chain, &fix.recs[lsn].addr), 0);
		assert_int_equal(fix.replayed, lsn - 1);
	}
	expect_open(4);
}

/* ---- cut by the pool ---- */

static void reserve_batch(unsigned n)
{
	struct vc_log_slot slots[16];

	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(fix_log_admit(&fix, VC_LOG_META, 96), 0);
		assert_int_equal(fix_log_reserve(&fix, 96, &slots[i]), 0);
	}
	for (unsigned i = n; i > 0; i--)
		vc_log_submit(fix.log, &slots[i - 1], false, NULL);
}

/* The pool refuses a record in a batch, its first, middle or last; behind it lies a whole segment. It never comes back. */
static void test_refused(void **state VC_UNUSED)
{
	for (unsigned at = 1; at <= 11; at++) {
		uint64_t refused = 4 + at;

		expect_open(0);
		reserve_batch(4);
		reserve_batch(10);
		fix_log_cut(&fix);
		reserve_batch(3);
		fix_log_close(&fix, false);
		fix.refuse_lsn = refused;
		expect_open(refused - 1);
		fix_log_close(&fix, false);
		expect_open(refused - 1);
		assert_int_equal(fix_log_append(&fix, 96), refused);
		fix.refuse_lsn = 0;
		reserve_batch(3);
		fix_log_close(&fix, at % 2);
		expect_open(refused + 3);
		for (uint64_t lsn = 1; lsn <= refused + 3; lsn++)
			assert_true(fix_log_reads(&fix, lsn));
		fix_log_append(&fix, 96);
		flush();
		fix_log_append(&fix, 96);
		fix_log_close(&fix, false);
		expect_open(refused + 5);
		fix_log_close(&fix, false);
		teardown(NULL);
		setup(NULL);
	}
}

/* A durable record cannot be refused. */
static void test_refused_durable(void **state VC_UNUSED)
{
	expect_open(0);
	for (unsigned i = 0; i < 5; i++)
		fix_log_append(&fix, 96);
	flush();
	fix_log_append(&fix, 96);
	fix_log_close(&fix, false);
	fix.refuse_lsn = 3;
	expect_open(6);
	assert_int_equal(fix.highest_durable, 5);
}

/* A segment that was behind the end of the log is not taken later, when the log has grown to where it would fit. */
static void test_stale_segment(void **state VC_UNUSED)
{
	struct flip flip = { .mask = 1 };

	expect_open(0);
	fix_log_append(&fix, 96);
	fix_log_append(&fix, 96);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(fix_log_cut(&fix));
		fix_log_append(&fix, 96);
		fix_log_append(&fix, 96);
	}
	fix_log_close(&fix, false);
	flip.seq = fix_log_addr_seq(fix.recs[2].addr);
	flip.offset = fix_log_addr_offset(fix.recs[2].addr) + 30;
	spoil_flip(vc_sim_io(sim), &flip);
	expect_open(1);
	for (uint64_t n = 1; n < 6; n++) {
		assert_int_equal(fix_log_append(&fix, 96), n + 1);
		fix_log_close(&fix, false);
		expect_open(n + 1);
	}
}

/* ---- crashes ---- */

/* Recovery crashes at every point, in every way, and is run again: nothing durable is lost, the prefix never grows back. */
static void test_recovery_crashes(void **state VC_UNUSED)
{
	uint64_t seed = vc_unit_seed();
	size_t written;

	expect_open(0);
	for (unsigned i = 0; i < 12; i++) {
		fix_log_append(&fix, 20000);
		if (i == 4)
			flush();
	}
	fix_log_close(&fix, false);
	written = vc_sim_events(sim);
	for (unsigned i = 0; i < 60; i++) {
		struct vc_sim *whole = sim;
		uint64_t first;
		size_t events;

		sim = vc_sim_crash(whole, written, &(struct vc_sim_policy){ .keep = VC_SIM_KEEP_RANDOM, .seed = seed + i });
		fix.params.io = vc_sim_io(sim);
		assert_int_equal(fix_log_open(&fix), 0);
		first = fix.replayed;
		assert_true(first >= 5);
		assert_int_equal(fix.mismatches, 0);
		fix_log_close(&fix, false);
		events = vc_sim_events(sim);
		crash(vc_unit_below(&seed, events + 1), &(struct vc_sim_policy){ .keep = VC_SIM_KEEP_RANDOM, .seed = seed * 3 + i });
		expect_open(first);
		fix_log_close(&fix, false);
		vc_sim_free(sim);
		sim = whole;
	}
	fix.params.io = vc_sim_io(sim);
}

struct promise {
	size_t event;
	uint64_t lsn;
};

/* One life: append, flush, cut, checkpoint; remembers at which event what was promised. */
static size_t live(uint64_t *seed, struct promise *promises, size_t room)
{
	size_t n = 0;

	for (uint64_t k = 5 + vc_unit_below(seed, 25); k > 0; k--) {
		size_t len = VC_ROUND_UP(96 + vc_unit_below(seed, vc_unit_below(seed, 4) ? 600 : 20000), (size_t)8);

		if (vc_log_admit(fix.log, VC_LOG_META, len) == 0) {
			struct vc_log_slot slot;

			assert_int_equal(fix_log_reserve(&fix, len, &slot), 0);
			vc_log_submit(fix.log, &slot, false, NULL);
		}
		if (vc_unit_below(seed, 4) == 0 && n < room) {
			struct vc_log_figures f;

			flush();
			vc_log_figures(fix.log, &f);
			promises[n++] = (struct promise){ vc_sim_events(sim), f.durable_lsn };
		}
		if (vc_unit_below(seed, 10) == 0)
			fix_log_cut(&fix);
	}
	return n;
}

/* A checkpoint of everything replayed: as the pool does it, after opening. */
static void checkpoint_replayed(void)
{
	struct fix_section *s = fix.sections;

	if (fix.current == s)
		return;
	fix.how.checkpoint_lsn = s->s.last_lsn;
	fix.how.first_seq = s->s.last_seq + 1;
	fix_log_release(&fix, &s->s);
}

static void random_lives(uint64_t seed)
{
	enum { ROOM = 64 };
	struct promise promises[ROOM];
	uint64_t promised = 0, lowest;

	assert_int_equal(fix_log_open(&fix), 0);
	for (unsigned generation = 0; generation < 6; generation++) {
		static const enum vc_sim_keep keeps[] = {
			VC_SIM_KEEP_RANDOM, VC_SIM_KEEP_RANDOM, VC_SIM_KEEP_NONE, VC_SIM_KEEP_ALL, VC_SIM_KEEP_DATA, VC_SIM_DROP_ONE,
			VC_SIM_TEAR_ONE,
		};
		struct vc_sim_policy policy = { .keep = keeps[vc_unit_below(&seed, VC_ARRAY_LEN(keeps))], .seed = vc_unit_random(&seed) };
		size_t opened = vc_sim_events(sim), n = live(&seed, promises, ROOM), at, uncertain;

		fix_log_close(&fix, false);
		at = opened + vc_unit_below(&seed, vc_sim_events(sim) - opened + 1);
		lowest = promised;
		for (size_t i = 0; i < n; i++)
			if (promises[i].event <= at)
				lowest = promises[i].lsn;
		uncertain = vc_sim_uncertain(sim, at);
		policy.which = uncertain ? vc_unit_below(&seed, uncertain) : 0;
		if (uncertain == 0)
			policy.keep = VC_SIM_KEEP_NONE;
		crash(at, &policy);
		assert_int_equal(fix_log_open(&fix), 0);
		assert_int_equal(fix.mismatches, 0);
		promised = fix.how.checkpoint_lsn + fix.replayed;
		assert_true(promised >= lowest);
		if (vc_unit_below(&seed, 2))
			checkpoint_replayed();
	}
	fix_log_close(&fix, false);
}

static void test_random_crashes(void **state VC_UNUSED)
{
	uint64_t seed = vc_unit_seed();

	for (unsigned i = 0; i < 60; i++) {
		random_lives(seed + i);
		teardown(NULL);
		setup(NULL);
	}
}

/* After a failed sync, what the page cache still has must reach the disk before it is counted on: the next recovery writes it again. */
static void test_after_failed_sync(void **state VC_UNUSED)
{
	expect_open(0);
	fix_log_append(&fix, 96);
	flush();
	fix_log_append(&fix, 96);
	fix_log_append(&fix, 9000);
	vc_sim_fail(sim, &(struct vc_sim_fault){ .ops = VC_SIM_SYNC, .path = fix_log_segment_path(fix_log_slot_of(vc_sim_io(sim), 1)), .nth = 1,
						 .error = EIO });
	assert_int_equal(vc_log_flush_wait(fix.log, 0), -EIO);
	vc_sim_fail(sim, NULL);
	fix_log_close(&fix, false);
	expect_open(3);
	fix_log_append(&fix, 96);
	flush();
	fix_log_close(&fix, false);
	crash(vc_sim_events(sim), &(struct vc_sim_policy){ .keep = VC_SIM_KEEP_NONE });
	expect_open(4);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_generations),
		TEST(test_checkpoints),
		TEST(test_replayed_sections),
		TEST(test_read_only),
		TEST(test_torn_tail),
		TEST(test_damage),
		TEST(test_damaged_header),
		TEST(test_wrong_files),
		TEST(test_chain),
		TEST(test_refused),
		TEST(test_refused_durable),
		TEST(test_stale_segment),
		TEST(test_recovery_crashes),
		TEST(test_random_crashes),
		TEST(test_after_failed_sync),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
