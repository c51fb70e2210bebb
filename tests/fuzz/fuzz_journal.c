/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz the reader of the destage journal, which rebuilds LMDB: files with right sums whose entries say anything, with and without
 * damage behind the sums. What is found lies inside its file, is what was written, and leads forwards.
 */
#include "config.h"
#include "fuzz.h"

#include "../unit/io_sim.h"
#include "checksum.h"
#include "journal_read.h"
#include "record.h"

#define POOL "/pool"
#define FILES_MAX 3
#define FILE_BYTES 65536u

static const uint8_t uuid[16] = "fuzz";

struct journal_bytes {
	uint8_t v[FILE_BYTES];
	size_t len;
};

static void put(struct journal_bytes *b, const void *data, size_t len)
{
	if (!len || b->len + len > sizeof(b->v))
		return;
	memcpy(b->v + b->len, data, len);
	b->len += len;
}

static void put_item(struct fuzz_in *in, struct journal_bytes *b)
{
	struct vc_disk_journal_item item = {
		.kind = vc_le32_of((uint32_t)fuzz_below(in, VC_JOURNAL_KIND_END + 1)), .reserved = vc_le32_of(fuzz_u8(in) == 255),
		.lba = vc_le64_of(fuzz_u8(in)), .nblocks = vc_le64_of(fuzz_u8(in)), .value = vc_le64_of(fuzz_u64(in)),
		.ref = vc_le64_of(fuzz_u8(in)),
	};

	put(b, &item, sizeof(item));
}

static void put_row(struct fuzz_in *in, struct journal_bytes *b)
{
	static const uint8_t zeros[8];
	uint8_t row[VC_ROW_ENCODED_MAX], how = fuzz_u8(in);
	size_t key_len, value_len, len;
	const uint8_t *key = fuzz_some(in, how % 16, &key_len), *value = fuzz_some(in, fuzz_u8(in), &value_len);
	vc_le32 head[2];

	len = vc_row_encode(key_len ? (const void *)key : "", key_len, value, value_len, row);
	if (how >= 240) /* the row does not have the length it says */
		len = fuzz_below(in, sizeof(row));
	head[0] = vc_le32_of((uint32_t)len);
	head[1] = vc_le32_of(how / 16 % 2 + (how == 255));
	put(b, head, sizeof(head));
	put(b, row, VC_MIN(len, sizeof(row)));
	put(b, zeros, VC_ROUND_UP(len, (size_t)8) - len);
}

static void put_entry(struct fuzz_in *in, struct journal_bytes *b)
{
	struct vc_disk_journal_entry e = { .magic = vc_le64_of(VC_MAGIC_JOURNAL) };
	uint8_t nitems = fuzz_u8(in) % 8, nrows = fuzz_u8(in) % 8, how = fuzz_u8(in);
	size_t start = b->len;

	put(b, &e, sizeof(e));
	for (uint8_t i = 0; i < nitems; i++)
		put_item(in, b);
	for (uint8_t i = 0; i < nrows; i++)
		put_row(in, b);
	if (b->len < start + sizeof(e))
		return;
	e.prev_lsn = vc_le64_of(fuzz_u8(in));
	e.checkpoint_lsn = vc_le64_of(vc_le64_get(e.prev_lsn) + fuzz_u8(in) - (how == 255) * 300u);
	e.nitems = vc_le64_of(how == 254 ? fuzz_u64(in) : nitems);
	e.nrows = vc_le64_of(how == 253 ? fuzz_u64(in) : nrows);
	e.len = vc_le64_of(how == 252 ? fuzz_u64(in) : b->len - start);
	memcpy(b->v + start, &e, sizeof(e));
	e.sum = vc_le64_of(vc_sum64(b->v + start, b->len - start, 0));
	memcpy(b->v + start, &e, sizeof(e));
}

static void make_file(struct fuzz_in *in, struct vc_io *io)
{
	static struct journal_bytes b;
	struct vc_disk_journal_segment head = { .magic = vc_le64_of(VC_MAGIC_JOURNAL) };
	uint64_t first = fuzz_u8(in);
	char path[64];
	struct vc_file *file;
	uint8_t damage;

	memcpy(head.uuid, uuid, sizeof(uuid));
	head.seq = head.first_checkpoint = vc_le64_of(first);
	head.sum = vc_le64_of(vc_sum64(&head, offsetof(struct vc_disk_journal_segment, sum), 0));
	b.len = 0;
	put(&b, &head, sizeof(head));
	for (uint8_t n = fuzz_u8(in) % 6; n > 0; n--)
		put_entry(in, &b);
	for (damage = fuzz_u8(in); damage > 250; damage--)
		b.v[fuzz_below(in, b.len)] ^= fuzz_u8(in);
	snprintf(path, sizeof(path), POOL "/journal/%016llx.jnl", (unsigned long long)first);
	fuzz_check(vc_io_open(io, path, VC_IO_WRITE | VC_IO_CREATE, &file) == 0);
	fuzz_check(vc_io_pwrite(file, b.v, damage == 250 ? b.len / 2 : b.len, 0) == 0);
	vc_io_close(file);
}

static int visit_item(void *ctx, const struct vc_disk_journal_item *item)
{
	uint64_t *n = ctx;
	uint32_t kind = vc_le32_get(item->kind);

	fuzz_check(kind >= VC_JOURNAL_BASE && kind < VC_JOURNAL_KIND_END);
	(*n)++;
	return 0;
}

static int visit_row(void *ctx, const uint8_t *key, size_t key_len, const uint8_t *value, size_t len)
{
	uint64_t *n = ctx;

	fuzz_check(key_len >= 9 && key_len <= VC_ROW_KEY_MAX && key[0] != VC_ROW_STATE && (!value || len <= VC_ROW_VALUE_MAX));
	(*n)++;
	return 0;
}

void fuzz_journal(const uint8_t *data, size_t len)
{
	struct fuzz_in in = { data, len };
	struct vc_sim *sim = vc_sim_new();
	struct vc_journal_scan scan;
	uint64_t n = 0;
	struct vc_journal_visit visit = { .item = visit_item, .row = visit_row, .ctx = &n };

	fuzz_check(vc_io_mkdir(vc_sim_io(sim), POOL) == 0 && vc_io_mkdir(vc_sim_io(sim), POOL "/journal") == 0);
	for (uint8_t files = 1 + fuzz_u8(&in) % FILES_MAX; files > 0; files--)
		make_file(&in, vc_sim_io(sim));
	if (vc_journal_scan(vc_sim_io(sim), POOL, uuid, &scan) == 0) {
		for (size_t i = 0; i < scan.nentries; i++) {
			const struct vc_journal_entry *e = &scan.entries[i], *next = vc_journal_after(&scan, e->prev_lsn);

			fuzz_check(e->file < scan.nfiles && e->checkpoint_lsn > e->prev_lsn);
			fuzz_check(next && next->prev_lsn == e->prev_lsn && next->order >= e->order);
			fuzz_check(vc_journal_visit(&scan, e, &visit) == 0);
		}
		fuzz_check(n <= len);
	}
	vc_journal_scan_fini(&scan);
	vc_sim_free(sim);
}
