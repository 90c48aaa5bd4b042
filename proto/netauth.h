/* SPDX-License-Identifier: MIT
 *
 * netauth.h - path net, what client and server have in common: addresses, keys, proofs
 */
#ifndef PROTO_NETAUTH_H
#define PROTO_NETAUTH_H

#include <sys/socket.h>

#include "vfun.h"

struct net_key {
	char client[VFUN_NAME_MAX];
	uint8_t key[VFUN_NET_KEY];
};

/* "ADDRESS:PORT" or "[ADDRESS]:PORT", numeric. 0 or -EINVAL. */
int net_address(const char *s, struct sockaddr_storage *sa, socklen_t *len);

/* Read a key file: one line, a name, a blank, 64 hexadecimal digits. NULL, or a sentence's end that says what is wrong
 * with the file: among others, that others than its owner may read it. */
const char *net_key_read(struct net_key *k, const char *path);

enum net_side { NET_CLIENT, NET_SERVER };

/* The proof of this side, from what the two have said to each other (auth->proof is not looked at). */
void net_prove(uint8_t proof[VFUN_NET_KEY], const uint8_t key[VFUN_NET_KEY], enum net_side side,
    const struct vfun_net_hello *hello, const struct vfun_net_auth *auth);

/* Is it this proof? In the same time, whatever differs. */
int net_proof_equal(const uint8_t a[VFUN_NET_KEY], const uint8_t b[VFUN_NET_KEY]);

#endif
