/* SPDX-License-Identifier: MIT
 *
 * control.c - the client's control messages: whom to ask, one question and its answer
 *
 * What <run>/control is decides: a socket means that vfund is on this machine and passes the regions as descriptors;
 * any other file means that this is a guest, the run folder is the mount of its share, and the regions are files in it.
 * Where a server is named, messages go over TCP (net.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "client.h"
#include "net.h"
#include "plain.h"

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
	while ((e = connect(fd, (struct sockaddr *)&sa, sizeof(sa)) ? errno : 0) == EINTR)
		;
	if (!e)
		return fd;
	e = e == ECONNREFUSED ? ENOENT : e;
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
int
control_open(const char *run, int admin, char found[CLIENT_PATH_MAX])
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

/* By path net, or is there something local? `fd`: what control_open() returned, 0 if it wasn't asked yet. */
int
control_by_net(const struct vfun_options *o, int fd)
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
	r = net_open(&n, o->server, o->key_file, o->timeout_ms ? o->timeout_ms : CLIENT_TIMEOUT_MS);
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
	if (!control_by_net(&o, fd))
		fd = control_open(o.run, 0, found);
	return control_by_net(&o, fd) ? open_net(&o) : fd;
}

int
vfun_control_open(const char *run, int admin)
{
	const struct vfun_options o = { .run = run };
	char found[CLIENT_PATH_MAX];
	int fd = control_open(run, admin, found);

	return control_by_net(&o, fd) ? open_net(&o) : fd;
}

/* 0: not a socket. */
int
control_socket(int fd)
{
	int type;
	socklen_t len = sizeof(type);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 ? type : 0;
}

static void
close_all(int fds[3])
{
	for (int i = 0; i < 3; i++)
		close_fd(&fds[i]);
}

/* One reply with at most 3 descriptors; replies to older requests are skipped, and so is the news that an instance has
 * ended, which its header has as well. Tag 0 is for the connection as a whole:
 * vfund has no place for it. It may have closed it before the request was there: that error comes first, once. */
static int
receive_reply(int fd, struct vfun_msg *msg, uint32_t tag, uint64_t until, int fds[3])
{
	for (int resets = 0;;) {
		union {
			char buf[CMSG_SPACE(3 * sizeof(int))];
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
		fds[0] = fds[1] = fds[2] = -1;
		c = CMSG_FIRSTHDR(&mh);
		if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len <= CMSG_LEN(3 * sizeof(int)))
			memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
		if (mh.msg_flags & MSG_CTRUNC || n != (ssize_t)sizeof(*msg)) {
			close_all(fds);
			return mh.msg_flags & MSG_CTRUNC ? -EMFILE : -EPROTO;
		}
		if (msg->type != (VFUN_MSG_GONE | VFUN_MSG_REPLY) && (msg->tag == tag || (!msg->tag && msg->reason)))
			return 0;
		close_all(fds);
	}
}

/* `net`: the connection, where fd is one's. */
int
control_ask(int fd, struct net *net, struct vfun_msg *msg, unsigned timeout_ms, int fds[3])
{
	static uint32_t tags;
	uint16_t type = msg->type;
	int r;

	fds[0] = fds[1] = fds[2] = -1;
	msg->magic = VFUN_MSG_MAGIC;
	msg->version = VFUN_VERSION;
	msg->tag = __atomic_add_fetch(&tags, 1, __ATOMIC_RELAXED);
	msg->reason = msg->flags = 0;
	memset(msg->text, 0, sizeof(msg->text));
	if (!timeout_ms)
		timeout_ms = CLIENT_TIMEOUT_MS;
	if (net) {
		r = net_control(net, msg, timeout_ms);
	} else if (control_socket(fd)) {
		uint64_t until = client_ns() + (uint64_t)timeout_ms * 1000000u;

		/* Who was turned away can't send any more, but is told why. */
		while (send(fd, msg, sizeof(*msg), MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
			if (errno != EINTR)
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
	plain_text(msg->text);
	return r;
}

int
vfun_control(int fd, struct vfun_msg *msg, unsigned timeout_ms)
{
	struct net *net = control_socket(fd) == SOCK_STREAM ? calloc(1, sizeof(*net)) : NULL;
	int fds[3];
	int r;

	if (net)
		net->fd = fd;
	r = control_ask(fd, net, msg, timeout_ms, fds);
	free(net);
	close_all(fds);
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
	plain_lines(text);
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
