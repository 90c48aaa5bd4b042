/* SPDX-License-Identifier: MIT
 *
 * signals.c - for t/timeout.t: a client in which a signal interrupts whatever system call is under way, all the time
 *
 * Opens, calls and closes; long calls sleep. Says how it went; nothing may fail.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "../../proto/vfun.h"

#define SECOND 1000000000ull

static volatile sig_atomic_t signals;

static void
count(int signal)
{
	(void)signal;
	signals++;
}

int
main(void)
{
	const struct vfun_options options = { .size = sizeof(options), .in_arena = 4096 };
	const struct itimerval often = { { 0, 200 }, { 0, 200 } };
	const struct itimerval never = { { 0, 0 }, { 0, 0 } };
	const struct vfun_bulk room = { .out_len = 4096 };
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_handler = count; /* without SA_RESTART */
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	for (int i = 0; i < 100; i++) {
		uint64_t arg[] = { i % 10 ? 5 : 5000, i % 10 ? 1 : 100 };
		struct vfun_result res;
		struct vfun *v;
		int r = vfun_open(&v, "fibonacci", &options);

		if (!r)
			r = vfun_call(v, VFUN_CMD_GET, arg, 2, &room, &res, 20 * SECOND);
		if (r || res.reason || (i % 10 && res.inline_word[0] % 256 != 5)) {
			setitimer(ITIMER_REAL, &never, NULL);
			printf("round %d: %d, %s\n", i, r, vfun_text(v));
			return 1;
		}
		r = vfun_close(v, NULL);
		if (r)
			printf("close: %d\n", r);
	}
	setitimer(ITIMER_REAL, &never, NULL);
	puts(signals > 10 ? "ok" : "too few signals");
	return 0;
}
