/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * io_ring: reads that nobody waits for. Whoever wants one hands it over and goes on; a thread submits it through an io_uring, many at once
 * when there are many, and calls back when it has ended. What that saves are two changes of thread and a doorbell of the device a read.
 */
#ifndef VC_IO_RING_H
#define VC_IO_RING_H

#include "util.h"

struct vc_io_ring;
struct vc_file;

/** One read. Stays until its end has been told. */
struct vc_io_read {
	void *buf;
	size_t len;       /* bytes */
	uint64_t offset;
	bool past;        /* the page cache: as pread_past of the table; otherwise as preadv */
	/* For who starts it through the table (vc_io_start_read): bytes read, or -EAGAIN: read it in another way. May free the read. */
	void (*done)(struct vc_io_read *read, ssize_t n);
	/* For who adds it to a ring, which is the table. */
	int fd;
	struct vc_file *file;
	/*
	 * Bytes read (less than len at the end of the file), or -errno. On a thread of the ring: all other reads wait meanwhile, so it waits
	 * for nothing that a read could be needed for. May free the read.
	 */
	void (*arrived)(struct vc_io_read *read, ssize_t n);
	struct vc_io_read *next; /* the ring's */
};

/** Costs nothing until it is used: threads are started by the first read, one for each two processors, at most 8. NULL: no memory. */
struct vc_io_ring *vc_io_ring_new(void);
/** Waits for all reads. NULL is ignored. */
void vc_io_ring_free(struct vc_io_ring *ring);
/**
 * 0: arrived() will be called, or was. -EAGAIN: there are too many, or this system has no io_uring for us (no message is sent). Takes a lock of
 * rank VC_LOCK_WORK.
 */
int vc_io_ring_add(struct vc_io_ring *ring, struct vc_io_read *read) VC_MUST_CHECK;
/** False once it has turned out that this system has no io_uring for us. */
bool vc_io_ring_is_of_use(const struct vc_io_ring *ring);
/** Until each read that was added before has ended: its arrived() has returned. */
void vc_io_ring_drain(struct vc_io_ring *ring);

#endif
