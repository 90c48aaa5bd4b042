/* SPDX-License-Identifier: MIT
 *
 * halves.c - the host half as a child of the launcher's: it looks at what comes from elsewhere, with the host's
 * libraries, and is confined before it is executed
 *
 * Its list of system calls is a filter in a file, which it loads as the first thing that it does: the dynamic loader
 * comes before that. The half can't be read by whoever executes it, only executed, so that the kernel makes it not
 * dumpable from the start: no other process of its user can attach to it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "../roles.h"
#include "launcher.h"

#define HIGH 16 /* descriptors that are out of the way */

/* What the loader and the C library need, before and after. */
static const struct sandbox_call loading[] = {
	SANDBOX_CALL(mmap, "libraries"),
	SANDBOX_CALL(mprotect, "libraries"),
	SANDBOX_CALL(munmap, "memory"),
	SANDBOX_CALL(mremap, "memory"),
	SANDBOX_CALL(brk, "memory"),
	SANDBOX_CALL(madvise, "memory"),
	SANDBOX_CALL(openat, "libraries and their settings; the root is read-only"),
	SANDBOX_CALL(read, "the same"),
	SANDBOX_CALL(pread64, "the same"),
	SANDBOX_CALL(lseek, "the same"),
	SANDBOX_CALL(close, "the same"),
	SANDBOX_CALL(fstat, "the same"),
	SANDBOX_CALL(newfstatat, "the same"),
	SANDBOX_CALL(access, "the same"),
	SANDBOX_CALL(faccessat, "the same"),
	SANDBOX_CALL(faccessat2, "the same"),
	SANDBOX_CALL(readlink, "the same"),
	SANDBOX_CALL(readlinkat, "the same"),
	SANDBOX_CALL(getcwd, "the same"),
	SANDBOX_CALL(write, "what it has to say, and the log"),
	SANDBOX_CALL(getrandom, "malloc"),
	SANDBOX_CALL(futex, "locks"),
	SANDBOX_CALL(rt_sigprocmask, "the C library"),
	SANDBOX_CALL(rt_sigaction, "the same"),
	SANDBOX_CALL(rt_sigreturn, "the same"),
	SANDBOX_CALL(clock_gettime, "where there is no vdso"),
	SANDBOX_CALL(gettimeofday, "the same"),
	SANDBOX_CALL(time, "the same"),
	SANDBOX_CALL(restart_syscall, "a wait that was stopped and continued"),
	SANDBOX_CALL_FAILS(ioctl, "is the log a terminal?", ENOTTY),
	SANDBOX_CALL(exit_group, "the end"),
	SANDBOX_END,
};

static int
filter(const struct sandbox_call *calls)
{
	int fd = memfd_create("vfun-filter", MFD_CLOEXEC);
	int r = fd < 0 ? -errno : sandbox_export(fd, loading, calls);

	if (r && fd >= 0)
		close(fd);
	return r ? r : fd;
}

/* Descriptors to 3 and the numbers behind it, the filter last. 0 or -errno. */
static int
place(const struct half_job *j, int list)
{
	int high[HALF_FDS + 1];
	int n = 0;

	for (; n < j->nfds; n++)
		high[n] = fcntl(j->fds[n], F_DUPFD_CLOEXEC, HIGH);
	high[n++] = fcntl(list, F_DUPFD_CLOEXEC, HIGH);
	for (int i = 0; i < n; i++)
		if (high[i] < 0 || dup2(high[i], 3 + i) < 0)
			return -errno;
	return 0;
}

static int
standard_files(int out)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	return null < 0 || dup2(null, 0) < 0 || dup2(out < 0 ? null : out, 1) < 0 ? -errno : 0;
}

void
half_run(int half, const struct half_job *j, struct view *v)
{
	int keep[HALF_FDS + 2] = { fcntl(half, F_DUPFD_CLOEXEC, 2 * HIGH) };
	struct sandbox box = { .keep = keep,
		.nkeep = 2 + j->nfds,
		.uid = j->uid,
		.gid = j->gid,
		.files_max = 64,
		.data_max = SANDBOX_DATA,
		.threads = 1,
		.optional = j->optional,
		.view = v->list };
	int list = filter(j->calls);
	const char *stage = "descriptors";
	sigset_t none;
	int r = list < 0 ? list : standard_files(j->out);

	if (fchmod(half, 0111) < 0)
		r = -errno;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0);
	if (!r)
		r = place(j, list);
	for (int i = 0; i <= j->nfds; i++)
		keep[1 + i] = 3 + i;
	view_add_libraries(v);
	box.views = v->n;
	if (!r)
		r = sandbox_enter(&box, &stage);
	if (!r) {
		stage = "the host half";
		syscall(SYS_execveat, keep[0], "", j->argv, j->env, AT_EMPTY_PATH);
		r = -errno;
	}
	log_err("%s can't be started: %s: %s", j->argv[1], stage, strerror(-r));
	_exit(EXIT_SYSTEM);
}
