/* SPDX-License-Identifier: MIT
 *
 * buffers.c - for t/client-api.t: buffers of libvfun.a, against the installed header, on whatever path there is
 *
 * zstd of two different inputs, both in flight, decided by their results' lengths and places; what vfun_put() puts into a
 * buffer is there; an arena that is used up says so.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vfun.h>

#define ARENA (256u << 10)
#define LEN 50000u
#define SECOND 1000000000ull

static void
check(int ok, const char *what)
{
	if (ok)
		return;
	printf("not ok %s\n", what);
	exit(1);
}

/* A frame of noise is as long as the noise, and ends with it. */
static void
noise(uint8_t *p, uint32_t seed)
{
	for (unsigned i = 0; i < LEN; i++) {
		seed = seed * 1664525u + 1013904223u;
		p[i] = (uint8_t)(seed >> 24);
	}
}

static void
check_result(const struct vfun_result *r, const struct vfun_buffer *room, const struct vfun_buffer *in)
{
	const uint8_t *frame = vfun_result_data(r, room);

	check(!r->reason && r->bulk && r->len > LEN && r->len < LEN + 100, "a result's length");
	check(frame == room->data, "it is in its room");
	check(memmem(frame, r->len, (const uint8_t *)in->data + 1000, 40000) != NULL, "a result's bytes");
}

int
main(void)
{
	struct vfun_options o = { .size = sizeof(o), .out_arena = ARENA, .in_arena = ARENA };
	struct vfun_buffer in[2], room[2], more;
	struct vfun_result res[2];
	uint32_t ticket[2];
	uint8_t other[LEN];
	uint64_t n = 51;
	struct vfun *v;

	if (vfun_open(&v, "zstd", &o)) {
		printf("not ok %s\n", vfun_text(v));
		return 1;
	}
	for (unsigned i = 0; i < 2; i++) {
		check(!vfun_input(v, &in[i], LEN) && !vfun_room(v, &room[i], LEN + 1000), "buffers");
		check(in[i].off % 4096 == 0 && (uintptr_t)in[i].data % 4096 == 0 && in[i].len == LEN, "aligned");
		noise(in[i].data, i + 1);
	}
	check(in[1].off >= LEN, "apart");
	for (unsigned turn = 0; turn < 3; turn++) {
		for (unsigned i = 0; i < 2; i++) {
			struct vfun_bulk b = { in[i].off, in[i].len, room[i].off, room[i].len };

			check(!vfun_submit(v, VFUN_CMD_GET, NULL, 0, &b, &ticket[i]), "submit");
		}
		for (unsigned i = 2; i-- > 0;) {
			check(!vfun_wait(v, ticket[i], &res[i], 20 * SECOND), vfun_text(v));
			check_result(&res[i], &room[i], &in[i]);
		}
		noise(in[turn % 2].data, turn + 10);
	}
	noise(other, 77);
	check(!vfun_put(v, in[0].off, other, LEN) && !memcmp(other, in[0].data, LEN), "vfun_put() into a buffer");
	check(vfun_input(v, &more, ARENA) == -ENOSPC && strstr(vfun_text(v), "the arena has"), "no room left");
	check(!vfun_input(v, &more, 100) && more.off % 64 == 0, "a small one");
	check(!vfun_close(v, NULL), "close");
	check(!vfun_open(&v, "factorial", NULL) && vfun_input(v, &more, 1) == -ENOSPC, "no arena, no buffers");
	check(!vfun_call(v, VFUN_CMD_GET, &n, 1, NULL, &res[0], 20 * SECOND), "a call");
	check(vfun_result_data(&res[0], &more) == res[0].inline_result && res[0].len == 28, "a short result");
	printf("ok path %s\n", vfun_path_name(vfun_path(v)));
	return vfun_close(v, NULL) != 0;
}
