/* SPDX-License-Identifier: MIT
 *
 * crashes.c - programs that crash: the next instance waits, and after too many there is none for a while
 *
 *   n-th crash within a minute of the first: the next start waits 100 ms << (n - 1), counted from the crash
 *   CRASHES_MAX of them: no start until the minute is over, which then begins anew
 *
 * Counted for each function and client by themselves: who brings down his own instance doesn't take the function away
 * from others.
 */
#include "launcher.h"

#define CRASHES_MAX 5u
#define CRASHES_MS 60000
#define WAIT_MS 100

struct crashes {
	int64_t first; /* ms */
	int64_t last;
	unsigned n; /* since first; 0: none */
};

static struct crashes crashes[CONF_FUNCTIONS_MAX][CONF_CLIENTS];

/* Old ones forgotten. */
static struct crashes *
of(const struct service *s)
{
	struct crashes *c = &crashes[s->fn - s->l->conf->function][s->vm];

	if (launcher_ms() - c->first > CRASHES_MS)
		c->n = 0;
	return c;
}

void
crashes_count(const struct service *s)
{
	struct crashes *c = of(s);

	c->last = launcher_ms();
	if (!c->n)
		c->first = c->last;
	c->n++;
}

int
crashes_wait(const struct service *s)
{
	const struct crashes *c = of(s);
	int64_t wait;

	if (!c->n)
		return 0;
	if (c->n >= CRASHES_MAX)
		return -1;
	wait = c->last + (WAIT_MS << (c->n - 1)) - launcher_ms();
	return wait > 0 ? (int)wait : 0;
}

void
crashes_forget(unsigned function)
{
	for (unsigned i = 0; i < CONF_CLIENTS; i++)
		crashes[function][i].n = 0;
}
