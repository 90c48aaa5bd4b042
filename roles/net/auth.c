/* SPDX-License-Identifier: MIT
 *
 * auth.c - who is there: challenge, proof, and how many connections a client may have
 *
 * Somebody whose name isn't known is treated as somebody with a wrong key, in the same time: names can't be found out.
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "../common/log.h"
#include "net.h"

int
auth_hello(struct conn *c)
{
	struct vfun_net_frame f = net_frame(VFUN_NET_HELLO, 0, 0);

	c->hello = (struct vfun_net_hello){ .version = VFUN_VERSION };
	if (getrandom(c->hello.nonce, sizeof(c->hello.nonce), 0) != (ssize_t)sizeof(c->hello.nonce))
		return -EAGAIN;
	return conn_put(c, &f, &c->hello, NULL) ? 0 : -ENOBUFS;
}

/* The index of the client whose proof this is, or -1. */
static int
prover(const struct conn *c, const struct vfun_net_auth *auth)
{
	static const uint8_t nobodys[VFUN_NET_KEY];
	const uint8_t *key = nobodys;
	uint8_t proof[VFUN_NET_KEY];
	int found = -1;

	for (uint32_t i = 0; i < net.st->clients; i++)
		if (!strcmp(net.st->client[i].key.client, auth->client)) {
			found = (int)i;
			key = net.st->client[i].key.key;
		}
	net_prove(proof, key, NET_CLIENT, &c->hello, auth);
	return net_proof_equal(proof, auth->proof) ? found : -1;
}

/* Is there room for one more of this client's? */
static int
room_for(uint32_t client)
{
	uint32_t all = 0;
	uint32_t same = 0;

	for (unsigned i = 0; i < NET_CONNS; i++) {
		all += net.conn[i].state == CONN_OPEN;
		same += net.conn[i].state == CONN_OPEN && net.conn[i].client == client;
	}
	return all < net.st->connections && same < net.st->client[client].connections;
}

int
auth_check(struct conn *c, struct vfun_net_auth *auth)
{
	struct vfun_net_frame f = net_frame(VFUN_NET_WELCOME, 0, 0);
	struct vfun_net_welcome welcome;
	int client;

	if (auth->version >> 8 != VFUN_VERSION >> 8)
		return conn_farewell(c, VFUN_R_VERSION, "vfund speaks protocol version %u, not %u", VFUN_VERSION >> 8,
		    auth->version >> 8);
	auth->client[sizeof(auth->client) - 1] = '\0';
	client = prover(c, auth);
	if (client < 0)
		return conn_farewell(c, VFUN_R_DENIED, "this name and this key are nobody's here");
	if (!room_for((uint32_t)client))
		return conn_farewell(c, VFUN_R_NO_RESOURCE,
		    "there are as many connections as vfun.conf allows: a later try may succeed");
	net_prove(welcome.proof, net.st->client[client].key.key, NET_SERVER, &c->hello, auth);
	c->client = (uint32_t)client;
	c->state = CONN_OPEN;
	log_debug("%s is connected (%u)", net.st->client[client].key.client, c->number);
	return conn_put(c, &f, &welcome, NULL) ? 0 : -ENOBUFS;
}
