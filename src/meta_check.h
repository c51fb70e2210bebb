/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta_check: is a file safe to be mapped by LMDB? Private to the meta store.
 *
 * Plain reads only; nothing is mapped, locked or changed.
 */
#ifndef VC_META_CHECK_H
#define VC_META_CHECK_H

#include "util.h"

/**
 * Check both meta pages of the LMDB file `path` (page flag, magic, version, page size, roots) and that the file holds
 * every page that the newest one claims and that is not on its free list. Returns 0, -ENOENT (no message), -EUCLEAN, -errno.
 */
int vc_meta_check_file(const char *path) VC_MUST_CHECK;

/**
 * Read all of LMDB's table of readers in the directory `dir`: LMDB maps it too, and lives as long as it can be read. A table that is not there yet
 * is in order. Not while this process has the store open: closing any descriptor of the table ends LMDB's locks on it (fcntl(2)).
 * Returns 0 or -errno.
 */
int vc_meta_check_lock(const char *dir) VC_MUST_CHECK;

#endif
