/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fsx: random operations on images that are cloned all the time, against a model in memory.
 *
 * Each thread owns a set of images; nobody else changes those. What several threads use never changes: the golden images
 * made at the start, and images their owner has published. Clones and copies go from own and shared images to own ones,
 * so the model of every image is exact however the threads run. In between all threads stop, everything is compared, and
 * the pool is closed and opened again, or killed.
 *
 *   fsx.c         options, threads, rounds, what is printed when something is wrong
 *   fsx_ops.c     the operations and their checks
 *   fsx_data.c    operations on bytes
 *   fsx_stamp.c   the other mode: clones of an image that is being written are checked to be a moment of it (D3)
 *   fsx_engine.c  backend: the engine in this process      fsx_mount.c  backend: a mount, by system calls
 *
 * A model holds a window of an image: bytes from `base` on. Before it there is nothing, so that images may be large.
 */
#ifndef FSX_H
#define FSX_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "util.h"

#define FSX_THREADS_MAX 8
#define FSX_IMAGES_MAX 16
#define FSX_SHARED_MAX 10
#define FSX_GOLDEN 2       /* of the shared ones: never removed */
#define FSX_RING 64        /* operations remembered for the report, per thread */
#define FSX_IO_MAX (192u << 10)
#define FSX_NAME 32
#define FSX_BLOCK 4096u

enum fsx_how { FSX_BUFFERED, FSX_DIRECT, FSX_MAPPED, FSX_HOWS };

struct fsx;

/** One image and what it must hold. */
struct fsx_image {
	char name[FSX_NAME];  /* "": there is none */
	uint64_t base;        /* window of the file that is used */
	uint64_t size;        /* of the file, at least base */
	uint8_t *bytes;       /* window; zero behind size */
	bool dirty;           /* mapped pages may not have reached the daemon */
	void *inode;          /* engine: the inode, referenced */
	int fd, direct_fd;    /* mount: -1 when not open */
	_Atomic unsigned users;       /* shared ones: threads reading it now; under fsx.lock */
	bool dying;           /* shared ones: being removed; under fsx.lock */
};

struct fsx_thread {
	struct fsx *x;
	unsigned index;
	uint64_t rng;
	uint64_t nops;        /* done */
	struct fsx_image images[FSX_IMAGES_MAX];
	uint8_t *buf, *buf2;  /* FSX_IO_MAX, page-aligned */
	char ring[FSX_RING][160];
	pthread_t thread;
};

/**
 * How images are reached. Functions return 0, a count, or -errno. Images are open when they are used; names lie in the root.
 * Functions that may be NULL: settle, syncs_source, unblock.
 */
struct fsx_backend {
	const char *name;
	int (*start)(struct fsx *x);                 /* pool made by create; also after stop */
	int (*create)(struct fsx *x);
	void (*stop)(struct fsx *x, bool sudden);    /* all images closed; sudden: as if killed */
	int (*open)(struct fsx *x, struct fsx_image *img, bool create);
	void (*close)(struct fsx *x, struct fsx_image *img);
	ssize_t (*read)(struct fsx_image *img, enum fsx_how how, void *buf, size_t len, uint64_t offset);
	ssize_t (*write)(struct fsx_image *img, enum fsx_how how, const void *buf, size_t len, uint64_t offset, bool durable);
	ssize_t (*append)(struct fsx *x, struct fsx_image *img, const void *buf, size_t len);
	int (*resize)(struct fsx_image *img, uint64_t size);
	int (*allocate)(struct fsx_image *img, int mode, uint64_t offset, uint64_t len);
	int (*seek)(struct fsx_image *img, uint64_t offset, int whence, uint64_t *ret);
	int (*flush)(struct fsx_image *img);
	int (*settle)(struct fsx_image *img);        /* mapped pages reach the daemon */
	int (*size)(struct fsx_image *img, uint64_t *ret);
	ssize_t (*copy)(struct fsx_image *src, uint64_t from, struct fsx_image *dst, uint64_t to, uint64_t len);
	/* A new name with the content of src, not opened. `way` below nways; later ones are slow and taken rarely. */
	int (*clone)(struct fsx *x, struct fsx_image *src, const char *name, unsigned way);
	unsigned nways, nfast;
	bool (*syncs_source)(unsigned way);          /* this way sees dirty mapped pages without help; NULL: none are */
	int (*remove)(struct fsx *x, const char *name);
	int (*rename)(struct fsx *x, const char *from, const char *to);
	int (*drop)(struct fsx_image *img);          /* forget what is cached of it */
	int (*background)(struct fsx *x, unsigned what); /* destage, clean; goes on by itself or not */
	void (*unblock)(struct fsx *x);              /* everything that waits fails; NULL: nothing can wait for ever */
	bool mapped;                                 /* FSX_DIRECT and FSX_MAPPED are something else than FSX_BUFFERED */
};

extern const struct fsx_backend fsx_engine, fsx_mount;

struct fsx_options {
	uint64_t seed, ops;      /* per thread; 0: by time */
	unsigned threads, images, seconds;
	uint64_t window;         /* bytes of an image that are used */
	uint64_t round;          /* operations between two stops */
	bool no_remount, stamps, trace;
	const char *dir;         /* where the pool is made */
	const char *programs;    /* mount: where vclonefs and vclone are */
};

struct fsx {
	struct fsx_options o;
	const struct fsx_backend *b;
	struct fsx_thread threads[FSX_THREADS_MAX];
	pthread_mutex_t lock;
	struct fsx_image shared[FSX_SHARED_MAX];
	pthread_barrier_t barrier;
	atomic_bool stop;
	_Atomic uint64_t remounts;   /* the watcher looks at it */
	uint64_t kills, clones, bytes; /* figures; threads add at stops */
	_Atomic uint64_t nclones;
	char *pool, *mnt;        /* below o.dir */
	struct vc_pool *engine;  /* engine */
	void *root;              /* engine: inode of the root */
	int dir_fd;              /* mount: of the root */
	int live_fd;             /* mount: what the daemon tells comes here */
	pid_t daemon;
	unsigned device;         /* mount: number of the connection to the daemon */
	int watch[2];
	pthread_t watcher;
};

/* fsx.c */
/** Report and end: everything is unmounted, the directory stays. */
void fsx_fail(struct fsx_thread *t, const char *fmt, ...) VC_PRINTF(2, 3) __attribute__((noreturn));
/** Remember an operation; before it is done. */
void fsx_note(struct fsx_thread *t, const char *fmt, ...) VC_PRINTF(2, 3);
uint64_t fsx_random(uint64_t *state);
uint64_t fsx_below(struct fsx_thread *t, uint64_t n);
void fsx_image_init(struct fsx *x, struct fsx_image *img);

/* fsx_ops.c */
void fsx_step(struct fsx_thread *t);
/** Compare an image with its model. */
void fsx_verify(struct fsx_thread *t, struct fsx_image *img);
void fsx_make_golden(struct fsx_thread *t);

/* fsx_data.c */
/** One operation on the bytes of an image; `src` (maybe the same) for copies. */
void fsx_data_step(struct fsx_thread *t, struct fsx_image *img, struct fsx_image *src);
void fsx_data_verify(struct fsx_thread *t, struct fsx_image *img);
/** Mapped pages are written out, if there are any. */
void fsx_settle(struct fsx_thread *t, struct fsx_image *img);
/** Fill the window of a new image. */
void fsx_data_fill(struct fsx_thread *t, struct fsx_image *img);

/* fsx_stamp.c */
void fsx_stamp_run(struct fsx *x);

/** r must not be negative. */
#define fsx_want(t, r, what) do { int64_t fsx_r = (r); if (fsx_r < 0) \
		fsx_fail((t), "%s: error %d (%s)", (what), (int)-fsx_r, strerror((int)-fsx_r)); } while (0)

#endif
