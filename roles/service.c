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
#include <pthread.h>
#include <limits.h>
#include <sched.h>
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

#define WORKER_STACK (256u << 10)
#define RING_FD 4 /* the ring eventfd, while serving */

/* Until the service is ready: mapping the regions, the backend's memory, the second filter, the message to the
 * launcher. */
static const struct sandbox_call calls_setup[] = {
	SANDBOX_CALL_BITS(mmap, "the regions, malloc; never executable", 2, PROT_READ | PROT_WRITE),
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

struct service;

/* A thread; the first is the process itself. */
struct worker {
	struct service *sv;
	void *state; /* the backend's */
};

struct service {
	struct svc_start start;
	const struct backend *backend;
	const struct backend_function *fn;
	struct worker worker[SERVE_WORKERS_MAX];
	struct serve serve;
	uint64_t huge;	/* bytes of the regions in huge pages */
	uint32_t up;	/* workers that have got as far as work(): the C library has made its system calls */
	uint32_t ready; /* futex: 1 when the workers may begin */
	int out_fd;
	int in_fd;
	int ring_fd;
	uint64_t out_off; /* where the regions begin in their descriptors: not 0 in a BAR */
	uint64_t in_off;
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
	const struct worker *w = arg;
	const struct service *sv = w->sv;
	struct backend_call bc = { .arg = call->arg,
		.nargs = call->nargs,
		.in = call->in,
		.in_len = call->in_len,
		.out = call->out,
		.out_len = call->out_len };
	struct backend_result res = { .room = (uint8_t *)(uintptr_t)call->out, .room_len = call->out_len };
	int r;

	if (call->cmd == VFUN_CMD_RST) {
		sv->backend->reset(w->state);
		return;
	}
	if (call->nargs < sv->fn->args_min || call->nargs > sv->fn->args_max || (sv->fn->bulk && !call->bulk)) {
		ans->reason = VFUN_R_ARGUMENTS;
		return;
	}
	r = sv->fn->run(w->state, &bc, &res);
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
header(int fd, uint64_t off, const struct svc_start *st, uint64_t magic, uint64_t arena, int *err)
{
	struct vfun_hdr h;

	memset(&h, 0, sizeof(h));
	serve_header(&h, magic, st->session, st->id, st->slots, arena);
	h.version = (uint16_t)st->version;
	if (pwrite(fd, &h, sizeof(h), (off_t)off) != (ssize_t)sizeof(h))
		*err = -errno;
}

/* Two pieces of the BAR, one behind the other: zeros, whatever was there, and memory that is sure to be there. */
static int
make_in_bar(struct service *sv, uint64_t out_size, uint64_t in_size)
{
	off_t place = (off_t)sv->start.place;
	off_t len = (off_t)(out_size + in_size);

	sv->out_off = sv->start.place;
	sv->in_off = sv->out_off + out_size;
	return fallocate(sv->out_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, place, len) < 0 ||
		       fallocate(sv->out_fd, FALLOC_FL_KEEP_SIZE, place, len) < 0
		   ? -errno
		   : 0;
}

static int
make_memfds(struct service *sv, uint64_t out_size, uint64_t in_size)
{
	sv->out_fd = fd_memfd("vfun-dataout", out_size, &sv->huge);
	if (sv->out_fd < 0)
		return sv->out_fd;
	sv->in_fd = fd_memfd("vfun-datain", in_size, &sv->huge);
	return sv->in_fd < 0 ? sv->in_fd : 0;
}

/* The regions, by plain writes: nobody waits for them yet. */
static int
make_regions(struct service *sv)
{
	const struct svc_start *st = &sv->start;
	uint64_t out_size = vfun_region_size(st->slots, st->out_arena);
	uint64_t in_size = vfun_region_size(st->slots, st->in_arena);
	int err;

	/* First, so that its number isn't taken: the second filter knows it. */
	sv->ring_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (sv->ring_fd < 0)
		return -errno;
	if (sv->ring_fd != RING_FD && (sv->ring_fd = dup3(sv->ring_fd, RING_FD, O_CLOEXEC)) < 0)
		return -errno;
	err = st->place ? make_in_bar(sv, out_size, in_size) : make_memfds(sv, out_size, in_size);
	if (err)
		return err;
	header(sv->out_fd, sv->out_off, st, VFUN_OUT_MAGIC, st->out_arena, &err);
	header(sv->in_fd, sv->in_off, st, VFUN_IN_MAGIC, st->in_arena, &err);
	return err;
}

/* A region, between two pages that nobody may touch: whoever steps outside it, libraries included, does not reach what
 * happens to lie there. */
static void *
map_region(int fd, uint64_t off, uint64_t size, int prot)
{
	uint8_t *p = mmap(NULL, size + 2 * (uint64_t)VFUN_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? p : mmap(p + VFUN_PAGE, size, prot, MAP_SHARED | MAP_FIXED, fd, (off_t)off);
}

static int
map_regions(struct service *sv)
{
	const struct svc_start *st = &sv->start;

	/* The bell of dataout is futex-waited on, which reading allows; nothing in dataout is ever written here. */
	sv->out = map_region(sv->out_fd, sv->out_off, vfun_region_size(st->slots, st->out_arena), PROT_READ);
	if (sv->out == MAP_FAILED)
		return -errno;
	sv->in = map_region(sv->in_fd, sv->in_off, vfun_region_size(st->slots, st->in_arena), PROT_READ | PROT_WRITE);
	return sv->in == MAP_FAILED ? -errno : 0;
}

/* Any worker that has enough of the client ends them all. */
static void *
work(void *arg)
{
	struct worker *w = arg;
	struct service *sv = w->sv;

	__atomic_fetch_add(&sv->up, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&sv->ready, __ATOMIC_ACQUIRE))
		syscall(SYS_futex, &sv->ready, FUTEX_WAIT, 0, NULL, NULL, 0);
	serve_loop(&sv->serve, (unsigned)(w - sv->worker), w);
	_exit(SVC_EXIT_CUT_OFF);
}

/* Before the first list of system calls, which admits no thread; they sleep until `ready`. 0 or -errno. */
static int
start_workers(struct service *sv)
{
	pthread_attr_t attr;
	pthread_t thread;
	int r = pthread_attr_init(&attr);

	if (!r)
		r = pthread_attr_setstacksize(&attr, WORKER_STACK);
	for (unsigned i = 0; !r && i < sv->start.workers; i++) {
		sv->worker[i].sv = sv;
		if (i > 0)
			r = pthread_create(&thread, &attr, work, &sv->worker[i]);
	}
	while (!r && __atomic_load_n(&sv->up, __ATOMIC_ACQUIRE) + 1 < sv->start.workers)
		sched_yield();
	return r ? -r : sandbox_no_more_threads();
}

static int
confine(struct service *sv)
{
	const struct svc_start *st = &sv->start;
	const int keep[] = { SVC_FD, sv->out_fd, sv->in_fd, sv->ring_fd };
	struct sandbox box = { .keep = keep,
		.nkeep = 4,
		.uid = st->uid,
		.gid = st->uid,
		.files_max = 16,
		.threads = st->workers > 1,
		.optional = st->optional,
		.memory_max = st->memory_max };
	const char *stage;
	int r = sandbox_enter(&box, &stage);

	if (!r) {
		stage = "workers";
		r = start_workers(sv);
	}
	if (!r) {
		stage = "system calls";
		r = sandbox_syscalls(calls_setup, NULL);
	}
	if (r)
		return refuse(VFUN_R_START_FAILED, "the service can't be confined: %s: %s", stage, strerror(-r));
	return 0;
}

/* Two descriptors of the BAR, as there would be two memfds, out of the way of RING_FD. */
static int
take_bar(struct service *sv)
{
	int bar = sv->out_fd;

	sv->out_fd = fcntl(bar, F_DUPFD_CLOEXEC, RING_FD + 1);
	sv->in_fd = fcntl(bar, F_DUPFD_CLOEXEC, RING_FD + 1);
	close(bar);
	return sv->out_fd < 0 || sv->in_fd < 0 ? -1 : 0;
}

static int
receive_start(struct service *sv)
{
	struct svc_start *st = &sv->start;
	int nfds = 0;

	if (fd_recv(SVC_FD, st, sizeof(*st), &sv->out_fd, 1, &nfds) != (long)sizeof(*st)) {
		fprintf(stderr, "vfun service: a service is started by vfund only, see vfund(8)\n");
		return EXIT_USAGE;
	}
	st->function[sizeof(st->function) - 1] = st->backend[sizeof(st->backend) - 1] =
	    st->client[sizeof(st->client) - 1] = '\0';
	sv->backend = backend_find(st->backend);
	sv->fn = sv->backend ? backend_function(sv->backend, st->function) : NULL;
	if (!sv->fn)
		return refuse(VFUN_R_START_FAILED, "backend %s has no function %s", st->backend, st->function);
	if (nfds != (st->place ? 1 : 0))
		return refuse(VFUN_R_START_FAILED, "the BAR is missing");
	if (nfds && take_bar(sv))
		return refuse(VFUN_R_NO_RESOURCE, "no descriptor: %s", strerror(errno));
	if (st->workers < 1 || st->workers > (sv->fn->threads ? SERVE_WORKERS_MAX : 1))
		return refuse(VFUN_R_START_FAILED, "%u workers for %s", st->workers, st->function);
	return 0;
}

/* With one processor for all, whoever spins keeps the client from asking. */
static uint32_t
spin_limit(const struct svc_start *st)
{
	cpu_set_t cpus;

	return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) < 2 ? 0 : st->spin_us;
}

static void
prepare(struct service *sv)
{
	const struct svc_start *st = &sv->start;

	sv->serve = (struct serve){ .out = sv->out,
		.in = sv->in,
		.slots = st->slots,
		.workers = st->workers,
		.out_arena = st->out_arena,
		.in_arena = st->in_arena,
		.spin_us = st->spin_us,
		.ring_fd = sv->ring_fd,
		.fn = compute };
}

static int
init_backend(struct service *sv)
{
	int r = 0;

	for (unsigned i = 0; !r && i < sv->start.workers; i++)
		r = sv->backend->init(sv->fn, sv->start.in_arena, &sv->worker[i].state);
	return r;
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
	sv.start.spin_us = spin_limit(&sv.start);
	r = make_regions(&sv);
	if (r)
		return refuse(VFUN_R_NO_RESOURCE, "no memory for the regions: %s", strerror(-r));
	r = confine(&sv);
	if (r)
		return r;
	r = map_regions(&sv);
	if (!r)
		r = init_backend(&sv);
	if (r)
		return refuse(VFUN_R_NO_RESOURCE, "no memory for the function: %s", strerror(-r));
	ready.huge = sv.huge;
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
	prepare(&sv);
	if (write(SVC_FD, "!", 1) != 1)
		return EXIT_SYSTEM;
	__atomic_store_n(&sv.ready, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &sv.ready, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	serve_loop(&sv.serve, 0, &sv.worker[0]);
	return SVC_EXIT_CUT_OFF;
}
