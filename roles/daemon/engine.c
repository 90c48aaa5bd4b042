/* SPDX-License-Identifier: MIT
 *
 * engine.c - vfund's unprivileged half: it reads what clients ask and decides
 *
 * The engine runs as a user of its own (system mode) or in a user namespace (user mode), without capabilities, with an
 * empty root and an allow-list of system calls. It sees guests' control messages, never their memory: the launcher
 * gives regions to whom they belong (give.c). It may die at any moment: see keep.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "../common/sandbox.h"
#include "../roles.h"
#include "engine.h"
#include "launcher.h"

struct engine engine;

/* One list, as for a share: connections and channels are set up while it serves, too. Descriptors are connections and
 * records, which come and go: any that is open is there to be used. */
static const struct sandbox_call calls[] = {
	SANDBOX_CALL(epoll_wait, "the event loop"),
	SANDBOX_CALL(epoll_pwait, "the same, where the C library prefers it"),
	SANDBOX_CALL(epoll_ctl, "connections and channels come and go"),
	SANDBOX_CALL(accept4, "clients on the host"),
	SANDBOX_CALL(dup, "a descriptor in reserve, to turn clients away when there is none left"),
	SANDBOX_CALL(poll, "have they gone already?"),
	SANDBOX_CALL_IF(getsockopt, "SO_PEERCRED: who they are", 2, UINT32_MAX, 1, SO_PEERCRED),
	SANDBOX_CALL_BITS(recvfrom, "their messages", 3, MSG_DONTWAIT | MSG_TRUNC),
	SANDBOX_CALL_BITS(recvmsg,
	    "the launcher's, the shares' and the net process's messages, and looking at clients'", 2,
	    MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC),
	SANDBOX_CALL_IF(sendmsg, "replies, and what the launcher is asked", 2, UINT32_MAX, 1, FD_SEND_FLAGS),
	SANDBOX_CALL(close, "connections that end; records"),
	SANDBOX_CALL_IF(
	    openat, "records to write, below the one folder: there is no other path", 2, UINT32_MAX, 1, RECORD_FLAGS),
	SANDBOX_CALL(mkdirat, "a client's folder of records"),
	SANDBOX_CALL(unlinkat, "records of what has ended"),
	SANDBOX_CALL(write, "records, log"),
	SANDBOX_CALL(getrandom, "session numbers"),
	SANDBOX_CALL(clock_gettime, "where there is no vdso"),
	SANDBOX_CALL(time, "the same"),
	SANDBOX_CALL(gettimeofday, "the same"),
	SANDBOX_CALL(restart_syscall, "a wait that was stopped and continued"),
	SANDBOX_CALL(exit_group, "the end"),
	SANDBOX_END,
};

/* The launcher may hold as many as there are instances, and as many may live. */
static struct keep_service known[2 * ENGINE_INSTANCES];
static unsigned knowns;

static void
on_alive(const struct keep_service *s)
{
	if (knowns < 2 * ENGINE_INSTANCES)
		known[knowns++] = *s;
}

int
engine_prepare(struct kept *k, const struct launcher *l, const struct rundir *rd)
{
	static struct engine_state st; /* mostly zeros: only what follows is written */

	st.conf = *l->conf;
	snprintf(st.run, sizeof(st.run), "%s", l->run);
	st.since = (uint64_t)time(NULL);
	st.daemon_pid = (uint32_t)getpid();
	st.system_mode = (uint32_t)l->system_mode;
	st.no_rights = fd_no_rights(rd->control) == 0;
	if (pwrite(k->state, &st, sizeof(st), 0) != (ssize_t)sizeof(st)) {
		log_err("the engine's state can't be written: %s", strerror(errno));
		return EXIT_SYSTEM;
	}
	k->fds[SLOT_CONTROL] = rd->control;
	k->fds[SLOT_ADMIN] = rd->admin;
	k->fds[SLOT_SERVICE] = rd->service;
	k->start.verbose = (uint32_t)l->verbose;
	k->start.optional = l->conf->optional;
	k->start.uid = l->conf->uid;
	k->start.gid = l->conf->gid;
	return 0;
}

static int
confine(void)
{
	int keep[KEEP_SLOTS + 3] = { KEEP_FD_RPC, KEEP_FD_EVENTS, engine.loop.epfd };
	struct sandbox box = { .keep = keep,
		.nkeep = 3,
		.uid = engine.keep.start.uid,
		.gid = engine.keep.start.gid,
		.files_max = 2048,
		.data_max = SANDBOX_DATA,
		.memory_max = 256u << 20,
		.file_max = RECORD_MAX,
		.folder = &engine.keep.fds[SLOT_SERVICE],
		.optional = engine.keep.start.optional };
	const char *stage;
	int r;

	for (int i = 0; i < KEEP_SLOTS; i++)
		if (engine.keep.fds[i] >= 0)
			keep[box.nkeep++] = engine.keep.fds[i];
	r = sandbox_enter(&box, &stage);
	if (!r) {
		stage = "system calls";
		r = sandbox_syscalls(calls, NULL);
	}
	if (r)
		log_err("the engine can't be confined: %s: %s", stage, strerror(-r));
	return r;
}

/* A piece of vfun.conf, which was read again. */
static void
take_conf(const struct keep_msg *msg)
{
	static struct conf conf;

	if (msg->len > KEEP_DATA_MAX || msg->slot > sizeof(conf) || msg->len > sizeof(conf) - msg->slot)
		return;
	memcpy((uint8_t *)&conf + msg->slot, msg->u.data, msg->len);
	if (msg->slot + msg->len == sizeof(conf))
		engine.st->conf = conf;
}

static void
on_event(struct loop_src *src, uint32_t events)
{
	struct keep_msg msg;
	int fds[3];
	int nfds = 0;
	int r = keep_event(&engine.keep, &msg, fds, &nfds);

	(void)src;
	(void)events;
	if (r == -EAGAIN)
		return;
	if (r <= 0) {
		engine.loop.stop = 1; /* no launcher, no engine */
		return;
	}
	switch (msg.type) {
	case KEEP_PEER:
		if (nfds != 1)
			break;
		nfds = 0;
		if (msg.u.peer.vm == CONF_NET)
			remote_channel(fds[0], msg.u.peer.pid);
		else
			clients_share(&msg.u.peer, fds[0]);
		break;
	case KEEP_PEER_GONE:
		if (msg.u.peer.vm == CONF_NET)
			remote_gone();
		else
			clients_share_gone(msg.u.peer.vm);
		break;
	case KEEP_SERVICE_READY:
	case KEEP_SERVICE_FAILED:
	case KEEP_SERVICE_EXIT:
		instances_event(&msg);
		break;
	case KEEP_VM:
		clients_vm(&msg.u.vm);
		break;
	case KEEP_CONF:
		take_conf(&msg);
		break;
	case KEEP_RELOADED:
		control_reloaded(&msg.u.service);
		break;
	case KEEP_ASK:
		(void)keep_rpc(&engine.keep, &(struct keep_msg){ .type = KEEP_UP });
		break;
	case KEEP_STOP:
		engine.st->stopping = 1;
		break;
	}
	for (int i = 0; i < nfds; i++)
		close(fds[i]);
}

/* Events until the launcher goes or everything is released. */
static int
serve(void)
{
	int r = loop_init(&engine.loop);

	engine.net.fd = -1;
	for (unsigned i = 0; i < CONF_VMS_MAX; i++)
		engine.share[i].fd = -1;
	for (unsigned i = 0; i < ENGINE_CONNS; i++)
		engine.conn[i].fd = -1;
	if (!r)
		r = confine();
	engine.events = (struct loop_src){ .fd = engine.keep.events, .fn = on_event };
	if (!r)
		r = loop_add(&engine.loop, &engine.events, EPOLLIN);
	if (!r)
		r = clients_start();
	if (r) {
		log_err("the engine can't start: %s", strerror(-r));
		return EXIT_SYSTEM;
	}
	instances_take_over(known, knowns);
	(void)keep_rpc(&engine.keep, &(struct keep_msg){ .type = KEEP_UP });
	while (!engine.loop.stop) {
		if (engine.st->stopping && !instances_stop())
			break;
		r = loop_once(&engine.loop, clients_timeout());
		if (r < 0)
			return EXIT_SYSTEM;
		clients_resume();
	}
	return EXIT_OK;
}

int
role_engine(int argc, char **argv)
{
	int r;

	if (argc >= 2 && !strcmp(argv[1], "--print-syscalls")) {
		sandbox_print("engine, serving", calls, NULL);
		return EXIT_OK;
	}
	log_init("vfun-engine", 0);
	r = keep_start(&engine.keep, sizeof(struct engine_state), on_alive);
	if (r) {
		fprintf(stderr, "vfun engine: the engine is started by vfund only, see vfund(8)\n");
		return EXIT_USAGE;
	}
	log_init("vfun-engine", (int)engine.keep.start.verbose);
	engine.st = engine.keep.state;
	return serve();
}
