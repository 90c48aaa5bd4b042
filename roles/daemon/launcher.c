/* SPDX-License-Identifier: MIT
 *
 * launcher.c - vfund's privileged half: it starts processes, holds what must survive them, and collects them
 *
 * The launcher is the only part of vfun that keeps privileges. It reads no byte that a client or guest wrote: clients
 * talk to the engine, VMs to their shares, and what those ask of the launcher are fixed-size messages, checked against
 * vfun.conf.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "../common/sandbox.h"
#include "../roles.h"
#include "launcher.h"

#define STOP_MS 3000	/* how long the engine may take to release everything */
#define END_MS 2000	/* and a process that was killed to end */
#define SILENT_MS 10000 /* an engine that asks for nothing for so long is asked */
#define ANSWER_MS 5000	/* and has so long to answer, not counting the time for which it has no processor */
#define STUCK_MS 1000	/* until it is looked at again */
#define ATTENTION_MS 5

int64_t
launcher_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* fds[i] to descriptor 3 + i: first out of the way of each other; dup2() also clears close-on-exec. */
static int
place(const int *fds, int nfds)
{
	int high[4];

	for (int i = 0; i < nfds; i++)
		high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3 + nfds);
	for (int i = 0; i < nfds; i++)
		if (high[i] < 0 || dup2(high[i], 3 + i) < 0)
			return -errno;
	return 0;
}

/* Whatever vfund reads from or writes to is nothing that a child may have; but for the log, descriptor 2, for which it
 * mustn't wait either. */
static int
no_standard_files(void)
{
	int null = open("/dev/null", O_RDWR);
	int r = null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 ? -errno : 0;

	if (!r && dup2(log_descriptor(), STDERR_FILENO) < 0)
		r = -errno;

	/* It is one of the two itself where vfund was started without. */
	if (null > 2)
		close(null);
	return r;
}

/* The child, between fork and exec. */
static void
exec_self(const struct launcher *l, const char *const argv[], const int *fds, int nfds)
{
	char journal[64]; /* the only variable that a child needs, see log.c */
	char *env[] = { NULL, NULL };
	sigset_t none;
	int self = fcntl(l->self, F_DUPFD_CLOEXEC, 3 + nfds);

	if (getenv("JOURNAL_STREAM")) {
		snprintf(journal, sizeof(journal), "JOURNAL_STREAM=%s", getenv("JOURNAL_STREAM"));
		env[0] = journal;
	}
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0);
	/* If the launcher dies before this, the child's socket is at its end, which it sees before it has anything to
	 * do. */
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (place(fds, nfds) == 0 && no_standard_files() == 0)
		syscall(SYS_execveat, self, "", argv, env, AT_EMPTY_PATH);
	log_err("%s can't be executed: %s", argv[0], strerror(errno));
	_exit(EXIT_SYSTEM);
}

/* A child is number 1 of a pid namespace of its own: it sees no other process, and leaves none behind. */
pid_t
launcher_spawn(struct launcher *l, const char *const argv[], const int *fds, int nfds, int *pidfd)
{
	pid_t pid = sandbox_fork(!l->system_mode, l->conf->optional);
	int r;

	if (pid < 0)
		return pid;
	if (pid == 0)
		exec_self(l, argv, fds, nfds);
	*pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (*pidfd >= 0)
		return pid;
	r = -errno;
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return r;
}

int
launcher_collect(pid_t pid, int pidfd, int *status)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	int64_t until = launcher_ms() + END_MS;
	int r;

	do
		r = poll(&p, 1, END_MS);
	while (r < 0 && errno == EINTR && launcher_ms() < until);
	if (r <= 0)
		return -ETIMEDOUT;
	while (waitpid(pid, status, 0) < 0 && errno == EINTR)
		;
	return 0;
}

char
launcher_state(pid_t pid, int64_t *cpu_ms)
{
	unsigned long long user = 0, system = 0;
	char text[512] = "";
	char path[32];
	char state = 0;
	const char *name_end;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	name_end = strrchr(text, ')');
	if (!name_end ||
	    sscanf(name_end + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &state, &user, &system) < 1)
		return 0;
	if (cpu_ms)
		*cpu_ms = (int64_t)((user + system) * 1000 / (unsigned long long)sysconf(_SC_CLK_TCK));
	return state;
}

/* What only the engine may ask. */
static int
engine_request(struct kept *k, struct keep_msg *msg)
{
	switch (msg->type) {
	case KEEP_LAUNCH:
		msg->u.launch.client[sizeof(msg->u.launch.client) - 1] = '\0';
		return services_launch(k->l, &msg->u.launch);
	case KEEP_KILL:
		return services_kill(k->l, msg->u.service.id);
	case KEEP_GIVE:
		return give_regions(k->l, &msg->u.give);
	case KEEP_FREE:
		return services_free(k->l, msg->u.service.id);
	case KEEP_RELOAD:
		return reload_begin(k->l);
	default:
		return -EINVAL;
	}
}

static void
engine_serves(struct kept *k)
{
	const struct launcher *l = k->l;

	log_info("ready: %s mode, %u functions, %u VMs, in %s", l->system_mode ? "system" : "user", l->conf->functions,
	    l->conf->vms, l->run);
	notify_ready();
}

/* An engine that ends by itself has been told to, or can't be kept alive: either way vfund ends. */
static void
engine_ended(struct kept *k)
{
	if (!k->l->stopping)
		log_err("the engine is gone: vfund ends");
	k->l->loop.stop = k->l->stopping ? 1 : 2;
}

static void
stop(struct launcher *l, const char *why)
{
	struct keep_msg msg = { .type = KEEP_STOP };

	if (l->stopping) {
		l->loop.stop = 1;
		return;
	}
	log_info("%s: releasing everything", why);
	l->stopping = 1;
	if (kept_event(&l->engine, &msg, NULL, 0))
		l->loop.stop = 1;
}

static void
on_signal(struct loop_src *src, uint32_t events)
{
	struct launcher *l = loop_container(src, struct launcher, signals);
	struct signalfd_siginfo si;

	(void)events;
	if (read(src->fd, &si, sizeof(si)) != (ssize_t)sizeof(si))
		return;
	if (si.ssi_signo != SIGHUP)
		stop(l, si.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM");
	else if (!l->stopping)
		reload_signal(l);
}

static int
watch_signals(struct launcher *l)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	l->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	l->signals.fn = on_signal;
	return l->signals.fd < 0 ? -errno : loop_add(&l->loop, &l->signals, EPOLLIN);
}

/* The engine's cpu time when it was asked. */
static int64_t cpu_asked;

/* When watch() has something to do, ms; 0: never. */
static int64_t
watch_deadline(const struct launcher *l)
{
	const struct kept *e = &l->engine;

	if (!e->pid || !e->up || e->killed || l->stopping)
		return 0;
	return e->asked ? e->asked + ANSWER_MS : e->heard + SILENT_MS;
}

/* An engine that says nothing is asked; one that doesn't answer waits for something that doesn't come, or computes for
 * ever: it is replaced. One that somebody has stopped, or that gets no processor, is left alone. */
static void
watch(struct launcher *l)
{
	const struct keep_msg ask = { .type = KEEP_ASK };
	struct kept *e = &l->engine;
	int64_t now = launcher_ms();
	int64_t cpu = 0;
	char state = launcher_state(e->pid, &cpu);

	if (!e->asked) {
		e->asked = now;
		cpu_asked = cpu;
		(void)kept_event(e, &ask, NULL, 0);
		return;
	}
	if (state == 'T' || state == 't' || (state == 'R' && cpu - cpu_asked < ANSWER_MS)) {
		e->asked = now - ANSWER_MS + STUCK_MS;
		return;
	}
	log_err("the engine doesn't answer, its state is %c: it is replaced", state ? state : '?');
	kept_replace(e);
}

/* Children that were paused or killed. */
static void
attend(struct launcher *l)
{
	int again = kept_look(&l->engine) | kept_look(&l->net) | shares_look(l);

	l->attention = again;
}

static void
sooner(int64_t *next, int64_t at)
{
	if (at && (!*next || at < *next))
		*next = at;
}

/* Until told to stop; services have deadlines, and so has stopping. */
static void
turn(struct launcher *l)
{
	int64_t stop_at = 0;

	while (!l->loop.stop) {
		int64_t next = services_deadline(l);
		int64_t now = launcher_ms();
		int r;

		if (l->stopping && !stop_at)
			stop_at = now + STOP_MS;
		sooner(&next, stop_at);
		sooner(&next, closer_deadline(l));
		sooner(&next, later_deadline(l));
		sooner(&next, watch_deadline(l));
		sooner(&next, l->attention ? now + ATTENTION_MS : 0);
		r = loop_once(&l->loop, !next ? -1 : next > now ? (int)(next - now) : 0);
		if (r < 0)
			return;
		now = launcher_ms();
		if (services_deadline(l) && services_deadline(l) <= now)
			services_expire(l);
		later_run(l);
		closer_look(l);
		/* What was heard meanwhile comes first. */
		if (!r && watch_deadline(l) && watch_deadline(l) <= now)
			watch(l);
		if (l->attention)
			attend(l);
		if (stop_at && now > stop_at)
			return;
	}
}

static void
engine_started(struct kept *k)
{
	reload_introduce(k);
	domains_introduce(k);
	shares_introduce(k);
	nets_introduce(k->l);
}

int
launcher_run(struct launcher *l)
{
	struct kept *e = &l->engine;
	int r = watch_signals(l);

	e->l = l;
	e->role = "vfun-engine";
	e->name = "engine";
	e->client = CONF_HOST;
	e->request = engine_request;
	e->greet = services_greet;
	e->started = engine_started;
	e->serves = engine_serves;
	e->ended = engine_ended;
	if (!sandbox_landlock())
		log_warn(
		    "this kernel has no Landlock, or it is off: confined processes have one wall less around them");
	if (!r)
		r = closer_start(l);
	if (!r)
		r = shares_listen(l);
	if (!r)
		r = kept_start(e);
	if (!r)
		r = nets_start(l);
	if (!r)
		domains_start(l);
	if (r) {
		log_err("vfund can't start: %s", strerror(-r));
		return EXIT_SYSTEM;
	}
	turn(l);
	reload_end(l);
	/* In order: clients first (the engine has done that), then services, the network, VMs, the engine. */
	domains_end(l);
	services_end(l);
	nets_end(l);
	shares_end(l);
	kept_end(e);
	closer_end(l);
	log_info("done");
	return l->loop.stop == 2 ? EXIT_SYSTEM : EXIT_OK;
}
