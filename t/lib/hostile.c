/* SPDX-License-Identifier: MIT
 *
 * hostile.c - a client that changes its slots and arena while the service reads them, and a witness beside it
 *
 *   hostile rewrite CALLS PATH    so many calls, 64 in flight, while a second thread rewrites what they are made of
 *   hostile behave CALLS PATH     the same load, but the second thread rewrites memory of its own; every answer is
 * right hostile witness PATH          until SIGTERM: one call after the other, each answer checked, and how long they
 * took
 *
 * The publisher fills slot after slot with well-formed requests, past the library and its checks, and counts answers.
 * The rewriter changes the slots whose turn is next: length, flags and command, arguments and bulk descriptors, now and
 * then the seq itself, and the arena's first bytes, which are the input. It prefers the values at which a check may go
 * wrong. An answer that isn't what the well-formed request asks for shows that a change came in time: those are
 * counted, too.
 *
 * What a hostile client does to itself is made good by the publisher: a slot that lost its seq is filled again, a
 * service that has cut the client off, or that computes for ever because the number of repetitions became astronomic,
 * is replaced by a new instance.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../proto/client.h"

#define SLOTS 64u
#define ARENA 65536u
#define SOON 16u	       /* slots ahead that are rewritten */
#define BURST 64u	       /* changes in a row */
#define INSTANCE_CALLS 100000u /* then comes the next function */
#define REFILL_NS 300000u      /* without an answer: fill the slots again */
#define ENDLESS_NS 150000000u  /* without an answer: give the instance up */
#define MS 1000000u

static const struct workload {
	const char *function;
	unsigned share; /* of INSTANCE_CALLS, in percent */
	uint64_t in_max, room;
	uint64_t (*number)(uint64_t n); /* NULL: bytes, whose answer is not known here */
} workloads[];

struct client {
	struct vfun *v;
	const struct workload *load;
	uint8_t *rewritten; /* dataout, or something of the same size */
	int hostile;
	int over;
	uint32_t published;
	uint32_t done; /* answers taken, and the position of the next */
};

struct counts {
	uint64_t calls, otherwise, instances, cut_off, endless;
};

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

static void
die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	exit(1);
}

/* Mod 2^64, which is what the first 8 bytes of the exact result are. */
static uint64_t
factorial(uint64_t n)
{
	uint64_t r = 1;

	for (uint64_t i = 2; i <= n; i++)
		r *= i;
	return r;
}

static uint64_t
fibonacci(uint64_t n)
{
	uint64_t x = 0, y = 1;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t t = x + y;

		x = y;
		y = t;
	}
	return x;
}

static const struct workload workloads[] = {
	{ "factorial", 100, 0, 64, factorial },
	{ "sha256", 50, 512, 64, NULL },
	{ "fibonacci", 100, 0, 64, fibonacci },
	{ "zstd", 10, 1024, 1088, NULL },
};

static struct vfun *
open_or_die(const char *function, const char *path, unsigned slots, uint64_t arena)
{
	struct vfun_options o = { .size = sizeof(o), .slots = slots, .out_arena = arena, .in_arena = arena };
	struct vfun *v;
	int r;

	for (unsigned p = VFUN_PATH_AUTO; p <= VFUN_PATH_IS_IVSHMEM; p++)
		if (!strcmp(path, vfun_path_name((enum vfun_path)p)))
			o.path = (enum vfun_path)p;
	r = vfun_open(&v, function, &o);
	if (r)
		die("%s can't be opened: %s (%s)", function, vfun_text(v), strerror(-r));
	return v;
}

static uint64_t *
slot(uint8_t *region, uint32_t position)
{
	return (uint64_t *)(void *)(region + VFUN_PAGE + (position & (SLOTS - 1)) * VFUN_LINE);
}

/* Has this position's slot an answer to it, or to a later one? */
static int
answered(const struct client *c, uint32_t position)
{
	const uint32_t *seq = (const uint32_t *)(const void *)slot(c->v->in.map, position);

	return (int32_t)(__atomic_load_n(seq, __ATOMIC_ACQUIRE) - (position + 1)) >= 0;
}

/* The rewriter */

static uint64_t
odd_value(uint64_t x)
{
	static const uint64_t odd[] = { 0, 1, 2, 7, 8, 31, 32, 55, 56, 57, 63, 64, 65, 4095, 4096, 4097, ARENA - 64,
		ARENA - 1, ARENA, ARENA + 1, INT32_MAX, UINT32_MAX, 1ull << 32, 1ull << 63, -64ull, -8ull, -1ull };

	return x & 1 ? odd[(x >> 1) % (sizeof(odd) / sizeof(odd[0]))] : (x >> 1) % ARENA;
}

static void
rewrite_once(struct client *c, uint32_t next, uint64_t x)
{
	uint32_t at = next + (uint32_t)(x >> 4) % SOON;
	volatile uint64_t *line = slot(c->rewritten, at);
	volatile uint8_t *bytes = (volatile uint8_t *)line;
	volatile struct vfun_hdr *h = (volatile struct vfun_hdr *)(volatile void *)c->rewritten;
	uint64_t value = x >> 24;

	switch (x >> 16 & 127) {
	case 0: /* a wrong seq, or that of the next round: served before it is published; rarely, it stops everything */
		if (value & 0x70)
			break;
		*(volatile uint32_t *)line = value & 1 ? at + 1 + SLOTS : (uint32_t)value;
		break;
	case 1:
		h->parked = value & 1;
		h->until = (uint32_t)(value >> 1);
		break;
	case 2:
		h->bell = (uint32_t)value;
		break;
	case 3 ... 5: /* command */
		bytes[4] = (uint8_t)(value & 1 ? value >> 1 : value >> 1 & 7);
		break;
	case 6 ... 10: /* flags */
		bytes[5] = (uint8_t)(value & 1 ? value >> 1 : value >> 1 & 3);
		break;
	case 11 ... 15: /* length */
		bytes[6] = (uint8_t)(value & 1 ? value >> 1 : value >> 1 & 0x78);
		break;
	case 16:
		bytes[7] = (uint8_t)(value & 15 ? 0 : value >> 4);
		break;
	default:
		if (x & 12)
			line[1 + value % 7] = odd_value(value >> 3);
		else
			slot(c->rewritten + vfun_ring_size(SLOTS), 0)[value % 256] = x;
	}
}

/* A burst of changes. *x is the generator's state; *next the position that the service reads now, or reads next, as the
 * answers show it. */
static void
rewrite(struct client *c, uint64_t *x, uint32_t *next)
{
	uint32_t done = __atomic_load_n(&c->done, __ATOMIC_RELAXED);

	if ((int32_t)(*next - done) < 0)
		*next = done;
	for (unsigned i = 0; i < BURST; i++) {
		while (answered(c, *next))
			(*next)++;
		*x ^= *x << 13;
		*x ^= *x >> 7;
		*x ^= *x << 17;
		rewrite_once(c, *next, *x);
	}
}

static void *
rewriter(void *arg)
{
	struct client *c = arg;
	uint64_t x = 88172645463325252ull;
	uint32_t next = 0;

	while (!__atomic_load_n(&c->over, __ATOMIC_RELAXED)) {
		rewrite(c, &x, &next);
		sched_yield();
	}
	return NULL;
}

/* The publisher */

static uint64_t
argument(uint32_t position)
{
	return position % 60;
}

/* A well-formed request. Numbers go inline as well as with room for a bulk result. */
static void
fill(struct client *c, uint32_t position)
{
	const struct workload *w = c->load;
	struct vfun_request r = { .seq = position + 1, .cmd = VFUN_CMD_GET };
	volatile uint64_t *line = slot(c->v->out.map, position);
	uint64_t header;

	/* What isn't used is a modest number of repetitions, should the length come to cover it. */
	for (unsigned i = 0; i < VFUN_PAYLOAD / 8; i++)
		r.payload.arg[i] = 1;
	if (w->number && position & 1) {
		r.len = 8;
		r.payload.arg[0] = argument(position);
	} else {
		r.flags = VFUN_SLOT_BULK;
		r.len = w->number ? 40 : 32;
		r.payload.arg[0] = w->in_max ? position * 64ull % 4096 : 0;
		r.payload.arg[1] = w->in_max ? position * 7ull % w->in_max : 0;
		r.payload.arg[2] = position * 64ull % 32768;
		r.payload.arg[3] = w->room;
		r.payload.arg[4] = w->number ? argument(position) : 1;
	}
	for (unsigned i = 0; i < VFUN_PAYLOAD / 8; i++)
		line[1 + i] = r.payload.arg[i];
	memcpy(&header, &r, sizeof(header));
	__atomic_store_n((uint64_t *)(uintptr_t)line, header, __ATOMIC_RELEASE);
}

/* Is it the answer that the well-formed request has? */
static int
as_asked(const struct client *c, uint32_t position, const struct vfun_answer *a)
{
	if (a->reason || !c->load->number)
		return !a->reason;
	return !(a->flags & VFUN_ANSWER_BULK) && a->len <= 8 * 8 && a->len > 0 &&
	       !memcmp(a->payload.bytes, &(uint64_t){ c->load->number(argument(position)) }, a->len < 8 ? a->len : 8);
}

/* Take what is answered; 1 if anything was. */
static int
collect(struct client *c, struct counts *n)
{
	uint32_t before = c->done;

	while (c->done != c->published) {
		const uint64_t *line = slot(c->v->in.map, c->done);
		struct vfun_answer a;

		if (!answered(c, c->done))
			break;
		memcpy(&a, line, sizeof(a));
		if (a.seq != c->done + 1 || !as_asked(c, c->done, &a)) {
			n->otherwise++;
			if (!c->hostile)
				die("call %u of %s: a wrong answer, reason %u", c->done, c->load->function, a.reason);
		}
		n->calls++;
		__atomic_store_n(&c->done, c->done + 1, __ATOMIC_RELAXED);
	}
	return c->done != before;
}

/* Calls until there were enough of them, or until this client has made its service unusable. */
static void
publish(struct client *c, struct counts *n, uint64_t until)
{
	const volatile struct vfun_hdr *in = (const volatile struct vfun_hdr *)(const void *)c->v->in.map;
	uint64_t since = client_ns(), refilled = since;
	uint64_t x = since | 1;
	uint32_t next = 0;

	c->published = c->done = 1; /* position 0 was the echo's */
	while (n->calls < until && !in->gone) {
		while (c->published - c->done < SLOTS)
			fill(c, c->published++);
		vfun_ring(c->v);
		rewrite(c, &x, &next);
		if (collect(c, n)) {
			since = refilled = client_ns();
			continue;
		}
		if (client_ns() - since > (c->hostile ? ENDLESS_NS : 100 * (uint64_t)ENDLESS_NS)) {
			n->endless++;
			return;
		}
		if (c->hostile && client_ns() - refilled > REFILL_NS) {
			for (uint32_t p = c->done; p != c->published; p++)
				fill(c, p);
			refilled = client_ns();
		}
	}
	/* A slot that is published too early ends the instance as well. */
	n->cut_off += in->gone == VFUN_R_CUT_OFF || in->gone == VFUN_R_SLOT_SEQ;
	if (in->gone && in->gone != VFUN_R_CUT_OFF && in->gone != VFUN_R_SLOT_SEQ)
		die("the service is gone, reason %u", in->gone);
}

static void
instance(const struct workload *w, const char *path, int hostile, struct counts *n, uint64_t calls)
{
	struct client c = { .v = open_or_die(w->function, path, SLOTS, ARENA), .load = w, .hostile = hostile };
	uint64_t quota = (uint64_t)INSTANCE_CALLS * w->share / 100;
	pthread_t thread;

	c.rewritten = hostile ? c.v->out.map : calloc(1, c.v->out.size);
	if (!c.rewritten)
		die("path %s has no mapping", path);
	if (pthread_create(&thread, NULL, rewriter, &c))
		die("no thread");
	n->instances++;
	publish(&c, n, n->calls + (quota < calls - n->calls ? quota : calls - n->calls));
	__atomic_store_n(&c.over, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	if (!hostile)
		free(c.rewritten);
	vfun_close(c.v, NULL);
}

static int
run(uint64_t calls, const char *path, int hostile)
{
	struct counts n = { 0 };
	uint64_t start = client_ns();

	for (unsigned i = 0; n.calls < calls; i++)
		instance(&workloads[i % (sizeof(workloads) / sizeof(workloads[0]))], path, hostile, &n, calls);
	printf("ok %llu calls, %llu answered otherwise, %llu instances, %llu cut off, %llu endless, %.1f s\n",
	    (unsigned long long)n.calls, (unsigned long long)n.otherwise, (unsigned long long)n.instances,
	    (unsigned long long)n.cut_off, (unsigned long long)n.endless, (double)(client_ns() - start) / 1e9);
	return 0;
}

/* The witness */

static volatile sig_atomic_t told;

static void
on_term(int sig)
{
	(void)sig;
	told = 1;
}

static int
compare(const void *a, const void *b)
{
	return *(const uint32_t *)a < *(const uint32_t *)b ? -1 : *(const uint32_t *)a > *(const uint32_t *)b;
}

static int
witness(const char *path)
{
	struct vfun *v = open_or_die("factorial", path, 1, 0);
	size_t max = 1 << 24, n = 0;
	double sum = 0;
	uint32_t *ns = malloc(max * sizeof(*ns));

	if (!ns)
		die("no memory");
	signal(SIGTERM, on_term);
	puts("ready");
	fflush(stdout);
	for (uint64_t i = 0; !told; i++) {
		uint64_t arg = i % 20, start = client_ns(), took;
		struct vfun_result res;
		int r = vfun_call(v, VFUN_CMD_GET, &arg, 1, NULL, &res, 60000ull * MS);

		took = client_ns() - start;
		if (r || res.reason || res.len > 8 || memcmp(res.inline_result, &(uint64_t){ factorial(arg) }, res.len))
			die("call %llu: %s, reason %u", (unsigned long long)i, strerror(-r), res.reason);
		if (n == max)
			break;
		ns[n++] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
		sum += (double)took;
	}
	while (!told)
		usleep(1000);
	qsort(ns, n, sizeof(*ns), compare);
	printf("ok %zu calls, mean %.2f us, median %.2f us, 99%% within %.0f us, worst %.0f us\n", n,
	    sum / (double)n / 1e3, ns[n / 2] / 1e3, ns[n - 1 - n / 100] / 1e3, ns[n - 1] / 1e3);
	free(ns);
	return vfun_close(v, NULL) ? 1 : 0;
}

int
main(int argc, char **argv)
{
	if (argc == 4 && (!strcmp(argv[1], "rewrite") || !strcmp(argv[1], "behave")))
		return run(strtoull(argv[2], NULL, 10), argv[3], argv[1][0] == 'r');
	if (argc == 3 && !strcmp(argv[1], "witness"))
		return witness(argv[2]);
	die("hostile: what?");
}
