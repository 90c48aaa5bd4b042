/* SPDX-License-Identifier: MIT
 *
 * latency.c - vfun bench latency: a null call by every path, and what each can't be faster than
 *
 * A call through shared memory can't be faster than two cache lines that travel to the other processor and back; one
 * through a socket not faster than an echo through a socket; one that wakes a sleeper not faster than the kernel. So
 * each is measured beside its limit, in one run, by the same two processes on the same mapping, in many short batches
 * that take turns, so that what else happens on the machine hits all of them alike. The figure to look at is the ratio.
 *
 * Reading the clock costs as much as part of a call, and more in a guest. What takes well below a microsecond is
 * therefore timed twice: in blocks of BLOCK round trips for the median and the ratio, and one by one for the tail,
 * where the clock matters little.
 *
 * Waking a sleeper takes two or three times as long where he last ran on another processor than where he ran on the
 * waker's, and the kernel puts him where he was. So both cases are measured by themselves, with the call and its limit
 * alike: before each pause this process moves to the sleeper's processor, or away from it.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../proto/client.h"
#include "../roles.h"
#include "bench.h"
#include "echo.h"

#define BATCHES 50
#define BLOCK 16
#define ALONE 64
#define BLOCK_LOCAL 1024 /* a call in this process takes nanoseconds */
#define BLOCKS_DEFAULT 100
#define PROBES_MAX 24
#define TIMEOUT_NS 10000000000ull
#define FEW 1000  /* the 99.9th percentile of fewer is their maximum */
#define PS 1000.0 /* histograms are in picoseconds */

enum beside { ANYWHERE, SAME_CPU, OTHER_CPU };

/* One thing that is measured. */
struct probe {
	const char *what;
	struct endpoint *e; /* or NULL */
	struct echo *echo;  /* or NULL */
	int limit;	    /* index of the probe that is its limit, -1: none */
	/* n round trips; a sample for every `by` of them. 0 or -errno. */
	int (*trips)(struct probe *p, uint64_t n, unsigned by, struct hist *h);
	enum beside beside; /* of a sleeper: where this process is to be */
	pid_t sleeper;
	unsigned by;	  /* 1: blocks and singles are the same */
	uint64_t blocks;  /* in a batch, of `by` each */
	uint64_t singles; /* in a batch */
	struct hist *block;
	struct hist *single;
};

struct latency {
	struct bench *b;
	struct endpoint e[4];
	unsigned paths;
	struct echo echo[3];
	unsigned echoes;
	struct probe probe[PROBES_MAX];
	unsigned probes;
};

enum { WHERE, PATH, WHAT, TRIPS, MEDIAN, P99, P999, MAX, LIMIT, RATIO, HISTOGRAM };

static const struct column columns[] = {
	{ "where", "where", KIND_TEXT, 0 },
	{ "path", "path", KIND_TEXT, 0 },
	{ "what", "round trip", KIND_TEXT, 0 },
	{ "round_trips", "times", KIND_COUNT, 0 },
	{ "median_ns", "median ns", KIND_NUMBER, 1 },
	{ "p99_ns", "p99", KIND_NUMBER, 0 },
	{ "p999_ns", "p99.9", KIND_NUMBER, 0 },
	{ "max_ns", "most", KIND_NUMBER, 0 },
	{ "limit", "limit", KIND_TEXT, 0 },
	{ "ratio", "x limit", KIND_NUMBER, 3 },
	{ "histogram_ns", NULL, KIND_PAIRS, 0 },
	{ NULL, NULL, KIND_TEXT, 0 },
};

static void
sample(struct hist *h, uint64_t ns, unsigned by)
{
	hist_add(h, ns * 1000 / by);
}

/* The round trips */

static int
null_call(struct probe *p, uint64_t value)
{
	struct vfun_result res;
	int r = vfun_call(p->e->v, VFUN_CMD_ECHO, &value, 1, NULL, &res, TIMEOUT_NS);

	if (r)
		return r;
	return res.reason || res.len != sizeof(value) || res.inline_word[0] != value ? -EBADMSG : 0;
}

static int
null_trips(struct probe *p, uint64_t n, unsigned by, struct hist *h)
{
	int r = null_call(p, n); /* wakes the service up */
	uint64_t start = bench_ns();

	for (uint64_t i = 1; !r && i <= n; i++) {
		r = null_call(p, i);
		if (i % by == 0) {
			uint64_t now = bench_ns();

			sample(h, now - start, by);
			start = now;
		}
	}
	return r;
}

/* Wait until the service's word is i: 0, or -ETIMEDOUT. */
static int
raw_wait(const uint32_t *in, uint32_t i)
{
	uint64_t until = 0;

	for (uint32_t turn = 1; __atomic_load_n(in, __ATOMIC_ACQUIRE) != i; turn++) {
		vfun_relax();
		if (turn & 0xffff)
			continue;
		if (!until)
			until = bench_ns() + TIMEOUT_NS;
		else if (bench_ns() > until)
			return -ETIMEDOUT;
	}
	return 0;
}

/* The function pingpong: client and service bounce two words in the arenas, and do nothing else. */
static int
raw_trips(struct probe *p, uint64_t n, unsigned by, struct hist *h)
{
	const struct vfun_bulk bulk = { .in_len = VFUN_LINE, .out_len = VFUN_LINE };
	const uint64_t rounds = n + 1; /* the first is for the service to wake up */
	uint32_t *out = vfun_out_arena(p->e->v);
	const uint32_t *in = vfun_in_arena(p->e->v);
	struct vfun_result res;
	uint64_t start = 0;
	uint32_t ticket;
	int r;

	__atomic_store_n(out, 0, __ATOMIC_RELEASE);
	r = vfun_submit(p->e->v, VFUN_CMD_GET, &rounds, 1, &bulk, &ticket);
	if (!r)
		r = vfun_ring(p->e->v);
	for (uint32_t i = 1; !r && i <= rounds; i++) {
		__atomic_store_n(out, i, __ATOMIC_RELEASE);
		r = raw_wait(in, i);
		if ((i - 1) % by == 0) {
			uint64_t now = bench_ns();

			if (i > 1)
				sample(h, now - start, by);
			start = now;
		}
	}
	if (!r)
		r = vfun_wait(p->e->v, ticket, &res, TIMEOUT_NS);
	if (r)
		return r;
	return res.reason || res.inline_word[0] != rounds ? -EBADMSG : 0;
}

/* What path copy is made of: a line written to one file, a line read from the other. */
static int
file_trips(struct probe *p, uint64_t n, unsigned by, struct hist *h)
{
	char line[VFUN_LINE] = "";
	int r = 0;

	(void)by;
	for (uint64_t i = 0; !r && i < n; i++) {
		uint64_t start = bench_ns();

		r = vfun_put(p->e->v, 0, line, sizeof(line));
		if (!r)
			r = vfun_fetch(p->e->v, 0, line, sizeof(line));
		sample(h, bench_ns() - start, 1);
	}
	return r;
}

static int
echo_trips(struct probe *p, uint64_t n, unsigned by, struct hist *h)
{
	int r = echo_trip(p->echo, n);

	(void)by;
	for (uint64_t i = 0; !r && i < n; i++) {
		uint64_t start = bench_ns();

		r = echo_trip(p->echo, i);
		sample(h, bench_ns() - start, 1);
	}
	return r;
}

/* The processor that a process was on last; -1: unknown. */
static int
last_cpu(pid_t pid)
{
	char path[40];
	char text[1024] = "";
	const char *at;
	int cpu = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return -1;
	at = fgets(text, sizeof(text), f) ? strrchr(text, ')') : NULL;
	/* The 39th field, 37 blanks behind the name. */
	for (unsigned i = 0; at && i < 37; i++)
		at = strchr(at + 1, ' ');
	if (at)
		cpu = atoi(at);
	fclose(f);
	return cpu;
}

/* Be where the sleeper will be woken, or elsewhere, of the processors that this process had at first. */
static void
move(const struct probe *p, const cpu_set_t *all)
{
	int cpu = p->beside == ANYWHERE ? -1 : last_cpu(p->sleeper);
	cpu_set_t set = *all;

	if (cpu < 0 || cpu >= CPU_SETSIZE)
		return;
	if (p->beside == SAME_CPU) {
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
	} else {
		CPU_CLR(cpu, &set);
	}
	(void)sched_setaffinity(0, sizeof(set), &set);
}

/* After a pause in which the other side falls asleep. */
static int
wake_trips(struct probe *p, uint64_t n, unsigned by, struct hist *h)
{
	const struct timespec pause = { .tv_nsec = 2000000 };
	cpu_set_t all;
	int r = sched_getaffinity(0, sizeof(all), &all) ? -errno : 0;

	(void)by;
	for (uint64_t i = 0; !r && i < n; i++) {
		uint64_t start;

		nanosleep(&pause, NULL);
		move(p, &all);
		nanosleep(&pause, NULL);
		start = bench_ns();
		r = p->echo ? echo_trip(p->echo, i) : null_call(p, i);
		sample(h, bench_ns() - start, 1);
	}
	(void)sched_setaffinity(0, sizeof(all), &all);
	return r;
}

/* The null call's work behind a function pointer. */
static void
local_echo(const uint64_t *arg, unsigned nargs, struct vfun_result *res)
{
	for (unsigned i = 0; i < nargs; i++)
		res->inline_word[i] = arg[i];
	res->len = nargs * sizeof(*arg);
	res->reason = VFUN_OK;
}

static int
local_trips(struct probe *p, uint64_t n, unsigned by, struct hist *h)
{
	void (*volatile fn)(const uint64_t *arg, unsigned nargs, struct vfun_result *res) = local_echo;
	struct vfun_result res;
	uint64_t start = bench_ns();

	(void)p;
	for (uint64_t i = 1; i <= n; i++) {
		fn(&i, 1, &res);
		if (res.inline_word[0] != i)
			return -EBADMSG;
		if (i % by == 0) {
			uint64_t now = bench_ns();

			sample(h, now - start, by);
			start = now;
		}
	}
	return 0;
}

/* The client's own instructions: null calls whose answers are there already, in memory that nobody else touches. What
 * they take is no time of the two lines, and counts most where a processor is emulated. */
static int
alone_trips(struct probe *p, uint64_t n, unsigned by, struct hist *h)
{
	static struct {
		_Alignas(VFUN_PAGE) uint8_t out[2 * VFUN_PAGE];
		uint8_t in[2 * VFUN_PAGE];
	} region;
	static struct vfun v;
	struct endpoint e = { .v = &v };
	struct probe alone = { .e = &e };
	int r = 0;

	(void)p;
	client_begin(&v);
	v.out.map = region.out;
	v.in.map = region.in;
	v.grant.slots = ALONE;
	v.grant.workers = 1;
	for (uint64_t i = 0; !r && i < n; i += ALONE) {
		uint64_t start;

		for (uint32_t k = 0; k < ALONE; k++) {
			struct vfun_answer *a =
			    (void *)(region.in + VFUN_PAGE + (v.next + k) % ALONE * (uint64_t)VFUN_LINE);
			uint64_t head = vfun_answer_head(v.next + k + 1, VFUN_STATE_DONE, 0, VFUN_OK, sizeof(uint64_t));

			memcpy(a, &head, sizeof(head));
			a->payload.word[0] = k;
		}
		start = bench_ns();
		for (uint64_t k = 0; !r && k < ALONE; k++)
			r = null_call(&alone, k);
		sample(h, bench_ns() - start, ALONE);
	}
	(void)by;
	return r;
}

/* What is measured */

static struct probe *
add(struct latency *l, const char *what, struct endpoint *e, int limit,
    int (*trips)(struct probe *p, uint64_t n, unsigned by, struct hist *h))
{
	struct probe *p = &l->probe[l->probes++];

	p->what = what;
	p->e = e;
	p->limit = limit;
	p->trips = trips;
	p->by = 1;
	p->blocks = 0;
	p->singles = l->b->blocks < 4 ? 1 : l->b->blocks / 4;
	p->single = bench_alloc(1, sizeof(*p->single));
	p->block = p->single;
	return p;
}

/* The same for what takes well below a microsecond. */
static int
add_fast(struct latency *l, const char *what, struct endpoint *e, int limit,
    int (*trips)(struct probe *p, uint64_t n, unsigned by, struct hist *h), unsigned by)
{
	struct probe *p = add(l, what, e, limit, trips);

	p->by = by;
	p->blocks = l->b->blocks;
	p->singles = l->b->blocks;
	p->block = bench_alloc(1, sizeof(*p->block));
	return (int)l->probes - 1;
}

/* One by one, only the clock would be seen. */
static void
add_local(struct latency *l, const char *what, unsigned by,
    int (*trips)(struct probe *p, uint64_t n, unsigned by, struct hist *h))
{
	struct probe *p = &l->probe[add_fast(l, what, NULL, -1, trips, by)];

	free(p->single);
	p->single = p->block;
	p->singles = 0;
}

/* A process at the other end. 0, or -1: it is left out. */
static int
open_echo(struct latency *l, struct echo *e, const char *what, int (*make)(struct echo *e))
{
	int r = make == echo_tcp && l->b->echo ? echo_connect(e, l->b->echo) : make(e);

	if (!r)
		return 0;
	echo_end(e);
	note(&l->b->left_out, "%s, %s: %s", l->b->in_guest ? "guest" : "host", what, strerror(-r));
	return -1;
}

/* Its probe's index, or -1. */
static int
add_echo(struct latency *l, const char *what, int (*make)(struct echo *e))
{
	struct echo *e = &l->echo[l->echoes];

	if (open_echo(l, e, what, make))
		return -1;
	l->echoes++;
	add(l, what, NULL, -1, echo_trips)->echo = e;
	return (int)l->probes - 1;
}

static struct probe *
add_wake(struct latency *l, const char *what, struct endpoint *e, int limit, enum beside beside)
{
	struct probe *p = add(l, what, e, limit, wake_trips);

	p->singles = p->singles / 4 + 1;
	p->beside = beside;
	return p;
}

/* The limits of waking a sleeper: indexes by place, -1: there is none. */
static void
add_futex(struct latency *l, int limit[OTHER_CPU + 1])
{
	static const char *const what[] = { "futex wake, answer", "futex wake, same CPU", "futex wake, other CPU" };
	struct echo *e = &l->echo[l->echoes];
	int cpus = l->b->in_guest ? ANYWHERE : l->b->machine.cores_n > 1 ? OTHER_CPU : SAME_CPU;

	limit[ANYWHERE] = limit[SAME_CPU] = limit[OTHER_CPU] = -1;
	if (open_echo(l, e, what[ANYWHERE], echo_futex))
		return;
	l->echoes++;
	for (int i = cpus == ANYWHERE ? ANYWHERE : SAME_CPU; i <= cpus; i++) {
		struct probe *p = add_wake(l, what[i], NULL, -1, (enum beside)i);

		p->echo = e;
		p->sleeper = e->pid;
		limit[i] = (int)l->probes - 1;
	}
}

static void
add_sleeper(struct latency *l, struct endpoint *e, const int limit[OTHER_CPU + 1])
{
	static const char *const what[] = { "call of a sleeper", "call of a sleeper, same CPU",
		"call of a sleeper, other CPU" };
	pid_t pid = process_of(l->b, e);

	if (!pid)
		add_wake(l, what[ANYWHERE], e, -1, ANYWHERE);
	for (int i = SAME_CPU; pid && i <= OTHER_CPU; i++)
		if (limit[i] >= 0)
			add_wake(l, what[i], e, limit[i], (enum beside)i)->sleeper = pid;
}

static void
add_path(struct latency *l, struct endpoint *e, int tcp, const int futex[OTHER_CPU + 1])
{
	int limit = -1;

	if (e->mapped && !l->b->in_guest && l->b->machine.cores_n < 2)
		note(&l->b->left_out, "%s, %s, raw ping-pong: it needs two processors", e->where, e->path);
	else if (e->mapped)
		limit = add_fast(l, "raw ping-pong", e, -1, raw_trips, BLOCK);
	else if (!strcmp(e->path, "copy"))
		add(l, "file write, read", e, -1, file_trips), limit = (int)l->probes - 1;
	else
		limit = tcp;
	if (e->mapped)
		add_fast(l, "null call", e, limit, null_trips, BLOCK);
	else
		add(l, "null call", e, limit, null_trips);
	if (e->mapped)
		add_sleeper(l, e, futex);
}

static void
compose(struct latency *l)
{
	int futex[OTHER_CPU + 1];
	int tcp;

	add_local(l, "in-process call", BLOCK_LOCAL, local_trips);
	add_local(l, "null call, nobody else", ALONE, alone_trips);
	add_echo(l, "unix socket echo", echo_unix);
	tcp = add_echo(l, "TCP echo", echo_tcp);
	add_futex(l, futex);
	for (unsigned i = 0; i < l->paths; i++)
		add_path(l, &l->e[i], tcp, futex);
}

static int
batch(struct probe *p)
{
	int r = p->blocks ? p->trips(p, p->blocks * p->by, p->by, p->block) : 0;

	return r || !p->singles ? r : p->trips(p, p->singles, 1, p->single);
}

static int
measure(struct latency *l)
{
	progress_begin(l->b, l->b->in_guest ? "guest" : "host", (double)BATCHES * l->probes);
	for (unsigned n = 0; n < BATCHES; n++)
		for (unsigned i = 0; i < l->probes; i++) {
			struct probe *p = &l->probe[i];
			int r = batch(p);

			if (r == -EBADMSG)
				return bench_fail(EXIT_FUNCTION, "%s: a wrong answer", p->what);
			if (r)
				return bench_fail(EXIT_LOST, "%s: %s", p->what,
				    p->e && *vfun_text(p->e->v) ? vfun_text(p->e->v) : strerror(-r));
			progress_step(1);
		}
	progress_end();
	return 0;
}

static void
add_row(const struct latency *l, const struct probe *p)
{
	struct cell *c = table_row(&l->b->table);
	double median = hist_quantile(p->block, 0.5) / PS;
	uint64_t trips = BATCHES * (p->blocks ? p->blocks * p->by : p->singles);
	char *histogram = hist_text(p->single, PS);

	cell_text(&c[WHERE], l->b->in_guest ? "guest" : "host");
	cell_text(&c[PATH], "%s", p->e ? p->e->path : "-");
	cell_text(&c[WHAT], "%s", p->what);
	cell_number(&c[TRIPS], (double)trips);
	cell_number(&c[MEDIAN], median);
	cell_number(&c[P99], hist_quantile(p->single, 0.99) / PS);
	cell_number(&c[P999], hist_quantile(p->single, 0.999) / PS);
	cell_number(&c[MAX], (double)p->single->max / PS);
	if (p->limit >= 0) {
		const struct probe *limit = &l->probe[p->limit];

		cell_text(&c[LIMIT], "%s", limit->what);
		cell_number(&c[RATIO], median * PS / hist_quantile(limit->block, 0.5));
	}
	cell_text(&c[HISTOGRAM], "%s", histogram ? histogram : "");
	free(histogram);
}

static int
here(struct bench *b)
{
	const struct vfun_options o = { .out_arena = VFUN_PAGE, .in_arena = VFUN_PAGE, .slots = 1 };
	static struct latency l;
	int r = endpoints_open(b, l.e, 4, "pingpong", &o);

	if (r < 0)
		return -r;
	l.b = b;
	l.paths = (unsigned)r;
	compose(&l);
	r = measure(&l);
	for (unsigned i = 0; !r && i < l.probes; i++) {
		const struct probe *p = &l.probe[i];

		add_row(&l, p);
		if (p->trips == raw_trips)
			machine_noise(
			    b, "raw round trips", hist_quantile(p->block, 0.25), hist_quantile(p->block, 0.75));
	}
	if (!r && BATCHES * b->blocks < FEW)
		note(&b->warnings, "fewer than %u round trips say little about their 99.9th percentile", FEW);
	endpoints_close(l.e, l.paths);
	for (unsigned i = 0; i < l.echoes; i++)
		echo_end(&l.echo[i]);
	return r;
}

/* VALUE:COUNT, and on to the next. 1, or 0 at the end. */
static int
next_bucket(char **s, double *value, double *count)
{
	char *end;

	*value = strtod(*s, &end);
	if (end == *s || *end != ':')
		return 0;
	*count = strtod(end + 1, s);
	return 1;
}

/* --histogram: as HdrHistogram prints them, value and share of the calls that took no longer. */
static void
show_histogram(const struct cell *c)
{
	char *s = c[HISTOGRAM].text;
	double all = 0;
	double sum = 0;
	double shown = 0;
	double value;
	double count;

	for (char *at = s; next_bucket(&at, &value, &count);)
		all += count;
	printf("\n%s, %s, %s\n%12s  %10s  %10s\n", c[WHERE].text, c[PATH].text, c[WHAT].text, "ns", "share", "calls");
	while (next_bucket(&s, &value, &count)) {
		sum += count;
		/* Each line halves what is left. */
		if (all - sum > (1 - shown) * all * 0.5 && sum < all)
			continue;
		shown = sum / all;
		printf("%12.0f  %10.6f  %10.0f\n", value, shown, sum);
	}
}

static void
show(struct bench *b)
{
	report_table(&b->table);
	for (unsigned i = 0; b->histogram && i < b->table.rows; i++)
		show_histogram(table_at(&b->table, i));
}

int
bench_latency(struct bench *b)
{
	char blocks[24];
	char where[32];
	const char *args[] = { "--blocks", blocks, "--echo", where, NULL };
	struct echo echo;
	unsigned port;
	int r;

	if (!b->blocks)
		b->blocks = BLOCKS_DEFAULT;
	snprintf(blocks, sizeof(blocks), "%llu", (unsigned long long)b->blocks);
	table_init(&b->table, columns);
	r = here(b);
	if (r)
		return r;
	if (echo_serve(&echo, &port))
		args[2] = NULL; /* the guest makes do with its own */
	snprintf(where, sizeof(where), BENCH_HOST ":%u", port);
	r = bench_guest(b, args, NULL, NULL, NULL);
	echo_end(&echo);
	if (r)
		return r;
	machine_end(b, 2);
	return report(b, show);
}
