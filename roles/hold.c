/* SPDX-License-Identifier: MIT
 *
 * hold.c - vfun hold: holds the memory of a VM's ivshmem device for a QEMU of another user than vfund's
 *
 *	vfun-hold VM UID GID OPTIONAL	started by vfund only, see roles/daemon/holder.c and hold.h
 *
 * Theory of operation
 *
 * QEMU wants a path, and a memfd has none but the one in /proc of a process that has it open, which only a process of
 * the same user and group may follow. So this process takes QEMU's, and waits to be killed.
 *
 * It is the only one of vfun's that is dumpable: who may follow the link may also attach to it, as any of the user's
 * processes to any other. What such a one gains is nothing: there is no memory here but this executable's, no
 * descriptor but the memfd, which it may open anyway, no namespace, no capability and no path to anything; and the only
 * system calls that this process can be made to do are to wait and to end, which holds for a debugger as well.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/hold.h"
#include "common/log.h"
#include "common/sandbox.h"
#include "roles.h"

static const struct sandbox_call calls[] = { SANDBOX_CALL(pause, "wait"), SANDBOX_CALL(exit_group, "end"),
	SANDBOX_END };

static uint32_t
number(const char *s)
{
	return (uint32_t)strtoul(s, NULL, 10);
}

int
role_hold(int argc, char **argv)
{
	const int keep[] = { HOLD_MEMORY_FD, HOLD_READY_FD };
	struct sandbox box = { .keep = keep, .nkeep = 2, .files_max = 16, .data_max = SANDBOX_DATA };
	const char *stage;
	int r;

	if (argc == 2 && !strcmp(argv[1], "--print-syscalls")) {
		sandbox_print("hold, serving", calls, NULL);
		return EXIT_OK;
	}
	if (argc != 5) {
		fprintf(stderr, "vfun hold: is started by vfund\n");
		return EXIT_USAGE;
	}
	log_init("vfun-hold", 0);
	box.uid = number(argv[2]);
	box.gid = number(argv[3]);
	box.optional = number(argv[4]);
	r = sandbox_enter(&box, &stage);
	if (!r) {
		/* vfund's log, too, is nothing for QEMU's user. */
		stage = "dumpable";
		r = dup2(STDIN_FILENO, STDERR_FILENO) < 0 || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 ? -errno : 0;
	}
	if (!r) {
		stage = "system calls";
		close(HOLD_READY_FD);
		r = sandbox_syscalls(calls, NULL);
	}
	if (r) {
		log_err(
		    "VM %s: what holds its ivshmem memory can't be confined (%s): %s", argv[1], stage, strerror(-r));
		return EXIT_SYSTEM;
	}
	for (;;)
		(void)syscall(SYS_pause);
}
