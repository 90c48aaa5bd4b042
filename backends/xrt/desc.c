/* SPDX-License-Identifier: MIT
 *
 * desc.c - a kernel's description: read from vfun.conf's words, checked, and what calls are made of by it
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../proto/signature.h"
#include "xrt.h"

static int wrong(char fault[BACKEND_TEXT], const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int
wrong(char fault[BACKEND_TEXT], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(fault, BACKEND_TEXT, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* A decimal number, or one with 0x; the rest of the text in *end. 0 or -EINVAL. */
static int
number(const char *s, uint64_t *n, char **end)
{
	errno = 0;
	if (*s < '0' || *s > '9')
		return -EINVAL;
	*n = strtoull(s, end, 0);
	return errno ? -EINVAL : 0;
}

static int
whole_number(const char *s, uint64_t *n)
{
	char *end;

	return !s || number(s, n, &end) || *end ? -EINVAL : 0;
}

static uint64_t
largest(const struct xrt_arg *a)
{
	return a->size == 8 ? UINT64_MAX : (1ull << a->size * 8) - 1;
}

/* MIN..MAX */
static int
range(struct xrt_arg *a, const char *s)
{
	char *end;

	return number(s, &a->min, &end) || strncmp(end, "..", 2) || whole_number(end + 2, &a->max) || a->min > a->max ||
		       a->max > largest(a)
		   ? -EINVAL
		   : 0;
}

static int
scalar(struct xrt_arg *a, char **save, char fault[BACKEND_TEXT])
{
	a->max = largest(a);
	for (char *s = strtok_r(NULL, " \t", save); s; s = strtok_r(NULL, " \t", save)) {
		if (!strcmp(s, "default")) {
			if (whole_number(strtok_r(NULL, " \t", save), &a->def))
				return wrong(fault, "%s: default needs a number", a->name);
			a->optional = 1;
		} else if (!strcmp(s, "elements")) {
			if (whole_number(strtok_r(NULL, " \t", save), &a->elements) || !a->elements)
				return wrong(fault, "%s: elements needs the bytes of one", a->name);
		} else if (range(a, s)) {
			return wrong(fault, "%s: '%s' is not MIN..MAX, in %u bits", a->name, s, a->size * 8);
		}
	}
	if (a->optional && (a->elements || a->def < a->min || a->def > a->max))
		return wrong(fault, "%s: its default is not in its range", a->name);
	return 0;
}

static int
buffer(struct xrt_arg *a, char **save, char fault[BACKEND_TEXT])
{
	char *s = strtok_r(NULL, " \t", save);

	if (s && (whole_number(s, &a->bytes) || !a->bytes || a->bytes > XRT_FIXED_MAX || a->bytes % 8))
		return wrong(
		    fault, "%s: '%s' is not a size in bytes, a multiple of 8, %u at most", a->name, s, XRT_FIXED_MAX);
	s = s ? strtok_r(NULL, " \t", save) : NULL;
	return s ? wrong(fault, "%s: '%s' is too much", a->name, s) : 0;
}

/* One argument: NAME TYPE [MORE] */
static int
argument(struct xrt_desc *d, char *text, char fault[BACKEND_TEXT])
{
	static const struct {
		const char *word;
		uint8_t type;
		uint8_t size;
	} types[] = {
		{ "u8", XRT_SCALAR, 1 },
		{ "u16", XRT_SCALAR, 2 },
		{ "u32", XRT_SCALAR, 4 },
		{ "u64", XRT_SCALAR, 8 },
		{ "in", XRT_IN, 0 },
		{ "inout", XRT_INOUT, 0 },
		{ "out", XRT_OUT, 0 },
	};
	struct xrt_arg *a = &d->arg[d->nargs];
	char *save = NULL;
	char *name = strtok_r(text, " \t", &save);
	char *type = name ? strtok_r(NULL, " \t", &save) : NULL;
	unsigned i = 0;

	if (!type)
		return wrong(fault, "an argument is NAME TYPE, see vfun.conf(5)");
	if (d->nargs == XRT_ARGS_MAX)
		return wrong(fault, "more than %d arguments", XRT_ARGS_MAX);
	if (strlen(name) >= sizeof(a->name))
		return wrong(fault, "the name of '%.40s' is too long", name);
	while (i < sizeof(types) / sizeof(types[0]) && strcmp(types[i].word, type))
		i++;
	if (i == sizeof(types) / sizeof(types[0]))
		return wrong(fault, "%s: '%.20s' is not a type: u8, u16, u32, u64, in, inout and out are", name, type);
	*a = (struct xrt_arg){ .type = types[i].type, .size = types[i].size };
	strcpy(a->name, name);
	d->nargs++;
	return a->type == XRT_SCALAR ? scalar(a, &save, fault) : buffer(a, &save, fault);
}

int
xrt_arguments(struct xrt_desc *d, const char *text, char fault[BACKEND_TEXT])
{
	char copy[256];
	char *save = NULL;
	int r = 0;

	if (snprintf(copy, sizeof(copy), "%s", text) >= (int)sizeof(copy))
		return wrong(fault, "too long");
	for (char *s = strtok_r(copy, ",", &save); s && !r; s = strtok_r(NULL, ",", &save))
		if (s[strspn(s, " \t")])
			r = argument(d, s, fault);
	return r;
}

static unsigned
count(const struct xrt_desc *d, enum xrt_type type)
{
	unsigned n = 0;

	for (unsigned i = 0; i < d->nargs; i++)
		n += d->arg[i].type == type;
	return n;
}

static int
takes_input(const struct xrt_desc *d)
{
	return count(d, XRT_IN) + count(d, XRT_INOUT) > 0;
}

static int
has_share(const struct xrt_desc *d)
{
	for (unsigned i = 0; i < d->nargs; i++)
		if ((d->arg[i].type == XRT_IN || d->arg[i].type == XRT_INOUT) && !d->arg[i].bytes)
			return 1;
	return 0;
}

int
xrt_fixed_result(const struct xrt_desc *d)
{
	for (unsigned i = 0; i < d->nargs; i++)
		if (d->arg[i].type >= XRT_INOUT && !d->arg[i].bytes)
			return 0;
	return 1;
}

/* The signature */

/* A text that grows; what is too long for it is cut off, and the parser will say so. */
struct text {
	char *s;
	size_t len;
};

static void add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void
add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->s + t->len, VFUN_SIGNATURE_MAX - t->len, fmt, ap);
	va_end(ap);
	t->len += n < 0 ? 0 : (size_t)n;
	if (t->len >= VFUN_SIGNATURE_MAX)
		t->len = VFUN_SIGNATURE_MAX - 1;
}

/* Bytes of what a share is made of, as far as its computed numbers agree about that; 1: bytes. */
static uint64_t
element(const struct xrt_desc *d)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < d->nargs; i++) {
		uint64_t e = d->arg[i].elements;

		if (e && bytes && e != bytes)
			return 1;
		bytes = e ? e : bytes;
	}
	return bytes ? bytes : 1;
}

/* A letter that is no argument's name, for how many elements a share has. */
static char
free_letter(const struct xrt_desc *d)
{
	char name[2] = "n";

	for (unsigned i = 0; i < d->nargs; i++)
		if (!strcmp(d->arg[i].name, name)) {
			name[0] = name[0] == 'z' ? 'a' : (char)(name[0] + 1);
			i = (unsigned)-1;
		}
	return name[0];
}

static void
add_number(struct text *t, const struct xrt_arg *a)
{
	add(t, "%s u%u", a->name, a->size * 8);
	if (a->min || a->max != largest(a))
		add(t, " %llu..%llu", (unsigned long long)a->min, (unsigned long long)a->max);
	if (a->optional)
		add(t, " default %llu", (unsigned long long)a->def);
}

static void
add_buffer(struct text *t, const struct xrt_desc *d, const struct xrt_arg *a, const char *bytes)
{
	uint64_t e = element(d);

	if (a->bytes)
		add(t, "%s %s[%llu]", a->name, bytes, (unsigned long long)a->bytes);
	else if (*bytes == 'u' && (e == 2 || e == 4 || e == 8))
		add(t, "%s u%u[%c]", a->name, (unsigned)e * 8, free_letter(d));
	else if (e > 1)
		add(t, "%s %s[%c,%llu]", a->name, bytes, free_letter(d), (unsigned long long)e);
	else
		add(t, "%s %s[%c]", a->name, bytes, free_letter(d));
}

static void
signature(const struct xrt_desc *d, char to[VFUN_SIGNATURE_MAX])
{
	struct text t = { .s = to };
	unsigned results = count(d, XRT_INOUT) + count(d, XRT_OUT);
	const char *comma = "";

	*to = '\0';
	if (count(d, XRT_IN) + count(d, XRT_INOUT) > 1 || (results > 1 && d->res_kind != VFUN_KIND_INT))
		add(&t, "align 1 %u: ", XRT_ALIGN);
	if (d->measure) {
		add(&t, "launches u64, queued u64");
		comma = ", ";
	}
	for (unsigned i = 0; i < d->nargs; i++) {
		const struct xrt_arg *a = &d->arg[i];

		if (a->type == XRT_OUT || a->elements)
			continue;
		add(&t, "%s", comma);
		comma = ", ";
		if (a->type == XRT_SCALAR)
			add_number(&t, a);
		else
			add_buffer(&t, d, a, "u8");
	}
	add(&t, "%s", *comma ? " -> " : "-> ");
	comma = "";
	for (unsigned i = 0; !d->measure && d->res_kind != VFUN_KIND_INT && i < d->nargs; i++) {
		if (d->arg[i].type < XRT_INOUT)
			continue;
		add(&t, "%s", comma);
		comma = ", ";
		add_buffer(&t, d, &d->arg[i], d->res_kind == VFUN_KIND_HEX ? "hex" : "u8");
	}
	if (!*comma)
		add(&t, "%s", d->measure ? "times u64[4]" : results ? "int" : "nothing");
}

int
xrt_check(const struct xrt_desc *d, char fault[BACKEND_TEXT])
{
	struct vfun_signature s;
	char text[VFUN_SIGNATURE_MAX];
	unsigned scalars = 0;
	int optional = 0;

	for (unsigned i = 0; i < d->nargs; i++) {
		const struct xrt_arg *a = &d->arg[i];

		if (a->type == XRT_SCALAR && a->elements && !has_share(d))
			return wrong(fault, "%s: elements of what? No buffer is a share of the input", a->name);
		if (a->type == XRT_OUT && !a->bytes && !has_share(d))
			return wrong(fault, "%s: as long as what? It needs a size", a->name);
		if (a->type != XRT_SCALAR || a->elements)
			continue;
		if (optional && !a->optional)
			return wrong(fault, "%s: it follows one with a default, and has none", a->name);
		optional = a->optional;
		scalars++;
	}
	if (!xrt_fixed_result(d) && d->res_kind == VFUN_KIND_INT)
		return wrong(fault, "result = int needs a size for each part of the result");
	if (scalars > (takes_input(d) ? XRT_SCALARS_MAX - 4 : XRT_SCALARS_MAX))
		return wrong(fault, "more than %d numbers don't fit a call",
		    takes_input(d) ? XRT_SCALARS_MAX - 4 : XRT_SCALARS_MAX);
	signature(d, text);
	return vfun_signature_parse(&s, text, fault);
}

void
xrt_function(const struct xrt_desc *d, const char *name, struct xrt_texts *texts, struct backend_function *fn)
{
	*fn = (struct backend_function){
		.name = name, .summary = texts->summary, .signature = texts->signature, .threads = 1
	};
	snprintf(texts->summary, sizeof(texts->summary), "kernel %.50s", d->kernel);
	signature(d, texts->signature);
}

int
xrt_shares(const struct xrt_desc *d, uint64_t in_len, struct xrt_shares *s)
{
	uint64_t left = in_len;
	unsigned shares = 0;

	*s = (struct xrt_shares){ 0 };
	for (unsigned i = 0; i < d->nargs; i++) {
		const struct xrt_arg *a = &d->arg[i];

		if (a->type != XRT_IN && a->type != XRT_INOUT)
			continue;
		shares += !a->bytes;
		if (a->bytes > left)
			return -EINVAL;
		left -= a->bytes;
	}
	if (shares ? left % shares || !left : left)
		return -EINVAL;
	s->share = shares ? left / shares : 0;
	for (unsigned i = 0; i < d->nargs; i++) {
		const struct xrt_arg *a = &d->arg[i];

		if (a->elements && s->share % a->elements)
			return -EINVAL;
		if (a->elements && s->share / a->elements > largest(a))
			return -EINVAL;
		if (a->type >= XRT_INOUT)
			s->out =
			    ((s->out + XRT_ALIGN - 1) & ~(uint64_t)(XRT_ALIGN - 1)) + (a->bytes ? a->bytes : s->share);
	}
	return 0;
}
