/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads through the ring: right bytes, every one told of once, how many there can be, and how it ends. */
#include "config.h"
#include "unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>
#include "io_ring.h"
#include "util.h"

#define PIECE 4096u
#define PIECES 64u
#define THREADS 4
#define READS 3000 /* of each thread */

static struct {
	struct vc_io_ring *ring;
	int fd;
	atomic_uint arrived, wrong;
} t;

struct one_read {
	struct vc_io_read io;
	ssize_t want; /* bytes, or -errno */
	unsigned int times;
	uint8_t bytes[PIECE];
};

static uint8_t byte_of(uint64_t at) { return (uint8_t)(at * 7 + at / PIECE); }

static void arrived(struct vc_io_read *io, ssize_t n)
{
	struct one_read *r = vc_container_of(io, struct one_read, io);
	bool right = n == r->want && ++r->times == 1;

	for (ssize_t i = 0; right && i < n; i++)
		right = r->bytes[i] == byte_of(io->offset + (uint64_t)i);
	if (!right)
		atomic_fetch_add(&t.wrong, 1);
	atomic_fetch_add(&t.arrived, 1);
}

static void read_is(struct one_read *r, int fd, uint64_t offset, ssize_t want)
{
	*r = (struct one_read){
		.io = { .buf = r->bytes, .len = PIECE, .offset = offset, .fd = fd, .arrived = arrived }, .want = want,
	};
}

static int setup(void **state VC_UNUSED)
{
	FILE *f = tmpfile();

	assert_non_null(f);
	t.fd = dup(fileno(f));
	assert_true(t.fd >= 0);
	for (uint64_t at = 0; at < PIECES * PIECE; at++)
		assert_int_equal(fputc(byte_of(at), f), byte_of(at));
	assert_int_equal(fclose(f), 0);
	t.ring = vc_io_ring_new();
	assert_non_null(t.ring);
	t.arrived = t.wrong = 0;
	return 0;
}

static int teardown(void **state VC_UNUSED)
{
	vc_io_ring_free(t.ring);
	close(t.fd);
	return 0;
}

static bool have_uring(void)
{
	struct one_read r;

	read_is(&r, t.fd, 0, PIECE);
	if (vc_io_ring_add(t.ring, &r.io) < 0) {
		assert_false(vc_io_ring_is_of_use(t.ring));
		return false;
	}
	vc_io_ring_drain(t.ring);
	assert_int_equal(t.arrived, 1);
	t.arrived = 0;
	return true;
}

static void *reader(void *arg)
{
	struct one_read *reads = arg;

	for (unsigned int i = 0; i < READS; i++) {
		read_is(&reads[i], t.fd, i % PIECES * PIECE, PIECE);
		while (vc_io_ring_add(t.ring, &reads[i].io) == -EAGAIN) {
			assert(vc_io_ring_is_of_use(t.ring));
			vc_io_ring_drain(t.ring);
		}
	}
	return NULL;
}

static void test_many(void **state VC_UNUSED)
{
	struct one_read *reads = calloc(THREADS * READS, sizeof(*reads));
	pthread_t threads[THREADS];

	assert_non_null(reads);
	if (!have_uring())
		skip();
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, reader, reads + i * READS), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	vc_io_ring_drain(t.ring);
	assert_int_equal(t.arrived, THREADS * READS);
	assert_int_equal(t.wrong, 0);
	free(reads);
}

static void test_ends_and_errors(void **state VC_UNUSED)
{
	struct one_read r[3];

	if (!have_uring())
		skip();
	read_is(&r[0], t.fd, (PIECES - 1) * PIECE + 100, PIECE - 100);
	read_is(&r[1], t.fd, PIECES * PIECE, 0);
	read_is(&r[2], -1, 0, -EBADF);
	for (int i = 0; i < 3; i++)
		assert_int_equal(vc_io_ring_add(t.ring, &r[i].io), 0);
	vc_io_ring_drain(t.ring);
	assert_int_equal(t.arrived, 3);
	assert_int_equal(t.wrong, 0);
}

/* Reads of an empty pipe stay under way: there is a limit, and drain waits. */
static void test_limit(void **state VC_UNUSED)
{
	struct one_read *reads = calloc(4096, sizeof(*reads));
	unsigned int n = 0;
	int fds[2];

	assert_non_null(reads);
	if (!have_uring())
		skip();
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	for (; n < 4096; n++) {
		read_is(&reads[n], fds[0], 0, 0);
		if (vc_io_ring_add(t.ring, &reads[n].io) < 0)
			break;
	}
	assert_in_range(n, 128, 8 * 128);
	assert_true(vc_io_ring_is_of_use(t.ring));
	assert_int_equal(t.arrived, 0);
	close(fds[1]); /* the end of the pipe: each reads 0 bytes */
	vc_io_ring_drain(t.ring);
	assert_int_equal(t.arrived, n);
	assert_int_equal(t.wrong, 0);
	close(fds[0]);
	free(reads);
}

/* What is under way when it ends is told all the same. */
static void test_free_waits(void **state VC_UNUSED)
{
	struct one_read r[100];

	if (!have_uring())
		skip();
	for (unsigned int i = 0; i < 100; i++) {
		read_is(&r[i], t.fd, i % PIECES * PIECE, PIECE);
		assert_int_equal(vc_io_ring_add(t.ring, &r[i].io), 0);
	}
	vc_io_ring_free(t.ring);
	t.ring = NULL;
	assert_int_equal(t.arrived, 100);
	assert_int_equal(t.wrong, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ends_and_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_free_waits, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
