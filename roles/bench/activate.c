/* SPDX-License-Identifier: MIT
 *
 * activate.c - vfun bench activate: how long it takes to get an instance, and to give it back
 *
 * Negotiation, activation (a process is started, confined, and has proved its mapping), release: one after the other,
 * each timed by the client library.
 */
#include <errno.h>
#include <string.h>

#include "../common/cli.h"
#include "../roles.h"
#include "bench.h"

#define COUNT_DEFAULT 200
#define PHASES 4

enum { WHERE, PATH, PHASE, TIMES, MEDIAN, P99, MAX };

static const struct column columns[] = {
	{ "where", "where", KIND_TEXT, 0 },
	{ "path", "path", KIND_TEXT, 0 },
	{ "phase", "phase", KIND_TEXT, 0 },
	{ "times", "times", KIND_COUNT, 0 },
	{ "median_us", "median us", KIND_NUMBER, 1 },
	{ "p99_us", "p99", KIND_NUMBER, 1 },
	{ "max_us", "most", KIND_NUMBER, 1 },
	{ NULL, NULL, KIND_TEXT, 0 },
};

static const char *const phases[PHASES] = { "negotiation", "activation", "release", "all three" };

/* One life; path: by which, as it turned out. */
static int
once(const struct bench *b, struct hist *h, char *path, size_t room)
{
	const struct vfun_options o = { .size = sizeof(o), .run = b->run };
	struct vfun_times t;
	struct vfun *v;
	int r = vfun_open(&v, "factorial", &o);

	if (r) {
		r = bench_fail(cli_status(r), "%s", vfun_text(v));
		vfun_close(v, NULL);
		return r;
	}
	snprintf(path, room, "%s", vfun_path_name(vfun_path(v)));
	r = vfun_close(v, &t);
	if (r)
		return bench_fail(cli_status(r), "release: %s", strerror(-r));
	hist_add(&h[0], t.negotiate);
	hist_add(&h[1], t.activate);
	hist_add(&h[2], t.release);
	hist_add(&h[3], t.negotiate + t.activate + t.release);
	return 0;
}

static int
here(struct bench *b)
{
	static struct hist h[PHASES];
	char path[16] = "";
	int r = 0;

	progress_begin(b, b->in_guest ? "guest" : "host", (double)b->count);
	for (uint64_t i = 0; !r && i < b->count; i++) {
		r = once(b, h, path, sizeof(path));
		progress_step(1);
	}
	progress_end();
	for (unsigned i = 0; !r && i < PHASES; i++) {
		struct cell *c = table_row(&b->table);

		cell_text(&c[WHERE], b->in_guest ? "guest" : "host");
		cell_text(&c[PATH], "%s", path);
		cell_text(&c[PHASE], "%s", phases[i]);
		cell_number(&c[TIMES], (double)h[i].n);
		cell_number(&c[MEDIAN], hist_quantile(&h[i], 0.5) / 1e3);
		cell_number(&c[P99], hist_quantile(&h[i], 0.99) / 1e3);
		cell_number(&c[MAX], (double)h[i].max / 1e3);
	}
	return r;
}

int
bench_activate(struct bench *b)
{
	char count[24];
	const char *const args[] = { "--count", count, NULL };
	int r;

	if (!b->count)
		b->count = COUNT_DEFAULT;
	snprintf(count, sizeof(count), "%llu", (unsigned long long)b->count);
	table_init(&b->table, columns);
	r = here(b);
	if (!r)
		r = bench_guest(b, args, NULL, NULL, NULL);
	if (r)
		return r;
	machine_end(b, 1);
	return report(b, NULL);
}
