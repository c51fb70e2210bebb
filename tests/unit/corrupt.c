/* SPDX-License-Identifier: BSD-2-Clause */
/* corrupt: pools in memory, and damage. */
#include "config.h"
#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "corrupt.h"
#include "engine.h"

#define STEPS_MAX 60
#define LOOSE_BYTES 8192u
#define PIECE 4096u
#define SECTOR 512u

static uint64_t below(uint64_t *rng, uint64_t n) { return vc_unit_below(rng, n); }

/* ---- trees ---- */

static void file_load(struct corrupt_file *f, const char *path, const char *name)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert(fd >= 0 && fstat(fd, &st) == 0);
	f->name = strdup(name);
	f->len = (size_t)st.st_size;
	f->bytes = malloc(f->len + 1);
	assert(f->name && f->bytes && read(fd, f->bytes, f->len) == (ssize_t)f->len);
	close(fd);
}

static void file_store(const struct corrupt_file *f, const char *dir)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, f->name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert(fd >= 0 && write(fd, f->bytes, f->len) == (ssize_t)f->len);
	close(fd);
}

static void tree_add(struct corrupt_tree *tree, const char *dir, const char *below_dir)
{
	DIR *d = opendir(dir);
	struct dirent *de;

	assert(d);
	while ((de = readdir(d))) {
		char path[512], name[400];
		struct stat st;

		if (de->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, de->d_name);
		snprintf(name, sizeof(name), "%s%s%s", below_dir, *below_dir ? "/" : "", de->d_name);
		assert(stat(path, &st) == 0);
		if (S_ISDIR(st.st_mode)) {
			tree_add(tree, path, name);
			continue;
		}
		tree->files = realloc(tree->files, (tree->n + 1) * sizeof(*tree->files));
		assert(tree->files);
		file_load(&tree->files[tree->n++], path, name);
	}
	closedir(d);
}

void corrupt_tree_load(struct corrupt_tree *tree, const char *dir)
{
	*tree = (struct corrupt_tree){ .n = 0 };
	tree_add(tree, dir, "");
}

static const struct corrupt_file *tree_find(const struct corrupt_tree *tree, const char *name)
{
	for (size_t i = 0; i < tree->n; i++)
		if (strcmp(tree->files[i].name, name) == 0)
			return &tree->files[i];
	return NULL;
}

void corrupt_tree_store(const struct corrupt_tree *tree, const char *dir)
{
	struct corrupt_tree found;

	corrupt_tree_load(&found, dir);
	for (size_t i = 0; i < found.n; i++)
		if (!tree_find(tree, found.files[i].name)) {
			char path[512];

			snprintf(path, sizeof(path), "%s/%s", dir, found.files[i].name);
			assert(unlink(path) == 0);
		}
	corrupt_tree_free(&found);
	for (size_t i = 0; i < tree->n; i++)
		file_store(&tree->files[i], dir);
}

void corrupt_tree_free(struct corrupt_tree *tree)
{
	for (size_t i = 0; i < tree->n; i++) {
		free(tree->files[i].name);
		free(tree->files[i].bytes);
	}
	free(tree->files);
	*tree = (struct corrupt_tree){ .n = 0 };
}

/* ---- bases ---- */

static void base_note(struct world *w, bool durable VC_UNUSED)
{
	struct corrupt_base *base = w->ctx;

	if (base->nhistory == base->cap) {
		base->cap = base->cap ? base->cap * 2 : 64;
		base->history = realloc(base->history, base->cap * sizeof(*base->history));
		assert(base->history);
	}
	memset(&base->history[base->nhistory], 0, sizeof(*base->history));
	model_snapshot(&w->model, &base->history[base->nhistory++]);
}

static void base_work(struct world *w)
{
	for (uint64_t n = 5 + below(&w->rng, STEPS_MAX); n; n--) {
		world_step(w);
		if (below(&w->rng, 25) == 0)
			assert_int_equal(engine_task(w->pool, VC_TASK_DESTAGE), 0);
		if (below(&w->rng, 60) == 0)
			assert_int_equal(engine_task(w->pool, VC_TASK_CLEAN), 0);
	}
}

/* All that is flushed, and then a few writes that are not. */
static void base_end_loose(struct world *w)
{
	struct model_file *f = model_file_new(S_IFREG | 0600);
	struct vc_inode *inode;
	struct model_name *old = model_find(&w->model, 0, "loose");

	if (old) {
		assert_int_equal(engine_unlink(w->dirs[0], "loose"), 0);
		model_remove(&w->model, old);
		world_after(w, true);
	}
	assert_int_equal(engine_create(w->dirs[0], "loose", S_IFREG | 0600, NULL, &inode), 0);
	model_add(&w->model, 0, "loose", f);
	world_after(w, true);
	assert_int_equal(engine_flush(inode), 0);
	for (unsigned i = 0; i < CORRUPT_LOOSE; i++) {
		memset(w->buf, 'a' + (int)i, LOOSE_BYTES);
		assert_int_equal(engine_write(inode, w->buf, LOOSE_BYTES, i * LOOSE_BYTES, 0), 0);
		model_write(&f->data, w->buf, LOOSE_BYTES, i * LOOSE_BYTES);
		world_after(w, false);
	}
	vc_inode_put(inode);
}

void corrupt_base_make(struct corrupt_base *base, const char *dir, uint64_t seed)
{
	struct vc_pool_geometry geometry;
	struct world w;

	*base = (struct corrupt_base){ .dir = strdup(dir) };
	engine_geometry(&seed, &geometry);
	assert_int_equal(vc_pool_create(vc_io_posix(), dir, &geometry), 0);
	world_init(&w, seed, &geometry);
	w.max_size = UINT64_C(1) << 20 << below(&seed, 4);
	w.atomic = true; /* what a log that ends early leaves is a state between two operations */
	w.after = base_note;
	w.ctx = base;
	for (unsigned i = 0; i <= CORRUPT_OLD; i++) {
		world_attach(&w, engine_open(vc_io_posix(), dir, below(&seed, 3) ? ENGINE_DESTAGE_NEVER : 20));
		base_work(&w);
		base->abandoned = below(&seed, 2);
		if (base->abandoned)
			base_end_loose(&w);
		base_note(&w, true);
		world_stop(&w, base->abandoned);
		corrupt_tree_load(i < CORRUPT_OLD ? &base->old[i] : &base->final, dir);
	}
	world_fini(&w);
}

void corrupt_base_free(struct corrupt_base *base)
{
	for (unsigned i = 0; i < CORRUPT_OLD; i++)
		corrupt_tree_free(&base->old[i]);
	corrupt_tree_free(&base->final);
	for (size_t i = 0; i < base->nhistory; i++)
		model_clear(&base->history[i]);
	free(base->history);
	free(base->dir);
}

/* ---- damage ---- */

/* One file being changed; its bytes are a copy with room for what is appended. */
struct damage {
	const struct corrupt_base *base;
	uint64_t *rng;
	struct corrupt_case *c;
	struct corrupt_file file;
	const struct corrupt_file *was;
};

static void damage_say(struct damage *d, const char *what, size_t at, const char *more)
{
	size_t n = strlen(d->c->text);

	snprintf(d->c->text + n, CORRUPT_TEXT - n, "%s%s: %s at %zu of %zu%s", n ? "; " : "", d->file.name, what, at, d->was->len, more);
}

static bool has_prefix(const char *name, const char *prefix) { return strncmp(name, prefix, strlen(prefix)) == 0; }

/* A third of all damage goes to LMDB, a third to the log, a fifth to chunks, the rest to anything. */
static const struct corrupt_file *pick_file(const struct corrupt_tree *tree, uint64_t *rng)
{
	static const char *const kinds[] = { "meta/data.mdb", "meta/data.mdb", "meta/data.mdb", "meta/data.mdb", "meta/data.mdb",
					     "log/", "log/", "log/", "log/", "log/", "chunk/", "chunk/", "chunk/", "", "" };
	const char *kind = kinds[below(rng, VC_ARRAY_LEN(kinds))];

	for (;;) {
		const struct corrupt_file *f = &tree->files[below(rng, tree->n)];

		if (has_prefix(f->name, kind))
			return f;
		if (below(rng, 100) == 0)
			kind = "";
	}
}

static bool is_empty(const uint8_t *bytes, size_t len) { return vc_is_zero(bytes, len); }

/* A place at a multiple of `step`; mostly where something lies. */
static size_t pick_place(struct damage *d, size_t step)
{
	const struct corrupt_file *f = &d->file;
	size_t at = 0;

	for (unsigned tries = below(d->rng, 8) ? 200 : 1; tries; tries--) {
		at = f->len ? below(d->rng, f->len) / step * step : 0;
		if (f->len && !is_empty(f->bytes + at / SECTOR * SECTOR, VC_MIN((size_t)SECTOR, f->len - at / SECTOR * SECTOR)))
			break;
	}
	return at;
}

static void damage_flip(struct damage *d)
{
	size_t at = pick_place(d, 1);
	unsigned bit = (unsigned)below(d->rng, 8);
	char more[32];

	if (d->file.len)
		d->file.bytes[at] ^= (uint8_t)(1u << bit);
	snprintf(more, sizeof(more), " bit %u", bit);
	damage_say(d, "flipped bit", at, more);
}

static void damage_zero(struct damage *d)
{
	size_t step = below(d->rng, 2) ? SECTOR : PIECE, at = pick_place(d, step);

	memset(d->file.bytes + at, 0, VC_MIN(step, d->file.len - at));
	damage_say(d, step == SECTOR ? "zeroed sector" : "zeroed block", at, "");
}

static void damage_truncate(struct damage *d)
{
	size_t to = d->file.len ? below(d->rng, d->file.len) : 0;

	if (below(d->rng, 2))
		to &= ~(size_t)(PIECE - 1);
	d->file.len = to;
	damage_say(d, "truncated", to, "");
}

static void damage_extend(struct damage *d)
{
	size_t n = 1 + below(d->rng, 3 * PIECE);

	for (size_t i = 0; i < n; i++)
		d->file.bytes[d->file.len + i] = (uint8_t)vc_unit_random(d->rng);
	d->file.len += n;
	damage_say(d, "garbage", d->was->len, " behind its end");
}

static void damage_garbage(struct damage *d)
{
	size_t at = pick_place(d, SECTOR), n = VC_MIN((size_t)SECTOR, d->file.len - at);

	for (size_t i = 0; i < n; i++)
		d->file.bytes[at + i] = (uint8_t)vc_unit_random(d->rng);
	damage_say(d, "garbage", at, "");
}

/* Another block of the same file, or one of any file, lies here instead. */
static void damage_misplace(struct damage *d)
{
	const struct corrupt_file *from = below(d->rng, 2) ? d->was : pick_file(&d->base->final, d->rng);
	size_t to = pick_place(d, PIECE), at, n;
	char more[160];

	if (from->len < PIECE || d->file.len < PIECE)
		return;
	at = below(d->rng, from->len) & ~(size_t)(PIECE - 1);
	n = VC_MIN(VC_MIN(from->len - at, d->file.len - to), (size_t)PIECE);
	memcpy(d->file.bytes + to, from->bytes + at, n);
	if (from == d->was && n == PIECE && to + n <= d->was->len && at + n <= d->file.len && below(d->rng, 2))
		memcpy(d->file.bytes + at, d->was->bytes + to, n);
	snprintf(more, sizeof(more), " from %zu of %s", at, from->name);
	damage_say(d, "misplaced block", to, more);
}

/* What lay here some time ago: a write that never arrived. Where nothing changed since, look further. */
static void damage_stale_block(struct damage *d, const struct corrupt_file *old)
{
	size_t step = below(d->rng, 2) ? SECTOR : PIECE, at = 0;

	for (unsigned tries = 0; tries < 300; tries++) {
		at = pick_place(d, step);
		if (at + step <= VC_MIN(old->len, d->file.len) && memcmp(d->file.bytes + at, old->bytes + at, step) != 0)
			break;
	}
	if (at + step > VC_MIN(old->len, d->file.len))
		return;
	memcpy(d->file.bytes + at, old->bytes + at, step);
	damage_say(d, step == SECTOR ? "stale sector" : "stale block", at, "");
}

static void damage_stale_file(struct damage *d, const struct corrupt_file *old)
{
	memcpy(d->file.bytes, old->bytes, old->len);
	d->file.len = old->len;
	d->c->older_log |= has_prefix(d->file.name, "log/");
	damage_say(d, "the whole of it is old", 0, "");
}

static void damage_once(struct damage *d)
{
	const struct corrupt_file *old = tree_find(&d->base->old[below(d->rng, CORRUPT_OLD)], d->was->name);
	uint64_t roll = below(d->rng, 100);

	if (roll < 35)
		damage_flip(d);
	else if (roll < 47)
		damage_zero(d);
	else if (roll < 55)
		damage_truncate(d);
	else if (roll < 58)
		damage_extend(d);
	else if (roll < 65)
		damage_garbage(d);
	else if (roll < 78 || !old)
		damage_misplace(d);
	else if (roll < 93)
		damage_stale_block(d, old);
	else
		damage_stale_file(d, old);
}

static void damage_file(const struct corrupt_base *base, uint64_t *rng, struct corrupt_case *c)
{
	struct damage d = { .base = base, .rng = rng, .c = c, .was = pick_file(&base->final, rng) };
	size_t room = d.was->len + 16 * PIECE;

	for (size_t i = 0; i < c->nnames; i++)
		if (strcmp(c->names[i], d.was->name) == 0)
			return;
	for (unsigned i = 0; i < CORRUPT_OLD; i++) {
		const struct corrupt_file *old = tree_find(&base->old[i], d.was->name);

		room = old ? VC_MAX(room, old->len + 16 * PIECE) : room;
	}
	d.file = (struct corrupt_file){ .name = d.was->name, .bytes = calloc(1, room), .len = d.was->len };
	assert(d.file.bytes);
	memcpy(d.file.bytes, d.was->bytes, d.was->len);
	for (unsigned n = below(rng, 4) ? 1 : 1 + (unsigned)below(rng, 4); n; n--)
		damage_once(&d);
	snprintf(c->names[c->nnames++], sizeof(c->names[0]), "%s", d.was->name);
	file_store(&d.file, base->dir);
	free(d.file.bytes);
}

void corrupt_damage(const struct corrupt_base *base, uint64_t *rng, struct corrupt_case *ret)
{
	*ret = (struct corrupt_case){ .nnames = 0 };
	for (unsigned n = below(rng, 6) ? 1 : 2; n; n--)
		damage_file(base, rng, ret);
}

void corrupt_heal(const struct corrupt_base *base, const struct corrupt_case *c)
{
	for (size_t i = 0; i < c->nnames; i++)
		file_store(tree_find(&base->final, c->names[i]), base->dir);
}
