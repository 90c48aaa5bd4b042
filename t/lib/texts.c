/* SPDX-License-Identifier: MIT
 *
 * texts.c - for t/texts.t: whatever a function of the library fails with, vfun_text() is a sentence for it
 *
 *	texts PATH	prints each failure and its sentence, a line each
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../../proto/vfun.h"

#define SECOND 1000000000ull

static void
say(const struct vfun *v, const char *what, int r)
{
	printf("%s: %s: %s\n", what, strerrorname_np(-r), vfun_text(v));
}

static int
open_one(struct vfun **v, const char *path)
{
	static const char *const paths[] = { "auto", "host", "dax", "copy", "ivshmem", "net" };
	struct vfun_options options = { .size = sizeof(options), .slots = 1, .out_arena = 4096, .in_arena = 4096 };

	for (unsigned i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		if (!strcmp(path, paths[i]))
			options.path = (enum vfun_path)i;
	return vfun_open(v, "fibonacci", &options);
}

int
main(int argc, char **argv)
{
	uint64_t quick[] = { 10, 1 };
	uint64_t slow[] = { 20000, 2000 };
	struct vfun_bulk room = { .out_len = 4096 };
	struct vfun_result res;
	struct vfun_buffer buffer;
	struct vfun_done done[2];
	uint32_t ticket, other;
	struct vfun *v;
	int r = open_one(&v, argc > 1 ? argv[1] : "auto");

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (r) {
		say(v, "open", r);
		return 1;
	}
	r = vfun_submit(v, VFUN_CMD_GET, slow, 2, &room, &ticket);
	if (r)
		say(v, "submit", r);
	say(v, "submit to a full ring", vfun_submit(v, VFUN_CMD_GET, quick, 2, NULL, &other));
	say(v, "poll", vfun_poll(v, ticket, &res));
	say(v, "wait", vfun_wait(v, ticket, &res, 1000000));
	say(v, "reap", vfun_reap(v, done, 2, 0));
	say(v, "gather", vfun_gather(v, done, 1, 2, 0));
	r = vfun_wait(v, ticket, &res, 100 * SECOND);
	if (r)
		say(v, "wait", r);
	say(v, "wait again", vfun_wait(v, ticket, &res, SECOND));
	say(v, "poll again", vfun_poll(v, ticket, &res));
	say(v, "a ticket that never was", vfun_wait(v, ticket + 5, &res, SECOND));
	say(v, "too many arguments", vfun_submit(v, VFUN_CMD_GET, slow, 8, NULL, &ticket));
	say(v, "put", vfun_put(v, 4096, slow, 8));
	say(v, "fetch", vfun_fetch(v, 4096, slow, 8));
	say(v, "input", vfun_input(v, &buffer, 5000));
	say(v, "call", vfun_call(v, VFUN_CMD_GET, slow, 2, &room, &res, 1000000));
	r = vfun_call(v, VFUN_CMD_GET, quick, 2, NULL, &res, 100 * SECOND);
	if (r || res.inline_word[0] != 55)
		say(v, "the next call", r);
	vfun_close(v, NULL);
	return 0;
}
