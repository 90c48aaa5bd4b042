/* SPDX-License-Identifier: MIT
 *
 * regions.c - the service's two regions: made while nobody else can see them, and mapped
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/fd.h"
#include "service.h"

static void
header(int fd, uint64_t off, const struct svc_start *st, uint64_t magic, uint64_t arena, int *err)
{
	struct vfun_hdr h;

	memset(&h, 0, sizeof(h));
	serve_header(&h, magic, st->session, st->id, st->slots, arena);
	h.version = (uint16_t)st->version;
	if (pwrite(fd, &h, sizeof(h), (off_t)off) != (ssize_t)sizeof(h))
		*err = -errno;
}

/* Two pieces of the BAR, one behind the other: zeros, whatever was there, and memory that is sure to be there. */
static int
make_in_bar(struct service *sv, uint64_t out_size, uint64_t in_size)
{
	off_t place = (off_t)sv->start.place;
	off_t len = (off_t)(out_size + in_size);

	sv->out_off = sv->start.place;
	sv->in_off = sv->out_off + out_size;
	return fallocate(sv->out_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, place, len) < 0 ||
		       fallocate(sv->out_fd, FALLOC_FL_KEEP_SIZE, place, len) < 0
		   ? -errno
		   : 0;
}

static int
make_memfds(struct service *sv, uint64_t out_size, uint64_t in_size)
{
	sv->out_fd = fd_memfd("vfun-dataout", out_size, &sv->huge);
	if (sv->out_fd < 0)
		return sv->out_fd;
	sv->in_fd = fd_memfd("vfun-datain", in_size, &sv->huge);
	if (sv->in_fd < 0)
		return sv->in_fd;
	/* Who has a descriptor that is read only isn't to open it again for writing. */
	return fchmod(sv->out_fd, 0600) < 0 || fchmod(sv->in_fd, 0400) < 0 ? -errno : 0;
}

int
regions_make(struct service *sv)
{
	const struct svc_start *st = &sv->start;
	uint64_t out_size = vfun_region_size(st->slots, st->out_arena);
	uint64_t in_size = vfun_region_size(st->slots, st->in_arena);
	int err;

	/* First, so that its number isn't taken: the second filter knows it. */
	sv->ring_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (sv->ring_fd < 0)
		return -errno;
	if (sv->ring_fd != RING_FD && (sv->ring_fd = dup3(sv->ring_fd, RING_FD, O_CLOEXEC)) < 0)
		return -errno;
	err = st->place ? make_in_bar(sv, out_size, in_size) : make_memfds(sv, out_size, in_size);
	if (err)
		return err;
	header(sv->out_fd, sv->out_off, st, VFUN_OUT_MAGIC, st->out_arena, &err);
	header(sv->in_fd, sv->in_off, st, VFUN_IN_MAGIC, st->in_arena, &err);
	return err;
}

/* A region, between two pages that nobody may touch: whoever steps outside it, libraries included, does not reach what
 * happens to lie there. */
static void *
map_region(int fd, uint64_t off, uint64_t size, int prot)
{
	uint8_t *p = mmap(NULL, size + 2 * (uint64_t)VFUN_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? p : mmap(p + VFUN_PAGE, size, prot, MAP_SHARED | MAP_FIXED, fd, (off_t)off);
}

int
regions_map(struct service *sv, int out_prot)
{
	const struct svc_start *st = &sv->start;

	/* The bell of dataout is futex-waited on, which reading allows. */
	sv->out = map_region(sv->out_fd, sv->out_off, vfun_region_size(st->slots, st->out_arena), out_prot);
	if (sv->out == MAP_FAILED)
		return -errno;
	sv->in = map_region(sv->in_fd, sv->in_off, vfun_region_size(st->slots, st->in_arena), PROT_READ | PROT_WRITE);
	return sv->in == MAP_FAILED ? -errno : 0;
}
