/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vclone_text: names, sizes and JSON on standard output.
 *
 * A file name is any bytes: printed raw it could move the cursor, forge a line or break a JSON text. Everything
 * that came from a name passes through vc_utf8_printable here.
 */
#include "config.h"
#include "vclone_impl.h"

#include <stdarg.h>

void vc_cli_put_name(FILE *out, const char *name)
{
	while (*name) {
		int n = vc_utf8_printable(name);

		if (n == 0 || *name == '\\') {
			fprintf(out, "\\%03o", (unsigned char)*name);
			n = 1;
		} else {
			fwrite(name, 1, (size_t)n, out);
		}
		name += n;
	}
}

void vc_cli_error(const char *fmt, ...)
{
	char text[2 * VCLONEFS_PATH_MAX + 512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fputs("vclone: ", stderr);
	vc_cli_put_name(stderr, text);
	fputc('\n', stderr);
}

const char *vc_cli_size(uint64_t bytes, unsigned int slot)
{
	static char text[8][24];

	return vc_human_bytes(bytes, text[slot % 8], sizeof(text[0]));
}

int vc_cli_finish(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	vc_cli_error("writing to standard output: %s", strerror(errno));
	return VC_EXIT_FAILED;
}

void vc_json_begin(struct vc_json *j, FILE *out)
{
	*j = (struct vc_json){ .out = out, .first = true };
}

/** A character of JSON at s; returns how many bytes of s it took. */
static int json_char(FILE *out, const char *s)
{
	unsigned char c = (unsigned char)*s;
	int n = vc_utf8_printable(s);

	if (c == '"' || c == '\\')
		fprintf(out, "\\%c", c);
	else if (n > 0)
		fwrite(s, 1, (size_t)n, out);
	else if (c < 0x80)
		fprintf(out, "\\u%04x", c);
	else
		fprintf(out, "\\udc%02x", c);
	return n > 0 ? n : 1;
}

static void json_quoted(struct vc_json *j, const char *s)
{
	fputc('"', j->out);
	while (*s)
		s += json_char(j->out, s);
	fputc('"', j->out);
}

/** Comma, newline, indentation and key before a value. */
static void json_lead(struct vc_json *j, const char *key)
{
	if (!j->first)
		fputc(',', j->out);
	if (j->depth > 0)
		fprintf(j->out, "\n%*s", 2 * j->depth, "");
	if (key) {
		json_quoted(j, key);
		fputs(": ", j->out);
	}
	j->first = false;
}

void vc_json_open(struct vc_json *j, const char *key, char bracket)
{
	json_lead(j, key);
	fputc(bracket, j->out);
	j->depth++;
	j->first = true;
}

void vc_json_close(struct vc_json *j, char bracket)
{
	j->depth--;
	if (!j->first)
		fprintf(j->out, "\n%*s", 2 * j->depth, "");
	fputc(bracket == '{' ? '}' : ']', j->out);
	j->first = false;
	if (j->depth == 0)
		fputc('\n', j->out);
}

void vc_json_u64(struct vc_json *j, const char *key, uint64_t value)
{
	json_lead(j, key);
	fprintf(j->out, "%llu", (unsigned long long)value);
}

void vc_json_bool(struct vc_json *j, const char *key, bool value)
{
	json_lead(j, key);
	fputs(value ? "true" : "false", j->out);
}

void vc_json_null(struct vc_json *j, const char *key)
{
	json_lead(j, key);
	fputs("null", j->out);
}

void vc_json_string(struct vc_json *j, const char *key, const char *value)
{
	json_lead(j, key);
	json_quoted(j, value);
}
