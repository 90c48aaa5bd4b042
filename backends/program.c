/* SPDX-License-Identifier: MIT
 *
 * program.c - the backend program, vfund's side of it: the system calls that an executable of the administrator's may
 * make, besides those of every service (roles/service/service.c)
 *
 * Computing, memory within its bounds, the time, last words: what C, C++, Fortran and Python do while they compute, as
 * far as it tells nothing of the host (t/runtimes.t). What a function needs beyond that is named in vfun.conf
 * (`syscalls`), and allowed in both stages. The rest is in the program itself (proto/program.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "calls.h"
#include "program.h"

/* What may go on while it serves. */
#define COMPUTING                                                                                                      \
	CALL_IF(mmap, "malloc; never executable", 2, UINT32_MAX & ~(uint32_t)(PROT_READ | PROT_WRITE), 1, 0),          \
	    CALL(munmap, "malloc"), CALL(mremap, "malloc"), CALL(brk, "malloc"),                                       \
	    CALL_IF(mprotect, "malloc; never executable", 2, UINT32_MAX & ~(uint32_t)(PROT_READ | PROT_WRITE), 1, 0),  \
	    CALL(madvise, "malloc gives memory back"), CALL(getrandom, "malloc's key"),                                \
	    CALL_IF(futex, "locks among its threads", 1, UINT32_MAX, 4, FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE,        \
		FUTEX_WAIT_BITSET_PRIVATE, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME),                          \
	    CALL_IF(write, "words for vfund's log", 0, UINT32_MAX, 3, STDOUT_FILENO, STDERR_FILENO, 3),                \
	    CALL_IF(writev, "the same", 0, UINT32_MAX, 2, STDOUT_FILENO, STDERR_FILENO),                               \
	    CALL_FAILS(ioctl, "is the log a terminal?", ENOTTY), CALL(gettid, "abort()"), CALL(getpid, "abort()"),     \
	    CALL(clock_getres, "how exact is the time?"), CALL(gettimeofday, "the time, where there is no vdso"),      \
	    CALL(time, "the same"), CALL(getrusage, "the time used by itself"), CALL(times, "the same"),               \
	    CALL(clock_nanosleep, "a lock that backs off"), CALL(nanosleep, "the same"), CALL(tgkill, "abort()"),      \
	    CALL(rt_sigprocmask, "abort()"), CALL(rt_sigreturn, "a handler's end")

static const struct backend_syscall setting_up[] = { COMPUTING, CALL(rt_sigaction, "handlers"),
	CALL_IF(execveat, "the program; what else it can see would be confined alike", 0, UINT32_MAX, 1, PROGRAM_FD),
	CALL(mmap, "libraries, which are executable"), CALL(mprotect, "the same"),
	CALL(openat, "libraries, and its files; the root is read-only"), CALL(open, "the same"), CALL(read, "the same"),
	CALL(readv, "the same"), CALL(pread64, "the same"), CALL(lseek, "the same"), CALL(fstat, "the same"),
	CALL(stat, "the same"), CALL(newfstatat, "the same"), CALL(statx, "the same"), CALL(access, "the same"),
	CALL(faccessat2, "the same"), CALL(readlink, "the same"), CALL(readlinkat, "the same"),
	CALL(getdents64, "the same"), CALL(getcwd, "the same"), CALL(fcntl, "the same"), CALL(dup, "the same"),
	CALL(fadvise64, "the same"), CALL(arch_prctl, "a process begins"), CALL(set_tid_address, "the same"),
	CALL(set_robust_list, "the same, and a thread"), CALL(rseq, "the same"),
	CALL(prlimit64, "the same: how large is the stack?"), CALL(sigaltstack, "the same"),
	CALL_IF(clone, "threads; no process", 0, CLONE_THREAD, 1, CLONE_THREAD),
	CALL(exit, "of a thread that was for preparing"),
	CALL_IF(futex, "its end is waited for", 1, UINT32_MAX, 2, FUTEX_WAIT_BITSET,
	    FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME),
	CALL_FAILS(clone3, "the C library then takes clone", ENOSYS), CALL(sched_getaffinity, "how many processors?"),
	CALL(sysinfo, "the same"), CALL(uname, "which system?"), CALL(getuid, "who is it?"), CALL(geteuid, "the same"),
	CALL(getgid, "the same"), CALL(getegid, "the same"),
	CALL_FAILS(socket, "the C library looks for a daemon that knows users, and does without", EACCES),
	CALL_IF(prctl, "names of threads and memory; not to be dumped", 0, UINT32_MAX, 3, PR_SET_DUMPABLE, PR_SET_NAME,
	    0x53564d41 /* PR_SET_VMA */),
	END };

/* Not SIGSYS: its handler is the one that tells the launcher, and ends the process (proto/filter.h). */
static const struct backend_syscall serving[] = { COMPUTING,
	CALL_IF(rt_sigaction, "abort(); handlers of what computing can raise", 0, UINT32_MAX, 4, SIGABRT, SIGFPE,
	    SIGSEGV, SIGBUS),
	CALL_IF(rt_sigaction, "the same", 0, UINT32_MAX, 2, SIGILL, SIGPIPE), END };

const struct backend backend_program = {
	.name = "program", .program = 1, .setting_up = setting_up, .serving = serving
};
