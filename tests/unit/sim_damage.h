/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sim_damage: what is lost or wrong in a pool on a simulated disk that is not open. They fail the test when they cannot do it.
 */
#ifndef VC_SIM_DAMAGE_H
#define VC_SIM_DAMAGE_H

#include "books.h"
#include "io_sim.h"

/** LMDB's file is gone. */
void sim_damage_lmdb(struct vc_sim *sim, const char *pool_dir);
/** So are destage journal and backups. */
void sim_damage_all(struct vc_sim *sim, const char *pool_dir);
/** Two names and a link count of what the checkpoint, whose rows are `b`, holds go wrong. */
void sim_damage_rows(struct vc_sim *sim, const char *pool_dir, const struct books *b);

#endif
