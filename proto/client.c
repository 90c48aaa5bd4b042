/* SPDX-License-Identifier: MIT
 *
 * client.c - the client: the four phases, the same in a guest and on the host
 *
 * What <run>/control is decides: a socket means that vfund is on this machine and passes the regions as descriptors;
 * any other file means that this is a guest, the run folder is the mount of its share, and the regions are files in it.
 *
 * In a guest a mapping of those files may be the host's memory (DAX) or nothing but the guest's own page cache, in
 * which a call would wait for ever. Neither mount options nor mmap() tell, so the mapping has to prove itself: an ECHO
 * with a random payload goes through it, and if the answer doesn't come in time the same files are used by pread() and
 * pwrite() instead. Where there is no DAX, the VM may have an ivshmem device, whose memory proves itself in the
 * same way (ivshmem.c).
 *
 * Where a server is named, all of this goes over TCP (net.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "client.h"
#include "net.h"

#define TIMEOUT_MS 10000u
#define ECHO_MS 1000u
#define SPIN_US 50u
#define SPIN_US_MAX 1000000u
#define TRIES 3

int
client_fail(struct vfun *v, int err, enum vfun_reason reason, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(v->text, sizeof(v->text), fmt, ap);
	va_end(ap);
	v->reason = reason;
	return err;
}

/* This process's trouble, or this machine's, and nobody else's? */
static int
is_shortage(int err)
{
	return err == -EMFILE || err == -ENFILE || err == -ENOMEM;
}

static void
close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Control */

/* The run folders to try, best first: $VFUN_RUN_DIR alone if it is set. */
static const char *
run_candidate(unsigned i, char buf[CLIENT_PATH_MAX])
{
	const char *dir = getenv("VFUN_RUN_DIR");

	if (dir && *dir)
		return i == 0 ? dir : NULL;
	dir = getenv("XDG_RUNTIME_DIR");
	if (!dir || !*dir || geteuid() == 0)
		return i == 0 ? "/run/vfun" : NULL;
	if (i == 0) {
		snprintf(buf, CLIENT_PATH_MAX, "%s/vfun", dir);
		return buf;
	}
	return i == 1 ? "/run/vfun" : NULL;
}

static int
connect_to(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd;
	int e;

	if (strlen(path) >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
		return fd;
	e = errno == ECONNREFUSED ? ENOENT : errno;
	close(fd);
	return -e;
}

/* Open `control` in the folder; as an administrator rather his socket, if this user is one. */
static int
open_in(const char *run, int admin)
{
	char path[CLIENT_PATH_MAX + 16];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/admin/socket", run);
	if (admin && (fd = connect_to(path)) >= 0)
		return fd;
	snprintf(path, sizeof(path), "%s/control", run);
	if (stat(path, &st) < 0)
		return -errno;
	if (S_ISSOCK(st.st_mode))
		return connect_to(path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Returns the descriptor and stores the folder. */
static int
open_control(const char *run, int admin, char found[CLIENT_PATH_MAX])
{
	char buf[CLIENT_PATH_MAX];
	int fd = -ENOENT;

	if (run) {
		snprintf(found, CLIENT_PATH_MAX, "%s", run);
		return open_in(run, admin);
	}
	for (unsigned i = 0; fd < 0 && !is_shortage(fd) && (run = run_candidate(i, buf)) != NULL; i++) {
		snprintf(found, CLIENT_PATH_MAX, "%s", run);
		fd = open_in(run, admin);
	}
	return fd;
}

/* By path net, or is there something local? `fd`: what open_control() returned, 0 if it wasn't asked yet. */
static int
wants_net(const struct vfun_options *o, int fd)
{
	const char *server = getenv("VFUN_SERVER");

	if (o->path == VFUN_PATH_IS_NET)
		return 1;
	if (o->path != VFUN_PATH_AUTO || o->server)
		return o->path == VFUN_PATH_AUTO;
	return fd == -ENOENT && !o->run && server && *server;
}

/* A descriptor for control messages and nothing else. */
static int
open_net(const struct vfun_options *o)
{
	struct net n;
	int r;

	if (!net_is_there())
		return -ENODEV;
	r = net_open(&n, o->server, o->key_file, o->timeout_ms ? o->timeout_ms : TIMEOUT_MS);
	if (!r)
		return n.fd;
	net_close(&n);
	return r;
}

int
vfun_control_for(const struct vfun_options *opt)
{
	struct vfun_options o = { 0 };
	char found[CLIENT_PATH_MAX];
	int fd = 0;

	memcpy(&o, opt, opt->size < sizeof(o) ? opt->size : sizeof(o));
	if (!wants_net(&o, fd))
		fd = open_control(o.run, 0, found);
	return wants_net(&o, fd) ? open_net(&o) : fd;
}

int
vfun_control_open(const char *run, int admin)
{
	const struct vfun_options o = { .run = run };
	char found[CLIENT_PATH_MAX];
	int fd = open_control(run, admin, found);

	return wants_net(&o, fd) ? open_net(&o) : fd;
}

/* 0: not a socket. */
static int
socket_type(int fd)
{
	int type;
	socklen_t len = sizeof(type);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 ? type : 0;
}

/* One reply with at most 2 descriptors; replies to older requests are skipped. Tag 0 is for the connection as a whole:
 * vfund has no place for it. It may have closed it before the request was there: that error comes first, once. */
static int
receive_reply(int fd, struct vfun_msg *msg, uint32_t tag, uint64_t until, int fds[2])
{
	for (int resets = 0;;) {
		union {
			char buf[CMSG_SPACE(2 * sizeof(int))];
			struct cmsghdr align;
		} control;
		struct iovec iov = { .iov_base = msg, .iov_len = sizeof(*msg) };
		struct msghdr mh = { .msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control.buf,
			.msg_controllen = sizeof(control.buf) };
		struct pollfd p = { .fd = fd, .events = POLLIN };
		uint64_t now = client_ns();
		struct cmsghdr *c;
		ssize_t n;

		if (now >= until || poll(&p, 1, (int)((until - now) / 1000000u) + 1) == 0)
			return -ETIMEDOUT;
		n = recvmsg(fd, &mh, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n < 0 && errno == ECONNRESET && !resets++)
			continue;
		if (n <= 0)
			return -ECONNRESET;
		fds[0] = fds[1] = -1;
		c = CMSG_FIRSTHDR(&mh);
		if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(2 * sizeof(int)))
			memcpy(fds, CMSG_DATA(c), 2 * sizeof(int));
		else if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
			close(*(int *)(void *)CMSG_DATA(c)); /* of use only with the other one */
		if (mh.msg_flags & MSG_CTRUNC)
			return -EMFILE;
		if (n != (ssize_t)sizeof(*msg))
			return -EPROTO;
		if (msg->tag == tag || (!msg->tag && msg->reason))
			return 0;
		for (int i = 0; i < 2; i++)
			if (fds[i] >= 0)
				close(fds[i]);
	}
}

/* `net`: the connection, where fd is one's. */
static int
transact(int fd, struct net *net, struct vfun_msg *msg, unsigned timeout_ms, int fds[2])
{
	static uint32_t tags;
	uint16_t type = msg->type;
	int r;

	fds[0] = fds[1] = -1;
	msg->magic = VFUN_MSG_MAGIC;
	msg->version = VFUN_VERSION;
	msg->tag = __atomic_add_fetch(&tags, 1, __ATOMIC_RELAXED);
	msg->reason = msg->flags = 0;
	memset(msg->text, 0, sizeof(msg->text));
	if (!timeout_ms)
		timeout_ms = TIMEOUT_MS;
	if (net) {
		r = net_control(net, msg, timeout_ms);
	} else if (socket_type(fd)) {
		uint64_t until = client_ns() + (uint64_t)timeout_ms * 1000000u;

		/* Who was turned away can't send any more, but is told why. */
		if (send(fd, msg, sizeof(*msg), MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
			return -ECONNRESET;
		r = receive_reply(fd, msg, msg->tag, until, fds);
	} else {
		r = ioctl(fd, VFUN_IOC_CONTROL, msg) < 0 ? -errno : 0;
		if (r == -ENOTTY || r == -EINVAL)
			r = -ENOENT; /* some other file of this name */
	}
	if (!r && (msg->magic != VFUN_MSG_MAGIC ||
		      (msg->type != (type | VFUN_MSG_REPLY) && (msg->type != VFUN_MSG_REPLY || !msg->reason))))
		r = -EPROTO;
	msg->text[sizeof(msg->text) - 1] = '\0';
	return r;
}

int
vfun_control(int fd, struct vfun_msg *msg, unsigned timeout_ms)
{
	struct net *net = socket_type(fd) == SOCK_STREAM ? calloc(1, sizeof(*net)) : NULL;
	int fds[2];
	int r;

	if (net)
		net->fd = fd;
	r = transact(fd, net, msg, timeout_ms, fds);
	free(net);
	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return r;
}

/* One part of a text, to its place in `text`, and the whole text's length: 0 or -errno. */
static int
about_part(int fd, const struct vfun_ask *ask, char *text, size_t size, uint32_t *total, unsigned timeout_ms)
{
	struct vfun_msg msg = { .type = VFUN_MSG_SIGNATURE };
	const struct vfun_part *p = &msg.body.part;
	size_t len;
	int r;

	msg.body.ask = *ask;
	r = vfun_control(fd, &msg, timeout_ms);
	if (r)
		return r;
	if (msg.reason == VFUN_R_MALFORMED && msg.version < 0x0103)
		return -EOPNOTSUPP;
	if (msg.reason) {
		snprintf(text, size, "%.*s [%s]", VFUN_TEXT_MAX - 1, msg.text,
		    vfun_reason_name((enum vfun_reason)msg.reason));
		return -EACCES;
	}
	*total = p->total;
	len = p->total > ask->offset ? p->total - ask->offset : 0;
	len = len < sizeof(p->text) ? len : sizeof(p->text);
	len = len < size - 1 - ask->offset ? len : size - 1 - ask->offset;
	memcpy(text + ask->offset, p->text, len);
	text[ask->offset + len] = '\0';
	return memchr(p->text, 0, len) ? -EPROTO : 0;
}

int
vfun_about(int fd, const struct vfun_ask *what, char *text, size_t size, unsigned timeout_ms)
{
	struct vfun_ask ask = *what;
	uint32_t total = 0;
	int r;

	text[0] = '\0';
	do {
		r = about_part(fd, &ask, text, size, &total, timeout_ms);
		ask.offset = (uint32_t)strlen(text);
	} while (!r && ask.offset < total && ask.offset < size - 1);
	return r;
}

int
vfun_signature(const struct vfun_options *opt, const char *function, char text[VFUN_SIGNATURE_MAX])
{
	struct vfun_ask ask = { .what = VFUN_ABOUT_SIGNATURE, .target = (uint8_t)opt->target };
	int fd = vfun_control_for(opt);
	int r;

	if (fd < 0)
		return fd;
	snprintf(ask.function, sizeof(ask.function), "%s", function);
	r = vfun_about(fd, &ask, text, VFUN_SIGNATURE_MAX, opt->timeout_ms);
	close(fd);
	return r;
}

/* A transaction of this handle's: a nack becomes -EACCES. */
static int
ask(struct vfun *v, struct vfun_msg *msg, const char *phase, unsigned timeout_ms, int fds[2])
{
	int r = transact(v->ctl, v->net, msg, timeout_ms, fds);

	if (r && v->net && v->net->err)
		return client_fail(v, r, v->net->reason, "%s: %s", phase, v->net->text);
	if (r == -ETIMEDOUT)
		return client_fail(v, r, VFUN_R_TIMEOUT, "%s: vfund did not answer in time", phase);
	if (r == -ENOENT)
		return client_fail(
		    v, r, VFUN_R_GONE, "%s/control doesn't speak vfun: is the share mounted there?", v->run);
	if (is_shortage(r))
		return client_fail(v, r, VFUN_OK, "%s: vfund's answer can't be received: %s", phase, strerror(-r));
	if (r)
		return client_fail(v, r, VFUN_R_GONE, "%s: no answer from vfund: %s", phase, strerror(-r));
	v->flags = msg->flags;
	if (msg->reason)
		return client_fail(v, -EACCES, (enum vfun_reason)msg->reason, "%s", msg->text);
	return 0;
}

/* Phases 1 and 2 */

static int
negotiate(struct vfun *v, const char *function, const struct vfun_options *o)
{
	struct vfun_msg msg = { .type = VFUN_MSG_NEGOTIATE };
	struct vfun_negotiate *n = &msg.body.negotiate;
	int fds[2];
	int r;

	if (strlen(function) >= sizeof(n->function))
		return client_fail(v, -EACCES, VFUN_R_UNKNOWN, "there is no function '%s': see vfun list", function);
	strcpy(n->function, function);
	n->version_min = VFUN_VERSION_OLDEST;
	n->version_max = VFUN_VERSION;
	n->target = (uint8_t)o->target;
	n->wait = (uint8_t)o->wait;
	n->slots = (uint16_t)(o->slots > UINT16_MAX ? UINT16_MAX : o->slots);
	n->out_arena = o->out_arena;
	n->in_arena = o->in_arena;
	r = ask(v, &msg, "negotiation", o->timeout_ms, fds);
	if (r)
		return r;
	v->grant = msg.body.grant;
	if (v->grant.slots < 1 || v->grant.slots > VFUN_SLOTS_MAX || (v->grant.slots & (v->grant.slots - 1)) ||
	    v->grant.out_arena < o->out_arena || v->grant.in_arena < o->in_arena)
		return client_fail(v, -EPROTO, VFUN_R_MALFORMED, "vfund's grant makes no sense");
	return 0;
}

/* Before the instance is made: the BAR's memory is only for who can map it, and DAX is better. A forced path that is
 * not to be had fails here. */
static int
find_bar(struct vfun *v, enum vfun_path want)
{
	int forced = want == VFUN_PATH_IS_IVSHMEM;

	close_fd(&v->bar);
	if (!v->guest || (!forced && want != VFUN_PATH_AUTO))
		return 0;
	if (!(v->grant.paths & VFUN_PATH_IVSHMEM))
		return !forced ? 0
			       : client_fail(v, -ENODEV, VFUN_OK,
				     "path ivshmem: vfund has no ivshmem memory for this VM, see vfun.conf(5)");
	if (!forced && (v->grant.paths & VFUN_PATH_DAX))
		return 0;
	v->bar = ivshmem_open(v->grant.bar, &v->bar_size);
	if (v->bar >= 0)
		return 0;
	(void)client_fail(v, -ENODEV, VFUN_OK, "path ivshmem: %s (%s)",
	    v->bar == -ENXIO ? "no PCI device is this VM's memory" : "the device's memory can't be opened",
	    strerror(-v->bar));
	v->bar = -1;
	return forced ? -ENODEV : 0;
}

/* Is [off, off + size) of the BAR a place for a region? */
static int
in_bar(const struct vfun *v, uint64_t off, uint64_t size)
{
	return off >= VFUN_PAGE && off % VFUN_PAGE == 0 && off <= v->bar_size && size <= v->bar_size - off;
}

static int
bar_sane(const struct vfun *v)
{
	const struct vfun_active *a = &v->active;

	return in_bar(v, a->out_off, a->out_size) && in_bar(v, a->in_off, a->in_size) &&
	       (a->out_off + a->out_size <= a->in_off || a->in_off + a->in_size <= a->out_off);
}

static int
activate(struct vfun *v, enum vfun_path want, unsigned timeout_ms)
{
	struct vfun_msg msg = { .type = VFUN_MSG_ACTIVATE };
	int fds[2];
	int r;

	msg.body.activate.grant = v->grant.grant;
	if (v->bar >= 0)
		msg.body.activate.paths = VFUN_PATH_IVSHMEM | (want == VFUN_PATH_IS_IVSHMEM ? 0 : VFUN_PATH_COPY);
	r = ask(v, &msg, "activation", timeout_ms, fds);
	if (r)
		return r;
	v->active = msg.body.active;
	v->active.folder[sizeof(v->active.folder) - 1] = '\0';
	v->out.size = v->active.out_size;
	v->in.size = v->active.in_size;
	v->out.fd = fds[0];
	v->in.fd = fds[1];
	if (v->out.size != vfun_region_size(v->grant.slots, v->grant.out_arena) ||
	    v->in.size != vfun_region_size(v->grant.slots, v->grant.in_arena) || strchr(v->active.folder, '/') ||
	    (!v->guest && !v->net && (fds[0] < 0 || fds[1] < 0)) ||
	    (v->bar >= 0 && (v->active.paths & VFUN_PATH_IVSHMEM) && !bar_sane(v)))
		return client_fail(v, -EPROTO, VFUN_R_MALFORMED, "vfund's activation makes no sense");
	return 0;
}

/* Data paths */

static int
open_file(const struct vfun *v, const char *name, int flags)
{
	char path[2 * CLIENT_PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/%s/%s", v->run, v->active.folder, name);
	fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

static int
not_opened(struct vfun *v, int err)
{
	return client_fail(v, is_shortage(err) ? err : -ECONNRESET, is_shortage(err) ? VFUN_OK : VFUN_R_GONE,
	    "%s/%s: its files can't be opened: %s", v->run, v->active.folder, strerror(-err));
}

static int
open_files(struct vfun *v, int flags)
{
	close_fd(&v->out.fd);
	close_fd(&v->in.fd);
	v->out.fd = open_file(v, "dataout", O_RDWR | flags);
	v->in.fd = open_file(v, "datain", O_RDONLY | flags);
	if (v->bell < 0)
		v->bell = open_file(v, "bell", O_RDWR);
	if (v->out.fd < 0)
		return not_opened(v, v->out.fd);
	if (v->in.fd < 0)
		return not_opened(v, v->in.fd);
	return v->bell < 0 ? not_opened(v, v->bell) : 0;
}

static void
unmap(struct region *r)
{
	if (r->map)
		munmap(r->map, r->size);
	r->map = NULL;
}

static void
unmap_both(struct vfun *v)
{
	unmap(&v->out);
	unmap(&v->in);
}

static int
map_region(struct region *r, int prot, int fd, uint64_t off)
{
	void *p = mmap(NULL, r->size, prot, MAP_SHARED, fd, (off_t)off);

	if (p == MAP_FAILED)
		return -errno;
	r->map = p;
	return 0;
}

static int
map_both(struct vfun *v)
{
	int r = map_region(&v->out, PROT_READ | PROT_WRITE, v->out.fd, 0);

	if (!r)
		r = map_region(&v->in, PROT_READ, v->in.fd, 0);
	if (r)
		unmap_both(v);
	return r;
}

/* Not a secret: it only has to differ from what a cache may hold. */
static void
draw_nonce(struct vfun *v)
{
	v->nonce[0] = v->active.session;
	v->nonce[1] = v->active.instance;
	if (getrandom(&v->nonce[2], 2 * sizeof(v->nonce[2]), GRND_NONBLOCK) < 0)
		v->nonce[2] = client_ns();
}

/* The headers say what ACTIVATE said, and an ECHO comes back: 0 or -errno. Always the same one at position 0, so that a
 * second try by another path repeats the first, whose request may have arrived late. */
static int
prove(struct vfun *v, unsigned echo_ms)
{
	struct vfun_result res;
	struct vfun_hdr h;
	int r;

	if (v->in.map)
		memcpy(&h, v->in.map, VFUN_LINE);
	else if (pread(v->in.fd, &h, VFUN_LINE, 0) != (ssize_t)VFUN_LINE)
		return -EIO;
	if (h.magic != VFUN_IN_MAGIC || h.session != v->active.session || h.slots != v->grant.slots ||
	    h.size != v->in.size)
		return -ESTALE;
	v->next = v->oldest = 0;
	memset(v->busy, 0, sizeof(v->busy));
	r = vfun_call(v, VFUN_CMD_ECHO, v->nonce, 4, NULL, &res, (uint64_t)echo_ms * 1000000u);
	if (!r && (res.reason || res.len != sizeof(v->nonce) || memcmp(res.inline_result, v->nonce, sizeof(v->nonce))))
		r = -EIO;
	return r;
}

/* Path host: descriptors came with the activation. */
static int
use_host(struct vfun *v, unsigned echo_ms)
{
	int r = map_both(v);

	if (!r)
		r = prove(v, echo_ms);
	if (r)
		return client_fail(v, r == -ECONNRESET ? r : -ENODEV, v->reason,
		    "the mapping on this host doesn't work: %s", strerror(-r));
	v->path = VFUN_PATH_IS_HOST;
	v->pace.peer = (const uint32_t *)(const void *)(v->in.map + offsetof(struct vfun_hdr, cpu));
	close_fd(&v->out.fd);
	close_fd(&v->in.fd);
	return 0;
}

static int
use_dax(struct vfun *v, unsigned echo_ms)
{
	int r = open_files(v, 0);

	if (r)
		return r;
	r = map_both(v);
	if (r)
		return client_fail(v, -ENODEV, VFUN_OK,
		    "the share's files can't be mapped (%s): this QEMU offers no DAX window", strerror(-r));
	r = prove(v, echo_ms);
	if (r) {
		v->incoherent = 1;
		unmap_both(v);
		return client_fail(v, -ENODEV, VFUN_OK,
		    "the mapping is not coherent with the host (echo: %s): no DAX here", strerror(-r));
	}
	v->path = VFUN_PATH_IS_DAX;
	return 0;
}

/* The bell stays open as long as the regions are mapped: it keeps their place from being given to others. */
static int
use_ivshmem(struct vfun *v, unsigned echo_ms)
{
	int r;

	if (!(v->active.paths & VFUN_PATH_IVSHMEM))
		return client_fail(v, -ENODEV, VFUN_OK, "the VM's ivshmem memory has no room left");
	v->bell = open_file(v, "bell", O_RDWR);
	if (v->bell < 0)
		return not_opened(v, v->bell);
	r = map_region(&v->out, PROT_READ | PROT_WRITE, v->bar, v->active.out_off);
	if (!r)
		r = map_region(&v->in, PROT_READ, v->bar, v->active.in_off);
	if (!r) {
		r = prove(v, echo_ms);
		v->incoherent = r != 0;
	}
	close_fd(&v->bar);
	if (r) {
		unmap_both(v);
		return client_fail(
		    v, -ENODEV, VFUN_OK, "the ivshmem device's memory doesn't reach the service: %s", strerror(-r));
	}
	v->path = VFUN_PATH_IS_IVSHMEM;
	return 0;
}

static int
use_copy(struct vfun *v, unsigned echo_ms)
{
	/* O_DIRECT: past the guest's page cache, whatever the share allows it to cache. */
	int r = open_files(v, O_DIRECT);

	if (!r)
		r = prove(v, echo_ms);
	if (r)
		return client_fail(v, r == -ECONNRESET ? r : -ENODEV, v->reason,
		    "reading and writing the share's files doesn't reach the service: %s", strerror(-r));
	v->path = VFUN_PATH_IS_COPY;
	return 0;
}

static int
use_net(struct vfun *v, unsigned timeout_ms)
{
	int r = net_regions(v);

	if (!r)
		r = prove(v, timeout_ms);
	if (r)
		return client_fail(v, r == -ECONNRESET ? r : -ENODEV, v->reason, "path net doesn't work: %s",
		    *v->text ? v->text : strerror(-r));
	v->path = VFUN_PATH_IS_NET;
	return 0;
}

static int
choose_path(struct vfun *v, const struct vfun_options *o)
{
	unsigned echo_ms = o->echo_ms ? o->echo_ms : ECHO_MS;
	enum vfun_path want = o->path;
	int r;

	draw_nonce(v);
	if (v->net)
		return use_net(v, o->timeout_ms ? o->timeout_ms : TIMEOUT_MS);
	if (!v->guest && (want == VFUN_PATH_AUTO || want == VFUN_PATH_IS_HOST))
		return use_host(v, echo_ms);
	if (v->guest && want == VFUN_PATH_IS_DAX)
		return use_dax(v, echo_ms);
	if (v->guest && want == VFUN_PATH_IS_COPY)
		return use_copy(v, 2 * echo_ms);
	if (v->guest && want == VFUN_PATH_IS_IVSHMEM)
		return use_ivshmem(v, echo_ms);
	if (!v->guest || want != VFUN_PATH_AUTO)
		return client_fail(v, -ENODEV, VFUN_OK, "path %s is not for a program %s", vfun_path_name(want),
		    v->guest ? "in a guest" : "on the host");
	/* A VM with ivshmem and without DAX: the text says what was wrong with the device. */
	if (v->bar >= 0)
		r = use_ivshmem(v, echo_ms);
	else
		r = (v->grant.paths & (VFUN_PATH_IVSHMEM | VFUN_PATH_DAX)) == VFUN_PATH_IVSHMEM ? -ENODEV
												: use_dax(v, echo_ms);
	/* The text why stays, for whoever wants to know. */
	return r == -ENODEV ? use_copy(v, 2 * echo_ms) : r;
}

static struct vfun *
new_handle(void)
{
	struct vfun *v = calloc(1, sizeof(*v));

	if (v)
		v->ctl = v->bell = v->bar = v->out.fd = v->in.fd = -1;
	return v;
}

/* Path net: a connection, of which this handle will be the one user. */
static int
open_server(struct vfun *v, const struct vfun_options *o)
{
	int r;

	if (!net_is_there())
		return client_fail(v, -ENODEV, VFUN_OK,
		    "path net isn't in this program: link it with what pkg-config --libs vfun-net says");
	if (!v->net)
		v->net = calloc(1, sizeof(*v->net));
	if (!v->net)
		return -ENOMEM;
	r = net_open(v->net, o->server, o->key_file, o->timeout_ms ? o->timeout_ms : TIMEOUT_MS);
	v->net->v = v;
	v->ctl = v->net->fd;
	return r ? client_fail(v, r, v->net->reason, "%s", v->net->text) : 0;
}

/* Whoever takes control messages. */
static int
reach(struct vfun *v, const struct vfun_options *o)
{
	int fd = wants_net(o, 0) ? -ENOENT : open_control(o->run, 0, v->run);

	if (wants_net(o, fd))
		return open_server(v, o);
	v->ctl = fd < 0 ? -1 : fd;
	if (fd == -EACCES)
		return client_fail(v, -ENOENT, VFUN_R_DENIED, "%s: this user may not talk to vfund", v->run);
	if (is_shortage(fd))
		return client_fail(v, fd, VFUN_OK, "%s: vfund can't be asked: %s", v->run, strerror(-fd));
	if (fd < 0)
		return client_fail(v, -ENOENT, VFUN_R_GONE,
		    "no vfund and no share at %s (%s): start vfund, or mount the share there", v->run, strerror(-fd));
	return 0;
}

/* The longest spin. On the host, with one processor for both, whoever spins keeps the other from answering. */
static uint64_t
spin_limit(const struct vfun *v, const struct vfun_options *o)
{
	const char *env = getenv("VFUN_SPIN");
	unsigned long us = o->spin_us ? o->spin_us : SPIN_US;
	char *end;
	cpu_set_t cpus;

	if (!o->spin_us && env && *env >= '0' && *env <= '9') {
		us = strtoul(env, &end, 10);
		if (*end)
			us = SPIN_US;
	}
	if (o->wait == VFUN_WAIT_PARK ||
	    (!v->guest && sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) < 2))
		us = 0;
	return (us < SPIN_US_MAX ? us : SPIN_US_MAX) * 1000u;
}

static int
reopen(struct vfun *v, const struct vfun_options *o)
{
	close_fd(&v->ctl);
	if (v->net)
		return open_server(v, o);
	v->ctl = open_control(o->run, 0, v->run);
	return v->ctl < 0 ? client_fail(v, -ECONNRESET, VFUN_R_GONE, "vfund is gone") : 0;
}

/* Hardware that can't be had now, and whoever asks takes software as well. */
static int
fall_back(struct vfun *v, struct vfun_options *o, int err)
{
	if (err != -EACCES || o->target != VFUN_TARGET_ANY || v->grant.target != VFUN_TARGET_HARDWARE ||
	    !(v->flags & VFUN_F_SOFTWARE_OK))
		return 0;
	snprintf(v->fallback, sizeof(v->fallback), "%.*s", (int)sizeof(v->fallback) - 1, v->text);
	o->target = VFUN_TARGET_SOFTWARE;
	return 1;
}

/* Phases 1 and 2. An engine that was replaced meanwhile has forgotten an activation, or even the connection, if that
 * was a few microseconds old: once more, then. */
static int
obtain(struct vfun *v, const char *function, struct vfun_options *o)
{
	for (int tries = 0;; tries++) {
		uint64_t start = client_ns();
		int r = negotiate(v, function, o);

		v->times.negotiate = client_ns() - start;
		if (!r)
			r = find_bar(v, o->path);
		if (!r)
			r = activate(v, o->path, o->timeout_ms);
		if (fall_back(v, o, r))
			continue;
		if (tries == TRIES || (r != -ECONNRESET && (r != -EACCES || v->reason != VFUN_R_LOST)))
			return r;
		if (r == -ECONNRESET && (r = reopen(v, o)))
			return r;
	}
}

int
vfun_open(struct vfun **out, const char *function, const struct vfun_options *opt)
{
	struct vfun_options o = { 0 };
	struct vfun *v = new_handle();
	uint64_t start;
	int r;

	*out = v;
	if (!v)
		return -ENOMEM;
	if (opt)
		memcpy(&o, opt, opt->size < sizeof(o) ? opt->size : sizeof(o));
	r = reach(v, &o);
	if (r)
		return r;
	v->guest = !socket_type(v->ctl);
	v->pace.limit_ns = spin_limit(v, &o);
	start = client_ns();
	r = obtain(v, function, &o);
	if (!r)
		r = choose_path(v, &o);
	close_fd(&v->bar);
	v->times.activate = client_ns() - start - v->times.negotiate;
	return r;
}

/* Phase 4 */

int
vfun_close(struct vfun *v, struct vfun_times *times)
{
	uint64_t start = client_ns();
	int fds[2];
	int r = 0;

	if (!v)
		return 0;
	unmap(&v->out);
	unmap(&v->in);
	close_fd(&v->out.fd);
	close_fd(&v->in.fd);
	close_fd(&v->bell);
	if (v->ctl >= 0 && v->active.instance) {
		struct vfun_msg msg = { .type = VFUN_MSG_RELEASE };

		msg.body.release.instance = v->active.instance;
		r = ask(v, &msg, "release", 0, fds);
	}
	buffers_free(v);
	close_fd(&v->ctl);
	v->times.release = client_ns() - start;
	if (times)
		*times = v->times;
	free(v->net);
	free(v);
	return r;
}

/* What became of it */

enum vfun_reason
vfun_reason(const struct vfun *v)
{
	return v ? v->reason : VFUN_OK;
}

const char *
vfun_text(const struct vfun *v)
{
	return v ? v->text : "out of memory";
}

const struct vfun_grant *
vfun_granted(const struct vfun *v)
{
	return &v->grant;
}

const struct vfun_active *
vfun_activated(const struct vfun *v)
{
	return &v->active;
}

const char *
vfun_fallback(const struct vfun *v)
{
	return v ? v->fallback : "";
}

int
vfun_incoherent(const struct vfun *v)
{
	return v->incoherent;
}

enum vfun_path
vfun_path(const struct vfun *v)
{
	return v->path;
}

struct vfun_times
vfun_times(const struct vfun *v)
{
	return v->times;
}

const char *
vfun_path_name(enum vfun_path path)
{
	static const char *const names[] = {
		[VFUN_PATH_AUTO] = "auto",
		[VFUN_PATH_IS_HOST] = "host",
		[VFUN_PATH_IS_DAX] = "dax",
		[VFUN_PATH_IS_COPY] = "copy",
		[VFUN_PATH_IS_IVSHMEM] = "ivshmem",
		[VFUN_PATH_IS_NET] = "net",
	};

	return (unsigned)path < sizeof(names) / sizeof(names[0]) && names[path] ? names[path] : "?";
}

const char *
vfun_reason_name(enum vfun_reason reason)
{
	static const struct {
		enum vfun_reason reason;
		const char *name;
	} names[] = {
		{ VFUN_OK, "ok" },
		{ VFUN_R_MALFORMED, "malformed" },
		{ VFUN_R_VERSION, "version" },
		{ VFUN_R_UNKNOWN, "unknown-function" },
		{ VFUN_R_DENIED, "denied" },
		{ VFUN_R_NO_HARDWARE, "no-hardware" },
		{ VFUN_R_NO_RESOURCE, "no-resource" },
		{ VFUN_R_TOO_LARGE, "too-large" },
		{ VFUN_R_NO_GRANT, "no-grant" },
		{ VFUN_R_NO_INSTANCE, "no-instance" },
		{ VFUN_R_START_FAILED, "start-failed" },
		{ VFUN_R_TIMEOUT, "timeout" },
		{ VFUN_R_SHUTDOWN, "shutdown" },
		{ VFUN_R_END, "end" },
		{ VFUN_R_LOST, "lost" },
		{ VFUN_R_NO_DEVICE, "no-device" },
		{ VFUN_R_DEVICE_BUSY, "device-busy" },
		{ VFUN_R_IMAGE, "image" },
		{ VFUN_R_LIBRARY, "library" },
		{ VFUN_R_NO_SOFTWARE, "no-software" },
		{ VFUN_R_CRASHING, "crashing" },
		{ VFUN_R_CONF, "conf" },
		{ VFUN_R_SLOT_COMMAND, "slot-command" },
		{ VFUN_R_SLOT_LENGTH, "slot-length" },
		{ VFUN_R_SLOT_FLAGS, "slot-flags" },
		{ VFUN_R_SLOT_RANGE, "slot-range" },
		{ VFUN_R_ARGUMENTS, "arguments" },
		{ VFUN_R_RESULT_SIZE, "result-size" },
		{ VFUN_R_FUNCTION, "function" },
		{ VFUN_R_NO_DATA, "no-data" },
		{ VFUN_R_CUT_OFF, "cut-off" },
		{ VFUN_R_GONE, "gone" },
		{ VFUN_R_LATE, "late" },
		{ VFUN_R_DEVICE, "device" },
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].reason == reason)
			return names[i].name;
	return "unknown-reason";
}
