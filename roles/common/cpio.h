/* SPDX-License-Identifier: MIT
 *
 * cpio.h - writing the archive that a kernel unpacks as its initramfs ("newc",
 * Documentation/driver-api/early-userspace)
 *
 * Everything belongs to root. Errors stick: the first one is what cpio_end() returns, and nothing is written after it,
 * so that callers need to look only there.
 */
#ifndef COMMON_CPIO_H
#define COMMON_CPIO_H

#include <stddef.h>
#include <stdint.h>

struct cpio {
	int fd;
	int err; /* 0, or the first -errno */
	uint64_t at;
	uint32_t ino;
};

void cpio_start(struct cpio *c, int fd);

/* Names without a leading slash. Their folders must have been added before: cpio_folders() adds all of a name's. */
void cpio_folder(struct cpio *c, const char *name, unsigned mode);
void cpio_folders(struct cpio *c, const char *name);
void cpio_link(struct cpio *c, const char *name, const char *target);
void cpio_chardev(struct cpio *c, const char *name, unsigned mode, unsigned major, unsigned minor);
void cpio_data(struct cpio *c, const char *name, unsigned mode, const void *data, size_t len);

/* A regular file's content, from `from`'s beginning; or a pipe's, all of it. */
void cpio_file(struct cpio *c, const char *name, unsigned mode, int from);

/* The trailer. Returns 0 or the first error. */
int cpio_end(struct cpio *c);

#endif
