/* SPDX-License-Identifier: MIT
 *
 * fuzz.h - what the fuzz targets share: reading the input, saying what is wrong
 *
 * An input is a program: a byte that says what to do, and the bytes that this needs. At its end every reader gives 0,
 * so that each prefix of an input is an input as well, which libFuzzer likes.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What must hold. */
#define CHECK(cond, ...)                                                                                               \
	do {                                                                                                           \
		if (!(cond)) {                                                                                         \
			fprintf(stderr, "%s:%d: not so: %s: ", __FILE__, __LINE__, #cond);                             \
			fprintf(stderr, __VA_ARGS__);                                                                  \
			fprintf(stderr, "\n");                                                                         \
			abort();                                                                                       \
		}                                                                                                      \
	} while (0)

/* The harness's own loops: what they do is no coverage, and they are right. */
#define UNSEEN __attribute__((no_sanitize("address", "undefined", "coverage")))

struct input {
	const uint8_t *p;
	size_t left;
};

static inline void
in_bytes(struct input *in, void *buf, size_t len)
{
	size_t n = len < in->left ? len : in->left;

	memset(buf, 0, len);
	memcpy(buf, in->p, n);
	in->p += n;
	in->left -= n;
}

#define IN_NUMBER(name, type)                                                                                          \
	static inline type name(struct input *in)                                                                      \
	{                                                                                                              \
		type v;                                                                                                \
                                                                                                                       \
		in_bytes(in, &v, sizeof(v));                                                                           \
		return v;                                                                                              \
	}

IN_NUMBER(in_u8, uint8_t)
IN_NUMBER(in_u16, uint16_t)
IN_NUMBER(in_u32, uint32_t)
IN_NUMBER(in_u64, uint64_t)

/* A number that is small more often than not: one byte, unless that byte says that 8 follow. */
static inline uint64_t
in_small(struct input *in)
{
	uint8_t v = in_u8(in);

	return v == 0xff ? in_u64(in) : v;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
