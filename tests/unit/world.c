/* SPDX-License-Identifier: BSD-2-Clause */
/* world: a pool and its model, side by side. */
#include "config.h"
#include "unit.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "engine.h"
#include "world.h"

const char *world_name(const struct world *w, const struct model_file *f)
{
	static char name[MODEL_TEXT + 16];

	for (size_t i = 0; i < w->model.n; i++)
		if (w->model.names[i].file == f) {
			snprintf(name, sizeof(name), "%u/%s", w->model.names[i].dir, w->model.names[i].name);
			return name;
		}
	for (size_t i = 0; i < w->nopen; i++)
		if (w->open[i] == f)
			snprintf(name, sizeof(name), "open %zu", i);
	return name;
}

void world_note(const char *format, ...)
{
	static FILE *trace;
	static bool asked;
	const char *path = getenv("VC_TEST_TRACE");
	va_list args;

	if (!asked)
		trace = path ? fopen(path, "w") : NULL;
	asked = true;
	if (!trace)
		return;
	va_start(args, format);
	vfprintf(trace, format, args);
	va_end(args);
	fflush(trace);
}

void world_init(struct world *w, uint64_t seed, const struct vc_pool_geometry *geometry)
{
	*w = (struct world){ .rng = seed, .max_size = UINT64_C(8) << 20, .max_names = 20 };
	w->max_log_write = geometry->log_segment_size / 4 - 2048; /* longer ones become several records */
	w->buf = malloc(WORLD_WRITE_MAX);
	w->buf2 = malloc(WORLD_WRITE_MAX);
	assert(w->buf && w->buf2);
}

void world_fini(struct world *w)
{
	assert(!w->pool);
	model_clear(&w->model);
	free(w->buf);
	free(w->buf2);
}

void world_attach(struct world *w, struct vc_pool *pool)
{
	w->pool = pool;
	w->dirs[0] = engine_root(pool);
	w->dirs[1] = engine_lookup(w->dirs[0], "sub");
	if (w->dirs[1])
		return;
	world_before(w);
	assert_int_equal(engine_create(w->dirs[0], "sub", S_IFDIR | 0755, NULL, &w->dirs[1]), 0);
	model_add(&w->model, 0, "sub", model_file_new(S_IFDIR | 0755));
	world_after(w, true);
}

void world_detach(struct world *w)
{
	while (w->nopen) {
		struct model_file *f = w->open[--w->nopen];

		vc_inode_put(f->held);
		f->held = NULL;
		model_file_put(f);
	}
	for (size_t i = 0; i < MODEL_DIRS; i++)
		vc_inode_put(w->dirs[i]);
	w->pool = NULL;
}

void world_stop(struct world *w, bool sudden)
{
	struct vc_pool *pool = w->pool;

	world_detach(w);
	engine_stop(pool, sudden);
}

bool world_verify(struct world *w)
{
	struct model found = { .n = 0 };
	bool same = false;
	int r = model_load(w->pool, &found);

	if (r < 0)
		fprintf(stderr, "reading the pool: error %d\n", -r);
	else
		same = model_same(&w->model, &found);
	model_clear(&found);
	for (size_t i = 0; i < w->nopen && same; i++) {
		struct model_data data = { .size = 0 };

		same = model_load_data(w->open[i]->held, &data) == 0 && model_difference(&w->open[i]->data, &data) == UINT64_MAX;
		if (!same)
			fprintf(stderr, "open file, inode %llu: differs\n", (unsigned long long)vc_inode_ino(w->open[i]->held));
		model_free(&data);
	}
	return same;
}

struct vc_inode *world_pick(struct world *w, struct model_file **ret)
{
	uint64_t n = w->model.n + w->nopen, at = n ? vc_unit_below(&w->rng, n) : 0;
	const struct model_name *e;

	if (n == 0)
		return NULL;
	if (at >= w->model.n) {
		*ret = w->open[at - w->model.n];
		vc_inode_hold((*ret)->held);
		return (*ret)->held;
	}
	e = &w->model.names[at];
	*ret = e->file;
	return S_ISREG(e->file->mode) ? engine_lookup(w->dirs[e->dir], e->name) : NULL;
}

void world_step(struct world *w)
{
	uint64_t roll = vc_unit_below(&w->rng, 100);

	if (roll < 62)
		world_data_step(w, vc_unit_below(&w->rng, 100));
	else
		world_names_step(w, vc_unit_below(&w->rng, 100));
}

void world_remove_all(struct world *w)
{
	while (w->model.n) {
		struct model_name *e = &w->model.names[w->model.n - 1];
		bool is_dir = S_ISDIR(e->file->mode);

		if (w->model.n > 1 && strcmp(e->name, "sub") == 0 && e->dir == 0)
			e = &w->model.names[w->model.n - 2];
		is_dir = S_ISDIR(e->file->mode);
		assert_int_equal(is_dir ? engine_rmdir(w->dirs[e->dir], e->name) : engine_unlink(w->dirs[e->dir], e->name), 0);
		model_remove(&w->model, e);
	}
}
