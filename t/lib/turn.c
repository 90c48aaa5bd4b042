/* SPDX-License-Identifier: MIT
 *
 * turn.c - a guest that refills its rings as fast as they are emptied, and a front-end that talks without end: others
 * have their turn
 *
 * This is roles/share/share.c's loop with requests that do nothing but put themselves into the ring again. Beside it,
 * somebody else's descriptor is always ready. Says "ok", and how often each was served in a hundred turns, or what went
 * wrong.
 */
#include "../../roles/share/share.c"

#include <linux/virtio_ring.h>
#include <stdio.h>
#include <sys/eventfd.h>

#define NUM 256u
#define TURNS 100u
#define ENDLESS 100000u /* requests in one turn */

void __wrap_fuse_run(struct share *s, struct req *r);
void *__wrap_mem_front(struct share *s, uint64_t uva, uint64_t len);
int __wrap_keep_commit(struct keep *k, uint32_t slot, uint32_t consume, const void *data, uint32_t len, int with);

static uint8_t ring[SHARE_QUEUES][3][1 << 14] __attribute__((aligned(16)));
static int front[2];
static unsigned served[SHARE_QUEUES], messages, others, turn;

static void
want(int ok, const char *what)
{
	if (ok)
		return;
	printf("not as it should be: %s\n", what);
	fflush(stdout);
	_exit(1);
}

/* An address is queue and part. */
void *
__wrap_mem_front(struct share *s, uint64_t uva, uint64_t len)
{
	(void)s;
	(void)len;
	return ring[uva >> 20][uva >> 14 & 3];
}

static void
refill(unsigned q, unsigned head)
{
	struct vring_avail *a = (void *)ring[q][1];

	a->ring[a->idx % NUM] = (uint16_t)head;
	a->idx++;
}

void
__wrap_fuse_run(struct share *s, struct req *r)
{
	unsigned q = r->queue;

	refill(q, r->head);
	virtq_complete(s, r, 0);
	want(++turn < ENDLESS, "a ring is emptied as long as somebody fills it");
	served[q]++;
}

/* QEMU sends as much as its socket takes, again and again. */
static void
talk(int fd)
{
	static const uint32_t get_features[3] = { 1, VHOST_VERSION, 0 };

	while (send(fd, get_features, sizeof(get_features), MSG_DONTWAIT) > 0)
		;
}

/* The launcher: takes the message off the socket, and sends nothing, since nobody would read it. */
int
__wrap_keep_commit(struct keep *k, uint32_t slot, uint32_t consume, const void *data, uint32_t len, int with)
{
	char buf[64];

	(void)data;
	(void)len;
	(void)with;
	want(consume <= sizeof(buf) && recv(k->fds[slot], buf, consume, 0) == (ssize_t)consume, "a message");
	want(++turn < ENDLESS, "messages are read as long as somebody sends them");
	messages++;
	talk(front[1]);
	return 0;
}

static void
on_other(struct loop_src *src, uint32_t events)
{
	(void)src;
	(void)events;
	others++;
}

static void
run(struct share *s)
{
	for (unsigned i = 0; i < TURNS; i++) {
		turn = 0;
		want(share_timeout(s) == 0, "no sleep while a ring has more");
		want(loop_once(&s->loop, share_timeout(s)) >= 0, "the loop");
		share_timers(s);
	}
}

int
main(void)
{
	static struct share_state state;
	struct share *s = &self;
	struct loop_src other = { .fd = eventfd(1, 0), .fn = on_other };

	log_init("share", 0);
	s->st = &state;
	for (unsigned i = 0; i < KEEP_SLOTS; i++)
		s->k.fds[i] = -1;
	want(loop_init(&s->loop) == 0 && loop_add(&s->loop, &other, EPOLLIN) == 0, "a loop");
	for (unsigned q = 0; q < SHARE_QUEUES; q++) {
		uint64_t at = (uint64_t)q << 20;

		state.ring[q] = (struct share_ring){
			.num = NUM, .started = 1, .enabled = 1, .desc = at, .avail = at | 1 << 14, .used = at | 2 << 14
		};
		for (unsigned i = 0; i < NUM; i++)
			refill(q, i);
		virtq_process(s, q);
	}
	run(s);
	want(others >= TURNS / 2, "another descriptor has its turns");
	want(served[0] > TURNS && served[0] == served[1], "both rings have theirs, as many");

	want(socketpair(AF_UNIX, SOCK_STREAM, 0, front) == 0, "a front-end");
	talk(front[1]);
	s->k.fds[SLOT_FRONT] = front[0];
	share_watch(s, &s->front, front[0], EPOLLIN, vhost_ready);
	others = served[0] = served[1] = 0;
	run(s);
	want(others >= TURNS / 4, "also beside a front-end");
	want(messages > TURNS && served[0] > TURNS && served[1] > TURNS, "which has its turns, as the rings have");
	printf("ok %u messages, %u and %u requests, %u others\n", messages, served[0], served[1], others);
	return 0;
}
