/* SPDX-License-Identifier: MIT
 *
 * targets.c - vfun bench targets: what vfun is to reach, each beside its limit, and whether it does
 *
 * The other benchmarks are run as they are, several times each, as programs that this one starts, and their CSV is
 * read; a figure is the median of its runs. So what is judged is what anybody sees.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../roles.h"
#include "bench.h"

#define ROUNDS_DEFAULT 5
#define WORDS_MAX 48
#define FIELDS_MAX 32
#define ROUNDS_MAX 1000

/* One program to run; with --try, with these words as well. */
static const struct experiment {
	const char *args[10];
	const char *small[5];
} experiments[] = {
	{ { "latency" }, { "--blocks", "1" } },
	{ { "domains", "--function", "factorial", "--instance", "250K x 2k", "--rounds", "15" },
	    { "--scale", "1000000", "--rounds", "1" } },
	{ { "domains", "--function", "factorial", "--instance", "1 x 500M", "--scale", "1000", "--rounds", "5" },
	    { "--scale", "1000000", "--rounds", "1" } },
	{ { "throughput", "--path", "host", "--no-guest" }, { "--rounds", "1" } },
	{ { "idle", "--count", "500", "--seconds", "10" }, { "--count", "2", "--seconds", "1" } },
	{ { "activate", "--no-guest" }, { "--count", "2" } },
};

#define EXPERIMENTS (sizeof(experiments) / sizeof(experiments[0]))

/* One figure of it: column `figure` of the row in which every column of `where` has that value. */
static const struct target {
	const char *what;
	const char *where[4][2];
	const char *figure;
	double bound;
	unsigned experiment;
	int least; /* 1: at least the bound, 0: at most */
} targets[] = {
	{ "null call, host / raw ping-pong", { { "where", "host" }, { "path", "host" }, { "what", "null call" } },
	    "ratio", 1.15, 0, 0 },
	{ "null call, guest by dax / the guest's raw ping-pong",
	    { { "where", "guest" }, { "path", "dax" }, { "what", "null call" } }, "ratio", 1.15, 0, 0 },
	{ "wake-up, same CPU / futex wake", { { "where", "host" }, { "what", "call of a sleeper, same CPU" } }, "ratio",
	    1.5, 0, 0 },
	{ "wake-up, other CPU / futex wake", { { "where", "host" }, { "what", "call of a sleeper, other CPU" } },
	    "ratio", 1.5, 0, 0 },
	{ "factorial 250K x 2k, Host-Host / in-process", { { "domain", "Host-Host" } }, "to_in_process", 1.01, 1, 0 },
	{ "factorial 250K x 2k, Guest-Host / Host-Host", { { "domain", "Guest-Host" } }, "to_host_host", 1.01, 1, 0 },
	{ "factorial 1 x 500M, Guest-Net / Guest-Host", { { "domain", "Guest-Host" } }, "net_to_this", 200, 2, 1 },
	{ "64 calls in flight / one at a time", { { "unit", "calls" }, { "batch", "64" } }, "ratio", 5, 3, 1 },
	{ "sha256 of 64 MiB / in-process", { { "function", "sha256" }, { "block", "67108864" } }, "ratio", 0.98, 3, 1 },
	{ "service's memory beside those 64 MiB, bytes", { { "function", "sha256" }, { "block", "67108864" } },
	    "service_private_bytes", 1 << 20, 3, 0 },
	{ "500 parked instances, % of a core", { { "who", "services" } }, "cpu_percent", 1, 4, 0 },
	{ "private memory of each, KiB", { { "who", "services" } }, "private_kib_max", 1024, 4, 0 },
	{ "negotiate, activate and release, us", { { "where", "host" }, { "phase", "all three" } }, "median_us", 10000,
	    5, 0 },
};

#define TARGETS (sizeof(targets) / sizeof(targets[0]))

enum { WHAT, RUNS, LEAST, FIGURE, MOST, BOUND, MET };

static const struct column columns[] = {
	{ "what", "what", KIND_TEXT, 0 },
	{ "runs", "runs", KIND_COUNT, 0 },
	{ "least", "least", KIND_NUMBER, 3 },
	{ "median", "median", KIND_NUMBER, 3 },
	{ "most", "most", KIND_NUMBER, 3 },
	{ "target", "target", KIND_TEXT, 0 },
	{ "met", "met", KIND_TEXT, 0 },
	{ NULL, NULL, KIND_TEXT, 0 },
};

static double figure[TARGETS][ROUNDS_MAX];
static unsigned figures[TARGETS];

/* Fields of a line, as far as commas that are not within quotes divide them. */
static unsigned
split(char *line, char *field[FIELDS_MAX])
{
	unsigned n = 0;
	char *f;

	line[strcspn(line, "\n")] = '\0';
	while (n < FIELDS_MAX && (f = strsep(&line, ",")))
		field[n++] = f;
	return n;
}

static const char *
value(char *const head[], char *const field[], unsigned n, const char *key)
{
	for (unsigned i = 0; key && i < n; i++)
		if (!strcmp(head[i], key))
			return field[i];
	return "";
}

static void
take_row(unsigned experiment, char *const head[], char *const field[], unsigned n)
{
	for (unsigned t = 0; t < TARGETS; t++) {
		const struct target *g = &targets[t];
		const char *v = value(head, field, n, g->figure);
		int same = g->experiment == experiment && *v && figures[t] < ROUNDS_MAX;

		for (unsigned i = 0; same && i < 4 && g->where[i][0]; i++)
			same = !strcmp(value(head, field, n, g->where[i][0]), g->where[i][1]);
		if (same)
			figure[t][figures[t]++] = strtod(v, NULL);
	}
}

/* A comma within quotes becomes what no CSV has, and back. */
static void
hide_commas(char *s)
{
	int quoted = 0;

	for (; *s; s++) {
		quoted ^= *s == '"';
		if (quoted && *s == ',')
			*s = '\x1f';
	}
}

static void
show_commas(char *s)
{
	char *to = s;

	for (; *s; s++)
		if (*s != '"')
			*to++ = *s == '\x1f' ? ',' : *s;
	*to = '\0';
}

static void
read_rows(unsigned experiment, FILE *f)
{
	char *line[2] = { NULL, NULL };
	size_t room[2] = { 0, 0 };
	char *head[FIELDS_MAX];
	char *field[FIELDS_MAX];
	unsigned heads = getline(&line[0], &room[0], f) > 0 ? split(line[0], head) : 0;

	while (heads && getline(&line[1], &room[1], f) > 0) {
		unsigned n;

		hide_commas(line[1]);
		n = split(line[1], field);
		for (unsigned i = 0; i < n; i++)
			show_commas(field[i]);
		if (n == heads)
			take_row(experiment, head, field, n);
	}
	free(line[0]);
	free(line[1]);
}

/* The words of one program's command line. */
static void
compose(const char *words[WORDS_MAX + 1], const struct bench *b, const struct experiment *e)
{
	const char *const options[][2] = { { "--run", b->run }, { "--vm", b->vm }, { "--qemu", b->qemu },
		{ "--kernel", b->kernel }, { "--modules", b->modules }, { "--accel", b->accel } };
	unsigned n = 0;

	words[n++] = "vfun";
	words[n++] = "bench";
	for (unsigned i = 0; i < sizeof(e->args) / sizeof(e->args[0]) && e->args[i]; i++)
		words[n++] = e->args[i];
	for (unsigned i = 0; b->try && e->small[i]; i++)
		words[n++] = e->small[i];
	words[n++] = "--csv";
	if (!b->want_guest)
		words[n++] = "--no-guest";
	for (unsigned i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		if (options[i][1]) {
			words[n++] = options[i][0];
			words[n++] = options[i][1];
		}
	words[n] = NULL;
}

/* One run of one program. 0, or its status. */
static int
run(const struct bench *b, unsigned experiment)
{
	const char *words[WORDS_MAX + 1];
	pid_t me = getpid();
	int status = 0;
	int p[2];
	pid_t pid;
	FILE *f;

	compose(words, b, &experiments[experiment]);
	if (pipe(p))
		return bench_fail(EXIT_SYSTEM, "%s: %s", words[2], strerror(errno));
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		dup2(p[1], STDOUT_FILENO);
		close(p[0]);
		close(p[1]);
		if (getppid() == me)
			execv("/proc/self/exe", (char *const *)words);
		_exit(EXIT_SYSTEM);
	}
	close(p[1]);
	f = fdopen(p[0], "r");
	if (pid > 0 && f)
		read_rows(experiment, f);
	if (f)
		fclose(f);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return bench_fail(EXIT_SYSTEM, "%s: %s", words[2], strerror(errno));
	status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	return status ? bench_fail(status, "%s fails", words[2]) : 0;
}

static void
add_row(struct bench *b, unsigned t)
{
	const struct target *g = &targets[t];
	double median = stats_median(figure[t], figures[t]);
	struct cell *c;

	if (!figures[t]) {
		note(&b->left_out, "%s", g->what);
		return;
	}
	c = table_row(&b->table);
	cell_text(&c[WHAT], "%s", g->what);
	cell_number(&c[RUNS], figures[t]);
	cell_number(&c[LEAST], figure[t][0]); /* sorted now */
	cell_number(&c[FIGURE], median);
	cell_number(&c[MOST], figure[t][figures[t] - 1]);
	cell_text(&c[BOUND], "%s %.9g", g->least ? ">=" : "<=", g->bound);
	cell_text(&c[MET], "%s", (g->least ? median >= g->bound : median <= g->bound) ? "yes" : "no");
}

int
bench_targets(struct bench *b)
{
	const uint64_t parts = EXPERIMENTS;
	int r = 0;

	if (b->in_guest)
		return bench_fail(EXIT_USAGE, "targets: on the host only");
	b->rounds = b->rounds ? b->rounds : ROUNDS_DEFAULT;
	table_init(&b->table, columns);
	progress_begin(b, "all", (double)(b->rounds * parts));
	for (uint64_t i = 0; !r && i < b->rounds; i++)
		for (unsigned e = 0; !r && e < EXPERIMENTS; e++) {
			r = run(b, e);
			progress_step(1);
		}
	progress_end();
	for (unsigned t = 0; !r && t < TARGETS; t++)
		add_row(b, t);
	if (r)
		return r;
	machine_end(b, 2);
	return report(b, NULL);
}
