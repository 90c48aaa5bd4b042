/* SPDX-License-Identifier: MIT
 *
 * guest.c - the same benchmark in a throw-away VM, and its rows beside ours
 *
 * `vfun vm -- vfun bench NAME --inside ...` is a child: this executable, in its other role. Its standard output is
 * lines, tab-separated, that begin with "vfun-bench":
 *
 *   row CELL ...      one row of the table
 *   warning TEXT      what makes them doubtful
 *   left-out TEXT     what could not be measured there
 *   at SHARE          how far it is, 0..1
 *   accel, kernel     what the guest sees of its machine
 *
 * A guest that doesn't come up leaves its rows out, with the last line it said as the reason; one that got a wrong
 * answer fails the run.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../roles.h"
#include "bench.h"

#define ARGS_MAX 64

struct guest {
	struct bench *b;
	pid_t pid;
	FILE *out;
	int err; /* memfd */
	unsigned rows;
	int (*on_row)(struct bench *b, unsigned row, void *arg);
	void *arg;
};

struct words {
	const char *w[ARGS_MAX + 1];
	unsigned n;
};

static void
word(struct words *l, const char *w)
{
	if (l->n < ARGS_MAX)
		l->w[l->n++] = w;
}

static void
option(struct words *l, const char *name, const char *value)
{
	if (!value)
		return;
	word(l, name);
	word(l, value);
}

/* What this host calls by path net at its own address, the guest does at the one that QEMU's user networking gives it.
 */
static void
add_network(struct words *l)
{
	static char server[64];
	static char key[256];
	const char *at = getenv("VFUN_SERVER");
	const char *file = getenv("VFUN_KEY_FILE");

	if (!at || !file || strncmp(at, "127.0.0.1:", 10) != 0)
		return;
	snprintf(server, sizeof(server), "VFUN_SERVER=" BENCH_HOST ":%s", at + 10);
	snprintf(key, sizeof(key), "%s:/key", file);
	option(l, "--env", server);
	option(l, "--add", key);
	option(l, "--env", "VFUN_KEY_FILE=/key");
}

static void
compose(struct words *l, const struct bench *b, const char *const args[], const char *const vm_args[])
{
	word(l, "vfun");
	word(l, "vm");
	option(l, "--run", b->run);
	option(l, "--vm", b->vm);
	option(l, "--qemu", b->qemu);
	option(l, "--kernel", b->kernel);
	option(l, "--modules", b->modules);
	option(l, "--accel", b->accel);
	option(l, "--cpus", "2");
	word(l, "--net");
	add_network(l);
	while (vm_args && *vm_args)
		word(l, *vm_args++);
	word(l, "--");
	word(l, "vfun");
	word(l, "bench");
	word(l, b->name);
	word(l, "--inside");
	option(l, "--path", b->path);
	while (args && *args)
		word(l, *args++);
}

static int
start(struct guest *g, const struct words *l)
{
	pid_t me = getpid();
	int p[2];

	g->err = memfd_create("vfun-bench-vm", MFD_CLOEXEC);
	if (g->err < 0 || pipe(p))
		return bench_fail(EXIT_SYSTEM, "starting a guest: %s", strerror(errno));
	g->pid = fork();
	if (g->pid < 0)
		return bench_fail(EXIT_SYSTEM, "starting a guest: %s", strerror(errno));
	if (!g->pid) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		dup2(p[1], STDOUT_FILENO);
		dup2(g->err, STDERR_FILENO);
		close(p[0]);
		close(p[1]);
		if (getppid() == me)
			execv("/proc/self/exe", (char *const *)l->w);
		_exit(EXIT_SYSTEM);
	}
	close(p[1]);
	g->out = fdopen(p[0], "r");
	return g->out ? 0 : bench_fail(EXIT_SYSTEM, "starting a guest: %s", strerror(errno));
}

/* One line, without "vfun-bench" and the tab. 0, or an exit status. */
static int
obey(struct guest *g, char *line)
{
	struct bench *b = g->b;
	char *key = strsep(&line, "\t");

	if (!line)
		return 0;
	if (!strcmp(key, "row")) {
		unsigned row = b->table.rows;

		if (table_receive(&b->table, line))
			return bench_fail(EXIT_LOST, "the guest sends a row that makes no sense");
		g->rows++;
		return g->on_row ? g->on_row(b, row, g->arg) : 0;
	}
	if (!strcmp(key, "left-out"))
		note(&b->left_out, "%s", line);
	else if (!strcmp(key, "warning"))
		note(&b->warnings, "guest: %s", line);
	else if (!strcmp(key, "at"))
		progress_at(strtod(line, NULL));
	else if (!strcmp(key, "accel"))
		snprintf(b->machine.accel, sizeof(b->machine.accel), "%.31s", line);
	else if (!strcmp(key, "kernel"))
		snprintf(b->machine.guest, sizeof(b->machine.guest), "%.95s", line);
	return 0;
}

static int
listen_to(struct guest *g)
{
	static const char mark[] = "vfun-bench\t";
	char *line = NULL;
	size_t room = 0;
	int r = 0;

	while (!r && getline(&line, &room, g->out) > 0) {
		line[strcspn(line, "\n")] = '\0';
		if (!strncmp(line, mark, strlen(mark)))
			r = obey(g, line + strlen(mark));
	}
	free(line);
	return r;
}

/* The last line of its standard error. */
static void
last_words(const struct guest *g, char *text, size_t room)
{
	char buf[4096];
	off_t size = lseek(g->err, 0, SEEK_END);
	ssize_t n =
	    pread(g->err, buf, sizeof(buf) - 1, size > (off_t)sizeof(buf) - 1 ? size - (off_t)sizeof(buf) + 1 : 0);
	char *last = buf;

	n = n < 0 ? 0 : n;
	while (n > 0 && (buf[n - 1] == '\n' || buf[n - 1] == '\r'))
		n--;
	buf[n] = '\0';
	if (strrchr(buf, '\n'))
		last = strrchr(buf, '\n') + 1;
	snprintf(text, room, "%.*s", (int)room - 1, *last ? last : "it said nothing");
}

/* What the guest said before this run gave up. */
static void
show_last_words(const struct guest *g)
{
	char why[512];

	last_words(g, why, sizeof(why));
	bench_fail(0, "the guest's last words: %s", why);
}

static int
judge(const struct guest *g, int status)
{
	char why[512];

	if (!status)
		return 0;
	last_words(g, why, sizeof(why));
	if (status == EXIT_FUNCTION || g->rows)
		return bench_fail(status, "in the guest: %s", why);
	note(&g->b->left_out, "guest: %s", why);
	return 0;
}

int
bench_guest(struct bench *b, const char *const args[], const char *const vm_args[],
    int (*on_row)(struct bench *b, unsigned row, void *arg), void *arg)
{
	struct guest g = { .b = b, .on_row = on_row, .arg = arg };
	struct words l = { .n = 0 };
	int status;
	int r;

	if (b->in_guest || !b->want_guest)
		return 0;
	compose(&l, b, args, vm_args);
	progress_begin(b, "guest", 1);
	r = start(&g, &l);
	if (r)
		return r;
	r = listen_to(&g);
	if (r)
		kill(g.pid, SIGTERM);
	fclose(g.out);
	if (waitpid(g.pid, &status, 0) != g.pid)
		status = 0;
	progress_end();
	if (r)
		show_last_words(&g);
	else
		r = judge(&g, WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
	if (g.rows)
		machine_qemu(&b->machine, b->qemu);
	close(g.err);
	return r;
}
