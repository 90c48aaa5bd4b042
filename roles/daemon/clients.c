/* SPDX-License-Identifier: MIT
 *
 * clients.c - how control messages reach the engine: connections on the host, channels to the shares (and remote.c)
 *
 * A connection is kept by the launcher (keep.h) as soon as it is accepted, so it survives the engine. Its requests are
 * looked at with MSG_PEEK, acted on, and taken off the queue only then: an engine that dies in between leaves the
 * request to its successor. The client may thus see a reply twice; it tells them apart by the tag.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "engine.h"
#include "rate.h"

#define ACCEPTS 5		       /* connections accepted before others have their turn */
#define WAITING 512		       /* see struct waiting */
#define WAITING_USER ENGINE_CONNS_USER /* of them, one user's */
#define GREEDY_FROM 4		       /* that many are more than a user needs who waits for his answers */
#define LISTEN_PAUSE_MS 1
#define RESERVED_NEW 64	 /* places for connections of users who have none */
#define RESERVED_ROOT 16 /* and for root and the administrator */

/* When sources whose client's budget was used up (rate.h) are looked at again, ms; 0: there are none. */
static int64_t resume_at;

void
clients_pause(struct loop_src *src)
{
	if (loop_mod(&engine.loop, src, 0) == 0 && !resume_at)
		resume_at = rate_ms() + RATE_PAUSE_MS;
}

/* Likewise, where not even that it has hung up is to be told: that can't be masked. */
static void
pause_hung_up(struct loop_src *src)
{
	loop_del(&engine.loop, src);
	if (!resume_at)
		resume_at = rate_ms() + RATE_PAUSE_MS;
}

static void
resume(void)
{
	resume_at = 0;
	for (unsigned i = 0; i < ENGINE_CONNS; i++)
		if (engine.conn[i].fd >= 0 && loop_mod(&engine.loop, &engine.conn[i], EPOLLIN))
			(void)loop_add(&engine.loop, &engine.conn[i], EPOLLIN);
	for (unsigned i = 0; i < CONF_VMS_MAX; i++)
		if (engine.share[i].fd >= 0)
			(void)loop_mod(&engine.loop, &engine.share[i], EPOLLIN);
	if (engine.net.fd >= 0)
		(void)loop_mod(&engine.loop, &engine.net, EPOLLIN);
}

void
clients_name(const struct asker *who, char name[VFUN_NAME_MAX])
{
	if (who->vm == CONF_HOST)
		snprintf(name, VFUN_NAME_MAX, "uid-%u", who->uid);
	else
		snprintf(name, VFUN_NAME_MAX, "%s", engine.st->conf.vm[who->vm].name);
}

void
clients_discard(int fd)
{
	if (engine.st->no_rights)
		close(fd);
	else
		keep_close(&engine.keep, fd);
}

static void
conn_close(unsigned i)
{
	struct conn *c = &engine.st->conn[i];
	uint32_t number = c->number;

	if (engine.conn[i].fd >= 0)
		loop_del(&engine.loop, &engine.conn[i]);
	engine.conn[i].fd = -1;
	/* The number goes last: until then a successor would find the connection closed and do the rest. */
	grants_drop(CONF_HOST, number);
	instances_of_handle_over(CONF_HOST, number);
	(void)keep_drop(&engine.keep, SLOT_CONNS + i);
	c->number = 0;
}

static void
conn_message(unsigned i, const struct vfun_msg *msg)
{
	const struct conn *c = &engine.st->conn[i];
	struct asker who = { .vm = CONF_HOST,
		.handle = c->number,
		.req = msg->tag,
		.uid = c->uid,
		.gid = c->gid,
		.account = c->account,
		.admin = c->admin,
		.tag = msg->tag };

	control_message(&who, msg);
}

static void
on_conn(struct loop_src *src, uint32_t events)
{
	unsigned i = (unsigned)(src - engine.conn);
	uint32_t number = engine.st->conn[i].number;
	struct vfun_msg msg;
	struct iovec iov = { .iov_base = &msg, .iov_len = sizeof(msg) };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	char byte;
	ssize_t n;

	/* Who has hung up wants no reply, whatever he still has in the queue. */
	if (events & EPOLLHUP) {
		if (engine.st->conn[i].admin || rate_take(CONF_HOST, engine.st->conn[i].account, RATE_HANG_UP))
			conn_close(i);
		else
			pause_hung_up(src);
		return;
	}
	if (!engine.st->conn[i].admin && !rate_take(CONF_HOST, engine.st->conn[i].account, 1)) {
		clients_pause(src);
		return;
	}
	n = recvmsg(src->fd, &mh, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* With descriptors: to take such a message off the queue is to close them. */
	if (n <= 0 || mh.msg_flags & MSG_CTRUNC) {
		conn_close(i);
		return;
	}
	if (n != (ssize_t)sizeof(msg)) {
		struct asker who = { .vm = CONF_HOST, .handle = number };

		control_nack(&who, 0, VFUN_R_MALFORMED, "a message has %zu bytes, not %zd", sizeof(msg), n);
	} else {
		conn_message(i, &msg);
	}
	/* Unless answering has closed it. */
	if (engine.st->conn[i].number == number && src->fd >= 0)
		(void)recv(src->fd, &byte, sizeof(byte), MSG_DONTWAIT | MSG_TRUNC);
}

static int
conn_watch(unsigned i)
{
	engine.conn[i] = (struct loop_src){ .fd = engine.keep.fds[SLOT_CONNS + i], .fn = on_conn };
	return loop_add(&engine.loop, &engine.conn[i], EPOLLIN);
}

static uint32_t
new_number(void)
{
	if (++engine.st->next_conn == 0)
		engine.st->next_conn = 1;
	return engine.st->next_conn;
}

/* Who is at the other end of a connection. */
struct peer {
	uint32_t pid, uid, gid;
	uint32_t account; /* as in struct asker */
};

static unsigned
conns_of(uint32_t account)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ENGINE_CONNS; i++)
		n += engine.st->conn[i].number && !engine.st->conn[i].admin && engine.st->conn[i].account == account;
	return n;
}

/* Where there is no place for a connection: its one nack, whatever it was going to ask, hence with tag 0. */
static void
conn_refuse(int fd, const char *why)
{
	const struct asker nobody = { .vm = CONF_HOST };
	struct vfun_msg m;

	control_reply_init(&m, &nobody, 0, VFUN_R_NO_RESOURCE);
	snprintf(m.text, sizeof(m.text), "%s", why);
	(void)fd_send(fd, &m, sizeof(m), NULL, 0);
	clients_discard(fd);
}

static int spare = -1; /* see fd_accept() */

/*
 * Connections that are accepted, but nothing else so far. Keeping one takes two round trips to the launcher in all: who
 * has several, and no budget for more, waits here, and users then take turns. In order of arrival.
 */
static struct waiting {
	int fd;
	struct peer peer;
} waiting[WAITING];
static int64_t admit_at;  /* when somebody may have his turn, ms; 0: nobody waits */
static int64_t listen_at; /* when the next connections are accepted; 0: they are */

/* Why this user gets no connection, or NULL and where it goes. The last places are for those who have none, and of
 * these the very last for root and the administrator: with many users it takes no more to shut everybody out. */
static const char *
conn_place(const struct peer *peer, uint32_t admin, unsigned *place)
{
	unsigned n = admin ? 0 : conns_of(peer->account);
	unsigned left = 0;

	for (unsigned i = ENGINE_CONNS; i-- > 0;)
		if (!engine.st->conn[i].number) {
			*place = i;
			left++;
		}
	if (n >= ENGINE_CONNS_USER)
		return "this user has as many connections to vfund as he may";
	if (left > (admin || !peer->uid ? 0 : n ? RESERVED_NEW + RESERVED_ROOT : RESERVED_ROOT))
		return NULL;
	if (rate_lines())
		log_warn("a connection of uid %u is turned away: there are too many", peer->uid);
	return "vfund has as many connections as it can";
}

/* paid: 0 where its requests have to wait for the budget. */
static void
conn_admit(int fd, const struct peer *peer, uint32_t admin, int paid)
{
	unsigned i = 0;
	const char *why = conn_place(peer, admin, &i);

	if (why) {
		conn_refuse(fd, why);
		return;
	}
	/* The number last: a kept descriptor without one is a connection that an engine was killed over, see
	 * clients_start(). */
	engine.st->conn[i] = (struct conn){
		.uid = peer->uid, .gid = peer->gid, .pid = peer->pid, .admin = admin, .account = peer->account
	};
	if (keep_store(&engine.keep, SLOT_CONNS + i, fd)) {
		clients_discard(fd);
		return;
	}
	engine.st->conn[i].number = new_number();
	if (conn_watch(i))
		conn_close(i);
	else if (!paid)
		clients_pause(&engine.conn[i]);
}

/* May it be kept? A few are in any case: one that is only accepted is lost if this engine is killed. */
static int
conn_try(int fd, const struct peer *peer)
{
	int paid = rate_take(CONF_HOST, peer->account, RATE_CONNECT);

	if (!paid && conns_of(peer->account) >= GREEDY_FROM)
		return 0;
	conn_admit(fd, peer, 0, paid);
	return 1;
}

/* Has who connected gone already, whatever he has left in the queue? Then it isn't worth to tell the launcher. */
static int
gone(int fd)
{
	struct pollfd p = { .fd = fd };

	return poll(&p, 1, 0) == 1 && p.revents & POLLHUP;
}

/* One of each user's, if his budget allows it. */
static void
admit(void)
{
	uint32_t seen[WAITING];
	unsigned left = 0;
	unsigned n = 0;

	admit_at = 0;
	for (unsigned i = 0; i < engine.waiters; i++) {
		struct waiting w = waiting[i];
		unsigned k = 0;
		int64_t next = rate_ms();

		while (k < n && seen[k] != w.peer.account)
			k++;
		if (k == n && gone(w.fd)) {
			clients_discard(w.fd);
			continue;
		}
		if (k == n) {
			seen[n++] = w.peer.account;
			if (conn_try(w.fd, &w.peer))
				continue;
			next += RATE_PAUSE_MS;
		}
		if (!admit_at || next < admit_at)
			admit_at = next;
		waiting[left++] = w;
	}
	engine.waiters = left;
}

static unsigned
waiting_of(uint32_t account)
{
	unsigned n = 0;

	for (unsigned i = 0; i < engine.waiters; i++)
		n += waiting[i].peer.account == account;
	return n;
}

enum { NOBODY, SOMEBODY, GREEDY };

/* Whose connection was it? */
static int
conn_accept(int listener, uint32_t admin)
{
	int fd = fd_accept(listener, &spare, clients_discard);
	struct ucred cred;
	socklen_t len = sizeof(cred);
	struct peer peer;
	unsigned his;

	if (fd < 0)
		return NOBODY;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || (!admin && gone(fd))) {
		clients_discard(fd);
		return GREEDY;
	}
	peer = (struct peer){ .pid = (uint32_t)cred.pid,
		.uid = cred.uid,
		.gid = cred.gid,
		.account = conf_account(&engine.st->conf, cred.uid) };
	if (admin) {
		conn_admit(fd, &peer, 1, 1);
		return SOMEBODY;
	}
	his = waiting_of(peer.account);
	if (!his && conn_try(fd, &peer))
		return SOMEBODY;
	if (engine.waiters == WAITING || his >= WAITING_USER) {
		conn_refuse(fd, "this user opens too many connections to vfund at a time");
		return GREEDY;
	}
	waiting[engine.waiters++] = (struct waiting){ .fd = fd, .peer = peer };
	admit_at = rate_ms();
	return his < GREEDY_FROM ? SOMEBODY : GREEDY;
}

/* Several at a time: those whose users have gone are many, and somebody waits behind them. Where they are all of that
 * kind, those who open them wait for a moment as well, instead of keeping us busy. */
static void
on_control(struct loop_src *src, uint32_t events)
{
	int best = NOBODY;

	(void)events;
	for (unsigned i = 0; i < ACCEPTS; i++) {
		int who = conn_accept(src->fd, 0);

		if (who == NOBODY)
			break;
		if (best != SOMEBODY)
			best = who;
	}
	if (best == GREEDY && loop_mod(&engine.loop, src, 0) == 0)
		listen_at = rate_ms() + LISTEN_PAUSE_MS;
}

static void
on_admin(struct loop_src *src, uint32_t events)
{
	(void)events;
	(void)conn_accept(src->fd, 1);
}

int
clients_start(void)
{
	int r;

	engine.waiters = 0;
	admit_at = resume_at = listen_at = 0;
	engine.net.fd = -1;
	for (unsigned i = 0; i < CONF_VMS_MAX; i++)
		engine.share[i].fd = -1;
	for (unsigned i = 0; i < ENGINE_CONNS; i++) {
		struct conn *c = &engine.st->conn[i];
		int kept = engine.keep.fds[SLOT_CONNS + i] >= 0;

		engine.conn[i].fd = -1;
		if (!c->number && kept)
			c->number = new_number();
		if (c->number && (!kept || conn_watch(i)))
			conn_close(i);
	}
	engine.control = (struct loop_src){ .fd = engine.keep.fds[SLOT_CONTROL], .fn = on_control };
	engine.admin = (struct loop_src){ .fd = engine.keep.fds[SLOT_ADMIN], .fn = on_admin };
	r = loop_add(&engine.loop, &engine.control, EPOLLIN);
	return r ? r : loop_add(&engine.loop, &engine.admin, EPOLLIN);
}

/* Shares, and the net process */

void
clients_to_share(uint32_t vm, const struct imsg *im)
{
	struct loop_src *src = vm >= CONF_NET ? &engine.net : &engine.share[vm];
	int r = src->fd < 0 ? 0 : fd_send(src->fd, im, sizeof(*im), NULL, 0);

	/* A share that is gone gets it all again from its successor's introduction. One that doesn't read is broken:
	 * without its channel it reconnects through the launcher when it is replaced. */
	if (r && r != -EPIPE && r != -ECONNRESET && rate_line(vm, 0))
		log_warn("%s: its share, or the net process, doesn't take a message: %s", engine.st->conf.vm[vm].name,
		    strerror(-r));
}

static void
share_closed(uint32_t vm)
{
	struct loop_src *src = &engine.share[vm];

	if (src->fd < 0)
		return;
	loop_del(&engine.loop, src);
	clients_discard(src->fd);
	src->fd = -1;
}

static void
on_share(struct loop_src *src, uint32_t events)
{
	uint32_t vm = (uint32_t)(src - engine.share);
	struct imsg im;
	struct asker who;
	long n;

	if (!(events & EPOLLHUP) && !rate_take(vm, 0, 1)) {
		clients_pause(src);
		return;
	}
	n = fd_recv(src->fd, &im, sizeof(im), NULL, 0, NULL);
	if (n == -EAGAIN)
		return;
	if (n != (long)sizeof(im)) {
		share_closed(vm);
		return;
	}
	who = (struct asker){ .vm = vm,
		.handle = im.handle,
		.req = im.req,
		.uid = im.uid,
		.gid = im.gid,
		.account = im.uid,
		.tag = im.msg.tag };
	switch (im.type) {
	case IM_REQUEST:
		engine.st->vm[vm].dax = im.dax != 0;
		if (im.handle)
			control_message(&who, &im.msg);
		break;
	case IM_CLOSED:
		if (im.handle)
			grants_drop(vm, im.handle);
		break;
	case IM_LEASE_END:
		instance_lease_over(vm, im.instance);
		break;
	case IM_FREE:
		instance_free(vm, im.instance);
		break;
	default:
		if (rate_line(vm, 0))
			log_warn("VM %s: its share sent a message of type %u", engine.st->conf.vm[vm].name, im.type);
	}
}

static int
is_vm(uint32_t vm)
{
	return vm < CONF_VMS_MAX && engine.st->conf.vm[vm].name[0];
}

/* A VM that vfun.conf doesn't have comes, changes, or goes. */
void
clients_vm(const struct keep_vm *vm)
{
	if (vm->index < engine.st->conf.vms || vm->index >= CONF_VMS_MAX)
		return;
	engine.st->conf.vm[vm->index] = vm->conf;
}

void
clients_share(const struct keep_peer *peer, int fd)
{
	uint32_t vm = peer->vm;

	if (!is_vm(vm)) {
		clients_discard(fd);
		return;
	}
	share_closed(vm);
	engine.share[vm] = (struct loop_src){ .fd = fd, .fn = on_share };
	if (loop_add(&engine.loop, &engine.share[vm], EPOLLIN)) {
		clients_discard(fd);
		engine.share[vm].fd = -1;
		return;
	}
	engine.st->vm[vm].connected = peer->pid;
	engine.st->vm[vm].bar = peer->bar;
	instances_hide(vm);
	instances_show(vm);
}

void
clients_share_gone(uint32_t vm)
{
	if (!is_vm(vm))
		return;
	share_closed(vm);
	engine.st->vm[vm].connected = 0;
	engine.st->vm[vm].bar = 0;
	grants_drop(vm, 0);
	instances_of_vm_over(vm);
}

/* Index of a connection that is there, or ENGINE_CONNS. */
static unsigned
conn_of(const struct asker *who)
{
	unsigned i = 0;

	while (i < ENGINE_CONNS && (who->vm != CONF_HOST || !who->handle || engine.st->conn[i].number != who->handle))
		i++;
	return i;
}

uint32_t
clients_slot(const struct asker *who)
{
	return SLOT_CONNS + conn_of(who);
}

void
clients_cut_off(const struct asker *who)
{
	unsigned i = conn_of(who);

	if (i < ENGINE_CONNS)
		conn_close(i);
}

void
clients_reply(const struct asker *who, const struct vfun_msg *msg)
{
	unsigned i = conn_of(who);

	if (who->vm != CONF_HOST) {
		struct imsg im = { .type = IM_REPLY, .handle = who->handle, .req = who->req, .msg = *msg };

		clients_to_share(who->vm, &im);
		return;
	}
	/* A client that doesn't read its replies is cut off; it holds up nobody. */
	if (i < ENGINE_CONNS && engine.conn[i].fd >= 0 && fd_send(engine.conn[i].fd, msg, sizeof(*msg), NULL, 0))
		conn_close(i);
}

int
clients_timeout(void)
{
	const int64_t at[] = { resume_at, admit_at, listen_at };
	int64_t first = 0;

	for (unsigned i = 0; i < 3; i++)
		if (at[i] && (!first || at[i] < first))
			first = at[i];
	return !first ? -1 : first > rate_ms() ? (int)(first - rate_ms()) : 0;
}

void
clients_resume(void)
{
	int64_t now = rate_ms();

	if (listen_at && now >= listen_at) {
		listen_at = 0;
		(void)loop_mod(&engine.loop, &engine.control, EPOLLIN);
	}
	if (admit_at && now >= admit_at)
		admit();
	if (resume_at && now >= resume_at)
		resume();
}
