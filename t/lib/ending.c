/* SPDX-License-Identifier: MIT
 *
 * ending.c - a client whose instance somebody ends: what it reads is right, or an error, and never anything else
 *
 *   ending read PATH           takes its answers, and reads the results when the instance has ended
 *   ending answered PATH       takes answers when the instance has ended that were given before
 *   ending batch PATH          gathers batches of slow calls until the instance ends in the middle of one
 *   ending storm PATH CALLS    makes so many calls over as many instances as it takes
 *
 * PATH is a path's name. Says "ready" when it may be ended, then "ok" and how many calls it made; or what went wrong,
 * with exit status 1.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../proto/vfun.h"

#define TIMEOUT 20000000000ull
#define SLOTS 256
#define N 16
#define ROOM 4096u
#define FIRST 900u /* factorials of it and the next ones: some 2000 bits, in their rooms */
#define TRIES 3000

static struct vfun *v;
static enum vfun_path path;
static uint8_t right[N][ROOM]; /* what the answers are */
static uint64_t right_len[N];
static struct vfun_bulk bulk[N];
static unsigned long calls;

static void
wrong(const char *what)
{
	printf("%s: %s\n", what, v ? vfun_text(v) : "");
	exit(1);
}

static void
nap(long ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

/* 0, or -errno where vfund is there and refuses, or has just replaced something. */
static int
open_instance(void)
{
	struct vfun_options o = {
		.size = sizeof(o), .path = path, .slots = SLOTS, .in_arena = N * ROOM, .timeout_ms = 20000
	};
	int r = vfun_open(&v, "factorial", &o);

	for (unsigned i = 0; i < N; i++)
		bulk[i] = (struct vfun_bulk){ .out_off = i * ROOM, .out_len = ROOM };
	return r;
}

/* A call whose result lies in room i. */
static int
submit(unsigned i, uint64_t reps, uint32_t *ticket)
{
	const uint64_t arg[] = { FIRST + i, reps };

	return vfun_submit(v, VFUN_CMD_GET, arg, 2, &bulk[i], ticket);
}

/* Is what was answered in room i what it should be? */
static void
check(unsigned i, const struct vfun_result *res)
{
	static uint8_t got[ROOM];

	if (res->reason)
		wrong("refused");
	if (!res->bulk || res->len != right_len[i] || vfun_fetch(v, bulk[i].out_off, got, res->len))
		wrong("no result");
	if (memcmp(got, right[i], res->len))
		wrong("a wrong result with status OK");
	calls++;
}

/* What the answers are, by an instance that nobody ends (a moment ago nobody knew of it). */
static void
learn(void)
{
	struct vfun_result res;
	uint32_t ticket;

	for (unsigned i = 0; i < N; i++) {
		if (submit(i, 1, &ticket) || vfun_wait(v, ticket, &res, TIMEOUT) || res.reason || !res.bulk ||
		    vfun_fetch(v, bulk[i].out_off, right[i], res.len))
			wrong("first calls");
		right_len[i] = res.len;
	}
}

static void
ready(void)
{
	printf("ready %llu\n", (unsigned long long)vfun_activated(v)->instance);
	fflush(stdout);
}

/* Until a call says that there is nobody. */
static void
until_ended(void)
{
	struct vfun_result res;
	uint32_t ticket;
	const uint64_t arg[] = { 5 };
	int r = 0;

	for (unsigned i = 0; !r && i < SLOTS - 3 * N; i++) {
		r = vfun_submit(v, VFUN_CMD_GET, arg, 1, NULL, &ticket);
		if (!r)
			r = vfun_wait(v, ticket, &res, TIMEOUT);
		if (!r && (res.reason || res.inline_word[0] != 120))
			wrong("a probe");
		nap(50);
	}
	if (r != -ECONNRESET)
		wrong("not ended");
}

static void
read_late(void)
{
	struct vfun_result res[N];
	uint32_t ticket;

	for (unsigned i = 0; i < N; i++)
		if (submit(i, 1, &ticket) || vfun_wait(v, ticket, &res[i], TIMEOUT))
			wrong("calls");
	ready();
	until_ended();
	for (unsigned i = 0; i < N; i++)
		check(i, &res[i]);
}

static void
take_late(void)
{
	struct vfun_result res;
	uint32_t ticket[N];

	for (unsigned i = 0; i < N; i++)
		if (submit(i, 1, &ticket[i]))
			wrong("submit");
	ready();
	until_ended();
	for (unsigned i = 0; i < N; i++) {
		if (i % 2 ? vfun_poll(v, ticket[i], &res) : vfun_wait(v, ticket[i], &res, TIMEOUT))
			wrong("an answer is lost");
		check(i, &res);
	}
}

/* A batch, gathered: how many came, or -errno. All that came is right. */
static int
batch(uint64_t reps)
{
	struct vfun_done done[N];
	uint32_t first = 0, ticket;
	int r;

	for (unsigned i = 0; i < N; i++) {
		r = submit(i, reps, &ticket);
		if (r)
			return r;
		first = i ? first : ticket;
	}
	r = vfun_gather(v, done, N, N, TIMEOUT);
	for (int i = 0; i < r; i++)
		check(done[i].ticket - first, &done[i].result);
	/* Whatever the gathering left. */
	while (r > 0 && r < N) {
		int more = vfun_reap(v, done, N, TIMEOUT);

		if (more <= 0)
			return more ? more : -EPROTO;
		for (int i = 0; i < more; i++)
			check(done[i].ticket - first, &done[i].result);
		r += more;
	}
	return r;
}

static void
batches(void)
{
	int r;

	ready();
	do
		r = batch(300);
	while (r == N);
	if (r != -ECONNRESET)
		wrong("the end of the batches");
}

static void
storm(unsigned long n)
{
	unsigned instances = 1, refused = 0;

	ready();
	while (calls < n) {
		int r = batch(1);

		if (r == N)
			continue;
		if (r != -ECONNRESET)
			wrong("a call");
		for (r = -1; r && refused < TRIES; refused += r != 0) {
			vfun_close(v, NULL);
			r = open_instance();
			if (r)
				nap(5);
		}
		if (r)
			wrong("no further instance");
		instances++;
	}
	printf("%u instances\n", instances);
}

int
main(int argc, char **argv)
{
	if (argc < 3)
		return 64;
	while (path <= VFUN_PATH_IS_NET && strcmp(vfun_path_name(path), argv[2]))
		path++;
	if (open_instance() || vfun_path(v) != path)
		wrong("open");
	learn();
	if (!strcmp(argv[1], "read"))
		read_late();
	else if (!strcmp(argv[1], "answered"))
		take_late();
	else if (!strcmp(argv[1], "batch"))
		batches();
	else
		storm(strtoul(argv[3], NULL, 10));
	vfun_close(v, NULL);
	printf("ok %lu calls\n", calls);
	return 0;
}
