/* SPDX-License-Identifier: MIT
 *
 * account.c - whom limits of a user of the host are counted for
 *
 * A user of whom /etc/subuid says that he has further uids may connect as any of them (newuidmap): all are he.
 */
#include "conf.h"

uint32_t
conf_account(const struct conf *c, uint32_t uid)
{
	for (unsigned i = 0; i < c->ranges; i++)
		if (uid >= c->range[i].first && uid - c->range[i].first < c->range[i].count)
			return c->range[i].owner;
	return uid;
}
