/* SPDX-License-Identifier: MIT
 *
 * ring.pml - slots, parking and bells, for spin: a model of proto/channel.c (client) and proto/serve.c (workers)
 *
 *   spin -a [-DWORKERS=2] [-DBATCH] [-DGUEST] [-DBROKEN=n] ring.pml && cc -o pan pan.c && ./pan
 *
 * The client submits batches of two into two slots, rings once, takes the answers in whatever order they come, and
 * goes on until CALLS are made, so that every slot is used again and the bell goes round. Both sides park whenever they
 * like. There are no time-outs: who sleeps and isn't woken sleeps for ever, which is a deadlock.
 *
 * Memory. Promela is sequentially consistent, processors aren't. So each party has a store buffer (a channel), which
 * process `memory` empties when it likes, the oldest first: that is x86's TSO. A barrier waits until one's own is empty.
 * An atomic read-modify-write is a barrier and acts on memory itself. No party loads what it stores, so that a load
 * needs to look at memory only.
 *
 * -DGUEST: the client is in a VM. It rings by a write to its bell file, which the share carries out, and sleeps in a read
 * of it. The service counts its wakes up in an eventfd; the share takes what has come, keeps it until there is a read,
 * and answers that. Read and write return when the share has answered. No read is answered late here, as in life.
 *
 * -DBATCH: the client waits until the last of its requests is answered, and says so (`until`); for one worker.
 *
 * Shown: no lost wake-up, no deadlock (no invalid end state); each position is served once, with its own payload, and
 * taken once, with its own result (assertions); also with two workers that share bell and `parked`.
 *
 * BROKEN  what is missing, which must be found
 *  1      client: barrier between storing seq and reading `parked`     vfun_ring()
 *  2      service: barrier between storing seq and reading `parked`    wake_client()
 *  3      client: barrier between setting `parked` and looking again   channel.c: park()
 *  4      service: looking again after setting `parked`                serve.c: park()
 *  5      client: reads the bell after looking again, not before       channel.c: park()
 *  6      client: uses a slot again whose answer it hasn't taken       vfun_submit()
 *  7      service: seq stored before the result                        answer()
 *  8      service: a ring wakes one worker of those that sleep         ring_bell()
 * 10      share: forgets wakes that come while nobody reads            data.c: bell_read()
 *  9      service: waits for a request before waking the client        serve_loop()
 * 11      service: doesn't ring for the very answer that is awaited    awaits_later()
 */
#ifndef WORKERS
#define WORKERS 1
#endif
#ifndef BROKEN
#define BROKEN 0
#endif
#define SLOTS 2
#ifndef CALLS
#define CALLS 4
#endif
#define BELLS 8 /* the bell counts modulo this; 2^32 in life */

/* Memory: for each slot seq and payload, both ways; header words. */
#define SEQ(i) (i)
#define ARG(i) (2 + (i))
#define DONE(i) (4 + (i))
#define RESULT(i) (6 + (i))
#define C_PARKED 8 /* dataout's */
#define S_BELL 9
#define C_BELL 10  /* datain's */
#define C_UNTIL 11 /* dataout's */
byte mem[12];
byte s_parked; /* datain's: a bit for each worker */

/* Store buffers: where, what. The last one is the client's. */
#define CLIENT WORKERS
chan buffer[WORKERS + 1] = [4] of { byte, byte };
#define STORE(who, at, what) buffer[who] ! at, what
#define BARRIER(who) empty(buffer[who])

/* Asleep in a futex: on S_BELL a worker, on C_BELL the client. */
bool asleep[WORKERS + 1];
#define SLEEP(who, word, was)                                                                                          \
	atomic {                                                                                                       \
		if                                                                                                     \
		:: mem[word] == was -> asleep[who] = true                                                              \
		:: else                                                                                                \
		fi                                                                                                     \
	}                                                                                                              \
	!asleep[who]

byte served[CALLS], taken[CALLS];

#ifdef GUEST
byte eventfd;	      /* the kernel's count */
bool reading, writing; /* the client's requests to the share */
#define WAKE eventfd++

active proctype share()
{
	byte got, count;

end:	do
	:: eventfd > 0 ->
		atomic { got = eventfd; eventfd = 0 }
#if BROKEN == 10
		count = (reading -> count + got : 0)
#else
		count = count + got
#endif
	:: count > 0 && reading -> count = 0; reading = false
	:: writing ->
		mem[S_BELL] = (mem[S_BELL] + 1) % BELLS;
		asleep[0] = false;
		writing = false
	od
}
#else
#define WAKE asleep[CLIENT] = false
#endif

/* serve.c: wake_client() */
#if BROKEN == 2
#define ANSWER_VISIBLE(w)
#else
#define ANSWER_VISIBLE(w) BARRIER(w);
#endif
#if BROKEN == 11
#define EARLIER <=
#else
#define EARLIER <
#endif
#define WAKE_CLIENT(w)                                                                                                 \
	owed = false;                                                                                                  \
	ANSWER_VISIBLE(w)                                                                                              \
	if                                                                                                             \
	:: mem[C_PARKED] ->                                                                                            \
		if                                                                                                     \
		:: mem[C_UNTIL] != 0 && p EARLIER mem[C_UNTIL]                                                         \
		:: else ->                                                                                             \
			atomic { BARRIER(w) -> mem[C_BELL] = (mem[C_BELL] + 1) % BELLS }                               \
			WAKE                                                                                           \
		fi                                                                                                     \
	:: !mem[C_PARKED]                                                                                              \
	fi

active proctype memory()
{
	byte at, what;

end:	do
	:: atomic { buffer[0] ? at, what -> mem[at] = what }
#if WORKERS > 1
	:: atomic { buffer[1] ? at, what -> mem[at] = what }
#endif
	:: atomic { buffer[CLIENT] ? at, what -> mem[at] = what }
	od
}

/* serve.c: serve_loop() of worker w. Processes are numbered as they stand here. */
#ifdef GUEST
#define FIRST 2
#else
#define FIRST 1
#endif
active [WORKERS] proctype worker()
{
	byte w = _pid - FIRST;
	byte p = w; /* position; with one worker also the seq that was answered last */
	byte bell;
	bool owed; /* an answer was published, and `parked` not yet looked at */

	do
	:: p < CALLS ->
		/* No further request: wake_client() first. wait_for_request(): spins as long as it likes, or parks */
		do
		:: mem[SEQ(p % SLOTS)] != p + 1 && owed && BROKEN != 9 -> WAKE_CLIENT(w)
		:: mem[SEQ(p % SLOTS)] == p + 1 -> break
		:: mem[SEQ(p % SLOTS)] != p + 1 && (!owed || BROKEN == 9) ->
			bell = mem[S_BELL];
			atomic { BARRIER(w) -> s_parked = s_parked | (1 << w) }
			if
#if BROKEN != 4
			:: mem[SEQ(p % SLOTS)] == p + 1
#endif
			:: BROKEN == 4 || mem[SEQ(p % SLOTS)] != p + 1 -> SLEEP(w, S_BELL, bell)
			fi;
			atomic { BARRIER(w) -> s_parked = s_parked & ~(1 << w) }
		od;
		/* serve_slot(): with more to do, a look at `parked` without a barrier will do */
		assert(mem[ARG(p % SLOTS)] == p);
		if
		:: owed && mem[C_PARKED] -> WAKE_CLIENT(w)
		:: !owed || !mem[C_PARKED]
		fi;
		served[p]++;
		assert(served[p] == 1);
		/* answer() */
#if BROKEN == 7
		STORE(w, DONE(p % SLOTS), p + 1);
		STORE(w, RESULT(p % SLOTS), p);
#else
		STORE(w, RESULT(p % SLOTS), p);
		STORE(w, DONE(p % SLOTS), p + 1);
#endif
		owed = true;
		p = p + WORKERS
	:: else -> break
	od;
	/* In life it would wait for a further request now. */
	if
	:: owed && BROKEN != 9 -> WAKE_CLIENT(w)
	:: else
	fi
}

#define ANSWERED(p) ((p) < next && !taken[p] && mem[DONE((p) % SLOTS)] == (p) + 1)
#ifdef BATCH
#define THERE ANSWERED(next - 1)
#else
#define THERE (ANSWERED(oldest) || ANSWERED(oldest + 1))
#endif
#if BROKEN == 6
#define FREE true
#else
#define FREE (next < SLOTS || taken[next - SLOTS])
#endif

active proctype client()
{
	byte next = 0; /* position */
	byte oldest = 0;
	byte bell, found;
	bool unrung; /* submitted since the last ring */

	do
	:: oldest < CALLS ->
		/* vfun_submit(), as often as there is a free slot */
		do
		:: next < CALLS && FREE ->
			STORE(CLIENT, ARG(next % SLOTS), next);
			STORE(CLIENT, SEQ(next % SLOTS), next + 1);
			unrung = true;
			next++
		:: next == CALLS || !FREE || BROKEN == 6 -> break
		od;
		/* await(): vfun_ring(), if need be */
		if
		:: unrung ->
			unrung = false;
#if BROKEN != 1
			BARRIER(CLIENT);
#endif
			if
#ifdef GUEST
			:: s_parked ->
				writing = true;
				!writing
#else
			:: s_parked ->
				atomic { BARRIER(CLIENT) -> mem[S_BELL] = (mem[S_BELL] + 1) % BELLS }
				atomic {
					if
					:: WORKERS > 1 && (BROKEN != 8 || !asleep[0]) -> asleep[WORKERS - 1] = false
					:: else
					fi;
					asleep[0] = false
				}
#endif
			:: !s_parked
			fi
		:: else
		fi;
		/* vfun_reap() of what was submitted: spins, or parks */
		do
		:: THERE && ANSWERED(oldest) -> found = oldest; break
#ifndef BATCH
		:: THERE && ANSWERED(oldest + 1) -> found = oldest + 1; break
#endif
		:: !THERE ->
#if BROKEN != 5
			bell = mem[C_BELL];
#endif
#ifdef BATCH
			STORE(CLIENT, C_UNTIL, next);
#endif
			STORE(CLIENT, C_PARKED, 1);
#if BROKEN != 3
			BARRIER(CLIENT);
#endif
			if
			:: THERE
			:: !THERE ->
#if BROKEN == 5
				bell = mem[C_BELL];
#endif
#ifdef GUEST
				reading = true;
				!reading
#else
				SLEEP(CLIENT, C_BELL, bell)
#endif
			fi;
			STORE(CLIENT, C_PARKED, 0)
		od;
		/* take() */
		assert(mem[RESULT(found % SLOTS)] == found);
		taken[found]++;
		assert(taken[found] == 1);
		do
		:: oldest < CALLS && taken[oldest] -> oldest++
		:: else -> break
		od
	:: else -> break
	od;
	assert(oldest == CALLS)
}
