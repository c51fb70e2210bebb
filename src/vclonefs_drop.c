/* SPDX-License-Identifier: BSD-2-Clause */
/* vclonefs_drop: users and capabilities, by the system calls themselves. */
#include "config.h"
#include "vclonefs_drop.h"

#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "msg.h"

static int drop_failed(const char *what)
{
	int error = errno;

	vc_err("cannot give up privileges: %s: %s", what, strerror(error));
	return -error;
}

/* The effective and permitted set become `keep`, the others empty. */
static int drop_sets(uint64_t keep)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = (uint32_t)keep, .permitted = (uint32_t)keep },
		{ .effective = (uint32_t)(keep >> 32), .permitted = (uint32_t)(keep >> 32) },
	};

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
		return drop_failed("ambient set");
	return syscall(SYS_capset, &header, data) < 0 ? drop_failed("capset") : 0;
}

/* Somebody else than root may not change this set, and has nothing it could give back once no_new_privs is set. */
static int drop_bounding(uint64_t keep)
{
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
		if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 0 || keep >> cap & 1)
			continue;
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && geteuid() == 0)
			return drop_failed("bounding set");
	}
	return 0;
}

static int drop_find_user(const char *user, struct passwd **ret)
{
	char *end;
	unsigned long uid = strtoul(user, &end, 10);

	errno = 0;
	*ret = getpwnam(user);
	if (!*ret && *user >= '0' && *user <= '9' && !*end && uid <= UINT32_MAX)
		*ret = getpwuid((uid_t)uid);
	if (*ret)
		return 0;
	vc_err("run_as: there is no user %s", user);
	return -EINVAL;
}

static int drop_to_user(const char *user)
{
	struct passwd *pw;
	int r = drop_find_user(user, &pw);

	if (r < 0)
		return r;
	if (initgroups(pw->pw_name, pw->pw_gid) < 0 || setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) < 0 ||
	    setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) < 0)
		return drop_failed(user);
	return 0;
}

int vc_drop_all(const struct vc_drop *drop)
{
	int r = drop_bounding(0);

	if (r == 0 && *drop->user)
		r = drop_to_user(drop->user);
	if (r == 0)
		r = drop_sets(0);
	if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		r = drop_failed("no_new_privs");
	if (r == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		r = drop_failed("dumpable");
	return r;
}

int vc_drop_all_but_mount(void)
{
	/* A mount point may lie where only its owner may search. */
	const uint64_t keep = UINT64_C(1) << CAP_SYS_ADMIN | UINT64_C(1) << CAP_DAC_READ_SEARCH;
	int r;

	if (geteuid() != 0)
		return 0;
	r = drop_bounding(keep);
	if (r == 0)
		r = drop_sets(keep);
	if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		r = drop_failed("no_new_privs");
	return r;
}
