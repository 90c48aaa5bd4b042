/* SPDX-License-Identifier: MIT
 *
 * compare.c - PROGRAM --compare: the function in this very process, and the same calls through vfun, for `vfun bench
 * functions`
 *
 * Prints one line, of the words: function, bytes of input and result, nanoseconds in this process, nanoseconds through
 * vfun (each the best of some, which take turns), the path, and `same` or `other`: do the results agree? Floats may
 * differ by what the order of additions makes, which is another one with each kind of vector that a processor has.
 *
 * The calls use buffers in the arena, as a program would: see vfun-client(3).
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "compare.h"

#define ROUNDS 7u
#define LONG_NS 5000000000ull /* and that is enough */
#define TIMEOUT_NS 300000000000ull
#define STEPS_MAX 4u

struct side {
	struct vfun_buffer in[STEPS_MAX];
	struct vfun_buffer out[STEPS_MAX];
	uint64_t best; /* ns */
};

int
wants_compare(int argc, char **argv)
{
	return argc == 2 && !strcmp(argv[1], "--compare");
}

static uint64_t
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The same numbers each time. */
static void
fill(const struct step *s, void *data)
{
	uint32_t x = 1;

	for (uint64_t i = 0; i < s->in.n; i++) {
		x = x * 1664525u + 1013904223u;
		if (s->element == 1)
			((uint8_t *)data)[i] = (uint8_t)(x >> 24);
		else
			((float *)data)[i] = (float)(int32_t)x / 2147483648.0f;
	}
}

static uint64_t
bytes(const struct step *s, const struct vfun_array *a)
{
	return a->n * s->element;
}

/* 0, or why not. */
static const char *
call_here(const struct vfun_program *p, void *state, const struct step *s, void *from, void *to)
{
	struct vfun_array array = s->in;
	const struct vfun_incoming in = {
		.cmd = s->cmd, .arg = s->arg, .nargs = s->nargs, .narrays = 1, .array = &array
	};
	struct vfun_outgoing out = { .narrays = s->out.n ? 1 : 0, .array = { s->out } };

	array.data = from;
	array.bytes = bytes(s, &s->in);
	out.array[0].data = to;
	out.array[0].bytes = bytes(s, &s->out);
	return p->call(state, &in, &out) ? "the function fails in this process" : NULL;
}

static const char *
call_there(
    struct vfun *v, const struct step *s, const struct vfun_buffer *from, const struct vfun_buffer *to, void *copy)
{
	const struct vfun_bulk bulk = { from->off, from->len, to->off, to->len };
	struct vfun_result res;

	if (vfun_call(v, s->cmd, s->arg, s->nargs, &bulk, &res, TIMEOUT_NS))
		return vfun_text(v);
	if (res.reason)
		return vfun_reason_name(res.reason);
	if (res.len != to->len)
		return "the result has another length";
	if (copy)
		memcpy(copy, vfun_result_data(&res, to), res.len);
	return NULL;
}

/* One call of a step, here or, with v, there. */
static const char *
once(struct side *side, struct vfun *v, const struct vfun_program *p, void *state, const struct step *s, unsigned i)
{
	const uint64_t start = now();
	const char *fault = v ? call_there(v, s, &side->in[i], &side->out[i], NULL)
			      : call_here(p, state, s, side->in[i].data, side->out[i].data);
	const uint64_t took = now() - start;

	if (!side->best || took < side->best)
		side->best = took;
	return fault;
}

/* All steps, then the last one again and again: the two sides take turns. */
static const char *
measure(struct side *here, struct side *there, struct vfun *v, const struct vfun_program *p, const struct step *steps,
    unsigned n, uint64_t result_max)
{
	const uint64_t begin = now();
	const char *fault = NULL;
	void *state = NULL;

	if (p->init && p->init(&state, result_max))
		return "it can't prepare itself in this process";
	for (unsigned round = 0; !fault && round < n + ROUNDS && (round <= n || now() - begin < LONG_NS); round++) {
		const unsigned i = round < n ? round : n - 1;

		if (round == n)
			here->best = there->best = 0;
		fault = once(here, NULL, p, state, &steps[i], i);
		if (!fault)
			fault = once(there, v, p, NULL, &steps[i], i);
	}
	return fault;
}

static int
same(const struct step *s, const void *a, const void *b)
{
	const float *x = a, *y = b;

	if (!a || !b)
		return 0;
	if (s->element == 1 || s->out.dims == 1)
		return !memcmp(a, b, bytes(s, &s->out));
	for (uint64_t i = 0; i < s->out.n; i++)
		if (!(fabsf(x[i] - y[i]) <= 1e-3f + 1e-4f * fabsf(x[i])))
			return 0;
	return 1;
}

static const char *
prepare(struct side *here, struct side *there, struct vfun *v, const struct step *steps, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const uint64_t in = bytes(&steps[i], &steps[i].in), out = bytes(&steps[i], &steps[i].out);

		if (vfun_input(v, &there->in[i], in) || vfun_room(v, &there->out[i], out))
			return vfun_text(v);
		here->in[i].data = aligned_alloc(4096, (in + 4095) / 4096 * 4096);
		here->out[i].data = aligned_alloc(4096, (out + 4096) / 4096 * 4096);
		if (!here->in[i].data || !here->out[i].data)
			return "out of memory";
		fill(&steps[i], here->in[i].data);
		memcpy(there->in[i].data, here->in[i].data, in);
	}
	return NULL;
}

static uint64_t
arena(const struct step *steps, unsigned n, int results)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += bytes(&steps[i], results ? &steps[i].out : &steps[i].in) + 2 * 4096;
	return sum;
}

int
compare(const char *function, const struct vfun_program *p, const struct step *steps, unsigned n)
{
	const struct step *last = &steps[n - 1];
	struct vfun_options o = { .size = sizeof(o), .out_arena = arena(steps, n, 0), .in_arena = arena(steps, n, 1) };
	struct side here = { .best = 0 }, there = { .best = 0 };
	struct vfun *v;
	void *result = malloc(bytes(last, &last->out));
	const char *fault = vfun_open(&v, function, &o) ? vfun_text(v) : result ? NULL : "out of memory";

	if (!fault)
		fault = prepare(&here, &there, v, steps, n);
	if (!fault)
		fault = measure(&here, &there, v, p, steps, n, o.in_arena);
	if (!fault)
		fault = call_there(v, last, &there.in[n - 1], &there.out[n - 1], result);
	if (fault)
		fprintf(stderr, "%s: %s\n", function, fault);
	else
		printf("%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %s %s\n", function,
		    bytes(last, &last->in) + bytes(last, &last->out), here.best, there.best,
		    vfun_path_name(vfun_path(v)), same(last, here.out[n - 1].data, result) ? "same" : "other");
	free(result);
	if (vfun_close(v, NULL) && !fault)
		fault = "release";
	return fault ? 1 : 0;
}
