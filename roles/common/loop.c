/* SPDX-License-Identifier: MIT
 *
 * loop.c - an event loop over epoll
 */
#include <errno.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"

#define LOG_MS 1000 /* from one try to say how many lines of log are lost to the next */

int
loop_init(struct loop *l)
{
	l->stop = 0;
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	return l->epfd < 0 ? -errno : 0;
}

int
loop_add(struct loop *l, struct loop_src *src, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = src };

	return epoll_ctl(l->epfd, EPOLL_CTL_ADD, src->fd, &ev) < 0 ? -errno : 0;
}

int
loop_mod(struct loop *l, struct loop_src *src, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = src };

	return epoll_ctl(l->epfd, EPOLL_CTL_MOD, src->fd, &ev) < 0 ? -errno : 0;
}

void
loop_del(struct loop *l, struct loop_src *src)
{
	/* A source that isn't there is what the caller wants. */
	(void)epoll_ctl(l->epfd, EPOLL_CTL_DEL, src->fd, NULL);
}

int
loop_once(struct loop *l, int timeout_ms)
{
	struct epoll_event ev;
	struct loop_src *src;
	int n;

	if (log_behind() && (timeout_ms < 0 || timeout_ms > LOG_MS))
		timeout_ms = LOG_MS;
	n = epoll_wait(l->epfd, &ev, 1, timeout_ms);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	if (n == 0)
		return 0;
	src = ev.data.ptr;
	src->fn(src, ev.events);
	return 1;
}
