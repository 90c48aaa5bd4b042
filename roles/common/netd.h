/* SPDX-License-Identifier: MIT
 *
 * netd.h - what the launcher gives the net process: the content of its state memfd (keep.h), and its one descriptor
 *
 * Nothing of it changes, and nothing of the net process's own survives it: connections are lost with it.
 */
#ifndef COMMON_NETD_H
#define COMMON_NETD_H

#include "../../proto/netauth.h"
#include "conf.h"

#define NETD_LISTEN 0 /* slot of the listening socket, whose connections inherit NODELAY and time-outs */

struct netd_client {
	struct net_key key;
	uint32_t connections; /* quota */
};

struct netd_state {
	uint32_t clients; /* client[i] is number CONF_NET + i */
	uint32_t connections;
	uint32_t idle_ms;
	struct netd_client client[CONF_NETS_MAX];
};

#endif
