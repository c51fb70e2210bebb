/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the io table: one contract, run on the operating system and on the simulated file system; short and
 * interrupted transfers of io_posix (the linker wraps the system calls); and the two compared on random operations.
 */
#include "config.h"
#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io.h"
#include "io_sim.h"

/* ---- short and interrupted system calls ---- */

ssize_t __real_pwritev64(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __real_preadv64(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __real_pwrite64(int fd, const void *buf, size_t len, off_t offset);
ssize_t __real_pread64(int fd, void *buf, size_t len, off_t offset);
ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t offset);
ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t offset);

static struct {
	bool on;
	uint64_t seed;
	unsigned calls;
} disturb;

/* Bytes this call may move: all, or fewer; 0: it is interrupted. */
static size_t disturbed(size_t len)
{
	disturb.calls++;
	if (!disturb.on || len == 0)
		return len;
	return vc_unit_below(&disturb.seed, 4) == 0 ? 0 : 1 + vc_unit_below(&disturb.seed, VC_MIN(len, (size_t)700));
}

static size_t iov_len(const struct iovec *iov, int n)
{
	size_t len = 0;

	for (int i = 0; i < n; i++)
		len += iov[i].iov_len;
	return len;
}

/* The first `len` bytes of a vector, in `out`; returns the number of parts. */
static int iov_cut(const struct iovec *iov, size_t len, struct iovec *out)
{
	int n = 0;

	for (; len > 0; n++) {
		out[n] = iov[n];
		out[n].iov_len = VC_MIN(len, iov[n].iov_len);
		len -= out[n].iov_len;
	}
	return n;
}

ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int n, off_t offset)
{
	size_t len = iov_len(iov, n), some = disturbed(len);
	struct iovec cut[IOV_MAX];

	if (len && !some) {
		errno = EINTR;
		return -1;
	}
	return some == len ? __real_pwritev64(fd, iov, n, offset) :
			     __real_pwritev64(fd, cut, iov_cut(iov, some, cut), offset);
}

ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int n, off_t offset)
{
	size_t len = iov_len(iov, n), some = disturbed(len);
	struct iovec cut[IOV_MAX];

	if (len && !some) {
		errno = EINTR;
		return -1;
	}
	return some == len ? __real_preadv64(fd, iov, n, offset) :
			     __real_preadv64(fd, cut, iov_cut(iov, some, cut), offset);
}

ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t offset)
{
	size_t some = disturbed(len);

	if (len && !some) {
		errno = EINTR;
		return -1;
	}
	return __real_pwrite64(fd, buf, some, offset);
}

ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t offset)
{
	size_t some = disturbed(len);

	if (len && !some) {
		errno = EINTR;
		return -1;
	}
	return __real_pread64(fd, buf, some, offset);
}

/* ---- syncs, as the operating system is asked for them ---- */

int __real_fdatasync(int fd);
int __real_fsync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fsync(int fd);

static struct {
	unsigned data, whole; /* calls of fdatasync and fsync */
	ino_t ino;            /* of what the last one was for */
	int error;            /* of the next ones; 0: none */
} asked;

static int sync_asked(int fd, unsigned *calls, int (*sync)(int fd))
{
	struct stat st;

	++*calls;
	asked.ino = fstat(fd, &st) == 0 ? st.st_ino : 0;
	if (!asked.error)
		return sync(fd);
	errno = asked.error;
	return -1;
}

int __wrap_fdatasync(int fd) { return sync_asked(fd, &asked.data, __real_fdatasync); }
int __wrap_fsync(int fd) { return sync_asked(fd, &asked.whole, __real_fsync); }

/* ---- fixtures: the same table twice ---- */

struct fixture {
	struct vc_io *io;
	struct vc_sim *sim; /* NULL: posix */
	char *dir;
	char path[6][300];
};

static int setup(void **state, bool sim)
{
	struct fixture *fx = calloc(1, sizeof(*fx));

	if (!fx)
		return -1;
	fx->sim = sim ? vc_sim_new() : NULL;
	fx->io = sim ? vc_sim_io(fx->sim) : vc_io_posix();
	fx->dir = sim ? strdup("/dir") : vc_unit_tmpdir();
	assert_non_null(fx->dir);
	if (sim)
		assert_int_equal(vc_io_mkdir(fx->io, fx->dir), 0);
	for (size_t i = 0; i < VC_ARRAY_LEN(fx->path); i++)
		snprintf(fx->path[i], sizeof(fx->path[i]), "%s/%c", fx->dir, (char)('a' + i));
	vc_unit_catch_messages(true);
	disturb.on = false;
	*state = fx;
	return 0;
}

static int setup_posix(void **state)
{
	return setup(state, false);
}

static int setup_sim(void **state)
{
	return setup(state, true);
}

static int teardown(void **state)
{
	struct fixture *fx = *state;

	vc_unit_catch_messages(false);
	if (fx->sim)
		free(fx->dir);
	else
		vc_unit_rmdir(fx->dir);
	vc_sim_free(fx->sim);
	free(fx);
	return 0;
}

static struct vc_file *make(struct fixture *fx, int i)
{
	struct vc_file *f;

	assert_int_equal(vc_io_open(fx->io, fx->path[i], VC_IO_WRITE | VC_IO_CREATE, &f), 0);
	return f;
}

static void fill(uint8_t *buf, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)vc_unit_random(&seed);
}

/* ---- the contract ---- */

static void test_open(void **state)
{
	struct fixture *fx = *state;
	struct vc_file *f, *g;
	char byte = 'x';

	assert_int_equal(vc_io_open(fx->io, fx->path[0], VC_IO_READ, &f), -ENOENT);
	assert_int_equal(vc_io_open(fx->io, fx->path[0], VC_IO_WRITE | VC_IO_CREATE | VC_IO_EXCL, &f), 0);
	assert_int_equal(vc_io_open(fx->io, fx->path[0], VC_IO_WRITE | VC_IO_CREATE | VC_IO_EXCL, &g), -EEXIST);
	assert_int_equal(vc_unit_messages(), 0); /* expected errors are silent */
	assert_int_equal(vc_io_open(fx->io, fx->path[0], VC_IO_WRITE | VC_IO_CREATE, &g), 0);
	vc_io_close(g);
	assert_int_equal(vc_io_open(fx->io, fx->path[0], VC_IO_READ, &g), 0);
	assert_int_equal(vc_io_pwrite(g, &byte, 1, 7), -EBADF);
	assert_int_equal(vc_unit_messages(), 1);
	assert_non_null(strstr(vc_unit_last_message(), fx->path[0])); /* names the file */
	vc_io_close(g);
	vc_io_close(f);
	vc_io_close(NULL);
	assert_int_equal(vc_io_open(fx->io, fx->dir, VC_IO_WRITE, &f), -EISDIR);
	assert_int_equal(vc_unit_messages(), 2);
}

static void test_read_write(void **state)
{
	struct fixture *fx = *state;
	struct vc_file *f = make(fx, 0);
	uint8_t out[10000], in[10000];
	struct iovec iov[4] = { { out, 3 }, { out + 3, 0 }, { out + 3, 5000 }, { out + 5003, 4997 } };
	uint64_t size;

	fill(out, sizeof(out), 1);
	assert_int_equal(vc_io_pread(f, in, 10, 0), 0);
	assert_int_equal(vc_io_pwritev(f, iov, 4, 100), 0);
	assert_int_equal(vc_io_size(f, &size), 0);
	assert_int_equal(size, 10100);
	assert_int_equal(vc_io_pread(f, in, 200, 0), 200);
	assert_true(vc_is_zero(in, 100));
	assert_memory_equal(in + 100, out, 100);
	assert_int_equal(vc_io_pread(f, in, sizeof(in), 5000), 5100); /* short only at the end */
	assert_memory_equal(in, out + 4900, 5100);
	assert_int_equal(vc_io_pread(f, in, 1, 10100), 0);
	assert_int_equal(vc_io_pread(f, in, 1, UINT64_C(1) << 40), 0);
	for (int i = 0; i < 4; i++)
		iov[i].iov_base = in + ((uint8_t *)iov[i].iov_base - out);
	assert_int_equal(vc_io_preadv(f, iov, 4, 100), 10000);
	assert_memory_equal(in, out, sizeof(in));
	assert_int_equal(vc_io_pwritev(f, iov, 0, 0), 0);
	assert_int_equal(vc_io_datasync(f), 0);
	vc_io_start_writeback(f, 0, 4096);
	vc_io_close(f);
	assert_int_equal(vc_unit_messages(), 0);
}

static void test_long_vectors(void **state)
{
	enum { PARTS = IOV_MAX * 2 + 77 };
	struct fixture *fx = *state;
	struct vc_file *f = make(fx, 0);
	static uint8_t out[PARTS * 3], in[PARTS * 3];
	static struct iovec iov[PARTS];

	fill(out, sizeof(out), 2);
	for (int i = 0; i < PARTS; i++)
		iov[i] = (struct iovec){ out + i * 3, 3 };
	assert_int_equal(vc_io_pwritev(f, iov, PARTS, 11), 0);
	for (int i = 0; i < PARTS; i++)
		iov[i].iov_base = in + i * 3;
	assert_int_equal(vc_io_preadv(f, iov, PARTS, 11), sizeof(in));
	assert_memory_equal(in, out, sizeof(in));
	vc_io_close(f);
}

static void test_truncate_allocate(void **state)
{
	struct fixture *fx = *state;
	struct vc_file *f = make(fx, 0);
	uint8_t buf[100], in[100];
	uint64_t size;
	int r;

	memset(buf, 7, sizeof(buf));
	assert_int_equal(vc_io_pwrite(f, buf, 100, 0), 0);
	assert_int_equal(vc_io_truncate(f, 50), 0);
	assert_int_equal(vc_io_truncate(f, 100), 0);
	assert_int_equal(vc_io_pread(f, in, 100, 0), 100);
	assert_memory_equal(in, buf, 50);
	assert_true(vc_is_zero(in + 50, 50)); /* what was cut off is gone */
	r = vc_io_allocate(f, 0, 1 << 20);
	assert_true(r == 0 || r == -EOPNOTSUPP);
	assert_int_equal(vc_io_size(f, &size), 0);
	assert_int_equal(size, 100); /* reserving keeps the size */
	vc_io_close(f);
}

static int count_names(void *ctx, const char *name)
{
	assert_true(strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
	++*(int *)ctx;
	return 0;
}

static int stop_at_first(void *ctx, const char *name VC_UNUSED)
{
	++*(int *)ctx;
	return 42;
}

static void test_names(void **state)
{
	struct fixture *fx = *state;
	struct vc_file *f = make(fx, 0), *g;
	char byte = 0;
	int n = 0;

	assert_int_equal(vc_io_pwrite(f, "1", 1, 0), 0);
	g = make(fx, 1);
	assert_int_equal(vc_io_list(fx->io, fx->dir, count_names, &n), 0);
	assert_int_equal(n, 2);
	n = 0;
	assert_int_equal(vc_io_list(fx->io, fx->dir, stop_at_first, &n), 42);
	assert_int_equal(n, 1);

	assert_int_equal(vc_io_rename(fx->io, fx->path[0], fx->path[1]), 0); /* replaces */
	assert_int_equal(vc_io_unlink(fx->io, fx->path[0]), -ENOENT);
	vc_io_close(g);
	assert_int_equal(vc_io_open(fx->io, fx->path[1], VC_IO_READ, &g), 0);
	assert_int_equal(vc_io_pread(g, &byte, 1, 0), 1);
	assert_int_equal(byte, '1');
	assert_int_equal(vc_io_unlink(fx->io, fx->path[1]), 0);
	assert_int_equal(vc_io_pread(g, &byte, 1, 0), 1); /* open files live on */
	vc_io_close(g);
	vc_io_close(f);
	assert_int_equal(vc_io_open(fx->io, fx->path[1], VC_IO_READ, &g), -ENOENT);

	assert_int_equal(vc_io_mkdir(fx->io, fx->path[2]), 0);
	assert_int_equal(vc_io_mkdir(fx->io, fx->path[2]), -EEXIST);
	assert_int_equal(vc_io_sync_dir(fx->io, fx->dir), 0);
	assert_int_equal(vc_io_list(fx->io, fx->path[3], count_names, &n), -ENOENT);
	assert_int_equal(vc_unit_messages(), 0);
	assert_int_equal(vc_io_sync_dir(fx->io, fx->path[3]), -ENOENT);
	assert_int_equal(vc_io_rename(fx->io, fx->path[3], fx->path[4]), -ENOENT);
	assert_int_equal(vc_unit_messages(), 2);
}

static void test_lock(void **state)
{
	struct fixture *fx = *state;
	struct vc_file *f = make(fx, 0), *g = make(fx, 0);

	assert_int_equal(vc_io_lock(f), 0);
	assert_int_equal(vc_io_lock(f), 0);
	assert_int_equal(vc_io_lock(g), -EBUSY);
	assert_int_equal(vc_unit_messages(), 0);
	vc_io_close(f);
	assert_int_equal(vc_io_lock(g), 0);
	vc_io_close(g);
}

static void test_space(void **state)
{
	struct fixture *fx = *state;
	struct vc_io_space space = { 0, 0 };

	assert_int_equal(vc_io_space(fx->io, fx->dir, &space), 0);
	assert_true(space.total > 0 && space.free <= space.total);
}

/* ---- posix alone ---- */

static void test_posix_disturbed(void **state)
{
	struct fixture *fx = *state;
	struct vc_file *f = make(fx, 0);
	static uint8_t out[60000], in[60000];
	struct iovec iov[40];
	uint64_t seed = vc_unit_seed();

	disturb.seed = seed;
	disturb.on = true;
	for (int round = 0; round < 30; round++) {
		size_t at = 0;
		int n = 0;

		fill(out, sizeof(out), vc_unit_random(&seed));
		while (n < 40) {
			size_t len = vc_unit_below(&seed, sizeof(out) - at < 3000 ? sizeof(out) - at + 1 : 3000);

			iov[n++] = (struct iovec){ out + at, len };
			at += len;
		}
		disturb.calls = 0;
		assert_int_equal(vc_io_pwritev(f, iov, n, 5), 0);
		assert_true(at < 5000 || disturb.calls > 1);
		memset(in, 0, sizeof(in));
		for (int i = 0; i < n; i++)
			iov[i].iov_base = in + ((uint8_t *)iov[i].iov_base - out);
		assert_int_equal(vc_io_preadv(f, iov, n, 5), at);
		assert_memory_equal(in, out, at);
	}
	disturb.on = false;
	vc_io_close(f);
}

/* A write that the system cuts short and then refuses is an error, not a success. */
static void test_posix_file_limit(void **state)
{
	struct fixture *fx = *state;
	struct vc_file *f = make(fx, 0);
	struct rlimit before, small;
	uint8_t buf[8192] = { 1 };
	int r;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small = (struct rlimit){ 4096, before.rlim_max };
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	r = vc_io_pwrite(f, buf, sizeof(buf), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(r, -EFBIG);
	assert_int_equal(vc_unit_messages(), 1);
	assert_non_null(strstr(vc_unit_last_message(), "4096")); /* names the offset */
	vc_io_close(f);
}

static void test_posix_details(void **state)
{
	struct fixture *fx = *state;
	struct vc_file *f = make(fx, 0), *g;
	struct stat st;
	char buf[PATH_MAX];

	assert_int_equal(fstat(vc_io_posix_fd(f), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600 & ~umask(022));
	assert_ptr_equal(vc_io_real_path(fx->io, fx->dir, buf, sizeof(buf)), fx->dir);
	vc_io_meta_committed(fx->io, fx->dir);
	assert_int_equal(symlink(fx->path[0], fx->path[1]), 0);
	assert_int_equal(vc_io_open(fx->io, fx->path[1], VC_IO_READ, &g), -ELOOP); /* links are not followed */
	assert_int_equal(vc_io_open(fx->io, fx->path[0], VC_IO_READ | VC_IO_DIRECT, &g), 0);
	vc_io_close(g);
	vc_io_close(f);
}

static unsigned open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* Past the page cache: not what lies in it, and no descriptor stays. Kernels and file systems that cannot say -EAGAIN each time. */
static void test_posix_past(void **state)
{
	struct fixture *fx = *state;
	struct vc_file *f = make(fx, 0);
	unsigned before = open_descriptors();
	static _Alignas(VC_IO_PAST_ALIGN) uint8_t in[8 * VC_IO_PAST_ALIGN];
	static uint8_t out[7 * VC_IO_PAST_ALIGN + 100];
	ssize_t n;

	fill(out, sizeof(out), 3);
	assert_int_equal(vc_io_pwrite(f, out, sizeof(out), 0), 0);
	assert_int_equal(vc_io_pread_past(f, in, sizeof(in), 0), -EAGAIN); /* it was just written */
	assert_int_equal(vc_io_datasync(f), 0);
	assert_int_equal(posix_fadvise(vc_io_posix_fd(f), 0, 0, POSIX_FADV_DONTNEED), 0);
	vc_unit_catch_messages(true);
	for (int i = 0; i < 2; i++) {
		n = vc_io_pread_past(f, in, sizeof(in), 0);
		assert_true(n == -EAGAIN || n == sizeof(out));
		assert_true(n < 0 || memcmp(in, out, sizeof(out)) == 0);
	}
	assert_true(n < 0 || vc_io_pread_past(f, in, VC_IO_PAST_ALIGN, sizeof(in)) == 0); /* beyond the end */
	assert_int_equal(unlink(fx->path[0]), 0); /* the name is not needed any more */
	assert_int_equal(vc_io_pread_past(f, in, VC_IO_PAST_ALIGN, 0), n < 0 ? n : VC_IO_PAST_ALIGN);
	assert_int_equal(vc_unit_messages(), 0);
	vc_unit_catch_messages(false);
	if (n < 0)
		printf("this kernel or file system does not read past the page cache\n");
	assert_int_equal(vc_io_pread(f, in, sizeof(out), 0), sizeof(out));
	assert_memory_equal(in, out, sizeof(out));
	assert_int_equal(vc_io_pread_past(f, in, VC_IO_PAST_ALIGN, 0), -EAGAIN);
	assert_int_equal(open_descriptors(), before + (n >= 0));
	vc_io_close(f);
	assert_int_equal(open_descriptors(), before - 1);
}

/* Another file may have the name by then: it is not what is read. */
static void test_posix_past_replaced(void **state)
{
	struct fixture *fx = *state;
	struct vc_file *f = make(fx, 0), *g = make(fx, 1);
	static _Alignas(VC_IO_PAST_ALIGN) uint8_t in[VC_IO_PAST_ALIGN];
	uint8_t out[VC_IO_PAST_ALIGN];
	ssize_t n;

	fill(out, sizeof(out), 4);
	assert_int_equal(vc_io_pwrite(f, out, sizeof(out), 0), 0);
	assert_int_equal(vc_io_datasync(f), 0);
	assert_int_equal(posix_fadvise(vc_io_posix_fd(f), 0, 0, POSIX_FADV_DONTNEED), 0);
	assert_int_equal(vc_io_rename(fx->io, fx->path[1], fx->path[0]), 0);
	n = vc_io_pread_past(f, in, sizeof(in), 0);
	assert_int_equal(n, -EAGAIN);
	assert_int_equal(vc_io_pread(f, in, sizeof(in), 0), sizeof(in));
	assert_memory_equal(in, out, sizeof(out));
	vc_io_close(f);
	vc_io_close(g);
}

/* ---- both at once ---- */

static void compare_files(struct vc_file *a, struct vc_file *b)
{
	static uint8_t x[70000], y[70000];
	uint64_t size_a, size_b;

	assert_int_equal(vc_io_size(a, &size_a), 0);
	assert_int_equal(vc_io_size(b, &size_b), 0);
	assert_int_equal(size_a, size_b);
	assert_int_equal(vc_io_pread(a, x, sizeof(x), 0), size_a);
	assert_int_equal(vc_io_pread(b, y, sizeof(y), 0), size_a);
	assert_memory_equal(x, y, size_a);
}

static void random_step(uint64_t *seed, struct vc_file *a, struct vc_file *b)
{
	uint64_t offset = vc_unit_below(seed, 60000), len = vc_unit_below(seed, 9000);
	uint8_t buf[9000];

	switch (vc_unit_below(seed, 5)) {
	case 0:
		assert_int_equal(vc_io_truncate(a, offset), 0);
		assert_int_equal(vc_io_truncate(b, offset), 0);
		break;
	case 1:
		assert_int_equal(vc_io_datasync(b), 0);
		break;
	default:
		fill(buf, len, vc_unit_below(seed, 2) ? vc_unit_random(seed) : 0);
		if (vc_unit_below(seed, 4) == 0)
			memset(buf, 0, len);
		assert_int_equal(vc_io_pwrite(a, buf, len, offset), 0);
		assert_int_equal(vc_io_pwrite(b, buf, len, offset), 0);
		break;
	}
}

static void test_sim_equals_posix(void **state)
{
	struct fixture *fx = *state;
	struct vc_file *a = make(fx, 0), *b, *c;
	uint64_t seed = vc_unit_seed();
	struct vc_sim *sim = vc_sim_new(), *after;

	assert_int_equal(vc_io_open(vc_sim_io(sim), "/f", VC_IO_WRITE | VC_IO_CREATE, &b), 0);
	for (int i = 0; i < 400; i++) {
		random_step(&seed, a, b);
		compare_files(a, b);
	}
	/* A killed process loses nothing. */
	after = vc_sim_crash(sim, vc_sim_events(sim), &(struct vc_sim_policy){ VC_SIM_KEEP_ALL, 0, 0 });
	assert_int_equal(vc_io_open(vc_sim_io(after), "/f", VC_IO_READ, &c), 0);
	compare_files(a, c);
	vc_io_close(a);
	vc_io_close(b);
	vc_io_close(c);
	vc_sim_free(sim);
	vc_sim_free(after);
}

#define BOTH(test) \
	cmocka_unit_test_setup_teardown(test, setup_posix, teardown), \
	cmocka_unit_test_setup_teardown(test, setup_sim, teardown)

static ino_t ino_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_ino;
}

/* A sync of the table is one of the operating system, of that very file or directory; its error is not swallowed. */
static void test_posix_syncs(void **state)
{
	struct fixture *f = *state;
	struct vc_file *file;

	memset(&asked, 0, sizeof(asked));
	assert_int_equal(vc_io_open(f->io, f->path[0], VC_IO_WRITE | VC_IO_CREATE, &file), 0);
	assert_int_equal(vc_io_pwrite(file, "x", 1, 0), 0);
	assert_int_equal(asked.data + asked.whole, 0);
	assert_int_equal(vc_io_datasync(file), 0);
	assert_int_equal(asked.data, 1);
	assert_int_equal(asked.ino, ino_of(f->path[0]));
	assert_int_equal(vc_io_sync_dir(f->io, f->dir), 0);
	assert_int_equal(asked.whole, 1);
	assert_int_equal(asked.ino, ino_of(f->dir));
	asked.error = EIO;
	vc_unit_catch_messages(true);
	assert_int_equal(vc_io_datasync(file), -EIO);
	assert_int_equal(vc_io_sync_dir(f->io, f->dir), -EIO);
	assert_int_equal(vc_unit_messages(), 2);
	vc_unit_catch_messages(false);
	asked.error = 0;
	vc_io_close(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_open),
		BOTH(test_read_write),
		BOTH(test_long_vectors),
		BOTH(test_truncate_allocate),
		BOTH(test_names),
		BOTH(test_lock),
		BOTH(test_space),
		cmocka_unit_test_setup_teardown(test_posix_disturbed, setup_posix, teardown),
		cmocka_unit_test_setup_teardown(test_posix_file_limit, setup_posix, teardown),
		cmocka_unit_test_setup_teardown(test_posix_syncs, setup_posix, teardown),
		cmocka_unit_test_setup_teardown(test_posix_details, setup_posix, teardown),
		cmocka_unit_test_setup_teardown(test_posix_past, setup_posix, teardown),
		cmocka_unit_test_setup_teardown(test_posix_past_replaced, setup_posix, teardown),
		cmocka_unit_test_setup_teardown(test_sim_equals_posix, setup_posix, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
