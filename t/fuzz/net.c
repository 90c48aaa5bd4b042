/* SPDX-License-Identifier: MIT
 *
 * net.c - fuzz target: the network as the net process sees it
 *
 * Real: the net process (roles/net). Played here: clients, honest and not, who send frames or any bytes, hang up, or
 * don't read; the engine, with grants, instances and their end; services that answer, or write anything anywhere into
 * datain; and time.
 *
 * After each step the tables must be consistent: who is let in has proved it, what is written to a client is frames
 * whose bulk data lies in its arena. At the end everybody leaves, the engine has heard of it, and nothing is left.
 */
#include "fuzz.h"
#include "sys.h"

#include "../../roles/net/net.c"

#include "../../roles/common/fd.h"

#define PEERS 5
#define INSTANCES 64
#define SLOTS 4
#define ARENA 4096u
#define REGION (VFUN_PAGE + 4096u + ARENA)

/* The other end of a connection. */
struct peer {
	struct sys_file *sock; /* NULL: none */
	uint32_t number;       /* what the net process calls it */
	int proved;
	unsigned slow; /* takes so many bytes at a time; 0: all */
	struct net_in in;
};

static struct {
	struct input in;
	struct peer peer[PEERS];
	struct peer *connecting;
	struct sys_file *channel; /* the engine's; NULL: none */
	struct {
		struct sys_file *file[3];
		uint32_t handle;
		int shown;
	} instance[INSTANCES];
	unsigned instances;
	uint32_t closed; /* the last connection that the engine was told the end of */
	struct imsg ask; /* the last request */
} g;

static struct netd_state state;

void
sys_exit(int status)
{
	(void)status;
	abort();
}

/* ---- clients ---- */

static int
place_check(void *arg, const struct vfun_net_frame *f, const void *body, uint8_t **to)
{
	const struct peer *p = arg;

	(void)body;
	(void)to;
	CHECK(f->type == VFUN_NET_ANSWER && p->proved, "bulk data with type %u", f->type);
	CHECK(f->off <= ARENA && f->len <= ARENA - f->off, "bulk data outside of the arena");
	return 0;
}

static int
frame_check(void *arg, const struct vfun_net_frame *f, const void *body)
{
	struct peer *p = arg;
	struct vfun_answer a;

	switch (f->type) {
	case VFUN_NET_HELLO:
		break;
	case VFUN_NET_CONTROL:
		CHECK(((const struct vfun_msg *)body)->type & VFUN_MSG_REPLY, "not a reply");
		break;
	case VFUN_NET_ANSWER:
		memcpy(&a, body, sizeof(a));
		CHECK(a.len <= VFUN_PAYLOAD, "an answer's length");
		/* fallthrough */
	case VFUN_NET_WELCOME:
	case VFUN_NET_GONE:
		CHECK(p->proved, "type %u to somebody", f->type);
		break;
	default:
		CHECK(0, "type %u to a client", f->type);
	}
	return 0;
}

ssize_t
sys_written(struct sys_file *f, const struct iovec *iov, size_t n)
{
	static const struct net_reader reader = { place_check, frame_check };
	struct peer *p = f->owner;
	size_t done = 0;

	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < iov[i].iov_len; k++, done++) {
			if (p->slow && done == p->slow)
				return (ssize_t)done;
			p->in.buf[p->in.have++] = ((const uint8_t *)iov[i].iov_base)[k];
			if (p->in.have == sizeof(p->in.buf))
				CHECK(net_in_take(&p->in, &reader, p) == 0, "not a frame");
		}
	CHECK(net_in_take(&p->in, &reader, p) == 0, "not a frame");
	return (ssize_t)done;
}

int
sys_accept(int fd)
{
	(void)fd;
	if (!g.connecting) {
		errno = EAGAIN;
		return -1;
	}
	return sys_fd(g.connecting->sock);
}

static struct conn *
conn_of(const struct peer *p)
{
	for (unsigned i = 0; i < NET_CONNS; i++)
		if (net.conn[i].state != CONN_FREE && net.conn[i].number == p->number)
			return &net.conn[i];
	return NULL;
}

static void
peer_forget(struct peer *p)
{
	sys_file_put(p->sock);
	p->sock = NULL;
}

static void
peer_connect(struct peer *p)
{
	if (p->sock)
		return;
	memset(p, 0, sizeof(*p));
	p->sock = sys_file_new(SYS_SOCKET, 0);
	p->sock->stream = 1;
	p->sock->owner = p;
	g.connecting = p;
	conn_accept(&net.listener, EPOLLIN);
	g.connecting = NULL;
	p->number = net.next_number;
	if (p->sock->refs == 1)
		peer_forget(p); /* too many connect: it waits in the queue, for ever here */
}

static void
run(struct sys_file *f, uint32_t events)
{
	if (f && f->src)
		f->src->fn(f->src, events);
}

static void
say(struct peer *p, const void *bytes, size_t len)
{
	if (p->sock && len)
		sys_push(p->sock, bytes, len, NULL, 0);
	/* The kernel knows what is waited for. */
	for (struct conn *c; p->sock && p->sock->head && (c = conn_of(p)) && c->events & EPOLLIN;)
		run(p->sock, EPOLLIN);
}

static void
prove(struct peer *p, unsigned who)
{
	const struct conn *c = p->sock ? conn_of(p) : NULL;
	struct vfun_net_frame f = net_frame(VFUN_NET_AUTH, 0, 0);
	struct vfun_net_auth auth = { .version = VFUN_VERSION };
	uint8_t bytes[sizeof(f) + sizeof(auth)];

	if (!c || c->state != CONN_HELLO || c->in.have)
		return;
	strcpy(auth.client, state.client[who].key.client);
	net_prove(auth.proof, state.client[who].key.key, NET_CLIENT, &c->hello, &auth);
	p->proved = 1;
	memcpy(bytes, &f, sizeof(f));
	memcpy(bytes + sizeof(f), &auth, sizeof(auth));
	say(p, bytes, sizeof(bytes));
}

static void
message(struct vfun_msg *m)
{
	uint8_t shape = in_u8(&g.in);

	memset(m, 0, sizeof(*m));
	m->magic = VFUN_MSG_MAGIC;
	m->version = VFUN_VERSION;
	m->type = shape & 7;
	m->tag = shape;
	if (m->type == VFUN_MSG_ACTIVATE)
		m->body.activate.grant = shape & 0x80 ? in_u8(&g.in) : 1;
	if (m->type == VFUN_MSG_RELEASE)
		m->body.release.instance = shape & 0x80 ? in_u8(&g.in) : g.instances;
}

static void
request(const struct peer *p, struct vfun_request *r)
{
	const struct conn *c = conn_of(p);
	uint8_t shape = in_u8(&g.in);

	memset(r, 0, sizeof(*r));
	r->seq = (c ? c->calls.next : 0) + (shape & 0x80 ? in_u8(&g.in) : 1);
	r->cmd = (shape & 3) + 1;
	r->flags = shape >> 2 & 1;
	r->len = (uint16_t)((shape >> 3 & 7) * 8);
	if (shape & 0x40)
		in_bytes(&g.in, &r->cmd, 4);
	for (unsigned i = 0; i < 4; i++)
		r->payload.arg[i] = in_small(&g.in) * (i & 1 ? 16 : 8);
}

/* A frame that is well-formed as far as the input wants it to be. */
static void
say_frame(struct peer *p)
{
	uint8_t shape = in_u8(&g.in);
	struct vfun_net_frame f = net_frame((enum vfun_net_type)(shape & 7), 0, 0);
	uint8_t bytes[sizeof(f) + sizeof(struct vfun_msg) + 4096];
	size_t body = f.body <= sizeof(struct vfun_msg) ? f.body : 0;

	memset(bytes, 0, sizeof(bytes));
	if (f.type == VFUN_NET_CALL)
		request(p, (struct vfun_request *)(void *)(bytes + sizeof(f)));
	else if (f.type == VFUN_NET_CONTROL)
		message((struct vfun_msg *)(void *)(bytes + sizeof(f)));
	if (shape & 8) {
		f.off = in_small(&g.in) * 16;
		f.len = in_small(&g.in) * 16;
	}
	if (shape & 16)
		in_bytes(&g.in, (uint8_t *)&f + in_u8(&g.in) % sizeof(f), 1);
	memcpy(bytes, &f, sizeof(f));
	say(p, bytes, sizeof(f) + body + (f.len < 4096 && !(shape & 32) ? f.len : 0));
}

/* ---- the engine ---- */

int
sys_sent(struct sys_file *f, const void *msg, size_t len, struct sys_file **files, int n)
{
	const struct imsg *im = msg;

	(void)f;
	(void)files;
	CHECK(len == sizeof(*im) && !n, "%zu bytes", len);
	CHECK(im->client >= CONF_NET && im->client < CONF_NET + state.clients && im->handle, "client %u", im->client);
	CHECK(im->type == IM_REQUEST || im->type == IM_CLOSED || im->type == IM_FREE, "type %u", im->type);
	CHECK(im->type != IM_FREE || (im->instance < INSTANCES && g.instance[im->instance].handle == im->handle),
	    "another's instance");
	if (im->type == IM_REQUEST)
		g.ask = *im;
	else if (im->type == IM_CLOSED)
		g.closed = im->handle;
	return 0;
}

static void
engine_says(const struct imsg *im, struct sys_file *const *files, int n)
{
	if (!g.channel)
		return;
	sys_push(g.channel, im, sizeof(*im), files, n);
	while (g.channel && g.channel->head && g.channel->src)
		run(g.channel, EPOLLIN);
}

static void
engine_new(int there)
{
	if (g.channel) {
		g.channel->eof = 1;
		run(g.channel, EPOLLIN | EPOLLHUP);
		sys_file_put(g.channel);
	}
	g.channel = there ? sys_file_new(SYS_SOCKET, 0) : NULL;
	memset(&g.ask, 0, sizeof(g.ask));
	if (there)
		ask_connect(sys_fd(g.channel));
}

/* The launcher, on the engine's behalf. */
static void
add(uint64_t id, uint64_t out_size)
{
	struct keep_add add = { .handle = g.ask.handle, .id = id, .out_size = out_size, .in_size = REGION };
	int fds[3];

	g.instance[id].handle = g.ask.handle;
	g.instance[id].shown = 1;
	for (unsigned i = 0; i < 3; i++) {
		g.instance[id].file[i] = sys_file_new(i < 2 ? SYS_MEMORY : SYS_EVENT, i < 2 ? REGION : 0);
		fds[i] = sys_fd(g.instance[id].file[i]);
	}
	ask_add(&add, fds);
	for (unsigned i = 0; i < 3; i++)
		if (fds[i] >= 0)
			sys_close(fds[i]);
}

/* The engine answers what it was asked last. */
static void
engine_answers(uint8_t how)
{
	struct imsg im = { .type = IM_REPLY, .handle = g.ask.handle, .req = g.ask.req, .msg = g.ask.msg };
	struct vfun_msg *m = &im.msg;

	if (!g.ask.type)
		return;
	m->type |= VFUN_MSG_REPLY;
	m->reason = how & 1 ? VFUN_R_NO_RESOURCE : VFUN_OK;
	if (how & 2 && how & 1)
		m->type = VFUN_MSG_REPLY;
	memset(&m->body, 0, sizeof(m->body));
	if (g.ask.msg.type == VFUN_MSG_NEGOTIATE && !m->reason)
		m->body.grant =
		    (struct vfun_grant){ .grant = 1, .slots = SLOTS, .out_arena = ARENA, .in_arena = ARENA };
	if (g.ask.msg.type == VFUN_MSG_ACTIVATE && !m->reason && g.instances + 1 < INSTANCES) {
		m->body.active.instance = ++g.instances;
		if (!(how & 4))
			add(g.instances, how & 8 ? REGION + 4096 : REGION);
	}
	memset(&g.ask, 0, sizeof(g.ask));
	engine_says(&im, NULL, 0);
}

static void
engine_takes(uint64_t id)
{
	if (!g.instance[id].shown)
		return;
	g.instance[id].shown = 0;
	engine_says(&(struct imsg){ .type = IM_DEL, .instance = id, .handle = g.instance[id].handle }, NULL, 0);
	for (unsigned i = 0; i < 3; i++)
		sys_file_put(g.instance[id].file[i]);
}

/* ---- services ---- */

static void
service(uint8_t how)
{
	uint64_t id = g.instances ? 1 + (how >> 4) % g.instances : 0;
	uint8_t *in = g.instance[id].shown ? g.instance[id].file[1]->data : NULL;
	const struct vfun_request *r;
	struct vfun_answer a = { .state = VFUN_STATE_DONE };
	unsigned slot = how & 3;
	uint8_t bytes[64];

	if (!in)
		return;
	r = (const void *)(g.instance[id].file[0]->data + VFUN_PAGE + slot * VFUN_LINE);
	if (how & 4) {
		uint32_t off = in_u16(&g.in) % (REGION - 64);

		in_bytes(&g.in, bytes, sizeof(bytes));
		memcpy(in + off, bytes, sizeof(bytes));
	} else {
		a.seq = r->seq;
		a.flags = in_u8(&g.in);
		a.len = in_u8(&g.in) & 0x3f;
		a.payload.word[0] = in_small(&g.in) * 16;
		memcpy(in + VFUN_PAGE + slot * VFUN_LINE, &a, sizeof(a));
	}
	g.instance[id].file[2]->count++;
	if (how & 8)
		run(g.instance[id].file[2], EPOLLIN);
}

static void
step(void)
{
	uint8_t what = in_u8(&g.in);
	uint8_t arg = in_u8(&g.in);
	struct peer *p = &g.peer[arg % PEERS];
	struct conn *c;
	uint8_t bytes[256];

	switch (what % 14) {
	case 0:
		peer_connect(p);
		prove(p, arg >> 7);
		break;
	case 1:
		peer_connect(p);
		break;
	case 2:
		prove(p, arg >> 7);
		break;
	case 3:
	case 4:
		if (p->sock)
			say_frame(p);
		break;
	case 5:
		in_bytes(&g.in, bytes, arg);
		say(p, bytes, arg);
		break;
	case 6:
	case 7:
		engine_answers(arg);
		break;
	case 8:
		service(arg);
		break;
	case 9:
		(void)calls_poll();
		(void)calls_park();
		calls_unpark();
		break;
	case 10:
		engine_takes(1 + arg % (INSTANCES - 1));
		break;
	case 11:
		if (!p->sock)
			break;
		p->sock->full = arg >> 7;
		p->slow = arg >> 4 & 7;
		c = conn_of(p);
		if (c && c->events & EPOLLOUT && !p->sock->full)
			run(p->sock, EPOLLOUT);
		say(p, NULL, 0);
		break;
	case 12:
		sys_ms += arg * 50;
		times(net_ms());
		break;
	case 13:
		if (arg & 0x80) {
			engine_new(arg & 0x40);
		} else if (p->sock) {
			p->sock->eof = 1;
			run(p->sock, EPOLLIN | EPOLLRDHUP);
		}
		break;
	}
}

/* ---- what must hold ---- */

UNSEEN static void
check_all(void)
{
	unsigned conns = 0, flying = 0, busy = 0, fds = 2 + (g.channel != NULL), maps = 0;

	for (unsigned i = 0; i < PEERS; i++) {
		const struct conn *c = g.peer[i].sock ? conn_of(&g.peer[i]) : NULL;

		if (g.peer[i].sock && !c)
			peer_forget(&g.peer[i]);
		CHECK(!c || c->state != CONN_OPEN || g.peer[i].proved, "somebody is let in");
	}
	for (unsigned i = 0; i < NET_CONNS; i++) {
		const struct conn *c = &net.conn[i];
		unsigned n = 0;

		if (c->state == CONN_FREE)
			continue;
		conns++;
		fds += 1 + (c->calls.id != 0);
		maps += c->calls.id ? 2 : 0;
		for (unsigned s = 0; c->calls.id && s < VFUN_SLOTS_MAX; s++)
			n += c->calls.busy[s];
		CHECK(n == c->calls.flying, "%u in flight, not %u", n, c->calls.flying);
		CHECK(!n || net.busy[c->calls.busy_at] == c, "the list of those who wait");
		flying += n;
		busy += n != 0;
		CHECK(c->out_at <= c->out_end && c->out_end <= NET_OUT && c->in.have <= NET_BUFFER, "buffers");
	}
	CHECK(conns == net.conns && flying == net.flying && busy == net.nbusy, "numbers");
	CHECK(sys_fds() == fds && sys_maps() == maps, "%u descriptors instead of %u, %u mappings instead of %u",
	    sys_fds(), fds, sys_maps(), maps);
}

UNSEEN static void
leave(void)
{
	for (unsigned i = 0; i < PEERS; i++)
		if (g.peer[i].sock) {
			g.peer[i].sock->eof = 1;
			run(g.peer[i].sock, EPOLLIN | EPOLLRDHUP);
		}
	check_all();
	CHECK(!net.conns && !net.flying, "%u connections are left", net.conns);
	sys_ms += 1000;
	if (!g.channel)
		engine_new(1);
	times(net_ms());
	CHECK(net.closed_told == net.closed_n, "the engine isn't told of every end");
	for (uint64_t id = 1; id < INSTANCES; id++)
		engine_takes(id);
	engine_new(0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct conn conns[NET_CONNS];
	struct sys_file *listener;

	/* The buffers' content needs no cleaning. */
	for (unsigned i = 0; i < NET_CONNS; i++)
		conns[i].state = CONN_FREE;
	memset(&net, 0, sizeof(net));
	net.conn = conns;
	memset(&g, 0, sizeof(g));
	g.in = (struct input){ data, size };
	sys_start();
	state = (struct netd_state){ .clients = 2, .connections = 4, .idle_ms = 20000 };
	for (unsigned i = 0; i < 2; i++) {
		strcpy(state.client[i].key.client, i ? "b" : "a");
		memset(state.client[i].key.key, (int)i + 1, VFUN_NET_KEY);
		state.client[i].connections = 3;
	}
	net.st = &state;
	net.spare = net.engine.fd = -1;
	listener = sys_file_new(SYS_SOCKET, 0);
	net.listener = (struct loop_src){ .fd = sys_fd(listener), .fn = conn_accept };
	CHECK(!loop_add(&net.loop, &net.listener, EPOLLIN), "listener");
	net.events.fd = sys_fd(listener);
	engine_new(1);
	while (g.in.left) {
		step();
		check_all();
	}
	leave();
	sys_died();
	sys_file_put(listener);
	sys_end();
	return 0;
}
