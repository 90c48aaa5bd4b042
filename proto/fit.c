/* SPDX-License-Identifier: MIT
 *
 * fit.c - does a call fit its function's signature, and where are its arrays?
 *
 * The service asks this for every call before the function sees it, the client before it sends one. Of a call without
 * arrays it costs a comparison for each number: parsing has prepared the rest. With arrays, the free dimension is found
 * from the input's length, and then everything is laid out as if it had been given.
 *
 * The numbers are the client's, so that every product and sum may overflow, and is refused if it does.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "number.h"
#include "signature.h"

#define NUMBER_TEXT 32		   /* bytes of a number as text */
#define COLD __attribute__((cold)) /* small rather than fast */

static int refuse(char why[VFUN_WHY_MAX], const char *fmt, ...) __attribute__((cold, format(printf, 2, 3)));

static int
refuse(char why[VFUN_WHY_MAX], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, VFUN_WHY_MAX, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* Numbers */

static double
as_double(uint64_t bits)
{
	double d;

	memcpy(&d, &bits, sizeof(d));
	return d;
}

static const char *
number_text(enum vfun_type type, uint64_t n, char text[NUMBER_TEXT])
{
	if (vfun_type_float(type))
		number_write(text, NUMBER_TEXT, 6, as_double(n));
	else if (vfun_type_signed(type))
		snprintf(text, NUMBER_TEXT, "%lld", (long long)n);
	else
		snprintf(text, NUMBER_TEXT, "%llu", (unsigned long long)n);
	return text;
}

/* As much as there is room for. */
static int COLD
refuse_value(const struct vfun_item *it, uint64_t value, char why[VFUN_WHY_MAX])
{
	char text[3][NUMBER_TEXT];
	const char *n = number_text(it->type, value, text[0]);
	const char *min = number_text(it->type, it->min, text[1]);
	const char *max = number_text(it->type, it->max, text[2]);
	size_t name = strlen(it->name);

	if (name + strlen(n) + strlen(min) + strlen(max) + sizeof(":  is not ..") <= VFUN_WHY_MAX)
		return refuse(why, "%s: %s is not %s..%s", it->name, n, min, max);
	if (name + strlen(min) + strlen(max) + sizeof(": not ..") <= VFUN_WHY_MAX)
		return refuse(why, "%s: not %s..%s", it->name, min, max);
	return refuse(why, "%s: out of its range", it->name);
}

static int COLD
refuse_count(const struct vfun_signature *s, const struct vfun_command *c, unsigned nargs, char why[VFUN_WHY_MAX])
{
	if (nargs < c->scalars_min)
		return refuse(why, "%s: missing", s->item[c->scalar[nargs]].name);
	if (!c->scalars)
		return refuse(why, "%u number%s, and it takes none", nargs, nargs == 1 ? "" : "s");
	if (c->scalars_min == c->scalars)
		return refuse(why, "%u numbers, not %u", nargs, c->scalars);
	return refuse(why, "%u numbers, not %u to %u", nargs, c->scalars_min, c->scalars);
}

/* Of floats: nothing is in a range that isn't there, and NaN in none. */
static int
check_floats(const struct vfun_signature *s, const struct vfun_command *c, const uint64_t *arg, unsigned nargs,
    char why[VFUN_WHY_MAX])
{
	for (unsigned i = 0; i < nargs; i++) {
		const struct vfun_item *it = &s->item[c->scalar[i]];
		double d = as_double(arg[i]);

		if (c->floats >> i & 1 && it->ranged && !(d >= as_double(it->min) && d <= as_double(it->max)))
			return refuse_value(it, arg[i], why);
	}
	return 0;
}

/* The scalars into var[], with defaults. */
static inline int
check_scalars(const struct vfun_signature *s, const struct vfun_command *c, const uint64_t *arg, unsigned nargs,
    uint64_t *var, char why[VFUN_WHY_MAX])
{
	if (nargs < c->scalars_min || nargs > c->scalars)
		return refuse_count(s, c, nargs, why);
	for (unsigned i = 0; i < nargs; i++) {
		if (arg[i] - c->min[i] > c->span[i])
			return refuse_value(&s->item[c->scalar[i]], arg[i], why);
		var[i] = arg[i];
	}
	for (unsigned i = nargs; i < c->scalars; i++)
		var[i] = c->def[i];
	return c->floats ? check_floats(s, c, arg, nargs, why) : 0;
}

/* Arrays */

/* Bytes and shape with the variables as they are; nothing of what any dimension is. 0 or -EOVERFLOW. */
static int
measure(const struct vfun_item *it, const uint64_t *var, struct vfun_place *place)
{
	uint64_t len = it->size;

	for (unsigned d = 0; d < it->dims; d++) {
		const struct vfun_dim *dim = &it->dim[d];

		place->dim[d] = dim->kind == VFUN_DIM_NUMBER ? dim->n : dim->kind == VFUN_DIM_VAR ? var[dim->n] : 0;
		if (__builtin_mul_overflow(len, place->dim[d], &len))
			return -EOVERFLOW;
	}
	place->len = len;
	return 0;
}

/* Items, by their numbers or in order from `first`, one behind the other: 0 and the end of the last, or -EOVERFLOW. */
static int
lay_out(const struct vfun_signature *s, const uint8_t *which, unsigned first, unsigned n, unsigned align,
    const uint64_t *var, struct vfun_place *place, uint64_t *end)
{
	uint64_t at = 0;

	for (unsigned i = 0; i < n; i++) {
		const struct vfun_item *it = &s->item[which ? which[i] : first + i];

		if (measure(it, var, &place[i]) || __builtin_add_overflow(at, align - 1, &at))
			return -EOVERFLOW;
		place[i].off = at & ~(uint64_t)(align - 1);
		if (__builtin_add_overflow(place[i].off, place[i].len, &at))
			return -EOVERFLOW;
	}
	*end = at;
	return 0;
}

/* The sentence about an input of the wrong length names its array if there is one only. */
static const char *
input_name(const struct vfun_signature *s, const struct vfun_command *c)
{
	return c->arrays == 1 ? s->item[c->array[0]].name : "input";
}

/* How many bytes the input grows by for each one of the free dimension, and how many it has without; -EOVERFLOW. */
static int
slope(const struct vfun_signature *s, const struct vfun_command *c, uint64_t *var, unsigned free, uint64_t *fixed,
    uint64_t *each)
{
	struct vfun_place place;

	*fixed = *each = 0;
	var[free] = 1;
	for (unsigned i = 0; i < c->arrays; i++) {
		const struct vfun_item *it = &s->item[c->array[i]];
		int has = 0;

		for (unsigned d = 0; d < it->dims; d++)
			has |= it->dim[d].kind == VFUN_DIM_VAR && it->dim[d].n == free;
		if (measure(it, var, &place) ||
		    __builtin_add_overflow(has ? *each : *fixed, place.len, has ? each : fixed))
			return -EOVERFLOW;
	}
	return 0;
}

/* Lay the input out with this value of the free dimension: 0 and where it ends, or -EOVERFLOW. */
static int
try(const struct vfun_signature *s, const struct vfun_command *c, unsigned free, uint64_t n, struct vfun_fit *fit,
    uint64_t *end)
{
	fit->var[free] = n;
	return lay_out(s, c->array, 0, c->arrays, s->in_align, fit->var, fit->in, end);
}

static int COLD
refuse_length(const struct vfun_signature *s, const struct vfun_command *c, uint64_t in_len, uint64_t least,
    uint64_t each, char why[VFUN_WHY_MAX])
{
	const char *name = input_name(s, c);
	unsigned long long has = in_len;

	if (least > in_len)
		return refuse(why, "%s: %llu bytes, not %llu or more", name, has, (unsigned long long)least);
	if (*c->free == '*')
		return refuse(why, "%s: %llu bytes, not N * %llu", name, has, (unsigned long long)each);
	return refuse(why, "%.30s: %llu bytes: no whole %s", name, has, c->free);
}

/* The free dimension and the places of the arrays. Padding makes the input longer, so that the dimension may be smaller
 * than without, by less than one for each byte of it: it is searched for between these two. */
static int
solve(const struct vfun_signature *s, const struct vfun_command *c, unsigned free, uint64_t in_len,
    struct vfun_fit *fit, char why[VFUN_WHY_MAX])
{
	uint64_t padding = (uint64_t)c->arrays * s->in_align;
	uint64_t fixed;
	uint64_t each;
	uint64_t low;
	uint64_t high;
	uint64_t end;

	if (slope(s, c, fit->var, free, &fixed, &each))
		return refuse(why, "%s: too large", input_name(s, c));
	if (!each)
		return refuse(why, "%s: a dimension is 0", input_name(s, c));
	high = in_len < fixed ? 0 : (in_len - fixed) / each;
	low = high > padding ? high - padding : 0;
	for (uint64_t n = high;; n = low + (high - low) / 2) {
		if (try(s, c, free, n, fit, &end))
			return refuse(why, "%s: too large", input_name(s, c));
		if (end == in_len)
			return 0;
		if (end < in_len ? n == high : n == low)
			return refuse_length(s, c, in_len, n ? 0 : end, each, why);
		if (end < in_len)
			low = n + 1;
		else
			high = n - 1;
	}
}

/* The most frequent case: one array, of so many things of the same size. */
static int
solve_one(const struct vfun_signature *s, const struct vfun_command *c, unsigned free, uint64_t in_len,
    struct vfun_fit *fit, char why[VFUN_WHY_MAX])
{
	uint64_t n = c->each == 1 ? in_len : in_len / c->each;

	if (n * c->each != in_len)
		return refuse_length(s, c, in_len, 0, c->each, why);
	fit->var[free] = n;
	return measure(&s->item[c->array[0]], fit->var, &fit->in[0]);
}

static int
check_arrays(const struct vfun_signature *s, const struct vfun_command *c, unsigned free, int bulk, uint64_t in_len,
    struct vfun_fit *fit, char why[VFUN_WHY_MAX])
{
	uint64_t end;

	if (!c->arrays)
		return in_len ? refuse(why, "%llu bytes of input, and it takes none", (unsigned long long)in_len) : 0;
	if (!bulk)
		return refuse(why, "%s: missing", s->item[c->array[0]].name);
	if (c->each)
		return solve_one(s, c, free, in_len, fit, why);
	if (*c->free)
		return solve(s, c, free, in_len, fit, why);
	if (lay_out(s, c->array, 0, c->arrays, s->in_align, fit->var, fit->in, &end))
		return refuse(why, "%s: too large", input_name(s, c));
	return end == in_len ? 0
			     : refuse(why, "%s: %llu bytes, not %llu", input_name(s, c), (unsigned long long)in_len,
				   (unsigned long long)end);
}

static int
fits_set(const struct vfun_signature *s, const uint64_t *arg, unsigned nargs, int bulk, uint64_t in_len,
    struct vfun_fit *fit, char why[VFUN_WHY_MAX])
{
	int r;

	if (!s->set.present)
		return refuse(why, "it has no set");
	r = check_scalars(s, &s->set, arg, nargs, fit->var + VFUN_VAR_SET, why);
	return r ? r : check_arrays(s, &s->set, VFUN_VAR_SET + VFUN_VAR_FREE, bulk, in_len, fit, why);
}

int
vfun_signature_fits(const struct vfun_signature *s, enum vfun_cmd cmd, const uint64_t *arg, unsigned nargs, int bulk,
    uint64_t in_len, struct vfun_fit *fit, char why[VFUN_WHY_MAX])
{
	int r;

	if (cmd == VFUN_CMD_SET)
		return fits_set(s, arg, nargs, bulk, in_len, fit, why);
	r = check_scalars(s, &s->get, arg, nargs, fit->var + VFUN_VAR_GET, why);
	if (r || (s->plain && !in_len))
		return r;
	if (s->get.uses_set) {
		if (!fit->kept) {
			refuse(why, "there was no set");
			return -ENODATA;
		}
		memcpy(fit->var + VFUN_VAR_SET, fit->kept_var, sizeof(fit->kept_var));
	}
	r = check_arrays(s, &s->get, VFUN_VAR_GET + VFUN_VAR_FREE, bulk, in_len, fit, why);
	if (r)
		return r;
	if (lay_out(s, NULL, s->first_result, s->results, s->out_align, fit->var, fit->out, &fit->out_len))
		return refuse(why, "the result is too large");
	if (s->any)
		fit->out_len = 0;
	return 0;
}

void
vfun_signature_keep(struct vfun_fit *fit)
{
	memcpy(fit->kept_var, fit->var + VFUN_VAR_SET, sizeof(fit->kept_var));
	fit->kept = 1;
}

void
vfun_signature_forget(struct vfun_fit *fit)
{
	fit->kept = 0;
}
