/* SPDX-License-Identifier: MIT
 *
 * progress.c - how far it is: a bar with the time left, on standard error where that is a terminal
 *
 * In a guest that the bench on the host has started it is lines for that one to draw.
 */
#include <string.h>
#include <unistd.h>

#include "bench.h"

#define WIDTH 30
#define EVERY_NS 200000000u

static struct {
	const char *what;
	double total;
	double done;
	uint64_t since;
	uint64_t drawn;
	enum { SILENT, BAR, LINES } how;
} p;

static void
draw(double share)
{
	uint64_t now = bench_ns();
	double left;
	unsigned full;

	if (now - p.drawn < EVERY_NS)
		return;
	p.drawn = now;
	share = share < 1 ? share : 1;
	if (p.how == LINES) {
		printf("vfun-bench\tat\t%.4f\n", share);
		fflush(stdout);
		return;
	}
	full = (unsigned)(share * WIDTH);
	left = share > 0 ? (double)(now - p.since) / 1e9 * (1 - share) / share : 0;
	fprintf(stderr, "\r%-24s [%.*s%*s] %3.0f %%", p.what, (int)full, "##############################",
	    (int)(WIDTH - full), "", share * 100);
	if (share > 0.01)
		fprintf(stderr, "  %u:%02u left ", (unsigned)left / 60, (unsigned)left % 60);
}

void
progress_begin(const struct bench *b, const char *what, double total)
{
	memset(&p, 0, sizeof(p));
	p.what = what;
	p.total = total;
	p.since = bench_ns();
	p.how = b->inside ? LINES : isatty(STDERR_FILENO) ? BAR : SILENT;
	if (p.how != SILENT)
		draw(0);
}

void
progress_step(double more)
{
	p.done += more;
	if (p.how != SILENT && p.total > 0)
		draw(p.done / p.total);
}

void
progress_at(double share)
{
	if (p.how != SILENT)
		draw(share);
}

void
progress_end(void)
{
	if (p.how == BAR)
		fprintf(stderr, "\r%*s\r", WIDTH + 54, "");
	p.how = SILENT;
}
