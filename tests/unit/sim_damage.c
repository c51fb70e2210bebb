/* SPDX-License-Identifier: BSD-2-Clause */
/* sim_damage: see sim_damage.h. */
#include "config.h"
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include "meta.h"
#include "sim_damage.h"

void sim_damage_lmdb(struct vc_sim *sim, const char *pool_dir)
{
	int r = vc_io_unlink(vc_sim_io(sim), books_path(pool_dir, "meta/data.mdb"));

	assert(r == 0 || r == -ENOENT);
}

struct removal {
	struct vc_sim *sim;
	const char *dir;
};

static int remove_file(void *ctx, const char *name)
{
	struct removal *removal = ctx;

	assert_int_equal(vc_io_unlink(vc_sim_io(removal->sim), books_path(removal->dir, name)), 0);
	return 0;
}

void sim_damage_all(struct vc_sim *sim, const char *pool_dir)
{
	static const char *const dirs[] = { "journal", "backup" };

	sim_damage_lmdb(sim, pool_dir);
	for (size_t i = 0; i < VC_ARRAY_LEN(dirs); i++) {
		char dir[256];
		struct removal removal = { sim, dir };
		int r;

		snprintf(dir, sizeof(dir), "%s/%s", pool_dir, dirs[i]);
		r = vc_io_list(vc_sim_io(sim), dir, remove_file, &removal);
		assert_true(r == 0 || r == -ENOENT);
		assert_int_equal(vc_io_sync_dir(vc_sim_io(sim), dir), 0); /* no crash brings them back */
	}
}

void sim_damage_rows(struct vc_sim *sim, const char *pool_dir, const struct books *b)
{
	struct vc_meta_params params = { .io = vc_sim_io(sim), .dir = books_path(pool_dir, "meta") };
	struct vc_disk_inode root = { .mode = vc_le32_of(0) };
	struct vc_meta_txn *txn;
	struct vc_meta *meta;
	unsigned n = 0;

	assert_int_equal(vc_meta_open(&params, &meta), 0);
	assert_int_equal(vc_meta_write_begin(meta, &txn), 0);
	for (size_t i = 0; i < b->n; i++) {
		if (b->rows[i].key[0] == VC_ROW_DIRENT && n++ < 2)
			assert_int_equal(vc_meta_del(txn, VC_DB_CAT, b->rows[i].key, b->rows[i].key_len), 0);
		if (b->rows[i].key[0] != VC_ROW_INODE || root.mode.v)
			continue;
		memcpy(&root, b->rows[i].value, sizeof(root));
		root.nlink = vc_le32_of(9);
		assert_int_equal(vc_meta_put(txn, VC_DB_CAT, b->rows[i].key, b->rows[i].key_len, &root, sizeof(root)), 0);
	}
	assert_int_equal(vc_meta_commit(txn), 0);
	vc_meta_close(meta);
}
