/* SPDX-License-Identifier: MIT
 *
 * echo.c - what a call is compared with, other than memory: a process at the other end of a socket, or asleep in a
 * futex
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/futex.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/fd.h"
#include "bench.h"
#include "echo.h"

#define ANSWER (ECHO_BYTES / sizeof(uint32_t)) /* words from the question to the answer */
#define SPIN_NS 1000000000ull

static int
read_all(int fd, void *buf, size_t len)
{
	char *p = buf;

	while (len) {
		ssize_t n = read(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ECONNRESET;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

_Noreturn static void
answer_fd(int fd)
{
	char buf[ECHO_BYTES];

	while (!read_all(fd, buf, sizeof(buf)) && !fd_write_all(fd, buf, sizeof(buf)))
		;
	_exit(0);
}

_Noreturn static void
answer_futex(uint32_t *word)
{
	uint32_t seen = 0;

	for (;;) {
		uint32_t now = __atomic_load_n(word, __ATOMIC_ACQUIRE);

		if (now == seen) {
			syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
			continue;
		}
		seen = now;
		__atomic_store_n(word + ANSWER, seen, __ATOMIC_RELEASE);
	}
}

/* A child that answers: on fd, or at e->word. */
static int
start(struct echo *e, void (*answer)(int fd), int fd)
{
	pid_t me = getpid();

	e->pid = fork();
	if (e->pid < 0)
		return -errno;
	if (e->pid)
		return 0;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != me)
		_exit(1);
	if (e->fd >= 0)
		close(e->fd);
	if (answer)
		answer(fd);
	answer_futex(e->word);
}

static void
forget(struct echo *e)
{
	e->pid = 0;
	e->fd = -1;
	e->word = NULL;
}

int
echo_unix(struct echo *e)
{
	int pair[2];
	int r;

	forget(e);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -errno;
	e->fd = pair[0];
	r = start(e, answer_fd, pair[1]);
	close(pair[1]);
	return r;
}

/* A throw-away VM's loopback interface is down. Failing shows in connect(). */
static void
loopback_up(int fd)
{
	struct ifreq ifr = { .ifr_name = "lo" };

	if (!ioctl(fd, SIOCGIFFLAGS, &ifr) && !(ifr.ifr_flags & IFF_UP)) {
		ifr.ifr_flags |= IFF_UP;
		(void)ioctl(fd, SIOCSIFFLAGS, &ifr);
	}
}

/* A socket that listens on some port, which is stored. */
static int
listen_tcp(struct sockaddr_in *a)
{
	socklen_t len = sizeof(*a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return -errno;
	loopback_up(fd);
	*a = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	if (!bind(fd, (struct sockaddr *)a, sizeof(*a)) && !listen(fd, 1) &&
	    !getsockname(fd, (struct sockaddr *)a, &len))
		return fd;
	r = -errno;
	close(fd);
	return r;
}

static int
connect_tcp(const struct sockaddr_in *a)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;
	int r;

	if (fd < 0)
		return -errno;
	if (!connect(fd, (const struct sockaddr *)a, sizeof(*a)) &&
	    !setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		return fd;
	r = -errno;
	close(fd);
	return r;
}

_Noreturn static void
answer_listener(int listener)
{
	int fd = accept(listener, NULL, NULL);
	int one = 1;

	if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		_exit(1);
	answer_fd(fd);
}

static int
serve(struct echo *e, struct sockaddr_in *a)
{
	int listener = listen_tcp(a);
	int r;

	forget(e);
	if (listener < 0)
		return listener;
	r = start(e, answer_listener, listener);
	close(listener);
	return r;
}

int
echo_serve(struct echo *e, unsigned *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	int r = serve(e, &a);

	*port = r ? 0 : ntohs(a.sin_port);
	return r;
}

int
echo_tcp(struct echo *e)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	int r = serve(e, &a);

	if (!r)
		e->fd = connect_tcp(&a);
	return r ? r : e->fd < 0 ? e->fd : 0;
}

int
echo_connect(struct echo *e, const char *server)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	const char *colon = strrchr(server, ':');
	char address[INET_ADDRSTRLEN];

	forget(e);
	if (!colon || colon - server >= (long)sizeof(address))
		return -EINVAL;
	snprintf(address, sizeof(address), "%.*s", (int)(colon - server), server);
	a.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
	if (inet_pton(AF_INET, address, &a.sin_addr) != 1)
		return -EINVAL;
	e->fd = connect_tcp(&a);
	return e->fd < 0 ? e->fd : 0;
}

int
echo_futex(struct echo *e)
{
	forget(e);
	e->word = mmap(NULL, VFUN_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (e->word == MAP_FAILED) {
		e->word = NULL;
		return -errno;
	}
	return start(e, NULL, -1);
}

void
echo_end(struct echo *e)
{
	if (e->fd >= 0)
		close(e->fd);
	if (e->pid > 0) {
		kill(e->pid, SIGKILL);
		waitpid(e->pid, NULL, 0);
	}
	if (e->word)
		munmap(e->word, VFUN_PAGE);
	forget(e);
}

static int
trip_futex(struct echo *e)
{
	uint32_t next = __atomic_load_n(e->word, __ATOMIC_RELAXED) + 1;
	uint64_t until = 0;

	__atomic_store_n(e->word, next, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, e->word, FUTEX_WAKE, 1, NULL, NULL, 0);
	for (unsigned turn = 1; __atomic_load_n(e->word + ANSWER, __ATOMIC_ACQUIRE) != next; turn++) {
		vfun_relax();
		if (turn % 1024)
			continue;
		if (!until)
			until = bench_ns() + SPIN_NS;
		else if (bench_ns() > until)
			return -ETIMEDOUT;
	}
	return 0;
}

int
echo_trip(struct echo *e, uint64_t value)
{
	uint64_t buf[ECHO_BYTES / sizeof(uint64_t)] = { value };
	uint64_t back[ECHO_BYTES / sizeof(uint64_t)];
	int r;

	if (e->fd < 0)
		return trip_futex(e);
	r = fd_write_all(e->fd, buf, sizeof(buf));
	if (!r)
		r = read_all(e->fd, back, sizeof(back));
	return r ? r : back[0] == value ? 0 : -EIO;
}
