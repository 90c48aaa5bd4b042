/* SPDX-License-Identifier: MIT
 *
 * bar.c - what the tests do to the memory of a VM's ivshmem device, as root of its guest
 *
 *   bar hold WORD     an instance whose arena is full of WORD, until it is released from outside
 *   bar find WORD     how often WORD stands anywhere in any ivshmem device's memory
 *   bar scribble SECONDS   random bytes over all of this VM's, its first page included
 *   bar zero          a place that is used again holds nothing of what was there
 *   bar late          a place is not used again while its former client still has it mapped
 *   bar fill          instances until there is no room; what a client gets then; and when there is room again
 *
 * Says "ok ..." and exits with 0, or says what went wrong and exits with 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../proto/client.h"

#define SECOND 1000000000ull
#define ARENA (256u << 10)
#define HELD 64

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

static void
die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	exit(1);
}

/* -EACCES: refused; anything else but 0 is the test's end. */
static int
try_open(struct vfun **v, enum vfun_path path, uint64_t arena)
{
	struct vfun_options o = { .size = sizeof(o), .path = path, .slots = 1, .out_arena = arena, .in_arena = arena };
	int r = vfun_open(v, "factorial", &o);

	if (r && r != -EACCES)
		die("open: %s (%s)", vfun_text(*v), strerror(-r));
	return r;
}

static struct vfun *
open_or_die(enum vfun_path path, uint64_t arena)
{
	struct vfun *v;

	if (try_open(&v, path, arena))
		die("refused: %s [%s]", vfun_text(v), vfun_reason_name(vfun_reason(v)));
	return v;
}

static void
call(struct vfun *v)
{
	const uint64_t five = 5;
	struct vfun_result res;
	int r = vfun_call(v, VFUN_CMD_GET, &five, 1, NULL, &res, 20 * SECOND);

	if (r || res.reason || res.len != 1 || res.inline_result[0] != 120)
		die("5!: %s %s", strerror(-r), vfun_text(v));
}

static int
hold(const char *word)
{
	struct vfun *v = open_or_die(VFUN_PATH_IS_IVSHMEM, ARENA);
	char *arena = vfun_out_arena(v);
	const uint64_t five = 5;
	struct vfun_result res;

	for (size_t at = 0; at + strlen(word) < ARENA; at += strlen(word))
		memcpy(arena + at, word, strlen(word));
	printf("ok holding instance %llu\n", (unsigned long long)vfun_activated(v)->instance);
	fflush(stdout);
	while (!vfun_call(v, VFUN_CMD_GET, &five, 1, NULL, &res, 20 * SECOND))
		usleep(50000);
	printf("ok %s\n", vfun_reason_name(vfun_reason(v)));
	vfun_close(v, NULL);
	return 0;
}

static uint8_t *
map_device(const char *path, uint64_t *size)
{
	int fd = open(path, O_RDWR);
	struct stat st;
	void *p;

	if (fd < 0 || fstat(fd, &st) < 0)
		die("%s: %s", path, strerror(errno));
	*size = (uint64_t)st.st_size;
	p = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		die("%s: %s", path, strerror(errno));
	close(fd);
	return p;
}

/* Every device with a BAR 2 that is prefetchable memory: ivshmem's, in these VMs. */
static int
find(const char *word)
{
	unsigned found = 0, devices = 0;
	glob_t g;

	if (glob("/sys/bus/pci/devices/*/resource2_wc", 0, NULL, &g))
		die("no device");
	for (size_t i = 0; i < g.gl_pathc; i++) {
		char path[256];
		uint64_t size;
		uint8_t *p;

		snprintf(path, sizeof(path), "%.*s", (int)(strlen(g.gl_pathv[i]) - 3), g.gl_pathv[i]);
		p = map_device(path, &size);
		for (uint8_t *at = p; (at = memmem(at, size - (uint64_t)(at - p), word, strlen(word))); at++)
			found++;
		devices++;
	}
	printf("ok found %u in %u\n", found, devices);
	return 0;
}

/* The whole BAR, as root may have it. */
static uint8_t *
map_bar(uint64_t *size)
{
	struct vfun_msg m = { .type = VFUN_MSG_NEGOTIATE };
	int fd = vfun_control_open(NULL, 0);
	uint8_t *p;
	int bar;

	strcpy(m.body.negotiate.function, "factorial");
	m.body.negotiate.version_min = m.body.negotiate.version_max = VFUN_VERSION;
	if (fd < 0 || vfun_control(fd, &m, 5000) || m.reason)
		die("no grant");
	close(fd);
	bar = ivshmem_open(m.body.grant.bar, size);
	if (bar < 0)
		die("no BAR: %s", strerror(-bar));
	p = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, bar, 0);
	if (p == MAP_FAILED)
		die("BAR: %s", strerror(errno));
	return p;
}

static int
scribble(double seconds)
{
	uint64_t x = 88172645463325252ull, n = 0, size;
	uint8_t *p = map_bar(&size);
	uint64_t end = client_ns() + (uint64_t)(seconds * 1e9);

	for (; client_ns() < end; n += 1000)
		for (unsigned i = 0; i < 1000; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			/* Half of it where instances lie: first fit. */
			((volatile uint64_t *)(void *)p)[(x >> 20) % (x & 1 ? size / 8 : 65536)] = x;
		}
	memset(p, 0xff, VFUN_PAGE);
	printf("ok %llu words\n", (unsigned long long)n);
	return 0;
}

static void
expect_zeros(const uint8_t *p, uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++)
		if (p[i])
			die("byte %llu of a fresh region is %u", (unsigned long long)i, p[i]);
}

/* The echo has used slot 0. */
static int
zero(void)
{
	uint64_t size, again = 0, last = 0;
	uint8_t *all = map_bar(&size);

	for (unsigned i = 0; i < 6; i++) {
		struct vfun *v = open_or_die(VFUN_PATH_IS_IVSHMEM, ARENA >> (i & 1));

		again += v->active.out_off == last;
		last = v->active.out_off;
		expect_zeros(v->out.map, VFUN_PAGE + VFUN_LINE, v->out.size);
		expect_zeros(v->in.map, VFUN_PAGE + VFUN_LINE, v->in.size);
		memset(v->out.map + VFUN_PAGE + VFUN_LINE, 0xa5, v->out.size - VFUN_PAGE - VFUN_LINE);
		/* A hostile kernel writes to datain as well. */
		memset(all + v->active.in_off + VFUN_PAGE + VFUN_LINE, 0x5a, v->in.size - VFUN_PAGE - VFUN_LINE);
		if (vfun_close(v, NULL))
			die("release fails");
		/* And to what nobody has. */
		memset(all + size / 2, 0xee, 4096);
		memset(all + last, 0xee, 65536);
		usleep(100000);
	}
	if (!again)
		die("no place was used again");
	printf("ok zeros, %llu times at the same place\n", (unsigned long long)again);
	return 0;
}

static int
overlap(const struct vfun *a, const struct vfun *b)
{
	return a->active.out_off < b->active.in_off + b->active.in_size &&
	       b->active.out_off < a->active.in_off + a->active.in_size;
}

static int
late(void)
{
	struct vfun *v = open_or_die(VFUN_PATH_IS_IVSHMEM, ARENA);
	struct vfun_msg m = { .type = VFUN_MSG_RELEASE };
	int fd = vfun_control_open(NULL, 0);
	uint64_t place = v->active.out_off;
	struct vfun *w;

	m.body.release.instance = v->active.instance;
	if (vfun_control(fd, &m, 5000) || m.reason)
		die("release: %s", m.text);
	w = open_or_die(VFUN_PATH_IS_IVSHMEM, ARENA);
	if (overlap(v, w))
		die("its place was given away under it");
	memset(v->out.map, 0xff, v->out.size);
	call(w);
	vfun_close(v, NULL);
	for (unsigned tries = 0; tries < 50; tries++) {
		int same;

		v = open_or_die(VFUN_PATH_IS_IVSHMEM, ARENA);
		same = v->active.out_off == place;
		call(v);
		vfun_close(v, NULL);
		if (same) {
			call(w);
			vfun_close(w, NULL);
			puts("ok its place is used again once it is unmapped");
			return 0;
		}
		usleep(100000);
	}
	die("its place is never used again");
}

static unsigned
fill_up(struct vfun *held[HELD])
{
	unsigned n = 0;

	while (n < HELD && !try_open(&held[n], VFUN_PATH_IS_IVSHMEM, 65536))
		n++;
	if (n == HELD || vfun_reason(held[n]) != VFUN_R_NO_RESOURCE || !strstr(vfun_text(held[n]), "ivshmem"))
		die("instance %u: %s", n, vfun_text(held[n]));
	vfun_close(held[n], NULL);
	return n;
}

static int
fill(void)
{
	struct vfun *held[HELD];
	struct vfun *v;
	unsigned n = fill_up(held);
	unsigned again;

	v = open_or_die(VFUN_PATH_AUTO, 65536);
	call(v);
	if (vfun_path(v) != VFUN_PATH_IS_COPY)
		die("path %s", vfun_path_name(vfun_path(v)));
	if (try_open(&held[n], VFUN_PATH_IS_IVSHMEM, 1 << 20) != -EACCES || vfun_reason(held[n]) != VFUN_R_TOO_LARGE)
		die("more than the BAR: %s", vfun_text(held[n]));
	vfun_close(held[n], NULL);
	for (unsigned i = 0; i < n; i++)
		call(held[i]);
	for (unsigned i = 0; i < n; i++)
		if (vfun_close(held[i], NULL))
			die("release fails");
	vfun_close(v, NULL);
	usleep(500000);
	again = fill_up(held);
	if (again != n)
		die("%u, and then %u", n, again);
	while (again)
		vfun_close(held[--again], NULL);
	printf("ok %u instances, then none, copy for who takes it, and all again\n", n);
	return 0;
}

int
main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "hold") && argc == 3)
		return hold(argv[2]);
	if (!strcmp(what, "find") && argc == 3)
		return find(argv[2]);
	if (!strcmp(what, "scribble") && argc == 3)
		return scribble(atof(argv[2]));
	if (!strcmp(what, "zero"))
		return zero();
	if (!strcmp(what, "late"))
		return late();
	if (!strcmp(what, "fill"))
		return fill();
	die("usage: see the source");
}
