/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * check_maps: the trees of all images. A shared node is looked at once: what it says of itself, and what its children make of it, is kept by id;
 * every image then only checks its root. Depth is at most VC_HEIGHT_MAX, so recursion is bounded.
 */
#include "config.h"

#include <stdlib.h>

#include "check_impl.h"
#include "msg.h"

#define ULL(x) ((unsigned long long)(x))

static struct check_node *node_place(struct check_node *table, size_t size, uint64_t id)
{
	size_t i = (size_t)(id * UINT64_C(0x9e3779b97f4a7c15) >> 24) & (size - 1);

	while (table[i].id && table[i].id != id)
		i = (i + 1) & (size - 1);
	return &table[i];
}

static int node_add(struct check *c, const struct check_node *node)
{
	if ((c->nnodes + 1) * 4 > c->nodes_size * 3) {
		size_t size = c->nodes_size ? c->nodes_size * 2 : 1024;
		struct check_node *table = calloc(size, sizeof(*table));

		if (!table)
			return -ENOMEM;
		for (size_t i = 0; i < c->nodes_size; i++)
			if (c->nodes[i].id)
				*node_place(table, size, c->nodes[i].id) = c->nodes[i];
		free(c->nodes);
		c->nodes = table;
		c->nodes_size = size;
	}
	*node_place(c->nodes, c->nodes_size, node->id) = *node;
	c->nnodes++;
	return 0;
}

static struct check_chunk *chunk_place(struct check_chunk *table, size_t size, uint64_t entry)
{
	size_t i = (size_t)(entry * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (size - 1);

	while (table[i].entry && table[i].entry != entry)
		i = (i + 1) & (size - 1);
	return &table[i];
}

static int chunk_add(struct check *c, uint64_t entry, uint64_t ino, uint64_t lba)
{
	struct check_chunk *chunk;

	if ((c->nchunk_set + 1) * 4 > c->chunk_set_size * 3) {
		size_t size = c->chunk_set_size ? c->chunk_set_size * 2 : 256;
		struct check_chunk *table = calloc(size, sizeof(*table));

		if (!table)
			return -ENOMEM;
		for (size_t i = 0; i < c->chunk_set_size; i++)
			if (c->chunk_set[i].entry)
				*chunk_place(table, size, c->chunk_set[i].entry) = c->chunk_set[i];
		free(c->chunk_set);
		c->chunk_set = table;
		c->chunk_set_size = size;
	}
	chunk = chunk_place(c->chunk_set, c->chunk_set_size, vc_entry_chunk(entry));
	if (!chunk->entry) {
		*chunk = (struct check_chunk){ .entry = vc_entry_chunk(entry), .ino = ino, .lba = lba };
		c->nchunk_set++;
		c->highest_segno = VC_MAX(c->highest_segno, vc_entry_segno(entry));
		c->ret->chunk_bytes += vc_entry_stored_guess(entry);
	}
	chunk->last = VC_MAX(chunk->last, vc_entry_block(entry));
	return 0;
}

static int segment_compare(const void *a, const void *b)
{
	uint64_t x = ((const struct vc_chunk_segment_info *)a)->segno, y = ((const struct vc_chunk_segment_info *)b)->segno;

	return x < y ? -1 : x > y;
}

static bool entry_is_stored(const struct check *c, uint64_t entry)
{
	struct vc_chunk_segment_info key = { .segno = vc_entry_segno(entry) };
	const struct vc_chunk_segment_info *s = c->nsegments ? bsearch(&key, c->segments, c->nsegments, sizeof(key), segment_compare) : NULL;

	return s && vc_entry_offset(entry) + sizeof(struct vc_disk_chunk) <= s->used;
}

static int check_leaf(struct check *c, const struct vc_node *node, struct check_node *sum, uint64_t ino, uint64_t lba)
{
	int r = 0;

	for (uint32_t i = 0; i < VC_FANOUT && r == 0; i++) {
		bool own = node->own_bits[i / 8] >> (i % 8) & 1;

		sum->own += own;
		if (own && !node->slots[i])
			check_found(c, "node %llu: block %u is a hole and marked as own", ULL(sum->id), i);
		if (!node->slots[i])
			continue;
		sum->mapped++;
		sum->end = i + 1;
		if (!entry_is_stored(c, node->slots[i]))
			check_found(c, "image %llu, block %llu: lies in segment %llu at %u, which does not exist", ULL(ino), ULL(lba + i),
				    ULL(vc_entry_segno(node->slots[i])), vc_entry_offset(node->slots[i]));
		r = chunk_add(c, node->slots[i], ino, lba + i);
	}
	return r;
}

static int check_tree(struct check *c, uint64_t id, uint32_t level, uint64_t ino, uint64_t lba, struct check_node *ret);

static int check_inner(struct check *c, const struct vc_node *node, struct check_node *sum, uint64_t ino, uint64_t lba)
{
	uint64_t span = UINT64_C(1) << (VC_FANOUT_SHIFT * node->level);
	int r = 0;

	for (uint32_t i = 0; i < VC_FANOUT && r == 0; i++) {
		struct check_node child;

		if (!node->slots[i])
			continue;
		r = check_tree(c, node->slots[i], node->level - 1, ino, lba + i * span, &child);
		if (r < 0)
			return r;
		sum->bad |= child.bad;
		sum->mapped += child.mapped;
		sum->own += child.tag == node->tag && node->tag ? child.own : 0;
		sum->end = i * span + child.end;
	}
	return r;
}

/* The figures of subtree `id`, which should be a node of `level`; image and block are only for messages. */
static int check_tree(struct check *c, uint64_t id, uint32_t level, uint64_t ino, uint64_t lba, struct check_node *ret)
{
	struct check_node sum = { .id = id, .level = level };
	struct vc_node *node;
	int r;

	if (c->nodes_size && node_place(c->nodes, c->nodes_size, id)->id) {
		*ret = *node_place(c->nodes, c->nodes_size, id);
		if (ret->level != level)
			check_found(c, "node %llu is used at level %u and at level %u", ULL(id), ret->level, level);
		return 0;
	}
	node = malloc(sizeof(*node));
	r = node ? vc_map_node_read(c->txn, id, node) : -ENOMEM;
	if (r == -ESTALE || r == -EBADMSG || r == -EUCLEAN) {
		check_found(c, "image %llu, block %llu: map node %llu is %s", ULL(ino), ULL(lba), ULL(id),
			    r == -ESTALE ? "missing" : "damaged");
		sum.bad = true;
		r = 0;
	} else if (r == 0 && node->level != level) {
		check_found(c, "node %llu: level %u instead of %u", ULL(id), node->level, level);
		sum.bad = true;
	} else if (r == 0) {
		sum.tag = node->tag;
		c->highest_tag = VC_MAX(c->highest_tag, node->tag);
		r = level ? check_inner(c, node, &sum, ino, lba) : check_leaf(c, node, &sum, ino, lba);
		if (r == 0 && !sum.bad && (sum.mapped != node->mapped || sum.own != node->own))
			check_found(c, "node %llu: says %llu mapped, %llu own; has %llu and %llu", ULL(id), ULL(node->mapped), ULL(node->own),
				    ULL(sum.mapped), ULL(sum.own));
		if (r == 0 && !sum.bad && sum.mapped == 0)
			check_found(c, "node %llu maps nothing", ULL(id));
	}
	free(node);
	if (r == 0)
		r = node_add(c, &sum);
	*ret = sum;
	return r;
}

static int check_image(struct check *c, struct check_inode *i)
{
	struct check_node tree;
	int r;

	if (!i->root.id || i->root.height == 0 || i->root.height > VC_HEIGHT_MAX)
		return 0;
	r = check_tree(c, i->root.id, i->root.height - 1, i->ino, 0, &tree);
	if (r < 0)
		return r;
	i->end = tree.end;
	c->ret->mapped_blocks += tree.mapped;
	if (tree.end > VC_DIV_UP(i->f.size, (uint64_t)VC_BLOCK_SIZE))
		check_found(c, "image %llu: block %llu is mapped, beyond its end at %llu bytes", ULL(i->ino), ULL(tree.end - 1), ULL(i->f.size));
	return 0;
}

static int check_count_node(void *ctx, const void *key, size_t key_len, const void *value, size_t len)
{
	struct check *c = ctx;
	uint64_t id = key_len == 8 ? vc_be64_at(key) : 0;

	(void)value;
	(void)len;
	c->ret->nodes++;
	c->highest_node = VC_MAX(c->highest_node, id);
	if (!c->nodes_size || !node_place(c->nodes, c->nodes_size, id)->id)
		c->ret->unreachable_nodes++;
	return 0;
}

static void check_segments(struct check *c)
{
	uint64_t *live = calloc(c->nsegments + 1, sizeof(*live));

	c->ret->segments = c->nsegments;
	for (size_t i = 0; live && i < c->chunk_set_size; i++) {
		struct vc_chunk_segment_info key = { .segno = vc_entry_segno(c->chunk_set[i].entry) };
		struct vc_chunk_segment_info *s = c->chunk_set[i].entry && c->nsegments ?
			bsearch(&key, c->segments, c->nsegments, sizeof(key), segment_compare) : NULL;

		if (s)
			live[s - c->segments]++;
	}
	for (size_t i = 0; live && i < c->nsegments; i++)
		c->ret->dead_segments += live[i] == 0;
	free(live);
}

int check_maps(struct check *c)
{
	int r = 0;

	for (size_t i = 0; i < c->inodes_size && r == 0; i++) {
		if (c->inodes[i].ino && c->inodes[i].has_image)
			r = check_image(c, &c->inodes[i]);
		if (c->o->progress && i % 1024 == 0)
			c->o->progress(c->o->ctx, "images", i, c->inodes_size);
	}
	if (r == 0) {
		r = vc_meta_scan(c->txn, VC_DB_NODE, NULL, 0, NULL, 0, check_count_node, c);
		if (r == -EBADMSG) {
			check_found(c, "a map node is damaged (see the message before)");
			r = 0;
		}
	}
	c->ret->chunks = c->nchunk_set;
	check_segments(c);
	return r;
}

/* ---- data ---- */

static int chunk_compare(const void *a, const void *b)
{
	uint64_t x = ((const struct check_chunk *)a)->entry, y = ((const struct check_chunk *)b)->entry;

	return x < y ? -1 : x > y;
}

/* In the order they lie on disk, at the beginning of what is a hash table no longer. */
static void chunks_sort(struct check *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->chunk_set_size; i++)
		if (c->chunk_set[i].entry)
			c->chunk_set[n++] = c->chunk_set[i];
	c->chunk_set_size = n;
	if (n)
		qsort(c->chunk_set, n, sizeof(*c->chunk_set), chunk_compare);
}

int check_data(struct check *c)
{
	uint8_t block[VC_BLOCK_SIZE];
	int r = 0;

	chunks_sort(c);
	for (size_t i = 0; i < c->chunk_set_size && r == 0; i++) {
		const struct check_chunk *chunk = &c->chunk_set[i];

		r = vc_chunk_read(c->chunks, chunk->entry + chunk->last, 1, block);
		if (r < 0 && r != -ENOMEM) {
			check_found(c, "image %llu, offset %llu: its data in segment %llu at %u cannot be read", ULL(chunk->ino),
				    ULL(chunk->lba * VC_BLOCK_SIZE), ULL(vc_entry_segno(chunk->entry)), vc_entry_offset(chunk->entry));
			r = 0;
		}
		if (c->o->progress && (i + 1) % 256 == 0)
			c->o->progress(c->o->ctx, "chunks", i + 1, c->nchunk_set);
	}
	return r;
}
