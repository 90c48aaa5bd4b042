/* SPDX-License-Identifier: MIT
 *
 * view.c - what a service with a device sees of the host: libraries, and the device; or a program: libraries and files
 *
 * XRT's libraries are loaded inside the confinement, from the host's folders of libraries, read-only. Of a card there
 * are its render node and what the kernel tells of PCI devices in /sys, read-only. In place of a card there is the
 * model's socket, where XRT's emulation shim looks for it: /tmp/$USER/$EMULATION_SOCKETID.
 *
 * XRT reads /proc/self/exe to find its xrt.ini beside the executable: a link to nowhere does for that, and no process
 * can be seen in such a /proc.
 */
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "view.h"

#define XILINX 0x10ee

/* Keep the emulation shim from starting a model of its own, and from waiting for one to end. */
static const char ini[] = "[Runtime]\nruntime_log=null\nverbosity=0\n[Emulation]\ndont_run=true\nkeep_run_dir=true\n";

/* The card that the shim believes in. */
static const char emconfig[] =
    "{\"Version\":{\"FileVersion\":\"2.0\",\"ToolVersion\":\"2022.1\"},\"Platform\":{\"Name\":\"model\","
    "\"Boards\":[{\"NumBoards\":\"1\",\"Devices\":[{\"Name\":\"xilinx:pcie-hw-em:7v3:1.0\",\"HalMajorVersion\":\"0\","
    "\"HalMinorVersion\":\"0\",\"VendorId\":\"4334\",\"SubsystemVendorId\":\"0\",\"DeviceVersion\":\"0\","
    "\"DdrBanks\":[{\"Size\":\"4GB\"}],\"OclFreqency\":\"300\"}]}]}}\n";

static unsigned
read_hex(const char *path)
{
	char buf[32] = "";
	FILE *f = fopen(path, "re");

	if (!f)
		return 0;
	if (!fgets(buf, sizeof(buf), f))
		buf[0] = '\0';
	fclose(f);
	return (unsigned)strtoul(buf, NULL, 16);
}

/* The render node DRM makes for a card, if it is the card that is wanted: by index, any of Xilinx's. */
static int
is_wanted(const char *node, const char *device)
{
	char path[300];
	char target[256];
	char *last;
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/class/drm/%s/device/vendor", node);
	if (read_hex(path) != XILINX)
		return 0;
	if (!strchr(device, ':'))
		return 1;
	snprintf(path, sizeof(path), "/sys/class/drm/%s/device", node);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return 0;
	target[n] = '\0';
	last = strrchr(target, '/');
	return last && !strcmp(last + 1, device);
}

static unsigned
add_cards(struct view *v, const char *device)
{
	DIR *dir = opendir("/dev/dri");
	unsigned found = 0;
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		struct stat st;
		char *path = v->n < VIEW_MAX ? v->text[v->n] : NULL;

		if (!path || strncmp(e->d_name, "renderD", 7) || !is_wanted(e->d_name, device))
			continue;
		snprintf(path, sizeof(v->text[0]), "/dev/dri/%.60s", e->d_name);
		if (stat(path, &st) == 0 && S_ISCHR(st.st_mode)) {
			if (st.st_gid && (st.st_mode & 0060) == 0060)
				v->gid = st.st_gid;
			view_add(v, VIEW_DEVICE, path + 1, path);
			found++;
		}
	}
	if (dir)
		closedir(dir);
	return found;
}

/* Where nobody listens, XRT's shim would take the model's place, and wait. */
static int
answers(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int ok;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	ok = fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0;
	if (fd >= 0)
		close(fd);
	return ok;
}

static int
add_model(struct view *v, const struct xrt_desc *d)
{
	const char *id = strrchr(d->emulated, '/') + 1;
	struct stat st;
	char *path;

	v->lacking = "the model that takes the card's place doesn't run: its socket isn't there";
	if (stat(d->emulated, &st) < 0 || !S_ISSOCK(st.st_mode))
		return -ENODEV;
	v->lacking = "the model that takes the card's place doesn't answer";
	if (!answers(d->emulated))
		return -ENODEV;
	view_add(v, VIEW_SCRATCH, "tmp", NULL);
	path = v->text[v->n];
	snprintf(path, sizeof(v->text[0]), "tmp/vfun/%s", id);
	view_add(v, VIEW_SOCKET, path, d->emulated);
	view_add(v, VIEW_TEXT, "xrt.ini", ini);
	view_add(v, VIEW_TEXT, "emconfig.json", emconfig);
	return 0;
}

/* Does this executable ask for a dynamic loader? */
static int
is_dynamic(int fd)
{
	Elf64_Ehdr h;
	Elf64_Phdr p;

	if (pread(fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h) || h.e_phentsize != sizeof(p))
		return 0;
	for (unsigned i = 0; i < h.e_phnum; i++)
		if (pread(fd, &p, sizeof(p), (off_t)(h.e_phoff + i * sizeof(p))) == (ssize_t)sizeof(p) &&
		    p.p_type == PT_INTERP)
			return 1;
	return 0;
}

/* Is it below something that is seen already? */
static int
is_seen(const struct view *v, const char *path)
{
	for (unsigned i = 0; i < v->n; i++) {
		size_t n = strlen(v->list[i].path);

		if (!strncmp(path, v->list[i].path, n) && (path[n] == '/' || !path[n]))
			return 1;
	}
	return 0;
}

int
view_program(struct view *v, const struct program_desc *d, int fd)
{
	char *save = NULL;

	if (is_dynamic(fd)) {
		view_add_libraries(v);
		view_add_files(v, "/usr/local/lib");
	}
	memcpy(v->files, d->files, sizeof(v->files));
	for (char *s = strtok_r(v->files, " \t,", &save); s; s = strtok_r(NULL, " \t,", &save)) {
		struct stat st;

		v->lacking = s;
		if (stat(s, &st) < 0)
			return -ENOENT;
		if (is_seen(v, s + 1))
			continue;
		view_add(v, VIEW_FILES, s + 1, s);
		v->list[v->n - 1].trusted = 1;
	}
	return 0;
}

int
view_make(struct view *v, const struct xrt_desc *d)
{
	view_add_libraries(v);
	view_add_files(v, "/opt/xilinx/xrt");
	view_add(v, VIEW_LINK, "proc/self/exe", "/vfun");
	if (d->emulated[0])
		return add_model(v, d);
	view_add_files(v, "/sys/bus/pci");
	view_add_files(v, "/sys/devices");
	v->lacking = "no such card: there is no render node of XRT's driver xocl for it";
	return add_cards(v, d->device) ? 0 : -ENODEV;
}
