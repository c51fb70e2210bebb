/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclone_import: vclone import, a raw image or block device copied into a new image.
 *
 * The target is created exclusively and set to its full size at once; then only data (SEEK_DATA) is written, in pieces that end at
 * multiples of 1 MiB, direct: the daemon takes such pieces straight into chunk files. What is not finished is removed, on failure
 * and on SIGINT, SIGTERM and SIGHUP (which then end the program as they would have).
 */
#include "config.h"
#include "vclone_impl.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define IMPORT_PIECE (UINT64_C(1) << 20)
#define IMPORT_ALIGN UINT64_C(4096)

struct import_job {
	const char *file, *image; /* as typed */
	int in, out, dir;         /* -1: not open */
	const char *name;         /* of the image in dir */
	uint64_t size;            /* of the source */
	uint64_t total, done;     /* bytes of data to copy, copied */
	void *buf;                /* IMPORT_PIECE bytes, aligned */
	struct vc_progress progress;
};

static volatile sig_atomic_t import_signal; /* the one that came; handlers have no other way to say so */

static void import_on_signal(int number)
{
	import_signal = number;
}

static void import_catch(void (*handler)(int))
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction action = { .sa_handler = handler }, old;

	for (size_t i = 0; i < VC_ARRAY_LEN(numbers); i++)
		if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			(void)sigaction(numbers[i], &action, NULL);
}

static int import_failed(struct import_job *job, const char *path, const char *what, int error)
{
	vc_progress_end(&job->progress);
	vc_cli_error("%s: %s%s%s", path, what, what[0] ? ": " : "", strerror(error));
	return -error;
}

static int import_open_source(struct import_job *job)
{
	char magic[4];
	struct stat st;
	off_t end;

	job->in = open(job->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (job->in < 0 || fstat(job->in, &st) < 0)
		return import_failed(job, job->file, "", errno);
	if (S_ISDIR(st.st_mode))
		return import_failed(job, job->file, "", EISDIR);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return import_failed(job, job->file, "neither a file nor a block device", EINVAL);
	end = lseek(job->in, 0, SEEK_END);
	if (end < 0)
		return import_failed(job, job->file, "", errno);
	job->size = (uint64_t)end;
	if (pread(job->in, magic, sizeof(magic), 0) == (ssize_t)sizeof(magic) && memcmp(magic, "QFI\xfb", 4) == 0)
		vc_cli_error("%s looks like a qcow2 image, which is copied as it is; for a raw disk use: "
			     "qemu-img convert -O raw", job->file);
	(void)posix_fadvise(job->in, 0, 0, POSIX_FADV_SEQUENTIAL);
	return 0;
}

static int import_open_target(struct import_job *job)
{
	char parent[VCLONEFS_PATH_MAX];
	struct stat from, to;
	mode_t mode;
	int r;

	r = vc_cli_split(job->image, parent, &job->name);
	if (r < 0)
		return import_failed(job, job->image, "the name of an image is needed here", -r);
	r = vc_cli_open(parent, O_DIRECTORY, &job->dir);
	if (r < 0)
		return r;
	if (fstat(job->in, &from) < 0 || fstat(job->dir, &to) < 0)
		return import_failed(job, job->image, "", errno);
	if (from.st_dev == to.st_dev) {
		vc_cli_error("%s is on this mount already: 'vclone clone' needs no copy", job->file);
		return -EINVAL;
	}
	mode = S_ISREG(from.st_mode) ? from.st_mode & 0666 : 0600;
	job->out = openat(job->dir, job->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_DIRECT, mode);
	if (job->out < 0)
		return import_failed(job, job->image, errno == EEXIST ? "an import never replaces a file" : "", errno);
	if (ftruncate(job->out, (off_t)job->size) < 0)
		return import_failed(job, job->image, "setting its size", errno);
	return 0;
}

/**
 * The data at or after `pos`, widened to whole blocks: *ret_start = *ret_end = size when there is none. A source that cannot tell is
 * all data.
 */
static int import_extent(struct import_job *job, uint64_t pos, uint64_t *ret_start, uint64_t *ret_end)
{
	off_t data, hole;

	*ret_start = pos;
	*ret_end = job->size;
	if (pos >= job->size)
		return 0;
	data = lseek(job->in, (off_t)pos, SEEK_DATA);
	if (data < 0 && errno == ENXIO) {
		*ret_start = job->size;
		return 0;
	}
	if (data < 0)
		return errno == EINVAL || errno == EOPNOTSUPP || errno == ESPIPE ? 0 :
			import_failed(job, job->file, "looking for data", errno);
	hole = lseek(job->in, data, SEEK_HOLE);
	if (hole < 0)
		return import_failed(job, job->file, "looking for a hole", errno);
	*ret_start = VC_MAX(pos, VC_ROUND_DOWN((uint64_t)data, IMPORT_ALIGN));
	*ret_end = VC_MIN(job->size, VC_ROUND_UP((uint64_t)hole, IMPORT_ALIGN));
	return 0;
}

/** Count the bytes that will be copied, for the progress line. */
static int import_measure(struct import_job *job)
{
	uint64_t start, end = 0;
	int r;

	do {
		r = import_extent(job, end, &start, &end);
		if (r < 0)
			return r;
		job->total += end - start;
	} while (end < job->size && start < job->size && !import_signal);
	return 0;
}

static int import_read(struct import_job *job, uint64_t pos, size_t len)
{
	size_t n = 0;

	while (n < len) {
		ssize_t got = pread(job->in, (char *)job->buf + n, len - n, (off_t)(pos + n));

		if (got < 0 && errno == EINTR && !import_signal)
			continue;
		if (got < 0)
			return import_signal ? -EINTR : import_failed(job, job->file, "reading", errno);
		if (got == 0)
			return import_failed(job, job->file, "it became shorter while it was read", EIO);
		n += (size_t)got;
	}
	return 0;
}

/** Write what import_read left in the buffer; a target that refuses direct writes of odd length gets ordinary ones. */
static int import_write(struct import_job *job, uint64_t pos, size_t len)
{
	size_t n = 0;

	while (n < len) {
		ssize_t put = pwrite(job->out, (char *)job->buf + n, len - n, (off_t)(pos + n));
		int flags = fcntl(job->out, F_GETFL);

		if (put > 0)
			n += (size_t)put;
		else if (put < 0 && errno == EINTR && !import_signal)
			continue;
		else if (put < 0 && errno == EINTR)
			return -EINTR;
		else if (put < 0 && errno == EINVAL && flags >= 0 && (flags & O_DIRECT) &&
			 fcntl(job->out, F_SETFL, flags & ~O_DIRECT) == 0)
			continue;
		else
			return import_failed(job, job->image, "writing", put < 0 ? errno : EIO);
	}
	return 0;
}

static int import_copy_extent(struct import_job *job, uint64_t pos, uint64_t end)
{
	while (pos < end) {
		uint64_t stop = VC_MIN(end, VC_ROUND_DOWN(pos, IMPORT_PIECE) + IMPORT_PIECE);
		size_t len = (size_t)(stop - pos);
		int r;

		if (import_signal)
			return -EINTR;
		r = import_read(job, pos, len);
		if (r < 0)
			return r;
		r = import_write(job, pos, len);
		if (r < 0)
			return r;
		pos = stop;
		job->done += len;
		vc_progress_show(&job->progress, job->done, job->total);
	}
	return 0;
}

static int import_copy(struct import_job *job)
{
	uint64_t start, end = 0;
	int r;

	job->buf = aligned_alloc(IMPORT_ALIGN, IMPORT_PIECE);
	if (!job->buf)
		return import_failed(job, job->image, "", ENOMEM);
	r = import_measure(job);
	if (r < 0)
		return r;
	vc_progress_begin(&job->progress, "import", true);
	while (end < job->size) {
		r = import_extent(job, end, &start, &end);
		if (r == 0)
			r = import_copy_extent(job, start, end);
		if (r < 0)
			return r;
	}
	if (import_signal)
		return -EINTR;
	return fsync(job->out) < 0 ? import_failed(job, job->image, "syncing it", errno) : 0;
}

/** Remove the unfinished image, if the name is still its. */
static void import_undo(struct import_job *job)
{
	struct stat ours, named;

	vc_progress_end(&job->progress);
	if (job->out < 0 || fstat(job->out, &ours) < 0 || fstatat(job->dir, job->name, &named, AT_SYMLINK_NOFOLLOW) < 0 ||
	    ours.st_ino != named.st_ino || ours.st_dev != named.st_dev)
		return;
	if (unlinkat(job->dir, job->name, 0) < 0)
		vc_cli_error("%s: it is incomplete and could not be removed: %s", job->image, strerror(errno));
	else
		vc_cli_error("%s: %s; the incomplete image was removed", job->image,
			     import_signal ? "interrupted" : "not imported");
}

static void import_close(struct import_job *job)
{
	const int fds[] = { job->in, job->out, job->dir };

	for (size_t i = 0; i < VC_ARRAY_LEN(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(job->buf);
}

static int import_run(struct import_job *job)
{
	int r;

	r = import_open_source(job);
	if (r == 0)
		r = import_open_target(job);
	if (r == 0)
		r = import_copy(job);
	if (r < 0)
		import_undo(job);
	vc_progress_end(&job->progress);
	return r;
}

static void import_report(const struct import_job *job)
{
	char took[32];
	uint64_t ns = vc_mono_ns() - job->progress.start_ns;

	printf("imported %s (%s of data) in %s, %s/s\n", vc_cli_size(job->size, 0), vc_cli_size(job->done, 1),
	       vc_progress_duration(ns, took, sizeof(took)),
	       vc_cli_size((uint64_t)((double)job->done * 1e9 / (double)VC_MAX(ns, 1)), 2));
}

static int command_import(const struct vc_command *cmd, int argc, char **argv)
{
	struct import_job job = { .in = -1, .out = -1, .dir = -1 };
	int r, status = vc_cli_options(cmd, argc, argv, 2, 2, NULL);

	if (status >= 0)
		return status;
	job.file = argv[optind];
	job.image = argv[optind + 1];
	import_catch(import_on_signal);
	r = import_run(&job);
	if (r == 0)
		import_report(&job);
	import_close(&job);
	import_catch(SIG_DFL);
	if (import_signal)
		raise(import_signal);
	return vc_cli_finish(r < 0 ? VC_EXIT_FAILED : VC_EXIT_OK);
}

const struct vc_command vc_command_import = {
	.name = "import",
	.args = "FILE IMAGE",
	.summary = "copy a raw image or block device into a new image",
	.help =
	"Holes of FILE stay holes; blocks of zeros become holes. The image is durable when the command returns. An import that\n"
	"fails or is interrupted leaves nothing behind. For other formats: qemu-img convert -O raw FILE IMAGE.\n",
	.run = command_import,
};
