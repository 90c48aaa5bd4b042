/* SPDX-License-Identifier: MIT
 *
 * othercall.c - make a process make another system call than it wanted: othercall PID NUMBER
 *
 * For a process that sleeps in one, as a service does. The kernel looks at the call again after this, by the filters of
 * the process.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

static int
stopped(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFSTOPPED(status);
}

int
main(int argc, char **argv)
{
	pid_t pid = argc == 3 ? atoi(argv[1]) : 0;

	if (!pid || ptrace(PTRACE_SEIZE, pid, 0, 0) || ptrace(PTRACE_INTERRUPT, pid, 0, 0) || !stopped(pid) ||
	    ptrace(PTRACE_SYSCALL, pid, 0, 0) || !stopped(pid) ||
	    ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, orig_rax), strtol(argv[2], NULL, 10)) ||
	    ptrace(PTRACE_DETACH, pid, 0, 0)) {
		perror("othercall");
		return 1;
	}
	return 0;
}
