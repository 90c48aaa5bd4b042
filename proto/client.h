/* SPDX-License-Identifier: MIT
 *
 * client.h - struct vfun, shared by client.c (opening, closing, control) and channel.c (calls)
 */
#ifndef PROTO_CLIENT_H
#define PROTO_CLIENT_H

#include "vfun.h"

#define CLIENT_PATH_MAX 512

/* One of the two regions, as the client reaches it. */
struct region {
	int fd;	      /* -1: not open */
	uint8_t *map; /* NULL with path copy */
	uint64_t size;
};

struct vfun {
	int ctl;   /* socket, or the mount's control file */
	int guest; /* 1: through a share */
	int bell;  /* guest: the instance's bell file */
	char run[CLIENT_PATH_MAX];
	struct vfun_grant grant;
	struct vfun_active active;
	struct region out;
	struct region in;
	enum vfun_path path;
	enum vfun_reason reason;
	char text[VFUN_TEXT_MAX + 64];
	struct vfun_times times;
	uint32_t next;		      /* position of the next request */
	uint8_t busy[VFUN_SLOTS_MAX]; /* slot holds a request whose answer hasn't been taken */
	uint64_t spin_ns;
	uint64_t nonce[4]; /* what an echo has to bring back */
};

uint64_t client_ns(void);

/* Remember why, for vfun_reason() and vfun_text(). Returns err. */
int client_fail(struct vfun *v, int err, enum vfun_reason reason, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif
