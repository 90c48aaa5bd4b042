/* SPDX-License-Identifier: MIT
 *
 * refused.c - a program that makes a system call that it may not make, in the way that the function's name says
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../proto/vfun.h"

static const char *is; /* the function's name */

static int
named(const char *name)
{
	return !strcmp(is, name);
}

/* A handler that lets the process live. */
static void
survive(int sig)
{
	(void)sig;
}

static int
init(void **state, uint64_t result_max)
{
	(void)state;
	(void)result_max;
	if (named("early"))
		(void)syscall(SYS_getppid);
	return 0;
}

/* Before the call: what could keep it from being told, or the process alive. */
static void
prepare(void)
{
	struct sigaction sa = { .sa_handler = survive };
	siginfo_t lie = { .si_signo = SIGSYS, .si_code = 1 };
	sigset_t all;

	sigfillset(&all);
	if (named("blocks"))
		pthread_sigmask(SIG_BLOCK, &all, NULL);
	if (named("handles"))
		sigaction(SIGSYS, &sa, NULL);
	/* Until the socket is full. */
	while (named("babbles") && write(VFUN_PROGRAM_SOCKET, "not this", 8) == 8)
		;
	lie.si_syscall = 7777;
	if (named("lies") && write(VFUN_PROGRAM_SOCKET, &lie, sizeof(lie)) < 0)
		_exit(1);
}

static int
call(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out)
{
	(void)state;
	if (in->arg[0])
		return vfun_result_put(out, "fine", 4);
	prepare();
	if (named("number"))
		syscall(600);
	else if (named("other"))
		__asm__ volatile("int $0x80" : : "a"(20) : "memory"); /* getpid of 32 bits */
	else if (named("reads"))
		(void)!syscall(SYS_openat, -100, "/etc/passwd", 0);
	else
		(void)socket(AF_INET, SOCK_STREAM, 0);
	return vfun_result_put(out, "alive", 5);
}

int
main(int argc, char **argv)
{
	static const struct vfun_program program = { .size = sizeof(program),
		.signature = "n u64 -> out u8[*]",
		.summary = "refused",
		.init = init,
		.call = call,
		.threads = 1 };

	is = argv[0];
	if (named("asked") && argc > 1)
		(void)syscall(SYS_getppid);
	if (named("own"))
		signal(SIGSYS, survive);
	return vfun_serve(&program, argc, argv);
}
