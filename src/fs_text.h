/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_text: small languages that users write: a line of the magic file, and the name pattern of many clones. Pure
 * functions.
 *
 *	line    = word blank word
 *	word    = any of: plain characters, \c (c itself), '...' (as is), "..." (with \" and \\)
 *	blank   = spaces and tabs
 *	pattern = characters with exactly one number (%d, %Nd or %0Nd, N from 1 to 9) and any number of %%
 */
#ifndef VC_FS_TEXT_H
#define VC_FS_TEXT_H

#include "util.h"

/**
 * The next word of [*p, end) into buf, terminated; *p moves behind it. Returns 1, 0 (only blanks left), -EINVAL (open
 * quote, a NUL byte), -ENAMETOOLONG (longer than len - 1).
 */
int fs_text_word(const char **p, const char *end, char *buf, size_t len) VC_MUST_CHECK;

/** The two words of a line into src and dst, `len` bytes each. 1; 0: the line is empty or a comment (#); -EINVAL, -ENAMETOOLONG. */
int fs_text_line(const char *line, const char *end, char *src, char *dst, size_t len) VC_MUST_CHECK;

/** 0, or -EINVAL when it is not a pattern as above. */
int fs_text_pattern_check(const char *pattern) VC_MUST_CHECK;

/** The name for `number` from a checked pattern into buf (`len` bytes). 0 or -ENAMETOOLONG. */
int fs_text_pattern_name(const char *pattern, uint64_t number, char *buf, size_t len) VC_MUST_CHECK;

#endif
