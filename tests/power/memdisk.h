/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memdisk: a disk in memory that the kernel can mount, for states of a disk that a crash may leave.
 *
 * Sparse, and copied at the cost of what was ever written to it. One thread. Everything aborts with a message when the
 * system refuses, except mounting, which is the thing tested.
 */
#ifndef VC_MEMDISK_H
#define VC_MEMDISK_H

#include "blklog.h"

struct memdisk {
	int fd;         /* of a memfd */
	uint8_t *bytes; /* all of it, mapped */
	uint8_t *used;  /* one a piece: was it written? */
	uint64_t size;
};

/** With the contents of the file at `path`. */
void memdisk_load(struct memdisk *disk, const char *path);
void memdisk_copy(struct memdisk *disk, const struct memdisk *from);
void memdisk_free(struct memdisk *disk);

/** Do to the disk what the entry says; of a write only the bytes [from, from + len). */
void memdisk_apply(struct memdisk *disk, const struct blklog *log, const struct blklog_entry *e, uint64_t from, uint64_t len);

/** Mount it at `dir`. 0 or -errno. It goes with the last umount; do not write to it in between. */
int memdisk_mount(struct memdisk *disk, const char *type, const char *dir, const char *options);

#endif
