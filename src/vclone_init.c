/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclone_init: vclone init, the one subcommand that works without a daemon: it makes a pool.
 */
#include "config.h"
#include "vclone_impl.h"

#include <getopt.h>
#include "format.h"
#include "io.h"
#include "pool.h"

#define DEFAULT_LOG_SEGMENT (UINT64_C(16) << 20)
#define DEFAULT_LOG_SIZE (UINT64_C(1) << 30)

/* As vc_pool_create has them; here so that a mistake is called one of usage, and by the names of the options. */
#define SEGMENT_MIN (UINT64_C(256) << 10)
#define LOG_SEGMENT_MIN (UINT64_C(128) << 10)
#define LOG_SEGMENT_MAX (UINT64_C(64) << 20)
#define LOG_SEGMENTS_MIN 4
#define LOG_SEGMENTS_MAX 9999

enum init_option { INIT_CHUNK = VC_OPTION_OTHER, INIT_SEGMENT, INIT_LOG_SIZE, INIT_LOG_SEGMENT };

struct init_sizes {
	uint64_t chunk, segment, log_size, log_segment; /* 0: not given */
};

/** Returns NULL and fills ret, or says what does not fit together. */
static const char *init_geometry(const struct init_sizes *sizes, struct vc_pool_geometry *ret)
{
	uint64_t log_segment = sizes->log_segment ? sizes->log_segment : DEFAULT_LOG_SEGMENT;
	uint64_t log_size = sizes->log_size ? sizes->log_size : DEFAULT_LOG_SIZE;
	uint64_t nblocks = sizes->chunk / VC_BLOCK_SIZE;

	*ret = (struct vc_pool_geometry){ .chunk_segment_size = sizes->segment, .log_segment_size = sizes->log_segment };
	if (sizes->chunk && (sizes->chunk % VC_BLOCK_SIZE || nblocks > VC_CHUNK_BLOCKS_MAX || (nblocks & (nblocks - 1))))
		return "a chunk is 4K, 8K, 16K, 32K or 64K";
	if (sizes->segment && (sizes->segment % VC_BLOCK_SIZE || sizes->segment < SEGMENT_MIN ||
			       sizes->segment > VC_CHUNK_SEGMENT_MAX))
		return "a segment is a multiple of 4K from 256K to 64M";
	if (log_segment % VC_BLOCK_SIZE || log_segment < LOG_SEGMENT_MIN || log_segment > LOG_SEGMENT_MAX)
		return "a log segment is a multiple of 4K from 128K to 64M";
	if (log_size % log_segment || log_size / log_segment < LOG_SEGMENTS_MIN ||
	    log_size / log_segment > LOG_SEGMENTS_MAX)
		return "the log is 4 to 9999 whole log segments";
	ret->chunk_blocks = (uint32_t)nblocks;
	ret->log_segments = (uint32_t)(log_size / log_segment);
	return NULL;
}

/** Returns -1 to go on, otherwise the exit status. */
static int init_parse(const struct vc_command *cmd, int argc, char **argv, struct init_sizes *ret)
{
	static const struct option options[] = {
		{ "chunk", required_argument, NULL, INIT_CHUNK },
		{ "segment", required_argument, NULL, INIT_SEGMENT },
		{ "log-size", required_argument, NULL, INIT_LOG_SIZE },
		{ "log-segment", required_argument, NULL, INIT_LOG_SEGMENT },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	uint64_t *const targets[] = { &ret->chunk, &ret->segment, &ret->log_size, &ret->log_segment };
	int c;

	while ((c = getopt_long(argc, argv, "+:h", options, NULL)) != -1) {
		if (c == 'h')
			return vc_cli_help(cmd);
		if (c == ':')
			return vc_cli_usage(cmd, "a size is missing after '%s'", argv[optind - 1]);
		if (c < INIT_CHUNK)
			return vc_cli_usage(cmd, "unknown option '%s'", argv[optind - 1]);
		if (vc_parse_bytes(optarg, targets[c - INIT_CHUNK]) < 0 || *targets[c - INIT_CHUNK] == 0)
			return vc_cli_usage(cmd, "'%s' is not a size such as 4096, 64K, 16M or 1G", optarg);
	}
	if (argc - optind != 1)
		return vc_cli_usage(cmd, "the directory of the new pool is needed");
	return -1;
}

static int init_failed(const char *dir, int error)
{
	vc_cli_error("%s: the pool was not made: %s%s", dir, strerror(error),
		     error == ENOTEMPTY ? " (a pool needs an empty directory, or a name that is free)" :
		     error == EEXIST ? " (there is a pool already; nothing was changed)" :
		     error == EINVAL ? " (sizes that cannot be used together; see vclone(8))" : "");
	return VC_EXIT_FAILED;
}

static int command_init(const struct vc_command *cmd, int argc, char **argv)
{
	struct vc_pool_geometry geometry;
	struct init_sizes sizes = { 0 };
	const char *wrong;
	int r, status = init_parse(cmd, argc, argv, &sizes);

	if (status >= 0)
		return status;
	wrong = init_geometry(&sizes, &geometry);
	if (wrong)
		return vc_cli_usage(cmd, "%s", wrong);
	r = vc_pool_create(vc_io_posix(), argv[optind], &geometry);
	if (r < 0)
		return init_failed(argv[optind], -r);
	printf("made a pool in ");
	vc_cli_put_name(stdout, argv[optind]);
	printf("; to mount it: vclonefs ");
	vc_cli_put_name(stdout, argv[optind]);
	puts(" MOUNTPOINT");
	return vc_cli_finish(VC_EXIT_OK);
}

const struct vc_command vc_command_init = {
	.name = "init",
	.args = "[OPTION]... POOL",
	.summary = "make a pool in an empty directory",
	.help =
	"POOL is an empty directory, or one to be made. Sizes take K, M, G, T; what is set here stays for the life of the pool.\n\n"
	"      --chunk SIZE        unit of compression: 4K to 64K, a power of two (16K). Larger saves more space, smaller\n"
	"                          makes small random reads cheaper\n"
	"      --segment SIZE      size of the files that hold chunks, 256K to 64M (64M)\n"
	"      --log-size SIZE     how much may wait in the log: 4 to 9999 log segments (1G)\n"
	"      --log-segment SIZE  size of the files of the log, 128K to 64M (16M)\n",
	.run = command_init,
};
