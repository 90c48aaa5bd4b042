/* SPDX-License-Identifier: MIT
 *
 * pace.h - how long to spin before parking, learned from recent waits; the same for client and service
 *
 * Spinning pays when what is waited for comes sooner than a sleep and its wake-up take, and only while there is a
 * processor to spare for it. Neither is known beforehand, but the last waits tell: an average over about eight of them,
 * each counted as four times the limit at most. As long as it is below the limit, a wait spins up to the limit; above,
 * a wait parks at once, but for every 16th, which tries whether spinning pays again. A single pause between two bursts
 * of calls doesn't push the average over the limit.
 *
 * A try spins 32 times as long. Who has to ring is away for as long as ringing takes, which may be many times the limit
 * (a guest writes to a file); were nobody to wait that long, he would have to ring for ever.
 *
 * Whom one has just woken needs time before he can do anything, often more than the limit. That wait may spin four
 * times as long, and teaches nothing. Else two who both sleep would wake each other for ever: each time the one is
 * awake, the other sleeps already.
 *
 * The kernel may put a woken process on the processor of the one who woke it although another is idle (on virtual
 * machines an idle processor looks taken away), and there it stays, since each wake-up looks at where it was last.
 * Spinning then keeps away exactly the one whom one waits for. So each side says in its header on which processor it
 * parked or rang, and a wait for someone on the same one gives the processor away, first of all and now and then: after
 * having woken him; the first wait after having slept, since he woke us; and a try. Both are ready to run then, which
 * the kernel's balancing sees, and soon they are apart. What a sleeper's header says is where he fell asleep: whom we
 * have just woken and who hasn't answered within a few microseconds may have been put here meanwhile, so then we yield
 * once; and such a wait that lasts longer than any wake-up yields in any case. No other does: a yield gives strangers a
 * whole time slice.
 *
 * More spinning parties than processors look the same from here: whoever one waits for has no processor, waits get
 * longer than the limit, and all park. Sooner still: a spinner that finds that the clock has jumped was taken off its
 * processor, since somebody else wants it, and gives way.
 *
 * A limit of milliseconds makes it worth while to spin for long calls, and expensive: two processors are often one
 * core's two threads, and who spins takes from the one whom he waits for. So who waits for answers naps first, for
 * somewhat less than the shortest of the last waits (as block layers poll for slow disks), provided that these were
 * much alike. How much less is learned as well: naps last longer than they should, by microseconds here, by a
 * millisecond in an emulated guest. Whom the answer waits for has overslept: he halves his estimate, which ends naps
 * for a few calls if all others are as long as before, and until calls are alike again if they aren't.
 *
 * The clock is looked at every 64 turns only, and not before: a short wait is over by then, and there are places where
 * a clock costs more than a call (a guest under TCG).
 */
#ifndef PROTO_PACE_H
#define PROTO_PACE_H

#include <sched.h>
#include <stdint.h>
#include <time.h>

#include "vfun.h"

#define PACE_TURNS 64u
#define PACE_WAKING (2 * PACE_TURNS)
#define PACE_YIELD (4 * PACE_TURNS)
#define PACE_STUCK (32 * PACE_TURNS)
#define PACE_JUMP_NS 100000u /* 64 turns take some us */
#define PACE_PROBE 16u
#define PACE_LONG 4u /* times the limit */
#define PACE_TRY 32u /* the same */
#define PACE_EARLY_NS 50000u

struct pace {
	uint64_t limit_ns; /* spin no longer; 0: never */
	uint64_t avg_ns;
	uint64_t least_ns;    /* the shortest of the last waits, or a little more */
	uint64_t late_ns;     /* by which naps are too long: the average */
	uint64_t up;	      /* when the last nap ended */
	uint64_t since;	      /* CLOCK_MONOTONIC ns: when this wait began, 0: not looked at */
	uint64_t last;	      /* when the clock was looked at last */
	uint64_t budget;      /* how long this wait may spin */
	unsigned parked;      /* waits that didn't spin, in a row */
	int woke;	      /* the caller's: 1: whom the next wait is for has just been woken */
	int slept;	      /* 1: the last wait ended in parking */
	const uint32_t *peer; /* vfun_hdr.cpu of the one whom waits are for; NULL: he isn't on this machine */
};

static inline uint64_t
pace_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

#define PACE_COLD __attribute__((noinline, cold)) /* for when no answer has come for some microseconds */

/* How long this wait may spin. */
static PACE_COLD uint64_t
pace_budget(struct pace *p)
{
	if (p->avg_ns > p->limit_ns) {
		if (++p->parked < PACE_PROBE)
			return 0;
		p->parked = 0;
		return PACE_TRY * p->limit_ns;
	}
	return p->woke ? PACE_LONG * p->limit_ns : p->limit_ns;
}

static inline void
pace_learn(struct pace *p, uint64_t waited_ns)
{
	if (waited_ns <= p->least_ns)
		p->least_ns = waited_ns;
	else /* fast as long as no nap follows it */
		p->least_ns += (waited_ns - p->least_ns) / (p->least_ns < p->avg_ns / 2 ? 8 : 16);
	if (waited_ns > PACE_LONG * p->limit_ns)
		waited_ns = PACE_LONG * p->limit_ns;
	if (!p->woke)
		p->avg_ns = p->avg_ns - p->avg_ns / 8 + waited_ns / 8;
	p->woke = 0;
}

/* What a side's vfun_hdr.cpu says. */
static inline uint32_t
pace_cpu(void)
{
	return (uint32_t)sched_getcpu() + 1;
}

/* Was the other side last seen on this very processor? */
static inline int
pace_beside(const struct pace *p)
{
	return p->peer && __atomic_load_n(p->peer, __ATOMIC_RELAXED) == pace_cpu();
}

/* Sleep until shortly before the answer is expected, if it is expected within the budget. The time afterwards.
 * Shortly: 50 us, a 64th of the whole, and twice what naps are late. */
static PACE_COLD uint64_t
pace_nap(struct pace *p, uint64_t now, uint64_t most_ns)
{
	const uint64_t early = PACE_EARLY_NS + p->least_ns / 64 + 2 * p->late_ns;
	const uint64_t nap = p->least_ns - early;
	const struct timespec ts = { .tv_sec = (time_t)(nap / 1000000000u), .tv_nsec = (long)(nap % 1000000000u) };

	if (p->least_ns >= p->budget || p->least_ns >= most_ns || p->least_ns < p->avg_ns / 2)
		return now;
	p->late_ns -= p->late_ns / 8;
	if (p->least_ns < 2 * early || nanosleep(&ts, NULL))
		return pace_now();
	p->up = pace_now();
	p->late_ns += (p->up - now - nap) / 8;
	return p->up;
}

/* Every PACE_TURNS turns. 1: it is time to park. */
static PACE_COLD int
pace_clock(struct pace *p, unsigned turn, int wary, uint64_t most_ns, int naps)
{
	uint64_t now = pace_now();

	if (!p->since) {
		p->since = now;
		p->budget = pace_budget(p);
		now = p->last = naps ? pace_nap(p, now, most_ns) : now;
	}
	if (now - p->since >= p->budget || now - p->since >= most_ns || now - p->last > PACE_JUMP_NS)
		return 1;
	p->last = now;
	if ((p->woke && p->peer && turn == PACE_WAKING) ||
	    (wary && turn % PACE_YIELD == 0 && (turn >= PACE_STUCK || pace_beside(p)))) {
		sched_yield();
		p->last = pace_now();
	}
	return 0;
}

/* What was waited for has come, but not at once. */
static PACE_COLD void
pace_came(struct pace *p)
{
	if (p->avg_ns > p->limit_ns)
		p->avg_ns = 0; /* a try that paid */
	pace_learn(p, p->last - p->since);
	if (p->last == p->up)
		p->least_ns /= 2;
}

/* Begin a wait: look until look() returns anything but 0, which is returned and ends it; or 0 when it is time to park,
 * at most_ns at the latest. naps: 1: it is for an answer, 0: nobody knows when it ends. */
static inline __attribute__((always_inline)) int
pace_spin(struct pace *p, uint64_t most_ns, int naps, int (*look)(void *), void *arg)
{
	const int wary = p->limit_ns && (p->woke || p->slept || p->avg_ns > p->limit_ns);

	p->since = 0;
	if (wary && pace_beside(p))
		sched_yield();
	for (unsigned turn = 1;; turn++) {
		int r = look(arg);

		if (r) {
			if (p->since)
				pace_came(p);
			else
				pace_learn(p, 0);
			p->slept = 0;
			return r;
		}
		vfun_relax();
		if (turn % PACE_TURNS == 0 && pace_clock(p, turn, wary, most_ns, naps))
			return 0;
	}
}

/* The wait is over, after parking. */
static inline void
pace_done(struct pace *p)
{
	pace_learn(p, pace_now() - p->since);
	p->slept = 1;
}

#endif
