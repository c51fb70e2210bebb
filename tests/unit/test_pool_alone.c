/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the whole engine for which one check or one rule alone stands: numbers that are never used again, what goes with a
 * deleted inode, blocks of the log damaged under an open pool, the entries of the journal, what a mark may sweep, a pool that failed.
 */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "checksum.h"
#include "clean_impl.h"
#include "journal_read.h"
#include "meta_impl.h"
#include "place.h"
#include "pool_impl.h"

/* ---- in the middle of a clean: between its capture and its mark ---- */

int __real_vc_clean_mark(struct vc_clean *c);
int __wrap_vc_clean_mark(struct vc_clean *c);
int __real_vc_clean_sweep(struct vc_clean *c);
int __wrap_vc_clean_sweep(struct vc_clean *c);

static void (*in_clean)(struct place *p);
static struct place *clean_place;

int __wrap_vc_clean_mark(struct vc_clean *c)
{
	if (in_clean)
		in_clean(clean_place);
	return __real_vc_clean_mark(c);
}

/* Faults of the mark end here. */
int __wrap_vc_clean_sweep(struct vc_clean *c)
{
	if (in_clean)
		vc_sim_fail(clean_place->sim, NULL);
	return __real_vc_clean_sweep(c);
}

static int clean_with(struct place *p, void (*fn)(struct place *p))
{
	int r;

	in_clean = fn;
	clean_place = p;
	r = engine_task(p->pool, VC_TASK_CLEAN);
	in_clean = NULL;
	return r;
}

static uint64_t segments(struct vc_pool *pool)
{
	struct vc_pool_figures f;

	assert_int_equal(vc_pool_figures(pool, &f), 0);
	return f.chunk_segments;
}

/* ---- numbers ---- */

struct numbers {
	uint64_t ino, node, tag, segno, content, epoch;
};

static struct numbers numbers_of(struct vc_pool *pool)
{
	return (struct numbers){
		.ino = atomic_load(&pool->catalog.next_ino), .node = vc_map_next_node(pool->map), .tag = atomic_load(&pool->catalog.next_tag),
		.segno = vc_chunk_next_segno(pool->chunks), .content = atomic_load(&pool->next_content), .epoch = pool->epoch,
	};
}

/* What had a number is gone, and the pool was closed: the numbers go on. */
static void test_numbers_go_on(void **state)
{
	struct place *p = *state;
	struct numbers before, after;
	struct vc_inode *a = place_file(p, "a"), *clone;

	place_fill(a, 0, PLACE_MIB, 1);
	place_destage(p);
	assert_int_equal(engine_clone(a, p->root, "b", &clone), 0);
	place_fill(a, 0, PLACE_MIB, 2);
	place_destage(p);
	vc_inode_put(a);
	vc_inode_put(clone);
	assert_int_equal(engine_unlink(p->root, "a"), 0);
	assert_int_equal(engine_unlink(p->root, "b"), 0);
	place_close(p, false); /* so that no chunk segment is open, and all of them go */
	place_open(p);
	assert_int_equal(engine_task(p->pool, VC_TASK_CLEAN), 0);
	assert_int_equal(segments(p->pool), 0);
	before = numbers_of(p->pool);
	assert_true(before.segno > 1 && before.node > 1 && before.content > 1 && before.tag > 1 && before.ino > 16);
	place_close(p, false);
	place_open(p);
	after = numbers_of(p->pool);
	assert_true(after.ino >= before.ino);
	assert_true(after.node >= before.node);
	assert_true(after.tag >= before.tag);
	assert_true(after.segno >= before.segno);
	assert_true(after.content >= before.content);
	assert_true(after.epoch >= before.epoch);
}

static uint64_t rows(struct vc_pool *pool)
{
	struct vc_meta_stats stats;

	assert_int_equal(vc_meta_stats(pool->meta, &stats), 0);
	return stats.rows;
}

/* With an inode go its attributes and the target of a link. */
static void test_rows_go(void **state)
{
	struct place *p = *state;
	struct vc_inode *a, *link;
	uint64_t before;

	place_destage(p);
	before = rows(p->pool);
	a = place_file(p, "a");
	assert_int_equal(engine_create(p->root, "link", S_IFLNK | 0777, "a", &link), 0);
	for (char name[] = "user.0"; name[5] < '9'; name[5]++)
		assert_int_equal(vc_xattr_set(a, name, "value", 5, 0), 0);
	place_destage(p);
	assert_true(rows(p->pool) > before + 8);
	vc_inode_put(a);
	vc_inode_put(link);
	assert_int_equal(engine_unlink(p->root, "a"), 0);
	assert_int_equal(engine_unlink(p->root, "link"), 0);
	vc_pool_wait_reaped(p->pool);
	place_destage(p);
	/* Of chunk segments there may be one more. */
	assert_true(rows(p->pool) <= before + 1);
}

/* ---- damage ---- */

/* Flip a bit in the only place of the log where these bytes are. */
static void flip_in_log(struct place *p, uint64_t seed)
{
	uint64_t want = vc_unit_random(&seed);
	uint8_t *bytes = malloc(PLACE_MIB);
	unsigned found = 0;

	assert_non_null(bytes);
	for (unsigned slot = 0; slot < 8; slot++) {
		struct vc_file *file;
		char path[64];
		uint8_t *at;
		ssize_t n;

		snprintf(path, sizeof(path), PLACE_POOL "/log/%04u.log", slot);
		if (vc_io_open(vc_sim_io(p->sim), path, VC_IO_READ, &file) < 0)
			continue;
		n = vc_io_pread(file, bytes, PLACE_MIB, 0);
		vc_io_close(file);
		at = n > 0 ? memmem(bytes, (size_t)n, &want, sizeof(want)) : NULL;
		if (at) {
			found++;
			assert_int_equal(vc_sim_corrupt(p->sim, path, (uint64_t)(at - bytes) + 77, 1), 0);
		}
	}
	free(bytes);
	assert_int_equal(found, 1);
}

/* A block of the log is damaged under an open pool: not returned, and not made a chunk with a right checksum. */
static void test_log_block(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");
	uint8_t buf[PLACE_BLOCK];

	place_fill(a, 0, PLACE_BLOCK, 1);
	place_fill(a, PLACE_BLOCK, PLACE_BLOCK, 2);
	assert_int_equal(engine_flush(a), 0);
	flip_in_log(p, 2);
	assert_true(place_holds(a, 0, PLACE_BLOCK, 1));
	assert_int_equal(vc_volume_read(a, buf, PLACE_BLOCK, PLACE_BLOCK), -EIO);
	assert_true(engine_task(p->pool, VC_TASK_DESTAGE) < 0);
	assert_int_equal(vc_volume_read(a, buf, PLACE_BLOCK, PLACE_BLOCK), -EIO);
	vc_inode_put(a);
}

/* A row is missing from LMDB, whose pages and checksums are all right: an older page was put back. */
static void test_missing_row(void **state)
{
	struct place *p = *state;
	struct vc_meta_txn *txn;
	struct vc_pool *pool;
	uint8_t key[9];
	MDB_val k;

	vc_inode_put(place_file(p, "a"));
	place_destage(p);
	k = (MDB_val){ vc_row_key_ino(key, VC_ROW_INODE, 16), key };
	assert_int_equal(vc_meta_write_begin(p->pool->meta, &txn), 0);
	assert_int_equal(mdb_del(txn->txn, p->pool->meta->dbi[VC_DB_CAT], &k, NULL), 0);
	assert_int_equal(vc_meta_commit(txn), 0);
	place_close(p, true);
	assert_int_equal(engine_try_open(vc_sim_io(p->sim), PLACE_POOL, ENGINE_DESTAGE_NEVER, &pool), -EUCLEAN);
}

/* The LMDB of another pool lies where that of this one should. */
static void test_other_meta(void **state)
{
	struct place *p = *state;
	struct vc_disk_state d;
	struct vc_meta_txn *txn;
	struct vc_pool *pool;
	const void *value;
	size_t len;

	assert_int_equal(vc_meta_write_begin(p->pool->meta, &txn), 0);
	assert_int_equal(vc_meta_get(txn, VC_DB_CAT, "GS", 2, &value, &len), 0);
	assert_int_equal(len, sizeof(d));
	memcpy(&d, value, sizeof(d));
	d.uuid[5] ^= 1;
	assert_int_equal(vc_meta_put(txn, VC_DB_CAT, "GS", 2, &d, sizeof(d)), 0);
	assert_int_equal(vc_meta_commit(txn), 0);
	place_close(p, true);
	assert_int_equal(engine_try_open(vc_sim_io(p->sim), PLACE_POOL, ENGINE_DESTAGE_NEVER, &pool), -EUCLEAN);
}

/* ---- the journal ---- */

static void scan(struct place *p, struct vc_journal_scan *ret)
{
	assert_int_equal(vc_journal_scan(vc_sim_io(p->sim), PLACE_POOL, p->pool->disk.uuid, ret), 0);
}

static void journal_path(const struct vc_journal_scan *s, size_t i, char buf[64])
{
	snprintf(buf, 64, PLACE_POOL "/journal/%016llx.jnl", (unsigned long long)s->files[i]);
}

/* No bit of an entry, and none of a file's head, can change unnoticed. */
static void test_journal_bits(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");
	struct vc_journal_scan whole, s;
	struct vc_journal_entry last;
	char path[64];

	place_fill(a, 0, PLACE_BLOCK, 1);
	vc_inode_put(a);
	place_destage(p);
	scan(p, &whole);
	assert_true(whole.nentries > 0 && whole.nbroken == 0);
	last = whole.entries[whole.nentries - 1];
	journal_path(&whole, last.file, path);
	for (uint64_t at = last.offset; at < last.offset + last.len; at++) {
		assert_int_equal(vc_sim_corrupt(p->sim, path, at, 0x10), 0);
		scan(p, &s);
		assert_int_equal(s.nentries, whole.nentries - 1);
		vc_journal_scan_fini(&s);
		assert_int_equal(vc_sim_corrupt(p->sim, path, at, 0x10), 0);
	}
	for (uint64_t at = 0; at < sizeof(struct vc_disk_journal_segment); at++) {
		assert_int_equal(vc_sim_corrupt(p->sim, path, at, 0x10), 0);
		scan(p, &s);
		assert_int_equal(s.nbroken, 1);
		vc_journal_scan_fini(&s);
		assert_int_equal(vc_sim_corrupt(p->sim, path, at, 0x10), 0);
	}
	p->pool->disk.uuid[0] ^= 1;
	scan(p, &s);
	p->pool->disk.uuid[0] ^= 1;
	assert_int_equal(s.nentries, 0);
	assert_int_equal(s.nbroken, s.nfiles);
	vc_journal_scan_fini(&s);
	vc_journal_scan_fini(&whole);
}

/* Of several entries that follow one checkpoint the last was the one that was committed. */
static void test_journal_last(void **state)
{
	struct place *p = *state;
	const struct vc_journal_entry *next;
	struct vc_journal_scan s;
	uint64_t lsn = 1000;

	place_destage(p);
	for (unsigned i = 1; i <= 3; i++) {
		vc_journal_begin(p->pool->journal);
		assert_int_equal(vc_journal_item(p->pool->journal, VC_JOURNAL_GONE, 0, 0, 0, i), 0);
		assert_int_equal(vc_journal_commit(p->pool->journal, lsn, lsn + i), 0);
	}
	scan(p, &s);
	next = vc_journal_after(&s, lsn);
	assert_non_null(next);
	assert_int_equal(next->checkpoint_lsn, lsn + 3);
	vc_journal_scan_fini(&s);
}

/* ---- what a mark may sweep ---- */

static void write_more(struct place *p)
{
	struct vc_inode *a = engine_lookup(p->root, "a");

	for (unsigned i = 0; i < 4; i++)
		place_fill(a, i * PLACE_MIB, PLACE_MIB, i + 10);
	vc_inode_put(a);
}

/* Whole segments that large writes fill while the mark walks are newer than it. */
static void test_sweep_spares_new_chunks(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");

	place_fill(a, 0, PLACE_BLOCK, 1);
	assert_int_equal(clean_with(p, write_more), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_true(place_holds(a, i * PLACE_MIB, PLACE_MIB, i + 10));
	vc_inode_put(a);
	place_close(p, true);
	place_open(p);
	a = engine_lookup(p->root, "a");
	for (unsigned i = 0; i < 4; i++)
		assert_true(place_holds(a, i * PLACE_MIB, PLACE_MIB, i + 10));
	vc_inode_put(a);
}

static void overwrite_and_destage(struct place *p)
{
	struct vc_inode *a = engine_lookup(p->root, "a");

	place_fill(a, 0, PLACE_MIB, 2);
	vc_inode_put(a);
	place_destage(p);
}

/* Nodes that a checkpoint replaces during a mark are gone when it ends: the next one finds nothing. */
static void test_deferred_nodes_go(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");
	struct vc_task_status status;

	place_fill(a, 0, PLACE_MIB, 1);
	assert_int_equal(clean_with(p, overwrite_and_destage), 0);
	assert_true(place_holds(a, 0, PLACE_MIB, 2));
	vc_inode_put(a);
	assert_int_equal(engine_task(p->pool, VC_TASK_CLEAN), 0);
	vc_pool_task_status(p->pool, VC_TASK_CLEAN, &status);
	assert_int_equal(status.freed_nodes, 0);
}

static void overwrite_and_fail(struct place *p)
{
	struct vc_inode *a = engine_lookup(p->root, "a");

	place_fill(a, 0, PLACE_BLOCK, 2);
	vc_inode_put(a);
	vc_sim_fail(p->sim, &(struct vc_sim_fault){ .ops = VC_SIM_META_WRITE, .nth = 1, .error = ENOSPC, .sticky = true });
	assert_int_equal(engine_task(p->pool, VC_TASK_DESTAGE), -ENOSPC);
}

/* Nodes that a checkpoint wanted to replace during a mark, and then found no space to, are still in use. */
static void test_failed_commit_defers_nothing(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");

	place_fill(a, 0, PLACE_BLOCK, 1);
	place_fill(a, PLACE_BLOCK, 8 * PLACE_BLOCK, 3);
	assert_int_equal(clean_with(p, overwrite_and_fail), 0);
	assert_true(place_holds(a, 0, PLACE_BLOCK, 2));
	assert_true(place_holds(a, PLACE_BLOCK, 8 * PLACE_BLOCK, 3));
	place_destage(p);
	assert_true(place_holds(a, PLACE_BLOCK, 8 * PLACE_BLOCK, 3));
	vc_inode_put(a);
}

static struct vc_io_ops sim_ops;
static const struct vc_io_ops *real_ops;
static struct vc_pool *look_pool;
static uint64_t look_entry; /* 0: looked */

static int take_entry(void *ctx, uint64_t entry, const struct vc_disk_chunk *head VC_UNUSED)
{
	*(uint64_t *)ctx = entry;
	return 1;
}

static int unlink_and_look(struct vc_io *io, const char *path)
{
	int r = real_ops->unlink(io, path);
	uint32_t bytes;
	char name[16];

	snprintf(name, sizeof(name), "%08llx.seg", (unsigned long long)vc_entry_segno(look_entry));
	if (look_entry && strstr(path, name)) {
		assert_int_equal(vc_chunk_stored_size(look_pool->chunks, look_entry, &bytes), -ESTALE);
		look_entry = 0;
	}
	return r;
}

/* A reader that comes when a segment has just been unlinked has to look up again; that is no damage. */
static void test_removed_under_reader(void **state)
{
	struct place *p = *state;
	struct vc_io *io = vc_sim_io(p->sim);
	struct vc_inode *a = place_file(p, "a");

	place_fill(a, 0, PLACE_MIB, 1);
	vc_inode_put(a);
	place_destage(p);
	assert_int_equal(vc_chunk_scan(p->pool->chunks, take_entry, &look_entry), 1);
	assert_int_equal(engine_unlink(p->root, "a"), 0);
	place_close(p, false);
	place_open(p);
	look_pool = p->pool;
	real_ops = io->ops;
	sim_ops = *real_ops;
	sim_ops.unlink = unlink_and_look;
	io->ops = &sim_ops;
	assert_int_equal(engine_task(p->pool, VC_TASK_CLEAN), 0);
	io->ops = real_ops;
	assert_int_equal(look_entry, 0);
}

/* A mark that misses a node of an image does not know what is below it, and sweeps nothing. */
static void test_mark_misses_node(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");
	struct vc_meta_txn *txn;
	uint64_t before;
	bool gone = false;

	place_fill(a, 0, PLACE_MIB, 1);
	vc_inode_put(a);
	place_destage(p);
	before = segments(p->pool);
	assert_int_equal(vc_meta_write_begin(p->pool->meta, &txn), 0);
	for (uint64_t id = 1; id < vc_map_next_node(p->pool->map); id++)
		gone = vc_meta_node_del(txn, id) == 0 || gone;
	assert_true(gone);
	assert_int_equal(vc_meta_commit(txn), 0);
	assert_true(engine_task(p->pool, VC_TASK_CLEAN) < 0);
	assert_int_equal(segments(p->pool), before);
}

/* ---- a pool that failed ---- */

static void test_failed_pool_refuses(void **state)
{
	struct place *p = *state;
	uint64_t id;

	vc_pool_fail(p->pool, -EIO);
	assert_int_equal(vc_pool_writable(p->pool), -EROFS);
	assert_int_equal(vc_pool_task_start(p->pool, VC_TASK_CLEAN, &id), -EROFS);
	assert_int_equal(vc_pool_task_start(p->pool, VC_TASK_DESTAGE, &id), -EROFS);
	assert_int_equal(engine_create(p->root, "a", S_IFREG | 0600, NULL, NULL), -EROFS);
}

/* When the log has failed, so has the pool: nothing is destaged or cleaned any more. */
static void test_log_fails_pool(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");

	place_fill(a, 0, PLACE_BLOCK, 1);
	vc_sim_fail(p->sim, &(struct vc_sim_fault){ .ops = VC_SIM_SYNC, .path = "/log/", .nth = 1, .error = EIO });
	assert_int_equal(engine_flush(a), -EIO);
	vc_sim_fail(p->sim, NULL);
	assert_int_equal(vc_log_stop(p->pool->log, false), 0); /* its thread has told the pool when it ends */
	assert_int_equal(vc_pool_writable(p->pool), -EROFS);
	vc_inode_put(a);
}

/* ---- admission ---- */

/* Who comes later waits behind those that wait for space in the log; so does nobody who deletes. */
static void test_later_writes_wait(void **state)
{
	struct place *p = *state;

	atomic_store(&p->pool->queued, true);
	assert_int_equal(vc_pool_admit(p->pool, VC_LOG_DATA, 4096), -EAGAIN);
	assert_int_equal(vc_pool_admit(p->pool, VC_LOG_META, 4096), 0);
	vc_log_unadmit(p->pool->log, 4096);
	atomic_store(&p->pool->queued, false);
	assert_int_equal(vc_pool_admit(p->pool, VC_LOG_DATA, 4096), 0);
	vc_log_unadmit(p->pool->log, 4096);
}

/* A large write goes through the log when too much lies in chunks that only the log names. */
static void test_direct_is_capped(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");
	uint64_t much = UINT64_C(1) << 50;

	place_fill(a, 0, PLACE_MIB / 2, 1);
	assert_int_equal(atomic_load(&p->pool->direct_bytes), PLACE_MIB / 2);
	atomic_fetch_add(&p->pool->direct_bytes, much);
	place_fill(a, 0, PLACE_MIB / 2, 2);
	assert_int_equal(atomic_fetch_sub(&p->pool->direct_bytes, much), much + PLACE_MIB / 2);
	assert_true(place_holds(a, 0, PLACE_MIB / 2, 2));
	vc_inode_put(a);
}

/* A change that comes when its inode was deleted meanwhile is not logged. */
static void test_gone_is_not_logged(void **state)
{
	struct place *p = *state;
	struct vc_inode *a = place_file(p, "a");
	struct vc_log_figures before, after;
	struct vc_record rec;
	struct vc_log_slot slot;

	vc_record_init(&rec);
	vc_record_op(&rec, VC_OP_GROW, vc_inode_ino(a), 0, 0, PLACE_BLOCK, 0);
	assert_int_equal(vc_pool_admit(p->pool, VC_LOG_DATA, (size_t)vc_record_len(&rec)), 0);
	vc_log_figures(p->pool->log, &before);
	vc_mutex_lock(&a->lock);
	atomic_store(&a->gone, true);
	assert_int_equal(vc_apply_record(p->pool, &rec, a, NULL, &slot), -ESTALE);
	atomic_store(&a->gone, false);
	vc_mutex_unlock(&a->lock);
	vc_log_figures(p->pool->log, &after);
	assert_int_equal(after.last_lsn, before.last_lsn);
	vc_record_fini(&rec);
	vc_inode_put(a);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_numbers_go_on),
		TEST(test_rows_go),
		TEST(test_log_block),
		TEST(test_missing_row),
		TEST(test_other_meta),
		TEST(test_journal_bits),
		TEST(test_journal_last),
		TEST(test_sweep_spares_new_chunks),
		TEST(test_deferred_nodes_go),
		TEST(test_failed_commit_defers_nothing),
		TEST(test_removed_under_reader),
		TEST(test_mark_misses_node),
		TEST(test_failed_pool_refuses),
		TEST(test_log_fails_pool),
		TEST(test_later_writes_wait),
		TEST(test_direct_is_capped),
		TEST(test_gone_is_not_logged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
