/* SPDX-License-Identifier: MIT
 *
 * plot.c - groups of bars, written as SVG 1.1, which any browser shows
 *
 * The axis is logarithmic, powers of ten, since what is compared differs by a factor of a hundred and more; bars start
 * at the power of ten below the smallest.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../roles.h"
#include "bench.h"

#define WIDTH 960
#define HEIGHT 360 /* of a chart */
#define LEFT 80
#define RIGHT 20
#define TOP 60
#define BOTTOM 50

static const char *const colors[] = { "#3465a4", "#cc3333", "#888a85", "#73d216", "#f57900", "#75507b" };

/* Names are ours, but a file is to be well-formed whatever they are. */
static void
escaped(FILE *f, const char *s)
{
	for (; *s; s++) {
		if (*s == '<')
			fputs("&lt;", f);
		else if (*s == '&')
			fputs("&amp;", f);
		else
			putc(*s, f);
	}
}

static void
text(FILE *f, double x, double y, const char *anchor, int size, const char *s)
{
	fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" font-size=\"%d\">", x, y, anchor, size);
	escaped(f, s);
	fputs("</text>\n", f);
}

/* log10, to 1/65536, without a library's 100 KB: bit by bit, since squaring doubles it. */
static double
decades(double v)
{
	double result = 0;

	while (v >= 10) {
		v /= 10;
		result++;
	}
	while (v < 1) {
		v *= 10;
		result--;
	}
	for (unsigned bit = 2; bit <= 65536; bit *= 2) {
		v *= v;
		if (v < 10)
			continue;
		v /= 10;
		result += 1.0 / bit;
	}
	return result;
}

static int
rounded_down(double x)
{
	int i = (int)x;

	return i > x ? i - 1 : i;
}

/* The powers of ten that hold all values. */
static void
range(const struct chart *c, int *low, int *high)
{
	double least = 0;
	double most = 0;

	for (unsigned i = 0; i < c->groups * c->serieses; i++) {
		double v = c->value[i];

		if (v > 0 && (least == 0 || v < least))
			least = v;
		if (v > most)
			most = v;
	}
	*low = least > 0 ? rounded_down(decades(least) - 0.001) : 0;
	*high = most > 0 ? rounded_down(decades(most)) + 1 : 1;
}

static void
axis(FILE *f, const struct chart *c, double top, int low, int high)
{
	const double step = (HEIGHT - TOP - BOTTOM) / (double)(high - low);
	char label[32];

	for (int i = low; i <= high; i++) {
		double y = top + HEIGHT - BOTTOM - step * (i - low);

		fprintf(f, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"#d3d7cf\"/>\n", LEFT, y,
		    WIDTH - RIGHT, y);
		snprintf(label, sizeof(label), "1e%d", i);
		snprintf(label, sizeof(label), "%g", strtod(label, NULL));
		text(f, LEFT - 6, y + 4, "end", 12, label);
	}
	text(f, LEFT - 6, top + TOP - 14, "end", 12, c->unit);
	text(f, LEFT, top + 20, "start", 16, c->title);
}

static void
legend(FILE *f, const struct chart *c, double top)
{
	double width = (WIDTH - LEFT - RIGHT) / (double)c->serieses;

	for (unsigned s = 0; s < c->serieses; s++) {
		double x = LEFT + width * s;

		fprintf(f, "<rect x=\"%.1f\" y=\"%.1f\" width=\"10\" height=\"10\" fill=\"%s\"/>\n", x, top + 32,
		    colors[s % 6]);
		text(f, x + 14, top + 41, "start", 12, c->series[s]);
	}
}

static void
bars(FILE *f, const struct chart *c, double top, int low, int high)
{
	const double group = (WIDTH - LEFT - RIGHT) / (double)c->groups;
	const double bar = group * 0.8 / c->serieses;
	const double step = (HEIGHT - TOP - BOTTOM) / (double)(high - low);

	for (unsigned g = 0; g < c->groups; g++) {
		for (unsigned s = 0; s < c->serieses; s++) {
			double v = c->value[g * c->serieses + s];
			double h = v > 0 ? step * (decades(v) - low) : 0;

			if (v <= 0)
				continue;
			fprintf(f,
			    "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"><title>%s, %s: "
			    "%.6g %s</title></rect>\n",
			    LEFT + group * (g + 0.1) + bar * s, top + HEIGHT - BOTTOM - h, bar, h, colors[s % 6],
			    c->group[g], c->series[s], v, c->unit);
		}
		text(f, LEFT + group * (g + 0.5), top + HEIGHT - BOTTOM + 18, "middle", 12, c->group[g]);
	}
}

int
plot_write(const char *path, const struct chart *chart, unsigned n)
{
	FILE *f = fopen(path, "we");
	int low;
	int high;

	if (!f)
		return bench_fail(EXIT_SYSTEM, "%s: %s", path, strerror(errno));
	fprintf(f,
	    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" version=\"1.1\" "
	    "width=\"%d\" height=\"%u\" viewBox=\"0 0 %d %u\" font-family=\"sans-serif\">\n"
	    "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
	    WIDTH, HEIGHT * n, WIDTH, HEIGHT * n);
	for (unsigned i = 0; i < n; i++) {
		double top = (double)HEIGHT * i;

		range(&chart[i], &low, &high);
		axis(f, &chart[i], top, low, high);
		legend(f, &chart[i], top);
		bars(f, &chart[i], top, low, high);
	}
	fprintf(f, "</svg>\n");
	if (ferror(f) | fclose(f))
		return bench_fail(EXIT_SYSTEM, "%s: %s", path, strerror(errno));
	return 0;
}
