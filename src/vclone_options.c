/* SPDX-License-Identifier: BSD-2-Clause */
/* vclone_options: the command line of a subcommand, and what is said about it. */
#include "config.h"
#include "vclone_impl.h"

#include <getopt.h>
#include <stdarg.h>

int vc_cli_usage(const struct vc_command *cmd, const char *fmt, ...)
{
	char text[VCLONEFS_PATH_MAX + 512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "vclone %s: ", cmd->name);
	vc_cli_put_name(stderr, text);
	fprintf(stderr, "\nusage: vclone %s %s\nTry 'vclone %s --help'.\n", cmd->name, cmd->args, cmd->name);
	return VC_EXIT_USAGE;
}

int vc_cli_help(const struct vc_command *cmd)
{
	printf("usage: vclone %s %s\n\n%s: %s\n%s%s", cmd->name, cmd->args, cmd->name, cmd->summary,
	       cmd->help[0] ? "\n" : "", cmd->help);
	return vc_cli_finish(VC_EXIT_OK);
}

int vc_cli_options(const struct vc_command *cmd, int argc, char **argv, int min, int max, bool *ret_json)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, VC_OPTION_HELP },
		{ "json", no_argument, NULL, VC_OPTION_JSON },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	if (ret_json)
		*ret_json = false;
	while ((c = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
		if (c == VC_OPTION_HELP || c == 'h')
			return vc_cli_help(cmd);
		if (c != VC_OPTION_JSON || !ret_json)
			return vc_cli_usage(cmd, "unknown option '%s'", argv[optind - 1]);
		*ret_json = true;
	}
	if (argc - optind < min)
		return vc_cli_usage(cmd, "an argument is missing");
	if (argc - optind > max)
		return vc_cli_usage(cmd, "too many arguments, beginning with '%s'", argv[optind + max]);
	return -1;
}
