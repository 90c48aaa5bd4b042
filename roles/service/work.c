/* SPDX-License-Identifier: MIT
 *
 * work.c - what a service does once it is confined: prepare its backend, hand over the regions, serve
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../../proto/pace.h"
#include "../common/fd.h"
#include "../common/log.h"
#include "../roles.h"
#include "service.h"

#define WORKER_STACK (256u << 10)
#define TICKS 8			   /* looks of the watchdog's within a call's limit */
#define COLD __attribute__((cold)) /* small rather than fast: once, before the first call */

int
service_refuse(enum vfun_reason reason, const char *fmt, ...)
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

int COLD
service_function(struct service *sv)
{
	struct svc_start *st = &sv->start;
	const struct backend_function *fn;
	char fault[VFUN_TEXT_MAX];

	st->function[sizeof(st->function) - 1] = st->backend[sizeof(st->backend) - 1] =
	    st->client[sizeof(st->client) - 1] = '\0';
	sv->backend = backend_find(st->backend);
	if (sv->backend && sv->backend->half) {
		xrt_function(&st->xrt, st->function, &sv->texts, &sv->function);
		if (st->queue < 1 || st->queue > SERVE_QUEUE_MAX || st->workers != 1)
			return service_refuse(VFUN_R_START_FAILED, "a queue of %u for %s", st->queue, st->function);
	} else if (sv->backend && sv->backend->program) {
		sv->function =
		    (struct backend_function){ .name = st->function, .signature = st->signature, .threads = 1 };
	} else {
		fn = sv->backend ? backend_function(sv->backend, st->function) : NULL;
		if (!fn)
			return service_refuse(
			    VFUN_R_START_FAILED, "backend %s has no function %s", st->backend, st->function);
		sv->function = *fn;
	}
	if (st->workers < 1 || st->workers > (sv->function.threads ? SERVE_WORKERS_MAX : 1))
		return service_refuse(VFUN_R_START_FAILED, "%u workers for %s", st->workers, st->function);
	if (!st->describe && vfun_signature_parse(&sv->signature, sv->function.signature, fault))
		return service_refuse(VFUN_R_START_FAILED, "the signature of %s: %s", st->function, fault);
	return 0;
}

static struct backend_call
backend_call_of(const struct serve_call *call)
{
	return (struct backend_call){ .arg = call->arg,
		.nargs = call->nargs,
		.in = call->in,
		.in_len = call->in_len,
		.out = call->out,
		.out_len = call->out_len,
		.stop = &call->stop };
}

/* Not a call that the function sees: the reason, and its sentence where there is one. */
static void
turn_down(struct serve_answer *ans, enum vfun_reason reason, const char *why)
{
	ans->reason = reason;
	ans->len = strlen(why);
	memcpy(ans->bytes, why, ans->len);
}

/* Does the call fit the function's signature, and its result the room? w->fit says what it comes to. 1, or 0 and an
 * answer. */
static int
fits(struct worker *w, const struct serve_call *call, struct serve_answer *ans)
{
	char why[VFUN_WHY_MAX];
	int r = vfun_signature_fits(&w->sv->signature, call->cmd, call->arg, call->nargs, call->bulk,
	    call->bulk ? call->in_len : 0, &w->fit, why);

	if (r) {
		turn_down(ans, r == -ENODATA ? VFUN_R_NO_DATA : VFUN_R_ARGUMENTS, why);
	} else if (w->fit.out_len > VFUN_PAYLOAD && (!call->bulk || w->fit.out_len > call->out_len)) {
		ans->reason = VFUN_R_RESULT_SIZE;
		ans->len = w->fit.out_len;
	} else {
		return 1;
	}
	return 0;
}

/* What the backend made of it, as the channel has it. */
static void
put_answer(struct serve_answer *ans, int r, const struct backend_result *res)
{
	ans->reason = !r		? VFUN_OK
		      : r == -EINVAL	? VFUN_R_ARGUMENTS
		      : r == -ENOSPC	? VFUN_R_RESULT_SIZE
		      : r == -ENODEV	? VFUN_R_DEVICE
		      : r == -ECANCELED ? VFUN_R_CANCELLED
		      : r == -ETIME	? VFUN_R_LIMIT
					: VFUN_R_FUNCTION;
	ans->bulk = !r && res->bulk;
	ans->len = !r ? res->len : r == -ENOSPC ? res->need : 0;
	if (!r && !res->bulk)
		memcpy(ans->bytes, res->inline_bytes, res->len);
}

/* serve_loop's callback: the backend's run() behind the channel's call. */
static void
compute(void *arg, const struct serve_call *call, struct serve_answer *ans)
{
	struct worker *w = arg;
	const struct service *sv = w->sv;
	struct backend_result res = { .room = (uint8_t *)(uintptr_t)call->out, .room_len = call->out_len };
	struct backend_call bc = backend_call_of(call);

	if (call->cmd == VFUN_CMD_RST) {
		sv->backend->reset(w->state);
		return;
	}
	if (!fits(w, call, ans))
		return;
	bc.arg = vfun_fit_args(&w->fit, VFUN_CMD_GET);
	bc.nargs = sv->signature.get.scalars;
	if (sv->limit_ns)
		__atomic_store_n(&w->deadline, pace_now() + sv->limit_ns, __ATOMIC_RELAXED);
	put_answer(ans, sv->function.run(w->state, &bc, &res), &res);
	if (sv->limit_ns)
		__atomic_store_n(&w->deadline, 0, __ATOMIC_RELAXED);
}

/* The same on a device: each half has the watchdog behind it. */
static int
on_device(struct service *sv, int (*half)(void *, const struct backend_call *, struct backend_result *),
    const struct serve_call *call, struct backend_result *res)
{
	struct backend_call bc = backend_call_of(call);
	int r;

	__atomic_store_n(&sv->deadline, pace_now() + sv->limit_ns, __ATOMIC_RELAXED);
	r = half(sv->lane[call->lane], &bc, res);
	__atomic_store_n(&sv->deadline, r == -ENODEV ? 1 : 0, __ATOMIC_RELAXED);
	return r;
}

static int
device_begin(void *arg, const struct serve_call *call, struct serve_answer *ans)
{
	struct worker *w = arg;
	struct backend_result res = { .room = (uint8_t *)(uintptr_t)call->out, .room_len = call->out_len };
	int r;

	if (!fits(w, call, ans))
		return 1;
	r = on_device(w->sv, w->sv->backend->begin, call, &res);
	if (r)
		put_answer(ans, r, &res);
	return r != 0;
}

static void
device_finish(void *arg, const struct serve_call *call, struct serve_answer *ans)
{
	struct service *sv = ((struct worker *)arg)->sv;
	struct backend_result res = { .room = (uint8_t *)(uintptr_t)call->out, .room_len = call->out_len };

	if (call->cmd != VFUN_CMD_RST) {
		put_answer(ans, on_device(sv, sv->backend->finish, call, &res), &res);
		return;
	}
	for (uint32_t i = 0; i < sv->start.queue; i++)
		sv->backend->reset(sv->lane[i]);
}

/* Serve until the client has to be cut off: an exit status. */
static int
work_for(struct service *sv, unsigned worker)
{
	return serve_loop(&sv->serve, worker, &sv->worker[worker]) == VFUN_R_SLOT_SEQ ? SVC_EXIT_SEQ : SVC_EXIT_CUT_OFF;
}

/* Any worker that has enough of the client ends them all. */
static void *
work_thread(void *arg)
{
	struct worker *w = arg;
	struct service *sv = w->sv;

	__atomic_fetch_add(&sv->up, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&sv->ready, __ATOMIC_ACQUIRE))
		syscall(SYS_futex, &sv->ready, FUTEX_WAIT, 0, NULL, NULL, 0);
	_exit(work_for(sv, (unsigned)(w - sv->worker)));
}

/* Looks some times within the time that a call may take, and ends the service when that is over. */
static void *
watch(void *arg)
{
	struct service *sv = arg;
	uint64_t tick = sv->limit_ns / TICKS;
	const struct timespec ts = { .tv_sec = (time_t)(tick / 1000000000u), .tv_nsec = (long)(tick % 1000000000u) };
	uint32_t never = 0;

	__atomic_fetch_add(&sv->up, 1, __ATOMIC_RELEASE);
	for (;;) {
		syscall(SYS_futex, &never, FUTEX_WAIT, 0, &ts, NULL, 0);
		for (unsigned i = 0; i < sv->start.workers; i++) {
			uint64_t deadline = __atomic_load_n(&sv->worker[i].deadline, __ATOMIC_RELAXED);

			if (deadline && pace_now() > deadline)
				_exit(SVC_EXIT_LATE);
		}
	}
}

int COLD
work_start(struct service *sv)
{
	unsigned threads = 0;
	pthread_attr_t attr;
	pthread_t thread;
	int r = pthread_attr_init(&attr);

	sv->limit_ns = sv->start.program.limit_ms * 1000000ull;
	if (!r)
		r = pthread_attr_setstacksize(&attr, WORKER_STACK);
	for (unsigned i = 0; i < sv->start.workers; i++)
		sv->worker[i].sv = sv;
	for (unsigned i = 1; !r && i < sv->start.workers; i++, threads++)
		r = pthread_create(&thread, &attr, work_thread, &sv->worker[i]);
	if (!r && sv->limit_ns) {
		r = pthread_create(&thread, &attr, watch, sv);
		threads++;
	}
	while (!r && __atomic_load_n(&sv->up, __ATOMIC_ACQUIRE) < threads)
		sched_yield();
	return -r;
}

static void COLD
prepare(struct service *sv)
{
	const struct svc_start *st = &sv->start;

	sv->worker[0].sv = sv;
	sv->serve = (struct serve){ .out = sv->out,
		.in = sv->in,
		.slots = st->slots,
		.workers = st->workers,
		.out_arena = st->out_arena,
		.in_arena = st->in_arena,
		.spin_us = st->spin_us,
		.ring_fd = sv->ring_fd,
		.version = st->version,
		.features = st->features,
		.fn = sv->backend->half ? device_finish : compute,
		.begin = sv->backend->half ? device_begin : NULL,
		.queue = st->queue,
		/* Without arguments there is nothing that a SET could say. */
		.own_sets = !sv->signature.get.items };
}

static enum vfun_reason COLD
init_backend(struct service *sv, const struct backend_setup *setup, char text[BACKEND_TEXT])
{
	unsigned n = sv->backend->half ? sv->start.queue : sv->start.workers;
	enum vfun_reason reason = VFUN_OK;

	for (unsigned i = 0; !reason && i < n; i++)
		reason = sv->backend->init(setup, sv->backend->half ? &sv->lane[i] : &sv->worker[i].state, text);
	return reason;
}

/* Where the arenas are, for backends that let a device read and write them. */
static struct backend_setup COLD
with_arenas(const struct service *sv, const struct backend_setup *setup)
{
	struct backend_setup all = *setup;
	uint64_t at = VFUN_PAGE + vfun_ring_size(sv->start.slots);

	all.fn = &sv->function;
	all.result_max = sv->start.in_arena;
	all.out_arena = (uint8_t *)sv->out + at;
	all.out_size = sv->start.out_arena;
	all.in_arena = (uint8_t *)sv->in + at;
	all.in_size = sv->start.in_arena;
	return all;
}

int COLD
work(struct service *sv, const struct backend_setup *setup, int (*confine)(struct service *sv))
{
	struct svc_ready ready = { .reason = VFUN_OK, .huge = sv->huge };
	char text[BACKEND_TEXT] = "";
	struct backend_setup all;
	enum vfun_reason reason;
	int copies = 0;
	/* Nothing in dataout is ever written here, but a device may only take memory that is writable. */
	int r = regions_map(sv, sv->backend->half ? PROT_READ | PROT_WRITE : PROT_READ);

	if (r)
		return service_refuse(VFUN_R_NO_RESOURCE, "the regions can't be mapped: %s", strerror(-r));
	all = with_arenas(sv, setup);
	all.copies = &copies;
	reason = init_backend(sv, &all, text);
	if (reason)
		return service_refuse(reason, "%s", text);
	ready.copies = (uint16_t)copies;
	r = fd_send(SVC_FD, &ready, sizeof(ready), (const int[]){ sv->out_fd, sv->in_fd, sv->ring_fd }, 3);
	if (r)
		return EXIT_SYSTEM;
	close(sv->out_fd);
	close(sv->in_fd);
	r = confine(sv);
	if (r) {
		log_err("the second list of system calls can't be loaded: %s", strerror(-r));
		return EXIT_SYSTEM;
	}
	prepare(sv);
	if (write(SVC_FD, "!", 1) != 1)
		return EXIT_SYSTEM;
	__atomic_store_n(&sv->ready, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &sv->ready, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	return work_for(sv, 0);
}
