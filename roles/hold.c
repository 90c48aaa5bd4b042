/* SPDX-License-Identifier: MIT
 *
 * hold.c - vfun hold: holds the memory of a VM's ivshmem device for a QEMU of another user than vfund's
 *
 *	vfun-hold VM UID GID OPTIONAL LABEL	started by vfund only, see roles/daemon/holder.c and hold.h
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
 *
 * Where SELinux confines QEMU, it may look into the /proc of a process of its own label only. So this process takes
 * that as well, if there is one and the policy lets it. It can do so only when all else is done, since with that label
 * it may do none of it; and there is no /proc any more then, so the file to write to is opened before.
 */
#include <errno.h>
#include <fcntl.h>
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

/* Where to write the label to, or -errno; -1 as well if there is no label. */
static int
open_label(const char *label)
{
	int fd = *label ? open("/proc/self/attr/current", O_WRONLY | O_CLOEXEC) : -1;

	return *label && fd < 0 ? -errno : fd;
}

/* Without it a confined QEMU won't reach the memory, but any other will. */
static void
take_label(int fd, const char *vm, const char *label)
{
	size_t size = strlen(label) + 1;
	int r = fd < 0 ? fd : 0;

	if (!*label)
		return;
	if (!r && write(fd, label, size) != (ssize_t)size)
		r = -errno;
	if (r)
		log_warn("VM %s: what holds its ivshmem memory can't take label %s, so that a QEMU that SELinux "
			 "confines can't open it: %s: see vfun-domain(1)",
		    vm, label, strerror(-r));
	if (fd >= 0)
		close(fd);
}

int
role_hold(int argc, char **argv)
{
	int keep[] = { HOLD_MEMORY_FD, HOLD_READY_FD, -1 };
	struct sandbox box = { .keep = keep, .nkeep = 3, .files_max = 16, .data_max = SANDBOX_DATA };
	const char *stage;
	int r;

	if (argc == 2 && !strcmp(argv[1], "--print-syscalls")) {
		sandbox_print("hold, serving", calls, NULL);
		return EXIT_OK;
	}
	if (argc != 6) {
		fprintf(stderr, "vfun hold: is started by vfund\n");
		return EXIT_USAGE;
	}
	log_init("vfun-hold", 0);
	box.uid = number(argv[2]);
	box.gid = number(argv[3]);
	box.optional = number(argv[4]);
	keep[2] = open_label(argv[5]);
	r = sandbox_enter(&box, &stage);
	if (!r) {
		take_label(keep[2], argv[1], argv[5]);
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
