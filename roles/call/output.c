/* SPDX-License-Identifier: MIT
 *
 * output.c - vfun call's result: numbers and arrays as text, as JSON, or as bytes
 *
 * Bytes it is for a single array of bytes, for a function whose input came as one plain file, and in a file that isn't
 * meant to be text; in all other cases text.
 */
#include <errno.h>
#include <gmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "call.h"

enum form { FORM_TEXT, FORM_BYTES, FORM_NPY };

static const struct vfun_item *
result_item(const struct call *c, unsigned i)
{
	return &c->sig.item[c->sig.first_result + i];
}

static int
is_text(const struct vfun_item *it)
{
	return it->type == VFUN_TYPE_INT || it->type == VFUN_TYPE_HEX || !it->dims;
}

static int
ends_with(const char *s, const char *end)
{
	size_t n = strlen(s);
	size_t m = strlen(end);

	return n > m && !strcmp(s + n - m, end);
}

static enum form
form(const struct call *c)
{
	const struct vfun_item *it = result_item(c, 0);

	if (!c->sig.results || (c->sig.results == 1 && is_text(it)))
		return FORM_TEXT;
	if (c->json && !c->output && !c->plain)
		return FORM_TEXT;
	if (c->output && (ends_with(c->output, ".json") || ends_with(c->output, ".txt")))
		return FORM_TEXT;
	if (c->output && ends_with(c->output, ".npy"))
		return FORM_NPY;
	return c->output || c->plain || (c->sig.results == 1 && it->type == VFUN_TYPE_U8) ? FORM_BYTES : FORM_TEXT;
}

int
output_possible(const struct call *c)
{
	if (form(c) == FORM_NPY && c->sig.results > 1)
		return call_fail(EXIT_USAGE, "%s: a .npy file has one array, and %s has %u results", c->output,
		    c->function, c->sig.results);
	if (c->json && form(c) == FORM_BYTES && !c->output)
		return call_fail(EXIT_USAGE, "%s: its result is bytes: --json needs -o FILE for them", c->function);
	return 0;
}

/* Where each result is, now that their length is known, which tells what a free dimension is. 0, or an exit status: the
 * function gave something else. */
static int
lay_out(struct call *c)
{
	unsigned n = c->sig.results;
	unsigned any = 0;
	const struct vfun_item *it;
	struct vfun_place *p;
	uint64_t each;

	if (!c->sig.any || !n)
		return c->res.len == c->fit.out_len ? 0 : -EPROTO;
	it = result_item(c, n - 1);
	p = &c->fit.out[n - 1];
	each = vfun_type_size(it->type);
	if (c->res.len < p->off)
		return -EPROTO;
	p->len = c->res.len - p->off;
	for (unsigned d = 0; d < it->dims; d++) {
		if (it->dim[d].kind == VFUN_DIM_ANY)
			any = d;
		else if (__builtin_mul_overflow(each, p->dim[d], &each))
			return -EPROTO;
	}
	p->dim[any] = each ? p->len / each : 0;
	return p->dim[any] * each == p->len ? 0 : -EPROTO;
}

static void
print_integer(FILE *f, const uint8_t *data, uint64_t len)
{
	mpz_t n;
	char *s;

	mpz_init(n);
	mpz_import(n, len, -1, 1, 0, 0, data);
	s = mpz_get_str(NULL, 10, n);
	fputs(s, f);
	free(s);
	mpz_clear(n);
}

static void
print_hex(FILE *f, const uint8_t *data, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		fprintf(f, "%02x", data[i]);
}

static void
print_result(FILE *f, const struct call *c, unsigned i, int json)
{
	const struct vfun_item *it = result_item(c, i);
	const struct vfun_place *p = &c->fit.out[i];
	const uint8_t *data = c->result + p->off;
	int quoted = json && (it->type == VFUN_TYPE_INT || it->type == VFUN_TYPE_HEX);

	if (quoted)
		putc('"', f);
	if (it->type == VFUN_TYPE_INT)
		print_integer(f, data, p->len);
	else if (it->type == VFUN_TYPE_HEX)
		print_hex(f, data, p->len);
	else
		list_print(f, it->type, it->dims, p->dim, data, json);
	if (quoted)
		putc('"', f);
}

static void
print_json(const struct call *c)
{
	unsigned n = c->sig.results;

	printf("{\"function\":");
	cli_json_string(stdout, c->function);
	if (n && form(c) == FORM_TEXT) {
		printf(",\"result\":");
		for (unsigned i = 0; i < n; i++) {
			if (n > 1)
				printf("%c\"%s\":", i ? ',' : '{',
				    *result_item(c, i)->name ? result_item(c, i)->name : "int");
			print_result(stdout, c, i, 1);
		}
		if (n > 1)
			putchar('}');
	}
	printf(
	    ",\"bytes\":%llu,\"path\":\"%s\",\"target\":\"%s\",\"times_us\":{\"negotiation\":%.1f,\"activation\":%.1f,"
	    "\"computation\":%.1f,\"release\":%.1f}}\n",
	    (unsigned long long)c->res.len, vfun_path_name(c->path), cli_target_name(c->grant.target),
	    c->times.negotiate / 1e3, c->times.activate / 1e3, c->compute_ns / 1e3, c->times.release / 1e3);
}

/* A line for each result; its name before it, if there are several. */
static void
print_text(FILE *f, const struct call *c)
{
	for (unsigned i = 0; i < c->sig.results; i++) {
		if (c->sig.results > 1)
			fprintf(f, "%s: ", *result_item(c, i)->name ? result_item(c, i)->name : "int");
		print_result(f, c, i, 0);
		putc('\n', f);
	}
}

/* Some file systems say only at the end that there was no room. */
static int
stdout_done(void)
{
	int r = cli_flush("call");

	if (!r && close(STDOUT_FILENO) < 0)
		r = call_fail(EXIT_SYSTEM, "standard output: %s", strerror(errno));
	return r;
}

static int
write_output(const struct call *c)
{
	const struct vfun_item *it = result_item(c, 0);
	struct outfile out = { .f = stdout };
	int r = c->output ? outfile_open(&out, c->output) : 0;

	if (r)
		return call_fail(EXIT_SYSTEM, "%s: %s", c->output, strerror(-r));
	if (form(c) == FORM_NPY)
		npy_write_header(out.f, it->type, it->dims, c->fit.out[0].dim);
	if (form(c) == FORM_TEXT)
		print_text(out.f, c);
	else
		fwrite(c->result, 1, c->res.len, out.f);
	if (!c->output)
		return stdout_done();
	r = outfile_close(&out);
	return r ? call_fail(EXIT_SYSTEM, "%s: %s", c->output, strerror(-r)) : 0;
}

int
output_result(struct call *c)
{
	int r = 0;

	if (lay_out(c))
		return call_fail(EXIT_FUNCTION, "%s: its result, %llu bytes, is not what its signature says",
		    c->function, (unsigned long long)c->res.len);
	if (!c->json || c->output)
		r = write_output(c);
	if (!r && c->json) {
		print_json(c);
		r = stdout_done();
	}
	return r;
}
