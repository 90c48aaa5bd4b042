/* SPDX-License-Identifier: MIT
 *
 * netframe.c - path net, frames as they arrive: the same for client and server
 *
 * Bytes come in any pieces. The buffer holds headers and bodies, each of which is copied out before it is looked at;
 * bulk data that follows goes where the reader says, what the buffer has of it by copying, the rest straight from the
 * socket. So a frame's length is never an amount of memory here.
 */
#include <errno.h>
#include <string.h>

#include "netframe.h"

int
net_body(unsigned type)
{
	static const int body[] = {
		[VFUN_NET_HELLO] = sizeof(struct vfun_net_hello),
		[VFUN_NET_AUTH] = sizeof(struct vfun_net_auth),
		[VFUN_NET_WELCOME] = sizeof(struct vfun_net_welcome),
		[VFUN_NET_CONTROL] = sizeof(struct vfun_msg),
		[VFUN_NET_CALL] = sizeof(struct vfun_request),
		[VFUN_NET_ANSWER] = sizeof(struct vfun_answer),
		[VFUN_NET_GONE] = sizeof(struct vfun_net_gone),
		[VFUN_NET_CANCEL] = sizeof(struct vfun_net_cancel),
	};

	return type >= VFUN_NET_HELLO && type < sizeof(body) / sizeof(body[0]) ? body[type] : -1;
}

int
net_frame_ok(const struct vfun_net_frame *f)
{
	return f->magic == VFUN_NET_MAGIC && net_body(f->type) == (int)f->body;
}

struct vfun_net_frame
net_frame(enum vfun_net_type type, uint64_t off, uint64_t len)
{
	return (struct vfun_net_frame){ .magic = VFUN_NET_MAGIC,
		.type = (uint16_t)type,
		.body = (uint16_t)net_body(type),
		.off = off,
		.len = len };
}

uint8_t *
net_in_room(struct net_in *in, size_t *room)
{
	if (in->f.type && in->bulk && !in->have) {
		*room = in->bulk_left;
		return in->bulk;
	}
	*room = sizeof(in->buf) - in->have;
	return in->buf + in->have;
}

void
net_in_got(struct net_in *in, size_t got)
{
	if (in->f.type && in->bulk && !in->have) {
		in->bulk += got;
		in->bulk_left -= got;
	} else {
		in->have += (uint32_t)got;
	}
}

/* Bulk data out of the buffer. Returns the bytes used. */
static uint32_t
take_bulk(struct net_in *in, uint32_t at)
{
	uint32_t part = in->have - at < in->bulk_left ? in->have - at : (uint32_t)in->bulk_left;

	if (in->bulk) {
		memcpy(in->bulk, in->buf + at, part);
		in->bulk += part;
	}
	in->bulk_left -= part;
	return part;
}

/* The header and body at `at`, if they are there: 1, 0, or -errno. */
static int
begin_frame(struct net_in *in, uint32_t at, const struct net_reader *to, void *arg)
{
	uint32_t left = in->have - at;
	struct vfun_net_frame f;

	if (left < sizeof(f))
		return 0;
	memcpy(&f, in->buf + at, sizeof(f));
	if (!net_frame_ok(&f))
		return -EPROTO;
	if (left < sizeof(f) + f.body)
		return 0;
	memcpy(in->body, in->buf + at + sizeof(f), f.body);
	in->bulk = NULL;
	in->bulk_left = f.len;
	if (f.len) {
		int r = to->place(arg, &f, in->body, &in->bulk);

		if (r)
			return r;
	}
	in->f = f;
	return 1;
}

int
net_in_take(struct net_in *in, const struct net_reader *to, void *arg)
{
	struct vfun_net_frame f;
	uint32_t at = 0;
	int r = 0;

	while (!r) {
		if (!in->f.type) {
			r = begin_frame(in, at, to, arg);
			if (r <= 0)
				break;
			at += (uint32_t)sizeof(in->f) + in->f.body;
		}
		at += take_bulk(in, at);
		r = 0;
		if (in->bulk_left)
			break;
		f = in->f;
		in->f.type = 0;
		r = to->frame(arg, &f, in->body);
	}
	in->have -= at;
	memmove(in->buf, in->buf + at, in->have);
	return r;
}
