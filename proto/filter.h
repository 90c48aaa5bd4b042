/* SPDX-License-Identifier: MIT
 *
 * filter.h - load a filter of system calls that vfund's service has made, in a program that has no libseccomp
 */
#ifndef PROTO_FILTER_H
#define PROTO_FILTER_H

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILTER_MAX 4096 /* instructions, the kernel's limit */

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
