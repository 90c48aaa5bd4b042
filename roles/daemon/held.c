/* SPDX-License-Identifier: MIT
 *
 * held.c - memory of instances whose service has ended, until their clients have let go of it
 *
 * What was answered stays readable for as long as its client may still read it. So when a service has ended, the
 * launcher stores `gone` in datain, wakes whoever sleeps there, and then changes nothing of datain any more. The
 * service's process, uid, cgroup and pidfd are gone by then; what is held are the regions' descriptors. The engine
 * knows who may still read, and says KEEP_FREE when nobody does. An engine that takes over is told what is held, and
 * frees what it doesn't know.
 *
 * dataout is given back at once: nobody will read it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../common/log.h"
#include "launcher.h"

/* The header stays: whoever still has it mapped finds `gone` there. */
static void
give_back(const struct service *s, int region)
{
	if (fallocate(s->regions[region], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		(off_t)(s->off[region] + VFUN_PAGE), (off_t)(s->size[region] - VFUN_PAGE)) < 0)
		log_warn(
		    "instance %llu: its memory can't be given back: %s", (unsigned long long)s->id, strerror(errno));
}

/* Nobody else writes datain's bell any more, unless it is a guest's, and then its value is nonsense: it means nothing
 * here. By system calls: what a client does to its memory must not hurt here. */
static void
wake(int fd, uint64_t off)
{
	off_t at = (off_t)(off + offsetof(struct vfun_hdr, bell));
	uint32_t bell;
	uint8_t *p;

	if (pread(fd, &bell, sizeof(bell), at) != (ssize_t)sizeof(bell))
		return;
	bell++;
	if (pwrite(fd, &bell, sizeof(bell), at) != (ssize_t)sizeof(bell))
		return;
	p = mmap(NULL, VFUN_PAGE, PROT_READ, MAP_SHARED, fd, (off_t)off);
	if (p == MAP_FAILED)
		return;
	(void)syscall(SYS_futex, p + offsetof(struct vfun_hdr, bell), FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	munmap(p, VFUN_PAGE);
}

void
held_mark_gone(const struct service *s, uint32_t reason)
{
	off_t at = (off_t)(s->off[1] + offsetof(struct vfun_hdr, gone));

	if (s->regions[1] < 0)
		return;
	if (pwrite(s->regions[1], &reason, sizeof(reason), at) != (ssize_t)sizeof(reason))
		log_warn(
		    "instance %llu: datain can't be marked as gone: %s", (unsigned long long)s->id, strerror(errno));
	wake(s->regions[1], s->off[1]);
}

int
held_wanted(const struct service *s)
{
	int wanted = s->regions[0] >= 0 && s->given && !s->unwanted;

	for (int i = 0; s->regions[0] >= 0 && i < (wanted ? 1 : 2); i++)
		give_back(s, i);
	return wanted;
}

void
held_add(struct service *s)
{
	closer_put(s->l, s->regions[2], NULL);
	s->regions[2] = -1;
	s->next = s->l->held;
	s->l->held = s;
}

static void
drop(struct service **at)
{
	struct service *s = *at;

	*at = s->next;
	service_free(s);
}

static struct service **
find(struct launcher *l, uint64_t id)
{
	struct service **at = &l->held;

	while (*at && (*at)->id != id)
		at = &(*at)->next;
	return at;
}

int
held_is(struct launcher *l, uint64_t id)
{
	return *find(l, id) != NULL;
}

void
held_free(struct launcher *l, uint64_t id)
{
	struct service **at = find(l, id);

	if (!*at)
		return;
	/* dataout again: a client may have written to it since. */
	for (int i = 0; i < 2; i++)
		give_back(*at, i);
	drop(at);
}

unsigned
held_usage(const struct launcher *l, uint64_t *size)
{
	unsigned n = 0;

	for (const struct service *s = l->held; s; s = s->next) {
		n++;
		*size += s->size[0] + s->size[1];
	}
	return n;
}

int
held_greet(struct kept *engine)
{
	int r = 0;

	for (const struct service *s = engine->l->held; !r && s; s = s->next) {
		struct keep_msg msg = { .type = KEEP_SERVICE_ALIVE, .u.service = { .id = s->id, .held = 1 } };

		r = kept_event(engine, &msg, NULL, 0);
	}
	return r;
}

/* vfund stops: its clients go on reading what they have mapped. */
void
held_end(struct launcher *l)
{
	while (l->held)
		drop(&l->held);
}
