/* SPDX-License-Identifier: MIT
 *
 * square.c - a client of the function square (t/programs) that calls it until SIGTERM and looks at every answer
 *
 * Says "ready" when it has had its first, and "ok" and how many there were at the end.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
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

/* Not where vfun_input() would have put it. */
static int
elsewhere(struct vfun *v, const struct vfun_bulk *bulk)
{
	struct vfun_result res = { .reason = VFUN_OK };
	int r = vfun_call(v, VFUN_CMD_GET, NULL, 0, bulk, &res, 20000000000ull);

	printf("%d %s: %.*s\n", r, vfun_reason_name(res.reason), res.bulk ? 0 : (int)res.len,
	    (const char *)res.inline_word);
	vfun_close(v, NULL);
	return 0;
}

int
main(int argc, char **argv)
{
	struct vfun_options o = { .size = sizeof(o), .out_arena = 4096, .in_arena = 4096 };
	const struct timespec ms = { .tv_nsec = 1000000 };
	struct vfun *v;
	unsigned n = 0;

	signal(SIGTERM, on_term);
	if (vfun_open(&v, "square", &o))
		return printf("square can't be opened: %s\n", vfun_text(v)), 1;
	if (argc == 3)
		return elsewhere(v, &(struct vfun_bulk){ .in_off = strtoull(argv[1], NULL, 0),
					.in_len = 256,
					.out_off = strtoull(argv[2], NULL, 0),
					.out_len = 256 });
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
