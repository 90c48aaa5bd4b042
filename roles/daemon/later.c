/* SPDX-License-Identifier: MIT
 *
 * later.c - what the launcher does at another time: no descriptor, which might be what is lacking
 */
#include <stddef.h>

#include "launcher.h"

void
later_forget(struct launcher *l, struct later *t)
{
	struct later **at = &l->later;

	while (*at && *at != t)
		at = &(*at)->next;
	if (*at)
		*at = t->next;
}

void
later_do(struct launcher *l, struct later *t, int ms, void (*fn)(struct later *))
{
	later_forget(l, t);
	*t = (struct later){ .next = l->later, .at = launcher_ms() + ms, .fn = fn };
	l->later = t;
}

int64_t
later_deadline(const struct launcher *l)
{
	int64_t first = 0;

	for (const struct later *t = l->later; t; t = t->next)
		if (!first || t->at < first)
			first = t->at;
	return first;
}

void
later_run(struct launcher *l)
{
	int64_t now = launcher_ms();
	struct later *t = l->later;

	while (t) {
		if (t->at > now) {
			t = t->next;
			continue;
		}
		later_forget(l, t);
		t->fn(t);
		t = l->later; /* which may have changed */
	}
}
