/* SPDX-License-Identifier: MIT
 *
 * half.c - the host half, embedded by the assembler; VFUN_HALF is its file, which is built first. And copies of
 * programs that are functions, which are executed in the same way
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "half.h"

/* Who compiles this file alone, to look at it or to test others, has none. */
#ifndef VFUN_HALF
#define VFUN_HALF "/dev/null"
#endif

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

__asm__(".section .rodata\n"
	".balign 16\n"
	"half_begin: .incbin \"" VFUN_HALF "\"\n"
	"half_end:\n"
	".balign 8\n"
	"half_size: .quad half_end - half_begin\n"
	".previous\n");

extern const uint8_t half_begin[] __attribute__((visibility("hidden")));
extern const uint64_t half_size __attribute__((visibility("hidden")));

/* Opened once more for reading: a file that somebody could write to isn't executed. Closes fd. */
static int
read_only(int fd)
{
	char path[32];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDONLY | O_CLOEXEC);
	if (again < 0)
		again = -errno;
	close(fd);
	return again;
}

/* An empty one, to be written. Descriptor or -errno. */
static int
make(const char *name, const char *dir)
{
	/* Kernels before 6.3 don't know the flag; those that know it want to be told. */
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_EXEC);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, MFD_CLOEXEC);
	if (fd < 0)
		fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0500);
	return fd < 0 ? -errno : fd;
}

/* It is written, r: 0 or why not. The descriptor to execute it from, or -errno. */
static int
finish(int fd, int r)
{
	if (!r && fchmod(fd, 0555) < 0)
		r = -errno;
	if (!r)
		return read_only(fd);
	close(fd);
	return r;
}

int
half_open(const char *dir)
{
	int fd = make("vfun-half", dir);

	return fd < 0 ? fd : finish(fd, fd_write_all(fd, half_begin, half_size));
}

int
half_copy(int from, const char *dir)
{
	int fd = make("vfun-program", dir);
	off_t at = 0;
	ssize_t n;

	if (fd < 0)
		return fd;
	do
		n = sendfile(fd, from, &at, 1 << 20);
	while (n > 0 || (n < 0 && errno == EINTR));
	return finish(fd, n < 0 ? -errno : 0);
}
