/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * powerstate: one disk as a power cut could have left it, made from a log of block writes.
 *
 * Everything before the last FLUSH (or with FUA) is there. Of what came after it, up to the moment of the crash, a policy says what is.
 * Sectors of 512 bytes are written entirely or not at all.
 */
#ifndef VC_POWERSTATE_H
#define VC_POWERSTATE_H

#include "memdisk.h"

enum power_keep {
	POWER_KEEP_ALL,
	POWER_KEEP_NONE,
	POWER_KEEP_PREFIX,
	POWER_KEEP_RANDOM,      /* each write with one chance in two */
	POWER_DROP_ONE,
	POWER_KEEP_ONE,
	POWER_TEAR_ONE,         /* all, but of one write only some sectors */
	POWER_TEAR_ALL,         /* each sector with one chance in two */
	POWER_POLICIES,
};

struct power_cut {
	size_t at;              /* entries before this number were issued */
	enum power_keep keep;
	uint64_t seed;          /* of what is random */
};

const char *power_keep_name(enum power_keep keep);
/** `base` holds all entries before number *done: bring it to the last FLUSH before `at`, and *done behind that. */
void power_advance(struct memdisk *base, const struct blklog *log, size_t *done, size_t at);
/** The disk after the cut: `base` (see above, advanced to cut->at), and what the policy keeps of the rest. */
void power_make(struct memdisk *disk, const struct memdisk *base, const struct blklog *log, size_t done, const struct power_cut *cut);

#endif
