/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * alloc-fail: LD_PRELOAD this, and allocations fail at random, as often as the first number of the file $VC_ALLOC_FAIL says (of 65536; 0:
 * none). The second number counts those that did. Both are 32 bits in the byte order of the machine, so a test changes them at any time.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);
extern void *__libc_memalign(size_t align, size_t size);

static struct control {
	atomic_uint rate, failed;
} *_Atomic control;
static atomic_ullong calls;

__attribute__((constructor)) static void control_open(void)
{
	const char *path = getenv("VC_ALLOC_FAIL");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *p;

	if (fd < 0)
		return;
	p = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p != MAP_FAILED)
		atomic_store(&control, p);
	atomic_store(&calls, (unsigned long long)getpid() << 32);
}

static int fails(void)
{
	struct control *c = atomic_load(&control);
	uint64_t x;

	if (!c || atomic_load(&c->rate) == 0)
		return 0;
	x = atomic_fetch_add(&calls, 1) * UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	if (((x ^ x >> 31) & 65535) >= atomic_load(&c->rate))
		return 0;
	atomic_fetch_add(&c->failed, 1);
	errno = ENOMEM;
	return 1;
}

void *malloc(size_t size)
{
	return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	return fails() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
	return fails() ? NULL : __libc_realloc(p, size);
}

void *aligned_alloc(size_t align, size_t size)
{
	return fails() ? NULL : __libc_memalign(align, size);
}

int posix_memalign(void **ret, size_t align, size_t size)
{
	void *p = fails() ? NULL : __libc_memalign(align, size);

	if (!p)
		return ENOMEM;
	*ret = p;
	return 0;
}
