/* SPDX-License-Identifier: MIT
 *
 * end.pml - the end of life of an instance, for spin: a model of held.c, instances.c (launcher), serve.c (service) and
 * channel.c (client), with somebody who kills the service and an administrator who releases the instance
 *
 *   spin -a [-DBROKEN=n] end.pml && cc -o pan pan.c && ./pan
 *
 * The client submits batches of two, sleeps until the last of a batch is answered (`until`: earlier answers don't ring),
 * takes what was answered, reads the results once more later, and goes on until CALLS are made or the service has
 * ended. The service may be killed between any two of its steps. There are no time-outs: who sleeps and isn't woken
 * sleeps for ever, which is a deadlock. What reached the service's store buffer gets into memory, dead or not.
 *
 * Memory that was given back is another's at once: it holds junk.
 *
 * Shown: what the client takes with status OK is the answer of its request and nothing else, now and whenever it reads
 * it again before it closes; what it reports as lost was never answered, and never will be; and it learns of the end,
 * wherever it was.
 *
 * BROKEN  what is missing, which must be found
 *  1      launcher: gives datain back when it has stored `gone`                held.c: held_wanted()
 *  2      client: reports the end without looking at its slots once more       channel.c: last_look()
 *  3      launcher: a release by anybody ends the lease                        instances.c: let_go()
 *  4      launcher: stores `gone` before the service is dead                   services.c: over()
 *  5      launcher: doesn't ring                                               held.c: wake()
 *  6      launcher: rings before `gone` is stored                              held.c: held_mark_gone()
 *  7      client: looks at `gone` before it reads the bell, and not after      channel.c: park()
 *  8      client: reads a result after it has closed
 */
#ifndef BROKEN
#define BROKEN 0
#endif
#define SLOTS 2
#define CALLS 4
#define BELLS 16 /* the bell counts modulo this; 2^32 in life */
#define JUNK 255

#define SEQ(p) ((p) % SLOTS) /* dataout */
#define DONE(p) (2 + (p) % SLOTS)
#define BULK(p) (4 + (p) % SLOTS)
#define GONE 6
#define BELL 7
#define RIGHT(p) (10 + (p))
byte mem[8];

bool alive = true; /* the service */
bool released;	   /* by the administrator */
bool closed;	   /* by the client: the lease is over */
bool asleep;	   /* the client, in a futex on BELL */
bool reported[CALLS];

#define RING                                                                                                           \
	atomic { mem[BELL] = (mem[BELL] + 1) % BELLS }                                                                 \
	asleep = false

/* The service's store buffer: x86's TSO. */
chan buffer = [4] of { byte, byte };

active proctype memory()
{
	byte at, what;

end:	do
	:: atomic {
		buffer ? at, what -> mem[at] = what;
		assert(!(at == DONE(what - 1) && at < 4) || !reported[what - 1])
	}
	od
}

active proctype service()
{
	byte p;

	{
		do
		:: p < CALLS ->
			mem[SEQ(p)] == p + 1;
			buffer ! BULK(p), RIGHT(p);
			buffer ! DONE(p), p + 1;
			p++;
			if
			:: p % SLOTS == 0 ->
				empty(buffer);
				RING
			:: else
			fi
		:: else -> break
		od;
		false
	} unless { !alive }
}

/* The kernel (memory), an administrator's kill, a watchdog: or nobody. */
active proctype killer()
{
	if
	:: alive = false
	:: skip
	fi
}

active proctype administrator()
{
	if
	:: released = true; alive = false
	:: skip
	fi
}

inline give_back()
{
	mem[DONE(0)] = JUNK;
	mem[BULK(0)] = JUNK;
	mem[DONE(1)] = JUNK;
	mem[BULK(1)] = JUNK
}

active proctype launcher()
{
#if BROKEN == 4
	if
	:: mem[GONE] = 1; RING
	fi;
#endif
	!alive;
	empty(buffer); /* the process has been collected */
#if BROKEN == 6
	RING;
#endif
	mem[GONE] = 1;
#if BROKEN != 5 && BROKEN != 6
	RING;
#endif
#if BROKEN == 1
#elif BROKEN == 3
	closed || released;
#else
	closed;
#endif
	give_back()
}

#define ANSWERED(p) (mem[DONE(p)] == (p) + 1)

/* Until the last request of the batch is answered, or nobody will answer it. */
inline wait_for(last)
{
	do
	:: ANSWERED(last) -> break
	:: !ANSWERED(last) ->
#if BROKEN == 7
		if
		:: mem[GONE] -> over = true; break
		:: !mem[GONE]
		fi;
		bell = mem[BELL];
#else
		bell = mem[BELL];
		if
		:: mem[GONE] -> over = true; break
		:: !mem[GONE]
		fi;
#endif
		if
		:: ANSWERED(last) -> break
		:: !ANSWERED(last) ->
			atomic {
				if
				:: mem[BELL] == bell -> asleep = true
				:: else
				fi
			}
			!asleep
		fi
	od
}

active proctype client()
{
	byte next, bell, i;
	bool over;
	bool taken[SLOTS];

	do
	:: next < CALLS && !over ->
		mem[SEQ(next)] = next + 1;
		mem[SEQ(next + 1)] = next + 2;
		wait_for(next + 1);
		for (i : 0 .. SLOTS - 1) {
#if BROKEN == 2
			taken[i] = !over;
#else
			taken[i] = ANSWERED(next + i);
#endif
			if
			:: taken[i] -> assert(mem[BULK(i)] == RIGHT(next + i))
			:: !taken[i] ->
				assert(over && !ANSWERED(next + i));
				reported[next + i] = true
			fi
		}
		/* Results stay where they are until their room is used again. */
		for (i : 0 .. SLOTS - 1) {
			assert(!taken[i] || mem[BULK(i)] == RIGHT(next + i))
		}
		next = next + SLOTS
	:: else -> break
	od;
	atomic { closed = true; alive = false }
#if BROKEN == 8
	assert(!taken[0] || mem[BULK(0)] == RIGHT(next - SLOTS))
#endif
}
