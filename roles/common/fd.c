/* SPDX-License-Identifier: MIT
 *
 * fd.c - descriptors: messages with descriptors, memfds, closing what isn't wanted
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fd.h"
#include "numbers.h"

/* Linux 6.16 */
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

/* The next control message of `mh`, with a copy of `data`. */
static void
attach(struct msghdr *mh, int type, const void *data, size_t len)
{
	struct cmsghdr *c = (struct cmsghdr *)(void *)((char *)mh->msg_control + mh->msg_controllen);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(c), data, len);
	mh->msg_controllen += CMSG_SPACE(len);
}

int
fd_send_as(int sock, const void *msg, size_t len, const int *fds, int nfds, const struct ucred *as)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * FD_SEND_MAX) + CMSG_SPACE(sizeof(*as))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = (void *)(uintptr_t)msg, .iov_len = len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf };
	ssize_t n;

	if (nfds > FD_SEND_MAX)
		return -EINVAL;
	memset(&control, 0, sizeof(control));
	if (nfds > 0)
		attach(&mh, SCM_RIGHTS, fds, sizeof(int) * (size_t)nfds);
	if (as)
		attach(&mh, SCM_CREDENTIALS, as, sizeof(*as));
	do
		n = sendmsg(sock, &mh, FD_SEND_FLAGS);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EIO;
}

int
fd_send(int sock, const void *msg, size_t len, const int *fds, int nfds)
{
	return fd_send_as(sock, msg, len, fds, nfds, NULL);
}

int
fd_take(struct msghdr *mh, int *fds, int max)
{
	int got = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (got < max)
				fds[got++] = fd;
			else
				close(fd);
		}
	}
	return got;
}

int
fd_no_rights(int sock)
{
	const int off = 0;

	return setsockopt(sock, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off)) < 0 ? -errno : 0;
}

/* recvmsg() with these flags, however often a signal interrupts it. */
static ssize_t
receive(int sock, struct msghdr *mh, int flags)
{
	ssize_t n;

	do
		n = recvmsg(sock, mh, flags | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

void
fd_skip(int sock)
{
	struct msghdr nothing = { .msg_iov = NULL };

	(void)receive(sock, &nothing, 0);
}

long
fd_recv(int sock, void *msg, size_t len, int *fds, int max, int *nfds)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * FD_SEND_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = msg, .iov_len = len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	int got;
	ssize_t n;

	if (nfds)
		*nfds = 0;
	if (max > 0) {
		mh.msg_control = control.buf;
		mh.msg_controllen = CMSG_LEN(sizeof(int) * (size_t)(max < FD_SEND_MAX ? max : FD_SEND_MAX));
	}
	/* What is looked at stays in the queue: descriptors that we get are duplicates. */
	n = receive(sock, &mh, MSG_PEEK);
	if (n < 0)
		return (long)n;
	got = fd_take(&mh, fds, max);
	if (mh.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) {
		for (int i = 0; i < got; i++)
			close(fds[i]);
		return mh.msg_flags & MSG_CTRUNC ? -EBADMSG : -EMSGSIZE;
	}
	/* The originals go with the message; nothing is closed by that. */
	fd_skip(sock);
	if (nfds)
		*nfds = got;
	return (long)n;
}

/* Does the kernel give huge pages to a memfd that asks for them? */
static int
huge_offered(void)
{
	char text[128] = "";
	int fd = open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	return strchr(text, '[') && !strstr(text, "[never]") && !strstr(text, "[deny]");
}

/* Of the mapping that begins at p, the bytes that are mapped by huge pages. */
static uint64_t
huge_mapped(const void *p)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	uint64_t kb = 0;
	char start[32];
	char line[256];
	int here = 0;

	snprintf(start, sizeof(start), "%lx-", (unsigned long)(uintptr_t)p);
	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, start, strlen(start)))
			here = 1;
		else if (here && !strncmp(line, "ShmemPmdMapped:", 15) && numbers(line, &kb, 1))
			break;
	}
	if (f)
		fclose(f);
	return kb * 1024;
}

/* Allocate the memory of a memfd in huge pages, as far as there are any: bytes. What isn't allocated here, fallocate()
 * does in small ones. */
static uint64_t
fill_huge(int fd, uint64_t size)
{
	uint64_t huge = 0;
	void *p;

	if (size < FD_HUGE_MIN || !huge_offered())
		return 0;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return 0;
	if (madvise(p, size, MADV_HUGEPAGE) == 0 && madvise(p, size, MADV_POPULATE_WRITE) == 0)
		huge = huge_mapped(p);
	munmap(p, size);
	return huge;
}

int
fd_memfd(const char *name, uint64_t size, uint64_t *huge)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int err;

	if (fd < 0)
		return -errno;
	err = ftruncate(fd, (off_t)size) < 0 ? errno : 0;
	if (!err && huge)
		*huge += fill_huge(fd, size);
	if (err || fallocate(fd, 0, 0, (off_t)size) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		err = err ? err : errno;
		close(fd);
		return -err;
	}
	return fd;
}

void
fd_close_others(const int *keep, int n)
{
	unsigned from = 3;

	/* close_range() between the kept ones, in ascending order: no list of open files is needed, hence no /proc. */
	for (;;) {
		unsigned next = ~0u;

		for (int i = 0; i < n; i++)
			if (keep[i] >= 0 && (unsigned)keep[i] >= from && (unsigned)keep[i] < next)
				next = (unsigned)keep[i];
		if (next > from)
			syscall(SYS_close_range, from, next == ~0u ? ~0u : next - 1, 0u);
		if (next == ~0u)
			return;
		from = next + 1;
	}
}

int
fd_accept(int listener, int *spare, void (*away)(int fd))
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int err = errno;

	if (fd < 0 && (err == EMFILE || err == ENFILE) && *spare >= 0) {
		close(*spare);
		*spare = -1;
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			away(fd);
		fd = -1;
	}
	if (*spare < 0)
		*spare = dup(listener);
	return fd < 0 ? -err : fd;
}

int
fd_write_all(int fd, const void *buf, size_t len)
{
	const char *p = buf;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}
