/* SPDX-License-Identifier: BSD-2-Clause */
/* check: opens what is to be checked, and runs the parts. */
#include "config.h"

#include "check_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void check_found(struct check *c, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	c->ret->findings++;
	c->o->found(c->o->ctx, text);
}

static struct check_inode *inode_place(struct check_inode *table, size_t size, uint64_t ino)
{
	size_t i = (size_t)(ino * UINT64_C(0x9e3779b97f4a7c15) >> 24) & (size - 1);

	while (table[i].ino && table[i].ino != ino)
		i = (i + 1) & (size - 1);
	return &table[i];
}

struct check_inode *check_inode_get(struct check *c, uint64_t ino)
{
	struct check_inode *place;

	if ((c->ninodes + 1) * 4 > c->inodes_size * 3) {
		size_t size = c->inodes_size ? c->inodes_size * 2 : 1024;
		struct check_inode *table = calloc(size, sizeof(*table));

		if (!table)
			return NULL;
		for (size_t i = 0; i < c->inodes_size; i++)
			if (c->inodes[i].ino)
				*inode_place(table, size, c->inodes[i].ino) = c->inodes[i];
		free(c->inodes);
		c->inodes = table;
		c->inodes_size = size;
	}
	place = inode_place(c->inodes, c->inodes_size, ino);
	if (!place->ino) {
		place->ino = ino;
		c->ninodes++;
	}
	return place;
}

static int check_collect_segment(void *ctx, const struct vc_chunk_segment_info *info)
{
	struct check *c = ctx;

	if (vc_array_room(&c->segments, c->nsegments, &c->segments_cap, sizeof(*c->segments)) < 0)
		return -ENOMEM;
	c->segments[c->nsegments++] = *info;
	return 0;
}

int check_open(struct check *c)
{
	struct vc_meta_params meta = { .io = c->io, .file = c->o->meta_file, .read_only = true, .examine = true };
	struct vc_chunk_params chunks = { .io = c->io, .cache_bytes = 1u << 20, .read_only = true };
	char *meta_dir, *chunk_dir;
	int r = vc_super_read(c->io, c->dir, &c->pool);

	if (r < 0)
		return r;
	meta_dir = vc_path_of(c->dir, "meta");
	chunk_dir = vc_path_of(c->dir, "chunk");
	if (!meta_dir || !chunk_dir)
		r = -ENOMEM;
	meta.dir = meta_dir;
	chunks.dir = chunk_dir;
	chunks.segment_size = vc_le64_get(c->pool.chunk_segment_size);
	chunks.chunk_blocks = vc_le32_get(c->pool.chunk_blocks);
	memcpy(chunks.uuid, c->pool.uuid, sizeof(chunks.uuid));
	if (r == 0)
		r = vc_meta_open(&meta, &c->meta);
	if (r == 0)
		r = vc_meta_read_begin(c->meta, &c->txn);
	if (r == 0 && vc_meta_doubtful(c->meta))
		check_found(c, "catalog rows are damaged, or older ones (see the messages before)");
	if (r == 0)
		r = vc_chunk_open(&chunks, &c->chunks);
	if (r == 0) {
		vc_chunk_settle(c->chunks, 0);
		r = vc_chunk_each_segment(c->chunks, check_collect_segment, c);
	}
	free(meta_dir);
	free(chunk_dir);
	return r;
}

static int check_state(struct check *c)
{
	const void *value;
	size_t len;
	int r = vc_meta_get(c->txn, VC_DB_CAT, "GS", 2, &value, &len);

	if (r == -ENOENT || (r == 0 && len != sizeof(c->state))) {
		check_found(c, "the pool state is missing or of a wrong size");
		return -EUCLEAN;
	}
	if (r < 0)
		return r;
	memcpy(&c->state, value, sizeof(c->state));
	if (memcmp(c->state.uuid, c->pool.uuid, sizeof(c->pool.uuid)) != 0)
		check_found(c, "LMDB belongs to another pool");
	c->ret->checkpoint_lsn = vc_le64_get(c->state.checkpoint_lsn);
	return 0;
}

static void check_counters(struct check *c)
{
	if (vc_le64_get(c->state.next_node) <= c->highest_node)
		check_found(c, "the next node id, %llu, is in use already", (unsigned long long)vc_le64_get(c->state.next_node));
	if (vc_le64_get(c->state.next_tag) <= c->highest_tag)
		check_found(c, "the next owner tag, %llu, is in use already", (unsigned long long)vc_le64_get(c->state.next_tag));
	if (vc_le64_get(c->state.next_content) <= c->highest_content)
		check_found(c, "the next content name, %llu, is in use already", (unsigned long long)vc_le64_get(c->state.next_content));
	if (vc_le64_get(c->state.next_segno) <= c->highest_segno)
		check_found(c, "the next segment number, %llu, is in use already", (unsigned long long)vc_le64_get(c->state.next_segno));
	if (vc_le64_get(c->state.images) != c->image_rows)
		check_found(c, "%llu images are counted, %llu exist", (unsigned long long)vc_le64_get(c->state.images),
			    (unsigned long long)c->image_rows);
}

/* The log on top of the checkpoint: replayed in memory, as a mount would. */
static int check_log(struct check *c, bool locked)
{
	struct vc_pool_options options = { .read_only = true, .log_dir = c->o->log_dir, .meta_file = c->o->meta_file,
					   .locked = locked, .verify = c->o->data };
	struct vc_pool *pool;
	int r = vc_pool_open(c->io, c->dir, &options, &pool);

	if (r == -EBADMSG || r == -EUCLEAN) {
		c->ret->log = 1;
		check_found(c, "the log cannot be replayed (see the message before)");
		return 0;
	}
	if (r < 0)
		return r;
	c->ret->log = 1;
	if (vc_pool_bad_chunks(pool))
		check_found(c, "%llu chunks that the log names are damaged (see the messages before)", (unsigned long long)vc_pool_bad_chunks(pool));
	return vc_pool_close(pool);
}

/* A pool that is in use is checked without its log, which is said. */
static int check_log_if_free(struct check *c)
{
	struct vc_file *lock;
	int r = vc_super_try_lock(c->io, c->dir, &lock);

	if (r < 0) {
		c->ret->log = r;
		return r == -ENOMEM ? r : 0;
	}
	r = check_log(c, true);
	vc_io_close(lock);
	if (r != -ENOENT || c->o->log_dir)
		return r;
	check_found(c, "the log is not in the pool; if it lies elsewhere, it has to be said where");
	c->ret->log = r;
	return 0;
}

int check_look(struct check *c)
{
	int r = check_state(c);

	if (r == 0)
		r = check_rows(c);
	if (r == 0)
		r = check_names(c);
	if (r == 0)
		r = check_maps(c);
	if (r == 0)
		check_counters(c);
	return r;
}

void check_close(struct check *c)
{
	vc_meta_end(c->txn);
	vc_chunk_close(c->chunks);
	vc_meta_close(c->meta);
	c->txn = NULL;
	c->chunks = NULL;
	c->meta = NULL;
}

void check_free(struct check *c)
{
	for (size_t i = 0; i < c->nnames; i++)
		free(c->names[i].name);
	free(c->inodes);
	free(c->names);
	free(c->nodes);
	free(c->chunk_set);
	free(c->segments);
}

int vc_check_pool(struct vc_io *io, const char *dir, const struct vc_check_options *options, struct vc_check_result *ret)
{
	struct check c = { .io = io, .dir = dir, .o = options, .ret = ret };
	int r;

	memset(ret, 0, sizeof(*ret));
	r = check_open(&c);
	if (r == 0)
		r = check_look(&c);
	if (r == 0 && options->data)
		r = check_data(&c);
	check_close(&c);
	check_free(&c);
	if (r == 0 && options->log)
		r = check_log(&c, options->locked);
	else if (r == 0 && options->log_if_free)
		r = check_log_if_free(&c);
	return r;
}
