/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclonefs_options: the list after -o: what is ours is understood, what fstab means for others is dropped, the rest is
 * kept for libfuse. No state; one thread.
 *
 *	list = option ("," option)*      a backslash takes the next character as it is, a comma too
 */
#ifndef VC_VCLONEFS_OPTIONS_H
#define VC_VCLONEFS_OPTIONS_H

#include <limits.h>

#include "fs.h"
#include "vclonefs_drop.h"

/** Begin with all zeros: the defaults. pool.log_dir, once set, points to `log`: do not move the struct. */
struct vc_mount_options {
	char log[PATH_MAX];
	char rest[4096]; /* for libfuse, escaped */
	struct vc_pool_options pool;
	struct vc_fs_options fs;
	struct vc_drop drop;
};

/** Add a list to what is known. 0 or -errno: what came before the bad option holds, and standard error says which it is. */
int vc_mount_options_add(struct vc_mount_options *o, const char *list) VC_MUST_CHECK;

#endif
