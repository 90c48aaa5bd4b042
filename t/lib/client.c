/* SPDX-License-Identifier: MIT
 *
 * client.c - a client for the tests: what `vfun call` doesn't do, by the same library, on the host and in a guest
 *
 *   client inflight PATH SLOTS COUNT   many calls in flight, answers taken out of order, every one checked
 *   client batch PATH SLOTS COUNT      calls of different length, submitted and taken in batches, with pauses
 *   client bulk PATH SLOTS COUNT       the same with bulk data, each call in its own part of the arenas
 *   client setget PATH                 set, get, rst, echo
 *   client insane PATH                 slots that break the protocol: each its reason, the service goes on; then cut off
 *   client refused PATH                calls that don't fit their function's signature: what the service says of each
 *   client control                     control messages that break the protocol
 *   client hold FUNCTION PATH [SLOTS [ARENA]]   open, say so, wait for ever
 *   client busy PATH                   the same in the middle of a call that never ends
 *   client load SECONDS PATH           control transactions, instances and calls without pause; any error is one
 *   client flood SECONDS PATH          control messages and bells without end, and nothing in return
 *   client connects SECONDS            connections to vfund that are closed at once
 *   client spin SECONDS                nothing but load
 *   client park PATH                   calls that take so long that the client sleeps: the service wakes it
 *   client release                     one instance released several times, and its memory given back
 *   client grants                      more grants and instances than a client may have
 *   client grants hold                 as many grants as this client gets, kept
 *   client grant FUNCTION              negotiate, say so, activate at SIGUSR1: what is the reason?
 *   client conns [hold]                more connections than a user of the host may have; keep them
 *   client pending THREADS             requests until one is refused, because too many of this VM wait
 *
 * Says "ok ..." on standard output and exits with 0, or says what went wrong and exits with 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../../proto/client.h"

#define SECOND 1000000000ull
#define TIMEOUT (20 * SECOND)

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
open_or_die(const char *function, const char *path, unsigned slots, uint64_t arena)
{
	struct vfun_options o = {
		.size = sizeof(o), .path = path_of(path), .slots = slots, .out_arena = arena, .in_arena = arena
	};
	struct vfun *v;
	int r = vfun_open(&v, function, &o);

	if (r)
		die("%s can't be opened: %s (%s)", function, vfun_text(v), strerror(-r));
	return v;
}

/* n! mod 2^64, which is what the first 8 bytes of the exact result are. */
static uint64_t
low64(uint64_t n)
{
	uint64_t r = 1;

	for (uint64_t i = 2; i <= n; i++)
		r *= i;
	return r;
}

static void
check_factorial(const struct vfun_result *res, uint64_t n)
{
	uint64_t got = 0;

	if (res->reason || res->bulk || !res->len)
		die("%llu!: reason %s, %llu bytes", (unsigned long long)n, vfun_reason_name(res->reason),
		    (unsigned long long)res->len);
	memcpy(&got, res->inline_result, res->len < 8 ? res->len : 8);
	if (got != low64(n))
		die("%llu! is wrong", (unsigned long long)n);
}

/* Waves of as many calls as there are slots; the answers of a wave are taken from the last to the first, or with a
 * stride. */
static int
inflight(const char *path, unsigned slots, unsigned count)
{
	struct vfun *v = open_or_die("factorial", path, slots, 0);
	unsigned done = 0;

	if (vfun_granted(v)->slots != slots)
		die("%u slots instead of %u", vfun_granted(v)->slots, slots);
	while (done < count) {
		uint32_t ticket[VFUN_SLOTS_MAX];
		uint64_t arg[VFUN_SLOTS_MAX];
		uint32_t none;

		for (unsigned i = 0; i < slots; i++) {
			arg[i] = (done + i * 7) % 80;
			if (vfun_submit(v, VFUN_CMD_GET, &arg[i], 1, NULL, &ticket[i]))
				die("submit %u of a wave fails", i);
		}
		if (vfun_submit(v, VFUN_CMD_GET, &arg[0], 1, NULL, &none) != -EAGAIN)
			die("one more than there are slots was accepted");
		if (vfun_ring(v))
			die("ring fails");
		for (unsigned i = 0; i < slots; i++) {
			unsigned k = (i * 5 + slots - 1) % slots; /* a permutation: slots is a power of two */
			struct vfun_result res;
			int r = vfun_wait(v, ticket[k], &res, TIMEOUT);

			if (r)
				die("call %u: %s", done + k, strerror(-r));
			check_factorial(&res, arg[k]);
			if (vfun_poll(v, ticket[k], &res) != -EINVAL)
				die("an answer was given twice");
		}
		done += slots;
	}
	printf("ok %u calls, %u in flight, path %s\n", done, slots, vfun_path_name(vfun_path(v)));
	return vfun_close(v, NULL) ? 1 : 0;
}

/* As many in flight as there are slots, submitted and taken in batches of whatever size comes; some calls take much
 * longer than others, so that with several workers answers overtake each other. Now and then nobody asks for a while,
 * so that both sides sleep. */
static int
batch(const char *path, unsigned slots, unsigned count)
{
	struct vfun *v = open_or_die("factorial", path, slots, 0);
	unsigned workers = vfun_granted(v)->workers;
	unsigned submitted = 0, done = 0, overtaken = 0, batches = 0;
	uint32_t last = 0;

	while (done < count) {
		struct vfun_done d[VFUN_SLOTS_MAX];
		uint32_t ticket;
		int n;

		while (submitted < count) {
			const uint64_t args[2] = { submitted % 60, submitted % 7 ? 1 : 300 };
			int r = vfun_submit(v, VFUN_CMD_GET, args, 2, NULL, &ticket);

			if (r == -EAGAIN)
				break;
			if (r)
				die("submit %u: %s", submitted, strerror(-r));
			submitted++;
		}
		n = vfun_reap(v, d, 1 + batches % VFUN_SLOTS_MAX, TIMEOUT);
		if (n <= 0)
			die("reap: %s", n ? strerror(-n) : "nothing is in flight");
		batches++;
		for (int i = 0; i < n; i++) {
			/* The ECHO that proved the mapping was position 0. */
			check_factorial(&d[i].result, (d[i].ticket - 1) % 60);
			overtaken += d[i].ticket < last;
			last = d[i].ticket;
		}
		done += (unsigned)n;
		if (batches % 64 == 0)
			usleep(2000);
	}
	if (vfun_reap(v, &(struct vfun_done){ 0 }, 1, TIMEOUT) != 0)
		die("more answers than calls");
	printf("ok %u calls, %u slots, %u workers, path %s; %u overtaken\n", done, slots, workers,
	    vfun_path_name(vfun_path(v)), overtaken);
	return vfun_close(v, NULL) ? 1 : 0;
}

/* Bulk calls side by side, each with its own part of both arenas. */
static int
bulk(const char *path, unsigned slots, unsigned count)
{
	struct vfun *v = open_or_die("zstd", path, slots, (uint64_t)slots * 16384);
	unsigned workers = vfun_granted(v)->workers;
	uint64_t want[256] = { 0 };

	for (unsigned i = 0; i < count; i += slots) {
		struct vfun_done d[VFUN_SLOTS_MAX];
		uint32_t first = v->next;
		unsigned n = 0;

		for (unsigned k = 0; k < slots; k++) {
			struct vfun_bulk b = { k * 16384, 8192, k * 16384, 16384 };
			uint8_t data[8192];
			uint32_t ticket;

			for (unsigned j = 0; j < sizeof(data); j++)
				data[j] = (uint8_t)(j * (k % 16 + 1) >> (k % 5));
			if (vfun_put(v, b.in_off, data, sizeof(data)) ||
			    vfun_submit(v, VFUN_CMD_GET, NULL, 0, &b, &ticket))
				die("slot %u can't be submitted", k);
		}
		while (n < slots) {
			int r = vfun_reap(v, d, slots, TIMEOUT);

			if (r <= 0)
				die("reap: %s", strerror(-r));
			for (int j = 0; j < r; j++) {
				unsigned k = d[j].ticket - first;
				uint8_t frame[16384];
				uint64_t sum = d[j].result.len;

				if (d[j].result.reason || d[j].result.len > sizeof(frame))
					die("slot %u: %s", k, vfun_reason_name(d[j].result.reason));
				if (!d[j].result.bulk)
					memcpy(frame, d[j].result.inline_result, d[j].result.len);
				else if (vfun_fetch(v, k * 16384, frame, d[j].result.len))
					die("slot %u can't be fetched", k);
				for (uint64_t at = 0; at < d[j].result.len; at++)
					sum = sum * 31 + frame[at];
				if (want[k] && want[k] != sum)
					die("slot %u: another frame of the same data", k);
				want[k] = sum;
			}
			n += (unsigned)r;
		}
	}
	for (unsigned k = 0; k + 80 < slots; k++)
		if (want[k] != want[k + 80])
			die("slots %u and %u: other frames of the same data", k, k + 80);
	printf("ok %u calls, %u slots, %u workers, path %s\n", count, slots, workers, vfun_path_name(vfun_path(v)));
	return vfun_close(v, NULL) ? 1 : 0;
}

static void
expect(struct vfun *v, enum vfun_cmd cmd, const uint64_t *args, unsigned nargs, enum vfun_reason want,
    struct vfun_result *res)
{
	int r = vfun_call(v, cmd, args, nargs, NULL, res, TIMEOUT);

	if (r)
		die("command %d: %s: %s", cmd, strerror(-r), vfun_text(v));
	if (res->reason != want)
		die("command %d: reason %s instead of %s", cmd, vfun_reason_name(res->reason), vfun_reason_name(want));
}

static int
setget(const char *path)
{
	struct vfun *v = open_or_die("factorial", path, 1, 4096);
	const uint64_t five = 5, twenty = 20, echo[7] = { 1, 2, 3, 4, 5, 6, ~0ull };
	struct vfun_result res;

	expect(v, VFUN_CMD_GET, NULL, 0, VFUN_R_NO_DATA, &res);
	expect(v, VFUN_CMD_SET, NULL, 0, VFUN_R_NO_DATA, &res);
	expect(v, VFUN_CMD_SET, &five, 1, VFUN_OK, &res);
	expect(v, VFUN_CMD_GET, NULL, 0, VFUN_OK, &res);
	check_factorial(&res, 5);
	/* The rest of the word that holds this result of one byte is not the service's stack. */
	if (v->in.map && memcmp(v->in.map + VFUN_PAGE + 8, &(uint64_t){ 120 }, 8))
		die("an answer's line holds more than the answer");
	expect(v, VFUN_CMD_GET, &twenty, 1, VFUN_OK, &res);
	check_factorial(&res, 20);
	expect(v, VFUN_CMD_GET, NULL, 0, VFUN_OK, &res);
	check_factorial(&res, 5);
	expect(v, VFUN_CMD_RST, NULL, 0, VFUN_OK, &res);
	expect(v, VFUN_CMD_GET, NULL, 0, VFUN_R_NO_DATA, &res);
	expect(v, VFUN_CMD_ECHO, echo, 7, VFUN_OK, &res);
	if (res.len != sizeof(echo) || memcmp(res.inline_result, echo, sizeof(echo)))
		die("the echo is another");
	printf("ok path %s\n", vfun_path_name(vfun_path(v)));
	return vfun_close(v, NULL) ? 1 : 0;
}

/* A slot as one pleases, past the library's checks, and its answer. */
static int
raw(struct vfun *v, uint8_t cmd, uint8_t flags, uint16_t len, const uint64_t payload[7], struct vfun_result *res)
{
	struct vfun_request r = { .cmd = cmd, .flags = flags, .len = len };
	uint64_t at = VFUN_PAGE + (v->next & (v->grant.slots - 1u)) * VFUN_LINE;
	uint32_t ticket = v->next++;

	if (payload)
		memcpy(&r.payload, payload, sizeof(r.payload));
	if (v->out.map) {
		memcpy(v->out.map + at + 4, (char *)&r + 4, sizeof(r) - 4);
		__atomic_store_n((uint32_t *)(void *)(v->out.map + at), ticket + 1, __ATOMIC_RELEASE);
	} else {
		uint32_t seq = ticket + 1;

		if (pwrite(v->out.fd, (char *)&r + 4, sizeof(r) - 4, (off_t)at + 4) < 0 ||
		    pwrite(v->out.fd, &seq, 4, (off_t)at) < 0)
			die("pwrite: %s", strerror(errno));
	}
	v->busy[ticket & (v->grant.slots - 1u)] = SLOT_PENDING;
	v->unrung = 1;
	return vfun_wait(v, ticket, res, TIMEOUT);
}

static int
insane(const char *path)
{
	static const struct {
		const char *what;
		uint8_t cmd, flags;
		uint16_t len;
		uint64_t payload[7];
		enum vfun_reason want;
	} cases[] = {
		{ "command 0", 0, 0, 8, { 1 }, VFUN_R_SLOT_COMMAND },
		{ "command 255", 255, 0, 8, { 1 }, VFUN_R_SLOT_COMMAND },
		{ "unknown flag", VFUN_CMD_GET, 0x80, 8, { 1 }, VFUN_R_SLOT_FLAGS },
		{ "length 64", VFUN_CMD_GET, 0, 64, { 1 }, VFUN_R_SLOT_LENGTH },
		{ "length 65535", VFUN_CMD_ECHO, 0, 65535, { 1 }, VFUN_R_SLOT_LENGTH },
		{ "length 7", VFUN_CMD_GET, 0, 7, { 1 }, VFUN_R_SLOT_LENGTH },
		{ "bulk without its descriptor", VFUN_CMD_GET, 1, 24, { 0 }, VFUN_R_SLOT_LENGTH },
		{ "input beyond the arena", VFUN_CMD_GET, 1, 40, { 4096, 1, 0, 0, 1 }, VFUN_R_SLOT_RANGE },
		{ "input too long", VFUN_CMD_GET, 1, 40, { 0, 4097, 0, 0, 1 }, VFUN_R_SLOT_RANGE },
		{ "input that wraps around", VFUN_CMD_GET, 1, 40, { ~0ull - 7, 16, 0, 0, 1 }, VFUN_R_SLOT_RANGE },
		{ "room beyond the arena", VFUN_CMD_GET, 1, 40, { 0, 0, 1ull << 63, 1, 1 }, VFUN_R_SLOT_RANGE },
		{ "room that wraps around", VFUN_CMD_GET, 1, 40, { 0, 0, 8, ~0ull, 1 }, VFUN_R_SLOT_RANGE },
		{ "too many arguments", VFUN_CMD_GET, 0, 24, { 1, 1, 1 }, VFUN_R_ARGUMENTS },
		{ "no repetition at all", VFUN_CMD_GET, 0, 16, { 1, 0 }, VFUN_R_ARGUMENTS },
		{ "a result that doesn't fit a slot", VFUN_CMD_GET, 0, 8, { 1000 }, VFUN_R_RESULT_SIZE },
		{ "a result of astronomic length", VFUN_CMD_GET, 1, 40, { 0, 0, 0, 4096, ~0ull }, VFUN_R_RESULT_SIZE },
	};
	struct vfun *v = open_or_die("factorial", path, 4, 4096);
	struct vfun_result res;
	const uint64_t five = 5;
	int r = 0;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		r = raw(v, cases[i].cmd, cases[i].flags, cases[i].len, cases[i].payload, &res);
		if (r || res.reason != cases[i].want)
			die("%s: %s", cases[i].what, r ? strerror(-r) : vfun_reason_name(res.reason));
	}
	expect(v, VFUN_CMD_GET, &five, 1, VFUN_OK, &res);
	check_factorial(&res, 5);
	for (int i = 0; i < 63; i++)
		if (raw(v, 99, 0, 0, NULL, &res) || res.reason != VFUN_R_SLOT_COMMAND)
			die("insane slot %d of a row: %s", i, vfun_reason_name(res.reason));
	/* The service ends with this answer, and its memory is given back: who looks late finds the end only. */
	r = raw(v, 99, 0, 0, NULL, &res);
	if (r != -ECONNRESET && (r || res.reason != VFUN_R_CUT_OFF))
		die("the last insane slot of a row: %s", r ? strerror(-r) : vfun_reason_name(res.reason));
	/* Another worker may answer before the process has ended. */
	for (int i = 0; i < 100 && !(r = vfun_call(v, VFUN_CMD_GET, &five, 1, NULL, &res, TIMEOUT)); i++)
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	if (r != -ECONNRESET)
		die("after that: %s", r ? strerror(-r) : "an answer");
	printf("ok path %s: %s\n", vfun_path_name(vfun_path(v)), vfun_reason_name(vfun_reason(v)));
	vfun_close(v, NULL);
	return 0;
}

/* One message as it is; the reply's reason, or -errno. */
static int
send_raw(const void *msg, size_t len)
{
	int fd = vfun_control_open(NULL, 0);
	struct vfun_msg reply = { 0 };
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		die("no control: %s", strerror(-fd));
	if (!S_ISSOCK(st.st_mode)) {
		r = write(fd, msg, len) == (ssize_t)len && read(fd, &reply, sizeof(reply)) == (ssize_t)sizeof(reply)
			? 0
			: -errno;
	} else {
		struct timeval tv = { .tv_sec = 5 };

		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
		r = send(fd, msg, len, 0) == (ssize_t)len &&
			    recv(fd, &reply, sizeof(reply), 0) == (ssize_t)sizeof(reply)
			? 0
			: -errno;
	}
	close(fd);
	return r ? r : reply.reason;
}

static void
expect_nack(const char *what, int got, int want, int also)
{
	if (got != want && got != also)
		die("%s: %s", what, got < 0 ? strerror(-got) : vfun_reason_name((enum vfun_reason)got));
}

/* vfun call would refuse these before they are sent. */
static int
refused(const char *path)
{
	static const struct {
		const char *function;
		unsigned nargs;
		uint64_t arg[4];
		int in_len; /* -1: no bulk data */
	} calls[] = {
		{ "factorial", 2, { 5, 0 }, -1 },
		{ "factorial", 0, { 0 }, 0 },
		{ "factorial", 3, { 5, 1, 1 }, -1 },
		{ "factorial", 1, { 5 }, 8 },
		{ "sha256", 1, { 1 }, -1 },
		{ "sha256", 2, { 1, 1 }, 8 },
		{ "pingpong", 1, { 1ull << 32 }, 64 },
		{ "square", 0, { 0 }, 6 },
		{ "square", 0, { 0 }, 64 },
		{ "square", 0, { 0 }, 0 },
	};

	for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		struct vfun *v = open_or_die(calls[i].function, path, 1, 4096);
		const struct vfun_bulk b = { .in_len = (uint64_t)calls[i].in_len };
		const uint64_t one = 1;
		struct vfun_result res;

		if (vfun_call(v, VFUN_CMD_GET, calls[i].arg, calls[i].nargs, calls[i].in_len < 0 ? NULL : &b, &res,
			TIMEOUT))
			die("call %u: %s", i, vfun_text(v));
		printf("%s: %s %s\n", calls[i].function, vfun_reason_name(res.reason),
		    res.reason ? vfun_text(v) : "");
		if (vfun_reason(v) != res.reason)
			die("call %u: not its reason", i);
		/* It goes on all the same. */
		if (vfun_call(v, VFUN_CMD_ECHO, &one, 1, NULL, &res, TIMEOUT) || res.reason || res.inline_word[0] != 1)
			die("call %u: nothing afterwards", i);
		vfun_close(v, NULL);
	}
	return 0;
}

/* SIGNATURE, whole and in parts that a client may ask for. */
static void
ask_signature(const struct vfun_msg *negotiate)
{
	struct vfun_options o = { .size = sizeof(o) };
	struct vfun_msg m = *negotiate;
	struct vfun_msg part;
	char text[VFUN_SIGNATURE_MAX];
	int fd;

	memset(&m.body, 0, sizeof(m.body));
	m.type = VFUN_MSG_SIGNATURE;
	memset(m.body.ask.function, 'x', sizeof(m.body.ask.function));
	expect_nack("a function's name without end", send_raw(&m, sizeof(m)), VFUN_R_MALFORMED, VFUN_R_MALFORMED);
	memset(&m.body, 0, sizeof(m.body));
	strcpy(m.body.ask.function, "nosuch");
	expect_nack("no function's signature", send_raw(&m, sizeof(m)), VFUN_R_UNKNOWN, VFUN_R_UNKNOWN);
	strcpy(m.body.ask.function, "sha256");
	m.body.ask.what = 2;
	expect_nack("something else than a signature", send_raw(&m, sizeof(m)), VFUN_R_MALFORMED, VFUN_R_MALFORMED);
	m.body.ask.what = 0;
	m.body.ask.target = 3;
	expect_nack("of another target", send_raw(&m, sizeof(m)), VFUN_R_MALFORMED, VFUN_R_MALFORMED);
	m.body.ask.target = 0;
	if (vfun_signature(&o, "sha256", text))
		die("sha256 has no signature: %s", text);
	fd = vfun_control_open(NULL, 0);
	for (uint32_t off = 0; off < VFUN_SIGNATURE_MAX; off += 7) {
		part = m;
		part.body.ask.offset = off;
		if (vfun_control(fd, &part, 5000) || part.reason || part.body.part.total != strlen(text) ||
		    (off < strlen(text) && strncmp(part.body.part.text, text + off, 7) != 0) ||
		    (off >= strlen(text) && part.body.part.text[0]))
			die("the signature from %u on", off);
	}
	part = m;
	part.body.ask.offset = UINT32_MAX;
	if (vfun_control(fd, &part, 5000) || part.reason || part.body.part.text[0])
		die("the signature far behind its end");
	close(fd);
}

static int
control(void)
{
	struct vfun_msg good = {
		.magic = VFUN_MSG_MAGIC, .type = VFUN_MSG_NEGOTIATE, .version = VFUN_VERSION, .tag = 7
	};
	struct vfun_msg m;

	strcpy(good.body.negotiate.function, "factorial");
	good.body.negotiate.version_min = good.body.negotiate.version_max = VFUN_VERSION;
	expect_nack("a good one", send_raw(&good, sizeof(good)), VFUN_OK, VFUN_OK);
	/* Through a share a message of the wrong size is an error of write(). */
	expect_nack("too short", send_raw(&good, 100), VFUN_R_MALFORMED, -EINVAL);
	m = good;
	m.magic ^= 1;
	expect_nack("magic", send_raw(&m, sizeof(m)), VFUN_R_MALFORMED, VFUN_R_MALFORMED);
	m = good;
	m.version = 0x7f00;
	expect_nack("version", send_raw(&m, sizeof(m)), VFUN_R_VERSION, VFUN_R_VERSION);
	m = good;
	m.body.negotiate.version_min = m.body.negotiate.version_max = 0x0200;
	expect_nack("version range", send_raw(&m, sizeof(m)), VFUN_R_VERSION, VFUN_R_VERSION);
	m = good;
	m.body.negotiate.version_max = VFUN_VERSION_OLDEST;
	expect_nack("a version range upside down", send_raw(&m, sizeof(m)), VFUN_R_MALFORMED, VFUN_R_MALFORMED);
	m = good;
	m.version = m.body.negotiate.version_min = m.body.negotiate.version_max = VFUN_VERSION_OLDEST;
	expect_nack("an older version", send_raw(&m, sizeof(m)), VFUN_OK, VFUN_OK);
	m = good;
	m.type = 999;
	expect_nack("type", send_raw(&m, sizeof(m)), VFUN_R_MALFORMED, VFUN_R_MALFORMED);
	m = good;
	m.type |= VFUN_MSG_REPLY;
	expect_nack("a reply as a request", send_raw(&m, sizeof(m)), VFUN_R_MALFORMED, VFUN_R_MALFORMED);
	m = good;
	memset(m.body.negotiate.function, 'x', sizeof(m.body.negotiate.function));
	expect_nack("a name without end", send_raw(&m, sizeof(m)), VFUN_R_MALFORMED, VFUN_R_MALFORMED);
	m = good;
	strcpy(m.body.negotiate.function, "../../etc/passwd");
	expect_nack("no such function", send_raw(&m, sizeof(m)), VFUN_R_UNKNOWN, VFUN_R_UNKNOWN);
	m = good;
	m.body.negotiate.target = 77;
	expect_nack("target", send_raw(&m, sizeof(m)), VFUN_R_MALFORMED, VFUN_R_MALFORMED);
	m = good;
	m.body.negotiate.out_arena = ~0ull;
	expect_nack("a huge arena", send_raw(&m, sizeof(m)), VFUN_R_TOO_LARGE, VFUN_R_TOO_LARGE);
	m = good;
	m.body.negotiate.slots = 65535;
	expect_nack("too many slots", send_raw(&m, sizeof(m)), VFUN_R_TOO_LARGE, VFUN_R_TOO_LARGE);
	m = good;
	m.type = VFUN_MSG_ACTIVATE;
	m.body.activate.grant = 1;
	expect_nack("somebody's grant", send_raw(&m, sizeof(m)), VFUN_R_NO_GRANT, VFUN_R_NO_GRANT);
	m.body.activate.grant = 0;
	expect_nack("grant 0", send_raw(&m, sizeof(m)), VFUN_R_NO_GRANT, VFUN_R_NO_GRANT);
	m.type = VFUN_MSG_RELEASE;
	m.body.release.instance = 0;
	expect_nack("instance 0", send_raw(&m, sizeof(m)), VFUN_R_NO_INSTANCE, VFUN_R_NO_INSTANCE);
	m.body.release.instance = ~0ull;
	expect_nack("no such instance", send_raw(&m, sizeof(m)), VFUN_R_NO_INSTANCE, VFUN_R_NO_INSTANCE);
	m.type = VFUN_MSG_STATUS;
	m.body.query.position = ~0ull;
	expect_nack("a position beyond all", send_raw(&m, sizeof(m)), VFUN_R_END, VFUN_R_END);
	m.type = VFUN_MSG_LIST;
	expect_nack("a position beyond all functions", send_raw(&m, sizeof(m)), VFUN_R_END, VFUN_R_END);
	ask_signature(&good);
	expect_nack("a good one, after all that", send_raw(&good, sizeof(good)), VFUN_OK, VFUN_OK);
	puts("ok");
	return 0;
}

static int
hold(const char *function, const char *path, unsigned slots, uint64_t arena, int busy)
{
	struct vfun *v = open_or_die(function, path, slots, arena);
	const uint64_t args[2] = { 51, ~0ull };
	uint32_t ticket;

	if (busy && (vfun_submit(v, VFUN_CMD_GET, args, 2, NULL, &ticket) || vfun_ring(v)))
		die("the call can't be submitted");
	printf("ok instance %llu path %s\n", (unsigned long long)vfun_activated(v)->instance,
	    vfun_path_name(vfun_path(v)));
	fflush(stdout);
	for (;;)
		pause();
}

static double
now(void)
{
	return (double)client_ns() / 1e9;
}

static void
query(uint16_t type)
{
	struct vfun_msg m = { .type = type };
	int fd = vfun_control_open(NULL, 0);
	int r;

	if (fd < 0)
		die("no control: %s", strerror(-fd));
	r = vfun_control(fd, &m, 10000);
	if (r || m.reason)
		die("control message %u: %s", type, r ? strerror(-r) : m.text);
	close(fd);
}

static int
load(double seconds, const char *path)
{
	double end = now() + seconds;
	double worst = 0;
	unsigned calls = 0, opens = 0, queries = 0;

	while (now() < end) {
		struct vfun *v = open_or_die("factorial", path, 4, 65536);
		char bytes[65536], back[65536];

		opens++;
		for (unsigned i = 0; i < 20; i++) {
			struct vfun_result res;
			uint64_t n = calls % 70;
			double start = now();
			int r = vfun_call(v, VFUN_CMD_GET, &n, 1, NULL, &res, TIMEOUT);

			if (r)
				die("call %u: %s: %s", calls, strerror(-r), vfun_text(v));
			check_factorial(&res, n);
			if (now() - start > worst)
				worst = now() - start;
			calls++;
			start = now();
			query(VFUN_MSG_INFO);
			queries++;
			memset(bytes, (int)calls, sizeof(bytes));
			r = vfun_put(v, 0, bytes, sizeof(bytes));
			if (!r)
				r = vfun_fetch(v, 0, back, sizeof(back));
			if (r)
				die("bulk: %s", strerror(-r));
			if (now() - start > worst)
				worst = now() - start;
		}
		if (vfun_close(v, NULL))
			die("release fails");
	}
	printf("ok %u calls %u instances %u queries worst %.0f ms\n", calls, opens, queries, worst * 1000);
	return 0;
}

static void
grant(int fd, unsigned i, enum vfun_reason want)
{
	struct vfun_msg m = { .type = VFUN_MSG_NEGOTIATE };
	int r;

	strcpy(m.body.negotiate.function, "factorial");
	m.body.negotiate.version_min = m.body.negotiate.version_max = VFUN_VERSION;
	r = vfun_control(fd, &m, 5000);
	if (r || m.reason != want || (want && !strstr(m.text, "too many grants")))
		die("grant %u: %s", i, r ? strerror(-r) : m.text);
}

/* 16 grants on a connection, 64 on all of a client's; then instances. */
static int
grants(void)
{
	struct vfun *held[64];
	int fd[5];
	unsigned n = 0;
	int r;

	for (unsigned i = 0; i < 5; i++) {
		fd[i] = vfun_control_open(NULL, 0);
		for (unsigned k = 0; i < 4 && k < 16; k++)
			grant(fd[i], i * 16 + k, VFUN_OK);
		grant(fd[i], i * 16 + 16, VFUN_R_NO_RESOURCE);
	}
	for (unsigned i = 0; i < 5; i++)
		close(fd[i]);
	/* vfund may hear of a new connection before it hears of the end of those. */
	for (unsigned ms = 0; (r = vfun_open(&held[0], "factorial", NULL)) && ms < 5000; ms += 10) {
		vfun_close(held[0], NULL);
		usleep(10000);
	}
	while (!r && ++n < 64)
		r = vfun_open(&held[n], "factorial", NULL);
	if (r != -EACCES || vfun_reason(held[n]) != VFUN_R_NO_RESOURCE)
		die("instance %u: %s", n, vfun_text(held[n]));
	printf("ok %u instances, then: %s\n", n, vfun_text(held[n]));
	vfun_close(held[n], NULL);
	while (n)
		if (vfun_close(held[--n], NULL))
			die("release fails");
	return 0;
}

/* As many as can be had, on as many connections as that takes. */
static int
grants_held(void)
{
	unsigned n = 0;

	for (unsigned i = 0, had = 16; had == 16; i++) {
		int fd = vfun_control_open(NULL, 0);

		for (had = 0; had < 16; had++, n++) {
			struct vfun_msg m = { .type = VFUN_MSG_NEGOTIATE };

			m.body.negotiate.version_min = m.body.negotiate.version_max = VFUN_VERSION;
			strcpy(m.body.negotiate.function, "factorial");
			if (vfun_control(fd, &m, 10000) || m.reason)
				break;
		}
	}
	printf("ok %u grants\n", n);
	fflush(stdout);
	for (;;)
		pause();
}

/* What is granted when it is asked for may be taken back before it is used. */
static int
late(const char *function)
{
	struct vfun_msg m = { .type = VFUN_MSG_NEGOTIATE };
	int fd = vfun_control_open(NULL, 0);
	sigset_t usr1;
	int sig;
	int r;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	m.body.negotiate.version_min = m.body.negotiate.version_max = VFUN_VERSION;
	snprintf(m.body.negotiate.function, VFUN_NAME_MAX, "%s", function);
	r = vfun_control(fd, &m, 10000);
	if (r || m.reason)
		die("negotiate: %d, %u: %s", r, m.reason, m.text);
	printf("granted\n");
	fflush(stdout);
	sigwait(&usr1, &sig);
	m = (struct vfun_msg){ .type = VFUN_MSG_ACTIVATE, .body.activate.grant = m.body.grant.grant };
	r = vfun_control(fd, &m, 10000);
	if (r)
		die("activate: %s", strerror(-r));
	printf("ok %s: %s\n", vfun_reason_name(m.reason), m.text);
	return 0;
}

/* More connections than a user may have; each is good, until one gets its nack. */
static int
conns(int hold)
{
	struct vfun_msg m = { .type = VFUN_MSG_INFO };
	int fd[512];
	unsigned n = 0;
	int r;

	do {
		m.type = VFUN_MSG_INFO;
		fd[n] = vfun_control_open(NULL, 0);
		if (fd[n] < 0)
			die("connection %u: %s", n, strerror(-fd[n]));
		r = vfun_control(fd[n], &m, 10000);
		if (r)
			die("connection %u: %s", n, strerror(-r));
	} while (!m.reason && ++n < 511);
	printf("ok %u connections, then: %s: %s\n", n, vfun_reason_name(m.reason), m.text);
	fflush(stdout);
	while (hold)
		pause();
	while (n)
		close(fd[n--]);
	close(fd[0]);
	return 0;
}

static struct vfun_msg refusal; /* the first nack that a thread of pending() got */
static unsigned acks, nacks;

static int over;

static void *
ask(void *arg)
{
	int fd = vfun_control_open(NULL, 0);

	(void)arg;
	while (!__atomic_load_n(&over, __ATOMIC_ACQUIRE)) {
		struct vfun_msg m = { .type = VFUN_MSG_INFO };
		int r = fd < 0 ? fd : vfun_control(fd, &m, 60000);

		if (r)
			die("a request: %s", strerror(-r));
		if (!m.reason) {
			__atomic_add_fetch(&acks, 1, __ATOMIC_RELAXED);
		} else if (__atomic_add_fetch(&nacks, 1, __ATOMIC_RELAXED) == 1) {
			refusal = m;
			__atomic_store_n(&over, 1, __ATOMIC_RELEASE);
		}
	}
	close(fd);
	return NULL;
}

/* Requests of so many threads, until one is refused; those that wait must then still be answered. */
static int
pending(unsigned n)
{
	pthread_t thread[256];

	over = 0;
	puts("asking");
	fflush(stdout);
	for (unsigned i = 0; i < n && i < 256; i++)
		if (pthread_create(&thread[i], NULL, ask, NULL))
			die("no thread");
	for (unsigned i = 0; i < n && i < 256; i++)
		pthread_join(thread[i], NULL);
	printf("ok %u answers, %u refusals: %s: %s\n", acks, nacks, vfun_reason_name(refusal.reason), refusal.text);
	return 0;
}

/* Everything that costs vfund and the share something, as fast as it goes, with nothing in return. */
static int
flood(double seconds, const char *path)
{
	struct vfun *v = open_or_die("factorial", path, 1, 0);
	double end = now() + seconds;
	unsigned long requests = 0, bells = 0, opens = 0;

	while (now() < end) {
		struct vfun_msg m = { .magic = VFUN_MSG_MAGIC, .type = VFUN_MSG_NEGOTIATE, .version = VFUN_VERSION };
		int fd = vfun_control_open(NULL, 0);
		ssize_t n = 1;

		strcpy(m.body.negotiate.function, "factorial");
		m.body.negotiate.version_min = m.body.negotiate.version_max = VFUN_VERSION;
		opens += fd >= 0;
		for (unsigned i = 0; fd >= 0 && n > 0 && i < 2000 && now() < end; i++) {
			n = v->guest ? write(fd, &m, sizeof(m)) : send(fd, &m, sizeof(m), MSG_DONTWAIT | MSG_NOSIGNAL);
			requests += n > 0;
			if (v->guest && write(v->bell, "!", 1) == 1)
				bells++;
			else if (!v->guest)
				bells += (unsigned long)__atomic_add_fetch(
					     (uint32_t *)(void *)(v->out.map + 128), 1, __ATOMIC_RELAXED) > 0;
		}
		if (fd >= 0)
			close(fd);
	}
	printf("ok %lu requests, %lu bells, %lu connections\n", requests, bells, opens);
	return vfun_close(v, NULL) == -ENOMEM;
}

/* Connect to vfund and hang up, as fast as it goes. */
static int
connects(double seconds)
{
	double end = now() + seconds;
	unsigned long n = 0;

	while (now() < end) {
		int fd = vfun_control_open(NULL, 0);

		n += fd >= 0;
		if (fd >= 0)
			close(fd);
	}
	printf("ok %lu connections\n", n);
	return 0;
}

/* As much load, and nothing asked of anybody. */
static int
spin(double seconds)
{
	double end = now() + seconds;

	while (now() < end)
		;
	printf("ok\n");
	return 0;
}

/* The service's increments of datain's bell are its wake-ups of a client that has parked. */
static int
park(const char *path)
{
	struct vfun *v = open_or_die("factorial", path, 1, 0);
	const uint64_t args[2] = { 20, 3000000 };
	uint32_t before = ((volatile struct vfun_hdr *)(void *)v->in.map)->bell;
	struct vfun_result res;
	uint32_t service, mine;
	uint32_t rung;

	for (int i = 0; i < 5; i++) {
		expect(v, VFUN_CMD_GET, args, 2, VFUN_OK, &res);
		check_factorial(&res, 20);
	}
	rung = ((volatile struct vfun_hdr *)(void *)v->in.map)->bell - before;
	if (rung < 1)
		die("five long calls, and the service rang %u times", rung);
	service = ((volatile struct vfun_hdr *)(void *)v->in.map)->cpu;
	mine = ((volatile struct vfun_hdr *)(void *)v->out.map)->cpu;
	if (!service || !mine)
		die("a side that parked does not say where: service %u, client %u", service, mine);
	printf("ok rung %u times, service on %u, client on %u\n", rung, service - 1, mine - 1);
	return vfun_close(v, NULL) ? 1 : 0;
}

/* Batches of 8 long calls: all answers come together, in order, and the service rings once for them, if it has one
 * worker. */
static int
gather(const char *path, unsigned batches)
{
	struct vfun *v = open_or_die("factorial", path, 8, 0);
	const volatile struct vfun_hdr *h = (const volatile void *)v->in.map;
	const uint64_t args[2] = { 20, 300000 };
	uint32_t before = h ? h->bell : 0, rung;

	for (unsigned i = 0; i < batches; i++) {
		struct vfun_done d[8];
		uint32_t ticket;
		int n;

		for (unsigned k = 0; k < 8; k++)
			if (vfun_submit(v, VFUN_CMD_GET, args, 2, NULL, &ticket))
				die("call %u can't be submitted", k);
		n = vfun_gather(v, d, 1 + i % 8, 8, TIMEOUT);
		if (n < 1 + (int)i % 8)
			die("%d answers instead of %u", n, 1 + i % 8);
		n += vfun_gather(v, d + n, 9, 8 - (unsigned)n, TIMEOUT);
		if (n != 8)
			die("%d answers instead of 8", n);
		for (unsigned k = 0; k < 8; k++)
			check_factorial(&d[k].result, 20);
	}
	rung = h ? h->bell - before : 0;
	if (vfun_granted(v)->workers == 1 && rung > 2 * batches)
		die("two sleeps for each of %u batches, and the service rang %u times", batches, rung);
	if (vfun_gather(v, &(struct vfun_done){ 0 }, 1, 1, TIMEOUT) != 0)
		die("more answers than calls");
	printf("ok %u batches, %u workers, rung %u times\n", batches, vfun_granted(v)->workers, rung);
	return vfun_close(v, NULL) ? 1 : 0;
}

/* Resident kilobytes of the mapping that begins at p. */
static unsigned long
resident(const void *p)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char want[32], line[256];
	unsigned long kb = 0;
	int found = 0;

	snprintf(want, sizeof(want), "%lx-", (unsigned long)(uintptr_t)p);
	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, want, strlen(want)))
			found = 1;
		else if (found && sscanf(line, "Rss: %lu", &kb) == 1)
			break;
	}
	if (f)
		fclose(f);
	return found ? kb : ~0ul;
}

static int
release(void)
{
	struct vfun *v = open_or_die("sha256", "host", 1, 8 << 20);
	struct vfun_msg m = { .magic = VFUN_MSG_MAGIC, .type = VFUN_MSG_RELEASE, .version = VFUN_VERSION };
	struct vfun_msg reply;
	struct timeval tv = { .tv_sec = 5 };
	unsigned long before, after;
	int fd = vfun_control_open(NULL, 0);

	memset(vfun_out_arena(v), 1, 8 << 20);
	before = resident(v->out.map);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	m.body.release.instance = vfun_activated(v)->instance;
	for (m.tag = 1; m.tag <= 3; m.tag++)
		if (send(fd, &m, sizeof(m), 0) < 0)
			die("send: %s", strerror(errno));
	for (int i = 0; i < 3; i++)
		if (recv(fd, &reply, sizeof(reply), 0) != (ssize_t)sizeof(reply))
			die("RELEASE %d of one instance is not answered", i + 1);
	after = resident(v->out.map);
	if (before < 8000 || after > 100)
		die("%lu kB were resident, %lu after the release", before, after);
	close(fd);
	vfun_close(v, NULL);
	printf("ok\n");
	return 0;
}

int
main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "inflight") && argc == 5)
		return inflight(argv[2], (unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]));
	if (!strcmp(what, "batch") && argc == 5)
		return batch(argv[2], (unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]));
	if (!strcmp(what, "bulk") && argc == 5)
		return bulk(argv[2], (unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]));
	if (!strcmp(what, "setget") && argc == 3)
		return setget(argv[2]);
	if (!strcmp(what, "insane") && argc == 3)
		return insane(argv[2]);
	if (!strcmp(what, "refused") && argc == 3)
		return refused(argv[2]);
	if (!strcmp(what, "control"))
		return control();
	if (!strcmp(what, "hold") && argc >= 4 && argc <= 6)
		return hold(argv[2], argv[3], argc > 4 ? (unsigned)atoi(argv[4]) : 1,
		    argc > 5 ? strtoull(argv[5], NULL, 10) : 4096, 0);
	if (!strcmp(what, "busy") && argc == 3)
		return hold("factorial", argv[2], 1, 4096, 1);
	if (!strcmp(what, "load") && argc == 4)
		return load(atof(argv[2]), argv[3]);
	if (!strcmp(what, "gather") && argc == 4)
		return gather(argv[2], (unsigned)atoi(argv[3]));
	if (!strcmp(what, "park") && argc == 3)
		return park(argv[2]);
	if (!strcmp(what, "release"))
		return release();
	if (!strcmp(what, "flood") && argc == 4)
		return flood(atof(argv[2]), argv[3]);
	if (!strcmp(what, "connects") && argc == 3)
		return connects(atof(argv[2]));
	if (!strcmp(what, "spin") && argc == 3)
		return spin(atof(argv[2]));
	if (!strcmp(what, "grants"))
		return argc == 3 ? grants_held() : grants();
	if (!strcmp(what, "grant") && argc == 3)
		return late(argv[2]);
	if (!strcmp(what, "conns"))
		return conns(argc == 3);
	if (!strcmp(what, "pending") && argc == 3)
		return pending((unsigned)atoi(argv[2]));
	die("client: what?");
}
