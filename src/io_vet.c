/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * io_vet: may what lies at a path be trusted? For io_posix, and for the directories above a pool.
 *
 * What only its owner and root can change cannot be exchanged between looking and using, as long as the same holds for the directory
 * that names it. So a pool is looked at from the top: its directory, then what that holds.
 */
#include "config.h"
#include "io_vet.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "msg.h"

static bool vet_is_mine(const struct stat *st)
{
	return st->st_uid == 0 || st->st_uid == geteuid();
}

int vc_io_vet_stat(const char *path, const struct stat *st)
{
	if (S_ISLNK(st->st_mode)) {
		vc_err("%s: is a symbolic link; nothing in a pool may be one (a log elsewhere: -o log=DIRECTORY)", path);
		return -ELOOP;
	}
	if (!S_ISDIR(st->st_mode) && !S_ISREG(st->st_mode)) {
		vc_err("%s: is neither a file nor a directory", path);
		return -EINVAL;
	}
	if (!vet_is_mine(st)) {
		vc_err("%s: belongs to user %u, but user %u is at work here; run it as that user, or chown the pool", path,
		       (unsigned int)st->st_uid, (unsigned int)geteuid());
		return -EPERM;
	}
	if (st->st_mode & (S_IWGRP | S_IWOTH)) {
		vc_err("%s: others than its owner may write to it (mode %04o); what is in there cannot be trusted: look after it, then chmod go-w",
		       path, (unsigned int)st->st_mode & 07777);
		return -EPERM;
	}
	return 0;
}

int vc_io_vet_path(const char *path, bool follow)
{
	struct stat st;

	if (fstatat(AT_FDCWD, path, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) == 0)
		return vc_io_vet_stat(path, &st);
	if (errno == ENOENT)
		return 0;
	vc_err("%s: %s", path, strerror(errno));
	return -errno;
}

/** Could somebody else put another directory in the place of one that `dir` names? */
static bool vet_is_open(const char *dir)
{
	struct stat st;

	if (stat(dir, &st) < 0)
		return false;
	return !vet_is_mine(&st) || ((st.st_mode & (S_IWGRP | S_IWOTH)) && !(st.st_mode & S_ISVTX));
}

void vc_io_vet_above(const char *path)
{
	char *dir = strdup(path), *slash;

	while (dir && (slash = strrchr(dir, '/')) != NULL) {
		slash[slash == dir] = '\0';
		if (vet_is_open(dir))
			vc_warn("%s: others may exchange what is in there, and %s is: keep it where only root may write", dir, path);
		if (slash == dir)
			break;
	}
	free(dir);
}
