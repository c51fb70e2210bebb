/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of map: random folds of several trees of every height, with everything that map_world compares. */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>
#include "map.h"
#include "map_world.h"

static void random_set(struct world *w, struct vc_change *c)
{
	uint32_t first = (uint32_t)world_below(w, VC_CHUNK_BLOCKS_MAX);

	c->kind = VC_CHANGE_SET;
	c->nblocks = 1 + world_below(w, VC_CHUNK_BLOCKS_MAX - first);
	c->nblocks = VC_MIN(c->nblocks, VC_IMAGE_BLOCKS_MAX - c->lba);
	c->entry = vc_entry_make(w->next_segno++, 4096, 3000, first);
}

/* A range of another tree, at any distance or at one that lets subtrees be shared. */
static void random_share(struct world *w, struct vc_change *c, const struct image *src)
{
	uint64_t align = UINT64_C(1) << (8 * world_below(w, 5));

	c->kind = VC_CHANGE_SHARE;
	c->src = src->root;
	c->nblocks = world_random_length(w, c->lba);
	c->src_lba = world_below(w, 3) ? world_random_lba(w) : c->lba;
	if (c->src_lba > c->lba)
		c->src_lba = c->lba + VC_ROUND_DOWN(c->src_lba - c->lba, align);
	else
		c->src_lba = c->lba - VC_ROUND_DOWN(c->lba - c->src_lba, align);
	c->nblocks = VC_MIN(c->nblocks, VC_IMAGE_BLOCKS_MAX - c->src_lba);
}

static int compare_lba(const void *a, const void *b)
{
	uint64_t x = ((const struct vc_change *)a)->lba, y = ((const struct vc_change *)b)->lba;

	return (x > y) - (x < y);
}

static void random_changes(struct world *w, const struct image *src)
{
	size_t n = 1 + world_below(w, CHANGES_MAX), kept = 0;
	uint64_t end = 0, kinds = 1 + world_below(w, 10);

	memset(w->changes, 0, sizeof(w->changes));
	for (size_t i = 0; i < n; i++) {
		struct vc_change *c = &w->changes[i];

		do
			c->lba = world_random_lba(w);
		while (c->lba >= VC_IMAGE_BLOCKS_MAX);
		if (world_below(w, 10) >= kinds) {
			random_set(w, c);
		} else if (world_below(w, 2) && src) {
			random_share(w, c, src);
		} else {
			c->kind = VC_CHANGE_ZERO;
			c->nblocks = world_random_length(w, c->lba);
		}
	}
	qsort(w->changes, n, sizeof(w->changes[0]), compare_lba);
	for (size_t i = 0; i < n; i++) {
		struct vc_change c = w->changes[i];

		if (c.lba < end)
			continue;
		if (i + 1 < n && c.lba + c.nblocks > w->changes[i + 1].lba && world_below(w, 2)) {
			if (w->changes[i + 1].lba == c.lba)
				continue;
			c.nblocks = w->changes[i + 1].lba - c.lba; /* adjacent, and room for the next */
		}
		end = c.lba + c.nblocks;
		w->changes[kept++] = c;
	}
	w->nchanges = kept;
}

static bool has_share(const struct world *w)
{
	for (size_t i = 0; i < w->nchanges; i++)
		if (w->changes[i].kind == VC_CHANGE_SHARE)
			return true;
	return false;
}

/* Make `image` a clone of `src`: it shares the root, and both have a fresh tag. */
static void clone_image(struct world *w, struct image *image, struct image *src)
{
	memcpy(image->blocks, src->blocks, src->n * sizeof(struct block));
	image->n = src->n;
	image->root = src->root;
	image->tag = w->next_tag++;
	src->tag = w->next_tag++;
}

static void step(struct world *w)
{
	struct image *image = &w->images[world_below(w, IMAGES)], *src = &w->images[world_below(w, IMAGES)];
	uint64_t new_tag, dead_tag;

	if (src != image && world_below(w, 12) == 0)
		clone_image(w, image, src);
	random_changes(w, src == image ? NULL : src);
	if (image->n > 10000 || src->n > 10000) { /* keep the arrays small, and empty a tree now and then */
		image = image->n > 10000 ? image : src;
		w->changes[0] = (struct vc_change){ .nblocks = VC_IMAGE_BLOCKS_MAX, .kind = VC_CHANGE_ZERO };
		w->nchanges = 1;
	}
	w->defer = world_below(w, 4) == 0;
	new_tag = image->tag;
	dead_tag = world_below(w, 5) ? image->tag : 0;
	if (world_below(w, 8) == 0)
		new_tag = 0;
	world_fold(w, image, src, new_tag, dead_tag);
	if (new_tag == 0)
		image->tag = w->next_tag++;
	if (src != image && has_share(w))
		src->tag = w->next_tag++;
	world_check_reads(w, image);
	world_check_reads(w, src);
}

static void run_steps(struct world *w, int steps, uint64_t sites_below)
{
	w->sites_below = sites_below;
	for (int i = 0; i < steps; i++) {
		step(w);
		if (i % 50 == 49)
			world_sweep(w);
		if (i % 200 == 199)
			world_reopen(w);
	}
}

static void test_random_small(void **state) { run_steps(*state, 400, 1); }
static void test_random_leaf_edges(void **state) { run_steps(*state, 400, 70000); }
static void test_random_64g(void **state) { run_steps(*state, 400, (1 << 24) + 1); }
static void test_random_64t(void **state) { run_steps(*state, 1000, UINT64_MAX); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_random_small, world_setup, world_teardown),
		cmocka_unit_test_setup_teardown(test_random_leaf_edges, world_setup, world_teardown),
		cmocka_unit_test_setup_teardown(test_random_64g, world_setup, world_teardown),
		cmocka_unit_test_setup_teardown(test_random_64t, world_setup, world_teardown),
	};

	world_seed(vc_unit_seed());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
