/* SPDX-License-Identifier: MIT
 *
 * stats.c - many durations in little room: a histogram of fixed relative precision, quantiles, means
 */
#include <stdio.h>
#include <stdlib.h>

#include "stats.h"

/* Below HIST_SUB each value has its bucket; above, the highest HIST_BITS + 1 bits of a value, of which the first is
 * always 1, name it. */
static unsigned
bucket(uint64_t v)
{
	unsigned e;

	if (v < HIST_SUB)
		return (unsigned)v;
	e = 63u - (unsigned)__builtin_clzll(v);
	return (e - HIST_BITS + 1) * HIST_SUB + (unsigned)(v >> (e - HIST_BITS)) - HIST_SUB;
}

/* The smallest value of a bucket, and how many it has. */
static void
range(unsigned i, double *low, double *width)
{
	unsigned shift = i < HIST_SUB ? 0 : i / HIST_SUB - 1;
	uint64_t base = i < HIST_SUB ? i : HIST_SUB + i % HIST_SUB;

	*low = (double)(base << shift);
	*width = (double)(1ull << shift);
}

void
hist_add(struct hist *h, uint64_t value)
{
	h->n++;
	h->count[bucket(value)]++;
	if (value > h->max)
		h->max = value;
}

/* Values are taken to lie evenly in their bucket. */
double
hist_quantile(const struct hist *h, double q)
{
	double rank = q * (double)h->n;
	double before = 0;
	double low;
	double width;

	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		double count = (double)h->count[i];
		double value;

		if (!h->count[i] || before + count < rank) {
			before += count;
			continue;
		}
		range(i, &low, &width);
		value = low + (width - 1) * (rank - before) / count;
		return value < (double)h->max ? value : (double)h->max;
	}
	return (double)h->max;
}

char *
hist_text(const struct hist *h, double unit)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);
	const char *sep = "";
	double low;
	double width;

	if (!f)
		return NULL;
	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		if (!h->count[i])
			continue;
		range(i, &low, &width);
		fprintf(f, "%s%.9g:%llu", sep, (low + (width - 1) / 2) / unit, (unsigned long long)h->count[i]);
		sep = " ";
	}
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

static int
compare(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

double
stats_median(double *x, unsigned n)
{
	if (!n)
		return 0;
	qsort(x, n, sizeof(*x), compare);
	return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

double
stats_mean(const double *x, unsigned n)
{
	double sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += x[i];
	return n ? sum / n : 0;
}
