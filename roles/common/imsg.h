/* SPDX-License-Identifier: MIT
 *
 * imsg.h - messages between the engine and the shares, and the engine and the net process
 *
 * One SOCK_SEQPACKET socket pair per share, made by the launcher. Fixed size, checked, copied out. The share passes
 * on what guests ask, with an identity that guests can't forge: the VM (by the socket) and the uid/gid that the guest
 * kernel put into the FUSE request. The engine answers, and tells which instances have ended; what there is to show,
 * and its memory, comes from the launcher (KEEP_ADD).
 *
 * The net process speaks for all net clients on one channel and says for which; its handles are connections, each the
 * lease of what was activated by it, so that it has no use for IM_LEASE_END. IM_DEL to it names the connection.
 *
 * Either side may be replaced at any time (keep.h). Then:
 *  - a new share repeats IM_REQUEST for what was under way (same `handle` and `req`): the engine answers the same
 * again;
 *  - IM_DEL is said again for instances whose IM_FREE isn't there yet;
 *  - a new engine gets IM_CLOSED / IM_LEASE_END for what ended meanwhile (the share repeats them until IM_DEL), and the
 * share answers requests that the old engine took along with VFUN_R_LOST.
 */
#ifndef COMMON_IMSG_H
#define COMMON_IMSG_H

#include <stdint.h>

#include "../../proto/vfun.h"

#define IMSG_NAME_MAX VFUN_NAME_MAX

enum imsg_type {
	IM_REQUEST = 1, /* share -> engine: msg, asked through control handle `handle`, as uid/gid; `req` names it */
	IM_REPLY = 2,	/* engine -> share: msg, for `handle` and `req` */
	/* 3: instances and their regions come from the launcher, KEEP_ADD */
	IM_DEL = 4,    /* engine -> share: the service of `instance` has ended: nobody opens its files any more, and who
			  has    them open goes on reading. `handle`: the control handle that activated it, unless that has
			  released it: 0 */
	IM_CLOSED = 5, /* share -> engine: control handle `handle` was closed: its grants are void */
	IM_LEASE_END = 6, /* share -> engine: nobody holds `instance` open any more */
	IM_FREE = 7, /* share -> engine: after IM_DEL: no file of `instance` is open, nor that control handle; or it
			isn't known. Net process: every answer has been sent */
};

struct imsg {
	uint32_t type;
	uint32_t handle; /* REQUEST, REPLY, CLOSED: the share's number of an open control file, never reused by this VM;
			  * DEL: the handle whose ACTIVATE made it, which is its first lease */
	uint64_t req;	 /* REQUEST, REPLY: the FUSE request's unique number */
	uint64_t instance; /* DEL, LEASE_END, FREE */
	uint32_t dax;	   /* REQUEST: 1 if this mount has a DAX window */
	uint32_t client;   /* REQUEST, CLOSED, FREE by the net process: index in vfun.conf */
	uint32_t uid;	   /* REQUEST: the asking process */
	uint32_t gid;
	struct vfun_msg msg; /* REQUEST, REPLY */
};

#endif
