/* SPDX-License-Identifier: MIT
 *
 * script.c - several commands in one guest: what `vfun vm --script FILE` runs
 *
 * The guest has no shell. A script is a file of lines; each is one command, its words split at blanks, without any
 * quoting. Empty lines and lines that start with # are skipped. The script ends with the first line that fails, and its
 * status, or with 0.
 *
 *   COMMAND ARG...       run it, wait for it; fails if its status isn't 0
 *   COMMAND ARG... &     run it in the background as job %1, %2, ... in order of appearance
 *   ! LINE               fails if LINE succeeds; a LINE that was ended by a signal fails here too
 *   !N LINE              fails unless LINE's status is N
 *   as UID:GID LINE      run LINE's command as this user, without supplementary groups
 *   echo WORD...         the words on standard output, one line
 *   sleep SECONDS        a decimal fraction is fine
 *   kill %N [SIGNAL]     a job; the signal is a number or one of TERM KILL INT HUP STOP CONT; TERM if missing
 *   wait [%N]            for that job, whose status is the line's; without: for all, fails if one failed
 *
 * The prefixes come in this order: !, as. Jobs that still run at the end are killed.
 */
#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../roles.h"
#include "script.h"

#define WORDS_MAX 256
#define JOBS_MAX 128
#define NOT_RUN 127 /* as shells have it */

struct job {
	pid_t pid; /* 0: was waited for */
	int status;
};

static struct job jobs[JOBS_MAX + 1]; /* from 1 */
static int njobs;

struct line {
	char *word[WORDS_MAX + 1];
	int words;
	int background;
	int want;     /* status wanted, -1: any but 0 */
	int uid, gid; /* -1: stay root */
};

_Noreturn void
script_exec(char *const *argv)
{
	execvp(argv[0], argv);
	fprintf(stderr, "vfun init: %s: %s\n", argv[0], strerror(errno));
	_exit(NOT_RUN);
}

static int
complain(int number, const char *what)
{
	fflush(stdout);
	fprintf(stderr, "vfun init: script line %d: %s\n", number, what);
	return EXIT_USAGE;
}

static int
wait_pid(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return NOT_RUN;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int
wait_job(struct job *j)
{
	if (j->pid) {
		j->status = wait_pid(j->pid);
		j->pid = 0;
	}
	return j->status;
}

/* "%N"; NULL if there is no such job. */
static struct job *
find_job(const char *word)
{
	char *end;
	long n = word && word[0] == '%' ? strtol(word + 1, &end, 10) : 0;

	return n >= 1 && n <= njobs && !*end ? &jobs[n] : NULL;
}

static int
find_signal(const char *word)
{
	static const struct {
		const char *name;
		int number;
	} known[] = { { "TERM", SIGTERM }, { "KILL", SIGKILL }, { "INT", SIGINT }, { "HUP", SIGHUP },
		{ "STOP", SIGSTOP }, { "CONT", SIGCONT } };

	if (!word)
		return SIGTERM;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strcmp(word, known[i].name))
			return known[i].number;
	return atoi(word);
}

/* The words that aren't programs. 1 if it was one, with its status. */
static int
builtin(const struct line *l, int number, int *status)
{
	char *const *w = l->word;

	*status = 0;
	if (!strcmp(w[0], "echo")) {
		for (int i = 1; i < l->words; i++)
			printf("%s%s", i > 1 ? " " : "", w[i]);
		putchar('\n');
		fflush(stdout);
	} else if (!strcmp(w[0], "sleep")) {
		double s = w[1] ? strtod(w[1], NULL) : 0;
		struct timespec ts = { (time_t)s, (long)((s - (double)(time_t)s) * 1e9) };

		nanosleep(&ts, NULL);
	} else if (!strcmp(w[0], "kill")) {
		struct job *j = find_job(w[1]);
		int sig = find_signal(w[1] ? w[2] : NULL);

		if (!j || sig <= 0)
			*status = complain(number, "kill needs a job, and a signal that it knows: kill %N [SIGNAL]");
		else if (!j->pid || kill(j->pid, sig))
			*status = EXIT_FUNCTION;
	} else if (!strcmp(w[0], "wait") && w[1]) {
		struct job *j = find_job(w[1]);

		*status = j ? wait_job(j) : complain(number, "wait: no such job");
	} else if (!strcmp(w[0], "wait")) {
		for (int i = 1; i <= njobs; i++) {
			int one = wait_job(&jobs[i]);

			*status = *status ? *status : one;
		}
	} else {
		return 0;
	}
	return 1;
}

static int
run_line(struct line *l, int number)
{
	int status;
	pid_t pid;

	if (builtin(l, number, &status))
		return status;
	pid = fork();
	if (pid < 0)
		return complain(number, "fork: no resources for another process");
	if (!pid) {
		if (l->gid >= 0 && (setgroups(0, NULL) || setgid((gid_t)l->gid) || setuid((uid_t)l->uid)))
			_exit(NOT_RUN);
		script_exec(l->word);
	}
	if (!l->background)
		return wait_pid(pid);
	if (njobs == JOBS_MAX)
		return complain(number, "too many jobs");
	jobs[++njobs] = (struct job){ .pid = pid };
	return 0;
}

static void
shift(struct line *l, int n)
{
	memmove(l->word, l->word + n, (size_t)(l->words - n + 1) * sizeof(l->word[0]));
	l->words -= n;
}

/* "UID:GID". 0 if it isn't. */
static int
parse_ids(struct line *l, const char *word)
{
	char *colon, *end;
	unsigned long uid = strtoul(word, &colon, 10);
	unsigned long gid = *colon == ':' ? strtoul(colon + 1, &end, 10) : ULONG_MAX;

	if (colon == word || uid > INT_MAX || gid > INT_MAX || end == colon + 1 || *end)
		return 0;
	l->uid = (int)uid;
	l->gid = (int)gid;
	return 1;
}

/* Split, and take prefixes and & away. 0, or the status of a line that makes no sense. */
static int
parse(struct line *l, char *text, int number)
{
	char *save = NULL;

	memset(l, 0, sizeof(*l));
	l->uid = l->gid = -1;
	for (char *w = strtok_r(text, " \t\r\n", &save); w; w = strtok_r(NULL, " \t\r\n", &save)) {
		if (l->words == WORDS_MAX)
			return complain(number, "too many words");
		l->word[l->words++] = w;
	}
	if (!l->words || l->word[0][0] == '#') {
		l->words = 0;
		return 0;
	}
	if (!strcmp(l->word[l->words - 1], "&")) {
		l->background = 1;
		l->word[--l->words] = NULL;
	}
	if (l->words && l->word[0][0] == '!') {
		l->want = isdigit((unsigned char)l->word[0][1]) ? atoi(l->word[0] + 1) : -1;
		shift(l, 1);
	}
	if (l->words >= 2 && !strcmp(l->word[0], "as")) {
		if (!parse_ids(l, l->word[1]))
			return complain(number, "as needs UID:GID, two numbers");
		shift(l, 2);
	}
	return l->words ? 0 : complain(number, "no command");
}

static int
follow(struct line *l, const char *text, int number)
{
	int status = run_line(l, number);

	if (l->want < 0 ? status > 0 && status < 128 && status != NOT_RUN : status == l->want)
		return 0;
	fprintf(stderr, "vfun init: script line %d: status %d%s: %s\n", number, status,
	    l->want ? ", which was not expected" : "", text);
	return status ? status : EXIT_FUNCTION;
}

int
script_run(const char *path)
{
	FILE *f = fopen(path, "re");
	char *text = NULL;
	size_t room = 0;
	int status = 0;

	if (!f) {
		fprintf(stderr, "vfun init: %s: %s\n", path, strerror(errno));
		return EXIT_SYSTEM;
	}
	for (int number = 1; !status && getline(&text, &room, f) >= 0; number++) {
		char *copy = strdup(text);
		struct line l;

		text[strcspn(text, "\n")] = '\0';
		status = copy ? parse(&l, copy, number) : EXIT_SYSTEM;
		if (!status && l.words)
			status = follow(&l, text, number);
		free(copy);
	}
	free(text);
	fclose(f);
	return status;
}
