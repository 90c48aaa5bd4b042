/* SPDX-License-Identifier: MIT
 *
 * keep.h - surviving kill -9: what vfund's launcher keeps for its engine, its shares and its net process
 *
 * Theory of operation
 *
 * The engine and the shares parse what others send them, so they may die; what they serve must not notice. A QEMU in
 * particular aborts when its back-end disconnects. So the launcher, which parses nothing, keeps for each such child
 *   - a state memfd, which the child maps and uses as its working memory for everything that must survive, and
 *   - its descriptors, in numbered slots, stored by the child as it gets them;
 * and when the child dies without having said that it is finished (exit status 0), the launcher starts another one and
 * hands both over. The child looks at the state, finishes or repeats what was under way, and goes on.
 *
 * What can't be repeated is a conversation on a stream: "read a request, write its reply". A child that is killed
 * between the two would leave its successor with a consumed request or with a reply sent twice. So a child never does
 * it itself: it looks at the request (MSG_PEEK), acts on it in a way that may be repeated, and asks the launcher to
 * commit: to consume so many bytes and to send so many others. The launcher does all commits that were asked for before
 * it starts a successor, and tells the successor how many it did in all: the child writes down "this is done by commit
 * N" before it asks.
 *
 * Two sockets connect a child with the launcher: `rpc`, on which the child asks and waits for the answer, and `events`,
 * on which the launcher tells what happens. All messages are struct keep_msg: fixed size, checked.
 *
 * A child is started as `vfun ROLE` with KEEP_FD_RPC and KEEP_FD_EVENTS open. It calls keep_start().
 */
#ifndef COMMON_KEEP_H
#define COMMON_KEEP_H

#include <stddef.h>
#include <stdint.h>

#include "conf.h"
#include "imsg.h"

#define KEEP_FD_RPC 3
#define KEEP_FD_EVENTS 4
#define KEEP_SLOTS 1536		   /* descriptors kept per child */
#define KEEP_STATE_SIZE (1u << 20) /* bytes of a state memfd: what the child needs, and room */
#define KEEP_DATA_MAX 2176 /* bytes sent by one commit; the longest is vhost-user's GET_SHMEM_CONFIG reply, 2068 */

enum keep_type {
	/* rpc: child asks, launcher answers with the same type and err */
	KEEP_STORE = 1,	 /* keep the attached descriptor in `slot` (replaces what was there) */
	KEEP_DROP = 2,	 /* close the one in `slot` */
	KEEP_COMMIT = 3, /* on the socket in `slot`: consume `consume` bytes, then send data[0..len) with slot `with`'s
			    fd, if any */
	KEEP_LAUNCH = 4, /* engine only: start the service in u.launch; its fate comes as an event. -ENOSPC: no room in
			    the BAR; -ECANCELED: its program has crashed too often lately;
			    -ESTALE: vfun.conf was read again, and the request doesn't fit it any more */
	KEEP_KILL = 5,	 /* engine only: end service u.service.id; KEEP_SERVICE_EXIT follows. Its memory is held */
	KEEP_UP = 7,	 /* the child serves; its err doesn't matter */
	KEEP_GIVE = 6,	 /* engine only: give the regions of service u.give.add.id to its client: on the host to the
			    connection that KEEP_LAUNCH named, together with u.give.reply; else to the VM's share, or
			    the net process (KEEP_ADD). The answer says in u.give.add where they are. -ESRCH: no such
			    service; others: the connection doesn't take it */
	KEEP_RELOAD = 9, /* engine only: read vfun.conf again; KEEP_RELOADED follows. -EBUSY: that is under way */
	KEEP_CLOSE = 10, /* close the attached descriptor, a stranger's: the child must not wait for that */
	KEEP_FREE = 8, /* engine only: no client reads service u.service.id's regions any more: give them back, and end
			  it if it lives */
	/* events: launcher tells */
	KEEP_START = 16,     /* first message; u.start; state memfd attached */
	KEEP_FD = 17,	     /* a kept descriptor, attached, and its slot */
	KEEP_GO = 18,	     /* that was all; `commits` so far */
	KEEP_PEER = 19,	     /* engine: a share's channel, attached, u.peer; share: the engine's channel, attached */
	KEEP_PEER_GONE = 20, /* engine: share of u.peer is gone for good (its QEMU went away) */
	KEEP_SERVICE_READY = 21,  /* engine: u.service */
	KEEP_SERVICE_FAILED = 22, /* engine: u.service, with reason and text; KEEP_SERVICE_EXIT follows */
	KEEP_SERVICE_EXIT =
	    23, /* engine: u.service is gone, reason VFUN_R_GONE, VFUN_R_CUT_OFF, or VFUN_OK when it was told to */
	KEEP_SERVICE_ALIVE = 24, /* engine, between START and GO: a service that lives, or whose memory is held */
	KEEP_STOP = 25,		 /* engine: release everything and exit 0 */
	KEEP_CONF = 27,		 /* engine: struct conf from byte `slot` on, data[0..len); in force when it is whole */
	KEEP_RELOADED = 28,	 /* engine: u.service.reason and text: what became of a reload */
	KEEP_ADD = 29,		 /* share, net process: show this instance: u.add; attached: dataout, datain, ring
				    eventfd */
	KEEP_ASK = 30,		 /* engine: nothing was heard for long; an answer is KEEP_UP */
	KEEP_VM = 26,		 /* engine: VM number u.vm.index is now u.vm.conf, without a name: there is none */
};

/* How a child is told what it is; the rest it has from vfun.conf (engine) or from here (share). */
struct keep_start {
	char name[IMSG_NAME_MAX]; /* share: the VM's name */
	uint64_t state_size;
	uint64_t window;    /* share: DAX window, bytes; a power of two */
	uint32_t takeover;  /* 0: fresh state (all zeros); n: the n-th successor */
	uint32_t direct_io; /* share: 1 unless the guest may cache data files (a test of the client's echo) */
	uint32_t verbose;
	uint32_t uid; /* system mode: uid and gid to become; 0: stay (user mode) */
	uint32_t gid;
	uint32_t optional; /* sandbox stages that may fail, see sandbox.h */
};

struct keep_peer {
	uint32_t vm;  /* index of the VM in vfun.conf; CONF_NET: the net process */
	uint32_t pid; /* of the share, or net process */
	uint64_t bar; /* vfun_bar.id of the VM's ivshmem BAR; 0: it has none */
};

struct keep_service {
	uint64_t id;
	uint32_t pid;
	uint16_t reason;
	uint16_t pad;
	char text[112];
	uint32_t held; /* EXIT, ALIVE: 1: it has ended, and its memory is held until KEEP_FREE */
	uint32_t pad1;
};

struct keep_add {
	uint64_t id;
	uint64_t out_size; /* bytes; this and what follows is filled in by the launcher */
	uint64_t in_size;
	uint64_t out_off; /* where they begin in their descriptors: not 0 in the VM's BAR */
	uint64_t in_off;
	uint32_t handle; /* whose ACTIVATE made it, which is its first lease */
	uint32_t uid;	 /* the owner of its folder */
	uint32_t gid;
	uint32_t pad;
	char folder[VFUN_FOLDER_MAX];
};

struct keep_give {
	struct keep_add add;
	struct vfun_msg reply;
};

enum keep_bar { KEEP_BAR_NO = 0, KEEP_BAR_TRY, KEEP_BAR_MUST };

struct keep_launch {
	uint64_t id;
	uint64_t session;
	uint64_t out_arena; /* bytes, multiples of 4096 */
	uint64_t in_arena;
	uint32_t slots;
	uint32_t spin_us;
	uint32_t function; /* index in vfun.conf */
	uint32_t vm;	   /* whose it is: index in vfun.conf */
	uint32_t conn;	   /* CONF_HOST: slot of the connection that gets its regions */
	uint32_t bar;	   /* enum keep_bar: regions in the VM's BAR; -ENOSPC if they must, and it is full */
	uint32_t version;  /* of the protocol, granted */
	uint32_t target;   /* enum vfun_target: software or hardware */
	uint32_t features; /* VFUN_FEATURE_*, granted */
	uint32_t pad;
	char client[IMSG_NAME_MAX];
};

struct keep_vm {
	uint32_t index;
	uint32_t pad;
	struct conf_vm conf;
};

struct keep_msg {
	uint32_t type;
	uint32_t slot;
	uint32_t with;	  /* COMMIT: slot + 1 of the descriptor to attach, 0: none */
	uint32_t consume; /* COMMIT: bytes */
	uint32_t len;	  /* COMMIT: bytes of u.data */
	int32_t err;	  /* answers: 0 or -errno */
	uint64_t commits; /* GO, COMMIT's answer: commits done so far, this one included */
	union {
		struct keep_start start;
		struct keep_peer peer;
		struct keep_service service;
		struct keep_launch launch;
		struct keep_add add;
		struct keep_give give;
		struct keep_vm vm;
		uint8_t data[KEEP_DATA_MAX];
	} u;
};

/* The child's side. */
struct keep {
	int rpc;
	int events;	  /* for the child's event loop */
	uint64_t commits; /* done so far; the next one is number commits + 1 */
	struct keep_start start;
	void *state;	     /* the state memfd, mapped */
	int fds[KEEP_SLOTS]; /* the kept descriptors, this process's numbers; -1: none */
};

/* Receive START, the kept descriptors, and GO. `state_size`: what the child needs. `alive` is called
 * for each KEEP_SERVICE_ALIVE (NULL: none expected). Returns 0 or -errno. */
int keep_start(struct keep *k, size_t state_size, void (*alive)(const struct keep_service *));

/* Have fd kept in slot, and remember it in k->fds (which then owns it; what was there is closed). 0 or -errno. */
int keep_store(struct keep *k, uint32_t slot, int fd);

/* Forget and close. */
int keep_drop(struct keep *k, uint32_t slot);

/* Close a descriptor which isn't kept, and whose close() may wait. */
void keep_close(struct keep *k, int fd);

/* Commit on the stream in `slot`; `with` is a slot whose descriptor goes along, or -1. 0 or -errno of the send. */
int keep_commit(struct keep *k, uint32_t slot, uint32_t consume, const void *data, uint32_t len, int with);

/* Any other request (LAUNCH, KILL, GIVE, FREE). Returns the launcher's err. */
int keep_rpc(struct keep *k, struct keep_msg *msg);

/* Receive the next event. fds as fd_recv(), max 3. 1, 0 when the launcher is gone, -EAGAIN, or -errno. */
int keep_event(struct keep *k, struct keep_msg *msg, int fds[3], int *nfds);

#endif
