/* SPDX-License-Identifier: MIT
 *
 * filter.h - load a filter of system calls that vfund's service has made, in a program that has no libseccomp; and die
 * of it, saying of which call
 *
 * A service's filters raise SIGSYS (SECCOMP_RET_TRAP). Unhandled it kills, and nobody knows which call it was. The
 * handler here tells the launcher, and ends the process all the same: when a service has been taken over nothing of
 * that can be prevented. The handler depends on no memory, so that another thread can't lead it astray; and it can't be
 * replaced or blocked, since rt_sigaction isn't on the lists for SIGSYS, and a blocked one kills unhandled.
 */
#ifndef PROTO_FILTER_H
#define PROTO_FILTER_H

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILTER_MAX 4096	      /* instructions, the kernel's limit */
#define FILTER_SOCKET 3	      /* to the launcher, not blocking */
#define FILTER_X32 0x40000000 /* a call of the x32 ABI, for which every filter kills the process */

/* SIGSYS: the launcher gets the siginfo_t, and that was it. */
static inline void
filter_refused(int sig, siginfo_t *si, void *context)
{
	long r = SYS_write;

	(void)context;
	__asm__ volatile("syscall"
			 : "+a"(r)
			 : "D"((long)FILTER_SOCKET), "S"(si), "d"(sizeof(*si))
			 : "rcx", "r11", "memory");
	for (;;) {
		r = FILTER_X32;
		__asm__ volatile("syscall" : "+a"(r) : : "rcx", "r11", "memory");
		/* Raised by something else than a filter. */
		r = SYS_exit_group;
		__asm__ volatile("syscall" : "+a"(r) : "D"((long)(128 + sig)) : "rcx", "r11", "memory");
	}
}

/* From here on the launcher learns of it. 0 or -errno. */
static inline int
filter_tells(void)
{
	struct sigaction sa = { .sa_sigaction = filter_refused, .sa_flags = SA_SIGINFO };

	return sigaction(SIGSYS, &sa, NULL) < 0 ? -errno : 0;
}

/* The filter in a file, for all threads; fd is closed. 0 or -errno. */
static inline int
filter_load(int fd)
{
	static struct sock_filter code[FILTER_MAX];
	ssize_t n = pread(fd, code, sizeof(code), 0);
	struct sock_fprog prog = { .filter = code };

	if (n <= 0 || n % (ssize_t)sizeof(code[0]))
		return n < 0 ? -errno : -EINVAL;
	prog.len = (unsigned short)(n / (ssize_t)sizeof(code[0]));
	close(fd);
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog) ? -EACCES : 0;
}

#endif
