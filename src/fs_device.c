/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_device: a mount that one process makes and ends, and another one serves.
 *
 * The one that serves is given the descriptor of the device, which libfuse takes for a mount point when it is written /dev/fd/N. As
 * long as the first one holds the descriptor too, requests wait for somebody to serve them; so it unmounts when it sees the other end.
 */
#include "config.h"
#include "fs_impl.h"

#include <stdlib.h>

struct vc_fs_device {
	struct fuse_session *se;
	bool mounted;
};

int vc_fs_device_mount(const struct vc_fs_options *options, struct vc_fs_device **ret)
{
	struct vc_fs_device *dev = calloc(1, sizeof(*dev));
	int r = dev ? fs_session_new(options, NULL, &dev->se) : -ENOMEM;

	if (r == 0 && fuse_session_mount(dev->se, options->mountpoint) != 0)
		r = -EIO; /* libfuse has said why */
	if (r < 0) {
		vc_fs_device_close(dev);
		return r;
	}
	dev->mounted = true;
	*ret = dev;
	return 0;
}

int vc_fs_device_fd(const struct vc_fs_device *dev)
{
	return fuse_session_fd(dev->se);
}

void vc_fs_device_unmount(struct vc_fs_device *dev)
{
	if (dev->mounted)
		fuse_session_unmount(dev->se);
	dev->mounted = false;
}

void vc_fs_device_close(struct vc_fs_device *dev)
{
	if (!dev)
		return;
	vc_fs_device_unmount(dev);
	if (dev->se)
		fuse_session_destroy(dev->se);
	free(dev);
}
