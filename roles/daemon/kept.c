/* SPDX-License-Identifier: MIT
 *
 * kept.c - the launcher's side of keep.h: children that are replaced when they die
 *
 *   (nothing) --kept_init--> idle --kept_start--> running --died, not status 0--> running (successor, same state and
 * fds) |  \--died DEATHS_MAX times within a second--> ended
 *                                                   \--exit status 0--> ended
 *
 * The launcher looks into none of the bytes that it passes on: what comes from a guest is never parsed with privileges.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "launcher.h"

#define DEATHS_MAX 100 /* within DEATHS_MS: somebody kills it for fun, or it can't live */
#define DEATHS_MS 20000
#define EVENTS_MAX 8192	  /* queued for one child */
#define REQUESTS_MAX 1024 /* of a dead child: more than its socket takes. Who else has that socket may send on. */
#define CLOSER_MS 50

static void
close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Those that have finished by now. */
static void
collect_closers(struct kept *k)
{
	for (unsigned i = 0; i < CLOSERS_MAX; i++)
		if (k->closer[i] && waitpid(k->closer[i], NULL, WNOHANG | __WALL))
			k->closer[i] = 0;
}

/*
 * Close what a child has sent. It may have been taken over, and this may be a file that a friend of its serves (FUSE),
 * or a connection that lingers: close() would wait for him, and the launcher with it. So unless it is known to be
 * harmless, a process that shares our table of descriptors closes it: whether that ends or not, it is gone from the
 * table. A child for which too many of them wait has to go, and isn't started again.
 */
static void
put_away(struct kept *k, int fd)
{
	struct pollfd p = { .events = POLLIN };
	unsigned i = 0;
	pid_t pid;

	if (fd < 0 || fd_harmless(fd)) {
		close_fd(&fd);
		return;
	}
	collect_closers(k);
	while (i < CLOSERS_MAX && k->closer[i])
		i++;
	/* The descriptor stays open then: nobody can be asked to close it. */
	pid = i < CLOSERS_MAX ? (pid_t)syscall(SYS_clone, CLONE_FILES, NULL, NULL, NULL, NULL) : -1;
	if (pid == 0) {
		close(fd);
		_exit(0);
	}
	k->hopeless |= pid < 0;
	if (pid < 0)
		return;
	k->closer[i] = pid;
	/* Nearly always it takes no time. */
	p.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	(void)poll(&p, 1, CLOSER_MS);
	close_fd(&p.fd);
	collect_closers(k);
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
	k->up = 0;
	k->first = k->last = NULL;
	k->queued = 0;
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
		put_away(k, e->fds[i]);
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
		log_err("%s %s doesn't take event %u: %s: replaced", k->role, k->name, msg->type, strerror(-r));
		kill(k->pid, SIGKILL);
	}
	return r;
}

/* Take bytes off a stream. Descriptors that come along were duplicated by the child when it peeked: not asked for, the
 * kernel drops them. Never waits: the child says that it has seen these bytes, but who knows. */
static int
consume(int sock, uint32_t left)
{
	char buf[KEEP_DATA_MAX];

	while (left) {
		ssize_t n = recv(sock, buf, left, MSG_DONTWAIT);

		if (n <= 0)
			return n ? -errno : -EPIPE;
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
		r = consume(k->fds[msg->slot], msg->consume);
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
			put_away(k, fds[i]);
		return n < 0 ? (int)n : n ? -EPROTO : -EPIPE;
	}
	msg.err = -EINVAL;
	switch (msg.type) {
	case KEEP_STORE:
		if (nfds != 1 || msg.slot >= KEEP_SLOTS)
			break;
		put_away(k, k->fds[msg.slot]);
		k->fds[msg.slot] = fds[0];
		nfds = 0;
		msg.err = 0;
		break;
	case KEEP_DROP:
		if (msg.slot >= KEEP_SLOTS)
			break;
		put_away(k, k->fds[msg.slot]);
		k->fds[msg.slot] = -1;
		msg.err = 0;
		break;
	case KEEP_COMMIT:
		msg.err = commit(k, &msg);
		break;
	case KEEP_UP:
		msg.err = 0;
		if (!k->up && k->serves)
			k->serves(k);
		k->up = 1;
		break;
	default:
		if (k->request)
			msg.err = k->request(k, &msg);
	}
	for (int i = 0; i < nfds; i++)
		put_away(k, fds[i]);
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
	int r = serve_one(k);

	if (r == -EPIPE || r == -ECONNRESET || (r == 0 && (events & EPOLLHUP))) {
		loop_del(&k->l->loop, src); /* its pidfd tells the rest */
	} else if (r < 0) {
		log_err("%s %s: bad request (%s): replaced", k->role, k->name, strerror(-r));
		loop_del(&k->l->loop, src);
		kill(k->pid, SIGKILL);
	}
}

/* Collect the process, after everything that it had asked for is done. Returns its wait status. */
static int
collect(struct kept *k)
{
	int status = 0;

	for (int i = 0; i < REQUESTS_MAX && serve_one(k) > 0; i++)
		;
	if (launcher_collect(k->pid, k->exit.fd, &status))
		log_err("%s %s (pid %d) doesn't end, the kernel waits for somebody: left alone", k->role, k->name,
		    (int)k->pid);
	k->pid = 0;
	loop_del(&k->l->loop, &k->exit);
	loop_del(&k->l->loop, &k->rpc);
	loop_del(&k->l->loop, &k->events);
	close_fd(&k->exit.fd);
	close_fd(&k->rpc.fd);
	close_fd(&k->events.fd);
	forget_events(k);
	return status;
}

static void
forget(struct kept *k)
{
	for (int i = 0; i < KEEP_SLOTS; i++) {
		put_away(k, k->fds[i]);
		k->fds[i] = -1;
	}
	close_fd(&k->state);
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

static void
on_exit_(struct loop_src *src, uint32_t events)
{
	struct kept *k = loop_container(src, struct kept, exit);
	pid_t pid = k->pid;
	int status = collect(k);
	int r;

	(void)events;
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
	log_warn("%s %s (pid %d) died: %s %d; a successor takes over", k->role, k->name, (int)pid,
	    WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	r = kept_start(k);
	if (r) {
		log_err("%s %s can't be replaced: %s: given up", k->role, k->name, strerror(-r));
		forget(k);
		k->ended(k);
	}
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

int
kept_start(struct kept *k)
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
	k->rpc.fd = rpc[0];
	k->rpc.fn = on_rpc;
	k->exit.fn = on_exit_;
	k->events = (struct loop_src){ .fd = events[0], .fn = on_events };
	(void)fcntl(rpc[0], F_SETFL, O_NONBLOCK);
	r = loop_add(&k->l->loop, &k->rpc, EPOLLIN);
	if (!r)
		r = loop_add(&k->l->loop, &k->exit, EPOLLIN);
	if (!r)
		r = loop_add(&k->l->loop, &k->events, 0);
	if (!r)
		r = hand_over(k);
	k->start.takeover++;
	if (r) {
		/* Its death will be seen, and counted, like any other. */
		log_warn("%s %s: hand-over failed: %s", k->role, k->name, strerror(-r));
		kill(k->pid, SIGKILL);
	} else if (k->started) {
		k->started(k);
	}
	return 0;
}

void
kept_end(struct kept *k)
{
	if (k->state < 0)
		return;
	if (k->pid) {
		kill(k->pid, SIGKILL);
		collect(k);
	}
	forget(k);
}
