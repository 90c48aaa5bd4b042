/* SPDX-License-Identifier: MIT
 *
 * number.h - numbers as text, the same in every locale
 *
 * A program that uses this library may have set its locale, in which 1.5 is 1,5, and é a letter. What stands in a
 * signature, or in a sentence about it, is the protocol's, so it is read and written in the C locale, by this thread
 * alone and for a moment. newlocale() of that one neither reads a file nor takes memory.
 */
#ifndef PROTO_NUMBER_H
#define PROTO_NUMBER_H

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

static inline double
number_read(const char *text, char **end)
{
	locale_t was = uselocale(newlocale(LC_ALL_MASK, "C", (locale_t)0));
	double d = strtod(text, end);

	(void)uselocale(was);
	return d;
}

/* As printf's %.*g. */
static inline void
number_write(char *text, size_t size, int digits, double d)
{
	locale_t was = uselocale(newlocale(LC_ALL_MASK, "C", (locale_t)0));

	snprintf(text, size, "%.*g", digits, d);
	(void)uselocale(was);
}

static inline int
number_digit(char c)
{
	return c >= '0' && c <= '9';
}

static inline int
number_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

#endif
