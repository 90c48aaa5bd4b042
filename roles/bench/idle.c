/* SPDX-License-Identifier: MIT
 *
 * idle.c - vfun bench idle: what instances cost that nobody calls
 *
 * Their services are to sleep, and to share with each other all memory that isn't an instance's own. What a process
 * used is asked of the kernel: nanoseconds on a processor from /proc/PID/task/TID/schedstat, memory that no other
 * process has from /proc/PID/smaps_rollup. Who may not read the latter takes the anonymous part of the resident memory.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../common/cli.h"
#include "../roles.h"
#include "../common/numbers.h"
#include "bench.h"

#define COUNT_DEFAULT 100
#define SECONDS_DEFAULT 5
#define SETTLE_S 2 /* until the last one sleeps */
#define OTHERS_MAX 16
#define USER_COUNT 100	  /* instances of one user: vfund lets nobody have many more connections */
#define USER_FIRST 60000u /* any number does: it is only what vfund sees at the other end of a connection */

enum { WHO, PROCESSES, SECONDS, CPU_MS, PERCENT, MEDIAN, MOST, SOURCE };

static const struct column columns[] = {
	{ "who", "who", KIND_TEXT, 0 },
	{ "processes", "processes", KIND_COUNT, 0 },
	{ "seconds", "seconds", KIND_NUMBER, 2 },
	{ "cpu_ms", "CPU ms", KIND_NUMBER, 3 },
	{ "cpu_percent", "% of a core", KIND_NUMBER, 4 },
	{ "private_kib_median", "private KiB", KIND_NUMBER, 0 },
	{ "private_kib_max", "most", KIND_NUMBER, 0 },
	{ "private_from", NULL, KIND_TEXT, 0 },
	{ NULL, NULL, KIND_TEXT, 0 },
};

struct process {
	pid_t pid;
	uint64_t ns; /* on a processor, when the measurement began */
};

struct idle {
	struct bench *b;
	struct vfun **v;
	struct process *service;
	unsigned n;
	struct process other[OTHERS_MAX]; /* vfund and its children that are no services of ours */
	unsigned others;
};

/* Nanoseconds that all threads of a process were on a processor. */
static uint64_t
cpu_ns(pid_t pid)
{
	char path[300];
	uint64_t sum = 0;
	struct dirent *d;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && (d = readdir(dir))) {
		uint64_t ns = 0;
		char line[128];
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/schedstat", (int)pid, d->d_name);
		f = d->d_name[0] == '.' ? NULL : fopen(path, "re");
		if (!f)
			continue;
		if (fgets(line, sizeof(line), f) && numbers(line, &ns, 1))
			sum += ns;
		fclose(f);
	}
	if (dir)
		closedir(dir);
	return sum;
}

/* KiB. */
static double
private_kib(pid_t pid, const char **source)
{
	double dirty = process_sum(pid, "smaps_rollup", "Private_");

	*source = dirty >= 0 ? "smaps_rollup" : "RssAnon";
	return dirty >= 0 ? dirty : process_sum(pid, "status", "RssAnon");
}

/* Root opens many in the name of several users. */
static int
open_one(const struct idle *s, struct vfun **v)
{
	const struct vfun_options o = { .size = sizeof(o), .run = s->b->run, .slots = 1 };
	unsigned user = s->n / USER_COUNT;
	int change = user && geteuid() == 0;
	int r;

	if (change && seteuid(USER_FIRST + user))
		return -errno;
	r = vfun_open(v, "factorial", &o);
	if (change && seteuid(0) && !r)
		r = -errno;
	return r;
}

static int
open_all(struct idle *s)
{
	progress_begin(s->b, "opening", (double)s->b->count);
	for (; s->n < s->b->count; s->n++) {
		struct vfun **v = &s->v[s->n];
		int r = open_one(s, v);

		if (r) {
			r = bench_fail(cli_status(r), "instance %u: %s", s->n + 1, *v ? vfun_text(*v) : strerror(-r));
			vfun_close(*v, NULL);
			return r;
		}
		progress_step(1);
	}
	progress_end();
	return 0;
}

/* Which process serves each: vfund says. */
static int
find_services(struct idle *s)
{
	int fd = vfun_control_open(s->b->run, 1);
	struct vfun_msg msg = { .type = VFUN_MSG_STATUS };
	unsigned found = 0;

	while (fd >= 0 && !vfun_control(fd, &msg, 0) && !msg.reason) {
		struct vfun_instance_info i = msg.body.instance;

		for (unsigned k = 0; k < s->n; k++)
			if (vfun_activated(s->v[k])->instance == i.instance && i.pid) {
				s->service[k].pid = (pid_t)i.pid;
				found++;
			}
		msg = (struct vfun_msg){ .type = VFUN_MSG_STATUS };
		msg.body.query.position = i.next;
	}
	if (fd >= 0)
		close(fd);
	return found == s->n ? 0 : bench_fail(EXIT_LOST, "vfund knows only %u of %u instances", found, s->n);
}

static int
is_service(const struct idle *s, pid_t pid)
{
	for (unsigned i = 0; i < s->n; i++)
		if (s->service[i].pid == pid)
			return 1;
	return 0;
}

/* vfund itself, as far as it lets us know. */
static void
find_others(struct idle *s)
{
	struct vfun_msg msg = { .type = VFUN_MSG_INFO };
	int fd = vfun_control_open(s->b->run, 1);
	char path[64];
	char line[4096];
	FILE *f;

	if (fd < 0 || vfun_control(fd, &msg, 0) || msg.reason || !msg.body.info.pid) {
		if (fd >= 0)
			close(fd);
		return;
	}
	close(fd);
	s->other[s->others++].pid = (pid_t)msg.body.info.pid;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)msg.body.info.pid, (int)msg.body.info.pid);
	f = fopen(path, "re");
	if (f && fgets(line, sizeof(line), f))
		for (char *at = line; *at >= '0' && *at <= '9'; at += strspn(at, " \n")) {
			pid_t pid = (pid_t)strtoul(at, &at, 10);

			if (!is_service(s, pid) && s->others < OTHERS_MAX)
				s->other[s->others++].pid = pid;
		}
	if (f)
		fclose(f);
}

static void
add_row(struct idle *s, const char *who, struct process *p, unsigned n, double ns)
{
	struct cell *c = table_row(&s->b->table);
	double *kib = bench_alloc(n, sizeof(*kib));
	const char *source = "";
	double used = 0;

	for (unsigned i = 0; i < n; i++) {
		used += (double)(cpu_ns(p[i].pid) - p[i].ns);
		kib[i] = private_kib(p[i].pid, &source);
	}
	cell_text(&c[WHO], "%s", who);
	cell_number(&c[PROCESSES], n);
	cell_number(&c[SECONDS], ns / 1e9);
	cell_number(&c[CPU_MS], used / 1e6);
	cell_number(&c[PERCENT], 100 * used / ns);
	cell_number(&c[MEDIAN], stats_median(kib, n));
	cell_number(&c[MOST], kib[n - 1]); /* sorted now */
	cell_text(&c[SOURCE], "%s", source);
	free(kib);
}

static void
measure(struct idle *s)
{
	const struct timespec settle = { .tv_sec = SETTLE_S };
	const struct timespec tick = { .tv_nsec = 200000000 };
	uint64_t start;

	nanosleep(&settle, NULL);
	progress_begin(s->b, "sleeping", (double)s->b->seconds);
	start = bench_ns();
	for (unsigned i = 0; i < s->n; i++)
		s->service[i].ns = cpu_ns(s->service[i].pid);
	for (unsigned i = 0; i < s->others; i++)
		s->other[i].ns = cpu_ns(s->other[i].pid);
	while (bench_ns() - start < s->b->seconds * 1000000000u) {
		nanosleep(&tick, NULL);
		progress_step(0.2);
	}
	progress_end();
	add_row(s, "services", s->service, s->n, (double)(bench_ns() - start));
	if (s->others)
		add_row(s, "vfund", s->other, s->others, (double)(bench_ns() - start));
}

int
bench_idle(struct bench *b)
{
	struct idle s = { .b = b };
	int r;

	if (b->in_guest)
		return bench_fail(EXIT_USAGE, "idle: services run on the host: measure it there");
	if (!b->count)
		b->count = COUNT_DEFAULT;
	if (!b->seconds)
		b->seconds = SECONDS_DEFAULT;
	s.v = bench_alloc(b->count, sizeof(struct vfun *));
	s.service = bench_alloc(b->count, sizeof(*s.service));
	table_init(&b->table, columns);
	r = open_all(&s);
	if (!r)
		r = find_services(&s);
	if (!r) {
		find_others(&s);
		measure(&s);
	}
	for (unsigned i = 0; i < s.n; i++)
		vfun_close(s.v[i], NULL);
	free(s.v);
	free(s.service);
	if (r)
		return r;
	machine_end(b, 0);
	return report(b, NULL);
}
