/* SPDX-License-Identifier: BSD-2-Clause */
/* crash_count: functions around those of the engine, which count, and can hold it. */
#include "config.h"
#include "unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include "crash_count.h"
#include "destage_impl.h"
#include "clean_impl.h"
#include "log_impl.h"

static atomic_size_t own[CRASH_COUNTERS];
static atomic_size_t *counters = own;

static const char *const counter_names[CRASH_COUNTERS] = {
	[CRASH_STATES] = "crash states",
	[CRASH_DISTINCT] = "distinct disks of workloads",
	[CRASH_NESTED] = "states within recovery, checkpoint, clean, repair, rebuild",
	[CRASH_BOOKS] = "checks of the books",
	[CRASH_REBUILDS] = "rebuilds after LMDB was lost",
	[CRASH_REPAIRS] = "repairs",
	[CRASH_KILLS] = "kills, after which the machine went on",
	[CRASH_LOG_REUSED] = "log segments used again",
	[CRASH_CUTS] = "slices cut",
	[CRASH_DESTAGES] = "checkpoints",
	[CRASH_CLEANS] = "cleans",
	[CRASH_UNLINKED] = "chunk segments removed",
	[CRASH_DIRECT] = "writes past the log",
	[CRASH_VOUCHED] = "direct chunks found by replay",
	[CRASH_REFUSED] = "direct chunks missed by replay",
	[CRASH_FROZEN] = "overlays frozen by clones",
	[CRASH_PARKED] = "requests parked",
	[CRASH_DEFERRED] = "node deletions deferred",
};

void crash_count(enum crash_counter which) { atomic_fetch_add(&counters[which], 1); }
size_t crash_counted(enum crash_counter which) { return atomic_load(&counters[which]); }

void crash_count_share(void)
{
	void *p = mmap(NULL, sizeof(own), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert(p != MAP_FAILED);
	counters = p;
}

void crash_count_reset(void)
{
	for (int i = 0; i < CRASH_COUNTERS; i++)
		atomic_store(&counters[i], 0);
}

bool crash_count_print(double seconds)
{
	bool all = true;

	printf("%zu crash states, %zu distinct, in %.1f s, %.0f a second\n", crash_counted(CRASH_STATES),
	       crash_counted(CRASH_DISTINCT) + crash_counted(CRASH_NESTED), seconds, (double)crash_counted(CRASH_STATES) / seconds);
	for (int i = CRASH_DISTINCT; i < CRASH_COUNTERS; i++) {
		printf("%10zu %s\n", crash_counted((enum crash_counter)i), counter_names[i]);
		if (!crash_counted((enum crash_counter)i)) {
			printf("           ^ never: this run has shown nothing about it\n");
			all = false;
		}
	}
	fflush(stdout);
	return all;
}

/* ---- holding ---- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	enum crash_hold where; /* the next thread to come there waits */
	bool waits;
} hold = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

static void hold_here(enum crash_hold where)
{
	pthread_mutex_lock(&hold.lock);
	while (hold.where == where) {
		hold.waits = true;
		pthread_cond_broadcast(&hold.cond);
		pthread_cond_wait(&hold.cond, &hold.lock);
	}
	hold.waits = false;
	pthread_mutex_unlock(&hold.lock);
}

void crash_hold(enum crash_hold where)
{
	pthread_mutex_lock(&hold.lock);
	hold.where = where;
	pthread_cond_broadcast(&hold.cond);
	pthread_mutex_unlock(&hold.lock);
}

void crash_wait_held(void)
{
	pthread_mutex_lock(&hold.lock);
	while (!hold.waits)
		pthread_cond_wait(&hold.cond, &hold.lock);
	pthread_mutex_unlock(&hold.lock);
}

/* ---- around the engine ---- */

#define AROUND(type, name, ...) type __real_##name(__VA_ARGS__); type __wrap_##name(__VA_ARGS__); type __wrap_##name(__VA_ARGS__)

AROUND(void, log_segment_header, const struct vc_log *log, const struct log_segment *segment, uint64_t first_lsn, uint64_t prev_hash,
       struct vc_disk_log_segment *ret)
{
	if (segment->seq > log->p.nsegments)
		crash_count(CRASH_LOG_REUSED);
	__real_log_segment_header(log, segment, first_lsn, prev_hash, ret);
}

AROUND(bool, vc_log_cut, struct vc_log *log, struct vc_log_section *next)
{
	bool cut = __real_vc_log_cut(log, next);

	if (cut)
		crash_count(CRASH_CUTS);
	return cut;
}

AROUND(int, vc_destage_stage, struct destage *d)
{
	hold_here(CRASH_HOLD_STAGE);
	return __real_vc_destage_stage(d);
}

AROUND(int, vc_destage_commit, struct destage *d)
{
	int r = __real_vc_destage_commit(d);

	if (r == 0)
		crash_count(CRASH_DESTAGES);
	return r;
}

AROUND(int, vc_clean_mark, struct vc_clean *c)
{
	hold_here(CRASH_HOLD_MARK);
	return __real_vc_clean_mark(c);
}

AROUND(int, vc_clean_sweep, struct vc_clean *c)
{
	int r;

	hold_here(CRASH_HOLD_SWEEP);
	r = __real_vc_clean_sweep(c);

	if (r == 0)
		crash_count(CRASH_CLEANS);
	return r;
}

AROUND(int, vc_clean_defer, void *pool, uint64_t node_id)
{
	crash_count(CRASH_DEFERRED);
	return __real_vc_clean_defer(pool, node_id);
}

AROUND(int, vc_chunk_remove_segment, struct vc_chunk_store *store, uint64_t segno)
{
	int r = __real_vc_chunk_remove_segment(store, segno);

	if (r == 0)
		crash_count(CRASH_UNLINKED);
	return r;
}

AROUND(int, vc_chunk_append_direct, struct vc_chunk_store *store, uint64_t ino, uint64_t lba, uint64_t lsn, const void *data,
       uint64_t nblocks, struct vc_disk_direct *ret, uint32_t *ret_n)
{
	crash_count(CRASH_DIRECT);
	return __real_vc_chunk_append_direct(store, ino, lba, lsn, data, nblocks, ret, ret_n);
}

AROUND(int, vc_chunk_vouch, struct vc_chunk_store *store, const struct vc_disk_direct *item)
{
	int r = __real_vc_chunk_vouch(store, item);

	crash_count(r == 0 ? CRASH_VOUCHED : CRASH_REFUSED);
	return r;
}

AROUND(int, vc_inode_freeze_locked, struct vc_inode *inode, uint64_t dead_tag, uint64_t new_tag)
{
	crash_count(CRASH_FROZEN);
	return __real_vc_inode_freeze_locked(inode, dead_tag, new_tag);
}

AROUND(void, vc_pool_park, struct vc_pool *pool, struct vc_parked *parked)
{
	crash_count(CRASH_PARKED);
	__real_vc_pool_park(pool, parked);
}
