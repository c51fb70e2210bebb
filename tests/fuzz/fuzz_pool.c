/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz_pool: pools to damage, and looking at damaged pools. */
#include "config.h"
#include "../unit/unit.h"

#include <sys/stat.h>
#include <unistd.h>

#include "../unit/engine.h"
#include "checksum.h"
#include "format.h"
#include "fuzz_pool.h"

#define BASE_SEED 4 /* segments of 256 KiB, chunks of 4 blocks */
#define BASE_STEPS 120
#define BASE_STEPS_LATER 20
#define LOOK_INODES 200
#define LOOK_BYTES (UINT64_C(16) << 20)
#define LOOK_STEP (64u << 10)

/* ---- pools to damage ---- */

static struct fuzz_base *base_make(enum fuzz_base_kind kind)
{
	struct crash_run *run = crash_run_new(BASE_SEED, ENGINE_DESTAGE_NEVER);
	struct vc_sim_policy all = { .keep = VC_SIM_KEEP_ALL };
	struct fuzz_base *base = calloc(1, sizeof(*base));
	struct vc_pool *pool;

	fuzz_check(base);
	for (int i = 0; i < BASE_STEPS; i++)
		world_step(&run->w);
	if (kind == FUZZ_BASE_DESTAGED) {
		fuzz_check(engine_task(run->w.pool, VC_TASK_DESTAGE) == 0);
		for (int i = 0; i < BASE_STEPS_LATER; i++)
			world_step(&run->w);
	}
	fuzz_check(world_verify(&run->w));
	base->states = calloc(run->nstates, sizeof(*base->states));
	fuzz_check(base->states);
	for (; base->nstates < run->nstates; base->nstates++)
		base->states[base->nstates] = run->states[base->nstates].hash;
	for (size_t i = 0; i < run->w.model.n; i++) {
		struct vc_inode *inode = engine_lookup(run->w.dirs[run->w.model.names[i].dir], run->w.model.names[i].name);

		base->max_ino = VC_MAX(base->max_ino, vc_inode_ino(inode));
		vc_inode_put(inode);
	}
	base->sim = vc_sim_crash(run->sim, vc_sim_events(run->sim), &all);
	crash_run_free(run);
	pool = engine_open(vc_sim_io(base->sim), FUZZ_POOL, ENGINE_DESTAGE_NEVER);
	fuzz_check(fuzz_look(pool, &base->look) == 0);
	vc_pool_abandon(pool);
	return base;
}

const struct fuzz_base *fuzz_base_get(enum fuzz_base_kind kind)
{
	static struct fuzz_base *bases[FUZZ_BASE_KINDS];

	if (!bases[kind])
		bases[kind] = base_make(kind);
	return bases[kind];
}

struct vc_sim *fuzz_base_copy(enum fuzz_base_kind kind)
{
	const struct fuzz_base *base = fuzz_base_get(kind);
	struct vc_sim_policy all = { .keep = VC_SIM_KEEP_ALL };

	return vc_sim_crash(base->sim, vc_sim_events(base->sim), &all);
}

/* ---- looking ---- */

struct look {
	struct vc_pool *pool;
	uint64_t inos[LOOK_INODES]; /* to be looked at, and those that were */
	size_t n;
	uint64_t hash, bytes;
	int error;
};

static void look_add(struct look *l, const void *data, size_t len)
{
	l->hash = vc_sum64(data, len, l->hash);
}

static void look_later(struct look *l, uint64_t ino)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->inos[i] == ino)
			return;
	if (l->n < LOOK_INODES)
		l->inos[l->n++] = ino;
}

static int look_entry(void *ctx, const struct vc_dirent *entry)
{
	struct look *l = ctx;
	size_t len = strlen(entry->name);

	fuzz_check(len > 0 && len <= VC_NAME_MAX && !strchr(entry->name, '/'));
	look_add(l, entry->name, len);
	look_add(l, &entry->ino, sizeof(entry->ino));
	look_later(l, entry->ino);
	return 0;
}

static void look_range(struct look *l, struct vc_inode *inode, uint64_t from, uint64_t to)
{
	static uint8_t buf[LOOK_STEP];

	while (from < to && l->bytes < LOOK_BYTES && !l->error) {
		size_t step = (size_t)VC_MIN(to - from, (uint64_t)sizeof(buf));
		ssize_t n = vc_volume_read(inode, buf, step, from);

		if (n < 0) {
			l->error = (int)n;
			return;
		}
		fuzz_check((size_t)n == step);
		for (size_t at = 0; at < step; at += VC_BLOCK_SIZE - (from + at) % VC_BLOCK_SIZE) { /* holes and zeros are one */
			size_t piece = VC_MIN(step - at, VC_BLOCK_SIZE - (size_t)((from + at) % VC_BLOCK_SIZE));
			uint64_t where = from + at;

			if (vc_is_zero(buf + at, piece))
				continue;
			look_add(l, &where, sizeof(where));
			look_add(l, buf + at, piece);
		}
		from += step;
		l->bytes += step;
	}
}

static void look_data(struct look *l, struct vc_inode *inode, uint64_t size)
{
	uint64_t from = 0, data, hole;

	look_add(l, &size, sizeof(size));
	fuzz_check(size <= VC_IMAGE_SIZE_MAX);
	while (from < size && l->bytes < LOOK_BYTES && !l->error) {
		l->error = vc_volume_seek(inode, from, SEEK_DATA, &data);
		if (l->error == -ENXIO) {
			l->error = 0;
			return;
		}
		if (!l->error)
			l->error = vc_volume_seek(inode, data, SEEK_HOLE, &hole);
		if (l->error)
			return;
		fuzz_check(data >= from && data < size && hole > data && hole <= size);
		look_range(l, inode, data, hole);
		from = hole;
	}
}

static void look_texts(struct look *l, struct vc_inode *inode, uint32_t mode)
{
	char names[4096], value[VC_XATTR_VALUE_MAX + 1];
	ssize_t n = vc_xattr_list(inode, names, sizeof(names)), len;
	int r;

	fuzz_check(n <= (ssize_t)sizeof(names));
	for (ssize_t at = 0; at < n; at += (ssize_t)strnlen(names + at, (size_t)(n - at)) + 1) {
		len = vc_xattr_get(inode, names + at, value, sizeof(value));
		if (len >= 0)
			look_add(l, value, (size_t)len);
	}
	r = S_ISLNK(mode) ? vc_names_readlink(inode, value, sizeof(value)) : 0;
	fuzz_check(r < (int)sizeof(value));
	if (r > 0)
		look_add(l, value, (size_t)r);
	l->error = n < 0 && n != -ERANGE ? (int)n : r < 0 ? r : 0;
}

static void look_inode(struct look *l, uint64_t ino)
{
	struct vc_inode *inode;
	struct vc_attr attr;

	l->error = vc_inode_get(l->pool, ino, &inode);
	if (l->error)
		return;
	vc_inode_attr(inode, &attr);
	fuzz_check(attr.ino == ino);
	look_add(l, &attr.mode, sizeof(attr.mode));
	look_add(l, &attr.nlink, sizeof(attr.nlink));
	look_texts(l, inode, attr.mode);
	if (!l->error && S_ISDIR(attr.mode))
		l->error = vc_names_readdir(inode, 0, look_entry, l);
	if (!l->error && S_ISREG(attr.mode))
		look_data(l, inode, attr.size);
	vc_inode_put(inode);
}

int fuzz_look(struct vc_pool *pool, uint64_t *ret_hash)
{
	struct look l = { .pool = pool };
	int first = 0;

	look_later(&l, VC_ROOT_INO);
	for (size_t i = 0; i < l.n; i++) {
		look_inode(&l, l.inos[i]);
		fuzz_check(l.error <= 0);
		if (!first)
			first = l.error;
		l.error = 0;
	}
	*ret_hash = l.hash;
	return first;
}

/* ---- using ---- */

struct use {
	char names[32][VC_NAME_MAX + 1];
	size_t n;
};

static int use_entry(void *ctx, const struct vc_dirent *entry)
{
	struct use *u = ctx;

	if (entry->type == S_IFREG && u->n < VC_ARRAY_LEN(u->names))
		snprintf(u->names[u->n++], sizeof(u->names[0]), "%s", entry->name);
	return 0;
}

static int use_image(struct vc_inode *root, struct vc_inode *inode, int number)
{
	uint8_t bytes[5000];
	char name[24];
	int r;

	memset(bytes, number, sizeof(bytes));
	snprintf(name, sizeof(name), "fuzz-use-%d", number);
	r = engine_write(inode, bytes, sizeof(bytes), 4000, 0);
	if (r == 0)
		r = engine_clone(inode, root, name, NULL);
	if (r == 0)
		r = engine_resize(inode, 10000);
	return r;
}

int fuzz_use(struct vc_pool *pool)
{
	struct use u = { .n = 0 };
	struct vc_inode *root, *inode;
	int r = vc_inode_get(pool, VC_ROOT_INO, &root), s;

	if (r < 0)
		return r;
	r = vc_names_readdir(root, 0, use_entry, &u);
	for (size_t i = 0; i < u.n; i++) {
		s = vc_names_lookup(root, u.names[i], &inode);
		if (s == 0) {
			s = use_image(root, inode, (int)i);
			vc_inode_put(inode);
		}
		r = r ? r : s;
	}
	vc_inode_put(root);
	s = engine_task(pool, VC_TASK_DESTAGE);
	r = r ? r : s;
	s = engine_task(pool, VC_TASK_CLEAN);
	return r ? r : s;
}
