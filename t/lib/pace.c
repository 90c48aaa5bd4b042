/* SPDX-License-Identifier: MIT
 *
 * pace.c - when a wait gives its processor away, and when it naps (proto/pace.h): both are counted, time is what this
 * program says
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

static unsigned naps;
static unsigned long long napped;
static unsigned long long late; /* how much longer a nap lasts than it should */

static int
our_nap(const struct timespec *ts, struct timespec *left)
{
	(void)left;
	naps++;
	napped = (unsigned long long)ts->tv_sec * 1000000000u + (unsigned long long)ts->tv_nsec;
	ns += napped + late;
	return 0;
}

#define nanosleep our_nap
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
	r = pace_spin(p, UINT64_MAX, 0, look, &until);
	printf("%s: %s, first %u, yields %s\n", what, r ? "there" : "park", yields_at_first_look,
	    yields == yields_at_first_look	 ? "no more"
	    : yields == yields_at_first_look + 1 ? "once more"
						 : "more");
	if (!r)
		pace_done(p);
}

static int
look_at_clock(void *until)
{
	ns += 16;
	return ns >= *(unsigned long long *)until;
}

/* So many waits, each for an answer that comes after so long: how many naps, the last one's share of it in per cent,
 * and the most time that an answer lay there, in microseconds. */
static void
answers(const char *what, struct pace *p, unsigned n, unsigned long long takes)
{
	unsigned long long worst = 0;

	naps = 0;
	napped = 0;
	while (n--) {
		unsigned long long until = ns + takes;

		if (!pace_spin(p, 20000000000u, 1, look_at_clock, &until))
			pace_done(p);
		if (ns > until && ns - until > worst)
			worst = ns - until;
	}
	printf("%s: %u naps, %llu %%, late by %llu us\n", what, naps, napped * 100 / takes, worst / 1000);
}

static void
long_waits(void)
{
	struct pace p = { .limit_ns = 1000000000 };
	struct pace usual = { .limit_ns = 50000 };

	late = 70000;
	answers("9 ms", &p, 40, 9000000);
	answers("a short one", &p, 1, 20000);
	answers("9 ms after that", &p, 3, 9000000);
	answers("another short one", &p, 1, 20000);
	answers("9 ms again", &p, 40, 9000000);
	answers("3 ms all of a sudden", &p, 1, 3000000);
	answers("3 ms", &p, 40, 3000000);
	late = 5000000;
	answers("naps are late", &p, 40, 3000000);
	late = 70000;
	answers("and aren't any more", &p, 60, 3000000);
	answers("200 us", &p, 40, 200000);
	for (unsigned i = 0; i < 5; i++) {
		answers("in turn, 9 ms", &p, 1, 9000000);
		answers("in turn, 20 us", &p, 1, 20000);
	}
	answers("a limit of 50 us", &usual, 40, 9000000);
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
	long_waits();
	return 0;
}
