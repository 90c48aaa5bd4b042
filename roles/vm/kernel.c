/* SPDX-License-Identifier: MIT
 *
 * kernel.c - a kernel image, and the modules without which it finds no share and no network
 *
 * An x86 bzImage names its release itself (Documentation/arch/x86/boot.rst): magic "HdrS" at 0x202, and at 0x20e the
 * offset, less 0x200, of a string that starts with the release. The rest is what depmod(8) wrote: modules.dep has lines
 * "module: what it depends on, the first to load last", modules.builtin has what needs no loading.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../roles.h"
#include "kernel.h"

static const char *const wanted[] = { "virtio_pci", "virtiofs", "virtio_net" }; /* any device, share, network */

#define HOW_TO_GET "install linux-image-cloud-amd64, or name another with --kernel"

/* The newest readable /boot/vmlinuz-*, by version order as `sort -V` has it; with `part` in its name. 1 if there is
 * one.
 */
static int
newest(const char *part, char *path, size_t room)
{
	char best[256] = "", probe[PATH_MAX];
	DIR *boot = opendir("/boot");
	struct dirent *e;

	while (boot && (e = readdir(boot)) != NULL) {
		snprintf(probe, sizeof(probe), "/boot/%s", e->d_name);
		if (!strncmp(e->d_name, "vmlinuz-", 8) && strstr(e->d_name, part) && strverscmp(e->d_name, best) > 0 &&
		    !access(probe, R_OK))
			snprintf(best, sizeof(best), "%s", e->d_name);
	}
	if (boot)
		closedir(boot);
	snprintf(path, room, "/boot/%s", best);
	return best[0] != '\0';
}

static int
read_release(struct kernel *k, int fd)
{
	unsigned char h[0x210];
	char version[sizeof(k->release)];
	ssize_t n;

	if (pread(fd, h, sizeof(h), 0) != sizeof(h) || memcmp(h + 0x202, "HdrS", 4))
		return 0;
	n = pread(fd, version, sizeof(version) - 1, 0x200 + (h[0x20e] | h[0x20f] << 8));
	if (n <= 0)
		return 0;
	version[n] = '\0';
	version[strcspn(version, " \n")] = '\0';
	if (!version[0] || strchr(version, '/'))
		return 0;
	memcpy(k->release, version, sizeof(version));
	return 1;
}

int
kernel_find(struct kernel *k, const char *image)
{
	int fd, ok;

	memset(k, 0, sizeof(*k));
	if (image) {
		snprintf(k->image, sizeof(k->image), "%s", image);
	} else if (!newest("cloud", k->image, sizeof(k->image)) && !newest("", k->image, sizeof(k->image))) {
		fprintf(stderr, "vfun vm: no readable kernel in /boot: " HOW_TO_GET "\n");
		return EXIT_SYSTEM;
	}
	fd = open(k->image, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		fprintf(stderr, "vfun vm: %s: %s: " HOW_TO_GET "\n", k->image, strerror(errno));
		return EXIT_SYSTEM;
	}
	ok = read_release(k, fd);
	close(fd);
	if (!ok) {
		fprintf(stderr, "vfun vm: %s is not an x86 kernel image (bzImage): " HOW_TO_GET "\n", k->image);
		return EXIT_SYSTEM;
	}
	return 0;
}

/* Is there a modules.dep or modules.builtin in this folder? Then it is the one. */
static int
folder_is(struct kernel *k, const char *base, int base_len, const char *below, const char *release)
{
	char probe[PATH_MAX + 32];

	snprintf(k->folder, sizeof(k->folder), "%.*s%s%s", base_len, base, below, release);
	snprintf(probe, sizeof(probe), "%s/modules.dep", k->folder);
	if (!access(probe, R_OK))
		return 1;
	snprintf(probe, sizeof(probe), "%s/modules.builtin", k->folder);
	if (!access(probe, R_OK))
		return 1;
	k->folder[0] = '\0';
	return 0;
}

static int
find_folder(struct kernel *k, const char *dir)
{
	char image[PATH_MAX];
	int len;

	if (dir) {
		int n = (int)strlen(dir);

		return folder_is(k, dir, n, "/lib/modules/", k->release) ||
		       folder_is(k, dir, n, "/usr/lib/modules/", k->release) || folder_is(k, dir, n, "/", k->release) ||
		       folder_is(k, dir, n, "", "");
	}
	if (!realpath(k->image, image))
		return 0;
	len = (int)(strrchr(image, '/') - image);
	return folder_is(k, image, len, "", "") || folder_is(k, image, len, "/../lib/modules/", k->release) ||
	       folder_is(k, image, len, "/../usr/lib/modules/", k->release) ||
	       folder_is(k, "", 0, "/lib/modules/", k->release);
}

/* Does this path (which ends at a blank, a colon or a NUL) name the module? "-" and "_" are the same, and a suffix may
 * say how it is compressed. */
static int
names(const char *path, const char *name)
{
	size_t len = strcspn(path, ": \n");
	const char *base = path + len;

	while (base > path && base[-1] != '/')
		base--;
	for (; *name; name++, base++)
		if ((*base == '-' ? '_' : *base) != (*name == '-' ? '_' : *name))
			return 0;
	return !strncmp(base, ".ko", 3);
}

/* The line of a file in the folder whose first word is `name`'s module; malloced, NULL if there is none. */
static char *
find_line(const struct kernel *k, const char *file, const char *name)
{
	char path[PATH_MAX + 32], *line = NULL;
	size_t room = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", k->folder, file);
	f = fopen(path, "re");
	if (!f)
		return NULL;
	for (;;) {
		if (getline(&line, &room, f) < 0) {
			free(line);
			line = NULL;
			break;
		}
		if (names(line, name))
			break;
	}
	fclose(f);
	return line;
}

/* Append, once. 0 if there is no room. */
static int
add(struct kernel *k, const char *path)
{
	for (unsigned i = 0; i < k->modules; i++)
		if (!strcmp(k->module[i], path))
			return 1;
	if (k->modules == KERNEL_MODULES_MAX)
		return 0;
	k->module[k->modules] = strdup(path);
	return k->module[k->modules] && ++k->modules;
}

/* One line of modules.dep: its words from the last to the first are the order in which to load. */
static int
add_line(struct kernel *k, char *line)
{
	char *word[KERNEL_MODULES_MAX + 1], *save = NULL;
	int n = 0;

	for (char *w = strtok_r(line, ": \n", &save); w; w = strtok_r(NULL, ": \n", &save)) {
		if (n > KERNEL_MODULES_MAX)
			return 0;
		word[n++] = w;
	}
	while (n > 0)
		if (!add(k, word[--n]))
			return 0;
	return 1;
}

int
kernel_modules(struct kernel *k, const char *dir, int share, int network)
{
	const int want[] = { 1, share, network };

	if (!find_folder(k, dir)) {
		if (!dir)
			return 0;
		fprintf(
		    stderr, "vfun vm: no modules of kernel %s in %s: see --modules in vfun-vm(1)\n", k->release, dir);
		return EXIT_SYSTEM;
	}
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		char *line = want[i] ? find_line(k, "modules.dep", wanted[i]) : NULL;
		int ok = !line || add_line(k, line);

		free(line);
		if (!ok) {
			fprintf(stderr, "vfun vm: %s/modules.dep: %s needs too many modules\n", k->folder, wanted[i]);
			return EXIT_SYSTEM;
		}
	}
	return 0;
}

void
kernel_free(struct kernel *k)
{
	while (k->modules > 0)
		free(k->module[--k->modules]);
}
