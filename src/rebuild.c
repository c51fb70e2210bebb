/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rebuild: see rebuild.h.
 *
 *   POOL/meta/new.mdb   made from a backup (or empty), grown by the journal, checked
 *   switch              data.mdb -> POOL/backup/data.mdb.N, then new.mdb -> data.mdb
 *
 * A crash between the two renames leaves a pool without data.mdb, which is what a rebuild is for.
 */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "msg.h"
#include "rebuild_impl.h"
#include "repair.h"
#include "salvage.h"

#define ULL(x) ((unsigned long long)(x))

void rebuild_say(struct rebuild *rb, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (rb->o->say)
		rb->o->say(rb->o->check.ctx, text);
}

void rebuild_found(struct rebuild *rb, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	rb->ret->check.findings++;
	rb->o->check.found(rb->o->check.ctx, text);
}

/* ---- what it begins with ---- */

struct backups {
	uint64_t *lsns;
	size_t n, cap;
};

static int backup_add(void *ctx, const char *name)
{
	struct backups *b = ctx;
	char *end;
	unsigned long long lsn = strtoull(name, &end, 16);

	if (end != name + 16 || strcmp(end, ".mdb") != 0)
		return 0;
	if (vc_array_room(&b->lsns, b->n, &b->cap, sizeof(*b->lsns)) < 0)
		return -ENOMEM;
	b->lsns[b->n++] = lsn;
	return 0;
}

static int newest_first(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x > y ? -1 : x < y;
}

static int open_new(struct rebuild *rb)
{
	char *dir = vc_replace_path(rb->dir, "meta", NULL);
	struct vc_meta_params params = { .io = rb->io, .dir = dir, .file = VC_META_NEW };
	int r = dir ? vc_meta_open(&params, &rb->meta) : -ENOMEM;

	free(dir);
	return r == 0 ? rebuild_load(rb) : r;
}

static void close_new(struct rebuild *rb)
{
	vc_meta_end(rb->txn);
	vc_map_close(rb->map);
	vc_meta_close(rb->meta);
	free(rb->contents);
	rb->txn = NULL;
	rb->map = NULL;
	rb->meta = NULL;
	rb->contents = NULL;
	rb->contents_size = rb->ncontents = 0;
	rb->next_ino = rb->next_tag = rb->next_segno = rb->next_content = 0;
	memset(&rb->state, 0, sizeof(rb->state));
}

/* Copied with LMDB's own means, and every value of the copy is read back: what is damaged is not begun with. */
static int copy_backup(struct rebuild *rb, uint64_t lsn)
{
	char name[32];
	char *dir = vc_replace_path(rb->dir, "backup", NULL), *to = vc_replace_path(rb->dir, "meta", VC_META_NEW);
	struct vc_meta_params params = { .io = rb->io, .dir = dir, .file = name, .read_only = true };
	struct vc_meta *backup = NULL;
	int r = dir && to ? vc_replace_begin(rb->io, rb->dir) : -ENOMEM;

	snprintf(name, sizeof(name), "%016llx.mdb", ULL(lsn));
	if (r == 0)
		r = vc_meta_open(&params, &backup);
	if (r == 0)
		r = vc_meta_backup(backup, to);
	if (r == 0)
		vc_io_meta_committed(rb->io, to);
	vc_meta_close(backup);
	free(dir);
	free(to);
	return r;
}

static int begin_with_backup(struct rebuild *rb, uint64_t lsn)
{
	int r = copy_backup(rb, lsn);

	if (r == 0)
		r = open_new(rb);
	if (r == 0 && vc_le64_get(rb->state.checkpoint_lsn) != lsn) {
		vc_err("%s/backup/%016llx.mdb: holds checkpoint %llu", rb->dir, ULL(lsn), ULL(vc_le64_get(rb->state.checkpoint_lsn)));
		r = -EUCLEAN;
	}
	return r;
}

/* As the pool was made: a root directory and nothing else. */
static int begin_empty(struct rebuild *rb)
{
	int r = vc_replace_begin(rb->io, rb->dir);

	if (r == 0)
		r = vc_super_first_state(rb->io, rb->dir, VC_META_NEW, &rb->pool, vc_le64_get(rb->pool.created_ns));
	return r < 0 ? r : open_new(rb);
}

/* ---- from a beginning to the end of the journal ---- */

/* 0; 1: the journal does not lead to the log (told). */
static int grow(struct rebuild *rb)
{
	uint64_t first_lsn;
	int r = rebuild_journal(rb);

	if (r == 0)
		r = rebuild_find_log(rb, &first_lsn);
	if (r == 1)
		rebuild_say(rb, "the journal leads to record %llu, the log begins with record %llu",
			    ULL(vc_le64_get(rb->state.checkpoint_lsn)), ULL(first_lsn));
	rb->ret->checkpoint_lsn = vc_le64_get(rb->state.checkpoint_lsn);
	return r != 0 ? r : rebuild_state(rb);
}

/* One way to begin; with a new LMDB left open when it went well (0), or not quite (1). */
static int attempt(struct rebuild *rb, const uint64_t *backup)
{
	int r;

	close_new(rb);
	rb->ret->entries = 0;
	rb->ret->backup_lsn = backup ? *backup : 0;
	r = backup ? begin_with_backup(rb, *backup) : begin_empty(rb);
	if (backup && r < 0 && rebuild_is_damage(r))
		rebuild_say(rb, "the backup of checkpoint %llu cannot be used", ULL(*backup));
	return r == 0 ? grow(rb) : r;
}

/* Newest backup first, then without. 0: the new LMDB is complete; 1: none leads to the log (to salvage: the best is open); -errno. */
static int attempt_all(struct rebuild *rb)
{
	struct backups b = { .n = 0 };
	char *dir = vc_replace_path(rb->dir, "backup", NULL);
	int r = dir ? vc_io_list(rb->io, dir, backup_add, &b) : -ENOMEM;

	free(dir);
	if (r == -ENOENT)
		r = 0;
	if (b.n)
		qsort(b.lsns, b.n, sizeof(*b.lsns), newest_first);
	if (r == 0) {
		r = 1;
		for (size_t i = 0; i <= b.n && ((r == 1 && (i == 0 || !rb->o->salvage)) || rebuild_is_damage(r)); i++)
			r = attempt(rb, i < b.n ? &b.lsns[i] : NULL);
	}
	free(b.lsns);
	if (rebuild_is_damage(r))
		close_new(rb);
	return rebuild_is_damage(r) ? 1 : r;
}

/* ---- check and switch ---- */

/* It is no longer open. */
static int check_new(struct rebuild *rb)
{
	struct vc_check_options o = rb->o->check;
	struct vc_check_result *ret = &rb->ret->check;
	uint64_t before = ret->findings;
	int r;

	o.meta_file = VC_META_NEW;
	o.locked = true;
	o.log = true;
	r = vc_check_pool(rb->io, rb->dir, &o, ret);
	ret->findings += before;
	return r;
}

static int keep_old(struct rebuild *rb)
{
	char *from = vc_replace_path(rb->dir, "meta", "data.mdb"), *to = NULL;
	struct vc_file *file = NULL;
	int r = from ? vc_io_open(rb->io, from, VC_IO_READ, &file) : -ENOMEM;

	vc_io_close(file);
	if (r == 0)
		r = vc_replace_kept_name(rb->io, rb->dir, rb->ret->kept);
	if (r == 0) {
		to = vc_replace_path(rb->dir, "backup", rb->ret->kept);
		r = to ? vc_io_rename(rb->io, from, to) : -ENOMEM;
	}
	free(from);
	free(to);
	return r == -ENOENT ? 0 : r; /* there is none */
}

static int finish(struct rebuild *rb)
{
	int r;

	close_new(rb);
	r = check_new(rb);
	if (r < 0)
		return r;
	if (rb->ret->check.findings && !rb->o->salvage) {
		rebuild_say(rb, "what was rebuilt is not in order: the pool is left as it is (--salvage takes it all the same)");
		return 0;
	}
	r = keep_old(rb);
	if (r == 0)
		r = vc_replace_switch(rb->io, rb->dir);
	rb->ret->replaced = r == 0;
	if (r == 0 && rb->ret->salvaged && vc_replace_backup(rb->io, rb->dir, NULL, rb->ret->checkpoint_lsn) < 0)
		rebuild_say(rb, "no backup of the new LMDB could be made");
	return r;
}

/* ---- the last resort ---- */

/* Does the log fit what was made? 0, -errno of the replay. */
static int try_log(struct rebuild *rb)
{
	struct vc_pool_options options = { .read_only = true, .log_dir = rb->log.dir, .meta_file = VC_META_NEW, .locked = true };
	struct vc_pool *pool;
	int r = vc_pool_open(rb->io, rb->dir, &options, &pool);

	return r < 0 ? r : vc_pool_close(pool);
}

static int salvage_once(struct rebuild *rb, bool with_log)
{
	int r = attempt_all(rb);

	if (rebuild_is_damage(r) || (r == 1 && !rb->meta)) { /* not even the journal from its beginning */
		close_new(rb);
		r = begin_empty(rb);
	}
	rb->ret->salvaged_images = rb->ret->salvaged_blocks = 0;
	if (r >= 0)
		r = vc_salvage(rb, with_log);
	if (r == 0)
		r = rebuild_state(rb);
	rb->ret->checkpoint_lsn = vc_le64_get(rb->state.checkpoint_lsn);
	close_new(rb);
	return r < 0 ? r : vc_repair_new(rb->io, rb->dir, rb->o->say, rb->o->check.ctx);
}

static int salvage(struct rebuild *rb)
{
	int r = salvage_once(rb, true);

	if (r == 0)
		r = try_log(rb);
	if (rebuild_is_damage(r)) {
		r = salvage_once(rb, false);
		if (r == 0)
			r = try_log(rb);
	}
	rb->ret->salvaged = true;
	if (r < 0)
		return r;
	rebuild_say(rb, "%llu images have blocks that only chunks knew of, %llu in all; what their clones share, what was discarded, and names are not known",
		    ULL(rb->ret->salvaged_images), ULL(rb->ret->salvaged_blocks));
	return finish(rb);
}

static int rebuild_run(struct rebuild *rb)
{
	int r = vc_journal_scan(rb->io, rb->dir, rb->pool.uuid, &rb->journal);

	if (r == 0)
		r = attempt_all(rb);
	if (rb->o->salvage && (r == 1 || rebuild_is_damage(r)))
		return salvage(rb);
	if (r == 1) {
		rebuild_found(rb, "backup and journal do not lead to the log: what was lost cannot be made again whole");
		return 0;
	}
	if (r < 0)
		return r;
	if (rb->ret->backup_lsn)
		rebuild_say(rb, "began with the backup of checkpoint %llu", ULL(rb->ret->backup_lsn));
	if (rb->o->salvage) {
		close_new(rb);
		r = try_log(rb);
		if (rebuild_is_damage(r))
			return salvage(rb);
		if (r < 0)
			return r;
	}
	rebuild_say(rb, "%llu checkpoints of the journal applied, up to %llu", ULL(rb->ret->entries), ULL(rb->ret->checkpoint_lsn));
	return finish(rb);
}

static void not_told(void *ctx VC_UNUSED, const char *text VC_UNUSED) { }

/*
 * What the log says of links is what they were before some names were lost: the log goes into the new LMDB, which is then repaired. Also
 * when nothing had to be salvaged: an earlier run may have been interrupted here.
 */
static int salvage_repair(struct rebuild *rb)
{
	struct vc_repair_options o = { .check = rb->o->check, .say = rb->o->say, .left = rb->o->check.found };
	struct vc_repair_result result;
	int r;

	o.check.found = not_told;
	r = vc_repair_drained(rb->io, rb->dir, &o, &result);
	if (r == 0)
		rb->ret->check = result.after;
	return r;
}

int vc_rebuild_pool(struct vc_io *io, const char *dir, const struct vc_rebuild_options *options, struct vc_rebuild_result *ret)
{
	struct rebuild rb = { .io = io, .dir = dir, .o = options, .ret = ret };
	char *log_dir = options->check.log_dir ? strdup(options->check.log_dir) : vc_replace_path(dir, "log", NULL);
	struct vc_file *lock = NULL;
	int r = log_dir ? 0 : -ENOMEM;

	memset(ret, 0, sizeof(*ret));
	if (r == 0)
		r = vc_super_read(io, dir, &rb.pool);
	if (r == 0)
		r = vc_super_lock(io, dir, &lock);
	if (r == 0) {
		rb.log = (struct vc_log_params){ .io = io, .dir = log_dir, .segment_size = vc_le64_get(rb.pool.log_segment_size),
						 .nsegments = vc_le32_get(rb.pool.log_segments) };
		memcpy(rb.log.uuid, rb.pool.log_uuid, sizeof(rb.log.uuid));
		r = rebuild_run(&rb);
		if (r == 0 && options->salvage && ret->replaced)
			r = salvage_repair(&rb);
	}
	close_new(&rb);
	vc_journal_scan_fini(&rb.journal);
	free(rb.changes);
	free(rb.doomed);
	vc_io_close(lock);
	free(log_dir);
	return r;
}
