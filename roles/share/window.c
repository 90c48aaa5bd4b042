/* SPDX-License-Identifier: MIT
 *
 * window.c - the DAX window
 *
 * Theory of operation
 *
 * The guest asks by SETUPMAPPING for a piece of a file at a place in the window; QEMU is asked by SHMEM_MAP, with the
 * file's descriptor (back.c), and tells by ADD_MEM_REG where in the guest's memory the piece is, often after its
 * answer. The first of these tells where the window is, and so where all later pieces are. Until then, the guest isn't
 * answered: it could use the mapping for buffers that aren't known here yet. (Where ADD_MEM_REG doesn't come, after
 * REGION_MS: the mapping itself works.)
 *
 *   state           meaning                     leaves by
 *   NONE
 *   WANT            found by the guest's asking the pump, when the channel is free -> SENT; dropped -> NONE
 *   SENT            SHMEM_MAP is on its way      its answer -> ON, or NONE and the guest gets EIO
 *   ON              QEMU said yes                REMOVEMAPPING, the instance's end, a new mount -> UNMAP_WANT
 *   UNMAP_WANT      to be unmapped               the pump -> UNMAP_SENT
 *   UNMAP_SENT      SHMEM_UNMAP is on its way    its answer, whichever -> NONE
 *
 * A request waits and is executed again whenever something has changed; so it never holds anything. QEMU refuses to map
 * over a mapping, and reading before writing makes a guest ask twice for the same: the second finds it ON.
 *
 * QEMU 11.1 keeps a table of the memory that its back-end has taken by ADD_MEM_REG. When the guest's driver resets the
 * device (a reboot, a panic), QEMU takes the pieces of the window away, but not out of that table, and dies of them
 * when the driver starts again. A piece whose ADD_MEM_REG was refused isn't in the table. So it is refused, and what
 * a guest has there is found by our own list of mappings. (QEMU logs "vhost_set_mem_table failed" then, and goes on.)
 * Only while the device starts, after a pause, that would make the start fail: pieces that were there before are taken
 * then, and a reset while they are still in use is what remains.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "../common/log.h"
#include "share.h"

#define ANSWER_MS 10000u /* how long a guest's request waits for QEMU at most */
#define REGION_MS 1000u	 /* how long for ADD_MEM_REG after the answer */
#define PUMP_AGAIN_MS 10u
#define REMOVE_MAX 256u

static int
overlaps(const struct share_map *m, uint64_t moff, uint64_t len)
{
	/* Both ranges are inside the window: no overflow. */
	return m->state != MAP_NONE && moff < m->moff + m->len && m->moff < moff + len;
}

static void
map_drop(struct share *s, struct share_map *m)
{
	void **at = &s->map_ptr[m - s->st->map];

	if (*at)
		munmap(*at, m->len);
	*at = NULL;
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
			map_drop(s, &s->st->map[i]);
	window_pump(s);
}

void
window_drop_all(struct share *s)
{
	s->st->window_gpa = 0; /* another driver may have put it elsewhere */
	for (unsigned i = 0; i < SHARE_MAPS; i++)
		map_drop(s, &s->st->map[i]);
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
		map_drop(s, m);
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
window_await(const struct share *s, struct req *r, const struct share_map *m)
{
	if (m->state == MAP_ON && (s->st->window_gpa || (r->stage == 1 && r->deadline == REQ_LATE)))
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
			return window_await(s, r, m);
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

/* ---- QEMU ---- */

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

void
window_pump(struct share *s)
{
	struct share_map *m;

	while (!s->st->back_busy && s->k.fds[SLOT_BACK] >= 0 && back_device_runs(s) && (m = window_next(s))) {
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
		err = back_send(s, m, with);
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
	back_rest(s);
}

/* Is this new region a piece of the window? Then it tells where that is. */
int
window_region(struct share *s, uint64_t ino, const struct share_region *r)
{
	for (unsigned i = 0; i < SHARE_MAPS; i++) {
		struct share_map *m = &s->st->map[i];
		struct share_instance *in;

		if (m->state != MAP_SENT && m->state != MAP_ON)
			continue;
		in = tree_serial(s, m->serial);
		if (!in || in->ino[m->file] != ino || m->foff != r->offset || m->len != r->size || r->gpa < m->moff)
			continue;
		s->st->window_gpa = r->gpa - m->moff;
		return 1;
	}
	return 0;
}

void *
window_guest(struct share *s, uint64_t gpa, uint64_t len)
{
	uint64_t at = gpa - s->st->window_gpa;

	if (!s->st->window_gpa || gpa < s->st->window_gpa || at >= s->k.start.window)
		return NULL;
	for (unsigned i = 0; i < SHARE_MAPS; i++) {
		const struct share_map *m = &s->st->map[i];
		uint64_t off = at - m->moff;
		struct share_instance *in;

		if (m->state != MAP_ON || at < m->moff || off > m->len || len > m->len - off)
			continue;
		in = tree_serial(s, m->serial);
		if (!in)
			return NULL;
		if (!s->map_ptr[i])
			s->map_ptr[i] = mmap(NULL, m->len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
			    s->k.fds[SLOT_INSTANCE + 3 * share_index(s, in) + m->file], (off_t)m->foff);
		if (s->map_ptr[i] == MAP_FAILED)
			s->map_ptr[i] = NULL;
		return s->map_ptr[i] ? (char *)s->map_ptr[i] + off : NULL;
	}
	return NULL;
}

/* QEMU's answer for a mapping that is SENT or UNMAP_SENT. */
void
window_answer(struct share *s, struct share_map *m, uint64_t result)
{
	if (m->state == MAP_UNMAP_SENT) {
		m->state = MAP_NONE;
	} else if (result) {
		if (share_may_say(s))
			log_warn("VM %s: QEMU refuses a mapping of %llu bytes at %llu of the window", s->k.start.name,
			    (unsigned long long)m->len, (unsigned long long)m->moff);
		window_fail(s, m);
		m->state = MAP_NONE;
	} else {
		m->state = m->drop || !tree_serial(s, m->serial) ? MAP_UNMAP_WANT : MAP_ON;
	}
}
