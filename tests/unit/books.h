/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * books: the LMDB of a pool that is not open: what it says, compared with what another one says; and ways to damage it.
 */
#ifndef VC_BOOKS_H
#define VC_BOOKS_H

#include "check.h"

struct books_row {
	size_t key_len, len;
	uint8_t *key, *value;
};

struct books {
	struct books_row *rows; /* in key order */
	size_t n, cap;
};

/**
 * All rows of the catalog but those of the state, of segments and of exclusive figures. Of an image's tree the figures
 * stand in for the id of its root.
 */
void books_load(struct vc_io *io, const char *pool_dir, struct books *ret);
void books_free(struct books *b);
/** Prints the first difference. */
bool books_same(const struct books *a, const struct books *b);

/** Run a check, with data and log; every finding is printed when `loud`. The number of findings; fails the test when it cannot check. */
uint64_t books_check(struct vc_io *io, const char *pool_dir, bool loud, struct vc_check_result *ret);

/** As vc_unit_tmpdir, in memory if that can be: thousands of syncs take no time there. With VC_TEST_MEMORY set it is on disk. */
char *books_tmpdir(void);

/** Whole files, on the real file system. */
uint8_t *books_read_file(const char *path, size_t *ret_len);
void books_write_file(const char *path, const void *bytes, size_t len);
void books_copy_file(const char *from, const char *to);
/** "DIR/NAME" in a static buffer, of which there are four. */
const char *books_path(const char *dir, const char *name);
/** How many names of a directory end like that, and one of them. */
size_t books_list(const char *dir, const char *suffix, uint64_t *rng, char *ret_path, size_t len);

#endif
