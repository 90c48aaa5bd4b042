/* SPDX-License-Identifier: MIT
 *
 * half.h - the host half (roles/service/half.c), which is part of this executable
 */
#ifndef COMMON_HALF_H
#define COMMON_HALF_H

/* A descriptor to execute it from (execveat, AT_EMPTY_PATH), close-on-exec: a memfd, or, where vm.memfd_noexec forbids
 * these to be executed, a file without a name in `dir`. -errno. */
int half_open(const char *dir);

/* The same for a copy of the file that `from` is open for reading, from its start: what becomes of the file afterwards
 * doesn't matter. */
int half_copy(int from, const char *dir);

#endif
