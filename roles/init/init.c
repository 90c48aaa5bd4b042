/* SPDX-License-Identifier: MIT
 *
 * init.c - `vfun init`: pid 1 of the throw-away VM that `vfun vm` makes
 *
 * Theory of operation
 *
 * The VM's whole userland is this executable, as /vfun and /init, and GUEST_SPEC, which says what to do: load modules,
 * mount the share on /run/vfun, run one command or follow one script (script.c). Pid 1 itself never runs anything: it
 * forks a runner, relays what comes out of two pipes to the second serial port as frames (guest.h), and reaps whatever
 * dies. When the runner ends, everything that still runs is killed, so that the pipes end as well; the exit status is
 * the last frame. Then the machine is reset, which ends a QEMU with -no-reboot faster than powering off does.
 *
 * What goes wrong before the command runs is told in a GUEST_FAIL frame instead; if even the port isn't there, on the
 * kernel's console, of which `vfun vm` shows the end when no frame came.
 *
 * The command's path is looked up in /bin:/sbin:/, so "vfun" is this executable.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/guest.h"
#include "../common/qemu.h"
#include "../roles.h"
#include "network.h"
#include "script.h"

#define ARGS_MAX 1024
#define ORPHANS_MS 5000 /* to wait for the output of killed processes: one may be stuck in the share */

struct spec {
	const char *module[32];
	unsigned modules;
	const char *arg[ARGS_MAX + 1];
	unsigned args;
	const char *script;
	int share;
	int net;
};

static int port = -1;

static void
frame(enum guest_type type, const void *data, size_t len)
{
	struct guest_frame f = { (uint8_t)type, (uint8_t)len, (uint8_t)(len >> 8) };

	/* If the port fails there is nobody to tell; `vfun vm` misses the last frame and says so. */
	if (fd_write_all(port, &f, sizeof(f)) || fd_write_all(port, data, len))
		return;
}

_Noreturn static void
end_machine(void)
{
	if (port >= 0)
		tcdrain(port);
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

_Noreturn static void fail(enum vfun_exit status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

_Noreturn static void
fail(enum vfun_exit status, const char *fmt, ...)
{
	char text[256] = { (char)status };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + 1, sizeof(text) - 1, fmt, ap);
	va_end(ap);
	if (port >= 0)
		frame(GUEST_FAIL, text, 1 + strlen(text + 1));
	else
		fprintf(stderr, "vfun init: %s\n", text + 1);
	end_machine();
}

static void
mount_or_fail(const char *type, const char *where, const char *options)
{
	mkdir(where, 0755);
	if (mount(type, where, type, MS_NOSUID, options))
		fail(EXIT_SYSTEM, "mounting %s on %s: %s", type, where, strerror(errno));
}

/* The second serial port, as a line that carries bytes unchanged. */
static void
open_port(void)
{
	struct termios t;

	port = open(GUEST_PORT, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (port < 0 || tcgetattr(port, &t))
		fail(EXIT_SYSTEM, "%s: %s", GUEST_PORT, strerror(errno));
	cfmakeraw(&t);
	t.c_cflag |= CLOCAL;
	cfsetspeed(&t, B115200);
	if (tcsetattr(port, TCSANOW, &t) || fd_write_all(port, GUEST_HELLO, strlen(GUEST_HELLO)))
		fail(EXIT_SYSTEM, "%s: %s", GUEST_PORT, strerror(errno));
}

static void
read_entry(struct spec *s, char *entry)
{
	size_t key = strcspn(entry, "=");
	char *value = entry + key + 1;

	if (!entry[key])
		fail(EXIT_SYSTEM, "%s: '%s' has no value", GUEST_SPEC, entry);
	entry[key] = '\0';
	if (!strcmp(entry, "module") && s->modules < sizeof(s->module) / sizeof(s->module[0]))
		s->module[s->modules++] = value;
	else if (!strcmp(entry, "arg") && s->args < ARGS_MAX)
		s->arg[s->args++] = value;
	else if (!strcmp(entry, "script"))
		s->script = value;
	else if (!strcmp(entry, "share"))
		s->share = 1;
	else if (!strcmp(entry, "net"))
		s->net = 1;
	else if (!strcmp(entry, "env"))
		putenv(value);
	else
		fail(EXIT_SYSTEM, "%s: '%s' is unknown, or one too many", GUEST_SPEC, entry);
}

/* The spec's text is kept for ever: everything points into it. */
static void
read_spec(struct spec *s)
{
	int fd = open(GUEST_SPEC, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *text;
	ssize_t len;

	if (fd < 0 || fstat(fd, &st) || !(text = calloc(1, (size_t)st.st_size + 1)))
		fail(EXIT_SYSTEM, "%s: %s", GUEST_SPEC, strerror(errno));
	len = read(fd, text, (size_t)st.st_size);
	close(fd);
	for (ssize_t at = 0; at < len;) {
		size_t n = strlen(text + at) + 1;

		read_entry(s, text + at);
		at += (ssize_t)n;
	}
}

static void
load_module(const char *path)
{
	const int compressed_file = 4; /* MODULE_INIT_COMPRESSED_FILE, Linux 5.17 */
	const char *suffix = strrchr(path, '.');
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int flags = suffix && strcmp(suffix, ".ko") ? compressed_file : 0;

	if (fd < 0 || (syscall(SYS_finit_module, fd, "", flags) && errno != EEXIST))
		fail(EXIT_SYSTEM, "loading %s: %s%s", path, strerror(errno),
		    flags ? " (this kernel may not unpack compressed modules: unpack them on the host, see --modules)"
			  : "");
	close(fd);
}

/* The device may still be on its way when its driver has just been loaded: EINVAL until its tag is known. */
static void
mount_share(void)
{
	const struct timespec tick = { .tv_nsec = 20000000 };

	mkdir(GUEST_SHARE, 0755);
	for (int tries = 0; mount(QEMU_TAG, GUEST_SHARE, "virtiofs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL); tries++) {
		if (errno == ENODEV)
			fail(EXIT_SYSTEM,
			    "this kernel has no virtiofs, built in or as one of the modules that were found");
		if (errno != EINVAL || tries >= 100)
			fail(EXIT_NO_VFUND, "mounting the share: %s", strerror(errno));
		nanosleep(&tick, NULL);
	}
}

/* In the child: standard streams, default signals, and the command. */
_Noreturn static void
runner(const struct spec *s, int out, int err)
{
	int in = open(GUEST_STDIN, O_RDONLY);
	sigset_t none;

	if (in < 0)
		in = open("/dev/null", O_RDONLY);
	if (in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
		_exit(EXIT_SYSTEM);
	if (in > 2)
		close(in);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	if (s->script)
		_exit(script_run(s->script));
	script_exec((char *const *)s->arg);
}

static int
exit_status(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Reap all that died. Returns 1 and the status when the runner was among them. */
static int
reap(pid_t run, int *status)
{
	int seen = 0, st;
	pid_t pid;

	while ((pid = waitpid(-1, &st, WNOHANG)) > 0)
		if (pid == run) {
			*status = exit_status(st);
			seen = 1;
		}
	return seen;
}

/* Relay until both pipes end and the runner is gone; its exit status. */
static int
relay(pid_t run, int out, int err, int sigfd)
{
	struct pollfd p[3] = { { .fd = out, .events = POLLIN }, { .fd = err, .events = POLLIN },
		{ .fd = sigfd, .events = POLLIN } };
	static char buf[16384];
	int status = -1;

	while (status < 0 || p[0].fd >= 0 || p[1].fd >= 0) {
		if (poll(p, 3, status < 0 ? -1 : ORPHANS_MS) == 0)
			break;
		for (int i = 0; i < 2; i++) {
			ssize_t n;

			if (p[i].fd < 0 || !p[i].revents)
				continue;
			n = read(p[i].fd, buf, sizeof(buf));
			if (n > 0)
				frame(i ? GUEST_STDERR : GUEST_STDOUT, buf, (size_t)n);
			else if (n == 0 || errno != EINTR)
				p[i].fd = -1;
		}
		if (p[2].revents) {
			struct signalfd_siginfo info;

			if (read(sigfd, &info, sizeof(info)) > 0 && reap(run, &status))
				kill(-1, SIGKILL);
		}
	}
	return status;
}

static int
run(const struct spec *s)
{
	int out[2], err[2], sigfd;
	sigset_t chld;
	pid_t pid;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	sigfd = signalfd(-1, &chld, SFD_CLOEXEC);
	if (sigfd < 0 || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) || (pid = fork()) < 0)
		fail(EXIT_SYSTEM, "starting the command: %s", strerror(errno));
	if (!pid)
		runner(s, out[1], err[1]);
	close(out[1]);
	close(err[1]);
	return relay(pid, out[0], err[0], sigfd);
}

int
role_init(int argc, char **argv)
{
	struct spec s = { .modules = 0 };
	const char *fault;
	uint8_t status;

	(void)argc;
	(void)argv;
	if (getpid() != 1) {
		fprintf(stderr,
		    "vfun init: this is pid 1 of the VM that `vfun vm` makes, and nothing else: see vfun-vm(1)\n");
		return EXIT_USAGE;
	}
	umask(022);
	mount_or_fail("devtmpfs", "/dev", "mode=0755");
	open_port();
	mount_or_fail("proc", "/proc", NULL);
	mount_or_fail("sysfs", "/sys", NULL);
	mount_or_fail("tmpfs", "/tmp", "mode=1777");
	mount_or_fail("tmpfs", "/run", "mode=0755");
	clearenv();
	setenv("PATH", "/bin:/sbin:/", 1);
	setenv("HOME", "/", 1);
	read_spec(&s);
	for (unsigned i = 0; i < s.modules; i++)
		load_module(s.module[i]);
	if (s.share)
		mount_share();
	if (s.net && (fault = network_up()) != NULL)
		fail(EXIT_SYSTEM, "the network: %s: %s", fault, strerror(errno));
	status = (uint8_t)run(&s);
	frame(GUEST_EXIT, &status, 1);
	end_machine();
}
