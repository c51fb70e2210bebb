/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * journal_read: the destage journal, read back: which checkpoints it holds, and what each of them changed.
 *
 * Of several entries that follow one checkpoint the last counts: those before it were written for commits that did not happen.
 * One thread.
 */
#ifndef VC_JOURNAL_READ_H
#define VC_JOURNAL_READ_H

#include "format.h"
#include "io.h"

/** A valid entry and where it lies. */
struct vc_journal_entry {
	uint64_t prev_lsn, checkpoint_lsn;
	uint64_t offset, len;
	uint32_t file;  /* index into files */
	uint32_t order; /* as it was written */
};

struct vc_journal_scan {
	struct vc_io *io;
	char *dir;
	uint8_t uuid[16];
	uint64_t *files;       /* the names: checkpoints that files begin after; ascending */
	size_t nfiles, files_cap;
	struct vc_journal_entry *entries; /* by prev_lsn, then order */
	size_t nentries, entries_cap;
	uint64_t bytes;
	uint64_t nheaders;     /* files that begin as they must */
	uint64_t nbroken;      /* files that do not end with a whole entry; usual after a crash */
};

/**
 * Read all of POOL/journal and check every entry. A file that ends in what is no entry is used up to there. Free with
 * vc_journal_scan_fini in any case. 0 (a missing directory holds nothing), -errno.
 */
int vc_journal_scan(struct vc_io *io, const char *pool_dir, const uint8_t uuid[16], struct vc_journal_scan *ret) VC_MUST_CHECK;
void vc_journal_scan_fini(struct vc_journal_scan *scan);

/** The newest file of the journal. */
struct vc_journal_last {
	uint64_t name;  /* the checkpoint that it begins after */
	uint64_t bytes;
	uint64_t end;   /* of the last entry that leads no further than a checkpoint; 0: it does not begin as a file of this journal */
	uint64_t reaches; /* the highest checkpoint that an entry leads to; so far the log and its chunks have been durable */
};
/** Reads this file alone, for a pool at checkpoint `lsn`. 0, -ENOENT (there is none), -errno. */
int vc_journal_last(struct vc_io *io, const char *pool_dir, const uint8_t uuid[16], uint64_t lsn,
		    struct vc_journal_last *ret) VC_MUST_CHECK;

/** The entry that leads on from checkpoint `lsn`. NULL: there is none. */
const struct vc_journal_entry *vc_journal_after(const struct vc_journal_scan *scan, uint64_t lsn);

/** What an entry changed: one call for each item, then for each row (value NULL: deleted). Non-zero stops, and is returned. */
struct vc_journal_visit {
	int (*item)(void *ctx, const struct vc_disk_journal_item *item);
	int (*row)(void *ctx, const uint8_t *key, size_t key_len, const uint8_t *value, size_t len);
	void *ctx;
};
/** Reads the entry again, and checks it again: -EBADMSG if it is no longer what it was. */
int vc_journal_visit(const struct vc_journal_scan *scan, const struct vc_journal_entry *entry,
		     const struct vc_journal_visit *visit) VC_MUST_CHECK;

#endif
