/* SPDX-License-Identifier: MIT
 *
 * share.h - the share's parts and what they have in common
 *
 *   share.c    the worker's life: start, confine, serve, end
 *   args.c     what people ask on the command line
 *   peek.c     look at a message without consuming it
 *   vhost.c    messages of the front-end (QEMU)
 *   mem.c      guest memory: addresses to pointers
 *   virtq.c    the virtqueues: descriptor chains, taking and completing
 *   fuse.c     FUSE requests: checks and dispatch
 *   tree.c     names, attributes, open files, leases
 *   data.c     reading and writing data files, the bell
 *   control.c  requests to the engine
 *   engine.c   the engine's channel
 *   window.c   the DAX window
 *   back.c     our own requests to QEMU
 */
#ifndef SHARE_SHARE_H
#define SHARE_SHARE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <linux/fuse.h>

#include "../common/imsg.h"
#include "../common/keep.h"
#include "../common/loop.h"
#include "state.h"

#define REQUESTS_MAX 256      /* taken from the rings and not answered; more stay in the ring */
#define REQUEST_IN_MAX 4608   /* bytes kept of a request: the longest is REMOVEMAPPING with 256 ranges */
#define CHAIN_MAX SHARE_QSIZE /* buffers of one request */

/* What a request's handler returns besides 0 (answered by what chain_put() got) and -errno. */
enum { REQ_WAIT = 1, REQ_SILENT = 2 };

#define REQ_LATE 1 /* req.deadline: it has passed */

/* What a waiting request waits for: who retries it. */
enum wait_for { WAIT_NOTHING, WAIT_ENGINE, WAIT_BELL, WAIT_WINDOW, WAIT_RING };

/* A request's buffers, as pointers into guest memory; valid only until the next message of the front-end. */
struct chain {
	struct iovec in[CHAIN_MAX]; /* guest to device */
	struct iovec out[CHAIN_MAX];
	unsigned nin, nout;
	uint64_t in_len, out_len; /* bytes */
	uint64_t put;		  /* bytes of the answer so far, behind its header */
};

/* A request being served. It holds no pointer into guest memory: the chain is parsed again for each try, `in` isn't. */
struct req {
	uint32_t used;
	uint32_t queue;
	uint32_t head;
	uint32_t repeat;    /* a predecessor may have executed it already */
	uint32_t in_len;    /* bytes in `in` */
	uint32_t have_in;   /* `in` is filled */
	enum wait_for wait; /* not WAIT_NOTHING: to be tried again */
	int err;	    /* set by whom it waits for: the answer */
	uint64_t order;
	uint64_t deadline; /* CLOCK_MONOTONIC, ms: retried then; 0: none */
	uint32_t sent;	   /* WAIT_ENGINE: given to the engine of generation `gen` */
	uint32_t gen;
	uint32_t control;    /* WAIT_ENGINE: the handle it came by */
	uint32_t replied;    /* WAIT_ENGINE: `msg` is the answer */
	uint32_t stage;	     /* WAIT_WINDOW: 1 waiting for the region, too */
	struct vfun_msg msg; /* WAIT_ENGINE: request, then reply */
	union {
		struct fuse_in_header hdr;
		uint8_t in[REQUEST_IN_MAX];
	} u;
};

/* Process-local side of an instance. */
struct share_local {
	struct loop_src ring;  /* the service's eventfd; fd -1: not open */
	struct vfun_hdr *page; /* dataout's first page */
	uint64_t free_at;      /* dying: when to try again to say IM_FREE */
	uint32_t told;	       /* lease end said to this engine */
};

/* Process-local side of a ring. */
struct share_queue {
	struct loop_src kick;
	uint32_t gen; /* of guest memory for which the pointers hold */
	void *desc, *avail, *used;
};

struct share {
	struct keep k;
	struct share_state *st;
	struct loop loop;
	struct loop_src events, front, back, engine;
	uint64_t front_retry; /* half a message is there: look again then */
	uint64_t flush_at;    /* the engine's channel was full: try again then */
	uint64_t pump_at;     /* so was the back-end channel */
	uint32_t mem_gen;
	uint32_t engine_gen;  /* counts engines seen by this process */
	uint32_t closed_told; /* closed control handles said to this engine */
	uint64_t refused;     /* the last instance that there was no room for */
	uint64_t said_since;  /* share_may_say(): the current minute, and the lines in it */
	unsigned said;
	uint32_t starved; /* a ring has more, but all requests are in use */
	uint32_t more;	  /* a ring may have more, but it is others' turn */
	unsigned region_top;
	uint8_t *region_ptr[SHARE_REGIONS];
	void *map_ptr[SHARE_MAPS]; /* pieces of the window that a guest used as a buffer */
	struct share_queue queue[SHARE_QUEUES];
	struct share_local local[SHARE_INSTANCES];
	struct chain chain;
	struct req req[REQUESTS_MAX];
};

/* share.c */
/* May a line be logged that a guest or its front-end can cause at will? Says so itself when the last one was. */
int share_may_say(struct share *s);
struct share *share_self(void); /* this process's one share, for callbacks */
uint64_t share_now(void);	/* CLOCK_MONOTONIC in ms */
void share_quit(struct share *s, int status) __attribute__((noreturn));
void share_fatal(struct share *s, const char *what, int err) __attribute__((noreturn));
void share_retry(struct share *s, enum wait_for wait);

/* args.c */
int share_args(int argc, char **argv);

/* peek.c: the next `len` bytes and the descriptors that come with them, left in the socket's queue. Returns the bytes
 * seen, 0 at the end, or -errno; fds as fd_recv(). */
long peek(int sock, void *buf, size_t len, int *fds, int max, int *nfds);

/* vhost.c */
#define VHOST_HDR 12u
#define VHOST_VERSION 1u
#define VHOST_REPLY 4u
#define VHOST_NEED_REPLY 8u
#define VHOST_PAYLOAD_MAX 2056u
#define VHOST_FDS_MAX 8
#define PROTOCOL_SHMEM 22 /* bit; the mailing list's drafts had 20 */

struct vhost_msg {
	uint32_t request;
	uint32_t flags;
	uint32_t size;
	uint8_t payload[VHOST_PAYLOAD_MAX];
} __attribute__((packed, aligned(4)));

/* Act on one message. The answer replaces it: *reply is its length with header, 0 for none. 0, or -errno where the
 * conversation can't go on. Descriptors used are set to -1 in fds. */
int vhost_message(struct share *s, struct vhost_msg *m, int *fds, int nfds, uint32_t *reply);
void vhost_ready(struct loop_src *src, uint32_t events);
void vhost_front(struct share *s);
void vhost_kick_watch(struct share *s, unsigned q);

/* mem.c */
int mem_add(struct share *s, const struct share_region *r, int *fd);
int mem_remove(struct share *s, const struct share_region *r);
void mem_clear(struct share *s);
int mem_takeover(struct share *s);
void *mem_guest(struct share *s, uint64_t gpa, uint64_t len); /* NULL: not inside one region, or piece of the window */
void *mem_front(struct share *s, uint64_t uva, uint64_t len);

/* virtq.c */
int virtq_runs(struct share *s, unsigned q);
void virtq_start(struct share *s, unsigned q);
void virtq_stop(struct share *s, unsigned q);
void virtq_forget(struct share *s, unsigned q);
void virtq_process(struct share *s, unsigned q);
void virtq_takeover(struct share *s);
int virtq_chain(struct share *s, unsigned q, unsigned head, struct chain *c);
void virtq_complete(struct share *s, struct req *r, uint32_t len);
void virtq_kicked(struct loop_src *src, uint32_t events);
size_t chain_get(const struct chain *c, void *buf, size_t len);
void chain_head(struct chain *c, const void *buf, size_t len); /* the answer's header; it fits */
int chain_put(struct chain *c, const void *buf, size_t len);
unsigned chain_slice(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len, struct iovec *out);

/* fuse.c */
void fuse_run(struct share *s, struct req *r);
void fuse_forget_mount(struct share *s);

/* tree.c */
#define NODE_ROOT 1u
#define NODE_CONTROL 2u
struct share_instance *tree_instance(struct share *s, uint64_t node, enum share_file *file);
struct share_instance *tree_serial(struct share *s, uint64_t serial);
struct share_handle *tree_handle(struct share *s, uint64_t fh);
int tree_may(const struct share_instance *in, uint32_t uid);
int tree_dax(const struct share *s, const struct share_instance *in);
int tree_lookup(struct share *s, struct chain *c, const struct fuse_in_header *h, const char *name);
int tree_getattr(struct share *s, struct chain *c, const struct fuse_in_header *h);
int tree_open(struct share *s, struct chain *c, const struct fuse_in_header *h, uint32_t flags, int repeat);
int tree_release(struct share *s, uint64_t fh);
int tree_opendir(struct share *s, struct chain *c, const struct fuse_in_header *h);
int tree_readdir(struct share *s, struct chain *c, const struct fuse_in_header *h, uint64_t offset, uint32_t size);
void tree_close_all(struct share *s);
int tree_in_use(const struct share *s); /* has the guest anything open? */
void tree_lease(struct share *s, struct share_instance *in);
void tree_leases(struct share *s);
int tree_held(const struct share *s, const struct share_instance *in);

/* data.c */
int data_read(struct share *s, struct req *r, struct chain *c, const struct fuse_read_in *a);
int data_write(struct share *s, struct req *r, struct chain *c, const struct fuse_write_in *a);
void data_rung(struct loop_src *src, uint32_t events);

/* control.c */
int control_ioctl(struct share *s, struct req *r, struct chain *c, const struct fuse_ioctl_in *a, size_t len);
int control_write(struct share *s, struct req *r, struct chain *c, struct share_handle *h, const void *buf, size_t len);
int control_read(struct req *r, struct chain *c, struct share_handle *h, size_t len);
unsigned share_waiting(struct share *s, enum wait_for wait);

/* engine.c */
void engine_connect(struct share *s, int fd);
void engine_add(struct share *s, const struct keep_add *m, int fds[3], int nfds); /* takes those that it sets to -1 */
void engine_ready(struct loop_src *src, uint32_t events);
void engine_flush(struct share *s);
int engine_open(struct share *s, struct share_instance *in); /* process-local side of an instance */
void engine_dying(struct share *s, uint64_t now);
uint64_t engine_deadline(const struct share *s);

/* window.c */
int window_setup(struct share *s, struct req *r, const struct fuse_setupmapping_in *a);
int window_remove(struct share *s, struct req *r, const void *arg, size_t len);
void window_pump(struct share *s);
void window_drop_instance(struct share *s, uint64_t serial);
void window_drop_all(struct share *s);
int window_region(struct share *s, uint64_t ino, const struct share_region *r);
void *window_guest(struct share *s, uint64_t gpa, uint64_t len); /* NULL: not inside one mapping */
void window_answer(struct share *s, struct share_map *m, uint64_t result);

/* back.c */
#define BACK_EVENTS (EPOLLIN | EPOLLOUT | EPOLLET) /* an answer has come, or QEMU has read something */
int back_device_runs(const struct share *s);
/* Ask QEMU to map (MAP_WANT, `with` the descriptor in that slot) or to unmap. 0, or -errno with all as it was. */
int back_send(struct share *s, struct share_map *m, int with);
void back_rest(struct share *s);
void back_ready(struct loop_src *src, uint32_t events);
void back_takeover(struct share *s);

#define share_index(s, in) ((unsigned)((in) - (s)->st->instance))

#endif
