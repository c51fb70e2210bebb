/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz map nodes, and rows of the catalog as bytes: what decodes is encoded again and must decode to the same; fields read in
 * place are those of the whole.
 */
#include "config.h"
#include "fuzz.h"

#include <sys/stat.h>

#include "catalog.h"
#include "map_impl.h"
#include "record.h"

/* ---- nodes ---- */

static bool node_same(const struct vc_node *a, const struct vc_node *b)
{
	return a->level == b->level && a->tag == b->tag && a->mapped == b->mapped && a->own == b->own &&
	       memcmp(a->slots, b->slots, sizeof(a->slots)) == 0 && memcmp(a->own_bits, b->own_bits, sizeof(a->own_bits)) == 0;
}

static void node_look(const uint8_t *buf, const struct vc_node *node)
{
	struct vc_node_figures f = vc_node_figures(buf);
	uint64_t entries[VC_LEAF_BLOCKS];
	uint32_t next = 0;

	fuzz_check(f.level == node->level && f.tag == node->tag && f.mapped == node->mapped && f.own == node->own);
	if (node->level == 0) {
		for (uint32_t first = 0; first < VC_LEAF_BLOCKS; first += 37) {
			uint32_t n = VC_MIN(VC_LEAF_BLOCKS - first, 61u);

			vc_node_entries(buf, first, n, entries);
			fuzz_check(memcmp(entries, node->slots + first, n * sizeof(*entries)) == 0);
		}
		return;
	}
	for (uint32_t i = 0; i < VC_FANOUT; i++) {
		fuzz_check(vc_node_child(buf, i) == node->slots[i]);
		if (!node->slots[i])
			continue;
		fuzz_check(vc_node_next_child(buf, next) == i);
		next = i + 1;
	}
	fuzz_check(vc_node_next_child(buf, next) == VC_FANOUT);
}

/* A node that was accepted. */
static void node_again(const uint8_t *buf, const struct vc_node *node)
{
	static struct vc_node again;
	uint8_t encoded[VC_NODE_VALUE_MAX];
	size_t len;

	node_look(buf, node);
	len = vc_node_encode(node, encoded);
	fuzz_check(len <= sizeof(encoded) && vc_node_decode(encoded, len, &again) == 0 && node_same(node, &again));
	node_look(encoded, &again);
}

static bool node_own(const struct vc_node *node, uint32_t i) { return node->own_bits[i / 8] >> (i % 8) & 1; }

/* A node made of the input's bytes, with figures that fit: it must be accepted. */
static void node_build(struct fuzz_in *in, struct vc_node *node)
{
	memset(node, 0, sizeof(*node));
	node->level = (uint32_t)fuzz_below(in, VC_HEIGHT_MAX);
	node->tag = fuzz_u8(in);
	while (in->left) {
		uint32_t at = fuzz_u8(in), n = 1 + fuzz_u8(in) % (node->level ? 4 : 40);
		uint64_t first = fuzz_u64(in);
		bool own = first >> 63, run = first >> 62 & 1;

		for (uint32_t i = at; i < VC_MIN(at + n, VC_FANOUT); i++) {
			node->slots[i] = node->level ? (first + i) & VC_NODE_ID_MAX : (first + (run ? i - at : 0)) & ((UINT64_C(1) << 59) - 1);
			if (node->level || !vc_entry_segno(node->slots[i]))
				node->slots[i] = node->level ? node->slots[i] : VC_ENTRY_HOLE;
			if (node->level == 0 && node->tag && node->slots[i] && own)
				node->own_bits[i / 8] |= (uint8_t)(1u << i % 8);
			else
				node->own_bits[i / 8] &= (uint8_t)~(1u << i % 8);
		}
	}
	for (uint32_t i = 0; i < VC_FANOUT; i++) {
		node->mapped += node->slots[i] ? (node->level ? 3 : 1) : 0;
		node->own += node_own(node, i);
	}
}

void fuzz_node(const uint8_t *data, size_t len)
{
	static struct vc_node node, again;
	struct fuzz_in in = { data, len };
	uint8_t encoded[VC_NODE_VALUE_MAX];

	if (fuzz_u8(&in) % 2 == 0) {
		if (vc_node_decode(in.p, in.left, &node) == 0)
			node_again(in.p, &node);
		return;
	}
	node_build(&in, &node);
	if (node.mapped == 0)
		return; /* empty nodes do not exist */
	len = vc_node_encode(&node, encoded);
	fuzz_check(vc_node_decode(encoded, len, &again) == 0 && node_same(&node, &again));
	node_again(encoded, &again);
}

/* ---- rows ---- */

static void row_inode(const uint8_t *value, size_t len)
{
	struct vc_inode_fields f, again;
	struct vc_disk_inode d;

	if (vc_row_to_inode(value, len, &f) < 0)
		return;
	fuzz_check((f.mode & S_IFMT) != 0 && f.size <= VC_IMAGE_SIZE_MAX);
	vc_row_from_inode(&f, &d);
	fuzz_check(len == sizeof(d) && memcmp(&d, value, len) == 0); /* nothing is lost: unknown fields are refused */
	fuzz_check(vc_row_to_inode(&d, sizeof(d), &again) == 0 && memcmp(&f, &again, sizeof(f)) == 0);
}

void fuzz_row(const uint8_t *data, size_t len)
{
	uint8_t encoded[VC_ROW_ENCODED_MAX];
	const uint8_t *key, *value;
	size_t key_len, value_len;

	row_inode(data, len);
	if (vc_row_decode(data, len, &key, &key_len, &value, &value_len) < 0)
		return;
	fuzz_check(key_len && key_len <= VC_ROW_KEY_MAX && value_len <= VC_ROW_VALUE_MAX);
	fuzz_check(key >= data && value == key + key_len && value + value_len == data + len);
	fuzz_check(vc_row_encode(key, key_len, value, value_len, encoded) == len && memcmp(encoded, data, len) == 0);
	row_inode(value, value_len);
}
