/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * alloc_fault: one counter for all calls, and one way to fail them.
 *
 * Only this program links this file: it defines malloc.
 */
#include "config.h"
#include "unit.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "alloc_fault.h"
#include "util.h"

#define SITES 65536
#define LIBRARIES 4

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ALLOC_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ALLOC_SANITIZED 1
#endif
#endif

static struct {
	atomic_bool armed;
	atomic_ullong calls, struck, nth;
	atomic_bool sticky;
	atomic_llong live;
	_Atomic(const void *) sites[SITES];
} faults;

/* One call: must it fail? */
static bool alloc_fails(const void *site)
{
	uint64_t i, nth;

	if (!atomic_load(&faults.armed))
		return false;
	i = atomic_fetch_add(&faults.calls, 1) + 1;
	nth = atomic_load(&faults.nth);
	if (i < SITES)
		atomic_store(&faults.sites[i], site);
	if (nth == 0 || i < nth || (i > nth && !atomic_load(&faults.sticky)))
		return false;
	atomic_fetch_add(&faults.struck, 1);
	errno = ENOMEM;
	return true;
}

static void *alloc_made(void *p)
{
	if (p)
		atomic_fetch_add(&faults.live, 1);
	return p;
}

/* ---- what the engine calls instead of the C library ---- */

void *alloc_fault_malloc(size_t size);
void *alloc_fault_calloc(size_t n, size_t size);
void *alloc_fault_realloc(void *p, size_t size);
void *alloc_fault_reallocarray(void *p, size_t n, size_t size);
void *alloc_fault_aligned_alloc(size_t align, size_t size);
char *alloc_fault_strdup(const char *s);
char *alloc_fault_strndup(const char *s, size_t n);
int alloc_fault_asprintf(char **ret, const char *format, ...) __attribute__((format(printf, 2, 3)));
int alloc_fault_asprintf_chk(char **ret, int flag, const char *format, ...) __attribute__((format(printf, 3, 4)));
int alloc_fault_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
void alloc_fault_free(void *p);

#define SITE __builtin_return_address(0)

void *alloc_fault_malloc(size_t size)
{
	return alloc_fails(SITE) ? NULL : alloc_made(malloc(size));
}

void *alloc_fault_calloc(size_t n, size_t size)
{
	return alloc_fails(SITE) ? NULL : alloc_made(calloc(n, size));
}

void *alloc_fault_realloc(void *p, size_t size)
{
	if (alloc_fails(SITE))
		return NULL;
	return p ? realloc(p, size) : alloc_made(malloc(size));
}

void *alloc_fault_reallocarray(void *p, size_t n, size_t size)
{
	void *made;

	if (alloc_fails(SITE))
		return NULL;
	made = reallocarray(p, n, size);
	return p ? made : alloc_made(made);
}

void *alloc_fault_aligned_alloc(size_t align, size_t size)
{
	return alloc_fails(SITE) ? NULL : alloc_made(aligned_alloc(align, size));
}

char *alloc_fault_strdup(const char *s)
{
	return alloc_fails(SITE) ? NULL : alloc_made(strdup(s));
}

char *alloc_fault_strndup(const char *s, size_t n)
{
	return alloc_fails(SITE) ? NULL : alloc_made(strndup(s, n));
}

/* As glibc does it: what *ret is after a failure, nobody may look at. */
static int alloc_print(const void *site, char **ret, const char *format, va_list args) __attribute__((format(printf, 3, 0)));
static int alloc_print(const void *site, char **ret, const char *format, va_list args)
{
	int n;

	if (alloc_fails(site)) {
		*ret = (char *)(uintptr_t)0x10;
		return -1;
	}
	n = vasprintf(ret, format, args);
	if (n >= 0)
		atomic_fetch_add(&faults.live, 1);
	return n;
}

int alloc_fault_asprintf(char **ret, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = alloc_print(SITE, ret, format, args);
	va_end(args);
	return n;
}

int alloc_fault_asprintf_chk(char **ret, int flag VC_UNUSED, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = alloc_print(SITE, ret, format, args);
	va_end(args);
	return n;
}

int alloc_fault_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	return alloc_fails(SITE) ? EAGAIN : pthread_create(ret, attr, fn, arg);
}

void alloc_fault_free(void *p)
{
	if (p)
		atomic_fetch_sub(&faults.live, 1);
	free(p);
}

/* ---- what the libraries call ---- */

#ifndef ALLOC_SANITIZED
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);

static struct {
	uintptr_t start, end;
} libraries[LIBRARIES];
static size_t nlibraries;

/* Before anything is armed, thus before threads. */
static int library_note(struct dl_phdr_info *info, size_t size VC_UNUSED, void *ctx VC_UNUSED)
{
	if (!strstr(info->dlpi_name, "liblmdb") && !strstr(info->dlpi_name, "liblz4"))
		return 0;
	for (int i = 0; i < info->dlpi_phnum && nlibraries < LIBRARIES; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];

		if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_X))
			continue;
		libraries[nlibraries].start = info->dlpi_addr + ph->p_vaddr;
		libraries[nlibraries++].end = info->dlpi_addr + ph->p_vaddr + ph->p_memsz;
	}
	return 0;
}

static void libraries_find(void)
{
	if (nlibraries == 0)
		dl_iterate_phdr(library_note, NULL);
}

static bool library_fails(const void *site)
{
	if (!atomic_load_explicit(&faults.armed, memory_order_relaxed))
		return false;
	for (size_t i = 0; i < nlibraries; i++)
		if ((uintptr_t)site >= libraries[i].start && (uintptr_t)site < libraries[i].end)
			return alloc_fails(site);
	return false;
}

void *malloc(size_t size)
{
	return library_fails(SITE) ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	return library_fails(SITE) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
	return library_fails(SITE) ? NULL : __libc_realloc(p, size);
}

bool alloc_fault_has_libraries(void)
{
	libraries_find();
	return nlibraries > 0;
}
#else
static void libraries_find(void) { }
bool alloc_fault_has_libraries(void) { return false; }
#endif

/* ---- for the test ---- */

void alloc_fault_arm(uint64_t nth, bool sticky)
{
	libraries_find();
	atomic_store(&faults.armed, false);
	atomic_store(&faults.calls, 0);
	atomic_store(&faults.struck, 0);
	atomic_store(&faults.nth, nth);
	atomic_store(&faults.sticky, sticky);
	for (size_t i = 0; i < SITES; i++)
		atomic_store_explicit(&faults.sites[i], NULL, memory_order_relaxed);
	atomic_store(&faults.armed, true);
}

uint64_t alloc_fault_disarm(void)
{
	atomic_store(&faults.armed, false);
	return atomic_load(&faults.calls);
}

uint64_t alloc_fault_struck(void)
{
	return atomic_load(&faults.struck);
}

const void *alloc_fault_site(uint64_t i)
{
	return i > 0 && i < SITES ? atomic_load(&faults.sites[i]) : NULL;
}

const char *alloc_fault_site_name(const void *site)
{
	static char text[300];
	Dl_info info;

	if (!site || !dladdr(site, &info))
		return "?";
	snprintf(text, sizeof(text), "%s %s+0x%zx", info.dli_sname ? info.dli_sname : "", info.dli_fname,
		 (size_t)((const char *)site - (const char *)info.dli_fbase));
	return text;
}

int64_t alloc_fault_live(void)
{
	return atomic_load(&faults.live);
}

bool alloc_places_add(struct alloc_places *places, const void *site)
{
	for (size_t i = 0; i < places->n; i++)
		if (places->site[i] == site)
			return false;
	assert_true(places->n < ALLOC_PLACES_MAX);
	places->site[places->n++] = site;
	return true;
}

void alloc_fault_choose(uint64_t calls, uint64_t stride, uint64_t *rng, struct alloc_places *places, bool *ret_wanted)
{
	uint64_t next = 1 + vc_unit_below(rng, stride);

	for (uint64_t i = 1; i <= calls; i++) {
		ret_wanted[i] = alloc_places_add(places, alloc_fault_site(i)) || i == next;
		if (i == next)
			next += stride;
	}
}
