/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * io_sim_crash: what a power cut leaves of a simulated file system. See io_sim.h for the rules.
 *
 * Three passes over the history before the crash point:
 *   1. backwards: an operation is certain when the first sync of its file (of its directories, for a name) after it
 *      exists and succeeded. A sync that failed in between makes it uncertain for ever. A write through an O_DSYNC
 *      descriptor is certain when it returned.
 *   2. the policy chooses a fate for each uncertain operation; then, per file, every size change before one that is
 *      kept is kept too (sizes change in order).
 *   3. forwards: `cache` gets every operation, as the kernel's page cache did. The sectors of a kept write are copied
 *      from it to `disk`: a sector carries the writes before it that it was shared with, as real ones do.
 */
#include "config.h"
#include "unit.h"
#include "io_sim_impl.h"

#include <stdlib.h>
#include "checksum.h"

enum fate { FATE_KEPT, FATE_LOST, FATE_TORN };

struct verdict {
	bool durable, uncertain;
	enum fate fate;
	bool keep_size;
	uint64_t size;            /* if that is kept; of a torn write it may lie in between */
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
		if (ev->kind == SIM_EV_SYNC_ONE)
			re->verdicts[ev->of].durable = true;
		re->verdicts[i].uncertain = !re->verdicts[i].durable && !is_certain(ev, next_sync_ok);
		re->verdicts[i].keep_size = true;
		re->verdicts[i].size = ev->size_after;
	}
	free(next_sync_ok);
}

/* ---- 2: fates ---- */

static bool is_name_event(const struct sim_event *ev)
{
	return ev->kind == SIM_EV_CREATE || ev->kind == SIM_EV_UNLINK || ev->kind == SIM_EV_RENAME;
}

/* A write that extends its file by several blocks may have done so by some of them. */
static void tear_size(struct replay *re, const struct sim_event *ev, struct verdict *v)
{
	uint64_t first = ev->size_before / SIM_PAGE + 1, end = ev->size_after / SIM_PAGE;

	if (ev->kind == SIM_EV_WRITE && first < end && vc_unit_below(&re->seed, 2))
		v->size = SIM_PAGE * (first + vc_unit_below(&re->seed, end - first));
}

static void decide_random(struct replay *re, const struct sim_event *ev, struct verdict *v)
{
	uint64_t roll = vc_unit_below(&re->seed, 8);

	v->fate = roll < 4 ? FATE_KEPT : roll < 7 || ev->kind != SIM_EV_WRITE ? FATE_LOST : FATE_TORN;
	v->keep_size = vc_unit_below(&re->seed, 2);
	if (ev->kind == SIM_EV_TRUNCATE)
		v->keep_size = v->fate == FATE_KEPT;
	if (v->fate == FATE_TORN)
		tear_size(re, ev, v);
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
		tear_size(re, ev, v);
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

static void keep_sectors(struct replay_file *f, uint64_t first, uint64_t n)
{
	sim_data_take(&f->disk, &f->cache, first * SIM_SECTOR, n * SIM_SECTOR);
}

/* Of a torn write at least one sector is lost, and one kept if it has two. */
static void write_torn(struct replay *re, struct replay_file *f, uint64_t first, uint64_t n)
{
	uint64_t lost = vc_unit_below(&re->seed, n), kept = n < 2 ? n : (lost + 1 + vc_unit_below(&re->seed, n - 1)) % n;

	for (uint64_t i = 0; i < n; i++)
		if (i != lost && (i == kept || vc_unit_below(&re->seed, 2)))
			keep_sectors(f, first + i, 1);
}

static void replay_write(struct replay *re, const struct sim_event *ev, const struct verdict *v)
{
	struct replay_file *f = &re->files[ev->inode];
	uint64_t first = ev->offset / SIM_SECTOR, end = VC_DIV_UP(ev->offset + ev->len, SIM_SECTOR);

	sim_data_write(&f->cache, ev->offset, ev->data, ev->len);
	if (v->keep_size && ev->size_before != ev->size_after)
		f->disk.size = v->size;
	if (!v->uncertain) /* the file reaches there, even if the write that made it so long was in doubt for ever */
		f->disk.size = VC_MAX(f->disk.size, ev->offset + ev->len);
	if (v->fate == FATE_TORN)
		write_torn(re, f, first, end - first);
	else if (v->fate == FATE_KEPT)
		keep_sectors(f, first, end - first);
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
		keep_sectors(f, ev->size_after / SIM_SECTOR, 1);
}

static void forget_name(struct replay *re, const char *path, uint32_t inode)
{
	size_t at = sim_names_find(&re->names, path);

	if (at && re->names.v[at - 1].inode == inode)
		sim_names_del(&re->names, path);
}

static void replay_event(struct replay *re, const struct sim_event *ev, const struct verdict *v)
{
	if (ev->settled || (is_name_event(ev) && v->fate != FATE_KEPT))
		return;
	switch (ev->kind) {
	case SIM_EV_WRITE: replay_write(re, ev, v); break;
	case SIM_EV_TRUNCATE: replay_truncate(re, ev, v); break;
	case SIM_EV_CREATE: sim_names_set(&re->names, ev->path, ev->inode); break;
	case SIM_EV_UNLINK: forget_name(re, ev->path, ev->inode); break;
	case SIM_EV_RENAME:
		forget_name(re, ev->path, ev->inode);
		sim_names_set(&re->names, ev->path2, ev->inode);
		break;
	case SIM_EV_SYNC:
	case SIM_EV_SYNC_ONE:
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

static void build_name(struct replay *re, struct vc_sim *out, const struct sim_name *name)
{
	uint32_t inode = sim_inode_new(out, re->sim->inodes[name->inode]->kind);
	struct sim_inode *node = out->inodes[inode];
	struct sim_data *disk = &re->files[name->inode].disk;

	node->linked = true;
	sim_names_set(&out->names, name->path, inode);
	sim_names_set(&out->base_names, name->path, inode);
	if (node->kind == SIM_DIR)
		return;
	sim_data_truncate(disk, disk->size); /* what lies beyond a lost size is lost */
	sim_data_copy(&node->base, disk);
	sim_data_copy(&node->data, disk);
}

static struct vc_sim *build(struct replay *re)
{
	struct vc_sim *out = vc_sim_new();

	out->capacity = re->sim->capacity;
	for (size_t i = 0; i < re->names.n; i++)
		if (is_reachable(re, re->names.v[i].path))
			build_name(re, out, &re->names.v[i]);
	return out;
}

/* ---- calls ---- */

static void replay_begin(struct replay *re, struct vc_sim *sim, size_t at)
{
	*re = (struct replay){ .sim = sim, .end = at };
	assert(re->end <= sim->nevents && re->end >= sim->settled);
	re->verdicts = sim_alloc(re->end * sizeof(*re->verdicts));
	find_uncertain(re);
}

/* What the disk holds before the first event. */
static void replay_base(struct replay *re)
{
	const struct sim_names *base = &re->sim->base_names;

	re->files = sim_alloc(re->sim->ninodes * sizeof(*re->files));
	for (size_t i = 0; i < re->sim->ninodes; i++) {
		sim_data_copy(&re->files[i].cache, &re->sim->inodes[i]->base);
		sim_data_copy(&re->files[i].disk, &re->sim->inodes[i]->base);
	}
	for (size_t i = 0; i < base->n; i++)
		sim_names_set(&re->names, base->v[i].path, base->v[i].inode);
}

static void replay_end(struct replay *re)
{
	for (size_t i = 0; re->files && i < re->sim->ninodes; i++) {
		sim_data_free(&re->files[i].cache);
		sim_data_free(&re->files[i].disk);
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
	replay_base(&re);
	for (size_t i = 0; i < re.end; i++)
		replay_event(&re, &sim->events[i], &re.verdicts[i]);
	out = build(&re);
	replay_end(&re);
	pthread_mutex_unlock(&sim->lock);
	return out;
}

/* Into what the file holds before the first event: cache and disk are the same there. */
static void settle(struct vc_sim *sim, struct sim_event *ev)
{
	struct sim_data *base = &sim->inodes[ev->inode]->base;

	if (ev->kind == SIM_EV_WRITE)
		sim_data_write(base, ev->offset, ev->data, ev->len);
	else
		sim_data_truncate(base, ev->size_after);
	free(ev->data);
	ev->data = NULL;
	ev->settled = true;
}

void vc_sim_settle(struct vc_sim *sim, size_t from)
{
	struct replay re;
	bool *doubted;

	pthread_mutex_lock(&sim->lock);
	replay_begin(&re, sim, from);
	doubted = sim_alloc(sim->ninodes * sizeof(*doubted));
	for (size_t i = 0; i < from; i++) {
		struct sim_event *ev = &sim->events[i];

		if (ev->settled || (ev->kind != SIM_EV_WRITE && ev->kind != SIM_EV_TRUNCATE))
			continue;
		if (re.verdicts[i].uncertain)
			doubted[ev->inode] = true;
		else if (!doubted[ev->inode])
			settle(sim, ev);
	}
	sim->settled = from;
	free(doubted);
	replay_end(&re);
	pthread_mutex_unlock(&sim->lock);
}

/*
 * After decide_all. A sync changes nothing but what is certain, which says nothing more once all is kept; which sectors of a torn write are lost is drawn
 * from the seed as it is now.
 */
static uint64_t key_of(const struct replay *re, const struct vc_sim_policy *policy)
{
	uint64_t key = re->sim->number;

	for (size_t i = 0; i < re->end; i++) {
		const struct sim_event *ev = &re->sim->events[i];
		const struct verdict *v = &re->verdicts[i];
		uint64_t part[4] = { i, v->fate * 4u + v->keep_size * 2u + (v->uncertain && policy->keep != VC_SIM_KEEP_ALL), v->size,
				     v->fate == FATE_TORN ? re->seed : 0 };

		if (!ev->settled && (is_name_event(ev) || ev->kind == SIM_EV_WRITE || ev->kind == SIM_EV_TRUNCATE))
			key = vc_sum64(part, sizeof(part), key);
	}
	return key;
}

uint64_t vc_sim_crash_key(struct vc_sim *sim, size_t at, const struct vc_sim_policy *policy)
{
	struct replay re;
	uint64_t key;

	pthread_mutex_lock(&sim->lock);
	replay_begin(&re, sim, at);
	re.seed = policy->seed;
	decide_all(&re, policy);
	key = key_of(&re, policy);
	replay_end(&re);
	pthread_mutex_unlock(&sim->lock);
	return key;
}

static int name_order(const void *a, const void *b)
{
	const struct sim_name *x = a, *y = b;

	return strcmp(x->path, y->path);
}

uint64_t vc_sim_hash(struct vc_sim *sim)
{
	struct sim_name *v;
	uint64_t hash = 0;

	pthread_mutex_lock(&sim->lock);
	v = sim_alloc(sim->names.n * sizeof(*v));
	if (sim->names.n)
		memcpy(v, sim->names.v, sim->names.n * sizeof(*v));
	qsort(v, sim->names.n, sizeof(*v), name_order);
	for (size_t i = 0; i < sim->names.n; i++) {
		uint64_t data = sim_data_hash(&sim->inodes[v[i].inode]->data);

		hash = vc_sum64(v[i].path, strlen(v[i].path) + 1, hash);
		hash = vc_sum64(&data, sizeof(data), hash);
	}
	free(v);
	pthread_mutex_unlock(&sim->lock);
	return hash;
}
