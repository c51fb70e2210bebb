/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz the chunk store's reading. A chunk with content made of the input is written; then either bytes of its file are
 * changed, and what is read must be what was written or an error (D5); or a header is forged with the sums right, and
 * whatever it says must be refused or make sense.
 */
#include "config.h"
#include "fuzz.h"

#include "../unit/io_sim.h"
#include "checksum.h"
#include "chunk_impl.h"

#define DIR "/chunk"
#define SEGMENT (512u << 10)
#define FILE_NAME DIR "/00000001.seg"

struct fixture {
	struct vc_sim *sim;
	struct vc_chunk_store *store;
	uint8_t blocks[VC_CHUNK_BLOCKS_MAX * VC_BLOCK_SIZE];
	uint32_t nblocks;
	uint64_t entry, payload_sum;
};

static void fixture_open(struct fixture *f)
{
	struct vc_chunk_params params = { .io = vc_sim_io(f->sim), .dir = DIR, .uuid = "fuzz", .segment_size = SEGMENT,
					  .chunk_blocks = VC_CHUNK_BLOCKS_MAX, .next_segno = 1, .cache_bytes = 1 << 20 };

	fuzz_check(vc_chunk_open(&params, &f->store) == 0);
}

/* Content that compresses when the input says so. */
static void fixture_init(struct fixture *f, struct fuzz_in *in)
{
	uint64_t seed = fuzz_u64(in) | 1;
	uint8_t noise = fuzz_u8(in);

	*f = (struct fixture){ .sim = vc_sim_new() };
	f->nblocks = 1 + (uint32_t)fuzz_below(in, VC_CHUNK_BLOCKS_MAX);
	for (size_t i = 0; i < f->nblocks * VC_BLOCK_SIZE; i += 8) {
		if (i / 8 % 256 < noise)
			seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
		memcpy(f->blocks + i, &seed, sizeof(seed));
	}
	fuzz_check(vc_chunk_create(vc_sim_io(f->sim), DIR) == 0);
	fixture_open(f);
	fuzz_check(vc_chunk_append(f->store, VC_STREAM_DESTAGE, 7, 100, 9, f->blocks, f->nblocks, &f->entry, &f->payload_sum) == 0);
	fuzz_check(vc_chunk_sync(f->store) == 0);
	vc_chunk_close(f->store); /* with its cache */
	fixture_open(f);
}

static void fixture_fini(struct fixture *f)
{
	vc_chunk_close(f->store);
	vc_sim_free(f->sim);
}

/* Bytes of the file, from the beginning of the chunk's header on. */
static void chunk_access(struct fixture *f, uint64_t offset, void *buf, size_t len, bool write)
{
	struct vc_file *file;

	offset += vc_entry_offset(f->entry);
	fuzz_check(vc_io_open(vc_sim_io(f->sim), FILE_NAME, VC_IO_WRITE, &file) == 0);
	if (write)
		fuzz_check(vc_io_pwrite(file, buf, len, offset) == 0);
	else
		fuzz_check(vc_io_pread(file, buf, len, offset) >= 0);
	vc_io_close(file);
}

static bool read_refused(int r) { return r == -EBADMSG || r == -ESTALE || r == -EIO; }

/* Any part of the chunk, read whole or not. */
static void chunk_expect(struct fixture *f, bool damaged)
{
	struct vc_disk_direct item = { .entry = vc_le64_of(f->entry), .payload_sum = vc_le64_of(f->payload_sum),
				       .nblocks = vc_le32_of(f->nblocks) };
	uint8_t buf[VC_CHUNK_BLOCKS_MAX * VC_BLOCK_SIZE];
	uint32_t bytes;
	int r;

	r = vc_chunk_vouch(f->store, &item);
	fuzz_check(r == 0 || (damaged && read_refused(r)));
	r = vc_chunk_stored_size(f->store, f->entry, &bytes);
	fuzz_check(r == 0 || (damaged && read_refused(r)));
	for (uint32_t first = 0; first < f->nblocks; first++) {
		uint32_t n = f->nblocks - first;

		r = vc_chunk_read(f->store, f->entry + first, n, buf);
		fuzz_check(r == 0 || (damaged && read_refused(r)));
		if (r == 0)
			fuzz_check(memcmp(buf, f->blocks + first * VC_BLOCK_SIZE, n * VC_BLOCK_SIZE) == 0);
	}
}

static void chunk_damage(struct fixture *f, struct fuzz_in *in)
{
	struct vc_file *file;
	uint8_t byte;

	chunk_expect(f, false);
	vc_chunk_close(f->store);
	fixture_open(f);
	while (in->left) {
		uint64_t offset = fuzz_below(in, sizeof(struct vc_disk_chunk) + f->nblocks * VC_BLOCK_SIZE);

		chunk_access(f, offset, &byte, 1, false);
		byte ^= fuzz_u8(in);
		chunk_access(f, offset, &byte, 1, true);
		if (in->left == 1) { /* and the file is cut off */
			fuzz_check(vc_io_open(vc_sim_io(f->sim), FILE_NAME, VC_IO_WRITE, &file) == 0);
			fuzz_check(vc_io_truncate(file, vc_entry_offset(f->entry) + offset) == 0);
			vc_io_close(file);
		}
	}
	chunk_expect(f, true);
}

/* A header as the input has it, over the payload that is there or one of the input. Returns the entry that goes with it. */
static uint64_t chunk_forge(struct fixture *f, struct fuzz_in *in, struct vc_disk_chunk *head)
{
	uint8_t how = fuzz_u8(in), payload[VC_CHUNK_BLOCKS_MAX * VC_BLOCK_SIZE] = { 0 };
	uint32_t offset = vc_entry_offset(f->entry), stored;
	const uint8_t *some;
	size_t len;

	chunk_access(f, 0, head, sizeof(*head), false);
	if (how & 1)
		head->codec = fuzz_u8(in) % 4;
	if (how & 2)
		head->nblocks = fuzz_u8(in) % 20;
	if (how & 4)
		head->stored_len = vc_le32_of((uint32_t)fuzz_below(in, 66000));
	if (how & 8)
		head->reserved = vc_le16_of(fuzz_u8(in));
	stored = VC_MIN(vc_le32_get(head->stored_len), (uint32_t)sizeof(payload));
	chunk_access(f, sizeof(*head), payload, stored, false);
	if (how & 16) {
		some = fuzz_some(in, stored, &len);
		if (len)
			memcpy(payload, some, len);
	}
	head->payload_sum = vc_le64_of(vc_sum64(payload, stored, 0));
	head->header_sum = vc_le32_of(vc_chunk_header_sum(head, vc_entry_segno(f->entry), offset));
	chunk_access(f, 0, head, sizeof(*head), true);
	chunk_access(f, sizeof(*head), payload, stored, true);
	return how & 32 ? f->entry : vc_entry_make(vc_entry_segno(f->entry), offset, vc_le32_get(head->stored_len), 0);
}

static void chunk_forged(struct fixture *f, struct fuzz_in *in)
{
	uint8_t buf[VC_CHUNK_BLOCKS_MAX * VC_BLOCK_SIZE];
	struct vc_disk_chunk head;
	uint64_t entry = chunk_forge(f, in, &head);
	struct vc_disk_direct item = { .entry = vc_le64_of(entry), .payload_sum = head.payload_sum,
				       .nblocks = vc_le32_of(head.nblocks) };
	uint32_t bytes;
	int r;

	for (uint32_t first = 0; first < VC_CHUNK_BLOCKS_MAX; first++) {
		r = vc_chunk_read(f->store, entry | first, 1, buf);
		fuzz_check(r == 0 || read_refused(r));
		if (r < 0)
			continue;
		fuzz_check(first < head.nblocks && head.codec < VC_CODEC_END && vc_le16_get(head.reserved) == 0);
		if (head.codec == VC_CODEC_RAW) {
			uint8_t stored[VC_BLOCK_SIZE];

			chunk_access(f, sizeof(head) + first * VC_BLOCK_SIZE, stored, sizeof(stored), false);
			fuzz_check(memcmp(buf, stored, sizeof(stored)) == 0);
		}
	}
	r = vc_chunk_vouch(f->store, &item);
	fuzz_check(r == 0 || read_refused(r));
	if (vc_chunk_stored_size(f->store, entry, &bytes) == 0)
		fuzz_check(bytes >= sizeof(head) && bytes % VC_CHUNK_ALIGN == 0);
}

/* Any number may be asked for as an entry. */
static void chunk_anything(struct fixture *f, struct fuzz_in *in)
{
	uint8_t buf[VC_CHUNK_BLOCKS_MAX * VC_BLOCK_SIZE];
	uint32_t bytes;

	while (in->left) {
		uint64_t entry = fuzz_u64(in) >> fuzz_below(in, 8);
		uint32_t n = fuzz_u8(in) % (VC_CHUNK_BLOCKS_MAX + 2);
		struct vc_disk_direct item = { .entry = vc_le64_of(entry), .nblocks = vc_le32_of(n) };

		if (vc_chunk_read(f->store, entry, n, buf) == 0)
			fuzz_check(vc_entry_chunk(entry) == f->entry && vc_entry_block(entry) + n <= f->nblocks);
		fuzz_check(vc_chunk_vouch(f->store, &item) <= 0);
		if (vc_chunk_stored_size(f->store, entry, &bytes) == 0)
			fuzz_check(vc_entry_chunk(entry) == f->entry);
	}
}

void fuzz_chunk(const uint8_t *data, size_t len)
{
	static struct fixture f;
	struct fuzz_in in = { data, len };
	uint8_t mode = fuzz_u8(&in) % 3;

	fixture_init(&f, &in);
	if (mode == 0)
		chunk_damage(&f, &in);
	else if (mode == 1)
		chunk_forged(&f, &in);
	else
		chunk_anything(&f, &in);
	fixture_fini(&f);
}
