/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclone_check: vclone check, which reads the files of a pool itself, mounted or not, and changes nothing.
 */
#include "config.h"
#include "vclone_impl.h"

#include <getopt.h>
#include "check.h"

/* As fsck(8). */
enum check_exit { CHECK_CLEAN = 0, CHECK_ERRORS = 4, CHECK_FAILED = 8, CHECK_USAGE = 16 };

struct check_cli {
	bool data, log, json;
	const char *log_dir;
	struct vc_json out;
	struct vc_progress progress;
	const char *doing;
};

static void check_cli_found(void *ctx, const char *text)
{
	struct check_cli *c = ctx;

	vc_progress_end(&c->progress);
	if (c->json)
		vc_json_string(&c->out, NULL, text);
	else
		printf("%s\n", text);
}

static void check_cli_progress(void *ctx, const char *what, uint64_t done, uint64_t total)
{
	struct check_cli *c = ctx;

	if (what != c->doing) {
		vc_progress_end(&c->progress);
		vc_progress_begin(&c->progress, what, false);
		c->doing = what;
	}
	vc_progress_show(&c->progress, done, total);
}

static void check_cli_json_result(struct check_cli *c, const struct vc_check_result *r)
{
	vc_json_close(&c->out, '[');
	vc_json_u64(&c->out, "errors", r->findings);
	vc_json_u64(&c->out, "inodes", r->inodes);
	vc_json_u64(&c->out, "directories", r->directories);
	vc_json_u64(&c->out, "images", r->images);
	vc_json_u64(&c->out, "names", r->names);
	vc_json_u64(&c->out, "orphans", r->orphans);
	vc_json_u64(&c->out, "nodes", r->nodes);
	vc_json_u64(&c->out, "unreachable_nodes", r->unreachable_nodes);
	vc_json_u64(&c->out, "mapped_bytes", r->mapped_blocks * 4096);
	vc_json_u64(&c->out, "chunks", r->chunks);
	vc_json_u64(&c->out, "chunk_bytes", r->chunk_bytes);
	vc_json_u64(&c->out, "segments", r->segments);
	vc_json_u64(&c->out, "dead_segments", r->dead_segments);
	vc_json_u64(&c->out, "checkpoint", r->checkpoint_lsn);
	vc_json_close(&c->out, '{');
	printf("\n");
}

static void check_cli_text_result(const struct vc_check_result *r)
{
	printf("%llu images, %llu directories, %llu names, %llu orphans\n", (unsigned long long)r->images,
	       (unsigned long long)r->directories, (unsigned long long)r->names, (unsigned long long)r->orphans);
	printf("%llu map nodes (%llu wait for 'vclone clean'), %s mapped in all\n", (unsigned long long)r->nodes,
	       (unsigned long long)r->unreachable_nodes, vc_cli_size(r->mapped_blocks * 4096, 0));
	printf("%llu chunks in use, %s; %llu segments (%llu hold nothing in use)\n", (unsigned long long)r->chunks,
	       vc_cli_size(r->chunk_bytes, 1), (unsigned long long)r->segments, (unsigned long long)r->dead_segments);
	printf("%s\n", r->findings ? "the pool is DAMAGED" : "the pool is clean");
}

static int check_cli_run(struct check_cli *c, const char *dir)
{
	struct vc_check_options options = { .data = c->data, .log = c->log, .log_dir = c->log_dir, .found = check_cli_found,
					    .progress = check_cli_progress, .ctx = c };
	struct vc_check_result result;
	int r;

	if (c->json) {
		vc_json_begin(&c->out, stdout);
		vc_json_open(&c->out, NULL, '{');
		vc_json_open(&c->out, "findings", '[');
	}
	r = vc_check_pool(vc_io_posix(), dir, &options, &result);
	vc_progress_end(&c->progress);
	if (c->json)
		check_cli_json_result(c, &result);
	else if (r == 0)
		check_cli_text_result(&result);
	if (r < 0) {
		vc_cli_error("%s: could not be checked: %s", dir, strerror(-r));
		return CHECK_FAILED;
	}
	return vc_cli_finish(result.findings ? CHECK_ERRORS : CHECK_CLEAN);
}

static int command_check(const struct vc_command *cmd, int argc, char **argv)
{
	enum { CHECK_DATA = VC_OPTION_OTHER, CHECK_LOG, CHECK_LOG_DIR };
	static const struct option options[] = {
		{ "data", no_argument, NULL, CHECK_DATA },
		{ "log", no_argument, NULL, CHECK_LOG },
		{ "log-dir", required_argument, NULL, CHECK_LOG_DIR },
		{ "json", no_argument, NULL, VC_OPTION_JSON },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct check_cli c = { .data = false };
	int o;

	while ((o = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
		if (o == 'h')
			return vc_cli_help(cmd);
		c.data |= o == CHECK_DATA;
		c.log |= o == CHECK_LOG || o == CHECK_LOG_DIR;
		c.json |= o == VC_OPTION_JSON;
		if (o == CHECK_LOG_DIR)
			c.log_dir = optarg;
		if (o == '?') {
			vc_cli_usage(cmd, "unknown option '%s'", argv[optind - 1]);
			return CHECK_USAGE;
		}
	}
	if (argc - optind != 1) {
		vc_cli_usage(cmd, "the directory of one pool is needed");
		return CHECK_USAGE;
	}
	return check_cli_run(&c, argv[optind]);
}

const struct vc_command vc_command_check = {
	.name = "check",
	.args = "[--data] [--log [--log-dir DIR]] [--json] POOL",
	.summary = "verify the books of a pool, mounted or not",
	.help = "Reads the pool's directory itself and changes nothing. Of a mounted pool the last checkpoint is checked.\n"
		"  --data         read every chunk in use and verify its checksums\n"
		"  --log          also replay the log, in memory; only while the pool is not mounted\n"
		"  --log-dir DIR  where the log lies, if not in POOL/log\n"
		"  --json         print the result as JSON\n"
		"Exit status: 0 clean, 4 errors found, 8 could not be checked, 16 the command line was wrong.\n",
	.run = command_check,
};
