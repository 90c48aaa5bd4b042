/* SPDX-License-Identifier: MIT
 *
 * lists.c - fuzz target: what vfun call takes for an array, as text and as .npy
 *
 * The first byte says which type, the second which of the two it is. A list that is accepted comes back as the same one
 * when it is printed and read again.
 */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

static const uint8_t *file;
static size_t file_size;

static ssize_t
fuzz_pread(int fd, void *buf, size_t len, off_t at)
{
	size_t left = (size_t)at < file_size ? file_size - (size_t)at : 0;

	(void)fd;
	len = len < left ? len : left;
	if (len)
		memcpy(buf, file + at, len);
	return (ssize_t)len;
}

static int
fuzz_fstat(int fd, struct stat *st)
{
	(void)fd;
	*st = (struct stat){ .st_size = (off_t)file_size };
	return 0;
}

#include "../../roles/call/list.c"
#define pread fuzz_pread
#define fstat fuzz_fstat
#define wrong npy_wrong
#include "../../roles/call/npy.c"

static uint64_t
elements(const struct source *s)
{
	uint64_t n = 1;

	for (unsigned d = 0; d < s->dims; d++)
		n *= s->dim[d];
	return n;
}

/* Numbers that aren't any needn't be the same bits. */
static int
same(const struct source *a, const struct source *b, enum vfun_type type)
{
	unsigned size = vfun_type_size(type);

	if (a->len != b->len || a->dims != b->dims || memcmp(a->dim, b->dim, a->dims * sizeof(a->dim[0])) != 0)
		return 0;
	for (uint64_t i = 0; i < a->len; i += size) {
		float f = 0;
		double d = 0;

		memcpy(type == VFUN_TYPE_F32 ? (void *)&f : (void *)&d, a->mem + i, vfun_type_float(type) ? size : 0);
		if (f == f && d == d && memcmp(a->mem + i, b->mem + i, size) != 0)
			return 0;
	}
	return 1;
}

static void
lists(enum vfun_type type, const char *text)
{
	struct source s = { .fd = -1 };
	struct source again = { .fd = -1 };
	char why[VFUN_TEXT_MAX] = "";
	char *printed;
	size_t len;
	FILE *f;

	if (list_parse(text, type, &s, why)) {
		CHECK(*why && memchr(why, 0, sizeof(why)), "no sentence");
		free(s.mem);
		return;
	}
	CHECK(s.dims >= 1 && s.dims <= VFUN_SIGNATURE_DIMS, "%u dimensions", s.dims);
	CHECK(s.len == elements(&s) * vfun_type_size(type), "%llu bytes", (unsigned long long)s.len);
	f = open_memstream(&printed, &len);
	list_print(f, type, s.dims, s.dim, s.mem, 0);
	fclose(f);
	CHECK(!list_parse(printed, type, &again, why) && (same(&s, &again, type) || !s.len), "%s", printed);
	free(printed);
	free(s.mem);
	free(again.mem);
}

static void
npy(enum vfun_type type)
{
	struct source s = { .fd = 0 };
	char why[VFUN_TEXT_MAX] = "";

	if (npy_header(&s, type, why)) {
		CHECK(*why && memchr(why, 0, sizeof(why)), "no sentence");
		return;
	}
	CHECK(s.dims >= 1 && s.dims <= VFUN_SIGNATURE_DIMS, "%u dimensions", s.dims);
	CHECK(s.at <= file_size && s.len == file_size - s.at, "%llu bytes", (unsigned long long)s.len);
	CHECK(s.len == elements(&s) * vfun_type_size(type), "%llu bytes", (unsigned long long)s.len);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum vfun_type type = size ? (enum vfun_type)(data[0] % VFUN_TYPE_F64 + 1) : VFUN_TYPE_U8;
	char *text;

	if (size < 2)
		return 0;
	file = data + 2;
	file_size = size - 2;
	if (data[1] & 1) {
		npy(type);
		return 0;
	}
	text = strndup((const char *)file, file_size);
	lists(type, text);
	free(text);
	return 0;
}
