/* SPDX-License-Identifier: BSD-2-Clause */
/* Fuzz records of the log: building, emitting, checking, stepping through. */
#include "config.h"
#include "fuzz_record.h"

#include <sys/stat.h>

#include "catalog.h"
#include "checksum.h"

#define RECORD_OPS_MAX 8
#define WRITE_BLOCKS_MAX 8u

/* ---- building ---- */

static uint64_t build_number(struct fuzz_in *in, uint64_t usual)
{
	switch (fuzz_below(in, 8)) {
	case 0: return fuzz_u64(in);
	case 1: return UINT64_C(1) << fuzz_below(in, 64);
	default: return fuzz_below(in, usual);
	}
}

static void build_write(struct fuzz_in *in, uint64_t ino, uint64_t lba, uint8_t *blocks, struct vc_record *rec)
{
	uint32_t n = 1 + (uint32_t)fuzz_below(in, WRITE_BLOCKS_MAX), sums[WRITE_BLOCKS_MAX];
	uint8_t fill = fuzz_u8(in);

	if (rec->next == VC_RECORD_EXTS)
		return;
	blocks += rec->next * WRITE_BLOCKS_MAX * VC_BLOCK_SIZE;
	memset(blocks, fill, n * VC_BLOCK_SIZE);
	for (uint32_t i = 0; i < n; i++)
		sums[i] = vc_sum32(blocks + i * VC_BLOCK_SIZE, VC_BLOCK_SIZE);
	vc_record_write(rec, ino, lba, n, blocks, sums);
}

static void build_direct(struct fuzz_in *in, const struct fuzz_world *world, uint64_t ino, uint64_t lba, struct vc_record *rec)
{
	struct vc_disk_direct items[4];
	uint32_t n = 1 + (uint32_t)fuzz_below(in, 4);
	uint64_t nblocks = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint8_t how = fuzz_u8(in);
		uint32_t blocks = 1 + how / 16;

		items[i] = (struct vc_disk_direct){ .nblocks = vc_le32_of(blocks) };
		if (how % 4 == 0) {
			items[i].entry = vc_le64_of(fuzz_u64(in));
			items[i].payload_sum = vc_le64_of(fuzz_u64(in));
		} else if (how % 4 < 3 && world->nentries) {
			uint64_t which = fuzz_below(in, world->nentries);

			items[i].entry = vc_le64_of(world->entries[which]);
			items[i].payload_sum = vc_le64_of(world->sums[which]);
		}
		nblocks += blocks;
	}
	vc_record_direct(rec, ino, lba, fuzz_below(in, 8) ? nblocks : fuzz_u8(in), items, n);
}

/* A value for rows of this kind: mostly of the right shape. */
static size_t build_value(struct fuzz_in *in, uint8_t kind, uint64_t ino, uint8_t *value)
{
	static const uint32_t types[] = { S_IFREG, S_IFDIR, S_IFLNK, S_IFREG, S_IFCHR, S_IFIFO, S_IFSOCK, 0 };
	const uint8_t *some;
	size_t len;

	if (fuzz_below(in, 4) && (kind == VC_ROW_INODE || kind == VC_ROW_DIRENT)) {
		uint32_t type = types[fuzz_below(in, VC_ARRAY_LEN(types))];
		struct vc_inode_fields f = { .mode = type | 0644, .nlink = (uint32_t)fuzz_below(in, 4), .generation = 1,
					     .size = build_number(in, 1 << 20), .parent = fuzz_below(in, 20), .next_cookie = fuzz_u8(in) };
		struct vc_disk_dirent entry = { .ino = vc_le64_of(ino), .cookie = vc_le64_of(fuzz_below(in, 40)), .type = vc_le32_of(type) };

		if (kind == VC_ROW_INODE)
			vc_row_from_inode(&f, (struct vc_disk_inode *)value);
		else
			memcpy(value, &entry, sizeof(entry));
		return kind == VC_ROW_INODE ? sizeof(struct vc_disk_inode) : sizeof(entry);
	}
	some = fuzz_some(in, fuzz_u8(in), &len);
	if (len)
		memcpy(value, some, len);
	return len;
}

static void build_row(struct fuzz_in *in, const struct fuzz_world *world, bool put, struct vc_record *rec)
{
	static const char kinds[] = "IDLXOIDIDMSEG";
	uint8_t key[VC_ROW_KEY_MAX], value[512], how = fuzz_u8(in);
	uint64_t ino = build_number(in, world->max_ino + 4), other = build_number(in, world->max_ino + 4);
	size_t key_len, len = 0;
	const uint8_t *some;

	key_len = vc_row_key_ino(key, (enum vc_row_kind)kinds[how % (sizeof(kinds) - 1)], ino);
	if (key[0] == VC_ROW_DIRENT || key[0] == VC_ROW_XATTR || how >= 250) {
		some = fuzz_some(in, 1 + fuzz_u8(in) % 8, &len);
		if (len)
			memcpy(key + key_len, some, len);
		key_len += len;
	}
	if (how == 255)
		key_len = 1 + fuzz_below(in, key_len);
	len = build_value(in, key[0], other, value);
	if (put)
		vc_record_row_put(rec, key, key_len, value, len);
	else
		vc_record_row_del(rec, key, key_len);
}

void fuzz_record_build(struct fuzz_in *in, const struct fuzz_world *world, uint8_t *blocks, struct vc_record *rec)
{
	unsigned int nops = (unsigned int)fuzz_below(in, RECORD_OPS_MAX);

	for (unsigned int i = 0; i <= nops; i++) {
		uint8_t type = (uint8_t)(1 + fuzz_below(in, 9));
		uint64_t ino, lba;

		if (type == VC_OP_ROW_PUT || type == VC_OP_ROW_DEL) {
			build_row(in, world, type == VC_OP_ROW_PUT, rec);
			continue;
		}
		ino = build_number(in, world->max_ino + 4);
		lba = build_number(in, 300);
		if (type == VC_OP_WRITE)
			build_write(in, ino, lba, blocks, rec);
		else if (type == VC_OP_DIRECT)
			build_direct(in, world, ino, lba, rec);
		else if (type == VC_OP_SIZE || type == VC_OP_GROW)
			vc_record_op(rec, (enum vc_op_type)type, ino, 0, 0, build_number(in, 2 << 20), 0);
		else if (type == VC_OP_CLONE)
			vc_record_op(rec, VC_OP_CLONE, ino, 0, 0, build_number(in, world->max_ino + 4), 0);
		else
			vc_record_op(rec, (enum vc_op_type)type, ino, lba, build_number(in, 300), build_number(in, world->max_ino + 4),
				     build_number(in, 300));
	}
}

/* ---- the target ---- */

/* What was built is what is read. */
static void record_compare(const struct vc_record *rec, const uint8_t *bytes, size_t len)
{
	struct vc_record_iter it;
	struct vc_op op;
	size_t n = 0;

	vc_record_iter_init(&it, bytes);
	for (; vc_record_iter_next(&it, &op); n++) {
		const struct vc_op *want = &rec->ops[n];

		fuzz_check(n < rec->nops && op.type == want->type && op.ino == want->ino && op.lba == want->lba &&
			   op.nblocks == want->nblocks && op.arg == want->arg && op.arg2 == want->arg2 &&
			   op.payload_len == want->payload_len && op.data_offset == want->data_offset);
		if (op.payload)
			fuzz_check(memcmp(op.payload, want->payload, op.payload_len) == 0);
		if (op.type == VC_OP_WRITE)
			fuzz_check(op.data_offset + op.nblocks * VC_BLOCK_SIZE <= len && vc_le32_get((vc_le32){ op.sums[0] }) ==
				   vc_sum32(bytes + op.data_offset, VC_BLOCK_SIZE));
	}
	fuzz_check(n == rec->nops);
}

static void record_built(struct fuzz_in *in)
{
	static uint8_t blocks[VC_RECORD_EXTS * WRITE_BLOCKS_MAX * VC_BLOCK_SIZE];
	struct fuzz_world world = { .max_ino = 10 };
	uint64_t lsn = fuzz_u8(in), at;
	struct vc_record rec;
	uint8_t *bytes;
	size_t got;
	int64_t len;
	int r;

	at = fuzz_u64(in);
	vc_record_init(&rec);
	fuzz_record_build(in, &world, blocks, &rec);
	len = vc_record_len(&rec);
	fuzz_check(len > 0 && len % 8 == 0);
	bytes = malloc((size_t)len);
	fuzz_check(bytes);
	vc_record_emit(&rec, lsn, bytes);
	r = vc_record_check(bytes, (size_t)len, lsn, true, &got);
	fuzz_check(r == 0 || r == -EUCLEAN);
	if (r == 0) {
		fuzz_check(got == (size_t)len);
		record_compare(&rec, bytes, got);
		fuzz_check(vc_record_check(bytes, (size_t)len, lsn + 1, true, &got) < 0);
		fuzz_check(vc_record_check(bytes, (size_t)len - 1, lsn, true, &got) < 0);
		bytes[at / 8 % (size_t)len] ^= (uint8_t)(1u << at % 8);
		fuzz_check(vc_record_check(bytes, (size_t)len, lsn, true, &got) < 0);
	}
	free(bytes);
	vc_record_fini(&rec);
}

void fuzz_record(const uint8_t *data, size_t len)
{
	struct fuzz_in in = { data, len };
	size_t got;

	if (fuzz_u8(&in) % 4)
		record_built(&in);
	else if (vc_record_check(in.p, in.left, 1, true, &got) == 0)
		fuzz_check(got <= in.left);
}
