/* SPDX-License-Identifier: BSD-2-Clause */
/* corrupt_judge: opens a damaged pool, reads all of it, and says whether that was right, refused, failed or wrong. */
#include "config.h"
#include "unit.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "check.h"
#include "corrupt.h"
#include "engine.h"
#include "format.h"
#include "msg.h"

#define READ_STEP 65536u
#define READ_WHOLE (UINT64_C(32) << 20)
#define SEEKS_MAX 200
#define CHANGES 6
#define CHANGE_MAX 100000u
#define SHOWN_MAX 4000u  /* bytes of messages printed for a wrong case */

/* Of a pool with much damage there are many messages, and the one a read is asked for may be the first of them: all are kept. */
static struct {
	char text[8 << 20];
	size_t len;
	unsigned count;
} said;

static void judge_sink(void *ctx VC_UNUSED, enum vc_msg_level level VC_UNUSED, const char *line)
{
	said.count++;
	if (getenv("VC_TEST_MESSAGES"))
		fprintf(stderr, "    %s\n", line);
	if (said.len + strlen(line) + 2 > sizeof(said.text)) {
		fprintf(stderr, "more messages than the test keeps\n");
		abort();
	}
	said.len += (size_t)sprintf(said.text + said.len, "%s\n", line);
}

static bool is_damage(int r) { return r == -EIO || r == -EBADMSG || r == -EUCLEAN; }

/* One look at a pool, compared with what it may hold. */
struct look {
	struct vc_pool *pool;
	const struct model *want;
	uint64_t errors;       /* reads that failed */
	char wrong[300];       /* the first thing that is not as it should be */
};

static bool look_wrong(struct look *l, const struct model_name *e, const char *what, uint64_t at, int64_t is)
{
	if (!l->wrong[0])
		snprintf(l->wrong, sizeof(l->wrong), "%u/%s: %s at %llu (%lld)", e->dir, e->name, what, (unsigned long long)at, (long long)is);
	return false;
}

/* Failed: counted when the failure is one that damage may cause. */
static bool look_failed(struct look *l, const struct model_name *e, const char *what, uint64_t at, int r)
{
	if (!is_damage(r))
		return look_wrong(l, e, what, at, r);
	l->errors++;
	if (said.count == 0)
		return look_wrong(l, e, "failed without a message", at, r);
	return true;
}

static bool look_range(struct look *l, const struct model_name *e, struct vc_inode *inode, uint64_t from, uint64_t to)
{
	static uint8_t got[READ_STEP], want[READ_STEP];
	bool ok = true;

	for (; from < to && ok; from += READ_STEP) {
		size_t len = (size_t)VC_MIN(to - from, (uint64_t)READ_STEP);
		ssize_t n = from / READ_STEP % 2 ? vc_volume_read(inode, got, len, from) : engine_read_by_blocks(inode, got, len, from);
		char name[64];

		if (n < 0) {
			snprintf(name, sizeof(name), "image %llu, offset", (unsigned long long)e->file->ino);
			ok = look_failed(l, e, "read", from, (int)n);
			if (ok && e->file->ino && !strstr(said.text, name))
				ok = look_wrong(l, e, "no message names the image", from, n);
			continue;
		}
		model_read(&e->file->data, want, len, from);
		if ((size_t)n != len || memcmp(got, want, len) != 0)
			ok = look_wrong(l, e, "wrong bytes", from, n);
	}
	return ok;
}

/* Images too large to be read: what the model has, and what the pool says it has. */
static bool look_parts(struct look *l, const struct model_name *e, struct vc_inode *inode)
{
	const struct model_data *d = &e->file->data;
	uint64_t at = 0;
	bool ok = true;
	int r = 0;

	for (size_t i = 0; i < d->n && ok; i++)
		ok = look_range(l, e, inode, d->parts[i].index * MODEL_PAGE, VC_MIN((d->parts[i].index + 1) * MODEL_PAGE, d->size));
	for (unsigned i = 0; i < SEEKS_MAX && ok && r == 0; i++) {
		r = vc_volume_seek(inode, at, SEEK_DATA, &at);
		if (r == 0)
			ok = look_range(l, e, inode, at, VC_MIN(at + READ_STEP, d->size));
		if (r == 0)
			r = vc_volume_seek(inode, at, SEEK_HOLE, &at);
	}
	return ok && (r == 0 || r == -ENXIO || look_failed(l, e, "seek", at, r));
}

static bool look_texts(struct look *l, const struct model_name *e, struct vc_inode *inode)
{
	char text[MODEL_TEXT] = "";

	if (S_ISLNK(e->file->mode)) {
		int r = vc_names_readlink(inode, text, sizeof(text));

		if (r >= 0 && strcmp(text, e->file->target) != 0)
			return look_wrong(l, e, "target", 0, 0);
		if (r < 0 && !look_failed(l, e, "readlink", 0, r))
			return false;
	}
	for (int i = 0; i < MODEL_XATTRS; i++) {
		char name[24];
		ssize_t n;

		snprintf(name, sizeof(name), "user.%d", i);
		memset(text, 0, sizeof(text));
		n = vc_xattr_get(inode, name, text, sizeof(text));
		if (n < 0 && n != -ENODATA) {
			if (!look_failed(l, e, "xattr", (uint64_t)i, (int)n))
				return false;
		} else if (strcmp(text, e->file->xattrs[i]) != 0) {
			return look_wrong(l, e, "xattr differs", (uint64_t)i, n);
		}
	}
	return true;
}

static bool look_file(struct look *l, const struct model_name *e, struct vc_inode *inode)
{
	const struct model_file *f = e->file;
	struct vc_attr attr;

	vc_inode_attr(inode, &attr);
	if (attr.mode != f->mode || attr.uid != f->uid || attr.gid != f->gid || (!S_ISDIR(f->mode) && attr.nlink != f->nlink))
		return look_wrong(l, e, "attributes", attr.mode, attr.nlink);
	if (!look_texts(l, e, inode))
		return false;
	if (!S_ISREG(f->mode))
		return true;
	if (attr.size != f->data.size)
		return look_wrong(l, e, "size", attr.size, (int64_t)f->data.size);
	if (attr.size > READ_WHOLE)
		return look_parts(l, e, inode);
	return look_range(l, e, inode, 0, attr.size);
}

struct listing {
	struct look *l;
	unsigned dir, n;
};

static int look_entry(void *ctx, const struct vc_dirent *entry)
{
	struct listing *list = ctx;
	struct model_name e = { .dir = list->dir };
	bool known = false;

	if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
		return 0;
	for (size_t i = 0; i < list->l->want->n; i++)
		known |= list->l->want->names[i].dir == list->dir && strcmp(list->l->want->names[i].name, entry->name) == 0;
	snprintf(e.name, sizeof(e.name), "%.30s", entry->name);
	list->n += known;
	if (!known)
		look_wrong(list->l, &e, "should not be there", 0, 0);
	return 0;
}

static bool look_dir(struct look *l, struct vc_inode *dir, unsigned dirno)
{
	struct listing list = { l, dirno, 0 };
	struct model_name self = { .dir = dirno, .name = "." };
	unsigned names = 0;
	int r = vc_names_readdir(dir, 0, look_entry, &list);

	if (l->wrong[0] || (r < 0 && !look_failed(l, &self, "readdir", 0, r)))
		return false;
	for (size_t i = 0; i < l->want->n; i++) {
		const struct model_name *e = &l->want->names[i];
		struct vc_inode *inode;
		bool ok;

		if (e->dir != dirno)
			continue;
		names++;
		r = vc_names_lookup(dir, e->name, &inode);
		if (r < 0) {
			if (!look_failed(l, e, "lookup", 0, r))
				return false;
			continue;
		}
		e->file->ino = vc_inode_ino(inode);
		ok = look_file(l, e, inode);
		vc_inode_put(inode);
		if (!ok)
			return false;
	}
	return r < 0 || list.n == names || list.n == 0 || look_wrong(l, &self, "entries are missing", list.n, names);
}

static bool look_at(struct look *l)
{
	const struct model_name root_name = { .dir = 0, .name = "." };
	struct vc_inode *root, *sub;
	bool ok;
	int r = vc_inode_get(l->pool, VC_ROOT_INO, &root);

	if (r < 0)
		return look_failed(l, &root_name, "root", 0, r);
	ok = look_dir(l, root, 0);
	r = ok ? vc_names_lookup(root, "sub", &sub) : -EIO;
	vc_inode_put(root);
	if (r == 0) {
		ok = look_dir(l, sub, 1);
		vc_inode_put(sub);
	}
	return ok && (r == 0 || look_failed(l, &root_name, "sub", 0, r));
}

/* ---- which state is it? ---- */

struct judge {
	const struct corrupt_base *base;
	const struct corrupt_case *c;
	struct look look;
	size_t state;          /* in the history */
};

static enum corrupt_outcome judge_wrong(const struct judge *j, const char *what)
{
	size_t from = said.len > SHOWN_MAX ? said.len - SHOWN_MAX : 0;

	fprintf(stderr, "%s: %s\n  %u messages, the last: %s\n", j->c->text, what, said.count, said.text + from);
	return CORRUPT_WRONG;
}

static bool judge_state(struct judge *j, size_t state)
{
	struct vc_pool *pool = j->look.pool;

	j->state = state;
	j->look = (struct look){ .pool = pool, .want = &j->base->history[state] };
	return look_at(&j->look);
}

static enum corrupt_outcome judge_content(struct judge *j)
{
	size_t last = j->base->nhistory - 1, loose = j->base->abandoned ? CORRUPT_LOOSE + 1 : 0;
	char wrong[sizeof(j->look.wrong)];

	if (judge_state(j, last))
		return j->look.errors ? CORRUPT_ERRORS : CORRUPT_EXACT;
	memcpy(wrong, j->look.wrong, sizeof(wrong));
	for (size_t i = 1; i <= last && (i <= loose || j->c->older_log); i++)
		if (judge_state(j, last - i))
			return i <= loose ? CORRUPT_SHORTER : CORRUPT_OLDER;
	return judge_wrong(j, wrong);
}

/* ---- going on ---- */

static struct model_name *judge_pick_image(struct judge *j, uint64_t *rng)
{
	const struct model *m = &j->base->history[j->state];
	struct model_name *e = m->n ? (struct model_name *)(uintptr_t)&m->names[vc_unit_below(rng, m->n)] : NULL;

	return e && S_ISREG(e->file->mode) && e->file->data.size < READ_WHOLE ? e : NULL;
}

/* A write that succeeded is there; of one that failed nobody knows, so it ends the changes. */
static int judge_write(struct judge *j, uint64_t *rng)
{
	static uint8_t buf[CHANGE_MAX];
	struct model_name *e = judge_pick_image(j, rng);
	size_t len = 1 + vc_unit_below(rng, CHANGE_MAX);
	struct vc_inode *root, *dir = NULL, *inode = NULL;
	uint64_t offset;
	int r;

	if (!e)
		return 0;
	offset = vc_unit_below(rng, e->file->data.size + 10000);
	memset(buf, (int)vc_unit_below(rng, 256), len);
	r = vc_inode_get(j->look.pool, VC_ROOT_INO, &root);
	if (r < 0)
		return r;
	if (e->dir)
		r = vc_names_lookup(root, "sub", &dir);
	if (r == 0)
		r = vc_names_lookup(dir ? dir : root, e->name, &inode);
	if (r == 0)
		r = engine_write(inode, buf, len, offset, vc_unit_below(rng, 3) ? 0 : VC_WRITE_DSYNC);
	if (r == 0)
		model_write(&e->file->data, buf, len, offset);
	if (inode)
		vc_inode_put(inode);
	if (dir)
		vc_inode_put(dir);
	vc_inode_put(root);
	return r;
}

static enum corrupt_outcome judge_changes(struct judge *j, enum corrupt_outcome outcome, uint64_t *rng)
{
	int r = 0;

	for (unsigned i = 0; i < CHANGES && r == 0; i++) {
		r = judge_write(j, rng);
		if (r == 0 && vc_unit_below(rng, 3) == 0)
			r = engine_task(j->look.pool, VC_TASK_DESTAGE);
		if (r == 0 && vc_unit_below(rng, 8) == 0)
			r = engine_task(j->look.pool, VC_TASK_CLEAN);
	}
	if (r < 0 && said.count == 0)
		return judge_wrong(j, "a change failed without a message");
	if (r < 0 && !is_damage(r) && r != -EROFS)
		fprintf(stderr, "%s: a change failed: error %d\n", j->c->text, -r);
	if (r < 0)
		return outcome; /* how far it came is nobody's promise */
	if (!judge_state(j, j->state))
		return judge_wrong(j, j->look.wrong);
	return j->look.errors ? CORRUPT_ERRORS : outcome;
}

/* ---- the check ---- */

static void judge_found(void *ctx VC_UNUSED, const char *text VC_UNUSED) { }

/* When reading met damage, the check has to find some. */
static enum corrupt_outcome judge_check(struct judge *j, enum corrupt_outcome outcome)
{
	struct vc_check_options options = { .data = true, .log = true, .found = judge_found };
	struct vc_check_result result;
	int r = vc_check_pool(vc_io_posix(), j->base->dir, &options, &result);

	if ((outcome == CORRUPT_ERRORS || outcome == CORRUPT_REFUSED) && r == 0 && result.findings == 0)
		return judge_wrong(j, "the check finds nothing");
	return outcome;
}

static enum corrupt_outcome judge_refused(const struct judge *j, int r)
{
	bool named = strstr(said.text, j->base->dir) != NULL;

	if (!is_damage(r) && r != -ENOTSUP && r != -ENOENT)
		return judge_wrong(j, strerror(-r));
	return named ? CORRUPT_REFUSED : judge_wrong(j, "refused, and no message names a file");
}

enum corrupt_outcome corrupt_judge(const struct corrupt_base *base, const struct corrupt_case *c, bool change, uint64_t seed)
{
	struct vc_pool_options options = { .cache_bytes = 4 << 20, .node_cache_bytes = 4 << 20, .destage_ms = ENGINE_DESTAGE_NEVER,
					   .read_only = !change };
	struct judge j = { .base = base, .c = c };
	enum corrupt_outcome outcome;
	int r;

	said.len = 0;
	said.text[0] = '\0';
	said.count = 0;
	vc_msg_set_sink(judge_sink, NULL);
	r = vc_pool_open(vc_io_posix(), base->dir, &options, &j.look.pool);
	if (r < 0)
		return change ? judge_refused(&j, r) : judge_check(&j, judge_refused(&j, r));
	outcome = judge_content(&j);
	if (outcome != CORRUPT_WRONG && change)
		outcome = judge_changes(&j, outcome, &seed);
	if (vc_pool_close(j.look.pool) < 0 && said.count == 0)
		return judge_wrong(&j, "closing failed without a message");
	return change || outcome == CORRUPT_WRONG ? outcome : judge_check(&j, outcome);
}
