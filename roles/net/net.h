/* SPDX-License-Identifier: MIT
 *
 * net.h - the net process's parts and what they have in common
 *
 *   net.c      its life: start, confine, serve, time
 *   conn.c     connections: accept, read, write, end
 *   auth.c     who is there
 *   calls.c    an instance's regions: submit requests, take answers, wait
 *   ask.c      control messages, and the engine's channel
 */
#ifndef NET_NET_H
#define NET_NET_H

#include <stdint.h>

#include "../../proto/netframe.h"
#include "../common/imsg.h"
#include "../common/keep.h"
#include "../common/loop.h"
#include "../common/netd.h"

#define NET_PENDING 32		      /* connections that haven't proved anything; one more ends another */
#define NET_CONNS (256 + NET_PENDING) /* all */
#define NET_OUT 32768u		      /* bytes: the answers of all slots, and a reply */
#define NET_CLOSED 1024u

/* The room for a result, in datain's arena. */
struct room {
	uint64_t off, len;
};

/* The instance of a connection, of which this process is the client. */
struct calls {
	uint64_t id;   /* 0: none */
	uint64_t last; /* the last one */
	uint64_t over; /* to be said to the engine: nothing more of this one is read; 0: none */
	int ending;    /* its service has ended: what it answered goes out, and then GONE */
	uint8_t *out, *in;
	uint64_t out_size, in_size;
	uint64_t out_arena, in_arena; /* bytes; these and slots outlive the instance */
	uint32_t slots;
	uint32_t next;	      /* position of the next request */
	uint32_t oldest;      /* no position before it is without answer */
	unsigned flying;      /* requests without answer */
	unsigned busy_at;     /* index in net.busy, while there are any */
	struct room set;      /* of the last SET */
	uint64_t features;    /* VFUN_FEATURE_* granted */
	struct loop_src ring; /* the service's eventfd */
	struct room room[VFUN_SLOTS_MAX];
	uint8_t busy[VFUN_SLOTS_MAX]; /* the slot holds a request without answer */
};

/* A control message under way: one at a time. */
struct asking {
	int used, sent;
	int again;   /* asked again of a new engine */
	int replied; /* msg is the reply, which waits for room */
	int waits;   /* msg is the reply, but the regions aren't here yet */
	uint64_t req;
	uint64_t since;	     /* ms */
	uint64_t not_before; /* ms: the client's budget is used up */
	struct vfun_msg msg;
};

/*
 *   (free) --accept: HELLO--> CONN_HELLO --AUTH, good: WELCOME--> CONN_OPEN
 *   CONN_HELLO --anything else, NET_AUTH_MS--> (free)
 *   CONN_OPEN --nonsense, no progress, idle, hung up--> (free), and the engine is told
 */
enum conn_state { CONN_FREE, CONN_HELLO, CONN_OPEN };

struct conn {
	struct loop_src src;
	enum conn_state state;
	uint32_t number;	      /* the engine's handle; never used again */
	uint32_t client;	      /* CONN_OPEN: index in netd_state */
	uint32_t events;	      /* epoll's */
	uint8_t from[16];	      /* the peer's IPv6 network or IPv4 address */
	uint64_t since;		      /* ms: when it was accepted */
	uint64_t read_at, written_at; /* ms: last progress */
	struct vfun_net_hello hello;
	struct net_in in;
	uint32_t out_at, out_end; /* what is to be sent of `out`, and then */
	const uint8_t *tail;	  /* bulk data, right out of datain */
	uint64_t tail_left;
	struct asking ask;
	struct vfun_grant grant; /* the last one */
	struct calls calls;
	uint8_t out[NET_OUT];
};

/* So many at once, and so many a second (see net_bucket()). */
struct bucket {
	uint64_t filled; /* ms */
	uint32_t tokens;
};

struct net_daemon {
	struct keep k;
	const struct netd_state *st;
	struct loop loop;
	struct loop_src events, engine, listener;
	int spare;
	int spins;	    /* there is a processor to spin on */
	uint64_t listen_at; /* ms: too many connect; 0: it listens */
	uint64_t flush_at;  /* ms: the engine's channel was full */
	uint32_t next_number;
	uint64_t next_req;
	uint32_t closed_n, closed_told; /* ended connections: all, told to this engine */
	struct {
		uint32_t number, client;
	} closed[NET_CLOSED];
	unsigned conns;		      /* in use */
	unsigned flying;	      /* requests without answer, of all */
	struct conn *busy[NET_CONNS]; /* the connections that have any */
	unsigned nbusy;
	int parked; /* their `parked` flags are set */
	int moved;  /* a request was submitted */
	uint64_t said_since;
	unsigned said;
	struct bucket accepts;
	struct bucket asks[CONF_NETS_MAX];
	struct conn *conn; /* NET_CONNS of them: too much for the .bss of every role */
};

extern struct net_daemon net;

/* net.c */
uint64_t net_ms(void); /* CLOCK_MONOTONIC, never 0 */
int net_may_say(void); /* may a line be logged that somebody outside can cause at will? */
int net_bucket(struct bucket *b, uint32_t per_second); /* take one: 1, or 0 if there is none for now */
#define NET_PAUSE_MS 10
#define NET_CONNECTS 1000 /* a second, of all */
#define NET_ASKS 1000	  /* control messages a second, of one client */

/* conn.c */
void conn_accept(struct loop_src *src, uint32_t events);
void conn_watch(struct conn *c); /* wait for what it can do now */
void conn_go_on(struct conn *c); /* what was received and not looked at */
void conn_close(struct conn *c);
/* Tell it why, and close. Returns -ESHUTDOWN. */
int conn_farewell(struct conn *c, enum vfun_reason reason, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Append a frame; bulk data must stay where it is until it is sent. 1, or 0 if there is no room now. */
int conn_put(struct conn *c, const struct vfun_net_frame *f, const void *body, const uint8_t *bulk);
int conn_has_room(const struct conn *c); /* for an answer */
void conn_flush(struct conn *c);	 /* send; may close */
void conn_times(struct conn *c, uint64_t now);

/* auth.c */
int auth_hello(struct conn *c);				    /* 0 or -errno */
int auth_check(struct conn *c, struct vfun_net_auth *auth); /* 0: it is open; or -errno: it is closed */

/* calls.c. -errno: the connection can't go on. */
int calls_attach(struct conn *c, const struct keep_add *add, const int fds[3]);
void calls_detach(struct conn *c);
int calls_place(struct conn *c, const struct vfun_net_frame *f, uint8_t **to);
int calls_submit(struct conn *c, const struct vfun_request *r);
int calls_cancel(struct conn *c, uint32_t seq);
int calls_poll(void); /* take what is answered; how many */
int calls_spin(void); /* the same for a moment, if there is nothing */
int calls_park(void); /* announce a sleep: 1 unless something came in between */
void calls_unpark(void);
/* The service has ended: what it answered goes out as there is room, then GONE, and the regions are let go of. May
 * close. */
void calls_gone(struct conn *c);
int calls_ended(const struct conn *c);

/* ask.c */
int ask_engine(struct conn *c, const struct vfun_msg *msg); /* 0 or -errno */
void ask_connect(int fd);
void ask_flush(void);
void ask_add(const struct keep_add *add, int fds[3]); /* takes those that it sets to -1 */
void ask_go_on(struct conn *c);			      /* there is room again: for a reply that waited */
void ask_closed(const struct conn *c);
void ask_times(struct conn *c, uint64_t now);

#endif
