/* SPDX-License-Identifier: BSD-2-Clause */
/* blklog: reading a log of block writes. */
#include "config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <endian.h>
#include "blklog.h"

#define MAGIC UINT64_C(0x6a736677736872)
#define LOG_VERSION 1
#define SECTOR_MAX 65536

static void die(const char *what, uint64_t number)
{
	fprintf(stderr, "block log: %s (%" PRIu64 ")\n", what, number);
	exit(1);
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

static void read_at(int fd, void *buf, size_t len, uint64_t at)
{
	if (pread(fd, buf, len, (off_t)at) != (ssize_t)len)
		die("cannot be read at byte", at);
}

static uint64_t sector_size(int fd)
{
	uint8_t super[28];
	uint32_t size;

	read_at(fd, super, sizeof(super), 0);
	if (get64(super) != MAGIC || get64(super + 8) != LOG_VERSION)
		die("not of version", LOG_VERSION);
	memcpy(&size, super + 24, sizeof(size));
	size = le32toh(size);
	if (size < 512 || size > SECTOR_MAX || (size & (size - 1)))
		die("impossible sector size", size);
	return size;
}

static void push(struct blklog *log, const struct blklog_entry *e)
{
	if (log->n % 1024 == 0)
		log->entries = realloc(log->entries, (log->n + 1024) * sizeof(*log->entries));
	if (!log->entries)
		die("out of memory, entries", log->n);
	log->entries[log->n++] = *e;
}

void blklog_open(struct blklog *log, const char *path)
{
	uint64_t sector, at;
	struct stat st;

	*log = (struct blklog){ .fd = open(path, O_RDONLY | O_CLOEXEC) };
	if (log->fd < 0 || fstat(log->fd, &st) < 0)
		die("cannot be opened", 0);
	at = sector = sector_size(log->fd);
	while (at + sector <= (uint64_t)st.st_size) {
		struct blklog_entry e;
		uint8_t head[32];

		read_at(log->fd, head, sizeof(head), at);
		e = (struct blklog_entry){ .offset = get64(head) * sector, .len = get64(head + 8) * sector, .flags = get64(head + 16) };
		e.data = at + sector;
		e.end = e.data + (e.flags & BLKLOG_DISCARD ? 0 : e.len);
		if (e.flags >= BLKLOG_METADATA * 2 || (e.len == 0 && !(e.flags & (BLKLOG_FLUSH | BLKLOG_MARK))))
			die("impossible entry at byte", at);
		if (e.end > (uint64_t)st.st_size)
			die("ends within the entry at byte", at);
		push(log, &e);
		at = e.end;
	}
}

void blklog_close(struct blklog *log)
{
	free(log->entries);
	close(log->fd);
}

void blklog_read(const struct blklog *log, const struct blklog_entry *e, uint64_t from, void *buf, size_t len)
{
	read_at(log->fd, buf, len, e->data + from);
}

size_t blklog_last_flush(const struct blklog *log, size_t n)
{
	while (n-- > 0)
		if (log->entries[n].flags & BLKLOG_FLUSH)
			return n;
	return SIZE_MAX;
}
