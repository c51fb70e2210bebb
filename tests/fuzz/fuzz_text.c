/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz the languages that users write: lines of the magic file, name patterns, mount options, the command line of vclone.
 *
 * What was understood is written out in plain form and must be understood as the same.
 */
#include "config.h"
#include "fuzz.h"

#include <getopt.h>
#include <inttypes.h>

#include "format.h"
#include "fs_text.h"
#include "vclone_impl.h"
#include "vclonefs_options.h"

#define WORD_MAX 256

/* ---- lines of the magic file ---- */

/* A word in single quotes, those in it escaped. */
static size_t text_quote(const char *word, char *buf)
{
	size_t n = 0;

	buf[n++] = '\'';
	for (; *word; word++) {
		if (*word == '\'') {
			memcpy(buf + n, "'\\'", 3);
			n += 3;
		}
		buf[n++] = *word;
	}
	buf[n++] = '\'';
	return n;
}

void fuzz_text_line(const uint8_t *data, size_t len)
{
	char src[WORD_MAX], dst[WORD_MAX], src2[WORD_MAX], dst2[WORD_MAX], line[10 * WORD_MAX];
	const char *text = len ? (const char *)data : "";
	size_t n;
	int r;

	memset(src, 0x55, sizeof(src));
	memset(dst, 0x55, sizeof(dst));
	r = fs_text_line(text, text + len, src, dst, sizeof(src));
	fuzz_check(r == 1 || r == 0 || r == -EINVAL || r == -ENAMETOOLONG);
	if (r != 1)
		return;
	fuzz_check(strlen(src) < WORD_MAX && strlen(dst) < WORD_MAX && strlen(src) + strlen(dst) < len);
	n = text_quote(src, line);
	line[n++] = '\t';
	n += text_quote(dst, line + n);
	fuzz_check(fs_text_line(line, line + n, src2, dst2, sizeof(src2)) == 1);
	fuzz_check(strcmp(src, src2) == 0 && strcmp(dst, dst2) == 0);
}

/* ---- patterns ---- */

/* A checked pattern as a format of printf for a uint64_t. */
static void pattern_format(const char *p, char *format)
{
	while (*p) {
		if (p[0] == '%' && p[1] != '%') {
			while (*p != 'd')
				*format++ = *p++;
			memcpy(format, PRIu64, strlen(PRIu64));
			format += strlen(PRIu64);
			p++;
		} else {
			if (*p == '%')
				*format++ = *p++;
			*format++ = *p++;
		}
	}
	*format = '\0';
}

/* Two programs must agree on what a pattern is, and printf on what it makes. */
void fuzz_pattern(const uint8_t *data, size_t len)
{
	struct fuzz_in in = { data, len };
	uint64_t number = fuzz_u64(&in) >> fuzz_below(&in, 64);
	char pattern[VC_NAME_MAX + 1], name[VC_NAME_MAX + 1], expected[3 * VC_NAME_MAX], format[3 * VC_NAME_MAX];
	int r;

	fuzz_text(&in, pattern, sizeof(pattern));
	r = fs_text_pattern_check(pattern);
	if (!strchr(pattern, '/'))
		fuzz_check((r == 0) == (vc_cli_pattern_error(pattern) == NULL));
	if (r < 0)
		return;
	pattern_format(pattern, format);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(expected, sizeof(expected), format, number);
#pragma GCC diagnostic pop
	r = fs_text_pattern_name(pattern, number, name, sizeof(name));
	fuzz_check(r == (strlen(expected) > VC_NAME_MAX ? -ENAMETOOLONG : 0));
	if (r == 0)
		fuzz_check(strcmp(name, expected) == 0);
}

/* ---- mount options ---- */

static bool options_same(const struct vc_mount_options *a, const struct vc_mount_options *b)
{
	return a->pool.cache_bytes == b->pool.cache_bytes && a->pool.node_cache_bytes == b->pool.node_cache_bytes &&
	       a->pool.destage_ms == b->pool.destage_ms && a->pool.read_only == b->pool.read_only &&
	       a->pool.real_blocks == b->pool.real_blocks && !a->pool.log_dir == !b->pool.log_dir &&
	       strcmp(a->log, b->log) == 0 && a->fs.threads == b->fs.threads && a->fs.pieces == b->fs.pieces;
}

/* The options understood, as a list. */
static void options_print(const struct vc_mount_options *o, char *list, size_t len)
{
	size_t n = (size_t)snprintf(list, len, "cache=%" PRIu64 ",node_cache=%" PRIu64 ",blocks=%s,%s", o->pool.cache_bytes,
				    o->pool.node_cache_bytes, o->pool.real_blocks ? "real" : "full", o->fs.pieces ? "pieces," : "");

	if (o->pool.destage_ms)
		n += (size_t)snprintf(list + n, len - n, o->pool.destage_ms == UINT32_MAX ? "destage_ms=never," : "destage_ms=%u,",
				      o->pool.destage_ms);
	if (o->fs.threads)
		n += (size_t)snprintf(list + n, len - n, "threads=%u,", o->fs.threads);
	if (o->pool.log_dir)
		n += (size_t)snprintf(list + n, len - n, "log=%s,", o->log);
	snprintf(list + n, len - n, "%s", o->rest);
}

void fuzz_mount_options(const uint8_t *data, size_t len)
{
	static struct vc_mount_options first, again;
	struct fuzz_in in = { data, len };
	char list[8192], printed[sizeof(first.log) + sizeof(first.rest) + 256];
	int r;

	memset(&first, 0, sizeof(first));
	memset(&again, 0, sizeof(again));
	fuzz_text(&in, list, sizeof(list));
	fuzz_quiet(true);
	r = vc_mount_options_add(&first, list);
	fuzz_quiet(false);
	fuzz_check(memchr(first.rest, '\0', sizeof(first.rest)) && first.fs.threads <= VC_FS_THREADS_MAX);
	fuzz_check(!first.pool.log_dir || (first.pool.log_dir == first.log && first.log[0] == '/'));
	if (r < 0 || strpbrk(first.log, ",\\"))
		return;
	options_print(&first, printed, sizeof(printed));
	fuzz_quiet(true);
	r = vc_mount_options_add(&again, printed);
	fuzz_quiet(false);
	fuzz_check(r == 0 && options_same(&first, &again) && strcmp(first.rest, again.rest) == 0);
}

/* ---- vclone ---- */

#define ARGS_MAX 6

/* Commands that change nothing, on names that do not exist: whatever is asked for ends with a status of the manual. */
static void vclone_run(char *text, size_t len, unsigned int which)
{
	static const struct vc_command *const commands[] = { &vc_command_clone, &vc_command_ls, &vc_command_tree,
							     &vc_command_info, &vc_command_df };
	const struct vc_command *cmd = commands[which % VC_ARRAY_LEN(commands)];
	char name[32], *argv[ARGS_MAX + 2] = { name };
	int argc = 1, status;

	snprintf(name, sizeof(name), "%s", cmd->name);
	for (char *p = text; p < text + len && argc <= ARGS_MAX; p += strlen(p) + 1) {
		for (char *c = p; *c; c++) /* no file of the machine is meant */
			*c = *c == '/' ? '|' : *c;
		argv[argc++] = p;
	}
	argv[argc] = NULL;
	fuzz_quiet(true);
	optind = 0; /* start afresh */
	opterr = 0;
	status = cmd->run(cmd, argc, argv);
	fflush(stdout);
	fuzz_quiet(false);
	fuzz_check(status == VC_EXIT_OK || status == VC_EXIT_FAILED || status == VC_EXIT_USAGE);
}

/* A path written as the kernel does it in mountinfo, and read again. */
static void vclone_mountinfo(const char *path)
{
	static struct vc_cli_mount mount;
	char line[5 * WORD_MAX + 64], inner[VCLONEFS_PATH_MAX];
	size_t n = (size_t)snprintf(line, sizeof(line), "36 35 98:0 / /");

	if (strlen(path) > WORD_MAX)
		return;
	for (const char *p = path; *p; p++) {
		if (strchr(" \t\n\\#", *p))
			n += (size_t)snprintf(line + n, sizeof(line) - n, "\\%03o", (unsigned char)*p);
		else
			line[n++] = *p;
	}
	snprintf(line + n, sizeof(line) - n, " rw,noatime master:1 - fuse.vclonefs /pool rw\n");
	fuzz_check(vc_cli_parse_mount(line, &mount) == 0);
	fuzz_check(mount.id == 36 && strcmp(mount.root, "/") == 0 && mount.point[0] == '/' && strcmp(mount.point + 1, path) == 0);
	if (vc_cli_translate(&mount, mount.point, "name", inner) == 0)
		fuzz_check(strcmp(inner, "/name") == 0);
}

static void vclone_split(const char *path)
{
	char parent[VCLONEFS_PATH_MAX];
	const char *name;

	if (vc_cli_split(path, parent, &name) < 0)
		return;
	fuzz_check(*name && !strchr(name, '/') && *parent && name >= path && name <= path + strlen(path));
}

/* Whatever a name holds, what is printed of it is printable. */
static void vclone_names(const char *text)
{
	char *out = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&out, &len);
	struct vc_json j;

	fuzz_check(f);
	vc_cli_put_name(f, text);
	vc_json_begin(&j, f);
	vc_json_open(&j, NULL, '{');
	vc_json_string(&j, text, text);
	vc_json_close(&j, '}');
	fclose(f);
	for (size_t i = 0; i < len; i++)
		fuzz_check(((unsigned char)out[i] >= 0x20 || out[i] == '\n') && out[i] != 0x7f);
	free(out);
}

void fuzz_vclone_options(const uint8_t *data, size_t len)
{
	static struct vc_cli_mount mount;
	struct fuzz_in in = { data, len };
	unsigned int which = fuzz_u8(&in);
	char text[VCLONEFS_PATH_MAX + 1] = "";
	size_t n = VC_MIN(in.left, sizeof(text) - 1);

	if (n)
		memcpy(text, in.p, n);
	text[n] = '\0';
	if (vc_cli_parse_mount(text, &mount) == 0)
		fuzz_check(memchr(mount.root, '\0', sizeof(mount.root)) && memchr(mount.point, '\0', sizeof(mount.point)));
	vclone_mountinfo(text);
	vclone_split(text);
	vclone_names(text);
	vclone_run(text, n, which);
}
