/* SPDX-License-Identifier: BSD-2-Clause */
/* The reserve of a pool: what a checkpoint on a full disk has put into pieces of it is there after a power cut. */
#include "config.h"
#include "unit.h"

#include "place.h"
#include "pool_impl.h"

#define BLOCK PLACE_BLOCK
#define MIB PLACE_MIB
#define STEP (4 * BLOCK) /* small enough to go through the log */

static void write_logged(struct vc_inode *inode, uint64_t offset, uint64_t len, uint64_t seed)
{
	for (uint64_t at = 0; at < len; at += STEP)
		place_fill(inode, offset + at, STEP, seed + at);
}

static bool holds(struct vc_inode *inode, uint64_t offset, uint64_t len, uint64_t seed)
{
	bool same = true;

	for (uint64_t at = 0; at < len && same; at += STEP)
		same = place_holds(inode, offset + at, STEP, seed + at);
	return same;
}

/* Nobody finds any room on the disk that is not his already. */
static void fill_disk(struct place *p)
{
	struct vc_io_space space;

	assert_int_equal(vc_io_space(vc_sim_io(p->sim), PLACE_POOL, &space), 0);
	vc_sim_set_capacity(p->sim, space.total - space.free);
}

/* A piece that is a segment of chunks now has its new name for certain when a checkpoint names what is in it. */
static void test_taken_piece_stays(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");
	uint64_t renamed;

	place_destage(p); /* the journal has its room */
	write_logged(a, 0, MIB, 1);
	fill_disk(p);
	renamed = vc_sim_calls(p->sim, VC_SIM_RENAME);
	place_destage(p);
	assert_true(vc_sim_calls(p->sim, VC_SIM_RENAME) > renamed + 2);
	assert_true(holds(a, 0, MIB, 1));
	vc_inode_put(a);
	place_power_cut(p, VC_SIM_KEEP_NONE);
	a = engine_lookup(p->root, "a");
	assert_non_null(a);
	assert_true(holds(a, 0, MIB, 1));
	vc_inode_put(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_taken_piece_stays, place_setup, place_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
