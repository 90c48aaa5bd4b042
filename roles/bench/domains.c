/* SPDX-License-Identifier: MIT
 *
 * domains.c - vfun bench domains: the experiment of the paper's section 4
 *
 * A vFunction computes R repetitions in each of C invocations, R * C always the same: the fewer repetitions, the more
 * of the time is calls. The domains are ways to reach it; what computes is the same code on the same processor in all
 * of them. Time is the mean of five rounds, as in the paper; ratios are taken from medians, which one disturbed round
 * doesn't move.
 *
 * --scale S does 1/S of the work in each column: invocations are divided first, so that a call stays as long as it is,
 * and with it the share of the time that calling takes; the rest is taken from the repetitions, but each column has one
 * invocation more than the one before at least, so that none repeats another. A round that lasts
 * longer than --seconds ends there, and its time is that of the invocations made, times all by made; a network over
 * which there are millions of calls would take hours otherwise.
 *
 * What is compared should be measured at the same time: a machine may be faster or slower a minute later. So guest and
 * host take turns: after each round the guest tells its figures and waits for a byte on its third serial port; the host
 * does the same rounds meanwhile and then sends that byte.
 */
#include <errno.h>
#include <fcntl.h>
#include <gmp.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "../roles.h"
#include "domains.h"

#define ROUNDS_DEFAULT 5
#define SCALE_DEFAULT 50
#define SHORTEST_S 0.1	  /* a shorter round says nothing about a per cent */
#define SECONDS_DEFAULT 2 /* where the work is scaled */
#define LONG_CALL 10000	  /* repetitions: beside these a wake-up of the service is nothing */
#define CLOCK_CALLS 64	  /* short calls between two looks at the clock */
#define SPIN_US 1000000
#define GUEST_PORT "/dev/ttyS2"
#define TURN_MS 3600000

const struct instance domains_instance[COLUMNS] = {
	{ "500M x 1", 500000000, 1 },
	{ "50M x 10", 50000000, 10 },
	{ "5M x 100", 5000000, 100 },
	{ "500K x 1k", 500000, 1000 },
	{ "250K x 2k", 250000, 2000 },
	{ "25K x 20k", 25000, 20000 },
	{ "500 x 1M", 500, 1000000 },
	{ "10 x 50M", 10, 50000000 },
	{ "1 x 500M", 1, 500000000 },
};

const char *const domains_name[DOMAINS] = { "In-process", "Host-Host", "Guest-Host", "Guest-Net", "Host-Net" };

static const struct column columns[] = {
	{ "function", NULL, KIND_TEXT, 0 },
	{ "argument", NULL, KIND_COUNT, 0 },
	{ "value", NULL, KIND_TEXT, 0 },
	{ "instance", NULL, KIND_TEXT, 0 },
	{ "repetitions", NULL, KIND_COUNT, 0 },
	{ "invocations", NULL, KIND_COUNT, 0 },
	{ "domain", NULL, KIND_TEXT, 0 },
	{ "path", NULL, KIND_TEXT, 0 },
	{ "rounds", NULL, KIND_COUNT, 0 },
	{ "measured", NULL, KIND_COUNT, 0 },
	{ "mean_s", NULL, KIND_NUMBER, 4 },
	{ "median_s", NULL, KIND_NUMBER, 4 },
	{ "to_in_process", NULL, KIND_NUMBER, 4 },
	{ "to_host_host", NULL, KIND_NUMBER, 4 },
	{ "net_to_this", NULL, KIND_NUMBER, 4 },
	{ "paper_s", NULL, KIND_NUMBER, 2 },
	{ "paper_to_host_host", NULL, KIND_NUMBER, 4 },
	{ "paper_net_to_this", NULL, KIND_NUMBER, 4 },
	{ NULL, NULL, KIND_TEXT, 0 },
};

/* One round, as it is measured and as it comes from a guest. */
enum { R_FUNCTION, R_COLUMN, R_DOMAIN, R_PATH, R_SECONDS, R_MEASURED };

static const struct column round_columns[] = {
	{ "function", NULL, KIND_COUNT, 0 },
	{ "column", NULL, KIND_COUNT, 0 },
	{ "domain", NULL, KIND_COUNT, 0 }, /* DOMAINS: the guest has made its round, it is the host's turn */
	{ "path", NULL, KIND_TEXT, 0 },
	{ "seconds", NULL, KIND_NUMBER, 0 },
	{ "measured", NULL, KIND_COUNT, 0 }, /* invocations made */
	{ NULL, NULL, KIND_TEXT, 0 },
};

/* One function in reach. */
struct target {
	struct local local;
	struct backend_result expected;
	struct endpoint near; /* by shared memory, if v isn't NULL */
	struct endpoint net;
};

struct domains {
	struct bench *b;
	struct target target[FUNCTIONS];
	unsigned done[FUNCTIONS][COLUMNS]; /* rounds of this host */
	int listener;			   /* for the guest's third port, -1: none */
	int turn;			   /* the guest's third port, here or there, -1: none */
};

/* The work */

int
domains_chosen(const struct bench *b, unsigned f, unsigned column)
{
	return (!b->function || !strcmp(b->function, domains_function[f].name)) &&
	       (!b->instance || !strcmp(b->instance, domains_instance[column].name));
}

static struct instance
scaled(const struct bench *b, unsigned column)
{
	struct instance i = domains_instance[column];
	uint64_t work = i.repetitions * i.calls / b->scale;
	uint64_t least = 1;

	for (unsigned k = 0; b->scale > 1 && k < column; k++) {
		uint64_t calls = (domains_instance[k].calls + b->scale / 2) / b->scale;

		least = (calls > least ? calls : least) + 1;
	}
	i.calls = (i.calls + b->scale / 2) / b->scale;
	i.calls = i.calls > least ? i.calls : least;
	i.repetitions = work / i.calls;
	i.repetitions = i.repetitions ? i.repetitions : 1;
	return i;
}

static int
right(const struct target *t, const void *bytes, uint64_t len)
{
	return len == t->expected.len && !memcmp(bytes, t->expected.inline_bytes, len);
}

static int
local_one(struct target *t, struct vfun *v, const uint64_t arg[2])
{
	struct backend_result res;
	int r = local_call(&t->local, arg, 2, NULL, 0, &res);

	(void)v;
	return r ? r : right(t, res.inline_bytes, res.len) ? 0 : -EBADMSG;
}

static int
remote_one(struct target *t, struct vfun *v, const uint64_t arg[2])
{
	struct vfun_result res;
	int r = vfun_call(v, VFUN_CMD_GET, arg, 2, NULL, &res, BENCH_TIMEOUT_NS);

	return r ? r : !res.reason && right(t, res.inline_result, res.len) ? 0 : -EBADMSG;
}

/* All invocations, or those that fit the time; *made of them. */
static int
invoke(const struct domains *d, struct target *t, struct vfun *v, const struct instance *i, const uint64_t arg[2],
    uint64_t *made, double *seconds)
{
	int (*one)(struct target * t, struct vfun * v, const uint64_t arg[2]) = v ? remote_one : local_one;
	const unsigned every = i->repetitions < LONG_CALL ? CLOCK_CALLS : 1;
	const uint64_t limit = d->b->seconds * 1000000000u;
	uint64_t start = bench_ns();
	uint64_t n = 0;
	int r = 0;

	while (!r && n < i->calls) {
		r = one(t, v, arg);
		n++;
		if (limit && n % every == 0 && bench_ns() - start > limit)
			break;
	}
	*seconds = (double)(bench_ns() - start) / 1e9 * (double)i->calls / (double)n;
	*made = n;
	return r;
}

/* One round of one cell: a row. 0, or an exit status. */
static int
round_of(struct domains *d, unsigned f, unsigned column, enum domain domain, struct endpoint *e)
{
	const struct instance i = scaled(d->b, column);
	const uint64_t arg[2] = { domains_function[f].argument, i.repetitions };
	const uint64_t short_arg[2] = { arg[0], 1 };
	struct target *t = &d->target[f];
	struct vfun *v = e ? e->v : NULL;
	double seconds;
	uint64_t made;
	/* Wakes the service up. A short call among long ones would spoil the client's estimate of them (pace.h). */
	int r = v && i.repetitions < LONG_CALL ? remote_one(t, v, short_arg) : 0;

	if (!r)
		r = invoke(d, t, v, &i, arg, &made, &seconds);
	if (r == -EBADMSG)
		return bench_fail(
		    EXIT_FUNCTION, "%s: %s: a wrong result", domains_name[domain], domains_function[f].name);
	if (r)
		return bench_fail(EXIT_LOST, "%s: %s: %s", domains_name[domain], domains_function[f].name,
		    v && *vfun_text(v) ? vfun_text(v) : strerror(-r));
	struct cell *c = table_row(&d->b->table);

	cell_number(&c[R_FUNCTION], f);
	cell_number(&c[R_COLUMN], column);
	cell_number(&c[R_DOMAIN], domain);
	cell_text(&c[R_PATH], "%s", e ? e->path : "-");
	cell_number(&c[R_SECONDS], seconds);
	cell_number(&c[R_MEASURED], (double)made);
	if (d->b->inside)
		table_send(&d->b->table, d->b->table.rows - 1);
	return 0;
}

static double
cells(const struct bench *b)
{
	unsigned n = 0;

	for (unsigned f = 0; f < FUNCTIONS; f++)
		for (unsigned column = 0; column < COLUMNS; column++)
			n += domains_chosen(b, f, column) ? 1 : 0;
	return n;
}

/* One round of a column by all that can be reached from here. */
static int
round_here(struct domains *d, unsigned f, unsigned column)
{
	struct target *t = &d->target[f];
	int guest = d->b->in_guest;
	/* A guest that this bench's host has started leaves the reference to the host. */
	int r = d->b->inside ? 0 : round_of(d, f, column, IN_PROCESS, NULL);

	if (!r && t->near.v)
		r = round_of(d, f, column, guest ? GUEST_HOST : HOST_HOST, &t->near);
	if (!r && t->net.v)
		r = round_of(d, f, column, guest ? GUEST_NET : HOST_NET, &t->net);
	d->done[f][column]++;
	progress_step(1.0 / (cells(d->b) * (double)d->b->rounds));
	return r;
}

/* Turns: in the guest */

static void
open_port(struct domains *d)
{
	struct termios t;

	if (!d->b->port)
		return;
	d->turn = open(d->b->port, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (d->turn < 0 || tcgetattr(d->turn, &t))
		return;
	cfmakeraw(&t);
	t.c_cflag |= CLOCAL;
	tcsetattr(d->turn, TCSANOW, &t);
}

/* Tell the host that it is its turn, and wait until it isn't any more. */
static void
give_turn(struct domains *d, unsigned f, unsigned column)
{
	struct pollfd p = { .fd = d->turn, .events = POLLIN };
	struct cell *c;
	char byte;

	if (d->turn < 0)
		return;
	c = table_row(&d->b->table);
	cell_number(&c[R_FUNCTION], f);
	cell_number(&c[R_COLUMN], column);
	cell_number(&c[R_DOMAIN], DOMAINS);
	table_send(&d->b->table, --d->b->table.rows);
	if (poll(&p, 1, TURN_MS) != 1 || read(d->turn, &byte, 1) != 1) {
		close(d->turn);
		d->turn = -1;
	}
}

/* Turns: on the host */

/* A socket that only a name leads to, for QEMU to connect to. Without, there are no turns. */
static void
listen_for_guest(struct domains *d, char *name, size_t room)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	snprintf(name, room, "vfun-bench-%d-%llx", (int)getpid(), (unsigned long long)bench_ns());
	snprintf(sa.sun_path + 1, sizeof(sa.sun_path) - 1, "%s", name);
	d->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (d->listener < 0 ||
	    bind(d->listener, (struct sockaddr *)&sa,
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name))) ||
	    listen(d->listener, 8))
		name[0] = '\0';
}

/* The newest connection is the guest's: a QEMU that didn't bring it up, KVM not working, has connected as well. */
static void
accept_newest(struct domains *d)
{
	int fd;

	while (d->listener >= 0 && (fd = accept(d->listener, NULL, NULL)) >= 0) {
		if (d->turn >= 0)
			close(d->turn);
		d->turn = fd;
	}
}

static int
let_guest_go_on(struct domains *d)
{
	accept_newest(d);
	if (d->turn < 0 || send(d->turn, "!", 1, MSG_NOSIGNAL) == 1)
		return 0;
	return bench_fail(EXIT_LOST, "the guest's third serial port is gone: %s", strerror(errno));
}

static int
on_row(struct bench *b, unsigned row, void *arg)
{
	const struct cell *c = table_at(&b->table, row);
	struct domains *d = arg;
	unsigned f = (unsigned)c[R_FUNCTION].number;
	unsigned column = (unsigned)c[R_COLUMN].number;
	int r;

	if (c[R_FUNCTION].number < 0 || f >= FUNCTIONS || c[R_COLUMN].number < 0 || column >= COLUMNS ||
	    c[R_DOMAIN].number < 0 || c[R_DOMAIN].number > DOMAINS)
		return bench_fail(EXIT_LOST, "the guest sends a row that makes no sense");
	if (c[R_DOMAIN].number < DOMAINS)
		return 0;
	b->table.rows--;
	r = d->done[f][column] < b->rounds ? round_here(d, f, column) : 0;
	return r ? r : let_guest_go_on(d);
}

static int
with_guest(struct domains *d)
{
	struct bench *b = d->b;
	char name[64];
	char chardev[128];
	char rounds[24];
	char scale[24];
	char seconds[24];
	const char *args[] = { "--rounds", rounds, "--scale", scale, "--seconds", seconds, "--port", GUEST_PORT, NULL,
		NULL, NULL, NULL, NULL };
	unsigned n = 8;
	const char *const vm_args[] = { "--qemu-arg", "-chardev", "--qemu-arg", chardev, "--qemu-arg", "-device",
		"--qemu-arg", "isa-serial,chardev=turn,index=2", NULL };
	int r;

	if (b->in_guest || !b->want_guest)
		return 0;
	snprintf(rounds, sizeof(rounds), "%llu", (unsigned long long)b->rounds);
	snprintf(scale, sizeof(scale), "%llu", (unsigned long long)b->scale);
	snprintf(seconds, sizeof(seconds), "%llu", (unsigned long long)b->seconds);
	if (b->function) {
		args[n++] = "--function";
		args[n++] = b->function;
	}
	if (b->instance) {
		args[n++] = "--instance";
		args[n] = b->instance;
	}
	listen_for_guest(d, name, sizeof(name));
	snprintf(chardev, sizeof(chardev), "socket,id=turn,abstract=on,path=%s", name);
	r = bench_guest(b, args, *name ? vm_args : NULL, on_row, d);
	if (d->listener >= 0)
		close(d->listener);
	if (d->turn >= 0)
		close(d->turn);
	d->turn = d->listener = -1;
	return r;
}

/* Everything */

static int
open_target(struct bench *b, struct target *t, const struct function *f)
{
	/* The paper's clients spin: a call takes milliseconds, and where a guest is emulated, waking it up per cents of
	 * that. Ours sleep for most of it (pace.h): who spins takes from the one who computes beside him. */
	const struct vfun_options o = { .slots = 1, .spin_us = SPIN_US };
	const uint64_t arg[2] = { f->argument, 1 };
	int net = b->path && !strcmp(b->path, "net");
	int r = local_open(&t->local, f->name);

	if (!r)
		r = local_call(&t->local, arg, 2, NULL, 0, &t->expected);
	if (r)
		return bench_fail(EXIT_SYSTEM, "%s: %s", f->name, strerror(-r));
	/* On the host shared memory is the reference, whatever is to be compared with it. */
	r = !b->in_guest ? endpoint_open(b, &t->near, "host", f->name, o)
	    : net	 ? 0
			 : endpoint_open(b, &t->near, b->path ? b->path : "auto", f->name, o);
	if (r >= 0 && (net || !b->path))
		r = endpoint_open(b, &t->net, "net", f->name, o);
	return r < 0 ? -r : 0;
}

static void
close_target(struct target *t)
{
	vfun_close(t->near.v, NULL);
	vfun_close(t->net.v, NULL);
	local_close(&t->local);
}

/* What is not yet done, here. */
static int
rounds_here(struct domains *d)
{
	int r = 0;

	progress_begin(d->b, d->b->in_guest ? "guest" : "host", 1);
	for (unsigned f = 0; !r && f < FUNCTIONS; f++)
		for (unsigned column = 0; !r && column < COLUMNS; column++)
			while (!r && domains_chosen(d->b, f, column) && d->done[f][column] < d->b->rounds) {
				r = round_here(d, f, column);
				if (!r)
					give_turn(d, f, column);
			}
	progress_end();
	return r;
}

/* From rounds to rows */

struct gathered {
	const char *path;
	unsigned rounds;
	double measured;
	double mean;
	double median;
};

static struct gathered
gather(const struct table *rounds, unsigned f, unsigned column, unsigned domain)
{
	double *seconds = bench_alloc(rounds->rows + 1, sizeof(*seconds));
	struct gathered g = { .rounds = 0 };

	for (unsigned i = 0; i < rounds->rows; i++) {
		const struct cell *c = table_at(rounds, i);

		if (c[R_FUNCTION].number != f || c[R_COLUMN].number != column || c[R_DOMAIN].number != domain)
			continue;
		g.path = c[R_PATH].text;
		g.measured += c[R_MEASURED].number;
		seconds[g.rounds++] = c[R_SECONDS].number;
	}
	g.mean = stats_mean(seconds, g.rounds);
	g.median = stats_median(seconds, g.rounds);
	free(seconds);
	return g;
}

static char *
value_of(const struct backend_result *res)
{
	mpz_t n;
	char *s;

	mpz_init(n);
	mpz_import(n, res->len, -1, 1, 0, 0, res->inline_bytes);
	s = mpz_get_str(NULL, 10, n);
	mpz_clear(n);
	return s;
}

static void
ratio(struct cell *c, double x, double y)
{
	if (x > 0 && y > 0)
		cell_number(c, x / y);
}

static void
add_row(struct domains *d, unsigned f, unsigned column, unsigned domain, const struct gathered g[DOMAINS])
{
	const struct function *fn = &domains_function[f];
	const struct instance i = scaled(d->b, column);
	struct cell *c = table_row(&d->b->table);
	char *value = value_of(&d->target[f].expected);
	const double *paper = domain >= HOST_HOST && domain <= GUEST_NET && column < PAPER_COLUMNS
				  ? &fn->paper[domain - HOST_HOST][column]
				  : NULL;

	cell_text(&c[D_FUNCTION], "%s", fn->name);
	cell_number(&c[D_ARGUMENT], (double)fn->argument);
	cell_text(&c[D_VALUE], "%s", value ? value : "");
	free(value);
	cell_text(&c[D_INSTANCE], "%s", i.name);
	cell_number(&c[D_REPETITIONS], (double)i.repetitions);
	cell_number(&c[D_CALLS], (double)i.calls);
	cell_text(&c[D_DOMAIN], "%s", domains_name[domain]);
	cell_text(&c[D_PATH], "%s", g[domain].path);
	cell_number(&c[D_ROUNDS], g[domain].rounds);
	cell_number(&c[D_MEASURED], g[domain].measured);
	cell_number(&c[D_MEAN], g[domain].mean);
	cell_number(&c[D_MEDIAN], g[domain].median);
	ratio(&c[D_TO_IN_PROCESS], g[domain].median, g[IN_PROCESS].median);
	ratio(&c[D_TO_HOST_HOST], g[domain].median, g[HOST_HOST].median);
	ratio(&c[D_NET_TO_THIS], g[GUEST_NET].median, g[domain].median);
	if (!paper)
		return;
	cell_number(&c[D_PAPER], *paper);
	ratio(&c[D_PAPER_TO_HOST_HOST], *paper, fn->paper[0][column]);
	ratio(&c[D_PAPER_NET_TO_THIS], fn->paper[GUEST_NET - HOST_HOST][column], *paper);
}

static void
add_rows(struct domains *d)
{
	const struct table rounds = d->b->table;

	table_init(&d->b->table, columns);
	for (unsigned f = 0; f < FUNCTIONS; f++)
		for (unsigned column = 0; column < COLUMNS; column++) {
			struct gathered g[DOMAINS];

			for (unsigned k = 0; k < DOMAINS; k++)
				g[k] = gather(&rounds, f, column, k);
			for (unsigned k = 0; k < DOMAINS; k++)
				if (g[k].rounds)
					add_row(d, f, column, k, g);
		}
}

const struct cell *
domains_cell(const struct bench *b, unsigned f, unsigned column, unsigned domain)
{
	for (unsigned i = 0; i < b->table.rows; i++) {
		const struct cell *c = table_at(&b->table, i);

		if (!strcmp(c[D_FUNCTION].text, domains_function[f].name) &&
		    !strcmp(c[D_INSTANCE].text, domains_instance[column].name) &&
		    !strcmp(c[D_DOMAIN].text, domains_name[domain]))
			return c;
	}
	return NULL;
}

/* What needs no call should take the same time in all rounds of a cell, and long enough to tell a per cent. */
static void
judge_reference(struct bench *b)
{
	const struct table *t = &b->table;
	double *x = bench_alloc(t->rows + 1, sizeof(*x));
	double shortest = 0;
	unsigned n = 0;

	for (unsigned i = 0; i < t->rows; i++) {
		const struct cell *c = table_at(t, i);
		struct gathered g;

		if (c[R_DOMAIN].number != IN_PROCESS)
			continue;
		g = gather(t, (unsigned)c[R_FUNCTION].number, (unsigned)c[R_COLUMN].number, IN_PROCESS);
		x[n++] = c[R_SECONDS].number / g.median;
		shortest = shortest > 0 && shortest < g.median ? shortest : g.median;
	}
	machine_spread(b, "in-process rounds", x, n);
	free(x);
	if (n && shortest < SHORTEST_S)
		note(&b->warnings, "the shortest rounds take %.3f ms: too short to tell a per cent, see --scale",
		    shortest * 1e3);
}

static int
finish(struct domains *d)
{
	struct bench *b = d->b;
	int r;

	machine_end(b, 2);
	if (b->inside) {
		b->table.rows = 0; /* they have been sent */
		return report(b, NULL);
	}
	judge_reference(b);
	add_rows(d);
	r = b->plot ? domains_plot(b) : 0;
	return r ? r : report(b, domains_show);
}

int
bench_domains(struct bench *b)
{
	static struct domains d;
	int r = 0;

	d.b = b;
	d.listener = d.turn = -1;
	b->rounds = b->rounds ? b->rounds : ROUNDS_DEFAULT;
	b->scale = b->scale ? b->scale : SCALE_DEFAULT;
	if (!b->seconds && b->scale > 1)
		b->seconds = SECONDS_DEFAULT;
	table_init(&b->table, round_columns);
	if (!cells(b))
		return bench_fail(EXIT_USAGE, "the paper has no%s%s%s%s: see vfun-bench(1)",
		    b->function ? " function " : "", b->function ? b->function : "", b->instance ? " instance " : "",
		    b->instance ? b->instance : "");
	for (unsigned f = 0; !r && f < FUNCTIONS; f++)
		r = open_target(b, &d.target[f], &domains_function[f]);
	open_port(&d);
	if (!r)
		r = with_guest(&d);
	if (!r)
		r = rounds_here(&d);
	if (!r)
		r = finish(&d);
	for (unsigned f = 0; f < FUNCTIONS; f++)
		close_target(&d.target[f]);
	return r;
}
