/* SPDX-License-Identifier: MIT
 *
 * serve.c - the service's side of the mapping: take requests, check them, answer them, sleep when there are none
 *
 * Theory of operation
 *
 * dataout belongs to the client, who may be hostile and may write while we read. The service looks at one word of it,
 * the seq of the slot whose turn it is; when that has the expected value, the slot is copied, once, and everything
 * after that is done on the copy. Offsets and lengths in the copy are checked against the geometry that vfund gave
 * (32-bit slots, 64-bit sums), so that the pointers handed to a function lie inside the arenas whatever the client
 * does. datain is written and never read back, since a guest's kernel can write it too: our position and the arguments
 * SET live in private memory.
 *
 * A request that fails validation fails with a reason code and costs the client that call; STRIKES of them in a row and
 * the service ends: such a client is broken or looking for something.
 *
 *   spinning --pace.h: time to park--> parked |= bit, full barrier, look again --nothing--> sleep on dataout's bell
 *      ^                                                    |                               ^   |
 *      +------------- parked &= ~bit <------ request there -+------ woken by a request -----+---+ a minute passed
 *
 * Checked by a model: t/model/ring.pml, for lost wake-ups, deadlocks, and slots seen twice.
 *
 * Workers. A service may have several threads. Each serves its own slots, every workers-th position, with a position
 * and a function's state of its own, so that they have nothing to agree on; all sleep on one bell, each with its own
 * bit in `parked`, and a ring wakes all. What the last SET left behind is common, and so are the strikes.
 *
 * Order. SET, RST, a GET without arguments, and what carries VFUN_SLOT_ORDERED begin when all earlier positions are
 * answered. A worker waits for nothing but earlier positions, so two never wait for each other. Requests with arguments
 * of their own need no order, and don't pay for it.
 *
 * Out of turn. A client that skips a position, or uses a slot again before its answer was there, would wait for ever: a
 * worker that has slept for LOOK_NS looks once whether anything later than its turn is published. Positions are
 * published in order, so if it is, and the worker's own still isn't, it never will be: the service ends, and says why.
 *
 * Cancelling. The client stores the seq that it doesn't want any more in its header. Nobody looks at that before the
 * header's `cancels`, in the line that is looked at for `parked` anyway, isn't 0.
 *
 * Queue. Where a device computes, one worker begins the calls that it finds, as many as the device may have in its
 * queue, and only then waits for the oldest; it answers in order.
 *
 * Where requests wait in line, the lines of those further on are fetched ahead: reading a line that another processor
 * wrote takes as long as dozens of instructions.
 */
#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pace.h"
#include "serve.h"

#define STRIKES 64
#define SLEEP_NS 60000000000u /* a safety net: no wake-up is lost, and hundreds sleep at a time */
#define LOOK_NS 100000000u
#define TURN_NS 50000u /* between two looks at the other workers, after TURN_SPINS of them */
#define TURN_SPINS 2000u
#define AHEAD 4 /* requests */

/* A call that a device has in its queue. */
struct begun {
	uint32_t seq;
	int busy; /* 1: shown */
	struct vfun_request r;
};

/* One worker. */
struct state {
	struct serve *s;
	void *arg;
	const struct vfun_hdr *out;
	struct vfun_hdr *in;
	const struct vfun_request *requests;
	struct vfun_answer *answers;
	const uint8_t *out_arena;
	uint8_t *in_arena;
	uint32_t next;	   /* position whose turn it is */
	uint32_t step;	   /* from one of this worker's positions to the next */
	uint32_t bit;	   /* in datain's `parked` */
	int owed;	   /* 1: an answer was published, and whether the client sleeps not yet looked at */
	uint32_t answered; /* the latest seq that was answered */
	struct pace pace;
	struct begun begun[SERVE_QUEUE_MAX];
	uint32_t first; /* the oldest in the queue, mod s->queue, and how many there are */
	uint32_t under_way;
	int begins; /* 1: the call that is served now has only been begun */
};

void
serve_header(struct vfun_hdr *h, uint64_t magic, uint64_t session, uint64_t instance, uint32_t slots, uint64_t arena)
{
	h->session = session;
	h->instance = instance;
	h->size = vfun_region_size(slots, arena);
	h->version = VFUN_VERSION;
	h->slot_size = VFUN_LINE;
	h->slots = slots;
	h->ring_off = VFUN_PAGE;
	h->arena_off = VFUN_PAGE + vfun_ring_size(slots);
	h->arena_size = arena;
	__atomic_store_n(&h->magic, magic, __ATOMIC_RELEASE);
}

static int
inside(uint64_t off, uint64_t len, uint64_t size)
{
	return off <= size && len <= size - off;
}

/* Check the private copy of a slot. */
static enum vfun_reason
check(const struct state *st, const struct vfun_request *r)
{
	const unsigned ordered = st->s->features & VFUN_FEATURE_ORDERED ? VFUN_SLOT_ORDERED : 0;
	struct vfun_bulk b;

	if (r->cmd < VFUN_CMD_SET || r->cmd > VFUN_CMD_ECHO)
		return VFUN_R_SLOT_COMMAND;
	if (r->flags & ~(VFUN_SLOT_BULK | VFUN_SLOT_LONG | ordered))
		return VFUN_R_SLOT_FLAGS;
	/* Without limits, what they are is the upper half of the length. */
	if (r->len > VFUN_PAYLOAD || r->len % 8 || (r->limit && !(st->s->features & VFUN_FEATURE_LIMIT)))
		return VFUN_R_SLOT_LENGTH;
	if (!(r->flags & VFUN_SLOT_BULK))
		return VFUN_OK;
	if (r->len < sizeof(b))
		return VFUN_R_SLOT_LENGTH;
	memcpy(&b, r->payload.bytes, sizeof(b));
	if (!inside(b.in_off, b.in_len, st->s->out_arena) || !inside(b.out_off, b.out_len, st->s->in_arena))
		return VFUN_R_SLOT_RANGE;
	return VFUN_OK;
}

/* A checked request, as the function has it. */
static struct serve_call
call_of(const struct state *st, const struct vfun_request *r)
{
	struct serve_call call = { .cmd = (enum vfun_cmd)r->cmd, .arg = r->payload.arg, .nargs = r->len / 8u };

	if (r->flags & VFUN_SLOT_BULK) {
		struct vfun_bulk b;

		memcpy(&b, r->payload.bytes, sizeof(b));
		call.bulk = 1;
		call.arg += sizeof(b) / 8;
		call.nargs -= sizeof(b) / 8;
		call.in = st->out_arena + b.in_off;
		call.in_len = b.in_len;
		call.out = st->in_arena + b.out_off;
		call.out_len = b.out_len;
	}
	call.stop.seq = r->seq;
	if (st->s->features & VFUN_FEATURE_CANCEL)
		call.stop.cancel = &st->out->cancel[(r->seq - 1) & (st->s->slots - 1)];
	if (r->limit)
		call.stop.until = pace_now() + vfun_limit_us(r->limit) * 1000u;
	return call;
}

int
vfun_stopped(const struct vfun_stop *stop)
{
	if (!stop)
		return 0;
	if (stop->cancel && __atomic_load_n(stop->cancel, __ATOMIC_RELAXED) == stop->seq)
		return -ECANCELED;
	return stop->until && pace_now() >= stop->until ? -ETIME : 0;
}

static void finish_oldest(struct state *st);

/* Into the device's queue. */
static void
begin(struct state *st, const struct vfun_request *r, struct serve_answer *ans)
{
	uint32_t lane = (st->first + st->under_way) % st->s->queue;
	struct begun *b = &st->begun[lane];
	struct serve_call call;

	/* Its copy, and not the caller's, is what the call points to. */
	*b = (struct begun){ .seq = st->next + 1, .r = *r };
	call = call_of(st, &b->r);
	call.lane = lane;
	if (st->s->begin(st->arg, &call, ans))
		return;
	st->under_way++;
	st->begins = 1;
}

/* Run the function on a checked request. */
static void
run(struct state *st, const struct vfun_request *r, struct serve_answer *ans)
{
	struct serve_call call;

	/* A result's last word is copied whole, and must not carry our stack. */
	memset(ans->bytes, 0, sizeof(ans->bytes));
	if (st->s->begin && r->cmd == VFUN_CMD_GET) {
		begin(st, r, ans);
		return;
	}
	call = call_of(st, r);
	st->s->fn(st->arg, &call, ans);
}

/* Among the workers; each holds it for some instructions only. */
static void
lock(struct serve *s)
{
	while (__atomic_exchange_n(&s->lock, 1, __ATOMIC_ACQUIRE))
		vfun_relax();
}

static void
unlock(struct serve *s)
{
	__atomic_store_n(&s->lock, 0, __ATOMIC_RELEASE);
}

static void
set(struct serve *s, const struct vfun_request *r)
{
	lock(s);
	s->set = *r;
	s->set.cmd = r->cmd == VFUN_CMD_SET ? VFUN_CMD_GET : 0;
	unlock(s);
}

static void
get(struct state *st, const struct vfun_request *r, struct serve_answer *ans)
{
	struct vfun_request last;

	if (r->len == 0) {
		lock(st->s);
		last = st->s->set;
		unlock(st->s);
		/* What is this call's own. */
		last.seq = r->seq;
		last.limit = r->limit;
		r = &last;
	}
	if (!r->cmd)
		ans->reason = VFUN_R_NO_DATA;
	else
		run(st, r, ans);
}

static void wake_client(struct state *st);

/* Have the other workers answered everything before the position that is served now? */
static int
earlier_done(const struct state *st)
{
	const struct serve *s = st->s;

	for (uint32_t w = 0; w < s->workers; w++)
		if (w != (st->next & (s->workers - 1)) &&
		    (int32_t)(__atomic_load_n(&s->turn[w].next, __ATOMIC_ACQUIRE) - st->next) < 0)
			return 0;
	return 1;
}

/* Wait for that. */
static void
take_turn(struct state *st)
{
	static const struct timespec pause = { .tv_nsec = TURN_NS };
	uint32_t never = 0;

	while (st->under_way)
		finish_oldest(st);
	if (st->s->workers == 1)
		return;
	/* The client may sleep for what this worker has answered, and publish nothing before it has that. */
	wake_client(st);
	for (unsigned n = 0; !earlier_done(st); n++) {
		if (n < TURN_SPINS)
			vfun_relax();
		else
			syscall(SYS_futex, &never, FUTEX_WAIT, 0, &pause, NULL, 0);
	}
}

/* Does its result depend on what was asked before? */
static int
is_ordered(const struct state *st, const struct vfun_request *r)
{
	return r->cmd == VFUN_CMD_SET || r->cmd == VFUN_CMD_RST || (r->flags & VFUN_SLOT_ORDERED) ||
	       (r->cmd == VFUN_CMD_GET && !r->len && !st->s->own_sets);
}

/* Is it wanted any more? VFUN_OK, or VFUN_R_CANCELLED. */
static enum vfun_reason
wanted(const struct state *st, uint32_t seq)
{
	const uint32_t *cancel = &st->out->cancel[(seq - 1) & (st->s->slots - 1)];

	return st->s->features & VFUN_FEATURE_CANCEL && __atomic_load_n(cancel, __ATOMIC_RELAXED) == seq
		   ? VFUN_R_CANCELLED
		   : VFUN_OK;
}

/* The command, after validation. */
static void
obey(struct state *st, const struct vfun_request *r, struct serve_answer *ans)
{
	switch (r->cmd) {
	case VFUN_CMD_SET:
		if (st->s->own_sets)
			run(st, r, ans);
		else if (r->len == 0)
			ans->reason = VFUN_R_NO_DATA;
		else
			set(st->s, r);
		break;
	case VFUN_CMD_GET:
		if (st->s->own_sets)
			run(st, r, ans);
		else
			get(st, r, ans);
		break;
	case VFUN_CMD_RST:
		set(st->s, r);
		run(st, r, ans);
		break;
	case VFUN_CMD_ECHO:
		ans->len = r->len;
		break;
	}
}

/* Does the client sleep for an answer that comes later? With several workers nobody knows which is the later one, and
 * a client that asks for that all the same is woken for too little, or not at all before its sleep ends by itself. */
static int
awaits_later(const struct state *st)
{
	uint32_t until = __atomic_load_n(&st->out->until, __ATOMIC_RELAXED);

	return until && (int32_t)(st->answered - until) < 0;
}

/* Wake the client if it sleeps and there is an answer for it. The full barrier stands between publishing the answer and
 * reading its flag; the client has one between setting the flag and looking for the answer: one of the two sees the
 * other's store. */
static void
wake_client(struct state *st)
{
	static const uint64_t one = 1;

	if (!st->owed)
		return;
	st->owed = 0;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&st->out->parked, __ATOMIC_ACQUIRE) || awaits_later(st))
		return;
	st->pace.woke = 1;
	__atomic_store_n(&st->in->cpu, pace_cpu(), __ATOMIC_RELAXED);
	__atomic_fetch_add(&st->in->bell, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &st->in->bell, FUTEX_WAKE, 1, NULL, NULL, 0);
	/* EAGAIN would mean 2^64 wakes that nobody took: the share looks at the clock as well. */
	if (st->s->ring_fd >= 0 && write(st->s->ring_fd, &one, sizeof(one)) < 0)
		return;
}

/* Payload first, then the head. `words`: the inline result. Waking is left for later: the barrier would wait until the
 * client's processor has given the line away, and the next request can be read meanwhile. */
static void
answer(struct state *st, uint32_t seq, const struct serve_answer *ans, const uint64_t *words)
{
	struct vfun_answer *a = &st->answers[(seq - 1) & (st->s->slots - 1)];
	volatile uint64_t *word = a->payload.word;
	unsigned flags = ans->bulk ? VFUN_ANSWER_BULK : 0;
	unsigned len = (unsigned)ans->len;

	if (ans->bulk || ans->reason == VFUN_R_RESULT_SIZE) {
		len = sizeof(ans->len);
		word[0] = ans->len;
	} else {
		/* Before version 1.3 a refusal has no payload. */
		if (ans->reason && st->s->version < 0x0103)
			len = 0;
		for (unsigned i = 0; i < (len + 7) / 8; i++)
			word[i] = words[i];
	}
	__atomic_store_n((uint64_t *)(void *)a,
	    vfun_answer_head(seq, VFUN_STATE_DONE, flags, (unsigned)ans->reason, len), __ATOMIC_RELEASE);
	/* Calls in a queue may be overtaken by a request that is answered at once. */
	if ((int32_t)(seq - st->answered) > 0)
		st->answered = seq;
	st->owed = 1;
}

static const struct vfun_request *
slot(const struct state *st, uint32_t position)
{
	return &st->requests[position & (st->s->slots - 1)];
}

/* The one read of the client's line: its head, and as many words of payload as the head's copy says. */
static void
copy_slot(const struct state *st, struct vfun_request *r)
{
	const volatile uint64_t *line = (const volatile uint64_t *)(const volatile void *)slot(st, st->next);
	uint64_t head = __atomic_load_n(line, __ATOMIC_ACQUIRE);

	r->seq = (uint32_t)head;
	r->cmd = (uint8_t)(head >> 32);
	r->flags = (uint8_t)(head >> 40);
	r->len = (uint8_t)(head >> 48);
	r->limit = (uint8_t)(head >> 56);
	for (unsigned i = 0; i < (r->len + 7u) / 8 && i < VFUN_PAYLOAD / 8; i++)
		r->payload.arg[i] = line[1 + i];
}

static int
published(const struct state *st)
{
	return __atomic_load_n(&slot(st, st->next)->seq, __ATOMIC_ACQUIRE) == st->next + 1;
}

static unsigned
strikes(const struct state *st)
{
	return __atomic_load_n(&st->s->strikes, __ATOMIC_RELAXED);
}

/* Show for people that something long is being done, or that it isn't any more. */
static void
show_busy(const struct state *st, struct vfun_answer *a, int busy)
{
	struct serve *s = st->s;

	lock(s);
	s->busy += busy ? 1u : -1u;
	__atomic_store_n(&st->in->state, s->busy ? VFUN_STATE_BUSY : VFUN_STATE_WAIT, __ATOMIC_RELAXED);
	unlock(s);
	if (busy)
		a->state = VFUN_STATE_BUSY;
}

/* The position that was served is answered, or has at least been begun. */
static void
pass_on(struct state *st)
{
	st->next += st->step;
	if (st->s->workers > 1)
		__atomic_store_n(&st->s->turn[st->next & (st->s->workers - 1)].next, st->next, __ATOMIC_RELEASE);
}

/* A slot that can't be obeyed, or needn't be. */
static void
refuse(struct state *st, uint32_t seq, struct serve_answer *ans)
{
	if (ans->reason != VFUN_R_CANCELLED && __atomic_add_fetch(&st->s->strikes, 1, __ATOMIC_RELAXED) >= STRIKES)
		ans->reason = VFUN_R_CUT_OFF;
	answer(st, seq, ans, NULL);
	pass_on(st);
}

/* Serve the slot of position `next`, which has been published. */
static void
serve_slot(struct state *st)
{
	uint32_t seq = st->next + 1;
	struct vfun_answer *a = &st->answers[st->next & (st->s->slots - 1)];
	struct serve_answer ans;
	struct vfun_request r;

	copy_slot(st, &r);
	r.seq = seq;
	/* Without the barrier of wake_client(), which would cost as much as the rest of a short call: who goes to sleep
	 * at this very moment is seen after this request, or before we wait. */
	if (__atomic_load_n(&st->out->parked, __ATOMIC_RELAXED))
		wake_client(st);
	ans.bulk = 0;
	ans.len = 0;
	ans.reason = check(st, &r);
	if (!ans.reason && is_ordered(st, &r))
		take_turn(st);
	/* A SET isn't skipped: the GET behind it would have the arguments of an earlier one. */
	if (!ans.reason && r.cmd == VFUN_CMD_GET &&
	    __builtin_expect(__atomic_load_n(&st->out->cancels, __ATOMIC_RELAXED) != 0, 0))
		ans.reason = wanted(st, seq);
	if (ans.reason) {
		refuse(st, seq, &ans);
		return;
	}
	if (strikes(st))
		__atomic_store_n(&st->s->strikes, 0, __ATOMIC_RELAXED);
	if (r.flags & (VFUN_SLOT_BULK | VFUN_SLOT_LONG))
		show_busy(st, a, 1);
	st->begins = 0;
	obey(st, &r, &ans);
	if (st->begins) {
		st->begun[(st->first + st->under_way - 1) % st->s->queue].busy =
		    (r.flags & (VFUN_SLOT_BULK | VFUN_SLOT_LONG)) != 0;
		pass_on(st);
		return;
	}
	if (r.flags & (VFUN_SLOT_BULK | VFUN_SLOT_LONG))
		show_busy(st, a, 0);
	answer(st, seq, &ans, r.cmd == VFUN_CMD_ECHO ? r.payload.arg : ans.word);
	pass_on(st);
}

/* Wait for the call that was begun first, and answer it. */
static void
finish_oldest(struct state *st)
{
	struct begun *b = &st->begun[st->first];
	struct vfun_answer *a = &st->answers[(b->seq - 1) & (st->s->slots - 1)];
	struct serve_call call = call_of(st, &b->r);
	struct serve_answer ans = { .reason = VFUN_OK };

	call.lane = st->first;
	st->s->fn(st->arg, &call, &ans);
	st->first = (st->first + 1) % st->s->queue;
	st->under_way--;
	if (b->busy)
		show_busy(st, a, 0);
	answer(st, b->seq, &ans, ans.word);
}

/* The lines of a request that will be served soon. */
static void
fetch_ahead(const struct state *st)
{
	uint32_t position = st->next + AHEAD * st->step;

	__builtin_prefetch(slot(st, position));
	__builtin_prefetch(&st->answers[position & (st->s->slots - 1)], 1);
}

static int
look(void *st)
{
	return published(st);
}

/* 1: nobody rang all that time. */
static int
park(const struct state *st, uint64_t ns)
{
	const struct timespec limit = { .tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u) };
	uint32_t bell = __atomic_load_n(&st->out->bell, __ATOMIC_ACQUIRE);
	int silent = 0;

	__atomic_fetch_or(&st->in->parked, st->bit, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	/* Whether it was woken, rung before it slept, or the time is over: what counts is the slot. */
	__atomic_store_n(&st->in->cpu, pace_cpu(), __ATOMIC_RELAXED);
	if (!published(st))
		silent =
		    syscall(SYS_futex, &st->out->bell, FUTEX_WAIT, bell, &limit, NULL, 0) < 0 && errno == ETIMEDOUT;
	__atomic_fetch_and(&st->in->parked, ~st->bit, __ATOMIC_RELAXED);
	return silent;
}

/* Is a later position published, and this one not? */
static int
out_of_turn(const struct state *st)
{
	const uint32_t slots = st->s->slots;
	int later = 0;

	for (uint32_t p = st->next; !later && p != st->next + slots; p++) {
		uint32_t ahead = __atomic_load_n(&slot(st, p)->seq, __ATOMIC_ACQUIRE) - (st->next + 1);

		later = ahead > 0 && ahead <= 2 * slots;
	}
	return later && !published(st);
}

/* 1: it is there; 0: it never will be. */
static int
wait_for_request(struct state *st)
{
	if (pace_spin(&st->pace, UINT64_MAX, 0, look, st))
		return 1;
	for (uint64_t ns = LOOK_NS; !published(st);) {
		int silent = park(st, ns);

		if (silent && !published(st) && out_of_turn(st))
			return 0;
		ns = silent ? SLEEP_NS : LOOK_NS;
	}
	pace_done(&st->pace);
	return 1;
}

enum vfun_reason
serve_loop(struct serve *s, unsigned worker, void *arg)
{
	struct state st = {
		.s = s,
		.arg = arg,
		.out = s->out,
		.in = s->in,
		.requests = (const void *)((const uint8_t *)s->out + VFUN_PAGE),
		.answers = (void *)((uint8_t *)s->in + VFUN_PAGE),
		.out_arena = (const uint8_t *)s->out + VFUN_PAGE + vfun_ring_size(s->slots),
		.in_arena = (uint8_t *)s->in + VFUN_PAGE + vfun_ring_size(s->slots),
		.next = worker,
		.step = s->workers,
		.bit = 1u << worker,
		.pace.limit_ns = s->spin_us * 1000ull,
		.pace.peer = &((const struct vfun_hdr *)s->out)->cpu,
	};

	__atomic_store_n(&s->turn[worker].next, worker, __ATOMIC_RELEASE);
	while (strikes(&st) < STRIKES) {
		if (st.under_way && (st.under_way == s->queue || !published(&st))) {
			wake_client(&st);
			finish_oldest(&st);
			continue;
		}
		if (published(&st)) {
			fetch_ahead(&st);
		} else {
			wake_client(&st);
			if (!wait_for_request(&st))
				return VFUN_R_SLOT_SEQ;
		}
		serve_slot(&st);
	}
	wake_client(&st);
	return VFUN_R_CUT_OFF;
}
