/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_wire: the messages between the kernel and libfuse, seen raw.
 *
 * Every worker reads from its own clone of the device. A reply has to be written to the descriptor that its request
 * came from, and may be written by any thread, so the worker's number travels in the top byte of the request's
 * `unique`, which is a counter and never gets there. Notifications (unique 0) go through worker 0's.
 *
 * Translated on the way in:
 *   INTERRUPT            answered "not implemented": nothing here can be interrupted
 *   COPY_FILE_RANGE_64   to COPY_FILE_RANGE with FS_MARK in the flags; fs_copy gives the 64-bit answer
 *   WRITE, SETATTR       the kernel's order to drop set-user-id bits becomes an FS_MARK where libfuse lets it pass
 * and on the way out:
 *   INIT's reply         features that libfuse does not know
 */
#include "config.h"
#include "fs_impl.h"

#include <errno.h>
#include <unistd.h>

#define WIRE_TAG_SHIFT 56
#define WIRE_TAG_MASK (UINT64_C(0xff) << WIRE_TAG_SHIFT)

#define WIRE_BODY(in, type) ((struct type *)((in) + 1))

static void wire_refuse(const struct fs_worker *w, const struct fuse_in_header *in)
{
	struct fuse_out_header out = { .len = sizeof(out), .error = -ENOSYS, .unique = in->unique };

	if (write(w->fd, &out, sizeof(out)) < 0)
		return; /* an interrupt of what is already answered; or the mount is gone, as the next read tells */
}

static void wire_see_init(struct vc_fs *fs, const struct fuse_in_header *in)
{
	const struct fuse_init_in *arg = WIRE_BODY(in, fuse_init_in);
	uint64_t flags = arg->flags;

	if (flags & FUSE_INIT_EXT && in->len >= sizeof(*in) + sizeof(*arg))
		flags |= (uint64_t)arg->flags2 << 32;
	atomic_store(&fs->init_flags, flags);
	atomic_store(&fs->init_unique, in->unique);
}

/** True: hand the request on. */
static bool wire_request(struct vc_fs *fs, const struct fs_worker *w, struct fuse_in_header *in)
{
	switch (in->opcode) {
	case FUSE_INIT:
		wire_see_init(fs, in);
		break;
	case FUSE_INTERRUPT:
		wire_refuse(w, in);
		return false;
	case FS_FUSE_COPY_FILE_RANGE_64:
		if (fs->options.pieces) {
			wire_refuse(w, in);
			return false;
		}
		in->opcode = FUSE_COPY_FILE_RANGE;
		WIRE_BODY(in, fuse_copy_file_range_in)->flags |= FS_MARK;
		break;
	case FUSE_WRITE:
		if (WIRE_BODY(in, fuse_write_in)->write_flags & FUSE_WRITE_KILL_SUIDGID)
			WIRE_BODY(in, fuse_write_in)->flags |= FS_MARK;
		break;
	case FUSE_SETATTR: {
		struct fuse_setattr_in *arg = WIRE_BODY(in, fuse_setattr_in);

		if (!(arg->valid & FATTR_MODE))
			arg->mode = arg->valid & FS_FATTR_KILL_SUIDGID ? FS_MARK : 0;
		break;
	}
	}
	return true;
}

static ssize_t wire_read(int fd VC_UNUSED, void *buf, size_t len, void *userdata)
{
	struct vc_fs *fs = userdata;
	struct fs_worker *w = fs_worker_self();
	struct fuse_in_header *in = buf;
	ssize_t n;

	do {
		n = read(w->fd, buf, len);
		if (n < (ssize_t)sizeof(*in))
			return n;
	} while (!wire_request(fs, w, in));
	in->unique |= (uint64_t)w->index << WIRE_TAG_SHIFT;
	return n;
}

static void wire_patch_init(struct vc_fs *fs, struct fuse_init_out *out)
{
	uint64_t offered = atomic_load(&fs->init_flags), flags;

	flags = (uint64_t)out->flags2 << 32 | out->flags;
	flags &= ~(uint64_t)FUSE_HANDLE_KILLPRIV;
	flags |= offered & (FUSE_HANDLE_KILLPRIV_V2 | FUSE_PARALLEL_DIROPS);
	if (offered & FUSE_INIT_EXT)
		flags |= offered & (FUSE_INIT_EXT | FS_INIT_DIRECT_IO_ALLOW_MMAP);
	out->flags = (uint32_t)flags;
	out->flags2 = (uint32_t)(flags >> 32);
}

static ssize_t wire_writev(int fd VC_UNUSED, struct iovec *iov, int count, void *userdata)
{
	struct vc_fs *fs = userdata;
	struct fuse_out_header *out = iov[0].iov_base;
	unsigned int index = (unsigned int)(out->unique >> WIRE_TAG_SHIFT);
	bool init;
	ssize_t n;

	out->unique &= ~WIRE_TAG_MASK;
	if (out->error == -EBADMSG || out->error == -EUCLEAN) /* damage, wherever it was noticed, is an I/O error to the caller */
		out->error = -EIO;
	init = out->unique != 0 && out->unique == atomic_load(&fs->init_unique) && !atomic_load(&fs->ready);
	if (init && out->error == 0 && count > 1 && iov[1].iov_len >= sizeof(struct fuse_init_out))
		wire_patch_init(fs, iov[1].iov_base);
	n = writev(fs->workers[index].fd, iov, count);
	if (init && n >= 0 && out->error == 0 && !atomic_exchange(&fs->ready, true) && fs->options.ready)
		fs->options.ready(fs->options.ctx);
	return n;
}

const struct fuse_custom_io fs_wire_io = {
	.read = wire_read,
	.writev = wire_writev,
};
