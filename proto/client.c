/* SPDX-License-Identifier: MIT
 *
 * client.c - the client: the four phases, the same in a guest and on the host
 *
 * Whom it asks is control.c's business, how it gets at the regions path.c's, calls are channel.c's.
 */
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "net.h"
#include "plain.h"

#define SPIN_US 50u
#define SPIN_US_MAX 1000000u
#define TRIES 3
#define WHY_TRIES 20
#define WHY_PAUSE_NS 5000000
#define WHY_TIMEOUT_MS 1000

int
client_fail(struct vfun *v, int err, enum vfun_reason reason, const char *fmt, ...)
{
	char text[sizeof(v->text)]; /* of which the old one may be a part */
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	plain_text(text);
	memcpy(v->text, text, sizeof(text));
	v->plain = NULL;
	v->reason = reason;
	return err;
}

int
client_foreign(struct vfun *v)
{
	return client_say(v, -EPERM, "this instance is the parent process's: open one after fork()");
}

/* What STATUS says of this instance: 1 and *msg, 0: not that it has ended, or -1: nothing. */
static int
look_up(struct vfun *v, struct vfun_msg *msg)
{
	uint64_t position = 0;
	int fds[3];

	for (;;) {
		*msg = (struct vfun_msg){ .type = VFUN_MSG_STATUS, .body.query.position = position };
		if (control_ask(v->ctl, NULL, msg, WHY_TIMEOUT_MS, fds) || msg->reason ||
		    msg->body.instance.next <= position)
			return -1;
		if (msg->body.instance.instance == v->active.instance)
			return msg->body.instance.state == VFUN_INSTANCE_ENDING && msg->text[0];
		position = msg->body.instance.next;
	}
}

const char *
client_why(struct vfun *v)
{
	static const char ended[] = " ended: ";
	const struct timespec soon = { .tv_nsec = WHY_PAUSE_NS };
	struct vfun_msg msg;
	const char *s;
	int r = 0;

	/* The launcher tells us before it tells the engine. */
	for (unsigned i = 0; !v->why[0] && !v->net && !r && i < WHY_TRIES; i++) {
		if (i)
			nanosleep(&soon, NULL);
		r = look_up(v, &msg);
		if (r > 0)
			strcpy(v->why, msg.text);
	}
	if (!v->why[0])
		strcpy(v->why, "see vfund's log");
	s = strncmp(v->why, "the service of ", 15) ? NULL : strstr(v->why, ended);
	return s ? s + sizeof(ended) - 1 : v->why;
}

/* A transaction of this handle's: a nack becomes -EACCES. */
static int
ask(struct vfun *v, struct vfun_msg *msg, const char *phase, unsigned timeout_ms, int fds[3])
{
	int r = control_ask(v->ctl, v->net, msg, timeout_ms, fds);

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
	int fds[3];
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
	n->features = VFUN_FEATURES_KNOWN & ~(o->pollable ? 0 : VFUN_FEATURE_EVENTFD);
	r = ask(v, &msg, "negotiation", o->timeout_ms, fds);
	if (r)
		return r;
	v->grant = msg.body.grant;
	if (v->grant.slots < 1 || v->grant.slots > VFUN_SLOTS_MAX || (v->grant.slots & (v->grant.slots - 1)) ||
	    v->grant.out_arena < o->out_arena || v->grant.in_arena < o->in_arena || (v->grant.features & ~n->features))
		return client_fail(v, -EPROTO, VFUN_R_MALFORMED, "vfund's grant makes no sense");
	return 0;
}
static int
activate(struct vfun *v, enum vfun_path want, unsigned timeout_ms)
{
	struct vfun_msg msg = { .type = VFUN_MSG_ACTIVATE };
	int fds[3];
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
	v->event = fds[2];
	if (v->out.size != vfun_region_size(v->grant.slots, v->grant.out_arena) ||
	    v->in.size != vfun_region_size(v->grant.slots, v->grant.in_arena) || strchr(v->active.folder, '/') ||
	    (!v->guest && !v->net && (fds[0] < 0 || fds[1] < 0)) ||
	    (v->bar >= 0 && (v->active.paths & VFUN_PATH_IVSHMEM) && !path_bar_sane(v)))
		return client_fail(v, -EPROTO, VFUN_R_MALFORMED, "vfund's activation makes no sense");
	return 0;
}
static struct vfun *
new_handle(void)
{
	struct vfun *v = mmap(NULL, sizeof(*v), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (v == MAP_FAILED)
		return NULL;
	(void)madvise(v, CLIENT_WIPED, MADV_WIPEONFORK); /* an old kernel doesn't: nothing helps then */
	v->mine = 1;
	v->ctl = v->bell = v->bar = v->out.fd = v->in.fd = v->event = v->epoll = -1;
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
		return client_say(v, -ENOMEM, "out of memory");
	r = net_open(v->net, o->server, o->key_file, o->timeout_ms ? o->timeout_ms : CLIENT_TIMEOUT_MS);
	v->net->v = v;
	v->ctl = v->net->fd;
	return r ? client_fail(v, r, v->net->reason, "%s", v->net->text) : 0;
}

/* Whoever takes control messages. */
static int
reach(struct vfun *v, const struct vfun_options *o)
{
	int fd = control_by_net(o, 0) ? -ENOENT : control_open(o->run, 0, v->run);

	if (control_by_net(o, fd))
		return open_server(v, o);
	v->ctl = fd < 0 ? -1 : fd;
	if (fd == -EACCES)
		return client_fail(v, -ENOENT, VFUN_R_DENIED, "%s: this user may not talk to vfund", v->run);
	/* systemd's ProtectSystem=strict, which DynamicUser=yes implies. */
	if (fd == -EROFS)
		return client_fail(v, -ENOENT, VFUN_R_DENIED,
		    "%s is read-only for this process: add ReadWritePaths=%s to its systemd unit", v->run, v->run);
	if (is_shortage(fd))
		return client_fail(v, fd, VFUN_OK, "%s: vfund can't be asked: %s", v->run, strerror(-fd));
	if (fd == -ECONNREFUSED)
		return client_fail(v, -ENOENT, VFUN_R_GONE,
		    "the share refuses the mount at %s: mount it without -o dax, DAX is used all the same", v->run);
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
	v->ctl = control_open(o->run, 0, v->run);
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
			r = path_find_bar(v, o->path);
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
	v->guest = !control_socket(v->ctl);
	v->pace.limit_ns = spin_limit(v, &o);
	start = client_ns();
	r = obtain(v, function, &o);
	if (!r)
		r = path_choose(v, &o);
	if (!r && v->event >= 0)
		r = client_pollable(v);
	close_fd(&v->bar);
	v->times.activate = client_ns() - start - v->times.negotiate;
	return r;
}

/* Phase 4 */

int
vfun_close(struct vfun *v, struct vfun_times *times)
{
	uint64_t start = client_ns();
	int fds[3];
	int r = 0;

	if (!v)
		return 0;
	path_unmap(v);
	close_fd(&v->out.fd);
	close_fd(&v->in.fd);
	close_fd(&v->bell);
	close_fd(&v->event);
	close_fd(&v->epoll);
	/* A child gives back what it has copies of, and leaves the instance to its parent. */
	if (v->mine && v->ctl >= 0 && v->active.instance) {
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
	(void)munmap(v, sizeof(*v));
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
	return !v ? "out of memory" : v->plain ? v->plain : v->text;
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
		{ VFUN_R_CANCELLED, "cancelled" },
		{ VFUN_R_LIMIT, "limit" },
		{ VFUN_R_SLOT_SEQ, "slot-seq" },
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].reason == reason)
			return names[i].name;
	return "unknown-reason";
}
