/* SPDX-License-Identifier: MIT
 *
 * shapes.c - programs with arguments and results of every kind, one for each of the names below
 */
#include <stdlib.h>
#include <string.h>

#include "../../proto/vfun.h"

static const struct shape {
	const char *name;
	const char *signature;
} shapes[] = {
	/* what goes in comes out, as it lies in the arena */
	{ "matrix", "n u32 1..100, a f32[n,m] -> b f32[n,m]" },
	{ "pair", "a u8[3], b i16[n] -> c u8[3], d i16[n]" },
	{ "cube", "a f64[k,2,3] -> b f64[k,2,3]" },
	{ "packed", "align 1 64: a i64[n], b u16[n] -> c i64[n], d u16[n]" },
	{ "late", "reps u64 default 1, data u8[*] -> out u8[*]" },
	{ "behind", "k i32 -5..5, a u32[n] -> out u32[n]" },
	/* numbers alone */
	{ "seven", "a u64, b i64, c f64, d u8, e i8, f f32, g u64 default 7 -> h f64" },
	{ "range", "x f32 -1.5..1.5, y i8 -3..3 default -1 -> r f64, s i8" },
	{ "rows", "n u64 1..9 -> out u16[*,n]" },
	{ "digest", "a u8[n] -> sum hex[4], n u64, int" },
	{ "fixed", "data u8[*] -> two hex[2]" },
	{ "none", "a u8 -> nothing" },
	/* with a state */
	{ "keep", "set scale f64, base f32[n,2]; get q f32[m,2] -> out f64[m,n]" },
	{ "join", "set part u8[*]; get again u64 default 1 -> out u8[*]" },
};

static const struct shape *is;

struct state {
	double scale;
	uint64_t n;
	uint64_t len;
	uint8_t data[65536];
};

static int
init(void **state, uint64_t result_max)
{
	(void)result_max;
	*state = calloc(1, sizeof(struct state));
	return *state ? 0 : -12; /* ENOMEM */
}

static int
named(const char *name)
{
	return !strcmp(is->name, name);
}

static int
set(struct state *s, const struct vfun_incoming *in)
{
	s->n = in->array[0].bytes / 8;
	if (named("keep")) {
		memcpy(&s->scale, &in->arg[0], sizeof(s->scale));
		s->len = 0;
	}
	if (in->array[0].bytes > sizeof(s->data) - s->len)
		return -28; /* ENOSPC */
	memcpy(s->data + s->len, in->array[0].data, in->array[0].bytes);
	s->len += in->array[0].bytes;
	return 0;
}

static int
numbers(const struct vfun_incoming *in, struct vfun_outgoing *out)
{
	double sum = 0;

	if (named("seven")) {
		double c;
		double f;

		memcpy(&c, &in->arg[2], sizeof(c));
		memcpy(&f, &in->arg[5], sizeof(f));
		sum = (double)in->arg[0] + (double)(int64_t)in->arg[1] + c + (double)in->arg[3] +
		      (double)(int64_t)in->arg[4] + f + (double)in->arg[6];
		memcpy(out->array[0].data, &sum, sizeof(sum));
	} else if (named("range")) {
		memcpy(out->array[0].data, &in->arg[0], 8);
		*(int8_t *)out->array[1].data = (int8_t)in->arg[1];
	}
	return 0;
}

static int
call(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out)
{
	struct state *s = state;

	if (in->cmd == VFUN_CMD_SET)
		return set(s, in);
	if (named("keep")) {
		const float *base = (const float *)(const void *)s->data;
		const float *q = in->array[0].data;
		double *d = out->array[0].data;

		for (uint64_t m = 0; m < in->array[0].bytes / 8; m++)
			for (uint64_t n = 0; n < s->n; n++)
				*d++ = s->scale * (double)(q[2 * m] * base[2 * n] + q[2 * m + 1] * base[2 * n + 1]);
		return 0;
	}
	if (named("join")) {
		for (uint64_t i = 0; i < in->arg[0]; i++)
			if (vfun_result_put(out, s->data, s->len))
				return -28;
		return 0;
	}
	if (named("rows")) {
		for (uint16_t i = 0; i < 3 * in->arg[0]; i++)
			if (vfun_result_put(out, &i, sizeof(i)))
				return -28;
		return 0;
	}
	if (named("digest")) {
		memcpy(out->array[0].data, "\x01\x02\xab\xff", 4);
		memcpy(out->array[1].data, &in->array[0].bytes, 8);
		return vfun_result_put(out, "\0\0\0\0\0\0\0\0\1", 9);
	}
	if (named("fixed")) {
		memcpy(out->array[0].data, "\xbe\xef", 2);
		return 0;
	}
	if (named("late"))
		return vfun_result_put(out, in->array[0].data, in->array[0].bytes);
	for (unsigned i = 0; strstr(is->signature, "[") && i < 2; i++)
		if (in->array[i].data && out->array[i].data)
			memcpy(out->array[i].data, in->array[i].data, in->array[i].bytes);
	return numbers(in, out);
}

int
main(int argc, char **argv)
{
	static struct vfun_program p = { .size = sizeof(p), .summary = "for t/call.t", .init = init, .call = call };

	for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		if (!strcmp(argv[0], shapes[i].name))
			is = &shapes[i];
	p.signature = is ? is->signature : "";
	return vfun_serve(&p, argc, argv);
}
