/* SPDX-License-Identifier: MIT
 *
 * square.c - the least program: an array in, one of the same shape out
 */
#include "../../proto/vfun.h"

static int
call(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out)
{
	const float *a = in->array[0].data;
	float *b = out->array[0].data;

	(void)state;
	for (uint64_t i = 0; i < in->array[0].n; i++)
		b[i] = a[i] * a[i];
	return 0;
}

int
main(int argc, char **argv)
{
	static const struct vfun_program square = { .size = sizeof(square),
		.signature = "a f32[n] -> b f32[n]",
		.summary = "the square of each number",
		.call = call,
		.threads = 1 };

	return vfun_serve(&square, argc, argv);
}
