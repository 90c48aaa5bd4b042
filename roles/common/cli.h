/* SPDX-License-Identifier: MIT
 *
 * cli.h - what the client's commands share: numbers, exit statuses, JSON strings
 */
#ifndef COMMON_CLI_H
#define COMMON_CLI_H

#include <stdint.h>
#include <stdio.h>

#include "../../proto/vfun.h"

#define CLI_GO_ON (-2) /* instead of an exit status: there is none yet */

/* Before the command line is looked at: getopt's messages begin with "vfun ROLE". */
void cli_begin(char **argv, const char *role);

/* What is wrong with the command line, in one line that leads to the role's --help. EXIT_USAGE. */
int cli_wrong(const char *role, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Exit status (roles.h) for a -errno of the client library. */
int cli_status(int err);

/* Decimal number; 0 or -EINVAL. */
int cli_u64(const char *s, uint64_t *out);

/* The same with an optional K, M or G. */
int cli_size(const char *s, uint64_t *out);

/* Seconds, with an optional fraction, as milliseconds; 0 or -EINVAL. */
int cli_seconds(const char *s, unsigned *ms);

/* A JSON string literal. */
void cli_json_string(FILE *to, const char *s);

/* Flush standard output and see whether everything got there: EXIT_OK, or EXIT_SYSTEM after a line on stderr. */
int cli_flush(const char *role);

const char *cli_target_name(unsigned target);

#endif
