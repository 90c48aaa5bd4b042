/* SPDX-License-Identifier: MIT
 *
 * pace.c - when a wait gives its processor away (proto/pace.h): yields are counted, time is what this program says
 */
#include <sched.h>
#include <stdio.h>
#include <time.h>

#include "../../proto/vfun.h"

static unsigned yields;
static int cpu;
static unsigned long long ns;

static int
count_yield(void)
{
	yields++;
	return 0;
}

static int
this_cpu(void)
{
	return cpu;
}

static int
clock_of_ours(int id, struct timespec *ts)
{
	(void)id;
	ns += 1000;
	*ts = (struct timespec){ .tv_sec = (long)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u) };
	return 0;
}

#define sched_yield count_yield
#define sched_getcpu this_cpu
#define clock_gettime clock_of_ours

#include "../../proto/pace.h"

static unsigned looks;
static unsigned yields_at_first_look;

static int
look(void *until)
{
	if (looks++ == 0)
		yields_at_first_look = yields;
	return looks > *(unsigned *)until;
}

/* One wait with so many looks in vain: yields before the first look, and in all. */
static void
wait_for(const char *what, struct pace *p, unsigned until)
{
	int r;

	yields = looks = 0;
	r = pace_spin(p, UINT64_MAX, look, &until);
	printf("%s: %s, first %u, yields %s\n", what, r ? "there" : "park", yields_at_first_look,
	    yields == yields_at_first_look	 ? "no more"
	    : yields == yields_at_first_look + 1 ? "once more"
						 : "more");
	if (!r)
		pace_done(p);
}

int
main(void)
{
	uint32_t peer = 3 + 1;
	struct pace p = { .limit_ns = 50000, .peer = &peer };
	struct pace never = { .limit_ns = 0, .peer = &peer, .woke = 1 };

	cpu = 3;
	wait_for("awake", &p, 1000);
	p.woke = 1;
	wait_for("woke him", &p, 1000);
	p.woke = 1;
	cpu = 2;
	wait_for("woke him elsewhere", &p, 100);
	p.woke = 1;
	wait_for("woke him elsewhere, and he may have been put here", &p, 1000);
	p.woke = 1;
	wait_for("woke him elsewhere, and he doesn't come", &p, 8000);
	cpu = 3;
	wait_for("too long", &p, 1000000);
	wait_for("after that", &p, 1000);
	wait_for("after that", &p, 1000);
	p.peer = NULL;
	p.woke = 1;
	wait_for("woke him in another machine", &p, 1000);
	cpu = 3;
	wait_for("doesn't spin", &never, 1000);
	return 0;
}
