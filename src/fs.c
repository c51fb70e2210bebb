/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs: the session with the kernel, its worker threads, and how it ends.
 *
 *   serving --umount by anyone--> the device says ENODEV, all workers end
 *   serving --stop_fd--> detached (lazily: no new users, workers still serve those who are left)
 *           --last user gone--> as above       --grace over--> workers are cancelled in their read, the connection is cut
 *
 * libfuse's own descriptor is used for mounting only. The workers read from clones of it (fs_wire), so that libfuse
 * may close its own when it unmounts while the workers go on serving the final writes.
 *
 * A worker can be cancelled only while it waits for a request.
 */
#include "config.h"
#include "fs_impl.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "msg.h"

#define FS_THREADS_DEFAULT 16u

static _Thread_local struct fs_worker *fs_self;

struct fs_worker *fs_worker_self(void)
{
	return fs_self;
}

static void fs_init(void *userdata VC_UNUSED, struct fuse_conn_info *conn)
{
	unsigned int want = FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_IOCTL_DIR |
			    FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_PARALLEL_DIROPS |
			    FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPLICIT_INVAL_DATA;

	conn->want = want & conn->capable;
	conn->max_write = FS_REQUEST_MAX;
	conn->max_background = 256;
	conn->congestion_threshold = 192;
}

static const struct fuse_lowlevel_ops fs_ops = {
	.init = fs_init,
	.lookup = fs_lookup,
	.forget = fs_forget,
	.forget_multi = fs_forget_multi,
	.getattr = fs_getattr,
	.setattr = fs_setattr,
	.readlink = fs_readlink,
	.mknod = fs_mknod,
	.mkdir = fs_mkdir,
	.symlink = fs_symlink,
	.unlink = fs_unlink,
	.rmdir = fs_rmdir,
	.rename = fs_rename,
	.link = fs_link,
	.access = fs_access,
	.statfs = fs_statfs,
	.opendir = fs_opendir,
	.releasedir = fs_releasedir,
	.readdir = fs_readdir,
	.readdirplus = fs_readdirplus,
	.fsyncdir = fs_fsyncdir,
	.setxattr = fs_setxattr,
	.getxattr = fs_getxattr,
	.listxattr = fs_listxattr,
	.removexattr = fs_removexattr,
	.open = fs_open,
	.create = fs_create,
	.release = fs_release,
	.read = fs_read,
	.write = fs_write,
	.fsync = fs_fsync,
	.fallocate = fs_fallocate,
	.lseek = fs_lseek,
	.copy_file_range = fs_copy_file_range,
	.ioctl = fs_ioctl,
};

struct vc_inode *fs_inode_or_reply(fuse_req_t req, fuse_ino_t ino)
{
	struct vc_inode *inode;
	int r = vc_inode_get(fs_of(req)->pool, ino, &inode);

	if (r < 0) {
		fuse_reply_err(req, r == -ENOENT ? ESTALE : -r);
		return NULL;
	}
	return inode;
}

/* ---- workers ---- */

static void worker_ended(void *arg)
{
	struct fs_worker *w = arg;
	uint64_t one = 1;

	atomic_fetch_sub(&w->fs->live_workers, 1);
	if (write(w->fs->ended_fd, &one, sizeof(one)) < 0)
		vc_err("eventfd: %s", strerror(errno));
}

static void worker_loop(struct fs_worker *w)
{
	struct fuse_session *se = w->fs->se;
	int r;

	while (!fuse_session_exited(se)) {
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
		r = fuse_session_receive_buf(se, &w->in);
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		if (r == -EINTR || r == -EAGAIN)
			continue;
		if (r <= 0) {
			fuse_session_exit(se);
			return;
		}
		fuse_session_process_buf(se, &w->in);
	}
}

static void *worker_main(void *arg)
{
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	fs_self = arg;
	pthread_cleanup_push(worker_ended, arg);
	worker_loop(arg);
	pthread_cleanup_pop(1);
	return NULL;
}

static int worker_clone_device(struct fs_worker *w)
{
	int session_fd = fuse_session_fd(w->fs->se);
	uint32_t source = (uint32_t)session_fd;

	w->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (w->fd >= 0 && ioctl(w->fd, FUSE_DEV_IOC_CLONE, &source) == 0)
		return 0;
	if (w->fd >= 0)
		close(w->fd);
	w->fd = fcntl(session_fd, F_DUPFD_CLOEXEC, 3);
	return w->fd < 0 ? -errno : 0;
}

static int worker_init(struct vc_fs *fs, unsigned int index)
{
	struct fs_worker *w = &fs->workers[index];

	w->fs = fs;
	w->index = index;
	w->buffer = aligned_alloc(4096, FS_REQUEST_MAX);
	if (!w->buffer)
		return -ENOMEM;
	return worker_clone_device(w);
}

static void worker_join(struct fs_worker *w)
{
	if (w->started)
		pthread_join(w->thread, NULL);
	w->started = false;
}

/** Only when no reply can be on its way: it would go to whatever the descriptor is by then. */
static void worker_fini(struct fs_worker *w)
{
	if (w->fd >= 0)
		close(w->fd);
	free(w->in.mem);
	free(w->buffer);
}

static int fs_start_workers(struct vc_fs *fs)
{
	char name[16];
	int r;

	for (unsigned int i = 0; i < fs->nworkers; i++) {
		r = worker_init(fs, i);
		if (r < 0)
			return r;
	}
	for (unsigned int i = 0; i < fs->nworkers; i++) {
		snprintf(name, sizeof(name), "fs-%u", i);
		atomic_fetch_add(&fs->live_workers, 1);
		r = vc_thread_start(&fs->workers[i].thread, name, worker_main, &fs->workers[i]);
		if (r < 0) {
			atomic_fetch_sub(&fs->live_workers, 1);
			return r;
		}
		fs->workers[i].started = true;
	}
	return 0;
}

static void fs_cancel_workers(struct vc_fs *fs)
{
	fuse_session_exit(fs->se);
	for (unsigned int i = 0; i < fs->nworkers; i++)
		if (fs->workers[i].started)
			pthread_cancel(fs->workers[i].thread);
}

/* ---- mount ---- */

static VC_PRINTF(2, 0) void fs_libfuse_msg(enum fuse_log_level level, const char *fmt, va_list args)
{
	char line[512];
	size_t len;

	vsnprintf(line, sizeof(line), fmt, args);
	len = strlen(line);
	if (len > 0 && line[len - 1] == '\n')
		line[len - 1] = '\0';
	vc_msg(level <= FUSE_LOG_ERR ? VC_MSG_ERR : level <= FUSE_LOG_NOTICE ? VC_MSG_WARN : VC_MSG_DEBUG, "%s", line);
}

static int fs_add_options(const struct vc_fs_options *options, char **list)
{
	char name[4200];

	if (snprintf(name, sizeof(name), "fsname=%s", options->pool_path) >= (int)sizeof(name))
		return -ENAMETOOLONG;
	if (fuse_opt_add_opt_escaped(list, name) < 0 || fuse_opt_add_opt(list, "subtype=vclonefs") < 0 ||
	    fuse_opt_add_opt(list, "default_permissions") < 0)
		return -ENOMEM;
	if (options->mount_options && *options->mount_options && fuse_opt_add_opt(list, options->mount_options) < 0)
		return -ENOMEM;
	return 0;
}

int fs_session_new(const struct vc_fs_options *options, struct vc_fs *fs, struct fuse_session **ret)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	char *list = NULL;
	int r;

	r = fs_add_options(options, &list);
	if (r == 0 && (fuse_opt_add_arg(&args, "vclonefs") < 0 || fuse_opt_add_arg(&args, "-o") < 0 ||
		       fuse_opt_add_arg(&args, list) < 0 || (options->debug && fuse_opt_add_arg(&args, "-d") < 0)))
		r = -ENOMEM;
	if (r == 0) {
		*ret = fuse_session_new(&args, &fs_ops, sizeof(fs_ops), fs);
		if (!*ret)
			r = -EINVAL;
	}
	fuse_opt_free_args(&args);
	free(list);
	return r;
}

static int fs_init_state(struct vc_fs *fs)
{
	int r;

	vc_mutex_init(&fs->op_lock, VC_LOCK_DONE);
	vc_cond_init(&fs->op_idle);
	vc_mutex_init(&fs->table_lock, VC_LOCK_DONE);
	vc_list_init(&fs->remembered);
	vc_list_init(&fs->handles);
	vc_list_init(&fs->pins);
	fs->nworkers = fs->options.threads ? fs->options.threads : FS_THREADS_DEFAULT;
	fs->ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fs->ended_fd < 0)
		return -errno;
	fs->workers = calloc(fs->nworkers, sizeof(*fs->workers));
	if (!fs->workers)
		return -ENOMEM;
	for (unsigned int i = 0; i < fs->nworkers; i++)
		fs->workers[i].fd = -1;
	r = fs_table_init(fs);
	if (r < 0)
		return r;
	r = fs_queue_start(&fs->finish, fs, "fs-finish", fs_copy_expire);
	if (r < 0)
		return r;
	r = fs_queue_start(&fs->reread, fs, "fs-reread", NULL);
	if (r < 0)
		return r;
	return fs_queue_start(&fs->notify, fs, "fs-notify", NULL);
}

static int fs_attach(struct vc_fs *fs)
{
	char mounted[32]; /* how libfuse is told of a device that is mounted */
	int r;

	r = fs_session_new(&fs->options, fs, &fs->se);
	if (r < 0)
		return r;
	snprintf(mounted, sizeof(mounted), "/dev/fd/%d", fs->options.device_fd);
	if (fuse_session_mount(fs->se, fs->options.detach ? mounted : fs->options.mountpoint) != 0)
		return -EIO; /* libfuse has said why */
	fs->mounted = true;
	r = fuse_session_custom_io(fs->se, &fs_wire_io, fuse_session_fd(fs->se));
	if (r < 0)
		return r;
	return fs_start_workers(fs);
}

int vc_fs_mount(struct vc_pool *pool, const struct vc_fs_options *options, struct vc_fs **ret)
{
	struct vc_fs *fs;
	int r;

	if (options->threads > VC_FS_THREADS_MAX)
		return -EINVAL;
	fs = calloc(1, sizeof(*fs));
	if (!fs)
		return -ENOMEM;
	fs->pool = pool;
	fs->options = *options;
	fuse_set_log_func(fs_libfuse_msg);
	r = fs_init_state(fs);
	if (r == 0)
		r = fs_attach(fs);
	if (r < 0) {
		vc_err("%s: cannot mount: %s", options->mountpoint, strerror(-r));
		vc_fs_close(fs);
		return r;
	}
	*ret = fs;
	return 0;
}

/* ---- end ---- */

static void fs_detach(struct vc_fs *fs)
{
	if (fs->mounted && fs->options.detach)
		fs->options.detach(fs->options.ctx);
	else if (fs->mounted)
		fuse_session_unmount(fs->se);
	fs->mounted = false;
}

static void fs_drain_event(struct vc_fs *fs)
{
	uint64_t n;

	if (read(fs->ended_fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		vc_err("eventfd: %s", strerror(errno));
}

/** Until no worker lives (true), or the time is over. */
static bool fs_wait_workers(struct vc_fs *fs, unsigned int timeout_ms)
{
	uint64_t until = vc_mono_ns() + timeout_ms * UINT64_C(1000000), now;
	struct pollfd p = { .fd = fs->ended_fd, .events = POLLIN };

	while (atomic_load(&fs->live_workers) > 0) {
		now = vc_mono_ns();
		if (now >= until)
			return false;
		(void)poll(&p, 1, (int)((until - now) / 1000000) + 1);
		fs_drain_event(fs);
	}
	return true;
}

int vc_fs_serve(struct vc_fs *fs, int stop_fd, unsigned int grace_ms)
{
	struct pollfd p[2] = { { .fd = fs->ended_fd, .events = POLLIN }, { .fd = stop_fd, .events = POLLIN } };

	while (atomic_load(&fs->live_workers) > 0) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return -errno;
		if (p[0].revents)
			fs_drain_event(fs);
		if (!p[1].revents)
			continue;
		fs_detach(fs);
		if (!fs_wait_workers(fs, grace_ms)) {
			vc_warn("%s: files are still open; closing all the same", fs->options.mountpoint);
			fs_cancel_workers(fs);
		}
		break;
	}
	return atomic_load(&fs->ready) ? 0 : -ENOTCONN;
}

static void fs_wait_ops(struct vc_fs *fs)
{
	vc_mutex_lock(&fs->op_lock);
	while (fs->nops > 0)
		vc_cond_wait(&fs->op_idle, &fs->op_lock);
	vc_mutex_unlock(&fs->op_lock);
}

void vc_fs_close(struct vc_fs *fs)
{
	if (!fs)
		return;
	if (fs->se) {
		if (atomic_load(&fs->live_workers) > 0)
			fs_cancel_workers(fs);
		fs_detach(fs);
	}
	for (unsigned int i = 0; fs->workers && i < fs->nworkers; i++)
		worker_join(&fs->workers[i]);
	vc_volume_drain_reads(fs->pool);
	fs_wait_ops(fs);
	fs_queue_stop(&fs->reread);
	fs_queue_stop(&fs->notify);
	fs_queue_stop(&fs->finish);
	for (unsigned int i = 0; fs->workers && i < fs->nworkers; i++)
		worker_fini(&fs->workers[i]);
	fs_table_fini(fs);
	if (fs->se)
		fuse_session_destroy(fs->se);
	if (fs->ended_fd >= 0)
		close(fs->ended_fd);
	free(fs->workers);
	vc_mutex_fini(&fs->table_lock);
	vc_cond_fini(&fs->op_idle);
	vc_mutex_fini(&fs->op_lock);
	free(fs);
}
