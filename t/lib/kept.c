/* SPDX-License-Identifier: MIT
 *
 * kept.c - a child that was taken over sends its launcher descriptors whose close() would wait for ever
 *
 *   kept FOLDER    roles/daemon/kept.c as the launcher, against such a child. Needs root, mounts a file system on
 * FOLDER.
 *
 * That file system (FUSE) is served by a process that opens its one file for everybody, and never answers FLUSH, which
 * the kernel sends and waits for at each close(). The child tries each way to make the launcher close one. Says "ok",
 * or what went wrong; a launcher that hangs is ended by SIGALRM.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../roles/common/fd.h"
#include "../../roles/common/log.h"
#include "../../roles/common/slots.h"
#include "../../roles/daemon/launcher.h"

#define HANG_S 10
#define DONE 7 /* the child's exit status when all was as it should be */

static struct launcher launcher;
static struct kept *const kept = &launcher.vm[0].share;
static int stream[2]; /* what the child shall have consumed */
static int trap;      /* the file that can't be closed */
static pid_t server;
static int status_of_child;

static void
want(int ok, const char *what)
{
	if (ok)
		return;
	printf("not as it should be: %s\n", what);
	fflush(stdout);
	kill(server, SIGKILL);
	_exit(1);
}

/* ---- the file system ---- */

static void
answer(int dev, const struct fuse_in_header *in, const void *body, size_t len)
{
	char buf[512];
	struct fuse_out_header out = { .len = (uint32_t)(sizeof(out) + len), .unique = in->unique };

	if (!body)
		out.error = -ENOSYS;
	memcpy(buf, &out, sizeof(out));
	if (len)
		memcpy(buf + sizeof(out), body, len);
	if (write(dev, buf, sizeof(out) + len) < 0)
		_exit(0);
}

static struct fuse_attr
attr_of(uint64_t node)
{
	return (struct fuse_attr){ .ino = node, .mode = node == 1 ? S_IFDIR | 0755 : S_IFREG | 0666, .nlink = 1 };
}

static void
serve(int dev)
{
	static char buf[1 << 17];
	const struct fuse_in_header *in = (const void *)buf;
	struct fuse_init_out init = { .major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 4096 };
	struct fuse_entry_out entry = { .nodeid = 2, .attr_valid = 3600, .entry_valid = 3600, .attr = attr_of(2) };
	struct fuse_open_out opened = { .fh = 1 };

	while (read(dev, buf, sizeof(buf)) > 0) {
		struct fuse_attr_out attr = { .attr_valid = 3600, .attr = attr_of(in->nodeid) };

		if (in->opcode == FUSE_INIT)
			answer(dev, in, &init, sizeof(init));
		else if (in->opcode == FUSE_LOOKUP)
			answer(dev, in, &entry, sizeof(entry));
		else if (in->opcode == FUSE_GETATTR)
			answer(dev, in, &attr, sizeof(attr));
		else if (in->opcode == FUSE_OPEN)
			answer(dev, in, &opened, sizeof(opened));
		else if (in->opcode != FUSE_FLUSH)
			answer(dev, in, NULL, 0);
	}
	_exit(0);
}

static void
make_trap(const char *folder)
{
	char text[128];
	int dev = open("/dev/fuse", O_RDWR);

	want(dev >= 0 && unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) == 0,
	    "/dev/fuse, and mounts of one's own");
	snprintf(text, sizeof(text), "fd=%d,rootmode=40000,user_id=0,group_id=0", dev);
	want(mount("trap", folder, "fuse", 0, text) == 0, "mounting FUSE");
	server = fork();
	if (!server) {
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		alarm(HANG_S);
		serve(dev);
	}
	close(dev);
	snprintf(text, sizeof(text), "%s/file", folder);
	trap = open(text, O_RDWR);
	want(trap >= 0, "opening its file");
}

/* ---- the child ---- */

static int
rpc(struct keep *k, struct keep_msg msg, const int *fds, int nfds)
{
	if (fd_send(k->rpc, &msg, sizeof(msg), fds, nfds) || fd_recv(k->rpc, &msg, sizeof(msg), NULL, 0, NULL) <= 0)
		return -EPIPE;
	return msg.err;
}

static int
store(struct keep *k, uint32_t slot, int fd)
{
	want(fd >= 0, "something to send");
	return rpc(k, (struct keep_msg){ .type = KEEP_STORE, .slot = slot }, &fd, 1);
}

/* Each slot takes one type of descriptor, and what the launcher put there stays. */
static void
wrong_things(struct keep *k)
{
	const int event = eventfd(0, 0), memory = memfd_create("m", 0), folder = open("/dev/null", O_RDONLY);
	int pair[2];

	want(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0, "a pair");
	want(store(k, SLOT_KICK, event) == 0, "an eventfd is kept");
	want(store(k, SLOT_REGION, memory) == 0, "a memfd is kept");
	want(store(k, SLOT_REGION, folder) == 0, "a file that is memory, as well");
	want(store(k, SLOT_BACK, stream[1]) == 0, "a stream is kept");
	want(store(k, SLOT_KICK, memory) == -EPERM, "no memfd where an eventfd belongs");
	want(store(k, SLOT_REGION, event) == -EPERM, "no eventfd as memory");
	want(store(k, SLOT_REGION, pair[0]) == -EPERM, "no socket as memory");
	want(store(k, SLOT_BACK, pair[0]) == -EPERM, "no socket of another type");
	want(store(k, SLOT_FRONT, stream[1]) == -EPERM, "no other front-end");
	want(
	    store(k, KEEP_SLOTS, memory) == -EPERM && store(k, SLOT_END, memory) == -EPERM, "no slot that isn't there");
	want(
	    rpc(k, (struct keep_msg){ .type = KEEP_STORE, .slot = SLOT_REGION }, NULL, 0) == -EPERM, "nothing to keep");
	want(rpc(k, (struct keep_msg){ .type = KEEP_DROP, .slot = SLOT_FRONT }, NULL, 0) == -EPERM,
	    "the front-end stays");
	want(rpc(k, (struct keep_msg){ .type = KEEP_LAUNCH }, NULL, 0) == -EPERM, "no service for a share");
	want(rpc(k, (struct keep_msg){ .type = KEEP_COMMIT, .slot = SLOT_KICK, .len = 1 }, NULL, 0) == -EPERM,
	    "no commit to anything else");
	want(rpc(k, (struct keep_msg){ .type = KEEP_COMMIT, .slot = SLOT_FRONT, .len = 1, .with = SLOT_REGION + 1 },
		 NULL, 0) == -EPERM,
	    "nor with guest memory");
}

/* The same table, for the other children. */
static void
others(void)
{
	const struct keep_msg commit = { .type = KEEP_COMMIT, .slot = SLOT_CONNS, .len = 1 };
	const struct keep_msg connection = { .type = KEEP_STORE, .slot = SLOT_CONNS };
	const struct keep_msg listener = { .type = KEEP_STORE, .slot = SLOT_CONTROL };
	const struct keep_msg folder = { .type = KEEP_STORE, .slot = SLOT_SERVICE };
	const struct keep_msg launch = { .type = KEEP_LAUNCH };
	int dir = open("/", O_RDONLY | O_DIRECTORY);
	int datagrams[2];
	int pair[2];

	launcher.engine.l = launcher.net.l = &launcher;
	want(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams) == 0,
	    "pairs");
	want(rules_check(&launcher.engine, &connection, pair, 1) == 0, "the engine's connections are kept");
	want(rules_check(&launcher.engine, &connection, datagrams, 1) == -EPERM, "no other sockets");
	want(rules_check(&launcher.engine, &listener, pair, 1) == -EPERM, "nor one in place of a listening one");
	want(rules_check(&launcher.engine, &folder, &dir, 1) == -EPERM, "nor another folder");
	want(rules_check(&launcher.engine, &commit, NULL, 0) == -EPERM, "the launcher sends nothing for it");
	want(rules_check(&launcher.net, &connection, pair, 1) == -EPERM, "the net process keeps nothing");
	want(rules_check(&launcher.net, &launch, NULL, 0) == -EPERM, "and starts nothing");
	for (int i = 0; i < 2; i++) {
		close(pair[i]);
		close(datagrams[i]);
	}
	close(dir);
}

static void
child(void)
{
	const int many[] = { trap, trap, trap };
	static struct keep k;

	want(keep_start(&k, 4096, NULL) == 0, "the child's start");
	wrong_things(&k);
	want(store(&k, SLOT_REGION, trap) == 0, "also a file of FUSE");
	want(
	    rpc(&k, (struct keep_msg){ .type = KEEP_DROP, .slot = SLOT_REGION }, NULL, 0) == 0, "which can be dropped");
	want(rpc(&k, (struct keep_msg){ .type = KEEP_UP }, &trap, 1) == -EPERM,
	    "one that nobody asked for harms nobody");
	want(rpc(&k, (struct keep_msg){ .type = KEEP_CLOSE }, &trap, 1) == 0, "nor one that shall be closed");
	want(fd_send(stream[1], "xyz", 3, &trap, 1) == 0, "a message with a file of FUSE");
	want(rpc(&k, (struct keep_msg){ .type = KEEP_COMMIT, .slot = SLOT_FRONT, .consume = 3 }, NULL, 0) == 0,
	    "is consumed");
	want(rpc(&k, (struct keep_msg){ .type = KEEP_COMMIT, .slot = SLOT_FRONT, .consume = KEEP_DATA_MAX + 1 }, NULL,
		 0) == -EINVAL,
	    "more than any message has is not consumed");
	for (int i = 0; i < 100; i++)
		if (rpc(&k, (struct keep_msg){ .type = KEEP_UP }, many, 3) == -EPIPE)
			_exit(DONE);
	want(0, "who sends too many is cut off");
}

/* ---- the launcher, as far as kept.c needs it ---- */

char
launcher_state(pid_t pid, int64_t *cpu_ms)
{
	(void)pid;
	(void)cpu_ms;
	return 'S';
}

int64_t
launcher_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

pid_t
launcher_spawn(struct launcher *l, const char *const argv[], const int *fds, int nfds, int *pidfd)
{
	pid_t pid = fork();

	(void)l;
	(void)argv;
	(void)nfds;
	if (!pid) {
		int rpc_fd = fcntl(fds[0], F_DUPFD, 100);
		int events = fcntl(fds[1], F_DUPFD, 100);

		stream[1] = fcntl(stream[1], F_DUPFD, 100);
		/* The launcher's ends are closed, or it would not be missed; the trap isn't, or this would wait. */
		syscall(SYS_close_range, 3, trap - 1, 0);
		syscall(SYS_close_range, trap + 1, 99, 0);
		want(trap > KEEP_FD_EVENTS, "descriptors in this order");
		dup2(rpc_fd, KEEP_FD_RPC);
		dup2(events, KEEP_FD_EVENTS);
		child();
	}
	*pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	return pid;
}

int
launcher_collect(pid_t pid, int pidfd, int *status)
{
	(void)pidfd;
	waitpid(pid, status, 0);
	status_of_child = *status;
	return 0;
}

static void
ended(struct kept *k)
{
	k->l->loop.stop = 1;
}

int
main(int argc, char **argv)
{
	int status;

	if (argc != 2)
		return 2;
	log_init("launcher", 0);
	signal(SIGPIPE, SIG_IGN);
	want(loop_init(&launcher.loop) == 0 && kept_init(kept) == 0 && closer_start(&launcher) == 0, "a launcher");
	want(socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0, "a stream");
	make_trap(argv[1]);
	kept->l = &launcher;
	kept->role = "child";
	kept->name = "taken over";
	kept->ended = ended;
	kept->fds[SLOT_FRONT] = stream[0];
	others();
	want(kept_start(kept) == 0, "the start of a child");
	while (!launcher.loop.stop) {
		(void)closer_deadline(&launcher);
		loop_once(&launcher.loop, 10);
		closer_look(&launcher);
		(void)kept_look(kept);
		/* From here on the file can be closed: the child, too, is going to. */
		if (kept_hopeless(kept))
			kill(server, SIGKILL);
	}
	closer_end(&launcher);
	waitpid(server, &status, 0);
	want(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "nobody waited for the file system");
	want(kept_hopeless(kept), "it must not be started again");
	want(WIFSIGNALED(status_of_child) || WEXITSTATUS(status_of_child) == DONE, "the child was content");
	printf("ok\n");
	return 0;
}
