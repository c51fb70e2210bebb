/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * world: a pool and a model of it, changed together by random operations. Every operation's result is checked.
 *
 * The hooks let a crash test note where in the history of the disk each operation lies: `before` is called before the call
 * of the engine, `after` when it has returned and the model is changed; neither is called for what changes nothing.
 */
#ifndef VC_WORLD_H
#define VC_WORLD_H

#include "model.h"

#define WORLD_OPEN_MAX 6
#define WORLD_WRITE_MAX (1u << 20)

struct world {
	struct vc_pool *pool;
	struct vc_inode *dirs[MODEL_DIRS];
	struct model model;
	struct model_file *open[WORLD_OPEN_MAX]; /* files held open, with a name or without */
	size_t nopen;
	uint64_t rng;
	uint64_t max_size;    /* images grow to this size, a few to nearly 64 TiB */
	size_t max_log_write; /* longest write that is one log record, unless straight to chunks */
	size_t max_names;
	bool atomic;          /* only operations that are one log record each */
	void (*before)(struct world *w);
	void (*after)(struct world *w, bool durable);
	void *ctx;
	uint8_t *buf, *buf2;  /* WORLD_WRITE_MAX bytes each */
};

/** An empty world; limits by the geometry. */
void world_init(struct world *w, uint64_t seed, const struct vc_pool_geometry *geometry);
void world_fini(struct world *w);
/** The pool is open (again): take it; makes the directory sub if it is missing. */
void world_attach(struct world *w, struct vc_pool *pool);
/** Drop everything held in the pool, which is about to be closed. */
void world_detach(struct world *w);
/** Detach, and close the pool or, `sudden`, let go of it as when the process is killed. */
void world_stop(struct world *w, bool sudden);

/** One random operation, no destage or clean. */
void world_step(struct world *w);
/** Does the pool hold what the model says? Prints the differences. */
bool world_verify(struct world *w);
/** A random image: its inode, referenced; NULL: there is none. *ret is not counted. */
struct vc_inode *world_pick(struct world *w, struct model_file **ret);
/** A random write to `f`: fills buf; *ret_offset and the length, never 0. */
size_t world_compose(struct world *w, const struct model_file *f, uint64_t *ret_offset);
/** Remove all names and drop what is held. */
void world_remove_all(struct world *w);

/* world_data.c */
void world_data_step(struct world *w, uint64_t roll);
/* world_names.c */
void world_names_step(struct world *w, uint64_t roll);

/** A name of the file, or "open N", for notes; valid until the next call. */
const char *world_name(const struct world *w, const struct model_file *f);
/** With VC_TEST_TRACE=FILE, every operation is written there before it is done, one per line. */
void world_note(const char *format, ...) VC_PRINTF(1, 2);

static inline void world_before(struct world *w)
{
	if (w->before)
		w->before(w);
}
static inline void world_after(struct world *w, bool durable)
{
	if (w->after)
		w->after(w, durable);
}

#endif
