/* SPDX-License-Identifier: MIT
 *
 * calls.c - an instance's regions: submit requests, take answers, wait
 *
 * This process is the instance's client in the place of a remote program. A request goes into dataout's ring as it
 * came: whether it makes sense is for the service to say. Looked at are only its position, which must be the next one
 * and its slot free, and where its result will be.
 *
 * datain is written by a service, which a client may have taken over: a slot is copied once, its lengths are checked in
 * the copy, and bulk data is sent only from the room that the request named.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../common/log.h"
#include "net.h"

#define SPIN_TURNS 20 /* between two looks at the descriptors */

static struct vfun_hdr *
header(uint8_t *region)
{
	return (struct vfun_hdr *)(void *)region;
}

static uint64_t
slot_at(const struct calls *k, uint32_t position)
{
	return VFUN_PAGE + (uint64_t)(position & (k->slots - 1)) * VFUN_LINE;
}

static uint64_t
arena_at(const struct calls *k)
{
	return VFUN_PAGE + vfun_ring_size(k->slots);
}

static int
inside(uint64_t off, uint64_t len, uint64_t size)
{
	return off <= size && len <= size - off;
}

/* ---- beginning and end ---- */

/* Its only purpose is to wake this process. */
static void
on_ring(struct loop_src *src, uint32_t events)
{
	uint64_t count;

	(void)events;
	if (read(src->fd, &count, sizeof(count)) < 0)
		return;
}

static uint8_t *
map(int fd, uint64_t size)
{
	struct stat st;
	void *p;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != size)
		return NULL;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

int
calls_attach(struct conn *c, const struct keep_add *add, const int fds[3])
{
	struct calls *k = &c->calls;

	k->slots = c->grant.slots;
	k->out_arena = c->grant.out_arena;
	k->in_arena = c->grant.in_arena;
	k->features = c->grant.features;
	k->out_size = vfun_region_size(k->slots, k->out_arena);
	k->in_size = vfun_region_size(k->slots, k->in_arena);
	if (add->out_size != k->out_size || add->in_size != k->in_size)
		return -EPROTO;
	k->next = k->oldest = 0;
	memset(k->busy, 0, sizeof(k->busy));
	k->set = (struct room){ 0, 0 };
	k->out = map(fds[0], k->out_size);
	k->in = map(fds[1], k->in_size);
	k->ring = (struct loop_src){ .fd = fds[2], .fn = on_ring };
	k->id = k->last = add->id;
	k->ending = 0;
	if (k->out && k->in && loop_add(&net.loop, &k->ring, EPOLLIN) == 0)
		return 0;
	k->ring.fd = -1; /* still the caller's */
	calls_detach(c);
	return -ENOMEM;
}

static void
landed(struct calls *k)
{
	net.flying--;
	if (--k->flying)
		return;
	net.busy[k->busy_at] = net.busy[--net.nbusy];
	net.busy[k->busy_at]->calls.busy_at = k->busy_at;
}

void
calls_detach(struct conn *c)
{
	struct calls *k = &c->calls;

	if (!k->id)
		return;
	while (k->flying)
		landed(k);
	if (k->ring.fd >= 0) {
		loop_del(&net.loop, &k->ring);
		close(k->ring.fd);
		k->ring.fd = -1;
	}
	if (k->out)
		munmap(k->out, k->out_size);
	if (k->in)
		munmap(k->in, k->in_size);
	k->out = k->in = NULL;
	k->id = 0;
	c->in.bulk = NULL; /* what is still coming goes nowhere */
}

/* ---- requests ---- */

int
calls_place(struct conn *c, const struct vfun_net_frame *f, uint8_t **to)
{
	const struct calls *k = &c->calls;

	if (!inside(f->off, f->len, k->out_arena))
		return -EPROTO;
	/* Without an instance, which may have ended while this was on its way: nowhere. */
	*to = k->id ? k->out + arena_at(k) + f->off : NULL;
	return 0;
}

/* Will the service take it for well-formed (serve.c: check())? */
static int
well_formed(const struct calls *k, const struct vfun_request *r, struct vfun_bulk *b)
{
	unsigned flags = VFUN_SLOT_BULK | VFUN_SLOT_LONG | (k->features & VFUN_FEATURE_ORDERED ? VFUN_SLOT_ORDERED : 0);

	if (r->flags & ~flags || r->len > VFUN_PAYLOAD || r->len % 8 ||
	    (r->limit && !(k->features & VFUN_FEATURE_LIMIT)))
		return 0;
	memset(b, 0, sizeof(*b));
	if (!(r->flags & VFUN_SLOT_BULK))
		return 1;
	memcpy(b, r->payload.bytes, sizeof(*b));
	return r->len >= sizeof(*b) && inside(b->in_off, b->in_len, k->out_arena) &&
	       inside(b->out_off, b->out_len, k->in_arena);
}

/* The room for the result of this request, which may be that of the last SET. */
static struct room
room_of(struct calls *k, const struct vfun_request *r)
{
	struct room own = { 0, 0 };
	struct vfun_bulk b;

	if (!well_formed(k, r, &b))
		return own;
	own = (struct room){ b.out_off, b.out_len };
	if (r->cmd == VFUN_CMD_RST || (r->cmd == VFUN_CMD_SET && r->len))
		k->set = r->cmd == VFUN_CMD_SET ? own : (struct room){ 0, 0 };
	return r->cmd == VFUN_CMD_GET && !r->len ? k->set : own;
}

/* The payload, then the header with the seq. */
static void
publish(const struct calls *k, const struct vfun_request *r)
{
	struct vfun_request *slot = (void *)(k->out + slot_at(k, k->next));
	uint64_t head;

	memcpy(slot->payload.bytes, r->payload.bytes, sizeof(slot->payload));
	memcpy(&head, r, sizeof(head));
	__atomic_store_n((uint64_t *)(void *)slot, head, __ATOMIC_RELEASE);
}

/* Wake the service if it sleeps (the other half: serve.c, park()). */
static void
ring(const struct calls *k)
{
	uint32_t *bell = &header(k->out)->bell;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&header(k->in)->parked, __ATOMIC_RELAXED))
		return;
	__atomic_fetch_add(bell, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

int
calls_cancel(struct conn *c, uint32_t seq)
{
	struct calls *k = &c->calls;
	struct vfun_hdr *h = k->id ? header(k->out) : NULL;

	if (!(k->features & VFUN_FEATURE_CANCEL))
		return -EPROTO;
	if (!h)
		return 0; /* it has ended while this was on its way */
	__atomic_store_n(&h->cancel[(seq - 1) & (k->slots - 1)], seq, __ATOMIC_RELAXED);
	__atomic_store_n(&h->cancels, 1, __ATOMIC_RELEASE);
	return 0;
}

int
calls_submit(struct conn *c, const struct vfun_request *r)
{
	struct calls *k = &c->calls;
	uint32_t s = k->next & (k->slots - 1);

	if (!k->id)
		return k->slots ? 0 : -EPROTO;
	if (r->seq != k->next + 1 || k->busy[s])
		return -EPROTO;
	k->room[s] = room_of(k, r);
	k->busy[s] = 1;
	publish(k, r);
	k->next++;
	if (!k->flying++) {
		k->busy_at = net.nbusy;
		net.busy[net.nbusy++] = c;
	}
	net.flying++;
	net.moved = 1;
	ring(k);
	return 0;
}

/* ---- answers ---- */

static int
answered(const struct calls *k, uint32_t position)
{
	const uint32_t *seq = (const void *)(k->in + slot_at(k, position));

	return k->busy[position & (k->slots - 1)] && __atomic_load_n(seq, __ATOMIC_ACQUIRE) == position + 1;
}

/* The answer of `position` goes out: 1, 0 if there is no room for it now or it has vanished, or -errno. */
static int
take(struct conn *c, uint32_t position)
{
	struct calls *k = &c->calls;
	const volatile uint64_t *slot = (const volatile uint64_t *)(const void *)(k->in + slot_at(k, position));
	struct room room = k->room[position & (k->slots - 1)];
	struct vfun_net_frame f = net_frame(VFUN_NET_ANSWER, 0, 0);
	struct vfun_answer a;
	uint64_t words[VFUN_LINE / 8];

	for (unsigned i = 0; i < VFUN_LINE / 8; i++)
		words[i] = slot[i];
	memcpy(&a, words, sizeof(a));
	/* What can't be is a service that was taken over. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (a.seq != position + 1 || (uint32_t)slot[0] != position + 1)
		return 0;
	if (a.len > VFUN_PAYLOAD)
		return -EPROTO;
	if (a.flags & VFUN_ANSWER_BULK && !a.reason) {
		if (a.len < 8 || a.payload.word[0] > room.len)
			return -EPROTO;
		f.off = room.off;
		f.len = a.payload.word[0];
	}
	if (!conn_put(c, &f, &a, f.len ? k->in + arena_at(k) + f.off : NULL))
		return 0;
	k->busy[position & (k->slots - 1)] = 0;
	landed(k);
	return 1;
}

static int
poll_one(struct conn *c)
{
	struct calls *k = &c->calls;
	int n = 0;

	for (uint32_t p = k->oldest; k->flying && p != k->next; p++) {
		int r;

		if (!answered(k, p))
			continue;
		r = take(c, p);
		if (r < 0) {
			(void)conn_farewell(c, VFUN_R_FUNCTION, "the service's answer breaks the protocol");
			return n;
		}
		if (!r)
			break;
		n++;
	}
	while (k->oldest != k->next && !k->busy[k->oldest & (k->slots - 1)])
		k->oldest++;
	if (n)
		conn_flush(c);
	return n;
}

/* Is there an answer that could be taken? */
static int
ready(const struct conn *c)
{
	const struct calls *k = &c->calls;

	if (!conn_has_room(c))
		return 0;
	for (uint32_t p = k->oldest; p != k->next; p++)
		if (answered(k, p))
			return 1;
	return 0;
}

int
calls_ended(const struct conn *c)
{
	return c->calls.id && (c->calls.ending || __atomic_load_n(&header(c->calls.in)->gone, __ATOMIC_RELAXED));
}

/* Nothing of datain changes any more: what it doesn't hold now will never come. */
static int
drained(struct conn *c)
{
	struct calls *k = &c->calls;

	(void)poll_one(c);
	if (c->state != CONN_OPEN || c->tail_left)
		return 0;
	for (uint32_t p = k->oldest; p != k->next; p++)
		if (answered(k, p))
			return 0;
	return 1;
}

void
calls_gone(struct conn *c)
{
	struct vfun_net_frame f = net_frame(VFUN_NET_GONE, 0, 0);
	struct vfun_net_gone gone = { .reason = __atomic_load_n(&header(c->calls.in)->gone, __ATOMIC_RELAXED) };

	c->calls.ending = 1;
	if (!gone.reason)
		gone.reason = VFUN_R_GONE;
	if (!drained(c) || !conn_put(c, &f, &gone, NULL))
		return; /* again when there is room */
	c->calls.over = c->calls.id;
	calls_detach(c);
	conn_flush(c);
	ask_flush();
}

int
calls_poll(void)
{
	int n = 0;

	/* From the end: what is taken off the list is replaced by what has been looked at. */
	for (unsigned i = net.nbusy; i-- > 0;)
		if (i < net.nbusy && ready(net.busy[i]))
			n += poll_one(net.busy[i]);
	return n;
}

static int
any_ready(void)
{
	for (unsigned i = 0; i < net.nbusy; i++)
		if (ready(net.busy[i]))
			return 1;
	return 0;
}

int
calls_spin(void)
{
	for (unsigned turn = 0; turn < SPIN_TURNS; turn++) {
		if (any_ready())
			return 1;
		vfun_relax();
	}
	return 0;
}

int
calls_park(void)
{
	for (unsigned i = 0; i < net.nbusy; i++)
		__atomic_store_n(&header(net.busy[i]->calls.out)->parked, 1, __ATOMIC_RELAXED);
	net.parked = 1;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return !any_ready();
}

void
calls_unpark(void)
{
	if (!net.parked)
		return;
	for (unsigned i = 0; i < net.nbusy; i++)
		__atomic_store_n(&header(net.busy[i]->calls.out)->parked, 0, __ATOMIC_RELAXED);
	net.parked = 0;
}
