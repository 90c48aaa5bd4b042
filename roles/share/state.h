/* SPDX-License-Identifier: MIT
 *
 * state.h - what a share must not forget
 *
 * Theory of operation
 *
 * A share may be killed between any two instructions, and its successor goes on from here (keep.h). So this struct,
 * in the state memfd, is the working memory for everything that outlives one request, and it is written in an order
 * that makes every prefix of it sensible:
 *  - an entry of a table is filled first and marked as valid last, and marked as invalid before it is taken apart;
 *  - what can be counted or derived is not stored (who holds an instance open: look at the handles);
 *  - a step that others see (a used element, a message to QEMU) is announced here before it is done, in a way that
 *    tells afterwards whether it was done (virtq.c, back.c).
 * Stores are in program order as seen by a successor: only the compiler has to be told, by state_order().
 *
 * The successor is the same program, started by the same launcher: the layout needs no version.
 */
#ifndef SHARE_STATE_H
#define SHARE_STATE_H

#include <stdint.h>

#include "../../proto/vfun.h"
#include "../common/keep.h"
#include "../common/slots.h"

#define SHARE_QSIZE 1024   /* descriptors in a queue, at most */
#define SHARE_HANDLES 1024 /* open files of this VM at a time */
#define SHARE_MAPS 504	   /* live window mappings */
#define SHARE_CLOSED 256   /* closed control handles that a new engine is told about */

_Static_assert(SLOT_END <= KEEP_SLOTS, "descriptors of a share");

/* A piece of guest memory, as the front-end says. Its descriptor is in SLOT_REGION + index. */
struct share_region {
	uint32_t valid;
	uint32_t pad;
	uint64_t gpa;  /* guest physical address */
	uint64_t size; /* bytes */
	uint64_t uva;  /* the front-end's own address, which names ring parts */
	uint64_t offset;
};

/* A request taken from the ring and not answered yet. */
struct share_inflight {
	uint64_t order; /* number of requests taken before it */
	uint32_t busy;
	uint32_t pad;
};

struct share_ring {
	uint32_t num;
	uint32_t started; /* has a kick descriptor */
	uint32_t enabled;
	uint32_t broken;	    /* the guest put nonsense into it: not looked at again until it is set up anew */
	uint64_t desc, avail, used; /* front-end addresses */
	uint64_t popped;	    /* requests taken since SET_VRING_BASE; next avail index = base + popped */
	uint32_t base;
	uint32_t used_idx;
	uint32_t completing; /* head + 1 of the request whose answer is being published */
	uint32_t pad;
	struct share_inflight inflight[SHARE_QSIZE]; /* by head */
};

enum share_file { FILE_OUT = 0, FILE_IN = 1, FILE_BELL = 2, FILE_FOLDER = 3 };

struct share_instance {
	uint32_t valid;
	uint32_t dying;	 /* IM_DEL came: no longer in the tree; kept for who has its files open */
	uint64_t serial; /* this share's number, never used again: node ids are made of it */
	uint64_t id;	 /* the engine's number */
	uint64_t size[2];
	uint64_t off[2];  /* where the regions begin in their descriptors: not 0 in the VM's ivshmem BAR */
	uint64_t ino[2];  /* of the memfds, to know a region that QEMU tells of */
	uint64_t bell;	  /* times that the service rang since the guest last asked */
	uint32_t creator; /* control handle that activated it; 0: which has released it */
	uint32_t uid;
	uint32_t gid;
	uint32_t lease_end; /* nobody holds it open any more: said to the engine until IM_DEL */
	char folder[VFUN_FOLDER_MAX];
};

struct share_handle {
	uint32_t valid;
	uint32_t uid;
	uint64_t fh;	  /* never used again */
	uint64_t node;	  /* what it is open on */
	uint64_t unique;  /* the OPEN that made it: a repeated one gets it again */
	uint64_t read_by; /* the READ that took `reply`: a repeated one gets it again */
	uint32_t control; /* control files: the number that the engine knows it by */
	uint32_t has_reply;
	struct vfun_msg reply; /* control files: the answer to the last write */
};

/* A mapping in the window. See window.c for the states. */
enum share_map_state {
	MAP_NONE = 0,
	MAP_WANT,	/* to be mapped */
	MAP_SENT,	/* SHMEM_MAP is on its way */
	MAP_ON,		/* QEMU said yes */
	MAP_UNMAP_WANT, /* to be unmapped */
	MAP_UNMAP_SENT, /* SHMEM_UNMAP is on its way */
};

struct share_map {
	uint32_t state;
	uint32_t file; /* FILE_OUT or FILE_IN */
	uint64_t order;
	uint64_t moff; /* in the window */
	uint64_t len;
	uint64_t foff;
	uint64_t serial; /* of the instance */
	uint32_t drop;	 /* unmap it as soon as the answer to SHMEM_MAP is there */
	uint32_t pad;
};

struct share_state {
	uint64_t features;
	uint64_t protocol;
	uint32_t status;
	uint32_t dax; /* window negotiated with QEMU and with the guest's mount */
	uint64_t next_fh;
	uint64_t next_serial;
	uint64_t next_order;
	uint32_t next_control;
	uint32_t closed_n;     /* control handles closed so far; the last ones are in closed[] */
	uint64_t back_busy;    /* number of the commit that sends the open back-end request; 0: none is open */
	uint64_t back_rest;    /* number of the commit that sends its second part; 0: not yet */
	uint64_t back_consume; /* number of the commit that consumes its reply */
	uint32_t back_void;    /* its second part says that it is to be refused */
	uint32_t pad;
	uint64_t window_gpa; /* where the window is in the guest's memory; 0: not known */
	uint32_t closed[SHARE_CLOSED];
	struct share_ring ring[SHARE_QUEUES];
	struct share_region region[SHARE_REGIONS];
	struct share_instance instance[SHARE_INSTANCES];
	struct share_handle handle[SHARE_HANDLES];
	struct share_map map[SHARE_MAPS];
};

/* What stands before it is stored before what stands after it. (A test makes it a place to die at, now and then.) */
#ifndef state_order
#define state_order() __asm__ __volatile__("" ::: "memory")
#endif

#endif
