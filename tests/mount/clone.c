/* SPDX-License-Identifier: BSD-2-Clause */
/* clone [-n COUNT] WHERE SRC DST: the ioctls as a C program uses them, and the public header as it is installed. */
#include <vclonefs.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

int main(int argc, char **argv)
{
	struct vclonefs_clone_many many = { .size = sizeof(many) };
	struct vclonefs_clone one = { .size = sizeof(one) };
	int fd, r;

	if (argc == 6 && strcmp(argv[1], "-n") == 0) {
		many.count = (uint32_t)atoi(argv[2]);
		argv += 2;
	} else if (argc != 4) {
		fputs("usage: clone [-n COUNT] WHERE SRC DST\n", stderr);
		return 2;
	}
	fd = open(argv[1], O_RDONLY);
	snprintf(one.src, sizeof(one.src), "%s", argv[2]);
	snprintf(one.dst, sizeof(one.dst), "%s", argv[3]);
	memcpy(many.src, one.src, sizeof(many.src));
	memcpy(many.dst, one.dst, sizeof(many.dst));
	r = fd < 0 ? -1 : many.count ? ioctl(fd, VCLONEFS_IOC_CLONE_MANY, &many) : ioctl(fd, VCLONEFS_IOC_CLONE, &one);
	if (r < 0)
		perror(argv[3]);
	return r < 0;
}
