/* SPDX-License-Identifier: MIT
 *
 * service.h - vfun-service: what its files share, in either half
 */
#ifndef SERVICE_SERVICE_H
#define SERVICE_SERVICE_H

#include <stdint.h>

#include "../../backends/backend.h"
#include "../../proto/serve.h"
#include "../../proto/signature.h"
#include "../common/svc.h"

#define RING_FD 4 /* the ring eventfd, while serving */

struct service;

/* A thread; the first is the process itself. */
struct worker {
	struct service *sv;
	void *state;	     /* the backend's */
	uint64_t deadline;   /* CLOCK_MONOTONIC ns: when its call must be done; 0: none under way. For the watchdog */
	struct vfun_fit fit; /* of the call that it has now */
};

struct service {
	struct svc_start start;
	const struct backend *backend;
	struct backend_function function; /* what is served */
	struct xrt_texts texts;		  /* of a device's */
	struct vfun_signature signature;
	struct worker worker[SERVE_WORKERS_MAX];
	void *lane[SERVE_QUEUE_MAX]; /* the backend's states, of a device with a queue */
	/* CLOCK_MONOTONIC ns: when the device must have done what is waited for; 0: nothing; 1: it failed. For the
	 * watchdog. */
	uint64_t deadline;
	struct serve serve;
	uint64_t huge;	   /* bytes of the regions in huge pages */
	uint64_t limit_ns; /* of a call; 0: none */
	uint32_t up;	   /* workers that have got as far as work(): the C library has made its system calls */
	uint32_t ready;	   /* futex: 1 when the workers may begin */
	int out_fd;
	int in_fd;
	int ring_fd;
	int image_fd;	  /* the device's image, or the pipe that a program prints to; -1: none */
	int half_fd;	  /* the host half, or a program; -1: none */
	uint64_t out_off; /* where the regions begin in their descriptors: not 0 in a BAR */
	uint64_t in_off;
	void *out;
	void *in;
};

/* Tell the launcher why not. An exit status. */
int service_refuse(enum vfun_reason reason, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The function, its signature and its backend by their names in sv->start. 0, or an exit status after a refusal. */
int service_function(struct service *sv);

/* regions.c */
int regions_make(struct service *sv);		   /* by plain writes: nobody waits for them yet. 0 or -errno */
int regions_map(struct service *sv, int out_prot); /* 0 or -errno */

/* work.c */
/* The workers, which sleep until the service is ready. 0 or -errno. */
int work_start(struct service *sv);
/* From the mapped regions to the end of the service: the backend, the descriptors to the launcher, `confine` (0 or
 * -errno), ready, serve. An exit status. */
int work(struct service *sv, const struct backend_setup *setup, int (*confine)(struct service *sv));

/* handover.c: the service, confined, becomes the host half (half.c), which loads the filters of these lists, the
 * channel's and the backend's. An exit status, if it can't. */
struct sandbox_call;
int handover(struct service *sv, const struct sandbox_call *setup, const struct sandbox_call *backend_setup,
    const struct sandbox_call *serving, const struct sandbox_call *backend_serving);

/* The same to become an executable of the administrator's, which finds what proto/vfun.h says; the regions have gone to
 * the launcher then. */
int handover_program(struct service *sv, const struct sandbox_call *setup, const struct sandbox_call *backend_setup,
    const struct sandbox_call *serving, const struct sandbox_call *backend_serving);

/* What the host half finds at descriptor HANDOVER_FD. */
struct handover {
	struct svc_start start;
	struct vfun_signature signature; /* parsed */
	uint64_t out_off;
	uint64_t in_off;
	uint64_t huge;
};

enum handover_fds { HANDOVER_FD = 5, HANDOVER_OUT, HANDOVER_IN, HANDOVER_IMAGE, HANDOVER_SETUP, HANDOVER_SERVING };

#endif
