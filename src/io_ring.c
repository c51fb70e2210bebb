/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * io_ring: lanes, each a thread with an io_uring of its own that nobody else touches.
 *
 *   add --> lane->queue --thread--> submission queue ... completion --thread--> arrived()
 *
 * The thread takes all that is queued, submits it with the call that also waits, and handles a few completions before it looks at the
 * queue again, so that the device does not run dry meanwhile. It sleeps in the kernel only; who adds to the queue of a sleeping thread
 * wakes it through an eventfd that is being read by the ring itself.
 *
 * Being the only one to submit, the thread can ask for completions to be handled when it asks for them (DEFER_TASKRUN, Linux
 * 6.1), not by interrupting it; older kernels are asked without. Before 5.17 (told by IORING_FEAT_CQE_SKIP) there is no ring: what those lack is not
 * worth knowing.
 */
#include "config.h"
#include "io_ring.h"

#include <liburing.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lock.h"
#include "work.h"

#define RING_ENTRIES 128u /* reads of a lane that can be under way */
#define RING_LANES_MAX 8u
#define RING_BATCH 4u     /* completions handled before the queue is looked at again */

struct ring_lane {
	_Alignas(64) struct vc_mutex lock;
	struct vc_cond changed;
	struct vc_io_read *queue, **queue_end; /* lock */
	unsigned int under_way;                /* lock; added and not arrived */
	bool asleep;                           /* lock; or about to be: must be woken */
	bool stop;                             /* lock */
	int state;                             /* lock; 0: starting, 1: runs, -errno */
	/* The thread's own. */
	int event_fd;
	uint64_t event;                        /* what the ring reads from it */
	bool event_wanted;                     /* no read of it is under way */
	struct io_uring uring;
	pthread_t thread;
	bool started;
};

enum ring_state { RING_UNUSED, RING_STARTING, RING_RUNS, RING_CANNOT };

struct vc_io_ring {
	unsigned int nlanes;
	unsigned int nstarted, nrunning; /* fixed when it runs; at most one has failed, the last */
	_Atomic int state;             /* enum ring_state */
	_Atomic unsigned int turn;
	struct ring_lane lanes[];
};

/* ---- the thread ---- */

static int lane_setup(struct ring_lane *lane)
{
	struct io_uring_params params = { .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN };
	int r = io_uring_queue_init_params(RING_ENTRIES * 2, &lane->uring, &params);

	if (r == -EINVAL) {
		params = (struct io_uring_params){ 0 };
		r = io_uring_queue_init_params(RING_ENTRIES * 2, &lane->uring, &params);
	}
	if (r < 0 || params.features & IORING_FEAT_CQE_SKIP)
		return r;
	io_uring_queue_exit(&lane->uring);
	return -ENOSYS;
}

/* There is room: no more than RING_ENTRIES reads and the event are ever under way. */
static void lane_prepare(struct ring_lane *lane, struct vc_io_read *read)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&lane->uring);

	if (read)
		io_uring_prep_read(sqe, read->fd, read->buf, (unsigned int)read->len, read->offset);
	else
		io_uring_prep_read(sqe, lane->event_fd, &lane->event, sizeof(lane->event), 0);
	io_uring_sqe_set_data(sqe, read);
}

/* Take what is queued. A lane that is going to sleep counts as asleep from here on. False: stop. */
static bool lane_take(struct ring_lane *lane, bool sleep)
{
	struct vc_io_read *read;
	bool stop;

	vc_mutex_lock(&lane->lock);
	read = lane->queue;
	lane->queue = NULL;
	lane->queue_end = &lane->queue;
	lane->asleep = sleep;
	stop = lane->stop && lane->under_way == 0;
	vc_mutex_unlock(&lane->lock);
	while (read) {
		struct vc_io_read *next = read->next;

		lane_prepare(lane, read);
		read = next;
	}
	if (lane->event_wanted) {
		lane_prepare(lane, NULL);
		lane->event_wanted = false;
	}
	return !stop;
}

static void lane_handle(struct ring_lane *lane)
{
	struct io_uring_cqe *cqes[RING_BATCH];
	unsigned int n = io_uring_peek_batch_cqe(&lane->uring, cqes, RING_BATCH), ndone = 0;

	for (unsigned int i = 0; i < n; i++) {
		struct vc_io_read *read = io_uring_cqe_get_data(cqes[i]);

		if (read) {
			read->arrived(read, cqes[i]->res);
			ndone++;
		} else {
			lane->event_wanted = true;
		}
	}
	io_uring_cq_advance(&lane->uring, n);
	if (ndone) {
		vc_mutex_lock(&lane->lock);
		lane->under_way -= ndone;
		if (lane->under_way == 0)
			vc_cond_broadcast(&lane->changed);
		vc_mutex_unlock(&lane->lock);
	}
}

static void lane_is(struct ring_lane *lane, int state)
{
	vc_mutex_lock(&lane->lock);
	lane->state = state;
	vc_cond_broadcast(&lane->changed);
	vc_mutex_unlock(&lane->lock);
}

static void *lane_main(void *arg)
{
	struct ring_lane *lane = arg;
	int r = lane_setup(lane);

	lane_is(lane, r < 0 ? r : 1);
	if (r < 0)
		return NULL;
	lane->event_wanted = true;
	for (;;) {
		bool sleep = io_uring_cq_ready(&lane->uring) == 0;

		if (!lane_take(lane, sleep))
			break;
		/* One that is interrupted comes round again. */
		(void)(sleep ? io_uring_submit_and_wait(&lane->uring, 1) : io_uring_submit_and_get_events(&lane->uring));
		lane_handle(lane);
	}
	io_uring_queue_exit(&lane->uring);
	return NULL;
}

/* ---- for everybody ---- */

static void lane_wake(const struct ring_lane *lane)
{
	uint64_t one = 1;

	while (write(lane->event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

/* The ring is made by the thread that will use it: the kernel wants to see nobody else there. */
static int lane_open(struct ring_lane *lane)
{
	int r;

	vc_mutex_init(&lane->lock, VC_LOCK_WORK);
	vc_cond_init(&lane->changed);
	lane->queue_end = &lane->queue;
	lane->event_fd = eventfd(0, EFD_CLOEXEC);
	r = lane->event_fd < 0 ? -errno : vc_thread_start(&lane->thread, "io-ring", lane_main, lane);
	if (r < 0)
		return r;
	lane->started = true;
	vc_mutex_lock(&lane->lock);
	while (lane->state == 0)
		vc_cond_wait(&lane->changed, &lane->lock);
	r = lane->state;
	vc_mutex_unlock(&lane->lock);
	return VC_MIN(r, 0);
}

/* One starts it; others do without meanwhile. */
static bool ring_runs(struct vc_io_ring *ring)
{
	int state = atomic_load_explicit(&ring->state, memory_order_acquire), r = 0;

	if (state != RING_UNUSED || !atomic_compare_exchange_strong(&ring->state, &state, RING_STARTING))
		return state == RING_RUNS;
	while (ring->nstarted < ring->nlanes && r == 0)
		r = lane_open(&ring->lanes[ring->nstarted++]);
	ring->nrunning = ring->nstarted - (r < 0);
	state = ring->nrunning ? RING_RUNS : RING_CANNOT;
	atomic_store_explicit(&ring->state, state, memory_order_release);
	return state == RING_RUNS;
}

bool vc_io_ring_is_of_use(const struct vc_io_ring *ring)
{
	return atomic_load_explicit(&ring->state, memory_order_relaxed) != RING_CANNOT;
}

int vc_io_ring_add(struct vc_io_ring *ring, struct vc_io_read *read)
{
	bool wake = false, full;
	struct ring_lane *lane;

	if (!ring_runs(ring))
		return -EAGAIN;
	lane = &ring->lanes[ring->nrunning > 1 ? atomic_fetch_add_explicit(&ring->turn, 1, memory_order_relaxed) % ring->nrunning : 0];
	read->next = NULL;
	vc_mutex_lock(&lane->lock);
	full = lane->under_way >= RING_ENTRIES;
	if (!full) {
		*lane->queue_end = read;
		lane->queue_end = &read->next;
		lane->under_way++;
		wake = lane->asleep;
		lane->asleep = false;
	}
	vc_mutex_unlock(&lane->lock);
	if (wake)
		lane_wake(lane);
	return full ? -EAGAIN : 0;
}

void vc_io_ring_drain(struct vc_io_ring *ring)
{
	for (unsigned int i = 0; i < ring->nstarted; i++) {
		struct ring_lane *lane = &ring->lanes[i];

		vc_mutex_lock(&lane->lock);
		while (lane->under_way > 0)
			vc_cond_wait(&lane->changed, &lane->lock);
		vc_mutex_unlock(&lane->lock);
	}
}

static void lane_close(struct ring_lane *lane)
{
	if (lane->started) {
		vc_mutex_lock(&lane->lock);
		lane->stop = true;
		vc_mutex_unlock(&lane->lock);
		lane_wake(lane);
		pthread_join(lane->thread, NULL);
	}
	if (lane->event_fd >= 0)
		close(lane->event_fd);
	vc_cond_fini(&lane->changed);
	vc_mutex_fini(&lane->lock);
}

struct vc_io_ring *vc_io_ring_new(void)
{
	unsigned int nlanes = VC_MAX(VC_MIN(vc_work_processors() / 2, RING_LANES_MAX), 1u);
	size_t size = VC_ROUND_UP(sizeof(struct vc_io_ring) + nlanes * sizeof(struct ring_lane), _Alignof(struct vc_io_ring));
	struct vc_io_ring *ring = aligned_alloc(_Alignof(struct vc_io_ring), size);

	if (!ring)
		return NULL;
	memset(ring, 0, size);
	ring->nlanes = nlanes;
	return ring;
}

void vc_io_ring_free(struct vc_io_ring *ring)
{
	if (!ring)
		return;
	vc_io_ring_drain(ring);
	for (unsigned int i = 0; i < ring->nstarted; i++)
		lane_close(&ring->lanes[i]);
	free(ring);
}
