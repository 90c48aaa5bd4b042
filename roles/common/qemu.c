/* SPDX-License-Identifier: MIT
 *
 * qemu.c - what the installed QEMU can do, and what its command line needs for a VM's share
 *
 * QEMU is asked, not guessed at: `--version` for its number, `-device NAME,help` for a device. A number alone isn't
 * enough, since distributions leave devices out.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "numbers.h"
#include "qemu.h"

#define OUTPUT_MAX 1024 /* the beginning says it all */

/* The child: output to the pipe, complaints and input nowhere. Exit status 127 says that it can't be executed. */
static _Noreturn void
qemu_exec(const char *binary, char *const argv[], int out)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDERR_FILENO);
	}
	dup2(out, STDOUT_FILENO);
	execvp(binary, argv);
	_exit(127);
}

/* Read what fits, drop the rest so that the child doesn't block. */
static size_t
read_all(int fd, char *buf, size_t size)
{
	char rest[4096];
	size_t used = 0;
	ssize_t n;

	do {
		size_t room = size - 1 - used;

		n = room ? read(fd, buf + used, room) : read(fd, rest, sizeof(rest));
		if (n > 0 && room)
			used += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	buf[used] = '\0';
	return used;
}

/* Run the binary with these arguments and keep what it prints. 0 or -errno. */
static int
qemu_ask(const char *binary, const char *arg1, const char *arg2, char *buf, size_t size)
{
	char *argv[] = { (char *)(uintptr_t)binary, (char *)(uintptr_t)arg1, (char *)(uintptr_t)arg2, NULL };
	int pipefd[2];
	int status;
	pid_t pid;

	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		qemu_exec(binary, argv, pipefd[1]);
	close(pipefd[1]);
	if (pid > 0)
		read_all(pipefd[0], buf, size);
	close(pipefd[0]);
	if (pid < 0)
		return -EAGAIN;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return -ENOENT;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ENODEV;
}

/* Does it have this device? QEMU exits with 0 either way; a device that exists lists its options. */
static int
qemu_has(const char *binary, const char *device)
{
	char ask[64];
	char out[OUTPUT_MAX];
	char expect[64];

	snprintf(ask, sizeof(ask), "%s,help", device);
	snprintf(expect, sizeof(expect), "%s options", device);
	return qemu_ask(binary, "-device", ask, out, sizeof(out)) == 0 && strncmp(out, expect, strlen(expect)) == 0;
}

int
qemu_detect(struct qemu *q, const char *binary)
{
	uint64_t version[2];
	char out[OUTPUT_MAX];
	const char *p;
	int r;

	memset(q, 0, sizeof(*q));
	if (!binary)
		binary = QEMU_DEFAULT;
	r = qemu_ask(binary, "--version", NULL, out, sizeof(out));
	if (r)
		return r;
	p = strstr(out, "version ");
	if (!p || numbers(p, version, 2) != 2)
		return -ENODEV;
	q->major = (unsigned)version[0];
	q->minor = (unsigned)version[1];
	if ((q->major > 11 || (q->major == 11 && q->minor >= 1)) && qemu_has(binary, "vhost-user-test-device-pci"))
		q->form = QEMU_DAX;
	else if (qemu_has(binary, "vhost-user-fs-pci"))
		q->form = QEMU_PLAIN;
	else
		return -ENODEV;
	q->ivshmem = qemu_has(binary, "ivshmem-plain");
	return 0;
}

/* Append one argument. */
static int __attribute__((format(printf, 2, 3))) arg_add(struct qemu_args *a, const char *fmt, ...)
{
	size_t room = sizeof(a->text) - a->used;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(a->text + a->used, room, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= room || a->argc == QEMU_ARGS_MAX)
		return -ENAMETOOLONG;
	a->argv[a->argc++] = a->text + a->used;
	a->argv[a->argc] = NULL;
	a->used += (unsigned)n + 1;
	return 0;
}

/* Within an option's value QEMU writes a comma as two. */
static int
double_commas(char *out, size_t size, const char *in)
{
	size_t at = 0;

	for (; *in; in++) {
		if (at + 3 > size)
			return -ENAMETOOLONG;
		out[at++] = *in;
		if (*in == ',')
			out[at++] = ',';
	}
	out[at] = '\0';
	return 0;
}

static int
share_chardev(struct qemu_args *a, const char *socket)
{
	char path[512];
	int r = double_commas(path, sizeof(path), socket);

	r = r ? r : arg_add(a, "-chardev");
	return r ? r : arg_add(a, "socket,id=vfun,path=%s", path);
}

int
qemu_dax_args(struct qemu_args *a, const char *socket)
{
	int r = share_chardev(a, socket);

	r = r ? r : arg_add(a, "-device");
	return r ? r
		 : arg_add(
		       a, "vhost-user-test-device-pci,chardev=vfun,virtio-id=26,num_vqs=2,vq_size=256,config_size=40");
}

int
qemu_place(struct qemu_args *a, const char *bus, unsigned slot)
{
	int n;

	a->used--;
	n = snprintf(a->text + a->used, sizeof(a->text) - a->used, ",bus=%s,addr=0x%x", bus, slot);
	if (n < 0 || (size_t)n >= sizeof(a->text) - a->used)
		return -ENAMETOOLONG;
	a->used += (unsigned)n + 1;
	return 0;
}

int
qemu_share_args(struct qemu_args *a, const struct qemu *q, uint64_t memory, const char *socket)
{
	uint64_t mib = memory >> 20;
	int r;

	a->argc = 0;
	a->used = 0;
	r = arg_add(a, "-machine");
	r = r ? r : arg_add(a, "q35,memory-backend=mem");
	r = r ? r : arg_add(a, "-m");
	r = r ? r : arg_add(a, "%" PRIu64 "M", mib);
	r = r ? r : arg_add(a, "-object");
	r = r ? r : arg_add(a, "memory-backend-memfd,id=mem,size=%" PRIu64 "M,share=on", mib);
	if (q->form == QEMU_DAX)
		return r ? r : qemu_dax_args(a, socket);
	r = r ? r : share_chardev(a, socket);
	r = r ? r : arg_add(a, "-device");
	return r ? r : arg_add(a, "vhost-user-fs-pci,chardev=vfun,tag=" QEMU_TAG);
}

int
qemu_ivshmem_args(struct qemu_args *a, const char *file, uint64_t size)
{
	char path[512];
	int r = double_commas(path, sizeof(path), file);

	r = r ? r : arg_add(a, "-object");
	r = r ? r
	      : arg_add(a, "memory-backend-file,id=vfunbar,share=on,size=%" PRIu64 "M,mem-path=%s", size >> 20, path);
	r = r ? r : arg_add(a, "-device");
	return r ? r : arg_add(a, "ivshmem-plain,memdev=vfunbar");
}
