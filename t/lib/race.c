/* SPDX-License-Identifier: MIT
 *
 * race.c - client and service as threads of one process: every access in order, and nobody sleeps for ever
 *
 *   race CALLS     so many calls by each of three clients, with 1, 8 and 256 slots, each with a service of its own;
 * then by one whose service has four workers, SET and GET at the same time
 *
 * Client and service are the real ones, proto/channel.c and proto/serve.c; only what lies between them in real life is
 * not there: the regions are plain memory, the function is a few lines here. Both sides hardly spin, so that both sleep
 * again and again. Answers are taken in another order than requests were made, waited for and polled for, and every one
 * is checked, bulk data to the byte.
 *
 * Built with -fsanitize=thread this finds payload, arena or header that one side touches without having seen the seq
 * that the other one stored after writing them. That is what the acquire loads and release stores are for, and the
 * thread sanitizer understands those. It does not understand the full barriers between "my store" and "your flag" in
 * the parking protocol: it neither complains of them nor misses them. Those are tried by a second build, without the
 * sanitizer, in which stores are late (tso.h). In both, a sleep has no time limit (syscall() is ours, by the linker's
 * --wrap): a wake-up that gets lost leaves both sides asleep, which is looked for. Tried is thus what x86 may do; of
 * weaker processors only what the thread sanitizer knows of acquire and release.
 */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include "../../proto/client.h"
#include "../../proto/serve.h"

#ifdef TSO_REPLACE /* the test's own stores are not late */
#undef __atomic_store_n
#undef __atomic_load_n
#endif

#define ARENA 65536u
#define PIECE 200u /* bytes of bulk data that a call has, of PIECE_AT */
#define PIECE_AT 256u
#define STUCK_S 1
#define LONG_CALL 37u /* every so many calls the function takes a while, and the client a rest */

struct pair {
	struct vfun v;
	struct serve s;
	uint64_t calls;
	uint64_t x; /* the client's random numbers */
	pthread_t thread[2];
	int asleep[2];
	uint64_t slept[2];
};

enum { CLIENT, SERVICE };

static __thread struct pair *own;
static __thread int side;

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

/* What proto/ calls: futex, whose time limit is taken away, but for a worker's short pauses while it waits for its
 * turn, which nobody ends. */
long __real_syscall(long nr, ...);
long __wrap_syscall(
    long nr, uint32_t *word, long op, long value, const struct timespec *limit, void *unused, long zero);

long
__wrap_syscall(long nr, uint32_t *word, long op, long value, const struct timespec *limit, void *unused, long zero)
{
	long r;

	if (nr != SYS_futex || (op != FUTEX_WAIT && op != FUTEX_WAKE))
		die("system call %ld, %ld", nr, op);
	if (op == FUTEX_WAKE)
		return __real_syscall(nr, word, op, value, NULL, unused, zero);
	__atomic_store_n(&own->asleep[side], 1, __ATOMIC_RELAXED);
	r = __real_syscall(nr, word, op, value, limit->tv_sec || limit->tv_nsec > 1000000 ? NULL : limit, unused, zero);
	__atomic_store_n(&own->asleep[side], 0, __ATOMIC_RELAXED);
	__atomic_add_fetch(&own->slept[side], r == 0, __ATOMIC_RELAXED);
	return r;
}

static void
rest(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 20000 }, NULL);
}

/* The service's thread */

static void
function(void *arg, const struct serve_call *call, struct serve_answer *ans)
{
	(void)arg;
	if (call->arg[0] % LONG_CALL == 0)
		rest();
	ans->word[0] = call->arg[0] * 3 + 1;
	ans->len = 8;
	if (!call->bulk)
		return;
	for (uint64_t i = 0; i < call->in_len; i++)
		call->out[i] = (uint8_t)(call->in[i] + call->arg[0]);
	ans->len = call->in_len;
	ans->bulk = 1;
}

static void *
service(void *arg)
{
	struct pair *p = arg;

	own = p;
	side = SERVICE;
	serve_loop(&p->s, 0, p);
	__atomic_store_n(&p->asleep[SERVICE], 1, __ATOMIC_RELAXED); /* wakes nobody any more */
	return NULL;
}

/* The client's thread */

static uint64_t
draw(struct pair *p)
{
	p->x ^= p->x << 13;
	p->x ^= p->x >> 7;
	p->x ^= p->x << 17;
	return p->x;
}

/* A call whose answer follows from n: with bulk data if n is odd, which has a piece of the arenas for itself. */
static uint32_t
submit(struct pair *p, uint64_t n, unsigned at)
{
	struct vfun_bulk bulk = {
		.in_off = at * PIECE_AT, .in_len = 1 + n % PIECE, .out_off = at * PIECE_AT, .out_len = PIECE
	};
	uint32_t ticket;

	if (n & 1)
		for (uint64_t i = 0; i < bulk.in_len; i++)
			((uint8_t *)vfun_out_arena(&p->v))[bulk.in_off + i] = (uint8_t)(n >> 3 ^ i);
	if (vfun_submit(&p->v, VFUN_CMD_GET, &n, 1, n & 1 ? &bulk : NULL, &ticket))
		die("submit fails");
	return ticket;
}

static void
check(struct pair *p, uint64_t n, unsigned at, const struct vfun_result *res)
{
	const uint8_t *out = (const uint8_t *)vfun_in_arena(&p->v) + at * PIECE_AT;

	if (res->reason || res->bulk != (int)(n & 1) || res->len != (n & 1 ? 1 + n % PIECE : 8))
		die("call %llu: reason %u, %llu bytes", (unsigned long long)n, res->reason,
		    (unsigned long long)res->len);
	if (!res->bulk && res->inline_word[0] != n * 3 + 1)
		die("call %llu: another number", (unsigned long long)n);
	for (uint64_t i = 0; res->bulk && i < res->len; i++)
		if (out[i] != (uint8_t)((n >> 3 ^ i) + n))
			die("call %llu: another byte %llu", (unsigned long long)n, (unsigned long long)i);
}

static void
take(struct pair *p, uint32_t ticket, struct vfun_result *res)
{
	int r = -EAGAIN;

	for (unsigned i = 0; draw(p) & 1 && r == -EAGAIN && i < 100; i++)
		r = vfun_poll(&p->v, ticket, res);
	if (r == -EAGAIN)
		r = vfun_wait(&p->v, ticket, res, UINT64_MAX);
	if (r)
		die("ticket %u: %s", ticket, strerror(-r));
}

/* As many calls as there are slots, or fewer; the answers from the last to the first, or from some other one on. */
static unsigned
wave(struct pair *p, uint64_t first)
{
	unsigned slots = p->v.grant.slots, n = 1 + (unsigned)(draw(p) % slots), from = (unsigned)(draw(p) % n);
	uint32_t ticket[VFUN_SLOTS_MAX];

	for (unsigned i = 0; i < n; i++)
		ticket[i] = submit(p, first + i, i);
	if (vfun_ring(&p->v))
		die("ring fails");
	for (unsigned i = 0; i < n; i++) {
		unsigned k = (2 * n - 1 - i - from) % n;
		struct vfun_result res;

		take(p, ticket[k], &res);
		check(p, first + k, k, &res);
	}
	return n;
}

/* In the end a service is told to end in the one way there is: too many insane slots. */
static void *
client(void *arg)
{
	struct pair *p = arg;
	uint64_t done = 0;
	const uint64_t none = 0;

	own = p;
	side = CLIENT;
	while (done < p->calls) {
		done += wave(p, done);
		if (draw(p) % LONG_CALL == 0)
			rest();
	}
	for (unsigned i = 0; i < 64; i++) {
		struct vfun_result res;

		if (vfun_call(&p->v, (enum vfun_cmd)99, &none, 1, NULL, &res, UINT64_MAX) || !res.reason)
			die("an insane slot is served");
	}
	p->calls = done;
	return NULL;
}

/* What a SET left is shared by all workers: a GET without arguments has those of the SET in front of it. */
static void *
setter(void *arg)
{
	struct pair *p = arg;
	unsigned slots = p->v.grant.slots;
	struct vfun_result res;

	own = p;
	side = CLIENT;
	for (uint64_t n = 0; n < p->calls; n += slots / 2) {
		uint32_t ticket[VFUN_SLOTS_MAX];

		for (unsigned i = 0; i < slots; i++) {
			uint64_t set = n + i / 2;

			if (vfun_submit(
				&p->v, i & 1 ? VFUN_CMD_GET : VFUN_CMD_SET, &set, i & 1 ? 0 : 1, NULL, &ticket[i]))
				die("submit fails");
		}
		if (vfun_ring(&p->v))
			die("ring fails");
		for (unsigned i = 0; i < slots; i++) {
			take(p, ticket[i], &res);
			if (res.reason)
				die("call %u: reason %u", i, res.reason);
			if (i & 1 && res.inline_word[0] != (n + i / 2) * 3 + 1)
				die("a GET has the arguments of another SET");
		}
	}
	return NULL;
}

static void *
worker(void *arg)
{
	static unsigned workers;
	struct pair *p = arg;

	own = p;
	side = SERVICE;
	serve_loop(&p->s, __atomic_fetch_add(&workers, 1, __ATOMIC_RELAXED), p);
	return NULL;
}

static uint8_t *
region(uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("no memory");
	return p;
}

static void
prepare(struct pair *p, unsigned slots, unsigned workers, uint64_t calls)
{
	uint64_t size = vfun_region_size(slots, ARENA);
	int sock[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sock)) /* what a client would notice vfund's end by */
		die("no sockets");
	p->calls = calls;
	p->x = 88172645463325252ull + slots;
	p->v = (struct vfun){
		.ctl = sock[0], .bell = -1, .path = VFUN_PATH_IS_HOST, .pace.limit_ns = slots > 1 ? 2000 : 0
	};
	client_begin(&p->v);
	p->v.grant = (struct vfun_grant){ .slots = (uint16_t)slots, .out_arena = ARENA, .in_arena = ARENA };
	p->v.out = (struct region){ .fd = -1, .map = region(size), .size = size };
	p->v.in = (struct region){ .fd = -1, .map = region(size), .size = size };
	serve_header((void *)p->v.in.map, VFUN_IN_MAGIC, 0, 1, slots, ARENA);
	p->s = (struct serve){ .out = p->v.out.map,
		.in = p->v.in.map,
		.slots = slots,
		.workers = workers,
		.out_arena = ARENA,
		.in_arena = ARENA,
		.ring_fd = -1,
		.fn = function };
}

static void
start(struct pair *p, unsigned slots, uint64_t calls)
{
	prepare(p, slots, 1, calls);
	if (pthread_create(&p->thread[SERVICE], NULL, service, p) ||
	    pthread_create(&p->thread[CLIENT], NULL, client, p))
		die("no thread");
}

/* Wait for the end of a thread. If both sides have been asleep all the time since the last look, nobody is left to wake
 * them. */
static void
join(struct pair *p, int which)
{
	uint64_t before = ~0ull;

	for (;;) {
		struct timespec until;
		uint64_t now = 0;

		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += STUCK_S;
		if (!pthread_timedjoin_np(p->thread[which], NULL, &until))
			return;
		for (int i = CLIENT; i <= SERVICE; i++)
			now += __atomic_load_n(&p->slept[i], __ATOMIC_RELAXED);
		if (now == before && __atomic_load_n(&p->asleep[CLIENT], __ATOMIC_RELAXED) &&
		    __atomic_load_n(&p->asleep[SERVICE], __ATOMIC_RELAXED))
			die("%u slots: both sides sleep, a wake-up was lost", p->s.slots);
		before = now;
	}
}

/* One client, four workers, which are left alone in the end. */
static void
start_workers(struct pair *p, uint64_t calls)
{
	pthread_t thread;

	prepare(p, 64, 4, calls);
	for (unsigned i = 0; i < p->s.workers; i++)
		if (pthread_create(&thread, NULL, worker, p) || pthread_detach(thread))
			die("no thread");
	if (pthread_create(&p->thread[CLIENT], NULL, setter, p))
		die("no thread");
}

int
main(int argc, char **argv)
{
	static const unsigned slots[] = { 1, 8, 256 };
	static struct pair pairs[3], many;
	uint64_t calls = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, all = 0, slept[2] = { 0 };

	for (unsigned i = 0; i < 3; i++)
		start(&pairs[i], slots[i], calls);
	for (unsigned i = 0; i < 3; i++) {
		join(&pairs[i], CLIENT);
		join(&pairs[i], SERVICE);
		all += pairs[i].calls;
		slept[CLIENT] += pairs[i].slept[CLIENT];
		slept[SERVICE] += pairs[i].slept[SERVICE];
	}
	start_workers(&many, calls);
	if (pthread_join(many.thread[CLIENT], NULL))
		die("no end");
	printf("ok %llu calls, clients slept %llu times, services %llu times\n", (unsigned long long)all,
	    (unsigned long long)slept[CLIENT], (unsigned long long)slept[SERVICE]);
	return 0;
}
