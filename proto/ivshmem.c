/* SPDX-License-Identifier: MIT
 *
 * ivshmem.c - the client's side of path ivshmem: finding the VM's BAR among the guest's PCI devices
 *
 * Theory of operation
 *
 * A VM may have several ivshmem devices, most of them none of ours, and what they hold may come from anybody. vfund
 * tells, in the grant, a random number that it has written into the first page of the right one, so the BAR that shows
 * it is the right one; what it is used for afterwards is checked again: the region's header, and an echo through it.
 *
 * The BAR is mapped through sysfs, as resource2, which asks for a capable process and a kernel that isn't locked down:
 * root, in practice. Its file, not resource2_wc: with write combining stores may wait in the processor and overtake
 * each other, so that a seq is seen before its payload, or late. resource2 is strongly ordered and never late; where
 * the processor goes by the guest's memory types (AMD; not Intel with KVM, not TCG) that makes it uncached, hence
 * slower than DAX, and still right.
 *
 * read() on resource2 fails, so that even looking needs a mapping. The firmware must have switched the device's memory
 * on, as SeaBIOS does; where it hasn't, all that is read is ones, and the device isn't ours.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client.h"

#define DEVICES "/sys/bus/pci/devices"

/* One of a device's numbers, as sysfs has them: "0x1af4\n". */
static unsigned long
number(int dir, const char *device, const char *name)
{
	char path[64];
	char text[32];
	ssize_t n;
	int fd;

	if (snprintf(path, sizeof(path), "%s/%s", device, name) >= (int)sizeof(path))
		return 0;
	fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return strtoul(text, NULL, 16);
}

/* Does the first page say that this is it? 0, or -errno. */
static int
check(int fd, uint64_t bar, uint64_t *size)
{
	const volatile struct vfun_bar *page;
	struct stat st;
	int r = 0;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size < 2 * (off_t)VFUN_PAGE)
		return -ENXIO;
	page = mmap(NULL, VFUN_PAGE, PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return -errno;
	if (page->magic != VFUN_BAR_MAGIC || page->id != bar || page->size != (uint64_t)st.st_size)
		r = -ENXIO;
	munmap((void *)(uintptr_t)page, VFUN_PAGE);
	*size = (uint64_t)st.st_size;
	return r;
}

int
ivshmem_open(uint64_t bar, uint64_t *size)
{
	DIR *d = opendir(DEVICES);
	struct dirent *e;
	int found = -ENXIO;

	if (!d)
		return -ENXIO;
	while (found < 0 && (e = readdir(d)) != NULL) {
		char path[64];
		int fd;
		int r;

		if (e->d_name[0] == '.' || number(dirfd(d), e->d_name, "vendor") != VFUN_PCI_VENDOR ||
		    number(dirfd(d), e->d_name, "device") != VFUN_PCI_DEVICE)
			continue;
		snprintf(path, sizeof(path), "%.48s/resource2", e->d_name);
		fd = openat(dirfd(d), path, O_RDWR | O_CLOEXEC);
		r = fd < 0 ? -errno : check(fd, bar, size);
		if (!r) {
			found = fd;
			continue;
		}
		/* What keeps this user from looking is a better explanation than that there is nothing. */
		if (r == -EACCES || r == -EPERM)
			found = r;
		if (fd >= 0)
			close(fd);
	}
	closedir(d);
	return found;
}
