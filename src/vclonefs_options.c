/* SPDX-License-Identifier: BSD-2-Clause */
/* vclonefs_options: the table of options and how each is read. */
#include "config.h"
#include "vclonefs_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "msg.h"

/** The next option of a list into buf, "\," being a comma in it. 1; 0 at the end; -ENAMETOOLONG. */
static int option_next(const char **list, char *buf, size_t len)
{
	const char *p = *list;
	size_t used = 0;

	while (*p == ',')
		p++;
	if (!*p)
		return 0;
	for (; *p && *p != ','; p++) {
		if (*p == '\\' && p[1])
			p++;
		if (used + 1 == len)
			break;
		buf[used++] = *p;
	}
	buf[used] = '\0';
	*list = p;
	return *p && *p != ',' ? -ENAMETOOLONG : 1;
}

static int option_number(const char *text, uint64_t least, uint64_t most, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || *ret < least || *ret > most)
		return -EINVAL;
	return 0;
}

static int option_log(struct vc_mount_options *o, const char *dir)
{
	if (!realpath(dir, o->log)) {
		int r = -errno;

		vc_err("%s: %s", dir, strerror(-r));
		return r;
	}
	o->pool.log_dir = o->log;
	return 0;
}

static int option_destage(struct vc_mount_options *o, const char *text)
{
	uint64_t n = UINT32_MAX;
	int r = strcmp(text, "never") == 0 ? 0 : option_number(text, 1, UINT32_MAX - 1, &n);

	if (r == 0)
		o->pool.destage_ms = (uint32_t)n;
	return r;
}

static int option_blocks(struct vc_mount_options *o, const char *text)
{
	o->pool.real_blocks = strcmp(text, "real") == 0;
	return o->pool.real_blocks || strcmp(text, "full") == 0 ? 0 : -EINVAL;
}

static int option_threads(struct vc_mount_options *o, const char *text)
{
	uint64_t n = 0;
	int r = option_number(text, 1, VC_FS_THREADS_MAX, &n);

	if (r == 0)
		o->fs.threads = (unsigned int)n;
	return r;
}

static int option_cache(struct vc_mount_options *o, const char *text)
{
	return vc_parse_bytes(text, &o->pool.cache_bytes);
}

static int option_node_cache(struct vc_mount_options *o, const char *text)
{
	return vc_parse_bytes(text, &o->pool.node_cache_bytes);
}

static int option_run_as(struct vc_mount_options *o, const char *text)
{
	if (!*text || strlen(text) >= sizeof(o->drop.user))
		return -EINVAL;
	strcpy(o->drop.user, text);
	o->drop.wanted = true;
	return 0;
}

static const struct option_kind {
	const char *name; /* with '=' when it has a value */
	int (*set)(struct vc_mount_options *o, const char *value);
} option_kinds[] = {
	{ "cache=", option_cache },	{ "node_cache=", option_node_cache }, { "log=", option_log },
	{ "destage_ms=", option_destage }, { "blocks=", option_blocks },	      { "threads=", option_threads },
	{ "run_as=", option_run_as },
};

/** Options of fstab that mean nothing to a file system, or are always on. */
static bool option_is_ignored(const char *option)
{
	static const char *const names[] = { "rw", "defaults", "auto", "noauto", "user", "users", "nouser", "owner",
					     "group", "_netdev", "nofail", "default_permissions" };

	if (strncmp(option, "x-", 2) == 0 || strncmp(option, "comment=", 8) == 0)
		return true;
	for (size_t i = 0; i < VC_ARRAY_LEN(names); i++)
		if (strcmp(option, names[i]) == 0)
			return true;
	return false;
}

/** Keep an option for libfuse, escaped again. */
static int option_keep(struct vc_mount_options *o, const char *option)
{
	size_t used = strlen(o->rest);

	if (used + 2 * strlen(option) + 2 > sizeof(o->rest))
		return -E2BIG;
	if (used)
		o->rest[used++] = ',';
	for (; *option; option++) {
		if (*option == ',' || *option == '\\')
			o->rest[used++] = '\\';
		o->rest[used++] = *option;
	}
	o->rest[used] = '\0';
	return 0;
}

static int option_one(struct vc_mount_options *o, const char *option)
{
	for (size_t i = 0; i < VC_ARRAY_LEN(option_kinds); i++) {
		size_t len = strlen(option_kinds[i].name);

		if (strncmp(option, option_kinds[i].name, len) == 0)
			return option_kinds[i].set(o, option + len);
	}
	if (strcmp(option, "remount") == 0)
		return -EINVAL;
	if (strcmp(option, "pieces") == 0) {
		o->fs.pieces = true;
		return 0;
	}
	if (strcmp(option, "drop_privileges") == 0) {
		o->drop.wanted = true;
		return 0;
	}
	if (option_is_ignored(option))
		return 0;
	if (strcmp(option, "ro") == 0)
		o->pool.read_only = true;
	return option_keep(o, option);
}

int vc_mount_options_add(struct vc_mount_options *o, const char *list)
{
	char option[PATH_MAX + 32];
	int r;

	while ((r = option_next(&list, option, sizeof(option))) != 0) {
		if (r > 0)
			r = option_one(o, option);
		if (r < 0) {
			fprintf(stderr, "vclonefs: bad option: %s\n", option);
			return r;
		}
	}
	return 0;
}
