/* SPDX-License-Identifier: MIT
 *
 * client.h - struct vfun, shared by client.c (opening, closing, control) and channel.c (calls)
 */
#ifndef PROTO_CLIENT_H
#define PROTO_CLIENT_H

#include "pace.h"
#include "vfun.h"

#define CLIENT_PATH_MAX 512

/* One of the two regions, as the client reaches it. */
struct region {
	int fd;	      /* -1: not open */
	uint8_t *map; /* NULL with path copy */
	uint64_t size;
};

/* What vfun_input() or vfun_room() has handed out of one arena. */
struct buffers {
	uint8_t *shadow; /* path copy: stands for the arena in this process; else NULL */
	uint64_t used;	 /* bytes, from the arena's start */
};

struct net;

struct vfun {
	int ctl;   /* socket, or the mount's control file */
	int guest; /* 1: through a share */
	int bell;  /* guest: the instance's bell file */
	int bar;   /* guest: the VM's ivshmem BAR, while choosing a path; -1: none, or not wanted */
	uint64_t bar_size;
	struct net *net; /* path net: the connection, whose descriptor is ctl; else NULL */
	char run[CLIENT_PATH_MAX];
	struct vfun_grant grant;
	struct vfun_active active;
	struct region out;
	struct region in;
	struct buffers input; /* of dataout */
	struct buffers room;  /* of datain */
	enum vfun_path path;
	int incoherent; /* a mapping didn't prove itself */
	enum vfun_reason reason;
	char text[VFUN_TEXT_MAX + 64];
	uint16_t flags;		      /* VFUN_F_* of the last nack */
	char fallback[VFUN_TEXT_MAX]; /* why not hardware; "" */
	struct vfun_times times;
	uint32_t next;		      /* position of the next request */
	uint32_t oldest;	      /* no request before this position is pending; vfun_gather()'s */
	uint8_t busy[VFUN_SLOTS_MAX]; /* slot holds a request whose answer hasn't been taken */
	int unrung;		      /* submitted since the last ring */
	uint32_t until;		      /* what dataout's header says */
	struct pace pace;
	uint64_t nonce[4]; /* what an echo has to bring back */
};

static inline uint64_t
client_ns(void)
{
	return pace_now();
}

/* Remember why, for vfun_reason() and vfun_text(). Returns err. */
int client_fail(struct vfun *v, int err, enum vfun_reason reason, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* ivshmem.c: open the BAR whose first page has this vfun_bar.id. A descriptor for mmap(), and its size; or -EACCES,
 * -EPERM: there is an ivshmem device that this user can't look into; -ENXIO: none of them is it. */
int ivshmem_open(uint64_t bar, uint64_t *size);

/* channel.c: copy to or from dataout, datain, by offset in the region. 0 or -errno. */
int region_store(const struct region *r, uint64_t off, const void *data, uint64_t len);
int region_load(const struct region *r, uint64_t off, void *data, uint64_t len);
uint64_t region_slot(const struct vfun *v, uint32_t position);
uint64_t region_arena(const struct vfun *v);

/* buffer.c, path copy: take a request's input out of its buffer, before it is published; put what vfun_put() has put
 * into the buffer too; bring a result of `len` bytes into its buffer. 0 or -errno. */
int buffers_send(struct vfun *v, const struct vfun_bulk *bulk);
void buffers_put(struct vfun *v, uint64_t off, const void *data, uint64_t len);
int buffers_bring(struct vfun *v, uint32_t ticket, uint64_t len);
void buffers_free(struct vfun *v);

#endif
