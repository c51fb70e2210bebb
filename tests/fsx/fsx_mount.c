/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fsx_mount: a pool mounted by a daemon of its own, and used by system calls. "Killed" is SIGKILL: everything acknowledged
 * is there afterwards (D7).
 *
 * The daemon tells over NOTIFY_SOCKET that the mount is live, as it tells a service manager.
 */
#include "config.h"
#include "fsx.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vclonefs.h"

#define LIVE_MS 60000
#define PATH_LEN 512

extern char **environ;

static int result(int64_t r) { return r < 0 ? -errno : 0; }
static ssize_t count(ssize_t n) { return n < 0 ? -errno : n; }

/* ---- programs ---- */

/* With environ and one more variable. Returns the pid or -errno. */
static pid_t spawn(char *const *argv, const char *variable)
{
	size_t n = 0;
	char **env;
	pid_t pid;
	int r;

	while (environ[n])
		n++;
	env = calloc(n + 2, sizeof(*env));
	if (!env)
		return -ENOMEM;
	memcpy(env, environ, n * sizeof(*env));
	env[n] = (char *)(uintptr_t)variable;
	r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, env);
	free(env);
	return r ? -r : pid;
}

/* Exit status 0: 0, otherwise -ECHILD. */
static int wait_for(pid_t pid)
{
	int status;

	if (pid < 0)
		return pid;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return status == 0 ? 0 : -ECHILD;
}

static void program(const struct fsx *x, const char *name, char *buf)
{
	snprintf(buf, PATH_LEN, "%s/%s", x->o.programs ? x->o.programs : ".", name);
}

static char *path_of(const struct fsx *x, const char *name, char *buf)
{
	snprintf(buf, PATH_LEN, "%s/%s", x->mnt, name);
	return buf;
}

/* ---- the pool ---- */

static int live_socket(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		close(fd);
		fd = -1;
	}
	return fd < 0 ? -errno : fd;
}

static int mount_create(struct fsx *x)
{
	char path[PATH_LEN], vclone[PATH_LEN], *argv[] = { vclone, "init", "--segment", "1M", "--log-segment", "1M", "--log-size", "24M", x->pool, NULL };

	program(x, "vclone", vclone);
	if (mkdir(x->mnt, 0755) < 0)
		return -errno;
	snprintf(path, sizeof(path), "%s/live", x->o.dir);
	x->live_fd = live_socket(path);
	return x->live_fd < 0 ? x->live_fd : wait_for(spawn(argv, NULL));
}

/* The daemon says READY=1 (what the one before said at its end is skipped), or ends. */
static int live_wait(struct fsx *x)
{
	struct pollfd p = { .fd = x->live_fd, .events = POLLIN };

	for (int left = LIVE_MS; left > 0; left -= 100) {
		char text[64] = "";

		if (poll(&p, 1, 100) == 1 && recv(x->live_fd, text, sizeof(text) - 1, 0) > 0 && strcmp(text, "READY=1") == 0)
			return 0;
		if (waitpid(x->daemon, NULL, WNOHANG) == x->daemon) {
			x->daemon = 0;
			return -ECHILD;
		}
	}
	return -ETIMEDOUT;
}

static int mount_start(struct fsx *x)
{
	char vclonefs[PATH_LEN], variable[PATH_LEN], path[PATH_LEN - 32],
		*argv[] = { vclonefs, "-f", "-o", "destage_ms=50,threads=4,cache=16M", x->pool, x->mnt, NULL };
	struct stat st;
	int r;

	program(x, "vclonefs", vclonefs);
	snprintf(path, sizeof(path), "%s/live", x->o.dir);
	snprintf(variable, sizeof(variable), "NOTIFY_SOCKET=%s", path);
	x->daemon = spawn(argv, variable);
	r = x->daemon < 0 ? (int)x->daemon : live_wait(x);
	if (r < 0)
		return r;
	x->dir_fd = open(x->mnt, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (x->dir_fd < 0 || fstat(x->dir_fd, &st) < 0)
		return -errno;
	x->device = minor(st.st_dev);
	return 0;
}

/* Cuts the connection: needs fusectl, which is mounted when it is not there. */
static void mount_unblock(struct fsx *x)
{
	static const char top[] = "/sys/fs/fuse/connections";
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/%u/abort", top, x->device);
	if (access(path, W_OK) < 0 && mount("none", top, "fusectl", 0, NULL) < 0)
		perror(top);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1", 1) < 0)
		perror(path);
}

static void mount_stop(struct fsx *x, bool sudden)
{
	int r;

	if (x->daemon <= 0)
		return;
	close(x->dir_fd);
	if (sudden)
		kill(x->daemon, SIGKILL);
	if (!sudden && umount2(x->mnt, 0) < 0) {
		fprintf(stderr, "fsx: unmounting %s: %s\n", x->mnt, strerror(errno));
		sudden = true; /* the daemon must end all the same */
		kill(x->daemon, SIGTERM);
	}
	if (sudden)
		umount2(x->mnt, MNT_DETACH);
	r = wait_for(x->daemon);
	x->daemon = 0;
	if (!sudden && r < 0) {
		fprintf(stderr, "fsx: the daemon did not end well\n");
		_exit(1);
	}
}

/* ---- images ---- */

static int mount_open(struct fsx *x, struct fsx_image *img, bool create)
{
	img->direct_fd = -1;
	img->fd = openat(x->dir_fd, img->name, O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0644);
	return result(img->fd);
}

static void mount_close(struct fsx *x VC_UNUSED, struct fsx_image *img)
{
	close(img->fd);
	if (img->direct_fd >= 0)
		close(img->direct_fd);
	img->fd = img->direct_fd = -1;
}

/* A second descriptor past the page cache; the other one stays open. By its own path, whatever the name is by now. */
static int direct_fd(struct fsx_image *img)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", img->fd);
	if (img->direct_fd < 0)
		img->direct_fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	return img->direct_fd;
}

/* Opened and closed often: what the others may cache depends on it. */
static void direct_used(struct fsx_image *img, uint64_t offset)
{
	if (offset / 512 % 3 == 0 && img->direct_fd >= 0) {
		close(img->direct_fd);
		img->direct_fd = -1;
	}
}

static ssize_t mapped(struct fsx_image *img, void *buf, const void *from, size_t len, uint64_t offset, bool durable)
{
	uint64_t first = VC_ROUND_DOWN(offset, (uint64_t)FSX_BLOCK);
	size_t span = (size_t)(offset - first) + len;
	uint8_t *p = mmap(NULL, span, PROT_READ | (from ? PROT_WRITE : 0), MAP_SHARED, img->fd, (off_t)first);
	int r = 0;

	if (p == MAP_FAILED)
		return -errno;
	if (from)
		memcpy(p + (offset - first), from, len);
	else
		memcpy(buf, p + (offset - first), len);
	if (durable)
		r = result(msync(p, span, MS_SYNC));
	munmap(p, span);
	return r < 0 ? r : (ssize_t)len;
}

static ssize_t mount_read(struct fsx_image *img, enum fsx_how how, void *buf, size_t len, uint64_t offset)
{
	ssize_t n;

	if (how == FSX_MAPPED)
		return mapped(img, buf, NULL, len, offset, false);
	if (how == FSX_BUFFERED)
		return count(pread(img->fd, buf, len, (off_t)offset));
	n = count(pread(direct_fd(img), buf, len, (off_t)offset));
	direct_used(img, offset);
	return n;
}

static ssize_t mount_write(struct fsx_image *img, enum fsx_how how, const void *buf, size_t len, uint64_t offset, bool durable)
{
	struct iovec iov = { (void *)(uintptr_t)buf, len };
	ssize_t n;

	if (how == FSX_MAPPED)
		return mapped(img, NULL, buf, len, offset, durable);
	n = count(pwritev2(how == FSX_DIRECT ? direct_fd(img) : img->fd, &iov, 1, (off_t)offset, durable ? RWF_DSYNC : 0));
	if (how == FSX_DIRECT)
		direct_used(img, offset);
	return n;
}

static ssize_t mount_append(struct fsx *x, struct fsx_image *img, const void *buf, size_t len)
{
	int fd = openat(x->dir_fd, img->name, O_WRONLY | O_APPEND | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = count(write(fd, buf, len));
	close(fd);
	return n;
}

static int mount_resize(struct fsx_image *img, uint64_t size) { return result(ftruncate(img->fd, (off_t)size)); }

static int mount_allocate(struct fsx_image *img, int mode, uint64_t offset, uint64_t len)
{
	return result(fallocate(img->fd, mode, (off_t)offset, (off_t)len));
}

static int mount_seek(struct fsx_image *img, uint64_t offset, int whence, uint64_t *ret)
{
	off_t at = lseek(img->fd, (off_t)offset, whence);

	*ret = (uint64_t)at;
	return result(at);
}

static int mount_flush(struct fsx_image *img) { return result(fdatasync(img->fd)); }
static int mount_settle(struct fsx_image *img) { return result(fsync(img->fd)); }
static int mount_drop(struct fsx_image *img) { return -posix_fadvise(img->fd, 0, 0, POSIX_FADV_DONTNEED); }

static int mount_size(struct fsx_image *img, uint64_t *ret)
{
	struct stat st;

	if (fstat(img->fd, &st) < 0)
		return -errno;
	*ret = (uint64_t)st.st_size;
	return 0;
}

/* As the preload library does it for FICLONERANGE: what the kernel caches of dst has to be dropped by the daemon. */
static ssize_t copy_by_ioctl(struct fsx_image *src, uint64_t from, struct fsx_image *dst, uint64_t to, uint64_t len)
{
	struct vclonefs_clone_range a = { .size = sizeof(a), .src_offset = from, .dst_offset = to };
	struct stat st;

	if (fstat(src->fd, &st) < 0)
		return -errno;
	a.src_ino = st.st_ino;
	a.src_len = VC_MIN(len, src->size - from);
	return ioctl(dst->fd, VCLONEFS_IOC_CLONE_RANGE, &a) < 0 ? -errno : (ssize_t)a.src_len;
}

static ssize_t mount_copy(struct fsx_image *src, uint64_t from, struct fsx_image *dst, uint64_t to, uint64_t len)
{
	off_t in = (off_t)from, out = (off_t)to;

	if (from / FSX_BLOCK % 3 == 0)
		return copy_by_ioctl(src, from, dst, to, len);
	return count(copy_file_range(src->fd, &in, dst->fd, &out, len, 0));
}

static int mount_remove(struct fsx *x, const char *name) { return result(unlinkat(x->dir_fd, name, 0)); }
static int mount_rename(struct fsx *x, const char *from, const char *to) { return result(renameat(x->dir_fd, from, x->dir_fd, to)); }

static int mount_background(struct fsx *x, unsigned what)
{
	struct vclonefs_task_status a = { .size = sizeof(a), .task = what < 12 ? VCLONEFS_TASK_DESTAGE : VCLONEFS_TASK_CLEAN };
	int r = result(ioctl(x->dir_fd, VCLONEFS_IOC_TASK_START, &a));

	return r == -EBUSY ? 0 : r;
}

/* ---- clones ---- */

static int new_file(struct fsx *x, const char *name)
{
	return openat(x->dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
}

static int clone_by_copy(struct fsx *x, struct fsx_image *src, const char *name)
{
	off_t in = 0, out = 0;
	int fd = new_file(x, name), r = 0;

	if (fd < 0)
		return -errno;
	while (r == 0 && (uint64_t)in < src->size) {
		ssize_t n = copy_file_range(src->fd, &in, fd, &out, src->size - (uint64_t)in, 0);

		r = n < 0 ? -errno : n == 0 ? -ERANGE : 0;
	}
	close(fd);
	return r;
}

static int clone_by_ioctl(struct fsx *x, struct fsx_image *src, const char *name)
{
	struct vclonefs_clone *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return -ENOMEM;
	a->size = sizeof(*a);
	snprintf(a->src, sizeof(a->src), "%s", src->name);
	snprintf(a->dst, sizeof(a->dst), "%s", name);
	r = result(ioctl(x->dir_fd, VCLONEFS_IOC_CLONE, a));
	free(a);
	return r;
}

static int clone_by_magic(struct fsx *x, struct fsx_image *src, const char *name)
{
	char line[2 * FSX_NAME + 4];
	int len = snprintf(line, sizeof(line), "%s %s\n", src->name, name), r, fd = openat(x->dir_fd, ".clone", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	r = result(write(fd, line, (size_t)len));
	close(fd);
	return r;
}

static int clone_by_range(struct fsx *x, struct fsx_image *src, const char *name)
{
	struct vclonefs_clone_range a = { .size = sizeof(a) };
	struct stat st;
	int r, fd;

	if (fstat(src->fd, &st) < 0)
		return -errno;
	fd = new_file(x, name);
	if (fd < 0)
		return -errno;
	a.src_ino = st.st_ino;
	r = result(ioctl(fd, VCLONEFS_IOC_CLONE_RANGE, &a));
	close(fd);
	return r;
}

static int clone_by_vclone(struct fsx *x, const char *from, const char *to)
{
	char vclone[PATH_LEN], *argv[] = { vclone, "clone", (char *)(uintptr_t)from, (char *)(uintptr_t)to, NULL };

	program(x, "vclone", vclone);
	return wait_for(spawn(argv, NULL));
}

static int clone_by_cp(struct fsx *x, const char *from, const char *to, bool reflink)
{
	char *argv[] = { "cp", reflink ? "--reflink=always" : "--reflink=auto", (char *)(uintptr_t)from, (char *)(uintptr_t)to, NULL };
	char library[PATH_LEN], variable[PATH_LEN + 16];

	program(x, "vclonefs-preload.so", library);
	if (!reflink || access(library, R_OK) < 0) {
		argv[1] = "--reflink=auto";
		return wait_for(spawn(argv, NULL));
	}
	snprintf(variable, sizeof(variable), "LD_PRELOAD=%s", library);
	return wait_for(spawn(argv, variable));
}

enum clone_way { WAY_COPY, WAY_IOCTL, WAY_MAGIC, WAY_RANGE, WAY_VCLONE, WAY_CP, WAY_REFLINK, WAYS };

static int mount_clone(struct fsx *x, struct fsx_image *src, const char *name, unsigned way)
{
	char from[PATH_LEN], to[PATH_LEN];

	path_of(x, src->name, from);
	path_of(x, name, to);
	switch ((enum clone_way)way) {
	case WAY_COPY: return clone_by_copy(x, src, name);
	case WAY_IOCTL: return clone_by_ioctl(x, src, name);
	case WAY_MAGIC: return clone_by_magic(x, src, name);
	case WAY_RANGE: return clone_by_range(x, src, name);
	case WAY_VCLONE: return clone_by_vclone(x, from, to);
	case WAY_CP: return clone_by_cp(x, from, to, false);
	case WAY_REFLINK: return clone_by_cp(x, from, to, true);
	case WAYS: break;
	}
	return -EINVAL;
}

static bool mount_syncs_source(unsigned way)
{
	return way == WAY_VCLONE;
}

const struct fsx_backend fsx_mount = {
	.name = "mount", .create = mount_create, .start = mount_start, .stop = mount_stop, .open = mount_open,
	.close = mount_close, .read = mount_read, .write = mount_write, .append = mount_append, .resize = mount_resize,
	.allocate = mount_allocate, .seek = mount_seek, .flush = mount_flush, .settle = mount_settle, .size = mount_size,
	.copy = mount_copy, .clone = mount_clone, .nways = WAYS, .nfast = WAY_RANGE + 1, .syncs_source = mount_syncs_source,
	.remove = mount_remove, .rename = mount_rename, .drop = mount_drop, .background = mount_background, .unblock = mount_unblock, .mapped = true,
};
