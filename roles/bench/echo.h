/* SPDX-License-Identifier: MIT
 *
 * echo.h - what a call is compared with, other than memory: a process at the other end of a socket, or asleep in a
 * futex
 */
#ifndef BENCH_ECHO_H
#define BENCH_ECHO_H

#include <stdint.h>
#include <sys/types.h>

#define ECHO_BYTES 64

/* A child that sends back what it gets, in messages of ECHO_BYTES. */
struct echo {
	pid_t pid;
	int fd;		/* -1: a futex */
	uint32_t *word; /* the futex's two lines: ours, and 64 bytes later its answer */
};

int echo_unix(struct echo *e);
int echo_tcp(struct echo *e);			      /* over this machine's loopback */
int echo_connect(struct echo *e, const char *server); /* ADDRESS:PORT of an echo_serve() */
int echo_futex(struct echo *e);
void echo_end(struct echo *e);

/* A child that listens on a TCP port of this machine's loopback, for a guest, and answers one connection. */
int echo_serve(struct echo *e, unsigned *port);

/* One round trip. 0 or -errno. With the futex, the other side is asleep and is woken; whoever asks spins. */
int echo_trip(struct echo *e, uint64_t value);

#endif
