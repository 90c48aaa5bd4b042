/* SPDX-License-Identifier: MIT
 *
 * bench.h - what the files of `vfun bench` share: one run, its rows, and who does which part
 *
 * A benchmark measures and adds rows to a table; the table is what is shown (text, JSON, CSV), and what travels from a
 * guest to the host when the same program runs there (`--inside`). So that a figure exists once, whatever it becomes.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stdio.h>
#include <sys/types.h>

#include "../../backends/backend.h"
#include "../../proto/vfun.h"
#include "stats.h"

#define BENCH_HOST "10.0.2.2"		  /* this host, seen from a throw-away VM with --net */
#define BENCH_TIMEOUT_NS 3600000000000ull /* for one call: the largest takes minutes */

enum format {
	FORMAT_TEXT,
	FORMAT_JSON,
	FORMAT_CSV,
	FORMAT_LINES, /* --inside: for the bench on the host */
};

/* report.c: rows of cells under named columns */

enum kind {
	KIND_TEXT,
	KIND_COUNT,  /* a whole number */
	KIND_NUMBER, /* with decimals */
	KIND_PAIRS,  /* text "a:b a:b ...", in JSON [[a,b],...] */
};

struct column {
	const char *key;     /* in JSON and CSV; NULL ends a list of columns */
	const char *heading; /* in the text; NULL: not shown there */
	enum kind kind;
	int decimals; /* in the text */
};

struct cell {
	char *text;
	double number;
	int set;
};

struct table {
	const struct column *column;
	unsigned columns;
	struct cell *cell; /* row by row */
	unsigned rows;
	unsigned room;
};

/* Sentences: warnings, and what was left out and why. The same one only once. */
struct notes {
	char *text[64];
	unsigned n;
};

/* What the figures depend on. Empty strings: unknown, or not there. */
struct machine {
	char cpu[96];
	char cores[64];	  /* as the kernel lists those that this process may use: "0-1" */
	unsigned cores_n; /* how many */
	char kernel[96];
	char virtual[32];   /* what this machine itself runs on: "KVM", "TCG", ... */
	char frequency[96]; /* how it is scaled */
	char qemu[64];	    /* of the guest */
	char accel[32];	    /* the guest's: "KVM" or "TCG" */
	char guest[96];	    /* the guest's kernel */
	uint64_t all;	    /* clock ticks of all cores when the run began; 0: unknown */
	uint64_t busy;	    /* and those not idle */
	uint64_t stolen;    /* and those that the machine below took */
	uint64_t own;	    /* and those that this run has used itself */
};

struct bench {
	const char *name; /* which benchmark */
	enum format format;
	const char *plot;     /* file, or NULL */
	const char *run;      /* run folder, NULL: the usual places */
	int inside;	      /* in a guest that a bench on the host has started */
	int in_guest;	      /* in any guest */
	int want_guest;	      /* 0: --no-guest */
	const char *path;     /* only this one */
	const char *function; /* only this one: domains.c; hardware.c: which */
	const char *instance; /* the same */
	const char *vm;	      /* for vfun vm, all of them: */
	const char *qemu;
	const char *kernel;
	const char *modules;
	const char *accel;
	const char *echo; /* where in the host a guest finds an echo: latency.c */
	const char *port; /* of the guest, to wait at for the host: domains.c */
	pid_t family;	  /* the process whose descendants are this run's, vfund among them where it is of our own */
	uint64_t blocks;
	uint64_t rounds;
	uint64_t bytes;
	uint64_t count;
	uint64_t seconds;
	uint64_t scale;
	int histogram;
	const char *conf; /* hardware.c: vfun.conf with the function, and the numbers it is called with */
	const char *args;
	const char *programs; /* functions.c: the folder with the examples */
	int try;	      /* targets.c: as little as will do to see that it works */
	struct machine machine;
	struct table table;
	struct notes warnings;
	struct notes left_out;
};

/* Say what is wrong on standard error; returns the status. */
int bench_fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* malloc() and friends that end the program where there is no memory: a benchmark has no better answer. */
void *bench_alloc(size_t n, size_t size);

uint64_t bench_ns(void); /* CLOCK_MONOTONIC */

/* The benchmarks: latency.c and so on. An exit status after having said why. */
int bench_latency(struct bench *b);
int bench_throughput(struct bench *b);
int bench_idle(struct bench *b);
int bench_activate(struct bench *b);
int bench_domains(struct bench *b);
int bench_hardware(struct bench *b);
int bench_functions(struct bench *b);
extern const char *const bench_programs[]; /* functions.c: their names; NULL ends them */
int bench_targets(struct bench *b);

/* report.c */
void table_init(struct table *t, const struct column *column);
struct cell *table_row(struct table *t); /* a new row's cells, empty; valid until the next one */
const struct cell *table_at(const struct table *t, unsigned row);
void cell_text(struct cell *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cell_number(struct cell *c, double number);
/* One row as a line for the host, and back: 0, or -EINVAL. */
void table_send(const struct table *t, unsigned row);
int table_receive(struct table *t, char *line);
void note(struct notes *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Everything. text: instead of the plain table, or NULL. An exit status. */
int report(struct bench *b, void (*text)(struct bench *b));
void report_table(const struct table *t);

/* machine.c */
void machine_begin(struct bench *b);
/* Warn of what makes figures doubtful. spinning: parties that spin at a time, 0: none. */
void machine_end(struct bench *b, unsigned spinning);
/* Warn if what was measured all the while, and should have been the same, wasn't: the quarter and three quarter points
 * of its durations. */
void machine_noise(struct bench *b, const char *what, double low, double high);
/* The same for n figures, which are sorted thereby. */
void machine_spread(struct bench *b, const char *what, double *x, unsigned n);
void machine_qemu(struct machine *m, const char *binary);

/* progress.c: a bar on standard error, where that is a terminal; from a guest, lines. */
void progress_begin(const struct bench *b, const char *what, double total);
void progress_step(double more); /* of total */
void progress_at(double share);	 /* 0..1, as a guest says */
void progress_end(void);

/* endpoint.c: where calls go */
struct endpoint {
	struct vfun *v;
	const char *where; /* "host" or "guest" */
	const char *path;
	int mapped; /* 1: the arenas are memory that both sides share */
};

/* The number of a path's name: 0, or -ENOENT. */
int endpoint_path(const char *name, enum vfun_path *path);

/* Open one path, "auto" for the best. 1: opened, 0: left out and noted, or a negative exit status. */
int endpoint_open(struct bench *b, struct endpoint *e, const char *name, const char *function, struct vfun_options o);

/* Open every path to `function` that there is, at most max; what isn't there is noted as left out. How many, or a
 * negative exit status. o: sizes; the rest is filled in. */
int endpoints_open(
    struct bench *b, struct endpoint *e, unsigned max, const char *function, const struct vfun_options *o);
void endpoints_close(struct endpoint *e, unsigned n);

/* process.c */
pid_t process_of(const struct bench *b, const struct endpoint *e); /* the service, on this host; 0: unknown */
/* Sum of the numbers in the lines of /proc/PID/FILE that begin with key; -1: it can't be read. */
double process_sum(pid_t pid, const char *file, const char *key);
double process_private_peak(pid_t pid); /* bytes of memory of its own that it had at most; -1: unknown */
double process_moved(pid_t pid);	/* bytes that it has read and written by system calls; -1: unknown */

/* One function of the software backend in this very process. */
struct local {
	const struct backend_function *fn;
	void *state;
};

int local_open(struct local *l, const char *function);
void local_close(struct local *l);
/* All arguments: nobody fills in defaults. 0 or -errno, the result in *res, which has no room beyond the inline bytes.
 */
int local_call(
    struct local *l, const uint64_t *arg, unsigned nargs, const void *in, uint64_t in_len, struct backend_result *res);

/* own.c: a vfund for this run alone, when none is there. Runs `work` in a child with b->run set, and removes everything
 * afterwards, however the child ended; the exit status of the whole. */
int own_vfund(struct bench *b, int (*work)(struct bench *b));

/* guest.c: run this benchmark in a throw-away VM; its rows come into b->table, or to on_row (NULL: none) after that.
 * args: more words for its command line, NULL-terminated; vm_args likewise for vfun vm. When there is no guest to be
 * had, that is noted as left out. An exit status. */
int bench_guest(struct bench *b, const char *const args[], const char *const vm_args[],
    int (*on_row)(struct bench *b, unsigned row, void *arg), void *arg);

/* plot.c: groups of bars, as SVG */
struct chart {
	const char *title;
	const char *unit;
	const char *const *group; /* names along the axis */
	unsigned groups;
	const char *const *series;
	unsigned serieses;
	const double *value; /* groups * serieses, group by group; 0: not there */
};

/* Write charts one below the other. 0, or an exit status after having said why. */
int plot_write(const char *path, const struct chart *chart, unsigned n);

#endif
