/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * msg: one formatted line to one sink.
 *
 * The sink belongs to the process, so its state is the only one of the engine that is global. `level`
 * is atomic; the rest is protected by `lock` (VC_LOCK_MSG, the last rank: a message may be sent with
 * any other lock held). errno is preserved.
 */
#include "config.h"
#include "msg.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lock.h"

#define LINE_MAX_BYTES 1000

enum stderr_kind { STDERR_UNKNOWN, STDERR_PLAIN, STDERR_JOURNAL };

static struct {
	_Atomic int level;
	struct vc_mutex lock;
	vc_msg_sink_fn *sink;
	void *ctx;
	enum stderr_kind kind;
} msg = {
	.level = VC_MSG_INFO,
	.lock = { PTHREAD_MUTEX_INITIALIZER, VC_LOCK_MSG },
};

/* systemd sets JOURNAL_STREAM to device:inode of the stream it made. */
static enum stderr_kind msg_stderr_kind(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	if (!stream || sscanf(stream, "%llu:%llu", &dev, &ino) != 2 || fstat(STDERR_FILENO, &st) < 0)
		return STDERR_PLAIN;
	return st.st_dev == dev && st.st_ino == ino ? STDERR_JOURNAL : STDERR_PLAIN;
}

static void msg_to_stderr(enum vc_msg_level level, const char *line)
{
	static const char *const words[] = { "error: ", "warning: ", "", "debug: " };
	static const char priorities[] = { '3', '4', '6', '7' };

	if (msg.kind == STDERR_UNKNOWN)
		msg.kind = msg_stderr_kind();
	if (msg.kind == STDERR_JOURNAL)
		dprintf(STDERR_FILENO, "<%c>%s\n", priorities[level], line);
	else
		dprintf(STDERR_FILENO, "%s: %s%s\n", program_invocation_short_name, words[level], line);
}

void vc_msg_set_sink(vc_msg_sink_fn *sink, void *ctx)
{
	vc_mutex_lock(&msg.lock);
	msg.sink = sink;
	msg.ctx = ctx;
	msg.kind = STDERR_UNKNOWN;
	vc_mutex_unlock(&msg.lock);
}

void vc_msg_set_level(enum vc_msg_level level)
{
	atomic_store(&msg.level, (int)level);
}

/* A terminal obeys control characters, also those of two bytes. */
static void msg_clean(char *line)
{
	int n;

	for (; *line; line += VC_MAX(n, 1)) {
		n = vc_utf8_printable(line);
		if (n == 0)
			*line = '?';
	}
}

void vc_msg(enum vc_msg_level level, const char *fmt, ...)
{
	char line[LINE_MAX_BYTES + 1];
	int saved_errno = errno;
	va_list args;

	if ((int)level > atomic_load_explicit(&msg.level, memory_order_relaxed))
		return;
	va_start(args, fmt);
	if (vsnprintf(line, sizeof(line), fmt, args) < 0)
		line[0] = '\0';
	va_end(args);
	msg_clean(line);

	vc_mutex_lock(&msg.lock);
	if (msg.sink)
		msg.sink(msg.ctx, level, line);
	else
		msg_to_stderr(level, line);
	vc_mutex_unlock(&msg.lock);
	errno = saved_errno;
}
