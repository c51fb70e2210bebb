/* SPDX-License-Identifier: BSD-2-Clause */
/* catalog: the table of inode objects, and the application of rows to it. */
#include "config.h"

#include "catalog.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "msg.h"

#define CATALOG_IDLE_MAX 65536

int vc_catalog_init(struct vc_catalog *cat, struct vc_pool *pool, struct vc_meta *meta, struct vc_bases *bases)
{
	memset(cat, 0, sizeof(*cat));
	cat->pool = pool;
	cat->meta = meta;
	cat->bases = bases;
	cat->idle_max = CATALOG_IDLE_MAX;
	vc_mutex_init(&cat->lock, VC_LOCK_CATALOG);
	vc_list_init(&cat->idle);
	cat->table_size = 256;
	cat->table = calloc(cat->table_size, sizeof(struct vc_inode *));
	return cat->table ? 0 : -ENOMEM;
}

static size_t catalog_hash(uint64_t ino, size_t size)
{
	return (size_t)(ino * UINT64_C(0x9e3779b97f4a7c15) >> 24) & (size - 1);
}

static void inode_free(struct vc_inode *inode)
{
	if (!inode)
		return;
	vc_overlay_put(inode->active);
	vc_base_put(inode->base);
	vc_xattrs_free(inode->xattrs);
	vc_dir_free(inode->dir);
	free(inode->target);
	vc_cond_fini(&inode->busy_cond);
	vc_mutex_fini(&inode->lock);
	free(inode);
}

void vc_catalog_fini(struct vc_catalog *cat)
{
	for (size_t i = 0; i < cat->table_size && cat->table; i++) {
		struct vc_inode *inode = cat->table[i];

		while (inode) {
			struct vc_inode *next = inode->hash_next;

			inode_free(inode);
			inode = next;
		}
	}
	free(cat->table);
	cat->table = NULL;
	vc_mutex_fini(&cat->lock);
}

static struct vc_inode *inode_new(struct vc_catalog *cat, uint64_t ino)
{
	struct vc_inode *inode = calloc(1, sizeof(*inode));

	if (!inode)
		return NULL;
	inode->cat = cat;
	inode->ino = ino;
	inode->refs = 1;
	vc_mutex_init(&inode->lock, VC_LOCK_VOLUME);
	vc_cond_init(&inode->busy_cond);
	vc_list_init(&inode->busy);
	vc_list_init(&inode->idle);
	return inode;
}

/* ---- the table; catalog lock held ---- */

static struct vc_inode *catalog_find_locked(struct vc_catalog *cat, uint64_t ino)
{
	struct vc_inode *inode = cat->table[catalog_hash(ino, cat->table_size)];

	while (inode && inode->ino != ino)
		inode = inode->hash_next;
	return inode;
}

static void catalog_grow_locked(struct vc_catalog *cat)
{
	size_t size = cat->table_size * 2;
	struct vc_inode **table;

	if (cat->ninodes < cat->table_size)
		return;
	table = calloc(size, sizeof(struct vc_inode *));
	if (!table)
		return; /* longer chains, nothing worse */
	for (size_t i = 0; i < cat->table_size; i++) {
		struct vc_inode *inode = cat->table[i];

		while (inode) {
			struct vc_inode *next = inode->hash_next;
			size_t to = catalog_hash(inode->ino, size);

			inode->hash_next = table[to];
			table[to] = inode;
			inode = next;
		}
	}
	free(cat->table);
	cat->table = table;
	cat->table_size = size;
}

static void catalog_insert_locked(struct vc_catalog *cat, struct vc_inode *inode)
{
	struct vc_inode **at;

	catalog_grow_locked(cat);
	at = &cat->table[catalog_hash(inode->ino, cat->table_size)];
	inode->hash_next = *at;
	*at = inode;
	cat->ninodes++;
}

static void catalog_remove_locked(struct vc_catalog *cat, struct vc_inode *inode)
{
	struct vc_inode **at = &cat->table[catalog_hash(inode->ino, cat->table_size)];

	while (*at != inode)
		at = &(*at)->hash_next;
	*at = inode->hash_next;
	cat->ninodes--;
}

static void catalog_not_idle_locked(struct vc_catalog *cat, struct vc_inode *inode)
{
	if (vc_list_empty(&inode->idle))
		return;
	vc_list_del(&inode->idle);
	cat->nidle--;
}

static struct vc_inode *catalog_take_locked(struct vc_catalog *cat, uint64_t ino)
{
	struct vc_inode *inode = catalog_find_locked(cat, ino);

	if (!inode)
		return NULL;
	inode->refs++;
	catalog_not_idle_locked(cat, inode);
	return inode;
}

static struct vc_inode *catalog_evict_locked(struct vc_catalog *cat)
{
	struct vc_inode *inode = vc_list_empty(&cat->idle) ? NULL : vc_list_entry(cat->idle.next, struct vc_inode, idle);

	if (inode) {
		catalog_not_idle_locked(cat, inode);
		catalog_remove_locked(cat, inode);
	}
	return inode;
}

/* ---- loading ---- */

static int catalog_load_image(struct vc_catalog *cat, struct vc_meta_txn *txn, struct vc_inode *inode)
{
	struct vc_disk_image image = { .height = vc_le32_of(0) };
	uint8_t key[9];
	const void *value;
	size_t len;
	int r = vc_meta_get(txn, VC_DB_CAT, key, vc_row_key_ino(key, VC_ROW_IMAGE, inode->ino), &value, &len);

	if (r == 0 && len != sizeof(image))
		r = -EUCLEAN;
	if (r == 0)
		memcpy(&image, value, sizeof(image));
	if (r == -ENOENT && inode->f.size)
		r = -EUCLEAN; /* what it held is not known: it must not read as zeros */
	if (r < 0 && r != -ENOENT)
		return r;
	if (vc_le64_get(image.root) > VC_NODE_ID_MAX || vc_le32_get(image.height) > VC_HEIGHT_MAX ||
	    (vc_le64_get(image.root) == 0) != (vc_le32_get(image.height) == 0))
		return -EUCLEAN;
	inode->tag = vc_le64_get(image.tag);
	inode->base = vc_base_new(cat->bases, (struct vc_root){ vc_le64_get(image.root), vc_le32_get(image.height) });
	if (inode->base)
		inode->base->content = vc_le64_get(image.content);
	return inode->base ? 0 : -ENOMEM;
}

static int catalog_load_target(struct vc_meta_txn *txn, struct vc_inode *inode)
{
	uint8_t key[9];
	const void *value;
	size_t len;
	int r = vc_meta_get(txn, VC_DB_CAT, key, vc_row_key_ino(key, VC_ROW_LINK, inode->ino), &value, &len);

	if (r == -ENOENT || (r == 0 && (len == 0 || len > VC_SYMLINK_MAX)))
		return -EUCLEAN;
	if (r < 0)
		return r;
	inode->target = strndup(value, len);
	return inode->target ? 0 : -ENOMEM;
}

static int catalog_load(struct vc_catalog *cat, struct vc_inode *inode)
{
	struct vc_meta_txn *txn;
	uint8_t key[9];
	const void *value;
	size_t len;
	int r = vc_meta_read_begin(cat->meta, &txn);

	if (r < 0)
		return r;
	r = vc_meta_get(txn, VC_DB_CAT, key, vc_row_key_ino(key, VC_ROW_INODE, inode->ino), &value, &len);
	if (r == 0)
		r = vc_row_to_inode(value, len, &inode->f);
	if (r == 0 && S_ISREG(inode->f.mode))
		r = catalog_load_image(cat, txn, inode);
	if (r == 0 && S_ISLNK(inode->f.mode))
		r = catalog_load_target(txn, inode);
	vc_meta_end(txn);
	if (r == 0)
		atomic_store(&inode->orphan, inode->f.nlink == 0);
	if (r == -EUCLEAN)
		vc_err("inode %llu: its rows in LMDB make no sense; run vclone check", (unsigned long long)inode->ino);
	return r;
}

void vc_catalog_loads_changed(struct vc_catalog *cat)
{
	vc_mutex_lock(&cat->lock);
	cat->loads++;
	vc_mutex_unlock(&cat->lock);
}

/* Insert a freshly loaded object, unless another thread was faster. NULL: what was loaded may be outdated, load again. */
static struct vc_inode *catalog_insert_loaded(struct vc_catalog *cat, struct vc_inode *mine, uint64_t loads)
{
	struct vc_inode *inode, *victim = NULL;

	vc_mutex_lock(&cat->lock);
	inode = catalog_take_locked(cat, mine->ino);
	if (!inode && cat->loads == loads) {
		catalog_insert_locked(cat, mine);
		inode = mine;
		if (cat->nidle > cat->idle_max)
			victim = catalog_evict_locked(cat);
	}
	vc_mutex_unlock(&cat->lock);
	inode_free(victim);
	if (inode != mine)
		inode_free(mine);
	return inode;
}

static int catalog_get(struct vc_catalog *cat, uint64_t ino, struct vc_inode **ret)
{
	for (;;) {
		struct vc_inode *inode, *mine;
		uint64_t loads;
		int r;

		vc_mutex_lock(&cat->lock);
		inode = catalog_take_locked(cat, ino);
		loads = cat->loads;
		vc_mutex_unlock(&cat->lock);
		if (!inode) {
			mine = inode_new(cat, ino);
			if (!mine)
				return -ENOMEM;
			r = catalog_load(cat, mine);
			if (r < 0) {
				inode_free(mine);
				return r;
			}
			inode = catalog_insert_loaded(cat, mine, loads);
		}
		if (inode) {
			*ret = inode;
			return 0;
		}
	}
}

int vc_catalog_get(struct vc_catalog *cat, uint64_t ino, struct vc_inode **ret)
{
	int r = catalog_get(cat, ino, ret);

	if (r == 0 && atomic_load(&(*ret)->gone)) {
		vc_catalog_put(cat, *ret);
		return -ENOENT;
	}
	return r;
}

void vc_catalog_hold(struct vc_catalog *cat, struct vc_inode *inode)
{
	vc_mutex_lock(&cat->lock);
	inode->refs++;
	vc_mutex_unlock(&cat->lock);
}

/* Nobody has any use for it: a deleted object is taken out to be freed, any other kept for a while. */
static struct vc_inode *catalog_unused_locked(struct vc_catalog *cat, struct vc_inode *inode)
{
	if (inode->refs || inode->known || inode->pins)
		return NULL;
	if (atomic_load(&inode->gone)) {
		catalog_remove_locked(cat, inode);
		return inode;
	}
	if (inode->dir) /* a directory that was looked into stays: its entries are the expensive part */
		return NULL;
	vc_list_add_tail(&cat->idle, &inode->idle);
	cat->nidle++;
	return cat->nidle > cat->idle_max ? catalog_evict_locked(cat) : NULL;
}

/* An orphan without users is reported, whether a slice still holds it or not: its deletion is one more change. */
static void catalog_drop(struct vc_catalog *cat, struct vc_inode *inode, uint64_t refs, uint64_t known)
{
	struct vc_inode *victim;
	uint64_t orphan = 0;

	vc_mutex_lock(&cat->lock);
	inode->known -= VC_MIN(known, inode->known);
	inode->refs -= refs;
	if (inode->refs == 0 && inode->known == 0 && atomic_load(&inode->orphan) && !atomic_load(&inode->gone))
		orphan = inode->ino;
	victim = catalog_unused_locked(cat, inode);
	vc_mutex_unlock(&cat->lock);
	inode_free(victim);
	if (orphan && cat->orphaned)
		cat->orphaned(cat->pool, orphan);
}

void vc_catalog_pin(struct vc_catalog *cat, struct vc_inode *inode)
{
	vc_mutex_lock(&cat->lock);
	inode->pins++;
	catalog_not_idle_locked(cat, inode);
	vc_mutex_unlock(&cat->lock);
}

void vc_catalog_unpin(struct vc_catalog *cat, struct vc_inode *inode)
{
	struct vc_inode *victim;

	vc_mutex_lock(&cat->lock);
	inode->pins--;
	victim = catalog_unused_locked(cat, inode);
	vc_mutex_unlock(&cat->lock);
	inode_free(victim);
}

void vc_catalog_put(struct vc_catalog *cat, struct vc_inode *inode)
{
	catalog_drop(cat, inode, 1, 0);
}

void vc_catalog_known(struct vc_catalog *cat, struct vc_inode *inode, int64_t change)
{
	if (change < 0) {
		catalog_drop(cat, inode, 0, (uint64_t)-change);
		return;
	}
	vc_mutex_lock(&cat->lock);
	inode->known += (uint64_t)change;
	vc_mutex_unlock(&cat->lock);
}

bool vc_catalog_in_use(struct vc_catalog *cat, struct vc_inode *inode, uint64_t mine)
{
	bool in_use;

	vc_mutex_lock(&cat->lock);
	in_use = inode->known > 0 || inode->refs > mine;
	vc_mutex_unlock(&cat->lock);
	return in_use;
}

uint64_t vc_catalog_new_ino(struct vc_catalog *cat) { return atomic_fetch_add(&cat->next_ino, 1); }
uint64_t vc_catalog_new_tag(struct vc_catalog *cat) { return atomic_fetch_add(&cat->next_tag, 1); }

/* ---- applying rows ---- */

/* An inode row for a number that does not exist yet makes the inode. */
static int apply_new_inode(struct vc_catalog *cat, uint64_t ino, const struct vc_inode_fields *f, struct vc_inode **ret)
{
	struct vc_inode *inode = inode_new(cat, ino);

	if (!inode)
		return -ENOMEM;
	inode->f = *f;
	if (S_ISREG(f->mode)) {
		inode->base = vc_base_new(cat->bases, (struct vc_root){ 0, 0 });
		inode->tag = vc_catalog_new_tag(cat);
	}
	if ((S_ISREG(f->mode) && !inode->base) || (S_ISDIR(f->mode) && vc_dir_load(cat, inode) < 0)) {
		inode_free(inode);
		return -ENOMEM;
	}
	vc_mutex_lock(&cat->lock);
	catalog_insert_locked(cat, inode);
	vc_mutex_unlock(&cat->lock);
	*ret = inode;
	return 0;
}

static void apply_counter(atomic_ulong *counter, uint64_t seen)
{
	unsigned long now = atomic_load(counter);

	while (now <= seen && !atomic_compare_exchange_weak(counter, &now, seen + 1))
		;
}

/* The caller holds the inode's lock when it exists already; a new one nobody else knows yet, so nobody can contend for it. */
VC_NO_ANALYSIS
static int apply_inode_put(struct vc_catalog *cat, struct vc_slice *slice, uint64_t ino, const void *value, size_t len)
{
	struct vc_inode_fields f;
	struct vc_inode *inode;
	bool made = false;
	int r = vc_row_to_inode(value, len, &f);

	if (r < 0)
		return r;
	r = catalog_get(cat, ino, &inode);
	if (r == -ENOENT) {
		apply_counter(&cat->next_ino, ino);
		r = apply_new_inode(cat, ino, &f, &inode);
		made = r == 0;
	}
	if (r < 0)
		return r;
	if (made)
		vc_mutex_lock_also(&inode->lock);
	vc_inode_touch_locked(inode, slice);
	inode->f = f;
	atomic_store(&inode->orphan, f.nlink == 0);
	if (made)
		vc_mutex_unlock(&inode->lock);
	vc_catalog_put(cat, inode);
	return 0;
}

static int apply_inode_del(struct vc_catalog *cat, struct vc_slice *slice, uint64_t ino)
{
	struct vc_inode *inode;
	int r = catalog_get(cat, ino, &inode);

	if (r < 0)
		return r;
	vc_inode_touch_locked(inode, slice);
	atomic_store(&inode->gone, true);
	vc_catalog_put(cat, inode);
	return 0;
}

static int apply_dirent(struct vc_catalog *cat, struct vc_slice *slice, uint64_t parent, const char *name, size_t name_len,
			const void *value, size_t len)
{
	struct vc_disk_dirent d;
	struct vc_inode *dir;
	int r = catalog_get(cat, parent, &dir);

	(void)slice;
	if (r < 0)
		return r;
	r = S_ISDIR(dir->f.mode) ? vc_dir_load(cat, dir) : -EUCLEAN;
	if (r == 0 && value && len != sizeof(d))
		r = -EUCLEAN;
	if (r == 0 && value) {
		memcpy(&d, value, sizeof(d));
		r = vc_dir_put(dir, name, name_len, &d);
	} else if (r == 0) {
		vc_dir_del(dir, name, name_len);
	}
	vc_catalog_put(cat, dir);
	return r;
}

static int apply_of_inode(struct vc_catalog *cat, struct vc_slice *slice, enum vc_row_kind kind, uint64_t ino,
			  const char *name, size_t name_len, const void *value, size_t len)
{
	struct vc_inode *inode;
	int r = catalog_get(cat, ino, &inode);

	if (r < 0)
		return r;
	vc_inode_touch_locked(inode, slice);
	if (kind == VC_ROW_LINK && value) {
		free(inode->target);
		inode->target = strndup(value, len);
		r = inode->target ? 0 : -ENOMEM;
	} else if (kind == VC_ROW_XATTR) {
		r = vc_xattrs_load(cat, inode);
		if (r == 0)
			r = vc_xattrs_apply(inode, name, name_len, value, len);
	}
	vc_catalog_put(cat, inode);
	return r;
}

int vc_catalog_apply_row(struct vc_catalog *cat, struct vc_slice *slice, const uint8_t *key, size_t key_len,
			 const uint8_t *value, size_t value_len)
{
	enum vc_row_kind kind = (enum vc_row_kind)key[0];
	const char *name = (const char *)key + 9;
	uint64_t ino;
	int r;

	if (key_len < 9)
		return -EUCLEAN;
	ino = vc_be64_at(key + 1);
	if ((kind == VC_ROW_DIRENT || kind == VC_ROW_XATTR) == (key_len == 9))
		return -EUCLEAN;
	if (kind == VC_ROW_INODE) /* its row is stored when the inode is settled */
		return value ? apply_inode_put(cat, slice, ino, value, value_len) : apply_inode_del(cat, slice, ino);
	if (kind == VC_ROW_DIRENT)
		r = apply_dirent(cat, slice, ino, name, key_len - 9, value, value_len);
	else if (kind == VC_ROW_LINK || kind == VC_ROW_XATTR || kind == VC_ROW_ORPHAN)
		r = apply_of_inode(cat, slice, kind, ino, name, key_len - 9, value, value_len);
	else
		return -EUCLEAN;
	return r < 0 ? r : vc_slice_put_row(slice, key, key_len, value, value_len);
}
