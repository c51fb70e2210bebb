/* SPDX-License-Identifier: BSD-2-Clause */
/* meta_stats: figures of the store. */
#include "config.h"
#include "meta.h"

#include "meta_impl.h"

#define META_FREE_LIST_DBI 0 /* LMDB's own list of free pages: transaction -> count, page numbers */

struct figures {
	struct vc_meta_txn *txn;
	struct vc_meta_stats *ret;
	MDB_cursor *cursor;         /* closed after the guarded call, however that ends */
};

static int free_pages(struct figures *f, uint64_t *ret)
{
	MDB_val k, v;
	uint64_t n = 0;
	size_t count;
	int rc;

	rc = mdb_cursor_open(f->txn->txn, META_FREE_LIST_DBI, &f->cursor);
	if (rc)
		return rc;
	while (!(rc = mdb_cursor_get(f->cursor, &k, &v, MDB_NEXT))) {
		if (v.mv_size < sizeof(count))
			continue;
		memcpy(&count, v.mv_data, sizeof(count));
		n += count;
	}
	*ret = n;
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static int call_figures(void *ctx)
{
	struct figures *f = ctx;
	struct vc_meta *meta = f->txn->meta;
	MDB_stat node, cat;
	MDB_envinfo info;
	uint64_t nfree = 0;
	int rc;

	rc = mdb_env_info(meta->env, &info);
	if (!rc)
		rc = mdb_stat(f->txn->txn, meta->dbi[VC_DB_NODE], &node);
	if (!rc)
		rc = mdb_stat(f->txn->txn, meta->dbi[VC_DB_CAT], &cat);
	if (!rc)
		rc = free_pages(f, &nfree);
	if (rc)
		return rc;
	*f->ret = (struct vc_meta_stats){
		.file_bytes = ((uint64_t)info.me_last_pgno + 1) * node.ms_psize,
		.free_bytes = nfree * node.ms_psize,
		.nodes = node.ms_entries,
		.rows = cat.ms_entries,
	};
	return 0;
}

int vc_meta_stats(struct vc_meta *meta, struct vc_meta_stats *ret)
{
	struct figures f = { .ret = ret };
	int r = vc_meta_read_begin(meta, &f.txn);

	if (r < 0)
		return r;
	r = vc_meta_guard(meta, "figures", call_figures, &f);
	if (f.cursor)
		mdb_cursor_close(f.cursor);
	vc_meta_end(f.txn);
	return r ? vc_meta_failed(meta->path, "figures", r) : 0;
}
