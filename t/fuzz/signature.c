/* SPDX-License-Identifier: MIT
 *
 * signature.c - fuzz target: signatures, and whether calls fit them
 *
 * The input is a signature, a line's end, and calls. Whatever it says, a fault is a sentence; what is accepted keeps to
 * the limits in signature.h and means the same when it is read again; and a call that fits has its arrays where
 * signature.h says, which is found out here by trying all values of the free dimension.
 */
#include <errno.h>

#include "../../proto/signature.h"
#include "fuzz.h"

#define TRIED 4096 /* inputs up to here are compared with what trying says */

static void
check_sentence(const char *s, size_t max)
{
	size_t n = strnlen(s, max);

	CHECK(n && n < max, "a sentence of %zu bytes", n);
	for (; *s; s++)
		CHECK(*s >= ' ' && *s <= '~', "byte %d in a sentence", *s);
}

static void
check_command(const struct vfun_signature *s, const struct vfun_command *c)
{
	CHECK(c->first + c->items <= VFUN_SIGNATURE_ITEMS && c->arrays <= VFUN_SIGNATURE_ARRAYS, "too many");
	CHECK(c->scalars <= (c->arrays ? 3 : VFUN_SIGNATURE_SCALARS) && c->scalars_min <= c->scalars, "scalars");
	CHECK(c->scalars + c->arrays == c->items, "items");
	for (unsigned i = 0; i < c->arrays; i++)
		CHECK(c->array[i] >= c->first && c->array[i] < c->first + c->items && s->item[c->array[i]].dims,
		    "arrays");
}

static void
check_parsed(const struct vfun_signature *s)
{
	CHECK(s->results <= VFUN_SIGNATURE_ARRAYS && s->first_result + s->results <= VFUN_SIGNATURE_ITEMS, "results");
	CHECK(s->in_align && s->out_align && !(s->in_align & (s->in_align - 1)) && !(s->out_align & (s->out_align - 1)),
	    "alignment");
	check_command(s, &s->set);
	check_command(s, &s->get);
	for (unsigned i = 0; i < (unsigned)s->first_result + s->results; i++) {
		const struct vfun_item *it = &s->item[i];

		CHECK(memchr(it->name, 0, sizeof(it->name)) && it->dims <= VFUN_SIGNATURE_DIMS, "an item");
		CHECK(it->type >= VFUN_TYPE_U8 && it->type <= VFUN_TYPE_INT, "type %u", it->type);
		for (unsigned d = 0; d < it->dims; d++)
			CHECK(it->dim[d].kind != VFUN_DIM_VAR || it->dim[d].n < 2 * VFUN_VARS, "a variable");
	}
}

/* Bytes and shape of an array; UINT64_MAX: too many, or not told by the call. */
static uint64_t
size_of(const struct vfun_item *it, const uint64_t *var)
{
	uint64_t n = vfun_type_size(it->type);

	for (unsigned d = 0; d < it->dims; d++)
		if (it->dim[d].kind == VFUN_DIM_ANY ||
		    __builtin_mul_overflow(
			n, it->dim[d].kind == VFUN_DIM_NUMBER ? it->dim[d].n : var[it->dim[d].n], &n))
			return UINT64_MAX;
	return n;
}

/* Where the input would end; UINT64_MAX: nowhere. */
static uint64_t
end_of(const struct vfun_signature *s, const struct vfun_command *c, const uint64_t *var)
{
	uint64_t at = 0;

	for (unsigned i = 0; i < c->arrays; i++) {
		uint64_t n = size_of(&s->item[c->array[i]], var);

		at = (at + s->in_align - 1) / s->in_align * s->in_align;
		if (n > UINT32_MAX || at > UINT32_MAX)
			return UINT64_MAX;
		at += n;
	}
	return at;
}

/* How many values of the free dimension come to this length, and the last of them. */
UNSEEN static unsigned
solutions(const struct vfun_signature *s, const struct vfun_command *c, unsigned free, const uint64_t *var,
    uint64_t in_len, uint64_t *last)
{
	uint64_t v[2 * VFUN_VARS];
	unsigned found = 0;

	memcpy(v, var, sizeof(v));
	for (uint64_t n = 0; n <= (*c->free ? in_len : 0); n++) {
		if (*c->free)
			v[free] = n;
		if (end_of(s, c, v) == in_len) {
			found++;
			*last = n;
		}
	}
	return found;
}

static void
check_places(const struct vfun_signature *s, const struct vfun_command *c, const struct vfun_fit *fit, uint64_t in_len)
{
	uint64_t at = 0;

	for (unsigned i = 0; i < c->arrays; i++) {
		const struct vfun_place *p = &fit->in[i];

		CHECK(p->off >= at && p->off - at < s->in_align && !(p->off % s->in_align), "array %u at %llu", i,
		    (unsigned long long)p->off);
		CHECK(p->len == size_of(&s->item[c->array[i]], fit->var), "array %u: %llu bytes", i,
		    (unsigned long long)p->len);
		at = p->off + p->len;
	}
	CHECK(at == in_len, "the input ends at %llu", (unsigned long long)at);
}

static void
check_results(const struct vfun_signature *s, const struct vfun_fit *fit)
{
	uint64_t at = 0;

	for (unsigned i = 0; !s->plain && i < s->results; i++) {
		const struct vfun_place *p = &fit->out[i];

		CHECK(p->off >= at && p->off - at < s->out_align && !(p->off % s->out_align), "result %u at %llu", i,
		    (unsigned long long)p->off);
		CHECK(p->len == size_of(&s->item[s->first_result + i], fit->var) || (s->any && i + 1 == s->results),
		    "result %u: %llu bytes", i, (unsigned long long)p->len);
		at = p->off + p->len;
	}
	CHECK(fit->out_len == (s->any || s->plain ? 0 : at), "result of %llu bytes", (unsigned long long)fit->out_len);
}

static void
call(const struct vfun_signature *s, struct input *in, struct vfun_fit *fit)
{
	uint8_t how = in_u8(in);
	enum vfun_cmd cmd = how & 1 ? VFUN_CMD_SET : VFUN_CMD_GET;
	const struct vfun_command *c = vfun_signature_command(s, cmd);
	unsigned free = (cmd == VFUN_CMD_SET ? VFUN_VAR_SET : VFUN_VAR_GET) + VFUN_VAR_FREE;
	unsigned nargs = (how >> 1 & 7) % 8;
	int bulk = how >> 4 & 1;
	uint64_t in_len = bulk ? (how >> 5 & 1 ? in_u64(in) : in_u16(in) % TRIED) : 0;
	uint64_t arg[VFUN_PAYLOAD / 8];
	char why[VFUN_WHY_MAX];
	uint64_t n = 0;
	int r;

	for (unsigned i = 0; i < 7; i++)
		arg[i] = how >> 6 & 1 ? in_u64(in) : in_u8(in);
	r = vfun_signature_fits(s, cmd, arg, nargs, bulk, in_len, fit, why);
	CHECK(r == 0 || r == -EINVAL || r == -ENODATA, "%d", r);
	if (r)
		check_sentence(why, sizeof(why));
	if (!r && c->arrays)
		check_places(s, c, fit, in_len);
	if (!r && cmd == VFUN_CMD_GET)
		check_results(s, fit);
	/* If it was refused for its numbers, these aren't in var[]. */
	if (!r && c->arrays && in_len < TRIED)
		CHECK(solutions(s, c, free, fit->var, in_len, &n) == 1 && (!*c->free || n == fit->var[free]),
		    "not the only one: %llu", (unsigned long long)n);
	if (r == -EINVAL && strstr(why, ": no whole ") && in_len < TRIED)
		CHECK(solutions(s, c, free, fit->var, in_len, &n) == 0, "it does: %llu", (unsigned long long)n);
	if (!r && cmd == VFUN_CMD_SET)
		vfun_signature_keep(fit);
	if (how >> 7)
		vfun_signature_forget(fit);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vfun_signature s;
	static struct vfun_signature again;
	const uint8_t *end = memchr(data, '\n', size);
	size_t len = end ? (size_t)(end - data) : size;
	struct input in = { .p = data + len, .left = size - len };
	struct vfun_fit fit = { 0 };
	char fault[VFUN_TEXT_MAX];
	char *text = malloc(len + 1);

	memcpy(text, data, len);
	text[len] = '\0';
	in_u8(&in);
	if (vfun_signature_parse(&s, text, fault)) {
		check_sentence(fault, sizeof(fault));
	} else {
		check_parsed(&s);
		CHECK(!vfun_signature_parse(&again, text, fault) && !memcmp(&s, &again, sizeof(s)), "not the same");
		for (unsigned i = 0; i < 16 && in.left; i++)
			call(&s, &in, &fit);
	}
	free(text);
	return 0;
}
