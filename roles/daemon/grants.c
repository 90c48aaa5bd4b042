/* SPDX-License-Identifier: MIT
 *
 * grants.c - the engine's grants: who may hold how many, and for how long
 *
 * A grant is a place in a table for all clients, held between NEGOTIATE and ACTIVATE. A client needs it for a moment,
 * so it expires after GRANT_SECONDS. Half of the table is what users of the host can take; of the other half the last
 * places are for clients that hold few, and the very last ones for the host's root and administrators. Likewise in each
 * VM: so neither many users of the host nor one user of a guest can keep the others from functions.
 */
#include "engine.h"
#include "rate.h"

/* Places that stay free, see reserve(). */
#define RESERVED_ROOT 16u
#define RESERVED_FEW (RESERVED_ROOT + 64u)
#define RESERVED_VMS (ENGINE_GRANTS / 2u)
#define FEW 4u /* that many a client has anyway */
/* And of a VM's */
#define VM_ROOT 4u
#define VM_FEW (VM_ROOT + 12u)

void
grants_drop(uint32_t vm, uint32_t handle)
{
	for (unsigned i = 0; i < ENGINE_GRANTS; i++) {
		struct grant *g = &engine.st->grant[i];

		if (g->who.vm == vm && (!handle || g->who.handle == handle))
			g->number = 0;
	}
}

static void
expire(void)
{
	int64_t now = rate_ms();

	for (unsigned i = 0; i < ENGINE_GRANTS; i++) {
		struct grant *g = &engine.st->grant[i];

		if (g->number && now - g->since >= GRANT_SECONDS * 1000)
			g->number = 0;
	}
}

/* What is in use, as one client sees it. */
struct use {
	unsigned all;
	unsigned client; /* this VM's, or this user's of the host */
	unsigned user;	 /* this user's, within the VM */
	unsigned handle;
	struct grant *free_one;
};

static struct use
use_of(const struct asker *who)
{
	struct use u = { .free_one = NULL };

	for (unsigned i = 0; i < ENGINE_GRANTS; i++) {
		struct grant *g = &engine.st->grant[i];
		int same = g->who.vm == who->vm && g->who.account == who->account;

		if (!g->number) {
			u.free_one = g;
			continue;
		}
		u.all++;
		u.user += same;
		u.client += who->vm == CONF_HOST ? same : g->who.vm == who->vm;
		u.handle += g->who.vm == who->vm && g->who.handle == who->handle;
	}
	return u;
}

/* Of all places, those that this client must leave. */
static unsigned
reserve(const struct asker *who, const struct use *u)
{
	if (who->vm == CONF_HOST && (who->admin || !who->uid))
		return 0;
	if (u->client < FEW)
		return RESERVED_ROOT;
	return who->vm == CONF_HOST ? RESERVED_VMS : RESERVED_FEW;
}

/* Of its VM's places, those that this user must leave. */
static unsigned
reserve_in_vm(const struct asker *who, const struct use *u)
{
	if (who->vm >= CONF_HOST || !who->uid)
		return 0;
	return u->user ? VM_FEW : VM_ROOT;
}

struct grant *
grant_new(const struct asker *who)
{
	struct use u;

	expire();
	u = use_of(who);
	if (u.handle >= ENGINE_GRANTS_EACH || u.all + reserve(who, &u) >= ENGINE_GRANTS)
		return NULL;
	if (!who->admin && u.client + reserve_in_vm(who, &u) >= ENGINE_GRANTS_CLIENT)
		return NULL;
	return u.free_one;
}

struct grant *
grant_find(const struct asker *who, uint64_t number)
{
	expire();
	for (unsigned i = 0; i < ENGINE_GRANTS; i++) {
		struct grant *g = &engine.st->grant[i];

		if (number && g->number == number && g->who.vm == who->vm && g->who.handle == who->handle)
			return g;
	}
	return NULL;
}
