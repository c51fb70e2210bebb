/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclonefs_keeper: the mount is made, and ended, by a process that does nothing else; the one that serves it has no rights.
 */
#ifndef VCLONEFS_KEEPER_H
#define VCLONEFS_KEEPER_H

#include "fs.h"
#include "vclonefs_drop.h"

struct vc_keeper_job {
	struct vc_fs_options *fs;    /* where to mount; of the serving process: how it is reached is filled in */
	const struct vc_drop *drop;
	int (*serve)(void *ctx);     /* in the serving process, without rights: 0 or -errno */
	void (*ready)(void *ctx);    /* in the keeper: the mount is live */
	void (*stopping)(void *ctx); /* in the keeper: it is about to end */
	void *ctx;
};

/** Mount, fork, and wait for the serving process, passing on what `stop_fd` (a signalfd) says. 0 or -errno. Before threads. */
int vc_keeper_run(const struct vc_keeper_job *job, int stop_fd) VC_MUST_CHECK;

/** In the serving process, its `ready`: tell the keeper. */
void vc_keeper_tell_ready(void);

#endif
