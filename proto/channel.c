/* SPDX-License-Identifier: MIT
 *
 * channel.c - the client's side of the mapping: submit, ring, wait, take
 *
 * Theory of operation: vfun.h part 2. All access to the regions goes through region_load() and region_store(), which
 * are plain memory with all paths but copy, and pread()/pwrite() with path copy. With copy a line doesn't appear at
 * once on the other side, so a request's seq is written by a second call after the rest, and an answer's line is read
 * again after its seq was seen.
 *
 * With path net the regions are this process's own; what is submitted leaves it where others ring, and what arrived is
 * taken in where others wait (net.c).
 *
 * Waiting: spin (pace.h), then park. On the host that is a futex on datain's bell; in a guest a read() of the bell
 * file, which the share answers when the service rings, and after 100 ms at the latest (a process that hangs in it
 * can't be killed). Each time a sleeper wakes it also looks whether the service is gone. One function waits for the
 * answer of one position or for any of several: await().
 *
 * Checked by models: t/model/ring.pml, for lost wake-ups, deadlocks, and slots seen twice; t/model/end.pml, for what is
 * read of an instance that ends.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "net.h"

#define SLEEP_NS 100000000u
#define CALM 8					      /* pending requests for one turn more between two looks */
#define AHEAD 4					      /* answers */
#define COLD __attribute__((noinline, cold))	      /* not to become part of vfun_call() */
#define HEADER offsetof(struct vfun_request, payload) /* bytes, of an answer as well */

int
region_store(const struct region *r, uint64_t off, const void *data, uint64_t len)
{
	const char *p = data;

	if (r->map) {
		memcpy(r->map + off, data, len);
		return 0;
	}
	while (len) {
		ssize_t n = pwrite(r->fd, p, len < INT_MAX ? len : INT_MAX, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

int
region_load(const struct region *r, uint64_t off, void *data, uint64_t len)
{
	char *p = data;

	if (r->map) {
		memcpy(data, r->map + off, len);
		return 0;
	}
	while (len) {
		ssize_t n = pread(r->fd, p, len < INT_MAX ? len : INT_MAX, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

static int
store32(const struct region *r, uint64_t off, uint32_t value)
{
	if (!r->map)
		return region_store(r, off, &value, sizeof(value));
	__atomic_store_n((uint32_t *)(void *)(r->map + off), value, __ATOMIC_RELEASE);
	return 0;
}

static int
load32(const struct region *r, uint64_t off, uint32_t *value)
{
	if (!r->map)
		return region_load(r, off, value, sizeof(*value));
	*value = __atomic_load_n((const uint32_t *)(const void *)(r->map + off), __ATOMIC_ACQUIRE);
	return 0;
}

uint64_t
region_slot(const struct vfun *v, uint32_t position)
{
	return VFUN_PAGE + (uint64_t)(position & (v->grant.slots - 1u)) * VFUN_LINE;
}

static int lost(struct vfun *v, int err);
static int session_lasts(struct vfun *v);
static int gone(struct vfun *v);

/* Bulk data */

uint64_t
region_arena(const struct vfun *v)
{
	return VFUN_PAGE + vfun_ring_size(v->grant.slots);
}

void *
vfun_out_arena(struct vfun *v)
{
	return v->out.map && v->mine ? v->out.map + region_arena(v) : NULL;
}

const void *
vfun_in_arena(struct vfun *v)
{
	return v->in.map && v->mine ? v->in.map + region_arena(v) : NULL;
}

int
vfun_put(struct vfun *v, uint64_t off, const void *data, uint64_t len)
{
	int e;

	if (!v->mine)
		return client_foreign(v);
	if (off > v->grant.out_arena || len > v->grant.out_arena - off)
		return client_say(v, -ERANGE, "beyond the end of the arena for inputs");
	buffers_put(v, off, data, len);
	e = region_store(&v->out, region_arena(v) + off, data, len);
	return e ? lost(v, e) : 0;
}

int
vfun_fetch(struct vfun *v, uint64_t off, void *data, uint64_t len)
{
	int e;

	if (!v->mine)
		return client_foreign(v);
	if (off > v->grant.in_arena || len > v->grant.in_arena - off)
		return client_say(v, -ERANGE, "beyond the end of the arena for results");
	e = region_load(&v->in, region_arena(v) + off, data, len);
	return e ? lost(v, e) : session_lasts(v);
}

/* Submitting */

static int answered(const struct vfun *v, uint32_t ticket);

static uint8_t *
busy(struct vfun *v, uint32_t position)
{
	return &v->busy[position & (v->grant.slots - 1u)];
}

/* Is this the ticket of a request whose answer wasn't taken? Not that of an earlier one in the same slot. */
static int
pending(struct vfun *v, uint32_t ticket)
{
	return *busy(v, ticket) == SLOT_PENDING && v->next - 1 - ticket < v->grant.slots;
}

static COLD int
not_pending(struct vfun *v)
{
	return v->mine ? client_say(v, -EINVAL, "no call with this ticket is in flight") : client_foreign(v);
}

static COLD int
no_slot(struct vfun *v)
{
	if (!v->mine)
		return client_foreign(v);
	return client_say(v, -EAGAIN,
	    v->forgotten ? "a call that was given up hasn't ended yet"
			 : "as many calls are in flight as there are slots");
}

/* The answers that nobody will take: which of them are there? */
static COLD void
sweep(struct vfun *v)
{
	for (uint32_t p = v->next - v->grant.slots; v->forgotten && p != v->next; p++)
		if (*busy(v, p) == SLOT_FORGOTTEN && answered(v, p) > 0) {
			*busy(v, p) = SLOT_FREE;
			v->forgotten--;
		}
}

/* What a request that is submitted after a forgotten one needs: it must not begin before that one's end, which may
 * write into the same room. VFUN_SLOT_* flags, or -EAGAIN: this service knows no such order. */
static COLD int
after_forgotten(struct vfun *v)
{
	sweep(v);
	if (!v->forgotten)
		return 0;
	if (v->grant.features & VFUN_FEATURE_ORDERED)
		return VFUN_SLOT_ORDERED;
	return v->grant.workers <= 1 && v->grant.target != VFUN_TARGET_HARDWARE ? 0 : -EAGAIN;
}

/* The payload, then the head, at once. */
static void
publish(uint8_t *line, uint64_t head, const uint64_t *args, unsigned nargs, const struct vfun_bulk *bulk)
{
	volatile uint64_t *word = (volatile uint64_t *)(void *)line + 1;

	if (bulk) {
		*word++ = bulk->in_off;
		*word++ = bulk->in_len;
		*word++ = bulk->out_off;
		*word++ = bulk->out_len;
	}
	for (unsigned i = 0; i < nargs; i++)
		word[i] = args[i];
	__atomic_store_n((uint64_t *)(void *)line, head, __ATOMIC_RELEASE);
}

/* By pwrite() they can't be stored at once, so that the seq goes last, by itself. */
static COLD int
publish_copy(
    const struct region *out, uint64_t at, uint64_t head, const uint64_t *args, unsigned nargs, const void *bulk)
{
	struct vfun_request r;
	size_t n = bulk ? sizeof(struct vfun_bulk) : 0;
	int e;

	memcpy(&r, &head, sizeof(head));
	if (bulk)
		memcpy(r.payload.bytes, bulk, n);
	if (nargs)
		memcpy(r.payload.bytes + n, args, nargs * sizeof(*args));
	e = region_store(out, at + sizeof(r.seq), (const char *)&r + sizeof(r.seq), HEADER - sizeof(r.seq) + r.len);
	return e ? e : region_store(out, at, &r.seq, sizeof(r.seq));
}

int
vfun_submit(struct vfun *v, enum vfun_cmd cmd, const uint64_t *args, unsigned nargs, const struct vfun_bulk *bulk,
    uint32_t *ticket)
{
	unsigned words = nargs + (bulk ? sizeof(*bulk) / 8 : 0);
	uint64_t at = region_slot(v, v->next);
	uint64_t head;
	int flags = 0;
	int e;

	if (nargs > VFUN_PAYLOAD / 8 || words > VFUN_PAYLOAD / 8) {
		(void)client_fail(v, -EINVAL, VFUN_OK, "more arguments than fit a request");
		return -EINVAL;
	}
	if (__builtin_expect(v->forgotten != 0, 0))
		flags = after_forgotten(v);
	if (flags < 0 || *busy(v, v->next) != SLOT_FREE)
		return no_slot(v);
	head = vfun_request_head(v->next + 1, cmd, (bulk ? VFUN_SLOT_BULK : 0u) | (unsigned)flags, words * 8, v->limit);
	if (v->out.map) {
		publish(v->out.map + at, head, args, nargs, bulk);
	} else {
		e = bulk ? buffers_send(v, bulk) : 0;
		if (!e)
			e = publish_copy(&v->out, at, head, args, nargs, bulk);
		if (e)
			return lost(v, e);
	}
	*busy(v, v->next) = SLOT_PENDING;
	v->unrung = 1;
	*ticket = v->next++;
	return 0;
}

/* Where we are, for the service's pace.h. A guest's processors have other numbers. */
static void
show_cpu(const struct vfun *v)
{
	if (!v->guest)
		__atomic_store_n(
		    (uint32_t *)(void *)(v->out.map + offsetof(struct vfun_hdr, cpu)), pace_cpu(), __ATOMIC_RELAXED);
}

static COLD int
ring_bell(struct vfun *v)
{
	uint32_t *bell;

	v->pace.woke = 1;
	if (v->guest)
		return write(v->bell, "!", 1) == 1
			   ? 0
			   : client_fail(v, -errno, VFUN_R_GONE, "the instance's bell is gone: %s", strerror(errno));
	show_cpu(v);
	bell = (uint32_t *)(void *)(v->out.map + offsetof(struct vfun_hdr, bell));
	__atomic_fetch_add(bell, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	return 0;
}

int
vfun_ring(struct vfun *v)
{
	if (!v->mine)
		return client_foreign(v);
	v->unrung = 0;
	if (v->net)
		return net_flush(v);
	/* The other half of the pattern stands in serve.c: park(). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	/* With copy, asking costs as much as ringing. */
	if (v->in.map &&
	    !__atomic_load_n(
		(const uint32_t *)(const void *)(v->in.map + offsetof(struct vfun_hdr, parked)), __ATOMIC_RELAXED))
		return 0;
	return ring_bell(v);
}

/* Taking */

static int
answered(const struct vfun *v, uint32_t ticket)
{
	uint32_t seq;
	int e = load32(&v->in, region_slot(v, ticket), &seq);

	return e ? e : seq == ticket + 1;
}

/* The answer's line: in the mapping itself, or a copy of it. NULL and *err. */
static const volatile uint64_t *
answer_line(const struct vfun *v, uint32_t ticket, struct vfun_answer *copy, int *err)
{
	uint64_t at = region_slot(v, ticket);

	*err = 0;
	if (v->in.map)
		return (const volatile uint64_t *)(const volatile void *)(v->in.map + at);
	*err = region_load(&v->in, at, copy, sizeof(*copy));
	return *err ? NULL : (const volatile uint64_t *)(const volatile void *)copy;
}

/* A call that failed: what the service says about it, for vfun_text(). */
static COLD void
refused(struct vfun *v, const struct vfun_result *res)
{
	unsigned n = res->bulk ? 0 : (unsigned)res->len;

	if (res->reason == VFUN_R_RESULT_SIZE && res->len) {
		client_fail(v, 0, res->reason, "the result needs %llu bytes of room", (unsigned long long)res->len);
		return;
	}
	if (!n) {
		client_fail(v, 0, res->reason, "%s", vfun_reason_name(res->reason));
		return;
	}
	client_fail(v, 0, res->reason, "%.*s", (int)n, (const char *)res->inline_result);
	for (char *s = v->text; *s; s++)
		if (*s < ' ' || *s > '~')
			*s = '?';
}

/* Each word of the line is read once. */
static int
take(struct vfun *v, uint32_t ticket, struct vfun_result *res)
{
	struct vfun_answer copy;
	int e;
	const volatile uint64_t *line = answer_line(v, ticket, &copy, &e);
	uint64_t head;
	unsigned len;
	int in_word; /* the first word says how long the result is, or would be */

	if (!line)
		return lost(v, e);
	head = __atomic_load_n(line, __ATOMIC_ACQUIRE);
	len = (unsigned)(head >> 56);
	res->reason = (enum vfun_reason)(head >> 48 & 0xff);
	res->bulk = head >> 40 & VFUN_ANSWER_BULK ? 1 : 0;
	res->len = len;
	in_word = res->bulk || res->reason == VFUN_R_RESULT_SIZE;
	*busy(v, ticket) = SLOT_FREE;
	if (len > VFUN_PAYLOAD || (in_word && len < sizeof(uint64_t)))
		return client_fail(v, -EPROTO, VFUN_R_MALFORMED, "the service's answer breaks the protocol");
	for (unsigned i = 0; i < (len + 7) / 8; i++)
		res->inline_word[i] = line[1 + i];
	/* Memory of an instance that ends is given back: the line then is zeros, from one moment to the next. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if ((uint32_t)line[0] != ticket + 1) {
		e = gone(v);
		return e ? e : client_fail(v, -EPROTO, VFUN_R_MALFORMED, "an answer has vanished");
	}
	if (in_word)
		res->len = res->inline_word[0];
	if (res->bulk && !res->reason && res->len > v->grant.in_arena)
		return client_fail(v, -EPROTO, VFUN_R_MALFORMED, "the service's answer breaks the protocol");
	if (__builtin_expect(res->reason != VFUN_OK, 0))
		refused(v, res);
	else if (res->bulk && v->room.shadow)
		e = buffers_bring(v, ticket, res->len);
	return e ? lost(v, e) : 0;
}

int
vfun_poll(struct vfun *v, uint32_t ticket, struct vfun_result *res)
{
	int e, r;

	if (!pending(v, ticket))
		return not_pending(v);
	e = v->net ? net_receive(v) : 0;
	r = answered(v, ticket);
	if (r)
		return r < 0 ? lost(v, r) : take(v, ticket, res);
	return e ? e : client_say(v, -EAGAIN, "the answer isn't there yet");
}

/* Waiting */

/* What is waited for: the answer of any request from position `first` on, before `end`, that is pending. */
struct awaited {
	struct vfun *v;
	uint32_t first;
	uint32_t end;
	uint32_t found;
};

/* 1: there is one, `found`; 0 or -errno. A worker answers its requests in order, so only the first one of each is
 * looked at: reading the lines of the others would take them away from the one who is to write them. */
static int
look(void *arg)
{
	struct awaited *w = arg;
	const uint32_t workers = w->v->grant.workers; /* a power of two; an old vfund doesn't say: 0 */
	const uint32_t all = workers < 32 ? (1u << workers) - 1 : 0;
	uint32_t seen = 0;

	for (uint32_t p = w->first; p != w->end && (seen != all || !all); p++) {
		const uint32_t bit = all ? 1u << (p & (workers - 1)) : 0;
		int r;

		if (*busy(w->v, p) != SLOT_PENDING || (seen & bit))
			continue;
		seen |= bit;
		w->found = p;
		r = answered(w->v, p);
		if (r)
			return r;
	}
	for (uint32_t n = (w->end - w->first) / CALM; n > 0; n--)
		vfun_relax();
	return 0;
}

/* A window that was taken away reads as zeros, or as ones: was it there up to now? 0, or -ECONNRESET. */
static COLD int
session_lasts(struct vfun *v)
{
	const volatile struct vfun_hdr *h = (const volatile void *)v->in.map;

	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return !h || h->session == v->active.session
		   ? 0
		   : client_fail(v, -ECONNRESET, VFUN_R_GONE, "the instance is gone: its memory was taken away");
}

/* Is anybody there to answer? 0, or -ECONNRESET. */
static COLD int
gone(struct vfun *v)
{
	struct pollfd p = { .fd = v->ctl };
	uint32_t reason;
	int e = load32(&v->in, offsetof(struct vfun_hdr, gone), &reason);

	if (e)
		return client_fail(v, -ECONNRESET, VFUN_R_GONE, "the instance is gone: %s", strerror(-e));
	if (reason == VFUN_R_CUT_OFF)
		return client_fail(
		    v, -ECONNRESET, VFUN_R_CUT_OFF, "the service has cut this client off: too many bad requests");
	if (reason == VFUN_R_SLOT_SEQ)
		return client_fail(v, -ECONNRESET, VFUN_R_SLOT_SEQ,
		    "a request came out of turn: its position, or the one before it, was skipped or used too early");
	if (reason == VFUN_R_LATE)
		return client_fail(v, -ECONNRESET, VFUN_R_LATE, "the call took longer than vfun.conf allows");
	if (reason == VFUN_R_DEVICE)
		return client_fail(v, -ECONNRESET, VFUN_R_DEVICE, "the device failed: see vfund's log");
	if (reason)
		return client_fail(v, -ECONNRESET, VFUN_R_GONE, "the service has ended: %s", client_why(v));
	if (session_lasts(v))
		return -ECONNRESET;
	if (!v->guest && !v->net && poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)))
		return client_fail(v, -ECONNRESET, VFUN_R_GONE, "vfund is gone");
	return 0;
}

/* What a wait, or a copy, failed with; other functions have said already what it is. With copy an instance that is gone
 * shows as an error of pread() or pwrite(). */
static COLD int
lost(struct vfun *v, int err)
{
	if (!err || err == -ECONNRESET || err == -EPROTO)
		return err;
	if (err == -ETIMEDOUT)
		return client_say(v, err, "no answer in time");
	if (err != -EIO && err != -ENODEV && err != -ENOENT && err != -ESTALE)
		return client_fail(v, err, VFUN_OK, "the instance's memory: %s", strerror(-err));
	return client_fail(v, -ECONNRESET, VFUN_R_GONE, "the instance is gone: %s", strerror(-err));
}

static void
sleep_a_while(struct vfun *v, uint32_t bell, uint64_t ns)
{
	struct timespec ts = { .tv_nsec = (long)(ns < SLEEP_NS ? ns : SLEEP_NS - 1) };
	uint64_t count;

	if (!v->guest) {
		syscall(SYS_futex, v->in.map + offsetof(struct vfun_hdr, bell), FUTEX_WAIT, bell, &ts, NULL, 0);
		return;
	}
	/* EAGAIN: the share let it wait as long as it does. Immediately refused sleeps (too many sleepers) must not
	 * spin. */
	if (read(v->bell, &count, sizeof(count)) < 0) {
		ts.tv_nsec = 200000;
		nanosleep(&ts, NULL);
	}
}

/* One worker answers in order: let it not ring for earlier answers than that which is awaited. */
static int
say_until(const struct awaited *w)
{
	struct vfun *v = w->v;
	const uint32_t until = v->grant.workers == 1 && w->end == w->first + 1 ? w->end : 0;

	if (until == v->until)
		return 0;
	v->until = until;
	return store32(&v->out, offsetof(struct vfun_hdr, until), until);
}

/* Has the service ended? Asked after the bell was read: the end rings it. In a guest the sleep itself ends at once. */
static int
ended(const struct vfun *v)
{
	uint32_t reason;

	return !v->guest && (load32(&v->in, offsetof(struct vfun_hdr, gone), &reason) || reason);
}

/* Announce the sleep, look again, sleep. As look(). */
static int
park(struct awaited *w, uint64_t until)
{
	struct vfun *v = w->v;
	uint64_t now = client_ns();
	uint32_t bell = 0;
	int r = load32(&v->in, offsetof(struct vfun_hdr, bell), &bell);

	if (!r)
		r = say_until(w);
	if (!r)
		r = store32(&v->out, offsetof(struct vfun_hdr, parked), 1);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!r)
		r = look(w);
	show_cpu(v);
	if (!r && now < until && !ended(v))
		sleep_a_while(v, bell, until - now);
	if (store32(&v->out, offsetof(struct vfun_hdr, parked), 0))
		return -EIO;
	return r ? r : look(w);
}

/* Nobody will answer any more: but what was answered before that is valid, and may have come since the last look. */
static COLD int
last_look(struct awaited *w, int err)
{
	int r = look(w);

	return r > 0 ? r : err;
}

/* Path net: the answer arrives, or the news that none will. */
static COLD int
wait_net(struct awaited *w, uint64_t timeout_ns)
{
	struct vfun *v = w->v;
	uint64_t now = client_ns();
	uint64_t until = timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
	int e = 0;

	for (;;) {
		int r = look(w);

		if (r)
			return r;
		if (!e)
			e = gone(v);
		if (e)
			return last_look(w, e);
		now = client_ns();
		if (now >= until)
			return -ETIMEDOUT;
		net_sleep(v, until - now);
		e = net_receive(v);
	}
}

static COLD int
park_until(struct awaited *w, uint64_t timeout_ns)
{
	struct vfun *v = w->v;
	uint64_t now = client_ns();
	uint64_t until = timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
	int r = 0;

	while (!r) {
		r = gone(v);
		if (r)
			r = last_look(w, r);
		else if (client_ns() >= until)
			r = -ETIMEDOUT;
		else
			r = park(w, until);
	}
	if (v->in.map)
		pace_done(&v->pace);
	return r;
}

static COLD void
disarm(struct vfun *v)
{
	v->armed = 0;
	(void)store32(&v->out, offsetof(struct vfun_hdr, parked), 0);
}

/* The service can't be rung: it, or the way to it, has gone. */
static COLD int
no_bell(struct awaited *w, int err)
{
	struct vfun *v = w->v;

	err = v->net ? err : gone(v);
	if (!err)
		err = client_fail(v, -ECONNRESET, VFUN_R_GONE, "the instance's bell is gone");
	err = last_look(w, err);
	return err > 0 ? 0 : err;
}

/* Ring if need be, then wait for one of the answers: 0 and its `found`, or -errno. */
static int
await(struct awaited *w, uint64_t timeout_ns)
{
	struct vfun *v = w->v;
	int r = v->unrung ? vfun_ring(v) : 0;

	if (__builtin_expect(v->armed, 0))
		disarm(v);
	if (r)
		return no_bell(w, r);
	/* With copy each look is a system call. */
	r = v->net ? wait_net(w, timeout_ns) : v->in.map ? pace_spin(&v->pace, timeout_ns, 1, look, w) : look(w);
	if (!r)
		r = park_until(w, timeout_ns);
	return r < 0 ? lost(v, r) : 0;
}

int
vfun_wait(struct vfun *v, uint32_t ticket, struct vfun_result *res, uint64_t timeout_ns)
{
	struct awaited w = { .v = v, .first = ticket, .end = ticket + 1 };
	int r;

	if (!pending(v, ticket))
		return not_pending(v);
	r = await(&w, timeout_ns);
	return r ? r : take(v, ticket, res);
}

/* The position of the oldest request that is pending; none: v->next. */
static uint32_t
oldest(struct vfun *v)
{
	if (v->next - v->oldest > v->grant.slots)
		v->oldest = v->next - v->grant.slots;
	while (v->oldest != v->next && *busy(v, v->oldest) != SLOT_PENDING)
		v->oldest++;
	return v->oldest;
}

int
vfun_reap(struct vfun *v, struct vfun_done *done, unsigned max, uint64_t timeout_ns)
{
	struct awaited w = { .v = v, .first = oldest(v), .end = v->next };
	unsigned n = 0;
	int r;

	if (w.first == w.end || !max)
		return v->mine ? 0 : client_foreign(v);
	r = await(&w, timeout_ns);
	while (!r && n < max) {
		if (v->in.map)
			__builtin_prefetch(v->in.map + region_slot(v, w.found + AHEAD));
		r = take(v, w.found, &done[n].result);
		if (r)
			break;
		done[n++].ticket = w.found;
		w.first = w.found + 1;
		if (look(&w) <= 0)
			break;
	}
	return n ? (int)n : lost(v, r);
}

/* Wait for the n-th of the requests that are pending, or the last of them. */
static int
await_nth(struct vfun *v, unsigned n, uint64_t timeout_ns)
{
	struct awaited w = { .v = v };

	for (uint32_t p = oldest(v); n && p != v->next; p++)
		if (*busy(v, p) == SLOT_PENDING) {
			w.first = p;
			w.end = p + 1;
			n--;
		}
	return w.first == w.end ? 0 : await(&w, timeout_ns);
}

int
vfun_gather(struct vfun *v, struct vfun_done *done, unsigned min, unsigned max, uint64_t timeout_ns)
{
	const uint64_t began = client_ns();
	uint64_t left = timeout_ns;
	unsigned n = 0;
	int r;

	/* One worker: the n-th is the last that comes. */
	if (v->grant.workers == 1 && await_nth(v, min < max ? min : max, timeout_ns))
		left = 0;
	do {
		uint64_t passed = client_ns() - began;

		r = vfun_reap(v, done + n, max - n, passed < left ? left - passed : 0);
		if (r > 0)
			n += (unsigned)r;
	} while (r > 0 && n < min && n < max);
	return n ? (int)n : r;
}

/* Without the call, whose ticket nobody has: its slot must not be lost. */
static COLD int
give_up(struct vfun *v, uint32_t ticket, int err)
{
	if (err == -ETIMEDOUT)
		(void)vfun_forget(v, ticket);
	return lost(v, err);
}

/* Every slot holds a call that was given up, or one that follows it must wait for its end: as long as there is time. */
static COLD int
submit_after(struct vfun *v, enum vfun_cmd cmd, const uint64_t *args, unsigned nargs, const struct vfun_bulk *bulk,
    uint32_t *ticket, uint64_t timeout_ns)
{
	const uint64_t began = client_ns();
	const struct timespec nap = { .tv_nsec = 500000 };
	int r;

	while ((r = vfun_submit(v, cmd, args, nargs, bulk, ticket)) == -EAGAIN && v->forgotten) {
		int e = v->net ? net_receive(v) : gone(v);

		if (e)
			return e;
		if (client_ns() - began >= timeout_ns)
			return client_say(
			    v, -ETIMEDOUT, "no answer in time: a call that was given up hasn't ended yet");
		nanosleep(&nap, NULL);
	}
	return r;
}

/* All that happens on the way of a call is inlined: less for a processor, and half the time where one is emulated. */
__attribute__((flatten)) int
vfun_call(struct vfun *v, enum vfun_cmd cmd, const uint64_t *args, unsigned nargs, const struct vfun_bulk *bulk,
    struct vfun_result *res, uint64_t timeout_ns)
{
	uint32_t ticket = 0;
	int r = vfun_submit(v, cmd, args, nargs, bulk, &ticket);

	if (__builtin_expect(r == -EAGAIN, 0))
		r = submit_after(v, cmd, args, nargs, bulk, &ticket, timeout_ns);
	if (__builtin_expect(r, 0))
		return r;
	r = vfun_wait(v, ticket, res, timeout_ns);
	return __builtin_expect(!r, 1) ? 0 : give_up(v, ticket, r);
}

/* Calls that aren't wanted any more, or not for so long */

int
vfun_limit(struct vfun *v, uint64_t ns)
{
	if (!v->mine)
		return client_foreign(v);
	if (!(v->grant.features & VFUN_FEATURE_LIMIT))
		return client_fail(v, -EOPNOTSUPP, VFUN_OK, "this service has no limits of single calls");
	v->limit = vfun_limit_of(ns / 1000 + (ns % 1000 != 0));
	return 0;
}

int
vfun_cancel(struct vfun *v, uint32_t ticket)
{
	uint64_t at = offsetof(struct vfun_hdr, cancel) + (ticket & (v->grant.slots - 1u)) * sizeof(uint32_t);
	int e;

	if (!pending(v, ticket))
		return not_pending(v);
	if (!(v->grant.features & VFUN_FEATURE_CANCEL))
		return client_fail(v, -EOPNOTSUPP, VFUN_OK, "this service can't cancel calls");
	if (v->net)
		return net_cancel(v, ticket + 1);
	e = store32(&v->out, at, ticket + 1);
	if (!e)
		e = store32(&v->out, offsetof(struct vfun_hdr, cancels), 1);
	return e ? lost(v, e) : 0;
}

int
vfun_forget(struct vfun *v, uint32_t ticket)
{
	if (!pending(v, ticket))
		return not_pending(v);
	if (v->grant.features & VFUN_FEATURE_CANCEL)
		(void)vfun_cancel(v, ticket);
	*busy(v, ticket) = SLOT_FORGOTTEN;
	v->forgotten++;
	return 0;
}

/* Waiting with others: the service's eventfd, and the connection, which tells of the end */

int
client_pollable(struct vfun *v)
{
	struct epoll_event ev = { .events = EPOLLIN };

	v->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (v->epoll < 0 || epoll_ctl(v->epoll, EPOLL_CTL_ADD, v->event, &ev) < 0 ||
	    epoll_ctl(v->epoll, EPOLL_CTL_ADD, v->ctl, &ev) < 0)
		return client_fail(v, -errno, VFUN_OK, "vfun_fd(): %s", strerror(errno));
	return 0;
}

int
vfun_fd(struct vfun *v)
{
	if (!v->mine)
		return client_foreign(v);
	return v->epoll >= 0 ? v->epoll
			     : client_fail(v, -EOPNOTSUPP, VFUN_OK,
				   "vfun_fd() is for instances on the host that were opened with pollable = 1");
}

int
vfun_arm(struct vfun *v)
{
	struct awaited w = { .v = v, .first = oldest(v), .end = v->next };
	struct vfun_msg old;
	uint64_t count;
	int r = vfun_fd(v);

	if (r < 0)
		return r;
	r = v->unrung ? vfun_ring(v) : 0;
	/* What is in there is older than the look that follows. */
	while (read(v->event, &count, sizeof(count)) > 0 || recv(v->ctl, &old, sizeof(old), MSG_DONTWAIT) > 0)
		;
	v->until = 0;
	if (!r)
		r = store32(&v->out, offsetof(struct vfun_hdr, until), 0);
	if (!r)
		r = store32(&v->out, offsetof(struct vfun_hdr, parked), 1);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	v->armed = 1;
	if (!r)
		r = look(&w);
	if (!r)
		r = gone(v);
	return r < 0 ? last_look(&w, r) : r;
}
