/* SPDX-License-Identifier: BSD-2-Clause */
/* io_sim_impl: what the parts of io_sim share: contents, names, history. See io_sim.h for the model. */
#ifndef VC_IO_SIM_IMPL_H
#define VC_IO_SIM_IMPL_H

#include <pthread.h>
#include "io_sim.h"

#define SIM_SECTOR 512u
#define SIM_PAGE 4096u

/** Contents of a file. Bytes from cap on are zero; so are those from size on. */
struct sim_data {
	uint8_t *bytes;
	uint64_t cap;
	uint64_t size;
};

void sim_data_reserve(struct sim_data *d, uint64_t end);
/** data NULL: zeros. */
void sim_data_write(struct sim_data *d, uint64_t offset, const uint8_t *data, uint64_t len);
void sim_data_truncate(struct sim_data *d, uint64_t size);

enum sim_kind { SIM_FILE, SIM_DIR, SIM_META };

/** Numbered by its place in vc_sim.inodes; lives as long as the sim, for the history names it. */
struct sim_inode {
	enum sim_kind kind;
	struct sim_data data;    /* META: the copy last taken */
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
	SIM_EV_WRITE, SIM_EV_TRUNCATE, SIM_EV_SYNC, SIM_EV_CREATE, SIM_EV_UNLINK, SIM_EV_RENAME, SIM_EV_SYNC_DIR, SIM_EV_META
};

struct sim_event {
	enum sim_event_kind kind;
	bool failed;           /* SYNC, SYNC_DIR: returned an error */
	uint32_t inode;        /* what it is about; SYNC_DIR: the directory */
	uint32_t dir, dir2;    /* CREATE, UNLINK, RENAME: directory of path, of path2 */
	uint64_t offset, len;  /* WRITE */
	uint8_t *data;         /* WRITE: len bytes, NULL: zeros; META: npages pages */
	uint32_t *pages;       /* META: numbers of the pages that differ from the copy before */
	size_t npages;
	uint64_t size_before, size_after; /* WRITE, TRUNCATE, META */
	char *path, *path2;    /* of names; path also for messages */
};

struct vc_sim {
	struct vc_io io;
	pthread_mutex_t lock;        /* protects all below */
	struct sim_inode **inodes;
	size_t ninodes, inodes_cap;
	struct sim_names names;
	struct sim_event *events;
	size_t nevents, events_cap;
	size_t nbase;                /* events that only rebuild the state it started with */
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
/** A copy without doubled or final slashes. */
char *sim_normal(const char *path);
/** Inode number of a path. 0 or -ENOENT. */
int sim_find(struct vc_sim *sim, const char *path, uint32_t *ret);
/** Is it, or would it be, a real file? */
bool sim_is_real(struct vc_sim *sim, const char *path);
/** Give a name to a real file which has none. */
void sim_adopt(struct vc_sim *sim, const char *path);

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
/** tmpdir + path, allocated. */
char *sim_real(struct vc_sim *sim, const char *path);
/** Make the directories above the real twin of `path`. */
void sim_real_parents(struct vc_sim *sim, const char *path);
/** Record that a META inode has these contents now. */
void sim_record_meta(struct vc_sim *sim, uint32_t inode, const char *path, const uint8_t *bytes, uint64_t len);

#endif
