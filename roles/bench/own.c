/* SPDX-License-Identifier: MIT
 *
 * own.c - a vfund for one run of a benchmark, so that one command is enough
 *
 *   this process      makes a private folder, starts vfund in it, then only waits, and cleans up
 *     vfund           in a process group of its own: a terminal's interrupt is not for it
 *     work            the benchmark; what it starts dies with it
 *
 * The one who cleans up is thus not the one who may fail, and SIGINT, SIGTERM and SIGHUP end the work first. Only its
 * own SIGKILL leaves the folder behind; vfund ends even then.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../roles.h"
#include "bench.h"

#define READY_MS 20000

/* Every function that a benchmark calls, for this host, one VM and one client over TCP, and room for many instances. */
static const char conf_format[] = "[vfund]\n"
				  "instances = 1024\n"
				  "memory = 16G\n"
				  "[function factorial]\n"
				  "[function fibonacci]\n"
				  "[function sha256]\n"
				  "arena = 1G\n"
				  "[function checksum]\n"
				  "arena = 1G\n"
				  "[function pingpong]\n"
				  "%s" /* of hardware.c or functions.c */
				  "[host]\n"
				  "functions = factorial fibonacci sha256 checksum pingpong %s\n"
				  "instances = 1024\n"
				  "memory = 8G\n"
				  "[vm bench]\n"
				  "functions = factorial fibonacci sha256 checksum pingpong %s\n"
				  "instances = 64\n"
				  "memory = 8G\n"
				  "ivshmem = 256M\n"
				  "[net-client bench-net]\n"
				  "functions = factorial fibonacci sha256 checksum pingpong\n"
				  "instances = 64\n"
				  "connections = 64\n"
				  "memory = 8G\n"
				  "key-file = %s\n"
				  "[net]\n"
				  "listen = %s\n";

struct own {
	char dir[64];
	char conf[96];
	char log[96];
	char run[96];
	char key[96];
	char server[32]; /* ADDRESS:PORT */
	pid_t vfund;
};

/* A port of this machine's own address that is free, and stays so if nobody is quicker than vfund. */
static int
find_port(struct own *o)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r = fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) || getsockname(fd, (struct sockaddr *)&a, &len);

	if (r)
		r = bench_fail(EXIT_SYSTEM, "a TCP port on 127.0.0.1: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	snprintf(o->server, sizeof(o->server), "127.0.0.1:%u", ntohs(a.sin_port));
	return r;
}

/* The key that proves the client over TCP and vfund to each other. */
static int
make_key(const struct own *o)
{
	uint8_t key[VFUN_NET_KEY];
	int fd = open(o->key, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "w");

	if (!f || getrandom(key, sizeof(key), 0) != (ssize_t)sizeof(key))
		return bench_fail(EXIT_SYSTEM, "%s: %s", o->key, strerror(errno));
	fprintf(f, "bench-net ");
	for (unsigned i = 0; i < sizeof(key); i++)
		fprintf(f, "%02x", key[i]);
	fprintf(f, "\n");
	return fclose(f) ? bench_fail(EXIT_SYSTEM, "%s: %s", o->key, strerror(errno)) : 0;
}

/* The section of --function in --conf, as it is there: the lines behind its heading. 0, or an exit status. */
static int
find_section(const struct bench *b, char *text, size_t room)
{
	FILE *f = fopen(b->conf, "re");
	char heading[VFUN_NAME_MAX + 16];
	char line[256];
	size_t at = 0;
	int within = 0;
	int found = 0;

	if (!f)
		return bench_fail(EXIT_USAGE, "%s: %s", b->conf, strerror(errno));
	snprintf(heading, sizeof(heading), "[function %s]", b->function);
	while (fgets(line, sizeof(line), f)) {
		if (line[0] == '[')
			found |= within = !strncmp(line, heading, strlen(heading));
		else if (within && at + strlen(line) < room)
			at += (size_t)snprintf(text + at, room - at, "%s", line);
	}
	fclose(f);
	return found ? 0 : bench_fail(EXIT_USAGE, "%s: there is no %s", b->conf, heading);
}

/* For hardware.c: the function, and once more to be measured without vfun. */
static int
add_hardware(const struct bench *b, char *text, size_t room, char *names, size_t names_room)
{
	char section[2048] = "";
	int r;

	if (!b->conf || !b->function)
		return 0;
	if (strlen(b->function) > VFUN_NAME_MAX - 5)
		return bench_fail(EXIT_USAGE, "--function: '%s' is too long a name", b->function);
	r = find_section(b, section, sizeof(section));
	snprintf(text, room, "[function %s]\n%s\n[function %s-xrt]\n%s\nmeasure = yes\ntimeout = 3600000\n",
	    b->function, section, b->function, section);
	snprintf(names, names_room, "%s %s-xrt", b->function, b->function);
	return r;
}

/* For functions.c. */
static int
add_programs(const struct bench *b, char *text, size_t room, char *names, size_t names_room)
{
	char *folder = b->programs ? realpath(b->programs, NULL) : NULL;
	size_t at = 0, end = 0;

	if (b->programs && !folder)
		return bench_fail(EXIT_USAGE, "--programs: %s: %s", b->programs, strerror(errno));
	for (unsigned i = 0; folder && bench_programs[i] && at < room && end < names_room; i++) {
		at += (size_t)snprintf(text + at, room - at,
		    "[function %s]\nbackend = program\nprogram = %s/%s\narena = 64M\n", bench_programs[i], folder,
		    bench_programs[i]);
		end += (size_t)snprintf(names + end, names_room - end, "%s ", bench_programs[i]);
	}
	free(folder);
	return 0;
}

static int
make_folder(struct own *o, const struct bench *b)
{
	static char hardware[8192];
	char names[2 * VFUN_NAME_MAX + 8] = "";
	const char *tmp = getenv("TMPDIR");
	FILE *f;

	/* A socket's path is short, and a service's uid is another. */
	if (!tmp || strlen(tmp) > 32)
		tmp = "/tmp";
	snprintf(o->dir, sizeof(o->dir), "%s/vfun-bench-XXXXXX", tmp);
	if (!mkdtemp(o->dir) || chmod(o->dir, 0711)) {
		o->dir[0] = '\0';
		return bench_fail(EXIT_SYSTEM, "%s: %s", tmp, strerror(errno));
	}
	snprintf(o->conf, sizeof(o->conf), "%s/vfun.conf", o->dir);
	snprintf(o->log, sizeof(o->log), "%s/log", o->dir);
	snprintf(o->run, sizeof(o->run), "%s/run", o->dir);
	snprintf(o->key, sizeof(o->key), "%s/key", o->dir);
	if (find_port(o) || make_key(o))
		return EXIT_SYSTEM;
	if (add_hardware(b, hardware, sizeof(hardware), names, sizeof(names)) ||
	    add_programs(b, hardware, sizeof(hardware), names, sizeof(names)))
		return EXIT_USAGE;
	f = fopen(o->conf, "we");
	if (f)
		fprintf(f, conf_format, hardware, names, names, o->key, o->server);
	return f && !ferror(f) && !fclose(f) ? 0 : bench_fail(EXIT_SYSTEM, "%s: %s", o->conf, strerror(errno));
}

/* In a child: as if this process had not meddled with signals; and it is not to outlive its parent. */
static void
child_begin(const sigset_t *mask, int signal_at_end, pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, signal_at_end);
	if (getppid() != parent)
		_exit(EXIT_SYSTEM);
	sigprocmask(SIG_SETMASK, mask, NULL);
}

static int
start_vfund(struct own *o, const sigset_t *mask)
{
	pid_t me = getpid();

	o->vfund = fork();
	if (o->vfund < 0)
		return bench_fail(EXIT_SYSTEM, "starting vfund: %s", strerror(errno));
	if (o->vfund)
		return 0;
	child_begin(mask, SIGTERM, me);
	setpgid(0, 0);
	if (!freopen(o->log, "w", stderr) || !freopen("/dev/null", "w", stdout))
		_exit(EXIT_SYSTEM);
	execl("/proc/self/exe", "vfund", "-c", o->conf, "--run", o->run, (char *)NULL);
	_exit(EXIT_SYSTEM);
}

static void
show_log(const struct own *o)
{
	FILE *f = fopen(o->log, "re");
	char line[512];

	while (f && fgets(line, sizeof(line), f))
		fprintf(stderr, "vfun bench: vfund: %s", line);
	if (f)
		fclose(f);
}

/* Until it answers. */
static int
wait_ready(struct own *o)
{
	const struct timespec tick = { .tv_nsec = 5000000 };
	uint64_t until = bench_ns() + READY_MS * 1000000ull;

	while (bench_ns() < until) {
		int fd = vfun_control_open(o->run, 0);

		if (fd >= 0) {
			close(fd);
			return 0;
		}
		if (waitpid(o->vfund, NULL, WNOHANG) == o->vfund) {
			o->vfund = 0;
			break;
		}
		nanosleep(&tick, NULL);
	}
	show_log(o);
	return bench_fail(EXIT_NO_VFUND, "the vfund of this run does not start");
}

/* Wait for the work; pass on what should end it. Its status. */
static int
watch(pid_t work, const sigset_t *set)
{
	int status;
	int sig;

	for (;;) {
		if (waitpid(work, &status, WNOHANG) == work)
			return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
		if (!sigwait(set, &sig) && sig != SIGCHLD)
			kill(work, sig);
	}
}

static void
clean_up(struct own *o)
{
	if (o->vfund > 0) {
		kill(o->vfund, SIGTERM);
		waitpid(o->vfund, NULL, 0);
	}
	if (!o->dir[0])
		return;
	unlink(o->conf);
	unlink(o->log);
	unlink(o->key);
	rmdir(o->run);
	if (rmdir(o->dir))
		bench_fail(0, "%s: is left behind: %s", o->dir, strerror(errno));
}

static int
supervise(struct own *o, struct bench *b, int (*work)(struct bench *b), const sigset_t *mask, const sigset_t *set)
{
	pid_t me = getpid();
	pid_t pid;
	int r = make_folder(o, b);

	if (!r)
		r = start_vfund(o, mask);
	if (!r)
		r = wait_ready(o);
	if (r)
		return r;
	b->run = o->run;
	b->family = me;
	setenv("VFUN_SERVER", o->server, 1);
	setenv("VFUN_KEY_FILE", o->key, 1);
	if (!b->vm)
		b->vm = "bench";
	pid = fork();
	if (pid < 0)
		return bench_fail(EXIT_SYSTEM, "fork: %s", strerror(errno));
	if (!pid) {
		child_begin(mask, SIGKILL, me);
		exit(work(b));
	}
	return watch(pid, set);
}

int
own_vfund(struct bench *b, int (*work)(struct bench *b))
{
	struct own o = { .vfund = 0 };
	sigset_t set;
	sigset_t mask;
	int r;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, &mask);
	r = supervise(&o, b, work, &mask, &set);
	clean_up(&o);
	sigprocmask(SIG_SETMASK, &mask, NULL);
	return r;
}
