/* SPDX-License-Identifier: MIT
 *
 * netframe.h - path net, frames as they arrive: the same for client and server
 */
#ifndef PROTO_NETFRAME_H
#define PROTO_NETFRAME_H

#include "vfun.h"

#define NET_BUFFER 16384u /* bytes; a frame without its bulk data has NET_FRAME_MAX at most */
#define NET_FRAME_MAX (sizeof(struct vfun_net_frame) + sizeof(struct vfun_msg))

/* Who reads. Both get a header that is well-formed, and as many bytes of body as its type has. */
struct net_reader {
	/* A frame with bulk data begins: *to is where its f->len bytes go, or stays NULL: nowhere. 0 or -errno. */
	int (*place)(void *arg, const struct vfun_net_frame *f, const void *body, uint8_t **to);
	/* A frame is complete. 0; 1: no further frame for the moment; or -errno. */
	int (*frame)(void *arg, const struct vfun_net_frame *f, const void *body);
};

/* The receiving side of a connection; zeros at first. */
struct net_in {
	struct vfun_net_frame f; /* f.type not 0: its bulk data is arriving */
	uint8_t body[sizeof(struct vfun_msg)];
	uint8_t *bulk; /* where it goes on, NULL: nowhere */
	uint64_t bulk_left;
	uint32_t have; /* bytes in buf */
	uint8_t buf[NET_BUFFER];
};

/* Where to receive, and how much. Long bulk data goes straight to its place. *room is 0 if the reader has to take what
 * is there first. */
uint8_t *net_in_room(struct net_in *in, size_t *room);

/* `got` bytes have been received there. */
void net_in_got(struct net_in *in, size_t got);

/* Hand over what is complete. 0, 1 as frame() returned it, or -errno: its own (-EPROTO: not a frame), or a callback's.
 */
int net_in_take(struct net_in *in, const struct net_reader *to, void *arg);

/* Bytes of the body of this type's frames; -1: there is no such type. */
int net_body(unsigned type);

/* A frame's header. */
struct vfun_net_frame net_frame(enum vfun_net_type type, uint64_t off, uint64_t len);
int net_frame_ok(const struct vfun_net_frame *f);

#endif
