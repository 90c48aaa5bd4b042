/* SPDX-License-Identifier: MIT
 *
 * stats.h - many durations in little room: a histogram of fixed relative precision, quantiles, means
 */
#ifndef BENCH_STATS_H
#define BENCH_STATS_H

#include <stdint.h>

/* As HdrHistogram: each power of two is cut into HIST_SUB buckets of equal width, so that any value is known to better
 * than 1 / HIST_SUB. */
#define HIST_BITS 7
#define HIST_SUB (1u << HIST_BITS)
#define HIST_BUCKETS ((64 - HIST_BITS + 1) * HIST_SUB)

struct hist {
	uint64_t n;
	uint64_t max;
	uint64_t count[HIST_BUCKETS];
};

void hist_add(struct hist *h, uint64_t value);

/* The value that a share q (0..1) of all doesn't exceed; 0 if there are none. */
double hist_quantile(const struct hist *h, double q);

/* "value:count value:count ...", each value the middle of a bucket, in units of `unit`. To be freed; NULL: no memory.
 */
char *hist_text(const struct hist *h, double unit);

/* Of n values, which are left sorted. */
double stats_median(double *x, unsigned n);
double stats_mean(const double *x, unsigned n);

#endif
