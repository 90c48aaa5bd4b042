/* SPDX-License-Identifier: MIT
 *
 * same.c - a client that calls a function of one number, 0, until SIGTERM: the answer never changes
 *
 * Says "ready" and the answer when it has had its first, and "ok" and how many there were at the end.
 */
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "../../proto/vfun.h"

static volatile sig_atomic_t over;

static void
on_term(int signal)
{
	(void)signal;
	over = 1;
}

int
main(int argc, char **argv)
{
	struct vfun_options o = { .size = sizeof(o) };
	const struct timespec ms = { .tv_nsec = 1000000 };
	struct vfun_result first = { .len = 0 };
	struct vfun_result res;
	struct vfun *v;
	const uint64_t none = 0;
	unsigned n = 0;

	signal(SIGTERM, on_term);
	if (argc != 2 || vfun_open(&v, argv[1], &o))
		return printf("can't be opened: %s\n", vfun_text(v)), 1;
	for (; !over; n++) {
		if (vfun_call(v, VFUN_CMD_GET, &none, 1, NULL, &res, 20000000000ull) || res.reason)
			return printf("call %u: %s\n", n, vfun_text(v)), 1;
		if (!n) {
			first = res;
			printf("ready %llu\n", (unsigned long long)res.inline_word[0]);
			fflush(stdout);
		}
		if (res.inline_word[0] != first.inline_word[0])
			return printf("call %u: another answer\n", n), 1;
		nanosleep(&ms, NULL);
	}
	vfun_close(v, NULL);
	printf("ok %u\n", n);
	return 0;
}
