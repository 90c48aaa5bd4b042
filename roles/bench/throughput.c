/* SPDX-License-Identifier: MIT
 *
 * throughput.c - vfun bench throughput: calls per second by batch, bytes per second by block
 *
 * calls   null calls, so many in flight: submitted and taken in batches, one ring for each; beside one at a time.
 * bytes   a function over a block that lies in the arena; beside the same function on the same bytes in this process.
 *         That the service doesn't copy them shows in the memory that it had beside the arena at most, and in the bytes
 *         that it moved by system calls.
 *
 * Both sides of each ratio take turns in every round; what is reported is the median of the rounds.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../roles.h"
#include "bench.h"

#define ROUNDS_DEFAULT 7
#define BYTES_DEFAULT (64u << 20)
#define BYTES_MIN 4096u
#define BATCH_MAX 64
#define CALLS 6400		/* in a round: a multiple of every batch */
#define CALLS_SLOW 128		/* by a path that takes system calls */
#define SAMPLE_BYTES (4u << 20) /* a smaller block is computed several times in a round */

enum { WHERE, PATH, FUNCTION, UNIT, BATCH, BLOCK, TIMES, RATE, REFERENCE, REFERENCE_RATE, RATIO, PRIVATE, MOVED };

static const struct column columns[] = {
	{ "where", "where", KIND_TEXT, 0 },
	{ "path", "path", KIND_TEXT, 0 },
	{ "function", "function", KIND_TEXT, 0 },
	{ "unit", "a second", KIND_TEXT, 0 },
	{ "batch", "batch", KIND_COUNT, 0 },
	{ "block", "block", KIND_COUNT, 0 },
	{ "times", "times", KIND_COUNT, 0 },
	{ "rate", "rate", KIND_NUMBER, 0 },
	{ "reference", "beside", KIND_TEXT, 0 },
	{ "reference_rate", "rate", KIND_NUMBER, 0 },
	{ "ratio", "ratio", KIND_NUMBER, 3 },
	{ "service_private_bytes", "private", KIND_COUNT, 0 },
	{ "service_moved_bytes", "moved", KIND_COUNT, 0 },
	{ NULL, NULL, KIND_TEXT, 0 },
};

#define BATCHES 7
static const unsigned batches[BATCHES] = { 1, 2, 4, 8, 16, 32, 64 };

static int
lost(struct vfun *v, const char *what, int r)
{
	if (r == -EBADMSG)
		return bench_fail(EXIT_FUNCTION, "%s: a wrong answer", what);
	return bench_fail(EXIT_LOST, "%s: %s", what, *vfun_text(v) ? vfun_text(v) : strerror(-r));
}

static struct cell *
add_row(struct bench *b, const struct endpoint *e, const char *function, const char *unit)
{
	struct cell *c = table_row(&b->table);

	cell_text(&c[WHERE], "%s", e->where);
	cell_text(&c[PATH], "%s", e->path);
	cell_text(&c[FUNCTION], "%s", function);
	cell_text(&c[UNIT], "%s", unit);
	return c;
}

/* What should be the same in all rounds: single calls, and blocks in this process, each by their median. */
static double steadiness[4096];
static unsigned steadinesses;

static void
steady(double *rate, unsigned n)
{
	double median = stats_median(rate, n);

	for (unsigned i = 0; i < n && steadinesses < sizeof(steadiness) / sizeof(steadiness[0]); i++)
		steadiness[steadinesses++] = rate[i] / median;
}

/* Calls */

static int
right(const struct vfun_result *res, uint64_t want)
{
	return !res->reason && res->len == sizeof(want) && res->inline_word[0] == want;
}

/* Null calls, n in flight: as many answers as there are are taken at once, and as many requests submitted. */
static int
in_flight(struct vfun *v, unsigned n, unsigned calls)
{
	struct vfun_done done[BATCH_MAX] = { 0 };
	uint64_t want[BATCH_MAX] = { 0 };
	unsigned submitted = 0;
	unsigned taken = 0;

	while (taken < calls) {
		uint32_t ticket;
		int r = 0;

		for (; submitted < calls && submitted - taken < n; submitted++) {
			const uint64_t arg = submitted;

			r = vfun_submit(v, VFUN_CMD_ECHO, &arg, 1, NULL, &ticket);
			if (r)
				break;
			want[ticket % BATCH_MAX] = arg;
		}
		/* -EAGAIN: the slot whose turn it is isn't free yet, though others are. */
		if (!r || r == -EAGAIN)
			r = vfun_reap(v, done, BATCH_MAX, BENCH_TIMEOUT_NS);
		if (r <= 0)
			return r ? r : -EBADMSG;
		for (int i = 0; i < r; i++)
			if (!right(&done[i].result, want[done[i].ticket % BATCH_MAX]))
				return -EBADMSG;
		taken += (unsigned)r;
	}
	return 0;
}

static int
one_at_a_time(struct vfun *v, unsigned calls)
{
	int r = 0;

	for (uint64_t i = 0; !r && i < calls; i++) {
		struct vfun_result res;

		r = vfun_call(v, VFUN_CMD_ECHO, &i, 1, NULL, &res, BENCH_TIMEOUT_NS);
		if (!r && !right(&res, i))
			r = -EBADMSG;
	}
	return r;
}

static int
calls_of(struct bench *b, const struct endpoint *e)
{
	const unsigned calls = e->mapped ? CALLS : CALLS_SLOW;
	double *rate[BATCHES];
	double one;
	int r = 0;

	for (unsigned k = 0; k < BATCHES; k++)
		rate[k] = bench_alloc(b->rounds, sizeof(double));
	for (unsigned round = 0; !r && round < b->rounds; round++)
		for (unsigned k = 0; !r && k < BATCHES; k++) {
			uint64_t start;

			r = one_at_a_time(e->v, 1); /* wakes the service up */
			start = bench_ns();
			if (!r)
				r = batches[k] == 1 ? one_at_a_time(e->v, calls) : in_flight(e->v, batches[k], calls);
			rate[k][round] = calls / ((double)(bench_ns() - start) / 1e9);
			progress_step(1);
		}
	one = r ? 0 : stats_median(rate[0], (unsigned)b->rounds);
	steady(rate[0], r ? 0 : (unsigned)b->rounds);
	for (unsigned k = 0; k < BATCHES; k++) {
		if (!r) {
			struct cell *c = add_row(b, e, "null call", "calls");

			cell_number(&c[BATCH], batches[k]);
			cell_number(&c[TIMES], (double)b->rounds * calls);
			cell_number(&c[RATE], stats_median(rate[k], (unsigned)b->rounds));
			cell_text(&c[REFERENCE], "batch 1");
			cell_number(&c[REFERENCE_RATE], one);
			cell_number(&c[RATIO], c[RATE].number / one);
		}
		free(rate[k]);
	}
	return r ? lost(e->v, "null calls", r) : 0;
}

static int
all_calls(struct bench *b)
{
	const struct vfun_options o = { .slots = BATCH_MAX, .out_arena = VFUN_PAGE, .in_arena = VFUN_PAGE };
	struct endpoint e[4];
	int n = endpoints_open(b, e, 4, "pingpong", &o);
	int r = 0;

	if (n < 0)
		return -n;
	progress_begin(b, b->in_guest ? "guest, calls" : "host, calls", (double)(b->rounds * BATCHES) * n);
	for (int i = 0; !r && i < n; i++)
		r = calls_of(b, &e[i]);
	progress_end();
	endpoints_close(e, (unsigned)n);
	return r;
}

/* Bytes */

struct stream {
	struct bench *b;
	const char *function;
	struct endpoint e;
	struct local local;
	uint8_t *data; /* b->bytes of them */
	uint64_t block;
	struct backend_result expected;
	pid_t service; /* 0: not known, or another process moves the bytes */
};

/* Numbers that don't compress, and whose every block differs. */
static void
fill(uint8_t *data, uint64_t len)
{
	uint64_t x = 1;

	for (uint64_t i = 0; i + sizeof(x) <= len; i += sizeof(x)) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		memcpy(data + i, &x, sizeof(x));
	}
}

static int
one_block(struct stream *s)
{
	const struct vfun_bulk bulk = { .in_len = s->block };
	struct vfun_result res;
	/* By files, bringing the bytes there is a part of the call. */
	int r = strcmp(s->e.path, "copy") ? 0 : vfun_put(s->e.v, 0, s->data, s->block);

	if (!r)
		r = vfun_call(s->e.v, VFUN_CMD_GET, NULL, 0, &bulk, &res, BENCH_TIMEOUT_NS);
	if (r)
		return r;
	if (res.reason || res.len != s->expected.len ||
	    memcmp(res.inline_result, s->expected.inline_bytes, res.len) != 0)
		return -EBADMSG;
	return 0;
}

static const uint64_t once = 1; /* reps: of a call through vfun, the signature's default */

static int
local_block(struct stream *s)
{
	struct backend_result res;
	int r = local_call(&s->local, &once, 1, s->data, s->block, &res);

	if (r)
		return r;
	return memcmp(res.inline_bytes, s->expected.inline_bytes, s->expected.len) ? -EBADMSG : 0;
}

/* Bytes per second of `times` blocks. */
static int
timed(struct stream *s, int (*fn)(struct stream *s), unsigned times, double *rate)
{
	uint64_t start = bench_ns();
	int r = 0;

	for (unsigned i = 0; !r && i < times; i++)
		r = fn(s);
	*rate = (double)s->block * times / ((double)(bench_ns() - start) / 1e9);
	return r;
}

static void
add_copies(const struct stream *s, struct cell *c, double before)
{
	double peak = s->service ? process_private_peak(s->service) : -1;
	double moved = s->service ? process_moved(s->service) : -1;

	if (peak >= 0)
		cell_number(&c[PRIVATE], peak);
	if (moved >= 0 && before >= 0)
		cell_number(&c[MOVED], moved - before);
}

static int
block_of(struct stream *s)
{
	double moved = s->service ? process_moved(s->service) : -1;
	unsigned rounds = (unsigned)s->b->rounds;
	unsigned times = s->block < SAMPLE_BYTES && s->e.mapped ? (unsigned)(SAMPLE_BYTES / s->block) : 1;
	double *rate = bench_alloc(rounds, sizeof(*rate));
	double *local = bench_alloc(rounds, sizeof(*local));
	int r = local_call(&s->local, &once, 1, s->data, s->block, &s->expected);

	for (unsigned i = 0; !r && i < rounds; i++) {
		r = one_block(s); /* wakes the service up */
		if (!r)
			r = timed(s, one_block, times, &rate[i]);
		if (!r)
			r = timed(s, local_block, times, &local[i]);
		progress_step((double)s->block);
	}
	steady(local, r ? 0 : rounds);
	if (!r) {
		struct cell *c = add_row(s->b, &s->e, s->function, "bytes");

		cell_number(&c[BATCH], 1);
		cell_number(&c[BLOCK], (double)s->block);
		cell_number(&c[TIMES], (double)rounds * times);
		cell_number(&c[RATE], stats_median(rate, rounds));
		cell_text(&c[REFERENCE], "in-process");
		cell_number(&c[REFERENCE_RATE], stats_median(local, rounds));
		cell_number(&c[RATIO], c[RATE].number / c[REFERENCE_RATE].number);
		add_copies(s, c, moved);
	}
	free(rate);
	free(local);
	return r ? lost(s->e.v, s->function, r) : 0;
}

/* 4 KiB, 64 KiB, 1 MiB, 16 MiB, and the largest. */
static uint64_t
next_block(const struct bench *b, uint64_t block)
{
	if (block == b->bytes)
		return 0;
	return block * 16 < b->bytes ? block * 16 : b->bytes;
}

static int
blocks_by(struct bench *b, const struct endpoint *e, const char *function, uint8_t *data)
{
	struct stream s = {
		.b = b, .function = function, .e = *e, .data = data, .service = e->mapped ? process_of(b, e) : 0
	};
	int r = local_open(&s.local, function);

	if (!r && strcmp(e->path, "copy") != 0)
		r = vfun_put(e->v, 0, data, b->bytes);
	if (r)
		return lost(e->v, function, r);
	for (s.block = BYTES_MIN; !r && s.block; s.block = next_block(b, s.block))
		r = block_of(&s);
	local_close(&s.local);
	return r;
}

static int
blocks_of(struct bench *b, const char *function, uint8_t *data)
{
	const struct vfun_options o = { .slots = 1, .out_arena = b->bytes, .in_arena = VFUN_PAGE };
	struct endpoint e[4];
	int n = endpoints_open(b, e, 4, function, &o);
	double sum = 0;
	int r = 0;

	if (n < 0)
		return -n;
	for (uint64_t block = BYTES_MIN; block; block = next_block(b, block))
		sum += (double)block;
	progress_begin(b, function, sum * (double)b->rounds * n);
	for (int i = 0; !r && i < n; i++)
		r = blocks_by(b, &e[i], function, data);
	progress_end();
	endpoints_close(e, (unsigned)n);
	return r;
}

int
bench_throughput(struct bench *b)
{
	char rounds[24];
	char bytes[24];
	const char *const args[] = { "--rounds", rounds, "--bytes", bytes, NULL };
	uint8_t *data;
	int r;

	if (!b->rounds)
		b->rounds = ROUNDS_DEFAULT;
	if (!b->bytes)
		b->bytes = BYTES_DEFAULT;
	snprintf(rounds, sizeof(rounds), "%llu", (unsigned long long)b->rounds);
	snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)b->bytes);
	data = bench_alloc(b->bytes, 1);
	fill(data, b->bytes);
	table_init(&b->table, columns);
	r = all_calls(b);
	if (!r)
		r = blocks_of(b, "sha256", data);
	if (!r)
		r = blocks_of(b, "checksum", data);
	free(data);
	machine_spread(b, "rounds", steadiness, steadinesses);
	if (!r)
		r = bench_guest(b, args, NULL, NULL, NULL);
	if (r)
		return r;
	machine_end(b, 2);
	return report(b, NULL);
}
