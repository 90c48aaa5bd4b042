/* SPDX-License-Identifier: MIT
 *
 * answers.c - fuzz target: datain as the client library sees it
 *
 * The input is a program of a client that submits, polls, waits, puts and fetches, and of a service that is out of its
 * mind: it writes anything anywhere into datain. The regions are allocated to the byte. What the library hands to its
 * caller has to be usable without another look: lengths fit, and a bulk result lies inside the arena.
 *
 * Time is what this program says, or an input would not do the same thing twice: it passes when somebody looks at the
 * clock, and while somebody sleeps.
 */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../../proto/client.h"

struct game {
	struct input in;
	struct vfun v;
	uint32_t ticket[8];
};

static int files[2] = { -1, -1 }; /* the regions of path copy */
static int null_fd = -1;

static uint64_t ns;

int __wrap_clock_gettime(clockid_t id, struct timespec *ts);
int __wrap_nanosleep(const struct timespec *ts, struct timespec *left);
long __wrap_syscall(long nr, ...);

int
__wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
	(void)id;
	ns += 1000;
	*ts = (struct timespec){ .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000) };
	return 0;
}

int
__wrap_nanosleep(const struct timespec *ts, struct timespec *left)
{
	(void)left;
	ns += (uint64_t)ts->tv_nsec;
	return 0;
}

/* A futex: nobody else is there who could wake. */
long
__wrap_syscall(long nr, ...)
{
	const struct timespec *ts;
	va_list ap;
	int op;

	va_start(ap, nr);
	(void)va_arg(ap, void *);
	op = va_arg(ap, int);
	(void)va_arg(ap, unsigned);
	ts = va_arg(ap, const struct timespec *);
	va_end(ap);
	CHECK(nr == SYS_futex && (op == FUTEX_WAKE || op == FUTEX_WAIT), "system call %ld", nr);
	if (op == FUTEX_WAKE)
		return 0;
	ns += (uint64_t)ts->tv_nsec;
	errno = ETIMEDOUT;
	return -1;
}

static void
service_writes(struct game *g, uint64_t off, const void *data, uint64_t len)
{
	struct region *r = &g->v.in;

	if (off >= r->size)
		return;
	if (len > r->size - off)
		len = r->size - off;
	if (r->map)
		memcpy(r->map + off, data, len);
	else
		CHECK(pwrite(r->fd, data, len, (off_t)off) == (ssize_t)len, "memfd");
}

static void
check_result(const struct game *g, int r, const struct vfun_result *res)
{
	if (r)
		return;
	if (res->reason == VFUN_R_RESULT_SIZE)
		return;
	if (res->bulk)
		CHECK(res->reason || res->len <= g->v.grant.in_arena, "bulk result of %llu",
		    (unsigned long long)res->len);
	else
		CHECK(res->len <= VFUN_PAYLOAD, "inline result of %llu", (unsigned long long)res->len);
}

static void
submit(struct game *g)
{
	uint8_t shape = in_u8(&g->in);
	uint64_t args[16];
	struct vfun_bulk bulk = { .in_off = in_small(&g->in), .out_len = in_small(&g->in) };
	uint32_t ticket;
	int r;

	for (unsigned i = 0; i < 16; i++)
		args[i] = i * shape;
	r = vfun_submit(&g->v, (enum vfun_cmd)(shape & 7), args, shape >> 4, shape & 8 ? &bulk : NULL, &ticket);
	if (!r)
		g->ticket[ticket % 8] = ticket;
}

/* An answer that is well-formed as far as the input wants it to be. */
static void
answer(struct game *g)
{
	uint8_t shape = in_u8(&g->in);
	uint32_t ticket = g->ticket[shape & 7];
	struct vfun_answer a = { .seq = ticket + 1, .state = VFUN_STATE_DONE };

	in_bytes(&g->in, &a.flags, 3);
	for (unsigned i = 0; i < (shape >> 3) % 8u && i < 7; i++)
		a.payload.word[i] = in_small(&g->in);
	service_writes(g, VFUN_PAGE + (ticket & (g->v.grant.slots - 1u)) * (uint64_t)VFUN_LINE, &a, sizeof(a));
}

static void
step(struct game *g)
{
	struct vfun_result res;
	uint8_t bytes[256];
	uint64_t off;
	uint32_t u;
	uint8_t what = in_u8(&g->in);

	switch (what % 9) {
	case 0:
		submit(g);
		break;
	case 1:
		answer(g);
		break;
	case 2:
		check_result(g, vfun_poll(&g->v, g->ticket[what >> 5], &res), &res);
		break;
	case 3:
		check_result(g, vfun_wait(&g->v, g->ticket[what >> 5], &res, in_u8(&g->in) * 20u), &res);
		break;
	case 4:
		off = in_u16(&g->in);
		what = in_u8(&g->in);
		in_bytes(&g->in, bytes, what);
		service_writes(g, off, bytes, what);
		break;
	case 5:
		off = in_small(&g->in);
		(void)vfun_fetch(&g->v, off, bytes, in_u8(&g->in));
		break;
	case 6:
		off = in_small(&g->in);
		memset(bytes, what, sizeof(bytes));
		(void)vfun_put(&g->v, off, bytes, in_u8(&g->in));
		break;
	case 7: /* the header's moving parts: gone, bell, parked */
		u = what >> 4;
		service_writes(g, 64u * (1 + in_u8(&g->in) % 3), &u, sizeof(u));
		break;
	case 8:
		check_result(g, vfun_poll(&g->v, in_u32(&g->in), &res), &res);
		break;
	}
}

static void
region_init(struct region *r, uint64_t size, int copy, int which)
{
	*r = (struct region){ .fd = -1, .size = size };
	if (copy) {
		r->fd = files[which];
		CHECK(ftruncate(r->fd, 0) == 0 && ftruncate(r->fd, (off_t)size) == 0, "memfd");
		return;
	}
	r->map = aligned_alloc(VFUN_PAGE, size);
	CHECK(r->map, "memory");
	memset(r->map, 0, size);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct game game;
	struct game *g = &game;
	uint8_t shape;

	if (null_fd < 0) {
		files[0] = memfd_create("dataout", MFD_CLOEXEC);
		files[1] = memfd_create("datain", MFD_CLOEXEC);
		null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		CHECK(files[0] >= 0 && files[1] >= 0 && null_fd >= 0, "descriptors");
	}
	memset(g, 0, sizeof(*g));
	ns = 1000000000;
	g->in = (struct input){ data, size };
	shape = in_u8(&g->in);
	client_begin(&g->v);
	g->v.ctl = -1;
	g->v.guest = shape & 1 || shape & 2;
	g->v.bell = shape & 4 ? null_fd : -1;
	g->v.pace.limit_ns = shape & 8 ? 100 : 0;
	g->v.grant.slots = (uint16_t)(1u << (shape >> 4 & 3));
	g->v.next = shape & 0x40 ? UINT32_MAX - 1 : 0;
	g->v.grant.out_arena = in_u8(&g->in) % 4 * (uint64_t)VFUN_PAGE;
	g->v.grant.in_arena = in_u8(&g->in) % 4 * (uint64_t)VFUN_PAGE;
	region_init(&g->v.out, vfun_region_size(g->v.grant.slots, g->v.grant.out_arena), shape & 2, 0);
	region_init(&g->v.in, vfun_region_size(g->v.grant.slots, g->v.grant.in_arena), shape & 2, 1);
	while (g->in.left)
		step(g);
	free(g->v.out.map);
	free(g->v.in.map);
	return 0;
}
