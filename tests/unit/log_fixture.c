/* SPDX-License-Identifier: BSD-2-Clause */
/* log_fixture: a log under test. The fixture in use is global, as the gone() callback has no context. */
#include "config.h"
#include "unit.h"

#include <stdlib.h>

#include "checksum.h"
#include "log_fixture.h"
#include "log_impl.h"

static struct log_fixture *in_use;

/* ---- records ---- */

static void record_blocks(struct vc_record *rec, uint64_t id, uint64_t n, uint8_t **ret_data)
{
	uint64_t *data = malloc(n * VC_BLOCK_SIZE + 1);
	uint32_t *sums = malloc(n * sizeof(*sums) + 1);

	assert_non_null(data);
	assert_non_null(sums);
	for (uint64_t i = 0; i < n * VC_BLOCK_SIZE / 8; i++)
		data[i] = (id << 20 ^ i) * UINT64_C(0x9e3779b97f4a7c15);
	for (uint64_t i = 0; i < n; i++)
		sums[i] = vc_sum32((uint8_t *)data + i * VC_BLOCK_SIZE, VC_BLOCK_SIZE);
	vc_record_write(rec, id, id, n, data, sums);
	free(sums);
	*ret_data = (uint8_t *)data;
}

static void record_row(struct vc_record *rec, uint64_t id, size_t value_len)
{
	uint8_t key[8], value[VC_ROW_VALUE_MAX];

	vc_be64_put(key, id);
	for (size_t i = 0; i < value_len; i++)
		value[i] = (uint8_t)(id + i * 7);
	vc_record_row_put(rec, key, sizeof(key), value, value_len);
}

#define ROW_COST (sizeof(struct vc_disk_op) + sizeof(struct vc_disk_row) + 8)

void fix_log_bytes(uint64_t id, size_t len, uint64_t lsn, uint8_t *dst)
{
	size_t left = len - sizeof(struct vc_disk_record);
	struct vc_record rec;
	uint8_t *data = NULL;

	vc_record_init(&rec);
	rec.time_ns = id;
	if (left >= sizeof(struct vc_disk_op) + 8 + VC_BLOCK_SIZE + 4 + ROW_COST) {
		uint64_t n = (left - sizeof(struct vc_disk_op) - 8 - ROW_COST) / (VC_BLOCK_SIZE + 4);

		record_blocks(&rec, id, n, &data);
		left -= sizeof(struct vc_disk_op) + VC_ROUND_UP(n * 4, (uint64_t)8) + n * VC_BLOCK_SIZE;
	}
	while (left > ROW_COST + VC_ROW_VALUE_MAX) {
		record_row(&rec, id, 2000);
		left -= ROW_COST + 2000;
	}
	record_row(&rec, id, left - ROW_COST);
	assert_int_equal(vc_record_len(&rec), len);
	vc_record_emit(&rec, lsn, dst);
	vc_record_fini(&rec);
	free(data);
}

size_t fix_log_len(uint64_t *seed)
{
	uint64_t kind = vc_unit_below(seed, 16);
	size_t most = kind < 12 ? 512 : kind < 15 ? 20000 : FIX_LOG_SEGMENT - 8192;

	return VC_ROUND_UP(FIX_LOG_RECORD_MIN + vc_unit_below(seed, most), (size_t)8);
}

/* ---- replay ---- */

static struct fix_section *section_new(struct log_fixture *fix)
{
	struct fix_section *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	s->next = fix->sections;
	fix->sections = s;
	return s;
}

struct vc_log_section *fix_log_section(struct log_fixture *fix) { return &section_new(fix)->s; }

static struct vc_log_section *on_segment(void *ctx, uint64_t seq VC_UNUSED)
{
	struct log_fixture *fix = ctx;
	bool first = fix->nsegments_seen++ == 0;

	if (first || (fix->section_segments && fix->nsegments_seen % fix->section_segments == 0))
		return fix_log_section(fix);
	return &fix->sections->s;
}

static int on_record(void *ctx, uint64_t lsn, uint64_t addr, const uint8_t *bytes, bool durable)
{
	struct log_fixture *fix = ctx;
	const struct fix_rec *want = lsn < fix->nrecs ? &fix->recs[lsn] : NULL;
	struct vc_disk_record hdr;
	uint8_t *model;

	if (lsn == fix->refuse_lsn && !durable)
		return 1;
	if (lsn != fix->replayed_from + fix->replayed)
		fix->mismatches++;
	fix->replayed++;
	if (durable)
		fix->highest_durable = VC_MAX(fix->highest_durable, lsn);
	memcpy(&hdr, bytes, sizeof(hdr));
	if (!want || want->id == 0 || want->addr != addr || want->len != vc_le32_get(hdr.len)) {
		fix->mismatches++;
		return 0;
	}
	model = malloc(want->len);
	assert_non_null(model);
	fix_log_bytes(want->id, want->len, lsn, model);
	if (memcmp(model, bytes, want->len) != 0)
		fix->mismatches++;
	free(model);
	return 0;
}

static void on_space(void *ctx)
{
	struct log_fixture *fix = ctx;

	pthread_mutex_lock(&fix->lock);
	fix->spaces++;
	pthread_cond_broadcast(&fix->cond);
	pthread_mutex_unlock(&fix->lock);
}

/* ---- life ---- */

void fix_log_init(struct log_fixture *fix, struct vc_io *io, const char *dir)
{
	memset(fix, 0, sizeof(*fix));
	fix->params = (struct vc_log_params){
		.io = io, .dir = dir, .uuid = "fixture of a log", .segment_size = FIX_LOG_SEGMENT,
		.nsegments = FIX_LOG_SEGMENTS, .space = on_space, .ctx = fix,
	};
	fix->how = (struct vc_log_replay){ .first_seq = 1, .segment = on_segment, .record = on_record };
	fix->next_id = 1;
	pthread_mutex_init(&fix->lock, NULL);
	pthread_cond_init(&fix->cond, NULL);
	in_use = fix;
}

static void sections_free(struct log_fixture *fix)
{
	while (fix->sections) {
		struct fix_section *s = fix->sections;

		fix->sections = s->next;
		free(s);
	}
}

void fix_log_fini(struct log_fixture *fix)
{
	fix_log_close(fix, false);
	free(fix->recs);
	pthread_mutex_destroy(&fix->lock);
	pthread_cond_destroy(&fix->cond);
}

struct vc_sim *fix_log_setup_sim(struct log_fixture *fix)
{
	struct vc_sim *sim = vc_sim_new();

	fix_log_init(fix, vc_sim_io(sim), "/log");
	assert_int_equal(vc_log_create(&fix->params), 0);
	assert_int_equal(vc_io_sync_dir(vc_sim_io(sim), "/"), 0);
	vc_unit_catch_messages(true);
	return sim;
}

void fix_log_teardown(struct log_fixture *fix, struct vc_sim *sim)
{
	fix_log_fini(fix);
	vc_unit_catch_messages(false);
	vc_sim_free(sim);
}

int fix_log_open(struct log_fixture *fix)
{
	struct fix_section *current = section_new(fix);
	struct fix_section *replayed;
	int r;

	fix->replayed_from = fix->how.checkpoint_lsn + 1;
	fix->replayed = fix->highest_durable = 0;
	fix->mismatches = fix->nsegments_seen = fix->ngone = 0;
	fix->current = current;
	r = vc_log_open(&fix->params, &fix->how, &current->s, &fix->log);
	if (r == 0 && fix->log)
		r = vc_log_start(fix->log);
	for (replayed = fix->sections; r == 0 && replayed != current; replayed = replayed->next)
		assert_true(replayed->s.last_seq >= replayed->s.first_seq);
	if (r < 0) {
		fix->log = NULL;
		sections_free(fix);
	}
	return r;
}

void fix_log_close(struct log_fixture *fix, bool sync)
{
	if (!fix->log)
		return;
	assert_int_equal(vc_log_stop(fix->log, sync), 0);
	vc_log_close(fix->log);
	fix->log = NULL;
	sections_free(fix);
}

int fix_log_open_copy(struct log_fixture *fix, struct vc_sim *sim, void (*spoil)(struct vc_io *io, void *ctx), void *ctx)
{
	struct vc_sim *copy = vc_sim_crash(sim, vc_sim_events(sim), &(struct vc_sim_policy){ .keep = VC_SIM_KEEP_ALL });
	int r;

	if (spoil)
		spoil(vc_sim_io(copy), ctx);
	fix->params.io = vc_sim_io(copy);
	r = fix_log_open(fix);
	fix_log_close(fix, false);
	fix->params.io = vc_sim_io(sim);
	vc_sim_free(copy);
	return r;
}

const char *fix_log_segment_path(uint64_t slot)
{
	static char path[32];

	snprintf(path, sizeof(path), "/log/%04u.log", (unsigned)slot);
	return path;
}

uint32_t fix_log_slot_of(struct vc_io *io, uint64_t seq)
{
	for (uint32_t slot = 0; slot < FIX_LOG_SEGMENTS; slot++) {
		struct vc_disk_log_segment h;
		struct vc_file *file;

		if (vc_io_open(io, fix_log_segment_path(slot), VC_IO_READ, &file) < 0)
			continue;
		assert_int_equal(vc_io_pread(file, &h, sizeof(h), 0), sizeof(h));
		vc_io_close(file);
		if (vc_le64_get(h.magic) == VC_MAGIC_LOG && vc_le64_get(h.seq) == seq)
			return slot;
	}
	fail_msg("no segment %u", (unsigned)seq);
	return 0;
}

uint64_t fix_log_addr_seq(uint64_t addr) { return addr >> VC_LOG_ADDR_SHIFT; }
uint64_t fix_log_addr_offset(uint64_t addr) { return addr & ((UINT64_C(1) << VC_LOG_ADDR_SHIFT) - 1); }

bool fix_log_cut(struct log_fixture *fix)
{
	struct fix_section *next = section_new(fix);

	if (vc_log_cut(fix->log, &next->s)) {
		fix->current = next;
		return true;
	}
	fix->sections = next->next;
	free(next);
	return false;
}

static void on_gone(struct vc_log_section *section)
{
	struct fix_section *s = vc_container_of(section, struct fix_section, s);

	assert_false(s->gone);
	s->gone = true;
	s->order = ++in_use->ngone;
}

void fix_log_release(struct log_fixture *fix, struct vc_log_section *section)
{
	vc_log_release(fix->log, section, on_gone);
}

/* ---- appending ---- */

static bool segments_may_come(struct vc_log *log)
{
	bool may;

	vc_mutex_lock(&log->lock);
	may = log->nmade < log->p.nsegments && !log->failed;
	vc_mutex_unlock(&log->lock);
	return may;
}

int fix_log_admit(struct log_fixture *fix, enum vc_log_class class, size_t len)
{
	for (;;) {
		unsigned seen;
		bool may_come;
		int r;

		pthread_mutex_lock(&fix->lock);
		seen = fix->spaces;
		pthread_mutex_unlock(&fix->lock);
		may_come = segments_may_come(fix->log);
		r = vc_log_admit(fix->log, class, len);
		if (r != -EAGAIN || !may_come)
			return r;
		pthread_mutex_lock(&fix->lock);
		while (fix->spaces == seen)
			pthread_cond_wait(&fix->cond, &fix->lock);
		pthread_mutex_unlock(&fix->lock);
	}
}

int fix_log_reserve(struct log_fixture *fix, size_t len, struct vc_log_slot *slot)
{
	int r = vc_log_reserve(fix->log, len, slot);
	uint64_t id;

	if (r < 0)
		return r;
	pthread_mutex_lock(&fix->lock);
	id = fix->next_id++;
	if (slot->lsn >= fix->nrecs) {
		size_t n = VC_MAX((size_t)slot->lsn + 1, fix->nrecs * 2);

		fix->recs = realloc(fix->recs, n * sizeof(*fix->recs));
		assert_non_null(fix->recs);
		memset(fix->recs + fix->nrecs, 0, (n - fix->nrecs) * sizeof(*fix->recs));
		fix->nrecs = n;
	}
	fix->recs[slot->lsn] = (struct fix_rec){ id, len, slot->addr };
	pthread_mutex_unlock(&fix->lock);
	fix_log_bytes(id, len, slot->lsn, slot->buf);
	vc_log_applied(fix->log, slot->section);
	return 0;
}

uint64_t fix_log_append(struct log_fixture *fix, size_t len)
{
	struct vc_log_slot slot;

	assert_int_equal(fix_log_admit(fix, VC_LOG_META, len), 0);
	assert_int_equal(fix_log_reserve(fix, len, &slot), 0);
	vc_log_submit(fix->log, &slot, false, NULL);
	return slot.lsn;
}

bool fix_log_reads(struct log_fixture *fix, uint64_t lsn)
{
	struct fix_rec rec;
	uint8_t *got, *want;
	bool same;

	pthread_mutex_lock(&fix->lock);
	rec = fix->recs[lsn];
	pthread_mutex_unlock(&fix->lock);
	got = malloc(rec.len);
	want = malloc(rec.len);
	assert_non_null(got);
	assert_non_null(want);
	fix_log_bytes(rec.id, rec.len, lsn, want);
	same = vc_log_read(fix->log, rec.addr, got, rec.len) == 0 && memcmp(got, want, rec.len) == 0;
	free(got);
	free(want);
	return same;
}
