/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * clone_latency: does the time of a clone depend on the size of the image, on how many images there are, or on depth?
 *
 * usage: clone_latency [-m BLOCKS] [-n SAMPLES] [-c IMAGES] [-d DEPTH] DIRECTORY
 *
 * DIRECTORY is an empty directory on a mount. Every clone is made by the ioctl and timed alone, with the clock around the
 * call; it is durable when the call returns, so the device's flush is part of the time. What is compared is
 * measured in turns (A, B, A, B, ...), so that a drift of the machine hits both.
 */
#define _GNU_SOURCE 1
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "vclonefs.h"

#define BLOCK 4096
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

struct bench {
	int dir;
	uint64_t nmapped; /* blocks written into the large image */
	uint32_t nsamples, nimages, depth;
};

struct samples {
	double *us;
	size_t n, room;
};

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static void samples_add(struct samples *s, double us)
{
	if (s->n == s->room) {
		s->room = s->room ? 2 * s->room : 256;
		s->us = reallocarray(s->us, s->room, sizeof(*s->us));
		if (!s->us)
			err(1, "samples");
	}
	s->us[s->n++] = us;
}

static int compare_double(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/** Print one line and return the median; the samples are gone afterwards. */
static double samples_report(struct samples *s, const char *what)
{
	double median, p99;

	if (s->n == 0)
		errx(1, "%s: nothing was measured", what);
	qsort(s->us, s->n, sizeof(*s->us), compare_double);
	median = s->us[s->n / 2];
	p99 = s->us[s->n * 99 / 100];
	printf("%-58s %7zu %10.0f %10.0f\n", what, s->n, median, p99);
	fflush(stdout);
	free(s->us);
	*s = (struct samples){ 0 };
	return median;
}

static void heading(const char *text)
{
	printf("\n%-58s %7s %10s %10s\n", text, "clones", "median us", "p99 us");
}

static double clone_timed(const struct bench *b, const char *src, const char *dst)
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

/** Clone, note the time, delete the clone. */
static void sample(const struct bench *b, struct samples *s, const char *src)
{
	samples_add(s, clone_timed(b, src, "sample.img"));
	if (unlinkat(b->dir, "sample.img", 0) < 0)
		err(1, "sample.img");
}

static void make_image(const struct bench *b, const char *name, uint64_t size, uint64_t nblocks)
{
	int fd = openat(b->dir, name, O_CREAT | O_EXCL | O_WRONLY | O_DIRECT, 0600);
	uint64_t *block = aligned_alloc(BLOCK, BLOCK);
	uint64_t step = size / nblocks / BLOCK * BLOCK;

	if (fd < 0 || !block || ftruncate(fd, (off_t)size) < 0)
		err(1, "%s", name);
	for (uint64_t i = 0; i < nblocks; i++) {
		for (size_t k = 0; k < BLOCK / sizeof(*block); k++)
			block[k] = i * 1000003 + k / 8;
		if (pwrite(fd, block, BLOCK, (off_t)(i * step)) != BLOCK)
			err(1, "%s: writing", name);
	}
	if (fsync(fd) < 0)
		err(1, "%s: syncing", name);
	close(fd);
	free(block);
}

static void write_block(const struct bench *b, const char *name, uint64_t lba)
{
	static char block[BLOCK];
	int fd = openat(b->dir, name, O_WRONLY);

	memset(block, (int)(lba % 255) + 1, sizeof(block));
	if (fd < 0 || pwrite(fd, block, sizeof(block), (off_t)(lba * BLOCK)) != BLOCK)
		err(1, "%s: writing", name);
	close(fd);
}

static void destage(const struct bench *b)
{
	struct vclonefs_task_status start = { .size = sizeof(start), .task = VCLONEFS_TASK_DESTAGE }, now;
	const struct timespec pause = { .tv_nsec = 20000000 };

	if (ioctl(b->dir, VCLONEFS_IOC_TASK_START, &start) < 0)
		err(1, "destage");
	do {
		nanosleep(&pause, NULL);
		now = (struct vclonefs_task_status){ .size = sizeof(now), .task = VCLONEFS_TASK_DESTAGE };
		if (ioctl(b->dir, VCLONEFS_IOC_TASK_STATUS, &now) < 0)
			err(1, "destage");
	} while (now.running && now.id == start.id);
	if (now.error)
		errx(1, "destage: %s", strerror(abs(now.error)));
}

static void bench_size(const struct bench *b)
{
	struct samples small = { 0 }, large = { 0 };
	char text[100];
	double s, l;

	printf("preparing an image of 1 TiB with %" PRIu64 " mapped blocks ...\n", b->nmapped);
	fflush(stdout);
	make_image(b, "small.img", GIB, 256);
	make_image(b, "large.img", 1024 * GIB, b->nmapped);
	destage(b);
	for (uint32_t i = 0; i < b->nsamples; i++) {
		sample(b, &small, "small.img");
		sample(b, &large, "large.img");
	}
	heading("image size");
	s = samples_report(&small, "1 GiB, 256 mapped blocks");
	snprintf(text, sizeof(text), "1 TiB, %" PRIu64 " mapped blocks", b->nmapped);
	l = samples_report(&large, text);
	printf("%-58s %18.2f\n", "ratio of medians, large to small", l / s);
}

static void bench_count(const struct bench *b)
{
	static struct vclonefs_clone_many many = { .size = sizeof(many), .src = "small.img", .dst = "many-%05d.img" };
	struct samples few = { 0 }, lots = { 0 };
	char text[100];
	double f, l, start;

	for (uint32_t i = 0; i < b->nsamples; i++)
		sample(b, &few, "small.img");
	many.count = b->nimages;
	start = now_us();
	if (ioctl(b->dir, VCLONEFS_IOC_CLONE_MANY, &many) < 0)
		err(1, "%u clones at once", b->nimages);
	start = now_us() - start;
	for (uint32_t i = 0; i < b->nsamples; i++)
		sample(b, &lots, "small.img");
	heading("number of images");
	f = samples_report(&few, "2 images");
	snprintf(text, sizeof(text), "%u images", b->nimages + 2);
	l = samples_report(&lots, text);
	printf("%-58s %18.2f\n", "ratio of medians, many to few", l / f);
	snprintf(text, sizeof(text), "%u clones in one call, all durable, in all", b->nimages);
	printf("%-58s %15.0f ms\n", text, start / 1000);
}

/** A chain of clones of clones, each with a write of its own; the first and the last clones of it are compared. */
static void bench_depth(const struct bench *b)
{
	uint32_t window = b->depth / 10 > 0 ? b->depth / 10 : 1;
	struct samples first = { 0 }, last = { 0 };
	char from[32] = "small.img", to[32], text[100];
	double f, l;

	for (uint32_t i = 1; i <= b->depth; i++) {
		double us;

		snprintf(to, sizeof(to), "deep-%05u.img", i);
		us = clone_timed(b, from, to);
		if (i <= window)
			samples_add(&first, us);
		if (i > b->depth - window)
			samples_add(&last, us);
		write_block(b, to, i);
		strcpy(from, to);
	}
	heading("depth, each clone written to before it is cloned");
	snprintf(text, sizeof(text), "depth 1 to %u", window);
	f = samples_report(&first, text);
	snprintf(text, sizeof(text), "depth %u to %u", b->depth - window + 1, b->depth);
	l = samples_report(&last, text);
	printf("%-58s %18.2f\n", "ratio of medians, deep to shallow", l / f);
}

static uint32_t number(const char *text, uint32_t min, uint32_t max)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (end == text || *end || value < min || value > max)
		errx(2, "'%s' is not a number from %u to %u", text, min, max);
	return (uint32_t)value;
}

int main(int argc, char **argv)
{
	struct bench b = { .nmapped = MIB, .nsamples = 300, .nimages = 10000, .depth = 1000 };
	int c;

	while ((c = getopt(argc, argv, "m:n:c:d:")) != -1) {
		switch (c) {
		case 'm': b.nmapped = number(optarg, 1, UINT32_MAX); break;
		case 'n': b.nsamples = number(optarg, 1, 1000000); break;
		case 'c': b.nimages = number(optarg, 1, 10000); break;
		case 'd': b.depth = number(optarg, 1, 100000); break;
		default: optind = argc; break;
		}
	}
	if (argc - optind != 1)
		errx(2, "usage: clone_latency [-m BLOCKS] [-n SAMPLES] [-c IMAGES] [-d DEPTH] DIRECTORY");
	b.dir = open(argv[optind], O_RDONLY | O_DIRECTORY);
	if (b.dir < 0)
		err(1, "%s", argv[optind]);
	bench_size(&b);
	bench_count(&b);
	bench_depth(&b);
	close(b.dir);
	return 0;
}
