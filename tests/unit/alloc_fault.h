/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * alloc_fault: the allocations of the engine, counted, and made to fail.
 *
 * The test program links a copy of the engine in which malloc, calloc, realloc, reallocarray, free, strdup, strndup, asprintf, aligned_alloc
 * and pthread_create have other names (Makefile.am: ALLOC_FAULT_SYMS), which are defined here. What LMDB and LZ4 allocate goes through this
 * program's own malloc, calloc and realloc, which look at where they were called from; not with sanitizers, which have their own. What
 * the test and its simulated disk allocate never fails and is not counted.
 *
 * Thread-safe while armed; arming and looking is for one thread.
 */
#ifndef VC_ALLOC_FAULT_H
#define VC_ALLOC_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** From now on calls are counted from 1, and the nth (0: none) fails; sticky: every one after it, too. */
void alloc_fault_arm(uint64_t nth, bool sticky);
/** No more failures. Returns how many calls there were. */
uint64_t alloc_fault_disarm(void);
/** Calls that failed since they were armed. */
uint64_t alloc_fault_struck(void);
/** Where the i-th call since arming (from 1) was made: an address in this program or a library; NULL: it was not counted, or is too late to be remembered. */
const void *alloc_fault_site(uint64_t i);
/** "symbol file+offset" of a site, for messages and addr2line; valid until the next call. */
const char *alloc_fault_site_name(const void *site);
/** Blocks that the engine has allocated and not freed. */
int64_t alloc_fault_live(void);
/** Are the allocations of LMDB among them? */
bool alloc_fault_has_libraries(void);

#define ALLOC_PLACES_MAX 1000

/** Sites of calls, each once. */
struct alloc_places {
	const void *site[ALLOC_PLACES_MAX];
	size_t n;
};

/** Was it not among them? */
bool alloc_places_add(struct alloc_places *places, const void *site);
/**
 * Of `calls` calls, as the last run has counted them, those to let fail: the first of each place, and each stride-th one beginning at a random
 * one. ret_wanted has calls + 1 entries.
 */
void alloc_fault_choose(uint64_t calls, uint64_t stride, uint64_t *rng, struct alloc_places *places, bool *ret_wanted);

#endif
