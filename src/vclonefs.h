/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclonefs.h: the ioctl interface of a mounted vclonefs, for C programs; nothing needs to be linked.
 *
 *	#include <vclonefs.h>
 *	struct vclonefs_clone a = { .size = sizeof(a) };
 *	strcpy(a.src, "golden.img");
 *	strcpy(a.dst, "vm7.img");
 *	int fd = open("/vm", O_RDONLY | O_DIRECTORY);
 *	if (ioctl(fd, VCLONEFS_IOC_CLONE, &a) < 0)
 *		err(1, "clone");
 *
 * All requests are made on a descriptor of a directory or a file inside the mount. Every struct begins with its own size; a
 * daemon that does not know that size answers EINVAL. Reserved fields and unused flags must be zero (EINVAL). Strings are
 * terminated within their arrays (EINVAL). Paths are relative to the directory of the descriptor (of a file: to the root of
 * the mount); a leading '/' means the root of the mount. Access is checked as if the caller had opened the source for reading and
 * created the target. A clone is point-in-time and durable when the call returns 0.
 *
 * Errors: ENOENT EEXIST EACCES EINVAL ENOSPC EROFS ENAMETOOLONG EXDEV EISDIR ELOOP EIO; ENOTTY: not a vclonefs.
 */
#ifndef VCLONEFS_H
#define VCLONEFS_H

#include <linux/ioctl.h>
#include <stdint.h>

#define VCLONEFS_PATH_MAX 4096

/** Clone `src` to the new name `dst`. An empty src on a descriptor of an image means that image. */
struct vclonefs_clone {
	uint32_t size;
	uint32_t flags; /* 0 */
	uint64_t reserved[3];
	char src[VCLONEFS_PATH_MAX];
	char dst[VCLONEFS_PATH_MAX];
};

/**
 * `count` clones in one durable batch, all or nothing. `dst` is a pattern for the last path component with exactly one %d, %Nd
 * or %0Nd (N 1 to 9), "%%" is a percent sign; numbers run from `first`. At most 10,000 a call.
 */
struct vclonefs_clone_many {
	uint32_t size;
	uint32_t flags; /* 0 */
	uint32_t first;
	uint32_t count;
	uint64_t reserved[2];
	char src[VCLONEFS_PATH_MAX];
	char dst[VCLONEFS_PATH_MAX];
};

/**
 * On a descriptor open for writing: share a range of the image with inode number src_ino of the same mount, which the caller must be allowed to
 * read and, unless root, have open for reading itself meanwhile (EACCES). src_len 0: to the end of the source. What FICLONE and FICLONERANGE are
 * mapped to by the preload library. Durable on return.
 */
struct vclonefs_clone_range {
	uint32_t size;
	uint32_t flags; /* 0 */
	uint64_t src_ino;
	uint64_t src_offset;
	uint64_t src_len;
	uint64_t dst_offset;
	uint64_t reserved[2];
};

/** About one image: descriptor of the image. */
struct vclonefs_info {
	uint32_t size;
	uint32_t depth;          /* clones between it and its first ancestor */
	uint64_t ino;
	uint64_t origin;         /* inode it was cloned from, 0: none */
	uint64_t logical;        /* bytes */
	uint64_t referenced;     /* bytes mapped at the last checkpoint */
	uint64_t own;            /* of those, written since the last clone of or to it: private for certain */
	uint64_t pending;        /* bytes in the log, not destaged yet */
	uint64_t exclusive;      /* stored bytes that deleting it alone would free, at exclusive_ns */
	uint64_t exclusive_ns;   /* time of the mark that found them (since the epoch), 0: never */
	uint64_t reserved[4];
};

/** About the pool: any descriptor in the mount. */
struct vclonefs_df {
	uint32_t size;
	uint32_t failed;         /* 1: a sync failed, writes are refused until the next mount */
	uint8_t uuid[16];
	uint64_t fs_total, fs_free;
	uint64_t chunk_bytes, chunk_segments;
	uint64_t log_bytes, log_used;
	uint64_t meta_bytes;
	uint64_t images;
	uint64_t undestaged;
	uint64_t checkpoint_lsn, durable_lsn, last_lsn;
	uint64_t cache_hits, cache_misses, cache_bytes;
	uint64_t reserved[8];
	char version[32];
};

enum vclonefs_task { VCLONEFS_TASK_DESTAGE = 0, VCLONEFS_TASK_CLEAN = 1 };

/** Start (or join) a long task, or ask how far one is. Owner of the mount's root directory or root only (EACCES). */
struct vclonefs_task_status {
	uint32_t size;
	uint32_t task;           /* in: enum vclonefs_task */
	uint64_t id;             /* START: out, of the task started; STATUS: out, of the last started */
	uint64_t done, total;    /* out: bytes (destage) or map nodes (clean) */
	int32_t running;         /* out */
	int32_t error;           /* out: errno of the last finished one, 0 fine */
	uint64_t freed_nodes, freed_segments, freed_bytes; /* out: clean */
	uint64_t reserved[4];
};

enum vclonefs_scrub_command { VCLONEFS_SCRUB_STATUS = 0, VCLONEFS_SCRUB_START = 1, VCLONEFS_SCRUB_STOP = 2 };
#define VCLONEFS_SCRUB_AGAIN 1u /* flag of START: from the beginning, not from where the last pass was stopped */

/** Start, stop or watch the reading of all that the pool holds. Owner of the mount's root directory or root only (EACCES). */
struct vclonefs_scrub {
	uint32_t size;
	uint32_t command;        /* in: enum vclonefs_scrub_command */
	uint32_t flags;          /* in: VCLONEFS_SCRUB_AGAIN */
	int32_t running;         /* out */
	int32_t error;           /* out: errno of the last pass, once it has ended; EINTR: stopped */
	uint32_t reserved0;
	uint64_t rate;           /* START: bytes a second, 0: no limit; out: what is set */
	uint64_t id;             /* out: number of the pass since the mount */
	uint64_t done, total;    /* out: bytes */
	uint64_t found;          /* out: things damaged, up to now */
	uint64_t started_ns, finished_ns; /* out: since the epoch; finished: of the last complete pass */
	uint64_t reserved[4];
};

enum vclonefs_scrub_kind {
	VCLONEFS_SCRUB_CHUNK = 1, /* chunk/%08x.seg: file, at */
	VCLONEFS_SCRUB_LOG = 2,   /* log/%04u.log: file, at */
	VCLONEFS_SCRUB_NODE = 3,  /* a map node: file is its id */
	VCLONEFS_SCRUB_ROW = 4,   /* a row of the catalog: file is the letter of its kind */
	VCLONEFS_SCRUB_META = 5,  /* a page of meta/data.mdb */
};

#define VCLONEFS_SCRUB_LIST 200
/** What the last pass found, in pieces: as vclonefs_scrub, but only to be read. */
struct vclonefs_scrub_list {
	uint32_t size;
	uint32_t count;          /* out: items below */
	uint64_t from;           /* in: number of the first */
	uint64_t reserved[2];
	struct vclonefs_scrub_item {
		uint64_t ino;    /* 0: cannot be told */
		uint64_t offset, len; /* bytes of the image */
		uint64_t file, at;
		uint32_t kind;   /* enum vclonefs_scrub_kind */
		uint32_t reserved;
	} items[VCLONEFS_SCRUB_LIST];
};

#define VCLONEFS_IOC_CLONE _IOW('V', 0x80, struct vclonefs_clone)
#define VCLONEFS_IOC_CLONE_MANY _IOW('V', 0x81, struct vclonefs_clone_many)
#define VCLONEFS_IOC_CLONE_RANGE _IOW('V', 0x82, struct vclonefs_clone_range)
#define VCLONEFS_IOC_INFO _IOWR('V', 0x83, struct vclonefs_info)
#define VCLONEFS_IOC_DF _IOWR('V', 0x84, struct vclonefs_df)
#define VCLONEFS_IOC_TASK_START _IOWR('V', 0x85, struct vclonefs_task_status)
#define VCLONEFS_IOC_TASK_STATUS _IOWR('V', 0x86, struct vclonefs_task_status)
#define VCLONEFS_IOC_SCRUB _IOWR('V', 0x87, struct vclonefs_scrub)
#define VCLONEFS_IOC_SCRUB_LIST _IOWR('V', 0x88, struct vclonefs_scrub_list)

#endif
