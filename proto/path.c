/* SPDX-License-Identifier: MIT
 *
 * path.c - how a client gets at its instance's regions: by descriptor, DAX, ivshmem, copies, or TCP
 *
 * In a guest a mapping of the share's files may be the host's memory (DAX) or nothing but the guest's own page cache,
 * in which a call would wait for ever. Neither mount options nor mmap() tell, so the mapping has to prove itself: an
 * ECHO with a random payload goes through it, and if the answer doesn't come in time the same files are used by pread()
 * and pwrite() instead. Where there is no DAX, the VM may have an ivshmem device, whose memory proves itself in the
 * same way (ivshmem.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "client.h"
#include "net.h"

#define ECHO_MS 1000u

/* Before the instance is made: the BAR's memory is only for who can map it, and DAX is better. A forced path that is
 * not to be had fails here. */
int
path_find_bar(struct vfun *v, enum vfun_path want)
{
	int forced = want == VFUN_PATH_IS_IVSHMEM;

	close_fd(&v->bar);
	if (!v->guest || (!forced && want != VFUN_PATH_AUTO))
		return 0;
	if (!(v->grant.paths & VFUN_PATH_IVSHMEM))
		return !forced ? 0
			       : client_fail(v, -ENODEV, VFUN_OK,
				     "path ivshmem: vfund has no ivshmem memory for this VM, see vfun.conf(5)");
	if (!forced && (v->grant.paths & VFUN_PATH_DAX))
		return 0;
	v->bar = ivshmem_open(v->grant.bar, &v->bar_size);
	if (v->bar >= 0)
		return 0;
	(void)client_fail(v, -ENODEV, VFUN_OK, "path ivshmem: %s (%s)",
	    v->bar == -ENXIO ? "no PCI device is this VM's memory" : "the device's memory can't be opened",
	    strerror(-v->bar));
	v->bar = -1;
	return forced ? -ENODEV : 0;
}

/* Is [off, off + size) of the BAR a place for a region? */
static int
in_bar(const struct vfun *v, uint64_t off, uint64_t size)
{
	return off >= VFUN_PAGE && off % VFUN_PAGE == 0 && off <= v->bar_size && size <= v->bar_size - off;
}

int
path_bar_sane(const struct vfun *v)
{
	const struct vfun_active *a = &v->active;

	return in_bar(v, a->out_off, a->out_size) && in_bar(v, a->in_off, a->in_size) &&
	       (a->out_off + a->out_size <= a->in_off || a->in_off + a->in_size <= a->out_off);
}
static int
open_file(const struct vfun *v, const char *name, int flags)
{
	char path[2 * CLIENT_PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/%s/%s", v->run, v->active.folder, name);
	fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

static int
not_opened(struct vfun *v, int err)
{
	return client_fail(v, is_shortage(err) ? err : -ECONNRESET, is_shortage(err) ? VFUN_OK : VFUN_R_GONE,
	    "%s/%s: its files can't be opened: %s", v->run, v->active.folder, strerror(-err));
}

static int
open_files(struct vfun *v, int flags)
{
	close_fd(&v->out.fd);
	close_fd(&v->in.fd);
	v->out.fd = open_file(v, "dataout", O_RDWR | flags);
	v->in.fd = open_file(v, "datain", O_RDONLY | flags);
	if (v->bell < 0)
		v->bell = open_file(v, "bell", O_RDWR);
	if (v->out.fd < 0)
		return not_opened(v, v->out.fd);
	if (v->in.fd < 0)
		return not_opened(v, v->in.fd);
	return v->bell < 0 ? not_opened(v, v->bell) : 0;
}

static void
unmap(struct region *r)
{
	if (r->map)
		munmap(r->map, r->size);
	r->map = NULL;
}

void
path_unmap(struct vfun *v)
{
	unmap(&v->out);
	unmap(&v->in);
}

static int
map_region(struct region *r, int prot, int fd, uint64_t off)
{
	void *p = mmap(NULL, r->size, prot, MAP_SHARED, fd, (off_t)off);

	if (p == MAP_FAILED)
		return -errno;
	r->map = p;
	return 0;
}

static int
map_both(struct vfun *v)
{
	int r = map_region(&v->out, PROT_READ | PROT_WRITE, v->out.fd, 0);

	if (!r)
		r = map_region(&v->in, PROT_READ, v->in.fd, 0);
	if (r)
		path_unmap(v);
	return r;
}

/* Not a secret: it only has to differ from what a cache may hold. */
static void
draw_nonce(struct vfun *v)
{
	v->nonce[0] = v->active.session;
	v->nonce[1] = v->active.instance;
	if (getrandom(&v->nonce[2], 2 * sizeof(v->nonce[2]), GRND_NONBLOCK) < 0)
		v->nonce[2] = client_ns();
}

/* The headers say what ACTIVATE said, and an ECHO comes back: 0 or -errno. Always the same one at position 0, so that a
 * second try by another path repeats the first, whose request may have arrived late. Not vfun_call(), which would
 * cancel the first when it is late, and so the second. */
static int
prove(struct vfun *v, unsigned echo_ms)
{
	struct vfun_result res;
	struct vfun_hdr h;
	uint32_t ticket;
	int r;

	if (v->in.map)
		memcpy(&h, v->in.map, VFUN_LINE);
	else if (pread(v->in.fd, &h, VFUN_LINE, 0) != (ssize_t)VFUN_LINE)
		return -EIO;
	if (h.magic != VFUN_IN_MAGIC || h.session != v->active.session || h.slots != v->grant.slots ||
	    h.size != v->in.size)
		return -ESTALE;
	client_begin(v);
	r = vfun_submit(v, VFUN_CMD_ECHO, v->nonce, 4, NULL, &ticket);
	if (!r)
		r = vfun_wait(v, ticket, &res, (uint64_t)echo_ms * 1000000u);
	if (!r && (res.reason || res.len != sizeof(v->nonce) || memcmp(res.inline_result, v->nonce, sizeof(v->nonce))))
		r = -EIO;
	return r;
}

/* Path host: descriptors came with the activation. */
static int
use_host(struct vfun *v, unsigned echo_ms)
{
	int r = map_both(v);

	if (!r)
		r = prove(v, echo_ms);
	if (r)
		return client_fail(v, r == -ECONNRESET ? r : -ENODEV, v->reason,
		    "the mapping on this host doesn't work: %s", strerror(-r));
	v->path = VFUN_PATH_IS_HOST;
	v->pace.peer = (const uint32_t *)(const void *)(v->in.map + offsetof(struct vfun_hdr, cpu));
	close_fd(&v->out.fd);
	close_fd(&v->in.fd);
	return 0;
}

static int
use_dax(struct vfun *v, unsigned echo_ms)
{
	int r = open_files(v, 0);

	if (r)
		return r;
	r = map_both(v);
	if (r)
		return client_fail(v, -ENODEV, VFUN_OK,
		    "the share's files can't be mapped (%s): this QEMU offers no DAX window", strerror(-r));
	r = prove(v, echo_ms);
	if (r) {
		v->incoherent = 1;
		path_unmap(v);
		return client_fail(v, -ENODEV, VFUN_OK,
		    "the mapping is not coherent with the host (echo: %s): no DAX here", strerror(-r));
	}
	v->path = VFUN_PATH_IS_DAX;
	return 0;
}

/* The bell stays open as long as the regions are mapped: it keeps their place from being given to others. */
static int
use_ivshmem(struct vfun *v, unsigned echo_ms)
{
	int r;

	if (!(v->active.paths & VFUN_PATH_IVSHMEM))
		return client_fail(v, -ENODEV, VFUN_OK, "the VM's ivshmem memory has no room left");
	v->bell = open_file(v, "bell", O_RDWR);
	if (v->bell < 0)
		return not_opened(v, v->bell);
	r = map_region(&v->out, PROT_READ | PROT_WRITE, v->bar, v->active.out_off);
	if (!r)
		r = map_region(&v->in, PROT_READ, v->bar, v->active.in_off);
	if (!r) {
		r = prove(v, echo_ms);
		v->incoherent = r != 0;
	}
	close_fd(&v->bar);
	if (r) {
		path_unmap(v);
		return client_fail(
		    v, -ENODEV, VFUN_OK, "the ivshmem device's memory doesn't reach the service: %s", strerror(-r));
	}
	v->path = VFUN_PATH_IS_IVSHMEM;
	return 0;
}

static int
use_copy(struct vfun *v, unsigned echo_ms)
{
	/* O_DIRECT: past the guest's page cache, whatever the share allows it to cache. */
	int r = open_files(v, O_DIRECT);

	if (!r)
		r = prove(v, echo_ms);
	if (r)
		return client_fail(v, r == -ECONNRESET ? r : -ENODEV, v->reason,
		    "reading and writing the share's files doesn't reach the service: %s", strerror(-r));
	v->path = VFUN_PATH_IS_COPY;
	return 0;
}

static int
use_net(struct vfun *v, unsigned timeout_ms)
{
	int r = net_regions(v);

	if (!r)
		r = prove(v, timeout_ms);
	if (r)
		return client_fail(v, r == -ECONNRESET ? r : -ENODEV, v->reason, "path net doesn't work: %s",
		    *vfun_text(v) ? vfun_text(v) : strerror(-r));
	v->path = VFUN_PATH_IS_NET;
	return 0;
}

int
path_choose(struct vfun *v, const struct vfun_options *o)
{
	unsigned echo_ms = o->echo_ms ? o->echo_ms : ECHO_MS;
	enum vfun_path want = o->path;
	int r;

	draw_nonce(v);
	if (v->net)
		return use_net(v, o->timeout_ms ? o->timeout_ms : CLIENT_TIMEOUT_MS);
	if (!v->guest && (want == VFUN_PATH_AUTO || want == VFUN_PATH_IS_HOST))
		return use_host(v, echo_ms);
	if (v->guest && want == VFUN_PATH_IS_DAX)
		return use_dax(v, echo_ms);
	if (v->guest && want == VFUN_PATH_IS_COPY)
		return use_copy(v, 2 * echo_ms);
	if (v->guest && want == VFUN_PATH_IS_IVSHMEM)
		return use_ivshmem(v, echo_ms);
	if (!v->guest || want != VFUN_PATH_AUTO)
		return client_fail(v, -ENODEV, VFUN_OK, "path %s is not for a program %s", vfun_path_name(want),
		    v->guest ? "in a guest" : "on the host");
	/* A VM with ivshmem and without DAX: the text says what was wrong with the device. */
	if (v->bar >= 0)
		r = use_ivshmem(v, echo_ms);
	else
		r = (v->grant.paths & (VFUN_PATH_IVSHMEM | VFUN_PATH_DAX)) == VFUN_PATH_IVSHMEM ? -ENODEV
												: use_dax(v, echo_ms);
	/* The text why stays, for whoever wants to know. */
	return r == -ENODEV ? use_copy(v, 2 * echo_ms) : r;
}
