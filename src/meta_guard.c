/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta_guard: LMDB reads its file through a mapping. When a page of it is gone (the file was truncated) or cannot be read (the disk
 * failed), the reader gets a SIGBUS; when a page is not what it was when the store was opened, LMDB may follow a wild offset or stop in an
 * assertion. None of these may end the daemon: what is in the log and in the caches can still be read.
 *
 *   guarded call -> sigsetjmp -> LMDB ... fault -> handler -> siglongjmp -> store is broken: META_GONE from now on
 *
 * Why jumping is safe here: a guarded call runs LMDB and nothing of ours, so no lock of ours is taken and no allocation is half done; a fault
 * on the mapping happens in LMDB's own loads, never inside malloc. What LMDB leaves behind is not used again: a read transaction is reset,
 * which touches the table of readers only; a write transaction is left as it is, with LMDB's writer lock, and the environment is never
 * closed. Nothing of an unfinished transaction is in the file: LMDB writes the meta page last.
 *
 * The handler looks at nothing but a variable of its thread. A fault outside of a guarded call goes to the handler that was there before.
 */
#include "config.h"

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>

#include "meta_impl.h"
#include "msg.h"

static _Thread_local sigjmp_buf *guard_jump; /* of the guarded call of this thread */
static struct sigaction guard_before[2];     /* what was installed before us; SIGBUS, SIGSEGV */
static const int guard_signals[2] = { SIGBUS, SIGSEGV };
static _Atomic(struct vc_meta *) guard_lost; /* closed while broken: nothing of theirs is ever freed */

static void guard_fault(int signal, siginfo_t *info, void *context)
{
	(void)info;
	(void)context;
	if (guard_jump)
		siglongjmp(*guard_jump, signal);
	/* Not ours: the instruction runs again, and faults again, under the former handler. */
	for (size_t i = 0; i < VC_ARRAY_LEN(guard_signals); i++)
		if (guard_signals[i] == signal)
			sigaction(signal, &guard_before[i], NULL);
}

static void guard_assert(MDB_env *env, const char *text)
{
	(void)env;
	(void)text;
	if (guard_jump)
		siglongjmp(*guard_jump, SIGABRT);
}

void vc_meta_guard_install(MDB_env *env)
{
	struct sigaction ours = { .sa_sigaction = guard_fault, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK }, now;

	sigemptyset(&ours.sa_mask);
	for (size_t i = 0; i < VC_ARRAY_LEN(guard_signals); i++) {
		if (sigaction(guard_signals[i], NULL, &now) < 0 || (now.sa_flags & SA_SIGINFO && now.sa_sigaction == guard_fault))
			continue;
		guard_before[i] = now;
		sigaction(guard_signals[i], &ours, NULL);
	}
	mdb_env_set_assert(env, guard_assert);
}

void vc_meta_break(struct vc_meta *meta, const char *why)
{
	if (!atomic_exchange(&meta->broken, true))
		vc_err("%s: %s: maps and names are not read or written any more until the next mount; run vclone check then", meta->path, why);
}

void vc_meta_lose(struct vc_meta *meta)
{
	meta->next_lost = atomic_load(&guard_lost);
	while (!atomic_compare_exchange_weak(&guard_lost, &meta->next_lost, meta))
		;
}

int vc_meta_guard(struct vc_meta *meta, const char *what, int (*fn)(void *ctx), void *ctx)
{
	sigjmp_buf here;
	char why[120];
	int signal, rc;

	if (atomic_load_explicit(&meta->broken, memory_order_relaxed))
		return META_GONE;
	signal = sigsetjmp(here, 0);
	if (signal) {
		guard_jump = NULL;
		snprintf(why, sizeof(why), "%s: %s", what,
			 signal == SIGBUS ? "a page of the file is gone or cannot be read" : "a page of the file is damaged");
		vc_meta_break(meta, why);
		return META_GONE;
	}
	guard_jump = &here;
	rc = fn(ctx);
	guard_jump = NULL;
	return rc;
}
