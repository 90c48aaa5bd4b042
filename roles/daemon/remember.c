/* SPDX-License-Identifier: MIT
 *
 * remember.c - which domains of libvirt's had functions, across starts of vfund and of the host
 *
 * Theory of operation
 *
 * A libvirtd that starts starts its autostarted domains first and answers afterwards, so that vfund can't ask it for
 * which of them to listen. What it said the last time is kept in <state>/domains, and vfund listens for these before
 * libvirtd is up; what libvirtd then says counts, as always (domains.c).
 *
 * The file is what the watcher would say: BEGIN (whose text names the format), a DOMAIN for each, END. It is written
 * anew under another name and renamed; nobody waits for a disk. So after a power failure it may be cut off or empty:
 * then, as with anything else that isn't such a list, it counts for nothing, and a line of log says so. It is believed
 * only if nobody but vfund's user may write to it and to its folder; what it says is bounded by vfun.conf like a word
 * of libvirt's.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "../common/virtd.h"
#include "launcher.h"

#define FORMAT "vfun domains 2"

static struct virtd_msg list[CONF_VMS_MAX + 2];

/* The folders above it, too, as far as they aren't there. */
static int
make_folders(const char *dir)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s", dir) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	for (char *s = path + 1; (s = strchr(s, '/')) != NULL; *s++ = '/') {
		*s = '\0';
		(void)mkdir(path, 0755);
	}
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

/* Is it vfund's user's, and nobody else's to write to? 0 or -errno. */
static int
check_owner(int fd, mode_t type)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	return (st.st_mode & S_IFMT) == type && st.st_uid == geteuid() && !(st.st_mode & (S_IWGRP | S_IWOTH)) ? 0
													      : -EPERM;
}

void
remember_open(struct launcher *l, const char *dir)
{
	int r;

	l->state = -1;
	if (!dir || !l->conf->connect[0])
		return;
	r = make_folders(dir);
	if (!r)
		l->state = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (!r)
		r = l->state < 0 ? -errno : check_owner(l->state, S_IFDIR);
	if (!r)
		return;
	log_warn("no domain is remembered, so autostarted ones won't start: %s: %s", dir,
	    r == -EPERM ? "it must be vfund's user's, and nobody else may write to it" : strerror(-r));
	if (l->state >= 0)
		close(l->state);
	l->state = -1;
}

/* How many messages, all of them the file; or 0. */
static unsigned
read_list(const struct launcher *l)
{
	int fd = openat(l->state, "domains", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	ssize_t n;
	char more;

	if (fd < 0)
		return 0;
	n = check_owner(fd, S_IFREG) ? -1 : read(fd, list, sizeof(list));
	if (n == (ssize_t)sizeof(list) && read(fd, &more, 1) != 0)
		n = -1;
	close(fd);
	return n > 0 && n % (ssize_t)sizeof(list[0]) == 0 ? (unsigned)(n / (ssize_t)sizeof(list[0])) : 0;
}

unsigned
remember_load(const struct launcher *l, const struct virtd_msg **said)
{
	unsigned n = l->state < 0 ? 0 : read_list(l);

	*said = &list[1];
	if (n >= 2 && list[0].kind == VIRTD_BEGIN && !strncmp(list[0].text, FORMAT, sizeof(list[0].text)) &&
	    list[n - 1].kind == VIRTD_END)
		return n - 2;
	if (l->state >= 0 && faccessat(l->state, "domains", F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		log_warn("the remembered list of domains is damaged, or not vfund's own: it counts for nothing");
	return 0;
}

void
remember_save(const struct launcher *l, const struct virtd_msg *said)
{
	unsigned n = 1;
	int fd;
	int r;

	if (l->state < 0)
		return;
	memset(list, 0, sizeof(list));
	list[0].kind = VIRTD_BEGIN;
	strcpy(list[0].text, FORMAT);
	for (unsigned i = 0; i < CONF_VMS_MAX; i++)
		if (said[i].kind == VIRTD_DOMAIN)
			list[n++] = said[i];
	list[n++].kind = VIRTD_END;
	(void)unlinkat(l->state, "domains.new", 0);
	fd = openat(l->state, "domains.new", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	r = fd < 0 ? -errno : fd_write_all(fd, list, n * sizeof(list[0]));
	if (fd >= 0 && close(fd) < 0 && !r)
		r = -errno;
	if (!r && renameat(l->state, "domains.new", l->state, "domains") < 0)
		r = -errno;
	if (r)
		log_warn("the list of domains can't be written, so autostarted ones may not start: %s", strerror(-r));
}
