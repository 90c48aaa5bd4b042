/* SPDX-License-Identifier: MIT
 *
 * net.c - path net, the client's connection: slots and bulk data over TCP
 *
 * Theory of operation
 *
 * The handle has two regions as with every other path, only that they are this process's own memory. A request is put
 * into dataout's ring as ever; net_flush(), where other paths ring, sends all that were submitted since the last time
 * in one write, each with the input that its bulk descriptor names. Answers are put into datain by net_receive(), first
 * the result, then the slot. So everything else (channel.c) looks at rings and arenas and knows nothing of a network.
 *
 * The socket never blocks. Who waits for an answer sleeps in ppoll(2); a writer waits for room, which the server makes
 * whatever we do: it reads requests even while we read no answers.
 *
 * What the server sends is checked: a frame that makes no sense ends the connection. Which slot an answer goes to is
 * decided by its seq alone, as in a mapping, so that a wrong one is nobody's answer.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "net.h"

#define STALL_MS 10000 /* how long a write may make no progress */
#define BATCH 32       /* requests in one write */
#define SECOND 1000000000u
#define SLEEP_NS (60ull * SECOND)

static int fail(struct net *n, int err, enum vfun_reason reason, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* The first reason stays: what follows is its consequence. */
static int
fail(struct net *n, int err, enum vfun_reason reason, const char *fmt, ...)
{
	va_list ap;

	if (n->err)
		return n->err;
	va_start(ap, fmt);
	vsnprintf(n->text, sizeof(n->text), fmt, ap);
	va_end(ap);
	n->reason = reason;
	return n->err = err;
}

static int
lost(struct net *n, int err)
{
	return fail(n, -ECONNRESET, VFUN_R_GONE, "the connection to the server is lost: %s",
	    err ? strerror(err) : "the server has closed it");
}

static int
nonsense(struct net *n)
{
	return fail(n, -EPROTO, VFUN_R_MALFORMED, "what is at the server's address doesn't speak vfun");
}

/* Wait for events on the socket until then. 1, or 0 when the time is over. */
static int
wait_for(const struct net *n, short events, uint64_t until)
{
	struct pollfd p = { .fd = n->fd, .events = events };
	uint64_t now = client_ns();
	uint64_t left = now < until ? until - now : 0;
	struct timespec ts = { .tv_sec = (time_t)(left / SECOND), .tv_nsec = (long)(left % SECOND) };

	return ppoll(&p, 1, &ts, NULL) != 0;
}

/* ---- sending ---- */

/* All of it; iov is used up. */
static int
send_all(struct net *n, struct iovec *iov, int count)
{
	while (!n->err && count) {
		struct msghdr mh = { .msg_iov = iov, .msg_iovlen = (size_t)count };
		ssize_t sent = sendmsg(n->fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent < 0 && errno == EAGAIN && !wait_for(n, POLLOUT, client_ns() + STALL_MS * 1000000ull))
			return lost(n, ETIMEDOUT);
		if (sent < 0 && errno != EAGAIN && errno != EINTR)
			return lost(n, errno);
		for (; sent > 0 && (size_t)sent >= iov->iov_len; count--, iov++)
			sent -= (ssize_t)iov->iov_len;
		if (sent > 0) {
			iov->iov_base = (char *)iov->iov_base + sent;
			iov->iov_len -= (size_t)sent;
		}
	}
	return n->err;
}

static int
send_frame(struct net *n, enum vfun_net_type type, void *body)
{
	struct vfun_net_frame f = net_frame(type, 0, 0);
	struct iovec iov[2] = { { &f, sizeof(f) }, { body, f.body } };

	return send_all(n, iov, 2);
}

static uint64_t
arena_at(const struct vfun *v)
{
	return VFUN_PAGE + vfun_ring_size(v->grant.slots);
}

/* The frame for a slot: with its input, if it names one that is there. What else may be wrong with it is for the
 * service to say. */
static struct vfun_net_frame
call_frame(const struct vfun *v, const uint8_t *slot)
{
	struct vfun_request r;
	struct vfun_bulk b;

	memcpy(&r, slot, sizeof(r));
	memcpy(&b, r.payload.bytes, sizeof(b));
	if (!(r.flags & VFUN_SLOT_BULK) || r.len < sizeof(b) || b.in_off > v->grant.out_arena ||
	    b.in_len > v->grant.out_arena - b.in_off)
		return net_frame(VFUN_NET_CALL, 0, 0);
	return net_frame(VFUN_NET_CALL, b.in_off, b.in_len);
}

int
net_flush(struct vfun *v)
{
	struct net *n = v->net;

	while (!n->err && n->sent != v->next) {
		struct vfun_net_frame frame[BATCH];
		struct iovec iov[3 * BATCH];
		int count = 0;

		for (unsigned i = 0; i < BATCH && n->sent != v->next; i++, n->sent++) {
			uint8_t *slot =
			    v->out.map + VFUN_PAGE + (n->sent & (v->grant.slots - 1u)) * (uint64_t)VFUN_LINE;

			frame[i] = call_frame(v, slot);
			iov[count++] = (struct iovec){ &frame[i], sizeof(frame[i]) };
			iov[count++] = (struct iovec){ slot, VFUN_LINE };
			if (frame[i].len)
				iov[count++] = (struct iovec){ v->out.map + arena_at(v) + frame[i].off, frame[i].len };
		}
		send_all(n, iov, count);
	}
	return n->err ? client_fail(v, n->err, n->reason, "%s", n->text) : 0;
}

/* ---- receiving ---- */

/* A message that answers nothing: why the connection ends. */
static int
farewell(struct net *n, int err, const struct vfun_msg *m)
{
	return fail(n, err, (enum vfun_reason)m->reason, "%.*s", VFUN_TEXT_MAX - 1, m->text);
}

/* An answer's result: into datain's arena. */
static int
place(void *arg, const struct vfun_net_frame *f, const void *body, uint8_t **to)
{
	struct net *n = arg;
	const struct vfun *v = n->v;

	(void)body;
	if (f->type != VFUN_NET_ANSWER || !v || f->off > v->grant.in_arena || f->len > v->grant.in_arena - f->off)
		return nonsense(n);
	/* While the handle is being closed answers go nowhere. */
	if (v->in.map)
		*to = v->in.map + arena_at(v) + f->off;
	return 0;
}

static int
answer(struct net *n, const void *body)
{
	const struct vfun *v = n->v;
	struct vfun_answer a;

	if (!v || !v->in.map)
		return v ? 0 : nonsense(n);
	memcpy(&a, body, sizeof(a));
	memcpy(v->in.map + VFUN_PAGE + ((a.seq - 1) & (v->grant.slots - 1u)) * (uint64_t)VFUN_LINE, &a, sizeof(a));
	return 0;
}

static int
frame(void *arg, const struct vfun_net_frame *f, const void *body)
{
	struct net *n = arg;
	struct vfun_net_gone gone;

	switch (f->type) {
	case VFUN_NET_ANSWER:
		return answer(n, body);
	case VFUN_NET_CONTROL:
		memcpy(&n->reply, body, sizeof(n->reply));
		n->replied = n->reply.type != VFUN_MSG_REPLY;
		return n->replied ? 0 : farewell(n, -ECONNRESET, &n->reply);
	case VFUN_NET_GONE:
		if (!n->v || !n->v->in.map)
			return n->v ? 0 : nonsense(n);
		memcpy(&gone, body, sizeof(gone));
		((struct vfun_hdr *)(void *)n->v->in.map)->gone = gone.reason;
		return 0;
	default:
		return nonsense(n);
	}
}

/* Take in what has arrived. */
static int
pump(struct net *n)
{
	static const struct net_reader reader = { place, frame };

	for (;;) {
		size_t room;
		uint8_t *to = net_in_room(&n->in, &room);
		ssize_t got = n->err ? -1 : recv(n->fd, to, room, MSG_DONTWAIT);

		if (n->err || (got < 0 && errno == EAGAIN))
			return n->err;
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return lost(n, got ? errno : 0);
		net_in_got(&n->in, (size_t)got);
		if (net_in_take(&n->in, &reader, n) < 0)
			return nonsense(n);
		if ((size_t)got < room)
			return n->err;
	}
}

int
net_receive(struct vfun *v)
{
	struct net *n = v->net;

	return pump(n) ? client_fail(v, n->err, n->reason, "%s", n->text) : 0;
}

int
net_cancel(struct vfun *v, uint32_t seq)
{
	struct net *n = v->net;
	struct vfun_net_cancel cancel = { .seq = seq };
	int r = net_flush(v);

	if (!r && send_frame(n, VFUN_NET_CANCEL, &cancel))
		r = client_fail(v, n->err, n->reason, "%s", n->text);
	return r;
}

void
net_sleep(const struct vfun *v, uint64_t ns)
{
	(void)wait_for(v->net, POLLIN, client_ns() + (ns < SLEEP_NS ? ns : SLEEP_NS));
}

int
net_control(struct net *n, struct vfun_msg *msg, unsigned timeout_ms)
{
	uint64_t until = client_ns() + (uint64_t)timeout_ms * 1000000u;
	uint32_t tag = msg->tag;

	n->replied = 0;
	send_frame(n, VFUN_NET_CONTROL, msg);
	while (!pump(n)) {
		/* A reply to an older request is skipped. */
		if (n->replied && n->reply.tag == tag) {
			*msg = n->reply;
			return 0;
		}
		if (!wait_for(n, POLLIN, until))
			return -ETIMEDOUT;
	}
	return n->err;
}

/* ---- opening ---- */

static int
receive_exactly(struct net *n, void *to, size_t len, uint64_t until)
{
	char *p = to;

	while (len) {
		ssize_t got = recv(n->fd, p, len, MSG_DONTWAIT);

		if (got > 0) {
			p += got;
			len -= (size_t)got;
		} else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
			return lost(n, got ? errno : 0);
		} else if (!wait_for(n, POLLIN, until)) {
			return fail(n, -ETIMEDOUT, VFUN_R_TIMEOUT, "the server does not answer in time");
		}
	}
	return 0;
}

/* The one frame that may come now; or a refusal. */
static int
receive_step(struct net *n, enum vfun_net_type type, void *body, uint64_t until)
{
	struct vfun_net_frame f;
	struct vfun_msg m;
	int r = receive_exactly(n, &f, sizeof(f), until);

	if (r)
		return r;
	if (!net_frame_ok(&f) || f.len || (f.type != type && f.type != VFUN_NET_CONTROL))
		return nonsense(n);
	if (f.type == type)
		return receive_exactly(n, body, f.body, until);
	r = receive_exactly(n, &m, sizeof(m), until);
	return r ? r : farewell(n, -EACCES, &m);
}

/* Both sides prove that they know the key. */
static int
authenticate(struct net *n, const struct net_key *key, uint64_t until)
{
	struct vfun_net_auth auth = { .version = VFUN_VERSION };
	struct vfun_net_welcome welcome = { { 0 } };
	struct vfun_net_hello hello = { 0 };
	uint8_t proof[VFUN_NET_KEY];
	int r = receive_step(n, VFUN_NET_HELLO, &hello, until);

	if (r)
		return r;
	if (hello.version >> 8 != VFUN_VERSION >> 8)
		return fail(n, -EACCES, VFUN_R_VERSION, "the server speaks protocol version %u, not %u",
		    hello.version >> 8, VFUN_VERSION >> 8);
	if (getrandom(auth.nonce, sizeof(auth.nonce), 0) != (ssize_t)sizeof(auth.nonce))
		return fail(n, -errno, VFUN_OK, "no random numbers: %s", strerror(errno));
	strcpy(auth.client, key->client);
	net_prove(auth.proof, key->key, NET_CLIENT, &hello, &auth);
	r = send_frame(n, VFUN_NET_AUTH, &auth);
	if (!r)
		r = receive_step(n, VFUN_NET_WELCOME, &welcome, until);
	if (r)
		return r;
	net_prove(proof, key->key, NET_SERVER, &hello, &auth);
	return net_proof_equal(proof, welcome.proof)
		   ? 0
		   : fail(
			 n, -EACCES, VFUN_R_DENIED, "the server doesn't know this key: it is not the one it should be");
}

static int
connect_to(struct net *n, const char *server, uint64_t until)
{
	struct sockaddr_storage sa;
	socklen_t len;
	int err = 0;
	int one = 1;

	if (net_address(server, &sa, &len))
		return fail(
		    n, -ENOENT, VFUN_OK, "server '%s': neither ADDRESS:PORT nor [ADDRESS]:PORT, in numbers", server);
	n->fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (n->fd < 0)
		return fail(n, -errno, VFUN_OK, "socket: %s", strerror(errno));
	if (connect(n->fd, (struct sockaddr *)&sa, len) < 0)
		err = errno;
	len = sizeof(err);
	if (err == EINPROGRESS && !wait_for(n, POLLOUT, until))
		return fail(n, -ETIMEDOUT, VFUN_R_TIMEOUT, "%s does not answer in time", server);
	if (err == EINPROGRESS && getsockopt(n->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
		err = errno;
	if (err)
		return fail(n, -ENOENT, VFUN_R_GONE, "no vfund at %s: %s", server, strerror(err));
	(void)setsockopt(n->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return 0;
}

int
net_open(struct net *n, const char *server, const char *key_file, unsigned timeout_ms)
{
	uint64_t until = client_ns() + (uint64_t)timeout_ms * 1000000u;
	struct net_key key;
	const char *fault;
	int r;

	memset(n, 0, sizeof(*n));
	n->fd = -1;
	if (!server)
		server = getenv("VFUN_SERVER");
	if (!key_file)
		key_file = getenv("VFUN_KEY_FILE");
	if (!server || !*server)
		return fail(n, -ENOENT, VFUN_OK, "path net needs a server: set VFUN_SERVER, or the option server");
	if (!key_file || !*key_file)
		return fail(n, -EINVAL, VFUN_OK, "path net needs a key: --key-file, or VFUN_KEY_FILE");
	fault = net_key_read(&key, key_file);
	r = fault ? fail(n, -EINVAL, VFUN_OK, "key file %s: %s", key_file, fault) : connect_to(n, server, until);
	if (!r)
		r = authenticate(n, &key, until);
	explicit_bzero(&key, sizeof(key));
	return r;
}

void
net_close(struct net *n)
{
	if (n->fd >= 0)
		close(n->fd);
	n->fd = -1;
}

static int
own_memory(struct region *r)
{
	void *p = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	r->map = p;
	return 0;
}

int
net_regions(struct vfun *v)
{
	struct vfun_hdr *h;
	int r = own_memory(&v->out);

	if (!r)
		r = own_memory(&v->in);
	if (r)
		return r;
	h = (void *)v->in.map;
	h->magic = VFUN_IN_MAGIC;
	h->session = v->active.session;
	h->instance = v->active.instance;
	h->size = v->in.size;
	h->slots = v->grant.slots;
	v->net->sent = 0;
	return 0;
}
