/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench_map: what lookups and folds cost, on a store of its own in the directory given (default: the current one).
 *
 *   lookup cached    one block of a random tree, every node in the cache, ns
 *   lookup cold      the same after opening again, each leaf for the first time, ns
 *   fold N           N single-block changes, each in another leaf of a tree that has them all already; fold and commit apart, ms
 *
 * Prints one line a figure: name, value, unit.
 */
#include "config.h"
#include "map.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io.h"
#include "meta.h"

#define BENCH_LEAVES 40000u
#define BENCH_LOOKUPS 2000000u
#define BENCH_COLD 10000u
#define BENCH_ROUNDS 3

struct bench {
	char dir[PATH_MAX - 16];
	struct vc_meta *meta;
	struct vc_map *map;
	struct vc_root root;
	uint64_t random, segno;
	struct vc_change *changes;
};

static void must(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "bench_map: %s: %s\n", what, strerror(-r));
	exit(1);
}

static uint64_t next_random(struct bench *b)
{
	b->random ^= b->random << 13;
	b->random ^= b->random >> 7;
	b->random ^= b->random << 17;
	return b->random;
}

static void bench_open(struct bench *b, uint64_t next_node)
{
	struct vc_meta_params meta = { .io = vc_io_posix(), .dir = b->dir };
	struct vc_map_params map = { .cache_bytes = 256 << 20, .next_node = next_node };

	must(vc_meta_open(&meta, &b->meta), "open the store");
	map.meta = b->meta;
	must(vc_map_open(&map, &b->map), "open the map");
}

static void bench_close(struct bench *b)
{
	vc_map_close(b->map);
	vc_meta_close(b->meta);
}

/** One change in each of n leaves, evenly spread over BENCH_LEAVES; then fold and commit. */
static void bench_fold(struct bench *b, uint32_t n, uint64_t *ret_fold_ns, uint64_t *ret_commit_ns)
{
	struct vc_fold fold = { .root = b->root, .changes = b->changes, .nchanges = n, .new_tag = 1, .dead_tag = 1 };
	struct vc_meta_txn *txn;
	uint64_t start;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t leaf = (uint64_t)i * BENCH_LEAVES / n;

		b->changes[i] = (struct vc_change){
			.lba = leaf * VC_LEAF_BLOCKS + next_random(b) % VC_LEAF_BLOCKS,
			.nblocks = 1,
			.kind = VC_CHANGE_SET,
			.entry = vc_entry_make(++b->segno, 4096 + (uint32_t)(next_random(b) % 10000) * 64, 3000, 0),
		};
	}
	start = vc_mono_ns();
	must(vc_meta_write_begin(b->meta, &txn), "begin");
	must(vc_map_fold(b->map, txn, &fold, &b->root), "fold");
	*ret_fold_ns = vc_mono_ns() - start;
	start = vc_mono_ns();
	must(vc_meta_commit(txn), "commit");
	*ret_commit_ns = vc_mono_ns() - start;
}

/** Fill every leaf so that it is flat: every block a chunk of its own. */
static void bench_fill(struct bench *b)
{
	struct vc_change *changes = calloc(VC_LEAF_BLOCKS * 1000, sizeof(*changes));

	if (!changes)
		must(-ENOMEM, "fill");
	for (uint32_t leaf = 0; leaf < BENCH_LEAVES; leaf += 1000) {
		struct vc_fold fold = { .root = b->root, .changes = changes, .new_tag = 1, .dead_tag = 1 };
		struct vc_meta_txn *txn;

		fold.nchanges = VC_LEAF_BLOCKS * 1000;
		for (uint32_t i = 0; i < fold.nchanges; i++)
			changes[i] = (struct vc_change){
				.lba = (uint64_t)leaf * VC_LEAF_BLOCKS + i,
				.nblocks = 1,
				.kind = VC_CHANGE_SET,
				.entry = vc_entry_make(1 + (i >> 13), 4096 + (i & 8191) * 4096, 2000, 0),
			};
		must(vc_meta_write_begin(b->meta, &txn), "begin");
		must(vc_map_fold(b->map, txn, &fold, &b->root), "fill");
		must(vc_meta_commit(txn), "commit");
	}
	free(changes);
}

static void bench_lookup(struct bench *b, const char *name, uint32_t n, uint32_t step)
{
	uint64_t start, entry, sum = 0, blocks = (uint64_t)BENCH_LEAVES * VC_LEAF_BLOCKS;

	start = vc_mono_ns();
	for (uint32_t i = 0; i < n; i++) {
		uint64_t lba = step ? (uint64_t)i * step * VC_LEAF_BLOCKS : next_random(b) % blocks;

		must(vc_map_lookup(b->map, b->root, lba, 1, &entry), "lookup");
		sum += entry;
	}
	printf("%-22s %8.0f ns\n", name, (double)(vc_mono_ns() - start) / n);
	if (sum == 0)
		must(-EIO, "nothing found");
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void bench_folds(struct bench *b, uint32_t n)
{
	uint64_t fold[BENCH_ROUNDS], commit[BENCH_ROUNDS];

	for (int i = 0; i < BENCH_ROUNDS; i++)
		bench_fold(b, n, &fold[i], &commit[i]);
	qsort(fold, BENCH_ROUNDS, sizeof(fold[0]), compare_u64);
	qsort(commit, BENCH_ROUNDS, sizeof(commit[0]), compare_u64);
	printf("fold %-17u %8.1f ms\n", n, (double)fold[BENCH_ROUNDS / 2] / 1e6);
	printf("commit of it           %8.1f ms\n", (double)commit[BENCH_ROUNDS / 2] / 1e6);
}

static void bench_remove(struct bench *b)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/data.mdb", b->dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/lock.mdb", b->dir);
	unlink(path);
	rmdir(b->dir);
}

int main(int argc, char **argv)
{
	struct bench b = { .random = 88172645463325252u };
	struct vc_meta_params params = { .io = vc_io_posix(), .dir = b.dir };
	uint64_t next_node;

	snprintf(b.dir, sizeof(b.dir), "%s/bench-map.XXXXXX", argc > 1 ? argv[1] : ".");
	if (!mkdtemp(b.dir))
		must(-errno, b.dir);
	b.changes = calloc(BENCH_LEAVES, sizeof(*b.changes));
	if (!b.changes)
		must(-ENOMEM, "changes");
	must(vc_meta_create(&params), "create");
	bench_open(&b, 1);
	bench_fill(&b);
	next_node = vc_map_next_node(b.map);
	bench_close(&b);
	bench_open(&b, next_node);
	bench_lookup(&b, "lookup cold", BENCH_COLD, BENCH_LEAVES / BENCH_COLD);
	bench_lookup(&b, "(filling the cache)", BENCH_LEAVES, 1);
	bench_lookup(&b, "lookup cached", BENCH_LOOKUPS, 0);
	bench_folds(&b, 10000);
	bench_folds(&b, BENCH_LEAVES);
	bench_close(&b);
	bench_remove(&b);
	free(b.changes);
	return 0;
}
