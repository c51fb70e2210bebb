/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclonefs_keeper: to unmount takes a privilege; to serve takes none, and is where all the input from others is read.
 *
 *   keeper  mounts, forks, keeps the right to unmount, and waits
 *   server  gives up everything, opens the pool, serves
 *
 * They share a socket; the server says 'R' (the mount is live) and 'U' (unmount), and ends with it. A signal to the keeper is handed on;
 * the server is told by the kernel when the keeper dies. When the server ends, however it does, the keeper unmounts: a server that was
 * killed leaves no dead mount point.
 */
#include "config.h"
#include "vclonefs_keeper.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "msg.h"

struct keeper {
	const struct vc_keeper_job *job;
	struct vc_fs_device *dev;
	pid_t server;
	int sock, stop_fd;
};

static int server_sock = -1; /* in the server: to the keeper */

static void server_tell(char what)
{
	if (send(server_sock, &what, 1, MSG_NOSIGNAL) != 1)
		vc_warn("the process that holds the mount is gone: %s", strerror(errno));
}

void vc_keeper_tell_ready(void) { server_tell('R'); }

/* Until the keeper has done it: who asks for it goes on to wait for the last user. */
static void server_detach(void *ctx VC_UNUSED)
{
	char answer;

	server_tell('U');
	if (recv(server_sock, &answer, 1, 0) < 0)
		vc_warn("the process that holds the mount does not answer: %s", strerror(errno));
}

static int server_run(struct keeper *k)
{
	int r;

	server_sock = k->sock;
	r = vc_drop_all(k->job->drop);
	if (r == 0 && prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
		r = -errno;
	if (r < 0)
		return r;
	k->job->fs->device_fd = vc_fs_device_fd(k->dev);
	k->job->fs->detach = server_detach;
	return k->job->serve(k->job->ctx);
}

static int keeper_fork(struct keeper *k)
{
	int ends[2], error;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	k->server = fork();
	error = errno;
	close(ends[k->server == 0 ? 0 : 1]);
	k->sock = ends[k->server == 0 ? 1 : 0];
	if (k->server == 0)
		exit(-server_run(k));
	return k->server < 0 ? -error : 0;
}

static void keeper_pass_signal(const struct keeper *k)
{
	struct signalfd_siginfo info;

	if (read(k->stop_fd, &info, sizeof(info)) == sizeof(info))
		kill(k->server, (int)info.ssi_signo);
}

/** False: the server has ended. */
static bool keeper_hear(struct keeper *k)
{
	char what;
	ssize_t n = recv(k->sock, &what, 1, 0);

	if (n < 0 && errno == EINTR)
		return true;
	if (n <= 0)
		return false;
	if (what == 'R') {
		k->job->ready(k->job->ctx);
	} else {
		k->job->stopping(k->job->ctx);
		vc_fs_device_unmount(k->dev);
		if (send(k->sock, &what, 1, MSG_NOSIGNAL) < 0)
			return false;
	}
	return true;
}

/** Returns the server's result. */
static int keeper_wait(struct keeper *k)
{
	struct pollfd p[2] = { { .fd = k->sock, .events = POLLIN }, { .fd = k->stop_fd, .events = POLLIN } };
	int status;

	for (;;) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents)
			keeper_pass_signal(k);
		if (p[0].revents && !keeper_hear(k))
			break;
	}
	while (waitpid(k->server, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (WIFEXITED(status))
		return -WEXITSTATUS(status);
	vc_err("the process that served the mount was ended by signal %d", WTERMSIG(status));
	return -EIO;
}

int vc_keeper_run(const struct vc_keeper_job *job, int stop_fd)
{
	struct keeper k = { .job = job, .stop_fd = stop_fd, .sock = -1 };
	int r;

	r = vc_fs_device_mount(job->fs, &k.dev);
	if (r == 0)
		r = keeper_fork(&k);
	if (r == 0) {
		r = vc_drop_all_but_mount();
		if (r < 0)
			kill(k.server, SIGKILL);
		r = r < 0 ? r : keeper_wait(&k);
	}
	vc_fs_device_close(k.dev);
	if (k.sock >= 0)
		close(k.sock);
	return r;
}
