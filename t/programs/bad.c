/* SPDX-License-Identifier: MIT
 *
 * bad.c - a program that is wrong in the way that the function's name says
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../proto/vfun.h"

static const char *is; /* the function's name */

static uint64_t threads, up;

static void *
wait_for_ever(void *arg)
{
	uint32_t never = 0;

	__atomic_fetch_add(&up, 1, __ATOMIC_RELEASE);
	for (;;)
		syscall(SYS_futex, &never, FUTEX_WAIT, 0, NULL, NULL, 0);
	return arg;
}

static void
take_threads(void)
{
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 16384);
	while (threads < 6000 && pthread_create(&t, &attr, wait_for_ever, NULL) == 0)
		threads++;
	/* As long as they start they make system calls that serving ones may not. */
	while (__atomic_load_n(&up, __ATOMIC_ACQUIRE) < threads)
		vfun_relax();
}

static int
init(void **state, uint64_t result_max)
{
	(void)state;
	(void)result_max;
	if (!strcmp(is, "refuses"))
		return -12; /* ENOMEM */
	if (!strcmp(is, "threads"))
		take_threads();
	if (!strcmp(is, "never"))
		for (;;)
			vfun_relax();
	return 0;
}

/* A line of a file, and beyond what it may see. */
static int
reads(struct vfun_outgoing *out, const char *path)
{
	char text[200];
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));

	if (fd >= 0)
		close(fd);
	return n < 0 ? vfun_refuse(out, "there is no such file here") : vfun_result_put(out, text, (uint64_t)n);
}

static int
call(void *state, const struct vfun_incoming *in, struct vfun_outgoing *out)
{
	uint64_t n = in->arg[0];

	(void)state;
	if (!strcmp(is, "outside"))
		memset(out->array[0].data, 1, out->array[0].bytes + (1 << 20));
	/* The ring and the header, which lie in front of the arena, at whose start the room is. */
	if (!strcmp(is, "scribbles"))
		memset((uint8_t *)out->array[0].data - 2 * VFUN_PAGE, (int)n, 2 * VFUN_PAGE);
	if (!strcmp(is, "crash") && n) {
		fprintf(stderr, "my last\033 words\n");
		abort();
	}
	if (!strcmp(is, "quits"))
		exit((int)n);
	if (!strcmp(is, "late"))
		while (n)
			vfun_relax();
	for (uint64_t i = 0; !strcmp(is, "flood") && i < n; i++)
		printf("line %llu\n", (unsigned long long)i);
	if (!strcmp(is, "calls"))
		return socket(AF_INET, SOCK_STREAM, 0);
	if (!strcmp(is, "reads"))
		return reads(out, n ? "/etc/passwd" : "/usr/lib/os-release");
	if (!strcmp(is, "eats"))
		return malloc(n) ? vfun_result_put(out, "ok", 2) : -12;
	if (!strcmp(is, "threads"))
		return vfun_result_put(out, &threads, sizeof(threads));
	if (!strcmp(is, "sizes")) {
		const struct vfun_array *a = &out->array[0];
		const float sizes[] = { (float)a->n, (float)a->bytes, (float)a->dim[1], 0 };

		return vfun_result_put(out, sizes, sizeof(sizes));
	}
	if (n == 99)
		return vfun_refuse(out, "n: 99 is not to my taste");
	return vfun_result_put(out, &n, sizeof(n));
}

/* To the launcher, in a way that isn't in vfun.h: a text in so many bytes, and descriptors along with it. */
static int
say(const char *what, size_t len, unsigned nfds)
{
	static const int fds[] = { VFUN_PROGRAM_OUT, VFUN_PROGRAM_IN, VFUN_PROGRAM_FILTER };
	union {
		char buf[CMSG_SPACE(sizeof(fds))];
		struct cmsghdr head;
	} control = { .head = {
			  .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(fds)) } };
	char text[128] = "";
	struct iovec iov = { .iov_base = text, .iov_len = len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

	snprintf(text, sizeof(text), "%s", what);
	memcpy(CMSG_DATA(&control.head), fds, sizeof(fds));
	if (nfds) {
		mh.msg_control = control.buf;
		mh.msg_controllen = sizeof(control.buf);
	}
	return sendmsg(VFUN_PROGRAM_SOCKET, &mh, 0) < 0;
}

int
main(int argc, char **argv)
{
	static struct vfun_program bad = { .size = sizeof(bad),
		.signature = "n u64 0..1000000000 -> out u8[*]",
		.summary = "wrong",
		.init = init,
		.call = call };
	int describes = argc > 1;

	is = argv[0];
	if (!strcmp(is, "silent") && describes)
		return 0;
	if (!strcmp(is, "fails") && describes) {
		fprintf(stderr, "I can't\n");
		return 3;
	}
	if (!strcmp(is, "hangs") && describes)
		for (;;)
			vfun_relax();
	if (!strcmp(is, "nonsense") && describes)
		return puts("this -> is no signature") < 0;
	if (!strcmp(is, "sizes"))
		bad.signature = "n u64 1..4 -> out f32[*,n]";
	if (!strcmp(is, "liar") && !describes)
		bad.signature = "n u64 -> int";
	if (!strcmp(is, "mute") && !describes)
		return 0;
	if (!strcmp(is, "babbles") && !describes)
		return write(VFUN_PROGRAM_SOCKET, "hello", 5) != 5 || pause();
	if (!strcmp(is, "forges") && !describes)
		return say("\377\377--------------a line\nand \033another", 128, 0);
	if (!strcmp(is, "leaks") && !describes)
		return say("", 0, 3);
	if (!strcmp(is, "wide") && !describes) {
		struct vfun_program_ready ready = { .magic = VFUN_PROGRAM_MAGIC };

		strcpy(ready.signature, bad.signature);
		return write(VFUN_PROGRAM_SOCKET, &ready, sizeof(ready)) != (ssize_t)sizeof(ready);
	}
	return vfun_serve(&bad, argc, argv);
}
