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
 *   spinning --no request for spin_us--> parked=1, full barrier, look again --nothing--> sleep on dataout's bell
 *      ^                                                    |                                 |
 *      +------------------- parked=0 <---- request there ---+---- woken, or a second passed --+
 */
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "serve.h"

#define STRIKES 64
#define SLEEP_MAX_S 1

struct state {
	const struct serve *s;
	const struct vfun_hdr *out;
	struct vfun_hdr *in;
	const struct vfun_request *requests;
	struct vfun_answer *answers;
	const uint8_t *out_arena;
	uint8_t *in_arena;
	uint32_t next;		 /* position whose turn it is */
	unsigned strikes;	 /* insane slots in a row */
	struct vfun_request set; /* the last SET, checked; cmd 0: none */
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
	struct vfun_bulk b;

	if (r->cmd < VFUN_CMD_SET || r->cmd > VFUN_CMD_ECHO)
		return VFUN_R_SLOT_COMMAND;
	if (r->flags & ~VFUN_SLOT_FLAGS_KNOWN)
		return VFUN_R_SLOT_FLAGS;
	if (r->len > VFUN_PAYLOAD || r->len % 8)
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

/* Run the function on a checked request. */
static void
run(const struct state *st, const struct vfun_request *r, struct serve_answer *ans)
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
	st->s->fn(st->s->arg, &call, ans);
}

static void
get(struct state *st, const struct vfun_request *r, struct serve_answer *ans)
{
	if (r->len == 0)
		r = &st->set;
	if (!r->cmd)
		ans->reason = VFUN_R_NO_DATA;
	else
		run(st, r, ans);
}

/* The command, after validation. */
static void
obey(struct state *st, const struct vfun_request *r, struct serve_answer *ans)
{
	switch (r->cmd) {
	case VFUN_CMD_SET:
		if (r->len == 0) {
			ans->reason = VFUN_R_NO_DATA;
			break;
		}
		st->set = *r;
		st->set.cmd = VFUN_CMD_GET;
		break;
	case VFUN_CMD_GET:
		get(st, r, ans);
		break;
	case VFUN_CMD_RST:
		memset(&st->set, 0, sizeof(st->set));
		run(st, r, ans);
		break;
	case VFUN_CMD_ECHO:
		ans->len = r->len;
		for (unsigned i = 0; i < r->len / 8u; i++)
			ans->word[i] = r->payload.arg[i];
		break;
	}
}

/* Wake the client if it sleeps. The full barrier stands between publishing the answer and reading its flag; the client
 * has one between setting the flag and looking for the answer: one of the two sees the other's store. */
static void
wake_client(const struct state *st)
{
	static const uint64_t one = 1;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&st->out->parked, __ATOMIC_RELAXED))
		return;
	__atomic_fetch_add(&st->in->bell, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &st->in->bell, FUTEX_WAKE, 1, NULL, NULL, 0);
	/* EAGAIN would mean 2^64 wakes that nobody took: the share looks at the clock as well. */
	if (st->s->ring_fd >= 0 && write(st->s->ring_fd, &one, sizeof(one)) < 0)
		return;
}

/* Payload first, then the header, whose 8 bytes hold the seq and are stored at once. */
static void
answer(const struct state *st, uint32_t seq, const struct serve_answer *ans)
{
	struct vfun_answer *a = &st->answers[(seq - 1) & (st->s->slots - 1)];
	struct vfun_answer h = { .seq = seq, .state = VFUN_STATE_DONE, .reason = (uint8_t)ans->reason };
	uint64_t header;

	if (ans->bulk || ans->reason == VFUN_R_RESULT_SIZE) {
		h.flags = ans->bulk ? VFUN_ANSWER_BULK : 0;
		h.len = sizeof(ans->len);
		a->payload.word[0] = ans->len;
	} else {
		h.len = (uint8_t)ans->len;
		for (unsigned i = 0; i < (ans->len + 7) / 8; i++)
			a->payload.word[i] = ans->word[i];
	}
	memcpy(&header, &h, sizeof(header));
	__atomic_store_n((uint64_t *)(void *)a, header, __ATOMIC_RELEASE);
	wake_client(st);
}

/* The one read of the client's line: its header, and as many words of payload as the header's copy says. */
static void
copy_slot(const struct state *st, struct vfun_request *r)
{
	const volatile uint64_t *slot =
	    (const volatile uint64_t *)(const volatile void *)&st->requests[st->next & (st->s->slots - 1)];
	uint64_t header = __atomic_load_n(slot, __ATOMIC_ACQUIRE);

	memcpy(r, &header, sizeof(header));
	for (unsigned i = 0; i < r->len / 8u && i < VFUN_PAYLOAD / 8; i++)
		r->payload.arg[i] = slot[1 + i];
}

/* Serve the slot of position `next`, which has been published. */
static void
serve_slot(struct state *st)
{
	uint32_t seq = st->next + 1;
	struct vfun_answer *a = &st->answers[st->next & (st->s->slots - 1)];
	struct serve_answer ans = { .reason =
					VFUN_OK }; /* all of it: words are copied whole, and must not carry our stack */
	struct vfun_request r;
	int busy;

	copy_slot(st, &r);
	st->next++;
	ans.reason = check(st, &r);
	if (ans.reason) {
		st->strikes++;
		if (st->strikes >= STRIKES)
			ans.reason = VFUN_R_CUT_OFF;
		answer(st, seq, &ans);
		return;
	}
	st->strikes = 0;
	busy = r.flags != 0;
	if (busy) {
		a->state = VFUN_STATE_BUSY;
		__atomic_store_n(&st->in->state, VFUN_STATE_BUSY, __ATOMIC_RELAXED);
	}
	obey(st, &r, &ans);
	if (busy)
		__atomic_store_n(&st->in->state, VFUN_STATE_WAIT, __ATOMIC_RELAXED);
	answer(st, seq, &ans);
}

static int
published(const struct state *st)
{
	return __atomic_load_n(&st->requests[st->next & (st->s->slots - 1)].seq, __ATOMIC_ACQUIRE) == st->next + 1;
}

static uint64_t
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

/* Look for a request for spin_us; 1 if there is one. The clock is asked every 64 turns only. */
static int
spin(const struct state *st)
{
	uint64_t until = 0;

	for (unsigned turn = 1;; turn++) {
		if (published(st))
			return 1;
		vfun_relax();
		if (turn % 64 == 0) {
			uint64_t now = now_us();

			if (!until)
				until = now + st->s->spin_us;
			else if (now >= until)
				return 0;
		}
	}
}

static void
park(const struct state *st)
{
	static const struct timespec limit = { .tv_sec = SLEEP_MAX_S };
	uint32_t bell = __atomic_load_n(&st->out->bell, __ATOMIC_ACQUIRE);

	__atomic_store_n(&st->in->parked, 1, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	/* Whether it was woken, rung before it slept, or the time is over: what counts is the slot. */
	if (!published(st))
		syscall(SYS_futex, &st->out->bell, FUTEX_WAIT, bell, &limit, NULL, 0);
	__atomic_store_n(&st->in->parked, 0, __ATOMIC_RELAXED);
}

enum vfun_reason
serve_loop(const struct serve *s)
{
	struct state st = {
		.s = s,
		.out = s->out,
		.in = s->in,
		.requests = (const void *)((const uint8_t *)s->out + VFUN_PAGE),
		.answers = (void *)((uint8_t *)s->in + VFUN_PAGE),
		.out_arena = (const uint8_t *)s->out + VFUN_PAGE + vfun_ring_size(s->slots),
		.in_arena = (uint8_t *)s->in + VFUN_PAGE + vfun_ring_size(s->slots),
	};

	while (st.strikes < STRIKES) {
		if (published(&st))
			serve_slot(&st);
		else if (!spin(&st))
			park(&st);
	}
	return VFUN_R_CUT_OFF;
}
