/* SPDX-License-Identifier: MIT
 *
 * net.c - vfun-net: calls over TCP, the paper's Guest-Net and Host-Net
 *
 * Theory of operation
 *
 * One process holds all connections. A client that has proved who it is gets what a VM's share would give it: its
 * control messages go to the engine, under its name, and for the instance that it activates this process is the client:
 * it has the two regions mapped, puts requests from the network into dataout's ring, and sends what appears in
 * datain's. One write of the client's is a call, one of ours its answer; bulk data goes from the socket straight into
 * the arena, and back.
 *
 * One process, and not one for each connection, because then nobody who hasn't proved anything can make the launcher
 * start something, and connections cost memory only. The price: who breaks in by what the network sends has the net
 * clients' keys and instances; not more, and nothing of VMs and host. So what parses is small (netframe.c, conn.c), and
 * the process is confined like a share: an empty root, no network of its own but the sockets it has, a uid of its own,
 * and the system calls below. In this order:
 *
 * 1. receive the state (netd.h) and the listening socket from the launcher
 * 2. confine
 * 3. serve, one event at a time, until the launcher goes away
 *
 * It never waits for anybody. A connection has buffers of fixed size; where they are full it waits for its own peer,
 * and nobody else for it. While calls are in flight the loop looks at their slots and, without sleeping, at its
 * descriptors; when none was answered for SPIN_NS it parks (serve.c) and sleeps until the service's eventfd, or the
 * network, wakes it.
 *
 * When it dies, its successor starts with nothing: TCP has no way to hand on a half-read stream that would be worth it.
 * Clients see the connection end, and the engine releases what they had (remote.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "../common/sandbox.h"
#include "../roles.h"
#include "net.h"

/* Long enough for a short call of a service that looks at its slots on another processor, and shorter than a wake-up:
 * one that shares this processor can't answer while we spin. */
#define SPIN_NS 5000u
#define TICK_MS 1000  /* how often time-outs are looked at */
#define FLYING_MS 100 /* the same while somebody waits for an answer: is its service still there? */
#define SAY_MAX 40
#define SAY_MS 60000u
#define BURST_DIVISOR 5 /* a fifth of a second's */

static const struct sandbox_call calls[] = {
	SANDBOX_CALL(epoll_wait, "the loop"),
	SANDBOX_CALL(epoll_pwait, "the same, where the C library prefers it"),
	SANDBOX_CALL(epoll_ctl, "connections and channels come and go"),
	SANDBOX_CALL(accept4, "clients"),
	SANDBOX_CALL(dup, "a descriptor in reserve, to turn clients away when there is none left"),
	SANDBOX_CALL(getpeername, "their addresses, for the log"),
	SANDBOX_CALL_IF(recvfrom, "what they send", 3, UINT32_MAX, 1, MSG_DONTWAIT),
	SANDBOX_CALL_BITS(recvmsg, "the launcher's and the engine's messages", 2, MSG_PEEK | MSG_CMSG_CLOEXEC),
	SANDBOX_CALL_IF(sendmsg, "answers; what the engine is asked", 2, UINT32_MAX, 1, FD_SEND_FLAGS),
	SANDBOX_CALL(read, "the services' eventfds"),
	SANDBOX_CALL(write, "log lines"),
	SANDBOX_CALL(getrandom, "nonces"),
	SANDBOX_CALL_IF(futex, "a parked service is woken", 1, UINT32_MAX, 1, FUTEX_WAKE),
	SANDBOX_CALL_MMAP("an instance's regions"),
	SANDBOX_CALL(munmap, "when it goes"),
	SANDBOX_CALL(fstat, "how large they are"),
	SANDBOX_CALL_IF(newfstatat, "the same, as newer C libraries say it: of a descriptor, not a name", 3, UINT32_MAX,
	    1, AT_EMPTY_PATH),
	SANDBOX_CALL(close, "connections that end"),
	SANDBOX_CALL(clock_gettime, "where there is no vdso"),
	SANDBOX_CALL(restart_syscall, "a wait that was stopped and continued"),
	SANDBOX_CALL(exit_group, "the end"),
	SANDBOX_END,
};

struct net_daemon net;

static uint64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t
net_ms(void)
{
	return now_ns() / 1000000u + 1;
}

int
net_may_say(void)
{
	uint64_t now = net_ms();

	if (!net.said_since || now - net.said_since >= SAY_MS) {
		net.said_since = now;
		net.said = 0;
	}
	if (++net.said == SAY_MAX)
		log_warn("the network has caused %d lines within a minute: no more of it for now", SAY_MAX);
	return net.said < SAY_MAX;
}

int
net_bucket(struct bucket *b, uint32_t per_second)
{
	uint32_t burst = per_second / BURST_DIVISOR;
	uint64_t now = net_ms();
	uint64_t more = b->filled ? (now - b->filled) * per_second / 1000 : burst;

	/* Only whole tokens move the time on. */
	if (more)
		b->filled = now;
	b->tokens = more > burst - b->tokens ? burst : b->tokens + (uint32_t)more;
	if (!b->tokens)
		return 0;
	b->tokens--;
	return 1;
}

static void
on_launcher(struct loop_src *src, uint32_t events)
{
	struct keep_msg m;
	int fds[3];
	int nfds = 0;
	int r = keep_event(&net.k, &m, fds, &nfds);

	(void)src;
	(void)events;
	if (r == -EAGAIN)
		return;
	if (r <= 0)
		_exit(r ? EXIT_SYSTEM : EXIT_OK);
	if (m.type == KEEP_PEER && nfds == 1) {
		ask_connect(fds[0]);
		return;
	}
	if (m.type == KEEP_ADD && nfds == 3)
		ask_add(&m.u.add, fds);
	else
		log_warn("event %u from the launcher", m.type);
	for (int i = 0; i < nfds; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static int
confine(void)
{
	const int keep[] = { net.k.rpc, net.k.events, net.k.fds[NETD_LISTEN] };
	/* A connection is a socket, and an eventfd if it has an instance. */
	struct sandbox box = { .keep = keep,
		.nkeep = 3,
		.uid = net.k.start.uid,
		.gid = net.k.start.gid,
		.files_max = 2 * NET_CONNS + 32,
		.data_max = SANDBOX_DATA,
		.optional = net.k.start.optional };
	const char *stage;
	int r = sandbox_enter(&box, &stage);

	if (!r) {
		stage = "event loop";
		r = loop_init(&net.loop);
	}
	if (!r) {
		stage = "system calls";
		r = sandbox_syscalls(calls, NULL);
	}
	if (r)
		log_err("the net process can't be confined (%s): %s", stage, strerror(-r));
	return r;
}

static int
watch(struct loop_src *src, int fd, void (*fn)(struct loop_src *, uint32_t))
{
	*src = (struct loop_src){ .fd = fd, .fn = fn };
	return loop_add(&net.loop, src, EPOLLIN);
}

static void
times(uint64_t now)
{
	if (net.flush_at && now >= net.flush_at)
		ask_flush();
	if (net.listen_at && now >= net.listen_at) {
		net.listen_at = 0;
		(void)loop_mod(&net.loop, &net.listener, EPOLLIN);
	}
	for (unsigned i = 0; i < NET_CONNS; i++) {
		struct conn *c = &net.conn[i];

		if (c->state != CONN_FREE)
			ask_times(c, now);
		if (c->state != CONN_FREE)
			conn_times(c, now);
	}
}

static int
sleep_ms(void)
{
	if (net.flush_at || net.listen_at)
		return NET_PAUSE_MS;
	return net.flying ? FLYING_MS : net.conns ? TICK_MS : -1;
}

/* Calls in flight: 0 if the loop has to look again at once, or for how long it may sleep. It is then parked. */
static int
wait_for_answers(uint64_t *spin_until)
{
	int progress = calls_poll() + net.moved;

	net.moved = 0;
	if (!net.flying)
		return sleep_ms();
	if (net.spins && progress)
		*spin_until = now_ns() + SPIN_NS;
	if (net.spins && now_ns() < *spin_until) {
		if (calls_spin())
			*spin_until = now_ns() + SPIN_NS;
		return net.flying ? 0 : sleep_ms();
	}
	return calls_park() ? sleep_ms() : 0;
}

static int
serve(void)
{
	uint64_t spin_until = 0;
	uint64_t tick = 0;

	for (;;) {
		int timeout = net.flying ? wait_for_answers(&spin_until) : sleep_ms();
		uint64_t now;
		int r = loop_once(&net.loop, timeout);

		if (r < 0)
			return r;
		calls_unpark();
		now = net_ms();
		if (now >= tick || (r == 0 && timeout)) {
			times(now);
			tick = now + (net.flush_at || net.listen_at ? NET_PAUSE_MS : FLYING_MS);
		}
	}
}

static int
worker(void)
{
	int r = keep_start(&net.k, sizeof(struct netd_state), NULL);

	if (r) {
		log_err("no launcher: the net process is started by vfund (%s)", strerror(-r));
		return EXIT_USAGE;
	}
	log_init("vfun-net", (int)net.k.start.verbose);
	net.st = net.k.state;
	net.conn = calloc(NET_CONNS, sizeof(*net.conn));
	if (!net.conn) {
		log_err("the net process can't start: out of memory");
		return EXIT_SYSTEM;
	}
	net.spare = net.engine.fd = -1;
	net.spins = sysconf(_SC_NPROCESSORS_ONLN) > 1;
	/* Not the same numbers as a predecessor's: the engine may remember those. */
	net.next_req = now_ns();
	if (net.k.fds[NETD_LISTEN] < 0 || confine())
		return EXIT_SYSTEM;
	r = watch(&net.events, net.k.events, on_launcher);
	if (!r)
		r = watch(&net.listener, net.k.fds[NETD_LISTEN], conn_accept);
	if (!r) {
		if (net.k.start.takeover)
			log_info("started again: all connections are lost");
		(void)keep_rpc(&net.k, &(struct keep_msg){ .type = KEEP_UP });
		r = serve();
	}
	log_err("event loop: %s", strerror(-r));
	return EXIT_SYSTEM;
}

int
role_net(int argc, char **argv)
{
	log_init("vfun-net", 0);
	if (argc >= 2 && !strcmp(argv[1], "--print-syscalls")) {
		sandbox_print("net, serving", calls, NULL);
		return EXIT_OK;
	}
	return worker();
}
