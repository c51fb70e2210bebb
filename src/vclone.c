/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclone: the administration program. This file finds the subcommand and prints help.
 *
 * To add a subcommand: a struct vc_command in a vclone_*.c, its name in vclone_impl.h and in the table here.
 */
#include "config.h"
#include "vclone_impl.h"

#include <getopt.h>

#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "unknown"
#endif

static int command_help(const struct vc_command *cmd, int argc, char **argv);
static int command_version(const struct vc_command *cmd, int argc, char **argv);

static const struct vc_command vc_command_version = {
	.name = "version",
	.args = "",
	.summary = "print the version of this program",
	.help = "The version of the daemon behind a mount is shown by 'vclone df'.\n",
	.run = command_version,
};

static const struct vc_command vc_command_help = {
	.name = "help",
	.args = "[SUBCOMMAND]",
	.summary = "explain a subcommand",
	.help = "",
	.run = command_help,
};

static const struct vc_command *const commands[] = {
	&vc_command_clone, &vc_command_ls, &vc_command_tree, &vc_command_info, &vc_command_df, &vc_command_import,
	&vc_command_destage, &vc_command_clean, &vc_command_check, &vc_command_scrub, &vc_command_init, &vc_command_version, &vc_command_help,
};

static const struct vc_command *command_find(const char *name)
{
	for (size_t i = 0; i < VC_ARRAY_LEN(commands); i++)
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	return NULL;
}

static void print_commands(FILE *out)
{
	fputs("usage: vclone SUBCOMMAND [OPTION]... [ARGUMENT]...\n"
	      "       vclone --help | --version\n\n"
	      "Administers vclonefs, the file system that clones disk images of virtual machines.\n\n", out);
	for (size_t i = 0; i < VC_ARRAY_LEN(commands); i++)
		fprintf(out, "  %-9s %s\n", commands[i]->name, commands[i]->summary);
	fputs("\n'vclone SUBCOMMAND --help' explains one of them; vclone(8) has it all.\n"
	      "Exit status: 0 done, 1 failed, 2 the command line was wrong.\n", out);
}

static int command_help(const struct vc_command *cmd, int argc, char **argv)
{
	const struct vc_command *subject;
	int status = vc_cli_options(cmd, argc, argv, 0, 1, NULL);

	if (status >= 0)
		return status;
	if (optind == argc) {
		print_commands(stdout);
		return vc_cli_finish(VC_EXIT_OK);
	}
	subject = command_find(argv[optind]);
	if (!subject)
		return vc_cli_usage(cmd, "no subcommand is called '%s'", argv[optind]);
	return vc_cli_help(subject);
}

static int print_version(void)
{
	puts("vclone (vclonefs) " PACKAGE_VERSION);
	return vc_cli_finish(VC_EXIT_OK);
}

static int command_version(const struct vc_command *cmd, int argc, char **argv)
{
	int status = vc_cli_options(cmd, argc, argv, 0, 0, NULL);

	return status >= 0 ? status : print_version();
}

int main(int argc, char **argv)
{
	const struct vc_command *cmd;

	opterr = 0;
	if (argc < 2) {
		print_commands(stderr);
		return VC_EXIT_USAGE;
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
		return print_version();
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		print_commands(stdout);
		return vc_cli_finish(VC_EXIT_OK);
	}
	cmd = command_find(argv[1]);
	if (!cmd) {
		vc_cli_error("no subcommand is called '%s'; 'vclone --help' lists them", argv[1]);
		return VC_EXIT_USAGE;
	}
	return cmd->run(cmd, argc - 1, argv + 1);
}
