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

#include "../common/log.h"
#include "../roles.h"
#include "launcher.h"

#define DEPTH_MAX 8 /* of folders in a run folder: vfund makes 4 */

static int
fail(const char *what, const char *path)
{
	int err = errno;

	log_err("%s %s: %s", what, path, strerror(err));
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

	if (snprintf(path, sizeof(path), "%s/%s", l->run, name) >= (int)sizeof(sa.sun_path)) {
		log_err("%s: a socket's path has %zu characters at most: use a shorter --run", path,
		    sizeof(sa.sun_path) - 1);
		return -ENAMETOOLONG;
	}
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail("socket for", path);
	old = umask(0777 & ~mode);
	r = bind(fd, (struct sockaddr *)&sa, sizeof(sa));
	umask(old);
	if (r < 0 || listen(fd, 128) < 0) {
		r = fail("can't listen on", path);
		close(fd);
		return r;
	}
	return fd;
}

static int
make_folder(const struct launcher *l, const char *name, unsigned mode, int for_engine)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", l->run, name);
	if (mkdir(path, mode) < 0 && errno != EEXIST)
		return fail("can't make", path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return fail("can't open", path);
	if (fchmod(fd, mode) < 0 || (for_engine && l->system_mode && fchown(fd, l->uid, l->gid) < 0)) {
		int r = fail("can't set owner and mode of", path);

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
			return fail("can't open the lock in", l->run);
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			if (errno == EWOULDBLOCK)
				log_err("another vfund serves %s: end it, or use another --run", l->run);
			else
				(void)fail("can't lock", l->run);
			close(fd);
			return -EBUSY;
		}
		if (fstat(fd, &locked) == 0 && fstatat(admin, "lock", &there, AT_SYMLINK_NOFOLLOW) == 0 &&
		    locked.st_ino == there.st_ino && locked.st_dev == there.st_dev)
			return fd; /* held for as long as this process lives */
		close(fd);
	}
}

/* Remove what is called `name` in a folder, and everything in it. Part of it belongs to the engine's user, who may
 * rename and link while we look: each step goes from an open folder to a name in it and follows no link, so it never
 * leaves the tree. */
static void
remove_tree(int dir, const char *name, int depth)
{
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct dirent *e;
	DIR *d;

	if (fd < 0) {
		(void)unlinkat(dir, name, 0);
		return;
	}
	d = fdopendir(fd);
	if (!d) {
		close(fd);
		return;
	}
	while (depth < DEPTH_MAX && (e = readdir(d)) != NULL)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			remove_tree(fd, e->d_name, depth + 1);
	closedir(d);
	(void)unlinkat(dir, name, AT_REMOVEDIR);
}

/* All but the lock, which stays locked. */
static void
empty(const struct launcher *l)
{
	int dir = open(l->run, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return;
	remove_tree(dir, "control", 0);
	remove_tree(dir, "service", 0);
	remove_tree(dir, "vmcli", 0);
	remove_tree(dir, "admin/socket", 0);
	close(dir);
}

/* A folder that is there already must be a run folder, or empty: what is in it will be removed. */
static int
ours(const char *run)
{
	DIR *d = opendir(run);
	struct dirent *e;
	char path[PATH_MAX];
	int entries = 0;

	if (!d)
		return 0;
	while ((e = readdir(d)) != NULL)
		entries += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
	closedir(d);
	snprintf(path, sizeof(path), "%s/admin/lock", run);
	return entries == 0 || access(path, F_OK) == 0;
}

int
rundir_make(struct launcher *l, const char *run, struct rundir *rd)
{
	char *absolute;
	int fd;

	if (mkdir(run, 0755) < 0 && errno != EEXIST) {
		(void)fail("can't make the run folder", run);
		return EXIT_SYSTEM;
	}
	absolute = realpath(run, NULL);
	if (!absolute) {
		(void)fail("can't find", run);
		return EXIT_SYSTEM;
	}
	l->run = absolute;
	if (!ours(absolute)) {
		log_err("%s is neither empty nor a run folder of vfund's: use another --run", run);
		return EXIT_SYSTEM;
	}
	fd = make_folder(l, "admin", 0700, 0);
	if (fd < 0 || lock(l, fd) < 0)
		return EXIT_SYSTEM;
	close(fd);
	empty(l);
	rd->service = make_folder(l, "service", 0755, 1);
	fd = make_folder(l, "vmcli", 0755, 0);
	if (fd >= 0)
		close(fd);
	rd->control = rundir_listen(l, "control", SOCK_SEQPACKET, l->system_mode ? 0666 : 0600);
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
	char path[PATH_MAX];

	empty(l);
	snprintf(path, sizeof(path), "%s/admin/lock", l->run);
	(void)remove(path);
	snprintf(path, sizeof(path), "%s/admin", l->run);
	(void)remove(path);
	(void)remove(l->run);
}
