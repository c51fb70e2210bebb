/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chunk_read: fetch a chunk, believe nothing, expand it.
 *
 * The map entry says how much to read at most, so that one read brings header and payload. What was read is believed when
 * the header's checksum fits its content *and its address*, the UUID is the pool's, every field is possible, the
 * length is the one the map entry was made from, and the payload fits its checksum (C2). The padding is not looked at.
 *
 * A chunk that is not in the cache is read past the page cache the first time: it will lie in ours, and pages are not cheap to find,
 * to fill and to take back. When it is missed again soon, our cache is too small for what is being worked with, and it goes through the
 * page cache. What is read past it and is not right is read again the usual way before anybody says so.
 *
 * Chunks are expanded whole into the cache under the entry of their first block. A chunk of a segment that has been
 * removed may be answered from there: addresses are never used twice, so it is still the right content.
 */
#include "config.h"
#include "chunk_impl.h"

#include <inttypes.h>
#include <stdlib.h>

#include "checksum.h"
#include "codec.h"
#include "msg.h"

#define READ_IMPOSSIBLE "the map names an impossible address"
#define READ_NOT_EXPANDED "it does not expand to its length"

/* What one read brought in. */
struct chunk_raw {
	struct vc_disk_chunk head;
	uint8_t *payload;
	void *mem;        /* payload, when it is to be freed */
	size_t room;      /* bytes payload has place for */
	size_t got;       /* bytes that were there, header included */
};

uint32_t vc_chunk_header_sum(const struct vc_disk_chunk *head, uint64_t segno, uint32_t offset)
{
	struct vc_disk_chunk copy = *head;

	copy.header_sum = vc_le32_of(0);
	return (uint32_t)vc_sum64(&copy, sizeof(copy), segno << 32 | offset);
}

/* ---- verification: each says what is wrong, or NULL ---- */

const char *vc_chunk_entry_wrong(uint64_t entry)
{
	if (entry >> (VC_ENTRY_BITS - 1) != 0 || vc_entry_segno(entry) == 0 ||
	    vc_entry_offset(entry) < VC_CHUNK_SEGMENT_HEADER)
		return READ_IMPOSSIBLE;
	return NULL;
}

bool vc_chunk_lengths_ok(const struct vc_disk_chunk *head)
{
	uint32_t stored = vc_le32_get(head->stored_len), len = head->nblocks * VC_BLOCK_SIZE;

	if (head->nblocks < 1 || head->nblocks > VC_CHUNK_BLOCKS_MAX)
		return false;
	if (head->codec == VC_CODEC_RAW)
		return stored == len;
	return stored > 0 && stored < len;
}

static const char *read_head_wrong(const struct vc_chunk_store *store, uint64_t entry, const struct chunk_raw *raw)
{
	const struct vc_disk_chunk *head = &raw->head;
	uint64_t segno = vc_entry_segno(entry);
	uint32_t offset = vc_entry_offset(entry);

	if (raw->got < sizeof(*head))
		return "the file ends before it";
	if (vc_le32_get(head->magic) != VC_MAGIC_CHUNK)
		return "no chunk begins here";
	if (vc_le32_get(head->header_sum) != vc_chunk_header_sum(head, segno, offset))
		return "the header's checksum does not match";
	if (memcmp(head->uuid, store->uuid, sizeof(head->uuid)) != 0)
		return "it belongs to another pool";
	if (head->codec >= VC_CODEC_END || vc_le16_get(head->reserved) != 0 || !vc_chunk_lengths_ok(head))
		return "its header is impossible";
	if (vc_entry_make(segno, offset, vc_le32_get(head->stored_len), 0) != vc_entry_chunk(entry))
		return "its length is not what the map says";
	return NULL;
}

static const char *read_payload_wrong(const struct chunk_raw *raw)
{
	uint32_t stored = vc_le32_get(raw->head.stored_len);

	if (raw->got < sizeof(raw->head) + stored)
		return "the file ends inside it";
	if (vc_sum64(raw->payload, stored, 0) != vc_le64_get(raw->head.payload_sum))
		return "its content's checksum does not match";
	return NULL;
}

static const char *read_wrong(const struct vc_chunk_store *store, uint64_t entry, const struct chunk_raw *raw)
{
	const char *why = read_head_wrong(store, entry, raw);

	return why ? why : read_payload_wrong(raw);
}

int vc_chunk_corrupt(const struct vc_chunk_store *store, uint64_t entry, const char *why)
{
	vc_err("%s/%08" PRIx64 ".seg: chunk at offset %" PRIu32 " is corrupt: %s", store->dir, vc_entry_segno(entry),
	       vc_entry_offset(entry), why);
	return -EBADMSG;
}

const char *vc_chunk_want_wrong(const struct vc_chunk_want *want)
{
	if (want->nblocks < 1 || want->nblocks > VC_CHUNK_BLOCKS_MAX)
		return READ_IMPOSSIBLE;
	return vc_chunk_entry_wrong(want->entry);
}

static const char *read_wrong_bytes(const struct vc_chunk_store *store, uint64_t entry, const uint8_t *bytes, size_t len)
{
	struct chunk_raw raw = { .got = len };

	memcpy(&raw.head, bytes, VC_MIN(len, sizeof(raw.head)));
	raw.payload = (uint8_t *)(uintptr_t)bytes + sizeof(raw.head);
	return read_wrong(store, entry, &raw);
}

/* ---- fetching ---- */

static int read_fetch(struct vc_chunk_store *store, uint64_t entry, struct chunk_raw *raw)
{
	struct iovec iov[2] = { { &raw->head, sizeof(raw->head) }, { raw->payload, raw->room } };
	struct chunk_segment *seg;
	ssize_t n;
	int r = vc_chunk_segment_get(store, vc_entry_segno(entry), &seg);

	if (r < 0)
		return r;
	n = vc_io_preadv(seg->file, iov, raw->room ? 2 : 1, vc_entry_offset(entry));
	vc_chunk_segment_put(store, seg);
	if (n < 0)
		return (int)n;
	raw->got = (size_t)n;
	return 0;
}

bool vc_chunk_missed_before(struct vc_chunk_store *store, uint64_t entry)
{
	uint64_t hash = entry * UINT64_C(0x9e3779b97f4a7c15);
	_Atomic uint32_t *slot = &store->missed[hash >> (64 - store->missed_bits)];
	uint32_t print = (uint32_t)(hash >> (32 - store->missed_bits)) | 1;

	return atomic_exchange_explicit(slot, print, memory_order_relaxed) == print;
}

static ssize_t read_past(struct vc_chunk_store *store, uint64_t entry, uint8_t *buf, uint64_t from, uint64_t to)
{
	struct chunk_segment *seg;
	ssize_t n;
	int r = vc_chunk_segment_get(store, vc_entry_segno(entry), &seg);

	if (r < 0)
		return r;
	n = vc_io_pread_past(seg->file, buf, to - from, from);
	vc_chunk_segment_put(store, seg);
	return n;
}

/*
 * Read and verify a whole chunk past the page cache into a buffer of VC_CHUNK_PAST_MAX aligned bytes, where the payload stays. 0, -EAGAIN: read it
 * the usual way, for whatever reason, -errno: it has no file.
 */
static int read_verified_past(struct vc_chunk_store *store, uint64_t entry, uint8_t *buf, struct chunk_raw *raw)
{
	uint64_t offset = vc_entry_offset(entry), from = vc_chunk_past_from(entry);
	ssize_t n;

	if (vc_chunk_entry_wrong(entry) || vc_chunk_missed_before(store, entry))
		return -EAGAIN;
	n = read_past(store, entry, buf, from, vc_chunk_past_to(entry));
	if (n < 0)
		return (int)n;
	if ((size_t)n < offset - from + sizeof(raw->head))
		return -EAGAIN;
	raw->got = VC_MIN((size_t)n - (size_t)(offset - from), (size_t)vc_entry_read_len(entry));
	memcpy(&raw->head, buf + (offset - from), sizeof(raw->head));
	raw->payload = buf + (offset - from) + sizeof(raw->head);
	return read_wrong(store, entry, raw) ? -EAGAIN : 0;
}

/* Read and verify a whole chunk. When it is corrupt: -EBADMSG and *ret_why. The caller frees raw->mem. */
static int read_verified(struct vc_chunk_store *store, uint64_t entry, struct chunk_raw *raw, const char **ret_why)
{
	int r;

	*ret_why = vc_chunk_entry_wrong(entry);
	if (*ret_why)
		return -EBADMSG;
	raw->room = vc_entry_read_len(entry) - sizeof(raw->head);
	raw->mem = malloc(raw->room);
	if (!raw->mem)
		return -ENOMEM;
	raw->payload = raw->mem;
	r = read_fetch(store, entry, raw);
	if (r < 0)
		return r;
	*ret_why = read_wrong(store, entry, raw);
	return *ret_why ? -EBADMSG : 0;
}

static int read_expand_to(const struct vc_disk_chunk *head, const uint8_t *payload, void **ret_buf, size_t *ret_len)
{
	size_t len = head->nblocks * (size_t)VC_BLOCK_SIZE;
	void *buf = malloc(len);
	int r = buf ? vc_codec_expand(head->codec, payload, vc_le32_get(head->stored_len), buf, len) : -ENOMEM;

	if (r < 0) {
		free(buf);
		return r;
	}
	*ret_buf = buf;
	*ret_len = len;
	return 0;
}

int vc_chunk_unpack(const struct vc_chunk_store *store, uint64_t entry, const uint8_t *bytes, size_t len, void **ret_buf, size_t *ret_len,
		    const char **ret_why)
{
	struct vc_disk_chunk head;
	int r;

	*ret_why = read_wrong_bytes(store, entry, bytes, len);
	if (*ret_why)
		return -EBADMSG;
	memcpy(&head, bytes, sizeof(head));
	r = read_expand_to(&head, bytes + sizeof(head), ret_buf, ret_len);
	if (r == -EBADMSG || r == -ENOTSUP)
		*ret_why = READ_NOT_EXPANDED;
	return r;
}

/* A raw payload with nothing before it is handed on as it is: room for a hint of whole KiB is room for whole blocks. */
static int read_expand(struct chunk_raw *raw, void **ret_buf, size_t *ret_len)
{
	if (raw->head.codec != VC_CODEC_RAW || raw->payload != raw->mem)
		return read_expand_to(&raw->head, raw->payload, ret_buf, ret_len);
	*ret_buf = raw->mem;
	*ret_len = raw->head.nblocks * (size_t)VC_BLOCK_SIZE;
	raw->mem = NULL;
	return 0;
}

int vc_chunk_load(void *ctx, uint64_t key, void **ret_buf, size_t *ret_len)
{
	struct vc_chunk_store *store = ctx;
	/* On the stack: memory that is already there and warm. */
	_Alignas(VC_IO_PAST_ALIGN) uint8_t buf[VC_CHUNK_PAST_MAX];
	struct chunk_raw raw = { .mem = NULL };
	const char *why = NULL;
	int r = read_verified_past(store, key, buf, &raw);

	if (r == -EAGAIN)
		r = read_verified(store, key, &raw, &why);
	if (r == 0) {
		r = read_expand(&raw, ret_buf, ret_len);
		if (r == -EBADMSG || r == -ENOTSUP)
			why = READ_NOT_EXPANDED;
	}
	if (why)
		r = vc_chunk_corrupt(store, key, why);
	free(raw.mem);
	return r;
}

int vc_chunk_deliver(struct vc_chunk_store *store, const struct vc_chunk_want *want, struct vc_cache_ref *ref)
{
	size_t at = vc_entry_block(want->entry) * (size_t)VC_BLOCK_SIZE, len = want->nblocks * (size_t)VC_BLOCK_SIZE;
	int r = 0;

	if (at + len > ref->len) {
		r = vc_chunk_corrupt(store, want->entry, "it is shorter than the map says");
	} else if (want->ref) {
		*want->ref = *ref;
		return 0;
	} else {
		memcpy(want->buf, (const uint8_t *)ref->data + at, len);
	}
	vc_cache_put(store->cache, ref);
	return r;
}

void vc_chunk_put(struct vc_chunk_store *store, struct vc_cache_ref *ref) { vc_cache_put(store->cache, ref); }

int vc_chunk_read_want(struct vc_chunk_store *store, const struct vc_chunk_want *want)
{
	struct vc_cache_ref ref;
	const char *why = vc_chunk_want_wrong(want);
	int r;

	if (why)
		return vc_chunk_corrupt(store, want->entry, why);
	r = vc_cache_get(store->cache, vc_entry_chunk(want->entry), vc_chunk_load, store, &ref);
	return r < 0 ? r : vc_chunk_deliver(store, want, &ref);
}

int vc_chunk_read(struct vc_chunk_store *store, uint64_t entry, uint32_t nblocks, void *buf)
{
	const struct vc_chunk_want want = { .entry = entry, .nblocks = nblocks, .buf = buf };

	return vc_chunk_read_want(store, &want);
}

int vc_chunk_vouch(struct vc_chunk_store *store, const struct vc_disk_direct *item)
{
	struct chunk_raw raw = { .mem = NULL };
	uint64_t entry = vc_le64_get(item->entry);
	const char *why;
	int r;

	if (entry == VC_ENTRY_HOLE)
		return 0;
	if (vc_entry_block(entry) != 0)
		return -EBADMSG;
	r = read_verified(store, entry, &raw, &why);
	if (r == 0 && (vc_le64_get(raw.head.payload_sum) != vc_le64_get(item->payload_sum) ||
		       raw.head.nblocks != vc_le32_get(item->nblocks)))
		r = -EBADMSG;
	free(raw.mem);
	return r == -ESTALE ? -EBADMSG : r;
}

int vc_chunk_stored_size(struct vc_chunk_store *store, uint64_t entry, uint32_t *ret_bytes)
{
	struct chunk_raw raw = { .mem = NULL };
	const char *why = vc_chunk_entry_wrong(entry);
	int r;

	if (why)
		return vc_chunk_corrupt(store, entry, why);
	r = read_fetch(store, entry, &raw);
	if (r < 0)
		return r;
	why = read_head_wrong(store, entry, &raw);
	if (why)
		return vc_chunk_corrupt(store, entry, why);
	*ret_bytes = VC_ROUND_UP((uint32_t)sizeof(raw.head) + vc_le32_get(raw.head.stored_len), VC_CHUNK_ALIGN);
	return 0;
}

/* ---- looking for chunks ---- */

struct scan_segnos {
	uint64_t *v;
	size_t n, cap;
};

static int scan_add(void *ctx, const struct vc_chunk_segment_info *info)
{
	struct scan_segnos *s = ctx;

	if (vc_array_room(&s->v, s->n, &s->cap, sizeof(*s->v)) < 0)
		return -ENOMEM;
	s->v[s->n++] = info->segno;
	return 0;
}

static int scan_bytes(const struct vc_chunk_store *store, uint64_t segno, const uint8_t *bytes, size_t len,
		      int (*fn)(void *ctx, uint64_t entry, const struct vc_disk_chunk *head), void *ctx)
{
	struct chunk_raw raw = { .got = sizeof(raw.head) };
	size_t at = VC_CHUNK_SEGMENT_HEADER, step;
	int r = 0;

	for (; at + sizeof(raw.head) <= len && r == 0; at += step) {
		uint64_t entry;

		step = VC_CHUNK_ALIGN;
		memcpy(&raw.head, bytes + at, sizeof(raw.head));
		if (vc_le32_get(raw.head.magic) != VC_MAGIC_CHUNK)
			continue;
		entry = vc_entry_make(segno, (uint32_t)at, vc_le32_get(raw.head.stored_len), 0);
		if (vc_le32_get(raw.head.stored_len) > VC_CHUNK_SIZE_MAX || read_head_wrong(store, entry, &raw))
			continue;
		step = VC_ROUND_UP(sizeof(raw.head) + vc_le32_get(raw.head.stored_len), (size_t)VC_CHUNK_ALIGN);
		r = fn(ctx, entry, &raw.head);
	}
	return r;
}

static int scan_segment(struct vc_chunk_store *store, uint64_t segno, uint8_t *buf,
			int (*fn)(void *ctx, uint64_t entry, const struct vc_disk_chunk *head), void *ctx)
{
	struct chunk_segment *seg;
	ssize_t n;
	int r = vc_chunk_segment_get(store, segno, &seg);

	if (r < 0)
		return r == -ENOMEM ? r : 0;
	n = vc_io_pread(seg->file, buf, VC_CHUNK_SEGMENT_MAX, 0);
	vc_chunk_segment_put(store, seg);
	return n < 0 ? 0 : scan_bytes(store, segno, buf, (size_t)n, fn, ctx);
}

int vc_chunk_scan(struct vc_chunk_store *store, int (*fn)(void *ctx, uint64_t entry, const struct vc_disk_chunk *head), void *ctx)
{
	struct scan_segnos s = { .n = 0 };
	uint8_t *buf = malloc(VC_CHUNK_SEGMENT_MAX);
	int r = buf ? vc_chunk_each_segment(store, scan_add, &s) : -ENOMEM;

	for (size_t i = 0; i < s.n && r == 0; i++)
		r = scan_segment(store, s.v[i], buf, fn, ctx);
	free(s.v);
	free(buf);
	return r;
}
