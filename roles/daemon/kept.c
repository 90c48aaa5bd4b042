/* SPDX-License-Identifier: MIT
 *
 * kept.c - the launcher's side of keep.h: children that are replaced when they die
 *
 *   (nothing) --kept_init--> idle --kept_start--> running --died, not status 0--> running (successor, same state and
 * fds) |  \--died DEATHS_MAX times within DEATHS_MS--> ended
 *                                                   \--exit status 0--> ended
 *
 * Where a successor can't be started, or doesn't come to serve, the next one is tried after a while, for ever: what it
 * takes may be used up by others now. Some descriptors are held in reserve for that.
 *
 * The launcher looks into none of the bytes that it passes on: what comes from a guest is never parsed with privileges.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "launcher.h"
#include "rate.h"

#define DEATHS_MAX 100 /* within DEATHS_MS: somebody kills it for fun, or it can't live */
#define DEATHS_MS 20000
#define EVENTS_MAX 8192	  /* queued for one child */
#define REQUESTS_MAX 1024 /* of a dead child: more than its socket takes. Who else has that socket may send on. */
#define PENDING_MAX 64	  /* descriptors that wait to be closed: then the child waits as well */
#define DYING_MS 1000	  /* how long one that was killed may take to end */
#define RETRY_MS 100	  /* to the next start after one that failed; twice as long after each */
#define RETRY_MAX 5000

static void
close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* What a child has sent, or may have sent something into: another process closes it (closer.c). */
static void
put_away(struct kept *k, int *fd)
{
	closer_put(k->l, *fd, k);
	*fd = -1;
}

void
kept_replace(struct kept *k)
{
	kill(k->pid, SIGKILL);
	k->killed = launcher_ms();
	k->l->attention = 1;
}

int
kept_hopeless(const struct kept *k)
{
	return k->hopeless;
}

int
kept_init(struct kept *k)
{
	k->state = fd_memfd("vfun-state", KEEP_STATE_SIZE, NULL);
	if (k->state < 0)
		return k->state;
	k->start.state_size = KEEP_STATE_SIZE;
	k->start.takeover = 0;
	k->commits = 0;
	k->pid = 0;
	k->deaths = 0;
	k->up = k->serving = 0;
	k->failed = 0;
	k->first = k->last = NULL;
	k->queued = 0;
	k->killed = k->asked = 0;
	k->paused = 0;
	k->events.fd = k->rpc.fd = k->exit.fd = -1;
	for (int i = 0; i < KEEP_SLOTS; i++)
		k->fds[i] = -1;
	return 0;
}

/*
 * Events. The socket takes some dozens of messages, and a child may be waiting for an answer on its other socket while
 * we have more to tell. So what doesn't fit is queued, with descriptors of its own, and the launcher never waits for
 * anybody.
 */
struct event {
	struct event *next;
	struct keep_msg msg;
	int fds[3];
	int nfds;
};

static void
event_free(struct kept *k, struct event *e)
{
	for (int i = 0; i < e->nfds; i++)
		put_away(k, &e->fds[i]);
	free(e);
}

static void
forget_events(struct kept *k)
{
	while (k->first) {
		struct event *e = k->first;

		k->first = e->next;
		event_free(k, e);
	}
	k->last = NULL;
	k->queued = 0;
}

static int
would_block(int r)
{
	return r == -EAGAIN || r == -ETOOMANYREFS || r == -ENOBUFS;
}

/* The socket takes more. */
static void
on_events(struct loop_src *src, uint32_t events)
{
	struct kept *k = loop_container(src, struct kept, events);

	if (events & EPOLLHUP) {
		loop_del(&k->l->loop, src); /* its pidfd tells the rest */
		return;
	}
	while (k->first) {
		struct event *e = k->first;
		int r = fd_send(src->fd, &e->msg, sizeof(e->msg), e->fds, e->nfds);

		if (would_block(r))
			return;
		/* Any other failure is its death. */
		k->first = e->next;
		k->queued--;
		event_free(k, e);
	}
	k->last = NULL;
	(void)loop_mod(&k->l->loop, src, 0);
}

static int
enqueue(struct kept *k, const struct keep_msg *msg, const int *fds, int nfds)
{
	struct event *e = k->queued < EVENTS_MAX ? calloc(1, sizeof(*e)) : NULL;

	if (!e)
		return -ENOBUFS;
	e->msg = *msg;
	for (; e->nfds < nfds; e->nfds++) {
		e->fds[e->nfds] = fcntl(fds[e->nfds], F_DUPFD_CLOEXEC, 3);
		if (e->fds[e->nfds] < 0) {
			event_free(k, e);
			return -errno;
		}
	}
	if (k->last)
		k->last->next = e;
	else
		k->first = e;
	k->last = e;
	k->queued++;
	return loop_mod(&k->l->loop, &k->events, EPOLLOUT);
}

int
kept_event(struct kept *k, const struct keep_msg *msg, const int *fds, int nfds)
{
	int r;

	if (!k->pid)
		return -ESRCH;
	r = k->first ? -EAGAIN : fd_send(k->events.fd, msg, sizeof(*msg), fds, nfds);
	if (would_block(r))
		r = enqueue(k, msg, fds, nfds);
	if (r && r != -EPIPE && r != -ECONNRESET) {
		rate_say(k->client, UINT32_MAX, k->name, LOG_ERR_, "%s %s doesn't take event %u: %s: replaced", k->role,
		    k->name, msg->type, strerror(-r));
		kept_replace(k);
	}
	return r;
}

/* Take bytes off a stream. Never waits: the child says that it has seen these bytes, but who knows. Descriptors that
 * come along the child duplicated when it peeked; here they must not be the last ones to go either, so that these are
 * duplicates, too. */
static int
consume(struct kept *k, int sock, uint32_t left)
{
	char buf[KEEP_DATA_MAX];

	while (left) {
		union {
			char buf[CMSG_SPACE(sizeof(int) * FD_RIGHTS_MAX)];
			struct cmsghdr align;
		} control;
		struct iovec iov = { .iov_base = buf, .iov_len = left };
		struct msghdr mh = { .msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control.buf,
			.msg_controllen = sizeof(control.buf) };
		int fds[FD_RIGHTS_MAX];
		ssize_t n = recvmsg(sock, &mh, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		int err = errno;
		int got = n < 0 ? 0 : fd_take(&mh, fds, FD_RIGHTS_MAX);

		if (n > 0)
			n = mh.msg_flags & MSG_CTRUNC ? 0 : recv(sock, buf, (size_t)n, MSG_DONTWAIT);
		for (int i = 0; i < got; i++)
			put_away(k, &fds[i]);
		if (n <= 0)
			return n ? -err : -EPIPE;
		left -= (uint32_t)n;
	}
	return 0;
}

static int
commit(struct kept *k, const struct keep_msg *msg)
{
	int with = -1;
	int r = 0;

	if (msg->slot >= KEEP_SLOTS || k->fds[msg->slot] < 0 || msg->len > KEEP_DATA_MAX ||
	    msg->consume > KEEP_DATA_MAX || msg->with > KEEP_SLOTS)
		return -EINVAL;
	if (msg->with) {
		with = k->fds[msg->with - 1];
		if (with < 0)
			return -EINVAL;
	}
	if (msg->consume)
		r = consume(k, k->fds[msg->slot], msg->consume);
	if (!r && msg->len)
		r = fd_send(k->fds[msg->slot], msg->u.data, msg->len, &with, with >= 0);
	/* What did not happen isn't counted: a successor does it again. */
	if (!r)
		k->commits++;
	return r;
}

/* One request of the child, and its answer. 1, 0 if there is none, -errno if the child breaks the protocol or is gone.
 */
static int
serve_one(struct kept *k)
{
	struct keep_msg msg;
	int fds[3];
	int nfds;
	long n = fd_recv(k->rpc.fd, &msg, sizeof(msg), fds, 3, &nfds);

	if (n == -EAGAIN)
		return 0;
	if (n != (long)sizeof(msg)) {
		for (int i = 0; n > 0 && i < nfds; i++)
			put_away(k, &fds[i]);
		return n < 0 ? (int)n : n ? -EPROTO : -EPIPE;
	}
	k->heard = launcher_ms();
	k->asked = 0;
	msg.err = rules_check(k, &msg, fds, nfds);
	switch (msg.err ? 0 : msg.type) {
	case 0:
		break;
	case KEEP_STORE:
		put_away(k, &k->fds[msg.slot]);
		k->fds[msg.slot] = fds[0];
		nfds = 0;
		msg.err = 0;
		break;
	case KEEP_DROP:
		put_away(k, &k->fds[msg.slot]);
		msg.err = 0;
		break;
	case KEEP_CLOSE:
		msg.err = 0;
		break;
	case KEEP_COMMIT:
		msg.err = commit(k, &msg);
		break;
	case KEEP_UP:
		msg.err = 0;
		if (!k->up && k->serves)
			k->serves(k);
		k->up = k->serving = 1;
		k->failed = 0;
		break;
	default:
		if (k->request)
			msg.err = k->request(k, &msg);
	}
	for (int i = 0; i < nfds; i++)
		put_away(k, &fds[i]);
	if (kept_hopeless(k))
		return -EBADF;
	msg.commits = k->commits;
	n = fd_send(k->rpc.fd, &msg, sizeof(msg), NULL, 0);
	/* A child that died meanwhile doesn't need the answer: what it asked for is done, and its successor will see
	 * that. */
	return n && n != -EPIPE && n != -ECONNRESET ? (int)n : 1;
}

static void
on_rpc(struct loop_src *src, uint32_t events)
{
	struct kept *k = loop_container(src, struct kept, rpc);
	int r;

	if (closer_pending(k->l, k) > PENDING_MAX && !(events & EPOLLHUP)) {
		k->paused = k->l->attention = 1;
		(void)loop_mod(&k->l->loop, src, 0);
		return;
	}
	r = serve_one(k);
	if (r == -EPIPE || r == -ECONNRESET || (r == 0 && (events & EPOLLHUP))) {
		loop_del(&k->l->loop, src); /* its pidfd tells the rest */
	} else if (r < 0) {
		rate_say(k->client, UINT32_MAX, k->name, LOG_ERR_, "%s %s: bad request (%s): replaced", k->role,
		    k->name, strerror(-r));
		loop_del(&k->l->loop, src);
		kept_replace(k);
	}
}

/* Collect the process, after everything that it had asked for is done. Returns its wait status; SIGKILL's where it
 * doesn't end: it was killed, and will never run again. wait: 0: no time is left for it. */
static int
collect(struct kept *k, int wait)
{
	int status = 0;

	for (int i = 0; i < REQUESTS_MAX && serve_one(k) > 0; i++)
		;
	if (!wait || launcher_collect(k->pid, k->exit.fd, &status)) {
		rate_say(k->client, UINT32_MAX, k->name, LOG_ERR_,
		    "%s %s (pid %d) doesn't end, the kernel waits for somebody: left alone", k->role, k->name,
		    (int)k->pid);
		closer_left(k->l, k->pid);
		status = SIGKILL;
	}
	k->pid = 0;
	k->killed = k->asked = 0;
	k->paused = 0;
	loop_del(&k->l->loop, &k->exit);
	loop_del(&k->l->loop, &k->rpc);
	loop_del(&k->l->loop, &k->events);
	close_fd(&k->exit.fd);
	put_away(k, &k->rpc.fd);
	put_away(k, &k->events.fd);
	forget_events(k);
	return status;
}

static void
forget(struct kept *k)
{
	later_forget(k->l, &k->retry);
	for (int i = 0; i < KEEP_SLOTS; i++)
		put_away(k, &k->fds[i]);
	put_away(k, &k->state);
}

/* A child that never served and ends by itself will not do better the next time. */
static int
hopeless(struct kept *k, int status)
{
	int64_t now = launcher_ms();

	if ((!k->up && WIFEXITED(status)) || kept_hopeless(k))
		return 1;
	if (now - k->first_death > DEATHS_MS) {
		k->first_death = now;
		k->deaths = 0;
	}
	return ++k->deaths > DEATHS_MAX;
}

static void replace_later(struct kept *k);

/* What is lacking, descriptors or processes, comes back some time: what the child serves waits for it. */
static void
replace(struct later *retry)
{
	struct kept *k = loop_container(retry, struct kept, retry);
	int r = kept_start(k);

	if (!r)
		return;
	if (!k->failed)
		log_err("%s %s can't be replaced yet: %s: trying again", k->role, k->name, strerror(-r));
	replace_later(k);
}

static void
replace_later(struct kept *k)
{
	int ms = RETRY_MS << (k->failed < 6 ? k->failed : 6);

	k->failed++;
	later_do(k->l, &k->retry, ms < RETRY_MAX ? ms : RETRY_MAX, replace);
}

/* It has ended, or will never run again. */
static void
conclude(struct kept *k, int wait)
{
	pid_t pid = k->pid;
	int status = collect(k, wait);

	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		forget(k);
		k->ended(k);
		return;
	}
	if (hopeless(k, status)) {
		log_err("%s %s (pid %d) %s: given up", k->role, k->name, (int)pid,
		    kept_hopeless(k) ? "sent what can't be closed"
		    : k->up	     ? "dies again and again"
				     : "can't start");
		forget(k);
		k->ended(k);
		return;
	}
	rate_say(k->client, UINT32_MAX, k->name, LOG_WARN_, "%s %s (pid %d) died: %s %d; a successor takes over",
	    k->role, k->name, (int)pid, WIFSIGNALED(status) ? "signal" : "status",
	    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	if (k->serving)
		replace(&k->retry);
	else
		replace_later(k);
}

static void
on_exit_(struct loop_src *src, uint32_t events)
{
	(void)events;
	conclude(loop_container(src, struct kept, exit), 1);
}

int
kept_look(struct kept *k)
{
	if (k->paused && closer_pending(k->l, k) <= PENDING_MAX) {
		k->paused = 0;
		(void)loop_mod(&k->l->loop, &k->rpc, EPOLLIN);
	}
	if (k->pid && k->killed && launcher_ms() - k->killed > DYING_MS)
		conclude(k, 0);
	return k->paused || (k->pid && k->killed);
}

/* What a new child has to know: its start message, its descriptors, the rest, and "go". */
static int
hand_over(struct kept *k)
{
	struct keep_msg msg = { .type = KEEP_START, .u.start = k->start };
	int r = kept_event(k, &msg, &k->state, 1);

	for (uint32_t i = 0; !r && i < KEEP_SLOTS; i++) {
		if (k->fds[i] < 0)
			continue;
		msg = (struct keep_msg){ .type = KEEP_FD, .slot = i };
		r = kept_event(k, &msg, &k->fds[i], 1);
	}
	if (!r && k->greet)
		r = k->greet(k);
	if (!r) {
		msg = (struct keep_msg){ .type = KEEP_GO, .commits = k->commits };
		r = kept_event(k, &msg, NULL, 0);
	}
	return r;
}

/* Its sockets and its end are watched from now on. 0 or -errno. */
static int
listen_to(struct kept *k, int rpc, int events)
{
	int r;

	k->serving = 0;
	k->heard = launcher_ms();
	k->rpc = (struct loop_src){ .fd = rpc, .fn = on_rpc };
	k->events = (struct loop_src){ .fd = events, .fn = on_events };
	k->exit.fn = on_exit_;
	(void)fd_no_rights(events);
	(void)fcntl(rpc, F_SETFL, O_NONBLOCK);
	r = loop_add(&k->l->loop, &k->rpc, EPOLLIN);
	if (!r)
		r = loop_add(&k->l->loop, &k->exit, EPOLLIN);
	return r ? r : loop_add(&k->l->loop, &k->events, 0);
}

static int
start(struct kept *k)
{
	int rpc[2];
	int events[2];
	int r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, rpc) < 0)
		return -errno;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, events) < 0) {
		r = -errno;
		close(rpc[0]);
		close(rpc[1]);
		return r;
	}
	k->pid = launcher_spawn(k->l, (const char *const[]){ k->role, "--worker", k->name, NULL },
	    (const int[]){ rpc[1], events[1] }, 2, &k->exit.fd);
	close(rpc[1]);
	close(events[1]);
	if (k->pid < 0) {
		r = k->pid;
		k->pid = 0;
		close(rpc[0]);
		close(events[0]);
		return r;
	}
	r = listen_to(k, rpc[0], events[0]);
	if (r) {
		/* Nobody would see it die. */
		kill(k->pid, SIGKILL);
		collect(k, 1);
		return r;
	}
	r = hand_over(k);
	k->start.takeover++;
	if (r) {
		/* Its death will be seen, and counted, like any other. */
		rate_say(k->client, UINT32_MAX, k->name, LOG_WARN_, "%s %s: hand-over failed: %s", k->role, k->name,
		    strerror(-r));
		kept_replace(k);
	} else if (k->started) {
		k->started(k);
	}
	return 0;
}

/* open 1: fill the reserve, as far as there are any; 0: give it up, it is needed. */
static void
reserve(struct launcher *l, int open)
{
	for (unsigned i = 0; i < l->reserves; i++) {
		if (!open && l->reserve[i] > 0)
			close(l->reserve[i]);
		if (!open)
			l->reserve[i] = 0;
		else if (l->reserve[i] <= 0)
			l->reserve[i] = fcntl(l->self, F_DUPFD_CLOEXEC, 3);
	}
}

/* With the reserve where nothing else is left: it takes its predecessor's three descriptors, and some to start. */
int
kept_start(struct kept *k)
{
	int r;

	reserve(k->l, 0);
	r = start(k);
	reserve(k->l, 1);
	return r;
}

void
kept_end(struct kept *k)
{
	if (k->state < 0)
		return;
	if (k->pid) {
		kill(k->pid, SIGKILL);
		collect(k, 1);
	}
	forget(k);
}
