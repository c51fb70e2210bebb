/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the simulated file system itself: crash states are legal and varied, certain things stay, faults strike. VC_TEST_THIN. */
#include "config.h"
#include "unit.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>
#include "io_sim.h"

#define SECTOR 512
#define NSECTORS 8
#define FILE_BYTES (SECTOR * NSECTORS)
#define NSTEPS 60

static int setup(void **state)
{
	vc_unit_catch_messages(true);
	*state = vc_sim_new();
	return 0;
}

static int teardown(void **state)
{
	vc_unit_catch_messages(false);
	vc_sim_free(*state);
	return 0;
}

static struct vc_file *make(struct vc_sim *sim, const char *path)
{
	struct vc_file *f;

	assert_int_equal(vc_io_open(vc_sim_io(sim), path, VC_IO_WRITE | VC_IO_CREATE, &f), 0);
	return f;
}

static struct vc_sim *crash(struct vc_sim *sim, enum vc_sim_keep keep, size_t which, uint64_t seed)
{
	return vc_sim_crash(sim, vc_sim_events(sim), &(struct vc_sim_policy){ keep, which, seed });
}

static bool exists(struct vc_sim *sim, const char *path)
{
	struct vc_file *f;
	int r = vc_io_open(vc_sim_io(sim), path, VC_IO_READ, &f);

	if (r == 0)
		vc_io_close(f);
	assert_true(r == 0 || r == -ENOENT);
	return r == 0;
}

/* Contents of a file, zeros behind its end; returns its size, -1 when there is none. */
static int64_t contents(struct vc_sim *sim, const char *path, uint8_t *buf, size_t len)
{
	struct vc_file *f;
	uint64_t size;

	memset(buf, 0, len);
	if (vc_io_open(vc_sim_io(sim), path, VC_IO_READ, &f) < 0)
		return -1;
	assert_int_equal(vc_io_size(f, &size), 0);
	assert_int_equal(vc_io_pread(f, buf, len, 0), VC_MIN(size, len));
	vc_io_close(f);
	return (int64_t)size;
}

/* Exists and content after a crash, in one go. */
static bool survives(struct vc_sim *sim, enum vc_sim_keep keep, const char *path)
{
	struct vc_sim *after = crash(sim, keep, 0, 0);
	bool yes = exists(after, path);

	vc_sim_free(after);
	return yes;
}

/* ---- data ---- */

/* What a file held after each event; entry 0 is "nothing yet". */
struct story {
	uint8_t bytes[NSTEPS + 1][FILE_BYTES];
	uint64_t size[NSTEPS + 1];
	bool synced[NSTEPS + 1];
	size_t n;
};

static void story_step(struct story *st, struct vc_file *f, uint64_t *seed)
{
	uint64_t offset = vc_unit_below(seed, FILE_BYTES), len = 1 + vc_unit_below(seed, FILE_BYTES - offset);
	uint8_t buf[FILE_BYTES];
	size_t n = ++st->n;

	memcpy(st->bytes[n], st->bytes[n - 1], FILE_BYTES);
	st->size[n] = st->size[n - 1];
	switch (vc_unit_below(seed, 8)) {
	case 0:
		assert_int_equal(vc_io_datasync(f), 0);
		st->synced[n] = true;
		break;
	case 1:
		assert_int_equal(vc_io_truncate(f, offset), 0);
		memset(st->bytes[n] + offset, 0, FILE_BYTES - offset);
		st->size[n] = offset;
		break;
	default:
		for (uint64_t i = 0; i < len; i++)
			buf[i] = (uint8_t)(1 + vc_unit_below(seed, 255));
		assert_int_equal(vc_io_pwrite(f, buf, len, offset), 0);
		memcpy(st->bytes[n] + offset, buf, len);
		st->size[n] = VC_MAX(st->size[n], offset + len);
		break;
	}
}

/* The last event at or before `at` by which everything before was certain. */
static size_t story_floor(const struct story *st, size_t at)
{
	while (at > 0 && !st->synced[at])
		at--;
	return at;
}

static bool size_is_legal(const struct story *st, size_t at, uint64_t size)
{
	for (size_t e = story_floor(st, at); e <= at; e++)
		if (st->size[e] == size)
			return true;
	return false;
}

/* A sector is as it was after some event since the floor, as far as the size lets it be seen. */
static bool sector_is_legal(const struct story *st, size_t at, const uint8_t *bytes, uint64_t sector, uint64_t size)
{
	uint64_t start = sector * SECTOR;
	size_t seen = size <= start ? 0 : VC_MIN((size_t)(size - start), (size_t)SECTOR);

	for (size_t e = story_floor(st, at); e <= at; e++)
		if (memcmp(bytes + start, st->bytes[e] + start, seen) == 0)
			return true;
	/* It was behind the end of the file on disk when that grew: zeros. */
	return vc_is_zero(bytes + start, seen);
}

static void check_state(const struct story *st, struct vc_sim *sim, size_t at, const struct vc_sim_policy *policy,
			uint8_t *bytes)
{
	/* Two events, creating the file and syncing its directory, come before the story. */
	struct vc_sim *after = vc_sim_crash(sim, 2 + at, policy);
	int64_t size = contents(after, "/f", bytes, FILE_BYTES);

	assert_true(size >= 0);
	assert_true(size_is_legal(st, at, (uint64_t)size));
	for (uint64_t s = 0; s < NSECTORS; s++)
		assert_true(sector_is_legal(st, at, bytes, s, (uint64_t)size));
	if (policy->keep == VC_SIM_KEEP_ALL || policy->keep == VC_SIM_KEEP_NONE) {
		size_t e = policy->keep == VC_SIM_KEEP_ALL ? at : story_floor(st, at);

		assert_int_equal(size, st->size[e]);
		assert_memory_equal(bytes, st->bytes[e], FILE_BYTES);
	}
	vc_sim_free(after);
}

static void check_all_policies(const struct story *st, struct vc_sim *sim, size_t at, uint64_t *seed)
{
	size_t n = vc_sim_uncertain(sim, 2 + at);
	uint8_t a[FILE_BYTES], b[FILE_BYTES];

	for (int keep = VC_SIM_KEEP_ALL; keep <= VC_SIM_KEEP_NAMES; keep++) {
		struct vc_sim_policy policy = { (enum vc_sim_keep)keep, 0, vc_unit_random(seed) };

		check_state(st, sim, at, &policy, a);
		check_state(st, sim, at, &policy, b); /* same seed, same state */
		assert_memory_equal(a, b, FILE_BYTES);
	}
	for (size_t which = 0; which < n; which++)
		for (int keep = VC_SIM_DROP_ONE; keep <= VC_SIM_TEAR_ONE; keep++)
			check_state(st, sim, at, &(struct vc_sim_policy){ (enum vc_sim_keep)keep, which, 0 }, a);
}

static void test_every_crash_state_is_legal(void **state VC_UNUSED)
{
	static struct story st;
	uint64_t seed = vc_unit_seed();

	for (int round = 0; round < 4; round++) {
		struct vc_sim *sim = vc_sim_new();
		struct vc_file *f = make(sim, "/f");

		memset(&st, 0, sizeof(st));
		st.synced[0] = true;
		assert_int_equal(vc_io_sync_dir(vc_sim_io(sim), "/"), 0);
		while (st.n < NSTEPS)
			story_step(&st, f, &seed);
		assert_int_equal(vc_sim_events(sim), 2 + NSTEPS);
		for (size_t at = 0; at <= NSTEPS; at++)
			check_all_policies(&st, sim, at, &seed);
		vc_io_close(f);
		vc_sim_free(sim);
	}
}

/* ---- what is settled, and what decides ---- */

#define TWO_STEPS 60
#define FINDS_MAX 20000

static struct find {
	uint64_t key, hash;
} finds[FINDS_MAX];

/* Every crash from `from` on, with every policy; the same again makes the same numbers. Returns how many. */
static size_t find_all(struct vc_sim *sim, size_t from, struct find *ret)
{
	size_t n = 0;

	for (size_t at = from; at <= vc_sim_events(sim); at++) {
		size_t uncertain = vc_sim_uncertain(sim, at);

		for (int keep = VC_SIM_KEEP_ALL; keep <= VC_SIM_TEAR_ONE; keep++)
			for (size_t which = 0; which < (keep < VC_SIM_DROP_ONE ? 1 : uncertain); which++) {
				struct vc_sim_policy policy = { (enum vc_sim_keep)keep, which, which + at % 8 };
				struct vc_sim *after = vc_sim_crash(sim, at, &policy);

				assert_true(n < FINDS_MAX);
				ret[n++] = (struct find){ vc_sim_crash_key(sim, at, &policy), vc_sim_hash(after) };
				vc_sim_free(after);
			}
	}
	return n;
}

/* Two files, made and renamed in between, one of them synced without success now and then. */
static void settled_is_the_same(uint64_t *seed)
{
	static struct story one, two;
	static struct find again[FINDS_MAX];
	struct vc_sim *sim = vc_sim_new();
	struct vc_file *f = make(sim, "/f"), *g = make(sim, "/g");
	size_t from, n, same = 0;

	memset(&one, 0, sizeof(one));
	memset(&two, 0, sizeof(two));
	for (unsigned i = 0; i < TWO_STEPS; i++) {
		if (i == TWO_STEPS / 3)
			assert_int_equal(vc_io_sync_dir(vc_sim_io(sim), "/"), 0);
		if (i == TWO_STEPS / 2)
			assert_int_equal(vc_io_rename(vc_sim_io(sim), "/g", "/h"), 0);
		if (i % 8 == 7) { /* what was written to one of them before is in doubt for ever */
			vc_sim_fail(sim, &(struct vc_sim_fault){ .ops = VC_SIM_SYNC, .error = EIO });
			assert_int_equal(vc_io_datasync(vc_unit_below(seed, 2) ? f : g), -EIO);
		}
		if (vc_unit_below(seed, 2))
			story_step(&one, f, seed);
		else
			story_step(&two, g, seed);
	}
	from = vc_sim_events(sim) / 2;
	n = find_all(sim, from, finds);
	vc_sim_settle(sim, from);
	assert_int_equal(find_all(sim, from, again), n);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(finds[i].hash, again[i].hash);
		for (size_t k = 0; k < i; k++) {
			if (again[k].key != again[i].key)
				continue;
			assert_int_equal(again[k].hash, again[i].hash);
			same++;
		}
	}
	assert_true(same > 0 && same < n * (n - 1) / 2);
	vc_io_close(f);
	vc_io_close(g);
	vc_sim_free(sim);
}

static void test_settled_is_the_same(void **state VC_UNUSED)
{
	uint64_t seed = vc_unit_seed(), rounds = VC_MAX(8 / vc_unit_thin(), 1);

	for (uint64_t round = 0; round < rounds; round++)
		settled_is_the_same(&seed);
}

/* Every subset of three unsynced sectors is found; so the simulation is not too kind. */
static void test_random_reaches_all(void **state)
{
	struct vc_sim *sim = *state;
	struct vc_file *f = make(sim, "/f");
	uint8_t buf[SECTOR], got[SECTOR * 3];
	bool seen[8] = { false };
	uint64_t seed = vc_unit_seed();

	assert_int_equal(vc_io_truncate(f, sizeof(got)), 0);
	assert_int_equal(vc_io_datasync(f), 0);
	assert_int_equal(vc_io_sync_dir(vc_sim_io(sim), "/"), 0);
	memset(buf, 1, sizeof(buf));
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(vc_io_pwrite(f, buf, SECTOR, i * SECTOR), 0);
	for (int i = 0; i < 300; i++) {
		struct vc_sim *after = crash(sim, VC_SIM_KEEP_RANDOM, 0, vc_unit_random(&seed));

		assert_int_equal(contents(after, "/f", got, sizeof(got)), sizeof(got));
		seen[got[0] | got[SECTOR] << 1 | got[SECTOR * 2] << 2] = true;
		vc_sim_free(after);
	}
	for (size_t i = 0; i < 8; i++)
		assert_true(seen[i]);
	vc_io_close(f);
}

/* Unsynced growth: size without data, data without size. */
static void test_size_and_data_apart(void **state)
{
	struct vc_sim *sim = *state;
	struct vc_file *f = make(sim, "/f");
	bool empty = false, hole = false, whole = false;
	uint8_t buf[SECTOR], got[SECTOR];
	uint64_t seed = vc_unit_seed();

	memset(buf, 9, sizeof(buf));
	assert_int_equal(vc_io_sync_dir(vc_sim_io(sim), "/"), 0);
	assert_int_equal(vc_io_pwrite(f, buf, SECTOR, 0), 0);
	for (int i = 0; i < 100; i++) {
		struct vc_sim *after = crash(sim, VC_SIM_KEEP_RANDOM, 0, vc_unit_random(&seed));
		int64_t size = contents(after, "/f", got, sizeof(got));

		empty = empty || size == 0;
		hole = hole || (size == SECTOR && vc_is_zero(got, SECTOR));
		whole = whole || (size == SECTOR && memcmp(got, buf, SECTOR) == 0);
		vc_sim_free(after);
	}
	assert_true(empty && hole && whole);
	vc_io_close(f);
}

static void test_torn_write(void **state)
{
	struct vc_sim *sim = *state;
	struct vc_file *f = make(sim, "/f");
	uint8_t buf[FILE_BYTES], got[FILE_BYTES];
	unsigned patterns[256] = { 0 }, distinct = 0;

	assert_int_equal(vc_io_truncate(f, FILE_BYTES), 0);
	assert_int_equal(vc_io_datasync(f), 0);
	assert_int_equal(vc_io_sync_dir(vc_sim_io(sim), "/"), 0);
	memset(buf, 1, sizeof(buf));
	assert_int_equal(vc_io_pwrite(f, buf, FILE_BYTES, 0), 0);
	assert_int_equal(vc_sim_uncertain(sim, vc_sim_events(sim)), 1);
	for (uint64_t seed = 0; seed < 100; seed++) {
		struct vc_sim *after = crash(sim, VC_SIM_TEAR_ONE, 0, seed);
		unsigned kept = 0;

		assert_int_equal(contents(after, "/f", got, sizeof(got)), FILE_BYTES);
		for (unsigned s = 0; s < NSECTORS; s++) {
			assert_true(vc_is_zero(got + s * SECTOR, SECTOR) || memcmp(got + s * SECTOR, buf, SECTOR) == 0);
			kept |= (unsigned)got[s * SECTOR] << s;
		}
		assert_true(kept != 0 && kept != 255); /* torn: neither nothing nor all */
		distinct += patterns[kept]++ == 0;
		vc_sim_free(after);
	}
	assert_true(distinct > 20);
	vc_io_close(f);
}

/* Of two sectors, exactly one. */
static void test_torn_in_two(void **state)
{
	struct vc_sim *sim = *state;
	struct vc_file *f = make(sim, "/f");
	uint8_t buf[2 * SECTOR], got[2 * SECTOR];
	unsigned first = 0;

	assert_int_equal(vc_io_sync_dir(vc_sim_io(sim), "/"), 0);
	memset(buf, 1, sizeof(buf));
	assert_int_equal(vc_io_pwrite(f, buf, sizeof(buf), 0), 0);
	for (uint64_t seed = 0; seed < 40; seed++) {
		struct vc_sim *after = crash(sim, VC_SIM_TEAR_ONE, 0, seed);

		assert_int_equal(contents(after, "/f", got, sizeof(got)), sizeof(got));
		assert_int_equal(got[0] + got[SECTOR], 1);
		first += got[0];
		vc_sim_free(after);
	}
	assert_true(first > 0 && first < 40);
	vc_io_close(f);
}

static void test_drop_each(void **state)
{
	struct vc_sim *sim = *state;
	struct vc_file *f = make(sim, "/f");
	uint8_t buf[SECTOR], got[FILE_BYTES];

	assert_int_equal(vc_io_sync_dir(vc_sim_io(sim), "/"), 0);
	assert_int_equal(vc_io_truncate(f, FILE_BYTES), 0);
	assert_int_equal(vc_io_datasync(f), 0);
	memset(buf, 1, sizeof(buf));
	for (unsigned i = 0; i < NSECTORS; i++)
		assert_int_equal(vc_io_pwrite(f, buf, SECTOR, i * SECTOR), 0);
	assert_int_equal(vc_sim_uncertain(sim, vc_sim_events(sim)), NSECTORS);
	for (size_t which = 0; which < NSECTORS; which++)
		for (int keep = 0; keep < 2; keep++) {
			struct vc_sim *after = crash(sim, keep ? VC_SIM_KEEP_ONE : VC_SIM_DROP_ONE, which, 0);

			assert_int_equal(contents(after, "/f", got, sizeof(got)), FILE_BYTES);
			for (size_t s = 0; s < NSECTORS; s++)
				assert_int_equal(got[s * SECTOR], (s == which) == keep);
			vc_sim_free(after);
		}
	vc_io_close(f);
}

/* The kernel drops pages it could not write: a later sync that succeeds does not bring them to the disk. */
static void test_failed_sync_is_for_ever(void **state)
{
	struct vc_sim *sim = *state, *after;
	struct vc_file *f = make(sim, "/f");
	uint8_t buf[SECTOR], got[SECTOR * 2];

	memset(buf, 5, sizeof(buf));
	assert_int_equal(vc_io_sync_dir(vc_sim_io(sim), "/"), 0);
	assert_int_equal(vc_io_pwrite(f, buf, SECTOR, 0), 0);
	vc_sim_fail(sim, &(struct vc_sim_fault){ .ops = VC_SIM_SYNC, .nth = 1, .error = EIO });
	assert_int_equal(vc_io_datasync(f), -EIO);
	assert_int_equal(vc_io_pwrite(f, buf, SECTOR, SECTOR), 0);
	assert_int_equal(vc_io_datasync(f), 0);
	assert_int_equal(vc_sim_uncertain(sim, vc_sim_events(sim)), 1);
	after = crash(sim, VC_SIM_KEEP_NONE, 0, 0);
	assert_int_equal(contents(after, "/f", got, sizeof(got)), SECTOR * 2);
	assert_true(vc_is_zero(got, SECTOR));
	assert_memory_equal(got + SECTOR, buf, SECTOR);
	vc_sim_free(after);
	vc_io_close(f);
}

/* ---- names ---- */

static void test_create(void **state)
{
	struct vc_sim *sim = *state;
	struct vc_io *io = vc_sim_io(sim);
	struct vc_file *f;

	assert_int_equal(vc_io_mkdir(io, "/d"), 0);
	f = make(sim, "/d/f");
	assert_int_equal(vc_io_datasync(f), 0); /* says nothing about the name */
	assert_true(survives(sim, VC_SIM_KEEP_ALL, "/d/f"));
	assert_false(survives(sim, VC_SIM_KEEP_NONE, "/d/f"));
	assert_int_equal(vc_io_sync_dir(io, "/d"), 0);
	assert_false(survives(sim, VC_SIM_KEEP_NONE, "/d/f")); /* /d itself may be lost */
	assert_int_equal(vc_io_sync_dir(io, "/"), 0);
	assert_true(survives(sim, VC_SIM_KEEP_NONE, "/d/f"));
	assert_int_equal(vc_io_unlink(io, "/d/f"), 0);
	assert_true(survives(sim, VC_SIM_KEEP_NONE, "/d/f"));
	assert_true(survives(sim, VC_SIM_KEEP_DATA, "/d/f"));
	assert_false(survives(sim, VC_SIM_KEEP_ALL, "/d/f"));
	assert_int_equal(vc_io_sync_dir(io, "/d"), 0);
	assert_false(survives(sim, VC_SIM_KEEP_NONE, "/d/f"));
	vc_io_close(f);
}

static void write_text(struct vc_sim *sim, const char *path, const char *text)
{
	struct vc_file *f = make(sim, path);

	assert_int_equal(vc_io_pwrite(f, text, strlen(text), 0), 0);
	assert_int_equal(vc_io_datasync(f), 0);
	vc_io_close(f);
}

static bool holds_text(struct vc_sim *sim, const char *path, const char *text)
{
	uint8_t got[64];

	return contents(sim, path, got, sizeof(got)) == (int64_t)strlen(text) && memcmp(got, text, strlen(text)) == 0;
}

static void test_rename(void **state)
{
	struct vc_sim *sim = *state;
	struct vc_io *io = vc_sim_io(sim);
	uint64_t seed = vc_unit_seed();
	int before = 0, after = 0;

	write_text(sim, "/tmp", "new");
	write_text(sim, "/final", "old");
	assert_int_equal(vc_io_sync_dir(io, "/"), 0);
	assert_int_equal(vc_io_rename(io, "/tmp", "/final"), 0);
	for (int i = 0; i < 60; i++) {
		struct vc_sim *sim2 = crash(sim, VC_SIM_KEEP_RANDOM, 0, vc_unit_random(&seed));

		if (holds_text(sim2, "/final", "old") && holds_text(sim2, "/tmp", "new"))
			before++;
		else if (holds_text(sim2, "/final", "new") && !exists(sim2, "/tmp"))
			after++;
		vc_sim_free(sim2);
	}
	assert_int_equal(before + after, 60); /* one or the other, nothing between */
	assert_true(before > 0 && after > 0);
	assert_int_equal(vc_io_sync_dir(io, "/"), 0);
	assert_false(survives(sim, VC_SIM_KEEP_NONE, "/tmp"));
}

/* Between directories both have to be synced. */
static void test_rename_across(void **state)
{
	struct vc_sim *sim = *state;
	struct vc_io *io = vc_sim_io(sim);

	assert_int_equal(vc_io_mkdir(io, "/d"), 0);
	write_text(sim, "/f", "x");
	assert_int_equal(vc_io_sync_dir(io, "/"), 0);
	assert_int_equal(vc_io_rename(io, "/f", "/d/f"), 0);
	assert_int_equal(vc_io_sync_dir(io, "/d"), 0);
	assert_int_equal(vc_sim_uncertain(sim, vc_sim_events(sim)), 1);
	assert_int_equal(vc_io_sync_dir(io, "/"), 0);
	assert_true(survives(sim, VC_SIM_KEEP_NONE, "/d/f"));
	assert_false(survives(sim, VC_SIM_KEEP_NONE, "/f"));
}

static void test_crash_twice(void **state)
{
	struct vc_sim *sim = *state, *second, *third;
	struct vc_file *f;

	assert_int_equal(vc_io_mkdir(vc_sim_io(sim), "/d"), 0);
	write_text(sim, "/d/f", "one");
	second = crash(sim, VC_SIM_KEEP_ALL, 0, 0);
	assert_int_equal(vc_sim_events(second), 0);
	f = make(second, "/d/f");
	assert_int_equal(vc_io_pwrite(f, "two", 3, 0), 0);
	assert_int_equal(vc_sim_events(second), 1);
	assert_int_equal(vc_sim_uncertain(second, 1), 1);
	vc_io_close(f);
	/* What the first crash left has stood the second, changes since are again uncertain. */
	third = crash(second, VC_SIM_KEEP_NONE, 0, 0);
	assert_true(holds_text(third, "/d/f", "one"));
	vc_sim_free(third);
	third = crash(second, VC_SIM_KEEP_ALL, 0, 0);
	assert_true(holds_text(third, "/d/f", "two"));
	vc_sim_free(third);
	vc_sim_free(second);
}

/* ---- the real directory ---- */

/* A real file, written as LMDB does: the test's own calls are recorded like those of the library. */
static int open_real(struct vc_sim *sim, const char *path, int flags)
{
	char buf[PATH_MAX];
	int fd = open(vc_io_real_path(vc_sim_io(sim), path, buf, sizeof(buf)), flags | O_CREAT | O_RDWR, 0600);

	assert_true(fd >= 0);
	return fd;
}

static void write_real(int fd, int letter, size_t len, uint64_t offset)
{
	char *buf = malloc(len);

	assert_non_null(buf);
	memset(buf, letter, len);
	assert_int_equal(pwrite(fd, buf, len, (off_t)offset), len);
	free(buf);
}

/* What the crash leaves of data.mdb: its first byte, the one at `second`, and its size; -1: no such file. */
static void check_real(struct vc_sim *sim, size_t at, enum vc_sim_keep keep, long size, int letter, size_t second, int other)
{
	struct vc_sim *after = vc_sim_crash(sim, at, &(struct vc_sim_policy){ keep, 0, 0 });
	char path[PATH_MAX];
	FILE *f;

	vc_io_real_path(vc_sim_io(after), "/pool/meta", path, sizeof(path));
	assert_int_equal(access(path, F_OK), 0);
	strcat(path, "/data.mdb");
	f = fopen(path, "r");
	assert_int_equal(f != NULL, size >= 0);
	if (f) {
		assert_int_equal(fseek(f, 0, SEEK_END), 0);
		assert_int_equal(ftell(f), size);
		rewind(f);
		assert_int_equal(fgetc(f), letter);
		assert_int_equal(fseek(f, (long)second, SEEK_SET), 0);
		assert_int_equal(fgetc(f), other);
		fclose(f);
	}
	vc_sim_free(after);
}

static void make_meta(struct vc_io *io)
{
	assert_int_equal(vc_io_mkdir(io, "/pool"), 0);
	assert_int_equal(vc_io_mkdir(io, "/pool/meta"), 0);
	assert_int_equal(vc_io_sync_dir(io, "/"), 0);
	assert_int_equal(vc_io_sync_dir(io, "/pool"), 0);
}

/* A name made behind the table needs a sync of its directory, bytes one of the file, page by page. */
static void test_meta(void **state)
{
	struct vc_sim *sim = *state;
	struct vc_io *io = vc_sim_io(sim);
	struct vc_file *f;
	char byte;
	int fd;

	make_meta(io);
	fd = open_real(sim, "/pool/meta/data.mdb", 0);
	write_real(fd, 'a', 8192, 0);
	check_real(sim, vc_sim_events(sim), VC_SIM_KEEP_ALL, 8192, 'a', 8191, 'a');
	check_real(sim, vc_sim_events(sim), VC_SIM_KEEP_NONE, -1, 0, 0, 0);
	assert_int_equal(vc_io_sync_dir(io, "/pool/meta"), 0);
	check_real(sim, vc_sim_events(sim), VC_SIM_KEEP_NONE, 0, EOF, 0, EOF);
	assert_int_equal(fdatasync(fd), 0);
	vc_io_meta_committed(io, "/pool/meta");
	check_real(sim, vc_sim_events(sim), VC_SIM_KEEP_NONE, 8192, 'a', 8191, 'a');
	assert_int_equal(vc_sim_uncertain(sim, vc_sim_events(sim)), 0);
	write_real(fd, 'b', 8192, 0);
	assert_int_equal(vc_sim_uncertain(sim, vc_sim_events(sim)), 2);
	check_real(sim, vc_sim_events(sim) - 1, VC_SIM_KEEP_ALL, 8192, 'b', 8191, 'a');
	check_real(sim, vc_sim_events(sim), VC_SIM_KEEP_NONE, 8192, 'a', 8191, 'a');
	assert_int_equal(ftruncate(fd, 4096), 0);
	check_real(sim, vc_sim_events(sim), VC_SIM_KEEP_ALL, 4096, 'b', 4095, 'b');
	close(fd);

	/* Through the table it is the real file as it is. */
	assert_int_equal(vc_io_open(io, "/pool/meta/data.mdb", VC_IO_READ, &f), 0);
	assert_int_equal(vc_io_pread(f, &byte, 1, 0), 1);
	assert_int_equal(vc_io_pread(f, &byte, 1, 4096), 0);
	vc_io_close(f);
}

/* As LMDB writes its meta page: durable when the call returns, and nothing else with it. */
static void test_dsync(void **state)
{
	struct vc_sim *sim = *state;
	struct vc_io *io = vc_sim_io(sim);
	struct iovec iov[2] = { { (void *)(uintptr_t)"xx", 2 }, { (void *)(uintptr_t)"yy", 2 } };
	int fd, durable;

	make_meta(io);
	fd = open_real(sim, "/pool/meta/data.mdb", 0);
	write_real(fd, 'a', 8192, 0);
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(vc_io_sync_dir(io, "/pool/meta"), 0);
	durable = open_real(sim, "/pool/meta/data.mdb", O_DSYNC);
	write_real(fd, 'b', 100, 4096);
	write_real(durable, 'c', 100, 0);
	check_real(sim, vc_sim_events(sim), VC_SIM_KEEP_NONE, 8192, 'c', 4096, 'a');
	check_real(sim, vc_sim_events(sim) - 1, VC_SIM_KEEP_NONE, 8192, 'a', 4096, 'a');
	check_real(sim, vc_sim_events(sim), VC_SIM_KEEP_ALL, 8192, 'c', 4096, 'b');
	assert_int_equal(lseek(fd, 5000, SEEK_SET), 5000);
	assert_int_equal(writev(fd, iov, 2), 4);
	assert_int_equal(write(fd, "z", 1), 1);
	check_real(sim, vc_sim_events(sim), VC_SIM_KEEP_ALL, 8192, 'c', 5002, 'y');
	check_real(sim, vc_sim_events(sim), VC_SIM_KEEP_ALL, 8192, 'c', 5004, 'z');
	close(fd);
	close(durable);
}

/* Equal states have equal hashes, others not. */
static void test_hash(void **state)
{
	struct vc_sim *sim = *state, *a, *b;
	struct vc_file *f = make(sim, "/f");
	uint8_t byte = 1;
	uint64_t before = vc_sim_hash(sim);

	assert_int_equal(vc_io_pwrite(f, &byte, 1, 9000), 0);
	a = crash(sim, VC_SIM_KEEP_ALL, 0, 0);
	b = crash(sim, VC_SIM_KEEP_DATA, 0, 0);
	assert_true(vc_sim_hash(a) == vc_sim_hash(sim));
	assert_true(vc_sim_hash(a) != before);
	assert_true(vc_sim_hash(b) == vc_sim_hash(a) || !exists(b, "/f"));
	assert_int_equal(vc_sim_corrupt(a, "/f", 100, 4), 0);
	assert_true(vc_sim_hash(a) != vc_sim_hash(sim));
	assert_int_equal(vc_sim_corrupt(a, "/f", 100, 4), 0);
	assert_true(vc_sim_hash(a) == vc_sim_hash(sim));
	assert_int_equal(vc_io_truncate(f, 9002), 0);
	assert_true(vc_sim_hash(a) != vc_sim_hash(sim));
	vc_io_close(f);
	vc_sim_free(a);
	vc_sim_free(b);
}

/* A backup that LMDB wrote beside the other files becomes one of them. */
static void test_backup(void **state)
{
	struct vc_sim *sim = *state, *after;
	struct vc_io *io = vc_sim_io(sim);
	struct vc_file *f;
	char byte = 0;
	int fd;

	assert_int_equal(vc_io_mkdir(io, "/pool"), 0);
	assert_int_equal(vc_io_sync_dir(io, "/"), 0);
	fd = open_real(sim, "/pool/backup.tmp", 0);
	write_real(fd, 'a', 9000, 0);
	assert_int_equal(fsync(fd), 0);
	close(fd);
	assert_int_equal(vc_io_rename(io, "/pool/backup.tmp", "/pool/backup"), 0);
	assert_false(survives(sim, VC_SIM_KEEP_NONE, "/pool/backup"));
	assert_int_equal(vc_io_sync_dir(io, "/pool"), 0);
	after = crash(sim, VC_SIM_KEEP_NONE, 0, 0);
	assert_false(exists(after, "/pool/backup.tmp"));
	assert_int_equal(vc_io_open(vc_sim_io(after), "/pool/backup", VC_IO_READ, &f), 0);
	assert_int_equal(vc_io_pread(f, &byte, 1, 8999), 1);
	assert_int_equal(byte, 'a');
	vc_io_close(f);
	assert_int_equal(vc_io_unlink(vc_sim_io(after), "/pool/backup"), 0);
	assert_false(exists(after, "/pool/backup"));
	vc_sim_free(after);
}

/* ---- faults ---- */

static void test_faults(void **state)
{
	struct vc_sim *sim = *state;
	struct vc_file *f = make(sim, "/f"), *g = make(sim, "/other");
	uint8_t buf[2048], got[2048];
	uint64_t size;

	memset(buf, 3, sizeof(buf));
	vc_sim_fail(sim, &(struct vc_sim_fault){ .ops = VC_SIM_WRITE, .path = "f", .nth = 2, .error = ENOSPC });
	assert_int_equal(vc_io_pwrite(f, buf, 1, 0), 0);
	assert_int_equal(vc_io_pwrite(g, buf, 1, 0), 0);
	assert_int_equal(vc_unit_messages(), 0);
	assert_int_equal(vc_io_pwrite(f, buf, 100, 0), -ENOSPC);
	assert_int_equal(vc_unit_messages(), 1);
	assert_int_equal(vc_io_size(f, &size), 0);
	assert_int_equal(size, 1); /* it did nothing */
	assert_int_equal(vc_io_pwrite(f, buf, 1, 0), 0);
	assert_int_equal(vc_sim_faults(sim), 1);
	assert_int_equal(vc_sim_calls(sim, VC_SIM_WRITE), 4);

	vc_sim_fail(sim, &(struct vc_sim_fault){ .ops = VC_SIM_SYNC | VC_SIM_READ, .nth = 1, .error = EIO, .sticky = true });
	assert_int_equal(vc_io_datasync(f), -EIO);
	assert_int_equal(vc_io_pread(f, got, 1, 0), -EIO);
	assert_int_equal(vc_io_datasync(g), -EIO);
	assert_int_equal(vc_sim_faults(sim), 3);
	vc_sim_fail(sim, NULL);
	assert_int_equal(vc_io_datasync(f), 0);

	vc_sim_fail(sim, &(struct vc_sim_fault){ .ops = VC_SIM_WRITE, .nth = 1, .error = EIO, .partial = true });
	assert_int_equal(vc_io_pwrite(f, buf, 2048, 0), -EIO);
	assert_int_equal(contents(sim, "/f", got, sizeof(got)), 1024);
	assert_memory_equal(got, buf, 1024);
	vc_io_close(f);
	vc_io_close(g);
}

static void test_capacity(void **state)
{
	struct vc_sim *sim = *state;
	struct vc_file *f = make(sim, "/f"), *g = make(sim, "/g");
	struct vc_io_space space;
	char byte = 1;

	vc_sim_set_capacity(sim, 10000);
	assert_int_equal(vc_io_pwrite(f, &byte, 1, 5999), 0);
	assert_int_equal(vc_io_allocate(g, 0, 5000), -ENOSPC);
	assert_int_equal(vc_io_allocate(g, 0, 4000), 0);
	assert_int_equal(vc_io_pwrite(f, &byte, 1, 6000), -ENOSPC);
	assert_int_equal(vc_io_pwrite(f, &byte, 1, 100), 0);
	assert_int_equal(vc_io_pwrite(g, &byte, 1, 3999), 0); /* was reserved */
	assert_int_equal(vc_io_space(vc_sim_io(sim), "/", &space), 0);
	assert_int_equal(space.free, 0);
	assert_int_equal(vc_io_unlink(vc_sim_io(sim), "/g"), 0);
	assert_int_equal(vc_io_pwrite(f, &byte, 1, 6000), -ENOSPC); /* still open */
	vc_io_close(g);
	assert_int_equal(vc_io_pwrite(f, &byte, 1, 6000), 0);
	vc_io_close(f);
}

static void test_corrupt_and_describe(void **state)
{
	struct vc_sim *sim = *state;
	struct vc_file *f;
	char line[100];
	uint8_t got[3];

	write_text(sim, "//f/", "abc");
	assert_int_equal(vc_sim_corrupt(sim, "/f", 1, 0x01), 0);
	assert_int_equal(contents(sim, "/f", got, 3), 3);
	assert_memory_equal(got, "acc", 3);
	assert_int_equal(vc_sim_corrupt(sim, "/f", 3, 1), -ERANGE);
	assert_int_equal(vc_sim_corrupt(sim, "/g", 0, 1), -ENOENT);
	assert_string_equal(vc_sim_describe(sim, 1, line, sizeof(line)), "write /f 0+3 extends");
	vc_sim_fail(sim, &(struct vc_sim_fault){ .ops = VC_SIM_SYNC, .nth = 1, .error = EIO });
	f = make(sim, "/f");
	assert_int_equal(vc_io_datasync(f), -EIO);
	vc_io_close(f);
	assert_string_equal(vc_sim_describe(sim, 3, line, sizeof(line)), "sync /f FAILED");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_every_crash_state_is_legal),
		TEST(test_settled_is_the_same),
		TEST(test_random_reaches_all),
		TEST(test_size_and_data_apart),
		TEST(test_torn_write),
		TEST(test_torn_in_two),
		TEST(test_drop_each),
		TEST(test_failed_sync_is_for_ever),
		TEST(test_create),
		TEST(test_rename),
		TEST(test_rename_across),
		TEST(test_crash_twice),
		TEST(test_meta),
		TEST(test_dsync),
		TEST(test_hash),
		TEST(test_backup),
		TEST(test_faults),
		TEST(test_capacity),
		TEST(test_corrupt_and_describe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
