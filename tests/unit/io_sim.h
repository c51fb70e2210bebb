/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * io_sim: a file system in memory behind the io table, for tests of crashes and failures.
 *
 * It behaves as a POSIX file system and writes down every operation that changes something, with its data. From
 * that history vc_sim_crash builds the file system as it may be found after a power cut at any point:
 *
 *   - Bytes and file sizes reach the disk for certain only by a datasync of that file which returned 0. Until then each
 *     512-byte sector holds what it held before the write or what the write made of it, in any
 *     combination, as the policy chooses. Changes of size happen in their order (a file's size is that after
 *     some prefix of them, or within a torn write) but independently of the data.
 *   - After a datasync that failed, the writes before it are in doubt for ever: the kernel may have dropped their
 *     pages, so a later datasync which succeeds says nothing about them.
 *   - A name made, renamed or removed is certain only after a sync_dir of its directory (a rename between two: of both)
 *     that returned 0; until then it has happened or not. What lies in a lost directory is lost with it.
 *   - Everything before the crash point that is certain is there. KEEP_ALL is the state after SIGKILL.
 *
 * LMDB cannot use the table. Therefore a directory called "meta" is also a real one, in a private directory in memory, which
 * vc_io_real_path() gives; what lies below it are real files, and so is a backup that LMDB writes elsewhere. What LMDB (or
 * the engine) does with them behind the table, io_sim_real.c records: their events stand in the one history with all the
 * others, so crash states lie inside an LMDB commit too.
 *
 *   - One write of LMDB is an event for each page of it.
 *   - A write through an O_DSYNC descriptor, as that of LMDB's meta page, is two events: the write, and that it is
 *     durable. A crash between them may lose it; at no time does it say anything about other writes.
 *   - fdatasync and fsync mean what datasync means; fsync of a directory what sync_dir means.
 *   - vc_io_meta_committed() aborts if the real file is not what was recorded: then LMDB wrote in a way the recorder does
 *     not know, such as through a mapping.
 *
 * A crash state gets its real files when they are asked for first. LMDB's lock.mdb is in no history: it only serves
 * processes that live.
 *
 * Paths: "/" and "." exist, everything else has to be made. Directories cannot be renamed or removed, links do
 * not exist. All functions are thread-safe; running out of memory aborts. Same calls and same seeds, same results.
 */
#ifndef VC_IO_SIM_H
#define VC_IO_SIM_H

#include "io.h"

struct vc_sim;

/** A new, empty file system; cannot fail (aborts). */
struct vc_sim *vc_sim_new(void);
/** Free it and its temporary directory. All files must be closed and LMDB too. NULL is ignored. */
void vc_sim_free(struct vc_sim *sim);
struct vc_io *vc_sim_io(struct vc_sim *sim);

/**
 * A new directory such as the real ones of a sim lie in: in memory if that can be, below $VC_TEST_MEMORY or /dev/shm, since nothing there has
 * to outlive the test. For vc_unit_rmdir.
 */
char *vc_sim_tmpdir(void);

/* ---- history and crashes ---- */

/** Events so far. Crash point n means: the first n events have happened. */
size_t vc_sim_events(struct vc_sim *sim);
/** One line about event i, such as "write /pool/log/0.log 4096+512". Returns buf. */
const char *vc_sim_describe(struct vc_sim *sim, size_t i, char *buf, size_t len);
/**
 * From event `from` on, was some file, LMDB's apart, synced with success after a sync of it had failed (D4)? Describes that event in
 * buf. (LMDB writes all of a transaction again, and the one that failed never was.)
 */
bool vc_sim_resynced(struct vc_sim *sim, size_t from, char *buf, size_t len);
/** Print events from .. to - 1 to standard error. */
void vc_sim_dump(struct vc_sim *sim, size_t from, size_t to);
/** Operations that are uncertain at crash point `at`. */
size_t vc_sim_uncertain(struct vc_sim *sim, size_t at);
/**
 * From now on all crash points are at `from` or later. What is certain there, and comes before all that is not in its file, need not be
 * replayed for each of them any more.
 */
void vc_sim_settle(struct vc_sim *sim, size_t from);

enum vc_sim_keep {
	VC_SIM_KEEP_ALL,    /* everything issued */
	VC_SIM_KEEP_NONE,   /* only what is certain */
	VC_SIM_KEEP_RANDOM, /* each uncertain operation, its size change apart: kept, lost or (writes) torn */
	VC_SIM_KEEP_DATA,   /* data and sizes of files, no names */
	VC_SIM_KEEP_NAMES,  /* names, no data and sizes */
	VC_SIM_DROP_ONE,    /* all but uncertain operation `which` */
	VC_SIM_KEEP_ONE,    /* none but uncertain operation `which` */
	VC_SIM_TEAR_ONE,    /* all, but of write `which` only some of its sectors, and perhaps of its growth; others: lost */
};

struct vc_sim_policy {
	enum vc_sim_keep keep;
	size_t which;  /* 0 .. vc_sim_uncertain() - 1 */
	uint64_t seed; /* of RANDOM and TEAR_ONE */
};

/** The file system after a crash at `at`, as a new sim with an empty history in which all this is certain. Cheap: pages are shared. */
struct vc_sim *vc_sim_crash(struct vc_sim *sim, size_t at, const struct vc_sim_policy *policy);
/** Of what decides what vc_sim_crash makes, this sim included: equal keys make equal file systems. Cheaper than making one. */
uint64_t vc_sim_crash_key(struct vc_sim *sim, size_t at, const struct vc_sim_policy *policy);
/** Of all names and contents as they are now: equal file systems have equal hashes. */
uint64_t vc_sim_hash(struct vc_sim *sim);

/* ---- faults ---- */

enum vc_sim_op {
	VC_SIM_OPEN = 1 << 0, VC_SIM_READ = 1 << 1, VC_SIM_WRITE = 1 << 2, VC_SIM_SYNC = 1 << 3, VC_SIM_TRUNCATE = 1 << 4,
	VC_SIM_ALLOCATE = 1 << 5, VC_SIM_UNLINK = 1 << 6, VC_SIM_RENAME = 1 << 7, VC_SIM_MKDIR = 1 << 8,
	VC_SIM_SYNC_DIR = 1 << 9, VC_SIM_LIST = 1 << 10, VC_SIM_SIZE = 1 << 11, VC_SIM_WRITEBACK = 1 << 12,
	VC_SIM_ANY = (1 << 13) - 1,
	/* What LMDB does with its file; a write that fails in part is a short one. */
	VC_SIM_META_OPEN = 1 << 13, VC_SIM_META_WRITE = 1 << 14, VC_SIM_META_SYNC = 1 << 15, VC_SIM_META_ALLOCATE = 1 << 16,
	VC_SIM_META_MAP = 1 << 17,
	VC_SIM_OPS = 18,
	VC_SIM_META_ANY = (1 << 18) - (1 << 13),
};

struct vc_sim_fault {
	unsigned ops;      /* enum vc_sim_op, several or-ed */
	const char *path;  /* only calls on paths that contain this, NULL: all */
	unsigned nth;      /* 1: the next such call */
	int error;         /* a positive errno; the call returns -error and has done nothing */
	bool sticky;       /* every later such call fails as well */
	bool partial;      /* a write that fails has written its first half, in whole sectors */
};

/** Arrange a fault; a fault arranged before is forgotten. NULL: none. The path is copied. */
void vc_sim_fail(struct vc_sim *sim, const struct vc_sim_fault *fault);
/** How often a fault was delivered since vc_sim_fail. */
unsigned vc_sim_faults(struct vc_sim *sim);
/** Calls of one kind since the start, failed ones included. Files of "meta" are not counted. */
uint64_t vc_sim_calls(struct vc_sim *sim, enum vc_sim_op op);
/** The file system has this many bytes (sizes and reservations of files count); beyond: -ENOSPC. Default 1 TiB. */
void vc_sim_set_capacity(struct vc_sim *sim, uint64_t bytes);

/** Flip the bits `mask` of one byte as a broken disk would; not an event. Returns 0, -ENOENT or -ERANGE. */
int vc_sim_corrupt(struct vc_sim *sim, const char *path, uint64_t offset, uint8_t mask) VC_MUST_CHECK;

#endif
