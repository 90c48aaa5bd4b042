/* SPDX-License-Identifier: MIT
 *
 * xclbins.c - do vfun.conf's descriptions of functions in hardware fit their xclbins?
 *
 * The host half reads the xclbin (backends/xrt/xclbin.c), in a process of its own that is confined: vfund itself
 * parses no such file. What it prints is what doesn't fit, a line each.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/half.h"
#include "launcher.h"

/* The child: description at 3, image at 4, words to the pipe. */
static _Noreturn void
compare(const struct conf *c, int half, int desc, int image, int out)
{
	static const struct sandbox_call none[] = { SANDBOX_END };
	static struct view view;
	const uint32_t uid = geteuid() ? 0 : c->uid_base + UID_XCLBIN;
	const struct half_job job = { .argv = (const char *const[]){ "vfun-half", "xclbin", NULL },
		.env = (const char *const[]){ NULL },
		.fds = { desc, image },
		.nfds = 2,
		.out = out,
		.uid = uid,
		.gid = uid,
		.optional = c->optional,
		.calls = none };

	half_run(half, &job, &view);
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
ask(const struct conf *c, const struct conf_function *f, int image, conf_complain *complain, void *arg)
{
	int half = half_open("/tmp");
	int desc = describe(&f->xrt);
	int pipefd[2] = { -1, -1 };
	int status = 0;
	int n = half < 0 ? half : desc < 0 ? desc : pipe2(pipefd, O_CLOEXEC) < 0 ? -errno : 0;
	pid_t pid = n ? -1 : sandbox_fork(geteuid() != 0, c->optional);

	if (!n && pid < 0)
		n = pid;
	if (pid == 0)
		compare(c, half, desc, image, pipefd[1]);
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
check(const struct conf *c, const struct conf_function *f, conf_complain *complain, void *arg)
{
	char text[CONF_PATH_MAX + 320];
	int image = open(f->xrt.xclbin, O_RDONLY | O_CLOEXEC);
	const char *what = "it can't be opened";
	int n = -errno;

	if (image >= 0) {
		what = "it can't be compared, the host half doesn't run here";
		n = ask(c, f, image, complain, arg);
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
			faults += check(conf, &conf->function[i], complain, arg);
	return faults;
}
