/* SPDX-License-Identifier: MIT
 *
 * script.h - several commands in one guest: what `vfun vm --script FILE` runs
 */
#ifndef INIT_SCRIPT_H
#define INIT_SCRIPT_H

/* Follow the script. Returns the exit status: 0, or that of the first line that failed. */
int script_run(const char *path);

/* Become the command; a message and status 127 if there is no such program. */
_Noreturn void script_exec(char *const *argv);

#endif
