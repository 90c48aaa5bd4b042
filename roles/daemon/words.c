/* SPDX-License-Identifier: MIT
 *
 * words.c - what programs print, into vfund's log
 *
 * A program's standard output and error are a pipe whose other end is the launcher's. It takes lines from it, as many a
 * minute as a client may cause (rate.h), makes them plain and logs them. Beyond that it looks only once a second, and
 * forgets all but the last line. A program never waits for the log: the pipe takes no more when it is full.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../proto/plain.h"
#include "../common/log.h"
#include "launcher.h"
#include "rate.h"

#define PIPE_MAX 65536 /* bytes that the pipe holds */
#define GLANCE_MS 50   /* from one look to the next, whatever the lines are like, or if there are none */
#define PAUSE_MS 1000

/* A whole line. 1, or 0: there have been too many. */
static int
say(struct service *s)
{
	struct words *w = &s->words;
	int may;

	w->line[w->len] = '\0';
	w->len = 0;
	if (!w->line[0])
		return 1;
	plain_text(w->line);
	strcpy(w->last, w->line);
	may = rate_line(s->vm, s->account);
	if (may)
		log_info("%s[%s]: %s", s->fn->name, s->client, w->line);
	if (may > 1)
		log_warn("%s[%s] has printed too much within a minute: no more of it for now", s->fn->name, s->client);
	return may != 0;
}

/* What there is, at most one pipe full. 1, or 0: too much of it. */
static int
take(struct service *s)
{
	struct words *w = &s->words;
	char buf[4096];
	size_t total = 0;
	int quiet = 0;
	ssize_t n;

	while (total < PIPE_MAX && (n = read(w->src.fd, buf, sizeof(buf))) > 0) {
		total += (size_t)n;
		for (ssize_t i = 0; i < n; i++) {
			if (buf[i] == '\n')
				quiet |= !say(s);
			else if (w->len < sizeof(w->line) - 1)
				w->line[w->len++] = buf[i];
		}
	}
	return !quiet;
}

static void
on_words(struct loop_src *src, uint32_t events)
{
	struct service *s = loop_container(src, struct service, words.src);

	s->words.again = launcher_ms() + (take(s) ? GLANCE_MS : PAUSE_MS);
	(void)loop_mod(&s->l->loop, src, 0);
	if (events & EPOLLHUP)
		loop_del(&s->l->loop, src);
}

int
words_begin(struct service *s, int fd)
{
	s->words.src = (struct loop_src){ .fd = fd, .fn = on_words };
	return loop_add(&s->l->loop, &s->words.src, EPOLLIN);
}

void
words_again(struct service *s)
{
	if (s->words.src.fd < 0 || !s->words.again || s->words.again > launcher_ms())
		return;
	s->words.again = take(s) ? 0 : launcher_ms() + PAUSE_MS;
	if (!s->words.again)
		(void)loop_mod(&s->l->loop, &s->words.src, EPOLLIN);
}

void
words_end(struct service *s)
{
	if (s->words.src.fd < 0)
		return;
	(void)take(s);
	(void)say(s);
	loop_del(&s->l->loop, &s->words.src);
	close(s->words.src.fd);
	s->words.src.fd = -1;
	s->words.again = 0;
}
