/* SPDX-License-Identifier: MIT
 *
 * filter.c - a vFunction that streams: a filter (FIR) over samples that come and go in pieces
 *
 * SET brings the taps, GET the next piece of the stream, as long as one likes, which the result is for. What a piece
 * needs of the one before it, the last samples, is kept between calls, so that it doesn't matter where the stream is
 * cut; RST, or other taps, begin a new one. Several pieces may be under way: they are filtered in the order in which
 * they were submitted.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vfun.h"

#define TAPS_MAX 1024u
#define BLOCK 1024u

struct filter {
	float tap[TAPS_MAX];
	uint64_t taps;
	float x[TAPS_MAX + BLOCK]; /* the last taps - 1 samples, and those of the block behind them */
};

static int
init(void **state, uint64_t result_max)
{
	(void)result_max;
	*state = calloc(1, sizeof(struct filter));
	return *state ? 0 : -ENOMEM;
}

static void
reset(void *state)
{
	memset(state, 0, sizeof(struct filter));
}

static void
block(struct filter *f, const float *in, float *out, uint64_t n)
{
	const uint64_t before = f->taps - 1;

	memcpy(f->x + before, in, n * sizeof(float));
	for (uint64_t i = 0; i < n; i++) {
		float sum = 0;

		for (uint64_t k = 0; k < f->taps; k++)
			sum += f->tap[k] * f->x[before + i - k];
		out[i] = sum;
	}
	memmove(f->x, f->x + n, before * sizeof(float));
}

static int
call(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out)
{
	struct filter *f = state;
	const struct vfun_array *a = &in->array[0];

	if (in->cmd == VFUN_CMD_SET) {
		if (a->n < 1 || a->n > TAPS_MAX)
			return vfun_refuse(out, "taps: not 1 to 1024 of them");
		reset(f);
		f->taps = a->n;
		memcpy(f->tap, a->data, a->bytes);
		return 0;
	}
	if (!f->taps)
		return vfun_refuse(out, "the taps have to be set first");
	for (uint64_t i = 0; i < a->n; i += BLOCK)
		block(f, (const float *)a->data + i, (float *)out->array[0].data + i,
		    a->n - i < BLOCK ? a->n - i : BLOCK);
	return 0;
}

int
main(int argc, char **argv)
{
	static const struct vfun_program filter = { .size = sizeof(filter),
		.signature = "set taps f32[k]; get samples f32[n] -> out f32[n]",
		.summary = "filter a stream of samples, in pieces",
		.init = init,
		.call = call,
		.reset = reset };

	return vfun_serve(&filter, argc, argv);
}
