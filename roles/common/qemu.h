/* SPDX-License-Identifier: MIT
 *
 * qemu.h - what the installed QEMU can do, and what its command line needs for a VM's share
 *
 * QEMU >= 11.1 maps files of a vhost-user back-end into the guest (DAX) behind its generic test device; older ones have
 * vhost-user-fs-pci only: names, control, read and write; and ivshmem-plain, which maps one file into the guest.
 */
#ifndef COMMON_QEMU_H
#define COMMON_QEMU_H

#include <stdint.h>

#define QEMU_DEFAULT "qemu-system-x86_64"
#define QEMU_TAG "vfun" /* the share's virtiofs tag: mount -t virtiofs vfun DIR */
#define QEMU_ARGS_MAX 16

enum qemu_form {
	QEMU_PLAIN, /* vhost-user-fs-pci */
	QEMU_DAX,   /* vhost-user-test-device-pci, QEMU >= 11.1 */
};

struct qemu {
	enum qemu_form form;
	unsigned major, minor;
	int ivshmem; /* 1: it has ivshmem-plain */
};

/* NULL-terminated, ready to be appended to an execv() argument list; the strings live in this struct, don't copy it. */
struct qemu_args {
	int argc;
	char *argv[QEMU_ARGS_MAX + 1];
	char text[2048];
	unsigned used;
};

/* Ask the binary (NULL: QEMU_DEFAULT, found through $PATH) for its version and devices. 0, -ENOENT: can't be executed,
 * -ENODEV: it has neither device or doesn't say what it is, or -errno. */
int qemu_detect(struct qemu *q, const char *binary);

/* The arguments -machine, -m, -object, -chardev, -device for the share behind `socket` and `memory` bytes of guest
 * memory (a multiple of 1 MiB), which a vhost-user device must be able to share. 0, or -ENAMETOOLONG. */
int qemu_share_args(struct qemu_args *a, const struct qemu *q, uint64_t memory, const char *socket);

/* Append -chardev and -device for the share behind `socket`, with DAX. 0, or -ENAMETOOLONG. */
int qemu_dax_args(struct qemu_args *a, const char *socket);

/* Where the device that was appended last has its place: a slot of a bus. 0, or -ENAMETOOLONG. */
int qemu_place(struct qemu_args *a, const char *bus, unsigned slot);

/* Append -object and -device for an ivshmem device over `size` bytes of the file `path`. 0, or -ENAMETOOLONG. */
int qemu_ivshmem_args(struct qemu_args *a, const char *path, uint64_t size);

#endif
