/* SPDX-License-Identifier: MIT
 *
 * numbers.h - unsigned numbers in a text, of /proc most often
 */
#ifndef COMMON_NUMBERS_H
#define COMMON_NUMBERS_H

#include <stdint.h>

/* The first numbers in the text, whatever is between them, at most n. How many there are. */
unsigned numbers(const char *s, uint64_t *to, unsigned n);

#endif
