/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * io_sim_real: the real files behind directories called "meta", and the recorder of what LMDB does with them.
 *
 * The functions of the C library by which LMDB changes files are defined here a second time. The dynamic linker prefers those
 * of the program, so LMDB calls these. They do the operation, and if the descriptor is of a real file of some sim they write
 * it down as an event, under the sim's lock: one order with what the engine does through the table.
 *
 *   open, open64     a new file in a sim's directory: CREATE (lock.mdb is left out: it carries nothing over a crash)
 *   pwrite, write, writev, pwritev (and those ending in 64)   WRITE, one for each page; through an O_DSYNC descriptor SYNC_ONE follows
 *   ftruncate        TRUNCATE
 *   fallocate        nothing, but room is taken, or lacking; mmap64, mmap: nothing
 *   fdatasync, fsync SYNC, SYNC_DIR; nothing is really synced, as these files need not outlive the test
 *
 * Each first asks whether a fault is due (VC_SIM_META_...).
 *
 * What changes a file in another way (a writable mapping) is not recorded, but noticed: after each commit the
 * real file must be equal to what was recorded.
 *
 * Locks: recorder.lock protects the two lists and is held for looking something up only; it comes before no other.
 */
#include "config.h"
#include "unit.h"
#include "io_sim_impl.h"

#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define TMPFS_MAGIC_NUMBER 0x01021994

struct watched {
	dev_t dev;
	ino_t ino;
	struct vc_sim *sim;
	uint32_t inode;
};

static struct {
	pthread_mutex_t lock;
	struct watched *files;
	size_t nfiles, files_cap;
	struct vc_sim **sims;
	size_t nsims, sims_cap;
	atomic_size_t active; /* sims; read without the lock */
} recorder = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void watch_file(struct vc_sim *sim, uint32_t inode, int fd)
{
	struct stat st;

	assert(fstat(fd, &st) == 0);
	pthread_mutex_lock(&recorder.lock);
	if (recorder.nfiles == recorder.files_cap) {
		recorder.files_cap = recorder.files_cap ? recorder.files_cap * 2 : 16;
		recorder.files = realloc(recorder.files, recorder.files_cap * sizeof(*recorder.files));
		assert(recorder.files);
	}
	recorder.files[recorder.nfiles++] = (struct watched){ st.st_dev, st.st_ino, sim, inode };
	pthread_mutex_unlock(&recorder.lock);
}

/* inode SIM_ALL: every file of the sim. */
#define SIM_ALL UINT32_MAX
static void unwatch(const struct vc_sim *sim, uint32_t inode)
{
	size_t kept = 0;

	pthread_mutex_lock(&recorder.lock);
	for (size_t i = 0; i < recorder.nfiles; i++) {
		struct watched *w = &recorder.files[i];

		if (w->sim != sim || (inode != SIM_ALL && w->inode != inode))
			recorder.files[kept++] = *w;
	}
	recorder.nfiles = kept;
	pthread_mutex_unlock(&recorder.lock);
}

static bool find_watched(int fd, struct watched *ret)
{
	struct stat st;
	bool found = false;

	if (atomic_load(&recorder.active) == 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return false;
	pthread_mutex_lock(&recorder.lock);
	for (size_t i = 0; i < recorder.nfiles && !found; i++) {
		*ret = recorder.files[i];
		found = ret->ino == st.st_ino && ret->dev == st.st_dev;
	}
	pthread_mutex_unlock(&recorder.lock);
	return found;
}

static bool is_inside(const struct vc_sim *sim, const char *path)
{
	size_t len = strlen(sim->tmpdir);

	return strncmp(path, sim->tmpdir, len) == 0 && path[len] == '/';
}

/* The sim in whose real directories `path` lies. */
static struct vc_sim *find_sim(const char *path)
{
	struct vc_sim *found = NULL;

	if (atomic_load(&recorder.active) == 0)
		return NULL;
	pthread_mutex_lock(&recorder.lock);
	for (size_t i = 0; i < recorder.nsims && !found; i++)
		if (is_inside(recorder.sims[i], path))
			found = recorder.sims[i];
	pthread_mutex_unlock(&recorder.lock);
	return found;
}

static void watch_sim(struct vc_sim *sim)
{
	pthread_mutex_lock(&recorder.lock);
	if (recorder.nsims == recorder.sims_cap) {
		recorder.sims_cap = recorder.sims_cap ? recorder.sims_cap * 2 : 16;
		recorder.sims = realloc(recorder.sims, recorder.sims_cap * sizeof(struct vc_sim *));
		assert(recorder.sims);
	}
	recorder.sims[recorder.nsims++] = sim;
	atomic_store(&recorder.active, recorder.nsims);
	pthread_mutex_unlock(&recorder.lock);
}

/* ---- real files ---- */

char *vc_sim_tmpdir(void)
{
	const char *base = getenv("VC_TEST_MEMORY");
	struct statfs fs;
	char *path;

	base = base && *base ? base : "/dev/shm";
	if (statfs(base, &fs) < 0 || fs.f_type != TMPFS_MAGIC_NUMBER || access(base, W_OK) < 0)
		return vc_unit_tmpdir();
	assert(asprintf(&path, "%s/vclonefs-test.XXXXXX", base) > 0);
	assert(mkdtemp(path));
	return path;
}

static char *real_path(const struct vc_sim *sim, const char *path)
{
	char *real;

	assert(asprintf(&real, "%s%s%s", sim->tmpdir, path[0] == '/' ? "" : "/", path) > 0);
	return real;
}

static void make_parents(const struct vc_sim *sim, const char *real)
{
	char *copy = sim_strdup(real);

	for (char *p = copy + strlen(sim->tmpdir) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		assert(mkdir(copy, 0700) == 0 || errno == EEXIST);
		*p = '/';
	}
	free(copy);
}

static void make_file(struct vc_sim *sim, uint32_t inode, const char *real)
{
	const struct sim_data *d = &sim->inodes[inode]->data;
	int fd = open(real, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	assert(fd >= 0 && ftruncate(fd, (off_t)d->size) == 0);
	for (size_t i = 0; i < d->npages && i * SIM_PAGE < d->size; i++) {
		size_t n = (size_t)VC_MIN(d->size - i * SIM_PAGE, (uint64_t)SIM_PAGE);

		if (d->pages[i])
			assert(pwrite(fd, d->pages[i]->bytes, n, (off_t)(i * SIM_PAGE)) == (ssize_t)n);
	}
	watch_file(sim, inode, fd);
	close(fd);
}

/* Of a sim made by a crash only when somebody wants to see them: most states are known already. */
static void make_all(struct vc_sim *sim)
{
	sim->tmpdir = vc_sim_tmpdir();
	assert(sim->tmpdir);
	for (size_t i = 0; i < sim->names.n; i++) {
		const struct sim_name *name = &sim->names.v[i];
		enum sim_kind kind = sim->inodes[name->inode]->kind;
		char *real = real_path(sim, name->path);

		if (kind == SIM_META || sim_is_meta_dir(name->path))
			make_parents(sim, real);
		if (kind == SIM_META)
			make_file(sim, name->inode, real);
		else if (kind == SIM_DIR && sim_is_meta_dir(name->path))
			assert(mkdir(real, 0700) == 0 || errno == EEXIST);
		free(real);
	}
	watch_sim(sim);
}

char *sim_real(struct vc_sim *sim, const char *path)
{
	if (!sim->tmpdir)
		make_all(sim);
	return real_path(sim, path);
}

void sim_real_dir(struct vc_sim *sim, const char *path)
{
	char *real = sim_real(sim, path);

	make_parents(sim, real);
	assert(mkdir(real, 0700) == 0 || errno == EEXIST);
	free(real);
}

void sim_real_forget(struct vc_sim *sim, uint32_t inode)
{
	if (sim->inodes[inode]->kind == SIM_META)
		unwatch(sim, inode);
}

void sim_real_free(struct vc_sim *sim)
{
	size_t kept = 0;

	if (!sim->tmpdir)
		return;
	unwatch(sim, SIM_ALL);
	pthread_mutex_lock(&recorder.lock);
	for (size_t i = 0; i < recorder.nsims; i++)
		if (recorder.sims[i] != sim)
			recorder.sims[kept++] = recorder.sims[i];
	recorder.nsims = kept;
	atomic_store(&recorder.active, kept);
	pthread_mutex_unlock(&recorder.lock);
	vc_unit_rmdir(sim->tmpdir);
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

char *sim_virtual(struct vc_sim *sim, const char *path)
{
	return sim_normal(sim->tmpdir && is_inside(sim, path) ? path + strlen(sim->tmpdir) : path);
}

const char *sim_real_path(struct vc_io *io, const char *path, char *buf, size_t len)
{
	struct vc_sim *sim = to_sim(io);
	char *normal, *real;

	sim_lock(sim);
	normal = sim_virtual(sim, path);
	real = sim_real(sim, normal);
	make_parents(sim, real);
	pthread_mutex_unlock(&sim->lock);
	assert(strlen(real) < len);
	memcpy(buf, real, strlen(real) + 1);
	free(real);
	free(normal);
	return buf;
}

/* ---- the recorder ---- */

static bool same_as_recorded(const struct sim_data *d, int fd)
{
	uint8_t want[SIM_PAGE], got[SIM_PAGE];
	struct stat st;

	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != d->size)
		return false;
	for (uint64_t at = 0; at < d->size; at += SIM_PAGE) {
		size_t n = (size_t)VC_MIN(d->size - at, (uint64_t)SIM_PAGE);

		sim_data_read(d, at, want, n);
		if (pread(fd, got, n, (off_t)at) != (ssize_t)n || memcmp(want, got, n) != 0)
			return false;
	}
	return true;
}

void sim_meta_committed(struct vc_io *io, const char *path)
{
	struct vc_sim *sim = to_sim(io);
	char *normal, *file, *real;
	uint32_t inode;
	int fd;

	sim_lock(sim);
	normal = sim_virtual(sim, path);
	assert(asprintf(&file, "%s%s", normal, sim_is_meta_dir(normal) ? "/data.mdb" : "") > 0);
	real = sim_real(sim, file);
	fd = open(real, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || sim_find(sim, file, &inode) < 0 || !same_as_recorded(&sim->inodes[inode]->data, fd)) {
		fprintf(stderr, "%s: changed in a way that the recorder does not see\n", file);
		abort();
	}
	close(fd);
	free(real);
	free(file);
	free(normal);
	pthread_mutex_unlock(&sim->lock);
}

static void record_open(struct vc_sim *sim, const char *path, int fd)
{
	char *name = sim_virtual(sim, path);
	struct watched known;
	uint32_t inode, dir;

	if (strcmp(strrchr(name, '/') + 1, "lock.mdb") != 0 && !find_watched(fd, &known)) {
		sim_lock(sim);
		assert(sim_dir_of(sim, name, &dir) == 0);
		if (sim_find(sim, name, &inode) == 0) /* it was removed without us */
			sim_event_new(sim, SIM_EV_UNLINK, inode, name)->dir = dir;
		inode = sim_inode_new(sim, SIM_META);
		sim->inodes[inode]->linked = true;
		sim_names_set(&sim->names, name, inode);
		sim_event_new(sim, SIM_EV_CREATE, inode, name)->dir = dir;
		pthread_mutex_unlock(&sim->lock);
		watch_file(sim, inode, fd);
	}
	free(name);
}

static const char *inode_path(const struct vc_sim *sim, uint32_t inode)
{
	for (size_t i = 0; i < sim->names.n; i++)
		if (sim->names.v[i].inode == inode)
			return sim->names.v[i].path;
	return "(removed)";
}

/* Sets errno and returns true when the arranged fault strikes this call. The sim is locked. */
static bool strikes(const struct watched *w, enum vc_sim_op op)
{
	int r = sim_call(w->sim, op, inode_path(w->sim, w->inode));

	if (r < 0)
		errno = -r;
	return r < 0;
}

static void record_page(struct vc_sim *sim, uint32_t inode, const uint8_t *bytes, size_t len, uint64_t offset, bool durable)
{
	const char *path = inode_path(sim, inode);
	uint8_t *copy = sim_alloc(len);
	struct sim_event *ev;
	size_t of;

	memcpy(copy, bytes, len);
	of = sim_record_write(sim, inode, path, copy, len, offset);
	if (!durable)
		return;
	ev = sim_event_new(sim, SIM_EV_SYNC_ONE, inode, path);
	ev->of = of;
	ev->offset = offset;
	ev->len = len;
}

/* In pages, as the kernel has them. */
static void record_write(const struct watched *w, int fd, const uint8_t *bytes, size_t len, uint64_t offset)
{
	bool durable = (fcntl(fd, F_GETFL) & O_DSYNC) != 0;

	while (len) {
		size_t n = VC_MIN(len, SIM_PAGE - (size_t)(offset % SIM_PAGE));

		record_page(w->sim, w->inode, bytes, n, offset, durable);
		bytes += n;
		offset += n;
		len -= n;
	}
}

static void record_iov(const struct watched *w, int fd, const struct iovec *iov, int iovcnt, size_t len, uint64_t offset)
{
	for (int i = 0; i < iovcnt && len; i++) {
		size_t n = VC_MIN(len, iov[i].iov_len);

		record_write(w, fd, iov[i].iov_base, n, offset);
		offset += n;
		len -= n;
	}
}

static int record_dir_sync(int fd)
{
	char link[64], path[PATH_MAX], *name;
	struct vc_sim *sim;
	uint32_t inode;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0)
		return 0;
	path[n] = '\0';
	sim = find_sim(path);
	if (!sim)
		return 0;
	sim_lock(sim);
	name = sim_virtual(sim, path);
	if (sim_find(sim, name, &inode) == 0)
		sim_event_new(sim, SIM_EV_SYNC_DIR, inode, name);
	pthread_mutex_unlock(&sim->lock);
	free(name);
	return 1;
}

static int sync_fd(int fd, long call)
{
	struct watched w;
	struct stat st;

	if (find_watched(fd, &w)) {
		bool failed;
		int error;

		sim_lock(w.sim);
		failed = strikes(&w, VC_SIM_META_SYNC);
		error = errno;
		sim_event_new(w.sim, SIM_EV_SYNC, w.inode, inode_path(w.sim, w.inode))->failed = failed;
		pthread_mutex_unlock(&w.sim->lock);
		errno = error;
		return failed ? -1 : 0;
	}
	if (atomic_load(&recorder.active) && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) && record_dir_sync(fd))
		return 0;
	return (int)syscall(call, fd);
}

static int open_path(const char *path, int flags, mode_t mode)
{
	struct vc_sim *sim = find_sim(path);
	int fd, error, r = 0;

	if (sim && (flags & O_ACCMODE) != O_RDONLY && !(flags & O_EXCL)) { /* by LMDB; the sim is not locked */
		sim_lock(sim);
		r = sim_call(sim, VC_SIM_META_OPEN, path);
		pthread_mutex_unlock(&sim->lock);
	}
	if (r < 0) {
		errno = -r;
		return -1;
	}
	fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	error = errno;
	if (fd < 0 || !(flags & O_CREAT))
		sim = NULL;

	if (sim)
		record_open(sim, path, fd);
	errno = error;
	return fd;
}

/* ---- in place of the C library's ---- */

#define REPLACES(name) __asm__(name) __attribute__((visibility("default"), used))

int hook_open(const char *path, int flags, ...) REPLACES("open");
int hook_open64(const char *path, int flags, ...) REPLACES("open64");
ssize_t hook_write(int fd, const void *buf, size_t len) REPLACES("write");
ssize_t hook_pwrite(int fd, const void *buf, size_t len, off_t offset) REPLACES("pwrite");
ssize_t hook_writev(int fd, const struct iovec *iov, int iovcnt) REPLACES("writev");
ssize_t hook_pwritev(int fd, const struct iovec *iov, int iovcnt, off_t offset) REPLACES("pwritev");
ssize_t hook_pwritev64(int fd, const struct iovec *iov, int iovcnt, off_t offset) REPLACES("pwritev64");
ssize_t hook_pwrite64(int fd, const void *buf, size_t len, off_t offset) REPLACES("pwrite64");
int hook_fdatasync(int fd) REPLACES("fdatasync");
int hook_fsync(int fd) REPLACES("fsync");
int hook_ftruncate(int fd, off_t size) REPLACES("ftruncate");
int hook_ftruncate64(int fd, off_t size) REPLACES("ftruncate64");
int hook_fallocate(int fd, int mode, off_t offset, off_t len) REPLACES("fallocate");
int hook_fallocate64(int fd, int mode, off_t offset, off_t len) REPLACES("fallocate64");
#ifndef __SANITIZE_THREAD__ /* which maps its own memory by these, before anything of ours can run */
void *hook_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset) REPLACES("mmap");
void *hook_mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset) REPLACES("mmap64");
#endif

static mode_t mode_of(int flags, va_list args)
{
	return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(args, mode_t) : 0;
}

int hook_open(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = mode_of(flags, args);
	va_end(args);
	return open_path(path, flags, mode);
}

int hook_open64(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = mode_of(flags, args);
	va_end(args);
	return open_path(path, flags, mode);
}

/* Sets errno. */
static bool lacks_room(const struct watched *w, uint64_t end)
{
	int r = sim_space_for(w->sim, w->sim->inodes[w->inode], end);

	errno = -r;
	return r < 0;
}

static uint64_t iov_bytes(const struct iovec *iov, int iovcnt)
{
	uint64_t len = 0;

	for (int i = 0; i < iovcnt; i++)
		len += iov[i].iov_len;
	return len;
}

/* offset < 0: where the descriptor stands. */
static ssize_t write_vector(int fd, const struct iovec *iov, int iovcnt, off_t offset)
{
	bool here = offset < 0;
	struct watched w;
	ssize_t n;
	int error;

	if (!find_watched(fd, &w))
		return here ? syscall(SYS_writev, fd, iov, iovcnt) : syscall(SYS_pwritev, fd, iov, iovcnt, offset, 0);
	sim_lock(w.sim);
	if (here)
		offset = lseek(fd, 0, SEEK_CUR);
	if (strikes(&w, VC_SIM_META_WRITE))
		n = w.sim->fault.partial ? syscall(SYS_pwrite64, fd, iov[0].iov_base, iov[0].iov_len / 2, offset) : -1;
	else if (lacks_room(&w, (uint64_t)offset + iov_bytes(iov, iovcnt)))
		n = -1;
	else
		n = here ? syscall(SYS_writev, fd, iov, iovcnt) : syscall(SYS_pwritev, fd, iov, iovcnt, offset, 0);
	error = errno;
	if (n > 0)
		record_iov(&w, fd, iov, iovcnt, (size_t)n, (uint64_t)offset);
	pthread_mutex_unlock(&w.sim->lock);
	errno = error;
	return n;
}

static ssize_t write_plain(int fd, const void *buf, size_t len, off_t offset)
{
	struct iovec iov = { (void *)(uintptr_t)buf, len };

	return write_vector(fd, &iov, 1, offset);
}

ssize_t hook_write(int fd, const void *buf, size_t len) { return write_plain(fd, buf, len, -1); }
ssize_t hook_pwrite(int fd, const void *buf, size_t len, off_t offset) { return write_plain(fd, buf, len, offset); }
ssize_t hook_pwrite64(int fd, const void *buf, size_t len, off_t offset) { return write_plain(fd, buf, len, offset); }
ssize_t hook_writev(int fd, const struct iovec *iov, int iovcnt) { return write_vector(fd, iov, iovcnt, -1); }

ssize_t hook_pwritev(int fd, const struct iovec *iov, int iovcnt, off_t offset)
{
	return write_vector(fd, iov, iovcnt, offset);
}

ssize_t hook_pwritev64(int fd, const struct iovec *iov, int iovcnt, off_t offset)
{
	return write_vector(fd, iov, iovcnt, offset);
}

int hook_fdatasync(int fd) { return sync_fd(fd, SYS_fdatasync); }
int hook_fsync(int fd) { return sync_fd(fd, SYS_fsync); }

int hook_ftruncate(int fd, off_t size)
{
	struct watched w;
	int r;

	if (!find_watched(fd, &w))
		return (int)syscall(SYS_ftruncate, fd, size);
	sim_lock(w.sim);
	r = (int)syscall(SYS_ftruncate, fd, size);
	if (r == 0)
		sim_record_truncate(w.sim, w.inode, inode_path(w.sim, w.inode), (uint64_t)size);
	pthread_mutex_unlock(&w.sim->lock);
	return r;
}

int hook_ftruncate64(int fd, off_t size) { return hook_ftruncate(fd, size); }

int hook_fallocate(int fd, int mode, off_t offset, off_t len)
{
	uint64_t end = (uint64_t)offset + (uint64_t)len;
	struct watched w;
	int error;
	bool ok;

	if (!find_watched(fd, &w))
		return (int)syscall(SYS_fallocate, fd, mode, offset, len);
	sim_lock(w.sim);
	ok = !strikes(&w, VC_SIM_META_ALLOCATE) && !lacks_room(&w, end);
	error = errno;
	if (ok)
		w.sim->inodes[w.inode]->reserved_end = VC_MAX(w.sim->inodes[w.inode]->reserved_end, end);
	pthread_mutex_unlock(&w.sim->lock);
	errno = error;
	return ok ? 0 : -1;
}

int hook_fallocate64(int fd, int mode, off_t offset, off_t len) { return hook_fallocate(fd, mode, offset, len); }

#ifndef __SANITIZE_THREAD__
/* Whether a fault is due for a call that changes no bytes of a watched file; *ret_watched says if it is of one. */
static bool strikes_quiet(int fd, enum vc_sim_op op, bool *ret_watched)
{
	struct watched w;
	bool struck = false;
	int error;

	*ret_watched = fd >= 0 && find_watched(fd, &w);
	if (!*ret_watched)
		return false;
	sim_lock(w.sim);
	struck = strikes(&w, op);
	error = errno;
	pthread_mutex_unlock(&w.sim->lock);
	errno = error;
	return struck;
}

void *hook_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	bool watched;

	if (strikes_quiet(fd, VC_SIM_META_MAP, &watched))
		return MAP_FAILED;
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, offset);
}

void *hook_mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return hook_mmap(addr, len, prot, flags, fd, offset);
}
#endif
