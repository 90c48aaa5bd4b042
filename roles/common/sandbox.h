/* SPDX-License-Identifier: MIT
 *
 * sandbox.h - confining a process before it touches what a guest can reach
 */
#ifndef COMMON_SANDBOX_H
#define COMMON_SANDBOX_H

#include <stdint.h>

struct sandbox {
	const int *keep; /* descriptors to keep open, besides 0..2 */
	int nkeep;
	uint32_t uid; /* system mode: the uid and gid to become; 0: user mode, in a user namespace */
	uint32_t gid;
	uint64_t memory_max; /* RLIMIT_AS in bytes, 0: no limit */
	unsigned files_max;  /* RLIMIT_NOFILE */
};

/* Everything but system calls: closed descriptors, rlimits, namespaces with an empty read-only root, ids, capabilities,
 * no_new_privs, not dumpable. The process must be single-threaded. Returns 0, or -errno with *stage naming what failed:
 * the caller must then not go on. */
int sandbox_enter(const struct sandbox *s, const char **stage);

/* Allow these system call numbers (ended by -1) and no others, for ever: anything else kills the process. May be called
 * again with a shorter list (which must then have been among the first: seccomp and prctl are the caller's business to
 * list). 0 or -errno. */
int sandbox_syscalls(const int *allowed);

#endif
