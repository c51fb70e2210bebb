/* SPDX-License-Identifier: BSD-2-Clause */
/* Chunks that are asked of the device and not waited for: what comes of it, what others see meanwhile, and that it ends. */
#include "config.h"
#include "unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>
#include "chunk_fixture.h"
#include "done.h"
#include "io_ring.h"

#define CHUNKS 40

/* What becomes of a read that is started. */
enum start { START_RIGHT, START_REFUSED, START_ERROR, START_SHORT, START_EMPTY, START_BAD_HEAD, START_BAD_PAYLOAD, START_STALE, START_END,
	     START_HELD, START_REAL };

static struct {
	struct chunk_fixture fix;
	struct vc_io_ops ops;
	struct vc_io io;
	enum start mode;
	atomic_uint started, past, usual; /* calls; past: of those started */
	uint32_t wrong_at;             /* offset in the file where a byte is flipped, or where it ends */
	struct vc_io_read *held;       /* of START_HELD */
	struct vc_file *held_file;
	uint64_t entries[CHUNKS];
} t;

static ssize_t count_preadv(struct vc_file *file, const struct iovec *iov, int n, uint64_t offset)
{
	atomic_fetch_add(&t.usual, 1);
	return vc_io_posix()->ops->preadv(file, iov, n, offset);
}

static ssize_t no_past(struct vc_file *file VC_UNUSED, void *buf VC_UNUSED, size_t len VC_UNUSED, uint64_t offset VC_UNUSED)
{
	return -EAGAIN;
}

static ssize_t bring(struct vc_file *file, struct vc_io_read *read)
{
	struct iovec iov = { read->buf, read->len };
	ssize_t n = vc_io_posix()->ops->preadv(file, &iov, 1, read->offset);

	if (t.mode == START_ERROR)
		return -EAGAIN;
	if (t.mode == START_EMPTY)
		return 0;
	if (t.mode == START_SHORT)
		return (ssize_t)(t.wrong_at - read->offset);
	if (t.mode == START_BAD_HEAD || t.mode == START_BAD_PAYLOAD)
		((uint8_t *)read->buf)[t.wrong_at - read->offset] ^= 1;
	if (t.mode == START_STALE)
		memset(read->buf, 0, read->len);
	return n;
}

static int fake_start(struct vc_file *file, struct vc_io_ring *ring, struct vc_io_read *read)
{
	atomic_fetch_add(&t.started, 1);
	atomic_fetch_add(&t.past, read->past);
	assert_int_equal((uintptr_t)read->buf % VC_IO_PAST_ALIGN, 0);
	if (read->past) {
		assert_int_equal(read->len % VC_IO_PAST_ALIGN, 0);
		assert_int_equal(read->offset % VC_IO_PAST_ALIGN, 0);
	}
	switch (t.mode) {
	case START_REFUSED:
		return -EAGAIN;
	case START_REAL:
		return vc_io_posix()->ops->start_read(file, ring, read);
	case START_HELD:
		t.held = read;
		t.held_file = file;
		return 0;
	default:
		read->done(read, bring(file, read));
		return 0;
	}
}

static void let_go(void) { t.held->done(t.held, bring(t.held_file, t.held)); }

/* ---- one read ---- */

struct late {
	struct vc_chunk_later later;
	struct vc_wait wait;
	int error;
	struct vc_cache_ref ref;
};

static void late_done(struct vc_chunk_later *later, int error, struct vc_cache_ref *ref)
{
	struct late *late = vc_container_of(later, struct late, later);

	late->error = error;
	if (error == 0)
		late->ref = *ref;
	vc_done_call(&late->wait.done, 0);
}

static int begin(struct late *late, const struct vc_chunk_want *want)
{
	*late = (struct late){ .later.done = late_done };
	vc_wait_init(&late->wait);
	return vc_chunk_read_later(t.fix.store, want, &late->later);
}

/* 0: the bytes are in buf. -EAGAIN. */
static int end(struct late *late, const struct vc_chunk_want *want, int begun)
{
	int r = vc_wait_result(&late->wait, begun == -EINPROGRESS ? 0 : -ECANCELED);

	if (begun != -EINPROGRESS)
		return begun;
	assert_int_equal(r, 0);
	if (late->error < 0)
		return late->error;
	assert_true(late->ref.len >= (vc_entry_block(want->entry) + want->nblocks) * FIX_BLOCK);
	memcpy(want->buf, (const uint8_t *)late->ref.data + vc_entry_block(want->entry) * FIX_BLOCK, want->nblocks * FIX_BLOCK);
	vc_chunk_put(t.fix.store, &late->ref);
	return 0;
}

/* Chunk i, from its block `first` on, through a read that is not waited for; what that came to is returned. */
static int read_late(size_t i, uint32_t first, uint8_t *buf, bool *ret_late)
{
	struct vc_chunk_want want = { .entry = t.entries[i] + first, .nblocks = fix_blocks_of(i) - first, .buf = buf };
	struct late late;
	int r;

	if (t.mode < START_END)
		t.wrong_at = vc_entry_offset(t.entries[i]) + (t.mode == START_BAD_HEAD ? 8 : 100);
	r = begin(&late, &want);
	*ret_late = r == -EINPROGRESS;
	return end(&late, &want, r);
}

static void is_right(size_t i, uint32_t first, const uint8_t *got)
{
	uint8_t want[FIX_BLOCKS * FIX_BLOCK];

	fix_fill(want, fix_blocks_of(i), i + 1, fix_soft_of(i));
	assert_memory_equal(got, want + first * FIX_BLOCK, (fix_blocks_of(i) - first) * FIX_BLOCK);
}

static int setup_with(uint64_t cache_bytes)
{
	t.ops = *vc_io_posix()->ops;
	t.ops.preadv = count_preadv;
	t.ops.pread_past = no_past;
	t.ops.start_read = fake_start;
	t.io.ops = &t.ops;
	t.mode = START_RIGHT;
	fix_open(&t.fix);
	fix_append_many(&t.fix, t.entries, CHUNKS);
	t.fix.params.cache_bytes = cache_bytes;
	t.fix.params.io = &t.io;
	fix_reopen(&t.fix);
	t.started = t.past = t.usual = 0;
	return 0;
}

static int setup_small(void **state VC_UNUSED) { return setup_with(0); }
static int setup_large(void **state VC_UNUSED) { return setup_with(64 << 20); }

static int teardown(void **state VC_UNUSED)
{
	t.fix.params.io = &t.fix.fault.io;
	fix_close(&t.fix);
	return 0;
}

/* ---- the tests ---- */

/* The first miss is read past the page cache, the next one through it; what is cached is there. */
static void test_once(void **state VC_UNUSED)
{
	uint8_t buf[FIX_BLOCKS * FIX_BLOCK];
	bool late;

	for (unsigned int round = 0; round < 2; round++) {
		for (size_t i = 0; i < CHUNKS; i++) {
			uint32_t first = (uint32_t)i / 2 % fix_blocks_of(i);

			assert_int_equal(read_late(i, first, buf, &late), 0);
			is_right(i, first, buf);
			assert_int_equal(late, round == 0 || t.fix.params.cache_bytes == 0);
		}
		assert_int_equal(t.past, CHUNKS);
		assert_int_equal(t.started, t.fix.params.cache_bytes ? CHUNKS : (round + 1) * CHUNKS);
		assert_int_equal(t.usual, 0);
	}
}

/* Whatever goes wrong, it ends, nobody is told of damage that there is not, and the usual way finds the chunk. */
static void test_gives_up(void **state VC_UNUSED)
{
	uint8_t buf[FIX_BLOCKS * FIX_BLOCK];
	size_t i = 0;
	bool late;
	int r;

	for (t.mode = START_REFUSED; t.mode < START_END; t.mode++) {
		for (int n = 0; n < 5; n++, i++) {
			vc_unit_catch_messages(true);
			r = read_late(i, 0, buf, &late);
			assert_int_equal(late, t.mode != START_REFUSED);
			assert_int_equal(r, late ? -EAGAIN : 0);
			assert_int_equal(vc_unit_messages(), 0);
			vc_unit_catch_messages(false);
			fix_expect(&t.fix, t.entries[i], 0, fix_blocks_of(i), fix_blocks_of(i), i + 1, fix_soft_of(i));
		}
	}
	assert_true(i <= CHUNKS);
}

/* What is damaged on the disk is not handed out, and told of by the usual way, once. */
static void test_damage(void **state VC_UNUSED)
{
	uint8_t buf[FIX_BLOCKS * FIX_BLOCK], byte;
	int fd = open(fix_path(&t.fix, vc_entry_segno(t.entries[5])), O_RDWR);
	struct vc_chunk_want want = { .entry = t.entries[9], .nblocks = fix_blocks_of(9) + 1, .buf = buf };
	struct late late;
	bool is_late;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, vc_entry_offset(t.entries[5]) + 200), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, vc_entry_offset(t.entries[5]) + 200), 1);
	close(fd);
	vc_unit_catch_messages(true);
	assert_int_equal(read_late(5, 0, buf, &is_late), -EAGAIN);
	assert_true(is_late);
	assert_int_equal(vc_unit_messages(), 0);
	assert_int_equal(vc_chunk_read(t.fix.store, t.entries[5], fix_blocks_of(5), buf), -EBADMSG);
	assert_int_equal(vc_unit_messages(), 1);
	/* A map that wants more blocks than the chunk has. */
	assert_int_equal(end(&late, &want, begin(&late, &want)), -EAGAIN);
	assert_int_equal(vc_unit_messages(), 1);
	assert_int_equal(vc_chunk_read_want(t.fix.store, &want), -EBADMSG);
	assert_int_equal(vc_unit_messages(), 2);
	want.entry = 0;
	assert_int_equal(end(&late, &want, begin(&late, &want)), -EBADMSG);
	vc_unit_catch_messages(false);
}

struct other {
	pthread_t thread;
	int r;
	uint8_t buf[FIX_BLOCKS * FIX_BLOCK];
};

static void *other_main(void *arg)
{
	struct other *o = arg;

	o->r = vc_chunk_read(t.fix.store, t.entries[7], fix_blocks_of(7), o->buf);
	return NULL;
}

/* Others wait for a read under way, and make one of their own when it is given up. */
static void others_wait(enum start becomes, unsigned int usual)
{
	uint8_t buf[FIX_BLOCKS * FIX_BLOCK];
	struct vc_chunk_want want = { .entry = t.entries[7], .nblocks = fix_blocks_of(7), .buf = buf };
	struct vc_chunk_stats before, now;
	struct other o[3];
	struct late late;
	int r;

	t.mode = START_HELD;
	vc_chunk_stats(t.fix.store, &before);
	r = begin(&late, &want);
	assert_int_equal(r, -EINPROGRESS);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&o[i].thread, NULL, other_main, &o[i]), 0);
	do { /* each counts when it has found the load of another */
		sched_yield();
		vc_chunk_stats(t.fix.store, &now);
	} while (now.cache.hits < before.cache.hits + 3);
	assert_int_equal(t.usual, 0);
	t.mode = becomes;
	t.wrong_at = vc_entry_offset(t.entries[7]) + 100;
	let_go();
	assert_int_equal(end(&late, &want, r), becomes == START_RIGHT ? 0 : -EAGAIN);
	for (int i = 0; i < 3; i++) {
		pthread_join(o[i].thread, NULL);
		assert_int_equal(o[i].r, 0);
		is_right(7, 0, o[i].buf);
	}
	assert_int_equal(t.started, 1);
	assert_int_equal(t.usual, usual);
}

static void test_others_wait(void **state VC_UNUSED) { others_wait(START_RIGHT, 0); }
static void test_others_go_on(void **state VC_UNUSED) { others_wait(START_BAD_PAYLOAD, 1); }

/* Through the ring of the kernel, from several threads, all over the store; and it is closed while reads are under way. */
#define READERS 4

static void *ring_main(void *arg)
{
	uint8_t buf[FIX_BLOCKS * FIX_BLOCK];
	unsigned int seed = (unsigned int)(uintptr_t)arg;

	for (int n = 0; n < 300; n++) {
		size_t i = (seed * 31 + (unsigned int)n * 7) % CHUNKS;
		bool late;
		int r = read_late(i, 0, buf, &late);

		assert(r == 0 || r == -EAGAIN);
		if (r == 0)
			is_right(i, 0, buf);
	}
	return NULL;
}

static void test_ring(void **state VC_UNUSED)
{
	pthread_t threads[READERS];
	struct late late[CHUNKS];
	int r[CHUNKS];

	t.mode = START_REAL;
	for (uintptr_t i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ring_main, (void *)(i + 1)), 0);
	for (int i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	fix_reopen(&t.fix);
	for (size_t i = 0; i < CHUNKS; i++) {
		uint8_t buf[FIX_BLOCKS * FIX_BLOCK];
		struct vc_chunk_want want = { .entry = t.entries[i], .nblocks = fix_blocks_of(i), .buf = buf };

		r[i] = begin(&late[i], &want);
		assert_true(r[i] == -EINPROGRESS || r[i] == 0);
	}
	vc_chunk_drain_reads(t.fix.store);
	for (size_t i = 0; i < CHUNKS; i++) {
		bool told = r[i] == 0 || late[i].wait.finished;

		assert_true(told);
		if (r[i] == -EINPROGRESS && late[i].error == 0)
			vc_chunk_put(t.fix.store, &late[i].ref);
		assert_int_equal(vc_wait_result(&late[i].wait, r[i] == 0 ? -ECANCELED : 0), r[i] == 0 ? -ECANCELED : 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_once, setup_small, teardown),
		cmocka_unit_test_setup_teardown(test_once, setup_large, teardown),
		cmocka_unit_test_setup_teardown(test_gives_up, setup_small, teardown),
		cmocka_unit_test_setup_teardown(test_damage, setup_small, teardown),
		cmocka_unit_test_setup_teardown(test_others_wait, setup_large, teardown),
		cmocka_unit_test_setup_teardown(test_others_go_on, setup_large, teardown),
		cmocka_unit_test_setup_teardown(test_ring, setup_large, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
