/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench_fuse: the least that a FUSE file system can do: shows the files of one directory, and hands every read, write and sync of them on to
 * the file below, past the page cache. What it costs more than that file is the price of FUSE, which nothing above FUSE gets round.
 *
 * usage: bench_fuse DIRECTORY MOUNTPOINT
 *
 * Asks the kernel for what vclonefs asks: direct I/O, parallel direct writes, as many threads, each with a clone of the device. Stays in the
 * foreground until it is unmounted. Nothing but opening existing files by name, reading, writing and syncing them.
 */
#define _GNU_SOURCE 1
#define FUSE_USE_VERSION 312
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS 16u
#define REQUEST_MAX (1u << 20)
#define ALIGN 4096u
#ifndef FOPEN_PARALLEL_DIRECT_WRITES
#define FOPEN_PARALLEL_DIRECT_WRITES (1u << 6)
#endif

static int directory;
static _Thread_local char *buffer; /* REQUEST_MAX aligned bytes; lives as long as its thread, which ends with the program */

static int buffer_ready(fuse_req_t req)
{
	if (!buffer)
		buffer = aligned_alloc(ALIGN, REQUEST_MAX);
	if (buffer)
		return 1;
	fuse_reply_err(req, ENOMEM);
	return 0;
}

static void pass_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->want &= ~(unsigned int)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_AUTO_INVAL_DATA);
	conn->max_write = REQUEST_MAX;
	conn->max_background = 256;
	conn->congestion_threshold = 192;
}

/* A file that the kernel knows; its address is the number of the node. */
struct node {
	struct node *next;
	ino_t ino;         /* of the file */
	int fd;
	uint64_t nlookup;  /* lock */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct node *nodes; /* lock */

static int node_fd(fuse_ino_t ino) { return ino == FUSE_ROOT_ID ? directory : ((struct node *)(uintptr_t)ino)->fd; }

/* Counted for the kernel. NULL, with errno. */
static struct node *node_find(const char *name, struct stat *st)
{
	struct node *n;

	if (fstatat(directory, name, st, AT_SYMLINK_NOFOLLOW) < 0)
		return NULL;
	for (n = nodes; n && n->ino != st->st_ino; n = n->next)
		;
	if (!n) {
		n = calloc(1, sizeof(*n));
		if (!n)
			return NULL;
		n->ino = st->st_ino;
		n->fd = openat(directory, name, O_RDWR | O_DIRECT | O_CLOEXEC | O_NOFOLLOW);
		if (n->fd < 0) {
			free(n);
			return NULL;
		}
		n->next = nodes;
		nodes = n;
	}
	n->nlookup++;
	return n;
}

static void pass_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = { .attr_timeout = 1.0, .entry_timeout = 0 };
	struct node *n;
	int error;

	(void)parent;
	pthread_mutex_lock(&lock);
	n = node_find(name, &e.attr);
	error = errno;
	pthread_mutex_unlock(&lock);
	if (!n) {
		fuse_reply_err(req, error);
		return;
	}
	e.ino = (uintptr_t)n;
	fuse_reply_entry(req, &e);
}

static void pass_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	struct node **at = &nodes, *n = (struct node *)(uintptr_t)ino;

	fuse_reply_none(req);
	if (ino == FUSE_ROOT_ID)
		return;
	pthread_mutex_lock(&lock);
	n->nlookup -= nlookup;
	while (n->nlookup == 0 && *at != n)
		at = &(*at)->next;
	if (n->nlookup == 0) {
		*at = n->next;
		close(n->fd);
		free(n);
	}
	pthread_mutex_unlock(&lock);
}

static void pass_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	if (fstat(node_fd(ino), &st) < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	fuse_reply_attr(req, &st, 1.0);
}

/* libfuse 3.14 has no field for parallel direct writes. */
static void pass_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_open_out out = { .fh = (uint64_t)node_fd(ino), .open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES };

	(void)fi;
	fuse_reply_buf(req, (char *)&out, sizeof(out));
}

static void pass_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	ssize_t n;

	(void)fi;
	if (!buffer_ready(req))
		return;
	n = pread(node_fd(ino), buffer, size < REQUEST_MAX ? size : REQUEST_MAX, off);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, buffer, (size_t)n);
}

static void pass_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	ssize_t n;

	(void)fi;
	if (!buffer_ready(req))
		return;
	memcpy(buffer, buf, size);
	n = pwrite(node_fd(ino), buffer, size, off);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_write(req, (size_t)n);
}

static void pass_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)datasync;
	(void)fi;
	fuse_reply_err(req, fdatasync(node_fd(ino)) < 0 ? errno : 0);
}

static const struct fuse_lowlevel_ops pass_ops = {
	.init = pass_init,
	.lookup = pass_lookup,
	.forget = pass_forget,
	.getattr = pass_getattr,
	.open = pass_open,
	.read = pass_read,
	.write = pass_write,
	.fsync = pass_fsync,
};

static int serve(struct fuse_session *se)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int r;

	if (!config)
		errx(1, "no memory");
	fuse_loop_cfg_set_clone_fd(config, 1);
	fuse_loop_cfg_set_max_threads(config, THREADS);
	fuse_loop_cfg_set_idle_threads(config, THREADS);
	r = fuse_session_loop_mt(se, config);
	fuse_loop_cfg_destroy(config);
	return r;
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	struct fuse_session *se;
	int r;

	if (argc != 3)
		errx(2, "usage: bench_fuse DIRECTORY MOUNTPOINT");
	directory = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0)
		err(1, "%s", argv[1]);
	se = fuse_session_new(&args, &pass_ops, sizeof(pass_ops), NULL);
	if (!se || fuse_set_signal_handlers(se) != 0 || fuse_session_mount(se, argv[2]) != 0)
		errx(1, "%s: cannot be mounted", argv[2]);
	r = serve(se);
	fuse_session_unmount(se);
	fuse_remove_signal_handlers(se);
	fuse_session_destroy(se);
	close(directory);
	return r != 0;
}
