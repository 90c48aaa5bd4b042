/* SPDX-License-Identifier: MIT
 *
 * signature.c - parse a function's signature (the grammar is in signature.h)
 *
 * First the items are read in order, their dimensions as words of the text; then, when all scalars are known, each word
 * becomes a number, a scalar's variable or the free dimension (resolve()); last, what each call looks at is gathered in
 * struct vfun_command (gather()). Every step stops at the first fault, which has a sentence of its own.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "number.h"
#include "signature.h"

#define NUMBER_MAX 48 /* bytes of a number's text */

enum token { END, NAME, NUMBER, ARROW, RANGE, MARK, BAD };

struct word {
	const char *at;
	unsigned len;
};

struct parser {
	struct vfun_signature *s;
	const char *next; /* behind the token */
	enum token token;
	struct word word; /* the token */
	unsigned items;
	struct word dim[VFUN_SIGNATURE_ITEMS][VFUN_SIGNATURE_DIMS];
	char *fault; /* VFUN_TEXT_MAX bytes */
};

static const struct {
	char name[4];
	uint8_t size;
} types[] = {
	[VFUN_TYPE_U8] = { "u8", 1 },
	[VFUN_TYPE_U16] = { "u16", 2 },
	[VFUN_TYPE_U32] = { "u32", 4 },
	[VFUN_TYPE_U64] = { "u64", 8 },
	[VFUN_TYPE_I8] = { "i8", 1 },
	[VFUN_TYPE_I16] = { "i16", 2 },
	[VFUN_TYPE_I32] = { "i32", 4 },
	[VFUN_TYPE_I64] = { "i64", 8 },
	[VFUN_TYPE_F32] = { "f32", 4 },
	[VFUN_TYPE_F64] = { "f64", 8 },
	[VFUN_TYPE_HEX] = { "hex", 1 },
	[VFUN_TYPE_INT] = { "int", 1 },
};

unsigned
vfun_type_size(enum vfun_type type)
{
	return types[type].size;
}

const char *
vfun_type_name(enum vfun_type type)
{
	return types[type].name;
}

int
vfun_type_float(enum vfun_type type)
{
	return type == VFUN_TYPE_F32 || type == VFUN_TYPE_F64;
}

int
vfun_type_signed(enum vfun_type type)
{
	return type >= VFUN_TYPE_I8 && type <= VFUN_TYPE_I64;
}

static int wrong(struct parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int
wrong(struct parser *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->fault, VFUN_TEXT_MAX, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* Tokens */

static int
word_is(const struct word *w, const char *s)
{
	return strlen(s) == w->len && !memcmp(w->at, s, w->len);
}

/* A number ends before "..". What it is worth is seen later. */
static unsigned
number_length(const char *s)
{
	unsigned n = 1;

	while (number_letter(s[n]) || number_digit(s[n]) || (s[n] == '.' && s[n + 1] != '.') ||
	       ((s[n] == '-' || s[n] == '+') && (s[n - 1] == 'e' || s[n - 1] == 'E')))
		n++;
	return n;
}

static void
advance(struct parser *p)
{
	const char *s = p->next + strspn(p->next, " \t");
	unsigned n = 1;

	p->word.at = s;
	if (!*s) {
		p->token = END;
		n = 0;
	} else if (number_letter(*s) || *s == '_') {
		p->token = NAME;
		while (number_letter(s[n]) || number_digit(s[n]) || s[n] == '_')
			n++;
	} else if (number_digit(*s) || (*s == '-' && (number_digit(s[1]) || s[1] == '.'))) {
		p->token = NUMBER;
		n = number_length(s);
	} else if (!strncmp(s, "->", 2) || !strncmp(s, "..", 2)) {
		p->token = *s == '-' ? ARROW : RANGE;
		n = 2;
	} else {
		p->token = strchr(",;:[]*", *s) ? MARK : BAD;
	}
	p->word.len = n;
	p->next = s + n;
}

static int
is_mark(const struct parser *p, char c)
{
	return p->token == MARK && *p->word.at == c;
}

static int
is_word(const struct parser *p, const char *s)
{
	return p->token == NAME && word_is(&p->word, s);
}

/* "wanted" where something else stands. */
static int
unexpected(struct parser *p, const char *wanted)
{
	if (p->token == END)
		return wrong(p, "it ends where %s should be", wanted);
	if (p->token == BAD && (*p->word.at < ' ' || *p->word.at > '~'))
		return wrong(p, "a strange character stands where %s should be", wanted);
	return wrong(p, "'%.*s': %s should be there", p->word.len > 30 ? 30 : (int)p->word.len, p->word.at, wanted);
}

static int
accept_mark(struct parser *p, char c)
{
	char wanted[] = "' '";

	wanted[1] = c;
	if (!is_mark(p, c))
		return unexpected(p, wanted);
	advance(p);
	return 0;
}

/* Numbers */

static int
integer(const char *s, int negative_too, uint64_t *n)
{
	int minus = *s == '-';
	char *end;

	errno = 0;
	*n = strtoull(s + minus, &end, 0);
	if (errno || *end || !number_digit(s[minus]) || (minus && !negative_too) ||
	    (minus ? *n > 1ull << 63 : negative_too && *n >> 63))
		return -EINVAL;
	if (minus)
		*n = -*n;
	return 0;
}

static int
real(const char *s, uint64_t *n)
{
	char *end;
	double d = number_read(s, &end);

	if (*end || d != d || d - d != 0)
		return -EINVAL;
	memcpy(n, &d, sizeof(d));
	return 0;
}

/* The token as a number of this type, as it travels. */
static int
number(struct parser *p, enum vfun_type type, uint64_t *n)
{
	char text[NUMBER_MAX];
	int r = -EINVAL;

	if (p->token != NUMBER)
		return unexpected(p, "a number");
	if (p->word.len < sizeof(text)) {
		memcpy(text, p->word.at, p->word.len);
		text[p->word.len] = '\0';
		r = vfun_type_float(type) ? real(text, n) : integer(text, vfun_type_signed(type), n);
	}
	if (r)
		return wrong(p, "'%.*s' is not a number of type %s", p->word.len > 30 ? 30 : (int)p->word.len,
		    p->word.at, vfun_type_name(type));
	advance(p);
	return 0;
}

/* One is less than or equal to another, both of this type. */
static int
ordered(enum vfun_type type, uint64_t a, uint64_t b)
{
	double x;
	double y;

	memcpy(&x, &a, sizeof(x));
	memcpy(&y, &b, sizeof(y));
	return vfun_type_float(type) ? x <= y : vfun_type_signed(type) ? (int64_t)a <= (int64_t)b : a <= b;
}

/* Of integers: all that the type can hold. */
static void
whole_range(struct vfun_item *it)
{
	unsigned bits = vfun_type_size(it->type) * 8;

	it->min = vfun_type_signed(it->type) ? -(1ull << (bits - 1)) : 0;
	it->max = vfun_type_signed(it->type) ? (1ull << (bits - 1)) - 1 : ~0ull >> (64 - bits);
}

/* Items */

static int
item_name(struct parser *p, struct vfun_item *it, unsigned from)
{
	static const char *const reserved[] = { "set", "get", "align", "default", "nothing" };
	unsigned taken = 0;

	if (p->token != NAME)
		return unexpected(p, "a name");
	for (unsigned i = VFUN_TYPE_U8; i <= VFUN_TYPE_INT; i++)
		taken += word_is(&p->word, types[i].name);
	for (unsigned i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
		taken += word_is(&p->word, reserved[i]);
	if (taken)
		return unexpected(p, "a name");
	if (p->word.len >= sizeof(it->name))
		return wrong(p, "'%.*s': the name is too long", p->word.len > 40 ? 40 : (int)p->word.len, p->word.at);
	memcpy(it->name, p->word.at, p->word.len);
	for (unsigned i = from; i < p->items; i++)
		if (!strcmp(p->s->item[i].name, it->name))
			return wrong(p, "%s: there are two of this name", it->name);
	advance(p);
	return 0;
}

static int
item_type(struct parser *p, struct vfun_item *it, int result)
{
	unsigned t = VFUN_TYPE_U8;

	while (t <= VFUN_TYPE_HEX && !is_word(p, types[t].name))
		t++;
	if (t > VFUN_TYPE_HEX || (t == VFUN_TYPE_HEX && !result))
		return unexpected(p, "a type");
	it->type = (uint8_t)t;
	it->size = types[t].size;
	advance(p);
	return 0;
}

static int
item_dims(struct parser *p, struct vfun_item *it)
{
	int r;

	do {
		advance(p);
		if (it->dims == VFUN_SIGNATURE_DIMS)
			return wrong(p, "%s: more than %d dimensions", it->name, VFUN_SIGNATURE_DIMS);
		if (p->token != NAME && p->token != NUMBER && !is_mark(p, '*'))
			return unexpected(p, "a dimension");
		p->dim[p->items][it->dims++] = p->word;
		if (p->token == NUMBER) {
			struct vfun_dim *d = &it->dim[it->dims - 1];

			d->kind = VFUN_DIM_NUMBER;
			r = number(p, VFUN_TYPE_U64, &d->n);
			if (r || !d->n)
				return r ? r : wrong(p, "%s: a dimension is 0", it->name);
		} else {
			advance(p);
		}
	} while (is_mark(p, ','));
	return accept_mark(p, ']');
}

static int
scalar(struct parser *p, struct vfun_item *it)
{
	int r = 0;

	if (!vfun_type_float(it->type))
		whole_range(it);
	if (p->token == NUMBER) {
		uint64_t min = it->min;
		uint64_t max = it->max;

		r = number(p, it->type, &it->min);
		if (!r && p->token != RANGE)
			return unexpected(p, "'..'");
		advance(p);
		if (!r && (p->token == NUMBER || vfun_type_float(it->type)))
			r = number(p, it->type, &it->max);
		if (!r && (!ordered(it->type, it->min, it->max) ||
			      (!vfun_type_float(it->type) &&
				  (!ordered(it->type, min, it->min) || !ordered(it->type, it->max, max)))))
			r = wrong(p, "%s: not a range of %s", it->name, vfun_type_name(it->type));
		it->ranged = 1;
	}
	if (!r && is_word(p, "default")) {
		advance(p);
		r = number(p, it->type, &it->def);
		if (!r && ((!vfun_type_float(it->type) || it->ranged) &&
			      (!ordered(it->type, it->min, it->def) || !ordered(it->type, it->def, it->max))))
			r = wrong(p, "%s: its default is not in its range", it->name);
		it->optional = 1;
	}
	return r;
}

/* The next item; *it is its place. */
static int
item(struct parser *p, unsigned from, int result)
{
	struct vfun_item *it = &p->s->item[p->items];
	int r;

	if (p->items == VFUN_SIGNATURE_ITEMS)
		return wrong(p, "more than %d arguments and results", VFUN_SIGNATURE_ITEMS);
	if (result && is_word(p, "int")) {
		it->type = VFUN_TYPE_INT;
		it->size = 1;
		it->dims = 1;
		it->dim[0].kind = VFUN_DIM_ANY;
		advance(p);
		p->items++;
		return 0;
	}
	r = item_name(p, it, from);
	if (!r)
		r = item_type(p, it, result);
	if (r)
		return r;
	if (is_mark(p, '[')) {
		r = item_dims(p, it);
	} else if (it->type == VFUN_TYPE_HEX) {
		it->dims = 1;
		it->dim[0].kind = VFUN_DIM_ANY;
	} else if (!result) {
		r = scalar(p, it);
	}
	p->items++;
	return r;
}

/* Items of a command up to ';' or '->', of the result up to the end. */
static int
items(struct parser *p, unsigned from, int result, uint8_t *n)
{
	unsigned first = p->items;
	int r = 0;

	do {
		if (p->items > first)
			advance(p);
		r = item(p, from, result);
	} while (!r && is_mark(p, ','));
	*n = (uint8_t)(p->items - first);
	return r;
}

static int
alignment(struct parser *p)
{
	uint16_t *to[] = { &p->s->in_align, &p->s->out_align };

	advance(p);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t n = 0;
		int r = number(p, VFUN_TYPE_U64, &n);

		if (r || !n || n > VFUN_PAGE || n & (n - 1))
			return r ? r : wrong(p, "align: powers of two up to %u, please", VFUN_PAGE);
		*to[i] = (uint16_t)n;
	}
	return accept_mark(p, ':');
}

/* Everything, dimensions still as words. */
static int
read_items(struct parser *p)
{
	struct vfun_signature *s = p->s;
	int r = is_word(p, "align") ? alignment(p) : 0;

	if (!r && is_word(p, "set")) {
		advance(p);
		s->set.present = 1;
		r = items(p, 0, 0, &s->set.items);
		r = r ? r : accept_mark(p, ';');
	}
	if (r)
		return r;
	if (is_word(p, "get"))
		advance(p);
	s->get.present = 1;
	s->get.first = (uint8_t)p->items;
	r = p->token == ARROW ? 0 : items(p, 0, 0, &s->get.items);
	if (!r && p->token != ARROW)
		return unexpected(p, "',' or '->'");
	advance(p);
	s->first_result = (uint8_t)p->items;
	if (!r && is_word(p, "nothing"))
		advance(p);
	else if (!r)
		r = items(p, p->items, 1, &s->results);
	return !r && p->token != END ? unexpected(p, "the end") : r;
}

/* Dimensions */

/* The variable of a scalar of this name, or -1. */
static int
scalar_variable(const struct parser *p, const struct vfun_command *c, unsigned base, const struct word *w)
{
	unsigned n = 0;

	for (unsigned i = c->first; i < c->first + c->items; i++) {
		const struct vfun_item *it = &p->s->item[i];

		if (it->dims)
			continue;
		if (word_is(w, it->name))
			return (int)(base + n);
		n++;
	}
	return -1;
}

/* A variable by its name: first the command's own, then what set has. -1: there is none. */
static int
variable(const struct parser *p, const struct vfun_command *own, const struct word *w)
{
	const struct vfun_signature *s = p->s;
	int v = own == &s->get ? scalar_variable(p, &s->get, VFUN_VAR_GET, w) : -1;

	if (v < 0 && own == &s->get && *w->at != '*' && word_is(w, s->get.free))
		v = VFUN_VAR_GET + VFUN_VAR_FREE;
	if (v < 0)
		v = scalar_variable(p, &s->set, VFUN_VAR_SET, w);
	if (v < 0 && *w->at != '*' && word_is(w, s->set.free))
		v = VFUN_VAR_SET + VFUN_VAR_FREE;
	return v;
}

/* Only what can't be negative or a fraction counts things. */
static int
countable(struct parser *p, const struct vfun_item *it, const struct word *w)
{
	for (unsigned i = 0; i < p->s->first_result; i++) {
		const struct vfun_item *a = &p->s->item[i];

		if (!a->dims && word_is(w, a->name) && a->type > VFUN_TYPE_U64)
			return wrong(
			    p, "%s: a dimension is unsigned, %s is %s", it->name, a->name, vfun_type_name(a->type));
	}
	return 0;
}

static int
resolve_dim(struct parser *p, struct vfun_command *c, struct vfun_item *it, unsigned d, int result)
{
	const struct word *w = &p->dim[it - p->s->item][d];
	struct vfun_dim *dim = &it->dim[d];
	int v;

	if (dim->kind)
		return 0;
	v = variable(p, c, w);
	dim->kind = v < 0 && result ? VFUN_DIM_ANY : VFUN_DIM_VAR;
	dim->n = (uint64_t)v;
	if (v >= 0) {
		c->uses_set |= c == &p->s->get && v < VFUN_VAR_GET;
		return countable(p, it, w);
	}
	if (result) {
		dim->n = 0;
		return 0;
	}
	if (*c->free)
		return wrong(p, "%s: a second free dimension, beside %s", it->name, c->free);
	if (w->len >= sizeof(c->free))
		return wrong(p, "'%.*s': the name is too long", w->len > 40 ? 40 : (int)w->len, w->at);
	memcpy(c->free, w->at, w->len);
	dim->n = (c == &p->s->get ? VFUN_VAR_GET : VFUN_VAR_SET) + VFUN_VAR_FREE;
	return 0;
}

static unsigned
count_dims(const struct vfun_item *it, enum vfun_dim_kind kind, uint64_t n)
{
	unsigned found = 0;

	for (unsigned d = 0; d < it->dims; d++)
		found += it->dim[d].kind == kind && it->dim[d].n == n;
	return found;
}

static int
resolve(struct parser *p, struct vfun_command *c, unsigned first, unsigned n, int result)
{
	struct vfun_item *it = &p->s->item[first];
	int r = 0;

	for (unsigned i = 0; !r && i < n; i++)
		for (unsigned d = 0; !r && d < it[i].dims; d++)
			r = resolve_dim(p, c, &it[i], d, result);
	return r;
}

/* How long the result is may be open at its end only. */
static int
check_results(struct parser *p)
{
	struct vfun_signature *s = p->s;

	if (s->results > VFUN_SIGNATURE_ARRAYS)
		return wrong(p, "more than %d results", VFUN_SIGNATURE_ARRAYS);
	for (unsigned i = 0; i < s->results; i++) {
		const struct vfun_item *it = &s->item[s->first_result + i];
		unsigned any = count_dims(it, VFUN_DIM_ANY, 0);

		if (any > 1)
			return wrong(p, "%s: a second free dimension", it->name);
		if (any && i + 1 < s->results)
			return wrong(p, "%s: only the last result may be of any length",
			    *it->name ? it->name : vfun_type_name(it->type));
		s->any |= any != 0;
	}
	s->plain =
	    !s->get.arrays && (s->results == 0 || (s->results == 1 && s->any && s->item[s->first_result].dims == 1));
	return 0;
}

/* With padding, only an array at the end tells how long it is: where the free dimension is in others only, several of
 * its values come to the same length, unless no padding can follow them. */
static int
check_free(struct parser *p, const struct vfun_command *c, uint64_t free)
{
	const struct vfun_item *last = c->arrays ? &p->s->item[c->array[c->arrays - 1]] : NULL;

	for (unsigned i = 0; i < c->arrays; i++) {
		const struct vfun_item *it = &p->s->item[c->array[i]];
		unsigned n = count_dims(it, VFUN_DIM_VAR, free);

		if (n > 1)
			return wrong(p, "%s: its free dimension is there twice", it->name);
		if (n && !count_dims(last, VFUN_DIM_VAR, free) && vfun_type_size(it->type) % p->s->in_align)
			return wrong(p, "%s: a free dimension has to be in the last array as well", it->name);
	}
	return 0;
}

/* Bytes for each one of the free dimension, if that is all there is to be known; 0: it isn't, or they are too many. */
static uint64_t
each_of(const struct vfun_signature *s, const struct vfun_command *c)
{
	const struct vfun_item *it = &s->item[c->array[0]];
	const uint64_t free = (c == &s->get ? VFUN_VAR_GET : VFUN_VAR_SET) + VFUN_VAR_FREE;
	uint64_t bytes = it->size;

	if (c->arrays != 1 || !*c->free)
		return 0;
	for (unsigned d = 0; d < it->dims; d++) {
		const struct vfun_dim *dim = &it->dim[d];

		if (dim->kind == VFUN_DIM_VAR && dim->n != free)
			return 0;
		if (dim->kind == VFUN_DIM_NUMBER && __builtin_mul_overflow(bytes, dim->n, &bytes))
			return 0;
	}
	return bytes;
}

/* What each call looks at. */
static int
gather(struct parser *p, struct vfun_command *c)
{
	for (unsigned i = c->first; i < c->first + c->items; i++) {
		const struct vfun_item *it = &p->s->item[i];
		unsigned n = c->scalars;

		if (it->dims) {
			if (c->arrays == VFUN_SIGNATURE_ARRAYS)
				return wrong(p, "more than %d arrays", VFUN_SIGNATURE_ARRAYS);
			c->array[c->arrays++] = (uint8_t)i;
			continue;
		}
		if (n == VFUN_SIGNATURE_SCALARS)
			return wrong(p, "more than %d numbers don't fit a call", VFUN_SIGNATURE_SCALARS);
		if (!it->optional && c->scalars_min < n)
			return wrong(p, "%s: it follows one with a default, and has none", it->name);
		c->scalars_min += !it->optional;
		c->floats |= (uint8_t)(vfun_type_float(it->type) << n);
		c->scalar[n] = (uint8_t)i;
		c->min[n] = vfun_type_float(it->type) ? 0 : it->min;
		c->span[n] = vfun_type_float(it->type) ? UINT64_MAX : it->max - it->min;
		c->def[n] = it->def;
		c->scalars++;
	}
	if (c->arrays && c->scalars > VFUN_SIGNATURE_SCALARS - sizeof(struct vfun_bulk) / 8)
		return wrong(p, "more than 3 numbers beside arrays don't fit a call");
	c->each = each_of(p->s, c);
	return 0;
}

int
vfun_signature_parse(struct vfun_signature *s, const char *text, char fault[VFUN_TEXT_MAX])
{
	struct parser p = { .s = s, .next = text, .fault = fault };
	int r;

	memset(s, 0, sizeof(*s));
	s->in_align = s->out_align = 8;
	if (strnlen(text, VFUN_SIGNATURE_MAX) == VFUN_SIGNATURE_MAX)
		return wrong(&p, "longer than %d bytes", VFUN_SIGNATURE_MAX - 1);
	advance(&p);
	r = read_items(&p);
	if (!r)
		r = resolve(&p, &s->set, s->set.first, s->set.items, 0);
	if (!r)
		r = resolve(&p, &s->get, s->get.first, s->get.items, 0);
	if (!r)
		r = resolve(&p, &s->get, s->first_result, s->results, 1);
	if (!r)
		r = gather(&p, &s->set);
	if (!r)
		r = gather(&p, &s->get);
	if (!r)
		r = check_free(&p, &s->set, VFUN_VAR_SET + VFUN_VAR_FREE);
	if (!r)
		r = check_free(&p, &s->get, VFUN_VAR_GET + VFUN_VAR_FREE);
	return r ? r : check_results(&p);
}

uint8_t
vfun_signature_arg_kind(const struct vfun_signature *s)
{
	const struct vfun_command *c = s->set.present ? &s->set : &s->get;

	return c->arrays || s->get.arrays ? VFUN_KIND_BYTES : c->scalars ? VFUN_KIND_INT : VFUN_KIND_NONE;
}

uint8_t
vfun_signature_res_kind(const struct vfun_signature *s)
{
	const struct vfun_item *it = &s->item[s->first_result];

	if (!s->results)
		return VFUN_KIND_NONE;
	if (s->results > 1)
		return VFUN_KIND_BYTES;
	return it->type == VFUN_TYPE_INT || (!it->dims && it->type <= VFUN_TYPE_U64) ? VFUN_KIND_INT
	       : it->type == VFUN_TYPE_HEX					     ? VFUN_KIND_HEX
										     : VFUN_KIND_BYTES;
}
