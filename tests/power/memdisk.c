/* SPDX-License-Identifier: BSD-2-Clause */
/* memdisk: a memfd below a loop device that goes by itself. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "memdisk.h"
#include "util.h"

#define PIECE UINT64_C(65536)
#define LOOP_TRIES 100

static void die(const char *what)
{
	fprintf(stderr, "disk in memory: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t pieces(const struct memdisk *disk) { return disk->size / PIECE; }

static void disk_new(struct memdisk *disk, uint64_t size)
{
	*disk = (struct memdisk){ .fd = memfd_create("disk", MFD_CLOEXEC), .size = VC_ROUND_UP(size, PIECE) };
	if (disk->fd < 0 || ftruncate(disk->fd, (off_t)disk->size) < 0)
		die("memfd");
	disk->bytes = mmap(NULL, disk->size, PROT_READ | PROT_WRITE, MAP_SHARED, disk->fd, 0);
	disk->used = calloc(1, pieces(disk));
	if (disk->bytes == MAP_FAILED || !disk->used)
		die("memory");
}

void memdisk_load(struct memdisk *disk, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t *piece = malloc(PIECE);
	off_t at = 0;
	struct stat st;

	if (!piece || fd < 0 || fstat(fd, &st) < 0)
		die(path);
	disk_new(disk, (uint64_t)st.st_size);
	while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
		at -= at % (off_t)PIECE;
		ssize_t n = pread(fd, piece, PIECE, at);

		if (n < 0)
			die(path);
		if (!vc_is_zero(piece, (size_t)n)) {
			memcpy(disk->bytes + at, piece, (size_t)n);
			disk->used[(uint64_t)at / PIECE] = 1;
		}
		at += (off_t)PIECE;
	}
	free(piece);
	close(fd);
}

void memdisk_copy(struct memdisk *disk, const struct memdisk *from)
{
	disk_new(disk, from->size);
	for (uint64_t i = 0; i < pieces(from); i++)
		if (from->used[i]) {
			memcpy(disk->bytes + i * PIECE, from->bytes + i * PIECE, PIECE);
			disk->used[i] = 1;
		}
}

void memdisk_free(struct memdisk *disk)
{
	munmap(disk->bytes, disk->size);
	free(disk->used);
	close(disk->fd);
}

void memdisk_apply(struct memdisk *disk, const struct blklog *log, const struct blklog_entry *e, uint64_t from, uint64_t len)
{
	uint64_t offset = e->offset + from;

	if (len == 0 || e->flags & BLKLOG_MARK)
		return;
	if (offset > disk->size || len > disk->size - offset) {
		errno = ERANGE;
		die("a write beyond the end");
	}
	if (e->flags & BLKLOG_DISCARD)
		memset(disk->bytes + offset, 0, len);
	else
		blklog_read(log, e, from, disk->bytes + offset, len);
	memset(disk->used + offset / PIECE, 1, (offset + len - 1) / PIECE - offset / PIECE + 1);
}

/* Others may take the number that was free: try again. */
static int loop_attach(int fd, char *ret_path, size_t len)
{
	struct loop_config config = { .fd = (uint32_t)fd, .info = { .lo_flags = LO_FLAGS_AUTOCLEAR } };
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), loop = -1;

	for (int i = 0; control >= 0 && i < LOOP_TRIES; i++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);

		if (number < 0)
			break;
		snprintf(ret_path, len, "/dev/loop%d", number);
		loop = open(ret_path, O_RDWR | O_CLOEXEC);
		if (loop >= 0 && ioctl(loop, LOOP_CONFIGURE, &config) == 0)
			break;
		if (loop >= 0)
			close(loop);
		loop = -1;
	}
	if (loop < 0)
		die("no loop device");
	close(control);
	return loop;
}

int memdisk_mount(struct memdisk *disk, const char *type, const char *dir, const char *options)
{
	char path[32];
	int loop = loop_attach(disk->fd, path, sizeof(path));
	int r = mount(path, dir, type, MS_NOATIME, options) < 0 ? -errno : 0;

	close(loop);
	return r;
}
