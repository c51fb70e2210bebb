/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * writers: what writers do to their images and clones, decided by a seed alone, and what these hold after each operation. So the ledger of
 * a writer that dies with its machine is two numbers: how many of its operations must have survived, and how many it
 * may have begun.
 *
 * Each writer has one image of its own and clones of it. An image is a row of units of 4 KiB; a unit holds a token, unique to the operation
 * that wrote it, spread over all of its bytes; or zeros. Operations are numbered from 0 in each life (between two power cuts).
 */
#ifndef VC_WRITERS_H
#define VC_WRITERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WRITERS 4
#define WRITER_UNITS 384
#define WRITER_CLONES 5
#define WRITER_NAME 40
#define UNIT_SIZE 4096u

struct image {
	char name[WRITER_NAME]; /* "": none */
	uint32_t units;         /* its size */
	uint64_t tokens[WRITER_UNITS];
};

/** All a writer owns after a number of operations. Plain data, which goes into files as it is. */
struct writer {
	uint64_t rng, life, done; /* done: operations in this life */
	uint32_t number;
	uint32_t nclones;
	struct image image;
	struct image clones[WRITER_CLONES]; /* oldest first */
};

enum op_kind { OP_WRITE, OP_WRITE_DURABLE, OP_FLUSH, OP_PUNCH, OP_RESIZE, OP_CLONE, OP_DELETE };

struct op {
	enum op_kind kind;
	uint32_t start, n;      /* units; OP_RESIZE: n is the new size */
	uint64_t token;         /* of writes */
	char name[WRITER_NAME]; /* of the clone made or deleted */
};

/** Number `number`, before its first life: an image without bytes. */
void writer_init(struct writer *w, uint32_t number);
/** A new life begins with what there is. */
void writer_begin(struct writer *w, uint64_t seed, uint64_t life);
/** What comes next; changes nothing but w->rng. */
void writer_next(struct writer *w, struct op *ret);
/** The operation has happened. */
void writer_apply(struct writer *w, const struct op *op);
/** Is all that came before durable once the operation has returned? */
bool op_is_durable(const struct op *op);

/** The bytes of a unit that holds `token` (0: zeros). */
void unit_fill(uint8_t *unit, uint64_t token, uint32_t index);
/** The token that the bytes are exactly; false: they are nobody's. */
bool unit_token(const uint8_t *unit, uint32_t index, uint64_t *ret);

/** Do both own the same files with the same bytes? */
bool writer_same(const struct writer *a, const struct writer *b);
/** Print the first few differences. */
void writer_explain(const struct writer *expected, const struct writer *found);

#endif
