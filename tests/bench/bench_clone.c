/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench_clone: times durable clones one by one, the clock around the system calls and nothing else.
 *
 * usage: bench_clone [-n COUNT] [-f FIRST] [-p US] [-k] [-c BLOCK] METHOD DIRECTORY SOURCE...
 *
 *   METHOD  ioctl    VCLONEFS_IOC_CLONE on a descriptor of the directory
 *           file     open .clone, write the two names, close
 *           ficlone  create, FICLONE, fsync, close: what a file system with reflinks asks for
 *           many     VCLONEFS_IOC_CLONE_MANY: COUNT clones of the one source, one line with the time of the call
 *   -n      rounds; each clones every source in turn, so that a drift of the machine hits all (default 1)
 *   -f      number in the first name (default 0): names are clone-%07u, sources counted too
 *   -p      a round starts every US microseconds instead of at once
 *   -k      keep the clones; otherwise each is deleted, outside of its time
 *   -c      a chain: each clone gets one block written, number BLOCK plus its own, and is the next one's source; implies -k
 *
 * Every line of output: number of the source on the command line, microseconds.
 */
#define _GNU_SOURCE 1
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include "vclonefs.h"

#define BLOCK 4096

struct bench {
	int dir;
	const char *path;   /* of the directory */
	const char *method;
	uint32_t count, first;
	uint64_t pace_us;   /* 0: at once */
	uint64_t lba;       /* chains */
	bool keep, chain;
};

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static double clone_ioctl(const struct bench *b, const char *src, const char *dst)
{
	static struct vclonefs_clone arg;
	double start;

	memset(&arg, 0, sizeof(arg));
	arg.size = sizeof(arg);
	snprintf(arg.src, sizeof(arg.src), "%s", src);
	snprintf(arg.dst, sizeof(arg.dst), "%s", dst);
	start = now_us();
	if (ioctl(b->dir, VCLONEFS_IOC_CLONE, &arg) < 0)
		err(1, "clone %s to %s", src, dst);
	return now_us() - start;
}

static double clone_file(const struct bench *b, const char *src, const char *dst)
{
	char line[600];
	int len = snprintf(line, sizeof(line), "%s %s\n", src, dst);
	double start = now_us();
	int fd = openat(b->dir, ".clone", O_WRONLY);

	if (fd < 0 || write(fd, line, (size_t)len) != len || close(fd) < 0)
		err(1, ".clone: %s to %s", src, dst);
	return now_us() - start;
}

static double clone_ficlone(const struct bench *b, const char *src, const char *dst)
{
	double start = now_us();
	int from = openat(b->dir, src, O_RDONLY);
	int to = openat(b->dir, dst, O_WRONLY | O_CREAT | O_EXCL, 0600);

	if (from < 0 || to < 0)
		err(1, "%s or %s", src, dst);
	if (ioctl(to, FICLONE, from) < 0)
		err(1, "FICLONE %s to %s", src, dst);
	if (fsync(to) < 0)
		err(1, "fsync %s", dst);
	close(to);
	close(from);
	return now_us() - start;
}

static double clone_one(const struct bench *b, const char *src, const char *dst)
{
	if (strcmp(b->method, "ioctl") == 0)
		return clone_ioctl(b, src, dst);
	if (strcmp(b->method, "file") == 0)
		return clone_file(b, src, dst);
	if (strcmp(b->method, "ficlone") == 0)
		return clone_ficlone(b, src, dst);
	errx(2, "'%s' is not a method", b->method);
}

static double clone_many(const struct bench *b, const char *src)
{
	static struct vclonefs_clone_many arg = { .size = sizeof(arg) };
	double start;

	arg.first = b->first;
	arg.count = b->count;
	snprintf(arg.src, sizeof(arg.src), "%s", src);
	snprintf(arg.dst, sizeof(arg.dst), "clone-%%07d");
	start = now_us();
	if (ioctl(b->dir, VCLONEFS_IOC_CLONE_MANY, &arg) < 0)
		err(1, "%" PRIu32 " clones of %s", b->count, src);
	return now_us() - start;
}

static void write_block(const struct bench *b, const char *name, uint64_t lba)
{
	static char block[BLOCK];
	int fd = openat(b->dir, name, O_WRONLY);

	memset(block, (int)(lba % 255) + 1, sizeof(block));
	if (fd < 0 || pwrite(fd, block, sizeof(block), (off_t)(lba * BLOCK)) != BLOCK || close(fd) < 0)
		err(1, "%s: writing", name);
}

/** Absolute deadlines, so that a slow clone does not shift those after it. */
static void pace(const struct bench *b, double start, uint32_t round)
{
	double rest = start + (double)b->pace_us * round - now_us();
	struct timespec ts;

	if (b->pace_us == 0 || rest <= 0)
		return;
	ts.tv_sec = (time_t)(rest / 1e6);
	ts.tv_nsec = (long)((rest - (double)ts.tv_sec * 1e6) * 1e3);
	nanosleep(&ts, NULL);
}

static void run_round(const struct bench *b, uint32_t round, int nsources, char **sources)
{
	static char last[32];

	for (int i = 0; i < nsources; i++) {
		uint32_t number = b->first + round * (uint32_t)nsources + (uint32_t)i;
		const char *src = b->chain && *last ? last : sources[i];
		char dst[32];

		snprintf(dst, sizeof(dst), "clone-%07" PRIu32, number);
		printf("%d %.1f\n", i, clone_one(b, src, dst));
		if (b->chain) {
			write_block(b, dst, b->lba + number);
			strcpy(last, dst);
		} else if (!b->keep && unlinkat(b->dir, dst, 0) < 0) {
			err(1, "%s", dst);
		}
	}
}

static uint64_t number(const char *text, uint64_t max)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);

	if (end == text || *end || value > max)
		errx(2, "'%s' is not a number up to %" PRIu64, text, max);
	return value;
}

int main(int argc, char **argv)
{
	struct bench b = { .count = 1 };
	double start;
	int c;

	while ((c = getopt(argc, argv, "n:f:p:kc:")) != -1) {
		switch (c) {
		case 'n': b.count = (uint32_t)number(optarg, 1000000); break;
		case 'f': b.first = (uint32_t)number(optarg, 9000000); break;
		case 'p': b.pace_us = number(optarg, 10000000); break;
		case 'k': b.keep = true; break;
		case 'c': b.chain = true; b.lba = number(optarg, UINT32_MAX); break;
		default: return 2;
		}
	}
	if (argc - optind < 3 || (b.chain && argc - optind > 3))
		errx(2, "usage: bench_clone [-n COUNT] [-f FIRST] [-p US] [-k] [-c BLOCK] METHOD DIRECTORY SOURCE...");
	b.method = argv[optind];
	b.path = argv[optind + 1];
	b.dir = open(b.path, O_RDONLY | O_DIRECTORY);
	if (b.dir < 0)
		err(1, "%s", b.path);
	if (strcmp(b.method, "many") == 0) {
		printf("0 %.1f\n", clone_many(&b, argv[optind + 2]));
		return 0;
	}
	start = now_us();
	for (uint32_t i = 0; i < b.count; i++) {
		pace(&b, start, i);
		run_round(&b, i, argc - optind - 2, argv + optind + 2);
	}
	return 0;
}
