/* SPDX-License-Identifier: MIT
 *
 * bench.c - vfun bench latency: a call beside the raw limit of the memory under it
 *
 * A call can't be faster than two cache lines that travel to the other processor and back. So both are measured in one
 * run, on one instance: the same two processes, the same mapping, the same processors. raw    function `pingpong`:
 * client and service bounce two words in the arenas, and do nothing else null   ECHO of 8 bytes, one slot, one at a
 * time: everything a call needs but the function The two alternate in short batches, so that what else happens on the
 * machine hits both; the report is the median over batches of a batch's mean, and the ratio of the two medians.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/cli.h"
#include "roles.h"

#define BATCHES 50
#define BLOCK 16
#define TIMEOUT_NS 10000000000ull

struct bench {
	struct vfun_options opt;
	uint64_t blocks; /* per batch */
	int json;
	struct vfun *v;
	uint64_t *null_ns; /* of each block: BATCHES * blocks */
	uint64_t *raw_ns;
};

static int
usage(void)
{
	fprintf(stderr,
	    "usage: vfun bench latency [-j] [--blocks N] [--path host|dax|copy] [--run DIR]\n"
	    "  the null call's round trip beside a raw two-line ping-pong, in one run: see vfun-bench(1)\n");
	return EXIT_USAGE;
}

static uint64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int
null_batch(struct bench *b, uint64_t *ns)
{
	uint64_t start = now_ns();

	for (uint64_t i = 0; i < b->blocks * BLOCK; i++) {
		struct vfun_result res;
		int r = vfun_call(b->v, VFUN_CMD_ECHO, &i, 1, NULL, &res, TIMEOUT_NS);

		if (r || res.reason || memcmp(res.inline_result, &i, sizeof(i)))
			return r ? r : -EIO;
		if (i % BLOCK == BLOCK - 1) {
			uint64_t now = now_ns();

			ns[i / BLOCK] = now - start;
			start = now;
		}
	}
	return 0;
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
			until = now_ns() + TIMEOUT_NS;
		else if (now_ns() > until)
			return -ETIMEDOUT;
	}
	return 0;
}

static int
raw_batch(struct bench *b, uint64_t *ns)
{
	struct vfun_bulk bulk = { .in_len = VFUN_LINE, .out_len = VFUN_LINE };
	const uint64_t rounds = b->blocks * BLOCK + 1; /* the first is for the service to wake up */
	uint32_t *out = vfun_out_arena(b->v);
	const uint32_t *in = vfun_in_arena(b->v);
	struct vfun_result res;
	uint64_t start = 0;
	uint64_t done;
	uint32_t ticket;
	int r;

	__atomic_store_n(out, 0, __ATOMIC_RELEASE);
	r = vfun_submit(b->v, VFUN_CMD_GET, &rounds, 1, &bulk, &ticket);
	if (!r)
		r = vfun_ring(b->v);
	for (uint32_t i = 1; !r && i <= rounds; i++) {
		__atomic_store_n(out, i, __ATOMIC_RELEASE);
		r = raw_wait(in, i);
		if (i % BLOCK == 1) {
			uint64_t now = now_ns();

			if (i > 1)
				ns[i / BLOCK - 1] = now - start;
			start = now;
		}
	}
	if (!r)
		r = vfun_wait(b->v, ticket, &res, TIMEOUT_NS);
	if (r)
		return r;
	memcpy(&done, res.inline_result, sizeof(done));
	return res.reason || done != rounds ? -EIO : 0;
}

static int
compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Of one round trip, in nanoseconds. */
static double
median(uint64_t *ns, uint64_t n)
{
	uint64_t middle = n / 2;

	qsort(ns, n, sizeof(*ns), compare);
	return (double)ns[middle] / BLOCK;
}

static int
measure(struct bench *b)
{
	int mapped = vfun_out_arena(b->v) != NULL;
	int r = 0;

	b->null_ns = calloc(BATCHES * b->blocks, sizeof(*b->null_ns));
	b->raw_ns = calloc(BATCHES * b->blocks, sizeof(*b->raw_ns));
	if (!b->null_ns || !b->raw_ns)
		return -ENOMEM;
	for (uint64_t i = 0; !r && i < BATCHES; i++) {
		r = null_batch(b, b->null_ns + i * b->blocks);
		if (!r && mapped)
			r = raw_batch(b, b->raw_ns + i * b->blocks);
	}
	return r;
}

static void
report(struct bench *b)
{
	const char *path = vfun_path_name(vfun_path(b->v));
	int mapped = vfun_out_arena(b->v) != NULL;
	uint64_t n = BATCHES * b->blocks;
	double null_ns = median(b->null_ns, n);
	double raw_ns = mapped ? median(b->raw_ns, n) : 0;

	if (b->json) {
		printf("{\"path\":\"%s\",\"round_trips\":%llu,\"null_ns\":%.1f", path, (unsigned long long)n * BLOCK,
		    null_ns);
		if (mapped)
			printf(",\"raw_ns\":%.1f,\"ratio\":%.3f", raw_ns, null_ns / raw_ns);
		printf("}\n");
		return;
	}
	printf("path %s, median of %llu round trips, timed by %d\n", path, (unsigned long long)n * BLOCK, BLOCK);
	if (mapped)
		printf("  raw ping-pong, two cache lines  %10.1f ns\n", raw_ns);
	printf("  null call, one slot             %10.1f ns", null_ns);
	if (mapped)
		printf("   %.3f x raw", null_ns / raw_ns);
	printf("\n");
}

static int
parse(struct bench *b, int argc, char **argv)
{
	static const struct option options[] = { { "blocks", required_argument, NULL, 'n' },
		{ "path", required_argument, NULL, 'p' }, { "run", required_argument, NULL, 'r' },
		{ "json", no_argument, NULL, 'j' }, { NULL, 0, NULL, 0 } };
	int c;

	while ((c = getopt_long(argc, argv, "+j", options, NULL)) != -1) {
		if (c == 'n' && !cli_u64(optarg, &b->blocks) && b->blocks >= 1 && b->blocks <= 100000)
			continue;
		if (c == 'r')
			b->opt.run = optarg;
		else if (c == 'j')
			b->json = 1;
		else if (c == 'p' && !strcmp(optarg, "host"))
			b->opt.path = VFUN_PATH_IS_HOST;
		else if (c == 'p' && !strcmp(optarg, "dax"))
			b->opt.path = VFUN_PATH_IS_DAX;
		else if (c == 'p' && !strcmp(optarg, "copy"))
			b->opt.path = VFUN_PATH_IS_COPY;
		else
			return usage();
	}
	return optind == argc ? 0 : usage();
}

static int
latency(int argc, char **argv)
{
	struct bench b = { .opt = { .size = sizeof(b.opt), .slots = 1, .out_arena = VFUN_PAGE, .in_arena = VFUN_PAGE },
		.blocks = 0 };
	int r = parse(&b, argc, argv);

	if (r)
		return r;
	r = vfun_open(&b.v, "pingpong", &b.opt);
	if (r) {
		fprintf(stderr, "vfun bench: %s\n", vfun_text(b.v));
		vfun_close(b.v, NULL);
		return cli_status(r);
	}
	/* By copy a call takes some thousand times as long. */
	if (!b.blocks)
		b.blocks = vfun_out_arena(b.v) ? 200 : 1;
	r = measure(&b);
	if (r)
		fprintf(stderr, "vfun bench: %s\n",
		    r == -ETIMEDOUT   ? "no answer in time"
		    : *vfun_text(b.v) ? vfun_text(b.v)
				      : strerror(-r));
	else
		report(&b);
	vfun_close(b.v, NULL);
	free(b.null_ns);
	free(b.raw_ns);
	return r ? cli_status(r) : cli_flush("bench");
}

int
role_bench(int argc, char **argv)
{
	if (argc >= 2 && !strcmp(argv[1], "latency"))
		return latency(argc - 1, argv + 1);
	return usage();
}
