/* SPDX-License-Identifier: MIT
 *
 * conn.c - connections: accept, read, write, end
 *
 * Each has a buffer for what comes and one for what goes. It isn't read from while one of its control messages is under
 * way, which is all the flow control that this side needs: answers are only taken out of slots when there is room for
 * them, and a client that has no free slot has nothing to send.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "net.h"

#define AUTH_MS 5000u	 /* to prove who one is, from accept() on */
#define STALL_MS 10000u	 /* within a frame: no byte more of it came, or went */
#define TURN_MAX 262144u /* bytes read or written before others have their turn */

union address {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

/* ADDRESS:PORT of the peer, for people. */
static const char *
peer(const struct conn *c)
{
	static char text[INET6_ADDRSTRLEN + 16];
	union address u = { .sa.sa_family = AF_UNSPEC };
	socklen_t len = sizeof(u);
	char host[INET6_ADDRSTRLEN] = "?";
	int port = 0;

	(void)getpeername(c->src.fd, &u.sa, &len);
	if (u.sa.sa_family == AF_INET && inet_ntop(AF_INET, &u.in.sin_addr, host, sizeof(host)))
		port = ntohs(u.in.sin_port);
	else if (u.sa.sa_family == AF_INET6 && inet_ntop(AF_INET6, &u.in6.sin6_addr, host, sizeof(host)))
		port = ntohs(u.in6.sin6_port);
	snprintf(text, sizeof(text), "%s port %d", host, port);
	return text;
}

void
conn_close(struct conn *c)
{
	if (c->state == CONN_FREE)
		return;
	loop_del(&net.loop, &c->src);
	close(c->src.fd);
	c->src.fd = -1;
	if (c->state == CONN_OPEN)
		ask_closed(c);
	c->tail_left = 0;
	calls_detach(c);
	c->state = CONN_FREE;
	net.conns--;
}

int
conn_farewell(struct conn *c, enum vfun_reason reason, const char *fmt, ...)
{
	struct vfun_net_frame f = net_frame(VFUN_NET_CONTROL, 0, 0);
	struct vfun_msg m = {
		.magic = VFUN_MSG_MAGIC, .type = VFUN_MSG_REPLY, .version = VFUN_VERSION, .reason = (uint16_t)reason
	};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(m.text, sizeof(m.text), fmt, ap);
	va_end(ap);
	if (net_may_say())
		log_info("%s at %s: %s", c->state == CONN_OPEN ? net.st->client[c->client].key.client : "somebody",
		    peer(c), m.text);
	if (conn_put(c, &f, &m, NULL))
		conn_flush(c);
	conn_close(c);
	return -ESHUTDOWN;
}

/* ---- writing ---- */

int
conn_put(struct conn *c, const struct vfun_net_frame *f, const void *body, const uint8_t *bulk)
{
	if (c->tail_left || sizeof(c->out) - c->out_end < sizeof(*f) + f->body)
		return 0;
	memcpy(c->out + c->out_end, f, sizeof(*f));
	memcpy(c->out + c->out_end + sizeof(*f), body, f->body);
	if (c->out_at == c->out_end)
		c->written_at = net_ms();
	c->out_end += (uint32_t)sizeof(*f) + f->body;
	c->tail = bulk;
	c->tail_left = bulk ? f->len : 0;
	return 1;
}

int
conn_has_room(const struct conn *c)
{
	return !c->tail_left && sizeof(c->out) - c->out_end >= NET_FRAME_MAX;
}

static void
sent(struct conn *c, size_t n)
{
	size_t part = c->out_end - c->out_at;

	if (n < part)
		part = n;
	c->out_at += (uint32_t)part;
	if (c->tail_left) {
		c->tail += n - part;
		c->tail_left -= n - part;
	}
	if (c->out_at == c->out_end)
		c->out_at = c->out_end = 0;
	c->written_at = net_ms();
}

void
conn_flush(struct conn *c)
{
	struct iovec iov[2] = { { c->out + c->out_at, c->out_end - c->out_at },
		{ (void *)(uintptr_t)c->tail, c->tail_left < TURN_MAX ? c->tail_left : TURN_MAX } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = c->tail_left ? 2 : 1 };
	ssize_t n;

	if (c->out_at == c->out_end && !c->tail_left)
		return;
	n = sendmsg(c->src.fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		conn_close(c);
		return;
	}
	if (n > 0)
		sent(c, (size_t)n);
	conn_watch(c);
}

/* ---- reading ---- */

static int
place(void *arg, const struct vfun_net_frame *f, const void *body, uint8_t **to)
{
	struct conn *c = arg;

	(void)body;
	if (c->state != CONN_OPEN || f->type != VFUN_NET_CALL)
		return -EPROTO;
	return calls_place(c, f, to);
}

static int
frame(void *arg, const struct vfun_net_frame *f, const void *body)
{
	struct conn *c = arg;
	struct vfun_net_auth auth;
	struct vfun_request request;
	struct vfun_net_cancel cancel;
	struct vfun_msg msg;
	int r;

	if (c->state == CONN_HELLO) {
		if (f->type != VFUN_NET_AUTH)
			return -EPROTO;
		memcpy(&auth, body, sizeof(auth));
		return auth_check(c, &auth);
	}
	switch (f->type) {
	case VFUN_NET_CALL:
		memcpy(&request, body, sizeof(request));
		return calls_submit(c, &request);
	case VFUN_NET_CANCEL:
		memcpy(&cancel, body, sizeof(cancel));
		return calls_cancel(c, cancel.seq);
	case VFUN_NET_CONTROL:
		memcpy(&msg, body, sizeof(msg));
		r = ask_engine(c, &msg);
		return r ? r : c->ask.used;
	default:
		return -EPROTO;
	}
}

/* Look at what has come; may close. */
static void
look(struct conn *c)
{
	static const struct net_reader reader = { place, frame };
	int r = net_in_take(&c->in, &reader, c);

	if (r == -ESHUTDOWN || c->state == CONN_FREE)
		return;
	if (r < 0) {
		(void)conn_farewell(c, VFUN_R_MALFORMED, "what was sent breaks the protocol");
		return;
	}
	conn_flush(c);
	if (c->state != CONN_FREE)
		conn_watch(c);
}

void
conn_go_on(struct conn *c)
{
	c->read_at = net_ms();
	look(c);
}

static void
on_conn(struct loop_src *src, uint32_t events)
{
	struct conn *c = loop_container(src, struct conn, src);
	uint8_t *to;
	size_t room;
	ssize_t n;

	/* Who hangs up wants no answer, whatever he has sent before. */
	if (events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) {
		conn_close(c);
		return;
	}
	if (events & EPOLLOUT) {
		conn_flush(c);
		if (c->state == CONN_OPEN)
			ask_go_on(c);
		if (c->state == CONN_OPEN && calls_ended(c))
			calls_gone(c);
		if (c->state == CONN_OPEN && c->calls.over)
			ask_flush();
	}
	if (!(events & EPOLLIN) || c->state == CONN_FREE || c->ask.used)
		return;
	to = net_in_room(&c->in, &room);
	n = recv(src->fd, to, room < TURN_MAX ? room : TURN_MAX, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		conn_close(c);
		return;
	}
	c->read_at = net_ms();
	net_in_got(&c->in, (size_t)n);
	look(c);
}

void
conn_watch(struct conn *c)
{
	uint32_t events =
	    EPOLLRDHUP | (c->ask.used ? 0 : EPOLLIN) | (c->out_at != c->out_end || c->tail_left ? EPOLLOUT : 0);

	if (events != c->events)
		(void)loop_mod(&net.loop, &c->src, events);
	c->events = events;
}

/* ---- beginning and end ---- */

/* Where a peer comes from. Whoever has an IPv6 address has the whole network of 64 bits. */
static void
find_origin(int fd, uint8_t from[16])
{
	union address u = { .sa.sa_family = AF_UNSPEC };
	socklen_t len = sizeof(u);

	memset(from, 0, 16);
	(void)getpeername(fd, &u.sa, &len);
	if (u.sa.sa_family == AF_INET)
		memcpy(from + 12, &u.in.sin_addr, 4);
	else if (u.sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&u.in6.sin6_addr))
		memcpy(from + 12, u.in6.sin6_addr.s6_addr + 12, 4);
	else if (u.sa.sa_family == AF_INET6)
		memcpy(from, &u.in6.sin6_addr, 8);
}

/* Of those that have proved nothing, the oldest from where most of them come. */
static struct conn *
find_victim(struct conn *const pending[NET_PENDING])
{
	struct conn *victim = NULL;
	unsigned most = 0;

	for (unsigned i = 0; i < NET_PENDING; i++) {
		struct conn *c = pending[i];
		unsigned n = 0;

		for (unsigned k = 0; k < NET_PENDING; k++)
			n += !memcmp(pending[k]->from, c->from, sizeof(c->from));
		/* Numbers wrap. */
		if (n > most || (n == most && (int32_t)(c->number - victim->number) < 0))
			victim = c;
		most = n > most ? n : most;
	}
	return victim;
}

/* A free place. Where too many have proved nothing one of them has to go. */
static struct conn *
new_conn(void)
{
	struct conn *pending[NET_PENDING];
	struct conn *free_one = NULL;
	unsigned n = 0;

	for (unsigned i = 0; i < NET_CONNS; i++) {
		struct conn *c = &net.conn[i];

		if (c->state == CONN_FREE)
			free_one = free_one ? free_one : c;
		else if (c->state == CONN_HELLO && n < NET_PENDING)
			pending[n++] = c;
	}
	if (n < NET_PENDING)
		return free_one;
	free_one = find_victim(pending);
	conn_close(free_one);
	return free_one;
}

/* Nothing but bytes comes in here: closing waits for nobody. */
static void
turn_away(int fd)
{
	close(fd);
}

void
conn_accept(struct loop_src *src, uint32_t events)
{
	struct conn *c;
	int fd;

	(void)events;
	if (!net_bucket(&net.accepts, NET_CONNECTS)) {
		net.listen_at = net_ms() + NET_PAUSE_MS;
		(void)loop_mod(&net.loop, src, 0);
		return;
	}
	fd = fd_accept(src->fd, &net.spare, turn_away);
	if (fd < 0)
		return;
	c = new_conn();
	if (!c) {
		close(fd);
		return;
	}
	memset(c, 0, offsetof(struct conn, out));
	c->src = (struct loop_src){ .fd = fd, .fn = on_conn };
	c->calls.ring.fd = -1;
	c->state = CONN_HELLO;
	while (++net.next_number == 0)
		;
	c->number = net.next_number;
	c->since = c->read_at = c->written_at = net_ms();
	find_origin(fd, c->from);
	c->events = EPOLLIN | EPOLLRDHUP;
	net.conns++;
	if (loop_add(&net.loop, &c->src, c->events) || auth_hello(c))
		conn_close(c);
	else
		conn_flush(c);
}

void
conn_times(struct conn *c, uint64_t now)
{
	int within = c->in.have || c->in.f.type;

	/* Something may have happened a moment after `now`. */
	if (now < c->read_at || now < c->written_at)
		return;
	if (c->state == CONN_HELLO) {
		if (now - c->since >= AUTH_MS)
			conn_farewell(c, VFUN_R_TIMEOUT, "no proof came within 5 seconds");
	} else if (within && !c->ask.used && now - c->read_at >= STALL_MS) {
		conn_farewell(c, VFUN_R_TIMEOUT, "the rest of a frame did not come in time");
	} else if (c->out_at != c->out_end || c->tail_left) {
		if (now - c->written_at >= STALL_MS)
			conn_farewell(c, VFUN_R_TIMEOUT, "answers are not read");
	} else if (!c->ask.used && !c->calls.flying && now - c->read_at >= net.st->idle_ms) {
		conn_farewell(c, VFUN_R_TIMEOUT, "nothing was asked for %u seconds", net.st->idle_ms / 1000);
	}
}
