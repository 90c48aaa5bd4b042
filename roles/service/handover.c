/* SPDX-License-Identifier: MIT
 *
 * handover.c - from the static executable to the host half, or to a program of the administrator's, within the
 * confinement
 *
 * The shared libraries that a device needs, and the dynamic loader that brings them, are in place only here: in a root
 * that holds them and the device, without capabilities, identity or other processes. What is left to do for the host
 * half is to load its filters, which are made here, since it brings no libseccomp.
 *
 * A program of the administrator's isn't relied upon to do so: the first filter is loaded here, the regions go to the
 * launcher, and the launcher sees whether the program has loaded the second one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/sandbox.h"
#include "../roles.h"
#include "service.h"

/* A memfd that holds the bytes, to be read from its start. Descriptor or -errno. */
static int
in_memory(const void *data, size_t len)
{
	int fd = memfd_create("vfun-handover", MFD_CLOEXEC);
	int r = fd < 0 ? -errno : fd_write_all(fd, data, len);

	if (r && fd >= 0)
		close(fd);
	return r ? r : fd;
}

static int
filter(const struct sandbox_call *list, const struct sandbox_call *more)
{
	int fd = memfd_create("vfun-filter", MFD_CLOEXEC);
	int r = fd < 0 ? -errno : sandbox_export(fd, list, more);

	if (r && fd >= 0)
		close(fd);
	return r ? r : fd;
}

/* To HANDOVER_FD and the numbers behind it: first out of their way. 0 or -errno. */
static int
place(int fds[], int n)
{
	for (int i = 0; i < n; i++) {
		fds[i] = fds[i] < 0 ? fds[i] : fcntl(fds[i], F_DUPFD_CLOEXEC, HANDOVER_FD + n);
		if (fds[i] < 0)
			return fds[i] == -1 ? -errno : fds[i];
	}
	for (int i = 0; i < n; i++)
		if (dup2(fds[i], HANDOVER_FD + i) < 0)
			return -errno;
	return 0;
}

static int
become(struct service *sv)
{
	const char *id = strrchr(sv->start.xrt.emulated, '/');
	char socket_id[128];
	char *const argv[] = { "vfun-service", sv->start.function, sv->start.client, NULL };
	char *env[] = { "HOME=/tmp", "USER=vfun", "XILINX_XRT=/usr", "LD_LIBRARY_PATH=/opt/xilinx/xrt/lib", NULL, NULL,
		NULL, NULL, NULL, NULL };
	unsigned n = 4;

	if (id) {
		snprintf(socket_id, sizeof(socket_id), "EMULATION_SOCKETID=%s", id + 1);
		env[n++] = socket_id;
		env[n++] = "XCL_EMULATION_MODE=sw_emu";
		env[n++] = "EMCONFIG_PATH=/";
		env[n++] = "SDACCEL_EM_RUN_DIR=/tmp";
		env[n++] = "VITIS_SW_EMU_DISABLE_SINGLE_MMAP=1";
	}
	(void)fcntl(SVC_FD, F_SETFD, 0);
	(void)fcntl(RING_FD, F_SETFD, 0);
	syscall(SYS_execveat, sv->half_fd, "", argv, env, AT_EMPTY_PATH);
	return -errno;
}

int
handover(struct service *sv, const struct sandbox_call *setup, const struct sandbox_call *backend_setup,
    const struct sandbox_call *serving, const struct sandbox_call *backend_serving)
{
	struct handover h = { .start = sv->start,
		.signature = sv->signature,
		.out_off = sv->out_off,
		.in_off = sv->in_off,
		.huge = sv->huge };
	int half = sv->half_fd = fcntl(sv->half_fd, F_DUPFD_CLOEXEC, 32);
	int fds[] = { in_memory(&h, sizeof(h)), sv->out_fd, sv->in_fd, sv->image_fd, filter(setup, backend_setup),
		filter(serving, backend_serving) };
	int r = half < 0 ? -errno : place(fds, sizeof(fds) / sizeof(fds[0]));

	if (!r)
		r = become(sv);
	return service_refuse(VFUN_R_START_FAILED,
	    r == -ENOENT ? "the host half can't be started: this host has no dynamic loader of the usual name"
			 : "the host half can't be started: %s",
	    strerror(-r));
}

/* The program's orders, as a file. Descriptor or -errno. */
static int
orders(const struct service *sv)
{
	const struct svc_start *st = &sv->start;
	struct vfun_program_start ps = { .magic = VFUN_PROGRAM_MAGIC,
		.out_off = sv->out_off,
		.in_off = sv->in_off,
		.out_arena = st->out_arena,
		.in_arena = st->in_arena,
		.slots = st->slots,
		.workers = st->workers,
		.spin_us = st->spin_us,
		.limit_ms = st->program.limit_ms,
		.version = (uint16_t)st->version,
		.features = st->features };

	strcpy(ps.function, st->function);
	strcpy(ps.client, st->client);
	memcpy(ps.signature, st->signature, sizeof(ps.signature));
	return in_memory(&ps, sizeof(ps));
}

/* Everything in its place, and the regions to the launcher. 0 or -errno. */
static int
give(struct service *sv, const struct sandbox_call *serving, const struct sandbox_call *backend_serving)
{
	const struct svc_ready ready = { .reason = VFUN_OK, .huge = sv->huge };
	int fds[] = { orders(sv), sv->out_fd, sv->in_fd, filter(serving, backend_serving) };
	int r = place(fds, sizeof(fds) / sizeof(fds[0]));

	if (!r)
		r = fd_send(
		    SVC_FD, &ready, sizeof(ready), (const int[]){ VFUN_PROGRAM_OUT, VFUN_PROGRAM_IN, RING_FD }, 3);
	/* What was written is read from its start. */
	if (!r && (lseek(VFUN_PROGRAM_START, 0, SEEK_SET) < 0 || lseek(VFUN_PROGRAM_FILTER, 0, SEEK_SET) < 0))
		r = -errno;
	(void)fcntl(SVC_FD, F_SETFD, 0);
	(void)fcntl(RING_FD, F_SETFD, 0);
	return r;
}

int
handover_program(struct service *sv, const struct sandbox_call *setup, const struct sandbox_call *backend_setup,
    const struct sandbox_call *serving, const struct sandbox_call *backend_serving)
{
	char *const argv[] = { sv->start.function, sv->start.describe ? "--describe" : NULL, NULL };
	/* Where it is anyway. If it isn't said, the C library looks there again and again, and may not while serving.
	 */
	char *const env[] = { "TZ=:/etc/localtime", NULL };
	int r = dup3(sv->half_fd, PROGRAM_FD, O_CLOEXEC) < 0 || dup2(sv->image_fd, STDOUT_FILENO) < 0 ||
			dup2(sv->image_fd, STDERR_FILENO) < 0
		    ? -errno
		    : 0;

	if (!r && !sv->start.describe)
		r = give(sv, serving, backend_serving);
	if (!r)
		r = sandbox_syscalls_told(setup, backend_setup);
	if (!r) {
		syscall(SYS_execveat, PROGRAM_FD, "", argv, env, AT_EMPTY_PATH);
		r = -errno;
	}
	return service_refuse(VFUN_R_START_FAILED,
	    r == -ENOENT ? "%s can't be executed: there is no dynamic loader of the name that it wants"
			 : "%s can't be executed: %s",
	    sv->start.program.path, strerror(-r));
}
