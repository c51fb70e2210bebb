/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclone_task: destage and clean: start a task of the daemon (or join the one that runs) and watch it.
 *
 * The daemon goes on when this program is interrupted.
 */
#include "config.h"
#include "vclone_impl.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TASK_POLL_NS 100000000L

static int task_failed(const char *path, const char *what, int error)
{
	vc_cli_error("%s: %s: %s%s", path, what, strerror(error),
		     error == EACCES || error == EPERM ? " (only root and the owner of the mount's top directory may)" :
		     error == ENOTCONN ? " (the daemon of this mount is gone)" : "");
	return -error;
}

/** Poll until the task `status->id` has ended. Returns 0 or -errno of asking; said already. */
static int task_watch(int fd, const char *path, struct vc_progress *progress, struct vclonefs_task_status *status)
{
	const struct timespec pause = { .tv_nsec = TASK_POLL_NS };
	const uint32_t task = status->task;
	const uint64_t id = status->id;

	for (;;) {
		*status = (struct vclonefs_task_status){ .size = sizeof(*status), .task = task };
		if (ioctl(fd, VCLONEFS_IOC_TASK_STATUS, status) < 0) {
			int error = errno;

			vc_progress_end(progress);
			return task_failed(path, "asking how far it is", error);
		}
		if (!status->running || status->id != id)
			return 0;
		vc_progress_show(progress, status->done, status->total);
		nanosleep(&pause, NULL);
	}
}

static int task_run(const struct vc_command *cmd, const char *path, enum vclonefs_task task)
{
	struct vclonefs_task_status status = { .size = sizeof(status), .task = (uint32_t)task };
	struct vc_progress progress;
	int fd, r;

	if (vc_cli_open(path, 0, &fd) < 0)
		return VC_EXIT_FAILED;
	vc_progress_begin(&progress, cmd->name, task == VCLONEFS_TASK_DESTAGE);
	if (ioctl(fd, VCLONEFS_IOC_TASK_START, &status) < 0) {
		r = task_failed(path, cmd->name, errno);
	} else {
		status.task = (uint32_t)task;
		r = task_watch(fd, path, &progress, &status);
	}
	close(fd);
	vc_progress_end(&progress);
	if (r == 0 && status.error != 0)
		r = task_failed(path, cmd->name, status.error < 0 ? -status.error : status.error);
	if (r < 0)
		return VC_EXIT_FAILED;
	if (task == VCLONEFS_TASK_CLEAN)
		printf("freed %s: %" PRIu64 " segments, %" PRIu64 " map nodes\n", vc_cli_size(status.freed_bytes, 0),
		       status.freed_segments, status.freed_nodes);
	return vc_cli_finish(VC_EXIT_OK);
}

static int command_destage(const struct vc_command *cmd, int argc, char **argv)
{
	int status = vc_cli_options(cmd, argc, argv, 1, 1, NULL);

	return status >= 0 ? status : task_run(cmd, argv[optind], VCLONEFS_TASK_DESTAGE);
}

static int command_clean(const struct vc_command *cmd, int argc, char **argv)
{
	int status = vc_cli_options(cmd, argc, argv, 1, 1, NULL);

	return status >= 0 ? status : task_run(cmd, argv[optind], VCLONEFS_TASK_CLEAN);
}

const struct vc_command vc_command_destage = {
	.name = "destage",
	.args = "MOUNT",
	.summary = "move everything from the log to permanent space now",
	.help =
	"The daemon does this by itself; afterwards the figures of 'vclone ls' are complete. Nothing needs it to be safe:\n"
	"the log is. Interrupting this command does not stop the daemon's work.\n",
	.run = command_destage,
};

const struct vc_command vc_command_clean = {
	.name = "clean",
	.args = "MOUNT",
	.summary = "give back the space of what was deleted or overwritten",
	.help =
	"Finds what no image uses any more and frees it; also brings the exclusive figures of 'vclone ls' up to date.\n"
	"Images may be in use meanwhile. Interrupting this command does not stop the daemon's work.\n",
	.run = command_clean,
};
