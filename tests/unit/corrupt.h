/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * corrupt: a pool kept in memory, file by file, with older states of it; damage done to a copy on disk; and the judgement
 * of what the engine makes of the damaged copy.
 *
 *   base    tree[CORRUPT_OLD], final    what the files were at three moments, newest last
 *           history                     what the pool held after each operation since the first of them
 *
 * A base ends either closed, with everything in chunks and LMDB, or abandoned, with part of it in the log. Then its last
 * operations are CORRUPT_LOOSE writes that nobody flushed: the log may lose them, and nothing before them, because their
 * batches say that all before was durable.
 */
#ifndef VC_CORRUPT_H
#define VC_CORRUPT_H

#include "world.h"

#define CORRUPT_OLD 2
#define CORRUPT_LOOSE 3
#define CORRUPT_TEXT 400

struct corrupt_file {
	char *name;            /* within the pool */
	uint8_t *bytes;
	size_t len;
};

struct corrupt_tree {
	struct corrupt_file *files;
	size_t n;
};

/** All files below `dir`. */
void corrupt_tree_load(struct corrupt_tree *tree, const char *dir);
/** Make `dir` hold exactly these files; directories that are there stay. */
void corrupt_tree_store(const struct corrupt_tree *tree, const char *dir);
void corrupt_tree_free(struct corrupt_tree *tree);

struct corrupt_base {
	struct corrupt_tree old[CORRUPT_OLD], final;
	struct model *history; /* nhistory; the last is what the final tree holds */
	size_t nhistory, cap;
	bool abandoned;
	char *dir;             /* of the copy that is damaged */
};

/** Random work on a new pool in `dir`. */
void corrupt_base_make(struct corrupt_base *base, const char *dir, uint64_t seed);
void corrupt_base_free(struct corrupt_base *base);

/** What was done to the copy. */
struct corrupt_case {
	char text[CORRUPT_TEXT];
	char names[8][64];     /* files touched */
	size_t nnames;
	bool older_log;        /* a whole log file became an older one: the end of the log may be gone unnoticed */
};

/** Damage the copy in base->dir, which is as the final tree. */
void corrupt_damage(const struct corrupt_base *base, uint64_t *rng, struct corrupt_case *ret);
/** Put back what corrupt_damage changed. */
void corrupt_heal(const struct corrupt_base *base, const struct corrupt_case *c);

enum corrupt_outcome {
	CORRUPT_EXACT,         /* everything is there */
	CORRUPT_REFUSED,       /* the pool did not open, with a message */
	CORRUPT_ERRORS,        /* some reads failed, with messages; all others are right */
	CORRUPT_SHORTER,       /* what was never flushed is gone */
	CORRUPT_OLDER,         /* an older log file was put back, and the log is taken to end there */
	CORRUPT_OUTCOMES,
	CORRUPT_WRONG = CORRUPT_OUTCOMES, /* anything else; said on standard error */
};

/** Open the copy and look at everything; with `change`, go on writing to it, which leaves it changed. */
enum corrupt_outcome corrupt_judge(const struct corrupt_base *base, const struct corrupt_case *c, bool change, uint64_t seed);

#endif
