/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What must not happen before something else has: each test brings the engine between two steps, by stopping a thread there (the linker's
 * --wrap), by a fault or by a crash, and looks at what would be lost were they the other way round.
 */
#include "config.h"
#include "unit.h"

#include <limits.h>
#include <pthread.h>

#include "journal_read.h"
#include "map.h"
#include "meta.h"
#include "place.h"
#include "pool_impl.h"
#include "rebuild.h"
#include "scrub.h"

#define BLOCK PLACE_BLOCK
#define MIB PLACE_MIB
#define DATA PLACE_POOL "/meta/data.mdb"
#define ROUNDS 12u /* more than the log has segments */

/* ---- a record that has its number and is not applied yet ---- */

int __real_vc_log_reserve(struct vc_log *log, size_t len, struct vc_log_slot *ret);
int __wrap_vc_log_reserve(struct vc_log *log, size_t len, struct vc_log_slot *ret);
void __real_vc_log_wait_applied(struct vc_log *log, struct vc_log_section *section);
void __wrap_vc_log_wait_applied(struct vc_log *log, struct vc_log_section *section);
int __real_vc_log_flush_wait(struct vc_log *log, uint64_t lsn);
int __wrap_vc_log_flush_wait(struct vc_log *log, uint64_t lsn);

static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool stopped, go, released;
} between = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER, .released = true };
static _Thread_local bool stops; /* this thread, after its next reservation */

static void between_set(bool *what)
{
	pthread_mutex_lock(&between.lock);
	*what = true;
	pthread_cond_broadcast(&between.cond);
	pthread_mutex_unlock(&between.lock);
}

static void between_wait(const bool *what)
{
	pthread_mutex_lock(&between.lock);
	while (!*what)
		pthread_cond_wait(&between.cond, &between.lock);
	pthread_mutex_unlock(&between.lock);
}

int __wrap_vc_log_reserve(struct vc_log *log, size_t len, struct vc_log_slot *ret)
{
	int r = __real_vc_log_reserve(log, len, ret);

	if (stops) {
		stops = false;
		between_set(&between.stopped);
		between_wait(&between.go);
	}
	return r;
}

/* A destage comes to both in this order; whoever applies goes on at the first of them, where the destage itself may be held. */
void __wrap_vc_log_wait_applied(struct vc_log *log, struct vc_log_section *section)
{
	between_set(&between.go);
	between_wait(&between.released);
	__real_vc_log_wait_applied(log, section);
}

int __wrap_vc_log_flush_wait(struct vc_log *log, uint64_t lsn)
{
	between_set(&between.go);
	return __real_vc_log_flush_wait(log, lsn);
}

static void *write_stopped(void *inode)
{
	stops = true;
	place_fill(inode, 0, BLOCK, 2);
	return NULL;
}

/* I6: a slice is destaged when all its records are applied; what the last of them has changed is in the checkpoint. */
static void test_destage_waits_for_records(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");
	pthread_t writer;

	place_fill(a, 0, BLOCK, 1);
	place_destage(p);
	between.stopped = between.go = false;
	assert_int_equal(vc_thread_start(&writer, "writer", write_stopped, a), 0);
	between_wait(&between.stopped);
	place_destage(p);
	pthread_join(writer, NULL);
	assert_true(place_holds(a, 0, BLOCK, 2));
	vc_inode_put(a);
	place_close(p, true);
	place_open(p);
	a = engine_lookup(p->root, "a");
	assert_true(place_holds(a, 0, BLOCK, 2));
	vc_inode_put(a);
}

/* ---- a large write whose chunks are there, and no record that names them ---- */

void __real_vc_record_direct(struct vc_record *rec, uint64_t ino, uint64_t lba, uint64_t nblocks, const struct vc_disk_direct *items, uint32_t n);
void __wrap_vc_record_direct(struct vc_record *rec, uint64_t ino, uint64_t lba, uint64_t nblocks, const struct vc_disk_direct *items, uint32_t n);

static struct vc_pool *clean_in_write;

void __wrap_vc_record_direct(struct vc_record *rec, uint64_t ino, uint64_t lba, uint64_t nblocks, const struct vc_disk_direct *items, uint32_t n)
{
	struct vc_pool *pool = clean_in_write;

	clean_in_write = NULL;
	if (pool)
		assert_int_equal(engine_task(pool, VC_TASK_CLEAN), 0);
	__real_vc_record_direct(rec, ino, lba, nblocks, items, n);
}

/* I3: a clean that begins and ends in the middle of a large write leaves it its chunks, though it fills whole segments. */
static void test_clean_in_large_write(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");

	place_destage(p);
	clean_in_write = p->pool;
	place_fill(a, 0, MIB, 1);
	assert_null(clean_in_write);
	assert_true(place_holds(a, 0, MIB, 1));
	assert_int_equal(engine_flush(a), 0);
	vc_inode_put(a);
	place_close(p, true);
	place_open(p);
	a = engine_lookup(p->root, "a");
	assert_true(place_holds(a, 0, MIB, 1));
	vc_inode_put(a);
}

/* ---- the journal, and LMDB lost ---- */

static void finding(void *ctx VC_UNUSED, const char *text) { fprintf(stderr, "finding: %s\n", text); }
static void say(void *ctx VC_UNUSED, const char *text VC_UNUSED) { }

/* LMDB of a pool that is not open is gone; backup, journal and log make it again whole. Returns its checkpoint. */
static uint64_t lose_and_rebuild(struct vc_sim *sim)
{
	struct vc_rebuild_options o = { .check = { .data = true, .found = finding }, .say = say };
	struct vc_rebuild_result result;

	assert_int_equal(vc_io_unlink(vc_sim_io(sim), DATA), 0);
	assert_int_equal(vc_rebuild_pool(vc_sim_io(sim), PLACE_POOL, &o, &result), 0);
	assert_int_equal(result.check.findings, 0);
	assert_true(result.replaced);
	return result.checkpoint_lsn;
}

/* What a crash has left goes on until the log has gone round; then LMDB is lost. */
static void go_on_and_lose(struct vc_sim *sim)
{
	struct place p = { .sim = sim };
	struct vc_inode *a;

	place_open(&p);
	a = engine_lookup(p.root, "a");
	assert_true(place_holds(a, 0, BLOCK, 1));
	assert_true(place_holds(a, BLOCK, BLOCK, 2));
	for (unsigned i = 0; i < ROUNDS; i++) {
		place_fill(a, (2 + i) * BLOCK, BLOCK, 3 + i);
		place_destage(&p);
	}
	vc_inode_put(a);
	place_close(&p, true);
	lose_and_rebuild(sim);
	place_open(&p);
	a = engine_lookup(p.root, "a");
	for (unsigned i = 0; i < 2 + ROUNDS; i++)
		assert_true(place_holds(a, i * BLOCK, BLOCK, 1 + i));
	vc_inode_put(a);
	place_close(&p, true);
}

/* I7: wherever a checkpoint is cut off, LMDB has none that the journal does not lead to: later ones could not be reached through it. */
static void test_journal_before_commit(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");
	size_t from;

	place_fill(a, 0, BLOCK, 1);
	place_destage(p);
	place_fill(a, BLOCK, BLOCK, 2);
	assert_int_equal(engine_flush(a), 0);
	vc_inode_put(a);
	from = vc_sim_events(p->sim);
	place_destage(p);
	for (size_t at = from, end = vc_sim_events(p->sim); at <= end; at++) {
		struct vc_sim *after = vc_sim_crash(p->sim, at, &(struct vc_sim_policy){ .keep = VC_SIM_KEEP_ALL });

		go_on_and_lose(after);
		vc_sim_free(after);
	}
}

/* ---- a commit that finds no space ---- */

static void commits_find_no_space(struct place *p)
{
	vc_sim_fail(p->sim, &(struct vc_sim_fault){ .ops = VC_SIM_META_WRITE, .nth = 1, .error = ENOSPC, .sticky = true });
}

/*
 * I7: the journal names the chunks of a checkpoint that found no space. They stay, for LMDB may be lost before the checkpoint is made, and then
 * the journal leads to them.
 */
static void test_journalled_chunks_stay(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");
	struct vc_log_figures log;

	place_fill(a, 0, BLOCK, 1);
	place_destage(p);
	for (unsigned i = 0; i < 64; i++) /* through the log; more than a chunk segment holds */
		place_fill(a, i * 2 * BLOCK, 2 * BLOCK, i);
	vc_inode_put(a);
	vc_log_figures(p->pool->log, &log);
	commits_find_no_space(p);
	assert_int_equal(engine_task(p->pool, VC_TASK_DESTAGE), -ENOSPC);
	place_close(p, true);
	vc_sim_fail(p->sim, NULL);
	assert_int_equal(lose_and_rebuild(p->sim), log.last_lsn);
	place_open(p);
	a = engine_lookup(p->root, "a");
	for (unsigned i = 0; i < 64; i++)
		assert_true(place_holds(a, i * 2 * BLOCK, 2 * BLOCK, i));
	vc_inode_put(a);
}

/* D8: while checkpoints find no space new data is refused, also when there is room otherwise and the reserve is whole again. */
static void test_no_room_to_destage_is_told(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");

	place_fill(a, 0, BLOCK, 1);
	commits_find_no_space(p);
	assert_int_equal(engine_task(p->pool, VC_TASK_DESTAGE), -ENOSPC);
	vc_pool_check_space(p->pool, true);
	assert_int_equal(engine_write(a, "new", 3, 0, 0), -ENOSPC);
	assert_true(atomic_load(&p->pool->full) & VC_FULL_DESTAGE);
	assert_true(place_holds(a, 0, BLOCK, 1));
	vc_sim_fail(p->sim, NULL);
	place_destage(p);
	place_fill(a, 0, BLOCK, 2);
	assert_true(place_holds(a, 0, BLOCK, 2));
	vc_inode_put(a);
}

static int count_piece(void *ctx, const char *name VC_UNUSED)
{
	++*(unsigned *)ctx;
	return 0;
}

static unsigned pieces(struct place *p)
{
	unsigned n = 0;

	assert_int_equal(vc_io_list(vc_sim_io(p->sim), PLACE_POOL "/reserve", count_piece, &n), 0);
	return n;
}

/* D8: who meets a full disk gets the reserve, piece by piece, before anything is given up for want of space; and is told when it is gone. */
static void test_reserve_is_given(void **state)
{
	struct place *p = *state;
	unsigned left = pieces(p);

	assert_true(left > 1);
	for (; left > 0; left--) {
		assert_int_equal(pieces(p), left);
		assert_true(vc_pool_make_room(p->pool));
	}
	assert_int_equal(pieces(p), 0);
	assert_false(vc_pool_make_room(p->pool));
}

/* ---- what a clean removes ---- */

struct rows {
	struct vc_io *io;
	unsigned n;
};

static int row_has_file(void *ctx, const void *key, size_t key_len, const void *value VC_UNUSED, size_t len VC_UNUSED)
{
	struct rows *rows = ctx;
	struct vc_file *file;
	char path[64];

	assert_int_equal(key_len, 9);
	snprintf(path, sizeof(path), PLACE_POOL "/chunk/%08llx.seg", (unsigned long long)vc_be64_at((const uint8_t *)key + 1));
	assert_int_equal(vc_io_open(rows->io, path, VC_IO_READ, &file), 0);
	vc_io_close(file);
	rows->n++;
	return 0;
}

/* How many rows of chunk segments LMDB has; each has its file. */
static unsigned rows_with_files(struct vc_sim *sim)
{
	struct vc_meta_params params = { .io = vc_sim_io(sim), .dir = PLACE_POOL "/meta", .read_only = true };
	struct rows rows = { .io = vc_sim_io(sim) };
	uint8_t prefix = VC_ROW_SEGMENT;
	struct vc_meta_txn *txn;
	struct vc_meta *meta;

	assert_int_equal(vc_meta_open(&params, &meta), 0);
	assert_int_equal(vc_meta_read_begin(meta, &txn), 0);
	assert_int_equal(vc_meta_scan(txn, VC_DB_CAT, &prefix, 1, NULL, 0, row_has_file, &rows), 0);
	vc_meta_end(txn);
	vc_meta_close(meta);
	return rows.n;
}

/* D6: wherever a clean is cut off, no row of a segment stays whose file is gone: nobody would remove it any more. */
static void test_rows_go_before_files(void **state)
{
	static const enum vc_sim_keep kinds[] = { VC_SIM_KEEP_ALL, VC_SIM_KEEP_NONE, VC_SIM_KEEP_DATA, VC_SIM_KEEP_NAMES };
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");
	struct vc_task_status status;
	unsigned n, least = UINT_MAX, most = 0;
	size_t from;

	place_fill(a, 0, MIB, 1);
	vc_inode_put(a);
	assert_int_equal(engine_unlink(p->root, "a"), 0);
	place_close(p, false); /* so that no chunk segment is open */
	place_open(p);
	from = vc_sim_events(p->sim);
	assert_int_equal(engine_task(p->pool, VC_TASK_CLEAN), 0);
	vc_pool_task_status(p->pool, VC_TASK_CLEAN, &status);
	assert_true(status.freed_segments > 1);
	for (size_t at = from, end = vc_sim_events(p->sim); at <= end; at++)
		for (size_t i = 0; i < VC_ARRAY_LEN(kinds); i++) {
			struct vc_sim *after = vc_sim_crash(p->sim, at, &(struct vc_sim_policy){ .keep = kinds[i] });

			n = rows_with_files(after);
			least = VC_MIN(least, n);
			most = VC_MAX(most, n);
			vc_sim_free(after);
		}
	assert_true(least == 0 && most == status.freed_segments);
}

static int node_is_there(struct vc_pool *pool, uint64_t id)
{
	struct vc_meta_txn *txn;
	struct vc_node node;
	int r;

	assert_int_equal(vc_meta_read_begin(pool->meta, &txn), 0);
	r = vc_map_node_read(txn, id, &node);
	vc_meta_end(txn);
	return r;
}

/* I4: what is in use in memory only is not swept: here a view that a reader took before all of it was overwritten. */
static void test_views_are_not_swept(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a"), *b;
	struct vc_view *view;
	uint64_t root;

	place_fill(a, 0, MIB, 1);
	place_destage(p);
	assert_int_equal(engine_clone(a, p->root, "b", &b), 0);
	place_destage(p);
	view = vc_base_view(b->base);
	root = view->root.id;
	place_fill(a, 0, MIB, 2);
	place_fill(b, 0, MIB, 3);
	place_destage(p);
	assert_int_equal(engine_task(p->pool, VC_TASK_CLEAN), 0);
	assert_int_equal(node_is_there(p->pool, root), 0);
	vc_view_put(view);
	assert_int_equal(engine_task(p->pool, VC_TASK_CLEAN), 0);
	assert_int_equal(node_is_there(p->pool, root), -ESTALE);
	vc_inode_put(a);
	vc_inode_put(b);
}

/* ---- the end of a pool, and of its log ---- */

/* What nobody has flushed is on the disk when a pool has been closed. */
static void test_closed_is_durable(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");

	place_fill(a, 0, PLACE_BLOCK, 1);
	vc_inode_put(a);
	place_close(p, false);
	place_power_cut(p, VC_SIM_KEEP_NONE);
	a = engine_lookup(p->root, "a");
	assert_non_null(a);
	assert_true(place_holds(a, 0, PLACE_BLOCK, 1));
	vc_inode_put(a);
}

/* A chunk that a durable record names is gone: that is no end of the log, behind which nothing counts. */
static void test_lost_chunk_is_no_end(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");
	struct vc_pool *pool = NULL;
	int r;

	place_fill(a, 0, MIB, 1); /* large: straight into chunks */
	assert_int_equal(engine_flush(a), 0);
	place_fill(a, MIB, PLACE_BLOCK, 2);
	assert_int_equal(engine_flush(a), 0); /* knows that the other is durable */
	vc_inode_put(a);
	place_close(p, true);
	assert_int_equal(vc_io_unlink(vc_sim_io(p->sim), PLACE_POOL "/chunk/00000001.seg"), 0);
	r = engine_try_open(vc_sim_io(p->sim), PLACE_POOL, ENGINE_DESTAGE_NEVER, &pool);
	if (r == 0)
		vc_pool_abandon(pool);
	assert_true(r < 0);
}

/* Is the image's first block there, or said to be damaged? For a pool that may refuse to be opened. */
static bool is_cut_off(struct vc_sim *sim)
{
	struct place p = { .sim = sim };
	struct vc_inode *a;
	uint8_t block[PLACE_BLOCK];
	ssize_t n;

	if (engine_try_open(vc_sim_io(sim), PLACE_POOL, ENGINE_DESTAGE_NEVER, &p.pool) < 0)
		return false;
	p.root = engine_root(p.pool);
	a = engine_lookup(p.root, "a");
	assert_non_null(a);
	n = vc_volume_read(a, block, sizeof(block), 0);
	vc_inode_put(a);
	place_close(&p, true);
	return n != -EIO;
}

/* The same when only the journal knows that the record was durable: the log had no batch after it, and LMDB not yet the checkpoint. */
static void test_journal_vouches(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");
	size_t from, known = 0;

	place_fill(a, 0, MIB, 1);
	vc_inode_put(a);
	from = vc_sim_events(p->sim);
	place_destage(p);
	vc_unit_catch_messages(true);
	for (size_t at = from, end = vc_sim_events(p->sim); at <= end; at++) {
		struct vc_sim *after = vc_sim_crash(p->sim, at, &(struct vc_sim_policy){ .keep = VC_SIM_KEEP_ALL });
		struct vc_journal_last last = { .reaches = 0 };
		int r = vc_journal_last(vc_sim_io(after), PLACE_POOL, p->pool->disk.uuid, 0, &last);

		assert_true(r == 0 || r == -ENOENT);
		assert_int_equal(vc_io_unlink(vc_sim_io(after), PLACE_POOL "/chunk/00000001.seg"), 0);
		known += last.reaches > 0;
		assert_true(last.reaches == 0 || !is_cut_off(after));
		vc_sim_free(after);
	}
	vc_unit_catch_messages(false);
	assert_true(known > 1); /* the entry and LMDB are not written in the same moment */
}

/* An entry of the journal from checkpoint `prev` to one that is `ahead` of it, without that checkpoint. */
static void journal_entry(struct place *p, uint64_t prev, uint64_t ahead)
{
	vc_journal_begin(p->pool->journal);
	assert_int_equal(vc_journal_item(p->pool->journal, VC_JOURNAL_GONE, 0, 0, 0, ahead), 0);
	assert_int_equal(vc_journal_commit(p->pool->journal, prev, prev + ahead), 0);
}

/* Entries of checkpoints that never were are gone in the next life, also those behind what is written in place of the first. */
static void test_dead_entries_go(void **state)
{
	struct place *p = *state;
	const struct vc_journal_entry *next;
	struct vc_journal_scan s;
	struct vc_inode *a;
	uint64_t prev;

	place_destage(p);
	a = place_file(p, "a");
	place_destage(p);
	prev = p->pool->checkpoint_lsn;
	for (unsigned i = 0; i < 60; i++) /* the log has been durable as far as entries lead */
		place_fill(a, i * BLOCK, BLOCK, i);
	assert_int_equal(engine_flush(a), 0);
	vc_inode_put(a);
	for (uint64_t i = 1; i <= 3; i++)
		journal_entry(p, prev, i);
	between.released = false; /* what is recovered would be destaged at once */
	place_power_cut(p, VC_SIM_KEEP_NONE);
	assert_int_equal(p->pool->checkpoint_lsn, prev);
	journal_entry(p, prev, 50);
	assert_int_equal(vc_journal_scan(vc_sim_io(p->sim), PLACE_POOL, p->pool->disk.uuid, &s), 0);
	next = vc_journal_after(&s, prev);
	assert_non_null(next);
	assert_int_equal(next->checkpoint_lsn, prev + 50);
	vc_journal_scan_fini(&s);
}

/* ---- a scrub ---- */

/* Its position takes the place of the one before when it is on the disk: a power cut leaves one of them. */
static void test_scrub_position_is_whole(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");
	struct vc_scrub_status s;
	uint64_t started;

	place_fill(a, 0, MIB, 1);
	vc_inode_put(a);
	assert_int_equal(vc_scrub_start(p->pool, BLOCK, true), 0);
	vc_scrub_status(p->pool, &s);
	started = s.started_ns;
	assert_true(started > 0);
	place_close(p, false);
	place_power_cut(p, VC_SIM_KEEP_NAMES);
	vc_scrub_status(p->pool, &s);
	assert_int_equal(s.started_ns, started);
}

static int teardown(void **state)
{
	between_set(&between.released);
	return place_teardown(state);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_destage_waits_for_records),
		TEST(test_clean_in_large_write),
		TEST(test_journal_before_commit),
		TEST(test_journalled_chunks_stay),
		TEST(test_no_room_to_destage_is_told),
		TEST(test_reserve_is_given),
		TEST(test_rows_go_before_files),
		TEST(test_views_are_not_swept),
		TEST(test_closed_is_durable),
		TEST(test_lost_chunk_is_no_end),
		TEST(test_journal_vouches),
		TEST(test_dead_entries_go),
		TEST(test_scrub_position_is_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
