/* SPDX-License-Identifier: BSD-2-Clause */
/* io_sim_history: names and events: what both the live side and the crash replay of io_sim are made of. */
#include "config.h"
#include "unit.h"
#include "io_sim_impl.h"

#include <stdlib.h>

void *sim_alloc(size_t len)
{
	void *p = calloc(1, len ? len : 1);

	assert(p);
	return p;
}

char *sim_strdup(const char *s)
{
	char *copy = strdup(s);

	assert(copy);
	return copy;
}

/* ---- names ---- */

size_t sim_names_find(const struct sim_names *names, const char *path)
{
	size_t i = names->n;

	while (i > 0 && strcmp(names->v[i - 1].path, path) != 0)
		i--;
	return i;
}

void sim_names_set(struct sim_names *names, const char *path, uint32_t inode)
{
	size_t at = sim_names_find(names, path);

	if (at) {
		names->v[at - 1].inode = inode;
		return;
	}
	if (names->n == names->cap) {
		names->cap = names->cap ? names->cap * 2 : 16;
		names->v = realloc(names->v, names->cap * sizeof(*names->v));
		assert(names->v);
	}
	names->v[names->n++] = (struct sim_name){ sim_strdup(path), inode };
}

void sim_names_del(struct sim_names *names, const char *path)
{
	size_t at = sim_names_find(names, path);

	if (!at)
		return;
	free(names->v[at - 1].path);
	names->n--;
	memmove(&names->v[at - 1], &names->v[at], (names->n - (at - 1)) * sizeof(*names->v));
}

void sim_names_free(struct sim_names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->v[i].path);
	free(names->v);
	*names = (struct sim_names){ .n = 0 };
}

bool sim_is_root(const char *path)
{
	return strcmp(path, "/") == 0 || strcmp(path, ".") == 0;
}

bool sim_is_meta_dir(const char *path)
{
	const char *base = strrchr(path, '/');

	return strcmp(base ? base + 1 : path, "meta") == 0;
}

char *sim_parent(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *parent;

	if (!slash)
		return sim_strdup(".");
	if (slash == path)
		return sim_strdup("/");
	parent = strndup(path, (size_t)(slash - path));
	assert(parent);
	return parent;
}

int sim_dir_of(struct vc_sim *sim, const char *path, uint32_t *ret)
{
	char *parent = sim_parent(path);
	size_t at = sim_names_find(&sim->names, parent);
	int r = 0;

	*ret = 0;
	if (at)
		*ret = sim->names.v[at - 1].inode;
	else if (!sim_is_root(parent))
		r = -ENOENT;
	if (r == 0 && sim->inodes[*ret]->kind != SIM_DIR)
		r = -ENOTDIR;
	free(parent);
	return r;
}

/* ---- inodes and events ---- */

uint32_t sim_inode_new(struct vc_sim *sim, enum sim_kind kind)
{
	struct sim_inode *node = sim_alloc(sizeof(*node));

	if (sim->ninodes == sim->inodes_cap) {
		sim->inodes_cap = sim->inodes_cap ? sim->inodes_cap * 2 : 16;
		sim->inodes = realloc(sim->inodes, sim->inodes_cap * sizeof(*sim->inodes));
		assert(sim->inodes);
	}
	node->kind = kind;
	sim->inodes[sim->ninodes] = node;
	return (uint32_t)sim->ninodes++;
}

struct sim_event *sim_event_new(struct vc_sim *sim, enum sim_event_kind kind, uint32_t inode, const char *path)
{
	struct sim_event *ev;

	if (sim->nevents == sim->events_cap) {
		sim->events_cap = sim->events_cap ? sim->events_cap * 2 : 64;
		sim->events = realloc(sim->events, sim->events_cap * sizeof(*sim->events));
		assert(sim->events);
	}
	ev = &sim->events[sim->nevents++];
	*ev = (struct sim_event){ .kind = kind, .inode = inode, .path = sim_strdup(path) };
	return ev;
}

size_t sim_record_write(struct vc_sim *sim, uint32_t inode, const char *path, uint8_t *data, uint64_t len, uint64_t offset)
{
	struct sim_data *d = &sim->inodes[inode]->data;
	struct sim_event *ev = sim_event_new(sim, SIM_EV_WRITE, inode, path);

	if (vc_is_zero(data, len)) {
		free(data);
		data = NULL;
	}
	ev->offset = offset;
	ev->len = len;
	ev->data = data;
	ev->size_before = d->size;
	sim_data_write(d, offset, data, len);
	ev->size_after = d->size;
	return sim->nevents - 1;
}

void sim_record_truncate(struct vc_sim *sim, uint32_t inode, const char *path, uint64_t size)
{
	struct sim_inode *node = sim->inodes[inode];
	struct sim_event *ev = sim_event_new(sim, SIM_EV_TRUNCATE, inode, path);

	ev->size_before = node->data.size;
	ev->size_after = size;
	sim_data_truncate(&node->data, size);
	node->reserved_end = VC_MIN(node->reserved_end, size);
}

size_t vc_sim_events(struct vc_sim *sim)
{
	size_t n;

	pthread_mutex_lock(&sim->lock);
	n = sim->nevents;
	pthread_mutex_unlock(&sim->lock);
	return n;
}

static void describe(const struct sim_event *ev, char *buf, size_t len)
{
	static const char *const words[] = {
		"write", "truncate", "sync", "durable", "create", "unlink", "rename", "sync_dir",
	};
	int n = snprintf(buf, len, "%s %s", words[ev->kind], ev->path);

	if (n < 0 || (size_t)n >= len)
		return;
	buf += n;
	len -= (size_t)n;
	switch (ev->kind) {
	case SIM_EV_WRITE:
		snprintf(buf, len, " %llu+%llu%s%s", (unsigned long long)ev->offset, (unsigned long long)ev->len,
			 ev->data || ev->settled ? "" : " zeros", ev->size_after > ev->size_before ? " extends" : "");
		break;
	case SIM_EV_TRUNCATE:
		snprintf(buf, len, " %llu -> %llu", (unsigned long long)ev->size_before,
			 (unsigned long long)ev->size_after);
		break;
	case SIM_EV_RENAME:
		snprintf(buf, len, " -> %s", ev->path2);
		break;
	case SIM_EV_SYNC:
	case SIM_EV_SYNC_DIR:
		snprintf(buf, len, "%s", ev->failed ? " FAILED" : "");
		break;
	case SIM_EV_SYNC_ONE:
		snprintf(buf, len, " %llu+%llu (O_DSYNC)", (unsigned long long)ev->offset, (unsigned long long)ev->len);
		break;
	default:
		break;
	}
}

const char *vc_sim_describe(struct vc_sim *sim, size_t i, char *buf, size_t len)
{
	pthread_mutex_lock(&sim->lock);
	assert(i < sim->nevents);
	describe(&sim->events[i], buf, len);
	pthread_mutex_unlock(&sim->lock);
	return buf;
}

bool vc_sim_resynced(struct vc_sim *sim, size_t from, char *buf, size_t len)
{
	bool found = false;

	pthread_mutex_lock(&sim->lock);
	for (size_t i = from; i < sim->nevents && !found; i++) {
		const struct sim_event *failed = &sim->events[i];

		if (failed->kind != SIM_EV_SYNC || !failed->failed || sim->inodes[failed->inode]->kind == SIM_META)
			continue;
		for (size_t k = i + 1; k < sim->nevents && !found; k++) {
			const struct sim_event *ev = &sim->events[k];

			found = ev->kind == SIM_EV_SYNC && ev->inode == failed->inode && !ev->failed;
			if (found)
				describe(ev, buf, len);
		}
	}
	pthread_mutex_unlock(&sim->lock);
	return found;
}

void vc_sim_dump(struct vc_sim *sim, size_t from, size_t to)
{
	char line[600];

	for (size_t i = from; i < to; i++)
		fprintf(stderr, "%6zu %s\n", i, vc_sim_describe(sim, i, line, sizeof(line)));
}
