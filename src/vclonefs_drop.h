/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclonefs_drop: giving up rights for good, before the first thread is made (each thread has its own).
 */
#ifndef VCLONEFS_DROP_H
#define VCLONEFS_DROP_H

#include "util.h"

#define VC_DROP_USER_MAX 256

struct vc_drop {
	bool wanted;
	char user[VC_DROP_USER_MAX]; /* name or number of who to become; empty: stay who we are */
};

/**
 * Become that user, with his groups, and give up every capability, also those that a program could give back (bounding set,
 * no_new_privs); nobody may look into the process. 0 or -errno, with a message; then nothing must be served.
 */
int vc_drop_all(const struct vc_drop *drop) VC_MUST_CHECK;

/** Of root's capabilities keep those for unmounting. Somebody else, who unmounts with a helper, keeps what he has. */
int vc_drop_all_but_mount(void) VC_MUST_CHECK;

#endif
