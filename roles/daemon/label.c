/* SPDX-License-Identifier: MIT
 *
 * label.c - SELinux labels for what a confined QEMU reaches: its VM's socket, its ivshmem memory, and the memory of its
 * VM's instances
 *
 * Theory of operation
 *
 * QEMU's connect() is checked twice: may it write to the socket's file, and may it connect to what listens? So there
 * are two labels. libvirt gives each domain the same label but for its categories, which it draws when the domain
 * starts; the socket is there before. So what listens has the label without categories, which that of every domain
 * dominates: SELinux lets any confined QEMU connect, as the socket's owner lets any process of QEMU's user. But for the
 * categories, that is what libvirt does for a virtiofsd of its own.
 *
 * Who listens is labelled by what socket() finds in /proc/thread-self/attr/sockcreate; files, among them the memory,
 * by an attribute. Neither takes a library, and on a kernel without SELinux nothing is done, since libvirt has no
 * labels there.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "../common/log.h"
#include "launcher.h"

#define XATTR "security.selinux"

int
label_sockets(const char *label)
{
	int fd = open("/proc/thread-self/attr/sockcreate", O_WRONLY | O_CLOEXEC);
	size_t size = strlen(label) + 1;
	int r = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, label, size) != (ssize_t)size)
		r = -errno;
	close(fd);
	return r;
}

int
label_file(int dir, const char *name, const char *label)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dir, name);
	return lsetxattr(path, XATTR, label, strlen(label) + 1, 0) < 0 ? -errno : 0;
}

void
label_failed(const char *vm, const char *what, const char *label, int r)
{
	log_warn(
	    "VM %s: its %s can't be labelled %s for SELinux, and a confined QEMU won't reach it: %s: vfund's domain "
	    "must be allowed to, see vfun-domain(1)",
	    vm, what, label, strerror(-r));
}

void
label_memory(const struct vm *vm, int fd, const char *what)
{
	const char *label = vm->qemu->file_label;

	if (label[0] && fsetxattr(fd, XATTR, label, strlen(label) + 1, 0) < 0)
		label_failed(vm->l->conf->vm[vm - vm->l->vm].name, what, label, -errno);
}
