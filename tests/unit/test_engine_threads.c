/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many threads on one pool: writers of images of their own, writers of one shared image which others clone meanwhile, a
 * copier, neighbours within blocks, and a thread that destages and cleans all the time. Every clone must be a prefix of each writer's writes.
 *
 * VC_TEST_SECONDS: how long; VC_TEST_SEED.
 */
#include "config.h"
#include "unit.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "checksum.h"
#include "engine.h"
#include "lock.h"
#include "model.h"

#define SECONDS_DEFAULT 4
#define NOWNERS 2
#define NWRITERS 2
#define NCLONERS 2
#define NNEIGHBOURS 2
#define PIECE 100u        /* bytes; neighbours write every other one of the same blocks */
#define PIECES 600u
#define BLOCK 4096u
#define REGION 64u        /* blocks of each writer in the shared image */
#define WIDE 16u          /* a write of so many blocks goes straight to chunk files */
#define OWN_SIZE (UINT64_C(2) << 20)
#define KEPT 4            /* clones of each cloner that live on */

struct bench {
	struct vc_pool *pool;
	struct vc_inode *root, *shared, *edges;
	struct vc_pool_geometry geometry;
	atomic_ulong started[NWRITERS], returned[NWRITERS]; /* number of the last write */
	atomic_bool stop;
	atomic_ulong nclones, nwrites, ncleans;
};

struct worker {
	struct bench *b;
	pthread_t thread;
	unsigned id;
	uint64_t rng;
	struct model_data data;             /* owners */
	char names[KEPT][MODEL_TEXT];       /* cloners: "" or a clone */
	uint64_t sums[KEPT];
};

/* ---- images of one thread ---- */

static void *owner_thread(void *arg)
{
	struct worker *w = arg;
	uint8_t *buf = malloc(256 << 10), *seen = malloc(256 << 10);
	struct vc_inode *inode;
	char name[MODEL_TEXT];

	snprintf(name, sizeof(name), "own%u", w->id);
	assert(buf && seen && engine_create(w->b->root, name, S_IFREG | 0600, NULL, &inode) == 0);
	while (!atomic_load(&w->b->stop)) {
		size_t len = vc_unit_below(&w->rng, 8) == 0 ? 128 << 10 : 1 + vc_unit_below(&w->rng, 30000);
		uint64_t offset = vc_unit_below(&w->rng, OWN_SIZE - len);
		uint64_t from = vc_unit_below(&w->rng, OWN_SIZE - (64 << 10));
		ssize_t n;

		if (len == 128 << 10)
			offset &= ~(uint64_t)(BLOCK - 1);
		memset(buf, (int)vc_unit_random(&w->rng), len);
		assert(engine_write(inode, buf, len, offset, 0) == 0);
		model_write(&w->data, buf, len, offset);
		if (vc_unit_below(&w->rng, 16) == 0)
			assert(engine_flush(inode) == 0);
		n = vc_volume_read(inode, buf, 64 << 10, from);
		assert(n >= 0);
		model_read(&w->data, seen, (size_t)n, from);
		assert(memcmp(buf, seen, (size_t)n) == 0);
	}
	vc_inode_put(inode);
	free(buf);
	free(seen);
	return NULL;
}

/* Writes of parts of blocks must not undo one another: each reads a block and writes it back whole. */
static void *neighbour_thread(void *arg)
{
	struct worker *w = arg;
	uint8_t last[PIECES] = { 0 }, buf[PIECE], expected[PIECE];

	while (!atomic_load(&w->b->stop)) {
		uint64_t n = vc_unit_below(&w->rng, PIECES), look = vc_unit_below(&w->rng, PIECES);

		last[n] = (uint8_t)vc_unit_random(&w->rng);
		memset(buf, last[n], PIECE);
		assert(engine_write(w->b->edges, buf, PIECE, (n * NNEIGHBOURS + w->id) * PIECE, 0) == 0);
		memset(expected, last[look], PIECE);
		assert(vc_volume_read(w->b->edges, buf, PIECE, (look * NNEIGHBOURS + w->id) * PIECE) == PIECE);
		assert(memcmp(buf, expected, PIECE) == 0);
	}
	return NULL;
}

/* ---- the shared image ---- */

/* Write `n` of a writer covers these blocks of its region, each filled with n. */
static void write_extent(uint64_t n, uint64_t *ret_block, uint64_t *ret_count)
{
	*ret_count = n % 40 == 0 ? WIDE : 1 + n % 3;
	*ret_block = n * 7 % (REGION - *ret_count + 1);
}

static void fill_block(uint64_t *block, uint64_t n, unsigned writer)
{
	for (unsigned i = 0; i < BLOCK / 8; i++)
		block[i] = n << 8 | writer;
}

static void *writer_thread(void *arg)
{
	struct worker *w = arg;
	uint64_t *buf = malloc(WIDE * BLOCK), block, count;

	assert(buf);
	for (uint64_t n = 1; !atomic_load(&w->b->stop); n++) {
		write_extent(n, &block, &count);
		for (uint64_t i = 0; i < count; i++)
			fill_block(buf + i * BLOCK / 8, n, w->id);
		atomic_store(&w->b->started[w->id], n);
		assert(engine_write(w->b->shared, buf, count * BLOCK, (w->id * REGION + block) * BLOCK, n % 64 == 0 ? VC_WRITE_DSYNC : 0) == 0);
		atomic_store(&w->b->returned[w->id], n);
		atomic_fetch_add(&w->b->nwrites, 1);
	}
	free(buf);
	return NULL;
}

/* The writer's region as it is after write `last`: the last number in each block. */
static void region_after(uint64_t last, uint64_t *ret_numbers)
{
	memset(ret_numbers, 0, REGION * sizeof(*ret_numbers));
	for (uint64_t n = last > 2000 ? last - 2000 : 1; n <= last; n++) {
		uint64_t block, count;

		write_extent(n, &block, &count);
		for (uint64_t i = 0; i < count; i++)
			ret_numbers[block + i] = n;
	}
}

static void check_region(const uint64_t *region, unsigned writer, uint64_t least, uint64_t most)
{
	uint64_t numbers[REGION], expected[REGION], last = 0;

	for (unsigned i = 0; i < REGION; i++) {
		const uint64_t *block = region + i * BLOCK / 8;

		for (unsigned k = 1; k < BLOCK / 8; k++)
			assert(block[k] == block[0]);
		assert(block[0] == 0 || (block[0] & 0xff) == writer);
		numbers[i] = block[0] >> 8;
		last = VC_MAX(last, numbers[i]);
	}
	region_after(last, expected);
	if (memcmp(numbers, expected, sizeof(numbers)) != 0 || last < least || last > most) {
		fprintf(stderr, "writer %u: last write %llu, should be %llu to %llu\n", writer, (unsigned long long)last,
			(unsigned long long)least, (unsigned long long)most);
		for (unsigned i = 0; i < REGION; i++)
			if (numbers[i] != expected[i])
				fprintf(stderr, "  block %u: %llu instead of %llu\n", i, (unsigned long long)numbers[i],
					(unsigned long long)expected[i]);
		abort();
	}
}

static uint64_t image_sum(struct vc_inode *inode, uint64_t *buf)
{
	ssize_t n = vc_volume_read(inode, buf, NWRITERS * REGION * BLOCK, 0);

	assert(n == NWRITERS * REGION * BLOCK);
	return vc_sum64(buf, (size_t)n, 0);
}

/* A clone made a while ago has not changed; then it goes. */
static void clone_retire(struct worker *w, unsigned slot, uint64_t *buf)
{
	struct vc_inode *inode = w->names[slot][0] ? engine_lookup(w->b->root, w->names[slot]) : NULL;

	if (!w->names[slot][0])
		return;
	assert(inode && image_sum(inode, buf) == w->sums[slot]);
	assert(engine_unlink(w->b->root, w->names[slot]) == 0);
	assert(image_sum(inode, buf) == w->sums[slot]);
	vc_inode_put(inode);
	w->names[slot][0] = '\0';
}

static struct vc_inode *clone_make(struct worker *w, uint64_t round, char *name)
{
	struct vc_inode *inode;
	uint64_t copied;

	snprintf(name, MODEL_TEXT, "c%u.%llu", w->id, (unsigned long long)round);
	if (round % 4) {
		assert(engine_clone(w->b->shared, w->b->root, name, &inode) == 0);
		return inode;
	}
	assert(engine_create(w->b->root, name, S_IFREG | 0600, NULL, &inode) == 0);
	assert(engine_copy_range(w->b->shared, 0, inode, 0, NWRITERS * REGION * BLOCK, round % 8 == 0, &copied) == 0);
	return inode;
}

static void *cloner_thread(void *arg)
{
	struct worker *w = arg;
	uint64_t *buf = malloc(NWRITERS * REGION * BLOCK), least[NWRITERS], most[NWRITERS];

	assert(buf);
	for (uint64_t round = 0; !atomic_load(&w->b->stop); round++) {
		unsigned slot = round % KEPT;
		struct vc_inode *clone;

		clone_retire(w, slot, buf);
		for (unsigned i = 0; i < NWRITERS; i++)
			least[i] = atomic_load(&w->b->returned[i]);
		clone = clone_make(w, round, w->names[slot]);
		for (unsigned i = 0; i < NWRITERS; i++)
			most[i] = atomic_load(&w->b->started[i]);
		w->sums[slot] = image_sum(clone, buf);
		for (unsigned i = 0; i < NWRITERS; i++)
			check_region(buf + i * REGION * BLOCK / 8, i, least[i], most[i]);
		if (round % 3 == 0) {
			memset(buf, 0x77, BLOCK);
			assert(engine_write(clone, buf, BLOCK, vc_unit_below(&w->rng, REGION) * BLOCK, 0) == 0);
			w->sums[slot] = image_sum(clone, buf);
		}
		vc_inode_put(clone);
		atomic_fetch_add(&w->b->nclones, 1);
	}
	free(buf);
	return NULL;
}

static void *keeper_thread(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&w->b->stop)) {
		assert(engine_task(w->b->pool, VC_TASK_DESTAGE) == 0);
		assert(engine_task(w->b->pool, VC_TASK_CLEAN) == 0);
		atomic_fetch_add(&w->b->ncleans, 1);
	}
	return NULL;
}

/* ---- all together ---- */

static struct vc_inode *image_open(struct vc_inode *dir, const char *name, uint64_t size)
{
	struct vc_inode *inode = engine_lookup(dir, name);

	if (!inode)
		assert_int_equal(engine_create(dir, name, S_IFREG | 0600, NULL, &inode), 0);
	assert_int_equal(engine_resize(inode, size), 0);
	return inode;
}

static void bench_open(struct bench *b, const char *dir)
{
	b->pool = engine_open(vc_io_posix(), dir, 5);
	b->root = engine_root(b->pool);
	b->shared = image_open(b->root, "shared", NWRITERS * REGION * BLOCK);
	b->edges = image_open(b->root, "edges", PIECES * PIECE * NNEIGHBOURS);
}

static void bench_close(struct bench *b)
{
	vc_inode_put(b->shared);
	vc_inode_put(b->edges);
	vc_inode_put(b->root);
	engine_close(b->pool);
}

static void check_end(struct bench *b, struct worker *workers, size_t n)
{
	uint64_t *buf = malloc(NWRITERS * REGION * BLOCK);

	assert(buf);
	image_sum(b->shared, buf);
	for (unsigned i = 0; i < NWRITERS; i++)
		check_region(buf + i * REGION * BLOCK / 8, i, b->returned[i], b->returned[i]);
	for (size_t i = 0; i < n; i++) {
		struct model_data found = { .size = 0 };
		char name[MODEL_TEXT];
		struct vc_inode *own;

		for (unsigned k = 0; k < KEPT; k++)
			clone_retire(&workers[i], k, buf);
		snprintf(name, sizeof(name), "own%u", workers[i].id);
		if (workers[i].data.size == 0)
			continue;
		own = engine_lookup(b->root, name);
		assert_non_null(own);
		assert_int_equal(model_load_data(own, &found), 0);
		assert_true(model_difference(&workers[i].data, &found) == UINT64_MAX);
		vc_inode_put(own);
		model_free(&found);
		model_free(&workers[i].data);
	}
	free(buf);
}

static void test_threads(void **state VC_UNUSED)
{
	static void *(*const jobs[])(void *) = { owner_thread, writer_thread, cloner_thread, neighbour_thread,
						keeper_thread };
	static const unsigned counts[] = { NOWNERS, NWRITERS, NCLONERS, NNEIGHBOURS, 1 };
	const char *given = getenv("VC_TEST_SECONDS");
	struct timespec duration = { .tv_sec = given ? atoi(given) : SECONDS_DEFAULT };
	struct worker workers[NOWNERS + NWRITERS + NCLONERS + NNEIGHBOURS + 1] = { 0 };
	uint64_t seed = vc_unit_seed();
	struct bench b = { .nclones = 0 };
	char *dir = vc_unit_tmpdir(), *pool;
	size_t n = 0;

	assert_non_null(dir);
	assert_true(asprintf(&pool, "%s/pool", dir) > 0);
	engine_geometry(&seed, &b.geometry);
	b.geometry.log_segment_size = 512 << 10; /* so that every write is one record */
	assert_int_equal(vc_pool_create(vc_io_posix(), pool, &b.geometry), 0);
	bench_open(&b, pool);
	for (unsigned kind = 0; kind < VC_ARRAY_LEN(jobs); kind++)
		for (unsigned i = 0; i < counts[kind]; i++, n++) {
			workers[n] = (struct worker){ .b = &b, .id = i, .rng = vc_unit_random(&seed) };
			assert_int_equal(vc_thread_start(&workers[n].thread, "worker", jobs[kind], &workers[n]), 0);
		}
	nanosleep(&duration, NULL); /* how long the load lasts; nothing depends on it */
	atomic_store(&b.stop, true);
	for (size_t i = 0; i < n; i++)
		pthread_join(workers[i].thread, NULL);
	printf("%lu clones, %lu writes, %lu cleans\n", b.nclones, b.nwrites, b.ncleans);
	bench_close(&b);
	bench_open(&b, pool);
	check_end(&b, workers, n);
	bench_close(&b);
	free(pool);
	vc_unit_rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
