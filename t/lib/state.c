/* SPDX-License-Identifier: MIT
 *
 * state.c - a client of functions with state: total (t/programs) and filter (backends/examples)
 *
 *   state total PATH	several sets before a get, refused ones, rst, and another instance beside it
 *   state filter PATH	a stream in pieces of odd lengths, several under way, beside the same at once
 *
 * Says "ok", or what went wrong, with exit status 1.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../proto/vfun.h"

#define TIMEOUT 20000000000ull
#define TAPS 57u
#define SAMPLES 20000u

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
open_or_die(const char *function, const char *path)
{
	struct vfun_options o = { .size = sizeof(o), .out_arena = 1 << 20, .in_arena = 1 << 20, .slots = 8 };
	struct vfun *v;

	for (unsigned p = VFUN_PATH_AUTO; p <= VFUN_PATH_IS_NET; p++)
		if (!strcmp(path, vfun_path_name((enum vfun_path)p)))
			o.path = (enum vfun_path)p;
	if (vfun_open(&v, function, &o))
		die("%s can't be opened: %s", function, vfun_text(v));
	return v;
}

/* One call with one number, or none (-1): its reason has to be this, and its sentence. */
static struct vfun_result
call(struct vfun *v, enum vfun_cmd cmd, long arg, enum vfun_reason want, const char *sentence)
{
	const uint64_t a = (uint64_t)arg;
	struct vfun_result res;

	if (vfun_call(v, cmd, &a, arg >= 0, NULL, &res, TIMEOUT))
		die("%s", vfun_text(v));
	if (res.reason != want)
		die("command %u of %ld: %s", cmd, arg, vfun_reason_name(res.reason));
	if (sentence && !strstr(vfun_text(v), sentence))
		die("command %u of %ld: '%s'", cmd, arg, vfun_text(v));
	return res;
}

static void
expect(struct vfun *v, long times, uint64_t sum, uint64_t sets)
{
	struct vfun_result res = call(v, VFUN_CMD_GET, times, VFUN_OK, NULL);

	if (res.len != 16 || res.inline_word[0] != sum || res.inline_word[1] != sets)
		die("%llu of %llu instead of %llu of %llu", (unsigned long long)res.inline_word[0],
		    (unsigned long long)res.inline_word[1], (unsigned long long)sum, (unsigned long long)sets);
}

static void
total(const char *path)
{
	struct vfun *v = open_or_die("total", path);
	struct vfun *w = open_or_die("total", path);

	expect(v, 1, 0, 0);
	call(v, VFUN_CMD_SET, 3, VFUN_OK, NULL);
	call(v, VFUN_CMD_SET, 4, VFUN_OK, NULL);
	expect(v, -1, 7, 2);
	expect(v, 2, 14, 2);
	call(w, VFUN_CMD_SET, 50, VFUN_OK, NULL);
	call(v, VFUN_CMD_SET, 100, VFUN_OK, NULL);
	call(v, VFUN_CMD_SET, 101, VFUN_R_ARGUMENTS, "add: 101");
	call(v, VFUN_CMD_SET, 13, VFUN_R_ARGUMENTS, "13 brings bad luck");
	call(v, VFUN_CMD_SET, -1, VFUN_R_ARGUMENTS, "add");
	call(v, VFUN_CMD_GET, 11, VFUN_R_ARGUMENTS, "times: 11");
	expect(v, 1, 107, 3);
	expect(w, 1, 50, 1);
	call(v, VFUN_CMD_RST, -1, VFUN_OK, NULL);
	expect(v, 1, 0, 0);
	expect(w, 1, 50, 1);
	vfun_close(v, NULL);
	vfun_close(w, NULL);
	v = open_or_die("total", path);
	expect(v, 1, 0, 0);
	vfun_close(v, NULL);
}

static float sample[SAMPLES], filtered[SAMPLES], tap[TAPS];

/* Piece `at` of the stream, n samples, through room k of 8 in both arenas. */
static uint32_t
submit(struct vfun *v, unsigned k, unsigned at, unsigned n)
{
	const struct vfun_bulk b = { .in_off = k * 65536u, .in_len = n * 4, .out_off = k * 65536u, .out_len = n * 4 };
	uint32_t ticket;

	if (vfun_put(v, b.in_off, sample + at, b.in_len) || vfun_submit(v, VFUN_CMD_GET, NULL, 0, &b, &ticket))
		die("piece at %u: %s", at, vfun_text(v));
	return ticket;
}

static void
take(struct vfun *v, unsigned k, uint32_t ticket, unsigned at, unsigned n)
{
	struct vfun_result res;

	if (vfun_wait(v, ticket, &res, TIMEOUT) || res.reason || res.len != n * 4)
		die("piece at %u: %s", at, vfun_text(v));
	if (!res.bulk)
		memcpy(filtered + at, res.inline_result, n * 4);
	else if (vfun_fetch(v, k * 65536u, filtered + at, n * 4))
		die("piece at %u: %s", at, vfun_text(v));
}

/* Up to 8 pieces under way. */
static void
stream(struct vfun *v)
{
	unsigned at = 0;

	while (at < SAMPLES) {
		unsigned begin[8], len[8], n = 0;
		uint32_t ticket[8];

		for (; n < 8 && at < SAMPLES; at += len[n++]) {
			begin[n] = at;
			len[n] = 1 + at * 7 % 1500;
			if (len[n] > SAMPLES - at)
				len[n] = SAMPLES - at;
			ticket[n] = submit(v, n, at, len[n]);
		}
		for (unsigned i = 0; i < n; i++)
			take(v, i, ticket[i], begin[i], len[i]);
	}
	for (unsigned i = 0; i < SAMPLES; i++) {
		float sum = 0;

		for (unsigned k = 0; k < TAPS && k <= i; k++)
			sum += tap[k] * sample[i - k];
		if (fabsf(sum - filtered[i]) > 1e-3f)
			die("sample %u: %g instead of %g", i, (double)filtered[i], (double)sum);
	}
}

static void
filter(const char *path)
{
	struct vfun *v = open_or_die("filter", path);
	const struct vfun_bulk b = { .in_len = sizeof(tap) };
	struct vfun_result res;

	for (unsigned i = 0; i < TAPS; i++)
		tap[i] = (float)(i * 37 % 11) / 16 - 0.25f;
	for (unsigned i = 0; i < SAMPLES; i++)
		sample[i] = (float)(i * 2654435761u >> 20) / 4096;
	if (vfun_put(v, 0, tap, sizeof(tap)) || vfun_call(v, VFUN_CMD_SET, NULL, 0, &b, &res, TIMEOUT) || res.reason)
		die("taps: %s", vfun_text(v));
	stream(v);
	/* The taps go as well. */
	call(v, VFUN_CMD_RST, -1, VFUN_OK, NULL);
	if (vfun_put(v, 0, tap, sizeof(tap)) || vfun_call(v, VFUN_CMD_SET, NULL, 0, &b, &res, TIMEOUT) || res.reason)
		die("taps: %s", vfun_text(v));
	stream(v);
	vfun_close(v, NULL);
}

int
main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	(!strcmp(argv[1], "total") ? total : filter)(argv[2]);
	puts("ok");
	return 0;
}
