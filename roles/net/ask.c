/* SPDX-License-Identifier: MIT
 *
 * ask.c - control messages, and the engine's channel
 *
 * A connection has one control message under way at a time, and isn't read from until that is answered. It goes to the
 * engine with the client's index, which the client has proved, and the connection's number. While there is no engine it
 * waits for a moment. What an engine took along when it went is asked again of the next one, except for an ACTIVATE,
 * which would start a second service: VFUN_R_LOST. Which connections have ended is told to each engine anew, as far as
 * it is remembered, since nobody knows what the last one had read.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "net.h"

#define ABSENT_MS 2000u	 /* how long a message waits for an engine */
#define ANSWER_MS 60000u /* vfund's own limits are far below: this one is for an engine that hangs */

/* The reply goes out. 1, or 0 if there is no room for it now. */
static int
deliver(struct conn *c)
{
	struct vfun_net_frame f = net_frame(VFUN_NET_CONTROL, 0, 0);

	if (!conn_put(c, &f, &c->ask.msg, NULL))
		return 0;
	c->ask.used = 0;
	return 1;
}

void
ask_go_on(struct conn *c)
{
	if (c->ask.used && c->ask.replied && deliver(c))
		conn_go_on(c);
}

/* A reply made here. */
static void
answer(struct conn *c, enum vfun_reason reason, const char *text)
{
	struct vfun_msg *m = &c->ask.msg;

	m->magic = VFUN_MSG_MAGIC;
	m->type |= VFUN_MSG_REPLY;
	m->version = VFUN_VERSION;
	m->reason = (uint16_t)reason;
	m->flags = 0;
	memset(&m->body, 0, sizeof(m->body));
	memset(m->text, 0, sizeof(m->text));
	strncpy(m->text, text, sizeof(m->text) - 1);
	c->ask.replied = 1;
}

int
ask_engine(struct conn *c, const struct vfun_msg *msg)
{
	c->ask = (struct asking){ .used = 1, .req = ++net.next_req, .since = net_ms(), .msg = *msg };
	if (msg->type == VFUN_MSG_ACTIVATE && c->calls.id)
		answer(c, VFUN_R_NO_RESOURCE, "a connection has one instance: open another one");
	else if (msg->type == VFUN_MSG_ACTIVATE && (!c->grant.grant || msg->body.activate.grant != c->grant.grant))
		answer(c, VFUN_R_NO_GRANT, "not this connection's last grant: negotiate first");
	if (c->ask.replied) {
		(void)deliver(c);
		return 0;
	}
	if (!net_bucket(&net.asks[c->client], NET_ASKS)) {
		c->ask.not_before = c->ask.since + NET_PAUSE_MS;
		net.flush_at = c->ask.not_before;
	}
	ask_flush();
	return 0;
}

/* ---- the channel ---- */

static int
say(const struct imsg *m)
{
	int r = net.engine.fd < 0 ? -ENOTCONN : fd_send(net.engine.fd, m, sizeof(*m), NULL, 0);

	if (r == -EAGAIN)
		net.flush_at = net_ms() + NET_PAUSE_MS;
	return r;
}

static int
say_request(struct conn *c)
{
	struct imsg m = { .type = IM_REQUEST,
		.handle = c->number,
		.req = c->ask.req,
		.client = CONF_NET + c->client,
		.msg = c->ask.msg };

	if (say(&m))
		return 0;
	c->ask.sent = 1;
	return 1;
}

/* An instance of which everything has been sent. 0: not now. */
static int
say_over(struct conn *c)
{
	struct imsg m = {
		.type = IM_FREE, .instance = c->calls.over, .handle = c->number, .client = CONF_NET + c->client
	};

	/* A vfund that stops ends this process next. */
	if (c->out_at != c->out_end)
		return 1;
	if (say(&m))
		return 0;
	c->calls.over = 0;
	return 1;
}

/* Ended connections first: their places may be what others are waiting for. */
void
ask_flush(void)
{
	uint64_t now = net_ms();

	net.flush_at = 0;
	for (; net.closed_told != net.closed_n; net.closed_told++) {
		unsigned i = net.closed_told % NET_CLOSED;
		struct imsg m = {
			.type = IM_CLOSED, .handle = net.closed[i].number, .client = CONF_NET + net.closed[i].client
		};

		if (say(&m))
			return;
	}
	for (unsigned i = 0; i < NET_CONNS; i++) {
		struct conn *c = &net.conn[i];

		if (c->state == CONN_OPEN && c->calls.over && !say_over(c))
			return;
		if (c->state != CONN_OPEN || !c->ask.used || c->ask.sent || c->ask.replied)
			continue;
		if (now < c->ask.not_before)
			net.flush_at = c->ask.not_before;
		else if (!say_request(c))
			return;
	}
}

void
ask_closed(const struct conn *c)
{
	net.closed[net.closed_n % NET_CLOSED].number = c->number;
	net.closed[net.closed_n % NET_CLOSED].client = c->client;
	net.closed_n++;
	ask_flush();
}

static struct conn *
conn_of(uint32_t number)
{
	for (unsigned i = 0; i < NET_CONNS; i++)
		if (net.conn[i].state == CONN_OPEN && net.conn[i].number == number)
			return &net.conn[i];
	return NULL;
}

/* A RELEASE that was asked twice: the first time did it. */
static int
released(const struct conn *c, const struct vfun_msg *m)
{
	return c->ask.again && m->type == (VFUN_MSG_RELEASE | VFUN_MSG_REPLY) && m->reason == VFUN_R_NO_INSTANCE &&
	       c->ask.msg.body.release.instance == c->calls.last;
}

static int
grant_ok(const struct vfun_grant *g)
{
	return g->slots >= 1 && g->slots <= VFUN_SLOTS_MAX && !(g->slots & (g->slots - 1));
}

static void
on_reply(const struct imsg *m)
{
	struct conn *c = conn_of(m->handle);

	if (!c || !c->ask.used || !c->ask.sent || c->ask.replied || c->ask.req != m->req)
		return;
	if (m->msg.type == (VFUN_MSG_NEGOTIATE | VFUN_MSG_REPLY) && !m->msg.reason) {
		memset(&c->grant, 0, sizeof(c->grant));
		if (grant_ok(&m->msg.body.grant))
			c->grant = m->msg.body.grant;
	}
	if (m->msg.type == VFUN_MSG_REPLY) {
		(void)conn_farewell(c, (enum vfun_reason)m->msg.reason, "%.*s", VFUN_TEXT_MAX - 1,
		    m->msg.text); /* not a message at all */
		return;
	}
	if (released(c, &m->msg))
		answer(c, VFUN_OK, "");
	else
		c->ask.msg = m->msg;
	/* The regions come from the launcher, sooner or later than this. */
	c->ask.waits = m->msg.type == (VFUN_MSG_ACTIVATE | VFUN_MSG_REPLY) && !m->msg.reason &&
		       c->calls.id != m->msg.body.active.instance;
	if (c->ask.waits)
		return;
	c->ask.replied = 1;
	ask_go_on(c);
}

void
ask_add(const struct keep_add *add, int fds[3])
{
	struct conn *c = conn_of(add->handle);

	/* A connection that has ended: the engine knows, or will. */
	if (!c || c->calls.id || !c->grant.grant)
		return;
	if (calls_attach(c, add, fds)) {
		(void)conn_farewell(c, VFUN_R_NO_RESOURCE, "there is no memory to map the instance");
		return;
	}
	fds[2] = -1;
	if (!c->ask.waits || c->ask.msg.body.active.instance != add->id)
		return;
	c->ask.replied = 1;
	ask_go_on(c);
}

static void
on_del(const struct imsg *m)
{
	struct conn *c = conn_of(m->handle);

	/* The end of a connection has been said, or will be. */
	if (!c)
		return;
	if (c->calls.id == m->instance) {
		calls_gone(c);
		return;
	}
	c->calls.over = m->instance;
	ask_flush();
}

static void
disconnect(void)
{
	if (net.engine.fd < 0)
		return;
	loop_del(&net.loop, &net.engine);
	close(net.engine.fd);
	net.engine.fd = -1;
	for (unsigned i = 0; i < NET_CONNS; i++) {
		struct conn *c = &net.conn[i];

		if (c->state != CONN_OPEN || !c->ask.used || !c->ask.sent || c->ask.replied)
			continue;
		c->ask.sent = 0;
		c->ask.again = 1;
		c->ask.since = net_ms();
		if (c->ask.msg.type != VFUN_MSG_ACTIVATE)
			continue;
		answer(c, VFUN_R_LOST, "vfund was replaced while this request was under way");
		ask_go_on(c);
	}
}

/* One message; 0 when there is none. */
static int
receive(void)
{
	struct imsg m;
	long n = fd_recv(net.engine.fd, &m, sizeof(m), NULL, 0, NULL);

	if (n == -EAGAIN)
		return 0;
	if (n != (long)sizeof(m)) {
		disconnect();
	} else if (m.type == IM_REPLY) {
		on_reply(&m);
	} else if (m.type == IM_DEL) {
		on_del(&m);
	} else {
		log_err("message %u from the engine", m.type);
	}
	return net.engine.fd >= 0;
}

static void
on_engine(struct loop_src *src, uint32_t events)
{
	(void)src;
	(void)events;
	(void)receive();
}

void
ask_connect(int fd)
{
	/* What the old engine said in the end is still true. */
	while (net.engine.fd >= 0 && receive())
		;
	disconnect();
	net.engine = (struct loop_src){ .fd = fd, .fn = on_engine };
	net.closed_told = net.closed_n > NET_CLOSED ? net.closed_n - NET_CLOSED : 0;
	if (loop_add(&net.loop, &net.engine, EPOLLIN))
		log_err("the engine's channel can't be waited for");
	ask_flush();
}

void
ask_times(struct conn *c, uint64_t now)
{
	if (c->state == CONN_OPEN && calls_ended(c))
		calls_gone(c);
	if (c->state != CONN_OPEN || !c->ask.used || c->ask.replied ||
	    now < c->ask.since + (c->ask.sent ? ANSWER_MS : ABSENT_MS))
		return;
	answer(c, VFUN_R_LOST, c->ask.sent ? "vfund does not answer" : "vfund's engine is not there");
	ask_go_on(c);
}
