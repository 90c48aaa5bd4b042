/* SPDX-License-Identifier: MIT
 *
 * input.c - vfun call's arguments: read by the function's signature, compared with it, put into the arena
 *
 * On the command line they stand in the signature's order, those of `set` first; where there are several sets, the
 * words set and get say where each begins. A number is a number. An array is
 *
 *   @FILE     .npy by its header, .json and .txt as text, everything else raw bytes; @- is standard input, raw
 *   [1,2,3]   a list, of lists where it has several dimensions
 *   1,2,3     the same, unless its elements are bytes
 *   FILE, -   raw bytes; where there are several arrays, all of them in one file, as they travel. It may stand in front
 *             of all numbers.
 *
 * What lies in a file as it travels goes from there straight into the arena.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "call.h"

#define CHUNK (1u << 20)
#define BIG (64u << 20) /* from here on it is worth to ask whether more will be taken */
#define ARGS_MAX ((VFUN_PAYLOAD - sizeof(struct vfun_bulk)) / 8) /* numbers that fit a request beside bulk data */

/* Files */

/* Would vfund give an arena of this size at all? If not: its refusal. */
static int
too_long(const struct call *c, const struct source *s, uint64_t size)
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
	return !r && msg.reason == VFUN_R_TOO_LARGE ? call_fail(EXIT_REFUSED, "%s: %s [too-large]", s->file, msg.text)
						    : 0;
}

/* Wait until there is something to read, at most until the deadline. */
static int
readable(const struct call *c, const struct source *s, uint64_t deadline)
{
	struct pollfd p = { .fd = s->fd, .events = POLLIN };
	uint64_t now = call_ns();

	if (now < deadline && poll(&p, 1, (int)((deadline - now) / 1000000u) + 1) != 0)
		return 0;
	return call_fail(EXIT_TIMEOUT, "%s: no end of it within %g seconds", s->file, c->timeout_ms / 1000.0);
}

/* Input whose length isn't known before it ends: standard input, a pipe; and text. A NUL stands behind it. */
static int
read_all(const struct call *c, struct source *s)
{
	uint64_t deadline = call_ns() + (uint64_t)c->timeout_ms * 1000000u;
	uint64_t size = 0;

	for (;;) {
		ssize_t n;
		int r;

		if (s->len + 1 >= size) {
			uint8_t *p;

			size = size ? 2 * size : CHUNK;
			r = size > BIG ? too_long(c, s, s->len + 1) : 0;
			if (r)
				return r;
			p = realloc(s->mem, size);
			if (!p)
				return call_fail(EXIT_SYSTEM, "%s: too long for this machine's memory", s->file);
			s->mem = p;
		}
		r = readable(c, s, deadline);
		if (r)
			return r;
		n = read(s->fd, s->mem + s->len, size - 1 - s->len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return call_fail(EXIT_SYSTEM, "%s: %s", s->file, strerror(errno));
		s->len += (uint64_t)n;
		s->mem[s->len] = '\0';
		if (n == 0)
			return 0;
	}
}

static int
open_file(struct source *s, struct stat *st)
{
	/* Not blocking, for a FIFO that nobody writes to. */
	s->fd = strcmp(s->file, "-") ? open(s->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : STDIN_FILENO;
	if (s->fd < 0 || fstat(s->fd, st) < 0)
		return call_fail(EXIT_USAGE, "%s: %s", s->file, strerror(errno));
	if (S_ISDIR(st->st_mode))
		return call_fail(EXIT_USAGE, "%s: is a folder", s->file);
	return 0;
}

static int
raw_file(const struct call *c, struct source *s)
{
	struct stat st = { 0 };
	int r = open_file(s, &st);

	if (r)
		return r;
	/* Files in /proc and the like have size 0 and bytes all the same. */
	if (!S_ISREG(st.st_mode) || st.st_size == 0 || lseek(s->fd, 0, SEEK_CUR) != 0)
		return read_all(c, s);
	s->len = (uint64_t)st.st_size;
	return 0;
}

static int
list(struct source *s, const struct vfun_item *it, const char *text, const char *where)
{
	char why[VFUN_TEXT_MAX];
	int r = list_parse(text, it->type, s, why);

	if (r == -ENOMEM)
		return call_fail(EXIT_SYSTEM, "out of memory");
	return r ? call_fail(EXIT_USAGE, "%s: %s", where, why) : 0;
}

static int
text_file(const struct call *c, struct source *s, const struct vfun_item *it)
{
	struct source text = *s;
	struct stat st;
	int r = open_file(&text, &st);

	r = r ? r : read_all(c, &text);
	if (!r && strlen((char *)text.mem) != text.len)
		r = call_fail(EXIT_USAGE, "%s: there is a NUL byte in it", s->file);
	r = r ? r : list(s, it, (char *)text.mem, s->file);
	free(text.mem);
	if (text.fd > STDIN_FILENO)
		close(text.fd);
	return r;
}

static int
npy_file(struct source *s, const struct vfun_item *it)
{
	char why[VFUN_TEXT_MAX];
	struct stat st;
	int r = open_file(s, &st);

	return r ? r : npy_header(s, it->type, why) ? call_fail(EXIT_USAGE, "%s: %s", s->file, why) : 0;
}

static int
ends_with(const char *s, const char *end)
{
	size_t n = strlen(s);
	size_t m = strlen(end);

	return n > m && !strcmp(s + n - m, end);
}

/* Arguments */

static int
begins_number(const char *arg)
{
	return isdigit((unsigned char)arg[0]) || ((arg[0] == '-' || arg[0] == '+') && arg[1]) || arg[0] == '.';
}

static int
array(struct call *c, struct slot *s, const struct vfun_item *it, const char *arg)
{
	struct source *src = &s->src[s->sources++];

	*src = (struct source){ .fd = -1 };
	if (arg[0] == '[' || (begins_number(arg) && it->type != VFUN_TYPE_U8))
		return list(src, it, arg, it->name);
	src->file = arg + (arg[0] == '@');
	if (arg[0] == '@' && ends_with(arg, ".npy"))
		return npy_file(src, it);
	if (arg[0] == '@' && (ends_with(arg, ".json") || ends_with(arg, ".txt")))
		return text_file(c, src, it);
	if (arg[0] != '@') {
		c->plain = 1;
		s->whole |= vfun_signature_command(&c->sig, s->cmd)->arrays > 1;
	}
	return raw_file(c, src);
}

static int
scalar(struct slot *s, const struct vfun_item *it, const char *arg)
{
	/* Of what range it may be is for the signature to say. */
	enum vfun_type type = vfun_type_float(it->type)	   ? VFUN_TYPE_F64
			      : vfun_type_signed(it->type) ? VFUN_TYPE_I64
							   : VFUN_TYPE_U64;

	if (!list_number(arg, type, &s->arg[s->nargs++]))
		return 0;
	return call_fail(EXIT_USAGE, "'%s' is not a number%s", arg,
	    type == VFUN_TYPE_F64   ? ""
	    : type == VFUN_TYPE_I64 ? " from -2^63 to 2^63-1"
				    : " from 0 to 2^64-1");
}

/* What is missing. */
static int
needs(const struct call *c, const struct vfun_item *it)
{
	if (!it->dims)
		return call_fail(EXIT_USAGE, "%s needs a number: %s", c->function, it->name);
	if (it->type == VFUN_TYPE_U8)
		return call_fail(EXIT_USAGE, "%s needs a file, or - for standard input: %s", c->function, it->name);
	return call_fail(EXIT_USAGE, "%s needs an array, a list or @FILE: %s", c->function, it->name);
}

/* Was a file given for what begins with a number? It has all the arrays, and the numbers follow it. */
static int
file_first(const struct call *c, const struct vfun_command *cmd, const char *arg)
{
	return cmd->arrays && !c->sig.item[cmd->first].dims && !begins_number(arg) && arg[0] != '@' && arg[0] != '[';
}

/* The arguments up to `end`, or as many as there are items. */
static int
parse_slot(struct call *c, enum vfun_cmd cmd, int *at, int end)
{
	const struct vfun_command *cmd_is = vfun_signature_command(&c->sig, cmd);
	struct slot *s = &c->slot[c->slots++];
	int r = 0;

	s->cmd = cmd;
	if (*at < end && file_first(c, cmd_is, c->argv[*at])) {
		s->whole = 1;
		r = array(c, s, &c->sig.item[cmd_is->array[0]], c->argv[(*at)++]);
	}
	for (unsigned i = cmd_is->first; !r && i < cmd_is->first + cmd_is->items; i++) {
		const struct vfun_item *it = &c->sig.item[i];
		const char *arg = *at < end ? c->argv[*at] : NULL;

		if ((it->dims && s->whole) || (it->optional && (!arg || arg[0] == '@' || arg[0] == '[')))
			continue;
		if (!arg)
			return needs(c, it);
		r = it->dims ? array(c, s, it, arg) : scalar(s, it, arg);
		++*at;
	}
	return r;
}

/* More than it takes: the signature refuses them, if they are numbers and there is room for them. */
static int
left_over(struct call *c, int at, int end)
{
	static const struct vfun_item any = { .type = VFUN_TYPE_U64 };
	struct slot *s = &c->slot[c->slots - 1];
	unsigned max = c->sig.get.scalars > ARGS_MAX ? c->sig.get.scalars : ARGS_MAX;
	int r = 0;

	if (s->nargs + (unsigned)(end - at) > max)
		return call_fail(EXIT_USAGE, "%s: too many arguments: see vfun list", c->function);
	while (!r && at < end)
		r = scalar(s, &any, c->argv[at++]);
	return r;
}

/* set ARGUMENT ... set ARGUMENT ... get ARGUMENT ... */
static int
parse_sets(struct call *c)
{
	int at = 0;
	int r = 0;

	while (!r && at < c->argc) {
		enum vfun_cmd cmd = strcmp(c->argv[at++], "get") ? VFUN_CMD_SET : VFUN_CMD_GET;
		int end = at;

		while (end < c->argc && strcmp(c->argv[end], "set") != 0 && strcmp(c->argv[end], "get") != 0)
			end++;
		if (cmd == VFUN_CMD_GET && end < c->argc)
			return call_fail(EXIT_USAGE, "%s: nothing follows get", c->function);
		r = parse_slot(c, cmd, &at, end);
		r = r ? r : left_over(c, at, end);
		at = end;
	}
	if (!r && c->slot[c->slots - 1].cmd == VFUN_CMD_SET)
		r = parse_slot(c, VFUN_CMD_GET, &at, at);
	return r;
}

int
input_parse(struct call *c)
{
	int at = 0;
	int r = 0;

	c->slot = calloc((size_t)c->argc + 2, sizeof(*c->slot));
	if (!c->slot)
		return call_fail(EXIT_SYSTEM, "out of memory");
	if (c->sig.set.present && c->argc && !strcmp(c->argv[0], "set"))
		return parse_sets(c);
	if (c->sig.set.present)
		r = parse_slot(c, VFUN_CMD_SET, &at, c->argc);
	if (!r)
		r = parse_slot(c, VFUN_CMD_GET, &at, c->argc);
	return r ? r : left_over(c, at, c->argc);
}

void
input_free(struct call *c)
{
	for (unsigned i = 0; i < c->slots; i++)
		for (unsigned k = 0; k < c->slot[i].sources; k++)
			free(c->slot[i].src[k].mem);
	free(c->slot);
}

/* Does it fit? */

static int
refuse(const struct call *c, const char *why)
{
	return call_fail(EXIT_FUNCTION, "%s refuses its arguments: %s", c->function, why);
}

static uint64_t
aligned(uint64_t n, unsigned align)
{
	return (n + align - 1) & ~(uint64_t)(align - 1);
}

/* Each array by itself: they may be as long as they should be only all together. */
static int
check_array(const struct call *c, const struct vfun_item *it, const struct source *s, const struct vfun_place *p)
{
	char why[VFUN_TEXT_MAX];

	if (s->len != p->len) {
		snprintf(why, sizeof(why), "%s: %llu bytes, not %llu", it->name, (unsigned long long)s->len,
		    (unsigned long long)p->len);
		return refuse(c, why);
	}
	if (s->dims <= 1 && it->dims > 1)
		return 0; /* a file of bytes, or one list for all */
	for (unsigned d = 0; d < s->dims; d++) {
		if (s->dims == it->dims && s->dim[d] == p->dim[d])
			continue;
		snprintf(why, sizeof(why), "%s: its shape is not that of the signature", it->name);
		return refuse(c, why);
	}
	return 0;
}

static int
check_slot(struct call *c, struct slot *s)
{
	const struct vfun_command *cmd = vfun_signature_command(&c->sig, s->cmd);
	char why[VFUN_WHY_MAX];
	int r = 0;

	for (unsigned i = 0; i < s->sources; i++)
		s->in_len = aligned(s->in_len, c->sig.in_align) + s->src[i].len;
	if (vfun_signature_fits(&c->sig, s->cmd, s->arg, s->nargs, 1, s->in_len, &c->fit, why))
		return refuse(c, why);
	for (unsigned i = 0; !r && !s->whole && i < s->sources; i++)
		r = check_array(c, &c->sig.item[cmd->array[i]], &s->src[i], &c->fit.in[i]);
	if (s->cmd == VFUN_CMD_SET)
		vfun_signature_keep(&c->fit);
	return r;
}

/* Is a result as long as the input? */
static int
follows_input(const struct vfun_signature *s)
{
	for (unsigned i = s->first_result; i < s->first_result + s->results; i++)
		for (unsigned d = 0; d < s->item[i].dims; d++)
			if (s->item[i].dim[d].kind == VFUN_DIM_VAR &&
			    s->item[i].dim[d].n == VFUN_VAR_GET + VFUN_VAR_FREE)
				return 1;
	return 0;
}

/* A short result needs none, but a device gives what is as long as the input only into a room. For a result of any
 * length: as long as a number may be, or as the input; compression lengthens what it can't compress a little. */
static uint64_t
room(const struct call *c)
{
	const struct vfun_item *last = &c->sig.item[c->sig.first_result + c->sig.results - 1];
	uint64_t in_len = c->slot[c->slots - 1].in_len;

	if (!c->sig.any)
		return c->fit.out_len > VFUN_PAYLOAD || follows_input(&c->sig) ? c->fit.out_len : 0;
	if (last->type == VFUN_TYPE_INT || last->type == VFUN_TYPE_HEX || !c->sig.get.arrays)
		return c->fit.out[c->sig.results - 1].off + c->room;
	return c->fit.out[c->sig.results - 1].off + in_len + in_len / 128 + 4096;
}

int
input_check(struct call *c)
{
	int r = 0;

	for (unsigned i = 0; !r && i < c->slots; i++) {
		r = check_slot(c, &c->slot[i]);
		if (c->slot[i].in_len > c->opt.out_arena)
			c->opt.out_arena = c->slot[i].in_len;
	}
	c->opt.in_arena = r ? 0 : room(c);
	return r;
}

/* Into the arena */

static int
lost(const struct call *c, int err)
{
	return call_fail(cli_status(-ECONNRESET), "%s: writing to the arena failed: %s", c->function, strerror(-err));
}

/* From the file, to `at` in the arena, by way of `buf` where that can't be read into. */
static int
fill_file(const struct call *c, const struct source *s, uint64_t at, uint8_t *buf)
{
	uint8_t *arena = vfun_out_arena(c->v);

	for (uint64_t done = 0; done < s->len;) {
		uint64_t want = s->len - done < CHUNK ? s->len - done : CHUNK;
		ssize_t n = pread(s->fd, arena ? arena + at + done : buf, want, (off_t)(s->at + done));
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return call_fail(
			    EXIT_SYSTEM, "%s: %s", s->file, n ? strerror(errno) : "became shorter while it was read");
		r = arena ? 0 : vfun_put(c->v, at + done, buf, (uint64_t)n);
		if (r)
			return lost(c, r);
		done += (uint64_t)n;
	}
	return 0;
}

int
input_fill(struct call *c, const struct slot *s)
{
	uint8_t *buf = vfun_out_arena(c->v) ? NULL : malloc(CHUNK);
	uint64_t at = 0;
	int r = 0;

	if (!vfun_out_arena(c->v) && !buf)
		return call_fail(EXIT_SYSTEM, "out of memory");
	for (unsigned i = 0; !r && i < s->sources; i++) {
		const struct source *src = &s->src[i];

		at = aligned(at, c->sig.in_align);
		if (src->mem) {
			r = vfun_put(c->v, at, src->mem, src->len);
			r = r ? lost(c, r) : 0;
		} else {
			r = fill_file(c, src, at, buf);
		}
		at += src->len;
	}
	free(buf);
	return r;
}
