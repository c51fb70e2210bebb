/* SPDX-License-Identifier: BSD-2-Clause */
/* Scrub: what is flipped on the disk under an open pool is listed, with every image that names it, and nothing else. */
#include "config.h"
#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "engine.h"
#include "format.h"
#include "scrub_impl.h"
#include "world.h"

#define BLOCK 4096u
#define IMAGE_BLOCKS 512u
#define WAIT_TRIES 3000
#define SLOW (1u << 20)
#define EVERY_SEGMENT 48u /* blocks: fewer than a chunk file holds */

struct place {
	char *dir, *pool_dir;
	struct vc_pool *pool;
	struct vc_inode *root;
	uint64_t rng;
};

static void place_open(struct place *p)
{
	p->pool = engine_open(vc_io_posix(), p->pool_dir, ENGINE_DESTAGE_NEVER);
	p->root = engine_root(p->pool);
}

static void place_close(struct place *p, bool sudden)
{
	vc_inode_put(p->root);
	engine_stop(p->pool, sudden);
	p->pool = NULL;
}

static int setup(void **state)
{
	struct vc_pool_geometry geometry = { .chunk_blocks = 4, .chunk_segment_size = 256 << 10, .log_segment_size = 1 << 20, .log_segments = 8 };
	struct place *p = calloc(1, sizeof(*p));

	*state = p;
	p->rng = vc_unit_seed();
	p->dir = vc_unit_tmpdir();
	assert_true(asprintf(&p->pool_dir, "%s/pool", p->dir) > 0);
	assert_int_equal(vc_pool_create(vc_io_posix(), p->pool_dir, &geometry), 0);
	place_open(p);
	vc_unit_catch_messages(!getenv("VC_TEST_MESSAGES"));
	return 0;
}

static int teardown(void **state)
{
	struct place *p = *state;

	if (p->pool)
		place_close(p, false);
	vc_unit_catch_messages(false);
	free(p->pool_dir);
	vc_unit_rmdir(p->dir);
	free(p);
	return 0;
}

/* Block i of an image holds what no other block holds, and does not compress. */
static void block_fill(uint8_t *buf, unsigned image, uint64_t i)
{
	uint64_t rng = image * UINT64_C(1000003) + i;

	for (size_t k = 0; k < BLOCK; k += 8) {
		uint64_t x = vc_unit_random(&rng);

		memcpy(buf + k, &x, 8);
	}
}

static struct vc_inode *image_make(struct place *p, const char *name, unsigned image, uint64_t nblocks, size_t step)
{
	uint8_t *buf = malloc(step * BLOCK);
	struct vc_inode *inode;

	assert_non_null(buf);
	assert_int_equal(engine_create(p->root, name, S_IFREG | 0600, NULL, &inode), 0);
	for (uint64_t i = 0; i < nblocks; i += step) {
		for (size_t k = 0; k < step; k++)
			block_fill(buf + k * BLOCK, image, i + k);
		assert_int_equal(engine_write(inode, buf, step * BLOCK, i * BLOCK, 0), 0);
	}
	free(buf);
	return inode;
}

/* Change the byte `delta` bytes behind the beginning of the only place in POOL/sub where this block lies. */
static void block_damage_at(struct place *p, const char *sub, unsigned image, uint64_t i, ptrdiff_t delta)
{
	uint8_t want[BLOCK];
	char path[600];
	struct dirent *de;
	unsigned places = 0;
	DIR *d;

	block_fill(want, image, i);
	snprintf(path, sizeof(path), "%s/%s", p->pool_dir, sub);
	d = opendir(path);
	assert_non_null(d);
	while ((de = readdir(d))) {
		uint8_t *bytes, *at;
		struct stat st;
		int fd;

		if (de->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s/%s", p->pool_dir, sub, de->d_name);
		fd = open(path, O_RDWR);
		assert_true(fd >= 0 && fstat(fd, &st) == 0);
		bytes = malloc((size_t)st.st_size + 1);
		assert_true(bytes && read(fd, bytes, (size_t)st.st_size) == st.st_size);
		at = memmem(bytes, (size_t)st.st_size, want, sizeof(want));
		if (at) {
			uint8_t flipped = at[delta] ^ 4;

			places++;
			assert_int_equal(pwrite(fd, &flipped, 1, at + delta - bytes), 1);
		}
		free(bytes);
		close(fd);
	}
	closedir(d);
	assert_int_equal(places, 1);
}

static void block_damage(struct place *p, const char *sub, unsigned image, uint64_t i) { block_damage_at(p, sub, image, i, 100); }

static void wait_a_moment(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
}

/* Until a pass has ended. */
static void scrub_wait(struct place *p, struct vc_scrub_status *ret)
{
	for (int i = 0; i < WAIT_TRIES; i++) {
		vc_scrub_status(p->pool, ret);
		if (!ret->running)
			return;
		wait_a_moment();
	}
	fail_msg("the scrub does not end");
}

static void scrub_all(struct place *p, struct vc_scrub_status *ret)
{
	assert_int_equal(vc_scrub_start(p->pool, 0, true), 0);
	scrub_wait(p, ret);
	assert_int_equal(ret->error, 0);
	assert_true(ret->finished_ns >= ret->started_ns && ret->started_ns);
}

static void expect_found(struct place *p, uint64_t i, uint64_t ino, enum vc_scrub_kind kind, uint64_t block, uint64_t nblocks)
{
	struct vc_scrub_found f;

	assert_int_equal(vc_scrub_list(p->pool, i, &f, 1), 1);
	assert_int_equal(f.kind, kind);
	assert_int_equal(f.ino, ino);
	assert_int_equal(f.offset, block * BLOCK);
	assert_int_equal(f.len, nblocks * BLOCK);
}

static void test_undamaged(void **state)
{
	struct place *p = *state;
	struct vc_pool_geometry geometry = { .log_segment_size = 1 << 20 };
	struct vc_scrub_status s;
	struct world w;

	world_init(&w, p->rng, &geometry);
	for (unsigned round = 0; round < 6; round++) {
		world_attach(&w, p->pool);
		for (unsigned i = 0; i < 60; i++)
			world_step(&w);
		if (round % 2)
			assert_int_equal(engine_task(p->pool, VC_TASK_DESTAGE), 0);
		assert_int_equal(vc_scrub_start(p->pool, 0, true), 0);
		for (unsigned i = 0; i < 20; i++) /* meanwhile */
			world_step(&w);
		scrub_wait(p, &s);
		assert_int_equal(s.error, 0);
		assert_int_equal(s.found, 0);
		assert_true(s.done > 0);
		world_detach(&w);
		place_close(p, round % 3 == 0);
		place_open(p);
	}
	world_fini(&w);
}

/* Chunks of 4 blocks: all four are lost, in every image that shares the chunk, and in no other. */
static void test_chunk(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = image_make(p, "a", 1, IMAGE_BLOCKS, 8), *b = image_make(p, "b", 2, IMAGE_BLOCKS, 8), *clone;
	struct vc_scrub_status s;
	uint8_t block[BLOCK];

	assert_int_equal(engine_clone(a, p->root, "c", &clone), 0);
	block_fill(block, 3, 0);
	assert_int_equal(engine_write(clone, block, BLOCK, 41 * BLOCK, 0), 0); /* one of the four is the clone's own */
	assert_int_equal(engine_task(p->pool, VC_TASK_DESTAGE), 0);
	scrub_all(p, &s);
	assert_int_equal(s.found, 0);
	block_damage(p, "chunk", 1, 42);
	block_damage(p, "chunk", 1, 200);
	scrub_all(p, &s);
	assert_int_equal(s.found, 5);
	expect_found(p, 0, vc_inode_ino(a), VC_SCRUB_CHUNK, 40, 4);
	expect_found(p, 1, vc_inode_ino(a), VC_SCRUB_CHUNK, 200, 4);
	expect_found(p, 2, vc_inode_ino(clone), VC_SCRUB_CHUNK, 40, 1);
	expect_found(p, 3, vc_inode_ino(clone), VC_SCRUB_CHUNK, 42, 2);
	expect_found(p, 4, vc_inode_ino(clone), VC_SCRUB_CHUNK, 200, 4);
	vc_inode_put(a);
	vc_inode_put(b);
	vc_inode_put(clone);
}

/* Of the header of a chunk only what its checksum alone covers. */
static void test_chunk_header(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = image_make(p, "a", 1, 64, 8);
	struct vc_scrub_status s;

	assert_int_equal(engine_task(p->pool, VC_TASK_DESTAGE), 0);
	block_damage_at(p, "chunk", 1, 40, (ptrdiff_t)offsetof(struct vc_disk_chunk, lsn) - (ptrdiff_t)sizeof(struct vc_disk_chunk));
	scrub_all(p, &s);
	assert_int_equal(s.found, 1);
	expect_found(p, 0, vc_inode_ino(a), VC_SCRUB_CHUNK, 40, 4);
	vc_inode_put(a);
}

/* Written straight to chunks, and named by the log only. */
static void test_direct_chunk(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = image_make(p, "a", 1, 64, 64);
	struct vc_scrub_status s;

	block_damage(p, "chunk", 1, 8);
	scrub_all(p, &s);
	assert_int_equal(s.found, 1);
	expect_found(p, 0, vc_inode_ino(a), VC_SCRUB_CHUNK, 8, 4);
	vc_inode_put(a);
}

static void test_log(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = image_make(p, "a", 1, 64, 4), *b = image_make(p, "b", 2, 64, 4);
	struct vc_scrub_found f;
	struct vc_scrub_status s;

	scrub_all(p, &s);
	assert_int_equal(s.found, 0);
	block_damage(p, "log", 2, 17);
	scrub_all(p, &s);
	assert_int_equal(s.found, 1);
	expect_found(p, 0, vc_inode_ino(b), VC_SCRUB_LOG, 17, 1);
	assert_int_equal(vc_scrub_list(p->pool, 1, &f, 1), 0);
	vc_inode_put(a);
	vc_inode_put(b);
	place_close(p, true); /* it could not be destaged */
}

/* The header of a batch in the middle of the log: what lies behind it is not its end. */
static void test_log_batch(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = image_make(p, "a", 1, 64, 4);
	ptrdiff_t sums = 4 * sizeof(uint32_t);
	struct vc_scrub_status s;

	block_damage_at(p, "log", 1, 16, (ptrdiff_t)offsetof(struct vc_disk_batch, prev_hash) - sums -
				(ptrdiff_t)(sizeof(struct vc_disk_op) + sizeof(struct vc_disk_record) + sizeof(struct vc_disk_batch)));
	scrub_all(p, &s);
	assert_int_equal(s.found, 1);
	expect_found(p, 0, 0, VC_SCRUB_LOG, 0, 0);
	vc_inode_put(a);
	place_close(p, true);
}

/* Flip a bit of every copy of this node in LMDB's file, also in pages that are free. */
static void node_damage(struct place *p, uint64_t id, int fd, const uint8_t *bytes, size_t size)
{
	uint8_t node[BLOCK];
	struct vc_meta_txn *txn;
	const void *value;
	const uint8_t *at = bytes;
	unsigned copies = 0;
	size_t len = 0;

	assert_int_equal(vc_meta_read_begin(p->pool->meta, &txn), 0);
	if (vc_meta_node_get(txn, id, &value, &len) == 0)
		memcpy(node, value, len);
	vc_meta_end(txn);
	for (; len && (at = memmem(at, size - (size_t)(at - bytes), node, len)); at += len, copies++) {
		uint8_t flipped = at[len / 2] ^ 1;

		assert_int_equal(pwrite(fd, &flipped, 1, at + len / 2 - bytes), 1);
	}
	assert_true(copies > 0 || !len);
}

/* Every map node there is: the root is damaged, so all of the image is. */
static void test_node(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = image_make(p, "a", 1, IMAGE_BLOCKS, 8);
	struct vc_scrub_status s;
	char path[600];
	uint8_t *bytes;
	struct stat st;
	int fd;

	assert_int_equal(engine_task(p->pool, VC_TASK_DESTAGE), 0);
	snprintf(path, sizeof(path), "%s/meta/data.mdb", p->pool_dir);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	bytes = malloc((size_t)st.st_size);
	assert_true(bytes && read(fd, bytes, (size_t)st.st_size) == st.st_size);
	for (uint64_t id = 1; id < vc_map_next_node(p->pool->map); id++)
		node_damage(p, id, fd, bytes, (size_t)st.st_size);
	close(fd);
	free(bytes);
	scrub_all(p, &s);
	assert_int_equal(s.found, 1);
	expect_found(p, 0, vc_inode_ino(a), VC_SCRUB_NODE, 0, VC_LEAF_BLOCKS * VC_FANOUT);
	vc_inode_put(a);
}

/* The segment that the stored position says comes next. */
static uint64_t stored_segment(struct place *p)
{
	struct vc_disk_scrub d;
	char path[600];
	int fd;

	snprintf(path, sizeof(path), "%s/scrub", p->pool_dir);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0 && read(fd, &d, sizeof(d)) == sizeof(d));
	close(fd);
	return vc_le64_get(d.next_segno);
}

/* Of what was damaged in every segment after the stop, the first found lies in the next one, and the last in the last one. */
static void expect_rest(struct place *p, uint64_t segno, uint64_t nfound)
{
	struct vc_scrub_found f;
	uint64_t at = segno;

	for (uint64_t i = 1; i < nfound; i++) {
		assert_int_equal(vc_scrub_list(p->pool, i, &f, 1), 1);
		assert_true(f.kind == VC_SCRUB_CHUNK && (f.file == at || (i > 1 && f.file == at + 1)));
		at = f.file;
	}
	assert_true(at > segno);
	assert_true(f.offset / BLOCK > 8 * IMAGE_BLOCKS - EVERY_SEGMENT);
}

/* Stopped by the end of the pool, it goes on; what was found before is still told. Stopped by hand, it waits to be started. */
static void test_goes_on(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = image_make(p, "a", 1, 8 * IMAGE_BLOCKS, 8);
	uint64_t ino = vc_inode_ino(a), started, done, next;
	struct vc_scrub_status s;

	assert_int_equal(engine_task(p->pool, VC_TASK_DESTAGE), 0);
	vc_inode_put(a);
	block_damage(p, "chunk", 1, 4);
	assert_int_equal(vc_scrub_start(p->pool, 4 * SLOW, true), 0);
	do {
		wait_a_moment();
		vc_scrub_status(p->pool, &s);
	} while (s.running && s.done < 6 * SLOW);
	assert_true(s.running);
	started = s.started_ns;
	place_close(p, false);
	place_open(p);
	vc_scrub_status(p->pool, &s);
	assert_true(s.running);
	assert_int_equal(s.rate, 4 * SLOW);
	assert_int_equal(s.started_ns, started);
	assert_true(s.done > 2 * SLOW);
	vc_scrub_stop(p->pool);
	scrub_wait(p, &s);
	assert_int_equal(s.error, -EINTR);
	done = s.done;
	place_close(p, false);
	place_open(p);
	vc_scrub_status(p->pool, &s);
	assert_false(s.running);
	assert_int_equal(s.done, done);
	next = stored_segment(p);
	assert_true(next > 1);
	for (uint64_t i = 8; i < 8 * IMAGE_BLOCKS; i += EVERY_SEGMENT)
		block_damage(p, "chunk", 1, i);
	assert_int_equal(vc_scrub_start(p->pool, 0, false), 0);
	scrub_wait(p, &s);
	assert_int_equal(s.error, 0);
	assert_int_equal(s.started_ns, started);
	expect_found(p, 0, ino, VC_SCRUB_CHUNK, 4, 4);
	expect_rest(p, next, s.found);
}

/* ---- a kill ---- */

#define KEPT_AT 20u /* segments */
#define SAVE_EVERY_NS UINT64_C(5000000000)

void __real_vc_scrub_save(struct vc_scrub *s, bool running, bool now);
void __wrap_vc_scrub_save(struct vc_scrub *s, bool running, bool now);

static unsigned saves;
static char *kept_from, *kept; /* NULL: nothing is kept */

/* Five seconds pass with every segment; what is stored then is what a kill would leave. */
void __wrap_vc_scrub_save(struct vc_scrub *s, bool running, bool now)
{
	if (kept && !now)
		s->saved_ns = vc_mono_ns() - SAVE_EVERY_NS;
	__real_vc_scrub_save(s, running, now);
	if (kept && !now && ++saves == KEPT_AT)
		assert(link(kept_from, kept) == 0);
}

/* Scrub an image with damage in its first chunk, and leave the closed pool as a kill in the midst of that; when the pass was begun. */
static uint64_t scrub_killed(struct place *p, uint64_t *ret_ino)
{
	struct vc_inode *a = image_make(p, "a", 1, 8 * IMAGE_BLOCKS, 8);
	struct vc_scrub_status s;

	*ret_ino = vc_inode_ino(a);
	assert_int_equal(engine_task(p->pool, VC_TASK_DESTAGE), 0);
	vc_inode_put(a);
	block_damage(p, "chunk", 1, 4);
	assert_true(asprintf(&kept_from, "%s/scrub", p->pool_dir) > 0 && asprintf(&kept, "%s/kept", p->dir) > 0);
	saves = 0;
	scrub_all(p, &s);
	assert_int_equal(s.found, 1);
	assert_true(saves > 2 * KEPT_AT);
	place_close(p, false);
	assert_int_equal(rename(kept, kept_from), 0);
	free(kept);
	free(kept_from);
	kept = kept_from = NULL;
	return s.started_ns;
}

/* A pass that was killed goes on behind the segments it had read. */
static void test_killed(void **state)
{
	struct place *p = *state;
	uint64_t ino, started = scrub_killed(p, &ino), next = stored_segment(p);
	struct vc_scrub_status s;

	assert_true(next > KEPT_AT);
	for (uint64_t i = 8; i < 8 * IMAGE_BLOCKS; i += EVERY_SEGMENT)
		block_damage(p, "chunk", 1, i);
	place_open(p);
	scrub_wait(p, &s);
	assert_int_equal(s.error, 0);
	assert_int_equal(s.started_ns, started);
	expect_found(p, 0, ino, VC_SCRUB_CHUNK, 4, 4);
	expect_rest(p, next, s.found);
}

/* A position that is damaged says nothing: what is begun then begins anew. */
static void test_position_damaged(void **state)
{
	struct place *p = *state;
	uint64_t ino, next;
	struct vc_scrub_status s;
	char path[600];
	uint8_t byte;
	int fd;

	scrub_killed(p, &ino);
	next = stored_segment(p);
	snprintf(path, sizeof(path), "%s/scrub", p->pool_dir);
	fd = open(path, O_RDWR);
	assert_int_equal(pread(fd, &byte, 1, offsetof(struct vc_disk_scrub, next_segno)), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, offsetof(struct vc_disk_scrub, next_segno)), 1);
	close(fd);
	assert_int_not_equal(stored_segment(p), next);
	place_open(p);
	vc_scrub_status(p->pool, &s);
	assert_false(s.running);
	assert_int_equal(s.started_ns, 0);
	assert_int_equal(s.done, 0);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The rate holds from the first byte, which is LMDB's. */
static void test_meta_rate(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = image_make(p, "a", 1, 8, 8);
	struct vc_pool_figures figures;
	struct vc_scrub_status s;
	double begun;

	for (char prefix[] = "a"; prefix[0] <= 'j'; prefix[0]++)
		assert_int_equal(engine_clone_many(a, p->root, 500, prefix), 0);
	vc_inode_put(a);
	assert_int_equal(engine_task(p->pool, VC_TASK_DESTAGE), 0);
	assert_int_equal(vc_pool_figures(p->pool, &figures), 0);
	assert_true(figures.meta_bytes > SLOW);
	begun = seconds();
	assert_int_equal(vc_scrub_start(p->pool, SLOW, true), 0);
	do {
		wait_a_moment();
		vc_scrub_status(p->pool, &s);
	} while (s.running && s.done < SLOW);
	assert_true(seconds() - begun > 0.7); /* up to 0.2 s may be made up for */
	vc_scrub_stop(p->pool);
	scrub_wait(p, &s);
	assert_int_equal(s.error, -EINTR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_undamaged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_chunk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_chunk_header, setup, teardown),
		cmocka_unit_test_setup_teardown(test_direct_chunk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_log, setup, teardown),
		cmocka_unit_test_setup_teardown(test_log_batch, setup, teardown),
		cmocka_unit_test_setup_teardown(test_node, setup, teardown),
		cmocka_unit_test_setup_teardown(test_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_position_damaged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_meta_rate, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
