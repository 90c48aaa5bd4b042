/* SPDX-License-Identifier: MIT
 *
 * client.h - struct vfun, shared by client.c (opening and closing), control.c (messages), path.c (regions) and
 * channel.c (calls)
 */
#ifndef PROTO_CLIENT_H
#define PROTO_CLIENT_H

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "pace.h"
#include "vfun.h"

#define CLIENT_PATH_MAX 512
#define CLIENT_TIMEOUT_MS 10000u

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

/* FREE --submit--> PENDING --take--> FREE
 *                  PENDING --vfun_forget--> FORGOTTEN --its answer is seen--> FREE
 * NONE: not ours, see struct vfun. */
enum client_slot { SLOT_NONE = 0, SLOT_FREE, SLOT_PENDING, SLOT_FORGOTTEN };

#define CLIENT_WIPED 65536u /* whole pages, however large a machine's are */

struct net;

struct vfun {
	/* What every call looks at. The kernel gives the child of a fork() zeros in its place (MADV_WIPEONFORK): there
	 * no slot is free and none pending, so that each function takes its cold way, finds that the handle is the
	 * parent's (client_foreign()), and calls pay nothing for the check. */
	union {
		struct {
			int mine;		      /* 1 */
			uint32_t next;		      /* position of the next request */
			uint32_t oldest;	      /* none before it is pending; vfun_gather()'s */
			int unrung;		      /* submitted since the last ring */
			uint32_t until;		      /* what dataout's header says */
			unsigned forgotten;	      /* slots with a request whose answer nobody will take */
			int armed;		      /* 1: the service rings for each answer, see vfun_arm() */
			uint8_t busy[VFUN_SLOTS_MAX]; /* enum client_slot */
		};
		uint8_t wiped[CLIENT_WIPED];
	};
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
	const char *plain; /* the sentence, where it is always the same; NULL: it is in `text` */
	char text[VFUN_TEXT_MAX + 64];
	uint16_t flags;		      /* VFUN_F_* of the last nack */
	char fallback[VFUN_TEXT_MAX]; /* why not hardware; "" */
	char why[VFUN_TEXT_MAX];      /* the service has ended, as vfund says; "": it wasn't asked yet */
	struct vfun_times times;
	unsigned limit; /* of requests to come, see vfun_limit_of() */
	int event;	/* the service's eventfd; -1: none */
	int epoll;	/* vfun_fd(); -1: none */
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

/* The same in no time, for what a program may run into all the time: a sentence that lives for ever. */
static inline int
client_say(struct vfun *v, int err, const char *sentence)
{
	v->reason = VFUN_OK;
	v->plain = sentence;
	return err;
}

/* All slots are free, and the handle is this process's. */
static inline void
client_begin(struct vfun *v)
{
	v->mine = 1;
	v->next = v->oldest = v->forgotten = 0;
	memset(v->busy, SLOT_FREE, sizeof(v->busy));
}

/* -EPERM: this is the child of the process that opened the handle. */
int client_foreign(struct vfun *v);

/* The service has ended: why, as vfund says. */
const char *client_why(struct vfun *v);

/* This process's trouble, or this machine's, and nobody else's? */
static inline int
is_shortage(int err)
{
	return err == -EMFILE || err == -ENFILE || err == -ENOMEM;
}

static inline void
close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* control.c: a descriptor for control messages, and the run folder that it belongs to; or -errno. */
int control_open(const char *run, int admin, char found[CLIENT_PATH_MAX]);
/* By path net, or is there something local? `fd`: what control_open() returned, 0 if it wasn't asked yet. */
int control_by_net(const struct vfun_options *o, int fd);
/* The socket's type; 0: not a socket, so this is a guest. */
int control_socket(int fd);
/* One question and its answer, which becomes *msg, with at most 3 descriptors, the caller's then. `net`: the
 * connection, where fd is one's. 0 or -errno; a nack is 0. */
int control_ask(int fd, struct net *net, struct vfun_msg *msg, unsigned timeout_ms, int fds[3]);

/* path.c, between negotiation and activation: is there a BAR that this program may map? 0 (v->bar: -1 if not), or
 * -errno if nothing but that was wanted. And after activation: 1 if the regions' places in it make sense. */
int path_find_bar(struct vfun *v, enum vfun_path want);
int path_bar_sane(const struct vfun *v);
/* path.c: the best path that proves itself: 0 or -errno. And its end. */
int path_choose(struct vfun *v, const struct vfun_options *o);
void path_unmap(struct vfun *v);

/* ivshmem.c: open the BAR whose first page has this vfun_bar.id. A descriptor for mmap(), and its size; or -EACCES,
 * -EPERM: there is an ivshmem device that this user can't look into; -ENXIO: none of them is it. */
int ivshmem_open(uint64_t bar, uint64_t *size);

/* channel.c: an eventfd has come with the instance: make vfun_fd(). 0 or -errno. */
int client_pollable(struct vfun *v);

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
