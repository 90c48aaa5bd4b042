/* SPDX-License-Identifier: MIT
 *
 * virtq.c - the virtqueues: descriptor chains, taking and completing
 *
 * Theory of operation
 *
 * The ring lies in guest memory, where a hostile guest may change anything at any time: every index, descriptor and
 * address is read once into a local copy, and the copy is checked. Nonsense breaks the ring: it is said once, and this
 * ring isn't looked at again until the guest's driver sets it up anew. The other ring, and everybody else, go on.
 *
 * A worker may be killed at any instant, and no request may be lost or completed twice. Taking a request:
 *
 *      inflight[head] = { order = popped, busy }       a successor that finds order == popped
 *      popped++                                        makes up for this step
 *
 * Completing it:
 *
 *      completing = head + 1
 *      used ring element, then used index              seen by the guest from here on
 *      inflight[head].busy = 0
 *      used_idx++
 *      completing = 0
 *
 * A successor that finds `completing` set compares the guest's used index with used_idx: one ahead means that the
 * guest has the answer, so the rest is made up for; equal means that it hasn't (busy), or that all is done (not busy).
 * Requests that are busy then are executed again, in order. (A guest that meddles with its used index meanwhile
 * breaks its own ring.)
 *
 * Requests that wait may be outlived by the ring: QEMU stops it when the VM pauses, and gives it back with the base
 * that it was told; then they go on. A driver that starts anew begins at another place, and they are forgotten.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <linux/virtio_ring.h>

#include "../common/log.h"
#include "share.h"

#define TURN_MAX 64    /* requests of a ring before it is others' turn */
#define AGAIN_MS 2000u /* what a waiting request has left at least when its ring goes on */

static void
virtq_break(struct share *s, unsigned q, const char *why)
{
	if (!s->st->ring[q].broken && share_may_say(s))
		log_warn("VM %s: queue %u stopped: %s", s->k.start.name, q, why);
	s->st->ring[q].broken = 1;
}

/* The ring's three parts as pointers, looked up again whenever guest memory has changed. 0 or -EFAULT. */
static int
virtq_map(struct share *s, unsigned q)
{
	struct share_queue *sq = &s->queue[q];
	const struct share_ring *r = &s->st->ring[q];

	if (sq->desc && sq->gen == s->mem_gen)
		return 0;
	sq->desc = NULL;
	if (!r->num || r->desc % 16 || r->avail % 2 || r->used % 4)
		return -EFAULT;
	sq->avail = mem_front(s, r->avail, 4 + 2ull * r->num);
	sq->used = mem_front(s, r->used, 4 + 8ull * r->num);
	if (!sq->avail || !sq->used)
		return -EFAULT;
	sq->desc = mem_front(s, r->desc, 16ull * r->num);
	sq->gen = s->mem_gen;
	return sq->desc ? 0 : -EFAULT;
}

int
virtq_runs(struct share *s, unsigned q)
{
	const struct share_ring *r = &s->st->ring[q];

	return r->started && r->enabled && !r->broken;
}

/* ---- chains ---- */

/* One descriptor's buffer into the chain. 0 or -errno. */
static int
chain_buffer(struct share *s, struct chain *c, const struct vring_desc *d)
{
	int write = (d->flags & VRING_DESC_F_WRITE) != 0;
	struct iovec *iov = write ? c->out : c->in;
	unsigned *n = write ? &c->nout : &c->nin;
	void *p;

	if (d->len == 0)
		return 0;
	if (!write && c->nout)
		return -EINVAL; /* what the device reads comes first */
	if (*n == CHAIN_MAX)
		return -E2BIG;
	p = mem_guest(s, d->addr, d->len);
	if (!p)
		return -EFAULT;
	iov[*n].iov_base = p;
	iov[*n].iov_len = d->len;
	++*n;
	*(write ? &c->out_len : &c->in_len) += d->len;
	return 0;
}

/* Walk a table of `num` descriptors from `i` on. A walk longer than the table has met a loop. */
static int
chain_walk(struct share *s, struct chain *c, const void *table, uint32_t num, uint32_t i, int indirect)
{
	for (uint32_t steps = 0; steps < num; steps++) {
		struct vring_desc d;
		int err;

		if (i >= num)
			return -EINVAL;
		memcpy(&d, (const char *)table + i * sizeof(d), sizeof(d));
		if (d.flags & VRING_DESC_F_INDIRECT) {
			/* A table of its own: the only descriptor of its chain, and no table within. */
			uint32_t entries = d.len / sizeof(d);
			const void *p;

			if (indirect || (d.flags & VRING_DESC_F_NEXT) || steps || d.len % sizeof(d) || !entries ||
			    entries > CHAIN_MAX || !(s->st->features & 1ull << VIRTIO_RING_F_INDIRECT_DESC))
				return -EINVAL;
			p = mem_guest(s, d.addr, d.len);
			return p ? chain_walk(s, c, p, entries, 0, 1) : -EFAULT;
		}
		err = chain_buffer(s, c, &d);
		if (err)
			return err;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return 0;
		i = d.next;
	}
	return -ELOOP;
}

int
virtq_chain(struct share *s, unsigned q, unsigned head, struct chain *c)
{
	int err = virtq_map(s, q);

	c->nin = c->nout = 0;
	c->in_len = c->out_len = c->put = 0;
	if (!err)
		err = chain_walk(s, c, s->queue[q].desc, s->st->ring[q].num, head, 0);
	if (err)
		virtq_break(s, q, err == -EFAULT ? "an address outside guest memory" : "an insane descriptor chain");
	return err;
}

unsigned
chain_slice(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len, struct iovec *out)
{
	unsigned count = 0;

	for (unsigned i = 0; i < n && len; i++) {
		uint64_t part = iov[i].iov_len;

		if (skip >= part) {
			skip -= part;
			continue;
		}
		part -= skip;
		if (part > len)
			part = len;
		out[count].iov_base = (char *)iov[i].iov_base + skip;
		out[count++].iov_len = part;
		skip = 0;
		len -= part;
	}
	return count;
}

size_t
chain_get(const struct chain *c, void *buf, size_t len)
{
	size_t at = 0;

	for (unsigned i = 0; i < c->nin && at < len; i++) {
		size_t part = c->in[i].iov_len < len - at ? c->in[i].iov_len : len - at;

		memcpy((char *)buf + at, c->in[i].iov_base, part);
		at += part;
	}
	return at;
}

/* Copy to the guest at an offset of the answer; the caller has checked that it fits. */
static void
chain_copy(struct chain *c, uint64_t offset, const void *buf, size_t len)
{
	const char *p = buf;

	for (unsigned i = 0; i < c->nout && len; i++) {
		uint64_t part = c->out[i].iov_len;

		if (offset >= part) {
			offset -= part;
			continue;
		}
		part -= offset;
		if (part > len)
			part = len;
		memcpy((char *)c->out[i].iov_base + offset, p, part);
		offset = 0;
		p += part;
		len -= part;
	}
}

void
chain_head(struct chain *c, const void *buf, size_t len)
{
	chain_copy(c, 0, buf, len);
}

int
chain_put(struct chain *c, const void *buf, size_t len)
{
	uint64_t at = sizeof(struct fuse_out_header) + c->put;

	if (at > c->out_len || len > c->out_len - at)
		return -EIO;
	chain_copy(c, at, buf, len);
	c->put += len;
	return 0;
}

/* ---- taking ---- */

static struct req *
req_new(struct share *s, unsigned q, unsigned head)
{
	for (unsigned i = 0; i < REQUESTS_MAX; i++) {
		struct req *r = &s->req[i];

		if (r->used)
			continue;
		memset(r, 0, offsetof(struct req, u));
		r->used = 1;
		r->queue = q;
		r->head = head;
		r->order = s->st->ring[q].inflight[head].order;
		return r;
	}
	return NULL;
}

static int
req_free_one(struct share *s)
{
	for (unsigned i = 0; i < REQUESTS_MAX; i++)
		if (!s->req[i].used)
			return 1;
	return 0;
}

/* Take the next request off the ring: its head, or -1 when there is none. */
static int
virtq_pop(struct share *s, unsigned q)
{
	struct share_ring *r = &s->st->ring[q];
	struct vring_avail *avail = s->queue[q].avail;
	uint16_t next = (uint16_t)(r->base + r->popped);
	uint16_t ahead = (uint16_t)(__atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE) - next);
	uint16_t head;

	if (!ahead)
		return -1;
	if (ahead > r->num) {
		virtq_break(s, q, "more requests than the queue has room for");
		return -1;
	}
	head = __atomic_load_n(&avail->ring[next % r->num], __ATOMIC_RELAXED);
	if (head >= r->num || r->inflight[head].busy) {
		virtq_break(s, q, head >= r->num ? "a descriptor index out of range" : "the same request twice");
		return -1;
	}
	r->inflight[head].order = r->popped;
	state_order();
	r->inflight[head].busy = 1;
	state_order();
	r->popped++;
	state_order();
	return head;
}

/* A guest may put new requests into the ring as fast as they are taken: after some the others have their turn, who are
 * its other ring, its QEMU, vfund and the services. */
void
virtq_process(struct share *s, unsigned q)
{
	for (unsigned n = 0; virtq_runs(s, q); n++) {
		int head;

		if (virtq_map(s, q)) {
			virtq_break(s, q, "the ring is outside guest memory");
			return;
		}
		if (!req_free_one(s)) {
			s->starved |= 1u << q;
			return;
		}
		if (n == TURN_MAX) {
			s->more |= 1u << q;
			return;
		}
		head = virtq_pop(s, q);
		if (head < 0)
			return;
		fuse_run(s, req_new(s, q, (unsigned)head));
	}
}

/* ---- completing ---- */

static void
virtq_notify(struct share *s, unsigned q)
{
	const struct vring_avail *avail = s->queue[q].avail;
	uint64_t one = 1;

	/* The guest's flag is read after the used index was published. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&avail->flags, __ATOMIC_RELAXED) & VRING_AVAIL_F_NO_INTERRUPT)
		return;
	if (s->k.fds[SLOT_CALL + q] >= 0 && write(s->k.fds[SLOT_CALL + q], &one, sizeof(one)) < 0)
		log_debug("VM %s: queue %u: interrupt: %s", s->k.start.name, q, strerror(errno));
}

void
virtq_complete(struct share *s, struct req *req, uint32_t len)
{
	unsigned q = req->queue;
	struct share_ring *r = &s->st->ring[q];
	uint32_t head = req->head;
	struct vring_used *used;
	struct vring_used_elem *e;

	req->used = 0;
	if (r->broken || virtq_map(s, q))
		return;
	used = s->queue[q].used;
	e = &used->ring[(uint16_t)r->used_idx % r->num];
	r->completing = head + 1;
	state_order();
	e->id = head;
	e->len = len;
	__atomic_store_n(&used->idx, (uint16_t)(r->used_idx + 1), __ATOMIC_RELEASE);
	state_order();
	r->inflight[head].busy = 0;
	state_order();
	r->used_idx = (uint16_t)(r->used_idx + 1);
	state_order();
	r->completing = 0;
	virtq_notify(s, q);
}

/* ---- starting, stopping, taking over ---- */

void
virtq_start(struct share *s, unsigned q)
{
	struct share_ring *r = &s->st->ring[q];

	if (!r->started && !virtq_map(s, q)) {
		r->used_idx = ((struct vring_used *)s->queue[q].used)->idx;
		state_order();
	}
	r->started = 1;
	/* The time for which the VM was paused doesn't count. */
	for (unsigned i = 0; i < REQUESTS_MAX; i++)
		if (s->req[i].used && s->req[i].queue == q && s->req[i].deadline > REQ_LATE &&
		    s->req[i].deadline < share_now() + AGAIN_MS)
			s->req[i].deadline = share_now() + AGAIN_MS;
}

void
virtq_stop(struct share *s, unsigned q)
{
	s->st->ring[q].started = 0;
}

void
virtq_forget(struct share *s, unsigned q)
{
	struct share_ring *r = &s->st->ring[q];

	for (unsigned i = 0; i < REQUESTS_MAX; i++)
		if (s->req[i].used && s->req[i].queue == q)
			s->req[i].used = 0;
	for (unsigned i = 0; i < SHARE_QSIZE; i++)
		r->inflight[i].busy = 0;
	r->completing = 0;
}

/* Finish what a predecessor left half done: see above. */
static void
virtq_mend(struct share *s, unsigned q)
{
	struct share_ring *r = &s->st->ring[q];
	uint16_t idx;

	for (unsigned i = 0; i < SHARE_QSIZE; i++)
		if (r->inflight[i].busy && r->inflight[i].order == r->popped) {
			r->popped++;
			break;
		}
	if (!r->completing)
		return;
	idx = ((struct vring_used *)s->queue[q].used)->idx;
	if (idx == (uint16_t)(r->used_idx + 1)) {
		r->inflight[(r->completing - 1) % SHARE_QSIZE].busy = 0;
		state_order();
		r->used_idx = idx;
	} else if (idx != (uint16_t)r->used_idx) {
		virtq_break(s, q, "the guest changed the used index");
	}
	state_order();
	r->completing = 0;
}

/* The busy request with the lowest order that isn't lower than `from`; -1: none. */
static int
virtq_next(const struct share_ring *r, uint64_t from)
{
	int best = -1;

	for (int i = 0; i < SHARE_QSIZE; i++)
		if (r->inflight[i].busy && r->inflight[i].order >= from &&
		    (best < 0 || r->inflight[i].order < r->inflight[best].order))
			best = i;
	return best;
}

void
virtq_takeover(struct share *s)
{
	for (unsigned q = 0; q < SHARE_QUEUES; q++) {
		struct share_ring *r = &s->st->ring[q];
		uint64_t from = 0;
		int head;

		if (!r->num || r->broken || virtq_map(s, q))
			continue;
		virtq_mend(s, q);
		/* The guest may not have been told of the last answers. */
		virtq_notify(s, q);
		while (!r->broken && (head = virtq_next(r, from)) >= 0) {
			struct req *req = req_new(s, q, (unsigned)head);

			if (!req)
				break; /* can't be: no more were ever taken than there are */
			req->repeat = 1;
			from = req->order + 1;
			if (virtq_runs(s, q))
				fuse_run(s, req);
			else
				req->wait = WAIT_RING; /* the VM pauses */
		}
	}
}

void
virtq_kicked(struct loop_src *src, uint32_t events)
{
	struct share_queue *sq = loop_container(src, struct share_queue, kick);
	struct share *s;
	uint64_t count;
	unsigned q;

	(void)events;
	s = share_self();
	if (read(src->fd, &count, sizeof(count)) < 0 && errno != EAGAIN && errno != EINTR && share_may_say(s))
		log_warn("a queue's kick descriptor: %s", strerror(errno));
	q = (unsigned)(sq - s->queue);
	virtq_process(s, q);
}
