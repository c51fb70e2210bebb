/* SPDX-License-Identifier: BSD-2-Clause */
/* The targets under libFuzzer: VC_FUZZ_TARGET says which one. Started by tests/fuzz/run. */
#include "config.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static const struct fuzz_target *target;

int LLVMFuzzerInitialize(int *argc VC_UNUSED, char ***argv VC_UNUSED)
{
	const char *name = getenv("VC_FUZZ_TARGET");

	target = name ? fuzz_find(name) : NULL;
	if (!target) {
		fprintf(stderr, "VC_FUZZ_TARGET: one of");
		for (const struct fuzz_target *t = fuzz_targets; t->name; t++)
			fprintf(stderr, " %s", t->name);
		fprintf(stderr, "\n");
		exit(2);
	}
	fuzz_setup();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	target->run(data, VC_MIN(len, target->max_len));
	return 0;
}
