/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * crash_ops: single operations for crash tests: on the pool, on the model, and noted in the run. Files lie in the root.
 * All fail the test when the operation does.
 */
#ifndef VC_CRASH_OPS_H
#define VC_CRASH_OPS_H

#include "crash_run.h"

/** Counted; put it. */
struct vc_inode *crash_inode(struct crash_run *run, const char *name);

void crash_do_create(struct crash_run *run, const char *name);
/** Bytes that do not compress; flags as of vc_volume_write. */
void crash_do_write(struct crash_run *run, const char *name, uint64_t offset, size_t len, unsigned int flags);
void crash_do_flush(struct crash_run *run);
void crash_do_clone(struct crash_run *run, const char *name, const char *clone);
/** Durable; at most WORLD_WRITE_MAX bytes. */
void crash_do_copy(struct crash_run *run, const char *name, uint64_t from, const char *other, uint64_t to, uint64_t len);
void crash_do_unlink(struct crash_run *run, const char *name);
/** Over a file that may exist. */
void crash_do_rename(struct crash_run *run, const char *name, const char *over);
/** Discard: a hole, the size kept. */
void crash_do_punch(struct crash_run *run, const char *name, uint64_t offset, uint64_t len);
void crash_do_resize(struct crash_run *run, const char *name, uint64_t size);
/** To its end. */
void crash_do_task(struct crash_run *run, enum vc_task_kind kind);
/** In the background. */
void crash_do_start(struct crash_run *run, enum vc_task_kind kind);

#endif
