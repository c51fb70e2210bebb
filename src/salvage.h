/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * salvage: the last resort when backup and journal do not lead to the log. On top of what they have (perhaps nothing) every image gets the
 * blocks that chunks say are its own, the newest first; then the log from where it can be read.
 *
 * What cannot be known, because only the journal said it: names of images made since (they are in lost+found, by their number), what
 * clones share with others beyond what they wrote themselves (it reads as zeros), discards and truncations, link targets,
 * attributes, owners.
 */
#ifndef VC_SALVAGE_H
#define VC_SALVAGE_H

#include "rebuild_impl.h"

/**
 * rb's new LMDB is open and at its state's checkpoint. With `with_log` the log is to be replayed after it from where its chain is whole, otherwise
 * it is given up. Sets the state; the caller writes it and repairs names. 0 or -errno.
 */
int vc_salvage(struct rebuild *rb, bool with_log) VC_MUST_CHECK;

#endif
