/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclone_clone: vclone clone.
 *
 * The source is opened (so the kernel has checked that the caller may read it) and synced through that descriptor, which
 * sends the dirty pages of shared mappings to the daemon (D3). The request is then made on that very descriptor:
 * whatever happens to the source's name meanwhile, the image that was synced is the one that is cloned.
 */
#include "config.h"
#include "vclone_impl.h"

#include <ctype.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define CLONE_MANY_MAX 10000u

struct clone_job {
	const char *src, *dst; /* as typed */
	bool many;
	uint32_t first, count;
	int fd;                /* of the source */
	int dir;               /* of the directory of dst, O_PATH; -1 */
	char inner[VCLONEFS_PATH_MAX]; /* what dst is called within the mount */
};

/** What is behind an errno of a clone, for those where the text alone leaves people guessing. */
static const char *clone_hint(const struct clone_job *job, int error)
{
	switch (error) {
	case EEXIST:
		return job->many ? " (one of the names is taken; nothing was cloned)" : " (a clone never replaces a file)";
	case ENOENT:
		return " (the source or the directory of the clone was removed meanwhile)";
	case EACCES:
		return " (to read the source and to write into the directory of the clone is needed)";
	case EROFS:
		return " (the mount is read-only, or its pool refuses writes after a failed sync: see 'vclone df')";
	case ENOSPC:
		return " (the file system below the pool is full, see 'vclone df')";
	case EINVAL:
	case ENOTTY:
		return " (is the daemon of the same version? see 'vclone df')";
	case ENOTCONN:
		return " (the daemon of this mount is gone)";
	default:
		return "";
	}
}

static int clone_failed(const struct clone_job *job, int error)
{
	vc_cli_error("clone '%s' to '%s': %s%s", job->src, job->dst, strerror(error), clone_hint(job, error));
	return -error;
}

/** Source and destination must lie on one file system: say which is where when they do not. */
static int clone_check_device(const struct clone_job *job, const char *parent)
{
	struct vc_cli_mount from, to;
	struct stat src, dir;

	if (fstat(job->fd, &src) < 0 || fstat(job->dir, &dir) < 0)
		return clone_failed(job, errno);
	if (src.st_dev == dir.st_dev)
		return 0;
	if (vc_cli_mount_of(job->fd, job->src, &from) < 0 || vc_cli_mount_of(job->dir, parent, &to) < 0)
		return -EXDEV;
	vc_cli_error("clone '%s' to '%s': %s: the source is on %s, the clone would be on %s; "
		     "'vclone import' copies into another mount", job->src, job->dst, strerror(EXDEV), from.point,
		     to.point);
	return -EXDEV;
}

/** Find job->inner. */
static int clone_translate(struct clone_job *job)
{
	char parent[VCLONEFS_PATH_MAX], real[VCLONEFS_PATH_MAX];
	struct vc_cli_mount mount;
	const char *name;
	int r;

	r = vc_cli_split(job->dst, parent, &name);
	if (r < 0) {
		vc_cli_error("'%s': %s (the name of a clone is needed here)", job->dst, strerror(-r));
		return r;
	}
	job->dir = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (job->dir < 0) {
		r = -errno;
		vc_cli_error("the directory of the clone, '%s': %s", parent, strerror(-r));
		return r;
	}
	r = clone_check_device(job, parent);
	if (r < 0)
		return r;
	r = vc_cli_mount_of(job->dir, parent, &mount);
	if (r < 0)
		return r;
	r = vc_cli_real_path(job->dir, parent, real);
	if (r < 0)
		return r;
	r = vc_cli_translate(&mount, real, name, job->inner);
	return r < 0 ? clone_failed(job, -r) : 0;
}

static int clone_one(struct clone_job *job)
{
	struct vclonefs_clone *arg = calloc(1, sizeof(*arg));
	int r;

	if (!arg)
		return clone_failed(job, ENOMEM);
	arg->size = sizeof(*arg);
	strcpy(arg->dst, job->inner);
	r = ioctl(job->fd, VCLONEFS_IOC_CLONE, arg) < 0 ? clone_failed(job, errno) : 0;
	free(arg);
	return r;
}

static int clone_many(struct clone_job *job)
{
	struct vclonefs_clone_many *arg = calloc(1, sizeof(*arg));
	int r;

	if (!arg)
		return clone_failed(job, ENOMEM);
	arg->size = sizeof(*arg);
	arg->first = job->first;
	arg->count = job->count;
	strcpy(arg->dst, job->inner);
	r = ioctl(job->fd, VCLONEFS_IOC_CLONE_MANY, arg) < 0 ? clone_failed(job, errno) : 0;
	free(arg);
	return r;
}

static int clone_run(struct clone_job *job)
{
	int r;

	r = vc_cli_open_image(job->src, &job->fd);
	if (r < 0)
		return r;
	r = clone_translate(job);
	if (r < 0)
		return r;
	if (fsync(job->fd) < 0) {
		r = -errno;
		vc_cli_error("'%s': syncing it before the clone: %s", job->src, strerror(-r));
		return r;
	}
	return job->many ? clone_many(job) : clone_one(job);
}

static bool parse_u32(const char *text, uint32_t *ret)
{
	unsigned long long value;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || errno || value > UINT32_MAX)
		return false;
	*ret = (uint32_t)value;
	return true;
}

/** Check what belongs together. Returns -1 to go on, otherwise the exit status. */
static int clone_check(const struct vc_command *cmd, const struct clone_job *job, bool first_given)
{
	const char *wrong;

	if (!job->many)
		return first_given ? vc_cli_usage(cmd, "-s goes with -n") : -1;
	if (job->count == 0 || job->count > CLONE_MANY_MAX)
		return vc_cli_usage(cmd, "a batch is 1 to %u clones", CLONE_MANY_MAX);
	if (job->first > UINT32_MAX - (job->count - 1))
		return vc_cli_usage(cmd, "the last number would be above %u", UINT32_MAX);
	wrong = vc_cli_pattern_error(job->dst);
	return wrong ? vc_cli_usage(cmd, "'%s' is not a pattern: %s", job->dst, wrong) : -1;
}

/** Returns -1 to go on, otherwise the exit status. */
static int clone_parse(const struct vc_command *cmd, int argc, char **argv, struct clone_job *job)
{
	static const struct option options[] = {
		{ "count", required_argument, NULL, 'n' },
		{ "start", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	bool first_given = false;
	int c;

	while ((c = getopt_long(argc, argv, "+:n:s:h", options, NULL)) != -1) {
		if (c == 'h')
			return vc_cli_help(cmd);
		if (c != 'n' && c != 's')
			return vc_cli_usage(cmd, c == ':' ? "a number is missing after '%s'" : "unknown option '%s'",
					    argv[optind - 1]);
		if (!parse_u32(optarg, c == 'n' ? &job->count : &job->first))
			return vc_cli_usage(cmd, "'%s' is not a number", optarg);
		job->many = job->many || c == 'n';
		first_given = first_given || c == 's';
	}
	if (argc - optind != 2)
		return vc_cli_usage(cmd, "a source and the name of the clone are needed");
	job->src = argv[optind];
	job->dst = argv[optind + 1];
	return clone_check(cmd, job, first_given);
}

static int command_clone(const struct vc_command *cmd, int argc, char **argv)
{
	struct clone_job job = { .fd = -1, .dir = -1 };
	int status = clone_parse(cmd, argc, argv, &job);

	if (status >= 0)
		return status;
	status = clone_run(&job) < 0 ? VC_EXIT_FAILED : VC_EXIT_OK;
	if (job.fd >= 0)
		close(job.fd);
	if (job.dir >= 0)
		close(job.dir);
	return status;
}

const struct vc_command vc_command_clone = {
	.name = "clone",
	.args = "SRC DST | -n COUNT [-s FIRST] SRC PATTERN",
	.summary = "clone an image, at once and whatever its size",
	.help =
	"DST is a new name on the same mount; an existing file is never replaced. The clone holds everything that was\n"
	"written to SRC before the call, is durable when the command returns, and is complete or not there.\n"
	"SRC may be in use, and may be a clone itself.\n\n"
	"  -n, --count COUNT   make COUNT clones (at most 10,000) in one step: all or none. The last component of\n"
	"                      PATTERN holds one %d, %5d or %05d, which becomes the number; %% is a percent sign\n"
	"  -s, --start FIRST   the first number (0)\n\n"
	"  vclone clone golden.img vm7.img\n"
	"  vclone clone -n 100 -s 1 /vm/golden.img '/vm/lab/vm%05d.img'\n",
	.run = command_clone,
};
