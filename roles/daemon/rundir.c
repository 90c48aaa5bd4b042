/* SPDX-License-Identifier: MIT
 *
 * rundir.c - the run folder: sockets and records
 *
 *   <run>/control                         socket for clients on the host
 *   <run>/admin/socket, lock              administrator's socket (folder 0700), and the lock that one vfund holds
 *   <run>/service/<clientID>/<functionID>/<instance>   one record per instance, written by the engine, whose folder it
 * is <run>/vmcli/<VM>/share.sock           the VM's device socket; `device` beside it while a QEMU is connected;
 *                                         `ivshmem`, see bar.c
 *
 * The paper's three branches (figure 6). Nothing here outlives vfund, so it lies in the run folder: what a killed vfund
 * left is removed by the next one, which knows by the lock (released by the kernel) that it is alone.
 *
 * A run folder that is there already must be ours alone: who else could write to it, or is its owner, could put links
 * and sockets of his own where vfund writes. It is opened once, and all in it is reached from there, whatever becomes
 * of its path.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../common/fd.h"
#include "../common/log.h"
#include "../roles.h"
#include "launcher.h"

/* Connections that nobody has accepted: who comes waits behind them, so a long queue is a gift to who fills it. */
#define BACKLOG 4
#define STEPS_MAX 1000000u /* to remove what was left: somebody may go on making more */

/* name: in the run folder; "": itself. */
static int
fail(const struct launcher *l, const char *what, const char *name)
{
	int err = errno;

	log_err("%s %s%s%s: %s", what, l->run, *name ? "/" : "", name, strerror(err));
	return -err;
}

int
rundir_listen(const struct launcher *l, const char *name, int type, unsigned mode)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	char path[PATH_MAX];
	mode_t old;
	int fd;
	int r;

	/* For those who will connect. */
	if (snprintf(path, sizeof(path), "%s/%s", l->run, name) >= (int)sizeof(sa.sun_path)) {
		log_err("%s: a socket's path has %zu characters at most: use a shorter --run", path,
		    sizeof(sa.sun_path) - 1);
		return -ENAMETOOLONG;
	}
	snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/%s", l->dir, name);
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail(l, "socket for", name);
	/* Clients send no descriptors; a front-end does. */
	if (type == SOCK_SEQPACKET)
		(void)fd_no_rights(fd);
	old = umask(0777 & ~mode);
	r = bind(fd, (struct sockaddr *)&sa, sizeof(sa));
	umask(old);
	if (r < 0 || listen(fd, BACKLOG) < 0) {
		r = fail(l, "can't listen on", name);
		close(fd);
		return r;
	}
	return fd;
}

/* Is this folder ours, and nobody else's to write to? NULL, or what is wrong. */
static const char *
foreign(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return strerror(errno);
	if (st.st_uid != geteuid())
		return "it belongs to somebody else";
	return st.st_mode & (S_IWGRP | S_IWOTH) ? "others may write to it" : NULL;
}

static int
make_folder(const struct launcher *l, const char *name, unsigned mode, int for_engine)
{
	const char *wrong;
	int fd;

	if (mkdirat(l->dir, name, mode) < 0 && errno != EEXIST)
		return fail(l, "can't make", name);
	fd = openat(l->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return fail(l, "can't open", name);
	wrong = foreign(fd);
	if (wrong) {
		log_err("%s/%s: %s", l->run, name, wrong);
		close(fd);
		return -EPERM;
	}
	if (fchmod(fd, mode) < 0 || (for_engine && l->system_mode && fchown(fd, l->conf->uid, l->conf->gid) < 0)) {
		int r = fail(l, "can't set owner and mode of", name);

		close(fd);
		return r;
	}
	return fd;
}

/* Open and lock the lock file in the folder `admin`. Its last owner may have removed it between the two: then once
 * more. */
static int
lock(const struct launcher *l, int admin)
{
	for (;;) {
		int fd = openat(admin, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		struct stat locked, there;

		if (fd < 0)
			return fail(l, "can't open", "admin/lock");
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			if (errno == EWOULDBLOCK)
				log_err("another vfund serves %s: end it, or use another --run", l->run);
			else
				(void)fail(l, "can't lock", "");
			close(fd);
			return -EBUSY;
		}
		if (fstat(fd, &locked) == 0 && fstatat(admin, "lock", &there, AT_SYMLINK_NOFOLLOW) == 0 &&
		    locked.st_ino == there.st_ino && locked.st_dev == there.st_dev)
			return fd; /* held for as long as this process lives */
		close(fd);
	}
}

/* Remove one name, unless it is a folder with something in it. 1: it is gone. */
static int
remove_name(int dir, const char *name)
{
	return unlinkat(dir, name, 0) == 0 || unlinkat(dir, name, AT_REMOVEDIR) == 0;
}

/* The next name of a folder that isn't its own or its parent's; NULL: no more. */
static const char *
next_name(DIR *d)
{
	struct dirent *e;

	do
		e = readdir(d);
	while (e && (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")));
	return e ? e->d_name : NULL;
}

static DIR *
open_folder(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (fd >= 0 && !d)
		close(fd);
	return d;
}

/* Remove everything in the folder `name` of `top`; folders in it that aren't empty go up into `top`. */
static void
lift(int top, const char *name, unsigned *steps)
{
	DIR *d = open_folder(top, name);
	const char *entry;
	char up[16];

	while (d && *steps < STEPS_MAX && (entry = next_name(d)) != NULL) {
		snprintf(up, sizeof(up), "up.%u", (*steps)++);
		if (!remove_name(dirfd(d), entry))
			(void)renameat(dirfd(d), entry, top, up);
	}
	if (d)
		closedir(d);
}

/* Remove what is called `name` in a folder, and everything in it. Part of it belongs to the engine's user, who may
 * rename and link while we look, and nest folders as deep as he likes: each step goes from an open folder to a name in
 * it and follows no link, so it never leaves the tree; and the tree is made flat on the way, so that its depth doesn't
 * matter. */
static void
remove_tree(int dir, const char *name)
{
	unsigned steps = 0;
	int more = 1;

	while (more && steps++ < STEPS_MAX) {
		DIR *d = open_folder(dir, name);
		const char *entry;

		for (more = 0; d && (entry = next_name(d)) != NULL; more = 1)
			if (!remove_name(dirfd(d), entry))
				lift(dirfd(d), entry, &steps);
		if (d)
			closedir(d);
	}
	(void)remove_name(dir, name);
}

/* All but the lock, which stays locked. */
static void
empty(const struct launcher *l)
{
	remove_tree(l->dir, "control");
	remove_tree(l->dir, "service");
	remove_tree(l->dir, "vmcli");
	remove_tree(l->dir, "admin/socket");
}

/* A folder that is there already must be a run folder, or empty: what is in it will be removed. */
static int
ours(const struct launcher *l)
{
	int fd = openat(l->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	int entries = 0;

	if (!d)
		return 0;
	while ((e = readdir(d)) != NULL)
		entries += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
	closedir(d);
	return entries == 0 || faccessat(l->dir, "admin/lock", F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Make it if need be, and open it: l->dir and l->run. 0 or -errno after a line of log. */
static int
open_run(struct launcher *l, const char *run)
{
	const char *wrong;
	char *absolute = NULL;

	l->run = run;
	if (mkdir(run, 0755) < 0 && errno != EEXIST)
		return fail(l, "can't make the run folder", "");
	/* Not through a link: its owner could let it point elsewhere any time. */
	l->dir = open(run, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (l->dir < 0)
		return fail(
		    l, errno == ENOTDIR || errno == ELOOP ? "not a folder, or a link to one:" : "can't open", "");
	wrong = foreign(l->dir);
	if (wrong)
		log_err("%s can't be the run folder: %s", run, wrong);
	else if (!ours(l))
		log_err("%s is neither empty nor a run folder of vfund's: use another --run", run);
	else if ((absolute = realpath(run, NULL)) != NULL)
		l->run = absolute;
	else
		return fail(l, "can't find", "");
	return absolute ? 0 : -EPERM;
}

/* For everybody, or the users of a group. */
static int
listen_control(const struct launcher *l)
{
	gid_t gid = l->conf->control_gid;
	int fd = rundir_listen(l, "control", SOCK_SEQPACKET, !l->system_mode ? 0600 : gid ? 0660 : 0666);

	if (fd < 0 || !gid || fchownat(l->dir, "control", (uid_t)-1, gid, AT_SYMLINK_NOFOLLOW) == 0)
		return fd;
	(void)fail(l, "can't give a group", "control");
	close(fd);
	return -1;
}

int
rundir_make(struct launcher *l, const char *run, struct rundir *rd)
{
	int fd;

	if (open_run(l, run))
		return EXIT_SYSTEM;
	fd = make_folder(l, "admin", 0700, 0);
	l->lock = fd < 0 ? -1 : lock(l, fd);
	if (l->lock < 0)
		return EXIT_SYSTEM;
	close(fd);
	empty(l);
	rd->service = make_folder(l, "service", 0700, 1);
	fd = make_folder(l, "vmcli", 0755, 0);
	if (fd >= 0)
		close(fd);
	rd->control = listen_control(l);
	rd->admin = rundir_listen(l, "admin/socket", SOCK_SEQPACKET, 0600);
	if (rd->service < 0 || fd < 0 || rd->control < 0 || rd->admin < 0) {
		rundir_remove(l);
		return EXIT_SYSTEM;
	}
	return 0;
}

void
rundir_remove(const struct launcher *l)
{
	struct stat here, there;

	empty(l);
	(void)unlinkat(l->dir, "admin/lock", 0);
	(void)unlinkat(l->dir, "admin", AT_REMOVEDIR);
	if (fstat(l->dir, &here) == 0 && lstat(l->run, &there) == 0 && here.st_ino == there.st_ino &&
	    here.st_dev == there.st_dev)
		(void)rmdir(l->run);
	/* Not left to the end of this process, which others may delay, see kept.c. */
	close(l->lock);
}
