/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz replay.
 *
 * log: the files of a real log are damaged: bytes changed, ranges zeroed or taken from elsewhere, files cut, exchanged and
 * removed, sums made right again. The pool does not open, or holds what it held after some prefix of its records (D2, D5).
 *
 * forge: records of any content, correctly framed by the log itself, follow the real ones. The pool does not open, or
 * everything in it can be looked at and used; what went well is there again at the next opening.
 */
#include "config.h"
#include "../unit/unit.h"

#include "../unit/engine.h"
#include "checksum.h"
#include "fuzz_pool.h"
#include "fuzz_record.h"
#include "pool_impl.h"

#define EDITS_MAX 12
#define LOG_SEGMENTS 8u
#define EDIT_BYTES 64u

/* ---- damage ---- */

struct damage {
	struct vc_io *io;
	struct fuzz_in *in;
	uint64_t used[LOG_SEGMENTS]; /* of each file, up to its last byte that is not zero */
};

static const char *slot_path(uint64_t slot)
{
	static char path[2][64];
	static unsigned int next;
	char *p = path[next++ % 2];

	snprintf(p, sizeof(path[0]), FUZZ_POOL "/log/%04u.log", (unsigned int)slot);
	return p;
}

/* NULL: there is no such file any more. */
static struct vc_file *slot_open(struct damage *d, uint64_t slot)
{
	struct vc_file *file;

	return vc_io_open(d->io, slot_path(slot), VC_IO_WRITE, &file) == 0 ? file : NULL;
}

static void damage_measure(struct damage *d)
{
	for (uint64_t slot = 0; slot < LOG_SEGMENTS; slot++) {
		struct vc_file *file = slot_open(d, slot);
		uint64_t size = 0;
		uint8_t *bytes;

		d->used[slot] = VC_LOG_HEADER_SIZE;
		if (!file)
			continue;
		fuzz_check(vc_io_size(file, &size) == 0);
		bytes = malloc(size + 1);
		fuzz_check(bytes && vc_io_pread(file, bytes, size, 0) == (ssize_t)size);
		while (size > VC_LOG_HEADER_SIZE && bytes[size - 1] == 0)
			size--;
		d->used[slot] = size;
		free(bytes);
		vc_io_close(file);
	}
}

/* Places where fields are: headers of segments and of batches, else anywhere. */
static uint64_t damage_offset(struct damage *d, uint64_t slot)
{
	switch (fuzz_below(d->in, 4)) {
	case 0: return fuzz_below(d->in, sizeof(struct vc_disk_log_segment));
	case 1: return VC_LOG_HEADER_SIZE + fuzz_below(d->in, 256);
	default: return fuzz_below(d->in, d->used[slot]);
	}
}

static void damage_write(struct damage *d, uint64_t slot, uint64_t offset, const void *bytes, size_t len)
{
	struct vc_file *file = slot_open(d, slot);

	if (!file)
		return;
	fuzz_check(vc_io_pwrite(file, bytes, len, offset) == 0);
	vc_io_close(file);
}

/* What lies there; zeros behind the end. */
static void damage_read(struct damage *d, uint64_t slot, uint64_t offset, void *bytes, size_t len)
{
	struct vc_file *file = slot_open(d, slot);

	memset(bytes, 0, len);
	if (!file)
		return;
	fuzz_check(vc_io_pread(file, bytes, len, offset) >= 0);
	vc_io_close(file);
}

static void damage_truncate(struct damage *d, uint64_t slot, uint64_t size)
{
	struct vc_file *file = slot_open(d, slot);

	if (!file)
		return;
	fuzz_check(vc_io_truncate(file, size) == 0);
	vc_io_close(file);
}

static void damage_exchange(struct damage *d, uint64_t a, uint64_t b)
{
	int r = vc_io_rename(d->io, slot_path(a), FUZZ_POOL "/log/tmp");

	if (r == 0) {
		r = vc_io_rename(d->io, slot_path(b), slot_path(a));
		fuzz_check(vc_io_rename(d->io, FUZZ_POOL "/log/tmp", slot_path(b)) == 0);
	}
	fuzz_check(r == 0 || r == -ENOENT);
}

/* Fields of a segment's header are changed and its sum is right. */
static void damage_header(struct damage *d, uint64_t slot)
{
	struct vc_disk_log_segment h;
	size_t len;
	const uint8_t *some;
	uint64_t at = fuzz_below(d->in, 96);

	damage_read(d, slot, 0, &h, sizeof(h));
	some = fuzz_some(d->in, 1 + fuzz_u8(d->in) % 8, &len);
	for (size_t i = 0; i < len; i++)
		((uint8_t *)&h)[at + i] ^= some[i];
	h.sum = vc_le64_of(vc_sum64(&h, offsetof(struct vc_disk_log_segment, sum), 0));
	damage_write(d, slot, 0, &h, sizeof(h));
}

/* The same with the header of the first batch of a segment. */
static void damage_batch(struct damage *d, uint64_t slot)
{
	struct vc_disk_batch h;
	size_t len;
	const uint8_t *some;
	uint64_t at = fuzz_below(d->in, offsetof(struct vc_disk_batch, sum) - 8);

	damage_read(d, slot, VC_LOG_HEADER_SIZE, &h, sizeof(h));
	some = fuzz_some(d->in, 1 + fuzz_u8(d->in) % 8, &len);
	for (size_t i = 0; i < len; i++)
		((uint8_t *)&h)[at + i] ^= some[i];
	h.sum = vc_le64_of(vc_sum64(&h, offsetof(struct vc_disk_batch, sum), 0));
	damage_write(d, slot, VC_LOG_HEADER_SIZE, &h, sizeof(h));
}

static void damage_once(struct damage *d)
{
	uint64_t slot = fuzz_below(d->in, LOG_SEGMENTS), offset, other;
	static uint8_t bytes[65536];
	const uint8_t *some;
	size_t len;
	uint8_t byte;

	switch (fuzz_below(d->in, 10)) {
	case 0:
	case 1:
		offset = damage_offset(d, slot);
		damage_read(d, slot, offset, &byte, 1);
		byte ^= fuzz_u8(d->in);
		damage_write(d, slot, offset, &byte, 1);
		break;
	case 2:
		memset(bytes, 0, sizeof(bytes));
		offset = damage_offset(d, slot);
		damage_write(d, slot, offset, bytes, 1 + fuzz_below(d->in, 8192));
		break;
	case 3:
		offset = damage_offset(d, slot);
		some = fuzz_some(d->in, 1 + fuzz_u8(d->in) % EDIT_BYTES, &len);
		damage_write(d, slot, offset, len ? (const void *)some : "", len);
		break;
	case 4: /* stale bytes from elsewhere */
		other = fuzz_below(d->in, LOG_SEGMENTS);
		offset = VC_ROUND_DOWN(damage_offset(d, other), (uint64_t)VC_LOG_ALIGN);
		len = VC_LOG_ALIGN * (1 + fuzz_below(d->in, sizeof(bytes) / VC_LOG_ALIGN - 1));
		damage_read(d, other, offset, bytes, len);
		damage_write(d, slot, fuzz_below(d->in, 2) ? offset : VC_ROUND_DOWN(damage_offset(d, slot), (uint64_t)VC_LOG_ALIGN), bytes, len);
		break;
	case 5: damage_truncate(d, slot, damage_offset(d, slot)); break;
	case 6: damage_exchange(d, slot, fuzz_below(d->in, LOG_SEGMENTS)); break;
	case 7:
		if (vc_io_unlink(d->io, slot_path(slot)) < 0 && fuzz_below(d->in, 2))
			damage_exchange(d, 0, 1);
		break;
	case 8: damage_header(d, slot); break;
	default: damage_batch(d, slot); break;
	}
}

/* ---- what is left ---- */

/* 0 and the state, which must be one there was; or the error of opening. */
static int log_state(struct vc_sim *sim, const struct fuzz_base *base, uint64_t *ret_state)
{
	struct model found = { .n = 0 };
	struct vc_pool *pool;
	size_t k = base->nstates;
	int r = engine_try_open(vc_sim_io(sim), FUZZ_POOL, ENGINE_DESTAGE_NEVER, &pool);

	fuzz_check(r <= 0);
	if (r < 0)
		return r;
	fuzz_check(model_load(pool, &found) == 0);
	*ret_state = model_state(&found);
	while (k > 0 && base->states[k - 1] != *ret_state)
		k--;
	fuzz_check(k > 0);
	model_clear(&found);
	vc_pool_abandon(pool);
	return 0;
}

void fuzz_log(const uint8_t *data, size_t len)
{
	struct fuzz_in in = { data, len };
	uint8_t which = fuzz_u8(&in);
	enum fuzz_base_kind kind = which % 2 ? FUZZ_BASE_DESTAGED : FUZZ_BASE_LOG;
	const struct fuzz_base *base = fuzz_base_get(kind);
	struct vc_sim *sim = fuzz_base_copy(kind);
	struct damage d = { .io = vc_sim_io(sim), .in = &in };
	uint64_t state, again;

	damage_measure(&d);
	for (int i = 0; i < EDITS_MAX && in.left; i++)
		damage_once(&d);
	/* Recovery that came to an end comes to the same end again. */
	if (log_state(sim, base, &state) == 0 && which & 2)
		fuzz_check(log_state(sim, base, &again) == 0 && again == state);
	vc_sim_free(sim);
}

/* ---- forged records ---- */

static void forge_append(struct vc_pool *pool, struct fuzz_in *in, const struct fuzz_world *world)
{
	static uint8_t blocks[VC_RECORD_EXTS * 8 * VC_BLOCK_SIZE];
	struct vc_log_slot slot;
	struct vc_record rec;
	int64_t len;
	struct vc_wait w;

	vc_record_init(&rec);
	fuzz_record_build(in, world, blocks, &rec);
	len = vc_record_len(&rec);
	fuzz_check(len > 0);
	if (vc_log_admit(pool->log, VC_LOG_META, (size_t)len) == 0) {
		fuzz_check(vc_log_reserve(pool->log, (size_t)len, &slot) == 0);
		vc_record_emit(&rec, slot.lsn, slot.buf);
		vc_log_applied(pool->log, slot.section);
		vc_wait_init(&w);
		vc_log_submit(pool->log, &slot, false, &w.done);
		fuzz_check(vc_wait_result(&w, 0) == 0);
	}
	vc_record_fini(&rec);
}

static void forge_look(struct vc_sim *sim, bool use)
{
	uint64_t hash, again;
	struct vc_pool *pool;
	int r;

	if (engine_try_open(vc_sim_io(sim), FUZZ_POOL, ENGINE_DESTAGE_NEVER, &pool) < 0)
		return;
	r = fuzz_look(pool, &hash);
	if (use) {
		int s = fuzz_use(pool), t = fuzz_look(pool, &hash);

		r = r ? r : s ? s : t;
	}
	if (vc_pool_close(pool) < 0 || r < 0)
		return;
	fuzz_check(engine_try_open(vc_sim_io(sim), FUZZ_POOL, ENGINE_DESTAGE_NEVER, &pool) == 0);
	fuzz_check(fuzz_look(pool, &again) == 0 && hash == again);
	vc_pool_abandon(pool);
}

void fuzz_forge(const uint8_t *data, size_t len)
{
	struct fuzz_in in = { data, len };
	uint8_t which = fuzz_u8(&in);
	enum fuzz_base_kind kind = which % 2 ? FUZZ_BASE_DESTAGED : FUZZ_BASE_LOG;
	struct fuzz_world world = { .max_ino = fuzz_base_get(kind)->max_ino };
	struct vc_sim *sim = fuzz_base_copy(kind);
	struct vc_pool *pool = engine_open(vc_sim_io(sim), FUZZ_POOL, ENGINE_DESTAGE_NEVER);

	do
		forge_append(pool, &in, &world);
	while (in.left && which & 4);
	vc_pool_abandon(pool);
	forge_look(sim, which & 2);
	vc_sim_free(sim);
}
