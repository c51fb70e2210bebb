/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of map_node: every form encodes, decodes and reads in place to the same content; damaged bytes are refused. */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>
#include "map.h"
#include "map_impl.h"

static uint64_t seed;

static void own_set(struct vc_node *node, uint32_t block)
{
	node->own_bits[block / 8] |= (uint8_t)(1u << (block % 8));
	node->own++;
}

/* A leaf of runs of up to `run` blocks, with holes in between where `holes` of 256 hit. */
static void make_leaf(struct vc_node *node, uint64_t *state, uint32_t run, uint32_t holes)
{
	memset(node, 0, sizeof(*node));
	node->tag = 1 + vc_unit_below(state, 1000);
	for (uint32_t b = 0; b < VC_LEAF_BLOCKS;) {
		uint32_t n = 1 + (uint32_t)vc_unit_below(state, run), first;
		uint64_t entry;

		n = VC_MIN(n, VC_LEAF_BLOCKS - b);
		first = (uint32_t)vc_unit_below(state, VC_CHUNK_BLOCKS_MAX - n + 1);
		entry = vc_entry_make(1 + vc_unit_below(state, VC_SEGNO_MAX >> 1), (uint32_t)vc_unit_below(state, 1 << 20) * 64,
				      1 + (uint32_t)vc_unit_below(state, 65536), first);
		entry &= ~(UINT64_C(1) << (VC_ENTRY_BITS - 1));
		if (vc_unit_below(state, 256) < holes)
			entry = VC_ENTRY_HOLE;
		for (uint32_t i = 0; i < n; i++) {
			node->slots[b + i] = entry ? entry + i : VC_ENTRY_HOLE;
			node->mapped += entry != VC_ENTRY_HOLE;
			if (entry && vc_unit_below(state, 2))
				own_set(node, b + i);
		}
		b += n;
	}
	if (node->mapped)
		return;
	node->slots[7] = vc_entry_make(3, 4096, 100, 0);
	node->mapped = 1;
}

static void make_inner(struct vc_node *node, uint64_t *state, uint32_t children)
{
	memset(node, 0, sizeof(*node));
	node->level = 1 + (uint32_t)vc_unit_below(state, VC_HEIGHT_MAX - 1);
	node->tag = vc_unit_below(state, 3);
	for (uint32_t i = 0; i < children; i++) {
		uint32_t slot = (uint32_t)vc_unit_below(state, VC_FANOUT);

		node->mapped += node->slots[slot] == 0;
		node->slots[slot] = 1 + vc_unit_below(state, VC_NODE_ID_MAX);
	}
	node->own = node->tag ? vc_unit_below(state, node->mapped + 1) : 0;
}

static void assert_same(const struct vc_node *a, const struct vc_node *b)
{
	assert_int_equal(a->level, b->level);
	assert_int_equal(a->tag, b->tag);
	assert_int_equal(a->mapped, b->mapped);
	assert_int_equal(a->own, b->own);
	assert_memory_equal(a->slots, b->slots, sizeof(a->slots));
	assert_memory_equal(a->own_bits, b->own_bits, sizeof(a->own_bits));
}

/* In a buffer of exactly the right size, so that a sanitizer sees a read beyond it. */
static uint8_t *encode_exact(const struct vc_node *node, size_t *ret_len)
{
	uint8_t buf[VC_NODE_VALUE_MAX], *exact;

	*ret_len = vc_node_encode(node, buf);
	assert_true(*ret_len <= VC_NODE_VALUE_MAX);
	exact = malloc(*ret_len);
	assert_non_null(exact);
	memcpy(exact, buf, *ret_len);
	return exact;
}

static void check_leaf_in_place(const struct vc_node *node, const uint8_t *buf, uint64_t *state)
{
	uint64_t entries[VC_LEAF_BLOCKS];

	vc_node_entries(buf, 0, VC_LEAF_BLOCKS, entries);
	assert_memory_equal(entries, node->slots, sizeof(entries));
	for (int i = 0; i < 20; i++) {
		uint32_t first = (uint32_t)vc_unit_below(state, VC_LEAF_BLOCKS);
		uint32_t n = 1 + (uint32_t)vc_unit_below(state, VC_LEAF_BLOCKS - first);

		vc_node_entries(buf, first, n, entries);
		assert_memory_equal(entries, node->slots + first, n * sizeof(entries[0]));
	}
	for (uint32_t b = 0; b < VC_LEAF_BLOCKS; b++) {
		vc_node_entries(buf, b, 1, entries);
		assert_int_equal(entries[0], node->slots[b]);
	}
}

static void check_inner_in_place(const struct vc_node *node, const uint8_t *buf)
{
	uint32_t next = VC_FANOUT;

	for (uint32_t slot = VC_FANOUT; slot-- > 0;) {
		if (node->slots[slot])
			next = slot;
		assert_int_equal(vc_node_child(buf, slot), node->slots[slot]);
		assert_int_equal(vc_node_next_child(buf, slot), next);
	}
}

static enum vc_node_kind check_node(const struct vc_node *node, uint64_t *state)
{
	struct vc_node_figures figures;
	struct vc_node back;
	size_t len;
	uint8_t *buf = encode_exact(node, &len);

	assert_int_equal(vc_node_decode(buf, len, &back), 0);
	assert_same(node, &back);
	if (node->level)
		check_inner_in_place(node, buf);
	else
		check_leaf_in_place(node, buf, state);
	figures = vc_node_figures(buf);
	assert_true(figures.level == node->level && figures.tag == node->tag);
	assert_true(figures.mapped == node->mapped && figures.own == node->own);
	free(buf);
	return back.kind;
}

static void test_round_trip(void **unused VC_UNUSED)
{
	uint64_t state = seed;
	struct vc_node node;
	int flat = 0, extent = 0;

	for (int i = 0; i < 2000; i++) {
		make_leaf(&node, &state, i % 2 ? 1 : 1 + (uint32_t)vc_unit_below(&state, VC_CHUNK_BLOCKS_MAX),
			  (uint32_t)vc_unit_below(&state, 257));
		if (check_node(&node, &state) == VC_NODE_LEAF_FLAT)
			flat++;
		else
			extent++;
		make_inner(&node, &state, 1 + (uint32_t)vc_unit_below(&state, 600));
		assert_int_equal(check_node(&node, &state), VC_NODE_INNER);
	}
	assert_true(flat > 50 && extent > 50);
}

static void test_sizes(void **unused VC_UNUSED)
{
	struct vc_node node = { .tag = 1, .mapped = VC_LEAF_BLOCKS };
	uint8_t buf[VC_NODE_VALUE_MAX];

	/* A leaf written by one sequential stream: 16 chunks of 16 blocks. */
	for (uint32_t b = 0; b < VC_LEAF_BLOCKS; b++)
		node.slots[b] = vc_entry_make(9, 4096 + b / 16 * 8192, 8000, b % 16);
	assert_int_equal(vc_node_encode(&node, buf), 64 + 16 * 10);
	assert_int_equal(buf[0], VC_NODE_LEAF_EXTENT);
	/* Every block a chunk of its own. */
	for (uint32_t b = 0; b < VC_LEAF_BLOCKS; b++)
		node.slots[b] = vc_entry_make(9, 4096 + b * 4096, 2000, 0);
	assert_int_equal(vc_node_encode(&node, buf), 64 + 1920);
	assert_int_equal(buf[0], VC_NODE_LEAF_FLAT);
	/* 191 extents are shorter than flat, 192 are not. */
	memset(node.slots + 191, 0, (VC_LEAF_BLOCKS - 191) * sizeof(node.slots[0]));
	node.mapped = 191;
	assert_int_equal(vc_node_encode(&node, buf), 64 + 1910);
	node.slots[200] = node.slots[0];
	node.mapped = 192;
	assert_int_equal(vc_node_encode(&node, buf), 64 + 1920);
	assert_int_equal(buf[0], VC_NODE_LEAF_FLAT);
}

/* Entries that follow each other in number but cross into the next chunk are two extents. */
static void test_run_ends_with_chunk(void **unused VC_UNUSED)
{
	struct vc_node node = { .tag = 1, .mapped = 4 };
	uint8_t buf[VC_NODE_VALUE_MAX];
	uint64_t state = seed;

	for (uint32_t b = 0; b < 4; b++)
		node.slots[b] = vc_entry_make(1, 4096, 100, 14) + b;
	assert_int_equal(vc_node_encode(&node, buf), 64 + 20);
	assert_int_equal(check_node(&node, &state), VC_NODE_LEAF_EXTENT);
}

static void refuse(const uint8_t *good, size_t len, size_t at, uint8_t value)
{
	uint8_t buf[VC_NODE_VALUE_MAX + 1];
	struct vc_node node;

	memcpy(buf, good, len);
	if (buf[at] == value)
		return;
	buf[at] = value;
	assert_int_equal(vc_node_decode(buf, len, &node), -EUCLEAN);
}

static void refuse_header(const struct vc_node *node)
{
	size_t len;
	uint8_t *buf = encode_exact(node, &len);
	struct vc_node back;

	refuse(buf, len, offsetof(struct vc_disk_node, kind), 0);
	refuse(buf, len, offsetof(struct vc_disk_node, kind), 4);
	refuse(buf, len, offsetof(struct vc_disk_node, level), VC_HEIGHT_MAX);
	refuse(buf, len, offsetof(struct vc_disk_node, level), 255);
	refuse(buf, len, offsetof(struct vc_disk_node, count), (uint8_t)(buf[2] + 1));
	refuse(buf, len, offsetof(struct vc_disk_node, reserved), 1);
	refuse(buf, len, offsetof(struct vc_disk_node, mapped) + 6, 1);
	refuse(buf, len, offsetof(struct vc_disk_node, own) + 7, 1);
	for (size_t short_len = 0; short_len < len; short_len++)
		assert_int_equal(vc_node_decode(buf, short_len, &back), -EUCLEAN);
	free(buf);
}

static void test_refuse_header(void **unused VC_UNUSED)
{
	uint64_t state = seed;
	struct vc_node node;

	for (int i = 0; i < 20; i++) {
		make_leaf(&node, &state, 16, 30);
		refuse_header(&node);
		make_leaf(&node, &state, 1, 5);
		refuse_header(&node);
		make_inner(&node, &state, 40);
		refuse_header(&node);
	}
}

static void test_refuse_content(void **unused VC_UNUSED)
{
	struct vc_node node = { .tag = 5, .mapped = 3 }, back;
	uint8_t buf[VC_NODE_VALUE_MAX];
	size_t len;

	for (uint32_t b = 0; b < 3; b++)
		node.slots[10 + b] = vc_entry_make(7, 4096, 100, b);
	own_set(&node, 11);
	len = vc_node_encode(&node, buf);
	assert_int_equal(len, 64 + 10);
	assert_int_equal(vc_node_decode(buf, len, &back), 0);
	refuse(buf, len, 32 + 1, 0x18);  /* one own bit more than own */
	refuse(buf, len, 32 + 1, 0);     /* one less */
	refuse(buf, len, 32 + 1, 0x80);  /* an own hole */
	refuse(buf, len, 64, 254);       /* beyond the leaf */
	refuse(buf, len, 65, 0);         /* an empty extent */
	refuse(buf, len, 65, 2);         /* not the mapped count */
	refuse(buf, len, 65, 17);        /* longer than a chunk */
	refuse(buf, len, 66, 14);        /* runs out of its chunk */
	refuse(buf, len, 73, 0x08);      /* reserved bit 59 */
	refuse(buf, len, 73, 0x10);      /* above the 60 bits */
	buf[69] &= 0x3f;
	memset(buf + 70, 0, 4);
	assert_int_equal(vc_node_decode(buf, len, &back), -EUCLEAN); /* segment 0 */

	node.tag = 0;
	len = vc_node_encode(&node, buf);
	assert_int_equal(vc_node_decode(buf, len, &back), -EUCLEAN); /* own without a tag */
	memset(&node, 0, sizeof(node));
	len = vc_node_encode(&node, buf);
	assert_int_equal(vc_node_decode(buf, len, &back), -EUCLEAN); /* empty */
	node.level = 1;
	len = vc_node_encode(&node, buf);
	assert_int_equal(vc_node_decode(buf, len, &back), -EUCLEAN);
	node.slots[3] = 77;
	node.mapped = VC_LEAF_BLOCKS + 1;
	len = vc_node_encode(&node, buf);
	assert_int_equal(vc_node_decode(buf, len, &back), -EUCLEAN); /* more than one leaf can hold */
	node.mapped = VC_LEAF_BLOCKS;
	len = vc_node_encode(&node, buf);
	assert_int_equal(vc_node_decode(buf, len, &back), 0);
	refuse(buf, len, 64, 0); /* child 0 */
}

/* Two extents that overlap or stand in the wrong order. */
static void test_refuse_order(void **unused VC_UNUSED)
{
	struct vc_node node = { .tag = 5, .mapped = 4 }, back;
	uint8_t buf[VC_NODE_VALUE_MAX];
	size_t len;

	for (uint32_t b = 0; b < 2; b++) {
		node.slots[10 + b] = vc_entry_make(7, 4096, 100, b);
		node.slots[20 + b] = vc_entry_make(8, 4096, 100, b);
	}
	len = vc_node_encode(&node, buf);
	assert_int_equal(len, 64 + 20);
	refuse(buf, len, 74, 11);
	refuse(buf, len, 74, 2);
	assert_int_equal(vc_node_decode(buf, len, &back), 0);
}

/* Whatever is decoded without complaint can be read in place and encodes to something that decodes to the same. */
static void test_random_damage(void **unused VC_UNUSED)
{
	uint64_t state = seed, refused = 0;
	struct vc_node node, back;

	for (int i = 0; i < 20000; i++) {
		size_t len;
		uint8_t *buf;

		if (i % 3 == 0)
			make_inner(&node, &state, 30);
		else
			make_leaf(&node, &state, i % 3 == 1 ? 16 : 1, 30);
		buf = encode_exact(&node, &len);
		for (uint64_t n = 1 + vc_unit_below(&state, 3); n; n--)
			buf[vc_unit_below(&state, i % 2 ? len : VC_MIN(len, 100u))] ^= (uint8_t)(1u << vc_unit_below(&state, 8));
		if (vc_node_decode(buf, len, &back) == 0)
			check_node(&back, &state);
		else
			refused++;
		free(buf);
	}
	assert_true(refused > 5000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_run_ends_with_chunk),
		cmocka_unit_test(test_refuse_header),
		cmocka_unit_test(test_refuse_content),
		cmocka_unit_test(test_refuse_order),
		cmocka_unit_test(test_random_damage),
	};

	seed = vc_unit_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
