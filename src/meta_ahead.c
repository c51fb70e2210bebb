/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta_ahead: somebody goes through most of the file. LMDB maps it without reading ahead, since single lookups are what it is for, so that such a
 * walk waits for the device once a page: 40 s for 850 MB, where the device gives them in one.
 */
#include "config.h"
#include "meta.h"

#include <fcntl.h>
#include <unistd.h>

#include "meta_impl.h"

/* Of the machine's memory: a file that is larger would drive out what others need, and itself before it is used. */
#define AHEAD_PART 4u
/* The kernel reads no more for one call than the read-ahead of the device, which is rarely set lower. */
#define AHEAD_STEP (128u << 10)

void vc_meta_ask_ahead(int fd, uint64_t bytes)
{
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

	if (pages <= 0 || size <= 0 || bytes > (uint64_t)pages / AHEAD_PART * (uint64_t)size)
		return;
	for (uint64_t at = 0; at < bytes; at += AHEAD_STEP)
		if (posix_fadvise(fd, (off_t)at, AHEAD_STEP, POSIX_FADV_WILLNEED) != 0)
			return;
}

void vc_meta_read_ahead(struct vc_meta *meta)
{
	MDB_envinfo info;
	MDB_stat stat;
	int fd;

	if (vc_meta_broken(meta) || mdb_env_get_fd(meta->env, &fd) != 0 || mdb_env_info(meta->env, &info) != 0 || mdb_env_stat(meta->env, &stat) != 0)
		return;
	vc_meta_ask_ahead(fd, ((uint64_t)info.me_last_pgno + 1) * stat.ms_psize);
}
