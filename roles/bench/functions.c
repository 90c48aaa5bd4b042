/* SPDX-License-Identifier: MIT
 *
 * functions.c - vfun bench functions: the examples' functions, called through vfun and computed where the caller is
 *
 * The examples are programs that serve a function, and also compare it (backends/examples/compare.c): the same code on
 * the same data in their own process, and through vfun. That is run on the host, where it shows what vfun costs, and in
 * a guest, where it shows what calling the host is worth.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/cli.h"
#include "../roles.h"
#include "bench.h"

enum { WHERE, PATH, FUNCTION, BYTES, HERE, VFUN, TIMES, ADDS, SAME };

static const struct column columns[] = {
	{ "where", "where", KIND_TEXT, 0 },
	{ "path", "path", KIND_TEXT, 0 },
	{ "function", "function", KIND_TEXT, 0 },
	{ "bytes", "bytes", KIND_COUNT, 0 },
	{ "here_ms", "there itself, ms", KIND_NUMBER, 3 },
	{ "vfun_ms", "through vfun, ms", KIND_NUMBER, 3 },
	{ "times", "times as fast", KIND_NUMBER, 2 },
	{ "adds_us", "vfun adds us", KIND_NUMBER, 1 },
	{ "results", "results", KIND_TEXT, 0 },
	{ NULL, NULL, KIND_TEXT, 0 },
};

/* Start PROGRAM --compare. Its standard output, or NULL with errno. */
static FILE *
start(const struct bench *b, const char *program, pid_t *pid)
{
	int p[2];

	if (pipe(p))
		return NULL;
	*pid = fork();
	if (!*pid) {
		if (b->run)
			setenv("VFUN_RUN_DIR", b->run, 1);
		unsetenv("VFUN_SERVER");
		dup2(p[1], STDOUT_FILENO);
		close(p[0]);
		close(p[1]);
		execl(program, program, "--compare", (char *)NULL);
		fprintf(stderr, "vfun bench: %s: %s\n", program, strerror(errno));
		_exit(EXIT_SYSTEM);
	}
	close(p[1]);
	if (*pid < 0)
		close(p[0]);
	return *pid < 0 ? NULL : fdopen(p[0], "r");
}

/* One line: see compare.c. 0 or -EINVAL. */
static int
add_row(struct bench *b, const char *line)
{
	char copy[256];
	char *word[6];
	char *save = NULL;
	uint64_t bytes, here, vfun;
	struct cell *c;

	snprintf(copy, sizeof(copy), "%s", line);
	for (unsigned i = 0; i < 6; i++)
		if (!(word[i] = strtok_r(i ? NULL : copy, " \n", &save)))
			return -EINVAL;
	if (cli_u64(word[1], &bytes) || cli_u64(word[2], &here) || cli_u64(word[3], &vfun) || !vfun)
		return -EINVAL;
	c = table_row(&b->table);
	cell_text(&c[WHERE], b->in_guest ? "guest" : "host");
	cell_text(&c[PATH], "%s", word[4]);
	cell_text(&c[FUNCTION], "%s", word[0]);
	cell_number(&c[BYTES], (double)bytes);
	cell_number(&c[HERE], (double)here / 1e6);
	cell_number(&c[VFUN], (double)vfun / 1e6);
	cell_number(&c[TIMES], (double)here / (double)vfun);
	if (!b->in_guest)
		cell_number(&c[ADDS], ((double)vfun - (double)here) / 1e3);
	cell_text(&c[SAME], "%s", word[5]);
	return strcmp(word[5], "same") ? -EINVAL : 0;
}

static int
compare(struct bench *b, const char *name)
{
	char program[512], line[256] = "";
	pid_t pid;
	int status;
	FILE *f;

	snprintf(program, sizeof(program), "%s/%s", b->programs, name);
	f = start(b, program, &pid);
	if (!f)
		return bench_fail(EXIT_SYSTEM, "%s: %s", program, strerror(errno));
	if (!fgets(line, sizeof(line), f))
		line[0] = '\0';
	fclose(f);
	if (waitpid(pid, &status, 0) != pid || status)
		return bench_fail(EXIT_FUNCTION, "%s --compare fails", program);
	return add_row(b, line) ? bench_fail(EXIT_FUNCTION, "%s: wrong results: %s", name, line) : 0;
}

static int
here(struct bench *b)
{
	int r = 0;

	progress_begin(b, b->in_guest ? "guest" : "host", 3);
	for (unsigned i = 0; !r && bench_programs[i]; i++) {
		r = compare(b, bench_programs[i]);
		progress_step(1);
	}
	progress_end();
	return r;
}

const char *const bench_programs[] = { "blur", "fft2", "nearest", NULL };

int
bench_functions(struct bench *b)
{
	const char *const args[] = { "--programs", "/bin", NULL };
	const char *vm_args[8] = { NULL };
	char add[3][600];
	int r;

	if (!b->programs)
		return bench_fail(EXIT_USAGE, "functions: where are they? --programs DIR, see vfun-bench(1)");
	if (b->path)
		return bench_fail(EXIT_USAGE, "functions: --path is not an option of it");
	table_init(&b->table, columns);
	r = here(b);
	for (unsigned i = 0; i < 3; i++) {
		snprintf(add[i], sizeof(add[i]), "%s/%s:/bin/%s", b->programs, bench_programs[i], bench_programs[i]);
		vm_args[2 * i] = "--add";
		vm_args[2 * i + 1] = add[i];
	}
	if (!r)
		r = bench_guest(b, args, vm_args, NULL, NULL);
	if (r)
		return r;
	machine_end(b, 1);
	return report(b, NULL);
}
