/* SPDX-License-Identifier: MIT
 *
 * program.c - a function of one's own: vfun_serve(), main()'s body in a program that vfund starts
 *
 * vfund's service has made the regions, confined the process as it does with its own functions, loaded the first filter
 * of system calls, and executed the program. What is left to do, in this order:
 *
 *   read vfun_program_start; map the regions; a state for each worker (init); the workers, which sleep; the watchdog,
 *   if calls have a time limit; close what isn't needed any more; load the second filter; say that it is ready; serve
 *
 * so that the process can do nothing but compute when it first reads what a guest has written. vfund's launcher makes
 * sure of that: it looks at how many filters the process has before it lets the client have the regions.
 *
 * The watchdog is a thread that looks eight times within the time that a call may take, and ends the process when that
 * is over for one of the workers.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "filter.h"
#include "pace.h"
#include "serve.h"
#include "signature.h"

#define EXIT_NOT_VFUND 64 /* EX_USAGE of sysexits.h */
#define EXIT_CUT_OFF 10
#define EXIT_LATE 11
#define EXIT_SEQ 13
#define FEATURES (VFUN_FEATURE_CANCEL | VFUN_FEATURE_LIMIT | VFUN_FEATURE_ORDERED)
#define TICKS 8

struct program;

/* A thread; the first is the process itself. */
struct worker {
	struct program *pr;
	void *state;	     /* the function's */
	struct vfun_fit fit; /* of its calls to the signature */
	struct vfun_array in[VFUN_ARRAYS_MAX];
	uint64_t deadline; /* CLOCK_MONOTONIC ns: when the call must be done; 0: none under way. For the watchdog */
};

struct program {
	struct serve serve;
	const struct vfun_program *p;
	struct vfun_program_start start;
	struct vfun_signature signature;
	struct worker worker[SERVE_WORKERS_MAX];
	uint32_t up;	/* threads that have got as far as waiting: the C library has made its system calls */
	uint32_t ready; /* futex: 1 when the workers may begin */
};

/* To the launcher. An exit status. */
static int
refuse(const struct program *pr, enum vfun_reason reason, const char *what, int err)
{
	struct vfun_program_ready ready = { .magic = VFUN_PROGRAM_MAGIC, .reason = (uint16_t)reason };

	snprintf(
	    ready.text, sizeof(ready.text), err ? "%s: %s: %s" : "%s: %s", pr->start.function, what, strerror(err));
	return write(VFUN_PROGRAM_SOCKET, &ready, sizeof(ready)) == (ssize_t)sizeof(ready) ? EXIT_FAILURE
											   : EXIT_NOT_VFUND;
}

int
vfun_refuse(struct vfun_outgoing *out, const char *sentence)
{
	snprintf(out->why, sizeof(out->why), "%s", sentence);
	return -EINVAL;
}

/* The result of any length begins in `small`, behind fixed ones if there are any, and goes into the room when it
 * doesn't fit. */
int
vfun_result_put(struct vfun_outgoing *out, const void *data, uint64_t len)
{
	if (!out->in_room && len <= sizeof(out->small) - out->len) {
		memcpy((uint8_t *)out->small + out->len, data, len);
		out->len += len;
		return 0;
	}
	if (out->len > out->room_len || len > out->room_len - out->len) {
		out->need = out->len + len;
		return -ENOSPC;
	}
	if (!out->in_room)
		memcpy(out->room, out->small, out->len);
	out->in_room = 1;
	memcpy(out->room + out->len, data, len);
	out->len += len;
	return 0;
}

int
vfun_result_length(struct vfun_outgoing *out, uint64_t len)
{
	out->in_room = out->array[0].data != out->small;
	if (len > out->array[0].bytes) {
		out->need = len;
		return -ENOSPC;
	}
	out->len = len;
	return 0;
}

/* One array of the call, or of its result, as the function sees it. */
static struct vfun_array
array_of(const struct vfun_item *item, const struct vfun_place *place, uint8_t *base)
{
	struct vfun_array a = { .data = base + place->off,
		.bytes = place->len,
		.n = place->len / vfun_type_size((enum vfun_type)item->type),
		.dims = item->dims };

	memcpy(a.dim, place->dim, sizeof(a.dim));
	return a;
}

static void
lay_out_input(const struct program *pr, const struct serve_call *call, struct worker *w, struct vfun_incoming *in)
{
	const struct vfun_command *c = vfun_signature_command(&pr->signature, call->cmd);

	in->cmd = call->cmd;
	in->arg = vfun_fit_args(&w->fit, call->cmd);
	in->nargs = c->scalars;
	in->narrays = c->arrays;
	for (unsigned i = 0; i < c->arrays; i++)
		w->in[i] = array_of(&pr->signature.item[c->array[i]], &w->fit.in[i], (uint8_t *)(uintptr_t)call->in);
	in->array = w->in;
	in->stop = &call->stop;
}

/* Where the client's data are he alone decides. */
static int
aligned(const volatile void *data, unsigned align)
{
	return !((uintptr_t)data & ((align < VFUN_LINE ? align : VFUN_LINE) - 1));
}

/* A result is in the slot if it fits, as all of the channel's results are. What is in front of one of any length goes
 * where that begins. 0, -ENOSPC, or -EINVAL with a sentence. */
static int
lay_out_result(
    const struct program *pr, const struct serve_call *call, const struct vfun_fit *fit, struct vfun_outgoing *out)
{
	const struct vfun_signature *s = &pr->signature;
	unsigned last = s->results - 1u;
	uint64_t known = s->any ? fit->out[last].off : fit->out_len;
	uint8_t *base = (uint8_t *)out->small;

	out->room = (uint8_t *)(uintptr_t)call->out;
	out->room_len = call->out_len;
	out->narrays = s->results;
	out->in_room = known > sizeof(out->small) || (s->any && !last && call->bulk);
	if (out->in_room)
		base = out->room;
	out->len = out->need = known;
	if (known > (out->in_room ? out->room_len : sizeof(out->small)))
		return -ENOSPC;
	if (out->room_len && !aligned(base, s->out_align))
		return vfun_refuse(out, "the room's offset isn't aligned");
	for (unsigned i = 0; i < s->results; i++)
		out->array[i] = array_of(&s->item[s->first_result + i], &fit->out[i], base);
	if (s->any) {
		struct vfun_array *a = &out->array[last];

		a->bytes = (out->in_room ? out->room_len : sizeof(out->small)) - known;
		a->n = a->bytes / vfun_type_size((enum vfun_type)s->item[s->first_result + last].type);
	}
	/* Until vfun_result_length() says that it was written there. */
	out->in_room = known > sizeof(out->small);
	return 0;
}

static void
put_answer(struct serve_answer *ans, int r, const struct vfun_outgoing *out)
{
	int why = r == -EINVAL || r == -ENODATA;

	ans->reason = !r		? VFUN_OK
		      : r == -EINVAL	? VFUN_R_ARGUMENTS
		      : r == -ENODATA	? VFUN_R_NO_DATA
		      : r == -ENOSPC	? VFUN_R_RESULT_SIZE
		      : r == -ECANCELED ? VFUN_R_CANCELLED
		      : r == -ETIME	? VFUN_R_LIMIT
					: VFUN_R_FUNCTION;
	ans->bulk = !r && out->in_room;
	ans->len = !r ? out->len : r == -ENOSPC ? out->need : why ? strlen(out->why) : 0;
	if (why)
		memcpy(ans->bytes, out->why, ans->len);
	else if (!r && !ans->bulk)
		memcpy(ans->bytes, out->small, out->len);
}

/* Fixed results were laid out in the slot, and what was put behind them has moved to the room: so do they, now that
 * they are written. */
static void
follow(const struct vfun_signature *s, const struct vfun_fit *fit, struct vfun_outgoing *out)
{
	uint64_t known = fit->out[s->results - 1].off;

	if (s->any && out->in_room && known <= sizeof(out->small))
		memcpy(out->room, out->small, known);
}

/* 0, or as vfun_program.call. */
static int
compute(struct worker *w, const struct serve_call *call, struct vfun_outgoing *out)
{
	const struct program *pr = w->pr;
	struct vfun_incoming in;
	int r = vfun_signature_fits(
	    &pr->signature, call->cmd, call->arg, call->nargs, call->bulk, call->in_len, &w->fit, out->why);

	if (r)
		return r;
	if (call->in_len && !aligned(call->in, pr->signature.in_align))
		return vfun_refuse(out, "the input's offset isn't aligned");
	lay_out_input(pr, call, w, &in);
	if (call->cmd == VFUN_CMD_GET)
		r = lay_out_result(pr, call, &w->fit, out);
	if (!r)
		r = pr->p->call(w->state, &in, out);
	if (!r && call->cmd == VFUN_CMD_SET)
		vfun_signature_keep(&w->fit);
	else if (!r && pr->signature.results)
		follow(&pr->signature, &w->fit, out);
	return r;
}

/* serve_loop's callback. */
static void
serve(void *arg, const struct serve_call *call, struct serve_answer *ans)
{
	struct worker *w = arg;
	const struct program *pr = w->pr;
	struct vfun_outgoing out;

	if (pr->start.limit_ms)
		__atomic_store_n(&w->deadline, pace_now() + pr->start.limit_ms * 1000000ull, __ATOMIC_RELAXED);
	if (call->cmd == VFUN_CMD_RST) {
		vfun_signature_forget(&w->fit);
		if (pr->p->reset)
			pr->p->reset(w->state);
	} else {
		/* A SET has no result, and no room for one. */
		out.room = NULL;
		out.narrays = 0;
		out.room_len = out.len = out.need = 0;
		out.in_room = 0;
		out.why[0] = '\0';
		memset(out.small, 0, sizeof(out.small));
		put_answer(ans, compute(w, call, &out), &out);
	}
	if (pr->start.limit_ms)
		__atomic_store_n(&w->deadline, 0, __ATOMIC_RELAXED);
}

/* Serve until the client has to be cut off: an exit status. */
static int
work_for(struct program *pr, unsigned worker)
{
	return serve_loop(&pr->serve, worker, &pr->worker[worker]) == VFUN_R_SLOT_SEQ ? EXIT_SEQ : EXIT_CUT_OFF;
}

static int
compare(const void *a, const void *b)
{
	return *(const char *)a - *(const char *)b;
}

/* What the C library does once, and by system calls that the second list doesn't have: glibc's qsort() asks how much
 * memory there is, up to 2.36, and the first to ask for the time of day reads the time zone. */
static void
warm_up(void)
{
	static char items[4096]; /* more than qsort() sorts on its stack */

	qsort(items, sizeof(items), 1, compare);
	tzset();
}

/* Any worker that has enough of the client ends them all. */
static void *
work(void *arg)
{
	struct worker *w = arg;
	struct program *pr = w->pr;

	__atomic_fetch_add(&pr->up, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&pr->ready, __ATOMIC_ACQUIRE))
		syscall(SYS_futex, &pr->ready, FUTEX_WAIT, 0, NULL, NULL, 0);
	_exit(work_for(pr, (unsigned)(w - pr->worker)));
}

static void *
watch(void *arg)
{
	struct program *pr = arg;
	uint64_t tick = pr->start.limit_ms * 1000000ull / TICKS;
	const struct timespec ts = { .tv_sec = (time_t)(tick / 1000000000u), .tv_nsec = (long)(tick % 1000000000u) };
	uint32_t never = 0;

	__atomic_fetch_add(&pr->up, 1, __ATOMIC_RELEASE);
	for (;;) {
		syscall(SYS_futex, &never, FUTEX_WAIT, 0, &ts, NULL, 0);
		for (unsigned i = 0; i < pr->start.workers; i++) {
			uint64_t deadline = __atomic_load_n(&pr->worker[i].deadline, __ATOMIC_RELAXED);

			if (deadline && pace_now() > deadline)
				_exit(EXIT_LATE);
		}
	}
}

/* The other workers and the watchdog. 0 or -errno. */
static int
start_threads(struct program *pr)
{
	pthread_t thread;
	uint32_t n = 0;
	int r = 0;

	for (uint32_t i = 1; !r && i < pr->start.workers; i++, n++)
		r = pthread_create(&thread, NULL, work, &pr->worker[i]);
	if (!r && pr->start.limit_ms) {
		r = pthread_create(&thread, NULL, watch, pr);
		n++;
	}
	while (!r && __atomic_load_n(&pr->up, __ATOMIC_ACQUIRE) < n)
		sched_yield();
	return -r;
}

/* A region, between two pages that nobody may touch: who steps outside it ends, and reaches nothing. NULL with errno.
 */
static void *
map_region(int fd, uint64_t off, uint64_t size, int prot)
{
	uint8_t *p = mmap(NULL, size + 2 * (uint64_t)VFUN_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p != MAP_FAILED)
		p = mmap(p + VFUN_PAGE, size, prot, MAP_SHARED | MAP_FIXED, fd, (off_t)off);
	return p == MAP_FAILED ? NULL : p;
}

/* 0 or -errno. */
static int
map_regions(struct program *pr)
{
	const struct vfun_program_start *st = &pr->start;
	const void *out =
	    map_region(VFUN_PROGRAM_OUT, st->out_off, vfun_region_size(st->slots, st->out_arena), PROT_READ);
	void *in =
	    map_region(VFUN_PROGRAM_IN, st->in_off, vfun_region_size(st->slots, st->in_arena), PROT_READ | PROT_WRITE);

	if (!out || !in)
		return -errno;
	pr->serve = (struct serve){ .out = out,
		.in = in,
		.slots = st->slots,
		.workers = st->workers,
		.out_arena = st->out_arena,
		.in_arena = st->in_arena,
		.spin_us = st->spin_us,
		.ring_fd = VFUN_PROGRAM_RING,
		.version = st->version,
		.features = st->features & FEATURES,
		.fn = serve,
		/* Also where a call without arguments is all there is, and no SET can have been meant. */
		.own_sets = pr->signature.set.present || !pr->signature.get.items };
	return 0;
}

/* 0, or an exit status after a refusal. */
static int
init_workers(struct program *pr)
{
	for (uint32_t i = 0; i < pr->start.workers; i++) {
		int r = pr->p->init ? pr->p->init(&pr->worker[i].state, pr->start.in_arena) : 0;

		pr->worker[i].pr = pr;
		if (r)
			return refuse(
			    pr, r == -ENOMEM ? VFUN_R_NO_RESOURCE : VFUN_R_START_FAILED, "it can't prepare itself", -r);
	}
	return 0;
}

#ifdef VFUN_LIBRARY
/* Before main(): what the program does to prepare itself may be refused as well. And all threads use one arena, unless
 * the program says otherwise: an arena of its own takes 64 MB of the address space that vfun.conf bounds, and makes
 * glibc open files (how many processors are there, may it become smaller?). */
__attribute__((constructor)) static void
before_main(void)
{
	(void)filter_tells();
#ifdef M_ARENA_MAX
	(void)mallopt(M_ARENA_MAX, 1);
#endif
}
#endif

/* Everything that serving needs is there. 0 or -errno. */
static int
confine(void)
{
	/* Once more: the program may have had a handler of its own. */
	if (filter_tells() || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	close(VFUN_PROGRAM_OUT);
	close(VFUN_PROGRAM_IN);
	return filter_load(VFUN_PROGRAM_FILTER);
}

/* Standard output is a pipe to vfund's log, of lines; its buffer is made here, where memory still may be. */
static void
prepare_output(void)
{
	static char line[BUFSIZ];

	setvbuf(stdout, line, _IOLBF, sizeof(line));
}

static int
run(struct program *pr)
{
	struct vfun_program_ready ready = { .magic = VFUN_PROGRAM_MAGIC };
	int r = map_regions(pr);

	if (r)
		return refuse(pr, VFUN_R_NO_RESOURCE, "the regions can't be mapped", -r);
	r = init_workers(pr);
	if (r)
		return r;
	warm_up();
	r = start_threads(pr);
	if (r)
		return refuse(pr, VFUN_R_NO_RESOURCE, "no threads", -r);
	r = confine();
	if (r)
		return refuse(pr, VFUN_R_START_FAILED, "the second list of system calls can't be loaded", -r);
	strcpy(ready.signature, pr->p->signature);
	if (write(VFUN_PROGRAM_SOCKET, &ready, sizeof(ready)) != (ssize_t)sizeof(ready))
		return EXIT_FAILURE;
	__atomic_store_n(&pr->ready, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &pr->ready, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	return work_for(pr, 0);
}

static int
describe(const struct vfun_program *p)
{
	printf("%s\n%s\nfeatures %u\n", p->signature, p->summary, (unsigned)FEATURES);
	return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* What the program says of itself: NULL, or what is wrong with it. */
static const char *
wrong(const struct vfun_program *p, struct vfun_signature *s)
{
	static char fault[VFUN_TEXT_MAX];

	if (p->size != sizeof(*p))
		return "built for another version of vfun.h";
	if (!p->signature || strlen(p->signature) >= VFUN_SIGNATURE_MAX)
		return "no signature, or one that is too long";
	if (!p->summary || strlen(p->summary) >= VFUN_SUMMARY_MAX)
		return "no summary, or one that is too long";
	if (vfun_signature_parse(s, p->signature, fault))
		return fault;
	return p->call ? NULL : "no call()";
}

int
vfun_serve(const struct vfun_program *p, int argc, char **argv)
{
	static struct program pr;
	const char *name = argc > 0 ? argv[0] : "program";
	const char *fault = wrong(p, &pr.signature);
	ssize_t n;

	if (fault) {
		fprintf(stderr, "%s: %s\n", name, fault);
		return EXIT_FAILURE;
	}
	if (argc == 2 && !strcmp(argv[1], "--describe"))
		return describe(p);
	n = pread(VFUN_PROGRAM_START, &pr.start, sizeof(pr.start), 0);
	if (n != (ssize_t)sizeof(pr.start) || pr.start.magic != VFUN_PROGRAM_MAGIC) {
		fprintf(stderr, "%s: this is a function of vfun's, and vfund starts it: see vfun-function(7)\n", name);
		return EXIT_NOT_VFUND;
	}
	close(VFUN_PROGRAM_START);
	prepare_output();
	pr.p = p;
	if (pr.start.workers < 1 ||
	    pr.start.workers > (p->threads && !pr.signature.set.present ? SERVE_WORKERS_MAX : 1u))
		return refuse(&pr, VFUN_R_START_FAILED, "it has but one thread (vfun.conf: workers)", 0);
	return run(&pr);
}
