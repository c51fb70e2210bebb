/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fault_script: a fixed piece of work that goes through everything an engine does to its files, for tests that let one call
 * after the other fail under it.
 *
 * A step that returned 0 is in the model, and promised when the call promises it. A step that failed has changed nothing, unless the
 * pool failed with it (D4): then it may or may not be found after the next mount, and every later change is refused.
 * Contents that are read are compared at once; nothing else is asserted while faults are about.
 */
#ifndef VC_FAULT_SCRIPT_H
#define VC_FAULT_SCRIPT_H

#include "crash_run.h"

struct fault_script {
	struct crash_run *run;
	struct model doubt;     /* has_doubt: with the step that failed as the pool failed */
	bool has_doubt;
	int bad;                /* an error that `allowed` refused; 0: none */
	unsigned bad_step;
	const int *allowed;     /* errors that steps may return, 0-terminated; NULL: any */
	bool unreadable;        /* where the pool failed, reads may give EIO */
	unsigned refused;       /* steps that failed */
	size_t opened;          /* event of the disk at which the pool was opened last */
};

/** A new simulated disk with an empty pool. The seed decides only its geometry. */
void fault_script_init(struct fault_script *s, uint64_t seed);
void fault_script_fini(struct fault_script *s);
/** All steps. The pool is open afterwards, or run->w.pool is NULL: it could not be opened again. */
void fault_script_run(struct fault_script *s);
/** Is the pool open and failed (D4)? */
bool fault_script_failed(struct fault_script *s);
/** What is named NAME, for messages. */
const char *fault_script_step_name(unsigned step);

/**
 * Once faults are over. The open pool reads as the model says; it takes changes again, or refuses every one if it failed. What
 * a power cut, a kill and a kill of the real LMDB file leave of it opens and holds what it must; and works.
 */
void fault_script_check(struct fault_script *s);

#endif
