/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta_check: look at an LMDB file before LMDB maps it, because a page that is missing there is a SIGBUS.
 *
 *   page 0, page 1   meta pages; the one with the larger transaction number is the state of the file
 *   page 2 ...       trees, overflow pages and free pages, up to the "last page" of the meta page
 *
 * The file may be shorter than its last page and be in order: LMDB does not write pages that were allocated and given up
 * within one transaction, and when such pages are the last ones the file never grew to hold them. They are
 * then on the free list. So when pages are missing, the free list (tree 0, read here with plain reads) has to name
 * every one of them; otherwise the file was truncated. Bytes beyond the last whole page are the rest of a write that
 * did not finish and are ignored.
 *
 * What the pages hold is looked at afterwards, by meta_walk.
 */
#include "config.h"
#include "meta_check.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "meta_page.h"
#include "msg.h"

struct meta_file {
	const char *path;
	int fd;
	uint32_t page_size;
	uint64_t npages;     /* whole pages in the file */
	uint64_t last_page;  /* as claimed */
	uint64_t nfound;     /* pages beyond the end of the file that the free list names */
	uint64_t visits;     /* pages of the free list still allowed to be read: a loop ends */
};

static int file_read(const struct meta_file *file, void *buf, size_t len, uint64_t offset)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(file->fd, (char *)buf + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int r = -errno;

			vc_err("%s: read at %" PRIu64 ": %s", file->path, offset + done, strerror(-r));
			return r;
		}
		if (n == 0)
			return -EUCLEAN;
		done += (size_t)n;
	}
	return 0;
}

/* No message for -ENOENT. */
static int file_open(struct meta_file *file)
{
	int r;

	file->fd = open(file->path, O_RDONLY | O_CLOEXEC);
	if (file->fd >= 0)
		return 0;
	r = -errno;
	if (r != -ENOENT)
		vc_err("%s: open: %s", file->path, strerror(-r));
	return r;
}

static int file_bad(const struct meta_file *file, const char *what)
{
	vc_err("%s: %s: the file is damaged or truncated; restore it from the backup and the journal", file->path, what);
	return -EUCLEAN;
}

static bool tree_ok(const struct lmdb_tree *tree, uint64_t last_page)
{
	if (tree->root == LMDB_NO_PAGE)
		return true;
	return tree->root >= LMDB_FREE_BEGINS && tree->root <= last_page && tree->depth <= LMDB_DEPTH_MAX;
}

static bool meta_page_ok(const struct lmdb_meta *meta)
{
	uint32_t size = meta->free_list.pad;

	return meta->page.flags & LMDB_META && meta->magic == LMDB_MAGIC && meta->version == LMDB_VERSION &&
	       size >= LMDB_PAGE_MIN && size <= LMDB_PAGE_MAX && !(size & (size - 1));
}

/*
 * Of the page that counts. The other may hold the trees of a transaction that never was under the number of an old one: that is
 * how LMDB takes a meta page back that it could not write.
 */
static bool meta_trees_ok(const struct lmdb_meta *meta)
{
	return meta->last_page >= 1 && meta->last_page < (UINT64_C(1) << 47) && tree_ok(&meta->free_list, meta->last_page) &&
	       tree_ok(&meta->main, meta->last_page);
}

/** Read both meta pages and choose as LMDB does. */
static int file_read_meta(struct meta_file *file, uint64_t size, struct lmdb_meta *ret)
{
	struct lmdb_meta metas[2];
	int r;

	r = file_read(file, &metas[0], sizeof(metas[0]), 0);
	if (r == -EUCLEAN || (r == 0 && !meta_page_ok(&metas[0])))
		return file_bad(file, "meta page 0 is not valid");
	if (r < 0)
		return r;
	r = file_read(file, &metas[1], sizeof(metas[1]), metas[0].free_list.pad);
	if (r == -EUCLEAN || (r == 0 && (!meta_page_ok(&metas[1]) || metas[1].free_list.pad != metas[0].free_list.pad)))
		return file_bad(file, "meta page 1 is not valid");
	if (r < 0)
		return r;
	*ret = metas[metas[1].txn > metas[0].txn];
	if (!meta_trees_ok(ret))
		return file_bad(file, "the meta page in use is not valid");
	file->page_size = ret->free_list.pad;
	file->npages = size / file->page_size;
	file->last_page = ret->last_page;
	file->visits = file->npages;
	return 0;
}

/** A value of the free list: a count, then that many page numbers. */
static int free_list_value(struct meta_file *file, uint64_t offset, uint64_t len)
{
	uint64_t ids[512], count, n;
	int r;

	if (len < sizeof(count))
		return -EUCLEAN;
	r = file_read(file, &count, sizeof(count), offset);
	if (r < 0)
		return r;
	if (count > len / sizeof(count) - 1)
		return -EUCLEAN;
	for (offset += sizeof(count); count; count -= n, offset += n * sizeof(ids[0])) {
		n = VC_MIN(count, VC_ARRAY_LEN(ids));
		r = file_read(file, ids, n * sizeof(ids[0]), offset);
		if (r < 0)
			return r;
		for (uint64_t i = 0; i < n; i++)
			file->nfound += ids[i] >= file->npages && ids[i] <= file->last_page;
	}
	return 0;
}

static int free_list_node(struct meta_file *file, const uint8_t *page, uint64_t number, uint16_t at)
{
	struct lmdb_node node;
	uint64_t len, overflow;

	if (at < sizeof(struct lmdb_page) || at + sizeof(node) > file->page_size)
		return -EUCLEAN;
	memcpy(&node, page + at, sizeof(node));
	len = lmdb_value_len(&node);
	if (!(node.flags & LMDB_NODE_BIG))
		return free_list_value(file, number * file->page_size + at + sizeof(node) + node.key_len, len);
	if (at + sizeof(node) + node.key_len + sizeof(overflow) > file->page_size)
		return -EUCLEAN;
	memcpy(&overflow, page + at + sizeof(node) + node.key_len, sizeof(overflow));
	if (overflow > file->last_page)
		return -EUCLEAN;
	return free_list_value(file, overflow * file->page_size + sizeof(struct lmdb_page), len);
}

static int free_list_walk(struct meta_file *file, uint64_t number, uint32_t depth);

static int free_list_child(struct meta_file *file, const uint8_t *page, uint16_t at, uint32_t depth)
{
	struct lmdb_node node;

	if (at < sizeof(struct lmdb_page) || at + sizeof(node) > file->page_size)
		return -EUCLEAN;
	memcpy(&node, page + at, sizeof(node));
	return free_list_walk(file, lmdb_child(&node), depth + 1);
}

static int free_list_page(struct meta_file *file, const uint8_t *page, uint64_t number, uint32_t depth)
{
	struct lmdb_page header;
	uint16_t at;
	int r = 0;

	memcpy(&header, page, sizeof(header));
	if (!(header.flags & (LMDB_BRANCH | LMDB_LEAF)) || header.lower < sizeof(header) ||
	    header.lower > file->page_size)
		return -EUCLEAN;
	for (size_t i = sizeof(header); r == 0 && i + sizeof(at) <= header.lower; i += sizeof(at)) {
		memcpy(&at, page + i, sizeof(at));
		r = header.flags & LMDB_LEAF ? free_list_node(file, page, number, at) :
					       free_list_child(file, page, at, depth);
	}
	return r;
}

static int free_list_walk(struct meta_file *file, uint64_t number, uint32_t depth)
{
	uint8_t *page;
	int r;

	if (depth > LMDB_DEPTH_MAX || number > file->last_page || file->visits == 0)
		return -EUCLEAN;
	file->visits--;
	page = malloc(file->page_size);
	if (!page)
		return -ENOMEM;
	r = file_read(file, page, file->page_size, number * file->page_size);
	if (r == 0)
		r = free_list_page(file, page, number, depth);
	free(page);
	return r;
}

static int file_check(struct meta_file *file)
{
	struct lmdb_meta meta;
	struct stat st;
	char text[160];
	int r;

	if (fstat(file->fd, &st) < 0) {
		r = -errno;
		vc_err("%s: stat: %s", file->path, strerror(-r));
		return r;
	}
	r = file_read_meta(file, (uint64_t)st.st_size, &meta);
	if (r < 0 || file->npages > file->last_page)
		return r;
	if (meta.free_list.root != LMDB_NO_PAGE) {
		r = free_list_walk(file, meta.free_list.root, 1);
		if (r < 0 && r != -EUCLEAN)
			return r;
	}
	if (r == 0 && file->nfound == file->last_page + 1 - file->npages)
		return 0;
	snprintf(text, sizeof(text), "holds %" PRIu64 " pages of %" PRIu64, file->npages, file->last_page + 1);
	return file_bad(file, text);
}

/* The table is some 64 KiB. */
static int lock_read(const struct meta_file *lock)
{
	uint8_t buf[4096];
	struct stat st;
	int r = fstat(lock->fd, &st) < 0 ? -errno : 0;

	for (uint64_t at = 0; r == 0 && at < (uint64_t)st.st_size; at += sizeof(buf))
		r = file_read(lock, buf, VC_MIN((uint64_t)st.st_size - at, sizeof(buf)), at);
	return r == -EUCLEAN ? 0 : r; /* cut by somebody: LMDB makes it as long as it must be */
}

int vc_meta_check_lock(const char *dir)
{
	char path[PATH_MAX];
	struct meta_file lock = { .path = path };
	int r;

	if ((size_t)snprintf(path, sizeof(path), "%s/lock.mdb", dir) >= sizeof(path))
		return -ENAMETOOLONG;
	r = file_open(&lock);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = lock_read(&lock);
	close(lock.fd);
	if (r < 0)
		vc_err("%s: cannot be read; remove it while nothing uses the pool: it says who reads, and keeps no data", path);
	return r;
}

int vc_meta_check_file(const char *path)
{
	struct meta_file file = { .path = path };
	int r = file_open(&file);

	if (r < 0)
		return r;
	r = file_check(&file);
	close(file.fd);
	return r;
}
