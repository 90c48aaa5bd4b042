/* SPDX-License-Identifier: MIT
 *
 * npy.c - NumPy's .npy files: a header, which is a Python dictionary of three entries, and the array as it is
 *
 *   93 "NUMPY" MAJOR MINOR LENGTH {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), } blanks newline
 *
 * LENGTH has two bytes in version 1, four from 2 on. Only what lies in the file as the wire has it is taken:
 * little-endian numbers, the last dimension changing fastest.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "call.h"

#define HEADER_MAX 4096
#define MAGIC "\x93NUMPY"

static const char *
descr(enum vfun_type type)
{
	static const char *const names[] = { [VFUN_TYPE_U8] = "|u1",
		[VFUN_TYPE_U16] = "<u2",
		[VFUN_TYPE_U32] = "<u4",
		[VFUN_TYPE_U64] = "<u8",
		[VFUN_TYPE_I8] = "|i1",
		[VFUN_TYPE_I16] = "<i2",
		[VFUN_TYPE_I32] = "<i4",
		[VFUN_TYPE_I64] = "<i8",
		[VFUN_TYPE_F32] = "<f4",
		[VFUN_TYPE_F64] = "<f8",
		[VFUN_TYPE_HEX] = "|u1" };

	return names[type];
}

static int
wrong(char why[VFUN_TEXT_MAX], const char *what)
{
	snprintf(why, VFUN_TEXT_MAX, "%s", what);
	return -EINVAL;
}

/* The text behind 'KEY': in the dictionary, or NULL. */
static const char *
value_of(const char *dict, const char *key)
{
	const char *s = strstr(dict, key);

	s = s ? s + strlen(key) : NULL;
	s = s ? s + strspn(s, " ") : NULL;
	return s && *s == ':' ? s + 1 + strspn(s + 1, " ") : NULL;
}

/* (3, 4), and (3,) for one dimension; () is a single number. */
static int
read_shape(const char *s, struct source *to)
{
	if (*s++ != '(')
		return -EINVAL;
	to->dims = 0;
	for (s += strspn(s, " "); *s != ')'; s += strspn(s, " ")) {
		char *end;

		if (to->dims == VFUN_SIGNATURE_DIMS || !isdigit((unsigned char)*s))
			return -EINVAL;
		to->dim[to->dims++] = strtoull(s, &end, 10);
		s = end + strspn(end, " L");
		if (*s == ',')
			s++;
		else if (*s != ')')
			return -EINVAL;
	}
	return to->dims ? 0 : -EINVAL;
}

static int
read_dict(const char *dict, struct source *s, enum vfun_type type, char why[VFUN_TEXT_MAX])
{
	const char *type_is = value_of(dict, "'descr'");
	const char *order = value_of(dict, "'fortran_order'");
	const char *shape = value_of(dict, "'shape'");
	const char *want = descr(type);

	if (!type_is || !order || !shape || read_shape(shape, s))
		return wrong(why, "its header isn't an array's of one to four dimensions");
	if (strncmp(order, "False", 5) != 0)
		return wrong(why, "the first dimension changes fastest in it: numpy.ascontiguousarray() helps");
	/* A single byte has no order, and may be said to have one. */
	if ((type_is[0] != '\'' && type_is[0] != '"') || strncmp(type_is + 2, want + 1, 2) != 0 ||
	    (type_is[1] != want[0] && (want[0] == '<' || !strchr("<>=", type_is[1])))) {
		snprintf(why, VFUN_TEXT_MAX, "its elements are %.*s, and %s, '%s', is wanted",
		    (int)strcspn(type_is, ",}"), type_is, vfun_type_name(type), want);
		return -EINVAL;
	}
	return 0;
}

int
npy_header(struct source *s, enum vfun_type type, char why[VFUN_TEXT_MAX])
{
	unsigned char start[12];
	char dict[HEADER_MAX + 1];
	uint64_t bytes = vfun_type_size(type);
	unsigned wide;
	size_t len;
	struct stat st;
	int r;

	if (pread(s->fd, start, sizeof(start), 0) != (ssize_t)sizeof(start) ||
	    memcmp(start, MAGIC, sizeof(MAGIC) - 1) != 0 || start[6] < 1 || start[6] > 3)
		return wrong(why, "it isn't a .npy file");
	wide = start[6] == 1 ? 2 : 4;
	len = start[8] | (size_t)start[9] << 8 | (wide == 4 ? (size_t)start[10] << 16 | (size_t)start[11] << 24 : 0);
	if (len > HEADER_MAX || pread(s->fd, dict, len, 8 + wide) != (ssize_t)len)
		return wrong(why, "its header is too long, or cut off");
	dict[len] = '\0';
	r = read_dict(dict, s, type, why);
	if (r)
		return r;
	s->at = 8 + wide + len;
	for (unsigned d = 0; d < s->dims; d++)
		if (__builtin_mul_overflow(bytes, s->dim[d], &bytes))
			return wrong(why, "its shape is too large");
	if (fstat(s->fd, &st) < 0 || (uint64_t)st.st_size < s->at || (uint64_t)st.st_size - s->at != bytes)
		return wrong(why, "it is longer or shorter than its header says");
	s->len = bytes;
	return 0;
}

void
npy_write_header(FILE *f, enum vfun_type type, unsigned dims, const uint64_t *dim)
{
	char dict[256];
	int n = snprintf(dict, sizeof(dict), "{'descr': '%s', 'fortran_order': False, 'shape': (", descr(type));
	unsigned len;

	for (unsigned d = 0; d < dims; d++)
		n += snprintf(dict + n, sizeof(dict) - (size_t)n, d ? ", %llu" : "%llu", (unsigned long long)dim[d]);
	n += snprintf(dict + n, sizeof(dict) - (size_t)n, dims == 1 ? ",), }" : "), }");
	/* Header and all are a multiple of 64 bytes, and end with a newline. */
	len = ((unsigned)n + 10 + 1 + 63) / 64 * 64 - 10;
	fwrite(MAGIC "\x01\x00", 1, 8, f);
	putc((int)(len & 0xff), f);
	putc((int)(len >> 8), f);
	fprintf(f, "%-*s\n", (int)len - 1, dict);
}
