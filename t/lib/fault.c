/* SPDX-License-Identifier: MIT
 *
 * fault.c - a confined service that does something wrong: does the sanitizer still get a word out?
 *
 *   fault heap|free|ub|segv|none
 *
 * All that a service allows itself while serving is in force: the stages of the sandbox, both lists of system calls.
 */
#include <stdlib.h>

#include "../../roles/service/service.c"

int
main(int argc, char **argv)
{
	struct sandbox box = { .files_max = 16 };
	const char *what = argc > 1 ? argv[1] : "", *stage;
	volatile int big = INT32_MAX;
	volatile char *p = malloc(10);

	if (!p || sandbox_enter(&box, &stage) || sandbox_syscalls(calls_setup, NULL) ||
	    sandbox_syscalls(calls_serving, NULL))
		return 1;
	for (size_t size = 1; size < 1 << 22; size *= 2) /* malloc's own calls */
		free(malloc(size));
	if (!strcmp(what, "heap"))
		memset((void *)(uintptr_t)p, 1, (size_t)(big & 11));
	else if (!strcmp(what, "free"))
		free((void *)(uintptr_t)p);
	else if (!strcmp(what, "ub"))
		big++;
	else if (!strcmp(what, "segv"))
		*(volatile char *)8 = 1;
	if (!strcmp(what, "free"))
		p[3] = 1;
	_exit(0);
}
