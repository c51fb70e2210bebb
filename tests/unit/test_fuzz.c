/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Replays the corpus through the fuzz targets, without clang or libFuzzer: every input that ever found something, and those
 * that reach the most code.
 *
 *   test_fuzz                     all of SRC_DIR/tests/fuzz/corpus
 *   test_fuzz TARGET FILE...      these inputs
 *   test_fuzz --targets           the names of the targets, and how long their inputs get
 *
 * An input that takes longer than INPUT_SECONDS fails, as does a target whose directory has no input.
 */
#include "config.h"
#include "../fuzz/fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <unistd.h>

#define INPUT_SECONDS 60
#define INPUT_MAX 65536

static char running[PATH_MAX + 32]; /* for the signal handler */

static void say_which(int sig)
{
	static const char before[] = "input: ", after[] = "\n";

	if (write(2, before, sizeof(before) - 1) < 0 || write(2, running, strlen(running)) < 0 || write(2, after, 1) < 0)
		_exit(125);
	signal(sig, SIG_DFL);
	raise(sig);
}

static int replay_file(const struct fuzz_target *t, const char *path)
{
	static uint8_t buf[INPUT_MAX];
	uint8_t *exact;
	ssize_t n;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	n = fd < 0 ? -1 : read(fd, buf, sizeof(buf));
	if (n < 0) {
		perror(path);
		return -1;
	}
	close(fd);
	snprintf(running, sizeof(running), "%s %s", t->name, path);
	exact = malloc((size_t)n + 1); /* so that reading behind its end is noticed */
	if (!exact)
		abort();
	memcpy(exact, buf, (size_t)n);
	alarm(INPUT_SECONDS);
	t->run(exact, VC_MIN((size_t)n, t->max_len));
	alarm(0);
	free(exact);
	return 0;
}

static int replay_target(const struct fuzz_target *t, const char *corpus)
{
	char path[PATH_MAX];
	struct dirent **names;
	uint64_t began = vc_mono_ns();
	int n, r = 0, count = 0;

	snprintf(path, sizeof(path), "%s/%s", corpus, t->name);
	n = scandir(path, &names, NULL, alphasort);
	if (n < 0)
		perror(path);
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%s/%s", corpus, t->name, names[i]->d_name);
		if (names[i]->d_name[0] != '.') {
			r |= replay_file(t, path);
			count++;
		}
		free(names[i]);
	}
	if (n >= 0)
		free(names);
	printf("%-15s %4d inputs, %.1f s\n", t->name, count, (double)(vc_mono_ns() - began) / 1e9);
	fflush(stdout);
	return r || count == 0;
}

static int replay_all(void)
{
	const char *src = getenv("SRC_DIR");
	char corpus[PATH_MAX - 300];
	int failed = 0;

	snprintf(corpus, sizeof(corpus), "%s/tests/fuzz/corpus", src ? src : ".");
	for (const struct fuzz_target *t = fuzz_targets; t->name; t++)
		failed += replay_target(t, corpus) != 0;
	return failed != 0;
}

static int print_targets(void)
{
	for (const struct fuzz_target *t = fuzz_targets; t->name; t++)
		printf("%s %zu\n", t->name, t->max_len);
	return 0;
}

int main(int argc, char **argv)
{
	const struct fuzz_target *t;
	int failed = 0;

	if (argc == 2 && strcmp(argv[1], "--targets") == 0)
		return print_targets();
	signal(SIGABRT, say_which);
	signal(SIGALRM, say_which);
	fuzz_setup();
	if (argc == 1)
		return replay_all();
	t = fuzz_find(argv[1]);
	if (!t) {
		fprintf(stderr, "no target is called %s\n", argv[1]);
		return 2;
	}
	for (int i = 2; i < argc; i++)
		failed |= replay_file(t, argv[i]) != 0;
	return failed;
}
