/* SPDX-License-Identifier: MIT
 *
 * back.c - the channel of the share's own requests to QEMU
 *
 * Theory of operation
 *
 * QEMU 11.1 dies of a request to map or to unmap that it reads while its device is stopped, because the VM is paused or
 * reset; and it may stop the device after a request was sent and before it is read. So a request goes in two parts:
 *
 * 1. One byte, with the descriptor, is sent while the device runs. Then we wait until QEMU has taken it out of the
 *    socket's queue.
 * 2. From there on QEMU's main loop waits for the rest and does nothing else: it can't stop the device. Before it
 *    stopped one it would have asked for GET_VRING_BASE and waited for our answer. So now we know whether the device
 *    runs. If it does, the rest is sent. If it doesn't, the rest makes it a request that doesn't exist; QEMU refuses
 *    it, and it is made again when the device runs.
 *
 * One request is open at a time. `back_busy` is the number of the commit that sends the first part, written before the
 * commit is asked for; `back_rest` likewise for the second part, and `back_consume` for the commit that consumes the
 * answer. So a successor knows, from the number of commits that were done, what to send again and what to wait for.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>

#include "../common/log.h"
#include "share.h"

#define BACK_SHMEM_MAP 9u
#define BACK_SHMEM_UNMAP 10u
#define BACK_NOTHING 0x100u /* added to the request: there is none of such a number */
#define MMAP_WRITE 1u	    /* flag: QEMU maps it writable, for an upgrade isn't possible */
#define BACK_AGAIN_MS 10u

struct back_msg {
	uint32_t request, flags, size;
	uint8_t shmid;
	uint8_t pad[7];
	uint64_t fd_offset;
	uint64_t shm_offset;
	uint64_t len;
	uint64_t mmap_flags;
} __attribute__((packed));

int
back_device_runs(const struct share *s)
{
	for (unsigned q = 0; q < SHARE_QUEUES; q++)
		if (!s->st->ring[q].started || !s->st->ring[q].enabled)
			return 0;
	return 1;
}

static void
back_make(struct back_msg *msg, const struct share_map *m)
{
	int map = m->state == MAP_WANT || m->state == MAP_SENT;

	*msg = (struct back_msg){ .request = map ? BACK_SHMEM_MAP : BACK_SHMEM_UNMAP,
		.flags = VHOST_VERSION | VHOST_NEED_REPLY,
		.size = sizeof(*msg) - VHOST_HDR,
		.fd_offset = map ? m->foff : 0,
		.shm_offset = m->moff,
		.len = m->len,
		.mmap_flags = map ? MMAP_WRITE : 0 };
}

int
back_send(struct share *s, struct share_map *m, int with)
{
	struct share_state *st = s->st;
	enum share_map_state was = m->state;
	struct back_msg msg;
	int err;

	back_make(&msg, m);
	st->back_consume = st->back_rest = 0;
	st->back_void = 0;
	state_order();
	m->state = was == MAP_WANT ? MAP_SENT : MAP_UNMAP_SENT;
	state_order();
	st->back_busy = s->k.commits + 1;
	state_order();
	err = keep_commit(&s->k, SLOT_BACK, 0, &msg, 1, with);
	if (err) {
		st->back_busy = 0;
		state_order();
		m->state = was;
	}
	return err;
}

static struct share_map *
back_open(struct share *s)
{
	for (unsigned i = 0; i < SHARE_MAPS; i++)
		if (s->st->map[i].state == MAP_SENT || s->st->map[i].state == MAP_UNMAP_SENT)
			return &s->st->map[i];
	return NULL;
}

/* The second part, when it is time. Where nothing tells that it is: a look now and then. */
void
back_rest(struct share *s)
{
	struct share_state *st = s->st;
	struct share_map *m = st->back_busy && !st->back_rest ? back_open(s) : NULL;
	struct back_msg msg;
	int unread = 0;
	int err;

	if (!m || s->k.fds[SLOT_BACK] < 0)
		return;
	s->pump_at = share_now() + BACK_AGAIN_MS;
	if (ioctl(s->k.fds[SLOT_BACK], SIOCOUTQ, &unread) < 0 || unread)
		return;
	back_make(&msg, m);
	st->back_void = !back_device_runs(s);
	if (st->back_void)
		msg.request |= BACK_NOTHING;
	state_order();
	st->back_rest = s->k.commits + 1;
	state_order();
	err = keep_commit(&s->k, SLOT_BACK, 0, (const uint8_t *)&msg + 1, sizeof(msg) - 1, -1);
	if (err)
		st->back_rest = 0;
	else
		s->pump_at = 0;
}

/* What QEMU answers to the open request. A predecessor may have acted on it already. */
static void
back_answer(struct share *s, uint64_t result)
{
	struct share_map *m = back_open(s);

	if (m && s->st->back_void)
		m->state = m->state == MAP_SENT ? MAP_WANT : MAP_UNMAP_WANT;
	else if (m)
		window_answer(s, m, result);
}

/* Look at the channel: act on the answer, consume it, send what is next. */
void
back_ready(struct loop_src *src, uint32_t events)
{
	struct share *s = loop_container(src, struct share, back);
	struct {
		uint32_t request, flags, size;
		uint64_t result;
	} __attribute__((packed)) msg;
	long n = peek(src->fd, &msg, sizeof(msg), NULL, 0, NULL);
	int err;

	(void)events;
	if (n == -EAGAIN) {
		back_rest(s);
		return;
	}
	/* QEMU writes an answer in one piece. */
	if (n < (long)sizeof(msg) || !(msg.flags & VHOST_REPLY) || msg.size != sizeof(msg.result) ||
	    !s->st->back_busy || !s->st->back_rest) {
		/* Without this channel there are no new mappings; the end of the VM is seen on the other socket. */
		if (n != 0 && n != -ECONNRESET)
			log_warn("VM %s: QEMU breaks the back-end channel's protocol", s->k.start.name);
		loop_del(&s->loop, src);
		(void)keep_drop(&s->k, SLOT_BACK);
		return;
	}
	back_answer(s, msg.result);
	state_order();
	s->st->back_consume = s->k.commits + 1;
	state_order();
	err = keep_commit(&s->k, SLOT_BACK, sizeof(msg), NULL, 0, -1);
	if (err)
		share_fatal(s, "consuming QEMU's answer", err);
	s->st->back_busy = 0;
	window_pump(s);
	share_retry(s, WAIT_WINDOW);
}

void
back_takeover(struct share *s)
{
	struct share_state *st = s->st;

	/* Announced but never sent: as if it had not been announced. */
	if (st->back_busy > s->k.commits)
		st->back_busy = 0;
	if (st->back_rest > s->k.commits)
		st->back_rest = 0;
	/* The answer was consumed. */
	if (st->back_busy && st->back_consume && st->back_consume <= s->k.commits)
		st->back_busy = 0;
	for (unsigned i = 0; i < SHARE_MAPS && !st->back_busy; i++) {
		struct share_map *m = &st->map[i];

		if (m->state == MAP_SENT)
			m->state = MAP_WANT;
		else if (m->state == MAP_UNMAP_SENT)
			m->state = MAP_UNMAP_WANT;
	}
}
