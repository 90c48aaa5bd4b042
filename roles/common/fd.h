/* SPDX-License-Identifier: MIT
 *
 * fd.h - descriptors: messages with descriptors, memfds, closing what isn't wanted
 */
#ifndef COMMON_FD_H
#define COMMON_FD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define FD_SEND_MAX 8				    /* descriptors in one message */
#define FD_SEND_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL) /* sendmsg()'s, always */

/* Send one datagram with nfds (0..FD_SEND_MAX) descriptors, which stay the caller's. Never blocks, never raises
 * SIGPIPE. Returns 0 or -errno (-EAGAIN: the queue is full). */
int fd_send(int sock, const void *msg, size_t len, const int *fds, int nfds);

/* The same with other credentials than this process's, for a receiver that asks for them (SO_PASSCRED): NULL: its own.
 */
int fd_send_as(int sock, const void *msg, size_t len, const int *fds, int nfds, const struct ucred *as);

/* Take the descriptors out of a message that recvmsg() gave: at most max are stored in fds, the rest is closed. How
 * many were stored. */
int fd_take(struct msghdr *mh, int *fds, int max);

/* Receive one datagram. Returns its length, 0 at the end of the stream, or -errno (-EAGAIN where the socket doesn't
 * block; -EMSGSIZE: longer than len, it is dropped). At most max descriptors are stored in fds (close-on-exec, owned by
 * the caller), *nfds tells how many; superfluous ones don't get here. fds may be NULL with max 0. */
long fd_recv(int sock, void *msg, size_t len, int *fds, int max, int *nfds);

#define FD_HUGE_MIN (2u << 20) /* bytes; smaller memfds have no use for huge pages */

/* A memfd of exactly `size` bytes, its memory allocated now, sealed so that nobody can shrink or grow it. huge: what
 * got huge pages is added to it, in bytes; NULL: small ones will do. Returns the descriptor or -errno (-ENOMEM,
 * -ENOSPC: no memory). */
int fd_memfd(const char *name, uint64_t size, uint64_t *huge);

/* Is this descriptor, which may come from anybody, one whose close() waits for nobody: a Unix socket, a memory file
 * (memfd, tmpfs, hugetlbfs), an eventfd? Asks nobody but the kernel: fstat() of a file that a hostile process serves
 * would wait as well. */
int fd_harmless(int fd);

/* Close every descriptor above 2 that isn't in keep[0..n). */
void fd_close_others(const int *keep, int n);

/* accept4(), close-on-exec and not blocking. *spare is a descriptor held in reserve (-1 at first): with none left for a
 * connection it is given up for a moment to turn the connection away, which otherwise would be announced for ever.
 * -errno. */
int fd_accept(int listener, int *spare);

/* Write everything, or -errno. */
int fd_write_all(int fd, const void *buf, size_t len);

#endif
