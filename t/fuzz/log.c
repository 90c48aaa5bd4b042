/* SPDX-License-Identifier: MIT
 *
 * log.c - log lines while fuzzing: formatted, since that may go wrong as well, and forgotten
 *
 * With FUZZ_LOG in the environment they are shown.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../../roles/common/log.h"

void
log_init(const char *name, int verbose)
{
	(void)name;
	(void)verbose;
}

int
log_behind(void)
{
	return 0;
}

#define LOG_FUNCTION(name)                                                                                             \
	void name(const char *fmt, ...)                                                                                \
	{                                                                                                              \
		static int show = -1;                                                                                  \
		char line[512];                                                                                        \
		va_list ap;                                                                                            \
                                                                                                                       \
		if (show < 0)                                                                                          \
			show = getenv("FUZZ_LOG") != NULL;                                                             \
		va_start(ap, fmt);                                                                                     \
		vsnprintf(line, sizeof(line), fmt, ap);                                                                \
		va_end(ap);                                                                                            \
		if (show)                                                                                              \
			fprintf(stderr, "%s\n", line);                                                                 \
	}

LOG_FUNCTION(log_err)
LOG_FUNCTION(log_warn)
LOG_FUNCTION(log_info)
LOG_FUNCTION(log_debug)
