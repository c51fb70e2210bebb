/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * format: the size and every offset of what lies on disk, asserted in one place, and the check of a pool file.
 *
 * An assertion that fails here means that the change makes existing pools unreadable: it needs a new format
 * version or a feature bit, never a new number in this file alone. No state.
 */
#include "config.h"
#include "format.h"

#include "checksum.h"

#define SIZE(name, bytes) _Static_assert(sizeof(struct vc_disk_##name) == (bytes), "size of " #name)
#define AT(name, field, offset) \
	_Static_assert(offsetof(struct vc_disk_##name, field) == (offset), "offset of " #name "." #field)

SIZE(scrub, 120);
AT(scrub, magic, 0);
AT(scrub, uuid, 8);
AT(scrub, running, 24);
AT(scrub, rate, 32);
AT(scrub, next_segno, 40);
AT(scrub, end_segno, 48);
AT(scrub, done, 56);
AT(scrub, started_ns, 64);
AT(scrub, finished_ns, 72);
AT(scrub, nranges, 80);
AT(scrub, sum, 112);

SIZE(scrub_range, 24);
AT(scrub_range, segno, 0);
AT(scrub_range, from, 8);
AT(scrub_range, to, 16);

SIZE(pool, 4096);
AT(pool, magic, 0);
AT(pool, version, 8);
AT(pool, reserved0, 12);
AT(pool, features_compat, 16);
AT(pool, features_ro_compat, 24);
AT(pool, features_incompat, 32);
AT(pool, uuid, 40);
AT(pool, log_uuid, 56);
AT(pool, created_ns, 72);
AT(pool, chunk_blocks, 80);
AT(pool, reserved1, 84);
AT(pool, chunk_segment_size, 88);
AT(pool, log_segment_size, 96);
AT(pool, log_segments, 104);
AT(pool, reserved, 108);
AT(pool, sum, 4088);

SIZE(log_segment, 4096);
AT(log_segment, magic, 0);
AT(log_segment, uuid, 8);
AT(log_segment, seq, 24);
AT(log_segment, epoch, 32);
AT(log_segment, salt, 40);
AT(log_segment, first_lsn, 48);
AT(log_segment, prev_hash, 56);
AT(log_segment, size, 64);
AT(log_segment, created_ns, 72);
AT(log_segment, reserved, 80);
AT(log_segment, sum, 4088);

SIZE(batch, 72);
AT(batch, magic, 0);
AT(batch, nrecords, 4);
AT(batch, epoch, 8);
AT(batch, salt, 16);
AT(batch, first_lsn, 24);
AT(batch, durable_lsn, 32);
AT(batch, prev_hash, 40);
AT(batch, len, 48);
AT(batch, reserved, 52);
AT(batch, records_hash, 56);
AT(batch, sum, 64);

SIZE(record, 24);
AT(record, len, 0);
AT(record, nops, 4);
AT(record, reserved, 6);
AT(record, time_ns, 8);
AT(record, sum, 16);

SIZE(op, 48);
AT(op, type, 0);
AT(op, flags, 1);
AT(op, reserved, 2);
AT(op, payload_len, 4);
AT(op, ino, 8);
AT(op, lba, 16);
AT(op, nblocks, 24);
AT(op, arg, 32);
AT(op, arg2, 40);

SIZE(direct, 24);
AT(direct, entry, 0);
AT(direct, payload_sum, 8);
AT(direct, nblocks, 16);
AT(direct, reserved, 20);

SIZE(row, 8);
AT(row, key_len, 0);
AT(row, value_len, 2);
AT(row, reserved, 4);

SIZE(node, 32);
AT(node, kind, 0);
AT(node, level, 1);
AT(node, count, 2);
AT(node, reserved, 4);
AT(node, tag, 8);
AT(node, mapped, 16);
AT(node, own, 24);

SIZE(extent, 10);
AT(extent, start, 0);
AT(extent, nblocks, 1);
AT(extent, entry, 2);

SIZE(chunk_segment, 4096);
AT(chunk_segment, magic, 0);
AT(chunk_segment, uuid, 8);
AT(chunk_segment, segno, 24);
AT(chunk_segment, created_ns, 32);
AT(chunk_segment, reserved, 40);
AT(chunk_segment, sum, 4088);

SIZE(chunk, 64);
AT(chunk, magic, 0);
AT(chunk, codec, 4);
AT(chunk, nblocks, 5);
AT(chunk, reserved, 6);
AT(chunk, uuid, 8);
AT(chunk, ino, 24);
AT(chunk, lba, 32);
AT(chunk, lsn, 40);
AT(chunk, stored_len, 48);
AT(chunk, header_sum, 52);
AT(chunk, payload_sum, 56);

SIZE(state, 128);
AT(state, uuid, 0);
AT(state, checkpoint_lsn, 16);
AT(state, log_first_seq, 24);
AT(state, epoch, 32);
AT(state, next_ino, 40);
AT(state, next_node, 48);
AT(state, next_tag, 56);
AT(state, next_segno, 64);
AT(state, journal_seq, 72);
AT(state, mark_ns, 80);
AT(state, next_content, 88);
AT(state, images, 96);
AT(state, reserved, 104);

SIZE(inode, 120);
AT(inode, mode, 0);
AT(inode, nlink, 4);
AT(inode, uid, 8);
AT(inode, gid, 12);
AT(inode, rdev, 16);
AT(inode, depth, 20);
AT(inode, generation, 24);
AT(inode, size, 32);
AT(inode, atime_ns, 40);
AT(inode, mtime_ns, 48);
AT(inode, ctime_ns, 56);
AT(inode, btime_ns, 64);
AT(inode, parent, 72);
AT(inode, next_cookie, 80);
AT(inode, origin, 88);
AT(inode, flags, 96);
AT(inode, reserved, 104);

SIZE(dirent, 24);
AT(dirent, ino, 0);
AT(dirent, cookie, 8);
AT(dirent, type, 16);
AT(dirent, reserved, 20);

SIZE(image, 32);
AT(image, root, 0);
AT(image, tag, 8);
AT(image, content, 16);
AT(image, height, 24);
AT(image, reserved, 28);

SIZE(segment, 32);
AT(segment, used, 0);
AT(segment, max_lsn, 8);
AT(segment, live, 16);
AT(segment, sealed, 24);
AT(segment, reserved, 28);

SIZE(exclusive, 24);
AT(exclusive, blocks, 0);
AT(exclusive, bytes, 8);
AT(exclusive, time_ns, 16);

SIZE(journal_segment, 64);
AT(journal_segment, magic, 0);
AT(journal_segment, uuid, 8);
AT(journal_segment, seq, 24);
AT(journal_segment, first_checkpoint, 32);
AT(journal_segment, reserved, 40);
AT(journal_segment, sum, 56);

SIZE(journal_entry, 56);
AT(journal_entry, magic, 0);
AT(journal_entry, len, 8);
AT(journal_entry, checkpoint_lsn, 16);
AT(journal_entry, prev_lsn, 24);
AT(journal_entry, nitems, 32);
AT(journal_entry, nrows, 40);
AT(journal_entry, sum, 48);

SIZE(journal_item, 40);
AT(journal_item, kind, 0);
AT(journal_item, reserved, 4);
AT(journal_item, lba, 8);
AT(journal_item, nblocks, 16);
AT(journal_item, value, 24);
AT(journal_item, ref, 32);

/* ---- geometry ---- */

#define FLAT_LEAF_MAX (sizeof(struct vc_disk_node) + VC_LEAF_BLOCKS / 8 + VC_LEAF_BLOCKS / 2 * 15)
#define INNER_NODE_MAX (sizeof(struct vc_disk_node) + VC_FANOUT / 8 + VC_FANOUT * 6)

_Static_assert(VC_ENTRY_BITS * 2 == 15 * 8, "two entries fill 15 bytes");
_Static_assert(FLAT_LEAF_MAX <= VC_NODE_VALUE_MAX, "a leaf of random blocks fits a node value");
_Static_assert(INNER_NODE_MAX <= VC_NODE_VALUE_MAX, "a full inner node fits a node value");
_Static_assert(VC_NODE_VALUE_MAX + 8 <= 2022, "two node values share an LMDB page");
_Static_assert(VC_ROW_VALUE_MAX + 8 <= 4080, "a row takes at most one LMDB overflow page");
_Static_assert(VC_SYMLINK_MAX <= VC_ROW_VALUE_MAX && VC_XATTR_VALUE_MAX <= VC_ROW_VALUE_MAX, "values fit a row");
_Static_assert(VC_ROW_KEY_MAX <= 511, "a key fits LMDB");
_Static_assert(VC_LEAF_SHIFT + VC_FANOUT_SHIFT * (VC_HEIGHT_MAX - 1) >= 46 - VC_BLOCK_SHIFT,
	       "the highest tree maps the largest image");
_Static_assert(VC_CHUNK_SEGMENT_MAX / VC_CHUNK_ALIGN <= 1u << 20, "an entry's offset reaches the end of a segment");
_Static_assert(VC_CHUNK_BLOCKS_MAX * VC_BLOCK_SIZE <= 64 * 1024, "an entry's read hint covers a raw chunk");
_Static_assert(VC_CHUNK_BLOCKS_MAX <= 16, "an entry's block number has 4 bits");

/* ---- the pool file ---- */

static bool is_power_of_two(uint64_t n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

static const char *pool_bad_geometry(const struct vc_disk_pool *pool)
{
	uint64_t chunk_blocks = vc_le32_get(pool->chunk_blocks);
	uint64_t chunk_segment = vc_le64_get(pool->chunk_segment_size);
	uint64_t log_segment = vc_le64_get(pool->log_segment_size);
	uint64_t chunk_max = sizeof(struct vc_disk_chunk) + chunk_blocks * VC_BLOCK_SIZE;

	if (!is_power_of_two(chunk_blocks) || chunk_blocks > VC_CHUNK_BLOCKS_MAX)
		return "the chunk size is impossible";
	if (chunk_segment > VC_CHUNK_SEGMENT_MAX || chunk_segment % VC_BLOCK_SIZE != 0 ||
	    chunk_segment < VC_CHUNK_SEGMENT_HEADER + chunk_max)
		return "the size of chunk segments is impossible";
	if (log_segment % VC_BLOCK_SIZE != 0 || log_segment <= VC_LOG_HEADER_SIZE || log_segment > VC_LOG_SEGMENT_MAX)
		return "the size of log segments is impossible";
	if (vc_le32_get(pool->log_segments) < VC_LOG_SEGMENTS_MIN || vc_le32_get(pool->log_segments) > VC_LOG_SEGMENTS_MAX)
		return "the number of log segments is impossible";
	return NULL;
}

static bool pool_reserved_ok(const struct vc_disk_pool *pool)
{
	return vc_le32_get(pool->reserved0) == 0 && vc_le32_get(pool->reserved1) == 0 &&
	       vc_reserved_ok(pool->reserved, sizeof(pool->reserved));
}

int vc_format_check_pool(const struct vc_disk_pool *pool, const char **ret_why)
{
	const char *why;

	/* Magic, version and checksum keep their places in every version, so that a newer pool is told from a bad one. */
	if (vc_le64_get(pool->magic) != VC_MAGIC_POOL) {
		*ret_why = "not the pool file of a vclonefs pool";
		return -EUCLEAN;
	}
	if (vc_sum64(pool, offsetof(struct vc_disk_pool, sum), 0) != vc_le64_get(pool->sum)) {
		*ret_why = "the checksum is wrong";
		return -EBADMSG;
	}
	if (vc_le32_get(pool->version) > VC_FORMAT_VERSION) {
		*ret_why = "the format is newer than this program";
		return -ENOTSUP;
	}
	if (vc_le64_get(pool->features_incompat) & ~VC_FEATURES_INCOMPAT_KNOWN) {
		*ret_why = "the pool uses a feature this program does not know";
		return -ENOTSUP;
	}
	why = vc_le32_get(pool->version) == 0 ? "the version is impossible" : pool_bad_geometry(pool);
	if (!why && !pool_reserved_ok(pool))
		why = "a reserved field is not zero";
	if (why) {
		*ret_why = why;
		return -EUCLEAN;
	}
	return 0;
}
