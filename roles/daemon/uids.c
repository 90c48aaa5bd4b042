/* SPDX-License-Identifier: MIT
 *
 * uids.c - the uids from uid-base on are this vfund's alone (system mode)
 *
 * Two vfunds with the same uids could end each other's processes. So each locks the bytes of one file whose numbers are
 * its uids: ranges that overlap collide, the kernel says with whom, and what a killed vfund had is free. Without
 * uid-base in vfun.conf the first range counts that nobody has.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/log.h"
#include "launcher.h"

#define PLACE "/run/vfun.uids"
#define RANGES 64u /* that are tried */

/* Its last user may have removed it between the two: then once more. Descriptor or -errno. */
static int
open_file(void)
{
	int fd = open(PLACE, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : fd;
}

/* 0, -ESTALE: the file was removed, or -EBUSY with the other's pid. */
static int
lock(int fd, uint32_t base, pid_t *other)
{
	struct flock want = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = base, .l_len = UIDS };
	struct stat st;

	if (fcntl(fd, F_SETLK, &want) < 0) {
		*other = fcntl(fd, F_GETLK, &want) == 0 && want.l_type != F_UNLCK ? want.l_pid : 0;
		return -EBUSY;
	}
	return fstat(fd, &st) == 0 && st.st_nlink ? 0 : -ESTALE;
}

/* One of `n` ranges from `first` on. Its number, or -errno. */
static int
claim(int *fd, uint32_t first, unsigned n, pid_t *other)
{
	unsigned i = 0;

	while (i < n) {
		int r = *fd < 0 ? -ESTALE : lock(*fd, first + i * UIDS, other);

		if (!r)
			return (int)i;
		if (r == -EBUSY) {
			i++;
			continue;
		}
		if (*fd >= 0)
			close(*fd);
		*fd = open_file();
		if (*fd < 0)
			return *fd;
	}
	return -EBUSY;
}

int
uids_claim(struct launcher *l, struct conf *c, int check, conf_complain *complain, void *arg)
{
	uint32_t first = c->uid_base ? c->uid_base : CONF_UID_BASE;
	pid_t other = 0;
	char text[160];
	int r;

	if (!l->system_mode || check || l->uid_base) {
		c->uid_base = c->uid_base ? c->uid_base : l->uid_base ? l->uid_base : first;
		return 0;
	}
	l->uids = -1;
	r = claim(&l->uids, first, c->uid_base ? 1 : RANGES, &other);
	if (r == -EBUSY) {
		snprintf(text, sizeof(text),
		    "uid-base: another vfund, pid %d, has uids from %u to %u: end it, or choose others", (int)other,
		    first, first + UIDS - 1);
		complain(arg, 0, text);
		return 1;
	}
	if (r < 0)
		log_warn("%s can't be opened, so that another vfund may have the same uids: %s", PLACE, strerror(-r));
	c->uid_base = l->uid_base = first + (r > 0 ? (uint32_t)r * UIDS : 0);
	return 0;
}

void
uids_release(const struct launcher *l)
{
	struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (!l->uid_base || l->uids < 0)
		return;
	if (fcntl(l->uids, F_SETLK, &all) == 0)
		(void)unlink(PLACE);
	close(l->uids);
}
