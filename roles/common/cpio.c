/* SPDX-License-Identifier: MIT
 *
 * cpio.c - writing the archive that a kernel unpacks as its initramfs
 *
 * A member is a header of 110 ASCII digits, its name with the NUL, and its content, each padded to 4 bytes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cpio.h"
#include "fd.h"

void
cpio_start(struct cpio *c, int fd)
{
	*c = (struct cpio){ .fd = fd, .ino = 1 };
}

static void
put(struct cpio *c, const void *data, size_t len)
{
	if (!c->err)
		c->err = fd_write_all(c->fd, data, len);
	c->at += len;
}

static void
pad(struct cpio *c)
{
	put(c, "\0\0\0", (size_t)(-c->at & 3));
}

/* `mode` with the file type in it. */
static void
header(struct cpio *c, const char *name, unsigned mode, uint64_t size, unsigned major, unsigned minor)
{
	char h[6 + 13 * 8 + 1];
	size_t namesize = strlen(name) + 1;

	if (!c->err && size > UINT32_MAX)
		c->err = -EFBIG;
	snprintf(h, sizeof(h), "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", c->ino++, mode, 0, 0, 1, 0,
	    (unsigned)size, 0, 0, major, minor, (unsigned)namesize, 0);
	put(c, h, sizeof(h) - 1);
	put(c, name, namesize);
	pad(c);
}

void
cpio_data(struct cpio *c, const char *name, unsigned mode, const void *data, size_t len)
{
	header(c, name, S_IFREG | mode, len, 0, 0);
	put(c, data, len);
	pad(c);
}

void
cpio_folder(struct cpio *c, const char *name, unsigned mode)
{
	header(c, name, S_IFDIR | mode, 0, 0, 0);
}

void
cpio_folders(struct cpio *c, const char *name)
{
	for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
		char *folder = strndup(name, (size_t)(slash - name));

		if (folder)
			cpio_folder(c, folder, 0755);
		else if (!c->err)
			c->err = -ENOMEM;
		free(folder);
	}
}

void
cpio_link(struct cpio *c, const char *name, const char *target)
{
	header(c, name, S_IFLNK | 0777, strlen(target), 0, 0);
	put(c, target, strlen(target));
	pad(c);
}

void
cpio_chardev(struct cpio *c, const char *name, unsigned mode, unsigned major, unsigned minor)
{
	header(c, name, S_IFCHR | mode, 0, major, minor);
}

/* All of a pipe, in memory: its size must be known before its content is written. */
static void
cpio_pipe(struct cpio *c, const char *name, unsigned mode, int from)
{
	char *all = NULL;
	size_t len = 0, room = 0;

	for (;;) {
		ssize_t n;

		if (len == room) {
			char *more = realloc(all, room = room ? 2 * room : 65536);

			if (!more) {
				c->err = c->err ? c->err : -ENOMEM;
				break;
			}
			all = more;
		}
		n = read(from, all + len, room - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			c->err = c->err ? c->err : -errno;
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	cpio_data(c, name, mode, all ? all : "", len);
	free(all);
}

void
cpio_file(struct cpio *c, const char *name, unsigned mode, int from)
{
	static char buf[65536];
	struct stat st;
	off_t at = 0;

	if (fstat(from, &st) || !S_ISREG(st.st_mode)) {
		cpio_pipe(c, name, mode, from);
		return;
	}
	header(c, name, S_IFREG | mode, (uint64_t)st.st_size, 0, 0);
	while (!c->err && at < st.st_size) {
		size_t want = st.st_size - at < (off_t)sizeof(buf) ? (size_t)(st.st_size - at) : sizeof(buf);
		ssize_t n = pread(from, buf, want, at);

		if (n <= 0) { /* 0: it shrank, and the header has promised more */
			c->err = n < 0 ? -errno : -EIO;
			break;
		}
		put(c, buf, (size_t)n);
		at += n;
	}
	pad(c);
}

int
cpio_end(struct cpio *c)
{
	header(c, "TRAILER!!!", 0, 0, 0, 0);
	return c->err;
}
