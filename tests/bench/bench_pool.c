/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench_pool: what the benchmarks need to know of a pool that no mount tells, and pools too large to be written.
 *
 *   bench_pool ideal NBLOCKS FILE [BASE]     bytes FILE needs at least: compressed in units of NBLOCKS blocks, zeros for nothing;
 *                                            with BASE only the blocks that differ from it, each compressed alone
 *   bench_pool stat POOL                     bytes of LMDB in use, free in it, map nodes, rows
 *   bench_pool grow POOL SEED PREFIX NIMAGES NBLOCKS seq|random
 *                                            NIMAGES new images PREFIX0, PREFIX1, ... of NBLOCKS blocks each, all mapped
 *
 * grow writes map nodes and rows through the map and meta stores, and no data: each block of a new image is a block that the
 * image SEED (in the top directory, destaged) holds already, so reading it works and `vclone check` has nothing to say. With `seq`
 * they follow one another as in SEED and leaves are extents; with `random` every block is another one and leaves are flat. The pool
 * must have been unmounted properly (an empty log). Its journal does not know these images: such a pool is for measuring only.
 *
 * Figures go to standard output, "name value", one a line.
 */
#include "config.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "catalog.h"
#include "codec.h"
#include "map.h"

#define SEED_BLOCKS_MAX 65536u
#define FOLD_LEAVES 1000u   /* changes of so many leaves are gathered for a fold */
#define COMMIT_FOLDS 20u    /* so a commit writes at most 20,000 leaves (I7) */

static void must(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "bench_pool: %s: %s\n", what, strerror(-r));
	exit(1);
}

static uint64_t number(const char *text)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);

	must(end == text || *end || value == 0 ? -EINVAL : 0, text);
	return value;
}

/* ---- ideal ---- */

static FILE *open_file(const char *path)
{
	FILE *f = fopen(path, "rb");

	must(f ? 0 : -errno, path);
	return f;
}

static size_t stored_bytes(const uint8_t *data, size_t len)
{
	static uint8_t out[VC_CHUNK_BLOCKS_MAX * VC_BLOCK_SIZE];
	enum vc_codec codec;

	return vc_is_zero(data, len) ? 0 : vc_codec_compress(data, len, out, &codec);
}

static void cmd_ideal(uint64_t nblocks, const char *path, const char *base_path)
{
	static uint8_t data[VC_CHUNK_BLOCKS_MAX * VC_BLOCK_SIZE], base[VC_CHUNK_BLOCKS_MAX * VC_BLOCK_SIZE];
	FILE *file = open_file(path), *other = base_path ? open_file(base_path) : NULL;
	uint64_t stored = 0, changed = 0, total = 0;
	size_t n;

	must(nblocks > VC_CHUNK_BLOCKS_MAX ? -EINVAL : 0, "blocks in a unit");
	while ((n = fread(data, 1, nblocks * VC_BLOCK_SIZE, file)) > 0) {
		size_t len = VC_ROUND_UP(n, (size_t)VC_BLOCK_SIZE);

		memset(data + n, 0, len - n);
		total += len;
		if (!other) {
			stored += stored_bytes(data, len);
			continue;
		}
		memset(base, 0, len);
		if (fread(base, 1, n, other) != n && ferror(other))
			must(-EIO, base_path);
		for (size_t at = 0; at < len; at += VC_BLOCK_SIZE) {
			if (memcmp(data + at, base + at, VC_BLOCK_SIZE) == 0)
				continue;
			changed += VC_BLOCK_SIZE;
			stored += stored_bytes(data + at, VC_BLOCK_SIZE);
		}
	}
	must(ferror(file) ? -EIO : 0, path);
	fclose(file);
	if (other)
		fclose(other);
	printf("total %" PRIu64 "\nchanged %" PRIu64 "\nstored %" PRIu64 "\n", total, changed, stored);
}

/* ---- a pool that nobody has mounted ---- */

struct bench_pool {
	char dir[PATH_MAX];
	struct vc_meta *meta;
	struct vc_map *map;
	struct vc_disk_state state;
};

static void row_get(struct bench_pool *p, const void *key, size_t key_len, void *ret, size_t len, const char *what)
{
	struct vc_meta_txn *txn;
	const void *value;
	size_t value_len;

	must(vc_meta_read_begin(p->meta, &txn), what);
	must(vc_meta_get(txn, VC_DB_CAT, key, key_len, &value, &value_len), what);
	must(value_len == len ? 0 : -EUCLEAN, what);
	memcpy(ret, value, len);
	vc_meta_end(txn);
}

static void pool_open(struct bench_pool *p, const char *path, bool read_only)
{
	struct vc_meta_params meta = { .io = vc_io_posix(), .dir = p->dir, .read_only = read_only };
	struct vc_map_params map = { .cache_bytes = 64 << 20 };

	snprintf(p->dir, sizeof(p->dir), "%s/meta", path);
	must(vc_meta_open(&meta, &p->meta), p->dir);
	row_get(p, "GS", 2, &p->state, sizeof(p->state), "state");
	map.meta = p->meta;
	map.next_node = vc_le64_get(p->state.next_node);
	must(vc_map_open(&map, &p->map), "map");
}

static void pool_close(struct bench_pool *p)
{
	vc_map_close(p->map);
	vc_meta_close(p->meta);
}

static void cmd_stat(const char *path)
{
	struct bench_pool p = { .meta = NULL };
	struct vc_meta_stats s;

	pool_open(&p, path, true);
	must(vc_meta_stats(p.meta, &s), path);
	printf("file %" PRIu64 "\nfree %" PRIu64 "\nnodes %" PRIu64 "\nrows %" PRIu64 "\n", s.file_bytes, s.free_bytes, s.nodes, s.rows);
	pool_close(&p);
}

/* ---- grow ---- */

struct grow {
	struct bench_pool pool;
	uint64_t *seed;            /* entries of blocks that the seed image holds */
	size_t nseed;
	struct vc_change *changes; /* of one fold */
	uint64_t random;
	bool sequential;
	struct vc_inode_fields root_dir;
	struct vc_disk_inode image_inode;
};

static uint64_t next_random(struct grow *g)
{
	g->random ^= g->random << 13;
	g->random ^= g->random >> 7;
	g->random ^= g->random << 17;
	return g->random;
}

static void grow_load_seed(struct grow *g, const char *name)
{
	uint8_t key[VC_ROW_KEY_MAX];
	struct vc_disk_dirent dirent;
	struct vc_disk_image image;
	struct vc_disk_inode dir;
	struct vc_root root;
	uint64_t *entries = calloc(SEED_BLOCKS_MAX, sizeof(*entries));

	must(entries ? 0 : -ENOMEM, "seed");
	row_get(&g->pool, key, vc_row_key_named(key, VC_ROW_DIRENT, VC_ROOT_INO, name, strlen(name)), &dirent, sizeof(dirent), name);
	row_get(&g->pool, key, vc_row_key_ino(key, VC_ROW_IMAGE, vc_le64_get(dirent.ino)), &image, sizeof(image), name);
	row_get(&g->pool, key, vc_row_key_ino(key, VC_ROW_INODE, vc_le64_get(dirent.ino)), &g->image_inode, sizeof(g->image_inode), name);
	row_get(&g->pool, key, vc_row_key_ino(key, VC_ROW_INODE, VC_ROOT_INO), &dir, sizeof(dir), "top directory");
	must(vc_row_to_inode(&dir, sizeof(dir), &g->root_dir), "top directory");
	root = (struct vc_root){ .id = vc_le64_get(image.root), .height = vc_le32_get(image.height) };
	must(vc_map_lookup(g->pool.map, root, 0, SEED_BLOCKS_MAX, entries), name);
	for (size_t i = 0; i < SEED_BLOCKS_MAX; i++)
		if (entries[i] != VC_ENTRY_HOLE)
			entries[g->nseed++] = entries[i];
	must(g->nseed >= 16 ? 0 : -ENODATA, "the seed image holds too little");
	g->seed = entries;
}

/** Changes for blocks lba .. end - 1; returns how many. */
static size_t grow_changes(struct grow *g, uint64_t lba, uint64_t end)
{
	size_t n = 0;

	while (lba < end) {
		size_t at = g->sequential ? lba % g->nseed : next_random(g) % g->nseed;
		uint64_t run = 1;

		if (g->sequential)
			while (run < 16 && lba + run < end && at + run < g->nseed && g->seed[at + run] == g->seed[at] + run)
				run++;
		g->changes[n++] = (struct vc_change){ .lba = lba, .nblocks = run, .kind = VC_CHANGE_SET, .entry = g->seed[at] };
		lba += run;
	}
	return n;
}

static void put_row(struct vc_meta_txn *txn, const void *key, size_t key_len, const void *value, size_t len)
{
	must(vc_meta_put(txn, VC_DB_CAT, key, key_len, value, len), "row");
}

static vc_le64 take_number(vc_le64 *next)
{
	vc_le64 mine = *next;

	*next = vc_le64_of(vc_le64_get(mine) + 1);
	return mine;
}

static void grow_name(struct grow *g, struct vc_meta_txn *txn, const char *name, struct vc_root root, uint64_t nblocks)
{
	struct vc_disk_state *s = &g->pool.state;
	struct vc_disk_inode row;
	uint64_t ino = vc_le64_get(take_number(&s->next_ino));
	struct vc_disk_dirent dirent = { .ino = vc_le64_of(ino), .cookie = vc_le64_of(g->root_dir.next_cookie++),
					 .type = vc_le32_of(S_IFREG) };
	struct vc_disk_image image = { .root = vc_le64_of(root.id), .tag = take_number(&s->next_tag),
				       .content = take_number(&s->next_content), .height = vc_le32_of(root.height) };
	uint8_t key[VC_ROW_KEY_MAX];

	row = g->image_inode;
	row.nlink = vc_le32_of(1);
	row.depth = vc_le32_of(0);
	row.origin = vc_le64_of(0);
	row.size = vc_le64_of(nblocks * VC_BLOCK_SIZE);
	put_row(txn, key, vc_row_key_ino(key, VC_ROW_INODE, ino), &row, sizeof(row));
	put_row(txn, key, vc_row_key_named(key, VC_ROW_DIRENT, VC_ROOT_INO, name, strlen(name)), &dirent, sizeof(dirent));
	put_row(txn, key, vc_row_key_ino(key, VC_ROW_IMAGE, ino), &image, sizeof(image));
	vc_row_from_inode(&g->root_dir, &row);
	put_row(txn, key, vc_row_key_ino(key, VC_ROW_INODE, VC_ROOT_INO), &row, sizeof(row));
	s->images = vc_le64_of(vc_le64_get(s->images) + 1);
}

static void grow_commit(struct grow *g, struct vc_meta_txn *txn)
{
	g->pool.state.next_node = vc_le64_of(vc_map_next_node(g->pool.map));
	put_row(txn, "GS", 2, &g->pool.state, sizeof(g->pool.state));
	must(vc_meta_commit(txn), "commit");
}

/** Nodes of an unfinished image are reachable from nothing; a crash leaves them to the mark, like any dead node. */
static void grow_image(struct grow *g, const char *name, uint64_t nblocks)
{
	struct vc_fold fold = { .changes = g->changes };
	struct vc_meta_txn *txn = NULL;
	unsigned int nfolds = 0;

	for (uint64_t lba = 0; lba < nblocks;) {
		uint64_t end = VC_MIN(lba + (uint64_t)FOLD_LEAVES * VC_LEAF_BLOCKS, nblocks);

		if (!txn)
			must(vc_meta_write_begin(g->pool.meta, &txn), "begin");
		fold.nchanges = grow_changes(g, lba, end);
		must(vc_map_fold(g->pool.map, txn, &fold, &fold.root), "fold");
		lba = end;
		if (++nfolds % COMMIT_FOLDS == 0 && lba < nblocks) {
			grow_commit(g, txn);
			txn = NULL;
		}
	}
	grow_name(g, txn, name, fold.root, nblocks);
	grow_commit(g, txn);
}

static void cmd_grow(char **argv)
{
	struct grow g = { .random = 88172645463325252u, .sequential = strcmp(argv[5], "seq") == 0 };
	uint64_t nimages = number(argv[3]), nblocks = number(argv[4]), start = vc_mono_ns();
	char name[VC_NAME_MAX];

	must(!g.sequential && strcmp(argv[5], "random") != 0 ? -EINVAL : 0, argv[5]);
	must(nblocks > VC_IMAGE_BLOCKS_MAX ? -EFBIG : 0, argv[4]);
	pool_open(&g.pool, argv[0], false);
	grow_load_seed(&g, argv[1]);
	g.changes = calloc((size_t)FOLD_LEAVES * VC_LEAF_BLOCKS, sizeof(*g.changes));
	must(g.changes ? 0 : -ENOMEM, "changes");
	for (uint64_t i = 0; i < nimages; i++) {
		snprintf(name, sizeof(name), "%.200s%" PRIu64, argv[2], i);
		grow_image(&g, name, nblocks);
	}
	pool_close(&g.pool);
	free(g.changes);
	free(g.seed);
	printf("blocks %" PRIu64 "\nms %" PRIu64 "\n", nimages * nblocks, (vc_mono_ns() - start) / 1000000);
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";

	if (strcmp(command, "ideal") == 0 && (argc == 4 || argc == 5))
		cmd_ideal(number(argv[2]), argv[3], argc == 5 ? argv[4] : NULL);
	else if (strcmp(command, "stat") == 0 && argc == 3)
		cmd_stat(argv[2]);
	else if (strcmp(command, "grow") == 0 && argc == 8)
		cmd_grow(argv + 2);
	else {
		fprintf(stderr, "usage: bench_pool ideal NBLOCKS FILE [BASE] | stat POOL | grow POOL SEED PREFIX NIMAGES NBLOCKS seq|random\n");
		return 2;
	}
	return 0;
}
