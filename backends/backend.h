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
 * A service with several workers makes a state for each of them.
 *
 * Inputs lie in memory that a guest may change at any moment: run() reads each byte of `in` at most once into what it
 * decides upon, and never reads `out` back.
 */
#ifndef BACKEND_H
#define BACKEND_H

#include <stddef.h>
#include <stdint.h>

#include "../proto/vfun.h"

/* One call. `arg` is a private copy; `in` lies in the guest's memory. */
struct backend_call {
	const uint64_t *arg;
	unsigned nargs;
	const volatile uint8_t *in; /* in_len bytes */
	uint64_t in_len;
	volatile uint8_t *out; /* out_len bytes of room, guest-readable; use backend_put() where one can */
	uint64_t out_len;
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
	const char *summary; /* one line, 63 characters at most: arguments, and what it does */
	uint8_t arg_kind;    /* enum vfun_kind */
	uint8_t res_kind;
	uint8_t args_min; /* inline arguments */
	uint8_t args_max;
	uint8_t bulk;	 /* 1: needs bulk data */
	uint8_t threads; /* 1: run() may be in several threads at once, each with a state of its own */
	/* 0; -EINVAL: arguments; -ENOSPC: no room for the result (backend_put() said so); anything else: failed */
	int (*run)(void *state, const struct backend_call *call, struct backend_result *res);
};

/* Append to the result: 0, or -ENOSPC. */
int backend_put(struct backend_result *res, const void *data, uint64_t len);

/* A system call that run() needs, and why. */
struct backend_syscall {
	int nr;
	const char *name;
	const char *why;
};

struct backend {
	const char *name;
	const struct backend_function *functions; /* ended by one without a name */
	const struct backend_syscall *serving;	  /* ended by one without `why`; see also roles/service.c */
	/* result_max: bytes of the largest result room that calls can have. 0 or -errno. */
	int (*init)(const struct backend_function *fn, uint64_t result_max, void **state);
	void (*reset)(void *state);
	void (*exit)(void *state);
};

extern const struct backend backend_software;

/* By name; NULL if there is none. */
const struct backend *backend_find(const char *name);
const struct backend_function *backend_function(const struct backend *b, const char *name);

#endif
