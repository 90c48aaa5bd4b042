/* SPDX-License-Identifier: MIT
 *
 * image.c - the initramfs: this executable, modules, what --add names, and the word of what to do
 *
 * It lives in a memfd, which QEMU opens as /proc/self/fd/N: there is no file to leave behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/cpio.h"
#include "../common/guest.h"
#include "vm.h"

/* A file of the host. 0, or -1 after having said why. */
static int
add_file(struct cpio *c, const char *file, const char *name)
{
	int fd = !strcmp(file, "-") ? dup(0) : open(file, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || (S_ISDIR(st.st_mode) && (errno = EISDIR))) {
		fprintf(stderr, "vfun vm: %s: %s\n", file, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	while (*name == '/')
		name++;
	cpio_folders(c, name);
	cpio_file(c, name, st.st_mode & 0777, fd);
	close(fd);
	return 0;
}

/* FILE[:PATH]; without a path, the file's own name in /. */
static int
add_named(struct cpio *c, const char *add)
{
	const char *colon = strrchr(add, ':');
	char *file = colon ? strndup(add, (size_t)(colon - add)) : strdup(add);
	const char *slash = strrchr(add, '/');
	int r = -1;

	if (file)
		r = add_file(c, file, colon && colon[1] ? colon + 1 : slash ? slash + 1 : add);
	free(file);
	return r;
}

static int
add_modules(struct cpio *c, const struct kernel *k, FILE *spec)
{
	char path[PATH_MAX + 256], name[256];

	for (unsigned i = 0; i < k->modules; i++) {
		const char *base = strrchr(k->module[i], '/');

		snprintf(path, sizeof(path), "%s/%s", k->folder, k->module[i]);
		snprintf(name, sizeof(name), GUEST_MODULES "/%s", base ? base + 1 : k->module[i]);
		if (add_file(c, path, name))
			return -1;
		fprintf(spec, "module=%s%c", name, 0);
	}
	return 0;
}

static void
write_spec(const struct vm_options *o, FILE *spec)
{
	if (o->path != VM_PATH_NONE)
		fprintf(spec, "share=1%c", 0);
	if (o->net)
		fprintf(spec, "net=1%c", 0);
	for (unsigned i = 0; i < o->envs; i++)
		fprintf(spec, "env=%s%c", o->env[i], 0);
	if (o->script)
		fprintf(spec, "script=" GUEST_SCRIPT "%c", 0);
	for (char **a = o->command; *a; a++)
		fprintf(spec, "arg=%s%c", *a, 0);
}

static int
fill(struct cpio *c, const struct vm_options *o, const struct kernel *k, FILE *spec)
{
	static const char *const folders[] = { "bin", "dev", "proc", "sys", "tmp", "run", "etc" };

	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++)
		cpio_folder(c, folders[i], 0755);
	cpio_chardev(c, "dev/console", 0600, 5, 1);
	if (add_file(c, "/proc/self/exe", "vfun"))
		return -1;
	cpio_link(c, "init", "vfun");
	if (add_modules(c, k, spec))
		return -1;
	for (unsigned i = 0; i < o->adds; i++)
		if (add_named(c, o->add[i]))
			return -1;
	if (o->script && add_file(c, o->script, GUEST_SCRIPT))
		return -1;
	if (o->in && add_file(c, o->in, GUEST_STDIN))
		return -1;
	write_spec(o, spec);
	return 0;
}

int
image_make(const struct vm_options *o, const struct kernel *k)
{
	int fd = memfd_create("vfun-initramfs", MFD_CLOEXEC);
	char *text = NULL;
	size_t len = 0;
	FILE *spec = open_memstream(&text, &len);
	struct cpio c;
	int err = -1;

	cpio_start(&c, fd);
	if (fd < 0 || !spec)
		c.err = -errno;
	else if (!(err = fill(&c, o, k, spec)) && fflush(spec))
		c.err = -ENOMEM;
	if (!err && !c.err)
		cpio_data(&c, &GUEST_SPEC[1], 0600, text, len);
	if (!err || c.err) {
		err = cpio_end(&c);
		if (err)
			fprintf(stderr, "vfun vm: making the initramfs: %s\n", strerror(-err));
	}
	if (spec)
		fclose(spec);
	free(text);
	if (err && fd >= 0)
		close(fd);
	return err ? -1 : fd;
}
