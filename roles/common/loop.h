/* SPDX-License-Identifier: MIT
 *
 * loop.h - an event loop: descriptors and what to call when they are ready
 *
 * One event is taken from epoll at a time, so a callback may remove and free any source, its own included.
 */
#ifndef COMMON_LOOP_H
#define COMMON_LOOP_H

#include <stdint.h>
#include <sys/epoll.h>

struct loop {
	int epfd;
	int stop; /* set it to leave loop_run() */
};

/* Embedded in the object it belongs to. `events` as given to callbacks: EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR. */
struct loop_src {
	int fd;
	void (*fn)(struct loop_src *src, uint32_t events);
};

#define loop_container(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

int loop_init(struct loop *l); /* 0 or -errno */
int loop_add(struct loop *l, struct loop_src *src, uint32_t events);
int loop_mod(struct loop *l, struct loop_src *src, uint32_t events);
void loop_del(struct loop *l, struct loop_src *src);

/* Wait for one event, at most timeout_ms (-1: for ever), and call its function. 1 handled, 0 time-out, or -errno. */
int loop_once(struct loop *l, int timeout_ms);

#endif
