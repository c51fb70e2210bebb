/* SPDX-License-Identifier: BSD-2-Clause */
/* io_sim_names: the live side of directories. See io_sim.h. */
#include "config.h"
#include "unit.h"
#include "io_sim_impl.h"

#include <stdlib.h>
#include <unistd.h>

/* ---- paths ---- */

/* Without doubled or final slashes. */
char *sim_normal(const char *path)
{
	char *out = sim_alloc(strlen(path) + 1), *q = out;

	for (const char *p = path; *p; p++)
		if (*p != '/' || (p[1] != '/' && (p[1] || p == path || q == out)))
			*q++ = *p;
	*q = '\0';
	return out;
}

int sim_find(struct vc_sim *sim, const char *path, uint32_t *ret)
{
	size_t at = sim_names_find(&sim->names, path);

	if (!at)
		return -ENOENT;
	*ret = sim->names.v[at - 1].inode;
	return 0;
}

/* ---- names ---- */

static int unlink_locked(struct vc_sim *sim, const char *path)
{
	int r = sim_call(sim, VC_SIM_UNLINK, path);
	uint32_t inode = 0, dir;

	if (r == 0)
		r = sim_find(sim, path, &inode);
	if (r == 0)
		r = sim_dir_of(sim, path, &dir);
	if (r < 0)
		return r;
	if (sim->inodes[inode]->kind == SIM_DIR)
		return -EISDIR;
	sim->inodes[inode]->linked = false;
	sim_real_forget(sim, inode);
	sim_names_del(&sim->names, path);
	sim_event_new(sim, SIM_EV_UNLINK, inode, path)->dir = dir;
	return 0;
}

int sim_unlink(struct vc_io *io, const char *path)
{
	struct vc_sim *sim = to_sim(io);
	char *normal = sim_normal(path), *real = NULL;
	int r;

	sim_lock(sim);
	if (sim_is_real(sim, normal))
		real = sim_real(sim, normal);
	r = real && !sim_names_find(&sim->names, normal) ? 0 : unlink_locked(sim, normal);
	if (r == 0 && real && unlink(real) < 0)
		r = -errno;
	free(real);
	free(normal);
	return sim_end_quiet(sim, r, "remove", path);
}

static int rename_locked(struct vc_sim *sim, const char *from, const char *to)
{
	int r = sim_call(sim, VC_SIM_RENAME, from);
	uint32_t inode = 0, victim, dir, dir2;
	struct sim_event *ev;

	if (r == 0)
		r = sim_find(sim, from, &inode);
	if (r == 0)
		r = sim_dir_of(sim, from, &dir);
	if (r == 0)
		r = sim_dir_of(sim, to, &dir2);
	if (r < 0)
		return r;
	if (sim->inodes[inode]->kind == SIM_DIR)
		return -ENOTSUP;
	if (sim_find(sim, to, &victim) == 0 && victim != inode) {
		if (sim->inodes[victim]->kind == SIM_DIR)
			return -EISDIR;
		sim->inodes[victim]->linked = false;
		sim_real_forget(sim, victim);
	}
	sim_names_del(&sim->names, from);
	sim_names_set(&sim->names, to, inode);
	ev = sim_event_new(sim, SIM_EV_RENAME, inode, from);
	ev->path2 = sim_strdup(to);
	ev->dir = dir;
	ev->dir2 = dir2;
	return 0;
}

static int rename_real(struct vc_sim *sim, const char *from, const char *to)
{
	char *real_from = sim_real(sim, from), *real_to = sim_real(sim, to), *parent = sim_parent(to);
	int r = 0;

	sim_real_dir(sim, parent);
	if (rename(real_from, real_to) < 0)
		r = -errno;
	free(real_from);
	free(real_to);
	free(parent);
	return r;
}

int sim_rename(struct vc_io *io, const char *from, const char *to)
{
	struct vc_sim *sim = to_sim(io);
	char *a = sim_normal(from), *b = sim_normal(to);
	bool real, named;
	int r;

	sim_lock(sim);
	real = sim_is_real(sim, a);
	named = sim_names_find(&sim->names, a) != 0;
	r = real && !named ? 0 : rename_locked(sim, a, b);
	if (r == 0 && real)
		r = rename_real(sim, a, b);
	free(a);
	free(b);
	return sim_end(sim, r, "rename", from);
}

static int mkdir_locked(struct vc_sim *sim, const char *path)
{
	int r = sim_call(sim, VC_SIM_MKDIR, path);
	uint32_t dir, inode;

	if (r < 0)
		return r;
	if (sim_is_root(path) || sim_names_find(&sim->names, path))
		return -EEXIST;
	r = sim_dir_of(sim, path, &dir);
	if (r < 0)
		return r;
	inode = sim_inode_new(sim, SIM_DIR);
	sim->inodes[inode]->linked = true;
	sim_names_set(&sim->names, path, inode);
	sim_event_new(sim, SIM_EV_CREATE, inode, path)->dir = dir;
	if (sim_is_meta_dir(path))
		sim_real_dir(sim, path);
	return 0;
}

int sim_mkdir(struct vc_io *io, const char *path)
{
	struct vc_sim *sim = to_sim(io);
	char *normal = sim_normal(path);
	int r;

	sim_lock(sim);
	r = mkdir_locked(sim, normal);
	free(normal);
	return sim_end_quiet(sim, r, "make directory", path);
}

static int find_dir(struct vc_sim *sim, const char *path, uint32_t *ret)
{
	int r;

	*ret = 0;
	if (sim_is_root(path))
		return 0;
	r = sim_find(sim, path, ret);
	if (r < 0)
		return r;
	return sim->inodes[*ret]->kind == SIM_DIR ? 0 : -ENOTDIR;
}

int sim_sync_dir(struct vc_io *io, const char *path)
{
	struct vc_sim *sim = to_sim(io);
	char *normal = sim_normal(path);
	uint32_t dir;
	int r;

	sim_lock(sim);
	r = find_dir(sim, normal, &dir);
	if (r == 0) {
		r = sim_call(sim, VC_SIM_SYNC_DIR, normal);
		sim_event_new(sim, SIM_EV_SYNC_DIR, dir, normal)->failed = r < 0;
	}
	free(normal);
	return sim_end(sim, r, "sync directory", path);
}

/* Names in a directory, copied: fn may call the table. */
static char **names_in(struct vc_sim *sim, const char *dir, size_t *ret_n)
{
	char **out = sim_alloc(sim->names.n * sizeof(*out));
	size_t n = 0;

	for (size_t i = 0; i < sim->names.n; i++) {
		char *parent = sim_parent(sim->names.v[i].path);
		const char *slash = strrchr(sim->names.v[i].path, '/');

		if (strcmp(parent, dir) == 0)
			out[n++] = sim_strdup(slash ? slash + 1 : sim->names.v[i].path);
		free(parent);
	}
	*ret_n = n;
	return out;
}

static int list_real(struct vc_sim *sim, const char *path, int (*fn)(void *ctx, const char *name), void *ctx)
{
	char *real = sim_real(sim, path);
	int r;

	pthread_mutex_unlock(&sim->lock);
	r = vc_io_list(vc_io_posix(), real, fn, ctx);
	free(real);
	return r;
}

int sim_list(struct vc_io *io, const char *path, int (*fn)(void *ctx, const char *name), void *ctx)
{
	struct vc_sim *sim = to_sim(io);
	char *normal = sim_normal(path), **names;
	uint32_t dir;
	size_t n;
	int r;

	sim_lock(sim);
	r = sim_call(sim, VC_SIM_LIST, normal);
	if (r == 0)
		r = find_dir(sim, normal, &dir);
	if (r < 0) {
		free(normal);
		return sim_end_quiet(sim, r, "list", path);
	}
	if (sim_is_meta_dir(normal)) {
		r = list_real(sim, normal, fn, ctx);
		free(normal);
		return r;
	}
	names = names_in(sim, normal, &n);
	pthread_mutex_unlock(&sim->lock);
	for (size_t i = 0; i < n && r == 0; i++)
		r = fn(ctx, names[i]);
	for (size_t i = 0; i < n; i++)
		free(names[i]);
	free(names);
	free(normal);
	return r;
}
