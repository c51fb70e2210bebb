/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * map_node: map nodes as bytes: encoding, decoding with validation, and reading single fields of valid ones.
 *
 *   header (struct vc_disk_node, 32)  bitmap (32)  body
 *     inner        bitmap: slots with a child     body: a 48-bit id for each set bit, ascending
 *     flat leaf    bitmap: own blocks             body: 128 pairs of 60-bit entries, 15 bytes each
 *     extent leaf  bitmap: own blocks             body: count struct vc_disk_extent, ascending
 *
 * A leaf is written in whichever form is shorter; at equal length flat, which is read faster. No node is empty.
 */
#include "config.h"
#include "map.h"

#include "map_impl.h"

#define NODE_HEADER sizeof(struct vc_disk_node)
#define NODE_BITMAP (VC_FANOUT / 8)
#define NODE_BODY (NODE_HEADER + NODE_BITMAP)
#define NODE_ID_SIZE 6u
#define NODE_PAIR_SIZE 15u
#define NODE_FLAT_SIZE (NODE_BODY + VC_LEAF_BLOCKS / 2 * NODE_PAIR_SIZE)
#define NODE_EXTENTS_MAX ((NODE_FLAT_SIZE - NODE_BODY - 1) / sizeof(struct vc_disk_extent))
#define ENTRY_MASK ((UINT64_C(1) << VC_ENTRY_BITS) - 1)
#define ENTRY_RESERVED (UINT64_C(1) << (VC_ENTRY_BITS - 1))

_Static_assert(NODE_HEADER == 32 && sizeof(struct vc_disk_extent) == 10, "node structures");
_Static_assert(VC_FANOUT == VC_LEAF_BLOCKS, "one bitmap size for leaves and inner nodes");
_Static_assert(NODE_FLAT_SIZE <= VC_NODE_VALUE_MAX, "the largest leaf");
_Static_assert(NODE_BODY + VC_FANOUT * NODE_ID_SIZE <= VC_NODE_VALUE_MAX, "the largest inner node");

/* ---- small pieces ---- */

static uint64_t le64_at(const uint8_t *p)
{
	vc_le64 le;

	memcpy(&le, p, sizeof(le));
	return vc_le64_get(le);
}

static void le64_put(uint8_t *p, uint64_t x, size_t len)
{
	vc_le64 le = vc_le64_of(x);

	memcpy(p, &le, len);
}

static bool bit_get(const uint8_t *bits, uint32_t i)
{
	return bits[i / 8] >> (i % 8) & 1;
}

static void bit_set(uint8_t *bits, uint32_t i)
{
	bits[i / 8] |= (uint8_t)(1u << (i % 8));
}

/** Set bits below `end`. */
static uint32_t bits_below(const uint8_t *bits, uint32_t end)
{
	uint32_t n = 0, i = 0;

	for (; i + 64 <= end; i += 64)
		n += (uint32_t)__builtin_popcountll(le64_at(bits + i / 8));
	if (i < end)
		n += (uint32_t)__builtin_popcountll(le64_at(bits + i / 8) & ((UINT64_C(1) << (end - i)) - 1));
	return n;
}

static bool entry_ok(uint64_t entry)
{
	return vc_entry_segno(entry) != 0 && !(entry & ENTRY_RESERVED) && !(entry & ~ENTRY_MASK);
}

static uint64_t flat_entry(const uint8_t *body, uint32_t block)
{
	const uint8_t *pair = body + block / 2 * NODE_PAIR_SIZE;

	return block % 2 ? le64_at(pair + 7) >> 4 : le64_at(pair) & ENTRY_MASK;
}

static uint32_t extent_start(const uint8_t *body, uint32_t i) { return body[i * sizeof(struct vc_disk_extent)]; }
static uint32_t extent_blocks(const uint8_t *body, uint32_t i) { return body[i * sizeof(struct vc_disk_extent) + 1]; }
static uint64_t extent_entry(const uint8_t *body, uint32_t i)
{
	return le64_at(body + i * sizeof(struct vc_disk_extent) + offsetof(struct vc_disk_extent, entry));
}

static const struct vc_disk_node *node_header(const uint8_t *buf)
{
	return (const struct vc_disk_node *)buf;
}

/* ---- encoding ---- */

/** Length of the run of blocks of one chunk that begins at `first`. */
static uint32_t run_blocks(const uint64_t *slots, uint32_t first)
{
	uint32_t n = 1;

	while (first + n < VC_LEAF_BLOCKS && n < VC_CHUNK_BLOCKS_MAX && slots[first + n] == slots[first] + n &&
	       vc_entry_chunk(slots[first + n]) == vc_entry_chunk(slots[first]))
		n++;
	return n;
}

/** Write the extents if there are few enough; returns their number, or 0 when the flat form is not longer. */
static uint32_t encode_extents(const uint64_t *slots, uint8_t *body)
{
	uint32_t count = 0, n;

	for (uint32_t i = 0; i < VC_LEAF_BLOCKS; i += n) {
		n = 1;
		if (slots[i] == VC_ENTRY_HOLE)
			continue;
		if (count == NODE_EXTENTS_MAX)
			return 0;
		n = run_blocks(slots, i);
		body[0] = (uint8_t)i;
		body[1] = (uint8_t)n;
		le64_put(body + 2, slots[i], 8);
		body += sizeof(struct vc_disk_extent);
		count++;
	}
	return count;
}

static uint32_t encode_flat(const uint64_t *slots, uint8_t *body)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < VC_LEAF_BLOCKS; i += 2, body += NODE_PAIR_SIZE) {
		le64_put(body, slots[i] | slots[i + 1] << VC_ENTRY_BITS, 8);
		le64_put(body + 8, slots[i + 1] >> (64 - VC_ENTRY_BITS), NODE_PAIR_SIZE - 8);
		count += (slots[i] != VC_ENTRY_HOLE) + (slots[i + 1] != VC_ENTRY_HOLE);
	}
	return count;
}

static uint32_t encode_children(const uint64_t *slots, uint8_t *bitmap, uint8_t *body)
{
	uint32_t count = 0;

	memset(bitmap, 0, NODE_BITMAP);
	for (uint32_t i = 0; i < VC_FANOUT; i++) {
		if (!slots[i])
			continue;
		bit_set(bitmap, i);
		le64_put(body + NODE_ID_SIZE * count++, slots[i], NODE_ID_SIZE);
	}
	return count;
}

size_t vc_node_encode(const struct vc_node *node, uint8_t *buf)
{
	struct vc_disk_node *header = (struct vc_disk_node *)buf;
	uint8_t *bitmap = buf + NODE_HEADER, *body = buf + NODE_BODY;
	enum vc_node_kind kind;
	uint32_t count;
	size_t len;

	if (node->level > 0) {
		kind = VC_NODE_INNER;
		count = encode_children(node->slots, bitmap, body);
		len = NODE_BODY + count * NODE_ID_SIZE;
	} else {
		memcpy(bitmap, node->own_bits, NODE_BITMAP);
		kind = VC_NODE_LEAF_EXTENT;
		count = encode_extents(node->slots, body);
		len = NODE_BODY + count * sizeof(struct vc_disk_extent);
		if (count == 0) {
			kind = VC_NODE_LEAF_FLAT;
			count = encode_flat(node->slots, body);
			len = NODE_FLAT_SIZE;
		}
	}
	*header = (struct vc_disk_node){
		.kind = (uint8_t)kind,
		.level = (uint8_t)node->level,
		.count = vc_le16_of((uint16_t)count),
		.tag = vc_le64_of(node->tag),
		.mapped = vc_le64_of(node->mapped),
		.own = vc_le64_of(node->own),
	};
	return len;
}

/* ---- decoding untrusted bytes ---- */

static int decode_children(const uint8_t *buf, size_t len, uint32_t count, struct vc_node *node)
{
	const uint8_t *bitmap = buf + NODE_HEADER, *body = buf + NODE_BODY;

	if (node->level == 0 || node->level >= VC_HEIGHT_MAX || count == 0 || count != bits_below(bitmap, VC_FANOUT) ||
	    len != NODE_BODY + count * NODE_ID_SIZE)
		return -EUCLEAN;
	if (node->mapped < count || node->mapped > count * vc_map_span(node->level - 1))
		return -EUCLEAN;
	for (uint32_t i = 0; i < VC_FANOUT; i++) {
		if (!bit_get(bitmap, i))
			continue;
		for (uint32_t b = 0; b < NODE_ID_SIZE; b++)
			node->slots[i] |= (uint64_t)body[b] << (8 * b);
		body += NODE_ID_SIZE;
		if (!node->slots[i])
			return -EUCLEAN;
	}
	return 0;
}

static int decode_flat(const uint8_t *buf, size_t len, uint32_t count, struct vc_node *node)
{
	if (len != NODE_FLAT_SIZE || count != node->mapped)
		return -EUCLEAN;
	for (uint32_t i = 0; i < VC_LEAF_BLOCKS; i++) {
		uint64_t entry = flat_entry(buf + NODE_BODY, i);

		node->slots[i] = entry;
		if (entry == VC_ENTRY_HOLE)
			continue;
		if (!entry_ok(entry) || count-- == 0)
			return -EUCLEAN;
	}
	return count ? -EUCLEAN : 0;
}

static int decode_extents(const uint8_t *buf, size_t len, uint32_t count, struct vc_node *node)
{
	const uint8_t *body = buf + NODE_BODY;
	uint32_t end = 0, mapped = 0;

	if (count == 0 || count > NODE_EXTENTS_MAX || len != NODE_BODY + count * sizeof(struct vc_disk_extent))
		return -EUCLEAN;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t start = extent_start(body, i), n = extent_blocks(body, i);
		uint64_t entry = extent_entry(body, i);

		if (start < end || n == 0 || start + n > VC_LEAF_BLOCKS || !entry_ok(entry) ||
		    vc_entry_block(entry) + n > VC_CHUNK_BLOCKS_MAX)
			return -EUCLEAN;
		for (uint32_t b = 0; b < n; b++)
			node->slots[start + b] = entry + b;
		end = start + n;
		mapped += n;
	}
	return mapped == node->mapped ? 0 : -EUCLEAN;
}

static int decode_leaf(const uint8_t *buf, size_t len, uint32_t count, struct vc_node *node)
{
	int r;

	if (node->level != 0 || node->mapped == 0)
		return -EUCLEAN;
	r = node->kind == VC_NODE_LEAF_FLAT ? decode_flat(buf, len, count, node) :
					      decode_extents(buf, len, count, node);
	if (r < 0)
		return r;
	memcpy(node->own_bits, buf + NODE_HEADER, NODE_BITMAP);
	if (bits_below(node->own_bits, VC_LEAF_BLOCKS) != node->own)
		return -EUCLEAN;
	for (uint32_t i = 0; i < VC_LEAF_BLOCKS; i++)
		if (bit_get(node->own_bits, i) && node->slots[i] == VC_ENTRY_HOLE)
			return -EUCLEAN;
	return 0;
}

int vc_node_decode(const uint8_t *buf, size_t len, struct vc_node *ret)
{
	const struct vc_disk_node *header = node_header(buf);
	uint32_t count;

	if (len < NODE_BODY || len > VC_NODE_VALUE_MAX || vc_le32_get(header->reserved) != 0)
		return -EUCLEAN;
	memset(ret, 0, sizeof(*ret));
	ret->kind = (enum vc_node_kind)header->kind;
	ret->level = header->level;
	ret->tag = vc_le64_get(header->tag);
	ret->mapped = vc_le64_get(header->mapped);
	ret->own = vc_le64_get(header->own);
	count = vc_le16_get(header->count);
	if (ret->own > ret->mapped || (ret->tag == 0 && ret->own != 0))
		return -EUCLEAN;
	switch (header->kind) {
	case VC_NODE_INNER: return decode_children(buf, len, count, ret);
	case VC_NODE_LEAF_FLAT:
	case VC_NODE_LEAF_EXTENT: return decode_leaf(buf, len, count, ret);
	}
	return -EUCLEAN;
}

/* ---- reading valid nodes in place ---- */

struct vc_node_figures vc_node_figures(const uint8_t *buf)
{
	const struct vc_disk_node *header = node_header(buf);

	return (struct vc_node_figures){
		.level = header->level,
		.tag = vc_le64_get(header->tag),
		.mapped = vc_le64_get(header->mapped),
		.own = vc_le64_get(header->own),
	};
}

uint64_t vc_node_child(const uint8_t *buf, uint32_t slot)
{
	const uint8_t *bitmap = buf + NODE_HEADER;

	if (!bit_get(bitmap, slot))
		return 0;
	/* The id and the two bytes before it, which are always inside the node. */
	return le64_at(buf + NODE_BODY + bits_below(bitmap, slot) * NODE_ID_SIZE - 2) >> 16;
}

uint32_t vc_node_next_child(const uint8_t *buf, uint32_t slot)
{
	const uint8_t *bitmap = buf + NODE_HEADER;

	while (slot < VC_FANOUT) {
		uint64_t word = le64_at(bitmap + slot / 64 * 8) >> (slot % 64);

		if (word)
			return slot + (uint32_t)__builtin_ctzll(word);
		slot = VC_ROUND_DOWN(slot, 64u) + 64;
	}
	return VC_FANOUT;
}

/** Number of extents that end at or before block `first`. */
static uint32_t extents_before(const uint8_t *body, uint32_t count, uint32_t first)
{
	uint32_t lo = 0, hi = count;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (extent_start(body, mid) + extent_blocks(body, mid) <= first)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void extent_entries(const uint8_t *body, uint32_t count, uint32_t first, uint32_t n, uint64_t *entries)
{
	memset(entries, 0, n * sizeof(*entries));
	for (uint32_t i = extents_before(body, count, first); i < count; i++) {
		uint32_t start = extent_start(body, i), end = start + extent_blocks(body, i);
		uint64_t entry = extent_entry(body, i);

		if (start >= first + n)
			return;
		for (uint32_t b = VC_MAX(start, first); b < VC_MIN(end, first + n); b++)
			entries[b - first] = entry + (b - start);
	}
}

void vc_node_entries(const uint8_t *buf, uint32_t first, uint32_t n, uint64_t *entries)
{
	const struct vc_disk_node *header = node_header(buf);
	const uint8_t *body = buf + NODE_BODY;

	if (header->kind == VC_NODE_LEAF_EXTENT) {
		extent_entries(body, vc_le16_get(header->count), first, n, entries);
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		entries[i] = flat_entry(body, first + i);
}
