/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * io_sim_data: contents of simulated files: pages that files, their crash states and their histories share.
 *
 * A page with more than one holder is never written: who writes gets a page of its own first. Holders are in several
 * sims, each with a lock of its own; therefore the count is atomic. A missing page is zero.
 */
#include "config.h"
#include "unit.h"
#include "io_sim_impl.h"

#include <stdlib.h>
#include "checksum.h"

static void page_put(struct sim_page *page)
{
	if (page && atomic_fetch_sub(&page->refs, 1) == 1)
		free(page);
}

static void data_room(struct sim_data *d, size_t npages)
{
	size_t cap = VC_MAX(d->npages * 2, npages);

	if (npages <= d->npages)
		return;
	d->pages = realloc(d->pages, cap * sizeof(*d->pages));
	assert(d->pages);
	memset(d->pages + d->npages, 0, (cap - d->npages) * sizeof(*d->pages));
	d->npages = cap;
}

/* The page, ours alone. */
static struct sim_page *data_own(struct sim_data *d, size_t i)
{
	struct sim_page *page, *old;

	data_room(d, i + 1);
	old = d->pages[i];
	if (old && atomic_load(&old->refs) == 1) {
		old->hash = 0;
		return old;
	}
	page = sim_alloc(sizeof(*page));
	atomic_store(&page->refs, 1);
	if (old)
		memcpy(page->bytes, old->bytes, SIM_PAGE);
	page_put(old);
	d->pages[i] = page;
	return page;
}

static void data_drop(struct sim_data *d, size_t i)
{
	if (i >= d->npages)
		return;
	page_put(d->pages[i]);
	d->pages[i] = NULL;
}

static void data_write_page(struct sim_data *d, size_t i, size_t in, const uint8_t *data, size_t len)
{
	if (data)
		memcpy(data_own(d, i)->bytes + in, data, len);
	else if (len == SIM_PAGE)
		data_drop(d, i);
	else if (i < d->npages && d->pages[i])
		memset(data_own(d, i)->bytes + in, 0, len);
}

void sim_data_write(struct sim_data *d, uint64_t offset, const uint8_t *data, uint64_t len)
{
	uint64_t end = offset + len;

	for (uint64_t at = offset; at < end;) {
		size_t in = at % SIM_PAGE, n = (size_t)VC_MIN(end - at, (uint64_t)(SIM_PAGE - in));

		data_write_page(d, at / SIM_PAGE, in, data ? data + (at - offset) : NULL, n);
		at += n;
	}
	d->size = VC_MAX(d->size, end);
}

void sim_data_read(const struct sim_data *d, uint64_t offset, uint8_t *buf, uint64_t len)
{
	while (len) {
		size_t i = offset / SIM_PAGE, in = offset % SIM_PAGE, n = (size_t)VC_MIN(len, (uint64_t)(SIM_PAGE - in));

		if (i < d->npages && d->pages[i])
			memcpy(buf, d->pages[i]->bytes + in, n);
		else
			memset(buf, 0, n);
		buf += n;
		offset += n;
		len -= n;
	}
}

void sim_data_truncate(struct sim_data *d, uint64_t size)
{
	size_t first = size / SIM_PAGE;

	if (size % SIM_PAGE && first < d->npages && d->pages[first]) {
		data_write_page(d, first, size % SIM_PAGE, NULL, SIM_PAGE - size % SIM_PAGE);
		first++;
	} else if (size % SIM_PAGE) {
		first++;
	}
	for (size_t i = first; i < d->npages; i++)
		data_drop(d, i);
	d->size = size;
}

static void data_take_page(struct sim_data *dst, const struct sim_data *src, size_t i)
{
	struct sim_page *page = i < src->npages ? src->pages[i] : NULL;

	if (page) {
		atomic_fetch_add(&page->refs, 1);
		data_room(dst, i + 1);
	}
	data_drop(dst, i);
	if (page)
		dst->pages[i] = page;
}

void sim_data_take(struct sim_data *dst, const struct sim_data *src, uint64_t offset, uint64_t len)
{
	uint8_t part[SIM_PAGE];

	while (len) {
		size_t in = offset % SIM_PAGE, n = (size_t)VC_MIN(len, (uint64_t)(SIM_PAGE - in));
		uint64_t size = dst->size;

		if (n == SIM_PAGE) {
			data_take_page(dst, src, offset / SIM_PAGE);
		} else {
			sim_data_read(src, offset, part, n);
			sim_data_write(dst, offset, part, n);
			dst->size = size;
		}
		offset += n;
		len -= n;
	}
}

void sim_data_copy(struct sim_data *dst, const struct sim_data *src)
{
	*dst = (struct sim_data){ .npages = src->npages, .size = src->size };
	dst->pages = sim_alloc(src->npages * sizeof(*dst->pages));
	for (size_t i = 0; i < src->npages; i++) {
		dst->pages[i] = src->pages[i];
		if (dst->pages[i])
			atomic_fetch_add(&dst->pages[i]->refs, 1);
	}
}

void sim_data_free(struct sim_data *d)
{
	for (size_t i = 0; i < d->npages; i++)
		page_put(d->pages[i]);
	free(d->pages);
	*d = (struct sim_data){ .size = 0 };
}

/* Computed once for a page, however many files and states hold it; of zeros 0. */
static uint64_t page_hash(struct sim_page *page)
{
	uint64_t hash = atomic_load(&page->hash);

	if (hash)
		return hash == SIM_HASH_ZEROS ? 0 : hash;
	hash = vc_is_zero(page->bytes, SIM_PAGE) ? SIM_HASH_ZEROS : vc_sum64(page->bytes, SIM_PAGE, 1);
	atomic_store(&page->hash, hash);
	return hash == SIM_HASH_ZEROS ? 0 : hash;
}

uint64_t sim_data_hash(const struct sim_data *d)
{
	uint64_t hash = d->size, pair[2];

	for (size_t i = 0; i < d->npages && i * SIM_PAGE < d->size; i++) {
		pair[0] = i;
		pair[1] = d->pages[i] ? page_hash(d->pages[i]) : 0;
		if (pair[1])
			hash = vc_sum64(pair, sizeof(pair), hash);
	}
	return hash;
}
