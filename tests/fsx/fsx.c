/* SPDX-License-Identifier: BSD-2-Clause */
/* fsx: options, threads, rounds, reports. See fsx.h, and usage_text below. */
#include "config.h"
#include "../unit/unit.h"

#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fsx.h"

#define WATCH_SECONDS 100

static const char usage_text[] =
	"usage: fsx [-m] [-c] [-N OPS | -T SECONDS] [-S SEED] [-t THREADS] [-n IMAGES] [-l WINDOW] [-r ROUND] [-d DIR] [-B DIR] [-kv]\n"
	"\n"
	"  -m          through a mount (root only); default: the engine in this process\n"
	"  -c          clones of images that are being written; default: exact models\n"
	"  -N OPS      operations of each thread; to shrink a failure of one thread, give its number\n"
	"  -T SECONDS  instead of -N: so long (20)\n"
	"  -S SEED     default: a new one, which is printed\n"
	"  -t THREADS  1 to 8 (1)\n"
	"  -n IMAGES   of each thread, 2 to 16 (5)\n"
	"  -l WINDOW   bytes of an image that are used (786432)\n"
	"  -r ROUND    operations of a thread between two comparisons of everything, with a new mount or a kill (400)\n"
	"  -k          never close or kill the pool in between\n"
	"  -d DIR      where the pool is made (a new directory in TMPDIR)\n"
	"  -B DIR      where vclonefs and vclone are, for -m (BUILD_DIR)\n"
	"  -v          print every operation\n";

/* ---- numbers ---- */

uint64_t fsx_random(uint64_t *state) { return vc_unit_random(state); }
uint64_t fsx_below(struct fsx_thread *t, uint64_t n) { return vc_unit_below(&t->rng, n); }

/* ---- reports ---- */

void fsx_note(struct fsx_thread *t, const char *fmt, ...)
{
	char *line = t->ring[t->nops % FSX_RING];
	size_t used = 0;
	va_list args;

	/* Several notes of one operation go into one line. */
	if (strncmp(line, "#", 1) == 0 && strtoull(line + 1, NULL, 10) == t->nops)
		used = strlen(line);
	else
		used = (size_t)snprintf(line, sizeof(t->ring[0]), "#%llu ", (unsigned long long)t->nops);
	va_start(args, fmt);
	if (used + 2 < sizeof(t->ring[0])) {
		vsnprintf(line + used, sizeof(t->ring[0]) - used - 2, fmt, args);
		strcat(line, "; ");
	}
	va_end(args);
	if (t->x->o.trace)
		printf("%u: %s\n", t->index, line + (used < 20 ? 0 : used));
}

static void ring_print(const struct fsx_thread *t, uint64_t lines)
{
	uint64_t first = t->nops >= lines ? t->nops - lines + 1 : 0;

	fprintf(stderr, "thread %u, its last operations:\n", t->index);
	for (uint64_t i = first; i <= t->nops; i++)
		fprintf(stderr, "  %s\n", t->ring[i % FSX_RING]);
}

void fsx_fail(struct fsx_thread *t, const char *fmt, ...)
{
	static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
	struct fsx *x = t->x;
	va_list args;

	pthread_mutex_lock(&once); /* the first to fail ends the process */
	for (unsigned i = 0; i < x->o.threads; i++)
		if (i != t->index)
			ring_print(&x->threads[i], 8);
	ring_print(t, FSX_RING);
	fprintf(stderr, "FAILED: thread %u, operation %llu: ", t->index, (unsigned long long)t->nops);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, "\nagain: fsx%s%s -S %llu -t %u -n %u -l %llu -r %llu -N %llu%s\n", x->b == &fsx_mount ? " -m" : "",
		x->o.stamps ? " -c" : "", (unsigned long long)x->o.seed, x->o.threads, x->o.images, (unsigned long long)x->o.window,
		(unsigned long long)x->o.round, (unsigned long long)t->nops, x->o.no_remount ? " -k" : "");
	if (x->b == &fsx_mount)
		x->b->stop(x, true);
	fflush(NULL);
	_exit(1);
}

/* ---- a run ---- */

void fsx_image_init(struct fsx *x, struct fsx_image *img)
{
	img->fd = img->direct_fd = -1;
	img->bytes = calloc(1, x->o.window);
	assert(img->bytes);
}

static void images_each(struct fsx *x, void (*fn)(struct fsx_thread *t, struct fsx_image *img))
{
	for (unsigned i = 0; i < x->o.threads; i++)
		for (unsigned k = 0; k < x->o.images; k++)
			fn(&x->threads[i], &x->threads[i].images[k]);
	for (unsigned k = 0; k < FSX_SHARED_MAX; k++)
		fn(&x->threads[0], &x->shared[k]);
}

static void image_close(struct fsx_thread *t, struct fsx_image *img)
{
	if (!*img->name)
		return;
	fsx_settle(t, img);
	t->x->b->close(t->x, img);
}

static void image_open(struct fsx_thread *t, struct fsx_image *img)
{
	if (*img->name)
		fsx_want(t, t->x->b->open(t->x, img, false), "open");
}

/* All threads have stopped. Closed well, or as if killed: everything is there again (D7). */
static void remount(struct fsx_thread *t)
{
	struct fsx *x = t->x;
	bool sudden = fsx_below(t, 2);

	fsx_note(t, sudden ? "kill" : "remount");
	images_each(x, image_close);
	x->b->stop(x, sudden);
	fsx_want(t, x->b->start(x), "opening the pool again");
	images_each(x, image_open);
	x->remounts++;
	x->kills += sudden;
}

static bool time_is_over(struct fsx_thread *t, uint64_t began)
{
	if (t->x->o.ops)
		return t->nops >= t->x->o.ops;
	return vc_mono_ns() - began > t->x->o.seconds * UINT64_C(1000000000);
}

static void *thread_main(void *arg)
{
	struct fsx_thread *t = arg;
	struct fsx *x = t->x;
	uint64_t began = vc_mono_ns();

	while (!atomic_load(&x->stop)) {
		uint64_t n = x->o.ops ? VC_MIN(x->o.round, x->o.ops - t->nops) : x->o.round;

		for (; n > 0; n--)
			fsx_step(t);
		for (unsigned k = 0; k < x->o.images; k++)
			fsx_verify(t, &t->images[k]);
		pthread_barrier_wait(&x->barrier);
		if (t->index == 0) {
			for (unsigned k = 0; k < FSX_SHARED_MAX; k++)
				fsx_verify(t, &x->shared[k]);
			if (!x->o.no_remount)
				remount(t);
			if (time_is_over(t, began))
				atomic_store(&x->stop, true);
		}
		pthread_barrier_wait(&x->barrier);
	}
	return NULL;
}

/* ---- watching ---- */

static uint64_t progress(const struct fsx *x)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < x->o.threads; i++)
		n += __atomic_load_n(&x->threads[i].nops, __ATOMIC_RELAXED);
	return n + x->remounts;
}

/* Whoever waits for the daemon for ever does not see signals: the backend gets them out. */
static void *watch_main(void *arg)
{
	struct fsx *x = arg;
	struct pollfd p = { .fd = x->watch[0], .events = POLLIN };
	uint64_t seen = 0, stuck = 0;

	while (poll(&p, 1, 1000) == 0) {
		uint64_t now = progress(x);

		stuck = now == seen ? stuck + 1 : 0;
		seen = now;
		if (stuck == WATCH_SECONDS && x->b->unblock) {
			x->b->unblock(x);
			fsx_fail(&x->threads[0], "no operation has ended for %d seconds", WATCH_SECONDS);
		}
	}
	return NULL;
}

static void watch_start(struct fsx *x)
{
	assert(pipe2(x->watch, O_CLOEXEC) == 0);
	assert(pthread_create(&x->watcher, NULL, watch_main, x) == 0);
}

static void watch_end(struct fsx *x)
{
	close(x->watch[1]);
	pthread_join(x->watcher, NULL);
	close(x->watch[0]);
}

static void threads_run(struct fsx *x)
{
	assert(pthread_barrier_init(&x->barrier, NULL, x->o.threads) == 0);
	fsx_make_golden(&x->threads[0]);
	for (unsigned i = 1; i < x->o.threads; i++)
		assert(pthread_create(&x->threads[i].thread, NULL, thread_main, &x->threads[i]) == 0);
	thread_main(&x->threads[0]);
	for (unsigned i = 1; i < x->o.threads; i++)
		pthread_join(x->threads[i].thread, NULL);
	images_each(x, fsx_verify);
	images_each(x, image_close);
	pthread_barrier_destroy(&x->barrier);
}

static void thread_init(struct fsx *x, unsigned index)
{
	struct fsx_thread *t = &x->threads[index];

	t->x = x;
	t->index = index;
	t->rng = x->o.seed + index * UINT64_C(0x1000193);
	t->buf = aligned_alloc(FSX_BLOCK, FSX_IO_MAX);
	t->buf2 = aligned_alloc(FSX_BLOCK, FSX_IO_MAX);
	assert(t->buf && t->buf2);
	for (unsigned k = 0; k < x->o.images; k++)
		fsx_image_init(x, &t->images[k]);
}

static void run_free(struct fsx *x)
{
	for (unsigned i = 0; i < x->o.threads; i++) {
		free(x->threads[i].buf);
		free(x->threads[i].buf2);
		for (unsigned k = 0; k < x->o.images; k++)
			free(x->threads[i].images[k].bytes);
	}
	for (unsigned k = 0; k < FSX_SHARED_MAX; k++)
		free(x->shared[k].bytes);
	free(x->pool);
	free(x->mnt);
}

static int run(struct fsx *x)
{
	uint64_t began = vc_mono_ns(), nops = 0;
	struct fsx_thread *first = &x->threads[0];
	double seconds;

	printf("fsx: %s%s, seed %llu, %u threads of %u images\n", x->b->name, x->o.stamps ? ", clones of what is written" : "",
	       (unsigned long long)x->o.seed, x->o.threads, x->o.images);
	fflush(stdout);
	for (unsigned i = 0; i < x->o.threads; i++)
		thread_init(x, i);
	for (unsigned k = 0; k < FSX_SHARED_MAX; k++)
		fsx_image_init(x, &x->shared[k]);
	fsx_want(first, x->b->create(x), "making the pool");
	fsx_want(first, x->b->start(x), "opening the pool");
	watch_start(x);
	if (x->o.stamps)
		fsx_stamp_run(x);
	else
		threads_run(x);
	watch_end(x);
	x->b->stop(x, false);
	for (unsigned i = 0; i < x->o.threads; i++)
		nops += x->threads[i].nops;
	seconds = (double)(vc_mono_ns() - began) / 1e9;
	printf("fsx: %llu operations and %llu clones in %.1f s, %llu openings, %llu of them after a kill: all as it must be\n",
	       (unsigned long long)nops, (unsigned long long)atomic_load(&x->nclones), seconds, (unsigned long long)x->remounts,
	       (unsigned long long)x->kills);
	run_free(x);
	return 0;
}

/* ---- options ---- */

static uint64_t number(const char *text, uint64_t least, uint64_t most)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);

	if (end == text || *end || n < least || n > most) {
		fprintf(stderr, "fsx: %s: a number from %llu to %llu is needed\n", text, (unsigned long long)least,
			(unsigned long long)most);
		exit(2);
	}
	return n;
}

static void options(struct fsx *x, int argc, char **argv)
{
	int c;

	while ((c = getopt(argc, argv, "mcN:T:S:t:n:l:r:kd:B:vh")) != -1) {
		switch (c) {
		case 'm': x->b = &fsx_mount; break;
		case 'c': x->o.stamps = true; break;
		case 'N': x->o.ops = number(optarg, 1, UINT64_MAX); break;
		case 'T': x->o.seconds = (unsigned)number(optarg, 1, 1 << 30); break;
		case 'S': x->o.seed = number(optarg, 0, UINT64_MAX); break;
		case 't': x->o.threads = (unsigned)number(optarg, 1, FSX_THREADS_MAX); break;
		case 'n': x->o.images = (unsigned)number(optarg, 2, FSX_IMAGES_MAX); break;
		case 'l': x->o.window = VC_ROUND_UP(number(optarg, 4 * FSX_IO_MAX / 3, 1 << 28), (uint64_t)FSX_BLOCK); break;
		case 'r': x->o.round = number(optarg, 1, UINT64_MAX); break;
		case 'k': x->o.no_remount = true; break;
		case 'd': x->o.dir = optarg; break;
		case 'B': x->o.programs = optarg; break;
		case 'v': x->o.trace = true; break;
		default: fputs(usage_text, c == 'h' ? stdout : stderr); exit(c == 'h' ? 0 : 2);
		}
	}
}

int main(int argc, char **argv)
{
	static struct fsx x = { .b = &fsx_engine, .lock = PTHREAD_MUTEX_INITIALIZER,
				.o = { .threads = 1, .images = 5, .seconds = 20, .window = 768 << 10, .round = 400 } };
	char *made = NULL;
	int r;

	assert(vc_random_bytes(&x.o.seed, sizeof(x.o.seed)) == 0);
	x.o.seed >>= 32;
	x.o.programs = getenv("BUILD_DIR");
	options(&x, argc, argv);
	if (!x.o.dir)
		x.o.dir = made = vc_unit_tmpdir();
	assert(x.o.dir && asprintf(&x.pool, "%s/pool", x.o.dir) > 0 && asprintf(&x.mnt, "%s/mnt", x.o.dir) > 0);
	setenv("CMOCKA_TEST_ABORT", "1", 1);
	r = run(&x);
	vc_unit_rmdir(made);
	return r;
}
