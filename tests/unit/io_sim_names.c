/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * io_sim_names: the live side of directories, and of the real files that LMDB uses. See io_sim.h.
 *
 * A real file that appears outside "meta" (a backup made by LMDB) is adopted into the names when its path is used or its
 * directory is listed or synced; from then on it is in the history like a committed data.mdb.
 */
#include "config.h"
#include "unit.h"
#include "io_sim_impl.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
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

/* Is it below (not at) a directory called meta? */
static bool is_below_meta(const char *path)
{
	const char *p = strstr(path, "/meta/");

	return (p && p[6]) || strncmp(path, "meta/", 5) == 0;
}

bool sim_is_real(struct vc_sim *sim, const char *path)
{
	size_t at = sim_names_find(&sim->names, path);

	return is_below_meta(path) || (at && sim->inodes[sim->names.v[at - 1].inode]->kind == SIM_META);
}

/* The path as the engine knows it, also when it gives the real one. */
static char *sim_virtual(struct vc_sim *sim, const char *path)
{
	size_t len = sim->tmpdir ? strlen(sim->tmpdir) : 0;

	return sim_normal(len && strncmp(path, sim->tmpdir, len) == 0 && path[len] == '/' ? path + len : path);
}

int sim_find(struct vc_sim *sim, const char *path, uint32_t *ret)
{
	size_t at = sim_names_find(&sim->names, path);

	if (!at)
		return -ENOENT;
	*ret = sim->names.v[at - 1].inode;
	return 0;
}

static uint8_t *read_whole(const char *path, uint64_t *ret_len)
{
	FILE *f = fopen(path, "rb");
	struct stat st;
	uint8_t *bytes;

	if (!f)
		perror(path);
	assert(f && fstat(fileno(f), &st) == 0);
	bytes = sim_alloc((size_t)st.st_size);
	assert(fread(bytes, 1, (size_t)st.st_size, f) == (size_t)st.st_size);
	fclose(f);
	*ret_len = (uint64_t)st.st_size;
	return bytes;
}

static uint32_t meta_inode(struct vc_sim *sim, const char *path)
{
	uint32_t inode, dir;

	if (sim_find(sim, path, &inode) == 0) {
		assert(sim->inodes[inode]->kind == SIM_META);
		return inode;
	}
	assert(sim_dir_of(sim, path, &dir) == 0);
	inode = sim_inode_new(sim, SIM_META);
	sim->inodes[inode]->linked = true;
	sim_names_set(&sim->names, path, inode);
	sim_event_new(sim, SIM_EV_CREATE, inode, path)->dir = dir;
	return inode;
}

/* Take a copy of a real file as the last committed state of `path`. */
static void meta_record(struct vc_sim *sim, const char *path)
{
	char *real = sim_real(sim, path);
	uint64_t len;
	uint8_t *bytes = read_whole(real, &len);

	sim_record_meta(sim, meta_inode(sim, path), path, bytes, len);
	free(bytes);
	free(real);
}

void sim_adopt(struct vc_sim *sim, const char *path)
{
	char *real;
	struct stat st;

	if (!sim->tmpdir || is_below_meta(path) || sim_names_find(&sim->names, path))
		return;
	real = sim_real(sim, path);
	if (lstat(real, &st) == 0 && S_ISREG(st.st_mode))
		meta_record(sim, path);
	free(real);
}

static void adopt_all(struct vc_sim *sim, const char *dir)
{
	struct dirent *de;
	char *real;
	DIR *d;

	if (!sim->tmpdir)
		return;
	real = sim_real(sim, dir);
	d = opendir(real);
	while (d && (de = readdir(d))) {
		char *path;

		assert(asprintf(&path, "%s/%s", strcmp(dir, "/") == 0 ? "" : dir, de->d_name) > 0);
		sim_adopt(sim, path);
		free(path);
	}
	if (d)
		closedir(d);
	free(real);
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
	sim_adopt(sim, normal);
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
	char *real_from = sim_real(sim, from), *real_to = sim_real(sim, to);
	int r = 0;

	sim_real_parents(sim, to);
	if (rename(real_from, real_to) < 0)
		r = -errno;
	free(real_from);
	free(real_to);
	return r;
}

int sim_rename(struct vc_io *io, const char *from, const char *to)
{
	struct vc_sim *sim = to_sim(io);
	char *a = sim_normal(from), *b = sim_normal(to);
	bool real, named;
	int r;

	sim_lock(sim);
	sim_adopt(sim, a);
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
	if (sim_is_meta_dir(path)) {
		char *inside;

		assert(asprintf(&inside, "%s/x", path) > 0);
		sim_real_parents(sim, inside);
		free(inside);
	}
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
		if (!sim_is_meta_dir(normal))
			adopt_all(sim, normal);
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
	adopt_all(sim, normal);
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

/* ---- LMDB ---- */

const char *sim_real_path(struct vc_io *io, const char *path, char *buf, size_t len)
{
	struct vc_sim *sim = to_sim(io);
	char *normal = sim_virtual(sim, path), *real = sim_real(sim, normal);

	sim_real_parents(sim, normal);
	assert(strlen(real) < len);
	memcpy(buf, real, strlen(real) + 1);
	free(real);
	free(normal);
	return buf;
}

void sim_meta_committed(struct vc_io *io, const char *path)
{
	struct vc_sim *sim = to_sim(io);
	char *normal = sim_virtual(sim, path);

	if (sim_is_meta_dir(normal)) {
		char *file;

		assert(asprintf(&file, "%s/data.mdb", normal) > 0);
		free(normal);
		normal = file;
	}
	sim_lock(sim);
	meta_record(sim, normal);
	pthread_mutex_unlock(&sim->lock);
	free(normal);
}
