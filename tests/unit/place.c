/* SPDX-License-Identifier: BSD-2-Clause */
/* place: see place.h. */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "place.h"

void place_open(struct place *p)
{
	p->pool = engine_open(vc_sim_io(p->sim), PLACE_POOL, ENGINE_DESTAGE_NEVER);
	p->root = engine_root(p->pool);
}

void place_close(struct place *p, bool sudden)
{
	vc_inode_put(p->root);
	engine_stop(p->pool, sudden);
	p->pool = NULL;
}

void place_power_cut(struct place *p, enum vc_sim_keep keep)
{
	struct vc_sim *after;

	if (p->pool)
		place_close(p, true);
	after = vc_sim_crash(p->sim, vc_sim_events(p->sim), &(struct vc_sim_policy){ .keep = keep });
	vc_sim_free(p->sim);
	p->sim = after;
	place_open(p);
}

int place_setup(void **state)
{
	struct vc_pool_geometry geometry = { .chunk_blocks = 1, .chunk_segment_size = 256 << 10, .log_segment_size = 1 << 20, .log_segments = 8 };
	struct place *p = calloc(1, sizeof(*p));

	*state = p;
	assert_non_null(p);
	p->sim = vc_sim_new();
	assert_int_equal(vc_pool_create(vc_sim_io(p->sim), PLACE_POOL, &geometry), 0);
	engine_setup(NULL);
	place_open(p);
	return 0;
}

int place_teardown(void **state)
{
	struct place *p = *state;

	if (p->pool)
		place_close(p, true);
	engine_teardown(NULL);
	vc_sim_free(p->sim);
	free(p);
	return 0;
}

struct vc_inode *place_file(struct place *p, const char *name)
{
	struct vc_inode *inode;

	assert_int_equal(engine_create(p->root, name, S_IFREG | 0600, NULL, &inode), 0);
	return inode;
}

void place_fill(struct vc_inode *inode, uint64_t offset, size_t len, uint64_t seed)
{
	uint64_t *bytes = malloc(len);

	assert_non_null(bytes);
	for (size_t i = 0; i < len / 8; i++)
		bytes[i] = vc_unit_random(&seed);
	assert_int_equal(engine_write(inode, bytes, len, offset, 0), 0);
	free(bytes);
}

bool place_holds(struct vc_inode *inode, uint64_t offset, size_t len, uint64_t seed)
{
	uint64_t *bytes = malloc(len);
	bool same;

	assert_non_null(bytes);
	same = vc_volume_read(inode, bytes, len, offset) == (ssize_t)len;
	for (size_t i = 0; i < len / 8 && same; i++)
		same = bytes[i] == vc_unit_random(&seed);
	free(bytes);
	return same;
}

void place_destage(struct place *p) { assert_int_equal(engine_task(p->pool, VC_TASK_DESTAGE), 0); }
