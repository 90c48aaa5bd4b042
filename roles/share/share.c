/* SPDX-License-Identifier: MIT
 *
 * share.c - a VM's virtiofs device: the worker's life
 *
 * Theory of operation
 *
 * The launcher starts one worker per VM when its QEMU connects, hands over the state and the descriptors that go with
 * it (keep.h), and starts another one when the worker dies without having ended (exit status 0). In this order:
 *
 * 1. receive state and descriptors
 * 2. confine: namespaces, identity, capabilities, then the list of system calls below. Nothing of the guest's has been
 *    looked at so far, nor is any of its memory mapped.
 * 3. take over: map guest memory, finish what a predecessor left half done, execute again what it had not answered
 * 4. serve, one event at a time, until QEMU or the launcher goes away
 *
 * The process is single-threaded and never waits for anybody but the launcher, which answers at once: what a request
 * needs from others is waited for in the event loop, and the request is tried again (fuse.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <linux/futex.h>
#include <linux/sockios.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "../common/sandbox.h"
#include "../roles.h"
#include "share.h"

#define SAY_MAX 40
#define SAY_MS 60000u
#define FILES_SPARE 64 /* descriptors besides the kept ones: standard ones, channels, those just looked at */

/* What serving needs, and there is no second list for what comes before it, as a service has one: that would be the
 * same. What a share sets up, it sets up again while it serves. Guest memory comes and goes at any time (memory is
 * plugged in, the VM restarts), and so do queues and instances: mmap, munmap, fstat, close and epoll_ctl stay, whatever
 * the order. Taking over from a predecessor is the same code once more. What is needed once only (the event loop's
 * descriptor, the state's mapping, closing what was inherited) is done before the list is loaded, at which time nothing
 * of the guest's has been looked at: mem_takeover() is the first to map any of its memory.
 *
 * There is no open, no socket, no fork, no exec, no fcntl, no mprotect, and one harmless ioctl. Descriptors come
 * and go with guest memory and instances, so that their numbers can't be told in advance; each that is open is there to
 * be used. */
static const struct sandbox_call calls[] = {
	SANDBOX_CALL_BITS(recvmsg, "every channel; no MSG_OOB, by which confined processes have got into kernels", 2,
	    MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC),
	SANDBOX_CALL_IF(sendmsg, "launcher, engine", 2, UINT32_MAX, 1, FD_SEND_FLAGS),
	SANDBOX_CALL(read, "kick and ring eventfds"),
	SANDBOX_CALL(write, "call eventfds; log lines"),
	SANDBOX_CALL(preadv, "READ of data files"),
	SANDBOX_CALL(pwritev, "WRITE of data files"),
	SANDBOX_CALL_IF(futex, "the bell", 1, UINT32_MAX, 1, FUTEX_WAKE),
	SANDBOX_CALL(epoll_wait, "the loop"),
	SANDBOX_CALL(epoll_pwait, "the same, where the C library prefers it"),
	SANDBOX_CALL_IF(ioctl, "has QEMU read all that was sent to it", 1, UINT32_MAX, 1, SIOCOUTQ),
	SANDBOX_CALL(epoll_ctl, "queues, instances and channels come and go"),
	SANDBOX_CALL_MMAP("guest memory that comes later, a new instance's first page"),
	SANDBOX_CALL(munmap, "when they go"),
	SANDBOX_CALL(fstat, "how large the file behind new memory is"),
	SANDBOX_CALL_IF(newfstatat, "the same, as newer C libraries say it: of a descriptor, not a name", 3, UINT32_MAX,
	    1, AT_EMPTY_PATH),
	SANDBOX_CALL(close, "descriptors that were looked at, or that go"),
	SANDBOX_CALL(clock_gettime, "where there is no vdso"),
	SANDBOX_CALL(restart_syscall, "a wait that was stopped and continued"),
	SANDBOX_CALL(exit_group, "the end"),
	SANDBOX_END,
};

static struct share self;

struct share *
share_self(void)
{
	return &self;
}

uint64_t
share_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void
share_quit(struct share *s, int status)
{
	(void)s;
	_exit(status);
}

/* Give up in a way that makes the launcher start a successor, unless it is the launcher that has gone. */
void
share_fatal(struct share *s, const char *what, int err)
{
	if (err == -EPIPE || err == -ECONNRESET)
		share_quit(s, EXIT_OK);
	log_err("VM %s: %s: %s", s->k.start.name, what, strerror(-err));
	share_quit(s, EXIT_SYSTEM);
}

/* A hostile guest must not be able to fill the host's log. */
int
share_may_say(struct share *s)
{
	uint64_t now = share_now();

	if (!s->said_since || now - s->said_since >= SAY_MS) {
		s->said_since = now;
		s->said = 0;
	}
	if (++s->said == SAY_MAX)
		log_warn("VM %s: has caused %d lines within a minute: no more of it for now", s->k.start.name, SAY_MAX);
	return s->said < SAY_MAX;
}

/* Try again those requests that wait for this. */
void
share_retry(struct share *s, enum wait_for wait)
{
	for (unsigned i = 0; i < REQUESTS_MAX; i++) {
		struct req *r = &s->req[i];

		if (r->used && r->wait == wait && virtq_runs(s, r->queue))
			fuse_run(s, r);
	}
}

/* ---- time ---- */

static void
earlier(uint64_t *at, uint64_t other)
{
	if (other && (!*at || other < *at))
		*at = other;
}

/* How long the loop may sleep, in ms; -1: until something happens. */
static int
share_timeout(struct share *s)
{
	uint64_t at = engine_deadline(s);
	uint64_t now = share_now();

	if (s->more)
		return 0;
	earlier(&at, s->front_retry);
	earlier(&at, s->flush_at);
	earlier(&at, s->pump_at);
	for (unsigned i = 0; i < REQUESTS_MAX; i++) {
		const struct req *r = &s->req[i];

		if (r->used && r->wait != WAIT_NOTHING && virtq_runs(s, r->queue))
			earlier(&at, r->deadline);
	}
	return !at ? -1 : at <= now ? 0 : at - now > 60000 ? 60000 : (int)(at - now);
}

static void
share_timers(struct share *s)
{
	uint64_t now = share_now();
	uint32_t again;

	if (s->front_retry && now >= s->front_retry)
		vhost_front(s);
	if (s->flush_at && now >= s->flush_at)
		engine_flush(s);
	if (s->pump_at && now >= s->pump_at) {
		s->pump_at = 0;
		window_pump(s);
	}
	engine_dying(s, now);
	for (unsigned i = 0; i < REQUESTS_MAX; i++) {
		struct req *r = &s->req[i];

		if (r->used && r->wait != WAIT_NOTHING && r->deadline && now >= r->deadline && virtq_runs(s, r->queue))
			fuse_run(s, r);
	}
	again = s->starved | s->more;
	s->starved = s->more = 0;
	for (unsigned q = 0; q < SHARE_QUEUES; q++)
		if (again & 1u << q)
			virtq_process(s, q);
}

/* ---- the launcher ---- */

static void
launcher_ready(struct loop_src *src, uint32_t events)
{
	struct share *s = loop_container(src, struct share, events);
	struct keep_msg m;
	int fds[3];
	int nfds = 0;
	int r = keep_event(&s->k, &m, fds, &nfds);

	(void)events;
	if (r == -EAGAIN)
		return;
	if (r == 0)
		share_quit(s, EXIT_OK);
	if (r < 0)
		share_fatal(s, "the launcher's events", r);
	if (m.type == KEEP_PEER && nfds == 1) {
		engine_connect(s, fds[0]);
		nfds = 0;
	} else if (m.type == KEEP_ADD) {
		engine_add(s, &m.u.add, fds, nfds);
	} else {
		log_warn("VM %s: event %u from the launcher", s->k.start.name, m.type);
	}
	for (int i = 0; i < nfds; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* ---- life ---- */

/* A successor gets as many descriptors as its predecessor had, before it can confine itself. */
static void
share_limits(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
		return;
	rl.rlim_cur = rl.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &rl) < 0)
		log_warn("descriptors: %s", strerror(errno));
}

static int
share_confine(struct share *s)
{
	static int keep[KEEP_SLOTS + 2];
	struct sandbox box = { .keep = keep,
		.uid = s->k.start.uid,
		.gid = s->k.start.gid,
		.files_max = KEEP_SLOTS + FILES_SPARE,
		.data_max = SANDBOX_DATA,
		.optional = s->k.start.optional };
	const char *stage;
	int r;

	keep[box.nkeep++] = s->k.rpc;
	keep[box.nkeep++] = s->k.events;
	for (unsigned i = 0; i < KEEP_SLOTS; i++)
		if (s->k.fds[i] >= 0)
			keep[box.nkeep++] = s->k.fds[i];
	r = sandbox_enter(&box, &stage);
	if (!r) {
		stage = "event loop";
		r = loop_init(&s->loop);
	}
	if (!r) {
		stage = "system calls";
		r = sandbox_syscalls(calls, NULL);
	}
	if (r)
		log_err("VM %s: the share can't be confined (%s): %s", s->k.start.name, stage, strerror(-r));
	return r;
}

static void
share_watch(struct share *s, struct loop_src *src, int fd, uint32_t events, void (*fn)(struct loop_src *, uint32_t))
{
	int r;

	src->fd = fd;
	src->fn = fn;
	if (fd < 0)
		return;
	r = loop_add(&s->loop, src, events);
	if (r)
		share_fatal(s, "event loop", r);
}

/* Build this process's side of the state, and go on where a predecessor stopped. */
static void
share_takeover(struct share *s)
{
	int r;

	s->engine.fd = -1;
	share_watch(s, &s->events, s->k.events, EPOLLIN, launcher_ready);
	share_watch(s, &s->front, s->k.fds[SLOT_FRONT], EPOLLIN, vhost_ready);
	share_watch(s, &s->back, s->k.fds[SLOT_BACK], BACK_EVENTS, back_ready);
	back_takeover(s);
	r = mem_takeover(s);
	if (r)
		share_fatal(s, "mapping guest memory", r);
	for (unsigned i = 0; i < SHARE_INSTANCES; i++) {
		r = s->st->instance[i].valid ? engine_open(s, &s->st->instance[i]) : 0;
		if (r)
			share_fatal(s, "mapping an instance", r);
	}
	for (unsigned q = 0; q < SHARE_QUEUES; q++)
		vhost_kick_watch(s, q);
	tree_leases(s);
	virtq_takeover(s);
	window_pump(s);
	for (unsigned q = 0; q < SHARE_QUEUES; q++)
		virtq_process(s, q);
}

static int
share_worker(void)
{
	struct share *s = &self;
	int r;

	share_limits();
	r = keep_start(&s->k, sizeof(struct share_state), NULL);
	if (r) {
		log_err("no launcher: a share is started by vfund (%s)", strerror(-r));
		return EXIT_SYSTEM;
	}
	log_init("vfun-share", (int)s->k.start.verbose);
	s->st = s->k.state;
	if (s->k.fds[SLOT_FRONT] < 0) {
		log_err("VM %s: no vhost-user socket", s->k.start.name);
		return EXIT_SYSTEM;
	}
	if (share_confine(s))
		return EXIT_SYSTEM;
	if (s->k.start.takeover)
		log_info("VM %s: taken over (%u)", s->k.start.name, s->k.start.takeover);
	else
		log_info("VM %s is connected", s->k.start.name);
	share_takeover(s);
	(void)keep_rpc(&s->k, &(struct keep_msg){ .type = KEEP_UP });
	for (;;) {
		r = loop_once(&s->loop, share_timeout(s));
		if (r < 0)
			share_fatal(s, "event loop", r);
		share_timers(s);
	}
}

int
role_share(int argc, char **argv)
{
	log_init("vfun-share", 0);
	if (argc == 3 && !strcmp(argv[1], "--worker"))
		return share_worker();
	if (argc == 2 && !strcmp(argv[1], "--print-syscalls")) {
		sandbox_print("share, serving", calls, NULL);
		return EXIT_OK;
	}
	return share_args(argc, argv);
}
