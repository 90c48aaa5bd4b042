/* SPDX-License-Identifier: MIT
 *
 * control.c - requests to the engine
 *
 * A request comes as one ioctl, or as a write whose answer a read then fetches. It is passed on with the identity that
 * the guest's kernel put into the FUSE header, and answered when the engine answers; meanwhile everything else goes on.
 * While there is no engine, requests wait for the next one for a moment. What an engine had taken along when it went
 * is asked of the next, or answered with VFUN_R_LOST where that can't be, and what comes on top of CONTROL_WAITING_MAX
 * others of this VM with VFUN_R_NO_RESOURCE.
 */
#include <errno.h>
#include <string.h>

#include "../common/log.h"
#include "share.h"

#define CONTROL_WAITING_MAX 64u
#define ENGINE_ABSENT_MS 2000u	/* how long a request waits for an engine */
#define ENGINE_ANSWER_MS 60000u /* vfund's own limits are far below: this one is for an engine that hangs */

unsigned
share_waiting(struct share *s, enum wait_for wait)
{
	unsigned n = 0;

	for (unsigned i = 0; i < REQUESTS_MAX; i++)
		n += s->req[i].used && s->req[i].wait == wait;
	return n;
}

static void
control_refuse(struct req *r, enum vfun_reason reason, const char *why)
{
	struct vfun_msg *m = &r->msg;

	m->type |= VFUN_MSG_REPLY;
	m->magic = VFUN_MSG_MAGIC;
	m->version = VFUN_VERSION;
	m->reason = (uint16_t)reason;
	m->flags = 0;
	memset(&m->body, 0, sizeof(m->body));
	memset(m->text, 0, sizeof(m->text));
	strncpy(m->text, why, sizeof(m->text) - 1);
	r->replied = 1;
}

/* An ACTIVATE's files come from the launcher, and mostly before its reply. 1: they aren't here yet. */
static int
control_early(struct share *s, const struct req *r)
{
	const struct vfun_msg *m = &r->msg;
	uint64_t id = m->body.active.instance;

	if (m->type != (VFUN_MSG_ACTIVATE | VFUN_MSG_REPLY) || m->reason != VFUN_OK)
		return 0;
	for (unsigned i = 0; i < SHARE_INSTANCES; i++)
		if (s->st->instance[i].valid && s->st->instance[i].id == id)
			return 0;
	return 1;
}

/* May what an engine took along when it went be asked of the next? A release that was done is acknowledged again, and a
 * grant that nobody got expires. But an activation is given up by the new engine, and the client has to know. */
static int
control_repeatable(const struct vfun_msg *m)
{
	return m->type != VFUN_MSG_ACTIVATE && m->type != VFUN_MSG_RELOAD;
}

/* The step of a request that both ways have in common: 0 when r->msg is the reply. */
static int
control_ask(struct share *s, struct req *r, const struct share_handle *h, const void *msg)
{
	if (!r->control) {
		memcpy(&r->msg, msg, sizeof(r->msg));
		r->control = h->control;
		r->deadline = share_now() + ENGINE_ABSENT_MS;
		if (share_waiting(s, WAIT_ENGINE) >= CONTROL_WAITING_MAX)
			control_refuse(r, VFUN_R_NO_RESOURCE, "this VM has as many requests under way as it may");
	}
	if (!r->replied && r->sent && r->gen != s->engine_gen && control_repeatable(&r->msg)) {
		r->sent = 0;
		r->deadline = share_now() + ENGINE_ABSENT_MS;
	}
	if (!r->replied && r->sent && r->gen != s->engine_gen)
		control_refuse(r, VFUN_R_LOST, "vfund was replaced while this request was under way");
	else if (!r->replied && r->deadline == REQ_LATE)
		control_refuse(r, VFUN_R_LOST, r->sent ? "vfund does not answer" : "vfund's engine is not there");
	r->wait = WAIT_ENGINE;
	if (!r->replied && !r->sent)
		engine_flush(s);
	if (!r->replied)
		return REQ_WAIT;
	if (control_early(s, r)) {
		if (r->deadline != REQ_LATE && r->msg.body.active.instance != s->refused)
			return REQ_WAIT;
		control_refuse(r, VFUN_R_NO_RESOURCE, "the VM's share has no room for another instance");
	}
	r->wait = WAIT_NOTHING;
	return 0;
}

int
control_ioctl(struct share *s, struct req *r, struct chain *c, const struct fuse_ioctl_in *a, size_t len)
{
	const uint32_t harmless = FUSE_IOCTL_COMPAT | FUSE_IOCTL_32BIT | FUSE_IOCTL_COMPAT_X32;
	const struct share_handle *h = tree_handle(s, a->fh);
	struct fuse_ioctl_out out = { 0 };
	int err;

	if (r->u.hdr.nodeid != NODE_CONTROL || a->cmd != (uint32_t)VFUN_IOC_CONTROL)
		return -ENOTTY;
	if (!h || h->node != NODE_CONTROL)
		return -EBADF;
	if ((a->flags & ~harmless) || a->in_size != sizeof(r->msg) || a->out_size != sizeof(r->msg) ||
	    len != sizeof(*a) + sizeof(r->msg))
		return -EINVAL;
	err = control_ask(s, r, h, a + 1);
	if (err)
		return err;
	err = chain_put(c, &out, sizeof(out));
	return err ? err : chain_put(c, &r->msg, sizeof(r->msg));
}

int
control_write(struct share *s, struct req *r, struct chain *c, struct share_handle *h, const void *buf, size_t len)
{
	struct fuse_write_out out = { .size = sizeof(r->msg) };
	int err;

	if (len != sizeof(r->msg))
		return -EINVAL;
	err = control_ask(s, r, h, buf);
	if (err)
		return err;
	h->has_reply = 0;
	state_order();
	h->reply = r->msg;
	h->read_by = 0;
	state_order();
	h->has_reply = 1;
	return chain_put(c, &out, sizeof(out));
}

/* The answer is read once, whatever the offset; then, and before, the file is empty. */
int
control_read(struct req *r, struct chain *c, struct share_handle *h, size_t len)
{
	if (r->repeat && h->read_by == r->u.hdr.unique && !h->has_reply)
		return len < sizeof(h->reply) ? -EINVAL : chain_put(c, &h->reply, sizeof(h->reply));
	if (!h->has_reply)
		return 0;
	if (len < sizeof(h->reply))
		return -EINVAL;
	h->read_by = r->u.hdr.unique;
	state_order();
	h->has_reply = 0;
	return chain_put(c, &h->reply, sizeof(h->reply));
}
