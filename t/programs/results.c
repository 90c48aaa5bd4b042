/* SPDX-License-Identifier: MIT
 *
 * results.c - results of any length in both ways, by the function's name: tail, behind one that is written last; fill,
 * by as many elements as there is room for; sum, of an array. It prepares itself in a thread of its own
 */
#include <pthread.h>
#include <string.h>

#include "../../proto/vfun.h"

static const char *is; /* the function's name */

static int
tail(uint64_t n, struct vfun_outgoing *out)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < n; i++)
		r = vfun_result_put(out, &i, sizeof(i));
	*(uint64_t *)out->array[0].data = n;
	return r;
}

static int
fill(struct vfun_outgoing *out)
{
	uint32_t *to = out->array[0].data;

	for (uint64_t i = 0; i < out->array[0].n; i++)
		to[i] = (uint32_t)i;
	return vfun_result_length(out, out->array[0].n * sizeof(*to));
}

static void *
work(void *arg)
{
	return arg;
}

/* A thread that ends before anything is served. */
static int
init(void **state, uint64_t result_max)
{
	pthread_t thread;
	int r = pthread_create(&thread, NULL, work, NULL);

	(void)state;
	(void)result_max;
	return -(r ? r : pthread_join(thread, NULL));
}

static int
call(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out)
{
	(void)state;
	if (!strcmp(is, "tail"))
		return tail(in->arg[0], out);
	if (!strcmp(is, "fill"))
		return fill(out);
	*(uint64_t *)out->array[0].data = 0;
	for (uint64_t i = 0; i < in->array[0].n; i++)
		*(uint64_t *)out->array[0].data += ((const uint64_t *)in->array[0].data)[i];
	return 0;
}

int
main(int argc, char **argv)
{
	static struct vfun_program results = {
		.size = sizeof(results), .summary = "results", .init = init, .call = call
	};

	is = argv[0];
	results.signature = !strcmp(is, "tail")	  ? "n u64 0..1000 -> head u64, tail u32[*]"
			    : !strcmp(is, "fill") ? "-> all u32[*]"
						  : "a u64[n] -> sum u64";
	return vfun_serve(&results, argc, argv);
}
