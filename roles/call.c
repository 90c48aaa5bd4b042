/* SPDX-License-Identifier: MIT
 *
 * call.c - vfun call: one call from the command line, all four phases around it
 *
 * What the arguments mean is the function's: vfund's list tells whether they are numbers or a file. Bulk input goes
 * straight into the arena: read(2) from the file is the only copy. Only the result goes to standard output.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <gmp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/cli.h"
#include "roles.h"

#define CHUNK (1u << 20)
#define BIG (64u << 20) /* from here on it is worth to ask whether more will be taken */
#define ROOM_DEFAULT (64u << 10)
#define ARGS_MAX ((VFUN_PAYLOAD - sizeof(struct vfun_bulk)) / 8) /* numbers that fit a request beside bulk data */
#define AGAIN (-1) /* instead of an exit status: hardware failed, and software would do */

struct call {
	struct vfun_options opt;
	const char *function;
	char **argv; /* its arguments */
	int argc;
	const char *output; /* -o, NULL: standard output */
	int json;
	int verbose;
	unsigned timeout_ms;
	uint64_t room;	/* for a number's result, bytes */
	int bytes;	/* the argument is a file */
	int bytes_back; /* and so is the result, as long or nearly */
	int unlisted;	/* vfund has no such function for us: its nack says it best */
	const char *file;
	int fd;		     /* of the input */
	uint8_t *read_ahead; /* input of unknown length, in memory */
	uint64_t in_len;
	uint64_t args[ARGS_MAX];
	unsigned nargs;
	struct vfun *v;
	struct vfun_grant grant; /* outlive v */
	enum vfun_path path;
	struct vfun_times times;
	uint64_t compute_ns;
	struct vfun_result res;
	uint8_t *result; /* res.len bytes */
};

static int
usage(void)
{
	printf("usage: vfun call [-jv] [-o FILE] [--path auto|host|dax|ivshmem|copy|net]\n"
	       "                 [--target any|software|hardware]\n"
	       "                 [--timeout SECONDS] [--room SIZE] [--run DIR]\n"
	       "                 [--server ADDRESS:PORT] [--key-file FILE] FUNCTION ARGUMENT ...\n"
	       "  vfun call factorial 51            numbers: arguments, result\n"
	       "  vfun call sha256 FILE             a file, or - for standard input\n"
	       "  vfun list                         which functions there are; see vfun-call(1)\n");
	return cli_flush("call");
}

static int fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int
fail(int status, const char *fmt, ...)
{
	va_list ap;

	fputs("vfun call: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	putc('\n', stderr);
	return status;
}

static uint64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Command line */

static int
choice(const char *s, const char *const names[], unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(s, names[i]))
			return (int)i;
	return -1;
}

static int
parse_option(struct call *c, int option)
{
	static const char *const paths[] = { "auto", "host", "dax", "copy", "ivshmem", "net" };
	static const char *const targets[] = { "any", "software", "hardware" };
	int n;

	switch (option) {
	case 'j':
		c->json = 1;
		return 0;
	case 'v':
		c->verbose = 1;
		return 0;
	case 'o':
		c->output = optarg;
		return 0;
	case 'r':
		c->opt.run = optarg;
		return 0;
	case 'p':
		n = choice(optarg, paths, 6);
		c->opt.path = (enum vfun_path)n;
		return n < 0 ? fail(EXIT_USAGE, "--path is auto, host, dax, ivshmem, copy or net, not '%s'", optarg)
			     : 0;
	case 's':
		c->opt.server = optarg;
		return 0;
	case 'k':
		c->opt.key_file = optarg;
		return 0;
	case 't':
		n = choice(optarg, targets, 3);
		c->opt.target = (enum vfun_target)n;
		return n < 0 ? fail(EXIT_USAGE, "--target is any, software or hardware, not '%s'", optarg) : 0;
	case 'T':
		return cli_seconds(optarg, &c->timeout_ms)
			   ? fail(EXIT_USAGE, "--timeout: '%s' is not a number of seconds", optarg)
			   : 0;
	case 'R':
		return cli_size(optarg, &c->room) ? fail(EXIT_USAGE, "--room: '%s' is not a size", optarg) : 0;
	default: /* getopt has said why */
		return EXIT_USAGE;
	}
}

/* Options may stand anywhere, but behind the function's name what begins like a negative number is an argument: for
 * the message that it deserves. */
static int
parse(struct call *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "output", required_argument, NULL, 'o' },
		{ "run", required_argument, NULL, 'r' },
		{ "path", required_argument, NULL, 'p' },
		{ "target", required_argument, NULL, 't' },
		{ "timeout", required_argument, NULL, 'T' },
		{ "room", required_argument, NULL, 'R' },
		{ "server", required_argument, NULL, 's' },
		{ "key-file", required_argument, NULL, 'k' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int only = 0; /* arguments: "--" was there */
	int n = 1;

	while (optind < argc) {
		const char *s = argv[optind];
		int at = optind;
		int argument = only || (n > 1 && s[0] == '-' && isdigit((unsigned char)s[1]));
		int option = argument ? -1 : getopt_long(argc, argv, "+jvo:", options, NULL);
		int r;

		if (option == 'h')
			return usage();
		r = option == -1 ? 0 : parse_option(c, option);
		if (r)
			return r;
		only |= option == -1 && optind > at;
		if (option == -1 && optind < argc)
			argv[n++] = argv[optind++];
	}
	if (n == 1)
		return cli_wrong("call", "no function named");
	c->function = argv[1];
	c->argv = argv + 2;
	c->argc = n - 2;
	return 0;
}

/* The function's arguments */

/* Is the argument a file? What vfund doesn't list is not looked at any further: vfund itself will refuse it. Nor is
 * another failure said here, vfun_open() does that better; but who gave no answer once isn't waited for again. */
static int
ask_kind(struct call *c)
{
	struct vfun_msg msg = { .type = VFUN_MSG_LIST };
	int fd = vfun_control_for(&c->opt);
	int r = fd < 0 ? fd : 0;

	c->unlisted = 1;
	while (!r && !(r = vfun_control(fd, &msg, c->opt.timeout_ms)) && !msg.reason) {
		struct vfun_function_info f = msg.body.function;

		f.name[VFUN_NAME_MAX - 1] = '\0';
		if (!strcmp(f.name, c->function)) {
			c->bytes = f.arg_kind == VFUN_KIND_BYTES;
			c->bytes_back = f.res_kind == VFUN_KIND_BYTES;
			c->unlisted = 0;
			break;
		}
		msg = (struct vfun_msg){ .type = VFUN_MSG_LIST };
		msg.body.query.position = f.next;
	}
	if (fd >= 0)
		close(fd);
	return r == -ETIMEDOUT ? fail(EXIT_TIMEOUT, "%s: vfund did not answer within %g seconds", c->function,
				     c->opt.timeout_ms / 1000.0)
			       : 0;
}

/* Would vfund give an arena of this size at all? If not: its refusal. */
static int
too_long(const struct call *c, uint64_t size)
{
	struct vfun_msg msg = { .type = VFUN_MSG_NEGOTIATE };
	struct vfun_negotiate *n = &msg.body.negotiate;
	int fd = vfun_control_for(&c->opt);
	int r;

	if (fd < 0)
		return 0; /* vfun_open() will say it better */
	snprintf(n->function, sizeof(n->function), "%s", c->function);
	n->version_min = n->version_max = VFUN_VERSION;
	n->out_arena = size;
	r = vfun_control(fd, &msg, c->opt.timeout_ms);
	close(fd);
	return !r && msg.reason == VFUN_R_TOO_LARGE ? fail(EXIT_REFUSED, "%s: %s [too-large]", c->file, msg.text) : 0;
}

/* Wait until there is something to read, at most until the deadline. */
static int
readable(const struct call *c, uint64_t deadline)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };
	uint64_t now = now_ns();

	if (now < deadline && poll(&p, 1, (int)((deadline - now) / 1000000u) + 1) != 0)
		return 0;
	return fail(EXIT_TIMEOUT, "%s: no end of it within %g seconds", c->file, c->timeout_ms / 1000.0);
}

/* Input whose length isn't known before it ends: standard input, a pipe. */
static int
read_all(struct call *c)
{
	uint64_t deadline = now_ns() + (uint64_t)c->timeout_ms * 1000000u;
	uint64_t size = 0;

	for (;;) {
		ssize_t n;
		int r;

		if (c->in_len == size) {
			uint8_t *p;

			size = size ? 2 * size : CHUNK;
			r = size > BIG ? too_long(c, c->in_len + 1) : 0;
			if (r)
				return r;
			p = realloc(c->read_ahead, size);
			if (!p)
				return fail(EXIT_SYSTEM, "%s: too long for this machine's memory", c->file);
			c->read_ahead = p;
		}
		r = readable(c, deadline);
		if (r)
			return r;
		n = read(c->fd, c->read_ahead + c->in_len, size - c->in_len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(EXIT_SYSTEM, "%s: %s", c->file, strerror(errno));
		if (n == 0)
			return 0;
		c->in_len += (uint64_t)n;
	}
}

static int
open_input(struct call *c)
{
	struct stat st;

	/* Not blocking, for a FIFO that nobody writes to. */
	c->fd = strcmp(c->file, "-") ? open(c->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : STDIN_FILENO;
	if (c->fd < 0 || fstat(c->fd, &st) < 0)
		return fail(EXIT_USAGE, "%s: %s", c->file, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return fail(EXIT_USAGE, "%s: is a folder", c->file);
	/* Files in /proc and the like have size 0 and bytes all the same. */
	if (!S_ISREG(st.st_mode) || st.st_size == 0 || lseek(c->fd, 0, SEEK_CUR) != 0)
		return read_all(c);
	c->in_len = (uint64_t)st.st_size;
	return 0;
}

static int
parse_arguments(struct call *c)
{
	int first = 0;
	int r;

	if (c->unlisted)
		return 0;
	if (c->bytes) {
		if (first == c->argc)
			return fail(EXIT_USAGE, "%s needs a file, or - for standard input", c->function);
		c->file = c->argv[first++];
	}
	if ((size_t)(c->argc - first) > ARGS_MAX)
		return fail(EXIT_USAGE, "%s: too many arguments: see vfun list", c->function);
	for (; first < c->argc; first++)
		if (cli_u64(c->argv[first], &c->args[c->nargs++]))
			return fail(EXIT_USAGE, "'%s' is not a number from 0 to 2^64-1", c->argv[first]);
	if (!c->bytes && !c->nargs)
		return fail(EXIT_USAGE, "%s needs a number", c->function);
	r = c->bytes ? open_input(c) : 0;
	if (r)
		return r;
	c->opt.out_arena = c->in_len;
	/* Compression may lengthen what can't be compressed, a little. */
	c->opt.in_arena = !c->bytes ? c->room : c->bytes_back ? c->in_len + c->in_len / 128 + 4096 : 0;
	return 0;
}

/* Bulk data */

static int
fill(struct call *c)
{
	uint8_t *arena = vfun_out_arena(c->v);
	uint8_t *buf = arena ? NULL : malloc(CHUNK);
	uint64_t done = 0;
	int r = 0;

	if (c->read_ahead) {
		free(buf);
		r = vfun_put(c->v, 0, c->read_ahead, c->in_len);
		return r ? fail(cli_status(-ECONNRESET), "%s: writing to the arena failed: %s", c->function,
			       strerror(-r))
			 : 0;
	}
	if (!arena && !buf)
		return fail(EXIT_SYSTEM, "out of memory");
	while (!r && done < c->in_len) {
		uint64_t want = c->in_len - done < CHUNK ? c->in_len - done : CHUNK;
		ssize_t n = read(c->fd, arena ? arena + done : buf, want);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			r = fail(
			    EXIT_SYSTEM, "%s: %s", c->file, n ? strerror(errno) : "became shorter while it was read");
		else if (!arena && (r = vfun_put(c->v, done, buf, (uint64_t)n)))
			r = fail(
			    cli_status(-ECONNRESET), "%s: writing to the arena failed: %s", c->function, strerror(-r));
		done += n > 0 ? (uint64_t)n : 0;
	}
	free(buf);
	return r;
}

static int
fetch(struct call *c)
{
	int r;

	c->result = malloc(c->res.len + 1);
	if (!c->result)
		return fail(EXIT_SYSTEM, "out of memory");
	if (!c->res.bulk) {
		memcpy(c->result, c->res.inline_result, c->res.len);
		return 0;
	}
	r = vfun_fetch(c->v, 0, c->result, c->res.len);
	return r ? fail(cli_status(-ECONNRESET), "%s: reading the result failed: %s", c->function, strerror(-r)) : 0;
}

/* The call itself */

static const char *
why_not(const struct call *c, int err)
{
	return *vfun_text(c->v) ? vfun_text(c->v) : strerror(-err);
}

/* The device failed in the middle of the call; is software as good, and to be had? */
static int
software_would_do(const struct call *c, enum vfun_reason reason)
{
	return (reason == VFUN_R_LATE || reason == VFUN_R_DEVICE) && c->opt.target == VFUN_TARGET_ANY &&
	       c->grant.software_ok;
}

static int
explain(const struct call *c)
{
	const char *why = vfun_reason_name(c->res.reason);

	switch (c->res.reason) {
	case VFUN_R_ARGUMENTS:
	case VFUN_R_NO_DATA:
		return fail(EXIT_FUNCTION, "%s refuses its arguments: %s", c->function,
		    c->res.len ? vfun_text(c->v) : "see vfun list");
	case VFUN_R_DEVICE:
		return fail(EXIT_LOST, "%s: the device failed: see vfund's log", c->function);
	case VFUN_R_RESULT_SIZE:
		if (c->res.len)
			return fail(EXIT_FUNCTION, "%s: the result needs %llu bytes: use --room", c->function,
			    (unsigned long long)c->res.len);
		return fail(EXIT_FUNCTION, "%s: the result is longer than %llu bytes: use --room", c->function,
		    (unsigned long long)c->opt.in_arena);
	default:
		return fail(EXIT_FUNCTION, "%s failed: %s", c->function, why);
	}
}

static int
compute(struct call *c)
{
	struct vfun_bulk bulk = { .in_len = c->in_len, .out_len = c->opt.in_arena };
	uint64_t start = now_ns();
	int r;

	r = c->bytes ? fill(c) : 0;
	if (r)
		return r;
	r = vfun_call(c->v, VFUN_CMD_GET, c->args, c->nargs, &bulk, &c->res, (uint64_t)c->timeout_ms * 1000000u);
	c->compute_ns = now_ns() - start;
	if (r == -ETIMEDOUT)
		return fail(EXIT_TIMEOUT, "%s: no answer within %g seconds", c->function, c->timeout_ms / 1000.0);
	if (software_would_do(c, r ? vfun_reason(c->v) : c->res.reason)) {
		fprintf(stderr, "vfun call: %s: %s: software computes it\n", c->function,
		    r ? vfun_text(c->v) : "the device failed");
		return AGAIN;
	}
	if (r)
		return fail(cli_status(r), "%s: %s", c->function, why_not(c, r));
	return c->res.reason ? explain(c) : fetch(c);
}

/* Output */

static char *
number_text(const struct call *c)
{
	mpz_t n;
	char *s;

	mpz_init(n);
	mpz_import(n, c->res.len, -1, 1, 0, 0, c->result);
	s = mpz_get_str(NULL, 10, n);
	mpz_clear(n);
	return s;
}

static char *
hex_text(const struct call *c)
{
	char *s = malloc(2 * c->res.len + 1);

	for (uint64_t i = 0; s && i < c->res.len; i++)
		sprintf(s + 2 * i, "%02x", c->result[i]);
	return s;
}

static void
print_json(const struct call *c, const char *text)
{
	printf("{\"function\":");
	cli_json_string(stdout, c->function);
	if (text) {
		printf(",\"result\":");
		cli_json_string(stdout, text);
	}
	printf(
	    ",\"bytes\":%llu,\"path\":\"%s\",\"target\":\"%s\",\"times_us\":{\"negotiation\":%.1f,\"activation\":%.1f,"
	    "\"computation\":%.1f,\"release\":%.1f}}\n",
	    (unsigned long long)c->res.len, vfun_path_name(c->path), cli_target_name(c->grant.target),
	    c->times.negotiate / 1e3, c->times.activate / 1e3, c->compute_ns / 1e3, c->times.release / 1e3);
}

static int
write_output(const struct call *c, const void *data, size_t len, const char *end)
{
	FILE *f = c->output ? fopen(c->output, "we") : stdout;

	if (!f)
		return fail(EXIT_SYSTEM, "%s: %s", c->output, strerror(errno));
	fwrite(data, 1, len, f);
	fputs(end, f);
	if (f == stdout)
		return cli_flush("call");
	if (ferror(f) | fclose(f))
		return fail(EXIT_SYSTEM, "%s: %s", c->output, strerror(errno));
	return 0;
}

static int
show(const struct call *c)
{
	int bytes = c->grant.res_kind == VFUN_KIND_BYTES;
	char *text = NULL;
	int r = 0;

	if (c->grant.res_kind == VFUN_KIND_INT)
		text = number_text(c);
	else if (!bytes)
		text = hex_text(c);
	if (!bytes && !text)
		return fail(EXIT_SYSTEM, "out of memory");
	if (bytes)
		r = write_output(c, c->result, c->res.len, "");
	else if (!c->json || c->output)
		r = write_output(c, text, strlen(text), "\n");
	if (!r && c->json) {
		print_json(c, text);
		r = cli_flush("call");
	}
	free(text);
	return r;
}

static void
say_phases(const struct call *c)
{
	fprintf(stderr, "vfun call: %s: %s, path %s\n", c->function, cli_target_name(c->grant.target),
	    vfun_path_name(c->path));
	fprintf(stderr,
	    "  negotiation %9.3f ms\n  activation  %9.3f ms\n  computation %9.3f ms\n  release     %9.3f ms\n",
	    c->times.negotiate / 1e6, c->times.activate / 1e6, c->compute_ns / 1e6, c->times.release / 1e6);
}

/* All phases; the instance is released before anything is printed. */
static int
run(struct call *c)
{
	int status;
	int r = vfun_open(&c->v, c->function, &c->opt);

	if (r) {
		status = r == -EACCES ? fail(EXIT_REFUSED, "%s: %s [%s]", c->function, vfun_text(c->v),
					    vfun_reason_name(vfun_reason(c->v)))
				      : fail(cli_status(r), "%s: %s", c->function, why_not(c, r));
		vfun_close(c->v, NULL);
		return status;
	}
	c->grant = *vfun_granted(c->v);
	if (c->json && !c->output && c->grant.res_kind == VFUN_KIND_BYTES) {
		vfun_close(c->v, NULL);
		return fail(EXIT_USAGE, "%s: its result is bytes: --json needs -o FILE for them", c->function);
	}
	c->path = vfun_path(c->v);
	if (*vfun_fallback(c->v))
		fprintf(stderr, "vfun call: %s: %s: software computes it\n", c->function, vfun_fallback(c->v));
	/* That there is no shared memory is no news; that what there is doesn't work is. */
	if (c->path == VFUN_PATH_IS_COPY && *vfun_text(c->v) && (c->verbose || vfun_incoherent(c->v)))
		fprintf(stderr, "vfun call: %s: using path copy\n", vfun_text(c->v));
	status = compute(c);
	r = vfun_close(c->v, &c->times);
	if (status == AGAIN) {
		c->opt.target = VFUN_TARGET_SOFTWARE;
		if (c->bytes && !c->read_ahead && lseek(c->fd, 0, SEEK_SET) < 0)
			return fail(EXIT_SYSTEM, "%s: %s", c->file, strerror(errno));
		return run(c);
	}
	if (r && !status)
		fprintf(stderr, "vfun call: %s: release: %s\n", c->function, strerror(-r));
	if (status)
		return status;
	if (c->verbose)
		say_phases(c);
	return show(c);
}

int
role_call(int argc, char **argv)
{
	struct call c = { .opt = { .size = sizeof(c.opt) }, .timeout_ms = 60000, .room = ROOM_DEFAULT, .fd = -1 };
	int r;

	cli_begin(argv, "call");
	r = parse(&c, argc, argv);
	if (!c.function)
		return r;
	c.opt.timeout_ms = c.timeout_ms < 10000 ? c.timeout_ms : 10000;
	r = ask_kind(&c);
	if (!r)
		r = parse_arguments(&c);
	if (!r)
		r = run(&c);
	free(c.read_ahead);
	free(c.result);
	return r;
}
