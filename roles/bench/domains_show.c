/* SPDX-License-Identifier: MIT
 *
 * domains_show.c - the paper's tables 1 and 2 and figures 7, 8 and 9, with this machine's figures beside the paper's
 */
#include <string.h>

#include "../roles.h"
#include "domains.h"

#define NAME 26
#define WIDTH 10

/* Petry and de Azevedo 2020, tables 1 and 2: seconds, mean of five. */
const struct function domains_function[FUNCTIONS] = {
	{ "factorial", 51,
	    { { 16.40, 16.45, 16.79, 20.87, 26.02 }, { 16.41, 16.57, 16.81, 21.44, 26.54 },
		{ 15.98, 16.52, 20.84, 65.40, 114.81 } } },
	{ "fibonacci", 93,
	    { { 19.68, 19.78, 20.03, 23.92, 29.62 }, { 19.69, 19.80, 20.08, 24.87, 30.13 },
		{ 19.18, 19.79, 26.17, 70.99, 118.16 } } },
};

/* A heading that is shown once there is a line for it. */
static const char *pending;

static void
title(const char *s)
{
	pending = s;
}

/* One line: a figure of each column. where: which one; add, factor: what is shown is (x + add) * factor. */
static void
line(const struct bench *b, unsigned f, unsigned domain, const char *name, unsigned where, double add, double factor,
    int decimals)
{
	int any = 0;

	for (unsigned column = 0; column < COLUMNS; column++) {
		const struct cell *c = domains_cell(b, f, column, domain);

		any |= c && c[where].set;
	}
	if (!any)
		return;
	if (pending)
		printf(" %s\n", pending);
	pending = NULL;
	printf("  %-*s", NAME, name);
	for (unsigned column = 0; column < COLUMNS; column++) {
		if (!domains_chosen(b, f, column))
			continue;
		const struct cell *c = domains_cell(b, f, column, domain);
		int cut = c && c[D_MEASURED].number < c[D_ROUNDS].number * c[D_CALLS].number;
		char text[32] = "";

		if (c && c[where].set)
			snprintf(text, sizeof(text), "%s%.*f", where == D_MEAN && cut ? "~" : "", decimals,
			    (c[where].number + add) * factor);
		printf("%*s", WIDTH, text);
	}
	putchar('\n');
}

static void
short_number(char *buf, size_t room, double x)
{
	const char *unit = x >= 1e6 ? "M" : x >= 1e3 ? "k" : "";

	x /= x >= 1e6 ? 1e6 : x >= 1e3 ? 1e3 : 1;
	snprintf(buf, room, "%.*f%s", x < 10 && x != (double)(unsigned)x ? 1 : 0, x, unit);
}

/* repetitions x invocations, as the paper has them and as they were here. */
static void
heading(const struct bench *b, unsigned f)
{
	const struct cell *first = NULL;

	for (unsigned column = 0; column < COLUMNS; column++)
		for (unsigned k = 0; !first && k < DOMAINS; k++)
			first = domains_cell(b, f, column, k);
	printf("%s(%.0f) = %s\n  %-*s", domains_function[f].name, (double)domains_function[f].argument,
	    first ? first[D_VALUE].text : "?", NAME, "repetitions x invocations");
	for (unsigned column = 0; column < COLUMNS; column++)
		if (domains_chosen(b, f, column))
			printf("%*s", WIDTH, domains_instance[column].name);
	printf("\n  %-*s", NAME, "here");
	for (unsigned column = 0; column < COLUMNS; column++) {
		char text[40] = "";
		char repetitions[16];
		char calls[16];

		if (!domains_chosen(b, f, column))
			continue;
		for (unsigned k = 0; k < DOMAINS; k++) {
			const struct cell *c = domains_cell(b, f, column, k);

			if (!c)
				continue;
			short_number(repetitions, sizeof(repetitions), c[D_REPETITIONS].number);
			short_number(calls, sizeof(calls), c[D_CALLS].number);
			snprintf(text, sizeof(text), "%s x %s", repetitions, calls);
		}
		printf("%*s", WIDTH, text);
	}
	putchar('\n');
}

/* How often x fits into y, or how much it is more, as the paper's figures have it. */
static void
paper_line(
    const struct bench *b, unsigned f, const char *name, const double *x, const double *y, double add, double factor)
{
	printf("  %-*s", NAME, name);
	for (unsigned column = 0; column < PAPER_COLUMNS; column++)
		if (domains_chosen(b, f, column))
			printf("%*.*f", WIDTH, y ? 3 - (factor > 1) : 2,
			    ((y ? x[column] / y[column] : x[column]) + add) * factor);
	putchar('\n');
}

static void
show_paper(const struct bench *b, unsigned f)
{
	const double(*paper)[PAPER_COLUMNS] = domains_function[f].paper;
	int any = 0;

	for (unsigned column = 0; column < PAPER_COLUMNS; column++)
		any |= domains_chosen(b, f, column);
	if (!any)
		return;
	printf(" the paper's seconds, mean\n");
	for (unsigned k = 0; k < 3; k++)
		paper_line(b, f, domains_name[HOST_HOST + k], paper[k], NULL, 0, 1);
	printf(" slower than Host-Host by %%\n");
	for (unsigned k = 1; k < 3; k++)
		paper_line(b, f, domains_name[HOST_HOST + k], paper[k], paper[0], -1, 100);
	printf(" Guest-Net's time to that of\n");
	for (unsigned k = 0; k < 2; k++)
		paper_line(b, f, domains_name[HOST_HOST + k], paper[2], paper[k], 0, 1);
}

static void
show_function(const struct bench *b, unsigned f)
{
	heading(b, f);
	title("seconds, mean");
	for (unsigned k = 0; k < DOMAINS; k++)
		line(b, f, k, domains_name[k], D_MEAN, 0, 1, 4);
	title("slower than in-process by %, of medians");
	for (unsigned k = HOST_HOST; k < DOMAINS; k++)
		line(b, f, k, domains_name[k], D_TO_IN_PROCESS, -1, 100, 2);
	title("slower than Host-Host by %");
	for (unsigned k = GUEST_HOST; k < DOMAINS; k++)
		line(b, f, k, domains_name[k], D_TO_HOST_HOST, -1, 100, 2);
	title("Guest-Net's time to that of");
	for (unsigned k = HOST_HOST; k <= GUEST_HOST; k++)
		line(b, f, k, domains_name[k], D_NET_TO_THIS, 0, 1, 3);
	pending = NULL;
	show_paper(b, f);
	putchar('\n');
}

void
domains_show(struct bench *b)
{
	printf("1/%llu of the paper's work, %llu rounds%s\n\n", (unsigned long long)b->scale,
	    (unsigned long long)b->rounds, b->seconds ? "; ~: from the invocations made in the time given" : "");
	for (unsigned f = 0; f < FUNCTIONS; f++)
		if (!b->function || !strcmp(b->function, domains_function[f].name))
			show_function(b, f);
}

/* Figures */

static double
value(const struct bench *b, unsigned f, unsigned column, unsigned domain, unsigned where)
{
	const struct cell *c = domains_cell(b, f, column, domain);

	return c && c[where].set ? c[where].number : 0;
}

/* Figures 7 and 8: time by domain. */
static void
times(const struct bench *b, unsigned f, double v[COLUMNS][3])
{
	for (unsigned column = 0; column < COLUMNS; column++)
		for (unsigned k = 0; k < 3; k++)
			v[column][k] = value(b, f, column, HOST_HOST + k, D_MEAN);
}

/* Figure 9: percent of one domain's time to another's, for both functions. */
static void
percents(const struct bench *b, double v[COLUMNS][3 * FUNCTIONS])
{
	for (unsigned column = 0; column < COLUMNS; column++)
		for (unsigned f = 0; f < FUNCTIONS; f++) {
			double *to = &v[column][3 * f];

			to[0] = 100 * value(b, f, column, GUEST_HOST, D_TO_HOST_HOST);
			to[1] = 100 * value(b, f, column, GUEST_NET, D_TO_HOST_HOST);
			to[2] = 100 * value(b, f, column, GUEST_HOST, D_NET_TO_THIS);
		}
}

int
domains_plot(struct bench *b)
{
	static const char *const percent[] = { "factorial G-H/H-H", "factorial G-N/H-H", "factorial G-N/G-H",
		"fibonacci G-H/H-H", "fibonacci G-N/H-H", "fibonacci G-N/G-H" };
	const char *group[COLUMNS];
	double v[FUNCTIONS][COLUMNS][3];
	double p[COLUMNS][3 * FUNCTIONS];
	struct chart chart[3] = { { .title = "Figure 7: factorial(51)", .value = v[0][0] },
		{ .title = "Figure 8: fibonacci(93)", .value = v[1][0] },
		{ .title = "Figure 9: one domain's time in percent of another's", .value = p[0] } };

	for (unsigned column = 0; column < COLUMNS; column++)
		group[column] = domains_instance[column].name;
	for (unsigned i = 0; i < 3; i++) {
		chart[i].group = group;
		chart[i].groups = COLUMNS;
		chart[i].series = i < 2 ? &domains_name[HOST_HOST] : percent;
		chart[i].serieses = i < 2 ? 3 : 3 * FUNCTIONS;
		chart[i].unit = i < 2 ? "seconds" : "percent";
	}
	times(b, 0, v[0]);
	times(b, 1, v[1]);
	percents(b, p);
	return plot_write(b->plot, chart, 3);
}
