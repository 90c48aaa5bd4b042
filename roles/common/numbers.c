/* SPDX-License-Identifier: MIT
 *
 * numbers.c - unsigned numbers in a text: the files of /proc, in which each number is known by its place
 */
#include <stdlib.h>
#include <string.h>

#include "numbers.h"

unsigned
numbers(const char *s, uint64_t *to, unsigned n)
{
	unsigned found = 0;

	while (found < n && *(s += strcspn(s, "0123456789"))) {
		char *end;

		to[found++] = strtoull(s, &end, 10);
		s = end;
	}
	return found;
}
