/* SPDX-License-Identifier: MIT
 *
 * model.c - the test device: an FPGA card's stand-in behind the sw_emu shim of AMD's XRT
 *
 *	model-c|model-rtl --socket PATH [--log FILE] [--fault FILE] [--memory MIB]
 *
 * Theory of operation
 *
 * XRT's libraries, told to emulate, don't open a card: they connect to a Unix stream socket and make remote calls, for
 * memory and for a kernel's registers (model-rpc.c). This process answers. It plays the card: one device memory
 * (model-memory.c), one compute unit for each kernel (model-units.c), computing in C (model-c.c) or as the Verilog of
 *rtl/ that Verilator compiled (model-rtl.cc); and what is the kernel driver's part on a real machine: several client
 * processes share it, each sees its own buffers and registers alone, and their runs queue up for the units. While
 * one client has loaded an xclbin, another client can't load a different one (model-load.c).
 *
 * One thread does all: calls are answered between steps of the kernels' work, so that a long run delays nobody's
 * registers. Nothing that a client sends is believed: lengths are checked, addresses are looked up among the client's
 *own allocations, and what is refused is a line in the log.
 *
 * Freed memory keeps what was in it. A client that shows its buffers without clearing them shows what another client
 * had there: tests look for that.
 *
 * The file of --fault says what goes wrong; it is read again for each run, synchronisation and load (model-fault.c).
 * SIGTERM and SIGINT end the process; it removes its socket.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "model.h"

#define CONNECTIONS 64

struct client *clients;
static FILE *log_file;
static struct conn *conns[CONNECTIONS];
static struct pollfd polls[2 + CONNECTIONS]; /* the listener, the signals, the connections */

void
say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(log_file, format, args);
	va_end(args);
	fputc('\n', log_file);
}

static void __attribute__((noreturn)) die(const char *what, const char *with)
{
	fprintf(stderr, "model: %s %s: %s\n", what, with, strerror(errno));
	exit(1);
}

static int
listen_at(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (strlen(path) >= sizeof(a.sun_path)) {
		errno = ENAMETOOLONG;
		die("socket", path);
	}
	strcpy(a.sun_path, path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 16))
		die("socket", path);
	return fd;
}

static int
signals(void)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (fd < 0)
		die("signalfd", "");
	return fd;
}

/* All connections of one process are one client. */
static struct client *
client_of(pid_t pid)
{
	static unsigned int number;
	struct client *c;

	for (c = clients; c; c = c->next) {
		if (c->pid == pid)
			return c;
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		die("client", "");
	c->number = ++number;
	c->pid = pid;
	c->next = clients;
	clients = c;
	say("client %u connects, process %d", c->number, (int)pid);
	return c;
}

static void
client_leaves(struct client *c)
{
	struct client **at = &clients;

	if (--c->connections)
		return;
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	units_drop(c);
	memory_drop(c);
	load_drop(c);
	say("client %u is gone", c->number);
	free(c);
}

static void
accept_one(int listener)
{
	struct ucred peer = { .pid = 0 };
	socklen_t size = sizeof(peer);
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	unsigned int i = 0;

	if (fd < 0)
		return;
	while (i < CONNECTIONS && conns[i])
		i++;
	if (i == CONNECTIONS || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) || peer.pid <= 0) {
		say("a connection is refused");
		close(fd);
		return;
	}
	conns[i] = conn_new(fd, client_of(peer.pid));
	if (!conns[i])
		die("connection", "");
	polls[2 + i].fd = fd;
}

static void
serve_ready(void)
{
	for (unsigned int i = 0; i < CONNECTIONS; i++) {
		struct pollfd *p = &polls[2 + i];

		if (conns[i] && p->revents && !conn_ready(conns[i])) {
			client_leaves(conn_end(conns[i]));
			conns[i] = NULL;
			p->fd = -1;
		}
		if (conns[i])
			p->events = conn_wants_write(conns[i]) ? POLLOUT : POLLIN;
	}
}

static void
serve(const char *socket)
{
	polls[0] = (struct pollfd){ .fd = listen_at(socket), .events = POLLIN };
	polls[1] = (struct pollfd){ .fd = signals(), .events = POLLIN };
	for (unsigned int i = 0; i < CONNECTIONS; i++)
		polls[2 + i] = (struct pollfd){ .fd = -1, .events = POLLIN };
	say("serves, kernels in %s", kernels_kind);
	for (;;) {
		if (poll(polls, 2 + CONNECTIONS, units_work()) < 0 && errno != EINTR)
			die("poll", "");
		if (polls[1].revents)
			break;
		serve_ready();
		if (polls[0].revents)
			accept_one(polls[0].fd);
	}
	unlink(socket);
	say("ends");
}

int
main(int argc, char **argv)
{
	static const struct option options[] = { { "socket", required_argument, NULL, 's' },
		{ "log", required_argument, NULL, 'l' }, { "fault", required_argument, NULL, 'f' },
		{ "memory", required_argument, NULL, 'm' }, { 0 } };
	const char *socket = NULL, *log = NULL;
	size_t mib = 1024;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 's':
			socket = optarg;
			break;
		case 'l':
			log = optarg;
			break;
		case 'f':
			fault_from(optarg);
			break;
		case 'm':
			mib = strtoul(optarg, NULL, 10);
			break;
		default:
			return 2;
		}
	}
	if (!socket || optind != argc || mib < 1 || mib > 65536) {
		fprintf(stderr, "usage: %s --socket PATH [--log FILE] [--fault FILE] [--memory MIB]\n", argv[0]);
		return 2;
	}
	log_file = log ? fopen(log, "ae") : stderr;
	if (!log_file)
		die("log", log);
	setvbuf(log_file, NULL, _IOLBF, 0);
	if (!memory_init(mib << 20))
		die("memory", "");
	serve(socket);
	return 0;
}
