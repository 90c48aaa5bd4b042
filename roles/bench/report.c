/* SPDX-License-Identifier: MIT
 *
 * report.c - rows of figures, and what they are shown as: text, JSON, CSV, or lines for the bench on the host
 *
 * A number travels and is printed with nine digits, so that whoever divides two of them gets the ratio beside them.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../common/cli.h"
#include "../roles.h"
#include "bench.h"

#define WIDTH_MAX 64

/* Tables */

void
table_init(struct table *t, const struct column *column)
{
	memset(t, 0, sizeof(*t));
	t->column = column;
	while (column[t->columns].key)
		t->columns++;
}

struct cell *
table_row(struct table *t)
{
	if (t->rows == t->room) {
		unsigned room = t->room ? 2 * t->room : 16;
		struct cell *c = realloc(t->cell, (size_t)room * t->columns * sizeof(*c));

		if (!c)
			exit(bench_fail(EXIT_SYSTEM, "out of memory"));
		t->cell = c;
		t->room = room;
	}
	memset(&t->cell[t->rows * t->columns], 0, t->columns * sizeof(*t->cell));
	return &t->cell[t->rows++ * t->columns];
}

const struct cell *
table_at(const struct table *t, unsigned row)
{
	return &t->cell[row * t->columns];
}

void
cell_text(struct cell *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&c->text, fmt, ap) < 0)
		exit(bench_fail(EXIT_SYSTEM, "out of memory"));
	va_end(ap);
	c->set = 1;
}

void
cell_number(struct cell *c, double number)
{
	c->number = number;
	c->set = 1;
}

static int
is_text(enum kind kind)
{
	return kind == KIND_TEXT || kind == KIND_PAIRS;
}

/* Lines */

void
table_send(const struct table *t, unsigned row)
{
	const struct cell *c = table_at(t, row);

	printf("vfun-bench\trow");
	for (unsigned i = 0; i < t->columns; i++) {
		putchar('\t');
		if (c[i].set && is_text(t->column[i].kind))
			fputs(c[i].text, stdout);
		else if (c[i].set)
			printf("%.9g", c[i].number);
	}
	putchar('\n');
	fflush(stdout);
}

int
table_receive(struct table *t, char *line)
{
	struct cell *c = table_row(t);

	for (unsigned i = 0; i < t->columns; i++) {
		char *field = strsep(&line, "\t");
		char *end;

		if (!field)
			return -EINVAL;
		if (!*field)
			continue;
		if (is_text(t->column[i].kind)) {
			cell_text(&c[i], "%s", field);
			continue;
		}
		cell_number(&c[i], strtod(field, &end));
		if (*end)
			return -EINVAL;
	}
	return line ? -EINVAL : 0;
}

/* Sentences */

void
note(struct notes *n, const char *fmt, ...)
{
	char *text;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		exit(bench_fail(EXIT_SYSTEM, "out of memory"));
	va_end(ap);
	for (unsigned i = 0; i < n->n; i++)
		if (!strcmp(n->text[i], text)) {
			free(text);
			return;
		}
	if (n->n < sizeof(n->text) / sizeof(n->text[0]))
		n->text[n->n++] = text;
	else
		free(text);
}

/* Text */

static int
format_cell(char *buf, size_t room, const struct column *col, const struct cell *c)
{
	if (!c->set)
		return snprintf(buf, room, "-");
	if (is_text(col->kind))
		return snprintf(buf, room, "%s", c->text);
	return snprintf(buf, room, "%.*f", col->kind == KIND_COUNT ? 0 : col->decimals, c->number);
}

void
report_table(const struct table *t)
{
	char buf[WIDTH_MAX];

	for (int row = -1; row < (int)t->rows; row++) {
		const struct cell *c = row < 0 ? NULL : table_at(t, (unsigned)row);

		for (unsigned i = 0; i < t->columns; i++) {
			const struct column *col = &t->column[i];
			int width = (int)strlen(col->heading ? col->heading : "");

			if (!col->heading)
				continue;
			for (unsigned r = 0; r < t->rows; r++) {
				int w = format_cell(buf, sizeof(buf), col, &table_at(t, r)[i]);

				width = w > width ? w : width;
			}
			width = width < WIDTH_MAX - 1 ? width : WIDTH_MAX - 1;
			if (row < 0)
				snprintf(buf, sizeof(buf), "%s", col->heading);
			else
				format_cell(buf, sizeof(buf), col, &c[i]);
			printf(is_text(col->kind) ? "%s%-*s" : "%s%*s", i ? "  " : "", width, buf);
		}
		putchar('\n');
	}
}

static void
text_machine(const struct bench *b)
{
	const struct machine *m = &b->machine;

	printf("vfun bench %s\n  %s, cores %s%s%s; Linux %s\n", b->name, *m->cpu ? m->cpu : "unknown processor",
	    m->cores, *m->virtual ? ", itself a guest of " : "", m->virtual, m->kernel);
	if (*m->frequency)
		printf("  frequency: %s\n", m->frequency);
	if (*m->accel)
		printf("  guest: %s, %s, Linux %s\n", m->accel, *m->qemu ? m->qemu : "unknown QEMU", m->guest);
	for (unsigned i = 0; i < b->warnings.n; i++)
		printf("  warning: %s\n", b->warnings.text[i]);
	putchar('\n');
}

static void
report_text(struct bench *b, void (*text)(struct bench *b))
{
	text_machine(b);
	if (text)
		text(b);
	else
		report_table(&b->table);
	for (unsigned i = 0; i < b->left_out.n; i++)
		printf("%sleft out: %s\n", i ? "" : "\n", b->left_out.text[i]);
}

/* JSON */

static void
json_notes(const char *key, const struct notes *n)
{
	printf(",\"%s\":[", key);
	for (unsigned i = 0; i < n->n; i++) {
		printf(i ? "," : "");
		cli_json_string(stdout, n->text[i]);
	}
	printf("]");
}

static void
json_member(const char *key, const char *value)
{
	printf(",\"%s\":", key);
	if (*value)
		cli_json_string(stdout, value);
	else
		printf("null");
}

static void
json_pairs(const char *s)
{
	printf("[[");
	for (; *s; s++) {
		if (*s == ':')
			putchar(',');
		else if (*s == ' ')
			printf("],[");
		else
			putchar(*s);
	}
	printf("]]");
}

static void
json_row(const struct table *t, unsigned row)
{
	const struct cell *c = table_at(t, row);
	const char *sep = "{";

	for (unsigned i = 0; i < t->columns; i++) {
		if (!c[i].set)
			continue;
		printf("%s\"%s\":", sep, t->column[i].key);
		if (t->column[i].kind == KIND_TEXT)
			cli_json_string(stdout, c[i].text);
		else if (t->column[i].kind == KIND_PAIRS)
			json_pairs(c[i].text);
		else
			printf("%.9g", c[i].number);
		sep = ",";
	}
	printf("}");
}

static void
report_json(const struct bench *b)
{
	const struct machine *m = &b->machine;

	printf("{\"benchmark\":\"%s\",\"release\":\"%s\",\"machine\":{\"cores_usable\":%u", b->name, VFUN_RELEASE,
	    m->cores_n);
	json_member("cpu", m->cpu);
	json_member("cores", m->cores);
	json_member("kernel", m->kernel);
	json_member("guest_of", m->virtual);
	json_member("frequency", m->frequency);
	json_member("qemu", m->qemu);
	json_member("accelerator", m->accel);
	json_member("guest_kernel", m->guest);
	printf("}");
	json_notes("warnings", &b->warnings);
	json_notes("left_out", &b->left_out);
	printf(",\"rows\":[");
	for (unsigned i = 0; i < b->table.rows; i++) {
		printf(i ? ",\n" : "\n");
		json_row(&b->table, i);
	}
	printf("]}\n");
}

/* CSV, as RFC 4180 has it; warnings go to standard error. */

static void
csv_text(const char *s)
{
	if (!strpbrk(s, ",\"\n")) {
		fputs(s, stdout);
		return;
	}
	putchar('"');
	for (; *s; s++)
		printf(*s == '"' ? "\"\"" : "%c", *s);
	putchar('"');
}

static void
report_csv(const struct bench *b)
{
	const struct table *t = &b->table;

	for (unsigned i = 0; i < t->columns; i++)
		printf("%s%s", i ? "," : "", t->column[i].key);
	printf("\n");
	for (unsigned r = 0; r < t->rows; r++) {
		const struct cell *c = table_at(t, r);

		for (unsigned i = 0; i < t->columns; i++) {
			printf(i ? "," : "");
			if (c[i].set && is_text(t->column[i].kind))
				csv_text(c[i].text);
			else if (c[i].set)
				printf("%.9g", c[i].number);
		}
		printf("\n");
	}
	for (unsigned i = 0; i < b->warnings.n; i++)
		fprintf(stderr, "vfun bench: warning: %s\n", b->warnings.text[i]);
	for (unsigned i = 0; i < b->left_out.n; i++)
		fprintf(stderr, "vfun bench: left out: %s\n", b->left_out.text[i]);
}

/* What a guest tells besides its rows. */
static void
send_rest(const struct bench *b)
{
	const struct machine *m = &b->machine;

	for (unsigned i = 0; i < b->table.rows; i++)
		table_send(&b->table, i);
	for (unsigned i = 0; i < b->warnings.n; i++)
		printf("vfun-bench\twarning\t%s\n", b->warnings.text[i]);
	for (unsigned i = 0; i < b->left_out.n; i++)
		printf("vfun-bench\tleft-out\t%s\n", b->left_out.text[i]);
	printf("vfun-bench\taccel\t%s\nvfun-bench\tkernel\t%s\n", m->virtual, m->kernel);
}

int
report(struct bench *b, void (*text)(struct bench *b))
{
	if (b->format == FORMAT_LINES)
		send_rest(b);
	else if (b->format == FORMAT_JSON)
		report_json(b);
	else if (b->format == FORMAT_CSV)
		report_csv(b);
	else
		report_text(b, text);
	return cli_flush("bench");
}
