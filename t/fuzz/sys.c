/* SPDX-License-Identifier: MIT
 *
 * sys.c - a kernel of cardboard: see sys.h. It also stands in for roles/common/fd.c and roles/common/loop.c.
 */
#include "sys.h"

#include "../../roles/common/fd.h"
#include "../../roles/common/loop.h"
#include "fuzz.h"

#define MAPS 1024

uint64_t sys_ms;

static struct sys_file *fd_table[SYS_FDS];
static int fd_top;
static unsigned fds_open;
static unsigned files;
static uint64_t next_ino;
static struct {
	void *p;
	size_t len;
	struct sys_file *file;
} map[MAPS];
static unsigned maps;

/* ---- for the targets ---- */

void
sys_start(void)
{
	CHECK(!fds_open && !maps && !files, "the last execution left something");
	sys_ms = 1000000;
	next_ino = 100;
	fd_top = 0;
}

UNSEEN void
sys_died(void)
{
	for (int i = 0; i < fd_top; i++)
		if (fd_table[i])
			sys_hand_over(SYS_FD_FIRST + i);
	fd_top = 0;
	while (maps)
		sys_munmap(map[0].p, map[0].len);
}

void
sys_end(void)
{
	sys_died();
	CHECK(!files, "%u files are still referred to", files);
}

unsigned
sys_fds(void)
{
	return fds_open;
}

unsigned
sys_maps(void)
{
	return maps;
}

struct sys_file *
sys_file_new(enum sys_kind kind, uint64_t size)
{
	struct sys_file *f = calloc(1, sizeof(*f));

	CHECK(f, "memory");
	f->kind = kind;
	f->refs = 1;
	f->size = size;
	f->ino = next_ino++;
	if (size) {
		f->data = aligned_alloc(4096, size);
		CHECK(f->data, "memory");
		memset(f->data, 0, size);
	}
	files++;
	return f;
}

struct sys_file *
sys_file_get(struct sys_file *f)
{
	f->refs++;
	return f;
}

void
sys_file_put(struct sys_file *f)
{
	if (--f->refs)
		return;
	while (f->head)
		sys_pop(f);
	free(f->data);
	free(f);
	files--;
}

UNSEEN int
sys_fd(struct sys_file *f)
{
	int i = 0;

	while (i < fd_top && fd_table[i])
		i++;
	CHECK(i < SYS_FDS, "too many descriptors");
	if (i == fd_top)
		fd_top++;
	fd_table[i] = sys_file_get(f);
	fds_open++;
	return SYS_FD_FIRST + i;
}

struct sys_file *
sys_file_of(int fd)
{
	return fd < SYS_FD_FIRST || fd >= SYS_FD_FIRST + fd_top ? NULL : fd_table[fd - SYS_FD_FIRST];
}

void
sys_push(struct sys_file *f, const void *msg, size_t len, struct sys_file *const *attached, int n)
{
	struct sys_msg *m = malloc(sizeof(*m) + len);

	CHECK(m && n <= SYS_FDS_EACH, "memory");
	m->next = NULL;
	m->len = len;
	m->nfiles = n;
	for (int i = 0; i < n; i++)
		m->file[i] = sys_file_get(attached[i]);
	memcpy(m->bytes, msg, len);
	if (f->head)
		f->tail->next = m;
	else
		f->head = m;
	f->tail = m;
}

void
sys_pop(struct sys_file *f)
{
	struct sys_msg *m = f->head;

	f->head = m->next;
	for (int i = 0; i < m->nfiles; i++)
		sys_file_put(m->file[i]);
	free(m);
}

/* ---- the kernel ---- */

/* The process takes a message off a queue. */
static void
drop(struct sys_file *f)
{
	for (int i = 0; i < f->head->nfiles; i++)
		CHECK(!f->head->file[i]->waits, "the process waits for ever, for what a message carried");
	sys_pop(f);
}

/* The process closes the last descriptor. */
static void
check_close(const struct sys_file *f)
{
	CHECK(!f->waits, "the process waits for ever in close()");
	for (const struct sys_msg *m = f->head; m; m = m->next)
		for (int i = 0; i < m->nfiles; i++)
			CHECK(!m->file[i]->waits, "the process waits for ever, for what lies in a socket's queue");
}

int
sys_close(int fd)
{
	struct sys_file *f = sys_file_of(fd);

	CHECK(f, "close(%d), which isn't open", fd);
	if (f->refs - f->outside == 1)
		check_close(f);
	sys_hand_over(fd);
	return 0;
}

void
sys_hand_over(int fd)
{
	struct sys_file *f = sys_file_of(fd);

	CHECK(f, "descriptor %d is handed over, and isn't open", fd);
	if (f->src && f->src->fd == fd)
		f->src = NULL;
	fd_table[fd - SYS_FD_FIRST] = NULL;
	fds_open--;
	sys_file_put(f);
}

ssize_t
sys_recvmsg(int fd, struct msghdr *mh, int flags)
{
	const struct sys_file *f = sys_file_of(fd);

	CHECK(f && mh->msg_iovlen == 1 && !mh->msg_controllen && flags & MSG_PEEK, "recvmsg(%d)", fd);
	mh->msg_flags = f->head && f->head->nfiles ? MSG_CTRUNC : 0;
	return sys_recv(fd, mh->msg_iov->iov_base, mh->msg_iov->iov_len, flags);
}

ssize_t
sys_recv(int fd, void *buf, size_t len, int flags)
{
	struct sys_file *f = sys_file_of(fd);
	size_t n;

	CHECK(f && f->kind == SYS_SOCKET, "recv(%d)", fd);
	if (!f->head) {
		errno = EAGAIN;
		return f->eof ? 0 : -1;
	}
	n = f->head->len;
	memcpy(buf, f->head->bytes, n < len ? n : len);
	if (f->stream && n > len) {
		memmove(f->head->bytes, f->head->bytes + len, n - len);
		f->head->len -= len;
		return (ssize_t)len;
	}
	if (!(flags & MSG_PEEK))
		drop(f);
	return flags & MSG_TRUNC ? (ssize_t)n : (ssize_t)(n < len ? n : len);
}

/* One descriptor, has its peer gone? */
int
sys_poll(struct pollfd *p)
{
	struct sys_file *f = sys_file_of(p->fd);

	CHECK(f && f->kind == SYS_SOCKET, "poll(%d)", p->fd);
	p->revents = f->eof ? POLLHUP : 0;
	return p->revents != 0;
}

/* Where there are no streams. */
__attribute__((weak)) ssize_t
sys_written(struct sys_file *f, const struct iovec *iov, size_t n)
{
	(void)f;
	(void)iov;
	(void)n;
	abort();
}

ssize_t
sys_sendmsg(int fd, const struct msghdr *mh)
{
	struct sys_file *f = sys_file_of(fd);

	CHECK(f && f->kind == SYS_SOCKET && f->stream, "sendmsg(%d)", fd);
	if (f->eof || f->full) {
		errno = f->eof ? EPIPE : EAGAIN;
		return -1;
	}
	return sys_written(f, mh->msg_iov, mh->msg_iovlen);
}

ssize_t
sys_read(int fd, void *buf, size_t len)
{
	struct sys_file *f = sys_file_of(fd);

	CHECK(f, "read(%d)", fd);
	if (f->kind != SYS_EVENT || len < 8) {
		errno = EINVAL;
		return -1;
	}
	if (!f->count) {
		errno = EAGAIN;
		return -1;
	}
	memcpy(buf, &f->count, 8);
	f->count = 0;
	return 8;
}

ssize_t
sys_write(int fd, const void *buf, size_t len)
{
	struct sys_file *f = sys_file_of(fd);
	uint64_t add;

	CHECK(f, "write(%d)", fd);
	if (f->kind != SYS_EVENT || len != 8) {
		errno = EINVAL;
		return -1;
	}
	memcpy(&add, buf, 8);
	f->count += add;
	return 8;
}

static ssize_t
transfer(int fd, const struct iovec *iov, int n, off_t off, int write)
{
	struct sys_file *f = sys_file_of(fd);
	uint64_t at = (uint64_t)off;
	ssize_t done = 0;

	CHECK(f && n >= 0 && n <= 1024 && off >= 0, "preadv or pwritev");
	if (f->kind != SYS_MEMORY) {
		errno = EINVAL;
		return -1;
	}
	for (int i = 0; i < n && at < f->size; i++) {
		size_t len = iov[i].iov_len < f->size - at ? iov[i].iov_len : (size_t)(f->size - at);

		/* Guest memory may be this very file. */
		memmove(write ? (void *)(f->data + at) : iov[i].iov_base, write ? iov[i].iov_base : f->data + at, len);
		at += len;
		done += (ssize_t)len;
	}
	return done;
}

ssize_t
sys_preadv(int fd, const struct iovec *iov, int n, off_t off)
{
	return transfer(fd, iov, n, off, 0);
}

ssize_t
sys_pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
	return transfer(fd, iov, n, off, 1);
}

/* A mapping is the file's memory itself: a step past its end is one past an allocation. */
void *
sys_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	struct sys_file *f = sys_file_of(fd);

	(void)addr;
	(void)prot;
	(void)flags;
	CHECK(f, "mmap(%d)", fd);
	if (f->kind != SYS_MEMORY || !len || maps == MAPS || (uint64_t)off > f->size || len > f->size - (uint64_t)off) {
		errno = ENODEV;
		return MAP_FAILED;
	}
	map[maps].p = f->data + off;
	map[maps].len = len;
	map[maps++].file = sys_file_get(f);
	return f->data + off;
}

int
sys_munmap(void *p, size_t len)
{
	unsigned i = 0;

	while (i < maps && (map[i].p != p || map[i].len != len))
		i++;
	CHECK(i < maps, "munmap() of what isn't mapped");
	sys_file_put(map[i].file);
	map[i] = map[--maps];
	return 0;
}

int
sys_fstat(int fd, struct stat *st)
{
	struct sys_file *f = sys_file_of(fd);

	CHECK(f, "fstat(%d)", fd);
	memset(st, 0, sizeof(*st));
	st->st_mode = f->kind == SYS_MEMORY ? S_IFREG | 0600 : 0600;
	st->st_size = (off_t)f->size;
	st->st_ino = f->ino;
	return 0;
}

int
sys_unread(int fd, int *n)
{
	struct sys_file *f = sys_file_of(fd);

	CHECK(f && f->kind == SYS_SOCKET, "ioctl(%d)", fd);
	*n = f->unread;
	return 0;
}

int
sys_clock(clockid_t id, struct timespec *ts)
{
	(void)id;
	ts->tv_sec = (time_t)(sys_ms / 1000);
	ts->tv_nsec = (long)(sys_ms % 1000) * 1000000;
	return 0;
}

ssize_t
sys_random(void *buf, size_t len, unsigned flags)
{
	static uint8_t n;

	(void)flags;
	memset(buf, ++n, len);
	return (ssize_t)len;
}

/* ---- roles/common/fd.c ---- */

int
fd_send(int sock, const void *msg, size_t len, const int *fds, int nfds)
{
	struct sys_file *f = sys_file_of(sock);
	struct sys_file *attached[SYS_FDS_EACH];

	CHECK(f && f->kind == SYS_SOCKET && nfds <= SYS_FDS_EACH, "fd_send(%d)", sock);
	if (f->eof)
		return -EPIPE;
	if (f->full)
		return -EAGAIN;
	for (int i = 0; i < nfds; i++) {
		attached[i] = sys_file_of(fds[i]);
		CHECK(attached[i], "descriptor %d is sent, but isn't open", fds[i]);
	}
	return sys_sent(f, msg, len, attached, nfds);
}

long
fd_recv(int sock, void *msg, size_t len, int *fds, int max, int *nfds)
{
	struct sys_file *f = sys_file_of(sock);
	long n;

	CHECK(f && f->kind == SYS_SOCKET, "fd_recv(%d)", sock);
	if (nfds)
		*nfds = 0;
	if (!f->head)
		return f->eof ? 0 : -EAGAIN;
	n = (long)f->head->len;
	if ((size_t)n > len || f->head->nfiles > max)
		return (size_t)n > len ? -EMSGSIZE : -EBADMSG;
	memcpy(msg, f->head->bytes, (size_t)n);
	for (int i = 0; i < f->head->nfiles && i < max; i++) {
		fds[i] = sys_fd(f->head->file[i]);
		*nfds = i + 1;
	}
	sys_pop(f);
	return n;
}

/* Where nobody connects. */
__attribute__((weak)) int
sys_accept(int fd)
{
	(void)fd;
	abort();
}

int
fd_accept(int listener, int *spare, void (*away)(int fd))
{
	int fd = sys_accept(listener);

	(void)spare;
	(void)away;
	return fd < 0 ? -errno : fd;
}

void
fd_skip(int sock)
{
	struct sys_file *f = sys_file_of(sock);

	CHECK(f && f->kind == SYS_SOCKET && f->head, "fd_skip(%d)", sock);
	drop(f);
}

int
fd_no_rights(int sock)
{
	(void)sock;
	abort();
}

int
fd_memfd(const char *name, uint64_t size, uint64_t *huge)
{
	(void)name;
	(void)size;
	(void)huge;
	abort();
}

void
fd_close_others(const int *keep, int n)
{
	(void)keep;
	(void)n;
	abort();
}

int
fd_write_all(int fd, const void *buf, size_t len)
{
	(void)fd;
	(void)buf;
	(void)len;
	return 0;
}

/* ---- roles/common/loop.c ---- */

int
loop_init(struct loop *l)
{
	l->epfd = 0;
	l->stop = 0;
	return 0;
}

int
loop_add(struct loop *l, struct loop_src *src, uint32_t events)
{
	struct sys_file *f = sys_file_of(src->fd);

	(void)l;
	(void)events;
	CHECK(f, "descriptor %d is waited for, but isn't open", src->fd);
	if (f->kind == SYS_MEMORY)
		return -EPERM;
	if (f->src && f->src->fd == src->fd)
		return -EEXIST;
	f->src = src;
	return 0;
}

int
loop_mod(struct loop *l, struct loop_src *src, uint32_t events)
{
	const struct sys_file *f = sys_file_of(src->fd);

	(void)l;
	(void)events;
	return f && f->src == src ? 0 : -ENOENT;
}

void
loop_del(struct loop *l, struct loop_src *src)
{
	struct sys_file *f = sys_file_of(src->fd);

	(void)l;
	if (f && f->src && f->src->fd == src->fd)
		f->src = NULL;
}

int
loop_once(struct loop *l, int timeout_ms)
{
	(void)l;
	(void)timeout_ms;
	abort();
}
