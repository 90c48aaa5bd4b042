/* SPDX-License-Identifier: MIT
 *
 * stops.c - factorials of up to 20 as a program of one's own, which takes as long as one likes and can be stopped
 */
#include "../../proto/vfun.h"

static int
call(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out)
{
	uint64_t r = 1;
	uint64_t len = sizeof(r);
	int stop = 0;

	(void)state;
	for (uint64_t rep = 0; !stop && rep < in->arg[1]; rep++) {
		r = 1;
		for (volatile uint64_t i = 2; i <= in->arg[0]; i++)
			r *= i;
		if (rep % 1024 == 1023)
			stop = vfun_stopped(in->stop);
	}
	while (len > 1 && !(r >> (8 * (len - 1))))
		len--;
	return stop ? stop : vfun_result_put(out, &r, len);
}

int
main(int argc, char **argv)
{
	static const struct vfun_program stops = {
		.size = sizeof(stops),
		.signature = "n u64 0..20, reps u64 1.. default 1 -> int",
		.summary = "n!, for as long as one likes",
		.call = call,
		.threads = 1,
	};

	return vfun_serve(&stops, argc, argv);
}
