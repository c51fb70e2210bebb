/* SPDX-License-Identifier: BSD-2-Clause */
/* fault_script: the steps, and what must hold after them. */
#include "config.h"
#include "unit.h"

#include <linux/falloc.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "engine.h"
#include "fault_script.h"
#include "log_impl.h"
#include "pool_impl.h"

#define POOL "/pool"
#define TRIES 50

enum step_kind {
	STEP_CREATE, STEP_WRITE, STEP_DSYNC, STEP_FLUSH, STEP_CLONE, STEP_PUNCH, STEP_RESIZE, STEP_RENAME, STEP_DELETE,
	STEP_XATTR, STEP_COPY, STEP_DESTAGE, STEP_CLEAN, STEP_READ, STEP_REOPEN, STEP_KILL,
};

struct step {
	enum step_kind kind;
	const char *a, *b;
	uint64_t offset, len;
};

static const char *const step_names[] = {
	"create", "write", "synchronous write", "flush", "clone", "punch", "resize", "rename", "delete",
	"xattr", "copy range", "destage", "clean", "read", "close and open", "kill and open",
};

static const struct step steps[] = {
	{ STEP_CREATE, "a", NULL, 0, 0 },
	{ STEP_WRITE, "a", NULL, 0, 20000 },
	{ STEP_FLUSH, NULL, NULL, 0, 0 },
	{ STEP_WRITE, "a", NULL, 8192, 8192 },
	{ STEP_DSYNC, "a", NULL, 4096, 8192 },
	{ STEP_WRITE, "a", NULL, 131072, 131072 }, /* straight to chunks */
	{ STEP_FLUSH, NULL, NULL, 0, 0 },
	{ STEP_CLONE, "a", "b", 0, 0 },
	{ STEP_WRITE, "b", NULL, 5000, 100 },
	{ STEP_CLONE, "b", "c", 0, 0 },
	{ STEP_DESTAGE, NULL, NULL, 0, 0 },
	{ STEP_PUNCH, "a", NULL, 8192, 16384 },
	{ STEP_WRITE, "b", NULL, 40960, 45056 },
	{ STEP_RESIZE, "a", NULL, 0, 150000 },
	{ STEP_RENAME, "a", "d", 0, 0 },
	{ STEP_XATTR, "d", NULL, 0, 0 },
	{ STEP_READ, NULL, NULL, 0, 0 },
	{ STEP_DESTAGE, NULL, NULL, 0, 0 },
	{ STEP_DELETE, "b", NULL, 0, 0 },
	{ STEP_CLEAN, NULL, NULL, 0, 0 },
	{ STEP_DSYNC, "c", NULL, 65536, 131072 },
	{ STEP_REOPEN, NULL, NULL, 0, 0 },
	{ STEP_READ, NULL, NULL, 0, 0 },
	{ STEP_WRITE, "d", NULL, 0, 12288 },
	{ STEP_WRITE, "d", NULL, 65536, 65536 },
	{ STEP_CLONE, "d", "e", 0, 0 },
	{ STEP_KILL, NULL, NULL, 0, 0 },
	{ STEP_COPY, "d", "c", 0, 65536 },
	{ STEP_DELETE, "d", NULL, 0, 0 },
	{ STEP_READ, NULL, NULL, 0, 0 },
	{ STEP_DESTAGE, NULL, NULL, 0, 0 },
	{ STEP_CLEAN, NULL, NULL, 0, 0 },
	{ STEP_WRITE, "e", NULL, 3, 9 },
	{ STEP_REOPEN, NULL, NULL, 0, 0 },
	{ STEP_READ, NULL, NULL, 0, 0 },
};

const char *fault_script_step_name(unsigned step)
{
	return step < VC_ARRAY_LEN(steps) ? step_names[steps[step].kind] : "the end";
}

bool fault_script_failed(struct fault_script *s)
{
	struct vc_pool *pool = s->run->w.pool;

	return pool && (atomic_load(&pool->failed) || vc_log_failed(pool->log)); /* vc_pool_figures may want memory, or read */
}

/* ---- steps ---- */

static struct model_file *step_file(struct fault_script *s, const char *name)
{
	struct model_name *n = model_find(&s->run->w.model, 0, name);

	return n ? n->file : NULL;
}

static void step_fill(struct fault_script *s, size_t len)
{
	uint64_t x = vc_unit_random(&s->run->w.rng);

	for (size_t i = 0; i < len; i += sizeof(x)) {
		memcpy(s->run->w.buf + i, &x, VC_MIN(sizeof(x), len - i));
		x = i % 2048 < 1024 ? x * UINT64_C(6364136223846793005) + 1 : x;
	}
}

static int step_engine(struct fault_script *s, const struct step *st, struct vc_inode *inode)
{
	struct vc_inode *root = s->run->w.dirs[0], *made = NULL, *other;
	uint64_t copied;
	int r;

	switch (st->kind) {
	case STEP_CREATE:
		r = engine_create(root, st->a, S_IFREG | 0640, NULL, &made);
		break;
	case STEP_WRITE:
	case STEP_DSYNC:
		return engine_write(inode, s->run->w.buf, st->len, st->offset, st->kind == STEP_DSYNC ? VC_WRITE_DSYNC : 0);
	case STEP_FLUSH:
		return engine_flush(root);
	case STEP_CLONE:
		r = engine_clone(inode, root, st->b, &made);
		break;
	case STEP_PUNCH:
		return engine_allocate(inode, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, st->offset, st->len);
	case STEP_RESIZE:
		return engine_resize(inode, st->len);
	case STEP_RENAME:
		return engine_rename(root, st->a, root, st->b, 0);
	case STEP_DELETE:
		return engine_unlink(root, st->a);
	case STEP_XATTR:
		return vc_xattr_set(inode, "user.0", "value", 5, 0);
	case STEP_COPY:
		r = vc_names_lookup(root, st->b, &other);
		if (r < 0)
			return r;
		r = engine_copy_range(inode, st->offset, other, st->offset, st->len, true, &copied);
		vc_inode_put(other);
		return r;
	default:
		return -EINVAL;
	}
	if (r == 0)
		vc_inode_put(made);
	return r;
}

static void step_model_clone(struct model *m, const struct model_file *src, const char *name)
{
	struct model_file *f = model_file_new(S_IFREG | 0600);

	model_copy(&f->data, &src->data);
	model_add(m, 0, name, f);
}

static void step_model_copy(struct model_file *src, struct model_file *dst, const struct step *st)
{
	uint64_t len = VC_MIN(st->len, src->data.size - st->offset);
	uint8_t *buf = malloc(len);

	assert(buf);
	model_read(&src->data, buf, len, st->offset);
	model_write(&dst->data, buf, len, st->offset);
	model_touch(dst);
	free(buf);
}

static void step_apply(struct fault_script *s, const struct step *st)
{
	struct model *m = &s->run->w.model;
	struct model_file *f = step_file(s, st->a ? st->a : "");

	switch (st->kind) {
	case STEP_CREATE:
		model_add(m, 0, st->a, model_file_new(S_IFREG | 0640));
		return;
	case STEP_WRITE:
	case STEP_DSYNC:
		model_write(&f->data, s->run->w.buf, st->len, st->offset);
		break;
	case STEP_CLONE:
		step_model_clone(m, f, st->b);
		return;
	case STEP_PUNCH:
		model_zero(&f->data, st->offset, VC_MIN(st->len, f->data.size - st->offset));
		break;
	case STEP_RESIZE:
		model_resize(&f->data, st->len);
		break;
	case STEP_RENAME:
		model_file_get(f);
		model_remove(m, model_find(m, 0, st->a));
		model_add(m, 0, st->b, f);
		return;
	case STEP_DELETE:
		model_remove(m, model_find(m, 0, st->a));
		return;
	case STEP_XATTR:
		strcpy(f->xattrs[0], "value");
		break;
	case STEP_COPY:
		step_model_copy(f, step_file(s, st->b), st);
		return;
	default:
		return;
	}
	model_touch(f);
}

static bool step_durable(enum step_kind kind)
{
	return kind != STEP_WRITE && kind != STEP_XATTR;
}

static bool step_may_return(const struct fault_script *s, int r)
{
	for (const int *a = s->allowed; a && *a; a++)
		if (*a == -r)
			return true;
	return !s->allowed;
}

static void step_failed(struct fault_script *s, unsigned step, int r)
{
	s->refused++;
	if (s->bad || step_may_return(s, r))
		return;
	s->bad = r;
	s->bad_step = step;
}

/* The model without the step that is in doubt comes back; what is in doubt is a state that may be found. */
static void step_doubt(struct fault_script *s, const struct step *st)
{
	struct model before = { .n = 0 };

	if (s->has_doubt)
		return;
	model_snapshot(&s->run->w.model, &before);
	step_apply(s, st);
	crash_run_doubt(s->run);
	model_snapshot(&s->run->w.model, &s->doubt);
	s->has_doubt = true;
	model_clear(&s->run->w.model);
	model_snapshot(&before, &s->run->w.model);
	model_clear(&before);
}

static void step_change(struct fault_script *s, unsigned step)
{
	const struct step *st = &steps[step];
	struct vc_inode *inode = NULL;
	int r = 0;

	if ((st->a && st->kind != STEP_CREATE && !step_file(s, st->a)) || (st->kind == STEP_COPY && !step_file(s, st->b)))
		return; /* what it needs was refused before */
	step_fill(s, st->len);
	if (st->a && st->kind != STEP_CREATE)
		r = vc_names_lookup(s->run->w.dirs[0], st->a, &inode);
	crash_run_begin(s->run);
	if (r == 0) {
		r = step_engine(s, st, inode);
		if (r < 0 && fault_script_failed(s))
			step_doubt(s, st);
	}
	if (inode)
		vc_inode_put(inode);
	if (r < 0) {
		step_failed(s, step, r);
		return;
	}
	step_apply(s, st);
	crash_run_end(s->run, step_durable(st->kind));
}

/* Everything the model has can be looked up and is the same, or cannot be read. */
static void step_read(struct fault_script *s, unsigned step)
{
	struct world *w = &s->run->w;

	for (size_t i = 0; i < w->model.n; i++) {
		struct model_file *f = w->model.names[i].file;
		struct vc_inode *inode;
		int r;

		if (!S_ISREG(f->mode) || w->model.names[i].dir != 0)
			continue;
		r = vc_names_lookup(w->dirs[0], w->model.names[i].name, &inode);
		if (r == 0) {
			ssize_t n = i % 2 ? vc_volume_read(inode, w->buf, f->data.size, 0)
					  : engine_read_by_blocks(inode, w->buf, f->data.size, 0);

			vc_inode_put(inode);
			r = n < 0 ? (int)n : 0;
			if (n >= 0 && !s->has_doubt) {
				assert_int_equal(n, f->data.size);
				model_read(&f->data, w->buf2, f->data.size, 0);
				assert_memory_equal(w->buf, w->buf2, f->data.size);
			}
		}
		if (r < 0 && !(r == -ENOENT && s->has_doubt))
			step_failed(s, step, r);
	}
}

static int script_attach(struct fault_script *s, struct vc_pool *pool)
{
	struct world *w = &s->run->w;
	int r = vc_inode_get(pool, 1, &w->dirs[0]);

	if (r == 0) {
		r = vc_inode_get(pool, 1, &w->dirs[1]);
		if (r < 0)
			vc_inode_put(w->dirs[0]);
	}
	if (r == 0)
		w->pool = pool;
	else
		vc_pool_abandon(pool);
	return r;
}

/* D4: what was not certain once is not called certain later. Before the pool is opened again, which writes it once more. */
static void check_syncs(struct fault_script *s)
{
	char buf[200];

	if (vc_sim_resynced(s->run->sim, s->opened, buf, sizeof(buf)))
		fail_msg("%s: synced again after a failed sync", buf);
}

/* Whoever failed has given back its part of the log. */
static void check_admitted(struct fault_script *s)
{
	struct vc_pool *pool = s->run->w.pool;
	int64_t admitted;

	if (s->unreadable || fault_script_failed(s)) /* what fails all the time is tried all the time */
		return;

	vc_pool_wait_reaped(pool);
	vc_mutex_lock(&pool->log->lock);
	admitted = pool->log->admitted;
	vc_mutex_unlock(&pool->log->lock);
	assert_int_equal(admitted, 0);
}

static void step_reopen(struct fault_script *s, unsigned step)
{
	struct vc_pool *pool = s->run->w.pool;
	int r = 0;

	check_admitted(s);
	world_detach(&s->run->w);
	if (steps[step].kind == STEP_KILL) {
		vc_pool_abandon(pool);
	} else {
		crash_run_begin(s->run);
		r = vc_pool_close(pool);
		if (r == 0)
			crash_run_end(s->run, true);
		else
			step_failed(s, step, r);
	}
	check_syncs(s);
	s->opened = vc_sim_events(s->run->sim);
	r = engine_try_open(vc_sim_io(s->run->sim), POOL, ENGINE_DESTAGE_NEVER, &pool);
	if (r == 0)
		r = script_attach(s, pool);
	if (r < 0)
		step_failed(s, step, r);
}

void fault_script_run(struct fault_script *s)
{
	for (unsigned i = 0; i < VC_ARRAY_LEN(steps) && s->run->w.pool; i++) {
		int r = 0;

		world_note("step %u: %s %s\n", i, step_names[steps[i].kind], steps[i].a ? steps[i].a : "");
		switch (steps[i].kind) {
		case STEP_DESTAGE:
		case STEP_CLEAN:
			r = engine_task(s->run->w.pool, steps[i].kind == STEP_CLEAN ? VC_TASK_CLEAN : VC_TASK_DESTAGE);
			if (r < 0)
				step_failed(s, i, r);
			break;
		case STEP_READ:
			step_read(s, i);
			break;
		case STEP_REOPEN:
		case STEP_KILL:
			if (s->has_doubt)
				return;
			step_reopen(s, i);
			break;
		default:
			step_change(s, i);
		}
	}
}

/* ---- afterwards ---- */

/*
 * With a change in doubt: what it does not touch reads as before. What it does reads as before or after, or not at all: its
 * bytes never reached the log.
 */
static void check_doubtful(struct fault_script *s, struct model_name *n)
{
	struct model_name *other = model_find(&s->doubt, n->dir, n->name);
	struct world *w = &s->run->w;
	struct vc_inode *inode;
	int r = vc_names_lookup(w->dirs[0], n->name, &inode);

	if (r == -ENOENT && !other)
		return; /* the deletion is what is in doubt */
	assert_int_equal(r, 0);
	for (uint64_t at = 0; at < n->file->data.size; at += 4096) {
		size_t len = (size_t)VC_MIN(n->file->data.size - at, UINT64_C(4096));
		ssize_t got = vc_volume_read(inode, w->buf, len, at);
		uint8_t before[4096], after[4096];

		model_read(&n->file->data, before, len, at);
		if (other)
			model_read(&other->file->data, after, len, at);
		if ((got == (ssize_t)len && memcmp(before, w->buf, len) == 0) || (got == -EIO && s->unreadable))
			continue;
		assert_true(!other || memcmp(before, after, len) != 0 || other->file->data.size < at + len);
		assert_true(got < 0 || !other || memcmp(after, w->buf, (size_t)got) == 0);
	}
	vc_inode_put(inode);
}

static void check_live(struct fault_script *s)
{
	struct model found = { .n = 0 }, *want = &s->run->w.model;
	int r;

	for (size_t i = 0; s->has_doubt && i < want->n; i++)
		if (S_ISREG(want->names[i].file->mode) && want->names[i].dir == 0)
			check_doubtful(s, &want->names[i]);
	if (s->has_doubt)
		return;
	r = model_load(s->run->w.pool, &found);
	if (r == -EIO && s->unreadable && fault_script_failed(s)) {
		model_clear(&found);
		return;
	}
	assert_int_equal(r, 0);
	if (!model_same(want, &found))
		fail_msg("the open pool does not read as it should");
	model_clear(&found);
}

/* A change, durable and destaged. When there was no space: looked at again until the pool sees that there is. */
static int check_change(struct vc_pool *pool, const char *name)
{
	struct vc_inode *root = engine_root(pool), *inode;
	char text[6000] = "after the fault";
	int r = engine_create(root, name, S_IFREG | 0600, NULL, &inode);

	if (r == 0) {
		for (unsigned i = 0; i < TRIES; i++) {
			r = engine_write(inode, text, sizeof(text), 0, VC_WRITE_DSYNC);
			if (r != -ENOSPC)
				break;
			(void)!engine_task(pool, VC_TASK_DESTAGE);
		}
		vc_inode_put(inode);
	}
	for (unsigned i = 0; r == 0 && i < TRIES; i++) {
		r = engine_task(pool, VC_TASK_DESTAGE);
		if (r != -ENOSPC)
			break;
		r = 0;
	}
	if (r == 0)
		r = engine_unlink(root, name);
	vc_inode_put(root);
	return r;
}

static void check_refuses(struct vc_pool *pool)
{
	struct vc_inode *root = engine_root(pool), *inode;
	int r = engine_create(root, "refused", S_IFREG | 0600, NULL, &inode);

	assert_true(r == -EIO || r == -EROFS);
	vc_inode_put(root);
}

static void check_open(struct fault_script *s)
{
	check_live(s);
	if (fault_script_failed(s)) {
		check_refuses(s->run->w.pool);
	} else {
		assert_false(s->has_doubt);
		assert_int_equal(check_change(s->run->w.pool, "live"), 0);
		check_admitted(s);
	}
	check_live(s);
	check_syncs(s);
}

static void check_crash(struct fault_script *s, size_t at, enum vc_sim_keep keep)
{
	struct vc_sim_policy policy = { .keep = keep, .seed = at };
	struct crash_run *next = crash_run_crash(s->run, at, &policy);

	crash_run_free(next);
}

/* The process is gone, its files are as it left them, LMDB's too. */
static void check_in_place(struct fault_script *s)
{
	struct model found = { .n = 0 };
	struct vc_pool *pool = s->run->w.pool;
	uint64_t hash;

	if (pool) {
		world_detach(&s->run->w);
		vc_pool_abandon(pool);
	}
	pool = engine_open(vc_sim_io(s->run->sim), POOL, ENGINE_DESTAGE_NEVER);
	assert_int_equal(model_load(pool, &found), 0);
	hash = model_state(&found);
	if (hash != model_state(&s->run->w.model) && !(s->has_doubt && hash == model_state(&s->doubt))) {
		model_same(&s->run->w.model, &found);
		fail_msg("the pool opened again does not read as it should");
	}
	model_clear(&found);
	assert_int_equal(check_change(pool, "again"), 0);
	engine_close(pool);
}

void fault_script_check(struct fault_script *s)
{
	size_t at = vc_sim_events(s->run->sim);

	if (s->bad)
		fail_msg("step %u (%s) returned %d", s->bad_step, fault_script_step_name(s->bad_step), s->bad);
	check_crash(s, at, VC_SIM_KEEP_NONE);
	check_crash(s, at, VC_SIM_KEEP_RANDOM);
	if (s->run->w.pool)
		check_open(s);
	check_in_place(s);
}

void fault_script_init(struct fault_script *s, uint64_t seed)
{
	struct vc_pool *pool;

	*s = (struct fault_script){ .run = crash_run_new(seed, ENGINE_DESTAGE_NEVER) };
	pool = s->run->w.pool;
	world_detach(&s->run->w);
	assert_int_equal(script_attach(s, pool), 0);
}

void fault_script_fini(struct fault_script *s)
{
	model_clear(&s->doubt);
	crash_run_free(s->run);
}
