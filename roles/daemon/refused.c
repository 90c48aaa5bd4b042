/* SPDX-License-Identifier: MIT
 *
 * refused.c - a service has ended for a system call that isn't on its list: which one was it?
 *
 * Its handler of SIGSYS has written the signal's siginfo_t to its socket (proto/filter.h). A service that was taken
 * over, and a program at any time, can write there what they like: it is a sentence for people and nothing else.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "../common/sandbox.h"
#include "launcher.h"

#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1
#endif

int
refused_call(const void *msg, long n)
{
	siginfo_t si;

	if (n != (long)sizeof(si))
		return -1;
	memcpy(&si, msg, sizeof(si));
	return si.si_signo == SIGSYS && si.si_code == SYS_SECCOMP && si.si_syscall >= 0 ? si.si_syscall : -1;
}

void
refused_sentence(const char *program, int nr, char text[VFUN_TEXT_MAX])
{
	char name[SANDBOX_NAME];

	if (nr < 0)
		snprintf(
		    text, VFUN_TEXT_MAX, "%s made a system call that it may not make (vfun.conf: syscalls)", program);
	else if (sandbox_call_name(nr, name))
		snprintf(text, VFUN_TEXT_MAX, "%s called %s(), which vfun.conf doesn't allow: syscalls = %s", program,
		    name, name);
	else
		snprintf(text, VFUN_TEXT_MAX, "%s made system call %d, which vfun can't allow: it has no name for it",
		    program, nr);
}

void
refused_text(const struct service *s, char text[VFUN_TEXT_MAX])
{
	char name[SANDBOX_NAME];

	if (s->refused < 0)
		return;
	if (!sandbox_call_name(s->refused, name))
		snprintf(name, sizeof(name), "system call %d", s->refused);
	snprintf(
	    text, VFUN_TEXT_MAX, "the service of %s ended: signal %d: it may not call %s", s->fn->name, SIGSYS, name);
}
