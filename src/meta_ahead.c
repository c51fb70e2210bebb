/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta_ahead: somebody goes through most of the file. LMDB maps it without reading ahead, since single lookups are what it is for, so that such a
 * walk would wait for the device once a page.
 *
 * The kernel reads no more for one call than the largest request of the device, or its read-ahead where that is more: hence small steps. They
 * wait when the device's queue is full.
 */
#include "config.h"
#include "meta.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "meta_impl.h"

/* Of the machine's memory: a file that is larger would drive out what others need, and itself before it is used. */
#define AHEAD_PART 4u
#define AHEAD_STEP (128u << 10)
/* Of one call of ours. */
#define AHEAD_PIECE (8u << 20)

bool vc_meta_ask_ahead(int fd, uint64_t bytes, uint64_t *at)
{
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
	uint64_t end = VC_MIN(*at + AHEAD_PIECE, bytes);

	if (*at >= bytes || pages <= 0 || size <= 0 || bytes > (uint64_t)pages / AHEAD_PART * (uint64_t)size)
		return false;
	for (; *at < end; *at += AHEAD_STEP)
		if (posix_fadvise(fd, (off_t)*at, AHEAD_STEP, POSIX_FADV_WILLNEED) != 0)
			return false;
	return true;
}

bool vc_meta_read_ahead(struct vc_meta *meta, uint64_t *at)
{
	struct stat st;
	int fd;

	if (vc_meta_broken(meta) || mdb_env_get_fd(meta->env, &fd) != 0 || fstat(fd, &st) < 0)
		return false;
	return vc_meta_ask_ahead(fd, (uint64_t)st.st_size, at);
}
