/* SPDX-License-Identifier: MIT
 *
 * linger.c - attacks by descriptors whose close() waits: for a TCP connection that lingers, with data that nobody reads
 *
 *   linger message SOCKET    connect to vfund's control socket and send one with the first message
 *   linger queue SOCKET      behind a whole message, and hang up
 *   linger many SOCKET N     N connections, each with one, at a time
 *   linger stream SOCKET     connect to a VM's socket, and send one with a byte
 *   linger old CMD...        CMD, and what it starts, on a kernel that can't refuse descriptors (before 6.16)
 *   linger bare CMD...       on a kernel without Landlock
 *
 * All but the last two say "ok" when that is done ("refused" where the kernel doesn't let them), and wait: the
 * connection that lingers is theirs, and with its other end it would end.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../proto/vfun.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

#define LINGER_S 3600

static void
want(int ok, const char *what)
{
	if (ok)
		return;
	printf("%s: %s\n", what, strerror(errno));
	exit(1);
}

/* Its close() takes an hour. */
static int
lingering(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const struct linger linger = { 1, LINGER_S };
	static const char data[65536];
	const int little = 4096;
	socklen_t len = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	want(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &little, sizeof(little)) == 0 &&
		 bind(listener, (struct sockaddr *)&a, len) == 0 && listen(listener, 1) == 0 &&
		 getsockname(listener, (struct sockaddr *)&a, &len) == 0 &&
		 connect(fd, (struct sockaddr *)&a, len) == 0 &&
		 setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0,
	    "a connection that lingers");
	while (send(fd, data, sizeof(data), MSG_DONTWAIT) > 0)
		;
	return fd;
}

static int
connect_to(const char *path, int type)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type, 0);

	strncpy(sa.sun_path, path, sizeof(sa.sun_path) - 1);
	want(connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0, "connect");
	return fd;
}

/* The message, and this descriptor. 0, or errno. */
static int
send_fd(int sock, const void *msg, size_t len, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { .buf = "" };
	struct iovec iov = { .iov_base = (void *)(size_t)msg, .iov_len = len };
	struct msghdr mh = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf)
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&mh);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	return sendmsg(sock, &mh, MSG_NOSIGNAL) < 0 ? errno : 0;
}

/* The message, and a descriptor that is in it and nowhere else: who sends it ends at once, and what a process has open
 * when it ends doesn't linger. 1, or 0: refused. */
static int
send_with(int sock, const void *msg, size_t len)
{
	int fd = lingering();
	int go[2];
	int status;
	pid_t pid;
	char c;

	want(pipe(go) == 0 && (pid = fork()) >= 0, "a process");
	if (!pid) {
		close(go[1]);
		_exit(read(go[0], &c, 1) ? 1 : send_fd(sock, msg, len, fd));
	}
	close(fd);
	close(go[0]);
	close(go[1]);
	want(waitpid(pid, &status, 0) == pid && WIFEXITED(status), "its end");
	errno = WEXITSTATUS(status);
	want(!errno || errno == EPERM || errno == EPIPE || errno == ECONNRESET, "sending a descriptor");
	return !errno;
}

static void
load(const struct sock_fprog *prog)
{
	want(geteuid() == 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no new privileges");
	want(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, prog) == 0, "a filter");
}

/* Whoever asks for SO_PASSRIGHTS is told that there is no such thing. */
static void
old_kernel(char **argv)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setsockopt, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SO_PASSRIGHTS, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOPROTOOPT),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	load(&prog);
	execv(argv[0], argv);
	want(0, argv[0]);
}

static void
bare_kernel(char **argv)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_landlock_create_ruleset, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	load(&prog);
	execv(argv[0], argv);
	want(0, argv[0]);
}

int
main(int argc, char **argv)
{
	const struct vfun_msg msg = {
		.magic = VFUN_MSG_MAGIC, .version = VFUN_VERSION, .type = VFUN_MSG_LIST, .tag = 1
	};
	int n = 1;
	int sent = 0;

	if (argc < 3)
		return 2;
	if (!strcmp(argv[1], "old"))
		old_kernel(argv + 2);
	if (!strcmp(argv[1], "bare"))
		bare_kernel(argv + 2);
	if (!strcmp(argv[1], "many"))
		n = atoi(argv[3]);
	for (int i = 0; i < n; i++) {
		int sock = connect_to(argv[2], strcmp(argv[1], "stream") ? SOCK_SEQPACKET : SOCK_STREAM);

		if (!strcmp(argv[1], "queue"))
			want(send(sock, &msg, sizeof(msg), 0) == (ssize_t)sizeof(msg), "a message");
		sent += !strcmp(argv[1], "stream") ? send_with(sock, "x", 1) : send_with(sock, &msg, sizeof(msg));
		if (!strcmp(argv[1], "queue"))
			close(sock);
	}
	printf(sent ? "ok\n" : "refused\n");
	fflush(stdout);
	for (;;)
		pause();
}
