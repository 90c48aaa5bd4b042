/* SPDX-License-Identifier: MIT
 *
 * domains.h - the paper's experiment: what is asked (the paper's section 4.2), what it measured, and what we did
 */
#ifndef BENCH_DOMAINS_H
#define BENCH_DOMAINS_H

#include "bench.h"

#define COLUMNS 9
#define PAPER_COLUMNS 5 /* the first ones are the paper's */
#define FUNCTIONS 2

enum domain {
	IN_PROCESS, /* no call at all: the function in the client's own process */
	HOST_HOST,
	GUEST_HOST,
	GUEST_NET,
	HOST_NET,
	DOMAINS
};

struct instance {
	const char *name; /* repetitions x invocations, as the paper writes them */
	uint64_t repetitions;
	uint64_t calls;
};

struct function {
	const char *name;
	uint64_t argument;
	double paper[3][PAPER_COLUMNS]; /* seconds: Host-Host, Guest-Host, Guest-Net */
};

extern const struct instance domains_instance[COLUMNS];
extern const struct function domains_function[FUNCTIONS];
extern const char *const domains_name[DOMAINS];

/* The rows of the report. */
enum {
	D_FUNCTION,
	D_ARGUMENT,
	D_VALUE,
	D_INSTANCE,
	D_REPETITIONS,
	D_CALLS,
	D_DOMAIN,
	D_PATH,
	D_ROUNDS,
	D_MEASURED,
	D_MEAN,
	D_MEDIAN,
	D_TO_IN_PROCESS,
	D_TO_HOST_HOST,
	D_NET_TO_THIS,
	D_PAPER,
	D_PAPER_TO_HOST_HOST,
	D_PAPER_NET_TO_THIS,
};

/* Is this cell to be measured? */
int domains_chosen(const struct bench *b, unsigned f, unsigned column);

/* The row of a cell, or NULL if it wasn't measured. */
const struct cell *domains_cell(const struct bench *b, unsigned f, unsigned column, unsigned domain);

/* domains_show.c: the tables, and figures 7, 8 and 9. */
void domains_show(struct bench *b);
int domains_plot(struct bench *b);

#endif
