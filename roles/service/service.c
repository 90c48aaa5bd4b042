/* SPDX-License-Identifier: MIT
 *
 * service.c - vfun-service: one client's instance of one function
 *
 * Started by vfund's launcher only. Its life is one sequence:
 *
 *   receive svc_start from the launcher
 *   make the regions      two memfds, their memory allocated now, sealed; nobody else has seen them yet. Or two pieces
 *                         of the VM's BAR, which the guest's kernel sees all the time: emptied, and only written so far
 *   confine               sandbox_enter(); start the workers, which sleep until the service is ready; then, for all
 *                         threads, no further one, and the first list of system calls
 *   map, init the backend a state for each worker
 *   hand over             the descriptors go to the launcher, which keeps them to itself, and are closed: with the
 *                         second list nothing can be mapped or opened any more, so of a BAR it reaches its own regions
 *   confine further       the second list
 *   ready                 one byte: the launcher lets the client have the regions
 *   serve                 until killed, or until the client has to be cut off
 *
 * so that at the moment when a guest can first write to the regions, or the process first reads what it has written,
 * the process can do nothing but wait and compute.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "../../proto/filter.h"
#include "../common/fd.h"
#include "../common/log.h"
#include "../common/sandbox.h"
#include "../roles.h"
#include "service.h"
#include "view.h"

/* Until the service is ready: mapping the regions, the backend's memory, the second filter, the message to the
 * launcher. */
static const struct sandbox_call calls_setup[] = {
	SANDBOX_CALL_MMAP("the regions"),
	SANDBOX_CALL(munmap, "malloc"),
	SANDBOX_CALL(mremap, "malloc"),
	SANDBOX_CALL_BITS(mprotect, "malloc; never executable", 2, PROT_READ | PROT_WRITE),
	SANDBOX_CALL(brk, "malloc"),
	SANDBOX_CALL_IF(madvise, "malloc gives memory back", 2, UINT32_MAX, 2, MADV_DONTNEED, MADV_FREE),
	SANDBOX_CALL_IF(sendmsg, "svc_ready, to the launcher", 0, UINT32_MAX, 1, SVC_FD),
	SANDBOX_CALL(close, "the regions' descriptors, afterwards"),
	SANDBOX_CALL_IF(prctl, "libseccomp sets no_new_privs once more", 0, UINT32_MAX, 1, PR_SET_NO_NEW_PRIVS),
	SANDBOX_CALL_IF(seccomp, "the second filter", 0, UINT32_MAX, 1, SECCOMP_SET_MODE_FILTER),
	SANDBOX_CALL(getrandom, "malloc's key"),
	SANDBOX_CALL_IF(
	    futex, "as while serving: a filter can only become narrower", 1, UINT32_MAX, 2, FUTEX_WAIT, FUTEX_WAKE),
	SANDBOX_CALL_IF(write, "the same", 0, UINT32_MAX, 3, STDERR_FILENO, SVC_FD, RING_FD),
	SANDBOX_CALL(clock_gettime, "the same"),
	SANDBOX_CALL(sched_yield, "the same"),
	SANDBOX_CALL(getcpu, "the same"),
	SANDBOX_CALL(restart_syscall, "the same"),
	SANDBOX_CALL(exit_group, "giving up"),
	SANDBOX_END,
};

/* While serving. */
static const struct sandbox_call calls_serving[] = {
	SANDBOX_CALL_IF(futex, "park, and wake a parked client", 1, UINT32_MAX, 2, FUTEX_WAIT, FUTEX_WAKE),
	SANDBOX_CALL_IF(write, "the ring eventfd, which wakes a guest; the byte that says ready; a last line of log", 0,
	    UINT32_MAX, 3, STDERR_FILENO, SVC_FD, RING_FD),
	SANDBOX_CALL(clock_gettime, "the time spun, where there is no vdso"),
	SANDBOX_CALL(sched_yield, "for a client that is on the same processor"),
	SANDBOX_CALL(getcpu, "which one this is, where there is no vdso"),
	SANDBOX_CALL(restart_syscall, "a futex wait that was stopped and continued"),
	SANDBOX_CALL(exit_group, "the client is cut off"),
	SANDBOX_END,
};

/* Libraries talk; what they have to say is not for vfund's log. Standard error is for last words. */
static void
no_stdout(void)
{
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		(void)dup2(fd, STDOUT_FILENO);
		close(fd);
	}
}

/* Does this process, once confined, become another program? */
static int
becomes_other(const struct service *sv)
{
	return sv->backend->half || sv->backend->program;
}

static int
confine(struct service *sv)
{
	const struct svc_start *st = &sv->start;
	const int keep[] = { SVC_FD, sv->out_fd, sv->in_fd, sv->ring_fd, sv->image_fd, sv->half_fd };
	int other = becomes_other(sv);
	struct view view = { .n = 0 };
	struct sandbox box = { .keep = keep,
		.nkeep = other ? 6 : 4,
		.uid = st->uid,
		.gid = st->uid,
		.files_max = other ? 128 : 16,
		.threads = svc_threads(st) > 1 ? svc_threads(st) : 0,
		.optional = st->optional,
		.memory_max = st->memory_max,
		.view = view.list };
	const char *stage = "view";
	int r;

	if (sv->backend->half && view_make(&view, &st->xrt))
		return service_refuse(VFUN_R_NO_DEVICE, "%s", view.lacking);
	if (sv->backend->program && view_program(&view, &st->program, sv->half_fd))
		return service_refuse(VFUN_R_START_FAILED, "%s isn't there (vfun.conf: files)", view.lacking);
	if (sv->backend->half)
		no_stdout();
	box.views = view.n;
	box.device_gid = view.gid;
	r = sandbox_enter(&box, &stage);
	if (!r && !other) {
		stage = "workers";
		r = work_start(sv);
		if (!r)
			r = sandbox_no_more_threads();
	}
	if (!r && !other) {
		stage = "system calls";
		r = filter_tells();
		if (!r)
			r = sandbox_syscalls_told(calls_setup, NULL);
	}
	if (r)
		return service_refuse(
		    VFUN_R_START_FAILED, "the service can't be confined: %s: %s", stage, strerror(-r));
	return 0;
}

/* The attached descriptors, out of the way of RING_FD: of a BAR two, as there would be two memfds. 0 or -errno. */
static int
take_descriptors(struct service *sv, const int *fds, int nfds)
{
	const struct svc_start *st = &sv->start;
	int want = (st->place ? 1 : 0) + (becomes_other(sv) ? 2 : 0);
	int *const to[] = { &sv->out_fd, &sv->image_fd, &sv->half_fd };
	int at = 0;

	if (nfds != want)
		return -EPROTO;
	for (int i = st->place ? 0 : 1; at < nfds; i++) {
		*to[i] = fcntl(fds[at++], F_DUPFD_CLOEXEC, RING_FD + 1);
		if (*to[i] < 0)
			return -errno;
	}
	for (int i = 0; i < nfds; i++)
		close(fds[i]);
	if (st->place)
		sv->in_fd = fcntl(sv->out_fd, F_DUPFD_CLOEXEC, RING_FD + 1);
	return st->place && sv->in_fd < 0 ? -errno : 0;
}

static int
receive_start(struct service *sv)
{
	int fds[3];
	int nfds = 0;
	int r;

	if (fd_recv(SVC_FD, &sv->start, sizeof(sv->start), fds, 3, &nfds) != (long)sizeof(sv->start)) {
		fprintf(stderr, "vfun service: a service is started by vfund only, see vfund(8)\n");
		return EXIT_USAGE;
	}
	r = service_function(sv);
	if (r)
		return r;
	r = take_descriptors(sv, fds, nfds);
	return r ? service_refuse(VFUN_R_NO_RESOURCE, "no descriptors: %s", strerror(-r)) : 0;
}

/* With one processor for all, whoever spins keeps the client from asking. */
static uint32_t
spin_limit(const struct svc_start *st)
{
	cpu_set_t cpus;

	return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) < 2 ? 0 : st->spin_us;
}

#define BACKEND_CALLS_MAX 192 /* of a program: its list, and as many names as fit vfun.conf's */

/* A backend's calls, as the sandbox has them. */
static const struct sandbox_call *
backend_calls(const struct backend_syscall *c, struct sandbox_call list[BACKEND_CALLS_MAX + 1])
{
	unsigned n = 0;

	for (; c->why && n < BACKEND_CALLS_MAX; c++) {
		list[n] = (struct sandbox_call){ .nr = c->nr,
			.name = c->name,
			.why = c->why,
			.arg = c->arg,
			.n = c->n,
			.mask = c->mask,
			.error = c->error };
		memcpy(list[n++].value, c->value, sizeof(c->value));
	}
	list[n] = (struct sandbox_call)SANDBOX_END;
	return list;
}

/* The second stage: the channel's calls and the backend's. */
static int
confine_further(struct service *sv)
{
	struct sandbox_call list[BACKEND_CALLS_MAX + 1];

	return sandbox_syscalls_told(calls_serving, backend_calls(sv->backend->serving, list));
}

static int
print_syscalls(const char *name)
{
	const struct backend *b = backend_find(name);
	struct sandbox_call list[BACKEND_CALLS_MAX + 1];

	if (!b) {
		fprintf(stderr, "vfun service: there is no backend '%s'\n", name);
		return EXIT_USAGE;
	}
	printf("service, backend %s\n", b->name);
	sandbox_print("setting up", calls_setup, backend_calls(b->setting_up, list));
	sandbox_print("serving", calls_serving, backend_calls(b->serving, list));
	return EXIT_OK;
}

/* What vfun.conf gives a program beyond that, at the list's end. */
static void
add_calls(const struct program_desc *d, struct sandbox_call list[BACKEND_CALLS_MAX + 1])
{
	char names[sizeof(d->syscalls)];
	char *save = NULL;
	unsigned n = 0;

	memcpy(names, d->syscalls, sizeof(names));
	while (list[n].why)
		n++;
	for (char *s = strtok_r(names, " ", &save); s && n < BACKEND_CALLS_MAX; s = strtok_r(NULL, " ", &save))
		list[n++] = (struct sandbox_call){ .nr = sandbox_call_number(s), .why = "vfun.conf" };
	list[n] = (struct sandbox_call)SANDBOX_END;
}

/* A backend of the host half, which loads the lists itself; or an executable of the administrator's. */
static int
become_other(struct service *sv)
{
	struct sandbox_call setting_up[BACKEND_CALLS_MAX + 1];
	struct sandbox_call serving[BACKEND_CALLS_MAX + 1];

	backend_calls(sv->backend->setting_up, setting_up);
	backend_calls(sv->backend->serving, serving);
	if (sv->backend->half)
		return handover(sv, calls_setup, setting_up, calls_serving, serving);
	add_calls(&sv->start.program, setting_up);
	add_calls(&sv->start.program, serving);
	return handover_program(sv, calls_setup, setting_up, calls_serving, serving);
}

/* It has crashed lately. */
static void
wait_a_while(uint32_t ms)
{
	const struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };

	if (ms)
		nanosleep(&ts, NULL);
}

int
role_service(int argc, char **argv)
{
	struct service sv = { .out_fd = -1, .in_fd = -1, .ring_fd = -1, .image_fd = -1, .half_fd = -1 };
	struct backend_setup setup = { 0 };
	int r;

	if (argc >= 2 && !strcmp(argv[1], "--print-syscalls"))
		return print_syscalls(argc > 2 ? argv[2] : "software");
	r = receive_start(&sv);
	if (r)
		return r;
	log_init("vfun-service", (int)sv.start.verbose);
	/* What has been refused a system call, and tells of it (filter.h), must not wait. */
	(void)fcntl(SVC_FD, F_SETFL, O_NONBLOCK);
	wait_a_while(sv.start.wait_ms);
	sv.start.spin_us = spin_limit(&sv.start);
	r = sv.start.describe ? 0 : regions_make(&sv);
	if (r)
		return service_refuse(VFUN_R_NO_RESOURCE, "no memory for the regions: %s", strerror(-r));
	r = confine(&sv);
	if (r)
		return r;
	return becomes_other(&sv) ? become_other(&sv) : work(&sv, &setup, confine_further);
}
