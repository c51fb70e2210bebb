/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * format: every structure that lies on disk, with its size and offsets asserted (in format.c).
 *
 * This file decides sizes and offsets; doc/FORMAT.md decides meaning, validity, write order and the
 * crash argument. All integers are little-endian except LMDB keys (big-endian, so that key order is
 * number order). Reserved fields are written as zero; doc/FORMAT.md says which are checked on reading.
 *
 *   POOL/pool            struct vc_disk_pool
 *   POOL/log/NNNN.log    struct vc_disk_log_segment, then batches
 *     batch   :=  struct vc_disk_batch  record*        (the next begins at a multiple of VC_LOG_ALIGN)
 *     record  :=  struct vc_disk_record op*            (each a multiple of 8 bytes)
 *     op      :=  struct vc_disk_op payload            (payload padded with zeros to 8 bytes)
 *   POOL/chunk/NNNNNNNN.seg  struct vc_disk_chunk_segment, then at VC_CHUNK_ALIGN: chunk*
 *     chunk   :=  struct vc_disk_chunk stored-bytes    (padded with zeros to VC_CHUNK_ALIGN)
 *   POOL/meta/data.mdb   LMDB: databases "node", "cat"
 *   POOL/journal/NNNN.jnl  struct vc_disk_journal_segment, then journal entries
 */
#ifndef VC_FORMAT_H
#define VC_FORMAT_H

#include "util.h"

/* ---- geometry ---- */

#define VC_BLOCK_SHIFT 12
#define VC_BLOCK_SIZE 4096u
#define VC_LEAF_SHIFT 8                     /* blocks in a leaf: 256 = 1 MiB */
#define VC_LEAF_BLOCKS (1u << VC_LEAF_SHIFT)
#define VC_FANOUT_SHIFT 8
#define VC_FANOUT (1u << VC_FANOUT_SHIFT)
#define VC_IMAGE_SIZE_MAX (UINT64_C(1) << 46) /* 64 TiB */
#define VC_IMAGE_BLOCKS_MAX (VC_IMAGE_SIZE_MAX >> VC_BLOCK_SHIFT)
#define VC_HEIGHT_MAX 5                     /* levels including the leaf: 64 TiB needs 5 */
#define VC_NAME_MAX 255
#define VC_SYMLINK_MAX 3800                 /* so that the LMDB value stays below 4,080 bytes */
#define VC_XATTR_NAME_MAX 255
#define VC_XATTR_VALUE_MAX 3800
#define VC_ROOT_INO 1

#define VC_FORMAT_VERSION 1
#define VC_FEATURES_INCOMPAT_KNOWN UINT64_C(0)
#define VC_FEATURES_RO_COMPAT_KNOWN UINT64_C(0)

#define VC_MAGIC_POOL 0x314c4f4f50534656ULL    /* "VFSPOOL1" */
#define VC_MAGIC_LOG 0x31474f4c53434656ULL     /* "VFCSLOG1" */
#define VC_MAGIC_BATCH 0x31544142u             /* "BAT1" */
#define VC_MAGIC_CHUNK 0x314b4843u             /* "CHK1" */
#define VC_MAGIC_CHUNK_SEGMENT 0x31474553484b4356ULL /* "VCKHSEG1" */
#define VC_MAGIC_JOURNAL 0x314c4e4a53434656ULL /* "VFCSJNL1" */

/* ---- the pool file ---- */

/** Identity and parameters of a pool; written once by `vclone init`, 4 KiB, never changed in place. */
struct vc_disk_pool {
	vc_le64 magic;
	vc_le32 version;
	vc_le32 reserved0;
	vc_le64 features_compat;
	vc_le64 features_ro_compat;
	vc_le64 features_incompat;
	uint8_t uuid[16];
	uint8_t log_uuid[16];       /* the log this pool belongs to, wherever it lives */
	vc_le64 created_ns;
	vc_le32 chunk_blocks;       /* blocks in a chunk: 1 to 16, a power of two */
	vc_le32 reserved1;
	vc_le64 chunk_segment_size; /* bytes; at most 64 MiB */
	vc_le64 log_segment_size;   /* bytes */
	vc_le32 log_segments;       /* the log never holds more segments than this */
	uint8_t reserved[4096 - 108 - 8];
	vc_le64 sum;                /* vc_sum64 of all before */
};

/* ---- the log ---- */

#define VC_LOG_HEADER_SIZE 4096u
#define VC_LOG_ALIGN 64u
#define VC_LOG_SEGMENT_MAX (64u << 20)      /* an address in the log has 27 bits for the offset (log.h) */
#define VC_LOG_SEGMENTS_MIN 4u
#define VC_LOG_SEGMENTS_MAX 9999u           /* four digits in a file's name */

/** First 4 KiB of a log segment; rewritten, with a new salt, each time the file is put to use. */
struct vc_disk_log_segment {
	vc_le64 magic;
	uint8_t uuid[16];      /* log_uuid of the pool */
	vc_le64 seq;           /* 1, 2, ...: never reused; file names are only slots */
	vc_le64 epoch;         /* raised by every recovery */
	vc_le64 salt;          /* random: an old batch of a recycled file never looks valid */
	vc_le64 first_lsn;     /* LSN of the first record that may follow */
	vc_le64 prev_hash;     /* chain hash of the last batch before this segment (0: first ever) */
	vc_le64 size;          /* bytes of the file that batches may use, header included */
	vc_le64 created_ns;
	uint8_t reserved[4096 - 80 - 8];
	vc_le64 sum;
};

/**
 * Header of one batch. Valid if and only if `sum` matches, salt and epoch are those of the segment,
 * prev_hash is the chain hash before it, first_lsn continues, and every record checks.
 */
struct vc_disk_batch {
	vc_le32 magic;
	vc_le32 nrecords;
	vc_le64 epoch;
	vc_le64 salt;
	vc_le64 first_lsn;
	vc_le64 durable_lsn;   /* every record up to here was on stable storage when this was written */
	vc_le64 prev_hash;     /* chain hash of the batch before */
	vc_le32 len;           /* bytes of all records, a multiple of 8 */
	vc_le32 reserved;
	vc_le64 records_hash;  /* fold of the records' sums, see doc/FORMAT.md */
	vc_le64 sum;           /* of this header up to here; also the chain hash handed to the next */
};

/** Header of one record: the unit of atomicity. Its LSN is first_lsn + its position in the batch. */
struct vc_disk_record {
	vc_le32 len;     /* of the whole record, a multiple of 8 */
	vc_le16 nops;
	vc_le16 reserved;
	vc_le64 time_ns; /* becomes mtime and ctime of what the record changes */
	vc_le64 sum;     /* of header (this field zero), op headers, block sums and non-block payloads */
};

/** What an op does. Blocks are 4 KiB; all block ranges are whole blocks. */
enum vc_op_type {
	VC_OP_WRITE = 1,  /* ino, lba, nblocks; payload: uint32 sum per block (padded to 8), then the blocks */
	VC_OP_ZERO,       /* ino, lba, nblocks: reads as zeros from now on */
	VC_OP_DIRECT,     /* ino, lba, nblocks; payload: struct vc_disk_direct per chunk */
	VC_OP_SIZE,       /* ino, arg = new size in bytes; grows or shrinks, blocks beyond become zero */
	VC_OP_GROW,       /* ino, arg = size at least this (a write beyond the end) */
	VC_OP_CLONE,      /* ino = destination (exists, empty), arg = source ino: share everything */
	VC_OP_CLONE_RANGE,/* ino = destination, lba, nblocks, arg = source ino, arg2 = source lba */
	VC_OP_ROW_PUT,    /* payload: struct vc_disk_row, key, value: one catalog row */
	VC_OP_ROW_DEL,    /* payload: struct vc_disk_row, key */
	VC_OP_TYPE_END
};

struct vc_disk_op {
	uint8_t type; /* enum vc_op_type */
	uint8_t flags;
	vc_le16 reserved;
	vc_le32 payload_len; /* bytes, before padding */
	vc_le64 ino;
	vc_le64 lba;
	vc_le64 nblocks;
	vc_le64 arg;
	vc_le64 arg2;
};

/** One chunk already written to a chunk segment, as a log record names it. */
struct vc_disk_direct {
	vc_le64 entry;       /* map entry of its first block; 0: these blocks are zero */
	vc_le64 payload_sum; /* checksum in the chunk's header: vouches for exactly this content */
	vc_le32 nblocks;
	vc_le32 reserved;
};

struct vc_disk_row {
	vc_le16 key_len;
	vc_le16 value_len;
	vc_le32 reserved;
	/* key, then value */
};

/* ---- map entries and nodes ---- */

/*
 * A map entry names one stored block in 60 bits; 0 is a hole.
 *
 *   bit  0..3   block within the decompressed chunk
 *   bit  4..9   read hint c: header plus stored bytes are at most 64 + (c + 1) * 1024
 *   bit 10..29  offset of the chunk in its segment, in units of 64 bytes
 *   bit 30..58  segment number (never 0)
 *   bit 59      reserved, zero
 *
 * So the next block of the same chunk is entry + 1.
 */
#define VC_ENTRY_HOLE UINT64_C(0)
#define VC_ENTRY_BITS 60
#define VC_CHUNK_BLOCKS_MAX 16u
#define VC_SEGNO_MAX ((UINT64_C(1) << 29) - 1)

static inline uint64_t vc_entry_make(uint64_t segno, uint32_t offset, uint32_t stored_len, uint32_t block)
{
	uint64_t hint = stored_len ? (stored_len - 1) / 1024 : 0;

	return segno << 30 | (uint64_t)(offset / 64) << 10 | hint << 4 | block;
}
static inline uint64_t vc_entry_segno(uint64_t e) { return e >> 30 & VC_SEGNO_MAX; }
static inline uint32_t vc_entry_offset(uint64_t e) { return (uint32_t)(e >> 10 & 0xfffff) * 64; }
static inline uint32_t vc_entry_read_len(uint64_t e) { return 64 + ((uint32_t)(e >> 4 & 63) + 1) * 1024; }
/**
 * Bytes the chunk takes, as well as the hint tells: right for what did not compress (whole blocks), to half a KiB for the rest.
 */
static inline uint32_t vc_entry_stored_guess(uint64_t e)
{
	uint32_t kib = (uint32_t)(e >> 4 & 63) + 1;

	return 64 + kib * 1024 - (kib % 4 ? 512 : 0);
}
static inline uint32_t vc_entry_block(uint64_t e) { return (uint32_t)(e & 15); }
/** The entry of block 0 of the same chunk: identifies the chunk, and is the key of its cache. */
static inline uint64_t vc_entry_chunk(uint64_t e) { return e & ~UINT64_C(15); }

#define VC_NODE_ID_MAX ((UINT64_C(1) << 48) - 1) /* top 8 of the 48 bits reserved for a cluster node number */
#define VC_NODE_VALUE_MAX 2014 /* with the 8-byte value checksum 2,022: two stay in one LMDB leaf page */

enum vc_node_kind {
	VC_NODE_INNER = 1,    /* bitmap of 256 bits, then a 48-bit child id per set bit */
	VC_NODE_LEAF_FLAT,    /* own bitmap, then 256 entries of 60 bits, two in 15 bytes */
	VC_NODE_LEAF_EXTENT,  /* own bitmap, then count extents of struct vc_disk_extent */
};

/** Header of every map node value in LMDB database "node" (key: 8-byte big-endian id). */
struct vc_disk_node {
	uint8_t kind;    /* enum vc_node_kind */
	uint8_t level;   /* 0 leaf, 1 parent of leaves, ... */
	vc_le16 count;   /* inner: children; extent leaf: extents; flat leaf: mapped blocks */
	vc_le32 reserved;
	vc_le64 tag;     /* owner tag it was made under, 0: made for several (I2) */
	vc_le64 mapped;  /* mapped blocks in this subtree */
	vc_le64 own;     /* of those, written under `tag` */
};

/** A run of blocks of one chunk: nblocks blocks from `start`, whose first is entry. */
struct vc_disk_extent {
	uint8_t start;   /* block within the leaf */
	uint8_t nblocks; /* 1 to 16 */
	uint8_t entry[8];/* little-endian map entry of the first block */
};

/* ---- chunks ---- */

#define VC_CHUNK_ALIGN 64u
#define VC_CHUNK_SEGMENT_HEADER 4096u
#define VC_CHUNK_SEGMENT_MAX (64u << 20)

struct vc_disk_chunk_segment {
	vc_le64 magic;
	uint8_t uuid[16];  /* pool uuid */
	vc_le64 segno;
	vc_le64 created_ns;
	uint8_t reserved[4096 - 40 - 8];
	vc_le64 sum;
};

enum vc_codec { VC_CODEC_RAW = 0, VC_CODEC_LZ4 = 1, VC_CODEC_END };

/** Header of one chunk: self-describing, so that maps can be rebuilt from chunks as a last resort. */
struct vc_disk_chunk {
	vc_le32 magic;
	uint8_t codec;
	uint8_t nblocks;     /* 1 to 16 */
	vc_le16 reserved;
	uint8_t uuid[16];    /* pool uuid */
	vc_le64 ino;         /* image it was written for */
	vc_le64 lba;
	vc_le64 lsn;         /* destaged: last of the slice; direct: last assigned before the record that names it */
	vc_le32 stored_len;  /* bytes that follow this header */
	vc_le32 header_sum;  /* of this header with this field zero, seeded with the chunk's address */
	vc_le64 payload_sum; /* of the stored bytes */
};

/* ---- catalog rows: LMDB database "cat" ---- */

/*
 * Keys start with a letter.
 *   'G' letter            pool state: vc_disk_state under "GS"
 *   'I' ino               vc_disk_inode
 *   'D' parent name       vc_disk_dirent
 *   'L' ino               symbolic link target, as it is
 *   'X' ino name          extended attribute value, as it is
 *   'M' ino               vc_disk_image: written only by a checkpoint, never by a log record
 *   'O' ino               empty: unlinked and still open, to be removed when it is not
 *   'S' segno             vc_disk_segment: written only by a checkpoint
 *   'E' ino               vc_disk_exclusive: written only by a mark
 */
enum vc_row_kind {
	VC_ROW_STATE = 'G', VC_ROW_INODE = 'I', VC_ROW_DIRENT = 'D', VC_ROW_LINK = 'L', VC_ROW_XATTR = 'X',
	VC_ROW_IMAGE = 'M', VC_ROW_ORPHAN = 'O', VC_ROW_SEGMENT = 'S', VC_ROW_EXCLUSIVE = 'E',
};
#define VC_ROW_KEY_MAX (1 + 8 + 255)
#define VC_ROW_VALUE_MAX 4000

/** The state of the pool at a checkpoint; the only row whose change makes all others valid. */
struct vc_disk_state {
	uint8_t uuid[16];      /* pool uuid: this LMDB belongs to that pool */
	vc_le64 checkpoint_lsn;
	vc_le64 log_first_seq; /* replay starts at this log segment */
	vc_le64 epoch;
	vc_le64 next_ino;
	vc_le64 next_node;
	vc_le64 next_tag;
	vc_le64 next_segno;
	vc_le64 journal_seq;   /* not used yet, 0: the journal goes by checkpoint_lsn */
	vc_le64 mark_ns;       /* time of the last completed mark, 0: never */
	vc_le64 next_content;
	vc_le64 images;        /* 'M' rows */
	uint8_t reserved[24];
};

struct vc_disk_inode {
	vc_le32 mode;
	vc_le32 nlink;
	vc_le32 uid;
	vc_le32 gid;
	vc_le32 rdev;
	vc_le32 depth;      /* clones between this image and the first ancestor */
	vc_le64 generation;
	vc_le64 size;
	vc_le64 atime_ns;
	vc_le64 mtime_ns;
	vc_le64 ctime_ns;
	vc_le64 btime_ns;
	vc_le64 parent;     /* directories: the parent; others 0 */
	vc_le64 next_cookie;/* directories: readdir offset of the next entry to be made */
	vc_le64 origin;     /* ino this was cloned from, 0: not a clone */
	vc_le64 flags;      /* 0 */
	uint8_t reserved[16];
};

struct vc_disk_dirent {
	vc_le64 ino;
	vc_le64 cookie; /* stable readdir offset, unique in the directory, never reused */
	vc_le32 type;   /* S_IFMT bits of the target */
	vc_le32 reserved;
};

struct vc_disk_image {
	vc_le64 root;   /* node id, 0: nothing mapped */
	vc_le64 tag;    /* open tag (I2) */
	vc_le64 content;/* name of what it holds, for the destage journal: equal contents of clones have equal names; 0: nothing */
	vc_le32 height; /* levels including the leaf; 0 when root is 0 */
	vc_le32 reserved;
};

struct vc_disk_segment {
	vc_le64 used;    /* bytes, header included */
	vc_le64 max_lsn; /* no chunk in it belongs to a later record */
	vc_le64 live;    /* bytes found live by the last mark, ~0: unknown */
	vc_le32 sealed;
	vc_le32 reserved;
};

struct vc_disk_exclusive {
	vc_le64 blocks;  /* blocks that only this image used */
	vc_le64 bytes;   /* stored bytes that deleting it alone would have freed */
	vc_le64 time_ns;
};

/* ---- destage journal ---- */

struct vc_disk_journal_segment {
	vc_le64 magic;
	uint8_t uuid[16];
	vc_le64 seq;
	vc_le64 first_checkpoint; /* checkpoint LSN before its first entry */
	uint8_t reserved[16];
	vc_le64 sum;
};

/** One checkpoint: header, items, then rows: each le32 length, le32 1 put / 0 delete, an encoded row, padded to 8. */
struct vc_disk_journal_entry {
	vc_le64 magic;
	vc_le64 len;            /* of the whole entry, a multiple of 8 */
	vc_le64 checkpoint_lsn; /* state after this entry */
	vc_le64 prev_lsn;       /* state before it */
	vc_le64 nitems;
	vc_le64 nrows;
	vc_le64 sum;            /* of the whole entry, this field zero */
};

enum vc_journal_kind {
	VC_JOURNAL_BASE = 1, /* ref: content that the following items make; value: content they change; lba: tag of nodes made, nblocks: of nodes freed */
	VC_JOURNAL_SET,      /* lba, nblocks hold value, value + 1, ... (map entries) */
	VC_JOURNAL_ZERO,     /* lba, nblocks are holes */
	VC_JOURNAL_SHARE,    /* lba, nblocks hold what content ref holds from lba value on */
	VC_JOURNAL_IMAGE,    /* image ref holds content lba and has the open tag value */
	VC_JOURNAL_GONE,     /* image ref is deleted */
	VC_JOURNAL_KIND_END
};

struct vc_disk_journal_item {
	vc_le32 kind;    /* enum vc_journal_kind */
	vc_le32 reserved;
	vc_le64 lba;
	vc_le64 nblocks;
	vc_le64 value;
	vc_le64 ref;
};

/* ---- scrub ---- */

#define VC_MAGIC_SCRUB 0x3142435353434656ULL   /* "VFCSSCB1" */

/** POOL/scrub: how far a scrub is; then `nranges` times struct vc_disk_scrub_range. Replaced by rename; losing it loses only the position. */
struct vc_disk_scrub {
	vc_le64 magic;
	uint8_t uuid[16];       /* of the pool */
	vc_le32 running;        /* 1: to be gone on with when the pool is opened */
	vc_le32 reserved0;
	vc_le64 rate;           /* bytes a second, 0: as fast as it goes */
	vc_le64 next_segno;     /* lowest segment not looked at */
	vc_le64 end_segno;      /* the pass ends before this one */
	vc_le64 done;           /* bytes looked at */
	vc_le64 started_ns, finished_ns;
	vc_le64 nranges;
	uint8_t reserved[24];
	vc_le64 sum;            /* vc_sum64 of the ranges, seeded with that of all before */
};

/** A stretch of a chunk segment in which no chunk with right checksums begins. */
struct vc_disk_scrub_range {
	vc_le64 segno, from, to;
};

/** Verify a pool file of 4 KiB. Returns 0, -EUCLEAN (not one), -EBADMSG (checksum), -ENOTSUP (newer). Sends no message. */
int vc_format_check_pool(const struct vc_disk_pool *pool, const char **ret_why) VC_MUST_CHECK;

/** True when all reserved bytes at `p` are zero. */
static inline bool vc_reserved_ok(const void *p, size_t len) { return vc_is_zero(p, len); }

#endif
