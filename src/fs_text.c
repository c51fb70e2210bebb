/* SPDX-License-Identifier: BSD-2-Clause */
/* fs_text: see the header for the grammar. */
#include "config.h"
#include "fs_text.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- words ---- */

struct text_out {
	char *buf;
	size_t len, used;
};

static int text_put(struct text_out *out, char c)
{
	if (c == '\0')
		return -EINVAL;
	if (out->used + 1 >= out->len)
		return -ENAMETOOLONG;
	out->buf[out->used++] = c;
	return 0;
}

static const char *text_skip_blanks(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	return p;
}

/** *p is behind the opening quote and ends behind the closing one. */
static int text_quoted(const char **p, const char *end, char quote, struct text_out *out)
{
	int r;

	for (; *p < end && **p != quote; (*p)++) {
		if (quote == '"' && **p == '\\' && *p + 1 < end && ((*p)[1] == '"' || (*p)[1] == '\\'))
			(*p)++;
		r = text_put(out, **p);
		if (r < 0)
			return r;
	}
	if (*p == end)
		return -EINVAL;
	(*p)++;
	return 0;
}

int fs_text_word(const char **p, const char *end, char *buf, size_t len)
{
	struct text_out out = { buf, len, 0 };
	char c;
	int r;

	*p = text_skip_blanks(*p, end);
	if (*p == end)
		return 0;
	while (*p < end && **p != ' ' && **p != '\t') {
		c = *(*p)++;
		if (c == '\'' || c == '"')
			r = text_quoted(p, end, c, &out);
		else if (c != '\\')
			r = text_put(&out, c);
		else if (*p == end)
			r = -EINVAL;
		else
			r = text_put(&out, *(*p)++);
		if (r < 0)
			return r;
	}
	buf[out.used] = '\0';
	return 1;
}

int fs_text_line(const char *line, const char *end, char *src, char *dst, size_t len)
{
	const char *p = text_skip_blanks(line, end);
	int r;

	if (p == end || *p == '#')
		return 0;
	r = fs_text_word(&p, end, src, len);
	if (r < 0)
		return r;
	r = fs_text_word(&p, end, dst, len);
	if (r <= 0)
		return r < 0 ? r : -EINVAL;
	return text_skip_blanks(p, end) == end ? 1 : -EINVAL;
}

/* ---- patterns ---- */

struct text_number {
	int width;
	bool zeros;
	size_t len; /* of the directive */
};

/** p points to a '%' that is not "%%". */
static int text_number_parse(const char *p, struct text_number *ret)
{
	const char *start = p++;

	*ret = (struct text_number){ 0 };
	if (*p == '0') {
		ret->zeros = true;
		p++;
	}
	if (*p >= '1' && *p <= '9')
		ret->width = *p++ - '0';
	if (*p != 'd' || (ret->zeros && ret->width == 0))
		return -EINVAL;
	ret->len = (size_t)(p + 1 - start);
	return 0;
}

int fs_text_pattern_check(const char *pattern)
{
	struct text_number number;
	int found = 0;

	for (const char *p = pattern; *p; p++) {
		if (*p != '%')
			continue;
		if (p[1] == '%') {
			p++;
			continue;
		}
		if (text_number_parse(p, &number) < 0)
			return -EINVAL;
		p += number.len - 1;
		found++;
	}
	return found == 1 ? 0 : -EINVAL;
}

static int text_put_number(struct text_out *out, const struct text_number *how, uint64_t number)
{
	char digits[32];
	int r;

	snprintf(digits, sizeof(digits), how->zeros ? "%0*" PRIu64 : "%*" PRIu64, how->width, number);
	for (const char *d = digits; *d; d++) {
		r = text_put(out, *d);
		if (r < 0)
			return r;
	}
	return 0;
}

int fs_text_pattern_name(const char *pattern, uint64_t number, char *buf, size_t len)
{
	struct text_out out = { buf, len, 0 };
	struct text_number how;
	int r;

	for (const char *p = pattern; *p; p++) {
		if (*p == '%' && p[1] != '%') {
			r = text_number_parse(p, &how);
			if (r == 0)
				r = text_put_number(&out, &how, number);
			p += how.len - 1;
		} else {
			p += *p == '%';
			r = text_put(&out, *p);
		}
		if (r < 0)
			return r;
	}
	buf[out.used] = '\0';
	return 0;
}
