/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "overlay.h"

#include <stdlib.h>

#include "log.h"

/* Packed entries: word i of the pair (word, sum) belongs to the i-th set bit. */
struct overlay_leaf {
	uint64_t index;      /* lba >> 8 */
	uint64_t bits[4];
	uint16_t count, cap;
	uint64_t *words;     /* kind in bits 62..63, address in the rest; cap of them, then cap sums */
};

struct overlay_range {
	uint64_t lba, nblocks;
	struct vc_base *base; /* NULL: zeros */
	uint64_t base_lba;
};

struct vc_overlay {
	atomic_uint refs;
	const struct vc_overlay_owner *owner;
	void *slice;
	struct overlay_leaf **table; /* open addressing, size a power of two */
	size_t table_size, nleaves;
	uint64_t nblocks;
	struct overlay_range *ranges;
	size_t nranges, ranges_cap;
	uint32_t ref_depth;
};

#define WORD_KIND_SHIFT 62
#define WORD_ADDR_MASK ((UINT64_C(1) << WORD_KIND_SHIFT) - 1)

static uint64_t word_make(enum vc_slot_kind kind, uint64_t addr) { return (uint64_t)kind << WORD_KIND_SHIFT | addr; }

struct vc_overlay *vc_overlay_new(const struct vc_overlay_owner *owner, void *slice)
{
	struct vc_overlay *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	atomic_init(&o->refs, 1);
	o->owner = owner;
	o->slice = slice;
	if (slice)
		owner->slice_hold(slice);
	return o;
}

struct vc_overlay *vc_overlay_get(struct vc_overlay *o)
{
	atomic_fetch_add(&o->refs, 1);
	return o;
}

static void leaf_free(struct overlay_leaf *leaf)
{
	if (leaf)
		free(leaf->words);
	free(leaf);
}

void vc_overlay_put(struct vc_overlay *o)
{
	if (!o || atomic_fetch_sub(&o->refs, 1) != 1)
		return;
	for (size_t i = 0; i < o->table_size; i++)
		leaf_free(o->table[i]);
	for (size_t i = 0; i < o->nranges; i++)
		if (o->ranges[i].base)
			o->owner->base_put(o->ranges[i].base);
	free(o->table);
	free(o->ranges);
	if (o->slice)
		o->owner->release(o->slice);
	free(o);
}

/* ---- the hash of leaves ---- */

static size_t leaf_hash(uint64_t index, size_t size)
{
	return (size_t)(index * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (size - 1);
}

static struct overlay_leaf **leaf_place(struct overlay_leaf **table, size_t size, uint64_t index)
{
	size_t i = leaf_hash(index, size);

	while (table[i] && table[i]->index != index)
		i = (i + 1) & (size - 1);
	return &table[i];
}

static struct overlay_leaf *leaf_find(const struct vc_overlay *o, uint64_t index)
{
	return o->table_size ? *leaf_place(o->table, o->table_size, index) : NULL;
}

static int table_grow(struct vc_overlay *o, size_t more)
{
	size_t size = o->table_size ? o->table_size : 4;
	struct overlay_leaf **table;

	while ((o->nleaves + more) * 4 > size * 3)
		size *= 2;
	if (size == o->table_size)
		return 0;
	table = calloc(size, sizeof(struct overlay_leaf *));
	if (!table)
		return -ENOMEM;
	for (size_t i = 0; i < o->table_size; i++)
		if (o->table[i])
			*leaf_place(table, size, o->table[i]->index) = o->table[i];
	free(o->table);
	o->table = table;
	o->table_size = size;
	return 0;
}

static uint32_t *leaf_sums(const struct overlay_leaf *leaf) { return (uint32_t *)(leaf->words + leaf->cap); }

static bool leaf_has(const struct overlay_leaf *leaf, unsigned int block)
{
	return leaf->bits[block / 64] >> (block % 64) & 1;
}

static unsigned int leaf_rank(const struct overlay_leaf *leaf, unsigned int block)
{
	unsigned int rank = 0;

	for (unsigned int i = 0; i < block / 64; i++)
		rank += (unsigned int)__builtin_popcountll(leaf->bits[i]);
	if (block % 64)
		rank += (unsigned int)__builtin_popcountll(leaf->bits[block / 64] << (64 - block % 64));
	return rank;
}

/* Room for `more` entries. */
static int leaf_reserve(struct overlay_leaf *leaf, unsigned int more)
{
	unsigned int want = VC_MIN(leaf->count + more, VC_LEAF_BLOCKS), cap = leaf->cap ? leaf->cap : 1;
	uint64_t *words;

	if (want <= leaf->cap)
		return 0;
	while (cap < want)
		cap *= 2;
	words = malloc(cap * (sizeof(uint64_t) + sizeof(uint32_t)));
	if (!words)
		return -ENOMEM;
	if (leaf->count) {
		memcpy(words, leaf->words, leaf->count * sizeof(uint64_t));
		memcpy(words + cap, leaf_sums(leaf), leaf->count * sizeof(uint32_t));
	}
	free(leaf->words);
	leaf->words = words;
	leaf->cap = (uint16_t)cap;
	return 0;
}

static int leaf_prepare(struct vc_overlay *o, uint64_t index, unsigned int blocks)
{
	struct overlay_leaf *leaf = leaf_find(o, index);

	if (!leaf) {
		if (table_grow(o, 1) < 0)
			return -ENOMEM;
		leaf = calloc(1, sizeof(*leaf));
		if (!leaf)
			return -ENOMEM;
		leaf->index = index;
		*leaf_place(o->table, o->table_size, index) = leaf;
		o->nleaves++;
	}
	return leaf_reserve(leaf, blocks);
}

static void leaf_set(struct vc_overlay *o, uint64_t lba, uint64_t word, uint32_t sum)
{
	struct overlay_leaf *leaf = leaf_find(o, lba >> VC_LEAF_SHIFT);
	unsigned int block = lba & (VC_LEAF_BLOCKS - 1), rank = leaf_rank(leaf, block);
	uint32_t *sums = leaf_sums(leaf);

	if (!leaf_has(leaf, block)) {
		size_t after = leaf->count - rank;

		memmove(leaf->words + rank + 1, leaf->words + rank, after * sizeof(uint64_t));
		memmove(sums + rank + 1, sums + rank, after * sizeof(uint32_t));
		leaf->bits[block / 64] |= UINT64_C(1) << (block % 64);
		leaf->count++;
		o->nblocks++;
	}
	leaf->words[rank] = word;
	sums[rank] = sum;
}

/* Remove the entries of blocks first .. last of a leaf. The empty leaf stays: it costs little and may be wanted again. */
static void leaf_clear(struct vc_overlay *o, struct overlay_leaf *leaf, unsigned int first, unsigned int last)
{
	unsigned int kept = 0, rank = 0;
	uint32_t *sums = leaf_sums(leaf);

	for (unsigned int block = 0; block < VC_LEAF_BLOCKS; block++) {
		if (!leaf_has(leaf, block))
			continue;
		if (block >= first && block <= last) {
			leaf->bits[block / 64] &= ~(UINT64_C(1) << (block % 64));
		} else {
			leaf->words[kept] = leaf->words[rank];
			sums[kept++] = sums[rank];
		}
		rank++;
	}
	o->nblocks -= leaf->count - kept;
	leaf->count = (uint16_t)kept;
}

static void leaf_clear_range(struct vc_overlay *o, struct overlay_leaf *leaf, uint64_t lba, uint64_t end)
{
	uint64_t start = leaf->index << VC_LEAF_SHIFT, stop = start + VC_LEAF_BLOCKS;

	if (leaf->count && start < end && stop > lba)
		leaf_clear(o, leaf, (unsigned int)(VC_MAX(start, lba) - start), (unsigned int)(VC_MIN(stop, end) - 1 - start));
}

static void entries_clear(struct vc_overlay *o, uint64_t lba, uint64_t nblocks)
{
	uint64_t first = lba >> VC_LEAF_SHIFT, last = (lba + nblocks - 1) >> VC_LEAF_SHIFT;

	if (last - first < o->table_size) {
		for (uint64_t index = first; index <= last; index++) {
			struct overlay_leaf *leaf = leaf_find(o, index);

			if (leaf)
				leaf_clear_range(o, leaf, lba, lba + nblocks);
		}
		return;
	}
	for (size_t i = 0; i < o->table_size; i++)
		if (o->table[i])
			leaf_clear_range(o, o->table[i], lba, lba + nblocks);
}

int vc_overlay_prepare(struct vc_overlay *o, uint64_t lba, uint64_t nblocks)
{
	while (nblocks > 0) {
		uint64_t n = VC_MIN(nblocks, VC_LEAF_BLOCKS - (lba & (VC_LEAF_BLOCKS - 1)));

		if (leaf_prepare(o, lba >> VC_LEAF_SHIFT, (unsigned int)n) < 0)
			return -ENOMEM;
		lba += n;
		nblocks -= n;
	}
	return 0;
}

void vc_overlay_set_log(struct vc_overlay *o, uint64_t lba, uint64_t nblocks, uint64_t addr, const uint32_t *sums)
{
	for (uint64_t i = 0; i < nblocks; i++)
		leaf_set(o, lba + i, word_make(VC_SLOT_LOG, addr + i * VC_BLOCK_SIZE), sums[i]);
}

void vc_overlay_set_chunk(struct vc_overlay *o, uint64_t lba, uint64_t nblocks, uint64_t entry)
{
	for (uint64_t i = 0; i < nblocks; i++)
		leaf_set(o, lba + i, word_make(VC_SLOT_CHUNK, entry + i), 0);
}

/* ---- ranges ---- */

/* Index of the first range that ends after lba. */
static size_t range_find(const struct vc_overlay *o, uint64_t lba)
{
	size_t low = 0, high = o->nranges;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (o->ranges[mid].lba + o->ranges[mid].nblocks <= lba)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void range_remove(struct vc_overlay *o, size_t at)
{
	if (o->ranges[at].base)
		o->owner->base_put(o->ranges[at].base);
	memmove(&o->ranges[at], &o->ranges[at + 1], (o->nranges - at - 1) * sizeof(*o->ranges));
	o->nranges--;
}

static void range_insert(struct vc_overlay *o, size_t at, const struct overlay_range *range)
{
	memmove(&o->ranges[at + 1], &o->ranges[at], (o->nranges - at) * sizeof(*o->ranges));
	o->ranges[at] = *range;
	o->nranges++;
}

static void range_cut_front(struct overlay_range *range, uint64_t blocks)
{
	range->lba += blocks;
	range->base_lba += range->base ? blocks : 0;
	range->nblocks -= blocks;
}

/* No range covers any of lba .. end - 1 afterwards. Needs room for one more. Returns where such a range belongs. */
static size_t range_clear(struct vc_overlay *o, uint64_t lba, uint64_t end)
{
	size_t at = range_find(o, lba);

	if (at < o->nranges && o->ranges[at].lba < lba) {
		struct overlay_range *left = &o->ranges[at], right = *left;

		if (left->lba + left->nblocks > end) {
			range_cut_front(&right, end - right.lba);
			if (right.base)
				o->owner->base_get(right.base);
			range_insert(o, at + 1, &right);
			left = &o->ranges[at];
		}
		left->nblocks = lba - left->lba;
		at++;
	}
	while (at < o->nranges && o->ranges[at].lba + o->ranges[at].nblocks <= end)
		range_remove(o, at);
	if (at < o->nranges && o->ranges[at].lba < end)
		range_cut_front(&o->ranges[at], end - o->ranges[at].lba);
	return at;
}

static bool range_joins(const struct overlay_range *a, const struct overlay_range *b)
{
	return a->lba + a->nblocks == b->lba && a->base == b->base && (!a->base || a->base_lba + a->nblocks == b->base_lba);
}

static void range_join(struct vc_overlay *o, size_t at)
{
	if (at + 1 < o->nranges && range_joins(&o->ranges[at], &o->ranges[at + 1])) {
		o->ranges[at].nblocks += o->ranges[at + 1].nblocks;
		range_remove(o, at + 1);
	}
}

static void range_set(struct vc_overlay *o, const struct overlay_range *range)
{
	size_t at;

	entries_clear(o, range->lba, range->nblocks);
	at = range_clear(o, range->lba, range->lba + range->nblocks);
	if (range->base)
		o->owner->base_get(range->base);
	range_insert(o, at, range);
	range_join(o, at);
	if (at > 0)
		range_join(o, at - 1);
}

/* Short ranges of zeros are kept as entries, so that a trim in small pieces stays cheap. */
static bool range_is_short(uint64_t nblocks, const struct vc_base *base) { return !base && nblocks < VC_LEAF_BLOCKS; }

int vc_overlay_prepare_range(struct vc_overlay *o, uint64_t lba, uint64_t nblocks)
{
	if (nblocks < VC_LEAF_BLOCKS && vc_overlay_prepare(o, lba, nblocks) < 0)
		return -ENOMEM;
	if (o->nranges + 2 > o->ranges_cap) {
		size_t cap = o->ranges_cap ? o->ranges_cap * 2 : 4;
		struct overlay_range *ranges = realloc(o->ranges, cap * sizeof(*ranges));

		if (!ranges)
			return -ENOMEM;
		o->ranges = ranges;
		o->ranges_cap = cap;
	}
	return 0;
}

void vc_overlay_set_range(struct vc_overlay *o, uint64_t lba, uint64_t nblocks, struct vc_base *base, uint64_t base_lba)
{
	struct overlay_range range = { lba, nblocks, base, base ? base_lba : 0 };

	if (range_is_short(nblocks, base)) {
		for (uint64_t i = 0; i < nblocks; i++)
			leaf_set(o, lba + i, word_make(VC_SLOT_ZERO, 0), 0);
		return;
	}
	range_set(o, &range);
}

/* ---- reading ---- */

static void slot_from_word(struct vc_slot *slot, uint64_t word, uint32_t sum)
{
	*slot = (struct vc_slot){ .kind = (enum vc_slot_kind)(word >> WORD_KIND_SHIFT), .sum = sum, .addr = word & WORD_ADDR_MASK };
}

static void slot_from_range(struct vc_slot *slot, const struct overlay_range *range, uint64_t lba)
{
	*slot = (struct vc_slot){ .kind = range->base ? VC_SLOT_BASE : VC_SLOT_ZERO,
				  .addr = range->base ? range->base_lba + (lba - range->lba) : 0, .base = range->base };
}

uint64_t vc_overlay_lookup(const struct vc_overlay *o, uint64_t lba, uint64_t n, struct vc_slot *slots)
{
	struct overlay_leaf *leaf = NULL;
	uint64_t leaf_index = UINT64_MAX, left = 0;
	size_t range = o->nranges ? range_find(o, lba) : 0;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t at = lba + i;
		unsigned int block = at & (VC_LEAF_BLOCKS - 1);

		if (slots[i].kind != VC_SLOT_NONE)
			continue;
		if (leaf_index != at >> VC_LEAF_SHIFT) {
			leaf_index = at >> VC_LEAF_SHIFT;
			leaf = leaf_find(o, leaf_index);
		}
		while (range < o->nranges && o->ranges[range].lba + o->ranges[range].nblocks <= at)
			range++;
		if (leaf && leaf_has(leaf, block)) {
			unsigned int rank = leaf_rank(leaf, block);

			slot_from_word(&slots[i], leaf->words[rank], leaf_sums(leaf)[rank]);
		} else if (range < o->nranges && o->ranges[range].lba <= at) {
			slot_from_range(&slots[i], &o->ranges[range], at);
		} else {
			left++;
		}
	}
	return left;
}

/* First entry at or after `lba`, below end. Walks leaf by leaf, or over the table when that is shorter. */
static bool entry_next(const struct vc_overlay *o, uint64_t lba, uint64_t end, uint64_t *ret_lba)
{
	uint64_t first = lba >> VC_LEAF_SHIFT, last = (end - 1) >> VC_LEAF_SHIFT, best = UINT64_MAX;
	bool by_index = last - first < o->table_size;
	uint64_t steps = by_index ? last - first + 1 : o->table_size;

	for (uint64_t i = 0; i < steps; i++) {
		const struct overlay_leaf *leaf = by_index ? leaf_find(o, first + i) : o->table[i];

		if (!leaf || leaf->index < first || leaf->index > last || leaf->index > best >> VC_LEAF_SHIFT)
			continue;
		for (unsigned int b = 0; b < VC_LEAF_BLOCKS; b++) {
			uint64_t at = leaf->index << VC_LEAF_SHIFT | b;

			if (at >= lba && at < end && at < best && leaf_has(leaf, b)) {
				best = at;
				break;
			}
		}
		if (by_index && best != UINT64_MAX)
			break;
	}
	*ret_lba = best;
	return best != UINT64_MAX;
}

bool vc_overlay_next(const struct vc_overlay *o, uint64_t lba, uint64_t end, uint64_t *ret_lba, uint64_t *ret_end)
{
	size_t at = range_find(o, lba);
	uint64_t entry, start;

	if (!entry_next(o, lba, end, &entry))
		entry = UINT64_MAX;
	start = at < o->nranges ? VC_MAX(o->ranges[at].lba, lba) : UINT64_MAX;
	if (VC_MIN(entry, start) >= end)
		return false;
	*ret_lba = VC_MIN(entry, start);
	if (entry <= start)
		*ret_end = entry + 1;
	else
		*ret_end = VC_MIN(VC_MIN(o->ranges[at].lba + o->ranges[at].nblocks, entry), end);
	return true;
}

void *vc_overlay_slice(const struct vc_overlay *o) { return o->slice; }
bool vc_overlay_empty(const struct vc_overlay *o) { return o->nblocks == 0 && o->nranges == 0; }
uint64_t vc_overlay_blocks(const struct vc_overlay *o) { return o->nblocks; }
uint64_t vc_overlay_leaves(const struct vc_overlay *o) { return o->nleaves + o->nranges; }
uint32_t vc_overlay_ref_depth(const struct vc_overlay *o) { return o->ref_depth; }
void vc_overlay_set_ref_depth(struct vc_overlay *o, uint32_t depth) { o->ref_depth = VC_MAX(o->ref_depth, depth); }

/* ---- merging and listing ---- */

int vc_overlay_merge(struct vc_overlay *o, const struct vc_overlay *newer)
{
	for (size_t i = 0; i < newer->nranges; i++) {
		if (vc_overlay_prepare_range(o, newer->ranges[i].lba, newer->ranges[i].nblocks) < 0)
			return -ENOMEM;
		range_set(o, &newer->ranges[i]);
	}
	for (size_t i = 0; i < newer->table_size; i++) {
		const struct overlay_leaf *leaf = newer->table[i];
		unsigned int rank = 0;

		if (!leaf || leaf->count == 0)
			continue;
		if (leaf_prepare(o, leaf->index, leaf->count) < 0)
			return -ENOMEM;
		for (unsigned int b = 0; b < VC_LEAF_BLOCKS; b++)
			if (leaf_has(leaf, b)) {
				leaf_set(o, leaf->index << VC_LEAF_SHIFT | b, leaf->words[rank], leaf_sums(leaf)[rank]);
				rank++;
			}
	}
	o->ref_depth = VC_MAX(o->ref_depth, newer->ref_depth);
	return 0;
}

static int leaf_compare(const void *a, const void *b)
{
	uint64_t x = (*(struct overlay_leaf *const *)a)->index, y = (*(struct overlay_leaf *const *)b)->index;

	return x < y ? -1 : x > y;
}

struct run_list {
	struct vc_overlay_run *runs;
	size_t n, cap;
	const struct vc_overlay *o;
	size_t range;          /* first range not listed whole */
	uint64_t range_from;   /* of that one, listed up to here */
};

static int run_add(struct run_list *list, const struct vc_overlay_run *run)
{
	if (list->n == list->cap) {
		size_t cap = list->cap ? list->cap * 2 : 64;
		struct vc_overlay_run *runs = realloc(list->runs, cap * sizeof(*runs));

		if (!runs)
			return -ENOMEM;
		list->runs = runs;
		list->cap = cap;
	}
	list->runs[list->n++] = *run;
	return 0;
}

/* List what ranges cover below `lba`, then skip that block. */
static int run_ranges_until(struct run_list *list, uint64_t lba)
{
	while (list->range < list->o->nranges) {
		const struct overlay_range *range = &list->o->ranges[list->range];
		uint64_t from = VC_MAX(range->lba, list->range_from), end = range->lba + range->nblocks;
		struct vc_overlay_run run = { .lba = from };

		if (from >= lba)
			return 0;
		if (from < end) {
			run.nblocks = VC_MIN(end, lba) - from;
			slot_from_range(&run.slot, range, from);
			if (run_add(list, &run) < 0)
				return -ENOMEM;
		}
		if (end > lba) {
			list->range_from = lba;
			return 0;
		}
		list->range++;
	}
	return 0;
}

static int run_leaf(struct run_list *list, const struct overlay_leaf *leaf)
{
	unsigned int rank = 0;

	for (unsigned int b = 0; b < VC_LEAF_BLOCKS; b++) {
		struct vc_overlay_run run = { .lba = leaf->index << VC_LEAF_SHIFT | b, .nblocks = 1 };

		if (!leaf_has(leaf, b))
			continue;
		slot_from_word(&run.slot, leaf->words[rank], leaf_sums(leaf)[rank]);
		rank++;
		if (run_ranges_until(list, run.lba) < 0 || run_add(list, &run) < 0)
			return -ENOMEM;
		list->range_from = run.lba + 1;
	}
	return 0;
}

int vc_overlay_runs(const struct vc_overlay *o, struct vc_overlay_run **ret_runs, size_t *ret_n)
{
	struct overlay_leaf **sorted = malloc((o->nleaves + 1) * sizeof(struct overlay_leaf *));
	struct run_list list = { .o = o };
	size_t n = 0;
	int r = sorted ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < o->table_size; i++)
		if (o->table[i])
			sorted[n++] = o->table[i];
	if (n)
		qsort(sorted, n, sizeof(*sorted), leaf_compare);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = run_leaf(&list, sorted[i]);
	if (r == 0)
		r = run_ranges_until(&list, UINT64_MAX);
	free(sorted);
	if (r < 0) {
		free(list.runs);
		return r;
	}
	*ret_runs = list.runs;
	*ret_n = list.n;
	return 0;
}
