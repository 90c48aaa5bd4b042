/* SPDX-License-Identifier: MIT
 *
 * window.c - the DAX window
 *
 * Theory of operation
 *
 * The guest asks by SETUPMAPPING for a piece of a file at a place in the window; QEMU is asked by SHMEM_MAP, with the
 * file's descriptor, on the back-end channel; it answers there, and tells of the new piece of guest memory by
 * ADD_MEM_REG on the other socket, often after its answer. Only when both are there is the guest answered: earlier it
 * could use the mapping for buffers that aren't known here yet. (Where ADD_MEM_REG doesn't come, after REGION_MS: the
 * mapping itself works.)
 *
 *   state           meaning                     leaves by
 *   NONE
 *   WANT            found by the guest's asking the pump, when the channel is free -> SENT; dropped -> NONE
 *   SENT            SHMEM_MAP is on its way      its answer -> ON, or NONE and the guest gets EIO
 *   ON              QEMU said yes                REMOVEMAPPING, the instance's end, a new mount -> UNMAP_WANT
 *   UNMAP_WANT      to be unmapped               the pump -> UNMAP_SENT
 *   UNMAP_SENT      SHMEM_UNMAP is on its way    its answer, whichever -> NONE
 *
 * One request is open at a time. `back_busy` is the number of the commit that sends it, written before the commit is
 * asked for; `back_consume` likewise for the commit that consumes the answer. So a successor knows, from the number of
 * commits that were done, whether to send again, to wait for the answer, or to go on.
 *
 * A request waits and is executed again whenever something has changed; so it never holds anything. QEMU refuses to map
 * over a mapping, and reading before writing makes a guest ask twice for the same: the second finds it ON.
 *
 * QEMU 11.1.3 dies of a null pointer when the guest's driver resets the device while anything is mapped: a guest that
 * reboots without unmounting ends its own VM. Unmounting unmaps everything (DESTROY, INIT).
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "../common/log.h"
#include "share.h"

#define BACK_SHMEM_MAP 9u
#define BACK_SHMEM_UNMAP 10u
#define MMAP_WRITE 1u	 /* flag: QEMU maps it writable, for an upgrade isn't possible */
#define ANSWER_MS 10000u /* how long a guest's request waits for QEMU at most */
#define REGION_MS 1000u	 /* how long for ADD_MEM_REG after the answer */
#define PUMP_AGAIN_MS 10u
#define REMOVE_MAX 256u

struct shmem_mmap {
	uint8_t shmid;
	uint8_t pad[7];
	uint64_t fd_offset;
	uint64_t shm_offset;
	uint64_t len;
	uint64_t flags;
};

static int
overlaps(const struct share_map *m, uint64_t moff, uint64_t len)
{
	/* Both ranges are inside the window: no overflow. */
	return m->state != MAP_NONE && moff < m->moff + m->len && m->moff < moff + len;
}

static void
map_drop(struct share_map *m)
{
	switch (m->state) {
	case MAP_WANT:
		m->state = MAP_NONE;
		break;
	case MAP_SENT:
		m->drop = 1;
		break;
	case MAP_ON:
		m->state = MAP_UNMAP_WANT;
		break;
	default:
		break;
	}
}

void
window_drop_instance(struct share *s, uint64_t serial)
{
	for (unsigned i = 0; i < SHARE_MAPS; i++)
		if (s->st->map[i].serial == serial)
			map_drop(&s->st->map[i]);
	window_pump(s);
}

void
window_drop_all(struct share *s)
{
	for (unsigned i = 0; i < SHARE_MAPS; i++)
		map_drop(&s->st->map[i]);
	window_pump(s);
}

/* ---- requests of the guest ---- */

/* Drop what is in the way of [moff, moff + len). 1: something still is. */
static int
window_clear(struct share *s, uint64_t moff, uint64_t len)
{
	int busy = 0;

	for (unsigned i = 0; i < SHARE_MAPS; i++) {
		struct share_map *m = &s->st->map[i];

		if (!overlaps(m, moff, len))
			continue;
		map_drop(m);
		busy |= m->state != MAP_NONE;
	}
	return busy;
}

static int
window_wait(struct req *r, uint32_t stage, uint64_t ms)
{
	if (!r->deadline || r->stage != stage)
		r->deadline = share_now() + ms;
	r->stage = stage;
	r->wait = WAIT_WINDOW;
	return REQ_WAIT;
}

static int
window_new(
    struct share *s, const struct fuse_setupmapping_in *a, const struct share_instance *in, uint32_t file, uint64_t len)
{
	for (unsigned i = 0; i < SHARE_MAPS; i++) {
		struct share_map *m = &s->st->map[i];

		if (m->state != MAP_NONE)
			continue;
		*m = (struct share_map){ .file = file,
			.order = s->st->next_order++,
			.moff = a->moffset,
			.len = len,
			.foff = a->foffset,
			.serial = in->serial };
		state_order();
		m->state = MAP_WANT;
		return 0;
	}
	return -ENOMEM;
}

/* Wait for a mapping that is the one asked for. */
static int
window_await(struct req *r, const struct share_map *m)
{
	if (m->state == MAP_ON && (m->region || (r->stage == 1 && r->deadline == REQ_LATE)))
		return 0;
	if (m->state == MAP_ON)
		return window_wait(r, 1, REGION_MS);
	return r->deadline == REQ_LATE ? -EIO : window_wait(r, 0, ANSWER_MS);
}

int
window_setup(struct share *s, struct req *r, const struct fuse_setupmapping_in *a)
{
	enum share_file file;
	struct share_instance *in = tree_instance(s, r->u.hdr.nodeid, &file);
	uint64_t window = s->k.start.window;
	uint64_t len = a->len;
	int err;

	if (r->err)
		return r->err;
	if (!s->st->dax)
		return -EOPNOTSUPP;
	if (!in)
		return -ENOENT;
	if ((file != FILE_OUT && file != FILE_IN) || !tree_dax(s, in))
		return -EINVAL;
	if (!tree_may(in, r->u.hdr.uid))
		return -EACCES;
	if (a->moffset % VFUN_PAGE || a->foffset % VFUN_PAGE || len % VFUN_PAGE || !len || a->moffset >= window ||
	    len > window - a->moffset || a->foffset >= in->size[file])
		return -EINVAL;
	if (len > in->size[file] - a->foffset)
		len = in->size[file] - a->foffset;
	for (unsigned i = 0; i < SHARE_MAPS; i++) {
		const struct share_map *m = &s->st->map[i];

		if (m->state >= MAP_WANT && m->state <= MAP_ON && !m->drop && m->moff == a->moffset && m->len == len &&
		    m->foff == a->foffset && m->serial == in->serial && m->file == (uint32_t)file)
			return window_await(r, m);
	}
	/* Two that want the same place could otherwise drop each other's wish for ever. */
	if (r->deadline == REQ_LATE)
		return -EIO;
	if (window_clear(s, a->moffset, len)) {
		window_wait(r, 0, ANSWER_MS);
		window_pump(s);
		return REQ_WAIT;
	}
	err = window_new(s, a, in, file, len);
	if (err)
		return err;
	window_wait(r, 0, ANSWER_MS);
	window_pump(s);
	return REQ_WAIT;
}

int
window_remove(struct share *s, struct req *r, const void *arg, size_t len)
{
	uint64_t window = s->k.start.window;
	uint32_t count;
	int busy = 0;

	memcpy(&count, arg, sizeof(count));
	if (count > REMOVE_MAX || len != sizeof(count) + count * sizeof(struct fuse_removemapping_one))
		return -EINVAL;
	for (uint32_t i = 0; i < count; i++) {
		struct fuse_removemapping_one one;

		memcpy(&one, (const char *)arg + sizeof(count) + i * sizeof(one), sizeof(one));
		if (one.moffset >= window)
			continue;
		if (one.len > window - one.moffset) /* ~0: all the rest */
			one.len = window - one.moffset;
		busy |= window_clear(s, one.moffset, one.len);
	}
	if (!busy)
		return 0;
	if (r->deadline == REQ_LATE)
		return -EIO;
	window_wait(r, 0, ANSWER_MS);
	window_pump(s);
	return REQ_WAIT;
}

/* ---- requests to QEMU ---- */

/* QEMU refused: those who wait for this mapping get the error. */
static void
window_fail(struct share *s, const struct share_map *m)
{
	for (unsigned i = 0; i < REQUESTS_MAX; i++) {
		struct req *r = &s->req[i];
		const struct fuse_setupmapping_in *a = (const void *)(r->u.in + sizeof(r->u.hdr));

		if (r->used && r->wait == WAIT_WINDOW && r->u.hdr.opcode == FUSE_SETUPMAPPING &&
		    a->moffset == m->moff) {
			r->err = -EIO;
			r->deadline = REQ_LATE;
		}
	}
}

/* The oldest mapping that something has to be done about. */
static struct share_map *
window_next(struct share *s)
{
	struct share_map *best = NULL;

	for (unsigned i = 0; i < SHARE_MAPS; i++) {
		struct share_map *m = &s->st->map[i];

		if ((m->state == MAP_WANT || m->state == MAP_UNMAP_WANT) && (!best || m->order < best->order))
			best = m;
	}
	return best;
}

/* Send the request for one mapping. 0, or -errno with everything as it was. */
static int
window_send(struct share *s, struct share_map *m, int with)
{
	int map = m->state == MAP_WANT;
	struct {
		uint32_t request, flags, size;
		struct shmem_mmap p;
	} __attribute__((packed)) msg = {
		.request = map ? BACK_SHMEM_MAP : BACK_SHMEM_UNMAP,
		.flags = VHOST_VERSION | VHOST_NEED_REPLY,
		.size = sizeof(msg.p),
		.p = { .fd_offset = map ? m->foff : 0,
		    .shm_offset = m->moff,
		    .len = m->len,
		    .flags = map ? MMAP_WRITE : 0 },
	};
	int err;

	s->st->back_consume = 0;
	state_order();
	m->state = map ? MAP_SENT : MAP_UNMAP_SENT;
	state_order();
	s->st->back_busy = s->k.commits + 1;
	state_order();
	err = keep_commit(&s->k, SLOT_BACK, 0, &msg, sizeof(msg), with);
	if (err) {
		s->st->back_busy = 0;
		state_order();
		m->state = map ? MAP_WANT : MAP_UNMAP_WANT;
	}
	return err;
}

void
window_pump(struct share *s)
{
	struct share_map *m;

	while (!s->st->back_busy && s->k.fds[SLOT_BACK] >= 0 && (m = window_next(s))) {
		struct share_instance *in = tree_serial(s, m->serial);
		int with = -1;
		int err;

		if (m->state == MAP_WANT) {
			if (!in) {
				m->state = MAP_NONE;
				continue;
			}
			with = (int)(SLOT_INSTANCE + 3 * share_index(s, in) + m->file);
		}
		err = window_send(s, m, with);
		if (err == -EAGAIN) {
			s->pump_at = share_now() + PUMP_AGAIN_MS;
			return;
		}
		if (err) {
			log_warn("VM %s: asking QEMU for a mapping: %s", s->k.start.name, strerror(-err));
			window_fail(s, m);
			m->state = MAP_NONE;
		}
	}
}

void
window_region(struct share *s, uint64_t ino, uint64_t offset, uint64_t size)
{
	for (unsigned i = 0; i < SHARE_MAPS; i++) {
		struct share_map *m = &s->st->map[i];
		struct share_instance *in;

		if (m->state != MAP_SENT && m->state != MAP_ON)
			continue;
		in = tree_serial(s, m->serial);
		if (in && in->ino[m->file] == ino && m->foff == offset && m->len == size)
			m->region = 1;
	}
}

/* The answer to the open request. Which mapping it is for is told by its state; a predecessor may have acted already.
 */
static void
window_answer(struct share *s, uint64_t result)
{
	for (unsigned i = 0; i < SHARE_MAPS; i++) {
		struct share_map *m = &s->st->map[i];

		if (m->state == MAP_UNMAP_SENT) {
			m->state = MAP_NONE;
		} else if (m->state == MAP_SENT && result) {
			if (share_may_say(s))
				log_warn("VM %s: QEMU refuses a mapping of %llu bytes at %llu of the window",
				    s->k.start.name, (unsigned long long)m->len, (unsigned long long)m->moff);
			window_fail(s, m);
			m->state = MAP_NONE;
		} else if (m->state == MAP_SENT) {
			m->state = m->drop || !tree_serial(s, m->serial) ? MAP_UNMAP_WANT : MAP_ON;
		}
	}
}

/* Look at the channel: act on the answer, consume it, send what is next. */
void
window_ready(struct loop_src *src, uint32_t events)
{
	struct share *s = loop_container(src, struct share, back);
	struct {
		uint32_t request, flags, size;
		uint64_t result;
	} __attribute__((packed)) msg;
	long n = peek(src->fd, &msg, sizeof(msg), NULL, 0, NULL);
	int err;

	(void)events;
	if (n == -EAGAIN)
		return;
	/* QEMU writes an answer in one piece. */
	if (n < (long)sizeof(msg) || !(msg.flags & VHOST_REPLY) || msg.size != sizeof(msg.result) ||
	    !s->st->back_busy) {
		/* Without this channel there are no new mappings; the end of the VM is seen on the other socket. */
		if (n != 0 && n != -ECONNRESET)
			log_warn("VM %s: QEMU breaks the back-end channel's protocol", s->k.start.name);
		loop_del(&s->loop, src);
		(void)keep_drop(&s->k, SLOT_BACK);
		return;
	}
	window_answer(s, msg.result);
	state_order();
	s->st->back_consume = s->k.commits + 1;
	state_order();
	err = keep_commit(&s->k, SLOT_BACK, sizeof(msg), NULL, 0, -1);
	if (err)
		share_fatal(s, "consuming QEMU's answer", err);
	s->st->back_busy = 0;
	window_pump(s);
	share_retry(s, WAIT_WINDOW);
}

void
window_takeover(struct share *s)
{
	struct share_state *st = s->st;

	/* Announced but never sent: as if it had not been announced. */
	if (st->back_busy > s->k.commits)
		st->back_busy = 0;
	/* The answer was consumed. */
	if (st->back_busy && st->back_consume && st->back_consume <= s->k.commits)
		st->back_busy = 0;
	for (unsigned i = 0; i < SHARE_MAPS && !st->back_busy; i++) {
		struct share_map *m = &st->map[i];

		if (m->state == MAP_SENT)
			m->state = MAP_WANT;
		else if (m->state == MAP_UNMAP_SENT)
			m->state = MAP_UNMAP_WANT;
	}
}
