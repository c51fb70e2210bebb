/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclone_impl: what the parts of the administration program share. Single-threaded.
 *
 *   vclone.c            table of subcommands, --help, --version
 *   vclone_options.c    command lines of subcommands
 *   vclone_path.c       paths: is it on a mount, what is it called within that mount, name patterns
 *   vclone_text.c       names, messages and JSON
 *   vclone_progress.c   the progress line of long work
 *   vclone_clone.c vclone_report.c vclone_tree.c vclone_task.c vclone_scrub.c vclone_import.c vclone_init.c
 *   vclone_check.c      subcommands
 *
 * The program talks to the daemon only through the ioctls of vclonefs.h on descriptors of the mount. Functions
 * return 0 or -errno and have told the user by then; subcommands return an exit status.
 */
#ifndef VCLONE_IMPL_H
#define VCLONE_IMPL_H

#include <stdio.h>
#include "util.h"
#include "vclonefs.h"

enum vc_exit { VC_EXIT_OK = 0, VC_EXIT_FAILED = 1, VC_EXIT_USAGE = 2 };

/* ---- vclone_options.c: subcommands and their command lines ---- */

struct vc_command {
	const char *name;
	const char *args;    /* after the name, for the usage line */
	const char *summary; /* one line */
	const char *help;    /* the rest of --help; lines end with newline */
	int (*run)(const struct vc_command *cmd, int argc, char **argv); /* argv[0] is the name of the subcommand */
};

extern const struct vc_command vc_command_clone, vc_command_ls, vc_command_tree, vc_command_info, vc_command_df,
	vc_command_destage, vc_command_clean, vc_command_check, vc_command_scrub, vc_command_import, vc_command_init;

/** Values of long options that have no letter. */
enum vc_option { VC_OPTION_HELP = 256, VC_OPTION_JSON, VC_OPTION_OTHER };

/** Say what is wrong with the command line and how to get help; returns VC_EXIT_USAGE. */
int vc_cli_usage(const struct vc_command *cmd, const char *fmt, ...) VC_PRINTF(2, 3);
/** Print the help of one subcommand; returns VC_EXIT_OK. */
int vc_cli_help(const struct vc_command *cmd);
/**
 * For a subcommand whose options are only --json (ret_json, may be NULL) and --help, with min to max operands: returns -1 to
 * go on, with optind at the first operand, otherwise the exit status.
 */
int vc_cli_options(const struct vc_command *cmd, int argc, char **argv, int min, int max, bool *ret_json);

/* ---- vclone_path.c ---- */

/** One line of /proc/self/mountinfo. */
struct vc_cli_mount {
	int id;
	char root[VCLONEFS_PATH_MAX];  /* what of the file system is mounted: "/", or a directory of a bind mount */
	char point[VCLONEFS_PATH_MAX]; /* where */
};

/** Parse a line of mountinfo, undoing its \ooo escapes. Returns 0, -EINVAL, -ENAMETOOLONG. */
int vc_cli_parse_mount(const char *line, struct vc_cli_mount *ret) VC_MUST_CHECK;
/**
 * The name that `dir`/`name` (dir absolute and real, below mount->point) has within its file system, beginning with '/', into
 * buf of VCLONEFS_PATH_MAX. Returns 0, -EXDEV (not below the mount point), -ENAMETOOLONG.
 */
int vc_cli_translate(const struct vc_cli_mount *mount, const char *dir, const char *name, char *buf) VC_MUST_CHECK;
/** Split a path into parent (into buf of VCLONEFS_PATH_MAX) and last component. 0, -ENOENT (empty), -EISDIR (no file name), -ENAMETOOLONG. */
int vc_cli_split(const char *path, char *ret_parent, const char **ret_name) VC_MUST_CHECK;
/**
 * Is the last component of `pattern` one for clone_many: exactly one %d, %Nd or %0Nd with N 1 to 9, "%%" for a percent sign?
 * Returns NULL, or what is wrong with it.
 */
const char *vc_cli_pattern_error(const char *pattern);

/** Open a path that must lie on a vclonefs mount, readable. Returns 0 or -errno; said already. */
int vc_cli_open(const char *path, int flags, int *ret_fd) VC_MUST_CHECK;
/** As vc_cli_open, for an image: a regular file. */
int vc_cli_open_image(const char *path, int *ret_fd) VC_MUST_CHECK;
/** 0 when the descriptor answers as vclonefs; otherwise says that `path` does not, and returns -errno. */
int vc_cli_check(int fd, const char *path) VC_MUST_CHECK;
/** The mount that `fd` lies on. Returns 0 or -errno; said already. */
int vc_cli_mount_of(int fd, const char *path, struct vc_cli_mount *ret) VC_MUST_CHECK;
/** The real absolute path of the descriptor of a directory, into buf of VCLONEFS_PATH_MAX. 0 or -errno; said already. */
int vc_cli_real_path(int fd, const char *path, char *buf) VC_MUST_CHECK;

/* ---- vclone_text.c ---- */

/** Print "vclone: " and the text to standard error. Control characters of the text are escaped. */
void vc_cli_error(const char *fmt, ...) VC_PRINTF(1, 2);
/** Print a name: control characters, backslashes and bytes that are not UTF-8 as \ooo. */
void vc_cli_put_name(FILE *out, const char *name);
/** Bytes as "1.5 GiB" in a static buffer: one use per call of printf and argument `slot` (0 to 7). */
const char *vc_cli_size(uint64_t bytes, unsigned int slot);
/** Flush standard output; VC_EXIT_FAILED with a message when something could not be written, otherwise `status`. */
int vc_cli_finish(int status);

/** A JSON text being printed. Bytes of names that are not UTF-8 become \udc80 to \udcff (as Python's surrogateescape). */
struct vc_json {
	FILE *out;
	int depth;
	bool first; /* nothing printed yet in the open bracket */
};

void vc_json_begin(struct vc_json *j, FILE *out);
/** key: NULL inside an array and at the top. bracket: '{' or '['. */
void vc_json_open(struct vc_json *j, const char *key, char bracket);
void vc_json_close(struct vc_json *j, char bracket);
void vc_json_u64(struct vc_json *j, const char *key, uint64_t value);
void vc_json_bool(struct vc_json *j, const char *key, bool value);
void vc_json_null(struct vc_json *j, const char *key);
void vc_json_string(struct vc_json *j, const char *key, const char *value);

/* ---- vclone_report.c ---- */

/** VCLONEFS_IOC_INFO. Returns 0 or -errno; said already. */
int vc_cli_image_info(int fd, const char *path, struct vclonefs_info *ret) VC_MUST_CHECK;

/* ---- vclone_progress.c ---- */

/** A line on a terminal that is rewritten while work goes on; nothing when standard error is no terminal. */
struct vc_progress {
	const char *what;
	bool bytes;        /* done and total count bytes; otherwise plain numbers */
	bool terminal;
	uint64_t start_ns, shown_ns;
};

void vc_progress_begin(struct vc_progress *p, const char *what, bool bytes);
/** At most ten times a second something is really printed. */
void vc_progress_show(struct vc_progress *p, uint64_t done, uint64_t total);
/** Remove the line. May be called again. */
void vc_progress_end(struct vc_progress *p);
/** The text of the line for `elapsed_ns` of work; total 0: unknown. Returns buf. */
const char *vc_progress_text(const struct vc_progress *p, uint64_t done, uint64_t total, uint64_t elapsed_ns,
			     char *buf, size_t len);
/** "1.5 s", "4 min 10 s", "2 h 5 min" into buf; returns it. */
const char *vc_progress_duration(uint64_t ns, char *buf, size_t len);

#endif
