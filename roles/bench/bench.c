/* SPDX-License-Identifier: MIT
 *
 * bench.c - vfun bench: which benchmark, with which options, against which vfund
 *
 * In a guest the share of the run folder is used, on the host the vfund there; where there is none, the benchmark
 * starts one for itself (own.c). Those on the host do the same in a throw-away VM and show both (guest.c).
 */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../common/cli.h"
#include "../roles.h"
#include "bench.h"

enum {
	OPT_RUN = 256,
	OPT_PATH,
	OPT_CSV,
	OPT_PLOT,
	OPT_NO_GUEST,
	OPT_INSIDE,
	OPT_PORT,
	OPT_ECHO,
	OPT_VM,
	OPT_QEMU,
	OPT_KERNEL,
	OPT_MODULES,
	OPT_ACCEL,
	OPT_BLOCKS,
	OPT_ROUNDS,
	OPT_BYTES,
	OPT_COUNT,
	OPT_SECONDS,
	OPT_SCALE,
	OPT_FUNCTION,
	OPT_INSTANCE,
	OPT_HISTOGRAM,
	OPT_CONF,
	OPT_ARGS,
	OPT_TRY,
	OPT_PROGRAMS,
	OPT_HELP = 'h',
};

#define SHOW_USAGE (-1) /* instead of an exit status */

static const struct option options[] = {
	{ "json", no_argument, NULL, 'j' },
	{ "csv", no_argument, NULL, OPT_CSV },
	{ "plot", required_argument, NULL, OPT_PLOT },
	{ "run", required_argument, NULL, OPT_RUN },
	{ "path", required_argument, NULL, OPT_PATH },
	{ "no-guest", no_argument, NULL, OPT_NO_GUEST },
	{ "inside", no_argument, NULL, OPT_INSIDE },
	{ "port", required_argument, NULL, OPT_PORT },
	{ "echo", required_argument, NULL, OPT_ECHO },
	{ "vm", required_argument, NULL, OPT_VM },
	{ "qemu", required_argument, NULL, OPT_QEMU },
	{ "kernel", required_argument, NULL, OPT_KERNEL },
	{ "modules", required_argument, NULL, OPT_MODULES },
	{ "accel", required_argument, NULL, OPT_ACCEL },
	{ "blocks", required_argument, NULL, OPT_BLOCKS },
	{ "rounds", required_argument, NULL, OPT_ROUNDS },
	{ "bytes", required_argument, NULL, OPT_BYTES },
	{ "count", required_argument, NULL, OPT_COUNT },
	{ "seconds", required_argument, NULL, OPT_SECONDS },
	{ "scale", required_argument, NULL, OPT_SCALE },
	{ "function", required_argument, NULL, OPT_FUNCTION },
	{ "instance", required_argument, NULL, OPT_INSTANCE },
	{ "histogram", no_argument, NULL, OPT_HISTOGRAM },
	{ "conf", required_argument, NULL, OPT_CONF },
	{ "args", required_argument, NULL, OPT_ARGS },
	{ "programs", required_argument, NULL, OPT_PROGRAMS },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "try", no_argument, NULL, OPT_TRY },
	{ NULL, 0, NULL, 0 },
};

/* Options that all have aren't named here. */
static const struct benchmark {
	const char *name;
	int (*run)(struct bench *b);
	int own[8];
	const char *help;
} benchmarks[] = {
	{ "domains", bench_domains,
	    { OPT_ROUNDS, OPT_SCALE, OPT_SECONDS, OPT_PLOT, OPT_PORT, OPT_FUNCTION, OPT_INSTANCE },
	    "the paper's experiment: Host-Host, Guest-Host, Guest-Net" },
	{ "latency", bench_latency, { OPT_BLOCKS, OPT_HISTOGRAM, OPT_ECHO },
	    "a null call by every path, and its limit beside it" },
	{ "throughput", bench_throughput, { OPT_ROUNDS, OPT_BYTES }, "calls per second by batch, bytes by block" },
	{ "idle", bench_idle, { OPT_COUNT, OPT_SECONDS }, "what instances cost that nobody calls" },
	{ "targets", bench_targets, { OPT_ROUNDS, OPT_TRY },
	    "what vfun is to reach: each figure, and whether it is met" },
	{ "activate", bench_activate, { OPT_COUNT }, "how long it takes to get an instance, and to give it back" },
	{ "hardware", bench_hardware, { OPT_COUNT, OPT_ROUNDS, OPT_CONF, OPT_FUNCTION, OPT_ARGS },
	    "what a call of a function in hardware costs beyond XRT's own" },
	{ "functions", bench_functions, { OPT_PROGRAMS },
	    "functions of one's own: through vfun, and computed where the caller is" },
};

#define BENCHMARKS (sizeof(benchmarks) / sizeof(benchmarks[0]))

int
bench_fail(int status, const char *fmt, ...)
{
	va_list ap;

	progress_end();
	fputs("vfun bench: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	putc('\n', stderr);
	return status;
}

void *
bench_alloc(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (!p)
		exit(bench_fail(EXIT_SYSTEM, "out of memory"));
	return p;
}

uint64_t
bench_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int
usage(void)
{
	printf("usage: vfun bench WHAT [-j | --csv] [--run DIR] [--path PATH] [--no-guest] [OPTION ...]\n");
	for (size_t i = 0; i < BENCHMARKS; i++)
		printf("  %-11s %s\n", benchmarks[i].name, benchmarks[i].help);
	printf("See vfun-bench(1).\n");
	return cli_flush("bench");
}

static const struct benchmark *
find(const char *name)
{
	for (size_t i = 0; i < BENCHMARKS; i++)
		if (!strcmp(name, benchmarks[i].name))
			return &benchmarks[i];
	return NULL;
}

/* Is the option for this benchmark? */
static int
allowed(const struct benchmark *m, int opt)
{
	int limited = opt == OPT_PLOT || opt == OPT_PORT || opt == OPT_ECHO || opt >= OPT_BLOCKS;

	for (unsigned i = 0; limited && i < sizeof(m->own) / sizeof(m->own[0]); i++)
		if (m->own[i] == opt)
			return 1;
	return !limited;
}

static int
number(const char *name, const char *s, uint64_t min, uint64_t max, uint64_t *to)
{
	int r = max > 1ull << 30 ? cli_size(s, to) : cli_u64(s, to);

	if (!r && *to >= min && *to <= max)
		return 0;
	return bench_fail(EXIT_USAGE, "--%s: '%s' is not a number from %llu to %llu", name, s, (unsigned long long)min,
	    (unsigned long long)max);
}

static int
set_number(struct bench *b, int opt, const char *s)
{
	switch (opt) {
	case OPT_BLOCKS:
		return number("blocks", s, 1, 100000, &b->blocks);
	case OPT_ROUNDS:
		return number("rounds", s, 1, 1000, &b->rounds);
	case OPT_BYTES:
		return number("bytes", s, 4096, 1ull << 40, &b->bytes);
	case OPT_COUNT:
		return number("count", s, 1, 100000, &b->count);
	case OPT_SECONDS:
		return number("seconds", s, 1, 3600, &b->seconds);
	case OPT_SCALE:
		return number("scale", s, 1, 1000000, &b->scale);
	default: /* getopt has said why */
		return EXIT_USAGE;
	}
}

static int
set_option(struct bench *b, int opt, const char *s)
{
	static const struct {
		int opt;
		size_t at;
	} texts[] = {
		{ OPT_PLOT, offsetof(struct bench, plot) },
		{ OPT_RUN, offsetof(struct bench, run) },
		{ OPT_FUNCTION, offsetof(struct bench, function) },
		{ OPT_INSTANCE, offsetof(struct bench, instance) },
		{ OPT_PATH, offsetof(struct bench, path) },
		{ OPT_PORT, offsetof(struct bench, port) },
		{ OPT_ECHO, offsetof(struct bench, echo) },
		{ OPT_VM, offsetof(struct bench, vm) },
		{ OPT_QEMU, offsetof(struct bench, qemu) },
		{ OPT_KERNEL, offsetof(struct bench, kernel) },
		{ OPT_MODULES, offsetof(struct bench, modules) },
		{ OPT_ACCEL, offsetof(struct bench, accel) },
		{ OPT_CONF, offsetof(struct bench, conf) },
		{ OPT_ARGS, offsetof(struct bench, args) },
		{ OPT_PROGRAMS, offsetof(struct bench, programs) },
	};

	for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (texts[i].opt == opt) {
			*(const char **)(void *)((char *)b + texts[i].at) = s;
			return 0;
		}
	if (opt == 'j')
		b->format = FORMAT_JSON;
	else if (opt == OPT_CSV)
		b->format = FORMAT_CSV;
	else if (opt == OPT_NO_GUEST)
		b->want_guest = 0;
	else if (opt == OPT_HISTOGRAM)
		b->histogram = 1;
	else if (opt == OPT_TRY)
		b->try = 1;
	else if (opt == OPT_INSIDE)
		b->inside = 1;
	else
		return set_number(b, opt, s);
	return 0;
}

static const char *
option_name(int opt)
{
	const struct option *o = options;

	while (o->name && o->val != opt)
		o++;
	return o->name ? o->name : "?";
}

/* --path: a name that the client library knows. */
static int
check_path(struct bench *b)
{
	enum vfun_path path;

	if (b->path && endpoint_path(b->path, &path))
		return bench_fail(EXIT_USAGE, "--path: there is no path '%s': see vfun-call(1)", b->path);
	if (b->path && path == VFUN_PATH_AUTO)
		b->path = NULL;
	return 0;
}

static int
parse(struct bench *b, const struct benchmark *m, int argc, char **argv)
{
	int opt;
	int r = 0;

	while (!r && (opt = getopt_long(argc, argv, "j", options, NULL)) != -1) {
		if (opt == '?')
			return EXIT_USAGE;
		if (opt == OPT_HELP)
			return SHOW_USAGE;
		if (!allowed(m, opt))
			return bench_fail(
			    EXIT_USAGE, "--%s is not an option of %s: see vfun-bench(1)", option_name(opt), m->name);
		r = set_option(b, opt, optarg);
	}
	if (!r && optind != argc)
		r = cli_wrong("bench", "'%s' is one argument too many", argv[optind]);
	if (!r)
		r = check_path(b);
	if (b->inside)
		b->format = FORMAT_LINES;
	return r;
}

static int (*chosen)(struct bench *b);

static int
work(struct bench *b)
{
	if (b->format == FORMAT_LINES)
		setvbuf(stdout, NULL, _IOLBF, 0);
	machine_begin(b);
	return chosen(b);
}

/* On the host `control` is a socket. */
static int
is_guest(int fd)
{
	int type;
	socklen_t len = sizeof(type);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0;
}

int
role_bench(int argc, char **argv)
{
	static struct bench b = { .want_guest = 1 }; /* static: what it holds lives as long as the process */
	const struct benchmark *m = argc > 1 ? find(argv[1]) : NULL;
	const char *run = getenv("VFUN_RUN_DIR");
	int fd;
	int r;

	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
		return usage();
	if (argc < 2)
		return cli_wrong("bench", "no benchmark named");
	if (!m)
		return cli_wrong("bench", "'%s' is not a benchmark", argv[1]);
	b.name = m->name;
	cli_begin(argv + 1, "bench");
	r = parse(&b, m, argc - 1, argv + 1);
	if (r)
		return r == SHOW_USAGE ? usage() : r;
	if (!b.run && run && *run)
		b.run = run;
	chosen = m->run;
	fd = vfun_control_open(b.run, 0);
	if (fd < 0 && (b.run || b.inside))
		return bench_fail(EXIT_NO_VFUND,
		    "no vfund and no share at %s: start vfund, or leave that to the benchmark",
		    b.run ? b.run : "/run/vfun");
	if (fd < 0)
		return own_vfund(&b, work);
	b.in_guest = is_guest(fd);
	close(fd);
	return work(&b);
}
