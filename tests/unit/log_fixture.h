/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * log_fixture: what the tests of the log share: a log over any io table, records whose bytes follow from a number, and a model
 * that remembers by LSN what was appended, which replay must hand out again byte by byte.
 */
#ifndef VC_LOG_FIXTURE_H
#define VC_LOG_FIXTURE_H

#include <pthread.h>

#include "io_sim.h"
#include "log.h"

#define FIX_LOG_SEGMENT (128u << 10)
#define FIX_LOG_SEGMENTS 8u
#define FIX_LOG_RECORD_MIN 88u

struct fix_rec {
	uint64_t id;    /* 0: nothing was appended under this LSN */
	size_t len;
	uint64_t addr;
};

struct fix_section {
	struct vc_log_section s;
	bool gone;
	unsigned order;         /* of gone() */
	struct fix_section *next;
};

struct log_fixture {
	struct vc_log_params params;
	struct vc_log_replay how;
	struct vc_log *log;
	pthread_mutex_t lock;           /* of recs, spaces and the ids */
	pthread_cond_t cond;            /* spaces rose */
	unsigned spaces;                /* calls of space() */
	struct fix_rec *recs;           /* by LSN */
	size_t nrecs;
	uint64_t next_id;
	struct fix_section *sections;   /* all, newest first */
	struct fix_section *current;
	unsigned ngone;
	unsigned section_segments;      /* replay begins a new section after so many segments; 0: one section */
	/* of the last replay: */
	uint64_t replayed_from, replayed;   /* first LSN, count */
	unsigned mismatches;                /* records that are not what the model says */
	unsigned nsegments_seen;
	uint64_t refuse_lsn;                /* the record callback returns 1 for it unless it is durable; 0: none */
	uint64_t highest_durable;           /* LSN the callback was told to be durable */
};

/** Directory "/log" of `io` (made by vc_log_create) or `dir`; nothing is open yet. */
void fix_log_init(struct log_fixture *fix, struct vc_io *io, const char *dir);
void fix_log_fini(struct log_fixture *fix);
/** For setup: a log made, and not open, on a new simulated disk; messages are caught. */
struct vc_sim *fix_log_setup_sim(struct log_fixture *fix);
/** For teardown: ends the fixture and frees the disk, NULL if it has none; messages are printed again. */
void fix_log_teardown(struct log_fixture *fix, struct vc_sim *sim);
/** Open and, unless read-only, start. */
int fix_log_open(struct log_fixture *fix) VC_MUST_CHECK;
/** Stop and close as a killed process would: what is in flight must have ended. */
void fix_log_close(struct log_fixture *fix, bool sync);

/**
 * Try to open a copy of the disk in which `spoil` (may be NULL) has done something; returns what opening it gave. The copy is closed and
 * forgotten, what was replayed is told.
 */
int fix_log_open_copy(struct log_fixture *fix, struct vc_sim *sim, void (*spoil)(struct vc_io *io, void *ctx), void *ctx) VC_MUST_CHECK;

/** Path of a slot's file; in a static buffer. */
const char *fix_log_segment_path(uint64_t slot);
/** The slot that holds segment number seq now. */
uint32_t fix_log_slot_of(struct vc_io *io, uint64_t seq);
uint64_t fix_log_addr_seq(uint64_t addr);
uint64_t fix_log_addr_offset(uint64_t addr);

struct vc_log_section *fix_log_section(struct log_fixture *fix);
/** Cut, remembering the new current section; false when there was nothing to cut. */
bool fix_log_cut(struct log_fixture *fix);
/** Release, as vc_log_release. */
void fix_log_release(struct log_fixture *fix, struct vc_log_section *section);

/** Admit, waiting while segments are still being made; -EAGAIN only when the log is really full. */
int fix_log_admit(struct log_fixture *fix, enum vc_log_class class, size_t len) VC_MUST_CHECK;
/** Reserve and fill an admitted record of len bytes (a multiple of 8, at least FIX_LOG_RECORD_MIN); applied. 0 or -EROFS. */
int fix_log_reserve(struct log_fixture *fix, size_t len, struct vc_log_slot *slot) VC_MUST_CHECK;
/** All in one, without completion. Returns the LSN. */
uint64_t fix_log_append(struct log_fixture *fix, size_t len);
/** The bytes of record `id` under `lsn`. */
void fix_log_bytes(uint64_t id, size_t len, uint64_t lsn, uint8_t *dst);
/** Read the record of this LSN back through vc_log_read and compare. */
bool fix_log_reads(struct log_fixture *fix, uint64_t lsn);
/** A random length: mostly small, some with blocks, a few long. */
size_t fix_log_len(uint64_t *seed);

#endif
