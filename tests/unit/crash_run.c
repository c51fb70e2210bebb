/* SPDX-License-Identifier: BSD-2-Clause */
/* crash_run: random work on a simulated disk, and what a crash may leave of it. */
#include "config.h"
#include "unit.h"

#include <pthread.h>
#include <stdlib.h>
#include "crash_count.h"
#include "crash_run.h"
#include "engine.h"

#define BURST_MAX 5
#define BURST_WRITE_MAX (32u << 10)

/* ---- what happened ---- */

static struct crash_state *push_state(struct crash_run *run)
{
	struct crash_state *s;

	if (run->nstates == run->cap) {
		run->cap = run->cap ? run->cap * 2 : 64;
		run->states = realloc(run->states, run->cap * sizeof(*run->states));
		assert(run->states);
	}
	s = &run->states[run->nstates++];
	*s = (struct crash_state){ .started = run->started, .acked = SIZE_MAX, .durable = SIZE_MAX };
	s->hash = model_state(&run->w.model);
	model_snapshot(&run->w.model, &s->model);
	return s;
}

static size_t run_now(const struct crash_run *run) { return run->disk.now(run->disk.ctx); }

static size_t sim_now(void *ctx) { return vc_sim_events(ctx); }

void crash_run_begin(struct crash_run *run)
{
	run->started = run_now(run);
}

void crash_run_end(struct crash_run *run, bool durable)
{
	struct crash_state *s = push_state(run);

	s->acked = run_now(run);
	if (durable)
		s->durable = s->acked;
}

void crash_run_doubt(struct crash_run *run)
{
	push_state(run);
}

static void run_before(struct world *w) { crash_run_begin(w->ctx); }
static void run_after(struct world *w, bool durable) { crash_run_end(w->ctx, durable); }

/* ---- several writes at once ---- */

struct burst {
	struct crash_run *run;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned pending; /* under lock */
};

struct burst_op {
	struct vc_done done;
	struct burst *burst;
	size_t state, acked;
	bool is_write, durable;
	int error;
};

static void burst_done(struct vc_done *done, int error)
{
	struct burst_op *op = vc_container_of(done, struct burst_op, done);
	struct burst *b = op->burst;

	op->error = error;
	op->acked = run_now(b->run);
	pthread_mutex_lock(&b->lock);
	b->pending--;
	pthread_cond_signal(&b->cond);
	pthread_mutex_unlock(&b->lock);
}

static void burst_start(struct burst *b, struct burst_op *op)
{
	*op = (struct burst_op){ .done = { .fn = burst_done }, .burst = b };
	pthread_mutex_lock(&b->lock);
	b->pending++;
	pthread_mutex_unlock(&b->lock);
}

static void burst_write(struct crash_run *run, struct burst_op *op)
{
	struct world *w = &run->w;
	struct model_file *f;
	struct vc_inode *inode = world_pick(w, &f);
	uint64_t offset;
	size_t len;

	op->state = run->nstates - 1;
	if (!inode) {
		burst_done(&op->done, 0);
		return;
	}
	len = VC_MIN(world_compose(w, f, &offset), VC_MIN((size_t)BURST_WRITE_MAX, w->max_log_write));
	op->is_write = true;
	op->durable = vc_unit_below(&w->rng, 4) == 0;
	world_note("burst: write %s offset %llu len %zu%s\n", world_name(w, f), (unsigned long long)offset, len, op->durable ? " durable" : "");
	crash_run_begin(run);
	assert_int_equal(vc_volume_write(inode, w->buf, len, offset, op->durable ? VC_WRITE_DSYNC : 0, &op->done), 0);
	vc_inode_put(inode);
	model_write(&f->data, w->buf, len, offset);
	model_touch(f);
	push_state(run);
	op->state = run->nstates - 1;
}

static void burst_wait(struct burst *b, struct burst_op *ops, size_t n)
{
	pthread_mutex_lock(&b->lock);
	while (b->pending)
		pthread_cond_wait(&b->cond, &b->lock);
	pthread_mutex_unlock(&b->lock);
	for (size_t i = 0; i < n; i++) {
		struct crash_state *s = &b->run->states[ops[i].state];

		assert_int_equal(ops[i].error, 0);
		if (ops[i].is_write)
			s->acked = ops[i].acked;
		if (ops[i].durable)
			s->durable = VC_MIN(s->durable, ops[i].acked);
	}
}

static uint64_t log_waits(struct crash_run *run)
{
	struct vc_pool_figures figures;

	assert_int_equal(vc_pool_figures(run->w.pool, &figures), 0);
	return figures.log_waits;
}

/* Perhaps a flush, then writes that nobody waits for in between. Those that wait for the log may change places with later ones: none comes. */
static void step_burst(struct crash_run *run)
{
	struct burst b = { .run = run, .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
	struct burst_op ops[BURST_MAX + 1];
	size_t n = 0, nwrites = 1 + vc_unit_below(&run->w.rng, BURST_MAX);
	uint64_t waits = log_waits(run);

	if (vc_unit_below(&run->w.rng, 2)) {
		burst_start(&b, &ops[n]);
		ops[n].state = run->nstates - 1;
		ops[n].durable = true;
		assert_int_equal(vc_volume_flush(run->w.dirs[0], false, &ops[n++].done), 0);
	}
	world_note("burst of %zu%s\n", nwrites, n ? " and a flush" : "");
	while (nwrites-- && log_waits(run) == waits) {
		burst_start(&b, &ops[n]);
		burst_write(run, &ops[n++]);
	}
	burst_wait(&b, ops, n);
}

/* A mark that is held while other things happen and are checkpointed, which replaces nodes under it. */
static void step_mark(struct crash_run *run)
{
	struct vc_pool *pool = run->w.pool;
	struct vc_task_status status;
	uint64_t id;

	vc_pool_task_status(pool, VC_TASK_CLEAN, &status);
	if (status.running)
		assert_int_equal(vc_pool_task_wait(pool, VC_TASK_CLEAN, status.id), 0);
	world_note("clean held\n");
	crash_hold(vc_unit_below(&run->w.rng, 2) ? CRASH_HOLD_MARK : CRASH_HOLD_SWEEP);
	assert_int_equal(vc_pool_task_start(pool, VC_TASK_CLEAN, &id), 0);
	crash_wait_held();
	for (unsigned i = 0; i < 4; i++)
		world_step(&run->w);
	assert_int_equal(engine_task(pool, VC_TASK_DESTAGE), 0);
	crash_hold(CRASH_HOLD_NOT);
	if (vc_unit_below(&run->w.rng, 2))
		assert_int_equal(vc_pool_task_wait(pool, VC_TASK_CLEAN, id), 0);
}

void crash_run_step(struct crash_run *run)
{
	uint64_t roll = vc_unit_below(&run->w.rng, 100), id;

	if (roll >= 15 && roll < 26)
		world_note(roll < 21 ? "destage started\n" : roll < 24 ? "destage\n" : "clean started\n");
	if (roll < 15)
		step_burst(run);
	else if (roll < 21)
		assert_int_equal(vc_pool_task_start(run->w.pool, VC_TASK_DESTAGE, &id), 0);
	else if (roll < 24)
		assert_int_equal(engine_task(run->w.pool, VC_TASK_DESTAGE), 0);
	else if (roll < 26)
		assert_int_equal(vc_pool_task_start(run->w.pool, VC_TASK_CLEAN, &id), 0);
	else if (roll < 28)
		step_mark(run);
	else if (roll < 30)
		crash_run_kill(run);
	else
		world_step(&run->w);
}

/* ---- life ---- */

static struct crash_run *run_alloc(const struct crash_disk *disk, const struct vc_pool_geometry *geometry, uint64_t seed)
{
	struct crash_run *run = calloc(1, sizeof(*run));

	assert(run);
	run->disk = *disk;
	run->geometry = *geometry;
	world_init(&run->w, seed, geometry);
	run->w.max_size = 384 << 10;
	run->w.max_names = 10;
	run->w.atomic = true;
	run->w.before = run_before;
	run->w.after = run_after;
	run->w.ctx = run;
	return run;
}

static struct crash_run *run_alloc_sim(struct vc_sim *sim, const struct vc_pool_geometry *geometry, uint64_t seed)
{
	struct crash_disk disk = { .io = vc_sim_io(sim), .dir = CRASH_POOL, .now = sim_now, .ctx = sim };
	struct crash_run *run = run_alloc(&disk, geometry, seed);

	run->sim = sim;
	return run;
}

static void run_create(struct crash_run *run, uint32_t destage_ms)
{
	assert_int_equal(vc_pool_create(run->disk.io, run->disk.dir, &run->geometry), 0);
	run->first_event = run->started = run_now(run);
	push_state(run);
	run->states[0].acked = run->states[0].durable = 0;
	world_note("new pool, destage_ms %u\n", destage_ms);
	world_attach(&run->w, engine_open(run->disk.io, run->disk.dir, destage_ms));
}

static struct crash_run *run_new(const struct vc_pool_geometry *geometry, uint64_t seed, uint32_t destage_ms)
{
	struct vc_sim *sim = vc_sim_new();
	struct crash_run *run = run_alloc_sim(sim, geometry, seed);

	assert_int_equal(vc_io_mkdir(run->disk.io, CRASH_POOL), 0);
	assert_int_equal(vc_io_sync_dir(run->disk.io, "/"), 0);
	run_create(run, destage_ms);
	return run;
}

struct crash_run *crash_run_new(uint64_t seed, uint32_t destage_ms)
{
	struct vc_pool_geometry geometry;

	engine_geometry(&seed, &geometry);
	return run_new(&geometry, seed, destage_ms);
}

struct crash_run *crash_run_new_small(uint64_t seed, uint32_t destage_ms)
{
	struct vc_pool_geometry geometry;

	engine_geometry(&seed, &geometry);
	geometry.log_segment_size = UINT64_C(128) << 10 << vc_unit_below(&seed, 2);
	geometry.log_segments = 5 + (uint32_t)vc_unit_below(&seed, 4);
	return run_new(&geometry, seed, destage_ms);
}

struct crash_run *crash_run_new_on(const struct crash_disk *disk, uint64_t seed, uint32_t destage_ms)
{
	struct vc_pool_geometry geometry;
	struct crash_run *run;

	engine_geometry(&seed, &geometry);
	run = run_alloc(disk, &geometry, seed);
	run_create(run, destage_ms);
	return run;
}

void crash_run_stop(struct crash_run *run)
{
	struct vc_pool *pool = run->w.pool;

	if (pool) {
		world_detach(&run->w);
		vc_pool_abandon(pool);
	}
}

void crash_run_free(struct crash_run *run)
{
	crash_run_stop(run);
	world_fini(&run->w);
	for (size_t i = 0; i < run->nstates; i++)
		model_clear(&run->states[i].model);
	free(run->states);
	if (run->sim)
		vc_sim_free(run->sim);
	free(run);
}

void crash_run_reopen(struct crash_run *run)
{
	struct vc_pool *pool = run->w.pool;

	world_note("close and open\n");
	world_detach(&run->w);
	crash_run_begin(run);
	engine_close(pool);
	crash_run_end(run, true);
	world_attach(&run->w, engine_open(run->disk.io, run->disk.dir, ENGINE_DESTAGE_NEVER));
	assert_true(world_verify(&run->w));
}

void crash_run_kill(struct crash_run *run)
{
	struct vc_pool *pool = run->w.pool;

	world_note("kill\n");
	crash_count(CRASH_KILLS);
	world_detach(&run->w);
	crash_run_begin(run);
	vc_pool_abandon(pool);
	pool = engine_open(run->disk.io, run->disk.dir, ENGINE_DESTAGE_NEVER);
	crash_run_end(run, true);
	world_attach(&run->w, pool);
	assert_true(world_verify(&run->w));
}

/* ---- crashes ---- */

const char *crash_policy_name(const struct vc_sim_policy *policy)
{
	static const char *const names[] = { "keep all", "keep none", "random", "data only", "names only", "drop one", "keep one", "tear one" };

	return names[policy->keep];
}

struct vc_sim_policy crash_policy(struct crash_run *run, uint64_t *rng, size_t at)
{
	static const enum vc_sim_keep kinds[] = { VC_SIM_KEEP_ALL, VC_SIM_KEEP_NONE, VC_SIM_KEEP_RANDOM, VC_SIM_KEEP_RANDOM,
						  VC_SIM_KEEP_RANDOM, VC_SIM_KEEP_DATA, VC_SIM_KEEP_NAMES, VC_SIM_DROP_ONE,
						  VC_SIM_DROP_ONE, VC_SIM_KEEP_ONE, VC_SIM_TEAR_ONE, VC_SIM_TEAR_ONE };
	struct vc_sim_policy p = { .keep = kinds[vc_unit_below(rng, VC_ARRAY_LEN(kinds))], .seed = vc_unit_random(rng) };
	size_t n;

	if (p.keep < VC_SIM_DROP_ONE)
		return p;
	n = vc_sim_uncertain(run->sim, at);
	p.which = n ? vc_unit_below(rng, n) : 0;
	return p;
}

static void allowed(const struct crash_run *run, size_t at, const struct vc_sim_policy *policy, size_t *ret_low, size_t *ret_high)
{
	*ret_low = *ret_high = 0;
	for (size_t k = 0; k < run->nstates; k++) {
		const struct crash_state *s = &run->states[k];

		if (s->durable <= at || (policy->keep == VC_SIM_KEEP_ALL && s->acked <= at))
			*ret_low = k;
		if (s->started <= at)
			*ret_high = k;
	}
}

size_t crash_run_match(const struct crash_run *run, size_t at, const struct vc_sim_policy *policy, uint64_t hash)
{
	size_t low, high;

	allowed(run, at, policy, &low, &high);
	while (high > low && run->states[high].hash != hash)
		high--;
	return run->states[high].hash == hash ? high : SIZE_MAX;
}

void crash_run_explain(struct crash_run *run, size_t at, const struct vc_sim_policy *policy, struct model *found)
{
	uint64_t hash = model_state(found);
	size_t low, high;

	allowed(run, at, policy, &low, &high);
	fprintf(stderr, "crash at event %zu of %zu, %s (which %zu, seed %#llx): states %zu to %zu of %zu are allowed\n", at,
		run_now(run), crash_policy_name(policy), policy->which, (unsigned long long)policy->seed, low, high, run->nstates);
	if (run->sim)
		vc_sim_dump(run->sim, at > 40 ? at - 40 : 0, at);
	fprintf(stderr, "last message: %s\n", vc_unit_last_message());
	for (size_t k = 0; k < run->nstates; k++)
		if (run->states[k].hash == hash)
			fprintf(stderr, "found state %zu\n", k);
	for (size_t k = low; k <= high && k < low + 5; k++) {
		fprintf(stderr, "-- against state %zu:\n", k);
		model_same(&run->states[k].model, found);
	}
}

bool crash_run_allows(struct crash_run *run, size_t at, struct vc_pool *pool, size_t *ret_state)
{
	struct vc_sim_policy policy = { .keep = VC_SIM_KEEP_RANDOM };
	struct model found = { .n = 0 };
	int r = model_load(pool, &found);
	size_t state = r == 0 ? crash_run_match(run, at, &policy, model_state(&found)) : SIZE_MAX;

	if (r < 0)
		fprintf(stderr, "reading the pool: error %d\n", -r);
	if (state == SIZE_MAX)
		crash_run_explain(run, at, &policy, &found);
	else
		*ret_state = state;
	model_clear(&found);
	return state != SIZE_MAX;
}

static struct crash_run *run_after_crash(struct crash_run *run, struct vc_sim *sim, size_t k, uint64_t seed, struct vc_pool *pool)
{
	struct crash_run *next = run_alloc_sim(sim, &run->geometry, seed);

	model_snapshot(&run->states[k].model, &next->w.model);
	push_state(next);
	next->states[0].acked = next->states[0].durable = 0;
	world_attach(&next->w, pool);
	return next;
}

int crash_load(struct vc_sim *sim, struct vc_pool **ret_pool, struct model *ret)
{
	int r = engine_try_open(vc_sim_io(sim), CRASH_POOL, ENGINE_DESTAGE_NEVER, ret_pool);

	return r < 0 ? r : model_load(*ret_pool, ret);
}

struct crash_run *crash_run_crash(struct crash_run *run, size_t at, const struct vc_sim_policy *policy)
{
	struct vc_sim *sim = vc_sim_crash(run->sim, at, policy);
	struct model found = { .n = 0 };
	struct vc_pool *pool;
	size_t k;
	int r = crash_load(sim, &pool, &found);

	if (r < 0) {
		crash_run_explain(run, at, policy, &found);
		fail_msg("the pool does not open or read after the crash: error %d", -r);
	}
	k = crash_run_match(run, at, policy, model_state(&found));
	if (k == SIZE_MAX) {
		crash_run_explain(run, at, policy, &found);
		fail_msg("the pool holds what it should not");
	}
	world_note("crash at event %zu of %zu, %s: state %zu of %zu\n", at, vc_sim_events(run->sim), crash_policy_name(policy), k, run->nstates);
	model_clear(&found);
	return run_after_crash(run, sim, k, policy->seed, pool);
}
