/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * io_vet: may what lies at a path be trusted? Only root and the user this runs as may own or change it, and it is a file or a
 * directory, not a symbolic link. Each refusal sends one message that says what to do.
 */
#ifndef VC_IO_VET_H
#define VC_IO_VET_H

#include "util.h"

struct stat;

/** What is at `path`, as already looked up. 0, -ELOOP (a link), -EINVAL (no file, no directory), -EPERM. */
int vc_io_vet_stat(const char *path, const struct stat *st) VC_MUST_CHECK;

/** The same by path; a link at its end is refused unless `follow`. What does not exist is fine. */
int vc_io_vet_path(const char *path, bool follow) VC_MUST_CHECK;

/** Warn of each directory above the absolute `path` in which somebody else could put another thing in its place. */
void vc_io_vet_above(const char *path);

#endif
