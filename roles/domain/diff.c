/* SPDX-License-Identifier: MIT
 *
 * diff.c - two texts, line by line: those that went and those that came, as diff(1) -U0 has them; in the host half
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"

struct line {
	const char *at;
	size_t len;
};

static struct line *
split(const char *text, size_t *n)
{
	size_t lines = 1;
	struct line *l;

	for (const char *p = text; *p; p++)
		lines += *p == '\n';
	l = calloc(lines, sizeof(*l));
	*n = 0;
	for (const char *p = text; l && *p; p += l[*n].len + (p[l[*n].len] == '\n'), (*n)++)
		l[*n] = (struct line){ .at = p, .len = strcspn(p, "\n") };
	return l;
}

static int
same(const struct line *a, const struct line *b)
{
	return a->len == b->len && !memcmp(a->at, b->at, a->len);
}

static void
put(char mark, const struct line *l)
{
	printf("%c %.*s\n", mark, (int)l->len, l->at);
}

/* common[i][j]: the longest common subsequence of what follows a[i] and b[j]. */
static void
compare(const struct line *a, size_t n, const struct line *b, size_t m, uint16_t *common)
{
	size_t i = 0;
	size_t j = 0;
	const size_t w = m + 1;

	for (size_t x = n; x-- > 0;)
		for (size_t y = m; y-- > 0;)
			common[x * w + y] =
			    (uint16_t)(same(&a[x], &b[y]) ? common[(x + 1) * w + y + 1] + 1
				       : common[(x + 1) * w + y] > common[x * w + y + 1] ? common[(x + 1) * w + y]
											 : common[x * w + y + 1]);
	while (i < n || j < m) {
		if (i < n && j < m && same(&a[i], &b[j])) {
			i++;
			j++;
		} else if (i < n && (j == m || common[(i + 1) * w + j] >= common[i * w + j + 1])) {
			put('-', &a[i++]);
		} else {
			put('+', &b[j++]);
		}
	}
}

void
diff_show(const char *before, const char *after)
{
	size_t n = 0;
	size_t m = 0;
	struct line *a = split(before, &n);
	struct line *b = split(after, &m);
	uint16_t *common = a && b && n < 20000 && m < 20000 ? calloc((n + 1) * (m + 1), sizeof(*common)) : NULL;

	if (common)
		compare(a, n, b, m, common);
	free(common);
	free(a);
	free(b);
}
