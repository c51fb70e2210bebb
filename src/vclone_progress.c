/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclone_progress: the line that shows how far long work is, on a terminal only.
 */
#include "config.h"
#include "vclone_impl.h"

#include <sys/ioctl.h>
#include <unistd.h>

#define PROGRESS_EVERY_NS UINT64_C(100000000)
#define NS_PER_S UINT64_C(1000000000)

void vc_progress_begin(struct vc_progress *p, const char *what, bool bytes)
{
	*p = (struct vc_progress){ .what = what, .bytes = bytes, .terminal = isatty(STDERR_FILENO),
				   .start_ns = vc_mono_ns() };
}

const char *vc_progress_duration(uint64_t ns, char *buf, size_t len)
{
	unsigned long long s = ns / NS_PER_S;

	if (s < 10)
		snprintf(buf, len, "%llu.%llu s", s, (unsigned long long)(ns % NS_PER_S) / 100000000);
	else if (s < 120)
		snprintf(buf, len, "%llu s", s);
	else if (s < 7200)
		snprintf(buf, len, "%llu min %llu s", s / 60, s % 60);
	else
		snprintf(buf, len, "%llu h %llu min", s / 3600, s / 60 % 60);
	return buf;
}

static const char *amount(const struct vc_progress *p, uint64_t n, char *buf, size_t len)
{
	if (p->bytes)
		return vc_human_bytes(n, buf, len);
	snprintf(buf, len, "%llu", (unsigned long long)n);
	return buf;
}

const char *vc_progress_text(const struct vc_progress *p, uint64_t done, uint64_t total, uint64_t elapsed_ns,
			     char *buf, size_t len)
{
	double s = (double)elapsed_ns / (double)NS_PER_S;
	double rate = s > 0.05 ? (double)done / s : 0;
	char a[32], b[32], c[32], left[32];
	int n;

	done = total > 0 && done > total ? total : done;
	if (total == 0) {
		snprintf(buf, len, "%s: %s", p->what, amount(p, done, a, sizeof(a)));
		return buf;
	}
	n = snprintf(buf, len, "%s: %3u %%  %s of %s", p->what, (unsigned int)((double)done * 100 / (double)total),
		     amount(p, done, a, sizeof(a)), amount(p, total, b, sizeof(b)));
	if (rate > 0 && n > 0 && (size_t)n < len)
		snprintf(buf + n, len - (size_t)n, "  %s/s  %s left", amount(p, (uint64_t)rate, c, sizeof(c)),
			 vc_progress_duration((uint64_t)((double)(total - done) / rate * (double)NS_PER_S), left,
					      sizeof(left)));
	return buf;
}

void vc_progress_show(struct vc_progress *p, uint64_t done, uint64_t total)
{
	uint64_t now = vc_mono_ns();
	struct winsize size = { .ws_col = 80 };
	char text[256];
	int width = 79;

	if (!p->terminal || now - p->shown_ns < PROGRESS_EVERY_NS)
		return;
	p->shown_ns = now;
	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
		width = size.ws_col - 1;
	fprintf(stderr, "\r%.*s\033[K", width, vc_progress_text(p, done, total, now - p->start_ns, text, sizeof(text)));
	fflush(stderr);
}

void vc_progress_end(struct vc_progress *p)
{
	if (p->terminal && p->shown_ns != 0)
		fputs("\r\033[K", stderr);
	p->shown_ns = 0;
}
