/* SPDX-License-Identifier: MIT
 *
 * program.h - a vFunction that is an executable of the administrator's: its description
 *
 * The description is vfun.conf's, for one function, and, of what the program says of itself, its signature and summary.
 * It goes from vfund to the service as it is.
 */
#ifndef BACKENDS_PROGRAM_H
#define BACKENDS_PROGRAM_H

#include <stdint.h>

#include "../proto/vfun.h"

#define PROGRAM_FD 40 /* where the service has it when it executes it */
#define PROGRAM_FILES_MAX 16

struct program_desc {
	char path[200];
	char summary[VFUN_SUMMARY_MAX];
	char files[512];    /* what it sees, read-only: absolute paths, blanks between them */
	char syscalls[512]; /* what it may call beyond the default, by name, blanks between them */
	uint32_t features;  /* VFUN_FEATURE_* that it says it knows */
	uint32_t limit_ms;  /* of one call; 0: none */
};

#endif
