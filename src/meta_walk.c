/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta_walk: structure of an LMDB file.
 *
 *   meta page -> free list      transaction -> pages that are free
 *             -> main tree      name -> tree record of a database; other values are not ours
 *                  -> "node", "cat", ...
 *
 * A tree is in order if and only if
 *   1  each page lies in the file, carries its own number, is used once in the whole file, and is a branch or leaf as its depth demands
 *   2  the nodes of a page lie behind one another between `upper` and its end, and keys and values within it
 *   3  all keys ascend, and lie between the keys of the branches above them
 *   4  the tree record has its exact numbers of pages of each kind and of entries
 * Free pages are used by nothing else.
 */
#include "config.h"
#include "meta_walk.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "meta_impl.h"
#include "meta_page.h"
#include "msg.h"

#define WALK_KEY_MAX 511u  /* LMDB's own limit */
#define WALK_ALIGN 4096u

/* Which tree: decides how keys compare and what values are. */
enum walk_kind { WALK_FREE, WALK_MAIN, WALK_NODE, WALK_CAT, WALK_OTHER };

struct walk_tree {
	enum walk_kind kind;
	struct lmdb_tree want, found; /* found: counts only */
	uint8_t last[WALK_KEY_MAX];   /* the key before, or the lowest allowed */
	size_t last_len;
	bool any;                     /* last is set */
	bool equal_ok;                /* last is a branch's key: the next may be equal */
};

struct walk {
	struct vc_meta_walk *o;
	int fd;
	uint32_t page_size;
	uint64_t last_page;
	uint64_t *used;               /* a bit a page */
	uint8_t *big;                 /* a value on overflow pages; aligned */
	size_t big_size;
};

static int walk_bad(const struct walk *w, uint64_t page, const char *fmt, ...) VC_PRINTF(3, 4);

static int walk_bad(const struct walk *w, uint64_t page, const char *fmt, ...)
{
	char text[160];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	vc_err("%s: page %" PRIu64 " at offset %" PRIu64 ": %s: the file is damaged; restore it from the backup and the journal",
	       w->o->path, page, page * w->page_size, text);
	return -EUCLEAN;
}

static int walk_read(const struct walk *w, void *buf, size_t len, uint64_t page)
{
	uint64_t offset = page * w->page_size;
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(w->fd, (char *)buf + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int r = -errno;

			vc_err("%s: read at %" PRIu64 ": %s", w->o->path, offset + done, strerror(-r));
			return r;
		}
		if (n == 0)
			return walk_bad(w, page, "lies behind the end of the file");
		done += (size_t)n;
	}
	return w->o->step ? w->o->step(w->o->ctx, len) : 0;
}

/* From now on this page is in use. */
static int walk_take(struct walk *w, uint64_t page, uint64_t from)
{
	if (page < LMDB_FREE_BEGINS || page > w->last_page)
		return walk_bad(w, from, "names page %" PRIu64 ", which cannot be", page);
	if (w->used[page / 64] >> (page % 64) & 1)
		return walk_bad(w, from, "names page %" PRIu64 ", which is used elsewhere", page);
	w->used[page / 64] |= UINT64_C(1) << (page % 64);
	w->o->pages++;
	return 0;
}

/* ---- keys ---- */

static int key_compare(enum walk_kind kind, const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
	int c;

	if (kind == WALK_FREE) {
		uint64_t x, y;

		memcpy(&x, a, sizeof(x));
		memcpy(&y, b, sizeof(y));
		return x < y ? -1 : x > y;
	}
	c = memcmp(a, b, VC_MIN(a_len, b_len));
	return c ? c : (a_len > b_len) - (a_len < b_len);
}

/* A key met on the way from left to right. */
static int key_next(struct walk *w, struct walk_tree *t, uint64_t page, const uint8_t *key, size_t len, bool branch)
{
	int c = t->any && len ? key_compare(t->kind, key, len, t->last, t->last_len) : 1;

	if (len == 0 || len > WALK_KEY_MAX || (t->kind == WALK_FREE && len != sizeof(uint64_t)))
		return walk_bad(w, page, "a key of %zu bytes", len);
	if (c < 0 || (c == 0 && !t->equal_ok))
		return walk_bad(w, page, "a key is out of order");
	memcpy(t->last, key, len);
	t->last_len = len;
	t->any = true;
	t->equal_ok = branch;
	return 0;
}

/* ---- values ---- */

static int walk_tree(struct walk *w, struct walk_tree *t, uint64_t from);

static int value_main(struct walk *w, uint64_t page, const struct lmdb_node *node, const uint8_t *key, const uint8_t *value, uint64_t len)
{
	struct walk_tree t = { .kind = WALK_OTHER };

	if (!(node->flags & LMDB_NODE_TREE))
		return 0;
	if (len != sizeof(t.want))
		return walk_bad(w, page, "a tree record of %" PRIu64 " bytes", len);
	memcpy(&t.want, value, sizeof(t.want));
	if (node->key_len == 4 && memcmp(key, "node", 4) == 0)
		t.kind = WALK_NODE;
	else if (node->key_len == 3 && memcmp(key, "cat", 3) == 0)
		t.kind = WALK_CAT;
	if (t.want.flags && t.kind != WALK_OTHER)
		return walk_bad(w, page, "a tree record with flags %x", t.want.flags);
	return t.want.flags ? 0 : walk_tree(w, &t, page);
}

/* A count, then that many page numbers, descending. */
static int value_free(struct walk *w, uint64_t page, const uint8_t *value, uint64_t len)
{
	uint64_t count, id, before = UINT64_MAX;
	int r = 0;

	memcpy(&count, value, VC_MIN(len, sizeof(count)));
	if (len < sizeof(count) || count > len / sizeof(count) - 1)
		return walk_bad(w, page, "a piece of the free list of %" PRIu64 " bytes", len);
	for (uint64_t i = 1; i <= count && r == 0; i++) {
		memcpy(&id, value + i * sizeof(id), sizeof(id));
		r = id < before ? walk_take(w, id, page) : walk_bad(w, page, "the free list is out of order");
		before = id;
	}
	return r;
}

static int value_ours(struct walk *w, enum vc_meta_db db, const uint8_t *key, size_t key_len, const uint8_t *value, uint64_t len)
{
	vc_le64 sum;

	w->o->count[db]++;
	if (db == VC_DB_NODE && !w->o->nodes)
		return 0;
	if (!vc_meta_value_ok(db, key, key_len, value, len))
		return w->o->bad(w->o->ctx, db, key, key_len);
	memcpy(&sum, value, sizeof(sum));
	if (db == VC_DB_CAT)
		w->o->rows_sum += vc_le64_get(sum);
	return 0;
}

static int walk_value(struct walk *w, struct walk_tree *t, uint64_t page, const struct lmdb_node *node, const uint8_t *key,
		      const uint8_t *value, uint64_t len)
{
	if (t->kind == WALK_FREE)
		return value_free(w, page, value, len);
	if (t->kind == WALK_MAIN)
		return value_main(w, page, node, key, value, len);
	if (t->kind == WALK_OTHER)
		return 0;
	return value_ours(w, t->kind == WALK_NODE ? VC_DB_NODE : VC_DB_CAT, key, node->key_len, value, len);
}

/* The value of a node lies on pages of its own. */
static int walk_big(struct walk *w, struct walk_tree *t, uint64_t from, const struct lmdb_node *node, const uint8_t *key, uint64_t first)
{
	uint64_t len = lmdb_value_len(node), need = VC_DIV_UP(sizeof(struct lmdb_page) + len, (uint64_t)w->page_size);
	struct lmdb_page head;
	uint64_t n;
	int r;

	if (first < LMDB_FREE_BEGINS || first > w->last_page || need > w->last_page - first + 1)
		return walk_bad(w, from, "names overflow page %" PRIu64 ", which cannot be", first);
	if (need * w->page_size > w->big_size) {
		free(w->big);
		w->big_size = need * w->page_size;
		w->big = aligned_alloc(WALK_ALIGN, VC_ROUND_UP(w->big_size, (size_t)WALK_ALIGN));
	}
	if (!w->big) {
		w->big_size = 0;
		return -ENOMEM;
	}
	r = walk_read(w, w->big, need * w->page_size, first);
	if (r != 0)
		return r;
	memcpy(&head, w->big, sizeof(head));
	n = head.lower | (uint64_t)head.upper << 16;
	if (head.number != first || head.flags != LMDB_OVERFLOW || n < need || n > w->last_page - first + 1)
		return walk_bad(w, first, "is not the overflow page it should be");
	for (uint64_t i = 0; i < n && r == 0; i++)
		r = walk_take(w, first + i, from);
	t->found.overflow_pages += n;
	return r < 0 ? r : walk_value(w, t, from, node, key, w->big + sizeof(head), len);
}

/* ---- pages ---- */

static int walk_page(struct walk *w, struct walk_tree *t, uint64_t number, uint64_t from, uint32_t depth);

static int walk_leaf_node(struct walk *w, struct walk_tree *t, uint64_t number, const struct lmdb_node *node, const uint8_t *key)
{
	uint64_t first;
	int r = key_next(w, t, number, key, node->key_len, false);

	t->found.entries++;
	if (r != 0)
		return r;
	if (!(node->flags & LMDB_NODE_BIG))
		return walk_value(w, t, number, node, key, key + node->key_len, lmdb_value_len(node));
	memcpy(&first, key + node->key_len, sizeof(first));
	return walk_big(w, t, number, node, key, first);
}

/* The first child's key is not used. */
static int walk_branch_node(struct walk *w, struct walk_tree *t, uint64_t number, const struct lmdb_node *node, const uint8_t *key,
			    bool first, uint32_t depth)
{
	int r = first ? 0 : key_next(w, t, number, key, node->key_len, true);

	return r < 0 ? r : walk_page(w, t, lmdb_child(node), number, depth + 1);
}

/* Bytes of a node in its page, or 0 when it does not fit there. */
static size_t node_size(const struct walk *w, const uint8_t *page, const struct lmdb_page *head, uint16_t at, struct lmdb_node *ret)
{
	size_t size;

	if (at < head->upper || at % 2 || at + sizeof(*ret) > w->page_size)
		return 0;
	memcpy(ret, page + at, sizeof(*ret));
	size = sizeof(*ret) + ret->key_len;
	if (head->flags == LMDB_LEAF)
		size += ret->flags & LMDB_NODE_BIG ? sizeof(uint64_t) : lmdb_value_len(ret);
	return at + size <= w->page_size ? VC_ROUND_UP(size, (size_t)2) : 0;
}

static bool node_flags_ok(const struct walk_tree *t, const struct lmdb_node *node)
{
	return node->flags == 0 || node->flags == LMDB_NODE_BIG || (node->flags == LMDB_NODE_TREE && t->kind == WALK_MAIN);
}

static int walk_nodes(struct walk *w, struct walk_tree *t, const uint8_t *page, const struct lmdb_page *head, uint32_t depth)
{
	size_t sum = 0, n = (head->lower - sizeof(*head)) / sizeof(uint16_t);
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		struct lmdb_node node;
		uint16_t at;
		size_t size;

		memcpy(&at, page + sizeof(*head) + i * sizeof(at), sizeof(at));
		size = node_size(w, page, head, at, &node);
		if (size == 0 || (head->flags == LMDB_LEAF && !node_flags_ok(t, &node)))
			return walk_bad(w, head->number, "node %zu of it is impossible", i);
		sum += size;
		if (head->flags == LMDB_LEAF)
			r = walk_leaf_node(w, t, head->number, &node, page + at + sizeof(node));
		else
			r = walk_branch_node(w, t, head->number, &node, page + at + sizeof(node), i == 0, depth);
	}
	return r == 0 && sum != w->page_size - head->upper ? walk_bad(w, head->number, "its nodes overlap") : r;
}

static int walk_head_check(struct walk *w, struct walk_tree *t, const struct lmdb_page *head, uint64_t number, uint32_t depth)
{
	bool leaf = depth == t->want.depth;
	size_t least = sizeof(*head) + (leaf || t->kind == WALK_FREE ? 1 : 2) * sizeof(uint16_t);

	if (head->number != number)
		return walk_bad(w, number, "says it is page %" PRIu64, head->number);
	if (head->flags != (leaf ? LMDB_LEAF : LMDB_BRANCH))
		return walk_bad(w, number, "flags %x where a %s belongs", head->flags, leaf ? "leaf" : "branch");
	if (head->lower < least || head->lower % 2 || head->upper < head->lower || head->upper > w->page_size)
		return walk_bad(w, number, "impossible bounds %u and %u", head->lower, head->upper);
	return 0;
}

/* Depth is bounded by that of the tree, which is at most LMDB_DEPTH_MAX. */
static int walk_page(struct walk *w, struct walk_tree *t, uint64_t number, uint64_t from, uint32_t depth)
{
	struct lmdb_page head;
	uint8_t *page;
	int r = walk_take(w, number, from);

	if (r < 0)
		return r;
	page = aligned_alloc(WALK_ALIGN, VC_ROUND_UP((size_t)w->page_size, (size_t)WALK_ALIGN));
	if (!page)
		return -ENOMEM;
	r = walk_read(w, page, w->page_size, number);
	if (r == 0) {
		memcpy(&head, page, sizeof(head));
		r = walk_head_check(w, t, &head, number, depth);
	}
	if (r == 0) {
		if (depth == t->want.depth)
			t->found.leaf_pages++;
		else
			t->found.branch_pages++;
		r = walk_nodes(w, t, page, &head, depth);
	}
	free(page);
	return r;
}

static int walk_tree(struct walk *w, struct walk_tree *t, uint64_t from)
{
	bool empty = t->want.root == LMDB_NO_PAGE;
	int r = 0;

	if (t->want.depth > LMDB_DEPTH_MAX || empty != (t->want.depth == 0))
		return walk_bad(w, from, "a tree of depth %u", t->want.depth);
	if (!empty)
		r = walk_page(w, t, t->want.root, from, 1);
	if (r == 0 && (t->found.branch_pages != t->want.branch_pages || t->found.leaf_pages != t->want.leaf_pages ||
		       t->found.overflow_pages != t->want.overflow_pages || t->found.entries != t->want.entries))
		r = walk_bad(w, from, "a tree of %" PRIu64 " entries on %" PRIu64 " leaves has %" PRIu64 " on %" PRIu64, t->want.entries,
			     t->want.leaf_pages, t->found.entries, t->found.leaf_pages);
	return r;
}

/* ---- the file ---- */

/* The meta page of the snapshot; both were looked at by vc_meta_check_file. */
static int walk_meta(struct walk *w, struct lmdb_meta *ret)
{
	uint8_t *page = aligned_alloc(WALK_ALIGN, LMDB_PAGE_MAX);
	int r;

	w->page_size = WALK_ALIGN; /* for the first read */
	r = page ? walk_read(w, page, WALK_ALIGN, 0) : -ENOMEM;
	if (r == 0) {
		memcpy(ret, page, sizeof(*ret));
		w->page_size = ret->free_list.pad;
		if (w->page_size < LMDB_PAGE_MIN || w->page_size > LMDB_PAGE_MAX)
			r = walk_bad(w, 0, "not a meta page");
		else if (ret->txn != w->o->txn)
			r = walk_read(w, page, w->page_size, 1);
	}
	if (r == 0) {
		if (ret->txn != w->o->txn)
			memcpy(ret, page, sizeof(*ret));
		r = ret->txn == w->o->txn ? 0 : -EAGAIN;
	}
	free(page);
	if (r == 0 && ((ret->free_list.flags & ~LMDB_MADE_AS_FILE) != LMDB_INTEGER_KEY || ret->main.flags != 0 || ret->last_page > UINT64_C(1) << 47))
		r = walk_bad(w, ret->page.number, "a meta page with flags %x and %x", ret->free_list.flags, ret->main.flags);
	return r;
}

static int walk_all(struct walk *w)
{
	struct walk_tree main = { .kind = WALK_MAIN }, free_list = { .kind = WALK_FREE };
	struct lmdb_meta meta;
	uint64_t ahead = 0;
	int r;

	memset(&meta, 0, sizeof(meta));
	r = walk_meta(w, &meta);
	if (r != 0)
		return r;
	w->last_page = meta.last_page;
	while (!w->o->direct && vc_meta_ask_ahead(w->fd, (meta.last_page + 1) * w->page_size, &ahead))
		;
	w->used = calloc(meta.last_page / 64 + 1, sizeof(*w->used));
	if (!w->used)
		return -ENOMEM;
	main.want = meta.main;
	free_list.want = meta.free_list;
	r = walk_tree(w, &main, meta.page.number);
	return r < 0 ? r : walk_tree(w, &free_list, meta.page.number);
}

int vc_meta_walk(struct vc_meta_walk *walk)
{
	struct walk w = { .o = walk };
	int r;

	walk->pages = walk->rows_sum = 0;
	memset(walk->count, 0, sizeof(walk->count));
	w.fd = open(walk->path, O_RDONLY | O_CLOEXEC | (walk->direct ? O_DIRECT : 0));
	if (w.fd < 0 && walk->direct && errno == EINVAL)
		w.fd = open(walk->path, O_RDONLY | O_CLOEXEC);
	if (w.fd < 0)
		return vc_meta_failed(walk->path, "open", errno);
	r = walk_all(&w);
	close(w.fd);
	free(w.used);
	free(w.big);
	return r;
}
