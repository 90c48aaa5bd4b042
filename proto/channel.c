/* SPDX-License-Identifier: MIT
 *
 * channel.c - the client's side of the mapping: submit, ring, wait, take
 *
 * Theory of operation: vfun.h part 2. All access to the regions goes through load() and store(), which are plain memory
 * with the paths host and dax, and pread()/pwrite() with path copy. With copy a line doesn't appear at once on the
 * other side, so a request's seq is written by a second call after the rest, and an answer's line is read again after
 * its seq was seen.
 *
 * Waiting: spin for spin_ns, then park. On the host that is a futex on datain's bell; in a guest a read() of the bell
 * file, which the share answers when the service rings, and after 100 ms at the latest (a process that hangs in it
 * can't be killed). Each time a sleeper wakes it also looks whether the service is gone.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "client.h"

#define SLEEP_NS 100000000u
#define CLOCK_TURNS 128
#define HEADER offsetof(struct vfun_request, payload) /* bytes, of an answer as well */

static int
store(const struct region *r, uint64_t off, const void *data, uint64_t len)
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

static int
load(const struct region *r, uint64_t off, void *data, uint64_t len)
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
		return store(r, off, &value, sizeof(value));
	__atomic_store_n((uint32_t *)(void *)(r->map + off), value, __ATOMIC_RELEASE);
	return 0;
}

static int
load32(const struct region *r, uint64_t off, uint32_t *value)
{
	if (!r->map)
		return load(r, off, value, sizeof(*value));
	*value = __atomic_load_n((const uint32_t *)(const void *)(r->map + off), __ATOMIC_ACQUIRE);
	return 0;
}

static uint64_t
slot_at(const struct vfun *v, uint32_t position)
{
	return VFUN_PAGE + (uint64_t)(position & (v->grant.slots - 1u)) * VFUN_LINE;
}

/* Bulk data */

static uint64_t
arena_at(const struct vfun *v)
{
	return VFUN_PAGE + vfun_ring_size(v->grant.slots);
}

void *
vfun_out_arena(struct vfun *v)
{
	return v->out.map ? v->out.map + arena_at(v) : NULL;
}

const void *
vfun_in_arena(struct vfun *v)
{
	return v->in.map ? v->in.map + arena_at(v) : NULL;
}

int
vfun_put(struct vfun *v, uint64_t off, const void *data, uint64_t len)
{
	if (off > v->grant.out_arena || len > v->grant.out_arena - off)
		return -ERANGE;
	return store(&v->out, arena_at(v) + off, data, len);
}

int
vfun_fetch(struct vfun *v, uint64_t off, void *data, uint64_t len)
{
	if (off > v->grant.in_arena || len > v->grant.in_arena - off)
		return -ERANGE;
	return load(&v->in, arena_at(v) + off, data, len);
}

/* Submitting */

static int lost(struct vfun *v, int err);

/* The payload, then the header, whose 8 bytes hold the seq. In memory they are stored at once; by pwrite() they can't
 * be, so that the seq goes last, by itself. */
static int
publish(const struct region *out, uint64_t at, const struct vfun_request *r)
{
	uint64_t header;
	int e;

	if (!out->map) {
		e = store(out, at + sizeof(r->seq), (const char *)r + sizeof(r->seq), HEADER - sizeof(r->seq) + r->len);
		return e ? e : store(out, at, &r->seq, sizeof(r->seq));
	}
	for (unsigned i = 0; i < r->len / 8u; i++)
		((struct vfun_request *)(void *)(out->map + at))->payload.arg[i] = r->payload.arg[i];
	memcpy(&header, r, sizeof(header));
	__atomic_store_n((uint64_t *)(void *)(out->map + at), header, __ATOMIC_RELEASE);
	return 0;
}

int
vfun_submit(struct vfun *v, enum vfun_cmd cmd, const uint64_t *args, unsigned nargs, const struct vfun_bulk *bulk,
    uint32_t *ticket)
{
	struct vfun_request r; /* filled as far as it is used: this is the hot path */
	unsigned first = bulk ? sizeof(*bulk) / 8 : 0;
	uint8_t *busy = &v->busy[v->next & (v->grant.slots - 1u)];
	int e;

	if (nargs > VFUN_PAYLOAD / 8 - first)
		return -EINVAL;
	if (*busy)
		return -EAGAIN;
	r.seq = v->next + 1;
	r.cmd = (uint8_t)cmd;
	r.flags = bulk ? VFUN_SLOT_BULK : 0;
	r.len = (uint16_t)((first + nargs) * 8);
	if (bulk)
		memcpy(r.payload.bytes, bulk, sizeof(*bulk));
	for (unsigned i = 0; i < nargs; i++)
		r.payload.arg[first + i] = args[i];
	e = publish(&v->out, slot_at(v, v->next), &r);
	if (e)
		return lost(v, e);
	*busy = 1;
	*ticket = v->next++;
	return 0;
}

int
vfun_ring(struct vfun *v)
{
	uint32_t parked = 1;

	/* The other half of the pattern stands in serve.c: park(). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	/* With copy, asking costs as much as ringing. */
	if (v->in.map)
		parked = __atomic_load_n(
		    (const uint32_t *)(const void *)(v->in.map + offsetof(struct vfun_hdr, parked)), __ATOMIC_RELAXED);
	if (!parked)
		return 0;
	if (v->guest)
		return write(v->bell, "!", 1) == 1 ? 0 : -errno;
	__atomic_fetch_add((uint32_t *)(void *)(v->out.map + offsetof(struct vfun_hdr, bell)), 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, v->out.map + offsetof(struct vfun_hdr, bell), FUTEX_WAKE, 1, NULL, NULL, 0);
	return 0;
}

/* Taking */

static int
answered(const struct vfun *v, uint32_t ticket)
{
	uint32_t seq;
	int e = load32(&v->in, slot_at(v, ticket), &seq);

	return e ? e : seq == ticket + 1;
}

/* The answer's line, or what is used of it. */
static int
load_answer(const struct region *in, uint64_t at, struct vfun_answer *a)
{
	const struct vfun_answer *slot;
	uint64_t header;

	if (!in->map)
		return load(in, at, a, sizeof(*a));
	slot = (const void *)(in->map + at);
	header = __atomic_load_n((const uint64_t *)(const void *)slot, __ATOMIC_ACQUIRE);
	memcpy(a, &header, sizeof(header));
	for (unsigned i = 0; i < (a->len + 7u) / 8 && i < VFUN_PAYLOAD / 8; i++)
		a->payload.word[i] = slot->payload.word[i];
	return 0;
}

static int
take(struct vfun *v, uint32_t ticket, struct vfun_result *res)
{
	struct vfun_answer a;
	int e = load_answer(&v->in, slot_at(v, ticket), &a);

	if (e)
		return e;
	v->busy[ticket & (v->grant.slots - 1u)] = 0;
	if (a.len > VFUN_PAYLOAD || ((a.flags & VFUN_ANSWER_BULK || a.reason == VFUN_R_RESULT_SIZE) && a.len < 8))
		return client_fail(v, -EPROTO, VFUN_R_MALFORMED, "the service's answer breaks the protocol");
	res->reason = (enum vfun_reason)a.reason;
	res->bulk = a.flags & VFUN_ANSWER_BULK ? 1 : 0;
	res->len = a.len;
	for (unsigned i = 0; i < (a.len + 7u) / 8; i++)
		res->inline_word[i] = a.payload.word[i];
	if (res->bulk || a.reason == VFUN_R_RESULT_SIZE)
		res->len = a.payload.word[0];
	if (res->bulk && !a.reason && res->len > v->grant.in_arena)
		return client_fail(v, -EPROTO, VFUN_R_MALFORMED, "the service's answer breaks the protocol");
	return 0;
}

int
vfun_poll(struct vfun *v, uint32_t ticket, struct vfun_result *res)
{
	int r;

	if (!v->busy[ticket & (v->grant.slots - 1u)])
		return -EINVAL;
	r = answered(v, ticket);
	return r < 0 ? r : r ? take(v, ticket, res) : -EAGAIN;
}

/* Spin; 1 if the answer is there, 0 if not, or -errno. The clock is asked every CLOCK_TURNS turns only: a short call is
 * over before the first time, which matters where a clock costs more than a call (a guest under TCG). */
static int
spin(const struct vfun *v, uint32_t ticket, uint64_t timeout_ns)
{
	uint64_t end = 0;

	for (unsigned turn = 1;; turn++) {
		int r = answered(v, ticket);

		if (r || !v->in.map)
			return r;
		vfun_relax();
		if (turn % CLOCK_TURNS == 0) {
			uint64_t now = client_ns();

			if (!end)
				end = now + (v->spin_ns < timeout_ns ? v->spin_ns : timeout_ns);
			if (now >= end)
				return 0;
		}
	}
}

/* Is anybody there to answer? 0, or -ECONNRESET. */
static int
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
	if (reason)
		return client_fail(v, -ECONNRESET, VFUN_R_GONE, "the service has ended: see vfund's log");
	/* A window that was taken away reads as zeros, or as ones. */
	if (v->in.map &&
	    ((const volatile struct vfun_hdr *)(const volatile void *)v->in.map)->session != v->active.session)
		return client_fail(v, -ECONNRESET, VFUN_R_GONE, "the instance is gone: it was released");
	if (!v->guest && poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)))
		return client_fail(v, -ECONNRESET, VFUN_R_GONE, "vfund is gone");
	return 0;
}

/* With copy an instance that is gone shows as an error of pread() or pwrite(). */
static int
lost(struct vfun *v, int err)
{
	if (err != -EIO && err != -ENODEV && err != -ENOENT && err != -ESTALE)
		return err;
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

/* Announce the sleep, look again, sleep. 1 if the answer is there, 0, or -errno. */
static int
park(struct vfun *v, uint32_t ticket, uint64_t until)
{
	uint64_t now = client_ns();
	uint32_t bell = 0;
	int r = load32(&v->in, offsetof(struct vfun_hdr, bell), &bell);

	if (!r)
		r = store32(&v->out, offsetof(struct vfun_hdr, parked), 1);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!r)
		r = answered(v, ticket);
	if (!r && now < until)
		sleep_a_while(v, bell, until - now);
	if (store32(&v->out, offsetof(struct vfun_hdr, parked), 0))
		return -EIO;
	return r ? r : answered(v, ticket);
}

int
vfun_wait(struct vfun *v, uint32_t ticket, struct vfun_result *res, uint64_t timeout_ns)
{
	uint64_t now;
	uint64_t until;
	int r;

	if (!v->busy[ticket & (v->grant.slots - 1u)])
		return -EINVAL;
	r = vfun_ring(v);
	if (r)
		return client_fail(v, -ECONNRESET, VFUN_R_GONE, "the instance's bell is gone: %s", strerror(-r));
	r = spin(v, ticket, timeout_ns);
	if (r > 0)
		return take(v, ticket, res);
	if (r < 0)
		return lost(v, r);
	now = client_ns();
	until = timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
	while (!r) {
		r = gone(v);
		if (!r && client_ns() >= until)
			r = -ETIMEDOUT;
		if (!r)
			r = park(v, ticket, until);
	}
	return r < 0 ? lost(v, r) : take(v, ticket, res);
}

int
vfun_call(struct vfun *v, enum vfun_cmd cmd, const uint64_t *args, unsigned nargs, const struct vfun_bulk *bulk,
    struct vfun_result *res, uint64_t timeout_ns)
{
	uint32_t ticket;
	int r = vfun_submit(v, cmd, args, nargs, bulk, &ticket);

	return r ? r : vfun_wait(v, ticket, res, timeout_ns);
}
