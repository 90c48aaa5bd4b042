/* SPDX-License-Identifier: MIT
 *
 * nearest.c - a vFunction with state: which vector of a base is nearest to each of the queries
 *
 * SET brings the base, n vectors of d numbers, which is kept until another one comes, or RST. GET looks for queries in
 * it, exactly: by the distance to every vector.
 *
 * What the client's memory holds is his, and may change at any moment; so the base is a copy, and so is the query that
 * is looked for. An index is always one of the base's: there is no number, nor one that isn't one, that could lead
 * elsewhere.
 */
#include <errno.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"

#define LANES 8u
#define D_MAX 4096u

struct nearest {
	float *base; /* n vectors, each padded with zeros to a multiple of LANES; NULL: there is none */
	uint64_t n;
	uint64_t d;
	float query[D_MAX];
};

static int
init(void **state, uint64_t result_max)
{
	(void)result_max;
	*state = calloc(1, sizeof(struct nearest));
	return *state ? 0 : -ENOMEM;
}

static void
forget(void *state)
{
	struct nearest *s = state;

	free(s->base);
	s->base = NULL;
}

static uint64_t
padded(uint64_t d)
{
	return (d + LANES - 1) / LANES * LANES;
}

static int
set(struct nearest *s, const struct vfun_incoming *in)
{
	const float *from = in->array[0].data;

	forget(s);
	s->n = in->arg[0];
	s->d = in->arg[1];
	s->base = calloc(s->n, padded(s->d) * sizeof(float));
	if (!s->base)
		return -ENOMEM;
	for (uint64_t i = 0; i < s->n; i++)
		memcpy(s->base + i * padded(s->d), from + i * s->d, s->d * sizeof(float));
	return 0;
}

/* The square of the distance; LANES sums, so that the compiler may use vectors. */
static float
distance(const float *a, const float *b, uint64_t d)
{
	float lane[LANES] = { 0 };
	float sum = 0;

	for (uint64_t i = 0; i < d; i += LANES)
		for (unsigned l = 0; l < LANES; l++)
			lane[l] += (a[i + l] - b[i + l]) * (a[i + l] - b[i + l]);
	for (unsigned l = 0; l < LANES; l++)
		sum += lane[l];
	return sum;
}

static uint32_t
find(const struct nearest *s)
{
	float best = FLT_MAX;
	uint32_t index = 0;

	for (uint64_t i = 0; i < s->n; i++) {
		float x = distance(s->query, s->base + i * padded(s->d), padded(s->d));

		if (x < best) {
			best = x;
			index = (uint32_t)i;
		}
	}
	return index;
}

static int
call(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out)
{
	struct nearest *s = state;
	const float *queries = in->array[0].data;
	uint32_t *index = out->array[0].data;

	if (in->cmd == VFUN_CMD_SET)
		return set(s, in);
	memset(s->query, 0, sizeof(s->query));
	for (uint64_t i = 0; i < out->array[0].n; i++) {
		memcpy(s->query, queries + i * s->d, s->d * sizeof(float));
		index[i] = find(s);
	}
	return 0;
}

static const struct vfun_program nearest = {
	.size = sizeof(nearest),
	.signature = "set n u32 1..10000000, d u32 1..4096, base f32[n,d]; get queries f32[m,d] -> index u32[m]",
	.summary = "the nearest of a base of vectors, for each query",
	.init = init,
	.call = call,
	.reset = forget,
};

int
main(int argc, char **argv)
{
	static const struct step steps[] = {
		{ .cmd = VFUN_CMD_SET,
		    .arg = { 20000, 64 },
		    .nargs = 2,
		    .in = { .n = 20000 * 64, .dim = { 20000, 64 }, .dims = 2 },
		    .element = sizeof(float) },
		{ .cmd = VFUN_CMD_GET,
		    .in = { .n = 64 * 64, .dim = { 64, 64 }, .dims = 2 },
		    .out = { .n = 64, .dim = { 64 }, .dims = 1 },
		    .element = sizeof(float) },
	};

	return wants_compare(argc, argv) ? compare("nearest", &nearest, steps, 2) : vfun_serve(&nearest, argc, argv);
}
