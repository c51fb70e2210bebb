/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * powerguest: runs in a machine that will lose its power, on a mounted pool; the ledger lies in a directory outside of that machine,
 * written through at once (hostfs). powercut-init calls it.
 *
 *   powerguest verify MOUNT LEDGER   compare what is there with the ledger; begin the next life in it
 *   powerguest load MOUNT LEDGER     write until the end, one thread a writer
 *   powerguest module FILE           load a module of the kernel
 *
 *   LEDGER/base             what the writers own at the beginning of this life (struct base)
 *   LEDGER/progress.L.W     life L, writer W: struct progress
 *   LEDGER/started.L        the writers of life L have begun
 *
 * Verified is that each writer's files are as after its first k operations of the last life, for one k between those acknowledged as durable
 * and those begun (D1, D2), which holds clones to what their source was when they were made (D3); a write that had not
 * returned may be there in part. VC_TEST_SEED decides all operations.
 */
#include "config.h"
#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include "util.h"
#include "vclonefs.h"
#include "writers.h"

#define BASE_MAGIC UINT64_C(0x31657361626376)
#define ISSUE_STEP 32

struct base {
	uint64_t magic, life;
	struct writer writers[WRITERS];
};

struct progress {
	uint64_t durable; /* so many operations must have survived */
	uint64_t issued;  /* no more may have begun */
};

struct thread {
	pthread_t id;
	struct writer w;
	struct progress progress;
	int fd, dir, ledger;
	uint8_t *buf;
};

static const char *mount_dir, *ledger_dir;

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	printf("powerguest: %s: %s\n", what, strerror(errno));
	fflush(stdout);
	exit(1);
}

static const char *path_of(char *buf, const char *dir, const char *name)
{
	snprintf(buf, PATH_MAX, "%s/%s", dir, name);
	return buf;
}

/* ---- the ledger ---- */

static bool read_file(const char *name, void *buf, size_t len)
{
	char path[PATH_MAX];
	int fd = open(path_of(path, ledger_dir, name), O_RDONLY | O_CLOEXEC);
	bool ok = fd >= 0 && read(fd, buf, len) == (ssize_t)len;

	if (fd >= 0)
		close(fd);
	return ok;
}

/* The name comes last, so a half-written base is never read. */
static void write_base(const struct base *base)
{
	char path[PATH_MAX], final[PATH_MAX];
	int fd = open(path_of(path, ledger_dir, "base.new"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	must(fd >= 0 && write(fd, base, sizeof(*base)) == (ssize_t)sizeof(*base) && fsync(fd) == 0, path);
	close(fd);
	must(rename(path, path_of(final, ledger_dir, "base")) == 0, final);
}

static void progress_name(char *buf, size_t len, const struct writer *w)
{
	snprintf(buf, len, "progress.%" PRIu64 ".%u", w->life, w->number);
}

static void write_progress(struct thread *t)
{
	must(pwrite(t->ledger, &t->progress, sizeof(t->progress), 0) == (ssize_t)sizeof(t->progress), "the ledger");
}

static void load_base(struct base *base)
{
	if (read_file("base", base, sizeof(*base))) {
		must(base->magic == BASE_MAGIC, "base");
		return;
	}
	memset(base, 0, sizeof(*base));
	base->magic = BASE_MAGIC;
	for (uint32_t i = 0; i < WRITERS; i++)
		writer_init(&base->writers[i], i);
}

static uint64_t seed(void)
{
	const char *text = getenv("VC_TEST_SEED");

	must(text, "VC_TEST_SEED");
	return strtoull(text, NULL, 0);
}

/* ---- what is there ---- */

static void read_image(struct image *ret, const char *name)
{
	uint8_t unit[UNIT_SIZE];
	char path[PATH_MAX];
	int fd = open(path_of(path, mount_dir, name), O_RDONLY | O_CLOEXEC);
	struct stat st;

	must(fd >= 0 && fstat(fd, &st) == 0, path);
	must(st.st_size % UNIT_SIZE == 0 && st.st_size / UNIT_SIZE <= WRITER_UNITS && strlen(name) < WRITER_NAME, "an image that nobody made");
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	ret->units = (uint32_t)(st.st_size / UNIT_SIZE);
	for (uint32_t i = 0; i < ret->units; i++) {
		must(pread(fd, unit, UNIT_SIZE, (off_t)i * UNIT_SIZE) == UNIT_SIZE, path);
		if (!unit_token(unit, i, &ret->tokens[i])) {
			printf("%s: the bytes of unit %u are nobody's\n", name, i);
			ret->tokens[i] = UINT64_MAX;
		}
	}
	close(fd);
}

static void find_files(struct writer *found)
{
	DIR *dir = opendir(mount_dir);
	size_t len = strlen(found->image.name);

	must(dir, mount_dir);
	for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
		if (strncmp(e->d_name, found->image.name, len) != 0)
			continue;
		if (e->d_name[len] == '\0') {
			read_image(&found->image, e->d_name);
		} else {
			must(found->nclones < WRITER_CLONES, "more clones than were made");
			read_image(&found->clones[found->nclones++], e->d_name);
		}
	}
	closedir(dir);
}

/* A beginning of the write that comes next. */
static bool part_is_there(const struct writer *w, const struct op *op, const struct writer *found)
{
	struct writer part;
	struct op piece = *op;

	if (op->kind != OP_WRITE && op->kind != OP_WRITE_DURABLE)
		return false;
	for (piece.n = 1; piece.n < op->n; piece.n++) {
		part = *w;
		writer_apply(&part, &piece);
		if (writer_same(&part, found))
			return true;
	}
	return false;
}

static bool verify_writer(struct writer *w, const struct progress *p, const struct writer *found)
{
	struct writer durable = *w;
	struct op op;

	for (;;) {
		if (w->done == p->durable)
			durable = *w;
		if (w->done >= p->durable && writer_same(w, found))
			return true;
		if (w->done >= p->issued)
			break;
		writer_next(w, &op);
		if (w->done >= p->durable && part_is_there(w, &op, found))
			return true;
		writer_apply(w, &op);
	}
	printf("writer %u: no state between operation %" PRIu64 " and %" PRIu64 " of life %" PRIu64 "; against the former:\n", w->number,
	       p->durable, p->issued, w->life);
	writer_explain(&durable, found);
	return false;
}

static bool verify_all(struct base *base)
{
	uint64_t durable = 0, kept = 0;
	bool ok = true;

	for (uint32_t i = 0; i < WRITERS; i++) {
		struct writer *w = &base->writers[i], found;
		struct progress p = { 0, 0 };
		char name[64];

		progress_name(name, sizeof(name), w);
		read_file(name, &p, sizeof(p));
		writer_init(&found, i);
		find_files(&found);
		ok = verify_writer(w, &p, &found) && ok;
		durable += p.durable;
		kept += w->done;
		*w = found;
	}
	printf("life %" PRIu64 ": %" PRIu64 " operations had to survive, %" PRIu64 " did\n", base->life, durable, kept);
	return ok;
}

static int verify(void)
{
	static struct base base;

	load_base(&base);
	if (!verify_all(&base))
		return 1;
	base.life++;
	for (uint32_t i = 0; i < WRITERS; i++)
		writer_begin(&base.writers[i], seed(), base.life);
	write_base(&base);
	return 0;
}

/* ---- load ---- */

static void do_write(struct thread *t, const struct op *op)
{
	struct iovec iov = { t->buf, (size_t)op->n * UNIT_SIZE };

	for (uint32_t i = 0; i < op->n; i++)
		unit_fill(t->buf + (size_t)i * UNIT_SIZE, op->token, op->start + i);
	must(pwritev2(t->fd, &iov, 1, (off_t)op->start * UNIT_SIZE, op->kind == OP_WRITE_DURABLE ? RWF_DSYNC : 0) == (ssize_t)iov.iov_len,
	     "write");
}

static void do_clone(struct thread *t, const struct op *op)
{
	struct vclonefs_clone a = { .size = sizeof(a) };

	snprintf(a.src, sizeof(a.src), "%s", t->w.image.name);
	snprintf(a.dst, sizeof(a.dst), "%s", op->name);
	must(ioctl(t->dir, VCLONEFS_IOC_CLONE, &a) == 0, "clone");
}

static void do_op(struct thread *t, const struct op *op)
{
	switch (op->kind) {
	case OP_WRITE:
	case OP_WRITE_DURABLE: do_write(t, op); break;
	case OP_FLUSH: must(fdatasync(t->fd) == 0, "flush"); break;
	case OP_PUNCH:
		must(fallocate(t->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)op->start * UNIT_SIZE, (off_t)op->n * UNIT_SIZE) == 0,
		     "punch a hole");
		break;
	case OP_RESIZE: must(ftruncate(t->fd, (off_t)op->n * UNIT_SIZE) == 0, "resize"); break;
	case OP_CLONE: do_clone(t, op); break;
	case OP_DELETE: must(unlinkat(t->dir, op->name, 0) == 0, "delete"); break;
	}
}

static void *thread_run(void *arg)
{
	struct thread *t = arg;
	struct op op;

	for (;;) {
		if (t->w.done >= t->progress.issued) {
			t->progress.issued = t->w.done + ISSUE_STEP;
			write_progress(t);
		}
		writer_next(&t->w, &op);
		do_op(t, &op);
		writer_apply(&t->w, &op);
		if (!op_is_durable(&op))
			continue;
		t->progress.durable = t->w.done;
		write_progress(t);
	}
	return NULL;
}

/* Every other writer goes around the page cache. */
static void thread_start(struct thread *t, const struct writer *w)
{
	int flags = O_RDWR | O_CREAT | O_CLOEXEC | (w->number % 2 ? O_DIRECT : 0);
	char path[PATH_MAX], name[64];

	t->w = *w;
	t->buf = aligned_alloc(UNIT_SIZE, (size_t)WRITER_UNITS * UNIT_SIZE);
	t->fd = open(path_of(path, mount_dir, w->image.name), flags, 0600);
	must(t->buf && t->fd >= 0, path);
	t->dir = open(mount_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(t->dir >= 0, mount_dir);
	progress_name(name, sizeof(name), w);
	t->ledger = open(path_of(path, ledger_dir, name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	must(t->ledger >= 0, path);
	must(pthread_create(&t->id, NULL, thread_run, t) == 0, "thread");
}

static int load(void)
{
	static struct thread threads[WRITERS];
	static struct base base;
	char path[PATH_MAX], name[64];

	load_base(&base);
	for (uint32_t i = 0; i < WRITERS; i++)
		thread_start(&threads[i], &base.writers[i]);
	snprintf(name, sizeof(name), "started.%" PRIu64, base.life);
	must(open(path_of(path, ledger_dir, name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600) >= 0, path);
	for (uint32_t i = 0; i < WRITERS; i++)
		pthread_join(threads[i].id, NULL);
	return 0;
}

static int load_module(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	must(fd >= 0 && syscall(SYS_finit_module, fd, "", 0) == 0, path);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "module") == 0)
		return load_module(argv[2]);
	if (argc != 4 || (strcmp(argv[1], "verify") != 0 && strcmp(argv[1], "load") != 0)) {
		fputs("usage: powerguest verify|load MOUNT LEDGER, or module FILE\n", stderr);
		return 2;
	}
	mount_dir = argv[2];
	ledger_dir = argv[3];
	return strcmp(argv[1], "load") == 0 ? load() : verify();
}
