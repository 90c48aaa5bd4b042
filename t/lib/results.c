/* SPDX-License-Identifier: MIT
 *
 * results.c - a client of t/programs/results.c: results of any length, inline and in rooms of odd sizes, whose
 * surroundings stay what they were; and arrays that aren't where the signature wants them
 *
 * Says "ok", or what went wrong, with exit status 1.
 */
#include <stdio.h>
#include <string.h>

#include "../../proto/vfun.h"

#define TIMEOUT 20000000000ull
#define ROOM 4096u

static struct vfun *v;
static struct vfun_buffer in, room;
static struct vfun_result res;
static uint8_t before[ROOM]; /* what the room was */

static int
open_(const char *function)
{
	struct vfun_options o = { .size = sizeof(o), .out_arena = 1 << 20, .in_arena = 1 << 20 };

	return vfun_open(&v, function, &o) || vfun_input(v, &in, ROOM) || vfun_room(v, &room, ROOM);
}

/* One call with a room of so many bytes; 0 if it is answered with this reason. */
static int
call(
    unsigned nargs, uint64_t arg, uint64_t in_off, uint64_t in_len, uint64_t out_off, uint64_t out_len, unsigned reason)
{
	const struct vfun_bulk bulk = { in.off + in_off, in_len, room.off + out_off, out_len };

	memcpy(before, room.data, ROOM);
	return vfun_call(v, VFUN_CMD_GET, &arg, nargs, in_len || out_len ? &bulk : NULL, &res, TIMEOUT) ||
	       res.reason != reason;
}

/* Nothing behind so many bytes of the room was touched. */
static int
is_clean(uint64_t len)
{
	return !memcmp(before + len, (const uint8_t *)room.data + len, ROOM - len);
}

/* n numbers behind n, wherever they are. */
static int
is_tail(const void *at, uint64_t n)
{
	uint64_t head;
	uint32_t x;

	memcpy(&head, at, 8);
	for (uint32_t i = 0; i < n; i++) {
		memcpy(&x, (const uint8_t *)at + 8 + 4 * i, 4);
		if (x != i)
			return 0;
	}
	return head == n;
}

static int
tail(void)
{
	if (open_("tail") || call(1, 3, 0, 0, 0, 0, VFUN_OK) || !is_tail(res.inline_word, 3))
		return puts("tail: inline") >= 0;
	for (uint64_t n = 0; n < 300; n++)
		if (call(1, n, 0, 0, 0, 8 + 4 * n, VFUN_OK) || res.len != 8 + 4 * n ||
		    !is_tail(n <= 12 ? (const void *)res.inline_word : room.data, n) || !is_clean(res.len))
			return printf("tail: %u behind it\n", (unsigned)n);
	if (call(1, 300, 0, 0, 0, 8, VFUN_R_RESULT_SIZE) || !is_clean(8))
		return puts("tail: a small room") >= 0;
	vfun_close(v, NULL);
	return 0;
}

static int
fill(void)
{
	if (open_("fill") || call(0, 0, 0, 0, 0, 0, VFUN_OK) || res.len != 56)
		return puts("fill: inline") >= 0;
	for (uint64_t len = 64; len < 200; len++)
		if (call(0, 0, 0, 0, 0, len, VFUN_OK) || res.len != len / 4 * 4 || !is_clean(res.len) ||
		    ((const uint32_t *)room.data)[len / 4 - 1] != len / 4 - 1)
			return printf("fill: a room of %u bytes\n", (unsigned)len);
	if (call(0, 0, 0, 0, 4, 64, VFUN_R_ARGUMENTS) || !strstr(vfun_text(v), "the room's offset isn't aligned"))
		return printf("fill: a room that isn't aligned: %s\n", vfun_text(v));
	vfun_close(v, NULL);
	return 0;
}

static int
sum(void)
{
	if (open_("sum"))
		return puts("sum") >= 0;
	for (uint64_t i = 0; i < ROOM / 8; i++)
		((uint64_t *)in.data)[i] = i;
	for (uint64_t off = 0; off < 16; off++)
		if (call(0, 0, off, 80, 0, 0, off % 8 ? VFUN_R_ARGUMENTS : VFUN_OK) ||
		    (off % 8 ? !strstr(vfun_text(v), "the input's offset isn't aligned")
			     : res.inline_word[0] != 45 + 10 * (off / 8)))
			return printf("sum: input at %u: %s\n", (unsigned)off, vfun_text(v));
	vfun_close(v, NULL);
	return 0;
}

int
main(void)
{
	return tail() || fill() || sum() || puts("ok") < 0;
}
