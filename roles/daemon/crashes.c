/* SPDX-License-Identifier: MIT
 *
 * crashes.c - programs that crash: the next instance waits, and after too many there is none for a while
 *
 *   n-th crash within a minute of the first: the next start waits 100 ms << (n - 1), counted from the crash
 *   CRASHES_MAX of them: no start until the minute is over, which then begins anew
 *
 * Counted for each function and client by themselves, users of the host as well: who brings down his own instance
 * doesn't take the function away from others.
 */
#include <string.h>

#include "launcher.h"

#define CRASHES_MAX 5u
#define CRASHES_MS 60000
#define WAIT_MS 100
#define REMEMBERED 256 /* pairs of function and client; the one longest without a crash makes room */

struct crashes {
	const struct conf_function *fn;
	int64_t first; /* ms */
	int64_t last;
	uint32_t vm; /* whose they are */
	unsigned n;  /* since first; 0: none, the place is free */
	char client[IMSG_NAME_MAX];
};

static struct crashes crashes[REMEMBERED];

/* Those of this service, or NULL; old ones are forgotten. */
static struct crashes *
of(const struct service *s)
{
	for (struct crashes *c = crashes; c < crashes + REMEMBERED; c++) {
		if (c->n && launcher_ms() - c->first > CRASHES_MS)
			c->n = 0;
		if (c->n && c->fn == s->fn && c->vm == s->vm && !strcmp(c->client, s->client))
			return c;
	}
	return NULL;
}

/* A place for the first one. */
static struct crashes *
make_room(const struct service *s)
{
	struct crashes *oldest = crashes;

	for (struct crashes *c = crashes; c < crashes + REMEMBERED && oldest->n; c++)
		if (!c->n || c->last < oldest->last)
			oldest = c;
	*oldest = (struct crashes){ .fn = s->fn, .vm = s->vm, .first = launcher_ms() };
	strcpy(oldest->client, s->client);
	return oldest;
}

void
crashes_count(const struct service *s)
{
	struct crashes *c = of(s);

	if (!c)
		c = make_room(s);
	c->last = launcher_ms();
	c->n++;
}

int
crashes_wait(const struct service *s)
{
	const struct crashes *c = of(s);
	int64_t wait;

	if (!c)
		return 0;
	if (c->n >= CRASHES_MAX)
		return -1;
	wait = c->last + (WAIT_MS << (c->n - 1)) - launcher_ms();
	return wait > 0 ? (int)wait : 0;
}

void
crashes_forget(const struct conf_function *fn)
{
	for (struct crashes *c = crashes; c < crashes + REMEMBERED; c++)
		if (c->fn == fn)
			c->n = 0;
}
