/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * io_sim: the live side: the io table, faults and files. See io_sim.h; names are in io_sim_names.c.
 *
 *   vc_sim.names   path -> inode number      vc_sim.inodes[]   contents, kept to the end
 *   vc_sim.events  what changed, in order; an operation and its event are one step under vc_sim.lock
 *
 * Inode 0 is the top of the tree and has no name. Real files ("meta") are opened through vc_io_posix, so an open file
 * of theirs is not a struct sim_file.
 */
#include "config.h"
#include "unit.h"
#include "io_ring.h"
#include "io_sim_impl.h"

#include <stdlib.h>
#include "msg.h"

#define FILE_MAX_BYTES (UINT64_C(1) << 32)

struct sim_file {
	struct vc_file file;
	struct sim_inode *node;
	uint32_t inode;
	bool writable;
	char *path;
};

static struct sim_file *to_file(struct vc_file *file)
{
	return vc_container_of(file, struct sim_file, file);
}

int sim_end(struct vc_sim *sim, int r, const char *what, const char *path)
{
	pthread_mutex_unlock(&sim->lock);
	if (r < 0 && r != -EBUSY)
		vc_err("%s: cannot %s: %s (simulated)", path, what, strerror(-r));
	return r;
}

int sim_end_quiet(struct vc_sim *sim, int r, const char *what, const char *path)
{
	if (r != -ENOENT && r != -EEXIST)
		return sim_end(sim, r, what, path);
	pthread_mutex_unlock(&sim->lock);
	return r;
}

/* ---- faults and counters ---- */

int sim_call(struct vc_sim *sim, enum vc_sim_op op, const char *path)
{
	struct vc_sim_fault *f = &sim->fault;

	sim->calls[__builtin_ctz((unsigned)op)]++;
	if (!(f->ops & (unsigned)op) || (sim->fault_path && !strstr(path, sim->fault_path)))
		return 0;
	if (f->nth > 1) {
		f->nth--;
		return 0;
	}
	sim->faults++;
	if (!f->sticky)
		f->ops = 0;
	return -f->error;
}

void vc_sim_fail(struct vc_sim *sim, const struct vc_sim_fault *fault)
{
	sim_lock(sim);
	free(sim->fault_path);
	sim->fault = fault ? *fault : (struct vc_sim_fault){ .ops = 0 };
	sim->fault_path = fault && fault->path ? sim_strdup(fault->path) : NULL;
	sim->faults = 0;
	pthread_mutex_unlock(&sim->lock);
}

unsigned vc_sim_faults(struct vc_sim *sim)
{
	unsigned n;

	sim_lock(sim);
	n = sim->faults;
	pthread_mutex_unlock(&sim->lock);
	return n;
}

uint64_t vc_sim_calls(struct vc_sim *sim, enum vc_sim_op op)
{
	uint64_t n;

	sim_lock(sim);
	n = sim->calls[__builtin_ctz((unsigned)op)];
	pthread_mutex_unlock(&sim->lock);
	return n;
}

static uint64_t inode_bytes(const struct sim_inode *node)
{
	return node->linked || node->opens ? VC_MAX(node->data.size, node->reserved_end) : 0;
}

static uint64_t sim_used(const struct vc_sim *sim)
{
	uint64_t used = 0;

	for (size_t i = 0; i < sim->ninodes; i++)
		used += inode_bytes(sim->inodes[i]);
	return used;
}

int sim_space_for(const struct vc_sim *sim, const struct sim_inode *node, uint64_t end)
{
	uint64_t now = inode_bytes(node);

	if (end > FILE_MAX_BYTES)
		return -EFBIG;
	return end > now && sim_used(sim) + (end - now) > sim->capacity ? -ENOSPC : 0;
}

void vc_sim_set_capacity(struct vc_sim *sim, uint64_t bytes)
{
	sim_lock(sim);
	sim->capacity = bytes;
	pthread_mutex_unlock(&sim->lock);
}

/* ---- files ---- */

static int open_inode(struct vc_sim *sim, const char *path, int flags, uint32_t *ret)
{
	int r = sim_call(sim, VC_SIM_OPEN, path);
	struct sim_event *ev;
	uint32_t dir;

	if (r < 0)
		return r;
	r = sim_find(sim, path, ret);
	if (r == 0 && flags & VC_IO_CREATE && flags & VC_IO_EXCL)
		return -EEXIST;
	if (r == 0)
		return sim->inodes[*ret]->kind == SIM_DIR ? -EISDIR : 0;
	if (!(flags & VC_IO_CREATE))
		return r;
	r = sim_dir_of(sim, path, &dir);
	if (r < 0)
		return r;
	*ret = sim_inode_new(sim, SIM_FILE);
	sim->inodes[*ret]->linked = true;
	sim_names_set(&sim->names, path, *ret);
	ev = sim_event_new(sim, SIM_EV_CREATE, *ret, path);
	ev->dir = dir;
	return 0;
}

static int real_open(struct vc_sim *sim, const char *path, int flags, struct vc_file **ret_file)
{
	char *real = sim_real(sim, path);
	int r;

	pthread_mutex_unlock(&sim->lock);
	r = vc_io_open(vc_io_posix(), real, flags, ret_file);
	free(real);
	return r;
}

static int sim_open(struct vc_io *io, const char *path, int flags, struct vc_file **ret_file)
{
	struct vc_sim *sim = to_sim(io);
	char *normal = sim_normal(path);
	struct sim_file *f;
	uint32_t inode = 0;
	int r;

	sim_lock(sim);
	if (sim_is_real(sim, normal)) {
		r = real_open(sim, normal, flags, ret_file);
		free(normal);
		return r;
	}
	r = open_inode(sim, normal, flags, &inode);
	if (r < 0) {
		free(normal);
		return sim_end_quiet(sim, r, "open", path);
	}
	f = sim_alloc(sizeof(*f));
	*f = (struct sim_file){ { io }, sim->inodes[inode], inode, flags & VC_IO_WRITE, normal };
	f->node->opens++;
	pthread_mutex_unlock(&sim->lock);
	*ret_file = &f->file;
	return 0;
}

static void sim_close(struct vc_file *file)
{
	struct vc_sim *sim = to_sim(file->io);
	struct sim_file *f = to_file(file);

	sim_lock(sim);
	assert(f->node->opens > 0);
	f->node->opens--;
	if (f->node->locked_by == f)
		f->node->locked_by = NULL;
	pthread_mutex_unlock(&sim->lock);
	free(f->path);
	free(f);
}

static ssize_t sim_preadv(struct vc_file *file, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	struct vc_sim *sim = to_sim(file->io);
	struct sim_file *f = to_file(file);
	uint64_t pos = offset;
	int r;

	sim_lock(sim);
	r = sim_call(sim, VC_SIM_READ, f->path);
	if (r < 0)
		return sim_end(sim, r, "read", f->path);
	for (int i = 0; i < iovcnt && pos < f->node->data.size; i++) {
		uint64_t n = VC_MIN((uint64_t)iov[i].iov_len, f->node->data.size - pos);

		sim_data_read(&f->node->data, pos, iov[i].iov_base, n);
		pos += n;
	}
	pthread_mutex_unlock(&sim->lock);
	return (ssize_t)(pos - offset);
}

/* At once, on the thread of the caller. */
static int sim_start_read(struct vc_file *file, struct vc_io_ring *ring VC_UNUSED, struct vc_io_read *read)
{
	struct vc_sim *sim = to_sim(file->io);
	struct sim_file *f = to_file(file);
	ssize_t n = 0;

	sim_lock(sim);
	if (sim_call(sim, VC_SIM_READ, f->path) < 0)
		n = -EAGAIN;
	else if (read->offset < f->node->data.size)
		n = (ssize_t)VC_MIN((uint64_t)read->len, f->node->data.size - read->offset);
	if (n > 0)
		sim_data_read(&f->node->data, read->offset, read->buf, (uint64_t)n);
	pthread_mutex_unlock(&sim->lock);
	read->done(read, n);
	return 0;
}

static uint8_t *gather(const struct iovec *iov, int iovcnt, uint64_t *ret_len)
{
	uint64_t len = 0;
	uint8_t *buf, *p;

	for (int i = 0; i < iovcnt; i++)
		len += iov[i].iov_len;
	p = buf = sim_alloc(len);
	for (int i = 0; i < iovcnt; i++) {
		if (iov[i].iov_len)
			memcpy(p, iov[i].iov_base, iov[i].iov_len);
		p += iov[i].iov_len;
	}
	*ret_len = len;
	return buf;
}

static int sim_pwritev(struct vc_file *file, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	struct vc_sim *sim = to_sim(file->io);
	struct sim_file *f = to_file(file);
	uint64_t len;
	uint8_t *data = gather(iov, iovcnt, &len);
	int r, fault;

	sim_lock(sim);
	fault = sim_call(sim, VC_SIM_WRITE, f->path);
	if (fault < 0)
		len = sim->fault.partial ? VC_ROUND_DOWN(len / 2, (uint64_t)SIM_SECTOR) : 0;
	r = f->writable ? 0 : -EBADF;
	if (r == 0 && len)
		r = offset > FILE_MAX_BYTES ? -EFBIG : sim_space_for(sim, f->node, offset + len);
	if (r == 0 && len)
		sim_record_write(sim, f->inode, f->path, data, len, offset);
	else
		free(data);
	return sim_end(sim, fault < 0 ? fault : r, "write", f->path);
}

static int sim_datasync(struct vc_file *file)
{
	struct vc_sim *sim = to_sim(file->io);
	struct sim_file *f = to_file(file);
	int r;

	sim_lock(sim);
	r = sim_call(sim, VC_SIM_SYNC, f->path);
	sim_event_new(sim, SIM_EV_SYNC, f->inode, f->path)->failed = r < 0;
	return sim_end(sim, r, "sync", f->path);
}

static int sim_truncate(struct vc_file *file, uint64_t size)
{
	struct vc_sim *sim = to_sim(file->io);
	struct sim_file *f = to_file(file);
	int r;

	sim_lock(sim);
	r = sim_call(sim, VC_SIM_TRUNCATE, f->path);
	if (r == 0 && !f->writable)
		r = -EINVAL;
	if (r == 0 && size > FILE_MAX_BYTES)
		r = -EFBIG;
	if (r == 0)
		sim_record_truncate(sim, f->inode, f->path, size);
	return sim_end(sim, r, "truncate", f->path);
}

static int sim_allocate(struct vc_file *file, uint64_t offset, uint64_t len)
{
	struct vc_sim *sim = to_sim(file->io);
	struct sim_file *f = to_file(file);
	int r;

	sim_lock(sim);
	r = sim_call(sim, VC_SIM_ALLOCATE, f->path);
	if (r == 0)
		r = sim_space_for(sim, f->node, offset + len);
	if (r == 0)
		f->node->reserved_end = VC_MAX(f->node->reserved_end, offset + len);
	if (r == -EOPNOTSUPP) {
		pthread_mutex_unlock(&sim->lock);
		return r;
	}
	return sim_end(sim, r, "reserve space", f->path);
}

static int sim_size(struct vc_file *file, uint64_t *ret_size)
{
	struct vc_sim *sim = to_sim(file->io);
	int r;

	sim_lock(sim);
	r = sim_call(sim, VC_SIM_SIZE, to_file(file)->path);
	if (r == 0)
		*ret_size = to_file(file)->node->data.size;
	return sim_end(sim, r, "stat", to_file(file)->path);
}

static void sim_start_writeback(struct vc_file *file, uint64_t offset VC_UNUSED, uint64_t len VC_UNUSED)
{
	struct vc_sim *sim = to_sim(file->io);

	sim_lock(sim);
	(void)sim_call(sim, VC_SIM_WRITEBACK, to_file(file)->path);
	pthread_mutex_unlock(&sim->lock);
}

static int sim_flock(struct vc_file *file)
{
	struct vc_sim *sim = to_sim(file->io);
	struct sim_file *f = to_file(file);
	int r = 0;

	sim_lock(sim);
	if (f->node->locked_by && f->node->locked_by != f)
		r = -EBUSY;
	else
		f->node->locked_by = f;
	return sim_end(sim, r, "lock", f->path);
}

static int sim_space(struct vc_io *io, const char *path VC_UNUSED, struct vc_io_space *ret)
{
	struct vc_sim *sim = to_sim(io);
	uint64_t used;

	sim_lock(sim);
	used = sim_used(sim);
	ret->total = sim->capacity;
	ret->free = used < sim->capacity ? sim->capacity - used : 0;
	pthread_mutex_unlock(&sim->lock);
	return 0;
}

static const struct vc_io_ops sim_ops = {
	.open = sim_open,
	.close = sim_close,
	.preadv = sim_preadv,
	.start_read = sim_start_read,
	.pwritev = sim_pwritev,
	.datasync = sim_datasync,
	.truncate = sim_truncate,
	.allocate = sim_allocate,
	.size = sim_size,
	.start_writeback = sim_start_writeback,
	.unlink = sim_unlink,
	.rename = sim_rename,
	.mkdir = sim_mkdir,
	.sync_dir = sim_sync_dir,
	.list = sim_list,
	.lock = sim_flock,
	.space = sim_space,
	.meta_committed = sim_meta_committed,
	.real_path = sim_real_path,
};

/* ---- life ---- */

struct vc_sim *vc_sim_new(void)
{
	static atomic_uint_fast64_t sims;
	struct vc_sim *sim = sim_alloc(sizeof(*sim));

	sim->number = atomic_fetch_add(&sims, 1) + 1;
	sim->io.ops = &sim_ops;
	pthread_mutex_init(&sim->lock, NULL);
	sim->capacity = UINT64_C(1) << 40;
	sim_inode_new(sim, SIM_DIR);
	return sim;
}

void vc_sim_free(struct vc_sim *sim)
{
	if (!sim)
		return;
	sim_real_free(sim);
	for (size_t i = 0; i < sim->ninodes; i++) {
		assert(sim->inodes[i]->opens == 0); /* a file was not closed */
		sim_data_free(&sim->inodes[i]->base);
		sim_data_free(&sim->inodes[i]->data);
		free(sim->inodes[i]);
	}
	for (size_t i = 0; i < sim->nevents; i++) {
		free(sim->events[i].data);
		free(sim->events[i].path);
		free(sim->events[i].path2);
	}
	free(sim->inodes);
	free(sim->events);
	sim_names_free(&sim->names);
	sim_names_free(&sim->base_names);
	free(sim->fault_path);
	pthread_mutex_destroy(&sim->lock);
	free(sim);
}

struct vc_io *vc_sim_io(struct vc_sim *sim)
{
	return &sim->io;
}

int vc_sim_corrupt(struct vc_sim *sim, const char *path, uint64_t offset, uint8_t mask)
{
	uint32_t inode;
	int r;

	sim_lock(sim);
	r = sim_find(sim, path, &inode);
	if (r == 0 && offset >= sim->inodes[inode]->data.size)
		r = -ERANGE;
	if (r == 0) {
		uint8_t byte;

		sim_data_read(&sim->inodes[inode]->data, offset, &byte, 1);
		byte ^= mask;
		sim_data_write(&sim->inodes[inode]->data, offset, &byte, 1);
	}
	pthread_mutex_unlock(&sim->lock);
	return r;
}
