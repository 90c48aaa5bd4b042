/* SPDX-License-Identifier: MIT
 *
 * log.h - one line per event, on standard error, with the role's name and pid
 *
 * vfund's children inherit its standard error, so one stream holds them all. A line that begins with a priority in
 * angle brackets is what systemd's journal expects; it is added where standard error is what $JOURNAL_STREAM names.
 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stdarg.h>

enum log_level { LOG_ERR_ = 3, LOG_WARN_ = 4, LOG_INFO_ = 6, LOG_DEBUG_ = 7 };

/* Name shown in every line ("vfund"), and whether debug lines are shown. `name` is kept by reference. */
void log_init(const char *name, int verbose);

void log_err(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* From now on lines are dropped rather than waited for, see log.c. For vfund; commands may wait for their terminal. */
void log_never_wait(void);

/* Say how many lines were dropped. 1: that doesn't fit yet either, try again later. */
int log_behind(void);

/* Where lines go: standard error, or the same opened anew; for children. */
int log_descriptor(void);

#endif
