/* SPDX-License-Identifier: MIT
 *
 * peek.c - look at a message without consuming it
 *
 * A message is consumed only when what it asks for is done, so that a successor finds it still there (keep.h). Looking
 * duplicates the descriptors that came with it; the originals go when it is consumed.
 */
#include <errno.h>
#include <sys/socket.h>

#include "../common/fd.h"
#include "share.h"

long
peek(int sock, void *buf, size_t len, int *fds, int max, int *nfds)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * VHOST_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (max) {
		mh.msg_control = control.buf;
		mh.msg_controllen = sizeof(control.buf);
	}
	do
		n = recvmsg(sock, &mh, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (max)
		*nfds = fd_take(&mh, fds, max);
	return (long)n;
}
