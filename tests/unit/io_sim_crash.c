/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * io_sim_crash: what a power cut leaves of a simulated file system. See io_sim.h for the rules.
 *
 * Three passes over the history before the crash point:
 *   1. backwards: an operation is certain when the first sync of its file (of its directories, for a name) after it
 *      exists and succeeded. A sync that failed in between makes it uncertain for ever.
 *   2. the policy chooses a fate for each uncertain operation; then, per file, every size change before one that is
 *      kept is kept too (sizes change in order).
 *   3. forwards: `cache` gets every operation, as the kernel's page cache did. The sectors of a kept write are copied
 *      from it to `disk`: a sector carries the writes before it that it was shared with, as real ones do.
 */
#include "config.h"
#include "unit.h"
#include "io_sim_impl.h"

#include <stdlib.h>

enum fate { FATE_KEPT, FATE_LOST, FATE_TORN };

struct verdict {
	bool uncertain;
	enum fate fate;
	bool keep_size;
};

struct replay_file {
	struct sim_data cache, disk;
};

struct replay {
	struct vc_sim *sim;
	size_t end;               /* events before this index have happened */
	struct verdict *verdicts; /* per event */
	struct replay_file *files;/* per inode */
	struct sim_names names;
	uint64_t seed;
};

/* ---- 1: what is certain ---- */

static bool is_certain(const struct sim_event *ev, const bool *next_sync_ok)
{
	switch (ev->kind) {
	case SIM_EV_WRITE:
	case SIM_EV_TRUNCATE:
		return next_sync_ok[ev->inode];
	case SIM_EV_CREATE:
	case SIM_EV_UNLINK:
		return next_sync_ok[ev->dir];
	case SIM_EV_RENAME:
		return next_sync_ok[ev->dir] && next_sync_ok[ev->dir2];
	default:
		return true;
	}
}

static void find_uncertain(struct replay *re)
{
	bool *next_sync_ok = sim_alloc(re->sim->ninodes * sizeof(bool));

	for (size_t i = re->end; i-- > 0;) {
		const struct sim_event *ev = &re->sim->events[i];

		if (ev->kind == SIM_EV_SYNC || ev->kind == SIM_EV_SYNC_DIR)
			next_sync_ok[ev->inode] = !ev->failed;
		re->verdicts[i].uncertain = i >= re->sim->nbase && !is_certain(ev, next_sync_ok);
		re->verdicts[i].keep_size = true;
	}
	free(next_sync_ok);
}

/* ---- 2: fates ---- */

static bool is_name_event(const struct sim_event *ev)
{
	return ev->kind == SIM_EV_CREATE || ev->kind == SIM_EV_UNLINK || ev->kind == SIM_EV_RENAME;
}

static void decide_random(struct replay *re, const struct sim_event *ev, struct verdict *v)
{
	uint64_t roll = vc_unit_below(&re->seed, 8);

	v->fate = roll < 4 ? FATE_KEPT : roll < 7 || ev->kind != SIM_EV_WRITE ? FATE_LOST : FATE_TORN;
	v->keep_size = vc_unit_below(&re->seed, 2);
	if (ev->kind == SIM_EV_TRUNCATE)
		v->keep_size = v->fate == FATE_KEPT;
}

/* `nth`: its number among the uncertain ones. */
static void decide(struct replay *re, const struct vc_sim_policy *policy, const struct sim_event *ev, size_t nth,
		   struct verdict *v)
{
	bool chosen = nth == policy->which, keep = true;

	switch (policy->keep) {
	case VC_SIM_KEEP_ALL: break;
	case VC_SIM_KEEP_NONE: keep = false; break;
	case VC_SIM_KEEP_DATA: keep = !is_name_event(ev); break;
	case VC_SIM_KEEP_NAMES: keep = is_name_event(ev); break;
	case VC_SIM_DROP_ONE: keep = !chosen; break;
	case VC_SIM_KEEP_ONE: keep = chosen; break;
	case VC_SIM_TEAR_ONE: keep = !chosen; break;
	case VC_SIM_KEEP_RANDOM:
		decide_random(re, ev, v);
		return;
	}
	v->fate = keep ? FATE_KEPT : FATE_LOST;
	v->keep_size = keep;
	if (policy->keep == VC_SIM_TEAR_ONE && chosen && ev->kind == SIM_EV_WRITE) {
		v->fate = FATE_TORN;
		v->keep_size = true;
	}
}

/* The size of a file on disk is that after a prefix of its changes. */
static void keep_sizes_in_order(struct replay *re)
{
	bool *later_kept = sim_alloc(re->sim->ninodes * sizeof(bool));

	for (size_t i = re->end; i-- > 0;) {
		const struct sim_event *ev = &re->sim->events[i];

		if ((ev->kind != SIM_EV_WRITE && ev->kind != SIM_EV_TRUNCATE) || ev->size_before == ev->size_after)
			continue;
		if (re->verdicts[i].keep_size)
			later_kept[ev->inode] = true;
		re->verdicts[i].keep_size = later_kept[ev->inode];
	}
	free(later_kept);
}

static void decide_all(struct replay *re, const struct vc_sim_policy *policy)
{
	size_t nth = 0;

	for (size_t i = 0; i < re->end; i++)
		if (re->verdicts[i].uncertain)
			decide(re, policy, &re->sim->events[i], nth++, &re->verdicts[i]);
	keep_sizes_in_order(re);
}

/* ---- 3: the disk ---- */

static void copy_sector(struct replay_file *f, uint64_t offset)
{
	sim_data_reserve(&f->disk, offset + SIM_SECTOR);
	if (offset < f->cache.cap)
		memcpy(f->disk.bytes + offset, f->cache.bytes + offset, SIM_SECTOR);
	else
		memset(f->disk.bytes + offset, 0, SIM_SECTOR);
}

/* Of a torn write at least one sector is lost, and one kept if it has two. */
static void write_torn(struct replay *re, struct replay_file *f, uint64_t first, uint64_t n)
{
	uint64_t lost = vc_unit_below(&re->seed, n), kept = n < 2 ? n : (lost + 1 + vc_unit_below(&re->seed, n - 1)) % n;

	for (uint64_t i = 0; i < n; i++)
		if (i != lost && (i == kept || vc_unit_below(&re->seed, 2)))
			copy_sector(f, (first + i) * SIM_SECTOR);
}

static void replay_write(struct replay *re, const struct sim_event *ev, const struct verdict *v)
{
	struct replay_file *f = &re->files[ev->inode];
	uint64_t first = ev->offset / SIM_SECTOR, end = VC_DIV_UP(ev->offset + ev->len, SIM_SECTOR);

	sim_data_write(&f->cache, ev->offset, ev->data, ev->len);
	if (v->keep_size && ev->size_before != ev->size_after)
		f->disk.size = ev->size_after;
	if (v->fate == FATE_TORN)
		write_torn(re, f, first, end - first);
	for (uint64_t s = first; v->fate == FATE_KEPT && s < end; s++)
		copy_sector(f, s * SIM_SECTOR);
}

static void replay_truncate(struct replay *re, const struct sim_event *ev, const struct verdict *v)
{
	struct replay_file *f = &re->files[ev->inode];

	sim_data_truncate(&f->cache, ev->size_after);
	if (!v->keep_size)
		return;
	sim_data_truncate(&f->disk, ev->size_after);
	/* The kernel zeroes the rest of the last sector in the cache, and writes the sector. */
	if (ev->size_after < ev->size_before && ev->size_after % SIM_SECTOR)
		copy_sector(f, VC_ROUND_DOWN(ev->size_after, (uint64_t)SIM_SECTOR));
}

static void replay_meta(struct replay *re, const struct sim_event *ev)
{
	struct sim_data *disk = &re->files[ev->inode].disk;

	sim_data_truncate(disk, ev->size_after);
	for (size_t i = 0; i < ev->npages; i++) {
		uint64_t offset = (uint64_t)ev->pages[i] * SIM_PAGE;

		sim_data_write(disk, offset, ev->data + i * SIM_PAGE,
			       VC_MIN((uint64_t)SIM_PAGE, ev->size_after - offset));
	}
}

static void forget_name(struct replay *re, const char *path, uint32_t inode)
{
	size_t at = sim_names_find(&re->names, path);

	if (at && re->names.v[at - 1].inode == inode)
		sim_names_del(&re->names, path);
}

static void replay_event(struct replay *re, const struct sim_event *ev, const struct verdict *v)
{
	if (is_name_event(ev) && v->fate != FATE_KEPT)
		return;
	switch (ev->kind) {
	case SIM_EV_WRITE: replay_write(re, ev, v); break;
	case SIM_EV_TRUNCATE: replay_truncate(re, ev, v); break;
	case SIM_EV_META: replay_meta(re, ev); break;
	case SIM_EV_CREATE: sim_names_set(&re->names, ev->path, ev->inode); break;
	case SIM_EV_UNLINK: forget_name(re, ev->path, ev->inode); break;
	case SIM_EV_RENAME:
		forget_name(re, ev->path, ev->inode);
		sim_names_set(&re->names, ev->path2, ev->inode);
		break;
	case SIM_EV_SYNC:
	case SIM_EV_SYNC_DIR:
		break;
	}
}

/* ---- the new file system ---- */

static bool is_reachable(const struct replay *re, const char *path)
{
	char *parent = sim_parent(path);
	bool ok = sim_is_root(parent) || (sim_names_find(&re->names, parent) && is_reachable(re, parent));

	free(parent);
	return ok;
}

static void write_real(struct vc_sim *sim, const char *path, const struct sim_data *data)
{
	char *real = sim_real(sim, path);
	FILE *f;

	sim_real_parents(sim, path);
	f = fopen(real, "wb");
	assert(f && (data->size == 0 || fwrite(data->bytes, 1, data->size, f) == data->size) && fclose(f) == 0);
	free(real);
}

static void build_file(struct vc_sim *out, uint32_t inode, const char *path, const struct sim_data *disk)
{
	struct sim_inode *node = out->inodes[inode];
	struct sim_event *ev;

	if (node->kind == SIM_META) {
		sim_record_meta(out, inode, path, disk->bytes, disk->size);
		write_real(out, path, disk);
	} else if (disk->size > 0) {
		uint64_t stored = VC_MIN(disk->size, disk->cap);

		ev = sim_event_new(out, SIM_EV_WRITE, inode, path);
		ev->len = stored;
		ev->data = sim_alloc(stored);
		if (stored)
			memcpy(ev->data, disk->bytes, stored);
		ev->size_after = stored;
		sim_data_write(&node->data, 0, ev->data, stored);
		ev = sim_event_new(out, SIM_EV_TRUNCATE, inode, path);
		ev->size_before = stored;
		ev->size_after = disk->size;
		sim_data_truncate(&node->data, disk->size);
	}
}

static void build_name(struct replay *re, struct vc_sim *out, const struct sim_name *name)
{
	uint32_t inode = sim_inode_new(out, re->sim->inodes[name->inode]->kind);
	char *inside;

	out->inodes[inode]->linked = true;
	sim_names_set(&out->names, name->path, inode);
	sim_event_new(out, SIM_EV_CREATE, inode, name->path);
	if (out->inodes[inode]->kind != SIM_DIR) {
		build_file(out, inode, name->path, &re->files[name->inode].disk);
		return;
	}
	if (!sim_is_meta_dir(name->path))
		return;
	assert(asprintf(&inside, "%s/x", name->path) > 0);
	sim_real_parents(out, inside);
	free(inside);
}

static struct vc_sim *build(struct replay *re)
{
	struct vc_sim *out = vc_sim_new();

	out->capacity = re->sim->capacity;
	for (size_t i = 0; i < re->names.n; i++)
		if (is_reachable(re, re->names.v[i].path))
			build_name(re, out, &re->names.v[i]);
	out->nbase = out->nevents;
	return out;
}

/* ---- calls ---- */

static void replay_begin(struct replay *re, struct vc_sim *sim, size_t at)
{
	*re = (struct replay){ .sim = sim, .end = sim->nbase + at };
	assert(re->end <= sim->nevents);
	re->verdicts = sim_alloc(re->end * sizeof(*re->verdicts));
	re->files = sim_alloc(sim->ninodes * sizeof(*re->files));
	find_uncertain(re);
}

static void replay_end(struct replay *re)
{
	for (size_t i = 0; i < re->sim->ninodes; i++) {
		free(re->files[i].cache.bytes);
		free(re->files[i].disk.bytes);
	}
	free(re->files);
	free(re->verdicts);
	sim_names_free(&re->names);
}

size_t vc_sim_uncertain(struct vc_sim *sim, size_t at)
{
	struct replay re;
	size_t n = 0;

	pthread_mutex_lock(&sim->lock);
	replay_begin(&re, sim, at);
	for (size_t i = 0; i < re.end; i++)
		n += re.verdicts[i].uncertain;
	replay_end(&re);
	pthread_mutex_unlock(&sim->lock);
	return n;
}

struct vc_sim *vc_sim_crash(struct vc_sim *sim, size_t at, const struct vc_sim_policy *policy)
{
	struct vc_sim *out;
	struct replay re;

	pthread_mutex_lock(&sim->lock);
	replay_begin(&re, sim, at);
	re.seed = policy->seed;
	decide_all(&re, policy);
	for (size_t i = 0; i < re.end; i++)
		replay_event(&re, &sim->events[i], &re.verdicts[i]);
	out = build(&re);
	replay_end(&re);
	pthread_mutex_unlock(&sim->lock);
	return out;
}
