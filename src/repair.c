/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * repair: see repair.h.
 *
 *   1 check. Nothing found: only what an earlier run left to do (5).
 *   2 the log goes into the maps, as a mount would do it, so that nothing in it refers to what is about to change
 *   3 POOL/backup/data.mdb.N    the LMDB as it is, kept
 *     POOL/meta/new.mdb         the same, and repaired in passes
 *   4 rename new.mdb -> data.mdb
 *   5 a backup of it, because the journal does not know of the repair. POOL/backup/repaired, made before 4 and removed here, says that
 *     it is still to be done.
 */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "msg.h"
#include "repair_impl.h"

#define REPAIR_PASSES 10
#define REPAIR_TXN_COST 20000u
#define REPAIR_MARK "repaired"

void repair_say(struct repair *rp, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (rp->o->say)
		rp->o->say(rp->o->check.ctx, text);
}

void repair_fixed(struct repair *rp, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	rp->ret->fixed++;
	if (rp->o->say)
		rp->o->say(rp->o->check.ctx, text);
}

/* ---- rows of the copy ---- */

static int repair_txn(struct repair *rp)
{
	int r = 0;

	if (rp->txn && rp->cost >= REPAIR_TXN_COST) {
		r = vc_meta_commit(rp->txn);
		rp->txn = NULL;
	}
	if (r == 0 && !rp->txn) {
		rp->cost = 0;
		r = vc_meta_write_begin(rp->meta, &rp->txn);
	}
	rp->cost++;
	return r;
}

int repair_put(struct repair *rp, const void *key, size_t key_len, const void *value, size_t len)
{
	int r = repair_txn(rp);

	return r < 0 ? r : vc_meta_put(rp->txn, VC_DB_CAT, key, key_len, value, len);
}

int repair_del(struct repair *rp, const void *key, size_t key_len)
{
	int r = repair_txn(rp);

	return r < 0 ? r : vc_meta_del(rp->txn, VC_DB_CAT, key, key_len);
}

/* ---- one pass ---- */

static int write_inodes(struct repair *rp)
{
	int r = 0;

	for (size_t i = 0; i < rp->c.inodes_size && r == 0; i++) {
		const struct check_inode *inode = &rp->c.inodes[i];
		struct vc_disk_inode row;
		uint8_t key[9];

		if (!inode->ino || !inode->changed)
			continue;
		vc_row_from_inode(&inode->f, &row);
		r = repair_put(rp, key, vc_row_key_ino(key, VC_ROW_INODE, inode->ino), &row, sizeof(row));
	}
	return r;
}

static int count_image(void *ctx, const void *key VC_UNUSED, size_t key_len VC_UNUSED, const void *value VC_UNUSED, size_t len VC_UNUSED)
{
	++*(uint64_t *)ctx;
	return 0;
}

/* A counter that is not above `highest` is raised. */
static void raise_counter(struct repair *rp, vc_le64 *counter, uint64_t highest, const char *what)
{
	if (vc_le64_get(*counter) > highest)
		return;
	repair_fixed(rp, "the next %s is %llu, not %llu", what, (unsigned long long)highest + 1, (unsigned long long)vc_le64_get(*counter));
	*counter = vc_le64_of(highest + 1);
}

static int write_state(struct repair *rp, uint64_t counted)
{
	struct vc_disk_state *s = &rp->c.state;
	uint8_t prefix = VC_ROW_IMAGE;
	uint64_t images = 0;
	int r = vc_meta_scan(rp->txn, VC_DB_CAT, &prefix, 1, NULL, 0, count_image, &images);

	if (vc_le64_get(s->images) != counted)
		repair_fixed(rp, "%llu images are counted now", (unsigned long long)images);
	raise_counter(rp, &s->next_ino, rp->c.highest_ino, "inode number");
	raise_counter(rp, &s->next_node, rp->c.highest_node, "map node");
	raise_counter(rp, &s->next_tag, rp->c.highest_tag, "owner tag");
	raise_counter(rp, &s->next_content, rp->c.highest_content, "content name");
	raise_counter(rp, &s->next_segno, rp->c.highest_segno, "segment number");
	s->next_ino = vc_le64_of(VC_MAX(vc_le64_get(s->next_ino), rp->next_ino));
	s->next_tag = vc_le64_of(VC_MAX(vc_le64_get(s->next_tag), rp->next_tag));
	s->images = vc_le64_of(images);
	return r < 0 ? r : repair_put(rp, "GS", 2, s, sizeof(*s));
}

static int repair_steps(struct repair *rp)
{
	uint64_t counted = rp->c.image_rows;
	int r = repair_inodes(rp);

	if (r == 0)
		r = repair_names(rp);
	if (r == 0)
		r = repair_nodes(rp);
	if (r == 0)
		r = write_inodes(rp);
	return r < 0 ? r : write_state(rp, counted);
}

static int open_copy(struct repair *rp)
{
	char *dir = vc_replace_path(rp->dir, "meta", NULL);
	struct vc_meta_params params = { .io = rp->io, .dir = dir, .file = VC_META_NEW };
	int r = dir ? vc_meta_open(&params, &rp->meta) : -ENOMEM;

	free(dir);
	return r == 0 ? repair_txn(rp) : r;
}

static void not_told(void *ctx VC_UNUSED, const char *text VC_UNUSED) { }

/* 1: nothing (more) to do; 0: something was done; -errno. */
static int repair_pass(struct repair *rp)
{
	struct vc_check_options o = { .found = not_told, .meta_file = VC_META_NEW };
	struct vc_check_result result = { .findings = 0 };
	uint64_t fixed = rp->ret->fixed;
	int r;

	rp->c = (struct check){ .io = rp->io, .dir = rp->dir, .o = &o, .ret = &result };
	r = check_open(&rp->c);
	if (r == 0)
		r = check_look(&rp->c);
	check_close(&rp->c);
	if (r == 0 && rp->c.incomplete)
		repair_say(rp, "rows of the catalog cannot be read, so it is not known what belongs where: only a rebuild can help");
	if (r == 0 && (result.findings == 0 || rp->c.incomplete))
		r = 1;
	if (r == 0) {
		rp->lost = 0;
		rp->next_ino = VC_MAX(vc_le64_get(rp->c.state.next_ino), VC_MAX(rp->c.highest_ino, rp->highest_ino) + 1);
		rp->next_tag = VC_MAX(vc_le64_get(rp->c.state.next_tag), rp->c.highest_tag + 1);
		r = open_copy(rp);
		if (r == 0)
			r = repair_steps(rp);
		if (r == 0) {
			r = vc_meta_commit(rp->txn);
			rp->txn = NULL;
		}
		vc_meta_end(rp->txn);
		vc_meta_close(rp->meta);
		rp->txn = NULL;
		rp->meta = NULL;
	}
	check_free(&rp->c);
	return r == 0 && rp->ret->fixed == fixed ? 1 : r;
}

/* ---- around the passes ---- */

/* What is in the log goes into the maps. When that cannot be done the repair goes without; what is made new then stays clear of it. */
static int drain_log(struct repair *rp)
{
	struct vc_pool_options options = { .log_dir = rp->o->check.log_dir, .locked = true, .keep_orphans = true,
					   .destage_ms = UINT32_MAX };
	struct vc_pool *pool;
	int r = vc_pool_open(rp->io, rp->dir, &options, &pool);

	if (r == 0)
		r = vc_pool_close(pool);
	if (!rebuild_is_damage(r)) /* 0, or lack of memory, space or descriptors: without its log, what LMDB holds is half of the pool */
		return r;
	repair_say(rp, "the log cannot be put into the maps yet (error %d): the next mount does it", -r);
	return rebuild_log_highest_ino(rp->io, rp->dir, rp->o->check.log_dir, &rp->highest_ino);
}

static int copy_twice(struct repair *rp)
{
	char *data = vc_replace_path(rp->dir, "meta", "data.mdb"), *new = vc_replace_path(rp->dir, "meta", VC_META_NEW), *kept = NULL;
	int r = data && new ? vc_replace_begin(rp->io, rp->dir) : -ENOMEM;

	if (r == 0)
		r = vc_replace_kept_name(rp->io, rp->dir, rp->ret->kept);
	if (r == 0)
		kept = vc_replace_path(rp->dir, "backup", rp->ret->kept);
	if (r == 0)
		r = kept ? vc_replace_copy(rp->io, data, kept) : -ENOMEM;
	if (r == 0)
		r = vc_replace_copy(rp->io, data, new);
	if (r == 0)
		repair_say(rp, "LMDB as it was is kept as backup/%s", rp->ret->kept);
	free(data);
	free(new);
	free(kept);
	return r;
}

static int mark_set(struct repair *rp, bool on)
{
	char *path = vc_replace_path(rp->dir, "backup", REPAIR_MARK), *dir = vc_replace_path(rp->dir, "backup", NULL);
	struct vc_file *file = NULL;
	int r = path && dir ? 0 : -ENOMEM;

	if (r == 0)
		r = on ? vc_io_open(rp->io, path, VC_IO_WRITE | VC_IO_CREATE, &file) : vc_io_unlink(rp->io, path);
	vc_io_close(file);
	if (r == 0)
		r = vc_io_sync_dir(rp->io, dir);
	free(path);
	free(dir);
	return r;
}

static bool mark_is_set(struct repair *rp)
{
	char *path = vc_replace_path(rp->dir, "backup", REPAIR_MARK);
	struct vc_file *file = NULL;
	int r = path ? vc_io_open(rp->io, path, VC_IO_READ, &file) : -ENOMEM;

	vc_io_close(file);
	free(path);
	return r == 0;
}

/* Without a backup a later rebuild would bring back what was repaired; that is no reason to fail. */
static int save(struct repair *rp, uint64_t checkpoint_lsn)
{
	int r = vc_replace_backup(rp->io, rp->dir, NULL, checkpoint_lsn);

	if (r < 0)
		repair_say(rp, "no backup of the repaired LMDB could be made (error %d)", -r);
	return r < 0 ? 0 : mark_set(rp, false);
}

static int check_again(struct repair *rp, const char *file, void (*found)(void *ctx, const char *text), bool log, struct vc_check_result *ret)
{
	struct vc_check_options o = rp->o->check;

	o.meta_file = file;
	o.locked = true;
	o.found = found ? found : not_told;
	o.log = log;
	return vc_check_pool(rp->io, rp->dir, &o, ret);
}

/* 0 or -errno. */
static int repair_passes(struct repair *rp)
{
	int r = 0;

	for (int pass = 0; pass < REPAIR_PASSES && r == 0; pass++)
		r = repair_pass(rp);
	return VC_MIN(r, 0);
}

int vc_repair_new(struct vc_io *io, const char *dir, void (*say)(void *ctx, const char *text), void *ctx)
{
	struct vc_repair_result result = { .fixed = 0 };
	struct vc_repair_options options = { .check = { .found = not_told, .ctx = ctx }, .say = say };
	struct repair rp = { .io = io, .dir = dir, .o = &options, .ret = &result, .now_ns = vc_now_ns() };

	return repair_passes(&rp);
}

static int repair_copy(struct repair *rp)
{
	int r = drain_log(rp);

	if (r == 0)
		r = copy_twice(rp);
	if (r == 0)
		r = repair_passes(rp);
	if (r < 0)
		return r;
	r = check_again(rp, VC_META_NEW, rp->o->left, true, &rp->ret->after);
	if (r < 0 || rp->ret->fixed == 0)
		return r;
	r = mark_set(rp, true);
	if (r == 0)
		r = vc_replace_switch(rp->io, rp->dir);
	rp->ret->replaced = r == 0;
	return r < 0 ? r : save(rp, rp->ret->after.checkpoint_lsn);
}

static int repair_run(struct repair *rp)
{
	int r = check_again(rp, NULL, rp->o->check.found, rp->o->check.log, &rp->ret->before);

	if (r < 0)
		return r;
	rp->ret->after = rp->ret->before;
	if (rp->ret->before.findings)
		return repair_copy(rp);
	return mark_is_set(rp) ? save(rp, rp->ret->before.checkpoint_lsn) : 0;
}

int vc_repair_drained(struct vc_io *io, const char *dir, const struct vc_repair_options *options, struct vc_repair_result *ret)
{
	struct repair rp = { .io = io, .dir = dir, .o = options, .ret = ret, .now_ns = vc_now_ns() };
	int r;

	memset(ret, 0, sizeof(*ret));
	r = drain_log(&rp);
	return r < 0 ? r : repair_run(&rp);
}

int vc_repair_pool(struct vc_io *io, const char *dir, const struct vc_repair_options *options, struct vc_repair_result *ret)
{
	struct repair rp = { .io = io, .dir = dir, .o = options, .ret = ret, .now_ns = vc_now_ns() };
	struct vc_disk_pool pool;
	struct vc_file *lock = NULL;
	int r = vc_super_read(io, dir, &pool);

	memset(ret, 0, sizeof(*ret));
	if (r == 0)
		r = vc_super_lock(io, dir, &lock);
	if (r == 0)
		r = repair_run(&rp);
	vc_io_close(lock);
	return r;
}
