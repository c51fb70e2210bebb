/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclone_path: from the paths people type to names within a mount.
 *
 * Which mount a descriptor lies on comes from its mount id (statx) and /proc/self/mountinfo, so bind mounts of
 * a subdirectory and mounts on top of each other are told apart. That it is vclonefs is known by asking it.
 */
#include "config.h"
#include "vclone_impl.h"

#include <ctype.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/** Copy one field of mountinfo, up to a space, undoing \ooo. Returns 0, -ENAMETOOLONG. */
static int mount_field(const char *from, char *to)
{
	size_t n = 0;

	while (*from && *from != ' ' && *from != '\n') {
		if (n + 1 >= VCLONEFS_PATH_MAX)
			return -ENAMETOOLONG;
		if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' &&
		    from[3] >= '0' && from[3] <= '7') {
			to[n++] = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 4;
		} else {
			to[n++] = *from++;
		}
	}
	to[n] = '\0';
	return 0;
}

int vc_cli_parse_mount(const char *line, struct vc_cli_mount *ret)
{
	const char *field[5] = { line };
	char *end;
	long id;
	int r;

	for (int i = 1; i < 5; i++) {
		field[i] = strchr(field[i - 1], ' ');
		if (!field[i])
			return -EINVAL;
		field[i]++;
	}
	id = strtol(line, &end, 10);
	if (end == line || *end != ' ' || id < 0 || id > INT32_MAX || *field[3] != '/' || *field[4] != '/')
		return -EINVAL;
	r = mount_field(field[3], ret->root);
	if (r < 0)
		return r;
	r = mount_field(field[4], ret->point);
	if (r < 0)
		return r;
	ret->id = (int)id;
	return 0;
}

/** What of `path` follows `prefix`, both absolute: "" or "/...". NULL when it does not lie below. */
static const char *path_below(const char *path, const char *prefix)
{
	size_t n = strlen(prefix);

	if (n == 1)
		return strcmp(path, "/") == 0 ? "" : path;
	if (strncmp(path, prefix, n) != 0 || (path[n] != '\0' && path[n] != '/'))
		return NULL;
	return path + n;
}

int vc_cli_translate(const struct vc_cli_mount *mount, const char *dir, const char *name, char *buf)
{
	const char *root = strcmp(mount->root, "/") == 0 ? "" : mount->root;
	const char *rest = path_below(dir, mount->point);
	int n;

	if (!rest)
		return -EXDEV;
	n = snprintf(buf, VCLONEFS_PATH_MAX, "%s%s/%s", root, rest, name);
	return n < 0 || n >= VCLONEFS_PATH_MAX ? -ENAMETOOLONG : 0;
}

int vc_cli_split(const char *path, char *ret_parent, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	size_t n = slash ? (size_t)(slash - path) : 0;

	if (!path[0])
		return -ENOENT;
	if (!name[0] || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EISDIR;
	if (n >= VCLONEFS_PATH_MAX)
		return -ENAMETOOLONG;
	if (!slash)
		strcpy(ret_parent, ".");
	else if (n == 0)
		strcpy(ret_parent, "/");
	else
		snprintf(ret_parent, VCLONEFS_PATH_MAX, "%.*s", (int)n, path);
	*ret_name = name;
	return 0;
}

const char *vc_cli_pattern_error(const char *pattern)
{
	const char *slash = strrchr(pattern, '/');
	unsigned int nnumbers = 0;

	for (const char *p = slash ? slash + 1 : pattern; *p; p++) {
		if (*p != '%')
			continue;
		p++;
		if (*p == '%')
			continue;
		if (*p == '0' && isdigit((unsigned char)p[1]))
			p++;
		if (*p >= '1' && *p <= '9')
			p++;
		if (*p != 'd')
			return "after '%' only d, a width of 1 to 9 with d (%5d, %05d), or another '%' may come";
		nnumbers++;
	}
	if (nnumbers == 0)
		return "it has no place for the number, such as %d or %05d";
	return nnumbers > 1 ? "it has more than one place for the number" : NULL;
}

int vc_cli_check(int fd, const char *path)
{
	struct vclonefs_df df = { .size = sizeof(df) };
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0) {
		int error = errno;

		vc_cli_error("%s: %s", path, strerror(error));
		return -error;
	}
	if (fs.f_type == FUSE_SUPER_MAGIC && ioctl(fd, VCLONEFS_IOC_DF, &df) == 0)
		return 0;
	if (fs.f_type == FUSE_SUPER_MAGIC && (errno == ENOTCONN || errno == ECONNABORTED)) {
		vc_cli_error("%s: the daemon of this mount is gone: unmount it and mount again", path);
		return -ENOTCONN;
	}
	if (fs.f_type == FUSE_SUPER_MAGIC && errno != ENOTTY && errno != ENOSYS && errno != EINVAL) {
		int error = errno;

		vc_cli_error("%s: asking the daemon: %s", path, strerror(error));
		return -error;
	}
	vc_cli_error("%s is not on a vclonefs mount", path);
	return -ENOTTY;
}

int vc_cli_open(const char *path, int flags, int *ret_fd)
{
	int fd = open(path, flags | O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int r;

	if (fd < 0) {
		r = -errno;
		vc_cli_error("%s: %s", path, strerror(-r));
		return r;
	}
	r = vc_cli_check(fd, path);
	if (r < 0) {
		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

int vc_cli_open_image(const char *path, int *ret_fd)
{
	struct stat st;
	int fd, r;

	r = vc_cli_open(path, 0, &fd);
	if (r < 0)
		return r;
	r = fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	if (r < 0) {
		vc_cli_error("%s: %s%s", path, strerror(-r), r == -EINVAL ? " (an image is a regular file)" : "");
		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

/** Search mountinfo for `id`. Returns 0, -ENOENT, -errno. */
static int mount_find(int id, struct vc_cli_mount *ret)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t size = 0;
	int r = -ENOENT;

	if (!file)
		return -errno;
	while (r == -ENOENT && getline(&line, &size, file) > 0)
		if (vc_cli_parse_mount(line, ret) == 0 && ret->id == id)
			r = 0;
	free(line);
	fclose(file);
	return r;
}

int vc_cli_mount_of(int fd, const char *path, struct vc_cli_mount *ret)
{
	struct statx stx;
	int r = 0;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &stx) < 0)
		r = -errno;
	else if (!(stx.stx_mask & STATX_MNT_ID))
		r = -EOPNOTSUPP;
	else
		r = mount_find((int)stx.stx_mnt_id, ret);
	if (r < 0)
		vc_cli_error("%s: cannot find out where its file system is mounted: %s", path, strerror(-r));
	return r;
}

int vc_cli_real_path(int fd, const char *path, char *buf)
{
	char link[64];
	ssize_t n;
	int r;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, buf, VCLONEFS_PATH_MAX);
	r = n < 0 ? -errno : n >= VCLONEFS_PATH_MAX ? -ENAMETOOLONG : 0;
	if (r < 0) {
		vc_cli_error("%s: cannot find its real path: %s", path, strerror(-r));
		return r;
	}
	buf[n] = '\0';
	return 0;
}
