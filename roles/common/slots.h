/* SPDX-License-Identifier: MIT
 *
 * slots.h - which of a child's kept descriptors is in which slot (keep.h)
 *
 * The children use them, and the launcher checks what they store (rules.c).
 */
#ifndef COMMON_SLOTS_H
#define COMMON_SLOTS_H

#define ENGINE_CONNS 1024
#define SHARE_QUEUES 2	    /* high priority, requests */
#define SHARE_REGIONS 512   /* guest memory regions; every live window mapping is one of them */
#define SHARE_INSTANCES 256 /* vFunctions of this VM at a time */

enum engine_slot {
	SLOT_CONTROL = 0, /* listening sockets */
	SLOT_ADMIN = 1,
	SLOT_SERVICE = 2, /* folder for records */
	SLOT_CONNS = 16,  /* + index of the connection */
};

enum share_slot {
	SLOT_FRONT = 0, /* the vhost-user socket */
	SLOT_BACK = 1,	/* the channel for the back-end's own requests */
	SLOT_KICK = 2,
	SLOT_CALL = SLOT_KICK + SHARE_QUEUES,
	SLOT_ERR = SLOT_CALL + SHARE_QUEUES,
	SLOT_REGION = SLOT_ERR + SHARE_QUEUES,
	SLOT_INSTANCE = SLOT_REGION + SHARE_REGIONS, /* three each: dataout, datain, ring eventfd */
	SLOT_END = SLOT_INSTANCE + 3 * SHARE_INSTANCES,
};

#endif
