/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * place: a small pool of known geometry on a simulated disk, for tests that say each step themselves: it is destaged on demand
 * only, a chunk is one block, the log has eight segments of 1 MiB, a chunk segment 256 KiB.
 *
 * Functions fail the test when what they do fails.
 */
#ifndef VC_PLACE_H
#define VC_PLACE_H

#include "engine.h"
#include "io_sim.h"

#define PLACE_POOL "/pool"
#define PLACE_BLOCK VC_BLOCK_SIZE
#define PLACE_MIB (1u << 20)

struct place {
	struct vc_sim *sim;
	struct vc_pool *pool;  /* NULL: closed */
	struct vc_inode *root; /* counted while it is open */
};

/** For cmocka: *state is a struct place with a new pool, open. */
int place_setup(void **state);
int place_teardown(void **state);

void place_open(struct place *p);
/** sudden: as when the process is killed. */
void place_close(struct place *p, bool sudden);

/** Stop suddenly if it is open, lose what `keep` says of what was not synced, open again. */
void place_power_cut(struct place *p, enum vc_sim_keep keep);

/** A new file in the root; counted. */
struct vc_inode *place_file(struct place *p, const char *name);
/** Bytes that do not compress, and follow from the seed. */
void place_fill(struct vc_inode *inode, uint64_t offset, size_t len, uint64_t seed);
/** Does it read as place_fill has written it? */
bool place_holds(struct vc_inode *inode, uint64_t offset, size_t len, uint64_t seed);
void place_destage(struct place *p);

#endif
