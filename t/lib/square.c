/* SPDX-License-Identifier: MIT
 *
 * square.c - a client of the function square (t/programs) that calls it until SIGTERM and looks at every answer
 *
 * Says "ready" when it has had its first, and "ok" and how many there were at the end.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "../../proto/vfun.h"

static volatile sig_atomic_t over;

static void
on_term(int signal)
{
	(void)signal;
	over = 1;
}

static int
once(struct vfun *v, unsigned k)
{
	float in[64];
	const struct vfun_bulk bulk = { .in_len = sizeof(in), .out_len = sizeof(in) };
	struct vfun_result res;
	const float *out = vfun_in_arena(v);

	for (unsigned i = 0; i < 64; i++)
		in[i] = (float)(k % 1000 + i);
	memcpy(vfun_out_arena(v), in, sizeof(in));
	if (vfun_call(v, VFUN_CMD_GET, NULL, 0, &bulk, &res, 20000000000ull) || res.reason || !res.bulk)
		return -1;
	for (unsigned i = 0; i < 64; i++)
		if (out[i] != in[i] * in[i])
			return -1;
	return 0;
}

int
main(void)
{
	struct vfun_options o = { .size = sizeof(o), .out_arena = 4096, .in_arena = 4096 };
	const struct timespec ms = { .tv_nsec = 1000000 };
	struct vfun *v;
	unsigned n = 0;

	signal(SIGTERM, on_term);
	if (vfun_open(&v, "square", &o))
		return printf("square can't be opened: %s\n", vfun_text(v)), 1;
	while (!over) {
		if (once(v, n))
			return printf("call %u: %s\n", n, vfun_text(v)), 1;
		if (!n++)
			puts("ready"), fflush(stdout);
		nanosleep(&ms, NULL);
	}
	vfun_close(v, NULL);
	printf("ok %u\n", n);
	return 0;
}
