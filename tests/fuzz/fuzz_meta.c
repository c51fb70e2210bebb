/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz what LMDB holds, through everything that reads it: opening, names, attributes, maps, destage, mark, check.
 *
 * Either values of all kinds are changed and get a right checksum again, added and deleted: the pool does not open, or
 * whatever is looked at is an error or makes sense. Or the bytes as they lie in LMDB are changed, checksum included: then
 * what is read is what was there, or an error (D5, I8).
 */
#include "config.h"
#include "../unit/unit.h"

#include <limits.h>
#include <lmdb.h>

#include "../unit/engine.h"
#include "check.h"
#include "fuzz_pool.h"
#include "meta.h"

#define META_DIR FUZZ_POOL "/meta"
#define EDITS_MAX 8
#define KEYS_MAX 256
#define VALUE_MAX 4072

struct meta_key {
	enum vc_meta_db db;
	uint8_t bytes[VC_ROW_KEY_MAX];
	size_t len;
};

struct meta_edit {
	struct fuzz_in *in;
	struct meta_key keys[KEYS_MAX];
	size_t nkeys;
	enum vc_meta_db db; /* being listed */
};

static int meta_collect(void *ctx, const void *key, size_t key_len, const void *value VC_UNUSED, size_t len VC_UNUSED)
{
	struct meta_edit *e = ctx;
	struct meta_key *k = &e->keys[e->nkeys];

	if (e->nkeys == KEYS_MAX)
		return 1;
	k->db = e->db;
	k->len = key_len;
	memcpy(k->bytes, key, key_len);
	e->nkeys++;
	return 0;
}

static void meta_list(struct meta_edit *e, struct vc_meta_txn *txn)
{
	for (e->db = 0; e->db < VC_DB_COUNT; e->db++)
		fuzz_check(vc_meta_scan(txn, e->db, "", 0, NULL, 0, meta_collect, e) >= 0);
}

/* Change some bytes; half of the time the length as well. Returns the new length. */
static size_t meta_change(struct fuzz_in *in, uint8_t *value, size_t len, size_t max)
{
	unsigned int n = 1 + fuzz_u8(in) % 8;

	if (fuzz_below(in, 4) == 0) {
		size_t grown = fuzz_below(in, max);

		if (grown > len)
			memset(value + len, 0, grown - len);
		len = grown;
	}
	for (unsigned int i = 0; i < n && len; i++) {
		uint64_t at = fuzz_below(in, len);

		value[at] ^= fuzz_u8(in);
	}
	return len;
}

/* ---- values with right checksums ---- */

static void meta_alter(struct meta_edit *e, struct vc_meta_txn *txn)
{
	const struct meta_key *k = &e->keys[fuzz_below(e->in, e->nkeys)];
	uint8_t value[VALUE_MAX];
	const void *old;
	size_t len;

	if (vc_meta_get(txn, k->db, k->bytes, k->len, &old, &len) < 0)
		return;
	memcpy(value, old, len);
	len = meta_change(e->in, value, len, 2100);
	fuzz_check(vc_meta_put(txn, k->db, k->bytes, k->len, value, len) == 0);
}

static void meta_delete(struct meta_edit *e, struct vc_meta_txn *txn)
{
	const struct meta_key *k = &e->keys[fuzz_below(e->in, e->nkeys)];
	int r = vc_meta_del(txn, k->db, k->bytes, k->len);

	fuzz_check(r == 0 || r == -ENOENT);
}

/* The value of one key under another. */
static void meta_copy(struct meta_edit *e, struct vc_meta_txn *txn)
{
	const struct meta_key *from = &e->keys[fuzz_below(e->in, e->nkeys)], *to = &e->keys[fuzz_below(e->in, e->nkeys)];
	uint8_t value[VALUE_MAX];
	const void *old;
	size_t len;

	if (vc_meta_get(txn, from->db, from->bytes, from->len, &old, &len) < 0)
		return;
	memcpy(value, old, len);
	fuzz_check(vc_meta_put(txn, to->db, to->bytes, to->len, value, len) == 0);
}

static void meta_add(struct meta_edit *e, struct vc_meta_txn *txn)
{
	const struct meta_key *like = &e->keys[fuzz_below(e->in, e->nkeys)];
	struct meta_key k = *like;
	uint8_t value[VALUE_MAX];
	const void *old;
	size_t len;

	if (vc_meta_get(txn, k.db, k.bytes, k.len, &old, &len) < 0)
		return;
	memcpy(value, old, len);
	k.len = meta_change(e->in, k.bytes, k.len, k.db == VC_DB_NODE ? 12 : sizeof(k.bytes));
	if (fuzz_below(e->in, 2))
		len = meta_change(e->in, value, len, 2100);
	if (k.len)
		fuzz_check(vc_meta_put(txn, k.db, k.bytes, k.len, value, len) == 0);
}

static void meta_edit_valid(struct meta_edit *e, struct vc_io *io)
{
	struct vc_meta_params params = { .io = io, .dir = META_DIR };
	struct vc_meta_txn *txn;
	struct vc_meta *meta;

	fuzz_check(vc_meta_open(&params, &meta) == 0);
	fuzz_check(vc_meta_write_begin(meta, &txn) == 0);
	meta_list(e, txn);
	for (int i = 0; i < EDITS_MAX && e->in->left; i++) {
		uint64_t what = fuzz_below(e->in, 8);

		if (what < 5)
			meta_alter(e, txn);
		else if (what == 5)
			meta_delete(e, txn);
		else if (what == 6)
			meta_copy(e, txn);
		else
			meta_add(e, txn);
	}
	fuzz_check(vc_meta_commit(txn) == 0);
	vc_meta_close(meta);
}

/* ---- bytes as they lie in LMDB ---- */

static void raw_change(struct meta_edit *e, MDB_txn *txn, MDB_dbi dbi, unsigned int which)
{
	uint8_t value[VALUE_MAX + 8], key[VC_ROW_KEY_MAX];
	MDB_cursor *cursor;
	MDB_val k, v;

	fuzz_check(mdb_cursor_open(txn, dbi, &cursor) == 0);
	for (unsigned int i = 0; i <= which; i++)
		if (mdb_cursor_get(cursor, &k, &v, MDB_NEXT) != 0)
			fuzz_check(mdb_cursor_get(cursor, &k, &v, MDB_FIRST) == 0);
	memcpy(key, k.mv_data, k.mv_size);
	memcpy(value, v.mv_data, v.mv_size);
	k.mv_data = key;
	v.mv_size = meta_change(e->in, value, v.mv_size, 2100);
	v.mv_data = value;
	mdb_cursor_close(cursor);
	fuzz_check(mdb_put(txn, dbi, &k, &v, 0) == 0);
}

static void meta_edit_raw(struct meta_edit *e, struct vc_io *io)
{
	static const char *const names[VC_DB_COUNT] = { [VC_DB_NODE] = "node", [VC_DB_CAT] = "cat" };
	char path[PATH_MAX];
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;

	fuzz_check(mdb_env_create(&env) == 0 && mdb_env_set_maxdbs(env, VC_DB_COUNT) == 0);
	fuzz_check(mdb_env_set_mapsize(env, 1 << 30) == 0);
	fuzz_check(mdb_env_open(env, vc_io_real_path(io, META_DIR, path, sizeof(path)), MDB_NOLOCK, 0600) == 0);
	fuzz_check(mdb_txn_begin(env, NULL, 0, &txn) == 0);
	for (int i = 0; i < EDITS_MAX && e->in->left; i++) {
		enum vc_meta_db db = fuzz_below(e->in, 2) ? VC_DB_NODE : VC_DB_CAT;

		fuzz_check(mdb_dbi_open(txn, names[db], 0, &dbi) == 0);
		raw_change(e, txn, dbi, fuzz_u8(e->in));
	}
	fuzz_check(mdb_txn_commit(txn) == 0);
	mdb_env_close(env);
	vc_io_meta_committed(io, META_DIR);
}

/* ---- what is made of it ---- */

static void check_finding(void *ctx VC_UNUSED, const char *text)
{
	fuzz_check(*text);
}

static void meta_check(struct vc_io *io)
{
	struct vc_check_options options = { .data = true, .log = true, .found = check_finding };
	struct vc_check_result result;

	fuzz_check(vc_check_pool(io, FUZZ_POOL, &options, &result) <= 0);
}

static void meta_look(struct vc_io *io, bool raw, bool use)
{
	uint64_t hash;
	struct vc_pool *pool;
	int r;

	if (engine_try_open(io, FUZZ_POOL, ENGINE_DESTAGE_NEVER, &pool) < 0)
		return;
	r = fuzz_look(pool, &hash);
	if (raw && r == 0)
		fuzz_check(hash == fuzz_base_get(FUZZ_BASE_DESTAGED)->look);
	if (use && fuzz_use(pool) == 0)
		r = fuzz_look(pool, &hash);
	r = vc_pool_close(pool);
	fuzz_check(r <= 0);
}

void fuzz_meta(const uint8_t *data, size_t len)
{
	static struct meta_edit e;
	struct fuzz_in in = { data, len };
	struct vc_sim *sim = fuzz_base_copy(FUZZ_BASE_DESTAGED);
	uint8_t how = fuzz_u8(&in);

	e = (struct meta_edit){ .in = &in };
	if (how & 1)
		meta_edit_raw(&e, vc_sim_io(sim));
	else
		meta_edit_valid(&e, vc_sim_io(sim));
	if (how & 2)
		meta_check(vc_sim_io(sim));
	meta_look(vc_sim_io(sim), how & 1, how & 4);
	vc_sim_free(sim);
}
