/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz: what the fuzz targets share.
 *
 * A target is a function that takes any bytes and ends the process when something is found that must not be. All targets
 * are in one program; which one runs is said by VC_FUZZ_TARGET (libFuzzer) or on the command line (replay.c, which needs
 * no clang). Targets keep nothing from one input to the next but pools and files made once and never changed, so
 * that an input that was found to fail fails alone.
 */
#ifndef VC_FUZZ_H
#define VC_FUZZ_H

#include <stdio.h>
#include <stdlib.h>

#include "util.h"

struct fuzz_target {
	const char *name;       /* also of its directory in tests/fuzz/corpus */
	void (*run)(const uint8_t *data, size_t len);
	size_t max_len;         /* longer inputs say nothing new */
};

/** Ends with an entry without a name. */
extern const struct fuzz_target fuzz_targets[];

/** NULL: there is none of that name. */
const struct fuzz_target *fuzz_find(const char *name);
/** Once in a process, before any target runs: failed assertions abort, messages are swallowed unless VC_TEST_MESSAGES is set. */
void fuzz_setup(void);

/** A condition that holds whatever the input. */
#define fuzz_check(cond) ((cond) ? (void)0 : fuzz_failed(#cond, __FILE__, __LINE__))
void fuzz_failed(const char *cond, const char *file, int line) __attribute__((noreturn));

/** What is printed goes nowhere (true), or where it went before (false). For code that prints what users shall read. */
void fuzz_quiet(bool quiet);

/** Takes an input apart; behind its end everything is zero. */
struct fuzz_in {
	const uint8_t *p;
	size_t left;
};

uint8_t fuzz_u8(struct fuzz_in *in);
uint64_t fuzz_u64(struct fuzz_in *in);
/** A number below n (not 0), from as few bytes as do. */
uint64_t fuzz_below(struct fuzz_in *in, uint64_t n);
/** The next bytes, at most `max`; *ret_len is how many. They are not copied. */
const uint8_t *fuzz_some(struct fuzz_in *in, size_t max, size_t *ret_len);
/** All that is left, as a terminated string without NULs, at most len - 1 bytes of it. */
void fuzz_text(struct fuzz_in *in, char *buf, size_t len);

void fuzz_format(const uint8_t *data, size_t len);
void fuzz_text_line(const uint8_t *data, size_t len);
void fuzz_pattern(const uint8_t *data, size_t len);
void fuzz_mount_options(const uint8_t *data, size_t len);
void fuzz_vclone_options(const uint8_t *data, size_t len);
void fuzz_record(const uint8_t *data, size_t len);
void fuzz_node(const uint8_t *data, size_t len);
void fuzz_row(const uint8_t *data, size_t len);
void fuzz_chunk(const uint8_t *data, size_t len);
void fuzz_log(const uint8_t *data, size_t len);
void fuzz_forge(const uint8_t *data, size_t len);
void fuzz_journal(const uint8_t *data, size_t len);
void fuzz_meta(const uint8_t *data, size_t len);
void fuzz_ioctl(const uint8_t *data, size_t len);
void fuzz_magic(const uint8_t *data, size_t len);
void fuzz_ops(const uint8_t *data, size_t len);

#endif
