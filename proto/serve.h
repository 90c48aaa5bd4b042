/* SPDX-License-Identifier: MIT
 *
 * serve.h - the service's side of the mapping
 */
#ifndef PROTO_SERVE_H
#define PROTO_SERVE_H

#include <stdint.h>

#include "vfun.h"

/* A request after validation: everything here is a private copy, or a pointer and a length inside the arenas. */
struct serve_call {
	enum vfun_cmd cmd; /* GET or RST; SET with own_sets; ECHO is answered by the channel itself */
	const uint64_t *arg;
	unsigned nargs;
	int bulk;
	const volatile uint8_t *in; /* in the client's arena: may change at any moment */
	uint64_t in_len;
	volatile uint8_t *out;
	uint64_t out_len;
	unsigned lane; /* which of the calls that are under way at the same time; 0 without a queue */
	struct vfun_stop stop;
};

/* What the function made of it; `reason`, `bulk` and `len` are 0 when it is called. Short results go into
 * bytes[0..len); with bulk = 1 len bytes lie at call->out. */
struct serve_answer {
	enum vfun_reason reason;
	int bulk;
	uint64_t len; /* RESULT_SIZE: bytes needed, 0 unknown */
	union {
		uint8_t bytes[VFUN_PAYLOAD];
		uint64_t word[VFUN_PAYLOAD / 8];
	};
};

/* Begin a call on a device that has a queue: 0, and serve_fn, with the same call, will wait for its end and answer; or
 * 1: it is answered already. */
typedef int serve_begin(void *arg, const struct serve_call *call, struct serve_answer *ans);

typedef void serve_fn(void *arg, const struct serve_call *call, struct serve_answer *ans);

#define SERVE_WORKERS_MAX 16u
#define SERVE_QUEUE_MAX 16u

/* What all workers of a service share. Geometry comes from vfund, never from the mapping. */
struct serve {
	const void *out;  /* dataout, mapped read-only if possible; its bell is written by others only */
	void *in;	  /* datain */
	uint32_t slots;	  /* power of two */
	uint32_t workers; /* power of two, at most `slots`: worker w serves the positions p with p % workers == w */
	uint64_t out_arena;
	uint64_t in_arena;
	uint32_t spin_us;
	int ring_fd; /* eventfd that wakes a guest through its share, -1: the client is on this host */
	serve_fn *fn;
	serve_begin *begin; /* NULL: no queue */
	uint32_t queue;	    /* calls that are begun before the first of them is finished, at most */
	int own_sets;	    /* 1: SET is the function's own, and a GET without arguments is a call like any other */
	uint32_t version;   /* of the protocol, granted */
	uint32_t features;  /* VFUN_FEATURE_* granted */
	/* serve.c's own, zeros at first */
	unsigned strikes;	 /* insane slots in a row; atomic */
	int lock;		 /* 1: one of the workers uses what follows */
	unsigned busy;		 /* workers that show BUSY */
	struct vfun_request set; /* the last SET, checked; cmd 0: none */
	/* Of each worker, the first of its positions that isn't answered yet; atomic. Only kept if there are several.
	 */
	struct {
		uint32_t next;
		uint8_t pad[VFUN_LINE - 4];
	} turn[SERVE_WORKERS_MAX] __attribute__((aligned(64)));
};

/* Fill in line 0 of a fresh region's header; magic last. */
void serve_header(
    struct vfun_hdr *h, uint64_t magic, uint64_t session, uint64_t instance, uint32_t slots, uint64_t arena);

/* Serve, as one of s->workers threads; arg is for s->fn. Returns VFUN_R_CUT_OFF when the client has to be cut off, or
 * VFUN_R_SLOT_SEQ when it has skipped a position or used a slot too early.
 * System calls: futex, write on ring_fd, sched_yield, clock_gettime and getcpu where there is no vdso. */
enum vfun_reason serve_loop(struct serve *s, unsigned worker, void *arg);

#endif
