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
 * pwrite() instead.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client.h"

#define TIMEOUT_MS 10000u
#define ECHO_MS 1000u
#define SPIN_NS 50000u
#define TRIES 3

uint64_t
client_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

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
	for (unsigned i = 0; fd < 0 && (run = run_candidate(i, buf)) != NULL; i++) {
		snprintf(found, CLIENT_PATH_MAX, "%s", run);
		fd = open_in(run, admin);
	}
	return fd;
}

int
vfun_control_open(const char *run, int admin)
{
	char found[CLIENT_PATH_MAX];

	return open_control(run, admin, found);
}

static int
is_socket(int fd)
{
	int type;
	socklen_t len = sizeof(type);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0;
}

/* One reply with at most 2 descriptors; replies to older requests are skipped. */
static int
receive_reply(int fd, struct vfun_msg *msg, uint32_t tag, uint64_t until, int fds[2])
{
	for (;;) {
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
		if (n <= 0)
			return -ECONNRESET;
		fds[0] = fds[1] = -1;
		c = CMSG_FIRSTHDR(&mh);
		if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(2 * sizeof(int)))
			memcpy(fds, CMSG_DATA(c), 2 * sizeof(int));
		if (n != (ssize_t)sizeof(*msg))
			return -EPROTO;
		if (msg->tag == tag)
			return 0;
		for (int i = 0; i < 2; i++)
			if (fds[i] >= 0)
				close(fds[i]);
	}
}

static int
transact(int fd, struct vfun_msg *msg, unsigned timeout_ms, int fds[2])
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
	if (is_socket(fd)) {
		uint64_t until = client_ns() + (uint64_t)(timeout_ms ? timeout_ms : TIMEOUT_MS) * 1000000u;

		if (send(fd, msg, sizeof(*msg), MSG_NOSIGNAL) != (ssize_t)sizeof(*msg))
			return -ECONNRESET;
		r = receive_reply(fd, msg, msg->tag, until, fds);
	} else {
		r = ioctl(fd, VFUN_IOC_CONTROL, msg) < 0 ? -errno : 0;
		if (r == -ENOTTY || r == -EINVAL)
			r = -ENOENT; /* some other file of this name */
	}
	if (!r && (msg->magic != VFUN_MSG_MAGIC || msg->type != (type | VFUN_MSG_REPLY)))
		r = -EPROTO;
	msg->text[sizeof(msg->text) - 1] = '\0';
	return r;
}

int
vfun_control(int fd, struct vfun_msg *msg, unsigned timeout_ms)
{
	int fds[2];
	int r = transact(fd, msg, timeout_ms, fds);

	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return r;
}

/* A transaction of this handle's: a nack becomes -EACCES. */
static int
ask(struct vfun *v, struct vfun_msg *msg, const char *phase, unsigned timeout_ms, int fds[2])
{
	int r = transact(v->ctl, msg, timeout_ms, fds);

	if (r == -ETIMEDOUT)
		return client_fail(v, r, VFUN_R_TIMEOUT, "%s: vfund did not answer in time", phase);
	if (r == -ENOENT)
		return client_fail(
		    v, r, VFUN_R_GONE, "%s/control doesn't speak vfun: is the share mounted there?", v->run);
	if (r)
		return client_fail(v, r, VFUN_R_GONE, "%s: no answer from vfund: %s", phase, strerror(-r));
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
	n->version_min = n->version_max = VFUN_VERSION;
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

static int
activate(struct vfun *v, unsigned timeout_ms)
{
	struct vfun_msg msg = { .type = VFUN_MSG_ACTIVATE };
	int fds[2];
	int r;

	msg.body.activate.grant = v->grant.grant;
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
	    (!v->guest && (fds[0] < 0 || fds[1] < 0)))
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

static void
close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
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
	if (v->out.fd < 0 || v->in.fd < 0 || v->bell < 0)
		return client_fail(
		    v, -ECONNRESET, VFUN_R_GONE, "%s/%s: its files can't be opened", v->run, v->active.folder);
	return 0;
}

static void
unmap(struct region *r)
{
	if (r->map)
		munmap(r->map, r->size);
	r->map = NULL;
}

static int
map_region(struct region *r, int prot)
{
	void *p = mmap(NULL, r->size, prot, MAP_SHARED, r->fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	r->map = p;
	return 0;
}

static int
map_both(struct vfun *v)
{
	int r = map_region(&v->out, PROT_READ | PROT_WRITE);

	if (!r)
		r = map_region(&v->in, PROT_READ);
	if (r) {
		unmap(&v->out);
		unmap(&v->in);
	}
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
	v->next = 0;
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
		unmap(&v->out);
		unmap(&v->in);
		return client_fail(v, -ENODEV, VFUN_OK,
		    "the mapping is not coherent with the host (echo: %s): no DAX here", strerror(-r));
	}
	v->path = VFUN_PATH_IS_DAX;
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
choose_path(struct vfun *v, const struct vfun_options *o)
{
	unsigned echo_ms = o->echo_ms ? o->echo_ms : ECHO_MS;
	enum vfun_path want = o->path;
	int r;

	draw_nonce(v);
	if (!v->guest && (want == VFUN_PATH_AUTO || want == VFUN_PATH_IS_HOST))
		return use_host(v, echo_ms);
	if (v->guest && want == VFUN_PATH_IS_DAX)
		return use_dax(v, echo_ms);
	if (v->guest && want == VFUN_PATH_IS_COPY)
		return use_copy(v, 2 * echo_ms);
	if (!v->guest || want != VFUN_PATH_AUTO)
		return client_fail(v, -ENODEV, VFUN_OK, "path %s is not for a program %s", vfun_path_name(want),
		    v->guest ? "in a guest" : "on the host");
	r = use_dax(v, echo_ms);
	/* The text why stays, for whoever wants to know. */
	return r == -ENODEV ? use_copy(v, 2 * echo_ms) : r;
}

static struct vfun *
new_handle(void)
{
	struct vfun *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	v->ctl = v->bell = v->out.fd = v->in.fd = -1;
	/* With one processor, whoever spins keeps the other from answering. */
	v->spin_ns = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? SPIN_NS : 0;
	return v;
}

static int
reopen(struct vfun *v, const struct vfun_options *o)
{
	close_fd(&v->ctl);
	v->ctl = open_control(o->run, 0, v->run);
	return v->ctl < 0 ? client_fail(v, -ECONNRESET, VFUN_R_GONE, "vfund is gone") : 0;
}

/* Phases 1 and 2. An engine that was replaced meanwhile has forgotten an activation, or even the connection, if that
 * was a few microseconds old: once more, then. */
static int
obtain(struct vfun *v, const char *function, const struct vfun_options *o)
{
	for (int tries = 0;; tries++) {
		uint64_t start = client_ns();
		int r = negotiate(v, function, o);

		v->times.negotiate = client_ns() - start;
		if (!r)
			r = activate(v, o->timeout_ms);
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
	v->ctl = open_control(o.run, 0, v->run);
	if (v->ctl < 0) {
		r = v->ctl;
		if (r == -EACCES)
			return client_fail(v, -ENOENT, VFUN_R_DENIED, "%s: this user may not talk to vfund", v->run);
		return client_fail(v, -ENOENT, VFUN_R_GONE,
		    "no vfund and no share at %s (%s): start vfund, or mount the share there", v->run, strerror(-r));
	}
	v->guest = !is_socket(v->ctl);
	start = client_ns();
	r = obtain(v, function, &o);
	if (!r)
		r = choose_path(v, &o);
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
	close_fd(&v->ctl);
	v->times.release = client_ns() - start;
	if (times)
		*times = v->times;
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
	static const char *const names[] = { "auto", "host", "dax", "copy" };

	return (unsigned)path < sizeof(names) / sizeof(names[0]) ? names[path] : "?";
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
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].reason == reason)
			return names[i].name;
	return "unknown-reason";
}
