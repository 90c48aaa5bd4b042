/* SPDX-License-Identifier: MIT
 *
 * hardware.c - vfun bench hardware: what a call of a function in hardware costs beyond XRT's own
 *
 * The reference is XRT itself: a loop that sets arguments, starts, waits and brings the result back, without vfun, in a
 * service of the same kind, confined in the same way, on the same device (measure = yes, backends/xrt/run.c). It and
 * vfun take turns, each in many rounds; a round's figure is its median, and what is shown is the median of those, and
 * of the differences between neighbours.
 *
 * The function is one of the user's vfun.conf (--conf, --function): own.c makes a vfund that has it twice, once to be
 * measured, as NAME-xrt. One at a time, the client spins for as long as a launch takes, since a sleeper's wake-up is
 * another matter (vfun bench latency); the report says so. With calls in flight it waits as any client does, until all
 * have come: on few processors one who spins takes them from XRT's threads, and from a device that is a process, and so
 * does one who wakes up for each.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../common/cli.h"
#include "../roles.h"
#include "bench.h"

#define ROUNDS_DEFAULT 15
#define COUNT_DEFAULT 400 /* calls in a round */
#define QUEUE 8		  /* calls in flight */
#define ARGS_MAX 4
#define SPIN_US 1000000u
#define WARM_UP (4 * QUEUE) /* calls first: the service is awake, and each run of its queue was used */

enum { WHERE, PATH, MODE, CALLS, XRT, VFUN, ADDS, VFUN_P99, ARENAS };

static const struct column columns[] = {
	{ "where", "where", KIND_TEXT, 0 },
	{ "path", "path", KIND_TEXT, 0 },
	{ "mode", "calls", KIND_TEXT, 0 },
	{ "calls", "times", KIND_COUNT, 0 },
	{ "xrt_us", "XRT alone us", KIND_NUMBER, 1 },
	{ "vfun_us", "by vfun", KIND_NUMBER, 1 },
	{ "adds_us", "vfun adds", KIND_NUMBER, 1 },
	{ "vfun_p99_us", "p99", KIND_NUMBER, 1 },
	{ "arenas", "arenas", KIND_TEXT, 0 },
	{ NULL, NULL, KIND_TEXT, 0 },
};

struct hardware {
	struct bench *b;
	char reference[VFUN_NAME_MAX];
	uint64_t arg[ARGS_MAX];
	unsigned nargs;
	const char *path;
	int copies; /* 1: the device doesn't use the arenas in place */
};

/* One round of one kind: ns of a call, and of the 99th in a hundred. */
struct figure {
	double median;
	double p99;
};

static int
open_function(const struct hardware *h, struct vfun **v, const char *function, uint64_t depth)
{
	const struct vfun_options o = { .size = sizeof(o),
		.run = h->b->run,
		.target = VFUN_TARGET_HARDWARE,
		.in_arena = VFUN_PAGE,
		.spin_us = depth == 1 ? SPIN_US : 0 };
	int r = vfun_open(v, function, &o);

	if (!r)
		return 0;
	r = bench_fail(r == -EACCES ? EXIT_REFUSED : cli_status(r), "%s: %s", function, vfun_text(*v));
	vfun_close(*v, NULL);
	return r;
}

static int
failed(const struct vfun *v, const char *function, int r, enum vfun_reason reason)
{
	return r ? bench_fail(cli_status(r), "%s: %s", function, *vfun_text(v) ? vfun_text(v) : strerror(-r))
		 : bench_fail(EXIT_FUNCTION, "%s: %s", function, vfun_reason_name(reason));
}

static int
xrt_round(struct hardware *h, uint64_t depth, struct figure *f)
{
	uint64_t arg[ARGS_MAX + 2] = { h->b->count, depth };
	struct vfun_result res;
	struct vfun *v;
	int r = open_function(h, &v, h->reference, depth);

	if (r)
		return r;
	memcpy(arg + 2, h->arg, sizeof(h->arg));
	r = vfun_call(v, VFUN_CMD_GET, arg, h->nargs + 2, NULL, &res, BENCH_TIMEOUT_NS);
	if (r || res.reason) {
		r = failed(v, h->reference, r, res.reason);
	} else {
		f->median = depth == 1 ? (double)res.inline_word[0] : (double)res.inline_word[2] / (double)h->b->count;
		h->copies = res.inline_word[3] != 0;
	}
	vfun_close(v, NULL);
	return r;
}

static int
one_at_a_time(struct hardware *h, struct vfun *v, struct figure *f)
{
	static struct hist hist;
	struct vfun_result res = { .reason = VFUN_OK };
	int r = 0;

	memset(&hist, 0, sizeof(hist));
	for (uint64_t i = 0; !r && !res.reason && i < h->b->count; i++) {
		uint64_t start = bench_ns();

		r = vfun_call(v, VFUN_CMD_GET, h->arg, h->nargs, NULL, &res, BENCH_TIMEOUT_NS);
		hist_add(&hist, bench_ns() - start);
	}
	f->median = hist_quantile(&hist, 0.5);
	f->p99 = hist_quantile(&hist, 0.99);
	return r || res.reason ? failed(v, h->b->function, r, res.reason) : 0;
}

static int
queued(struct hardware *h, struct vfun *v, uint64_t count, struct figure *f)
{
	struct vfun_done done[QUEUE];
	uint64_t left = count;
	uint64_t start = bench_ns();
	unsigned under_way = 0;

	while (left || under_way) {
		uint32_t ticket;
		int n;

		while (left && under_way < QUEUE && !vfun_submit(v, VFUN_CMD_GET, h->arg, h->nargs, NULL, &ticket)) {
			left--;
			under_way++;
		}
		n = vfun_gather(v, done, QUEUE, QUEUE, BENCH_TIMEOUT_NS);
		if (n <= 0)
			return failed(v, h->b->function, n ? n : -EPROTO, VFUN_OK);
		for (int i = 0; i < n; i++)
			if (done[i].result.reason)
				return failed(v, h->b->function, 0, done[i].result.reason);
		under_way -= (unsigned)n;
	}
	f->median = (double)(bench_ns() - start) / (double)count;
	return 0;
}

static int
vfun_round(struct hardware *h, uint64_t depth, struct figure *f)
{
	struct vfun *v;
	int r = open_function(h, &v, h->b->function, depth);

	if (r)
		return r;
	h->path = vfun_path_name(vfun_path(v));
	r = queued(h, v, WARM_UP, f);
	if (!r)
		r = depth == 1 ? one_at_a_time(h, v, f) : queued(h, v, h->b->count, f);
	vfun_close(v, NULL);
	return r;
}

static int
smaller(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static double
median(double *x, uint64_t n)
{
	qsort(x, n, sizeof(*x), smaller);
	return x[n / 2];
}

static int
measure(struct hardware *h, uint64_t depth)
{
	uint64_t n = h->b->rounds;
	double *xrt = bench_alloc(n, sizeof(*xrt));
	double *own = bench_alloc(n, sizeof(*own));
	double *adds = bench_alloc(n, sizeof(*adds));
	double *tail = bench_alloc(n, sizeof(*tail));
	struct cell *c;
	int r = 0;

	for (uint64_t i = 0; !r && i < n; i++) {
		struct figure x = { 0 }, f = { 0 };

		r = xrt_round(h, depth, &x);
		if (!r)
			r = vfun_round(h, depth, &f);
		xrt[i] = x.median / 1e3;
		own[i] = f.median / 1e3;
		adds[i] = own[i] - xrt[i];
		tail[i] = f.p99 / 1e3;
		progress_step(1);
	}
	if (!r) {
		c = table_row(&h->b->table);
		cell_text(&c[WHERE], h->b->in_guest ? "guest" : "host");
		cell_text(&c[PATH], "%s", h->path);
		cell_text(&c[MODE], depth == 1 ? "one at a time" : "%u in flight", QUEUE);
		cell_number(&c[CALLS], (double)(n * h->b->count));
		cell_number(&c[ADDS], median(adds, n));
		cell_number(&c[XRT], median(xrt, n));
		machine_noise(h->b, "launches by XRT alone", xrt[n / 4], xrt[n * 3 / 4]);
		cell_number(&c[VFUN], median(own, n));
		if (depth == 1)
			cell_number(&c[VFUN_P99], median(tail, n));
		cell_text(&c[ARENAS], h->copies ? "copied" : "in place");
	}
	free(xrt);
	free(own);
	free(adds);
	free(tail);
	return r;
}

static int
parse_arguments(struct hardware *h, const char *text)
{
	char copy[128];
	char *save = NULL;

	snprintf(copy, sizeof(copy), "%s", text ? text : "");
	for (char *s = strtok_r(copy, " ,", &save); s; s = strtok_r(NULL, " ,", &save))
		if (h->nargs == ARGS_MAX || cli_u64(s, &h->arg[h->nargs++]))
			return bench_fail(EXIT_USAGE, "--args: '%s' is not up to %u numbers", text, ARGS_MAX);
	return 0;
}

static int
here(struct bench *b)
{
	struct hardware h = { .b = b };
	int r = parse_arguments(&h, b->args);

	if (r)
		return r;
	snprintf(h.reference, sizeof(h.reference), "%.*s-xrt", VFUN_NAME_MAX - 5, b->function);
	progress_begin(b, b->in_guest ? "guest" : "host", 2.0 * (double)b->rounds);
	r = measure(&h, 1);
	if (!r)
		r = measure(&h, QUEUE);
	progress_end();
	return r;
}

int
bench_hardware(struct bench *b)
{
	char count[24];
	char rounds[24];
	const char *args[] = { "--count", count, "--rounds", rounds, "--function", b->function, "--args", b->args,
		NULL };
	int r;

	if (!b->function)
		return bench_fail(EXIT_USAGE, "hardware: which function? --conf FILE --function NAME [--args 'N ...']");
	if (!b->args)
		args[6] = NULL;
	if (!b->count)
		b->count = COUNT_DEFAULT;
	if (!b->rounds)
		b->rounds = ROUNDS_DEFAULT;
	snprintf(count, sizeof(count), "%llu", (unsigned long long)b->count);
	snprintf(rounds, sizeof(rounds), "%llu", (unsigned long long)b->rounds);
	table_init(&b->table, columns);
	r = here(b);
	if (!r)
		r = bench_guest(b, args, NULL, NULL, NULL);
	if (r)
		return r;
	machine_end(b, 2);
	return report(b, NULL);
}
