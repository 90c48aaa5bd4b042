/* SPDX-License-Identifier: MIT
 *
 * list.c - arrays as text: lists of numbers, one in another
 *
 * It is what JSON has for them, and nothing else of JSON, so that a library for that would be mostly idle. Blanks do in
 * place of commas, so that a table of numbers is a list as well.
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"

#define NUMBER_MAX 64 /* bytes of a number's text in a list */

int
list_number(const char *text, enum vfun_type type, uint64_t *n)
{
	int minus = *text == '-';
	char *end;
	double d;

	if (vfun_type_float(type)) {
		d = strtod(text, &end);
		memcpy(n, &d, sizeof(d));
		return end == text || *end || isspace((unsigned char)*text) ? -EINVAL : 0;
	}
	errno = 0;
	*n = strtoull(text + minus, &end, 10);
	if (errno || *end || !isdigit((unsigned char)text[minus]) || (minus && !vfun_type_signed(type)) ||
	    (vfun_type_signed(type) && *n > (1ull << 63) - !minus))
		return -EINVAL;
	if (minus)
		*n = -*n;
	return 0;
}

struct reader {
	const char *next;
	enum vfun_type type;
	struct source *s;
	uint64_t room; /* of s->mem */
	unsigned leaf; /* how deep the numbers are; 0: not known yet */
	char *why;
};

static int
wrong(struct reader *r, const char *what)
{
	size_t n = strcspn(r->next, ",[] \t\r\n");

	snprintf(r->why, VFUN_TEXT_MAX, "'%.*s': %s", (int)(n > 30 ? 30 : n ? n : *r->next != '\0'), r->next, what);
	return -EINVAL;
}

static void
skip_blanks(struct reader *r)
{
	r->next += strspn(r->next, " \t\r\n");
}

/* Does the number, as it travels, fit an element? */
static int
in_element(enum vfun_type type, uint64_t n)
{
	unsigned bits = 8 * vfun_type_size(type);
	double d;

	memcpy(&d, &n, sizeof(d));
	if (type == VFUN_TYPE_F32)
		return isinf(d) || !isinf((float)d);
	if (bits == 64)
		return 1;
	return (vfun_type_signed(type) ? n + (1ull << (bits - 1)) : n) >> bits == 0;
}

static int
append(struct reader *r, uint64_t n)
{
	unsigned size = vfun_type_size(r->type);
	double d;
	float f;

	if (r->s->len + size > r->room) {
		uint64_t room = r->room ? 2 * r->room : 4096;
		uint8_t *p = realloc(r->s->mem, room);

		if (!p)
			return -ENOMEM;
		r->s->mem = p;
		r->room = room;
	}
	if (r->type == VFUN_TYPE_F32) {
		memcpy(&d, &n, sizeof(d));
		f = (float)d;
		memcpy(r->s->mem + r->s->len, &f, sizeof(f));
	} else {
		memcpy(r->s->mem + r->s->len, &n, size);
	}
	r->s->len += size;
	return 0;
}

static int
read_number(struct reader *r)
{
	char text[NUMBER_MAX];
	size_t len = strcspn(r->next, ",[] \t\r\n");
	uint64_t n;

	if (!len || len >= sizeof(text))
		return wrong(r, "not a number");
	memcpy(text, r->next, len);
	text[len] = '\0';
	if (list_number(text, r->type, &n) || !in_element(r->type, n)) {
		char what[40];

		snprintf(what, sizeof(what), "not a number of type %s", vfun_type_name(r->type));
		return wrong(r, what);
	}
	r->next += len;
	return append(r, n);
}

/* A list's elements up to its end, which is ']' or the text's. Lists at the same depth have the same length. */
static int
read_list(struct reader *r, unsigned depth, char end)
{
	uint64_t *dim = &r->s->dim[depth];
	uint64_t n = 0;
	int e = 0;

	if (depth == VFUN_SIGNATURE_DIMS)
		return wrong(r, "lists too deep in one another");
	if (r->s->dims < depth + 1)
		r->s->dims = depth + 1;
	for (skip_blanks(r); *r->next != end; n++, skip_blanks(r)) {
		if (n && *r->next == ',') {
			r->next++;
			skip_blanks(r);
		}
		if (r->leaf && (*r->next == '[') == (depth + 1 == r->leaf))
			return wrong(r, "lists and numbers side by side");
		if (*r->next == '[') {
			r->next++;
			e = read_list(r, depth + 1, ']');
		} else {
			r->leaf = depth + 1;
			e = read_number(r);
		}
		if (e)
			return e;
	}
	if (!n && !r->leaf)
		r->leaf = depth + 1;
	if (*dim != UINT64_MAX && *dim != n)
		return wrong(r, "lists of different lengths");
	*dim = n;
	r->next += end != '\0';
	return 0;
}

int
list_parse(const char *text, enum vfun_type type, struct source *s, char why[VFUN_TEXT_MAX])
{
	struct reader r = { .next = text, .type = type, .s = s, .why = why };
	int e;

	s->len = s->dims = 0;
	s->mem = NULL;
	for (unsigned d = 0; d < VFUN_SIGNATURE_DIMS; d++)
		s->dim[d] = UINT64_MAX;
	skip_blanks(&r);
	if (*r.next == '[') {
		r.next++;
		e = read_list(&r, 0, ']');
		skip_blanks(&r);
		if (!e && *r.next)
			e = wrong(&r, "the end should be there");
	} else {
		e = read_list(&r, 0, '\0');
	}
	/* NULL would mean that the data is elsewhere. */
	if (!e && !s->mem && !(s->mem = malloc(1)))
		e = -ENOMEM;
	return e;
}

static int64_t
extended(const uint8_t *element, unsigned size)
{
	uint64_t n = 0;

	memcpy(&n, element, size);
	return (int64_t)(n << (64 - 8 * size)) >> (64 - 8 * size);
}

/* As short as it can be without becoming another number. */
static void
print_real(FILE *f, double d, int single)
{
	char text[40];
	int digits = single ? 6 : 15;

	do {
		snprintf(text, sizeof(text), "%.*g", digits, d);
	} while ((single ? (double)(float)strtod(text, NULL) : strtod(text, NULL)) != d && d == d && digits++ < 17);
	fputs(text, f);
}

void
list_print_number(FILE *f, enum vfun_type type, const uint8_t *element, int json)
{
	uint64_t n = 0;
	double d = 0;
	float single;

	if (type == VFUN_TYPE_F32) {
		memcpy(&single, element, sizeof(single));
		d = (double)single;
	} else if (type == VFUN_TYPE_F64) {
		memcpy(&d, element, sizeof(d));
	}
	memcpy(&n, element, vfun_type_size(type));
	if (json && d - d != 0)
		fputs("null", f); /* JSON has no such number */
	else if (vfun_type_float(type))
		print_real(f, d, type == VFUN_TYPE_F32);
	else if (vfun_type_signed(type))
		fprintf(f, "%lld", (long long)extended(element, vfun_type_size(type)));
	else
		fprintf(f, "%llu", (unsigned long long)n);
}

void
list_print(FILE *f, enum vfun_type type, unsigned dims, const uint64_t *dim, const uint8_t *data, int json)
{
	uint64_t step = vfun_type_size(type);

	if (!dims) {
		list_print_number(f, type, data, json);
		return;
	}
	for (unsigned d = 1; d < dims; d++)
		step *= dim[d];
	putc('[', f);
	for (uint64_t i = 0; i < dim[0]; i++) {
		if (i)
			putc(',', f);
		list_print(f, type, dims - 1, dim + 1, data + i * step, json);
	}
	putc(']', f);
}
