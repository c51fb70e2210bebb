/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * msg: messages to people ("log" is the data log and nothing else).
 *
 * Rule: one message for one failure, at the lowest level that knows file and offset, saying what
 * to do about it; the levels above only return the error. Thread-safe. Text is cut at 1,000
 * bytes; control characters are replaced so that a file name cannot forge a line.
 */
#ifndef VC_MSG_H
#define VC_MSG_H

#include "util.h"

enum vc_msg_level { VC_MSG_ERR, VC_MSG_WARN, VC_MSG_INFO, VC_MSG_DEBUG };

/** Receives one finished line without newline. Called with the message lock held. */
typedef void vc_msg_sink_fn(void *ctx, enum vc_msg_level level, const char *line);

/** Route messages to `sink` (NULL: standard error with an sd-daemon "<3>" prefix when it is the journal). */
void vc_msg_set_sink(vc_msg_sink_fn *sink, void *ctx);
/** Messages above `level` are dropped. Default VC_MSG_INFO. */
void vc_msg_set_level(enum vc_msg_level level);

void vc_msg(enum vc_msg_level level, const char *fmt, ...) VC_PRINTF(2, 3);
#define vc_err(...) vc_msg(VC_MSG_ERR, __VA_ARGS__)
#define vc_warn(...) vc_msg(VC_MSG_WARN, __VA_ARGS__)
#define vc_info(...) vc_msg(VC_MSG_INFO, __VA_ARGS__)
#define vc_debug(...) vc_msg(VC_MSG_DEBUG, __VA_ARGS__)

#endif
