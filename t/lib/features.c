/* SPDX-License-Identifier: MIT
 *
 * features.c - a client for t/features.t: what version 1.4 of the protocol added
 *
 *   features order PATH      SET, GET and RST in one batch, again and again: each GET has its own SET's arguments
 *   features ordered PATH    a call that carries ORDERED begins after all earlier ones
 *   features cancel PATH     a call is cancelled while it is computed, one before, one when it is too late
 *   features limit PATH      a call is ended by its own limit
 *   features forget PATH     calls that timed out: their slots come back, and their late answers disturb nobody
 *   features poll            answers and the instance's end by poll(2)
 *   features end             the same end, of an instance that somebody else ends: waits for it
 *   features skip            a position is skipped
 *   features early           a slot is used again before its answer was there
 *   features limits PATH     what the grant says of limits
 *
 * Says "ok ..." and exits with 0, or says what went wrong and exits with 1.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../proto/client.h"

#define SECOND 1000000000ull
#define TIMEOUT (60 * SECOND)
#define ENDLESS 1000000000000ull /* repetitions */
#define ARENA 65536u

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

static enum vfun_path
path_of(const char *name)
{
	for (unsigned p = VFUN_PATH_AUTO; p <= VFUN_PATH_IS_NET; p++)
		if (!strcmp(name, vfun_path_name((enum vfun_path)p)))
			return (enum vfun_path)p;
	die("path '%s'?", name);
}

static struct vfun *
open_or_die(const char *path, unsigned slots, unsigned pollable)
{
	struct vfun_options o = { .size = sizeof(o), .path = path_of(path), .slots = slots, .pollable = pollable,
		.out_arena = ARENA, .in_arena = ARENA };
	struct vfun *v;
	int r = vfun_open(&v, "factorial", &o);

	if (r)
		die("factorial can't be opened: %s (%s)", vfun_text(v), strerror(-r));
	return v;
}

static uint64_t
factorial(uint64_t n)
{
	uint64_t r = 1;

	for (uint64_t i = 2; i <= n; i++)
		r *= i;
	return r;
}

static uint32_t
submit(struct vfun *v, enum vfun_cmd cmd, const uint64_t *args, unsigned nargs)
{
	uint32_t ticket;
	int r = vfun_submit(v, cmd, args, nargs, NULL, &ticket);

	if (r)
		die("submit: %s", strerror(-r));
	return ticket;
}

/* A call that ends only if it is made to. */
static uint32_t
endless(struct vfun *v)
{
	return submit(v, VFUN_CMD_GET, (const uint64_t[]){ 20, ENDLESS }, 2);
}

static enum vfun_reason
reason_of(struct vfun *v, uint32_t ticket)
{
	struct vfun_result res;
	int r = vfun_wait(v, ticket, &res, TIMEOUT);

	if (r)
		die("wait: %s: %s", strerror(-r), vfun_text(v));
	return res.reason;
}

static void
want(enum vfun_reason got, enum vfun_reason wanted, const char *what)
{
	if (got != wanted)
		die("%s: %s instead of %s", what, vfun_reason_name(got), vfun_reason_name(wanted));
}

static void
want_factorial(struct vfun *v, uint32_t ticket, uint64_t n)
{
	struct vfun_result res;
	uint64_t got = 0;
	int r = vfun_wait(v, ticket, &res, TIMEOUT);

	if (r)
		die("wait: %s: %s", strerror(-r), vfun_text(v));
	want(res.reason, VFUN_OK, "a call");
	memcpy(&got, res.inline_result, res.len < 8 ? res.len : 8);
	if (got != factorial(n))
		die("%llu! is %llu", (unsigned long long)n, (unsigned long long)got);
}

static void
works(struct vfun *v)
{
	for (uint64_t n = 1; n <= 2u * vfun_granted(v)->slots; n++)
		want_factorial(v, submit(v, VFUN_CMD_GET, &(uint64_t){ n % 20 }, 1), n % 20);
}

static int
done(struct vfun *v)
{
	printf("ok path %s, %u workers\n", vfun_path_name(vfun_path(v)), vfun_granted(v)->workers);
	return vfun_close(v, NULL) != 0;
}

static int
order(const char *path)
{
	struct vfun *v = open_or_die(path, 64, 0);
	uint32_t ticket[64];

	for (unsigned round = 0; round < 300; round++) {
		/* Some take longer than others. */
		for (unsigned i = 0; i < 64; i += 2) {
			ticket[i] = submit(v, VFUN_CMD_SET, (const uint64_t[]){ (round + i) % 20, 1 + i * 7 % 40 }, 2);
			ticket[i + 1] = i % 16 == 14 ? submit(v, VFUN_CMD_RST, NULL, 0)
						     : submit(v, VFUN_CMD_GET, NULL, 0);
		}
		for (unsigned i = 0; i < 64; i += 2) {
			want(reason_of(v, ticket[i]), VFUN_OK, "SET");
			if (i % 16 == 14)
				want(reason_of(v, ticket[i + 1]), VFUN_OK, "RST");
			else
				want_factorial(v, ticket[i + 1], (round + i) % 20);
		}
		want(reason_of(v, submit(v, VFUN_CMD_GET, NULL, 0)), VFUN_R_NO_DATA, "GET after RST");
	}
	return done(v);
}

/* Publish a request by hand at the handle's next position. */
static void
publish(struct vfun *v, uint32_t position, uint64_t head, uint64_t arg)
{
	uint64_t *line = (uint64_t *)(void *)(v->out.map + region_slot(v, position));

	line[1] = arg;
	line[2] = 1;
	__atomic_store_n(line, head, __ATOMIC_RELEASE);
}

static int
is_answered(struct vfun *v, uint32_t position)
{
	const uint32_t *seq = (const uint32_t *)(const void *)(v->in.map + region_slot(v, position));

	return __atomic_load_n(seq, __ATOMIC_ACQUIRE) == position + 1;
}

static int
ordered(const char *path)
{
	struct vfun *v = open_or_die(path, 16, 0);
	uint32_t first = endless(v);
	uint32_t p = v->next;

	/* The one that is ordered waits for the endless call; others of its kind don't. */
	for (uint32_t i = 0; i < 4; i++)
		publish(v, p + i,
		    vfun_request_head(p + i + 1, VFUN_CMD_GET, i == 2 ? VFUN_SLOT_ORDERED : 0, 8, 0), 5);
	vfun_ring(v);
	for (unsigned ms = 0; ms < 20000 && !(is_answered(v, p) && is_answered(v, p + 1)); ms++)
		usleep(1000);
	usleep(100000);
	if (!is_answered(v, p) || !is_answered(v, p + 1) || is_answered(v, p + 2))
		die("answered: %d %d %d", is_answered(v, p), is_answered(v, p + 1), is_answered(v, p + 2));
	if (vfun_cancel(v, first))
		die("cancel: %s", vfun_text(v));
	for (unsigned ms = 0; ms < 20000 && !is_answered(v, p + 2); ms++)
		usleep(1000);
	if (!is_answered(v, p + 2))
		die("the ordered call isn't answered when the first one is");
	return done(v);
}

static int
cancel(const char *path)
{
	struct vfun *v = open_or_die(path, 16, 0);

	for (unsigned i = 0; i < 20; i++) {
		unsigned workers = vfun_granted(v)->workers;
		uint32_t first = endless(v);
		uint32_t other[16];

		for (unsigned w = 1; w < workers; w++)
			other[w] = endless(v);
		other[0] = submit(v, VFUN_CMD_GET, (const uint64_t[]){ 20, 1 }, 2);
		vfun_ring(v);
		usleep(i * 500);
		if (vfun_cancel(v, other[0]) || vfun_cancel(v, first))
			die("cancel: %s", vfun_text(v));
		want(reason_of(v, first), VFUN_R_CANCELLED, "cancelled while it is computed");
		want(reason_of(v, other[0]), VFUN_R_CANCELLED, "cancelled before it");
		for (unsigned w = 1; w < workers; w++) {
			if (vfun_cancel(v, other[w]))
				die("cancel: %s", vfun_text(v));
			want(reason_of(v, other[w]), VFUN_R_CANCELLED, "cancelled");
		}
		works(v);
	}
	if (vfun_cancel(v, v->next - 1) != -EINVAL || vfun_cancel(v, v->next) != -EINVAL)
		die("a call that isn't pending can be cancelled");
	/* A SET isn't skipped, or the GET behind it would have other arguments. */
	for (unsigned i = 0; i < 20; i++) {
		uint32_t first = endless(v), set = submit(v, VFUN_CMD_SET, &(uint64_t){ i % 20 }, 1);
		uint32_t get = submit(v, VFUN_CMD_GET, NULL, 0);

		vfun_ring(v);
		if (vfun_cancel(v, set) || vfun_cancel(v, first))
			die("cancel: %s", vfun_text(v));
		want(reason_of(v, first), VFUN_R_CANCELLED, "cancelled");
		want(reason_of(v, set), VFUN_OK, "a SET that is cancelled");
		want_factorial(v, get, i % 20);
	}
	return done(v);
}

static int
limit(const char *path)
{
	struct vfun *v = open_or_die(path, 16, 0);
	uint32_t ticket;

	for (unsigned i = 0; i < 5; i++) {
		if (vfun_limit(v, SECOND / 100))
			die("limit: %s", vfun_text(v));
		ticket = endless(v);
		want(reason_of(v, ticket), VFUN_R_LIMIT, "a call with a limit");
		/* One that is given to a single call, by the caller's clock, and isn't reached. */
		if (vfun_limit(v, TIMEOUT))
			die("limit: %s", vfun_text(v));
		works(v);
	}
	vfun_limit(v, 0);
	works(v);
	return done(v);
}

static int
forget(const char *path)
{
	struct vfun *v = open_or_die(path, 8, 0);
	struct vfun_buffer room;
	struct vfun_result res;

	if (vfun_room(v, &room, 8192))
		die("room");
	for (unsigned i = 0; i < 20; i++) {
		struct vfun_bulk b = { .out_off = room.off, .out_len = room.len };
		uint32_t ticket;
		uint64_t before = 0;

		/* The result of this one is as long as the other's, and goes to the same place. */
		if (vfun_call(v, VFUN_CMD_GET, (const uint64_t[]){ 900, ENDLESS }, 2, &b, &res, SECOND / 200) != -ETIMEDOUT)
			die("an endless call came to an end");
		if (vfun_submit(v, VFUN_CMD_GET, (const uint64_t[]){ 901, 1 }, 2, &b, &ticket) ||
		    vfun_wait(v, ticket, &res, TIMEOUT) || res.reason || !res.bulk)
			die("the next call: %s", vfun_text(v));
		/* While the other one's end is awaited, the room is shared only in order. */
		if (v->forgotten && !(v->out.map[region_slot(v, ticket) + 5] & VFUN_SLOT_ORDERED))
			die("a call may overtake a forgotten one that has its room");
		memcpy(&before, (const uint8_t *)vfun_result_data(&res, &room) + 800, 8);
		usleep(1000);
		/* Nothing came into the room afterwards. */
		if (vfun_call(v, VFUN_CMD_GET, (const uint64_t[]){ 901, 1 }, 2, &b, &res, TIMEOUT) ||
		    memcmp(&before, (const uint8_t *)vfun_result_data(&res, &room) + 800, 8))
			die("another result: %s", vfun_text(v));
		works(v);
	}
	if (v->forgotten)
		die("%u slots are lost", v->forgotten);
	return done(v);
}

static int
readable(struct vfun *v, int ms)
{
	struct pollfd p = { .fd = vfun_fd(v), .events = POLLIN };

	return poll(&p, 1, ms) > 0;
}

static int
poll_(void)
{
	struct vfun *v = open_or_die("host", 16, 1);
	struct vfun_done d[16];
	unsigned slept = 0;

	for (uint64_t i = 0; i < 200; i++) {
		unsigned n = 0;

		for (unsigned k = 0; k < 8; k++)
			submit(v, VFUN_CMD_GET, (const uint64_t[]){ 20, 1 + i * 50 }, 2);
		while (n < 8) {
			int r = vfun_arm(v);

			if (r < 0)
				die("arm: %s", vfun_text(v));
			if (!r && ++slept && !readable(v, 20000))
				die("an answer that poll() doesn't tell of, round %llu", (unsigned long long)i);
			r = vfun_reap(v, d, 16, 0);
			if (r < 0 && r != -ETIMEDOUT)
				die("reap: %s", vfun_text(v));
			n += r > 0 ? (unsigned)r : 0;
		}
	}
	if (!slept)
		die("never slept");
	if (vfun_arm(v) || readable(v, 100))
		die("readable without an answer");
	return done(v);
}

static int
end(void)
{
	struct vfun *v = open_or_die("host", 16, 1);
	struct vfun_result res;
	uint32_t ticket = submit(v, VFUN_CMD_GET, (const uint64_t[]){ 20, 1 }, 2);
	int r;

	vfun_ring(v);
	while (!is_answered(v, ticket))
		usleep(1000);
	if (vfun_wait(v, ticket, &res, 0))
		die("no answer");
	ticket = endless(v);
	if (vfun_arm(v))
		die("arm: %s", vfun_text(v));
	printf("ready\n");
	fflush(stdout);
	if (!readable(v, 30000))
		die("the end isn't told");
	for (unsigned i = 0; (r = vfun_arm(v)) == 0 && i < 5000; i++)
		usleep(1000);
	if (r != -ECONNRESET)
		die("arm: %d", r);
	if (vfun_wait(v, ticket, &res, TIMEOUT) != -ECONNRESET)
		die("an answer after the end");
	printf("ok %s\n", vfun_text(v));
	return 0;
}

static int
out_of_turn(uint32_t ahead)
{
	struct vfun *v = open_or_die("host", 16, 0);
	const volatile struct vfun_hdr *h = (const volatile struct vfun_hdr *)(const volatile void *)v->in.map;
	struct vfun_result res;
	uint32_t ticket;

	works(v);
	publish(v, v->next + ahead, vfun_request_head(v->next + ahead + 1, VFUN_CMD_GET, 0, 8, 0), 5);
	vfun_ring(v);
	for (unsigned ms = 0; ms < 20000 && !h->gone; ms++)
		usleep(1000);
	if (h->gone != VFUN_R_SLOT_SEQ)
		die("the instance isn't ended: %u", h->gone);
	if (ahead < 16) {
		v->out.map[region_slot(v, v->next)] = 0;
		vfun_submit(v, VFUN_CMD_GET, &(uint64_t){ 5 }, 1, NULL, &ticket);
		if (vfun_wait(v, ticket, &res, TIMEOUT) != -ECONNRESET || vfun_reason(v) != VFUN_R_SLOT_SEQ)
			die("the client isn't told: %s", vfun_text(v));
		printf("ok %s\n", vfun_text(v));
	} else {
		printf("ok\n");
	}
	vfun_close(v, NULL);
	return 0;
}

static int
limits(const char *path)
{
	struct vfun *v = open_or_die(path, 4, 0);
	const struct vfun_grant *g = vfun_granted(v);

	printf("ok slots %u, arena %llu, call %u ms, memory %llu, instances %u of %u, features %llu, grant %u s\n",
	    g->slots_max, (unsigned long long)g->arena_max, g->call_ms, (unsigned long long)g->memory_max,
	    g->instances_left, g->instances_max, (unsigned long long)g->features, g->grant_s);
	vfun_close(v, NULL);
	return 0;
}

int
main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(const char *path);
	} with_path[] = { { "order", order }, { "ordered", ordered }, { "cancel", cancel }, { "limit", limit },
		{ "forget", forget }, { "limits", limits } };

	for (unsigned i = 0; argc == 3 && i < sizeof(with_path) / sizeof(with_path[0]); i++)
		if (!strcmp(argv[1], with_path[i].name))
			return with_path[i].run(argv[2]);
	if (argc == 2 && !strcmp(argv[1], "poll"))
		return poll_();
	if (argc == 2 && !strcmp(argv[1], "end"))
		return end();
	if (argc == 2 && !strcmp(argv[1], "skip"))
		return out_of_turn(1);
	if (argc == 2 && !strcmp(argv[1], "early"))
		return out_of_turn(16);
	die("features: what?");
}
