/* SPDX-License-Identifier: MIT
 *
 * sys.h - a kernel of cardboard for the engine, the share and the net process
 *
 * Sources that are compiled with this file in front of them see descriptors, memory files, sockets and clocks that
 * sys.c makes up. So an execution costs no system call, the same input always does the same, time passes when the input
 * says so, a process can "die" anywhere (its descriptors and mappings are gone, what others hold stays), and a
 * descriptor that nobody closed is noticed.
 */
#ifndef FUZZ_SYS_H
#define FUZZ_SYS_H

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SYS_FD_FIRST 1000
#define SYS_FDS 4096
#define SYS_FDS_EACH 8 /* in a message */

enum sys_kind { SYS_MEMORY = 1, SYS_EVENT, SYS_SOCKET };

struct loop_src;

struct sys_msg {
	struct sys_msg *next;
	size_t len;
	int nfiles;
	struct sys_file *file[SYS_FDS_EACH];
	uint8_t bytes[];
};

/* What a descriptor stands for. */
struct sys_file {
	enum sys_kind kind;
	unsigned refs;
	uint8_t *data; /* memory */
	uint64_t size;
	uint64_t ino;
	uint64_t count;		     /* eventfd */
	struct sys_msg *head, *tail; /* socket: what comes in */
	int eof, full;
	int unread;	      /* what was sent, and the other side hasn't taken */
	int stream;	      /* bytes, not messages */
	int waits;	      /* to close its last descriptor takes for ever: no process may do that that others need */
	unsigned outside;     /* references that are no process's: the target's own */
	void *owner;	      /* the target's */
	struct loop_src *src; /* waited for in the event loop */
};

/* For the targets. A reference is the caller's. */
void sys_start(void);	 /* nothing is open; the time is 1000 s */
void sys_end(void);	 /* nothing must be left */
void sys_died(void);	 /* the process died: its descriptors and mappings are gone */
unsigned sys_fds(void);	 /* how many descriptors the process has open */
unsigned sys_maps(void); /* how many mappings */
extern uint64_t sys_ms;	 /* CLOCK_MONOTONIC */
struct sys_file *sys_file_new(enum sys_kind kind, uint64_t size);
struct sys_file *sys_file_get(struct sys_file *f); /* one more reference */
void sys_file_put(struct sys_file *f);
int sys_fd(struct sys_file *f);	      /* a descriptor for it, in the process; takes a reference of its own */
struct sys_file *sys_file_of(int fd); /* NULL: not open */
void sys_push(struct sys_file *f, const void *msg, size_t len, struct sys_file *const *files, int n);
void sys_pop(struct sys_file *f);
void sys_hand_over(int fd); /* another process closes it, one that may wait */

/* The targets': the process sends. 0 or -errno. */
int sys_sent(struct sys_file *f, const void *msg, size_t len, struct sys_file **files, int n);

/* The targets': the process writes to a stream. Bytes taken, or -1 with errno. */
ssize_t sys_written(struct sys_file *f, const struct iovec *iov, size_t n);

/* What the sources get instead. */
int sys_close(int fd);
ssize_t sys_recvmsg(int fd, struct msghdr *mh, int flags); /* without room for descriptors */
ssize_t sys_recv(int fd, void *buf, size_t len, int flags);
ssize_t sys_read(int fd, void *buf, size_t len);
ssize_t sys_write(int fd, const void *buf, size_t len);
ssize_t sys_preadv(int fd, const struct iovec *iov, int n, off_t off);
ssize_t sys_pwritev(int fd, const struct iovec *iov, int n, off_t off);
void *sys_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
int sys_munmap(void *p, size_t len);
int sys_fstat(int fd, struct stat *st);
int sys_unread(int fd, int *n);
int sys_clock(clockid_t id, struct timespec *ts);
int sys_accept(int fd);
int sys_poll(struct pollfd *p);
int sys_peer(int fd, void *cred, socklen_t *len);
ssize_t sys_sendmsg(int fd, const struct msghdr *mh);
ssize_t sys_random(void *buf, size_t len, unsigned flags);
void sys_exit(int status) __attribute__((noreturn));

#ifdef FUZZ_SEALED
#define close(fd) sys_close(fd)
#define recv(fd, buf, len, flags) sys_recv(fd, buf, len, flags)
#define recvmsg(fd, mh, flags) sys_recvmsg(fd, mh, flags)
#define sendmsg(fd, mh, flags) sys_sendmsg(fd, mh)
#define getpeername(fd, sa, len) ((void)(fd), (void)(sa), (void)(len), -1)
#define read(fd, buf, len) sys_read(fd, buf, len)
#define write(fd, buf, len) sys_write(fd, buf, len)
#define preadv(fd, iov, n, off) sys_preadv(fd, iov, n, off)
#define pwritev(fd, iov, n, off) sys_pwritev(fd, iov, n, off)
#define mmap(addr, len, prot, flags, fd, off) sys_mmap(addr, len, prot, flags, fd, off)
#define munmap(p, len) sys_munmap(p, len)
#define fstat(fd, st) sys_fstat(fd, st)
#define ioctl(fd, what, n) sys_unread(fd, n)
#define clock_gettime(id, ts) sys_clock(id, ts)
#define poll(p, n, ms) sys_poll(p)
#define accept4(fd, addr, len, flags) sys_accept(fd)
#define getsockopt(fd, level, name, value, len) sys_peer(fd, value, len)
#define getrandom(buf, len, flags) sys_random(buf, len, flags)
#define time(p) ((time_t)(sys_ms / 1000))
#define syscall(...) 0L
#define _exit(status) sys_exit(status)
void rig_order(void);
#define state_order() rig_order()
#endif

#endif
