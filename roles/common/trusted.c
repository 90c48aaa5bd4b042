/* SPDX-License-Identifier: MIT
 *
 * trusted.c - opening what only the administrator can change
 *
 * Step by step from / on: whoever may write to a folder on the way could put something else there.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trusted.h"

/* NULL, or why others could put something else in its place. */
static const char *
foreign(const struct stat *st)
{
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return "belongs neither to root nor to vfund's user";
	/* In a folder with the sticky bit nobody can touch what is somebody else's. */
	if ((st->st_mode & 022) && !(S_ISDIR(st->st_mode) && (st->st_mode & S_ISVTX)))
		return "may be written to by others: chmod go-w";
	return NULL;
}

/* One step further down the path. A descriptor, or -errno with a sentence. */
static int
step(int dir, const char *path, const char *name, int flags, int owners, char why[TRUSTED_WHY])
{
	int fd = openat(dir, name, flags | O_NOFOLLOW | O_CLOEXEC);
	int r = fd < 0 ? -errno : 0;
	struct stat st = { .st_mode = 0 };
	const char *fault = NULL;

	if (!r && fstat(fd, &st) < 0)
		r = -errno;
	if (r == -ENOTDIR)
		fault = "is no folder, or a symbolic link: name the place itself";
	else if (r == -ELOOP || (!r && S_ISLNK(st.st_mode)))
		fault = "is a symbolic link: name the place itself";
	else if (r)
		fault = strerror(-r);
	else if (owners)
		fault = foreign(&st);
	if (!fault)
		return fd;
	snprintf(why, TRUSTED_WHY, "%s %s", *path ? path : "/", fault);
	if (fd >= 0)
		close(fd);
	return r ? r : -EPERM;
}

int
trusted_open(const char *path, int flags, int owners, char why[TRUSTED_WHY])
{
	char so_far[PATH_MAX];
	int dir = step(AT_FDCWD, "/", "/", O_PATH | O_DIRECTORY, owners, why);
	const char *name = path + strspn(path, "/");

	while (dir >= 0 && *name) {
		size_t n = strcspn(name, "/");
		const char *next = name + n + strspn(name + n, "/");
		char part[PATH_MAX];
		int fd;

		snprintf(part, sizeof(part), "%.*s", (int)n, name);
		snprintf(so_far, sizeof(so_far), "%.*s", (int)(name + n - path), path);
		fd = step(dir, so_far, part, *next ? O_PATH | O_DIRECTORY : flags, owners, why);
		close(dir);
		dir = fd;
		name = next;
	}
	return dir;
}
