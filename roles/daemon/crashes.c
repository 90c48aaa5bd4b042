/* SPDX-License-Identifier: MIT
 *
 * crashes.c - programs that crash: the next instance waits, and after too many there is none for a while
 *
 *   n-th crash within a minute of the first: the next start waits 100 ms << (n - 1), counted from the crash
 *   CRASHES_MAX of them: no start until the minute is over, which then begins anew
 *
 * Counted for each function and client by themselves, and users of the host are clients of their own: who brings down
 * his own instance doesn't take the function away from others. When more of them crash within a minute than are
 * remembered, the one longest unheard of is forgotten.
 */
#include <string.h>

#include "launcher.h"

#define CRASHES_MAX 5u
#define CRASHES_MS 60000
#define WAIT_MS 100
#define REMEMBERED 256u

struct crashes {
	const struct conf_function *fn;
	uint32_t vm;
	unsigned n; /* since first; 0: none, this one is free */
	uint32_t account;
	int64_t first; /* ms */
	int64_t last;
};

static struct crashes crashes[REMEMBERED];

/* This function's and client's, or NULL. What is older than a minute is forgotten. */
static struct crashes *
of(const struct service *s)
{
	for (struct crashes *c = crashes; c < crashes + REMEMBERED; c++) {
		if (launcher_ms() - c->first > CRASHES_MS)
			c->n = 0;
		if (c->n && c->fn == s->fn && c->vm == s->vm && c->account == s->account)
			return c;
	}
	return NULL;
}

static struct crashes *
place(void)
{
	struct crashes *oldest = crashes;

	for (struct crashes *c = crashes; c < crashes + REMEMBERED; c++) {
		if (!c->n)
			return c;
		if (c->last < oldest->last)
			oldest = c;
	}
	return oldest;
}

void
crashes_count(const struct service *s)
{
	struct crashes *c = of(s);

	if (!c) {
		c = place();
		*c = (struct crashes){ .fn = s->fn, .vm = s->vm, .account = s->account, .first = launcher_ms() };
	}
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
