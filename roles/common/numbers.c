/* SPDX-License-Identifier: MIT
 *
 * numbers.c - unsigned numbers in a text
 *
 * sscanf() would do, but a static executable grows by 80 KB with it: it can read every kind of number.
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
