/* SPDX-License-Identifier: MIT
 *
 * bar.c - the memory of a VM's ivshmem device, in which instances have their regions where QEMU has no DAX
 *
 * Theory of operation
 *
 * QEMU's ivshmem-plain maps a file into the guest as a PCI device's BAR 2, so a guest shares memory with the host also
 * where virtiofs has no DAX window. Names, control messages, leases and bells stay on virtiofs; only the regions of
 * clients who can map the BAR lie in it.
 *
 * Whose it is. One memfd per VM, of the size in vfun.conf, sealed against growing and shrinking, made when vfund starts
 * and held by the launcher, so that nothing of it is left whoever is killed. QEMU wants a path:
 * <run>/vmcli/VM/ivshmem leads to a descriptor in /proc, which those may follow who may open the VM's socket as well:
 * root, the user who runs vfund, or the one who runs QEMU (holder.c). (A file in the run folder or in /dev/shm could
 * not be sealed, so that QEMU could cut it off under services and share; it may be on a disk; and it stays when vfund
 * is killed.) Memory is taken as it is used, by regions or by the guest's kernel, which may use all of it: the BAR's
 * size is what a VM may cost beyond its quota.
 *
 * What is in it. The first page, struct vfun_bar, by which clients tell the right device from others: written for each
 * life of the VM, with a new random id, and never read. Then the regions: an instance has one piece, dataout and behind
 * it datain, first fit by pages. The list of pieces is the allocator; it is here, in the process that outlives engine
 * and shares, and nothing of it is in memory that a guest can reach.
 *
 * When a piece is free again. As all memory of an instance: when its service is gone and nobody reads it any more
 * (held.c), with one reason more here: a client that could still reach its piece would write into the next one's slots.
 * So the share must have seen the last file of the instance's folder closed. Before a piece is used again, the service
 * empties it once more, since the guest's kernel could write to it all the time.
 *
 * What protects what:
 *   VM from VM           each has a memfd of its own, which only its own QEMU, services and share have; another QEMU
 *                        of the same user may open it, as it may read that one's memory
 *   the host             nothing in the BAR is trusted: services copy and check, as with any region; offsets and sizes
 *                        are the launcher's; the memfd's size is fixed, so that no access faults
 *   client from client   services: each maps its own piece before it reads anything, closes the memfd, and has then no
 *                        system call left to map or open another (service.c). Users of a guest: its kernel, which gives
 *                        the BAR to root. Root of a guest sees all of its own VM's instances, here as with DAX; other
 *                        users have path copy.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "../common/log.h"
#include "launcher.h"

struct bar_part {
	struct bar_part *next;
	uint64_t id; /* of the service */
	uint64_t off;
	uint64_t len;
};

static void
punch(const struct bar *b, uint64_t off, uint64_t len)
{
	if (fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) < 0)
		log_warn("an ivshmem BAR's memory can't be given back: %s", strerror(errno));
}

/* Its size is fixed, its memory isn't there yet. */
static int
make_memory(struct bar *b)
{
	int r = 0;

	b->fd = memfd_create("vfun-ivshmem", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (b->fd < 0)
		return -errno;
	if (ftruncate(b->fd, (off_t)b->size) < 0 ||
	    fcntl(b->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		r = -errno;
		close(b->fd);
		b->fd = -1;
	}
	return r;
}

int
bar_make(struct vm *vm, uint64_t size)
{
	const char *name = vm->l->conf->vm[vm - vm->l->vm].name;
	struct bar *b = &vm->bar;
	int r;

	*b = (struct bar){ .fd = -1, .size = size, .holder = { .ready.fd = -1, .again.fd = -1 } };
	if (!size)
		return 0;
	r = make_memory(b);
	if (!r)
		label_memory(vm, b->fd, "ivshmem memory");
	if (!r)
		r = holder_start(vm);
	if (r)
		log_err("VM %s: its ivshmem memory can't be made: %s", name, strerror(-r));
	return r;
}

void
bar_begin(struct vm *vm)
{
	struct bar *b = &vm->bar;
	struct vfun_bar page = { .magic = VFUN_BAR_MAGIC, .size = b->size, .version = VFUN_VERSION };

	if (b->fd < 0)
		return;
	punch(b, 0, b->size);
	/* Without a number, or memory for the page, this VM has no ivshmem, in this life. */
	if (getrandom(&b->id, sizeof(b->id), GRND_NONBLOCK) != (ssize_t)sizeof(b->id))
		b->id = 0;
	page.id = b->id;
	snprintf(page.vm, sizeof(page.vm), "%s", vm->share.name);
	if (b->id && pwrite(b->fd, &page, sizeof(page), 0) != (ssize_t)sizeof(page))
		b->id = 0;
	if (!b->id)
		log_warn("VM %s: its ivshmem memory can't be used", vm->share.name);
}

void
bar_over(struct vm *vm)
{
	vm->bar.id = 0;
	if (vm->bar.fd >= 0)
		punch(&vm->bar, 0, vm->bar.size);
}

uint64_t
bar_take(struct vm *vm, uint64_t id, uint64_t len)
{
	struct bar *b = &vm->bar;
	struct bar_part **at = &b->parts;
	uint64_t off = VFUN_PAGE;
	struct bar_part *p;

	if (!b->id)
		return 0;
	/* The first gap that is large enough; behind the last piece is one as well. */
	for (; *at && (*at)->off - off < len; at = &(*at)->next)
		off = (*at)->off + (*at)->len;
	if (len > b->size - off)
		return 0;
	p = malloc(sizeof(*p));
	if (!p)
		return 0;
	*p = (struct bar_part){ .next = *at, .id = id, .off = off, .len = len };
	*at = p;
	return off;
}

static void
part_drop(struct bar_part **at)
{
	struct bar_part *p = *at;

	*at = p->next;
	free(p);
}

/* In whichever VM it is: ids are unique. */
void
bar_free(struct launcher *l, uint64_t id)
{
	for (unsigned i = 0; i < CONF_VMS_MAX; i++) {
		struct bar *b = &l->vm[i].bar;
		struct bar_part **at = &b->parts;

		while (*at && (*at)->id != id)
			at = &(*at)->next;
		if (!*at)
			continue;
		punch(b, (*at)->off, (*at)->len);
		part_drop(at);
	}
}

void
bar_end(struct vm *vm)
{
	holder_end(vm);
	/* Nothing is emptied: a guest that outlives vfund goes on reading. */
	while (vm->bar.parts)
		part_drop(&vm->bar.parts);
	if (vm->bar.fd >= 0)
		close(vm->bar.fd);
	vm->bar.fd = -1;
}
