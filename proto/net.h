/* SPDX-License-Identifier: MIT
 *
 * net.h - path net, the client's connection
 */
#ifndef PROTO_NET_H
#define PROTO_NET_H

#include "client.h"
#include "netauth.h"
#include "netframe.h"

/* libvfun.a: a program has these only where it asks for path net (vfun-net.pc), and no need for libnettle otherwise. A
 * weak reference fetches no member of an archive. */
#ifdef VFUN_LIBRARY
#define NET_OPTIONAL __attribute__((weak))
#define net_is_there() (net_open != NULL)
#else
#define NET_OPTIONAL
#define net_is_there() 1
#endif

struct net {
	int fd;
	struct vfun *v; /* whose slots and arenas these are; NULL: control messages only */
	int err;	/* not 0: the connection is over */
	enum vfun_reason reason;
	char text[VFUN_TEXT_MAX + 128]; /* why, after a failure */
	uint32_t sent;			/* position of the next request to be sent */
	int replied;
	struct vfun_msg reply;
	struct net_in in;
};

/* Connect and authenticate. The handle is to be given to net_close() whatever this returns: 0, or as vfun_open(), with
 * n->reason and n->text. */
int net_open(struct net *n, const char *server, const char *key_file, unsigned timeout_ms) NET_OPTIONAL;
void net_close(struct net *n) NET_OPTIONAL;

/* One control message and its reply. 0 or -errno. */
int net_cancel(struct vfun *v, uint32_t seq) NET_OPTIONAL; /* 0 or -errno */
int net_control(struct net *n, struct vfun_msg *msg, unsigned timeout_ms) NET_OPTIONAL;

/* Make this process's own regions, once ACTIVATE has been answered. 0 or -errno. */
int net_regions(struct vfun *v) NET_OPTIONAL;

/* Send what was submitted since the last time. 0, or -ECONNRESET. */
int net_flush(struct vfun *v) NET_OPTIONAL;

/* Take in what has arrived. 0, or -ECONNRESET. */
int net_receive(struct vfun *v) NET_OPTIONAL;

/* Sleep until something arrives, at most so long. */
void net_sleep(const struct vfun *v, uint64_t ns) NET_OPTIONAL;

#endif
