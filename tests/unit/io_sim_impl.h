/* SPDX-License-Identifier: BSD-2-Clause */
/* io_sim_impl: what the parts of io_sim share: contents, names, history. See io_sim.h for the model. */
#ifndef VC_IO_SIM_IMPL_H
#define VC_IO_SIM_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include "io_sim.h"

#define SIM_SECTOR 512u
#define SIM_PAGE 4096u

/* ---- io_sim_data: contents ---- */

#define SIM_HASH_ZEROS UINT64_C(1) /* a page of zeros was hashed */

/** Shared by contents in any number of sims; never written while refs > 1. */
struct sim_page {
	atomic_uint refs;
	_Atomic uint64_t hash; /* 0: not known */
	uint8_t bytes[SIM_PAGE];
};

/** Contents of a file: what has no page, and all from size on, is zero. */
struct sim_data {
	struct sim_page **pages;
	size_t npages;
	uint64_t size;
};

/** data NULL: zeros. */
void sim_data_write(struct sim_data *d, uint64_t offset, const uint8_t *data, uint64_t len);
/** Also beyond size: zeros. */
void sim_data_read(const struct sim_data *d, uint64_t offset, uint8_t *buf, uint64_t len);
void sim_data_truncate(struct sim_data *d, uint64_t size);
/** Make this range of dst equal to that of src, its size left alone. */
void sim_data_take(struct sim_data *dst, const struct sim_data *src, uint64_t offset, uint64_t len);
/** Initialise dst as a copy that shares all pages. */
void sim_data_copy(struct sim_data *dst, const struct sim_data *src);
void sim_data_free(struct sim_data *d);
uint64_t sim_data_hash(const struct sim_data *d);

/* ---- */

enum sim_kind { SIM_FILE, SIM_DIR, SIM_META };

/** Numbered by its place in vc_sim.inodes; lives as long as the sim, for the history names it. */
struct sim_inode {
	enum sim_kind kind;
	struct sim_data base;    /* when the history began */
	struct sim_data data;    /* META: as recorded; the real file is the same */
	uint64_t reserved_end;   /* allocate() reached to here */
	unsigned opens;
	bool linked;
	const void *locked_by;   /* the open file that holds the lock */
};

struct sim_name {
	char *path;
	uint32_t inode;
};

struct sim_names {
	struct sim_name *v;
	size_t n, cap;
};

/** Position + 1, or 0. */
size_t sim_names_find(const struct sim_names *names, const char *path);
void sim_names_set(struct sim_names *names, const char *path, uint32_t inode);
void sim_names_del(struct sim_names *names, const char *path);
void sim_names_free(struct sim_names *names);
/** The directory part: "/" or "." at the top. Free it. */
char *sim_parent(const char *path);
bool sim_is_root(const char *path);
/** Is it a directory called meta, which has a real twin? */
bool sim_is_meta_dir(const char *path);

enum sim_event_kind {
	SIM_EV_WRITE, SIM_EV_TRUNCATE, SIM_EV_SYNC, SIM_EV_SYNC_ONE, SIM_EV_CREATE, SIM_EV_UNLINK, SIM_EV_RENAME, SIM_EV_SYNC_DIR
};

struct sim_event {
	enum sim_event_kind kind;
	bool failed;           /* SYNC, SYNC_DIR: returned an error */
	bool settled;          /* WRITE, TRUNCATE: in the file's base */
	uint32_t inode;        /* what it is about; SYNC_DIR: the directory */
	uint32_t dir, dir2;    /* CREATE, UNLINK, RENAME: directory of path, of path2 */
	uint64_t offset, len;  /* WRITE */
	uint8_t *data;         /* WRITE: len bytes, NULL: zeros */
	size_t of;             /* SYNC_ONE: the WRITE through an O_DSYNC descriptor that is durable now */
	uint64_t size_before, size_after; /* WRITE, TRUNCATE */
	char *path, *path2;    /* of names; path also for messages */
};

struct vc_sim {
	struct vc_io io;
	pthread_mutex_t lock;        /* protects all below */
	struct sim_inode **inodes;
	size_t ninodes, inodes_cap;
	struct sim_names names;
	struct sim_names base_names; /* when the history began */
	struct sim_event *events;
	size_t nevents, events_cap;
	uint64_t number;             /* of this sim in this process; fixed */
	size_t settled;              /* no crash before this event is asked for */
	struct vc_sim_fault fault;
	char *fault_path;
	unsigned faults;
	uint64_t calls[VC_SIM_OPS];
	uint64_t capacity;
	char *tmpdir;                /* where the real directories are; NULL until one is needed */
};

/* ---- the live side ---- */

static inline struct vc_sim *to_sim(struct vc_io *io)
{
	return vc_container_of(io, struct vc_sim, io);
}

static inline void sim_lock(struct vc_sim *sim)
{
	pthread_mutex_lock(&sim->lock);
}

/** Unlock and return r, with the message the contract of io.h asks for; _quiet: none for -ENOENT and -EEXIST. */
int sim_end(struct vc_sim *sim, int r, const char *what, const char *path);
int sim_end_quiet(struct vc_sim *sim, int r, const char *what, const char *path);
/** Count a call; negative when the arranged fault strikes it. */
int sim_call(struct vc_sim *sim, enum vc_sim_op op, const char *path);
/** May this file reach to `end`? Only what is new counts: rewriting never fails for want of space. 0, -ENOSPC, -EFBIG. */
int sim_space_for(const struct vc_sim *sim, const struct sim_inode *node, uint64_t end);
/** A copy without doubled or final slashes. */
char *sim_normal(const char *path);
/** Inode number of a path. 0 or -ENOENT. */
int sim_find(struct vc_sim *sim, const char *path, uint32_t *ret);
/** Is it, or would it be, a real file? */
bool sim_is_real(struct vc_sim *sim, const char *path);
int sim_unlink(struct vc_io *io, const char *path);
int sim_rename(struct vc_io *io, const char *from, const char *to);
int sim_mkdir(struct vc_io *io, const char *path);
int sim_sync_dir(struct vc_io *io, const char *path);
int sim_list(struct vc_io *io, const char *path, int (*fn)(void *ctx, const char *name), void *ctx);
const char *sim_real_path(struct vc_io *io, const char *path, char *buf, size_t len);
void sim_meta_committed(struct vc_io *io, const char *path);

/* ---- history ---- */

/** Zeroed memory; aborts when there is none. */
void *sim_alloc(size_t len);
char *sim_strdup(const char *s);
uint32_t sim_inode_new(struct vc_sim *sim, enum sim_kind kind);
/** A zeroed event at the end of the history. */
struct sim_event *sim_event_new(struct vc_sim *sim, enum sim_event_kind kind, uint32_t inode, const char *path);
/** Inode number of a directory; the top is 0. -ENOENT, -ENOTDIR. */
int sim_dir_of(struct vc_sim *sim, const char *path, uint32_t *ret);
/** A write to `inode`, which has happened; takes data. Returns the number of its event. */
size_t sim_record_write(struct vc_sim *sim, uint32_t inode, const char *path, uint8_t *data, uint64_t len, uint64_t offset);
void sim_record_truncate(struct vc_sim *sim, uint32_t inode, const char *path, uint64_t size);

/* ---- io_sim_real: the real files, and what LMDB does with them ---- */

/** tmpdir + path, allocated. The first call makes tmpdir and all real files that there should be. */
char *sim_real(struct vc_sim *sim, const char *path);
/** Make the real twin of directory `path`, and those above it. */
void sim_real_dir(struct vc_sim *sim, const char *path);
/** The path as the engine knows it, also when it gives the real one; allocated. */
char *sim_virtual(struct vc_sim *sim, const char *path);
/** The real file is no longer this inode's, or gone. */
void sim_real_forget(struct vc_sim *sim, uint32_t inode);
/** Nothing of this sim is recorded any more; removes its files. */
void sim_real_free(struct vc_sim *sim);

#endif
