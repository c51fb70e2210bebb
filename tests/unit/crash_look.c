/* SPDX-License-Identifier: BSD-2-Clause */
/* crash_look: recover, compare, check; and crashes within what is done with a crashed pool. */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include "check.h"
#include "crash_count.h"
#include "crash_look.h"
#include "engine.h"
#include "format.h"
#include "meta.h"
#include "rebuild.h"
#include "repair.h"

#define ONES_MAX 12       /* uncertain operations treated one by one */
#define RANDOMS 2
#define OPERATION_LOOKS 6 /* crash points within one operation */
#define OPERATION_DEPTH 3
#define REBUILD_EVERY 6
#define SEEN_SIZE 1024

static void seen_init(struct crash_seen_set *set)
{
	*set = (struct crash_seen_set){ .size = SEEN_SIZE, .v = calloc(SEEN_SIZE, sizeof(*set->v)) };
	assert(set->v);
}

void crash_look_init(struct crash_look *look, uint64_t seed, unsigned nest)
{
	*look = (struct crash_look){ .rng = seed, .nest = nest, .rebuild = REBUILD_EVERY };
	seen_init(&look->disks);
	seen_init(&look->keys);
}

void crash_look_fini(struct crash_look *look)
{
	free(look->disks.v);
	free(look->keys.v);
	*look = (struct crash_look){ .nest = 0 };
}

/* The place of a disk, or the free one where it belongs. */
static struct crash_seen *seen_find(const struct crash_seen_set *set, uint64_t disk)
{
	size_t i = disk % set->size;

	while (set->v[i].disk && set->v[i].disk != disk)
		i = (i + 1) % set->size;
	return &set->v[i];
}

static void seen_add(struct crash_seen_set *set, uint64_t disk, uint64_t found)
{
	if (set->n * 2 >= set->size) {
		struct crash_seen_set larger = { .size = set->size * 2, .n = set->n, .v = calloc(set->size * 2, sizeof(*set->v)) };

		assert(larger.v);
		for (size_t i = 0; i < set->size; i++)
			if (set->v[i].disk)
				*seen_find(&larger, set->v[i].disk) = set->v[i];
		free(set->v);
		*set = larger;
	}
	*seen_find(set, disk) = (struct crash_seen){ disk, found };
	set->n++;
}

/* ---- one state ---- */

static void print_finding(void *ctx VC_UNUSED, const char *text)
{
	fprintf(stderr, "check: %s\n", text);
}

/* What LMDB names is there and whole, before recovery adds what the log holds. Changes nothing. */
static int check_books(struct vc_sim *sim)
{
	struct vc_check_options options = { .data = true, .log = true, .found = print_finding };
	struct vc_check_result result;
	int r = vc_check_pool(vc_sim_io(sim), CRASH_POOL, &options, &result);

	crash_count(CRASH_BOOKS);
	return r < 0 ? r : result.findings ? -EUCLEAN : 0;
}

static int rebuild(struct vc_io *io, const char *dir)
{
	struct vc_rebuild_options options = { .check = { .data = true, .found = print_finding } };
	struct vc_rebuild_result result;
	int r = vc_rebuild_pool(io, dir, &options, &result);

	return r < 0 ? r : result.check.findings || !result.replaced ? -EUCLEAN : 0;
}

/* Backup, journal and log are as good as LMDB, at every moment. */
static int rebuild_without_meta(struct vc_io *io, const char *dir)
{
	int r = vc_io_unlink(io, CRASH_POOL "/meta/data.mdb");

	crash_count(CRASH_REBUILDS);
	return r == 0 || r == -ENOENT ? rebuild(io, dir) : r;
}

/* The hash of what recovery finds on the disk, or the failure of the test. */
static int recovered_hash(struct vc_sim *sim, struct model *ret, uint64_t *ret_hash)
{
	struct vc_pool *pool = NULL;
	int r = crash_load(sim, &pool, ret);

	if (pool)
		vc_pool_abandon(pool);
	*ret_hash = model_state(ret);
	return r;
}

static struct vc_sim *copy_of(struct vc_sim *sim)
{
	return vc_sim_crash(sim, vc_sim_events(sim), &(struct vc_sim_policy){ .keep = VC_SIM_KEEP_ALL });
}

/* What recovery finds after the pool has lost its LMDB. */
static int rebuilt_hash(struct vc_sim *sim, uint64_t *ret_hash)
{
	struct vc_sim *copy = copy_of(sim);
	struct model found = { .n = 0 };
	int r = rebuild_without_meta(vc_sim_io(copy), CRASH_POOL);

	if (r == 0)
		r = recovered_hash(copy, &found, ret_hash);
	model_clear(&found);
	vc_sim_free(copy);
	return r;
}

static void look_rebuilt(struct crash_run *run, size_t at, const struct vc_sim_policy *policy, struct vc_sim *sim, struct model *found)
{
	uint64_t hash = 0;
	int r = rebuilt_hash(sim, &hash);

	if (r == 0 && hash == model_state(found))
		return;
	crash_run_explain(run, at, policy, found);
	fail_msg("LMDB made again from backup and journal is not what was lost: error %d", -r);
}

/* `found`: empty when only its hash is known, from an earlier state with the same disk. */
static void look_allowed(struct crash_run *run, size_t at, const struct vc_sim_policy *policy, uint64_t hash, struct model *found)
{
	if (crash_run_match(run, at, policy, hash) != SIZE_MAX)
		return;
	if (found->n == 0)
		fprintf(stderr, "the same disk as in an earlier state\n");
	crash_run_explain(run, at, policy, found);
	fail_msg("the pool holds what it should not");
}

/* What a new disk gives, after its books; and what is asked of some of them. */
static uint64_t look_new(struct crash_look *look, struct crash_run *run, size_t at, const struct vc_sim_policy *policy, struct vc_sim *sim)
{
	bool lose_meta = vc_unit_below(&look->rng, look->rebuild) == 0, nest = look->nest && vc_unit_below(&look->rng, look->nest) == 0;
	struct vc_sim *before = lose_meta || nest ? copy_of(sim) : NULL;
	struct model found = { .n = 0 };
	uint64_t hash = 0;
	int r;

	crash_count(CRASH_DISTINCT);
	r = check_books(sim);
	if (r == 0)
		r = recovered_hash(sim, &found, &hash);
	if (r < 0) {
		crash_run_explain(run, at, policy, &found);
		fail_msg("after the crash the pool cannot be read, or its books are wrong: error %d", -r);
	}
	look_allowed(run, at, policy, hash, &found);
	if (lose_meta)
		look_rebuilt(run, at, policy, before, &found);
	model_clear(&found);
	if (nest)
		crash_look_operation(look, before, hash, &crash_operations[vc_unit_below(&look->rng, crash_noperations)], OPERATION_DEPTH);
	else
		vc_sim_free(before);
	return hash;
}

bool crash_look_state(struct crash_look *look, struct crash_run *run, size_t at, const struct vc_sim_policy *policy)
{
	uint64_t key = vc_sim_crash_key(run->sim, at, policy), disk, hash;
	struct model unknown = { .n = 0 };
	struct crash_seen seen = *seen_find(&look->keys, key);
	struct vc_sim *sim;

	crash_count(CRASH_STATES);
	if (seen.disk) {
		look_allowed(run, at, policy, seen.found, &unknown);
		return false;
	}
	sim = vc_sim_crash(run->sim, at, policy);
	disk = vc_sim_hash(sim);
	seen = *seen_find(&look->disks, disk);
	hash = seen.found;
	if (seen.disk)
		look_allowed(run, at, policy, hash, &unknown);
	else
		hash = look_new(look, run, at, policy, sim);
	vc_sim_free(sim);
	seen_add(&look->keys, key, hash);
	if (!seen.disk)
		seen_add(&look->disks, disk, hash);
	return !seen.disk;
}

/* ---- many ---- */

static void look_with(struct crash_look *look, struct crash_run *run, size_t at, enum vc_sim_keep keep, size_t which)
{
	struct vc_sim_policy policy = { .keep = keep, .which = which, .seed = vc_unit_random(&look->rng) };

	crash_look_state(look, run, at, &policy);
}

static void look_at(struct crash_look *look, struct crash_run *run, size_t at)
{
	size_t n = vc_sim_uncertain(run->sim, at);

	look_with(look, run, at, VC_SIM_KEEP_ALL, 0);
	if (n == 0)
		return;
	look_with(look, run, at, VC_SIM_KEEP_NONE, 0);
	look_with(look, run, at, VC_SIM_KEEP_DATA, 0);
	look_with(look, run, at, VC_SIM_KEEP_NAMES, 0);
	for (size_t i = n > ONES_MAX ? n - ONES_MAX : 0; i < n; i++) {
		look_with(look, run, at, VC_SIM_TEAR_ONE, i);
		if (n > 1) {
			look_with(look, run, at, VC_SIM_DROP_ONE, i);
			look_with(look, run, at, VC_SIM_KEEP_ONE, i);
		}
	}
	for (unsigned i = 0; i < RANDOMS && n > 1; i++)
		look_with(look, run, at, VC_SIM_KEEP_RANDOM, 0);
}

void crash_look_range(struct crash_look *look, struct crash_run *run, size_t from, size_t to, size_t want)
{
	for (size_t at = from; at <= to && crash_counted(CRASH_STATES) < want; at++)
		look_at(look, run, at);
}

/* ---- operations ---- */

static int open_and_abandon(struct vc_io *io, const char *dir)
{
	struct vc_pool *pool;
	int r = engine_try_open(io, dir, ENGINE_DESTAGE_NEVER, &pool);

	if (r == 0)
		vc_pool_abandon(pool);
	return r;
}

static int open_and_close(struct vc_io *io, const char *dir)
{
	struct vc_pool *pool;
	int r = engine_try_open(io, dir, ENGINE_DESTAGE_NEVER, &pool);

	return r < 0 ? r : vc_pool_close(pool);
}

static int clean(struct vc_io *io, const char *dir)
{
	struct vc_pool *pool;
	int r = engine_try_open(io, dir, ENGINE_DESTAGE_NEVER, &pool);

	if (r < 0)
		return r;
	r = engine_task(pool, VC_TASK_CLEAN);
	vc_pool_abandon(pool);
	return r;
}

/* A counter that is too high: a repair has something to do, and changes nothing that can be seen. */
static int miscount(struct vc_io *io)
{
	struct vc_meta_params params = { .io = io, .dir = CRASH_POOL "/meta" };
	struct vc_meta_txn *txn;
	struct vc_disk_state state;
	struct vc_meta *meta;
	const void *value;
	size_t len;
	int r = vc_meta_open(&params, &meta);

	if (r < 0)
		return r;
	r = vc_meta_write_begin(meta, &txn);
	if (r == 0) {
		r = vc_meta_get(txn, VC_DB_CAT, "GS", 2, &value, &len);
		if (r == 0) {
			memcpy(&state, value, sizeof(state));
			state.images = vc_le64_of(vc_le64_get(state.images) + 1);
			r = vc_meta_put(txn, VC_DB_CAT, "GS", 2, &state, sizeof(state));
		}
		if (r == 0)
			r = vc_meta_commit(txn);
		else
			vc_meta_end(txn);
	}
	vc_meta_close(meta);
	return r;
}

static void ignore_finding(void *ctx VC_UNUSED, const char *text VC_UNUSED) {}

static int repair(struct vc_io *io, const char *dir)
{
	struct vc_repair_options options = { .check = { .data = true, .log = true, .found = ignore_finding }, .left = print_finding };
	struct vc_repair_result result;
	int r = miscount(io);

	if (r == 0)
		r = vc_repair_pool(io, dir, &options, &result);
	crash_count(CRASH_REPAIRS);
	return r < 0 ? r : result.after.findings || !result.replaced ? -EUCLEAN : 0;
}

const struct crash_operation crash_operations[] = {
	{ .name = "recovery", .run = open_and_abandon },
	{ .name = "recovery, again", .run = open_and_abandon, .again = true },
	{ .name = "recovery and checkpoint", .run = open_and_close },
	{ .name = "clean", .run = clean },
	{ .name = "clean, again", .run = clean, .again = true },
	{ .name = "repair, struck", .run = repair, .wrong_books = true },
	{ .name = "repair", .run = repair, .again = true },
	{ .name = "rebuild", .run = rebuild, .again = true },
	{ .name = "rebuild without LMDB", .run = rebuild_without_meta, .again = true },
};
const size_t crash_noperations = VC_ARRAY_LEN(crash_operations);

static struct vc_sim_policy operation_policy(struct crash_look *look, struct vc_sim *sim, size_t at)
{
	static const enum vc_sim_keep kinds[] = { VC_SIM_KEEP_ALL, VC_SIM_KEEP_NONE, VC_SIM_KEEP_DATA, VC_SIM_KEEP_NAMES, VC_SIM_KEEP_RANDOM,
						  VC_SIM_DROP_ONE, VC_SIM_KEEP_ONE, VC_SIM_TEAR_ONE };
	struct vc_sim_policy p = { .keep = kinds[vc_unit_below(&look->rng, VC_ARRAY_LEN(kinds))], .seed = vc_unit_random(&look->rng) };
	size_t n = vc_sim_uncertain(sim, at);

	p.which = n ? vc_unit_below(&look->rng, n) : 0;
	return p;
}

static void operation_failed(struct vc_sim *sim, size_t at, const struct vc_sim_policy *p, const struct crash_operation *op, int r)
{
	fprintf(stderr, "%s, crash at event %zu of %zu, %s (which %zu, seed %#llx)\nlast message: %s\n", op->name, at, vc_sim_events(sim),
		crash_policy_name(p), p->which, (unsigned long long)p->seed, vc_unit_last_message());
	vc_sim_dump(sim, 0, at);
	if (r < 0)
		fail_msg("the pool does not open, or cannot be read or checked: error %d", -r);
	fail_msg("the pool holds something else than before");
}

static void look_within(struct crash_look *look, struct vc_sim *sim, uint64_t want, const struct crash_operation *op, unsigned depth)
{
	size_t at = vc_unit_below(&look->rng, vc_sim_events(sim) + 1);
	struct vc_sim_policy policy = operation_policy(look, sim, at);
	struct vc_sim *after = vc_sim_crash(sim, at, &policy), *copy = depth > 1 ? copy_of(after) : NULL;
	struct model found = { .n = 0 };
	uint64_t hash = 0;
	int r = 0;

	crash_count(CRASH_STATES);
	crash_count(CRASH_NESTED);
	if (op->again)
		r = op->run(vc_sim_io(after), CRASH_POOL);
	if (r == 0 && !op->wrong_books)
		r = check_books(after);
	if (r == 0)
		r = recovered_hash(after, &found, &hash);
	model_clear(&found);
	if (r < 0 || hash != want)
		operation_failed(sim, at, &policy, op, r);
	vc_sim_free(after);
	if (copy)
		crash_look_operation(look, copy, want, op, depth - 1);
}

void crash_look_operation(struct crash_look *look, struct vc_sim *sim, uint64_t want, const struct crash_operation *op, unsigned depth)
{
	size_t end;
	int r = op->run(vc_sim_io(sim), CRASH_POOL);

	if (r < 0)
		operation_failed(sim, vc_sim_events(sim), &(struct vc_sim_policy){ .keep = VC_SIM_KEEP_ALL }, op, r);
	end = depth > 1 ? OPERATION_LOOKS : OPERATION_LOOKS / 2;
	for (size_t i = 0; i < end; i++)
		look_within(look, sim, want, op, i == 0 ? depth : 1);
	vc_sim_free(sim);
}
