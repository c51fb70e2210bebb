/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * record: building and parsing log records.
 *
 * A record under construction keeps its ops twice: encoded (what the log stores) and decoded (struct vc_op, what is applied
 * to memory), so that a live operation and a replayed one are applied by the same code. Block payloads are not copied into
 * the record: they are referenced and copied once, by vc_record_emit, into the log's batch.
 *
 * Errors while building are remembered in `error` and looked at once, in vc_record_len.
 */
#ifndef VC_RECORD_H
#define VC_RECORD_H

#include "format.h"

/** One decoded op. Pointers lead into the record being built or parsed. */
struct vc_op {
	enum vc_op_type type;
	uint64_t ino, lba, nblocks, arg, arg2;
	const uint8_t *payload; /* ROW_*: the row; DIRECT: the items; otherwise NULL */
	size_t payload_len;
	const uint32_t *sums;   /* WRITE: little-endian block sums */
	uint64_t data_offset;   /* WRITE: offset of the first block within the record */
	size_t at;              /* of the payload in struct vc_record.buf, while building */
};

struct vc_record_ext {
	size_t at;        /* offset in buf before which these bytes belong */
	const void *data;
	size_t len;
};

#define VC_RECORD_EXTS 4

struct vc_record {
	uint8_t inline_buf[1536];
	uint8_t *buf;            /* everything but block payloads */
	size_t len, cap;
	size_t ext_len;          /* bytes of all ext */
	struct vc_record_ext ext[VC_RECORD_EXTS];
	unsigned int next;       /* used ext */
	struct vc_op inline_ops[8];
	struct vc_op *ops;
	size_t nops, ops_cap;
	uint64_t time_ns;
	int error;
};

/** Start an empty record stamped with the current time. */
void vc_record_init(struct vc_record *rec);
void vc_record_fini(struct vc_record *rec);

/** Blocks `data` (nblocks * 4 KiB, alive until emit) at lba; sums[nblocks] are vc_sum32 of each (copied). At most VC_RECORD_EXTS per record. */
void vc_record_write(struct vc_record *rec, uint64_t ino, uint64_t lba, uint64_t nblocks, const void *data,
		     const uint32_t *sums);
/** An op without payload. */
void vc_record_op(struct vc_record *rec, enum vc_op_type type, uint64_t ino, uint64_t lba, uint64_t nblocks,
		  uint64_t arg, uint64_t arg2);
void vc_record_direct(struct vc_record *rec, uint64_t ino, uint64_t lba, uint64_t nblocks,
		      const struct vc_disk_direct *items, uint32_t n);
void vc_record_row_put(struct vc_record *rec, const void *key, size_t key_len, const void *value, size_t value_len);
void vc_record_row_del(struct vc_record *rec, const void *key, size_t key_len);

/** Bytes the finished record takes in the log; -ENOMEM or -E2BIG if building failed. Fixes the ops' pointers: call before applying. */
int64_t vc_record_len(struct vc_record *rec) VC_MUST_CHECK;
/** Write the record, `len` bytes as vc_record_len said, to dst; the sum is seeded with its LSN. */
void vc_record_emit(const struct vc_record *rec, uint64_t lsn, uint8_t *dst);

/** Encode one row as the payload of a ROW op into dst (room for VC_ROW_ENCODED_MAX); returns its length. Also used by the journal. */
#define VC_ROW_ENCODED_MAX (sizeof(struct vc_disk_row) + VC_ROW_KEY_MAX + VC_ROW_VALUE_MAX)
size_t vc_row_encode(const void *key, size_t key_len, const void *value, size_t value_len, uint8_t *dst);
/** Decode and validate one encoded row. 0 or -EUCLEAN. */
int vc_row_decode(const uint8_t *row, size_t len, const uint8_t **ret_key, size_t *ret_key_len,
		  const uint8_t **ret_value, size_t *ret_value_len) VC_MUST_CHECK;

/**
 * Check a record of untrusted bytes: lengths, ops, reserved fields, its sum and (with `check_blocks`) every block sum. 0, -EBADMSG (sum), -EUCLEAN.
 */
int vc_record_check(const uint8_t *bytes, size_t avail, uint64_t lsn, bool check_blocks, size_t *ret_len) VC_MUST_CHECK;

/** Steps through a checked record. */
struct vc_record_iter {
	const uint8_t *bytes;
	size_t len, pos;
	unsigned int left;
};
void vc_record_iter_init(struct vc_record_iter *it, const uint8_t *bytes);
/** Returns false after the last op. */
bool vc_record_iter_next(struct vc_record_iter *it, struct vc_op *ret);

#endif
