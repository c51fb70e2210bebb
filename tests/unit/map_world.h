/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * map_world: a store with several trees, each beside a plain sorted array of what it must hold.
 *
 * world_fold applies w->changes to one image and to its array, then walks every tree node by node: content, levels, mapped and
 * own of every header, that all nodes made are in use, that nodes of the dead tag which were replaced are gone (or
 * deferred), and that no other tree lost a node. world_check_reads compares lookup, seek and figures, through the cache.
 * Every difference fails the test. One thread.
 */
#ifndef VC_MAP_WORLD_H
#define VC_MAP_WORLD_H

#include "map.h"
#include "meta.h"

#define IMAGES 4
#define MODEL_MAX 400000
#define IDS_MAX 100000
#define CHANGES_MAX 24

/* One mapped block, and the tag it was SET under (0 when it was shared). */
struct block {
	uint64_t lba, entry, own_tag;
};

struct image {
	struct vc_root root;
	uint64_t tag;
	struct block *blocks; /* ascending */
	size_t n;
};

struct id_list {
	uint64_t ids[IDS_MAX];
	size_t n;
};

struct world {
	char *dir;
	struct vc_meta *meta;
	struct vc_map *map;
	uint64_t random, next_tag, next_segno;
	struct image images[IMAGES];
	struct vc_change changes[CHANGES_MAX];
	size_t nchanges;
	bool defer;
	struct id_list deferred;
	struct block *scratch;
	uint64_t sites_below; /* blocks in use lie below this */
};

/** cmocka set-up: *ret becomes a struct world; the seed is that of world_seed. */
int world_setup(void **ret);
int world_teardown(void **state);
void world_seed(uint64_t seed);
/** Close and open store and map: the cache is empty, node ids go on. */
void world_reopen(struct world *w);

uint64_t world_below(struct world *w, uint64_t n);
/** A block near an edge of a leaf or subtree. */
uint64_t world_random_lba(struct world *w);
/** A length from one block to all there are behind lba. */
uint64_t world_random_length(struct world *w, uint64_t lba);

/** src: the image that SHARE changes name. */
void world_fold(struct world *w, struct image *image, const struct image *src, uint64_t new_tag, uint64_t dead_tag);
void world_check_reads(struct world *w, const struct image *image);
/** Remove nodes that no tree reaches, as a mark would. */
void world_sweep(struct world *w);

#endif
