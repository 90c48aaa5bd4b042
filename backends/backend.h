/* SPDX-License-Identifier: MIT
 *
 * backend.h - what computes a vFunction: the paper's high-level driver (section 3.3)
 *
 * A backend's life in its service process, one instance each:
 *   init   (device_driver_init)  allocate and open everything that calls will need; still in the first sandbox stage
 *   run    (driver_function)     one call; second stage: only the system calls of `serving` are left
 *   reset  the command rst: forget what earlier calls left behind
 *   exit   (device_driver_exit)  free and close
 *
 * A service with several workers makes a state for each of them, one with a queue for each call in it.
 *
 * A backend that needs the host's shared libraries runs in the host half (roles/service/half.c): the service confines
 * itself, so that it sees these libraries and its device and nothing else, and becomes that program.
 *
 * Inputs lie in memory that a guest may change at any moment: run() reads each byte of `in` at most once into what it
 * decides upon, and never reads `out` back.
 */
#ifndef BACKEND_H
#define BACKEND_H

#include <stddef.h>
#include <stdint.h>

#include "../proto/vfun.h"

/* One call. `arg` is a private copy, with defaults filled in unless a device computes; `in` lies in the guest's memory.
 */
struct backend_call {
	const uint64_t *arg;
	unsigned nargs;
	const volatile uint8_t *in; /* in_len bytes */
	uint64_t in_len;
	volatile uint8_t *out; /* out_len bytes of room, guest-readable; use backend_put() where one can */
	uint64_t out_len;
	const struct vfun_stop *stop; /* what takes long asks vfun_stopped() now and then; NULL: nobody stops it */
};

/* The result as it grows: inline while it is short, in the caller's room from then on. */
struct backend_result {
	uint8_t *room;
	uint64_t room_len;
	uint64_t len;  /* bytes so far */
	uint64_t need; /* after -ENOSPC: bytes that would do, 0: unknown */
	int bulk;      /* 1: in the room */
	uint8_t inline_bytes[VFUN_PAYLOAD];
};

/* One function of a backend. */
struct backend_function {
	const char *name;
	const char *summary;   /* one line, 63 characters at most: what it does */
	const char *signature; /* what it takes and gives, see proto/signature.h; run() sees only calls that fit */
	uint8_t threads;       /* 1: run() may be in several threads at once, each with a state of its own */
	/* 0; -EINVAL: arguments; -ENOSPC: no room for the result (backend_put() said so); -ENODEV: the device has
	 * failed, and the instance can't go on; what vfun_stopped() said; anything else: failed */
	int (*run)(void *state, const struct backend_call *call, struct backend_result *res);
};

/* Append to the result: 0, or -ENOSPC. */
int backend_put(struct backend_result *res, const void *data, uint64_t len);

/* A system call that a backend needs, and why. Where n isn't 0: only if the argument, masked, is one of value[0..n).
 * error: not allowed, but it fails with this errno instead of ending the process. */
struct backend_syscall {
	const char *name;
	const char *why;
	int16_t nr;
	int16_t error;
	uint8_t arg;
	uint8_t n;
	uint32_t mask;
	uint32_t value[4];
};

/* What init() is told. */
struct backend_setup {
	const struct backend_function *fn;
	uint64_t result_max; /* bytes of the largest result room that calls can have */
	/* for backends with a device: */
	const void *description; /* struct xrt_desc */
	const void *image;	 /* what the device is loaded with */
	uint64_t image_len;
	uint8_t *out_arena; /* both arenas, page by page this instance's alone */
	uint64_t out_size;
	uint8_t *in_arena;
	uint64_t in_size;
	int *copies; /* set to 1 if the device can't use the arenas in place */
};

#define BACKEND_TEXT 112 /* bytes of init()'s sentence, as VFUN_TEXT_MAX */

struct backend {
	const char *name;
	const struct backend_function *functions; /* ended by one without a name; NULL: they are in vfun.conf */
	const struct backend_syscall
	    *setting_up;		       /* until it serves, besides the channel's; ended by one without `why` */
	const struct backend_syscall *serving; /* likewise, see also roles/service/service.c */
	int half;			       /* 1: it runs in the host half */
	int program;			       /* 1: it is an executable of its own */
	/* Of functions that are described, in two halves, so that a device can have several calls in its queue, each
	 * with a state of its own: begin() as run(), 0: it is under way; and finish(), which waits for it. */
	int (*begin)(void *state, const struct backend_call *call, struct backend_result *res);
	int (*finish)(void *state, const struct backend_call *call, struct backend_result *res);
	/* 0, or why not: enum vfun_reason, with a sentence. NULL: it is in the other half */
	enum vfun_reason (*init)(const struct backend_setup *setup, void **state, char text[BACKEND_TEXT]);
	void (*reset)(void *state);
	void (*exit)(void *state);
};

extern const struct backend backend_software;
extern const struct backend backend_program;	  /* executables of the administrator's */
extern const struct backend backend_xrt;	  /* a card */
extern const struct backend backend_xrt_emulated; /* what takes its place behind XRT's emulation shim */

/* By name; NULL if there is none. */
const struct backend *backend_find(const char *name);
const struct backend_function *backend_function(const struct backend *b, const char *name);

#endif
