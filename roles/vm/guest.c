/* SPDX-License-Identifier: MIT
 *
 * guest.c - a QEMU's life, and what its guest says
 *
 * Theory of operation
 *
 * QEMU is a child that the kernel kills when this process dies, however that happens; the initramfs is a memfd, the two
 * serial ports are socket pairs: there is nothing to clean up. One loop waits for the guest's frames (guest.h), which
 * go to standard output and error as they come, for the kernel's console, for signals, and for the time-out.
 *
 * It ends when the guest has sent its last frame, when the port ends because QEMU does, by a signal, or by the
 * time-out. A /dev/kvm can be there and yet run no guest (virtual machines that offer half of it do that: QEMU aborts,
 * or the guest stops at its first unusual instruction), so a guest that KVM hasn't brought to its greeting is run once
 * more on an emulated processor, unless --accel says what is wanted. QEMU's own standard error goes to a memfd and is
 * shown only when something went wrong: a command's output must arrive as it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/guest.h"
#include "../roles.h"
#include "vm.h"

#define TAIL 2048     /* bytes of the console to show when there is no result */
#define GRACE_MS 2000 /* for QEMU to end by itself after the last frame */
#define KVM_MS 15000  /* for a guest under KVM to greet; it takes a second or two */
#define NO_RESULT (-1)
#define NO_KVM (-2) /* the same again, without KVM */
#define NO_EXEC 127 /* exit status of a QEMU that couldn't be executed */

struct guest {
	const struct vm_options *o;
	pid_t pid;   /* 0: collected */
	int no_exec; /* QEMU couldn't be executed */
	int port;
	int console;
	int console_to; /* -1: nowhere */
	int sigfd;
	int errors;	  /* QEMU's standard error */
	int64_t deadline; /* ms, 0: none */
	int64_t greet_by; /* ms, 0: by the deadline */
	int result;	  /* exit status, NO_RESULT until known */
	int finished;	  /* the result came from the guest, in its last frame */
	char tail[TAIL];  /* the console's end, a ring */
	size_t tail_at;
	size_t hello; /* bytes of GUEST_HELLO seen */
	struct guest_frame frame;
	size_t have;	/* of frame */
	size_t left;	/* of its data */
	char text[256]; /* a GUEST_EXIT's or GUEST_FAIL's data */
	size_t text_len;
};

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Milliseconds left, for poll(). */
static int
left_ms(int64_t deadline)
{
	int64_t left;

	if (!deadline)
		return -1;
	left = deadline - now_ms();
	return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

static int
greeted(const struct guest *g)
{
	return g->hello == strlen(GUEST_HELLO);
}

/* Collect QEMU if it has ended, or wait until it does (flags 0). */
static void
collect_now(struct guest *g, int flags)
{
	int status;

	if (!g->pid || waitpid(g->pid, &status, flags) != g->pid)
		return;
	g->pid = 0;
	g->no_exec = WIFEXITED(status) && WEXITSTATUS(status) == NO_EXEC;
}

static void
on_signal(struct guest *g)
{
	struct signalfd_siginfo info;

	if (read(g->sigfd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo != SIGCHLD)
		g->result = 128 + (int)info.ssi_signo;
	else
		collect_now(g, WNOHANG);
}

/* What may explain that there is no result: the console's last lines, QEMU's errors. */
static void
show_tail(const struct guest *g)
{
	size_t from = g->tail_at > TAIL ? g->tail_at - TAIL : 0;
	int fresh = 1, escape = 0;

	for (size_t i = from; i < g->tail_at; i++) {
		char c = g->tail[i % TAIL];

		/* Firmware clears a screen: ESC c, ESC [ 2 J. */
		if (c == '\033' || escape) {
			escape = c == '\033' || c == '[' || (c >= '0' && c <= '?');
		} else if (c == '\n') {
			if (!fresh)
				fputc('\n', stderr);
			fresh = 1;
		} else if (c >= ' ' && c <= '~') {
			fprintf(stderr, "%s%c", fresh ? "vfun vm: console: " : "", c);
			fresh = 0;
		}
	}
	if (!fresh)
		fputc('\n', stderr);
}

static void
time_out(struct guest *g)
{
	fprintf(stderr, "vfun vm: no result within %g seconds (--timeout)\n", g->o->timeout);
	show_tail(g);
	g->result = EXIT_TIMEOUT;
}

/* Write to a stream of ours that may be full, without being deaf to signals and the time-out meanwhile: poll() promises
 * room for PIPE_BUF bytes. */
static void
write_out(struct guest *g, int fd, const char *data, size_t len)
{
	while (len > 0 && g->result == NO_RESULT) {
		struct pollfd p[2] = { { .fd = fd, .events = POLLOUT }, { .fd = g->sigfd, .events = POLLIN } };
		ssize_t n;
		int r = poll(p, 2, left_ms(g->deadline));

		if (r == 0)
			time_out(g);
		if (p[1].revents)
			on_signal(g);
		if (r <= 0 || !p[0].revents)
			continue;
		n = write(fd, data, len < PIPE_BUF ? len : PIPE_BUF);
		if (n < 0 && errno != EINTR && errno != EAGAIN) {
			fprintf(stderr, "vfun vm: writing the command's output: %s\n", strerror(errno));
			g->result = EXIT_SYSTEM;
		}
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
}

/* The last frame is whole. */
static void
finish(struct guest *g)
{
	if (g->result != NO_RESULT || g->text_len < 1)
		return;
	g->result = (unsigned char)g->text[0];
	g->finished = 1;
	if (g->frame.type == GUEST_FAIL)
		fprintf(stderr, "vfun vm: in the guest: %.*s\n", (int)(g->text_len - 1), g->text + 1);
}

/* Part of a frame's data. */
static void
frame_data(struct guest *g, const char *data, size_t len)
{
	if (g->frame.type == GUEST_STDOUT || g->frame.type == GUEST_STDERR) {
		write_out(g, g->frame.type == GUEST_STDOUT ? 1 : 2, data, len);
	} else {
		size_t room = sizeof(g->text) - g->text_len;

		memcpy(g->text + g->text_len, data, len < room ? len : room);
		g->text_len += len < room ? len : room;
	}
	g->left -= len;
	if (!g->left && (g->frame.type == GUEST_EXIT || g->frame.type == GUEST_FAIL))
		finish(g);
}

/* Bytes from the port, in any pieces. */
static void
parse(struct guest *g, const char *buf, size_t len)
{
	while (len > 0 && g->result == NO_RESULT) {
		size_t n = 1;

		if (!greeted(g)) {
			g->hello = *buf == GUEST_HELLO[g->hello] ? g->hello + 1 : *buf == GUEST_HELLO[0];
		} else if (g->left > 0) {
			n = len < g->left ? len : g->left;
			frame_data(g, buf, n);
		} else {
			((char *)&g->frame)[g->have++] = *buf;
			if (g->have == sizeof(g->frame)) {
				g->have = 0;
				g->left = (size_t)g->frame.len_low | (size_t)g->frame.len_high << 8;
				g->text_len = 0;
			}
		}
		buf += n;
		len -= n;
	}
}

static void
on_console(struct guest *g, const char *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		g->tail[g->tail_at++ % TAIL] = buf[i];
	if (g->console_to >= 0 && fd_write_all(g->console_to, buf, len))
		g->console_to = -1;
}

/* QEMU's standard error. What it says of the share: EXIT_NO_VFUND nobody listens, EXIT_REFUSED turned away, else 0. */
static int
show_errors(const struct guest *g)
{
	static char text[4096];
	ssize_t n = pread(g->errors, text, sizeof(text) - 1, 0);
	char *save = NULL;
	int share;

	text[n > 0 ? n : 0] = '\0';
	share = strstr(text, "ailed to connect")     ? EXIT_NO_VFUND
		: strstr(text, "vhost_backend_init") ? EXIT_REFUSED
						     : 0;
	for (char *line = strtok_r(text, "\r\n", &save); line; line = strtok_r(NULL, "\r\n", &save))
		fprintf(stderr, "vfun vm: QEMU: %s\n", line);
	return share;
}

/* QEMU went away without a result. */
static int
explain(const struct guest *g)
{
	int share = show_errors(g);

	if (g->no_exec)
		return EXIT_SYSTEM;
	if (share == EXIT_NO_VFUND) {
		fprintf(stderr, "vfun vm: nobody listens at the share's socket: is vfund running?\n");
		return share;
	}
	if (share == EXIT_REFUSED) {
		fprintf(
		    stderr, "vfun vm: the share turns QEMU away: does another VM run as '%s'? See --vm\n", g->o->vm);
		return share;
	}
	show_tail(g);
	if (g->greet_by && !greeted(g))
		return NO_KVM;
	fprintf(stderr, "vfun vm: the guest ended without a result: see --console, --memory\n");
	return EXIT_SYSTEM;
}

static void
loop(struct guest *g)
{
	struct pollfd p[3] = { { .fd = g->port, .events = POLLIN }, { .fd = g->console, .events = POLLIN },
		{ .fd = g->sigfd, .events = POLLIN } };
	static char buf[65536];

	while (g->result == NO_RESULT) {
		int64_t until = g->greet_by && !greeted(g) ? g->greet_by : g->deadline;
		ssize_t n;

		if (poll(p, 3, left_ms(until)) == 0) {
			if (until == g->deadline)
				time_out(g);
			else
				g->result = NO_KVM;
			return;
		}
		if (p[1].revents) {
			n = read(g->console, buf, sizeof(buf));
			if (n > 0)
				on_console(g, buf, (size_t)n);
			else
				p[1].fd = -1;
		}
		if (p[2].revents)
			on_signal(g);
		if (p[0].revents) {
			n = read(g->port, buf, sizeof(buf));
			if (n > 0)
				parse(g, buf, (size_t)n);
			else if (n == 0 || errno != EINTR)
				return;
		}
	}
}

/* Let QEMU end by itself after a result, kill it otherwise, and collect it. */
static void
collect(struct guest *g, int grace_ms)
{
	int64_t deadline = now_ms() + grace_ms;

	while (g->pid) {
		struct pollfd p = { .fd = g->sigfd, .events = POLLIN };

		collect_now(g, WNOHANG);
		if (!g->pid)
			break;
		if (poll(&p, 1, left_ms(deadline)) > 0) {
			on_signal(g);
		} else {
			kill(g->pid, SIGKILL);
			collect_now(g, 0);
		}
	}
}

_Noreturn static void
child(const struct command *c, const int *keep, int nkeep, int errors, pid_t parent)
{
	int null = open("/dev/null", O_RDWR);
	sigset_t none;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_SYSTEM);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	dup2(null, 0);
	dup2(null, 1);
	dup2(errors, 2);
	fd_close_others(keep, nkeep);
	for (int i = 0; i < nkeep; i++)
		fcntl(keep[i], F_SETFD, 0);
	execvp(c->argv[0], c->argv);
	fprintf(stderr, "%s: %s: install qemu-system-x86, or name another with --qemu\n", c->argv[0], strerror(errno));
	_exit(NO_EXEC);
}

/* 0, or -1 after having said why. */
static int
write_pidfile(const struct guest *g)
{
	FILE *f = fopen(g->o->pidfile, "we");
	int bad = !f || fprintf(f, "%d\n", (int)g->pid) < 0;

	if ((f && fclose(f)) || bad) {
		fprintf(stderr, "vfun vm: %s: %s\n", g->o->pidfile, strerror(errno));
		return -1;
	}
	return 0;
}

static void
show_command(const struct command *c)
{
	for (int i = 0; i < c->argc; i++)
		fprintf(stderr, "%s%s", i ? " " : "vfun vm: ", c->argv[i]);
	fputc('\n', stderr);
}

static int
watch(struct guest *g)
{
	if (g->o->pidfile && write_pidfile(g))
		g->result = EXIT_SYSTEM;
	loop(g);
	collect(g, g->finished ? GRACE_MS : 0);
	if (g->o->pidfile)
		unlink(g->o->pidfile);
	if (g->result == NO_RESULT)
		return explain(g);
	return g->result;
}

static int
open_console(struct guest *g)
{
	const char *name = g->o->console;

	g->console_to = -1;
	if (!name)
		return 0;
	g->console_to = strcmp(name, "-") ? open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : dup(2);
	if (g->console_to >= 0)
		return 0;
	fprintf(stderr, "vfun vm: %s: %s\n", name, strerror(errno));
	return EXIT_SYSTEM;
}

/* From here on signals wait in a descriptor; the child gets its own mask. */
static int
catch_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Start QEMU with the other ends of the ports. */
static int
start(struct guest *g, const struct kernel *k, int image, int kvm)
{
	int port[2] = { -1, -1 }, console[2] = { -1, -1 };
	pid_t me = getpid();
	struct command c;
	int r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, port) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console) ||
	    (g->errors = memfd_create("vfun-qemu-stderr", MFD_CLOEXEC)) < 0) {
		fprintf(stderr, "vfun vm: %s\n", strerror(errno));
		return EXIT_SYSTEM;
	}
	r = command_make(&c, g->o, k, image, console[1], port[1], kvm);
	if (!r && g->o->show_args)
		show_command(&c);
	g->sigfd = r ? -1 : catch_signals();
	g->pid = r ? 0 : fork();
	if (!r && !g->pid)
		child(&c, (const int[]){ image, console[1], port[1] }, 3, g->errors, me);
	if (g->pid < 0) {
		fprintf(stderr, "vfun vm: starting QEMU: %s\n", strerror(errno));
		r = EXIT_SYSTEM;
	}
	command_free(&c);
	close(port[1]);
	close(console[1]);
	g->port = port[0];
	g->console = console[0];
	return r;
}

/* One QEMU. Its exit status, or NO_KVM. */
static int
run(struct guest *g, const struct kernel *k, int image, int kvm)
{
	int64_t greet_by = kvm && g->o->accel == VM_ACCEL_AUTO ? now_ms() + KVM_MS : 0;
	int r;

	g->result = NO_RESULT;
	g->greet_by = greet_by && (!g->deadline || greet_by < g->deadline) ? greet_by : 0;
	r = start(g, k, image, kvm);
	return r ? r : watch(g);
}

static void
forget(struct guest *g)
{
	close(g->port);
	close(g->console);
	close(g->sigfd);
	close(g->errors);
	g->hello = g->tail_at = 0;
}

int
guest_run(const struct vm_options *o, const struct kernel *k)
{
	static struct guest g;
	int kvm = o->accel == VM_ACCEL_KVM || (o->accel == VM_ACCEL_AUTO && command_can_kvm());
	int image, r;

	g.o = o;
	g.deadline = o->timeout > 0 ? now_ms() + (int64_t)(o->timeout * 1000) : 0;
	r = open_console(&g);
	if (r)
		return r;
	image = image_make(o, k);
	if (image < 0)
		return EXIT_SYSTEM;
	r = run(&g, k, image, kvm);
	if (r == NO_KVM) {
		fprintf(stderr, "vfun vm: KVM does not bring the guest up: emulating its processor (see --accel)\n");
		forget(&g);
		r = run(&g, k, image, 0);
	}
	close(image);
	return r;
}
