/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chunk_read_many: many chunks at once.
 *
 *   wants -> in the cache        delivered at once
 *         -> not in the cache    `loads`, ours to load; those that lie one behind another in a file are a run: one read
 *         -> being loaded        waited for at the end, when nobody can be waiting for us
 *
 * Runs are read, verified and expanded by several threads (see work.h).
 */
#include "config.h"

#include <stdlib.h>

#include "chunk_impl.h"

/* A run ends where it would be longer, or after a larger gap: reading what lies between costs less than another call. */
#define MANY_RUN_MAX (128u << 10)
#define MANY_GAP_MAX (16u << 10)

struct many_load {
	size_t want;
	struct vc_cache_ref ref;
	int error;
};

struct many_run {
	size_t first, n;     /* loads */
	uint32_t start, end; /* bytes of the file */
};

struct many {
	struct vc_chunk_store *store;
	const struct vc_chunk_want *wants;
	struct many_load *loads;
	struct many_run *runs;
	size_t *later;       /* wants that others load */
	size_t nloads, nruns, nlater;
	size_t failed;       /* lowest want that failed */
	int error;
};

static uint64_t many_entry(const struct many *m, size_t load) { return m->wants[m->loads[load].want].entry; }

static void many_fail(struct many *m, size_t want, int error)
{
	if (m->error == 0 || want < m->failed) {
		m->error = error;
		m->failed = want;
	}
}

/* ---- what is there, what is not ---- */

static void many_begin(struct many *m, size_t i)
{
	const struct vc_chunk_want *want = &m->wants[i];
	const char *why = vc_chunk_want_wrong(want);
	struct vc_cache_ref ref;
	int r;

	if (why) {
		many_fail(m, i, vc_chunk_corrupt(m->store, want->entry, why));
		return;
	}
	r = vc_cache_begin(m->store->cache, vc_entry_chunk(want->entry), &ref);
	if (r == VC_CACHE_HIT) {
		r = vc_chunk_deliver(m->store, want, &ref);
	} else if (r == VC_CACHE_LOAD) {
		m->loads[m->nloads++] = (struct many_load){ .want = i, .ref = ref };
		r = 0;
	} else if (r == VC_CACHE_BUSY) {
		m->later[m->nlater++] = i;
		r = 0;
	}
	if (r < 0)
		many_fail(m, i, r);
}

static bool many_joins(const struct many *m, const struct many_run *run, uint64_t entry)
{
	uint32_t start = vc_entry_offset(entry), end = start + vc_entry_read_len(entry);

	return vc_entry_segno(many_entry(m, run->first)) == vc_entry_segno(entry) && start > run->start &&
		start <= run->end + MANY_GAP_MAX && end - run->start <= MANY_RUN_MAX;
}

static void many_cut(struct many *m)
{
	for (size_t i = 0; i < m->nloads; i++) {
		uint64_t entry = many_entry(m, i);
		struct many_run *run = m->nruns ? &m->runs[m->nruns - 1] : NULL;
		uint32_t start = vc_entry_offset(entry), end = start + vc_entry_read_len(entry);

		if (!run || !many_joins(m, run, entry)) {
			m->runs[m->nruns++] = (struct many_run){ .first = i, .n = 1, .start = start, .end = end };
			continue;
		}
		run->n++;
		run->end = VC_MAX(run->end, end);
	}
}

/* ---- loading a run ---- */

static int many_expand(struct vc_chunk_store *store, uint64_t entry, const uint8_t *bytes, size_t len, void **ret_buf,
		       size_t *ret_len)
{
	const char *why;
	int r = vc_chunk_unpack(store, entry, bytes, len, ret_buf, ret_len, &why);

	return why ? vc_chunk_corrupt(store, entry, why) : r;
}

/* `got` bytes of the run are in `bytes`, or `error`. Every load ends here. */
static void many_finish(struct many *m, const struct many_run *run, int error, const uint8_t *bytes, size_t got)
{
	for (size_t i = run->first; i < run->first + run->n; i++) {
		struct many_load *load = &m->loads[i];
		const struct vc_chunk_want *want = &m->wants[load->want];
		size_t at = vc_entry_offset(want->entry) - run->start, left = got > at ? got - at : 0, len = 0;
		void *buf = NULL;
		int r = error;

		if (r == 0)
			r = many_expand(m->store, vc_entry_chunk(want->entry), bytes + at,
					VC_MIN(left, (size_t)vc_entry_read_len(want->entry)), &buf, &len);
		load->error = vc_cache_finish(m->store->cache, &load->ref, r, buf, len);
		if (load->error == 0)
			load->error = vc_chunk_deliver(m->store, want, &load->ref);
	}
}

static void many_run(void *ctx, size_t i)
{
	struct many *m = ctx;
	const struct many_run *run = &m->runs[i];
	uint8_t *bytes = malloc(run->end - run->start);
	struct chunk_segment *seg;
	ssize_t n = 0;
	int r = bytes ? vc_chunk_segment_get(m->store, vc_entry_segno(many_entry(m, run->first)), &seg) : -ENOMEM;

	if (r == 0) {
		n = vc_io_pread(seg->file, bytes, run->end - run->start, run->start);
		vc_chunk_segment_put(m->store, seg);
	}
	many_finish(m, run, r < 0 ? r : n < 0 ? (int)n : 0, bytes, n > 0 ? (size_t)n : 0);
	free(bytes);
}

static void many_read_ahead(const struct many *m, size_t first)
{
	for (size_t i = first; i < m->nruns; i++) {
		struct chunk_segment *seg;

		if (vc_chunk_segment_get(m->store, vc_entry_segno(many_entry(m, m->runs[i].first)), &seg) < 0)
			continue;
		vc_io_read_ahead(seg->file, m->runs[i].start, m->runs[i].end - m->runs[i].start);
		vc_chunk_segment_put(m->store, seg);
	}
}

static void many_load(struct many *m)
{
	many_cut(m);
	many_read_ahead(m, 1); /* while the first is expanded */
	vc_work_run(m->store->workers, m->nruns, many_run, m);
	for (size_t i = 0; i < m->nloads; i++)
		if (m->loads[i].error < 0)
			many_fail(m, m->loads[i].want, m->loads[i].error);
}

int vc_chunk_read_many(struct vc_chunk_store *store, const struct vc_chunk_want *wants, size_t n, size_t *ret_failed)
{
	struct many m = { .store = store, .wants = wants };

	*ret_failed = 0;
	m.loads = calloc(n, sizeof(*m.loads));
	m.runs = calloc(n, sizeof(*m.runs));
	m.later = calloc(n, sizeof(*m.later));
	if (m.loads && m.runs && m.later) {
		for (size_t i = 0; i < n; i++)
			many_begin(&m, i);
		many_load(&m);
		for (size_t i = 0; i < m.nlater; i++) {
			int r = vc_chunk_read_want(store, &wants[m.later[i]]);

			if (r < 0)
				many_fail(&m, m.later[i], r);
		}
		*ret_failed = m.failed;
	} else {
		m.error = -ENOMEM;
	}
	free(m.loads);
	free(m.runs);
	free(m.later);
	return m.error;
}

static bool many_is_cached(struct vc_chunk_store *store, const struct vc_chunk_want *want)
{
	struct vc_cache_ref ref;

	if (!vc_cache_peek(store->cache, vc_entry_chunk(want->entry), &ref))
		return false;
	vc_cache_put(store->cache, &ref);
	return true;
}

void vc_chunk_read_ahead(struct vc_chunk_store *store, const struct vc_chunk_want *wants, size_t n)
{
	struct many m = { .store = store, .wants = wants };

	if (n == 0 || (many_is_cached(store, &wants[0]) && many_is_cached(store, &wants[n - 1])))
		return;
	m.loads = calloc(n, sizeof(*m.loads));
	m.runs = calloc(n, sizeof(*m.runs));
	for (size_t i = 0; m.loads && m.runs && i < n; i++)
		if (!vc_chunk_entry_wrong(wants[i].entry) && !many_is_cached(store, &wants[i]))
			m.loads[m.nloads++].want = i;
	many_cut(&m);
	many_read_ahead(&m, 0);
	free(m.loads);
	free(m.runs);
}
