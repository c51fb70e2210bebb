/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "record.h"

#include <stdlib.h>

#include "checksum.h"

#define PAD8(n) VC_ROUND_UP((size_t)(n), (size_t)8)

static const uint8_t zero_pad[8];

void vc_record_init(struct vc_record *rec)
{
	rec->buf = rec->inline_buf;
	rec->cap = sizeof(rec->inline_buf);
	rec->len = sizeof(struct vc_disk_record);
	rec->ext_len = 0;
	rec->next = 0;
	rec->ops = rec->inline_ops;
	rec->ops_cap = VC_ARRAY_LEN(rec->inline_ops);
	rec->nops = 0;
	rec->time_ns = vc_now_ns();
	rec->error = 0;
}

void vc_record_fini(struct vc_record *rec)
{
	if (rec->buf != rec->inline_buf)
		free(rec->buf);
	if (rec->ops != rec->inline_ops)
		free(rec->ops);
}

static int record_grow(struct vc_record *rec, size_t more)
{
	size_t cap = rec->cap;
	uint8_t *buf;

	if (rec->error)
		return rec->error;
	if (rec->len + more <= rec->cap)
		return 0;
	while (cap < rec->len + more)
		cap *= 2;
	buf = rec->buf == rec->inline_buf ? malloc(cap) : realloc(rec->buf, cap);
	if (!buf)
		return rec->error = -ENOMEM;
	if (rec->buf == rec->inline_buf)
		memcpy(buf, rec->inline_buf, rec->len);
	rec->buf = buf;
	rec->cap = cap;
	return 0;
}

static struct vc_op *record_new_op(struct vc_record *rec)
{
	size_t cap = rec->ops_cap * 2;
	struct vc_op *ops;

	if (rec->nops == UINT16_MAX) {
		rec->error = -E2BIG;
		return NULL;
	}
	if (rec->nops == rec->ops_cap) {
		ops = rec->ops == rec->inline_ops ? malloc(cap * sizeof(*ops)) : realloc(rec->ops, cap * sizeof(*ops));
		if (!ops) {
			rec->error = -ENOMEM;
			return NULL;
		}
		if (rec->ops == rec->inline_ops)
			memcpy(ops, rec->inline_ops, rec->nops * sizeof(*ops));
		rec->ops = ops;
		rec->ops_cap = cap;
	}
	return &rec->ops[rec->nops++];
}

static void record_bytes(struct vc_record *rec, const void *data, size_t len)
{
	size_t pad = PAD8(len) - len;

	if (record_grow(rec, len + pad))
		return;
	if (len)
		memcpy(rec->buf + rec->len, data, len);
	memcpy(rec->buf + rec->len + len, zero_pad, pad);
	rec->len += len + pad;
}

/* Appends the op header; payload bytes follow. Pointers into buf are set by vc_record_len: buf may still move. */
static struct vc_op *record_header(struct vc_record *rec, const struct vc_disk_op *disk, size_t payload_len)
{
	struct vc_disk_op d = *disk;
	struct vc_op *op = record_new_op(rec);

	if (!op || payload_len > UINT32_MAX) {
		rec->error = rec->error ? rec->error : -E2BIG;
		return NULL;
	}
	d.payload_len = vc_le32_of((uint32_t)payload_len);
	record_bytes(rec, &d, sizeof(d));
	*op = (struct vc_op){
		.type = d.type, .ino = vc_le64_get(d.ino), .lba = vc_le64_get(d.lba), .nblocks = vc_le64_get(d.nblocks),
		.arg = vc_le64_get(d.arg), .arg2 = vc_le64_get(d.arg2), .payload_len = payload_len,
		.at = rec->len,
	};
	return op;
}

static struct vc_disk_op record_disk_op(enum vc_op_type type, uint64_t ino, uint64_t lba, uint64_t nblocks,
					uint64_t arg, uint64_t arg2)
{
	return (struct vc_disk_op){
		.type = (uint8_t)type, .ino = vc_le64_of(ino), .lba = vc_le64_of(lba), .nblocks = vc_le64_of(nblocks),
		.arg = vc_le64_of(arg), .arg2 = vc_le64_of(arg2),
	};
}

void vc_record_write(struct vc_record *rec, uint64_t ino, uint64_t lba, uint64_t nblocks, const void *data,
		     const uint32_t *sums)
{
	struct vc_disk_op d = record_disk_op(VC_OP_WRITE, ino, lba, nblocks, 0, 0);
	size_t bytes = nblocks * VC_BLOCK_SIZE;

	if (rec->next == VC_RECORD_EXTS) {
		rec->error = -E2BIG;
		return;
	}
	record_header(rec, &d, PAD8(nblocks * sizeof(uint32_t)) + bytes);
	record_bytes(rec, sums, nblocks * sizeof(uint32_t));
	rec->ext[rec->next++] = (struct vc_record_ext){ rec->len, data, bytes };
	rec->ext_len += bytes;
}

void vc_record_op(struct vc_record *rec, enum vc_op_type type, uint64_t ino, uint64_t lba, uint64_t nblocks,
		  uint64_t arg, uint64_t arg2)
{
	struct vc_disk_op d = record_disk_op(type, ino, lba, nblocks, arg, arg2);

	record_header(rec, &d, 0);
}

void vc_record_direct(struct vc_record *rec, uint64_t ino, uint64_t lba, uint64_t nblocks,
		      const struct vc_disk_direct *items, uint32_t n)
{
	struct vc_disk_op d = record_disk_op(VC_OP_DIRECT, ino, lba, nblocks, 0, 0);

	record_header(rec, &d, n * sizeof(*items));
	record_bytes(rec, items, n * sizeof(*items));
}

size_t vc_row_encode(const void *key, size_t key_len, const void *value, size_t value_len, uint8_t *dst)
{
	struct vc_disk_row row = { .key_len = vc_le16_of((uint16_t)key_len), .value_len = vc_le16_of((uint16_t)value_len) };

	memcpy(dst, &row, sizeof(row));
	memcpy(dst + sizeof(row), key, key_len);
	if (value_len)
		memcpy(dst + sizeof(row) + key_len, value, value_len);
	return sizeof(row) + key_len + value_len;
}

int vc_row_decode(const uint8_t *bytes, size_t len, const uint8_t **ret_key, size_t *ret_key_len,
		  const uint8_t **ret_value, size_t *ret_value_len)
{
	struct vc_disk_row row;
	size_t key_len, value_len;

	if (len < sizeof(row))
		return -EUCLEAN;
	memcpy(&row, bytes, sizeof(row));
	key_len = vc_le16_get(row.key_len);
	value_len = vc_le16_get(row.value_len);
	if (key_len == 0 || key_len > VC_ROW_KEY_MAX || value_len > VC_ROW_VALUE_MAX || vc_le32_get(row.reserved) ||
	    sizeof(row) + key_len + value_len != len)
		return -EUCLEAN;
	*ret_key = bytes + sizeof(row);
	*ret_key_len = key_len;
	*ret_value = bytes + sizeof(row) + key_len;
	*ret_value_len = value_len;
	return 0;
}

static void record_row(struct vc_record *rec, enum vc_op_type type, const void *key, size_t key_len, const void *value,
		       size_t value_len)
{
	struct vc_disk_op d = record_disk_op(type, 0, 0, 0, 0, 0);
	uint8_t row[VC_ROW_ENCODED_MAX];
	size_t len = vc_row_encode(key, key_len, value, value_len, row);

	record_header(rec, &d, len);
	record_bytes(rec, row, len);
}

void vc_record_row_put(struct vc_record *rec, const void *key, size_t key_len, const void *value, size_t value_len)
{
	record_row(rec, VC_OP_ROW_PUT, key, key_len, value, value_len);
}

void vc_record_row_del(struct vc_record *rec, const void *key, size_t key_len)
{
	record_row(rec, VC_OP_ROW_DEL, key, key_len, NULL, 0);
}

static void record_op_pointers(struct vc_op *op, const uint8_t *payload, uint64_t record_offset)
{
	op->payload = NULL;
	op->sums = NULL;
	op->data_offset = 0;
	if (op->type == VC_OP_WRITE) {
		op->sums = (const uint32_t *)(const void *)payload;
		op->data_offset = record_offset + PAD8(op->nblocks * sizeof(uint32_t));
	} else if (op->payload_len) {
		op->payload = payload;
	}
}

int64_t vc_record_len(struct vc_record *rec)
{
	size_t before = 0; /* block bytes of earlier ops */

	if (rec->error)
		return rec->error;
	for (size_t i = 0; i < rec->nops; i++) {
		struct vc_op *op = &rec->ops[i];

		record_op_pointers(op, rec->buf + op->at, op->at + before);
		if (op->type == VC_OP_WRITE)
			before += op->nblocks * VC_BLOCK_SIZE;
	}
	return (int64_t)(rec->len + rec->ext_len);
}

/* The sum covers everything but the blocks, which their own sums cover. */
static uint64_t record_sum(const uint8_t *bytes, uint64_t lsn)
{
	struct vc_disk_record hdr;
	size_t pos = sizeof(hdr);
	uint64_t sum;

	memcpy(&hdr, bytes, sizeof(hdr));
	hdr.sum = vc_le64_of(0);
	sum = vc_sum64(&hdr, sizeof(hdr), lsn);
	for (unsigned int i = vc_le16_get(hdr.nops); i > 0; i--) {
		struct vc_disk_op op;
		size_t len, covered;

		memcpy(&op, bytes + pos, sizeof(op));
		len = PAD8(vc_le32_get(op.payload_len));
		covered = op.type == VC_OP_WRITE ? PAD8(vc_le64_get(op.nblocks) * sizeof(uint32_t)) : len;
		sum = vc_sum64(bytes + pos, sizeof(op) + covered, sum);
		pos += sizeof(op) + len;
	}
	return sum;
}

void vc_record_emit(const struct vc_record *rec, uint64_t lsn, uint8_t *dst)
{
	struct vc_disk_record hdr = {
		.len = vc_le32_of((uint32_t)(rec->len + rec->ext_len)),
		.nops = vc_le16_of((uint16_t)rec->nops),
		.time_ns = vc_le64_of(rec->time_ns),
	};
	size_t from = 0;
	uint8_t *to = dst;

	for (unsigned int i = 0; i < rec->next; i++) {
		const struct vc_record_ext *ext = &rec->ext[i];

		memcpy(to, rec->buf + from, ext->at - from);
		memcpy(to + (ext->at - from), ext->data, ext->len);
		to += ext->at - from + ext->len;
		from = ext->at;
	}
	memcpy(to, rec->buf + from, rec->len - from);
	memcpy(dst, &hdr, sizeof(hdr));
	hdr.sum = vc_le64_of(record_sum(dst, lsn));
	memcpy(dst, &hdr, sizeof(hdr));
}

static bool record_range_ok(uint64_t lba, uint64_t nblocks)
{
	return nblocks > 0 && lba < VC_IMAGE_BLOCKS_MAX && nblocks <= VC_IMAGE_BLOCKS_MAX - lba;
}

static int record_check_direct(const struct vc_disk_op *op, const uint8_t *payload, size_t len)
{
	uint64_t blocks = 0;

	if (len == 0 || len % sizeof(struct vc_disk_direct))
		return -EUCLEAN;
	for (size_t at = 0; at < len; at += sizeof(struct vc_disk_direct)) {
		struct vc_disk_direct item;
		uint64_t entry;
		uint32_t n;

		memcpy(&item, payload + at, sizeof(item));
		n = vc_le32_get(item.nblocks);
		entry = vc_le64_get(item.entry);
		if (n == 0 || vc_le32_get(item.reserved) || entry >> VC_ENTRY_BITS ||
		    (entry && (n > VC_CHUNK_BLOCKS_MAX || vc_entry_block(entry) || vc_entry_segno(entry) == 0)))
			return -EUCLEAN;
		blocks += n;
	}
	return blocks == vc_le64_get(op->nblocks) ? 0 : -EUCLEAN;
}

static int record_check_op(const struct vc_disk_op *op, const uint8_t *payload, size_t payload_len)
{
	uint64_t lba = vc_le64_get(op->lba), nblocks = vc_le64_get(op->nblocks);
	const uint8_t *key, *value;
	size_t key_len, value_len;

	if (op->flags || vc_le16_get(op->reserved))
		return -EUCLEAN;
	switch ((enum vc_op_type)op->type) {
	case VC_OP_WRITE:
		return record_range_ok(lba, nblocks) && nblocks <= 65536 &&
			payload_len == PAD8(nblocks * sizeof(uint32_t)) + nblocks * VC_BLOCK_SIZE ? 0 : -EUCLEAN;
	case VC_OP_DIRECT:
		return record_range_ok(lba, nblocks) ? record_check_direct(op, payload, payload_len) : -EUCLEAN;
	case VC_OP_ZERO:
		return record_range_ok(lba, nblocks) && payload_len == 0 ? 0 : -EUCLEAN;
	case VC_OP_CLONE_RANGE:
		return record_range_ok(lba, nblocks) && record_range_ok(vc_le64_get(op->arg2), nblocks) &&
			payload_len == 0 ? 0 : -EUCLEAN;
	case VC_OP_SIZE:
	case VC_OP_GROW:
		return vc_le64_get(op->arg) <= VC_IMAGE_SIZE_MAX && payload_len == 0 ? 0 : -EUCLEAN;
	case VC_OP_CLONE:
		return vc_le64_get(op->arg) != vc_le64_get(op->ino) && payload_len == 0 ? 0 : -EUCLEAN;
	case VC_OP_ROW_PUT:
	case VC_OP_ROW_DEL:
		return vc_row_decode(payload, payload_len, &key, &key_len, &value, &value_len);
	case VC_OP_TYPE_END:
		break;
	}
	return -EUCLEAN;
}

static int record_check_blocks(const uint8_t *payload, uint64_t nblocks)
{
	const uint8_t *data = payload + PAD8(nblocks * sizeof(uint32_t));

	for (uint64_t i = 0; i < nblocks; i++) {
		vc_le32 sum;

		memcpy(&sum, payload + i * sizeof(sum), sizeof(sum));
		if (vc_le32_get(sum) != vc_sum32(data + i * VC_BLOCK_SIZE, VC_BLOCK_SIZE))
			return -EBADMSG;
	}
	return 0;
}

/* Structure first, then the sum, then the blocks: nothing is followed before it was bounded. */
static int record_check_ops(const uint8_t *bytes, size_t len, unsigned int nops, bool check_blocks)
{
	size_t pos = sizeof(struct vc_disk_record);

	for (unsigned int i = 0; i < nops; i++) {
		struct vc_disk_op op;
		size_t payload_len;
		int r;

		if (len - pos < sizeof(op))
			return -EUCLEAN;
		memcpy(&op, bytes + pos, sizeof(op));
		pos += sizeof(op);
		payload_len = vc_le32_get(op.payload_len);
		if (len - pos < PAD8(payload_len))
			return -EUCLEAN;
		r = record_check_op(&op, bytes + pos, payload_len);
		if (r == 0 && check_blocks && op.type == VC_OP_WRITE)
			r = record_check_blocks(bytes + pos, vc_le64_get(op.nblocks));
		if (r < 0)
			return r;
		pos += PAD8(payload_len);
	}
	return pos == len ? 0 : -EUCLEAN;
}

int vc_record_check(const uint8_t *bytes, size_t avail, uint64_t lsn, bool check_blocks, size_t *ret_len)
{
	struct vc_disk_record hdr;
	size_t len;
	int r;

	if (avail < sizeof(hdr))
		return -EUCLEAN;
	memcpy(&hdr, bytes, sizeof(hdr));
	len = vc_le32_get(hdr.len);
	if (len < sizeof(hdr) || len > avail || len % 8 || vc_le16_get(hdr.reserved))
		return -EUCLEAN;
	r = record_check_ops(bytes, len, vc_le16_get(hdr.nops), false);
	if (r < 0)
		return r;
	if (record_sum(bytes, lsn) != vc_le64_get(hdr.sum))
		return -EBADMSG;
	if (check_blocks)
		r = record_check_ops(bytes, len, vc_le16_get(hdr.nops), true);
	if (r == 0)
		*ret_len = len;
	return r;
}

void vc_record_iter_init(struct vc_record_iter *it, const uint8_t *bytes)
{
	struct vc_disk_record hdr;

	memcpy(&hdr, bytes, sizeof(hdr));
	*it = (struct vc_record_iter){ bytes, vc_le32_get(hdr.len), sizeof(hdr), vc_le16_get(hdr.nops) };
}

bool vc_record_iter_next(struct vc_record_iter *it, struct vc_op *ret)
{
	struct vc_disk_op d;

	if (it->left == 0)
		return false;
	it->left--;
	memcpy(&d, it->bytes + it->pos, sizeof(d));
	it->pos += sizeof(d);
	*ret = (struct vc_op){
		.type = (enum vc_op_type)d.type, .ino = vc_le64_get(d.ino), .lba = vc_le64_get(d.lba),
		.nblocks = vc_le64_get(d.nblocks), .arg = vc_le64_get(d.arg), .arg2 = vc_le64_get(d.arg2),
		.payload_len = vc_le32_get(d.payload_len),
	};
	record_op_pointers(ret, it->bytes + it->pos, it->pos);
	it->pos += PAD8(ret->payload_len);
	return true;
}
