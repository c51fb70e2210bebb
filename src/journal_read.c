/* SPDX-License-Identifier: BSD-2-Clause */
/* journal_read: see journal_read.h; doc/FORMAT.md, section 8, says when an entry is valid. */
#include "config.h"

#include "journal_read.h"

#include <stdio.h>
#include <stdlib.h>

#include "checksum.h"
#include "msg.h"
#include "record.h"

#define JOURNAL_ROW_HEAD 8u /* le32 length, le32 1 put / 0 delete */

/* ---- one entry ---- */

/* The row at *at, which moves past it. 0 or -EUCLEAN. */
static int entry_row(const uint8_t *e, size_t len, size_t *at, const uint8_t **ret_row, size_t *ret_len, bool *ret_put)
{
	vc_le32 head[2];
	const uint8_t *key, *value;
	size_t key_len, value_len;

	if (len - *at < sizeof(head))
		return -EUCLEAN;
	memcpy(head, e + *at, sizeof(head));
	*ret_len = vc_le32_get(head[0]);
	*ret_put = vc_le32_get(head[1]) != 0;
	if (vc_le32_get(head[1]) > 1 || len - *at - JOURNAL_ROW_HEAD < VC_ROUND_UP(*ret_len, (size_t)8))
		return -EUCLEAN;
	*ret_row = e + *at + JOURNAL_ROW_HEAD;
	*at += JOURNAL_ROW_HEAD + VC_ROUND_UP(*ret_len, (size_t)8);
	if (vc_row_decode(*ret_row, *ret_len, &key, &key_len, &value, &value_len) < 0)
		return -EUCLEAN;
	return key_len < 9 || key[0] == VC_ROW_STATE ? -EUCLEAN : 0;
}

static bool entry_items_ok(const uint8_t *e, uint64_t nitems)
{
	for (uint64_t i = 0; i < nitems; i++) {
		struct vc_disk_journal_item item;

		memcpy(&item, e + sizeof(struct vc_disk_journal_entry) + i * sizeof(item), sizeof(item));
		if (vc_le32_get(item.kind) < VC_JOURNAL_BASE || vc_le32_get(item.kind) >= VC_JOURNAL_KIND_END ||
		    vc_le32_get(item.reserved))
			return false;
	}
	return true;
}

/* Is what begins at e, with `avail` bytes to the end of its file, a valid entry? Its bytes are changed for a moment. */
static bool entry_is_valid(uint8_t *e, uint64_t avail, struct vc_disk_journal_entry *ret)
{
	struct vc_disk_journal_entry copy;
	uint64_t len, nitems, sum;
	const uint8_t *row;
	size_t row_len, pos;
	bool put;

	if (avail < sizeof(*ret))
		return false;
	memcpy(ret, e, sizeof(*ret));
	len = vc_le64_get(ret->len);
	nitems = vc_le64_get(ret->nitems);
	if (vc_le64_get(ret->magic) != VC_MAGIC_JOURNAL || len > avail || len < sizeof(*ret) || len % 8 ||
	    nitems > (len - sizeof(*ret)) / sizeof(struct vc_disk_journal_item) ||
	    vc_le64_get(ret->checkpoint_lsn) < vc_le64_get(ret->prev_lsn))
		return false;
	copy = *ret;
	copy.sum = vc_le64_of(0);
	memcpy(e, &copy, sizeof(copy));
	sum = vc_sum64(e, len, 0);
	memcpy(e, ret, sizeof(*ret));
	if (sum != vc_le64_get(ret->sum) || !entry_items_ok(e, nitems))
		return false;
	pos = sizeof(*ret) + nitems * sizeof(struct vc_disk_journal_item);
	for (uint64_t i = 0; i < vc_le64_get(ret->nrows); i++)
		if (entry_row(e, len, &pos, &row, &row_len, &put) < 0)
			return false;
	return pos == len;
}

/* ---- files ---- */

static int scan_add_file(void *ctx, const char *name)
{
	struct vc_journal_scan *s = ctx;
	char *end;
	unsigned long long lsn = strtoull(name, &end, 16);

	if (end != name + 16 || strcmp(end, ".jnl") != 0)
		return 0;
	if (vc_array_room(&s->files, s->nfiles, &s->files_cap, sizeof(*s->files)) < 0)
		return -ENOMEM;
	s->files[s->nfiles++] = lsn;
	return 0;
}

static int u64_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int scan_open(const struct vc_journal_scan *s, size_t i, struct vc_file **ret)
{
	char *path;
	int r;

	if (asprintf(&path, "%s/%016llx.jnl", s->dir, (unsigned long long)s->files[i]) < 0)
		return -ENOMEM;
	r = vc_io_open(s->io, path, VC_IO_READ, ret);
	free(path);
	return r;
}

static bool head_is_valid(const struct vc_journal_scan *s, const uint8_t *bytes, uint64_t size, uint64_t name)
{
	struct vc_disk_journal_segment head;

	if (size < sizeof(head))
		return false;
	memcpy(&head, bytes, sizeof(head));
	return vc_le64_get(head.magic) == VC_MAGIC_JOURNAL && memcmp(head.uuid, s->uuid, sizeof(head.uuid)) == 0 &&
		vc_le64_get(head.seq) == name && vc_le64_get(head.first_checkpoint) == name &&
		vc_le64_get(head.sum) == vc_sum64(&head, offsetof(struct vc_disk_journal_segment, sum), 0);
}

static int scan_bytes(struct vc_journal_scan *s, size_t file, uint8_t *bytes, uint64_t size)
{
	uint64_t at = sizeof(struct vc_disk_journal_segment);
	struct vc_disk_journal_entry e;

	if (!head_is_valid(s, bytes, size, s->files[file])) {
		s->nbroken++;
		vc_warn("%s/%016llx.jnl: does not begin as a file of this pool's journal; nothing of it is used", s->dir,
			(unsigned long long)s->files[file]);
		return 0;
	}
	s->nheaders++;
	for (; at < size && entry_is_valid(bytes + at, size - at, &e); at += vc_le64_get(e.len)) {
		if (vc_le64_get(e.checkpoint_lsn) == vc_le64_get(e.prev_lsn))
			continue; /* a checkpoint of nothing, as recovery makes them: leads nowhere */
		if (vc_array_room(&s->entries, s->nentries, &s->entries_cap, sizeof(*s->entries)) < 0)
			return -ENOMEM;
		s->entries[s->nentries] = (struct vc_journal_entry){
			.prev_lsn = vc_le64_get(e.prev_lsn), .checkpoint_lsn = vc_le64_get(e.checkpoint_lsn),
			.offset = at, .len = vc_le64_get(e.len), .file = (uint32_t)file, .order = (uint32_t)s->nentries,
		};
		s->nentries++;
	}
	if (at < size) {
		s->nbroken++;
		vc_info("%s/%016llx.jnl: no entry at offset %llu; the %llu bytes from there are not used", s->dir,
			(unsigned long long)s->files[file], (unsigned long long)at, (unsigned long long)(size - at));
	}
	return 0;
}

static int scan_file(struct vc_journal_scan *s, size_t i)
{
	struct vc_file *file;
	uint8_t *bytes = NULL;
	uint64_t size = 0;
	ssize_t n = 0;
	int r = scan_open(s, i, &file);

	if (r < 0)
		return r;
	r = vc_io_size(file, &size);
	if (r == 0) {
		bytes = malloc(size + 1);
		r = bytes ? 0 : -ENOMEM;
	}
	if (r == 0)
		n = vc_io_pread(file, bytes, size, 0);
	vc_io_close(file);
	if (r == 0 && n >= 0)
		r = scan_bytes(s, i, bytes, (uint64_t)n);
	else if (r == 0)
		s->nbroken++; /* said already; others may do without it */
	s->bytes += size;
	free(bytes);
	return r;
}

static int entry_compare(const void *a, const void *b)
{
	const struct vc_journal_entry *x = a, *y = b;

	if (x->prev_lsn != y->prev_lsn)
		return x->prev_lsn < y->prev_lsn ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static int scan_begin(struct vc_io *io, const char *pool_dir, const uint8_t uuid[16], struct vc_journal_scan *ret)
{
	int r;

	*ret = (struct vc_journal_scan){ .io = io };
	memcpy(ret->uuid, uuid, sizeof(ret->uuid));
	ret->dir = vc_path_of(pool_dir, "journal");
	if (!ret->dir)
		return -ENOMEM;
	r = vc_io_list(io, ret->dir, scan_add_file, ret);
	if (ret->nfiles)
		qsort(ret->files, ret->nfiles, sizeof(*ret->files), u64_compare);
	return r == -ENOENT ? 0 : r;
}

int vc_journal_last(struct vc_io *io, const char *pool_dir, const uint8_t uuid[16], uint64_t lsn, struct vc_journal_last *ret)
{
	struct vc_journal_scan s;
	int r = scan_begin(io, pool_dir, uuid, &s);

	if (r == 0)
		r = s.nfiles ? scan_file(&s, s.nfiles - 1) : -ENOENT;
	if (r == 0)
		*ret = (struct vc_journal_last){ .name = s.files[s.nfiles - 1], .bytes = s.bytes,
						 .end = s.nheaders ? sizeof(struct vc_disk_journal_segment) : 0 };
	for (size_t i = 0; i < s.nentries && r == 0; i++) {
		ret->reaches = VC_MAX(ret->reaches, s.entries[i].checkpoint_lsn);
		if (s.entries[i].checkpoint_lsn <= lsn)
			ret->end = VC_MAX(ret->end, s.entries[i].offset + s.entries[i].len);
	}
	vc_journal_scan_fini(&s);
	return r;
}

int vc_journal_scan(struct vc_io *io, const char *pool_dir, const uint8_t uuid[16], struct vc_journal_scan *ret)
{
	int r = scan_begin(io, pool_dir, uuid, ret);

	for (size_t i = 0; i < ret->nfiles && r == 0; i++)
		r = scan_file(ret, i);
	if (ret->nentries)
		qsort(ret->entries, ret->nentries, sizeof(*ret->entries), entry_compare);
	return r;
}

void vc_journal_scan_fini(struct vc_journal_scan *s)
{
	free(s->dir);
	free(s->files);
	free(s->entries);
	memset(s, 0, sizeof(*s));
}

const struct vc_journal_entry *vc_journal_after(const struct vc_journal_scan *s, uint64_t lsn)
{
	size_t low = 0, high = s->nentries; /* the first entry with a higher prev_lsn */

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (s->entries[mid].prev_lsn <= lsn)
			low = mid + 1;
		else
			high = mid;
	}
	return low > 0 && s->entries[low - 1].prev_lsn == lsn ? &s->entries[low - 1] : NULL;
}

/* ---- reading one ---- */

static int visit_bytes(uint8_t *bytes, uint64_t len, const struct vc_journal_visit *visit)
{
	struct vc_disk_journal_entry e;
	size_t at = sizeof(e);
	int r = 0;

	if (!entry_is_valid(bytes, len, &e))
		return -EBADMSG;
	for (uint64_t i = 0; i < vc_le64_get(e.nitems) && r == 0; i++, at += sizeof(struct vc_disk_journal_item)) {
		struct vc_disk_journal_item item;

		memcpy(&item, bytes + at, sizeof(item));
		r = visit->item(visit->ctx, &item);
	}
	for (uint64_t i = 0; i < vc_le64_get(e.nrows) && r == 0; i++) {
		const uint8_t *row, *key, *value;
		size_t row_len, key_len, value_len;
		bool put;

		r = entry_row(bytes, len, &at, &row, &row_len, &put);
		if (r == 0)
			r = vc_row_decode(row, row_len, &key, &key_len, &value, &value_len);
		if (r == 0)
			r = visit->row(visit->ctx, key, key_len, put ? value : NULL, value_len);
	}
	return r;
}

int vc_journal_visit(const struct vc_journal_scan *s, const struct vc_journal_entry *entry, const struct vc_journal_visit *visit)
{
	struct vc_file *file;
	uint8_t *bytes = malloc(entry->len);
	ssize_t n;
	int r = bytes ? scan_open(s, entry->file, &file) : -ENOMEM;

	if (r == 0) {
		n = vc_io_pread(file, bytes, entry->len, entry->offset);
		vc_io_close(file);
		r = n < 0 ? (int)n : n < (ssize_t)entry->len ? -EBADMSG : visit_bytes(bytes, entry->len, visit);
	}
	if (r == -EBADMSG)
		vc_err("%s/%016llx.jnl: offset %llu: the entry cannot be read any more", s->dir,
		       (unsigned long long)s->files[entry->file], (unsigned long long)entry->offset);
	free(bytes);
	return r;
}
