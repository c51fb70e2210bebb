/* SPDX-License-Identifier: BSD-2-Clause */
/* log_impl: what the files of the log share. */
#ifndef VC_LOG_IMPL_H
#define VC_LOG_IMPL_H

#include "lock.h"
#include "log.h"

/* Below this a batch's memory is not worth giving back; above it a batch is closed to newcomers. */
#define LOG_BATCH_BYTES (1u << 20)
/* Of the page cache below; another size there costs only speed. */
#define LOG_PAGE 4096u
/* Written to the page cache and not pushed out yet: at most about this. */
#define LOG_PUSH_BYTES (512u << 10)
/* A segment never kept for data, so that a cut, which loses the rest of a segment, cannot eat what was admitted. */
#define LOG_HIDDEN_SEGMENTS 1u
/* Segments that data leaves to metadata. */
#define LOG_META_SEGMENTS 1u

struct log_segment {
	struct vc_file *file;
	uint64_t seq;          /* 0: free */
	uint64_t salt;
	bool dirty;            /* written since the last sync began; under the log lock */
	struct log_segment *next_free;
};

/*
 * One batch. States: open (at the tail of the queue, takes records), sealed (takes no more), written (gone). Only the head of the
 * queue is written, and only when nfilling is 0.
 */
struct vc_log_batch {
	struct vc_log_batch *next;
	struct log_segment *segment;
	uint64_t offset;       /* of the batch header in the segment */
	bool opens_segment;    /* the segment header is written before it */
	bool sealed;
	uint64_t epoch;
	uint64_t first_lsn;
	uint32_t nrecords;
	uint32_t nfilling;
	size_t len, cap;       /* bytes of buf used (header included), allocated */
	uint8_t *buf;
	struct vc_done *done_head, **done_tail; /* called when written */
};

struct vc_log {
	struct vc_log_params p;
	char *dir;
	bool read_only;
	struct vc_mutex lock;       /* all below, unless noted */
	struct vc_cond written_cond;/* written_addr or written_lsn rose, or failed */
	struct vc_cond sync_cond;   /* work for the sync thread */
	struct vc_cond prep_cond;   /* work for the preparing thread */
	struct vc_cond applied_cond;

	uint64_t epoch;
	uint64_t last_lsn;          /* last assigned */
	uint64_t written_lsn;
	uint64_t durable_lsn;
	_Atomic uint64_t written_addr; /* all bytes below are in the page cache; read without the lock */
	uint64_t chain;             /* hash of the last batch written; writer only */
	uint64_t pushed;            /* offset in the tail segment up to which writing out was started; writer only */
	uint64_t next_seq;

	struct log_segment *segments;  /* nsegments slots; file NULL: not made yet */
	uint32_t nmade;
	struct log_segment **ring;     /* seq % nsegments -> slot, of segments in use */
	struct log_segment *free_list;
	uint32_t nfree;
	struct log_segment *tail;      /* segment of the last batch, NULL: the next batch opens one */
	uint64_t tail_offset;          /* end of the last batch in it */

	struct vc_log_batch *head, *open; /* queue; open is its last, or NULL */
	bool writing;
	struct vc_log_batch *spare;

	int64_t admitted;              /* cost of admitted records not yet reserved */
	bool starved;                  /* an admission was refused since a segment was made, or tried in vain */
	int prep_error;                /* why the last try to make a segment failed: -ENOSPC or -EIO; 0 when one succeeded */
	struct vc_log_section *oldest, *current;

	struct vc_done *flushes, **flush_tail; /* `at`: up to which LSN */
	bool syncing;                  /* a thread is syncing: nobody else does */
	bool *syncs;                   /* nsegments; of that thread */
	int failed;                    /* -EIO, once */
	bool stopping, started;
	pthread_t sync_thread, prep_thread;
};

/* log_segment.c */
/* Make the file of `slot`, durable with its name, and put it on the free list. Takes the log lock for that. 0, -ENOSPC, -errno. */
int log_segment_make(struct vc_log *log, uint32_t slot);
void log_segment_header(const struct vc_log *log, const struct log_segment *segment, uint64_t first_lsn,
			uint64_t prev_hash, struct vc_disk_log_segment *ret);
int log_segment_check(const struct vc_log *log, const struct vc_disk_log_segment *h);
char *log_segment_path(const struct vc_log *log, uint32_t slot);
void *log_prepare_thread(void *arg);
/* log_replay.c */
int log_replay(struct vc_log *log, const struct vc_log_replay *replay);
/* log_write.c */
void *log_sync_thread(void *arg);
void log_fail_locked(struct vc_log *log, int error);
int64_t log_free_locked(const struct vc_log *log);
bool log_needs_tail_locked(const struct vc_log *log);
bool log_is_idle_locked(const struct vc_log *log);

#endif
