/* SPDX-License-Identifier: MIT
 *
 * engine.c - the engine's channel
 *
 * Theory of operation
 *
 * What the engine says is looked at, acted on in a way that may be repeated, and then consumed, so that a successor of
 * this worker finds what was not yet done. What the share has to say is not queued anywhere: engine_flush() looks at
 * what is (requests not sent, handles closed, leases ended) and says what this engine hasn't been told; a new engine is
 * told everything again.
 *
 * An instance whose service has ended (IM_DEL) is no longer in the tree, but its files stay readable and mapped for who
 * has them open: the answers are in there. When the last of them is closed, and the control handle that activated it is
 * closed or has released it, it is taken apart, and the engine is told (IM_FREE): its memory, or its place in the VM's
 * ivshmem BAR, is then given to others.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "share.h"

#define SERIAL_START 16u /* see tree.c */
#define FLUSH_AGAIN_MS 10u
#define ENGINE_ANSWER_MS 60000u
#define ADD_MS 2000u /* how long the reply to ACTIVATE waits for the instance, which comes from the launcher */

/* ---- instances ---- */

/* The parts of an instance that are this process's own. */
int
engine_open(struct share *s, struct share_instance *in)
{
	unsigned i = share_index(s, in);
	struct share_local *l = &s->local[i];
	void *p = mmap(
	    NULL, VFUN_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, s->k.fds[SLOT_INSTANCE + 3 * i], (off_t)in->off[0]);

	l->told = 0;
	l->free_at = 0;
	if (p == MAP_FAILED)
		return -errno;
	l->page = p;
	l->ring.fd = s->k.fds[SLOT_INSTANCE + 3 * i + 2];
	l->ring.fn = data_rung;
	return loop_add(&s->loop, &l->ring, EPOLLIN);
}

static void
instance_free(struct share *s, struct share_instance *in)
{
	unsigned i = share_index(s, in);
	struct share_local *l = &s->local[i];

	window_drop_instance(s, in->serial);
	if (l->page) {
		loop_del(&s->loop, &l->ring);
		munmap(l->page, VFUN_PAGE);
		l->page = NULL;
	}
	in->valid = 0;
	state_order();
	for (unsigned f = 0; f < 3; f++)
		(void)keep_drop(&s->k, SLOT_INSTANCE + 3 * i + f);
}

static struct share_instance *
instance_find(struct share *s, uint64_t id)
{
	for (unsigned i = 0; i < SHARE_INSTANCES; i++) {
		struct share_instance *in = &s->st->instance[i];

		if (in->valid && in->id == id)
			return in;
	}
	return NULL;
}

static int
folder_ok(const char *name)
{
	size_t n = strnlen(name, VFUN_FOLDER_MAX);

	return n && n < VFUN_FOLDER_MAX && !strchr(name, '/') && name[0] != '.' && strcmp(name, "control");
}

static int
region_ok(int fd, uint64_t off, uint64_t size, uint64_t *ino)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !size || size % VFUN_PAGE || off % VFUN_PAGE)
		return 0;
	if (off ? off > (uint64_t)st.st_size || size > (uint64_t)st.st_size - off : size != (uint64_t)st.st_size)
		return 0;
	*ino = st.st_ino;
	return 1;
}

/* Fill a free place and mark it as valid. 0 or -errno. */
static int
instance_fill(struct share *s, struct share_instance *in, const struct keep_add *m, int fds[3])
{
	struct share_state *st = s->st;
	unsigned i = share_index(s, in);

	memset(in, 0, sizeof(*in));
	if (!folder_ok(m->folder) || !region_ok(fds[0], m->out_off, m->out_size, &in->ino[0]) ||
	    !region_ok(fds[1], m->in_off, m->in_size, &in->ino[1]))
		return -EINVAL;
	for (unsigned f = 0; f < 3; f++) {
		int err = keep_store(&s->k, SLOT_INSTANCE + 3 * i + f, fds[f]);

		if (err)
			return err;
		fds[f] = -1;
	}
	if (st->next_serial < SERIAL_START)
		st->next_serial = SERIAL_START;
	in->serial = st->next_serial++;
	in->id = m->id;
	in->size[0] = m->out_size;
	in->size[1] = m->in_size;
	in->off[0] = m->out_off;
	in->off[1] = m->in_off;
	in->creator = m->handle;
	in->uid = m->uid;
	in->gid = m->gid;
	memcpy(in->folder, m->folder, sizeof(in->folder));
	state_order();
	in->valid = 1;
	return 0;
}

static int
engine_send(struct share *s, const struct imsg *m)
{
	int err = s->engine.fd < 0 ? -ENOTCONN : fd_send(s->engine.fd, m, sizeof(*m), NULL, 0);

	if (err == -EAGAIN)
		s->flush_at = share_now() + FLUSH_AGAIN_MS;
	return err;
}

void
engine_add(struct share *s, const struct keep_add *m, int fds[3], int nfds)
{
	struct share_instance *in = NULL;
	int err;

	if (instance_find(s, m->id))
		return;
	for (unsigned i = 0; i < SHARE_INSTANCES && !in; i++)
		if (!s->st->instance[i].valid)
			in = &s->st->instance[i];
	err = nfds != 3 ? -EPROTO : !in ? -ENOSPC : instance_fill(s, in, m, fds);
	if (!err)
		err = engine_open(s, in);
	if (err) {
		if (in)
			instance_free(s, in);
		log_warn("VM %s: instance %.*s: %s", s->k.start.name, VFUN_FOLDER_MAX - 1, m->folder, strerror(-err));
		/* Nobody can hold it open, so that nobody would ever close it. */
		(void)engine_send(s, &(struct imsg){ .type = IM_LEASE_END, .instance = m->id });
		s->refused = m->id;
		share_retry(s, WAIT_ENGINE);
		return;
	}
	log_debug("VM %s: %s is there", s->k.start.name, in->folder);
	tree_lease(s, in);
	share_retry(s, WAIT_ENGINE);
}

static void
engine_del(struct share *s, const struct imsg *m)
{
	struct share_instance *in = instance_find(s, m->instance);

	if (!in) {
		(void)engine_send(s, &(struct imsg){ .type = IM_FREE, .instance = m->instance });
		return;
	}
	if (!in->dying)
		log_debug("VM %s: %s is gone", s->k.start.name, in->folder);
	in->dying = 1;
	if (!m->handle)
		in->creator = 0;
	s->local[share_index(s, in)].free_at = 0;
	share_retry(s, WAIT_BELL);
	engine_dying(s, share_now());
}

/* Does nobody read it any more, and has the engine been told? Where that isn't possible now: again in a moment, or,
 * with a new engine, when that asks. */
static int
may_free(struct share *s, const struct share_instance *in, uint64_t now)
{
	struct share_local *l = &s->local[share_index(s, in)];

	if (now < l->free_at)
		return 0;
	l->free_at = 0;
	if (tree_held(s, in))
		return 0;
	if (engine_send(s, &(struct imsg){ .type = IM_FREE, .instance = in->id }) != -EAGAIN)
		return 1;
	l->free_at = now + FLUSH_AGAIN_MS;
	return 0;
}

void
engine_dying(struct share *s, uint64_t now)
{
	for (unsigned i = 0; i < SHARE_INSTANCES; i++) {
		struct share_instance *in = &s->st->instance[i];

		if (in->valid && in->dying && may_free(s, in, now))
			instance_free(s, in);
	}
}

uint64_t
engine_deadline(const struct share *s)
{
	uint64_t at = 0;

	for (unsigned i = 0; i < SHARE_INSTANCES; i++)
		if (s->st->instance[i].valid && s->st->instance[i].dying && s->local[i].free_at &&
		    (!at || s->local[i].free_at < at))
			at = s->local[i].free_at;
	return at;
}

/* ---- what the share has to say ---- */

static int
send_request(struct share *s, struct req *r)
{
	struct imsg m = { .type = IM_REQUEST,
		.handle = r->control,
		.req = r->u.hdr.unique,
		.uid = r->u.hdr.uid,
		.gid = r->u.hdr.gid,
		.dax = s->st->dax,
		.msg = r->msg };
	int err = engine_send(s, &m);

	if (err)
		return err;
	r->sent = 1;
	r->gen = s->engine_gen;
	r->deadline = share_now() + ENGINE_ANSWER_MS;
	return 0;
}

/* Requests first: a handle is closed after its requests. Then handles, then leases. */
void
engine_flush(struct share *s)
{
	struct share_state *st = s->st;

	s->flush_at = 0;
	for (unsigned i = 0; i < REQUESTS_MAX; i++) {
		struct req *r = &s->req[i];

		if (r->used && r->wait == WAIT_ENGINE && !r->sent && !r->replied && send_request(s, r))
			return;
	}
	for (; s->closed_told != st->closed_n; s->closed_told++) {
		struct imsg m = { .type = IM_CLOSED, .handle = st->closed[s->closed_told % SHARE_CLOSED] };

		if (engine_send(s, &m))
			return;
	}
	for (unsigned i = 0; i < SHARE_INSTANCES; i++) {
		struct share_instance *in = &st->instance[i];
		struct imsg m = { .type = IM_LEASE_END, .instance = in->id };

		if (!in->valid || in->dying || !in->lease_end || s->local[i].told)
			continue;
		if (engine_send(s, &m))
			return;
		s->local[i].told = 1;
	}
}

/* ---- the channel ---- */

static void
engine_disconnect(struct share *s)
{
	if (s->engine.fd < 0)
		return;
	loop_del(&s->loop, &s->engine);
	close(s->engine.fd);
	s->engine.fd = -1;
	s->engine_gen++;
	share_retry(s, WAIT_ENGINE);
}

void
engine_connect(struct share *s, int fd)
{
	engine_disconnect(s);
	s->engine.fd = fd;
	s->engine.fn = engine_ready;
	s->closed_told = s->st->closed_n > SHARE_CLOSED ? s->st->closed_n - SHARE_CLOSED : 0;
	for (unsigned i = 0; i < SHARE_INSTANCES; i++)
		s->local[i].told = 0;
	if (loop_add(&s->loop, &s->engine, EPOLLIN))
		log_err("VM %s: the engine's channel can't be waited for", s->k.start.name);
	engine_flush(s);
}

static void
engine_reply(struct share *s, const struct imsg *m)
{
	for (unsigned i = 0; i < REQUESTS_MAX; i++) {
		struct req *r = &s->req[i];

		if (r->used && r->wait == WAIT_ENGINE && r->sent && !r->replied && r->control == m->handle &&
		    r->u.hdr.unique == m->req) {
			r->msg = m->msg;
			r->replied = 1;
			r->deadline = share_now() + ADD_MS;
			share_retry(s, WAIT_ENGINE);
			return;
		}
	}
}

void
engine_ready(struct loop_src *src, uint32_t events)
{
	struct share *s = loop_container(src, struct share, engine);
	struct imsg m;
	long n = peek(src->fd, &m, sizeof(m), NULL, 0, NULL);

	(void)events;
	if (n == -EAGAIN)
		return;
	if (n != (long)sizeof(m)) {
		if (n > 0)
			log_err("VM %s: a message of %ld bytes from the engine", s->k.start.name, n);
		engine_disconnect(s);
	} else if (m.type == IM_REPLY) {
		engine_reply(s, &m);
	} else if (m.type == IM_DEL) {
		engine_del(s, &m);
	} else {
		log_err("VM %s: message %u from the engine", s->k.start.name, m.type);
	}
	/* Done: now it may go. (Nothing above can have changed the channel unless it closed it.) */
	if (s->engine.fd >= 0 && n == (long)sizeof(m))
		fd_skip(s->engine.fd);
}
