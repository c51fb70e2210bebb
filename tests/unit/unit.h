/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * unit: what every unit test includes: cmocka with what it needs before it, asserts that stay, seeds, messages.
 *
 * Include it after config.h and before anything else.
 */
#ifndef VC_UNIT_H
#define VC_UNIT_H

#undef NDEBUG
#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

/** The seed of a random test: VC_TEST_SEED from the environment, else a new one; printed, so that it can be given. */
uint64_t vc_unit_seed(void);

/** VC_TEST_THIN from the environment, else 1: a long test does so many times less of the same. For slow builds of what a fast one tests in full. */
uint64_t vc_unit_thin(void);

/** The next number of a generator (splitmix64); *state is the seed at first. */
uint64_t vc_unit_random(uint64_t *state);
/** A number below `n` (not 0). */
uint64_t vc_unit_below(uint64_t *state, uint64_t n);

/**
 * From now on the numbers that vc_unit_random and vc_unit_below give come from these bytes (alive until the next call), whatever the
 * state, until there are none left. For fuzzing: one thread. NULL, 0: no more.
 */
void vc_unit_script(const uint8_t *bytes, size_t len);
/** Bytes that are left of it. */
size_t vc_unit_script_left(void);

/** A new private directory; NULL only if none can be made. Free with vc_unit_rmdir. */
char *vc_unit_tmpdir(void);
/** Remove a directory of vc_unit_tmpdir and all below it, and free the string. */
void vc_unit_rmdir(char *dir);

/** Collect messages instead of printing them; counts them. Call with on = false to print again. */
void vc_unit_catch_messages(bool on);
/** Messages caught since the last call of vc_unit_catch_messages(true). */
unsigned vc_unit_messages(void);
/** The last one caught, "" if none. */
const char *vc_unit_last_message(void);

#endif
