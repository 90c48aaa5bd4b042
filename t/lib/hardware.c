/* SPDX-License-Identifier: MIT
 *
 * hardware.c - a client of functions in hardware, for t/xrt.t: on the host and in a guest
 *
 *   hardware same PATH COUNT SEED   factorial and fibonacci of random numbers: hardware and software give the same
 *   hardware vadd PATH COUNT SEED   sums of random lengths, in flight together, anywhere in the arenas, input kept
 *   hardware load PATH SECONDS      factorials without pause, every one checked
 *   hardware last PATH              factorial(300), and the instance is given up with the result on the device
 *
 * Says "ok ..." on standard output and exits with 0, or says what went wrong and exits with 1.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../proto/client.h"

#define SECOND 1000000000ull
#define TIMEOUT (30 * SECOND)
#define FACTORIAL_MAX 300u
#define FIBONACCI_MAX 2900u
#define SLOTS 8u
#define PART (256u << 10) /* of each arena, for a call */

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

static void
die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	exit(1);
}

static struct vfun *
open_or_die(const char *function, enum vfun_target target, const char *path, uint64_t out_arena, uint64_t in_arena)
{
	struct vfun_options o = { .size = sizeof(o),
		.target = target,
		.slots = SLOTS,
		.out_arena = out_arena,
		.in_arena = in_arena,
		.timeout_ms = 30000 };
	struct vfun *v;

	for (unsigned p = VFUN_PATH_AUTO; p <= VFUN_PATH_IS_NET; p++)
		if (!strcmp(path, vfun_path_name((enum vfun_path)p)))
			o.path = (enum vfun_path)p;
	if (vfun_open(&v, function, &o))
		die("%s can't be opened: %s", function, vfun_text(v));
	if (vfun_granted(v)->target != target)
		die("%s: not the target that was asked for", function);
	return v;
}

/* A number of any length, as it comes. */
struct number {
	uint64_t len;
	uint8_t bytes[512];
};

static void
call_number(struct vfun *v, uint64_t n, struct number *out)
{
	const struct vfun_bulk room = { .out_len = sizeof(out->bytes) };
	struct vfun_result res;
	int r = vfun_call(v, VFUN_CMD_GET, &n, 1, &room, &res, TIMEOUT);

	if (r || res.reason)
		die("of %llu: %s, %s", (unsigned long long)n, r ? vfun_text(v) : "an answer", vfun_reason_name(res.reason));
	memset(out, 0, sizeof(*out));
	out->len = res.len;
	if (!res.bulk)
		memcpy(out->bytes, res.inline_result, res.len);
	else if (vfun_fetch(v, 0, out->bytes, res.len))
		die("the result can't be fetched");
}

static int
same(const char *path, unsigned count)
{
	static const char *const names[] = { "factorial", "fibonacci" };
	static const unsigned most[] = { FACTORIAL_MAX, FIBONACCI_MAX };

	for (unsigned f = 0; f < 2; f++) {
		struct vfun *hard = open_or_die(names[f], VFUN_TARGET_HARDWARE, path, 0, 4096);
		struct vfun *soft = open_or_die(names[f], VFUN_TARGET_SOFTWARE, path, 0, 4096);

		for (unsigned i = 0; i < count; i++) {
			uint64_t n = (uint64_t)rand() % (most[f] + 1);
			struct number a, b;

			call_number(hard, n, &a);
			call_number(soft, n, &b);
			if (memcmp(&a, &b, sizeof(a)))
				die("%s of %llu differs", names[f], (unsigned long long)n);
		}
		if (vfun_close(hard, NULL) || vfun_close(soft, NULL))
			die("release fails");
	}
	printf("ok %u of each\n", count);
	return 0;
}

/* One of several sums in flight: its own part of the arenas, whose contents are kept in `words`. */
struct sum {
	uint32_t ticket;
	uint32_t n;
	struct vfun_bulk bulk;
	uint32_t words[2 * 20000];
};

static void
submit_sum(struct vfun *v, struct sum *s, unsigned i)
{
	s->n = 2 * (1 + (uint32_t)rand() % 10000);
	s->bulk.in_off = (uint64_t)i * PART + (uint64_t)(rand() % 100) * 8;
	s->bulk.in_len = 8ull * s->n;
	s->bulk.out_off = (uint64_t)i * PART + (uint64_t)(rand() % 100) * 64;
	s->bulk.out_len = 4ull * s->n + (uint64_t)(rand() % 100);
	for (uint32_t k = 0; k < 2 * s->n; k++)
		s->words[k] = (uint32_t)rand() * 5u;
	if (vfun_put(v, s->bulk.in_off, s->words, s->bulk.in_len) ||
	    vfun_submit(v, VFUN_CMD_GET, NULL, 0, &s->bulk, &s->ticket))
		die("submitting a sum fails");
}

static void
check_sum(struct vfun *v, struct sum *s)
{
	static uint32_t got[20000];
	struct vfun_result res;
	int r = vfun_wait(v, s->ticket, &res, TIMEOUT);

	if (r || res.reason || !res.bulk || res.len != 4ull * s->n)
		die("a sum of %u words: %s, %s, %llu bytes", s->n, r ? vfun_text(v) : "an answer",
		    vfun_reason_name(res.reason), (unsigned long long)res.len);
	if (vfun_fetch(v, s->bulk.out_off, got, res.len))
		die("the sum can't be fetched");
	for (uint32_t k = 0; k < s->n; k++)
		if (got[k] != s->words[k] + s->words[s->n + k])
			die("word %u of %u is wrong", k, s->n);
	if (vfun_out_arena(v) &&
	    memcmp((const uint8_t *)vfun_out_arena(v) + s->bulk.in_off, s->words, s->bulk.in_len))
		die("the input was changed");
}

static int
vadd(const char *path, unsigned count)
{
	struct vfun *v = open_or_die("vadd", VFUN_TARGET_HARDWARE, path, SLOTS * PART, SLOTS * PART);
	static struct sum sum[SLOTS];

	for (unsigned done = 0; done < count; done += SLOTS) {
		for (unsigned i = 0; i < SLOTS; i++)
			submit_sum(v, &sum[i], i);
		for (unsigned i = SLOTS; i-- > 0;)
			check_sum(v, &sum[i]);
	}
	if (vfun_close(v, NULL))
		die("release fails");
	printf("ok %u sums\n", count);
	return 0;
}

static int
load(const char *path, unsigned seconds)
{
	struct vfun *v = open_or_die("factorial", VFUN_TARGET_HARDWARE, path, 0, 4096);
	time_t end = time(NULL) + (time_t)seconds;
	unsigned calls = 0;

	/* The factorial's trailing zero bits: n less the ones in n. */
	while (time(NULL) < end) {
		uint64_t n = 20 + (uint64_t)rand() % 200;
		struct number a;
		unsigned zeros = 0;

		call_number(v, n, &a);
		while (zeros < 8 * a.len && !(a.bytes[zeros / 8] >> zeros % 8 & 1))
			zeros++;
		if (zeros != n - (unsigned)__builtin_popcountll(n))
			die("factorial of %llu is wrong", (unsigned long long)n);
		calls++;
	}
	if (vfun_close(v, NULL))
		die("release fails");
	printf("ok %u calls\n", calls);
	return 0;
}

static int
last(const char *path)
{
	struct vfun *v = open_or_die("factorial", VFUN_TARGET_HARDWARE, path, 0, 4096);
	struct number a;

	call_number(v, FACTORIAL_MAX, &a);
	printf("ok %llu bytes\n", (unsigned long long)a.len);
	return vfun_close(v, NULL) ? 1 : 0;
}

int
main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	unsigned count = argc > 3 ? (unsigned)atoi(argv[3]) : 0;

	srand(argc > 4 ? (unsigned)atoi(argv[4]) : 1);
	if (!strcmp(what, "same"))
		return same(argv[2], count);
	if (!strcmp(what, "vadd"))
		return vadd(argv[2], count);
	if (!strcmp(what, "load"))
		return load(argv[2], count);
	if (!strcmp(what, "last"))
		return last(argv[2]);
	die("hardware same|vadd|load|last PATH ...");
}
