/* SPDX-License-Identifier: MIT
 *
 * mem.c - guest memory: addresses to pointers
 *
 * Nothing is ever read or written through an address that a guest or its QEMU gave, but through a pointer from here,
 * for a range that lies inside one region. Sums of 64-bit addresses and lengths are never formed before it is clear
 * that they don't overflow: offset = address - start; offset <= size; length <= size - offset.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/log.h"
#include "share.h"

/* The longest single region that is believed: more than any machine has, and far from overflow. */
#define REGION_SIZE_MAX (1ull << 46)

static void
mem_changed(struct share *s)
{
	s->mem_gen++;
	s->region_top = 0;
	for (unsigned i = 0; i < SHARE_REGIONS; i++)
		if (s->st->region[i].valid)
			s->region_top = i + 1;
}

static int
mem_same(const struct share_region *a, const struct share_region *b)
{
	return a->gpa == b->gpa && a->size == b->size && a->uva == b->uva;
}

/* Map a region's file; only whole pages can be. The pointer is for the region's first byte. */
static int
mem_map(struct share *s, unsigned i, int fd)
{
	const struct share_region *r = &s->st->region[i];
	struct stat st;
	void *p;

	/* Memory past the file's end would be SIGBUS at some later time. */
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size < r->offset || (uint64_t)st.st_size - r->offset < r->size)
		return -EINVAL;
	p = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, (off_t)r->offset);
	if (p == MAP_FAILED)
		return -errno;
	s->region_ptr[i] = p;
	(void)window_region(s, st.st_ino, r);
	return 0;
}

static void
mem_drop(struct share *s, unsigned i)
{
	struct share_region *r = &s->st->region[i];

	r->valid = 0;
	state_order();
	if (s->region_ptr[i])
		munmap(s->region_ptr[i], r->size);
	s->region_ptr[i] = NULL;
	(void)keep_drop(&s->k, SLOT_REGION + i);
	mem_changed(s);
}

static int
mem_check(struct share *s, const struct share_region *r, unsigned *slot)
{
	*slot = SHARE_REGIONS;
	if (!r->size || r->size > REGION_SIZE_MAX || r->gpa > UINT64_MAX - r->size || r->uva > UINT64_MAX - r->size ||
	    r->offset > REGION_SIZE_MAX || r->offset % 4096 || r->size % 4096)
		return -EINVAL;
	for (unsigned i = 0; i < SHARE_REGIONS; i++) {
		const struct share_region *o = &s->st->region[i];

		if (!o->valid) {
			if (*slot == SHARE_REGIONS)
				*slot = i;
		} else if (r->gpa < o->gpa + o->size && o->gpa < r->gpa + r->size) {
			return -EEXIST;
		}
	}
	return *slot == SHARE_REGIONS ? -ENOSPC : 0;
}

int
mem_add(struct share *s, const struct share_region *r, int *fd)
{
	unsigned i;
	int err;

	/* Said again, by a front-end or because a predecessor died before it could consume the message: take the new.
	 */
	for (i = 0; i < SHARE_REGIONS; i++)
		if (s->st->region[i].valid && mem_same(&s->st->region[i], r))
			mem_drop(s, i);
	err = mem_check(s, r, &i);
	if (err)
		return err;
	s->st->region[i] = *r;
	s->st->region[i].valid = 0;
	err = mem_map(s, i, *fd);
	if (!err)
		err = keep_store(&s->k, SLOT_REGION + i, *fd);
	if (err) {
		mem_drop(s, i);
		return err;
	}
	*fd = -1;
	state_order();
	s->st->region[i].valid = 1;
	mem_changed(s);
	return 0;
}

int
mem_remove(struct share *s, const struct share_region *r)
{
	for (unsigned i = 0; i < SHARE_REGIONS; i++)
		if (s->st->region[i].valid && mem_same(&s->st->region[i], r))
			mem_drop(s, i);
	return 0; /* not there: that is what was wanted, and what a repeated message finds */
}

void
mem_clear(struct share *s)
{
	for (unsigned i = 0; i < SHARE_REGIONS; i++)
		if (s->st->region[i].valid)
			mem_drop(s, i);
}

int
mem_takeover(struct share *s)
{
	for (unsigned i = 0; i < SHARE_REGIONS; i++) {
		int fd = s->k.fds[SLOT_REGION + i];
		int err;

		if (!s->st->region[i].valid)
			continue;
		err = fd < 0 ? -EBADF : mem_map(s, i, fd);
		if (err)
			return err;
	}
	mem_changed(s);
	return 0;
}

void *
mem_guest(struct share *s, uint64_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < s->region_top; i++) {
		const struct share_region *r = &s->st->region[i];
		uint64_t off = gpa - r->gpa;

		if (r->valid && gpa >= r->gpa && off <= r->size && len <= r->size - off)
			return s->region_ptr[i] + off;
	}
	return window_guest(s, gpa, len);
}

void *
mem_front(struct share *s, uint64_t uva, uint64_t len)
{
	for (unsigned i = 0; i < s->region_top; i++) {
		const struct share_region *r = &s->st->region[i];
		uint64_t off = uva - r->uva;

		if (r->valid && uva >= r->uva && off <= r->size && len <= r->size - off)
			return s->region_ptr[i] + off;
	}
	return NULL;
}
