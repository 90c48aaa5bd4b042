/* SPDX-License-Identifier: MIT
 *
 * service.c - vfun-service: one client's instance of one function
 *
 * Started by vfund's launcher only. Its life is one sequence:
 *
 *   receive svc_start from the launcher
 *   make the regions      two memfds, their memory allocated now, sealed; nobody else has seen them yet
 *   confine               sandbox_enter(), then the first list of system calls
 *   map, init the backend
 *   hand over             the descriptors go to the launcher, which keeps them to itself
 *   confine further       the second list
 *   ready                 one byte: the launcher lets the client have the regions
 *   serve                 until killed, or until the client has to be cut off
 *
 * so that at the moment when a guest can first write to the regions, the process can do nothing but wait and compute.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../backends/backend.h"
#include "../proto/serve.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/sandbox.h"
#include "common/svc.h"
#include "roles.h"

#define RING_FD 4 /* the ring eventfd, while serving */

/* Until the service is ready: mapping the regions, the backend's memory, the second filter, the message to the
 * launcher. */
static const struct sandbox_call calls_setup[] = {
	SANDBOX_CALL_IF(mmap, "the regions, malloc; never executable", 2, PROT_EXEC, 1, 0),
	SANDBOX_CALL(munmap, "malloc"),
	SANDBOX_CALL(mremap, "malloc"),
	SANDBOX_CALL_IF(mprotect, "malloc; never executable", 2, PROT_EXEC, 1, 0),
	SANDBOX_CALL(brk, "malloc"),
	SANDBOX_CALL_IF(madvise, "malloc gives memory back", 2, UINT32_MAX, 2, MADV_DONTNEED, MADV_FREE),
	SANDBOX_CALL_IF(sendmsg, "svc_ready, to the launcher", 0, UINT32_MAX, 1, SVC_FD),
	SANDBOX_CALL(close, "the regions' descriptors, afterwards"),
	SANDBOX_CALL_IF(prctl, "libseccomp sets no_new_privs once more", 0, UINT32_MAX, 1, PR_SET_NO_NEW_PRIVS),
	SANDBOX_CALL(seccomp, "the second filter"),
	SANDBOX_CALL(getrandom, "malloc's key"),
	SANDBOX_CALL_IF(
	    futex, "as while serving: a filter can only become narrower", 1, UINT32_MAX, 2, FUTEX_WAIT, FUTEX_WAKE),
	SANDBOX_CALL_IF(write, "the same", 0, UINT32_MAX, 3, STDERR_FILENO, SVC_FD, RING_FD),
	SANDBOX_CALL(clock_gettime, "the same"),
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
	SANDBOX_CALL(restart_syscall, "a futex wait that was stopped and continued"),
	SANDBOX_CALL(exit_group, "the client is cut off"),
	SANDBOX_END,
};

struct service {
	struct svc_start start;
	const struct backend *backend;
	const struct backend_function *fn;
	void *state; /* the backend's */
	int out_fd;
	int in_fd;
	int ring_fd;
	void *out;
	void *in;
};

/* Tell the launcher why not, and end. */
static int
refuse(enum vfun_reason reason, const char *fmt, ...)
{
	struct svc_ready ready = { .reason = (uint16_t)reason };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(ready.text, sizeof(ready.text), fmt, ap);
	va_end(ap);
	if (fd_send(SVC_FD, &ready, sizeof(ready), NULL, 0))
		log_err("%s", ready.text);
	return EXIT_SYSTEM;
}

/* serve_loop's callback: the backend's run() behind the channel's call. */
static void
compute(void *arg, const struct serve_call *call, struct serve_answer *ans)
{
	struct service *sv = arg;
	struct backend_call bc = { .arg = call->arg,
		.nargs = call->nargs,
		.in = call->in,
		.in_len = call->in_len,
		.out = call->out,
		.out_len = call->out_len };
	struct backend_result res = { .room = (uint8_t *)(uintptr_t)call->out, .room_len = call->out_len };
	int r;

	if (call->cmd == VFUN_CMD_RST) {
		sv->backend->reset(sv->state);
		return;
	}
	if (call->nargs < sv->fn->args_min || call->nargs > sv->fn->args_max || (sv->fn->bulk && !call->bulk)) {
		ans->reason = VFUN_R_ARGUMENTS;
		return;
	}
	r = sv->fn->run(sv->state, &bc, &res);
	ans->reason = !r	     ? VFUN_OK
		      : r == -EINVAL ? VFUN_R_ARGUMENTS
		      : r == -ENOSPC ? VFUN_R_RESULT_SIZE
				     : VFUN_R_FUNCTION;
	ans->bulk = !r && res.bulk;
	ans->len = !r ? res.len : r == -ENOSPC ? res.need : 0;
	if (!r && !res.bulk)
		memcpy(ans->bytes, res.inline_bytes, res.len);
}

static void
header(int fd, const struct svc_start *st, uint64_t magic, uint64_t arena, int *err)
{
	struct vfun_hdr h;

	memset(&h, 0, sizeof(h));
	serve_header(&h, magic, st->session, st->id, st->slots, arena);
	if (pwrite(fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h))
		*err = -errno;
}

/* The regions. Nobody else has their descriptors yet, so plain writes are fine. */
static int
make_regions(struct service *sv)
{
	const struct svc_start *st = &sv->start;
	int err = 0;

	/* First, so that its number isn't taken: the second filter knows it. */
	sv->ring_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (sv->ring_fd < 0)
		return -errno;
	if (sv->ring_fd != RING_FD && (sv->ring_fd = dup3(sv->ring_fd, RING_FD, O_CLOEXEC)) < 0)
		return -errno;
	sv->out_fd = fd_memfd("vfun-dataout", vfun_region_size(st->slots, st->out_arena));
	if (sv->out_fd < 0)
		return sv->out_fd;
	sv->in_fd = fd_memfd("vfun-datain", vfun_region_size(st->slots, st->in_arena));
	if (sv->in_fd < 0)
		return sv->in_fd;
	header(sv->out_fd, st, VFUN_OUT_MAGIC, st->out_arena, &err);
	header(sv->in_fd, st, VFUN_IN_MAGIC, st->in_arena, &err);
	return err;
}

static int
map_regions(struct service *sv)
{
	const struct svc_start *st = &sv->start;

	sv->out = mmap(NULL, vfun_region_size(st->slots, st->out_arena), PROT_READ, MAP_SHARED, sv->out_fd, 0);
	if (sv->out == MAP_FAILED)
		return -errno;
	/* The bell of dataout is futex-waited on, which reading allows; nothing in dataout is ever written here. */
	sv->in =
	    mmap(NULL, vfun_region_size(st->slots, st->in_arena), PROT_READ | PROT_WRITE, MAP_SHARED, sv->in_fd, 0);
	return sv->in == MAP_FAILED ? -errno : 0;
}

static int
confine(struct service *sv)
{
	const struct svc_start *st = &sv->start;
	uint64_t regions = vfun_region_size(st->slots, st->out_arena) + vfun_region_size(st->slots, st->in_arena);
	const int keep[] = { SVC_FD, sv->out_fd, sv->in_fd, sv->ring_fd };
	/* Room for the executable, zstd's workspace, and private results as large as the reply's arena, twice. */
	struct sandbox box = { .keep = keep,
		.nkeep = 4,
		.uid = st->uid,
		.gid = st->uid,
		.files_max = 16,
		.optional = st->optional,
		.memory_max = regions + 2 * st->in_arena + (64u << 20) };
	const char *stage;
	int r = sandbox_enter(&box, &stage);

	if (!r) {
		stage = "system calls";
		r = sandbox_syscalls(calls_setup, NULL);
	}
	if (r)
		return refuse(VFUN_R_START_FAILED, "the service can't be confined: %s: %s", stage, strerror(-r));
	return 0;
}

static int
receive_start(struct service *sv)
{
	struct svc_start *st = &sv->start;

	if (fd_recv(SVC_FD, st, sizeof(*st), NULL, 0, NULL) != (long)sizeof(*st)) {
		fprintf(stderr, "vfun service: a service is started by vfund only, see vfund(8)\n");
		return EXIT_USAGE;
	}
	st->function[sizeof(st->function) - 1] = st->backend[sizeof(st->backend) - 1] =
	    st->client[sizeof(st->client) - 1] = '\0';
	sv->backend = backend_find(st->backend);
	sv->fn = sv->backend ? backend_function(sv->backend, st->function) : NULL;
	if (!sv->fn)
		return refuse(VFUN_R_START_FAILED, "backend %s has no function %s", st->backend, st->function);
	return 0;
}

static int
serve(struct service *sv)
{
	const struct svc_start *st = &sv->start;
	struct serve s = { .out = sv->out,
		.in = sv->in,
		.slots = st->slots,
		.out_arena = st->out_arena,
		.in_arena = st->in_arena,
		.spin_us = st->spin_us,
		.ring_fd = sv->ring_fd,
		.fn = compute,
		.arg = sv };

	serve_loop(&s);
	return SVC_EXIT_CUT_OFF;
}

#define BACKEND_CALLS_MAX 32

/* A backend's calls, as the sandbox has them. */
static void
backend_calls(const struct backend *b, struct sandbox_call list[BACKEND_CALLS_MAX + 1])
{
	unsigned n = 0;

	for (const struct backend_syscall *c = b->serving; c->why && n < BACKEND_CALLS_MAX; c++)
		list[n++] = (struct sandbox_call){ .nr = c->nr, .name = c->name, .why = c->why };
	list[n] = (struct sandbox_call)SANDBOX_END;
}

/* The second stage: the channel's calls and the backend's. */
static int
confine_further(const struct service *sv)
{
	struct sandbox_call list[BACKEND_CALLS_MAX + 1];

	backend_calls(sv->backend, list);
	return sandbox_syscalls(calls_serving, list);
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
	backend_calls(b, list);
	printf("service, backend %s\n", b->name);
	sandbox_print("setting up", calls_setup, NULL);
	sandbox_print("serving", calls_serving, list);
	return EXIT_OK;
}

int
role_service(int argc, char **argv)
{
	struct service sv = { .out_fd = -1, .in_fd = -1, .ring_fd = -1 };
	struct svc_ready ready = { .reason = VFUN_OK };
	int r;

	if (argc >= 2 && !strcmp(argv[1], "--print-syscalls"))
		return print_syscalls(argc > 2 ? argv[2] : "software");
	r = receive_start(&sv);
	if (r)
		return r;
	log_init("vfun-service", (int)sv.start.verbose);
	r = make_regions(&sv);
	if (r)
		return refuse(VFUN_R_NO_RESOURCE, "no memory for the regions: %s", strerror(-r));
	r = confine(&sv);
	if (r)
		return r;
	r = map_regions(&sv);
	if (!r)
		r = sv.backend->init(sv.fn, sv.start.in_arena, &sv.state);
	if (r)
		return refuse(VFUN_R_NO_RESOURCE, "no memory for the function: %s", strerror(-r));
	r = fd_send(SVC_FD, &ready, sizeof(ready), (const int[]){ sv.out_fd, sv.in_fd, sv.ring_fd }, 3);
	if (r)
		return EXIT_SYSTEM;
	close(sv.out_fd);
	close(sv.in_fd);
	r = confine_further(&sv);
	if (r) {
		log_err("the second list of system calls can't be loaded: %s", strerror(-r));
		return EXIT_SYSTEM;
	}
	if (write(SVC_FD, "!", 1) != 1)
		return EXIT_SYSTEM;
	return serve(&sv);
}
