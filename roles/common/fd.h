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
#define FD_RIGHTS_MAX 253			    /* that anybody may send in one: the kernel's SCM_MAX_FD */
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
 * block). At most max descriptors are stored in fds (close-on-exec, owned by the caller), *nfds tells how many. fds may
 * be NULL with max 0.
 *
 * A message that carries more, or that is longer than len, stays in the queue (-EBADMSG, -EMSGSIZE): to drop it is to
 * close what it carries, which may take for ever (closer.c). With such a peer nothing is left but to end the
 * connection, and to have the socket closed where it holds up nobody. */
long fd_recv(int sock, void *msg, size_t len, int *fds, int max, int *nfds);

/* Take a message off the queue of which the caller has all that it wants, duplicates of its descriptors included. */
void fd_skip(int sock);

#define FD_HUGE_MIN (2u << 20) /* bytes; smaller memfds have no use for huge pages */

/* A memfd of exactly `size` bytes, its memory allocated now, sealed so that nobody can shrink or grow it. huge: what
 * got huge pages is added to it, in bytes; NULL: small ones will do. Returns the descriptor or -errno (-ENOMEM,
 * -ENOSPC: no memory). */
int fd_memfd(const char *name, uint64_t size, uint64_t *huge);

/* Refuse descriptors: who sends some to this Unix socket, or to those that it accepts, gets EPERM. 0, or -errno:
 * Linux before 6.16 can't, so that they have to be kept from doing harm (fd_recv()). */
int fd_no_rights(int sock);

/* Close every descriptor above 2 that isn't in keep[0..n). */
void fd_close_others(const int *keep, int n);

/* accept4(), close-on-exec and not blocking. *spare is a descriptor held in reserve (-1 at first): with none left for a
 * connection it is given up for a moment to turn the connection away by away(), which takes the descriptor; otherwise
 * it would be announced for ever. -errno. */
int fd_accept(int listener, int *spare, void (*away)(int fd));

/* Write everything, or -errno. */
int fd_write_all(int fd, const void *buf, size_t len);

#endif
