/* SPDX-License-Identifier: MIT
 *
 * vhost.c - messages of the front-end (QEMU)
 *
 * Theory of operation
 *
 * vhost-user messages are a fixed header and a payload, on a stream, some with descriptors. Each is looked at, acted on
 * in a way that may be repeated, and then consumed and answered by one commit of the launcher (keep.h): a worker killed
 * in between leaves the message for its successor.
 *
 * QEMU isn't the enemy, but what a guest makes it say passes through here, and a QEMU that was taken over talks here
 * as well. So sizes are exact, counts bounded, indices checked. A front-end that breaks the framing can't be talked to
 * any further: the share ends, as if the VM had gone. One that asks for nonsense is told so, where the protocol has an
 * answer for it, and disconnected where it has none.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_fs.h>
#include <linux/virtio_ring.h>

#include "../common/log.h"
#include "../common/qemu.h"
#include "share.h"

enum vhost_request {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	RESET_OWNER = 4,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	SET_VRING_ERR = 14,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	GET_QUEUE_NUM = 17,
	SET_VRING_ENABLE = 18,
	SET_BACKEND_REQ_FD = 21,
	GET_CONFIG = 24,
	SET_CONFIG = 25,
	RESET_DEVICE = 34,
	GET_MAX_MEM_SLOTS = 36,
	ADD_MEM_REG = 37,
	REM_MEM_REG = 38,
	SET_STATUS = 39,
	GET_STATUS = 40,
	GET_SHMEM_CONFIG = 44,
};

#define F_PROTOCOL_FEATURES (1ull << 30)
#define FEATURES (1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC | F_PROTOCOL_FEATURES)

#define P_REPLY_ACK (1ull << 3)
#define PROTOCOL                                                                                                       \
	(1ull << 0 /* MQ */ | P_REPLY_ACK | 1ull << 5 /* BACKEND_REQ */ | 1ull << 9 /* CONFIG */ |                     \
	    1ull << 10 /* BACKEND_SEND_FD */ | 1ull << 13 /* RESET_DEVICE */ | 1ull << 15 /* CONFIGURE_MEM_SLOTS */ |  \
	    1ull << 16 /* STATUS */ | 1ull << PROTOCOL_SHMEM)

#define VRING_NOFD 0x100u
#define FRONT_TURN 16u /* messages before it is others' turn */
#define CONFIG_MAX 256u
#define MEM_TABLE_MAX 8u

struct vring_state {
	uint32_t index;
	uint32_t num;
};

struct vring_addr {
	uint32_t index;
	uint32_t flags;
	uint64_t desc, used, avail, log;
};

struct mem_entry {
	uint64_t gpa, size, uva, offset;
};

struct config {
	uint32_t offset, size, flags;
	uint8_t data[CONFIG_MAX];
};

/* The answer: `len` bytes of payload. */
static int
answer(struct vhost_msg *m, const void *payload, uint32_t len, uint32_t *reply)
{
	m->flags = VHOST_VERSION | VHOST_REPLY;
	m->size = len;
	memmove(m->payload, payload, len);
	*reply = VHOST_HDR + len;
	return 0;
}

static int
answer_u64(struct vhost_msg *m, uint64_t v, uint32_t *reply)
{
	return answer(m, &v, sizeof(v), reply);
}

/* ---- memory ---- */

static void
region_from(struct share_region *r, const struct mem_entry *e)
{
	*r = (struct share_region){ .gpa = e->gpa, .size = e->size, .uva = e->uva, .offset = e->offset };
}

static int
set_mem_table(struct share *s, const struct vhost_msg *m, int *fds, int nfds)
{
	uint32_t n;

	if (m->size < 8)
		return -EPROTO;
	memcpy(&n, m->payload, sizeof(n));
	if (n > MEM_TABLE_MAX || m->size != 8 + n * sizeof(struct mem_entry) || nfds != (int)n)
		return -EPROTO;
	mem_clear(s);
	for (uint32_t i = 0; i < n; i++) {
		struct mem_entry e;
		struct share_region r;
		int err;

		memcpy(&e, m->payload + 8 + i * sizeof(e), sizeof(e));
		region_from(&r, &e);
		err = mem_add(s, &r, &fds[i]);
		if (err)
			return err;
	}
	return 0;
}

/* A piece of the window, which QEMU must not believe to be taken: see window.c. */
static int
mem_unwanted(struct share *s, const struct vhost_msg *m, const struct share_region *r, int fd)
{
	struct stat st;

	return (m->flags & VHOST_NEED_REPLY) && (s->st->protocol & P_REPLY_ACK) && back_device_runs(s) &&
	       !fstat(fd, &st) && window_region(s, st.st_ino, r);
}

static int
mem_reg(struct share *s, struct vhost_msg *m, int *fds, int nfds, uint32_t *reply)
{
	struct mem_entry e;
	struct share_region r;

	if (m->size != 8 + sizeof(e))
		return -EPROTO;
	memcpy(&e, m->payload + 8, sizeof(e));
	region_from(&r, &e);
	if (m->request == REM_MEM_REG)
		return mem_remove(s, &r); /* some front-ends send the descriptor along: nobody needs it */
	if (nfds != 1)
		return -EPROTO;
	return mem_unwanted(s, m, &r, fds[0]) ? answer_u64(m, 1, reply) : mem_add(s, &r, &fds[0]);
}

/* ---- rings ---- */

/* A driver looks at a device that was stopped, or starts a queue elsewhere than where it was stopped: the guest was
 * reset. What it held open is gone with it. A stop alone says nothing: it may be a pause, after which all goes on. */
static void
driver_anew(struct share *s)
{
	if (!tree_in_use(s))
		return;
	if (share_may_say(s))
		log_info("VM %s was reset: what it had open is closed", s->k.start.name);
	fuse_forget_mount(s);
}

static int
vring_state(struct share *s, struct vhost_msg *m, uint32_t *reply)
{
	struct vring_state v;
	struct share_ring *r;

	if (m->size != sizeof(v))
		return -EPROTO;
	memcpy(&v, m->payload, sizeof(v));
	if (v.index >= SHARE_QUEUES)
		return -EINVAL;
	r = &s->st->ring[v.index];
	switch (m->request) {
	case SET_VRING_NUM:
		if (!v.num || v.num > SHARE_QSIZE || (v.num & (v.num - 1)))
			return -EINVAL;
		r->num = v.num;
		s->queue[v.index].desc = NULL;
		return 0;
	case SET_VRING_BASE:
		if (v.num > UINT16_MAX)
			return -EINVAL;
		if (!r->started && v.num != (uint16_t)(r->base + r->popped))
			driver_anew(s);
		/* The place where it was stopped: the same ring goes on, with what waits in it. */
		if (r->started || r->broken || !v.num || v.num != (uint16_t)(r->base + r->popped)) {
			virtq_forget(s, v.index);
			r->started = 0;
			r->broken = 0;
			r->popped = 0;
			r->base = v.num;
		}
		return 0;
	case GET_VRING_BASE:
		virtq_stop(s, v.index);
		v.num = (uint16_t)(r->base + r->popped);
		return answer(m, &v, sizeof(v), reply);
	default: /* SET_VRING_ENABLE */
		if (v.num > 1)
			return -EINVAL;
		r->enabled = v.num;
		return 0;
	}
}

static int
set_vring_addr(struct share *s, const struct vhost_msg *m)
{
	struct vring_addr a;
	struct share_ring *r;

	if (m->size != sizeof(a))
		return -EPROTO;
	memcpy(&a, m->payload, sizeof(a));
	if (a.index >= SHARE_QUEUES || a.flags)
		return -EINVAL;
	r = &s->st->ring[a.index];
	r->desc = a.desc;
	r->avail = a.avail;
	r->used = a.used;
	s->queue[a.index].desc = NULL;
	return 0;
}

void
vhost_kick_watch(struct share *s, unsigned q)
{
	struct loop_src *src = &s->queue[q].kick;

	src->fd = s->k.fds[SLOT_KICK + q];
	src->fn = virtq_kicked;
	if (src->fd >= 0 && loop_add(&s->loop, src, EPOLLIN) && share_may_say(s))
		log_warn("VM %s: queue %u: its kick descriptor can't be waited for", s->k.start.name, q);
}

static int
set_vring_fd(struct share *s, const struct vhost_msg *m, int *fds, int nfds)
{
	uint64_t v;
	unsigned q, slot;
	int err;

	if (m->size != sizeof(v))
		return -EPROTO;
	memcpy(&v, m->payload, sizeof(v));
	q = (unsigned)(v & 0xff);
	if (v & ~(uint64_t)(VRING_NOFD | 0xff) || q >= SHARE_QUEUES || nfds != (v & VRING_NOFD ? 0 : 1))
		return -EINVAL;
	slot = (m->request == SET_VRING_KICK ? SLOT_KICK : m->request == SET_VRING_CALL ? SLOT_CALL : SLOT_ERR) + q;
	if (m->request == SET_VRING_KICK && s->k.fds[slot] >= 0)
		loop_del(&s->loop, &s->queue[q].kick);
	if (!nfds)
		return keep_drop(&s->k, slot);
	err = keep_store(&s->k, slot, fds[0]);
	if (err)
		return err;
	fds[0] = -1;
	if (m->request == SET_VRING_KICK) {
		vhost_kick_watch(s, q);
		if (!(s->st->features & F_PROTOCOL_FEATURES))
			s->st->ring[q].enabled = 1;
		virtq_start(s, q);
	}
	return 0;
}

/* ---- the rest ---- */

static int
get_config(struct share *s, struct vhost_msg *m, uint32_t *reply)
{
	struct virtio_fs_config fs = { .tag = QEMU_TAG, .num_request_queues = 1 };
	struct config c;
	int stopped = 1;

	if (m->size < offsetof(struct config, data) || m->size > sizeof(c))
		return -EPROTO;
	memcpy(&c, m->payload, m->size);
	if (c.size != m->size - offsetof(struct config, data))
		return -EPROTO;
	for (unsigned q = 0; q < SHARE_QUEUES; q++)
		stopped &= !s->st->ring[q].started;
	if (stopped)
		driver_anew(s);
	memset(c.data, 0, sizeof(c.data));
	for (uint32_t i = 0; i < c.size; i++)
		if (c.offset < sizeof(fs) && i < sizeof(fs) - c.offset)
			c.data[i] = ((uint8_t *)&fs)[c.offset + i];
	return answer(m, &c, m->size, reply);
}

static int
get_shmem_config(struct share *s, struct vhost_msg *m, uint32_t *reply)
{
	struct {
		uint32_t regions, pad;
		uint64_t size[256];
	} c = { .regions = 1, .size = { [VIRTIO_FS_SHMCAP_ID_CACHE] = s->k.start.window } };

	_Static_assert(sizeof(c) == VHOST_PAYLOAD_MAX, "GET_SHMEM_CONFIG");
	return answer(m, &c, sizeof(c), reply);
}

static int
set_back(struct share *s, int *fds, int nfds)
{
	int err;

	if (nfds != 1)
		return -EPROTO;
	if (s->k.fds[SLOT_BACK] >= 0)
		loop_del(&s->loop, &s->back);
	/* What can't be waited for isn't kept: no successor could live with it. */
	s->back.fd = fds[0];
	err = loop_add(&s->loop, &s->back, BACK_EVENTS);
	if (!err)
		err = keep_store(&s->k, SLOT_BACK, fds[0]);
	if (err) {
		(void)keep_drop(&s->k, SLOT_BACK);
		return err;
	}
	fds[0] = -1;
	return 0;
}

static int
get_u64(const struct vhost_msg *m, uint64_t *v)
{
	if (m->size != sizeof(*v))
		return -EPROTO;
	memcpy(v, m->payload, sizeof(*v));
	return 0;
}

static int
set_features(struct share *s, const struct vhost_msg *m)
{
	uint64_t known = m->request == SET_FEATURES ? FEATURES : PROTOCOL;
	uint64_t v;

	if (get_u64(m, &v))
		return -EPROTO;
	if (v & ~known)
		return -EINVAL;
	if (m->request == SET_FEATURES)
		s->st->features = v;
	else
		s->st->protocol = v;
	return 0;
}

static int
set_status(struct share *s, const struct vhost_msg *m)
{
	uint64_t v;

	if (get_u64(m, &v) || v > 0xff)
		return -EPROTO;
	s->st->status = (uint32_t)v;
	return 0;
}

static int
dispatch(struct share *s, struct vhost_msg *m, int *fds, int nfds, uint32_t *reply)
{
	switch (m->request) {
	case GET_FEATURES:
		return answer_u64(m, FEATURES, reply);
	case GET_PROTOCOL_FEATURES:
		return answer_u64(m, PROTOCOL, reply);
	case GET_QUEUE_NUM:
		return answer_u64(m, SHARE_QUEUES, reply);
	case GET_MAX_MEM_SLOTS:
		return answer_u64(m, SHARE_REGIONS, reply);
	case GET_STATUS:
		return answer_u64(m, s->st->status, reply);
	case GET_CONFIG:
		return get_config(s, m, reply);
	case GET_SHMEM_CONFIG:
		return get_shmem_config(s, m, reply);
	case SET_FEATURES:
	case SET_PROTOCOL_FEATURES:
		return set_features(s, m);
	case SET_STATUS:
		return set_status(s, m);
	case SET_OWNER:
	case RESET_OWNER:
	case RESET_DEVICE: /* the guest's driver sets the rings up anew, and its mount says INIT */
	case SET_CONFIG:   /* nothing in it can be changed */
		return 0;
	case SET_MEM_TABLE:
		return set_mem_table(s, m, fds, nfds);
	case ADD_MEM_REG:
	case REM_MEM_REG:
		return mem_reg(s, m, fds, nfds, reply);
	case SET_VRING_NUM:
	case SET_VRING_BASE:
	case GET_VRING_BASE:
	case SET_VRING_ENABLE:
		return vring_state(s, m, reply);
	case SET_VRING_ADDR:
		return set_vring_addr(s, m);
	case SET_VRING_KICK:
	case SET_VRING_CALL:
	case SET_VRING_ERR:
		return set_vring_fd(s, m, fds, nfds);
	case SET_BACKEND_REQ_FD:
		return set_back(s, fds, nfds);
	default:
		return -EOPNOTSUPP;
	}
}

int
vhost_message(struct share *s, struct vhost_msg *m, int *fds, int nfds, uint32_t *reply)
{
	uint32_t request = m->request;
	int ack = (m->flags & VHOST_NEED_REPLY) && (s->st->protocol & P_REPLY_ACK);
	int err = dispatch(s, m, fds, nfds, reply);

	if (err && share_may_say(s))
		log_warn("VM %s: vhost-user request %u: %s", s->k.start.name, request, strerror(-err));
	if (!err && *reply)
		return 0;
	if (ack)
		return answer_u64(m, err ? 1 : 0, reply);
	return err;
}

/* Look at the next message: its length, 0 at the end of the stream, -EAGAIN, or -EPROTO. */
static long
front_peek(struct share *s, struct vhost_msg *m, int *fds, int *nfds)
{
	long n = peek(s->front.fd, m, VHOST_HDR, NULL, 0, NULL);

	if (n <= 0)
		return n;
	if (n < (long)VHOST_HDR)
		return -EAGAIN;
	if ((m->flags & 3) != VHOST_VERSION || (m->flags & VHOST_REPLY) || m->size > VHOST_PAYLOAD_MAX)
		return -EPROTO;
	n = peek(s->front.fd, m, VHOST_HDR + m->size, fds, VHOST_FDS_MAX, nfds);
	return n == (long)(VHOST_HDR + m->size) ? n : n < 0 ? n : -EAGAIN;
}

/* One message. 1, 0 when there is none for now. Ends the process with its VM. */
static int
front_one(struct share *s)
{
	struct vhost_msg m;
	int fds[VHOST_FDS_MAX];
	int nfds = 0;
	uint32_t reply = 0;
	long n = front_peek(s, &m, fds, &nfds);
	int err = n > 0 ? vhost_message(s, &m, fds, nfds, &reply) : 0;

	for (int i = 0; i < nfds; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (n == -EAGAIN)
		return 0;
	if (n == 0 || n == -ECONNRESET || n == -EPIPE) {
		log_info("VM %s has gone", s->k.start.name);
		share_quit(s, 0);
	}
	if (n < 0 || err) {
		log_err("VM %s: disconnected: %s", s->k.start.name,
		    n < 0 ? "this isn't vhost-user" : "its front-end asks for what can't be done");
		share_quit(s, 0);
	}
	err = keep_commit(&s->k, SLOT_FRONT, (uint32_t)n, &m, reply, -1);
	if (err)
		share_fatal(s, "answering the front-end", err);
	return 1;
}

void
vhost_front(struct share *s)
{
	unsigned n = 0;

	s->front_retry = 0;
	while (n < FRONT_TURN && front_one(s))
		n++;
	/* Half a message would make epoll report the socket again and again: look a little later instead. */
	loop_del(&s->loop, &s->front);
	if (n < FRONT_TURN && peek(s->front.fd, &(char){ 0 }, 1, NULL, 0, NULL) > 0)
		s->front_retry = share_now() + 10;
	else
		loop_add(&s->loop, &s->front, EPOLLIN);
	/* Memory may have changed, rings may have been started: of what waits anything may be possible now. */
	window_pump(s);
	for (enum wait_for w = WAIT_ENGINE; w <= WAIT_RING; w++)
		share_retry(s, w);
	for (unsigned q = 0; q < SHARE_QUEUES; q++)
		virtq_process(s, q);
}

void
vhost_ready(struct loop_src *src, uint32_t events)
{
	(void)events;
	vhost_front(loop_container(src, struct share, front));
}
