/* SPDX-License-Identifier: BSD-2-Clause */
/* powerstate: which writes of a block log a power cut keeps. */
#include "config.h"
#include "unit.h"

#include "powerstate.h"
#include "util.h"

#define SECTOR UINT64_C(512)

const char *power_keep_name(enum power_keep keep)
{
	static const char *const names[] = { "keep all", "keep none", "keep a prefix", "keep some", "drop one", "keep one", "tear one",
					     "tear all" };

	return names[keep];
}

void power_advance(struct memdisk *base, const struct blklog *log, size_t *done, size_t at)
{
	size_t flush = blklog_last_flush(log, at);

	for (; flush != SIZE_MAX && *done <= flush; ++*done)
		memdisk_apply(base, log, &log->entries[*done], 0, log->entries[*done].len);
}

static void apply_torn(struct memdisk *disk, const struct blklog *log, const struct blklog_entry *e, uint64_t *rng)
{
	for (uint64_t from = 0; from < e->len; from += SECTOR)
		if (vc_unit_below(rng, 2))
			memdisk_apply(disk, log, e, from, SECTOR);
}

static void apply_kept(struct memdisk *disk, const struct blklog *log, size_t i, const struct power_cut *cut, size_t chosen, uint64_t *rng)
{
	const struct blklog_entry *e = &log->entries[i];
	bool keep = true, torn = false;

	switch (cut->keep) {
	case POWER_KEEP_NONE: keep = false; break;
	case POWER_KEEP_PREFIX: keep = i < chosen; break;
	case POWER_KEEP_RANDOM: keep = vc_unit_below(rng, 2); break;
	case POWER_DROP_ONE: keep = i != chosen; break;
	case POWER_KEEP_ONE: keep = i == chosen; break;
	case POWER_TEAR_ONE: torn = i == chosen; break;
	case POWER_TEAR_ALL: torn = true; break;
	default: break;
	}
	if (e->flags & BLKLOG_FUA) /* cannot be told to be incomplete */
		keep = true, torn = false;
	if (torn)
		apply_torn(disk, log, e, rng);
	else if (keep)
		memdisk_apply(disk, log, e, 0, e->len);
}

void power_make(struct memdisk *disk, const struct memdisk *base, const struct blklog *log, size_t done, const struct power_cut *cut)
{
	uint64_t rng = cut->seed;
	size_t chosen = cut->at > done ? done + vc_unit_below(&rng, cut->at - done) : done;

	memdisk_copy(disk, base);
	for (size_t i = done; i < cut->at; i++)
		apply_kept(disk, log, i, cut, chosen, &rng);
}
