/* SPDX-License-Identifier: MIT
 *
 * xclbins.c - do vfun.conf's descriptions of functions in hardware fit their xclbins?
 *
 * The host half reads the xclbin (backends/xrt/xclbin.c), in a process of its own and without privileges: vfund itself
 * parses no such file. What it prints is what doesn't fit, a line each.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/half.h"
#include "launcher.h"

/* The child: description at 3, image at 4, words to the pipe. */
static _Noreturn void
compare(uid_t uid, int half, int desc, int image, int out)
{
	char *const argv[] = { "vfun-half", "xclbin", NULL };
	char *const env[] = { NULL };
	int high[4] = { half, desc, image, out };

	for (int i = 0; i < 4; i++)
		high[i] = fcntl(high[i], F_DUPFD_CLOEXEC, 16);
	if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0))
		_exit(126);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	dup2(high[1], 3);
	dup2(high[2], 4);
	dup2(high[3], STDOUT_FILENO);
	syscall(SYS_execveat, high[0], "", argv, env, AT_EMPTY_PATH);
	_exit(127);
}

static int
describe(const struct xrt_desc *d)
{
	int fd = memfd_create("vfun-description", MFD_CLOEXEC);
	int r = fd < 0 ? -errno : fd_write_all(fd, d, sizeof(*d));

	if (r && fd >= 0)
		close(fd);
	return r ? r : fd;
}

/* Hand on what the child says. The number of lines. */
static int
relay(int in, const struct conf_function *f, conf_complain *complain, void *arg)
{
	FILE *lines = fdopen(in, "r");
	char line[256];
	char text[CONF_PATH_MAX + 320];
	int n = 0;

	while (lines && fgets(line, sizeof(line), lines)) {
		line[strcspn(line, "\n")] = '\0';
		snprintf(text, sizeof(text), "[function %s]: xclbin %s: %s", f->name, f->xrt.xclbin, line);
		complain(arg, f->line, text);
		n++;
	}
	if (lines)
		fclose(lines);
	else
		close(in);
	return n;
}

/* Start the comparison, and read what it says. Lines of complaint, or -errno. */
static int
ask(uid_t uid, const struct conf_function *f, int image, conf_complain *complain, void *arg)
{
	int half = half_open("/tmp");
	int desc = describe(&f->xrt);
	int pipefd[2] = { -1, -1 };
	int status = 0;
	int n = half < 0 ? half : desc < 0 ? desc : pipe2(pipefd, O_CLOEXEC) < 0 ? -errno : 0;
	pid_t pid = n ? -1 : fork();

	if (!n && pid < 0)
		n = -errno;
	if (pid == 0)
		compare(uid, half, desc, image, pipefd[1]);
	if (half >= 0)
		close(half);
	if (desc >= 0)
		close(desc);
	if (pipefd[1] >= 0)
		close(pipefd[1]);
	if (pid > 0)
		n = relay(pipefd[0], f, complain, arg);
	else if (pipefd[0] >= 0)
		close(pipefd[0]);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return n ? n : status ? -ENOEXEC : 0;
}

static int
check(uid_t uid, const struct conf_function *f, conf_complain *complain, void *arg)
{
	char text[CONF_PATH_MAX + 320];
	int image = open(f->xrt.xclbin, O_RDONLY | O_CLOEXEC);
	const char *what = "it can't be opened";
	int n = -errno;

	if (image >= 0) {
		what = "it can't be compared, the host half doesn't run here";
		n = ask(uid, f, image, complain, arg);
		close(image);
	}
	if (n >= 0)
		return n;
	snprintf(text, sizeof(text), "[function %s]: xclbin %s: %s: %s", f->name, f->xrt.xclbin, what, strerror(-n));
	complain(arg, f->line, text);
	return 1;
}

int
xclbins_check(const struct conf *conf, conf_complain *complain, void *arg)
{
	int faults = 0;

	for (unsigned i = 0; i < conf->functions; i++)
		if (conf_is_hardware(&conf->function[i]))
			faults += check(conf->uid_base + UID_XCLBIN, &conf->function[i], complain, arg);
	return faults;
}
