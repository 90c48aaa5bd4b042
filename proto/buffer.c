/* SPDX-License-Identifier: MIT
 *
 * buffer.c - the client's arenas, piece by piece, as plain memory on every path
 *
 * Pieces are handed out one behind the other and never given back: a program makes its buffers once, as many as it has
 * calls in flight, and uses them again and again.
 *
 * With all paths but copy a piece is the arena itself. With path copy there is none in this process's memory, so each
 * arena gets a shadow, which costs memory only where it is used: a request's input is written from there before the
 * request, and its result is brought there when the answer is taken. Only what was handed out is: what vfun_put() has
 * put elsewhere stays.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "client.h"

/* The next piece's start: off. 0, or -ENOSPC. */
static int
take(struct buffers *of, uint64_t arena, uint64_t len, uint64_t *off)
{
	uint64_t align = len < VFUN_PAGE ? VFUN_LINE : VFUN_PAGE;

	*off = (of->used + align - 1) & ~(align - 1);
	if (*off > arena || len > arena - *off)
		return -ENOSPC;
	of->used = *off + len;
	return 0;
}

static int
make_shadow(struct buffers *of, uint64_t arena)
{
	void *p;

	if (of->shadow)
		return 0;
	p = mmap(NULL, arena, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	of->shadow = p;
	return 0;
}

static int
hand_out(
    struct vfun *v, const struct region *r, struct buffers *of, uint64_t arena, struct vfun_buffer *b, uint64_t len)
{
	int e = 0;

	*b = (struct vfun_buffer){ .len = len };
	if (!v->mine)
		return client_foreign(v);
	if (!r->map && arena)
		e = make_shadow(of, arena);
	if (!e)
		e = take(of, arena, len, &b->off);
	if (e)
		return client_fail(v, e, VFUN_OK,
		    "a buffer of %llu bytes: the arena has %llu, of which %llu are in use", (unsigned long long)len,
		    (unsigned long long)arena, (unsigned long long)of->used);
	b->data = (r->map ? r->map + region_arena(v) : of->shadow) + b->off;
	return 0;
}

int
vfun_input(struct vfun *v, struct vfun_buffer *b, uint64_t len)
{
	return hand_out(v, &v->out, &v->input, v->grant.out_arena, b, len);
}

int
vfun_room(struct vfun *v, struct vfun_buffer *b, uint64_t len)
{
	return hand_out(v, &v->in, &v->room, v->grant.in_arena, b, len);
}

/* Path copy */

/* Does the buffers' memory stand for these bytes of the arena? */
static int
holds(const struct buffers *of, uint64_t off, uint64_t len)
{
	return of->shadow && off <= of->used && len <= of->used - off;
}

int
buffers_send(struct vfun *v, const struct vfun_bulk *bulk)
{
	if (!bulk->in_len || !holds(&v->input, bulk->in_off, bulk->in_len))
		return 0;
	return region_store(&v->out, region_arena(v) + bulk->in_off, v->input.shadow + bulk->in_off, bulk->in_len);
}

void
buffers_put(struct vfun *v, uint64_t off, const void *data, uint64_t len)
{
	if (len && holds(&v->input, off, len))
		memcpy(v->input.shadow + off, data, len);
}

/* The slot of the request says where its room is; nobody but us writes there. */
int
buffers_bring(struct vfun *v, uint32_t ticket, uint64_t len)
{
	struct vfun_request request;
	struct vfun_bulk bulk;
	int e = region_load(&v->out, region_slot(v, ticket), &request, sizeof(request));

	if (e)
		return e;
	memcpy(&bulk, request.payload.bytes, sizeof(bulk));
	if (!len || !holds(&v->room, bulk.out_off, len))
		return 0;
	return region_load(&v->in, region_arena(v) + bulk.out_off, v->room.shadow + bulk.out_off, len);
}

void
buffers_free(struct vfun *v)
{
	if (v->input.shadow)
		munmap(v->input.shadow, v->grant.out_arena);
	if (v->room.shadow)
		munmap(v->room.shadow, v->grant.in_arena);
}
