/* SPDX-License-Identifier: MIT
 *
 * grants.c - the engine's table of grants, with a clock of the test's own
 *
 * Says "ok", or what went wrong.
 */
#include "../../roles/daemon/grants.c"

#include <stdio.h>
#include <stdlib.h>

struct engine engine;
static struct engine_state state;
static int64_t now = 1;
static uint64_t numbers;

int64_t
rate_ms(void)
{
	return now;
}

static void
want(int ok, const char *what)
{
	if (ok)
		return;
	printf("not as it should be: %s\n", what);
	exit(1);
}

/* As many as this one gets, on as many handles as that takes. */
static unsigned
take(struct asker who, unsigned most)
{
	unsigned n = 0;

	for (unsigned handle = 0; handle < 64 && n < most; handle++) {
		struct grant *g = NULL;

		who.handle = who.uid * 64 + handle + 1;
		while (n < most && (g = grant_new(&who))) {
			*g = (struct grant){ .number = ++numbers, .who = who, .since = now };
			n++;
		}
	}
	return n;
}

static struct asker
user(uint32_t vm, uint32_t uid)
{
	return (struct asker){ .vm = vm, .uid = uid, .account = uid };
}

int
main(void)
{
	struct asker admin = user(CONF_HOST, 3000);
	struct asker root = user(CONF_HOST, 0);
	unsigned all = 0;

	engine.st = &state;
	admin.admin = 1;

	/* Users of the host */
	for (uint32_t uid = 1000; uid < 1020; uid++)
		all += take(user(CONF_HOST, uid), 1000);
	want(all < ENGINE_GRANTS - 64, "twenty users don't get all");
	want(take(user(CONF_HOST, 1001), 1) == 0, "who has some gets no more");
	want(take(user(CONF_HOST, 2000), 1) == 1, "who has none gets one");
	want(take(user(3, 1000), 1000) > 16, "a VM gets as many as ever");
	for (uint32_t uid = 10000; uid < 12000; uid++)
		take(user(CONF_HOST, uid), 1);
	want(take(user(CONF_HOST, 2001), 1) == 0, "two thousand users have taken the rest");
	want(take(root, 8) == 8, "root gets some");
	want(take(admin, 8) == 8, "and so does an administrator");

	/* They expire */
	root.handle = 1;
	want(grant_find(&root, numbers) == NULL, "another handle's isn't found");
	now += GRANT_SECONDS * 1000 - 1;
	want(take(root, 1) == 0, "a moment earlier all are still there");
	admin.handle = admin.uid * 64 + 1;
	want(grant_find(&admin, numbers) != NULL, "and found");
	now++;
	want(grant_find(&admin, numbers) == NULL, "then they are gone");
	want(take(root, 1000) == ENGINE_GRANTS_CLIENT, "and there is room");
	grants_drop(CONF_HOST, 0);

	/* Users of one VM */
	all = take(user(0, 1000), 1000);
	want(all > 16 && all < ENGINE_GRANTS_CLIENT, "one user of a guest doesn't get all of its VM's");
	want(take(user(0, 1001), 1) == 1, "another gets one");
	for (uint32_t uid = 2000; uid < 2100; uid++)
		take(user(0, uid), 1);
	want(take(user(0, 1002), 1) == 0, "a hundred users have taken those");
	want(take(user(0, 0), 1) == 1, "its root gets one");
	want(take(user(1, 1000), 1) == 1, "another VM isn't concerned");
	printf("ok\n");
	return 0;
}
