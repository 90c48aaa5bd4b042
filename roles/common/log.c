/* SPDX-License-Identifier: MIT
 *
 * log.c - one line per event, on standard error
 *
 * A line is one write(2), so that lines of several processes don't mix, and needs no other system call: it works in
 * every sandbox stage. Control characters are replaced: names and sentences may come from a guest.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../proto/plain.h"
#include "log.h"

static const char *log_name = "vfun";
static int log_verbose;
static int log_journal;
static int log_pid;

/* This process's number as others see it: a confined one is number 1 in a pid namespace of its own. */
static int
outer_pid(void)
{
	char number[16];
	ssize_t n = readlink("/proc/self", number, sizeof(number) - 1);

	if (n <= 0)
		return (int)getpid();
	number[n] = '\0';
	return atoi(number);
}

void
log_init(const char *name, int verbose)
{
	log_name = name;
	log_verbose = verbose;
	log_journal = getenv("JOURNAL_STREAM") != NULL;
	log_pid = outer_pid();
}

static void
log_line(enum log_level level, const char *fmt, va_list ap)
{
	char line[1024];
	int at = 0;
	int n;

	if (log_journal)
		at = snprintf(line, sizeof(line), "<%d>", level);
	at += snprintf(line + at, sizeof(line) - (size_t)at, "%s[%d]: %s", log_name, log_pid,
	    level == LOG_ERR_	 ? "error: "
	    : level == LOG_WARN_ ? "warning: "
				 : "");
	n = vsnprintf(line + at, sizeof(line) - (size_t)at - 1, fmt, ap);
	if (n > 0)
		at += n;
	if (at > (int)sizeof(line) - 2)
		at = (int)sizeof(line) - 2;
	line[at] = '\0';
	plain_text(line);
	line[at++] = '\n';
	/* Nobody to tell if standard error itself is broken. */
	if (write(STDERR_FILENO, line, (size_t)at) < 0)
		return;
}

#define LOG_FUNCTION(name, level)                                                                                      \
	void name(const char *fmt, ...)                                                                                \
	{                                                                                                              \
		va_list ap;                                                                                            \
		va_start(ap, fmt);                                                                                     \
		log_line(level, fmt, ap);                                                                              \
		va_end(ap);                                                                                            \
	}

LOG_FUNCTION(log_err, LOG_ERR_)
LOG_FUNCTION(log_warn, LOG_WARN_)
LOG_FUNCTION(log_info, LOG_INFO_)

void
log_debug(const char *fmt, ...)
{
	va_list ap;

	if (!log_verbose)
		return;
	va_start(ap, fmt);
	log_line(LOG_DEBUG_, fmt, ap);
	va_end(ap);
}
