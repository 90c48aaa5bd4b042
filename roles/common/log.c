/* SPDX-License-Identifier: MIT
 *
 * log.c - one line per event, on standard error
 *
 * A line is one write(2), so that lines of several processes don't mix, and needs no other system call: it works in
 * every sandbox stage. Control characters are replaced: names and sentences may come from a guest.
 *
 * vfund never waits for whoever reads its log: a line that doesn't fit is dropped and counted, and the number is
 * written as soon as something fits again. Standard error may be shared with processes that want to wait, so its flags
 * are left alone: a pipe or terminal is opened anew, to a socket there is a call that doesn't wait. Where it can't be
 * opened anew (somebody else's terminal), poll() is asked first. A file is written to as it is: it only waits for its
 * disk.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../proto/plain.h"
#include "log.h"

#define LOG_FD_MIN 10 /* out of the way of what children get from 3 on */

static const char *log_name = "vfun";
static int log_verbose;
static int log_journal;
static int log_pid;
static int log_fd = STDERR_FILENO;
static enum { WRITE, SEND, POLL } log_how = WRITE;
static unsigned log_lost; /* lines that didn't fit */
static int log_torn;	  /* the last one fitted in part */

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

/* $JOURNAL_STREAM is inherited by whoever is started from a service, standard error may be another by then: the
 * variable names the device and inode for which it holds. */
static int
is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	struct stat st;
	char *end;

	return stream && fstat(STDERR_FILENO, &st) == 0 && strtoull(stream, &end, 10) == st.st_dev && *end == ':' &&
	       strtoull(end + 1, &end, 10) == st.st_ino && !*end;
}

void
log_init(const char *name, int verbose)
{
	log_name = name;
	log_verbose = verbose;
	log_journal = is_journal();
	log_pid = outer_pid();
}

void
log_never_wait(void)
{
	struct stat st;
	int fd;

	if (fstat(STDERR_FILENO, &st) < 0)
		return;
	if (S_ISSOCK(st.st_mode)) {
		log_how = SEND;
	} else if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
		fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		log_fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, LOG_FD_MIN);
		if (fd >= 0)
			close(fd);
		if (log_fd < 0) {
			log_fd = STDERR_FILENO;
			log_how = POLL;
		}
	}
}

int
log_descriptor(void)
{
	return log_fd;
}

/* 1, or 0: it didn't fit. */
static int
put(const char *line, size_t len)
{
	struct pollfd p = { .fd = log_fd, .events = POLLOUT };
	ssize_t n = -1;

	if (log_how == SEND)
		n = send(log_fd, line, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	else if (log_how == WRITE || poll(&p, 1, 0) > 0)
		n = write(log_fd, line, len);
	log_torn = n > 0 ? (size_t)n < len : log_torn;
	return n == (ssize_t)len;
}

/* "name[pid]: ", with what a journal wants before it. How many bytes. */
static int
begin(char *line, size_t size, enum log_level level)
{
	char priority[8] = "";

	if (log_journal)
		snprintf(priority, sizeof(priority), "<%d>", level);
	return snprintf(line, size, "%s%s[%d]: %s", priority, log_name, log_pid,
	    level == LOG_ERR_	 ? "error: "
	    : level == LOG_WARN_ ? "warning: "
				 : "");
}

int
log_behind(void)
{
	char line[160] = "\n";
	int at = log_torn;

	if (!log_lost)
		return 0;
	at += begin(line + at, sizeof(line) - (size_t)at, LOG_WARN_);
	at += snprintf(line + at, sizeof(line) - (size_t)at,
	    "%u line%s of log did not fit and %s lost: its reader is too slow, or its disk full\n", log_lost,
	    log_lost == 1 ? "" : "s", log_lost == 1 ? "is" : "are");
	if (!put(line, (size_t)at))
		return 1;
	log_lost = 0;
	return 0;
}

static void
log_line(enum log_level level, const char *fmt, va_list ap)
{
	char line[1024];
	int at = begin(line, sizeof(line), level);
	int n = vsnprintf(line + at, sizeof(line) - (size_t)at - 1, fmt, ap);

	if (n > 0)
		at += n;
	if (at > (int)sizeof(line) - 2)
		at = (int)sizeof(line) - 2;
	line[at] = '\0';
	plain_text(line);
	line[at++] = '\n';
	if (log_behind() || !put(line, (size_t)at))
		log_lost++;
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
