/* SPDX-License-Identifier: MIT
 *
 * raw.c - a program without vfun_serve(): what proto/vfun.h says is enough
 */
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../proto/vfun.h"

#define SIGNATURE "n u64 -> twice u64"

static void *
map(int fd, uint64_t off, uint64_t size, int prot)
{
	void *p = mmap(NULL, size, prot, MAP_SHARED, fd, (off_t)off);

	if (p == MAP_FAILED)
		_exit(1);
	close(fd);
	return p;
}

static void
narrow(void)
{
	static struct sock_filter code[4096];
	ssize_t n = pread(VFUN_PROGRAM_FILTER, code, sizeof(code), 0);
	const struct sock_fprog prog = { .len = (unsigned short)(n / (ssize_t)sizeof(code[0])), .filter = code };

	close(VFUN_PROGRAM_FILTER);
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) || n <= 0 ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog))
		_exit(1);
}

/* Take one request, and answer it. Sleeps at once, and looks again when it is woken. */
static void
serve(const struct vfun_program_start *st, struct vfun_hdr *out, struct vfun_hdr *in, uint32_t position)
{
	const struct vfun_request *r = (void *)((uint8_t *)out + VFUN_PAGE);
	struct vfun_answer *a = (void *)((uint8_t *)in + VFUN_PAGE);
	const uint64_t one = 1;
	struct vfun_request copy;
	uint32_t bell;
	unsigned len;

	r += position & (st->slots - 1);
	a += position & (st->slots - 1);
	while (__atomic_load_n(&r->seq, __ATOMIC_ACQUIRE) != position + 1) {
		bell = __atomic_load_n(&out->bell, __ATOMIC_ACQUIRE);
		__atomic_store_n(&in->parked, 1, __ATOMIC_SEQ_CST);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (__atomic_load_n(&r->seq, __ATOMIC_ACQUIRE) != position + 1)
			syscall(SYS_futex, &out->bell, FUTEX_WAIT, bell, NULL, NULL, 0);
		__atomic_store_n(&in->parked, 0, __ATOMIC_RELAXED);
	}
	/* The one read of what a client may change at any moment. */
	copy = *(const volatile struct vfun_request *)r;
	len = copy.cmd == VFUN_CMD_ECHO ? copy.len : 8;
	if (len > VFUN_PAYLOAD)
		_exit(10);
	/* A client may offer room for bulk data whether it is needed or not. */
	if (copy.cmd != VFUN_CMD_ECHO)
		copy.payload.arg[0] =
		    2 * copy.payload.arg[copy.flags & VFUN_SLOT_BULK ? sizeof(struct vfun_bulk) / 8 : 0];
	memcpy(a->payload.bytes, copy.payload.bytes, len);
	/* For the test: an answer that is none. */
	if (copy.cmd != VFUN_CMD_ECHO && copy.payload.arg[0] == 1998)
		len = 200;
	__atomic_store_n(
	    (uint64_t *)(void *)a, vfun_answer_head(position + 1, VFUN_STATE_DONE, 0, VFUN_OK, len), __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&out->parked, __ATOMIC_RELAXED))
		return;
	__atomic_fetch_add(&in->bell, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &in->bell, FUTEX_WAKE, 1, NULL, NULL, 0);
	(void)!write(VFUN_PROGRAM_RING, &one, sizeof(one));
}

int
main(int argc, char **argv)
{
	struct vfun_program_ready ready = { .magic = VFUN_PROGRAM_MAGIC, .signature = SIGNATURE };
	struct vfun_program_start st;
	struct vfun_hdr *out, *in;

	if (argc == 2 && !strcmp(argv[1], "--describe"))
		return puts(SIGNATURE "\ntwice the number") < 0;
	if (read(VFUN_PROGRAM_START, &st, sizeof(st)) != (ssize_t)sizeof(st) || st.magic != VFUN_PROGRAM_MAGIC)
		return 64;
	close(VFUN_PROGRAM_START);
	/* Its bell is waited on, which reading allows. */
	out = map(VFUN_PROGRAM_OUT, st.out_off, vfun_region_size(st.slots, st.out_arena), PROT_READ);
	in = map(VFUN_PROGRAM_IN, st.in_off, vfun_region_size(st.slots, st.in_arena), PROT_READ | PROT_WRITE);
	narrow();
	if (write(VFUN_PROGRAM_SOCKET, &ready, sizeof(ready)) != (ssize_t)sizeof(ready))
		return 1;
	for (uint32_t position = 0;; position++)
		serve(&st, out, in, position);
}
