/* SPDX-License-Identifier: MIT
 *
 * call.c - vfun call: one call from the command line, all four phases around it
 *
 * What the arguments mean is the function's: its signature tells, and a call that doesn't fit it is not made. Only the
 * result goes to standard output.
 */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "call.h"

#define ROOM_DEFAULT (64u << 10)
#define AGAIN (-1) /* instead of an exit status: hardware failed, and software would do */

static int
usage(void)
{
	printf("usage: vfun call [-jv] [-o FILE] [--path auto|host|dax|ivshmem|copy|net]\n"
	       "                 [--target any|software|hardware]\n"
	       "                 [--timeout SECONDS] [--room SIZE] [--run DIR]\n"
	       "                 [--server ADDRESS:PORT] [--key-file FILE] FUNCTION ARGUMENT ...\n"
	       "  vfun call factorial 51            numbers: arguments, result\n"
	       "  vfun call sha256 FILE             a file, or - for standard input\n"
	       "  vfun call vadd [1,2] @b.npy       arrays: lists, files\n"
	       "  vfun list                         which functions there are; see vfun-call(1)\n");
	return cli_flush("call");
}

int
call_fail(int status, const char *fmt, ...)
{
	va_list ap;

	fputs("vfun call: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	putc('\n', stderr);
	return status;
}

uint64_t
call_ns(void)
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
		return n < 0
			   ? call_fail(EXIT_USAGE, "--path is auto, host, dax, ivshmem, copy or net, not '%s'", optarg)
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
		return n < 0 ? call_fail(EXIT_USAGE, "--target is any, software or hardware, not '%s'", optarg) : 0;
	case 'T':
		return cli_seconds(optarg, &c->timeout_ms)
			   ? call_fail(EXIT_USAGE, "--timeout: '%s' is not a number of seconds", optarg)
			   : 0;
	case 'R':
		return cli_size(optarg, &c->room) ? call_fail(EXIT_USAGE, "--room: '%s' is not a size", optarg) : 0;
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
		int argument = only || (n > 1 && s[0] == '-' && (isdigit((unsigned char)s[1]) || s[1] == '.'));
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

/* The function's signature */

/* What a vfund before version 1.3 says of it, as a signature: it takes numbers, or bytes and then numbers. */
static int
ask_kind(struct call *c, char text[VFUN_SIGNATURE_MAX])
{
	static const char *const results[] = { "out hex", "int", "out u8[*]", "out hex" };
	struct vfun_msg msg = { .type = VFUN_MSG_LIST };
	int fd = vfun_control_for(&c->opt);
	int r = fd < 0 ? fd : 0;

	while (!r && !(r = vfun_control(fd, &msg, c->opt.timeout_ms)) && !msg.reason) {
		struct vfun_function_info f = msg.body.function;

		f.name[VFUN_NAME_MAX - 1] = '\0';
		if (!strcmp(f.name, c->function)) {
			snprintf(text, VFUN_SIGNATURE_MAX, "%s, y u64 default 0, z u64 default 0 -> %s",
			    f.arg_kind == VFUN_KIND_BYTES ? "data u8[*], x u64 default 0" : "x u64",
			    results[f.res_kind & 3]);
			break;
		}
		msg = (struct vfun_msg){ .type = VFUN_MSG_LIST };
		msg.body.query.position = f.next;
	}
	if (fd >= 0)
		close(fd);
	return r;
}

/* What vfund refuses to tell is not looked at any further: it will refuse the function as well. Nor is another failure
 * said here, vfun_open() does that better; but who gave no answer once isn't waited for again. */
static int
ask_signature(struct call *c)
{
	char text[VFUN_SIGNATURE_MAX] = "";
	char fault[VFUN_TEXT_MAX];
	int r = vfun_signature(&c->opt, c->function, text);

	if (r == -EOPNOTSUPP)
		r = ask_kind(c, text);
	if (r == -ETIMEDOUT)
		return call_fail(EXIT_TIMEOUT, "%s: vfund did not answer within %g seconds", c->function,
		    c->opt.timeout_ms / 1000.0);
	c->unlisted = r || !*text;
	if (!c->unlisted && vfun_signature_parse(&c->sig, text, fault))
		return call_fail(EXIT_SYSTEM, "%s: its signature, %s: %s", c->function, text, fault);
	return 0;
}

static int
fetch(struct call *c)
{
	int r;

	c->result = malloc(c->res.len + 1);
	if (!c->result)
		return call_fail(EXIT_SYSTEM, "out of memory");
	if (c->res.bulk && c->res.len > c->opt.in_arena)
		return call_fail(EXIT_LOST, "%s: the service's answer breaks the protocol", c->function);
	if (!c->res.bulk) {
		memcpy(c->result, c->res.inline_result, c->res.len);
		return 0;
	}
	r = vfun_fetch(c->v, 0, c->result, c->res.len);
	return r ? call_fail(cli_status(-ECONNRESET), "%s: reading the result failed: %s", c->function, vfun_text(c->v))
		 : 0;
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
		return call_fail(EXIT_FUNCTION, "%s refuses its arguments: %s", c->function,
		    c->res.len ? vfun_text(c->v) : "see vfun list");
	case VFUN_R_DEVICE:
		return call_fail(EXIT_LOST, "%s: the device failed: see vfund's log", c->function);
	case VFUN_R_RESULT_SIZE:
		if (c->res.len)
			return call_fail(EXIT_FUNCTION, "%s: the result needs %llu bytes: use --room", c->function,
			    (unsigned long long)c->res.len);
		return call_fail(EXIT_FUNCTION, "%s: the result is longer than %llu bytes: use --room", c->function,
		    (unsigned long long)c->opt.in_arena);
	default:
		return call_fail(EXIT_FUNCTION, "%s failed: %s", c->function, why);
	}
}

/* One slot; the result's room comes with `get`. */
static int
call_slot(struct call *c, const struct slot *s)
{
	struct vfun_bulk bulk = { .in_len = s->in_len, .out_len = s->cmd == VFUN_CMD_GET ? c->opt.in_arena : 0 };
	int inlined = s->nargs > (VFUN_PAYLOAD - sizeof(bulk)) / 8; /* no room for the descriptor, and no need of it */
	int r = s->sources ? input_fill(c, s) : 0;

	if (r)
		return r;
	r = vfun_call(
	    c->v, s->cmd, s->arg, s->nargs, inlined ? NULL : &bulk, &c->res, (uint64_t)c->timeout_ms * 1000000u);
	if (r == -ETIMEDOUT)
		return call_fail(EXIT_TIMEOUT, "%s: no answer within %g seconds", c->function, c->timeout_ms / 1000.0);
	if (software_would_do(c, r ? vfun_reason(c->v) : c->res.reason)) {
		fprintf(stderr, "vfun call: %s: %s: software computes it\n", c->function,
		    r ? vfun_text(c->v) : "the device failed");
		return AGAIN;
	}
	if (r)
		return call_fail(cli_status(r), "%s: %s", c->function, why_not(c, r));
	return c->res.reason ? explain(c) : 0;
}

static int
compute(struct call *c)
{
	uint64_t start = call_ns();
	int r = 0;

	for (unsigned i = 0; !r && i < c->slots; i++)
		r = call_slot(c, &c->slot[i]);
	c->compute_ns = call_ns() - start;
	return r ? r : fetch(c);
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
		status = r == -EACCES ? call_fail(EXIT_REFUSED, "%s: %s [%s]", c->function, vfun_text(c->v),
					    vfun_reason_name(vfun_reason(c->v)))
				      : call_fail(cli_status(r), "%s: %s", c->function, why_not(c, r));
		vfun_close(c->v, NULL);
		return status;
	}
	c->grant = *vfun_granted(c->v);
	c->path = vfun_path(c->v);
	if (*vfun_fallback(c->v))
		fprintf(stderr, "vfun call: %s: %s: software computes it\n", c->function, vfun_fallback(c->v));
	/* That there is no shared memory is no news; that what there is doesn't work is. */
	if (c->path == VFUN_PATH_IS_COPY && *vfun_text(c->v) && (c->verbose || vfun_incoherent(c->v)))
		fprintf(stderr, "vfun call: %s: using path copy\n", vfun_text(c->v));
	/* Without a signature no call was made of the arguments, so there is no result. */
	status = c->unlisted ? call_fail(EXIT_SYSTEM, "%s: vfund grants it and doesn't say what it takes", c->function)
			     : compute(c);
	r = vfun_close(c->v, &c->times);
	if (status == AGAIN) {
		c->opt.target = VFUN_TARGET_SOFTWARE;
		return run(c);
	}
	if (r && !status)
		fprintf(stderr, "vfun call: %s: release: %s\n", c->function, strerror(-r));
	if (status)
		return status;
	if (c->verbose)
		say_phases(c);
	return output_result(c);
}

int
role_call(int argc, char **argv)
{
	struct call c = { .opt = { .size = sizeof(c.opt) }, .timeout_ms = 60000, .room = ROOM_DEFAULT };
	int r;

	cli_begin(argv, "call");
	r = parse(&c, argc, argv);
	if (!c.function)
		return r;
	c.opt.timeout_ms = c.timeout_ms < 10000 ? c.timeout_ms : 10000;
	r = ask_signature(&c);
	if (!r && !c.unlisted) {
		r = input_parse(&c);
		r = r ? r : output_possible(&c);
		r = r ? r : input_check(&c);
	}
	if (!r)
		r = run(&c);
	input_free(&c);
	free(c.result);
	return r;
}
