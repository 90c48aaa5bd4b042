/* SPDX-License-Identifier: MIT
 *
 * closer.c - closing what strangers sent, without waiting for them
 *
 * close() may wait: for a TCP connection that lingers, for the process that serves the file (FUSE), until gigabytes are
 * freed. A Unix socket isn't harmless either: closing it closes whatever descriptors lie in its queue. So the launcher
 * closes nothing itself that a child, client or front-end sent or could have sent something into. It writes the number
 * to a pipe, and the closer, a process that shares the launcher's table of descriptors, closes it.
 *
 * A wait for a connection ends with any signal: the closer has a timer. Other waits end with the process or not at all:
 * a closer that sleeps in one close() for CLOSER_MS is killed, and another takes its place. Those that survive that are
 * counted for whoever sent the descriptor. A child with too many of them is killed, and isn't started again.
 *
 *   closer_put() --pipe--> closer: taken, close(), done
 *                             \--sleeps for CLOSER_MS--> killed, stuck until it ends
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/log.h"
#include "../common/sandbox.h"
#include "launcher.h"

#define CLOSER_MS 50
#define LINGER_US 1000	  /* as long as a close() waits that a signal ends */
#define STUCK_LOOK_MS 500 /* how often those that were killed are looked at */
#define OWNERS (CONF_VMS_MAX + 3u)
#define NOBODY (OWNERS - 1)
#define PIPE_SIZE (1 << 20)

struct entry {
	int32_t fd;
	uint32_t owner;
};

/* What the closer tells the launcher. */
struct closed {
	volatile uint32_t busy;	       /* 1: it is in close() */
	volatile uint32_t owner;       /* for this one */
	volatile uint32_t total;       /* descriptors that are closed */
	volatile uint32_t of[OWNERS];  /* of them, this owner's */
	volatile uint8_t skip[OWNERS]; /* the launcher's word: leave this owner's open, they can't be closed */
};

struct stuck {
	struct stuck *next;
	pid_t pid;
	uint32_t owner;
};

static const struct sandbox_call calls[] = {
	SANDBOX_CALL(read, "which descriptor is next"),
	SANDBOX_CALL(setitimer, "a close() that waits for a connection is interrupted"),
	SANDBOX_CALL(rt_sigreturn, "by this signal"),
	SANDBOX_CALL(close, "what it is for"),
	SANDBOX_CALL_IF(fcntl, "is it memory?", 1, UINT32_MAX, 1, F_GET_SEALS),
	SANDBOX_CALL(restart_syscall, "a read that was interrupted"),
	SANDBOX_CALL(exit_group, "the end"),
	SANDBOX_END,
};

static uint32_t
owner_of(const struct launcher *l, const struct kept *k)
{
	if (!k)
		return NOBODY;
	if (k == &l->engine)
		return 0;
	return k == &l->net ? 1 : 2 + (uint32_t)(loop_container(k, const struct vm, share) - l->vm);
}

static struct kept *
kept_of(struct launcher *l, uint32_t owner)
{
	if (owner == NOBODY)
		return NULL;
	return owner > 1 ? &l->vm[owner - 2].share : owner ? &l->net : &l->engine;
}

static void
interrupted(int signo)
{
	(void)signo;
}

/* The closer. What it inherits of the launcher's rights it gives up first. */
static _Noreturn void
work(const struct closer *c)
{
	const struct itimerval on = { { 0, LINGER_US }, { 0, LINGER_US } };
	const struct itimerval off = { { 0, 0 }, { 0, 0 } };
	const struct sigaction sa = { .sa_handler = interrupted };
	struct closed *done = c->done;
	struct entry e;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	prctl(PR_SET_NAME, "vfun-closer", 0, 0, 0);
	if (sigaction(SIGALRM, &sa, NULL) < 0 || sigprocmask(SIG_UNBLOCK, &set, NULL) < 0 || sandbox_powerless() ||
	    sandbox_syscalls(calls, NULL))
		_exit(1);
	for (;;) {
		if (read(c->pipe[0], &e, sizeof(e)) != (ssize_t)sizeof(e) || e.owner >= OWNERS)
			_exit(0);
		done->owner = e.owner;
		done->busy = 1;
		setitimer(ITIMER_REAL, &on, NULL);
		/* Memory is given back in any case. */
		if (!done->skip[e.owner] || fcntl(e.fd, F_GET_SEALS) >= 0)
			close(e.fd);
		setitimer(ITIMER_REAL, &off, NULL);
		done->busy = 0;
		done->of[e.owner]++;
		done->total++;
	}
}

static int
start(struct closer *c)
{
	c->done->busy = 0;
	c->since = 0;
	/* No exit signal: only those who ask for it by number collect it. */
	c->pid = (pid_t)syscall(SYS_clone, CLONE_FILES, NULL, NULL, NULL, NULL);
	if (c->pid == 0)
		work(c);
	if (c->pid > 0)
		return 0;
	c->pid = 0;
	return -errno;
}

int
closer_start(struct launcher *l)
{
	struct closer *c = &l->closer;

	c->done = mmap(NULL, sizeof(*c->done), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (c->done == MAP_FAILED || pipe2(c->pipe, O_CLOEXEC) < 0)
		return -errno;
	/* The launcher never waits for it; an ordinary user may get less. */
	(void)fcntl(c->pipe[1], F_SETPIPE_SZ, PIPE_SIZE);
	if (fcntl(c->pipe[1], F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	return start(c);
}

unsigned
closer_pending(const struct launcher *l, const struct kept *k)
{
	uint32_t owner = owner_of(l, k);

	return l->closer.put[owner] - l->closer.done->of[owner];
}

void
closer_put(struct launcher *l, int fd, const struct kept *k)
{
	struct closer *c = &l->closer;
	const struct entry e = { .fd = fd, .owner = owner_of(l, k) };

	if (fd < 0)
		return;
	/* Whatever happens, this process doesn't close it: at worst it stays open. */
	if (write(c->pipe[1], &e, sizeof(e)) != (ssize_t)sizeof(e)) {
		log_err("descriptor %d stays open: %s", fd, strerror(errno));
		return;
	}
	c->put[e.owner]++;
	c->total++;
}

/* Those of this owner that were killed and don't end. */
static unsigned
count_stuck(const struct closer *c, uint32_t owner)
{
	unsigned n = 0;

	for (const struct stuck *s = c->stuck; s; s = s->next)
		n += s->owner == owner;
	return n;
}

static void
collect(struct closer *c)
{
	struct stuck **at = &c->stuck;

	while (*at) {
		struct stuck *s = *at;

		if (waitpid(s->pid, NULL, WNOHANG | __WALL) == 0) {
			at = &s->next;
			continue;
		}
		*at = s->next;
		free(s);
	}
}

/* The closer, which waits for somebody, is replaced. */
static void
replace(struct launcher *l)
{
	struct closer *c = &l->closer;
	struct stuck *s = calloc(1, sizeof(*s));
	uint32_t said = c->done->owner; /* by a process that strangers may have got at */
	uint32_t owner = said < OWNERS ? said : NOBODY;
	struct kept *k = kept_of(l, owner);

	kill(c->pid, SIGKILL);
	if (s) {
		*s = (struct stuck){ .next = c->stuck, .pid = c->pid, .owner = owner };
		c->stuck = s;
	}
	c->done->of[owner]++;
	c->done->total++;
	if (start(c))
		log_err("what closes descriptors can't be started again: %s", strerror(errno));
	c->look = launcher_ms() + STUCK_LOOK_MS;
	if (count_stuck(c, owner) < CLOSERS_MAX || !k || k->hopeless)
		return;
	k->hopeless = 1;
	c->done->skip[owner] = 1;
	if (k->pid)
		kill(k->pid, SIGKILL);
}

void
closer_left(struct launcher *l, pid_t pid)
{
	struct stuck *s = calloc(1, sizeof(*s));

	if (!s)
		return;
	*s = (struct stuck){ .next = l->closer.stuck, .pid = pid, .owner = NOBODY };
	l->closer.stuck = s;
	l->closer.look = launcher_ms() + STUCK_LOOK_MS;
}

/* It has died, of what nobody expects: the system is out of memory, or somebody may kill it. What it had in hand is
 * lost, and stays open. */
static void
died(struct launcher *l, int status)
{
	struct closer *c = &l->closer;
	int left = 0;

	log_err("what closes descriptors ended (%s %d): another takes its place",
	    WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	if (ioctl(c->pipe[0], FIONREAD, &left) == 0 && !left) {
		c->done->total = c->total;
		for (unsigned i = 0; i < OWNERS; i++)
			c->done->of[i] = c->put[i];
	}
	c->pid = 0;
	if (start(c))
		log_err("what closes descriptors can't be started again: %s", strerror(errno));
}

int64_t
closer_deadline(struct launcher *l)
{
	struct closer *c = &l->closer;

	if (c->done->total == c->total) {
		c->since = 0;
	} else if (!c->since) {
		c->since = launcher_ms();
		c->seen = c->done->total;
	}
	if (!c->since)
		return c->stuck ? c->look : 0;
	return c->since + CLOSER_MS;
}

void
closer_look(struct launcher *l)
{
	struct closer *c = &l->closer;
	int64_t now = launcher_ms();
	int status = 0;

	if (c->stuck && now >= c->look) {
		collect(c);
		c->look = now + STUCK_LOOK_MS;
	}
	if (!c->since || now < c->since + CLOSER_MS)
		return;
	/* Has it done something since? Is it only waiting for a processor, or busy? */
	if (c->done->total != c->seen || !c->done->busy || launcher_state(c->pid, NULL) == 'R') {
		c->seen = c->done->total;
		c->since = now;
		if (!c->pid || waitpid(c->pid, &status, WNOHANG | __WALL) == c->pid)
			died(l, status);
		return;
	}
	replace(l);
}

/* Nobody waits for it: what it holds open the end of this process closes. */
void
closer_end(struct launcher *l)
{
	if (l->closer.pid > 0)
		kill(l->closer.pid, SIGKILL);
}
