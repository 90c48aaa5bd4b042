/* SPDX-License-Identifier: MIT
 *
 * svc.h - what the launcher and a service say to each other
 *
 * One SOCK_SEQPACKET pair per service, at descriptor SVC_FD. The launcher sends one svc_start (attached, in this order:
 * where the regions lie in a VM's BAR, its memory; where a device computes, its image and the host half; where a
 * program does, that, and the pipe for what it prints); the service makes the two regions, confines itself, maps them,
 * prepares its backend, and answers with one svc_ready (attached on success: dataout, datain, ring eventfd). After that
 * neither says anything: the end is an exit status. A service that ends for a system call that isn't on its list sends
 * the signal's siginfo_t first (proto/filter.h).
 */
#ifndef COMMON_SVC_H
#define COMMON_SVC_H

#include <stdint.h>

#include "../../backends/program.h"
#include "../../backends/xrt/xrt.h"
#include "../../proto/vfun.h"

#define SVC_FD 3
/* Exit statuses */
#define SVC_EXIT_CUT_OFF 10 /* the client sent too many insane slots */
#define SVC_EXIT_LATE 11    /* a call took longer than vfun.conf allows */
#define SVC_EXIT_DEVICE 12  /* the device failed */
#define SVC_EXIT_SEQ 13	    /* the client skipped a position, or used a slot too early */

/* Threads of XRT's, or of a program's libraries, while it gets ready. */
#define SVC_LIBRARY_THREADS 64u

struct svc_start {
	char function[VFUN_NAME_MAX];
	char backend[16];
	char client[VFUN_NAME_MAX];
	uint64_t id;
	uint64_t session;
	uint64_t out_arena;
	uint64_t in_arena;
	uint64_t memory_max; /* bytes: all that it may have, the regions included */
	uint32_t slots;
	uint32_t spin_us;
	uint32_t uid; /* system mode: uid and gid to become; 0: user mode */
	uint32_t verbose;
	uint32_t optional;   /* sandbox stages that may fail, see sandbox.h */
	uint32_t version;    /* of the protocol, granted */
	uint64_t place;	     /* where dataout lies in the attached BAR, datain behind it; 0: memfds of their own */
	uint32_t workers;    /* threads, a power of two, at most `slots` */
	uint32_t queue;	     /* hardware: calls that the device has in its queue, at most */
	uint32_t describe;   /* backend program: 1: it is only to say what it is, and there are no regions */
	uint32_t device_gid; /* system mode: the group that may use the device, 0: none */
	uint32_t wait_ms;    /* before anything else: it has crashed lately */
	uint32_t features;   /* VFUN_FEATURE_* granted */
	struct xrt_desc xrt; /* backends xrt and xrt-emulated */
	struct program_desc program;
	char signature[VFUN_SIGNATURE_MAX]; /* of a program */
};

struct svc_ready {
	uint16_t reason; /* 0, or why not */
	uint16_t copies; /* 1: a device computes, and doesn't use the arenas in place */
	uint16_t pad[2];
	uint64_t huge; /* bytes of the regions that lie in huge pages */
	char text[VFUN_TEXT_MAX];
};

/* The threads that a service may have: its workers, a watchdog, and what libraries make. */
static inline unsigned
svc_threads(const struct svc_start *st)
{
	return st->workers + (st->queue || st->program.path[0] ? SVC_LIBRARY_THREADS : st->program.limit_ms ? 1 : 0);
}

#endif
