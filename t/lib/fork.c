/* SPDX-License-Identifier: MIT
 *
 * fork.c - for t/fork.t: an instance that is open when its process forks
 *
 *	fork PATH	prints "ok PATH", or says what isn't so
 *
 * Three times: a child that tries every function of the library, one that closes the handle, and one that just ends. The
 * parent has a call in flight each time, takes its answer afterwards, and goes on. The child opens an instance of its
 * own.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../proto/vfun.h"

#define SECOND 1000000000ull

enum child { TRIES, CLOSES, ENDS, CHILDREN };

static struct vfun *v;
static struct vfun_options options = { .size = sizeof(options), .slots = 2, .out_arena = 65536, .in_arena = 65536 };

#define CHECK(cond, ...)                                                                                               \
	do {                                                                                                           \
		if (!(cond)) {                                                                                         \
			fprintf(stderr, "fork.c:%d: " #cond ": ", __LINE__);                                           \
			fprintf(stderr, __VA_ARGS__);                                                                  \
			fprintf(stderr, "\n");                                                                         \
			_exit(1);                                                                                      \
		}                                                                                                      \
	} while (0)

#define REFUSED(call)                                                                                                  \
	do {                                                                                                           \
		int refused = (call);                                                                                  \
		CHECK(refused == -EPERM && strstr(vfun_text(v), "parent"), #call ": %d, %s", refused, vfun_text(v));   \
	} while (0)

static void
factorial(struct vfun *of, uint64_t n, uint64_t want)
{
	struct vfun_result res;
	int r = vfun_call(of, VFUN_CMD_GET, &n, 1, NULL, &res, 10 * SECOND);

	CHECK(!r && !res.reason && res.len <= 8, "factorial: %d, %s", r, vfun_text(of));
	for (unsigned i = (unsigned)res.len; i < 8; i++)
		res.inline_result[i] = 0;
	CHECK(res.inline_word[0] == want, "%llu", (unsigned long long)res.inline_word[0]);
}

static void
try_all(uint32_t ticket)
{
	struct vfun_buffer buffer;
	struct vfun_done done[2];
	struct vfun_result res;
	uint64_t n = 5;
	char byte;

	REFUSED(vfun_call(v, VFUN_CMD_GET, &n, 1, NULL, &res, SECOND));
	REFUSED(vfun_submit(v, VFUN_CMD_GET, &n, 1, NULL, &ticket));
	REFUSED(vfun_ring(v));
	REFUSED(vfun_poll(v, ticket, &res));
	REFUSED(vfun_wait(v, ticket, &res, SECOND));
	REFUSED(vfun_reap(v, done, 2, SECOND));
	REFUSED(vfun_gather(v, done, 2, 2, SECOND));
	REFUSED(vfun_put(v, 0, &n, sizeof(n)));
	REFUSED(vfun_fetch(v, 0, &byte, 1));
	REFUSED(vfun_input(v, &buffer, 8));
	REFUSED(vfun_room(v, &buffer, 8));
	CHECK(!vfun_out_arena(v) && !vfun_in_arena(v), "the parent's arena");
}

static _Noreturn void
child(enum child what, uint32_t ticket)
{
	struct vfun *own;
	int r;

	if (what == TRIES)
		try_all(ticket);
	if (what != ENDS) {
		r = vfun_close(v, NULL);
		CHECK(!r, "close: %d", r);
	}
	r = vfun_open(&own, "factorial", &options);
	CHECK(!r, "the child's own: %s", vfun_text(own));
	factorial(own, 10, 3628800);
	CHECK(!vfun_close(own, NULL), "close");
	exit(0);
}

int
main(int argc, char **argv)
{
	static const char *const paths[] = { "auto", "host", "dax", "copy", "ivshmem", "net" };
	const char *path = argc > 1 ? argv[1] : "auto";
	int r;

	for (unsigned i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		if (!strcmp(path, paths[i]))
			options.path = (enum vfun_path)i;
	r = vfun_open(&v, "factorial", &options);
	CHECK(!r, "open: %s", vfun_text(v));
	for (enum child what = 0; what < CHILDREN; what++) {
		struct vfun_result res;
		uint64_t n = 8;
		uint32_t ticket;
		int status;
		pid_t pid;

		CHECK(!vfun_submit(v, VFUN_CMD_GET, &n, 1, NULL, &ticket), "%s", vfun_text(v));
		pid = fork();
		CHECK(pid >= 0, "fork");
		if (!pid)
			child(what, ticket);
		CHECK(waitpid(pid, &status, 0) == pid && !status, "the child's status %x", (unsigned)status);
		r = vfun_wait(v, ticket, &res, 10 * SECOND);
		CHECK(!r && !res.reason && res.inline_word[0] == 40320, "the call in flight: %s", vfun_text(v));
		for (unsigned i = 0; i < 100; i++)
			factorial(v, 6, 720);
	}
	CHECK(!vfun_close(v, NULL), "close");
	printf("ok %s\n", path);
	return 0;
}
