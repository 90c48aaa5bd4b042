/* SPDX-License-Identifier: MIT
 *
 * outfile.c - the file of vfun call's -o: the whole result, or what was there before
 *
 * A new file, or one that is the caller's own and has one name, is written under another name beside it, which becomes
 * the file's when all is written. Whatever else there is (a device, a pipe, a file with several names or of another
 * user, one in a folder that can't be written to) is written to as it is, and emptied where that fails.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "call.h"

/* Is this to be replaced? Mode: that of the new one. */
static int
replaced(const char *name, mode_t *mode)
{
	mode_t mask = umask(0);
	struct stat st;

	(void)umask(mask);
	*mode = 0666 & ~mask;
	if (!strncmp(name, "/dev/", 5) || !strncmp(name, "/proc/", 6))
		return 0;
	if (stat(name, &st) < 0)
		return errno == ENOENT && lstat(name, &st) < 0; /* a link to nothing stays one */
	*mode = st.st_mode & 07777;
	return S_ISREG(st.st_mode) && st.st_nlink == 1 && st.st_uid == geteuid() && !access(name, W_OK);
}

/* The file under another name. */
static FILE *
beside(struct outfile *o, mode_t mode)
{
	FILE *f = NULL;
	int fd;

	if (asprintf(&o->written, "%s.vfun-XXXXXX", o->name) < 0)
		o->written = NULL;
	fd = o->written ? mkostemp(o->written, O_CLOEXEC) : -1;
	if (fd >= 0 && !fchmod(fd, mode))
		f = fdopen(fd, "w");
	if (!f && fd >= 0) {
		close(fd);
		unlink(o->written);
	}
	if (!f) {
		free(o->written);
		o->written = NULL;
	}
	return f;
}

int
outfile_open(struct outfile *o, const char *name)
{
	mode_t mode;

	*o = (struct outfile){ .f = NULL };
	/* A limit of file sizes shall be an error, so that nothing is left behind. */
	signal(SIGXFSZ, SIG_IGN);
	o->name = realpath(name, NULL); /* a link stays one */
	if (!o->name)
		o->name = strdup(name);
	if (!o->name)
		return -ENOMEM;
	if (replaced(name, &mode))
		o->f = beside(o, mode);
	if (!o->f)
		o->f = fopen(o->name, "we");
	if (!o->f) {
		int e = -errno;

		free(o->name);
		return e;
	}
	return 0;
}

/* All that was written is there: 0 or -errno. */
static int
finish(struct outfile *o)
{
	struct stat st;
	int e = 0;

	if (fflush(o->f) || ferror(o->f))
		e = errno ? -errno : -EIO;
	if (!e && !fstat(fileno(o->f), &st) && S_ISREG(st.st_mode) && fsync(fileno(o->f)) < 0 && errno != EINVAL)
		e = -errno;
	if (e && !o->written && ftruncate(fileno(o->f), 0) < 0)
		errno = -e; /* a device, or a pipe */
	if (fclose(o->f) && !e)
		e = -errno;
	return e;
}

int
outfile_close(struct outfile *o)
{
	int e = finish(o);

	if (o->written && !e && rename(o->written, o->name) < 0)
		e = -errno;
	if (o->written && e)
		unlink(o->written);
	free(o->written);
	free(o->name);
	return e;
}
