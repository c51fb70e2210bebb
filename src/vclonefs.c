/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclonefs: mount a pool.
 *
 * In the background the parent waits on a pipe until the kernel has accepted the mount, so that `vclonefs POOL DIR &&
 * use DIR` works; until then messages go to the terminal, later to syslog. The pool is opened after the fork: neither
 * LMDB nor threads survive one.
 */
#include "config.h"
#include "vclonefs_options.h"
#include "vclonefs_keeper.h"

#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "io_vet.h"
#include "msg.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

#define GRACE_MS 10000 /* for files still open when asked to stop; below what systemd allows a service */

/* Exit status as mount(8) has it. */
enum { EXIT_USAGE = 1, EXIT_MOUNT = 32 };

struct mount_args {
	char pool[PATH_MAX], mountpoint[PATH_MAX];
	struct vc_mount_options options;
	bool foreground;
	int ready_fd; /* background: the parent reads it; -1 */
	int stop_fd;  /* says when to end */
};

static const char usage_text[] =
	"usage: vclonefs [-f] [-d] [-o option,...] POOL MOUNTPOINT\n"
	"\n"
	"  -f             stay in the foreground\n"
	"  -d             stay in the foreground and print every request\n"
	"  -o option,...  options of mount(8), and:\n"
	"       cache=SIZE         memory for decompressed data (256M)\n"
	"       node_cache=SIZE    memory for block maps (64M)\n"
	"       log=DIR            where the log of this pool lives (POOL/log)\n"
	"       destage_ms=N       move changes to their place after N ms, or `never' (5000)\n"
	"       blocks=full|real   what st_blocks tells: the full size (default) or what is stored\n"
	"       threads=N          threads that serve requests (16)\n"
	"       allow_other        let all users in; the usual permissions apply\n"
	"       ro                 read-only\n"
	"       drop_privileges    serve without any capability\n"
	"       run_as=USER        serve as USER, without any capability\n"
	"  -h, -V         print this help or the version\n";

/* ---- arguments ---- */

/** By what the directories are, not by their names: a bind mount gives one several. */
static bool path_is_inside(const char *path, const char *dir)
{
	char at[PATH_MAX];
	struct stat want, st;
	char *slash;

	if (stat(dir, &want) < 0)
		return false;
	snprintf(at, sizeof(at), "%s", path);
	for (;;) {
		if (stat(at, &st) == 0 && st.st_dev == want.st_dev && st.st_ino == want.st_ino)
			return true;
		slash = strrchr(at, '/');
		if (!slash || !slash[1])
			return false;
		slash[slash == at] = '\0';
	}
}

static int args_directory(const char *given, char *ret)
{
	struct stat st;

	if (!realpath(given, ret) || stat(ret, &st) < 0) {
		fprintf(stderr, "vclonefs: %s: %s%s\n", given, strerror(errno),
			errno == ENOTCONN ? " (left by a daemon that died: unmount it first)" : "");
		return -errno;
	}
	if (!S_ISDIR(st.st_mode)) {
		fprintf(stderr, "vclonefs: %s: not a directory\n", given);
		return -ENOTDIR;
	}
	return 0;
}

/**
 * For its drop_privileges mount.fuse mounts itself, and gives us a descriptor of the device. It does so without default_permissions:
 * the kernel would let everybody do everything.
 */
static int args_mountpoint(const char *given, char *ret)
{
	if (strncmp(given, "/dev/fd/", 8) != 0)
		return args_directory(given, ret);
	fputs("vclonefs: mounted by mount.fuse without permission checks: with mount(8) say run_as=root instead of drop_privileges\n",
	      stderr);
	return -EINVAL;
}

/** A daemon whose files lie below its own mount would wait for itself. */
static int args_check_paths(const struct mount_args *a)
{
	const char *files[] = { a->pool, a->options.log };

	for (size_t i = 0; i < VC_ARRAY_LEN(files); i++) {
		if (!*files[i])
			continue;
		if (path_is_inside(files[i], a->mountpoint) || path_is_inside(a->mountpoint, files[i])) {
			fprintf(stderr, "vclonefs: mount point %s and %s must not contain each other\n", a->mountpoint,
				files[i]);
			return -EINVAL;
		}
		vc_io_vet_above(files[i]);
	}
	return 0;
}

/** Returns 1 to go on, 0 when all is done (help), or -EINVAL. */
static int args_parse(struct mount_args *a, int argc, char **argv)
{
	static const struct option longs[] = { { "help", no_argument, NULL, 'h' },
					       { "version", no_argument, NULL, 'V' },
					       { NULL, 0, NULL, 0 } };
	int c;

	while ((c = getopt_long(argc, argv, "fdo:hV", longs, NULL)) != -1) {
		switch (c) {
		case 'd':
			a->options.fs.debug = true;
			vc_msg_set_level(VC_MSG_DEBUG);
			a->foreground = true;
			break;
		case 'f':
			a->foreground = true;
			break;
		case 'o':
			if (vc_mount_options_add(&a->options, optarg) < 0)
				return -EINVAL;
			break;
		case 'h':
			fputs(usage_text, stdout);
			return 0;
		case 'V':
			puts("vclonefs " PACKAGE_VERSION);
			return 0;
		default:
			fputs("Try: vclonefs --help\n", stderr);
			return -EINVAL;
		}
	}
	if (argc - optind != 2) {
		fputs(usage_text, stderr);
		return -EINVAL;
	}
	if (args_directory(argv[optind], a->pool) < 0 || args_mountpoint(argv[optind + 1], a->mountpoint) < 0 ||
	    args_check_paths(a) < 0)
		return -EINVAL;
	return 1;
}

/* ---- telling others ---- */

/** One line for the service manager, as sd_notify(3) sends it; without a manager nothing. */
static void manager_tell(const char *state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const char *path = getenv("NOTIFY_SOCKET");
	socklen_t len;
	int fd;

	if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(addr.sun_path))
		return;
	strcpy(addr.sun_path, path);
	len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + (path[0] == '/'));
	if (path[0] == '@')
		addr.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&addr, len) < 0)
		vc_warn("%s: cannot tell the service manager: %s", path, strerror(errno));
	close(fd);
}

static void to_syslog(void *ctx VC_UNUSED, enum vc_msg_level level, const char *line)
{
	static const int priorities[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

	syslog(priorities[level], "%s", line);
}

/** In the background, when the mount is live. */
static void leave_terminal(void)
{
	int null;

	openlog("vclonefs", LOG_PID, LOG_DAEMON);
	vc_msg_set_sink(to_syslog, NULL);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; null >= 0 && fd < 3; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
}

/** The mount is live: leave the terminal, release the parent. */
static void live(void *ctx)
{
	struct mount_args *a = ctx;

	manager_tell("READY=1");
	if (a->ready_fd < 0)
		return;
	leave_terminal();
	if (write(a->ready_fd, "", 1) < 0)
		vc_warn("the starting process is gone: %s", strerror(errno));
	close(a->ready_fd);
}

/** The same where another process keeps the mount, and does the telling. */
static void live_kept(void *ctx)
{
	struct mount_args *a = ctx;

	if (a->ready_fd >= 0) {
		leave_terminal();
		close(a->ready_fd);
	}
	vc_keeper_tell_ready();
}

static void stopping(void *ctx VC_UNUSED)
{
	manager_tell("STOPPING=1");
}

/* ---- life ---- */

static int open_stop_fd(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

static int serve_pool(struct mount_args *a, struct vc_pool *pool)
{
	struct vc_fs *fs;
	int r;

	r = vc_fs_mount(pool, &a->options.fs, &fs);
	if (r < 0)
		return r;
	r = vc_fs_serve(fs, a->stop_fd, GRACE_MS);
	if (!a->options.drop.wanted)
		stopping(a);
	vc_fs_close(fs);
	return r;
}

static int open_and_serve(void *ctx)
{
	struct mount_args *a = ctx;
	struct vc_pool *pool;
	int r, closed;

	r = vc_pool_open(vc_io_posix(), a->pool, &a->options.pool, &pool);
	if (r < 0)
		return r;
	r = serve_pool(a, pool);
	closed = vc_pool_close(pool);
	return r < 0 ? r : closed;
}

static int open_and_serve_kept(void *ctx)
{
	struct mount_args *a = ctx;

	a->options.fs.ready = live_kept;
	return open_and_serve(a);
}

static int serve(struct mount_args *a)
{
	const struct vc_keeper_job kept = { .fs = &a->options.fs, .drop = &a->options.drop, .serve = open_and_serve_kept,
					    .ready = live, .stopping = stopping, .ctx = a };
	int r;

	a->stop_fd = open_stop_fd();
	if (a->stop_fd < 0)
		return -errno;
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0 && errno != EPERM)
		vc_debug("PR_SET_IO_FLUSHER: %s", strerror(errno));
	a->options.fs.pool_path = a->pool;
	a->options.fs.mountpoint = a->mountpoint;
	a->options.fs.mount_options = a->options.rest;
	a->options.fs.ready = live;
	a->options.fs.ctx = a;
	r = a->options.drop.wanted ? vc_keeper_run(&kept, a->stop_fd) : open_and_serve(a);
	close(a->stop_fd);
	return r;
}

/** The parent's part: 0 when the child says so, otherwise the child's status. */
static int wait_for_live(pid_t child, int fd)
{
	int status;
	char byte;

	if (read(fd, &byte, 1) == 1)
		return 0;
	if (waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) != 0)
		return WEXITSTATUS(status);
	fputs("vclonefs: the daemon ended before the mount was live\n", stderr);
	return EXIT_MOUNT;
}

static int serve_in_background(struct mount_args *a)
{
	int fds[2];
	pid_t child;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	child = fork();
	if (child < 0)
		return -errno;
	if (child > 0) {
		close(fds[1]);
		exit(wait_for_live(child, fds[0]));
	}
	close(fds[0]);
	a->ready_fd = fds[1];
	setsid();
	if (chdir("/") < 0)
		return -errno;
	return serve(a);
}

/*
 * The allocator of glibc gives every thread an arena of its own that grows by the page and shrinks as often: with the caches that
 * is a system call and page faults for each chunk that is read. Buffers of requests (1 MiB) are mapped and unmapped each time.
 */
static void tune_allocator(void)
{
#ifdef __GLIBC__
	mallopt(M_ARENA_MAX, 4);
	mallopt(M_TOP_PAD, 1 << 20);
	mallopt(M_TRIM_THRESHOLD, 64 << 20);
	mallopt(M_MMAP_THRESHOLD, 8 << 20);
#endif
}

int main(int argc, char **argv)
{
	static struct mount_args args = { .ready_fd = -1 };
	int r;

	r = args_parse(&args, argc, argv);
	if (r <= 0)
		return r < 0 ? EXIT_USAGE : 0;
	tune_allocator();
	r = args.foreground ? serve(&args) : serve_in_background(&args);
	return r < 0 ? EXIT_MOUNT : 0;
}
